# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Last screen of a fine-tuning, and the names of datasets in it."""

import json
import shlex

import numpy as np
import pytest
import soundfile
from tiny import ENCODER, TRAINING

from transformers_beats import BeatsConfig, BeatsForAudioClassification, BeatsForAudioFrameClassification, BeatsModel
from transformers_beats.training import evaluate as evaluate_module
from transformers_beats.training.classifiers import name_dataset
from transformers_beats.training.closing import is_of_events
from transformers_beats.training.config.arguments import FINETUNE_ARGUMENTS, Arguments
from transformers_beats.training.config.recipes import build_arguments
from transformers_beats.training.finetune import finetune
from transformers_beats.utils.errors import BeatsError


@pytest.mark.parametrize(
    ("model_class", "expected"),
    [(BeatsForAudioFrameClassification, True), (BeatsForAudioClassification, False), (BeatsModel, False)],
)
def test_a_directory_tells_whether_its_model_is_of_events(tmp_path, model_class, expected):
    assert not is_of_events(tmp_path)
    model_class(BeatsConfig(**ENCODER)).save_pretrained(tmp_path)
    assert is_of_events(tmp_path) == expected


@pytest.mark.usefixtures("no_pictures")
def test_the_next_command_works_for_a_model_of_events(tmp_path, capsys):
    sounds, table, report = tmp_path / "sounds", tmp_path / "events.tsv", tmp_path / "report"
    sounds.mkdir()
    for number in range(4):
        waveform = 0.1 * np.random.default_rng(number).standard_normal(16000)
        soundfile.write(sounds / f"{number}.wav", waveform, 16000)
    rows = [f"{number}.wav\t0.0\t0.5\t{'ab'[number % 2]}" for number in range(4)]
    table.write_text("\n".join(["filename\tonset\toffset\tevent_label", *rows]) + "\n")
    recipe = {
        "dataset": str(sounds),
        "event_files": str(table),
        "output_dir": str(tmp_path / "model"),
        "model_config": ENCODER,
        **TRAINING,
        "max_steps": 1,
        "save_strategy": "no",
        "eval_strategy": "no",
    }
    finetune(Arguments(*build_arguments(FINETUNE_ARGUMENTS, recipe)))
    command = capsys.readouterr().out.splitlines()[-1]
    assert "--event_files LABELS" in command
    values = {"FOLDER": str(sounds), "LABELS": str(table), "REPORT": str(report)}
    evaluate_module.main([values.get(word, word) for word in shlex.split(command)[2:]])
    result = json.loads((report / "metrics.json").read_text())
    # A second has several columns.
    assert result["num_clips"] == 4 < result["num_moments"]
    # Without labels of events, whether classes could be read from folders or not.
    (tmp_path / "folders").mkdir()
    sounds.rename(tmp_path / "folders" / "a")
    for folder in (tmp_path / "folders" / "a", tmp_path / "folders"):
        words = ["--model", recipe["output_dir"], "--dataset", str(folder), "--output_dir", str(tmp_path / "second")]
        with pytest.raises(
            BeatsError, match=r"^There are no labels of events: name files of events with `event_files`"
        ):
            evaluate_module.main(words)


def test_several_datasets_stay_apart():
    assert name_dataset("sounds") == name_dataset(["sounds"]) == "sounds"
    assert name_dataset(["a, b", "c"]) == ["a, b", "c"]
