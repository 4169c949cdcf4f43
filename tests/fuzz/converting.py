# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
# ruff: noqa: PT017  # either a result or an error: `pytest.raises` demands one
"""Checkpoints as files, and what conversion may make of them."""

import io
import os
import tempfile
from pathlib import Path

import pytest
import torch
from golden import FIXTURES
from safetensors.torch import load_file

from transformers_beats.conversion.checkpoint import CheckpointError, read_checkpoint
from transformers_beats.conversion.convert import convert


def assert_converted_or_refused(data: bytes, suffix: str = ".pt", is_whole: bool = False) -> bool:
    """
    Reads a file or, with `is_whole`, converts it. If that works, all values are finite; if not, conversion leaves
    nothing beside the source.
    """
    with tempfile.TemporaryDirectory() as name:
        source, output = Path(name) / f"source{suffix}", Path(name) / "made" / "out"
        source.write_bytes(data)
        try:
            state_dict = read_checkpoint(source).state_dict
            if is_whole:
                convert(source, output)
                assert os.listdir(output.parent) == ["out"]
                state_dict = load_file(output / "model.safetensors")
        except CheckpointError as error:
            assert len(str(error).splitlines()) == 1, str(error)
            with pytest.raises(CheckpointError):
                convert(source, output)
            assert os.listdir(name) == [source.name]
            return False
        assert state_dict
        assert all(tensor.isfinite().all() for tensor in state_dict.values())
        return True


def read(name: str) -> bytes:
    return (FIXTURES / f"{name}.pt").read_bytes()


def to_bytes(contents, layout: str = "zip") -> bytes:
    """A file in one of PyTorch's layouts."""
    file = io.BytesIO()
    torch.save(contents, file, _use_new_zipfile_serialization=layout == "zip")
    return file.getvalue()


def contents_of(name: str) -> dict:
    return torch.load(FIXTURES / f"{name}.pt", weights_only=True)
