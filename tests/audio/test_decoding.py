# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
import contextlib
import io
import os
import shutil
import struct
import subprocess
import sys
import threading
import types
from pathlib import Path, PurePosixPath

import numpy as np
import pytest
import soundfile
import soxr
import torch
from transformers.audio_utils import load_audio

from transformers_beats.audio.decoding import AudioError, decode_audio, open_audio, stream_audio, stream_waveform
from transformers_beats.utils.errors import UsageError


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


def test_impossible_parts_and_rates_are_refused(tmp_path):
    soundfile.write(tmp_path / "a.wav", tone(16000), 16000)
    for options, message in (
        ({"num_samples": -1}, "`num_samples` must not be negative"),
        ({"sampling_rate": 0}, "`sampling_rate` must be a positive integer, got 0"),
        ({"sampling_rate": 16000.0}, "`sampling_rate` must be a positive integer, got 16000.0"),
        ({"start": -1}, "`start` must not be negative"),
    ):
        with pytest.raises(UsageError, match=message):
            decode_audio(tmp_path / "a.wav", **options)
    assert decode_audio(tmp_path / "a.wav", num_samples=0).shape == (0,)


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


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg", "mp3"])
@pytest.mark.parametrize("rate", [8000, 16000, 44100, 48000])
def test_a_part_of_a_file_is_that_of_the_whole(suffix, rate, tmp_path):
    path = tmp_path / f"clip.{suffix}"
    soundfile.write(path, np.random.default_rng(0).uniform(-0.5, 0.5, (rate * 4, 2)), rate)
    whole = decode_audio(path)
    for start, num_samples in [(0, 5), (1, 16000), (16001, 20000), (40000, None), (len(whole) - 3, 16000)]:
        stop = None if num_samples is None else start + num_samples
        for source in (path, path.read_bytes()):
            part = decode_audio(source, start=start, num_samples=num_samples)
            np.testing.assert_allclose(part, whole[start:stop], rtol=0, atol=1e-6, strict=True)
    for start in (len(whole), 10**12):
        with pytest.raises(AudioError, match="ends before"):
            decode_audio(path, start=start)
    with pytest.raises(ValueError, match="must not be negative, got -1"):
        decode_audio(path, start=-1)


@pytest.mark.parametrize(("suffix", "seconds"), [("wav", 4), ("flac", 4), ("ogg", 34), ("mp3", 34)])
def test_only_what_is_needed_for_a_part_is_decoded(suffix, seconds, tmp_path, monkeypatch):
    rate, num_read = 24000, []
    soundfile.write(tmp_path / f"clip.{suffix}", np.zeros(rate * 60), rate)
    read = soundfile.SoundFile.read

    def count(self, frames, **kwargs):
        num_read.append(frames)
        return read(self, frames, **kwargs)

    monkeypatch.setattr(soundfile.SoundFile, "read", count)
    assert len(decode_audio(tmp_path / f"clip.{suffix}", start=16000 * 30, num_samples=16000 * 2)) == 32000
    assert sum(num_read) <= rate * seconds


def test_a_part_of_a_damaged_file_is_an_audio_error(tmp_path):
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, 160_000)
    soundfile.write(tmp_path / "whole.flac", noise, 16000)
    (tmp_path / "cut.flac").write_bytes((tmp_path / "whole.flac").read_bytes()[:150_000])
    np.testing.assert_allclose(
        decode_audio(tmp_path / "cut.flac", start=20_000, num_samples=3), noise[20_000:20_003], atol=1e-4
    )
    with pytest.raises(AudioError, match=r"cut\.flac: cannot be decoded"):
        decode_audio(tmp_path / "cut.flac", start=150_000)


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


def test_what_is_wrong_with_a_file_is_said(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torchcodec.decoders", None)
    monkeypatch.setenv("PATH", "")
    (tmp_path / "notes.mp3").write_text("Thunder, 3 May\n" * 100, encoding="utf-8")
    (tmp_path / "noise.mp3").write_bytes(np.random.default_rng(0).bytes(5000))
    (tmp_path / "film.m4a").write_bytes(b"\0\0\0\x20ftypM4A " + bytes(100))
    (tmp_path / "damaged.flac").write_bytes(b"fLaC and nothing else")
    (tmp_path / "empty.mp3").touch()
    (tmp_path / "folder.wav").mkdir()
    (tmp_path / "link.wav").symlink_to("nowhere.wav")
    install = "install the program ffmpeg (https://ffmpeg.org; on Debian and Ubuntu: apt install ffmpeg)"
    for name, message in {
        "noise.mp3": "cannot be decoded: Format not recognised.",
        "notes.mp3": "holds text and no audio: it begins with 'Thunder, 3 May\\nThund'.",
        "film.m4a": f"is MP4 (m4a), which needs FFmpeg: {install}, or convert the file to WAV or FLAC.",
        "damaged.flac": "cannot be decoded: Error : unknown error in flac decoder.",
        "empty.mp3": "is empty, it has no bytes.",
        "folder.wav": "is a directory, and no file.",
        "link.wav": "is a link to a file that is not there.",
        "absent.wav": "no such file.",
    }.items():
        with pytest.raises(AudioError) as caught:
            stream_audio(tmp_path / name)
        assert str(caught.value) == f"{tmp_path / name}: {message}"


def test_what_is_too_short_to_resample_holds_no_audio(tmp_path):
    soundfile.write(tmp_path / "clip.wav", np.zeros(1), 48000)
    with pytest.raises(AudioError, match=r"clip\.wav: holds no audio"):
        decode_audio(tmp_path / "clip.wav")


@pytest.mark.parametrize("rate", [11025, 22050])
def test_mp3_is_decoded_without_a_gap_between_blocks(rate):
    # At these rates a seek to where the decoder is already spoils the next frame.
    file = io.BytesIO()
    soundfile.write(file, tone(rate, seconds=3.5), rate, format="MP3")
    whole = soundfile.read(io.BytesIO(file.getvalue()), dtype="float32")[0]
    np.testing.assert_allclose(decode_audio(file.getvalue(), rate), whole, atol=1e-6)


def attributes_of_macos() -> bytes:
    """AppleDouble: what macOS writes beside a file on other file systems, with a resource fork that is empty."""
    fork = struct.pack(">IIII", 256, 256, 0, 30).ljust(256, b"\0") + struct.pack(">IIII", 256, 256, 0, 30)
    fork += bytes(8) + struct.pack(">HHH", 28, 30, 0xFFFF)
    header = struct.pack(">II16sH", 0x51607, 0x20000, b"Mac OS X        ", 2)
    header += struct.pack(">IIIIII", 9, 50, 3760, 2, 3810, len(fork))
    return header.ljust(3810, b"\0") + fork


@pytest.mark.parametrize("beside", ["._{}", ".AppleDouble/{}"])
@pytest.mark.parametrize("kind", ["mp3", "m4a", "webm", "wav"])
def test_attributes_of_macos_beside_a_file_are_no_part_of_it(tmp_path, kind, beside):
    path = tmp_path / f"clip.{kind}"
    if kind in ("m4a", "webm"):
        if (program := shutil.which("ffmpeg")) is None:
            pytest.skip("the program ffmpeg is not installed")
        sound = ["-f", "lavfi", "-i", "sine=frequency=440:duration=1:sample_rate=48000"]
        subprocess.run([program, "-v", "error", *sound, path], check=True)
    else:
        soundfile.write(path, tone(16000), 16000)
    alone = decode_audio(path)
    other = tmp_path / beside.format(path.name)
    other.parent.mkdir(exist_ok=True)
    other.write_bytes(attributes_of_macos())
    np.testing.assert_array_equal(decode_audio(path), alone)
    np.testing.assert_array_equal(decode_audio(path.read_bytes()), alone)


def test_samples_that_overflow_in_the_resampler_are_refused(tmp_path):
    wave = np.where(np.arange(4000) % 7 < 3, 3e38, -3e38)
    soundfile.write(tmp_path / "huge.wav", wave, 44100, subtype="FLOAT")
    with pytest.raises(AudioError, match=r"huge\.wav: contains NaN or infinite"):
        decode_audio(tmp_path / "huge.wav")


def test_names_that_are_no_text_are_opened(tmp_path):
    path = tmp_path / os.fsdecode(b"latin \xe9.wav")
    path.write_bytes(wav_of(tone(16000)))
    assert len(decode_audio(path)) == len(decode_audio(str(path))) == 8000


@pytest.mark.parametrize("kind", ["wav", "flac", "m4a"])
def test_paths_of_any_length_are_opened(tmp_path, kind):
    # Longer than libsndfile takes, and shorter than the system does.
    folder = tmp_path.joinpath(*["d" * 200] * 6)
    folder.mkdir(parents=True)
    path = folder / f"clip.{kind}"
    if kind == "m4a":
        if (program := shutil.which("ffmpeg")) is None:
            pytest.skip("the program ffmpeg is not installed")
        subprocess.run(
            [program, "-v", "error", "-f", "lavfi", "-i", "sine=duration=0.5", tmp_path / "a.m4a"], check=True
        )
        (tmp_path / "a.m4a").rename(path)
    else:
        file = io.BytesIO()
        soundfile.write(file, tone(16000), 16000, format=kind.upper())
        path.write_bytes(file.getvalue())
    assert len(decode_audio(path)) == pytest.approx(8000, abs=200)
    np.testing.assert_array_equal(decode_audio(path), decode_audio(path.read_bytes()))


@pytest.mark.parametrize("format", ["NIST", "VOC", "IRCAM", "AVR", "SVX"])
def test_a_length_that_was_not_read_is_not_stated(format):
    file = io.BytesIO()
    soundfile.write(file, tone(16000), 16000, format=format)
    for data, seconds in ((file.getvalue(), 0.5), (file.getvalue()[:-8000], 0.25)):
        stream = stream_audio(data)
        assert sum(map(len, stream.blocks)) == pytest.approx(16000 * seconds, abs=2)
        assert stream.seconds == pytest.approx(seconds, abs=1e-3)
        assert (stream.report.stated_seconds, stream.report.warnings) == (None, [])


@pytest.fixture
def pipe(tmp_path):
    """Makes a named pipe, to which some bytes are written once it is opened."""
    if not hasattr(os, "mkfifo"):
        pytest.skip("there are no named pipes")
    path = tmp_path / "pipe"
    os.mkfifo(path)

    def write(data: bytes) -> None:
        # A reader that refuses the format closes it.
        with contextlib.suppress(BrokenPipeError), path.open("wb") as file:
            file.write(data)

    def start(data: bytes) -> Path:
        thread = threading.Thread(target=write, args=(data,), daemon=True)
        thread.start()
        threads.append(thread)
        return path

    threads: list[threading.Thread] = []
    yield start
    for thread in threads:
        thread.join(10)


def test_a_named_pipe_is_read_or_refused_with_the_reason(pipe):
    stream = stream_audio(pipe(wav_of(tone(16000))))
    assert sum(map(len, stream.blocks)) == 8000
    assert (stream.report.stated_seconds, stream.report.warnings) == (0.5, [])
    file = io.BytesIO()
    soundfile.write(file, tone(16000), 16000, format="FLAC")
    with pytest.raises(AudioError, match=r"is a pipe or a device, .* such as WAV: .*flac decoder.*\. Of raw samples"):
        stream_audio(pipe(file.getvalue()))


def wav_of(samples: np.ndarray) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, 16000, format="WAV")
    return file.getvalue()


def test_an_error_of_a_file_object_is_not_taken_for_its_end():
    class Failing(io.BytesIO):
        def read(self, size=-1):
            if self.tell() > 40_000:
                raise TimeoutError("the network is gone")
            return super().read(size)

    data = wav_of(tone(16000, seconds=5))
    with pytest.raises(AudioError, match="the network is gone"):
        decode_audio(Failing(data))


def test_damage_prints_nothing(capfd):
    # The header of an IFF file, damaged: libsndfile seeks to before its beginning.
    file = io.BytesIO()
    soundfile.write(file, tone(16000), 16000, format="MAT5")
    data = bytearray(file.getvalue())
    for index in range(0, len(data), 97):
        with contextlib.suppress(AudioError):
            decode_audio(bytes(data[:index]))
    assert "Traceback" not in capfd.readouterr().err


@pytest.mark.parametrize("rate", [0, -1, float("nan"), float("inf"), 1e300, "16000"])
def test_impossible_rates_of_arrays_are_refused(rate):
    with pytest.raises(ValueError, match="sampling_rate"):
        stream_waveform(np.zeros(100), rate)


def test_an_error_of_a_file_object_while_opening_is_told():
    class Failing(io.BytesIO):
        def read(self, size=-1):
            raise TimeoutError("the network is gone")

    with pytest.raises(AudioError, match="cannot be read: the network is gone"):
        stream_audio(Failing(wav_of(tone(16000))))


@pytest.mark.parametrize("channels", [1, 3])
def test_paf_with_24_bits_is_refused(channels):
    # With three channels, libsndfile 1.2.2 reads other samples than it wrote.
    file = io.BytesIO()
    soundfile.write(file, tone(16000, channels=channels), 16000, format="PAF", subtype="PCM_24")
    with pytest.raises(AudioError, match="PAF with 24 bits"):
        stream_audio(file.getvalue())


@pytest.mark.parametrize(
    "audio",
    [
        np.array([1, "x", None], dtype=object),
        np.array([[1.0, None], [2.0, 3.0]], dtype=object),
        [1.0, "a"],
        [None, None],
        None,
        object(),
        {1.0, 2.0},
        np.zeros(5, dtype=complex),
        np.zeros(5, dtype=np.longdouble),
        np.zeros(5, dtype="datetime64[s]"),
        torch.zeros(5).to_sparse(),
        {"array": object(), "sampling_rate": 16000},
        {"path": 5},
        {1: 2, "x": 3},
    ],
)
def test_what_is_no_waveform_is_a_value_error(audio):
    with pytest.raises(ValueError, match="array"):
        open_audio(audio, 16000, 16000)


# torchcodec, of which the tests have only the shape


class FakeDecoder:
    """Knows files that begin with "\0fak": three seconds at 8 kHz, silent in one channel."""

    def __init__(self, source):
        if not (source if isinstance(source, bytes) else source.read()).startswith(b"\0fak"):
            raise RuntimeError("Could not open input file\nand more")
        self.metadata = types.SimpleNamespace(duration_seconds=3.0, sample_rate=8000)
        self.num_decoded = 0

    def get_all_samples(self):
        self.num_decoded += 1
        data = torch.from_numpy(tone(8000, 3.0, channels=2).T * [[1.0], [0.0]])
        return types.SimpleNamespace(data=data, sample_rate=8000)


@pytest.fixture
def decoders(monkeypatch):
    """The decoders that are made, in a torchcodec that is installed."""
    made = []

    def make(source):
        made.append(FakeDecoder(source))
        return made[-1]

    module = types.SimpleNamespace(AudioDecoder=make)
    monkeypatch.setitem(sys.modules, "torchcodec", types.SimpleNamespace(decoders=module))
    monkeypatch.setitem(sys.modules, "torchcodec.decoders", module)
    return made


def test_torchcodec_says_how_long_a_file_is_before_it_decodes_it(decoders):
    stream = stream_audio(b"\0fak")
    assert stream.seconds == 3.0
    assert decoders[0].num_decoded == 0
    waveform = np.concatenate(list(stream.blocks))
    assert decoders[0].num_decoded == 1
    expected = soxr.resample(tone(8000, 3.0)[:, 0].astype(np.float32) / 2, 8000, 16000)
    np.testing.assert_allclose(waveform, expected, atol=1e-5)


def test_torchcodec_reads_a_file_object_from_its_beginning(decoders):
    assert len(decode_audio(io.BytesIO(b"\0fak" + bytes(100)))) == 48000


def test_what_torchcodec_does_not_know_either_is_refused_in_one_line(decoders):
    with pytest.raises(AudioError, match=r"^5 bytes: cannot be decoded: Format not recognised.?$"):
        stream_audio(b"\0ther")


@pytest.mark.parametrize("error", [RuntimeError, ValueError, OSError])
def test_what_torchcodec_cannot_decode_is_an_audio_error(decoders, monkeypatch, error):
    def fail(self):
        raise error("packet 7 is broken\nand more")

    monkeypatch.setattr(FakeDecoder, "get_all_samples", fail)
    with pytest.raises(AudioError, match=r"^4 bytes: cannot be decoded: packet 7 is broken$"):
        decode_audio(b"\0fak")
    with pytest.raises(AudioError, match=r"^an AudioDecoder: cannot be decoded: packet 7 is broken$"):
        open_audio(FakeDecoder(b"\0fak"), 16000)


def test_any_path_is_a_recording(tmp_path):
    soundfile.write(tmp_path / "a.wav", np.full(1600, 0.1), 16000)
    (entry,) = os.scandir(tmp_path)
    for path in (entry, PurePosixPath(tmp_path / "a.wav"), tmp_path / "a.wav"):
        stream = open_audio(path, 16000, 16000)
        assert stream.name == str(tmp_path / "a.wav")
        assert sum(map(len, stream.blocks)) == 1600
