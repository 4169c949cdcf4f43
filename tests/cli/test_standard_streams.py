# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Standard input, JSON lines on standard output, and what is written to stderr."""

import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
import soundfile
from invoke import run


LABELS = ("tag", "beats_tiny_finetuned")
EMBEDDINGS = ("embed", "beats_tiny")
TOKENS = ("tokenize", "tokenizer_tiny")


def start(*arguments, **options):
    """Runs the command as a program, whose stderr is a pipe."""
    program = [sys.executable, "-m", "transformers_beats", *map(str, arguments)]
    return subprocess.run(program, capture_output=True, check=False, **options)


@pytest.fixture(scope="module")
def damaged(tmp_path_factory):
    """An MP3 about whose frames mpg123, in libsndfile, writes to stderr."""
    if "MP3" not in soundfile.available_formats():
        pytest.skip("this libsndfile has no MP3")
    path = tmp_path_factory.mktemp("damaged") / "damaged.mp3"
    generator = np.random.default_rng(0)
    soundfile.write(path, 0.3 * generator.standard_normal(16000 * 6), 16000)
    data = bytearray(path.read_bytes())
    for place in range(2000, len(data) - 200, 700):
        data[place : place + 40] = generator.integers(0, 256, 40, dtype=np.uint8).tobytes()
    path.write_bytes(data)
    read = [
        sys.executable,
        "-c",
        f"from transformers_beats.audio.decoding import decode_audio; decode_audio({str(path)!r})",
    ]
    if b"libmpg123" not in subprocess.run(read, capture_output=True, check=False).stderr:
        pytest.skip("this libsndfile writes nothing to stderr")
    return path


# Standard input


@pytest.mark.parametrize(("command", "model"), [LABELS, EMBEDDINGS, TOKENS])
def test_standard_input_has_the_results_of_its_file(models, sounds, command, model):
    arguments = (command, "-m", models / model, "--device", "cpu", "--json")
    of_file = json.loads(run(*arguments, sounds / "a.flac").stdout)
    of_input = json.loads(run(*arguments, "-", input=(sounds / "a.flac").read_bytes()).stdout)
    assert (of_input.pop("file"), of_file.pop("file")) == ("-", str(sounds / "a.flac"))
    assert of_input == of_file


def test_standard_input_has_a_name_in_directories(models, sounds, tmp_path):
    model = models / "beats_tiny"
    run("embed", "-m", model, "-", "-o", tmp_path, "--device", "cpu", input=(sounds / "a.wav").read_bytes())
    assert np.load(tmp_path / "stdin.npy").shape == (64,)


def test_standard_input_that_is_empty_is_refused(models):
    result = run("tag", "-m", models / "beats_tiny_finetuned", "-", input=b"", exit_code=2)
    assert result.stderr == (
        "error: - is standard input, which is empty: the program before the pipe has written nothing.\n"
    )


@pytest.mark.skipif(not hasattr(os, "openpty"), reason="needs a pseudoterminal")
def test_standard_input_that_is_a_terminal_is_not_waited_for(models):
    _, terminal = os.openpty()
    result = start("tag", "-m", models / "beats_tiny_finetuned", "-", stdin=terminal, timeout=120)
    assert result.returncode == 2
    assert b"which is a terminal: pipe audio to the command" in result.stderr


def test_standard_input_that_is_no_audio_is_named(models, tmp_path):
    arguments = ("tag", "-m", models / "beats_tiny_finetuned", "--device", "cpu")
    result = run(*arguments, "-", "--json", input=b"hello there", exit_code=1)
    assert result.stderr.startswith("standard input: holds text and no audio")
    assert json.loads(result.stdout)["status"] == "skipped"
    resumed = run(*arguments, "-", "--resume", "-o", tmp_path / "tags.csv", input=b"x", exit_code=2)
    assert "leave out --resume" in resumed.stderr


# JSON lines


@pytest.mark.parametrize(("command", "model"), [LABELS, EMBEDDINGS, TOKENS])
def test_json_lines_are_all_that_is_on_standard_output(models, sounds, tmp_path, command, model):
    (tmp_path / "broken.wav").write_text("no audio")
    arguments = (command, "-m", models / model, sounds, tmp_path / "broken.wav", "--device", "cpu", "--json")
    result = run(*arguments, exit_code=1)
    records = [json.loads(line) for line in result.stdout.splitlines()]
    assert [record["status"] for record in records] == 4 * ["ok"] + ["skipped"]
    assert "1 of 5 files could not be used." in result.stderr


def test_json_and_an_output_exclude_each_other(models, sounds, tmp_path):
    model = ("-m", models / "beats_tiny_finetuned", sounds)
    assert "leave out --output" in run("tag", *model, "--json", "-o", tmp_path / "a.csv", exit_code=2).stderr
    assert "leave out --output" in run("tag", *model, "--json", "--format", "csv", exit_code=2).stderr
    for options in ([], ["--json", "-o", tmp_path / "out"]):
        assert "--output for files, or --json" in run("embed", *model, *options, exit_code=2).stderr


def test_models_and_their_properties_are_json_lines(models):
    names = [json.loads(line)["name"] for line in run("models", "--json").stdout.splitlines()]
    assert "beats-iter3" in names
    description = json.loads(run("info", models / "beats_tiny_finetuned", "--json").stdout)
    assert len(description["labels"]) == 6
    assert description["kind"] == "BeatsForAudioClassification"


@pytest.mark.parametrize("options", [["--json"], ["--quiet"]])
def test_a_reader_that_has_enough_is_no_error_message(models, sounds, options):
    command = f"{sys.executable} -m transformers_beats tag -m '{models / 'beats_tiny_finetuned'}' --device cpu"
    line = f"{command} {' '.join(options)} '{sounds}' | true; exit ${{PIPESTATUS[0]}}"
    result = subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stderr) == (1, "")


# Standard error


def test_notes_of_a_c_library_become_a_warning_about_the_file(models, sounds, damaged, tmp_path):
    shutil.copy(damaged, tmp_path / "b.mp3")
    for name in ("a.wav", "c.wav"):
        shutil.copy(sounds / "a.wav", tmp_path / name)
    result = start("tag", "-m", models / "beats_tiny_finetuned", tmp_path, "--json", "--device", "cpu", text=True)
    assert result.returncode == 0, result.stderr
    assert "libmpg123" not in result.stderr
    warnings = {record["file"]: record["warnings"] for record in map(json.loads, result.stdout.splitlines())}
    assert [len(warnings[str(tmp_path / name)]) for name in ("a.wav", "c.wav")] == [0, 0]
    (note,) = (warning for warning in warnings[str(tmp_path / "b.mp3")] if warning.startswith("its decoder says: "))
    assert "libmpg123" not in note
    assert f"{tmp_path / 'b.mp3'}: {note}" in result.stderr.splitlines()


def test_quiet_prints_warnings_and_errors_only(models, sounds, tmp_path):
    arguments = ("tag", "-m", models / "beats_tiny_finetuned", "--device", "cpu")
    assert "Next: " in run(*arguments, sounds).stderr
    assert run(*arguments, sounds, "--quiet").stderr == ""
    soundfile.write(tmp_path / "silent.wav", np.zeros(16000), 16000)
    (line,) = run(*arguments, tmp_path, "-q", "-o", tmp_path / "out.csv").stderr.splitlines()
    assert "silent.wav: is digital silence" in line


# Before torch is imported


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["tag", "-m", "{models}/beats_tiny_finetuned", "{new}/missing.wav"], "no such file or folder"),
        (["tag", "-m", "./missing", "{sounds}"], "./missing: no such directory."),
        (["tag", "-m", "beats-iter4", "{sounds}"], "no released model has this name"),
        (["tag", "-m", "{sounds}", "{sounds}"], "is no directory of a model"),
        (["tag", "-m", "{models}/beats_tiny", "{sounds}"], "a BeatsModel knows no labels"),
        (["tag", "-m", "{new}", "{sounds}"], "holds a model of type 'wav2vec2', not a BEATs model."),
        (["tag", "-m", "{models}/beats_tiny_finetuned", "{sounds}", "-o", "{new}/old.csv"], "exists already"),
        (["embed", "-m", "{models}/tokenizer_tiny", "{sounds}", "-o", "{new}/out"], "has no encoder"),
        (["embed", "-m", "{models}/beats_tiny", "{sounds}", "-o", "{new}"], "is not empty"),
        (["tokenize", "-m", "{models}/beats_tiny", "{sounds}", "-o", "{new}/out"], "gives no audio_codes"),
        (["compare", "-m", "{models}/tokenizer_tiny", "{sounds}/a.wav", "{sounds}/a.flac"], "has no encoder"),
        (["compare", "-m", "{models}/beats_tiny", "{sounds}/a.wav", "{sounds}"], "is a folder"),
        (["index", "-m", "{models}/tokenizer_tiny", "{sounds}", "-o", "{new}/out"], "has no encoder"),
        (["index", "-m", "{models}/beats_tiny", "{sounds}", "-o", "{new}"], "holds no index"),
        (["search", "{new}/out", "{sounds}/a.wav"], "no such index"),
        (["search", "{new}", "{sounds}/a.wav"], "is no index"),
        (["distance", "-m", "{models}/beats_tiny", "{sounds}", "{new}/missing"], "no such file or folder"),
        (["info", "{new}/missing"], "no such directory"),
    ],
)
def test_wrong_paths_and_models_are_refused_before_torch_is_imported(models, sounds, tmp_path, words, message):
    (tmp_path / "config.json").write_text('{"model_type": "wav2vec2", "architectures": ["Wav2Vec2Model"]}')
    for name in ("preprocessor_config.json", "model.safetensors", "old.csv"):
        (tmp_path / name).touch()
    words = [word.format(models=models, sounds=sounds, new=tmp_path) for word in words]
    code = (
        "import sys\nfrom transformers_beats.cli.app import main\n"
        f"try:\n    sys.argv[1:] = {words!r}\n    main()\n"
        "finally:\n    print([name for name in ('torch', 'transformers') if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout) == (2, "[]\n"), result.stderr
    (line,) = result.stderr.splitlines()
    assert message in line


@pytest.mark.parametrize(("command", "model"), [LABELS, EMBEDDINGS])
def test_a_warning_about_a_recording_has_its_name_and_comes_once(models, tmp_path, caplog, command, model):
    for name, factor in (("fine.wav", 0.1), ("loud.wav", 3276.8)):
        samples = factor * np.random.default_rng(0).standard_normal(16000)
        soundfile.write(tmp_path / name, samples, 16000, subtype="FLOAT")
    result = run(command, "-m", models / model, "--device", "cpu", "--json", tmp_path)
    (line,) = result.stderr.splitlines()
    assert line.startswith(f"{tmp_path / 'loud.wav'}: reaches 1")
    assert caplog.messages == []
    fine, loud = (json.loads(text) for text in result.stdout.splitlines())
    assert (fine["warnings"], loud["warnings"]) == ([], [line.partition(": ")[2]])


# Line ends of three kinds, a sequence that colours a terminal, and a space at the beginning.
@pytest.mark.parametrize("name", ["a\nb.wav", "a\u2028b.wav", "a\x85b.wav", "a\x1b[31mb.wav", " a.wav"])
def test_names_of_files_are_printable_and_reasons_are_whole(models, tmp_path, name):
    shown = "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in name)
    folders = [tmp_path / word for word in ("bad", "quiet")]
    for folder in folders:
        folder.mkdir()
    try:
        (folders[0] / name).write_bytes(b"")
    except UnicodeEncodeError:
        pytest.skip("names of files are in an encoding that lacks a letter")
    soundfile.write(folders[1] / name, np.zeros(16000), 16000)
    options = ("-m", models / "beats_tiny_finetuned", "--device", "cpu")
    result = run("tag", *folders, *options, "--json", exit_code=1)
    reasons = [json.loads(line).get("reason") for line in result.stdout.splitlines()]
    assert "is empty, it has no bytes." in reasons
    messages = result.stderr.split("\n")
    assert f"{folders[0] / shown}: is empty, it has no bytes." in messages
    assert any(line.startswith(f"{folders[1] / shown}: is digital silence") for line in messages)
    (line, _) = run("compare", folders[1] / name, folders[0] / name, *options, exit_code=1).stderr.split("\n")
    assert line.endswith(": is empty, it has no bytes.")
    assert "\x1b" not in line
    warning = run("compare", folders[1] / name, folders[1] / name, *options).stderr
    assert warning.startswith(f"{folders[1] / shown}: is digital silence")
