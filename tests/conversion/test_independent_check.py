# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Conversions, compared with their sources by a check that shares nothing with the converter."""

import json
import shutil

import pytest
import torch
from golden import CHECKPOINTS, FIXTURES
from independent_check import compare
from safetensors.torch import load_file, save_file

from transformers_beats.conversion.convert import convert


SOURCE = FIXTURES / "beats_tiny_finetuned.pt"
FC2 = "beats.encoder.layers.1.mlp.fc2.weight"


@pytest.fixture(scope="session")
def pristine(tmp_path_factory):
    """A golden checkpoint with a head, converted."""
    directory = tmp_path_factory.mktemp("converted") / "model"
    convert(SOURCE, directory)
    return directory


@pytest.fixture
def converted(pristine, tmp_path):
    """A copy of it to spoil."""
    return shutil.copytree(pristine, tmp_path / "model")


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_nothing_differs_after_a_conversion(name, tmp_path):
    convert(FIXTURES / f"{name}.pt", tmp_path / "model")
    assert compare(FIXTURES / f"{name}.pt", tmp_path / "model") == []


def test_statistics_that_were_asked_for_are_right(tmp_path):
    statistics = {"fbank_mean": 15.2913, "fbank_std": 5.90532}
    convert(SOURCE, tmp_path / "model", **statistics)
    assert compare(SOURCE, tmp_path / "model", statistics) == []
    assert len(compare(SOURCE, tmp_path / "model")) == 3


def change_layout(contents: dict, prefix: str, head: str) -> dict:
    """Puts the golden classifier inside another project's model."""
    tensors = {f"{prefix}{key}": tensor for key, tensor in contents["model"].items()}
    for kind in ("weight", "bias"):
        tensors[f"{head}{kind}"] = tensors.pop(f"{prefix}predictor.{kind}")
    return {**contents, "model": tensors}


def test_a_classifier_inside_avexs_model_is_the_same(tmp_path):
    contents = torch.load(SOURCE, weights_only=True)
    torch.save(change_layout(contents, "backbone.", "classifier."), tmp_path / "source.pt")
    convert(tmp_path / "source.pt", tmp_path / "model", "avex")
    assert compare(SOURCE, tmp_path / "model") == ["card"]


def flip_a_bit(tensors):
    tensors[FC2].view(torch.int32)[3, 5].bitwise_xor_(1)


def swap_layers(tensors):
    first, second = (f"beats.encoder.layers.{layer}.self_attn.q_proj.bias" for layer in (0, 2))
    tensors[first], tensors[second] = tensors[second], tensors[first]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (flip_a_bit, [f"tensor {FC2} differs from encoder.layers.1.fc2.weight"]),
        (
            swap_layers,
            [
                f"tensor beats.{name} differs from {name}"
                for name in ("encoder.layers.0.self_attn.q_proj.bias", "encoder.layers.2.self_attn.q_proj.bias")
            ],
        ),
        (
            lambda tensors: tensors.update(extra=tensors.pop("beats.embeddings.layer_norm.bias")),
            ["tensor extra is not in the source", "tensor layer_norm.bias is not in the directory"],
        ),
        (
            lambda tensors: tensors.update({"classifier.bias": tensors["classifier.bias"].half()}),
            ["tensor classifier.bias has another shape or dtype than predictor.bias"],
        ),
    ],
    ids=["a bit", "layers", "a name", "a dtype"],
)
def test_a_changed_tensor_is_found(change, expected, converted):
    tensors = load_file(converted / "model.safetensors")
    change(tensors)
    save_file({name: tensor.clone() for name, tensor in tensors.items()}, converted / "model.safetensors")
    assert compare(SOURCE, converted)[: len(expected)] == expected


def test_a_relative_bias_that_one_layer_does_not_share_is_found(converted, tmp_path):
    contents = torch.load(SOURCE, weights_only=True)
    key = "encoder.layers.2.self_attn.relative_attention_bias.weight"
    contents["model"][key] = contents["model"][key] + 1
    torch.save(contents, tmp_path / "source.pt")
    (difference, card) = compare(tmp_path / "source.pt", converted)
    assert difference.endswith(f"differs from {key}")
    assert card == "card"


def swap_labels(config):
    names = config["id2label"]
    names["0"], names["1"] = names["1"], names["0"]


@pytest.mark.parametrize(
    ("name", "change", "expected"),
    [
        ("config.json", swap_labels, ["label 0 is not Dog", "label 1 is not Rain", "labels"]),
        ("config.json", lambda config: config["label2id"].update(Dog=1), ["labels"]),
        ("config.json", lambda config: config.update(deep_norm=False), ["config deep_norm is False"]),
        ("config.json", lambda config: config.update(hidden_act="gelu_new"), ["config hidden_act is 'gelu_new'"]),
        ("config.json", lambda config: config.update(layer_norm_eps=1e-6), ["config layer_norm_eps is 1e-06"]),
        ("config.json", lambda config: config.update(dtype="bfloat16"), ["config dtype is 'bfloat16'"]),
        ("config.json", lambda config: config.update(problem_type=None), ["config problem_type is None"]),
        ("preprocessor_config.json", lambda config: config.update(fbank_mean=15.2), ["extractor fbank_mean is 15.2"]),
        ("preprocessor_config.json", lambda config: config.update(patch_size=8), ["extractor patch_size is 8"]),
        (
            "preprocessor_config.json",
            lambda config: config.update(padding_value=0.0),
            ["extractor padding_value is 0.0"],
        ),
    ],
)
def test_a_changed_setting_is_found(name, change, expected, converted):
    contents = json.loads((converted / name).read_text())
    change(contents)
    (converted / name).write_text(json.dumps(contents))
    assert compare(SOURCE, converted) == expected
