# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Model with its feature extractor in front, from waveforms to results: the module that is exported."""

import torch
from torch import nn
from transformers import PreTrainedModel

from transformers_beats import BeatsFeatureExtractor
from transformers_beats.backends.graphs import ExportError
from transformers_beats.configuration_beats import problem_type_of
from transformers_beats.fbank_beats import fbank_constants, kaldi_fbank_block, num_fbank_samples
from transformers_beats.inference.kinds import KINDS
from transformers_beats.inference.models import check_extractor, kind_of, merge_adapters
from transformers_beats.inference.results import to_scores


INPUTS = ("waveforms", "lengths")


class WaveformModel(nn.Module):
    """
    Computes in tensor operations what [`BeatsFeatureExtractor`] and the model compute, for any batch and length.

    Args:
        model (`PreTrainedModel`):
            A model of this package in float32, in evaluation mode. It may be inside a wrapper, see [`merge_adapters`].
        feature_extractor ([`BeatsFeatureExtractor`]):
            The model's.

    Raises:
        [`ExportError`]: for a model of another kind or dtype, and for the legacy padding mask.
        [`UsageError`]: for a feature extractor that is not the model's.
    """

    def __init__(self, model: PreTrainedModel, feature_extractor: BeatsFeatureExtractor):
        super().__init__()
        model = merge_adapters(model)
        self.kind = kind_of(model)
        if self.kind is None:
            raise ExportError(f"A {type(model).__name__} cannot be exported; these can: {', '.join(KINDS)}.")
        config = model.config
        if model.dtype != torch.float32:
            raise ExportError(f"The model is in {model.dtype}: export it in float32 (`model.float()`).")
        check_extractor(feature_extractor, model)
        if feature_extractor.legacy_padding_mask or config.legacy_padding_mask:
            raise ExportError("`legacy_padding_mask` depends on the length of the batch: export without it.")
        self.model = model
        self.feature_extractor = feature_extractor
        self.min_samples = num_fbank_samples(config.patch_size, feature_extractor.sampling_rate)

    @property
    def output_names(self) -> list[str]:
        """Names of what `forward` returns, in its order."""
        if self.kind == "encoder":
            return ["last_hidden_state", "pooler_output", "patch_attention_mask"]
        if self.kind == "tokens":
            return ["audio_codes"]
        names = ["logits"] if problem_type_of(self.model.config) == "regression" else ["logits", "probabilities"]
        return names + ["column_attention_mask"] * (self.kind == "frames")

    def features(self, waveforms: torch.Tensor, lengths: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """
        Computes what the feature extractor gives: the normalised filter bank `(batch_size, num_frames, num_mel_bins)`
        and its mask `(batch_size, num_frames)`, boolean. `waveforms` `(batch_size, num_samples)` are float32 with full
        scale at 1.0, at least `min_samples` long; of each row, the first `lengths` `(batch_size,)` are audio.
        """
        extractor = self.feature_extractor
        sample_index = torch.arange(waveforms.shape[1], device=waveforms.device)
        waveforms = waveforms.masked_fill(sample_index >= lengths.unsqueeze(1), 0.0)
        # Without a choice of blocks by length, which would not export for any length.
        constants = fbank_constants(extractor.feature_size, extractor.sampling_rate, waveforms.device)
        fbank = kaldi_fbank_block(waveforms, *constants)
        fbank = (fbank - extractor.fbank_mean) / (2 * extractor.fbank_std)
        # A frame counts if its last sample does. A shorter clip counts as if silence up to one column belonged to it.
        frame_index = torch.arange(fbank.shape[1], device=fbank.device)
        first = num_fbank_samples(1, extractor.sampling_rate)
        shift = num_fbank_samples(2, extractor.sampling_rate) - first
        mask = frame_index * shift + first <= lengths.clamp(min=self.min_samples).unsqueeze(1)
        return fbank.masked_fill(~mask.unsqueeze(-1), extractor.padding_value), mask

    def forward(self, waveforms: torch.Tensor, lengths: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Computes the outputs named by `output_names` from waveforms and lengths, see [`~WaveformModel.features`]."""
        input_values, mask = self.features(waveforms, lengths)
        outputs = self.model(input_values, attention_mask=mask, return_dict=True)
        if "probabilities" in self.output_names:
            outputs["probabilities"] = to_scores(outputs["logits"], self.model.config)
        return tuple(outputs[name] for name in self.output_names)
