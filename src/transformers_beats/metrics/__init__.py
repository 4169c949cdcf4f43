# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""
Metrics as modules of `evaluate`, which need no download:

    from transformers_beats.metrics import load_metric

    load_metric("audioset_map").compute(predictions=scores, references=labels)

`evaluate.load("…/metrics/audioset_map.py")` loads each file of this folder as well. The function behind each
metric (`compute_audioset_map` and so on) takes the same arguments, without the cache files of `evaluate`.
"""

import importlib
from typing import Any


_MODULES = {
    "accuracy": "Accuracy",
    "audioset_map": "AudiosetMap",
    "macro_f1": "MacroF1",
    "sound_event_detection": "SoundEventDetection",
}
_HOME = {class_name: module for module, class_name in _MODULES.items()}
METRICS = tuple(_MODULES)
__all__ = ["METRICS", "Accuracy", "AudiosetMap", "MacroF1", "SoundEventDetection", "load_metric"]


def __getattr__(name):
    # `evaluate` takes seconds to import.
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_HOME[name]}", __name__), name)


def load_metric(name: str, **kwargs) -> Any:
    """
    Loads a metric of this package by its name, as `evaluate.load` gives those of the Hub.

    Args:
        name (`str`):
            One of `METRICS`.
        **kwargs:
            For the constructor of `evaluate.Metric`: `num_process`, `process_id`, `experiment_id`, `keep_in_memory`,
            `cache_dir`.

    Returns:
        `evaluate.Metric`: with `compute`, `add` and `add_batch`.

    Raises:
        `ValueError`: if there is no such metric.
    """
    if name not in _MODULES:
        raise ValueError(f"There is no metric {name!r} here, only {', '.join(METRICS)}.")
    module = importlib.import_module(f".{name}", __name__)
    return getattr(module, _MODULES[name])(**kwargs)
