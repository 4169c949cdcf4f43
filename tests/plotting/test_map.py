# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Maps of embeddings."""

import numpy as np
import pytest
from PIL import Image


pytest.importorskip("matplotlib", reason="pictures need matplotlib")

from transformers_beats.plotting import map as map_module
from transformers_beats.plotting.map import MAX_GROUPS, draw_map


@pytest.fixture
def figures(monkeypatch):
    """Figures that are saved, beside their files."""
    saved, save = [], map_module.save_figure

    def keep(figure, path):
        saved.append(figure)
        save(figure, path)

    monkeypatch.setattr(map_module, "save_figure", keep)
    return saved


def test_every_group_has_a_colour_and_a_name(tmp_path, figures):
    points = np.random.default_rng(0).standard_normal((9, 2))
    draw_map(points, ["rain", "dog", "$x$"] * 3, tmp_path / "map.png", "an index", np.array([0.5, 0.25]))
    with Image.open(tmp_path / "map.png") as picture:
        assert picture.format == "PNG"
    (figure,) = figures
    (axes,) = figure.axes
    assert axes.get_xlabel() == "Principal component 1 (50% of the variance)"
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["$x$", "dog", "rain"]
    drawn = np.concatenate([points.get_offsets() for points in axes.collections])
    assert sorted(map(tuple, drawn)) == sorted(map(tuple, points))
    assert len({tuple(points.get_facecolor()[0]) for points in axes.collections}) == 3


def test_groups_are_named_as_they_are_called(tmp_path, figures):
    names = ["5 others", "_background_noise_", "__pycache__", "_", "$_x$", "rain", *map(str, range(MAX_GROUPS - 1))]
    draw_map(np.random.default_rng(0).standard_normal((len(names), 2)), names, tmp_path / "map.png")
    found = [text.get_text() for text in figures[0].legends[0].get_texts()]
    # Groups of one size have colours in the order of their names.
    assert found == [f"{len(names) - MAX_GROUPS} others", *sorted(names)[:MAX_GROUPS]]
    names = ["_background_noise_", "_", "yes"]
    draw_map(np.zeros((3, 2)), names, tmp_path / "map.png")
    assert [text.get_text() for text in figures[1].legends[0].get_texts()] == sorted(names)


def test_of_many_groups_the_largest_have_colours(tmp_path, figures):
    groups = [f"group {number:02}" for number in range(MAX_GROUPS + 5) for _ in range(1 + (number > 4))]
    draw_map(np.random.default_rng(0).standard_normal((len(groups), 2)), groups, tmp_path / "map.png")
    names = [text.get_text() for text in figures[0].legends[0].get_texts()]
    assert names == ["5 others", *(f"group {number:02}" for number in range(5, MAX_GROUPS + 5))]
