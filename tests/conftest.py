# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""
Fixtures of all tests, and a switch that runs them as on an older CPU:

    NO_BF16=1 ATEN_CPU_CAPABILITY=avx2 MKL_ENABLE_INSTRUCTIONS=AVX2 ONEDNN_MAX_CPU_ISA=AVX2 ./run test

`NO_BF16=1` reports bfloat16 as absent from the CPU, in the process of the tests. The others are variables of PyTorch
and its libraries, which choose their kernels by them. The suite must pass with all: a test that needs an instruction
set says so in a `skipif`, and a test of what depends on one sets it with `monkeypatch`.
"""

import gc
import os

import datasets
import pytest
import torch
from fresh import forked_python
from golden import FIXTURES, NUM_CLIPS
from hypothesis import settings
from safetensors.torch import load_file
from transformers.utils import logging

from transformers_beats import BeatsConfig, BeatsFeatureExtractor
from transformers_beats.conversion.checkpoint import read_checkpoint
from transformers_beats.conversion.convert import convert


# How long an example takes depends on the machine and on what else it does.
settings.register_profile("any machine", deadline=None)
settings.load_profile("any machine")


class FakeOperation:
    """An operation of PyTorch that returns `result`. The compiler looks at all operations, and finds the true one."""

    def __init__(self, operation, result):
        self._operation, self._result = operation, result

    def __call__(self):
        return self._result

    def __getattr__(self, name):
        return getattr(self._operation, name)


if os.environ.get("NO_BF16"):
    torch.ops.mkldnn._is_mkldnn_bf16_supported = FakeOperation(torch.ops.mkldnn._is_mkldnn_bf16_supported, False)


@pytest.fixture(scope="module", autouse=True)
def frozen():
    """What was imported so far is no garbage: every training collects some, which takes half a second with it."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def no_pause():
    """`datasets` waits for five seconds after it has read Parquet files in threads, which may end a process badly."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets.config, "SLEEP_TIME_ON_THREADS_SHUTDOWN", 0.1, raising=False)
        yield


@pytest.fixture(autouse=True)
def unwarned():
    """Warnings that are given once in a process are given once in a test."""
    logging.warning_once.cache_clear()


@pytest.fixture(scope="session")
def models(tmp_path_factory):
    """Directories of a converted pre-trained model, fine-tuned model and tokenizer."""
    root = tmp_path_factory.mktemp("models")
    for name in ("beats_tiny", "beats_tiny_finetuned", "tokenizer_tiny"):
        convert(FIXTURES / f"{name}.pt", root / name)
    return root


@pytest.fixture(scope="session")
def golden_inputs() -> dict[str, torch.Tensor]:
    """Waveforms and their fbanks as the reference computes them."""
    return load_file(FIXTURES / "inputs.safetensors")


@pytest.fixture(scope="session")
def waveforms(golden_inputs) -> list[torch.Tensor]:
    """Three mono clips at 16 kHz, of 32,777, 16,123 and 10,000 samples."""
    return [golden_inputs[f"waveform{index}"] for index in range(NUM_CLIPS)]


@pytest.fixture
def extract(waveforms):
    """Features of one clip, or of all clips as a padded batch."""

    def extract(index: int | None = None, **kwargs):
        clips = waveforms if index is None else waveforms[index]
        return BeatsFeatureExtractor(**kwargs)(clips, sampling_rate=16000, return_tensors="pt")

    return extract


@pytest.fixture
def golden_model():
    """A model with the weights of a golden checkpoint; keyword arguments change its configuration."""

    def build(name: str, **kwargs):
        checkpoint = read_checkpoint(FIXTURES / f"{name}.pt")
        for key, value in kwargs.items():
            setattr(checkpoint.config, key, value)
        return checkpoint.build_model()

    return build


@pytest.fixture
def golden_outputs():
    def load(name: str) -> dict[str, torch.Tensor]:
        return load_file(FIXTURES / f"{name}.expected.safetensors")

    return load


@pytest.fixture(scope="session")
def fresh_python():
    """Runs programs in fresh processes; see `fresh.py`."""
    with forked_python() as run:
        yield run


@pytest.fixture
def compiler():
    """A compiler that remembers no other test."""
    torch._dynamo.reset()


@pytest.fixture
def tiny_config() -> BeatsConfig:
    """A small model whose position convolution has 16 channels a group; no dropout."""
    return BeatsConfig(
        hidden_size=64,
        num_hidden_layers=3,
        num_attention_heads=4,
        intermediate_size=96,
        embed_dim=32,
        num_conv_pos_embeddings=16,
        num_conv_pos_embedding_groups=4,
        hidden_dropout=0.0,
        attention_dropout=0.0,
        feat_proj_dropout=0.0,
        layerdrop=0.0,
        num_labels=5,
    )
