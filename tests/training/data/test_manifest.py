# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""The list of a folder's files, and what is known of each, across additions, changes and interruptions."""

import os
import pickle
import shutil
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path

import datasets
import numpy as np
import pandas
import pyarrow as pa
import pyarrow.parquet
import pytest
import soundfile
from typer.testing import CliRunner

from transformers_beats.audio.decoding import stream_audio
from transformers_beats.audio.event_rows import Recordings, Row
from transformers_beats.cli.app import app
from transformers_beats.training.classifiers import clip_reader
from transformers_beats.training.data import clips as clips_module
from transformers_beats.training.data.clips import Clips, Names, count_processes, prepare_clips
from transformers_beats.training.data.manifest import (
    cache_path,
    hash_columns,
    list_audio_files,
    search_audio,
)
from transformers_beats.training.data.sources import DataArguments, load_audio_dataset, name_clips, tell_apart
from transformers_beats.training.index_audio import index_audio
from transformers_beats.utils.cache import SECONDS_KEPT
from transformers_beats.utils.errors import BeatsError


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    return tmp_path / "cache"


def write(path: Path, num_samples: int = 4000, rate: int = 16000) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(num_samples)
    soundfile.write(path, 0.1 * generator.standard_normal(num_samples), rate)
    return path


@pytest.fixture
def folder(tmp_path):
    """Six clips of 4,000 to 4,005 samples in two folders."""
    for number in range(6):
        write(tmp_path / "sounds" / ("a-b" if number % 2 else "a") / f"{number}.wav", 4000 + number)
    return tmp_path / "sounds"


@pytest.fixture
def decoded(monkeypatch):
    """Names of the files that are decoded."""
    names = []
    monkeypatch.setattr(
        "transformers_beats.training.data.sources.stream_audio",
        lambda source, *args: names.append(Path(source).name) or stream_audio(source, *args),
    )
    return names


def prepare(path, refresh=True, **values) -> Clips:
    arguments = DataArguments(dataset=str(path), **values)
    return prepare_clips(load_audio_dataset(arguments, refresh=refresh), arguments, 16000, refresh)


def test_clips_are_in_the_order_of_the_parts_of_their_paths(folder):
    clips = prepare(folder)
    assert list(clips.names) == ["a/0.wav", "a/2.wav", "a/4.wav", "a-b/1.wav", "a-b/3.wav", "a-b/5.wav"]
    assert clips.num_samples.tolist() == [4000, 4002, 4004, 4001, 4003, 4005]
    assert clips.dataset["file_name"] == list(clips.names)
    assert clips.dataset[3]["audio"] == {"bytes": None, "path": str(folder / "a-b" / "1.wav")}


def test_only_what_is_new_or_has_changed_is_decoded(folder, decoded):
    first = prepare(folder)
    assert sorted(decoded) == [f"{number}.wav" for number in range(6)]
    decoded.clear()
    assert prepare(folder).fingerprint == first.fingerprint
    assert decoded == []
    write(folder / "a" / "new.wav", 5000)
    os.utime(folder / "a" / "0.wav", ns=(1, 1))
    (folder / "a" / "2.wav").unlink()
    (folder / "a" / "4.wav").rename(folder / "a" / "renamed.wav")
    second = prepare(folder)
    assert sorted(decoded) == ["0.wav", "new.wav", "renamed.wav"]
    lengths = dict(zip(second.names, second.num_samples.tolist()))
    expected = {"a/0.wav": 4000, "a/new.wav": 5000, "a/renamed.wav": 4004}
    assert lengths == expected | {f"a-b/{number}.wav": 4000 + number for number in (1, 3, 5)}
    assert second.fingerprint != first.fingerprint


def test_a_file_of_the_same_size_and_another_time_is_read_again(folder, decoded):
    first = prepare(folder)
    decoded.clear()
    path = folder / "a" / "0.wav"
    data = path.read_bytes()
    path.write_bytes(data[:-2] + b"\1\1")
    os.utime(path, ns=(5, 5))
    second = prepare(folder)
    assert decoded == ["0.wav"]
    assert (first.digests != second.digests).tolist() == [True] + 5 * [False]


@pytest.mark.parametrize("other", ["split", "table", "selection", "minimum"])
def test_a_file_is_decoded_once_however_it_is_read(other, folder, decoded):
    prepare(folder, split="all")
    decoded.clear()
    if other == "split":
        assert len(prepare(folder / "a").names) == 3
    elif other == "minimum":
        assert prepare(folder, min_seconds=4003 / 16000).num_samples.tolist() == [4004, 4003, 4005]
        assert len(prepare(folder).names) == 6
    else:
        (folder.parent / "table.csv").write_text("file_name,fold\nsounds/a/4.wav,1\nsounds/a-b/1.wav,2\n")
        values = {"select": {"fold": 2}} if other == "selection" else {}
        assert len(prepare(folder.parent / "table.csv", **values).names) == (1 if values else 2)
    assert decoded == []


def test_an_interrupted_check_goes_on_where_it_was(folder, monkeypatch, decoded):
    monkeypatch.setattr(clips_module, "PART_ROWS", 2)
    with monkeypatch.context() as patch:
        check = clips_module.check_clip

        def interrupt(row, rate):
            if row["audio"]["path"].endswith("3.wav"):
                raise KeyboardInterrupt
            return check(row, rate)

        patch.setattr(clips_module, "check_clip", interrupt)
        with pytest.raises(KeyboardInterrupt):
            prepare(folder)
    assert decoded == ["0.wav", "2.wav", "4.wav", "1.wav"]
    decoded.clear()
    assert len(prepare(folder).names) == 6
    assert decoded == ["3.wav", "5.wav"]


def test_several_processes_find_the_same(folder, tmp_path, monkeypatch, caplog):
    (folder / "a" / "broken.wav").write_bytes(b"RIFF nonsense")
    alone = prepare(folder)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "other")
    monkeypatch.setattr(clips_module, "MIN_ROWS_OF_PROCESS", 1)
    caplog.clear()
    together = prepare(folder, num_proc=2)
    assert "1 of 7 clips are skipped: " in caplog.text
    assert "broken.wav" in caplog.text
    assert together.fingerprint == alone.fingerprint
    assert together.digests.tolist() == alone.digests.tolist()


def test_a_process_is_started_for_many_clips_only(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0, 1, 2}, raising=False)
    assert [count_processes(rows, None) for rows in (1, 511, 512, 100_000)] == [1, 1, 2, 3]
    assert count_processes(100_000, 2) == 2


def test_a_process_that_ends_is_one_line(folder, monkeypatch):
    monkeypatch.setattr(clips_module, "MIN_ROWS_OF_PROCESS", 1)
    monkeypatch.setattr(clips_module, "check_clip", lambda row, rate: os._exit(9))
    with pytest.raises(BeatsError, match="A process that checks clips was ended"):
        prepare(folder, num_proc=2)


def is_running(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def process_id(_) -> int:
    return os.getpid()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="processes are looked up in /proc")
def test_processes_end_with_the_one_that_started_them(tmp_path):
    child = os.fork()
    if child == 0:
        with clips_module._processes(2) as call:
            ids = {*call(process_id, range(1000))}
            (tmp_path / "ids").write_text(" ".join(map(str, ids)))
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    ids = [int(word) for word in (tmp_path / "ids").read_text().split()]
    assert ids
    for _ in range(600):
        if not any(map(is_running, ids)):
            return
        time.sleep(0.1)
    pytest.fail(f"{ids} are left")


def test_other_processes_take_what_the_first_has_found(folder, decoded):
    first = prepare(folder)
    write(folder / "a" / "late.wav")
    decoded.clear()
    second = prepare(folder, refresh=False)
    assert (second.fingerprint, decoded) == (first.fingerprint, [])
    assert len(prepare(folder).names) == 7


def test_a_process_without_a_list_makes_one(folder):
    assert len(prepare(folder, refresh=False).names) == 6


def test_a_list_is_forgotten_when_shards_appear(folder):
    assert search_audio(folder)[0] == []
    shutil.copy(folder / "a" / "0.wav", folder / "x.tar")
    assert search_audio(folder) == ([folder / "x.tar"], None)
    assert search_audio(folder, refresh=False) == ([folder / "x.tar"], None)
    assert len(list_audio_files(folder)) == 6


def test_a_run_keeps_its_list_when_another_one_makes_a_new_one(folder, cache):
    dataset = list_audio_files(folder)
    for number in range(3):
        assert len(pickle.loads(pickle.dumps(dataset))) == 6
        write(folder / "a" / f"new{number}.wav")
        list_audio_files(folder)
    assert dataset["file_name"][5] == "a-b/5.wav"
    assert len(list(cache.rglob("list-*.arrow"))) == 4


def test_a_file_that_changes_while_it_is_checked_is_looked_at_again(folder, monkeypatch, decoded):
    with monkeypatch.context() as patch:
        check = clips_module.check_clip

        def change(row, rate):
            found = check(row, rate)
            if row["audio"]["path"].endswith("5.wav"):
                os.utime(row["audio"]["path"], ns=(7, 7))
            return found

        patch.setattr(clips_module, "check_clip", change)
        assert len(prepare(folder).names) == 6
    decoded.clear()
    assert len(prepare(folder).names) == 6
    assert decoded == ["5.wav"]


def test_a_table_is_read_again_when_it_changes_and_its_files_always(folder, decoded, monkeypatch):
    table = folder.parent / "table.csv"
    table.write_text("file_name,label\nsounds/a/4.wav,x\nsounds/a-b/1.wav,y\n")
    assert prepare(table).dataset["label"] == ["x", "y"]
    decoded.clear()
    with monkeypatch.context() as patch:
        patch.setattr("transformers_beats.training.data.manifest.list_table_files", None)
        write(folder / "a" / "4.wav", 6000)
        clips = prepare(table)
    assert (decoded, clips.num_samples.tolist()) == (["4.wav"], [6000, 4001])
    assert clips.dataset["label"] == ["x", "y"]
    table.write_text("file_name,label\nsounds/a/4.wav,longer\n")
    assert prepare(table).dataset["label"] == ["longer"]
    (folder / "a" / "4.wav").unlink()
    with pytest.raises(BeatsError, match="none of its 1 files is there"):
        prepare(table)


def test_features_of_a_table_are_kept(folder):
    features = datasets.Features(
        {"file_name": datasets.Value("string"), "kind": datasets.ClassLabel(names=["x", "y"])}
    )
    rows = {"file_name": ["a/0.wav", "a-b/1.wav"], "kind": [1, 0]}
    datasets.Dataset.from_dict(rows, features=features).to_parquet(folder / "metadata.parquet")
    for _ in range(2):
        dataset = load_audio_dataset(DataArguments(dataset=str(folder)))
        assert dataset.column_names == ["file_name", "kind", "audio", "file_state"]
        assert dataset.features["kind"].names == ["x", "y"]
        assert dataset["kind"] == [1, 0]


def test_folders_and_shards_can_be_joined(folder, tmp_path):
    (tmp_path / "shards").mkdir()
    path = write(tmp_path / "one.wav", 9000)
    rows = {"audio": [{"bytes": path.read_bytes(), "path": "one.wav"}]}
    datasets.Dataset.from_dict(rows).to_parquet(tmp_path / "shards" / "part.parquet")
    arguments = DataArguments(dataset=[str(folder), str(tmp_path / "shards")])
    clips = prepare_clips(load_audio_dataset(arguments), arguments, 16000)
    assert clips.num_samples.tolist() == [4000, 4002, 4004, 4001, 4003, 4005, 9000]
    assert clips.names[6] == "one.wav"
    assert len(set(clips.digests.tolist())) == 7


def test_names_of_several_datasets_begin_below_what_they_have_in_common(folder, tmp_path):
    write(tmp_path / "others" / "0.wav")
    arguments = DataArguments(dataset=[str(folder / "a"), str(tmp_path / "others")])
    clips = prepare_clips(load_audio_dataset(arguments), arguments, 16000)
    assert list(clips.names) == ["sounds/a/0.wav", "sounds/a/2.wav", "sounds/a/4.wav", "others/0.wav"]


@pytest.mark.parametrize("num_datasets", [1, 2])
def test_clips_of_one_name_are_told_apart_unless_they_are_one(tmp_path, num_datasets):
    (tmp_path / "shards").mkdir()
    contents = [write(tmp_path / f"{number}.wav", 5000 + number).read_bytes() for number in range(3)]
    # The third row cannot be read; the last is the first one again.
    parts = [("1.wav", contents[0]), ("2.wav", contents[1]), ("2.wav", b"no audio"), ("1.wav", contents[2])]
    rows = [{"bytes": content, "path": name} for name, content in [*parts, ("1.wav", contents[0])]]
    datasets.Dataset.from_dict({"audio": rows}).to_parquet(tmp_path / "shards" / "part.parquet")
    name = str(tmp_path / "shards")
    arguments = DataArguments(dataset=name if num_datasets == 1 else [name, str(tmp_path / "shards" / "part.parquet")])
    clips = prepare_clips(load_audio_dataset(arguments), arguments, 16000)
    folder = "row {}" if num_datasets == 1 else "row {} of dataset 1"
    expected = [f"{folder.format(1)}/1.wav", "2.wav", f"{folder.format(4)}/1.wav", f"{folder.format(1)}/1.wav"]
    assert list(clips.names) == expected * num_datasets
    # A report draws those of one name together, and plays the first.
    lengths = [len(clip_reader(clips, 16000)(name, 16000)) for name in expected]
    assert lengths == [5000, 5001, 5002, 5000]
    with pytest.raises(BeatsError, match=rf"'1.wav' may be any of '{expected[0]}', '{expected[2]}'"):
        Recordings(list(dict.fromkeys(clips.names))).find(Row("events.csv, row 1", "1.wav"))


@pytest.mark.parametrize("name", ["1.wav", None])
def test_a_clip_has_the_row_of_its_dataset_whatever_is_selected(name, tmp_path):
    """Files of events and reports name clips: another selection must not give their labels to other clips."""
    for folder, seeds in (("first", range(6)), ("second", range(6, 10))):
        sounds = [write(tmp_path / f"{seed}.wav", 5000 + seed).read_bytes() for seed in seeds]
        rows = {"audio": [{"bytes": data, "path": name} for data in sounds], "fold": [seed % 2 for seed in seeds]}
        (tmp_path / folder).mkdir()
        datasets.Dataset.from_dict(rows).to_parquet(tmp_path / folder / "0.parquet")
    end = "" if name is None else f"/{name}"

    def name_lengths(dataset, **select):
        arguments = DataArguments(dataset=dataset, select=select or None)
        clips = prepare_clips(load_audio_dataset(arguments), arguments, 16000)
        return {found: length - 5000 for found, length in zip(clips.names, clips.num_samples.tolist())}

    first, second = str(tmp_path / "first"), str(tmp_path / "second")
    whole = name_lengths(first)
    assert whole == {f"row {row + 1}{end}": row for row in range(6)}
    assert [name_lengths(first, fold=fold) for fold in (0, 1)] == [
        {f"row {row + 1}{end}": row for row in range(fold, 6, 2)} for fold in (0, 1)
    ]
    joined = name_lengths([first, second], fold=1)
    expected = {f"row {row} of dataset 1{end}": row - 1 for row in (2, 4, 6)}
    assert joined == expected | {f"row {row} of dataset 2{end}": row + 5 for row in (2, 4)}
    assert joined.items() <= name_lengths([first, second]).items()


@pytest.mark.parametrize(
    ("names", "name", "found"),
    [
        (["row 2/1.wav", "row 4/1.wav"], "row 2/1.wav", 0),
        (["row 2/1.wav", "row 4/1.wav"], "x/row 4/1", 1),
        (["row 2/1.wav", "row 4/1.wav"], "row 1/1.wav", None),
        # What a selection has left alone has its path as its name.
        (["1.wav"], "row 1/1.wav", None),
        (["b/1.wav"], "row 1/b/1.wav", None),
        (["b/1.wav"], "a/b/1.wav", 0),
        (["row 2/1.wav"], "row 2 of dataset 2/1.wav", None),
        (["row 2 of dataset 1/1.wav", "row 2 of dataset 2/1.wav"], "row 2/1.wav", None),
        (["row 2 of dataset 1/1.wav", "row 2 of dataset 2/1.wav"], "row 2 of dataset 2/1.wav", 1),
        (["row 3"], "row 3", 0),
        (["a/row 3.wav"], "x/a/row 3.wav", 0),
        (["dQw4w9WgXcQ_30.000.wav"], "row 1/dQw4w9WgXcQ_30000", None),
    ],
)
def test_a_name_by_its_row_finds_this_row_alone(names, name, found):
    assert Recordings(names).find(Row("events.csv, row 1", name, named_by="segment")) == found


@pytest.mark.parametrize(
    ("names", "digests", "expected"),
    [
        (["a", "b"], [1, 1], ["a", "b"]),
        (["a", "a"], [1, 1], ["a", "a"]),
        (["a", "a"], [1, 2], ["row 1/a", "row 3/a"]),
        (["b/a", "c/a", "b/a", "/a", "/a"], [-1, 2, 3, 1, 2], ["row 1/b/a", "c/a", "row 5/b/a", "row 7/a", "row 9/a"]),
        (["a", "a", "a", "b", "b"], [1, 2, 1, 1, 1], ["row 1/a", "row 3/a", "row 1/a", "b", "b"]),
    ],
)
@pytest.mark.parametrize("num_chunks", [1, 2])
def test_names_that_clips_share_begin_with_the_row(names, digests, expected, num_chunks):
    chunks = [names[:1], names[1:]] if num_chunks == 2 else [names]
    column = pa.chunked_array(chunks, pa.large_string())
    found = tell_apart(column, np.array(digests), 2 * np.arange(len(names)))
    assert (found.to_pylist(), found.type) == (expected, pa.large_string())


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        (["/x/a/1.wav", "/x/b.wav"], ["a/1.wav", "b.wav"]),
        (["/x/a.wav", "/x/a/1.wav", "/x/a/2/3.wav"], ["a.wav", "a/1.wav", "a/2/3.wav"]),
        (["/x/a/1.wav"], ["1.wav"]),
        (["a/1.wav", "/x/b.wav"], ["a/1.wav", "/x/b.wav"]),
        (["a/1.wav", "a/b/2.wav"], ["1.wav", "b/2.wav"]),
        ([None, "/x/b.wav", ""], ["row 1", "/x/b.wav", "row 3"]),
        (["1.wav", "a/1.wav"], ["1.wav", "a/1.wav"]),
    ],
)
def test_names_are_the_ends_of_paths(paths, names):
    struct = {"bytes": datasets.Value("binary"), "path": datasets.Value("string")}
    rows = {"audio": [{"bytes": b"", "path": path} for path in paths]}
    dataset = datasets.Dataset.from_dict(rows, features=datasets.Features({"audio": struct}))
    assert name_clips(dataset, is_single=True).to_pylist() == names


def test_a_fingerprint_does_not_depend_on_where_the_names_are(folder):
    clips = prepare(folder)
    in_a_list = replace(clips, names=list(clips.names))
    in_chunks = replace(clips, names=Names(pa.chunked_array([clips.names[:2], clips.names[2:]], pa.large_string())))
    assert in_a_list.fingerprint == in_chunks.fingerprint == clips.fingerprint
    assert clips.fingerprint.startswith("v3-")
    assert clips.names[-1] == clips.names[5] == "a-b/5.wav"


def twin_folders(tmp_path: Path) -> list[Path]:
    """Makes two folders whose files differ in their samples only."""
    folders = [tmp_path / "first", tmp_path / "second"]
    for value, folder in enumerate(folders):
        folder.mkdir()
        for number in range(2):
            path = folder / f"{number}.wav"
            soundfile.write(path, np.full(4000 + number, 0.25 * (value + 1)), 16000)
            os.utime(path, ns=(10**18, 10**18))
    return folders


def test_another_folder_with_files_of_the_same_names_sizes_and_times_is_another_one(tmp_path):
    first, second = (prepare(folder, cache_audio=True) for folder in twin_folders(tmp_path))
    assert first.dataset[0]["_waveform"][0] == 0.25
    assert second.dataset[0]["_waveform"][0] == 0.5
    # Codes of the one are not those of the other.
    assert first.fingerprint != second.fingerprint
    assert list(first.names) == list(second.names)


def test_a_folder_that_was_moved_has_the_same_fingerprint(folder, tmp_path):
    before = prepare(folder).fingerprint
    folder.rename(tmp_path / "moved")
    assert prepare(tmp_path / "moved").fingerprint == before


def test_the_description_of_a_stream_does_not_depend_on_the_folder(folder, tmp_path):
    def describe(path):
        return load_audio_dataset(DataArguments(dataset=str(path), streaming=True)).info.description

    before = describe(folder)
    folder.rename(tmp_path / "moved")
    assert describe(tmp_path / "moved") == before != ""


@pytest.mark.parametrize("num_bytes", [0, 500])
def test_files_of_the_cache_that_are_damaged_are_made_again(num_bytes, folder, cache):
    expected = prepare(folder, cache_audio=True)
    files = list(cache.rglob("*.arrow"))
    assert {"list", "checks", "0"} <= {file.name.partition("-")[0].partition(".")[0] for file in files}
    for file in files:
        data = file.read_bytes()
        # Another file: the first one is mapped.
        file.unlink()
        file.write_bytes(data[:num_bytes])
    found = prepare(folder, cache_audio=True)
    assert found.fingerprint == expected.fingerprint
    assert len(found.dataset[5]["_waveform"]) == found.num_samples[5] == 4005


def test_lists_are_kept_for_a_month(folder, cache):
    for number in range(6):
        list_audio_files(folder)
        write(folder / "a" / f"new {number}.wav")
    lists = sorted(cache.rglob("list-*.arrow"), key=lambda file: file.stat().st_mtime_ns)
    assert len(lists) == 6
    for file in lists[:5]:
        os.utime(file, (0, 0))
    list_audio_files(folder)
    # The three newest, whatever their age.
    assert len(list(cache.rglob("list-*.arrow"))) == 3
    assert lists[5].exists()


def test_digests_of_columns_follow_every_value():
    columns = [pa.chunked_array([["ab", "c"]]), pa.chunked_array([["a", "bc"]]), pa.chunked_array([["ab"], ["c"]])]
    digests = [hash_columns([column]) for column in columns]
    assert digests[0] == digests[2] != digests[1]
    assert hash_columns([pa.chunked_array([["x", "ab", "c"]]).slice(1)]) == digests[0]
    assert hash_columns([columns[0]], 1) != hash_columns([columns[0]], 2)
    numbers = pa.chunked_array([pa.array([1, 2, 3])])
    assert hash_columns([numbers.slice(1)]) == hash_columns([pa.chunked_array([pa.array([2, 3])])])


def test_a_name_that_is_no_utf8_is_named(folder):
    try:
        (folder / os.fsdecode(b"\xff.wav")).touch()
    except OSError:
        pytest.skip("this file system has names in UTF-8 only")
    with pytest.raises(BeatsError, match=r"udcff.*its name is no text in UTF-8"):
        list_audio_files(folder)


# The command


def test_an_index_says_what_is_in_a_folder(folder, decoded):
    write(folder / "a" / "low.wav", 8000, 8000)
    (folder / "a" / "broken.wav").write_bytes(b"RIFF nonsense")
    files, findings = index_audio(folder)
    rows = {Path(path).name: row for row, path in enumerate(files["path"].to_pylist())}
    low = rows["low.wav"]
    assert (findings.num_samples[low], findings.rate[low], findings.channels[low]) == (16000, 8000, 1)
    assert [*findings.problems] == [rows["broken.wav"]]
    decoded.clear()
    assert len(prepare(folder).names) == 7
    # It is tried again, as every failure.
    assert decoded == ["broken.wav"]


def test_an_index_is_a_dataset_elsewhere(folder, tmp_path, decoded, monkeypatch):
    output = tmp_path / "index" / "sounds.parquet"
    result = CliRunner().invoke(app, ["index-audio", str(folder), "--output", str(output)])
    assert result.exit_code == 0, result.output
    assert f"{folder}: 6 files, 0.0 h" in result.output
    assert "(16,000 Hz: 6); 0 cannot be read, 0 may be bad" in result.output
    here = prepare(folder)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "other machine")
    decoded.clear()
    elsewhere = prepare(output)
    assert decoded == []
    assert elsewhere.digests.tolist() == here.digests.tolist()
    assert elsewhere.num_samples.tolist() == here.num_samples.tolist()
    os.utime(folder / "a" / "0.wav", ns=(1, 1))
    prepare(output)
    assert decoded == ["0.wav"]
    table = pyarrow.parquet.read_table(output)
    assert table["file_name"].to_pylist()[0] == str(folder / "a" / "0.wav")
    result = CliRunner().invoke(app, ["index-audio", str(folder), "--output", str(output)])
    assert (result.exit_code, "exists; pass --overwrite" in result.output) == (2, True)


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl"])
@pytest.mark.parametrize("is_complete", [True, False])
def test_an_index_may_be_saved_as_text(suffix, is_complete, folder, tmp_path, decoded, monkeypatch):
    output = tmp_path / "index.parquet"
    assert CliRunner().invoke(app, ["index-audio", str(folder), "--output", str(output)]).exit_code == 0
    here = prepare(folder)
    table = pandas.read_parquet(output)
    if not is_complete:
        table["num_samples"] = "unknown"
    other = output.with_suffix(suffix)
    if suffix == ".jsonl":
        table.to_json(other, orient="records", lines=True)
    else:
        table.to_csv(other, index=False, sep="," if suffix == ".csv" else "\t")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "other machine")
    decoded.clear()
    assert prepare(other).digests.tolist() == here.digests.tolist()
    assert len(decoded) == (0 if is_complete else 6)


def test_an_index_of_other_decoders_is_not_believed(folder, tmp_path, decoded, monkeypatch):
    output = tmp_path / "index.parquet"
    assert CliRunner().invoke(app, ["index-audio", str(folder), "--output", str(output)]).exit_code == 0
    decoded.clear()
    monkeypatch.setattr("transformers_beats.training.data.manifest._version", lambda package: "99.0")
    prepare(output)
    assert len(decoded) == 6


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["missing"], "missing: no such file or folder."),
        (["sounds", "--output", "sounds/x.parquet"], "in the folder, it would be taken for its audio"),
        (["sounds", "--output", "x.csv"], "choose a name that ends in .parquet"),
        (["shards"], "holds Parquet files or tar shards, such as a.tar"),
    ],
)
def test_what_cannot_be_indexed_is_refused(folder, tmp_path, monkeypatch, words, message):
    (tmp_path / "shards").mkdir()
    (tmp_path / "shards" / "a.tar").touch()
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, ["index-audio", *words])
    assert result.exit_code != 0
    assert message in result.output


def test_findings_and_lists_that_nothing_has_used_for_long_are_removed(folder, cache):
    cache = cache / "transformers_beats"
    kept = SECONDS_KEPT + 1000
    for number in range(6):
        last = prepare(write(folder / "a" / "0.wav", 5000 + number).parents[1])
        if number == 0:
            first, state = last, (folder / "a" / "0.wav").stat()
            first_time = (state.st_atime_ns, state.st_mtime_ns)
    assert len(list(cache.glob("clips-*"))) == 6
    for number, path in enumerate(sorted(cache.glob("clips-*")) + sorted(cache.glob("files-*/list-*.arrow"))):
        os.utime(path, (time.time() - kept - number,) * 2)
    # The oldest is used again, and removed is none of those that were used last.
    oldest = cache_path("clips-{}", first.dataset._fingerprint, 16000, True)
    os.utime(oldest, (1, 1))
    assert prepare(folder, refresh=False).fingerprint == last.fingerprint
    write(folder / "a" / "0.wav", 5000)
    os.utime(folder / "a" / "0.wav", ns=first_time)
    assert prepare(folder).fingerprint == first.fingerprint
    assert oldest.is_dir()
    assert len(list(cache.glob("clips-*"))) == 3
    assert len(list(cache.glob("files-*/list-*.arrow"))) == 3
