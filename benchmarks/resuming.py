# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Rows of a benchmark that are computed once."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from transformers_beats.training.reports.report import read_predictions
from transformers_beats.utils.files import replace_file


def read_or_compute(
    file: Path, compute: Callable[[], dict[str, Any]], is_current: Callable[[dict[str, Any]], bool] | None = None
) -> dict[str, Any]:
    """
    Returns the row in a JSON file; if there is none, or `is_current` says that it no longer holds, computes it and
    writes the file, whole or not at all.
    """
    is_known = file.exists() and (is_current is None or is_current(json.loads(file.read_text(encoding="utf-8"))))
    if not is_known:
        row = compute()
        with replace_file(file) as temporary:
            temporary.write_text(json.dumps(row, indent=1), encoding="utf-8")
    return json.loads(file.read_text(encoding="utf-8"))


def read_right(report: Path) -> dict[str, int]:
    """Reads from the report of a classifier which clips it got right, 1 or 0 by name, in the order of the names."""
    predictions = read_predictions(report)
    return dict(sorted(zip(predictions.names, (predictions.predicted == predictions.labels).astype(int).tolist())))
