# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Messages about a recording while it is decoded: from Python's logger, and from C libraries on stderr."""

import os
import re
import sys
import tempfile
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cache, partial
from typing import IO, TYPE_CHECKING

from transformers_beats.audio.files import AudioFile
from transformers_beats.utils.errors import one_line


if TYPE_CHECKING:
    import numpy as np

    from transformers_beats.audio.decoding import AudioStream


STDERR = 2
# Different notes that are shown of a file. Damaged MP3 frames have one each.
MAX_NOTES = 3
# Place in the library's source, as mpg123 prints it.
SOURCE_PLACE = re.compile(r"^\[[^\]]*\]\s*")


class DecoderNotes:
    """
    Catches what is written to file descriptor 2 while files are decoded, and adds it to the warnings about the file.

    Args:
        caught (file, *optional*):
            File that takes the place of stderr meanwhile; without one, nothing is caught.
    """

    def __init__(self, caught: IO[bytes] | None = None):
        self.caught = caught

    def open(self, file: AudioFile, sampling_rate: int) -> "AudioStream":
        """Opens a file as a stream; what its decoder notes is in the stream's report once the stream is read."""
        from transformers_beats.audio.decoding import open_audio

        notes: dict[str, None] = {}
        with self._catch(notes):
            stream = open_audio(file.open(), sampling_rate)
        # The command prints them, above its progress bar.
        stream.report.is_logged = False
        return replace(stream, blocks=self._read(stream, notes))

    def _read(self, stream: "AudioStream", notes: dict[str, None]) -> Iterator["np.ndarray"]:
        blocks = iter(stream.blocks)
        try:
            while True:
                with self._catch(notes):
                    block = next(blocks, None)
                if block is None:
                    return
                yield block
        finally:
            shown = list(notes)[:MAX_NOTES]
            more = f" (and {len(notes) - MAX_NOTES} other notes)" if len(notes) > MAX_NOTES else ""
            if shown:
                stream.report.warnings.append(f"its decoder says: {'; '.join(shown)}{more}")

    def in_other_process(self, sampling_rate: int) -> "Callable[[AudioFile], AudioStream]":
        """Returns a function that opens files as [`~DecoderNotes.open`] does, in a process that is not this one."""
        return partial(_open_in_process, sampling_rate=sampling_rate, catches=self.caught is not None)

    @contextmanager
    def _catch(self, notes: dict[str, None]) -> Generator[None, None, None]:
        if self.caught is None:
            yield
            return
        self.caught.seek(0)
        self.caught.truncate()
        terminal = os.dup(STDERR)
        os.dup2(self.caught.fileno(), STDERR)
        try:
            yield
        finally:
            os.dup2(terminal, STDERR)
            os.close(terminal)
            self.caught.seek(0)
            lines = self.caught.read().decode(errors="replace").splitlines()
            notes.update((SOURCE_PLACE.sub("", one_line(line)), None) for line in lines if line.strip())


@cache
def _notes_of_process(catches: bool) -> DecoderNotes:
    """Returns the notes of this process, which has a file of its own for what it catches."""
    return DecoderNotes(tempfile.TemporaryFile() if catches else None)  # as long as the process


def _open_in_process(file: AudioFile, sampling_rate: int, catches: bool) -> "AudioStream":
    return _notes_of_process(catches).open(file, sampling_rate)


@contextmanager
def decoder_notes() -> Generator[DecoderNotes, None, None]:
    """
    Gives `sys.stderr` a descriptor of its own, so that Python's messages are printed while those of C libraries are
    caught. To be entered before libraries are imported whose loggers keep the `sys.stderr` that they find. Nothing is
    caught if `sys.stderr` is no file of the system, as in tests.
    """
    original = sys.stderr
    try:
        is_standard = original.fileno() == STDERR
    except (AttributeError, OSError, ValueError):
        is_standard = False
    if not is_standard:
        yield DecoderNotes()
        return
    original.flush()
    # Not closed: loggers keep it.
    sys.stderr = open(  # noqa: SIM115
        os.dup(STDERR), "w", encoding=original.encoding, errors=original.errors, buffering=1
    )
    try:
        with tempfile.TemporaryFile() as caught:
            yield DecoderNotes(caught)
    finally:
        sys.stderr.flush()
        sys.stderr = original
