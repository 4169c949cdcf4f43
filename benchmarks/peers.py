# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""
What this package is compared with.

"Reference-style" is `transformers_beats.verification.plain`, a plain transcription of the published algorithm. It
takes its weights from a model of ours, so that both compute the same numbers. "avex-style" is the same with PyTorch's
fused attention, as avex (github.com/earthspecies/avex, 7cf81b1) computes it.

The other peers are AST, the model of transformers for the same task with about as many parameters, transformers in the
shapes of CED's small models, and `openbeats` from the package index where that is installed.
"""

import sys
import warnings
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from types import MappingProxyType, ModuleType
from unittest.mock import patch

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from transformers import ASTConfig, ASTFeatureExtractor, ASTForAudioClassification, PreTrainedModel

from transformers_beats import BeatsConfig, BeatsFeatureExtractor, BeatsForAudioClassification, BeatsTokenizerModel
from transformers_beats.conversion.checkpoint import MODEL_CLASSES
from transformers_beats.export.to_microsoft import export_cfg, export_state_dict
from transformers_beats.verification.plain import PlainBeats, plain_features


# How rows name the other model of transformers.
AST = "AST, same precision"
# Settings of AST's encoder that make it CED's (Dinkel et al., 2023, arXiv 2308.11957): 64 mel filters, patches of
# 16 by 16 that do not overlap, and the width and heads of its code (github.com/RicherMans/CED).
_CED = {"num_mel_bins": 64, "frequency_stride": 16, "time_stride": 16}
SHAPES = {
    f"CED-{name}": _CED | {"hidden_size": width, "intermediate_size": 4 * width, "num_attention_heads": width // 64}
    for name, width in {"tiny": 192, "mini": 256, "small": 384}.items()
}
# Mean average precision on AudioSet's evaluation set, of one model: Chen et al., 2023, table 1 (iter3+); Gong et al.,
# 2021, arXiv 2104.01778; the table of CED's repository.
PUBLISHED_MAP = {"ours": 48.6, "AST": 45.9, "CED-tiny": 48.1, "CED-mini": 49.0, "CED-small": 49.6}


def reference_style(model: PreTrainedModel, style: type[PlainBeats] = PlainBeats) -> PlainBeats:
    """The plain implementation, or another style of it, with the weights of an encoder, classifier or tokenizer."""
    kind = next(kind for kind, model_class in MODEL_CLASSES.items() if type(model) is model_class)
    return style(export_cfg(model.config, kind), export_state_dict(model.state_dict(), model.config))


class AvexStyleBeats(PlainBeats):
    """
    The plain implementation with fused attention: one table of the position bias for all clips, which each layer gates
    into the mask of `scaled_dot_product_attention`.
    """

    def position_bias(self, length: int, batch_size: int) -> torch.Tensor:
        """Returns the bias by relative position, `(batch_size, num_heads, length, length)`, in the memory of one."""
        return super().position_bias(length, 1).unsqueeze(0).expand(batch_size, -1, -1, -1)

    def attention(
        self, name: str, hidden_states: torch.Tensor, position_bias: torch.Tensor, padding_mask: torch.Tensor | None
    ) -> torch.Tensor:
        query, key, value = (
            self._linear(f"{name}.{part}_proj", hidden_states)
            .unflatten(-1, (self.cfg["encoder_attention_heads"], -1))
            .permute(1, 2, 0, 3)
            for part in "qkv"
        )
        mask = self.gate(name, query) * position_bias
        if padding_mask is not None:
            mask = mask.masked_fill(padding_mask[:, None, None, :], float("-inf"))
        output = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        return self._linear(f"{name}.out_proj", output.permute(2, 0, 1, 3).flatten(2))


def reference_style_classifier(model: BeatsForAudioClassification) -> Callable[[list[torch.Tensor]], torch.Tensor]:
    """Waveforms of the same length to probabilities `(batch_size, num_labels)`."""
    plain = reference_style(model)
    return lambda waveforms: plain.classify(plain.encode(plain_features(waveforms)))


def reference_style_tokenizer(model: BeatsTokenizerModel) -> Callable[[torch.Tensor], torch.Tensor]:
    """Normalised fbanks to codes `(batch_size, num_patches)`."""
    plain = reference_style(model)
    return lambda input_values: plain.quantize(plain.encode(input_values))


class AudioSpectrogramTransformer:
    """
    AST of transformers in its default size with random weights, for clips of a length, with its own feature extractor:
    waveforms to probabilities. Its default of 1,024 frames is for 10 s; other lengths have frames in proportion.
    `shape` has settings of its configuration, such as one of `SHAPES`.
    """

    def __init__(
        self,
        seconds: float,
        num_labels: int,
        num_layers: int,
        device: str,
        dtype: torch.dtype,
        shape: Mapping[str, int] = MappingProxyType({}),
    ):
        max_length = max(16, round(102.4 * seconds))
        with warnings.catch_warnings():
            # Some of the 128 filters are empty, as in Kaldi.
            warnings.filterwarnings("ignore", "At least one mel filter", UserWarning)
            self.extractor = ASTFeatureExtractor(max_length=max_length, num_mel_bins=shape.get("num_mel_bins", 128))
        config = ASTConfig(
            **shape,  # ty: ignore[invalid-argument-type]
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
