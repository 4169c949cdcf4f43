# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""The demo of pre-training, with a model and a training as small as they go."""

import re
from dataclasses import replace
from io import StringIO

import datasets
import pytest
import soundfile
from PIL import Image
from rich.console import Console
from tiny import empty_pictures

from transformers_beats import BeatsModel, BeatsTokenizerModel
from transformers_beats.audio.synthesis import CLASSES, MAX_DURATION, MIN_DURATION
from transformers_beats.cli.app import app
from transformers_beats.demo import pretraining
from transformers_beats.demo.pretraining import PretrainingSettings, build_recipe, build_table, run_pretraining
from transformers_beats.demo.training import ENCODER
from transformers_beats.training.config.iterations import IterateArguments
from transformers_beats.training.config.recipes import build_arguments, parse_arguments
from transformers_beats.training.iterate import iterate
from transformers_beats.training.reports.curves import read_log_history
from transformers_beats.training.trainers.pretraining import CodebookCollapseError
from transformers_beats.utils.errors import BeatsError, UsageError


TINY = PretrainingSettings(
    clips_per_class=1,
    model_steps=2,
    tokenizer_steps=2,
    labelled_per_class=1,
    held_out_per_class=1,
    draws=2,
    fine_tuning_steps=1,
)
TINY_ENCODER = ENCODER | {"embed_dim": 16, "hidden_size": 32, "num_hidden_layers": 1, "intermediate_size": 32}


def run_demo(words: list[str]) -> None:
    """Runs the command line; raises the `SystemExit` of a failure."""
    try:
        app(["demo", *words])
    except SystemExit as error:
        if error.code:
            raise


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A tiny model, no pictures of the evaluations, and a cache that no other run has filled."""
    with empty_pictures(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(pretraining, "ENCODER", TINY_ENCODER)
        patch.setattr(pretraining, "PretrainingSettings", lambda seed: replace(TINY, seed=seed))
        patch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))
        yield


def run(output, settings=TINY) -> str:
    """What the demo prints."""
    console = Console(file=StringIO(), width=80, highlight=False)
    run_pretraining(output, settings, console)
    return console.file.getvalue()


@pytest.fixture(scope="module")
def interrupted(tiny, tmp_path_factory):
    """Directory of a run that was interrupted after the first iteration."""
    output = tmp_path_factory.mktemp("output")

    def iterate_once(arguments):
        arguments.num_iterations = 1
        iterate(arguments)
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pretraining, "iterate", iterate_once)
        with pytest.raises(KeyboardInterrupt):
            run(output)
    return output


@pytest.fixture(scope="module")
def finished(interrupted):
    """Directory and print of a whole run, which went on after an interruption."""
    assert [path.name for path in interrupted.iterdir()] == ["pretraining"]
    (model,) = interrupted.glob("pretraining/*/model/model.safetensors")
    before = model.stat().st_mtime_ns
    printed = run(interrupted)
    assert model.stat().st_mtime_ns == before
    return interrupted, printed


def rows_of(printed: str) -> dict[str, list[str]]:
    """Cells of the table, by the title of their row."""
    titles = (pretraining.PROBED, pretraining.FINE_TUNED, *(title for title, _ in pretraining.LOGGED))
    lines = [(title, line.strip()) for line in printed.splitlines() for title in titles]
    return {title: re.split(" {2,}", line[len(title) :].strip()) for title, line in lines if line.startswith(title)}


class TestRun:
    def test_files(self, finished):
        output, _ = finished
        assert sorted(path.name for path in output.iterdir()) == ["pretraining", "pretraining-curves.png"]
        with Image.open(output / "pretraining-curves.png") as image:
            assert image.format == "PNG"
        for number in (1, 2):
            model_dir = output / "pretraining" / f"iteration-{number}" / "model"
            assert BeatsModel.from_pretrained(model_dir).config.hidden_size == 32
            entries = read_log_history(model_dir)
            assert [entry["step"] for entry in entries] == [1, 2]
            assert all(0 <= entry["accuracy"] <= 1 < entry["code_perplexity"] for entry in entries)
        BeatsTokenizerModel.from_pretrained(output / "pretraining" / "iteration-2" / "tokenizer")

    def test_sounds_for_pretraining_do_not_tell_their_class(self, finished):
        output, _ = finished
        files = sorted((output / "pretraining" / "sounds").iterdir())
        assert [file.name for file in files] == [f"sound-{index:04d}.wav" for index in range(len(CLASSES))]
        assert all(MIN_DURATION <= soundfile.info(file).duration <= MAX_DURATION for file in files)

    def test_every_draw_has_other_labelled_clips(self, finished):
        output, _ = finished
        draws = [sorted((output / "pretraining" / f"labelled-{draw}").glob("*/*.wav")) for draw in (1, 2)]
        assert [[file.parent.name for file in files] for files in draws] == [list(CLASSES)] * 2
        assert all(first.read_bytes() != second.read_bytes() for first, second in zip(*draws))

    def test_table_says_what_was_logged(self, finished):
        output, printed = finished
        rows = rows_of(printed)
        models = [output / "pretraining" / f"iteration-{number}" / "model" for number in (1, 2)]
        first, second = (read_log_history(model)[-1] for model in models)
        assert {title: cells for title, cells in rows.items() if "accuracy" not in title} == {
            title: ["-", f"{first[key]:.3f}", f"{second[key]:.3f}"] for title, key in pretraining.LOGGED
        }
        for title in (pretraining.PROBED, pretraining.FINE_TUNED):
            assert len(rows[title]) == 3
            for cell in rows[title]:
                # Of two draws, with ten held-out clips each.
                assert round(1000 * float(cell.partition(" ± ")[0])) % 50 == 0

    def test_prints_nothing_but_the_result_in_lines_of_80_characters(self, finished):
        _, printed = finished
        lines = [line.rstrip() for line in printed.partition("Models and recipe")[0].splitlines()]
        assert max(map(len, lines)) <= 80
        assert lines[0].startswith("Pre-training on 10 synthesised sounds")
        assert "macro_f1" not in printed

    def test_recipe_is_one_of_the_training_commands(self, finished):
        output, _ = finished
        (arguments,) = parse_arguments((IterateArguments,), ["--config", str(output / "pretraining" / "recipe.yaml")])
        assert arguments.output_dir == str(output / "pretraining")
        assert arguments.model["max_steps"] == 2

    def test_second_run_takes_the_models_as_they_are(self, finished, tiny, capsys):
        output, printed = finished
        weights = sorted((output / "pretraining").glob("*/model/model.safetensors"))
        before = [path.stat().st_mtime_ns for path in weights]
        assert len(before) == 2
        run_demo(["--pretrain", "--output", str(output)])
        assert rows_of(capsys.readouterr().out) == rows_of(printed)
        assert [path.stat().st_mtime_ns for path in weights] == before

    def test_other_settings_need_another_output(self, finished, tiny):
        output, _ = finished
        with pytest.raises(UsageError, match="begun with another `seed`"):
            run(output, replace(TINY, seed=1))


class TestFailure:
    def test_interruption_is_one_line(self, tiny, tmp_path, monkeypatch, capsys):
        def interrupt(arguments):
            raise KeyboardInterrupt

        monkeypatch.setattr(pretraining, "iterate", interrupt)
        with pytest.raises(SystemExit) as exit_info:
            run_demo(["--pretrain", "--output", str(tmp_path)])
        assert exit_info.value.code == 130
        assert capsys.readouterr().err.splitlines()[-1] == "interrupted"

    def test_collapse_is_one_line(self, tiny, tmp_path, monkeypatch):
        def collapse(arguments):
            raise CodebookCollapseError("The codebook collapsed.")

        monkeypatch.setattr(pretraining, "iterate", collapse)
        with pytest.raises(BeatsError, match=r"collapsed\. Or try another --seed"):
            run(tmp_path)


class TestSettings:
    def test_default_recipe_is_accepted(self, tmp_path):
        recipe = build_recipe(tmp_path, PretrainingSettings(seed=3))
        (arguments,) = build_arguments((IterateArguments,), recipe)
        for section in ("model", "tokenizer"):
            assert getattr(arguments, section)["seed"] == 3
        assert arguments.random_projection["seed"] == 3

    def test_table_of_a_start_without_log(self):
        found = {
            "from scratch": {pretraining.PROBED: [0.3, 0.5], pretraining.FINE_TUNED: [0.5, 0.7]},
            "other": {pretraining.PROBED: [0.1], pretraining.FINE_TUNED: [0.25]},
        }
        cells = [list(column.cells) for column in build_table(found, {}).columns]
        assert cells[1] == ["0.400 ± 0.141", "0.600 ± 0.141", "-", "-", "-", "-", "-"]
        assert cells[2] == ["0.100", "0.250", "-", "-", "-", "-", "-"]


class TestCommandLine:
    def test_pretrain_takes_nothing_else(self, capsys):
        for argv in (["--pretrain", "door.wav"], ["--pretrain", "--model", "my-beats"]):
            with pytest.raises(SystemExit) as exit_info:
                run_demo(argv)
            assert exit_info.value.code == 2
            assert "--pretrain takes neither clips nor --model" in capsys.readouterr().err

    def test_output_that_is_a_file(self, tmp_path, capsys):
        (tmp_path / "file").touch()
        with pytest.raises(SystemExit) as exit_info:
            run_demo(["--pretrain", "--output", str(tmp_path / "file")])
        assert exit_info.value.code == 1
        assert capsys.readouterr().err.startswith("error: ")
