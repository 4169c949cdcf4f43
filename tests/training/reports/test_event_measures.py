# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Measures of events with intervals, and the choice of thresholds and filters for each class."""

import importlib.util
import json
import sys
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from test_event_training import folder as folder
from test_event_training import run
from tiny import ENCODER

from transformers_beats import (
    BeatsConfig,
    BeatsFeatureExtractor,
    BeatsForAudioClassification,
    BeatsForAudioFrameClassification,
)
from transformers_beats.inference.events import EventSettings, find_events, settings_of_labels
from transformers_beats.inference.loading import load
from transformers_beats.inference.pipeline import BeatsAudioTaggingPipeline
from transformers_beats.inference.results import Columns
from transformers_beats.metrics.sound_event_detection import (
    LibraryInputs,
    compute_sound_event_detection,
    import_sed_scores_eval,
)
from transformers_beats.training.data.labels import LabelArguments, frame_labels
from transformers_beats.training.data.sources import DataArguments
from transformers_beats.training.evaluate import EvaluateArguments, evaluate
from transformers_beats.training.reports import psds
from transformers_beats.training.reports.events import (
    ClipEvents,
    as_kept,
    candidates,
    check_model_directory,
    column_labels,
    fit_temperature,
    keep_settings,
    resample_f1,
    score_events,
    tune_settings,
)
from transformers_beats.training.reports.psds import count_draws, resample_psds
from transformers_beats.training.reports.scoring import events_of_window
from transformers_beats.utils.errors import BeatsError, UsageError


COLUMN = 0.04


@pytest.fixture(autouse=True)
def library():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # One that is installed and cannot be imported is a failure.
        if importlib.util.find_spec("sed_scores_eval") is None:
            pytest.skip("sed_scores_eval is not installed")
        import_sed_scores_eval()
        yield


def make_clips(num_clips: int = 12, seed: int = 0) -> ClipEvents:
    """
    Scores of two classes in clips of 4 s. That of "soft" is 0.3 where it sounds and 0.05 elsewhere, that of "spiky"
    has spikes of one column everywhere. "absent" never sounds.
    """
    generator = np.random.default_rng(seed)
    tables, references = [], []
    for _ in range(num_clips):
        table = np.full((100, 3), 0.05, dtype=np.float32)
        events = []
        for label, score in ((0, 0.3), (1, 0.9)):
            first = int(generator.integers(5, 60))
            table[first : first + 30, label] = score
            events.append({"label": label, "onset": first * COLUMN, "offset": (first + 30) * COLUMN})
        spikes = np.arange(3, 100, 9)
        table[spikes, 1] = 0.95 - table[spikes, 1] * 0.9
        tables.append(table)
        references.append(events)
    return ClipEvents(tables, references, COLUMN, ["soft", "spiky", "absent"], np.arange(num_clips))


@pytest.mark.parametrize("method", ["median", "boxes"])
def test_each_class_gets_the_threshold_and_the_filter_that_it_needs(method, caplog):
    settings = tune_settings(make_clips(), method)
    assert set(settings) == {"soft", "spiky"}
    assert "1 of 3 classes have no event here that could be found" in caplog.text
    assert settings["spiky"].median_seconds > COLUMN or settings["spiky"].box_seconds
    others = make_clips(seed=1)
    plain, tuned = score_events(others, {}), score_events(others, settings)
    assert plain.metrics["collar_f1"] == 0
    assert tuned.metrics["collar_f1"] == 1
    assert tuned.metrics["segment_f1"] > 0.95
    assert tuned.metrics["psds1"] > plain.metrics["psds1"]
    # All draws are right, which does not say what other clips would give.
    assert tuned.intervals["collar_f1"] is None
    by_class = {entry["label"]: entry for entry in tuned.classes}
    assert (by_class["soft"]["events"], by_class["absent"]["collar_f1"]) == (12, None)
    assert by_class["soft"]["threshold"] == pytest.approx(settings["soft"].threshold, abs=1e-6)


@pytest.mark.parametrize(
    ("low", "high"),
    [(1e-7, 6e-7), (3e-7, 9e-7), (1e-30, 3e-30), (0.0, 1e-40), (0.3, np.nextafter(np.float32(0.3), 1)), (0.999999, 1)],
)
def test_a_kept_threshold_divides_scores_however_close_they_are(low, high, tmp_path):
    table = np.full((100, 1), low, dtype=np.float32)
    table[40:48] = high
    clips = ClipEvents([table], [[{"label": 0, "onset": 1.6, "offset": 1.92}]], COLUMN, ["rare"], np.zeros(1))
    BeatsConfig(num_labels=3).save_pretrained(tmp_path)
    keep_settings(str(tmp_path), tune_settings(clips, "median"))
    kept = settings_of_labels(BeatsConfig.from_pretrained(tmp_path))
    assert score_events(clips, kept).metrics["collar_f1"] == 1
    (event,) = find_events(Columns(table, 0, COLUMN), {0: "rare"}, EventSettings(), kept)
    assert (event.start, event.end) == (1.6, 1.92)
    assert find_events(Columns(np.full_like(table, low), 0, COLUMN), {0: "rare"}, EventSettings(), kept) == []


@pytest.mark.parametrize("num_silent", [0, 3])
@pytest.mark.parametrize(("low", "threshold"), [(0.2, 0.2), (0.0, 0.025)])
def test_a_threshold_is_never_zero(low, threshold, num_silent):
    # The event is all of the clip: every score is to be found, but for those of silence at the end, and of 0.
    table = np.linspace(low, 0.6, 25 + num_silent, dtype=np.float32)[:, None]
    table[:25] = np.linspace(low, 0.6, 25, dtype=np.float32)[:, None]
    silent = [np.arange(25 + num_silent) >= 25]
    event = {"label": 0, "onset": 0.0, "offset": 1.0 + num_silent * COLUMN}
    clips = ClipEvents([table], [[event]], COLUMN, ["hum"], np.zeros(1), silent=silent)
    settings = tune_settings(clips, "median")
    assert [each.threshold for each in settings.values()] == [threshold]
    assert score_events(clips, settings).metrics["collar_f1"] == 1


@pytest.mark.parametrize("method", ["median", "boxes"])
@pytest.mark.parametrize("scores", [(0.0, 0.0), (0.9, 0.9)])
def test_what_can_be_found_in_silence_alone_has_no_settings(scores, method, caplog):
    # The event goes on in silence for so long that none that ends there is right.
    table = np.repeat(np.array(scores, dtype=np.float32), 50)[:, None]
    silent = [np.arange(100) >= 50]
    clips = ClipEvents(
        [table], [[{"label": 0, "onset": 0.0, "offset": 4.0}]], COLUMN, ["hum"], np.zeros(1), silent=silent
    )
    assert tune_settings(clips, method) == {}
    assert "1 of 1 classes have no event here that could be found" in caplog.text


def test_measures_are_those_of_events_outside_of_silence():
    # The model always hears both; "hum" sounds in the first half, and the second is silence.
    table = np.full((100, 2), 0.98, dtype=np.float32)
    events = [{"label": 0, "onset": 0.0, "offset": 2.0}, {"label": 1, "onset": 0.0, "offset": 2.0}]
    arguments = ([table] * 3, [events] * 3, COLUMN, ["hum", "hiss"], np.arange(3))
    plain = score_events(ClipEvents(*arguments), {})
    assert plain.metrics["collar_f1"] == 0
    silent = ClipEvents(*arguments, silent=[np.arange(100) >= 50] * 3)
    for settings in ({}, tune_settings(silent, "median"), tune_settings(silent, "boxes")):
        scores = score_events(silent, settings)
        assert set(scores.metrics.values()) == {1.0}
        assert scores.calibration.counts.sum() == 3 * 50 * 2
        assert scores.calibration.error < 0.03


def test_a_temperature_makes_scores_as_frequent_as_they_say():
    generator = np.random.default_rng(0)
    logits = generator.normal(0, 2, 20000)
    labels = (generator.random(20000) < 1 / (1 + np.exp(-logits))).astype(np.float32)
    too_sure = 1 / (1 + np.exp(-3 * logits))
    assert fit_temperature(too_sure, labels) == pytest.approx(3, rel=0.05)
    assert fit_temperature(1 / (1 + np.exp(-logits)), labels) == pytest.approx(1, rel=0.05)
    assert fit_temperature(too_sure, np.zeros_like(labels)) == 1
    # Scores of exactly 0 and 1 have no finite logits.
    assert np.isfinite(fit_temperature(np.round(too_sure), labels))


def test_the_calibration_of_moments_counts_all_classes():
    clips = make_clips()
    plain = score_events(clips, {}).calibration
    assert plain.of_moments
    assert plain.counts.sum() == 12 * 100 * 3
    # "soft" is at 0.3, and sounds in all of these moments.
    assert plain.accuracies[3] == 1
    tuned = score_events(clips, {"soft": EventSettings(temperature=0.1)}).calibration
    assert tuned.counts[3] == 0


def test_clips_that_were_not_labelled_for_a_class_say_nothing_of_it():
    clips, others = make_clips(6), make_clips(6, seed=1)
    # "spiky" is full of false alarms where it is not known, and "soft" sounds there without a label.
    noise = ClipEvents(
        [1 - table for table in others.tables], [[] for _ in others.tables], COLUMN, clips.names, np.arange(6, 12)
    )
    known = np.repeat([[True, True, True], [False, False, True]], 6, axis=0)
    both = ClipEvents(
        clips.tables + noise.tables,
        clips.references + noise.references,
        COLUMN,
        clips.names,
        np.arange(12),
        known,
    )
    settings = tune_settings(clips, "median")
    assert tune_settings(both, "median") == settings
    alone, together = score_events(clips, settings), score_events(both, settings)
    assert together.metrics == alone.metrics
    assert together.classes == alone.classes
    assert together.calibration.counts.sum() == 6 * 100 * 3 + 6 * 100
    everywhere = replace(both, known=None)
    assert score_events(everywhere, settings).metrics["collar_f1"] < alone.metrics["collar_f1"]


def test_filters_that_are_tried_have_different_numbers_of_columns():
    for seconds in (0.04, 0.16):
        sizes = [round(each.median_seconds / seconds) for each in candidates("median", seconds)]
        assert sizes == sorted(set(sizes))
        assert sizes[0] == 0
        assert all(size % 2 for size in sizes[1:])
    assert len(list(candidates("boxes", 0.04))) == len(list(candidates("median", 0.04))) + 18


def test_intervals_draw_whole_recordings():
    clips = make_clips()
    clips.tables[0][:] = 0.05
    settings = {name: EventSettings(0.2) for name in clips.names}
    low, high = score_events(clips, settings).intervals["segment_f1"]
    assert low < score_events(clips, settings).metrics["segment_f1"] <= high
    counts_of_one = score_events(
        ClipEvents(clips.tables, clips.references, COLUMN, clips.names, np.zeros(12)), settings
    )
    # A single recording is in every draw.
    assert counts_of_one.intervals["segment_f1"] is None


def test_draws_are_those_of_other_detections():
    from transformers_beats.metrics.sound_event_detection import count_events
    from transformers_beats.training.reports.events import detect

    clips = make_clips()
    counts = count_events(detect(clips, {}), clips.references, COLUMN)
    first, second = (resample_f1(counts, clips.files)["segment_f1"] for _ in range(2))
    np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("floor", [-1.0, 0.1, 0.35])
@pytest.mark.parametrize("with_known", [False, True])
def test_a_draw_has_the_psds_of_its_clips(with_known, floor, monkeypatch):
    generator = np.random.default_rng(0)
    references = [*make_clips(16).references[:6], [], *make_clips(16).references[7:]]
    # Events are heard with a level each, which some false alarms and events of the other class exceed.
    tables = []
    for events in references:
        table = 0.1 * generator.random((100, 3))
        for label in generator.integers(0, 3, size=2):
            first = int(generator.integers(80))
            table[first : first + 12, label] += 0.4 * generator.random()
        for event in events:
            first, last = round(event["onset"] / COLUMN), round(event["offset"] / COLUMN)
            table[first:last, event["label"]] += 0.3 + 0.5 * generator.random()
            table[first:last, 1 - event["label"]] += 0.5 * generator.random()
        tables.append(np.where(table < floor, 0.0, table))
    known = np.ones((16, 3), dtype=bool)
    if with_known:
        known[:3, 1] = known[7, 1] = known[12:, 0] = False
        references = [[event for event in each if known[clip, event["label"]]] for clip, each in enumerate(references)]
    inputs = LibraryInputs(tables, references, COLUMN, known=known)
    rows = [np.arange(16), *generator.integers(16, size=(3, 16)), np.array([6] * 16), np.array([7] * 16)]
    weights = np.stack([np.bincount(of_draw, minlength=16) for of_draw in rows])
    monkeypatch.setattr(psds, "CHUNK", 1000)
    draws = resample_psds(inputs, weights)
    for number, of_draw in enumerate(rows):
        wanted = compute_sound_event_detection(
            [tables[clip] for clip in of_draw], [references[clip] for clip in of_draw], COLUMN, known=known[of_draw]
        )
        for name in ("psds1", "psds2"):
            value = np.nan if wanted[name] is None else wanted[name]
            np.testing.assert_allclose(draws[name][number], value, atol=1e-9)
    assert np.isnan(draws["psds1"][4])
    assert 0 < draws["psds2"][0] < 1


def test_draws_of_a_class_of_which_nothing_is_right_or_wrong_have_a_psds():
    # A column that is within the event, and too little of it; and one that is above no threshold.
    inputs = LibraryInputs([[[0.9, 0.0]]] * 2, [[{"label": 0, "onset": 0.1, "offset": 1.5}]] * 2, 0.1)
    draws = resample_psds(inputs, np.array([[1, 1], [2, 0]]))
    assert {name: values.tolist() for name, values in draws.items()} == {"psds1": [0, 0], "psds2": [0, 0]}


def test_psds_of_many_clips_has_fewer_draws_or_none(monkeypatch):
    clips = make_clips()
    assert [count_draws(number) for number in (1, 100_000, 10_000_000)] == [1000, 500, 200]
    scores = score_events(clips, {})
    low, high = scores.intervals["psds2"]
    assert low <= scores.metrics["psds2"] <= high
    monkeypatch.setattr(psds, "MAX_SCORES", 1000)
    few = score_events(clips, {})
    assert few.metrics == scores.metrics
    assert set(few.intervals) == {"collar_f1", "segment_f1"}


def test_settings_are_kept_beside_the_rest_of_a_configuration(tmp_path):
    BeatsConfig(num_labels=3).save_pretrained(tmp_path)
    before = json.loads((tmp_path / "config.json").read_text())
    settings = {"dog": EventSettings(0.25, median_seconds=0.2), "rain": EventSettings(0.5, 0.5, box_seconds=0.48)}
    keep_settings(str(tmp_path), settings)
    config = BeatsConfig.from_pretrained(tmp_path)
    assert config.event_settings == {"dog": as_kept(settings["dog"]), "rain": {"threshold": 0.5, "box_seconds": 0.48}}
    assert settings_of_labels(config) == settings
    after = json.loads((tmp_path / "config.json").read_text())
    assert after | {"event_settings": None} == before | {"event_settings": None}
    with pytest.raises(UsageError, match="`tune_events` writes to the model's directory, and no/model is no such"):
        check_model_directory("no/model")


@pytest.mark.parametrize("column_seconds", [0.16, 0.04])
def test_scores_that_are_the_labels_are_perfect_in_windows(column_seconds):
    # Rests of events at the beginning and the end of windows of 10 s.
    events = [(0, 5.0, 10.01), (1, 19.85, 24.0), (1, 26.0, 30.005), (0, 29.99, 34.0), (0, 3.04, 3.2)]
    events += [(1, 38.0, 50.0)]
    starts, num_columns = np.arange(5) * 10.0, round(10 // column_seconds)
    tables = [frame_labels(events, 2, num_columns, column_seconds, start) for start in starts]
    references = [events_of_window(events, start, num_columns, column_seconds) for start in starts]
    clips = ClipEvents(tables, references, column_seconds, ["bell", "dog"], np.zeros(5))
    for wanted, found in zip(tables, column_labels(clips)):
        np.testing.assert_array_equal(found, wanted)
    scores = score_events(clips, {})
    assert {name: scores.metrics[name] for name in ("collar_f1", "psds1", "psds2")} == dict.fromkeys(
        ("collar_f1", "psds1", "psds2"), 1.0
    )
    # The part from 19.85 s to 20 s is in no column of 160 ms by half.
    assert [entry["events"] for entry in scores.classes] == [3, 4 if column_seconds == 0.16 else 5]


# The command


def call_evaluate(folder: Path, output: str, seconds: float = 1.0, **arguments) -> dict:
    data = DataArguments(dataset=str(folder / "sounds"), crop_seconds=seconds)
    labels = LabelArguments(event_files=str(folder / "all.tsv"))
    return evaluate(EvaluateArguments(str(folder / "model"), str(folder / output), **arguments), data, labels)


def test_the_report_of_a_model_of_events_has_its_calibration(folder):
    run(folder, event_files=str(folder / "all.tsv"), max_steps=2)
    page = (folder / "model" / "evaluation" / "report.html").read_text()
    assert "Moments of each class in ten bins by its score" in page
    assert "Collar-based F1" in page


@pytest.mark.usefixtures("no_pictures")
def test_a_model_is_tuned_by_evaluate_and_used_with_its_settings(folder):
    run(folder, event_files=str(folder / "all.tsv"), max_steps=40)
    plain = call_evaluate(folder, "plain")
    tuned = call_evaluate(folder, "tuned", tune_events="median")
    # The best of all thresholds is at least as good as one of them.
    assert tuned["collar_f1"] >= plain["collar_f1"]
    report = json.loads((folder / "tuned" / "metrics.json").read_text())
    assert any("chosen by these clips" in note for note in report["notes"])
    assert report["intervals"]["collar_f1"][0] <= tuned["collar_f1"] <= report["intervals"]["collar_f1"][1]
    assert [entry["label"] for entry in report["events"]] == ["high", "low"]
    kept = json.loads((folder / "model" / "config.json").read_text())["event_settings"]
    assert kept
    assert all("threshold" in values for values in kept.values())
    # What was tuned is what is found, here and by the pipeline.
    again = call_evaluate(folder, "again")
    assert {name: again[name] for name in tuned} == pytest.approx(tuned)
    model, extractor = load(str(folder / "model"))
    tagger = BeatsAudioTaggingPipeline(model=model, feature_extractor=extractor)
    samples, _ = soundfile.read(folder / "sounds" / "00.wav", dtype="float32")
    by_default = tagger(samples, return_events=True)["events"]
    by_hand = [
        event
        for label, values in kept.items()
        for event in tagger(
            samples,
            return_events=True,
            event_threshold=values["threshold"],
            **{name: value for name, value in values.items() if name != "threshold"},
        )["events"]
        if event["label"] == label
    ]
    assert sorted(by_default, key=str) == sorted(by_hand, key=str)
    # A model that learns on has other scores.
    run(
        folder,
        event_files=str(folder / "all.tsv"),
        model_name_or_path=str(folder / "model"),
        output_dir=str(folder / "next"),
    )
    assert BeatsConfig.from_pretrained(folder / "next").event_settings is None


@pytest.mark.usefixtures("no_pictures")
@pytest.mark.parametrize("pooling", ["mean", "sequence"])
def test_an_evaluation_finds_the_events_of_the_pipeline(pooling, folder):
    # A model that always hears "high", in recordings whose second half is silence, or a constant.
    names = {0: "high", 1: "low"}
    model = BeatsForAudioFrameClassification(
        BeatsConfig(**ENCODER, num_labels=2, id2label=names, frame_pooling=pooling)
    )
    model.classifier.weight.data.zero_()
    model.classifier.bias.data = torch.tensor([4.0, -4.0])
    model.save_pretrained(folder / "model")
    BeatsFeatureExtractor().save_pretrained(folder / "model")
    rows = ["filename\tonset\toffset\tevent_label"]
    for number, path in enumerate(sorted((folder / "sounds").iterdir())):
        samples = 0.1 * np.random.default_rng(number).standard_normal(4 * 16000)
        samples[2 * 16000 :] = 0.25 * (number % 2)
        soundfile.write(path, samples, 16000)
        rows.append(f"{path.name}\t0.0\t2.0\thigh")
    (folder / "all.tsv").write_text("\n".join(rows) + "\n")
    tagger = BeatsAudioTaggingPipeline(model=model, feature_extractor=BeatsFeatureExtractor())
    for name in ("00.wav", "01.wav"):
        (event,) = tagger(str(folder / "sounds" / name), return_events=True)["events"]
        assert (event["label"], event["start"]) == ("high", 0)
        assert event["end"] == pytest.approx(2, abs=0.1)
    metrics = call_evaluate(folder, "report", seconds=4.0)
    assert {name: metrics[name] for name in ("collar_f1", "psds1", "psds2")} == dict.fromkeys(
        ("collar_f1", "psds1", "psds2"), 1.0
    )
    # The last column of noise may reach into the third second.
    assert metrics["segment_f1"] >= 0.8
    # In windows of a second, each has a part of the event, or none.
    assert call_evaluate(folder, "windows", tune_events="median")["collar_f1"] == 1


@pytest.mark.usefixtures("no_pictures")
def test_what_cannot_be_tuned_is_refused_and_changes_nothing(folder, monkeypatch):
    names = {0: "high", 1: "low"}
    model = BeatsForAudioFrameClassification(BeatsConfig(**ENCODER, num_labels=2, id2label=names))
    model.save_pretrained(folder / "model")
    BeatsFeatureExtractor().save_pretrained(folder / "model")
    (folder / "plain").mkdir()
    before = (folder / "model" / "config.json").read_bytes()
    with pytest.raises(BeatsError, match="plain"):
        call_evaluate(folder, "plain", tune_events="median")
    assert (folder / "model" / "config.json").read_bytes() == before
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "sed_scores_eval", None)
        with pytest.raises(BeatsError, match=r"evaluated by sed_scores_eval, which cannot be imported .*pip install"):
            call_evaluate(folder, "report", tune_events="median")
    assert (folder / "model" / "config.json").read_bytes() == before
    # A model of clips has no scores of moments.
    BeatsForAudioClassification(model.config).save_pretrained(folder / "model")
    with pytest.raises(BeatsError, match="has scores of clips, none of moments, and the labels are events"):
        call_evaluate(folder, "events")
    events = [{"file_name": "00.wav", "labels": [{"label": "high", "onset": 0.0, "offset": 0.3}]}]
    (folder / "sounds" / "metadata.jsonl").write_text("\n".join(map(json.dumps, events)) + "\n")
    with pytest.raises(BeatsError, match="has scores of clips, none of moments, and the labels are events"):
        evaluate(
            EvaluateArguments(str(folder / "model"), str(folder / "other")),
            DataArguments(dataset=str(folder / "sounds")),
            LabelArguments(label_column="labels"),
        )
    with pytest.raises(UsageError, match="no such directory"):
        evaluate(
            EvaluateArguments("beats-iter3", str(folder / "other"), tune_events="median"),
            DataArguments(dataset=str(folder / "sounds")),
            LabelArguments(event_files=str(folder / "all.tsv")),
        )
