# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Files in the cache that depend on the package and on the decoders."""

import importlib.metadata
import shutil
from pathlib import Path
from typing import Any

import soundfile
import soxr
from datasets import config as datasets_config
from datasets.fingerprint import Hasher

import transformers_beats


def cache_path(name: str, *key: Any) -> Path:
    """
    Returns the path of a file in the cache. Its name changes with the key, the package and the decoders: a fix of a
    decoder, or one that is installed, must be seen.
    """
    decoders = [soundfile.__version__, soundfile.__libsndfile_version__, soxr.__version__, _version("torchcodec")]
    decoders.append(shutil.which("ffmpeg"))
    directory = Path(datasets_config.HF_DATASETS_CACHE) / "transformers_beats"
    directory.mkdir(parents=True, exist_ok=True)
    return directory / name.format(Hasher.hash((key, transformers_beats.__version__, decoders)))


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
