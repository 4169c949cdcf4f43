# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
import numpy as np
import pytest
import soundfile

from transformers_beats.audio import AudioError, decode_audio


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
