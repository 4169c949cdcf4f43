# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Learning curves of pre-trained models."""

import json

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from transformers_beats.plotting.figures import DPI
from transformers_beats.training.reports import curves
from transformers_beats.training.reports.curves import draw_curves, name_models, read_log_history
from transformers_beats.utils.errors import BeatsError


SIZE = (round(curves.WIDTH * DPI), round(curves.HEIGHT * DPI))


def entry(step, **values):
    return {"step": step, "loss": 5.0, "accuracy": 0.1, "code_entropy": 5.5} | values


def write_log(directory, history):
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "log_history.json").write_text(history if isinstance(history, str) else json.dumps(history))
    return directory


def check_picture(path):
    assert [child.name for child in path.parent.iterdir() if child.name.endswith(".partial")] == []
    with Image.open(path) as image:
        image.load()
        assert image.format == "PNG"
        assert image.size == SIZE
        return image.convert("RGB")


class TestLogHistory:
    def test_keeps_training_steps_only(self, tmp_path):
        history = [entry(5), {"step": 5, "eval_loss": 4.0, "eval_accuracy": 0.2}, entry(10, loss=4.5)]
        write_log(tmp_path, [*history, {"step": 10, "train_loss": 4.75, "train_runtime": 1.0}])
        assert read_log_history(tmp_path) == [history[0], history[2]]

    @pytest.mark.parametrize(
        ("history", "message"),
        [
            (None, "log_history.json: cannot be read: No such file"),
            ("", "is not JSON"),
            ("{", "is not JSON"),
            ("{}", "must hold a list, but holds dict"),
            ([], "it is empty"),
            ([{"step": 1, "loss": 1.0, "distillation_loss": 1.0}, {"step": 1}], "none of its 2 entries has accuracy"),
        ],
    )
    def test_errors(self, tmp_path, history, message):
        model_dir = tmp_path / "model"
        if history is not None:
            write_log(model_dir, history)
        with pytest.raises(BeatsError, match=f"{model_dir}.*{message}") as error:
            curves.main([str(model_dir), "--output", str(tmp_path / "curves.png")])
        assert "\n" not in str(error.value)
        assert not (tmp_path / "curves.png").exists()


class TestCurves:
    @pytest.mark.parametrize(
        ("paths", "names"),
        [
            (["run/iteration-1/model"], ["iteration-1"]),
            (["mine"], ["mine"]),
            (["run/iteration-1/model", "run/iteration-2/model"], ["iteration-1", "iteration-2"]),
            (["runs/a/iteration-1/model", "runs/b/iteration-1/model"], ["a", "b"]),
            (["a/iteration-1/model", "b/iteration-2/model"], ["a/iteration-1", "b/iteration-2"]),
            (["a", "a/b"], [".", "b"]),
        ],
    )
    def test_names(self, paths, names):
        assert name_models([curves.Path(path) for path in paths]) == names

    def test_draws_every_model_in_its_colour(self, tmp_path):
        histories = {
            f"$model_{number}$": [entry(step, loss=5.0 - number - step / 100) for step in range(10, 110, 10)]
            for number in range(3)
        }
        draw_curves(histories, tmp_path / "curves.png")
        assert [path.name for path in tmp_path.iterdir()] == ["curves.png"]
        image = check_picture(tmp_path / "curves.png")
        pixels = np.asarray(image).reshape(-1, 3)
        for index, color in enumerate(curves.COLORS):
            rgb = [int(color[start : start + 2], 16) for start in (1, 3, 5)]
            # Text is black as well.
            if color != "#000000":
                assert (pixels == rgb).all(axis=1).any() == (index < 3), color

    def test_models_are_named_as_their_directories_are_called(self, tmp_path, monkeypatch):
        saved = []
        monkeypatch.setattr(curves, "save_figure", lambda figure, path: saved.append(figure))
        names = ["_first", "$second$", "third"]
        draw_curves({name: [entry(1)] for name in names}, tmp_path / "curves.png")
        assert [text.get_text() for text in saved[0].legends[0].get_texts()][:-1] == names
        assert not any(text.get_parse_math() for text in saved[0].legends[0].get_texts())

    def test_a_single_entry_and_many_models(self, tmp_path):
        draw_curves({str(number): [entry(1)] for number in range(10)}, tmp_path / "curves.png")
        check_picture(tmp_path / "curves.png")

    def test_interruption_leaves_the_older_picture(self, tmp_path, monkeypatch):
        (tmp_path / "curves.png").write_bytes(b"old")

        def interrupt(figure, path, **kwargs):
            path.write_bytes(b"half")
            raise KeyboardInterrupt

        monkeypatch.setattr(Figure, "savefig", interrupt)
        with pytest.raises(KeyboardInterrupt):
            draw_curves({"model": [entry(1)]}, tmp_path / "curves.png")
        assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("curves.png", b"old")]

    def test_command(self, tmp_path, capsys):
        models = [write_log(tmp_path / f"iteration-{number}" / "model", [entry(1), entry(2)]) for number in (1, 2)]
        picture = tmp_path / "curves.png"
        # Given twice, a model is drawn once.
        curves.main([*map(str, [*models, models[0]]), "--output", str(picture)])
        assert capsys.readouterr().out == f"{picture}\n"
        check_picture(picture)
        with pytest.raises(BeatsError, match=r"nowhere.curves\.png: cannot be written: No such file"):
            curves.main([str(models[0]), "--output", str(tmp_path / "nowhere" / "curves.png")])


class TestMeans:
    def test_is_that_of_points_where_all_have_the_same(self):
        epochs, means = curves.mean_curve([([1, 2, 3], [4.0, 2.0, 1.0]), ([1, 2], [2.0, 1.0])])
        assert (epochs.tolist(), means.tolist()) == ([1, 2], [3.0, 1.5])

    def test_is_drawn_between_the_points_of_folds_of_other_sizes(self):
        # One fold has 10 steps in an epoch, the other 11, and both are logged after every 10.
        first, second = ([1.0, 2.0, 3.0], [3.0, 2.0, 1.0]), ([10 / 11, 20 / 11, 30 / 11], [3.0, 2.0, 1.0])
        epochs, means = curves.mean_curve([first, second])
        assert epochs.tolist() == [1.0, 20 / 11, 2.0, 30 / 11]
        np.testing.assert_allclose(means[[0, 2]], [(3.0 + 2.9) / 2, (2.0 + 1.8) / 2])

    @pytest.mark.parametrize(
        "each",
        [[], [([1, 2], [1, 1])], [([1, 2], [1, 1]), ([2, 3], [1, 1])], [([1, 2], [1, 1]), ([3, 4], [1, 1])]],
    )
    def test_is_none_of_less_than_two_curves_or_epochs(self, each):
        assert curves.mean_curve(each) is None

    @pytest.mark.parametrize(("last", "num_lines"), [(2.0, 3), (1.0, 2)])
    def test_the_legend_names_what_is_drawn(self, last, num_lines):
        histories = {
            "fold 1": [{"epoch": epoch, "eval_loss": 1.0} for epoch in (1.0, 2.0)],
            "fold 2": [{"epoch": last * epoch, "eval_loss": 2.0} for epoch in (0.5, 1.0)],
        }
        axes = Figure().subplots()
        curves.draw_loss_on(axes, histories)
        assert len(axes.lines) == num_lines
        assert [text.get_text() for text in axes.get_legend().get_texts()] == ["validation"]
