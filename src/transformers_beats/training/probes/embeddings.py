# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""
Embeddings of clips by the layers of a frozen encoder: means over patches, and the patches themselves. They are
computed once and kept in the cache, a file for each layer, so that other probes, layers and folds find them there.
"""

import shutil
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from accelerate.utils import gather_object
from torch import nn
from torch.utils.data import Subset

from transformers_beats import BeatsFeatureExtractor, BeatsForAudioClassification
from transformers_beats.inference.layers import LayerReader
from transformers_beats.inference.windows import count_columns
from transformers_beats.modeling_beats import masked_mean, patch_mask_from_frame_mask
from transformers_beats.training.config.arguments import BeatsTrainingArguments
from transformers_beats.training.data.clips import Clips
from transformers_beats.training.data.labelled import Windows, collate_waveforms
from transformers_beats.training.data.manifest import cache_path
from transformers_beats.training.data.sources import DataArguments
from transformers_beats.training.trainers.pretraining import WaveformTrainer
from transformers_beats.utils.cache import mark_used, remove_unused
from transformers_beats.utils.errors import BeatsError
from transformers_beats.utils.files import replace_file, write_array
from transformers_beats.utils.fingerprint import model_fingerprint
from transformers_beats.utils.numbers import format_number


# Of files in the cache, one for each layer; that of the masks begins like those of the patches.
MEANS_NAME, PATCHES_NAME, MASK_NAME = "embeddings-{}.npy", "patches-{}.npy", "patches-mask-{}.npy"
# States of patches that are held at a time, at most.
MAX_VALUES = 100_000_000


def _select(clip_of: np.ndarray, num_clips: int, clips: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns which windows are of the `clips`, given in ascending order, and the clip of each of these."""
    numbers = np.full(num_clips, -1)
    numbers[clips] = np.arange(len(clips))
    selected = numbers[clip_of]
    return selected >= 0, selected[selected >= 0]


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
        is_selected, clip_of = _select(self.clip_of, len(self.names), clips)
        return Embeddings(self.values[is_selected], clip_of, [self.names[clip] for clip in clips])

    def of_layer(self, position: int) -> "Embeddings":
        """Returns the embeddings of the layer at a position, `(num_windows, hidden_size)`."""
        return Embeddings(self.values[:, position], self.clip_of, self.names)


@dataclass
class PatchEmbeddings:
    """
    Hidden states of the patches of clips in one layer.

    Args:
        values (`np.ndarray` of shape `(num_stored, max_patches, hidden_size)`), mask (`(num_stored, max_patches)`):
            States, float32, mapped into memory from the cache, and which of them are valid, for all windows there.
        rows (`np.ndarray` of shape `(num_windows,)`), clip_of (`(num_windows,)`), names (`list[str]`):
            Place of each window in these; its clip, in ascending order; and the names of the clips.
    """

    values: np.ndarray
    mask: np.ndarray
    rows: np.ndarray
    clip_of: np.ndarray
    names: list[str]

    def select(self, clips: np.ndarray) -> "PatchEmbeddings":
        """Returns the patches of some of the clips, given in ascending order; they are not read for it."""
        is_selected, clip_of = _select(self.clip_of, len(self.names), clips)
        names = [self.names[clip] for clip in clips]
        return PatchEmbeddings(self.values, self.mask, self.rows[is_selected], clip_of, names)

    def read(self, windows: Any) -> tuple[torch.Tensor, torch.Tensor]:
        """
        Reads states `(num_windows, max_patches, hidden_size)` and their mask `(num_windows, max_patches)` of some
        windows; columns that are padding in all of them are left out.
        """
        rows = self.rows[windows]
        mask = self.mask[rows]
        length = int(mask.any(axis=0).nonzero()[0].max(initial=0)) + 1
        return torch.from_numpy(self.values[rows, :length]), torch.from_numpy(mask[:, :length])


# All that a probe reads of a set of clips.
View: TypeAlias = Embeddings | PatchEmbeddings


@dataclass
class Embedded:
    """Embeddings of clips: `means` of the `layers`, and the `patches` of some layers, by their numbers."""

    layers: list[int]
    means: Embeddings
    patches: dict[int, PatchEmbeddings]

    def select(self, clips: np.ndarray) -> "Embedded":
        """Returns the embeddings of some of the clips, given in ascending order."""
        patches = {layer: of_layer.select(clips) for layer, of_layer in self.patches.items()}
        return Embedded(self.layers, self.means.select(clips), patches)


class PooledLayers(nn.Module):
    """
    Encoder that returns the means over the patches of some of its `hidden_states`, and computes no layer above; of
    `patch_layers` also the patches.
    """

    def __init__(self, encoder: Any, layers: list[int], patch_layers: list[int] | None = None):
        super().__init__()
        self.patch_layers = patch_layers or []
        self.layers = sorted({*layers, *self.patch_layers}) if patch_layers else layers
        self.positions = [self.layers.index(layer) for layer in layers]
        self.patch_positions = [self.layers.index(layer) for layer in self.patch_layers]
        self.encoder, self.reader = encoder, LayerReader(encoder, self.layers)

    def forward(
        self, input_values: torch.Tensor, attention_mask: torch.Tensor | None = None
    ) -> dict[str, torch.Tensor]:
        """
        Returns `embeddings` `(batch_size, num_layers, hidden_size)` of the inputs of [`BeatsModel`]; if patches were
        asked for also `patches` `(batch_size, num_patches, num_patch_layers, hidden_size)` and their `mask`
        `(batch_size, num_patches)`, integers.
        """
        # `(batch_size, num_patches, num_layers, hidden_size)`.
        states = self.reader(input_values, attention_mask).transpose(2, 3).flatten(1, 2)
        mask = None
        if attention_mask is not None:
            mask = patch_mask_from_frame_mask(attention_mask, self.encoder.config).to(states.device)
        means = masked_mean(states[:, :, self.positions].flatten(2), mask)
        outputs = {"embeddings": means.unflatten(1, (len(self.positions), -1))}
        if self.patch_layers:
            outputs["patches"] = states[:, :, self.patch_positions]
            outputs["mask"] = states.new_ones(states.shape[:2], dtype=torch.int32) if mask is None else mask.int()
        return outputs


def embed(
    model: BeatsForAudioClassification,
    extractor: BeatsFeatureExtractor,
    clips: Clips,
    data: DataArguments,
    training: BeatsTrainingArguments,
    layers: list[int],
    patch_layers: list[int] | None = None,
) -> Embedded:
    """
    Computes the embeddings of all clips by layers of the encoder of a model: means of `layers`, patches of
    `patch_layers`. What is in the cache of the same model and clips is read. `data` has the length of the windows,
    `training` batch size, device and precision.

    Raises:
        [`BeatsError`]: if an embedding is not finite, or there is no room for patches on the disk.
    """
    if clips.whole is not None:
        # All folds need the same.
        whole, indices = clips.whole
        return embed(model, extractor, whole, data, training, layers, patch_layers).select(indices)
    windows, patch_layers = Windows(clips, data, extractor), patch_layers or []
    # The encoder's weights, the extractor's settings, and whatever else changes an embedding.
    key = (model_fingerprint(model.beats, extractor), clips.dataset._fingerprint, windows.num_samples)
    key = (*key, data.min_seconds, training.bf16, training.fp16)
    means = {layer: cache_path(MEANS_NAME, *key, layer) for layer in {*layers, *patch_layers}}
    patches = {layer: cache_path(PATCHES_NAME, *key, layer) for layer in patch_layers}
    mask = cache_path(MASK_NAME, *key)
    # On every node, whose caches may differ.
    absent = [layer for layer in layers if not means[layer].exists()]
    missing = {layer for found in gather_object([absent]) for layer in found}
    absent = [layer for layer in patch_layers if not (mask.exists() and patches[layer].exists())]
    missing_patches = {layer for found in gather_object([absent]) for layer in found}
    if missing or missing_patches:
        # Of patches, the means cost nothing.
        module = PooledLayers(model.beats.eval(), sorted(missing | missing_patches), sorted(missing_patches))
        trainer = WaveformTrainer(module, training, data_collator=collate_waveforms, feature_extractor=extractor)
        columns = count_columns(min(windows.num_samples, int(clips.num_samples.max())), extractor)
        max_patches = columns * model.config.num_freq_patches
        _compute(trainer, windows, max_patches, means, patches, mask)
    mark_used(*means.values(), *patches.values(), mask)
    if training.local_process_index == 0:
        remove_unused(MEANS_NAME)
        remove_unused(PATCHES_NAME)
    values = np.stack([np.load(means[layer]) for layer in layers], axis=1)
    names, rows, of_layers = list(clips.names), np.arange(len(windows)), {}
    for layer, path in patches.items():
        stored = np.load(path, mmap_mode="r")
        of_layers[layer] = PatchEmbeddings(stored, np.load(mask), rows, windows.clip_of, names)
    return Embedded(layers, Embeddings(values, windows.clip_of, names), of_layers)


def _compute(
    trainer: WaveformTrainer,
    windows: Windows,
    max_patches: int,
    means: dict[int, Path],
    patches: dict[int, Path],
    mask: Path,
) -> None:
    """Runs the encoder over all windows, and writes the files of the layers that it reads, whole or not at all."""
    module: Any = trainer.model
    size, writes = module.encoder.config.hidden_size, trainer.args.local_process_index == 0
    layers = [module.layers[position] for position in module.positions]
    chunk = len(windows)
    if module.patch_layers:
        of_window = max_patches * len(module.patch_layers) * size
        if writes:
            _check_room(mask.parent, 4 * len(windows) * of_window)
        chunk = max(trainer.args.eval_batch_size * trainer.args.world_size, MAX_VALUES // of_window)
    collected = []
    with ExitStack() as stack:
        stored, is_valid = {}, np.zeros((len(windows), max_patches), dtype=bool)
        for layer in module.patch_layers if writes else ():
            place = stack.enter_context(replace_file(patches[layer]))
            shape = (len(windows), max_patches, size)
            stored[layer] = np.lib.format.open_memmap(place, mode="w+", dtype=np.float32, shape=shape)
        for start in range(0, len(windows), chunk):
            rows = range(start, min(start + chunk, len(windows)))
            predictions: Any = trainer.predict(Subset(windows, rows)).predictions
            values, *of_patches = predictions if isinstance(predictions, tuple) else (predictions,)
            _check_finite(values)
            collected.append(np.asarray(values, dtype=np.float32))
            if of_patches:
                # Shorter windows are padded with -100.
                states, valid = of_patches[0], of_patches[1] == 1
                is_valid[rows, : valid.shape[1]] = valid
                states = np.where(valid[..., None, None], states, 0.0)
                _check_finite(states)
                for position, layer in enumerate(module.patch_layers if writes else ()):
                    stored[layer][rows, : valid.shape[1]] = states[:, :, position]
        for array in stored.values():
            array.flush()
    joined = np.concatenate(collected)
    if writes:
        for position, layer in enumerate(layers):
            _write(means[layer], joined[:, position])
        if module.patch_layers:
            _write(mask, is_valid)


def _check_finite(values: np.ndarray) -> None:
    if not np.isfinite(values).all():
        raise BeatsError("The encoder's output is not finite: its training has diverged, or its precision is too low.")


def _check_room(directory: Path, num_bytes: int) -> None:
    free = shutil.disk_usage(directory).free
    if num_bytes > free:
        raise BeatsError(
            f"{directory}: the patches of these clips need {format_number(num_bytes / 1e9)} GB, and "
            f"{format_number(free / 1e9)} GB are free: choose fewer layers in `probe_layers`, or make room."
        )


def _write(path: Path, values: np.ndarray) -> None:
    with replace_file(path) as temporary:
        write_array(temporary, values)
