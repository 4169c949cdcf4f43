# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
# The architecture is Microsoft's (Chen et al., 2022, arXiv:2212.09058; MIT licence).
"""PyTorch BEATs acoustic tokenizers."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import initialization as init
from transformers.modeling_utils import PreTrainedModel
from transformers.processing_utils import Unpack
from transformers.utils import ModelOutput, TransformersKwargs, auto_docstring
from transformers.utils.generic import can_return_tuple

from .configuration_beats import BeatsRandomProjectionTokenizerConfig, BeatsTokenizerConfig, SavedWithCode
from .modeling_beats import (
    BeatsModel,
    BeatsPreTrainedModel,
    check_fbank,
    check_keywords,
    patch_mask_from_frame_mask,
    without_autocast,
)


@auto_docstring(custom_intro="Output of [`BeatsTokenizerModel`] and [`BeatsRandomProjectionTokenizer`].")
@dataclass
class BeatsTokenizerOutput(ModelOutput):
    r"""
    audio_codes (`torch.LongTensor` of shape `(batch_size, num_columns, num_freq_patches)`):
        Index of the code of every patch, by time and frequency; -100 on padding, which losses ignore. Of a random
        projection with several codebooks, `(batch_size, num_columns, num_freq_patches, num_codebooks)`.
    quantized_states (`torch.FloatTensor` of shape `(batch_size, num_patches, codebook_dim)`):
        The codes' vectors, float32; zeros on padding. Those of several codebooks follow one another, also in
        `projected_states`: `(batch_size, num_patches, num_codebooks * codebook_dim)`.
    projected_states (`torch.FloatTensor` of shape `(batch_size, num_patches, codebook_dim)`):
        Vectors that are quantised, before the l2 normalisation: projections of the encoder's output or of the patch.
    patch_attention_mask (`torch.BoolTensor` of shape `(batch_size, num_patches)`):
        True for valid patches, that is, those without padding.
    code_counts (`torch.LongTensor` of shape `(codebook_size,)`, *optional*, returned with `output_code_usage=True`):
        Number of valid patches of the batch with each code; of several codebooks, `(num_codebooks, codebook_size)`.
    codevector_perplexity (`torch.FloatTensor` of shape `()`, *optional*, returned with `output_code_usage=True`):
        Exponential of the entropy of the codes in the batch: 1 if all are the same, `codebook_size` if uniform. The
        mean over several codebooks.
    """

    audio_codes: torch.Tensor | None = None
    quantized_states: torch.Tensor | None = None
    projected_states: torch.Tensor | None = None
    patch_attention_mask: torch.Tensor | None = None
    code_counts: torch.Tensor | None = None
    codevector_perplexity: torch.Tensor | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None
    attentions: tuple[torch.Tensor, ...] | None = None


def code_usage(codes: torch.Tensor, mask: torch.Tensor, codebook_size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """
    Counts of the codes where `mask` is true, `(codebook_size,)`, and the perplexity of their distribution. Codes of
    several codebooks have one dimension more than `mask`, the last one: then counts are `(num_codebooks,
    codebook_size)`, and the perplexity is a mean over codebooks.
    """
    has_several = codes.ndim > mask.ndim
    codes = codes if has_several else codes.unsqueeze(-1)
    num_codebooks = codes.shape[-1]
    places = codes + codebook_size * torch.arange(num_codebooks, device=codes.device)
    weights = mask.unsqueeze(-1).expand(codes.shape).long()
    # Added up, not `bincount`, which neither compiles nor is deterministic on a GPU.
    counts = torch.zeros(num_codebooks * codebook_size, dtype=torch.long, device=codes.device)
    counts = counts.scatter_add(0, places.flatten(), weights.flatten()).view(num_codebooks, codebook_size)
    frequencies = counts / counts.sum(dim=-1, keepdim=True).clamp(min=1)
    perplexity = torch.special.entr(frequencies).sum(dim=-1).exp().mean()
    return (counts if has_several else counts[0]), perplexity


def tokenizer_output(
    codes: torch.Tensor,
    vectors: torch.Tensor,
    projected_states: torch.Tensor,
    mask: torch.Tensor,
    config: BeatsTokenizerConfig | BeatsRandomProjectionTokenizerConfig,
    output_code_usage: bool,
    **captured,
) -> BeatsTokenizerOutput:
    """
    Output of a tokenizer, given validity `(batch_size, num_patches)` and code of each patch, of the same shape or with
    a dimension more for several codebooks, and the vectors of the codes, one after another.
    """
    code_counts = perplexity = None
    if output_code_usage:
        code_counts, perplexity = code_usage(codes, mask, config.codebook_size)
    is_padding = ~mask if codes.ndim == mask.ndim else ~mask.unsqueeze(-1)
    return BeatsTokenizerOutput(
        audio_codes=codes.masked_fill(is_padding, -100).unflatten(1, (-1, config.num_freq_patches)),
        quantized_states=vectors.masked_fill(~mask.unsqueeze(-1), 0.0),
        projected_states=projected_states,
        patch_attention_mask=mask,
        code_counts=code_counts,
        codevector_perplexity=perplexity,
        **captured,
    )


def nearest_code(states: torch.Tensor, codebook: torch.Tensor) -> torch.Tensor:
    """Index `(...)` of the row of `codebook` `(codebook_size, dim)` that is nearest to each state `(..., dim)`."""
    # Under autocast the products would be rounded to half precision, and other codes be the nearest.
    with without_autocast(states.device):
        # The squared norm of the state is the same for every code.
        return (codebook.pow(2).sum(dim=1) - 2 * states @ codebook.T).argmin(dim=-1)


def keep_finite(states: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """
    States `(num_patches, dim)`, 0 where they are not finite, and a mask `(num_patches,)` without these: a batch whose
    step a trainer skips, since it overflowed, would stay in the codebook for good.
    """
    is_finite = states.isfinite().all(dim=-1)
    return states.masked_fill(~is_finite.unsqueeze(1), 0.0), mask & is_finite


class BeatsFloat32Buffers(nn.Module):
    """Module whose buffers keep their dtype when a model is cast: codes found in half precision would differ."""

    def _apply(self, fn, recurse=True):
        def keep_dtype(tensor):
            moved = fn(tensor)
            return moved if moved.dtype == tensor.dtype else tensor.to(moved.device)

        return super()._apply(keep_dtype, recurse)


class BeatsQuantizer(BeatsFloat32Buffers):
    """
    Nearest code on the unit sphere: `argmin_i ||v_i - l2(e)||^2` (section 3.2.2 of the paper). The codebook and its
    statistics are buffers, since no gradient trains them, and stay float32 whatever the model's dtype.
    """

    codebook: torch.Tensor
    cluster_size: torch.Tensor
    is_initialized: torch.Tensor

    def __init__(self, config: BeatsTokenizerConfig):
        super().__init__()
        # Their dtype is not that in which the model is made.
        self.register_buffer("codebook", torch.zeros(config.codebook_size, config.codebook_dim, dtype=torch.float32))
        self.register_buffer("cluster_size", torch.zeros(config.codebook_size, dtype=torch.float32))
        self.register_buffer("is_initialized", torch.zeros((), dtype=torch.float32))

    def forward(self, projected_states: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """
        Indices `(...)` of the codes nearest to vectors `(..., codebook_dim)` of any length and dtype, and the vectors
        of these codes. Raises a `ValueError` if the codebook was never learned or loaded; a compiled model and one
        without values do not look.
        """
        can_look = not torch.compiler.is_compiling() and not self.is_initialized.is_meta
        if can_look and not self.is_initialized:
            raise ValueError(
                "The codebook is not initialised: load a trained tokenizer with `from_pretrained`, or train one. "
                "Codes of an untrained codebook would mean nothing."
            )
        codes = nearest_code(nn.functional.normalize(projected_states.float(), dim=-1), self.codebook)
        return codes, self.codebook[codes]


@auto_docstring(
    custom_intro="""
    Self-distilled acoustic tokenizer: a BEATs encoder, a projection, and the nearest code of a learned codebook for
    every patch.
    """
)
class BeatsTokenizerModel(BeatsPreTrainedModel):
    _auto_class = "AutoModel"

    config: BeatsTokenizerConfig  # ty: ignore[incompatible-mutable-override]
    _keep_in_fp32_modules_strict = ["quantizer"]

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

    @torch.no_grad()
    def _init_weights(self, module):
        super()._init_weights(module)
        if isinstance(module, BeatsQuantizer):
            init.zeros_(module.codebook)
            init.zeros_(module.cluster_size)
            init.zeros_(module.is_initialized)

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
        check_keywords(self, kwargs)
        outputs = self.beats(input_values, attention_mask=attention_mask, return_dict=True, **kwargs)
        projected_states = self.projection(outputs.last_hidden_state)
        codes, vectors = self.quantizer(projected_states)
        return tokenizer_output(
            codes,
            vectors,
            projected_states,
            outputs.patch_attention_mask,
            self.config,
            output_code_usage,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )


class BeatsRandomProjectionQuantizer(BeatsFloat32Buffers):
    """
    Frozen random projection W and codebook V, drawn from a seed: `argmin_i ||v_i - W x||^2` (section 3.2.1 of the
    paper), normalised as in BEST-RQ if `config.normalize` is set. Projections and codebooks of several stand one after
    another.
    """

    projection: torch.Tensor
    codebook: torch.Tensor

    def __init__(self, config: BeatsRandomProjectionTokenizerConfig):
        super().__init__()
        self.config = config
        num_rows, num_codes = config.num_codebooks * config.codebook_dim, config.num_codebooks * config.codebook_size
        self.register_buffer("projection", torch.zeros(num_rows, config.patch_size**2, dtype=torch.float32))
        self.register_buffer("codebook", torch.zeros(num_codes, config.codebook_dim, dtype=torch.float32))

    def draw(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Projections (Xavier uniform) and codebooks (standard normal, of unit length if normalised)."""
        # The same numbers whatever the defaults of device and dtype are, in which a model may be made.
        drawn: dict[str, Any] = {
            "generator": torch.Generator("cpu").manual_seed(self.config.seed),
            "device": "cpu",
            "dtype": torch.float32,
        }
        bound = (6 / (self.config.codebook_dim + self.config.patch_size**2)) ** 0.5
        projection = (torch.rand(self.projection.shape, **drawn) * 2 - 1) * bound
        codebook = torch.randn(self.codebook.shape, **drawn)
        return projection, nn.functional.normalize(codebook, dim=-1) if self.config.normalize else codebook

    def nearest(self, states: torch.Tensor, codebook: torch.Tensor) -> torch.Tensor:
        """Indices `(...)` of the codes of one codebook that are nearest to projections `(..., codebook_dim)`."""
        if not self.config.normalize:
            return nearest_code(states, codebook)
        # Among codes of length 1, the nearest has the largest product. Their squares, 1 up to rounding, are left
        # out: a constant patch has the state 0, and its code would depend on that rounding alone.
        return (nn.functional.normalize(states, dim=-1) @ codebook.T).argmax(dim=-1)

    def forward(self, patches: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """
        Projections `(..., num_codebooks * codebook_dim)`, float32, of the values `(..., patch_size**2)` of each patch;
        indices of the nearest codes, `(...)` or, of several codebooks, `(..., num_codebooks)`; and the vectors of
        these codes, of the shape of the projections. If normalised, a constant patch (silence) is as near to all, and
        has code 0.
        """
        with without_autocast(patches.device):
            patches = patches.float()
            if self.config.normalize:
                patches = nn.functional.layer_norm(patches, patches.shape[-1:])
            projected = patches @ self.projection.T
            parts = projected.split(self.config.codebook_dim, dim=-1)
            codebooks = self.codebook.split(self.config.codebook_size)
            codes = [self.nearest(states, codebook) for states, codebook in zip(parts, codebooks)]
            vectors = torch.cat([codebook[indices] for codebook, indices in zip(codebooks, codes)], dim=-1)
            return projected, codes[0] if len(codes) == 1 else torch.stack(codes, dim=-1), vectors


@auto_docstring(
    custom_intro="""
    Tokenizer of the first iteration of pre-training: the nearest code of a random codebook to a random projection of
    every patch. Nothing in it is trained: its buffers follow from the seed in the configuration.
    """
)
class BeatsRandomProjectionTokenizer(SavedWithCode, PreTrainedModel):
    _auto_class = "AutoModel"

    config: BeatsRandomProjectionTokenizerConfig
    main_input_name = "input_values"
    input_modalities = ["audio"]
    _keep_in_fp32_modules_strict = ["quantizer"]

    def __init__(self, config: BeatsRandomProjectionTokenizerConfig):
        super().__init__(config)
        # Values may have been set since the configuration was made, as `from_pretrained` sets those that it is given.
        config.validate()
        self.quantizer = BeatsRandomProjectionQuantizer(config)

        # Initialize weights and apply final processing
        self.post_init()

    # transformers reads both from the parameters, of which there are none.
    @property
    def dtype(self) -> torch.dtype:
        return self.quantizer.codebook.dtype

    @property
    def device(self) -> torch.device:
        return self.quantizer.codebook.device

    @torch.no_grad()
    def _init_weights(self, module):
        if isinstance(module, BeatsRandomProjectionQuantizer):
            projection, codebook = module.draw()
            init.copy_(module.projection, projection)
            init.copy_(module.codebook, codebook)

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
        check_keywords(self, kwargs)
        fbank = check_fbank(input_values, attention_mask, self.config)
        size = self.config.patch_size
        # (batch, column, frequency, frame, mel): time-major patches, each a vector of frames by mels.
        grid = fbank.unfold(1, size, size).unfold(2, size, size)
        patches = grid.flatten(3).flatten(1, 2)
        projected_states, codes, vectors = self.quantizer(patches)

        if attention_mask is None:
            mask = torch.ones_like(projected_states[..., 0], dtype=torch.bool)
        else:
            mask = patch_mask_from_frame_mask(attention_mask, self.config).to(codes.device)
        return tokenizer_output(codes, vectors, projected_states, mask, self.config, output_code_usage)


__all__ = ["BeatsRandomProjectionTokenizer", "BeatsTokenizerModel"]
