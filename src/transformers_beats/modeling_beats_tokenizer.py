# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
# The architecture is Microsoft's (Chen et al., 2022, arXiv:2212.09058; MIT licence).
"""PyTorch BEATs acoustic tokenizers."""

from dataclasses import dataclass

import torch
from torch import nn
from transformers import initialization as init
from transformers.processing_utils import Unpack
from transformers.utils import ModelOutput, TransformersKwargs, auto_docstring
from transformers.utils.generic import can_return_tuple

from .configuration_beats import BeatsTokenizerConfig
from .modeling_beats import BeatsModel, BeatsPreTrainedModel


@dataclass
@auto_docstring(
    custom_intro="""
    Output of [`BeatsTokenizerModel`].
    """
)
class BeatsTokenizerOutput(ModelOutput):
    r"""
    codes (`torch.LongTensor` of shape `(batch_size, num_columns, num_freq_patches)`):
        Index of the code of every patch, by time and frequency; -100 on padding, which losses ignore.
    quantized_states (`torch.FloatTensor` of shape `(batch_size, num_patches, codebook_dim)`):
        The codes' vectors, float32; zeros on padding.
    projected_states (`torch.FloatTensor` of shape `(batch_size, num_patches, codebook_dim)`):
        What is quantised: the encoder's output, projected, before the l2 normalisation.
    patch_attention_mask (`torch.BoolTensor` of shape `(batch_size, num_patches)`):
        Which patches are valid, that is, hold no padding.
    code_counts (`torch.LongTensor` of shape `(codebook_size,)`, *optional*, returned with `output_code_usage=True`):
        How many valid patches of the batch have each code.
    perplexity (`torch.FloatTensor` of shape `()`, *optional*, returned with `output_code_usage=True`):
        Exponential of the entropy of the codes in the batch: 1 if all are the same, `codebook_size` if uniform.
    """

    codes: torch.Tensor | None = None
    quantized_states: torch.Tensor | None = None
    projected_states: torch.Tensor | None = None
    patch_attention_mask: torch.Tensor | None = None
    code_counts: torch.Tensor | None = None
    perplexity: torch.Tensor | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None
    attentions: tuple[torch.Tensor, ...] | None = None


class BeatsQuantizer(nn.Module):
    """
    Nearest code on the unit sphere: `argmin_i ||v_i - l2(e)||^2` (section 3.2.2 of the paper). The codebook and its
    statistics are buffers, since no gradient trains them, and stay float32 whatever the model's dtype.
    """

    codebook: torch.Tensor
    cluster_size: torch.Tensor
    is_initialized: torch.Tensor

    def __init__(self, config: BeatsTokenizerConfig):
        super().__init__()
        self.register_buffer("codebook", torch.zeros(config.codebook_size, config.codebook_dim))
        self.register_buffer("cluster_size", torch.zeros(config.codebook_size))
        self.register_buffer("is_initialized", torch.zeros(()))

    def _apply(self, fn, recurse=True):
        def keep_dtype(tensor):
            moved = fn(tensor)
            return moved if moved.dtype == tensor.dtype else tensor.to(moved.device)

        return super()._apply(keep_dtype, recurse)

    def forward(self, projected_states: torch.Tensor) -> torch.Tensor:
        """
        Args:
            projected_states (`torch.Tensor` of shape `(..., codebook_dim)`):
                Vectors to quantise, of any length and dtype.

        Returns:
            `torch.LongTensor` of shape `(...)`: the indices of the nearest codes.

        Raises:
            `ValueError`: if the codebook was never learned or loaded.
        """
        if not torch.compiler.is_compiling() and not self.is_initialized:
            raise ValueError(
                "The codebook is not initialised: load a trained tokenizer with `from_pretrained`, or train one. "
                "Codes of an untrained codebook would mean nothing."
            )
        with torch.autocast(device_type=projected_states.device.type, enabled=False):
            unit_states = nn.functional.normalize(projected_states.float(), dim=-1)
            # The squared norm of the state is the same for every code.
            distances = self.codebook.pow(2).sum(dim=1) - 2 * unit_states @ self.codebook.T
            return distances.argmin(dim=-1)


@auto_docstring
class BeatsTokenizerPreTrainedModel(BeatsPreTrainedModel):
    config: BeatsTokenizerConfig  # ty: ignore[incompatible-mutable-override]
    _keep_in_fp32_modules_strict = ["quantizer"]

    @torch.no_grad()
    def _init_weights(self, module):
        super()._init_weights(module)
        if isinstance(module, BeatsQuantizer):
            init.zeros_(module.codebook)
            init.zeros_(module.cluster_size)
            init.zeros_(module.is_initialized)


@auto_docstring(
    custom_intro="""
    A self-distilled acoustic tokenizer: a BEATs encoder, a projection, and the nearest code of a learned codebook for
    every patch.
    """
)
class BeatsTokenizerModel(BeatsTokenizerPreTrainedModel):
    _auto_class = "AutoModel"

    def __init__(self, config: BeatsTokenizerConfig):
        super().__init__(config)
        self.beats = BeatsModel(config)
        self.projection = nn.Sequential(
            nn.Linear(config.hidden_size, config.hidden_size),
            nn.Tanh(),
            nn.Linear(config.hidden_size, config.codebook_dim),
        )
        self.quantizer = BeatsQuantizer(config)

        # Initialize weights and apply final processing
        self.post_init()

    @can_return_tuple
    @auto_docstring
    def forward(
        self,
        input_values: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        output_code_usage: bool = False,
        **kwargs: Unpack[TransformersKwargs],
    ) -> BeatsTokenizerOutput:
        r"""
        input_values (`torch.FloatTensor` of shape `(batch_size, num_frames, num_mel_bins)`):
            Normalised filter banks from [`BeatsFeatureExtractor`].
        attention_mask (`torch.Tensor` of shape `(batch_size, num_frames)`, *optional*):
            1 for frames of audio, 0 for padding.
        output_code_usage (`bool`, *optional*, defaults to `False`):
            Whether to count the codes of the batch.
        """
        outputs = self.beats(input_values, attention_mask=attention_mask, return_dict=True, **kwargs)
        mask = outputs.patch_attention_mask
        projected_states = self.projection(outputs.last_hidden_state)
        codes = self.quantizer(projected_states)
        quantized_states = self.quantizer.codebook[codes].masked_fill(~mask.unsqueeze(-1), 0.0)

        code_counts = perplexity = None
        if output_code_usage:
            # A sum of ones, not `bincount`, which neither compiles nor is deterministic on a GPU.
            code_counts = torch.zeros(self.config.codebook_size, dtype=torch.long, device=codes.device)
            code_counts = code_counts.scatter_add(0, codes.flatten(), mask.flatten().long())
            frequencies = code_counts / code_counts.sum().clamp(min=1)
            perplexity = torch.special.entr(frequencies).sum().exp()

        return BeatsTokenizerOutput(
            codes=self.beats.to_grid(codes.masked_fill(~mask, -100)),
            quantized_states=quantized_states,
            projected_states=projected_states,
            patch_attention_mask=mask,
            code_counts=code_counts,
            perplexity=perplexity,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )


__all__ = ["BeatsTokenizerModel", "BeatsTokenizerPreTrainedModel"]
