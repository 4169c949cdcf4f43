# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""
Ten classes of synthesised sound events: a small dataset that needs no download and no licence.

Pitch, rate, level, onset and background noise are random, so that a classifier has to listen to what is left: the
time-frequency shape of a class. Everything is drawn from the generator that is passed, so the same seed gives the same
samples, bit for bit, on one machine and with one version of NumPy.

```python
>>> import numpy as np
>>> from transformers_beats.audio.synthesis import make_dataset, synthesize

>>> waveform = synthesize("bell", np.random.default_rng(0), duration=2.0)
>>> waveform.shape, waveform.dtype
((32000,), dtype('float32'))
>>> make_dataset(clips_per_class=2, seed=0).num_rows
20
```
"""

import numpy as np
from datasets import ClassLabel, Dataset, Features, List, Value


SAMPLING_RATE = 16000
# Seconds. Clips of different lengths make a batch that has padding.
MIN_DURATION, MAX_DURATION = 1.5, 3.0


def _num_samples(seconds: float) -> int:
    return round(seconds * SAMPLING_RATE)


def _seconds(num_samples: int) -> np.ndarray:
    """Time of every sample in seconds, `(num_samples,)`."""
    return np.arange(num_samples) / SAMPLING_RATE


def _tone(frequency: np.ndarray, partials: dict[float, float]) -> np.ndarray:
    """
    Sum of sinusoids, `(num_samples,)`: `partials` has the amplitude of each multiple of a fundamental, whose
    `frequency` in hertz, `(num_samples,)`, may glide. Partials beyond the Nyquist frequency are silent.
    """
    phase = 2 * np.pi * np.cumsum(frequency) / SAMPLING_RATE
    audible = {ratio: frequency * ratio < SAMPLING_RATE / 2 for ratio in partials}
    return sum(
        (amplitude * audible[ratio] * np.sin(ratio * phase) for ratio, amplitude in partials.items()),
        start=np.zeros(len(frequency)),
    )


def _noise(
    generator: np.random.Generator, num_samples: int, low: float, high: float, slope: float = 0.0
) -> np.ndarray:
    """Noise of unit variance between two frequencies in hertz, falling by `slope` x 6 dB per octave."""
    # A power of two: transforms of other lengths take up to ten times as long.
    fft_length = 1 << (num_samples - 1).bit_length()
    spectrum = np.fft.rfft(generator.standard_normal(fft_length))
    frequencies = np.fft.rfftfreq(fft_length, 1 / SAMPLING_RATE).clip(min=1.0)
    # Flanks of 24 dB per octave: steeper ones would ring.
    band = 1 / (1 + (low / frequencies) ** 4) / (1 + (frequencies / high) ** 4)
    noise = np.fft.irfft(spectrum * band * frequencies**-slope, n=fft_length)[:num_samples]
    return noise / noise.std()


def _decay(num_samples: int, seconds: float, attack: float = 0.002) -> np.ndarray:
    """Envelope that rises in `attack` seconds and falls by 60 dB in `seconds`."""
    time = _seconds(num_samples)
    return np.minimum(time / attack, 1.0) * 10 ** (-3 * time / seconds)


def _swell(num_samples: int, ramp: float = 0.02) -> np.ndarray:
    """Envelope that is 1 with ramps of `ramp` seconds at both ends."""
    time = _seconds(num_samples)
    return np.minimum(np.minimum(time, time[::-1]) / ramp, 1.0)


def _add(track: np.ndarray, sound: np.ndarray, start: float) -> None:
    """Mixes `sound` into `track` at `start` seconds, in place; what goes beyond the end is lost."""
    first = _num_samples(start)
    part = track[first : first + len(sound)]
    part += sound[: len(part)]


def _wander(generator: np.random.Generator, num_samples: int, rate: float) -> np.ndarray:
    """Smooth random curve in [-1, 1] that turns about `rate` times a second."""
    num_knots = max(2, round(rate * num_samples / SAMPLING_RATE) + 2)
    knots = generator.uniform(-1.0, 1.0, num_knots)
    return np.interp(np.linspace(0, num_knots - 1, num_samples), np.arange(num_knots), knots)


def _alarm(generator: np.random.Generator, duration: float) -> np.ndarray:
    """Electronic beeps: a nearly square tone, switched on and off in groups."""
    track = np.zeros(_num_samples(duration))
    pitch, beep = generator.uniform(700, 2400), generator.uniform(0.06, 0.2)
    gap, pause = beep * generator.uniform(0.6, 1.2), generator.uniform(0.2, 0.5)
    beeps_per_group = generator.integers(2, 6)
    count = _num_samples(beep)
    sound = _tone(np.full(count, pitch), {1: 1.0, 3: 0.33, 5: 0.2, 7: 0.14}) * _swell(count, 0.003)
    start = 0.0
    while start < duration:
        for _ in range(beeps_per_group):
            _add(track, sound, start)
            start += beep + gap
        start += pause
    return track


def _bell(generator: np.random.Generator, duration: float) -> np.ndarray:
    """One to three strokes of a bell: inharmonic partials, the higher the sooner gone."""
    track = np.zeros(_num_samples(duration))
    pitch, ring = generator.uniform(300, 900), generator.uniform(1.5, 4.0)
    ratios = np.array([0.5, 1.0, 1.19, 1.56, 2.0, 2.66, 3.01, 4.1, 5.43, 6.8]) * generator.uniform(0.99, 1.01, 10)
    stroke = np.zeros(len(track))
    for ratio in ratios:
        partial = _tone(np.full(len(track), pitch), {ratio: generator.uniform(0.4, 1.0) / ratio**0.4})
        stroke += partial * _decay(len(track), ring / ratio**0.6)
    interval = generator.uniform(0.5, 1.2)
    for index in range(generator.integers(1, 4)):
        _add(track, stroke * generator.uniform(0.6, 1.0), index * interval)
    return track


def _bird(generator: np.random.Generator, duration: float) -> np.ndarray:
    """Phrases of a few chirps: high, short, gliding, with a fast warble."""
    track = np.zeros(_num_samples(duration))
    syllables = []
    for _ in range(generator.integers(1, 4)):
        position = np.linspace(-1, 1, _num_samples(generator.uniform(0.05, 0.16)))
        glide = generator.uniform(-0.3, 0.3) * position + generator.uniform(-0.25, 0.25) * (1 - position**2)
        warble = generator.uniform(0.0, 0.06) * np.sin(2 * np.pi * generator.uniform(2, 5) * position)
        frequency = generator.uniform(2500, 5000) * (1 + glide + warble)
        syllables.append(_tone(frequency, {1: 1.0, 2: 0.1}) * np.cos(position * np.pi / 2) ** 0.7)
    start, gap = 0.0, generator.uniform(0.02, 0.1)
    while start < duration:
        for index in range(generator.integers(3, 8)):
            syllable = syllables[index % len(syllables)]
            _add(track, syllable * generator.uniform(0.6, 1.0), start)
            start += len(syllable) / SAMPLING_RATE + gap
        start += generator.uniform(0.2, 0.5)
    return track


def _clock(generator: np.random.Generator, duration: float) -> np.ndarray:
    """Tick and tock, strictly in time: clicks with a short wooden resonance."""
    track = np.zeros(_num_samples(duration))
    count, interval = _num_samples(0.06), generator.uniform(0.2, 0.5)
    clicks = []
    for resonance in generator.uniform(1800, 3200) * np.array([1.0, generator.uniform(0.6, 0.85)]):
        wood = _tone(np.full(count, resonance), {1: 1.0, 1.7: 0.6, 2.4: 0.4}) * _decay(count, 0.035, 0.0005)
        snap = _noise(generator, count, 2000, 7000) * _decay(count, 0.012, 0.0005)
        clicks.append(wood + 0.7 * snap)
    for index, start in enumerate(np.arange(0.0, duration, interval)):
        _add(track, clicks[index % 2], start)
    return track


def _dog(generator: np.random.Generator, duration: float) -> np.ndarray:
    """Barks: a harsh voice whose pitch rises and falls, through the resonances of a mouth that opens and shuts."""
    track = np.zeros(_num_samples(duration))
    pitch, formants = generator.uniform(220, 520), generator.uniform([600, 1500], [1000, 2400])
    start = 0.0
    while start < duration:
        count = _num_samples(generator.uniform(0.12, 0.24))
        arch = np.sin(np.linspace(0, np.pi, count))
        frequency = pitch * (0.75 + 0.45 * arch**0.7) * (1 + 0.03 * _wander(generator, count, 120))
        harmonics = pitch * np.arange(1, 16)
        resonance = sum(np.exp(-(((harmonics - formant) / 450) ** 2)) for formant in formants)
        voice = _tone(frequency, {index + 1.0: gain + 0.06 for index, gain in enumerate(resonance)})
        rasp = 0.5 * _noise(generator, count, 500, 3500)
        _add(track, (voice + rasp) * arch**0.8, start)
        start += count / SAMPLING_RATE + generator.choice([generator.uniform(0.08, 0.2), generator.uniform(0.3, 0.6)])
    return track


def _engine(generator: np.random.Generator, duration: float) -> np.ndarray:
    """A motor under changing load: low harmonics of the firing rate, and noise that pulses with it."""
    count = _num_samples(duration)
    speed = 1 + generator.uniform(0.05, 0.35) * _wander(generator, count, 1.0)
    frequency = generator.uniform(35, 90) * speed * (1 + 0.01 * _wander(generator, count, 40))
    partials = {
        order: generator.uniform(0.5, 1.0) / order**0.5 for order in (0.5, 1, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10, 12)
    }
    pulses = (0.5 + 0.5 * _tone(frequency, {1: 1.0})) ** 3
    exhaust = _noise(generator, count, 150, generator.uniform(800, 2500), slope=0.3) * pulses
    return (_tone(frequency, partials) + generator.uniform(0.5, 1.2) * exhaust) * _swell(count, 0.1)


def _footsteps(generator: np.random.Generator, duration: float) -> np.ndarray:
    """Someone walking: the thud of a heel, then the scrape of a sole, not quite in time."""
    track = np.zeros(_num_samples(duration))
    interval, thud_pitch = generator.uniform(0.35, 0.65), generator.uniform(70, 140)
    floor_low, floor_high = generator.uniform(250, 500), generator.uniform(1200, 3000)
    start = 0.0
    while start < duration:
        count = _num_samples(0.22)
        thud = _tone(thud_pitch * (1 + _decay(count, 0.1)), {1: 1.0, 2.3: 0.4}) * _decay(count, 0.15, 0.004)
        heel = _noise(generator, count, floor_low, floor_high) * _decay(count, 0.07, 0.003)
        scrape_count = _num_samples(generator.uniform(0.08, 0.16))
        scrape = _noise(generator, scrape_count, floor_low * 2, floor_high * 1.5) * np.hanning(scrape_count)
        level = generator.uniform(0.6, 1.0)
        _add(track, level * (1.5 * thud + 0.5 * heel), start)
        _add(track, level * generator.uniform(0.08, 0.25) * scrape, start + generator.uniform(0.06, 0.12))
        start += interval * generator.uniform(0.85, 1.15)
    return track


def _rain(generator: np.random.Generator, duration: float) -> np.ndarray:
    """Steady hiss with drops that fall at random, each a short ring of a bubble."""
    count = _num_samples(duration)
    gusts = 1 + 0.2 * _wander(generator, count, 2.0)
    track = _noise(generator, count, generator.uniform(600, 1500), 7500, slope=generator.uniform(0.0, 0.4)) * gusts
    drop_count = _num_samples(0.02)
    for start in generator.uniform(0.0, duration, generator.poisson(generator.uniform(15, 60) * duration)):
        pitch = np.linspace(1.0, 1.2, drop_count) * generator.uniform(1500, 6500)
        _add(track, generator.uniform(1.5, 6.0) * _tone(pitch, {1: 1.0}) * _decay(drop_count, 0.02, 0.001), start)
    return track * _swell(count, 0.1)


def _siren(generator: np.random.Generator, duration: float) -> np.ndarray:
    """A horn that wails up and down, slowly or fast."""
    count = _num_samples(duration)
    cycle = np.sin(2 * np.pi * (generator.uniform(0.4, 2.5) * _seconds(count) + generator.uniform()))
    frequency = generator.uniform(600, 1100) * 2 ** (generator.uniform(0.35, 0.75) * cycle)
    return _tone(frequency, {1: 1.0, 2: 0.5, 3: 0.4, 4: 0.15, 5: 0.1}) * _swell(count, 0.05)


def _thunder(generator: np.random.Generator, duration: float) -> np.ndarray:
    """A crack, then rolls of ever deeper rumble."""
    track = np.zeros(_num_samples(duration))
    crack_count = _num_samples(generator.uniform(0.2, 0.5))
    crackle = np.abs(_wander(generator, crack_count, 60)) ** 2
    crack = _noise(generator, crack_count, 100, 5000, slope=0.5) * crackle * _decay(crack_count, 0.6, 0.01)
    _add(track, generator.uniform(0.3, 1.0) * crack, 0.0)
    roll_starts = np.sort(generator.uniform(0.0, 0.8 * duration, generator.integers(3, 7)))
    for index, start in enumerate([0.0, *roll_starts]):
        count = _num_samples(generator.uniform(0.8, 1.6))
        rumble = _noise(generator, count, 25, generator.uniform(200, 700) / (1 + 0.3 * index), slope=0.5)
        _add(track, generator.uniform(0.6, 1.5) * rumble * _decay(count, 1.5, generator.uniform(0.03, 0.2)), start)
    return track


_EVENTS = (_alarm, _bell, _bird, _clock, _dog, _engine, _footsteps, _rain, _siren, _thunder)
CLASSES = tuple(event.__name__.removeprefix("_") for event in _EVENTS)


def synthesize(label: str, generator: np.random.Generator, duration: float | None = None) -> np.ndarray:
    """
    Makes a clip of a class: the event, from a random onset on, in background noise, at a random level.

    Args:
        label (`str`):
            One of [`CLASSES`].
        generator (`np.random.Generator`):
            Source of all randomness; it advances.
        duration (`float`, *optional*):
            Length in seconds, at least 0.5. Drawn between 1.5 and 3 if not given.

    Returns:
        `np.ndarray` of shape `(round(duration * 16000),)`: float32, mono, 16 kHz, within [-1, 1].

    Raises:
        `ValueError`: for an unknown class or a clip too short to hold an event.
    """
    if label not in CLASSES:
        raise ValueError(f"Unknown class {label!r}: expected one of {', '.join(CLASSES)}.")
    if duration is None:
        duration = generator.uniform(MIN_DURATION, MAX_DURATION)
    if not duration >= 0.5:
        raise ValueError(f"`duration` must be at least 0.5 s, got {duration}.")
    onset = generator.uniform(0.0, 0.15 * duration)
    clip = np.zeros(_num_samples(duration))
    event = _EVENTS[CLASSES.index(label)](generator, duration - onset)
    _add(clip, event / np.abs(event).max(), onset)

    # Relative to the loudest 50 ms, since clicks and drones of equal peak differ much in mean power.
    block = _num_samples(0.05)
    loudest = np.sqrt(np.square(clip[: len(clip) // block * block]).reshape(-1, block).mean(axis=1).max())
    background = _noise(generator, len(clip), 20, 8000, slope=generator.uniform(0.4, 1.2))
    clip += loudest * 10 ** (-generator.uniform(18, 40) / 20) * background
    peak = 10 ** (-generator.uniform(1, 20) / 20)
    return (clip * (peak / np.abs(clip).max())).astype(np.float32)


def make_dataset(clips_per_class: int, seed: int) -> Dataset:
    """
    Makes a balanced dataset of synthesised clips of 1.5 to 3 s.

    Every clip has its own generator, seeded by `seed`, its class and its number within the class: a larger dataset of
    the same seed begins with the clips of a smaller one. Classes alternate, so every slice is nearly balanced.

    Args:
        clips_per_class (`int`):
            Number of clips of each of the ten classes, at least 1.
        seed (`int`):
            Not negative. Take different seeds for training and test data.

    Returns:
        [`Dataset`] in memory with the columns `audio` (float32 samples), `sampling_rate` (16000) and `label`
        ([`ClassLabel`] with the names in [`CLASSES`]).

    Raises:
        `ValueError`: if `clips_per_class` or `seed` is out of range.
    """
    if clips_per_class < 1:
        raise ValueError(f"`clips_per_class` must be at least 1, got {clips_per_class}.")
    if seed < 0:
        raise ValueError(f"`seed` must not be negative, got {seed}.")
    pairs = [(number, label) for number in range(clips_per_class) for label in range(len(CLASSES))]
    clips = [synthesize(CLASSES[label], np.random.default_rng([seed, label, number])) for number, label in pairs]
    columns = {"audio": clips, "sampling_rate": [SAMPLING_RATE] * len(pairs), "label": [label for _, label in pairs]}
    label = ClassLabel(names=list(CLASSES))
    features = Features({"audio": List(Value("float32")), "sampling_rate": Value("int32"), "label": label})
    return Dataset.from_dict(columns, features=features)
