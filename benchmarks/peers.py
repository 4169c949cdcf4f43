# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""
What this package is compared with.

"Reference-style" is `transformers_beats.verification.plain`, a plain transcription of the published algorithm. It
takes its weights from a model of ours, so that both compute the same numbers.

The other peers are AST, the model of transformers for the same task with about as many parameters, and `openbeats`
from the package index where that is installed.
"""

import sys
import warnings
from collections.abc import Callable
from importlib.util import find_spec
from types import ModuleType
from unittest.mock import patch

import numpy as np
import torch
from torch import nn
from transformers import ASTConfig, ASTFeatureExtractor, ASTForAudioClassification, PreTrainedModel

from transformers_beats import BeatsConfig, BeatsFeatureExtractor, BeatsForAudioClassification, BeatsTokenizerModel
from transformers_beats.conversion.checkpoint import MODEL_CLASSES
from transformers_beats.export.to_microsoft import export_cfg, export_state_dict
from transformers_beats.verification.plain import PlainBeats, plain_features


# How rows name the other model of transformers.
AST = "AST, same precision"


def reference_style(model: PreTrainedModel) -> PlainBeats:
    """The plain implementation with the weights of an encoder, classifier or tokenizer of ours."""
    kind = next(kind for kind, model_class in MODEL_CLASSES.items() if type(model) is model_class)
    return PlainBeats(export_cfg(model.config, kind), export_state_dict(model.state_dict(), model.config))


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
