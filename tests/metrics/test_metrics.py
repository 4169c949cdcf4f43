# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Metrics against scikit-learn and against plain definitions; what is refused; use through `evaluate`."""

import importlib.util
import subprocess
import sys
import warnings
from pathlib import Path

import evaluate
import evaluate.config
import numpy as np
import pytest
import torch
from scipy.stats import norm
from sklearn.metrics import accuracy_score, average_precision_score, f1_score, roc_auc_score

import transformers_beats.metrics as metrics
from transformers_beats.inference.events import EventSettings, find_events
from transformers_beats.inference.results import Columns
from transformers_beats.metrics import METRICS, load_metric, sound_event_detection
from transformers_beats.metrics.accuracy import compute_accuracy
from transformers_beats.metrics.audioset_map import compute_audioset_map, d_prime, lwlrap
from transformers_beats.metrics.macro_f1 import compute_macro_f1
from transformers_beats.metrics.sound_event_detection import (
    MAX_RATE,
    PSDS1,
    PSDS2,
    LibraryInputs,
    area_of_curves,
    best_collar_f1,
    compute_sound_event_detection,
    count_events,
    f1_of_counts,
    reaches,
)


SEEDS = range(20)


@pytest.fixture(scope="module", autouse=True)
def evaluate_caches(tmp_path_factory):
    """Where `evaluate` keeps predictions, and copies of the modules it loads, for all tests of this file."""
    folder = tmp_path_factory.mktemp("evaluate")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluate.config, "HF_METRICS_CACHE", folder / "metrics")
        patch.setattr(evaluate.config, "HF_MODULES_CACHE", folder / "modules")
        patch.setattr(sys, "path", [*sys.path])
        yield


def load_from_path(name, **kwargs):
    return evaluate.load(str(Path(metrics.__file__).with_name(f"{name}.py")), **kwargs)


@pytest.fixture(params=[load_metric, load_from_path])
def load(request):
    """How to get a metric by its name."""
    return request.param


# A file of predictions stays locked after an error, and `evaluate` waits a second for it.
IN_MEMORY = {"keep_in_memory": True}


def random_table(seed):
    """Scores on seven levels, so that many are equal, and labels; the last class has no positive clip."""
    generator = np.random.default_rng(seed)
    num_clips, num_labels = generator.integers(2, 30), generator.integers(2, 8)
    scores = generator.integers(0, 7, (num_clips, num_labels)) / 7
    labels = (generator.random((num_clips, num_labels)) < 0.3).astype(int)
    labels[:, -1] = 0
    labels[generator.integers(num_clips), 0] = 1
    return scores, labels


def plain_average_precision(scores, labels):
    """Precision at each distinct threshold, weighted by how much recall it adds."""
    total, recall = 0.0, 0.0
    for threshold in sorted(set(scores), reverse=True):
        hits = [label for score, label in zip(scores, labels) if score >= threshold]
        new_recall = sum(hits) / sum(labels)
        total += (new_recall - recall) * sum(hits) / len(hits)
        recall = new_recall
    return total


class TestImport:
    def test_of_the_package_does_not_load_evaluate(self):
        code = "import sys, transformers_beats.metrics; print('evaluate' in sys.modules, 'sklearn' in sys.modules)"
        result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert result.stdout.split() == ["False", "False"]

    def test_gives_the_classes(self):
        for name in METRICS:
            metric = load_metric(name)
            assert isinstance(metric, evaluate.Metric)
            assert metric.name == name
            assert getattr(metrics, type(metric).__name__) is type(metric)

    def test_of_an_unknown_metric_is_an_error(self):
        with pytest.raises(ValueError, match="no metric 'recall' here, only accuracy, audioset_map, macro_f1"):
            load_metric("recall")
        with pytest.raises(AttributeError, match="Recall"):
            _ = metrics.Recall


class TestAudiosetMap:
    @pytest.mark.parametrize("seed", SEEDS)
    def test_is_scikit_learns_without_absent_classes(self, seed):
        scores, labels = random_table(seed)
        result = compute_audioset_map(scores, labels, per_class=True)
        support = labels.sum(axis=0)
        present = np.flatnonzero(support)
        ap = average_precision_score(labels[:, present], scores[:, present], average=None)
        assert result["mAP"] == pytest.approx(np.mean(ap))
        assert [result["per_class_ap"][label] for label in present] == pytest.approx(np.atleast_1d(ap).tolist())
        both = [label for label in present if support[label] < len(labels)]
        auc = [roc_auc_score(labels[:, label], scores[:, label]) for label in both]
        assert [result["per_class_auc"][label] for label in both] == pytest.approx(auc)
        assert result["support"] == support.tolist()
        assert result["num_classes_without_positives"] == labels.shape[1] - len(present)
        assert result["num_classes_without_negatives"] == len(present) - len(both)
        if both:
            assert result["auc"] == pytest.approx(np.mean(auc))
        if both and 0 < np.mean(auc) < 1:
            assert result["d_prime"] == pytest.approx(np.sqrt(2) * norm.ppf(np.mean(auc)))

    @pytest.mark.parametrize("seed", SEEDS)
    def test_counts_equal_scores_as_one_threshold(self, seed):
        scores, labels = random_table(seed)
        result = compute_audioset_map(scores, labels, per_class=True)
        for label in range(labels.shape[1]):
            if labels[:, label].any():
                plain = plain_average_precision(scores[:, label].tolist(), labels[:, label].tolist())
                assert result["per_class_ap"][label] == pytest.approx(plain)
            else:
                assert result["per_class_ap"][label] is None

    def test_of_one_value_everywhere_is_the_share_of_positives(self):
        result = compute_audioset_map(np.zeros((4, 1)), [[1], [0], [0], [0]])
        assert result["mAP"] == 0.25
        assert result["auc"] == 0.5
        assert result["d_prime"] == 0

    def test_without_negatives_has_no_auc(self):
        result = compute_audioset_map([[0.3], [0.2]], [[1], [1]])
        assert result["mAP"] == 1
        assert result["auc"] is None
        assert result["d_prime"] is None

    def test_without_positives_has_nothing(self):
        result = compute_audioset_map([[0.3], [0.2]], [[0], [0]], per_class=True)
        assert (result["mAP"], result["auc"], result["d_prime"]) == (None, None, None)
        assert (result["per_class_ap"], result["support"]) == ([None], [0])

    def test_lwlrap_is_that_of_its_definition(self):
        generator = np.random.default_rng(0)
        scores, labels = generator.random((20, 5)), generator.integers(0, 2, (20, 5))
        labels[3] = 0
        precisions = []
        for clip, label in zip(*np.nonzero(labels)):
            ranked = labels[clip][np.argsort(-scores[clip])]
            place = int((scores[clip] > scores[clip, label]).sum()) + 1
            precisions.append(ranked[:place].sum() / place)
        assert compute_audioset_map(scores, labels)["lwlrap"] == pytest.approx(np.mean(precisions))
        assert compute_audioset_map(scores, 0 * labels)["lwlrap"] is None

    def test_leaves_out_what_is_not_known(self):
        generator = np.random.default_rng(0)
        scores, labels = generator.random((40, 4)), (generator.random((40, 4)) < 0.4).astype(float)
        known = generator.random((40, 4)) < 0.6
        known[:, 3] = False
        found = compute_audioset_map(scores, labels, per_class=True, known=known)
        for label in range(3):
            rows = known[:, label]
            assert found["per_class_ap"][label] == average_precision_score(labels[rows, label], scores[rows, label])
            assert found["per_class_auc"][label] == roc_auc_score(labels[rows, label], scores[rows, label])
            assert found["support"][label] == labels[rows, label].sum()
        assert (found["per_class_ap"][3], found["support"][3]) == (None, 0)
        parts = [lwlrap(labels[[clip]][:, row], scores[[clip]][:, row]) for clip, row in enumerate(known) if row.any()]
        weights = [labels[clip, row].sum() for clip, row in enumerate(known) if row.any()]
        pairs = [(part, weight) for part, weight in zip(parts, weights) if part is not None]
        assert found["lwlrap"] == pytest.approx(np.average(*np.transpose(pairs)[:1], weights=np.transpose(pairs)[1]))
        with pytest.raises(ValueError, match=r"known must be booleans"):
            compute_audioset_map(scores, labels, known=labels)

    def test_has_no_infinite_d_prime(self):
        result = compute_audioset_map([[0.3], [0.2]], [[1], [0]])
        assert result["auc"] == 1
        assert result["d_prime"] is None
        assert d_prime(0.0) is None

    def test_emits_no_warnings(self):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            compute_audioset_map(*random_table(0), per_class=True)

    @pytest.mark.parametrize(
        ("predictions", "references", "message"),
        [
            ([[0.1, np.nan]], [[1, 0]], "predictions must be finite, got nan for clip 0, label 1"),
            ([[0.1, 0.2], [np.inf, 0.1]], [[1, 0], [0, 1]], "got inf for clip 1, label 0"),
            ([[0.1, None]], [[1, 0]], "must be finite, got nan"),
            ([[0.1, 0.2]], [[1, np.nan]], "references must be finite, got nan for clip 0, label 1"),
            ([[0.1, 0.2]], [[1, 0.5]], "references must be 0 or 1, got 0.5 for clip 0, label 1"),
            ([[0.1, 0.2]], [[1, 2]], "references must be 0 or 1, got 2"),
            ([[0.1, 0.2]], [[1, 0, 0]], r"\(1, 2\), references \(1, 3\)"),
            ([[0.1, 0.2], [0.3]], [[1, 0], [0, 1]], "predictions must be a table of numbers"),
            ([], [], r"not empty, got \(0,\)"),
            ([0.1, 0.2], [1, 0], r"\(num_clips, num_labels\), not empty, got \(2,\)"),
        ],
    )
    def test_is_no_number_for_bad_input(self, predictions, references, message):
        with pytest.raises(ValueError, match=message):
            compute_audioset_map(predictions, references)

    def test_through_evaluate_refuses_what_the_function_refuses(self, load):
        with pytest.raises(ValueError, match="got nan for clip 0, label 1"):
            load("audioset_map", **IN_MEMORY).compute(predictions=[[0.1, np.nan]], references=[[1, 0]])
        with pytest.raises(ValueError, match=r"got 0\.5 for clip 0, label 1"):
            load("audioset_map", **IN_MEMORY).compute(predictions=[[0.1, 0.2]], references=[[1, 0.5]])

    def test_accumulates_batches(self, load):
        scores, labels = random_table(3)
        metric = load("audioset_map")
        for start in range(0, len(scores), 4):
            metric.add_batch(predictions=scores[start : start + 4], references=labels[start : start + 4])
        assert metric.compute(per_class=True) == compute_audioset_map(scores, labels, per_class=True)

    def test_takes_tensors(self, load):
        scores, labels = random_table(4)
        result = load("audioset_map").compute(
            predictions=torch.tensor(scores, dtype=torch.float64), references=torch.tensor(labels)
        )
        assert result == compute_audioset_map(scores, labels)


class TestClassIndices:
    @pytest.mark.parametrize("seed", SEEDS)
    def test_metrics_are_scikit_learns(self, seed):
        generator = np.random.default_rng(seed)
        # Of ten classes some are only true, some only predicted, some neither.
        true, predicted = generator.integers(0, 6, 12), generator.integers(2, 10, 12)
        assert compute_accuracy(predicted, true) == {"accuracy": accuracy_score(true, predicted)}
        f1 = f1_score(true, predicted, average="macro", zero_division=0)
        assert compute_macro_f1(predicted, true, num_labels=10) == {"macro_f1": pytest.approx(f1)}

    def test_macro_f1_leaves_absent_classes_out(self):
        assert compute_macro_f1([0, 3], [0, 3], num_labels=100) == {"macro_f1": 1.0}

    def test_macro_f1_of_a_class_only_predicted_is_0(self):
        assert compute_macro_f1([0, 1], [0, 0])["macro_f1"] == pytest.approx((2 / 3 + 0) / 2)

    @pytest.mark.parametrize("compute", [compute_accuracy, compute_macro_f1])
    @pytest.mark.parametrize(
        ("predictions", "references", "message"),
        [
            ([0, np.nan], [0, 1], "predictions must be whole numbers from 0 to 2, got nan for clip 1"),
            ([0, 1], [0, np.inf], "references must be whole numbers from 0 to 2, got inf for clip 1"),
            ([0, 3], [0, 1], "got 3 for clip 1"),
            ([0, 1], [-1, 1], "references must be whole numbers from 0 to 2, got -1 for clip 0"),
            ([0.5, 1], [0, 1], r"got 0\.5 for clip 0"),
            ([0, 1, 2], [0, 1], "3 predictions for 2 references"),
            ([], [], r"at least one clip, got shape \(0,\)"),
            ([[0.1, 0.9]], [[0, 1]], r"got shape \(1, 2\)"),
        ],
    )
    def test_is_no_number_for_bad_input(self, compute, predictions, references, message):
        with pytest.raises(ValueError, match=message):
            compute(predictions, references, num_labels=3)

    @pytest.mark.parametrize("name", ["accuracy", "macro_f1"])
    def test_through_evaluate_is_not_truncated(self, load, name):
        with pytest.raises(ValueError, match=r"got 1\.7 for clip 0"):
            load(name, **IN_MEMORY).compute(predictions=[1.7], references=[1])
        with pytest.raises(ValueError, match="don't match the expected format"):
            load(name, **IN_MEMORY).compute(predictions=[[0.1, 0.9]], references=[1])
        with pytest.raises(ValueError, match="from 0 to 1, got 2"):
            load(name, **IN_MEMORY).compute(predictions=[2], references=[1], num_labels=2)

    def test_accumulate_batches(self, load):
        accuracy, macro_f1 = load("accuracy"), load("macro_f1")
        for predictions, references in (([0, 1], [0, 2]), ([2], [2]), ([1], [1])):
            accuracy.add_batch(predictions=predictions, references=references)
            macro_f1.add_batch(predictions=predictions, references=references)
        macro_f1.add(prediction=0, reference=0)
        assert accuracy.compute() == {"accuracy": 0.75}
        expected = f1_score([0, 2, 2, 1, 0], [0, 1, 2, 1, 0], average="macro")
        assert macro_f1.compute() == {"macro_f1": pytest.approx(expected)}

    def test_can_be_computed_again(self, load):
        metric = load("accuracy")
        assert metric.compute(predictions=[0, 1], references=[0, 1]) == {"accuracy": 1.0}
        assert metric.compute(predictions=[0, 1], references=[1, 1]) == {"accuracy": 0.5}


def event(label, onset, offset):
    return {"label": label, "onset": onset, "offset": offset}


class TestSoundEventDetectionInput:
    SCORES = [np.full((10, 2), 0.4)]

    @pytest.mark.parametrize(
        ("predictions", "references", "message"),
        [
            ([], [], "predictions are empty"),
            ([np.full((3, 2), np.nan)], [[]], "got nan for clip 0, column 0, label 0"),
            ([np.ones(3)], [[]], r"clip 0 must be \(num_columns, num_labels\), got \(3,\)"),
            ([np.ones((0, 2))], [[]], r"got \(0, 2\)"),
            ([np.ones((3, 2)), np.ones((3, 1))], [[], []], "2 labels for clip 0, but 1 for clip 1"),
            (SCORES, [], "predictions for 1 clips, references for 0"),
            (SCORES, [[event(2, 0.0, 1.0)]], "label 2: must be an index from 0 to 1"),
            (SCORES, [[event(0.5, 0.0, 1.0)]], r"label 0\.5"),
            (SCORES, [[event(0, 1.0, 0.5)]], r"lasts from 1\.0 to 0\.5"),
            (SCORES, [[event(0, np.nan, 1.0)]], "lasts from nan"),
            (SCORES, [[event(0, -0.1, 1.0)]], r"lasts from -0\.1"),
            (SCORES, [[event(0, 500, 900)]], r"begins at 500 s, but the clip ends at 1\.92 s"),
            (SCORES, [[{"onset": 0.0, "offset": 1.0}]], "label None"),
        ],
    )
    def test_that_is_bad_is_an_error(self, predictions, references, message):
        with pytest.raises(ValueError, match=message):
            compute_sound_event_detection(predictions, references)

    def test_durations_must_fit_the_columns(self):
        references = [[event(0, 0.0, 1.0)]]
        with pytest.raises(ValueError, match=r"1\.6 s of columns, but the duration 1 s"):
            compute_sound_event_detection(self.SCORES, references, durations=[1.0])
        with pytest.raises(ValueError, match="1 clips, durations for 2"):
            compute_sound_event_detection(self.SCORES, references, durations=[1.6, 1.6])

    def test_column_seconds_must_be_positive(self):
        with pytest.raises(ValueError, match="must be positive"):
            compute_sound_event_detection(self.SCORES, [[event(0, 0.0, 1.0)]], column_seconds=0)

    def test_without_events_is_undefined(self):
        names = ("segment_f1", "collar_f1", "psds1", "psds2")
        result = compute_sound_event_detection(self.SCORES, [[]])
        assert result == {**dict.fromkeys(names), "num_classes_without_events": 2}
        result = compute_sound_event_detection(self.SCORES, [[]], per_class=True)
        assert result["per_class_psds1"] == [None, None]
        assert result["support"] == [0, 0]

    def test_without_the_library_says_how_to_install_it(self, load, monkeypatch):
        monkeypatch.setitem(sys.modules, "sed_scores_eval", None)
        metric = load("sound_event_detection", **IN_MEMORY)
        with pytest.raises(ImportError, match=r"pip install 'transformers-beats\[sed\]'"):
            metric.compute(predictions=self.SCORES, references=[[event(0, 0.0, 1.0)]])


THRESHOLDS = [0.1, 0.3, 0.5, 0.7, 0.9, 1 / 3, 1e-8]


@pytest.mark.parametrize("threshold", THRESHOLDS)
def test_a_threshold_is_reached_as_in_find_events(threshold):
    near = np.float32(threshold)
    scores = np.array(
        [np.nextafter(near, -np.inf, dtype=np.float32), near, np.nextafter(near, np.inf, dtype=np.float32)]
    )
    for kind in (np.float32, np.float64):
        assert reaches(scores.astype(kind), threshold).tolist() == [False, True, True]
    assert len(find_events(Columns(scores[:, None], 0, 1.0), {0: "dog"}, EventSettings(threshold))) == 1
    # Scores that have more digits keep them.
    exact = np.array([np.nextafter(threshold, -np.inf), threshold])
    assert reaches(exact, threshold).tolist() == [exact[0] == near, True]


@pytest.mark.parametrize(
    "error", [ImportError("one\ntwo"), AttributeError("np.float is gone"), ValueError("size changed")]
)
def test_a_library_that_cannot_be_imported_says_why(error, monkeypatch):
    def fail(name):
        raise error

    monkeypatch.setattr(sound_event_detection.importlib, "import_module", fail)
    with pytest.raises(ImportError, match=r"cannot be imported \((one|np.float is gone|size changed)\): pip install"):
        sound_event_detection.import_sed_scores_eval()


@pytest.fixture
def library():
    # Its own dependencies warn of their age, and it of NaN where nothing is detected.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # One that is installed and cannot be imported is a failure.
        if importlib.util.find_spec("sed_scores_eval") is None:
            pytest.skip("sed_scores_eval is not installed")
        yield sound_event_detection.import_sed_scores_eval()


def random_events(seed, num_clips=4, num_labels=3, seconds=8):
    """Scores of four columns a second, and events; the last class has none."""
    generator = np.random.default_rng(seed)
    scores = [generator.random((4 * seconds, num_labels)) ** 4 for _ in range(num_clips)]
    events = []
    for _ in range(num_clips):
        onsets = generator.uniform(0, seconds - 1, num_labels)
        events.append([event(label, onsets[label], onsets[label] + 0.9) for label in range(num_labels - 1)])
    return scores, events


def plain_segment_f1(scores, events, label, threshold):
    right = wrong = missed = 0
    for clip_scores, clip_events in zip(scores, events):
        for segment in range(len(clip_scores) // 4):
            predicted = clip_scores[4 * segment : 4 * segment + 4, label].max() >= threshold
            true = any(
                event["label"] == label and event["onset"] < segment + 1 and event["offset"] > segment
                for event in clip_events
            )
            right, wrong, missed = (
                right + (predicted and true),
                wrong + (predicted and not true),
                missed + (true and not predicted),
            )
    return 2 * right / (2 * right + wrong + missed)


@pytest.mark.usefixtures("library")
class TestSoundEventDetection:
    @pytest.mark.parametrize("seed", range(5))
    def test_segment_f1_is_that_of_a_plain_count(self, seed):
        scores, events = random_events(seed)
        result = compute_sound_event_detection(scores, events, column_seconds=0.25, threshold=0.6, per_class=True)
        plain = [plain_segment_f1(scores, events, label, threshold=0.6) for label in (0, 1)]
        assert result["per_class_segment_f1"] == [pytest.approx(plain[0]), pytest.approx(plain[1]), None]
        assert result["segment_f1"] == pytest.approx(np.mean(plain))
        assert result["num_classes_without_events"] == 1
        assert result["support"] == [4, 4, 0]

    def test_of_perfect_scores_is_1(self):
        scores = np.zeros((16, 2))
        scores[:8, 0] = scores[8:, 1] = 0.9
        events = [[event(0, 0, 2), event(1, 2, 4)]]
        result = compute_sound_event_detection([scores], events, column_seconds=0.25)
        assert result == {"segment_f1": 1, "collar_f1": 1, "psds1": 1, "psds2": 1, "num_classes_without_events": 0}

    def test_a_score_at_the_threshold_is_a_detection(self):
        scores, events = [np.full((4, 1), 0.5)], [[event(0, 0, 1)]]
        assert compute_sound_event_detection(scores, events, column_seconds=0.25)["segment_f1"] == 1
        assert compute_sound_event_detection(scores, events, column_seconds=0.25, threshold=0.51)["segment_f1"] == 0

    @pytest.mark.parametrize("threshold", THRESHOLDS)
    @pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64])
    def test_scores_that_equal_the_threshold_are_found_in_any_precision(self, load, kind, threshold):
        scores = np.zeros((16, 1), dtype=kind)
        scores[4:12] = threshold
        found = find_events(Columns(scores, 0, 0.25), {0: "dog"}, EventSettings(threshold))
        wanted = len(found) == 1
        assert wanted or kind == np.float16
        settings = {"column_seconds": 0.25, "threshold": threshold}
        events = [[event(0, 1, 3)]]
        # Through `evaluate`, scores become float64.
        metric = load("sound_event_detection", **IN_MEMORY)
        for result in (
            compute_sound_event_detection([scores], events, **settings),
            metric.compute(predictions=[scores], references=events, **settings),
        ):
            assert result["collar_f1"] == result["segment_f1"] == wanted

    def test_a_score_of_zero_is_below_every_threshold(self):
        # The event is all that the clip has, and more than half of it is 0.
        scores = [np.array([[0.4]] * 3 + [[0.0]] * 5)]
        (best,), (threshold,) = best_collar_f1(LibraryInputs(scores, [[event(0, 0, 2)]], 0.25), scores)
        assert (best, np.isnan(threshold)) == (0, True)
        (best,), (threshold,) = best_collar_f1(LibraryInputs(scores, [[event(0, 0, 0.75)]], 0.25), scores)
        assert (best, threshold) == (1, 0.2)
        scores[0] += 0.1
        (best,), (threshold,) = best_collar_f1(LibraryInputs(scores, [[event(0, 0, 2)]], 0.25), scores)
        assert (best, threshold) == (1, -np.inf)

    def test_what_scores_of_zero_would_find_has_no_psds(self):
        events = [[event(0, 0, 4)]]
        for value, wanted in ((0.0, 0), (-1.0, 0), (1e-30, 1)):
            result = compute_sound_event_detection([np.full((16, 1), value)], events, 0.25, per_class=True)
            assert (result["psds1"], result["psds2"]) == (wanted, wanted)
            assert result["per_class_psds2"] == [wanted]
        # Two of its eight seconds are above 0: less than half of the event.
        scores = np.zeros((32, 1))
        scores[:8] = 0.3
        events = [[event(0, 0, 8)]]
        assert compute_sound_event_detection([scores], events, 0.25)["psds1"] == 0
        assert compute_sound_event_detection([scores + 1e-9], events, 0.25)["psds1"] == 1

    def test_curves_have_a_point_for_each_score_above_zero(self, library):
        scores, events = random_events(0, num_clips=3, seconds=4)
        for number, (table, of_clip) in enumerate(zip(scores, events)):
            for each in of_clip:
                table[round(4 * each["onset"]) : round(4 * each["offset"]), each["label"]] += 0.2 * number
            table[table < 0.1] = 0
        inputs = LibraryInputs(scores, events, 0.25)
        curves = {0: [], 1: []}
        for threshold in np.unique(np.concatenate(scores)):
            detected = inputs.frames([(table >= threshold).astype(float) for table in scores])
            counts, _ = library.intersection_based.intermediate_statistics.accumulated_intermediate_statistics(
                detected, inputs.truth, dtc_threshold=0.7, gtc_threshold=0.7
            )
            for label, points in curves.items():
                reached, found = counts[str(label)]
                (row,) = np.flatnonzero(reached == 1) if threshold > 0 and 1 in reached else [-1]
                points.append((3600 * found["fps"][row] / 600, found["tps"][row] / 3))
        found = compute_sound_event_detection(scores, events, 0.25, durations=[200] * 3, per_class=True)
        for label, points in curves.items():
            rates, shares = np.array(sorted(point for point in points if point[0] <= MAX_RATE)).T
            area = area_of_curves([(np.maximum.accumulate(shares), rates)], 0.0)
            assert found["per_class_psds1"][label] == pytest.approx(area)
            assert 0 < area < 1

    @pytest.mark.parametrize(
        ("scores", "events"),
        [
            # An event far beyond the columns, of which a detection is in it and too little of it.
            ([[0.9]], [event(0, 0.1, 1.5)]),
            ([[0.9, 0.3], [0.9, 0.7]], [event(0, 0.15, 1.55), event(1, 0.04, 0.49)]),
            ([[0.9, 0.3], [0.9, 0.7]], [event(0, 0, 0.1), event(1, 0.04, 0.49)]),
            ([[0.9, 0.3], [0.9, 0.3]], [event(0, 0, 5), event(1, 0.04, 0.1)]),
            ([[0.0], [0.0]], [event(0, 0, 0.1)]),
        ],
    )
    def test_a_class_of_which_nothing_is_right_or_wrong_has_a_psds(self, scores, events):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            found = compute_sound_event_detection([np.array(scores)], [events], 0.1, per_class=True)
        assert 0 in found["per_class_psds1"]
        for key in ("psds1", "psds2"):
            assert all(0 <= value <= 1 for value in found[f"per_class_{key}"])

    def test_psds1_wants_more_overlap_than_psds2(self):
        scores = np.zeros((40, 1))
        scores[8:16] = 0.9
        result = compute_sound_event_detection([scores], [[event(0, 0, 4)]], column_seconds=0.25)
        assert (result["psds1"], result["psds2"]) == (0, 1)

    def test_joins_events_of_one_class(self):
        scores = np.zeros((16, 1))
        scores[:8] = 0.9
        whole = compute_sound_event_detection([scores], [[event(0, 0, 2)]], column_seconds=0.25)
        parts = [event(0, 1, 2), event(0, 0, 1), event(0, 0.5, 1.5)]
        assert compute_sound_event_detection([scores], [parts], column_seconds=0.25) == whole

    def test_takes_events_in_the_samples_after_the_last_column(self):
        scores = np.full((62, 1), 0.1)
        result = compute_sound_event_detection([scores], [[event(0, 9.95, 10.0)]], durations=[10.0])
        assert result["segment_f1"] == 0

    def test_is_the_librarys_through_evaluate_in_batches(self, load):
        scores, events = random_events(0)
        scores[1] = scores[1][:30]
        metric = load("sound_event_detection")
        metric.add_batch(predictions=scores[:3], references=events[:3])
        metric.add(prediction=scores[3], reference=events[3])
        result = metric.compute(column_seconds=0.25, per_class=True)
        assert result == compute_sound_event_detection(scores, events, column_seconds=0.25, per_class=True)
        assert all(np.isfinite(result[key]) for key in ("segment_f1", "collar_f1", "psds1", "psds2"))

    @pytest.mark.parametrize(
        ("onset", "offset", "is_right"),
        [
            (1.0, 3.0, True),
            (1.2, 3.0, True),
            (0.8, 3.0, True),
            (1.25, 3.0, False),
            (1.0, 3.4, True),
            (1.0, 3.45, False),
        ],
    )
    def test_an_event_is_right_within_its_collars(self, onset, offset, is_right):
        # 200 ms at its beginning, and 20 % of its two seconds at its end.
        columns = 0.05 * np.arange(100)
        scores = ((columns >= onset - 1e-9) & (columns < offset - 1e-9)).astype(float)[:, None]
        result = compute_sound_event_detection([scores], [[event(0, 1, 3)]], column_seconds=0.05)
        assert result["collar_f1"] == is_right

    @pytest.mark.parametrize("seed", range(3))
    def test_counts_of_clips_give_the_f1_of_the_library(self, seed):
        scores, events = random_events(seed)
        whole = compute_sound_event_detection(scores, events, column_seconds=0.25, threshold=0.6, per_class=True)
        counts = count_events([table >= 0.6 for table in scores], events, column_seconds=0.25)
        for key, of_clips in (("collar_f1", counts.collars), ("segment_f1", counts.segments)):
            assert f1_of_counts(of_clips.sum(axis=0))[:2] == pytest.approx(whole[f"per_class_{key}"][:2])
            assert (of_clips[:, 2] == 0).all()
        assert counts.collars[..., 2].sum(axis=0).tolist() == whole["support"]

    def test_the_best_threshold_is_as_good_as_any(self):
        scores, events = random_events(1)
        scores = [table + 0.3 * (np.arange(len(table)) % 7 == 3)[:, None] for table in scores]
        inputs = LibraryInputs(scores, events, 0.25)
        best, thresholds = best_collar_f1(inputs, scores)
        tried = [
            compute_sound_event_detection(scores, events, 0.25, threshold=value, per_class=True)["per_class_collar_f1"]
            for value in np.unique(np.concatenate(scores))[::5]
        ]
        assert np.isnan(best[2])
        for label in (0, 1):
            assert best[label] >= max(values[label] for values in tried)
            again = compute_sound_event_detection(scores, events, 0.25, threshold=thresholds[label], per_class=True)
            assert again["per_class_collar_f1"][label] == pytest.approx(best[label])

    @pytest.mark.parametrize("seed", range(3))
    def test_psds_of_curves_is_the_librarys(self, seed, library):
        scores, events = random_events(seed)
        inputs = LibraryInputs(scores, events, 0.25)
        found = compute_sound_event_detection(scores, events, 0.25)
        for key, scenario in (("psds1", PSDS1), ("psds2", PSDS2)):
            value, *_ = library.intersection_based.psds(inputs.frames(), inputs.truth, inputs.durations, **scenario)
            assert found[key] == pytest.approx(value)

    def test_a_class_is_judged_by_the_clips_that_were_labelled_for_it(self):
        scores, events = random_events(0, num_clips=6, num_labels=4)
        # The first two classes in the first clips, the third one in the others, and the fourth nowhere.
        known = np.zeros((6, 4), dtype=bool)
        known[:3, :2] = known[3:, 2] = True
        events = [[each for each in of_clip if known[clip, each["label"]]] for clip, of_clip in enumerate(events)]
        both = compute_sound_event_detection(scores, events, 0.25, threshold=0.6, per_class=True, known=known)
        first, second = (
            compute_sound_event_detection(scores[part], events[part], 0.25, threshold=0.6, per_class=True)
            for part in (slice(0, 3), slice(3, 6))
        )
        for key in ("segment_f1", "collar_f1", "psds1", "psds2"):
            name = f"per_class_{key}"
            assert both[name] == pytest.approx([*first[name][:2], second[name][2], None])
        assert both["collar_f1"] == pytest.approx((2 * first["collar_f1"] + second["collar_f1"]) / 3)
        assert both["support"] == [3, 3, 3, 0]
        counts = count_events([table >= 0.6 for table in scores], events, 0.25, known=known)
        assert not counts.collars[~known].any()
        assert not counts.segments[~known].any()
        assert f1_of_counts(counts.collars.sum(axis=0))[:3] == pytest.approx(both["per_class_collar_f1"][:3])
        # Whatever the scores are where nothing is known.
        others = [np.where(of_clip, table, 1 - table) for table, of_clip in zip(scores, known)]
        again = compute_sound_event_detection(others, events, 0.25, threshold=0.6, per_class=True, known=known)
        assert again == both
        inputs = [LibraryInputs(tables, events, 0.25, known=known) for tables in (scores, others)]
        for found, wanted in zip(*(best_collar_f1(each, each.tables) for each in inputs)):
            np.testing.assert_array_equal(found, wanted)

    def test_known_must_fit_the_clips_and_events(self):
        scores, events = random_events(0)
        with pytest.raises(ValueError, match=r"known must be booleans .*\(4, 3\), got bool \(4, 2\)"):
            compute_sound_event_detection(scores, events, 0.25, known=np.ones((4, 2), dtype=bool))
        with pytest.raises(ValueError, match=r"got float64 \(4, 3\)"):
            compute_sound_event_detection(scores, events, 0.25, known=np.ones((4, 3)))
        with pytest.raises(ValueError, match="Clip 0 has an event of the label 0, which is not known there"):
            compute_sound_event_detection(scores, events, 0.25, known=np.zeros((4, 3), dtype=bool))
