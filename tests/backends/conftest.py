# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""A cache of the tests' own. An export takes seconds: those of one session share the cache, by their fingerprints."""

from weakref import WeakSet

import pytest
import torch
from encoders import CONFIG, EXTRACTOR, with_one_encoder

from transformers_beats import BeatsConfig, BeatsForAudioClassification
from transformers_beats.backends import encoder
from transformers_beats.inference import backend


@pytest.fixture(scope="session")
def cache(tmp_path_factory):
    """The cache of the session."""
    return tmp_path_factory.mktemp("cache with spaces")


@pytest.fixture(scope="session")
def saved_model(tmp_path_factory):
    """Directory of a classifier."""
    directory = tmp_path_factory.mktemp("models") / "a classifier"
    torch.manual_seed(1)
    with_one_encoder(BeatsForAudioClassification(BeatsConfig(**CONFIG))).save_pretrained(directory)
    EXTRACTOR.save_pretrained(directory)
    return directory


@pytest.fixture(autouse=True)
def directory(cache, monkeypatch):
    """The cache in the place of the user's; nothing was said yet."""
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", cache)
    monkeypatch.setattr(backend, "_told", set())
    monkeypatch.setattr(backend, "_failed", WeakSet())
    return cache


@pytest.fixture
def exports(monkeypatch):
    """The precisions of the exports of a test."""
    made, export = [], encoder.export_encoder

    def count(model, precision, path):
        made.append(precision)
        export(model, precision, path)

    monkeypatch.setattr(encoder, "export_encoder", count)
    return made
