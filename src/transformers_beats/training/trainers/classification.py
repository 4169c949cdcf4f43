# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Labelled audio for fine-tuning and evaluation, and the `Trainer` of a classifier."""

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import Dataset
from transformers import EvalPrediction
from transformers.trainer_pt_utils import LengthGroupedSampler
from transformers.utils import logging

from transformers_beats.feature_extraction_beats import BeatsFeatureExtractor
from transformers_beats.inference.windows import column_samples, count_columns
from transformers_beats.metrics.sound_event_detection import compute_sound_event_detection
from transformers_beats.training.data.augmentation import (
    SpecAugment,
    balanced_sample_weights,
    balanced_sampler,
    mixup_waveforms,
    roll_waveforms,
)
from transformers_beats.training.data.crops import Clips, CropDataset
from transformers_beats.training.data.labels import Labels, frame_labels
from transformers_beats.training.data.sources import DataArguments, decode_row
from transformers_beats.training.reports.report import Predictions, compute_metrics
from transformers_beats.utils.checks import check_numbers

from .layerwise import layerwise_parameter_groups, multiply_gradients
from .pretraining import WaveformTrainer


logger = logging.get_logger(__name__)


@dataclass
class AugmentationArguments:
    """What is done to the clips of a fine-tuning, and how often each is drawn. Nothing, by default."""

    roll: bool = field(default=False, metadata={"help": "Turn every clip in time by a random number of samples."})
    mixup_alpha: float = field(
        default=0.0,
        metadata={
            "help": "Mix clips with shares from Beta(alpha, alpha), and learn both with binary cross-entropy.",
            "min": 0,
        },
    )
    mixup_probability: float = field(
        default=1.0, metadata={"help": "Share of the clips that are mixed.", "min": 0, "max": 1}
    )
    time_mask_ratio: float = field(
        default=0.0,
        metadata={"help": "SpecAugment: longest time mask, as a share of the clip. 0: none.", "min": 0, "max": 1},
    )
    num_time_masks: int = field(default=1, metadata={"help": "SpecAugment: time masks of each clip.", "min": 0})
    freq_mask_bins: int = field(
        default=0, metadata={"help": "SpecAugment: widest frequency mask, in mel bins. 0: none.", "min": 0}
    )
    num_freq_masks: int = field(default=1, metadata={"help": "SpecAugment: frequency masks of each clip.", "min": 0})
    balanced_sampling: bool = field(
        default=False, metadata={"help": "Draw clips of rare classes more often, with replacement, as for AudioSet."}
    )

    def __post_init__(self):
        check_numbers(self)

    @property
    def mixes(self) -> bool:
        return self.mixup_alpha > 0 and self.mixup_probability > 0


# Items


class LabelledClips:
    """
    Turns the labels of a clip into the target of a part of it.

    Args:
        labels ([`Labels`]):
            Of all clips.
        as_indices (`bool`):
            Whether a single class is given as an index rather than as zeros and a one.
        extractor ([`BeatsFeatureExtractor`]):
            Gives the geometry.
    """

    def __init__(self, labels: Labels, as_indices: bool, extractor: BeatsFeatureExtractor):
        self.labels, self.extractor = labels, extractor
        self.targets = None if labels.task == "frames" else labels.as_array()
        if labels.task == "single_label" and not as_indices:
            self.targets = np.eye(len(labels.names), dtype=np.float32)[labels.as_array()]

    @property
    def column_seconds(self) -> float:
        """Length of a column of patches."""
        return column_samples(self.extractor) / self.extractor.sampling_rate

    def target(self, clip: int, start: int, num_samples: int) -> torch.Tensor:
        """The target of the part that begins at sample `start`."""
        if self.targets is not None:
            return torch.as_tensor(self.targets[clip])
        labels = frame_labels(
            self.labels.values[clip],
            len(self.labels.names),
            count_columns(num_samples, self.extractor),
            self.column_seconds,
            start=start / self.extractor.sampling_rate,
        )
        return torch.from_numpy(labels)


class TrainingCrops(CropDataset):
    """
    Crops of labelled clips, in every epoch at other places: PyTorch's random numbers choose them.

    Args:
        clips ([`Clips`]):
            From [`prepare_clips`].
        targets ([`LabelledClips`]):
            Their labels.
        arguments ([`DataArguments`]):
            Length and number of the crops.
    """

    def __init__(self, clips: Clips, targets: LabelledClips, arguments: DataArguments):
        super().__init__(clips, arguments, sampling_rate=targets.extractor.sampling_rate)
        self.targets = targets

    @property
    def clip_of(self) -> np.ndarray:
        """The clip of each crop, `(num_crops,)`."""
        return np.repeat(np.arange(len(self.offsets) - 1), np.diff(self.offsets))

    @property
    def lengths(self) -> np.ndarray:
        """Samples of each crop, `(num_crops,)`."""
        return np.minimum(self.clips.num_samples, self.num_samples)[self.clip_of]

    def __getitem__(self, index: int) -> dict[str, Any]:
        clip = int(np.searchsorted(self.offsets, index, side="right")) - 1
        start, waveform = self.decode_crop(clip, np.random.default_rng(int(torch.randint(2**62, ()))))
        return {"waveform": waveform, "labels": self.targets.target(clip, start, len(waveform))}


class Windows(Dataset):
    """
    All of every clip, in windows of `crop_seconds` one after another, for evaluation. What is left at the end of a
    clip is a window as well if it lasts `min_seconds`.

    Args:
        clips ([`Clips`]):
            From [`prepare_clips`].
        arguments ([`DataArguments`]):
            Length of the windows.
        extractor ([`BeatsFeatureExtractor`]):
            Gives the sampling rate.
        targets ([`LabelledClips`], *optional*):
            The clips' labels, if a loss is wanted.
    """

    def __init__(
        self,
        clips: Clips,
        arguments: DataArguments,
        extractor: BeatsFeatureExtractor,
        targets: LabelledClips | None = None,
    ):
        self.clips, self.targets, self.sampling_rate = clips, targets, extractor.sampling_rate
        self.num_samples = round(arguments.crop_seconds * self.sampling_rate)
        shortest = max(1, round(arguments.min_seconds * self.sampling_rate))
        starts = [range(0, max(1, int(length) - shortest + 1), self.num_samples) for length in clips.num_samples]
        self.starts = np.concatenate([list(of_clip) for of_clip in starts])
        self.clip_of = np.repeat(np.arange(len(starts)), [len(of_clip) for of_clip in starts])

    def __len__(self) -> int:
        return len(self.starts)

    def __getitem__(self, index: int) -> dict[str, Any]:
        clip, start = int(self.clip_of[index]), int(self.starts[index])
        waveform = decode_row(self.clips.dataset[clip], self.sampling_rate, start, self.num_samples)
        return {"waveform": waveform} if self.targets is None else {"waveform": waveform, "labels": self.target(index)}

    def target(self, index: int) -> torch.Tensor:
        """The target of a window."""
        if self.targets is None:
            raise ValueError("These clips have no labels.")
        clip, start = int(self.clip_of[index]), int(self.starts[index])
        return self.targets.target(clip, start, min(self.num_samples, int(self.clips.num_samples[clip]) - start))


def collate_waveforms(items: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
    """
    Pads waveforms, and the labels of frames, to the longest of a batch.

    Returns:
        `waveforms` `(batch_size, max_samples)`, float32; `num_samples` `(batch_size,)`; and `labels`, if the items
        have any.
    """
    waveforms = [torch.from_numpy(item["waveform"]) for item in items]
    batch = {
        "waveforms": pad_sequence(waveforms, batch_first=True),
        "num_samples": torch.tensor([len(waveform) for waveform in waveforms]),
    }
    if "labels" in items[0]:
        labels = [item["labels"] for item in items]
        batch["labels"] = pad_sequence(labels, batch_first=True) if labels[0].ndim == 2 else torch.stack(labels)
    return batch


# Training


class ClassificationTrainer(WaveformTrainer):
    """
    Fine-tuning with augmentation, balanced sampling and layer-wise decay.

    Args:
        augmentation ([`AugmentationArguments`], *optional*):
            What is done to the batches of training.
        learning_rate_decay (`float`, defaults to 1.0):
            Factor of the learning rate from a layer to the one before it.
        gradient_decay (`float`, defaults to 1.0):
            Factor of the gradient from a layer to the one before it, the reference's
            `layer_wise_gradient_decay_ratio`.
    """

    def __init__(
        self,
        *args,
        augmentation: AugmentationArguments | None = None,
        learning_rate_decay: float = 1.0,
        gradient_decay: float = 1.0,
        **kwargs,
    ):
        super().__init__(*args, **kwargs)
        self.augmentation = augmentation or AugmentationArguments()
        self.learning_rate_decay = learning_rate_decay
        if gradient_decay != 1.0:
            multiply_gradients(self.classifier, gradient_decay)
        self.spec_augment = SpecAugment(
            time_mask_ratio=self.augmentation.time_mask_ratio,
            num_time_masks=self.augmentation.num_time_masks,
            freq_mask_bins=self.augmentation.freq_mask_bins,
            num_freq_masks=self.augmentation.num_freq_masks,
        )

    @property
    def classifier(self) -> nn.Module:
        """The model; `Trainer` knows cases in which there is none yet."""
        if self.model is None:
            raise RuntimeError("The trainer has no model.")
        return self.model

    def _prepare_inputs(self, inputs):
        if not self.classifier.training:
            return super()._prepare_inputs(inputs)
        inputs = super()._prepare_inputs(augment(inputs, self.augmentation, self.args.device))
        inputs["input_values"] = self.spec_augment(inputs["input_values"], inputs["attention_mask"])
        return inputs

    def _get_dataloader(self, *args, is_training=False, **kwargs):
        drop_last = self.args.dataloader_drop_last
        # An evaluation without its last clips would be another one.
        self.args.dataloader_drop_last = drop_last and is_training
        try:
            return super()._get_dataloader(*args, is_training=is_training, **kwargs)
        finally:
            self.args.dataloader_drop_last = drop_last

    def _get_train_sampler(self, train_dataset=None):
        crops: Any = self.train_dataset
        if not self.augmentation.balanced_sampling:
            if self.args.train_sampling_strategy != "group_by_length":
                return super()._get_train_sampler(train_dataset)
            batch_size = self.args.train_batch_size * self.args.gradient_accumulation_steps
            return LengthGroupedSampler(batch_size, lengths=crops.lengths.tolist())
        labels = crops.targets.labels
        per_clip = balanced_sample_weights([labels.classes_of(index) for index in range(len(labels))])
        return balanced_sampler(per_clip[crops.clip_of], num_samples=len(crops), seed=self.args.seed)

    def create_optimizer(self, model=None):
        if self.optimizer is None and self.learning_rate_decay != 1.0:
            args = self.args
            groups = layerwise_parameter_groups(
                self.classifier, args.learning_rate, args.weight_decay, self.learning_rate_decay
            )
            optimizer_class, kwargs = self.get_optimizer_cls_and_kwargs(args)
            self.optimizer = optimizer_class(groups, **kwargs)
        return super().create_optimizer(model)


def augment(
    batch: dict[str, torch.Tensor], arguments: AugmentationArguments, device: torch.device
) -> dict[str, torch.Tensor]:
    """A batch of waveforms, turned in time and mixed as `arguments` say, on a device."""
    batch = {name: value.to(device) for name, value in batch.items()}
    if arguments.roll:
        batch["waveforms"] = roll_waveforms(batch["waveforms"], batch["num_samples"])
    if arguments.mixes:
        batch["waveforms"], batch["num_samples"], batch["labels"] = mixup_waveforms(
            batch["waveforms"],
            batch["num_samples"],
            batch["labels"],
            alpha=arguments.mixup_alpha,
            probability=arguments.mixup_probability,
        )
    return batch


# Evaluation


def clip_scores(logits: np.ndarray, clip_of: np.ndarray, problem_type: str) -> np.ndarray:
    """
    Probabilities of clips from the logits of their windows.

    Args:
        logits (`np.ndarray` of shape `(num_windows, num_labels)`):
            Of all windows, clip by clip.
        clip_of (`np.ndarray` of shape `(num_windows,)`):
            The clip of each window, not falling.
        problem_type (`str`):
            Softmax for `"single_label_classification"`, sigmoid otherwise.

    Returns:
        `np.ndarray` of shape `(num_clips, num_labels)`: float32, means over the windows of a clip.

    Raises:
        `ValueError`: if a logit is not finite, or there are not as many as windows.
    """
    if len(logits) != len(clip_of):
        raise ValueError(f"There are logits of {len(logits)} windows, but {len(clip_of)} windows.")
    values = torch.from_numpy(np.asarray(logits, dtype=np.float32))
    if not torch.isfinite(values).all():
        raise ValueError("The model's logits are not finite: the training has diverged, or its precision is too low.")
    scores = values.softmax(-1) if problem_type == "single_label_classification" else values.sigmoid()
    return mean_over_windows(scores.numpy(), clip_of)


def mean_over_windows(scores: np.ndarray, clip_of: np.ndarray) -> np.ndarray:
    """Means `(num_clips, num_labels)` over the windows of each clip, whose numbers `clip_of` do not fall."""
    firsts = np.flatnonzero(np.diff(clip_of, prepend=-1))
    return np.add.reduceat(scores, firsts, axis=0) / np.diff(firsts, append=len(clip_of))[:, None]


def frame_scores(predictions: tuple[np.ndarray, np.ndarray], clip_of: np.ndarray) -> list[np.ndarray]:
    """
    Probabilities of the time columns of clips, `(num_columns, num_labels)` each, from the logits
    `(num_windows, max_columns, num_labels)` and column masks `(num_windows, max_columns)` of their windows.
    """
    logits, mask = predictions
    scores: list[list[np.ndarray]] = [[] for _ in range(int(clip_of[-1]) + 1)]
    for clip, window, valid in zip(clip_of, logits, mask):
        # `Trainer` pads with -100.
        scores[clip].append(torch.from_numpy(window[valid == 1]).float().sigmoid().numpy())
    return [np.concatenate(of_clip) for of_clip in scores]


def as_predictions(output: Any, windows: Windows, labels: Labels, problem_type: str) -> Predictions:
    """
    What a model says of clips, beside what is true. Of a frame-level model, every valid column counts as a clip.

    Args:
        output (`np.ndarray` or `tuple[np.ndarray, np.ndarray]`):
            What `Trainer.predict` returned for `windows`.
        windows ([`Windows`]):
            The windows.
        labels ([`Labels`]):
            Of their clips.
        problem_type (`str`):
            The model's.
    """
    names = windows.clips.names
    if labels.task != "frames":
        logits = output[0] if isinstance(output, tuple) else output
        scores = clip_scores(logits, windows.clip_of, problem_type)
        return Predictions(names, scores, labels.as_array(), labels.names)
    of_windows = frame_scores(output, np.arange(len(windows)))
    targets = [windows.target(index).numpy() for index in range(len(windows))]
    columns = [names[clip] for clip, scores in zip(windows.clip_of, of_windows) for _ in scores]
    return Predictions(columns, np.concatenate(of_windows), np.concatenate(targets), labels.names)


def event_metrics(output: Any, windows: Windows, labels: Labels) -> dict[str, float]:
    """
    Segment-based F1 and PSDS of a frame-level model, each window being a clip; empty, with a warning, where the
    library behind them is not installed.

    Args:
        output (`tuple[np.ndarray, np.ndarray]`):
            What `Trainer.predict` returned for `windows`.
        windows ([`Windows`]):
            With their labels.
        labels ([`Labels`]):
            The events of the clips.
    """
    if importlib.util.find_spec("sed_scores_eval") is None:
        logger.warning("Segment-based F1 and PSDS need sed_scores_eval: pip install sed_scores_eval 'setuptools<81'.")
        return {}
    if windows.targets is None:
        raise ValueError("These clips have no labels.")
    column_seconds = windows.targets.column_seconds
    scores = frame_scores(output, np.arange(len(windows)))
    events = []
    for clip, start, of_window in zip(windows.clip_of, windows.starts / windows.sampling_rate, scores):
        end = start + column_seconds * len(of_window)
        inside = [event for event in labels.values[clip] if event[1] < end and event[2] > start]
        events.append(
            [
                {"label": label, "onset": max(onset, start) - start, "offset": min(offset, end) - start}
                for label, onset, offset in inside
            ]
        )
    found = compute_sound_event_detection(scores, events, column_seconds=column_seconds)
    return {name: found[name] for name in ("segment_f1", "psds1", "psds2")}


def metrics_function(windows: Windows, labels: Labels, problem_type: str) -> Callable[[EvalPrediction], dict]:
    """`compute_metrics` of a `Trainer` that evaluates `windows`."""

    def compute(prediction: EvalPrediction) -> dict[str, float]:
        return compute_metrics(as_predictions(prediction.predictions, windows, labels, problem_type))

    return compute


__all__ = [
    "AugmentationArguments",
    "ClassificationTrainer",
    "LabelledClips",
    "TrainingCrops",
    "Windows",
    "as_predictions",
    "collate_waveforms",
    "event_metrics",
    "mean_over_windows",
    "metrics_function",
]
