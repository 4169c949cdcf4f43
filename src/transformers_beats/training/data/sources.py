# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Sources of audio for training: folders, Parquet, tar shards or the Hub."""

import json
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import datasets
import numpy as np
import pyarrow.parquet
from datasets.config import HF_DATASETS_CACHE
from transformers.utils import logging

from transformers_beats.audio.decoding import AudioError, decode_audio
from transformers_beats.audio.files import AUDIO_SUFFIXES, search_folder
from transformers_beats.utils.arguments import argument, check_numbers
from transformers_beats.utils.errors import BeatsError, UsageError
from transformers_beats.utils.hub import check_repository


logger = logging.get_logger(__name__)

# Tables of paths, and the names of their formats in `datasets`.
TABLE_SUFFIXES = {".csv": "csv", ".jsonl": "json", ".parquet": "parquet"}
# Folders beside which `train` is a split.
OTHER_SPLITS = ("test", "valid", "validation", "val", "dev", "eval", "evaluation")
# Suffixes of a clip's class, as text, beside its audio in a tar shard.
CLASS_SUFFIXES = (".cls", ".txt")
# Audio of a row: the bytes of a file, or its path.
AUDIO_STRUCT = {"bytes": datasets.Value("binary"), "path": datasets.Value("string")}


@dataclass
class DataArguments:
    """Audio of a training run."""

    dataset: str = argument(
        "Folder of audio files, of *.parquet files or of WebDataset shards (*.tar); a table of paths "
        "(*.csv, *.jsonl, *.parquet); or a Hub id."
    )
    dataset_config: str | None = argument("Configuration of a Hub dataset.", None)
    split: str = argument(
        "Split of a Hub dataset, or subfolder of a folder; `train` is all of one without others.", "train"
    )
    streaming: bool = argument("Read the data as they come, for codes on the fly.", False)
    audio_column: str | None = argument("Column of the audio or, in a table, of the paths.", None)
    select: dict | None = argument("Rows to keep, by column: {fold: [2, 3]} keeps two of its values.", None)
    crop_seconds: float = argument("Longer clips are cut at random to this length.", 10.0, positive=True)
    num_crops: int | None = argument(
        "Crops of each clip in an epoch. Default: as many as fit into it; streamed, one.", None, min=1
    )
    min_seconds: float = argument("Shorter clips are skipped, and counted.", 0.2, min=0)
    crop_seed: int = argument("Seed of the crops, and of the order of a stream.", 0, min=0)
    shuffle_buffer_size: int = argument("Streamed clips among which the next is drawn.", 1000, min=1)
    precompute_fbank: bool = argument("Compute the fbank once, to disk, instead of in every step.", False)
    cache_audio: bool = argument(
        "Decode and resample every clip once, to disk, instead of whenever it is read.", False
    )
    num_proc: int | None = argument("Processes that check or prepare the clips.", None, min=1)

    def __post_init__(self):
        check_numbers(self)


def load_audio_dataset(arguments: DataArguments) -> Any:
    """
    Loads the rows of `arguments.dataset` with their audio, not decoded, in the column `audio` (`bytes` and `path`, one
    of which may be None). torchcodec is not needed.

    Returns:
        `datasets.Dataset`, or `datasets.IterableDataset` if `arguments.streaming` is set.

    Raises:
        [`UsageError`]: if there is no such folder or dataset.
        [`BeatsError`]: if there is no audio in it, or no column of the asked name.
    """
    path, audio_column = find_split(Path(arguments.dataset), arguments.split), arguments.audio_column
    if not path.exists():
        if path.is_absolute() or arguments.dataset.startswith(".") or len(path.parts) > 2:
            raise UsageError(f"{path}: no such file or folder.")
        if not Path(HF_DATASETS_CACHE, arguments.dataset.replace("/", "___")).exists():
            check_repository(arguments.dataset, "dataset")
        try:
            dataset = datasets.load_dataset(
                arguments.dataset, arguments.dataset_config, split=arguments.split, streaming=arguments.streaming
            )
        except OSError as error:
            raise UsageError(
                f"{arguments.dataset}: no such file or folder here, and from the Hub it cannot be loaded: {error}"
            ) from error
    elif shards := _find_files(path, {".parquet"}) if _find_table(path, audio_column) is None else []:
        dataset = datasets.load_dataset(
            "parquet", data_files=[str(shard) for shard in shards], split="train", streaming=arguments.streaming
        )
    elif shards := _find_files(path, {".tar"}):
        kind = datasets.IterableDataset if arguments.streaming else datasets.Dataset
        features = datasets.Features({"audio": AUDIO_STRUCT, "metadata": datasets.Value("string")})
        # With their times, so that what is cached of a shard is read anew when it changes.
        gen_kwargs = {"shards": [(str(shard), shard.stat().st_mtime_ns) for shard in shards]}
        dataset = kind.from_generator(read_tar_shards, features=features, gen_kwargs=gen_kwargs)
    else:
        dataset, audio_column = list_audio_files(path, audio_column), "audio"
        if arguments.streaming:
            dataset = dataset.to_iterable_dataset(num_shards=min(64, len(dataset)))
    return _select_rows(_name_audio_column(dataset, audio_column, arguments.dataset), arguments.select)


def find_split(path: Path, split: str) -> Path:
    """
    Finds the folder of a split, `path/split`; or `path` itself, which is all a `train` split if it has no other.

    Raises:
        [`BeatsError`]: if a folder or file of one's own has no such split.
    """
    has_others = any((path / name).is_dir() for name in OTHER_SPLITS)
    # Without others, a folder of that name may be the class of railway sounds.
    if (path / split).is_dir() and (split != "train" or has_others):
        return path / split
    if path.exists() and split != "train":
        raise BeatsError(f"{path}: has no folder {split!r}, which the split of that name would be.")
    return path


def _find_files(path: Path, suffixes: set[str] | frozenset[str]) -> list[Path]:
    if path.is_file():
        return [path] if path.suffix.lower() in suffixes else []
    return search_folder(path, suffixes)


def read_tar_shards(shards: list[tuple[str, int]]) -> Iterator[dict[str, Any]]:
    """
    Yields the audio files in tar archives, given with their times; `NAME.json`, `NAME.cls` or `NAME.txt` beside
    `NAME.wav` become their metadata, as JSON. Other files, and the rest of a damaged archive, are left out.
    """
    for shard, _ in shards:
        for members in _group_members(shard):
            metadata: dict[str, Any] = {}
            for name, data in members:
                suffix = PurePosixPath(name).suffix.lower()
                if suffix in (".json", *CLASS_SUFFIXES):
                    metadata |= _read_metadata(f"{shard}/{name}", data, is_json=suffix == ".json")
            for name, data in members:
                if PurePosixPath(name).suffix.lower() in AUDIO_SUFFIXES:
                    audio = {"bytes": data, "path": f"{shard}/{name}"}
                    yield {"audio": audio, "metadata": json.dumps(metadata) if metadata else None}


def _group_members(shard: str) -> Iterator[list[tuple[str, bytes]]]:
    """Yields names and contents of the files of each clip: neighbours whose names differ after a dot only."""
    group: list[tuple[str, bytes]] = []
    wanted = AUDIO_SUFFIXES | {".json", *CLASS_SUFFIXES}
    try:
        with tarfile.open(shard) as archive:
            for member in archive:
                if not member.isfile() or PurePosixPath(member.name).suffix.lower() not in wanted:
                    continue
                file = archive.extractfile(member)
                entry = (member.name, file.read() if file is not None else b"")
                if group and _clip_key(group[0][0]) != _clip_key(member.name):
                    yield group
                    group = []
                group.append(entry)
    except (tarfile.TarError, EOFError) as error:
        logger.warning(f"{shard}: the rest of this shard cannot be read: {error}")
    if group:
        yield group


def _clip_key(name: str) -> str:
    """Returns WebDataset's key of a file: its path up to the first dot of its name."""
    path = PurePosixPath(name)
    return str(path.with_name(path.name.partition(".")[0] or path.name))


def _read_metadata(name: str, data: bytes, is_json: bool) -> dict[str, Any]:
    """Reads a file beside the audio; nothing, with a warning, if it cannot be read."""
    try:
        text = data.decode("utf-8")
        values = json.loads(text) if is_json else {"label": text.strip()}
    except ValueError as error:
        logger.warning(f"{name}: cannot be read: {error}")
        return {}
    return values if isinstance(values, dict) else {"label": values}


def _find_table(path: Path, audio_column: str | None) -> Path | None:
    """Finds the table of paths that `path` is, or that a folder holds under the name `metadata`."""
    if path.is_dir():
        return next(
            (path / f"metadata{suffix}" for suffix in TABLE_SUFFIXES if (path / f"metadata{suffix}").exists()), None
        )
    if path.suffix.lower() == ".parquet":
        # One with the audio itself has other columns.
        schema = pyarrow.parquet.read_schema(path)
        names = [entry.name for entry in schema if pyarrow.types.is_string(entry.type)]
        return path if (audio_column or "file_name") in names else None
    return path if path.suffix.lower() in TABLE_SUFFIXES else None


def list_audio_files(path: Path, audio_column: str | None = None) -> datasets.Dataset:
    """
    Lists the audio files under a folder; or those that a table, or `metadata.csv` (`.jsonl`, `.parquet`) in the
    folder, names in a column, `file_name` by default, with its other columns.
    """
    columns: dict[str, Any] = {}
    features: dict[str, Any] = {"file_name": datasets.Value("string")}
    table_path = _find_table(path, audio_column)
    if table_path is not None:
        kind = TABLE_SUFFIXES[table_path.suffix.lower()]
        table = datasets.load_dataset(kind, data_files=str(table_path), split="train")
        column = audio_column or "file_name"
        if column not in table.column_names:
            raise BeatsError(f"{table_path}: has no column `{column}`, only {', '.join(table.column_names)}.")
        table = _rename_column(table, column, "file_name")
        columns, features = {name: table[name][:] for name in table.column_names}, dict(table.features)
        files = [table_path.parent / name for name in columns["file_name"]]
    else:
        files = _find_files(path, AUDIO_SUFFIXES)
        if not files:
            raise BeatsError(f"{path}: holds no audio files, no Parquet files and no tar shards.")
        columns["file_name"] = [str(file.relative_to(path)) if file != path else file.name for file in files]
    columns["audio"] = [{"bytes": None, "path": str(file)} for file in files]
    # So that what is cached of a file is not used for another one of its name.
    columns["modified"] = [file.stat().st_mtime_ns if file.exists() else 0 for file in files]
    features |= {"audio": AUDIO_STRUCT, "modified": datasets.Value("int64")}
    return datasets.Dataset.from_dict(columns, features=datasets.Features(features))


def _name_audio_column(dataset, name: str | None, source: str):
    """Returns the dataset with its audio in the column `audio`, not decoded."""
    features = dataset.features or {}
    candidates = [
        name
        for name, feature in features.items()
        if isinstance(feature, datasets.Audio) or (isinstance(feature, dict) and {"bytes", "path"} <= feature.keys())
    ]
    if name is None:
        if len(candidates) != 1:
            found = f"several audio columns ({', '.join(candidates)})" if candidates else "no audio column"
            raise BeatsError(f"{source}: has {found} among {', '.join(features)}: set `audio_column`.")
        name = candidates[0]
    elif name not in features:
        raise BeatsError(f"{source}: has no column {name!r}, only {', '.join(features)}.")
    if isinstance(features[name], datasets.Audio):
        # As a plain struct: an `Audio` cannot be read without torchcodec where it is streamed.
        dataset = dataset.cast_column(name, AUDIO_STRUCT)
    return _rename_column(dataset, name, "audio")


def _rename_column(dataset, old: str, new: str):
    """Renames a column; another one of the new name goes."""
    if old == new:
        return dataset
    return (dataset.remove_columns(new) if new in dataset.features else dataset).rename_column(old, new)


def _select_rows(dataset, select: dict | None):
    for column, values in (select or {}).items():
        if column not in dataset.features:
            raise BeatsError(f"`select` names the column {column!r}, but there are {', '.join(dataset.features)}.")
        wanted = values if isinstance(values, list) else [values]
        dataset = dataset.filter(partial(_is_in, wanted=wanted), input_columns=column)
    return dataset


def _is_in(value: Any, wanted: list) -> bool:
    return value in wanted


def decode_row(row: dict[str, Any], sampling_rate: int, start: int = 0, num_samples: int | None = None) -> np.ndarray:
    """
    Returns the waveform of a row, or a part of it: decoded, or as [`prepare_clips`] has kept it.

    Raises:
        [`AudioError`]: if it cannot be decoded; the message names the file.
    """
    if row.get("waveform") is not None:
        stop = None if num_samples is None else start + num_samples
        return np.array(row["waveform"][start:stop], dtype=np.float32)
    audio = row["audio"] or {}
    if not audio.get("bytes"):
        if not audio.get("path"):
            raise AudioError("a row holds no audio.")
        return decode_audio(audio["path"], sampling_rate, start, num_samples)
    try:
        return decode_audio(audio["bytes"], sampling_rate, start, num_samples)
    except AudioError as error:
        raise AudioError(f"{audio.get('path') or 'audio'}: {error}") from error
