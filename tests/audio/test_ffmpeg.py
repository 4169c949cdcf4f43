# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Formats that the program ffmpeg decodes: times, lengths, damage and codecs, in files that it writes here itself."""

import gc
import io
import os
import re
import shutil
import struct
import subprocess
import tempfile
from contextlib import contextmanager

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


# What is said of gaps.
SILENT = r"([\d.]+) s within it are missing, which are silence here; ([\d.]+) s were decoded\."


def write(path, *arguments, rate: int = 48000, seconds: float = 2, before=()):
    """Writes a file with `sound`; `before` are arguments that precede this input."""
    source = path.with_name("source.wav")
    soundfile.write(source, sound(rate, seconds), rate)
    command = ["ffmpeg", "-v", "error", "-nostdin", "-y", *before, "-i", source, *arguments, path]
    made = subprocess.run(command, stderr=subprocess.PIPE, text=True)
    if "Unknown encoder" in made.stderr:
        pytest.skip("this ffmpeg has no such encoder")
    assert made.returncode == 0, made.stderr
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
        ("a.ogv", "libtheora", "libvorbis"),
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
@pytest.mark.parametrize("name", ["a.ts", "a.mpg"])
def test_sound_may_begin_long_after_pictures(name, tmp_path):
    pictures = ["-f", "lavfi", "-i", "color=c=black:s=64x64:d=15"]
    path = write(tmp_path / name, "-c:v", "mpeg2video", "-c:a", "mp2", before=[*pictures, "-itsoffset", "12"])
    waveform, stream = read(path)
    assert click_of(waveform) == pytest.approx(13, abs=0.05)
    assert stream.report.warnings == []


@needs_ffmpeg
def test_a_video_without_sound_is_said_to_be(tmp_path):
    subprocess.run(["ffmpeg", "-v", "error", "-nostdin", *PICTURE, tmp_path / "a.mkv"], check=True)
    with pytest.raises(AudioError, match="cannot be decoded: no sound was found in it"):
        stream_audio(tmp_path / "a.mkv")


@needs_ffmpeg
@pytest.mark.parametrize("seconds", [2, 15])
@pytest.mark.parametrize(
    ("name", "codec"), [("a.m4a", "aac"), ("a.mka", "libopus"), ("a.ts", "aac"), ("a.mpg", "mp2"), ("a.wma", "wmav2")]
)
def test_gaps_are_silence_and_said(name, codec, seconds, tmp_path):
    # The second of 1 s on is so much later.
    late = f"asetpts='if(gte(T,0.9),PTS+{seconds}/TB,PTS)'"
    waveform, stream = read(write(tmp_path / name, "-af", late, "-c:a", codec))
    assert click_of(waveform) == pytest.approx(1 + seconds, abs=0.05)
    assert not waveform[20000 : seconds * 16000 + 8000].any()
    (warning,) = stream.report.warnings
    missing, decoded = map(float, re.fullmatch(SILENT, warning).groups())
    assert missing == pytest.approx(seconds, abs=0.1)
    assert decoded == pytest.approx(len(waveform) / 16000, abs=0.001)
    assert decoded == pytest.approx(2 + seconds, abs=0.1)


@needs_ffmpeg
def test_packets_that_are_a_little_early_make_no_gap(tmp_path):
    # Every third one of 0.1 s, by 0.06 s.
    early = "asetnsamples=4800,asetpts='PTS-0.06*not(mod(N+1,3))/TB'"
    waveform, stream = read(write(tmp_path / "a.mka", "-af", early, "-c:a", "pcm_s16le"))
    assert len(waveform) == 2 * 16000
    assert stream.report.warnings == []


@needs_ffmpeg
def test_a_gap_in_the_second_of_joined_files_is_where_it_is(tmp_path):
    first = write(tmp_path / "a.ts", "-c:a", "mp2").read_bytes()
    second = write(tmp_path / "b.ts", "-af", "asetpts='if(gte(T,0.9),PTS+1/TB,PTS)'", "-c:a", "mp2").read_bytes()
    waveform, stream = read(first + second)
    assert len(waveform) == pytest.approx(5 * 16000, abs=2000)
    assert not waveform[round(3.1 * 16000) : round(3.8 * 16000)].any()
    (warning,) = stream.report.warnings
    assert float(re.fullmatch(SILENT, warning)[1]) == pytest.approx(1, abs=0.05)


@needs_ffmpeg
@pytest.mark.parametrize("later", [[], ["-ac", "2"], ["-ar", "44100"]])
def test_gaps_where_rate_or_channels_change_are_silence_and_said(later, tmp_path):
    first = write(tmp_path / "a.ts", "-c:a", "aac").read_bytes()
    late = "asetpts='if(gte(T,0.9),PTS+1/TB,PTS)'"
    arguments = ["-af", late, "-c:a", "aac", *later, "-output_ts_offset", "8"]
    second = write(tmp_path / "b.ts", *arguments).read_bytes()
    for source in (first + second, tmp_path / "c.ts"):
        (tmp_path / "c.ts").write_bytes(first + second)
        waveform, stream = read(source)
        assert np.abs(waveform[15000:17500]).max() > 0.5
        assert click_of(waveform[20000:]) + 20000 / 16000 == pytest.approx(10, abs=0.1)
        assert not waveform[40000 : 7 * 16000].any()
        (warning,) = stream.report.warnings
        assert float(re.fullmatch(SILENT, warning)[1]) == pytest.approx(7, abs=0.2)


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
def test_of_joined_files_the_others_are_said_to_be_left_out(tmp_path):
    unknown = write(tmp_path / "a.wav", "-c:a", "pcm_s64le").read_bytes()
    for second in (unknown, (tmp_path / "source.wav").read_bytes()):
        waveform, stream = read(unknown + second)
        assert len(waveform) == 2 * 16000
        (warning,) = stream.report.warnings
        assert warning == "only the first of 2 recordings in it is decoded; 2.000 s were decoded."


@needs_ffmpeg
@pytest.mark.parametrize(
    ("name", "codec"), [("a.wv", "wavpack"), ("a.ac3", "ac3"), ("a.aac", "aac"), ("a.tta", "tta")]
)
def test_tags_behind_the_sound_are_no_damage(name, codec, tmp_path):
    data = write(tmp_path / name, "-c:a", codec).read_bytes()
    expected = read(data)[0]
    ape = [b"APETAGEX" + struct.pack("<4I8x", 2000, 532, 1, flags) for flags in (5 << 29, 1 << 31)]
    (tmp_path / "b,:c").mkdir()
    path = tmp_path / "b,:c" / name
    for tags in (
        b"TAG" + bytes(125),
        ape[0] + bytes(500) + ape[1],
        ape[0] + bytes(500) + ape[1] + b"TAG" + bytes(125),
    ):
        path.write_bytes(data + tags)
        for source in (data + tags, path):
            waveform, stream = read(source)
            np.testing.assert_array_equal(waveform, expected)
            assert stream.report.warnings == []


@pytest.mark.parametrize(("ending", "code"), [("exit 3", "3"), ("kill -KILL $$", "-9"), ("exit 0", "0")])
def test_an_ffmpeg_that_says_nothing_is_told_with_its_code(ending, code, tmp_path, monkeypatch):
    program = tmp_path / "ffmpeg"
    program.write_text(f"#!/bin/sh\n{ending}\n")
    program.chmod(0o700)
    monkeypatch.setattr(shutil, "which", lambda name: str(program))
    with pytest.raises(AudioError, match=f"cannot be decoded: ffmpeg ended with code {code}, and without a message"):
        stream_audio(b"\0\0\0\x20ftypM4A " + bytes(96))


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
@pytest.mark.parametrize("kind", ["path", "content"])
def test_nothing_is_left_of_a_file_that_is_not_read(kind, tmp_path, monkeypatch):
    path = write(tmp_path / "a.m4a", "-c:a", "aac")
    source = path if kind == "path" else path.read_bytes()
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    processes, popen = [], subprocess.Popen

    def start(*args, **kwargs):
        processes.append(popen(*args, **kwargs))
        return processes[-1]

    monkeypatch.setattr(ffmpeg.subprocess, "Popen", start)
    # At once, and not when circles of objects are looked for.
    gc.disable()
    try:
        stream = stream_audio(source)
        if kind == "path" or os.path.exists("/proc/self/fd"):
            # A process that is killed now leaves nothing either.
            assert list(temporary.iterdir()) == []
        del stream
        assert list(temporary.iterdir()) == []
        assert processes[0].poll() is not None
        # Its blocks alone keep it open.
        blocks = stream_audio(source).blocks
        assert sum(map(len, blocks)) == len(decode_audio(source))
        assert list(temporary.iterdir()) == []
    finally:
        gc.enable()


# Times, as ffmpeg prints them

HEADER = ["[info]   Duration: 00:00:08.00, start: 0.000000, x"]


def fill(lines: list[str], rate: int = 100, length: int = 250, packets=()) -> tuple[np.ndarray, list[str]]:
    """Returns what `length` samples of 1, 2, ... become, and the notes; `packets` are jumps between packets."""
    notes: list[str] = []
    with logged(lines if lines[0].startswith("[info]   D") else [*HEADER, *lines]) as log:
        samples = io.BytesIO(np.arange(1, length + 1).astype(">f4").tobytes())
        made = ffmpeg._fill_jumps(samples, log, rate, 1, lambda: [ffmpeg._Jump(*jump) for jump in packets], notes)
        return np.concatenate(list(made))[:, 0], notes


@contextmanager
def logged(lines: list[str]):
    with tempfile.TemporaryFile() as file:
        file.write("".join(f"{line}\n" for line in lines).encode())
        file.flush()
        yield ffmpeg._Log(file)


def jumps(*times: float) -> list[str]:
    return ["[info] Stream mapping:", *(f"[Eval @ 0x7ffd] [info] {time:.6f}" for time in times)]


@pytest.mark.parametrize(
    ("stream", "mapped"),
    [
        # ffmpeg 4.2, then 5 and later.
        (
            "    Stream #0:0(und): Audio: aac (LC) (mp4a / 0x6134706D), 48000 Hz",
            "  Stream #0:0 -> #0:0 (aac (native))",
        ),
        ("  Stream #0:0[0x1](und): Audio: aac (LC) (mp4a / 0x6134706D), 48000 Hz", "  Stream #0:0 -> #0:0 (aac)"),
    ],
)
def test_logs_of_all_versions_are_read(stream, mapped):
    indent = stream[: stream.index("S")]
    lines = [
        "[info] Input #0, mov,mp4,m4a,3gp,3g2,mj2, from 'file:/a.m4a':",
        "[info]   Metadata:",
        "[info]     encoder         : Stream #0:1: Audio: x",
        "[info]   Duration: 00:00:03.00, start: 0.000000, bitrate: 73 kb/s",
        f"[info] {stream}",
        "[info]     Metadata:",
        "[info]       handler_name    : SoundHandler",
        "[info] Stream mapping:",
        f"[info] {mapped}",
        "[Eval @ 0x55d0] [info] 0.000000",
        "[info] Output #0, au, to 'pipe:1':",
        f"[info] {indent}Stream #0:0(und): Audio: pcm_f32be, 48000 Hz, mono, flt, 1536 kb/s (default)",
        "[Eval @ 0x55d0] [info] 0.250000",
    ]
    with logged(lines) as log:
        log.update()
        assert (log.num_streams, log.seconds, log.stated_seconds) == (1, 3.0, 3.0)
        assert log.format.startswith("mov")
        assert log.jumps == [(None, 0.25)]


def test_times_are_those_since_the_file_begins():
    header = ["[info]   Duration: 00:00:08.00, start: 1.400000, bitrate: 73 kb/s"]
    found, _ = fill([*header, *jumps(0, 2.4, 3.4, 3.9)])
    places = np.arange(1, 251)
    np.testing.assert_array_equal(found, np.r_[np.zeros(100), places[:100], np.zeros(50), places[100:]])


def test_times_that_begin_anew_move_no_later_gap():
    found, notes = fill(jumps(0, 0, 1, 0.2, 0.7, 1.2))
    places = np.arange(1, 251)
    np.testing.assert_array_equal(found, np.r_[places[:150], np.zeros(50), places[150:]])
    assert notes == ["0.500 s within it are missing, which are silence here"]


def test_a_gap_at_which_ffmpeg_begins_anew_is_found_in_its_packets():
    places = np.arange(1, 251)
    found, notes = fill(jumps(0, 0, 0, 3, 3.5, 4), packets=[(0.5, 0.1), (1, 3.001), (3.5, 4)])
    np.testing.assert_array_equal(
        found, np.r_[places[:100], np.zeros(200), places[100:150], np.zeros(50), places[150:]]
    )
    assert notes == ["2.500 s within it are missing, which are silence here"]


def test_packets_are_read_only_where_ffmpeg_begins_anew():
    def fail():
        raise AssertionError("packets were read")

    with logged([*HEADER, *jumps(0, 1, 1.5, 2)]) as log:
        assert list(ffmpeg._fill_jumps(io.BytesIO(bytes(400)), log, 100, 1, fail, []))


def test_silence_stands_exactly_where_times_jump():
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
        # Later by so little at the beginning that no silence is put there.
        ((0, 0.04, 0.44, 0.94), np.r_[places[:40], np.zeros(50), places[40:]], ["0.500 s within"]),
        # Several at the same sample.
        ((0, 0, 1, 2, 2, 3), np.r_[first, np.zeros(200), second, third], ["2.000 s within"]),
        # Where ffmpeg begins anew.
        ((0, 0, 0, 1.2, 2, 2.5), np.r_[places[:200], np.zeros(50), places[200:]], ["0.500 s within"]),
    ):
        found, notes = fill(jumps(*times))
        np.testing.assert_array_equal(found, expected)
        assert [note[: len(start)] for note, start in zip(notes, said, strict=True)] == said


@pytest.mark.parametrize("times", [(0, 3600), (0, 0, 1, 3600)])
def test_impossible_times_are_left_out_and_said(times):
    found, notes = fill(jumps(*times))
    np.testing.assert_array_equal(found, np.arange(1, 251))
    assert notes[0].startswith("its times jump by 3")
    assert notes[0].endswith("s, which are left out")
    # What follows is placed right.
    found, notes = fill(jumps(0, 0, 1, 3600, 3600.5, 3600.9))
    assert len(found) == 250


def test_silence_is_in_blocks():
    with logged(["[info]   Duration: 05:00:00.00, x", *jumps(0, 7200)]) as log:
        samples = io.BytesIO(np.ones(9, ">f4").tobytes())
        blocks = list(ffmpeg._fill_jumps(samples, log, 100, 1, list, []))
    assert max(map(len, blocks)) == 100
    assert sum(map(len, blocks)) == 720_009


@needs_ffmpeg
@pytest.mark.parametrize("offset", ["12", "100"])
@pytest.mark.parametrize(("form", "codec"), [("webm", "libopus"), ("matroska", "aac")])
def test_a_live_recording_begins_where_its_sound_does(offset, form, codec, tmp_path):
    # Written to a pipe, without a length, by a clock that began before the recording.
    path = write(tmp_path / "source.mka", "-c:a", codec)
    command = ["ffmpeg", "-v", "error", "-nostdin", "-i", path, "-c:a", "copy", "-output_ts_offset", offset]
    made = subprocess.run([*command, "-f", form, "pipe:1"], capture_output=True, check=True).stdout
    waveform, stream = read(made)
    assert len(waveform) == pytest.approx(2 * 16000, abs=2000)
    assert click_of(waveform) == pytest.approx(1, abs=0.05)
    assert stream.report.warnings == []
