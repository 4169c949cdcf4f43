# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Model cards: what they say of models with and without an evaluation."""

import re

import numpy as np
import pytest
import soundfile
from huggingface_hub import ModelCard
from tiny import ENCODER

from transformers_beats import (
    BeatsConfig,
    BeatsFeatureExtractor,
    BeatsForAudioClassification,
    BeatsForAudioFrameClassification,
    BeatsModel,
)
from transformers_beats.training.reports.card import write_card


DESCRIPTION = {"base_model": "teacher", "training_dataset": "sounds"}
REPORT = {"metrics": {"accuracy": 0.5}, "num_clips": 8, "intervals": {}, "intervals_by": "", "notes": []}


def test_several_datasets_and_moments_are_named_each(tmp_path):
    BeatsForAudioFrameClassification(BeatsConfig(**ENCODER)).save_pretrained(tmp_path)
    BeatsFeatureExtractor().save_pretrained(tmp_path)
    datasets = ["someone/farm", str(tmp_path), "other/birds"]
    write_card(tmp_path, DESCRIPTION | {"training_dataset": datasets}, REPORT | {"num_moments": 1200})
    card = ModelCard.load(tmp_path / "README.md")
    assert card.data.datasets == ["someone/farm", "other/birds"]
    assert f" on someone/farm, {tmp_path.name}, other/birds." in card.text
    assert "has not learned from: 8 clips (1,200 moments)." in card.text


@pytest.mark.parametrize("model_class", [BeatsForAudioClassification, BeatsForAudioFrameClassification, BeatsModel])
def test_the_limits_of_a_model_are_those_of_its_evaluation(tmp_path, model_class):
    model_class(BeatsConfig(**ENCODER)).save_pretrained(tmp_path)
    BeatsFeatureExtractor().save_pretrained(tmp_path)
    for report in (None, REPORT):
        write_card(tmp_path, DESCRIPTION, report)
        card = (tmp_path / "README.md").read_text()
        limits = [line for line in card.partition("## Limits")[2].splitlines() if line]
        assert ("No clips were left out to evaluate on." in card) == (report is None)
        assert limits[0].startswith("- How good it is was not measured" if report is None else "- The figures hold")
        assert sum("figures" in line for line in limits) == (report is not None)
        # Then of the classes, which an encoder has none of.
        assert [line[:12] for line in limits[1:-1]] == ["- Scores are"] * (model_class is not BeatsModel)
        assert "\n\n\n" not in card.partition("## Limits")[2]


@pytest.mark.parametrize("model_class", [BeatsForAudioClassification, BeatsForAudioFrameClassification])
def test_the_code_of_a_card_runs_where_there_are_no_programs(tmp_path, model_class, monkeypatch, capsys):
    directory = tmp_path / "model"
    model_class(BeatsConfig(**ENCODER, num_labels=3)).save_pretrained(directory)
    BeatsFeatureExtractor().save_pretrained(directory)
    write_card(directory, DESCRIPTION)
    (code,) = re.findall("```python\n(.*?)```", (directory / "README.md").read_text(), re.DOTALL)
    # transformers' own pipeline decodes files with the program ffmpeg.
    monkeypatch.setenv("PATH", "")
    monkeypatch.chdir(tmp_path)
    soundfile.write("clip.wav", 0.1 * np.random.default_rng(0).standard_normal(22050), 22050)
    exec(code, {})
    assert capsys.readouterr().out.count("'label'") == 3


@pytest.mark.parametrize("model_class", [BeatsForAudioClassification, BeatsModel])
def test_a_card_says_that_a_licence_is_missing_and_tells_no_index_to_install_from(tmp_path, model_class):
    model_class(BeatsConfig(**ENCODER)).save_pretrained(tmp_path)
    BeatsFeatureExtractor().save_pretrained(tmp_path)
    write_card(tmp_path, DESCRIPTION, REPORT)
    card = ModelCard.load(tmp_path / "README.md")
    assert card.data.license is None
    licence = card.text.partition("\n## Licence\n\n")[2].partition("\n\n")[0]
    assert licence.startswith("None is stated yet.")
    assert "`license:`" in licence
    assert "pip install" not in card.text
    assert "With the package `transformers-beats` installed:\n\n```" in card.text
    assert "\n\n\n" not in card.text.partition("## Licence")[2]
