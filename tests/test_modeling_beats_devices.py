# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""
Weights that are not where the inputs are: offloaded to disk or memory by accelerate, or without values (`meta`); and
batches of no clips.
"""

import copy

import pytest
import torch
from accelerate import cpu_offload
from torch import nn
from torch.utils._pytree import tree_leaves

from transformers_beats import (
    BeatsConfig,
    BeatsForAudioClassification,
    BeatsForAudioFrameClassification,
    BeatsForPreTraining,
    BeatsModel,
    BeatsRandomProjectionTokenizer,
    BeatsRandomProjectionTokenizerConfig,
    BeatsTokenizerConfig,
    BeatsTokenizerForPreTraining,
    BeatsTokenizerModel,
)


NARROW = {"num_conv_pos_embedding_groups": 8}
RECURRENT = {"frame_recurrent_layers": 1, "frame_recurrent_size": 8}
WEIGHTED = {"use_weighted_layer_sum": True, "layer_weights": "attention"}
POOLINGS = ["mean", "attention", "class_attention", "prototypes", "frame_mean", "frame_attention"]
CODES = {"codebook_size": 8, "codebook_dim": 4, "estimator_num_hidden_layers": 1}
CASES = [
    (BeatsModel, {}),
    (BeatsModel, NARROW),
    (BeatsModel, {**NARROW, "attn_implementation": "eager", "deep_norm": False, "layer_norm_first": True}),
    *((BeatsForAudioClassification, {"classifier_pooling": pooling}) for pooling in POOLINGS),
    (BeatsForAudioClassification, {**WEIGHTED, **NARROW}),
    (BeatsForAudioFrameClassification, {**RECURRENT, "frame_pooling": "sequence"}),
    (BeatsForPreTraining, {"codebook_size": 8, "num_codebooks": 2, "mask_embedding": "learned", **NARROW}),
    (BeatsTokenizerModel, CODES),
    (BeatsTokenizerForPreTraining, {**CODES, **NARROW}),
    (BeatsRandomProjectionTokenizer, {"num_codebooks": 2}),
]
cases = pytest.mark.parametrize(("model_class", "changes"), CASES, ids=lambda value: getattr(value, "__name__", None))


@pytest.fixture
def batch():
    """Two clips, the second padded from frame 120 on, and the noise that hides patches in pre-training."""
    generator = torch.Generator().manual_seed(0)
    return {
        "input_values": torch.randn(2, 203, 128, generator=generator),
        "attention_mask": (torch.arange(203) < torch.tensor([[203], [120]])).int(),
        "noise": torch.rand(2, 96, generator=generator),
    }


def build(model_class, changes, tiny_config, batch):
    """A model whose parameters are all random, biases too, and the part of the batch that it reads."""
    if model_class is BeatsRandomProjectionTokenizer:
        config = BeatsRandomProjectionTokenizerConfig(**changes)
    else:
        is_tokenizer = issubclass(model_class, BeatsTokenizerModel)
        values = tiny_config.to_diff_dict() | {"num_hidden_layers": 2} | changes
        config = (BeatsTokenizerConfig if is_tokenizer else BeatsConfig)(**values)
    torch.manual_seed(0)
    model = model_class(config)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.1)
    if hasattr(getattr(model, "quantizer", None), "is_initialized"):
        nn.init.normal_(model.quantizer.codebook)
        model.quantizer.is_initialized.fill_(1.0)
    if model_class is not BeatsForPreTraining:
        del batch["noise"]
    return model.eval()


def assert_same(found, expected):
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        torch.testing.assert_close(found[name], values, rtol=1e-4, atol=1e-5, msg=name)


@cases
@torch.no_grad()
def test_weights_on_disk_give_the_same(model_class, changes, tiny_config, batch, tmp_path):
    model = build(model_class, changes, tiny_config, batch)
    model.save_pretrained(tmp_path / "model")
    given = {name: value for name, value in changes.items() if name == "attn_implementation"}
    on_disk = model_class.from_pretrained(
        tmp_path / "model", device_map={"": "disk"}, offload_folder=tmp_path / "offloaded", **given
    )
    expected = model(**batch)
    # Twice: the first pass leaves every weight away again.
    for _ in range(2):
        assert_same(on_disk(**batch), expected)


@cases
@torch.no_grad()
def test_weights_and_buffers_in_memory_give_the_same(model_class, changes, tiny_config, batch):
    model = build(model_class, changes, tiny_config, batch)
    expected = model(**batch)
    offloaded = cpu_offload(copy.deepcopy(model), execution_device=torch.device("cpu"), offload_buffers=True)
    assert_same(offloaded(**batch), expected)


@cases
@torch.no_grad()
def test_whoever_owns_a_tensor_is_called_and_with_tensors_only(model_class, changes, tiny_config, batch):
    model = build(model_class, changes, tiny_config, batch)
    called, passed = set(), []

    def see(module, args, kwargs):
        called.add(module)
        passed.extend(tree_leaves((args, kwargs)))

    owners = {}
    for name, module in model.named_modules():
        module.register_forward_pre_hook(see, with_kwargs=True)
        if [*module.parameters(recurse=False), *module.buffers(recurse=False)]:
            owners[name] = module
    model(**batch)
    assert [name for name, module in owners.items() if module not in called] == []
    assert not any(isinstance(value, nn.Module) for value in passed)


@cases
@torch.no_grad()
def test_shapes_are_known_without_values(model_class, changes, tiny_config, batch):
    model = build(model_class, changes, tiny_config, batch)
    expected = {name: values.shape for name, values in model(**batch).items()}
    found = model.to("meta")(**{name: values.to("meta") for name, values in batch.items()})
    assert {name: values.shape for name, values in found.items()} == expected


@pytest.mark.skipif(torch.__version__.startswith("2.6."), reason="needs PyTorch 2.7")
@pytest.mark.parametrize("autocast", [False, True])
def test_narrow_groups_are_in_the_same_graph(autocast, tiny_config, batch, compiler):
    model = build(BeatsModel, NARROW, tiny_config, batch)
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        expected = model(**batch).last_hidden_state
        assert torch.equal(compiled(**batch).last_hidden_state, expected)


@cases
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("with_gradient", [False, True])
@pytest.mark.parametrize("with_mask", [False, True])
def test_a_batch_of_no_clips_has_no_outputs(
    with_mask, with_gradient, attention, model_class, changes, tiny_config, batch
):
    if model_class is not BeatsRandomProjectionTokenizer:
        changes = {**changes, "attn_implementation": attention}
    model = build(model_class, changes, tiny_config, batch)
    if not with_mask:
        del batch["attention_mask"]
    with torch.set_grad_enabled(with_gradient):
        expected = {
            name: (0, *values.shape[1:]) for name, values in model(**batch).items() if values.shape[:1] == (2,)
        }
        found = model(**{name: values[:0] for name, values in batch.items()})
    assert {name: tuple(found[name].shape) for name in expected} == expected
