# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""
The common API of HEAR (Holistic Evaluation of Audio Representations, https://hearbenchmark.com/hear-api.html):

    python -m heareval.embeddings.runner transformers_beats.benchmarks_api.hear --model beats-iter3 --tasks-dir tasks

Embeddings are those of time columns, one every 160 ms; HEAR suggests 50 ms or less for the transcription of music.
"""

import torch

from .columns import ColumnEmbedder


class BeatsHearModel(ColumnEmbedder):
    """
    What [`load_model`] returns. Patches are averaged over frequency.

    Args:
        model_file_path (`str`):
            Directory or Hub id of any model of this package with an encoder.
    """

    def __init__(self, model_file_path: str):
        super().__init__(model_file_path)
        self.sample_rate = self.sampling_rate
        self.scene_embedding_size = self.timestamp_embedding_size = self.column_size


def load_model(model_file_path: str) -> BeatsHearModel:
    """The model of a directory or Hub repository; move it with `.to(device)`."""
    return BeatsHearModel(model_file_path)


def get_scene_embeddings(audio: torch.Tensor, model: BeatsHearModel) -> torch.Tensor:
    """
    Args:
        audio (`torch.Tensor` of shape `(n_sounds, n_samples)`):
            Mono clips at `model.sample_rate`, full scale at 1.0, of any length.
        model ([`BeatsHearModel`]):
            Of [`load_model`].

    Returns:
        `torch.Tensor` of shape `(n_sounds, model.scene_embedding_size)`: the mean over time and frequency, float32, on
        the device of `audio`.
    """
    return model.means(_clips(audio)).to(audio.device)


def get_timestamp_embeddings(audio: torch.Tensor, model: BeatsHearModel) -> tuple[torch.Tensor, torch.Tensor]:
    """
    Args:
        audio (`torch.Tensor` of shape `(n_sounds, n_samples)`):
            Mono clips at `model.sample_rate`, full scale at 1.0, of any length.
        model ([`BeatsHearModel`]):
            Of [`load_model`].

    Returns:
        Embeddings `(n_sounds, n_timestamps, model.timestamp_embedding_size)`, and what they are centred at, in
        milliseconds, `(n_sounds, n_timestamps)`; both float32, on the device of `audio`.
    """
    embeddings = torch.stack(model.columns(_clips(audio)))
    timestamps = model.centers(embeddings.shape[1]).expand(len(embeddings), -1)
    return embeddings.to(audio.device), timestamps.to(audio.device)


def _clips(audio: torch.Tensor) -> list[torch.Tensor]:
    if audio.ndim != 2:
        raise ValueError(f"`audio` must have shape (n_sounds, n_samples), got {tuple(audio.shape)}.")
    return list(audio)


__all__ = ["BeatsHearModel", "get_scene_embeddings", "get_timestamp_embeddings", "load_model"]
