# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""What to measure, and the models and inputs for it. Models have random weights in the size of the released ones."""

import copy
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional as F
from transformers import PreTrainedModel

from benchmarks.measuring import Call, best_matrix_product, time_alternately
from transformers_beats import (
    BeatsConfig,
    BeatsFeatureExtractor,
    BeatsForAudioClassification,
    BeatsTokenizerConfig,
    BeatsTokenizerModel,
)
from transformers_beats.audio.synthesis import CLASSES, synthesize


SAMPLING_RATE = 16000
NUM_LABELS = 527
# The dtype of the matrix products. "bf16" and "fp16" have weights in it, "autocast" leaves them in float32.
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16, "autocast": torch.bfloat16}
# The layers are those of the options: 12 are base, and 24 large, as OpenBEATs has it.
SIZES = {"base": {}, "large": {"hidden_size": 1024, "intermediate_size": 4096, "num_attention_heads": 16}}
MAX_GRAPHS = 256
# What `set_attn_implementation` calls each.
ATTENTION = {"eager": "eager", "sdpa": "sdpa", "flex": "flex_attention", "compiled": "sdpa"}


@dataclass(frozen=True)
class Options:
    """
    What to measure.

    Args:
        sizes (`tuple[tuple[int, float], ...]`):
            Clips in a batch and their length in seconds, for inference.
        training_sizes (`tuple[tuple[int, float], ...]`):
            The same for steps of training.
        precisions (`tuple[str, ...]`):
            Keys of `DTYPES`. A step of training in bf16 is one under autocast.
        implementations (`tuple[str, ...]`):
            Keys of `ATTENTION`.
        repeats (`int`):
            Timed turns of each call.
        layers (`int`):
            Layers of every model; the released ones and AST have 12.
        device (`str`):
            `"cpu"` or `"cuda"`.
        size (`str`, defaults to `"base"`):
            A key of `SIZES`, the width of pre-trained models.
    """

    sizes: tuple[tuple[int, float], ...]
    training_sizes: tuple[tuple[int, float], ...]
    precisions: tuple[str, ...]
    implementations: tuple[str, ...]
    repeats: int
    layers: int
    device: str
    size: str = "base"

    @property
    def autocasts(self) -> list[bool]:
        """Precisions of training: whether it is under autocast."""
        return sorted({precision != "fp32" for precision in self.precisions})

    @property
    def fast_implementations(self) -> list[str]:
        """Without the eager one, which only `encoder` looks at, unless no other was asked for."""
        return [name for name in self.implementations if name != "eager"] or ["eager"]


def make_clips(batch_size: int, seconds: float) -> list[np.ndarray]:
    """Different synthesised sounds of the same length."""
    generator = np.random.default_rng(0)
    return [synthesize(CLASSES[index % len(CLASSES)], generator, seconds) for index in range(batch_size)]


def make_features(batch_size: int, seconds: float, device: str) -> torch.Tensor:
    """Normalised fbanks of clips, `(batch_size, num_frames, 128)`."""
    extractor, clips = BeatsFeatureExtractor(), make_clips(batch_size, seconds)
    return extractor(clips, sampling_rate=SAMPLING_RATE, return_tensors="pt", device=device)["input_values"]


def build_classifier(layers: int, device: str) -> BeatsForAudioClassification:
    """A classifier of AudioSet's classes with random weights."""
    torch.manual_seed(0)
    config = BeatsConfig(num_hidden_layers=layers, num_labels=NUM_LABELS, problem_type="multi_label_classification")
    return BeatsForAudioClassification(config).to(device).eval()


def build_tokenizer(options: Options) -> BeatsTokenizerModel:
    torch.manual_seed(0)
    model = BeatsTokenizerModel(BeatsTokenizerConfig(num_hidden_layers=options.layers))
    model.quantizer.codebook.copy_(F.normalize(torch.randn_like(model.quantizer.codebook), dim=-1))
    model.quantizer.is_initialized.fill_(1)
    return model.to(options.device).eval()


def build_variants(
    model: PreTrainedModel, options: Options, implementations: list[str] | tuple[str, ...]
) -> dict[tuple[str, str], Callable]:
    """The model in each precision and implementation, as functions that compute without gradients."""
    variants = {}
    for precision in options.precisions:
        for implementation in implementations:
            variant = copy.deepcopy(model)
            variant.set_attn_implementation(ATTENTION[implementation])
            if precision != "autocast":
                variant = variant.to(DTYPES[precision])
            if implementation == "compiled":
                # By default, all models together get eight graphs: after that, they would silently not be compiled.
                torch._dynamo.config.recompile_limit = MAX_GRAPHS
                variant.compile()
            variants[precision, implementation] = computing(variant, precision, options.device)
    return variants


def computing(function: Callable, precision: str, device: str) -> Callable:
    """The function without gradients, under autocast where the precision says so."""

    @torch.inference_mode()
    def compute(*args, **kwargs):
        with torch.autocast(device, torch.bfloat16, enabled=precision == "autocast"):
            return function(*args, **kwargs)

    return compute


def measure(calls: dict[str, Call], options: Options) -> tuple[dict[str, float], dict[str, float]]:
    """
    Median seconds of each call, and the operations in a second of matrix products in each precision: the larger of
    their best in this run and their median in turns with the calls.
    """
    products = {name: best_matrix_product(DTYPES[name], options.device) for name in options.precisions}
    turns = {f"product in {name}": product.call for name, product in products.items()}
    times = time_alternately(calls | turns, options.repeats, options.device)
    rates = {
        name: max(product.rate, product.operations / times[f"product in {name}"]) for name, product in products.items()
    }
    return times, rates
