# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
import csv
import errno
import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest
import soundfile
import torch
from invoke import run
from pyarrow import parquet
from safetensors import safe_open
from safetensors.numpy import load_file as load_numpy

from transformers_beats import (
    BeatsFeatureExtractor,
    BeatsForAudioFrameClassification,
    BeatsForPreTraining,
    BeatsModel,
    BeatsTokenizerModel,
)
from transformers_beats.audio.files import AudioFile
from transformers_beats.cli import arrays, writers
from transformers_beats.cli.writers import Format, open_writer
from transformers_beats.inference import loading
from transformers_beats.inference.pipeline import BeatsAudioTaggingPipeline
from transformers_beats.inference.windowed import WindowedInference
from transformers_beats.plotting import timeline
from transformers_beats.utils.errors import UsageError


RATE = 16000
# Everything the golden checkpoint hears, it hears all the time.
EVENTS = ["--events", "--event-threshold", "0", "--window", "1"]


# The last columns of every CSV.
ENDS = ["duration", "stated_duration", "status", "reason"]
NAMES = ["a.flac", "a.wav", "deep/b.ogg", "deep/er/c é.WAV"]


def tag(models, *arguments, **kwargs):
    return run("tag", "--model", models / "beats_tiny_finetuned", "--device", "cpu", *arguments, **kwargs)


def records_of(path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture
def corrupt(sounds, tmp_path):
    """The folder, with a corrupt file in the middle."""
    folder = tmp_path / "sounds"
    for name in NAMES:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes((sounds / name).read_bytes())
    (folder / "broken.wav").write_bytes(b"RIFF and nothing else")
    return folder


# tag


def test_tag_prints_a_table(models, sounds):
    output = tag(models, sounds, "--top-k", 2).stdout
    assert output.split()[:3] == ["File", "Score", "Label"]
    assert [name for name in NAMES if name.split("/")[-1] in output] == NAMES
    # The header, a line, and two labels for each file.
    assert len([line for line in output.splitlines() if line.strip()]) == 2 + 2 * 4
    assert "notes.txt" not in output


def test_tag_writes_json_lines_with_the_scores_of_the_pipeline(models, sounds, tmp_path):
    tag(models, sounds, "--output", tmp_path / "tags.jsonl", "--top-k", 3)
    records = records_of(tmp_path / "tags.jsonl")
    assert [record["file"] for record in records] == [str(sounds / name) for name in NAMES]
    model, extractor = loading.load(str(models / "beats_tiny_finetuned"), "cpu")
    tagger = BeatsAudioTaggingPipeline(model=model, feature_extractor=extractor, device="cpu")
    for record in records:
        expected = tagger(record["file"], top_k=3)
        assert [item["label"] for item in record["labels"]] == [item["label"] for item in expected]
        scores = [item["score"] for item in record["labels"]]
        assert scores == pytest.approx([item["score"] for item in expected], abs=1e-6)


def test_tag_prints_json_lines_for_other_programs(models, sounds):
    result = tag(models, sounds / "a.wav", sounds / "deep", "--format", "jsonl", *EVENTS)
    records = [json.loads(line) for line in result.stdout.splitlines()]
    assert [record["file"].rpartition("/")[2] for record in records] == ["a.wav", "b.ogg", "c é.WAV"]
    assert {event["end"] for event in records[0]["events"]} == {0.96}
    assert len(records[0]["events"]) == 6


def test_tag_writes_csv(models, sounds, tmp_path):
    tag(models, sounds, "--output", tmp_path / "tags.csv", "--top-k", 1)
    tag(models, sounds, "--output", tmp_path / "events.csv", *EVENTS)
    with open(tmp_path / "tags.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["file"] for row in rows] == [str(sounds / name) for name in NAMES]
    assert all(0 < float(row["score"]) < 1 for row in rows)
    with open(tmp_path / "events.csv", newline="") as file:
        assert next(csv.reader(file)) == ["file", "label", "score", "start", "end", *ENDS]
        assert len(list(csv.reader(file))) == 4 * 6


def test_a_file_in_which_nothing_is_heard_has_a_row(models, sounds, tmp_path):
    tag(models, sounds / "a.wav", "--output", tmp_path / "tags.csv", "--threshold", 1)
    assert (tmp_path / "tags.csv").read_text().splitlines() == [
        "file,label,score,duration,stated_duration,status,reason",
        f"{sounds / 'a.wav'},,,1.0,1.0,ok,",
    ]
    assert "nothing" in tag(models, sounds / "a.wav", "--events", "--event-threshold", 1).stdout


def test_label_tracks_are_what_audacity_reads(models, sounds, tmp_path):
    tag(models, sounds, "--output", tmp_path / "tracks", *EVENTS)
    tracks = sorted(path.relative_to(tmp_path / "tracks").as_posix() for path in (tmp_path / "tracks").rglob("*.txt"))
    assert tracks == [f"{name}.txt" for name in NAMES]
    lines = (tmp_path / "tracks" / "a.wav.txt").read_text().splitlines()
    assert "0.000000\t0.960000\tBaby cry, infant cry" in lines
    assert all(len(line.split("\t")) == 3 for line in lines)


def test_events_of_a_frame_level_model(tiny_config, sounds, tmp_path):
    tiny_config.problem_type = "multi_label_classification"
    BeatsForAudioFrameClassification(tiny_config).save_pretrained(tmp_path / "model")
    BeatsFeatureExtractor().save_pretrained(tmp_path / "model")
    run("tag", "-m", tmp_path / "model", sounds, "-o", tmp_path / "out.jsonl", "--events", "--event-threshold", 0)
    events = records_of(tmp_path / "out.jsonl")[1]["events"]
    assert {(event["start"], event["end"]) for event in events} == {(0.0, 0.96)}
    assert len(events) == 5


def test_pictures_are_drawn(models, sounds, tmp_path, monkeypatch):
    drawn = {}
    original = timeline.draw_timeline

    def draw_timeline(spectrogram, events, path, title, frame_seconds):
        # A clip-level model has windows of its own.
        assert frame_seconds is None
        drawn[title] = (spectrogram.seconds, events)
        original(spectrogram, events, path, title)

    monkeypatch.setattr(timeline, "draw_timeline", draw_timeline)
    output = tmp_path / "events.jsonl"
    tag(models, sounds / "deep", "--pictures", tmp_path / "pictures", "-o", output, *EVENTS)
    assert sorted(path.name for path in (tmp_path / "pictures").rglob("*.png")) == ["b.ogg.png", "c é.WAV.png"]
    # What is drawn is what is written.
    assert drawn.keys() == {"b.ogg", "er/c é.WAV"}
    for record, (seconds, events) in zip(records_of(output), drawn.values()):
        assert [event.label for event in events] == [event["label"] for event in record["events"]]
        assert seconds == pytest.approx(2.0 if "b.ogg" in record["file"] else 1.5, abs=0.03)
    picture = matplotlib.image.imread(tmp_path / "pictures" / "b.ogg.png")
    assert picture.shape[0] > 400
    assert len(np.unique(picture.reshape(-1, picture.shape[-1]), axis=0)) > 100


def test_a_corrupt_file_does_not_stop_the_others(models, corrupt, tmp_path):
    result = tag(models, corrupt, "--output", tmp_path / "tags.jsonl", exit_code=1)
    records = records_of(tmp_path / "tags.jsonl")
    assert [record["file"] for record in records if record["status"] == "ok"] == [str(corrupt / n) for n in NAMES]
    (skipped,) = (record for record in records if record["status"] == "skipped")
    assert skipped["file"] == str(corrupt / "broken.wav")
    assert skipped["reason"].startswith("holds text and no audio")
    assert skipped["labels"] == []
    message = result.stderr.splitlines()
    assert message[:2] == [f"{skipped['file']}: {skipped['reason']}", "1 of 5 files could not be used."]
    assert message[2] == f"4 of 5 files: {tmp_path / 'tags.jsonl'}"
    assert message[3].startswith("Next: ")


@pytest.fixture
def odd_names(sounds, tmp_path):
    """A folder with names that are no UTF-8, or as long as names may be, between two usual ones."""
    folder = tmp_path / "odd"
    folder.mkdir()
    for name in ("a.wav", os.fsdecode(b"b\xff.wav"), "c" * 247 + ".wav", "d" * 251 + ".wav", "e\n\x07.wav", "z.wav"):
        (folder / name).write_bytes((sounds / "a.wav").read_bytes())
    return folder


def test_odd_names_do_not_stop_the_others(models, odd_names, tmp_path):
    output, pictures = tmp_path / "tracks", tmp_path / "pictures"
    for _ in range(2):
        # That of 255 bytes cannot have a suffix, again and again.
        result = tag(models, odd_names, "-o", output, "--pictures", pictures, "--resume", exit_code=1)
        assert "File name too long" in result.stderr
        assert "1 of 6 files could not be used." in result.stderr
        for directory in (output, pictures):
            names = [path.name for path in directory.iterdir() if not path.name.startswith(".")]
            assert len(names) == 5
            assert any(name.startswith("c" * 247) for name in names)


def test_a_picture_that_cannot_be_drawn_does_not_stop_the_others(models, sounds, tmp_path, monkeypatch):
    original = timeline.draw_timeline

    def fail_once(spectrogram, events, path, title, frame_seconds):
        if title == "a.wav":
            raise RuntimeError("a font is missing")
        original(spectrogram, events, path, title, frame_seconds)

    arguments = (sounds, "-o", tmp_path / "tags.jsonl", "--pictures", tmp_path / "pictures")
    with monkeypatch.context() as patch:
        patch.setattr(timeline, "draw_timeline", fail_once)
        result = tag(models, *arguments, exit_code=1)
    assert result.stderr.splitlines()[0] == f"{sounds / 'a.wav'}: a font is missing"
    assert len(list((tmp_path / "pictures").rglob("*.png"))) == 3
    before = (tmp_path / "tags.jsonl").read_text()
    assert len(before.splitlines()) == 4
    # The picture that is missing is drawn, and no result is written twice.
    assert "3 of 4 files are done already." in tag(models, *arguments, "--resume").stderr
    assert len(list((tmp_path / "pictures").rglob("*.png"))) == 4
    assert (tmp_path / "tags.jsonl").read_text() == before


@pytest.mark.parametrize(("number", "num_tried"), [(errno.ENOSPC, 1), (errno.EROFS, 1), (errno.EACCES, 4)])
def test_a_full_disk_ends_it_at_once(models, sounds, tmp_path, monkeypatch, number, num_tried):
    tried = []

    def fail(stream, array):
        tried.append(array)
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(np, "save", fail)
    arguments = ("-m", models / "beats_tiny", sounds, "-o", tmp_path / "out", "--device", "cpu")
    result = run("embed", *arguments, exit_code=1)
    assert len(tried) == num_tried
    assert os.strerror(number) in result.stderr
    assert ("error: " in result.stderr) == (num_tried == 1)
    assert str(tmp_path / "out") in result.stderr


def test_a_stream_that_takes_no_more_ends_it_at_once(models, sounds, tmp_path, monkeypatch):
    monkeypatch.setattr(writers, "_open_stream", lambda path, text: FullStream())
    result = tag(models, sounds, "-o", tmp_path / "tags.jsonl", exit_code=1)
    assert result.stderr == "error: tags.jsonl: cannot be written: Input/output error.\n"


class FullStream(io.StringIO):
    name = "tags.jsonl"

    def write(self, text):
        raise OSError(errno.EIO, "Input/output error")


def test_too_little_memory_for_one_file_does_not_stop_the_others(models, sounds, tmp_path, monkeypatch):
    forward = BeatsModel.forward

    def allocate(self, input_values, *args, **kwargs):
        if input_values.shape[1] > 150:
            raise RuntimeError("[enforce fail at alloc_cpu.cpp:121] DefaultCPUAllocator: can't allocate memory")
        return forward(self, input_values, *args, **kwargs)

    monkeypatch.setattr(BeatsModel, "forward", allocate)
    result = tag(models, sounds, "-o", tmp_path / "tags.jsonl", exit_code=1)
    records = records_of(tmp_path / "tags.jsonl")
    assert [record["status"] for record in records].count("ok") == 3
    assert result.stderr.splitlines()[0] == (
        f"{sounds / 'deep' / 'b.ogg'}: a window of 1.92 s needs more memory than there is, even alone in its batch: "
        "choose shorter windows."
    )


# Resuming


@pytest.mark.parametrize(
    ("options", "difference"),
    [
        (["--window", "2"], "another `hop` (10.0, now 2.0)"),
        (["--window", "20", "--hop", "10"], "another `window` (10.0, now 20.0)"),
        (["--hop", "5"], "another `hop` (10.0, now 5.0)"),
        (["--top-k", "2"], "another `top_k` (5, now 2)"),
        (["--threshold", "0.5"], "another `threshold` (null, now 0.5)"),
        (["--dtype", "bfloat16"], 'another `dtype` ("float32", now "bfloat16")'),
        (["--events"], "another `events` (false, now true)"),
        (["-m", "{models}/other"], "another `model` ("),
    ],
)
@pytest.mark.parametrize("name", ["tags.jsonl", "tags.csv"])
def test_other_settings_are_not_mixed(models, sounds, tmp_path, options, difference, name):
    if not (models / "other").exists():
        change_weights(models / "beats_tiny_finetuned", models / "other")
    tag(models, sounds / "a.wav", "-o", tmp_path / name)
    before = (tmp_path / name).read_text()
    options = [option.format(models=models) for option in options]
    result = tag(models, sounds, "-o", tmp_path / name, "--resume", *options, exit_code=2)
    (line,) = result.stderr.splitlines()
    assert f"{name}: was begun with {difference}" in line
    assert (tmp_path / name).read_text() == before
    # What has no effect on results may differ, and so may the spelling of the defaults.
    same = ("--batch-size", 2, "--hop", 10, "--dtype", "float32")
    tag(models, sounds, "-o", tmp_path / name, "--resume", *same)


@pytest.mark.parametrize("options", [[], ["--json"], ["--pictures", "pictures"]])
def test_nothing_is_resumed_without_an_output(models, sounds, options):
    result = tag(models, sounds, *options, "--resume", exit_code=2)
    assert "--resume leaves out what is done already: add --output." in result.stderr


def change_weights(source: Path, target: Path) -> None:
    """Saves a model with other weights, and its feature extractor."""
    model, extractor = loading.load(source)
    with torch.no_grad():
        next(model.parameters()).add_(0.1)
    model.save_pretrained(target)
    extractor.save_pretrained(target)


def test_a_model_may_move(models, sounds, tmp_path):
    arguments = (sounds, "-o", tmp_path / "tags.jsonl", "--device", "cpu")
    shutil.copytree(models / "beats_tiny_finetuned", tmp_path / "copy")
    tag(models, *arguments)
    assert "4 of 4" in run("tag", "-m", tmp_path / "copy", *arguments, "--resume").stderr


def test_thresholds_that_were_tuned_are_settings_of_events_alone(models, sounds, tmp_path):
    model, source = tmp_path / "model", sounds / "a.wav"
    shutil.copytree(models / "beats_tiny_finetuned", model)
    command = ("tag", "-m", model, "--device", "cpu", source)
    of_events = (*command, "--events", "-o", tmp_path / "events.jsonl")
    of_labels = (*command, "-o", tmp_path / "labels.jsonl")
    embedded = ("embed", "-m", model, "--device", "cpu", source, "-o", tmp_path / "embedded")
    for arguments in (of_events, of_labels, embedded):
        run(*arguments)
    config = json.loads((model / "config.json").read_text())
    label = next(iter(config["id2label"].values()))
    (model / "config.json").write_text(json.dumps(config | {"event_settings": {label: {"threshold": 0.9}}}))
    for arguments in (of_labels, embedded):
        assert "1 of 1" in run(*arguments, "--resume").stderr
    (line,) = run(*of_events, "--resume", exit_code=2).stderr.splitlines()
    assert "event_settings" in line


def test_embeddings_of_a_model_that_was_trained_again_are_not_mixed(models, sounds, tmp_path):
    model = tmp_path / "model"
    shutil.copytree(models / "beats_tiny", model)
    arguments = ("embed", "-m", model, "-o", tmp_path / "out", "--device", "cpu")
    run(*arguments, sounds / "a.wav")
    change_weights(models / "beats_tiny", model)
    (line,) = run(*arguments, sounds, "--resume", exit_code=2).stderr.splitlines()
    assert "out: was begun with another `model` (" in line
    assert [path.name for path in (tmp_path / "out").rglob("*.npy")] == ["a.wav.npy"]


@pytest.mark.parametrize("name", ["tags.jsonl", "tags.csv"])
def test_relative_paths_are_found_from_another_directory(models, sounds, tmp_path, monkeypatch, name):
    monkeypatch.chdir(sounds.parent)
    tag(models, sounds.name, "-o", tmp_path / name)
    before = (tmp_path / name).read_text()
    monkeypatch.chdir(sounds)
    assert "4 of 4 files are done already." in tag(models, ".", "-o", tmp_path / name, "--resume").stderr
    assert (tmp_path / name).read_text() == before


def test_settings_of_directories_are_kept_in_them(models, sounds, tmp_path):
    arguments = ("-m", models / "beats_tiny", sounds / "a.wav", "-o", tmp_path / "out", "--device", "cpu")
    run("embed", *arguments)
    result = run("embed", *arguments, "--resume", "--grain", "column", exit_code=2)
    assert 'out: was begun with another `grain` ("clip", now "column")' in result.stderr
    tag(models, sounds / "a.wav", "-o", tmp_path / "tracks")
    result = tag(models, sounds / "a.wav", "-o", tmp_path / "tracks", "--resume", "--gap", 1, exit_code=2)
    assert "tracks: was begun with another `gap_seconds` (null, now 1.0)" in result.stderr


@pytest.mark.parametrize(
    ("command", "model", "suffix"),
    [("embed", "beats_tiny", ".npy"), ("tokenize", "tokenizer_tiny", ".npy"), ("tag", "beats_tiny_finetuned", ".txt")],
)
def test_a_result_is_not_taken_for_that_of_a_file_of_the_same_name(
    models, sounds, tmp_path, monkeypatch, command, model, suffix
):
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        shutil.copy(sounds / "a.wav", tmp_path / name)
    arguments = (command, "-m", models / model, "-o", tmp_path / "out", "--device", "cpu")
    run(*arguments, tmp_path / "first")
    (line,) = run(*arguments, tmp_path / "second", "--resume", exit_code=2).stderr.splitlines()
    assert f"out: a.wav{suffix} is the result of {tmp_path}/first/a.wav, not of {tmp_path}/second/a.wav" in line
    monkeypatch.chdir(tmp_path)
    assert "1 of 1 files are done already." in run(*arguments, "first", "--resume").stderr
    # Where there is no result yet, none can be mistaken.
    (tmp_path / "out" / f"a.wav{suffix}").unlink()
    run(*arguments, "second", "--resume")
    assert run(*arguments, "first", "--resume", exit_code=2)


def test_settings_that_are_no_settings_are_refused(models, sounds, tmp_path):
    tag(models, sounds / "a.wav", "-o", tmp_path / "tags.jsonl")
    (tmp_path / ".tags.jsonl.settings.json").write_text("[")
    result = tag(models, sounds, "-o", tmp_path / "tags.jsonl", "--resume", exit_code=2)
    assert "cannot be read as settings" in result.stderr


@pytest.mark.parametrize("name", ["tags.jsonl", "tags.csv"])
def test_a_path_may_be_spelled_in_another_way(models, sounds, tmp_path, monkeypatch, name):
    tag(models, sounds, "-o", tmp_path / name)
    num_lines = len((tmp_path / name).read_text().splitlines())
    (tmp_path / "link").symlink_to(sounds)
    monkeypatch.chdir(sounds.parent)
    for folder in (sounds.name, f"./{sounds.name}/../{sounds.name}", tmp_path / "link"):
        result = tag(models, folder, "-o", tmp_path / name, "--resume")
        assert "4 of 4 files are done already." in result.stderr
        assert len((tmp_path / name).read_text().splitlines()) == num_lines


# Folders


def test_a_link_that_leads_nowhere_is_named(models, sounds, tmp_path):
    (tmp_path / "dangling.wav").symlink_to("nowhere.wav")
    (tmp_path / "a.wav").symlink_to(sounds / "a.wav")
    result = tag(models, tmp_path, "-o", tmp_path / "tags.jsonl", exit_code=1)
    assert "dangling.wav: is a link to a file that is not there." in result.stderr
    assert [record["status"] for record in records_of(tmp_path / "tags.jsonl")] == ["ok", "skipped"]


@pytest.mark.parametrize(("suffix", "format"), [(".snd", "AU"), (".sph", "NIST"), (".voc", "VOC")])
def test_less_usual_formats_are_found_and_read(models, tmp_path, suffix, format):
    path = tmp_path / f"a{suffix}"
    soundfile.write(path, 0.1 * np.random.default_rng(0).standard_normal(8000), RATE, format=format)
    tag(models, tmp_path, "-o", tmp_path / "tags.jsonl")
    assert [record["file"] for record in records_of(tmp_path / "tags.jsonl")] == [str(path)]


# Events


@pytest.mark.parametrize(
    "option", ["--event-threshold=0", "--low-threshold=0.1", "--median=0", "--gap=0", "--min-duration=0"]
)
def test_an_option_of_events_asks_for_them(models, sounds, option):
    result = tag(models, sounds / "a.wav", "--format", "jsonl", option)
    assert json.loads(result.stdout).keys() == {"file", *ENDS, "warnings", "labels", "events"}


@pytest.mark.parametrize("option", ["--top-k=5", "--threshold=0.1"])
def test_an_option_of_labels_is_refused_where_there_are_none(models, sounds, tmp_path, option):
    for output in ([], ["-o", tmp_path / "a.csv"], ["-o", tmp_path / "tracks"]):
        result = tag(models, sounds / "a.wav", "--events", option, *output, exit_code=2)
        assert "with events only JSON lines hold labels" in result.stderr
    tag(models, sounds / "a.wav", "--events", option, "--format", "jsonl")


# Resuming after an interruption


@pytest.fixture
def tagged(monkeypatch):
    """Names of the files that the pipeline was given."""
    names = []
    original = BeatsAudioTaggingPipeline.__call__

    def call(self, inputs, **kwargs):
        paths = list(inputs)
        names.extend(Path(path.name).name for path in paths)
        return original(self, (path for path in paths), **kwargs)

    monkeypatch.setattr(BeatsAudioTaggingPipeline, "__call__", call)
    return names


def test_json_lines_are_resumed_after_the_last_whole_line(models, sounds, tmp_path, tagged):
    output = tmp_path / "tags.jsonl"
    tag(models, sounds, "--output", output)
    whole = output.read_text()
    output.write_text("".join(whole.splitlines(keepends=True)[:2]) + whole.splitlines()[2][:20])
    tagged.clear()
    result = tag(models, sounds, "--output", output, "--resume")
    assert tagged == ["b.ogg", "c é.WAV"]
    assert output.read_text() == whole
    assert "2 of 4 files are done already." in result.stderr


def test_csv_is_resumed_from_the_json_lines_beside_it(models, sounds, tmp_path, tagged):
    output, partial = tmp_path / "tags.csv", tmp_path / ".tags.csv.jsonl"
    tag(models, sounds, "--output", output)
    whole, lines = output.read_text(), partial.read_text().splitlines(keepends=True)
    # As a killed run leaves it, with two files and a half.
    output.unlink()
    partial.write_text("".join(lines[:2]) + lines[2][:20])
    tagged.clear()
    result = tag(models, sounds, "--output", output, "--resume")
    assert "2 of 4 files are done already." in result.stderr
    assert tagged == ["b.ogg", "c é.WAV"]
    assert output.read_text() == whole


def test_a_finished_csv_is_not_computed_again(models, sounds, tmp_path, tagged):
    output = tmp_path / "tags.csv"
    tag(models, sounds, "--output", output)
    whole = output.read_text()
    tagged.clear()
    assert "4 of 4 files are done already." in tag(models, sounds, "--output", output, "--resume").stderr
    assert tagged == []
    assert output.read_text() == whole


def test_a_last_line_without_its_end_is_not_computed_again(models, sounds, tmp_path, tagged):
    for name, lines in (("tags.csv", ".tags.csv.jsonl"), ("tags.jsonl", "tags.jsonl")):
        tag(models, sounds, "--output", tmp_path / name)
        whole = (tmp_path / lines).read_text()
        for kept in (whole, whole.splitlines(keepends=True)[0]):
            (tmp_path / lines).write_text(kept.removesuffix("\n"))
            tagged.clear()
            tag(models, sounds, "--output", tmp_path / name, "--resume")
            assert len(tagged) == 4 - kept.count("\n")
            assert (tmp_path / lines).read_text() == whole


def test_an_interrupted_run_writes_the_csv_of_what_is_done(models, sounds, tmp_path, monkeypatch):
    output, original = tmp_path / "tags.csv", writers.JsonLinesWriter.write

    def interrupt(self, file, *results):
        if file.path.name == "b.ogg":
            raise KeyboardInterrupt
        original(self, file, *results)

    with monkeypatch.context() as patch:
        patch.setattr(writers.JsonLinesWriter, "write", interrupt)
        result = tag(models, sounds, "--output", output, "--top-k", 1, exit_code=130)
    assert result.stderr == "interrupted\n"
    assert len(output.read_text().splitlines()) == 1 + 2
    tag(models, sounds, "--output", output, "--top-k", 1, "--resume")
    assert len(output.read_text().splitlines()) == 1 + 4


def test_csv_that_a_killed_run_has_begun_is_not_begun_anew_by_accident(models, sounds, tmp_path):
    tag(models, sounds / "a.wav", "--output", tmp_path / "tags.csv")
    (tmp_path / "tags.csv").unlink()
    result = tag(models, sounds / "a.wav", "--output", tmp_path / "tags.csv", exit_code=2)
    assert f"{tmp_path / '.tags.csv.jsonl'} is of an interrupted run" in result.stderr
    (tmp_path / ".tags.csv.jsonl").unlink()
    # Settings of an output that is gone count for nothing.
    tag(models, sounds / "a.wav", "--output", tmp_path / "tags.csv", "--top-k", 2)


def test_csv_whose_json_lines_are_missing_is_refused(models, sounds, tmp_path):
    (tmp_path / "tags.csv").write_text("file,label,score\n")
    result = tag(models, sounds, "--output", tmp_path / "tags.csv", "--resume", exit_code=2)
    assert "tags.csv: cannot be resumed without " in result.stderr
    assert (tmp_path / "tags.csv").read_text() == "file,label,score\n"


def test_csv_is_printed_file_by_file(models, sounds):
    rows = list(csv.reader(io.StringIO(tag(models, sounds, "--format", "csv", "--top-k", 1).stdout)))
    assert rows[0] == ["file", "label", "score", *ENDS]
    assert [row[0] for row in rows[1:]] == [str(sounds / name) for name in NAMES]


def test_devices_are_not_resumed():
    with pytest.raises(UsageError, match="no file of results"):
        open_writer(Format.jsonl, Path("/dev/zero"), with_events=False, resume=True, settings={})


@pytest.mark.parametrize("kind", [Format.table, Format.jsonl, Format.csv])
def test_closed_standard_output_is_said(monkeypatch, kind):
    monkeypatch.setattr(sys, "stdout", None)
    with pytest.raises(UsageError, match="Standard output is closed"):
        open_writer(kind, None, with_events=False, resume=False, settings={})


def test_csv_quotes_names_with_carriage_returns(tmp_path):
    writer = open_writer(Format.csv, tmp_path / "tags.csv", with_events=False, resume=False, settings={})
    writer.write(AudioFile(str(tmp_path / "a\rb.wav"), "a\rb.wav"), [{"label": "x", "score": 1.0}], None)
    writer.close()
    with (tmp_path / "tags.csv").open(newline="") as file:
        assert [row[0] for row in csv.reader(file)] == ["file", str(tmp_path / "a\rb.wav")]


def test_how_much_of_a_file_was_decoded_is_written(models, sounds, tmp_path):
    (tmp_path / "half.wav").write_bytes((sounds / "a.wav").read_bytes()[: 44 + 16000])
    tag(models, tmp_path / "half.wav", "-o", tmp_path / "tags.jsonl")
    (record,) = records_of(tmp_path / "tags.jsonl")
    assert (record["duration"], record["stated_duration"]) == (0.5, 1.0)
    (warning,) = record["warnings"]
    assert warning == "ends after 0.500 of 1.000 s, which its header states: it is cut off or damaged."
    tag(models, tmp_path / "half.wav", "-o", tmp_path / "tags.csv", "--top-k", 1)
    with open(tmp_path / "tags.csv", newline="") as file:
        (row,) = csv.DictReader(file)
    assert (row["duration"], row["stated_duration"]) == ("0.5", "1.0")


def test_label_tracks_that_are_there_are_kept(models, sounds, tmp_path, tagged):
    tag(models, sounds / "deep", "--output", tmp_path, "--format", "audacity")
    (tmp_path / "b.ogg.txt").unlink()
    tagged.clear()
    tag(models, sounds / "deep", "--output", tmp_path, "--format", "audacity", "--resume")
    assert tagged == ["b.ogg"]


@pytest.mark.parametrize("name", ["tags.jsonl", "tags.csv", "tracks"])
def test_without_resume_nothing_is_overwritten(models, sounds, tmp_path, name):
    tag(models, sounds / "a.wav", "--output", tmp_path / name)
    result = tag(models, sounds / "a.wav", "--output", tmp_path / name, exit_code=2)
    assert "add --resume" in result.stderr


def test_other_files_are_not_taken_for_results(models, sounds, tmp_path):
    for name, content in (("tags.jsonl", '{"a": 1}\n'), ("tags.csv", "a,b\n1,2\n")):
        (tmp_path / name).write_text(content)
        tag(models, sounds, "--output", tmp_path / name, "--resume", exit_code=2)
        assert (tmp_path / name).read_text() == content


def test_results_with_and_without_events_are_not_mixed(models, sounds, tmp_path):
    for name in ("tags.jsonl", "tags.csv"):
        tag(models, sounds / "a.wav", "--output", tmp_path / name)
        tag(models, sounds, "--output", tmp_path / name, "--resume", "--events", exit_code=2)


# embed, tokenize, info


def test_embed_writes_the_mean_of_the_hidden_states(models, sounds, tmp_path):
    run("embed", "-m", models / "beats_tiny", sounds, "-o", tmp_path / "mean", "--device", "cpu")
    run("embed", "-m", models / "beats_tiny", sounds, "-o", tmp_path / "columns", "--grain", "column")
    assert sorted(path.name for path in (tmp_path / "mean").rglob("*.npy")) == sorted(
        f"{name.split('/')[-1]}.npy" for name in NAMES
    )
    mean, columns = (np.load(tmp_path / name / "deep" / "b.ogg.npy") for name in ("mean", "columns"))
    assert (mean.shape, mean.dtype) == ((64,), np.float32)
    assert columns.shape == (12, 64)
    np.testing.assert_allclose(columns.mean(axis=0), mean, atol=1e-5)
    inference = WindowedInference(BeatsModel.from_pretrained(models / "beats_tiny"), BeatsFeatureExtractor())
    np.testing.assert_allclose(mean, inference.embed(sounds / "deep" / "b.ogg"), atol=1e-5)


def test_embed_writes_layers_and_grains(models, sounds, tmp_path):
    options = ("--layers", "0,-1", "--grain", "band")
    run("embed", "-m", models / "beats_tiny", sounds / "a.wav", "-o", tmp_path / "bands", *options)
    inference = WindowedInference(BeatsModel.from_pretrained(models / "beats_tiny"), BeatsFeatureExtractor())
    expected = inference.embed(sounds / "a.wav", layers=[0, -1], grain="band")
    found = np.load(tmp_path / "bands" / "a.wav.npy")
    assert found.shape == (2, 8, 64)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    wrong = run("embed", "-m", models / "beats_tiny", sounds, "-o", tmp_path / "x", "--layers", "99", exit_code=2)
    assert "There is no layer 99" in wrong.stderr
    wrong = ("--grain", "patch", "--pooling", "concat")
    wrong = run("embed", "-m", models / "beats_tiny", sounds, "-o", tmp_path / "x", *wrong, exit_code=2)
    assert "with `grain` 'patch', leave it out" in wrong.stderr
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize(
    ("options", "num_bands"),
    [
        ({}, None),
        ({"grain": "band", "layers": "all"}, 8),
        ({"grain": "column", "layers": "0,2"}, None),
        ({"grain": "column", "pooling": "concat"}, None),
        ({"grain": "patch"}, 8),
    ],
    ids=str,
)
def test_embed_writes_one_file_for_all(models, sounds, tmp_path, options, num_bands):
    words = [word for name, value in options.items() for word in (f"--{name}", value)]
    sounds = Path(shutil.copytree(sounds, tmp_path / "sounds"))
    (sounds / "broken.wav").write_bytes(b"RIFF, and no more")
    for name in ("all.parquet", "all.safetensors"):
        result = run("embed", "-m", models / "beats_tiny", sounds, "-o", tmp_path / name, *words, exit_code=1)
        assert f"4 of 5 files: {tmp_path / name}" in result.stderr
    inference = WindowedInference(BeatsModel.from_pretrained(models / "beats_tiny"), BeatsFeatureExtractor())
    table = parquet.read_table(tmp_path / "all.parquet")
    settings = json.loads(table.schema.metadata[b"transformers_beats"])
    assert (settings["command"], settings["grain"]) == ("embed", options.get("grain", "clip"))
    rows = table.to_pandas()
    with safe_open(tmp_path / "all.safetensors", "np") as file:
        described = json.loads(file.metadata()["transformers_beats"])
    tensors = load_numpy(tmp_path / "all.safetensors")
    assert described["layers"] == list(dict.fromkeys(rows["layer"]))
    assert set(rows["file"]) == set(tensors) == set(described["seconds"])
    for name, tensor in tensors.items():
        expected = inference.embed(sounds / name, **options)
        expected = expected.reshape(len(described["layers"]), -1, expected.shape[-1])
        np.testing.assert_allclose(tensor, expected, atol=1e-5)
        own = rows[rows["file"] == name]
        for layer, values in zip(described["layers"], expected):
            of_layer = own[own["layer"] == layer]
            np.testing.assert_allclose(np.stack(of_layer["embedding"]), values, atol=1e-5)
            bands = [None if np.isnan(band) else int(band) for band in of_layer["band"]]
            assert bands == ([None] * len(values) if num_bands is None else list(range(8)) * (len(values) // 8))
            if "column" in words or "patch" in words:
                step = np.arange(len(values)) // (num_bands or 1) * 0.16
                np.testing.assert_allclose(of_layer["start"], step)
                np.testing.assert_allclose(of_layer["end"], step + 0.16)
            else:
                assert set(of_layer["start"]) == {0.0}
                assert set(of_layer["end"]) == {described["seconds"][name]}


def test_one_file_of_embeddings_is_resumed_and_not_replaced(models, sounds, tmp_path, monkeypatch):
    output = tmp_path / "all.parquet"
    words = ("embed", "-m", models / "beats_tiny", sounds, "-o", output)

    def cut_off(*args, **kwargs):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(arrays, "join_parts", cut_off)
        run(*words, exit_code=130)
    assert not output.exists()
    assert "was begun already" in run(*words, exit_code=2).stderr
    assert "was begun with another `grain`" in run(*words, "--resume", "--grain", "band", exit_code=2).stderr
    assert "4 of 4 files are done already." in run(*words, "--resume").stderr
    assert len(parquet.read_table(output)) == 4
    before = output.read_bytes()
    assert "all.parquet: exists already" in run(*words, exit_code=2).stderr
    assert "all.parquet: is complete already" in run(*words, "--resume", exit_code=2).stderr
    assert output.read_bytes() == before
    wrong = run(*words[:-1], tmp_path / "all.csv", exit_code=2).stderr
    assert "all.csv: embeddings are no .csv file: choose a name that ends in .parquet or .safetensors" in wrong


def test_one_file_of_embeddings_keeps_what_is_done_until_all_is(models, sounds, tmp_path):
    first, second = (Path(shutil.copytree(sounds, tmp_path / name)) for name in ("first", "second"))
    broken = second / "broken.wav"
    broken.write_bytes(b"RIFF, and no more")
    output = tmp_path / "all.parquet"
    words = ("embed", "-m", models / "beats_tiny", "-o", output)
    run(*words, second, exit_code=1)
    assert len(parquet.read_table(output)) == 4
    # Files that could not be used are tried again, and earlier ones kept, whatever is named now.
    shutil.copy(sounds / "a.wav", broken)
    run(*words, broken, "--resume")
    assert len(parquet.read_table(output)) == 5
    assert sorted(path.name for path in tmp_path.glob(".*")) == []
    # Nothing at all.
    broken.write_bytes(b"RIFF, and no more")
    result = run(*words[:-1], tmp_path / "none.parquet", broken, exit_code=1)
    assert "none.parquet" not in result.stderr
    assert sorted(path.name for path in tmp_path.glob("*none*")) == []
    # A name that is no text, before anything is computed.
    odd = Path(os.fsdecode(os.fsencode(first) + b"/caf\xe9.wav"))
    shutil.copy(sounds / "a.wav", odd)
    result = run(*words[:-1], tmp_path / "odd.parquet", odd, exit_code=2)
    assert "its name is not UTF-8" in result.stderr


def test_layers_are_compared_by_their_numbers(models, sounds, tmp_path):
    words = ("embed", "-m", models / "beats_tiny", sounds / "a.wav", "-o", tmp_path / "run-1.2")
    run(*words)
    number = BeatsModel.from_pretrained(models / "beats_tiny").config.num_hidden_layers
    for same in ("-1", str(number), f"+{number}"):
        assert "1 of 1 files are done already." in run(*words, "--resume", "--layers", same).stderr
    assert f"another `layers` ({number}, now 1)" in run(*words, "--resume", "--layers", "1", exit_code=2).stderr


def test_many_recordings_share_a_row_group(models, sounds, tmp_path):
    run("embed", "-m", models / "beats_tiny", sounds, "-o", tmp_path / "all.parquet")
    assert parquet.ParquetFile(tmp_path / "all.parquet").num_row_groups == 1


def test_tokenize_writes_codes(models, sounds, tmp_path):
    run("tokenize", "-m", models / "tokenizer_tiny", sounds / "a.wav", "-o", tmp_path, "--device", "cpu")
    codes = np.load(tmp_path / "a.wav.npy")
    assert (codes.shape, codes.dtype) == ((6, 8), np.int32)
    tokenizer = BeatsTokenizerModel.from_pretrained(models / "tokenizer_tiny")
    expected = WindowedInference(tokenizer, BeatsFeatureExtractor()).codes(sounds / "a.wav").values
    assert (codes == expected).all()


def test_arrays_are_resumed_and_corrupt_files_named(models, corrupt, tmp_path):
    arguments = ("embed", "-m", models / "beats_tiny", corrupt, "-o", tmp_path / "out", "--device", "cpu")
    run(*arguments, exit_code=1)
    # What is there is not computed again.
    np.save(tmp_path / "out" / "a.wav.npy", np.zeros(1))
    (tmp_path / "out" / "a.flac.npy").unlink()
    (corrupt / "broken.wav").unlink()
    run(*arguments, "--resume")
    assert np.load(tmp_path / "out" / "a.wav.npy").shape == (1,)
    assert np.load(tmp_path / "out" / "a.flac.npy").shape == (64,)
    names = {path.name for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert names == {".files.json", ".settings.json", *(f"{name.rpartition('/')[2]}.npy" for name in NAMES)}
    run(*arguments, exit_code=2)


def test_info_tells_what_a_model_is(models):
    output = run("info", models / "beats_tiny_finetuned").stdout
    assert "BeatsForAudioClassification" in output
    assert "3 layers of 64, 4 heads" in output
    assert "mean 15.41663, standard deviation 6.55582" in output
    assert "a column every 160 ms" in output
    assert "6, multi_label_classification: " in output
    output = run("info", models / "tokenizer_tiny").stdout
    assert "64 codes of 16" in output
    assert "labels" not in output


def test_info_names_what_was_loaded_and_what_was_saved(tiny_config, tmp_path):
    BeatsForPreTraining(tiny_config).save_pretrained(tmp_path)
    BeatsFeatureExtractor().save_pretrained(tmp_path)
    assert "BeatsModel, of a BeatsForPreTraining" in run("info", tmp_path).stdout


def test_info_lists_labels(models):
    lines = run("info", models / "beats_tiny_finetuned", "--labels").stdout.splitlines()
    assert [line.split("\t")[0] for line in lines] == list("012345")
    names = [line.split("\t")[1] for line in lines]
    assert "Baby cry, infant cry" in names
    record = json.loads(run("info", models / "beats_tiny_finetuned", "--labels", "--json").stdout)
    assert record == {"model": str(models / "beats_tiny_finetuned"), "labels": names}
    assert json.loads(run("info", models / "beats_tiny_finetuned", "--json").stdout).items() > record.items()


# Mistakes


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["tag", "-m", "{models}/beats_tiny", "{sounds}"], "knows no labels"),
        (["tag", "-m", "./missing", "{sounds}"], "./missing: no such directory."),
        (["tag", "-m", "{models}/beats_tiny_finetuned", "{sounds}/missing.wav"], "no such file or folder"),
        (["tag", "-m", "{models}/beats_tiny_finetuned", "{models}"], "No audio in"),
        (["tag", "-m", "{models}/beats_tiny_finetuned", "{sounds}", "--hop", "20"], "hop_seconds"),
        (["tag", "-m", "{models}/beats_tiny_finetuned", "{sounds}", "-o", "{new}/tags.xml"], ".jsonl or .csv"),
        (["tag", "-m", "{models}/beats_tiny_finetuned", "{sounds}", "-o", "{new}/v1.0"], ".0 names no format: choose"),
        (["tag", "-m", "{models}/beats_tiny_finetuned", "{sounds}", "--format", "audacity"], "name a directory"),
        (["tag", "-m", "{models}/beats_tiny_finetuned", "{sounds}", "--device", "nothing"], "--device nothing"),
        (["embed", "-m", "{models}/beats_tiny", "{sounds}/a.wav", "-o", "{sounds}/a.wav"], "output directory"),
        (["embed", "-m", "{models}/beats_tiny", "{sounds}/deep", "{sounds}/deep/er", "-o", "{new}"], None),
        (["tokenize", "-m", "{models}/beats_tiny", "{sounds}", "-o", "{new}"], "gives no audio_codes"),
        (["info", "{sounds}"], "{sounds}: is no directory of a model, it has no config.json."),
        (
            ["info", "{models}/beats_tiny/model.safetensors"],
            "model.safetensors: is a file, and a model is a directory.",
        ),
        (["tag", "-m", "{models}/beats_tiny_finetuned", "{sounds}", "--window", "0"], "`window_seconds` must"),
        (["tag", "-m", "{models}/beats_tiny_finetuned", "{sounds}", "--gap", "inf"], "`gap_seconds` must"),
        (
            ["tag", "-m", "{models}/beats_tiny_finetuned", "{sounds}", "--low-threshold", "0.9"],
            "`low_threshold` (0.9) must not be above `event_threshold` (0.5)",
        ),
    ],
)
def test_mistakes_are_one_line(models, sounds, tmp_path, arguments, message):
    names = {"models": models, "sounds": sounds, "new": tmp_path / "new"}
    arguments = [argument.format(**names) for argument in arguments]
    if message is None:
        # A file that is reached in two ways is one file.
        assert run(*arguments).stderr.startswith("2 files: ")
        return
    result = run(*arguments, exit_code=2)
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: ")
    assert message.format(**names) in line


@pytest.mark.parametrize(
    ("name", "content", "message", "status"),
    [
        ("preprocessor_config.json", None, "is no directory of a model, it has no preprocessor_config.json.", 2),
        ("model.safetensors", None, "is no directory of a model, it has no model.safetensors.", 2),
        ("model.safetensors", "damaged", "cannot be loaded: ", 1),
        ("config.json", "[1]", "config.json", 1),
    ],
)
def test_what_a_model_lacks_is_said(models, sounds, tmp_path, name, content, message, status):
    model = tmp_path / "model"
    shutil.copytree(models / "beats_tiny_finetuned", model)
    (model / name).unlink()
    if content is not None:
        (model / name).write_text(content)
    (line,) = run("tag", "-m", model, sounds, exit_code=status).stderr.splitlines()
    assert line.startswith("error: ")
    assert str(model) in line
    assert message in line


def test_weights_that_a_file_cannot_hold_are_no_traceback(models, sounds, tmp_path):
    model = tmp_path / "model"
    shutil.copytree(models / "beats_tiny_finetuned", model)
    (model / "model.safetensors").unlink()
    (model / "pytorch_model.bin").write_bytes(b"no pickle")
    (line,) = run("tag", "-m", model, sounds, exit_code=1).stderr.splitlines()
    assert line.startswith(f"error: {model}: cannot be loaded")


def test_without_matplotlib_no_model_is_loaded_for_pictures(models, sounds, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    monkeypatch.setattr(loading, "load", pytest.fail)
    result = tag(models, sounds, "--pictures", tmp_path / "pictures", exit_code=1)
    assert result.stderr == "error: Pictures need matplotlib: pip install 'transformers-beats[demo]'\n"
    assert not (tmp_path / "pictures").exists()


def test_results_of_the_same_name_are_refused(models, sounds, tmp_path):
    (tmp_path / "a.wav").write_bytes((sounds / "a.wav").read_bytes())
    arguments = ("-m", models / "beats_tiny", tmp_path / "a.wav", sounds / "a.wav", "-o", tmp_path / "out")
    assert "would both be written as a.wav" in run("embed", *arguments, exit_code=2).stderr


def test_the_command_runs_as_a_program(models, sounds):
    command = [sys.executable, "-m", "transformers_beats", "tag", "--model", models / "beats_tiny_finetuned"]
    command += [sounds / "a.wav", "--device", "cpu", "--format", "jsonl"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    assert len(json.loads(result.stdout)["labels"]) == 5
