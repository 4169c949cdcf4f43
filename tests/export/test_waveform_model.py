# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""The way back: models of ours as files in Microsoft's layout."""

import subprocess
import sys

import pytest
import torch
from golden import CHECKPOINTS, FIXTURES, ROOT
from safetensors.torch import load_file

from transformers_beats import (
    BeatsConfig,
    BeatsFeatureExtractor,
    BeatsForAudioClassification,
    BeatsForAudioFrameClassification,
    BeatsForPreTraining,
    BeatsModel,
)
from transformers_beats.conversion.checkpoint import CheckpointError, read_checkpoint
from transformers_beats.conversion.convert import convert
from transformers_beats.export.to_microsoft import export


# What the converter leaves out and the exporter fills in.
LEFTOVERS = {"quantize.embedding.cluster_size", "quantize.embedding.embed_avg"}
TINY = {"embed_dim": 16, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48}
TINY |= {"num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 2}


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_a_converted_checkpoint_comes_back_bit_by_bit(name, tmp_path):
    source = torch.load(FIXTURES / f"{name}.pt", weights_only=True)
    convert(FIXTURES / f"{name}.pt", tmp_path / "ours")
    assert export(str(tmp_path / "ours"), tmp_path / "back.pt") == []
    back = torch.load(tmp_path / "back.pt", weights_only=True)
    assert back["model"].keys() == source["model"].keys()
    for key, tensor in source["model"].items():
        if key not in LEFTOVERS:
            assert torch.equal(back["model"][key], tensor)
            assert back["model"][key].dtype == tensor.dtype
        assert back["model"][key].shape == tensor.shape
    assert source["cfg"].items() <= (back["cfg"] | {"finetuned_model": source["cfg"].get("finetuned_model")}).items()
    assert back.get("label_dict") == source.get("label_dict")


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_an_exported_checkpoint_converts_to_the_same_model(name, tmp_path):
    convert(FIXTURES / f"{name}.pt", tmp_path / "ours")
    export(str(tmp_path / "ours"), tmp_path / "back.pt")
    first, second = read_checkpoint(FIXTURES / f"{name}.pt"), read_checkpoint(tmp_path / "back.pt")
    assert second.config.to_dict() == first.config.to_dict()
    convert(tmp_path / "back.pt", tmp_path / "again")
    expected, actual = (load_file(tmp_path / directory / "model.safetensors") for directory in ("ours", "again"))
    assert actual.keys() == expected.keys()
    for key, tensor in expected.items():
        assert torch.equal(actual[key], tensor)


def test_the_encoder_of_a_pretraining_checkpoint_is_exported(tmp_path):
    model = BeatsForPreTraining(BeatsConfig(**TINY))
    model.save_pretrained(tmp_path / "ours")
    export(str(tmp_path / "ours"), tmp_path / "back.pt")
    converted = read_checkpoint(tmp_path / "back.pt")
    assert converted.kind == "pretrained"
    for name, tensor in model.beats.state_dict().items():
        assert torch.equal(converted.state_dict[name], tensor)


def test_what_users_of_the_file_should_know_is_said(tmp_path):
    labels = {"id2label": {0: "dog", 1: "cat"}, "problem_type": "single_label_classification"}
    BeatsForAudioClassification(BeatsConfig(**TINY, **labels)).save_pretrained(tmp_path / "ours")
    BeatsFeatureExtractor(fbank_mean=11.0).save_pretrained(tmp_path / "ours")
    notes = export(str(tmp_path / "ours"), tmp_path / "back.pt")
    assert any("fbank_mean=11.0" in note for note in notes)
    assert any("sigmoid" in note for note in notes)
    assert torch.load(tmp_path / "back.pt", weights_only=True)["label_dict"] == {0: "dog", 1: "cat"}


@pytest.mark.parametrize(
    ("model_class", "values", "message"),
    [
        (BeatsForAudioFrameClassification, {}, "holds BeatsForAudioFrameClassification"),
        (BeatsForAudioClassification, {"use_weighted_layer_sum": True}, "`use_weighted_layer_sum` is True"),
        (BeatsForAudioClassification, {"classifier_pooling": "attention"}, "`classifier_pooling` is 'attention'"),
        (BeatsModel, {"layer_norm_eps": 1e-6}, "`layer_norm_eps` is 1e-06"),
        (BeatsModel, {"hidden_act": "silu"}, "`hidden_act` is 'silu'"),
    ],
)
def test_what_the_reference_cannot_be_is_refused(model_class, values, message, tmp_path):
    model_class(BeatsConfig(**TINY, **values)).save_pretrained(tmp_path / "ours")
    with pytest.raises(CheckpointError, match=message):
        export(str(tmp_path / "ours"), tmp_path / "back.pt")
    assert not (tmp_path / "back.pt").exists()


def test_settings_of_heads_do_not_matter_to_an_encoder(tmp_path):
    config = BeatsConfig(**TINY, use_weighted_layer_sum=True, classifier_pooling="attention")
    BeatsModel(config).save_pretrained(tmp_path / "ours")
    BeatsFeatureExtractor().save_pretrained(tmp_path / "ours")
    export(str(tmp_path / "ours"), tmp_path / "back.pt")
    assert read_checkpoint(tmp_path / "back.pt").kind == "pretrained"


def test_the_command_replaces_a_file_only_if_told_to(tmp_path):
    convert(FIXTURES / "beats_tiny.pt", tmp_path / "ours")
    (tmp_path / "back.pt").write_bytes(b"precious")
    command = [sys.executable, str(ROOT / "conversion" / "convert_beats_checkpoint.py")]
    command += [str(tmp_path / "ours"), str(tmp_path / "back.pt")]
    refused = subprocess.run(command, capture_output=True, text=True, check=False)
    assert refused.returncode == 2
    assert "pass --overwrite" in refused.stderr
    assert (tmp_path / "back.pt").read_bytes() == b"precious"
    subprocess.run([*command, "--overwrite"], check=True, capture_output=True)
    assert read_checkpoint(tmp_path / "back.pt").kind == "pretrained"
