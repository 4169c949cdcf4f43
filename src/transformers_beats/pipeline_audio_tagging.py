# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""`pipeline("audio-tagging")`: what is heard in recordings of any length, and when."""

import math
import os
from collections.abc import Callable, Iterable, Iterator, Sized
from dataclasses import fields
from functools import partial
from types import GeneratorType
from typing import Any

import numpy as np
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForAudioClassification,
    AutoModelForAudioFrameClassification,
    Pipeline,
    PreTrainedModel,
)
from transformers.pipelines.pt_utils import PipelineIterator

from .audio import open_audio
from .events import EventSettings, find_events
from .feature_extraction_beats import BeatsFeatureExtractor
from .inference import Columns, WindowedInference, problem_type_of
from .modeling_beats import BeatsForAudioClassification, BeatsForAudioFrameClassification


TASK = "audio-tagging"
WINDOW_PARAMETERS = ("window_seconds", "hop_seconds", "windows_per_batch", "progress")
FORWARD_PARAMETERS = ("return_events", *WINDOW_PARAMETERS)
# Fields of `EventSettings` by the names that they have here, where `threshold` is that of the labels.
EVENT_PARAMETERS = {"event_threshold": "threshold"} | {
    field.name: field.name for field in fields(EventSettings) if field.name != "threshold"
}
POSTPROCESS_PARAMETERS = ("top_k", "threshold", *EVENT_PARAMETERS)


class BeatsModelForTask:
    """
    What [`pipeline`] loads models with: the kind that was saved. The Auto class of clip-level models would also load a
    frame-level model, without a word, and the other way round.
    """

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str, **kwargs) -> PreTrainedModel:
        """Loads a model of the class that its configuration names."""
        names = ("revision", "token", "trust_remote_code", "local_files_only", "cache_dir")
        hub_options = {name: kwargs[name] for name in names if name in kwargs}
        config = AutoConfig.from_pretrained(pretrained_model_name_or_path, **hub_options)
        kind = (config.architectures or [""])[0]
        auto_class = AutoModel
        if kind.endswith("ForAudioClassification"):
            auto_class = AutoModelForAudioClassification
        elif kind.endswith("ForAudioFrameClassification"):
            auto_class = AutoModelForAudioFrameClassification
        return auto_class.from_pretrained(pretrained_model_name_or_path, **kwargs)


def event_settings(parameters: dict[str, Any]) -> EventSettings:
    """Those of the parameters that are about events; `None` stands for the default."""
    given = {field: parameters.get(name) for name, field in EVENT_PARAMETERS.items()}
    return EventSettings(**{field: value for field, value in given.items() if value is not None})


def _with_rate(recording: Any, sampling_rate: int | None) -> Any:
    """A bare array is at the model's rate if nobody says another, as in transformers' pipelines; a dict should say."""
    return {"sampling_rate": sampling_rate, **recording} if isinstance(recording, dict) else recording


class _Recordings:
    """What comes of the inputs, one by one, and how many there are, which progress bars ask for."""

    def __init__(self, inputs: Any, start: Callable[[], Iterator[Any]]):
        self.inputs = inputs
        self.start = start

    def __len__(self) -> int:
        return len(self.inputs)

    def __iter__(self) -> Iterator[Any]:
        return self.start()


class BeatsAudioTaggingPipeline(Pipeline):
    """
    What is heard in recordings, and when: `pipeline("audio-tagging", model=...)` after `import transformers_beats`.

    Files are decoded with soundfile and resampled with soxr while the model works, in windows, so that neither length
    nor format matters; ffmpeg and torchaudio are not needed. A [`BeatsForAudioFrameClassification`] says every 160 ms
    what it hears. A [`BeatsForAudioClassification`] says it of each window, so its events are as coarse as its
    windows: choose short ones with a shorter hop.

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
            raise ValueError(f"A {kind} knows no labels: {TASK} needs a model fine-tuned to classify sounds.")
        if self.feature_extractor is None:
            raise ValueError(f"{TASK} needs a `feature_extractor`: pass the model's own along with the model.")
        if problem_type_of(self.model.config) == "regression":
            raise ValueError(f"A regression has no labels that could be heard: {TASK} needs a classifier.")
        self._check_parameters({})

    def __call__(self, inputs: Any, batch_size: int | None = None, num_workers: int | None = None, **kwargs) -> Any:
        """
        Tags one recording or several.

        Args:
            inputs (`str`, `Path`, `bytes`, `np.ndarray`, `torch.Tensor`, `dict`, or a list, generator or data set):
                A recording, see [`open_audio`]; an array is at the model's rate, unless `sampling_rate` says another.
                A list gives a list; a generator or a data set gives results one by one, as they are asked for. After
                the error of a recording that cannot be used, `next` goes on with the one after it.
            batch_size (`int`, *optional*):
                How many windows the model gets at once: 8, unless the pipeline was made with another. Recordings of
                a list or a data set share batches, see [`WindowedInference`]; those of a generator, which may wait for
                a result before it gives the next one, only if a size is given.
            num_workers (`int`, *optional*):
                Not used: a recording is decoded while its windows are computed.
            sampling_rate (`int`, *optional*):
                Of arrays, in hertz.
            top_k (`int`, *optional*, defaults to 5):
                How many labels at most; `None` for all.
            threshold (`float`, *optional*):
                Only labels with scores above it; by default all.
            return_events (`bool`, defaults to `False`):
                Whether to return events as well.
            event_threshold, low_threshold, median_seconds, gap_seconds, min_seconds:
                For events: see [`EventSettings`], where the first is `threshold`, 0.5 by default.
            window_seconds, hop_seconds:
                See [`WindowedInference`].
            progress (`bool`, defaults to `False`):
                Whether to show a progress bar, in seconds of audio.

        Returns:
            `list[dict]`: `label` and `score`, the highest score first. The score is the mean over the recording; with
            several labels at a time and a frame-level model, the highest of all columns. With `return_events`, a
            `dict` of these `labels` and of `events`, each with `label`, `score`, `start` and `end`, in seconds.

        Raises:
            [`AudioError`]: for a file that cannot be used.
        """
        if batch_size is not None:
            kwargs["windows_per_batch"] = batch_size
        self._check_parameters(kwargs)
        # After ten calls on a GPU the base class would advise to pass a data set, which changes nothing here.
        self.call_count = 0
        # The base class would decode `batch_size` whole recordings and pad them to the longest.
        return super().__call__(inputs, batch_size=1, num_workers=0, **kwargs)

    def save_pretrained(self, save_directory: str | os.PathLike, **kwargs: Any) -> None:
        """
        Saves the model and its feature extractor. The base class would save the pipeline's code too, and then ask
        everybody to trust it; it comes with `import transformers_beats`.
        """
        self.model.save_pretrained(save_directory, **kwargs)
        self.feature_extractor.save_pretrained(save_directory, **kwargs)

    def _sanitize_parameters(self, **parameters):
        unknown = parameters.keys() - {"sampling_rate", *FORWARD_PARAMETERS, *POSTPROCESS_PARAMETERS}
        if unknown:
            raise TypeError(f"{TASK} has no parameter {', '.join(sorted(unknown))}.")
        top_k = parameters.get("top_k")
        if top_k is not None and top_k < 1:
            raise ValueError(f"`top_k` must be at least 1, or None, got {top_k}.")
        stages = (("sampling_rate",), FORWARD_PARAMETERS, POSTPROCESS_PARAMETERS)
        return tuple({name: parameters[name] for name in stage if name in parameters} for stage in stages)

    def _check_parameters(self, parameters: dict[str, Any]) -> None:
        """Raises a `ValueError` if those of a call do not fit those of the pipeline: before anything is computed."""
        event_settings({**self._postprocess_params, **parameters})
        merged = {**self._forward_params, **parameters}
        self._inference(**{name: merged[name] for name in WINDOW_PARAMETERS if name in merged})

    def get_iterator(
        self,
        inputs: Any,
        num_workers: int,
        batch_size: int,
        preprocess_params: dict[str, Any],
        forward_params: dict[str, Any],
        postprocess_params: dict[str, Any],
    ) -> Iterator[Any]:
        """The results of several recordings, which share batches."""
        if isinstance(inputs, GeneratorType) and not (forward_params.get("windows_per_batch") or self._batch_size):
            return super().get_iterator(
                inputs, num_workers, batch_size, preprocess_params, forward_params, postprocess_params
            )
        parameters = dict(forward_params)
        return_events = parameters.pop("return_events", False)
        inference = self._inference(**parameters)
        given = preprocess_params.get("sampling_rate")

        def start() -> Iterator[Iterator[Columns]]:
            items = map(inputs.__getitem__, range(len(inputs))) if isinstance(inputs, Sized) else inputs
            # A `map`, other than a generator, goes on after an error of the data set.
            recordings = map(partial(_with_rate, sampling_rate=given), items)
            return inference.stream_frames_many(recordings, given or self.feature_extractor.sampling_rate)

        def finish(columns: Iterator[Columns], **parameters: Any) -> Any:
            return self.postprocess(self._summarise(columns, return_events), **parameters)

        return PipelineIterator(_Recordings(inputs, start), finish, postprocess_params)

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
        # `_batch_size` is what the pipeline was made with.
        batch_size = next(size for size in (windows_per_batch, self._batch_size, 8) if size is not None)
        return WindowedInference(self.model, self.feature_extractor, window_seconds, hop_seconds, batch_size, progress)

    def _forward(self, input_tensors: dict[str, Any], **parameters: Any) -> Any:
        """Scores `(num_labels,)` of the recording and, for events, those of its columns."""
        return_events = parameters.pop("return_events", False)
        return self._summarise(self._inference(**parameters).stream_frames(input_tensors["stream"]), return_events)

    def _summarise(self, columns: Iterable[Columns], return_events: bool) -> dict[str, Any]:
        total, highest, num_columns, blocks = 0.0, 0.0, 0, []
        for block in columns:
            total = total + block.values.sum(axis=0, dtype=np.float64)
            highest = np.maximum(highest, block.values.max(axis=0))
            num_columns += len(block.values)
            if return_events:
                blocks.append(block)
        is_multi_label = self.model.config.problem_type == "multi_label_classification"
        is_frame_level = isinstance(self.model, BeatsForAudioFrameClassification)
        scores = highest if is_multi_label and is_frame_level else total / num_columns
        return {"scores": scores, "columns": Columns.join(blocks) if return_events else None}

    def postprocess(
        self, model_outputs: dict[str, Any], **parameters: Any
    ) -> list[dict[str, Any]] | dict[str, list[dict[str, Any]]]:
        """Names of the labels, and events."""
        id2label = {int(label): name for label, name in (self.model.config.id2label or {}).items()}
        scores, columns = model_outputs["scores"], model_outputs["columns"]
        threshold = parameters.get("threshold")
        lowest = -math.inf if threshold is None else threshold
        ranking = np.argsort(-scores, kind="stable")[: parameters.get("top_k", 5)]
        labels = [
            {"label": id2label[int(label)], "score": float(scores[label])}
            for label in ranking
            if scores[label] > lowest
        ]
        if columns is None:
            return labels
        events = find_events(columns, id2label, event_settings(parameters))
        return {"labels": labels, "events": [event._asdict() for event in events]}


__all__ = ["TASK", "BeatsAudioTaggingPipeline", "BeatsModelForTask"]
