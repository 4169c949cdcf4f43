# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Logits of a teacher for moments of clips, in HDF5, as PretrainedSED publishes those of an ensemble."""

import importlib
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.special import expit
from transformers.utils import logging

from transformers_beats.audio.event_rows import Recordings, Row
from transformers_beats.utils.errors import BeatsError, first_line, install_command


logger = logging.get_logger(__name__)

FILENAMES, LOGITS = "filenames", "strong_logits"
# Columns and steps begin at the same time if they are no further apart, as a share of a step.
TOLERANCE = 1e-3


class EventLogits:
    """
    Scores of a teacher for the moments of clips.

    Args:
        path (`str`):
            HDF5 with `filenames` `(num_files,)`, text, and `strong_logits` `(num_files, num_labels, num_steps)`.
        names (`Sequence[str]`):
            Names of the clips, by which files are found as those of `event_files` are.
        num_labels (`int`):
            Number of classes, which are in the order of the model's.
        column_seconds (`float`):
            Time from one score of the model to the next.
        step_seconds (`float`):
            That of the teacher.

    Raises:
        [`BeatsError`]: if h5py is not installed, the file cannot be read or has other shapes, or no clip is in it.
    """

    def __init__(self, path: str, names: Sequence[str], num_labels: int, column_seconds: float, step_seconds: float):
        self.path, self.column_seconds, self.step_seconds = path, column_seconds, step_seconds
        self.num_labels = num_labels
        self._file: Any = None
        self._process = 0
        # Not kept: processes of a loader that are forked from this one would share its place in the file.
        with self._open() as file:
            if missing := [name for name in (FILENAMES, LOGITS) if name not in file]:
                raise BeatsError(f"`event_logits`: {path} has no {' and no '.join(missing)}, only {', '.join(file)}.")
            shape, num_files = file[LOGITS].shape, len(file[FILENAMES])
            if len(shape) != 3 or shape[:2] != (num_files, num_labels):
                raise BeatsError(
                    f"`event_logits`: {path} has logits of {shape}, where {(num_files, num_labels)} and the steps are "
                    "needed: the classes must be those of the model, such as of `label_set: audioset_strong`."
                )
            filenames = file[FILENAMES][:]
        recordings = Recordings(names)
        found: dict[int, int] = {}
        for row, name in enumerate(filenames):
            text = name.decode("utf-8") if isinstance(name, bytes) else str(name)
            clip = recordings.find(Row(f"{path}, file {row + 1}", text, named_by="segment"))
            if clip is not None:
                found[clip] = row
        # Clips of one name are one recording.
        self.row_of = {clip: found[number] for clip, number in enumerate(recordings.numbers) if number in found}
        if not self.row_of:
            raise BeatsError(f"`event_logits`: {path} has none of the clips, such as {names[0]!r}.")
        if len(self.row_of) < len(names):
            logger.warning(f"`event_logits` has {len(self.row_of)} of {len(names)} clips: others have labels only.")

    def open(self) -> Any:
        """Returns the file, which each process opens once."""
        if self._file is None or self._process != os.getpid():
            self._file, self._process = self._open(), os.getpid()
        return self._file

    def _open(self) -> Any:
        try:
            library = importlib.import_module("h5py")
        except ImportError as error:
            raise BeatsError(f"`event_logits` needs h5py: {install_command('strong')}") from error
        try:
            return library.File(self.path, "r")
        except OSError as error:
            raise BeatsError(f"`event_logits`: {self.path} cannot be read: {first_line(error)}.") from error

    def __getstate__(self) -> dict[str, Any]:
        # No open file can be sent to another process.
        return self.__dict__ | {"_file": None}

    def scores(self, clip: int, begin_seconds: float, num_columns: int) -> np.ndarray:
        """
        Returns scores `(num_columns, num_labels)`, float32, of columns from a time on: means over the teacher's steps
        in each. NaN for a clip that is not in the file, and after its last step.
        """
        found = np.full((num_columns, self.num_labels), np.nan, dtype=np.float32)
        row = self.row_of.get(clip)
        if row is None:
            return found
        steps = expit(np.asarray(self.open()[LOGITS][row], dtype=np.float32)).T
        for column in range(num_columns):
            begin = (begin_seconds + column * self.column_seconds) / self.step_seconds
            end = begin + self.column_seconds / self.step_seconds
            inside = steps[int(np.floor(begin + TOLERANCE)) : int(np.ceil(end - TOLERANCE))]
            if len(inside):
                found[column] = inside.mean(axis=0)
        return found
