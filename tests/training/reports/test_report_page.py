# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""The page of a report: whole, without other files, and safe to open."""

import base64
import io
import re

import numpy as np
import pytest
import soundfile

from transformers_beats import BeatsFeatureExtractor
from transformers_beats.training.reports.calibration import calibrate
from transformers_beats.training.reports.page import MAX_SECONDS, clip_losses, describe_curves
from transformers_beats.training.reports.report import Evidence, Predictions, compute_metrics, write_report


RATE = 16000
NAMES = ["dog", "<script>alert(1)</script>", "rain & wind"]
HISTORY = [
    *({"epoch": epoch, "loss": 2 / epoch} for epoch in (1.0, 2.0)),
    *({"epoch": epoch, "eval_loss": 2.1 / epoch, "eval_accuracy": 0.5} for epoch in (1.0, 2.0)),
]


def make_predictions(num_clips: int = 60) -> Predictions:
    generator = np.random.default_rng(0)
    scores = generator.dirichlet([1, 1, 1], num_clips)
    files = ['"><img src=x onerror=alert(1)>.wav', *(f"{clip}.wav" for clip in range(1, num_clips))]
    return Predictions(files, scores, generator.integers(3, size=num_clips), NAMES)


def read_audio(name: str, num_samples: int) -> np.ndarray:
    return 0.3 * np.sin(np.arange(min(num_samples, 12 * RATE)) * 0.3).astype(np.float32)


def write_page(tmp_path, predictions: Predictions, **evidence) -> str:
    description = {"model": "farm", "dataset": "sounds", "split": None}
    write_report(tmp_path / "report", predictions, compute_metrics(predictions), description, Evidence(**evidence))
    return (tmp_path / "report" / "report.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> str:
    evidence = {"histories": {"training": HISTORY}, "read_audio": read_audio, "extractor": BeatsFeatureExtractor()}
    return write_page(tmp_path_factory.mktemp("page"), make_predictions(), **evidence, notes=["A remark."])


def test_has_all_sections(page):
    headings = re.findall("<h2>(.*?)</h2>", page)
    assert headings[:4] == ["Metrics", "Learning curves", "Classes", "Confusions"]
    assert headings[4:] == ["Calibration", "Hardest clips", "How it was made"]
    assert "A remark." in page
    assert "bootstrap over clips" in page


def test_needs_no_other_file(page):
    links = re.findall(r"""(?:src|href)=["'](.*?)["']""", page)
    assert links
    assert {link.partition(":")[0] for link in links if not link.startswith("#")} == {"data"}
    # Names of namespaces are not asked for.
    without_names = re.sub(r'xmlns(:\w+)?="[^"]*"', "", page)
    assert "http" not in without_names.replace("http-equiv", "")


def test_takes_names_literally(page):
    assert "<script" not in page
    assert "<img src=x" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page


def test_has_short_clips_that_can_be_heard(page):
    kind, sound = re.search(r'src="data:audio/(\w+);base64,(.*?)"', page).groups()
    audio, rate = soundfile.read(io.BytesIO(base64.b64decode(sound)))
    assert (kind, rate) == ("mpeg", RATE)
    assert len(audio) / rate == pytest.approx(MAX_SECONDS, abs=0.2)
    assert len(page) < 3_000_000


def test_the_hardest_clips_come_first(page):
    predictions = make_predictions()
    listed = re.findall(r"<h3>(.*?)</h3>", page)
    hardest = [predictions.names[clip] for clip in np.argsort(-clip_losses(predictions))]
    assert [name for name in listed if name.endswith(".wav") and "&" not in name] == [
        name for name in hardest[: len(listed)] if "<" not in name
    ]


def test_of_several_labels_has_no_calibration_and_no_matrix(tmp_path):
    single = make_predictions()
    labels = np.eye(3, dtype=int)[single.labels]
    page = write_page(tmp_path, Predictions(single.names, single.scores, labels, NAMES))
    headings = re.findall("<h2>(.*?)</h2>", page)
    assert headings == ["Metrics", "Classes", "Hardest clips", "How it was made"]
    assert "<audio" not in page


def test_a_clip_that_cannot_be_read_is_listed_without_sound(tmp_path):
    from transformers_beats.audio.decoding import AudioError

    def fail(name, num_samples):
        raise AudioError(f"{name}: is gone")

    page = write_page(tmp_path, make_predictions(), read_audio=fail, extractor=BeatsFeatureExtractor())
    assert "<h3>" in page
    assert "<audio" not in page


def test_calibration_is_the_distance_of_scores_and_accuracy():
    # Of 100 clips with a score of 0.75, 60 are right.
    scores = np.tile([0.75, 0.25], (100, 1))
    predictions = Predictions(list(map(str, range(100))), scores, (np.arange(100) >= 60).astype(int), ["x", "y"])
    found = calibrate(predictions)
    assert found.error == pytest.approx(0.15)
    assert found.counts.tolist() == [0] * 7 + [100] + [0] * 2
    assert (found.scores[7], found.accuracies[7]) == (0.75, 0.6)


def test_a_few_clips_have_no_calibration():
    assert calibrate(make_predictions(49)) is None


def of_epochs(*epochs: float, key: str = "eval_loss") -> list[dict]:
    return [{"epoch": epoch, key: epoch} for epoch in epochs]


@pytest.mark.parametrize(
    ("histories", "sentence"),
    [
        ([], ""),
        ([of_epochs(1, 2)], ""),
        ([of_epochs(1, 2), of_epochs(1, 2)], "Thin lines are folds, thick ones their mean."),
        ([of_epochs(1, 2), of_epochs(0.9, 1.8)], "Thin lines are folds, thick ones their mean."),
        ([of_epochs(1, 2, key="eval_accuracy")] * 2, "Thin lines are folds, thick ones their mean."),
        # They have one epoch together, or none.
        ([of_epochs(1, 2), of_epochs(2, 3)], "Thin lines are folds."),
        ([of_epochs(1, 2), of_epochs(3, 4)], "Thin lines are folds."),
    ],
)
def test_the_sentence_on_curves_names_a_mean_that_is_drawn(histories, sentence):
    assert describe_curves(Evidence(histories=dict(zip("abc", histories)))) == sentence
