# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
import io

import numpy as np
import pytest
import soundfile
import soxr
from transformers.audio_utils import load_audio

from transformers_beats.audio import AudioError, decode_audio, stream_audio


def tone(rate: int, seconds: float = 0.5, channels: int = 1) -> np.ndarray:
    wave = 0.5 * np.sin(2 * np.pi * 440 * np.arange(round(rate * seconds)) / rate)
    return np.stack([wave] * channels, axis=1)


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg", "mp3"])
@pytest.mark.parametrize(("rate", "channels"), [(16000, 1), (44100, 2), (8000, 1)])
def test_any_format_and_rate_becomes_mono_at_16_khz(suffix, rate, channels, tmp_path):
    path = tmp_path / f"clip.{suffix}"
    soundfile.write(path, tone(rate, channels=channels), rate)
    for source in (path, str(path), path.read_bytes()):
        waveform = decode_audio(source)
        assert (waveform.dtype, waveform.ndim) == (np.float32, 1)
        # MP3 pads to whole frames.
        assert len(waveform) == pytest.approx(8000, abs=2400 if suffix == "mp3" else 1)
        spectrum = np.abs(np.fft.rfft(waveform[2000:6000]))
        assert spectrum.argmax() == pytest.approx(440 * 4000 / 16000, abs=1)
        assert np.abs(waveform[2000:6000]).max() == pytest.approx(0.5, rel=0.1)


def test_channels_are_averaged(tmp_path):
    stereo = tone(16000, channels=2) * [1.0, -1.0]
    soundfile.write(tmp_path / "clip.wav", stereo, 16000, subtype="FLOAT")
    assert np.abs(decode_audio(tmp_path / "clip.wav")).max() < 1e-6


def test_what_is_no_audio_is_refused_in_one_line_that_names_the_file(tmp_path):
    (tmp_path / "text.wav").write_text("not audio")
    (tmp_path / "empty.flac").touch()
    soundfile.write(tmp_path / "no_samples.wav", np.zeros(0), 16000)
    soundfile.write(tmp_path / "nan.wav", np.array([0.0, np.nan]), 16000, subtype="FLOAT")
    for name in ("text.wav", "empty.flac", "no_samples.wav", "nan.wav", "absent.wav"):
        with pytest.raises(AudioError, match=name) as caught:
            decode_audio(tmp_path / name)
        assert len(str(caught.value).splitlines()) == 1
    with pytest.raises(AudioError, match="9 bytes"):
        decode_audio(b"not audio")


@pytest.mark.parametrize("rate", [4000, 8000, 11025, 16000, 22050, 44100, 48000, 96000])
@pytest.mark.parametrize("channels", [1, 2, 6])
def test_blocks_are_the_whole_file_mixed_and_resampled_at_once(rate, channels, tmp_path):
    wave = np.random.default_rng(0).uniform(-0.5, 0.5, (round(2.7 * rate), channels)).astype(np.float32)
    soundfile.write(tmp_path / "clip.wav", wave, rate, subtype="FLOAT")
    stream = stream_audio(tmp_path / "clip.wav")
    assert stream.seconds == pytest.approx(2.7, abs=1e-3)
    blocks = list(stream.blocks)
    assert len(blocks) >= 2
    whole = soxr.resample(wave.mean(axis=1), rate, 16000)
    np.testing.assert_allclose(np.concatenate(blocks), whole, atol=1e-6)
    loaded = load_audio(str(tmp_path / "clip.wav"), sampling_rate=16000)
    np.testing.assert_allclose(np.concatenate(blocks)[: len(loaded)], loaded, atol=1e-4)


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg", "mp3"])
def test_blocks_of_any_format_are_what_soundfile_reads_at_once(suffix, tmp_path):
    path = tmp_path / f"clip.{suffix}"
    soundfile.write(path, np.random.default_rng(0).uniform(-0.5, 0.5, (40_001, 2)), 16000)
    whole = soundfile.read(path, dtype="float32")[0].mean(axis=1)
    np.testing.assert_allclose(np.concatenate(list(stream_audio(path).blocks)), whole, atol=1e-6)
    with path.open("rb") as file:
        np.testing.assert_allclose(decode_audio(file), whole, atol=1e-6)


def test_a_low_rate_does_not_make_a_block_long(tmp_path):
    soundfile.write(tmp_path / "clip.wav", np.zeros(20_000), 100)
    lengths = [len(block) for block in stream_audio(tmp_path / "clip.wav").blocks]
    assert sum(lengths) == 3_200_000
    assert max(lengths) < 200_000


def test_a_damaged_file_is_read_up_to_the_damage(tmp_path):
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, 160_000)
    soundfile.write(tmp_path / "whole.flac", noise, 16000)
    (tmp_path / "cut.flac").write_bytes((tmp_path / "whole.flac").read_bytes()[:150_000])
    blocks = iter(stream_audio(tmp_path / "cut.flac").blocks)
    np.testing.assert_allclose(next(blocks), noise[:16000], atol=1e-4)
    with pytest.raises(AudioError, match=r"cut\.flac: cannot be decoded to its end"):
        list(blocks)


def test_what_cannot_be_opened_is_refused_before_it_is_read(tmp_path):
    (tmp_path / "clip.raw").write_bytes(b"12345678")
    for name in ("clip.raw", "absent.wav", "."):
        with pytest.raises(AudioError) as caught:
            stream_audio(tmp_path / name)
        assert str(tmp_path / name) in str(caught.value)
    with (tmp_path / "clip.raw").open("rb") as file, pytest.raises(AudioError, match=r"clip\.raw"):
        stream_audio(file)
    with pytest.raises(AudioError, match="BytesIO"):
        stream_audio(io.BytesIO(b"not audio"))


def test_what_is_too_short_to_resample_holds_no_audio(tmp_path):
    soundfile.write(tmp_path / "clip.wav", np.zeros(1), 48000)
    with pytest.raises(AudioError, match=r"clip\.wav: holds no audio"):
        decode_audio(tmp_path / "clip.wav")
