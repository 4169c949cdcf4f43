# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Models inside wrappers, with code of their own, and with feature extractors of others, wherever a model is taken."""

from functools import partial

import numpy as np
import peft
import pytest
import torch
from transformers import ASTFeatureExtractor, AutoFeatureExtractor, AutoModelForAudioClassification, pipeline
from transformers.dynamic_module_utils import get_class_from_dynamic_module

from transformers_beats import (
    BeatsAudioTaggingPipeline,
    BeatsFeatureExtractor,
    BeatsForAudioClassification,
    BeatsForAudioFrameClassification,
    BeatsForPreTraining,
    BeatsModel,
    WindowedInference,
)
from transformers_beats.export.waveform_model import WaveformModel
from transformers_beats.inference.models import kind_of, merge_adapters, unwrap


RATE = 16000
CLIP = np.random.default_rng(0).standard_normal(30_000).astype(np.float32) * 0.1


@pytest.fixture
def directory(tiny_config, tmp_path):
    torch.manual_seed(0)
    tiny_config.problem_type = "multi_label_classification"
    BeatsForAudioClassification(tiny_config).save_pretrained(tmp_path / "model")
    BeatsFeatureExtractor().save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def load_by_remote_code(directory):
    model_class = get_class_from_dynamic_module("modeling_beats.BeatsForAudioClassification", directory)
    extractor_class = get_class_from_dynamic_module("feature_extraction_beats.BeatsFeatureExtractor", directory)
    assert not issubclass(model_class, BeatsForAudioClassification)
    return model_class.from_pretrained(directory), extractor_class.from_pretrained(directory)


def add_adapter(model, b=0.0, task=None):
    settings = peft.LoraConfig(r=2, target_modules=["q_proj"], modules_to_save=["classifier"], task_type=task)
    model = peft.get_peft_model(model, settings).eval()
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.constant_(parameter, b)
    return model


WRAPPERS = {
    "peft": add_adapter,
    "peft of classifiers": partial(add_adapter, task="SEQ_CLS"),
    "peft of features": partial(add_adapter, task="FEATURE_EXTRACTION"),
    "compiled": lambda model: torch.compile(model, backend="eager"),
    "parallel": torch.nn.DataParallel,
    "both": lambda model: torch.compile(add_adapter(model), backend="eager"),
}


@pytest.mark.usefixtures("compiler")
@pytest.mark.parametrize("how", [*WRAPPERS, "remote code"])
def test_wrapped_models_are_taken_everywhere(how, directory):
    plain = AutoModelForAudioClassification.from_pretrained(directory)
    extractor = AutoFeatureExtractor.from_pretrained(directory)
    expected = WindowedInference(plain, extractor)
    model = AutoModelForAudioClassification.from_pretrained(directory)
    if how == "remote code":
        model, extractor = load_by_remote_code(directory)
    else:
        model = WRAPPERS[how](model)
    assert kind_of(model) == "clips"
    inference = WindowedInference(model, extractor)
    np.testing.assert_allclose(inference.classify(CLIP, RATE).scores, expected.classify(CLIP, RATE).scores, atol=1e-6)
    np.testing.assert_allclose(inference.embed(CLIP, RATE), expected.embed(CLIP, RATE), atol=1e-5)
    module = WaveformModel(model, extractor)
    with torch.no_grad():
        scores = module(torch.from_numpy(CLIP)[None], torch.tensor([len(CLIP)]))[1][0]
    np.testing.assert_allclose(scores, expected.classify(CLIP, RATE).scores, atol=1e-6)
    if how != "parallel":
        # transformers' pipelines ask a model for its device.
        tagger = pipeline("audio-tagging", model=model, feature_extractor=extractor)
        assert len(tagger(CLIP, return_events=True)["labels"]) == 5


@pytest.mark.parametrize("steps", [False, True])
@pytest.mark.parametrize("task", [None, "TOKEN_CLS"])
def test_a_wrapped_frame_level_model_gives_the_scores_that_it_has_alone(task, steps, tiny_config):
    torch.manual_seed(0)
    tiny_config.frame_pooling = "sequence" if steps else tiny_config.frame_pooling
    model = BeatsForAudioFrameClassification(tiny_config).eval()
    extractor = BeatsFeatureExtractor()
    expected = WindowedInference(model, extractor).frames(CLIP, RATE).values
    wrapped = add_adapter(model, task=task)
    found = WindowedInference(wrapped, extractor).frames(CLIP, RATE).values
    np.testing.assert_allclose(found, expected, atol=1e-6)
    tagger = pipeline("audio-tagging", model=wrapped, feature_extractor=extractor)
    assert len(tagger(CLIP, return_events=True)["labels"]) == min(5, tiny_config.num_labels)


def test_an_adapter_is_merged_for_export_into_a_copy(directory):
    model = add_adapter(AutoModelForAudioClassification.from_pretrained(directory), b=0.3)
    inputs = BeatsFeatureExtractor()(CLIP, sampling_rate=RATE, return_tensors="pt")
    before = model(**inputs).logits
    merged = merge_adapters(torch.compile(model, backend="eager"))
    assert type(merged) is BeatsForAudioClassification
    assert merged.state_dict().keys() == BeatsForAudioClassification(merged.config).state_dict().keys()
    torch.testing.assert_close(merged(**inputs).logits, before)
    torch.testing.assert_close(model(**inputs).logits, before)


def test_kinds_of_models(tiny_config):
    assert kind_of(BeatsModel(tiny_config)) == "encoder"
    assert kind_of(BeatsForPreTraining(tiny_config)) is None
    assert kind_of(torch.nn.Linear(2, 2)) is None
    assert unwrap(torch.nn.Linear(2, 2)).in_features == 2


def test_extractors_of_other_models_are_refused(directory):
    model, other = BeatsForAudioClassification.from_pretrained(directory), ASTFeatureExtractor()
    for use in (WindowedInference, WaveformModel, BeatsAudioTaggingPipeline):
        with pytest.raises(ValueError, match="A ASTFeatureExtractor is no feature extractor of a BEATs model"):
            use(model=model, feature_extractor=other)
