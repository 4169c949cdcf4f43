# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Audio: decoding, files, labels of AudioSet, synthesis."""

from typing import TYPE_CHECKING, Any


if TYPE_CHECKING:
    from .decoding import AudioError, decode_audio, open_audio

__all__ = ["AudioError", "decode_audio", "open_audio"]


# Decoding imports torch, which a command line that searches files has no use for.
def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from . import decoding

    return getattr(decoding, name)
