# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Decoding in other processes gives what decoding here gives, in order, also if some of them crash."""

import functools
import json
import os
import signal
import time

import numpy as np
import psutil
import pytest
import soundfile

from transformers_beats.audio import decoders
from transformers_beats.audio.decoders import Decoders
from transformers_beats.audio.decoding import read_samples, stream_audio
from transformers_beats.audio.recordings import AudioError


SECONDS = (1.0, 0.3, 3.2, 0.2, 2.5, 0.4, 1.1)


@pytest.fixture
def paths(tmp_path, monkeypatch):
    """Files of several lengths, the longest of which take several parts."""
    monkeypatch.setattr(decoders, "PART_SECONDS", 1)
    generator = np.random.default_rng(0)
    found = []
    for number, seconds in enumerate(SECONDS):
        found.append(str(tmp_path / f"{number}.wav"))
        soundfile.write(found[-1], 0.1 * generator.standard_normal(round(22050 * seconds)), 22050)
    return found


def open_or_crash(path: str, crashing: tuple[str, ...] = ()):
    """Opens a file; those that are named end the process at their first block, or before it."""
    if path in crashing:
        os.kill(os.getpid(), signal.SIGKILL)
    return stream_audio(path)


def read_all(opened: Decoders) -> list:
    results = []
    for _ in opened.items:
        try:
            results.append(read_samples(opened.open_next()))
        except Exception as error:  # compared by the tests
            results.append(error)
    return results


@pytest.mark.parametrize("num_processes", [1, 2, 20])
def test_samples_and_reports_are_those_of_this_process(paths, num_processes):
    with Decoders(paths, stream_audio, num_processes) as opened:
        for path in paths:
            stream, expected = opened.open_next(), stream_audio(path)
            assert (stream.name, stream.seconds, stream.sampling_rate) == (path, expected.seconds, 16000)
            np.testing.assert_array_equal(read_samples(stream), read_samples(expected))
            assert stream.report == expected.report
    assert opened.seconds > 0


def test_errors_are_raised_in_the_place_of_their_files(paths):
    os.truncate(paths[2], 100)
    paths[3] += ".missing"
    with Decoders(paths, stream_audio, 2) as opened:
        results = read_all(opened)
    for number, result in enumerate(results):
        if number == 3:
            assert isinstance(result, AudioError)
            assert "no such file" in str(result)
        else:
            np.testing.assert_array_equal(result, read_samples(stream_audio(paths[number])))


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="processes are killed by a signal")
@pytest.mark.parametrize("num_processes", [1, 2])
def test_a_file_that_crashes_its_decoder_fails_alone(paths, num_processes):
    crashing = (paths[1], paths[3], paths[6])
    with Decoders(paths, functools.partial(open_or_crash, crashing=crashing), num_processes) as opened:
        results = read_all(opened)
    for path, result in zip(paths, results):
        if path in crashing:
            assert "its decoder crashed or was killed (exit code -9)" in str(result)
        else:
            np.testing.assert_array_equal(result, read_samples(stream_audio(path)))


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="processes are killed by a signal")
def test_a_process_that_is_killed_once_loses_nothing(paths):
    with Decoders(paths, stream_audio, 1) as opened:
        first = opened.open_next()
        blocks = iter(first.blocks)
        begin = next(blocks)
        third = None
        os.kill(opened.processes[0].process.pid, signal.SIGKILL)
        np.testing.assert_array_equal(np.concatenate([begin, *blocks]), read_samples(stream_audio(paths[0])))
        for path in paths[1:]:
            third = read_samples(opened.open_next())
            np.testing.assert_array_equal(third, read_samples(stream_audio(path)))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are not forked")
def test_a_forked_process_leaves_the_decoders_of_its_parent_alone(paths):
    with Decoders(paths, stream_audio, 2) as opened:
        child = os.fork()
        if child == 0:
            try:
                opened.__exit__(None, None, None)
                os._exit(0)
            finally:
                os._exit(1)
        assert psutil.Process(child).wait(60) == 0
        # At work, or done with these short files.
        assert all(process.process.exitcode in (None, 0) for process in opened.processes)
        results = read_all(opened)
    for path, result in zip(paths, results):
        np.testing.assert_array_equal(result, read_samples(stream_audio(path)))


def test_a_recording_that_was_left_is_no_shorter_one(paths):
    with Decoders(paths, stream_audio, 2) as opened:
        streams = [opened.open_next() for _ in range(3)]
        # A longer one that was begun; the next file of its process is opened.
        blocks = iter(streams[2].blocks)
        next(blocks)
        for _ in range(2):
            opened.open_next()
        with pytest.raises(AudioError, match="not read to its end"):
            list(blocks)


def test_processes_end_with_their_context(paths):
    with Decoders(paths, stream_audio, 2) as opened:
        opened.open_next()
    assert not any(process.process.is_alive() for process in opened.processes)


def is_at_work(number: int) -> bool:
    """Returns whether there is a process, which nobody may have asked for its status yet."""
    try:
        return psutil.Process(number).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="processes are killed by a signal")
@pytest.mark.parametrize("name", ["SIGTERM", "SIGKILL"])
@pytest.mark.parametrize("is_ahead", [True, False])
def test_processes_end_with_their_parent(tmp_path, fresh_python, name, is_ahead):
    # Each process has more to send than a pipe takes.
    paths = [tmp_path / f"{number}.wav" for number in range(6)]
    for path in paths:
        soundfile.write(path, np.zeros(16000 * 20), 16000)
    program = """
import json, os, signal, sys
from transformers_beats.audio import decoders
from transformers_beats.audio.decoding import stream_audio
name, is_ahead, *paths = sys.argv[1:]
opened = decoders.Decoders(paths, stream_audio, 0)
opened.num_processes = 3
for first in range(3):
    numbers = range(first, len(paths), 3)
    opened.processes.append(decoders._Process(paths, numbers, stream_audio, is_ahead=is_ahead == "True"))
opened.open_next()
print(json.dumps([process.process.pid for process in opened.processes]), flush=True)
os.kill(os.getpid(), getattr(signal, name))
"""
    result = fresh_python(program, name, is_ahead, *paths)
    assert result.returncode == -getattr(signal, name), result.stderr
    numbers = json.loads(result.stdout)
    deadline = time.monotonic() + 60
    while any(map(is_at_work, numbers)) and time.monotonic() < deadline:
        time.sleep(0.05)
    left = [number for number in numbers if is_at_work(number)]
    for number in left:
        os.kill(number, signal.SIGKILL)
    assert not left
