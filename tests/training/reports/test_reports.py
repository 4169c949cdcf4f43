# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Reports of evaluations: metrics, tables, and the files of a report."""

import csv
import io
import json
from dataclasses import replace

import numpy as np
import pytest
from huggingface_hub import ModelCard
from PIL import Image
from rich.console import Console
from sklearn.metrics import average_precision_score, classification_report, f1_score

from transformers_beats import BeatsFeatureExtractor
from transformers_beats.training.reports import folds as folds_module
from transformers_beats.training.reports import intervals
from transformers_beats.training.reports import pictures as report_pictures
from transformers_beats.training.reports import report as report_module
from transformers_beats.training.reports.folds import report_folds
from transformers_beats.training.reports.intervals import describe_intervals, metric_intervals, resample
from transformers_beats.training.reports.layers import LAYERS_PICTURE, Scores, print_layers, report_layers
from transformers_beats.training.reports.page import clip_losses
from transformers_beats.training.reports.pictures import draw_classes, draw_confusions
from transformers_beats.training.reports.report import (
    REPORT_FILES,
    Evidence,
    Predictions,
    check_report_directory,
    compute_metrics,
    per_class,
    read_predictions,
    worst_confusions,
    write_report,
)
from transformers_beats.training.reports.tables import print_report, print_table


DESCRIPTION = {
    "model": "someone/beats-farm",
    "dataset": "someone/farm",
    "config": None,
    "split": "test",
    "dataset_revision": "abc123",
    "torch": "2.13.0",
}
WITHOUT_LOGS = REPORT_FILES - {"learning_curve.png"}
# What a CSV file, a console with markup and a formula could stumble over.
NAMES = ["cow, mooing", 'a "dog"', "[bold]hen[/]", "$x$"]
FILES = ["a,b.wav", 'c"d.wav', "e.wav", "f.wav", "g\nh.wav"]
# A cow taken for a dog twice, a dog right; nobody hears a hen; "$x$" is only predicted.
LABELS = [0, 0, 0, 1, 1]
SCORES = [[0.6, 0.2, 0.1, 0.1], [0.1, 0.7, 0.1, 0.1], [0.2, 0.5, 0.2, 0.1], [0.1, 0.9, 0, 0], [0, 0.3, 0, 0.7]]


@pytest.fixture
def single() -> Predictions:
    return Predictions(FILES, np.array(SCORES), np.array(LABELS), NAMES)


@pytest.fixture
def multi() -> Predictions:
    labels = [[1, 0, 0, 0], [1, 1, 0, 0], [0, 1, 0, 0], [0, 0, 0, 1], [0, 0, 0, 0]]
    return Predictions(FILES, np.array(SCORES, dtype=np.float32), np.array(labels, dtype=np.float32), NAMES)


def many_classes(num_labels: int, is_multi_label: bool = False) -> Predictions:
    generator = np.random.default_rng(0)
    names = [f"class {index} with a long name, as in AudioSet" for index in range(num_labels)]
    scores = generator.random((2 * num_labels, num_labels)) / num_labels
    labels = np.repeat(np.arange(num_labels), 2)
    scores[np.arange(len(labels)), (labels + (generator.random(len(labels)) < 0.3)) % num_labels] += 0.5
    targets = np.eye(num_labels)[labels] if is_multi_label else labels
    return Predictions([f"{clip}.wav" for clip in range(len(labels))], scores, targets, names)


def printed(predictions: Predictions, metrics: dict, **others) -> str:
    file = io.StringIO()
    report = {"num_clips": len(predictions.names), "per_class": per_class(predictions), "metrics": metrics}
    found = metric_intervals([predictions])
    report |= {"intervals": found, "intervals_by": describe_intervals([predictions], metrics, found)}
    print_report(Console(file=file, width=100), predictions, report | others)
    return file.getvalue()


def test_thresholds_of_events_are_printed_however_small():
    values = {"collar_f1": 1.0, "segment_f1": 1.0, "psds1": 0.5}
    events = [{"label": "rare", "events": 3, **values, "threshold": 3.5e-7}, {"label": "dog", "events": 3, **values}]
    events[1]["threshold"] = 0.29838297
    text = printed(many_classes(3), {"accuracy": 1.0}, events=events)
    assert "3.5e-07" in text
    assert "0.298 " in text


def read_csv(path) -> list[list[str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.reader(file))


class TestPredictions:
    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"names": []}, r"not empty, got \(5, 4\)"),
            ({"names": FILES[:4]}, r"\(4, 4\) and not empty, got \(5, 4\)"),
            ({"label_names": NAMES[:3]}, r"\(5, 3\) and not empty, got \(5, 4\)"),
            ({"labels": np.zeros(4)}, r"Labels must have the shape \(5,\) or \(5, 4\), got \(4,\)"),
            ({"labels": np.array([0, 1, 2, 3, 4])}, r"from 0 to 3, got 4 for g"),
            ({"labels": np.array([0, 1, 2, -1, 0])}, r"got -1 for f\.wav"),
            ({"labels": np.array([0, 1, 2, np.nan, 0])}, r"got nan for f\.wav"),
            ({"labels": np.full((5, 4), 0.5)}, r"from 0 to 1, got 0\.5 for a,b\.wav"),
            ({"scores": np.full((5, 4), np.nan)}, "probabilities in .0, 1., got nan for a,b.wav, 'cow, mooing'"),
            ({"scores": np.full((5, 4), 7.5)}, r"got 7\.5"),
        ],
    )
    def test_that_are_none_are_refused(self, changes, message):
        arguments = {"names": FILES, "scores": np.array(SCORES), "labels": np.array(LABELS), "label_names": NAMES}
        with pytest.raises(ValueError, match=message):
            Predictions(**arguments | changes)

    def test_may_exceed_1_by_rounding(self):
        predictions = Predictions(["a"], np.array([[1.00001, 0]]), np.array([0]), ["x", "y"])
        assert predictions.scores.tolist() == [[1.0, 0.0]]


class TestMetrics:
    def test_of_single_labels_are_accuracy_and_macro_f1(self, single):
        f1 = f1_score(LABELS, [0, 1, 1, 1, 3], average="macro", zero_division=0)
        assert compute_metrics(single) == {"accuracy": 0.4, "macro_f1": pytest.approx(f1)}

    def test_of_several_labels_are_those_of_audioset(self, multi):
        metrics = compute_metrics(multi)
        ap = [average_precision_score(multi.labels[:, label], multi.scores[:, label]) for label in (0, 1, 3)]
        assert metrics["mAP"] == pytest.approx(np.mean(ap))
        assert list(metrics) == ["mAP", "auc", "d_prime", "lwlrap"]
        assert all(type(value) is float for value in metrics.values())

    def test_that_are_undefined_are_none_with_a_warning(self, monkeypatch):
        messages = []
        monkeypatch.setattr(report_module.logger, "warning", messages.append)
        predictions = Predictions(["a", "b"], np.array([[0.9], [0.1]]), np.array([[1], [0]]), ["x"])
        assert compute_metrics(predictions) == {"mAP": 1.0, "auc": 1.0, "d_prime": None, "lwlrap": 1.0}
        predictions = Predictions(["a", "b"], np.array([[0.9], [0.1]]), np.array([[0], [0]]), ["x"])
        assert compute_metrics(predictions) == {"mAP": None, "auc": None, "d_prime": None, "lwlrap": None}
        assert messages == [
            "Undefined for these 2 clips: d_prime.",
            "Undefined for these 2 clips: mAP, auc, d_prime, lwlrap.",
        ]

    def test_by_class_are_scikit_learns_or_none(self, single):
        entries = per_class(single)
        expected = classification_report(LABELS, [0, 1, 1, 1, 3], output_dict=True, zero_division=0)
        for index in (0, 1):
            assert entries[index] == {
                "label": NAMES[index],
                "support": expected[str(index)]["support"],
                "precision": pytest.approx(expected[str(index)]["precision"]),
                "recall": pytest.approx(expected[str(index)]["recall"]),
                "f1": pytest.approx(expected[str(index)]["f1-score"]),
            }
        assert entries[2] == {"label": NAMES[2], "support": 0, "precision": None, "recall": None, "f1": None}
        assert entries[3] == {"label": NAMES[3], "support": 0, "precision": 0.0, "recall": None, "f1": 0.0}

    def test_by_class_of_several_labels_are_average_precision_and_auc(self, multi):
        entries = per_class(multi)
        assert [entry["support"] for entry in entries] == [2, 2, 0, 1]
        assert entries[2] == {"label": NAMES[2], "support": 0, "ap": None, "auc": None}
        assert entries[0]["ap"] == pytest.approx(average_precision_score(multi.labels[:, 0], multi.scores[:, 0]))

    def test_confusions_come_with_the_commonest_first(self, single):
        assert worst_confusions(single) == [
            (NAMES[0], NAMES[1], 2, pytest.approx(2 / 3)),
            (NAMES[1], NAMES[3], 1, 0.5),
        ]
        assert len(worst_confusions(single, limit=1)) == 1


class TestConsole:
    def test_shows_metrics_classes_and_confusions(self, single):
        text = printed(single, compute_metrics(single) | {"own_metric": 0.25})
        assert "5 clips, 4 classes" in text
        assert "0.400" in text
        assert "own_metric" in text
        assert "Worst confusions" in text
        assert "0.667" in text
        assert "Left out, for want of clips: 1 of 4 classes" in text

    def test_takes_names_of_classes_literally(self, multi):
        multi.labels[:, 2] = 1
        assert "[bold]hen[/]" in printed(multi, {})

    def test_lists_the_worst_and_the_best_of_many_classes(self):
        predictions = many_classes(90)
        text = printed(predictions, compute_metrics(predictions))
        assert "The 20 worst and the 20 best of 90 classes" in text
        listed = text.partition("20 best")[2].partition("Worst confusions")[0]
        assert listed.count("with a long name") == 40

    def test_shows_undefined_values_and_names_literally(self):
        file = io.StringIO()
        print_table(("metric", "value"), [("[b]mAP", None), ("clips", 3), ("auc", 0.5)], console=Console(file=file))
        assert [line.split() for line in file.getvalue().splitlines()][-4:-1] == [
            ["[b]mAP", "-"],
            ["clips", "3"],
            ["auc", "0.500"],
        ]


class TestFolds:
    def test_are_averaged_without_undefined_metrics(self, tmp_path, monkeypatch):
        messages = []
        monkeypatch.setattr(folds_module.logger, "warning", messages.append)
        metrics = {"1": {"mAP": 0.5, "auc": 0.25, "d_prime": None}, "2": {"mAP": None, "auc": 0.75, "d_prime": None}}
        for name, of_fold in metrics.items():
            (tmp_path / f"fold-{name}" / "evaluation").mkdir(parents=True)
            path = tmp_path / f"fold-{name}" / "evaluation" / "metrics.json"
            path.write_text(json.dumps({"metrics": of_fold}))
        result = report_folds(tmp_path, ["1", "2"], "evaluation", {})
        assert result == {
            "folds": metrics,
            "mean": {"mAP": 0.5, "auc": 0.5, "d_prime": None},
            "std": {"mAP": None, "auc": pytest.approx(0.5**0.5 / 2), "d_prime": None},
        }
        assert messages[0] == "mAP is undefined in 1 fold(s), which its mean leaves out: ['2']."

    def test_without_a_report_are_left_out(self, tmp_path):
        (tmp_path / "fold-1" / "evaluation").mkdir(parents=True)
        (tmp_path / "fold-1" / "evaluation" / "metrics.json").write_text(json.dumps({"metrics": {"accuracy": 0.5}}))
        result = report_folds(tmp_path, ["1", "2"], "evaluation", {})
        assert (result["folds"]["2"], result["mean"]) == ({}, {"accuracy": 0.5})

    def test_say_that_measures_of_events_have_their_intervals(self, multi, tmp_path):
        evidence = Evidence(intervals={"collar_f1": (0.2, 0.5), "psds1": (0.1, 0.2)})
        metrics = compute_metrics(multi) | {"collar_f1": 0.3, "psds1": 0.15}
        for name in ("1", "2"):
            directory = tmp_path / f"fold-{name}"
            directory.mkdir()
            BeatsFeatureExtractor().save_pretrained(directory)
            write_report(directory / "evaluation", multi, metrics, DESCRIPTION, evidence)
        report_folds(tmp_path, ["1", "2"], "evaluation", DESCRIPTION)
        report = json.loads((tmp_path / "evaluation" / "metrics.json").read_text(encoding="utf-8"))
        assert report["intervals"]["collar_f1"] is None
        assert report["intervals_by"].endswith("None over folds for collar_f1, psds1: see the reports of the folds.")


def test_layers_that_are_all_right_do_not_differ(tmp_path):
    predictions = Predictions(
        [str(clip) for clip in range(8)], np.eye(2)[np.arange(8) % 2], np.arange(8) % 2, ["x", "y"]
    )
    report = report_layers(tmp_path, [Scores([predictions] * 2, ["linear"] * 2, [0, 1], [0.1, 0.2], 0)])
    assert [entry["interval"] for entry in report["layers"]] == [None, None]
    assert [entry["behind_best"] for entry in report["layers"]] == [None, (0, 0)]
    assert (tmp_path / LAYERS_PICTURE).exists()
    file = io.StringIO()
    print_layers(Console(file=file, width=100), tmp_path)
    assert "No difference from it was shown for 1 of 1 others" in file.getvalue()


def test_layers_with_too_many_scores_for_intervals_have_a_report(tmp_path, monkeypatch):
    monkeypatch.setattr(intervals, "MAX_SCORES", 10)
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 2, (8, 3))
    predictions = [Predictions([*"abcdefgh"], generator.random((8, 3)), labels, ["x", "y", "z"]) for _ in range(2)]
    report = report_layers(tmp_path, [Scores(predictions, ["linear"] * 2, [0, 1], [0.1, 0.2], 0)])
    assert [(entry["interval"], entry["behind_best"]) for entry in report["layers"]] == [(None, None)] * 2
    assert all(0 < entry["value"] <= 1 for entry in report["layers"])
    file = io.StringIO()
    print_layers(Console(file=file, width=100), tmp_path)
    assert f"Picture: {tmp_path / LAYERS_PICTURE}" in file.getvalue()
    # A picture that could not be drawn is not named.
    (tmp_path / LAYERS_PICTURE).unlink()
    file = io.StringIO()
    print_layers(Console(file=file, width=100), tmp_path)
    assert "Best on these clips" in file.getvalue()
    assert "Picture" not in file.getvalue()


class TestReport:
    def test_holds_all_files(self, single, multi, tmp_path):
        write_report(tmp_path / "a" / "single", single, compute_metrics(single), DESCRIPTION)
        write_report(tmp_path / "a" / "multi", multi, compute_metrics(multi), DESCRIPTION)
        assert {path.name for path in (tmp_path / "a" / "single").iterdir()} == WITHOUT_LOGS
        assert {path.name for path in (tmp_path / "a" / "multi").iterdir()} == WITHOUT_LOGS - {"confusion_matrix.png"}
        assert [path.name for path in sorted((tmp_path / "a").iterdir())] == ["multi", "single"]

    def test_has_metrics_as_json(self, multi, tmp_path):
        metrics = compute_metrics(multi)
        write_report(tmp_path / "report", multi, metrics, DESCRIPTION | {"folder": tmp_path})
        report = json.loads((tmp_path / "report" / "metrics.json").read_text(encoding="utf-8"))
        assert report["metrics"] == metrics
        assert report["description"] == DESCRIPTION | {"folder": str(tmp_path)}
        assert report["num_clips"] == 5
        assert report["per_class"] == per_class(multi)
        assert report["intervals"] == json.loads(json.dumps(metric_intervals([multi])))
        # In more than 2.5 % of the draws of five clips, AUC is 1.
        assert [name for name, interval in report["intervals"].items() if interval is None] == ["d_prime"]
        assert report["intervals_by"] == describe_intervals([multi], metrics, report["intervals"])
        assert "None for d_prime, for which the draws are all equal, or an end" in report["intervals_by"]

    def test_says_which_metrics_have_no_interval(self, tmp_path):
        predictions = Predictions(["a", "b"], np.eye(2), np.arange(2), ["x", "y"])
        report = write_report(tmp_path / "right", predictions, compute_metrics(predictions), DESCRIPTION)
        assert report["metrics"]["accuracy"] == 1
        assert report["intervals"] == {"accuracy": None, "macro_f1": None}
        text = "None for accuracy, macro_f1, for which the draws are all equal, or an end would be infinite."
        assert report["intervals_by"].endswith(text)
        assert text in (tmp_path / "right" / "report.html").read_text()
        # What is undefined has no interval for another reason.
        predictions = Predictions(["a", "b"], np.array([[0.9], [0.1]]), np.array([[0], [0]]), ["x"])
        report = write_report(tmp_path / "undefined", predictions, compute_metrics(predictions), DESCRIPTION)
        assert "None for" not in report["intervals_by"]

    def test_has_predictions_as_csv(self, single, tmp_path):
        write_report(tmp_path / "report", single, {}, DESCRIPTION)
        header, *rows = read_csv(tmp_path / "report" / "predictions.csv")
        assert header == ["file", "true", "predicted", *(f"score {name}" for name in NAMES)]
        assert [row[0] for row in rows] == FILES
        assert [row[1] for row in rows] == [NAMES[label] for label in LABELS]
        assert [row[2] for row in rows] == [NAMES[label] for label in (0, 1, 1, 1, 3)]
        scores = np.array([row[3:] for row in rows], dtype=np.float32)
        np.testing.assert_array_equal(scores, single.scores)

    def test_has_several_labels_of_a_clip_as_json_in_a_cell(self, multi, tmp_path):
        write_report(tmp_path / "report", multi, {}, DESCRIPTION)
        rows = read_csv(tmp_path / "report" / "predictions.csv")[1:]
        assert [json.loads(row[1]) for row in rows] == [NAMES[:1], NAMES[:2], NAMES[1:2], NAMES[3:], []]
        assert [json.loads(row[2]) for row in rows] == [NAMES[:1], NAMES[1:2], NAMES[1:2], NAMES[1:2], NAMES[3:]]

    @pytest.mark.parametrize("kind", ["single", "multi", "partly known"])
    def test_has_predictions_that_are_read_again(self, kind, tmp_path, request):
        predictions = request.getfixturevalue("multi" if kind == "partly known" else kind)
        if kind == "partly known":
            known = np.ones(predictions.scores.shape, dtype=bool)
            known[1:3, 2:] = False
            predictions = replace(predictions, labels=predictions.labels * known, known=known)
        write_report(tmp_path / "report", predictions, {}, DESCRIPTION)
        again = read_predictions(tmp_path / "report")
        assert (again.names, again.label_names) == (predictions.names, predictions.label_names)
        np.testing.assert_array_equal(again.scores, predictions.scores)
        np.testing.assert_array_equal(again.labels, predictions.labels)
        np.testing.assert_array_equal(again.is_known, predictions.is_known)
        assert (again.known is None) == (predictions.known is None)

    @pytest.mark.parametrize("end", ["\r", "\r\n", "\n", "\u2028"])
    def test_has_names_with_line_ends_that_are_read_again(self, end, tmp_path):
        files, names = [f"x{end}y.wav", "plain.wav"], [f"a{end}b", "c"]
        write_report(tmp_path / "report", Predictions(files, np.eye(2), np.arange(2), names), {}, DESCRIPTION)
        again = read_predictions(tmp_path / "report")
        assert (again.names, again.label_names, again.labels.tolist()) == (files, names, [0, 1])

    def test_of_moments_counts_clips(self, tmp_path, monkeypatch):
        generator = np.random.default_rng(0)
        files = [f"{row // 24}.wav" for row in range(120)]
        labels = np.zeros((120, 2), dtype=int)
        # In three clips and in one.
        labels[20:60, 0] = labels[100:110, 1] = 1
        predictions = Predictions(files, generator.random((120, 2)), labels, ["bell", "rain"], of_moments=True)
        report = write_report(tmp_path / "report", predictions, compute_metrics(predictions), DESCRIPTION)
        assert (report["num_clips"], report["num_moments"]) == (5, 120)
        assert [entry["support"] for entry in report["per_class"]] == [3, 1]
        assert "| 5 clips (120 moments) of someone/farm | |" in (tmp_path / "report" / "model_index.md").read_text()
        assert ": 5 clips (120 moments), 2 classes" in (tmp_path / "report" / "report.html").read_text()
        assert "5 clips (120 moments), 2 classes" in printed(predictions, {}, num_clips=5, num_moments=120)
        again = read_predictions(tmp_path / "report")
        assert (again.of_moments, again.num_clips) == (True, 5)
        joined = Predictions.join([again, replace(again, names=[f"second/{name}" for name in files])])
        assert (joined.of_moments, joined.num_clips) == (True, 10)
        messages = []
        monkeypatch.setattr(report_module.logger, "warning", messages.append)
        compute_metrics(replace(predictions, labels=0 * labels))
        assert messages == ["Undefined for these 5 clips: mAP, auc, d_prime, lwlrap."]

    def test_draws_clips_once(self, single, multi, tmp_path, monkeypatch):
        drawn = []
        monkeypatch.setattr(intervals, "resample", lambda *args: drawn.append(args) or resample(*args))
        monkeypatch.setattr(report_module, "resample", lambda *args: drawn.append(args) or resample(*args))
        for predictions in (single, multi):
            drawn.clear()
            predictions = replace(predictions)
            write_report(tmp_path / "report", predictions, {}, DESCRIPTION)
            assert len(drawn) == 1

    def test_joins_what_is_known(self, multi):
        known = np.zeros(multi.scores.shape, dtype=bool)
        joined = Predictions.join([multi, replace(multi, labels=0 * multi.labels, known=known)])
        np.testing.assert_array_equal(joined.is_known, np.concatenate([~known, known]))
        assert joined.audioset == Predictions.join([multi]).audioset
        # Whatever the model says of the rest.
        np.testing.assert_array_equal(clip_losses(joined)[len(known) :], 0)

    def test_has_metadata_that_the_hub_reads(self, single, tmp_path):
        write_report(tmp_path / "report", single, compute_metrics(single) | {"new": 0.5}, DESCRIPTION)
        card = ModelCard.load(tmp_path / "report" / "model_index.md")
        assert card.data.model_name == "beats-farm"
        accuracy, f1, new = card.data.eval_results
        assert (accuracy.task_type, accuracy.metric_type, accuracy.metric_value) == (
            "audio-classification",
            "accuracy",
            0.4,
        )
        assert (accuracy.dataset_type, accuracy.dataset_name, accuracy.dataset_split) == (
            "someone/farm",
            "farm",
            "test",
        )
        assert (accuracy.dataset_config, accuracy.dataset_revision) == (None, "abc123")
        assert (f1.metric_type, f1.metric_args) == ("f1", {"average": "macro"})
        assert (new.metric_type, new.metric_value) == ("new", 0.5)
        assert "| Accuracy | 0.400 |" in card.text

    def test_metadata_do_not_tell_where_local_files_lie(self, single, tmp_path):
        (tmp_path / "sounds").mkdir()
        local = {"model": str(tmp_path / "farm-model"), "dataset": str(tmp_path / "sounds")}
        write_report(tmp_path / "report", single, compute_metrics(single), local)
        text = (tmp_path / "report" / "model_index.md").read_text(encoding="utf-8")
        assert str(tmp_path) not in text
        data = ModelCard.load(tmp_path / "report" / "model_index.md").data
        assert (data.model_name, data.eval_results[0].dataset_type) == ("farm-model", "sounds")

    @pytest.mark.parametrize(
        ("datasets", "kind", "name"),
        [
            (["{}/first", "{}/second"], "first, second", "first, second"),
            (["someone/farm", "{}/second"], "someone/farm, second", "farm, second"),
            (["someone/farm", "other/birds", "plain"], "someone/farm, other/birds, plain", "farm, birds, plain"),
        ],
    )
    def test_names_each_of_several_datasets(self, single, tmp_path, datasets, kind, name):
        for folder in ("first", "second"):
            (tmp_path / folder).mkdir()
        description = {"model": "farm-model", "dataset": [place.format(tmp_path) for place in datasets]}
        report = write_report(tmp_path / "report", single, compute_metrics(single), description)
        assert report["description"] == description
        card = ModelCard.load(tmp_path / "report" / "model_index.md")
        result = card.data.eval_results[0]
        assert (result.dataset_type, result.dataset_name) == (kind, name)
        assert f"5 clips of {kind} |" in card.text
        page = (tmp_path / "report" / "report.html").read_text(encoding="utf-8")
        assert f'<p class="soft">{kind}: 5 clips, 4 classes</p>' in page
        assert f"<dt>dataset</dt><dd>{', '.join(description['dataset'])}</dd>" in page

    def test_is_the_same_again(self, single, tmp_path):
        for name in ("first", "second"):
            write_report(tmp_path / name, single, compute_metrics(single), DESCRIPTION)
        for name in WITHOUT_LOGS:
            assert (tmp_path / "first" / name).read_bytes() == (tmp_path / "second" / name).read_bytes()

    def test_replaces_a_report(self, single, multi, tmp_path):
        write_report(tmp_path / "report", single, {}, DESCRIPTION)
        write_report(tmp_path / "report", multi, {}, DESCRIPTION)
        assert not (tmp_path / "report" / "confusion_matrix.png").exists()
        assert [path.name for path in tmp_path.iterdir() if path.name != "cache"] == ["report"]

    def test_is_written_whole_or_not_at_all(self, single, multi, tmp_path, monkeypatch):
        write_report(tmp_path / "report", single, compute_metrics(single), DESCRIPTION)
        before = {path.name: path.read_bytes() for path in (tmp_path / "report").iterdir()}

        def fail(*args):
            raise RuntimeError("the disk is full")

        monkeypatch.setattr(report_pictures, "draw_classes", fail)
        for directory in ("report", "new"):
            with pytest.raises(RuntimeError, match="disk is full"):
                write_report(tmp_path / directory, multi, {}, DESCRIPTION)
        assert {path.name: path.read_bytes() for path in (tmp_path / "report").iterdir()} == before
        assert [path.name for path in tmp_path.iterdir() if path.name != "cache"] == ["report"]

    def test_does_not_replace_anything_else(self, single, tmp_path):
        (tmp_path / "model").mkdir()
        (tmp_path / "model" / "model.safetensors").touch()
        with pytest.raises(ValueError, match=r"model: holds model\.safetensors, which is not of a report"):
            write_report(tmp_path / "model", single, {}, DESCRIPTION)
        with pytest.raises(ValueError, match="is no directory"):
            check_report_directory(tmp_path / "model" / "model.safetensors")
        assert (tmp_path / "model" / "model.safetensors").exists()

    def test_of_clips_without_a_label_has_undefined_metrics(self, tmp_path):
        predictions = Predictions(["a", "b"], np.array([[0.9], [0.1]]), np.array([[0], [0]]), ["x"])
        write_report(tmp_path / "report", predictions, compute_metrics(predictions), DESCRIPTION)
        report = json.loads((tmp_path / "report" / "metrics.json").read_text(encoding="utf-8"))
        assert report["metrics"] == {"mAP": None, "auc": None, "d_prime": None, "lwlrap": None}
        assert not (tmp_path / "report" / "per_class.png").exists()
        card = ModelCard.load(tmp_path / "report" / "model_index.md")
        assert card.data.eval_results == []
        assert "| mAP | undefined |" in card.text
        assert "Left out, for want of clips: 1 of 1 classes" in printed(predictions, compute_metrics(predictions))

    def test_counts_a_score_at_the_threshold(self):
        predictions = Predictions(["a"], np.array([[0.5, 0.49]]), np.array([[1, 0]]), ["x", "y"])
        assert predictions.predicted.tolist() == [[1, 0]]

    def test_has_finite_metrics_only(self, single, tmp_path):
        with pytest.raises(ValueError, match="metric 'accuracy' is nan"):
            write_report(tmp_path / "report", single, {"accuracy": float("nan")}, DESCRIPTION)
        assert not (tmp_path / "report").exists()


@pytest.fixture
def figures(monkeypatch) -> list:
    """The figures drawn during a test, which are not saved."""
    drawn = []
    monkeypatch.setattr(report_pictures, "save_figure", lambda figure, path: drawn.append(figure))
    return drawn


class TestPictures:
    @pytest.mark.parametrize("num_labels", [2, 10])
    def test_are_pictures(self, tmp_path, num_labels):
        predictions = many_classes(num_labels)
        write_report(tmp_path / "report", predictions, compute_metrics(predictions), DESCRIPTION)
        for name in ("confusion_matrix.png", "per_class.png"):
            with Image.open(tmp_path / "report" / name) as image:
                assert image.format == "PNG"
                assert min(image.size) > 150
                assert len(image.convert("L").getcolors()) > 20

    def test_of_527_classes_have_no_confusion_matrix(self, tmp_path):
        predictions = many_classes(527)
        write_report(tmp_path / "report", predictions, compute_metrics(predictions), DESCRIPTION)
        assert {path.name for path in (tmp_path / "report").iterdir()} == WITHOUT_LOGS - {"confusion_matrix.png"}

    def test_show_numbers_and_names_of_the_confusion_matrix(self, single, tmp_path, figures):
        draw_confusions(single.confusions, NAMES, tmp_path)
        axes = figures[0].axes[0]
        shown = {
            (round(text.get_position()[1]), round(text.get_position()[0])): text.get_text() for text in axes.texts
        }
        assert shown == {(0, 0): "1", (0, 1): "2", (1, 1): "1", (1, 3): "1"}
        assert [label.get_text() for label in axes.get_yticklabels()] == NAMES
        assert axes.get_title(loc="left") == "2 of 5 clips are right"

    def test_fit_numbers_into_the_cells_of_50_classes(self, tmp_path, figures):
        draw_confusions(np.full((50, 50), 8888), many_classes(50).label_names, tmp_path)
        figure = figures[0]
        figure.draw_without_rendering()
        axes = figure.axes[0]
        cell = axes.get_window_extent().width / 50
        assert max(text.get_window_extent().width for text in axes.texts) < cell
        names = [label.get_window_extent() for label in axes.get_yticklabels()]
        assert max(name.height for name in names) < 1.1 * cell
        assert min(name.x0 for name in names) > 0

    def test_sort_bars_with_the_best_on_top(self, tmp_path, figures):
        entries = [{"label": name, "support": 3, "f1": value} for name, value in (("a", 0.1), ("b", 0.5), ("c", 0.9))]
        draw_classes(entries, "f1", tmp_path)
        axes = figures[0].axes[0]
        assert [bar.get_width() for bar in axes.patches] == [0.1, 0.5, 0.9]
        assert [label.get_text() for label in axes.get_yticklabels()] == ["a", "b", "c"]
        assert axes.texts[2].get_text() == "0.900 (3)"
        assert axes.get_ylim()[0] < axes.get_ylim()[1]

    def test_of_many_classes_say_which_are_drawn(self, tmp_path, figures):
        entries = [{"label": f"class {rank}", "support": 1, "ap": rank / 100} for rank in range(100)]
        draw_classes(entries, "ap", tmp_path)
        axes = figures[0].axes[0]
        assert axes.get_title(loc="left") == "Average precision: the 30 best and the 30 worst of 100 classes"
        values = [bar.get_width() for bar in axes.patches]
        assert values == [rank / 100 for rank in (*range(30), *range(70, 100))]
        # Of all classes, not of those drawn only.
        assert "0.495" in axes.get_xlabel()
