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
"""

import torch

from .columns import ColumnEmbedder


class BeatsXaresEncoder(ColumnEmbedder):
    """
    Encoder from waveforms at `sampling_rate` to embeddings of `output_dim`, one every `hop_size_in_ms`. Arguments are
    those of [`ColumnEmbedder`].
    """

    @property
    def output_dim(self) -> int:
        """Size of an embedding."""
        return self.column_size

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
        return torch.stack(self.columns(list(audio if audio.ndim == 2 else audio.unsqueeze(0)))).to(audio.device)


__all__ = ["BeatsXaresEncoder"]
