# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Whole archives on the command line: decoding in other processes, times of stages, and many files."""

import json
import os
import re
import signal
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import soundfile
from invoke import run

from transformers_beats.audio.decoding import stream_audio
from transformers_beats.audio.files import find_audio
from transformers_beats.cli import notes, processing
from transformers_beats.cli.writers import SOURCES, begin_directory
from transformers_beats.utils.stages import STAGES


@pytest.fixture(scope="session")
def archive(tmp_path_factory):
    """A folder of short clips and one that is no audio."""
    folder = tmp_path_factory.mktemp("archive")
    generator = np.random.default_rng(0)
    for number in range(9):
        path = folder / "ab"[number % 2] / f"{number}.wav"
        path.parent.mkdir(exist_ok=True)
        soundfile.write(path, 0.1 * generator.standard_normal(8000 + 3000 * number), 16000)
    (folder / "a" / "broken.wav").write_bytes(b"RIFF and nothing else")
    return folder


def words_of(command: str, models: Path, folder: Path, output: Path) -> list:
    model = {"tag": "beats_tiny_finetuned", "embed": "beats_tiny", "tokenize": "tokenizer_tiny", "index": "beats_tiny"}
    return [command, "-m", models / model[command], folder, "--device", "cpu", "-o", output]


def content_of(output: Path) -> dict[str, bytes]:
    """Results by name; of an index, whose parts have random names, in their order."""
    paths = [output] if output.is_file() else sorted(path for path in output.rglob("*") if path.is_file())
    if (output / "index.json").exists():
        names = [shard[0] for shard in json.loads((output / "index.json").read_text())["shards"]]
        return {name: (output / f"{name}.safetensors").read_bytes() for name in names}
    return {path.name: path.read_bytes() for path in paths}


@pytest.mark.parametrize(
    ("command", "name"),
    [("tag", "tags.csv"), ("tag", "events"), ("embed", "all.parquet"), ("tokenize", "tokens"), ("index", "index")],
)
def test_results_do_not_depend_on_who_decodes(models, archive, tmp_path, command, name):
    results = []
    for workers in (0, 2):
        (tmp_path / str(workers)).mkdir()
        output = tmp_path / str(workers) / name
        words = words_of(command, models, archive, output)
        result = run(*words, "--workers", workers, exit_code=1)
        # A file that cannot be used, and the only one.
        assert "broken.wav" in result.stderr
        assert "1 of 10 files could not be used." in result.stderr
        results.append(content_of(output))
    if command == "index":
        results = [list(found.values()) for found in results]
    assert results[0] == results[1]


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="processes are killed by a signal")
def test_a_file_that_crashes_the_decoder_is_skipped(models, archive, tmp_path, monkeypatch):
    def open_or_crash(self, file, sampling_rate):
        if file.path.name == "4.wav":
            os.kill(os.getpid(), signal.SIGKILL)
        return stream_audio(file.path, sampling_rate)

    monkeypatch.setattr(notes.DecoderNotes, "open", open_or_crash)
    words = words_of("tag", models, archive, tmp_path / "tags.jsonl")
    assert "2 of 10 files could not be used." in run(*words, "--workers", 2, exit_code=1).stderr
    records = [json.loads(line) for line in (tmp_path / "tags.jsonl").read_text().splitlines()]
    # In order, with the reason in its place.
    assert [record["file"] for record in records] == [str(file.path) for file in find_audio([archive])]
    skipped = {Path(record["file"]).name: record["reason"] for record in records if record["status"] == "skipped"}
    assert skipped.keys() == {"broken.wav", "4.wav"}
    assert "its decoder crashed or was killed" in skipped["4.wav"]


def test_workers_are_for_many_files(monkeypatch):
    monkeypatch.setattr(processing, "count_cpus", lambda: 4)
    choose = processing.choose_workers
    assert [choose(None, number, "cpu") for number in (1, 31, 32, 10**6)] == [0, 0, 1, 1]
    assert [choose(None, number, "cuda") for number in (1, 32)] == [0, 3]
    assert choose(5, 1, "cpu") == 5
    monkeypatch.setattr(processing, "count_cpus", lambda: 1)
    assert choose(None, 100, "cuda") == 0


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("command", ["tag", "embed", "index"])
def test_the_profile_has_all_stages_and_their_sum(models, archive, tmp_path, command, workers):
    words = words_of(command, models, archive / "b", tmp_path / {"tag": "tags.csv"}.get(command, "out"))
    result = run(*words, "--profile", "--quiet", "--workers", workers)
    rows = dict(re.findall(r"^(.*?) +([\d.]+) +[\d.]+$", result.stderr, re.MULTILINE))
    assert list(rows) == [*STAGES, "start and end", "total"]
    seconds = [float(value) for value in rows.values()]
    assert sum(seconds[:-1]) == pytest.approx(seconds[-1], abs=0.005 * len(seconds))
    assert float(rows["model"]) > 0
    assert ("in 2 other processes" in result.stderr) == (workers == 2)


def test_there_are_no_times_without_profile(models, archive, tmp_path):
    result = run(*words_of("tag", models, archive / "b", tmp_path / "tags.csv"))
    assert "total" not in result.stderr


def test_a_list_of_files_takes_little_more_than_their_names(tmp_path):
    folder = tmp_path / "many"
    (folder / "deep").mkdir(parents=True)
    number = 4000
    for index in range(number):
        (folder / ("deep" if index % 2 else "") / f"{index:05d}.wav").touch()
    tracemalloc.start()
    files = find_audio([folder])
    held, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held < 40 * number
    # The names of a folder are sorted.
    assert peak < 200 * number
    assert len(files) == number
    # As a list of all would be.
    assert files[1].short_name == "00002.wav"
    assert [file.path for file in files[-3:]] == [folder / "deep" / f"{index:05d}.wav" for index in (3995, 3997, 3999)]
    assert [file.path for file in files] == sorted(folder.rglob("*.wav"))
    share = files[1::2]
    assert (len(share), share[0], share[-1]) == (number // 2, files[1], files[-1])
    assert [file.path for file in share[10:12]] == [files[21].path, files[23].path]


def test_a_directory_of_results_is_begun_without_holding_its_files(tmp_path):
    folder = tmp_path / "many"
    folder.mkdir()
    number = 4000
    for index in range(number):
        (folder / f"{index:05d}.wav").touch()
    files = find_audio([folder])
    tracemalloc.start()
    begin_directory(tmp_path / "out", {}, False, files, ".npy")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20 * number
    sources = json.loads((tmp_path / "out" / SOURCES).read_text("utf-8"))
    assert sources == {f"{index:05d}.wav": str(folder / f"{index:05d}.wav") for index in range(number)}
    # Files of another folder are added, also on a second way to the first one.
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / 'a "name".wav').touch()
    (tmp_path / "link").symlink_to(folder)
    begin_directory(tmp_path / "out", {}, True, find_audio([tmp_path / "other"]), ".npy")
    begin_directory(tmp_path / "out", {}, True, find_audio([tmp_path / "link"]), ".npy")
    added = {'a "name".wav': str(tmp_path / "other" / 'a "name".wav')}
    assert json.loads((tmp_path / "out" / SOURCES).read_text("utf-8")) == {**sources, **added}
