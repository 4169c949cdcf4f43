# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""`pipeline("audio-tagging")`: labels and sound events of recordings of any length."""

import math
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from functools import partial
from itertools import tee
from numbers import Integral, Real
from typing import Any, Literal, NamedTuple

import numpy as np
from torch.utils.data import IterableDataset
from transformers import Pipeline, PreTrainedModel
from transformers.utils import logging

from transformers_beats.audio.decoding import AudioStream, open_audio
from transformers_beats.backends.choice import Backend
from transformers_beats.configuration_beats import problem_type_of
from transformers_beats.fbank_beats import split_pair
from transformers_beats.feature_extraction_beats import BeatsFeatureExtractor
from transformers_beats.utils.errors import UsageError, name_some

from .backend import in_backend
from .event_options import (
    EVENT_PARAMETERS,
    EVENT_WINDOW_PARAMETERS,
    check_event_options,
    event_settings,
    given_event_settings,
    wants_events,
)
from .events import Event, check_range, settings_of_labels
from .kinds import REFUSED
from .live import EventCollector
from .loading import load_model
from .models import kind_of, unwrap
from .results import Columns
from .windowed import WindowedInference
from .windows import step_seconds


logger = logging.get_logger(__name__)


TASK = "audio-tagging"
# Windows of the events of a clip-level model, in seconds, and how many of them cover each moment.
EVENT_WINDOW_SECONDS, EVENT_OVERLAP = 2.0, 4
# With shorter windows, events were found less well: measured in docs/archives.md, "How short windows may be".
SHORTEST_EVENT_WINDOW = 0.64
WINDOW_PARAMETERS = ("window_seconds", "hop_seconds", *EVENT_WINDOW_PARAMETERS, "windows_per_batch", "progress")
# Events are found while the scores come.
FORWARD_PARAMETERS = ("return_events", *WINDOW_PARAMETERS, *EVENT_PARAMETERS)
POSTPROCESS_PARAMETERS = ("top_k", "threshold")
PARAMETERS = ("sampling_rate", *POSTPROCESS_PARAMETERS, *FORWARD_PARAMETERS)


class Label(NamedTuple):
    """Name of a label and its score in a recording."""

    label: str
    score: float


class Tags(NamedTuple):
    """Labels of a recording, the highest score first, and, if asked for, its events in order of their starts."""

    labels: list[Label]
    events: list[Event] | None = None


class BeatsModelForTask:
    """
    Loader of models for [`pipeline`], as the kind that was saved. The Auto class of clip-level models would also load
    a frame-level model, without a warning, and the other way round.
    """

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str, **kwargs) -> PreTrainedModel:
        """Loads a model of the class that its configuration names, with the checks and errors of [`load_model`]."""
        return load_model(pretrained_model_name_or_path, **kwargs)


def _of_windows(parameters: dict[str, Any]) -> dict[str, Any]:
    """Picks the parameters of windows."""
    return {name: parameters[name] for name in WINDOW_PARAMETERS if name in parameters}


def _check_names(of: str, parameters: dict[str, Any], known: Sequence[str]) -> None:
    """Raises a `TypeError` for parameters of other names than those that are known."""
    if unknown := parameters.keys() - set(known):
        raise TypeError(f"{of} has no parameter {', '.join(sorted(unknown))}; it has {', '.join(known)}.")


def _with_rate(recording: Any, sampling_rate: int | None) -> Any:
    """Adds the rate to a dict with an array. A bare array is at the model's rate by default, a dict has a rate."""
    is_waveform = isinstance(recording, dict) and not recording.keys().isdisjoint(("array", "raw"))
    return {"sampling_rate": sampling_rate, **recording} if is_waveform else recording


def _is_recording(inputs: Any) -> bool:
    """Returns whether this is one recording: a file, an array, or anything that does not hold several."""
    is_one = isinstance(inputs, (str, bytes, bytearray, memoryview, os.PathLike, dict, AudioStream))
    is_one = is_one or split_pair(inputs) is not None
    has_samples = any(hasattr(inputs, name) for name in ("read", "get_all_samples", "__array__"))
    holds_several = isinstance(inputs, Iterable) or hasattr(inputs, "__getitem__")
    return is_one or has_samples or not holds_several


def _items(inputs: Any) -> Iterator[Any]:
    """Iterates over recordings. A `map`, unlike a generator, goes on after an error of the dataset."""
    is_indexed = isinstance(inputs, Sized) and hasattr(inputs, "__getitem__")
    # Every dataset of PyTorch has a `__getitem__`, which raises a NotImplementedError in these.
    if is_indexed and not isinstance(inputs, IterableDataset):
        return map(inputs.__getitem__, range(len(inputs)))
    return iter(inputs)


def _share_each(recordings: Iterator[Any], open_one: Callable[[Any], AudioStream], count: int) -> list[Iterator[Any]]:
    """
    Returns several iterators over streams of recordings, each of which is decoded once. An error of a recording is
    raised in all of them, which go on with the next.
    """

    def share_or_fail() -> Iterator[list[Any]]:
        while True:
            try:
                shared: list[Any] = list(open_one(next(recordings)).share(count))
            except StopIteration:
                return
            except Exception as error:  # raised by `pick`
                shared = [error] * count
            yield shared

    def pick(index: int, shared: list[Any]) -> AudioStream:
        if isinstance(shared[index], Exception):
            raise shared[index]
        return shared[index]

    return [map(partial(pick, index), copy) for index, copy in enumerate(tee(share_or_fail(), count))]


def read_in_step(readers: Sequence[Iterator[Columns]]) -> Iterator[tuple[int, Columns]]:
    """
    Reads the results of several models, such as of [`WindowedInference.stream_frames`], for streams of one recording
    from [`AudioStream.share`]. Yields the number of a reader and its next block: that of the reader that is behind, so
    that the streams hold no more than a batch of windows, whatever the length.
    """
    ends = dict.fromkeys(range(len(readers)), 0.0)
    while ends:
        behind = min(ends, key=ends.__getitem__)
        block = next(readers[behind], None)
        if block is None:
            del ends[behind]
        else:
            yield behind, block
            ends[behind] = float(block.ends[-1])


class _Results(Iterator[Any]):
    """Iterator over results with the length of the inputs, for progress bars."""

    def __init__(self, results: Iterator[Any], inputs: Any):
        self.results = results
        self.inputs = inputs

    def __len__(self) -> int:
        return len(self.inputs)

    def __next__(self) -> Any:
        return next(self.results)


class BeatsAudioTaggingPipeline(Pipeline):
    """
    Labels and events of recordings: `pipeline("audio-tagging", model=...)` after `import transformers_beats`.

    Files of any length are decoded with soundfile and resampled with soxr while the model computes windows. The
    program ffmpeg is needed for some formats only, such as m4a; torchaudio is not. A
    [`BeatsForAudioFrameClassification`] gives scores every 160 ms, or every 40 ms with `frame_pooling="sequence"`. A
    [`BeatsForAudioClassification`] gives scores for each window, so its events are as coarse as their windows, which
    are short and overlap, while its labels come from windows as long as the clips of AudioSet. `backend="onnx"` and
    others choose what computes the encoder, see [`in_backend`].

    Example:

    ```python
    >>> import transformers_beats
    >>> from transformers import pipeline

    >>> tagger = pipeline("audio-tagging", model="beats-finetuned")  # doctest: +SKIP
    >>> tagger("clip.ogg", top_k=1)  # doctest: +SKIP
    [{'label': 'Dog', 'score': 0.93}]
    >>> tagger("hours.flac", return_events=True)["events"]  # doctest: +SKIP
    [{'label': 'Dog', 'score': 0.97, 'start': 12.48, 'end': 14.56}, ...]
    ```
    """

    _load_processor = False
    _load_image_processor = False
    _load_video_processor = False
    _load_feature_extractor = True
    _load_tokenizer = False

    feature_extractor: BeatsFeatureExtractor

    def __init__(self, *args, backend: Backend = "torch", **kwargs):
        super().__init__(*args, **kwargs)
        kind = kind_of(self.model)
        if kind not in ("clips", "frames"):
            name = type(unwrap(self.model)).__name__
            raise UsageError(f"A {name} {REFUSED['labels'].reason}")
        self._is_frame_level = kind == "frames"
        if self.feature_extractor is None:
            raise UsageError(f"{TASK} needs a `feature_extractor`: pass the model's own along with the model.")
        if problem_type_of(self.model.config) == "regression":
            raise UsageError(f"A regression has no labels that could be heard: {TASK} needs a classifier.")
        # Opened once; the model that is saved stays PyTorch's.
        self._backend, self._in_backend = backend, None if backend == "torch" else in_backend(self.model, backend)
        self._check_parameters({})

    @property
    def frame_seconds(self) -> float | None:
        """Time from one score of a frame-level model to the next, in seconds; None for a clip-level model."""
        config: Any = self.model.config
        return step_seconds(config, self.feature_extractor) if self._is_frame_level else None

    @property
    def label_scores(self) -> Literal["means", "highest"]:
        """Scores of labels: means over the recording or, with several labels at a time, the highest of all columns."""
        several = problem_type_of(self.model.config) == "multi_label_classification"
        return "highest" if self._is_frame_level and several else "means"

    def __call__(self, inputs: Any, batch_size: int | None = None, num_workers: int | None = None, **kwargs) -> Any:
        """
        Tags one recording or several.

        Args:
            inputs (`str`, `bytes`, `np.ndarray`, `torch.Tensor`, `tuple`, `dict`, or several in anything iterable):
                A recording, see [`open_audio`]; an array is at the model's rate, unless `sampling_rate` says another.
                A list or tuple gives a list; a dataset, its column, a generator or another iterator gives results one
                by one, as `next` or a loop asks for them, once. After the error of a recording that cannot be used,
                `next` goes on with the one after it.
            batch_size (`int`, *optional*):
                Windows in a batch: 8, unless the pipeline was made with another number. Recordings of a list or a
                dataset share batches, see [`WindowedInference`]; those of a generator, or of anything else without a
                length, which may wait for a result before it gives the next one, only if a size is given.
            num_workers (`int`, *optional*):
                Not used: a recording is decoded while its windows are computed.
            sampling_rate (`int`, *optional*):
                Sampling rate of arrays, in hertz.
            top_k (`int`, *optional*, defaults to 5):
                Largest number of labels; `None` for all.
            threshold (`float`, *optional*):
                Lowest score of a label, in [0, 1] (`>=`). Defaults to all labels.
            return_events (`bool`, *optional*):
                Whether to return events as well. By default, if any of the options of events below is given.
            event_threshold, low_threshold, median_seconds, gap_seconds, min_seconds:
                Settings of events: see [`EventSettings`], where the first is `threshold`; `box_seconds`, `merge_drop`,
                `merge_ratio` and `temperature` are others. By default, those of each label in the configuration
                (`event_settings`), and of others 0.5 without any filter.
            window_seconds, hop_seconds:
                Windows of the labels, 10 s by default: see [`WindowedInference`].
            event_window_seconds, event_hop_seconds:
                Windows of the events. They default to 2 s and a quarter of the window, for a frame-level model without
                an `event_window_seconds` to the windows of the labels.
            progress (`bool`, defaults to `False`):
                Whether to show a progress bar, in seconds of audio.

        Returns:
            `list[dict]`: `label` and `score`, the highest score first. The score is the mean over the recording; for a
            frame-level model with several labels at a time, the highest of all columns. With events, a
            `dict` of these `labels` and of `events`, each with `label`, `score`, `start` and `end`, in seconds. The
            labels do not depend on the settings of the events. [`~BeatsAudioTaggingPipeline.find_tags`] gives objects
            instead.

        Raises:
            [`AudioError`]: for a file that cannot be used.
            `ValueError`: for any other input that is not audio, and for parameters that are out of range.
            `MemoryError`: for a window that is too long for the memory.
        """
        if batch_size is not None:
            kwargs["windows_per_batch"] = batch_size
        self._check_parameters(kwargs)
        given = self._sanitize_parameters(**kwargs)
        own = (self._preprocess_params, self._forward_params, self._postprocess_params)
        stages = [{**ours, **theirs} for ours, theirs in zip(own, given)]
        if _is_recording(inputs):
            return self.run_single(inputs, *stages)
        # The base class would decode whole recordings and pad them to the longest, and knows fewer kinds of inputs.
        if not isinstance(inputs, (list, tuple)):
            return self._tag_many(inputs, *stages)
        if len(inputs) > 0 and isinstance(inputs[0], Real):
            raise UsageError("Got a list of numbers: pass np.asarray(...) of it, with its `sampling_rate`.")
        return list(self._tag_many(inputs, *stages))

    def save_pretrained(self, save_directory: str | os.PathLike, **kwargs: Any) -> None:
        """
        Saves the model and its feature extractor. The base class would save the pipeline's code too, which users would
        have to trust; it comes with `import transformers_beats`.
        """
        self.model.save_pretrained(save_directory, **kwargs)
        self.feature_extractor.save_pretrained(save_directory, **kwargs)

    def _sanitize_parameters(self, **parameters):
        _check_names(TASK, parameters, PARAMETERS)
        top_k, threshold = parameters.get("top_k"), parameters.get("threshold")
        if top_k is not None and not (isinstance(top_k, Integral) and top_k >= 1):
            raise UsageError(f"`top_k` must be a whole number of at least 1, or None, got {top_k!r}.")
        if threshold is not None:
            check_range("`threshold`", threshold, 0.0, 1.0)
        stages = (("sampling_rate",), FORWARD_PARAMETERS, POSTPROCESS_PARAMETERS)
        return tuple({name: parameters[name] for name in stage if name in parameters} for stage in stages)

    def _check_parameters(self, parameters: dict[str, Any]) -> None:
        """Raises a [`UsageError`], before anything is computed, for parameters that do not fit the pipeline's."""
        merged = {**self._forward_params, **parameters}
        # Options of the pipeline are kept for calls that want events.
        check_event_options({**parameters, "return_events": merged.get("return_events")})
        self._collector(merged)
        self.inferences(True, **_of_windows(merged))

    def _tag_many(
        self, inputs: Iterable[Any], preprocess: dict[str, Any], forward: dict[str, Any], postprocess: dict[str, Any]
    ) -> _Results:
        """Tags several recordings, which share batches if they need not wait for one another."""
        if not (isinstance(inputs, Sized) or forward.get("windows_per_batch") or self._batch_size):
            one_by_one = partial(
                self.run_single, preprocess_params=preprocess, forward_params=forward, postprocess_params=postprocess
            )
            return _Results(map(one_by_one, inputs), inputs)
        return_events = wants_events(forward)
        inferences = self.inferences(return_events, **_of_windows(forward))
        streams = _share_each(_items(inputs), partial(self._open, **preprocess), len(inferences))
        columns = [inference.stream_frames_many(part) for inference, part in zip(inferences, streams)]

        def finish(*readers: Iterator[Columns]) -> Any:
            collector = self._collector(forward) if return_events else None
            return self.postprocess(self._summarise(readers, collector), **postprocess)

        return _Results(map(finish, *columns), inputs)

    def _open(self, recording: Any, sampling_rate: int | None = None) -> AudioStream:
        rate = self.feature_extractor.sampling_rate
        return open_audio(_with_rate(recording, sampling_rate), rate, rate if sampling_rate is None else sampling_rate)

    def preprocess(self, input_: Any, **parameters: Any) -> dict[str, Any]:
        """Opens a recording; it is decoded while its windows are computed."""
        return {"stream": self._open(input_, **parameters)}

    def inferences(
        self,
        return_events: bool,
        window_seconds: float = 10.0,
        hop_seconds: float | None = None,
        event_window_seconds: float | None = None,
        event_hop_seconds: float | None = None,
        windows_per_batch: int | None = None,
        progress: bool = False,
    ) -> list[WindowedInference]:
        """
        Returns the inference of the labels and, with events that have other windows, that of the events. The arguments
        are those of the pipeline.
        """
        # `_batch_size` is that of the pipeline.
        batch_size = next(size for size in (windows_per_batch, self._batch_size, 8) if size is not None)
        model = self.model if self._in_backend is None else self._in_backend
        # Already opened: the choice depends on the windows, too.
        make = partial(WindowedInference, model, self.feature_extractor, backend=self._backend)
        labels = make(window_seconds, hop_seconds, batch_size, progress)
        if not return_events:
            return [labels]
        window, hop = event_window_seconds, event_hop_seconds
        if self._is_frame_level and window is None:
            window, hop = window_seconds, hop_seconds if hop is None else hop
        else:
            window = EVENT_WINDOW_SECONDS if window is None else window
            hop = window / EVENT_OVERLAP if hop is None and isinstance(window, Real) else hop
        try:
            events = make(window, hop, batch_size)
        except UsageError as error:
            raise UsageError(re.sub("`(window|hop)_seconds`", r"`event_\1_seconds`", str(error))) from None
        if window < SHORTEST_EVENT_WINDOW:
            logger.warning_once(
                f"Windows of events are {window:g} s: below {SHORTEST_EVENT_WINDOW:g} s, events are found less well. "
                "Set `event_window_seconds` (--event-window) to that or more; for a shorter delay, shorten the hop."
            )
        return [labels] if events.windows == labels.windows else [labels, events]

    def _forward(self, input_tensors: dict[str, Any], **parameters: Any) -> Any:
        """Computes the scores `(num_labels,)` of a recording, and its events if they are asked for."""
        return_events = wants_events(parameters)
        inferences = self.inferences(return_events, **_of_windows(parameters))
        streams = input_tensors["stream"].share(len(inferences))
        readers = [inference.stream_frames(stream) for inference, stream in zip(inferences, streams)]
        return self._summarise(readers, self._collector(parameters) if return_events else None)

    def find_tags(self, columns: Iterable[Columns], return_events: bool | None = None, **parameters: Any) -> Tags:
        """
        Finds labels and events of a recording whose columns are computed already.

        Args:
            columns (`Iterable[Columns]`):
                Scores, as of [`WindowedInference.stream_frames`].
            return_events (`bool`, *optional*):
                Whether to find events as well. By default, if a setting of events is given.
            parameters (`Any`):
                `top_k`, `threshold` and settings of events, as of the pipeline. Windows are those of the columns.
        """
        _check_names("find_tags", parameters, (*POSTPROCESS_PARAMETERS, *EVENT_PARAMETERS))
        self._sanitize_parameters(**parameters)
        parameters["return_events"] = return_events
        check_event_options(parameters)
        collector = self._collector(parameters) if wants_events(parameters) else None
        return self._tags(self._summarise([iter(columns)], collector), **parameters)

    def compare(
        self, labels: Sequence[Label | Mapping[str, Any]], events: Sequence[Event | Mapping[str, Any]]
    ) -> str | None:
        """
        Compares labels and events of a recording, for whatever shows both.

        Args:
            labels (`list[dict]` or `list[Label]`):
                Its labels, the highest score first.
            events (`list[dict]` or `list[Event]`):
                Its events.

        Returns:
            `str`: how they disagree, that is if the best label has no event although there are others; otherwise
            `None`.
        """
        if not labels or not events:
            return None
        entries = (labels[0], *events)
        best, *others = (entry["label"] if isinstance(entry, Mapping) else entry.label for entry in entries)
        heard = sorted({*others})
        if best in heard:
            return None
        reason = "labels are means over the whole recording, and events are of moments"
        if self.label_scores == "highest":
            reason = "its highest score is in no moment that the settings of events let pass"
        if problem_type_of(self.model.config) == "single_label_classification":
            reason += "; this model knows one sound at a time, of which several share the score"
        return f"the best label, {best!r}, has no event, but {name_some(heard)} has: {reason}."

    def _collector(self, parameters: dict[str, Any]) -> EventCollector:
        """Returns what finds events. Settings that are given precede those that the model keeps for its labels."""
        of_labels = settings_of_labels(self.model.config, given_event_settings(parameters))
        return EventCollector(self._id2label, event_settings(parameters), of_labels)

    @property
    def _id2label(self) -> dict[int, str]:
        return {int(label): name for label, name in (self.model.config.id2label or {}).items()}

    def _summarise(self, readers: Sequence[Iterator[Columns]], collector: EventCollector | None) -> dict[str, Any]:
        """Summarises the scores of the first reader to those of labels, and passes on those of the last one."""
        total, highest, num_columns = 0.0, 0.0, 0
        for reader, block in read_in_step(readers):
            if reader == 0:
                total = total + block.values.sum(axis=0, dtype=np.float64)
                highest = np.maximum(highest, block.values.max(axis=0))
                num_columns += len(block.values)
            if collector is not None and reader == len(readers) - 1:
                collector.add(block)
        scores = highest if self.label_scores == "highest" else total / num_columns
        return {"scores": scores, "events": collector}

    def postprocess(
        self, model_outputs: dict[str, Any], **parameters: Any
    ) -> list[dict[str, Any]] | dict[str, list[dict[str, Any]]]:
        """Turns scores into labels and events, as dicts."""
        tags = self._tags(model_outputs, **parameters)
        labels = [label._asdict() for label in tags.labels]
        return (
            labels if tags.events is None else {"labels": labels, "events": [event._asdict() for event in tags.events]}
        )

    def _tags(self, outputs: dict[str, Any], **parameters: Any) -> Tags:
        id2label, scores, collector = self._id2label, outputs["scores"], outputs["events"]
        threshold = parameters.get("threshold")
        lowest = -math.inf if threshold is None else threshold
        ranking = np.argsort(-scores, kind="stable")[: parameters.get("top_k", 5)]
        labels = [Label(id2label[int(index)], float(scores[index])) for index in ranking if scores[index] >= lowest]
        return Tags(labels, None if collector is None else collector.finish())


__all__ = ["TASK", "BeatsAudioTaggingPipeline", "BeatsModelForTask", "Label", "Tags"]
