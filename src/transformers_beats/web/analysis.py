# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Work behind the web page ([`page`]): finding checkpoints, and analysing a clip within limits, step by step."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from itertools import chain, count
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np

from transformers_beats.audio.decoding import AudioError, AudioReport, AudioStream, open_audio
from transformers_beats.backends.choice import Backend
from transformers_beats.configuration_beats import problem_type_of
from transformers_beats.conversion import released
from transformers_beats.inference import loading
from transformers_beats.inference.backend import in_backend
from transformers_beats.inference.events import Event, check_range
from transformers_beats.inference.pipeline import (
    EVENT_OVERLAP,
    EVENT_WINDOW_SECONDS,
    BeatsAudioTaggingPipeline,
    Label,
)
from transformers_beats.inference.results import Columns
from transformers_beats.inference.windowed import WindowedInference
from transformers_beats.plotting.spectrogram import Spectrogram, SpectrogramReader
from transformers_beats.utils.arguments import find_problem
from transformers_beats.utils.errors import BeatsError, UsageError, name_some
from transformers_beats.utils.hub import check_model_repository, is_id


if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from transformers_beats.feature_extraction_beats import BeatsFeatureExtractor


Kind = Literal["clips", "frames", "tokens"]
Stage = Literal["labels", "events", "picture"]

TOP_K = 5
# Window and hop of events in seconds, which are those of the pipeline.
DEFAULT_WINDOWS: dict[Kind, tuple[float, float]] = {
    "clips": (EVENT_WINDOW_SECONDS, EVENT_WINDOW_SECONDS / EVENT_OVERLAP),
    "frames": (10.0, 10.0),
}
WINDOW_SECONDS = (0.5, 30.0)
# Largest number of windows that overlap, which bounds the work.
MAX_OVERLAP = 8
# Threshold that the page begins with: of a model with settings of its own (`event_settings`), these.
EVENT_THRESHOLD = 0.5
TUNED = "Thresholds and filters are those that were tuned for this model."
# A result is shown again when the bar has moved by this share.
SHOWN_STEP = 0.01
# How the labels come from the scores, by the pipeline's `label_scores`.
SUMMARIES = {"means": "Means over", "highest": "Highest scores in"}


class Checkpoint(NamedTuple):
    """
    A model that can be chosen: its name on the page (id on the Hub, or name of its directory), its directory, its
    kind, `"clips"` or `"frames"` for a classifier of these, `"tokens"` for a tokenizer, and what computes its encoder.
    """

    name: str
    path: Path
    kind: Kind
    backend: Backend = "torch"


@dataclass(frozen=True)
class Limits:
    """
    Length of the longest recording, in seconds, and size of the largest upload, in 2^20 bytes. Raises a [`UsageError`]
    if one is no finite number of at least 1.
    """

    max_seconds: float = 1800.0
    max_megabytes: int = 200

    def __post_init__(self):
        for name, value in vars(self).items():
            if problem := find_problem(value, True, {"min": 1}):
                raise UsageError(f"--{name.replace('_', '-')} must {problem}, got {value!r}.")

    def __str__(self) -> str:
        return f"{format_duration(self.max_seconds)} and {self.max_megabytes} MB"


@dataclass(frozen=True)
class Settings:
    """
    Settings of events on the page: threshold, in [0, 1]; window of [`WindowedInference`], from 0.5 to 30 s; and hop,
    from an eighth of the window to all of it. Raises a [`UsageError`] for a value out of range.
    """

    threshold: float
    window_seconds: float
    hop_seconds: float

    def __post_init__(self):
        check_range("threshold", self.threshold, 0.0, 1.0)
        check_range("window (seconds)", self.window_seconds, *WINDOW_SECONDS)
        check_range(
            "hop (seconds) with this window", self.hop_seconds, self.window_seconds / MAX_OVERLAP, self.window_seconds
        )


@dataclass(frozen=True)
class Analysis:
    """
    Results for a clip, as far as they are known.

    Args:
        stage (`Stage`):
            Part of the work that is being done, the last when labels, events and spectrogram are known.
        labels (`list[Label]`):
            Best labels of what was heard so far, as the pipeline gives them, the highest score first.
        caption (`str`):
            Meaning of the scores that the page shows, in sentences.
        share (`float`, *optional*):
            Share of the work that is done, in [0, 1], which never falls; `None` while the length is not known.
        report ([`AudioReport`]):
            Length and warnings of the decoder.
        events (`list[Event]`, *optional*):
            Events in order of their starts, once they are known.
        spectrogram ([`Spectrogram`], *optional*):
            The spectrogram, together with the events.
        classes (`list[Label]`, *optional*):
            Labels that the page shows in place of `labels`, together with the events: see [`best_scores`].
    """

    stage: Stage = "labels"
    labels: list[Label] = field(default_factory=list)
    caption: str = ""
    share: float | None = 0.0
    report: AudioReport = field(default_factory=AudioReport)
    events: list[Event] | None = None
    spectrogram: Spectrogram | None = None
    classes: list[Label] | None = None


@dataclass(frozen=True)
class Tokens:
    """
    Acoustic tokens of a clip, as far as they are known: share of the work that is done, see [`Analysis`]; and at the
    end codes `(num_columns, num_freq_patches)`, vectors of the codebook and the tokenizer's feature extractor.
    """

    share: float | None = 0.0
    codes: Columns | None = None
    codebook: np.ndarray | None = None
    extractor: "BeatsFeatureExtractor | None" = None


def format_duration(seconds: float) -> str:
    """Returns a duration with its format: "1:30 (min:s)" or "2:00:00 (h:min:s)"."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d} (h:min:s)" if hours else f"{minutes}:{rest:02d} (min:s)"


def find_checkpoints(sources: Sequence[str | Path], backend: Backend = "torch") -> list[Checkpoint]:
    """
    Finds the checkpoints that the page can use. Others in the same folder, such as models that were only pre-trained,
    are left out. `sources` are directories with a `config.json`, directories of such directories, or ids of models on
    the Hub, which are downloaded without code; `backend` is what computes their encoders. Returns checkpoints with
    different names, at least one a classifier.

    Raises:
        [`UsageError`]: if a source cannot be found or fetched or holds no checkpoint, or if none of them is a
            classifier of sounds.
    """
    names: dict[Path, str] = {}
    for source in sources:
        try:
            directory, hub_id = local_directory(source)
        except BeatsError as error:
            raise UsageError(str(error)) from error
        found = [directory] if is_checkpoint(directory) else []
        # Folders below a checkpoint are those of its training, but for a repository of the Hub, which has no others.
        if not found or hub_id is not None:
            folders = [path for path in directory.glob("*") if not path.name.startswith(".")]
            found += sorted(filter(is_checkpoint, folders))
        if not found:
            raise UsageError(f"{source}: no checkpoint, it has no config.json, and no folder in it has one.")
        for path in found:
            # The name of a download's folder is that of a commit.
            names[path] = path.name if hub_id is None else str(PurePosixPath(hub_id, path.relative_to(directory)))
    kinds = {path: kind for path in names if (kind := kind_of(path)) is not None}
    if not any(kind in DEFAULT_WINDOWS for kind in kinds.values()):
        tried = ", ".join(map(str, names)) or "no directory was given"
        raise UsageError(f"There is no BEATs model that was fine-tuned to classify sounds ({tried}).")
    different = tell_apart({path: names[path] for path in kinds})
    return [Checkpoint(different[path], path, kind, backend) for path, kind in kinds.items()]


def is_checkpoint(directory: Path) -> bool:
    """Returns whether a directory has the configuration of a model or of an adapter."""
    return any(os.path.isfile(directory / name) for name in ("config.json", "adapter_config.json"))


def tell_apart(names: dict[Path, str]) -> dict[Path, str]:
    """
    Makes names different: equal ones are preceded by the folder above, and numbered if that is the same, too. No name
    tells a visitor of the page more about the folders of this machine.
    """
    different: dict[Path, str] = {}
    for path, name in names.items():
        if list(names.values()).count(name) > 1:
            name = f"{path.parent.name}/{name}".lstrip("/")
        numbered = (f"{name} ({number})" for number in count(2))
        different[path] = next(
            candidate for candidate in chain([name], numbered) if candidate not in different.values()
        )
    return different


def local_directory(source: str | Path) -> tuple[Path, str | None]:
    """Returns the directory of a source and, for a released model or one of the Hub, which are fetched, its name."""
    path = Path(source).expanduser()
    if path.is_dir():
        return path.resolve(), None
    if (found := released.resolve(source)) != str(source):
        return Path(found), str(source)
    if isinstance(source, str) and is_id(source):
        from huggingface_hub import snapshot_download

        try:
            check_model_repository(source, "config.json", {})
            return Path(snapshot_download(source, allow_patterns=["*.json", "*.safetensors"])), source
        except BeatsError:
            raise
        except (OSError, ValueError) as error:
            raise UsageError(f"{source}: no such directory, and not found on the Hub.") from error
    loading.find_model(source)
    raise UsageError(f"{source}: no such directory.")


def kind_of(directory: Path) -> Kind | None:
    """Returns the use of a checkpoint on the page, from its configuration alone; `None` if it has none."""
    try:
        config = loading.saved_config(directory)
    except (OSError, ValueError):
        # A model of another project, or a damaged file.
        return None
    architecture = (config.architectures or [""])[0]
    if not config.model_type.startswith("beats"):
        return None
    if hasattr(config, "codebook_dim"):
        return "tokens"
    if architecture.endswith("ForAudioFrameClassification"):
        return "frames"
    is_classifier = architecture.endswith("ForAudioClassification") and problem_type_of(config) != "regression"
    return "clips" if is_classifier else None


# A base model has 360 MB: only the models used last are kept.
@lru_cache(maxsize=4)
def load(path: Path, device: str, backend: Backend = "torch") -> tuple["PreTrainedModel", "BeatsFeatureExtractor"]:
    """
    Loads a model, whose encoder a backend computes, and its feature extractor. An error names the directory without
    its path.
    """
    try:
        model, extractor = loading.load(path, device)
        return in_backend(model, backend), extractor
    except BeatsError as error:
        raise type(error)(str(error).replace(str(path), path.name)) from error


def check_backends(checkpoints: Sequence[Checkpoint], device: str) -> None:
    """
    Loads checkpoints that another backend than PyTorch computes, so that a model that it cannot compute is an error
    before the page is served, and no visitor waits for an export.

    Raises:
        [`UsageError`]: if a backend that was named cannot compute a checkpoint.
    """
    for checkpoint in checkpoints:
        if checkpoint.backend != "torch":
            try:
                load(checkpoint.path, device, checkpoint.backend)
            except BeatsError as error:
                raise UsageError(f"{checkpoint.name}: {error}") from error


def open_limited(path: Path, sampling_rate: int, max_seconds: float) -> AudioStream:
    """
    Opens a file, of which no more than `max_seconds` are read.

    Raises:
        [`AudioError`]: if the file cannot be used or is too long: at once if its header says so, or at the limit.
    """
    stream = open_audio(path, sampling_rate)
    too_long = AudioError(
        f"{path.name} is too long: this page takes at most {format_duration(max_seconds)}. Cut it into parts."
    )
    if (stream.seconds or 0) > max_seconds:
        raise too_long

    def read() -> Iterator[np.ndarray]:
        num_samples = 0
        for block in stream.blocks:
            num_samples += len(block)
            if num_samples > max_seconds * sampling_rate:
                raise too_long
            yield block

    return replace(stream, blocks=read())


def analyse(
    path: Path, classifier: Checkpoint, settings: Settings, max_seconds: float, device: str = "cpu"
) -> Iterator[Analysis]:
    """
    Computes labels, then events and spectrogram of a clip. Yields the results again and again while they grow; the
    last are complete. Memory does not grow with the length but for the scores, one row for each score.

    The labels come from windows of 10 s, whatever those of the events are. If these differ, the file is decoded a
    second time for the events: they take several times as long, and the labels need not wait for them.

    Raises:
        [`AudioError`]: for a file that cannot be used, or is too long.
        [`BeatsError`]: for a checkpoint that cannot be used.
        `MemoryError`: for windows that are too long.
    """
    model, extractor = load(classifier.path, device, classifier.backend)
    # Opened by `load`: the choice depends on the windows, too.
    tagger = BeatsAudioTaggingPipeline(
        model=model, feature_extractor=extractor, device=model.device, backend=classifier.backend
    )
    inferences = tagger.inferences(
        return_events=True, event_window_seconds=settings.window_seconds, event_hop_seconds=settings.hop_seconds
    )
    # Windows that are computed for each moment.
    costs = [inference.window_columns / inference.hop_columns for inference in inferences]
    summary = SUMMARIES[tagger.label_scores]
    picture = SpectrogramReader(extractor)
    result = Analysis()
    blocks: list[Columns] = []
    length = None
    for number, inference in enumerate(inferences):
        stream = open_limited(path, extractor.sampling_rate, max_seconds)
        length = length or stream.seconds
        result = replace(result, report=stream.report)
        # For the labels, this would be work before the first result.
        if number == len(inferences) - 1:
            stream = picture.follow(stream)
        blocks = []
        for block in inference.stream_frames(stream):
            blocks.append(block)
            seconds, share = float(block.ends[-1]), None
            if length:
                share = (sum(costs[:number]) + costs[number] * min(1.0, seconds / length)) / sum(costs)
            is_first = number == 0 and len(blocks) == 1
            if is_first or has_moved(result.share, share):
                result = replace(result, share=share)
                if number == 0:
                    labels = tagger.find_tags(blocks, top_k=TOP_K).labels
                    caption = f"So far: {summary.lower()} the first {format_duration(seconds)}."
                    result = replace(result, labels=labels, caption=caption)
                yield result
        if number == 0:
            length = result.report.seconds
            labels = tagger.find_tags(blocks, top_k=TOP_K).labels
            caption = f"{summary} the whole recording."
            result = replace(result, stage="events", labels=labels, caption=caption, share=costs[0] / sum(costs))
            yield result
    threshold = None if settings.threshold == EVENT_THRESHOLD else settings.threshold
    events = tagger.find_tags(blocks, return_events=True, event_threshold=threshold).events or []
    classes = best_scores(result.labels, events)
    caption = describe_scores(classes, events, settings.threshold, tagger)
    if threshold is None and tagger.model.config.event_settings:
        caption = f"{caption} {TUNED}"
    result = replace(result, stage="picture", classes=classes, caption=caption, share=1.0)
    yield replace(result, events=events, spectrogram=picture.spectrogram())


def has_moved(before: float | None, share: float | None) -> bool:
    """
    Returns whether a share differs enough from the one before to be shown. One that is not known always does: work can
    be cancelled only where something is shown.
    """
    return share is None or before is None or share - before >= SHOWN_STEP


def best_scores(labels: Sequence[Label], events: Sequence[Event]) -> list[Label]:
    """
    Returns the labels with the highest scores, of which those with events have the highest score of these, so that no
    label that the timeline shows is missing among lower ones.
    """
    scores: dict[str, float] = {}
    for event in events:
        scores[event.label] = max(event.score, scores.get(event.label, 0.0))
    scores = dict(labels) | scores
    return [Label(label, scores[label]) for label in sorted(scores, key=lambda label: -scores[label])[:TOP_K]]


def describe_scores(
    labels: Sequence[Label], events: Sequence[Event], threshold: float, tagger: BeatsAudioTaggingPipeline
) -> str:
    """Returns the meaning of the scores of [`best_scores`], in sentences."""
    if not events:
        tuned = threshold == EVENT_THRESHOLD and tagger.model.config.event_settings
        reached = "its threshold" if tuned else f"the threshold of {threshold:g}"
        return f"{SUMMARIES[tagger.label_scores]} the whole recording. At no moment does a class reach {reached}."
    heard = {event.label for event in events}
    others = [label for label, _ in labels if label not in heard]
    sentences = ["The highest score of each class in its events."]
    if others:
        score = {"means": "mean", "highest": "highest of all"}[tagger.label_scores]
        sentences = [f"{sentences[0][:-1]}; without events, the {score}: {name_some(others)}."]
    if num_more := len(heard) - (len(labels) - len(others)):
        sentences.append(f"The timeline has {num_more} more.")
    if tagger.frame_seconds is not None:
        sentences.append(f"The model has a score every {1000 * tagger.frame_seconds:g} ms.")
    if problem_type_of(tagger.model.config) == "single_label_classification":
        sentences.append("This model knows one class at a time: at each moment, the scores of all add up to 1.")
    if contradiction := tagger.compare([label._asdict() for label in labels], events):
        sentences.append(f"Note: {contradiction}")
    return " ".join(sentences)


def find_tokens(path: Path, tokenizer: Checkpoint, max_seconds: float, device: str = "cpu") -> Iterator[Tokens]:
    """
    Computes the acoustic tokens of a clip, as [`analyse`] computes its labels; the last result has them.

    Raises:
        [`AudioError`]: for a file that cannot be used, or is too long.
        [`BeatsError`]: for a checkpoint that cannot be used.
    """
    model, extractor = load(tokenizer.path, device, tokenizer.backend)
    stream = open_limited(path, extractor.sampling_rate, max_seconds)
    blocks: list[Columns] = []
    shown: float | None = 0.0
    for block in WindowedInference(model, extractor).stream_codes(stream):
        blocks.append(block)
        share = min(1.0, float(block.ends[-1]) / stream.seconds) if stream.seconds else None
        if has_moved(shown, share):
            shown = share
            yield Tokens(share)
    yield Tokens(1.0, Columns.join(blocks), model.get_buffer("quantizer.codebook").cpu().numpy(), extractor)
