# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""
Synthesised machines with and without a defect, for detectors of anomalous sounds.

Speed, load, level and background noise are random within what is normal for a domain. A defect is mixed to the same
sound at a known ratio of its power to that of machine and background. Everything is drawn from the generator that is
passed.

```python
>>> import numpy as np
>>> from transformers_beats.audio.machines import synthesize_machine

>>> waveform = synthesize_machine("fan", np.random.default_rng(0), defect_db=-6.0)
>>> waveform.shape, waveform.dtype
((48000,), dtype('float32'))
```
"""

from typing import NamedTuple

import numpy as np

from .synthesis import SAMPLING_RATE, _add, _decay, _noise, _num_samples, _swell, _tone, _wander


# Usual conditions, of which there are many clips, and others, of which there are few.
SOURCE, TARGET = DOMAINS = ("source", "target")
# Of machine to background, in dB: a target domain is noisier.
BACKGROUND_DB = {SOURCE: (12.0, 18.0), TARGET: (6.0, 12.0)}


class _Track(NamedTuple):
    """The sound of a machine and, apart from it, that of its defect, `(num_samples,)` each."""

    machine: np.ndarray
    defect: np.ndarray


def _motor(generator: np.random.Generator, duration: float, domain: str) -> _Track:
    """Harmonics of a rotation under changing load; a bearing knocks at 3.58 times the rotation, near 3 kHz."""
    count = _num_samples(duration)
    low, high = (46, 50) if domain == SOURCE else (58, 62)
    speed = generator.uniform(low, high) * (1 + 0.01 * _wander(generator, count, 1.5))
    partials = {
        order: generator.uniform(0.7, 1.0) / order**0.8 for order in (1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 24.0)
    }
    hum = _tone(speed, partials)
    brushes = 0.15 * _noise(generator, count, 500, 3000, slope=0.3)
    defect = np.zeros(count)
    knock = _tone(np.full(_num_samples(0.02), generator.uniform(2800, 3300)), {1: 1.0, 1.6: 0.4})
    knock *= _decay(len(knock), 0.012, 0.0003)
    start, interval = generator.uniform(0, 0.01), 1 / (3.58 * float(speed.mean()))
    while start < duration:
        _add(defect, knock * generator.uniform(0.7, 1.0), start)
        start += interval * generator.uniform(0.98, 1.02)
    return _Track(hum + brushes, defect)


def _fan(generator: np.random.Generator, duration: float, domain: str) -> _Track:
    """Rushing air and the tone of passing blades; a blade scrapes at its housing once in a rotation."""
    count = _num_samples(duration)
    low, high = (18, 21) if domain == SOURCE else (25, 28)
    rotation = generator.uniform(low, high) * (1 + 0.005 * _wander(generator, count, 1.0))
    air = _noise(generator, count, 100, generator.uniform(2200, 2800), slope=0.5)
    blades = 0.25 * _tone(7 * rotation, {1.0: 1.0, 2.0: 0.5, 3.0: 0.25})
    scrape = (0.5 + 0.5 * _tone(rotation, {1.0: 1.0})) ** 8 * _noise(generator, count, 3000, 6500)
    return _Track(air + blades, scrape)


def _valve(generator: np.random.Generator, duration: float, domain: str) -> _Track:
    """Strokes that open and close in time; a leak hisses for as long as the valve is closed."""
    count = _num_samples(duration)
    period = generator.uniform(0.48, 0.52) if domain == SOURCE else generator.uniform(0.33, 0.36)
    body, track, leak = generator.uniform(900, 1100), np.zeros(count), np.zeros(count)
    stroke_length = _num_samples(0.08)
    start = generator.uniform(0, period)
    hiss = _noise(generator, count, 4500, 7500)
    while start < duration:
        for offset, gain in ((0.0, 1.0), (0.4 * period, 0.6)):
            stroke = _tone(np.full(stroke_length, body * generator.uniform(0.98, 1.02)), {1: 1.0, 2.4: 0.5, 3.9: 0.3})
            click = 0.5 * _noise(generator, stroke_length, 1000, 6000)
            _add(track, gain * (stroke + click) * _decay(stroke_length, 0.06, 0.0005), start + offset)
        closed = _swell(_num_samples(0.55 * period), 0.01)
        first = _num_samples(start + 0.42 * period)
        part = leak[first : first + len(closed)]
        part += hiss[first : first + len(part)] * closed[: len(part)]
        start += period * generator.uniform(0.995, 1.005)
    return _Track(track, leak)


_MACHINES = {"motor": _motor, "fan": _fan, "valve": _valve}
MACHINES = tuple(_MACHINES)


def synthesize_machine(
    machine: str,
    generator: np.random.Generator,
    defect_db: float | None = None,
    domain: str = SOURCE,
    duration: float = 3.0,
) -> np.ndarray:
    """
    Makes a clip of a machine in background noise, at a random level.

    Args:
        machine (`str`):
            One of [`MACHINES`].
        generator (`np.random.Generator`):
            Source of all randomness; it advances.
        defect_db (`float`, *optional*):
            Power of the defect relative to that of machine and background together, in decibels. Without it, the
            machine is normal. The rest of the clip does not depend on it.
        domain (`str`, defaults to `"source"`):
            `"source"`, or `"target"` for another speed and more noise.
        duration (`float`, defaults to 3.0):
            Length in seconds, at least 1.

    Returns:
        `np.ndarray` of shape `(round(duration * 16000),)`: float32, mono, 16 kHz, within [-1, 1].

    Raises:
        `ValueError`: for an unknown machine or domain, or a clip that is too short.
    """
    for name, value, known in (("machine", machine, MACHINES), ("domain", domain, DOMAINS)):
        if value not in known:
            raise ValueError(f"Unknown {name} {value!r}: expected one of {', '.join(known)}.")
    if not duration >= 1:
        raise ValueError(f"`duration` must be at least 1 s, got {duration}.")
    track = _MACHINES[machine](generator, duration, domain)
    clip = track.machine / track.machine.std()
    background = _noise(generator, len(clip), 20, 8000, slope=generator.uniform(0.5, 0.8))
    clip = clip + 10 ** (-generator.uniform(*BACKGROUND_DB[domain]) / 20) * background
    level = 10 ** (-generator.uniform(30, 36) / 20) / np.sqrt(np.square(clip).mean())
    if defect_db is not None:
        ratio = np.square(clip).mean() / np.square(track.defect).mean()
        clip = clip + np.sqrt(ratio * 10 ** (defect_db / 10)) * track.defect
    # Clips of one level would tell the defect by their power.
    return np.clip(clip * level, -1.0, 1.0).astype(np.float32)


__all__ = ["DOMAINS", "MACHINES", "SAMPLING_RATE", "SOURCE", "TARGET", "synthesize_machine"]
