# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Formats that the program ffmpeg decodes: times, lengths, damage and codecs, in files that it writes here itself."""

import gc
import io
import shutil
import subprocess
import tempfile

import numpy as np
import pytest
import soundfile

from transformers_beats.audio import ffmpeg
from transformers_beats.audio.decoding import decode_audio, stream_audio
from transformers_beats.audio.recordings import AudioError


needs_ffmpeg = pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="the program ffmpeg is not installed")
# A picture of 6 s.
PICTURE = ["-f", "lavfi", "-i", "color=c=black:s=64x64:d=6"]


def sound(rate: int = 48000, seconds: float = 2) -> np.ndarray:
    """Noise with a click at 1 s."""
    noise = 0.01 * np.random.default_rng(0).standard_normal(int(seconds * rate))
    noise[rate : rate + rate // 100] += 0.9 * np.sin(np.arange(rate // 100) * 0.3) * np.hanning(rate // 100)
    return noise


def write(path, *arguments, rate: int = 48000, seconds: float = 2, before=()):
    """Writes a file with `sound`; `before` are arguments that precede this input."""
    source = path.with_name("source.wav")
    soundfile.write(source, sound(rate, seconds), rate)
    command = ["ffmpeg", "-v", "error", "-nostdin", "-y", *before, "-i", source, *arguments, path]
    if subprocess.run(command).returncode != 0:
        pytest.skip("this ffmpeg has no such encoder")
    return path


def read(source, rate: int = 16000):
    stream = stream_audio(source, rate)
    return np.concatenate(list(stream.blocks)), stream


def click_of(waveform: np.ndarray) -> float:
    return float(np.argmax(np.abs(waveform))) / 16000


@needs_ffmpeg
@pytest.mark.parametrize(
    ("name", "picture", "codec"),
    [
        ("a.mp4", "mpeg4", "aac"),
        ("a.mkv", "mpeg4", "libopus"),
        ("a.ts", "mpeg2video", "mp2"),
        ("a.mpg", "mpeg1video", "mp2"),
        ("a.wmv", "mpeg4", "wmav2"),
        ("a.flv", "flv", "aac"),
    ],
)
def test_times_are_those_of_a_video_whose_sound_begins_later(name, picture, codec, tmp_path):
    rate = ["-ar", "44100"] if name == "a.flv" else []
    path = write(tmp_path / name, "-c:v", picture, "-c:a", codec, *rate, before=[*PICTURE, "-itsoffset", "2"])
    for source in (path, path.read_bytes()):
        waveform, stream = read(source)
        assert click_of(waveform) == pytest.approx(3, abs=0.05)
        # The pictures end later.
        assert len(waveform) == pytest.approx(4 * 16000, abs=2000)
        assert (stream.report.stated_seconds, stream.report.warnings) == (None, [])
        assert stream.seconds > 4
    np.testing.assert_allclose(decode_audio(path, start=45000, num_samples=9000), waveform[45000:54000], atol=1e-6)


@needs_ffmpeg
@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.mpg"])
def test_longer_pictures_are_no_damage(name, tmp_path):
    waveform, stream = read(write(tmp_path / name, before=PICTURE))
    assert click_of(waveform) == pytest.approx(1, abs=0.05)
    assert stream.report.warnings == []


@needs_ffmpeg
def test_a_cover_is_no_picture_with_a_length(tmp_path):
    path = write(tmp_path / "plain.m4a", "-c:a", "aac")
    cover = tmp_path / "cover.png"
    subprocess.run(["ffmpeg", "-v", "error", "-nostdin", *PICTURE, "-frames:v", "1", cover], check=True)
    arguments = ["-i", path, "-i", cover, "-map", "0", "-map", "1", "-c", "copy", "-disposition:v", "attached_pic"]
    subprocess.run(["ffmpeg", "-v", "error", "-nostdin", *arguments, tmp_path / "covered.m4a"], check=True)
    assert read(tmp_path / "covered.m4a")[1].report.stated_seconds == pytest.approx(2, abs=0.05)


@needs_ffmpeg
@pytest.mark.parametrize(("name", "codec"), [("a.m4a", "aac"), ("a.mka", "libopus"), ("a.ts", "aac")])
def test_gaps_are_silence_and_said(name, codec, tmp_path):
    # The second of 1 s on is from 3 s on.
    late = "asetpts='if(gte(T,0.9),PTS+2/TB,PTS)'"
    waveform, stream = read(write(tmp_path / name, "-af", late, "-c:a", codec))
    assert click_of(waveform) == pytest.approx(3, abs=0.05)
    assert not waveform[20000:40000].any()
    (warning,) = stream.report.warnings
    assert warning.startswith("2.0")
    assert " s within it are missing, which are silence here; 4.0" in warning


@needs_ffmpeg
@pytest.mark.parametrize(
    ("name", "codec", "rate"),
    [
        ("a.m4a", "aac", 44100),
        ("a.m4a", "alac", 48000),
        ("a.aac", "aac", 16000),
        ("a.ac3", "ac3", 48000),
        ("a.webm", "libopus", 48000),
        ("a.mka", "libvorbis", 22050),
        ("a.wma", "wmav1", 16000),
        ("a.wma", "wmav2", 24000),
        ("a.wma", "wmav2", 44100),
        ("a.wv", "wavpack", 44100),
        ("a.ts", "mp2", 48000),
        ("a.mov", "pcm_s16be", 16000),
        ("a.avi", "libmp3lame", 44100),
    ],
)
def test_samples_without_gaps_are_those_of_ffmpeg(name, codec, rate, tmp_path):
    path = write(tmp_path / name, "-c:a", codec, rate=rate)
    command = ["ffmpeg", "-v", "error", "-nostdin", "-i", path, "-f", "f32le", "-c:a", "pcm_f32le", "pipe:1"]
    expected = np.frombuffer(subprocess.run(command, capture_output=True, check=True).stdout, dtype="<f4")
    waveform, stream = read(path, rate)
    np.testing.assert_array_equal(waveform, expected)
    assert stream.report.warnings == []


@needs_ffmpeg
@pytest.mark.parametrize(
    ("name", "codec"), [("a.aac", "aac"), ("a.ac3", "ac3"), ("a.m4a", "aac"), ("a.wv", "wavpack")]
)
def test_damage_within_a_file_is_said(name, codec, tmp_path):
    data = bytearray(write(tmp_path / name, "-c:a", codec, seconds=8).read_bytes())
    assert read(bytes(data))[1].report.warnings == []
    middle = slice(len(data) // 2, len(data) // 2 + len(data) // 8)
    data[middle] = np.random.default_rng(0).bytes(middle.stop - middle.start)
    (warning,) = read(bytes(data))[1].report.warnings
    assert "ffmpeg reports " in warning or "it is cut off or damaged" in warning


@needs_ffmpeg
def test_damage_of_pictures_is_none_of_the_sound(tmp_path):
    path = write(tmp_path / "a.ts", "-c:v", "libx264", "-c:a", "aac", before=["-f", "lavfi", "-i", "testsrc=d=6"])
    data = path.read_bytes()
    # As a recording that was begun between two whole pictures.
    assert read(data[188 * (len(data) // 188 // 20) :])[1].report.warnings == []


@needs_ffmpeg
@pytest.mark.parametrize(
    "title",
    ["Duration: 99:00:00.00", "Estimating duration", "a\n[info]   Duration: 99:00:00.00, start: 0.0", "Stream"],
)
@pytest.mark.parametrize("name", ["a.m4a", "a.mka"])
def test_a_tag_states_no_length(name, title, tmp_path):
    path = write(tmp_path / name, "-metadata", f"title={title}", "-metadata", f"comment=\u2028[info]   {title}")
    _, stream = read(path)
    assert stream.report.stated_seconds == pytest.approx(2, abs=0.05)
    assert stream.report.warnings == []


@needs_ffmpeg
@pytest.mark.parametrize(("name", "codec"), [("a.caf", "alac"), ("a.wav", "pcm_s64le")])
def test_codecs_that_libsndfile_does_not_know_are_decoded(name, codec, tmp_path, monkeypatch):
    path = write(tmp_path / name, "-c:a", codec)
    for source in (path, path.read_bytes()):
        waveform, stream = read(source)
        assert click_of(waveform) == pytest.approx(1, abs=0.05)
        assert stream.report.warnings == []
    monkeypatch.setattr(shutil, "which", lambda program: None)
    with pytest.raises(AudioError, match=r"(?i)cannot be decoded: .* install the program ffmpeg"):
        stream_audio(path)


@needs_ffmpeg
def test_what_neither_decodes_is_refused_with_both_reasons():
    file = io.BytesIO()
    soundfile.write(file, sound(), 48000, format="WAV")
    with pytest.raises(AudioError) as caught:
        stream_audio(file.getvalue()[:30])
    message = "30 bytes: cannot be decoded: Error in WAV file. No 'data' chunk marker; by ffmpeg: "
    assert str(caught.value).startswith(message)
    assert len(str(caught.value).splitlines()) == 1


@needs_ffmpeg
def test_other_rates_and_channels_within_a_file_make_no_gap(tmp_path):
    first = write(tmp_path / "a.aac", "-c:a", "aac").read_bytes()
    second = write(tmp_path / "a.aac", "-c:a", "aac", "-ac", "2", "-ar", "44100").read_bytes()
    waveform, stream = read(first + second + first)
    assert len(waveform) == pytest.approx(6 * 16000, abs=4000)
    assert stream.report.warnings == []


@needs_ffmpeg
def test_nothing_is_left_of_a_file_that_is_not_read(tmp_path, monkeypatch):
    path = write(tmp_path / "a.m4a", "-c:a", "aac")
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    stream = stream_audio(path)
    assert list((tmp_path / "temporary").iterdir())
    del stream
    gc.collect()
    assert list((tmp_path / "temporary").iterdir()) == []
    decode_audio(path)
    assert list((tmp_path / "temporary").iterdir()) == []


# Times, as ffmpeg prints them


def fill(tmp_path, lines: list[str], rate: int = 100, length: int = 250) -> tuple[np.ndarray, list[str]]:
    """Returns what `length` samples of 1, 2, ... become, and the notes."""
    text = "".join(f"{line}\n" for line in ["[info]   Duration: 00:00:08.00, start: 0.000000, x", *lines])
    (tmp_path / "log").write_text(text, encoding="utf-8")
    notes: list[str] = []
    log = ffmpeg._Log(tmp_path / "log")
    with log.file:
        samples = io.BytesIO(np.arange(1, length + 1).astype(">f4").tobytes())
        return np.concatenate([*ffmpeg._fill_jumps(samples, log, rate, 1, 0.0, notes)])[:, 0], notes


def jumps(*times: float) -> list[str]:
    return ["[info] Stream mapping:", *(f"[Eval @ 0x7ffd] [info] {time:.6f}" for time in times)]


def test_silence_stands_exactly_where_times_jump(tmp_path):
    places = np.arange(1, 251)
    first, second, third = places[:100], places[100:200], places[200:]
    for times, expected, said in (
        ((0, 0), places, []),
        ((0, 1.5), np.r_[np.zeros(150), places], []),
        # In the first block, at its end, and in another one.
        ((0, 0, 0.4, 0.9), np.r_[places[:40], np.zeros(50), places[40:]], ["0.500 s within"]),
        ((0, 0, 1, 3), np.r_[first, np.zeros(200), second, third], ["2.000 s within"]),
        (
            (0, 2, 3, 3.5, 4.5, 5.3),
            np.r_[np.zeros(200), first, np.zeros(50), second, np.zeros(80), third],
            ["1.300 s within"],
        ),
        # Several at the same sample.
        ((0, 0, 1, 2, 2, 3), np.r_[first, np.zeros(200), second, third], ["2.000 s within"]),
        # Where ffmpeg begins anew.
        ((0, 0, 0, 1.2, 2, 2.5), np.r_[places[:200], np.zeros(50), places[200:]], ["0.500 s within"]),
    ):
        found, notes = fill(tmp_path, jumps(*times))
        np.testing.assert_array_equal(found, expected)
        assert [note[: len(start)] for note, start in zip(notes, said, strict=True)] == said


@pytest.mark.parametrize("times", [(0, 3600), (0, 0, 1, 3600)])
def test_impossible_times_are_left_out_and_said(times, tmp_path):
    found, notes = fill(tmp_path, jumps(*times))
    np.testing.assert_array_equal(found, np.arange(1, 251))
    assert notes[0].startswith("its times jump by 3")
    assert notes[0].endswith("s, which are left out")
    # What follows is placed right.
    found, notes = fill(tmp_path, jumps(0, 0, 1, 3600, 3600.5, 3600.9))
    assert len(found) == 250


def test_silence_is_in_blocks(tmp_path):
    (tmp_path / "log").write_text("\n".join(["[info]   Duration: 05:00:00.00, x", *jumps(0, 7200), ""]))
    log = ffmpeg._Log(tmp_path / "log")
    with log.file:
        blocks = list(ffmpeg._fill_jumps(io.BytesIO(np.ones(9, ">f4").tobytes()), log, 100, 1, 0.0, []))
    assert max(map(len, blocks)) == 100
    assert sum(map(len, blocks)) == 720_009
