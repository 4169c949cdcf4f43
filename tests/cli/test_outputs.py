# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Outputs: one run at a time, full disks, results without settings, and pictures of other recordings."""

import errno
import io
import os
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from invoke import run

from transformers_beats.audio.files import AudioFile
from transformers_beats.cli import anomalies, arrays, tag, writers
from transformers_beats.cli.arrays import parts_of
from transformers_beats.cli.writers import SETTINGS, SOURCES, Format, new_result, open_writer
from transformers_beats.inference.records import open_text
from transformers_beats.utils.embeddings import digest_sources
from transformers_beats.utils.files import write_array
from transformers_beats.utils.lock import hold
from transformers_beats.utils.ranks import hold_alone, lock_of, ranks_directory


@pytest.fixture(scope="session")
def folders(tmp_path_factory):
    """Two folders with different recordings of the same names."""
    place = tmp_path_factory.mktemp("folders")
    generator = np.random.default_rng(0)
    for name in ("first", "second"):
        (place / name).mkdir()
        for number in range(3):
            samples = 0.1 * generator.standard_normal(9000 + 3000 * number)
            soundfile.write(place / name / f"{number}.wav", samples, 16000)
    return place


# Commands by the names of their outputs.
MODULES = {"tag": tag, "embed": arrays, "tokenize": arrays, "anomalies": anomalies}
COMMANDS = {
    "tags.jsonl": ["tag"],
    "tags.csv": ["tag"],
    "tracks": ["tag"],
    "all.parquet": ["embed"],
    "all.safetensors": ["embed"],
    "arrays": ["embed"],
    "tokens": ["tokenize"],
    "detector.safetensors": ["anomalies", "fit"],
}


def words_of(models: Path, folder: Path, output: Path) -> list:
    command = COMMANDS[output.name]
    names = {"tag": "beats_tiny_finetuned", "tokenize": "tokenizer_tiny"}
    return [*command, "-m", models / names.get(command[0], "beats_tiny"), folder, "--device", "cpu", "-o", output]


def names_in(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


# One run at a time


@pytest.mark.parametrize("name", COMMANDS)
def test_two_runs_do_not_write_one_output(models, folders, tmp_path, monkeypatch, name):
    output = tmp_path / "two" / name
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    run(*words_of(models, folders / "first", tmp_path / "one" / name))
    words = words_of(models, folders / "first", output)
    module = MODULES[words[0]]
    process, messages = module.process, []

    def work_with_others(*arguments, **options):
        with monkeypatch.context() as patch:
            patch.setattr(module, "process", process)
            messages.append(run(*words, "--resume", exit_code=2).stderr)
            if words[0] != "anomalies":
                patch.setenv("RANK", "0")
                patch.setenv("WORLD_SIZE", "2")
                messages.append(run(*words, exit_code=2).stderr)
        return process(*arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(module, "process", work_with_others)
        run(*words)
    assert messages
    for message in messages:
        assert "another run writes here (process " in message
        assert len(message.splitlines()) == 1
    # All is there, and nothing else; ranks leave the file that they lock.
    shutil.rmtree(ranks_directory(output), ignore_errors=True)
    assert names_in(tmp_path / "two") == names_in(tmp_path / "one")


@pytest.mark.parametrize("name", ["tags.jsonl", "tags.csv", "tracks", "all.parquet", "arrays", "tokens"])
def test_a_run_does_not_begin_while_a_rank_is_at_work(models, folders, tmp_path, name):
    output = tmp_path / name
    words = words_of(models, folders / "first", output)
    hidden = ranks_directory(output)
    with hold(hidden, wait=True), hold(hidden / "rank-1"):
        pass
    with hold(hidden / "rank-1"):
        assert "another run writes here" in run(*words, exit_code=2).stderr
    run(*words, "--resume")
    assert not lock_of(output).exists()


def test_a_directory_that_is_named_twice_is_locked_once(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path)
    with hold_alone(tmp_path / ".x.ranks", [tmp_path, tmp_path / "link"]):
        assert (tmp_path / ".lock").exists()
    with hold_alone(tmp_path / ".x.ranks", []):
        assert names_in(tmp_path) == ["link"]
    # One that a user has named like that of a lock stays.
    (tmp_path / "y" / "alone").mkdir(parents=True)
    with hold_alone(tmp_path / ".alone.ranks", [tmp_path / "y" / "alone"]):
        pass
    assert (tmp_path / "y" / "alone").is_dir()


@pytest.mark.parametrize("gone", [SOURCES, "."])
def test_results_whose_list_is_gone_are_not_removed(models, folders, tmp_path, monkeypatch, gone):
    output, process = tmp_path / "all.parquet", arrays.process

    def lose(*arguments, **options):
        failures = process(*arguments, **options)
        shutil.rmtree(parts_of(output)) if gone == "." else (parts_of(output) / gone).unlink()
        return failures

    monkeypatch.setattr(arrays, "process", lose)
    message = run(*words_of(models, folders / "first", output), exit_code=1).stderr
    assert "all.parquet: cannot be written: " in message
    assert not output.exists()
    if gone != ".":
        assert len(list(parts_of(output).glob("*.npz"))) == 3


# Results of other recordings


@pytest.mark.parametrize("name", ["all.parquet", "all.safetensors"])
def test_ranks_do_not_take_results_of_another_folder_for_theirs(models, folders, tmp_path, monkeypatch, name):
    output = tmp_path / name
    monkeypatch.setenv("WORLD_SIZE", "2")
    for number in "01":
        monkeypatch.setenv("RANK", number)
        run(*words_of(models, folders / "first", output))
    content = output.read_bytes()
    for number in "01":
        monkeypatch.setenv("RANK", number)
        message = run(*words_of(models, folders / "second", output), exit_code=2).stderr
        assert f"{name}: is complete already: remove it" in message
    # The same folder, on another way to it.
    (tmp_path / "link").symlink_to(folders / "first")
    assert "1 of 1 files are done already." in run(*words_of(models, tmp_path / "link", output)).stderr
    assert output.read_bytes() == content


def test_the_digest_of_sources_depends_on_each_and_not_on_their_order():
    sources = {"a.wav": "/x/a.wav", "b.wav": "/x/b.wav", os.fsdecode(b"\xff"): os.fsdecode(b"/x/\xff")}
    digest = digest_sources(sources.items())
    assert digest == digest_sources(reversed(sources.items()))
    for name in sources:
        others = {**sources, name: "/y/" + name}, {key: sources[key] for key in sources if key != name}
        assert digest not in [digest_sources(other.items()) for other in others]


# Full disks


@pytest.mark.skipif(os.name != "posix", reason="limits of files are those of Unix")
@pytest.mark.parametrize("size", [1000, 1032, 3000, 200_000])
@pytest.mark.parametrize("order", ["C", "F"])
def test_an_array_is_written_as_a_whole_or_not_at_all(tmp_path, size, order):
    import resource

    array = np.asarray(np.arange(size, dtype=np.int32).reshape(-1, 8), order=order)
    path = tmp_path / "tokens" / "a.npy"
    with new_result(path) as temporary:
        write_array(temporary, array)
    np.testing.assert_array_equal(np.load(path), array)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    # All but the last bytes, as on a disk that is full then.
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size - 32, before[1]))
    try:
        with (
            pytest.raises(OSError, match=re.escape(str(path.with_name("b.npy")))),
            new_result(path.with_name("b.npy")) as temporary,
        ):
            write_array(temporary, array)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert names_in(path.parent) == ["a.npy"]


@pytest.mark.parametrize("name", ["tracks", "arrays", "all.parquet", "detector.safetensors"])
def test_a_full_disk_is_said_with_the_result(models, folders, tmp_path, monkeypatch, name):
    def fail(*arguments, **options):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(np, "save", fail)
    monkeypatch.setattr(np, "savez", fail)
    monkeypatch.setattr(writers, "to_label_track", fail)
    (line,) = run(*words_of(models, folders / "first", tmp_path / name), exit_code=1).stderr.splitlines()
    assert line.startswith("error: [Errno 28] No space left on device: ")
    assert str(tmp_path) in line


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a device that is always full")
@pytest.mark.parametrize("name", ["tags.jsonl", "tags.csv"])
def test_closing_does_not_hide_that_a_disk_is_full(models, folders, tmp_path, monkeypatch, name):
    def open_full(path, lines):
        path.touch()
        return open_text(Path("/dev/full"), "a")

    monkeypatch.setattr(writers, "_open_stream", open_full)
    result = run(*words_of(models, folders / "first", tmp_path / name), exit_code=1)
    assert result.stderr == "error: /dev/full: cannot be written: No space left on device.\n"
    # With the results before.
    assert (tmp_path / name).exists()


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a device that is always full")
@pytest.mark.parametrize("kind", [Format.jsonl, Format.csv])
def test_an_output_that_cannot_be_closed_is_named(tmp_path, monkeypatch, kind):
    monkeypatch.setattr(writers, "_open_stream", lambda path, lines: open_text(Path("/dev/full"), "a"))
    writer = open_writer(kind, tmp_path / "tags", with_events=False, resume=False, settings={})
    writer.stream.write("what is left to be written")
    with pytest.raises(writers.OutputError, match=r"^/dev/full: cannot be written: No space left on device\.$"):
        writer.close()


# Results without settings


@pytest.mark.parametrize("name", ["tags.jsonl", "tags.csv", "tracks", "arrays", "tokens"])
def test_results_without_settings_are_not_continued(models, folders, tmp_path, name):
    moved = tmp_path / "moved" / name
    moved.parent.mkdir()
    run(*words_of(models, folders / "first" / "0.wav", tmp_path / name))
    shutil.move(tmp_path / name, moved)
    if name == "tags.csv":
        shutil.move(tmp_path / ".tags.csv.jsonl", moved.parent)
    if moved.is_dir():
        (moved / SETTINGS).unlink()
    before = {path: path.read_bytes() for path in moved.parent.rglob("*") if path.is_file()}
    # Also for files that have no results yet.
    for source in (folders / "first", folders / "first" / "1.wav"):
        (line,) = run(*words_of(models, source, moved), "--resume", exit_code=2).stderr.splitlines()
        assert f"{name}: cannot be resumed without " in line
        assert SETTINGS in line
    assert {path: path.read_bytes() for path in moved.parent.rglob("*") if path.is_file()} == before


def test_vectors_of_a_detector_without_settings_are_not_continued(models, folders, tmp_path):
    output = tmp_path / "detector.safetensors"
    parts_of(output).mkdir()
    (parts_of(output) / "0.npy").touch()
    words = words_of(models, folders / "first", output)
    assert "cannot be resumed without " in run(*words, "--resume", exit_code=2).stderr
    (parts_of(output) / "0.npy").unlink()
    run(*words, "--resume")


@pytest.mark.parametrize("name", ["tags.jsonl", "tracks"])
def test_what_holds_no_results_is_begun(models, folders, tmp_path, name):
    output = tmp_path / name
    if name == "tracks":
        output.mkdir()
        (output / "notes.txt").write_text("no label track")
    else:
        output.touch()
    run(*words_of(models, folders / "first", output), "--resume")
    assert "3 of 3 files are done already." in run(*words_of(models, folders / "first", output), "--resume").stderr


# Pictures


def test_pictures_of_other_recordings_are_not_taken(models, folders, tmp_path):
    pictures = ["--pictures", tmp_path / "pictures"]
    run(*words_of(models, folders / "first", tmp_path / "tags.csv"), *pictures)
    before = {path: path.read_bytes() for path in (tmp_path / "pictures").iterdir()}
    assert len(before) == 5
    second = words_of(models, folders / "second", tmp_path / "tags.jsonl")
    assert "pictures: is not empty" in run(*second, *pictures, exit_code=2).stderr
    message = run(*second, *pictures, "--resume", exit_code=2).stderr
    assert f"0.wav.png is the result of {folders}/first/0.wav, not of {folders}/second/0.wav" in message
    # Not written for nothing.
    assert not (tmp_path / "tags.jsonl").exists()
    first = words_of(models, folders / "first", tmp_path / "tags.jsonl")
    message = run(*first, *pictures, "--resume", "--event-threshold", "0.1", exit_code=2).stderr
    assert "pictures: was begun with another `event_threshold`" in message
    assert {path: path.read_bytes() for path in (tmp_path / "pictures").iterdir()} == before
    # They depend on no option of labels.
    run(*first, *pictures, "--resume", "--top-k", "2")
    (tmp_path / "pictures" / "1.wav.png").unlink()
    assert "2 of 3 files are done already." in run(*first, *pictures, "--resume", "--top-k", "2").stderr


def test_pictures_and_results_share_a_directory(models, folders, tmp_path):
    for output in (tmp_path / "tracks", tmp_path / "both" / "tags.csv"):
        words = words_of(models, folders / "first", output)
        directory = output.parent if output.suffix else output
        for options in ([], ["--resume"]):
            run(*words, "--pictures", directory, *options)
        assert len(list(directory.glob("*.png"))) == 3
        assert output.exists()
        assert not ranks_directory(output).exists()


def test_pictures_are_begun_without_an_output(models, folders, tmp_path):
    words = words_of(models, folders / "first", tmp_path / "tags.csv")[:-2]
    run(*words, "--pictures", tmp_path / "pictures")
    assert "is not empty" in run(*words, "--pictures", tmp_path / "pictures", exit_code=2).stderr
    with hold(tmp_path / "others"):
        assert "another run writes here" in run(*words, "--pictures", tmp_path / "others", exit_code=2).stderr


# Names


@pytest.mark.parametrize("suffix", [".parquet", ".safetensors", ".npy", ".NPZ", ".csv"])
def test_tokens_are_no_single_file(models, folders, tmp_path, suffix):
    words = words_of(models, folders / "first", tmp_path / "tokens")[:-1]
    (line,) = run(*words, tmp_path / f"tokens{suffix}", exit_code=2).stderr.splitlines()
    assert f"tokens{suffix}: tokenize writes a .npy for each file, and no {suffix.lower()} file" in line
    assert names_in(tmp_path) == []
    # A directory of such a name, and other names with a dot.
    (tmp_path / f"tokens{suffix}").mkdir()
    for name in (f"tokens{suffix}", "run-1.2"):
        run(*words, tmp_path / name)
        assert len(list((tmp_path / name).glob("*.npy"))) == 3


def test_the_current_directory_is_an_output(models, folders, tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    words = words_of(models, folders / "first", tmp_path / "arrays")[:-1]
    run(*words, ".")
    assert "3 of 3 files are done already." in run(*words, "./", "--resume").stderr
    assert names_in(tmp_path) == ["here", *(f"here/{name}" for name in sorted(os.listdir()))]


class Terminal(io.TextIOWrapper):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("encoding", ["cp1252", "ascii", "utf-8"])
def test_standard_output_takes_any_name(monkeypatch, encoding):
    name = os.fsdecode("/音\né".encode() + b"\xff.wav")
    for kind in (io.TextIOWrapper, Terminal):
        data = io.BytesIO()
        monkeypatch.setattr(sys, "stdout", kind(data, encoding=encoding))
        writer = open_writer(Format.csv, None, with_events=False, resume=False, settings={})
        writer.write(AudioFile(name, name), [{"label": "x", "score": 1.0}], None)
        if kind is Terminal:
            assert b"\xff" not in data.getvalue()
            assert b"?.wav" in data.getvalue()
        else:
            assert os.fsencode(name) in data.getvalue()
            assert b"\r" not in data.getvalue()


def test_an_output_below_a_file_is_refused_in_one_line(models, folders, tmp_path):
    (tmp_path / "file").touch()
    for name in COMMANDS:
        words = words_of(models, folders / "first", tmp_path / "file" / name)
        (line,) = run(*words, exit_code=2).stderr.splitlines()
        assert line.startswith("error: ")
        assert name in line
