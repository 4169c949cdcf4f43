# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Pictures of anomalous sounds."""

import numpy as np
import pytest
from PIL import Image

from transformers_beats import BeatsFeatureExtractor
from transformers_beats.plotting import anomaly
from transformers_beats.plotting.anomaly import draw_anomaly
from transformers_beats.plotting.spectrogram import mel_edges, read_spectrogram


@pytest.fixture
def spectrogram():
    samples = 0.1 * np.random.default_rng(0).standard_normal(32000)
    return read_spectrogram(samples, BeatsFeatureExtractor(), 16000)


@pytest.mark.parametrize("num_bands", [8, 1])
def test_cells_and_bars_have_the_frequencies_of_the_bands(spectrogram, num_bands, tmp_path, monkeypatch):
    figures = []
    monkeypatch.setattr(anomaly, "save_figure", lambda figure, path: figures.append(figure))
    bands, moments = np.arange(num_bands) - 2.0, np.random.default_rng(0).normal(size=(12, num_bands))
    draw_anomaly(spectrogram, bands, moments, 0.16, tmp_path / "picture.png", "a $b$ clip")
    above, _, below, beside = figures[0].axes[:4]
    edges = mel_edges(128, 16000)[:: 128 // num_bands]
    bars = [(bar.get_y(), bar.get_y() + bar.get_height(), bar.get_width()) for bar in beside.patches]
    np.testing.assert_allclose(bars, np.stack([edges[:-1], edges[1:], bands], axis=1))
    assert beside.get_ylim() == below.get_ylim() == pytest.approx((edges[0], edges[-1]))
    cells = below.collections[0]
    np.testing.assert_allclose(np.ma.filled(cells.get_array()).reshape(num_bands, 12), moments.T)
    # White is 0.
    low, high = cells.get_clim()
    assert low == -high == pytest.approx(-np.abs(moments).max())
    assert above.get_title(loc="left") == "a $b$ clip"


def test_the_picture_is_a_png(spectrogram, tmp_path):
    draw_anomaly(spectrogram, np.zeros(8), np.zeros((1, 8)), 0.16, tmp_path / "picture.png")
    with Image.open(tmp_path / "picture.png") as picture:
        assert picture.format == "PNG"
        assert picture.size[0] > 1000
