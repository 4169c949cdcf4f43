# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Audio: decoding, files, labels of AudioSet, synthesis."""

from .decoding import AudioError, decode_audio, open_audio


__all__ = ["AudioError", "decode_audio", "open_audio"]
