# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
import errno
import threading
from pathlib import Path

import pytest

from transformers_beats.utils import lock
from transformers_beats.utils.errors import UsageError
from transformers_beats.utils.lock import hold
from transformers_beats.utils.ranks import hold_alone, lock_of


def test_one_holds_a_directory_and_others_wait_or_are_refused(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(lock, "WAIT_SECONDS", 0.1)
    order, is_held, may_end = [], threading.Event(), threading.Event()

    def work():
        with hold(tmp_path):
            is_held.set()
            may_end.wait(60)
            order.append("first")

    thread = threading.Thread(target=work)
    thread.start()
    is_held.wait(60)
    with pytest.raises(UsageError, match="another run writes here"), hold(tmp_path):
        pass
    monkeypatch.setattr(lock, "note", lambda line: (order.append(line), may_end.set()))
    with hold(tmp_path, wait=True):
        order.append("second")
    thread.join()
    assert order[1:] == ["first", "second"]
    assert "waits for process" in order[0]


@pytest.mark.parametrize("wait", [False, True])
def test_the_file_of_a_lock_stays_where_others_wait(wait, tmp_path):
    for _ in range(2):
        with hold(tmp_path, wait=wait):
            assert (tmp_path / ".lock").exists()
        assert [path.name for path in tmp_path.iterdir()] == ([".lock"] if wait else [])


@pytest.mark.parametrize("error", [NotImplementedError(), OSError(errno.ENOLCK, "No locks available")])
def test_a_file_system_without_locks_is_no_hindrance_to_a_run_alone(error, tmp_path, monkeypatch):
    def acquire(lock, *others):
        Path(lock.lock_file).touch()
        raise error

    monkeypatch.setattr(lock, "_acquire", acquire)
    with pytest.raises(UsageError, match="cannot be locked"), hold(tmp_path):
        pass
    with hold_alone(tmp_path / ".x.ranks", [lock_of(tmp_path / "x")]):
        (tmp_path / "x").touch()
    assert {path.name for path in tmp_path.iterdir()} <= {"x", ".lock"}


def test_a_directory_that_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UsageError), hold(tmp_path / "file" / "results", is_needed=False):
        pass
