# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Audio for pre-training: from rows to batches of crops, with or without codes."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import datasets
import numpy as np
import torch
from torch.utils.data import Dataset
from transformers.utils import logging

from transformers_beats.fbank_beats import kaldi_fbank, loudness_was_reported, num_fbank_frames
from transformers_beats.feature_extraction_beats import BeatsFeatureExtractor
from transformers_beats.utils.errors import BeatsError

from .clips import Clips
from .manifest import map_cached
from .reading import ItemReader
from .sources import DataArguments, decode_row


logger = logging.get_logger(__name__)

# Below it, the standard deviation of an fbank is that of rounding.
MIN_STD = 1e-3


# Crops


def count_crops(num_samples: np.ndarray, arguments: DataArguments, sampling_rate: int) -> np.ndarray:
    """Returns the crops of clips in an epoch: `num_crops`, or as many as fit one after another, at least one."""
    if arguments.num_crops is not None:
        return np.full_like(num_samples, arguments.num_crops)
    return np.maximum(1, num_samples // round(arguments.crop_seconds * sampling_rate))


def crop_start(length: int, num_samples: int, generator: np.random.Generator) -> int:
    """Draws the start of a random part of `num_samples` samples; 0 if there are no more."""
    return 0 if length <= num_samples else int(generator.integers(length - num_samples + 1))


def crop(waveform: np.ndarray, num_samples: int, generator: np.random.Generator) -> np.ndarray:
    """Returns a random part of `num_samples` samples, or all if there are no more."""
    start = crop_start(len(waveform), num_samples, generator)
    return waveform[start : start + num_samples]


class CropDataset(Dataset):
    """
    Crops of clips, those of the first clip first. The place of a crop depends on the seed, the clip and the number of
    the crop only, so that every stage of pre-training sees the same. Row i of `codes`, if given, belongs to crop i.

    Raises:
        [`BeatsError`]: if there are more or fewer codes than crops.
    """

    def __init__(
        self,
        clips: Clips,
        arguments: DataArguments,
        codes: datasets.Dataset | None = None,
        sampling_rate: int = 16000,
    ):
        self.clips, self.arguments, self.sampling_rate = clips, arguments, sampling_rate
        self.num_samples = round(arguments.crop_seconds * sampling_rate)
        # The first crop of each clip, and the number of crops.
        self.offsets = np.zeros(len(clips.num_samples) + 1, dtype=np.int64)
        np.cumsum(count_crops(clips.num_samples, arguments, sampling_rate), out=self.offsets[1:])
        self.codes = check_codes(codes, len(self))
        self.reader = ItemReader(arguments, len(self), self.name_of)

    @property
    def fingerprint(self) -> str:
        """Digest that changes with the names, the order, the lengths and the contents of the clips."""
        return self.clips.fingerprint

    @property
    def description(self) -> str:
        """Number of the clips and their `fingerprint`."""
        return f"{len(self.clips.names):,} clips, digest {self.fingerprint}"

    def __len__(self) -> int:
        return int(self.offsets[-1])

    def clip_index(self, index: int) -> int:
        """Returns the index of the clip of a crop."""
        return int(np.searchsorted(self.offsets, index, side="right")) - 1

    def name_of(self, index: int) -> str:
        """Returns the name of the clip of a crop."""
        return self.clips.names[self.clip_index(index)]

    def __getitem__(self, index: int | tuple[int, int]) -> dict[str, Any]:
        """
        Returns an item; another one in its place if it cannot be read, see [`ItemReader`]. Of a [`MixtureSampler`], an
        index is that of an item and the number of its repetition in an epoch: another crop, unless there are codes.
        """
        index, repetition = (int(index), 0) if not isinstance(index, tuple) else index
        read = partial(self.read_item, repetition=repetition) if repetition else self.read_item
        return self.reader.read(read, index)

    def read_item(self, index: int, repetition: int = 0) -> dict[str, Any]:
        """Returns `waveform` `(num_samples,)`, float32, and what belongs to it."""
        clip = self.clip_index(index)
        number, num_crops = int(index - self.offsets[clip]), int(self.offsets[clip + 1] - self.offsets[clip])
        if self.codes is None:
            number += repetition * num_crops
        _, waveform = self.decode_crop(clip, np.random.default_rng([self.arguments.crop_seed, clip, number]))
        return {"waveform": waveform, **read_codes(self.codes, index)}

    def decode_crop(self, clip: int, generator: np.random.Generator) -> tuple[int, np.ndarray]:
        """Draws the start of a crop of a clip, and decodes it. Nothing else is decoded, if possible."""
        start = crop_start(int(self.clips.num_samples[clip]), self.num_samples, generator)
        return start, decode_row(self.clips.dataset[clip], self.sampling_rate, start, self.num_samples)


def check_codes(codes: datasets.Dataset | None, num_items: int) -> datasets.Dataset | None:
    """Returns the codes, if there are as many as items."""
    if codes is not None and len(codes) != num_items:
        raise BeatsError(f"There are {len(codes)} rows of codes for {num_items} crops: tokenize these data again.")
    return None if codes is None else codes.with_format("numpy")


def read_codes(codes: datasets.Dataset | None, index: int) -> dict[str, torch.Tensor]:
    """Returns `labels` `(num_columns, num_freq_patches)` of an item, int64, if there are codes."""
    return {} if codes is None else {"labels": torch.from_numpy(codes[int(index)]["codes"].astype(np.int64))}


def compute_fbanks(
    row: dict[str, list], indices: list[int], extractor: BeatsFeatureExtractor, arguments: DataArguments
) -> dict[str, list]:
    """Computes the fbanks of all crops of a clip, given as a batch of one row."""
    rate = extractor.sampling_rate
    waveform = decode_row({"audio": row["audio"][0]}, rate)
    num_crops = int(count_crops(np.array(len(waveform)), arguments, rate))
    generators = [np.random.default_rng([arguments.crop_seed, indices[0], number]) for number in range(num_crops)]
    crops = [crop(waveform, round(arguments.crop_seconds * rate), generator) for generator in generators]
    with loudness_was_reported():
        return {"input_values": extractor(crops, sampling_rate=rate, padding=False)["input_values"]}


class FbankDataset(Dataset):
    """Fbanks of crops, computed once and read from disk; see [`CropDataset`]."""

    def __init__(self, crops: CropDataset, extractor: BeatsFeatureExtractor):
        features = datasets.Features({"input_values": datasets.Array2D((None, extractor.feature_size), "float32")})
        self.fbanks = map_cached(
            crops.clips.dataset,
            partial(compute_fbanks, extractor=extractor, arguments=crops.arguments),
            features,
            batched=True,
            batch_size=1,
            with_indices=True,
            num_proc=crops.arguments.num_proc,
            desc="Computing fbanks",
        ).with_format("torch")
        self.codes, self.crops = crops.codes, crops
        self.fingerprint, self.description = crops.fingerprint, crops.description

    def __len__(self) -> int:
        return len(self.fbanks)

    def __getitem__(self, index: int | tuple[int, int]) -> dict[str, Any]:
        # A repetition, of a [`MixtureSampler`], is the same.
        index = int(index[0] if isinstance(index, tuple) else index)
        return {"input_values": self.fbanks[index]["input_values"], **read_codes(self.codes, index)}


# Batches


class DataCollator:
    """
    Collator of items to a batch of a fixed length, that of a crop of `crop_seconds`.

    Raises:
        [`BeatsError`]: if a crop does not hold a column of patches.
    """

    def __init__(self, extractor: BeatsFeatureExtractor, crop_seconds: float):
        self.extractor = extractor
        self.num_samples = round(crop_seconds * extractor.sampling_rate)
        self.num_frames = num_fbank_frames(self.num_samples, extractor.sampling_rate)
        self.grid = (self.num_frames // extractor.patch_size, extractor.feature_size // extractor.patch_size)
        if self.grid[0] == 0:
            raise BeatsError(
                f"`crop_seconds` ({crop_seconds:g}) makes {self.num_frames} frames, less than a patch of "
                f"{extractor.patch_size}."
            )

    def __call__(self, items: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        """
        Joins items to a batch.

        Returns:
            `waveforms` `(batch_size, num_samples)`, float32, and `num_samples` `(batch_size,)`; or, for items with
            fbanks, `input_values` `(batch_size, num_frames, num_mel_bins)` and `attention_mask`. `labels`
            `(batch_size, num_columns, num_freq_patches)`, -100 on padding, if the items have codes; `num_codebooks` is
            the last dimension of several.
        """
        if "input_values" in items[0]:
            inputs = [{"input_values": item["input_values"].numpy()} for item in items]
            padded = self.extractor.pad(inputs, padding="max_length", max_length=self.num_frames, return_tensors="pt")
            batch = {name: padded[name] for name in ("input_values", "attention_mask")}
        else:
            waveforms = torch.zeros(len(items), self.num_samples)
            for row, item in zip(waveforms, items):
                row[: len(item["waveform"])] = torch.from_numpy(item["waveform"])
            lengths = [len(item["waveform"]) for item in items]
            batch = {"waveforms": waveforms, "num_samples": torch.tensor(lengths)}
        if "labels" in items[0]:
            # Of several codebooks they have one dimension more.
            batch["labels"] = torch.full((len(items), *self.grid, *items[0]["labels"].shape[2:]), -100)
            for row, item in zip(batch["labels"], items):
                row[: len(item["labels"])] = item["labels"]
        return batch


@loudness_was_reported()
def featurize(
    batch: dict[str, torch.Tensor], extractor: BeatsFeatureExtractor, device: torch.device | str
) -> dict[str, torch.Tensor]:
    """
    Computes the fbank of a batch of waveforms, from [`DataCollator`], on a device: `input_values` and `attention_mask`
    replace `waveforms` and `num_samples`. A batch that has its fbank is returned as it is.
    """
    if "waveforms" not in batch:
        return batch
    others = {name: value for name, value in batch.items() if name not in ("waveforms", "num_samples")}
    clips = [waveform[:length] for waveform, length in zip(batch["waveforms"], batch["num_samples"].tolist())]
    features = extractor(
        clips,
        sampling_rate=extractor.sampling_rate,
        padding="max_length",
        max_length=batch["waveforms"].shape[1],
        return_tensors="pt",
        device=device,
    )
    return {**features, **others}


def fbank_statistics(
    crops: CropDataset,
    extractor: BeatsFeatureExtractor,
    num_clips: int,
    seed: int = 0,
    items: Sequence[Any] | np.ndarray | None = None,
) -> tuple[float, float]:
    """
    Computes mean and standard deviation of the fbank, before normalisation, over all frames of at most `num_clips`
    crops, which are drawn at random from `items`, by default all.

    Raises:
        [`BeatsError`]: if no crop is as long as a frame, or all frames are alike, as those of silence.
    """
    items = range(len(crops)) if items is None else items
    chosen = np.random.default_rng(seed).permutation(len(items))[:num_clips]
    sums = np.zeros(3)
    for index in chosen.tolist():
        waveform = torch.from_numpy(crops[items[index]]["waveform"]).unsqueeze(0)
        if num_fbank_frames(waveform.shape[1], extractor.sampling_rate) == 0:
            continue
        fbank = kaldi_fbank(waveform, extractor.feature_size, extractor.sampling_rate).double()
        sums += (fbank.numel(), fbank.sum().item(), fbank.square().sum().item())
    count, total, squares = sums.tolist()
    described = f"the {len(chosen)} crops that the statistics of the fbank are taken from"
    if count == 0:
        raise BeatsError(f"None of {described} is as long as a frame: give longer clips, or a larger `crop_seconds`.")
    mean = total / count
    std = max(squares / count - mean**2, 0.0) ** 0.5
    if std < MIN_STD:
        raise BeatsError(
            f"All of {described} have the same value in every frame, as silence has: leave such clips out."
        )
    return mean, std
