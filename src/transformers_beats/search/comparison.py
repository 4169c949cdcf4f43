# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Comparison of two recordings: similarity, and the labels of both."""

from collections.abc import Generator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import numpy as np

from transformers_beats.audio.decoding import AudioStream
from transformers_beats.configuration_beats import problem_type_of
from transformers_beats.inference.models import kind_of
from transformers_beats.inference.pipeline import BeatsAudioTaggingPipeline, Label, read_in_step
from transformers_beats.inference.windowed import WindowedInference
from transformers_beats.inference.windows import RowMean

from .vectors import to_cosine, to_unit


if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from transformers_beats.feature_extraction_beats import BeatsFeatureExtractor


Result = TypeVar("Result")


class SharedLabel(NamedTuple):
    """A label with the scores that it has in both recordings."""

    label: str
    scores: tuple[float, float]


class Comparison(NamedTuple):
    """
    Results for two recordings.

    Args:
        similarity (`float`):
            Cosine of their embeddings, which are those of `WindowedInference.embed`.
        labels (`list[SharedLabel]`, *optional*):
            The best labels of either, the highest lower score first; `None` if the model knows no labels.
    """

    similarity: float
    labels: list[SharedLabel] | None


def compare_recordings(
    streams: Sequence[AudioStream], model: "PreTrainedModel", extractor: "BeatsFeatureExtractor", top_k: int = 5
) -> Generator[float, None, Comparison]:
    """
    Compares two recordings, each of which is decoded once.

    Args:
        streams (`Sequence[AudioStream]`):
            Both, at the extractor's rate.
        model (`PreTrainedModel`), extractor ([`BeatsFeatureExtractor`]):
            The model, which has labels if it is a classifier.
        top_k (`int`, defaults to 5):
            Labels of each recording.

    Yields:
        `float`: seconds of both that were compared so far.

    Returns:
        [`Comparison`], as the value of the generator.

    Raises:
        [`AudioError`]: for a recording that cannot be used.
        [`BeatsError`]: if an embedding is zero.
    """
    inference, tagger = WindowedInference(model, extractor), None
    if kind_of(model) in ("clips", "frames") and problem_type_of(model.config) != "regression":
        tagger = BeatsAudioTaggingPipeline(model=model, feature_extractor=extractor, device=model.device)
    embeddings, labels, before = [], [], 0.0
    for stream in streams:
        embedding, found = yield from _read_recording(stream, inference, tagger, before)
        embeddings.append(to_unit(embedding))
        labels.append(found)
        before += stream.report.seconds
    first, second = embeddings
    return Comparison(to_cosine(first @ second), None if tagger is None else merge_labels(*labels, top_k))


def _read_recording(
    stream: AudioStream, inference: WindowedInference, tagger: BeatsAudioTaggingPipeline | None, before: float
) -> Generator[float, None, tuple[np.ndarray, list[Label]]]:
    """
    Yields the seconds that were read, besides those `before`; returns the embedding `(hidden_size,)` of a recording
    and, with a tagger, all labels, the best first.
    """
    scoring = [] if tagger is None else tagger.inferences(return_events=False)
    first, *others = stream.share(1 + len(scoring))
    readers = [inference.stream_embeddings(first)]
    readers += [scorer.stream_frames(part) for scorer, part in zip(scoring, others)]
    mean, scores = RowMean(), []
    for reader, block in read_in_step(readers):
        if reader == 0:
            mean.add(block.values.mean(axis=1))
            yield before + float(block.ends[-1])
        else:
            scores.append(block)
    labels = tagger.find_tags(scores, top_k=tagger.model.config.num_labels).labels if tagger else []
    return mean.value(), labels


def result_of(generator: Generator[Any, None, Result]) -> Result:
    """Runs a generator to its end and returns its value."""
    while True:
        try:
            next(generator)
        except StopIteration as end:
            return end.value


def merge_labels(first: Sequence[Label], second: Sequence[Label], top_k: int) -> list[SharedLabel]:
    """
    Returns the `top_k` best labels of either recording with both scores, sorted by the lower of the two. Each list has
    all labels of the model, the best first.
    """
    known = [dict(first), dict(second)]
    best = dict.fromkeys(label for labels in (first, second) for label, _ in labels[:top_k])
    merged = [SharedLabel(label, (known[0][label], known[1][label])) for label in best]
    return sorted(merged, key=lambda item: -min(item.scores))


__all__ = ["Comparison", "SharedLabel", "compare_recordings", "merge_labels", "result_of"]
