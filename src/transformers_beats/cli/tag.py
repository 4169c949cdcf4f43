# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""`transformers-beats tag`: the sounds that are heard in files, and when."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from transformers_beats.audio.files import AudioFile, check_names, find_audio
from transformers_beats.utils.errors import UsageError
from transformers_beats.utils.files import make_directory

from .options import Shared, with_shared_options
from .processing import has_seconds_bar, process, settings_of
from .writers import Format, Writer, choose_format, open_writer


if TYPE_CHECKING:
    from transformers_beats.inference.pipeline import BeatsAudioTaggingPipeline


def event_option(metavar: str, help: str, **limits: Any) -> Any:
    """Returns an option that asks for events."""
    panel = "Events (each option implies --events)"
    return typer.Option(min=0, metavar=metavar, help=help, rich_help_panel=panel, **limits)


@with_shared_options
def tag(
    shared: Shared,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="PATH", help="NAME.jsonl, NAME.csv, or a directory for label tracks."),
    ] = None,
    format: Annotated[
        Format | None,
        typer.Option(metavar="FORMAT", help="table, jsonl, csv or audacity (default: by the name of --output)."),
    ] = None,
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

    The events of a frame-level model are exact to 160 ms, those of a clip-level model to --event-window. Labels do not
    depend on the options of events.
    """
    from transformers_beats.inference.loading import load
    from transformers_beats.inference.pipeline import BeatsAudioTaggingPipeline

    kind = format or choose_format(output)
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
    files = find_audio(shared.inputs)
    if kind is Format.audacity or pictures:
        check_names(files)
    if pictures:
        from transformers_beats.plotting.figures import check_matplotlib

        check_matplotlib()
    model, extractor = load(shared.model, shared.device, shared.dtype.value)
    tagger = BeatsAudioTaggingPipeline(
        model=model,
        feature_extractor=extractor,
        device=model.device,
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
        tag_files(files, tagger, writer, with_events, pictures, shared.batch_size)
    finally:
        writer.close()


def tag_files(
    files: list[AudioFile],
    tagger: "BeatsAudioTaggingPipeline",
    writer: Writer,
    with_events: bool,
    pictures: Path | None,
    batch_size: int,
) -> None:
    """Writes the labels and events of each file and then, if there is a directory for them, draws its picture."""
    from transformers_beats.audio.decoding import AudioStream, open_audio
    from transformers_beats.inference.events import Event
    from transformers_beats.plotting.spectrogram import SpectrogramReader
    from transformers_beats.plotting.timeline import draw_timeline

    if pictures:
        make_directory(pictures)
    streams: dict[Path, AudioStream] = {}
    readers: dict[Path, SpectrogramReader] = {}

    def open_file(path: Path) -> AudioStream:
        """Opens a file that is decoded once, for its scores, what there is to say about it, and its picture."""
        stream = streams[path] = open_audio(path, tagger.feature_extractor.sampling_rate)
        if not pictures:
            return stream
        readers[path] = SpectrogramReader(tagger.feature_extractor)
        return readers[path].follow(stream)

    def is_done(file: AudioFile) -> bool:
        return writer.is_done(file) and (pictures is None or os.path.exists(file.result(pictures, ".png")))

    def compute(paths: list[Path]) -> Iterator[Any]:
        return tagger(map(open_file, paths), batch_size=batch_size)

    def finish(file: AudioFile, result: Any) -> None:
        labels = result["labels"] if isinstance(result, dict) else result
        events = [Event(**event) for event in result["events"]] if isinstance(result, dict) else []
        report = streams.pop(file.path).report
        # A picture shows events, too.
        if note := tagger.compare(labels, events):
            report.warnings.append(note)
            print(f"{file.path}: {note}", file=sys.stderr)
        # Only its picture may be missing.
        if not writer.is_done(file):
            writer.write(file, labels, events if with_events else None, report)
        if pictures:
            path = file.result(pictures, ".png")
            path.parent.mkdir(parents=True, exist_ok=True)
            draw_timeline(readers.pop(file.path).spectrogram(), events, path, str(file.relative))

    process(files, is_done, compute, finish)
