# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
import contextlib
import copy
import json
import sys
import types
from dataclasses import fields

import pytest
import torch
from allocations import Allocations
from golden import CHECKPOINTS, ENCODERS, NUM_CLIPS
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers.modeling_outputs import BaseModelOutputWithPooling

from transformers_beats import (
    BeatsConfig,
    BeatsFeatureExtractor,
    BeatsForAudioClassification,
    BeatsForAudioFrameClassification,
    BeatsForPreTraining,
    BeatsModel,
    BeatsRandomProjectionTokenizer,
    BeatsRandomProjectionTokenizerConfig,
)
from transformers_beats.modeling_beats import (
    FLEX_WORKS_ON_CPU,
    BeatsAttention,
    BeatsFrameClassifierOutput,
    BeatsModelOutput,
    BeatsPositionalConvEmbedding,
    BeatsRelativePositionBias,
    masked_mean,
    patch_mask_from_frame_mask,
)


ATTENTION = [
    "eager",
    "sdpa",
    pytest.param("flex_attention", marks=pytest.mark.skipif(not FLEX_WORKS_ON_CPU, reason="refused on this CPU")),
]


pytestmark = pytest.mark.usefixtures("compiler")
CPU = torch.device("cpu")


@pytest.fixture
def inputs():
    """Two clips of 203 frames, the second padded from frame 120 on."""
    generator = torch.Generator().manual_seed(0)
    attention_mask = torch.ones(2, 203, dtype=torch.int32)
    attention_mask[1, 120:] = 0
    return {"input_values": torch.randn(2, 203, 128, generator=generator), "attention_mask": attention_mask}


def relative_error(actual: torch.Tensor, expected: torch.Tensor) -> float:
    return ((actual.float() - expected).norm() / expected.norm()).item()


# Equality with Microsoft's code


@pytest.mark.parametrize("attention", ATTENTION)
@pytest.mark.parametrize("name", CHECKPOINTS)
@torch.no_grad()
def test_single_clips_equal_the_reference(name, attention, golden_model, golden_outputs, golden_inputs):
    model, expected = golden_model(name), golden_outputs(name)
    model.set_attn_implementation(attention)
    assert model.config._attn_implementation == attention
    # Flex attention is compiled for every length.
    for index in range(1 if attention == "flex_attention" else NUM_CLIPS):
        outputs = model(golden_inputs[f"single{index}.fbank"], output_hidden_states=True)
        check_outputs(outputs, expected, f"single{index}", model.config)


@pytest.mark.parametrize("name", CHECKPOINTS)
@torch.no_grad()
def test_legacy_batches_equal_the_reference(name, golden_model, golden_outputs, golden_inputs, extract):
    model, expected = golden_model(name, legacy_padding_mask=True), golden_outputs(name)
    attention_mask = extract(legacy_padding_mask=True)["attention_mask"]
    outputs = model(golden_inputs["batch.fbank"], attention_mask=attention_mask, output_hidden_states=True)
    check_outputs(outputs, expected, "batch", model.config)
    mask = patch_mask_from_frame_mask(attention_mask, model.config)
    assert torch.equal(~mask, expected["batch.patch_padding_mask"])


@pytest.mark.parametrize(("patch_size", "num_mel_bins"), [(2, 4), (4, 16), (8, 64), (8, 16), (16, 128), (16, 144)])
@pytest.mark.parametrize("num_frames", [16, 63, 198])
def test_the_legacy_mask_is_the_references_for_any_patch_size(patch_size, num_mel_bins, num_frames):
    config = BeatsConfig(patch_size=patch_size, num_mel_bins=num_mel_bins, legacy_padding_mask=True)
    lengths = torch.tensor([num_frames, num_frames // 2, 1])
    attention_mask = torch.arange(num_frames) < lengths.unsqueeze(1)
    # As in Microsoft's `forward_padding_mask`, for the output of the patch convolution.
    num_patches = (num_frames // patch_size) * (num_mel_bins // patch_size)
    padding_mask = ~attention_mask
    if num_frames % num_patches > 0:
        padding_mask = padding_mask[:, : -(num_frames % num_patches)]
    expected = padding_mask.view(len(lengths), num_patches, -1).all(-1)
    assert torch.equal(~patch_mask_from_frame_mask(attention_mask, config), expected)


@pytest.mark.parametrize("patch_size", [2, 4, 8])
def test_the_legacy_mask_is_refused_where_there_are_more_patches_than_frames(patch_size):
    config = BeatsConfig(patch_size=patch_size)
    # Set afterwards, so that the configuration did not see it.
    config.legacy_padding_mask = True
    with pytest.raises(ValueError, match=f"undefined for 128 mel bins and patches of {patch_size}"):
        patch_mask_from_frame_mask(torch.ones(2, 64), config)


@pytest.mark.parametrize("patch_size", [2, 4, 8, 16])
def test_patches_of_any_size_are_valid_where_their_frames_are(patch_size):
    config = BeatsConfig(patch_size=patch_size)
    mask = patch_mask_from_frame_mask(torch.arange(32) < torch.tensor([[32], [17]]), config)
    assert mask.sum(dim=1).tolist() == [32 // patch_size * (128 // patch_size), 17 // patch_size * (128 // patch_size)]


def check_outputs(outputs, expected, prefix: str, config: BeatsConfig):
    """Compares whatever the reference recorded under `prefix` with our outputs."""
    actual = {f"hidden_state_{index}": states for index, states in enumerate(outputs.hidden_states)}
    if config.layer_norm_first:
        # transformers puts the last layer norm into the last hidden state, the reference does not.
        del actual[f"hidden_state_{config.num_hidden_layers}"]
    if "last_hidden_state" in outputs:
        actual["last_hidden_state"] = outputs.last_hidden_state
    if "logits" in outputs:
        actual["probabilities"] = outputs.logits.sigmoid()
    if "audio_codes" in outputs:
        actual["quantize_input"] = outputs.projected_states
        codes, labels = outputs.audio_codes.flatten(1), expected[f"{prefix}.labels"]
        assert torch.equal(codes[codes != -100], labels[codes != -100])
        assert torch.equal(codes != -100, outputs.patch_attention_mask)
    compared = [name for name in actual if f"{prefix}.{name}" in expected]
    assert compared or "audio_codes" in outputs
    for name in compared:
        torch.testing.assert_close(actual[name], expected[f"{prefix}.{name}"], rtol=0, atol=1e-5, msg=name)


def test_flex_attention_is_refused_where_it_is_wrong(monkeypatch, tiny_config, inputs):
    monkeypatch.setattr("transformers_beats.modeling_beats.FLEX_WORKS_ON_CPU", False)
    model = BeatsModel._from_config(tiny_config, attn_implementation="flex_attention").eval()
    with pytest.raises(ValueError, match=r"CPUs without AVX-512, and on all with PyTorch below 2\.13"):
        model(**inputs)


@torch.no_grad()
def test_patch_embedding_equals_the_reference(golden_model, golden_outputs, golden_inputs):
    embeddings = golden_model("beats_tiny").embeddings
    actual = embeddings.layer_norm(embeddings.patch_embeddings(golden_inputs["single0.fbank"]))
    torch.testing.assert_close(actual, golden_outputs("beats_tiny")["single0.patch_embedding"], rtol=0, atol=1e-6)


# Padding


@pytest.mark.parametrize("attention", ATTENTION)
@pytest.mark.parametrize("name", ENCODERS)
@torch.no_grad()
def test_a_clip_gives_the_same_alone_and_in_a_batch(name, attention, golden_model, extract):
    model = golden_model(name)
    model.set_attn_implementation(attention)
    batch = model(**extract())
    for index in range(NUM_CLIPS):
        alone = model(**extract(index))
        num_patches = alone.last_hidden_state.shape[1]
        assert batch.patch_attention_mask[index].sum() == num_patches
        torch.testing.assert_close(
            batch.last_hidden_state[index, :num_patches], alone.last_hidden_state[0], rtol=0, atol=1e-5
        )
        torch.testing.assert_close(batch.pooler_output[index], alone.pooler_output[0], rtol=0, atol=1e-5)


@torch.no_grad()
def test_logits_are_the_same_alone_and_in_a_batch(golden_model, extract):
    model = golden_model("beats_tiny_finetuned")
    batch = model(**extract()).logits
    for index in range(NUM_CLIPS):
        torch.testing.assert_close(batch[index], model(**extract(index)).logits[0], rtol=0, atol=1e-5)


@settings(max_examples=15, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 60_000), min_size=1, max_size=4),
    position=st.integers(0, 3),
    seed=st.integers(0, 2**16),
)
def test_neighbours_and_padding_never_change_a_clip(lengths, position, seed):
    config = BeatsConfig(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        embed_dim=16,
        num_conv_pos_embedding_groups=2,
        num_conv_pos_embeddings=16,
    )
    torch.manual_seed(0)
    model = BeatsModel(config).eval()
    generator = torch.Generator().manual_seed(seed)
    clips = [torch.rand(length, generator=generator) - 0.5 for length in lengths]
    position %= len(clips)
    extractor = BeatsFeatureExtractor()
    padding = {"padding": "max_length", "max_length": 4.0}
    with torch.no_grad():
        batch = model(**extractor(clips, sampling_rate=16000, return_tensors="pt", **padding))
        alone = model(**extractor(clips[position], sampling_rate=16000, return_tensors="pt"))
    num_patches = alone.last_hidden_state.shape[1]
    assert batch.patch_attention_mask[position].sum() == num_patches
    torch.testing.assert_close(
        batch.last_hidden_state[position, :num_patches], alone.last_hidden_state[0], rtol=0, atol=1e-5
    )


@given(frames=st.lists(st.booleans(), min_size=16, max_size=200))
def test_a_patch_is_valid_when_its_whole_column_is(frames):
    mask = patch_mask_from_frame_mask(torch.tensor([frames]), BeatsConfig())
    expected = [all(frames[start : start + 16]) for start in range(0, len(frames) - 15, 16)]
    assert mask.view(-1, 8).tolist() == [[value] * 8 for value in expected]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@torch.no_grad()
def test_a_clip_of_padding_only_gives_finite_zeros(attention, dtype, tiny_config, inputs):
    model = BeatsModel(tiny_config).eval()
    model.set_attn_implementation(attention)
    model.encoder.relative_position.relative_attention_bias.weight.fill_(-40)
    model.to(dtype)
    inputs["attention_mask"][1] = 0
    outputs = model(**inputs)
    assert outputs.last_hidden_state.isfinite().all()
    assert torch.equal(outputs.pooler_output[1], torch.zeros(64, dtype=dtype))
    assert outputs.pooler_output[0].abs().max() > 0


@torch.no_grad()
def test_without_a_mask_everything_counts(tiny_config, inputs):
    model = BeatsModel(tiny_config).eval()
    inputs["attention_mask"][:] = 1
    with_mask, without_mask = model(**inputs), model(inputs["input_values"])
    assert without_mask.patch_attention_mask.all()
    torch.testing.assert_close(with_mask.last_hidden_state, without_mask.last_hidden_state)


def test_masked_mean():
    values = torch.tensor([[[1.0], [3.0], [100.0]], [[1.0], [2.0], [3.0]]])
    mask = torch.tensor([[True, True, False], [False, False, False]])
    assert masked_mean(values, mask).tolist() == [[2.0], [0.0]]
    assert masked_mean(values, None)[1].tolist() == [2.0]


# The parts


def test_relative_position_bias_depends_on_the_distance_alone(tiny_config):
    bias = BeatsRelativePositionBias(tiny_config)(20, CPU)
    assert bias.shape == (4, 20, 20)
    table = BeatsRelativePositionBias(tiny_config)
    table.load_state_dict(BeatsRelativePositionBias(tiny_config).state_dict())
    positions = torch.arange(20)
    buckets = table.relative_position_bucket(positions[None, :] - positions[:, None])
    expected = table.relative_attention_bias(buckets).permute(2, 0, 1)
    assert torch.equal(table(20, CPU), expected)


def test_relative_buckets_of_the_released_models():
    table = BeatsRelativePositionBias(BeatsConfig())
    distance = torch.tensor([0, 1, 79, 80, 799, 800, 10_000])
    backward = table.relative_position_bucket(-distance)
    forward = table.relative_position_bucket(distance)
    # 160 buckets a direction: exact below 80, logarithmic up to the maximum distance, constant from there on.
    assert backward[:4].tolist() == [0, 1, 79, 80]
    assert backward[4:].tolist() == [159, 159, 159]
    assert (forward[1:] - backward[1:]).tolist() == [160] * 6
    assert forward[0] == 0


def test_one_table_of_relative_positions_for_all_layers(tiny_config):
    names = [name for name, _ in BeatsModel(tiny_config).named_parameters() if "relative_attention_bias" in name]
    assert names == ["encoder.relative_position.relative_attention_bias.weight"]


def test_gate_is_between_bounds(tiny_config):
    attention = BeatsAttention(tiny_config)
    queries = torch.randn(2, 4, 6, 16) * 100
    gate = attention.position_gate(queries)
    assert gate.shape == (2, 4, 6, 1)
    assert gate.min() >= 1.0
    assert gate.max() <= 2.0


@pytest.mark.parametrize(
    "changes",
    [{}, {"gru_rel_pos": False}, {"layer_norm_first": True, "deep_norm": False}, {"num_attention_heads": 1}],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("num_pairs", [0.01, 0.3, 1, 3, 4, 9, 100])
def test_attention_in_blocks_changes_nothing(num_pairs, dtype, changes, tiny_config, inputs, monkeypatch):
    """Block sizes for one query, some queries, one head, three of four heads, a clip, two clips, and all."""
    torch.manual_seed(0)
    for name, value in changes.items():
        setattr(tiny_config, name, value)
    model = BeatsModel(tiny_config).eval().to(dtype)
    # With gradients, the bias of all pairs is computed at once.
    outputs = model(**inputs)
    valid, expected = outputs.patch_attention_mask, outputs.last_hidden_state.detach()
    num_patches = expected.shape[1]
    block_bytes = int(num_pairs * num_patches**2 * expected.element_size())
    monkeypatch.setattr("transformers_beats.modeling_beats.BIAS_BYTES_PER_BLOCK", block_bytes)
    monkeypatch.setattr(BeatsRelativePositionBias, "forward", lambda *args: pytest.fail("bias of all pairs"))
    with torch.no_grad():
        actual = model(**inputs).last_hidden_state
    tolerance = 0.02 if dtype == torch.bfloat16 else 1e-6
    assert relative_error(actual[valid], expected[valid].float()) < tolerance


@pytest.mark.parametrize("num_pairs", [0.5, 1, 3])
@torch.no_grad()
def test_attention_in_blocks_makes_no_larger_tensor(num_pairs, tiny_config, inputs, monkeypatch):
    """Clips of 808 patches, whose pairs are more than the values of any other tensor."""
    model = BeatsModel(tiny_config).eval()
    long = {name: torch.cat([value] * 8, dim=1) for name, value in inputs.items()}
    size = int(num_pairs * 808**2)
    monkeypatch.setattr("transformers_beats.modeling_beats.BIAS_BYTES_PER_BLOCK", 4 * size)
    with Allocations() as allocations:
        model(**long)
    assert allocations.larger_than(size) == []
    assert allocations.larger_than(size - 808 - 1) != []


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("gru_rel_pos", [True, False])
def test_gate_bias_and_mask_are_one_tensor(gru_rel_pos, attention, tiny_config, inputs):
    """In training, where the bias of all pairs is kept for the gradients: one tensor for each layer."""
    tiny_config.gru_rel_pos = gru_rel_pos
    model = BeatsModel(tiny_config)
    model.set_attn_implementation(attention)
    with Allocations() as allocations:
        model(**inputs)
    num_patches = 8 * (203 // 16)
    combined = [
        name
        for name, shape in allocations.found
        if tuple(shape) == (2, 4, num_patches, num_patches) and any(key in name for key in ("mul.", "where", "clamp"))
    ]
    assert len(combined) == (tiny_config.num_hidden_layers if gru_rel_pos else 0), combined


@pytest.mark.skipif(not FLEX_WORKS_ON_CPU, reason="refused on this CPU")
@torch.no_grad()
def test_flex_attention_needs_no_bias_of_all_pairs(tiny_config, inputs, monkeypatch):
    model = BeatsModel(tiny_config).eval()
    expected = model(**inputs).last_hidden_state
    model.set_attn_implementation("flex_attention")
    monkeypatch.setattr(BeatsRelativePositionBias, "forward", lambda *args: pytest.fail("bias of all pairs"))
    torch.testing.assert_close(model(**inputs).last_hidden_state, expected, rtol=0, atol=1e-5)


def test_weights_are_initialised_as_in_the_reference():
    torch.manual_seed(0)
    config = BeatsConfig(num_hidden_layers=2)
    model = BeatsModel(config)
    layer = model.encoder.layers[1]
    gain = (8 * config.num_hidden_layers) ** -0.25
    xavier = (2 / (768 + 768)) ** 0.5
    assert layer.self_attn.q_proj.weight.std().item() == pytest.approx(xavier, rel=0.02)
    assert layer.self_attn.v_proj.weight.std().item() == pytest.approx(gain * xavier, rel=0.02)
    assert layer.self_attn.out_proj.weight.std().item() == pytest.approx(gain * xavier, rel=0.02)
    assert layer.mlp.fc1.weight.std().item() == pytest.approx(gain * (2 / (768 + 3072)) ** 0.5, rel=0.02)
    assert model.embeddings.projection.weight.std().item() == pytest.approx(0.02, rel=0.02)
    conv = model.encoder.pos_conv_embed.conv
    assert conv.weight.std().item() == pytest.approx((4 / (128 * 768)) ** 0.5, rel=0.02)
    torch.testing.assert_close(conv.weight, conv.parametrizations.weight.original1)
    assert layer.self_attn.gru_rel_pos_const.eq(1).all()
    assert layer.residual_scale == 4**0.25


def test_number_of_parameters_of_the_base_model():
    with torch.device("meta"):
        model = BeatsModel(BeatsConfig())
    # The reference has 90.0 M with one table of relative positions.
    assert 89e6 < sum(parameter.numel() for parameter in model.parameters()) < 91e6


def test_grid_is_time_by_frequency(tiny_config):
    model = BeatsModel(tiny_config).eval()
    fbank = torch.zeros(1, 48, 128)
    embed = model.get_input_embeddings()
    before = model.to_grid(embed(fbank))
    fbank[0, 16:32, 112:] = 1
    changed = (model.to_grid(embed(fbank)) != before).any(dim=-1)
    assert changed.shape == (1, 3, 8)
    assert changed.nonzero().tolist() == [[0, 1, 7]]


# Numerics


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize(
    ("hidden_size", "groups"), [(16, 16), (48, 16), (64, 16), (96, 16), (192, 16), (256, 16), (64, 4), (768, 16)]
)
@torch.no_grad()
def test_half_precision_is_right_for_every_size(hidden_size, groups, dtype, inputs):
    torch.manual_seed(0)
    config = BeatsConfig(
        hidden_size=hidden_size,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=2 * hidden_size,
        embed_dim=32,
        num_conv_pos_embedding_groups=groups,
    )
    model = BeatsModel(config).eval()
    expected = model(**inputs).last_hidden_state
    tolerance = 0.02 if dtype == torch.bfloat16 else 0.003
    with torch.autocast("cpu", dtype=dtype):
        assert relative_error(model(**inputs).last_hidden_state, expected) < tolerance
    model.to(dtype)
    for attention in ("eager", "sdpa"):
        model.set_attn_implementation(attention)
        actual = model(**inputs).last_hidden_state
        assert actual.dtype == dtype
        assert relative_error(actual, expected) < tolerance


@pytest.mark.parametrize("groups", [4, 16])
def test_half_precision_gradients_are_right(groups, tiny_config, inputs):
    tiny_config.num_conv_pos_embedding_groups = groups
    model = BeatsForAudioClassification(tiny_config)
    labels = torch.tensor([1, 3])

    def gradients():
        model.zero_grad()
        model(**inputs, labels=labels).loss.backward()
        return {name: parameter.grad.clone() for name, parameter in model.named_parameters()}

    expected = gradients()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        actual = gradients()
    largest = max(gradient.norm() for gradient in expected.values())
    for name, gradient in expected.items():
        # Some are zero up to rounding: softmax ignores a shift of all keys, for one.
        if gradient.norm() > 1e-4 * largest:
            assert relative_error(actual[name], gradient) < 0.1, name


@torch.no_grad()
def test_large_scores_stay_finite_in_float16(tiny_config, inputs):
    model = BeatsModel(tiny_config).eval()
    for layer in model.encoder.layers:
        layer.self_attn.q_proj.weight.mul_(80)
        layer.self_attn.k_proj.weight.mul_(80)
    # Products of queries and keys now exceed 65,504, the scaled scores do not.
    model.half()
    for attention in ("eager", "sdpa"):
        model.set_attn_implementation(attention)
        assert model(**inputs).last_hidden_state.isfinite().all()


def test_inputs_are_left_alone(tiny_config, inputs):
    model = BeatsForAudioClassification(tiny_config)
    copies = copy.deepcopy(inputs)
    model(**inputs).logits.sum().backward()
    assert all(torch.equal(inputs[name], copies[name]) for name in inputs)


# Training


def loss_and_gradients(model, inputs, labels):
    model.zero_grad()
    loss = model(**inputs, labels=labels).loss
    loss.backward()
    return loss.detach(), {name: parameter.grad for name, parameter in model.named_parameters()}


@pytest.mark.parametrize("use_reentrant", [True, False])
def test_gradient_checkpointing_changes_nothing(use_reentrant, tiny_config, inputs):
    model = BeatsForAudioClassification(tiny_config).train()
    labels = torch.tensor([1, 3])
    loss, gradients = loss_and_gradients(model, inputs, labels)
    model.gradient_checkpointing_enable({"use_reentrant": use_reentrant})
    actual_loss, actual_gradients = loss_and_gradients(model, inputs, labels)
    torch.testing.assert_close(actual_loss, loss)
    for name, gradient in gradients.items():
        assert gradient is not None, name
        torch.testing.assert_close(actual_gradients[name], gradient, msg=name)


def test_layerdrop_follows_torchs_seed_and_spares_evaluation(tiny_config, inputs):
    tiny_config.layerdrop = 0.5
    model = BeatsModel(tiny_config).train()

    def run(seed):
        torch.manual_seed(seed)
        return model(**inputs).last_hidden_state.detach()

    assert torch.equal(run(0), run(0))
    assert len({run(seed).sum().item() for seed in range(12)}) > 1
    model.eval()
    assert torch.equal(run(0), run(1))


def test_layerdrop_skips_layers(tiny_config, inputs):
    tiny_config.layerdrop = 0.999999
    model = BeatsModel(tiny_config).train()
    outputs = model(**inputs, output_hidden_states=True)
    assert all(torch.equal(states, outputs.hidden_states[0]) for states in outputs.hidden_states)
    outputs.last_hidden_state.sum().backward()
    # Unused, yet part of the graph: DDP waits for a gradient of every parameter.
    assert all(parameter.grad is not None for parameter in model.parameters())


@pytest.mark.parametrize(
    ("problem_type", "num_labels", "labels"),
    [
        (None, 5, torch.tensor([1, 3])),
        ("single_label_classification", 5, torch.tensor([1, 3])),
        (None, 5, torch.tensor([[0.0, 1, 0, 1, 0], [1, 0, 0, 0, 0]])),
        ("multi_label_classification", 5, torch.tensor([[0, 1, 0, 1, 0], [1, 0, 0, 0, 0]])),
        (None, 1, torch.tensor([1, 3])),
        ("regression", 2, torch.tensor([[0.5, 1.0], [2.0, 3.0]])),
    ],
)
def test_losses(problem_type, num_labels, labels, tiny_config, inputs):
    tiny_config.problem_type = problem_type
    tiny_config.num_labels = num_labels
    model = BeatsForAudioClassification(tiny_config).eval()
    outputs = model(**inputs, labels=labels)
    if num_labels == 1:
        expected = torch.nn.functional.mse_loss(outputs.logits.squeeze(), labels.float())
    elif problem_type == "regression":
        expected = torch.nn.functional.mse_loss(outputs.logits, labels)
    elif labels.ndim == 1:
        expected = torch.nn.functional.cross_entropy(outputs.logits, labels)
    else:
        expected = torch.nn.functional.binary_cross_entropy_with_logits(outputs.logits, labels.float())
    torch.testing.assert_close(outputs.loss, expected)


def test_trainer_is_told_that_losses_are_means(tiny_config):
    assert BeatsForAudioClassification(tiny_config).accepts_loss_kwargs is False


def test_freezing_leaves_only_the_head(tiny_config):
    model = BeatsForAudioClassification(tiny_config)
    model.freeze_base_model()
    trainable = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert trainable == {"classifier.weight", "classifier.bias"}


def test_weighted_layer_sum(tiny_config, inputs):
    tiny_config.use_weighted_layer_sum = True
    model = BeatsForAudioClassification(tiny_config).eval()
    outputs = model(**inputs)
    assert outputs.hidden_states is None
    states = model(**inputs, output_hidden_states=True).hidden_states
    assert len(states) == 4
    mask = patch_mask_from_frame_mask(inputs["attention_mask"], tiny_config)
    expected = masked_mean(model.classifier(torch.stack(states).mean(dim=0)), mask)
    torch.testing.assert_close(outputs.logits, expected)
    some = model(**inputs, output_hidden_states=[0, -1]).hidden_states
    assert [state is not None for state in some] == [True, False, False, True]
    # Indices out of range select nothing.
    for indices, expected in ((4, []), ([-5, 3], [3]), ([-4, 17], [0])):
        some = model(**inputs, output_hidden_states=indices).hidden_states
        assert [number for number, state in enumerate(some) if state is not None] == expected
    outputs.logits.sum().backward()
    assert model.layer_average.weight.grad is not None


# Frames


@pytest.mark.parametrize("frame_pooling", ["mean", "concat"])
def test_frame_head_predicts_each_column(frame_pooling, tiny_config, inputs):
    tiny_config.frame_pooling = frame_pooling
    model = BeatsForAudioFrameClassification(tiny_config).eval()
    outputs = model(**inputs, labels=torch.randint(5, (2, 12)))
    assert outputs.logits.shape == (2, 12, 5)
    # 120 frames are seven whole columns of sixteen.
    assert outputs.column_attention_mask.sum(dim=1).tolist() == [12, 7]
    assert not outputs.column_attention_mask.dtype.is_floating_point
    # Trainer pads predictions with -100, which a boolean could not hold.
    assert outputs.column_attention_mask.dtype != torch.bool
    outputs.loss.backward()
    assert model.classifier.weight.grad.abs().max() > 0


@pytest.mark.parametrize("kind", ["indices", "multi-hot"])
def test_frame_loss_ignores_padding(kind, tiny_config, inputs):
    model = BeatsForAudioFrameClassification(tiny_config).eval()
    labels = torch.randint(5, (2, 12))
    if kind == "multi-hot":
        labels = torch.nn.functional.one_hot(labels, 5).float()
    loss = model(**inputs, labels=labels).loss
    labels[1, 7:] = labels[1, :1]
    torch.testing.assert_close(model(**inputs, labels=labels).loss, loss)
    labels[1, 0] = (labels[1, 0] + 1) % 5 if kind == "indices" else 1 - labels[1, 0]
    assert not torch.equal(model(**inputs, labels=labels).loss, loss)


def test_a_batch_without_labelled_columns_teaches_nothing(tiny_config, inputs):
    model = BeatsForAudioFrameClassification(tiny_config)
    for mask, label in ((1, -100), (0, 3)):
        inputs["attention_mask"][:] = mask
        model.zero_grad()
        loss = model(**inputs, labels=torch.full((2, 12), label)).loss
        assert loss == 0
        loss.backward()
        assert all(parameter.grad.eq(0).all() for parameter in model.parameters())


def test_frame_head_for_one_kind_of_event(tiny_config, inputs):
    tiny_config.num_labels = 1
    tiny_config.problem_type = "multi_label_classification"
    model = BeatsForAudioFrameClassification(tiny_config).eval()
    labels = torch.randint(2, (2, 12))
    loss = model(**inputs, labels=labels).loss
    torch.testing.assert_close(model(**inputs, labels=labels.unsqueeze(-1)).loss, loss)


def test_frame_labels_must_fit_the_columns(tiny_config, inputs):
    model = BeatsForAudioFrameClassification(tiny_config)
    with pytest.raises(ValueError, match=r"\(2, 12\), got \(2, 13\)"):
        model(**inputs, labels=torch.zeros(2, 13, dtype=torch.long))


# Interface


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"input_values": torch.zeros(2, 16000)}, "BeatsFeatureExtractor"),
        ({"input_values": torch.zeros(2, 100, 64)}, r"\(batch_size, num_frames, 128\)"),
        ({"input_values": torch.zeros(2, 15, 128)}, "15 frames"),
        ({"input_values": torch.zeros(2, 32, 128), "attention_mask": torch.ones(2, 16)}, r"\(2, 32\).*\(2, 16\)"),
        ({}, "input_values"),
    ],
)
def test_bad_inputs_are_refused_with_a_reason(arguments, message, tiny_config):
    with pytest.raises(ValueError, match=message):
        BeatsModel(tiny_config)(**arguments)


def test_outputs_of_the_encoder_are_those_of_transformers(tiny_config, inputs):
    outputs = BeatsModel(tiny_config).eval()(**inputs, output_hidden_states=True)
    assert isinstance(outputs, BaseModelOutputWithPooling)
    last_hidden_state, pooler_output = outputs[:2]
    assert last_hidden_state is outputs.last_hidden_state
    assert pooler_output is outputs.pooler_output
    assert len(outputs.hidden_states) == tiny_config.num_hidden_layers + 1


@pytest.mark.parametrize("output_class", [BeatsModelOutput, BeatsFrameClassifierOutput])
def test_every_field_of_an_output_is_documented(output_class):
    assert [field.name for field in fields(output_class) if f"    {field.name} (`" not in output_class.__doc__] == []


@pytest.mark.parametrize("model_class", [BeatsForAudioClassification, BeatsForAudioFrameClassification])
def test_tuples_are_returned_on_request(model_class, tiny_config, inputs):
    model = model_class(tiny_config).eval()
    expected = model(**inputs).logits
    assert torch.equal(model(**inputs, return_dict=False)[0], expected)
    model.config.return_dict = False
    assert torch.equal(model(**inputs)[0], expected)


@pytest.mark.parametrize("model_class", [BeatsModel, BeatsForAudioFrameClassification])
def test_the_encoder_moves_between_heads(model_class, tiny_config, inputs, tmp_path):
    source = BeatsForAudioClassification(tiny_config).eval()
    source.save_pretrained(tmp_path)
    target = model_class.from_pretrained(tmp_path).eval()
    encoder = target if model_class is BeatsModel else target.beats
    assert torch.equal(encoder(**inputs).last_hidden_state, source.beats(**inputs).last_hidden_state)


@pytest.mark.parametrize("deep_norm", [True, False])
@pytest.mark.parametrize(
    ("saved", "loaded"),
    [
        (BeatsModel, BeatsModel),
        (BeatsForAudioClassification, BeatsModel),
        (BeatsModel, BeatsForAudioClassification),
        (BeatsForAudioClassification, BeatsForAudioFrameClassification),
    ],
)
def test_layers_compute_the_same_in_an_encoder_of_another_depth(
    saved, loaded, deep_norm, tiny_config, inputs, tmp_path
):
    """DeepNorm scales residuals by the number of layers; layers that are loaded must not follow the new number."""
    torch.manual_seed(0)
    config = copy.deepcopy(tiny_config)
    config.num_hidden_layers, config.deep_norm = 3, deep_norm
    model = saved(config).eval()
    with torch.no_grad():
        for name, value in model.named_parameters():
            # Random layers add next to nothing to their inputs.
            if ".layers." in name and name.endswith("weight") and "norm" not in name:
                value *= 5
    model.save_pretrained(tmp_path / "saved")
    expected = model.base_model(**inputs, output_hidden_states=True).hidden_states
    for depth in (1, 2, 3, 5):
        other = loaded.from_pretrained(tmp_path / "saved", num_hidden_layers=depth).eval()
        other.save_pretrained(tmp_path / "again")
        again, info = loaded.from_pretrained(tmp_path / "again", output_loading_info=True)
        assert not info["unexpected_keys"]
        for encoder in (other.base_model, again.base_model):
            found = encoder(**inputs, output_hidden_states=True).hidden_states
            assert len(found) == depth + 1
            for number in range(1, min(depth, 3) + 1):
                torch.testing.assert_close(found[number], expected[number], rtol=1e-4, atol=1e-4)


def test_weights_that_are_passed_stay_the_callers(tiny_config, inputs):
    """transformers takes them as they are: to rescale them in place would change the model that they come from."""
    config = copy.deepcopy(tiny_config)
    config.num_hidden_layers = 1
    model = BeatsModel(tiny_config).eval()
    before = copy.deepcopy(model.state_dict())
    expected = model(**inputs, output_hidden_states=True).hidden_states[1]
    for _ in range(2):
        other = BeatsModel.from_pretrained(None, config=config, state_dict=model.state_dict()).eval()
        found = other(**inputs)
        mask = found.patch_attention_mask
        torch.testing.assert_close(found.last_hidden_state[mask], expected[mask], rtol=1e-4, atol=1e-4)
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_parameters_that_deepspeed_has_split_are_rescaled_as_a_whole(tiny_config, monkeypatch):
    gathered = []

    @contextlib.contextmanager
    def gather(parameter, modifier_rank):
        gathered.append(parameter)
        parameter.data = whole[parameter]
        yield
        whole[parameter], parameter.data = parameter.data, torch.empty(0)

    deepspeed = types.SimpleNamespace(zero=types.SimpleNamespace(GatheredParameters=gather))
    monkeypatch.setitem(sys.modules, "deepspeed", deepspeed)
    layer = BeatsModel(tiny_config).encoder.layers[0]
    parameters = [*layer.self_attn.out_proj.parameters(), *layer.mlp.fc2.parameters()]
    before = [parameter.detach().clone() for parameter in parameters]
    whole = {parameter: parameter.data for parameter in parameters}
    for parameter in parameters:
        parameter.ds_id, parameter.data = 0, torch.empty(0)
    layer.rescale(layer.residual_scale / 2)
    assert {*map(id, gathered)} == {*map(id, parameters)}
    for parameter, values in zip(parameters, before):
        torch.testing.assert_close(whole[parameter], 2 * values)
    # The parameters that DeepSpeed knows are those of the layer.
    assert [*layer.self_attn.out_proj.parameters(), *layer.mlp.fc2.parameters()] == parameters


def test_an_incomplete_checkpoint_has_no_other_depth(tiny_config):
    model = BeatsModel(tiny_config)
    weights = model.state_dict()
    del weights["encoder.layers.1.final_layer_norm.weight"]
    del weights["encoder.layers.1.self_attn.q_proj.weight"]
    other = BeatsModel.from_pretrained(None, config=tiny_config, state_dict=weights)
    for name in ("mlp.fc2", "self_attn.out_proj"):
        found, expected = (each.encoder.layers[0].get_submodule(name).weight for each in (other, model))
        assert torch.equal(found, expected)


def test_saved_weights_have_our_names(tiny_config, tmp_path):
    BeatsModel(tiny_config).save_pretrained(tmp_path)
    from safetensors import safe_open

    with safe_open(tmp_path / "model.safetensors", "pt") as file:
        names = set(file.keys())
    assert names == set(BeatsModel(tiny_config).state_dict())


# Seen with 2.6.0, not with 2.13.0: it does not trace the decorators that transformers puts on every `forward`.
traces_transformers = pytest.mark.skipif(
    torch.__version__.startswith("2.6."), reason="PyTorch 2.6 traces no model of transformers as one graph"
)


@traces_transformers
@pytest.mark.parametrize(
    ("model_class", "use_weighted_layer_sum"),
    [(BeatsForAudioClassification, False), (BeatsForAudioFrameClassification, True)],
)
def test_models_are_one_graph(model_class, use_weighted_layer_sum, tiny_config, inputs):
    tiny_config.layerdrop = 0.1
    tiny_config.use_weighted_layer_sum = use_weighted_layer_sum
    # A copy that has not run: what is set up lazily must not break the graph.
    model = copy.deepcopy(model_class(tiny_config))
    # The "eager" backend traces as every backend does, and a graph break is an error.
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    for mode in (model.eval, model.train):
        mode()
        torch.manual_seed(0)
        actual = compiled(**inputs).logits
        torch.manual_seed(0)
        torch.testing.assert_close(actual, model(**inputs).logits, rtol=0, atol=1e-6)
    assert compiled(inputs["input_values"]).logits.isfinite().all()


@traces_transformers
@pytest.mark.parametrize(
    ("frame_pooling", "problem_type"),
    [
        ("mean", "single_label_classification"),
        ("concat", "regression"),
        ("sequence", "multi_label_classification"),
    ],
)
def test_the_loss_of_frames_is_in_the_same_graph(frame_pooling, problem_type, tiny_config, inputs):
    tiny_config.frame_pooling, tiny_config.problem_type, tiny_config.num_hidden_layers = frame_pooling, problem_type, 1
    model = BeatsForAudioFrameClassification(tiny_config)
    with torch.no_grad():
        shape = model(**inputs).logits.shape
    generator = torch.Generator().manual_seed(0)
    if problem_type == "single_label_classification":
        labels = torch.randint(shape[2], shape[:2], generator=generator)
        labels[0, 0] = -100
    else:
        labels = torch.randint(2, shape, generator=generator).float()
    graphs = []

    def count(graph, _):
        graphs.append(graph)
        return graph

    # A graph break is an error.
    compiled = torch.compile(model, fullgraph=True, backend=count)
    for mode in (model.eval, model.train):
        mode()
        torch.testing.assert_close(compiled(**inputs, labels=labels).loss, model(**inputs, labels=labels).loss)
    assert len(graphs) == 2


@torch.no_grad()
@traces_transformers
def test_one_graph_serves_every_length(tiny_config):
    model = BeatsModel(tiny_config).eval()
    graphs = []

    def count(graph, _):
        graphs.append(graph)
        return graph

    compiled = torch.compile(model, fullgraph=True, dynamic=True, backend=count)
    with torch._dynamo.config.patch(automatic_dynamic_shapes=True):
        for num_columns in range(2, 14):
            fbank = torch.randn(1, 16 * num_columns, 128)
            expected = model(fbank).last_hidden_state
            torch.testing.assert_close(compiled(fbank).last_hidden_state, expected, rtol=0, atol=1e-6)
    assert len(graphs) <= 2


@pytest.mark.slow
def test_compiled_model_gives_the_same(tiny_config, inputs):
    model = BeatsForAudioClassification(tiny_config)
    compiled = torch.compile(model, fullgraph=True)
    labels = torch.tensor([1, 3])
    loss, gradients = loss_and_gradients(model, inputs, labels)
    gradients = {name: gradient.clone() for name, gradient in gradients.items()}
    model.zero_grad()
    compiled_loss = compiled(**inputs, labels=labels).loss
    compiled_loss.backward()
    torch.testing.assert_close(compiled_loss.detach(), loss)
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, gradients[name], rtol=1e-4, atol=1e-6, msg=name)


@traces_transformers
def test_model_can_be_exported_for_any_length(tiny_config, inputs):
    model = BeatsForAudioClassification(tiny_config).eval()
    frames = torch.export.Dim.DYNAMIC
    shapes = {"input_values": {1: frames}, "attention_mask": {1: frames}}
    program = torch.export.export(model, (), inputs, dynamic_shapes=shapes)
    for num_frames in (203, 160, 77):
        part = {name: value[:, :num_frames] for name, value in inputs.items()}
        torch.testing.assert_close(program.module()(**part).logits, model(**part).logits)


def test_a_subclass_elsewhere_keeps_its_file_to_itself(tiny_config, tmp_path):
    class Mine(BeatsForAudioClassification):
        pass

    class MyTokenizer(BeatsRandomProjectionTokenizer):
        pass

    for model in (Mine(tiny_config), MyTokenizer(BeatsRandomProjectionTokenizerConfig())):
        # Once more from there, with what the first has written.
        for place in (tmp_path / f"{model.base_model_prefix}-1", tmp_path / f"{model.base_model_prefix}-2"):
            model.save_pretrained(place)
            assert not list(place.glob("test_*.py"))
            # All classes that are named have their files.
            named = json.loads((place / "config.json").read_text())["auto_map"]
            assert set(named) == {"AutoConfig"}
            assert all((place / f"{reference.partition('.')[0]}.py").exists() for reference in named.values())
            model = type(model).from_pretrained(place)
    BeatsForAudioClassification.from_pretrained(tmp_path / "beats-1").save_pretrained(tmp_path / "ours")
    assert "AutoModelForAudioClassification" in json.loads((tmp_path / "ours" / "config.json").read_text())["auto_map"]


def test_no_class_is_named_of_the_model_that_weights_came_from(tiny_config, tmp_path):
    class Mine(BeatsForPreTraining):
        pass

    BeatsForPreTraining(tiny_config).save_pretrained(tmp_path / "first")
    for number, model_class in enumerate((BeatsModel, BeatsForAudioClassification, Mine, BeatsForPreTraining)):
        model_class.from_pretrained(tmp_path / "first").save_pretrained(tmp_path / str(number))
        named = json.loads((tmp_path / str(number) / "config.json").read_text())["auto_map"]
        files = {f"{reference.partition('.')[0]}.py" for reference in named.values()}
        assert files <= {path.name for path in (tmp_path / str(number)).iterdir()}
        assert ("AutoModelForPreTraining" in named) == (model_class is BeatsForPreTraining)


def test_the_norm_of_a_weight_that_deepspeed_has_split_is_of_all_of_it(monkeypatch):
    make = torch.nn.Conv1d.__init__

    def make_split(self, *args, **kwargs):
        make(self, *args, **kwargs)
        self.weight.ds_id, self.weight.whole = 0, self.weight.data
        self.weight.data = torch.empty(0)

    class GatheredParameters:
        def __init__(self, parameter, modifier_rank):
            self.parameter = parameter

        def __enter__(self):
            self.parameter.data = self.parameter.whole

        def __exit__(self, *_):
            pass

    zero = types.SimpleNamespace(GatheredParameters=GatheredParameters)
    monkeypatch.setitem(sys.modules, "deepspeed", types.SimpleNamespace(zero=zero))
    monkeypatch.setattr(torch.nn.Conv1d, "__init__", make_split)
    sizes = {"hidden_size": 32, "num_attention_heads": 2}
    config = BeatsConfig(**sizes, num_conv_pos_embeddings=16, num_conv_pos_embedding_groups=2)
    conv = BeatsPositionalConvEmbedding(config).conv
    norms, directions = conv.parametrizations.weight.original0, conv.parametrizations.weight.original1
    assert directions.shape == (32, 16, 16)
    torch.testing.assert_close(norms, directions.norm(dim=(0, 1), keepdim=True))
