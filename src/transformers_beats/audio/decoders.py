# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""
Decoding in other processes, in order, while the model computes.

File `i` is decoded by process `i % num_processes`, and the files of a process come through a pipe one after another,
so that nothing has to be sorted. A process is a few parts ahead of its reader and waits then: memory grows neither
with the number of files nor with their lengths.
"""

import multiprocessing
import os
import pickle
import queue
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import chain
from multiprocessing.connection import Connection, wait
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np

from transformers_beats.utils.errors import first_line

from .decoding import AudioStream
from .recordings import AudioError


T = TypeVar("T")
# Longest part of a recording that is sent at once, in seconds, and parts that a process is ahead: 15 MB at 16 kHz.
PART_SECONDS, PARTS_AHEAD = 30, 8
# Until a process that has been told to end is killed.
END_SECONDS = 5.0


class Part(NamedTuple):
    """
    Part of a recording: number of its file and of the part, samples `(num_samples,)`, and the stream without its
    blocks, whose report is that of all parts so far; or the error of reading further. `seconds` is the time that it
    took.
    """

    file: int
    number: int
    samples: np.ndarray
    stream: AudioStream | None
    error: Exception | None
    is_last: bool
    seconds: float


def _decode(file: int, item: Any, open_item: Callable[[Any], AudioStream]) -> Iterator[Part]:
    """Yields the parts of a recording; the last one has its error, if there is one."""
    begin, stream, held, number, error = time.perf_counter(), None, [], 0, None
    try:
        opened = open_item(item)
        stream = replace(opened, blocks=())
        size = PART_SECONDS * opened.sampling_rate
        for block in opened.blocks:
            held.append(block)
            if sum(map(len, held)) >= size:
                yield Part(file, number, np.concatenate(held), stream, None, False, time.perf_counter() - begin)
                begin, held, number = time.perf_counter(), [], number + 1
    except Exception as found:  # raised where the recording is read
        error = _as_sendable(found)
    samples = np.concatenate(held) if held else np.zeros(0, dtype=np.float32)
    yield Part(file, number, samples, stream, error, True, time.perf_counter() - begin)


def _as_sendable(error: Exception) -> Exception:
    """Returns an error, or one of the same message if it cannot be sent to another process."""
    try:
        return type(error)(*pickle.loads(pickle.dumps(error)).args)
    except Exception:  # whatever a class of another package raises
        return AudioError(first_line(error))


def _end_with_parent() -> None:
    """
    Ends this process once its parent has ended, however that was. A write would not fail then: where processes are
    forked, they hold copies of the reading ends of their pipes.
    """
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    _end_at_once()


def _end_at_once() -> None:
    """Ends this process, whatever it waits for."""
    os.kill(os.getpid(), getattr(signal, "SIGKILL", signal.SIGTERM))


def _run(
    output: Connection, items: Sequence[Any], numbers: range, open_item: Callable[[Any], AudioStream], is_ahead: bool
) -> None:
    """Sends the parts of all files of a process; with `is_ahead`, further ones are decoded meanwhile."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    parts = chain.from_iterable(_decode(number, items[number], open_item) for number in numbers)
    try:
        if not is_ahead:
            for part in parts:
                output.send(part)
            return
        waiting: queue.Queue[Part | None] = queue.Queue(PARTS_AHEAD)

        def send() -> None:
            try:
                while (part := waiting.get()) is not None:
                    output.send(part)
            except OSError:
                # The reader has gone, and with it all use of this process, whose queue is full.
                _end_at_once()

        sender = threading.Thread(target=send, daemon=True)
        sender.start()
        for part in chain(parts, [None]):
            waiting.put(part)
        sender.join()
    # The reader has gone, or Ctrl-C has ended both.
    except (OSError, KeyboardInterrupt):
        return


class _Process:
    """A process, the files that it decodes, and the first part that was not asked for yet."""

    def __init__(self, items: Sequence[Any], numbers: range, open_item: Callable[[Any], AudioStream], is_ahead: bool):
        self.numbers, self.is_ahead = numbers, is_ahead
        self.input, output = multiprocessing.Pipe(duplex=False)
        self.process = multiprocessing.Process(
            target=_run, args=(output, items, numbers, open_item, is_ahead), daemon=True
        )
        self.process.start()
        self.owner = os.getpid()
        # Else a process that was killed would leave its reader waiting.
        output.close()

    def close(self) -> None:
        """Ends the process, if this one has begun it."""
        # A forked process has copies of what its parent has begun, and may collect them.
        if os.getpid() != self.owner:
            return
        self.input.close()
        self.process.terminate()
        self.process.join(END_SECONDS)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()


class Decoders(Generic[T]):
    """
    Processes that decode files for this one, as a context. A file whose decoder crashes, or is killed for want of
    memory, has an [`AudioError`]; the others are decoded.

    Args:
        items (`Sequence`):
            The files, in the order in which they are opened.
        open_item (`Callable`):
            Opens one of them as an [`AudioStream`], in another process.
        num_processes (`int`):
            Number of processes, at least one.
    """

    def __init__(self, items: Sequence[T], open_item: Callable[[T], AudioStream], num_processes: int):
        self.items, self.open_item = items, open_item
        self.num_processes = min(num_processes, len(items))
        # Seconds that the processes took for what was read.
        self.seconds = 0.0
        self.next_number = 0
        self.processes: list[_Process] = []

    def __enter__(self) -> "Decoders[T]":
        for first in range(self.num_processes):
            numbers = range(first, len(self.items), self.num_processes)
            self.processes.append(_Process(self.items, numbers, self.open_item, is_ahead=True))
        return self

    def __exit__(self, *error: Any) -> None:
        for process in self.processes:
            process.close()

    def open_next(self) -> AudioStream:
        """
        Returns the next file as a stream. What is left of earlier ones of the same process is not read any more: their
        streams raise an error.

        Raises:
            `Exception`: that of opening the file.
        """
        number, self.next_number = self.next_number, self.next_number + 1
        first = self._receive(number, 0)
        if first.stream is None:
            assert first.error is not None
            raise first.error
        stream = first.stream
        return replace(stream, blocks=self._read(number, first, stream))

    def _read(self, number: int, part: Part, stream: AudioStream) -> Iterator[np.ndarray]:
        """Yields the blocks of a file; the report of its stream follows that of each part."""
        while True:
            if part.stream is not None:
                vars(stream.report).update(vars(part.stream.report) | {"is_logged": stream.report.is_logged})
            if len(part.samples):
                yield part.samples
            if part.error is not None:
                raise part.error
            if part.is_last:
                return
            if self.next_number > number + self.num_processes:
                raise AudioError(f"{stream.name}: was not read to its end before a later file was opened.")
            part = self._receive(number, part.number + 1)

    def _receive(self, file: int, number: int) -> Part:
        """Returns a part of a file; those before it, which nobody wants any more, are thrown away."""
        place = file % self.num_processes
        while True:
            process = self.processes[place]
            try:
                part = process.input.recv()
            except (EOFError, OSError):
                process.close()
                if process.is_ahead or process.numbers[0] != file:
                    # What was sent last may be lost: the file that crashes may be a later one. Now each file is sent
                    # before the next is begun.
                    numbers = range(file, len(self.items), self.num_processes)
                    self.processes[place] = _Process(self.items, numbers, self.open_item, is_ahead=False)
                    continue
                rest = range(file + self.num_processes, len(self.items), self.num_processes)
                self.processes[place] = _Process(self.items, rest, self.open_item, is_ahead=False)
                error = AudioError(f"its decoder crashed or was killed (exit code {process.process.exitcode}).")
                empty = np.zeros(0, dtype=np.float32)
                return Part(file, number, empty, None, error, True, 0.0)
            self.seconds += part.seconds
            if (part.file, part.number) == (file, number):
                return part


__all__ = ["Decoders"]
