# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
# ruff: noqa: PT017  # either a result or an error: `pytest.raises` demands one
"""Decoding of whatever is called audio: the right samples, or one line that says what is wrong."""

import io
import struct
import subprocess
import sys

import numpy as np
import pytest
import soundfile
import soxr
from fuzzing import COUNTS, DAMAGES, at_most, count, damage, fuzz, within
from hypothesis import strategies as st

from transformers_beats.audio.containers import BLOCK_BYTES, Reader, find_parts
from transformers_beats.audio.decoding import AudioError, stream_audio
from transformers_beats.audio.resampling import REACH


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
        with within(60):
            stream = stream_audio(source)
            waveform = np.concatenate(list(stream.blocks))
    except AudioError as error:
        assert len(str(error).splitlines()) == 1
        return None
    assert stream.report.seconds == len(waveform) / 16000
    # A length that does not agree with what was decoded is told.
    stated = stream.report.stated_seconds
    is_far = stated is not None and abs(stated - stream.report.seconds) > max(0.1, stated / 10) + 1e-3
    assert not is_far or any("its header states" in warning for warning in stream.report.warnings)
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
    mixed = reference.mean(axis=1)
    expected = soxr.resample(mixed, stored_rate, 16000)
    assert (waveform is None) == (len(expected) == 0)
    if waveform is not None:
        # Equal samples at either end stay so, where soxr makes a step to 0.
        reach, places = REACH * 16000 / min(stored_rate, 16000) + 1, np.arange(len(waveform))
        is_equal = (places < reach) & (waveform == mixed[0])
        is_equal |= (places >= len(waveform) - reach) & (waveform == mixed[-1])
        # GSM and the like keep a state, so that blocks are not exactly the whole.
        np.testing.assert_allclose(waveform[~is_equal], expected[~is_equal], atol=1e-5)


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


# Formats whose parts are found before they are decoded, by their structure.
CONTAINERS = ("WAV", "WAVEX", "RF64", "W64", "AIFF", "AU", "CAF", "FLAC", "OGG", "MP3")
IN_CONTAINERS = [kind for kind in KINDS if kind[0] in CONTAINERS]
# Sizes, rates and counts that headers of recorders, pipes and damaged files state.
# None is so small that, as a rate, it would make hours of a few samples.
NUMBERS = (0, 100, 4000, 0x7FFFF000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFF6, 0xFFFFFFFF)
BETWEEN = (b"", bytes(700), b"TAG" + bytes(125), b"ID3\x04\0\0\0\0\0\x0a" + bytes(10), b"LIST\x05\0\0\0abcde", b"RIFF")


@fuzz(
    30,
    20000,
    kinds=st.lists(st.sampled_from(IN_CONTAINERS), min_size=1, max_size=3),
    numbers=st.lists(st.tuples(st.integers(0, 120), st.sampled_from(NUMBERS), st.sampled_from("<>")), max_size=3),
    how=st.lists(st.sampled_from(DAMAGES), max_size=1),
    between=st.sampled_from(BETWEEN),
    seed=st.integers(0, 2**32),
)
def test_joined_files_with_any_number_in_a_header_give_audio_or_one_line(kinds, numbers, how, between, seed):
    generator = np.random.default_rng(seed)
    samples = synthesize("noise", 2000, int(generator.integers(1, 3)), generator)
    files = [encode(samples, int(generator.choice(RATES[2:])), kind) for kind in kinds]
    data = between.join(file for file in files if file is not None)
    for place, number, order in numbers:
        # From the beginning of the first file, or of the last.
        start = place + (len(data) - len(files[-1] or b"")) * int(generator.integers(2))
        data = data[:start] + struct.pack(f"{order}I", number) + data[start + 4 :]
    for name in how:
        data = damage(data, name, generator)
    parts = find_parts(Reader(io.BytesIO(data)))
    # Of the file, in its order, and each byte once.
    ranges = [piece for part in parts for piece in part.pieces if isinstance(piece, range)]
    ends = [0, *(piece.stop for piece in ranges)]
    assert all(end <= piece.start <= piece.stop <= len(data) for end, piece in zip(ends, ranges))
    with at_most(300):
        decode(data)


@fuzz(
    30,
    10000,
    kind=st.sampled_from([kind for kind in IN_CONTAINERS if kind[1] in ("PCM_16", "PCM_24", "FLOAT", "ULAW")]),
    count=st.integers(1, 3),
    length=st.integers(200, 4000),
    channels=st.integers(1, 2),
    seed=st.integers(0, 2**32),
)
def test_joined_files_are_decoded_whole(kind, count, length, channels, seed):
    samples = synthesize("noise", length, channels, np.random.default_rng(seed))
    data = encode(samples, 16000, kind)
    waveform = decode(data * count)
    assert waveform is not None
    np.testing.assert_allclose(waveform, np.tile(decode(data), count), atol=1e-6)
    # libsndfile takes the byte that pads an odd number of samples for one.
    assert count * length <= len(waveform) <= count * (length + 1)


@fuzz(30, 5000, pattern=st.binary(min_size=1, max_size=6), start=st.integers(0, 300), seed=st.integers(0, 2**32))
def test_a_reader_finds_what_is_there(pattern, start, seed):
    generator = np.random.default_rng(seed)
    data = generator.integers(3, size=BLOCK_BYTES + int(generator.integers(600)), dtype=np.uint8).tobytes()
    place = int(generator.integers(len(data)))
    # Often across the border of two blocks.
    place = place if generator.random() < 0.5 else start + BLOCK_BYTES - int(generator.integers(1, 8))
    data = data[:place] + pattern + data[place + len(pattern) :]
    reader = Reader(io.BytesIO(data))
    assert reader.find(pattern, start) == data.find(pattern, start)
    assert reader.read(place, len(pattern)) == data[place : place + len(pattern)]


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
