# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Results of inference on recordings: of time columns, of windows and of whole recordings."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from transformers import PreTrainedConfig

from transformers_beats.configuration_beats import problem_type_of


@dataclass
class Columns:
    """
    Results of consecutive time columns of a recording.

    Args:
        values (`np.ndarray` of shape `(num_columns, ...)`):
            Scores, embeddings or codes.
        first (`int`):
            Number of the first of them in the recording, from 0.
        column_seconds (`float`):
            Time from one column to the next: 0.16 in the released models, 0.04 for scores of their steps
            (`frame_pooling="sequence"`).
        silent (`np.ndarray` of shape `(num_columns,)`, *optional*):
            Columns of digital silence, for which the model's values mean nothing.
    """

    values: np.ndarray
    first: int
    column_seconds: float
    silent: np.ndarray | None = None

    @property
    def starts(self) -> np.ndarray:
        """Times at which the columns begin, `(num_columns,)`, in seconds."""
        return (self.first + np.arange(len(self.values))) * self.column_seconds

    @property
    def ends(self) -> np.ndarray:
        """Times at which the columns end and the next ones begin, `(num_columns,)`, in seconds."""
        return self.starts + self.column_seconds

    @classmethod
    def join(cls, blocks: Iterable["Columns"]) -> "Columns":
        """Joins consecutive blocks."""
        blocks = list(blocks)
        values = np.concatenate([block.values for block in blocks])
        masks = [block.silent for block in blocks if block.silent is not None]
        silent = np.concatenate(masks) if len(masks) == len(blocks) else None
        return cls(values, blocks[0].first, blocks[0].column_seconds, silent)


@dataclass
class WindowScores:
    """
    Scores of one window.

    Args:
        scores (`np.ndarray` of shape `(num_labels,)`):
            Probabilities, float32.
        start (`float`):
            Start of the window, in seconds.
        end (`float`):
            End of its last column, in seconds.
    """

    scores: np.ndarray
    start: float
    end: float


@dataclass
class ClipScores:
    """
    Scores of a recording.

    Args:
        scores (`np.ndarray` of shape `(num_labels,)`):
            Probabilities, float32, in the order of `model.config.id2label`.
        windows (`list[WindowScores]`):
            Scores of its windows.
    """

    scores: np.ndarray
    windows: list[WindowScores]


def to_scores(logits: torch.Tensor, config: PreTrainedConfig) -> torch.Tensor:
    """Returns probabilities `(..., num_labels)`, float32; for a regression, its values."""
    problem_type = problem_type_of(config)
    if problem_type == "regression":
        return logits.float()
    return logits.float().sigmoid() if problem_type == "multi_label_classification" else logits.float().softmax(dim=-1)


__all__ = ["ClipScores", "Columns", "WindowScores", "to_scores"]
