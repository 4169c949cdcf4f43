# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""
Augmentation and sampling for fine-tuning: roll, mixup, SpecAugment, and class-balanced draws.

All random numbers are torch's, drawn on the CPU unless a generator of another device is passed. A seed then means the
same on every device, and a checkpoint of `Trainer` restores them. Nothing changes its arguments.
"""

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import torch
from scipy.special import betaincinv
from torch.nn.functional import pad
from torch.utils.data import Sampler, WeightedRandomSampler
from transformers.trainer_pt_utils import LengthGroupedSampler
from transformers.utils import logging

from transformers_beats.utils.arguments import argument, check_numbers
from transformers_beats.utils.errors import BeatsError


logger = logging.get_logger(__name__)

# Numbers of bands of filter augmentation, as in PretrainedSED.
MIN_BANDS, MAX_BANDS = 3, 5
# torch.multinomial draws from no more.
MAX_DRAWN = 2**24


@dataclass
class AugmentationArguments:
    """Augmentation and sampling of the clips of a fine-tuning; none, by default."""

    roll: bool = argument("Roll every clip in time by a random number of samples.", False)
    mixup_alpha: float = argument(
        "Mix clips with shares from Beta(alpha, alpha), and learn both with binary cross-entropy.", 0.0, min=0
    )
    mixup_probability: float = argument("Share of the clips that are mixed.", 1.0, min=0, max=1)
    time_mask_ratio: float = argument(
        "SpecAugment: longest time mask, as a share of the clip. 0: none.", 0.0, min=0, max=1
    )
    num_time_masks: int = argument("SpecAugment: time masks of each clip.", 1, min=0)
    freq_mask_bins: int = argument("SpecAugment: widest frequency mask, in mel bins. 0: none.", 0, min=0)
    num_freq_masks: int = argument("SpecAugment: frequency masks of each clip.", 1, min=0)
    filter_db: float = argument(
        "Filter augmentation: largest gain, in decibels, of random bands of each clip. 0: none.", 0.0, min=0, max=60
    )
    balanced_sampling: bool = argument(
        "Draw clips of rare classes more often, with replacement, as for AudioSet.", False
    )

    def __post_init__(self):
        check_numbers(self)

    @property
    def mixes(self) -> bool:
        return self.mixup_alpha > 0 and self.mixup_probability > 0


def augment(
    batch: dict[str, torch.Tensor], arguments: AugmentationArguments, device: torch.device
) -> dict[str, torch.Tensor]:
    """Moves a batch of waveforms to a device, and rolls and mixes them as `arguments` say."""
    batch = {name: value.to(device) for name, value in batch.items()}
    if arguments.roll:
        batch["waveforms"] = roll_waveforms(batch["waveforms"], batch["num_samples"])
    if arguments.mixes:
        labels = batch["labels"]
        if "clip_labels" in batch:
            # Before those of moments, so that both are mixed alike; these have further columns of a teacher.
            num_labels = batch["clip_labels"].shape[1]
            of_clips = pad(batch["clip_labels"], (0, labels.shape[2] - num_labels))
            labels = torch.cat([of_clips.unsqueeze(1), labels], dim=1)
        batch["waveforms"], batch["num_samples"], labels = mixup_waveforms(
            batch["waveforms"],
            batch["num_samples"],
            labels,
            alpha=arguments.mixup_alpha,
            probability=arguments.mixup_probability,
        )
        if "clip_labels" in batch:
            batch["clip_labels"], labels = labels[:, 0, :num_labels], labels[:, 1:]
        batch["labels"] = labels
    return batch


def _uniform(shape: tuple[int, ...], generator: torch.Generator | None) -> torch.Tensor:
    """Draws float64 in [0, 1): the 24 bits of a float32 are too coarse for the samples of a long clip."""
    device = "cpu" if generator is None else generator.device
    return torch.rand(shape, generator=generator, dtype=torch.float64, device=device)


def _random_integers(
    high: torch.Tensor, generator: torch.Generator | None, shape: tuple[int, ...] | None = None
) -> torch.Tensor:
    """Draws integers from 0 to `high`, which is included; int64, in `shape`, or that of `high`."""
    uniform = _uniform(tuple(high.shape) if shape is None else shape, generator).to(high.device)
    # A product of float64 may round up to the first integer too large.
    return torch.minimum((uniform * (high + 1)).long(), high.long())


def roll_waveforms(
    waveforms: torch.Tensor, num_samples: torch.Tensor, generator: torch.Generator | None = None
) -> torch.Tensor:
    """
    Rolls each clip in time, by its own number of samples, all equally likely, within its own length, so that padding
    stays where it is. (ESPnet's recipes for BEATs roll by whole seconds, AST's by a few fbank frames.) Waveforms are
    `(batch_size, max_samples)`, padded at their ends, `num_samples` their lengths without padding, `(batch_size,)`.
    """
    num_samples = num_samples.to(waveforms.device)
    # A clip without samples stays as it is: nothing is divided by zero.
    lengths = num_samples.clamp(min=1).unsqueeze(1)
    shifts = _random_integers(lengths - 1, generator)
    position = torch.arange(waveforms.shape[1], device=waveforms.device)
    source = torch.where(position < num_samples.unsqueeze(1), (position - shifts) % lengths, position)
    return waveforms.gather(1, source)


def _random_partners(batch_size: int, generator: torch.Generator | None) -> torch.Tensor:
    """Draws a partner for each clip, all different, and none its own unless it is alone; `(batch_size,)`, int64."""
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
        waveforms, num_samples:
            See [`roll_waveforms`]; padding is zero.
        labels (`torch.FloatTensor` of shape `(batch_size, num_labels)` or `(batch_size, num_columns, num_labels)`):
            Zeros and ones, one-hot for a single label; NaN where not known, and so is a mixture with it. The mixed
            ones are targets of binary cross-entropy, also for a single label, as in the paper.
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
        [`BeatsError`]: if the labels are class indices.
    """
    if labels.ndim < 2 or not labels.is_floating_point():
        raise BeatsError(
            f"`labels` must be floats (batch_size, ..., num_labels), no class indices, got {labels.dtype}."
        )
    num_samples = num_samples.to(waveforms.device)
    batch_size, device = len(waveforms), waveforms.device
    partners = _random_partners(batch_size, generator).to(device)
    is_mixed = (_uniform((batch_size,), generator) < probability).to(device)
    # The quantile function: torch's own Beta distribution takes no generator.
    quantiles = betaincinv(alpha, alpha, _uniform((batch_size,), generator).cpu().numpy())
    weights = torch.where(is_mixed, torch.from_numpy(quantiles).to(device), 1.0)

    def mix(values: torch.Tensor) -> torch.Tensor:
        weight = weights.to(values.device, values.dtype).view(-1, *[1] * (values.ndim - 1))
        mixed = weight * values + (1 - weight) * values[partners.to(values.device)]
        # Labels that are not known are NaN, also 0 times.
        return torch.where(weight < 1, mixed, values)

    longer = torch.maximum(num_samples, num_samples[partners])
    return mix(waveforms), torch.where(is_mixed, longer, num_samples), mix(labels)


def augment_fbank(
    input_values: torch.Tensor, attention_mask: torch.Tensor, arguments: AugmentationArguments, fbank_std: float
) -> torch.Tensor:
    """Filters and masks filter banks as `arguments` say: see [`filter_augment`] and [`spec_augment`]."""
    if arguments.filter_db:
        input_values = filter_augment(input_values, attention_mask, arguments.filter_db, fbank_std)
    return spec_augment(input_values, attention_mask, arguments)


def spec_augment(
    input_values: torch.Tensor,
    attention_mask: torch.Tensor,
    arguments: AugmentationArguments,
    generator: torch.Generator | None = None,
) -> torch.Tensor:
    """
    Masks stretches of time and bands of frequency (Park et al., 2019, without time warping), other ones for every
    clip. Masked values become 0, about the mean of the corpus after normalisation. Padding stays as it is. Lengths in
    whole frames or bins from none to the longest are equally likely, and so are all places. ESPnet's recipes hide at
    most 6 % of a clip, AST up to 48 mel bins on AudioSet and 24 on ESC-50.

    Args:
        input_values (`torch.FloatTensor` of shape `(batch_size, num_frames, num_mel_bins)`):
            Normalised filter banks.
        attention_mask (`torch.Tensor` of shape `(batch_size, num_frames)`):
            1 for frames of audio, which come first, 0 for padding.
        arguments ([`AugmentationArguments`]):
            Numbers and sizes of the masks.
        generator (`torch.Generator`, *optional*):
            Source of the random numbers.

    Returns:
        `torch.FloatTensor` of shape `(batch_size, num_frames, num_mel_bins)`.

    Raises:
        [`BeatsError`]: if a band may be wider than there are bins.
    """
    num_frames, num_mel_bins = input_values.shape[1:]
    if arguments.freq_mask_bins > num_mel_bins:
        raise BeatsError(f"`freq_mask_bins` is {arguments.freq_mask_bins}, of {num_mel_bins} mel bins.")
    is_valid = attention_mask.to(input_values.device).bool()
    lengths = is_valid.sum(dim=1)
    # In float64: a share of a whole number of frames must not lose one of them.
    widths = (lengths.double() * arguments.time_mask_ratio + 1e-9).floor().long()
    hides_frame = random_stretches(lengths, widths, arguments.num_time_masks, num_frames, generator)
    bins, widths = torch.full_like(lengths, num_mel_bins), torch.full_like(lengths, arguments.freq_mask_bins)
    hides_bin = random_stretches(bins, widths, arguments.num_freq_masks, num_mel_bins, generator)
    hides = (hides_frame.unsqueeze(2) | hides_bin.unsqueeze(1)) & is_valid.unsqueeze(2)
    return input_values.masked_fill(hides, 0.0)


def filter_augment(
    input_values: torch.Tensor,
    attention_mask: torch.Tensor,
    max_db: float,
    fbank_std: float,
    generator: torch.Generator | None = None,
) -> torch.Tensor:
    """
    Raises and lowers frequencies (FilterAugment, Nam et al., 2022, arXiv 2110.03282, linear type), by other gains for
    every clip: between the ends of three to five bands, whose ends are random, gains are linear in mel bins. Padding
    stays as it is.

    Args:
        input_values (`torch.FloatTensor` of shape `(batch_size, num_frames, num_mel_bins)`):
            Normalised filter banks.
        attention_mask (`torch.Tensor` of shape `(batch_size, num_frames)`):
            1 for frames of audio, 0 for padding.
        max_db (`float`):
            Largest gain at the end of a band, in decibels; from minus that on, all are equally likely.
        fbank_std (`float`):
            Standard deviation of the feature extractor: a filter bank is a logarithm of power, divided by twice that.
        generator (`torch.Generator`, *optional*):
            Source of the random numbers.
    """
    batch_size, _, num_bins = input_values.shape
    places = torch.arange(num_bins, dtype=torch.float64) / max(1, num_bins - 1)
    gains = []
    for _ in range(batch_size):
        num_bands = MIN_BANDS + int(_random_integers(torch.tensor(MAX_BANDS - MIN_BANDS), generator))
        inner = _uniform((num_bands - 1,), generator).cpu().sort().values
        ends = torch.cat([torch.zeros(1), inner, torch.ones(1)]).double()
        levels = max_db * (2 * _uniform((num_bands + 1,), generator).cpu() - 1)
        # Numpy interpolates, torch does not.
        gains.append(torch.from_numpy(np.interp(places.numpy(), ends.numpy(), levels.numpy())))
    shift = torch.stack(gains) * (math.log(10) / 10 / (2 * fbank_std))
    shift = shift.to(input_values.device, input_values.dtype).unsqueeze(1)
    is_audio = attention_mask.to(input_values.device).bool().unsqueeze(2)
    return torch.where(is_audio, input_values + shift, input_values)


def random_stretches(
    lengths: torch.Tensor,
    max_widths: torch.Tensor,
    num_stretches: int,
    size: int,
    generator: torch.Generator | None = None,
) -> torch.Tensor:
    """
    Draws stretches of rows of `size` places, which may overlap: `num_stretches` of each, within the first `lengths`
    `(batch_size,)` places. Widths, from 0 to `max_widths` `(batch_size,)`, and places are uniform. Returns a mask
    `(batch_size, size)` of the places in a stretch.
    """
    shape = (len(lengths), num_stretches)
    widths = _random_integers(max_widths.unsqueeze(1), generator, shape)
    starts = _random_integers(lengths.unsqueeze(1) - widths, generator).unsqueeze(2)
    position = torch.arange(size, device=lengths.device)
    return ((position >= starts) & (position < starts + widths.unsqueeze(2))).any(dim=1)


def balanced_sample_weights(labels: Sequence[Sequence[int]]) -> np.ndarray:
    """
    Computes weights by which rare classes are drawn as often as frequent ones: the sum over the classes of a clip of
    one divided by the number of clips that have the class. This is the balanced sampling of PSLA (Gong et al., 2021)
    and AST, up to a constant factor, with which the paper fine-tunes on AudioSet.

    Labels are the indices of the classes of each clip, each once; weights are float64 `(num_clips,)`, not normalised.
    Clips without a class get 0 and are never drawn, which a warning counts.

    Raises:
        [`BeatsError`]: if no clip has any class.
    """
    clips = np.repeat(np.arange(len(labels)), [len(indices) for indices in labels])
    classes = np.array(list(chain.from_iterable(labels)), dtype=np.int64)
    if len(classes) == 0:
        raise BeatsError(f"None of {len(labels)} clips has a class: there is nothing to balance.")
    weights = np.bincount(clips, weights=1.0 / np.bincount(classes)[classes], minlength=len(labels))
    if num_without := int((weights == 0).sum()):
        logger.warning(f"{num_without} of {len(labels)} clips have no class and are never drawn.")
    return weights


class SeededByEpoch(Sampler[Any]):
    """
    Part of a sampler with a generator. The order of an epoch depends on the seed and the number of the epoch only, so
    that an interrupted training goes on with the clips that it would have seen, and all processes agree.
    """

    seed = epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Sets the epoch; `Trainer` calls it, through accelerate, before each."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[Any]:
        self.generator = torch.Generator().manual_seed(self.seed + self.epoch)
        return super().__iter__()


class BalancedSampler(SeededByEpoch, WeightedRandomSampler):
    """
    Sampler by weight, with replacement. An index is that of an item and the number of its repetition in an epoch, from
    0, by which a crop of a clip is another one.

    Raises:
        [`BeatsError`]: if there are more weights than torch can draw from.
    """

    def __init__(self, weights: np.ndarray, num_samples: int, seed: int):
        if len(weights) > MAX_DRAWN:
            raise BeatsError(f"`balanced_sampling` draws from at most {MAX_DRAWN} crops, got {len(weights)}.")
        super().__init__(weights.tolist(), num_samples, replacement=True)
        self.seed = seed

    def __iter__(self) -> Iterator[Any]:
        repetitions: Counter[int] = Counter()
        for item in super().__iter__():
            yield item, repetitions[item]
            repetitions[item] += 1


class LengthSampler(SeededByEpoch, LengthGroupedSampler):
    """Sampler of batches of about the same length: [`LengthGroupedSampler`] in an order of its own."""

    def __init__(self, batch_size: int, lengths: list[int], seed: int):
        super().__init__(batch_size, lengths=lengths)
        self.seed = seed
