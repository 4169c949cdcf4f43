# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""`transformers-beats index` and `search`: recordings that sound alike."""

import functools
import json as json_format
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from transformers_beats.audio.files import STDIN, AudioFile, place_of, remember_folders
from transformers_beats.utils.errors import UsageError
from transformers_beats.utils.files import check_folder_of
from transformers_beats.utils.messages import next_command, note, warn
from transformers_beats.utils.numbers import format_number
from transformers_beats.utils.ranks import current_rank
from transformers_beats.utils.table import print_table

from .compare import find_one
from .notes import DecoderNotes, decoder_notes
from .options import Device, Json, MovedModel, Segments, Shared, with_shared_options
from .processing import Open, choose_workers, find_inputs, finish, has_seconds_bar, process, settings_of
from .writers import write_standard_output


if TYPE_CHECKING:
    from transformers_beats.audio.decoding import AudioReport
    from transformers_beats.inference.windowed import WindowedInference
    from transformers_beats.search.index import Index, IndexWriter, Moment


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

    if STDIN in shared.inputs:
        raise UsageError("An index is of files, and standard input is none: name files or folders.")
    if (rank := current_rank()) is not None:
        raise UsageError(f"An index has one writer, and this is {rank} (RANK, WORLD_SIZE): start one process.")
    check_model(shared.model, "embeddings")
    check_index_directory(output)
    files = find_inputs(shared.inputs)
    # From here on, torch is imported.
    from transformers_beats.inference.windowed import WindowedInference
    from transformers_beats.search.segments import window_of

    model, extractor = load(shared.model, shared.device, shared.dtype.value)
    window, has_bar = window_of(segments, extractor), has_seconds_bar(files)
    inference = WindowedInference(model, extractor, window, batch_size=shared.batch_size, progress=has_bar)
    settings = settings_of("index", model, extractor, shared, segments=segments)
    # They follow from the segments.
    del settings["window"], settings["hop"]
    with IndexWriter(output, settings, place_of_model(shared.model)) as writer:
        failures, summary = update(writer, files, shared, notes, inference, segments)
    following = next_command("search", str(output), "clip.wav")
    finish(files, failures, f"{summary}: {len(writer.states)} files, {len(writer)} vectors in {output}", following)


def update(
    writer: "IndexWriter",
    files: Sequence[AudioFile],
    shared: Shared,
    notes: DecoderNotes,
    inference: "WindowedInference",
    seconds: float | None,
) -> tuple[list[str], str]:
    """
    Adds new and changed files to an index, and removes those that are gone from the folders that were named. Returns a
    line for each file that cannot be used, and the numbers of all changes.
    """
    from transformers_beats.search.index import State
    from transformers_beats.search.segments import stream_segments_many, to_entry

    real_path = remember_folders()
    # The same file may be reached on two ways.
    known = {place_of(name, real_path): name for name in writer.states}

    def name_of(file: AudioFile) -> str:
        return known.get(place_of(file.path, real_path), file.address) if known else file.address

    states = {name_of(file): State.of(file.path) for file in files}
    changed = {name for name, state in states.items() if writer.states.get(name, state) != state}
    folders = {place(word) for word in shared.inputs for place in (os.path.abspath, os.path.realpath)}
    # A file that is there and not listed was once named itself, as its suffix is not that of audio.
    gone = {
        name
        for where, name in known.items()
        if name not in states
        and not os.path.lexists(name)
        and not folders.isdisjoint(map(str, [*Path(name).parents, *where.parents]))
    }
    added: set[str] = set()
    writer.remove(changed | gone)

    def is_done(file: AudioFile) -> bool:
        return name_of(file) in writer.states

    def compute(todo: Sequence[AudioFile], open_file: Open) -> Iterator[Any]:
        return stream_segments_many(inference, map(open_file, todo), seconds)

    def add(file: AudioFile, segments: Any, report: "AudioReport") -> None:
        name = name_of(file)
        writer.add(name, states[name], map(to_entry, segments))
        added.add(name)

    rate, device = inference.feature_extractor.sampling_rate, inference.plain_model.device.type
    workers = choose_workers(shared.workers, len(files), device)
    failures = process(files, is_done, notes, rate, compute, add, workers=workers)
    num_removed = len(gone) + len(changed - added)
    return failures, f"{len(added - changed)} added, {len(added & changed)} updated, {num_removed} removed"


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
        given = {"--model": model is not None, "--device": device != "auto"}
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
        list_nearest(opened, find_one(query), threshold, 10 if top is None else top, json, model, device)


def list_nearest(
    index: "Index", file: AudioFile, threshold: float | None, top: int, json: bool, model: str | None, device: str
) -> None:
    """Prints the moments that are most like a recording."""
    with decoder_notes() as notes:
        # From here on, torch is imported.
        from transformers_beats.search.queries import Searcher

        searcher = Searcher(index, device, model)
        stream = notes.open(file, searcher.sampling_rate)
        found = searcher.find(stream, top)
        for warning in stream.report.warnings:
            warn(f"{file.name}: {warning}")
    found = [hit for hit in found if threshold is None or hit.similarity >= threshold]
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
