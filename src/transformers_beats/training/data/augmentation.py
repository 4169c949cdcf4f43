# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""
Augmentation and sampling for fine-tuning: roll, mixup, SpecAugment, and class-balanced draws.

All random numbers are torch's, drawn on the CPU unless a generator of another device is passed. A seed then means the
same on every device, and a checkpoint of `Trainer` restores them. Nothing changes its arguments.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
import torch
from scipy.special import betaincinv
from torch.utils.data import WeightedRandomSampler
from transformers.utils import logging


logger = logging.get_logger(__name__)


# Random numbers


def _uniform(shape: tuple[int, ...], generator: torch.Generator | None) -> torch.Tensor:
    """Float64 in [0, 1): the 24 bits of a float32 are too coarse for the samples of a long clip."""
    device = "cpu" if generator is None else generator.device
    return torch.rand(shape, generator=generator, dtype=torch.float64, device=device)


def _random_integers(
    high: torch.Tensor, generator: torch.Generator | None, shape: tuple[int, ...] | None = None
) -> torch.Tensor:
    """Integers from 0 to `high`, which is included; int64, in `shape`, or that of `high`."""
    uniform = _uniform(tuple(high.shape) if shape is None else shape, generator).to(high.device)
    # A product of float64 may round up to the first integer too large.
    return torch.minimum((uniform * (high + 1)).long(), high.long())


# Waveforms


def _check_waveforms(waveforms: torch.Tensor, num_samples: torch.Tensor) -> torch.Tensor:
    """`num_samples` on the device of `waveforms`, if both fit."""
    if waveforms.ndim != 2 or not waveforms.is_floating_point():
        raise ValueError(
            f"`waveforms` must be floats of shape (batch_size, max_samples), got {waveforms.dtype} of shape "
            f"{tuple(waveforms.shape)}."
        )
    if num_samples.shape != waveforms.shape[:1] or num_samples.is_floating_point():
        raise ValueError(
            f"`num_samples` must be integers of shape ({len(waveforms)},), one for each clip, got "
            f"{num_samples.dtype} of shape {tuple(num_samples.shape)}."
        )
    if len(num_samples) and not 0 <= int(num_samples.min()) <= int(num_samples.max()) <= waveforms.shape[1]:
        raise ValueError(
            f"`num_samples` must lie between 0 and {waveforms.shape[1]}, the length of `waveforms`, got "
            f"{int(num_samples.min())} to {int(num_samples.max())}."
        )
    return num_samples.to(waveforms.device)


def roll_waveforms(
    waveforms: torch.Tensor, num_samples: torch.Tensor, generator: torch.Generator | None = None
) -> torch.Tensor:
    """
    Turns each clip in time: what leaves at its end comes in at its beginning. Every clip moves by its own number of
    samples, all equally likely, within its own length, so that padding stays where it is. (ESPnet's recipes for BEATs
    roll by whole seconds, AST's by a few fbank frames.)

    Args:
        waveforms (`torch.FloatTensor` of shape `(batch_size, max_samples)`):
            Clips, padded at their ends.
        num_samples (`torch.LongTensor` of shape `(batch_size,)`):
            Their lengths without padding.
        generator (`torch.Generator`, *optional*):
            Source of the random numbers.

    Returns:
        `torch.FloatTensor` of shape `(batch_size, max_samples)`: the clips, turned.

    Raises:
        `ValueError`: if the shapes do not fit, or a length exceeds `max_samples`.
    """
    num_samples = _check_waveforms(waveforms, num_samples)
    # A clip without samples stays as it is: nothing is divided by zero.
    lengths = num_samples.clamp(min=1).unsqueeze(1)
    shifts = _random_integers(lengths - 1, generator)
    position = torch.arange(waveforms.shape[1], device=waveforms.device)
    source = torch.where(position < num_samples.unsqueeze(1), (position - shifts) % lengths, position)
    return waveforms.gather(1, source)


def _random_partners(batch_size: int, generator: torch.Generator | None) -> torch.Tensor:
    """A clip for each clip, all different, and none its own unless it is alone; `(batch_size,)`, int64."""
    device = "cpu" if generator is None else generator.device
    order = torch.randperm(batch_size, generator=generator, device=device)
    # Each is followed by the next of a random order: one cycle through all.
    return torch.empty_like(order).scatter_(0, order, order.roll(1))


def mixup_waveforms(
    waveforms: torch.Tensor,
    num_samples: torch.Tensor,
    labels: torch.Tensor,
    alpha: float,
    probability: float = 1.0,
    generator: torch.Generator | None = None,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """
    Mixes each clip with another of the batch, and their labels alike (mixup, Zhang et al., 2018, on waveforms as in
    AST): `weight * clip + (1 - weight) * partner`, the weight of each clip drawn from Beta(`alpha`, `alpha`).

    AST also removes the mean of each waveform before and after. It is left out here, since it changes nothing: Kaldi's
    fbank, which follows, removes the mean of every frame.

    Args:
        waveforms (`torch.FloatTensor` of shape `(batch_size, max_samples)`):
            Clips, padded with zeros at their ends.
        num_samples (`torch.LongTensor` of shape `(batch_size,)`):
            Their lengths without padding.
        labels (`torch.FloatTensor` of shape `(batch_size, num_labels)` or `(batch_size, num_columns, num_labels)`):
            Zeros and ones, one-hot for a single label. The mixed ones are targets of binary cross-entropy, also for a
            single label, as in the paper.
        alpha (`float`):
            Positive. Small values mostly keep one clip of the two, 1.0 makes all weights equally likely.
        probability (`float`, defaults to 1.0):
            Share of the clips that are mixed.
        generator (`torch.Generator`, *optional*):
            Source of the random numbers.

    Returns:
        `tuple`: waveforms `(batch_size, max_samples)`; `num_samples` `(batch_size,)`, the longer of both clips where
        two were mixed; labels, shaped as they came.

    Raises:
        `ValueError`: if shapes, `alpha` or `probability` make no sense, or the labels are class indices.
    """
    num_samples = _check_waveforms(waveforms, num_samples)
    if labels.ndim < 2 or len(labels) != len(waveforms) or not labels.is_floating_point():
        raise ValueError(
            f"`labels` must be floats of shape ({len(waveforms)}, ..., num_labels), got {labels.dtype} of shape "
            f"{tuple(labels.shape)}. Class indices go through `torch.nn.functional.one_hot` first."
        )
    if not (alpha > 0 and np.isfinite(alpha)):
        raise ValueError(f"`alpha` must be positive and finite, got {alpha}.")
    if not 0 <= probability <= 1:
        raise ValueError(f"`probability` must lie between 0 and 1, got {probability}.")

    batch_size, device = len(waveforms), waveforms.device
    partners = _random_partners(batch_size, generator).to(device)
    is_mixed = (_uniform((batch_size,), generator) < probability).to(device)
    # The quantile function: torch's own Beta distribution takes no generator.
    quantiles = betaincinv(alpha, alpha, _uniform((batch_size,), generator).cpu().numpy())
    weights = torch.where(is_mixed, torch.from_numpy(quantiles).to(device), 1.0)

    def mix(values: torch.Tensor) -> torch.Tensor:
        weight = weights.to(values.device, values.dtype).view(-1, *[1] * (values.ndim - 1))
        return weight * values + (1 - weight) * values[partners.to(values.device)]

    longer = torch.maximum(num_samples, num_samples[partners])
    return mix(waveforms), torch.where(is_mixed, longer, num_samples), mix(labels)


# Filter banks


@dataclass
class SpecAugment:
    """
    Hides stretches of time and bands of frequency of each clip (Park et al., 2019, without time warping), other ones
    of every clip. What is hidden becomes 0, about the mean of the corpus after normalisation. Padding stays as it is.

    The defaults are those of ESPnet's recipes, which follow the paper's appendix: one stretch of at most 6 % of a
    clip, and no frequencies. AST hides bands of up to 48 bins on AudioSet, and of up to 24 on ESC-50.

    Args:
        num_time_masks (`int`, defaults to 1):
            Stretches of each clip.
        time_mask_ratio (`float`, defaults to 0.06):
            Largest part of the valid frames of its clip that a stretch may cover. All lengths in whole frames from
            none to this are equally likely, and so are all places.
        num_freq_masks (`int`, defaults to 1):
            Bands of each clip.
        freq_mask_bins (`int`, defaults to 0):
            Largest width of a band in mel bins; drawn like the lengths.

    Raises:
        `ValueError`: if a number is negative, or the share exceeds 1.
    """

    num_time_masks: int = 1
    time_mask_ratio: float = 0.06
    num_freq_masks: int = 1
    freq_mask_bins: int = 0

    def __post_init__(self):
        for name in ("num_time_masks", "num_freq_masks", "freq_mask_bins"):
            if getattr(self, name) < 0:
                raise ValueError(f"`{name}` must not be negative, got {getattr(self, name)}.")
        if not 0 <= self.time_mask_ratio <= 1:
            raise ValueError(f"`time_mask_ratio` must lie between 0 and 1, got {self.time_mask_ratio}.")

    def __call__(
        self,
        input_values: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> torch.Tensor:
        """
        Args:
            input_values (`torch.FloatTensor` of shape `(batch_size, num_frames, num_mel_bins)`):
                Normalised filter banks.
            attention_mask (`torch.Tensor` of shape `(batch_size, num_frames)`, *optional*):
                1 for frames of audio, which come first, 0 for padding. Without it, everything counts as audio.
            generator (`torch.Generator`, *optional*):
                Source of the random numbers.

        Returns:
            `torch.FloatTensor` of shape `(batch_size, num_frames, num_mel_bins)`.

        Raises:
            `ValueError`: if the shapes do not fit, or a band may be wider than there are bins.
        """
        if input_values.ndim != 3:
            raise ValueError(
                "`input_values` must have shape (batch_size, num_frames, num_mel_bins), got "
                f"{tuple(input_values.shape)}."
            )
        batch_size, num_frames, num_mel_bins = input_values.shape
        device = input_values.device
        if attention_mask is None:
            attention_mask = torch.ones(batch_size, num_frames, dtype=torch.bool, device=device)
        if attention_mask.shape != input_values.shape[:2]:
            raise ValueError(
                f"`attention_mask` must have shape {(batch_size, num_frames)}, got {tuple(attention_mask.shape)}."
            )
        if self.freq_mask_bins > num_mel_bins:
            raise ValueError(f"`freq_mask_bins` is {self.freq_mask_bins}, of {num_mel_bins} mel bins.")
        is_valid = attention_mask.to(device).bool()
        lengths = is_valid.sum(dim=1)
        # In float64: a share of a whole number of frames must not lose one of them.
        widths = (lengths.double() * self.time_mask_ratio + 1e-9).floor().long()
        bins = torch.full_like(lengths, num_mel_bins)
        hides_frame = random_stretches(lengths, widths, self.num_time_masks, num_frames, generator)
        hides_bin = random_stretches(
            bins, torch.full_like(bins, self.freq_mask_bins), self.num_freq_masks, num_mel_bins, generator
        )
        hides = (hides_frame.unsqueeze(2) | hides_bin.unsqueeze(1)) & is_valid.unsqueeze(2)
        return input_values.masked_fill(hides, 0.0)


def random_stretches(
    lengths: torch.Tensor,
    max_widths: torch.Tensor,
    num_stretches: int,
    size: int,
    generator: torch.Generator | None = None,
) -> torch.Tensor:
    """
    Random stretches of the beginnings of rows. Width and place of each are uniform; they may overlap.

    Args:
        lengths (`torch.LongTensor` of shape `(batch_size,)`):
            The stretches of a row lie within its first so many places.
        max_widths (`torch.LongTensor` of shape `(batch_size,)`):
            No stretch of the row is wider; none has to have any width. At most `lengths`.
        num_stretches (`int`):
            Of each row.
        size (`int`):
            Places of a row.
        generator (`torch.Generator`, *optional*):
            Source of the random numbers.

    Returns:
        `torch.BoolTensor` of shape `(batch_size, size)`: which places lie in a stretch.
    """
    shape = (len(lengths), num_stretches)
    widths = _random_integers(max_widths.unsqueeze(1), generator, shape)
    starts = _random_integers(lengths.unsqueeze(1) - widths, generator).unsqueeze(2)
    position = torch.arange(size, device=lengths.device)
    return ((position >= starts) & (position < starts + widths.unsqueeze(2))).any(dim=1)


# Sampling


def balanced_sample_weights(labels: np.ndarray | Sequence[Sequence[int]]) -> np.ndarray:
    """
    How often to draw each clip so that rare classes come as often as frequent ones: the sum over its classes of one
    divided by the number of clips that have the class. This is the balanced sampling of PSLA (Gong et al., 2021) and
    AST, up to a constant factor, with which the paper fine-tunes on AudioSet.

    Args:
        labels (`np.ndarray` of shape `(num_clips, num_labels)`, or a sequence of sequences of `int`):
            Zeros and ones; or for each clip the indices of its classes, which is the way for a data set of the size of
            AudioSet (8 GB as float64).

    Returns:
        `np.ndarray` of shape `(num_clips,)`: float64, not normalised. A clip without a class gets 0, and a warning
        says how many there are, since they are never drawn.

    Raises:
        `ValueError`: for anything but zeros and ones, indices that are negative or no integers, a class that a clip
        has twice, or if no clip has any class.
    """
    if isinstance(labels, np.ndarray):
        if labels.ndim != 2 or not np.isin(labels, (0, 1)).all():
            raise ValueError(
                "An array of labels must hold zeros and ones in shape (num_clips, num_labels), got "
                f"{labels.dtype} of shape {labels.shape}."
            )
        clips, classes = np.nonzero(labels)
    else:
        clips, classes = _indices_of_lists(labels)
    if len(classes) == 0:
        raise ValueError(f"None of {len(labels)} clips has a class: there is nothing to balance.")
    num_clips_of_class = np.bincount(classes)
    weights = np.bincount(clips, weights=1.0 / num_clips_of_class[classes], minlength=len(labels))
    if num_without := int((weights == 0).sum()):
        logger.warning(f"{num_without} of {len(labels)} clips have no class and are never drawn.")
    return weights


def _indices_of_lists(labels: Sequence[Sequence[int]]) -> tuple[np.ndarray, np.ndarray]:
    """Clip and class of every label, one array each; raises `ValueError` unless the labels of a clip differ."""
    try:
        counts = np.fromiter((len(indices) for indices in labels), dtype=np.int64)
        classes = np.array(list(chain.from_iterable(labels)))
    except TypeError as error:
        raise ValueError("Labels must be an array, or hold a list of indices of classes for each clip.") from error
    clips = np.repeat(np.arange(len(counts)), counts)
    if len(classes) == 0:
        return clips, clips
    if not np.issubdtype(classes.dtype, np.integer) or classes.min() < 0:
        raise ValueError("Lists of labels must hold indices of classes: integers that are not negative.")
    keys, repeats = np.unique(clips * (classes.max() + 1) + classes, return_counts=True)
    if repeats.max() > 1:
        clip, index = divmod(int(keys[repeats.argmax()]), int(classes.max()) + 1)
        raise ValueError(
            f"Clip {clip} has class {index} more than once. Lists hold indices of classes; pass zeros and ones as an "
            "array."
        )
    return clips, classes


class BalancedSampler(WeightedRandomSampler):
    """
    Draws clips by weight, with replacement; see [`balanced_sampler`]. What an epoch draws depends on the seed and the
    number of the epoch only, so that an interrupted training goes on with the clips that it would have seen, and all
    processes agree.
    """

    def __init__(self, weights: np.ndarray, num_samples: int, seed: int):
        super().__init__(weights.tolist(), num_samples, replacement=True, generator=torch.Generator())
        self.seed, self.epoch = seed, 0

    def set_epoch(self, epoch: int) -> None:
        """Called by `Trainer`, through accelerate, before each epoch."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[int]:
        self.generator = torch.Generator().manual_seed(self.seed + self.epoch)
        return super().__iter__()


def balanced_sampler(weights: np.ndarray, num_samples: int, seed: int) -> BalancedSampler:
    """
    A sampler for class-balanced epochs, to return from `Trainer._get_train_sampler`.

    Args:
        weights (`np.ndarray` of shape `(num_clips,)`):
            From [`balanced_sample_weights`].
        num_samples (`int`):
            Clips of an epoch, some of them drawn more than once.
        seed (`int`):
            Of the draws.

    Returns:
        [`BalancedSampler`], a `torch.utils.data.WeightedRandomSampler` that knows `set_epoch`.

    Raises:
        `ValueError`: if a weight is negative or not finite, none is positive, there are more than 2 ** 24 of them, or
        `num_samples` is not positive.
    """
    weights = np.asarray(weights, dtype=np.float64)
    if weights.ndim != 1 or not np.isfinite(weights).all() or (weights < 0).any() or not (weights > 0).any():
        raise ValueError(
            "`weights` must have shape (num_clips,), be finite and not negative, and not all be zero, got "
            f"shape {weights.shape}."
        )
    if len(weights) > 2**24:
        raise ValueError(f"torch draws from at most {2**24} clips, got {len(weights)}.")
    if num_samples <= 0:
        raise ValueError(f"`num_samples` must be positive, got {num_samples}.")
    return BalancedSampler(weights, num_samples, seed)


__all__ = [
    "BalancedSampler",
    "SpecAugment",
    "balanced_sample_weights",
    "balanced_sampler",
    "mixup_waveforms",
    "random_stretches",
    "roll_waveforms",
]
