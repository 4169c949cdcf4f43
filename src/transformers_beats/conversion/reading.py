# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Reading of checkpoints of others, of which nothing is executed."""

import pickle
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from transformers_beats.utils.errors import BeatsError, one_line
from transformers_beats.utils.files import check_file

from .locations import MAX_BYTES, check_size


class CheckpointError(BeatsError):
    """Checkpoint that cannot be converted. `publish` reports it as refused and goes on with the next one."""

    def __init__(self, message: str):
        # Names of tensors and settings in a foreign file may contain line ends.
        super().__init__(one_line(message))


def load(path: Path, max_bytes: float = MAX_BYTES) -> dict[str, Any]:
    """
    Returns the dictionary in a file. Its tensors are mapped instead of read, which halves the memory.

    Raises:
        [`UsageError`]: if there is no such file, or it is too large.
        [`CheckpointError`]: if the file is damaged, or holds more than tensors and plain values.
    """
    check_file(path)
    check_size(str(path), path.stat().st_size, max_bytes)
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


def _check_zip(path: Path) -> None:
    """Checks the archive for PyTorch, which maps compressed entries as they are and ignores checksums."""
    with zipfile.ZipFile(path) as archive:
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
            raise CheckpointError(
                f"{path}: a compressed archive, which PyTorch never writes: save it with torch.save."
            )
        if damaged := archive.testzip():
            raise CheckpointError(f"{path}: damaged: the checksum of {damaged!r} in it is wrong.")
