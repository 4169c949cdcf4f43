# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Channels that cancel, silence, pairs, addresses and other programs' formats."""

import io
import shutil
import subprocess

import numpy as np
import pytest
import soundfile
import torch

from transformers_beats.audio import ffmpeg
from transformers_beats.audio.decoding import AudioError, decode_audio, open_audio, stream_audio
from transformers_beats.utils.errors import UsageError


NOISE = np.random.default_rng(0).uniform(-0.5, 0.5, (16000, 4)).astype(np.float32)
SOUND = NOISE[:, 0]


def warnings_of(samples: np.ndarray) -> list[str]:
    file = io.BytesIO()
    soundfile.write(file, samples, 16000, format="WAV", subtype="FLOAT")
    found = []
    for audio in (file.getvalue(), {"array": samples, "sampling_rate": 16000}):
        stream = open_audio(audio, 16000)
        assert sum(map(len, stream.blocks)) == 16000
        found.append(stream.report.warnings)
    assert found[0] == found[1]
    return found[0]


def b_format(azimuth: float) -> np.ndarray:
    """Ambisonics of first order (W, X, Y, Z) of a sound from a direction in degrees."""
    angle = np.radians(azimuth)
    return np.stack([SOUND, np.cos(angle) * SOUND, np.sin(angle) * SOUND, 0 * SOUND], axis=1)


@pytest.mark.parametrize(
    "channels",
    [
        np.stack([SOUND, -SOUND], 1),
        np.stack([SOUND, -0.9 * SOUND], 1),
        b_format(180),
        b_format(225),
        0.2 + np.stack([SOUND, -SOUND], 1),
    ],
    ids=["inverted", "nearly inverted", "from behind", "from behind and the right", "with an offset"],
)
def test_channels_that_cancel_are_said(channels):
    (warning,) = warnings_of(channels)
    assert "its channels cancel each other" in warning
    assert "Choose one channel" in warning


@pytest.mark.parametrize(
    "channels",
    [np.stack([SOUND, SOUND], 1), NOISE, np.stack([SOUND, 0 * SOUND], 1), b_format(0), b_format(90)],
    ids=["equal", "independent", "one silent", "from the front", "from the left"],
)
def test_other_channels_are_averaged_without_a_word(channels):
    assert warnings_of(channels) == []


def test_channels_that_cancel_in_a_part_are_said():
    four = np.tile(SOUND, 4)
    other = four.copy()
    other[16000:32000] *= -1
    buffer = io.BytesIO()
    soundfile.write(buffer, np.stack([four, other], 1), 16000, "FLOAT", format="WAV")
    stream = open_audio(buffer.getvalue(), 16000)
    assert sum(map(len, stream.blocks)) == 64000
    (warning,) = stream.report.warnings
    assert "cancel each other in seconds with 25% of its energy" in warning


def test_digital_silence_is_said():
    for samples in (np.zeros(16000, np.float32), np.full((16000, 2), 0.25, np.float32)):
        (warning,) = warnings_of(samples)
        assert "is digital silence" in warning


@pytest.mark.parametrize("audio", [(SOUND, 8000), (8000, SOUND), (torch.tensor(SOUND)[None], 8000), [SOUND, 8000.0]])
def test_a_pair_of_waveform_and_rate_is_audio(audio):
    assert sum(map(len, open_audio(audio, 16000).blocks)) == 32000


def test_a_file_object_is_read_from_its_beginning():
    file = io.BytesIO()
    soundfile.write(file, SOUND, 16000, format="WAV")
    file.seek(0, 2)
    assert len(decode_audio(file)) == 16000


@pytest.mark.parametrize("address", ["https://example.org/a.wav", "hf://datasets/x/a.wav", "s3://bucket/a.wav"])
def test_addresses_are_not_fetched(address):
    with pytest.raises(UsageError, match="addresses are not fetched: download the file"):
        open_audio(address, 16000)


# The program ffmpeg

needs_ffmpeg = pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="the program ffmpeg is not installed")


def convert(path, *arguments) -> None:
    soundfile.write(path.with_name("source.wav"), np.stack([0.1 * SOUND, 0.3 * SOUND], 1), 16000)
    command = ["ffmpeg", "-v", "error", "-y", "-i", path.with_name("source.wav"), *arguments, path]
    made = subprocess.run(command, stderr=subprocess.PIPE, text=True)
    if "Unknown encoder" in made.stderr or "encoder selection failed" in made.stderr:
        pytest.skip("this ffmpeg has no such encoder")
    assert made.returncode == 0, made.stderr


@needs_ffmpeg
@pytest.mark.parametrize("suffix", ["m4a", "webm", "wma", "mka", "aac", "ac3", "wv", "tta"])
def test_formats_of_ffmpeg_are_decoded(suffix, tmp_path):
    path = tmp_path / f"clip.{suffix}"
    convert(path)
    expected = 0.2 * SOUND
    for source in (path, path.read_bytes(), io.BytesIO(path.read_bytes())):
        waveform = decode_audio(source)
        assert len(waveform) == pytest.approx(16000, abs=1600)
        assert np.std(waveform) == pytest.approx(np.std(expected), rel=0.3)
    np.testing.assert_allclose(decode_audio(path, start=5000, num_samples=100), waveform[5000:5100], atol=1e-6)


@needs_ffmpeg
def test_a_cut_off_m4a_is_said_to_be(tmp_path):
    convert(tmp_path / "clip.m4a", "-movflags", "+faststart")
    data = (tmp_path / "clip.m4a").read_bytes()
    stream = stream_audio(data[: len(data) * 2 // 3])
    assert sum(map(len, stream.blocks)) < 13000
    assert "it is cut off or damaged" in stream.report.warnings[0]


@needs_ffmpeg
def test_what_ffmpeg_cannot_decode_is_one_line(tmp_path):
    with pytest.raises(AudioError, match=r"^108 bytes: cannot be decoded: ") as caught:
        stream_audio(b"\0\0\0\x20ftypM4A " + bytes(96))
    assert len(str(caught.value).splitlines()) == 1


@needs_ffmpeg
def test_ffmpeg_is_ended_when_its_samples_are_not_read(tmp_path, monkeypatch):
    processes, popen = [], subprocess.Popen

    def start(*args, **kwargs):
        processes.append(popen(*args, **kwargs))
        return processes[-1]

    convert(tmp_path / "clip.m4a")
    monkeypatch.setattr(ffmpeg.subprocess, "Popen", start)
    blocks = iter(stream_audio(tmp_path / "clip.m4a", 48000).blocks)
    next(blocks)
    del blocks
    assert processes[0].poll() is not None


def test_samples_above_full_scale_are_said(tmp_path, caplog):
    path = tmp_path / "loud.wav"
    soundfile.write(path, 32768 * SOUND, 16000, subtype="FLOAT")
    decode_audio(path)
    (message,) = caplog.messages
    assert message.startswith(f"{path}: reaches 16,3")
    assert "Divide 16-bit samples by 32768" in message
    assert warnings_of(3 * SOUND) == []


def test_samples_that_no_sound_has_are_refused(tmp_path):
    path = tmp_path / "huge.wav"
    soundfile.write(path, 1e12 * SOUND, 16000, subtype="FLOAT")
    with pytest.raises(AudioError, match=r"huge.wav: reaches 5e\+11, but full scale is 1.0"):
        decode_audio(path)
