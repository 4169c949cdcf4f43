# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Recordings whose events are known."""

import numpy as np


RATE = 16_000


def recording(*loud: tuple[float, float], seconds: float) -> np.ndarray:
    """Near silence, of which a model may have events, with loud noise from when to when, in seconds, at 16 kHz."""
    waveform = np.full(round(seconds * RATE), 1e-6, dtype=np.float32)
    waveform[::2] *= -1
    for start, end in loud:
        part = slice(round(start * RATE), round(end * RATE))
        waveform[part] = 0.5 * np.random.default_rng(0).standard_normal(len(waveform[part]))
    return waveform
