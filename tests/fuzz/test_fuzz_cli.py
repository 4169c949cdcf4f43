# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
# ruff: noqa: PT017  # either a result or an error: `pytest.raises` demands one
"""The command line on any folder, with any arguments, ended at any moment."""

import csv
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from fresh import COMMON, fork_server, write_program
from fuzzing import DAMAGES, IS_THOROUGH, count, damage, fuzz
from hypothesis import strategies as st
from tqdm import tqdm
from typer.testing import CliRunner

from transformers_beats.audio.files import AudioFile
from transformers_beats.cli.app import app
from transformers_beats.cli.writers import Format, open_writer, partial_file
from transformers_beats.utils.errors import UsageError


def sound(seed: int, length: int = 4000, format: str = "WAV") -> bytes:
    file = io.BytesIO()
    soundfile.write(file, 0.1 * np.random.default_rng(seed).standard_normal(length), 16000, format=format)
    return file.getvalue()


def run(*arguments):
    """Runs a command in this process: exit status 0, or 1 or 2 without a traceback."""
    result = CliRunner().invoke(app, list(map(str, arguments)))
    assert isinstance(result.exception, (SystemExit, type(None))), repr(result.exception)
    assert result.exit_code in (0, 1, 2)
    return result


def tag(models, *arguments):
    return run("tag", "--model", models / "beats_tiny_finetuned", "--device", "cpu", *arguments)


# Arguments


NUMBERS = st.one_of(st.floats().map(str), st.integers().map(str), st.sampled_from(["", "x", "1e308", "1e-320", "0x1"]))
OPTIONS = {
    "--top-k": NUMBERS,
    "--threshold": NUMBERS,
    "--event-threshold": NUMBERS,
    "--low-threshold": NUMBERS,
    "--median": NUMBERS,
    "--gap": NUMBERS,
    "--min-duration": NUMBERS,
    "--window": st.one_of(st.floats(-1).map(str), st.sampled_from(["nan", "inf", "x"])),
    "--hop": NUMBERS,
    "--event-window": st.one_of(st.floats(-1).map(str), st.sampled_from(["nan", "inf", "x"])),
    "--event-hop": NUMBERS,
    "--batch-size": NUMBERS,
    "--device": st.sampled_from(["cpu", "cuda:99", "x", "", "meta:x"]),
    "--dtype": st.sampled_from(["float32", "bfloat16", "int8", ""]),
    "--format": st.sampled_from(["table", "jsonl", "csv", "audacity", "x"]),
}


@fuzz(
    6,
    150,
    options=st.lists(st.sampled_from(sorted(OPTIONS)), unique=True, min_size=1, max_size=3).flatmap(
        lambda names: st.fixed_dictionaries({name: OPTIONS[name] for name in names})
    ),
    flags=st.lists(st.sampled_from(["--events", "--resume"]), unique=True),
    output=st.sampled_from([None, "a.jsonl", "a.csv", "tracks", "a.txt", "", ".", "sub/a.csv"]),
)
def test_any_arguments_give_results_or_one_line(models, options, flags, output):
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "a.wav").write_bytes(sound(0))
        words = [f"{key}={value}" for key, value in options.items()]
        words += [] if output is None else ["--output", str(folder / output)]
        result = tag(models, folder / "a.wav", *words, *flags)
        if result.exit_code:
            assert "rror" in result.stderr
            return
        text = result.stdout + "".join(path.read_text() for path in folder.rglob("*.*l") if path.is_file())
        assert "nan" not in text.lower().replace("nan.", "")


WORDS = st.one_of(
    st.text(max_size=5),
    st.sampled_from(["tag", "embed", "info", "tokenize", "-m", "-o", "--", "-", "/dev/null", "/", "--help"]),
)


@fuzz(20, 2000, words=st.lists(WORDS, max_size=5))
def test_any_words_give_help_or_one_line(words):
    # A word could be an id on the Hub, and a folder be searched.
    if len(words) > 1 and ("/" in words or "-m" in words or "info" in words[:1]):
        return
    run(*words)


# Folders


NAMES = st.text(
    st.characters(codec="utf-8", exclude_characters="/\0", include_characters=" \n\t\r,\"';-é漢\\$"),
    min_size=1,
    max_size=20,
).filter(lambda name: name.strip(".") and not name.startswith(".") and len(name.encode()) < 200)


@fuzz(
    3,
    60,
    names=st.lists(NAMES, min_size=1, max_size=5, unique_by=str.lower),
    kind=st.sampled_from(["jsonl", "csv", "audacity"]),
)
def test_any_file_name_comes_back_from_the_results(models, names, kind):
    with tempfile.TemporaryDirectory() as root:
        folder, output = Path(root) / "in", Path(root) / f"out{'' if kind == 'audacity' else '.' + kind}"
        folder.mkdir()
        for index, name in enumerate(names):
            (folder / f"{name}.wav").write_bytes(sound(index))
        (folder / os.fsdecode(b"latin \xe9\xff.wav")).write_bytes(sound(9))
        expected = sorted(str(path) for path in folder.iterdir())
        assert tag(models, folder, "-o", output).exit_code == 0
        assert sorted(names_in(output, kind, folder)) == expected
        before = snapshot(output)
        assert tag(models, folder, "-o", output, "--resume").exit_code == 0
        assert snapshot(output) == before


def names_in(output: Path, kind: str, folder: Path) -> set[str]:
    if kind == "audacity":
        return {str(folder / path.relative_to(output).with_suffix("")) for path in output.rglob("*.txt")}
    text = output.read_bytes().decode("utf-8", "surrogateescape")
    if kind == "csv":
        return {row[0] for row in csv.reader(io.StringIO(text, newline="")) if row} - {"file"}
    records = map(json.loads, text.split("\n")[:-1])
    return {record["file"] for record in records if record["status"] == "ok"}


def snapshot(path: Path) -> dict[str, bytes]:
    files = [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())
    return {str(file): file.read_bytes() for file in files}


@pytest.mark.parametrize("num_files", [1000 if IS_THOROUGH else 21])
def test_corrupt_files_do_not_stop_the_others(models, num_files, tmp_path):
    generator = np.random.default_rng(0)
    (tmp_path / "in").mkdir()
    corrupt, damaged = set(), set()
    for index in range(num_files):
        path = tmp_path / "in" / f"{index:04}.{('wav', 'flac', 'ogg')[index % 3]}"
        data = sound(index, format=path.suffix[1:].upper())
        if index % 5 == 0:
            data = bytes(generator.integers(256, size=index % 300).astype(np.uint8))
            corrupt.add(str(path))
        elif index % 7 == 0:
            data = damage(data, DAMAGES[index % 6], generator)
            damaged.add(str(path))
        path.write_bytes(data)
        count("test_corrupt_files_do_not_stop_the_others")
    result = tag(models, tmp_path / "in", "-o", tmp_path / "tags.jsonl")
    done = names_in(tmp_path / "tags.jsonl", "jsonl", tmp_path / "in")
    everything = {str(path) for path in (tmp_path / "in").iterdir()}
    assert everything - corrupt - damaged <= done <= everything - corrupt
    assert result.exit_code == 1
    *refused, summary, written, following = result.stderr.splitlines()
    assert all(sum(str(path) in line for line in refused) == 1 for path in everything - done)
    assert summary == f"{len(everything - done)} of {num_files} files could not be used."
    assert written.startswith(f"{len(done)} of {num_files} files: ")
    assert following.startswith("Next: ")


# Results of an earlier run


LABELS = [{"label": 'a "quoted", one', "score": 0.5}, {"label": "line\nbreak", "score": 0.25}]


@fuzz(
    60,
    3000,
    kind=st.sampled_from([Format.jsonl, Format.csv]),
    names=st.lists(NAMES, min_size=1, max_size=6, unique=True),
    data=st.data(),
)
def test_results_cut_anywhere_are_resumed_to_what_they_would_be(kind, names, data):
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "results"
        files = [AudioFile(entry, entry) for entry in sorted(names)]
        write_all(kind, path, files, resume=False)
        whole = path.read_bytes()
        # A CSV is never seen cut, but what it is made of is.
        lines = partial_file(path) if kind is Format.csv else path
        content = lines.read_bytes()
        lines.write_bytes(content[: data.draw(st.integers(0, len(content)))])
        if data.draw(st.booleans()) and kind is Format.csv:
            path.unlink()
        write_all(kind, path, files, resume=True)
        assert path.read_bytes() == whole


def write_all(kind: Format, path: Path, files: list[AudioFile], resume: bool) -> None:
    writer = open_writer(kind, path, False, resume, {})
    for file in files:
        if not writer.is_done(file):
            writer.write(file, LABELS, None)
    writer.close()


@fuzz(
    60,
    3000,
    kind=st.sampled_from([Format.jsonl, Format.csv]),
    start=st.sampled_from([b"", b"file,label,score\n", b'{"file": "a"}\n', b'{"file": "a", "labels": []}\n', b'"a']),
    rest=st.one_of(
        st.binary(max_size=60), st.just(b"x" * 200_000), st.just(b'"' + b"x" * 200_000), st.just(b"[" * 5000 + b"\n")
    ),
)
def test_any_file_is_resumed_or_refused_and_then_left_alone(kind, start, rest):
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "results"
        lines = partial_file(path) if kind is Format.csv else path
        lines.write_bytes(start + rest)
        # Those of an output that was begun.
        Path(name, ".results.settings.json").write_text("{}")
        try:
            open_writer(kind, path, False, resume=True, settings={}).close()
        except UsageError as error:
            assert len(str(error).splitlines()) == 1
            assert lines.read_bytes() == start + rest


# Processes


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["jsonl", "csv", "audacity", "npy"])
def test_killed_runs_are_resumed_to_the_same_results(models, kind, tmp_path):
    (tmp_path / "in").mkdir()
    for index in range(60):
        # Of many lengths, which share batches; a run that goes on makes other batches.
        data = sound(index, 4000 + 7919 * index % 20_000) if index % 9 else b"RIFF"
        (tmp_path / "in" / f'{index:02} "a",b.wav').write_bytes(data)
    suffix = {"jsonl": ".jsonl", "csv": ".csv"}.get(kind, "")
    command = ["embed"] if kind == "npy" else ["tag", "--event-threshold", "0.1", "--window", "0.5"]
    command += ["-m", models / ("beats_tiny" if kind == "npy" else "beats_tiny_finetuned"), tmp_path / "in"]
    command += ["--events"] if suffix else []
    assert run(*command, "-o", tmp_path / f"whole{suffix}").exit_code == 1
    expected = results_in(tmp_path / f"whole{suffix}")
    generator, output, num_killed = np.random.default_rng(0), tmp_path / f"cut{suffix}", 0
    while True:
        process = fork(*command, "-o", output, "--resume")
        if num_killed == 15:
            assert os.waitpid(process, 0)[1] == 256
            break
        time.sleep(generator.uniform(0, 0.6))
        os.kill(process, signal.SIGKILL)
        num_killed += os.waitpid(process, 0)[1] == signal.SIGKILL
        count("test_killed_runs_are_resumed_to_the_same_results")
        if num_killed < 15 and not generator.integers(4):
            shutil.rmtree(output) if output.is_dir() else output.unlink(missing_ok=True)
    assert_same_results(results_in(output), expected)


def results_in(path: Path) -> list[tuple[str, str | np.ndarray]]:
    """Arrays, and text, of all files but those that a killed run left; without what precedes their names."""
    found = []
    for name, data in snapshot(path).items():
        if not name.endswith(".partial"):
            is_array = name.endswith(".npy")
            contents = np.load(io.BytesIO(data)) if is_array else data.decode()
            found.append((name.removeprefix(str(path)), contents))
    return found


NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:e-?\d+)?")


def assert_same_results(found: list, expected: list) -> None:
    """Numbers within 1e-5, everything else exactly."""
    assert [name for name, _ in found] == [name for name, _ in expected]
    for (_, own), (_, other) in zip(found, expected):
        if isinstance(own, np.ndarray):
            assert own.shape == other.shape
            assert own.dtype == other.dtype
            np.testing.assert_allclose(own, other, atol=1e-5)
        else:
            # A run that is resumed tries skipped files again, and appends what it finds.
            own, other = (
                "".join(sorted(text.splitlines(keepends=True), key=lambda line: line.partition(".wav")[0]))
                for text in (own, other)
            )
            assert NUMBER.sub("x", own) == NUMBER.sub("x", other)
            numbers = [[float(number) for number in NUMBER.findall(text)] for text in (own, other)]
            np.testing.assert_allclose(*numbers, atol=1e-5)


def fork(*arguments) -> int:
    """A command in a child of this process, which has imported everything."""
    child = os.fork()
    if child:
        return child
    status = 70
    try:
        # The other threads of PyTorch are not in the child, which would wait for them.
        torch.set_num_threads(1)
        # The lock of progress bars is shared between processes, and a child that is killed may hold it.
        tqdm.set_lock(threading.RLock())
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1)
        os.dup2(null, 2)
        app(list(map(str, arguments)))
    except SystemExit as end:
        status = end.code
    finally:
        os._exit(status)


@pytest.fixture(scope="module")
def forked_command(tmp_path_factory) -> Path:
    """A program that is the command, forked from a process that has imported it."""
    path = tmp_path_factory.mktemp("bin") / "transformers-beats"
    modules = ["transformers.pipelines", "transformers_beats.cli.app", "transformers_beats.inference.pipeline"]
    with fork_server([*COMMON, *modules]) as address:
        write_program(path, address, "from transformers_beats.cli.app import main; main()")
        yield path


def shell(line: str, command: str, **variables) -> subprocess.CompletedProcess:
    """A line of a shell in which `$TAG` is the command."""
    environment = {**os.environ, "TAG": f"{command} tag --device cpu", **variables}
    return subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=False, env=environment)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("line", "status"),
    [
        ("$TAG -m $MODEL $IN --format jsonl | head -1; exit ${PIPESTATUS[0]}", 1),
        ("exec 3> >(true); wait $!; $TAG -m $MODEL $IN >&3", 1),
        ("$TAG -m $MODEL $IN --format jsonl > /dev/full", 1),
        ("$TAG -m $MODEL $IN > /dev/full", 1),
        ("$TAG -m $MODEL $IN --format jsonl < /dev/null <&-", 0),
        ("$TAG -m $MODEL $IN --format jsonl >&-", 2),
        ("$TAG -m $MODEL $IN --format csv 2>&-", 0),
        ("$TAG -m $MODEL $IN -o /dev/full", 2),
        ("$TAG -m $MODEL $IN -o /dev/full --resume --format csv", 2),
        ("$TAG -m $MODEL $IN -o /proc/a.jsonl", 2),
        ("$TAG -m $MODEL $IN -o /proc/a/tracks", 2),
        ("$TAG -m $MODEL $IN -o /dev/null/a.csv", 2),
        ("ulimit -f 0; $TAG -m $MODEL $IN -o $OUT/a.jsonl", 1),
        ("ulimit -f 0; $TAG -m $MODEL $IN -o $OUT/a", 1),
        ("cd $IN; $TAG -m $MODEL -o $OUT/a.csv -- -a.wav", 0),
    ],
)
def test_broken_surroundings_end_in_one_line(models, line, status, forked_command, tmp_path):
    # Long names: their lines do not fit into a pipe, so that some are written after its reader has gone.
    folder = tmp_path.joinpath("in", *4 * ["a" * 200])
    folder.mkdir(parents=True)
    for index in range(80):
        (folder / f"{index:02}.wav").write_bytes(sound(index, 400))
    (tmp_path / "in" / "-a.wav").write_bytes(sound(1))
    # A stream that is closed, or a limit, is met when a process starts.
    is_met_at_the_start = "&-" in line or "ulimit" in line
    command = f"{sys.executable} -m transformers_beats" if is_met_at_the_start else str(forked_command)
    folders = {"IN": str(tmp_path / "in"), "OUT": str(tmp_path / "out")}
    result = shell(line, command, MODEL=str(models / "beats_tiny_finetuned"), **folders)
    count("test_broken_surroundings_end_in_one_line")
    assert result.returncode == status, (result.stdout, result.stderr)
    assert "Traceback" not in result.stderr
    assert "Exception ignored" not in result.stderr
    assert len([text for text in result.stderr.split("\n") if text.startswith("error")]) <= 1
    if status == 0:
        assert "error" not in result.stderr
    assert not list(tmp_path.rglob("*.partial"))
