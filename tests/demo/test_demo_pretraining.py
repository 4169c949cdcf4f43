# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""The demo of pre-training, with a model and a training as small as they go, and the learning curves."""

import json
import re
from dataclasses import replace
from io import StringIO

import datasets
import numpy as np
import pytest
import soundfile
import torch
from PIL import Image
from rich.console import Console

from transformers_beats import (
    BeatsConfig,
    BeatsFeatureExtractor,
    BeatsForAudioClassification,
    BeatsModel,
    BeatsTokenizerModel,
)
from transformers_beats.audio.synthesis import CLASSES, MAX_DURATION, MIN_DURATION, make_dataset
from transformers_beats.demo import pretraining
from transformers_beats.demo.__main__ import main
from transformers_beats.demo.inference import DemoError
from transformers_beats.demo.pretraining import (
    Accuracies,
    PretrainingSettings,
    build_recipe,
    build_table,
    pooled_features,
    run_pretraining,
)
from transformers_beats.demo.training import featurize
from transformers_beats.training.config.arguments import IterateArguments
from transformers_beats.training.config.recipes import build_arguments
from transformers_beats.training.reports import curves
from transformers_beats.training.reports.curves import LogHistoryError, draw_curves, name_models, read_log_history
from transformers_beats.training.trainers.pretraining import CodebookCollapseError


TINY = PretrainingSettings(
    clips_per_class=1,
    model_steps=2,
    tokenizer_steps=2,
    labelled_per_class=1,
    held_out_per_class=1,
    draws=2,
    fine_tuning_steps=1,
)
SIZE = (round(curves.WIDTH * curves.DPI), round(curves.HEIGHT * curves.DPI))


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """With tensors as small as here, and other work on the machine, threads mostly wait for each other."""
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(num_threads)


def tiny_model() -> BeatsForAudioClassification:
    config = BeatsConfig(
        embed_dim=16,
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        num_conv_pos_embeddings=4,
        num_conv_pos_embedding_groups=2,
        id2label=dict(enumerate(CLASSES)),
        label2id={label: index for index, label in enumerate(CLASSES)},
        problem_type="single_label_classification",
    )
    return BeatsForAudioClassification(config)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A tiny model, and a cache that no other run has filled."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pretraining, "build_model", tiny_model)
        patch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))
        yield


def run(output, settings=TINY) -> str:
    """What the demo prints."""
    console = Console(file=StringIO(), width=80, highlight=False)
    run_pretraining(output, settings, console)
    return console.file.getvalue()


@pytest.fixture(scope="module")
def finished(tiny, tmp_path_factory):
    """Directory and print of a whole run."""
    output = tmp_path_factory.mktemp("output")
    return output, run(output)


def rows_of(printed: str) -> dict[str, list[str]]:
    """Cells of the table, by the title of their row."""
    titles = ("Linear probe, accuracy", "Fine-tuned, accuracy", *(title for title, _, _ in pretraining.LOGGED))
    lines = [(title, line.strip()) for line in printed.splitlines() for title in titles]
    return {title: re.split(" {2,}", line[len(title) :].strip()) for title, line in lines if line.startswith(title)}


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


class TestRun:
    def test_files(self, finished):
        output, _ = finished
        assert sorted(path.name for path in output.iterdir()) == ["pretraining", "pretraining-curves.png"]
        check_picture(output / "pretraining-curves.png")
        for number in (1, 2):
            model_dir = output / "pretraining" / f"iteration-{number}" / "model"
            assert BeatsModel.from_pretrained(model_dir).config.hidden_size == 32
            entries = read_log_history(model_dir)
            assert [entry["step"] for entry in entries] == [1, 2]
            assert all(0 <= entry["accuracy"] <= 1 < entry["code_perplexity"] for entry in entries)
        BeatsTokenizerModel.from_pretrained(output / "pretraining" / "iteration-2" / "tokenizer")

    def test_sounds_are_those_of_all_classes_without_their_names(self, finished):
        output, _ = finished
        (sounds,) = (output / "pretraining").glob("sounds-*")
        files = sorted(sounds.iterdir())
        assert [file.name for file in files] == [f"sound-{index:04d}.wav" for index in range(len(CLASSES))]
        for file, row in zip(files, make_dataset(1, TINY.seed).with_format("numpy")):
            waveform, rate = soundfile.read(file, dtype="float32")
            assert rate == 16000
            assert MIN_DURATION <= len(waveform) / rate <= MAX_DURATION
            np.testing.assert_allclose(waveform, row["audio"], atol=2**-15)

    def test_table_says_what_was_logged(self, finished):
        output, printed = finished
        rows = rows_of(printed)
        models = [output / "pretraining" / f"iteration-{number}" / "model" for number in (1, 2)]
        first, second = (read_log_history(model)[-1] for model in models)
        assert {title: cells for title, cells in rows.items() if "accuracy" not in title} == {
            "Masked codes predicted": ["-", f"{first['accuracy']:.1%}", f"{second['accuracy']:.1%}"],
            "Cross-entropy (nats)": ["-", f"{first['loss']:.2f}", f"{second['loss']:.2f}"],
            "Unigram entropy (nats)": ["-", f"{first['code_entropy']:.2f}", f"{second['code_entropy']:.2f}"],
            "Code perplexity": ["-", f"{first['code_perplexity']:.0f}", f"{second['code_perplexity']:.0f}"],
            "Codes alive": ["-", f"{first['codes_alive']:.0%}", f"{second['codes_alive']:.0%}"],
        }
        for title in ("Linear probe, accuracy", "Fine-tuned, accuracy"):
            assert len(rows[title]) == 3
            for cell in rows[title]:
                # Of two draws, with ten held-out clips each.
                assert float(cell.partition("% ± ")[0]) % 5 == 0
        assert max(len(line.rstrip()) for line in printed.partition("Models and recipe")[0].splitlines()) <= 80

    def test_recipe_is_one_of_the_training_commands(self, finished, monkeypatch):
        output, _ = finished
        words = ["--config", str(output / "pretraining" / "recipe.yaml")]
        (arguments,) = pretraining.parse_arguments((IterateArguments,), words)
        assert arguments.output_dir == str(output / "pretraining")
        assert arguments.model["max_steps"] == 2

    def test_second_run_takes_the_models_as_they_are(self, finished, tiny, monkeypatch):
        output, printed = finished
        weights = sorted((output / "pretraining").glob("*/model/model.safetensors"))
        before = [path.stat().st_mtime_ns for path in weights]
        assert len(before) == 2
        assert rows_of(run(output)) == rows_of(printed)
        assert [path.stat().st_mtime_ns for path in weights] == before


class TestRestart:
    def test_goes_on_after_an_interruption(self, tiny, tmp_path, monkeypatch, capsys):
        iterate = pretraining.iterate

        def interrupted(arguments):
            arguments.num_iterations = 1
            iterate(arguments)
            raise KeyboardInterrupt

        monkeypatch.setattr(pretraining, "iterate", interrupted)
        monkeypatch.setattr(pretraining, "PretrainingSettings", lambda seed: replace(TINY, draws=1, seed=seed))
        argv = ["--pretrain", "--output", str(tmp_path)]
        assert main(argv) == 130
        assert capsys.readouterr().err.splitlines()[-1] == "interrupted"
        assert [path.name for path in tmp_path.iterdir()] == ["pretraining"]
        first = (tmp_path / "pretraining" / "iteration-1" / "model" / "model.safetensors").stat().st_mtime_ns

        monkeypatch.setattr(pretraining, "iterate", iterate)
        assert main(argv) == 0
        assert "iteration 2" in capsys.readouterr().out
        assert (tmp_path / "pretraining" / "iteration-1" / "model" / "model.safetensors").stat().st_mtime_ns == first

    def test_sounds_are_written_whole_or_not_at_all(self, tmp_path, monkeypatch):
        written = []

        def write(path, *args):
            if len(written) == 3:
                raise KeyboardInterrupt
            written.append(path)
            path.touch()

        monkeypatch.setattr(soundfile, "write", write)
        with pytest.raises(KeyboardInterrupt):
            pretraining.write_sounds(tmp_path / "sounds", TINY)
        assert len(written) == 3
        assert list(tmp_path.iterdir()) == []

    def test_other_settings_start_anew(self, tiny, tmp_path):
        run_dir = tmp_path / "pretraining"
        pretraining.prepare_run(run_dir, build_recipe(run_dir, TINY))
        (run_dir / "iteration-1").mkdir()
        pretraining.prepare_run(run_dir, build_recipe(run_dir, TINY))
        assert (run_dir / "iteration-1").exists()
        for settings in (replace(TINY, seed=1), replace(TINY, clips_per_class=2), replace(TINY, model_steps=3)):
            (run_dir / "iteration-1").mkdir(exist_ok=True)
            pretraining.prepare_run(run_dir, build_recipe(run_dir, settings))
            assert [path.name for path in run_dir.iterdir()] == ["recipe.yaml"]
        assert list(tmp_path.iterdir()) == [run_dir]

    def test_collapse_is_one_line(self, tiny, tmp_path, monkeypatch, capsys):
        def collapse(arguments):
            raise CodebookCollapseError("The codebook collapsed.")

        monkeypatch.setattr(pretraining, "iterate", collapse)
        with pytest.raises(DemoError, match=r"collapsed\. Or try another --seed"):
            run(tmp_path)


class TestPooledFeatures:
    def test_are_the_pooler_output_of_each_clip_alone(self, tiny, tmp_path):
        clips = featurize(make_dataset(1, 0), BeatsFeatureExtractor()).select([0, 1, 2])
        torch.manual_seed(0)
        model = tiny_model()
        model.save_pretrained(tmp_path)
        features = pooled_features(tmp_path, clips, seed=0)
        assert features.shape == (3, 32)
        for row, clip in zip(features, clips):
            with torch.no_grad():
                expected = model.beats.eval()(clip["input_values"].unsqueeze(0)).pooler_output[0]
            np.testing.assert_allclose(row, expected, atol=1e-5)

    def test_an_untrained_encoder_has_the_weights_of_the_seed(self, tiny):
        clips = featurize(make_dataset(1, 0), BeatsFeatureExtractor()).select([0, 1])
        first, again, other = (pooled_features(None, clips, seed) for seed in (0, 0, 1))
        np.testing.assert_array_equal(first, again)
        assert np.abs(first - other).max() > 1e-3


class TestSettings:
    def test_default_recipe_is_accepted(self, tmp_path):
        recipe = build_recipe(tmp_path, PretrainingSettings(seed=3))
        (arguments,) = build_arguments((IterateArguments,), recipe)
        config = pretraining.build_model().config
        for section in ("model", "tokenizer"):
            assert getattr(arguments, section)["seed"] == 3
            for name in pretraining.ENCODER_KEYS:
                assert getattr(arguments, section)["model_config"][name] == getattr(config, name)
        assert arguments.random_projection["seed"] == 3

    def test_encoder_of_the_classifier_is_that_of_the_recipe(self, tmp_path):
        """A setting missing from `ENCODER_KEYS` would change the model between pre-training and fine-tuning."""
        config = build_recipe(tmp_path, PretrainingSettings())["model"]["model_config"]
        pretrained, scratch = BeatsModel(BeatsConfig(**config)), pretraining.build_model().beats
        shapes, expected = (
            {name: tensor.shape for name, tensor in model.state_dict().items()} for model in (pretrained, scratch)
        )
        assert shapes == expected

    def test_table_of_a_start_without_log(self):
        found = {"from scratch": Accuracies([0.3, 0.5], [0.5, 0.7]), "other": Accuracies([0.1], [0.25])}
        cells = [list(column.cells) for column in build_table(found, {}).columns]
        assert cells[1] == ["40.0% ± 14.1%", "60.0% ± 14.1%", "-", "-", "-", "-", "-"]
        assert cells[2] == ["10.0%", "25.0%", "-", "-", "-", "-", "-"]


class TestCommandLine:
    def test_pretrain_takes_nothing_else(self, capsys):
        for argv in (["--pretrain", "door.wav"], ["--pretrain", "--model", "my-beats"]):
            with pytest.raises(SystemExit) as exit_info:
                main(argv)
            assert exit_info.value.code == 2
            assert "--pretrain takes neither clips nor --model" in capsys.readouterr().err

    def test_output_that_is_a_file(self, tmp_path, capsys):
        (tmp_path / "file").touch()
        assert main(["--pretrain", "--output", str(tmp_path / "file")]) == 1
        assert capsys.readouterr().err.startswith("error: ")


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
    def test_errors(self, tmp_path, capsys, history, message):
        model_dir = tmp_path / "model"
        if history is not None:
            write_log(model_dir, history)
        with pytest.raises(LogHistoryError, match=f"{model_dir}.*{message}") as error:
            read_log_history(model_dir)
        assert "\n" not in str(error.value)
        assert curves.main([str(model_dir), "--output", str(tmp_path / "curves.png")]) == 1
        assert capsys.readouterr().err == f"error: {error.value}\n"
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

    def test_a_single_entry_and_many_models(self, tmp_path):
        draw_curves({str(number): [entry(1)] for number in range(10)}, tmp_path / "curves.png")
        check_picture(tmp_path / "curves.png")

    def test_interruption_leaves_the_older_picture(self, tmp_path, monkeypatch):
        (tmp_path / "curves.png").write_bytes(b"old")

        def interrupt(figure, path, **kwargs):
            path.write_bytes(b"half")
            raise KeyboardInterrupt

        monkeypatch.setattr(curves.Figure, "savefig", interrupt)
        with pytest.raises(KeyboardInterrupt):
            draw_curves({"model": [entry(1)]}, tmp_path / "curves.png")
        assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("curves.png", b"old")]

    def test_command(self, tmp_path, capsys):
        models = [write_log(tmp_path / f"iteration-{number}" / "model", [entry(1), entry(2)]) for number in (1, 2)]
        picture = tmp_path / "curves.png"
        # Given twice, a model is drawn once.
        assert curves.main([*map(str, [*models, models[0]]), "--output", str(picture)]) == 0
        assert capsys.readouterr().out == f"{picture}\n"
        check_picture(picture)
        assert curves.main([str(models[0]), "--output", str(tmp_path / "nowhere" / "curves.png")]) == 1
        assert "cannot be written: No such file" in capsys.readouterr().err
