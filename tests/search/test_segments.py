# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Segments of recordings, and comparisons of two."""

import numpy as np
import pytest

from transformers_beats.audio.decoding import AudioError, open_audio
from transformers_beats.inference import loading
from transformers_beats.inference.results import Columns
from transformers_beats.inference.windowed import WindowedInference
from transformers_beats.search.comparison import compare_recordings, result_of
from transformers_beats.search.segments import cut_segments, stream_segments_many, to_entry, window_of
from transformers_beats.utils.errors import BeatsError


COLUMN = 0.16


def blocks_of(values: np.ndarray, silent: np.ndarray, size: int):
    """Blocks of columns `(num_columns, 2, 3)`."""
    for first in range(0, len(values), size):
        yield Columns(values[first : first + size], first, COLUMN, silent[first : first + size])


@pytest.mark.parametrize("num_columns", [1, 2, 5, 6, 7, 8, 9, 11, 12, 13, 60])
@pytest.mark.parametrize("size", [1, 4, 100])
def test_segments_cover_a_recording_and_a_short_rest_belongs_to_the_last(num_columns, size):
    generator = np.random.default_rng(num_columns)
    values = generator.standard_normal((num_columns, 2, 3)).astype(np.float32)
    silent = generator.random(num_columns) < 0.5
    found = list(cut_segments(blocks_of(values, silent, size), seconds=1.0))
    lengths = [round((segment.end - segment.start) / COLUMN) for segment in found]
    # A second is 6 columns.
    assert sum(lengths) == num_columns
    assert lengths[:-1] == [6] * (len(lengths) - 1)
    assert lengths[-1] < 9
    assert lengths[-1] >= 3 or len(lengths) == 1
    first = 0
    for segment, length in zip(found, lengths):
        assert segment.start == pytest.approx(first * COLUMN)
        part = slice(first, first + length)
        np.testing.assert_allclose(segment.embedding, values[part].mean(axis=(0, 1)), rtol=1e-5, atol=1e-6)
        assert segment.is_silent == silent[part].all()
        first += length


def test_without_a_length_the_recording_is_one_segment():
    values = np.random.default_rng(0).standard_normal((20, 2, 3)).astype(np.float32)
    (segment,) = cut_segments(blocks_of(values, np.zeros(20, dtype=bool), 6))
    assert (segment.start, segment.end) == pytest.approx((0, 20 * COLUMN))
    np.testing.assert_allclose(segment.embedding, values.mean(axis=(0, 1)), rtol=1e-5, atol=1e-6)


def test_entries_have_the_length_1_and_those_of_silence_0():
    values = np.arange(24, dtype=np.float32).reshape(4, 2, 3)
    silent = np.array([False, True, True, True])
    first, second = map(to_entry, cut_segments(blocks_of(values, silent, 4), 2 * COLUMN))
    assert np.linalg.norm(first.vector) == pytest.approx(1)
    assert not second.vector.any()
    assert first.vector.dtype == second.vector.dtype == np.float32


def test_an_embedding_without_a_direction_is_an_error():
    (segment,) = cut_segments([Columns(np.zeros((2, 2, 3)), 0, COLUMN, np.zeros(2, dtype=bool))])
    with pytest.raises(BeatsError, match="An embedding is zero"):
        to_entry(segment)


@pytest.fixture(scope="module")
def encoder(models):
    return loading.load(models / "beats_tiny", "cpu")


@pytest.mark.parametrize("seconds", [0.01, 0.5, 1.0, 2.2])
def test_windows_are_as_long_as_segments(encoder, seconds):
    window = window_of(seconds, encoder[1])
    assert WindowedInference(*encoder, window).window_columns == max(1, round(seconds / COLUMN))


def test_segments_and_windows_have_one_length(encoder):
    # 23.5 and 57.5 columns among them, which divide by the rate before or after.
    for seconds in (0.24, 3.76, 4.72, 9.2, 10.0):
        segments = cut_segments([Columns(np.ones((200, 2, 3)), 0, COLUMN)], seconds)
        num_columns = WindowedInference(*encoder, window_of(seconds, encoder[1])).window_columns
        assert round(next(segments).end / COLUMN) == num_columns


def test_a_segment_has_the_embedding_that_it_has_alone(encoder):
    audio = 0.1 * np.random.default_rng(0).standard_normal(64000).astype(np.float32)
    inference = WindowedInference(*encoder, window_of(1.0, encoder[1]))
    segments = list(next(stream_segments_many(inference, [open_audio(audio, 16000, 16000)], 1.0)))
    assert [round(segment.start / COLUMN) for segment in segments] == [0, 6, 12, 18]
    for segment in segments[:3]:
        first = round(segment.start / COLUMN) * 2560
        # 6 columns and the 15 ms by which the last frame is longer than its shift.
        alone = inference.embed(audio[first : first + 6 * 2560 + 240], 16000)
        np.testing.assert_allclose(segment.embedding, alone, atol=1e-5)


def test_after_a_recording_that_cannot_be_used_the_next_one_is_read(encoder, tmp_path):
    (tmp_path / "bad.wav").write_text("no audio")
    audio = np.ones(16000, dtype=np.float32)
    results = stream_segments_many(WindowedInference(*encoder), [tmp_path / "bad.wav", (audio, 16000)])
    with pytest.raises(AudioError, match="holds text"):
        next(results)
    assert len(list(next(results))) == 1


def test_a_comparison_reads_each_recording_once(models, monkeypatch):
    model, extractor = loading.load(models / "beats_tiny_finetuned", "cpu")
    audio = 0.1 * np.random.default_rng(0).standard_normal((2, 32000)).astype(np.float32)
    streams = [open_audio(clip, 16000, 16000) for clip in audio]
    reads = [0, 0]

    def count(number, blocks):
        reads[number] += 1
        yield from blocks

    for number, stream in enumerate(streams):
        stream.blocks = count(number, stream.blocks)
    found = result_of(compare_recordings(streams, model, extractor, top_k=2))
    assert reads == [1, 1]
    inference = WindowedInference(model, extractor)
    first, second = (inference.embed(clip, 16000) for clip in audio)
    expected = first @ second / np.linalg.norm(first) / np.linalg.norm(second)
    assert found.similarity == pytest.approx(expected, abs=1e-5)
    assert 2 <= len(found.labels) <= 4
