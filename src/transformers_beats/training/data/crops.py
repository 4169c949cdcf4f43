# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Audio for pre-training: from rows to batches of crops, with or without codes."""

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
from datasets.fingerprint import Hasher
from torch.utils.data import Dataset
from transformers.utils import logging

from transformers_beats.audio.decoding import AudioError, AudioStream, loudness_was_reported, read_samples
from transformers_beats.fbank_beats import kaldi_fbank, num_fbank_frames
from transformers_beats.feature_extraction_beats import BeatsFeatureExtractor
from transformers_beats.utils.errors import BeatsError

from .cache import cache_path
from .reading import ItemReader, within
from .shards import read_audio
from .sources import DataArguments, decode_row, open_row
from .tables import FILE_COLUMN


logger = logging.get_logger(__name__)

NUM_NAMED_PROBLEMS = 5
# No field of `DataArguments`, as the results that are kept would be those of one value.
CHECK_SECONDS = 600.0


# Clips and crops


@dataclass
class Clips:
    """
    Rows whose audio can be read, with their lengths at the model's sampling rate, the names of their files within the
    dataset, the number of rows that were skipped, and digests of the files (int64). `whole` are the clips that these
    were selected from, and their indices there.
    """

    dataset: datasets.Dataset
    num_samples: np.ndarray
    names: list[str]
    num_skipped: int
    digests: np.ndarray
    whole: tuple["Clips", np.ndarray] | None = None


def _map_cached(dataset: datasets.Dataset, function, features: datasets.Features, **kwargs) -> datasets.Dataset:
    """Maps a dataset to new columns only, cached on disk also for datasets that are themselves in memory."""
    return dataset.map(
        function,
        features=features,
        remove_columns=dataset.column_names,
        cache_file_name=str(cache_path("{}.arrow", dataset._fingerprint, function, str(features))),
        **kwargs,
    )


def check_clip(row: dict[str, Any], sampling_rate: int, min_seconds: float) -> dict[str, Any]:
    """
    Returns path, length and digest of a clip, what may be wrong with it, and its problem, if any; without a length if
    it cannot be decoded within ten minutes.
    """
    audio = row["audio"] or {}
    path = audio.get("path") or ""

    def read() -> tuple[AudioStream, int]:
        stream = open_row(row, sampling_rate)
        return stream, len(read_samples(stream))

    try:
        stream, num_samples = within(CHECK_SECONDS, read)
    except (AudioError, TimeoutError) as error:
        problem = f"{path}: {error}." if isinstance(error, TimeoutError) else str(error)
        return {"path": path, "num_samples": 0, "digest": 0, "problem": problem, "doubt": ""}
    doubt = "".join(f"{stream.name}: {warning}" for warning in stream.report.warnings[:1])
    problem = ""
    if num_samples < min_seconds * sampling_rate:
        seconds = num_samples / sampling_rate
        problem = f"{path}: lasts {seconds:.3f} s, less than `min_seconds` ({min_seconds:g})."
    digest = hashlib.blake2b(read_audio(audio) or Path(path).read_bytes(), digest_size=8).digest()
    number = int.from_bytes(digest, "little", signed=True)
    return {"path": path, "num_samples": num_samples, "digest": number, "problem": problem, "doubt": doubt}


def name_clips(dataset: datasets.Dataset, paths: list[str], is_single: bool) -> list[str]:
    """
    Returns names that tell clips apart, `dog/1.wav` and `rain/1.wav`: those of the dataset, if it `is_single`, else
    paths below the folder that all have in common.
    """
    if is_single and FILE_COLUMN in dataset.column_names and all(names := dataset[FILE_COLUMN][:]):
        return list(map(str, names))
    paths = [path or f"row {number}" for number, path in enumerate(paths, start=1)]
    folders = {os.path.dirname(path) for path in paths}
    common = os.path.commonpath(folders) if len(set(map(os.path.isabs, folders))) == 1 else ""
    return [os.path.relpath(path, common) if common else path for path in paths]


def decode_clip(row: dict[str, Any], sampling_rate: int) -> dict[str, np.ndarray]:
    """Returns the waveform of a clip."""
    return {"waveform": decode_row(row, sampling_rate)}


def prepare_clips(dataset: datasets.Dataset, arguments: DataArguments, sampling_rate: int) -> Clips:
    """
    Decodes every clip once, so that none that cannot be read stops a training later. The result is cached; clips that
    could not be decoded are tried again the next time.

    Raises:
        [`BeatsError`]: if no clip is left.
    """
    if len(dataset) == 0:
        raise BeatsError(f"{arguments.dataset}: there is no clip, or `select` leaves none.")
    check = partial(check_clip, sampling_rate=sampling_rate, min_seconds=arguments.min_seconds)
    features = {name: datasets.Value("string") for name in ("path", "problem", "doubt")}
    features |= {"num_samples": datasets.Value("int64"), "digest": datasets.Value("int64")}
    checks = _map_cached(
        dataset, check, datasets.Features(features), num_proc=arguments.num_proc, desc="Checking clips"
    )
    problems, num_samples = checks["problem"][:], np.array(checks["num_samples"][:])
    digests = np.array(checks["digest"][:], dtype=np.int64)
    # A failure may be gone, whatever the cache says: a disk that was not mounted, a file that was being written.
    for index in np.flatnonzero(num_samples == 0).tolist():
        again = check(dataset[index])
        problems[index], num_samples[index], digests[index] = again["problem"], again["num_samples"], again["digest"]
    found = [problem for problem in problems if problem]
    _warn_of(found, len(problems), "are skipped")
    # Of clips that are used.
    doubts = [doubt for doubt, problem in zip(checks["doubt"][:], problems) if doubt and not problem]
    _warn_of(doubts, len(problems), "are used and may be bad")
    good = [index for index, problem in enumerate(problems) if not problem]
    if not good:
        raise BeatsError(f"{arguments.dataset}: none of {len(problems)} clips can be used.")
    names = name_clips(dataset, checks["path"][:], isinstance(arguments.dataset, str))
    dataset = dataset.select(good)
    if arguments.cache_audio:
        waveforms = _map_cached(
            dataset,
            partial(decode_clip, sampling_rate=sampling_rate),
            datasets.Features({"waveform": datasets.List(datasets.Value("float32"))}),
            num_proc=arguments.num_proc,
            desc="Decoding",
        )
        dataset = datasets.concatenate_datasets([dataset, waveforms], axis=1)
        dataset = dataset.with_format("numpy", columns=["waveform"], output_all_columns=True)
    return Clips(dataset, num_samples[good], [names[index] for index in good], len(found), digests[good])


def _warn_of(messages: list[str], num_clips: int, what: str) -> None:
    """Warns of clips that something is wrong with; their messages begin with their names."""
    if messages:
        named = "; ".join(messages[:NUM_NAMED_PROBLEMS])
        more = f"; and {len(messages) - NUM_NAMED_PROBLEMS} more" if len(messages) > NUM_NAMED_PROBLEMS else ""
        logger.warning(f"{len(messages)} of {num_clips} clips {what}: {named}{more}")


def count_crops(num_samples: int, arguments: DataArguments, sampling_rate: int) -> int:
    """Returns the crops of a clip in an epoch: `num_crops`, or as many as fit one after another, at least one."""
    if arguments.num_crops is not None:
        return arguments.num_crops
    return max(1, num_samples // round(arguments.crop_seconds * sampling_rate))


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
        counts = [count_crops(int(length), arguments, sampling_rate) for length in clips.num_samples]
        # The first crop of each clip, and the number of crops.
        self.offsets = np.concatenate([[0], np.cumsum(counts)])
        self.codes = check_codes(codes, len(self))
        self.reader = ItemReader(arguments, len(self), self.name_of)

    @cached_property
    def fingerprint(self) -> str:
        """Digest that changes with the names, the order and the lengths of the clips."""
        return Hasher.hash((self.clips.names, self.clips.num_samples.tolist()))

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
    num_crops = count_crops(len(waveform), arguments, rate)
    generators = [np.random.default_rng([arguments.crop_seed, indices[0], number]) for number in range(num_crops)]
    crops = [crop(waveform, round(arguments.crop_seconds * rate), generator) for generator in generators]
    with loudness_was_reported():
        return {"input_values": extractor(crops, sampling_rate=rate, padding=False)["input_values"]}


class FbankDataset(Dataset):
    """Fbanks of crops, computed once and read from disk; see [`CropDataset`]."""

    def __init__(self, crops: CropDataset, extractor: BeatsFeatureExtractor):
        features = datasets.Features({"input_values": datasets.Array2D((None, extractor.feature_size), "float32")})
        self.fbanks = _map_cached(
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
            `(batch_size, num_columns, num_freq_patches)`, -100 on padding, if the items have codes.
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
            batch["labels"] = torch.full((len(items), *self.grid), -100)
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
    mean = total / count
    return mean, max(squares / count - mean**2, 0.0) ** 0.5
