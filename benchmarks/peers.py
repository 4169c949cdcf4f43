# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""
What this package is compared with.

"Reference-style" is a plain transcription of the published algorithm (Chen et al., 2023, arXiv 2212.09058), in the way
that published implementations share: clips go one by one through the front end, the position bias of each pair of
patches is looked up and kept for each clip and head, every layer gates it into a tensor of its own, attention is
written out in float32. It is slow on purpose in nothing: it is only the straightforward way. It covers the released
architecture (post-norm with DeepNorm, GELU, gated relative positions) and evaluation, not training, and takes its
weights from a model of ours, so that both compute the same numbers.

The other peers are AST, the model of transformers for the same task with about as many parameters, and `openbeats`
from the package index where that is installed.
"""

import math
import sys
import warnings
from importlib.util import find_spec
from types import ModuleType
from unittest.mock import patch

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from transformers import ASTConfig, ASTFeatureExtractor, ASTForAudioClassification

from transformers_beats import (
    BeatsConfig,
    BeatsFeatureExtractor,
    BeatsForAudioClassification,
    BeatsModel,
    BeatsTokenizerModel,
)


# How rows name the other model of transformers.
AST = "AST, same precision"


def reference_fbank(waveform: torch.Tensor) -> torch.Tensor:
    """Kaldi's log mel filter bank `(num_frames, 128)` of one clip `(num_samples,)` at 16 kHz, full scale at 1.0."""
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


def reference_features(waveforms: list[torch.Tensor], mean: float = 15.41663, std: float = 6.55582) -> torch.Tensor:
    """Normalised fbanks `(batch_size, num_frames, 128)` of clips of the same length, one clip at a time."""
    fbanks = [reference_fbank(waveform) for waveform in waveforms]
    return (torch.stack(fbanks) - mean) / (2 * std)


class ReferenceStyleEncoder:
    """The encoder with the weights of a [`BeatsModel`]: `(batch_size, num_frames, 128)` to states of all patches."""

    def __init__(self, model: BeatsModel):
        config = model.config
        if config.layer_norm_first or not config.deep_norm or config.hidden_act != "gelu" or not config.gru_rel_pos:
            raise ValueError("The reference-style encoder knows the architecture of the released models only.")
        self.config = config
        self.weights = {name: tensor.detach().float() for name, tensor in model.state_dict().items()}

    def _linear(self, name: str, hidden_states: torch.Tensor) -> torch.Tensor:
        return F.linear(hidden_states, self.weights[f"{name}.weight"], self.weights[f"{name}.bias"])

    def _layer_norm(self, name: str, hidden_states: torch.Tensor) -> torch.Tensor:
        weight, bias = self.weights[f"{name}.weight"], self.weights[f"{name}.bias"]
        return F.layer_norm(hidden_states, weight.shape, weight, bias, self.config.layer_norm_eps)

    def __call__(self, input_values: torch.Tensor, padding_mask: torch.Tensor | None = None) -> torch.Tensor:
        """
        Args:
            input_values (`torch.Tensor` of shape `(batch_size, num_frames, 128)`):
                Normalised fbanks.
            padding_mask (`torch.BoolTensor` of shape `(batch_size, num_patches)`, *optional*):
                True for patches that are padding.

        Returns:
            `torch.Tensor` of shape `(batch_size, num_patches, hidden_size)`, float32.
        """
        weight = self.weights["embeddings.patch_embeddings.projection.weight"]
        bias = self.weights.get("embeddings.patch_embeddings.projection.bias")
        patches = F.conv2d(input_values.float().unsqueeze(1), weight, bias, stride=self.config.patch_size)
        hidden_states = self._layer_norm("embeddings.layer_norm", patches.flatten(2).transpose(1, 2))
        if "embeddings.projection.weight" in self.weights:
            hidden_states = self._linear("embeddings.projection", hidden_states)
        if padding_mask is not None:
            hidden_states = hidden_states.masked_fill(padding_mask.unsqueeze(-1), 0.0)
        hidden_states = hidden_states + self.position_convolution(hidden_states)
        hidden_states = self._layer_norm("encoder.layer_norm", hidden_states)

        hidden_states = hidden_states.transpose(0, 1)
        position_bias = self.position_bias(len(hidden_states), input_values.shape[0], input_values.device)
        for index in range(self.config.num_hidden_layers):
            hidden_states = self._layer(f"encoder.layers.{index}", hidden_states, position_bias, padding_mask)
        return hidden_states.transpose(0, 1)

    def position_convolution(self, hidden_states: torch.Tensor) -> torch.Tensor:
        name, length = "encoder.pos_conv_embed.conv", hidden_states.shape[1]
        norm = self.weights[f"{name}.parametrizations.weight.original0"]
        direction = self.weights[f"{name}.parametrizations.weight.original1"]
        # In each call, by the function that PyTorch's weight norm itself calls.
        weight = torch._weight_norm(direction, norm, 2)
        padding, groups = weight.shape[2] // 2, self.config.num_conv_pos_embedding_groups
        output = F.conv1d(
            hidden_states.transpose(1, 2), weight, self.weights[f"{name}.bias"], padding=padding, groups=groups
        )
        return F.gelu(output[..., :length]).transpose(1, 2)

    def position_bias(self, length: int, batch_size: int, device: torch.device) -> torch.Tensor:
        """`(batch_size * num_heads, length, length)`."""
        index = torch.arange(length, device=device)
        relative = index.unsqueeze(0) - index.unsqueeze(1)
        num_buckets = self.config.num_buckets // 2
        num_exact = num_buckets // 2
        distance = relative.abs()
        scale = (num_buckets - num_exact) / math.log(self.config.max_bucket_distance / num_exact)
        coarse = num_exact + (torch.log(distance.clamp(min=1).float() / num_exact) * scale).long()
        bucket = torch.where(distance < num_exact, distance, coarse.clamp(max=num_buckets - 1))
        bucket = bucket + (relative > 0).long() * num_buckets
        values = F.embedding(bucket, self.weights["encoder.relative_position.relative_attention_bias.weight"])
        return values.permute(2, 0, 1).unsqueeze(0).repeat(batch_size, 1, 1, 1).view(-1, length, length)

    def _layer(
        self, name: str, hidden_states: torch.Tensor, position_bias: torch.Tensor, padding_mask: torch.Tensor | None
    ) -> torch.Tensor:
        residual_scale = (2 * self.config.num_hidden_layers) ** 0.25
        attended = self.attention(f"{name}.self_attn", hidden_states, position_bias, padding_mask)
        hidden_states = self._layer_norm(f"{name}.self_attn_layer_norm", hidden_states * residual_scale + attended)
        output = self._linear(f"{name}.mlp.fc2", F.gelu(self._linear(f"{name}.mlp.fc1", hidden_states)))
        return self._layer_norm(f"{name}.final_layer_norm", hidden_states * residual_scale + output)

    def attention(
        self, name: str, hidden_states: torch.Tensor, position_bias: torch.Tensor, padding_mask: torch.Tensor | None
    ) -> torch.Tensor:
        """Of states `(length, batch_size, hidden_size)`."""
        length, batch_size, hidden_size = hidden_states.shape
        num_heads = self.config.num_attention_heads
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

        gates = self._linear(f"{name}.gru_rel_pos_linear", query.reshape(batch_size, num_heads, length, head_dim))
        gate_a, gate_b = gates.view(batch_size, num_heads, length, 2, 4).sum(-1).sigmoid().chunk(2, dim=-1)
        gate = gate_a * (gate_b * self.weights[f"{name}.gru_rel_pos_const"] - 1.0) + 2.0
        scores = scores + gate.view(-1, length, 1) * position_bias

        output = torch.bmm(F.softmax(scores, dim=-1), value)
        output = output.transpose(0, 1).contiguous().view(length, batch_size, hidden_size)
        return self._linear(f"{name}.out_proj", output)


class ReferenceStyleTokenizer:
    """The codes `(batch_size, num_patches)` of a [`BeatsTokenizerModel`]: distances to all codes, written out."""

    def __init__(self, model: BeatsTokenizerModel):
        self.encoder = ReferenceStyleEncoder(model.beats)
        self.projection = model.projection
        self.codebook = model.quantizer.codebook

    def __call__(self, input_values: torch.Tensor) -> torch.Tensor:
        states = F.normalize(self.projection(self.encoder(input_values)), dim=-1)
        squares = states.pow(2).sum(dim=-1, keepdim=True) + self.codebook.pow(2).sum(dim=-1)
        return (squares - 2 * states @ self.codebook.T).argmin(dim=-1)


class ReferenceStyleClassifier:
    """Waveforms of the same length to probabilities `(batch_size, num_labels)`, with a classifier's weights."""

    def __init__(self, model: BeatsForAudioClassification):
        self.encoder = ReferenceStyleEncoder(model.beats)
        self.classifier = model.classifier

    def __call__(self, waveforms: list[torch.Tensor]) -> torch.Tensor:
        return self.classifier(self.encoder(reference_features(waveforms))).mean(dim=1).sigmoid()


class AudioSpectrogramTransformer:
    """
    AST of transformers in its default size with random weights, for clips of a length, with its own feature extractor:
    waveforms to probabilities. Its default of 1,024 frames is for 10 s; other lengths have frames in proportion.
    """

    def __init__(self, seconds: float, num_labels: int, num_layers: int, device: str, dtype: torch.dtype):
        max_length = max(16, round(102.4 * seconds))
        with warnings.catch_warnings():
            # Some of the 128 filters are empty, as in Kaldi.
            warnings.filterwarnings("ignore", "At least one mel filter", UserWarning)
            self.extractor = ASTFeatureExtractor(max_length=max_length)
        config = ASTConfig(
            max_length=max_length,
            num_hidden_layers=num_layers,
            num_labels=num_labels,  # ty: ignore[unknown-argument]
            problem_type="multi_label_classification",
        )
        torch.manual_seed(0)
        self.model = ASTForAudioClassification(config).to(device, dtype).eval()

    def features(self, waveforms: list[np.ndarray]) -> torch.Tensor:
        inputs = self.extractor(waveforms, sampling_rate=16000, return_tensors="pt")["input_values"]
        return inputs.to(self.model.device, self.model.dtype)

    def __call__(self, waveforms: list[np.ndarray]) -> torch.Tensor:
        return self.model(self.features(waveforms)).logits.sigmoid()


def openbeats_encoder(config: BeatsConfig, use_flash_attn: bool = False) -> nn.Module | None:
    """
    The encoder of the package `openbeats`, with random weights, or None where it is not installed. Called with
    filter banks that are not normalised, `encoder(fbank, lengths, waveform_input=False)`, it is what `BeatsModel` is.

    Its front end needs torchaudio, which not every PyTorch has, and is left out of the comparison; so the import of
    torchaudio is answered with an empty module if there is none.
    """
    if find_spec("openbeats") is None:
        return None
    names = ("torchaudio", "torchaudio.compliance", "torchaudio.compliance.kaldi")
    stand_ins = {} if find_spec("torchaudio") else {name: ModuleType(name) for name in names}
    with patch.dict(sys.modules, stand_ins):
        from openbeats.beats_encoder import BeatsEncoder  # ty: ignore[import-not-found]

    settings = {
        "encoder_layers": config.num_hidden_layers,
        "deep_norm": True,
        "relative_position_embedding": True,
        "gru_rel_pos": True,
        "max_distance": config.max_bucket_distance,
        "dropout": 0.0,
        "attention_dropout": 0.0,
        "use_flash_attn": use_flash_attn,
    }
    # In its own code, now and whenever it is called.
    warnings.filterwarnings("ignore", ".*(weight_norm|autocast).* is deprecated", FutureWarning)
    torch.manual_seed(0)
    return BeatsEncoder(input_size=0, beats_config=settings).eval()


def denormalize(input_values: torch.Tensor, extractor: BeatsFeatureExtractor) -> torch.Tensor:
    """The filter banks before normalisation, as `openbeats` takes them."""
    return input_values * (2 * extractor.fbank_std) + extractor.fbank_mean
