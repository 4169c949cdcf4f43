# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""`transformers-beats tag`: the sounds that are heard in files, and when."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from transformers_beats.audio.files import AudioFile, check_names
from transformers_beats.utils.errors import UsageError
from transformers_beats.utils.files import make_directory

from .notes import DecoderNotes
from .options import Json, Shared, with_shared_options
from .processing import Open, count, find_inputs, finish, has_seconds_bar, process, settings_of
from .writers import Format, Writer, check_output, choose_format, open_writer


if TYPE_CHECKING:
    from transformers_beats.audio.decoding import AudioReport, AudioStream
    from transformers_beats.inference.pipeline import BeatsAudioTaggingPipeline


def event_option(metavar: str, help: str, **limits: Any) -> Any:
    """Returns an option that asks for events."""
    panel = "Events (each option implies --events)"
    return typer.Option(min=0, metavar=metavar, help=help, rich_help_panel=panel, **limits)


@with_shared_options
def tag(
    shared: Shared,
    notes: DecoderNotes,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="PATH", help="NAME.jsonl, NAME.csv, or a directory for label tracks."),
    ] = None,
    format: Annotated[
        Format | None,
        typer.Option(metavar="FORMAT", help="table, jsonl, csv or audacity (default: by the name of --output)."),
    ] = None,
    json: Json = False,
    top_k: Annotated[int | None, typer.Option(min=1, metavar="N", help="At most so many labels (default: 5).")] = None,
    threshold: Annotated[
        float | None, typer.Option(min=0, max=1, metavar="SCORE", help="Only labels with this score or more.")
    ] = None,
    events: Annotated[
        bool,
        typer.Option("--events", help="Events with start and end, instead of labels or in JSON lines beside them."),
    ] = False,
    pictures: Annotated[
        Path | None, typer.Option(metavar="DIRECTORY", help="Draw the spectrogram and events of each file, as .png.")
    ] = None,
    event_threshold: Annotated[
        float | None, event_option("SCORE", "Events reach this score (default: 0.5).", max=1)
    ] = None,
    low_threshold: Annotated[
        float | None, event_option("SCORE", "Events go on with this score or more (default: the same).", max=1)
    ] = None,
    median: Annotated[float | None, event_option("SECONDS", "Length of a median filter over the scores.")] = None,
    gap: Annotated[float | None, event_option("SECONDS", "Join events so close together.")] = None,
    min_duration: Annotated[float | None, event_option("SECONDS", "Leave out shorter events.")] = None,
    event_window: Annotated[
        float | None, event_option("SECONDS", "Windows of events (default: 2; of a frame-level model, --window).")
    ] = None,
    event_hop: Annotated[
        float | None, event_option("SECONDS", "From one of them to the next (default: a quarter, or --hop).")
    ] = None,
) -> None:
    """
    Name the sounds in audio files and, with --events, say when they are heard.

    The events of a frame-level model are exact to the time between its scores, 160 or 40 ms (see `info`), those of a
    clip-level model to --event-window. Labels do not depend on the options of events.
    """
    from transformers_beats.inference.loading import check_model, load

    if json and (output is not None or format not in (None, Format.jsonl)):
        raise UsageError("--json prints JSON lines: leave out --output and --format, or leave out --json.")
    kind = Format.jsonl if json else format or choose_format(output)
    event_options = {
        "event_threshold": event_threshold,
        "low_threshold": low_threshold,
        "median_seconds": median,
        "gap_seconds": gap,
        "min_seconds": min_duration,
        "event_window_seconds": event_window,
        "event_hop_seconds": event_hop,
    }
    with_events = events or kind is Format.audacity or any(value is not None for value in event_options.values())
    if with_events and kind is not Format.jsonl and (top_k, threshold) != (None, None):
        raise UsageError(
            "--top-k and --threshold are for labels, and with events only JSON lines hold labels: leave them out, or "
            "choose --format jsonl."
        )
    label_options = {"top_k": 5 if top_k is None else top_k, "threshold": threshold}
    check_model(shared.model, "labels")
    check_output(kind, output, shared.resume)
    files = find_inputs(shared.inputs, shared.resume)
    if kind is Format.audacity or pictures:
        check_names(files)
    if pictures:
        from transformers_beats.plotting.figures import check_matplotlib

        check_matplotlib()
    # From here on, torch is imported.
    from transformers_beats.inference.pipeline import BeatsAudioTaggingPipeline

    model, extractor = load(shared.model, shared.device, shared.dtype.value)
    tagger = BeatsAudioTaggingPipeline(
        model=model,
        feature_extractor=extractor,
        device=model.device,
        backend=shared.backend.value,
        window_seconds=shared.window,
        hop_seconds=shared.hop,
        batch_size=shared.batch_size,
        progress=has_seconds_bar(files),
        return_events=with_events or pictures is not None,
        **label_options,
        **event_options,
    )
    settings = {}
    if output is not None:
        settings = settings_of("tag", model, extractor, shared, events=with_events, **label_options, **event_options)
    writer = open_writer(kind, output, with_events, shared.resume, settings, files)
    try:
        failures = tag_files(files, notes, tagger, writer, pictures, shared.batch_size)
    finally:
        writer.close()
    finish(files, failures, *closing(kind, output, with_events, pictures, count(files, failures)))


def closing(kind: Format, output: Path | None, with_events: bool, pictures: Path | None, files: str) -> list[str]:
    """Returns lines that say where the results of `files` are, and what to type next."""
    places = [str(place) for place in (output, pictures) if place is not None]
    lines = [f"{files}: {', '.join(places)}"] if places else []
    if kind is Format.audacity:
        lines.append("Next: in Audacity, File > Import > Labels, beside the recording.")
    elif kind is not Format.table and output is None:
        # Results were printed for another program.
        return lines
    elif output is None:
        lines.append(f"Next: add -o {'events' if with_events else 'labels'}.csv to keep the results.")
    elif with_events and pictures is None:
        lines.append("Next: --pictures DIRECTORY draws the events, and -o DIRECTORY writes label tracks for Audacity.")
    elif not with_events:
        lines.append(f"Next: add --events -o {output.stem}-events{output.suffix} to know when each sound is heard.")
    return lines


def tag_files(
    files: list[AudioFile],
    notes: DecoderNotes,
    tagger: "BeatsAudioTaggingPipeline",
    writer: Writer,
    pictures: Path | None,
    batch_size: int,
) -> list[str]:
    """
    Writes the labels and events of each file and then, if there is a directory for them, draws its picture. Returns a
    line for each file that was skipped.
    """
    from transformers_beats.inference.events import Event
    from transformers_beats.plotting.spectrogram import SpectrogramReader
    from transformers_beats.plotting.timeline import draw_timeline

    if pictures:
        make_directory(pictures)
    readers: dict[AudioFile, SpectrogramReader] = {}

    def follow(file: AudioFile, stream: "AudioStream") -> "AudioStream":
        """Follows a recording, which is decoded once for its scores and its picture."""
        if not pictures:
            return stream
        readers[file] = SpectrogramReader(tagger.feature_extractor)
        return readers[file].follow(stream)

    def is_done(file: AudioFile) -> bool:
        return writer.is_done(file) and (pictures is None or os.path.exists(file.result(pictures, ".png")))

    def compute(todo: list[AudioFile], open_file: Open) -> Iterator[Any]:
        # Not a generator, which would end at the first file that cannot be opened.
        return tagger(map(follow, todo, map(open_file, todo)), batch_size=batch_size)

    def write(file: AudioFile, result: Any, report: "AudioReport") -> None:
        labels = result["labels"] if isinstance(result, dict) else result
        events = [Event(**event) for event in result["events"]] if isinstance(result, dict) else []
        # A picture shows events, too.
        if difference := tagger.compare(labels, events):
            report.warnings.append(difference)
        # Only its picture may be missing.
        if not writer.is_done(file):
            writer.write(file, labels, events if writer.with_events else None, report)
        if pictures:
            path = file.result(pictures, ".png")
            path.parent.mkdir(parents=True, exist_ok=True)
            spectrogram = readers.pop(file).spectrogram()
            draw_timeline(spectrogram, events, path, str(file.relative), tagger.frame_seconds)

    return process(files, is_done, notes, tagger.feature_extractor.sampling_rate, compute, write, writer.skip)
