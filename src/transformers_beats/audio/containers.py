# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""
Audio data in files, to their true end.

Headers state a wrong length or none: of recorders that lost power, of streams, of more than 4 GiB, of MP3s with a
variable bit rate. Decoders believe them, and stop at the end of the first of several recordings that were joined with
`cat`. [`find_parts`] follows the structure of the data instead, and makes of each recording a [`Part`] that a decoder
reads whole.
"""

import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import BinaryIO, NamedTuple


# Bytes that are read at once to look at a few, and to search.
SMALL_BYTES, BLOCK_BYTES = 1 << 14, 1 << 18
# Sizes that stand for "unknown" in 32 bits: 0, and the largest ones with or without a sign, less a header.
HEADER_BYTES = 4096
# Rest of a file, in bytes, that is no sound if it is padding.
MAX_PADDING = 1 << 16
TAGS = (b"ID3", b"TAG", b"APETAGEX")
# A chunk after the samples of which the file lacks the end is told from samples by a name and a size as chunks have.
NAME_LETTERS = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_- ")
MAX_CUT_CHUNK = 1 << 24
# Notes of parts.
MORE_BYTES = "has more bytes than its header states, which were taken for sound"
FEWER_BYTES = "has fewer bytes than its header states: it is cut off or damaged"
CUT_CHUNK = "is cut off after its samples"


@dataclass(frozen=True)
class Part:
    """
    A recording in a file.

    Args:
        pieces (`tuple[bytes | range, ...]`):
            Its contents, from header to end: bytes, and ranges of the file.
        sampling_rate (`float`, *optional*):
            Rate in the header in hertz, if it was read.
        stated_seconds (`float`, *optional*):
            Length in the header, if there is one and it was read.
        is_length_decoders (`bool`, defaults to `False`):
            Whether the length that a decoder finds is that of the header.
        note (`str`, defaults to `""`):
            What is missing, for a warning.
    """

    pieces: tuple[bytes | range, ...]
    sampling_rate: float | None = None
    stated_seconds: float | None = None
    is_length_decoders: bool = False
    note: str = ""


class Reader:
    """A file that is read at any place, a block at a time."""

    def __init__(self, file: BinaryIO):
        self.file = file
        self.size = file.seek(0, 2)
        self.start, self.block = 0, b""

    def read(self, start: int, count: int) -> bytes:
        """Returns bytes from a place on, fewer at the end of the file."""
        self._load(start, count, SMALL_BYTES)
        return self.block[start - self.start : start - self.start + count]

    def find(self, pattern: bytes, start: int, stop: int | None = None) -> int:
        """Returns the first place of a pattern, or -1."""
        stop = self.size if stop is None else min(stop, self.size)
        while start + len(pattern) <= stop:
            self._load(start, len(pattern), BLOCK_BYTES)
            found = self.block.find(pattern, start - self.start, stop - self.start)
            if found >= 0:
                return self.start + found
            start = max(start + 1, self.start + len(self.block) - len(pattern) + 1)
        return -1

    def _load(self, start: int, count: int, size: int) -> None:
        """Makes a block of at least `size` bytes hold some, as far as the file has them."""
        stop = min(start + count, self.size)
        if start < self.start or stop > self.start + len(self.block):
            self.file.seek(start)
            wanted = max(count, size)
            found = self.file.read(wanted)
            # A file object of another kind may return less before the end.
            while len(found) < min(wanted, self.size - start) and (more := self.file.read(wanted - len(found))):
                found += more
            self.start, self.block = start, found


class Fields(NamedTuple):
    """Structure of the chunks of a format."""

    # Length of a name, format of a size, and whether the size counts name and size; multiple of bytes of a chunk.
    name_bytes: int
    size: str
    counts_header: bool
    padding: int
    # Bytes before the first chunk, name of the chunk with the samples, and bytes of it before these.
    first: int
    data: bytes
    skipped: int

    @property
    def header_bytes(self) -> int:
        return self.name_bytes + struct.calcsize(self.size)


RIFF = Fields(4, "<I", False, 2, 12, b"data", 0)
RIFX = RIFF._replace(size=">I")
AIFF = Fields(4, ">I", False, 2, 12, b"SSND", 8)
# By its standard without padding; libsndfile pads the samples.
CAF = Fields(4, ">q", False, 2, 8, b"data", 4)
W64 = Fields(16, "<Q", True, 8, 40, b"data", 0)
FORMATS = {b"RIFF": RIFF, b"RF64": RIFF, b"BW64": RIFF, b"RIFX": RIFX, b"FORM": AIFF, b"caff": CAF, b"riff": W64}
# Name of the kind of a file, after its first eight bytes.
KINDS = {RIFF: (b"WAVE",), RIFX: (b"WAVE",), AIFF: (b"AIFF", b"AIFC")}
W64_GUID = bytes.fromhex("2e91cf11a5d628db04c10000")
# Chunks that are known, for files whose odd chunks have no padding.
KNOWN = {b"data", b"fmt ", b"fact", b"LIST", b"bext", b"PEAK", b"ds64", b"cue ", b"smpl", b"COMM", b"SSND", b"iXML"}
# Codes of WAVE for samples of a fixed size: integers, floating point, A-law, mu-law and "extensible"; and for blocks
# of a number of samples that the header states: ADPCM of Microsoft and of the IMA, and GSM.
FIXED_SIZE = (1, 3, 6, 7, 0xFFFE)
FIXED_BLOCKS = (2, 0x11, 0x31)
# Beginnings of AU, with the order of bytes in its header, and bytes of a sample in each of its encodings.
AU_ORDER = {b".snd": ">", b"dns.": "<"}
AU_BYTES = {1: 1, 2: 1, 3: 2, 4: 3, 5: 4, 6: 4, 7: 8, 27: 1}


class Data(NamedTuple):
    """
    Chunks of a file: contents of those before the samples, ranges of the samples, their size in the header (None if it
    states none), bytes of it that the file lacks at its end, place of the first chunk of samples, end of the file,
    whether a decoder finds the same, and a note.
    """

    chunks: dict[bytes, bytes]
    samples: list[range]
    stated: int | None
    num_missing: int
    place: int
    end: int
    is_regular: bool
    note: str


def find_parts(file: Reader) -> list[Part]:
    """
    Finds the recordings in a file.

    Args:
        file ([`Reader`]):
            WAV (RIFF, RIFX, RF64, BW64), W64, AIFF, CAF, AU, FLAC, Ogg or MP3.

    Returns:
        `list[Part]`: one after another; none for other formats. A single part that is the whole file can be given to a
        decoder as it is.
    """
    from .bitstreams import find_flac, find_mpeg, find_ogg, is_mpeg, is_mpeg_file, skip_tags

    parts: list[Part] = []
    place = 0
    while place < file.size:
        first = skip_tags(file, place)
        magic = file.read(first, 40)
        find: Callable[[Reader, int], tuple[list[Part], int]] | None = None
        if magic[:4] == b"fLaC":
            find = find_flac
        elif magic[:4] == b"OggS":
            find = find_ogg
        elif is_chunked(magic):
            find = _find_chunked
        elif magic[:4] in AU_ORDER:
            find = _find_au
        elif is_mpeg_file(file, first) if parts else first > place or is_mpeg(file, first):
            find = find_mpeg
        if find is None:
            break
        found, place = find(file, first)
        if not found:
            break
        parts += found
    return parts


def is_chunked(magic: bytes) -> bool:
    """Returns whether a file that begins with some bytes consists of chunks that are known here."""
    fields = FORMATS.get(magic[:4])
    if fields is None:
        return False
    if fields is W64:
        return magic[4:16] == W64_GUID
    return fields is CAF or magic[8:12] in KINDS[fields]


def begins_file(file: Reader, place: int) -> bool:
    """Returns whether a file of a known format begins at a place, or behind tags there."""
    from .bitstreams import is_mpeg_file, skip_tags

    first = skip_tags(file, place)
    magic = file.read(first, 40)
    return is_chunked(magic) or magic[:4] in (*AU_ORDER, b"fLaC", b"OggS") or is_mpeg_file(file, first)


def _chunk_at(file: Reader, place: int, fields: Fields) -> tuple[bytes, int] | None:
    """Returns name and size of the chunk at a place; `None` if there is none."""
    header = file.read(place, fields.header_bytes)
    if len(header) < fields.header_bytes or not all(32 <= byte < 127 for byte in header[:4]):
        return None
    (size,) = struct.unpack(fields.size, header[fields.name_bytes :])
    return header[:4], size - fields.header_bytes if fields.counts_header else size


def _is_end(file: Reader, place: int) -> bool:
    """Returns whether samples that should end at a place do: a tag, another file or nothing but padding is there."""
    from .bitstreams import is_rest

    if file.size - place < 8 or file.read(place, 8).startswith(TAGS) or begins_file(file, place):
        return True
    return file.size - place <= MAX_PADDING and is_rest(file, place)


def _is_chunk(file: Reader, place: int, fields: Fields) -> bool:
    """Returns whether a chunk, of which all or the beginning is in the file, or the end of the recording is there."""
    if _is_end(file, place):
        return True
    chunk = _chunk_at(file, place, fields)
    if chunk is None:
        return False
    return chunk[0] in KNOWN or 0 <= chunk[1] <= file.size - place - fields.header_bytes


def _next_chunk(file: Reader, end: int, size: int, fields: Fields) -> tuple[int, bool]:
    """Returns the place of the chunk after one that ends at `end`, and whether it is where it should be."""
    padded = end + -size % fields.padding
    if padded == end:
        return end, True
    known = (_chunk_at(file, padded, fields) or (b"",))[0] in KNOWN
    other = (_chunk_at(file, end, fields) or (b"",))[0] in KNOWN
    if not known and (other or (not _is_chunk(file, padded, fields) and _is_chunk(file, end, fields))):
        return end, False
    return padded, True


def _ends_here(file: Reader, end: int, size: int, fields: Fields) -> bool:
    """Returns whether samples that should end at a place do: another chunk follows, or the end of the recording."""
    return end >= file.size or _is_chunk(file, _next_chunk(file, end, size, fields)[0], fields)


def _is_cut_chunk(file: Reader, end: int, size: int, fields: Fields) -> bool:
    """Returns whether samples that should end at a place do, before a chunk of which the file lacks the end."""
    place = end + -size % fields.padding
    name, num_bytes = _chunk_at(file, place, fields) or (b"", 0)
    return NAME_LETTERS.issuperset(name) and file.size - place - fields.header_bytes < num_bytes < MAX_CUT_CHUNK


def is_unknown_size(size: int, fields: Fields) -> bool:
    """Returns whether a size stands for an unknown one."""
    if fields in (CAF, W64):
        return size <= 0 or size >= (1 << 63) - HEADER_BYTES
    return size == 0 or any(limit - HEADER_BYTES <= size <= limit for limit in (1 << 31, 1 << 32))


def _find_data(file: Reader, start: int, fields: Fields) -> int:
    """Returns the first place of a whole header of a chunk with samples; the end of the file if there is none."""
    place = file.find(fields.data, start)
    while place >= 0 and _chunk_at(file, place, fields) is None:
        place = file.find(fields.data, place + 1)
    return place if place >= 0 else file.size


def _read_chunks(file: Reader, start: int, fields: Fields) -> Data:
    chunks: dict[bytes, bytes] = {}
    samples: list[range] = []
    stated: int | None = 0
    place, first, is_regular, num_missing, note = start + fields.first, -1, True, 0, ""
    while place < file.size:
        if first >= 0 and begins_file(file, place):
            break
        chunk = _chunk_at(file, place, fields)
        body = place + fields.header_bytes
        if not samples and (chunk is None or (chunk[0] != fields.data and not 0 <= chunk[1] <= file.size - body)):
            # The size of this chunk is wrong, or that of the one before.
            place, is_regular = _find_data(file, start + fields.first, fields), False
            continue
        if chunk is None or (chunk[1] < 0 and chunk[0] != fields.data):
            break
        name, size = chunk
        if name != fields.data:
            if not samples:
                chunks.setdefault(name, file.read(body, min(size, 1 << 16)))
            place, is_padded = _next_chunk(file, body + size, size, fields)
            is_regular = is_regular and (is_padded or first >= 0)
            continue
        is_unknown = is_unknown_size(size, fields)
        if size == 0xFFFFFFFF and len(chunks.get(b"ds64", b"")) >= 16:
            size = int.from_bytes(chunks[b"ds64"][8:16], "little")
            is_unknown = is_unknown_size(size, W64)
        if first >= 0:
            # A decoder takes one of them.
            is_regular = False
        else:
            first = place
        begin = min(body + fields.skipped, file.size)
        end = body + max(size, fields.skipped)
        if is_unknown and size > 0 and end < file.size:
            # Almost 2 or 4 GiB, and so many if a chunk that is known follows.
            follows, _ = _next_chunk(file, end, size, fields)
            is_unknown = file.read(follows, fields.name_bytes) not in KNOWN
        num_missing = 0 if is_unknown else max(0, end - file.size)
        goes_on = is_unknown or end > file.size or not _ends_here(file, end, size, fields)
        if goes_on and not is_unknown and fields.skipped < size and end < file.size:
            goes_on = not _is_cut_chunk(file, end, size, fields)
            note = MORE_BYTES if goes_on else CUT_CHUNK
        if goes_on and not (size <= fields.skipped and begin < file.size and _ends_here(file, begin, 0, fields)):
            samples.append(range(begin, file.size))
            is_regular = is_regular and end > file.size and not is_unknown
            place = file.size
        else:
            samples.append(range(begin, min(end, file.size)))
            place, _ = _next_chunk(file, end, size, fields)
        is_unknown = is_unknown or size <= fields.skipped
        stated = None if stated is None or (is_unknown and samples[-1]) else stated + max(0, size - fields.skipped)
    if any(samples) and fields is W64 and samples[-1].stop != file.size:
        # libsndfile reads to the end of the file.
        is_regular = False
    return Data(chunks, samples, stated, num_missing, first, place, is_regular, note)


def _cut_off(num_missing: int, seconds: float | None) -> str:
    """Returns the note of a recording of which so many bytes are missing, by a header that states so many seconds."""
    # Where the seconds are known, they say so; there are programs that count the header.
    is_cut = num_missing > (0 if seconds is None else HEADER_BYTES)
    return FEWER_BYTES if is_cut else ""


def _find_chunked(file: Reader, start: int) -> tuple[list[Part], int]:
    magic = file.read(start, 12)
    fields = FORMATS[magic[:4]]
    data = _read_chunks(file, start, fields)
    describe = {AIFF: _describe_aiff, CAF: _describe_caf}.get(fields, _describe_wave)
    is_big = fields.size[0] == ">"
    rate, bytes_per_second = describe(data.chunks, is_big)
    seconds = None
    if data.stated is not None:
        seconds = data.stated / bytes_per_second if bytes_per_second else _packed_seconds(data.chunks, rate)
    note = _cut_off(data.num_missing, seconds) or data.note
    ends_file = data.end >= file.size or not begins_file(file, data.end)
    end = file.size if ends_file else data.end
    is_regular = data.is_regular
    if magic[:4] in (b"RF64", b"BW64"):
        is_regular = is_regular and int.from_bytes(data.chunks.get(b"ds64", b"")[8:16], "little") == data.stated
    if fields is CAF and data.samples and data.samples[-1].stop == file.size:
        is_regular = data.stated == len(data.samples[-1])
    if is_regular or not data.samples:
        return [Part((range(start, end),), rate, seconds, note=note)], end
    count = sum(map(len, data.samples))
    if fields is AIFF:
        header = _make_aiff(magic, data.chunks, count)
    elif fields is CAF:
        before = file.read(start, data.place - start)
        header = before + b"data" + struct.pack(">q", count + 4) + bytes(4)
    else:
        header = _make_wave(data.chunks.get(b"fmt ", b""), count, is_big)
    return [Part((header, *data.samples), rate, seconds, note=note)], end


def _describe_wave(chunks: dict[bytes, bytes], is_big: bool) -> tuple[float | None, float | None]:
    """Returns sampling rate and bytes in a second."""
    content, order = chunks.get(b"fmt ", b""), ">" if is_big else "<"
    if len(content) < 14:
        return None, None
    code, _, rate, bytes_per_second, align = struct.unpack_from(f"{order}HHIIH", content)
    if code in FIXED_SIZE and align:
        return rate, rate * align
    if code in FIXED_BLOCKS and align and len(content) >= 20:
        (block_samples,) = struct.unpack_from(f"{order}H", content, 18)
        return rate, rate * align / block_samples if block_samples else bytes_per_second
    return rate, bytes_per_second


def _describe_aiff(chunks: dict[bytes, bytes], is_big: bool) -> tuple[float | None, float | None]:
    content = chunks.get(b"COMM", b"")
    if len(content) < 18:
        return None, None
    channels, _, bits, exponent, mantissa = struct.unpack_from(">HIHHQ", content)
    # A number of 80 bits.
    rate = mantissa * 2.0 ** ((exponent & 0x7FFF) - 16383 - 63) if exponent & 0x7FFF < 16383 + 64 else 0.0
    kind = content[18:22].lower() or b"none"
    if kind in (b"ulaw", b"alaw"):
        # Some programs write the bits of the decoded samples.
        return rate, rate * channels
    is_fixed = kind in (b"none", b"twos", b"sowt", b"fl32", b"fl64", b"in24", b"in32", b"raw ", b"23ni", b"42ni")
    return rate, (rate * channels * -(-bits // 8) if is_fixed else None)


def _packed_seconds(chunks: dict[bytes, bytes], rate: float | None) -> float | None:
    """Returns the length by the number of frames of an AIFF with packed samples; `None` for other files."""
    content = chunks.get(b"COMM", b"")
    num_frames = int.from_bytes(content[2:6], "big")
    # Of this codec, packets of 64 frames are counted.
    return num_frames * (64 if content[18:22] == b"ima4" else 1) / rate if num_frames and rate else None


def _describe_caf(chunks: dict[bytes, bytes], is_big: bool) -> tuple[float | None, float | None]:
    content = chunks.get(b"desc", b"")
    if len(content) < 24:
        return None, None
    rate, _, _, packet_bytes, packet_frames = struct.unpack_from(">d4sIII", content)
    return rate, (rate * packet_bytes / packet_frames if packet_bytes and packet_frames else None)


def _make_wave(description: bytes, count: int, is_big: bool) -> bytes:
    """Returns the header of a WAV with `count` bytes of samples."""
    order = ">" if is_big else "<"
    padded = description + bytes(len(description) % 2)
    format_chunk = b"fmt " + struct.pack(f"{order}I", len(description)) + padded
    size = 4 + len(format_chunk) + 8 + count
    if size < (1 << 32) - 1:
        start = (b"RIFX" if is_big else b"RIFF") + struct.pack(f"{order}I", size) + b"WAVE"
        return start + format_chunk + b"data" + struct.pack(f"{order}I", count)
    sizes = b"ds64" + struct.pack("<IQQQI", 28, size + 36, count, 0, 0)
    unknown = b"\xff" * 4
    return b"RF64" + unknown + b"WAVE" + sizes + format_chunk + b"data" + unknown


def _make_aiff(magic: bytes, chunks: dict[bytes, bytes], count: int) -> bytes:
    """Returns the header of an AIFF with `count` bytes of samples, of which 4 GiB can be stated."""
    content = chunks.get(b"COMM", b"")
    count = min(count, (1 << 32) - 1024)
    rate, bytes_per_second = _describe_aiff(chunks, True)
    if rate and bytes_per_second:
        frames = round(count * rate / bytes_per_second)
        content = content[:2] + struct.pack(">I", frames) + content[6:]
    common = b"COMM" + struct.pack(">I", len(content)) + content + bytes(len(content) % 2)
    sound = b"SSND" + struct.pack(">III", count + 8, 0, 0)
    return b"FORM" + struct.pack(">I", 4 + len(common) + len(sound) + count) + magic[8:12] + common + sound


def _find_au(file: Reader, start: int) -> tuple[list[Part], int]:
    header = file.read(start, 24)
    if len(header) < 24:
        return [Part((range(start, file.size),), is_length_decoders=True)], file.size
    offset, size, encoding, rate, channels = struct.unpack_from(f"{AU_ORDER[header[:4]]}5I", header, 4)
    begin = min(start + offset, file.size)
    end = begin + size
    is_unknown = is_unknown_size(size, RIFF)
    end = end if not is_unknown and end < file.size and _is_end(file, end) else file.size
    bytes_per_second = rate * channels * AU_BYTES.get(encoding, 0)
    seconds = None if is_unknown or not bytes_per_second else size / bytes_per_second
    note = "" if is_unknown else _cut_off(begin + size - file.size, seconds)
    if offset < 24 or size in (0xFFFFFFFF, end - begin):
        return [Part((range(start, end),), rate, seconds, note=note)], end
    # The samples last until the end, whatever the size.
    note = MORE_BYTES if not is_unknown and begin + size < end else note
    header = file.read(start, 8) + b"\xff" * 4 + file.read(start + 12, offset - 12)
    return [Part((header, range(begin, end)), rate, seconds, note=note)], end
