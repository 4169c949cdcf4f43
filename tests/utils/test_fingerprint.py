# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
import pytest
import torch

from transformers_beats import (
    BeatsFeatureExtractor,
    BeatsForAudioClassification,
    BeatsForAudioFrameClassification,
    BeatsModel,
)
from transformers_beats.utils.fingerprint import model_fingerprint


@pytest.fixture
def model(tiny_config):
    return BeatsModel(tiny_config)


def test_a_fingerprint_is_as_long_as_a_commit(model):
    assert len(bytes.fromhex(model_fingerprint(model))) == 20


def test_a_fingerprint_follows_the_weights(model):
    before = model_fingerprint(model)
    with torch.no_grad():
        next(model.parameters()).view(-1)[0] += 1
    assert model_fingerprint(model) != before


def test_saving_leaves_the_fingerprint_alone(model, tmp_path):
    before = model_fingerprint(model)
    model.save_pretrained(tmp_path)
    assert model_fingerprint(model) == before == model_fingerprint(BeatsModel.from_pretrained(tmp_path))


def test_a_fingerprint_follows_the_kind_of_a_head(tiny_config):
    clips, frames = BeatsForAudioClassification(tiny_config), BeatsForAudioFrameClassification(tiny_config)
    frames.load_state_dict(clips.state_dict())
    assert model_fingerprint(clips) != model_fingerprint(frames)


def test_a_fingerprint_follows_the_settings(model):
    before = model_fingerprint(model)
    model.config.legacy_padding_mask = True
    assert model_fingerprint(model) != before


def test_a_fingerprint_is_the_same_with_other_thresholds_of_events(model):
    before = model_fingerprint(model)
    model.config.event_settings = {"dog": {"threshold": 0.3}}
    assert model_fingerprint(model) == before


def test_a_fingerprint_follows_the_feature_extractor(model):
    fingerprints = {model_fingerprint(model, extractor) for extractor in (None, BeatsFeatureExtractor())}
    fingerprints.add(model_fingerprint(model, BeatsFeatureExtractor(fbank_mean=0.0)))
    assert len(fingerprints) == 3


def test_an_update_of_transformers_leaves_the_fingerprint_alone(model, monkeypatch):
    before = model_fingerprint(model)
    monkeypatch.setattr("transformers.configuration_utils.__version__", "99.0.0")
    assert '"transformers_version": "99.0.0"' in model.config.to_json_string()
    assert model_fingerprint(model) == before


def test_a_setting_that_an_older_version_did_not_know_leaves_the_fingerprint_alone(model):
    before = model_fingerprint(model, BeatsFeatureExtractor())
    extractor = BeatsFeatureExtractor()
    del model.config.frames_per_second, extractor.legacy_padding_mask
    assert model_fingerprint(model, extractor) == before
    model.config.frames_per_second = 50
    assert model_fingerprint(model, extractor) != before
