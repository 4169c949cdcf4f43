# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Report as one HTML page that needs no other file: metrics, curves, classes, confusions, calibration, clips."""

import base64
import io
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from matplotlib.image import imsave
from transformers.utils import logging

from transformers_beats.audio.decoding import AudioError, stream_waveform
from transformers_beats.feature_extraction_beats import BeatsFeatureExtractor
from transformers_beats.plotting.spectrogram import DYNAMIC_RANGE_DB, read_spectrogram
from transformers_beats.utils.numbers import format_interval, format_number

from .calibration import calibrate
from .curves import draw_loss, draw_metric, has_curves, has_means, validation_metric
from .intervals import LEVEL, percentiles
from .pictures import as_svg, draw_reliability
from .report import (
    MAX_MATRIX_CLASSES,
    METRIC_NAMES,
    Evidence,
    Predictions,
    class_metric,
    describe_size,
    hub_name,
    rank_classes,
    worst_confusions,
)


logger = logging.get_logger(__name__)

TEMPLATE = "report_template.html"
NUM_HARD_CLIPS = 12
# Seconds of a clip that can be heard, and bytes of all that are embedded.
MAX_SECONDS, MAX_AUDIO_BYTES = 10, 2_000_000
MAX_LISTED_CLASSES = 40


def make_environment() -> Environment:
    """Returns the environment of the templates of pages, whose filters write numbers as everywhere."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined, trim_blocks=False
    )
    environment.filters |= {"number": format_number, "interval": format_interval}
    return environment


def render_page(report: Mapping[str, Any], predictions: Predictions, evidence: Evidence) -> str:
    """Returns the page of a report; see [`write_report`], whose `metrics.json` is `report`."""
    environment = make_environment()
    description = {key: value for key, value in report["description"].items() if value is not None}
    ranked, calibration = rank_classes(predictions), evidence.calibration or calibrate(predictions)
    num_classes = len(predictions.label_names)
    of = f", {len(evidence.folds)} folds" if evidence.folds else ""
    interval_of = dict(zip(predictions.label_names, map(percentiles, predictions.resamples.classes.T)))
    clips = list(hardest_clips(predictions, evidence))
    extractor = evidence.extractor
    return environment.get_template(TEMPLATE).render(
        title=hub_name(str(description.get("model", "BEATs"))),
        subtitle=f"{hub_name(description.get('dataset', 'clips'))}: {describe_size(report)}, "
        f"{format_number(num_classes)} classes{of}",
        notes=evidence.notes,
        metrics=report["metrics"],
        intervals=report["intervals"],
        intervals_note=report["intervals_by"],
        class_interval_note=f"Intervals of {LEVEL:.0%} are those of {METRIC_NAMES[class_metric(predictions)]}.",
        level=f"{LEVEL:.0%}",
        metric_names=METRIC_NAMES,
        folds=evidence.fold_metrics,
        spread=evidence.spread,
        curves=list(draw_curves_of(evidence)),
        curves_note=describe_curves(evidence),
        classes=[entry | {"interval": interval_of[entry["label"]]} for entry in ranked],
        class_key=class_metric(predictions),
        class_keys=("ap", "auc") if predictions.is_multi_label else ("precision", "recall", "f1"),
        max_listed=MAX_LISTED_CLASSES,
        left_out=num_classes - len(ranked),
        num_classes=num_classes,
        label_names=predictions.label_names,
        matrix=shade_confusions(predictions),
        confusions=[] if predictions.is_multi_label else worst_confusions(predictions),
        calibration=calibration,
        reliability=as_svg(draw_reliability(calibration), "reliability") if calibration else "",
        clips=clips,
        clips_note=describe_clips(predictions, clips),
        top_khz=f"{extractor.sampling_rate / 2000:g}" if extractor else "",
        description={
            key: ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else value
            for key, value in description.items()
        },
    )


def draw_curves_of(evidence: Evidence) -> Iterator[str]:
    """Draws loss and validation metric over the epochs, as SVG, if they were logged."""
    if has_curves(evidence.histories):
        yield as_svg(draw_loss(evidence.histories), "loss")
        if validation_metric(evidence.histories):
            yield as_svg(draw_metric(evidence.histories), "metric")


def describe_curves(evidence: Evidence) -> str:
    """Returns a sentence on the lines of the learning curves."""
    if len(evidence.histories) > 1:
        mean = ", thick ones their mean" if has_means(evidence.histories) else ""
        return f"Thin lines are folds{mean}."
    return ""


def shade_confusions(predictions: Predictions) -> list[list[dict[str, Any]]]:
    """Returns number and shade of each cell of the confusion matrix; nothing if it would be too large."""
    if predictions.is_multi_label or len(predictions.label_names) > MAX_MATRIX_CLASSES:
        return []
    confusions = predictions.confusions
    shares = confusions / np.maximum(confusions.sum(axis=1), 1)[:, None]
    # Not darker, so that the number can be read on it.
    return [
        [{"count": int(count), "shade": f"{0.08 + 0.5 * share:.2f}"} for count, share in zip(*row)]
        for row in zip(confusions, shares)
    ]


def clip_losses(predictions: Predictions) -> np.ndarray:
    """Computes the cross-entropy of each row, `(num_clips,)`: of its class, or the sum over the known classes."""
    scores = predictions.scores.astype(np.float64).clip(1e-7, 1 - 1e-7)
    if not predictions.is_multi_label:
        return -np.log(scores[np.arange(len(scores)), predictions.labels])
    losses = -np.where(predictions.labels == 1, np.log(scores), np.log1p(-scores))
    return (losses * predictions.is_known).sum(axis=1)


def hardest_clips(predictions: Predictions, evidence: Evidence) -> Iterator[dict[str, Any]]:
    """Yields the clips with the largest loss, the mean over the rows of a file: name, classes, picture and sound."""
    names, file_of = predictions.files, predictions.file_of
    losses = np.bincount(file_of, clip_losses(predictions)) / np.bincount(file_of)
    used = 0
    for file in np.argsort(-losses, kind="stable")[:NUM_HARD_CLIPS]:
        rows = file_of == file
        clip: dict[str, Any] = {"name": names[file], "image": "", "audio": "", "type": "", "seconds": ""}
        scores = predictions.scores[rows].mean(axis=0)
        for key, values in (("true", predictions.labels), ("predicted", predictions.predicted)):
            of_clip = values[rows].max(axis=0).nonzero()[0] if predictions.is_multi_label else np.unique(values[rows])
            clip[key] = ", ".join(
                f"{predictions.label_names[label]} ({format_number(float(scores[label]))})" for label in of_clip
            )
        if evidence.read_audio is not None and evidence.extractor is not None:
            clip |= embed_clip(evidence.read_audio, clip["name"], evidence.extractor, MAX_AUDIO_BYTES - used)
            used += len(clip["audio"])
        yield clip


def embed_clip(
    read_audio: Callable[[str, int], np.ndarray], name: str, extractor: BeatsFeatureExtractor, max_bytes: int
) -> dict[str, str]:
    """Returns spectrogram and sound of the beginning of a clip, in base64; no sound above `max_bytes`."""
    rate = extractor.sampling_rate
    try:
        waveform = read_audio(name, MAX_SECONDS * rate)
    except AudioError as error:
        logger.warning(f"The report lacks a clip: {error}")
        return {}
    image, sound = io.BytesIO(), io.BytesIO()
    stream = stream_waveform(waveform, rate, rate)
    # Nothing new, and without the name of the clip.
    stream.report.is_logged = False
    decibels = read_spectrogram(stream, extractor).decibels.T
    options: dict[str, Any] = {"cmap": "magma", "origin": "lower", "vmin": -DYNAMIC_RANGE_DB, "vmax": 0}
    imsave(image, decibels, format="jpg", pil_kwargs={"quality": 80}, **options)
    is_mp3 = "MP3" in soundfile.available_formats()
    soundfile.write(sound, waveform.clip(-1, 1), rate, format="MP3" if is_mp3 else "WAV")
    picture, audio = (base64.b64encode(file.getvalue()).decode() for file in (image, sound))
    return {
        "image": picture,
        "audio": audio if len(audio) <= max_bytes else "",
        "type": "audio/mpeg" if is_mp3 else "audio/wav",
        "seconds": f"{len(waveform) / rate:.2f}",
    }


def describe_clips(predictions: Predictions, clips: list[dict[str, Any]]) -> str:
    """Returns a sentence on the choice of the clips."""
    kind = "binary cross-entropy" if predictions.is_multi_label else "cross-entropy"
    heard = f" The first {MAX_SECONDS} s can be heard." if any(clip["audio"] for clip in clips) else ""
    return f"The {len(clips)} clips with the largest {kind}; scores are in brackets.{heard}"
