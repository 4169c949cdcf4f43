# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Normal and test clips of a command line: machine, domain and label of each, by its path."""

import os
from collections.abc import Collection, Sequence
from pathlib import Path, PurePath
from typing import NamedTuple

from transformers_beats.audio.files import AudioFile, place_of
from transformers_beats.audio.machines import SOURCE, TARGET
from transformers_beats.utils.errors import UsageError

from .dcase import read_names


# Folders that tell the label of what they hold, such as those of MIMII.
LABELS = {"normal": False, "anomaly": True, "anomalous": True, "abnormal": True}


class Role(NamedTuple):
    """
    A clip: its file; its machine, `""` if there is only one; its domain, or `""`; and whether it is anomalous, None
    where that is not known.
    """

    file: AudioFile
    machine: str = ""
    domain: str = ""
    is_anomalous: bool | None = None


def assign_normal(files: Sequence[AudioFile], target: Collection[AudioFile] = ()) -> list[Role]:
    """
    Returns the clips that a detector is fitted on: in the layout of DCASE those of `train`, else all files but those
    of a folder of anomalous ones.

    Args:
        files (`Sequence[AudioFile]`):
            The files.
        target (`Collection[AudioFile]`, defaults to `()`):
            Files of a target domain, which the others are then the source of.

    Raises:
        [`UsageError`]: if there is none, both the layout and `target` tell domains, also if `target` alone is of the
            layout, one of both domains has no clips, or only some names are of the layout, see [`read_names`].
    """
    clips = read_names([PurePath(file.address) for file in files])
    if clips is None and read_names([PurePath(file.address) for file in target]) is not None:
        # Test clips, among them anomalous ones, would count as normal.
        raise UsageError(
            "--target holds clips of DCASE's task 2, whose names tell machine and domain: name its folder as the "
            "input, without --target."
        )
    if clips is not None:
        if target:
            raise UsageError("The names of the files tell their domains: leave out --target.")
        return _checked(
            [
                Role(file, clip.machine, clip.domain, False)
                for file, clip in zip(files, clips)
                if clip is not None and clip.split == "train" and not clip.is_anomalous
            ],
            files,
        )
    places = {file.address for file in target}
    roles = [
        Role(file, domain=SOURCE if target else "")
        for file in files
        if not _label_of(file) and file.address not in places
    ]
    others = [Role(file, domain=TARGET) for file in target if not _label_of(file)]
    if target and not others:
        raise UsageError("--target holds no normal clips, but anomalous ones only.")
    if others and not roles:
        raise UsageError("--target holds all normal clips: name those of the other domain as inputs.")
    return _checked(roles + others, files)


def assign_tests(files: Sequence[AudioFile], named: Collection[Path] = ()) -> list[Role]:
    """
    Returns the clips that are scored: in the layout of DCASE those of `test` if there are any, and of `named`, else
    all files. Labels are those of the layout or, if all files lie in them, of folders `normal` and `abnormal`,
    `anomalous` or `anomaly`.

    Args:
        files (`Sequence[AudioFile]`):
            The files.
        named (`Collection[Path]`, defaults to `()`):
            Files that were named themselves, not the folders that they lie in.

    Raises:
        [`UsageError`]: if only some names are of the layout, see [`read_names`].
    """
    clips = read_names([PurePath(file.address) for file in files])
    if clips is not None:
        wanted = {place_of(path) for path in named}
        has_tests = any(clip is not None and clip.split == "test" for clip in clips)
        return [
            Role(file) if clip is None else Role(file, clip.machine, clip.domain, clip.is_anomalous)
            for file, clip in zip(files, clips)
            if place_of(file.full_name) in wanted or (clip is not None and (clip.split == "test" or not has_tests))
        ]
    labels = [_label_of(file) for file in files]
    are_known = None not in labels
    return [Role(file, is_anomalous=label if are_known else None) for file, label in zip(files, labels)]


def _label_of(file: AudioFile) -> bool | None:
    """Returns whether a file lies in a folder of anomalous clips; None if no folder tells."""
    if file.data is not None:
        return None
    # Of those below the folder that was named, and this one itself; what it lies in was named for another reason. The
    # nearest one counts.
    folders = PurePath(file.address).parent.parts[-len(Path(file.short_name).parts) :][::-1]
    return next((LABELS[name.lower()] for name in folders if name.lower() in LABELS), None)


def _checked(roles: list[Role], files: Sequence[AudioFile]) -> list[Role]:
    if not roles:
        folder = os.path.commonpath([os.path.dirname(file.address) for file in files])
        raise UsageError(f"{folder}: holds no normal clips to fit on, but test clips or anomalous ones only.")
    return roles


__all__ = ["Role", "assign_normal", "assign_tests"]
