# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""
Embeddings of time columns, for all benchmarks: for sound event detection, as in the DCASE baselines, one vector of 768
(mean over frequency) or 6,144 (frequencies concatenated) every 160 ms.
"""

from collections.abc import Iterator, Sequence
from itertools import count
from typing import Any, Literal, TypeAlias, TypeVar

import numpy as np
import torch
from torch import nn

from transformers_beats.audio.recordings import AudioError
from transformers_beats.fbank_beats import num_fbank_samples
from transformers_beats.inference.layers import choose_layers, is_single
from transformers_beats.inference.loading import load_extractor, load_model
from transformers_beats.inference.results import Columns
from transformers_beats.inference.windowed import WindowedInference
from transformers_beats.inference.windows import count_columns
from transformers_beats.modeling_beats import BeatsModel
from transformers_beats.utils.errors import UsageError
from transformers_beats.utils.fingerprint import model_fingerprint


# In seconds.
DEFAULT_WINDOW = 10.0

Clip: TypeAlias = np.ndarray | torch.Tensor
T = TypeVar("T")


def name_clips(results: Iterator[T]) -> Iterator[T]:
    """Yields the results of clips; the error of one says which of them it is."""
    for number in count():
        try:
            result = next(results)
        except StopIteration:
            return
        except AudioError as error:
            raise AudioError(f"clips[{number}]: {error}") from error
        yield result


class ColumnEmbedder(nn.Module):
    """
    Encoder of a checkpoint for clips of any lengths. Clips up to a window long are batched, each with the result that
    it has alone; longer ones go through it in windows ([`WindowedInference`]).

    Args:
        name (`str`):
            Name, directory or Hub id of any model of this package with an encoder.
        pooling (`"mean"` or `"concat"`, defaults to `"mean"`):
            Mean of the patches of a column, `(hidden_size,)`, or their concatenation from low to high frequencies,
            `(num_freq_patches * hidden_size,)`.
        window_seconds (`float`, defaults to 10.0):
            Length of a window.
        batch_size (`int`, defaults to 8):
            Clips or windows in a batch.
        revision (`str`, defaults to `"main"`):
            Branch, tag or commit on the Hub.
        layer (`int`, defaults to -1):
            Layer as in `hidden_states`, 0 for the input of the first; layers above it are not computed.

    Raises:
        [`BeatsError`]: if the checkpoint cannot be loaded, holds no encoder, or an argument is out of range.

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
        window_seconds: float = DEFAULT_WINDOW,
        batch_size: int = 8,
        revision: str = "main",
        layer: int = -1,
    ):
        super().__init__()
        if pooling not in ("mean", "concat"):
            raise UsageError(f"`pooling` must be 'mean' or 'concat', got {pooling!r}.")
        # To `is_single`, None is the last layer, and truth values are numbers.
        if layer is None or isinstance(layer, bool) or not is_single(layer):
            raise UsageError(f"`layer` must be the number of one layer, got {layer!r}.")
        self.model: Any = load_model(name, BeatsModel, revision=revision)
        self.feature_extractor = load_extractor(name, revision=revision)
        self.inference = WindowedInference(
            self.model, self.feature_extractor, window_seconds=window_seconds, batch_size=batch_size
        )
        self.pooling, self.window_seconds = pooling, window_seconds
        (self.layer,) = choose_layers(layer, self.model.config.num_hidden_layers)
        self.eval()

    @property
    def sampling_rate(self) -> int:
        """Sampling rate of clips, in hertz."""
        return self.feature_extractor.sampling_rate

    @property
    def column_size(self) -> int:
        """Size of the embedding of a column: 768 or 6,144 in the released models."""
        config = self.model.config
        return config.hidden_size * (config.num_freq_patches if self.pooling == "concat" else 1)

    @property
    def column_milliseconds(self) -> float:
        """Time from one column to the next: 160 in the released models."""
        return 1000.0 * self.inference.column_seconds

    def fingerprint(self) -> str:
        """
        Returns the [`model_fingerprint`] of encoder and feature extractor, and settings that are not the defaults: a
        name to keep results under.
        """
        return self.with_settings(model_fingerprint(self.model, self.feature_extractor))

    def with_settings(self, name: str) -> str:
        """Returns a name of the model, with its layer if that is not the last, and windows that are not of 10 s."""
        if self.layer != self.model.config.num_hidden_layers:
            name = f"{name}-layer-{self.layer}"
        return name if self.window_seconds == DEFAULT_WINDOW else f"{name}-window-{self.window_seconds}"

    def columns(self, clips: Sequence[Clip]) -> list[torch.Tensor]:
        """
        Embeds the columns of clips.

        Args:
            clips (`Sequence` of `np.ndarray` or `torch.Tensor` of shape `(num_samples,)`):
                Mono waveforms at `sampling_rate`, full scale at 1.0.

        Returns:
            `list[torch.Tensor]`: for each clip the embeddings of its columns `(num_columns, column_size)`, float32, on
            the CPU. A clip shorter than a column (2,800 samples) is padded with silence to one.

        Raises:
            [`AudioError`]: for an empty clip, or one with NaN or infinite samples; the message has its number.
        """
        recordings = self.inference.stream_embeddings_many(clips, self.sampling_rate, self.layer)
        grids = [torch.from_numpy(columns.values) for columns in name_clips(map(Columns.join, recordings))]
        return [grid.flatten(1) if self.pooling == "concat" else grid.mean(dim=1) for grid in grids]

    def stacked_columns(self, clips: Sequence[Clip], num_samples: int) -> torch.Tensor:
        """
        Embeds the columns of clips of the same length, `(num_clips, num_columns, column_size)`, float32. An empty
        batch, the last of a data loader at times, has as many columns as clips of that length.
        """
        shape = (len(clips), count_columns(num_samples, self.feature_extractor), self.column_size)
        return torch.stack(self.columns(clips)) if shape[0] else torch.zeros(shape)

    def means(self, clips: Sequence[Clip]) -> torch.Tensor:
        """Returns the mean embedding of each clip over time and frequency, `(num_clips, hidden_size)`, float32."""
        embeddings = list(name_clips(self.inference.embed_many(clips, self.sampling_rate, self.layer)))
        if not embeddings:
            return torch.zeros(0, self.model.config.hidden_size)
        return torch.from_numpy(np.stack(embeddings))

    def centers(self, num_columns: int) -> torch.Tensor:
        """
        Returns the middle of the audio of each column, in milliseconds, `(num_columns,)`, float32: 87.5, 247.5 and so
        on, as the 16 frames of a column begin 10 ms apart and are 25 ms long, 175 ms together.
        """
        span = 1000.0 * self._min_samples() / self.sampling_rate
        return torch.arange(num_columns) * self.column_milliseconds + span / 2

    def _min_samples(self) -> int:
        return num_fbank_samples(self.feature_extractor.patch_size, self.sampling_rate)
