# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Report on all folds of a cross-validation together."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from transformers.utils import logging

from transformers_beats.inference.loading import load_extractor
from transformers_beats.utils.files import replace_file

from . import LOG_HISTORY
from .report import METRICS_FILE, Evidence, Predictions, keep_model, read_predictions, write_report


logger = logging.get_logger(__name__)

FOLDS = "folds.json"


def report_folds(
    output_dir: Path,
    names: Sequence[str],
    evaluation: str,
    description: Mapping[str, Any],
    read_audio: Callable[[str, int], np.ndarray] | None = None,
) -> dict[str, Any]:
    """
    Writes the metrics of each fold with mean and standard deviation to `output_dir/folds.json`, and a report on the
    predictions of all folds together to `output_dir/EVALUATION`; see [`write_report`]. Means leave out folds in which
    a metric is undefined. The report of a fold is in `output_dir/fold-NAME/EVALUATION`.

    Returns:
        `dict[str, Any]`: `folds`, `mean` and `std`; the standard deviation is that of a sample. None if undefined.
    """
    reports = {name: read_report(output_dir / f"fold-{name}" / evaluation) for name in names}
    each = {name: report.get("metrics", {}) for name, report in reports.items()}
    mean: dict[str, float | None] = {}
    std: dict[str, float | None] = {}
    for metric in dict.fromkeys(metric for metrics in each.values() for metric in metrics):
        lacking = [name for name, metrics in each.items() if metrics.get(metric) is None]
        if lacking:
            logger.warning(f"{metric} is undefined in {len(lacking)} fold(s), which its mean leaves out: {lacking}.")
        known = np.array([metrics[metric] for name, metrics in each.items() if name not in lacking], dtype=float)
        mean[metric] = float(known.mean()) if len(known) else None
        std[metric] = float(known.std(ddof=1)) if len(known) > 1 else None
    result = {"folds": each, "mean": mean, "std": std}
    with replace_file(output_dir / FOLDS) as temporary:
        temporary.write_text(json.dumps(result, indent=1), encoding="utf-8")
    if there := [name for name, report in reports.items() if report]:
        with keep_model():
            folds = {name: read_predictions(output_dir / f"fold-{name}" / evaluation) for name in there}
            evidence = Evidence(
                histories={f"fold {name}": _read_log(output_dir / f"fold-{name}") for name in there},
                folds=folds,
                fold_metrics=each,
                spread=std,
                read_audio=read_audio,
                extractor=load_extractor(output_dir / f"fold-{there[0]}"),
                notes=list(dict.fromkeys(note for name in there for note in reports[name].get("notes", ()))),
            )
            write_report(output_dir / evaluation, Predictions.join(list(folds.values())), mean, description, evidence)
    return result


def kept_epochs(output_dir: Path, names: Sequence[str], evaluation: str) -> dict[str, float]:
    """Returns the epoch whose weights each fold has kept, of folds whose reports tell it."""
    reports = {name: read_report(output_dir / f"fold-{name}" / evaluation, is_needed=False) for name in names}
    epochs = {name: report.get("description", {}).get("epoch") for name, report in reports.items()}
    return {name: float(epoch) for name, epoch in epochs.items() if epoch is not None}


def read_report(directory: Path, is_needed: bool = True) -> dict[str, Any]:
    """Reads `metrics.json` of a report; nothing, with a warning if it `is_needed`, if it was not written."""
    path = directory / METRICS_FILE
    if not path.exists():
        if is_needed:
            logger.warning(f"{directory}: is missing: `evaluate` of the fold's model on its clips writes it.")
        return {}
    return json.loads(path.read_text(encoding="utf-8"))


def _read_log(model_dir: Path) -> list[dict[str, Any]]:
    """Reads the log of a training; nothing if there is none."""
    path = model_dir / LOG_HISTORY
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
