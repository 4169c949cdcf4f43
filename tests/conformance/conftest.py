# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
import re
from unittest import mock

import pytest


# Markers of transformers' common tests, which `--strict-markers` wants declared.
TRANSFORMERS_MARKERS = ("accelerate_tests", "flash_attn_test", "flash_attn_3_test", "flash_attn_4_test")
TRANSFORMERS_MARKERS += ("torch_compile_test",)


def pytest_configure(config):
    for marker in TRANSFORMERS_MARKERS:
        config.addinivalue_line("markers", f"{marker}: declared by transformers")


def pytest_ignore_collect(config):
    """Importing these test modules downloads transformers' tests: only when `-m` asks for them."""
    expression = config.option.markexpr
    if expression and not re.search(r"(?<!not )\bconformance\b", expression):
        return True
    return None


@pytest.fixture(autouse=True)
def mapping_names():
    """
    Adds our classes to transformers' tables of class names, in which the common tests look up what a class is.
    `AutoModel.register` leaves these tables alone.
    """
    from transformers.models.auto import modeling_auto

    # The tokenizer contains a BeatsModel, which the test of `base_model_prefix` is to find.
    base_models = {"beats": "BeatsModel", "beats_tokenizer": ("BeatsTokenizerModel", "BeatsModel")}
    classifiers = {"beats": ("BeatsForAudioClassification", "BeatsForAudioFrameClassification")}
    with (
        mock.patch.dict(modeling_auto.MODEL_MAPPING_NAMES, base_models),
        mock.patch.dict(modeling_auto.MODEL_FOR_AUDIO_CLASSIFICATION_MAPPING_NAMES, classifiers),
    ):
        yield
