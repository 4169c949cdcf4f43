# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""`transformers-beats tag`: the sounds that are heard in files, and when."""

import json as json_format
import os
import signal
from collections.abc import Iterator, Sequence
from contextlib import suppress
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from transformers_beats.audio.files import RAW_FORMATS, STDIN, AudioFile, check_names
from transformers_beats.utils.errors import BeatsError, UsageError
from transformers_beats.utils.messages import note, warn
from transformers_beats.utils.ranks import lock_of, ranks_directory, take_share

from .notes import DecoderNotes
from .options import Device, Dtype, Json, Model, Shared, check_seconds, rare, with_shared_options
from .processing import (
    Open,
    check_rank,
    choose_workers,
    count,
    count_left,
    find_inputs,
    finish,
    has_seconds_bar,
    process,
    settings_of,
    share_of,
    write_left,
)
from .writers import (
    PART,
    Format,
    Writer,
    begin_directory,
    check_directory,
    check_output,
    choose_format,
    merge_results,
    open_writer,
    partial_file,
    write_csv,
    write_standard_output,
)


if TYPE_CHECKING:
    from transformers_beats.audio.decoding import AudioReport, AudioStream
    from transformers_beats.inference.live import Feed, Listener
    from transformers_beats.inference.pipeline import BeatsAudioTaggingPipeline

RawFormat = Enum("RawFormat", {name: name for name in RAW_FORMATS}, type=str)
# Labels of a file.
DEFAULT_TOP_K = 5


def event_option(metavar: str, help: str, **limits: Any) -> Any:
    """Returns an option that asks for events."""
    return typer.Option(min=0, metavar=metavar, help=help, rich_help_panel="Events", **limits)


EventThreshold = Annotated[
    float | None, event_option("SCORE", "Events reach this score (default: own, or 0.5).", max=1)
]
LowThreshold = Annotated[
    float | None, event_option("SCORE", "Events go on with this score or more (default: the same).", max=1)
]
Median = Annotated[float | None, event_option("SECONDS", "Length of a median filter over the scores.")]
Gap = Annotated[float | None, event_option("SECONDS", "Join events so close together.")]
MinDuration = Annotated[float | None, event_option("SECONDS", "Leave out shorter events.")]


def name_settings(
    threshold: float | None, low: float | None, median: float | None, gap: float | None, shortest: float | None
) -> dict[str, float | None]:
    """Returns options of events under the names of the pipeline's parameters."""
    return {
        "event_threshold": threshold,
        "low_threshold": low,
        "median_seconds": median,
        "gap_seconds": gap,
        "min_seconds": shortest,
    }


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
    event_threshold: EventThreshold = None,
    low_threshold: LowThreshold = None,
    median: Median = None,
    gap: Gap = None,
    min_duration: MinDuration = None,
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
    clip-level model to --event-window. Labels do not depend on the options of events, which imply --events.
    """
    from transformers_beats.inference.loading import check_model, load

    if json and (output is not None or format not in (None, Format.jsonl)):
        raise UsageError("--json prints JSON lines: leave out --output and --format, or leave out --json.")
    if shared.resume and output is None:
        raise UsageError("--resume leaves out what is done already: add --output.")
    kind = Format.jsonl if json else format or choose_format(output)
    event_options = {
        **name_settings(event_threshold, low_threshold, median, gap, min_duration),
        "event_window_seconds": event_window,
        "event_hop_seconds": event_hop,
    }
    with_events = events or kind is Format.audacity or any(value is not None for value in event_options.values())
    if with_events and kind is not Format.jsonl and (top_k, threshold) != (None, None):
        raise UsageError(
            "--top-k and --threshold are for labels, and with events only JSON lines hold labels: leave them out, or "
            "choose --format jsonl."
        )
    label_options: dict[str, Any] = {"top_k": DEFAULT_TOP_K if top_k is None else top_k, "threshold": threshold}
    check_model(shared.model, "labels")
    shared, rank = check_rank(shared, output)
    check_output(kind, output, shared.resume)
    hidden = ranks_directory(output or Path(STDIN))
    if pictures:
        check_directory(pictures, shared.resume, ignored={hidden.name})
    everything = find_inputs(shared.inputs, shared.resume)
    files = share_of(everything, rank)
    if kind is Format.audacity or pictures:
        check_names(everything)
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

    def settings_for(events: bool, top_k: int, threshold: float | None) -> dict[str, Any]:
        options = {"events": events, "top_k": top_k, "threshold": threshold, **event_options}
        settings = settings_of("tag", model, extractor, shared, **options)
        if events and model.config.event_settings:
            # They are no part of the fingerprint of a model.
            settings["event_settings"] = model.config.event_settings
        return settings

    num_left = 0

    def begin(part: Path | None) -> tuple[Path | None, Writer]:
        if pictures:
            # They show events, and depend on no option of labels: those of label tracks, which may be beside them.
            of_events = settings_for(True, DEFAULT_TOP_K, None)
            begin_directory(pictures, of_events, shared.resume, everything, ".png", ignored={hidden.name})
        settings = {} if output is None else settings_for(with_events, **label_options)
        return part, open_writer(kind, output, with_events, shared.resume, settings, everything, part)

    def merge(parts: list[Path]) -> bool:
        nonlocal num_left
        assert output is not None
        left = merge_parts(kind, output, with_events, parts, everything)
        num_left = left or 0
        return left is not None

    alone = [] if output is None else [output if kind is Format.audacity else lock_of(output)]
    alone += [pictures] if pictures else []
    with take_share(hidden, rank, begin, merge, alone) as (part, writer):
        try:
            failures = tag_files(files, notes, tagger, writer, pictures, shared)
        except BaseException:
            # The first error says why the output is not complete.
            with suppress(BeatsError, OSError):
                writer.close()
            raise
        writer.close()
        if part is not None and failures and kind is Format.audacity:
            write_left(part, files, writer.is_done)
    lines = closing(kind, output, with_events, pictures, count(files, failures, rank))
    finish(files, failures, *lines, rank=rank, num_left=num_left)


def merge_parts(
    kind: Format, output: Path, with_events: bool, parts: list[Path], files: Sequence[AudioFile]
) -> int | None:
    """
    Joins what several processes have written, if no file is left that none of them has tried, and returns how many
    have no result; None if one is left.
    """
    if kind is Format.audacity:
        return count_left(files, lambda file: os.path.exists(file.result(output, ".txt")), parts)
    lines = partial_file(output) if kind is Format.csv else output
    num_left = merge_results(lines, [part / PART for part in parts], files)
    if num_left is not None:
        if kind is Format.csv:
            write_csv(output, with_events)
        note(f"All {len(files)} files: {output}")
    return num_left


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
    files: Sequence[AudioFile],
    notes: DecoderNotes,
    tagger: "BeatsAudioTaggingPipeline",
    writer: Writer,
    pictures: Path | None,
    shared: Shared,
) -> list[str]:
    """
    Writes the labels and events of each file and then, if there is a directory for them, draws its picture. Returns a
    line for each file that was skipped.
    """
    from transformers_beats.inference.events import Event
    from transformers_beats.plotting.spectrogram import SpectrogramReader
    from transformers_beats.plotting.timeline import draw_timeline

    readers: dict[AudioFile, SpectrogramReader] = {}

    def follow(file: AudioFile, stream: "AudioStream") -> "AudioStream":
        """Follows a recording, which is decoded once for its scores and its picture."""
        if not pictures:
            return stream
        readers[file] = SpectrogramReader(tagger.feature_extractor)
        return readers[file].follow(stream)

    def is_done(file: AudioFile) -> bool:
        return writer.is_done(file) and (pictures is None or os.path.exists(file.result(pictures, ".png")))

    def compute(todo: Sequence[AudioFile], open_file: Open) -> Iterator[Any]:
        # Not a generator, which would end at the first file that cannot be opened.
        return tagger(map(follow, todo, map(open_file, todo)), batch_size=shared.batch_size)

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
            draw_timeline(spectrogram, events, path, file.short_name, tagger.frame_seconds)

    workers = choose_workers(shared.workers, len(files), tagger.device.type)
    known, rate = is_done if shared.resume else None, tagger.feature_extractor.sampling_rate
    return process(files, known, notes, rate, compute, write, writer.skip, workers)


def listen(
    model: Model,
    input: Annotated[
        str | None,
        typer.Argument(
            metavar="INPUT", help="A file or a pipe; - for standard input (default: microphone).", show_default=False
        ),
    ] = None,
    rate: Annotated[
        float | None, typer.Option(min=1, metavar="HERTZ", help="Standard input is raw samples of this rate.")
    ] = None,
    format: Annotated[
        RawFormat | None, typer.Option(help="Format of raw samples (default: s16le).", show_default=False)
    ] = None,
    channels: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Channels of raw samples (default: 1).", show_default=False)
    ] = None,
    microphone: Annotated[
        str | None, typer.Option(metavar="DEVICE", help="Number or name of `python -m sounddevice`.")
    ] = None,
    buffer: Annotated[
        float,
        typer.Option(metavar="SECONDS", callback=check_seconds, help="Audio that waits for the model at most."),
    ] = 10.0,
    drop: Annotated[
        bool | None,
        typer.Option(
            "--drop/--wait",
            help="Drop what is more, or let the input wait (default: drop of a microphone).",
            show_default=False,
        ),
    ] = None,
    event_threshold: EventThreshold = None,
    low_threshold: LowThreshold = None,
    median: Median = None,
    gap: Gap = None,
    min_duration: MinDuration = None,
    event_window: Annotated[float | None, event_option("SECONDS", "Windows of events (default: 2).")] = None,
    event_hop: Annotated[
        float | None, event_option("SECONDS", "From one of them to the next (default: a quarter).")
    ] = None,
    device: Device = "auto",
    dtype: Annotated[Dtype, rare("DTYPE", "float32, bfloat16, float16 or auto, as saved (default).")] = Dtype.auto,
) -> None:
    """
    Tell sound events while they are heard, as JSON lines.

    A line when an event begins and one when it ends; together they are those of `tag --events` with the same options.
    Ctrl-C ends it. The last lines say how fast it was, and how much audio was dropped.
    """
    from transformers_beats.inference.loading import check_model, load

    # A pipe may be named as well.
    if input not in (None, STDIN) and (os.path.isdir(input) or not os.path.exists(input)):
        what = "is a directory, and no file" if os.path.isdir(input) else "no such file"
        raise UsageError(f"{input}: {what}; - is standard input.")
    if rate is not None and input != STDIN:
        raise UsageError("--rate is of raw samples on standard input: name - as INPUT, or leave it out.")
    if rate is None and (format, channels) != (None, None):
        name = "--channels" if format is None else "--format"
        raise UsageError(f"{name} is of raw samples, whose rate must be told: add --rate, or leave it out.")
    if microphone is not None and input is not None:
        raise UsageError(f"--microphone and {input}: choose one of them.")
    check_model(model, "labels")
    # From here on, torch is imported.
    from transformers_beats.audio.decoding import stream_audio
    from transformers_beats.audio.live import stream_microphone, stream_raw
    from transformers_beats.inference.events import settings_of_labels
    from transformers_beats.inference.live import Feed, Listener
    from transformers_beats.inference.pipeline import (
        EVENT_OVERLAP,
        EVENT_WINDOW_SECONDS,
        BeatsAudioTaggingPipeline,
        event_settings,
        given_event_settings,
    )

    loaded, extractor = load(model, device, dtype.value)
    tagger = BeatsAudioTaggingPipeline(model=loaded, feature_extractor=extractor, device=loaded.device)
    # Those of a clip-level model in a file; the windows of a frame-level model would be late.
    window = EVENT_WINDOW_SECONDS if event_window is None else event_window
    hop = window / EVENT_OVERLAP if event_hop is None else event_hop
    inference = tagger.inferences(True, event_window_seconds=window, event_hop_seconds=hop, windows_per_batch=1)[-1]
    options = name_settings(event_threshold, low_threshold, median, gap, min_duration)
    of_labels = settings_of_labels(loaded.config, given_event_settings(options))
    listener = Listener(inference, event_settings(options), of_labels)
    sampling_rate = extractor.sampling_rate
    if input is None:
        stream = stream_microphone(sampling_rate, microphone)
    elif rate is not None:
        stream = stream_raw(0, rate, (format or RawFormat["s16le"]).value, channels or 1, sampling_rate)
    else:
        stream = stream_audio("/dev/stdin" if input == STDIN else input, sampling_rate)
    feed = Feed(stream, buffer, input is None if drop is None else drop)
    hear(listener, feed)


def hear(listener: "Listener", feed: "Feed") -> None:
    """Prints the events of a stream until it ends, or until Ctrl-C, which ends it as a whole."""
    from transformers_beats.audio.live import BLOCK_SECONDS
    from transformers_beats.inference.live import Begin, End

    inference = listener.inference
    window, hop = (n * inference.column_seconds for n in (inference.window_columns, inference.hop_columns))
    # A block is read, and the resampler holds back less than another one.
    latency = listener.latency + 2 * BLOCK_SECONDS
    note(
        f"An event is known at most {latency:.2f} s after it starts, and the time of computing a window: windows of "
        f"{window:.2f} s every {hop:.2f} s, a score every {1000 * inference.frame_seconds:.0f} ms."
    )
    earlier = signal.signal(signal.SIGINT, lambda number, frame: feed.stop())
    try:
        for item in listener.listen(feed):
            if isinstance(item, Begin):
                record = {"type": "begin", **item._asdict()}
            elif isinstance(item, End):
                record = {"type": "end", "id": item.id, **item.event._asdict(), "score": round(item.event.score, 6)}
            else:
                record = {"type": "dropped", "start": round(item.start, 6), "end": round(item.end, 6)}
                warn(f"{item.end - item.start:.1f} s of audio were dropped: the model is slower than the audio.")
            write_standard_output(json_format.dumps(record) + "\n")
    finally:
        signal.signal(signal.SIGINT, earlier)
        dropped = feed.num_dropped / feed.rate
        lines = [
            f"{listener.audio_seconds:.1f} s of audio, {listener.real_time_factor:.3f} s of computing for a second; "
            f"{dropped:.1f} s were dropped."
        ]
        if not feed.drops and feed.blocked_seconds > 0.1:
            lines.append(f"The input waited {feed.blocked_seconds:.1f} s for the model.")
        note(*lines)
