# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
import os
import sys
from pathlib import Path

import pytest

from transformers_beats.utils.errors import UsageError
from transformers_beats.utils.files import (
    check_new,
    make_directory,
    new_directory,
    replace_directory,
    replace_file,
    work_directory,
)


@pytest.fixture
def directories(tmp_path):
    """A new directory with a file, and an older one in the place where it shall go."""
    for name in ("new", "target"):
        (tmp_path / name).mkdir()
        (tmp_path / name / f"of_{name}").touch()
    return tmp_path / "new", tmp_path / "target"


def test_a_directory_takes_the_place_of_another(directories):
    new, target = directories
    replace_directory(new, target)
    assert [path.name for path in target.iterdir()] == ["of_new"]
    assert list(target.parent.iterdir()) == [target]


def test_a_failed_move_brings_the_older_directory_back(directories):
    new, target = directories
    with pytest.raises(FileNotFoundError):
        replace_directory(new / "absent", target)
    assert [path.name for path in target.iterdir()] == ["of_target"]
    assert sorted(target.parent.iterdir()) == [new, target]


def test_an_output_that_exists_is_refused(tmp_path):
    check_new(tmp_path / "new")
    with pytest.raises(UsageError, match="exists already: move it away, or choose another `output_dir`"):
        check_new(tmp_path)


def test_an_output_whose_folder_cannot_be_made_is_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="file/new: cannot be an output directory: Not a directory"):
        make_directory(tmp_path / "file" / "new")


def test_a_new_directory_is_there_whole_or_not_at_all(tmp_path):
    with new_directory(tmp_path / "deep" / "target") as new:
        (new / "file").touch()
        assert not (tmp_path / "deep" / "target").exists()
    assert [path.name for path in (tmp_path / "deep" / "target").iterdir()] == ["file"]

    def fail_half_way():
        with new_directory(tmp_path / "deep" / "target") as new:
            (new / "other").touch()
            raise KeyError

    with pytest.raises(KeyError):
        fail_half_way()
    assert [path.name for path in (tmp_path / "deep").rglob("*")] == ["target", "file"]


def test_a_file_takes_the_place_of_another(tmp_path):
    target = tmp_path / "target.txt"
    target.write_text("old")
    with replace_file(target) as temporary:
        temporary.write_text("new")
        assert target.read_text() == "old"
    assert target.read_text() == "new"
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.skipif(sys.platform == "win32", reason="there is no umask")
@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_a_file_that_a_library_writes_for_its_owner_has_the_mode_of_others(tmp_path, umask, mode):
    previous = os.umask(umask)
    try:
        with replace_file(tmp_path / "file") as temporary:
            os.close(os.open(temporary, os.O_CREAT | os.O_WRONLY, 0o600))
    finally:
        os.umask(previous)
    assert (tmp_path / "file").stat().st_mode & 0o777 == mode


def test_a_file_may_have_the_longest_name_there_is(tmp_path):
    target = tmp_path / ("é" * 127 + "x")
    with replace_file(target) as temporary:
        temporary.write_text("new")
    assert [path.name for path in tmp_path.iterdir()] == [target.name]


def test_what_a_killed_run_has_left_is_written_over(tmp_path):
    with replace_file(tmp_path / "a") as first, replace_file(tmp_path / "b") as other:
        for path in (first, other):
            path.touch()
    with replace_file(tmp_path / "a") as again:
        assert again == first != other
        again.touch()


def test_a_file_that_fails_half_way_leaves_the_older_one(tmp_path):
    target = tmp_path / "target.txt"
    target.write_text("old")

    def write_and_fail(path):
        path.write_text("ne")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"), replace_file(target) as temporary:
        write_and_fail(temporary)
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_an_exception_at_the_moment_of_creation_leaves_nothing(tmp_path, monkeypatch):
    mkdir = Path.mkdir

    def mkdir_then_signal(self, *args, **kwargs):
        mkdir(self, *args, **kwargs)
        raise SystemExit(143)

    monkeypatch.setattr(Path, "mkdir", mkdir_then_signal)
    with pytest.raises(SystemExit), work_directory(tmp_path, ".work-"):
        raise AssertionError("not reached")
    assert list(tmp_path.iterdir()) == []
