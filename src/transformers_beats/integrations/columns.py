# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""
Embeddings of time columns, which all benchmarks are given in one form or another: for sound event detection, as in the
DCASE baselines, one vector of 768 (the mean over frequency) or 6,144 (all frequencies after one another) every 160 ms.
"""

from collections.abc import Sequence
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from torch import nn

from transformers_beats.feature_extraction_beats import BeatsFeatureExtractor, num_fbank_samples, to_float_waveform
from transformers_beats.inference.windowed import Columns, WindowedInference
from transformers_beats.modeling_beats import BeatsModel


Clip: TypeAlias = np.ndarray | torch.Tensor


class ColumnEmbedder(nn.Module):
    """
    The encoder of a checkpoint, applied to clips of any lengths. Clips up to a window long go through it in batches,
    each with the result that it has alone; longer ones in windows ([`WindowedInference`]).

    Args:
        name (`str`):
            Directory or Hub id of any model of this package with an encoder.
        pooling (`"mean"` or `"concat"`, defaults to `"mean"`):
            Whether the patches of a column are averaged, `(hidden_size,)`, or stand after one another, from low
            to high frequencies, `(num_freq_patches * hidden_size,)`.
        window_seconds (`float`, defaults to 10.0):
            Length of a window.
        batch_size (`int`, defaults to 8):
            Clips or windows that the encoder gets at once.
        revision (`str`, defaults to `"main"`):
            Branch, tag or commit on the Hub.

    Raises:
        `ValueError`: if there is no encoder in the checkpoint, or the arguments are impossible.

    Example:

    ```python
    >>> embedder = ColumnEmbedder("beats-iter3", pooling="concat")  # doctest: +SKIP
    >>> embedder.columns([waveform])[0].shape  # of 10 s at 16 kHz  # doctest: +SKIP
    torch.Size([62, 6144])
    ```
    """

    def __init__(
        self,
        name: str,
        pooling: Literal["mean", "concat"] = "mean",
        window_seconds: float = 10.0,
        batch_size: int = 8,
        revision: str = "main",
    ):
        super().__init__()
        if pooling not in ("mean", "concat"):
            raise ValueError(f"`pooling` must be 'mean' or 'concat', got {pooling!r}.")
        loaded: Any = BeatsModel.from_pretrained(name, revision=revision, output_loading_info=True)
        self.model, loading = loaded
        if missing := sorted(loading["missing_keys"]):
            raise ValueError(f"{name}: holds no BEATs encoder; it lacks {', '.join(missing[:3])}.")
        self.feature_extractor = BeatsFeatureExtractor.from_pretrained(name, revision=revision)
        self.inference = WindowedInference(
            self.model, self.feature_extractor, window_seconds=window_seconds, batch_size=batch_size
        )
        self.pooling = pooling
        self.eval()

    @property
    def sampling_rate(self) -> int:
        """What clips must be sampled at, in hertz."""
        return self.feature_extractor.sampling_rate

    @property
    def column_size(self) -> int:
        """Size of the embedding of a column: 768 or 6,144 in the released models."""
        config = self.model.config
        return config.hidden_size * (config.num_freq_patches if self.pooling == "concat" else 1)

    @property
    def column_milliseconds(self) -> float:
        """From one column to the next: 160 in the released models."""
        return 1000.0 * self.inference.column_seconds

    def columns(self, clips: Sequence[Clip]) -> list[torch.Tensor]:
        """
        Args:
            clips (`Sequence` of `np.ndarray` or `torch.Tensor` of shape `(num_samples,)`):
                Mono waveforms at `sampling_rate`, full scale at 1.0.

        Returns:
            `list[torch.Tensor]`: for each clip the embeddings of its columns `(num_columns, column_size)`, float32, on
            the CPU. A clip shorter than a column (2,800 samples) is padded with silence to one.
        """
        grids = self._grids(clips)
        return [grid.flatten(1) if self.pooling == "concat" else grid.mean(dim=1) for grid in grids]

    def means(self, clips: Sequence[Clip]) -> torch.Tensor:
        """The mean embedding of each of `clips` over time and frequency, `(num_clips, hidden_size)`, float32."""
        recordings = self.inference.embed_many(_to_waveforms(clips), self.sampling_rate)
        return torch.from_numpy(np.stack(list(recordings)))

    def centers(self, num_columns: int) -> torch.Tensor:
        """
        The middle of what each column is computed from, in milliseconds, `(num_columns,)`, float32: 87.5, 247.5 and so
        on, as the 16 frames of a column begin 10 ms apart and are 25 ms long, 175 ms together.
        """
        span = 1000.0 * self._min_samples() / self.sampling_rate
        return torch.arange(num_columns) * self.column_milliseconds + span / 2

    def _min_samples(self) -> int:
        return num_fbank_samples(self.feature_extractor.patch_size, self.sampling_rate)

    def _grids(self, clips: Sequence[Clip]) -> list[torch.Tensor]:
        """Hidden states `(num_columns, num_freq_patches, hidden_size)` of each clip."""
        recordings = self.inference.stream_embeddings_many(_to_waveforms(clips), self.sampling_rate)
        return [torch.from_numpy(Columns.join(blocks).values) for blocks in recordings]


def _to_waveforms(clips: Sequence[Clip]) -> list[np.ndarray]:
    return [to_float_waveform(clip, index).detach().cpu().numpy() for index, clip in enumerate(clips)]


__all__ = ["ColumnEmbedder"]
