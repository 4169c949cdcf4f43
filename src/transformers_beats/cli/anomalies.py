# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""`transformers-beats anomalies fit`: a detector of sounds that are not like those of normal clips."""

import functools
import hashlib
import os
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, get_args

import typer

from transformers_beats.anomalies.choices import (
    SUFFIX,
    BackendName,
    Bands,
    DetectorSettings,
    TimePooling,
    check_num_clips,
)
from transformers_beats.audio.files import STDIN, AudioFile
from transformers_beats.utils.errors import BeatsError, UsageError
from transformers_beats.utils.files import check_folder_of, write_array
from transformers_beats.utils.messages import next_command, warn
from transformers_beats.utils.numbers import format_number
from transformers_beats.utils.ranks import hold_alone, lock_of, ranks_directory
from transformers_beats.utils.resume import begin_or_resume
from transformers_beats.utils.table import print_table

from .arrays import check_parts, parts_of
from .notes import DecoderNotes
from .options import Shared, with_shared_options
from .processing import Open, count, find_inputs, finish, has_seconds_bar, note_left_out, process, settings_of
from .writers import SETTINGS, new_result


if TYPE_CHECKING:
    import numpy as np

    from transformers_beats.anomalies.detector import AnomalyDetector
    from transformers_beats.anomalies.roles import Role
    from transformers_beats.audio.decoding import AudioReport
    from transformers_beats.inference.windowed import WindowedInference


# Choices of an option, as typer takes them.
BackendChoice = Enum("BackendChoice", {name: name for name in get_args(BackendName)}, type=str)
BandsChoice = Enum("BandsChoice", {name: name for name in get_args(Bands)}, type=str)
PoolingChoice = Enum("PoolingChoice", {name: name for name in get_args(TimePooling)}, type=str)


@functools.partial(with_shared_options, left_out=("window", "hop", "workers", "profile", "backend"))
def fit(
    shared: Shared,
    notes: DecoderNotes,
    output: Annotated[
        Path,
        typer.Option("--output", "-o", metavar="DETECTOR", help="File to write, .safetensors.", show_default=False),
    ],
    target: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Few normal clips of another domain than those of the inputs."),
    ] = None,
    backend: Annotated[
        BackendChoice, typer.Option(metavar="NAME", help="Score: knn, density, mahalanobis or pca.")
    ] = BackendChoice["knn"],
    pooling: Annotated[
        PoolingChoice, typer.Option(metavar="NAME", help="Over time: mean, gem, rdp or rdp-gem.")
    ] = PoolingChoice["mean"],
    layers: Annotated[
        str | None,
        typer.Option(
            metavar="LAYERS", help="As in hidden_states, such as 5 or 4,8 (default: the last).", show_default=False
        ),
    ] = None,
    bands: Annotated[
        BandsChoice, typer.Option(metavar="NAME", help="Banks of bands: separate, mean or concat.")
    ] = BandsChoice["separate"],
    neighbors: Annotated[int, typer.Option(min=1, metavar="N", help="Neighbors of knn and density.")] = 1,
    one_domain: Annotated[bool, typer.Option("--one-domain", help="One bank, also where domains are known.")] = False,
    rate: Annotated[
        float,
        typer.Option("--false-alarm-rate", metavar="RATE", help="Share of normal clips that may be called anomalous."),
    ] = 0.05,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace DETECTOR.")] = False,
) -> None:
    """
    Fit a detector of anomalous sounds on normal clips.

    A memory bank of their embeddings for each layer and band. Scores are calibrated on the normal clips, each left
    out. In the folders of DCASE's task 2, each machine has a bank, of the clips in `train`.
    """
    from transformers_beats.anomalies.roles import assign_normal
    from transformers_beats.inference.loading import check_model, load, place_of_model

    check_model(shared.model, "embeddings")
    check_detector_output(output, overwrite)
    # Vectors of the clips that are done, until the detector is written.
    parts = parts_of(output)
    check_parts(output, shared.resume)
    if STDIN in (*shared.inputs, str(target)):
        raise UsageError("A detector is fitted on files, and standard input is none: name files or folders.")
    found = find_inputs(shared.inputs)
    targets = find_inputs([str(target)]) if target is not None else []
    roles = assign_normal(found, targets)
    domains = {role.file: "" if one_domain else role.domain for role in roles}
    # Fewer are not embedded first.
    for (machine, domain), number in Counter((role.machine, domains[role.file]) for role in roles).items():
        check_num_clips(number, domain, machine)
    num_others = len({file.address for file in (*found, *targets)}) - len(roles)
    # From here on, torch is imported.
    from transformers_beats.anomalies.calibration import check_rate
    from transformers_beats.anomalies.detector import AnomalyDetector
    from transformers_beats.inference.layers import choose_layers
    from transformers_beats.inference.windowed import WindowedInference

    check_rate(rate)
    model, extractor = load(shared.model, shared.device, shared.dtype.value)
    files = [role.file for role in roles]
    inference = WindowedInference(model, extractor, batch_size=shared.batch_size, progress=has_seconds_bar(files))
    config = inference.plain_model.base_model.config
    chosen = choose_layers(-1 if layers is None else layers, config.num_hidden_layers)
    settings = DetectorSettings(tuple(chosen), pooling.value, bands.value, backend.value, neighbors)
    note_left_out(num_others, "no normal clips to fit on")
    options = {"layers": chosen, "pooling": pooling.value, "bands": bands.value}
    embedded_with = settings_of("anomalies fit", model, extractor, shared, **options)
    with hold_alone(ranks_directory(output), [lock_of(output)]):
        # Another run may have written or begun it until this one had the lock.
        check_detector_output(output, overwrite)
        check_parts(output, shared.resume)
        begin_or_resume(parts / SETTINGS, embedded_with, output, shared.resume, has_results=any(parts.glob("*.npy")))
        vectors, failures = embed_parts(parts, files, notes, inference, settings)
        try:
            if not vectors:
                # There is nothing to go on with.
                shutil.rmtree(parts)
                raise BeatsError(f"None of {len(files)} files could be used.")
            banks = make_banks([role for role in roles if role.file in vectors], vectors, domains)
            detector = AnomalyDetector(
                banks, settings, embedded_with["model"], place_of_model(shared.model), embedded_with["dtype"], rate
            )
        except BeatsError as error:
            for line in failures:
                warn(line)
            if not vectors:
                raise
            raise type(error)(
                f"{error} The {len(vectors)} that are embedded are kept: add clips and pass --resume."
            ) from error
        warn_of_copies(detector)
        detector.save(output)
        shutil.rmtree(parts)
    print_thresholds(detector)
    following = next_command("anomalies", "score", str(output), "recordings")
    finish(files, failures, f"{count(files, failures)}: {output}", following)


def embed_parts(
    parts: Path,
    files: list[AudioFile],
    notes: DecoderNotes,
    inference: "WindowedInference",
    settings: DetectorSettings,
) -> tuple[dict[AudioFile, "np.ndarray"], list[str]]:
    """
    Returns the vectors of files, which are kept in the directory `parts`, and a line for each file that cannot be
    used. What is in the directory is not computed again.
    """
    import numpy as np

    from transformers_beats.anomalies.embedding import embed_clips
    from transformers_beats.search.index import State

    # Two folders may have files of one name, and a file may have changed meanwhile.
    states = {file: f"{file.address}\0{State.of(file.path)}" for file in files}
    part_of = {file: parts / f"{hashlib.sha256(os.fsencode(state)).hexdigest()}.npy" for file, state in states.items()}

    def is_done(file: AudioFile) -> bool:
        return part_of[file].exists()

    def compute(todo: Sequence[AudioFile], open_file: Open) -> Iterator["np.ndarray"]:
        return embed_clips(inference, map(open_file, todo), settings)

    def add(file: AudioFile, values: "np.ndarray", report: "AudioReport") -> None:
        with new_result(part_of[file]) as temporary:
            write_array(temporary, values)

    failures = process(files, is_done, notes, inference.feature_extractor.sampling_rate, compute, add)
    return {file: np.load(part_of[file]) for file in files if is_done(file)}, failures


def make_banks(
    roles: list["Role"], vectors: dict[AudioFile, "np.ndarray"], domains: dict[AudioFile, str]
) -> dict[str, dict[str, "np.ndarray"]]:
    """Returns the vectors of each machine and domain."""
    import numpy as np

    grouped: dict[str, dict[str, list[np.ndarray]]] = {}
    for role in roles:
        grouped.setdefault(role.machine, {}).setdefault(domains[role.file], []).append(vectors[role.file])
    return {
        machine: {domain: np.stack(values) for domain, values in of_machine.items()}
        for machine, of_machine in grouped.items()
    }


def warn_of_copies(detector: "AnomalyDetector") -> None:
    """Says how many clips are copies of others."""
    banks = [detector.bank_of(machine) for machine in detector.machines]
    if num_copies := sum(bank.num_copies for bank in banks):
        warn(f"{num_copies} clips are copies of others, and count once.")
    if num_shared := sum(bank.num_shared for bank in banks):
        warn(f"{num_shared} of them are in both domains, and count for the target only.")


def print_thresholds(detector: "AnomalyDetector") -> None:
    """Prints the clips and the threshold of each machine, and in a warning why it has none."""
    rows, too_few = [], []
    for machine in detector.machines:
        vectors = detector.bank_of(machine).vectors
        numbers = ", ".join(f"{len(values)} {domain}".strip() for domain, values in vectors.items())
        try:
            threshold = format_number(detector.threshold(machine=machine))
        # No reason to lose the work.
        except UsageError as error:
            threshold = "-"
            too_few.append(str(error))
        rows.append([machine or "-", numbers, threshold])
    print_table(["Machine", "Normal clips", f"Threshold ({detector.false_alarm_rate:g})"], rows)
    for line in too_few:
        warn(line)


def check_detector_output(output: Path, overwrite: bool) -> None:
    """Raises a [`UsageError`] for a place where no detector can be written."""
    if output.suffix.lower() != SUFFIX:
        raise UsageError(f"{output}: a detector is one file: choose a name that ends in {SUFFIX}.")
    check_folder_of(output, overwrite)
