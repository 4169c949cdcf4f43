# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
import sys
import tracemalloc
import warnings

import matplotlib.image
import numpy as np
import pytest
import soundfile

from transformers_beats import BeatsFeatureExtractor
from transformers_beats.audio.decoding import AudioError, AudioStream
from transformers_beats.inference.events import Event
from transformers_beats.inference.windowed import Columns
from transformers_beats.plotting import timeline
from transformers_beats.plotting.timeline import (
    DYNAMIC_RANGE_DB,
    MAX_FRAMES,
    choose_labels,
    code_colors,
    draw_timeline,
    draw_tokens,
    format_time,
    mel_position,
    read_spectrogram,
)


RATE = 16000
EXTRACTOR = BeatsFeatureExtractor()


def noise(seconds: float, seed: int = 0) -> np.ndarray:
    return (0.1 * np.random.default_rng(seed).standard_normal(round(seconds * RATE))).astype(np.float32)


def fbank_decibels(waveform, num_frames: int | None = None) -> np.ndarray:
    fbank = EXTRACTOR(waveform, sampling_rate=RATE, return_tensors="np")["input_values"][0][:num_frames]
    decibels = (fbank * 2 * EXTRACTOR.fbank_std + EXTRACTOR.fbank_mean) * 10 / np.log(10)
    return decibels - decibels.max()


@pytest.mark.parametrize("seconds", [0.03, 0.16, 0.18, 1.0, 3.217])
def test_the_spectrogram_is_what_the_model_sees(seconds):
    waveform = noise(seconds)
    spectrogram = read_spectrogram(waveform, EXTRACTOR)
    num_frames = max(1, 1 + (len(waveform) - 400) // 160)
    assert spectrogram.frame_seconds == 0.01
    np.testing.assert_allclose(spectrogram.decibels, fbank_decibels(waveform, num_frames), atol=1e-2)


# Of 40.03 s, the frame that is left over is one too many.
@pytest.mark.parametrize("seconds", [19.9, 20.4, 40.03, 41.0, 60.03])
def test_long_recordings_are_shown_by_the_loudest_frames(seconds):
    waveform = noise(seconds)
    spectrogram = read_spectrogram(waveform, EXTRACTOR)
    factor = round(spectrogram.frame_seconds / 0.01)
    expected = fbank_decibels(waveform)
    assert len(spectrogram.decibels) <= MAX_FRAMES
    assert factor == 2 ** max(0, int(np.ceil(np.log2(len(expected) / MAX_FRAMES))))
    pooled = [expected[start : start + factor].max(axis=0) for start in range(0, len(expected), factor)]
    np.testing.assert_allclose(spectrogram.decibels, pooled, atol=1e-2)


def test_memory_does_not_grow_with_length():
    def peak(seconds: int) -> int:
        stream = AudioStream("noise", (noise(1, second) for second in range(seconds)), RATE)
        tracemalloc.start()
        spectrogram = read_spectrogram(stream, EXTRACTOR)
        assert spectrogram.seconds == pytest.approx(seconds, abs=spectrogram.frame_seconds + 0.02)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return peak

    assert peak(240) < 1.5 * peak(30)


def test_a_file_that_cannot_be_read_is_an_error(tmp_path):
    with pytest.raises(AudioError, match="no such file"):
        read_spectrogram(tmp_path / "missing.wav", EXTRACTOR)


@pytest.mark.parametrize("frequency", [250.0, 1000.0, 4000.0])
def test_ticks_are_at_the_filters_that_hear_their_frequency(frequency):
    tone = np.sin(2 * np.pi * frequency * np.arange(RATE) / RATE).astype(np.float32)
    loudest = read_spectrogram(tone, EXTRACTOR).decibels.mean(axis=0).argmax()
    assert mel_position(frequency, 128, RATE) == pytest.approx(loudest, abs=1)


def test_the_labels_with_the_highest_scores_are_shown_in_order_of_time():
    events = [Event(f"label {index}", 0.5 + index / 100, float(index), index + 1.0) for index in range(20)]
    assert choose_labels(events) == [f"label {index}" for index in range(8, 20)]


def test_times_are_written_as_people_write_them():
    assert [format_time(time, 0.5) for time in (0, 1.5)] == ["0.0", "1.5"]
    assert [format_time(time, 0.02) for time in (0, 0.02)] == ["0.00", "0.02"]
    assert [format_time(time, 60) for time in (0, 90, 3600, 5400)] == ["0:00", "1:30", "1:00:00", "1:30:00"]


def test_the_picture_shows_events_under_their_time(tmp_path):
    soundfile.write(tmp_path / "clip.wav", noise(4), RATE)
    spectrogram = read_spectrogram(tmp_path / "clip.wav", EXTRACTOR)
    draw_timeline(spectrogram, [], tmp_path / "none.png", "cost: $5 and $6.wav")
    draw_timeline(spectrogram, [Event("a $ b", 1.0, 0.0, 1.0)], tmp_path / "event.png")
    assert [path.name for path in sorted(tmp_path.glob("*.png"))] == ["event.png", "none.png"]
    picture = matplotlib.image.imread(tmp_path / "event.png")
    # The dark blue of a score of 1, below the spectrogram and left of the colour bar.
    is_blue = (picture[..., 2] > 0.35) & (picture[..., 0] < 0.1)
    rows, columns = np.nonzero(is_blue[:, : picture.shape[1] * 8 // 10])
    assert rows.min() > picture.shape[0] / 2
    width = columns.max() - columns.min()
    assert width == pytest.approx(0.21 * picture.shape[1], rel=0.1)


def test_silence_is_drawn_as_silence():
    silence = np.zeros(2 * RATE, dtype=np.float32)
    assert (read_spectrogram(silence, EXTRACTOR).decibels < -DYNAMIC_RANGE_DB).all()
    # The noise of the last of 16 bits is no silence, but nearly.
    faint = np.random.default_rng(0).integers(-1, 2, 2 * RATE).astype(np.int16)
    assert -30 < read_spectrogram(faint, EXTRACTOR).decibels.max() <= 0
    # However loud, the loudest point is at 0.
    for scale in (0.01, 1.0):
        assert read_spectrogram(scale * noise(2), EXTRACTOR).decibels.max() == 0


@pytest.fixture
def figures(monkeypatch):
    """Those that are drawn, instead of being saved."""
    figures = []
    monkeypatch.setattr(timeline, "_save", lambda figure, path: figures.append(figure))
    return figures


def test_a_very_short_clip_has_its_event_and_its_ticks(figures, tmp_path):
    spectrogram = read_spectrogram(noise(0.04), EXTRACTOR)
    draw_timeline(spectrogram, [Event("dog", 1.0, 0.0, 0.16)], tmp_path / "picture.png")
    draw_timeline(spectrogram, [], tmp_path / "picture.png")
    assert figures[0].axes[1].get_xlim() == (0, 0.16)
    below = figures[1].axes[1]
    assert below.get_xlim() == (0, 0.02)
    labels = [label.get_text() for label in below.get_xticklabels()]
    assert {"0.00", "0.01", "0.02"} <= set(labels)


def test_a_long_path_is_shortened_to_the_name_of_the_file(figures, tmp_path):
    events = [Event(f"label {index}", 0.5, 0.0, 1.0) for index in range(13)]
    draw_timeline(read_spectrogram(noise(1), EXTRACTOR), events, tmp_path / "picture.png", "folder/" * 30 + "name.wav")
    above, below = figures[0].axes[:2]
    title = above.get_title(loc="left")
    assert title.startswith("…")
    assert title.endswith("folder/name.wav")
    assert len(title) == 90
    # What is left out is said where no title is.
    assert above.get_title(loc="right") == ""
    assert "1 labels with lower scores" in below.get_title(loc="right")


@pytest.mark.parametrize("name", ["b\udcff.wav", "new\nline\t\x07.wav", "日本語.wav"])
def test_any_name_can_be_drawn(name, tmp_path):
    events = [Event(name, 0.9, 0.0, 1.0)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        draw_timeline(read_spectrogram(noise(1), EXTRACTOR), events, tmp_path / "picture.png", name)
    assert (tmp_path / "picture.png").stat().st_size > 1000


def test_without_matplotlib_the_message_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match="pip install"):
        draw_timeline(read_spectrogram(noise(1), EXTRACTOR), [], tmp_path / "picture.png")


# Tokens


@pytest.mark.parametrize(("rate", "labels"), [(16000, ["0.2", "0.5", "1", "2", "4"]), (4000, ["0.2", "0.5", "1"])])
def test_ticks_are_inside_both_pictures_at_any_rate(rate, labels, tmp_path, monkeypatch):
    figures = []
    monkeypatch.setattr(timeline, "_save", lambda figure, path: figures.append(figure))
    extractor = BeatsFeatureExtractor(feature_size=64, sampling_rate=rate)
    codes = Columns(np.zeros((4, 4), dtype=int), first=0, column_seconds=0.16)
    draw_tokens(codes, np.eye(8), extractor, tmp_path / "tokens.png")
    draw_timeline(read_spectrogram(noise(1)[:rate], extractor), [], tmp_path / "timeline.png")
    for figure in figures:
        axes = figure.axes[0]
        assert [label.get_text() for label in axes.get_yticklabels()] == labels
        low, high = axes.get_ylim()
        assert all(low < tick < high for tick in axes.get_yticks())


def test_similar_codes_have_similar_colors():
    codebook = np.random.default_rng(0).standard_normal((64, 8)) * [9, 8, 7, 1, 1, 1, 1, 1]
    colors = code_colors(np.concatenate([codebook, codebook + 1e-3]))
    assert colors.shape == (128, 3)
    assert np.ptp(colors, axis=0) == pytest.approx([1, 1, 1])
    assert np.abs(colors[:64] - colors[64:]).max() < 0.05


def test_tokens_are_drawn_with_a_cell_for_each(tmp_path):
    codebook = np.random.default_rng(0).standard_normal((4, 8))
    codes = Columns(np.arange(4).repeat(8).reshape(4, 8), first=0, column_seconds=0.16)
    draw_tokens(codes, codebook, EXTRACTOR, tmp_path / "tokens.png")
    pixels = matplotlib.image.imread(tmp_path / "tokens.png")[:, :, :3]
    for color in code_colors(codebook):
        assert (np.abs(pixels - color).max(axis=2) < 0.01).sum() > 1000
    assert [path.name for path in tmp_path.iterdir()] == ["tokens.png"]
