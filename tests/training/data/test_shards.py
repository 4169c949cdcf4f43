# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Tar and Parquet shards, read in place."""

import io
import os
import tarfile

import datasets
import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import soundfile

from transformers_beats.audio.decoding import AudioError
from transformers_beats.training.data import clips as clips_module
from transformers_beats.training.data import manifest as manifest_module
from transformers_beats.training.data import shards as shards_module
from transformers_beats.training.data.clips import prepare_clips
from transformers_beats.training.data.shards import read_audio
from transformers_beats.training.data.sources import DataArguments, decode_row, load_audio_dataset
from transformers_beats.utils.errors import BeatsError


NUM_CLIPS = 12


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    directory = tmp_path / "cache"
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", directory)
    shards_module._read_row_group.cache_clear()
    return directory


@pytest.fixture
def encoded() -> list[bytes]:
    """Twelve clips of a second of noise."""
    generator = np.random.default_rng(0)
    clips = []
    for _ in range(NUM_CLIPS):
        file = io.BytesIO()
        soundfile.write(file, 0.1 * generator.standard_normal(16000), 16000, format="WAV", subtype="FLOAT")
        clips.append(file.getvalue())
    return clips


def write_tar(path, clips: list[bytes], first: int = 0, mode: str = "w") -> None:
    path.parent.mkdir(exist_ok=True)
    with tarfile.open(path, mode) as archive:
        for number, data in enumerate(clips, start=first):
            for suffix, content in ((".wav", data), (".cls", b"%d" % (number % 3))):
                info = tarfile.TarInfo(f"dog/{number:02d}{suffix}")
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))


def write_parquet(path, clips: list[bytes | None], first: int = 0, **columns) -> None:
    path.parent.mkdir(exist_ok=True)
    sounds = [{"bytes": data, "path": f"{number:02d}.wav"} for number, data in enumerate(clips, start=first)]
    kind = pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])
    values = {"label": [number % 3 for number in range(first, first + len(clips))]} | columns
    table = pyarrow.table({"sound": pyarrow.array(sounds, kind), **values})
    pyarrow.parquet.write_table(table, path, row_group_size=5)


@pytest.fixture(params=["tar", "parquet"])
def folder(request, encoded, tmp_path):
    folder = tmp_path / request.param
    write = write_tar if request.param == "tar" else write_parquet
    for number in range(2):
        write(folder / f"{number}.{request.param}", encoded[number * 6 : number * 6 + 6], number * 6)
    return folder


def load(path, **values):
    return load_audio_dataset(DataArguments(dataset=str(path), **values))


def size_of(directory) -> int:
    return sum(path.stat().st_size for path in directory.rglob("*") if path.is_file())


def test_rows_are_read_in_place_and_not_copied(folder, encoded, cache):
    dataset = load(folder)
    assert [read_audio(row["audio"]) for row in dataset] == encoded
    # In any order.
    assert [read_audio(dataset[index]["audio"]) for index in (11, 0, 7, 3)] == [encoded[i] for i in (11, 0, 7, 3)]
    for index in (0, 8):
        expected, _ = soundfile.read(io.BytesIO(encoded[index]), dtype="float32")
        np.testing.assert_array_equal(decode_row(dataset[index], 16000), expected)
        np.testing.assert_array_equal(decode_row(dataset[index], 16000, 500, 700), expected[500:1200])
    clips = prepare_clips(dataset, DataArguments(dataset=str(folder)), 16000)
    assert clips.num_samples.tolist() == [16000] * NUM_CLIPS
    assert len(set(clips.digests.tolist())) == NUM_CLIPS
    assert size_of(cache) < 0.05 * size_of(folder)


def test_other_columns_are_there(folder):
    dataset = load(folder)
    if folder.name == "parquet":
        assert dataset["label"] == [number % 3 for number in range(NUM_CLIPS)]
        assert dataset[7]["audio"]["path"] == "07.wav"
        assert load(folder, select={"label": 1})["label"] == [1] * 4
    else:
        assert dataset["_metadata"] == [f'{{"label": "{number % 3}"}}' for number in range(NUM_CLIPS)]
        assert dataset[7]["audio"]["path"] == f"{folder}/1.tar/dog/07.wav"


def test_a_shard_that_has_changed_is_indexed_again_and_no_other(folder, encoded, monkeypatch):
    name = "index_tar" if folder.name == "tar" else "index_parquet"
    index, indexed = getattr(shards_module, name), []

    def count(shard, *args, **kwargs):
        indexed.append(shard.name)
        return index(shard, *args, **kwargs)

    monkeypatch.setattr(shards_module, name, count)
    load(folder)
    assert sorted(indexed) == [f"{number}.{folder.name}" for number in range(2)]
    load(folder)
    assert len(indexed) == 2
    shard = folder / f"1.{folder.name}"
    write = write_tar if folder.name == "tar" else write_parquet
    write(shard, encoded[3:0:-1])
    dataset = load(folder)
    assert indexed[2:] == [shard.name]
    assert [read_audio(row["audio"]) for row in dataset] == encoded[:6] + encoded[3:0:-1]


def test_a_shard_that_is_gone_or_cut_is_named(folder, encoded):
    dataset = load(folder)
    shard = folder / f"1.{folder.name}"
    shard.write_bytes(shard.read_bytes()[:20_000])
    with pytest.raises(AudioError, match=rf"11\.wav: cannot be read from {shard}: "):
        decode_row(dataset[11], 16000)
    shard.unlink()
    with pytest.raises(AudioError, match=rf"11\.wav: cannot be read from {shard}: .*No such file"):
        decode_row(dataset[11], 16000)
    assert read_audio(dataset[5]["audio"]) == encoded[5]


def test_a_compressed_archive_has_the_bytes_in_its_rows(encoded, tmp_path):
    write_tar(tmp_path / "tar" / "0.tar", encoded, mode="w:gz")
    dataset = load(tmp_path / "tar")
    assert [row["audio"]["bytes"] for row in dataset] == encoded


@pytest.mark.parametrize("is_cut", [False, True])
def test_a_compressed_archive_is_indexed_in_batches(encoded, tmp_path, monkeypatch, caplog, is_cut):
    shard = tmp_path / "tar" / "0.tar"
    write_tar(shard, encoded, mode="w:gz")
    if is_cut:
        shard.write_bytes(shard.read_bytes()[:-2000])
    monkeypatch.setattr(shards_module, "BATCH_BYTES", 2 * len(encoded[0]))
    sizes = []
    batch_rows = shards_module._batch_rows

    def count(rows):
        for batch in batch_rows(rows):
            sizes.append(len(batch))
            yield batch

    monkeypatch.setattr(shards_module, "_batch_rows", count)
    found = [row["audio"]["bytes"] for row in load(tmp_path / "tar")]
    assert found == encoded[: len(found)]
    assert sum(sizes) == len(found)
    assert max(sizes) <= 3 < len(found)
    assert ("the rest of this shard cannot be read" in caplog.text) == is_cut
    assert (len(found) < len(encoded)) == is_cut
    # Of the index, too.
    caplog.clear()
    assert len(load(tmp_path / "tar")) == len(found)
    assert ("the rest of this shard cannot be read" in caplog.text) == is_cut
    assert sum(sizes) == len(found)


def test_damage_is_not_forgotten_by_an_interruption(encoded, tmp_path, monkeypatch, caplog):
    shard = tmp_path / "tar" / "0.tar"
    write_tar(shard, encoded)
    shard.write_bytes(shard.read_bytes()[:200_000])
    write_batches = shards_module.write_batches

    def interrupt(batches, schema, path):
        if b"warnings" in (schema.metadata or {}):
            raise KeyboardInterrupt
        write_batches(batches, schema, path)

    with monkeypatch.context() as patch:
        patch.setattr(shards_module, "write_batches", interrupt)
        with pytest.raises(KeyboardInterrupt):
            load(tmp_path / "tar")
    caplog.clear()
    assert 0 < len(load(tmp_path / "tar")) < NUM_CLIPS
    assert "the rest of this shard cannot be read" in caplog.text


def test_a_row_of_parquet_may_name_a_file(encoded, tmp_path):
    (tmp_path / "a.wav").write_bytes(encoded[0])
    write_parquet(tmp_path / "parquet" / "0.parquet", [encoded[1], None])
    dataset = load(tmp_path / "parquet")
    assert read_audio(dataset[0]["audio"]) == encoded[1]
    assert read_audio(dataset[1]["audio"]) is None
    with pytest.raises(AudioError, match=r"01\.wav"):
        decode_row(dataset[1], 16000)


def test_columns_of_parquet_files_are_those_of_the_first(encoded, tmp_path):
    write_parquet(tmp_path / "parquet" / "0.parquet", encoded[:2], label=pyarrow.array([0, 1], pyarrow.int64()))
    write_parquet(tmp_path / "parquet" / "1.parquet", encoded[2:4], label=pyarrow.array([2, 3], pyarrow.int8()))
    assert load(tmp_path / "parquet")["label"] == [0, 1, 2, 3]
    write_parquet(tmp_path / "parquet" / "1.parquet", encoded[2:4], label=["dog", "cat"])
    with pytest.raises(ValueError, match=r"1\.parquet: its columns differ from those of the first file"):
        load(tmp_path / "parquet")
    write_parquet(tmp_path / "parquet" / "1.parquet", encoded[2:4], speaker=[1, 2])
    with pytest.raises(ValueError, match=r"1\.parquet: has columns that the first file lacks: speaker"):
        load(tmp_path / "parquet")


def test_shards_are_joined_with_a_folder(folder, encoded, tmp_path):
    (tmp_path / "sounds").mkdir()
    (tmp_path / "sounds" / "a.wav").write_bytes(encoded[3])
    dataset = load_audio_dataset(DataArguments(dataset=[str(tmp_path / "sounds"), str(folder)]))
    assert dataset["_corpus"] == [0] + [1] * NUM_CLIPS
    waveforms = [decode_row(row, 16000) for row in dataset]
    np.testing.assert_array_equal(waveforms[0], waveforms[4])


def test_two_row_groups_are_kept(encoded, tmp_path):
    write_parquet(tmp_path / "parquet" / "0.parquet", encoded)
    dataset = load(tmp_path / "parquet")
    for index in (0, 1, 4, 5, 9, 0):
        read_audio(dataset[index]["audio"])
    info = shards_module._read_row_group.cache_info()
    assert (info.hits, info.misses) == (4, 2)
    # One that was written meanwhile is read again when it was indexed again.
    path = tmp_path / "parquet" / "0.parquet"
    write_parquet(path, encoded[::-1])
    os.utime(path, ns=(1, path.stat().st_mtime_ns + 1))
    assert read_audio(load(path.parent)[0]["audio"]) == encoded[-1]


def write_members(path, members: list[tuple[str, bytes]]) -> None:
    """Writes a tar archive of files; of links where a name has `->` or `=>` (symbolic), and the target behind it."""
    path.parent.mkdir(exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, content in members:
            info = tarfile.TarInfo(name)
            for arrow, kind in (("->", tarfile.LNKTYPE), ("=>", tarfile.SYMTYPE)):
                if arrow in name:
                    info.name, info.linkname = name.split(arrow)
                    info.type = kind
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))


def test_shards_of_a_relative_path_are_read_from_another_directory(folder, encoded, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    load(folder.name)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    dataset = load(folder)
    assert [read_audio(row["audio"]) for row in dataset] == encoded


def test_a_shard_that_changes_while_it_is_read_is_named(folder):
    dataset = load(folder)
    shard = folder / f"0.{folder.name}"
    os.utime(shard, ns=(0, 1))
    with pytest.raises(AudioError, match="has changed since it was indexed: start again"):
        read_audio(dataset[0]["audio"])
    assert read_audio(load(folder)[0]["audio"])


@pytest.mark.parametrize("damage", ["cut", "header", "appended"])
def test_damage_of_an_archive_is_told_in_every_run(damage, encoded, tmp_path, caplog):
    shard = tmp_path / "tar" / "0.tar"
    write_tar(shard, encoded[:3])
    data = shard.read_bytes()
    with tarfile.open(shard) as archive:
        third = archive.getmember("dog/02.wav")
    if damage == "cut":
        data = data[: third.offset_data + 100]
    elif damage == "header":
        data = data[: third.offset] + b"x" * 10 + data[third.offset + 10 :]
    else:
        data += data
    shard.write_bytes(data)
    for _ in range(2):
        caplog.clear()
        assert len(load(shard.parent)) == (3 if damage == "appended" else 2)
        assert [line for line in caplog.messages if f"{shard}: the rest of this shard cannot be read" in line]


@pytest.mark.parametrize("num_bytes", [0, 1000])
def test_an_index_that_is_damaged_is_made_again(num_bytes, folder, encoded, cache):
    load(folder)
    for index in cache.rglob("shard-*.arrow"):
        index.write_bytes(index.read_bytes()[:num_bytes])
    assert [read_audio(row["audio"]) for row in load(folder)] == encoded


def test_links_in_an_archive_are_the_files_that_they_lead_to(encoded, tmp_path):
    members = [
        ("a/0.wav", encoded[0]),
        ("b/1.wav->a/0.wav", b""),
        ("b/2.wav=>../a/0.wav", b""),
        ("b/3.wav=>4.wav", b""),
        ("b/4.wav", encoded[4]),
        ("b/5.wav=>/nowhere.wav", b""),
        ("b/6.wav->nowhere.wav", b""),
    ]
    write_members(tmp_path / "tar" / "0.tar", members)
    dataset = load(tmp_path / "tar")
    assert [row["audio"]["path"][-7:] for row in dataset] == ["a/0.wav", "b/1.wav", "b/2.wav", "b/3.wav", "b/4.wav"]
    assert [read_audio(row["audio"]) for row in dataset] == [encoded[index] for index in (0, 0, 0, 4, 4)]


def test_a_file_beside_the_audio_of_its_name_belongs_to_it_alone(encoded, tmp_path):
    members = [
        ("0.5-dog.wav", encoded[0]),
        ("0.5-dog.cls", b"dog"),
        ("0.7-cat.wav", encoded[1]),
        ("0.7-cat.cls", b"cat"),
        ("1.left.wav", encoded[2]),
        ("1.right.wav", encoded[3]),
        ("1.json", b'{"label": "rain"}'),
    ]
    write_members(tmp_path / "tar" / "0.tar", members)
    metadata = [f'{{"label": "{label}"}}' for label in ("dog", "cat", "rain", "rain")]
    assert load(tmp_path / "tar")["_metadata"] == metadata


def test_a_second_start_decodes_nothing(folder, monkeypatch):
    data = DataArguments(dataset=str(folder), select={"label": [0, 1]} if folder.name == "parquet" else None)

    def start():
        # Another start is another time of the files of the cache.
        for path in manifest_module.cache_directory().glob("shard-*"):
            os.utime(path, (time, time))
        return prepare_clips(load_audio_dataset(data), data, 16000)

    time = 1_000_000_000
    first = start()
    monkeypatch.setattr(clips_module, "open_row", lambda *args: pytest.fail("It is decoded again."))
    time += 60
    second = start()
    assert second.fingerprint == first.fingerprint
    assert second.dataset._fingerprint == first.dataset._fingerprint


def test_files_of_another_kind_are_not_left_out(folder, encoded, tmp_path):
    loose = folder / "dog" / "1.wav"
    loose.parent.mkdir()
    loose.write_bytes(encoded[0])
    with pytest.raises(BeatsError, match=rf"holds 0\.{folder.name} and 1\.wav, and files of one kind are read"):
        load(folder)
    loose.unlink()
    write = {"tar": write_parquet, "parquet": write_tar}[folder.name]
    other = folder / f"more.{'parquet' if folder.name == 'tar' else 'tar'}"
    write(other, encoded)
    with pytest.raises(BeatsError, match=r"holds \w+\.parquet and \w+\.tar, and files of one kind are read"):
        load(folder)
    # Those of another split are none of these.
    other.rename(other.with_stem("test"))
    for path in sorted(folder.glob("[01].*")):
        path.rename(path.with_stem(f"train-{path.stem}"))
    assert [len(load(folder, split=split)) for split in ("train", "test")] == [NUM_CLIPS, NUM_CLIPS]
