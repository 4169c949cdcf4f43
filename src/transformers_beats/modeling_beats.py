# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
# The architecture is Microsoft's (Chen et al., 2022, arXiv:2212.09058; MIT licence).
"""PyTorch BEATs: Bidirectional Encoder representation from Audio Transformers."""

import difflib
import inspect
import math
import re
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from importlib import import_module
from itertools import product
from typing import Any, cast

import torch
from torch import nn
from torch.autograd import forward_ad
from transformers.utils.versions import require_version


# Before 5.14 the attention functions accept `position_bias` and ignore it, which gives a wrong model without an error.
require_version("transformers>=5.14", "BEATs needs `position_bias`: pip install -U 'transformers>=5.14'")

from transformers import initialization as init  # noqa: E402
from transformers.activations import ACT2FN  # noqa: E402
from transformers.masking_utils import create_bidirectional_mask  # noqa: E402
from transformers.modeling_layers import GradientCheckpointingLayer  # noqa: E402
from transformers.modeling_outputs import BaseModelOutputWithPooling, SequenceClassifierOutput  # noqa: E402
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS, PreTrainedModel  # noqa: E402
from transformers.processing_utils import Unpack  # noqa: E402
from transformers.utils import ModelOutput, TransformersKwargs, auto_docstring  # noqa: E402
from transformers.utils.generic import can_return_tuple, merge_with_config_defaults  # noqa: E402
from transformers.utils.output_capturing import capture_outputs, maybe_install_capturing_hooks  # noqa: E402

from .configuration_beats import BeatsBaseConfig, BeatsConfig, SavedWithCode, problem_type_of  # noqa: E402


# On a CPU with AVX2 only, PyTorch 2.13 computes sequences whose length is no multiple of 16 wrongly, some as NaN; with
# AVX-512, PyTorch 2.6 does. Those between were not tried.
FLEX_WORKS_ON_CPU = "AVX512" in torch.backends.cpu.get_cpu_capability() and torch.__version__ >= "2.13"
# PyTorch 2.6, which has no such function, exports no model of transformers.
is_exporting = getattr(torch.compiler, "is_exporting", lambda: False)
# Inference on a CPU gates the position bias in blocks of at most this size, which is near that of its caches, or of a
# single query.
BIAS_BYTES_PER_BLOCK = 2**24
# Arguments of `forward` that every model of transformers takes, and that its decorators add or read.
COMMON_KEYWORDS = {"return_dict", "use_cache", "debug_io", "debug_io_dir", "prune_layers"}
COMMON_KEYWORDS |= {*TransformersKwargs.__annotations__}
# Those of texts: an order of their own, packed sequences, and causal attention, which SDPA would compute.
COMMON_KEYWORDS -= {"position_ids", "seq_idx", "is_causal"}
COMMON_KEYWORDS -= {"cu_seq_lens_q", "cu_seq_lens_k", "max_length_q", "max_length_k"}
# Arguments of attention functions that the model itself sets.
OWN_ATTENTION_ARGUMENTS = {"module", "query", "key", "value", "attention_mask", "dropout", "scaling", "position_bias"}
OWN_ATTENTION_ARGUMENTS |= {"is_causal"}
# Names of arguments elsewhere, in Microsoft's code, other models or benchmarks, and what they are here.
OTHER_KEYWORDS = {
    "padding_mask": "`attention_mask`, which is 1 for frames of audio and 0 for padding",
    "mask": "`attention_mask`",
    **dict.fromkeys(("input_features", "fbank", "features", "x"), "`input_values`"),
    **dict.fromkeys(
        ("source", "raw_speech", "input_ids", "waveform", "audio"),
        "`input_values`, the filter bank that `BeatsFeatureExtractor` computes of waveforms",
    ),
    **dict.fromkeys(("targets", "target", "label"), "`labels`"),
}
# Normalisations of other filter banks, which do not scale waveforms to 16 bits: mean, and divisor.
OTHER_NORMALISATIONS = {
    "not normalised": (0.0, 1.0),
    "normalised as those of AST": (-4.2677393, 2 * 4.5689974),
    "normalised as those of AST for Speech Commands": (-6.845978, 2 * 5.5654526),
}


@auto_docstring(custom_intro="Output of [`BeatsModel`].")
@dataclass
class BeatsModelOutput(BaseModelOutputWithPooling):
    r"""
    last_hidden_state (`torch.FloatTensor` of shape `(batch_size, num_patches, hidden_size)`):
        Representation of every patch, time-major: the frequency patches of the first time column, then the second's.
    pooler_output (`torch.FloatTensor` of shape `(batch_size, hidden_size)`):
        Mean of `last_hidden_state` over the valid patches; zeros for a clip that has none.
    patch_attention_mask (`torch.BoolTensor` of shape `(batch_size, num_patches)`):
        True for valid patches, that is, those without padding.
    """

    patch_attention_mask: torch.Tensor | None = None


@auto_docstring(custom_intro="Output of [`BeatsForAudioFrameClassification`].")
@dataclass
class BeatsFrameClassifierOutput(ModelOutput):
    r"""
    loss (`torch.FloatTensor` of shape `()`, *optional*, returned when `labels` is provided):
        Mean classification loss over the valid time columns.
    logits (`torch.FloatTensor` of shape `(batch_size, num_columns, config.num_labels)`):
        Classification scores of every time column, before softmax or sigmoid. With `frame_pooling="sequence"`, the
        columns are steps of `1 / config.frames_per_second` seconds.
    column_attention_mask (`torch.IntTensor` of shape `(batch_size, num_columns)`):
        1 for valid time columns, 0 for those that hold padding. An integer, so that it stays apart from the -100 with
        which `Trainer` joins batches of different lengths.
    clip_logits (`torch.FloatTensor` of shape `(batch_size, config.num_labels)`, *optional*):
        With a `config.classifier_pooling` of frames, classification scores of the whole clips: those that
        [`BeatsForAudioClassification`] gives for the same weights.
    """

    loss: torch.Tensor | None = None
    logits: torch.Tensor | None = None
    column_attention_mask: torch.Tensor | None = None
    clip_logits: torch.Tensor | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None
    attentions: tuple[torch.Tensor, ...] | None = None


def is_eager() -> bool:
    """Returns whether operations run at once, neither recorded to a graph nor transformed by `torch.func`."""
    is_recording = torch.compiler.is_compiling() or torch.jit.is_tracing()
    return not is_recording and torch._C._functorch.peek_interpreter_stack() is None


def has_values(input_values: torch.Tensor) -> bool:
    """Returns whether operations run at once on a tensor that holds values, which may then be looked at."""
    is_capturing = input_values.is_cuda and torch.cuda.is_current_stream_capturing()
    is_plain = type(input_values) is torch.Tensor and not input_values.is_meta
    if not is_plain or is_capturing or not is_eager():
        return False
    # In a mode such as PyTorch's of fake tensors, what is computed of such a tensor has no values, nor has a new one.
    return input_values.numel() > 0 and type(torch.empty(0)) is torch.Tensor


def check_padding(input_values: torch.Tensor) -> None:
    """
    Raises a `ValueError` for filter banks, given without a mask, that end in frames of one value that is not negative,
    while they begin with others: padding with zeros, or that of another feature extractor. In frames of silence, all
    filters have the same value too, but the least there is.
    """
    if not has_values(input_values) or input_values.shape[2] == 1:
        return
    last = input_values[:, -1]
    is_padded = (last >= 0).all(dim=1) & (last == last[:, :1]).all(dim=1) & (last != input_values[:, 0]).any(dim=1)
    if is_padded.any():
        raise ValueError(
            f"`input_values` end in frames that are {last[is_padded][0, 0].item():.3g} in all filters, padding that "
            "`BeatsFeatureExtractor` does not make, and there is no `attention_mask`. Use the model's own feature "
            "extractor, or pass the mask: 0 for padding, 1 if these frames count."
        )


def check_normalisation(input_values: torch.Tensor) -> None:
    """
    Raises a `ValueError` for filter banks, given without a mask, that another feature extractor has normalised. Of 128
    filters at 16 kHz, one holds no frequency of the spectrum: its energy is always the floor, so that the least value
    of every frame tells the normalisation.
    """
    if not has_values(input_values):
        return
    lowest = input_values.amin(dim=2)
    for described, (mean, divisor) in OTHER_NORMALISATIONS.items():
        floor = torch.full_like(lowest, (math.log(torch.finfo(torch.float32).eps) - mean) / divisor)
        if torch.allclose(lowest, floor, rtol=max(1e-4, torch.finfo(lowest.dtype).eps), atol=0):
            raise ValueError(
                f"`input_values` are {described}: the least value of every frame is {lowest[0, 0].item():.4g}. Use "
                "the model's own `BeatsFeatureExtractor` or, if that has these values, pass its `attention_mask`."
            )


def find_unknown(keywords: dict) -> set[str]:
    """Returns the arguments of `forward` that no model reads, of those without a place of their own."""
    # Sets and dicts alone, which compile.
    unknown = {name for name, value in keywords.items() if value is not None} - COMMON_KEYWORDS
    # What the models do.
    return unknown - ({"is_causal"} if keywords.get("is_causal") is False else set())


def check_keywords(model: PreTrainedModel, keywords: dict) -> None:
    """
    Raises a `TypeError` for an argument of `forward` that nothing reads, where `keywords` are those without a place of
    their own: they would be ignored. PEFT passes `None` for arguments of other models, which means nothing.
    """
    unknown = find_unknown(keywords)
    if not unknown:
        return
    # An attention function that was registered with transformers has arguments of its own.
    function = ALL_ATTENTION_FUNCTIONS.get_interface(model.config._attn_implementation, eager_attention_forward)
    parameters = inspect.signature(function).parameters
    of_attention = {name for name, entry in parameters.items() if entry.kind is not entry.VAR_KEYWORD}
    unknown -= of_attention - OWN_ATTENTION_ARGUMENTS
    if unknown:
        name = min(unknown)
        known = {*inspect.signature(type(model).forward).parameters, *COMMON_KEYWORDS} - {"self", "kwargs"}
        matches = [f"`{match}`" for match in difflib.get_close_matches(name, sorted(known), 1)]
        hint = "".join([OTHER_KEYWORDS[name]] if name in OTHER_KEYWORDS else matches)
        raise TypeError(f"{type(model).__name__} has no argument `{name}`{hint and f': use {hint}'}.")


def check_tensors(**given: Any) -> None:
    """Raises a `ValueError` for an argument of `forward` that is neither a tensor nor `None`."""
    for name, value in given.items():
        if value is not None and not isinstance(value, torch.Tensor):
            raise ValueError(
                f"`{name}` must be a tensor of PyTorch, got {type(value).__name__}: call the feature extractor with "
                '`return_tensors="pt"`, and make others by `torch.as_tensor`.'
            )


def check_fbank(
    input_values: torch.Tensor | None, attention_mask: torch.Tensor | None, config: BeatsBaseConfig, **others: Any
) -> torch.Tensor:
    """
    Returns `input_values` if they are a batch of filter banks that hold a patch, the mask, if any, fits them and holds
    0 and 1 alone, and the `others` that are given are tensors, too. Raises a `ValueError` otherwise.
    """
    if input_values is None:
        raise ValueError("You have to specify `input_values`.")
    check_tensors(input_values=input_values, attention_mask=attention_mask, **others)
    if input_values.ndim != 3 or input_values.shape[2] != config.num_mel_bins:
        raise ValueError(
            f"`input_values` must have shape (batch_size, num_frames, {config.num_mel_bins}), got "
            f"{tuple(input_values.shape)}. Waveforms go through `BeatsFeatureExtractor` first."
        )
    if input_values.shape[1] < config.patch_size:
        raise ValueError(
            f"`input_values` have {input_values.shape[1]} frames, less than a patch of {config.patch_size}. "
            "`BeatsFeatureExtractor` pads short clips."
        )
    if attention_mask is not None and attention_mask.shape != input_values.shape[:2]:
        raise ValueError(
            f"`attention_mask` must have shape {tuple(input_values.shape[:2])}, one value for each frame of "
            f"`input_values`, got {tuple(attention_mask.shape)}."
        )
    if attention_mask is not None:
        check_mask(attention_mask)
    return input_values


def check_mask(attention_mask: torch.Tensor) -> None:
    """
    Raises a `ValueError` for a mask with other values than 0 and 1, such as one that is added to scores, 0 for audio.
    Integers on a GPU are not looked at, since that waits for the device: those of the feature extractor are right.
    """
    if attention_mask.dtype is torch.bool or not has_values(attention_mask):
        return
    if not attention_mask.is_floating_point() and attention_mask.device.type != "cpu":
        return
    others = attention_mask[(attention_mask != 0) & (attention_mask != 1)]
    if len(others) > 0:
        raise ValueError(
            f"`attention_mask` must be 1 for frames of audio and 0 for padding, got {others[0].item():.3g}: a mask "
            "that is added to scores is no such mask."
        )


def check_codes(config: BeatsConfig, batch_size: int, num_patches: int, **given: torch.Tensor | None) -> None:
    """
    Raises a `ValueError` for codes that are not an integer of each codebook for each patch: of shape `(batch_size,
    num_columns, num_freq_patches)` or flat, `(batch_size, num_patches)`, and of several codebooks with one dimension
    more.
    """
    codebooks = (config.num_codebooks,) if config.num_codebooks > 1 else ()
    num_frequencies = config.num_freq_patches
    expected = (batch_size, num_patches // num_frequencies, num_frequencies, *codebooks)
    for name, codes in given.items():
        if codes is None:
            continue
        # Compared by value, so that one graph serves all lengths.
        if codes.shape not in (expected, (batch_size, num_patches, *codebooks)):
            raise ValueError(f"`{name}` must have shape {expected}, a code for each patch, got {tuple(codes.shape)}.")
        if codes.is_floating_point() or codes.is_complex() or codes.dtype is torch.bool:
            raise ValueError(f"`{name}` must be integers, the codes of patches, got {codes.dtype}.")


def check_noise(noise: torch.Tensor | None, batch_size: int, num_patches: int) -> None:
    """Raises a `ValueError` for noise that is not a finite floating-point number for each patch."""
    if noise is None:
        return
    if noise.shape != (batch_size, num_patches) or not noise.is_floating_point():
        raise ValueError(
            f"`noise` must have shape {(batch_size, num_patches)}, a floating-point number for each patch, got "
            f"{tuple(noise.shape)} and {noise.dtype}."
        )
    if has_values(noise) and not noise.isfinite().all():
        raise ValueError("`noise` must be finite: it has NaN or infinite values, which have no order.")


def patch_mask_from_frame_mask(attention_mask: torch.Tensor, config: BeatsBaseConfig) -> torch.Tensor:
    """
    Mask of the valid patches, from that of the valid frames.

    A patch is valid when all the frames of its time column are. With `config.legacy_padding_mask`, frames are dealt
    evenly to patches as if these were a sequence in time, and a patch is valid when any of its frames is: the rule of
    Microsoft's code, which keeps padding and hides single frequencies of a time column.

    Args:
        attention_mask (`torch.Tensor` of shape `(batch_size, num_frames)`):
            1 or `True` for valid frames.
        config ([`BeatsBaseConfig`]):
            Gives the patch geometry and the rule.

    Returns:
        `torch.BoolTensor` of shape `(batch_size, num_patches)`, time-major.

    Raises:
        `ValueError`: if `config.legacy_padding_mask` is set and a clip has more patches than frames.
    """
    batch_size, num_frames = attention_mask.shape
    valid = attention_mask.bool()
    if config.legacy_padding_mask:
        config.check_legacy_padding_mask()
        num_patches = num_frames // config.patch_size * config.num_freq_patches
        frames_per_patch = num_frames // num_patches
        return valid[:, : num_patches * frames_per_patch].view(batch_size, num_patches, frames_per_patch).any(-1)
    # Counted between indices: cutting off an incomplete column by a slice would not export for any length.
    num_valid = nn.functional.pad(valid.long().cumsum(dim=1), (1, 0))
    start = torch.arange(num_frames // config.patch_size, device=valid.device) * config.patch_size
    columns = num_valid[:, start + config.patch_size] - num_valid[:, start] == config.patch_size
    return columns.repeat_interleave(config.num_freq_patches, dim=1)


def at_least_float32(values: torch.Tensor) -> torch.Tensor:
    """Values in float32 or, in float64, as they are: sums and losses lose digits in half precision."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


def masked_mean(values: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    """Mean of `values` `(batch_size, length, dim)` where `mask` `(batch_size, length)` is true; zeros if nowhere."""
    if mask is None:
        return values.mean(dim=1)
    total = at_least_float32(values).masked_fill(~mask.unsqueeze(-1), 0.0).sum(dim=1)
    return (total / mask.sum(dim=1, keepdim=True).clamp(min=1)).to(values.dtype)


def step_weights(
    num_frames: int, attention_mask: torch.Tensor | None, patch_attention_mask: torch.Tensor, config: BeatsConfig
) -> tuple[torch.Tensor, torch.Tensor]:
    """
    Patches that each step of `frame_pooling="sequence"` is the mean of. Of n valid patches and s steps of a clip, step
    i has those from `floor(i n / s)` to `ceil((i + 1) n / s) - 1`, as in PyTorch's `adaptive_avg_pool1d`. For 10 s
    without a mask, this is PretrainedSED's pooling of 496 patches to 250 steps. Up to 15 frames after the last whole
    column are in no patch, and patches are spread over all frames: the last steps of a clip lie up to 150 ms after
    their patches, those of 10 s 60 ms.

    Args:
        num_frames (`int`):
            Frames of the batch, padding included.
        attention_mask (`torch.Tensor` of shape `(batch_size, num_frames)`, *optional*):
            1 or `True` for valid frames.
        patch_attention_mask (`torch.BoolTensor` of shape `(batch_size, num_patches)`):
            True for valid patches.
        config ([`BeatsConfig`]):
            Gives the steps.

    Returns:
        `tuple[torch.Tensor, torch.Tensor]`: zeros and ones `(batch_size, num_steps, num_patches)`, boolean, and the
        mask of the steps that a clip has, `(batch_size, num_steps)`, boolean. A clip has as many steps alone.
    """
    device = patch_attention_mask.device
    num_patches = patch_attention_mask.sum(dim=1, keepdim=True)
    if attention_mask is None:
        valid_frames = torch.full_like(num_patches, num_frames)
    else:
        valid_frames = attention_mask.to(device).bool().sum(dim=1, keepdim=True)
    num_steps = config.count_steps(valid_frames)
    step = torch.arange(config.count_steps(num_frames), device=device)
    is_valid = (step < num_steps) & (num_patches > 0)
    divisor = num_steps.clamp(min=1)
    first, end = step * num_patches // divisor, ((step + 1) * num_patches + divisor - 1) // divisor
    # Numbers of the patches among the valid ones.
    number = (patch_attention_mask.long().cumsum(dim=1) - 1).unsqueeze(1)
    members = (number >= first.unsqueeze(2)) & (number < end.unsqueeze(2)) & patch_attention_mask.unsqueeze(1)
    return members & is_valid.unsqueeze(2), is_valid


def gather_patches(values: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
    """Patches at `positions` `(batch_size, count)` of each clip in `values` `(batch_size, num_patches, dim)`."""
    return values.gather(1, positions.unsqueeze(-1).expand(-1, -1, values.shape[-1]))


def first_positions(mask: torch.Tensor, count: int) -> torch.Tensor:
    """
    First `count` positions where `mask` `(batch_size, length)` is true, ascending, `(batch_size, count)`. Clips that
    have fewer are filled up with positions where it is false.
    """
    length = mask.shape[1]
    index = torch.arange(length, device=mask.device)
    return torch.where(mask, index, index + length).sort(dim=1).values[:, :count] % length


class BeatsPatchEmbeddings(nn.Module):
    """Cuts `(batch_size, num_frames, num_mel_bins)` into square patches, `(batch_size, num_patches, embed_dim)`."""

    def __init__(self, config: BeatsConfig):
        super().__init__()
        self.projection = nn.Conv2d(
            1, config.embed_dim, kernel_size=config.patch_size, stride=config.patch_size, bias=config.conv_bias
        )

    def forward(self, input_values: torch.Tensor) -> torch.Tensor:
        embeddings = self.projection(input_values.unsqueeze(1))
        # (batch_size, dim, columns, frequencies): flattening the last two is time-major.
        return embeddings.flatten(2).transpose(1, 2)


class BeatsEmbeddings(nn.Module):
    """Patch embeddings, layer norm, projection to the width of the encoder, dropout."""

    def __init__(self, config: BeatsConfig):
        super().__init__()
        self.patch_embeddings = BeatsPatchEmbeddings(config)
        self.layer_norm = nn.LayerNorm(config.embed_dim, eps=config.layer_norm_eps)
        needs_projection = config.embed_dim != config.hidden_size
        self.projection = nn.Linear(config.embed_dim, config.hidden_size) if needs_projection else nn.Identity()
        self.dropout = nn.Dropout(config.feat_proj_dropout)

    def forward(self, input_values: torch.Tensor) -> torch.Tensor:
        embeddings = self.patch_embeddings(input_values.to(self.layer_norm.weight.dtype))
        return self.dropout(self.projection(self.layer_norm(embeddings)))


def refuse_pickling(module: nn.Module) -> None:
    """Raises a `RuntimeError`, as PyTorch does for modules with weight norm, that says how a model is saved."""
    raise RuntimeError(
        "A BEATs model cannot be pickled, since PyTorch does not pickle modules with weight norm. Save it with "
        "`model.save_pretrained(directory)`, or its weights with `torch.save(model.state_dict(), file)`."
    )


def whole_parameter(parameter: torch.Tensor) -> AbstractContextManager:
    """Returns a context in which a parameter has all of its values, also where ZeRO-3 of DeepSpeed has split it."""
    if not hasattr(parameter, "ds_id"):
        return nullcontext()
    # Not imported by a statement: remote code would then require it of everyone.
    return import_module("deepspeed").zero.GatheredParameters(parameter, modifier_rank=0)


def without_autocast(device: torch.device) -> AbstractContextManager:
    """Returns a context in which autocast is off; it never is on for devices that it does not know, such as `meta`."""
    if not torch.amp.is_autocast_available(device.type):
        return nullcontext()
    return torch.autocast(device_type=device.type, enabled=False)


class BeatsGroupedConv(nn.Conv1d):
    """
    Grouped convolution that computes narrow groups in float32. A module with a `forward` of its own, so that whoever
    needs it is sure to call it: with offloading, weights are there in the forward pass of their module only.
    """

    # Below this, PyTorch's CPU kernels for grouped convolutions in half precision return wrong values.
    min_half_precision_channels_per_group = 16

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        if self.in_channels // self.groups >= self.min_half_precision_channels_per_group:
            return super().forward(input)
        with without_autocast(input.device):
            outputs = nn.functional.conv1d(
                at_least_float32(input),
                at_least_float32(self.weight),
                None if self.bias is None else at_least_float32(self.bias),
                padding=self.padding,
                groups=self.groups,
            )
        return outputs.to(input.dtype)


class BeatsPositionalConvEmbedding(nn.Module):
    """Convolutional position embedding over the sequence of patches, same length out as in."""

    def __init__(self, config: BeatsConfig):
        super().__init__()
        conv = BeatsGroupedConv(
            config.hidden_size,
            config.hidden_size,
            kernel_size=config.num_conv_pos_embeddings,
            padding=config.num_conv_pos_embeddings // 2,
            groups=config.num_conv_pos_embedding_groups,
        )
        with whole_parameter(conv.weight):
            self.conv = nn.utils.parametrizations.weight_norm(conv, dim=2)
        # PyTorch makes a class for this module alone, which refuses to be pickled and does not say what to do instead.
        type(self.conv).__getstate__ = refuse_pickling
        self.activation = nn.GELU()

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        length = hidden_states.shape[1]
        position_embeddings = self.conv(hidden_states.transpose(1, 2))
        # An even kernel gives one position too many.
        return self.activation(position_embeddings[..., :length]).transpose(1, 2)


class BeatsRelativePositionBias(nn.Module):
    """
    Learned attention bias by bucketed relative position (T5's bidirectional scheme), one table for all layers.
    """

    def __init__(self, config: BeatsConfig):
        super().__init__()
        self.num_buckets = config.num_buckets
        self.max_distance = config.max_bucket_distance
        self.relative_attention_bias = nn.Embedding(config.num_buckets, config.num_attention_heads)

    def relative_position_bucket(self, relative_position: torch.Tensor) -> torch.Tensor:
        """Bucket of each `key position - query position`: exact up to a distance, then logarithmic."""
        num_buckets = self.num_buckets // 2
        max_exact = num_buckets // 2
        distance = relative_position.abs()
        logarithmic = max_exact + (
            torch.log(distance.clamp(min=1).float() / max_exact)
            / math.log(self.max_distance / max_exact)
            * (num_buckets - max_exact)
        ).to(torch.long)
        bucket = torch.where(distance < max_exact, distance, logarithmic.clamp(max=num_buckets - 1))
        return bucket + (relative_position > 0).to(torch.long) * num_buckets

    def distance_values(self, length: int, device: torch.device) -> torch.Tensor:
        """
        Bias of each distance `key position - query position` in a sequence of `length` patches, `(num_heads, 2 *
        length)`: first of 0 to length - 1, then a value that is not used, then of 1 - length to -1. The index of a
        distance is the distance modulo 2 * length.
        """
        index = torch.arange(2 * length, device=device)
        distances = torch.where(index < length, index, index - 2 * length)
        return self.relative_attention_bias(self.relative_position_bucket(distances)).transpose(0, 1)

    def forward(self, length: int, device: torch.device, positions: torch.Tensor | None = None) -> torch.Tensor:
        """
        Bias between all patches of a sequence of `length`, `(num_heads, length, length)`; or between those patches of
        each clip that stand at `positions` `(batch_size, num_kept)`, `(batch_size, num_heads, num_kept, num_kept)`.
        """
        # Only 2 * length - 1 distances differ, so only these are looked up.
        values = self.distance_values(length, device)
        if positions is not None:
            # A gather, whose backward pass costs a fifth of that of an embedding look-up for each pair.
            index = (positions.unsqueeze(1) - positions.unsqueeze(2)) % (2 * length)
            index = index.flatten(1).unsqueeze(1).expand(-1, len(values), -1)
            values = values.unsqueeze(0).expand(len(positions), -1, -1)
            return values.gather(2, index).unflatten(2, (positions.shape[1], -1))
        if is_exporting():
            # Exports to ONNX for any length, too. For training, the other form is faster. A negative index counts from
            # the end, where the negative distances are.
            index = torch.arange(length, device=device)
            return values[:, index.unsqueeze(0) - index.unsqueeze(1)]
        # Repeated rows of 2 * length values, read as rows of one value less, shift by one from row to row, which
        # leaves distance `key - query` at (query, key). This compiles for any length.
        rows = values.unsqueeze(1).expand(-1, length, -1).reshape(-1, 2 * length * length)
        return rows[:, : length * (2 * length - 1)].view(-1, length, 2 * length - 1)[..., :length]


class BeatsLookedUpPositionBias:
    """
    Gated bias of each pair of patches for flex attention, which indexes it like a tensor `(batch_size, num_heads,
    length, length)`. That tensor is never made: each value is looked up among the `values` of
    [`BeatsRelativePositionBias.distance_values`] and multiplied by its [`BeatsAttention.position_gate`], if any.
    """

    def __init__(self, values: torch.Tensor, gate: torch.Tensor | None):
        self.values = values
        self.gate = gate

    def __getitem__(self, index: tuple[torch.Tensor, ...]) -> torch.Tensor:
        batch, head, query, key = index
        bias = self.values[head, (key - query) % self.values.shape[1]]
        return bias if self.gate is None else self.gate[batch, head, query, 0] * bias


def eager_attention_forward(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float,
    dropout: float = 0.0,
    position_bias: torch.Tensor | None = None,
    **kwargs: Unpack[TransformersKwargs],
):
    # Scaling the query, not the scores, keeps large scores finite in float16.
    attn_weights = torch.matmul(query * scaling, key.transpose(2, 3))
    if position_bias is not None:
        attn_weights = attn_weights + position_bias
    if attention_mask is not None:
        # With all keys masked, a negative bias on top of the mask must not become minus infinity.
        attn_weights = (attn_weights + attention_mask).clamp(min=torch.finfo(attn_weights.dtype).min)

    attn_weights = nn.functional.softmax(at_least_float32(attn_weights), dim=-1).to(query.dtype)
    attn_weights = nn.functional.dropout(attn_weights, p=dropout, training=module.training)

    attn_output = torch.matmul(attn_weights, value).transpose(1, 2).contiguous()
    return attn_output, attn_weights


def add_key_mask(position_bias: torch.Tensor, gate: torch.Tensor | None, attention_mask: torch.Tensor) -> torch.Tensor:
    """
    Adds the mask of the keys `(batch_size, 1, 1, length)`, true for those that count, to the gated bias `(batch_size,
    num_heads, length, length)`, so that attention functions get one tensor and need not add two.
    """
    # Half the smallest number: a negative bias on top of it must not become minus infinity where all keys are masked.
    lowest = torch.finfo(position_bias.dtype).min / 2
    key_mask = torch.zeros_like(attention_mask, dtype=position_bias.dtype).masked_fill(~attention_mask, lowest)
    return key_mask + position_bias if gate is None else torch.addcmul(key_mask, gate, position_bias)


class BeatsAttention(nn.Module):
    """Multi-head self-attention whose relative position bias is gated by head and query."""

    def __init__(self, config: BeatsConfig):
        super().__init__()
        self.config = config
        self.num_attention_heads = config.num_attention_heads
        self.head_dim = config.hidden_size // config.num_attention_heads
        self.scaling = self.head_dim**-0.5
        self.attention_dropout = config.attention_dropout
        self.is_causal = False

        self.q_proj = nn.Linear(config.hidden_size, config.hidden_size)
        self.k_proj = nn.Linear(config.hidden_size, config.hidden_size)
        self.v_proj = nn.Linear(config.hidden_size, config.hidden_size)
        self.out_proj = nn.Linear(config.hidden_size, config.hidden_size)
        if config.gru_rel_pos:
            self.gru_rel_pos_linear = nn.Linear(self.head_dim, 8)
            self.gru_rel_pos_const = nn.Parameter(torch.ones(1, self.num_attention_heads, 1, 1))

    def position_gate(self, query_states: torch.Tensor) -> torch.Tensor:
        """
        Factor of the position bias for each unscaled query, `(batch_size, num_heads, length, 1)`: two gates a and b
        give `a * (b * gru_rel_pos_const - 1) + 2`.
        """
        gates = self.gru_rel_pos_linear(query_states).unflatten(-1, (2, 4)).sum(dim=-1).sigmoid()
        gate_a, gate_b = gates.chunk(2, dim=-1)
        return (gate_a * (gate_b * self.gru_rel_pos_const - 1.0) + 2.0).to(query_states.dtype)

    def forward(
        self,
        hidden_states: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        position_bias: torch.Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """
        Attends with `position_bias`, which has no gate yet: `(num_heads, length, length)`, `(batch_size, num_heads,
        length, length)` or, for flex attention and attention in blocks,
        [`BeatsRelativePositionBias.distance_values`]. `attention_mask` is `(batch_size, 1, 1, length)`, true for the
        keys that count; for flex attention, and without a bias, the mask of `create_bidirectional_mask`.
        """
        # Not `view`, which cannot tell the number of heads from an empty batch.
        by_head = (-1, self.head_dim)

        query_states = self.q_proj(hidden_states).unflatten(-1, by_head).transpose(1, 2)
        key_states = self.k_proj(hidden_states).unflatten(-1, by_head).transpose(1, 2)
        value_states = self.v_proj(hidden_states).unflatten(-1, by_head).transpose(1, 2)

        implementation = self.config._attn_implementation
        is_onnx = is_exporting() and torch.onnx.is_in_onnx_export()
        if implementation == "sdpa" and (is_onnx or (is_eager() and hidden_states.shape[0] == 0)):
            # PyTorch does not translate its fused attention for CPUs to ONNX, and that of transformers takes no empty
            # batch.
            implementation = "eager"
        attention_interface: Callable = ALL_ATTENTION_FUNCTIONS.get_interface(implementation, eager_attention_forward)
        kwargs["dropout"] = 0.0 if not self.training else self.attention_dropout
        kwargs["scaling"] = self.scaling
        states = (query_states, key_states, value_states)
        if position_bias is not None:
            position_bias = position_bias.to(query_states.dtype)
            gate = self.position_gate(query_states) if self.config.gru_rel_pos else None
            if position_bias.ndim == 2 and self.config._attn_implementation == "sdpa":
                attn_output = self.attend_in_blocks(
                    attention_interface, states, attention_mask, position_bias, gate, **kwargs
                )
                return self.out_proj(attn_output.flatten(2)), None
            if position_bias.ndim == 2:
                kwargs["position_bias"] = BeatsLookedUpPositionBias(position_bias, gate)
            else:
                position_bias = position_bias if position_bias.ndim == 4 else position_bias.unsqueeze(0)
                if isinstance(attention_mask, torch.Tensor):
                    kwargs["position_bias"] = add_key_mask(position_bias, gate, attention_mask)
                    attention_mask = None
                else:
                    position_bias = position_bias.expand(hidden_states.shape[0], -1, -1, -1)
                    kwargs["position_bias"] = position_bias if gate is None else gate * position_bias
        attn_output, attn_weights = attention_interface(self, *states, attention_mask, **kwargs)

        attn_output = attn_output.flatten(2).contiguous()
        return self.out_proj(attn_output), attn_weights

    def attend_in_blocks(
        self,
        attention_interface: Callable,
        states: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
        attention_mask: torch.Tensor | None,
        values: torch.Tensor,
        gate: torch.Tensor | None,
        **kwargs,
    ) -> torch.Tensor:
        """
        Computes attention, `(batch_size, length, num_heads, head_dim)`, for a few clips, heads or queries at a time,
        with one buffer for their gated bias. A tensor for all clips, heads and pairs of patches would take more time
        to allocate than to fill. `states` are queries, keys and values, `values` those of
        [`BeatsRelativePositionBias.distance_values`].
        """
        batch_size, num_heads, length, _ = states[0].shape
        # With the last query first, the bias of a query is that of the one before it, shifted by one, which a view of
        # the values from the smallest distance to the largest shows without a copy.
        values = values.roll(length, dims=1)[:, 1:].contiguous()
        position_bias = values.as_strided((1, num_heads, length, length), (0, values.stride(0), 1, 1))
        states = (states[0].flip(2), *states[1:])
        gate = states[0].new_ones(1, 1, 1, 1).expand(*states[0].shape[:3], 1) if gate is None else gate.flip(2)

        num_rows = max(1, BIAS_BYTES_PER_BLOCK // (length * values.element_size()))
        queries_per_block = min(num_rows, length)
        heads_per_block = min(max(1, num_rows // length), num_heads)
        clips_per_block = max(1, min(num_rows // (length * num_heads), batch_size))
        buffer = values.new_empty(clips_per_block * heads_per_block * queries_per_block * length)
        blocks = product(
            range(0, batch_size, clips_per_block),
            range(0, num_heads, heads_per_block),
            range(0, length, queries_per_block),
        )
        attn_output = states[0].new_empty(batch_size, length, num_heads, self.head_dim)
        # The mask goes into the buffer, instead of together with it into another new tensor.
        is_padding = None if attention_mask is None or attention_mask.all() else ~attention_mask
        for first_clip, first_head, first_row in blocks:
            clips = slice(first_clip, first_clip + clips_per_block)
            heads = slice(first_head, first_head + heads_per_block)
            rows = slice(first_row, first_row + queries_per_block)
            queries, gates = states[0][clips, heads, rows], gate[clips, heads, rows]
            keys, value_states = states[1][clips, heads], states[2][clips, heads]
            shape = (*queries.shape[:3], length)
            bias = buffer[: math.prod(shape)].view(shape)
            torch.mul(gates, position_bias[:, heads, rows], out=bias)
            if is_padding is not None:
                bias.masked_fill_(is_padding[clips], torch.finfo(bias.dtype).min)
            output, _ = attention_interface(self, queries, keys, value_states, None, position_bias=bias, **kwargs)
            last_row = length - first_row
            attn_output[clips, last_row - shape[2] : last_row, heads] = output.flip(1)
        return attn_output


class BeatsMLP(nn.Module):
    """Feed-forward network; `hidden_act="glu"` is the reference's gated variant, whose gate is the second half."""

    def __init__(self, config: BeatsConfig):
        super().__init__()
        self.is_gated = config.hidden_act == "glu"
        self.activation_fn = nn.SiLU() if self.is_gated else ACT2FN[config.hidden_act]
        self.fc1 = nn.Linear(config.hidden_size, config.intermediate_size * (2 if self.is_gated else 1))
        self.dropout = nn.Dropout(config.activation_dropout)
        self.fc2 = nn.Linear(config.intermediate_size, config.hidden_size)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        hidden_states = self.fc1(hidden_states)
        if self.is_gated:
            hidden_states, gate = hidden_states.chunk(2, dim=-1)
            hidden_states = hidden_states * self.activation_fn(gate)
        else:
            hidden_states = self.activation_fn(hidden_states)
        return self.fc2(self.dropout(hidden_states))


def deep_norm_scale(num_hidden_layers: int) -> float:
    """Scale of the residuals of an encoder of so many layers (DeepNorm, Wang et al., 2022)."""
    return (2 * num_hidden_layers) ** 0.25


class BeatsLayer(GradientCheckpointingLayer):
    """Encoder layer: post-norm with DeepNorm's residual scale, plain post-norm, or pre-norm."""

    def __init__(self, config: BeatsConfig, num_hidden_layers: int):
        super().__init__()
        self.layer_norm_first = config.layer_norm_first
        self.layerdrop = config.layerdrop
        self.residual_scale = deep_norm_scale(num_hidden_layers) if config.deep_norm else 1.0
        self.self_attn = BeatsAttention(config)
        self.self_attn_layer_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.mlp = BeatsMLP(config)
        self.final_layer_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.dropout = nn.Dropout(config.hidden_dropout)
        if config.deep_norm:
            # For `_init_weights`.
            beta = (8 * num_hidden_layers) ** -0.25
            gains = {"self_attn.q_proj": 1.0, "self_attn.k_proj": 1.0, "self_attn.v_proj": beta}
            gains |= {"self_attn.out_proj": beta, "mlp.fc1": beta, "mlp.fc2": beta}
            for name, gain in gains.items():
                self.get_submodule(name).xavier_gain = gain  # ty: ignore[invalid-assignment]

    def forward(
        self,
        hidden_states: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        position_bias: torch.Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> torch.Tensor:
        layer_input = hidden_states
        residual = hidden_states
        if self.layer_norm_first:
            hidden_states = self.self_attn_layer_norm(hidden_states)
        hidden_states, _ = self.self_attn(hidden_states, attention_mask, position_bias, **kwargs)
        hidden_states = torch.add(self.dropout(hidden_states), residual, alpha=self.residual_scale)
        if not self.layer_norm_first:
            hidden_states = self.self_attn_layer_norm(hidden_states)

        residual = hidden_states
        if self.layer_norm_first:
            hidden_states = self.final_layer_norm(hidden_states)
        hidden_states = torch.add(self.dropout(self.mlp(hidden_states)), residual, alpha=self.residual_scale)
        if not self.layer_norm_first:
            hidden_states = self.final_layer_norm(hidden_states)

        if self.training and self.layerdrop > 0:
            # Chosen without a branch: every parameter takes part in every step, as DDP, FSDP and compilation need.
            is_kept = torch.rand((), device=hidden_states.device) >= self.layerdrop
            hidden_states = torch.where(is_kept, hidden_states, layer_input)
        return hidden_states

    @torch.no_grad()
    def rescale(self, scale: float) -> None:
        """
        Makes weights of a layer whose residuals had another `scale` compute the same here: what attention and
        feed-forward network add is scaled alike, and the layer norm after each sum takes the common factor away.
        """
        factor = self.residual_scale / scale
        for module in (self.self_attn.out_proj, self.mlp.fc2):
            is_offloaded = hasattr(module, "_hf_hook")
            for name, value in list(module.named_parameters()):
                if hasattr(value, "ds_id"):
                    # DeepSpeed knows this parameter, whose values are nobody else's.
                    with whole_parameter(value):
                        value.mul_(factor)
                    continue
                if not value.is_floating_point() or (value.is_meta and is_offloaded):
                    raise ValueError(
                        f"Weights that are quantised or on disk (`{name}`) cannot be those of an encoder of another "
                        "depth: load the model with all its layers, or in memory and without quantisation."
                    )
                # Not in place: they may be the caller's `state_dict`.
                scaled = nn.Parameter(value * factor, requires_grad=value.requires_grad)
                setattr(module, name, scaled)


class BeatsEncoder(nn.Module):
    """Convolutional and relative positions, then the layers: `config.num_hidden_layers` unless given."""

    def __init__(self, config: BeatsConfig, num_hidden_layers: int | None = None):
        super().__init__()
        self.config = config
        depth = config.num_hidden_layers if num_hidden_layers is None else num_hidden_layers
        self.pos_conv_embed = BeatsPositionalConvEmbedding(config)
        self.layer_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.dropout = nn.Dropout(config.hidden_dropout)
        self.relative_position = BeatsRelativePositionBias(config) if config.relative_position_embedding else None
        self.layers = nn.ModuleList([BeatsLayer(config, depth) for _ in range(depth)])

    @torch.no_grad()
    def keep_outputs_of(self, saved_depth: int) -> None:
        """Rescales weights that were loaded from an encoder of so many layers."""
        if self.config.deep_norm:
            for layer in list(self.layers)[:saved_depth]:
                cast(BeatsLayer, layer).rescale(deep_norm_scale(saved_depth))

    def forward(
        self,
        hidden_states: torch.Tensor,
        patch_attention_mask: torch.Tensor | None = None,
        kept_positions: torch.Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> torch.Tensor:
        """
        Encodes patches `(batch_size, num_patches, hidden_size)`. Where `patch_attention_mask` `(batch_size,
        num_patches)` is false, the convolution reads zeros. With `kept_positions` `(batch_size, num_kept)`, only the
        patches there go through the layers, at their positions in the clip; the mask must be false for all others.
        """
        length = hidden_states.shape[1]
        if patch_attention_mask is not None:
            hidden_states = hidden_states.masked_fill(~patch_attention_mask.unsqueeze(-1), 0.0)
        hidden_states = hidden_states + self.pos_conv_embed(hidden_states)
        if kept_positions is not None:
            hidden_states = gather_patches(hidden_states, kept_positions)
            if patch_attention_mask is not None:
                patch_attention_mask = patch_attention_mask.gather(1, kept_positions)
        if not self.config.layer_norm_first:
            hidden_states = self.layer_norm(hidden_states)
        hidden_states = self.dropout(hidden_states)

        is_flex = self.config._attn_implementation == "flex_attention"
        is_flex_on_cpu = is_flex and hidden_states.device.type == "cpu"
        if is_flex_on_cpu and not FLEX_WORKS_ON_CPU:
            raise ValueError(
                "PyTorch's flex attention gives wrong results on CPUs without AVX-512, and on all with PyTorch below "
                "2.13: use `model.set_attn_implementation('sdpa')`."
            )
        position_bias = self.position_bias(hidden_states, length, kept_positions)
        if position_bias is None or is_flex:
            attention_mask = create_bidirectional_mask(
                config=self.config, inputs_embeds=hidden_states, attention_mask=patch_attention_mask
            )
        else:
            # The layers join it with the bias, so that no mask of all pairs of patches is needed.
            attention_mask = None if patch_attention_mask is None else patch_attention_mask[:, None, None, :]
        # Compiled for each length anew: flex attention for CPUs does not compile once a length is dynamic, as it would
        # be from the second one on.
        is_fixed = is_flex_on_cpu and not torch.compiler.is_compiling()
        with torch._dynamo.config.patch(automatic_dynamic_shapes=False) if is_fixed else nullcontext():
            for layer in self.layers:
                hidden_states = layer(hidden_states, attention_mask, position_bias, **kwargs)

        return self.layer_norm(hidden_states) if self.config.layer_norm_first else hidden_states

    def position_bias(
        self, hidden_states: torch.Tensor, length: int, kept_positions: torch.Tensor | None = None
    ) -> torch.Tensor | None:
        """
        Argument `position_bias` of the layers' attention for `hidden_states` in a sequence of `length` patches: the
        bias of all pairs of patches or, for flex attention and attention in blocks, of all distances.
        """
        if self.relative_position is None:
            return None
        is_flex = self.config._attn_implementation == "flex_attention"
        attends_in_blocks = (
            self.config._attn_implementation == "sdpa"
            and hidden_states.device.type == "cpu"
            and not torch.is_grad_enabled()
            # One graph is to serve all lengths; `torch.func` writes into no buffer, nor do tensors without values or
            # with tangents, which weights may have, too.
            and has_values(hidden_states)
            and forward_ad._current_level < 0
        )
        if kept_positions is None and (is_flex or attends_in_blocks):
            return self.relative_position.distance_values(length, hidden_states.device)
        return self.relative_position(length, hidden_states.device, kept_positions)


def find_saved_depth(encoder: BeatsEncoder, prefix: str, missing: set[str], unexpected: set[str]) -> int:
    """
    Finds the number of layers in a checkpoint that an encoder was loaded from, whose keys begin with `prefix`: its own
    number unless its last layers are `missing` as a whole, or `unexpected` ones follow them.
    """
    depth, prefix = len(encoder.layers), f"{prefix}layers."
    others = {int(match[1]) for key in unexpected if (match := re.match(rf"{re.escape(prefix)}(\d+)\.", key))}
    if others and others == {*range(depth, max(others) + 1)}:
        return max(others) + 1
    own = [{f"{prefix}{number}.{key}" for key in layer.state_dict()} for number, layer in enumerate(encoder.layers)]
    num_saved = next((number for number, keys in enumerate(own) if keys <= missing), depth)
    # Layers of which a part is missing, or some before the last, are no other depth but a broken file.
    return num_saved if all(keys <= missing for keys in own[num_saved:]) else depth


@auto_docstring
class BeatsPreTrainedModel(SavedWithCode, PreTrainedModel):
    config: BeatsConfig
    base_model_prefix = "beats"
    main_input_name = "input_values"
    input_modalities = ["audio"]
    # The losses are means over the batch: without this, Trainer would scale them for gradient accumulation.
    accepts_loss_kwargs = False
    supports_gradient_checkpointing = True
    _no_split_modules = ["BeatsEmbeddings", "BeatsLayer"]
    _supports_sdpa = True
    _supports_flash_attn = False
    _supports_flex_attn = True
    _supports_attention_backend = True
    _can_compile_fullgraph = True
    _can_record_outputs = {
        "hidden_states": BeatsLayer,
        "attentions": BeatsAttention,
    }
    _input_embed_layer = "patch_embeddings"
    # Weights that only pre-training uses, on top of encoder and tokenizer.
    _keys_to_ignore_on_load_unexpected = [r"^label_predictor\.", r"^estimator\."]

    def __init__(self, config: BeatsConfig, *args, **kwargs):
        # `attn_implementation` is not saved, and the default, "sdpa", returns no attentions: to set them is "eager".
        if config.output_attentions and config._attn_implementation is None:
            config.output_attentions = True
        super().__init__(config, *args, **kwargs)
        # `from_pretrained` sets values that it is given after the configuration has checked its own, and anybody may
        # set others: a model of values that cannot be saved would lose its training at the first checkpoint.
        config.validate()

    @classmethod
    def from_pretrained(cls, *args, output_loading_info: bool = False, **kwargs):
        """
        Loads a model as `PreTrainedModel.from_pretrained` does. With another `num_hidden_layers` than the
        checkpoint's, the layers that both have compute what they did: DeepNorm's scale depends on their number. A
        new classifier has no `event_settings`.
        """
        loaded: Any = super().from_pretrained(*args, output_loading_info=True, **kwargs)
        model, info = loaded
        # A head and a bare encoder differ in the prefix.
        prefix = f"{cls.base_model_prefix}."
        missing, unexpected = (
            {key.removeprefix(prefix) for key in info[name]} for name in ("missing_keys", "unexpected_keys")
        )
        for name, encoder in model.named_modules():
            if isinstance(encoder, BeatsEncoder):
                # The encoder of the model itself, and that of a predictor.
                name = f"{name.removeprefix(prefix)}."
                depth = find_saved_depth(encoder, name, missing, unexpected)
                if depth != len(encoder.layers):
                    encoder.keep_outputs_of(depth)
        # A mismatched key comes with both shapes.
        mismatched = {key if isinstance(key, str) else key[0] for key in info["mismatched_keys"]}
        # Thresholds and filters were tuned for another head.
        if any(key.startswith("classifier.") for key in (*info["missing_keys"], *mismatched)):
            model.config.event_settings = None
        return (model, info) if output_loading_info else model

    @torch.no_grad()
    def _init_weights(self, module):
        """Initialises as the reference does: normal weights, and DeepNorm's gains on top."""
        super()._init_weights(module)
        # Outside of its own namespace, transformers calls this for modules with parameters of their own only, so
        # nothing can be initialised from the module that contains it.
        if isinstance(module, nn.Linear) and hasattr(module, "xavier_gain"):
            init.xavier_normal_(module.weight, gain=module.xavier_gain)
        elif isinstance(module, nn.utils.parametrize.ParametrizationList):
            # The position convolution: direction and norm of its weight.
            kernel_size = module.original1.shape[2]
            init.normal_(module.original1, mean=0.0, std=math.sqrt(4 / (kernel_size * self.config.hidden_size)))
            init.copy_(module.original0, torch.norm_except_dim(module.original1, 2, 2))
        elif isinstance(module, BeatsAttention) and module.config.gru_rel_pos:
            init.ones_(module.gru_rel_pos_const)
        elif isinstance(module, BeatsLayerAverage):
            init.zeros_(module.weight)
            if module.query is not None:
                init.zeros_(module.query)
        elif isinstance(module, BeatsAttentionPooling):
            init.zeros_(module.query)
        elif isinstance(module, BeatsGRU):
            # As PyTorch initialises its own.
            for parameter in module.parameters():
                init.uniform_(parameter, -(module.size**-0.5), module.size**-0.5)
        elif isinstance(module, BeatsPrototypePooling):
            init.normal_(module.prototypes)
            init.zeros_(module.mean)
            init.ones_(module.std)


@auto_docstring(custom_intro="The BEATs encoder: from filter banks to one representation per patch.")
class BeatsModel(BeatsPreTrainedModel):
    # Saving copies this file and the configuration's, for use with `trust_remote_code=True`.
    _auto_class = "AutoModel"

    def __init__(self, config: BeatsConfig):
        super().__init__(config)
        self.embeddings = BeatsEmbeddings(config)
        self.encoder = BeatsEncoder(config)

        # Initialize weights and apply final processing
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        return self.embeddings.patch_embeddings

    def to_grid(self, patches: torch.Tensor) -> torch.Tensor:
        """
        Arranges patches by time and frequency.

        Args:
            patches (`torch.Tensor` of shape `(batch_size, num_patches, ...)`):
                Hidden states or a mask, time-major, as the model returns them.

        Returns:
            `torch.Tensor` of shape `(batch_size, num_columns, num_freq_patches, ...)`; a column spans 160 ms.
        """
        return patches.unflatten(1, (-1, self.config.num_freq_patches))

    @merge_with_config_defaults
    @capture_outputs
    @auto_docstring
    def forward(
        self,
        input_values: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> BeatsModelOutput:
        r"""
        input_values (`torch.FloatTensor` of shape `(batch_size, num_frames, num_mel_bins)`):
            Normalised filter banks from [`BeatsFeatureExtractor`]. Frames beyond the last whole patch are not used.
        attention_mask (`torch.Tensor` of shape `(batch_size, num_frames)`, *optional*):
            1 for frames of audio, 0 for padding. A patch takes part when all its frames do. Without it, everything
            counts as audio.
        """
        check_keywords(self, kwargs)
        input_values = check_fbank(input_values, attention_mask, self.config)
        hidden_states = self.embeddings(input_values)
        patch_attention_mask = None
        if attention_mask is None:
            # In training, augmentation may have hidden the last frames.
            if not self.training:
                check_padding(input_values)
                check_normalisation(input_values)
        else:
            patch_attention_mask = patch_mask_from_frame_mask(attention_mask, self.config).to(hidden_states.device)

        hidden_states = self.encoder(hidden_states, patch_attention_mask, **kwargs)
        pooler_output = masked_mean(hidden_states, patch_attention_mask)
        if patch_attention_mask is None:
            patch_attention_mask = hidden_states.new_ones(hidden_states.shape[:2], dtype=torch.bool)
        return BeatsModelOutput(
            last_hidden_state=hidden_states,
            pooler_output=pooler_output,
            patch_attention_mask=patch_attention_mask,
        )


class BeatsLayerAverage(nn.Module):
    """
    Average of all hidden states, the input of the first layer included, with learned softmax weights. With
    `config.layer_weights="attention"`, the logit of a layer's weight has one more term for each clip: the product of a
    learned query and the mean of the layer over the valid patches, divided by the square root of `hidden_size`.
    """

    def __init__(self, config: BeatsConfig):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(config.num_hidden_layers + 1))
        has_query, self.scaling = config.layer_weights == "attention", config.hidden_size**-0.5
        self.query = nn.Parameter(torch.zeros(config.hidden_size)) if has_query else None

    def forward(self, hidden_states: tuple[torch.Tensor, ...], mask: torch.Tensor | None = None) -> torch.Tensor:
        """Averages states `(batch_size, num_patches, hidden_size)`, of which the `mask` says which are valid."""
        if self.query is None:
            weights = self.weight.softmax(dim=0)
            return sum(weight * states for weight, states in zip(weights, hidden_states))
        means = at_least_float32(torch.stack([masked_mean(states, mask) for states in hidden_states]))
        logits = at_least_float32(self.weight)[:, None] + means @ at_least_float32(self.query) * self.scaling
        weights = logits.softmax(dim=0).to(hidden_states[0].dtype)
        return sum(weight[:, None, None] * states for weight, states in zip(weights, hidden_states))


class BeatsAttentionPooling(nn.Module):
    """
    Attention of learned queries to the patches of a clip, whose own states are keys and values: softmax of the
    products of query and states, divided by the square root of `hidden_size`, over the valid patches. One query for
    all classes, or with `config.classifier_pooling="class_attention"` one for each.
    """

    def __init__(self, config: BeatsConfig):
        super().__init__()
        num_queries: int = config.num_labels if config.classifier_pooling == "class_attention" else 1  # ty: ignore[invalid-assignment]
        self.num_outputs, self.scaling = config.hidden_size, config.hidden_size**-0.5
        self.query = nn.Parameter(torch.zeros(num_queries, config.hidden_size))

    def forward(self, hidden_states: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        """
        Returns inputs of the classifier `(batch_size, hidden_size)` from states `(batch_size, num_patches,
        hidden_size)`; with a query for each of several classes `(batch_size, num_labels, hidden_size)`.
        """
        scores = at_least_float32(hidden_states) @ at_least_float32(self.query).T * self.scaling
        if mask is not None:
            scores = scores.masked_fill(~mask.unsqueeze(-1), torch.finfo(scores.dtype).min)
        weights = scores.softmax(dim=1)
        if mask is not None:
            # Of a clip without a valid patch, nothing counts.
            weights = weights.masked_fill(~mask.unsqueeze(-1), 0.0)
        pooled = weights.to(hidden_states.dtype).transpose(1, 2) @ hidden_states
        return pooled[:, 0] if pooled.shape[1] == 1 else pooled


class BeatsPrototypePooling(nn.Module):
    """
    Largest similarities of the patches of a clip to binarised prototypes, after Rauch et al., 2025 (arXiv:2509.24901):
    prototypes that belong to no class, binarised by their sign in every forward pass, `p = sign(p~)` in {-1, 1};
    cosines of patches and prototypes; for each prototype the largest cosine over the valid patches; a linear layer on
    these. Gradients pass the sign unchanged. Ours, since the sources that we have do not say: patches are standardised
    by `mean` and `std`, which the probe sets and fine-tuning leaves as they are, 0 is binarised to 1, and cosines are
    multiplied by the square root of `hidden_size`, which gives them a variance of about 1.
    """

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, config: BeatsConfig):
        super().__init__()
        self.num_outputs = config.num_prototypes
        self.prototypes = nn.Parameter(torch.zeros(config.num_prototypes, config.hidden_size))
        self.register_buffer("mean", torch.zeros(config.hidden_size))
        self.register_buffer("std", torch.ones(config.hidden_size))

    def forward(self, hidden_states: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        """
        Returns the largest similarities `(batch_size, num_prototypes)` of states `(batch_size, num_patches,
        hidden_size)`; zeros for a clip without valid patches.
        """
        signs = torch.where(self.prototypes >= 0, 1.0, -1.0).to(self.prototypes.dtype)
        # Exactly the signs, with the gradient of the prototypes.
        signs = signs + (self.prototypes - self.prototypes.detach())
        patches = nn.functional.normalize((hidden_states - self.mean) / self.std, dim=-1)
        similarities = patches @ signs.T
        if mask is None:
            return similarities.amax(dim=1)
        similarities = similarities.masked_fill(~mask.unsqueeze(-1), torch.finfo(similarities.dtype).min)
        return similarities.amax(dim=1).masked_fill(~mask.any(dim=1, keepdim=True), 0.0)


# PyTorch would compile every step of the clip on its own, which takes minutes, and again for clips of another length.
@torch.compiler.disable
def run_gru(
    states: torch.Tensor,
    weight_ih: torch.Tensor,
    weight_hh: torch.Tensor,
    bias_ih: torch.Tensor,
    bias_hh: torch.Tensor,
) -> torch.Tensor:
    """
    Outputs `(batch_size, length, size)` of one direction of a GRU layer, from inputs `(batch_size, length,
    num_inputs)` and an initial state of zeros. Weights are those of `torch.nn.GRU`. `torch.compile` breaks the graph
    at it.
    """
    # In half precision, errors of hundreds of steps would add up, and not every device has a fast kernel.
    with without_autocast(states.device):
        inputs = at_least_float32(states)
        weights = [at_least_float32(values) for values in (weight_ih, weight_hh, bias_ih, bias_hh)]
        initial = inputs.new_zeros(1, inputs.shape[0], weight_hh.shape[1])
        # A single layer has no dropout: that it is in training means to cuDNN that there will be gradients.
        outputs = torch.gru(inputs, initial, weights, True, 1, 0.0, torch.is_grad_enabled(), False, True)[0]
    return outputs.to(states.dtype)


class BeatsGRU(nn.Module):
    """
    One direction of a layer of a GRU. It has weights of its own and is no `nn.GRU`, so that an export can put another
    operation in the place of its steps.
    """

    # An export puts an operation of its own here, as PyTorch would write out every step of the example.
    run = staticmethod(run_gru)

    def __init__(self, num_inputs: int, size: int):
        super().__init__()
        self.size = size
        self.weight_ih = nn.Parameter(torch.empty(3 * size, num_inputs))
        self.weight_hh = nn.Parameter(torch.empty(3 * size, size))
        self.bias_ih = nn.Parameter(torch.empty(3 * size))
        self.bias_hh = nn.Parameter(torch.empty(3 * size))

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        return self.run(states, self.weight_ih, self.weight_hh, self.bias_ih, self.bias_hh)


class BeatsRecurrentLayers(nn.Module):
    """
    Bidirectional GRU over the frames of a clip, `config.frame_recurrent_layers` deep: PretrainedSED's `seq_model`. It
    reads valid frames alone, and its backward direction begins with the last of them, so that a clip has the same
    result in any batch.
    """

    def __init__(self, config: BeatsConfig, num_inputs: int):
        super().__init__()
        size = config.frame_recurrent_size
        self.num_outputs = 2 * size
        widths = [num_inputs, *[2 * size] * (config.frame_recurrent_layers - 1)]
        self.forward_layers = nn.ModuleList(BeatsGRU(width, size) for width in widths)
        self.backward_layers = nn.ModuleList(BeatsGRU(width, size) for width in widths)

    def forward(self, frames: torch.Tensor, is_valid: torch.Tensor) -> torch.Tensor:
        """
        Returns states `(batch_size, num_frames, 2 * size)` of frames `(batch_size, num_frames, num_inputs)`, of which
        `is_valid` `(batch_size, num_frames)`, boolean, says which are no padding; zeros for padding.
        """
        num_frames = frames.shape[1]
        index = torch.arange(num_frames, device=frames.device)
        # Number of each frame among the valid ones of its clip; valid frames come first, in their order.
        number, count = is_valid.long().cumsum(dim=1) - 1, is_valid.long().sum(dim=1, keepdim=True)
        slot = torch.where(is_valid, number, num_frames)
        order = torch.zeros_like(nn.functional.pad(slot, (0, 1))).scatter(1, slot, index.expand_as(slot))
        states = gather_patches(frames, order[:, :num_frames])
        reverse = torch.where(index < count, count - 1 - index, index)
        for ahead, behind in zip(self.forward_layers, self.backward_layers):
            backward = gather_patches(behind(gather_patches(states, reverse)), reverse)
            states = torch.cat([ahead(states), backward], dim=-1)
        return gather_patches(states, number.clamp(min=0)).masked_fill(~is_valid.unsqueeze(-1), 0.0)


class BeatsFrameAttention(nn.Module):
    """
    Scores of clips from those of their frames, as PretrainedSED and the baseline of DCASE's task 4 have them: means of
    the scores of a class with weights of a second linear layer, a softmax over the classes, at least 1e-7.
    """

    def __init__(self, num_inputs: int, num_labels: int):
        super().__init__()
        self.attention = nn.Linear(num_inputs, num_labels)

    def forward(self, frames: torch.Tensor, logits: torch.Tensor, is_valid: torch.Tensor) -> torch.Tensor:
        """
        Returns logits `(batch_size, num_labels)` whose sigmoid is the score of a clip, from its frames `(batch_size,
        num_frames, num_inputs)` and their logits `(batch_size, num_frames, num_labels)`; zeros without valid frames.
        """
        weights = at_least_float32(self.attention(frames)).log_softmax(dim=-1).clamp(min=math.log(1e-7))
        log_odds = at_least_float32(logits)
        # In logarithms, since scores near 0 and 1 would be rounded.
        present, absent = weights + nn.functional.logsigmoid(log_odds), weights + nn.functional.logsigmoid(-log_odds)
        is_padding, least = ~is_valid.unsqueeze(-1), torch.finfo(present.dtype).min
        present, absent = (values.masked_fill(is_padding, least).logsumexp(dim=1) for values in (present, absent))
        return (present - absent).to(logits.dtype)


# By their names in `classifier_pooling`, those of patches.
POOLINGS = {
    "attention": BeatsAttentionPooling,
    "class_attention": BeatsAttentionPooling,
    "prototypes": BeatsPrototypePooling,
}


def score_pooled(pooled: torch.Tensor, classifier: nn.Module) -> torch.Tensor:
    """
    Returns logits `(batch_size, num_labels)` of one of the `POOLINGS`. The classifier is called, as adapters and hooks
    may belong to it, and not from within the pooling, as hooks move all that a module is called with.
    """
    logits = classifier(pooled)
    # A class reads what its own query has found.
    return logits if logits.ndim == 2 else logits.diagonal(dim1=1, dim2=2)


class BeatsClassificationModel(BeatsPreTrainedModel):
    """Base class of the classification heads: the encoder, its freezing, and the choice of hidden states."""

    recurrent: BeatsRecurrentLayers | None
    pooling: nn.Module | None

    def __init__(self, config: BeatsConfig):
        super().__init__(config)
        if not config.id2label:
            raise ValueError(f"A {type(self).__name__} needs a label, its configuration has none: set `num_labels`.")
        self.num_labels: int = config.num_labels  # ty: ignore[invalid-assignment]
        # By default the name of the class decides, and a name that transformers does not know, such as
        # "ForAudioFrameClassification" or a subclass's, means the loss of a causal language model.
        self.loss_type = "ForSequenceClassification"
        self.beats = BeatsModel(config)
        self.layer_average = BeatsLayerAverage(config) if config.use_weighted_layer_sum else None
        if config.use_weighted_layer_sum:
            # Otherwise the first forward pass would, which cannot be compiled.
            maybe_install_capturing_hooks(self.beats)
        self.dropout = nn.Dropout(config.classifier_dropout)

    def make_frame_head(self) -> int:
        """
        Makes the modules `recurrent` and `pooling` of a head that reads frames, which are None if the configuration
        has none; returns the width of the classifier's inputs. Raises a `ValueError` for attention to frames in a
        regression, or with one class.
        """
        config = self.config
        num_inputs = config.hidden_size * (config.num_freq_patches if config.frame_pooling == "concat" else 1)
        self.recurrent = BeatsRecurrentLayers(config, num_inputs) if config.frame_recurrent_layers else None
        num_inputs = num_inputs if self.recurrent is None else self.recurrent.num_outputs
        has_attention = config.classifier_pooling == "frame_attention"
        if has_attention and (self.num_labels == 1 or problem_type_of(config) == "regression"):
            raise ValueError(
                '`classifier_pooling="frame_attention"` weighs several classes against each other, whose scores lie '
                f"in [0, 1], and this model has `num_labels={self.num_labels}` and is a {problem_type_of(config)}: "
                "set `classifier_pooling` to 'frame_mean'."
            )
        self.pooling = BeatsFrameAttention(num_inputs, self.num_labels) if has_attention else None
        return num_inputs

    def freeze_feature_encoder(self):
        """Disables the gradient of the patch embeddings, so that they are not trained."""
        self.beats.embeddings.requires_grad_(False)

    def freeze_base_model(self):
        """Disables the gradient of the encoder, so that only the classification head is trained."""
        self.beats.requires_grad_(False)

    def encode(self, input_values, attention_mask, **kwargs) -> tuple[BeatsModelOutput, torch.Tensor]:
        """Returns the encoder's output, and the states of the patches `(batch_size, num_patches, hidden_size)`."""
        wanted = kwargs.get("output_hidden_states")
        if self.layer_average is not None:
            kwargs["output_hidden_states"] = True
        outputs = self.beats(input_values, attention_mask=attention_mask, return_dict=True, **kwargs)
        if self.layer_average is None:
            return outputs, self.dropout(outputs.last_hidden_state)
        mask = outputs.patch_attention_mask if attention_mask is not None else None
        average = self.layer_average(outputs.hidden_states, mask)
        outputs.hidden_states = self._select(outputs.hidden_states, wanted)
        return outputs, self.dropout(average)

    def pool(
        self,
        hidden_states: torch.Tensor,
        patch_attention_mask: torch.Tensor,
        attention_mask: torch.Tensor | None,
        num_frames: int,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """
        Returns the inputs of the classifier of frames `(batch_size, num_columns, num_inputs)`, and which of them are
        valid, `(batch_size, num_columns)`, boolean; see [`step_weights`] for steps.
        """
        if self.config.frame_pooling == "sequence":
            members, is_valid = step_weights(num_frames, attention_mask, patch_attention_mask, self.config)
            states = hidden_states.masked_fill(~patch_attention_mask.unsqueeze(-1), 0.0)
            total = members.to(states.dtype) @ states
            columns = total / members.sum(dim=2, keepdim=True).clamp(min=1).to(total.dtype)
        else:
            grid = self.beats.to_grid(hidden_states)
            columns = grid.flatten(2) if self.config.frame_pooling == "concat" else grid.mean(dim=2)
            # Under the legacy rule a column may be valid at some frequencies only.
            is_valid = self.beats.to_grid(patch_attention_mask).any(dim=-1)
        return columns if self.recurrent is None else self.recurrent(columns, is_valid), is_valid

    def pool_frames(self, columns: torch.Tensor, logits: torch.Tensor, is_valid: torch.Tensor) -> torch.Tensor:
        """
        Returns logits of clips `(batch_size, num_labels)` by a `config.classifier_pooling` of frames, from what
        [`pool`] gives and the logits that the classifier has for it.
        """
        return masked_mean(logits, is_valid) if self.pooling is None else self.pooling(columns, logits, is_valid)

    def _select(self, hidden_states: tuple, wanted: bool | int | list[int] | None) -> tuple | None:
        """Selects the hidden states that the caller asked for, by a flag or by indices, as transformers does."""
        wanted = self.config.output_hidden_states if wanted is None else wanted
        if isinstance(wanted, bool) or wanted is None:
            return hidden_states if wanted else None
        wanted, number = [wanted] if isinstance(wanted, int) else wanted, len(hidden_states)
        indices = {index % number for index in wanted if -number <= index < number}
        return tuple(states if index in indices else None for index, states in enumerate(hidden_states))

    def compute_loss(
        self, logits: torch.Tensor, labels: torch.Tensor, counts: torch.Tensor | None = None
    ) -> torch.Tensor:
        """
        Computes the mean loss of `config.problem_type`, at least in float32; unset, it follows from the labels.

        Args:
            logits (`torch.Tensor` of shape `(..., num_labels)`):
                Scores of clips or of time columns.
            labels (`torch.Tensor` of shape `(...)` or `(..., num_labels)`):
                Class indices, or a value for each class; -100 does not count, except in a regression.
            counts (`torch.BoolTensor` of shape `(...)`, *optional*):
                False where nothing counts, such as on padding. By default everything does.

        Raises:
            `ValueError`: if the labels do not fit the problem type.
        """
        logits, labels = at_least_float32(logits), labels.to(logits.device)
        problem_type = self.find_problem_type(logits, labels)
        # Of fixed shapes, without selecting what counts, so that it compiles. Nothing that counts is no NaN but 0.
        logits = logits.flatten(0, -2)
        counts = None if counts is None else counts.to(logits.device).flatten()
        if problem_type == "single_label_classification":
            labels = labels.long().flatten()
            if counts is not None:
                labels = labels.masked_fill(~counts, -100)
            num_counted = (labels != -100).sum().clamp(min=1)
            return self.loss_function(labels, logits, self.config, num_items_in_batch=num_counted)
        labels = labels.to(logits.dtype).view_as(logits)
        is_counted = torch.ones_like(logits, dtype=torch.bool) if counts is None else counts[:, None].expand_as(logits)
        if problem_type == "multi_label_classification":
            is_counted = is_counted & (labels != -100)
        # The loss of these values is 0.
        no_loss = 0.0 if problem_type == "regression" else -1e4
        labels, logits = labels.masked_fill(~is_counted, 0.0), logits.masked_fill(~is_counted, no_loss)
        return self.loss_function(labels, logits, self.config) * (logits.numel() / is_counted.sum().clamp(min=1))

    def find_problem_type(self, logits: torch.Tensor, labels: torch.Tensor) -> str:
        """
        Returns `config.problem_type` or, if it is unset, the one of labels of this shape. Raises a `ValueError` for
        labels that do not fit it.
        """
        indices, values = logits.shape[:-1], logits.shape
        inferred = "multi_label_classification" if labels.shape == values else "single_label_classification"
        problem_type = self.config.problem_type or ("regression" if self.num_labels == 1 else inferred)
        if problem_type == "single_label_classification":
            fits = labels.shape in (indices, (*indices, 1)) and not labels.is_floating_point()
            needed = f"class indices, integers of shape {tuple(indices)}"
        else:
            fits = labels.shape == values or (self.num_labels == 1 and labels.shape == indices)
            needed = f"a value for each class, shape {tuple(values)}"
        if not fits:
            raise ValueError(
                f"`labels` of shape {tuple(labels.shape)} and {labels.dtype} do not fit the `problem_type` "
                f"{problem_type!r}, which needs {needed}. For other labels, set it in `from_pretrained`: "
                "'single_label_classification' for class indices, 'multi_label_classification' for zeros and ones."
            )
        return problem_type


@auto_docstring(
    custom_intro="""
    BEATs with an audio classification head: a linear layer on every patch, averaged over the valid patches (the
    reference's predictor), or on another pooling of them (`config.classifier_pooling`). With a pooling of frames, it
    has the head of [`BeatsForAudioFrameClassification`] and gives the scores of whole clips. Returns logits, where
    Microsoft's code returns their sigmoid.
    """
)
class BeatsForAudioClassification(BeatsClassificationModel):
    _auto_class = "AutoModelForAudioClassification"

    def __init__(self, config: BeatsConfig):
        super().__init__(config)
        if config.pools_frames:
            num_inputs = self.make_frame_head()
        else:
            if config.frame_recurrent_layers:
                raise ValueError(
                    "`frame_recurrent_layers` read frames, and `classifier_pooling` "
                    f"{config.classifier_pooling!r} pools patches: set it to 'frame_mean' or 'frame_attention', or "
                    "`frame_recurrent_layers=0`."
                )
            self.recurrent = None
            self.pooling = POOLINGS[config.classifier_pooling](config) if config.classifier_pooling != "mean" else None
            num_inputs = config.hidden_size if self.pooling is None else self.pooling.num_outputs
        self.classifier = nn.Linear(num_inputs, self.num_labels)

        # Initialize weights and apply final processing
        self.post_init()

    def classify(
        self,
        hidden_states: torch.Tensor,
        patch_attention_mask: torch.Tensor,
        attention_mask: torch.Tensor | None,
        num_frames: int,
    ) -> torch.Tensor:
        """
        Returns logits `(batch_size, num_labels)` of the states of patches `(batch_size, num_patches, hidden_size)` and
        their mask, of clips of so many frames and of the mask of these, None if all are valid.
        """
        if self.config.pools_frames:
            columns, is_valid = self.pool(hidden_states, patch_attention_mask, attention_mask, num_frames)
            return self.pool_frames(columns, self.classifier(columns), is_valid)
        mask = patch_attention_mask if attention_mask is not None else None
        if self.pooling is None:
            return masked_mean(self.classifier(hidden_states), mask)
        return score_pooled(self.pooling(hidden_states, mask), self.classifier)

    @can_return_tuple
    @auto_docstring
    def forward(
        self,
        input_values: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> SequenceClassifierOutput:
        r"""
        input_values (`torch.FloatTensor` of shape `(batch_size, num_frames, num_mel_bins)`):
            Normalised filter banks from [`BeatsFeatureExtractor`].
        attention_mask (`torch.Tensor` of shape `(batch_size, num_frames)`, *optional*):
            1 for frames of audio, 0 for padding.
        labels (`torch.Tensor` of shape `(batch_size,)` or `(batch_size, config.num_labels)`, *optional*):
            Class indices for `problem_type="single_label_classification"` (cross-entropy), zeros and ones or
            probabilities for `"multi_label_classification"` (binary cross-entropy with logits), values for
            `"regression"` (mean squared error). If `problem_type` is unset, one label means regression, class indices
            mean a single class and a value for each class several. -100 does not count, except in a regression.
        """
        check_keywords(self, kwargs)
        num_frames = check_fbank(input_values, attention_mask, self.config, labels=labels).shape[1]
        outputs, hidden_states = self.encode(input_values, attention_mask, **kwargs)
        logits = self.classify(hidden_states, outputs["patch_attention_mask"], attention_mask, num_frames)
        loss = self.compute_loss(logits, labels) if labels is not None else None
        return SequenceClassifierOutput(
            loss=loss, logits=logits, hidden_states=outputs.hidden_states, attentions=outputs.attentions
        )


@auto_docstring(
    custom_intro="""
    BEATs with one prediction for every time column of 160 ms, for sound event detection. The frequency patches of a
    column are averaged or concatenated (`config.frame_pooling`). With `frame_pooling="sequence"`, the sequence of all
    patches is pooled to steps of 40 ms instead (`config.frames_per_second`). `config.frame_recurrent_layers` put a
    bidirectional GRU before the classifier, and a `config.classifier_pooling` of frames adds logits of whole clips.
    """
)
class BeatsForAudioFrameClassification(BeatsClassificationModel):
    _auto_class = "AutoModelForAudioFrameClassification"

    def __init__(self, config: BeatsConfig):
        super().__init__(config)
        self.classifier = nn.Linear(self.make_frame_head(), self.num_labels)

        # Initialize weights and apply final processing
        self.post_init()

    @can_return_tuple
    @auto_docstring
    def forward(
        self,
        input_values: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> BeatsFrameClassifierOutput:
        r"""
        input_values (`torch.FloatTensor` of shape `(batch_size, num_frames, num_mel_bins)`):
            Normalised filter banks from [`BeatsFeatureExtractor`].
        attention_mask (`torch.Tensor` of shape `(batch_size, num_frames)`, *optional*):
            1 for frames of audio, 0 for padding.
        labels (`torch.Tensor` of shape `(batch_size, num_columns, ...)`, *optional*):
            Class indices `(batch_size, num_columns)`, or zeros, ones or probabilities for each class `(batch_size,
            num_columns, config.num_labels)`; -100 does not count, and padded columns never do. `problem_type` is
            treated as in [`BeatsForAudioClassification`].
        """
        check_keywords(self, kwargs)
        num_frames = check_fbank(input_values, attention_mask, self.config, labels=labels).shape[1]
        outputs, hidden_states = self.encode(input_values, attention_mask, **kwargs)
        columns, is_valid = self.pool(hidden_states, outputs["patch_attention_mask"], attention_mask, num_frames)
        logits = self.classifier(columns)

        loss = None
        if labels is not None:
            if labels.shape[:2] != logits.shape[:2]:
                raise ValueError(
                    f"`labels` must begin with (batch_size, num_steps) = {tuple(logits.shape[:2])}, got "
                    f"{tuple(labels.shape)}. A step spans {self.config.frames_per_step} frames."
                )
            loss = self.compute_loss(logits, labels, is_valid)
        return BeatsFrameClassifierOutput(
            loss=loss,
            logits=logits,
            column_attention_mask=is_valid.int(),
            clip_logits=self.pool_frames(columns, logits, is_valid) if self.config.pools_frames else None,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )


__all__ = [
    "BeatsForAudioClassification",
    "BeatsForAudioFrameClassification",
    "BeatsModel",
    "BeatsPreTrainedModel",
]
