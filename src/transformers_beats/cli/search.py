# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""`transformers-beats index` and `search`: recordings that sound alike."""

import functools
import json as json_format
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from transformers_beats.audio.files import STDIN, AudioFile
from transformers_beats.utils.errors import UsageError
from transformers_beats.utils.files import check_folder_of
from transformers_beats.utils.lock import is_held
from transformers_beats.utils.messages import next_command, note
from transformers_beats.utils.numbers import format_number
from transformers_beats.utils.ranks import parts_in, ranks_directory, take_share
from transformers_beats.utils.table import print_table

from .compare import find_one
from .notes import DecoderNotes, decoder_notes
from .options import Device, Json, MovedModel, Segments, Shared, with_shared_options
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
    warn_of,
    write_left,
)
from .writers import write_standard_output


if TYPE_CHECKING:
    from transformers_beats.audio.decoding import AudioReport
    from transformers_beats.inference.windowed import WindowedInference
    from transformers_beats.search.index import Index, IndexWriter, Moment, State


@functools.partial(with_shared_options, left_out=("resume", "window", "hop", "backend"))
def index(
    shared: Shared,
    notes: DecoderNotes,
    output: Annotated[
        Path,
        typer.Option(
            "--output",
            "-o",
            metavar="INDEX",
            help="Directory of the index, to be made or updated.",
            show_default=False,
        ),
    ],
    segments: Segments = None,
) -> None:
    """
    Index recordings by their embeddings, to search in them.

    A vector for each recording or, with --segments, for each moment of it. Run again, it adds new files, computes
    changed ones anew, and removes those that are gone from the folders named. After an interruption it goes on.
    """
    from transformers_beats.inference.loading import check_model, load, place_of_model
    from transformers_beats.search.index import IndexWriter, check_index_directory
    from transformers_beats.search.updates import PART, join_parts, open_parts

    if STDIN in shared.inputs:
        raise UsageError("An index is of files, and standard input is none: name files or folders.")
    shared, rank = check_rank(shared, output)
    check_model(shared.model, "embeddings")
    check_index_directory(output)
    everything = find_inputs(shared.inputs)
    files = share_of(everything, rank)
    # From here on, torch is imported.
    from transformers_beats.inference.windowed import WindowedInference
    from transformers_beats.search.segments import window_of

    model, extractor = load(shared.model, shared.device, shared.dtype.value)
    window, has_bar = window_of(segments, extractor), has_seconds_bar(files)
    inference = WindowedInference(model, extractor, window, batch_size=shared.batch_size, progress=has_bar)
    settings = settings_of("index", model, extractor, shared, segments=segments)
    # They follow from the segments.
    del settings["window"], settings["hop"]
    following = next_command("search", str(output), "clip.wav")
    num_left = 0

    def open_index(directory: Path) -> IndexWriter:
        return IndexWriter(directory, settings, place_of_model(shared.model))

    def describe(writer: IndexWriter) -> str:
        return f"{len(writer.states)} files, {len(writer)} vectors in {output}"

    def begin(part: Path | None) -> "tuple[Path | None, IndexWriter, list[Mapping[str, State]]]":
        if part is None:
            return part, open_index(output), []
        # All ranks have the settings of the index. Another rank may have joined parts of this one.
        with open_index(output) as writer:
            states: list[Mapping[str, State]] = [writer.states]
        others = [path for path in parts_in(part.parent) if path != part and not is_held(path)]
        return part, open_index(part / PART), [*(index.states() for index in open_parts(others, settings)), *states]

    def merge(parts: list[Path]) -> bool:
        nonlocal num_left
        left = functools.partial(count_left, everything, parts=parts)
        with open_index(output) as writer:
            joined = join_parts(writer, open_parts(parts, settings), everything, shared.inputs, left)
            if joined is not None:
                num_left, changes = joined
                note(f"All {len(everything)} files: {changes}: {describe(writer)}", following)
        return joined is not None

    with take_share(ranks_directory(output), rank, begin, merge) as (part, writer, others), writer:
        failures, changes, is_done = update(writer, files, shared, notes, inference, segments, others)
        if part is not None and failures:
            write_left(part, files, is_done)
    if rank is None:
        finish(files, failures, f"{changes}: {describe(writer)}", following)
    else:
        finish(files, failures, f"{count(files, failures, rank)}: {output}", rank=rank, num_left=num_left)


def update(
    writer: "IndexWriter",
    files: Sequence[AudioFile],
    shared: Shared,
    notes: DecoderNotes,
    inference: "WindowedInference",
    seconds: float | None,
    others: "Sequence[Mapping[str, State]]",
) -> "tuple[list[str], str, Callable[[AudioFile], bool]]":
    """
    Adds new and changed files to an index, and removes those that are gone from the folders that were named.

    Args:
        others (`Sequence[Mapping[str, State]]`):
            States of files in the whole index and parts of other ranks, if `writer` is of the part of a rank: what
            they have is left out, and what is gone is left to the one that joins them.

    Returns:
        A line for each file that cannot be used, the numbers of all changes, and whether a file has a result.
    """
    from transformers_beats.search.segments import stream_segments_many, to_entry
    from transformers_beats.search.updates import Listing, describe_changes

    listing = Listing(files, [name for states in (writer.states, *others) for name in states])
    changed = listing.changed(writer.states)
    gone = set() if others else listing.gone(shared.inputs)
    added: set[str] = set()
    writer.remove(changed | gone)

    def is_done(file: AudioFile) -> bool:
        name = listing.name_of(file)
        return name in writer.states or any(states.get(name) == listing.states[name] for states in others)

    def compute(todo: Sequence[AudioFile], open_file: Open) -> Iterator[Any]:
        return stream_segments_many(inference, map(open_file, todo), seconds)

    def add(file: AudioFile, segments: Any, report: "AudioReport") -> None:
        name = listing.name_of(file)
        writer.add(name, listing.states[name], map(to_entry, segments))
        added.add(name)

    rate, device = inference.feature_extractor.sampling_rate, inference.plain_model.device.type
    workers = choose_workers(shared.workers, len(files), device)
    # Of a new index, nobody asks for each file.
    known = is_done if listing.known else None
    failures = process(files, known, notes, rate, compute, add, workers=workers)
    return failures, describe_changes(changed, gone, added), is_done


def search(
    index: Annotated[Path, typer.Argument(metavar="INDEX", help="Directory that `index` has written.")],
    query: Annotated[
        str | None, typer.Argument(metavar="QUERY", help="Audio file; - for standard input.", show_default=False)
    ] = None,
    top: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="So many results (default: 10; of duplicates, 100).")
    ] = None,
    json: Json = False,
    duplicates: Annotated[
        bool, typer.Option("--duplicates", help="List pairs of recordings that are nearly the same.")
    ] = False,
    threshold: Annotated[
        float | None,
        typer.Option(min=0, max=1, metavar="SCORE", help="Lowest similarity (default: none; of duplicates, 0.99)."),
    ] = None,
    map: Annotated[
        Path | None, typer.Option(metavar="FILE.png", help="Draw a map of the index, coloured by folder.")
    ] = None,
    exact: Annotated[
        bool, typer.Option("--exact", help="Compare all vectors, also of a large index where faiss is installed.")
    ] = False,
    model: MovedModel = None,
    device: Device = "auto",
) -> None:
    """
    Find the recordings of an index that sound like a query.

    The similarity is the cosine of the embeddings. In an index of --segments, a query that is longer than a segment is
    cut, too, and each moment counts with the part of the query that it is most like.
    """
    from transformers_beats.search.index import Index

    if sum([query is not None, duplicates, map is not None]) != 1:
        raise UsageError("Name a QUERY, or choose --duplicates or --map FILE.")
    if query is None:
        given = {"--model": model is not None, "--device": device != "auto", "--exact": exact}
        if map is not None:
            given |= {"--json": json, "--top": top is not None, "--threshold": threshold is not None}
        if unused := [name for name, is_given in given.items() if is_given]:
            choice = "--duplicates" if map is None else "--map"
            raise UsageError(f"{', '.join(unused)}: without effect with {choice}, leave out one or the other.")
    opened = Index(index)
    if len(opened) == 0:
        raise UsageError(f"{index}: is empty: add recordings with `transformers-beats index`.")
    if map is not None:
        draw(opened, map)
    elif duplicates:
        list_duplicates(opened, threshold, 100 if top is None else top, json)
    elif query is not None:
        list_nearest(opened, find_one(query), threshold, 10 if top is None else top, json, model, device, exact)


def list_nearest(
    index: "Index",
    file: AudioFile,
    threshold: float | None,
    top: int,
    json: bool,
    model: str | None,
    device: str,
    exact: bool,
) -> None:
    """Prints the moments that are most like a recording."""
    with decoder_notes() as notes:
        # From here on, torch is imported.
        from transformers_beats.search.queries import Searcher
        from transformers_beats.search.vectors import reaches

        searcher = Searcher(index, device, model, exact)
        stream = notes.open(file, searcher.sampling_rate)
        found = searcher.find(stream, top)
        warn_of(file, stream.report.warnings)
    found = [hit for hit in found if threshold is None or reaches(hit.similarity, threshold)]
    if json:
        for hit in found:
            record = {"similarity": round(hit.similarity, 6), **as_record(hit.moment)}
            record |= {"query_start": round(hit.query_start, 6), "query_end": round(hit.query_end, 6)}
            write_standard_output(json_format.dumps(record) + "\n")
        return
    # The whole query otherwise.
    has_parts = index.settings["segments"] is not None
    rows = [
        [
            format_number(hit.similarity),
            *as_cells(hit.moment),
            *([f"{hit.query_start:.2f}", f"{hit.query_end:.2f}"] if has_parts else []),
        ]
        for hit in found
    ]
    print_table(["Similarity", "File", "Start (s)", "End (s)", *(["Query (s)", "to (s)"] if has_parts else [])], rows)


def list_duplicates(index: "Index", threshold: float | None, top: int, json: bool) -> None:
    """Prints the pairs that are most alike."""
    from transformers_beats.search.nearest import DUPLICATE_SIMILARITY, find_duplicates

    threshold = DUPLICATE_SIMILARITY if threshold is None else threshold
    found = find_duplicates(index, threshold, top)
    pairs = [(pair.similarity, *index.moments([pair.first, pair.second])) for pair in found.pairs]
    if json:
        for similarity, *both in pairs:
            record = {"similarity": round(similarity, 6), "moments": [as_record(moment) for moment in both]}
            write_standard_output(json_format.dumps(record) + "\n")
    elif pairs:
        has_segments = index.settings["segments"] is not None
        rows = [
            [
                format_number(similarity),
                *(cell for moment in both for cell in as_cells(moment)[: 3 if has_segments else 1]),
            ]
            for similarity, *both in pairs
        ]
        times = ["Start (s)", "End (s)"] if has_segments else []
        print_table(["Similarity", "A", *times, "B", *times], rows)
    shown = f", of which the {len(pairs)} most similar are shown; --top shows more" if found.count > len(pairs) else ""
    note(f"{format_number(found.count)} pairs with a similarity of {threshold:g} or more{shown}.")


def draw(index: "Index", path: Path) -> None:
    """Draws a map of an index, coloured by the folders of its files."""
    from transformers_beats.plotting.figures import check_matplotlib

    check_matplotlib()
    check_folder_of(path)
    from transformers_beats.plotting.map import draw_map
    from transformers_beats.search.nearest import project

    rows, points, shares = project(index)
    # That of files which are in no folder below the common one ends with a separator, unlike all others.
    top = os.path.join(os.path.basename(index.folder), "")
    parents = [os.path.relpath(os.path.dirname(file), index.folder) for file in index.files]
    folders = [top if parent == os.curdir else parent for parent in parents]
    draw_map(points, [folders[file] for file in index.file_of[rows]], path, str(index.directory), shares)
    note(f"{format_number(len(rows))} vectors: {path}")


def as_record(moment: "Moment") -> dict[str, Any]:
    """Returns a moment for JSON."""
    return {"file": moment.file, "start": round(moment.start, 6), "end": round(moment.end, 6)}


def as_cells(moment: "Moment") -> list[str]:
    """Returns file, start and end of a moment for a table. Files below the current folder have no absolute path."""
    here = f"{os.getcwd()}{os.sep}"
    return [moment.file.removeprefix(here), f"{moment.start:.2f}", f"{moment.end:.2f}"]
