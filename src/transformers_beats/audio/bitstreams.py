# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Recordings in FLAC, Ogg and MPEG streams, found by their frames and pages."""

import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from .containers import AU_ORDER, BLOCK_BYTES, FORMATS, TAGS, Part, Reader, begins_file


# Bytes of a Lyrics3 tag that does not state its length, as none of the first version does.
MAX_LYRICS = 5200
# A stream of FLAC: its name, and its first block of metadata, of 34 bytes, which may be the last.
FLAC_STARTS = (b"fLaC\x00\x00\x00\x22", b"fLaC\x80\x00\x00\x22")
# Bytes at the end of a FLAC among which its last frame is searched.
MAX_FLAC_FRAME = 1 << 18
# Headers of frames, from the end on, among which that of the last frame is: its samples hardly ever look like more.
MAX_FLAC_HEADERS = 4
# Beginnings of other files and of tags before them, one of which may follow a FLAC.
OTHER_STARTS = (*FORMATS, *AU_ORDER, b"OggS", b"ID3")
# Places at which they are looked at; samples hardly ever have as many by chance.
MAX_OTHER_STARTS = 100
# Remainders of powers of x by the polynomial of the sum of a frame of FLAC, which repeat themselves.
FLAC_POLYNOMIAL, FLAC_PERIOD = 0x18005, (1 << 15) - 1
# Flags of a page of Ogg, and the largest page.
OGG_FIRST, OGG_LAST, MAX_PAGE = 2, 4, 65307
# Bytes of a frame that may state the number of all.
INFO_BYTES = 60
# kbit/s in MPEG frames: MPEG 1, layers I to III; MPEG 2 and 2.5, layer I and layers II and III.
BITRATES = {
    (True, 1): (32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (True, 2): (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (True, 3): (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (False, 1): (32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (False, 2): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (False, 3): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
# Note of a part that another kind of data follows.
NOT_READ = "its end is of another format, and is not read"
# Bytes that are no frames of an MPEG stream, in lengths of its first frame: 0.1 s, as for lengths that agree.
MAX_STRAY_FRAMES = 4
MPEG_RATES = {3: (44100, 48000, 32000), 2: (22050, 24000, 16000), 0: (11025, 12000, 8000)}


# What may stand before and behind audio


def skip_tags(file: Reader, place: int) -> int:
    """Returns the place after tags that precede audio."""
    while (size := _tag_bytes(file.read(place, 32))) > 0:
        place += size
    return min(place, file.size)


def _tag_bytes(header: bytes) -> int:
    """Returns the length of the tag that begins with some bytes; 0 if none does."""
    if header[:3] == b"ID3" and len(header) >= 10 and max(header[6:10]) < 128:
        size = header[6] << 21 | header[7] << 14 | header[8] << 7 | header[9]
        return 10 + size + (10 if header[5] & 16 else 0)
    if header[:8] == b"APETAGEX" and len(header) >= 24:
        size, flags = int.from_bytes(header[12:16], "little"), int.from_bytes(header[20:24], "little")
        # The size of a tag is without its header, which this is, or is that of its footer.
        return size + 32 if flags & 1 << 29 else 32
    return 128 if header[:3] == b"TAG" else 0


def find_ends(file: Reader, start: int, end: int) -> Iterator[int]:
    """
    Yields the places, from the last one on, at which audio may end that begins at `start` or later: `end`, and before
    each of the tags and the padding that end there. The padding is zeros or one byte of any value.
    """
    yield end
    while (before := max(start, _begin_of_last(file, start, end))) < end:
        end = before
        yield end
    if end > start:
        yield end - 1


def is_rest(file: Reader, place: int) -> bool:
    """Returns whether nothing but tags and padding follows a place: no audio is missing that was there."""
    after = place
    while (following := skip_tags(file, _skip_zeros(file, after))) > after:
        after = following
    return any(end <= after for end in find_ends(file, place, file.size))


def _skip_zeros(file: Reader, place: int) -> int:
    while block := file.read(place, BLOCK_BYTES):
        rest = block.lstrip(b"\0")
        place += len(block) - len(rest)
        if rest:
            break
    return place


def _begin_of_last(file: Reader, start: int, end: int) -> int:
    """Returns the place of the tag, or of the zeros, that end at a place; the place itself if there are none."""
    last = file.read(max(start, end - 128), min(128, end - start))
    if last.startswith(b"TAG") and len(last) == 128:
        return end - 355 if file.read(max(start, end - 355), 4) == b"TAG+" else end - 128
    footer = last[-32:]
    if footer.startswith(b"APETAGEX") and len(footer) == 32:
        # The size is that of items and footer. A flag tells of a header, which there may not be.
        begin = end - max(32, int.from_bytes(footer[12:16], "little"))
        return begin - 32 if begin >= start + 32 and file.read(begin - 32, 8) == b"APETAGEX" else begin
    if last[-10:-7] == b"3DI":
        begin = end - 10 - _tag_bytes(b"ID3" + last[-7:-5] + bytes(1) + last[-4:])
        return begin if begin >= start and file.read(begin, 3) == b"ID3" else end
    if last.endswith(b"LYRICS200") and last[-15:-9].isdigit():
        return end - 15 - int(last[-15:-9])
    if last.endswith((b"LYRICS200", b"LYRICSEND")):
        begin = max(start, end - MAX_LYRICS)
        place = file.read(begin, end - begin).rfind(b"LYRICSBEGIN")
        return end if place < 0 else begin + place
    while end > start:
        begin = max(start, end - BLOCK_BYTES)
        block = file.read(begin, end - begin).rstrip(b"\0")
        end = begin + len(block)
        if block:
            break
    return end


# FLAC


def find_flac(file: Reader, start: int) -> tuple[list[Part], int]:
    """Finds the stream of FLAC that begins at a place; returns it and the place after it."""
    header = file.read(start, 42)
    end = start + 8
    while (end := file.find(b"fLaC", end)) >= 0 and not file.read(end, 8).startswith(FLAC_STARTS):
        end += 4
    end = file.size if end < 0 else end
    if len(header) < 42 or not header.startswith(FLAC_STARTS):
        return [Part((range(start, file.size),), is_length_decoders=True)], file.size
    fields = int.from_bytes(header[18:26], "big")
    rate, stated = fields >> 44, fields & (1 << 36) - 1
    seconds = stated / rate if stated and rate else None
    stop, actual = _end_of_flac(file, start, end, header)
    if actual is None and (other := _find_other(file, start, end, header)) is not None:
        end = other
        stop, actual = _end_of_flac(file, start, end, header)
    if actual is None or actual == stated:
        note = NOT_READ if actual is None else ""
        return [Part((range(start, stop),), rate, seconds, note=note)], end
    fields += actual - stated
    fixed = header[:18] + fields.to_bytes(8, "big") + header[26:42]
    return [Part((fixed, range(start + 42, stop)), rate, seconds)], end


def _end_of_flac(file: Reader, start: int, end: int, header: bytes) -> tuple[int, int | None]:
    """Returns the end of a FLAC without what may follow it, and its number of samples, if a frame ends there."""
    for stop in find_ends(file, start + 42, end):
        # The sum at the end of a frame may end with zeros.
        for place in range(stop, min(stop + 3, end + 1)):
            if not file.read(stop, place - stop).strip(b"\0"):
                actual = _last_flac_sample(file, start, place, header)
                if actual is not None:
                    return place, actual
    return end, None


def _find_other(file: Reader, start: int, end: int, header: bytes) -> int | None:
    """Returns the place of a tag or another format that follows the last frame of a FLAC; `None` if there is none."""
    found: list[int] = []
    # Searching each in turn by `Reader.find` would read the file as often.
    for begin in range(start + 42, end, BLOCK_BYTES):
        block = file.read(begin, min(BLOCK_BYTES + 3, end - begin))
        for pattern in OTHER_STARTS:
            place = -1
            while (place := block.find(pattern, place + 1)) >= 0:
                found.append(begin + place)
        if len(found) >= MAX_OTHER_STARTS:
            break
    for place in sorted(found)[:MAX_OTHER_STARTS]:
        is_known = begins_file(file, place) or is_rest(file, place)
        if is_known and _end_of_flac(file, start, place, header)[1] is not None:
            return place
    return None


def _last_flac_sample(file: Reader, start: int, end: int, header: bytes) -> int | None:
    """Returns the number of samples by the last frame; `None` if no frame ends at `end`."""
    fixed_size, rate = int.from_bytes(header[10:12], "big"), int.from_bytes(header[18:21], "big") >> 4
    begin = max(start, end - MAX_FLAC_FRAME)
    data = file.read(begin, end - begin)
    place, num_headers = len(data), 0
    while num_headers < MAX_FLAC_HEADERS and (place := data.rfind(b"\xff", 0, place)) >= 0:
        count = _flac_frame_end(data[place : place + 16], fixed_size)
        if count is not None and _has_sum(data[place:]):
            return count if rate else None
        num_headers += count is not None
    return None


def _has_sum(data: bytes) -> bool:
    """Returns whether a frame of FLAC ends with its sum: whether the polynomial divides it."""
    bits = np.unpackbits(np.frombuffer(data, np.uint8))
    powers = (len(bits) - 1 - np.flatnonzero(bits)) % FLAC_PERIOD
    return int(np.bitwise_xor.reduce(_remainders()[powers])) == 0


@lru_cache
def _remainders() -> np.ndarray:
    values = [1]
    for _ in range(FLAC_PERIOD - 1):
        value = values[-1] << 1
        values.append(value ^ FLAC_POLYNOMIAL if value >> 16 else value)
    return np.array(values, dtype=np.uint16)


def _flac_frame_end(data: bytes, fixed_size: int) -> int | None:
    """Returns the number of samples at the end of the frame whose header is given; `None` for anything else."""
    if len(data) < 6 or data[1] & 0xFE != 0xF8 or data[3] & 1:
        return None
    size_code, rate_code, first = data[2] >> 4, data[2] & 15, data[4]
    # A number in the manner of UTF-8: leading ones count its bytes.
    length = max(1, 8 - (first ^ 0xFF).bit_length())
    if size_code == 0 or rate_code == 15 or length > 7 or first & 0xC0 == 0x80 or len(data) < 5 + length:
        return None
    number = first if length == 1 else first & (0x7F >> length)
    for byte in data[5 : 4 + length]:
        number = number << 6 | byte & 0x3F
    place = 4 + length
    extra = {6: 1, 7: 2}.get(size_code, 0)
    size = int.from_bytes(data[place : place + extra], "big") + 1
    if not extra:
        size = 192 if size_code == 1 else 576 << size_code - 2 if size_code < 6 else 256 << size_code - 8
    place += extra + {12: 1, 13: 2, 14: 2}.get(rate_code, 0)
    if len(data) <= place or _crc(data[: place + 1]) != 0:
        return None
    # The number is of the sample or, where all frames are of one size, of the frame.
    return (number if data[1] & 1 else number * fixed_size) + size


def _crc(data: bytes) -> int:
    """Returns the checksum of the header of a frame, which is 0 for data that end with their own."""
    table, value = _crc_table(), 0
    for byte in data:
        value = table[value ^ byte]
    return value


@lru_cache
def _crc_table() -> list[int]:
    table = []
    for value in range(256):
        for _ in range(8):
            value = value << 1 & 0xFF ^ (0x07 if value >> 7 else 0)
        table.append(value)
    return table


# Ogg


def find_ogg(file: Reader, start: int) -> tuple[list[Part], int]:
    """
    Finds the links of a chain of Ogg streams (RFC 3533), one after another; returns them and the place after them.
    """
    parts: list[Part] = []
    place, first, is_begun, is_ended, is_cut = start, start, False, False, False
    while place < file.size:
        header = file.read(place, 282)
        if header[:4] != b"OggS":
            # Behind a tag, a stream may go on.
            if file.read(skip_tags(file, place), 4) != b"OggS" and begins_file(file, place):
                return [*parts, _ogg_part(first, place, is_ended, False)], place
            found = file.find(b"OggS", place, place + 2 * MAX_PAGE)
            if found < 0:
                break
            place = found
            continue
        if len(header) < 27 or len(header) < 27 + header[26]:
            is_cut = True
            break
        flags = header[5]
        if flags & OGG_FIRST and is_begun:
            parts.append(_ogg_part(first, place, is_ended, False))
            first, is_begun = place, False
        is_begun = is_begun or not flags & OGG_FIRST
        is_ended = bool(flags & OGG_LAST)
        place += 27 + header[26] + sum(header[27 : 27 + header[26]])
        is_cut = place > file.size
    last = _ogg_part(first, file.size, is_ended, is_cut)
    if not last.note and not is_rest(file, place):
        last = replace(last, note=NOT_READ)
    return [*parts, last], file.size


def _ogg_part(start: int, end: int, is_ended: bool, is_cut: bool) -> Part:
    note = "" if is_ended and not is_cut else "its last page is missing: it may be cut off"
    return Part((range(start, end),), is_length_decoders=not note, note=note)


# MPEG


class Frame(NamedTuple):
    """Header of an MPEG frame: its length in bytes, its samples, and what all frames of a stream have in common."""

    length: int
    num_samples: int
    stream: tuple[int, int, int, bool]

    @property
    def sampling_rate(self) -> int:
        return self.stream[2]


@lru_cache(maxsize=1 << 12)
def _mpeg_frame(header: bytes) -> Frame | None:
    """Returns the frame that begins with four bytes; `None` for anything else, or without a bit rate."""
    if len(header) < 4 or header[0] != 0xFF or header[1] & 0xE0 != 0xE0:
        return None
    version, layer, rate_code, bits = header[1] >> 3 & 3, 4 - (header[1] >> 1 & 3), header[2] >> 2 & 3, header[2] >> 4
    if version == 1 or layer == 4 or rate_code == 3 or bits in (0, 15):
        return None
    rate = MPEG_RATES[version][rate_code]
    bitrate = 1000 * BITRATES[version == 3, layer][bits - 1]
    padding = header[2] >> 1 & 1
    num_samples = 384 if layer == 1 else 576 if layer == 3 and version != 3 else 1152
    length = 4 * (12 * bitrate // rate + padding) if layer == 1 else num_samples // 8 * bitrate // rate + padding
    return Frame(length, num_samples, (version, layer, rate, header[3] >> 6 == 3))


def _info_place(stream: tuple[int, int, int, bool]) -> int:
    """Returns the place in a frame of layer III at which an encoder may write the number of frames."""
    version, _, _, is_mono = stream
    return 4 + ((17 if is_mono else 32) if version == 3 else (9 if is_mono else 17))


def _stated_frames(data: bytes, frame: Frame) -> int | None:
    """Returns the number of frames that a frame without sound states, 0 if it states none; `None` for other frames."""
    if frame.stream[1] != 3:
        return None
    if data[36:40] == b"VBRI":
        return int.from_bytes(data[50:54], "big")
    place = _info_place(frame.stream)
    info = data[place : place + 12]
    if info[:4] not in (b"Xing", b"Info"):
        return None
    return int.from_bytes(info[8:12], "big") if info[7] & 1 else 0


def _make_info(frame: Frame, header: bytes, num_frames: int) -> bytes:
    """Returns a frame without sound that states the number of frames, for decoders that guess it otherwise."""
    place = _info_place(frame.stream)
    for bits in range(1, 15):
        # Without a checksum and without padding.
        start = bytes((0xFF, header[1] | 1, bits << 4 | header[2] & 0x0C, header[3]))
        made = _mpeg_frame(start)
        if made is not None and made.length >= place + 12:
            content = start.ljust(place, b"\0") + b"Xing" + struct.pack(">II", 1, num_frames)
            return content.ljust(made.length, b"\0")
    return b""


@dataclass
class Stream:
    """Frames of an MPEG stream: the first one, its first bytes, and the ranges and the number of all with sound."""

    frame: Frame
    header: bytes
    # Frame without sound that states the number of the others, and that number.
    info: range | None
    stated: int | None
    pieces: list[range]
    num_frames: int = 0
    # Bytes among its frames that are none.
    num_stray: int = 0

    def add(self, place: int, length: int) -> None:
        self.num_frames += 1
        if self.pieces and self.pieces[-1].stop == place:
            self.pieces[-1] = range(self.pieces[-1].start, place + length)
        else:
            self.pieces.append(range(place, place + length))


def find_mpeg(file: Reader, start: int) -> tuple[list[Part], int]:
    """
    Finds the streams of MPEG audio, layers I to III, that follow one another; returns them and the place after them. A
    new one begins with a frame that states the number of frames, or has another rate or number of channels.
    """
    streams: list[Stream] = []
    place, end, is_cut, note = _find_frames(file, start), file.size, False, ""
    # Place after the last frame, and bytes of tags and of padding before them that follow it.
    known, num_tags = place, 0
    while 0 <= place < file.size:
        header = file.read(place, INFO_BYTES)
        frame = _mpeg_frame(header[:4])
        if frame is None or (streams and frame.stream != streams[-1].frame.stream and not is_mpeg(file, place)):
            tag, after = place, skip_tags(file, place)
            if streams and begins_file(file, after) and not is_mpeg(file, after):
                end = place
                break
            if after == place:
                # A frame that is cut off may reach into a tag.
                begin = place - (streams[-1].frame.length if streams else 0)
                tag, after = _find_frames_or_tag(file, begin, place + 1)
            if tag < after and streams:
                begins = (*find_ends(file, known, tag), *find_ends(file, known, after))
                num_tags += after - max(known, min(begins))
            place = after
            continue
        if place + frame.length > file.size:
            is_cut = True
            break
        is_new = not streams or frame.stream != streams[-1].frame.stream
        # Only a file has such a frame, and at its beginning: others are not looked at.
        stated = _stated_frames(header, frame)
        if is_new or stated is not None:
            info = None if stated is None else range(place, place + frame.length)
            streams.append(Stream(frame, header, info, stated, []))
        if stated is None:
            # Between two files there may be anything.
            streams[-1].num_stray += 0 if is_new else place - known - num_tags
            streams[-1].add(place, frame.length)
        place = known = place + frame.length
        num_tags = 0
    if streams and not is_cut and end - known > streams[-1].frame.length * MAX_STRAY_FRAMES and end == file.size:
        note = "" if is_rest(file, known) else NOT_READ
    streams = [stream for stream in streams if stream.pieces]
    parts = [_mpeg_part(stream) for stream in streams]
    if parts and (is_cut or note):
        also = [parts[-1].note] if parts[-1].note else []
        parts[-1] = replace(parts[-1], note=", ".join([*also, note or "its last frame is cut off"]))
    return parts, end


def _find_frames(file: Reader, start: int) -> int:
    """Returns the place from which on two frames of one stream follow each other, -1 if there is none."""
    place = start
    while (place := file.find(b"\xff", place)) >= 0:
        if is_mpeg(file, place):
            return place
        place += 1
    return -1


def _find_frames_or_tag(file: Reader, begin: int, start: int) -> tuple[int, int]:
    """
    Returns the place from `start` on at which frames begin, twice; or the place of a tag before them, from `begin` on,
    and the one after it, since its contents may look like frames. -1 if there is none.
    """
    found = _find_frames(file, start)
    stop = found if found >= 0 else file.size
    places = [place for pattern in TAGS if (place := file.find(pattern, begin, stop)) >= 0]
    tags = [(place, after) for place in places if (after := skip_tags(file, place)) > max(place, start)]
    return min(tags, default=(found, found))


def is_mpeg(file: Reader, place: int) -> bool:
    """Returns whether a frame is followed by another one of its stream."""
    frame = _mpeg_frame(file.read(place, 4))
    if frame is None:
        return False
    after = file.read(place + frame.length, 4)
    following = _mpeg_frame(after)
    return following is not None and following.stream == frame.stream


def is_mpeg_file(file: Reader, place: int) -> bool:
    """Returns whether three frames of a stream follow each other, as samples hardly ever look."""
    return is_mpeg(file, place) and is_mpeg(file, place + _length_at(file, place))


def _length_at(file: Reader, place: int) -> int:
    frame = _mpeg_frame(file.read(place, 4))
    return 0 if frame is None else frame.length


def _mpeg_part(stream: Stream) -> Part:
    rate, num_samples = stream.frame.sampling_rate, stream.frame.num_samples
    note = ""
    if stream.num_stray > MAX_STRAY_FRAMES * stream.frame.length:
        note = f"{stream.num_stray:,} bytes in it are damaged and left out, so that later times are too early"
    if stream.info is not None and stream.stated is not None and stream.stated >= stream.num_frames - 1:
        # As it is, since it may also state how much silence the encoder has added.
        first = [range(stream.info.start, stream.pieces[0].stop)]
        pieces = first if stream.info.stop == stream.pieces[0].start else [stream.info, stream.pieces[0]]
        return Part((*pieces, *stream.pieces[1:]), rate, is_length_decoders=True, note=note)
    seconds = stream.stated * num_samples / rate if stream.stated else None
    info = _make_info(stream.frame, stream.header, stream.num_frames)
    # Layers I and II have no such frame; their bit rate is constant.
    pieces = (info, *stream.pieces) if stream.frame.stream[1] == 3 else tuple(stream.pieces)
    return Part(pieces, rate, seconds, is_length_decoders=stream.frame.stream[1] != 3, note=note)
