# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Lines on the console: none of other packages that a user can do nothing about, and a last one that goes on."""

import re
import shlex

import numpy as np
import pytest
import soundfile
from tiny import ENCODER, TRAINING
from transformers.utils import logging

from transformers_beats.cli.app import app
from transformers_beats.inference.loading import load
from transformers_beats.training import compute_codes, fbank_statistics, pretrain, train_tokenizer
from transformers_beats.utils.machine import count_cpus


COMMAND = "from transformers_beats.cli.app import main; main()"
# Of this package; bars have a share of what is done.
OWN = re.compile(r"A step takes .* s of audio|`lora` does not use|Fold \d|Final model|.*\d+%\||\s*$")
FAST = [f"--{key}={value}" for key, value in TRAINING.items() if key not in ("disable_tqdm", "save_steps")]
MODEL = [f"--model_config.{key}={value}" for key, value in ENCODER.items()]


@pytest.fixture
def classes(tmp_path):
    """A folder of two classes, whose name is to be quoted in a shell."""
    generator = np.random.default_rng(0)
    for label in ("dog", "rain"):
        (tmp_path / "my sounds" / label).mkdir(parents=True)
        for number in range(4):
            path = tmp_path / "my sounds" / label / f"{number}.wav"
            soundfile.write(path, 0.1 * generator.standard_normal(16000), 16000)
    return tmp_path / "my sounds"


@pytest.mark.parametrize(
    "options",
    [
        # Checkpoints are written within a second.
        ["--eval_share", "0.5", "--early_stopping_patience", "1", "--num_train_epochs", "3", "--num_folds", "null"],
        # More workers than PyTorch takes without a warning.
        ["--num_folds", "2", "--max_steps", "1", "--lora.r", "2", "--dataloader_num_workers", str(1 + count_cpus())],
    ],
)
def test_a_finetuning_writes_no_lines_of_other_packages(fresh_python, models, classes, tmp_path, options):
    words = ["--config", "folder_finetune", "--dataset", classes, "--model_name_or_path", models / "beats_tiny"]
    words += ["--bf16", "false", "--per_device_train_batch_size", "4", "--crop_seconds", "1"]
    result = fresh_python(COMMAND, "finetune", *words, "--output_dir", tmp_path / "model", *options)
    assert result.returncode == 0, result.stderr
    lines = [line for line in re.split("[\r\n]", result.stderr.replace("\x1b[A", "")) if not OWN.match(line)]
    assert lines == []
    assert "Report: " in result.stdout


def test_an_adapter_is_loaded_as_the_classifier_that_was_trained(models, classes, tmp_path, recwarn):
    from transformers_beats.training.finetune import main

    words = ["--dataset", str(classes), "--model_name_or_path", str(models / "beats_tiny"), "--lora.r", "2"]
    main([*words, "--output_dir", str(tmp_path / "model"), "--max_steps", "1", "--crop_seconds", "1"])
    # Off while it trained, and not for what else this process loads.
    assert logging.is_progress_bar_enabled()
    model, _ = load(tmp_path / "model" / "adapter")
    assert list(model.config.id2label.values()) == ["dog", "rain"]
    assert not [warning for warning in recwarn if "peft" in warning.filename.lower()]


def run(command, words: list[str], capsys) -> tuple[list[str], str]:
    """Runs a command; returns the words of the one that it says comes next, and the line before."""
    command.main(words)
    *_, place, line = capsys.readouterr().err.splitlines()
    prefix = "Next: transformers-beats "
    assert line.startswith(prefix)
    following = shlex.split(line.removeprefix(prefix))
    assert following[0] in [name.name for name in app.registered_commands]
    return following[1:], place


def test_each_stage_of_pretraining_says_how_to_go_on(models, sounds, tmp_path, capsys):
    place = tmp_path / "my tokenizer"
    words = ["--teacher", str(models / "beats_tiny"), "--dataset", str(sounds), "--crop_seconds", "0.5"]
    words += [*FAST, *MODEL, "--model_config.codebook_size=16", "--min_perplexity=1", "--output_dir", str(place)]
    words, said = run(train_tokenizer, words, capsys)
    assert said == f"Tokenizer: {place}"
    codes = str(tmp_path / "codes")
    words, said = run(compute_codes, [codes if word == "CODES" else word for word in words], capsys)
    assert said == f"Codes: {codes}"
    model = str(tmp_path / "model")
    words = [model if word == "MODEL" else word for word in words]
    words, said = run(pretrain, [*words, *FAST, *MODEL], capsys)
    assert said == f"Model: {model}"
    assert words[words.index("--model_name_or_path") + 1] == model


def test_statistics_say_how_to_go_on(sounds, tmp_path, capsys):
    words, _ = run(fbank_statistics, ["--dataset", str(sounds), "--output_dir", str(tmp_path / "extractor")], capsys)
    assert words[words.index("--data.dataset") + 1] == str(sounds)
    assert words[words.index("--feature_extractor") + 1] == str(tmp_path / "extractor")
