# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
# ruff: noqa: PT017  # either a result or an error: `pytest.raises` demands one
"""Decoding of whatever is called audio: the right samples, or one line that says what is wrong."""

import io
import subprocess
import sys

import numpy as np
import pytest
import soundfile
import soxr
from fuzzing import COUNTS, DAMAGES, at_most, count, damage, fuzz
from hypothesis import strategies as st

from transformers_beats.audio.decoding import AudioError, decode_audio


# What soundfile writes and recognises again. Of RAW it wants to be told the rate; PAF with 24 bits is refused.
FORMATS = [name for name in soundfile.available_formats() if name not in ("RAW", "SD2")]
KINDS = [(name, subtype) for name in FORMATS for subtype in soundfile.available_subtypes(name)]
KINDS.remove(("PAF", "PCM_24"))
RATES = (1, 100, 4000, 8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000, 88200, 96000)
# 0.1 s of a file that cannot be read at 16 kHz without a second block.
LENGTHS = st.one_of(st.integers(0, 3), st.integers(0, 3000), st.just(20_000))


def synthesize(signal: str, length: int, channels: int, generator: np.random.Generator) -> np.ndarray:
    """Samples `(length, channels)`, float64."""
    time = np.arange(length)[:, None] / 16000
    noise = generator.uniform(-1, 1, (length, channels))
    return {
        "noise": noise,
        "tone": 0.5 * np.sin(2 * np.pi * 440 * time) * np.ones(channels),
        "silence": 0 * noise,
        "constant": 0 * noise + 0.9,
        "clipped": np.clip(10 * noise, -1, 1),
        "denormal": 1e-40 * noise,
        "tiny": 1e-30 * noise,
        "one click": (np.arange(length)[:, None] == length // 2) * np.ones(channels),
    }[signal]


SIGNALS = ("noise", "tone", "silence", "constant", "clipped", "denormal", "tiny", "one click")


def encode(samples: np.ndarray, rate: int, kind: tuple[str, str]) -> bytes | None:
    """A file in memory; None if the format has no such rate or number of channels."""
    file = io.BytesIO()
    try:
        soundfile.write(file, samples, rate, format=kind[0], subtype=kind[1])
    except (soundfile.SoundFileError, ValueError, RuntimeError):
        return None
    return file.getvalue()


def decode(source) -> np.ndarray | None:
    """The waveform; None if it is refused as it should be."""
    try:
        waveform = decode_audio(source)
    except AudioError as error:
        assert len(str(error).splitlines()) == 1
        return None
    assert (waveform.dtype, waveform.ndim) == (np.float32, 1)
    assert len(waveform) > 0
    assert np.isfinite(waveform).all()
    return waveform


def test_every_format_rate_and_number_of_channels_is_decoded():
    decoded_as_at_once()
    # The rest are formats that have no such rate or number of channels, or that soundfile cannot read at once.
    assert COUNTS["compared"] > COUNTS["decoded_as_at_once"] / 2


@fuzz(
    40,
    3000,
    kind=st.sampled_from(KINDS),
    rate=st.sampled_from(RATES),
    channels=st.integers(1, 8),
    length=LENGTHS,
    signal=st.sampled_from(SIGNALS),
    seed=st.integers(0, 2**32),
)
def decoded_as_at_once(kind, rate, channels, length, signal, seed):
    length = min(length, 3 * rate)
    samples = synthesize(signal, length, channels, np.random.default_rng(seed))
    data = encode(samples, rate, kind)
    if data is None:
        return
    waveform = decode(data)
    try:
        reference, stored_rate = soundfile.read(io.BytesIO(data), dtype="float32", always_2d=True)
    except soundfile.SoundFileError:
        # Some formats cannot go back to their beginning, to where soundfile goes and this package does not.
        return
    count("compared")
    expected = soxr.resample(reference.mean(axis=1), stored_rate, 16000)
    assert (waveform is None) == (len(expected) == 0)
    if waveform is not None:
        # GSM and the like keep a state, so that blocks are not exactly the whole.
        np.testing.assert_allclose(waveform, expected, atol=1e-5)


@fuzz(
    80,
    30000,
    kind=st.sampled_from(KINDS),
    channels=st.sampled_from([1, 1, 2, 8]),
    how=st.lists(st.sampled_from(DAMAGES), min_size=1, max_size=3),
    seed=st.integers(0, 2**32),
)
def test_damaged_files_give_audio_or_one_line(kind, channels, how, seed):
    generator = np.random.default_rng(seed)
    data = encode(synthesize("noise", 2000, channels, generator), int(generator.choice(RATES[2:])), kind)
    if data is None:
        return
    for name in how:
        data = damage(data, name, generator)
    with at_most(300):
        decode(data)


STARTS = (
    b"",
    b"RIFF",
    b"RIFF\x24\x00\x00\x00WAVEfmt ",
    b"fLaC",
    b"OggS\x00\x02",
    b"ID3",
    b"\xff\xfb\x90",
    b"FORM",
    b".snd",
    b"caff",
    b"RF64",
    b"riff",
    b"NIST_1A",
    b"Creative Voice File\x1a",
    b"MATLAB 5.0",
    b" paf",
    b"PVF1",
)


@fuzz(100, 30000, start=st.sampled_from(STARTS), rest=st.binary(max_size=300))
def test_random_bytes_give_audio_or_one_line(start, rest):
    decode(start + rest)


READ = """
import re, sys
from transformers_beats.audio.decoding import stream_audio
samples = sum(len(block) for block in stream_audio(sys.argv[1]).blocks)
print(samples, re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1])
"""


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="memory is read from /proc")
@pytest.mark.parametrize(("rate", "channels"), [(8000, 8), (48000, 2)])
def test_an_hour_takes_the_memory_of_a_minute(rate, channels, tmp_path):
    block, peaks = synthesize("tone", rate, channels, np.random.default_rng(0)), []
    for minutes in (1, 60):
        with soundfile.SoundFile(tmp_path / "long.flac", "w", rate, channels) as file:
            for _ in range(60 * minutes):
                file.write(block)
        command = [sys.executable, "-c", READ, str(tmp_path / "long.flac")]
        samples, peak = map(int, subprocess.run(command, capture_output=True, check=True).stdout.split())
        assert samples == pytest.approx(60 * minutes * 16000, abs=2)
        peaks.append(peak)
        count("test_an_hour_takes_the_memory_of_a_minute")
    print(rate, channels, peaks)
    assert peaks[1] < peaks[0] + 50 * 1024
