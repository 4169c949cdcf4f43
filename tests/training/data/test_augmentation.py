# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
import math

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn
from torch.utils.data import WeightedRandomSampler
from transformers import Trainer, TrainingArguments

from transformers_beats import BeatsFeatureExtractor
from transformers_beats.training.data.augmentation import (
    AugmentationArguments,
    BalancedSampler,
    balanced_sample_weights,
    filter_augment,
    mixup_waveforms,
    roll_waveforms,
    spec_augment,
)
from transformers_beats.utils.errors import BeatsError


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def make_waveforms(lengths: list[int], max_samples: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Noise, then zeros, and the lengths."""
    waveforms = torch.randn(len(lengths), max_samples, generator=seeded(1))
    num_samples = torch.tensor(lengths)
    return waveforms * (torch.arange(max_samples) < num_samples[:, None]), num_samples


def one_hot(*indices: int, num_labels: int = 3) -> torch.Tensor:
    return nn.functional.one_hot(torch.tensor(indices), num_labels).float()


# Roll


def test_each_clip_is_turned_within_its_own_length():
    waveforms, num_samples = make_waveforms([500, 320, 1, 417], 500)
    rolled = roll_waveforms(waveforms, num_samples, seeded())
    shifts = []
    for row, before, length in zip(rolled, waveforms, num_samples.tolist()):
        turned = torch.stack([before[:length].roll(shift) for shift in range(length)])
        (shift,) = (turned == row[:length]).all(dim=1).nonzero().flatten().tolist()
        shifts.append(shift)
        assert not row[length:].any()
    assert len(set(shifts)) == 4


def test_all_turns_of_a_clip_are_equally_likely():
    waveforms = torch.arange(5.0).repeat(10000, 1)
    firsts = roll_waveforms(waveforms, torch.full((10000,), 5), seeded())[:, 0].long()
    assert stats.chisquare(torch.bincount(firsts, minlength=5).numpy()).pvalue > 0.01


def test_a_roll_leaves_its_arguments_and_what_lies_in_the_padding_alone():
    waveforms, num_samples = torch.arange(12.0).view(2, 6), torch.tensor([4, 0])
    rolled = roll_waveforms(waveforms, num_samples, seeded(3))
    assert torch.equal(waveforms, torch.arange(12.0).view(2, 6))
    assert rolled[0].sort().values.tolist() == [0, 1, 2, 3, 4, 5]
    assert rolled[0, 4:].tolist() == [4, 5]
    assert rolled[1].tolist() == [6, 7, 8, 9, 10, 11]


# Mixup


def test_waveforms_and_labels_are_mixed_with_the_same_weight():
    # Every clip is a constant power of two, so that a mixture tells its partner and its weight.
    waveforms = torch.tensor([1.0, 2.0, 4.0]).repeat_interleave(10).view(3, 10)
    mixed, num_samples, labels = mixup_waveforms(
        waveforms, torch.full((3,), 10), one_hot(0, 1, 2), 1.0, generator=seeded()
    )
    torch.testing.assert_close(mixed, (labels @ torch.tensor([1.0, 2.0, 4.0]))[:, None].expand(3, 10))
    torch.testing.assert_close(labels.sum(dim=1), torch.ones(3))
    assert ((labels > 0).sum(dim=1) == 2).all()
    assert (labels.diagonal() > 0).all()
    assert num_samples.tolist() == [10, 10, 10]


def test_every_clip_has_a_weight_of_its_own_from_the_beta_distribution():
    labels = torch.eye(2000)
    *_, mixed = mixup_waveforms(torch.zeros(2000, 1), torch.ones(2000).long(), labels, 0.8, generator=seeded())
    weights = mixed.diagonal().numpy()
    assert stats.kstest(weights, stats.beta(0.8, 0.8).cdf).pvalue > 0.01


def test_every_clip_is_mixed_with_another_and_every_clip_is_used_once():
    for seed in range(20):
        *_, mixed = mixup_waveforms(torch.zeros(5, 1), torch.ones(5).long(), torch.eye(5), 1.0, generator=seeded(seed))
        partners = (mixed * (1 - torch.eye(5))) > 0
        assert (partners.sum(dim=0) == 1).all()
        assert (partners.sum(dim=1) == 1).all()


def test_a_mixture_is_as_long_as_the_longer_clip():
    waveforms, num_samples = make_waveforms([300, 500], 500)
    mixed, lengths, labels = mixup_waveforms(waveforms, num_samples, one_hot(0, 1), 5.0, generator=seeded())
    assert lengths.tolist() == [500, 500]
    torch.testing.assert_close(mixed[0, 300:], labels[0, 1] * waveforms[1, 300:])


def test_clips_that_are_not_mixed_stay_as_they_are():
    lengths = torch.arange(100, 500)
    waveforms, num_samples = make_waveforms(lengths.tolist(), 500)
    mixed, after, labels = mixup_waveforms(
        waveforms, num_samples, torch.eye(400), 1.0, probability=0.3, generator=seeded()
    )
    is_same = labels.diagonal() == 1
    assert 0.6 < is_same.float().mean() < 0.8
    assert torch.equal(mixed[is_same], waveforms[is_same])
    assert torch.equal(after[is_same], lengths[is_same])
    assert not (mixed[~is_same] == waveforms[~is_same]).all(dim=1).any()


def test_several_labels_are_mixed_one_by_one():
    labels = torch.tensor([[1.0, 1.0, 0.0], [1.0, 0.0, 1.0]])
    *_, mixed = mixup_waveforms(torch.zeros(2, 1), torch.ones(2).long(), labels, 1.0, generator=seeded())
    assert mixed[:, 0].tolist() == [1.0, 1.0]
    torch.testing.assert_close(mixed[:, 1] + mixed[:, 2], torch.ones(2))
    assert ((mixed[:, 1] > 0) & (mixed[:, 1] < 1)).all()


def test_labels_of_frames_are_mixed_like_their_clip():
    frames = torch.rand(4, 6, 3, generator=seeded())
    arguments = (torch.zeros(4, 1), torch.ones(4).long())
    *_, mixed = mixup_waveforms(*arguments, frames, 1.0, generator=seeded())
    *_, flat = mixup_waveforms(*arguments, frames.flatten(1), 1.0, generator=seeded())
    assert torch.equal(mixed.flatten(1), flat)


def test_a_clip_that_is_alone_in_its_batch_is_mixed_with_itself():
    waveforms, num_samples = make_waveforms([400], 400)
    mixed, lengths, labels = mixup_waveforms(waveforms, num_samples, one_hot(1), 0.8, generator=seeded())
    torch.testing.assert_close(mixed, waveforms)
    torch.testing.assert_close(labels, one_hot(1))
    assert lengths.tolist() == [400]


def test_mixup_leaves_its_arguments_alone():
    waveforms, num_samples = make_waveforms([300, 500], 500)
    labels = one_hot(0, 1)
    copies = [value.clone() for value in (waveforms, num_samples, labels)]
    mixup_waveforms(waveforms, num_samples, labels, 1.0, generator=seeded())
    assert all(torch.equal(value, copy) for value, copy in zip((waveforms, num_samples, labels), copies))


def test_the_mean_of_a_waveform_does_not_change_its_fbank():
    # This is why mixup does not remove it, as AST does.
    (waveform,), _ = make_waveforms([4000], 4000)
    extractor = BeatsFeatureExtractor()
    plain, shifted = (extractor(values, sampling_rate=16000)["input_values"] for values in (waveform, waveform + 0.1))
    np.testing.assert_allclose(plain[0], shifted[0], atol=1e-4)


@pytest.mark.parametrize("alpha", [1e-3, 100.0])
def test_extreme_weights_are_numbers(alpha):
    *_, mixed = mixup_waveforms(torch.zeros(500, 1), torch.ones(500).long(), torch.eye(500), alpha, generator=seeded())
    assert mixed.isfinite().all()
    torch.testing.assert_close(mixed.sum(dim=1), torch.ones(500))


@pytest.mark.parametrize("labels", [torch.tensor([0, 1]), torch.zeros(2, 3, dtype=torch.long)])
def test_class_indices_are_not_mixed(labels):
    with pytest.raises(BeatsError, match=r"no class indices, got torch\.int64"):
        mixup_waveforms(torch.zeros(2, 5), torch.tensor([5, 5]), labels, alpha=1.0)


# SpecAugment


def masks(**settings):
    """Augmentation by these masks only."""
    return lambda values, mask, generator=None: spec_augment(
        values, mask, AugmentationArguments(**settings), generator
    )


def runs_of(hides: torch.Tensor) -> list[tuple[int, int]]:
    """Beginning and length of every stretch of true values in a vector."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], hides.numpy().astype(int), [0]])))
    return [(int(begin), int(end - begin)) for begin, end in zip(edges[::2], edges[1::2])]


def ones(lengths: list[int], num_frames: int, num_mel_bins: int = 8) -> tuple[torch.Tensor, torch.Tensor]:
    """A batch of ones, and the mask of its lengths."""
    mask = (torch.arange(num_frames) < torch.tensor(lengths)[:, None]).int()
    return torch.ones(len(lengths), num_frames, num_mel_bins), mask


def test_a_time_mask_covers_at_most_its_share_of_the_valid_frames():
    lengths = [100, 50, 16] * 300
    values, mask = ones(lengths, 100)
    hides = masks(time_mask_ratio=0.06)(values, mask, seeded()) == 0
    assert torch.equal(hides.any(dim=2), hides.all(dim=2))
    widths = hides.any(dim=2).sum(dim=1)
    for first, longest in enumerate([6, 3, 0]):
        assert set(widths[first::3].tolist()) == set(range(longest + 1))
    for row, length in zip(hides[:, :, 0], lengths):
        assert all(begin + width <= length for begin, width in runs_of(row))


def test_a_time_mask_lies_anywhere_in_the_valid_frames():
    values, mask = ones([20] * 2000, 30)
    hides = masks(time_mask_ratio=0.05)(values, mask, seeded())[:, :, 0] == 0
    counts = hides.sum(dim=0)
    assert (counts[:20] > 0).all()
    assert not counts[20:].any()
    assert stats.chisquare(counts[:20].numpy()).pvalue > 0.01


def test_a_frequency_mask_covers_the_same_bins_of_all_valid_frames():
    values, mask = ones([10, 6] * 200, 10, num_mel_bins=32)
    hides = masks(num_time_masks=0, freq_mask_bins=5)(values, mask, seeded()) == 0
    widths = []
    for row, length in zip(hides, mask.sum(dim=1).tolist()):
        assert torch.equal(row[:length], row[:1].expand(length, -1))
        # Padding is none of the clip's.
        assert not row[length:].any()
        runs = runs_of(row[0])
        assert len(runs) <= 1
        widths += [width for _, width in runs] or [0]
    assert set(widths) == {0, 1, 2, 3, 4, 5}


def test_each_clip_has_other_masks():
    values, mask = ones([200] * 8, 200, num_mel_bins=128)
    hides = masks(time_mask_ratio=0.5, freq_mask_bins=64)(values, mask, seeded()) == 0
    assert len({row.numpy().tobytes() for row in hides}) == 8


def test_several_masks_make_several_holes():
    values, mask = ones([400] * 50, 400)
    hides = masks(num_time_masks=3, time_mask_ratio=0.02)(values, mask, seeded())[:, :, 0] == 0
    assert max(len(runs_of(row)) for row in hides) == 3


def test_masked_values_are_zero_and_the_others_as_before():
    values = torch.randn(4, 50, 16, generator=seeded())
    before = values.clone()
    result = masks(time_mask_ratio=0.3, freq_mask_bins=8)(values, torch.ones(4, 50), seeded())
    assert torch.equal(values, before)
    assert (result == 0).any()
    assert torch.equal(result[result != 0], values[result != 0])


def test_no_masks_change_nothing():
    values, mask = ones([30, 20], 30)
    assert torch.equal(masks(time_mask_ratio=0.0, freq_mask_bins=0)(values, mask), values)
    assert torch.equal(masks(num_time_masks=0, num_freq_masks=0)(values, mask), values)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_time_masks": -1}, "`num_time_masks` must not be negative, got -1"),
        ({"freq_mask_bins": -1}, "`freq_mask_bins` must not be negative"),
        ({"mixup_alpha": math.nan}, "`mixup_alpha` must be finite, got nan"),
        ({"mixup_alpha": math.inf}, "`mixup_alpha` must be finite, got inf"),
        ({"time_mask_ratio": 1.5}, r"`time_mask_ratio` must be at most 1, got 1\.5"),
        ({"mixup_probability": math.nan}, "`mixup_probability` must be finite, got nan"),
    ],
)
def test_impossible_augmentations_are_refused(settings, message):
    with pytest.raises(BeatsError, match=message):
        AugmentationArguments(**settings)


def test_masks_that_do_not_fit_the_features_are_refused():
    values, mask = ones([30, 20], 30)
    with pytest.raises(ValueError, match="`freq_mask_bins` is 9, of 8 mel bins"):
        masks(freq_mask_bins=9)(values, mask)


# Random numbers


def augment_all(generator: torch.Generator | None) -> list[torch.Tensor]:
    waveforms, num_samples = make_waveforms([500, 320, 417], 500)
    values, mask = ones([100, 50, 80], 100)
    return [
        roll_waveforms(waveforms, num_samples, generator),
        *mixup_waveforms(waveforms, num_samples, one_hot(0, 1, 2), 1.0, 0.5, generator),
        masks(time_mask_ratio=0.5, freq_mask_bins=4)(values, mask, generator),
    ]


def test_a_generator_decides_everything():
    first, same, other = (augment_all(seeded(seed)) for seed in (0, 0, 1))
    assert all(torch.equal(*pair) for pair in zip(first, same))
    assert not torch.equal(first[0], other[0])
    assert not torch.equal(first[1], other[1])
    assert not torch.equal(first[-1], other[-1])


def test_without_a_generator_torchs_global_seed_decides():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        first = augment_all(None)
        torch.manual_seed(0)
        assert all(torch.equal(*pair) for pair in zip(first, augment_all(None)))


def test_a_generator_leaves_the_global_random_numbers_alone():
    state = torch.get_rng_state()
    augment_all(seeded())
    assert torch.equal(torch.get_rng_state(), state)


# Sampling


def test_the_weight_of_a_clip_is_the_sum_over_its_classes():
    expected = [1 / 4, 1 / 4 + 1 / 2, 1 / 4, 1 / 4 + 1 / 2 + 1]
    np.testing.assert_allclose(balanced_sample_weights([[0], [1, 0], [0], [0, 1, 2]]), expected)


def test_clips_without_a_class_are_never_drawn_and_counted(caplog):
    weights = balanced_sample_weights([[5], [], [5], []])
    assert weights.tolist() == [0.5, 0.0, 0.5, 0.0]
    assert "2 of 4 clips have no class" in caplog.text
    assert {item for item, _ in BalancedSampler(weights, 100, seed=0)} == {0, 2}


def test_clips_without_classes_cannot_be_balanced():
    with pytest.raises(BeatsError, match="None of 2 clips has a class"):
        balanced_sample_weights([[], []])


def test_rare_classes_are_drawn_as_often_as_frequent_ones():
    labels = [[0]] * 900 + [[1]] * 90 + [[2]] * 10
    sampler = BalancedSampler(balanced_sample_weights(labels), 9000, seed=0)
    assert isinstance(sampler, WeightedRandomSampler)
    drawn = list(sampler)
    counts = np.bincount([labels[index][0] for index, _ in drawn])
    # Those of a rare class are repeated, each under a number of its own.
    assert len(set(drawn)) == len(drawn)
    assert max(repetition for _, repetition in drawn) > 100
    assert stats.chisquare(counts).pvalue > 0.01


def test_draws_depend_on_seed_and_epoch_only():
    def draw(seed, epoch):
        sampler = BalancedSampler(np.ones(1000), 50, seed)
        sampler.set_epoch(epoch)
        return list(sampler)

    assert draw(0, 3) == draw(0, 3)
    assert len({tuple(draw(seed, epoch)) for seed, epoch in [(0, 0), (0, 1), (7, 0)]}) == 3


def test_more_crops_than_torch_draws_from_are_refused(monkeypatch):
    monkeypatch.setattr("transformers_beats.training.data.augmentation.MAX_DRAWN", 2)
    with pytest.raises(BeatsError, match="draws from at most 2 crops, got 3"):
        BalancedSampler(np.ones(3), 5, seed=0)


class Recorder(nn.Module):
    """Learns nothing, and notes the clips that it sees."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))
        self.seen = []

    def forward(self, index):
        self.seen += index.tolist()
        return {"loss": self.weight * 1.0}


class SamplingTrainer(Trainer):
    def _get_train_sampler(self, train_dataset=None):
        return BalancedSampler(np.arange(1.0, 31.0), 12, seed=self.args.seed)


class Pairs(torch.utils.data.Dataset):
    """Items that are the pairs of the sampler."""

    def __len__(self):
        return 30

    def __getitem__(self, pair):
        return {"index": pair}


def record(directory, checkpoint: str | None = None) -> list[list[int]]:
    """The clips and their repetitions of a training of two epochs of six steps."""
    arguments = TrainingArguments(
        str(directory),
        per_device_train_batch_size=2,
        num_train_epochs=2,
        save_steps=8,
        use_cpu=True,
        disable_tqdm=True,
    )
    model = Recorder()
    SamplingTrainer(model, arguments, train_dataset=Pairs()).train(checkpoint)
    return model.seen


def test_a_resumed_training_draws_the_clips_that_it_would_have_drawn(tmp_path):
    whole = record(tmp_path)
    assert len(whole) == 24
    assert whole[:12] != whole[12:]
    assert record(tmp_path, str(tmp_path / "checkpoint-8")) == whole[16:]


# Filter augmentation


def test_a_filter_raises_frequencies_of_a_whole_clip_by_at_most_its_gain():
    values, mask = torch.zeros(64, 5, 128), torch.ones(64, 5)
    mask[:, 3:] = 0
    std = 3.0
    changed = filter_augment(values, mask, 6.0, std, seeded())
    # The same in every frame, and nothing in padding.
    assert torch.equal(changed[:, 0], changed[:, 2])
    assert not changed[:, 3:].any()
    # 6 dB of a logarithm of power, divided by twice the standard deviation.
    highest = 6 * math.log(10) / 10 / (2 * std)
    assert 0.9 * highest < changed.max() <= highest + 1e-6
    assert -highest - 1e-6 <= changed.min() < -0.9 * highest
    # Linear but for the ends of three to five bands, of which two may be nearer than a bin.
    bends = (changed[:, 0].diff(n=2, dim=1).abs() > 1e-5).sum(dim=1)
    assert bends.max() <= 2 * 4
    assert len({tuple(row.tolist()) for row in changed[:, 0]}) == 64


def test_a_filter_is_that_of_the_extractor():
    """Twice the amplitude is 6 dB more in each band of a filter bank as well."""
    extractor = BeatsFeatureExtractor()
    noise = 0.1 * torch.randn(16000, generator=seeded()).numpy()
    soft, loud = (extractor(gain * noise, sampling_rate=16000)["input_values"][0] for gain in (1, 2))
    decibels = 20 * math.log10(2)
    expected = decibels * math.log(10) / 10 / (2 * extractor.fbank_std)
    # Some of the lowest filters hold no frequency of the transform, and are at their floor.
    difference = np.asarray(loud) - np.asarray(soft)
    np.testing.assert_allclose(difference[:, 16:], expected, atol=1e-4)
