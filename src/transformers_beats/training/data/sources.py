# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Sources of audio for training: folders, Parquet, tar shards or the Hub."""

import json
import os
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import datasets
import numpy as np
from datasets.config import HF_DATASETS_CACHE
from datasets.exceptions import DatasetGenerationError
from transformers.utils import logging

from transformers_beats.audio.decoding import AudioError, AudioStream, read_samples, stream_audio
from transformers_beats.audio.files import AUDIO_SUFFIXES, NamedBytes, search_folder
from transformers_beats.utils.arguments import argument, check_numbers
from transformers_beats.utils.errors import BeatsError, UsageError, first_line, name_some
from transformers_beats.utils.hub import check_repository

from .labels import label_name
from .manifest import AUDIO_STRUCT, SHARD_SUFFIXES, list_audio_files, one_of_each_folder, search_audio
from .splits import check_nested_splits, find_split, select_shards
from .tables import FILE_COLUMN, find_table, read_parquet_schema


logger = logging.get_logger(__name__)

# Suffixes of a clip's class, as text, beside its audio in a tar shard.
CLASS_SUFFIXES = (".cls", ".txt")


@dataclass
class DataArguments:
    """Audio of a training run."""

    dataset: str | list[str] = argument(
        "Folder of audio files, of *.parquet files or of WebDataset shards (*.tar); a table of paths "
        "(*.csv, *.tsv, *.json, *.jsonl, *.parquet); a Hub id; or a list of these."
    )
    dataset_config: str | None = argument("Configuration of a Hub dataset.", None)
    split: str = argument(
        "Split of a Hub dataset, or subfolder of a folder (`test` is also `Test`, `eval` ...). `train` is all of a "
        "folder without other splits, `all` is all of any.",
        "train",
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
    num_proc: int | None = argument(
        "Processes that check or prepare the clips. Default: to check, one for each CPU that may be used.", None, min=1
    )
    read_attempts: int = argument("Attempts to read a clip, with pauses, before it counts as lost.", 3, min=1)
    read_seconds: float = argument("Time limit of each attempt, in seconds.", 120.0, positive=True)
    max_lost_share: float = argument(
        "Share of the crops that a process reads, rounded up, that may be lost: others take their place.",
        0.05,
        min=0,
        max=1,
    )

    def __post_init__(self):
        check_numbers(self)


def load_audio_dataset(arguments: DataArguments, beside: str | None = None, refresh: bool = True) -> Any:
    """
    Loads the rows of `arguments.dataset` with their audio, not decoded, in the column `audio` (`bytes` and `path`, one
    of which may be None). torchcodec is not needed. `beside` is the name of another split, see [`find_split`];
    `refresh` is that of [`search_audio`].

    Returns:
        `datasets.Dataset`, or `datasets.IterableDataset` if `arguments.streaming` is set.

    Raises:
        [`UsageError`]: if there is no such folder or dataset.
        [`BeatsError`]: if there is no audio in it, or no column of the asked name.
    """
    sources = arguments.dataset if isinstance(arguments.dataset, list) else [arguments.dataset]
    if not sources:
        raise UsageError("`dataset` is an empty list.")
    parts = [_load_source(replace(arguments, dataset=source), beside, refresh) for source in sources]
    return parts[0] if len(parts) == 1 else _join(parts, sources)


def _load_source(arguments: DataArguments, beside: str | None, refresh: bool) -> Any:
    """Loads one folder, table or Hub dataset; see [`load_audio_dataset`]."""
    source, audio_column = str(arguments.dataset), arguments.audio_column
    root = Path(source)
    if not root.exists():
        if root.is_absolute() or source.startswith(".") or len(root.parts) > 2:
            raise UsageError(f"{root}: no such file or folder.")
        if not Path(HF_DATASETS_CACHE, source.replace("/", "___")).exists():
            check_repository(source, "dataset")
        try:
            dataset = datasets.load_dataset(
                source, arguments.dataset_config, split=arguments.split, streaming=arguments.streaming
            )
        except OSError as error:
            raise UsageError(
                f"{source}: no such file or folder here, and from the Hub it cannot be loaded: {error}"
            ) from error
        return _select_rows(_name_audio_column(dataset, audio_column, source), arguments.select)
    folder = find_split(root, arguments.split, beside)
    path = folder or root
    # A table beside the folders of splits may name the files in them.
    table = find_table(path, audio_column) or find_table(root, audio_column)
    listed = None
    if folder is None:
        found = [] if table else [root] if root.is_file() else search_folder(root, SHARD_SUFFIXES)
    else:
        found, listed = search_audio(path, audio_column, table, refresh)
    if shards := _select_shards(found, root, folder, ".parquet", arguments.split):
        for shard in shards:
            read_parquet_schema(shard)
        try:
            dataset = datasets.load_dataset(
                "parquet", data_files=[str(shard) for shard in shards], split="train", streaming=arguments.streaming
            )
        except DatasetGenerationError as error:
            raise BeatsError(f"{path}: cannot be read as Parquet: {first_line(error.__cause__ or error)}") from error
    elif shards := _select_shards(found, root, folder, ".tar", arguments.split):
        kind = datasets.IterableDataset if arguments.streaming else datasets.Dataset
        features = datasets.Features({"audio": AUDIO_STRUCT, "metadata": datasets.Value("string")})
        # With their times, so that what is cached of a shard is read anew when it changes.
        gen_kwargs = {"shards": [(str(shard), shard.stat().st_mtime_ns) for shard in shards]}
        dataset = kind.from_generator(read_tar_shards, features=features, gen_kwargs=gen_kwargs)
    elif folder is None:
        raise BeatsError(f"{root}: has no folder {arguments.split!r}, which the split of that name would be.")
    else:
        dataset = list_audio_files(path, audio_column, table, refresh) if listed is None else listed
        audio_column = "audio"
        if table is None and refresh:
            check_nested_splits(path, one_of_each_folder(dataset.data.column(FILE_COLUMN)), arguments.split)
        if arguments.streaming:
            dataset = dataset.to_iterable_dataset(num_shards=min(64, len(dataset)))
    return _select_rows(_name_audio_column(dataset, audio_column, source), arguments.select)


def _join(parts: list, sources: list[str]) -> Any:
    """Joins datasets; a column that one of them lacks is empty there."""
    try:
        return datasets.concatenate_datasets(parts)
    except (ValueError, TypeError) as error:
        raise BeatsError(f"{name_some(sources)}: their columns differ: {first_line(error)}") from error


def _select_shards(found: list[Path], root: Path, folder: Path | None, suffix: str, split: str) -> list[Path]:
    """Returns the shards of a suffix: all in the folder of a split; or those whose names tell that they are of it."""
    shards = [path for path in found if path.suffix.lower() == suffix]
    return shards if folder is not None and folder != root else select_shards(root, shards, split)


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
    return any(_is_same(value, one) for one in wanted)


def _is_same(value: Any, wanted: Any) -> bool:
    """Compares a value of a row, which in delimited text is a text, and one of a recipe: numbers by their value."""
    if wanted is None or value is None:
        return value in (None, "") and wanted is None
    if isinstance(value, str) and isinstance(wanted, (bool, int, float)):
        try:
            return value.casefold() == str(wanted).casefold() or float(value) == wanted
        except ValueError:
            return False
    return value == wanted or label_name(value) == label_name(wanted)


def decode_row(row: dict[str, Any], sampling_rate: int, start: int = 0, num_samples: int | None = None) -> np.ndarray:
    """
    Returns the waveform of a row, or a part of it: decoded, or as [`prepare_clips`] has kept it.

    Raises:
        [`AudioError`]: if it cannot be decoded; the message names the file.
    """
    if row.get("waveform") is not None:
        stop = None if num_samples is None else start + num_samples
        return np.array(row["waveform"][start:stop], dtype=np.float32)
    return read_samples(open_row(row, sampling_rate, start), num_samples)


def open_row(row: dict[str, Any], sampling_rate: int, start: int = 0) -> AudioStream:
    """
    Opens the audio of a row. Its warnings are in its report and not logged, as clips are read again and again.

    Raises:
        [`AudioError`]: if it cannot be opened; the message names the file.
    """
    audio = row["audio"] or {}
    source = audio.get("path")
    if audio.get("bytes"):
        source = NamedBytes(audio["bytes"], source or "audio")
    elif not source:
        raise AudioError("a row holds no audio.")
    elif os.path.exists(source) and not os.path.isfile(source):
        raise AudioError(f"{source}: is no file that can be read again, but a folder, a pipe or a device.")
    stream = stream_audio(source, sampling_rate, start)
    stream.report.is_logged = False
    return stream
