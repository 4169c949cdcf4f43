# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Joins of indices that several processes have made; the command itself is tried in `tests/cli/test_ranks.py`."""

import os

import numpy as np
import pytest

from transformers_beats.audio.files import find_audio
from transformers_beats.search import index as index_module
from transformers_beats.search.index import Entry, Index, IndexWriter, State
from transformers_beats.search.updates import Listing, join_parts, open_parts
from transformers_beats.utils.errors import UsageError


SETTINGS = {"model": "0123"}
LATER = 10**10


def write(directory, *files: tuple[str, State, int], settings=SETTINGS) -> None:
    """Writes an index of files with their states and numbers of rows; all values of a vector are the file's size."""
    with IndexWriter(directory, settings, "model") as writer:
        for name, state, count in files:
            vector = np.full(4, state.size, np.float32)
            writer.add(name, state, [Entry(float(row), row + 1.0, vector) for row in range(count)])


def join(whole, root, folder, has_all: bool = True):
    """Joins the parts below a directory to an index; `has_all` is false if a file was not tried."""
    files = find_audio([folder])
    with IndexWriter(whole, SETTINGS, "model") as writer:
        parts = open_parts(sorted(root.glob("rank-*")), SETTINGS)
        return join_parts(
            writer, parts, files, [str(folder)], lambda has_result: sum(map(has_result, files)) if has_all else None
        )


@pytest.fixture
def folder(tmp_path):
    """Three files of 1, 2 and 3 bytes."""
    folder = tmp_path / "in"
    folder.mkdir()
    for size in (1, 2, 3):
        (folder / f"{size}.wav").write_bytes(bytes(size))
    return folder


def test_a_recording_of_two_parts_is_added_once_as_it_is_now(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(index_module, "SHARD_ROWS", 3)
    names = [str(folder / f"{size}.wav") for size in (1, 2, 3)]
    now = [State.of(name) for name in names]
    later = [State(90 + number, state.mtime_ns + LATER) for number, state in enumerate(now)]
    earlier = [State(80 + number, state.mtime_ns - LATER) for number, state in enumerate(now)]
    # The second has changed while it was computed, and the later result counts; the third is in the index already.
    write(tmp_path / "whole", (names[2], now[2], 2))
    write(tmp_path / "parts" / "rank-0" / "index", (names[1], earlier[1], 7), (names[0], now[0], 5))
    write(tmp_path / "parts" / "rank-1" / "index", (names[0], later[0], 1), (names[1], later[1], 4))
    write(tmp_path / "parts" / "rank-2" / "index", (names[2], now[2], 2))
    assert join(tmp_path / "whole", tmp_path / "parts", folder, has_all=False) is None
    assert Index(tmp_path / "whole").states() == {names[2]: now[2]}
    assert join(tmp_path / "whole", tmp_path / "parts", folder) == (3, "2 added, 0 updated, 0 removed")
    index = Index(tmp_path / "whole")
    assert index.states() == {names[2]: now[2], names[0]: now[0], names[1]: later[1]}
    found = {name: [*index.entries(name)] for name in names}
    assert [len(entries) for entries in found.values()] == [5, 4, 2]
    for entries, size in zip(found.values(), (1, 91, 3)):
        assert [entry.start for entry in entries] == [float(row) for row in range(len(entries))]
        assert {value for entry in entries for value in entry.vector} == {size}


def test_parts_of_other_settings_are_refused(tmp_path):
    write(tmp_path / "rank-0" / "index", settings={"model": "4567"})
    (tmp_path / "rank-1").mkdir()
    with pytest.raises(UsageError, match="was begun with another `model`"):
        open_parts([tmp_path / "rank-0", tmp_path / "rank-1"], SETTINGS)
    assert open_parts([tmp_path / "rank-1"], SETTINGS) == []


def test_a_file_keeps_its_name_in_the_index(folder, tmp_path):
    (tmp_path / "link").symlink_to(folder)
    files = find_audio([tmp_path / "link"])
    listing = Listing(files, [str(folder / "1.wav"), str(folder / "gone.wav"), "/elsewhere/gone.wav"])
    expected = [folder / "1.wav", tmp_path / "link" / "2.wav", tmp_path / "link" / "3.wav"]
    assert [*listing.states] == [str(path) for path in expected]
    assert listing.changed({str(folder / "1.wav"): State(0, 0)}) == {str(folder / "1.wav")}
    assert listing.gone([str(tmp_path / "link")]) == {str(folder / "gone.wav")}


def test_a_folder_that_cannot_be_looked_at_is_not_gone(folder, tmp_path, monkeypatch):
    names = [str(folder / name) for name in ("1.wav", "lost/a.wav", "gone.wav", "2.wav/a.wav")]
    lstat = os.lstat

    def fail(path, **kwargs):
        if "lost" in str(path):
            raise PermissionError(13, "Permission denied")
        return lstat(path, **kwargs)

    monkeypatch.setattr(os, "lstat", fail)
    assert Listing(find_audio([folder]), names).gone([str(folder)]) == {names[2], names[3]}
