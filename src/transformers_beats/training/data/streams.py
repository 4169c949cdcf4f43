# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Streams of clips: shared by processes and their workers, shuffled, and continued where they were."""

import itertools
import os
from collections.abc import Callable, Iterator, Sequence
from copy import copy
from functools import partial
from typing import Any, NamedTuple

import datasets
import fsspec.asyn
import numpy as np
import torch
from datasets.fingerprint import Hasher
from torch.utils.data import DataLoader, IterableDataset, get_worker_info
from transformers.utils import logging

from transformers_beats.audio.decoding import AudioError, read_samples
from transformers_beats.utils.errors import BeatsError, first_line

from .crops import crop
from .reading import Losses, ReadTimeoutError, attempt, within
from .shards import read_audio
from .sources import DataArguments, open_row


logger = logging.get_logger(__name__)

# Epochs in a row in which a reader found rows and could use none of them, and in which it had no row at all, as it may
# happen if there are fewer rows than readers.
MAX_USELESS_EPOCHS, MAX_EMPTY_EPOCHS = 10, 1000
READ_BYTES = 1 << 20


class Place(NamedTuple):
    """
    Place in the endless sequence of rows of a reader: the epoch; where the block that is given out begins, as the
    number of a shard among those of the reader and a row of that shard; and how many rows of the block were given out.
    """

    epoch: int = 0
    shard: int = 0
    row: int = 0
    given: int = 0


class Entry(NamedTuple):
    """Row of a stream, and where it stands: epoch, number of the shard among the reader's, row in it, and shard."""

    epoch: int
    number: int
    row: int
    shard: int
    content: dict[str, Any]

    @property
    def place(self) -> tuple[int, int, int]:
        """Beginning of a block that begins with this row."""
        return self.epoch, self.number, self.row


class Corpus:
    """
    Shards of streamed datasets.

    Args:
        parts (`Sequence[datasets.IterableDataset]`):
            Datasets with a column `audio`; see [`load_audio_dataset`].
        arguments ([`DataArguments`]):
            With `read_attempts` and `read_seconds`, those of reading a row.
    """

    def __init__(self, parts: Sequence[datasets.IterableDataset], arguments: DataArguments):
        self.arguments = arguments
        parts = [part.select_columns("audio") for part in parts]
        self.shards = [(part, index) for part in parts for index in range(part.num_shards)]

    def rows(self, shard: int) -> Iterator[dict[str, Any]]:
        """
        Yields the rows of a shard, not decoded. For another attempt to read a row, the shard is opened again.

        Raises:
            [`BeatsError`]: if no attempt to read the next row succeeds.
        """
        dataset, index = self.shards[shard]
        opened: list[Iterator[dict[str, list]]] = []

        def open_at(number: int) -> None:
            # Not the iterator of a dataset, which in a worker of a `DataLoader` gives a part of the shards only.
            batches = dataset.shard(dataset.num_shards, index).iter(batch_size=1)
            for _ in range(number):
                within(self.arguments.read_seconds, next, batches, None)
            opened.append(batches)

        def read_row() -> tuple[Iterator[dict[str, list]], dict[str, list] | None]:
            # Taken out: an attempt that does not end still holds the rows that it reads.
            batches = opened.pop()
            return batches, next(batches, None)

        open_at(0)
        for number in itertools.count():
            try:
                batches, batch = attempt(self.arguments, read_row, prepare=partial(open_at, number))
            except OSError as error:
                is_slow = isinstance(error, ReadTimeoutError)
                problem = (
                    f"{error} (`read_seconds`), with the rows before it that `select` leaves out"
                    if is_slow
                    else f"cannot be read: {first_line(error)}"
                )
                raise BeatsError(
                    f"Row {number + 1} of shard {index + 1} of {dataset.num_shards} {problem}: give the command "
                    f"again, which goes on from the last checkpoint{', or a longer time' if is_slow else ''}."
                ) from error
            if batch is None:
                return
            opened.append(batches)
            yield {name: values[0] for name, values in batch.items()}


def can_be_read(row: dict[str, Any]) -> bool:
    """Returns whether the encoded audio of a row can be read to its end: if not, that may pass."""
    audio = row["audio"] or {}
    path = audio.get("path")
    try:
        if read_audio(audio) is not None or not path:
            return True
        # A pipe is not opened.
        if not os.path.isfile(path):
            return False
        with open(path, "rb") as file:
            while file.read(READ_BYTES):
                pass
    except (AudioError, OSError):
        return False
    return True


def share_shards(num_shards: int, reader: int, num_readers: int, seed: Sequence[int]) -> list[tuple[int, int, int]]:
    """
    Shares out the shards of an epoch. Their order, and the readers', are drawn anew by `seed`, so that shards of
    unequal size even out. As many shards as the readers have equal numbers of are read by one reader each; each of the
    rest is read by several, which take their rows in turn.

    Returns:
        `list[tuple[int, int, int]]`: the shards of this reader, in its order, each with the first of its rows and the
        step from one of its rows to the next. The shares of all readers together are all rows, each once.
    """
    generator = np.random.default_rng(seed)
    order = generator.permutation(num_shards).tolist()
    position = int(generator.permutation(num_readers)[reader])
    num_whole = num_shards // num_readers * num_readers
    shares = [(shard, 0, 1) for shard in order[position:num_whole:num_readers]]
    if rest := order[num_whole:]:
        number = position % len(rest)
        step = len(range(number, num_readers, len(rest)))
        shares.append((rest[number], position // len(rest), step))
    return shares


class ShardReader:
    """
    Rows of one reader, epoch after epoch, shuffled in blocks of `block_size` rows. One row is read for each that is
    given out, so that at most a block is in memory. Every reader goes on to its next epoch by itself: none waits for
    another, and each row is given out once in each epoch.

    Args:
        corpus ([`Corpus`]):
            The shards of all readers.
        reader, num_readers (`int`):
            Number of this reader, from 0, and of all.
        seed (`Sequence[int]`):
            Seed of the order.
        block_size (`int`):
            Rows that are shuffled together.
    """

    def __init__(self, corpus: Corpus, reader: int, num_readers: int, seed: Sequence[int], block_size: int):
        self.corpus, self.reader, self.num_readers = corpus, reader, num_readers
        self.seed, self.block_size = [*seed], block_size

    def read(self, start: Place) -> Iterator[tuple[Entry | None, Place]]:
        """
        Yields rows from `start` on, each with the place after it; None at the end of an epoch. Shards before `start`
        are not opened, and rows before it are not given out.
        """
        entries, given = self._entries(start), start.given
        block, is_last = self._fill(entries, [])
        while True:
            following: list[Entry] = []
            is_complete = follows_last = False
            # Rows that were given out are let go.
            waiting = dict(enumerate(block))
            place = Place(*block[0].place) if block else start
            order = np.random.default_rng([*self.seed, self.reader, *place]).permutation(len(block)).tolist()
            block = []
            for count, index in enumerate(order, start=1):
                if not is_complete:
                    is_complete, follows_last = self._take(entries, following)
                entry = waiting.pop(index)
                if count > given:
                    yield entry, place._replace(given=count)
            if is_last:
                yield None, place
            given = 0
            if not is_complete:
                following, follows_last = self._fill(entries, following)
            block, is_last = following, follows_last

    def _fill(self, entries: Iterator[Entry | None], block: list[Entry]) -> tuple[list[Entry], bool]:
        """Reads the rest of a block; returns it, and whether it is the last of its epoch."""
        is_complete = is_last = False
        while not is_complete:
            is_complete, is_last = self._take(entries, block)
        return block, is_last

    def _take(self, entries: Iterator[Entry | None], block: list[Entry]) -> tuple[bool, bool]:
        """Reads a row into a block; returns whether it is complete, and whether it is the last of its epoch."""
        entry = next(entries)
        if entry is not None:
            block.append(entry)
        return entry is None or len(block) == self.block_size, entry is None

    def _entries(self, start: Place) -> Iterator[Entry | None]:
        """Yields the rows of this reader from the beginning of the block of a place on, and None after each epoch."""
        first_shard, first_row = start.shard, start.row
        for epoch in itertools.count(start.epoch):
            shares = share_shards(len(self.corpus.shards), self.reader, self.num_readers, [*self.seed, epoch])
            for number, (shard, first, step) in enumerate(shares[first_shard:], start=first_shard):
                for row, content in enumerate(self.corpus.rows(shard)):
                    if row >= first_row and row % step == first:
                        yield Entry(epoch, number, row, shard, content)
                first_row = 0
            first_shard = 0
            yield None


class StreamingCrops(IterableDataset):
    """
    Crops of clips as they come, epoch after epoch without an end; `num_crops` of each clip, or one, at another place
    in every epoch. Processes, and the workers of their `DataLoader`s, share the shards; each clip is read once in each
    epoch. Clips that cannot be read are skipped and counted, see [`Losses`]; `num_skipped` also counts those that are
    too short. A clip that is skipped in several epochs counts in each.

    An item has `waveform` `(num_samples,)`, float32, and `position`: where its reader is after it, as [`StreamLoader`]
    keeps it.

    Args:
        parts (`Sequence[datasets.IterableDataset]`):
            Streamed datasets; see [`load_audio_dataset`].
        arguments ([`DataArguments`]):
            With `dataset_weights`, the next clip is of a dataset that is drawn in these shares, and each has epochs
            of its own.
        sampling_rate (`int`, defaults to 16000):
            Rate of the crops in hertz.
        num_processes, process_index (`int`, defaults to 1 and 0):
            All processes of the training, and the number of this one.
    """

    def __init__(
        self,
        parts: Sequence[datasets.IterableDataset],
        arguments: DataArguments,
        sampling_rate: int = 16000,
        num_processes: int = 1,
        process_index: int = 0,
    ):
        self.arguments, self.sampling_rate = arguments, sampling_rate
        self.num_processes, self.process_index = num_processes, process_index
        weights = arguments.dataset_weights
        groups = [parts] if weights is None else [[part] for part in parts]
        self.corpora = [Corpus(group, arguments) for group in groups]
        self.shares = None if weights is None else np.array(weights) / sum(weights)
        # Changes with the names, sizes and times of local files.
        self.fingerprint = Hasher.hash([part.info.description for part in parts])
        self.num_samples = round(arguments.crop_seconds * sampling_rate)
        self.num_short = 0
        self.losses = Losses(
            arguments,
            "clips that a reader of the stream asked for cannot be read",
            "A clip of the stream is lost",
            advice=" A larger `max_lost_share` leaves more of them out.",
        )
        # Paths of clips that were lost: for these there are no pauses again.
        self.waited_for: set[str] = set()
        # Positions of the readers of this process, and the reader that is the first worker.
        self.positions: list[dict[str, Any] | None] = [None]
        self.first_reader = 0

    @property
    def description(self) -> str:
        """Number of the shards and a digest of the files: what is in a stream is known at its end only."""
        return f"{sum(len(corpus.shards) for corpus in self.corpora):,} shards, digest {self.fingerprint}"

    @property
    def num_skipped(self) -> int:
        """Number of clips that this process has asked for and not used."""
        return self.losses.num_lost + self.num_short

    def __iter__(self) -> Iterator[dict[str, Any]]:
        worker, number, num_readers = get_worker_info(), self.first_reader, 1
        if worker is not None:
            # As `datasets` does in workers: locks of another process would never open.
            fsspec.asyn.reset_lock()
            number, num_readers = (worker.id + self.first_reader) % worker.num_workers, worker.num_workers
        position = self.positions[number] if number < len(self.positions) else None
        reader = self.process_index * num_readers + number
        return self.read(reader, self.num_processes * num_readers, position)

    def read(self, reader: int, num_readers: int, position: dict[str, Any] | None = None) -> Iterator[dict[str, Any]]:
        """
        Yields the items of one reader from a position on.

        Raises:
            [`BeatsError`]: if it finds no clip that can be used, epoch after epoch, or loses too many; see [`Losses`].
        """
        position = position or {"drawn": 0, "crops": 0, "places": [Place() for _ in self.corpora]}
        places = [Place(*place) for place in position["places"]]
        sources = [self._entries(number, reader, num_readers, place) for number, place in enumerate(places)]
        num_crops, first_crop = self.arguments.num_crops or 1, position["crops"]
        for drawn in itertools.count(position["drawn"]):
            number = self._draw(reader, drawn)
            before = list(places)
            entry, waveform, places[number] = next(sources[number])
            after = {"drawn": drawn + 1, "crops": 0, "places": list(places)}
            generator = np.random.default_rng([self.arguments.crop_seed, number, entry.epoch, entry.shard, entry.row])
            for count in range(1, num_crops + 1):
                part = crop(waveform, self.num_samples, generator)
                if count > first_crop:
                    unfinished = {"drawn": drawn, "crops": count, "places": before}
                    yield {"waveform": part, "position": after if count == num_crops else unfinished}
            first_crop = 0

    def _draw(self, reader: int, drawn: int) -> int:
        """Draws the dataset of the next clip of a reader that has given out `drawn` clips."""
        if self.shares is None:
            return 0
        generator = np.random.default_rng([self.arguments.crop_seed, reader, drawn])
        return int(generator.choice(len(self.shares), p=self.shares))

    def _entries(self, number: int, reader: int, num_readers: int, start: Place):
        """Yields the rows of a corpus that can be decoded, their waveforms, and the places after them."""
        seed = [self.arguments.crop_seed, number]
        rows = ShardReader(self.corpora[number], reader, num_readers, seed, self.arguments.shuffle_buffer_size)
        num_rows = num_used = num_useless = num_empty = 0
        for entry, place in rows.read(start):
            if entry is not None:
                num_rows += 1
                if (waveform := self._decode(entry.content)) is not None:
                    num_used += 1
                    yield entry, waveform, place
                continue
            num_empty = 0 if num_rows else num_empty + 1
            num_useless = 0 if num_used or not num_rows else num_useless + 1
            if num_useless == MAX_USELESS_EPOCHS or num_empty == MAX_EMPTY_EPOCHS:
                found = f"none of {num_rows} clips can be used" if num_rows else "there is no clip"
                raise BeatsError(f"{self.arguments.dataset}: {found} in a reader's share of the stream.")
            num_rows = num_used = 0

    def _decode(self, row: dict[str, Any]) -> np.ndarray | None:
        """Returns the waveform of a row; None, with a warning, if it cannot be used."""
        path = (row["audio"] or {}).get("path") or "audio"

        def read() -> np.ndarray:
            stream = open_row(row, self.sampling_rate)
            # Nothing has checked the clips before.
            stream.report.is_logged = True
            return read_samples(stream)

        def pauses_after() -> bool:
            # Audio that can be read and not decoded is damaged, which no pause changes, nor did the pauses before.
            try:
                return path not in self.waited_for and not within(self.arguments.read_seconds, can_be_read, row)
            except ReadTimeoutError:
                return True

        self.losses.num_asked += 1
        waveform = self.losses.read(read, lambda: path, pauses_after)
        if waveform is None:
            self.waited_for.add(path)
        if waveform is not None and len(waveform) < (min_seconds := self.arguments.min_seconds) * self.sampling_rate:
            # As of other datasets, it is no loss.
            self.num_short += 1
            seconds = len(waveform) / self.sampling_rate
            logger.warning(
                f"Skipped, {self.num_short} so far: {path}: lasts {seconds:.3f} s, less than `min_seconds` "
                f"({min_seconds:g})."
            )
            return None
        return waveform


class StreamLoader:
    """
    Batches of a stream for one process, without an end, and the positions of its readers after the last batch. All
    processes have as many batches as they ask for, so none waits for another at the end of an epoch.

    Args:
        crops ([`StreamingCrops`]):
            The stream.
        batch_size (`int`):
            Items of a batch, which all come from one reader.
        collate (`Callable`):
            Makes a batch of items.
        num_workers (`int`, defaults to 0):
            Workers, each a reader; with 0, this process is the only reader.
        state (`dict`, *optional*):
            What [`StreamLoader.state`] has returned, to go on from there.
        options (`Any`, *optional*):
            Other arguments of `DataLoader`.
    """

    def __init__(
        self,
        crops: StreamingCrops,
        batch_size: int,
        collate: Callable[[list[dict[str, Any]]], Any],
        num_workers: int = 0,
        state: dict[str, Any] | None = None,
        **options: Any,
    ):
        self.dataset, self.batch_size, self.collate = crops, batch_size, collate
        self.num_workers, self.options = num_workers, options
        self.num_batches = state["num_batches"] if state else 0
        self.positions = state["positions"] if state else [None] * max(1, num_workers)
        num_readers = crops.num_processes * len(self.positions)
        for corpus in crops.corpora:
            if len(corpus.shards) < num_readers and crops.process_index == 0:
                logger.warning(
                    f"A stream of {len(corpus.shards)} shards has {num_readers} readers (workers of all processes): "
                    "some shards are read by several, and each decodes its part of the clips. More shards, or fewer "
                    "`dataloader_num_workers`, read less."
                )

    def __iter__(self) -> Iterator[Any]:
        crops = copy(self.dataset)
        # The first batch comes from the first worker, which therefore is the reader whose turn it is.
        crops.positions, crops.first_reader = list(self.positions), self.num_batches % len(self.positions)
        loader = DataLoader(
            crops,
            batch_size=self.batch_size,
            collate_fn=partial(_collate, self.collate),
            num_workers=self.num_workers,
            # The seeds of workers are not drawn from the numbers of the training, which may be continued here.
            generator=torch.Generator(),
            **self.options,
        )
        for batch, position in loader:
            self.positions[self.num_batches % len(self.positions)] = position
            self.num_batches += 1
            yield batch

    @property
    def epoch(self) -> float:
        """Mean of the epochs that the readers of this process are in, from 0."""
        places = [place for position in filter(None, self.positions) for place in position["places"]]
        return sum(place[0] for place in places) / len(places) if places else 0.0

    def state(self) -> dict[str, Any]:
        """Returns the number of batches so far and the positions of the readers after them."""
        return {"num_batches": self.num_batches, "positions": list(self.positions)}


def _collate(collate: Callable[[list[dict[str, Any]]], Any], items: list[dict[str, Any]]) -> tuple[Any, dict]:
    """Makes a batch of items, and adds the position after the last one."""
    return collate(items), items[-1]["position"]
