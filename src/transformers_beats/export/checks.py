# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Comparison of an ONNX file, run by onnxruntime, with its model."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch

from transformers_beats.backends.graphs import ExportError, centered_cosine, largest_difference

from .waveform_model import INPUTS, WaveformModel


if TYPE_CHECKING:
    from onnxruntime import InferenceSession


class Comparison(NamedTuple):
    """
    Results of onnxruntime against those of PyTorch.

    Args:
        difference (`float`):
            Largest difference, relative to the largest value of an output where that is above 1. For codes, which
            rounding may move to the next one where two are equally near, the share that is not equal.
        similarity (`float`):
            Cosine between the first outputs of all sounds, each alone, less the mean of PyTorch's. For codes, the
            share that is equal.
        same_class (`float`, *optional*):
            Share of the sounds, or of their columns, to which a classifier gives the same likeliest label.
    """

    difference: float
    similarity: float
    same_class: float | None = None


def check_sounds(num_samples: int, sampling_rate: int) -> np.ndarray:
    """
    Synthesises test sounds, `(5, num_samples)`, float32: noise, a tone that rises in noise, silence, clipped noise
    and impulses.
    """
    noise = np.random.default_rng(1).standard_normal((3, num_samples))
    time = np.arange(num_samples) / num_samples
    # Up to 7/8 of the highest frequency. A tone alone leaves nothing but errors of rounding in other bands, and their
    # logarithm is another one in each implementation.
    sweep = 0.3 * np.sin(np.pi * num_samples * 7 / 16 * time**2) + 0.1 * noise[1]
    impulses = np.arange(num_samples) % (sampling_rate // 20) == 0
    sounds = [0.1 * noise[0], sweep, np.zeros(num_samples), np.clip(3 * noise[2], -1, 1), impulses]
    return np.stack(sounds).astype(np.float32)


def check(path: Path, module: WaveformModel) -> Comparison:
    """
    Runs a file in onnxruntime on lengths that it was not exported with: each of [`check_sounds`] alone, then all of
    them cut to different lengths in one batch.

    Raises:
        [`ExportError`]: if a mask differs, or a value is not finite.
    """
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    num_samples = 4 * module.min_samples + 777
    sounds = torch.from_numpy(check_sounds(num_samples, module.feature_extractor.sampling_rate))
    lengths = torch.tensor([num_samples, 3 * module.min_samples, num_samples, 2 * module.min_samples, 1000])
    batches = [(sound.unsqueeze(0), torch.tensor([num_samples])) for sound in sounds]
    runs = [_run_both(session, module, *batch) for batch in [*batches, (sounds, lengths)]]
    expected, found = ([run[index][module.output_names[0]] for run in runs] for index in range(2))
    # One vector or code in a row. Those of the batch depend on one another in int8.
    reference, values = (np.concatenate([_rows(output) for output in outputs[:-1]]) for outputs in (expected, found))
    if module.output_names == ["audio_codes"]:
        equal = np.concatenate([_rows(first == second) for first, second in zip(expected, found)])
        return Comparison(1.0 - float(equal.mean()), float((reference == values).mean()))
    difference = max(
        largest_difference(run[0][name], run[1][name])
        for run in runs
        for name in module.output_names
        if not name.endswith("_mask")
    )
    has_classes = "probabilities" in module.output_names
    same = float((reference.argmax(axis=1) == values.argmax(axis=1)).mean()) if has_classes else None
    return Comparison(difference, centered_cosine(reference, values), same)


def _run_both(
    session: "InferenceSession", module: WaveformModel, waveforms: torch.Tensor, lengths: torch.Tensor
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Computes the outputs with PyTorch and with onnxruntime, by their names."""
    with torch.no_grad():
        expected = dict(zip(module.output_names, (output.numpy() for output in module(waveforms, lengths))))
    outputs: list[Any] = list(session.run(list(expected), dict(zip(INPUTS, (waveforms.numpy(), lengths.numpy())))))
    found = dict(zip(expected, outputs))
    for name, values in found.items():
        if name.endswith("_mask") and not (expected[name] == values).all():
            raise ExportError(f"`{name}` of the exported graph differs from PyTorch's.")
        if not np.isfinite(values).all():
            raise ExportError(f"`{name}` of the exported graph is not finite.")
    return expected, found


def _rows(output: np.ndarray) -> np.ndarray:
    """Reshapes an output to codes `(n, 1)` or vectors `(n, size)`."""
    return output.reshape(-1, 1) if output.dtype.kind in "bi" else output.reshape(-1, output.shape[-1])
