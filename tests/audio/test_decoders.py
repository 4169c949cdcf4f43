# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Decoding in other processes gives what decoding here gives, in order, also if some of them crash."""

import functools
import os
import signal

import numpy as np
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
