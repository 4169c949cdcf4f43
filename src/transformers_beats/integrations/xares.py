# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""
Encoder for X-ARES (https://github.com/jimbozhang/xares). X-ARES takes a Python file with one name that ends in
`Encoder`, and keeps embeddings under that name, so each checkpoint needs a name of its own:

```python
from transformers_beats.integrations import xares


class BeatsIter3Encoder(xares.BeatsXaresEncoder):
    def __init__(self):
        super().__init__("beats-iter3")
```

    python -m xares.run beats_iter3_encoder.py src/tasks/*.py

and for XARES-LLM (https://github.com/xiaomi-research/xares-llm), which trains a language model on the embeddings, and
takes a class with its arguments:

    python -m xares_llm.run transformers_beats.integrations.xares.BeatsXaresLlmEncoder \\
        --model_args '{"name": "beats-iter3", "pooling": "concat"}'
"""

import torch
from torch.nn.utils.rnn import pad_sequence

from transformers_beats.utils.errors import UsageError

from .columns import ColumnEmbedder


class _Encoder(ColumnEmbedder):
    """[`ColumnEmbedder`] with what both benchmarks read."""

    @property
    def output_dim(self) -> int:
        """Size of an embedding."""
        return self.column_size


class BeatsXaresEncoder(_Encoder):
    """
    Encoder from waveforms at `sampling_rate` to embeddings of `output_dim`, one every `hop_size_in_ms`. Arguments are
    those of [`ColumnEmbedder`].
    """

    @property
    def hop_size_in_ms(self) -> float:
        """Time from one embedding to the next, in milliseconds."""
        return self.column_milliseconds

    def forward(self, audio: torch.Tensor) -> torch.Tensor:
        """
        Embeds the columns of clips.

        Args:
            audio (`torch.Tensor` of shape `(batch_size, num_samples)` or `(num_samples,)`):
                Mono clips at `sampling_rate`, full scale at 1.0, of any length.

        Returns:
            `torch.Tensor` of shape `(batch_size, num_columns, output_dim)`: float32, on the device of `audio`.
        """
        audio = audio if audio.ndim == 2 else audio.unsqueeze(0)
        return self.stacked_columns(list(audio), audio.shape[1]).to(audio.device)


class BeatsXaresLlmEncoder(_Encoder):
    """
    Encoder of XARES-LLM: from waveforms of different lengths in one batch to embeddings of `output_dim`, one every 160
    ms, and their mask. Arguments are those of [`ColumnEmbedder`].
    """

    def forward(
        self, audio: torch.Tensor, audio_attention_mask: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """
        Embeds the columns of clips, each as it is alone, whatever it is padded with.

        Args:
            audio (`torch.Tensor` of shape `(batch_size, num_samples)` or `(num_samples,)`):
                Mono clips at `sampling_rate`, full scale at 1.0, padded at their ends.
            audio_attention_mask (`torch.Tensor` of shape `(batch_size, num_samples)`, *optional*):
                1 for samples, which come first, and 0 for padding. By default there is none.

        Returns:
            `tuple[torch.Tensor, torch.Tensor]`: embeddings `(batch_size, num_columns, output_dim)`, float32, zero on
            padding, and their mask `(batch_size, num_columns)`, int64; both on the device of `audio`.

        Raises:
            [`UsageError`]: if the mask has another shape than the clips, or padding before samples.
            [`AudioError`]: for a clip without samples, such as one whose mask is all zeros; the message names it.
        """
        audio = audio if audio.ndim == 2 else audio.unsqueeze(0)
        lengths = [audio.shape[1]] * len(audio)
        if audio_attention_mask is not None:
            mask = audio_attention_mask.bool()
            mask = mask if mask.ndim == 2 else mask.unsqueeze(0)
            if mask.shape != audio.shape or (mask[:, 1:] & ~mask[:, :-1]).any():
                raise UsageError(
                    f"`audio_attention_mask` must have the shape of `audio`, {tuple(audio.shape)}, and ones before "
                    f"zeros, got {tuple(audio_attention_mask.shape)}."
                )
            lengths = mask.sum(dim=1).tolist()
        if not lengths:
            embeddings = self.stacked_columns([], audio.shape[1])
            return embeddings.to(audio.device), torch.ones(embeddings.shape[:2], dtype=torch.int64).to(audio.device)
        columns = self.columns([clip[:length] for clip, length in zip(audio, lengths)])
        valid = [torch.ones(len(of_clip), dtype=torch.int64) for of_clip in columns]
        embeddings, mask = (pad_sequence(values, batch_first=True) for values in (columns, valid))
        return embeddings.to(audio.device), mask.to(audio.device)


__all__ = ["BeatsXaresEncoder", "BeatsXaresLlmEncoder"]
