# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Mixtures of two clips as input of masked acoustic modelling."""

from typing import Any

import torch

from transformers_beats.feature_extraction_beats import BeatsFeatureExtractor


def mix_clips(inputs: dict[str, Any], extractor: BeatsFeatureExtractor, probability: float) -> dict[str, Any]:
    """
    Mixes clips of a batch, each with a probability, with the one before it, and adds the codes of that one as
    `mixed_codes`, -100 where nothing was mixed. The model hears both, and predicts the codes that each has alone, as
    SSLAM (Alex et al., 2025) trains on mixtures whose sources are its targets.

    Energies of the mel filters are added, which those of two sounds do in the mean: a clip that is louder stays so.

    Args:
        inputs (`dict`):
            `input_values` `(batch_size, num_frames, num_mel_bins)`, `attention_mask` `(batch_size, num_frames)` and
            `labels` `(batch_size, num_columns, num_freq_patches, ...)`. A batch of one clip is returned as it is.
    """
    values, labels = inputs["input_values"], inputs["labels"]
    if len(values) < 2:
        return inputs
    # Drawn on the CPU, whose random state every checkpoint has.
    is_mixed = (torch.rand(len(values)) < probability).to(values.device)
    # A normalised fbank is the logarithm of energies, less a mean, divided by this.
    scale = 2 * extractor.fbank_std
    is_audio = inputs["attention_mask"].bool()
    # Padding of the other clip has no energy, whatever its values are.
    other = (values * scale).masked_fill(~is_audio.unsqueeze(-1), -torch.inf).roll(1, dims=0)
    mixed = torch.logaddexp(values * scale, other) / scale
    is_audio = is_audio & is_mixed.unsqueeze(1)
    is_other = is_mixed.to(labels.device).view(-1, *[1] * (labels.ndim - 1))
    return inputs | {
        "input_values": torch.where(is_audio.unsqueeze(-1), mixed, values),
        "mixed_codes": labels.roll(1, dims=0).masked_fill(~is_other, -100),
    }
