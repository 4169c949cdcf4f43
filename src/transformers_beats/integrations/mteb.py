# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""
Model for the audio tasks of MTEB (https://github.com/embeddings-benchmark/mteb):

```python
import mteb
from transformers_beats.integrations.mteb import BeatsMtebModel

mteb.evaluate(BeatsMtebModel("beats-iter3"), tasks=mteb.get_tasks(tasks=["ESC50"]))
```

Padding does not change the embeddings, and audio is resampled by soxr: torchaudio is not needed. MTEB keeps results
under name and revision of a model. The revision of a directory is a hash of its weights and settings, so that a
checkpoint that was trained further, or another of the same name, is computed anew.
"""

from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.nn.functional import cosine_similarity, normalize
from tqdm.auto import tqdm

from transformers_beats.audio.decoding import open_audio
from transformers_beats.inference.loading import choose_device
from transformers_beats.utils.errors import UsageError

from .columns import ColumnEmbedder


if TYPE_CHECKING:
    from mteb.models import ModelMeta  # ty: ignore[import-not-found]


class BeatsMtebModel:
    """
    MTEB's encoder protocol: one embedding for each clip, the mean over its patches, compared by their cosine.

    Args:
        model_name (`str`):
            Name, directory or Hub id of any model of this package with an encoder.
        revision (`str`, *optional*):
            Branch, tag or commit on the Hub.
        device (`str`, *optional*):
            Device to compute on. Defaults to the GPU if there is one.
        **kwargs:
            Further arguments of [`ColumnEmbedder`], such as `layer`, which is in the revision of the results.
    """

    def __init__(self, model_name: str, revision: str | None = None, device: str | None = None, **kwargs: Any):
        self.model_name = model_name
        self.revision = revision
        self.embedder = ColumnEmbedder(model_name, revision=revision or "main", **kwargs)
        self.embedder.to(choose_device(device or "auto"))

    def encode(self, inputs: Iterable[dict[str, Any]], *, show_progress_bar: bool = True, **kwargs: Any) -> np.ndarray:
        """
        Embeds the clips of MTEB's batches.

        Args:
            inputs (`Iterable[dict]`):
                MTEB's data loader. `"audio"` of a batch is a list with `"array"` `(num_samples,)` or `(num_channels,
                num_samples)` and `"sampling_rate"` of each clip.
            show_progress_bar (`bool`, defaults to `True`):
                Whether to show one.
            **kwargs:
                Further arguments of MTEB about the task, which are ignored.

        Returns:
            `np.ndarray` of shape `(num_clips, hidden_size)`, float32.

        Raises:
            [`UsageError`]: if a batch has no audio.
        """
        embeddings = []
        for batch in tqdm(inputs, disable=not show_progress_bar):
            if "audio" not in batch:
                raise UsageError(f"BEATs embeds audio, but the batch has only {', '.join(batch)}.")
            embeddings.append(self.embedder.means([self._load(item) for item in batch["audio"]]).numpy())
        return np.concatenate(embeddings)

    def _load(self, item: Any) -> np.ndarray:
        """Returns a clip as a mono waveform at the model's rate, from MTEB's dict or torchcodec's decoder."""
        return np.concatenate(list(open_audio(item, self.embedder.sampling_rate).blocks))

    def similarity(self, embeddings1: Any, embeddings2: Any) -> torch.Tensor:
        """Cosines between all of `(n, dim)` and all of `(m, dim)`, arrays or tensors: `(n, m)`."""
        first, second = (torch.atleast_2d(torch.as_tensor(values).float()) for values in (embeddings1, embeddings2))
        return normalize(first, dim=-1) @ normalize(second, dim=-1).T

    def similarity_pairwise(self, embeddings1: Any, embeddings2: Any) -> torch.Tensor:
        """Cosines between the rows of `(n, dim)` and those of `(n, dim)`: `(n,)`."""
        first, second = (torch.atleast_2d(torch.as_tensor(values).float()) for values in (embeddings1, embeddings2))
        return cosine_similarity(first, second, dim=-1)

    @cached_property
    def mteb_model_meta(self) -> "ModelMeta":
        """
        Metadata that MTEB writes beside results. MTEB takes results of the same name and revision for those of this
        model: the revision is the commit on the Hub or, for a directory, which MTEB names `local/...`, a
        [`model_fingerprint`].
        """
        from mteb.models import ModelMeta  # ty: ignore[import-not-found]
        from mteb.models.model_meta import ScoringFunction  # ty: ignore[import-not-found]

        model = self.embedder.model
        path = Path(self.model_name)
        commit = None if path.is_dir() else getattr(model.config, "_commit_hash", None)
        return ModelMeta.create_empty(
            {
                # Names must have an organisation.
                "name": f"local/{path.resolve().name}" if path.is_dir() else self.model_name,
                "revision": self.embedder.with_layer(commit) if commit else self.embedder.fingerprint(),
                "n_parameters": model.num_parameters(),
                "embed_dim": model.config.hidden_size,
                "framework": ["PyTorch"],
                # MTEB does not validate these values, so that a string would stay one.
                "similarity_fn_name": ScoringFunction.COSINE,
                "modalities": ["audio"],
                "use_instructions": False,
            }
        )


__all__ = ["BeatsMtebModel"]
