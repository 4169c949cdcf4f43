# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Tar and Parquet shards, read in place."""

import io
import json
import os
import tarfile

import datasets
import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import soundfile

from transformers_beats import BeatsFeatureExtractor
from transformers_beats.audio.decoding import AudioError
from transformers_beats.training.data import clips as clips_module
from transformers_beats.training.data import manifest as manifest_module
from transformers_beats.training.data import shards as shards_module
from transformers_beats.training.data.clips import prepare_clips
from transformers_beats.training.data.crops import CropDataset, FbankDataset
from transformers_beats.training.data.folds import FoldArguments, read_folds
from transformers_beats.training.data.labels import LabelArguments, read_labels
from transformers_beats.training.data.shards import read_audio
from transformers_beats.training.data.sources import DataArguments, decode_row, load_audio_dataset
from transformers_beats.training.finetune import fingerprint
from transformers_beats.utils.errors import BeatsError


NUM_CLIPS = 12
# Types of the values of audio.
KINDS = {"bytes": "binary", "path": "string"}


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


def write_noise(num_samples: int) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, 0.1 * np.random.default_rng(1).standard_normal(num_samples), 16000, format="WAV")
    return file.getvalue()


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
    table = pyarrow.table({"sound": pyarrow.array(sounds, kind)} | values)
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


@pytest.mark.parametrize("group_size", [1, 2, 4])
@pytest.mark.parametrize("has_statistics", [True, False])
def test_files_that_parquet_names_are_read_again_when_they_change(
    group_size, has_statistics, encoded, tmp_path, monkeypatch
):
    files = [tmp_path / "a.wav", tmp_path / "b.wav"]
    for file, data in zip(files, encoded):
        file.write_bytes(data)
    sounds = [{"bytes": None, "path": str(files[0])}, {"bytes": encoded[2], "path": "c.wav"}]
    sounds += [{"bytes": None, "path": str(files[1])}, None]
    kind = pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])
    table = pyarrow.table({"sound": pyarrow.array(sounds, kind)})
    (tmp_path / "parquet").mkdir()
    path = tmp_path / "parquet" / "0.parquet"
    pyarrow.parquet.write_table(table, path, row_group_size=group_size, write_statistics=has_statistics)
    decoded = []
    open_row = clips_module.open_row

    def spy(row, *args):
        decoded.append(os.path.basename((row["audio"] or {}).get("path") or "none"))
        return open_row(row, *args)

    monkeypatch.setattr(clips_module, "open_row", spy)
    data = DataArguments(dataset=str(tmp_path / "parquet"), crop_seconds=1)

    def start():
        decoded.clear()
        dataset = load_audio_dataset(data)
        assert len(dataset) == 4
        clips = prepare_clips(dataset, data, 16000)
        extractor = BeatsFeatureExtractor()
        fbanks = FbankDataset(CropDataset(clips, data), extractor)
        for index, waveform in enumerate(decode_row(row, 16000) for row in clips.dataset):
            live = extractor([waveform], sampling_rate=16000, padding=False)["input_values"][0]
            np.testing.assert_allclose(fbanks[index]["input_values"].numpy(), live, atol=1e-4)
        return clips

    first = start()
    assert sorted({*decoded}) == ["a.wav", "b.wav", "c.wav", "none"]
    assert first.num_samples.tolist() == [16000] * 3
    second = start()
    assert {*decoded} == {"none"}
    assert (second.fingerprint, second.dataset._fingerprint) == (first.fingerprint, first.dataset._fingerprint)
    # Other audio of the same length.
    files[1].write_bytes(encoded[3])
    os.utime(files[1], ns=(1, 1))
    third = start()
    assert "b.wav" in decoded
    assert "a.wav" not in decoded
    assert third.num_samples.tolist() == [16000] * 3
    assert (third.digests == first.digests).tolist() == [True, True, False]
    assert third.fingerprint != first.fingerprint
    # And shorter.
    files[0].write_bytes(write_noise(8000))
    assert start().num_samples.tolist() == [8000, 16000, 16000]
    files[0].unlink()
    assert start().num_samples.tolist() == [16000, 16000]
    # What was away is back.
    files[0].write_bytes(encoded[0])
    assert start().fingerprint == third.fingerprint


def test_files_that_a_dataset_of_the_hub_names_have_their_states(encoded, tmp_path, monkeypatch):
    path = tmp_path / "a.wav"
    sounds = [{"bytes": None, "path": str(path)}, {"bytes": encoded[1], "path": "b.wav"}]
    features = datasets.Features({"sound": {name: datasets.Value(kind) for name, kind in KINDS.items()}})
    dataset = datasets.Dataset.from_dict({"sound": sounds}, features=features)
    monkeypatch.setattr("transformers_beats.training.data.sources.check_repository", lambda *args: None)
    monkeypatch.setattr(datasets, "load_dataset", lambda *args, **kwargs: dataset)
    fingerprints = []
    for data in (encoded[0], encoded[0], encoded[2]):
        if not path.exists() or path.read_bytes() != data:
            path.write_bytes(data)
            os.utime(path, ns=(1, len(fingerprints)))
        found = load("a/b")
        fingerprints.append(found._fingerprint)
        assert [row["file_state"]["size"] for row in found] == [len(encoded[0]), None]
    assert fingerprints[0] == fingerprints[1] != fingerprints[2]


@pytest.mark.parametrize("source", ["shard", "hub", "table"])
@pytest.mark.parametrize("empty", ["bytes", "path"])
def test_a_part_of_the_audio_may_be_none_in_all_rows(empty, source, encoded, tmp_path, monkeypatch):
    """Arrow has no type for it then."""
    files = [tmp_path / f"{number}.wav" for number in range(2)]
    for file, data in zip(files, encoded):
        file.write_bytes(data)
    sounds = [
        {"bytes": None, "path": str(file)} if empty == "bytes" else {"bytes": data, "path": None}
        for file, data in zip(files, encoded)
    ]
    table = pyarrow.Table.from_pylist([{"sound": sound} for sound in sounds])
    assert pyarrow.types.is_null(table.schema.field("sound").type.field(empty).type)
    path = tmp_path / "parquet" / "0.parquet"
    path.parent.mkdir()
    pyarrow.parquet.write_table(table, path)
    if source == "hub":
        monkeypatch.setattr("transformers_beats.training.data.sources.check_repository", lambda *args: None)
        monkeypatch.setattr(datasets, "load_dataset", lambda *args, **kwargs: datasets.Dataset(table))
    data = DataArguments(dataset={"shard": str(path.parent), "hub": "a/b", "table": str(path)}[source])
    dataset = load_audio_dataset(data)
    assert ("file_state" in dataset.column_names) == (empty == "bytes")
    clips = prepare_clips(dataset, data, 16000)
    assert clips.num_samples.tolist() == [16000] * 2
    assert list(clips.names) == (["0.wav", "1.wav"] if empty == "bytes" else ["row 1", "row 2"])


@pytest.mark.parametrize("has_path", [False, True])
@pytest.mark.parametrize("is_mixed", [False, True])
def test_bytes_are_read_of_row_groups_alone_that_may_name_a_file(is_mixed, has_path, encoded, tmp_path, monkeypatch):
    monkeypatch.setattr(shards_module, "SMALL_BYTES", 1000)
    sounds = [{"bytes": data, "path": f"{number}.wav"} for number, data in enumerate(encoded)]
    if is_mixed:
        sounds[5]["bytes"] = None
    if has_path:
        # Its bytes are there all the same.
        sounds[8]["path"] = str(tmp_path / "a.wav")
        (tmp_path / "a.wav").write_bytes(encoded[0])
        if is_mixed:
            sounds[5]["path"] = sounds[8]["path"]
    kind = pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])
    path = tmp_path / "parquet" / "0.parquet"
    path.parent.mkdir()
    table = pyarrow.table({"sound": pyarrow.array(sounds, kind)})
    pyarrow.parquet.write_table(table, path, row_group_size=4, write_statistics=False)
    read: list[int] = []
    iter_batches = pyarrow.parquet.ParquetFile.iter_batches

    def spy(self, *args, row_groups, **kwargs):
        read.extend(row_groups)
        return iter_batches(self, *args, row_groups=row_groups, **kwargs)

    monkeypatch.setattr(pyarrow.parquet.ParquetFile, "iter_batches", spy)
    rows = load(path.parent)
    assert read == ([[2], [1, 2]][is_mixed] if has_path else [])
    expected = list(encoded)
    if is_mixed:
        expected[5] = None
    assert [read_audio(row["audio"]) for row in rows] == expected
    # The clip of no bytes and no file is one that cannot be read.
    clips = prepare_clips(rows, DataArguments(dataset=str(path.parent)), 16000)
    assert clips.num_skipped == (is_mixed and not has_path)


def test_states_of_files_are_found_by_one_process(encoded, tmp_path, monkeypatch):
    (tmp_path / "a.wav").write_bytes(encoded[0])
    (tmp_path / "parquet").mkdir()
    kind = pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])
    sounds = [{"bytes": None, "path": str(tmp_path / "a.wav")}, {"bytes": encoded[1], "path": "b.wav"}]
    table = pyarrow.table({"sound": pyarrow.array(sounds, kind)})
    pyarrow.parquet.write_table(table, tmp_path / "parquet" / "0.parquet")
    data = DataArguments(dataset=str(tmp_path / "parquet"))
    first = load_audio_dataset(data)
    clips = prepare_clips(first, data, 16000)
    (tmp_path / "a.wav").write_bytes(encoded[2])
    os.utime(tmp_path / "a.wav", ns=(1, 1))
    with monkeypatch.context() as patch:
        patch.setattr(manifest_module, "state_of", lambda path: pytest.fail("It is looked at again."))
        patch.setattr(clips_module, "open_row", lambda *args: pytest.fail("It is decoded again."))
        second = load_audio_dataset(data, refresh=False)
        assert second._fingerprint == first._fingerprint
        assert second["file_state"] == first["file_state"]
        assert prepare_clips(second, data, 16000, refresh=False).fingerprint == clips.fingerprint
    third = load_audio_dataset(data)
    assert third._fingerprint != first._fingerprint
    assert third["file_state"][0]["modified"] == 1
    assert load_audio_dataset(data, refresh=False)._fingerprint == third._fingerprint


def test_columns_of_parquet_files_are_those_of_the_first(encoded, tmp_path):
    write_parquet(tmp_path / "parquet" / "0.parquet", encoded[:2], label=pyarrow.array([0, 1], pyarrow.int64()))
    write_parquet(tmp_path / "parquet" / "1.parquet", encoded[2:4], label=pyarrow.array([2, 3], pyarrow.int8()))
    assert load(tmp_path / "parquet")["label"] == [0, 1, 2, 3]
    write_parquet(tmp_path / "parquet" / "1.parquet", encoded[2:4], label=["dog", "cat"])
    with pytest.raises(ValueError, match=r"1\.parquet: its columns differ from those of the first file"):
        load(tmp_path / "parquet")
    write_parquet(tmp_path / "parquet" / "1.parquet", encoded[2:4], sound=["a.wav", "b.wav"])
    with pytest.raises(ValueError, match=r"1\.parquet: its columns differ from .* 'sound' holds string, no audio\.$"):
        load(tmp_path / "parquet")
    write_parquet(tmp_path / "parquet" / "1.parquet", encoded[2:4], speaker=[1, 2])
    with pytest.raises(ValueError, match=r"1\.parquet: has columns that the first file lacks: speaker"):
        load(tmp_path / "parquet")


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("is_list", [False, True])
def test_parquet_files_with_other_classes_are_refused(is_list, streaming, encoded, tmp_path):
    def write(number: int, names: list[str]) -> None:
        label = datasets.ClassLabel(names=names)
        sound = {name: datasets.Value(kind) for name, kind in KINDS.items()}
        features = {"sound": sound, "label": datasets.List(label) if is_list else label}
        rows = {"sound": [{"bytes": encoded[number], "path": "a.wav"}], "label": [[names[0]] if is_list else names[0]]}
        path = tmp_path / "parquet" / f"{number}.parquet"
        path.parent.mkdir(exist_ok=True)
        datasets.Dataset.from_dict(rows, features=datasets.Features(features)).to_parquet(path)

    write(0, ["cat", "dog"])
    write(1, ["dog", "cat"])
    others = r"1\.parquet: the classes of its column 'label' are not those of .*0\.parquet \('dog', not 'cat'\)"
    with pytest.raises(BeatsError, match=others):
        load(tmp_path / "parquet", streaming=streaming)
    write(1, ["cat", "dog", "cow"])
    with pytest.raises(BeatsError, match=r"\(3 classes, not 2\): write both with the same list of classes\.$"):
        load(tmp_path / "parquet", streaming=streaming)
    write(1, ["cat", "dog"])
    assert len(list(load(tmp_path / "parquet", streaming=streaming))) == 2


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


def write_members(path, members: list[tuple[str, bytes]], mode: str = "w") -> None:
    """Writes a tar archive of files; of links where a name has `->` or `=>` (symbolic), and the target behind it."""
    path.parent.mkdir(exist_ok=True)
    with tarfile.open(path, mode) as archive:
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


@pytest.mark.parametrize("streaming", [False, True])
def test_what_is_no_archive_is_told_in_one_line(streaming, tmp_path, caplog):
    shard = tmp_path / "tar" / "0.tar"
    shard.parent.mkdir()
    shard.write_bytes(b"garbage" * 300)
    assert not list(load(shard.parent, streaming=streaming))
    (message,) = [line for line in caplog.messages if str(shard) in line]
    assert message.startswith(f"{shard}: the rest of this shard cannot be read: ")
    assert "\n" not in message


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


def test_a_file_beside_the_audio_of_its_name_may_be_anywhere_in_the_archive(encoded, tmp_path):
    members = [
        ("./0.5-dog.wav", encoded[0]),
        ("./1.wav", encoded[1]),
        ("./0.7-cat.wav", encoded[2]),
        ("./0.5-dog.cls", b"dog"),
        ("./2.json", b'{"label": "rain", "fold": 1}'),
        ("./0.7-cat.cls", b"cat"),
        ("./3.left.wav", encoded[3]),
        ("./2.wav", encoded[4]),
        ("./3.right.wav", encoded[5]),
        ("./3.json", b'{"fold": 2}'),
        ("./3.right.cls", b"sea"),
        ("./1.cls", b"cow"),
        ("./README.txt", b"Sounds."),
    ]
    write_members(tmp_path / "tar" / "0.tar", members)
    expected = {
        "0.5-dog.wav": {"label": "dog"},
        "1.wav": {"label": "cow"},
        "0.7-cat.wav": {"label": "cat"},
        "3.left.wav": {"fold": 2},
        "2.wav": {"label": "rain", "fold": 1},
        "3.right.wav": {"fold": 2, "label": "sea"},
    }
    for _ in range(2):
        rows = load(tmp_path / "tar")
        found = {os.path.basename(row["audio"]["path"]): json.loads(row["_metadata"]) for row in rows}
        assert found == expected
        assert [read_audio(row["audio"]) for row in rows] == encoded[:6]


@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_files_in_the_group_of_the_audio_are_of_this_group(mode, encoded, tmp_path):
    """As where archives are joined whose keys are the same."""
    members = [
        ("s.left.wav", encoded[0]),
        ("s.json", b'{"label": "x", "fold": 1}'),
        ("t.wav", encoded[1]),
        ("t.cls", b"t"),
        ("s.left.wav", encoded[2]),
        ("s.right.wav", encoded[3]),
        ("s.json", b'{"label": "y"}'),
        ("u.1.wav", encoded[4]),
        ("v.wav", encoded[5]),
        ("u.2.wav", encoded[6]),
        ("u.1.cls", b"one"),
        ("u.json", b'{"label": "two"}'),
    ]
    write_members(tmp_path / "tar" / "0.tar", members, mode)
    expected: list = [{"label": "x", "fold": 1}, {"label": "t"}, {"label": "y"}, {"label": "y"}]
    indexed = [row["_metadata"] and json.loads(row["_metadata"]) for row in load(tmp_path / "tar")]
    assert indexed == [*expected, {"label": "one"}, None, {"label": "two"}]
    streamed = [json.loads(row["_metadata"] or "{}") for row in load(tmp_path / "tar", streaming=True)]
    assert streamed[:4] == expected


def test_hidden_files_in_an_archive_are_no_clips(encoded, tmp_path):
    members = []
    for number, label in enumerate((b"dog", b"cat")):
        members += [(f"a/._{number}.wav", b"\0\5"), (f"a/{number}.wav", encoded[number])]
        members += [(f"a/._{number}.cls", b"\0\xff"), (f"a/{number}.cls", label)]
    members += [("__MACOSX/a/0.wav", b"\0\5"), (".trash/2.wav", encoded[2])]
    write_members(tmp_path / "tar" / "0.tar", members)
    assert load(tmp_path / "tar")["_metadata"] == ['{"label": "dog"}', '{"label": "cat"}']
    assert [row["audio"]["path"][-7:] for row in load(tmp_path / "tar", streaming=True)] == ["a/0.wav", "a/1.wav"]


def test_what_is_beside_the_audio_selects_rows_and_makes_folds(encoded, tmp_path):
    members = []
    for number in range(6):
        values = {"label": "dog" if number % 2 else "cat", "fold": number % 3, "quality": [None, "good"][number // 3]}
        members += [(f"{number}.wav", encoded[number]), (f"{number}.json", json.dumps(values).encode())]
    members.append(("6.wav", encoded[6]))
    write_members(tmp_path / "tar" / "0.tar", members)

    def numbers(**select) -> list[int]:
        rows = load(tmp_path / "tar", select=select)
        return [int(os.path.basename(row["audio"]["path"])[0]) for row in rows]

    assert numbers(fold=[0, "2"]) == [0, 2, 3, 5]
    assert numbers(fold=1, label="dog") == [1]
    assert numbers(quality=None) == [0, 1, 2, 6]
    with pytest.raises(BeatsError, match=r"column 'speaker', but there are audio, label, fold, quality\.$"):
        numbers(speaker=1)
    with pytest.raises(
        BeatsError, match=r"column 'fold', but there are audio: what is beside .* `streaming: false`\.$"
    ):
        load(tmp_path / "tar", select={"fold": 1}, streaming=True)

    data = DataArguments(dataset=str(tmp_path / "tar"), select={"label": ["cat", "dog"]})
    clips = prepare_clips(load_audio_dataset(data), data, 16000)
    labels = read_labels(clips.dataset, LabelArguments(), clips.names)
    folds = read_folds(clips.dataset, labels, FoldArguments(fold_column="fold"), 0)
    assert [(fold.name, fold.test.tolist()) for fold in folds] == [("0", [0, 3]), ("1", [1, 4]), ("2", [2, 5])]
    with pytest.raises(BeatsError, match=r"no column 'part' of folds, only audio, label, fold, quality\.$"):
        read_folds(clips.dataset, labels, FoldArguments(fold_column="part"), 0)
    before = fingerprint(clips, labels, "fold")
    assert before != fingerprint(clips, labels, "quality")
    assert before == fingerprint(clips, labels, "fold")


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
