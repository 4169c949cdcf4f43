# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""
The common API of HEAR (Holistic Evaluation of Audio Representations, https://hearbenchmark.com/hear-api.html):

    python -m heareval.embeddings.runner transformers_beats.integrations.hear --tasks-dir tasks \\
        --model-options '{"model_file_path": "beats-iter3", "layer": 8}'

heareval keeps embeddings under the name of the module and the model options, and skips the tasks that it finds there.
Pass the model in `--model-options`: `--model` is in neither name, so that the next model would get this one's
embeddings, and does not take a Hub id. For a model that was trained further in the same directory, remove the folder
of its embeddings first.

The embedding of a scene is the one that a clip has in all interfaces, the mean over its patches. Those of timestamps
are of time columns, one every 160 ms; HEAR suggests 50 ms or less for the transcription of music. For these, clips are
padded with zeros to the end of their last column, so that all of their samples are embedded: the last timestamp is at
most 87.5 ms before the end of a clip and less than 72.5 ms after it, or 87.5 ms after that of a clip below 15 ms.
"""

import torch
from torch.nn.functional import pad

from transformers_beats.inference.windows import column_samples
from transformers_beats.utils.errors import UsageError

from .columns import ColumnEmbedder


class BeatsHearModel(ColumnEmbedder):
    """
    Model of [`load_model`]. Patches are averaged over frequency.

    Args:
        model_file_path (`str`):
            Name, directory or Hub id of any model of this package with an encoder.
        layer (`int`, defaults to -1):
            Layer as in `hidden_states`.
    """

    def __init__(self, model_file_path: str, layer: int = -1):
        super().__init__(model_file_path, layer=layer)
        self.sample_rate = self.sampling_rate
        self.scene_embedding_size = self.timestamp_embedding_size = self.column_size

    def pad(self, audio: torch.Tensor) -> torch.Tensor:
        """Pads clips `(..., n_samples)` with zeros at their ends, such that columns cover all samples."""
        beyond = audio.shape[-1] - self._min_samples()
        # Shorter clips are padded by the feature extractor. An empty one is an error, and is not to be padded.
        return pad(audio, (0, -beyond % column_samples(self.feature_extractor))) if beyond > 0 else audio


def load_model(model_file_path: str, layer: int = -1) -> BeatsHearModel:
    """Loads the model of a directory or Hub repository, on the CPU; move it with `.to(device)`."""
    return BeatsHearModel(model_file_path, layer)


def get_scene_embeddings(audio: torch.Tensor, model: BeatsHearModel) -> torch.Tensor:
    """
    Embeds whole clips.

    Args:
        audio (`torch.Tensor` of shape `(n_sounds, n_samples)`):
            Mono clips at `model.sample_rate`, full scale at 1.0, of any length.
        model ([`BeatsHearModel`]):
            Model of [`load_model`].

    Returns:
        `torch.Tensor` of shape `(n_sounds, model.scene_embedding_size)`: the mean over time and frequency, float32, on
        the device of `audio`.
    """
    _check_batch(audio)
    return model.means(list(audio)).to(audio.device)


def get_timestamp_embeddings(audio: torch.Tensor, model: BeatsHearModel) -> tuple[torch.Tensor, torch.Tensor]:
    """
    Embeds time columns of clips, which are given as to [`get_scene_embeddings`].

    Returns:
        Embeddings `(n_sounds, n_timestamps, model.timestamp_embedding_size)` and their centres in milliseconds,
        `(n_sounds, n_timestamps)`; both float32, on the device of `audio`.
    """
    _check_batch(audio)
    padded = model.pad(audio)
    embeddings = model.stacked_columns(list(padded), padded.shape[1])
    timestamps = model.centers(embeddings.shape[1]).expand(len(embeddings), -1)
    return embeddings.to(audio.device), timestamps.to(audio.device)


def _check_batch(audio: torch.Tensor) -> None:
    if audio.ndim != 2:
        raise UsageError(f"`audio` must have shape (n_sounds, n_samples), got {tuple(audio.shape)}.")


__all__ = ["BeatsHearModel", "get_scene_embeddings", "get_timestamp_embeddings", "load_model"]
