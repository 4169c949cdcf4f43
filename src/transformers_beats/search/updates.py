# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Updates of an index: changes of folders since the last run, and parts that several processes have computed."""

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from transformers_beats.audio.files import AudioFile, place_of, remember_folders
from transformers_beats.utils.resume import check_settings

from .index import MANIFEST, Index, IndexWriter, State


# In the directory of the part of one of several processes: an index of what it has computed.
PART = "index"


class Listing:
    """
    Files of an update and their states, by their names in the index.

    Args:
        files (`Sequence[AudioFile]`):
            Files that were found.
        known (`Iterable[str]`):
            Names in the index. A file that is one of them keeps its name, also if it was reached on another way. Of
            two names of one file, the last counts.
    """

    def __init__(self, files: Sequence[AudioFile], known: Iterable[str]):
        self.real_path = remember_folders()
        self.known = {place_of(name, self.real_path): name for name in known}
        self.states = {self.name_of(file): State.of(file.full_name) for file in files}

    def name_of(self, file: AudioFile) -> str:
        """Returns the name of a file in the index."""
        return self.known.get(place_of(file.full_name, self.real_path), file.address) if self.known else file.address

    def changed(self, states: Mapping[str, State]) -> set[str]:
        """Returns the names of listed files which earlier had other states, of those that are in `states`."""
        return {name for name, state in self.states.items() if states.get(name, state) != state}

    def gone(self, words: Iterable[str]) -> set[str]:
        """Returns the known names of files that are gone from folders, as they were named on the command line."""
        folders = {place(word) for word in words for place in (os.path.abspath, os.path.realpath)}
        # A file that is there and not listed was once named itself, as its suffix is not that of audio.
        return {
            name
            for where, name in self.known.items()
            if name not in self.states
            and _is_gone(name)
            and not folders.isdisjoint(map(str, [*Path(name).parents, *Path(where).parents]))
        }


def _is_gone(name: str) -> bool:
    """Returns whether a file is not there. One that cannot be looked at, such as on a lost disk, may be there."""
    try:
        os.lstat(name)
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        return False
    return False


def open_parts(parts: Iterable[Path], settings: Mapping[str, Any]) -> list[Index]:
    """
    Opens the indices in the directories of ranks; those that have none yet are left out.

    Raises:
        [`UsageError`]: if one was begun with other settings.
    """
    found = [Index(part / PART) for part in parts if (part / PART / MANIFEST).exists()]
    for index in found:
        check_settings(index.settings, settings, index.directory)
    return found


def join_parts(
    writer: IndexWriter,
    parts: Sequence[Index],
    files: Sequence[AudioFile],
    words: Iterable[str],
    count_left: Callable[[Callable[[AudioFile], bool]], int | None],
) -> tuple[int, str] | None:
    """
    Adds the recordings of all parts to an index, in the order of the files, and removes those that are gone.

    Args:
        writer ([`IndexWriter`]):
            The index.
        parts (`Sequence[Index]`):
            Parts of ranks. A recording that is in several of them, or in the index already since an earlier join was
            killed, is added once.
        files (`Sequence[AudioFile]`):
            Files of all ranks.
        words (`Iterable[str]`):
            Files and folders of the command line.
        count_left (`Callable`):
            Returns how many files have no result, and None if one of them was not tried; called with a function that
            returns whether a file has one.

    Returns:
        `tuple[int, str]`, *optional*: the number of files that have no result, and a text with the numbers of all
        changes; None if a file was not tried: nothing is changed then.
    """
    states = [part.states() for part in parts]
    listing = Listing(files, [*(name for found in states for name in found), *writer.states])
    source: dict[str, tuple[Index, State]] = {}
    for part, found in zip(parts, states):
        for name, state in found.items():
            if writer.states.get(name) == state:
                continue
            # A file that changes while it is computed has the state of its listing, and is computed again next time.
            if name not in source or _is_better(state, source[name][1], listing.states.get(name)):
                source[name] = (part, state)

    def has_result(file: AudioFile) -> bool:
        name = listing.name_of(file)
        return name in source or writer.states.get(name) == listing.states[name]

    num_left = count_left(has_result)
    if num_left is None:
        return None
    changed = listing.changed(writer.states)
    gone = listing.gone(words) & writer.states.keys()
    writer.remove(changed | gone)
    added: set[str] = set()
    for name in listing.states:
        if name in source and name not in writer.states:
            part, state = source[name]
            writer.add(name, state, part.entries(name))
            added.add(name)
    return num_left, describe_changes(changed, gone, added)


def _is_better(state: State, other: State, current: State | None) -> bool:
    """Returns whether a state is that of the file now or, if none of two is, the later one."""
    return other != current and (state == current or state.mtime_ns > other.mtime_ns)


def describe_changes(changed: set[str], gone: set[str], added: set[str]) -> str:
    """Returns the numbers of files that were added, computed anew and removed."""
    num_removed = len(gone) + len(changed - added)
    return f"{len(added - changed)} added, {len(added & changed)} updated, {num_removed} removed"


__all__ = ["Listing", "describe_changes", "join_parts", "open_parts"]
