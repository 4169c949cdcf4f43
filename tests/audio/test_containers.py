# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Files whose headers state a wrong length or none, and files that were joined: all of them decoded to the end."""

import io
import shutil
import struct
from pathlib import Path

import numpy as np
import pytest
import soundfile

from transformers_beats.audio.containers import Reader, find_parts
from transformers_beats.audio.decoding import AudioError, decode_audio, stream_audio


FIXTURES = Path(__file__).parent.parent / "fixtures"
SAMPLES = np.random.default_rng(0).uniform(-0.5, 0.5, 48_000)


def encode(format: str, subtype: str = "PCM_16", rate: int = 16000, channels: int = 1, length: int = 48_000) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, np.tile(SAMPLES[:length, None], (1, channels)), rate, format=format, subtype=subtype)
    return file.getvalue()


def patch(data: bytes, place: int, kind: str, value: float) -> bytes:
    changed = bytearray(data)
    struct.pack_into(kind, changed, place, value)
    return bytes(changed)


def size_of(data: bytes, name: bytes, kind: str, value: int, skipped: int = 4) -> bytes:
    """The file with another size of a chunk."""
    return patch(data, data.index(name, 12) + skipped, kind, value)


def with_flac_total(data: bytes, total: int) -> bytes:
    fields = int.from_bytes(data[18:26], "big")
    return data[:18] + (fields >> 36 << 36 | total).to_bytes(8, "big") + data[26:]


def read(data: bytes) -> tuple[np.ndarray, float | None, list[str]]:
    """Waveform, length in the header and warnings. What is known before is what is decoded."""
    stream = stream_audio(data)
    waveform = np.concatenate(list(stream.blocks))
    assert stream.report.seconds == len(waveform) / 16000
    np.testing.assert_array_equal(decode_audio(data), waveform)
    return waveform, stream.report.stated_seconds, stream.report.warnings


WAV, RF64, W64, AIFF, AU, CAF, FLAC = map(encode, ("WAV", "RF64", "W64", "AIFF", "AU", "CAF", "FLAC"))
NO_DS64 = RF64[:12] + RF64[48:]
INFO = b"LIST" + struct.pack("<I", 8) + b"INFOabcd"
WITHOUT_LENGTH = {
    "WAV of a recorder that lost power": patch(size_of(WAV, b"data", "<I", 0), 4, "<I", 0),
    "WAV to a pipe, by ffmpeg": size_of(WAV, b"data", "<I", 0xFFFFFFFF),
    "WAV to a pipe, by SoX": size_of(WAV, b"data", "<I", 0x7FFFF000),
    "WAV to a pipe, by arecord": size_of(WAV, b"data", "<I", 0x80000000),
    "WAV without length, with a list": size_of(WAV[:36] + INFO + WAV[36:], b"data", "<I", 0),
    "RF64 without length": patch(RF64, 28, "<Q", 0),
    "RF64 with a length of all ones": patch(RF64, 28, "<Q", 2**64 - 1),
    "RF64 without ds64": NO_DS64,
    "W64 without length": size_of(W64, b"data", "<Q", 24, 16),
    "W64 with a length of all ones": size_of(W64, b"data", "<Q", 2**64 - 1, 16),
    "AIFF without length": patch(size_of(AIFF, b"SSND", ">I", 8), 4, ">I", 0),
    "AIFF with 0": size_of(AIFF, b"SSND", ">I", 0),
    "AU with 0": patch(AU, 8, ">I", 0),
    "AU with all ones": patch(AU, 8, ">I", 0xFFFFFFFF),
    "CAF with -1": patch(CAF, CAF.index(b"data\0") + 4, ">q", -1),
    "CAF with 0": patch(CAF, CAF.index(b"data\0") + 4, ">q", 0),
    "FLAC to a pipe": with_flac_total(FLAC, 0),
}


@pytest.mark.parametrize("data", WITHOUT_LENGTH.values(), ids=WITHOUT_LENGTH)
def test_without_a_length_the_file_is_read_to_its_end(data):
    waveform, stated, warnings = read(data)
    np.testing.assert_allclose(waveform, SAMPLES, atol=1e-4)
    assert (stated, warnings) == (None, [])


WITH_WRONG_LENGTH = {
    "WAV of more than 4 GiB": size_of(WAV, b"data", "<I", 32_000),
    "RF64": patch(RF64, 28, "<Q", 32_000),
    "W64": size_of(W64, b"data", "<Q", 32_024, 16),
    "AIFF": size_of(AIFF, b"SSND", ">I", 32_008),
    "AU": patch(AU, 8, ">I", 32_000),
    "CAF": patch(CAF, CAF.index(b"data\0") + 4, ">q", 32_004),
    "FLAC": with_flac_total(FLAC, 16_000),
}


@pytest.mark.parametrize("data", WITH_WRONG_LENGTH.values(), ids=WITH_WRONG_LENGTH)
def test_what_follows_the_stated_length_is_decoded_and_said(data):
    waveform, stated, warnings = read(data)
    np.testing.assert_allclose(waveform, SAMPLES, atol=1e-4)
    assert stated == 1.0
    assert warnings == ["holds 3.000 s, all decoded, but its header states 1.000 s."]


@pytest.mark.parametrize("format", ["WAV", "RF64", "W64", "AIFF", "AU", "CAF"])
def test_a_file_that_is_cut_off_is_said_to_be(format):
    data = encode(format)
    waveform, stated, warnings = read(data[: len(data) - 48_000])
    np.testing.assert_allclose(waveform, SAMPLES[:24_000], atol=1e-4)
    assert stated == 3.0
    assert warnings == ["ends after 1.500 of 3.000 s, which its header states: it is cut off or damaged."]


PACKED = [("CAF", "ALAC_16"), ("CAF", "ALAC_24"), ("AU", "G721_32"), ("AU", "G723_24"), ("AU", "G723_40")]


@pytest.mark.parametrize(
    ("kind", "stated"),
    [
        *[(kind, None) for kind in PACKED],
        *[(("AIFF", subtype), 3.0) for subtype in ("IMA_ADPCM", "GSM610", "DWVW_16", "ULAW", "ALAW")],
        *[((format, "ULAW"), 3.0) for format in ("WAV", "AU", "CAF", "W64")],
    ],
)
def test_a_cut_off_file_of_any_codec_is_said_to_be(kind, stated):
    data = encode(*kind)
    assert read(data)[2] == []
    waveform, seconds, (warning,) = read(data[: len(data) // 2])
    assert 16_000 < len(waveform) < 28_000
    assert seconds == stated
    assert "it is cut off or damaged" in warning
    if stated is None:
        assert warning.endswith(f"; {len(waveform) / 16000:.3f} s were decoded.")


@pytest.mark.parametrize("kind", [("AU", "G721_32"), ("CAF", "ALAC_16")])
def test_the_last_of_joined_files_is_said_to_be_cut_off(kind):
    data = encode(*kind)
    assert read(data + data)[2] == []
    (warning,) = read(data + data[:-3000])[2]
    assert warning.startswith("has fewer bytes than its header states: it is cut off or damaged")


class ShortReads(io.BytesIO):
    """A file object that returns up to a thousand bytes at a time, as one of a network may."""

    def read(self, size=-1):
        return super().read(1000 if size < 0 else min(size, 1000))


@pytest.mark.parametrize(
    "kind",
    [("WAV", "PCM_16"), ("FLAC", "PCM_16"), ("OGG", "VORBIS"), ("MP3", "MPEG_LAYER_III")],
    ids=lambda kind: kind[0],
)
def test_a_file_object_may_return_less_than_was_asked_for(kind):
    data = encode(*kind) + encode(*kind)
    stream = stream_audio(ShortReads(data))
    expected, stated, warnings = read(data)
    np.testing.assert_array_equal(np.concatenate(list(stream.blocks)), expected)
    assert (stream.report.stated_seconds, stream.report.warnings) == (stated, warnings)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("before", ["nothing", "another file"])
@pytest.mark.parametrize("format", ["WAV", "WAVEX", "RF64", "W64", "AIFF", "AU", "CAF", "FLAC", "OGG", "MP3"])
def test_a_file_that_is_cut_anywhere_in_its_header_is_read_or_refused(format, before, monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda program: None)
    subtype = {"OGG": "VORBIS", "MP3": "MPEG_LAYER_III"}.get(format, "PCM_16")
    data = encode(format, subtype, length=400)
    whole = b"" if before == "nothing" else data
    refusals = []
    for length in range(1, min(140, len(data))):
        try:
            assert len(read(whole + data[:length])[0]) > 0
        except AudioError as error:
            refusals.append(str(error))
    assert [len(refusal.splitlines()) for refusal in refusals] == len(refusals) * [1]


def test_a_cut_off_mp3_or_ogg_is_said_to_be():
    mp3, ogg = encode("MP3", "MPEG_LAYER_III"), encode("OGG", "VORBIS")
    waveform, stated, warnings = read(mp3[: len(mp3) // 2])
    assert len(waveform) < 30_000
    assert stated == pytest.approx(3.0, abs=0.1)
    assert "it is cut off or damaged" in warnings[0]
    waveform, stated, warnings = read(ogg[: len(ogg) * 2 // 3])
    assert len(waveform) < 40_000
    assert stated is None
    assert "its last page is missing: it may be cut off" in warnings[0]


def test_how_much_of_a_damaged_flac_was_read_is_said():
    with pytest.raises(AudioError, match=r"cannot be decoded to its end, only 1\.000 s: "):
        decode_audio(FLAC[: len(FLAC) // 2])


@pytest.mark.parametrize("name", [b"LIST", b"junk", b"wamd", b"bext", b"iXML"])
@pytest.mark.parametrize("size", [1, 5, 603])
@pytest.mark.parametrize("place", [12, 36])
@pytest.mark.parametrize("padding", [b"", b"\0"])
def test_odd_chunks_are_passed_with_and_without_padding(name, size, place, padding):
    chunk = name + struct.pack("<I", size) + b"a" * size + padding
    waveform, _, warnings = read(WAV[:place] + chunk + WAV[place:])
    np.testing.assert_allclose(waveform, SAMPLES, atol=1e-4)
    assert warnings == []


@pytest.mark.parametrize("size", [6, 10**9])
def test_samples_are_found_behind_a_chunk_of_a_wrong_size(size):
    waveform, _, _ = read(WAV[:36] + b"LIST" + struct.pack("<I", size) + b"INFOabcdefgh" + WAV[36:])
    np.testing.assert_allclose(waveform, SAMPLES, atol=1e-4)


@pytest.mark.parametrize("between", [b"", INFO])
def test_all_chunks_of_samples_are_decoded(between):
    first, second = struct.pack("<I", 32_000), struct.pack("<I", 64_000)
    waveform, stated, _ = read(WAV[:40] + first + WAV[44:32_044] + between + b"data" + second + WAV[32_044:])
    np.testing.assert_allclose(waveform, SAMPLES, atol=1e-4)
    assert stated == 3.0


@pytest.mark.parametrize(
    "after", [INFO, b"TAG" + b"a" * 125, b"ID3\x03\0\0\0\0\x01\0" + bytes(128), bytes(512)], ids=repr
)
@pytest.mark.parametrize("data", [WAV, W64, FLAC], ids=["wav", "w64", "flac"])
def test_what_follows_samples_and_is_no_sound_is_not_decoded(data, after):
    if data is not WAV and after[:3] != b"TAG":
        pytest.skip("is not found in such files")
    waveform, _, warnings = read(data + after)
    np.testing.assert_allclose(waveform, SAMPLES, atol=1e-4)
    assert warnings == []


@pytest.mark.parametrize("name", [b"_PMX", b"wamd", b"id3 ", b"LIST"])
@pytest.mark.parametrize("length", [48_000, 47_999])
@pytest.mark.parametrize("kind", [("WAV", "PCM_16"), ("WAV", "PCM_U8"), ("AIFF", "PCM_16"), ("CAF", "PCM_16")])
def test_a_chunk_that_is_cut_off_after_the_samples_is_not_decoded(kind, length, name):
    data = encode(*kind, length=length)
    size = struct.pack({"WAV": "<I", "AIFF": ">I", "CAF": ">q"}[kind[0]], 5000)
    waveform, stated, warnings = read(data + name + size + 100 * b"<?xpacket begin>")
    assert len(waveform) == length
    assert stated == length / 16000
    # Of a name that is known, nothing is guessed.
    said = [] if name == b"LIST" else [f"is cut off after its samples; {stated:.3f} s were decoded."]
    assert warnings == said


@pytest.mark.parametrize("format", ["WAV", "RF64", "W64", "AIFF", "AU", "CAF"])
def test_a_few_samples_beyond_the_stated_end_are_decoded_and_said(format):
    sizes = {"WAV": ("<I", 95_000), "RF64": ("<Q", 95_000), "W64": ("<Q", 95_024), "AIFF": (">I", 95_008)}
    kind, size = sizes.get(format, (">q", 95_004))
    data = encode(format)
    places = {"RF64": 28, "AU": 8, "CAF": data.find(b"data\0") + 4, "W64": data.find(b"data", 12) + 16}
    place = places.get(format, data.find(b"SSND" if format == "AIFF" else b"data", 12) + 4)
    changed = patch(data, 8, ">I", 95_000) if format == "AU" else patch(data, place, kind, size)
    waveform, _, warnings = read(changed)
    np.testing.assert_allclose(waveform, SAMPLES, atol=1e-4)
    assert warnings == ["has more bytes than its header states, which were taken for sound; 3.000 s were decoded."]


@pytest.mark.parametrize("format", ["WAV", "RF64", "W64", "AIFF", "AU", "CAF", "FLAC"])
def test_joined_files_are_decoded_one_after_another(format):
    data = encode(format)
    np.testing.assert_allclose(read(data + data)[0], np.tile(SAMPLES, 2), atol=1e-4)
    # Of another rate and number of channels.
    waveform, stated, _ = read(data + encode(format, rate=8000, channels=2, length=8000))
    assert len(waveform) == 64_000
    assert stated == 4.0


@pytest.mark.parametrize("kind", [("OGG", "VORBIS"), ("OGG", "OPUS"), ("MP3", "MPEG_LAYER_III")])
def test_joined_streams_are_decoded_one_after_another(kind, tmp_path):
    one, other = encode(*kind), encode(*kind, rate=48000, channels=2)
    expected = [decode_audio(part) for part in (one, other, one)]
    (tmp_path / "joined").write_bytes(one + other + one)
    for source in (one + other + one, tmp_path / "joined"):
        # A chain is one resampled waveform where the rates are equal.
        np.testing.assert_allclose(decode_audio(source), np.concatenate(expected), atol=1e-4)
    part = decode_audio(tmp_path / "joined", start=60_000, num_samples=5000)
    np.testing.assert_allclose(part, np.concatenate(expected)[60_000:65_000], atol=1e-4)


MIXED = {
    "WAV": WAV,
    "AU": AU,
    "AIFF": AIFF,
    "CAF": CAF,
    "FLAC": FLAC,
    "OGG": encode("OGG", "VORBIS"),
    "MP3": encode("MP3", "MPEG_LAYER_III"),
    "MP3 with a tag": b"ID3\x04\0\0\0\0\0\x76" + bytes(118) + encode("MP3", "MPEG_LAYER_III", channels=2),
}


@pytest.mark.parametrize("second", MIXED)
@pytest.mark.parametrize("first", MIXED)
def test_joined_files_of_different_formats_are_decoded_one_after_another(first, second):
    if first == "FLAC" and second == "MP3":
        pytest.skip("is not found behind a FLAC")
    joined = MIXED[first] + MIXED[second]
    expected = [decode_audio(MIXED[first]), decode_audio(MIXED[second])]
    waveform, _, warnings = read(joined)
    np.testing.assert_allclose(waveform, np.concatenate(expected), atol=1e-4)
    assert warnings == []


def test_an_mp3_behind_a_flac_is_said_to_be_left_out():
    waveform, _, warnings = read(FLAC + MIXED["MP3"])
    assert len(waveform) == 48_000
    assert warnings == ["its end is of another format, and is not read; 3.000 s were decoded."]


@pytest.mark.parametrize("kind", [("FLAC", "PCM_16"), ("OGG", "VORBIS"), ("OGG", "OPUS"), ("MP3", "MPEG_LAYER_III")])
def test_another_format_at_the_end_is_said_to_be_left_out(kind):
    data = encode(*kind)
    _, _, (warning,) = read(data + 500 * b"<html>")
    assert warning == "its end is of another format, and is not read; 3.000 s were decoded."
    tag = b"APETAGEX" + struct.pack("<4I8x", 2000, 2032, 0, 1 << 31)
    whole = b"APETAGEX" + struct.pack("<4I8x", 2000, 2032, 0, 5 << 29) + bytes(2000) + tag
    for rest in (b"", bytes(1000), *([] if kind[0] == "OGG" else [whole, whole + b"TAG" + bytes(125)])):
        assert read(data + rest)[2] == []


def ape(items: bytes, has_header: bool, size: int | None = None, has_flag: bool | None = None) -> bytes:
    """A tag; `size` and `has_flag` are what it states wrongly."""
    fields = (2000, len(items) + 32 if size is None else size, 1)
    header = b"APETAGEX" + struct.pack("<4I8x", *fields, 5 << 29) if has_header else b""
    flag = has_header if has_flag is None else has_flag
    return header + items + b"APETAGEX" + struct.pack("<4I8x", *fields, flag << 31)


ID3V1 = b"TAG" + 125 * b"a"
LYRICS = b"LYRICSBEGIN" + b"IND0000200" + 3000 * b"x"
RESTS = {
    "ID3v1": ID3V1,
    "ID3v1, longer": b"TAG+" + 223 * b"a" + ID3V1,
    "ID3v2": b"ID3\x04\0\0\0\0\x10\x00" + 2048 * b"a",
    "ID3v2 with a footer": b"ID3\x04\0\x10\0\0\x10\x00" + 2048 * b"a" + b"3DI\x04\0\x10\0\0\x10\x00",
    "APEv1": ape(5000 * b"x", False),
    "APEv1 and ID3v1": ape(5000 * b"x", False) + ID3V1,
    "APEv2": ape(5000 * b"x", True),
    "APEv2 without its header": ape(5000 * b"x", False, has_flag=True),
    "Lyrics3v1": LYRICS + b"LYRICSEND" + ID3V1,
    "Lyrics3v2": LYRICS + b"003021LYRICS200" + ID3V1,
    "Lyrics3v2, APEv2 and ID3v1": LYRICS + b"003021LYRICS200" + ape(5000 * b"x", True) + ID3V1,
    "zeros": bytes(1000),
    "zeros and a tag": bytes(1000) + ID3V1,
    "more than 64 KB of zeros": bytes(100_000),
    "a byte of padding": b"\0",
    "an end of line": b"\n",
}
MP3 = encode("MP3", "MPEG_LAYER_III")
BEFORE = {"WAV": WAV, "AU": AU, "FLAC": FLAC, "OGG": encode("OGG", "VORBIS"), "MP3": MP3, "MP3 bare": MP3[288:]}


@pytest.mark.parametrize("rest", RESTS)
@pytest.mark.parametrize("kind", BEFORE)
def test_tags_and_padding_behind_the_audio_are_no_damage(kind, rest):
    if kind in ("WAV", "AU") and rest == "more than 64 KB of zeros":
        pytest.skip("may be samples")
    waveform, _, warnings = read(BEFORE[kind] + RESTS[rest])
    np.testing.assert_array_equal(waveform, decode_audio(BEFORE[kind]))
    assert warnings == []


@pytest.mark.parametrize("size", [0, 100, 500, 2000, 60_000, 1 << 30])
@pytest.mark.parametrize("has_flag", [False, True])
def test_a_flac_is_not_cut_where_a_tag_of_a_wrong_size_would_begin(size, has_flag):
    np.testing.assert_array_equal(decode_audio(FLAC + ape(500 * b"x", False, size, has_flag)), decode_audio(FLAC))


@pytest.mark.parametrize("cut", [0, 100])
@pytest.mark.parametrize("between", [b"", bytes(3), bytes(3000)])
@pytest.mark.parametrize("tag", ["ID3v2", "APEv1", "APEv2", "ID3v1", "Lyrics3v2, APEv2 and ID3v1"])
def test_a_tag_between_mp3s_without_a_header_is_no_damage(tag, between, cut):
    # As a cover, a tag is longer than what is overlooked.
    bare = MP3[288:]
    waveform, _, warnings = read(bare[: len(bare) - cut] + between + RESTS[tag] + bare)
    assert len(waveform) == pytest.approx(2 * 48_000, abs=3000)
    assert warnings == []


@pytest.mark.parametrize("kind", [("WAV", "MS_ADPCM"), ("WAV", "IMA_ADPCM"), ("WAV", "GSM610"), ("W64", "IMA_ADPCM")])
def test_the_length_of_packed_samples_does_not_follow_from_a_wrong_rate_of_bytes(kind):
    data = encode(*kind, rate=8000)
    # Of 4 bits, as ffmpeg states it for any.
    waveform, stated, warnings = read(size_of(data, b"fmt ", "<I", 16_000, 32 if kind[0] == "W64" else 16))
    assert stated == pytest.approx(6, abs=0.2)
    assert len(waveform) == pytest.approx(6 * 16000, abs=3000)
    assert warnings == []


@pytest.mark.parametrize("hole", ["zeros", "noise"])
@pytest.mark.parametrize("has_header", [True, False])
def test_a_hole_in_an_mp3_is_said(has_header, hole):
    data = encode("MP3", "MPEG_LAYER_III")
    # Its first frame, of 288 bytes, states how many follow.
    data = data if has_header else data[288:]
    middle, size = len(data) // 2, len(data) // 4
    filling = bytes(size) if hole == "zeros" else np.random.default_rng(1).bytes(size)
    waveform, _, (warning,) = read(data[:middle] + filling + data[middle + size :])
    assert len(waveform) < 40_000
    if has_header:
        assert "it is cut off or damaged" in warning
    else:
        assert "bytes in it are damaged and left out, so that later times are too early" in warning
    # A few bytes between frames are nothing.
    assert read(data[:288] + filling[:3] + data[288:] + filling[:3])[2] == []


def test_tags_between_joined_mp3s_are_passed():
    mp3 = encode("MP3", "MPEG_LAYER_III")
    id3 = b"ID3\x04\0\0\0\0\x07\x76" + b"\xff\xfb" * 507
    whole = decode_audio(mp3)
    for between in (id3, b"TAG" + bytes(125), b"TAG" + bytes(125) + id3, bytes(3000)):
        np.testing.assert_allclose(decode_audio(mp3 + between + mp3), np.tile(whole, 2), atol=1e-5)


def test_mp3_with_a_variable_bit_rate_needs_no_header():
    # Made by LAME from 6 s, without its Xing frame; libsndfile stops after 1.95 s.
    stream = stream_audio(FIXTURES / "vbr_without_xing.mp3")
    waveform = np.concatenate(list(stream.blocks))
    assert len(waveform) == pytest.approx(96_500, abs=1000)
    assert stream.seconds == len(waveform) / 16000
    assert np.abs(waveform[40_000:90_000]).max() > 0.1


@pytest.mark.parametrize("stated", [0, 3, 40])
def test_mp3_with_a_wrong_number_of_frames_is_decoded_whole(stated):
    mp3 = encode("MP3", "MPEG_LAYER_III")
    place = max(mp3[:100].find(b"Xing"), mp3[:100].find(b"Info"))
    assert len(read(patch(mp3, place + 8, ">I", stated))[0]) == pytest.approx(48_000, abs=1200)


RATES_OF_ZERO = {
    "WAV": patch(WAV, 24, "<I", 0),
    "RF64": size_of(RF64, b"fmt ", "<I", 0, 12),
    "W64": size_of(W64, b"fmt ", "<I", 0, 28),
    "AIFF": AIFF[: AIFF.index(b"COMM") + 16] + bytes(10) + AIFF[AIFF.index(b"COMM") + 26 :],
    "AU": patch(AU, 16, ">I", 0),
    "CAF": patch(CAF, 20, ">d", 0.0),
    "FLAC": FLAC[:18] + bytes(2) + bytes([FLAC[20] & 15]) + FLAC[21:],
}


@pytest.mark.parametrize("data", RATES_OF_ZERO.values(), ids=RATES_OF_ZERO)
def test_a_rate_of_zero_is_refused(data):
    with pytest.raises(AudioError, match="its header states a sampling rate of 0 Hz"):
        decode_audio(data)


@pytest.mark.parametrize("rate", [0x80000000, 0xFFFFFFFF])
def test_a_rate_that_no_number_of_libsndfile_holds_is_refused(rate):
    for data in (patch(WAV, 24, "<I", rate), patch(AU, 16, ">I", rate)):
        with pytest.raises(AudioError, match=r"its header states a sampling rate of [24].*e\+09 Hz"):
            decode_audio(data)


def test_an_empty_file_stays_empty():
    for data in (size_of(WAV[:44], b"data", "<I", 0), size_of(WAV[:44], b"data", "<I", 0) + INFO):
        with pytest.raises(AudioError, match="holds no audio"):
            decode_audio(data)


@pytest.mark.parametrize("follows", [INFO, b"iXML" + struct.pack("<I", 4) + b"abcd"], ids=["LIST", "iXML"])
@pytest.mark.parametrize("size", [(1 << 31) - 2000, (1 << 32) - 2000])
def test_almost_2_or_4_gib_are_a_length_where_a_chunk_follows(size, follows, tmp_path):
    header = size_of(WAV[: WAV.index(b"data") + 8], b"data", "<I", size)
    with open(tmp_path / "a.wav", "wb") as file:
        file.write(header)
        file.truncate(len(header) + size)
        file.seek(0, 2)
        file.write(follows)
    with open(tmp_path / "a.wav", "rb") as file:
        (part,) = find_parts(Reader(file))
    assert part.stated_seconds == size / (2 * 16000)


def test_more_than_4_gib_are_read(tmp_path):
    # A hole on the disk, whose size wrapped: 2^32 + 96,000 bytes of samples.
    path = tmp_path / "long.wav"
    path.write_bytes(size_of(WAV, b"data", "<I", 96_000))
    with path.open("r+b") as file:
        file.truncate(44 + 2**32 + 96_000)
    assert stream_audio(path).seconds == (2**32 + 96_000) / 32_000
    assert decode_audio(path, start=2**31 - 10, num_samples=5).shape == (5,)
