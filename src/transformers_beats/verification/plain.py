# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""
Plain implementation of the published equations (Chen et al., 2023, arXiv 2212.09058) on the tensors of a checkpoint in
Microsoft's layout. It shares no code with the models, the feature extractor and the conversion of this package, so
that a mistake there is found by comparison.

It is written in the way that published implementations share: clips go one by one through the front end, the position
bias of each pair of patches is looked up and kept for each clip and head, every layer gates it into a tensor of its
own, attention is written out in float32. It is slow on purpose in nothing, and is therefore also what the benchmarks
compare with. It covers the released architecture (post-norm with DeepNorm, GELU, gated relative positions) and
evaluation, not training.
"""

import math
import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional as F

from transformers_beats.utils.errors import BeatsError, first_line, name_some


# Settings of every released model.
RELEASED = {"layer_norm_first": False, "deep_norm": True, "activation_fn": "gelu"}
RELEASED |= {"relative_position_embedding": True, "gru_rel_pos": True}
# Of AudioSet: Microsoft's code has them for every model.
FBANK_MEAN, FBANK_STD = 15.41663, 6.55582


class LayoutError(BeatsError):
    """File in another layout than Microsoft's, which the plain implementation does not read."""


class _Parts(dict[str, Any]):
    """Tensors or settings of a file by Microsoft's names."""

    def __missing__(self, name: str) -> Any:
        raise LayoutError(f"the file is not in Microsoft's layout: it has no `{name}`.")


def plain_fbank(waveform: torch.Tensor) -> torch.Tensor:
    """Returns Kaldi's log mel filter bank `(num_frames, 128)` of a clip `(num_samples,)` at 16 kHz, within [-1, 1]."""
    device = waveform.device
    frames = (waveform * 2**15).unfold(0, 400, 160)
    frames = frames - frames.mean(dim=1, keepdim=True)
    previous = F.pad(frames.unsqueeze(0), (1, 0), mode="replicate").squeeze(0)[:, :-1]
    window = torch.hann_window(400, periodic=False, device=device) ** 0.85
    frames = F.pad((frames - 0.97 * previous) * window, (0, 512 - 400))
    power = torch.fft.rfft(frames).abs() ** 2

    low, high = (1127 * math.log(1 + hertz / 700) for hertz in (20, 8000))
    edges = torch.linspace(low, high, 130, device=device).unsqueeze(1)
    mel = 1127 * torch.log(1 + torch.arange(256, device=device) * (16000 / 512) / 700)
    rising = (mel - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - mel) / (edges[2:] - edges[1:-1])
    filters = F.pad(torch.minimum(rising, falling).clamp(min=0), (0, 1))
    return (power @ filters.T).clamp(min=torch.finfo(torch.float32).eps).log()


def plain_features(
    waveforms: Sequence[torch.Tensor], mean: float = FBANK_MEAN, std: float = FBANK_STD
) -> torch.Tensor:
    """Returns normalised fbanks `(batch_size, num_frames, 128)` of clips of one length, computed one at a time."""
    return (torch.stack([plain_fbank(waveform) for waveform in waveforms]) - mean) / (2 * std)


def read_file(path: str | Path) -> dict[str, Any]:
    """
    Reads a file `{"cfg": ..., "model": ...}`, a classifier's with a `label_dict`; nothing in it is executed. Raises a
    [`LayoutError`] for a file of another kind, which `convert` may read.
    """
    try:
        contents = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError) as error:
        raise LayoutError(f"the file is not in Microsoft's layout: PyTorch says {first_line(error)}") from error
    if not all(isinstance(contents, Mapping) and isinstance(contents.get(key), Mapping) for key in ("cfg", "model")):
        found = name_some(list(contents)) if isinstance(contents, Mapping) else type(contents).__name__
        raise LayoutError(f"the file is not in Microsoft's layout: expected `cfg` and `model`, found {found}.")
    return contents


class PlainBeats:
    """
    BEATs encoder, classifier or tokenizer of a file of [`read_file`].

    Args:
        cfg (`Mapping[str, Any]`):
            Settings under Microsoft's names.
        tensors (`Mapping[str, torch.Tensor]`):
            Weights under Microsoft's names; computed with in float32, where they are.

    Raises:
        [`BeatsError`]: if the architecture is not that of the released models; [`LayoutError`], also by the methods,
            if a setting or a tensor is not there.
    """

    def __init__(self, cfg: Mapping[str, Any], tensors: Mapping[str, torch.Tensor]):
        if other := [f"{name}={cfg.get(name)!r}" for name, value in RELEASED.items() if cfg.get(name) != value]:
            raise BeatsError(f"The plain implementation knows the released architecture only, not {', '.join(other)}.")
        self.cfg = _Parts(cfg)
        self.weights = _Parts({name: tensor.detach().float() for name, tensor in tensors.items()})
        # Weight norm over the kernel's positions.
        direction = self.weights["encoder.pos_conv.0.weight_v"]
        norm = direction.norm(dim=(0, 1), keepdim=True)
        self.kernel = self.weights["encoder.pos_conv.0.weight_g"] * direction / norm

    def encode(self, input_values: torch.Tensor, padding_mask: torch.Tensor | None = None) -> torch.Tensor:
        """
        Args:
            input_values (`torch.Tensor` of shape `(batch_size, num_frames, 128)`):
                Normalised fbanks.
            padding_mask (`torch.BoolTensor` of shape `(batch_size, num_patches)`, *optional*):
                True for patches that are padding.

        Returns:
            `torch.Tensor` of shape `(batch_size, num_patches, hidden_size)`: states of the last layer, float32.
        """
        weight, bias = self.weights["patch_embedding.weight"], self.weights.get("patch_embedding.bias")
        patches = F.conv2d(input_values.float().unsqueeze(1), weight, bias, stride=self.cfg["input_patch_size"])
        hidden_states = self._layer_norm("layer_norm", patches.flatten(2).transpose(1, 2))
        if "post_extract_proj.weight" in self.weights:
            hidden_states = self._linear("post_extract_proj", hidden_states)
        if padding_mask is not None:
            hidden_states = hidden_states.masked_fill(padding_mask.unsqueeze(-1), 0.0)
        hidden_states = hidden_states + self.position_convolution(hidden_states)
        hidden_states = self._layer_norm("encoder.layer_norm", hidden_states)

        hidden_states = hidden_states.transpose(0, 1)
        position_bias = self.position_bias(len(hidden_states), input_values.shape[0])
        for index in range(self.cfg["encoder_layers"]):
            hidden_states = self._layer(f"encoder.layers.{index}", hidden_states, position_bias, padding_mask)
        return hidden_states.transpose(0, 1)

    def classify(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """Returns the probabilities `(batch_size, num_labels)` for states of [`~PlainBeats.encode`]."""
        return self._linear("predictor", hidden_states).mean(dim=1).sigmoid()

    def quantize(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """Returns the codes `(batch_size, num_patches)` of states: distances to all codes, written out."""
        states = torch.tanh(self._linear("quantize_layer.0", hidden_states))
        states = F.normalize(self._linear("quantize_layer.2", states), dim=-1)
        codebook = self.weights["quantize.embedding.weight"]
        squares = states.pow(2).sum(dim=-1, keepdim=True) + codebook.pow(2).sum(dim=-1)
        return (squares - 2 * states @ codebook.T).argmin(dim=-1)

    def position_convolution(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """Returns what is added to states `(batch_size, num_patches, hidden_size)` for their positions."""
        bias, groups = self.weights["encoder.pos_conv.0.bias"], self.cfg["conv_pos_groups"]
        padding = self.kernel.shape[2] // 2
        output = F.conv1d(hidden_states.transpose(1, 2), self.kernel, bias, padding=padding, groups=groups)
        # An even kernel has one output too many.
        return F.gelu(output[..., : hidden_states.shape[1]]).transpose(1, 2)

    def position_bias(self, length: int, batch_size: int) -> torch.Tensor:
        """Returns the bias by relative position, `(batch_size * num_heads, length, length)`: logarithmic buckets."""
        table = self.weights["encoder.layers.0.self_attn.relative_attention_bias.weight"]
        index = torch.arange(length, device=table.device)
        relative = index.unsqueeze(0) - index.unsqueeze(1)
        num_buckets = self.cfg["num_buckets"] // 2
        num_exact = num_buckets // 2
        distance = relative.abs()
        scale = (num_buckets - num_exact) / math.log(self.cfg["max_distance"] / num_exact)
        coarse = num_exact + (torch.log(distance.clamp(min=1).float() / num_exact) * scale).long()
        bucket = torch.where(distance < num_exact, distance, coarse.clamp(max=num_buckets - 1))
        bucket = bucket + (relative > 0).long() * num_buckets
        values = F.embedding(bucket, table).permute(2, 0, 1)
        return values.unsqueeze(0).repeat(batch_size, 1, 1, 1).view(-1, length, length)

    def gate(self, name: str, query: torch.Tensor) -> torch.Tensor:
        """
        Returns the factor `(batch_size, num_heads, length, 1)` of the position bias in the attention `name`, for
        queries `(batch_size, num_heads, length, head_dim)` before they are scaled.
        """
        gates = self._linear(f"{name}.grep_linear", query)
        gate_a, gate_b = gates.unflatten(-1, (2, 4)).sum(-1).sigmoid().chunk(2, dim=-1)
        return gate_a * (gate_b * self.weights[f"{name}.grep_a"] - 1.0) + 2.0

    def attention(
        self, name: str, hidden_states: torch.Tensor, position_bias: torch.Tensor, padding_mask: torch.Tensor | None
    ) -> torch.Tensor:
        """Returns the output `(length, batch_size, hidden_size)` of the attention `name` to states of that shape."""
        length, batch_size, hidden_size = hidden_states.shape
        num_heads = self.cfg["encoder_attention_heads"]
        head_dim = hidden_size // num_heads
        query, key, value = (
            self._linear(f"{name}.{part}_proj", hidden_states)
            .contiguous()
            .view(length, batch_size * num_heads, head_dim)
            .transpose(0, 1)
            for part in "qkv"
        )
        scores = torch.bmm(query * head_dim**-0.5, key.transpose(1, 2))
        if padding_mask is not None:
            scores = scores.view(batch_size, num_heads, length, length)
            scores = scores.masked_fill(padding_mask[:, None, None, :], float("-inf")).view(-1, length, length)

        gate = self.gate(name, query.reshape(batch_size, num_heads, length, head_dim))
        scores = scores + gate.view(-1, length, 1) * position_bias

        output = torch.bmm(F.softmax(scores, dim=-1), value)
        output = output.transpose(0, 1).contiguous().view(length, batch_size, hidden_size)
        return self._linear(f"{name}.out_proj", output)

    def _layer(
        self, name: str, hidden_states: torch.Tensor, position_bias: torch.Tensor, padding_mask: torch.Tensor | None
    ) -> torch.Tensor:
        residual_scale = (2 * self.cfg["encoder_layers"]) ** 0.25
        attended = self.attention(f"{name}.self_attn", hidden_states, position_bias, padding_mask)
        hidden_states = self._layer_norm(f"{name}.self_attn_layer_norm", hidden_states * residual_scale + attended)
        output = self._linear(f"{name}.fc2", F.gelu(self._linear(f"{name}.fc1", hidden_states)))
        return self._layer_norm(f"{name}.final_layer_norm", hidden_states * residual_scale + output)

    def _linear(self, name: str, hidden_states: torch.Tensor) -> torch.Tensor:
        return F.linear(hidden_states, self.weights[f"{name}.weight"], self.weights[f"{name}.bias"])

    def _layer_norm(self, name: str, hidden_states: torch.Tensor) -> torch.Tensor:
        weight, bias = self.weights[f"{name}.weight"], self.weights[f"{name}.bias"]
        return F.layer_norm(hidden_states, weight.shape, weight, bias, eps=1e-5)
