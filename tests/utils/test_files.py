# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from transformers_beats.utils import files
from transformers_beats.utils.errors import UsageError
from transformers_beats.utils.files import (
    check_absent,
    check_folder_of,
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


def test_a_file_that_cannot_be_written_is_refused(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    check_absent(tmp_path / "file", overwrite=True)
    check_absent(tmp_path / "deep" / "file", overwrite=False)
    for path, message in {
        "file": "file: exists; pass --overwrite",
        "": "is a folder, and a file is to be written",
        "file/new": "file/new: cannot be written: .*/file is no folder",
        "file/deep/new": "file/deep/new: cannot be written: .*/file is no folder",
        "x" * 300: "x: cannot be written: File name too long",
        f"deep/{'x' * 300}": "x: cannot be written: File name too long",
        f"{'x' * 300}/new": "/new: cannot be written: File name too long",
    }.items():
        with pytest.raises(UsageError, match=message):
            check_absent(tmp_path / path, overwrite=False)
    with pytest.raises(UsageError, match=r"there is no folder .*/deep"):
        check_folder_of(tmp_path / "deep" / "file")
    monkeypatch.setattr(os, "access", lambda path, mode, **options: path != tmp_path)
    for path in ("file", "new", "deep/new"):
        with pytest.raises(UsageError, match=re.escape(f"{path}: cannot be written: {tmp_path} is closed to writing")):
            check_absent(tmp_path / path, overwrite=True)


@pytest.mark.parametrize("why", ["ismount", "access"])
def test_a_directory_that_cannot_be_moved_is_filled(why, tmp_path, monkeypatch):
    target = tmp_path / "target"
    target.mkdir(mode=0o750)
    before = target.stat()
    fixed = {"ismount": lambda path: Path(path) == target, "access": lambda path, mode, **options: path != tmp_path}
    monkeypatch.setattr(os.path if why == "ismount" else os, why, fixed[why])

    def write(stop=False):
        with new_directory(target) as new:
            (new / "config.json").touch()
            (new / "b").mkdir()
            if stop:
                (target / "mine").touch()

    with pytest.raises(UsageError, match="target: was empty, and now holds 'mine'"):
        write(stop=True)
    assert [path.name for path in target.iterdir()] == ["mine"]
    (target / "mine").unlink()
    rename = Path.rename

    def rename_or_fail(self, to):
        if self.name == "config.json":
            # By which a directory is that of a model.
            assert (target / "b").is_dir()
            raise KeyboardInterrupt
        return rename(self, to)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", rename_or_fail)
        with pytest.raises(KeyboardInterrupt):
            write()
    assert list(target.iterdir()) == []
    write()
    assert sorted(path.name for path in target.iterdir()) == ["b", "config.json"]
    assert (target.stat().st_ino, target.stat().st_mode) == (before.st_ino, before.st_mode)
    assert list(tmp_path.iterdir()) == [target]


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


@pytest.mark.parametrize("first_to_end", [0, 1])
def test_of_several_writers_of_a_file_each_has_one_of_its_own(first_to_end, tmp_path):
    target = tmp_path / "target.txt"
    writers = [replace_file(target), replace_file(target)]
    paths = [writer.__enter__() for writer in writers]
    for path, text in zip(paths, ("first", "second")):
        path.write_text(text[:3])
    for number, end in ((first_to_end, "whole"), (1 - first_to_end, "whole as well")):
        paths[number].write_text(end)
        writers[number].__exit__(None, None, None)
        assert target.read_text() == end
    assert list(tmp_path.iterdir()) == [target]


def killed_process() -> int:
    """The number of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


@pytest.mark.skipif(sys.platform == "win32", reason="only the age of a file counts")
@pytest.mark.parametrize(
    ("writer", "seconds", "goes"),
    [
        (lambda: f".{files._machine()}-{killed_process()}-00000000", 0, True),
        (lambda: f".{files._machine()}-{os.getpid()}-00000000", 0, False),
        (lambda: f".{files._machine()}-{os.getpid()}-00000000", 2 * files.SECONDS_LEFT, True),
        # Another host may have a process of that number, or none.
        (lambda: f".{'0' * 16}-{killed_process()}-00000000", 0, False),
        (lambda: f".{'0' * 16}-1-00000000", 2 * files.SECONDS_LEFT, True),
        # Of older versions.
        (lambda: "", 0, False),
        (lambda: "", 2 * files.SECONDS_LEFT, True),
        # Of other programs.
        (lambda: ".torrent", 2 * files.SECONDS_LEFT, False),
    ],
)
def test_what_killed_runs_have_left_is_removed(writer, seconds, goes, tmp_path):
    left = tmp_path / f".{0:016x}{writer()}.partial"
    left.touch()
    os.utime(left, (time.time() - seconds,) * 2)
    with replace_file(tmp_path / "target") as temporary:
        temporary.touch()
    assert left.exists() is not goes


def test_what_cannot_be_removed_keeps_nothing_else(tmp_path, monkeypatch):
    left = [tmp_path / f".{number:016x}.partial" for number in range(3)]
    for path in left:
        path.touch()
        os.utime(path, (0, 0))
    unlink = os.unlink

    def unlink_mine(path, **options):
        if Path(path) == left[1]:
            raise PermissionError(path)
        unlink(path, **options)

    monkeypatch.setattr(os, "unlink", unlink_mine)
    with replace_file(tmp_path / "target") as temporary:
        temporary.touch()
    assert sorted(path.name for path in tmp_path.iterdir()) == [left[1].name, "target"]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no named pipes")
@pytest.mark.parametrize("overwrite", [True, False])
def test_what_is_no_file_is_not_replaced(overwrite, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path(os.devnull)):
        with pytest.raises(UsageError, match="is a device or a pipe, and a file is to be written"):
            check_absent(path, overwrite)


def test_a_run_that_is_killed_leaves_a_file_that_the_next_one_removes(tmp_path):
    script = (
        "import os, pathlib, transformers_beats.utils.files as files\n"
        "with files.replace_file(pathlib.Path('target')) as path:\n"
        "    path.touch()\n"
        "    os._exit(1)\n"
    )
    subprocess.run([sys.executable, "-c", script], cwd=tmp_path, check=False)
    (left,) = tmp_path.iterdir()
    assert files.PARTIAL.fullmatch(left.name)
    with replace_file(tmp_path / "other") as temporary:
        temporary.touch()
    assert [path.name for path in tmp_path.iterdir()] == ["other"]


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
