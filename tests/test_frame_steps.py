# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Frame-level heads with steps that are shorter than a time column: `frame_pooling="sequence"`."""

import numpy as np
import pytest
import torch
from huggingface_hub.errors import StrictDataclassError

from transformers_beats import BeatsConfig, BeatsFeatureExtractor
from transformers_beats import BeatsForAudioFrameClassification as FrameClassifier
from transformers_beats.modeling_beats import patch_mask_from_frame_mask, step_weights


def means_of_steps(patches: np.ndarray, num_steps: int) -> np.ndarray:
    """The definition, step by step: patches `(num_patches, dim)` to steps `(num_steps, dim)`."""
    count = len(patches)
    bounds = [(i * count // num_steps, -((-(i + 1) * count) // num_steps)) for i in range(num_steps)]
    return np.stack([patches[start:end].mean(axis=0) for start, end in bounds])


@pytest.fixture
def step_config(tiny_config) -> BeatsConfig:
    tiny_config.frame_pooling = "sequence"
    return tiny_config


@pytest.fixture
def model(step_config) -> FrameClassifier:
    torch.manual_seed(0)
    return FrameClassifier(step_config).eval()


@pytest.fixture
def clips() -> list[np.ndarray]:
    """Clips of 10 s, 4.321 s, 0.3 s, and one shorter than a column."""
    rng = np.random.default_rng(0)
    return [rng.standard_normal(n).astype(np.float32) * 0.1 for n in (160_000, 69_136, 4_800, 1_000)]


def extract(clips, **kwargs):
    return BeatsFeatureExtractor()(clips, sampling_rate=16_000, return_tensors="pt", padding=True, **kwargs)


def test_steps_of_a_clip_are_40_ms_whatever_its_length(step_config):
    frames = np.arange(16, 3_000)
    # A clip of so many frames of 25 ms, 10 ms apart, lasts two hundredths of a second more, give or take a half.
    expected = np.ceil((frames + 2) * 25 / 100 - 0.5)
    assert step_config.count_steps(frames).tolist() == expected.tolist()
    assert step_config.count_steps(998) == 250
    # Windows of whole columns have whole steps.
    assert [step_config.count_steps(16 * columns) for columns in (1, 62)] == [4, 248]
    assert BeatsConfig().count_steps(998) == 62
    assert (step_config.frames_per_step, BeatsConfig().frames_per_step) == (4, 16)


def test_steps_are_those_of_adaptive_pooling(step_config):
    states = torch.randn(2, 496, 7, dtype=torch.float64)
    members, is_valid = step_weights(998, None, torch.ones(2, 496, dtype=torch.bool), step_config)
    pooled = members.double() @ states / members.sum(2, keepdim=True)
    expected = torch.nn.functional.adaptive_avg_pool1d(states.transpose(1, 2), 250).transpose(1, 2)
    torch.testing.assert_close(pooled, expected, atol=1e-12, rtol=0)
    assert is_valid.all()
    assert sorted(set(members.sum(2).flatten().tolist())) == [2, 3]


@pytest.mark.parametrize("rate", [25, 50, 100])
def test_head_is_linear_on_the_means_of_valid_patches(rate, step_config, clips):
    step_config.frames_per_second = rate
    model = FrameClassifier(step_config).eval()
    inputs = extract(clips)
    with torch.no_grad():
        outputs = model(**inputs, output_hidden_states=True)
    states = outputs.hidden_states[-1].double().numpy()
    mask = patch_mask_from_frame_mask(inputs["attention_mask"], step_config).numpy()
    weight, bias = (parameter.detach().double().numpy() for parameter in model.classifier.parameters())
    assert outputs.logits.shape[1] == outputs.column_attention_mask.shape[1] == step_config.count_steps(998)
    for clip, frames in enumerate(inputs["attention_mask"].sum(1).tolist()):
        count = -(-frames * rate // 100)
        assert outputs.column_attention_mask[clip].tolist() == [1] * count + [0] * (outputs.logits.shape[1] - count)
        expected = means_of_steps(states[clip, mask[clip]], count) @ weight.T + bias
        np.testing.assert_allclose(outputs.logits[clip, :count].numpy(), expected, atol=1e-5)


def test_a_clip_alone_is_the_same_as_in_a_batch(model, clips):
    with torch.no_grad():
        together = model(**extract(clips))
        for index, clip in enumerate(clips):
            alone = model(**extract([clip]))
            count = alone.logits.shape[1]
            assert together.column_attention_mask[index].sum() == count == alone.column_attention_mask.sum()
            torch.testing.assert_close(together.logits[index, :count], alone.logits[0], atol=1e-5, rtol=0)


def test_every_valid_patch_and_the_classifier_have_gradients_and_padding_none(model, clips):
    inputs = extract(clips[:2])
    labels = torch.randint(5, (2, 250))
    loss = model(**inputs, labels=labels).loss
    loss.backward()
    assert model.classifier.weight.grad.abs().max() > 0
    assert all(torch.isfinite(parameter.grad).all() for parameter in model.parameters() if parameter.grad is not None)
    # Labels of steps beyond a clip do not count.
    count = int(model(**inputs).column_attention_mask[1].sum())
    labels[1, count:] = (labels[1, count:] + 1) % 5
    torch.testing.assert_close(model(**inputs, labels=labels).loss, loss)
    labels[1, count - 1] = (labels[1, count - 1] + 1) % 5
    assert not torch.equal(model(**inputs, labels=labels).loss, loss)


def test_a_clip_that_is_all_padding_has_no_steps(model, clips):
    inputs = extract(clips[:2])
    for num_frames in (0, 15):
        inputs["attention_mask"][1, num_frames:] = 0
        outputs = model(**inputs, labels=torch.ones(2, 250, dtype=torch.long))
        assert outputs.column_attention_mask.sum(1).tolist() == [250, 0]
        assert torch.isfinite(outputs.logits).all()
        assert torch.isfinite(outputs.loss)


def test_wrong_labels_name_the_step(model, clips):
    with pytest.raises(ValueError, match=r"\(1, 250\), got \(1, 62\). A step spans 4 frames"):
        model(**extract(clips[:1]), labels=torch.zeros(1, 62, dtype=torch.long))


def test_saved_and_loaded_it_is_the_same(model, clips, tmp_path):
    model.save_pretrained(tmp_path)
    loaded = FrameClassifier.from_pretrained(tmp_path).eval()
    assert (loaded.config.frame_pooling, loaded.config.frames_per_second) == ("sequence", 25)
    with torch.no_grad():
        inputs = extract(clips)
        assert torch.equal(loaded(**inputs).logits, model(**inputs).logits)


def test_it_compiles_as_one_graph(model, clips):
    torch._dynamo.reset()
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    with torch.no_grad():
        expected, outputs = model(**extract(clips[2:])), compiled(**extract(clips[2:]))
    torch.testing.assert_close(outputs.logits, expected.logits, atol=1e-5, rtol=0)
    assert torch.equal(outputs.column_attention_mask, expected.column_attention_mask)


@pytest.mark.parametrize("rate", [0, 6, 12, 30, 200])
def test_rates_that_divide_no_column_are_refused(rate):
    with pytest.raises(StrictDataclassError, match="`frames_per_second` must"):
        BeatsConfig(frame_pooling="sequence", frames_per_second=rate)
