# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Streams: which reader reads which clip, in which order, and where it goes on."""

import io
import json
import os
import tarfile
import threading
from itertools import islice, takewhile
from types import SimpleNamespace

import datasets
import numpy as np
import pytest
import soundfile
from tiny import write_shards

from transformers_beats.audio.decoding import AudioError
from transformers_beats.training.data import reading, streams
from transformers_beats.training.data.sources import DataArguments, load_parts
from transformers_beats.training.data.streams import Place, ShardReader, StreamingCrops, StreamLoader, share_shards
from transformers_beats.utils.errors import BeatsError, one_line


# Clips are told apart by their lengths.
LENGTHS = [3200 + 100 * number for number in range(23)]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


@pytest.fixture(autouse=True)
def pauses(monkeypatch) -> list[float]:
    """The pauses before further attempts, which are not made."""
    made: list[float] = []
    monkeypatch.setattr(reading, "time", SimpleNamespace(sleep=made.append))
    return made


def encode(length: int) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, 0.1 * np.sin(np.arange(length)), 16000, format="WAV")
    return file.getvalue()


def write_tar(path, lengths) -> None:
    with tarfile.open(path, "w") as archive:
        for length in lengths:
            data = encode(length)
            info = tarfile.TarInfo(f"{length}.wav")
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))


@pytest.fixture
def tars(tmp_path):
    """Five shards of unequal size."""
    folder = tmp_path / "tars"
    folder.mkdir()
    for number, part in enumerate((LENGTHS[:2], LENGTHS[2:9], LENGTHS[9:13], LENGTHS[13:22], LENGTHS[22:])):
        write_tar(folder / f"{number}.tar", part)
    return folder


def arguments(source, **values) -> DataArguments:
    return DataArguments(**{"dataset": str(source), "streaming": True, "shuffle_buffer_size": 4} | values)


def crops_of(source, num_processes=1, process_index=0, **values) -> StreamingCrops:
    data = arguments(source, **values)
    return StreamingCrops(load_parts(data), data, 16000, num_processes, process_index)


def epoch_of(item: dict) -> int:
    return item["position"]["places"][0][0]


def read_epochs(crops, reader, num_readers, num_epochs) -> list[list[int]]:
    """Lengths of the clips that a reader reads in each of the first epochs."""
    epochs: list[list[int]] = [[] for _ in range(num_epochs)]
    for item in takewhile(lambda item: epoch_of(item) < num_epochs, crops.read(reader, num_readers)):
        epochs[epoch_of(item)].append(len(item["waveform"]))
    return epochs


def lengths(items: list[dict]) -> list[int]:
    return [len(item["waveform"]) for item in items]


# Shares


@pytest.mark.parametrize("num_shards", [1, 2, 5, 12])
@pytest.mark.parametrize("num_readers", [1, 2, 3, 4, 12, 30])
def test_the_shares_of_all_readers_are_all_rows_once(num_shards, num_readers):
    orders = []
    for epoch in range(10):
        shares = [share_shards(num_shards, reader, num_readers, [0, epoch]) for reader in range(num_readers)]
        rows = [(shard, row) for share in shares for shard, first, step in share for row in range(60)[first::step]]
        assert sorted(rows) == [(shard, row) for shard in range(num_shards) for row in range(60)]
        # No reader has more than a shard, or a part of one, above another.
        counts = [sum(len(range(60)[first::step]) for _, first, step in share) for share in shares]
        assert max(counts) - min(counts) <= 60
        orders.append(shares)
    assert num_shards == num_readers == 1 or any(order != orders[0] for order in orders)


@pytest.mark.parametrize("num_readers", [1, 2, 4, 7])
def test_readers_read_every_clip_once_in_each_epoch(tars, num_readers):
    crops = crops_of(tars)
    readers = [read_epochs(crops, reader, num_readers, 3) for reader in range(num_readers)]
    orders = [[length for epochs in readers for length in epochs[epoch]] for epoch in range(3)]
    assert [sorted(order) for order in orders] == [LENGTHS] * 3
    assert LENGTHS not in orders
    assert orders[0] != orders[1] != orders[2]


@pytest.mark.parametrize("kind", ["folder", "parquet"])
def test_folders_and_parquet_are_shared_as_well(kind, tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    if kind == "folder":
        for length in LENGTHS:
            (source / f"{length}.wav").write_bytes(encode(length))
    else:
        for number in range(3):
            rows = [{"bytes": encode(length), "path": f"{length}.wav"} for length in LENGTHS[number::3]]
            features = {"bytes": datasets.Value("binary"), "path": datasets.Value("string")}
            dataset = datasets.Dataset.from_dict({"sound": rows}, features=datasets.Features({"sound": features}))
            dataset.to_parquet(source / f"{number}.parquet")
    crops = crops_of(source)
    for num_readers in (2, 4):
        found = [read_epochs(crops, reader, num_readers, 2) for reader in range(num_readers)]
        for epoch in range(2):
            assert sorted(length for epochs in found for length in epochs[epoch]) == LENGTHS


def test_two_processes_of_two_workers_read_every_clip_once(tars):
    epochs: list[list[int]] = [[], [], []]
    for process in range(2):
        loader = StreamLoader(crops_of(tars, 2, process), 1, lengths, num_workers=2)
        reached = [0, 0]
        for (length,) in loader:
            reader = (loader.num_batches - 1) % 2
            reached[reader] = loader.positions[reader]["places"][0][0]
            if reached[reader] < 2:
                epochs[reached[reader]].append(length)
            if min(reached) >= 2:
                break
    assert [sorted(epoch) for epoch in epochs] == [LENGTHS, LENGTHS, []]


def test_shards_that_are_too_few_are_warned_of(tars, caplog):
    StreamLoader(crops_of(tars, 3), 1, lengths, num_workers=2)
    assert "A stream of 5 shards has 6 readers" in caplog.text
    caplog.clear()
    StreamLoader(crops_of(tars, 2), 1, lengths, num_workers=2)
    assert not caplog.text


# Order


class Numbers:
    """A corpus of shards of some rows each, which remembers the shards that were opened."""

    def __init__(self, *sizes: int):
        self.shards, self.opened = sizes, []

    def rows(self, shard: int):
        self.opened.append(shard)
        return ({"audio": (shard, row)} for row in range(self.shards[shard]))


def read(reader: ShardReader, start: Place, count: int) -> list:
    given = ((entry, place) for entry, place in reader.read(start) if entry is not None)
    return list(islice(given, count))


@pytest.mark.parametrize("block_size", [1, 4, 7, 100])
@pytest.mark.parametrize(("reader", "num_readers"), [(0, 1), (1, 2), (2, 4)])
def test_a_reader_goes_on_from_any_place(block_size, reader, num_readers):
    corpus = Numbers(5, 3, 0, 8, 1)
    whole = read(ShardReader(corpus, reader, num_readers, [3], block_size), Place(), 60)
    for count in range(40):
        start = whole[count - 1][1] if count else Place()
        rest = read(ShardReader(corpus, reader, num_readers, [3], block_size), start, 60 - count)
        assert rest == whole[count:]


def test_shards_that_were_read_are_not_opened_again():
    corpus = Numbers(*[10] * 8)
    entries = read(ShardReader(corpus, 0, 1, [0], 10), Place(), 75)
    assert len(corpus.opened) == 8
    before, corpus.opened = list(corpus.opened), []
    read(ShardReader(corpus, 0, 1, [0], 10), entries[64][1], 1)
    # The block of the place, and one row of the next block for each row of it that was given out.
    assert corpus.opened == before[6:8]


def test_a_row_is_read_for_each_that_is_given_out():
    class Counted(Numbers):
        num_read = 0

        def rows(self, shard):
            for row in super().rows(shard):
                self.num_read += 1
                yield row

    corpus = Counted(1000)
    for count, _ in enumerate(islice(ShardReader(corpus, 0, 1, [0], 50).read(Place()), 500), start=1):
        assert corpus.num_read == 50 + count


def test_rows_are_shuffled_within_blocks_and_across_shards():
    corpus = Numbers(*[100] * 10)
    entries = [entry for entry, _ in read(ShardReader(corpus, 0, 1, [0], 50), Place(), 1000)]
    shards = [entry.shard for entry in entries]
    assert shards != sorted(shards)
    rows = [entry.row for entry in entries[:50]]
    assert rows != sorted(rows)
    assert len({(entry.shard, entry.row) for entry in entries}) == 1000


# Going on


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("num_crops", [None, 3])
def test_a_loader_goes_on_with_the_same_batches(tars, num_workers, num_crops):
    values = {"num_crops": num_crops, "crop_seconds": 0.1}
    loader = StreamLoader(crops_of(tars, **values), 2, waveforms, num_workers)
    batches, states = [], [json.dumps(loader.state())]
    for batch in islice(loader, 30):
        batches.append(batch)
        states.append(json.dumps(loader.state()))
    for count in (1, 2, 7, 25) if num_workers == 0 else (7,):
        again = StreamLoader(crops_of(tars, **values), 2, waveforms, num_workers, state=json.loads(states[count]))
        for batch, expected in zip(islice(again, 30 - count), batches[count:], strict=True):
            np.testing.assert_array_equal(batch, expected)
        assert json.dumps(again.state()) == states[30]


def waveforms(items: list[dict]) -> np.ndarray:
    return np.stack([item["waveform"] for item in items])


def test_what_was_seen_is_not_decoded_again(tars, monkeypatch):
    loader = StreamLoader(crops_of(tars), 2, lengths)
    batches = list(islice(loader, 9))
    opened = []
    open_row = streams.open_row
    monkeypatch.setattr(streams, "open_row", lambda row, rate: opened.append(row) or open_row(row, rate))
    state = StreamLoader(crops_of(tars), 2, lengths)
    list(islice(state, 8))
    num_before = len(opened)
    again = StreamLoader(crops_of(tars), 2, lengths, state=state.state())
    assert next(iter(again)) == batches[8]
    assert len(opened) - num_before == 2


def test_crops_of_a_clip_differ_between_epochs_and_not_between_readings(tmp_path):
    generator = np.random.default_rng(0)
    (tmp_path / "sounds").mkdir()
    soundfile.write(tmp_path / "sounds" / "a.wav", 0.1 * generator.standard_normal(16000), 16000, subtype="FLOAT")

    def read_crops():
        return [item["waveform"] for item in islice(crops_of(tmp_path / "sounds", crop_seconds=0.25), 3)]

    first, again = read_crops(), read_crops()
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first[0], first[1])
    assert not np.array_equal(first[1], first[2])


@pytest.mark.parametrize("kind", ["folder", "tar", "parquet"])
def test_a_stream_of_other_files_has_another_digest(kind, tmp_path):
    source = tmp_path / "source"
    source.mkdir()

    def write(length):
        if kind == "folder":
            (source / "a.wav").write_bytes(encode(length))
        elif kind == "tar":
            write_tar(source / "0.tar", [length])
        else:
            features = datasets.Features(
                {"audio": {"bytes": datasets.Value("binary"), "path": datasets.Value("string")}}
            )
            row = {"bytes": encode(length), "path": "a.wav"}
            datasets.Dataset.from_dict({"audio": [row]}, features=features).to_parquet(source / "0.parquet")

    write(4000)
    first = crops_of(source).description
    assert first.startswith("1 shards, digest ")
    assert crops_of(source).description == first
    write(8000)
    assert crops_of(source).description != first


def test_a_stream_without_a_clip_that_can_be_used_is_an_error(tmp_path):
    folder = tmp_path / "sounds"
    folder.mkdir()
    for name in "ab":
        (folder / f"{name}.wav").write_bytes(encode(800))
    crops = crops_of(folder)
    with pytest.raises(ValueError, match="sounds: none of 2 clips can be used in a reader's share of the stream"):
        next(iter(crops))
    assert crops.num_skipped == 2 * streams.MAX_USELESS_EPOCHS
    write_tar(tmp_path / "empty.tar", [])
    with pytest.raises(ValueError, match="there is no clip in a reader's share"):
        next(iter(crops_of(tmp_path / "empty.tar")))


# Shares of datasets


def test_streams_have_the_shares_that_were_asked_for(tmp_path):
    for name, part in (("a", LENGTHS[:4]), ("b", LENGTHS[4:])):
        (tmp_path / name).mkdir()
        write_tar(tmp_path / name / "0.tar", part)
    values = {"dataset": [str(tmp_path / "a"), str(tmp_path / "b")], "dataset_weights": [3, 1]}
    crops = crops_of("", **values)
    items = list(islice(crops, 400))
    first = [len(item["waveform"]) in LENGTHS[:4] for item in items]
    # Three quarters, with a standard deviation of 9.
    assert 270 <= sum(first) <= 330
    # Each dataset has epochs of its own, in which each clip is read once.
    for number, (part, is_first) in enumerate(((LENGTHS[:4], True), (LENGTHS[4:], False))):
        read_lengths = [len(item["waveform"]) for item, found in zip(items, first) if found == is_first]
        for start in range(0, len(read_lengths) - len(part) + 1, len(part)):
            assert sorted(read_lengths[start : start + len(part)]) == part
        assert items[-1]["position"]["places"][number][0] > 0
    state = json.loads(json.dumps(items[199]["position"]))
    again = [item["waveform"] for item in islice(crops.read(0, 1, state), 200)]
    for waveform, item in zip(again, items[200:], strict=True):
        np.testing.assert_array_equal(waveform, item["waveform"])


# Clips that are lost


def write_kind(kind, source, contents: dict[str, bytes]) -> None:
    """Writes a folder of files, or of three shards, of these contents by name."""
    if kind != "folder":
        write_shards(source, contents, kind, 3, "sound")
        return
    source.mkdir()
    for name, data in contents.items():
        (source / name).write_bytes(data)


KINDS = ["folder", "tar", "parquet"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_lost_clip_is_named_and_counted(kind, tmp_path, caplog, pauses):
    contents = {f"{length}.wav": encode(length) for length in LENGTHS}
    write_kind(kind, tmp_path / "source", contents | {"a.wav": b"RIFF nonsense", "b.wav": b"RIFF nonsense"})
    crops = crops_of(tmp_path / "source")
    (found,) = read_epochs(crops, 0, 1, 1)
    assert sorted(found) == LENGTHS
    messages = [record.getMessage() for record in caplog.records if "is lost" in record.getMessage()][:2]
    assert [message.split(":")[0] for message in messages] == [
        "A clip of the stream is lost, 1 so far",
        "A clip of the stream is lost, 2 so far",
    ]
    assert all(sum(f"{name}.wav: holds text" in message for message in messages) == 1 for name in "ab")
    # What can be read and not decoded stays so.
    assert pauses == []


@pytest.mark.parametrize("kind", KINDS)
def test_a_stream_that_loses_too_many_clips_ends_in_one_line(kind, tmp_path, caplog):
    contents = {f"{number}.wav": b"RIFF nonsense" if number % 5 == 0 else encode(3200) for number in range(300)}
    write_kind(kind, tmp_path / "source", contents)
    crops = crops_of(tmp_path / "source", shuffle_buffer_size=100)
    message = (
        r"^24 clips that a reader of the stream asked for cannot be read, more than `max_lost_share` \(0\.05\) of "
        r"200 can be by chance: .*\d+\.wav: holds text.* A larger `max_lost_share` leaves more of them out\.$"
    )
    with pytest.raises(BeatsError, match=message):
        read_epochs(crops, 0, 1, 1)
    assert crops.losses.num_lost == 24
    assert caplog.text.count("A clip of the stream is lost") == 23
    # Workers count their own.
    loader = StreamLoader(crops_of(tmp_path / "source", shuffle_buffer_size=100), 1, lengths, num_workers=2)
    with pytest.raises(BeatsError) as caught:
        list(islice(loader, 1000))
    assert one_line(caught.value).startswith("24 clips that a reader of the stream asked for cannot be read")
    (found,) = read_epochs(crops_of(tmp_path / "source", shuffle_buffer_size=100, max_lost_share=0.5), 0, 1, 1)
    assert len(found) == 240


def test_the_share_of_a_short_stream_is_that_of_all_its_epochs(tmp_path):
    contents = {f"{number}.wav": b"RIFF nonsense" if number % 10 == 0 else encode(3200) for number in range(30)}
    write_kind("tar", tmp_path / "source", contents)
    crops = crops_of(tmp_path / "source", shuffle_buffer_size=30)
    with pytest.raises(BeatsError, match=r"^3\d clips .* more than `max_lost_share` \(0\.05\) of 3\d\d can be "):
        read_epochs(crops, 0, 1, 20)
    assert len(read_epochs(crops_of(tmp_path / "source", max_lost_share=0.2), 0, 1, 20)) == 20


def test_chance_ends_none_of_many_readers(caplog):
    generator = np.random.default_rng(0)
    arguments = DataArguments(dataset="", read_attempts=1, max_lost_share=0.05)

    def fail():
        raise AudioError("is damaged")

    for _ in range(64):
        losses = reading.Losses(arguments, "clips", "A clip is lost")
        for is_damaged in generator.random(3000) < 0.045:
            losses.num_asked += 1
            # The others are not read, which takes a thread each.
            losses.num_in_a_row = 0
            if is_damaged:
                losses.read(fail, lambda: "clip")
        assert losses.num_lost > 90


def test_a_row_is_reached_again_however_long_the_rows_before_it_took(tmp_path, monkeypatch, pauses):
    write_kind("tar", tmp_path / "source", {f"{length}.wav": encode(length) for length in LENGTHS})
    failed = []

    class Slow:
        num_shards = 1

        def shard(self, num_shards, index):
            return self

        def iter(self, batch_size):
            for number in range(12):
                threading.Event().wait(0.1)
                if number == 10 and not failed:
                    failed.append(number)
                    raise OSError(5, "reset by peer")
                yield {"audio": [number]}

    corpus = streams.Corpus([], arguments(tmp_path / "source", read_seconds=0.5))
    corpus.shards = [(Slow(), 0)]
    assert [row["audio"] for row in corpus.rows(0)] == list(range(12))
    failed.clear()
    corpus.arguments.read_attempts = 1
    with pytest.raises(BeatsError, match=r"Row 11 of shard 1 of 1 cannot be read: .*reset by peer"):
        list(corpus.rows(0))


def test_no_share_may_be_lost(tmp_path):
    write_kind("parquet", tmp_path / "source", {"a.wav": encode(3200), "b.wav": b"RIFF nonsense"})
    with pytest.raises(BeatsError, match=r"^1 clips that a reader of the stream asked for cannot be read: b\.wav: "):
        read_epochs(crops_of(tmp_path / "source", max_lost_share=0.0), 0, 1, 1)


def test_ten_lost_clips_in_a_row_end_a_stream(tmp_path):
    write_kind("tar", tmp_path / "source", {f"{number}.wav": b"RIFF nonsense" for number in range(30)})
    with pytest.raises(BeatsError, match=r"^10 clips .* cannot be read, the last 10 in a row: .*holds text.*'\.$"):
        next(iter(crops_of(tmp_path / "source", max_lost_share=1.0)))


@pytest.mark.parametrize("kind", KINDS)
def test_short_clips_are_no_loss(kind, tmp_path, caplog):
    contents = {f"{number}.wav": encode(3200 if number % 10 == 0 else 800) for number in range(300)}
    write_kind(kind, tmp_path / "source", contents)
    crops = crops_of(tmp_path / "source", shuffle_buffer_size=10, max_lost_share=0.0)
    found = read_epochs(crops, 0, 1, 2)
    assert [len(epoch) for epoch in found] == [30, 30]
    assert crops.losses.num_lost == 0
    assert crops.num_skipped >= 2 * 270
    assert "1.wav: lasts 0.050 s, less than `min_seconds` (0.2)." in caplog.text


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("error", [OSError(5, "Input/output error"), AudioError("the storage is away")])
def test_a_failure_that_passes_costs_no_clip(kind, error, tmp_path, monkeypatch):
    write_kind(kind, tmp_path / "source", {f"{length}.wav": encode(length) for length in LENGTHS})
    failed = []
    open_row = streams.open_row

    def fail_twice(row, sampling_rate):
        if row["audio"]["path"].endswith("3400.wav") and len(failed) < 2:
            failed.append(row)
            raise error
        return open_row(row, sampling_rate)

    monkeypatch.setattr(streams, "open_row", fail_twice)
    crops = crops_of(tmp_path / "source")
    (found,) = read_epochs(crops, 0, 1, 1)
    assert sorted(found) == LENGTHS
    assert (len(failed), crops.num_skipped) == (2, 0)
    failed.clear()
    crops = crops_of(tmp_path / "source", read_attempts=2)
    assert len(read_epochs(crops, 0, 1, 1)[0]) == len(LENGTHS) - 1


def test_audio_that_cannot_be_read_is_tried_again_after_pauses(tmp_path, monkeypatch, pauses, caplog):
    write_kind("folder", tmp_path / "source", {f"{length}.wav": encode(length) for length in LENGTHS})
    crops = crops_of(tmp_path / "source", read_attempts=4, shuffle_buffer_size=1)
    (tmp_path / "source" / "3400.wav").unlink()
    (found,) = read_epochs(crops, 0, 1, 1)
    assert sorted(found) == [length for length in LENGTHS if length != 3400]
    assert pauses[:3] == [0.5, 2.0, 8.0]
    assert "A clip of the stream is lost, 1 so far: " in caplog.text
    assert "3400.wav: no such file." in caplog.text
    # A pipe in its place is not opened, and the file is used again when it is back.
    os.mkfifo(tmp_path / "source" / "3400.wav")
    assert sorted(read_epochs(crops, 0, 1, 1)[0]) == sorted(found)
    assert "3400.wav: is no file that can be read again" in caplog.text
    (tmp_path / "source" / "3400.wav").unlink()
    (tmp_path / "source" / "3400.wav").write_bytes(encode(3400))
    assert sorted(read_epochs(crops, 0, 1, 1)[0]) == LENGTHS


def test_a_clip_that_cannot_be_read_in_time_is_lost(tars, monkeypatch, caplog):
    crops = crops_of(tars, read_seconds=0.3, read_attempts=2)
    open_row, blocked = streams.open_row, []

    def block(row, sampling_rate):
        if row["audio"]["path"].endswith("/3400.wav"):
            blocked.append(row)
            threading.Event().wait(30)
        return open_row(row, sampling_rate)

    monkeypatch.setattr(streams, "open_row", block)
    (found,) = read_epochs(crops, 0, 1, 1)
    assert sorted(found) == [length for length in LENGTHS if length != 3400]
    assert crops.num_skipped == 1
    assert len(blocked) == 2
    assert "3400.wav: took longer than 0.3 s (`read_seconds`)" in caplog.text


class FailingShard:
    """Shard of five rows, of which reading one fails a number of times."""

    num_shards = 5

    def __init__(self, num_failures: int):
        self.num_failures, self.num_opened = num_failures, 0

    def shard(self, num_shards, index):
        return self

    def iter(self, batch_size):
        self.num_opened += 1
        for length in LENGTHS[:5]:
            if length == LENGTHS[2] and self.num_failures:
                self.num_failures -= 1
                raise OSError(5, "Input/output error")
            yield {"audio": [{"path": f"{length}.wav", "bytes": encode(length)}]}


def test_a_shard_that_fails_is_opened_again(tars, pauses):
    crops, shard = crops_of(tars), FailingShard(2)
    crops.corpora[0].shards = [(shard, 3)]
    assert sorted(read_epochs(crops, 0, 1, 1)[0]) == LENGTHS[:5]
    # And by the second epoch.
    assert shard.num_opened in (3, 4)
    assert pauses == [0.5, 2.0]
    crops.corpora[0].shards = [(FailingShard(3), 3)]
    message = r"^Row 3 of shard 4 of 5 cannot be read: \[Errno 5\] Input/output error: give the command again, which"
    with pytest.raises(BeatsError, match=message):
        read_epochs(crops, 0, 1, 1)


def test_a_shard_that_does_not_answer_ends_the_stream(tars, monkeypatch):
    crops = crops_of(tars, read_seconds=0.3)

    class Shard:
        num_shards = 5

        def shard(self, num_shards, index):
            return self

        def iter(self, batch_size):
            yield {"audio": [{"path": "a.wav", "bytes": encode(3200)}]}
            threading.Event().wait(30)

    crops.corpora[0].shards = [(Shard(), 3)]
    with pytest.raises(BeatsError, match=r"Row 2 of shard 4 of 5 took longer than 0\.3 s \(`read_seconds`\)"):
        list(islice(crops.read(0, 1), 9))


def test_a_row_without_audio_is_skipped(tmp_path):
    (tmp_path / "rows").mkdir()
    audio = [{"bytes": encode(3200), "path": "a.wav"}, None, {"bytes": encode(3300), "path": "b.wav"}]
    features = datasets.Features({"audio": {"bytes": datasets.Value("binary"), "path": datasets.Value("string")}})
    datasets.Dataset.from_dict({"audio": audio}, features=features).to_parquet(tmp_path / "rows" / "0.parquet")
    crops = crops_of(tmp_path / "rows")
    assert sorted(read_epochs(crops, 0, 1, 1)[0]) == [3200, 3300]
    assert crops.num_skipped == 1
