# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
import sys
import warnings

import matplotlib.image
import numpy as np
import pytest
import soundfile

from transformers_beats import BeatsFeatureExtractor
from transformers_beats.inference.events import Event
from transformers_beats.inference.results import Columns
from transformers_beats.plotting import timeline
from transformers_beats.plotting.spectrogram import Spectrogram, read_spectrogram
from transformers_beats.plotting.timeline import choose_labels, code_colors, draw_timeline, draw_tokens
from transformers_beats.utils.errors import BeatsError


RATE = 16000
EXTRACTOR = BeatsFeatureExtractor()


def noise(seconds: float, seed: int = 0) -> np.ndarray:
    return (0.1 * np.random.default_rng(seed).standard_normal(round(seconds * RATE))).astype(np.float32)


def test_the_labels_with_the_highest_scores_are_shown_in_order_of_time():
    events = [Event(f"label {index}", 0.5 + index / 100, float(index), index + 1.0) for index in range(20)]
    assert choose_labels(events) == [f"label {index}" for index in range(8, 20)]


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


@pytest.fixture
def figures(monkeypatch):
    """Those that are drawn, instead of being saved."""
    figures = []
    monkeypatch.setattr(timeline, "save_figure", lambda figure, path: figures.append(figure))
    return figures


def test_the_axis_names_the_time_between_the_scores_of_a_frame_level_model(figures, tmp_path):
    spectrogram = read_spectrogram(noise(1), EXTRACTOR)
    draw_timeline(spectrogram, [Event("dog", 1.0, 0.04, 0.12)], tmp_path / "picture.png", frame_seconds=0.04)
    assert figures[0].axes[1].get_xlabel() == "Time (s), a score every 40 ms"


def test_a_very_short_clip_has_its_event_and_its_ticks(figures, tmp_path):
    spectrogram = read_spectrogram(noise(0.04), EXTRACTOR)
    draw_timeline(spectrogram, [Event("dog", 1.0, 0.0, 0.16)], tmp_path / "picture.png")
    draw_timeline(spectrogram, [], tmp_path / "picture.png")
    assert figures[0].axes[1].get_xlim() == (0, 0.16)
    assert figures[0].axes[1].get_xlabel() == "Time (s)"
    below = figures[1].axes[1]
    assert below.get_xlim() == (0, 0.02)
    labels = [label.get_text() for label in below.get_xticklabels()]
    assert {"0", "0.01", "0.02"} <= set(labels)


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


@pytest.mark.parametrize(
    ("seconds", "label", "ticks"),
    [
        (4, "Time (s)", ["0", "0.5", "1"]),
        (90, "Time (min:s)", ["0:00", "0:10", "0:20"]),
        (3600, "Time (min:s)", ["0:00", "5:00", "10:00"]),
        (7200, "Time (h:min:s)", ["0:00:00", "0:10:00", "0:20:00"]),
    ],
)
def test_the_label_of_the_time_axis_names_the_format_of_all_its_ticks(seconds, label, ticks, figures, tmp_path):
    spectrogram = Spectrogram(np.zeros((100, 128), dtype=np.float32), seconds / 100, RATE)
    draw_timeline(spectrogram, [], tmp_path / "picture.png")
    below = figures[0].axes[1]
    assert below.get_xlabel() == label
    shown = [text.get_text() for text, at in zip(below.get_xticklabels(), below.get_xticks()) if 0 <= at <= seconds]
    assert shown[:3] == ticks


@pytest.mark.parametrize("name", ["b\udcff.wav", "new\nline\t\x07.wav", "日本語.wav"])
def test_any_name_can_be_drawn(name, tmp_path):
    events = [Event(name, 0.9, 0.0, 1.0)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        draw_timeline(read_spectrogram(noise(1), EXTRACTOR), events, tmp_path / "picture.png", name)
    assert (tmp_path / "picture.png").stat().st_size > 1000


def test_without_matplotlib_the_message_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r"pip install 'transformers-beats\[demo\]'"):
        draw_timeline(read_spectrogram(noise(1), EXTRACTOR), [], tmp_path / "picture.png")


# Tokens


@pytest.mark.parametrize(("rate", "labels"), [(16000, ["0.2", "0.5", "1", "2", "4"]), (4000, ["0.2", "0.5", "1"])])
def test_ticks_are_inside_both_pictures_at_any_rate(rate, labels, tmp_path, monkeypatch):
    figures = []
    monkeypatch.setattr(timeline, "save_figure", lambda figure, path: figures.append(figure))
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


@pytest.mark.parametrize("shape", [(64, 1), (64, 2), (2, 8), (1, 8), (1, 1)])
def test_small_codebooks_have_colors_too(shape):
    codebook = np.random.default_rng(0).standard_normal(shape)
    colors = code_colors(codebook)
    assert colors.shape == (shape[0], 3)
    assert (colors >= 0).all()
    assert (colors <= 1).all()
    assert len(np.unique(colors, axis=0)) == shape[0]


def test_tokens_of_several_codebooks_are_not_drawn(tmp_path):
    codes = Columns(np.zeros((4, 8, 2), dtype=int), first=0, column_seconds=0.16)
    with pytest.raises(BeatsError, match="Tokens of 2 codebooks cannot be drawn"):
        draw_tokens(codes, np.zeros((4, 8)), EXTRACTOR, tmp_path / "tokens.png")
    assert not list(tmp_path.iterdir())


def test_tokens_are_drawn_with_a_cell_for_each(tmp_path):
    codebook = np.random.default_rng(0).standard_normal((4, 8))
    codes = Columns(np.arange(4).repeat(8).reshape(4, 8), first=0, column_seconds=0.16)
    draw_tokens(codes, codebook, EXTRACTOR, tmp_path / "tokens.png")
    pixels = matplotlib.image.imread(tmp_path / "tokens.png")[:, :, :3]
    for color in code_colors(codebook):
        assert (np.abs(pixels - color).max(axis=2) < 0.01).sum() > 1000
    assert [path.name for path in tmp_path.iterdir()] == ["tokens.png"]
