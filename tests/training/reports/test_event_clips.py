# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Scores, events and silence of windows, and evaluations of events where the library behind the measures fails."""

import os
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from test_event_training import folder as folder
from test_event_training import run
from tiny import ENCODER

from transformers_beats import BeatsConfig, BeatsFeatureExtractor, BeatsForAudioFrameClassification
from transformers_beats.inference.events import EventSettings, find_events
from transformers_beats.inference.results import Columns
from transformers_beats.inference.windowed import WindowedInference
from transformers_beats.inference.windows import count_steps
from transformers_beats.training import evaluate as evaluate_module
from transformers_beats.training.data.clips import prepare_clips
from transformers_beats.training.data.labelled import LabelledClips, Windows
from transformers_beats.training.data.labels import LabelArguments, Labels
from transformers_beats.training.data.sources import DataArguments, load_audio_dataset
from transformers_beats.training.evaluate import EvaluateArguments, evaluate
from transformers_beats.training.reports.events import (
    ClipEvents,
    calibrate_events,
    check_model_directory,
    column_labels,
    detect,
    process_tables,
)
from transformers_beats.training.reports.scoring import event_clips
from transformers_beats.utils import files
from transformers_beats.utils.errors import BeatsError, UsageError


RATE, COLUMN = 16000, 0.04
EXTRACTOR = BeatsFeatureExtractor()
POOLINGS = ["mean", "sequence"]


# Silence


def make_clips(silent: list[np.ndarray] | None) -> ClipEvents:
    """Scores of 0.95 of a class that sounds in the first half of a clip, and of 0.2 of one that never does."""
    table = np.tile(np.array([0.95, 0.2], dtype=np.float32), (100, 1))
    event = {"label": 0, "onset": 0.0, "offset": 2.0}
    return ClipEvents([table, table.copy()], [[event], [event]], COLUMN, ["on", "off"], np.arange(2), silent=silent)


SILENT = [np.arange(100) >= 50, np.isin(np.arange(100), [10, 11, 99])]
SETTINGS = [
    EventSettings(),
    EventSettings(median_seconds=0.36),
    EventSettings(box_seconds=0.48, merge_ratio=2.0),
    EventSettings(0.1, temperature=2.0, gap_seconds=0.2),
]


@pytest.mark.parametrize("settings", SETTINGS, ids=lambda each: str(vars(each)))
def test_no_event_is_in_digital_silence(settings):
    clips = make_clips(SILENT)
    of_labels = dict.fromkeys(clips.names, settings)
    for number, (found, table, silent) in enumerate(zip(detect(clips, of_labels), clips.tables, SILENT)):
        columns = Columns(table, 0, COLUMN, silent)
        events = find_events(columns, {0: "on", 1: "off"}, settings)
        wanted = np.zeros_like(found)
        for event in events:
            wanted[round(event.start / COLUMN) : round(event.end / COLUMN), clips.names.index(event.label)] = True
        np.testing.assert_array_equal(found, wanted)
        if not settings.gap_seconds:
            assert not found[silent].any()
        assert (process_tables(clips, of_labels)[number][silent] == 0).all()


def test_scores_in_silence_are_not_calibrated():
    clips = make_clips(SILENT)
    np.testing.assert_array_equal(clips.column_known(), ~np.concatenate(SILENT)[:, None].repeat(2, axis=1))
    calibration = calibrate_events(clips, {})
    assert calibration.counts.sum() == 2 * (50 + 97)
    # Outside of silence, "on" sounds in the first 50 columns of both clips but for two of them.
    assert calibration.accuracies[9] == pytest.approx((50 + 48) / (50 + 97))
    assert calibrate_events(make_clips([np.ones(100, dtype=bool)] * 2), {}) is None
    known = np.array([[True, False], [False, False]])
    clips = make_clips(SILENT)
    clips.known = known
    assert clips.column_known().sum(axis=0).tolist() == [50, 0]


def read_windows(folder: Path, samples: list[np.ndarray], events: list[list], pooling: str, **arguments) -> Windows:
    """Windows of recordings with their events, of a model whose scores have this pooling."""
    folder.mkdir(exist_ok=True)
    for number, each in enumerate(samples):
        soundfile.write(folder / f"{number:02d}.wav", each, RATE, subtype="FLOAT")
    data = DataArguments(dataset=str(folder), **arguments)
    clips = prepare_clips(load_audio_dataset(data), data, RATE)
    config = BeatsConfig(**ENCODER, num_labels=2, frame_pooling=pooling)
    labels = Labels("frames", ["on", "off"], events)
    return Windows(clips, data, EXTRACTOR, LabelledClips(labels, True, EXTRACTOR, config))


def constant_output(windows: Windows, logit: float = 4.0) -> tuple[np.ndarray, np.ndarray]:
    """Output of a model that always hears the same, as `Trainer.predict` returns it."""
    lengths = [len(windows.target(index)) for index in range(len(windows))]
    mask = np.full((len(windows), max(lengths)), -100)
    for row, length in zip(mask, lengths):
        row[:length] = 1
    return np.full((*mask.shape, 2), logit, dtype=np.float32), mask


@pytest.mark.parametrize("pooling", POOLINGS)
def test_windows_have_the_silence_of_the_inference(pooling, tmp_path):
    noise = 0.1 * np.random.default_rng(0).standard_normal((4, 3 * RATE)).astype(np.float32)
    noise[0, RATE:] = 0
    # All samples that are equal are silence, and a gap may be shorter than a column.
    noise[1, 8000:20000] = 0.25
    noise[2, 16000:16400] = 0
    clips = [*noise, np.zeros(20000, dtype=np.float32), 1e-3 * noise[3][:1000], np.full(1000, 0.25, dtype=np.float32)]
    windows = read_windows(tmp_path / "sounds", clips, [[]] * 7, pooling, crop_seconds=1.0, min_seconds=0.01)
    model = BeatsForAudioFrameClassification(windows.targets.config).eval()
    inference = WindowedInference(model, EXTRACTOR, window_seconds=2.0)
    assert len(windows.silent) == len(windows) == 4 * 3 + 2 + 1 + 1
    for index, found in enumerate(windows.silent):
        samples = windows[index]["waveform"]
        assert len(found) == count_steps(len(samples), model.config, EXTRACTOR)
        np.testing.assert_array_equal(found, inference.frames(samples, RATE).silent)
    assert [bool(found.all()) for found in windows.silent[:3]] == [False, True, True]
    assert [bool(found.all()) for found in windows.silent[13:]] == [True, False, True]
    assert not any(found.any() for found in windows.silent[6:12])
    clips = event_clips(constant_output(windows), windows, windows.targets.labels)
    assert all(found is wanted for found, wanted in zip(clips.silent, windows.silent))
    assert not detect(clips, {})[1].any()


# Events that are cut


@pytest.mark.parametrize("pooling", POOLINGS)
def test_a_cut_event_is_one_where_the_model_learns_it(pooling, tmp_path):
    generator = np.random.default_rng(0)
    noise = [0.1 * generator.standard_normal(round(seconds * RATE)) for seconds in (4, 4.3, 3.05)]
    events: list[list] = []
    for each in noise:
        onsets = generator.uniform(0, len(each) / RATE - 0.2, 30)
        lengths = generator.choice([0.01, 0.03, 0.1, 0.5, 1.3], 30)
        events.append(
            [(int(number % 2), on, on + seconds) for number, (on, seconds) in enumerate(zip(onsets, lengths))]
        )
    # A rest of 10 ms of a long event, one of most of a short one, and a short one cut in halves.
    events[0] = [(0, 0.5, 1.01), (0, 1.995, 2.02), (1, 2.99, 3.01)]
    windows = read_windows(tmp_path / "sounds", noise, events, pooling, crop_seconds=1.0, min_seconds=0.05)
    labels = windows.targets.labels
    clips = event_clips(constant_output(windows), windows, labels)
    for index, (found, of_window) in enumerate(zip(column_labels(clips), clips.references)):
        np.testing.assert_array_equal(found, windows.target(index).numpy())
        for event in of_window:
            alone = ClipEvents([clips.tables[index]], [[event]], clips.column_seconds, clips.names, np.zeros(1))
            assert column_labels(alone)[0].any() or "seconds" not in event
    first = [[(event["label"], round(event["onset"], 3)) for event in of_window] for of_window in clips.references[:4]]
    # Where a column is longer, one of a window of a second may end before its rest does.
    assert first[:3] == [[(0, 0.5)], [], [(0, 0.0), *([(1, 0.99)] if pooling == "sequence" else [])]]


# The library


def forget_library(monkeypatch) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "sed_scores_eval"]:
        monkeypatch.delitem(sys.modules, name)


BROKEN = {
    "import pkg_resources_of_old": "No module named 'pkg_resources_of_old'",
    "raise AttributeError('np.float is gone.\\nUse float.')": "np.float is gone.",
    "raise ValueError('numpy.dtype size changed')": "numpy.dtype size changed",
    "raise RuntimeError": "RuntimeError",
}


@pytest.fixture(params=BROKEN)
def broken(request, monkeypatch, tmp_path_factory) -> str:
    """Why the library that is installed cannot be imported."""
    place = tmp_path_factory.mktemp("site")
    (place / "sed_scores_eval").mkdir()
    (place / "sed_scores_eval" / "__init__.py").write_text(request.param + "\n")
    forget_library(monkeypatch)
    monkeypatch.syspath_prepend(place)
    return BROKEN[request.param]


def save_model(folder: Path) -> Path:
    config = BeatsConfig(**ENCODER, num_labels=2, id2label={0: "high", 1: "low"})
    BeatsForAudioFrameClassification(config).save_pretrained(folder / "model")
    EXTRACTOR.save_pretrained(folder / "model")
    return folder / "model"


def call_evaluate(folder: Path, output: str, **arguments) -> dict:
    data = DataArguments(dataset=str(folder / "sounds"), crop_seconds=1.0)
    labels = LabelArguments(event_files=str(folder / "all.tsv"))
    return evaluate(EvaluateArguments(str(folder / "model"), str(folder / output), **arguments), data, labels)


@pytest.mark.usefixtures("no_pictures")
def test_a_report_has_no_measures_of_events_where_the_library_cannot_be_imported(broken, folder, caplog):
    save_model(folder)
    message = f"cannot be imported ({broken}): pip install 'transformers-beats[sed]'"
    with pytest.raises(BeatsError) as error:
        call_evaluate(folder, "tuned", tune_events="median")
    assert message in str(error.value)
    assert not (folder / "tuned").exists()
    metrics = call_evaluate(folder, "report")
    assert set(metrics) == {"mAP", "auc", "d_prime", "lwlrap"}
    assert (folder / "report" / "report.html").exists()
    assert message in caplog.text


@pytest.mark.usefixtures("no_pictures")
def test_finetuning_without_the_library_has_a_report(folder, monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "sed_scores_eval", None)
    run(folder, event_files=str(folder / "all.tsv"), max_steps=1, output_dir=str(folder / "tuned"))
    assert (folder / "tuned" / "evaluation" / "metrics.json").exists()
    assert "pip install 'transformers-beats[sed]'" in caplog.text


# Directories


def test_tuning_is_refused_at_once_where_the_model_cannot_be_written(folder, monkeypatch):
    model = save_model(folder)
    access = os.access
    monkeypatch.setattr(
        files.os,
        "access",
        lambda path, mode, **options: not (mode & os.W_OK and Path(path) == model) and access(path, mode),
    )
    monkeypatch.setattr(evaluate_module, "library_error", lambda: None)
    monkeypatch.setattr(evaluate_module, "load", None)
    with pytest.raises(UsageError, match=r"config.json: cannot be written: .*model is closed to writing"):
        call_evaluate(folder, "report", tune_events="median")
    (model / "config.json").unlink()
    with pytest.raises(UsageError, match="no such directory"):
        check_model_directory(str(model))


@pytest.mark.usefixtures("no_pictures")
@pytest.mark.parametrize("step", ["replace_directory", "keep_settings"])
def test_a_model_is_tuned_only_once_there_is_a_report(step, folder, monkeypatch):
    model = save_model(folder)
    before = (model / "config.json").read_bytes()
    tuned = {"high": EventSettings(0.25, median_seconds=0.2)}
    monkeypatch.setattr(evaluate_module, "library_error", lambda: None)
    monkeypatch.setattr(evaluate_module, "tune_settings", lambda *_: tuned)
    monkeypatch.setitem(sys.modules, "sed_scores_eval", None)

    def fail(*_):
        raise BeatsError("The disk is full.")

    with monkeypatch.context() as patch:
        patch.setattr(evaluate_module, step, fail)
        with pytest.raises(BeatsError, match="The disk is full"):
            call_evaluate(folder, "report", tune_events="median")
    assert (model / "config.json").read_bytes() == before
    # Without a report, nothing is in the way of another attempt; and a finished one is not lost.
    assert (folder / "report" / "metrics.json").exists() == (step == "keep_settings")
    call_evaluate(folder, "again", tune_events="median")
    assert BeatsConfig.from_pretrained(model).event_settings == {"high": {"threshold": 0.25, "median_seconds": 0.2}}
