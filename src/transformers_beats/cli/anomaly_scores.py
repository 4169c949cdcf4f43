# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""`transformers-beats anomalies score`: clips against the normal ones of a detector."""

import json as json_format
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from transformers_beats.audio.files import AudioFile, check_names
from transformers_beats.inference.records import OK, SKIPPED, STATUS
from transformers_beats.utils.errors import FOREIGN_ERRORS, UsageError, first_line
from transformers_beats.utils.files import check_folder_of, make_directory, replace_file
from transformers_beats.utils.messages import warn
from transformers_beats.utils.numbers import format_number
from transformers_beats.utils.table import print_table, to_csv

from .notes import DecoderNotes, decoder_notes
from .options import Device, Json, MovedModel
from .processing import Open, ends_output, find_inputs, finish, has_seconds_bar, note_left_out, process
from .writers import OutputError, write_standard_output


if TYPE_CHECKING:
    import numpy as np

    from transformers_beats.anomalies.detector import AnomalyDetector
    from transformers_beats.anomalies.roles import Role
    from transformers_beats.audio.decoding import AudioReport
    from transformers_beats.inference.windowed import WindowedInference


# Columns of a CSV of scores, before the status.
COLUMNS = ("file", "machine", "domain", "label", "score", "p_value", "anomalous", "band_low_hz", "band_high_hz")


def score(
    detector: Annotated[Path, typer.Argument(metavar="DETECTOR", help="File that `anomalies fit` has written.")],
    inputs: Annotated[
        list[str],
        typer.Argument(metavar="FILE_OR_FOLDER...", help="Audio files and folders of them; - for standard input."),
    ],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE.csv", help="CSV of all clips.")
    ] = None,
    json: Json = False,
    rate: Annotated[
        float | None,
        typer.Option(
            "--false-alarm-rate",
            metavar="RATE",
            help="In place of the rate that DETECTOR was fitted for.",
            show_default=False,
        ),
    ] = None,
    explain: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Draw the clips of the table: which band and which moment."),
    ] = None,
    top: Annotated[int, typer.Option(min=1, metavar="N", help="Clips of the table, the least normal first.")] = 10,
    model: MovedModel = None,
    batch_size: Annotated[int, typer.Option(min=1, metavar="N", help="Windows in a batch.")] = 8,
    device: Device = "auto",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace FILE.csv.")] = False,
) -> None:
    """
    Score clips with a detector: how unlike normal clips they are.

    The p-value is the share of normal clips with such a score; a clip is anomalous if that is no more than
    --false-alarm-rate. Where labels are known, by the names of DCASE's task 2 or folders `normal` and `abnormal`,
    its metrics follow.
    """
    from transformers_beats.anomalies.roles import assign_tests

    if output is not None:
        if output.suffix.lower() != ".csv":
            raise UsageError(f"{output}: scores are CSV: choose a name that ends in .csv.")
        check_folder_of(output, overwrite)
    found = find_inputs(inputs)
    roles = assign_tests(found, [path for path in map(Path, inputs) if path.is_file()])
    files = [role.file for role in roles]
    if explain is not None:
        from transformers_beats.plotting.figures import check_matplotlib

        check_matplotlib()
        check_names(files)
    with decoder_notes() as notes:
        # From here on, torch is imported.
        from transformers_beats.anomalies.detector import AnomalyDetector
        from transformers_beats.inference.loading import load_again
        from transformers_beats.inference.windowed import WindowedInference

        fitted = AnomalyDetector.load(detector)
        fitted.false_alarm_rate = fitted.false_alarm_rate if rate is None else rate
        # A rate that the clips cannot tell is refused before anything is computed.
        for machine in dict.fromkeys(role.machine for role in roles):
            fitted.threshold(machine=machine)
        note_left_out(len(found) - len(files), "no test clips")
        loaded = load_again(detector, fitted.model, fitted.fingerprint, device, fitted.dtype, model)
        inference = WindowedInference(*loaded, batch_size=batch_size, progress=has_seconds_bar(files))
        if explain is not None:
            make_directory(explain)
        records, failures = score_files(fitted, inference, roles, notes)
        # Before anything else can fail.
        if output is not None:
            write_scores(output, records)
        ranked = sorted(
            (record for record in records if record["status"] == OK),
            key=lambda record: (record["p_value"], -record["score"]),
        )[:top]
        by_address = {role.file.address: role for role in roles}
        if json:
            for record in records:
                write_standard_output(json_format.dumps(record) + "\n")
        else:
            print_scores(ranked, {address: role.file.short_name for address, role in by_address.items()})
            print_metrics(records)
        if explain is not None:
            shown = [(by_address[record["file"]], record) for record in ranked]
            failures += draw_all(fitted, inference, shown, notes, explain)
    used = [record for record in records if record["status"] == OK]
    closing = [
        f"{sum(record['anomalous'] for record in used)} of {len(used)} clips are anomalous at a rate of false alarms "
        f"of {fitted.false_alarm_rate:g}."
    ]
    closing += [f"Scores: {output}"] if output is not None else []
    closing += [f"Pictures: {explain}"] if explain is not None else []
    finish(files, failures, *closing)


def score_files(
    detector: "AnomalyDetector", inference: "WindowedInference", roles: list["Role"], notes: DecoderNotes
) -> tuple[list[dict[str, Any]], list[str]]:
    """Returns the record of each file, in their order, and a line for each that cannot be used."""
    from transformers_beats.anomalies.embedding import embed_clips
    from transformers_beats.plotting.spectrogram import band_edges

    by_file = {role.file: role for role in roles}
    extractor = inference.feature_extractor
    records: dict[AudioFile, dict[str, Any]] = {}
    in_bank: list[str] = []

    def compute(todo: Sequence[AudioFile], open_file: Open) -> Iterator["np.ndarray"]:
        return embed_clips(inference, map(open_file, todo), detector.settings)

    def begin(file: AudioFile) -> dict[str, Any]:
        role = by_file[file]
        label = {None: None, False: "normal", True: "anomaly"}[role.is_anomalous]
        return {"file": file.address, "machine": role.machine, "domain": role.domain, "label": label}

    def add(file: AudioFile, values: "np.ndarray", report: "AudioReport") -> None:
        machine = by_file[file].machine
        bank = detector.bank_of(machine)
        _, (parts,) = bank.closest(values[None])
        value = parts.mean(keepdims=True)[0]
        edges = band_edges(values.shape[1], extractor.feature_size, extractor.sampling_rate)
        band = int(parts.mean(axis=0).argmax())
        if bank.holds(values[None])[0]:
            in_bank.append(file.name)
        records[file] = {
            **begin(file),
            "score": round(float(value[0]), 6),
            "p_value": round(float(detector.p_values(value, machine)[0]), 6),
            "anomalous": bool(value[0] > detector.threshold(machine=machine)),
            "band_low_hz": round(float(edges[band])) if len(edges) > 2 else None,
            "band_high_hz": round(float(edges[band + 1])) if len(edges) > 2 else None,
            "warnings": report.warnings,
            "status": OK,
            "reason": "",
        }

    def skip(file: AudioFile, reason: str) -> None:
        empty = dict.fromkeys(COLUMNS[4:])
        records[file] = {**begin(file), **empty, "warnings": [], "status": SKIPPED, "reason": reason}

    files = [role.file for role in roles]
    failures = process(files, None, notes, extractor.sampling_rate, compute, add, skip)
    if in_bank:
        warn(
            f"{len(in_bank)} clips, such as {in_bank[0]}, are among the normal clips of the detector: their scores "
            "are lower than those of new clips."
        )
    return [records[file] for file in files if file in records], failures


def draw_all(
    detector: "AnomalyDetector",
    inference: "WindowedInference",
    shown: list[tuple["Role", dict[str, Any]]],
    notes: DecoderNotes,
    folder: Path,
) -> list[str]:
    """Draws the explanations of clips, and returns a line for each that could not be drawn."""
    from transformers_beats.anomalies.embedding import read_columns
    from transformers_beats.anomalies.explanation import explain
    from transformers_beats.plotting.anomaly import draw_anomaly
    from transformers_beats.plotting.spectrogram import SpectrogramReader

    failures = []
    extractor = inference.feature_extractor
    for role, record in shown:
        try:
            reader = SpectrogramReader(extractor)
            stream = reader.follow(notes.open(role.file, extractor.sampling_rate))
            columns = next(read_columns(inference, [stream], detector.settings))
            found = explain(columns, detector.bank_of(role.machine), detector.settings)
            path = role.file.result(folder, ".png")
            path.parent.mkdir(parents=True, exist_ok=True)
            verdict = "anomalous" if record["anomalous"] else "normal"
            numbers = f"score {format_number(found.score)}, p {format_number(record['p_value'])}: {verdict}"
            title = f"{role.file.short_name}    {numbers}"
            draw_anomaly(reader.spectrogram(), found.bands, found.moments, found.moment_seconds, path, title)
        except FOREIGN_ERRORS as error:
            if ends_output(error):
                raise
            failures.append(f"{role.file.name}: no picture: {first_line(error, role.file.name)}")
    return failures


def print_scores(records: list[dict[str, Any]], names: dict[str, str]) -> None:
    """Prints the clips that are least normal."""
    if not records:
        return
    has_bands = any(record["band_low_hz"] is not None for record in records)
    rows = [
        [
            names[record["file"]],
            format_number(record["score"]),
            format_number(record["p_value"]),
            "yes" if record["anomalous"] else "no",
            *([f"{record['band_low_hz']} to {record['band_high_hz']}"] if has_bands else []),
        ]
        for record in records
    ]
    print_table(["File", "Score", "p", "Anomalous", *(["Band (Hz)"] if has_bands else [])], rows)


def print_metrics(records: list[dict[str, Any]]) -> None:
    """Prints the metrics of each machine, and the official score, of clips whose labels are known."""
    known = [record for record in records if record["status"] == OK and record["label"] is not None]
    if not known:
        return
    import numpy as np

    from transformers_beats.anomalies.dcase import measure_section, official_score

    # Without domains there is one AUC.
    aucs = ["AUC source", "AUC target"] if any(record["domain"] for record in known) else ["AUC"]
    rows, measured = [], []
    for machine in dict.fromkeys(record["machine"] for record in known):
        own = [record for record in known if record["machine"] == machine]
        labels, called = (
            np.array([record[name] in (True, "anomaly") for record in own]) for name in ("label", "anomalous")
        )
        scores, domains = [record["score"] for record in own], [record["domain"] for record in own]
        metrics = measure_section(labels, np.array(scores), domains)
        shares = [float(called[chosen].mean()) if chosen.any() else None for chosen in (labels, ~labels)]
        measured.append(metrics)
        values = [*metrics[: len(aucs)], metrics.partial_auc, *shares]
        rows.append([machine or "-", str(len(own)), *map(format_number, values)])
    print()
    print_table(["Machine", "Clips", *aucs, "pAUC", "Detected", "False alarms"], rows)
    print(f"\nHarmonic mean of AUC and pAUC: {format_number(official_score(measured))}", flush=True)


def write_scores(path: Path, records: list[dict[str, Any]]) -> None:
    """Writes the CSV of all clips, whole or not at all."""
    rows: list[list[Any]] = [[*COLUMNS, *STATUS]]
    for record in records:
        values = {**record, "anomalous": {None: "", True: "yes", False: "no"}[record["anomalous"]]}
        rows.append(["" if values[name] is None else values[name] for name in rows[0]])
    try:
        with replace_file(path) as temporary:
            temporary.write_bytes(to_csv(rows).encode("utf-8", errors="surrogateescape"))
    except OSError as error:
        raise OutputError(f"{path}: cannot be written: {error.strerror}.") from error
