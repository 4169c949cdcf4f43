# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Reading of foreign files: checkpoints, of which nothing is executed, and settings in YAML or JSON."""

import json
import pickle
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors.torch import load_file

from transformers_beats.utils.errors import BeatsError, UsageError, one_line


# The largest published file with a BEATs in it, a classifier of 311 M parameters, has 1.25 GB; a training checkpoint
# of it, with the state of the optimizer, has under 5 GB.
MAX_BYTES = 8_000_000_000
# A configuration has some kB, one with the names of 10,000 classes under 1 MB; YAML is read at about 0.1 MB a second.
MAX_SETTINGS_BYTES = 5_000_000


class CheckpointError(BeatsError):
    """Checkpoint that cannot be converted. `publish` reports it as refused and goes on with the next one."""

    def __init__(self, message: str):
        # Names of tensors and settings in a foreign file may contain line ends.
        super().__init__(one_line(message))


def check_size(name: str | Path, num_bytes: int, max_bytes: int = MAX_BYTES) -> None:
    """Raises a [`CheckpointError`] if a file, here or elsewhere, is too large to be read or downloaded unasked."""
    if num_bytes > max_bytes:
        raise CheckpointError(
            f"{name}: has {num_bytes / 1e9:.2f} GB, more than {max_bytes / 1e9:g} GB; no file was read. "
            "--max-size GB allows more."
        )


def check_settings_size(name: str | Path, num_bytes: int) -> None:
    """Raises a [`CheckpointError`] if a file is too large for settings."""
    if num_bytes > MAX_SETTINGS_BYTES:
        raise CheckpointError(f"{name}: has {num_bytes / 1e6:.0f} MB, which are no settings.")


def load(path: Path, max_bytes: int = MAX_BYTES) -> dict[str, Any]:
    """
    Returns the dictionary in a file. Its tensors are mapped instead of read, which halves the memory.

    Raises:
        [`UsageError`]: if there is no such file.
        [`CheckpointError`]: if the file is too large or damaged, or holds more than tensors and plain values.
    """
    _check_file(path)
    check_size(path, path.stat().st_size, max_bytes)
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        # The format before torch 1.6 cannot be mapped.
        is_zip = zipfile.is_zipfile(path)
        if is_zip:
            _check_zip(path)
        contents = torch.load(path, map_location="cpu", weights_only=True, mmap=is_zip)
    except CheckpointError:
        raise
    except UnicodeEncodeError as error:
        raise CheckpointError(f"{path}: PyTorch opens no file whose name is not valid UTF-8: rename it.") from error
    except Exception as error:  # whatever a foreign file makes of the readers
        if isinstance(error, pickle.UnpicklingError) and "GLOBAL" in str(error):
            # torch names the class or function that it refused to import.
            found = re.search(r"GLOBAL ([\w.]+)", str(error))
            name = f" ({found[1]})" if found else ""
            raise CheckpointError(
                f"{path}: contains Python objects other than tensors{name}; loading it could run code. If you "
                "trust it, save its tensors alone, as {'cfg': ..., 'model': state_dict}."
            ) from error
        layout = "safetensors file" if path.suffix == ".safetensors" else "PyTorch checkpoint"
        raise CheckpointError(f"{path}: not a {layout}, or damaged.") from error
    if not isinstance(contents, Mapping):
        found = type(contents).__name__
        raise CheckpointError(f"{path}: not a BEATs checkpoint: expected `cfg` and `model`, found {found}.")
    return dict(contents)


def read_yaml(path: Path) -> Mapping[str, Any]:
    """
    Reads a YAML or JSON file of keys and values.

    Raises:
        [`UsageError`]: if there is no such file.
        [`CheckpointError`]: if it is too large, cannot be read, or holds something else.
    """
    _check_file(path)
    check_settings_size(path, path.stat().st_size)
    try:
        text = path.read_bytes().decode("utf-8")
        contents = json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
    except Exception as error:  # dates that are none, too many brackets: not only YAMLError
        raise CheckpointError(f"{path}: not a YAML or JSON file.") from error
    if not isinstance(contents, Mapping):
        raise CheckpointError(f"{path}: expected keys and values, found {type(contents).__name__}.")
    return contents


def _check_file(path: Path) -> None:
    if not path.is_file():
        raise UsageError(f"{path}: {'is no regular file' if path.exists() else 'no such file'}.")


def _check_zip(path: Path) -> None:
    """Checks the archive for PyTorch, which maps compressed entries as they are and ignores checksums."""
    with zipfile.ZipFile(path) as archive:
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
            raise CheckpointError(
                f"{path}: a compressed archive, which PyTorch never writes: save it with torch.save."
            )
        if damaged := archive.testzip():
            raise CheckpointError(f"{path}: damaged: the checksum of {damaged!r} in it is wrong.")
