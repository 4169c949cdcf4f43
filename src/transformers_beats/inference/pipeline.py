# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""`pipeline("audio-tagging")`: labels and sound events of recordings of any length."""

import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence, Sized
from dataclasses import fields
from functools import partial
from numbers import Integral, Real
from typing import Any, NamedTuple

import numpy as np
from torch.utils.data import IterableDataset
from transformers import Pipeline, PreTrainedModel

from transformers_beats.audio.decoding import AudioStream, open_audio
from transformers_beats.configuration_beats import problem_type_of
from transformers_beats.fbank_beats import split_pair
from transformers_beats.feature_extraction_beats import BeatsFeatureExtractor
from transformers_beats.modeling_beats import BeatsForAudioClassification, BeatsForAudioFrameClassification
from transformers_beats.utils.errors import UsageError, name_some

from .events import Event, EventSettings, check_range, find_events
from .loading import load_model
from .windowed import Columns, WindowedInference


TASK = "audio-tagging"
WINDOW_PARAMETERS = ("window_seconds", "hop_seconds", "windows_per_batch", "progress")
FORWARD_PARAMETERS = ("return_events", *WINDOW_PARAMETERS)
# Fields of `EventSettings` by their names here, where `threshold` is that of the labels.
EVENT_PARAMETERS = {"event_threshold": "threshold"} | {
    field.name: field.name for field in fields(EventSettings) if field.name != "threshold"
}
POSTPROCESS_PARAMETERS = ("top_k", "threshold", *EVENT_PARAMETERS)
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


def event_settings(parameters: dict[str, Any]) -> EventSettings:
    """Picks the settings of events among the parameters of a pipeline; `None` stands for the default."""
    given = {field: parameters.get(name) for name, field in EVENT_PARAMETERS.items()}
    try:
        return EventSettings(**{field: value for field, value in given.items() if value is not None})
    except UsageError as error:
        raise UsageError(str(error).replace("`threshold`", "`event_threshold`")) from None


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
    [`BeatsForAudioFrameClassification`] gives scores every 160 ms. A
    [`BeatsForAudioClassification`] gives scores for each window, so its events are as coarse as its windows: choose
    short ones with a shorter hop.

    Example:

    ```python
    >>> import transformers_beats
    >>> from transformers import pipeline

    >>> tagger = pipeline("audio-tagging", model="beats-finetuned")  # doctest: +SKIP
    >>> tagger("clip.ogg", top_k=1)  # doctest: +SKIP
    [{'label': 'Dog', 'score': 0.93}]
    >>> tagger("hours.flac", return_events=True, window_seconds=2, hop_seconds=0.5)["events"]  # doctest: +SKIP
    [{'label': 'Dog', 'score': 0.97, 'start': 12.48, 'end': 14.56}, ...]
    ```
    """

    _load_processor = False
    _load_image_processor = False
    _load_video_processor = False
    _load_feature_extractor = True
    _load_tokenizer = False

    feature_extractor: BeatsFeatureExtractor

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        if not isinstance(self.model, (BeatsForAudioClassification, BeatsForAudioFrameClassification)):
            kind = type(self.model).__name__
            raise UsageError(f"A {kind} knows no labels: {TASK} needs a model fine-tuned to classify sounds.")
        if self.feature_extractor is None:
            raise UsageError(f"{TASK} needs a `feature_extractor`: pass the model's own along with the model.")
        if problem_type_of(self.model.config) == "regression":
            raise UsageError(f"A regression has no labels that could be heard: {TASK} needs a classifier.")
        self._check_parameters({})

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
            return_events (`bool`, defaults to `False`):
                Whether to return events as well.
            event_threshold, low_threshold, median_seconds, gap_seconds, min_seconds:
                Settings of events: see [`EventSettings`], where the first is `threshold`, 0.5 by default.
            window_seconds, hop_seconds:
                See [`WindowedInference`].
            progress (`bool`, defaults to `False`):
                Whether to show a progress bar, in seconds of audio.

        Returns:
            `list[dict]`: `label` and `score`, the highest score first. The score is the mean over the recording; for a
            frame-level model with several labels at a time, the highest of all columns. With `return_events`, a
            `dict` of these `labels` and of `events`, each with `label`, `score`, `start` and `end`, in seconds. Both
            come from the same windows: short ones, for the events of a clip-level model, change its labels too, which
            are best with windows as long as the clips that it was trained on. [`~BeatsAudioTaggingPipeline.find_tags`]
            gives objects instead.

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
        unknown = parameters.keys() - set(PARAMETERS)
        if unknown:
            raise TypeError(f"{TASK} has no parameter {', '.join(sorted(unknown))}; it has {', '.join(PARAMETERS)}.")
        top_k, threshold = parameters.get("top_k"), parameters.get("threshold")
        if top_k is not None and not (isinstance(top_k, Integral) and top_k >= 1):
            raise UsageError(f"`top_k` must be a whole number of at least 1, or None, got {top_k!r}.")
        if threshold is not None:
            check_range("`threshold`", threshold, 0.0, 1.0)
        stages = (("sampling_rate",), FORWARD_PARAMETERS, POSTPROCESS_PARAMETERS)
        return tuple({name: parameters[name] for name in stage if name in parameters} for stage in stages)

    def _check_parameters(self, parameters: dict[str, Any]) -> None:
        """Raises a [`UsageError`], before anything is computed, for parameters that do not fit the pipeline's."""
        event_settings({**self._postprocess_params, **parameters})
        merged = {**self._forward_params, **parameters}
        self._inference(**{name: merged[name] for name in WINDOW_PARAMETERS if name in merged})

    def _tag_many(
        self, inputs: Iterable[Any], preprocess: dict[str, Any], forward: dict[str, Any], postprocess: dict[str, Any]
    ) -> _Results:
        """Tags several recordings, which share batches if they need not wait for one another."""
        if not (isinstance(inputs, Sized) or forward.get("windows_per_batch") or self._batch_size):
            one_by_one = partial(
                self.run_single, preprocess_params=preprocess, forward_params=forward, postprocess_params=postprocess
            )
            return _Results(map(one_by_one, inputs), inputs)
        parameters = dict(forward)
        return_events = parameters.pop("return_events", False)
        given = preprocess.get("sampling_rate")
        recordings = map(partial(_with_rate, sampling_rate=given), _items(inputs))
        streams = self._inference(**parameters).stream_frames_many(
            recordings, given or self.feature_extractor.sampling_rate
        )
        return _Results(map(partial(self._finish, return_events=return_events, **postprocess), streams), inputs)

    def _finish(self, columns: Iterable[Columns], return_events: bool, **parameters: Any) -> Any:
        return self.postprocess(self._summarise(columns, return_events), **parameters)

    def preprocess(self, input_: Any, **parameters: Any) -> dict[str, Any]:
        """Opens a recording; it is decoded while its windows are computed."""
        rate = self.feature_extractor.sampling_rate
        given = parameters.get("sampling_rate")
        return {"stream": open_audio(_with_rate(input_, given), rate, given or rate)}

    def _inference(
        self,
        window_seconds: float = 10.0,
        hop_seconds: float | None = None,
        windows_per_batch: int | None = None,
        progress: bool = False,
    ) -> WindowedInference:
        # `_batch_size` is that of the pipeline.
        batch_size = next(size for size in (windows_per_batch, self._batch_size, 8) if size is not None)
        return WindowedInference(self.model, self.feature_extractor, window_seconds, hop_seconds, batch_size, progress)

    def _forward(self, input_tensors: dict[str, Any], **parameters: Any) -> Any:
        """Computes the scores `(num_labels,)` of a recording and, for events, those of its columns."""
        return_events = parameters.pop("return_events", False)
        return self._summarise(self._inference(**parameters).stream_frames(input_tensors["stream"]), return_events)

    def find_tags(self, columns: Iterable[Columns], return_events: bool = False, **parameters: Any) -> Tags:
        """
        Finds labels and events of a recording whose columns are computed already.

        Args:
            columns (`Iterable[Columns]`):
                Scores, as of [`WindowedInference.stream_frames`].
            return_events (`bool`, defaults to `False`):
                Whether to find events as well.
            parameters (`Any`):
                `top_k`, `threshold` and settings of events, as of the pipeline.
        """
        return self._tags(self._summarise(columns, return_events), **parameters)

    def compare(self, labels: Sequence[Mapping[str, Any]], events: Sequence[Event]) -> str | None:
        """
        Compares labels and events of a recording.

        Args:
            labels (`list[dict]`):
                `label` and `score`, the highest score first.
            events (`list[Event]`):
                Its events.

        Returns:
            `str`: how they disagree, that is if the best label has no event although there are others; otherwise
            `None`.
        """
        heard = sorted({event.label for event in events})
        if not heard or not labels or labels[0]["label"] in heard:
            return None
        reason = "labels are means over the whole recording, and events are of moments"
        if problem_type_of(self.model.config) == "single_label_classification":
            reason += "; this model knows one sound at a time, of which several share the score"
        return f"the best label, {labels[0]['label']!r}, has no event, but {name_some(heard)} has: {reason}."

    def _summarise(self, columns: Iterable[Columns], return_events: bool) -> dict[str, Any]:
        total, highest, num_columns, blocks = 0.0, 0.0, 0, []
        for block in columns:
            total = total + block.values.sum(axis=0, dtype=np.float64)
            highest = np.maximum(highest, block.values.max(axis=0))
            num_columns += len(block.values)
            if return_events:
                blocks.append(block)
        is_multi_label = problem_type_of(self.model.config) == "multi_label_classification"
        is_frame_level = isinstance(self.model, BeatsForAudioFrameClassification)
        scores = highest if is_multi_label and is_frame_level else total / num_columns
        return {"scores": scores, "columns": Columns.join(blocks) if return_events else None}

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
        id2label = {int(label): name for label, name in (self.model.config.id2label or {}).items()}
        scores, columns = outputs["scores"], outputs["columns"]
        threshold = parameters.get("threshold")
        lowest = -math.inf if threshold is None else threshold
        ranking = np.argsort(-scores, kind="stable")[: parameters.get("top_k", 5)]
        labels = [Label(id2label[int(index)], float(scores[index])) for index in ranking if scores[index] >= lowest]
        return Tags(labels, None if columns is None else find_events(columns, id2label, event_settings(parameters)))


__all__ = ["TASK", "BeatsAudioTaggingPipeline", "BeatsModelForTask", "Label", "Tags"]
