# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Index on disk: what is added, replaced and removed, and what is left after an interruption."""

import json
import os
import shutil
import stat

import numpy as np
import pytest

from transformers_beats.search import index as index_module
from transformers_beats.search.index import Entry, Index, IndexWriter, Moment, State
from transformers_beats.utils.errors import BeatsError, UsageError


SETTINGS = {"model": "0123", "segments": 1.0}
DIM = 4


def vectors(seed: int, count: int) -> np.ndarray:
    values = np.random.default_rng(seed).standard_normal((count, DIM)).astype(np.float32)
    return values / np.linalg.norm(values, axis=1, keepdims=True)


def entries(seed: int, count: int):
    return [Entry(float(number), number + 1.0, vector) for number, vector in enumerate(vectors(seed, count))]


def write(directory, *files: tuple[str, int, int], remove=()) -> None:
    """Adds files, each with its seed and number of entries, and before that removes some."""
    with IndexWriter(directory, SETTINGS, "model") as writer:
        writer.remove({*remove})
        for file, seed, count in files:
            writer.add(file, State(seed, count), iter(entries(seed, count)))


def content(directory) -> dict[tuple[str, float, float], tuple[float, ...]]:
    """Vectors by what they are of."""
    index = Index(directory)
    blocks = [block for _, block in index.blocks()]
    rows = index.moments(range(len(index)))
    assert len({*rows}) == len(rows) == sum(map(len, blocks))
    return dict(zip(rows, map(tuple, np.concatenate(blocks)))) if blocks else {}


def expected(*files: tuple[str, int, int]) -> dict[Moment, tuple[float, ...]]:
    return {
        Moment(file, entry.start, entry.end): tuple(entry.vector)
        for file, seed, count in files
        for entry in entries(seed, count)
    }


@pytest.fixture
def small_shards(monkeypatch):
    """Shards of three rows."""
    monkeypatch.setattr(index_module, "SHARD_ROWS", 3)


def test_what_is_added_is_read_again(tmp_path):
    files = [("/a/ä.wav", 0, 3), ("/a/b.wav", 1, 1)]
    write(tmp_path / "index", *files)
    assert content(tmp_path / "index") == expected(*files)
    index = Index(tmp_path / "index")
    assert index.states() == {"/a/ä.wav": State(0, 3), "/a/b.wav": State(1, 1)}
    assert [index.files[number] for number in index.file_of] == ["/a/ä.wav"] * 3 + ["/a/b.wav"]
    assert (index.model, index.settings) == ("model", SETTINGS)


@pytest.mark.parametrize("counts", [(1, 1, 1, 1, 1), (2, 5, 1), (20, 2), (3, 3), (1, 11, 1)])
def test_rows_are_in_shards_whatever_the_lengths_of_files(tmp_path, small_shards, counts):
    files = [(f"/{number}.wav", number, count) for number, count in enumerate(counts)]
    write(tmp_path, *files)
    assert content(tmp_path) == expected(*files)
    assert all(shard.num_rows <= 5 for shard in Index(tmp_path).shards)


def test_many_small_runs_leave_few_shards(tmp_path, small_shards):
    files = [(f"/{number}.wav", number, 1) for number in range(10)]
    for file in files:
        write(tmp_path, file)
    assert content(tmp_path) == expected(*files)
    assert [shard.num_rows for shard in Index(tmp_path).shards] == [3, 3, 3, 1]
    assert len(list(tmp_path.iterdir())) == 2 * 4 + 1


@pytest.mark.parametrize("removed", [0, 1, 2, 3])
def test_files_are_removed_from_any_shard(tmp_path, small_shards, removed):
    files = [("/0.wav", 0, 2), ("/1.wav", 1, 7), ("/2.wav", 2, 1), ("/3.wav", 3, 1)]
    write(tmp_path, *files)
    write(tmp_path, ("/new.wav", 9, 2), remove=[files[removed][0]])
    kept = [file for number, file in enumerate(files) if number != removed]
    assert content(tmp_path) == expected(*kept, ("/new.wav", 9, 2))


def test_an_index_may_become_empty(tmp_path):
    write(tmp_path, ("/a.wav", 0, 2))
    write(tmp_path, remove=["/a.wav"])
    assert content(tmp_path) == {}
    assert Index(tmp_path).states() == {}
    assert [path.name for path in tmp_path.iterdir()] == ["index.json"]


@pytest.mark.parametrize("count", [1, 10])
def test_a_file_that_fails_is_left_out_as_a_whole(tmp_path, small_shards, count):
    def broken():
        yield from entries(1, count)
        raise BeatsError("damaged")

    with IndexWriter(tmp_path, SETTINGS, "model") as writer:
        writer.add("/a.wav", State(0, 2), entries(0, 2))
        with pytest.raises(BeatsError, match="damaged"):
            writer.add("/broken.wav", State(1, 1), broken())
        # `index.json`, and no part of it; two files are of the lock.
        assert len(list(tmp_path.iterdir())) == 3
        writer.add("/c.wav", State(2, 2), entries(2, 2))
    assert content(tmp_path) == expected(("/a.wav", 0, 2), ("/c.wav", 2, 2))
    assert len(list(tmp_path.iterdir())) == 2 * len(Index(tmp_path).shards) + 1


def test_after_an_interruption_whole_files_are_there(tmp_path, small_shards):
    def interrupted():
        yield from entries(1, 7)
        raise KeyboardInterrupt

    write(tmp_path)

    def update():
        with IndexWriter(tmp_path, SETTINGS, "model") as writer:
            writer.add("/a.wav", State(0, 2), entries(0, 2))
            writer.add("/b.wav", State(1, 7), interrupted())

    with pytest.raises(KeyboardInterrupt):
        update()
    assert content(tmp_path) == expected(("/a.wav", 0, 2))
    write(tmp_path, ("/b.wav", 1, 7))
    assert content(tmp_path) == expected(("/a.wav", 0, 2), ("/b.wav", 1, 7))


def test_a_killed_run_leaves_the_index_of_its_last_commit(tmp_path, small_shards):
    index, killed = tmp_path / "index", tmp_path / "killed"
    write(index, ("/a.wav", 0, 2))
    with IndexWriter(index, SETTINGS, "model") as writer:
        writer.add("/b.wav", State(1, 2), entries(1, 2))
        writer.add("/c.wav", State(2, 1), entries(2, 1))
        # What is on the disk before the end of the context, the lock too, is what is left of a killed process.
        shutil.copytree(index, killed)
    assert content(killed) == expected(("/a.wav", 0, 2), ("/b.wav", 1, 2))
    half = killed / f"{0:016x}.safetensors"
    half.write_bytes(b"half")
    write(killed, ("/c.wav", 2, 1))
    assert content(killed) == expected(("/a.wav", 0, 2), ("/b.wav", 1, 2), ("/c.wav", 2, 1))
    assert not half.exists()


def test_a_run_that_was_killed_before_its_first_commit_can_be_begun_again(tmp_path):
    for name in (".lock", ".lock.json", f".{0:016x}.partial"):
        (tmp_path / name).touch()
    write(tmp_path, ("/a.wav", 0, 1))
    assert content(tmp_path) == expected(("/a.wav", 0, 1))


def test_files_of_others_in_the_directory_stay(tmp_path):
    write(tmp_path, ("/a.wav", 0, 1))
    names = {"labels.parquet", "model.safetensors", f"{0:016x}.txt"}
    for name in names:
        (tmp_path / name).write_text("mine")
    write(tmp_path, ("/b.wav", 1, 1))
    assert names <= {path.name for path in tmp_path.iterdir()}


def test_a_run_commits_after_a_while_also_what_is_less_than_a_shard(tmp_path, monkeypatch):
    monkeypatch.setattr(index_module, "COMMIT_SECONDS", 0.0)
    with IndexWriter(tmp_path, SETTINGS, "model") as writer:
        for number in range(3):
            writer.add(f"/{number}.wav", State(number, 1), entries(number, 1))
        assert content(tmp_path) == expected(*[(f"/{number}.wav", number, 1) for number in range(3)])
        assert len(Index(tmp_path).shards) == 1


def test_nothing_is_written_where_nothing_is_new(tmp_path):
    write(tmp_path, ("/a.wav", 0, 2))
    before = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    write(tmp_path)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == before


def test_two_programs_at_once_do_not_overwrite_each_other(tmp_path):
    with IndexWriter(tmp_path, SETTINGS, "model") as writer:
        writer.add("/a.wav", State(0, 1), entries(0, 1))
        with pytest.raises(UsageError, match="another run writes here"):
            write(tmp_path, ("/b.wav", 1, 1))
    assert content(tmp_path) == expected(("/a.wav", 0, 1))
    write(tmp_path, ("/b.wav", 1, 1))
    assert content(tmp_path) == expected(("/a.wav", 0, 1), ("/b.wav", 1, 1))


def test_other_settings_are_refused(tmp_path):
    write(tmp_path, ("/a.wav", 0, 1))
    for settings in ({**SETTINGS, "model": "4567"}, {**SETTINGS, "segments": None}):
        with pytest.raises(UsageError, match=r"was begun with another `(model|segments)`"):
            IndexWriter(tmp_path, settings, "model").__enter__()
    assert content(tmp_path) == expected(("/a.wav", 0, 1))


def test_a_folder_of_something_else_is_left_alone(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UsageError, match="is not empty, and holds no index"):
        write(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
    with pytest.raises(UsageError, match="it is a file"):
        write(tmp_path / "notes.txt")


@pytest.mark.parametrize("text", ["{", "[]", '{"version": 99}', '{"shards": []}'])
def test_a_manifest_of_something_else_is_refused(tmp_path, text):
    (tmp_path / "index.json").write_text(text)
    with pytest.raises(UsageError, match=r"index\.json"):
        Index(tmp_path)


@pytest.mark.parametrize("damage", ["remove", "cut", "other"])
@pytest.mark.parametrize("suffix", [".safetensors", ".parquet"])
def test_a_damaged_shard_is_one_line(tmp_path, damage, suffix):
    write(tmp_path / "index", ("/a.wav", 0, 3))
    write(tmp_path / "other", ("/a.wav", 0, 2))
    (path,) = (tmp_path / "index").glob(f"*{suffix}")
    (other,) = (tmp_path / "other").glob(f"*{suffix}")
    if damage == "remove":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:100] if damage == "cut" else other.read_bytes())
    with pytest.raises(BeatsError, match=r"^.*index: its part \w+ cannot be read.*make it again\.$"):
        content(tmp_path / "index")


def test_a_name_that_is_no_text_is_an_error_of_its_file(tmp_path):
    with IndexWriter(tmp_path, SETTINGS, "model") as writer:
        with pytest.raises(BeatsError, match="is not UTF-8"):
            writer.add(os.fsdecode(b"/\xff.wav"), State(0, 1), entries(0, 1))
        writer.add("/a.wav", State(0, 1), entries(0, 1))
    assert content(tmp_path) == expected(("/a.wav", 0, 1))


def test_blocks_begin_where_they_are_asked_for(tmp_path, small_shards):
    write(tmp_path, ("/a.wav", 0, 8), ("/b.wav", 1, 1))
    index = Index(tmp_path)
    blocks = list(index.blocks(2))
    assert [first for first, _ in blocks] == [0, 2, 3, 5, 6, 8]
    assert [first for first, _ in index.blocks(2, first=3)] == [3, 5, 6, 8]
    everything = np.concatenate([block for _, block in index.blocks()])
    assert (np.concatenate([block for _, block in blocks]) == everything).all()


def test_shards_may_be_read_by_whoever_may_read_the_index(tmp_path):
    write(tmp_path, ("/a.wav", 0, 1))
    modes = {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    (tmp_path / "plain").touch()
    assert modes == {stat.S_IMODE((tmp_path / "plain").stat().st_mode)}


def test_a_moved_model_is_noted(tmp_path):
    write(tmp_path, ("/a.wav", 0, 1))
    with IndexWriter(tmp_path, SETTINGS, "elsewhere"):
        pass
    assert json.loads((tmp_path / "index.json").read_text())["model"] == "elsewhere"
    assert content(tmp_path) == expected(("/a.wav", 0, 1))


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(5, "Input/output error")])
def test_a_removal_that_is_interrupted_loses_nothing_else(tmp_path, small_shards, monkeypatch, error):
    files = [("/0.wav", 0, 4), ("/1.wav", 1, 4), ("/2.wav", 2, 4), ("/3.wav", 3, 1)]
    write(tmp_path, *files)
    read, calls = index_module.read_rows, []

    def read_rows(directory, shard):
        calls.append(shard)
        if len(calls) == 2:
            raise error
        return read(directory, shard)

    def update():
        with IndexWriter(tmp_path, SETTINGS, "model") as writer:
            writer.add("/new.wav", State(9, 2), entries(9, 2))
            monkeypatch.setattr(index_module, "read_rows", read_rows)
            writer.remove({"/1.wav"})

    with pytest.raises((KeyboardInterrupt, BeatsError)):
        update()
    monkeypatch.undo()
    assert content(tmp_path) == expected(*files, ("/new.wav", 9, 2))
