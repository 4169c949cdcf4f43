# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""
Soundscapes: events of given recordings over a synthesised background, with exact labels, at a given ratio of signal to
noise and with a given number of events at a time.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soundfile

from transformers_beats.utils.errors import UsageError, printable
from transformers_beats.utils.files import check_new, new_directory

from .event_rows import has_no_text
from .synthesis import SAMPLING_RATE, _noise


# Part of a recording in which its sound is: within so many decibels of its loudest block of 20 ms, with pauses of at
# most so many seconds.
ACTIVE_DB, BLOCK_SECONDS, MAX_PAUSE = 30.0, 0.02, 0.15
BLOCK, MIN_POWER = round(BLOCK_SECONDS * SAMPLING_RATE), 10 ** (-ACTIVE_DB / 10)
FADE_SECONDS = 0.01
# Between two events of one class, in seconds: closer ones could be heard as one.
MIN_GAP = 0.3
MAX_ATTEMPTS = 50
BACKGROUND_LEVEL, PEAK = 0.01, 0.9
AUDIO_FOLDER, EVENTS_FILE = "audio", "events.tsv"


class PlacedEvent(NamedTuple):
    """Event of a soundscape: class, onset and offset in seconds, and decibels over the background."""

    label: str
    onset: float
    offset: float
    snr_db: float


@dataclass
class Soundscape:
    """Samples `(num_samples,)`, float32, mono, 16 kHz, within [-1, 1], and events in order of their onsets."""

    samples: np.ndarray
    events: list[PlacedEvent]


@dataclass
class SoundscapeSettings:
    """
    Settings of [`make_soundscape`].

    Args:
        seconds (`float`, defaults to 10.0):
            Length.
        num_events (`tuple[int, int]`, defaults to (1, 6)):
            Fewest and most events that are drawn. One for which no place is found is left out, and so is one of which
            fades leave nothing.
        snr_db (`tuple[float, float]`, defaults to (5.0, 20.0)):
            Lowest and highest power of an event over that of the background, each a mean over the event, in decibels.
        event_seconds (`tuple[float, float]`, defaults to (0.25, 3.0)):
            Shortest and longest event. A recording whose sound is shorter is taken as it is. An event that would begin
            or end in a pause of its recording is shorter by it.
        max_polyphony (`int`, defaults to 2):
            Most events at a time, which are of different classes.

    Raises:
        [`UsageError`]: for a value that is impossible.
    """

    seconds: float = 10.0
    num_events: tuple[int, int] = (1, 6)
    snr_db: tuple[float, float] = (5.0, 20.0)
    event_seconds: tuple[float, float] = (0.25, 3.0)
    max_polyphony: int = 2

    def __post_init__(self):
        for name, lowest in (("num_events", 0), ("snr_db", -np.inf), ("event_seconds", 2 * FADE_SECONDS)):
            low, high = getattr(self, name)
            if not lowest <= low <= high < np.inf or not np.isfinite(low):
                raise UsageError(f"`{name}` must be a lower and an upper bound, got {(low, high)}.")
        if not self.event_seconds[1] <= self.seconds < np.inf:
            raise UsageError(f"`seconds` must be at least as long as an event, got {self.seconds:g}.")
        if self.max_polyphony < 1:
            raise UsageError(f"`max_polyphony` must be at least 1, got {self.max_polyphony}.")


def find_active(samples: np.ndarray) -> tuple[int, int]:
    """
    Returns the first sample of the longest part of a recording in which its sound is, and the one after it: blocks of
    20 ms within 30 dB of the loudest one, with pauses of at most 0.15 s. Both are 0 if all is silence.
    """
    power = block_power(samples)
    if not len(power) or power.max() == 0:
        return 0, 0
    loud = np.flatnonzero(power >= power.max() * MIN_POWER)
    breaks = np.flatnonzero(np.diff(loud) > 1 + MAX_PAUSE / BLOCK_SECONDS)
    firsts, lasts = loud[np.concatenate([[0], breaks + 1])], loud[np.concatenate([breaks, [len(loud) - 1]])]
    longest = int(np.argmax(lasts - firsts))
    return int(firsts[longest]) * BLOCK, min(int(lasts[longest] + 1) * BLOCK, len(samples))


def block_power(samples: np.ndarray) -> np.ndarray:
    """Returns the power of blocks of 20 ms, the last of which may reach over the end."""
    num_blocks = -(-len(samples) // BLOCK)
    padded = np.pad(samples.astype(np.float64), (0, num_blocks * BLOCK - len(samples)))
    return np.square(padded).reshape(-1, BLOCK).mean(axis=1)


def trim_pauses(samples: np.ndarray, first: int, last: int, lowest: float) -> tuple[int, int]:
    """Returns the part from `first` to `last` without blocks of less power at both ends; 0 and 0 if there is none."""
    part = samples[first:last]
    begins, ends = (np.flatnonzero(block_power(each) >= lowest) for each in (part, part[::-1]))
    if not len(begins) or not len(ends):
        return 0, 0
    first, last = first + int(begins[0]) * BLOCK, last - int(ends[0]) * BLOCK
    return (first, last) if first < last else (0, 0)


def cut_event(samples: np.ndarray, generator: np.random.Generator, bounds: tuple[float, float]) -> np.ndarray:
    """
    Returns a part of the sound of a recording, of a random length and place, with fades of 10 ms. It neither begins
    nor ends in a pause, without which it may be shorter.
    """
    start, end = find_active(samples)
    lowest = block_power(samples).max() * MIN_POWER
    shortest, longest = (round(seconds * SAMPLING_RATE) for seconds in bounds)
    length = min(end - start, int(generator.integers(shortest, longest + 1)))
    # If all places that are drawn are in pauses.
    begin, stop = start, min(start + BLOCK, end)
    for _ in range(MAX_ATTEMPTS):
        first = start + int(generator.integers(end - start - length + 1))
        part = trim_pauses(samples, first, first + length, lowest)
        if part[1] - part[0] > stop - begin:
            begin, stop = part
        if stop - begin >= min(shortest, length):
            break
    event = samples[begin:stop].astype(np.float64)
    fade = min(round(FADE_SECONDS * SAMPLING_RATE), len(event) // 2)
    ramp = np.linspace(0, 1, fade, endpoint=False)
    event[:fade] *= ramp
    event[len(event) - fade :] *= ramp[::-1]
    return event


def make_soundscape(
    sources: Mapping[str, Sequence[np.ndarray]],
    generator: np.random.Generator,
    settings: SoundscapeSettings | None = None,
) -> Soundscape:
    """
    Makes a soundscape: coloured noise, and events at random times.

    Args:
        sources (`Mapping[str, Sequence[np.ndarray]]`):
            Recordings of each class, `(num_samples,)`, at 16 kHz. A recording is heard as often as any other of its
            class, and a class as often as any other.
        generator (`np.random.Generator`):
            Source of all randomness; it advances.
        settings ([`SoundscapeSettings`], *optional*):
            Length, events and their levels.

    Raises:
        [`UsageError`]: for a class without a recording, or a recording that is silent or not finite.
    """
    settings = settings or SoundscapeSettings()
    check_sources(sources)
    labels = sorted(sources)
    num_samples = round(settings.seconds * SAMPLING_RATE)
    background = BACKGROUND_LEVEL * _noise(generator, num_samples, 20, 8000, slope=generator.uniform(0.2, 1.0))
    scene, events = background.copy(), list[PlacedEvent]()
    for _ in range(int(generator.integers(settings.num_events[0], settings.num_events[1] + 1))):
        label = labels[int(generator.integers(len(labels)))]
        recordings = sources[label]
        event = cut_event(recordings[int(generator.integers(len(recordings)))], generator, settings.event_seconds)
        snr = float(generator.uniform(*settings.snr_db))
        start = find_place(label, len(event), num_samples, events, settings.max_polyphony, generator)
        power = np.square(event).mean()
        # Nothing is left of a click that is a fade.
        if start is None or not power:
            continue
        part = slice(start, start + len(event))
        noise_power = np.square(background[part]).mean()
        scene[part] += event * np.sqrt(noise_power / power * 10 ** (snr / 10))
        events.append(PlacedEvent(label, start / SAMPLING_RATE, part.stop / SAMPLING_RATE, snr))
    scene *= min(1.0, PEAK / np.abs(scene).max())
    return Soundscape(scene.astype(np.float32), sorted(events, key=lambda event: (event.onset, event.offset)))


def check_sources(sources: Mapping[str, Sequence[np.ndarray]]) -> None:
    """Raises a [`UsageError`] for recordings that no event can be cut of."""
    if not sources:
        raise UsageError("There is no class to make soundscapes of.")
    for label, recordings in sources.items():
        if not len(recordings):
            raise UsageError(f"There is no recording of {label!r}.")
        for number, samples in enumerate(recordings):
            if samples.ndim != 1 or not np.isfinite(samples).all() or not np.any(samples):
                raise UsageError(f"Recording {number} of {label!r} must be mono, finite and not silent.")


def find_place(
    label: str,
    length: int,
    num_samples: int,
    events: Sequence[PlacedEvent],
    max_polyphony: int,
    generator: np.random.Generator,
) -> int | None:
    """Draws the first sample of an event that fits beside others; None if none is found."""
    for _ in range(MAX_ATTEMPTS):
        start = int(generator.integers(num_samples - length + 1))
        onset, offset = start / SAMPLING_RATE, (start + length) / SAMPLING_RATE
        if any(
            event.label == label and event.onset < offset + MIN_GAP and event.offset > onset - MIN_GAP
            for event in events
        ):
            continue
        others = [event for event in events if event.onset < offset and event.offset > onset]
        # The number of events at a time changes where one begins.
        times = [onset, *(event.onset for event in others if event.onset > onset)]
        if all(sum(event.onset <= time < event.offset for event in others) < max_polyphony for time in times):
            return start
    return None


def write_soundscapes(
    folder: str | Path,
    sources: Mapping[str, Sequence[np.ndarray]],
    count: int,
    seed: int = 0,
    settings: SoundscapeSettings | None = None,
) -> Path:
    """
    Writes a folder of soundscapes, whole or not at all: `audio/000000.wav` and so on, 16 bits, and `events.tsv` in the
    format of DESED (`filename`, `onset`, `offset`, `event_label`), in which one without events has a row, too. Each
    has its own generator, of `seed` and its number, so that a larger folder begins with those of a smaller one.

    Returns:
        `Path`: the folder.

    Raises:
        [`BeatsError`]: if the folder exists.
        [`UsageError`]: see [`make_soundscape`]; and for a label that a line of `events.tsv` does not hold.
    """
    if count < 1:
        raise UsageError(f"`count` must be at least 1, got {count}.")
    check_sources(sources)
    for label in sources:
        # Other programs read the file without quotes. Words such as "nan" are read as no label.
        if has_no_text(label) or label != printable(label).strip() or '"' in label:
            wanted = "printable text without quotes, tabs, line ends or spaces around it, and no word for none"
            raise UsageError(f"A label in {EVENTS_FILE} must be {wanted}, got {label!r}.")
    check_new(Path(folder))
    rows = ["filename\tonset\toffset\tevent_label"]
    with new_directory(Path(folder)) as new:
        (new / AUDIO_FOLDER).mkdir()
        for number in range(count):
            soundscape = make_soundscape(sources, np.random.default_rng([seed, number]), settings)
            name = f"{number:06d}.wav"
            soundfile.write(new / AUDIO_FOLDER / name, soundscape.samples, SAMPLING_RATE, subtype="PCM_16")
            events = [f"{name}\t{each.onset:.7f}\t{each.offset:.7f}\t{each.label}" for each in soundscape.events]
            rows += events or [f"{name}\t\t\t"]
        (new / EVENTS_FILE).write_text("\n".join(rows) + "\n", encoding="utf-8")
    return Path(folder)


__all__ = ["PlacedEvent", "Soundscape", "SoundscapeSettings", "find_active", "make_soundscape", "write_soundscapes"]
