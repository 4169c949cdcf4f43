# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Shares of several datasets."""

import datasets
import numpy as np
import pytest
import soundfile
import torch
from accelerate.data_loader import prepare_data_loader, skip_first_batches
from torch.utils.data import DataLoader, Dataset, RandomSampler
from transformers.trainer_callback import TrainerState

from transformers_beats import BeatsFeatureExtractor
from transformers_beats.training.data.augmentation import BalancedSampler, LengthSampler
from transformers_beats.training.data.clips import prepare_clips
from transformers_beats.training.data.crops import CropDataset, FbankDataset, fbank_statistics
from transformers_beats.training.data.mixing import MixtureSampler, dataset_quotas, dataset_shares, mixture_sampler
from transformers_beats.training.data.sources import DataArguments, load_audio_dataset
from transformers_beats.training.fbank_statistics import main as statistics_main
from transformers_beats.training.trainers.pretraining import EpochOfData


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


@pytest.fixture
def folders(tmp_path) -> list[str]:
    """Two folders: of two loud clips and of six quiet ones, each of 1 s."""
    generator = np.random.default_rng(0)
    for name, count, gain in (("loud", 2, 0.3), ("quiet", 6, 0.003)):
        (tmp_path / name).mkdir()
        for index in range(count):
            samples = gain * generator.standard_normal(16000)
            soundfile.write(tmp_path / name / f"{index}.wav", samples, 16000, subtype="FLOAT")
    return [str(tmp_path / "loud"), str(tmp_path / "quiet")]


def crops_of(folders, codes=None, **values) -> CropDataset:
    data = DataArguments(dataset=folders, **{"crop_seconds": 0.5, "num_crops": 1} | values)
    return CropDataset(prepare_clips(load_audio_dataset(data), data, 16000), data, codes)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"dataset": "a", "dataset_weights": [1]}, "`dataset_weights` is about several datasets"),
        ({"dataset": ["a"], "dataset_temperature": 2}, "`dataset_temperature` is about several datasets"),
        ({"dataset_weights": [1]}, "`dataset_weights` has 1 numbers for 2 datasets"),
        ({"dataset_weights": [1, 0]}, r"must be positive, got \[1, 0\]"),
        ({"dataset_weights": [1, float("nan")]}, "must be positive"),
        ({"dataset_weights": [1, 2], "dataset_temperature": 2}, "excludes `dataset_weights`"),
        ({"dataset_temperature": 2, "streaming": True}, "excludes a stream, whose clips are not counted"),
        ({"dataset_temperature": 0.5}, "at least 1, got 0.5"),
    ],
)
def test_shares_that_make_no_sense_are_refused(values, message):
    with pytest.raises(ValueError, match=message):
        DataArguments(**{"dataset": ["a", "b"]} | values)


def test_shares_follow_weights_and_temperature():
    data = DataArguments(dataset=["a", "b"])
    np.testing.assert_allclose(dataset_shares([100, 10_000], data), [100 / 10_100, 10_000 / 10_100])
    data.dataset_weights = [1, 3]
    np.testing.assert_allclose(dataset_shares([100, 10_000], data), [0.25, 0.75])
    data.dataset_weights, data.dataset_temperature = None, 1.0
    np.testing.assert_allclose(dataset_shares([100, 10_000], data), [100 / 10_100, 10_000 / 10_100])
    # 10 to 100.
    data.dataset_temperature = 2.0
    np.testing.assert_allclose(dataset_shares([100, 10_000], data), [1 / 11, 10 / 11])


def test_quotas_are_the_nearest_that_sum_up():
    assert dataset_quotas(10, np.array([0.25, 0.75])).tolist() == [3, 7]
    assert dataset_quotas(10, np.array([1 / 3, 1 / 3, 1 / 3])).tolist() == [4, 3, 3]
    assert dataset_quotas(7, np.array([0.5, 0.1, 0.4])).tolist() == [3, 1, 3]


def test_an_epoch_has_the_shares_and_repeats_as_little_as_possible():
    # Items 0 to 3 of one dataset, 4 to 19 of another.
    sampler = MixtureSampler(np.repeat([0, 1], [4, 16]), np.array([0.5, 0.5]), seed=3)
    epochs = []
    for epoch in range(2):
        sampler.set_epoch(epoch)
        drawn = list(sampler)
        assert drawn == list(sampler)
        assert len(drawn) == len(sampler) == 20
        items, repetitions = np.transpose(drawn)
        counts = np.bincount(items, minlength=20)
        # Ten draws of four items: twice each, and two a third time.
        assert sorted(counts[:4]) == [2, 2, 3, 3]
        assert sorted(counts[4:]) == [0] * 6 + [1] * 10
        assert len(set(drawn)) == 20
        assert repetitions.max() == 2
        epochs.append(drawn)
    assert epochs[0] != epochs[1]


@pytest.mark.parametrize(
    "sampler",
    [
        MixtureSampler(np.repeat([0, 1], [4, 16]), np.array([0.5, 0.5]), seed=3),
        BalancedSampler(np.ones(20), 20, seed=3),
        LengthSampler(4, [*range(20)], seed=3),
        RandomSampler(range(20)),
    ],
    ids=lambda sampler: type(sampler).__name__,
)
def test_processes_that_go_on_within_an_epoch_draw_the_items_of_that_epoch(sampler):
    class Items(Dataset):
        def __len__(self):
            return 20

        def __getitem__(self, index):
            return index[0] if isinstance(index, tuple) else index

    def prepare():
        torch.manual_seed(3)
        loader = DataLoader(Items(), batch_size=2, sampler=sampler)
        return prepare_data_loader(loader, num_processes=2, process_index=1, use_seedable_sampler=True)

    whole = prepare()
    EpochOfData().on_epoch_begin(None, TrainerState(epoch=2.0), None, train_dataloader=whole)
    whole.set_epoch(2)
    expected = [batch.tolist() for batch in whole]
    resumed = prepare()
    EpochOfData().on_epoch_begin(None, TrainerState(epoch=2.2), None, train_dataloader=resumed)
    rest = skip_first_batches(resumed, 1)
    rest.set_epoch(2)
    assert [batch.tolist() for batch in rest] == expected[1:]


def test_a_repetition_is_another_crop_without_codes_and_the_same_with_codes(folders):
    crops = crops_of(folders)
    first, second = crops[0]["waveform"], crops[0, 1]["waveform"]
    assert len(first) == len(second) == 8000
    assert not np.array_equal(first, second)
    np.testing.assert_array_equal(crops[0, 1]["waveform"], second)
    whole, _ = soundfile.read(f"{folders[0]}/0.wav", dtype="float32")
    starts = [index for index in range(8001) if np.array_equal(whole[index : index + 8000], second)]
    assert len(starts) == 1
    codes = datasets.Dataset.from_dict(
        {"codes": np.arange(8 * 24).reshape(8, 3, 8).astype(np.int16).tolist()},
        features=datasets.Features({"codes": datasets.Array2D((None, 8), "int16")}),
    )
    crops = crops_of(folders, codes)
    np.testing.assert_array_equal(crops[0, 1]["waveform"], first)
    np.testing.assert_array_equal(crops[0, 1]["labels"], crops[0]["labels"])
    np.testing.assert_array_equal(crops[1, 2]["labels"], crops[1]["labels"])
    fbanks = FbankDataset(crops, BeatsFeatureExtractor())
    np.testing.assert_array_equal(fbanks[1, 1]["input_values"], fbanks[1]["input_values"])


def test_items_belong_to_the_datasets_that_they_come_from(folders):
    assert mixture_sampler(crops_of(folders), seed=0) is None
    crops = crops_of(folders, dataset_weights=[3, 1])
    sampler = mixture_sampler(crops, seed=0)
    # Six of eight from two clips.
    assert [items.tolist() for items in sampler.items] == [[0, 1], [2, 3, 4, 5, 6, 7]]
    assert sampler.quotas.tolist() == [6, 2]
    fbanks = FbankDataset(crops, BeatsFeatureExtractor())
    assert list(mixture_sampler(fbanks, seed=0)) == list(sampler)


def test_the_command_reports_the_statistics_of_each_dataset(folders, tmp_path, capsys):
    words = ["--dataset", str(folders), "--crop_seconds", "0.5", "--num_crops", "1"]
    statistics_main([*words, "--output_dir", str(tmp_path / "together")])
    lines = capsys.readouterr().out.splitlines()
    extractor = BeatsFeatureExtractor()
    means = []
    for line, folder, count in zip(lines, folders, (2, 6)):
        assert line.startswith(f"{folder}: fbank mean ")
        assert line.endswith(f"from {count} of {count} crops")
        # Other crops, as the clips have other numbers here.
        mean, _ = fbank_statistics(crops_of([folder]), extractor, 100)
        means.append(float(line.split()[3].rstrip(",")))
        assert means[-1] == pytest.approx(mean, abs=0.05)
    assert means[0] > means[1] + 5
    # With shares, of an epoch with these shares.
    together = BeatsFeatureExtractor.from_pretrained(tmp_path / "together").fbank_mean
    assert together == pytest.approx((2 * means[0] + 6 * means[1]) / 8, abs=0.01)
    statistics_main([*words, "--dataset_weights", "[3, 1]", "--output_dir", str(tmp_path / "weighted")])
    weighted = BeatsFeatureExtractor.from_pretrained(tmp_path / "weighted").fbank_mean
    assert weighted == pytest.approx((6 * means[0] + 2 * means[1]) / 8, abs=0.1)
