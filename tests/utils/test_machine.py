# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Precisions that a CPU emulates: what is computed in then, and what is said."""

import numpy as np
import pytest
import soundfile
import torch
from typer.testing import CliRunner

from transformers_beats import BeatsConfig, BeatsFeatureExtractor, BeatsModel
from transformers_beats.cli.app import app
from transformers_beats.inference.loading import load, load_again, load_model
from transformers_beats.inference.windowed import WindowedInference
from transformers_beats.utils.fingerprint import model_fingerprint
from transformers_beats.utils.machine import is_emulated, name_of


TINY = {"embed_dim": 16, "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 48}
TINY |= {"num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 2}
HALVES = [torch.bfloat16, torch.float16]


@pytest.fixture(params=HALVES, ids=name_of)
def half(request) -> torch.dtype:
    return request.param


@pytest.fixture(params=[True, False], ids=["emulated", "not emulated"])
def emulated(request, monkeypatch) -> bool:
    """Whether the CPU reports no instructions for half precision."""
    for name in ("_is_mkldnn_bf16_supported", "_is_mkldnn_fp16_supported"):
        monkeypatch.setattr(torch.ops.mkldnn, name, lambda: not request.param)
    return request.param


@pytest.fixture
def saved(half, tmp_path):
    """The directory of a model that was saved in half precision."""
    BeatsModel(BeatsConfig(**TINY)).to(half).save_pretrained(tmp_path / "model")
    BeatsFeatureExtractor().save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def test_half_precision_is_emulated_on_cpus_only(emulated, half):
    assert is_emulated(half, "cpu") == emulated
    assert not is_emulated(half, "cuda:1")
    assert not is_emulated(torch.float32, "cpu")


def test_the_two_half_precisions_are_told_apart(monkeypatch):
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: True)
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_fp16_supported", lambda: False)
    assert [is_emulated(dtype, "cpu") for dtype in HALVES] == [False, True]


def test_a_pytorch_that_does_not_tell_is_believed(monkeypatch):
    monkeypatch.setattr(torch.ops, "mkldnn", object())
    assert not is_emulated(torch.bfloat16, "cpu")


@pytest.mark.parametrize("device", [None, "cpu"])
def test_a_saved_precision_that_is_emulated_is_not_used(saved, half, emulated, device, caplog):
    model = load_model(saved, device=device)
    assert model.dtype == (torch.float32 if emulated else half)
    assert ("float32 is used, as this CPU has no instructions for" in caplog.text) == emulated
    assert WindowedInference.from_pretrained(saved).model.dtype == model.dtype
    # The same weights, whose sums are more exact.
    expected = BeatsModel.from_pretrained(saved, dtype=half).state_dict()
    assert all(torch.equal(value.to(half), expected[name]) for name, value in model.state_dict().items())


def test_a_precision_that_was_asked_for_is_used_with_a_warning(saved, half, emulated, caplog):
    inference = WindowedInference.from_pretrained(saved, dtype=name_of(half))
    assert inference.model.dtype == half
    warning = f"This CPU has no instructions for {name_of(half)}, which takes 7 to 8 times as long as float32"
    assert (warning in caplog.text) == emulated
    assert np.isfinite(inference.embed(np.full(16000, 0.1), 16000)).all()


def test_the_model_of_an_output_keeps_its_precision_and_the_advice_can_be_followed(
    saved, half, emulated, tmp_path, caplog
):
    fingerprint = model_fingerprint(*load(saved, "cpu", name_of(half)))
    output = tmp_path / "hum.safetensors"
    loaded = load_again(output, str(saved), fingerprint, "cpu", name_of(half))
    WindowedInference(*loaded)
    assert loaded[0].dtype == half
    warning = f"{output}: was made in {name_of(half)}, which this CPU emulates"
    assert (warning in caplog.text) == emulated
    assert ("make it again with --dtype float32" in caplog.text) == emulated
    assert 'dtype="float32"' not in caplog.text


def test_the_command_line_says_what_it_uses(saved, half, emulated, tmp_path, caplog):
    soundfile.write(tmp_path / "a.wav", np.random.default_rng(0).normal(0, 0.1, 16000), 16000)
    words = ["embed", str(tmp_path / "a.wav"), "--model", str(saved), "--device", "cpu"]
    with caplog.at_level("WARNING"):
        result = CliRunner().invoke(app, [*words, "--output", str(tmp_path / "out")])
    assert result.exit_code == 0, result.output
    said = caplog.text + result.output
    assert (f"float32 is used, as this CPU has no instructions for {name_of(half)}" in said) == emulated
