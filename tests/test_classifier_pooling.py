# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Heads that pool patches or layers otherwise than by their mean, against their equations in NumPy."""

import json

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model

from transformers_beats import BeatsFeatureExtractor, BeatsForAudioClassification
from transformers_beats import BeatsForAudioFrameClassification as FrameClassifier
from transformers_beats.export.waveform_model import WaveformModel
from transformers_beats.modeling_beats import patch_mask_from_frame_mask


POOLINGS = ["attention", "class_attention", "prototypes"]
HEADS = [
    *({"classifier_pooling": pooling} for pooling in POOLINGS),
    {"use_weighted_layer_sum": True, "layer_weights": "attention"},
    {"use_weighted_layer_sum": True, "layer_weights": "attention", "classifier_pooling": "prototypes"},
]


def build(tiny_config, model_class=BeatsForAudioClassification, **values):
    """A model whose queries and statistics are not those of an untrained one."""
    torch.manual_seed(0)
    for name, value in values.items():
        setattr(tiny_config, name, value)
    tiny_config.num_prototypes = 6
    model = model_class(tiny_config).eval()
    with torch.no_grad():
        for name, value in model.state_dict().items():
            if name.startswith(("pooling.", "layer_average.")):
                value.copy_(torch.rand(value.shape) + 0.5 if name.endswith("std") else torch.randn(value.shape))
    return model


@pytest.fixture
def inputs():
    """Two clips of 203 frames, the second padded from frame 120 on."""
    attention_mask = torch.ones(2, 203, dtype=torch.int32)
    attention_mask[1, 120:] = 0
    values = torch.randn(2, 203, 128, generator=torch.Generator().manual_seed(0))
    return {"input_values": values, "attention_mask": attention_mask}


def softmax(values: np.ndarray) -> np.ndarray:
    exponentials = np.exp(values - values.max(axis=0))
    return exponentials / exponentials.sum(axis=0)


def states_of(model, inputs) -> list[np.ndarray]:
    """Valid patches of each clip in all layers, float64 `(num_layers, num_patches, hidden_size)`."""
    with torch.no_grad():
        states = torch.stack(model(**inputs, output_hidden_states=True).hidden_states).double().numpy()
    mask = patch_mask_from_frame_mask(inputs["attention_mask"], model.config).numpy()
    return [states[:, clip, mask[clip]] for clip in range(len(mask))]


def arrays_of(model) -> dict[str, np.ndarray]:
    return {name: tensor.double().numpy() for name, tensor in model.state_dict().items()}


def expected_logits(model, patches: np.ndarray) -> np.ndarray:
    """Logits of a clip from its patches `(num_patches, hidden_size)`, by the equations of the poolings."""
    arrays = arrays_of(model)
    weight, bias = arrays["classifier.weight"], arrays["classifier.bias"]
    pooling = model.config.classifier_pooling
    if pooling == "mean":
        return weight @ patches.mean(axis=0) + bias
    if pooling == "prototypes":
        patches = (patches - arrays["pooling.mean"]) / arrays["pooling.std"]
        signs = np.where(arrays["pooling.prototypes"] >= 0, 1.0, -1.0)
        cosines = (patches @ signs.T) / np.linalg.norm(patches, axis=1)[:, None] / np.sqrt(patches.shape[1])
        return weight @ (np.sqrt(patches.shape[1]) * cosines.max(axis=0)) + bias
    pooled = [softmax(patches @ query / np.sqrt(patches.shape[1])) @ patches for query in arrays["pooling.query"]]
    pooled = pooled * len(bias) if pooling == "attention" else pooled
    return np.array([row @ vector for row, vector in zip(weight, pooled)]) + bias


@pytest.mark.parametrize("head", HEADS, ids=str)
def test_logits_are_those_of_the_equations(head, tiny_config, inputs):
    model = build(tiny_config, **head)
    with torch.no_grad():
        found = model(**inputs).logits.numpy()
    for logits, states in zip(found, states_of(model, inputs)):
        patches = states[-1]
        if "use_weighted_layer_sum" in head:
            arrays = arrays_of(model)
            terms = states.mean(axis=1) @ arrays["layer_average.query"] / np.sqrt(states.shape[-1])
            patches = np.tensordot(softmax(arrays["layer_average.weight"] + terms), states, axes=1)
        np.testing.assert_allclose(logits, expected_logits(model, patches), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("head", HEADS, ids=str)
def test_a_clip_alone_is_as_in_a_batch(head, tiny_config):
    model, extractor = build(tiny_config, **head), BeatsFeatureExtractor()
    clips = [0.1 * np.random.default_rng(n).standard_normal(n).astype(np.float32) for n in (30000, 9000, 2000)]
    with torch.no_grad():
        together = model(**extractor(clips, sampling_rate=16000, return_tensors="pt")).logits
        for clip, logits in zip(clips, together):
            alone = model(**extractor(clip, sampling_rate=16000, return_tensors="pt")).logits
            torch.testing.assert_close(alone[0], logits, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("head", HEADS, ids=str)
def test_a_clip_of_nothing_but_padding_has_the_bias_or_less(head, tiny_config, inputs):
    model = build(tiny_config, **head)
    inputs["attention_mask"][1] = 0
    with torch.no_grad():
        logits = model(**inputs).logits[1]
    nothing = torch.zeros(5) if model.pooling is None else model.classifier.bias
    torch.testing.assert_close(logits, nothing)


@pytest.mark.parametrize("head", HEADS, ids=str)
def test_heads_are_saved_whole(head, tiny_config, inputs, tmp_path):
    model = build(tiny_config, **head)
    model.save_pretrained(tmp_path)
    again = BeatsForAudioClassification.from_pretrained(tmp_path).eval()
    assert again.state_dict().keys() == model.state_dict().keys()
    assert torch.equal(again(**inputs).logits, model(**inputs).logits)
    saved = json.loads((tmp_path / "config.json").read_text())
    assert {name: saved[name] for name in head} == head


@pytest.mark.parametrize("head", HEADS, ids=str)
def test_heads_learn_and_are_one_graph(head, tiny_config, inputs):
    model = build(tiny_config, **head)
    model(**inputs, labels=torch.tensor([1, 3])).loss.backward()
    learned = {name: parameter.grad for name, parameter in model.named_parameters() if not name.startswith("beats.")}
    assert all(gradient is not None and gradient.abs().max() > 0 for gradient in learned.values())
    if not torch.__version__.startswith("2.6."):
        compiled = torch.compile(model, fullgraph=True, backend="eager")
        torch.testing.assert_close(compiled(**inputs).logits, model(**inputs).logits)


def test_prototypes_learn_through_their_signs(tiny_config):
    pooling = build(tiny_config, classifier_pooling="prototypes").pooling
    patches = torch.randn(1, 1, tiny_config.hidden_size)
    similarities = pooling(patches, None)
    similarities.sum().backward()
    # Straight-through: the gradient of the product of patch and signs, as if the signs were the prototypes.
    patch = torch.nn.functional.normalize((patches[0, 0] - pooling.mean) / pooling.std, dim=0)
    torch.testing.assert_close(pooling.prototypes.grad, patch.expand(6, -1))
    with torch.no_grad():
        pooling.prototypes.mul_(3.0)
    assert torch.equal(pooling(patches, None), similarities)


def test_untrained_queries_are_the_mean(tiny_config, inputs):
    torch.manual_seed(0)
    mean = BeatsForAudioClassification(tiny_config).eval()
    for pooling in ("attention", "class_attention"):
        tiny_config.classifier_pooling = pooling
        model = BeatsForAudioClassification(tiny_config).eval()
        model.load_state_dict(mean.state_dict(), strict=False)
        torch.testing.assert_close(model(**inputs).logits, mean(**inputs).logits)


def test_time_columns_may_read_attention_over_layers(tiny_config, inputs):
    model = build(tiny_config, FrameClassifier, use_weighted_layer_sum=True, layer_weights="attention")
    assert model(**inputs).logits.shape == (2, 12, 5)


@pytest.mark.parametrize("head", HEADS, ids=str)
def test_the_module_for_export_computes_the_same(head, tiny_config):
    model, extractor = build(tiny_config, **head), BeatsFeatureExtractor()
    clip = 0.1 * np.random.default_rng(0).standard_normal(20000).astype(np.float32)
    with torch.no_grad():
        expected = model(**extractor(clip, sampling_rate=16000, return_tensors="pt")).logits
        found = WaveformModel(model, extractor)(torch.from_numpy(clip)[None], torch.tensor([len(clip)]))[0]
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("head", HEADS, ids=str)
def test_adapters_of_the_classifier_count_in_every_pooling(head, tiny_config, inputs):
    model = build(tiny_config, **head)
    expected = model(**inputs).logits
    adapted = get_peft_model(model, LoraConfig(target_modules=["classifier"], init_lora_weights=False))
    assert (adapted(**inputs).logits - expected).abs().max() > 1e-3
    with adapted.disable_adapter():
        torch.testing.assert_close(adapted(**inputs).logits, expected)
