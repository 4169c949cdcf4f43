# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Tokenizers whose codes are clusters of a model's outputs, as HuBERT's (Hsu et al., 2021)."""

from collections.abc import Iterable
from typing import Any, cast

import numpy as np
import torch
from torch import nn

from transformers_beats.configuration_beats import BeatsTokenizerConfig
from transformers_beats.modeling_beats import BeatsModel
from transformers_beats.modeling_beats_tokenizer import BeatsTokenizerModel
from transformers_beats.training.config.distillation import architecture_of
from transformers_beats.training.reports.codes import fit_k_means, perplexity
from transformers_beats.utils.errors import BeatsError

from .pretraining import CodebookCollapseError


# Patches to learn the means from, of each code; more hardly move them.
PATCHES_PER_CODE = 256
# Patches of a clip are alike, so many clips give a few each.
PATCHES_PER_CLIP = 64
# Inputs of the projection's tanh are so small that it is linear: its relative error is a third of their square.
LINEAR_SCALE = 1e-3


def count_draws(num_clips: int, codebook_size: int) -> tuple[int, int]:
    """Returns the number of clips that k-means reads, and that of the patches it draws from each, at most."""
    wanted = PATCHES_PER_CODE * codebook_size
    count = min(num_clips, -(-wanted // PATCHES_PER_CLIP))
    return count, -(-wanted // count)


def draw_patches(states: Iterable[np.ndarray], per_clip: int, seed: int) -> np.ndarray:
    """Draws at most `per_clip` rows of each clip's outputs `(num_patches, dim)`, and joins them, float32."""
    generator = np.random.default_rng(seed)
    drawn = []
    for values in states:
        chosen = generator.permutation(len(values))[:per_clip]
        drawn.append(values[chosen].astype(np.float32))
    return np.concatenate(drawn)


def build_k_means_tokenizer(
    encoder: BeatsModel, states: np.ndarray, codebook_size: int, seed: int, min_perplexity: float = 1.0
) -> BeatsTokenizerModel:
    """
    Builds a [`BeatsTokenizerModel`] whose code of a patch is the mean that is nearest to the encoder's last hidden
    state, in Euclidean distance.

    Its encoder is the given one. Projection and codebook are set so that the largest product on the unit sphere, by
    which every tokenizer of the paper looks up its codes, is that of the nearest mean `c`: a state `x` becomes `(x, 1,
    0)` and a code `(c, -|c|^2 / 2, s)`, where `s` brings all codes to one length; the product is `x c - |c|^2 / 2`.

    Args:
        encoder (`BeatsModel`):
            Model whose outputs are clustered.
        states (`np.ndarray` of shape `(num_patches, hidden_size)`):
            Outputs to learn the means from.
        codebook_size (`int`):
            Number of means.
        seed (`int`):
            Random seed of k-means.
        min_perplexity (`float`, *optional*, defaults to 1.0):
            Least perplexity of the patches' codes.

    Raises:
        [`BeatsError`]: if there are fewer patches than codes, or outputs that are no numbers.
        [`CodebookCollapseError`]: if the perplexity of the clusters is below `min_perplexity`.
    """
    if not np.isfinite(states).all():
        raise BeatsError("The teacher's outputs hold values that are no numbers: it cannot be clustered.")
    if len(states) < codebook_size:
        raise BeatsError(
            f"k-means needs at least as many patches as codes, got {len(states)} for a codebook of {codebook_size}: "
            "take more audio, or a smaller `model_config.codebook_size`."
        )
    clusters = fit_k_means(states, codebook_size, seed)
    found = perplexity(clusters.labels_, codebook_size)
    if found < min_perplexity:
        raise CodebookCollapseError(
            f"The perplexity of the clusters is {found:.2f} of {codebook_size}, below `min_perplexity` "
            f"{min_perplexity:g}: the teacher's outputs are next to the same for all patches."
        )
    dim = encoder.config.hidden_size
    own: dict[str, Any] = {"num_codebooks": 1, "codebook_size": codebook_size, "codebook_dim": dim + 2}
    tokenizer = BeatsTokenizerModel(BeatsTokenizerConfig(**architecture_of(encoder.config) | own))
    tokenizer.beats.load_state_dict(encoder.state_dict())
    means = torch.from_numpy(clusters.cluster_centers_).double()
    center = means.mean(dim=0)
    means = means - center
    # About of length 1, so that no part of a code is lost beside another one; a power of two, which rounds nothing.
    size = means.norm(dim=1).mean().log2().round().exp2()
    means = means / size
    squares = means.pow(2).sum(dim=1, keepdim=True)
    codes = torch.cat([means, -squares / 2], dim=1)
    lengths = codes.pow(2).sum(dim=1, keepdim=True)
    codes = torch.cat([codes, (lengths.max() - lengths).sqrt()], dim=1)
    first, _, last = cast(tuple[nn.Linear, nn.Tanh, nn.Linear], tuple(tokenizer.projection))
    with torch.no_grad():
        first.weight.copy_(torch.eye(dim) * (LINEAR_SCALE / size))
        first.bias.copy_(-center * (LINEAR_SCALE / size))
        last.weight.zero_()
        last.weight[:dim].copy_(torch.eye(dim) / LINEAR_SCALE)
        last.bias.copy_(torch.tensor([0.0] * dim + [1.0, 0.0]))
        tokenizer.quantizer.codebook.copy_(nn.functional.normalize(codes, dim=1))
        tokenizer.quantizer.is_initialized.fill_(1.0)
    return tokenizer.eval()
