# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Sources of audio for training: folders, Parquet, tar shards or the Hub."""

import math
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from itertools import repeat
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
from datasets.config import HF_DATASETS_CACHE
from datasets.fingerprint import Hasher
from transformers.utils import logging

from transformers_beats.audio.decoding import AudioError, AudioStream, read_samples, stream_audio
from transformers_beats.audio.event_rows import name_row
from transformers_beats.audio.files import AUDIO_SUFFIXES, NamedBytes, search_folder, walk_folder
from transformers_beats.utils.arguments import argument, check_numbers
from transformers_beats.utils.errors import BeatsError, UsageError, first_line, name_some
from transformers_beats.utils.hub import check_repository

from .manifest import (
    AUDIO_STRUCT,
    SHARD_SUFFIXES,
    add_file_states,
    list_audio_files,
    one_of_each_folder,
    pc,
    read_arrow,
    read_state,
    search_audio,
)
from .shards import (
    SHARD_AUDIO,
    TAR_FEATURES,
    is_audio,
    load_shards,
    read_audio,
    read_tar_shards,
)
from .splits import ALL, check_nested_splits, find_split, select_shards
from .tables import (
    CORPUS_COLUMN,
    FILE_COLUMN,
    FILE_STATE,
    METADATA_COLUMN,
    OWN_COLUMNS,
    ROW_COLUMN,
    WAVEFORM_COLUMN,
    check_parquet,
    find_table,
    keep_columns,
    label_name,
    list_columns,
    name_classes,
    read_metadata,
)


logger = logging.get_logger(__name__)

# Parts of a streamed folder, which processes and their workers share.
MAX_FOLDER_SHARDS = 256


@dataclass
class DataArguments:
    """Audio of a training run."""

    dataset: str | list[str] = argument(
        "Folder of audio files, of *.parquet files or of WebDataset shards (*.tar); a table of paths "
        "(*.csv, *.tsv, *.json, *.jsonl, *.parquet); a Hub id; or a list of these."
    )
    dataset_weights: list[float] | None = argument(
        "Shares of the datasets in an epoch of pre-training, a number for each. Default: all items, each once.", None
    )
    dataset_temperature: float | None = argument(
        "In the place of weights: a dataset of n items has a share in proportion to n^(1/T). 1 leaves the shares as "
        "they are, and the higher, the more equal they get.",
        None,
        min=1,
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
    # One frame of the fbank, at the least.
    crop_seconds: float = argument("Longer clips are cut at random to this length.", 10.0, min=0.025)
    num_crops: int | None = argument(
        "Crops of each clip in an epoch. Default: as many as fit into it; streamed, one.", None, min=1
    )
    min_seconds: float = argument("Shorter clips are skipped, and counted.", 0.2, min=0)
    crop_seed: int = argument("Seed of the crops, and of the order of a stream.", 0, min=0)
    shuffle_buffer_size: int = argument("Streamed clips that a worker shuffles together.", 1000, min=1)
    precompute_fbank: bool = argument("Compute the fbank once, to disk, instead of in every step.", False)
    cache_audio: bool = argument(
        "Decode and resample every clip once, to disk, instead of whenever it is read.", False
    )
    num_proc: int | None = argument(
        "Processes that check or prepare the clips. Default: to check, one for each CPU that may be used.", None, min=1
    )
    read_attempts: int = argument("Attempts to read a clip, with pauses, before it counts as lost.", 3, min=1)
    read_seconds: float = argument(
        "Time limit of each attempt, in seconds; of a stream, of the next row that `select` leaves.",
        120.0,
        positive=True,
    )
    max_lost_share: float = argument(
        "Share of the crops that a process reads, rounded up, that may be lost: others take their place. Of a stream, "
        "they are left out, and those count that cannot be decoded.",
        0.05,
        min=0,
        max=1,
    )

    def __post_init__(self):
        check_numbers(self)
        for name in ("dataset_weights", "dataset_temperature"):
            if getattr(self, name) is not None and len(self.sources) < 2:
                raise UsageError(f"`{name}` is about several datasets: give `dataset` as a list, or leave it out.")
        if self.dataset_temperature is not None and (self.dataset_weights is not None or self.streaming):
            other = (
                "`dataset_weights`" if self.dataset_weights is not None else "a stream, whose clips are not counted"
            )
            raise UsageError(f"`dataset_temperature` excludes {other}: set `dataset_weights` alone.")
        if self.dataset_weights is not None:
            if len(self.dataset_weights) != len(self.sources):
                raise UsageError(
                    f"`dataset_weights` has {len(self.dataset_weights)} numbers for {len(self.sources)} datasets."
                )
            if not all(math.isfinite(weight) and weight > 0 for weight in self.dataset_weights):
                raise UsageError(f"`dataset_weights` must be positive, got {self.dataset_weights}.")

    @property
    def sources(self) -> list[str]:
        """Folders, tables and Hub ids that `dataset` names."""
        return self.dataset if isinstance(self.dataset, list) else [self.dataset]

    @property
    def mixes(self) -> bool:
        """Returns whether the datasets have shares of an epoch."""
        return self.dataset_weights is not None or self.dataset_temperature is not None


def load_audio_dataset(arguments: DataArguments, beside: str | None = None, refresh: bool = True) -> Any:
    """
    Loads the rows of `arguments.dataset` with their audio, not decoded, in the column `audio` (`bytes` and `path`, one
    of which may be None). torchcodec is not needed. `beside` is the name of another split, see [`find_split`];
    `refresh` is that of [`search_audio`]. Several datasets are joined, and the column `_corpus` has the number of that
    of each row.

    Returns:
        `datasets.Dataset`, or `datasets.IterableDataset` if `arguments.streaming` is set.

    Raises:
        [`UsageError`]: if there is no such folder or dataset.
        [`BeatsError`]: if there is no audio in it, or no column of the asked name.
    """
    parts = load_parts(arguments, beside, refresh)
    if len(parts) > 1 and not arguments.streaming:
        numbers = (np.full(len(part), number, dtype=np.int16) for number, part in enumerate(parts))
        parts = [part.add_column(CORPUS_COLUMN, column) for part, column in zip(parts, numbers)]
    return parts[0] if len(parts) == 1 else _join(parts, arguments.sources)


def load_parts(arguments: DataArguments, beside: str | None = None, refresh: bool = True) -> list[Any]:
    """
    Loads the rows of each of the datasets that `arguments.dataset` names; see [`load_audio_dataset`]. The `info` of a
    local stream has a digest of the names, sizes and times of its files as `description`.
    """
    sources = arguments.sources
    if not sources:
        raise UsageError("`dataset` is an empty list.")
    alone = replace(arguments, dataset_weights=None, dataset_temperature=None)
    return [_load_source(replace(alone, dataset=source), beside, refresh) for source in sources]


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
        dataset = add_file_states(_name_audio_column(dataset, audio_column, source), refresh)
        return _select_rows(dataset, arguments.select)
    folder = find_split(root, arguments.split, beside)
    path = folder or root
    # A table beside the folders of splits may name the files in them.
    table = find_table(path, audio_column) or find_table(root, audio_column)
    listed = None
    if folder is None:
        found = [] if table else [root] if root.is_file() else search_folder(root, SHARD_SUFFIXES)
    else:
        found, listed = search_audio(path, audio_column, table, refresh)
    digest = own = None
    if shards := _select_shards(found, root, folder, arguments.split):
        if shards[0].suffix.lower() == ".tar":
            stream, own = _stream_tar, METADATA_COLUMN
        else:
            stream = _stream_parquet
            check_parquet(shards)
        dataset = stream(shards) if arguments.streaming else load_shards(shards)
    elif folder is None:
        raise BeatsError(f"{root}: has no folder {arguments.split!r}, which the split of that name would be.")
    else:
        dataset = list_audio_files(path, audio_column, table, refresh) if listed is None else listed
        audio_column, own = "audio", FILE_STATE
        if table is None and refresh:
            check_nested_splits(path, one_of_each_folder(dataset.data.column(FILE_COLUMN)), arguments.split)
        if arguments.streaming:
            digest = dataset.info.description
            dataset = dataset.to_iterable_dataset(num_shards=min(MAX_FOLDER_SHARDS, len(dataset)))
    dataset = add_file_states(_name_audio_column(dataset, audio_column, source, own), refresh)
    dataset = _select_rows(dataset, arguments.select)
    if arguments.streaming:
        # Nothing else tells whether the files are those that an interrupted training has read.
        dataset.info.description = digest or Hasher.hash([(str(file), *read_state(file)) for file in shards])
    return dataset


def _stream_parquet(shards: list[Path]) -> datasets.IterableDataset:
    return datasets.load_dataset("parquet", data_files=[str(shard) for shard in shards], split="train", streaming=True)


def _stream_tar(shards: list[Path]) -> datasets.IterableDataset:
    gen_kwargs = {"shards": [str(shard) for shard in shards]}
    return datasets.IterableDataset.from_generator(read_tar_shards, features=TAR_FEATURES, gen_kwargs=gen_kwargs)


def _join(parts: list, sources: list[str]) -> Any:
    """Joins datasets; a column that one of them lacks is empty there."""
    try:
        if any(part.features["audio"] != parts[0].features["audio"] for part in parts):
            # Some have shards.
            parts = [part.cast_column("audio", SHARD_AUDIO) for part in parts]
        joined = datasets.concatenate_datasets(parts)
    except (ValueError, TypeError) as error:
        raise BeatsError(f"{name_some(sources)}: their columns differ: {first_line(error)}") from error
    if isinstance(joined, datasets.Dataset):
        keep_columns(joined, parts)
    return joined


def _select_shards(found: list[Path], root: Path, folder: Path | None, split: str) -> list[Path]:
    """
    Returns the shards of a split, of one kind: all in its folder; or those whose names tell that they are of it.

    Raises:
        [`BeatsError`]: if there are shards of another kind, or audio files, that would be left out; or if all shards
            are of other splits, and nothing else is there to train on.
    """
    of_kinds = [[path for path in found if path.suffix.lower() == suffix] for suffix in sorted(SHARD_SUFFIXES)]
    if folder is None or folder == root:
        of_kinds = [select_shards(root, shards, split) for shards in of_kinds]
    kinds = [shards for shards in of_kinds if shards]
    if not kinds:
        if found and folder is not None and not any(walk_folder(folder, AUDIO_SUFFIXES)):
            name = found[0].relative_to(root)
            raise BeatsError(
                f"{root}: holds {str(name)!r}, a shard of another split, but none to train on: give one the name "
                f"'train', or set `split: {ALL}` to take all of them."
            )
        return []
    others: Iterable[str | Path] = kinds[1] if len(kinds) > 1 else ()
    if not others and folder is not None and folder.is_dir():
        others = walk_folder(folder, AUDIO_SUFFIXES)
    if (other := next(iter(others), None)) is not None:
        raise BeatsError(
            f"{folder or root}: holds {kinds[0][0].name} and {Path(other).name}, and files of one kind are read from "
            "a folder: move audio files, Parquet files and tar shards apart, and give `dataset` as a list of them."
        )
    return kinds[0]


def _name_audio_column(dataset, name: str | None, source: str, own: str | None = None):
    """
    Returns the dataset with its audio in the column `audio`, not decoded, and without what may pass for a column that
    is made here, other than `own`.
    """
    features = dataset.features or {}
    if taken := [column for column in OWN_COLUMNS if column in features and column != own]:
        dataset = dataset.remove_columns(taken)
        features = dataset.features or {}
    candidates = [name for name, feature in features.items() if is_audio(feature)]
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
    is_stream = isinstance(dataset, datasets.IterableDataset)
    if select and not is_stream:
        # Clips are told apart by it, whatever is selected.
        dataset = dataset.add_column(ROW_COLUMN, np.arange(len(dataset)))
    for column, values in (select or {}).items():
        # What is beside the audio of a stream is known when it comes.
        known = [name for name in dataset.features if name not in OWN_COLUMNS] if is_stream else list_columns(dataset)
        if column not in known:
            beside = ""
            if is_stream and METADATA_COLUMN in dataset.features:
                beside = ": what is beside the audio in tar shards selects rows with `streaming: false`"
            raise BeatsError(f"`select` names the column {column!r}, but there are {', '.join(known)}{beside}.")
        feature = dataset.features.get(column)
        wanted = values if isinstance(values, list) else [values]
        is_wanted = partial(_is_in, wanted=wanted, feature=feature, beside=column if feature is None else None)
        dataset = dataset.filter(is_wanted, input_columns=METADATA_COLUMN if feature is None else column)
    return dataset


def _is_in(value: Any, wanted: list, feature: Any, beside: str | None = None) -> bool:
    """Returns whether a value is wanted; that of the column `beside` the audio, if `value` is all that is there."""
    value = name_classes(value if beside is None else read_metadata(value, beside), feature)
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


def large_text(values: Iterable[Any]) -> pa.Array:
    """Returns texts as an Arrow array, which may have more than 2 GiB."""
    return pa.array(list(map(str, values)), pa.large_string())


def number_rows(dataset: datasets.Dataset) -> tuple[np.ndarray, np.ndarray | None]:
    """
    Returns the number of each row in the dataset that it is from, from 0 on, before `select`, int64 `(num_rows,)`; and
    the number of that dataset, int16 `(num_rows,)`, or None if there is one.
    """
    corpora = read_arrow(dataset, CORPUS_COLUMN).to_numpy() if CORPUS_COLUMN in dataset.column_names else None
    if ROW_COLUMN in dataset.column_names:
        return read_arrow(dataset, ROW_COLUMN).to_numpy(), corpora
    rows = np.arange(len(dataset))
    return (rows, None) if corpora is None else (rows - np.searchsorted(corpora, corpora), corpora)


def _name_rows(rows: np.ndarray, corpora: np.ndarray | None, indices: np.ndarray) -> Iterator[str]:
    of_dataset = repeat(None) if corpora is None else map(int, corpora[indices])
    return map(name_row, map(int, rows[indices]), of_dataset)


def name_clips(dataset: datasets.Dataset, is_single: bool) -> pa.ChunkedArray:
    """
    Returns names of clips, `dog/1.wav` and `rain/1.wav`: those of the dataset, if it `is_single`, else paths below the
    folder that all have in common. Several may have the same; see [`tell_apart`].
    """
    if is_single and FILE_COLUMN in dataset.column_names:
        names = read_arrow(dataset, FILE_COLUMN)
        is_text = pa.types.is_string(names.type) or pa.types.is_large_string(names.type)
        names = names.cast(pa.large_string()) if is_text else pa.chunked_array([large_text(names.to_pylist())])
        if names.null_count == 0 and pc.min(pc.binary_length(names)).as_py() > 0:
            return names
    paths = pc.struct_field(read_arrow(dataset, "audio"), "path").cast(pa.large_string()).combine_chunks()
    is_missing = pc.fill_null(pc.equal(paths, ""), True)
    if pc.any(is_missing).as_py():
        missing = np.flatnonzero(is_missing.to_numpy(zero_copy_only=False))
        paths = pc.replace_with_mask(paths, is_missing, large_text(_name_rows(*number_rows(dataset), missing)))
    is_absolute = pc.starts_with(paths, "/")
    # All others lie between the first and the last.
    extremes = [os.path.dirname(pc.min(paths).as_py()), os.path.dirname(pc.max(paths).as_py())]
    common = os.path.commonpath(extremes) if pc.all(is_absolute).as_py() or not pc.any(is_absolute).as_py() else ""
    if common:
        prefix = os.path.join(common, "")
        if pc.all(pc.starts_with(paths, prefix)).as_py():
            paths = pc.utf8_slice_codeunits(paths, len(prefix))
        else:
            paths = large_text(os.path.relpath(path, common) for path in paths.to_pylist())
    return pa.chunked_array([paths])


def tell_apart(
    names: pa.ChunkedArray, digests: np.ndarray, rows: np.ndarray, corpora: np.ndarray | None = None
) -> pa.ChunkedArray:
    """
    Returns names of clips, in which those that different clips share begin with the row, by [`number_rows`], from 1
    on, `row 3/1.wav`: in Parquet and on the Hub, a path may be a name without its folder. Rows of one name and digest
    are one clip, which keeps one name, that of its first row.
    """
    encoded = names.combine_chunks().dictionary_encode()
    numbers = encoded.indices.to_numpy()
    if len(encoded.dictionary) == len(numbers):
        return names
    shared = np.flatnonzero(np.bincount(numbers)[numbers] > 1)
    different, digest_of = np.unique(digests[shared], return_inverse=True)
    pairs = numbers[shared].astype(np.int64) * len(different) + digest_of
    clips, first, clip_of = np.unique(pairs, return_index=True, return_inverse=True)
    is_ambiguous = np.bincount(clips // len(different))[numbers[shared]] > 1
    ambiguous, first_rows = shared[is_ambiguous], shared[first[clip_of]][is_ambiguous]
    # A row is a folder here, so that files of events, which may name the end of a path, say that it is one of several.
    folders = large_text(_name_rows(rows, corpora, first_rows))
    texts = pc.utf8_ltrim(names.take(pa.array(ambiguous)).combine_chunks(), "/")
    is_replaced = np.zeros(len(names), dtype=bool)
    is_replaced[ambiguous] = True
    new = pc.binary_join_element_wise(folders, texts, pa.scalar("/", pa.large_string()))
    return pc.replace_with_mask(names, pa.array(is_replaced), new)


def decode_row(row: dict[str, Any], sampling_rate: int, start: int = 0, num_samples: int | None = None) -> np.ndarray:
    """
    Returns the waveform of a row, or a part of it: decoded, or as [`prepare_clips`] has kept it.

    Raises:
        [`AudioError`]: if it cannot be decoded; the message names the file.
    """
    if row.get(WAVEFORM_COLUMN) is not None:
        stop = None if num_samples is None else start + num_samples
        return np.array(row[WAVEFORM_COLUMN][start:stop], dtype=np.float32)
    return read_samples(open_row(row, sampling_rate, start), num_samples)


def open_row(row: dict[str, Any], sampling_rate: int, start: int = 0) -> AudioStream:
    """
    Opens the audio of a row. Its warnings are in its report and not logged, as clips are read again and again.

    Raises:
        [`AudioError`]: if it cannot be opened; the message names the file.
    """
    audio = row["audio"] or {}
    source = audio.get("path")
    if (data := read_audio(audio)) is not None:
        source = NamedBytes(data, source or "audio")
    elif not source:
        raise AudioError("a row holds no audio.")
    elif os.path.exists(source) and not os.path.isfile(source):
        raise AudioError(f"{source}: is no file that can be read again, but a folder, a pipe or a device.")
    stream = stream_audio(source, sampling_rate, start)
    stream.report.is_logged = False
    return stream
