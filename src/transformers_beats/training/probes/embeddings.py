# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Embeddings of clips by the layers of a frozen encoder, computed once and kept in the cache."""

import io
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from accelerate.utils import gather_object
from torch import nn

from transformers_beats import BeatsFeatureExtractor, BeatsForAudioClassification
from transformers_beats.inference.layers import LayerReader
from transformers_beats.modeling_beats import masked_mean, patch_mask_from_frame_mask
from transformers_beats.training.config.arguments import BeatsTrainingArguments
from transformers_beats.training.data.clips import Clips
from transformers_beats.training.data.labelled import Windows, collate_waveforms
from transformers_beats.training.data.manifest import cache_path
from transformers_beats.training.data.sources import DataArguments
from transformers_beats.training.trainers.pretraining import WaveformTrainer
from transformers_beats.utils.errors import BeatsError
from transformers_beats.utils.files import replace_file
from transformers_beats.utils.fingerprint import model_fingerprint


@dataclass
class Embeddings:
    """
    Embeddings of clips: means over the patches of each window, float32 `(num_windows, num_layers, hidden_size)`; the
    clip of each window, in ascending order; and the names of the clips.
    """

    values: np.ndarray
    clip_of: np.ndarray
    names: list[str]

    def select(self, clips: np.ndarray) -> "Embeddings":
        """Returns the embeddings of some of the clips, given in ascending order."""
        numbers = np.full(len(self.names), -1)
        numbers[clips] = np.arange(len(clips))
        clip_of = numbers[self.clip_of]
        return Embeddings(self.values[clip_of >= 0], clip_of[clip_of >= 0], [self.names[clip] for clip in clips])

    def of_layer(self, position: int) -> "Embeddings":
        """Returns the embeddings of the layer at a position, `(num_windows, hidden_size)`."""
        return Embeddings(self.values[:, position], self.clip_of, self.names)


class PooledLayers(nn.Module):
    """Encoder that returns the means over the patches of some of its `hidden_states`, and computes no layer above."""

    def __init__(self, encoder: Any, layers: list[int]):
        super().__init__()
        self.encoder, self.reader = encoder, LayerReader(encoder, layers)

    def forward(
        self, input_values: torch.Tensor, attention_mask: torch.Tensor | None = None
    ) -> dict[str, torch.Tensor]:
        """Returns `embeddings` `(batch_size, num_layers, hidden_size)` of the inputs of [`BeatsModel`]."""
        states = self.reader(input_values, attention_mask).transpose(2, 3)
        mask = None
        if attention_mask is not None:
            mask = patch_mask_from_frame_mask(attention_mask, self.encoder.config).to(states.device)
        means = masked_mean(states.flatten(1, 2).flatten(2), mask)
        return {"embeddings": means.unflatten(1, states.shape[-2:])}


def embed(
    model: BeatsForAudioClassification,
    extractor: BeatsFeatureExtractor,
    clips: Clips,
    data: DataArguments,
    training: BeatsTrainingArguments,
    layers: list[int],
) -> Embeddings:
    """
    Computes the embeddings of all clips by layers of the encoder of a model, or reads those of the same model and
    clips from the cache. `data` has the length of the windows, `training` batch size, device and precision.

    Raises:
        [`BeatsError`]: if an embedding is not finite.
    """
    if clips.whole is not None:
        # All folds need the same.
        whole, indices = clips.whole
        return embed(model, extractor, whole, data, training, layers).select(indices)
    windows = Windows(clips, data, extractor)
    # The encoder's weights, the extractor's settings, and whatever else changes an embedding.
    key = (model_fingerprint(model.beats, extractor), clips.dataset._fingerprint, windows.num_samples, layers)
    path = cache_path("embeddings-{}.npy", *key, data.min_seconds, training.bf16, training.fp16)
    # On every node, whose caches may differ.
    if all(gather_object([path.exists()])):
        return Embeddings(np.load(path), windows.clip_of, list(clips.names))
    trainer = WaveformTrainer(
        PooledLayers(model.beats.eval(), layers),
        training,
        data_collator=collate_waveforms,
        feature_extractor=extractor,
    )
    values = np.asarray(trainer.predict(windows).predictions, dtype=np.float32)
    if not np.isfinite(values).all():
        raise BeatsError("The encoder's output is not finite: its training has diverged, or its precision is too low.")
    if trainer.args.local_process_index == 0:
        buffer = io.BytesIO()
        np.save(buffer, values)
        with replace_file(path) as temporary:
            temporary.write_bytes(buffer.getvalue())
    return Embeddings(values, windows.clip_of, list(clips.names))
