# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""The plain implementation computes what Microsoft's code computes, from the waveform and the tensors of a file."""

import pytest
import torch
from golden import FIXTURES, NUM_CLIPS

from transformers_beats.utils.errors import BeatsError
from transformers_beats.verification.plain import PlainBeats, plain_features, read_file


def plain(name: str) -> PlainBeats:
    contents = read_file(FIXTURES / f"{name}.pt")
    return PlainBeats(contents["cfg"], contents["model"])


@torch.no_grad()
@pytest.mark.parametrize("index", range(NUM_CLIPS))
def test_states_are_those_of_microsofts_code(index, waveforms, golden_outputs):
    states = plain("beats_tiny").encode(plain_features([waveforms[index]]))
    expected = golden_outputs("beats_tiny")[f"single{index}.last_hidden_state"]
    torch.testing.assert_close(states, expected, atol=1e-4, rtol=0)


@torch.no_grad()
def test_states_beside_padding_are_those_of_microsofts_code(golden_inputs, golden_outputs):
    expected = golden_outputs("beats_tiny")
    padding = expected["batch.patch_padding_mask"].bool()
    states = plain("beats_tiny").encode(plain_features(golden_inputs["batch"]), padding)
    torch.testing.assert_close(states[~padding], expected["batch.last_hidden_state"][~padding], atol=1e-4, rtol=0)


@torch.no_grad()
@pytest.mark.parametrize("index", range(NUM_CLIPS))
def test_probabilities_are_those_of_microsofts_code(index, waveforms, golden_outputs):
    beats = plain("beats_tiny_finetuned")
    probabilities = beats.classify(beats.encode(plain_features([waveforms[index]])))
    expected = golden_outputs("beats_tiny_finetuned")[f"single{index}.probabilities"]
    torch.testing.assert_close(probabilities, expected, atol=1e-4, rtol=0)


@torch.no_grad()
@pytest.mark.parametrize("index", range(NUM_CLIPS))
def test_codes_are_those_of_microsofts_code(index, waveforms, golden_outputs):
    beats = plain("tokenizer_tiny")
    codes = beats.quantize(beats.encode(plain_features([waveforms[index]])))
    assert torch.equal(codes, golden_outputs("tokenizer_tiny")[f"single{index}.labels"].reshape(codes.shape))


@pytest.mark.parametrize("name", ["beats_tiny_prenorm", "beats_tiny_plain", "beats_tiny_glu"])
def test_other_architectures_are_refused(name):
    with pytest.raises(BeatsError, match="released architecture only, not"):
        plain(name)
