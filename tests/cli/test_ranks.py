# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Several processes, as torchrun starts them, share the files of a command: what they write is what one writes."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas
import pytest
import soundfile
from fresh import forked_python
from invoke import run

from transformers_beats.audio.files import find_audio
from transformers_beats.search.index import Index, Moment
from transformers_beats.utils.errors import UsageError
from transformers_beats.utils.lock import hold
from transformers_beats.utils.ranks import Rank, current_rank, ranks_directory


@pytest.fixture(scope="session")
def clips(tmp_path_factory):
    """A folder of seven short clips."""
    folder = tmp_path_factory.mktemp("clips")
    generator = np.random.default_rng(0)
    for number in range(7):
        soundfile.write(folder / f"{number} é.wav", 0.1 * generator.standard_normal(9000 + 1000 * number), 16000)
    return folder


@pytest.fixture(scope="module")
def command_python():
    """Runs programs in fresh processes, which have imported what the commands need; see `fresh.py`."""
    with forked_python(["transformers_beats.cli.app", "transformers_beats.inference.pipeline"]) as run:
        yield run


def as_rank(monkeypatch, number: int, count: int) -> None:
    monkeypatch.setenv("RANK", str(number))
    monkeypatch.setenv("WORLD_SIZE", str(count))


def words_of(command: str, models: Path, folder: Path, output: Path) -> list:
    model = {"tag": "beats_tiny_finetuned", "embed": "beats_tiny", "tokenize": "tokenizer_tiny", "index": "beats_tiny"}
    # Alone in its batch, a clip has the same bits in every share.
    return [command, "-m", models / model[command], folder, "--device", "cpu", "--batch-size", 1, "-o", output]


def parts_of(path: Path) -> list:
    """Returns a file's content: what is exact, and numbers that other batches may have rounded otherwise."""
    if path.suffix == ".parquet":
        table = pandas.read_parquet(path)
        return [value for column in table for value in table[column]]
    if path.suffix == ".npy":
        return [np.load(path)]
    texts = re.split(r"(-?\d+\.\d+)", path.read_text())
    return [float(text) if number % 2 else text for number, text in enumerate(texts)]


def check_same(found: Path, expected: Path) -> None:
    """The same files with the same content; of numbers, up to rounding."""
    names = [
        sorted(str(path.relative_to(output)) for path in output.rglob("*") if path.is_file()) or ["."]
        for output in (found, expected)
    ]
    assert names[0] == names[1]
    for name in names[0]:
        ours, theirs = parts_of(found / name), parts_of(expected / name)
        assert len(ours) == len(theirs)
        for first, second in zip(ours, theirs):
            if isinstance(first, (float, np.ndarray)):
                np.testing.assert_allclose(first, second, atol=2e-5)
            else:
                assert first == second


OUTPUTS = [
    ("tag", "tags.csv"),
    ("tag", "tags.jsonl"),
    ("tag", "tracks"),
    ("embed", "all.parquet"),
    ("embed", "arrays"),
    ("tokenize", "tokens"),
]


@pytest.mark.parametrize(("command", "name"), OUTPUTS)
def test_ranks_write_what_one_process_writes(models, clips, tmp_path, monkeypatch, command, name):
    run(*words_of(command, models, clips, tmp_path / "one" / name))
    words = words_of(command, models, clips, tmp_path / "three" / name)
    for number in (2, 0, 1):
        as_rank(monkeypatch, number, 3)
        stderr = run(*words).stderr
        assert f"({Rank(number, 3)}): {tmp_path / 'three' / name}" in stderr
        is_one_file = "." in name
        # Only the last one finds all results.
        assert ("All 7 files" in stderr) == (is_one_file and number == 1)
        assert (tmp_path / "three" / name).is_file() == (is_one_file and number == 1)
    check_same(tmp_path / "three" / name, tmp_path / "one" / name)
    # No part is left, and one process can go on with the output.
    assert not list(ranks_directory(tmp_path / "three" / name).glob("rank-*"))
    if name != "all.parquet":
        monkeypatch.delenv("RANK")
        assert "7 of 7 files are done already." in run(*words, "--resume").stderr


@pytest.mark.parametrize("name", ["tags.csv", "all.parquet"])
def test_a_rank_that_was_killed_is_started_again(models, clips, tmp_path, monkeypatch, command_python, name):
    command = "tag" if name == "tags.csv" else "embed"
    run(*words_of(command, models, clips, tmp_path / "one" / name))
    words = words_of(command, models, clips, tmp_path / "two" / name)
    as_rank(monkeypatch, 0, 2)
    # Ends after one of its four files, as if it had been killed: nothing is closed or joined.
    program = """
import os
from transformers_beats.cli import processing
from transformers_beats.cli.app import main
stage, seen = processing.stage, []
class Stop:
    def __init__(self, name): self.name, self.stage = name, stage(name)
    def __enter__(self): return self.stage.__enter__()
    def __exit__(self, *error):
        seen.append(self.name)
        if seen.count("write") == 1: os._exit(9)
        return self.stage.__exit__(*error)
processing.stage = Stop
main()
"""
    result = command_python(program, *words)
    assert result.returncode == 9, result.stderr
    as_rank(monkeypatch, 1, 2)
    run(*words)
    assert not (tmp_path / "two" / name).exists()
    as_rank(monkeypatch, 0, 2)
    stderr = run(*words).stderr
    assert "1 of 4 files are done already." in stderr
    assert "All 7 files" in stderr
    check_same(tmp_path / "two" / name, tmp_path / "one" / name)


def test_another_number_of_ranks_goes_on(models, clips, tmp_path, monkeypatch):
    output = tmp_path / "tags.jsonl"
    words = words_of("tag", models, clips, output)
    as_rank(monkeypatch, 1, 3)
    run(*words)
    for number in range(2):
        as_rank(monkeypatch, number, 2)
        assert "files are done already." in run(*words).stderr
    names = [json.loads(line)["file"] for line in output.read_text().splitlines()]
    assert names == [str(file.path) for file in find_audio([clips])]


@pytest.mark.parametrize("name", ["tags.jsonl", "tags.csv", "tracks", "all.parquet", "arrays", "index"])
def test_files_that_cannot_be_used_hold_up_nobody(models, clips, tmp_path, monkeypatch, name):
    folder = shutil.copytree(clips, tmp_path / "in")
    (folder / "0 broken.wav").write_bytes(b"RIFF and nothing else")
    (folder / "1 broken.wav").write_bytes(b"RIFF and nothing else")
    commands = {"all.parquet": "embed", "arrays": "embed", "index": "index"}
    words = words_of(commands.get(name, "tag"), models, folder, tmp_path / name)
    # torchrun would end all others with the first that fails: that is the last one, which has found the end of all.
    for number, exit_code in ((0, 0), (1, 0), (2, 1)):
        as_rank(monkeypatch, number, 3)
        stderr = run(*words, exit_code=exit_code).stderr
        assert ("could not be used" in stderr) == (number != 1)
        assert ("Of the files of all shares, 2 could not be used." in stderr) == (number == 2)
    assert (tmp_path / name).exists()
    # They are tried again, and count once: neither rank says that nothing is left before the other has tried.
    shutil.copy(folder / "1 é.wav", folder / "0 broken.wav")
    for number, exit_code in ((1, 0), (2, 0), (0, 1)):
        as_rank(monkeypatch, number, 3)
        run(*words, exit_code=exit_code)
    shutil.copy(folder / "1 é.wav", folder / "1 broken.wav")
    for number in (1, 2, 0):
        as_rank(monkeypatch, number, 3)
        run(*words)
    if name == "tags.jsonl":
        records = [json.loads(line) for line in (tmp_path / name).read_text().splitlines()]
        assert [Path(record["file"]).name for record in records] == sorted(path.name for path in folder.iterdir())
        assert {record["status"] for record in records} == {"ok"}
    elif name == "all.parquet":
        assert sorted(pandas.read_parquet(tmp_path / name)["file"]) == sorted(path.name for path in folder.iterdir())
    elif name == "index":
        assert {Path(file).name for file in Index(tmp_path / name).states()} == {
            path.name for path in folder.iterdir()
        }


def test_files_of_one_name_are_tried_one_by_one(models, clips, tmp_path, monkeypatch):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "x.wav").write_bytes(b"RIFF and nothing else")
    words = words_of("index", models, tmp_path / "a", tmp_path / "index")
    words.insert(4, tmp_path / "b")
    for number, exit_code in ((0, 0), (1, 1)):
        as_rank(monkeypatch, number, 2)
        stderr = run(*words, exit_code=exit_code).stderr
        # The other file is in the share of the last rank, which has not begun.
        assert ("Of the files of all shares, 2 could not be used." in stderr) == (number == 1)


def test_a_rank_is_at_work_once(models, clips, tmp_path, monkeypatch):
    as_rank(monkeypatch, 0, 2)
    output = tmp_path / "tags.jsonl"
    with hold(ranks_directory(output) / "rank-0"):
        assert "another run writes here" in run(*words_of("tag", models, clips, output), exit_code=2).stderr


def test_nothing_is_joined_while_another_rank_is_at_work(models, clips, tmp_path, monkeypatch):
    output = tmp_path / "tags.jsonl"
    words = words_of("tag", models, clips, output)
    for number in range(2):
        as_rank(monkeypatch, number, 3)
        run(*words)
    as_rank(monkeypatch, 2, 3)
    with hold(ranks_directory(output) / "rank-1"):
        run(*words)
        assert not output.exists()
    # A later call of any rank joins what is there.
    run(*words)
    assert len(output.read_text().splitlines()) == 7


def test_ranks_need_a_common_output(models, clips, tmp_path, monkeypatch):
    as_rank(monkeypatch, 0, 2)
    for words in (["tag", clips], ["tag", clips, "--json"], ["embed", clips, "--json"], ["tag", "-", "-o", "x.csv"]):
        model = models / ("beats_tiny" if words[0] == "embed" else "beats_tiny_finetuned")
        assert "2 processes (WORLD_SIZE) share files" in run(*words, "-m", model, exit_code=2).stderr


def vectors_of(directory: Path) -> dict[Moment, np.ndarray]:
    """Vectors of an index, in the order of its rows; every moment is there once."""
    index = Index(directory)
    moments = index.moments(range(len(index)))
    assert len({*moments}) == len(moments)
    return dict(zip(moments, [vector for _, block in index.blocks() for vector in block]))


def check_same_index(found: Path, expected: Path) -> None:
    ours, theirs = vectors_of(found), vectors_of(expected)
    assert [*ours] == [*theirs]
    np.testing.assert_allclose([*ours.values()], [*theirs.values()], atol=2e-5)
    assert Index(found).states() == Index(expected).states()
    # No part is left.
    assert not list(ranks_directory(found).glob("rank-*"))


@pytest.mark.parametrize("options", [[], ["--segments", 0.5]])
def test_ranks_make_the_index_that_one_process_makes(models, clips, tmp_path, monkeypatch, options):
    folder = shutil.copytree(clips, tmp_path / "in")
    words = [[*words_of("index", models, folder, tmp_path / name), *options] for name in ("one", "three")]
    run(*words[0])
    for number in (2, 0, 1):
        as_rank(monkeypatch, number, 3)
        stderr = run(*words[1]).stderr
        assert f"({Rank(number, 3)}): {tmp_path / 'three'}" in stderr
        assert ("All 7 files: 7 added, 0 updated, 0 removed: 7 files" in stderr) == (number == 1)
        assert len(Index(tmp_path / "three").states()) == (7 if number == 1 else 0)
    check_same_index(tmp_path / "three", tmp_path / "one")
    # Again, with a new, a changed and a removed file, and ranks that are others.
    shutil.copy(folder / "1 é.wav", folder / "7 é.wav")
    shutil.copy(folder / "3 é.wav", folder / "2 é.wav")
    (folder / "0 é.wav").unlink()
    for number in range(2):
        as_rank(monkeypatch, number, 2)
        stderr = run(*words[1]).stderr
    assert "All 7 files: 1 added, 1 updated, 1 removed: 7 files" in stderr
    monkeypatch.delenv("RANK")
    assert "1 added, 1 updated, 1 removed: 7 files" in run(*words[0]).stderr
    check_same_index(tmp_path / "three", tmp_path / "one")
    assert "0 added, 0 updated, 0 removed: 7 files" in run(*words[1]).stderr


def test_an_index_has_each_file_once_when_a_rank_and_a_join_are_killed(
    models, clips, tmp_path, monkeypatch, command_python
):
    run(*words_of("index", models, clips, tmp_path / "one"))
    words = words_of("index", models, clips, tmp_path / "two")
    # Commits every recording, and ends after one of its four files or, at the join, after two of all.
    program = """
import os, sys
from transformers_beats.search import index
from transformers_beats.cli.app import main
place, number = sys.argv.pop().split()
index.COMMIT_SECONDS, add, seen = 0.0, index.IndexWriter.add, []
def add_and_end(self, *arguments):
    add(self, *arguments)
    seen.extend([arguments[0]] * (self.directory.name == place))
    if len(seen) == int(number): os._exit(9)
index.IndexWriter.add = add_and_end
main()
"""
    as_rank(monkeypatch, 0, 2)
    assert command_python(program, *words, "index 1").returncode == 9
    as_rank(monkeypatch, 1, 2)
    run(*words)
    assert len(Index(tmp_path / "two")) == 0
    as_rank(monkeypatch, 0, 2)
    result = command_python(program, *words, "two 2")
    assert "1 of 4 files are done already." in result.stderr
    assert result.returncode == 9
    assert len(Index(tmp_path / "two")) == 2
    as_rank(monkeypatch, 1, 2)
    assert "All 7 files: 5 added, 0 updated, 0 removed: 7 files" in run(*words).stderr
    check_same_index(tmp_path / "two", tmp_path / "one")


def test_more_ranks_than_files(models, clips, tmp_path, monkeypatch):
    words = words_of("tag", models, clips / "0 é.wav", tmp_path / "tags.jsonl")
    for number in range(3):
        as_rank(monkeypatch, number, 3)
        run(*words)
    assert len((tmp_path / "tags.jsonl").read_text().splitlines()) == 1


@pytest.mark.parametrize("name", ["all.parquet", "all.safetensors"])
def test_a_rank_that_finds_a_complete_file_is_done(models, clips, tmp_path, monkeypatch, name):
    output = tmp_path / name
    words = words_of("embed", models, clips / "0 é.wav", output)
    for number in range(3):
        as_rank(monkeypatch, number, 3)
        run(*words)
    content = output.read_bytes()
    # Also one that is started again.
    as_rank(monkeypatch, 0, 3)
    assert "1 of 1 files are done already." in run(*words).stderr
    assert output.read_bytes() == content
    assert not list(ranks_directory(output).glob("rank-*"))
    # One with other settings or recordings is not.
    for others in ([*words, "--layers", "1"], words_of("embed", models, clips / "1 é.wav", output)):
        assert "is complete already: remove it" in run(*others, exit_code=2).stderr
    output.write_bytes(b"of another program")
    assert "is complete already: remove it" in run(*words, exit_code=2).stderr
    assert output.read_bytes() == b"of another program"


@pytest.mark.parametrize(("number", "count"), [("2", "2"), ("-1", "2"), ("x", "2"), ("0", "0")])
def test_ranks_that_cannot_be_are_refused(monkeypatch, number, count):
    as_rank(monkeypatch, number, count)
    with pytest.raises(UsageError, match=f"RANK={number} and WORLD_SIZE={count}"):
        current_rank()


def test_a_process_alone_has_no_rank(monkeypatch):
    monkeypatch.delenv("RANK", raising=False)
    assert current_rank() is None
    as_rank(monkeypatch, 0, 1)
    assert current_rank() is None


def under_torchrun(words: list, *options: str) -> list[str]:
    """Returns a command of two ranks."""
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", *options]
    return [*launch, "-m", "transformers_beats", *map(str, words)]


@pytest.mark.slow
def test_torchrun_with_a_broken_file_in_the_shorter_share(models, clips, tmp_path):
    """torchrun ends all ranks with the first that fails, and the other one has most of its work to do by then."""
    folder = tmp_path / "in"
    folder.mkdir()
    for number in range(0, 40, 2):
        shutil.copy(clips / "0 é.wav", folder / f"{number:02d}.wav")
        soundfile.write(folder / f"{number + 1:02d}.wav", np.zeros(16000 * 60), 16000)
    (folder / "04.wav").write_bytes(b"RIFF and nothing else")
    output = tmp_path / "tags.jsonl"
    command = under_torchrun(words_of("tag", models, folder, output))
    result = subprocess.run(command, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True)
    assert result.returncode == 1
    assert "19 of 20 files (share 1 of 2)" in result.stderr
    assert "20 files (share 2 of 2)" in result.stderr
    assert "Of the files of all shares, 1 could not be used." in result.stderr
    records = [json.loads(line) for line in output.read_text().splitlines()]
    assert [Path(record["file"]).name for record in records] == [f"{number:02d}.wav" for number in range(40)]
    assert [record["status"] for record in records].count("skipped") == 1


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="a rank is killed by a signal")
def test_torchrun_with_a_killed_rank(models, clips, tmp_path):
    """One of two ranks is killed while it works; torchrun starts both again, and every file has one row."""
    folder = tmp_path / "in"
    folder.mkdir()
    for number in range(60):
        shutil.copy(clips / f"{number % 7} é.wav", folder / f"{number:02d}.wav")
    output = tmp_path / "tags.jsonl"
    words = words_of("tag", models, folder, output)
    command = under_torchrun(words, "--max-restarts", "3")
    part = ranks_directory(output) / "rank-1"
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        try:
            deadline = time.monotonic() + 300
            while time.monotonic() < deadline and process.poll() is None:
                lines = part / "results.jsonl"
                if lines.exists() and lines.read_bytes().count(b"\n") >= 3:
                    os.kill(json.loads((part / ".lock.json").read_text())["process"], signal.SIGKILL)
                    break
                time.sleep(0.01)
            assert process.wait(timeout=300) == 0, (tmp_path / "log").read_text()[-3000:]
        finally:
            process.kill()
    assert "exitcode  : -9" in (tmp_path / "log").read_text() or "exitcode: -9" in (tmp_path / "log").read_text()
    names = [Path(json.loads(line)["file"]).name for line in output.read_text().splitlines()]
    assert names == [f"{number:02d}.wav" for number in range(60)]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "name", "option", "shares"),
    [
        ("tag", "tags.csv", "--multi_gpu", {"1", "2"}),
        ("embed", "all.parquet", "--multi_gpu", {"1", "2"}),
        # `accelerate launch --cpu` starts one process only, whatever it is told.
        ("tag", "tags.csv", "--cpu", set()),
    ],
)
def test_accelerate_launch_has_each_file_once(models, clips, tmp_path, command, name, option, shares):
    launch = [sys.executable, "-m", "accelerate.commands.accelerate_cli", "launch", option, "--num_processes", "2"]
    words = words_of(command, models, clips, tmp_path / "two" / name)
    # Without the configuration of whoever runs the tests.
    environment = os.environ | {
        "OMP_NUM_THREADS": "1",
        "HF_HOME": str(tmp_path / "home"),
        "ACCELERATE_USE_CPU": "true",
    }
    command_line = [*launch, "-m", "transformers_beats", *map(str, words)]
    result = subprocess.run(command_line, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr[-3000:]
    assert {*re.findall(r"\(share (\d) of 2\)", result.stderr)} == shares
    run(*words_of(command, models, clips, tmp_path / "one" / name))
    check_same(tmp_path / "two" / name, tmp_path / "one" / name)
    assert not list(ranks_directory(tmp_path / "two" / name).glob("rank-*"))
