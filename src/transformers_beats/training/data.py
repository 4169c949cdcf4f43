# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Audio for pre-training: from folders, Parquet, tar shards or the Hub to batches of crops, with or without codes."""

import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import datasets
import numpy as np
import torch
from datasets import config as datasets_config
from datasets.fingerprint import Hasher
from torch.utils.data import Dataset, IterableDataset, get_worker_info
from transformers.utils import logging

from transformers_beats.audio import AudioError, decode_audio
from transformers_beats.feature_extraction_beats import BeatsFeatureExtractor, kaldi_fbank, num_fbank_frames


logger = logging.get_logger(__name__)

LOSSLESS_SUFFIXES = (".aif", ".aifc", ".aiff", ".au", ".caf", ".flac", ".w64", ".wav", ".wv")
LOSSY_SUFFIXES = (".aac", ".m4a", ".mp3", ".mp4", ".oga", ".ogg", ".opus", ".webm", ".wma")
AUDIO_SUFFIXES = frozenset((*LOSSLESS_SUFFIXES, *LOSSY_SUFFIXES))
METADATA_FILES = {"metadata.csv": "csv", "metadata.jsonl": "json", "metadata.parquet": "parquet"}
# What a row says of its audio: the bytes of a file, or where it lies.
AUDIO_STRUCT = {"bytes": datasets.Value("binary"), "path": datasets.Value("string")}
NUM_NAMED_PROBLEMS = 5


@dataclass
class DataArguments:
    """The audio of a training run."""

    dataset: str = field(
        metadata={"help": "Folder of audio files, of *.parquet files or of WebDataset shards (*.tar), or a Hub id."}
    )
    dataset_config: str | None = field(default=None, metadata={"help": "Configuration of a Hub data set."})
    split: str = field(default="train", metadata={"help": "Split of a Hub data set; a folder has only `train`."})
    streaming: bool = field(default=False, metadata={"help": "Read the data as they come, for codes on the fly."})
    audio_column: str | None = field(default=None, metadata={"help": "Column of the audio, if there are several."})
    select: dict | None = field(
        default=None, metadata={"help": "Rows to keep, by column: {fold: [2, 3]} keeps two of its values."}
    )
    crop_seconds: float = field(default=10.0, metadata={"help": "Longer clips are cut at random to so much."})
    num_crops: int = field(default=1, metadata={"help": "Crops of each clip in an epoch."})
    min_seconds: float = field(default=0.2, metadata={"help": "Shorter clips are skipped, and counted."})
    crop_seed: int = field(default=0, metadata={"help": "Seed of the crops."})
    precompute_fbank: bool = field(
        default=False, metadata={"help": "Compute the fbank once, to disk, instead of in every step."}
    )
    num_proc: int | None = field(default=None, metadata={"help": "Processes that check or prepare the clips."})

    def __post_init__(self):
        if not self.crop_seconds > 0:
            raise ValueError(f"`crop_seconds` must be positive, got {self.crop_seconds}.")
        if self.num_crops < 1 or self.min_seconds < 0 or self.crop_seed < 0:
            raise ValueError("`num_crops` must be at least 1, `min_seconds` and `crop_seed` not negative.")


# Data sets


def load_audio_dataset(arguments: DataArguments) -> Any:
    """
    The rows of `arguments.dataset` with their audio, not decoded, in the column `audio` (`bytes` and `path`, one of
    which may be None). torchcodec is not needed.

    Returns:
        `datasets.Dataset`, or `datasets.IterableDataset` if `arguments.streaming` is set.

    Raises:
        `ValueError`: if there is no such folder, no audio in it, or no column of the asked name.
    """
    path = Path(arguments.dataset)
    if not path.exists():
        if path.is_absolute() or arguments.dataset.startswith(".") or len(path.parts) > 2:
            raise ValueError(f"{path}: no such file or folder.")
        dataset = datasets.load_dataset(
            arguments.dataset, arguments.dataset_config, split=arguments.split, streaming=arguments.streaming
        )
    elif shards := _find_files(path, {".parquet"} if not (path / "metadata.parquet").exists() else set()):
        dataset = datasets.load_dataset(
            "parquet", data_files=[str(shard) for shard in shards], split="train", streaming=arguments.streaming
        )
    elif shards := _find_files(path, {".tar"}):
        kind = datasets.IterableDataset if arguments.streaming else datasets.Dataset
        features = datasets.Features({"audio": AUDIO_STRUCT})
        gen_kwargs = {"shards": [str(shard) for shard in shards]}
        dataset = kind.from_generator(read_tar_shards, features=features, gen_kwargs=gen_kwargs)
    else:
        dataset = list_audio_files(path)
        if arguments.streaming:
            dataset = dataset.to_iterable_dataset(num_shards=min(64, len(dataset)))
    return _select_rows(_name_audio_column(dataset, arguments), arguments.select)


def _find_files(path: Path, suffixes: set[str] | frozenset[str]) -> list[Path]:
    if path.is_file():
        return [path] if path.suffix.lower() in suffixes else []
    files = (file for file in path.rglob("*") if file.suffix.lower() in suffixes)
    return sorted(file for file in files if file.is_file() and not file.name.startswith("."))


def read_tar_shards(shards: list[str]) -> Iterator[dict[str, Any]]:
    """The audio files in tar archives; their other files are left out."""
    for shard in shards:
        with tarfile.open(shard) as archive:
            for member in archive:
                if member.isfile() and PurePosixPath(member.name).suffix.lower() in AUDIO_SUFFIXES:
                    file = archive.extractfile(member)
                    data = file.read() if file is not None else b""
                    yield {"audio": {"bytes": data, "path": f"{shard}/{member.name}"}}


def list_audio_files(path: Path) -> datasets.Dataset:
    """
    All audio files under a folder, or those that its `metadata.csv` (or `.jsonl`, `.parquet`) names in the column
    `file_name`, with its other columns.
    """
    columns: dict[str, list] = {}
    metadata = next((path / name for name in METADATA_FILES if (path / name).is_file()), None)
    if metadata is not None:
        table = datasets.load_dataset(METADATA_FILES[metadata.name], data_files=str(metadata), split="train")
        if "file_name" not in table.column_names:
            raise ValueError(f"{metadata}: has no column `file_name`, only {', '.join(table.column_names)}.")
        columns = {name: list(table[name]) for name in table.column_names}
        files = [path / name for name in columns["file_name"]]
    else:
        files = _find_files(path, AUDIO_SUFFIXES)
        if not files:
            raise ValueError(f"{path}: holds no audio files, no Parquet files and no tar shards.")
        columns["file_name"] = [str(file.relative_to(path)) if file != path else file.name for file in files]
    columns["audio"] = [{"bytes": None, "path": str(file)} for file in files]
    # So that what is cached of a file is not used for another one of its name.
    columns["modified"] = [file.stat().st_mtime_ns if file.exists() else 0 for file in files]
    dataset = datasets.Dataset.from_dict(columns)
    return dataset.cast_column("audio", AUDIO_STRUCT)


def _name_audio_column(dataset, arguments: DataArguments):
    """The data set with its audio in the column `audio`, not decoded."""
    features = dataset.features or {}
    candidates = [
        name
        for name, feature in features.items()
        if isinstance(feature, datasets.Audio) or (isinstance(feature, dict) and {"bytes", "path"} <= feature.keys())
    ]
    name = arguments.audio_column
    if name is None:
        if len(candidates) != 1:
            found = f"several audio columns ({', '.join(candidates)})" if candidates else "no audio column"
            raise ValueError(f"{arguments.dataset}: has {found} among {', '.join(features)}: set `audio_column`.")
        name = candidates[0]
    elif name not in features:
        raise ValueError(f"{arguments.dataset}: has no column {name!r}, only {', '.join(features)}.")
    if isinstance(features[name], datasets.Audio):
        # As a plain struct: an `Audio` cannot be read without torchcodec where it is streamed.
        dataset = dataset.cast_column(name, AUDIO_STRUCT)
    return dataset if name == "audio" else dataset.rename_column(name, "audio")


def _select_rows(dataset, select: dict | None):
    for column, values in (select or {}).items():
        if column not in dataset.features:
            raise ValueError(f"`select` names the column {column!r}, but there are {', '.join(dataset.features)}.")
        wanted = values if isinstance(values, list) else [values]
        dataset = dataset.filter(partial(_is_in, wanted=wanted), input_columns=column)
    return dataset


def _is_in(value: Any, wanted: list) -> bool:
    return value in wanted


def decode_row(row: dict[str, Any], sampling_rate: int) -> np.ndarray:
    """
    The waveform of a row.

    Raises:
        [`AudioError`]: naming its file.
    """
    audio = row["audio"]
    if not audio.get("bytes"):
        return decode_audio(audio["path"], sampling_rate)
    try:
        return decode_audio(audio["bytes"], sampling_rate)
    except AudioError as error:
        raise AudioError(f"{audio.get('path') or 'audio'}: {error}") from error


# Clips and crops


@dataclass
class Clips:
    """
    Rows whose audio can be read.

    Args:
        dataset (`datasets.Dataset`):
            The rows.
        num_samples (`np.ndarray` of shape `(num_clips,)`):
            Their lengths at the model's sampling rate.
        num_skipped (`int`):
            How many rows cannot be read, or are too short.
    """

    dataset: datasets.Dataset
    num_samples: np.ndarray
    num_skipped: int


def _map_cached(dataset: datasets.Dataset, function, features: datasets.Features, **kwargs) -> datasets.Dataset:
    """`dataset.map` to new columns only, cached on disk also for data sets that are themselves in memory."""
    directory = Path(datasets_config.HF_DATASETS_CACHE) / "transformers_beats"
    directory.mkdir(parents=True, exist_ok=True)
    name = Hasher.hash((dataset._fingerprint, function, str(features)))
    return dataset.map(
        function,
        features=features,
        remove_columns=dataset.column_names,
        cache_file_name=str(directory / f"{name}.arrow"),
        **kwargs,
    )


def check_clip(row: dict[str, Any], sampling_rate: int, min_seconds: float) -> dict[str, Any]:
    """Length of a clip, or what is wrong with it."""
    try:
        num_samples = len(decode_row(row, sampling_rate))
    except AudioError as error:
        return {"num_samples": 0, "problem": str(error)}
    if num_samples < min_seconds * sampling_rate:
        seconds = num_samples / sampling_rate
        problem = f"{row['audio'].get('path')}: lasts {seconds:.3f} s, less than `min_seconds` ({min_seconds:g})."
        return {"num_samples": num_samples, "problem": problem}
    return {"num_samples": num_samples, "problem": ""}


def prepare_clips(dataset: datasets.Dataset, arguments: DataArguments, sampling_rate: int) -> Clips:
    """
    Decodes every clip once, so that none that cannot be read stops a training later. The result is cached.

    Raises:
        `ValueError`: if no clip is left.
    """
    checks = _map_cached(
        dataset,
        partial(check_clip, sampling_rate=sampling_rate, min_seconds=arguments.min_seconds),
        datasets.Features({"num_samples": datasets.Value("int64"), "problem": datasets.Value("string")}),
        num_proc=arguments.num_proc,
        desc="Checking clips",
    )
    problems = [problem for problem in checks["problem"] if problem]
    if problems:
        named = "; ".join(problems[:NUM_NAMED_PROBLEMS])
        more = f"; and {len(problems) - NUM_NAMED_PROBLEMS} more" if len(problems) > NUM_NAMED_PROBLEMS else ""
        logger.warning(f"{len(problems)} of {len(checks)} clips are skipped: {named}{more}")
    good = [index for index, problem in enumerate(checks["problem"]) if not problem]
    if not good:
        raise ValueError(f"{arguments.dataset}: none of {len(checks)} clips can be used.")
    return Clips(dataset.select(good), np.array(checks["num_samples"])[good], len(problems))


def crop(waveform: np.ndarray, num_samples: int, generator: np.random.Generator) -> np.ndarray:
    """A random part of `num_samples` samples, or all if there are no more."""
    if len(waveform) <= num_samples:
        return waveform
    start = int(generator.integers(len(waveform) - num_samples + 1))
    return waveform[start : start + num_samples]


class CropDataset(Dataset):
    """
    Crops of clips. Crop i is number `i % num_crops` of clip `i // num_crops`. Where it lies depends on the seed, the
    clip and this number only, so that every stage of pre-training sees the same.

    Args:
        clips ([`Clips`]):
            From [`prepare_clips`].
        arguments ([`DataArguments`]):
            Length, number and seed of the crops.
        codes (`datasets.Dataset`, *optional*):
            The acoustic tokenizer's codes of crop i in row i.
        sampling_rate (`int`, defaults to 16000):
            In hertz.

    Raises:
        `ValueError`: if there are more or fewer codes than crops.
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
        self.codes = check_codes(codes, len(self))

    def __len__(self) -> int:
        return len(self.clips.dataset) * self.arguments.num_crops

    def __getitem__(self, index: int) -> dict[str, Any]:
        clip, number = divmod(int(index), self.arguments.num_crops)
        waveform = decode_row(self.clips.dataset[clip], self.sampling_rate)
        generator = np.random.default_rng([self.arguments.crop_seed, clip, number])
        item = {"waveform": crop(waveform, self.num_samples, generator), "index": int(index)}
        return item | read_codes(self.codes, index)


def check_codes(codes: datasets.Dataset | None, num_items: int) -> datasets.Dataset | None:
    """The codes, if there are as many as items."""
    if codes is not None and len(codes) != num_items:
        raise ValueError(f"There are {len(codes)} rows of codes for {num_items} crops: tokenize these data again.")
    return None if codes is None else codes.with_format("numpy")


def read_codes(codes: datasets.Dataset | None, index: int) -> dict[str, torch.Tensor]:
    """`labels` `(num_columns, num_freq_patches)` of an item, int64, if there are codes."""
    return {} if codes is None else {"labels": torch.from_numpy(codes[int(index)]["codes"].astype(np.int64))}


def compute_fbanks(
    row: dict[str, list], indices: list[int], extractor: BeatsFeatureExtractor, arguments: DataArguments
) -> dict[str, list]:
    """The fbanks of all crops of a clip, given as a batch of one row."""
    rate = extractor.sampling_rate
    waveform = decode_row({"audio": row["audio"][0]}, rate)
    generators = [
        np.random.default_rng([arguments.crop_seed, indices[0], number]) for number in range(arguments.num_crops)
    ]
    crops = [crop(waveform, round(arguments.crop_seconds * rate), generator) for generator in generators]
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
        self.codes = crops.codes

    def __len__(self) -> int:
        return len(self.fbanks)

    def __getitem__(self, index: int) -> dict[str, Any]:
        item = {"input_values": self.fbanks[int(index)]["input_values"], "index": int(index)}
        return item | read_codes(self.codes, index)


class StreamingCrops(IterableDataset):
    """
    Crops of clips as they come, each clip at another place in every epoch. What cannot be read is skipped and counted
    in `num_skipped`. `DataLoader` workers share the rows.
    """

    def __init__(self, dataset: datasets.IterableDataset, arguments: DataArguments, sampling_rate: int = 16000):
        self.dataset, self.arguments, self.sampling_rate = dataset, arguments, sampling_rate
        self.num_samples = round(arguments.crop_seconds * sampling_rate)
        self.num_skipped = 0
        self.epoch = 0

    def __iter__(self) -> Iterator[dict[str, Any]]:
        # `datasets` itself gives every worker its part of the rows.
        worker = get_worker_info()
        number = 0 if worker is None else worker.id
        generator = np.random.default_rng([self.arguments.crop_seed, self.epoch, number])
        self.epoch += 1
        for row in self.dataset:
            try:
                waveform = decode_row(row, self.sampling_rate)
                if len(waveform) < self.arguments.min_seconds * self.sampling_rate:
                    raise AudioError(f"{row['audio'].get('path')}: is shorter than `min_seconds`.")
            except AudioError as error:
                self.num_skipped += 1
                logger.warning(f"Skipped, {self.num_skipped} so far: {error}")
                continue
            for _ in range(self.arguments.num_crops):
                yield {"waveform": crop(waveform, self.num_samples, generator)}


# Batches


class DataCollator:
    """
    Joins items to a batch of a fixed length, that of a crop.

    Args:
        extractor ([`BeatsFeatureExtractor`]):
            Pads fbanks, and gives the geometry.
        crop_seconds (`float`):
            Length of a crop.

    Raises:
        `ValueError`: if a crop does not hold a column of patches.
    """

    def __init__(self, extractor: BeatsFeatureExtractor, crop_seconds: float):
        self.extractor = extractor
        self.num_samples = round(crop_seconds * extractor.sampling_rate)
        self.num_frames = num_fbank_frames(self.num_samples, extractor.sampling_rate)
        self.grid = (self.num_frames // extractor.patch_size, extractor.feature_size // extractor.patch_size)
        if self.grid[0] == 0:
            raise ValueError(
                f"`crop_seconds` ({crop_seconds:g}) makes {self.num_frames} frames, less than a patch of "
                f"{extractor.patch_size}."
            )

    def __call__(self, items: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        """
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


def featurize(
    batch: dict[str, torch.Tensor], extractor: BeatsFeatureExtractor, device: torch.device | str
) -> dict[str, torch.Tensor]:
    """
    Computes the fbank of a batch of waveforms on a device; a batch that has its fbank is returned as it is.

    Args:
        batch (`dict[str, torch.Tensor]`):
            From [`DataCollator`].
        extractor ([`BeatsFeatureExtractor`]):
            Gives the statistics.
        device (`torch.device` or `str`):
            Where to compute.

    Returns:
        `dict[str, torch.Tensor]`: `input_values`, `attention_mask`, and whatever else is in the batch.
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
    crops: CropDataset, extractor: BeatsFeatureExtractor, num_clips: int, seed: int = 0
) -> tuple[float, float]:
    """
    Mean and standard deviation of the fbank, before normalisation, over all frames of a sample of crops.

    Args:
        crops ([`CropDataset`]):
            The corpus.
        extractor ([`BeatsFeatureExtractor`]):
            Gives the geometry.
        num_clips (`int`):
            How many crops to read, at most.
        seed (`int`, defaults to 0):
            Of their choice.
    """
    chosen = np.random.default_rng(seed).permutation(len(crops))[:num_clips]
    count, total, squares = 0, 0.0, 0.0
    for index in chosen:
        waveform = torch.from_numpy(crops[int(index)]["waveform"]).unsqueeze(0)
        if num_fbank_frames(waveform.shape[1], extractor.sampling_rate) == 0:
            continue
        fbank = kaldi_fbank(waveform, extractor.feature_size, extractor.sampling_rate).double()
        count, total, squares = (
            count + fbank.numel(),
            total + fbank.sum().item(),
            squares + fbank.square().sum().item(),
        )
    mean = total / count
    return mean, max(squares / count - mean**2, 0.0) ** 0.5


__all__ = [
    "Clips",
    "CropDataset",
    "DataArguments",
    "DataCollator",
    "FbankDataset",
    "StreamingCrops",
    "fbank_statistics",
    "featurize",
    "load_audio_dataset",
    "prepare_clips",
]
