# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""`transformers-beats compare` and `distance`: how similar two recordings, or two folders of them, are."""

import json as json_format
import os
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from transformers_beats.audio.files import STDIN, AudioFile, place_of, remember_folders
from transformers_beats.utils.errors import BeatsError, UsageError
from transformers_beats.utils.messages import warn
from transformers_beats.utils.numbers import format_number
from transformers_beats.utils.table import print_table, print_text

from .notes import DecoderNotes, decoder_notes
from .options import Device, Json, Model, Segments
from .processing import Open, find_inputs, finish, process, warn_of
from .writers import write_standard_output


if TYPE_CHECKING:
    import numpy as np

    from transformers_beats.inference.windowed import WindowedInference


def compare(
    first: Annotated[str, typer.Argument(metavar="A", help="Audio file; - for standard input.")],
    second: Annotated[str, typer.Argument(metavar="B", help="Another one.")],
    model: Model,
    top_k: Annotated[int, typer.Option(min=1, metavar="N", help="Labels of each file.")] = 5,
    json: Json = False,
    device: Device = "auto",
) -> None:
    """
    Compare two recordings: similarity, and what is heard in both.

    The similarity is the cosine of their embeddings, which are those of `embed`. Embeddings of one model are all a
    little alike: compare it with the similarity of other pairs, and not with 1. A classifier also gives the
    best labels of each recording, with both scores; first those that both recordings have.
    """
    from transformers_beats.inference.loading import check_model, load

    check_model(model, "embeddings")
    if first == second == STDIN:
        raise UsageError("Standard input is one recording: name a file for the other one.")
    files = [find_one(word) for word in (first, second)]
    with decoder_notes() as notes:
        # From here on, torch is imported.
        from transformers_beats.search.comparison import compare_recordings, result_of

        loaded, extractor = load(model, device)
        streams = [notes.open(file, extractor.sampling_rate) for file in files]
        comparison = result_of(compare_recordings(streams, loaded, extractor, top_k))
        # One recording that is compared with itself has its warnings once.
        for file, stream in dict(zip(files, streams)).items():
            warn_of(file, stream.report.warnings)
    record: dict[str, Any] = {
        "files": [file.address for file in files],
        "similarity": round(comparison.similarity, 6),
        "warnings": [stream.report.warnings for stream in streams],
    }
    if comparison.labels is not None:
        record["labels"] = [
            {"label": label, "scores": [round(score, 6) for score in scores]} for label, scores in comparison.labels
        ]
    if json:
        write_standard_output(json_format.dumps(record) + "\n")
        return
    print_comparison(record, [file.short_name for file in files])


def find_one(word: str) -> AudioFile:
    """Returns the audio file of that name; raises a [`UsageError`] for a folder, and as [`find_inputs`]."""
    if os.path.isdir(word):
        raise UsageError(f"{word}: is a folder, and a single file is wanted here.")
    (file,) = find_inputs([word])
    return file


def print_comparison(record: dict[str, Any], names: list[str]) -> None:
    """Prints a comparison for people."""
    print_table(["", "File"], [["A", names[0]], ["B", names[1]]])
    print()
    if "labels" in record:
        rows = [[item["label"], *map(format_number, item["scores"])] for item in record["labels"]]
        print_table(["Label", "A", "B"], rows)
        print()
    print(f"Similarity of embeddings (cosine): {format_number(record['similarity'])}", flush=True)


def distance(
    first: Annotated[str, typer.Argument(metavar="A", help="Folder of recordings.")],
    second: Annotated[str, typer.Argument(metavar="B", help="Another one.")],
    model: Model,
    segments: Segments = None,
    json: Json = False,
    device: Device = "auto",
) -> None:
    """
    Measure the Fréchet distance of two folders of recordings (FAD).

    The distance of two normal distributions that have the means and covariances of the embeddings: 0 if they are
    equal. It is too large for few embeddings; of at least 2 (n + 1) embeddings of n values, the distance that is
    expected of infinitely many is printed, too. Compare distances of one model and one length of segments only.
    """
    from transformers_beats.inference.loading import check_model, load

    check_model(model, "embeddings")
    for word in (first, second):
        if os.path.isfile(word) or word == STDIN:
            raise UsageError(f"{word}: is a single recording, and folders of them are compared; see `compare`.")
    folders = [find_inputs([word]) for word in (first, second)]
    with decoder_notes() as notes:
        # From here on, torch is imported.
        import numpy as np

        from transformers_beats.inference.windowed import WindowedInference
        from transformers_beats.search.distance import count_needed, measure_distance
        from transformers_beats.search.segments import window_of

        loaded, extractor = load(model, device)
        inference = WindowedInference(loaded, extractor, window_of(segments, extractor))
        files, collections, failures = embed_folders(folders, notes, inference, segments)
    counts = [len(vectors) for vectors in collections]
    for word, number in zip((first, second), counts):
        if number < 2:
            raise BeatsError(f"{word}: has {number} of the two or more embeddings that a covariance needs.")
    measured = measure_distance(*map(np.stack, collections))
    dim = loaded.config.hidden_size
    if measured.is_biased:
        warn(
            f"{min(counts)} embeddings of {dim} values have a singular covariance, and the distance is too large: "
            f"take at least {count_needed(dim)} of each folder, for example of shorter --segments."
        )
    if json:
        record = {
            "files": [os.path.abspath(word) for word in (first, second)],
            "embeddings": counts,
            **measured._asdict(),
        }
        write_standard_output(json_format.dumps(record) + "\n")
    else:
        rows = [[name, word, str(number)] for name, word, number in zip("AB", (first, second), counts)]
        print_table(["", "Folder", "Embeddings"], rows)
        print_text(f"\nFréchet distance: {format_number(measured.value)}")
        known = measured.extrapolated is not None
        limit = (
            format_number(measured.extrapolated) if known else f"unknown, needs at least {count_needed(dim)} of each"
        )
        print_text(f"Extrapolated to infinitely many embeddings: {limit}")
    finish(files, failures)


def embed_folders(
    folders: Sequence[Sequence[AudioFile]],
    notes: DecoderNotes,
    inference: "WindowedInference",
    seconds: float | None,
) -> tuple[list[AudioFile], list[list["np.ndarray"]], list[str]]:
    """
    Embeds the files of folders; one that lies in several of them is computed, and named, once.

    Returns:
        `tuple`: the files of all folders; for each folder the embeddings `(hidden_size,)` of the segments of its
        files, or of the whole files, without those of digital silence; and a line for each file that cannot be used.
    """
    from transformers_beats.search.segments import stream_segments_many

    real_path = remember_folders()
    places = [{place_of(file.full_name, real_path): file for file in folder} for folder in folders]
    files = list({place: file for found in places for place, file in found.items()}.values())
    collections: list[list[np.ndarray]] = [[] for _ in folders]

    def compute(todo: Sequence[AudioFile], open_file: Open) -> Iterator[Any]:
        return stream_segments_many(inference, map(open_file, todo), seconds)

    def add(file: AudioFile, segments: Any, report: Any) -> None:
        # All of a file, or nothing of it.
        vectors = [segment.embedding for segment in segments if not segment.is_silent]
        place = place_of(file.full_name, real_path)
        for collection, found in zip(collections, places):
            if place in found:
                collection.extend(vectors)

    rate = inference.feature_extractor.sampling_rate
    failures = process(files, None, notes, rate, compute, add)
    return files, collections, failures
