# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""`transformers-beats compare`: what is heard in two recordings, and how similar they are."""

import json as json_format
import os
from typing import Annotated, Any

import typer

from transformers_beats.audio.files import STDIN, AudioFile
from transformers_beats.utils.errors import BeatsError, UsageError
from transformers_beats.utils.messages import warn
from transformers_beats.utils.table import print_table

from .notes import decoder_notes
from .options import Device, Json, Model
from .processing import find_inputs
from .writers import write_standard_output


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
        from transformers_beats.configuration_beats import problem_type_of
        from transformers_beats.export.checks import cosine
        from transformers_beats.inference.models import kind_of
        from transformers_beats.inference.pipeline import BeatsAudioTaggingPipeline
        from transformers_beats.inference.windowed import WindowedInference

        loaded, extractor = load(model, device)
        inference = WindowedInference(loaded, extractor)
        rate = extractor.sampling_rate
        streams = [notes.open(file, rate) for file in files]
        embeddings = [inference.embed(stream) for stream in streams]
        if not all(embedding.any() for embedding in embeddings):
            raise BeatsError("An embedding is zero, so that there is no similarity: the model is not trained.")
        record: dict[str, Any] = {
            "files": [file.address for file in files],
            "similarity": round(cosine(*embeddings), 6),
            "warnings": [stream.report.warnings for stream in streams],
        }
        for file, stream in zip(files, streams):
            for warning in stream.report.warnings:
                warn(f"{file.name}: {warning}")
        if kind_of(loaded) in ("clips", "frames") and problem_type_of(loaded.config) != "regression":
            tagger = BeatsAudioTaggingPipeline(
                model=loaded, feature_extractor=extractor, device=loaded.device, top_k=loaded.config.num_labels
            )
            record["labels"] = merge(*(tagger(notes.open(file, rate)) for file in files), top_k)
    if json:
        write_standard_output(json_format.dumps(record) + "\n")
        return
    print_comparison(record, [str(file.relative) for file in files])


def find_one(word: str) -> AudioFile:
    """Returns the audio file of that name; raises a [`UsageError`] for a folder, and as [`find_inputs`]."""
    if os.path.isdir(word):
        raise UsageError(f"{word}: is a folder, and two files are compared.")
    (file,) = find_inputs([word])
    return file


def merge(first: list[dict[str, Any]], second: list[dict[str, Any]], top_k: int) -> list[dict[str, Any]]:
    """
    Returns the `top_k` best labels of either recording with both scores, sorted by the lower of the two. Each list has
    all labels of the model, the best first.
    """
    scores = [{item["label"]: item["score"] for item in labels} for labels in (first, second)]
    best = dict.fromkeys(item["label"] for labels in (first, second) for item in labels[:top_k])
    merged = [{"label": label, "scores": [round(known[label], 6) for known in scores]} for label in best]
    return sorted(merged, key=lambda item: -min(item["scores"]))


def print_comparison(record: dict[str, Any], names: list[str]) -> None:
    """Prints a comparison for people."""
    print_table(["", "File"], [["A", names[0]], ["B", names[1]]])
    print()
    if "labels" in record:
        rows = [[item["label"], *(f"{score:.3f}" for score in item["scores"])] for item in record["labels"]]
        print_table(["Label", "A", "B"], rows)
        print()
    print(f"Similarity of embeddings (cosine): {record['similarity']:.3f}", flush=True)
