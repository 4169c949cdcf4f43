# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Names of settings and tensors in Microsoft's checkpoints and in this package, and their translation both ways."""

import re
from enum import Enum
from typing import Literal


# An event classifier has a head for every time column; Microsoft has none.
Kind = Literal["pretrained", "finetuned", "tokenizer", "event-classifier"]


class Origin(str, Enum):
    """Project that wrote a checkpoint: decides what a missing setting means, and what a head is."""

    AUTO = "auto"  # to be recognised by the tensors
    MICROSOFT = "microsoft"
    ESPNET = "espnet"
    AVEX = "avex"
    PRETRAINED_SED = "pretrained-sed"
    OTHER = "other"


class Head(str, Enum):
    """Head of a file of PretrainedSED that is taken; see [`find_head`]."""

    AUTO = "auto"  # `strong_head`, unless something speaks against its being trained
    STRONG = "strong"
    WEAK = "weak"
    ATTENTION = "attention"  # both: scores of clips from those of moments


# Settings that fix the network: names in `cfg`, and in `BeatsConfig`.
ARCHITECTURE = {
    "input_patch_size": "patch_size",
    "embed_dim": "embed_dim",
    "conv_bias": "conv_bias",
    "encoder_layers": "num_hidden_layers",
    "encoder_embed_dim": "hidden_size",
    "encoder_ffn_embed_dim": "intermediate_size",
    "encoder_attention_heads": "num_attention_heads",
    "activation_fn": "hidden_act",
    "layer_norm_first": "layer_norm_first",
    "deep_norm": "deep_norm",
    "conv_pos": "num_conv_pos_embeddings",
    "conv_pos_groups": "num_conv_pos_embedding_groups",
    "relative_position_embedding": "relative_position_embedding",
    "num_buckets": "num_buckets",
    "max_distance": "max_bucket_distance",
    "gru_rel_pos": "gru_rel_pos",
}
QUANTIZER = {"quant_n": "codebook_size", "quant_dim": "codebook_dim"}
REGULARIZATION = {
    "dropout": "hidden_dropout",
    "attention_dropout": "attention_dropout",
    "activation_dropout": "activation_dropout",
    "encoder_layerdrop": "layerdrop",
    "dropout_input": "feat_proj_dropout",
    "predictor_dropout": "classifier_dropout",
}
# Statistics of the fbank: `openbeats` reads them from `cfg`, ESPnet's encoder does not.
FBANK = ("fbank_mean", "fbank_std")
# Microsoft's names; the last two both mean the tanh approximation there.
ACTIVATIONS = {name: name for name in ("gelu", "relu", "tanh", "linear", "glu")}
ACTIVATIONS |= {"gelu_fast": "gelu_new", "gelu_accurate": "gelu_new"}

# Tensors: Microsoft's names and ours. A name that ends in a dot is a prefix.
TENSORS = [
    ("patch_embedding.", "beats.embeddings.patch_embeddings.projection."),
    ("layer_norm.", "beats.embeddings.layer_norm."),
    ("post_extract_proj.", "beats.embeddings.projection."),
    ("encoder.pos_conv.0.weight_g", "beats.encoder.pos_conv_embed.conv.parametrizations.weight.original0"),
    ("encoder.pos_conv.0.weight_v", "beats.encoder.pos_conv_embed.conv.parametrizations.weight.original1"),
    ("encoder.pos_conv.0.", "beats.encoder.pos_conv_embed.conv."),
    ("encoder.layer_norm.", "beats.encoder.layer_norm."),
    ("predictor.", "classifier."),
    ("quantize_layer.", "projection."),
    ("quantize.embedding.weight", "quantizer.codebook"),
    ("quantize.embedding.initted", "quantizer.is_initialized"),
    ("quantize.cluster_size", "quantizer.cluster_size"),
]
# Inside a layer. The gated unit of the activation `glu` has one more level.
GATED_UNIT = ("fc1.linear.", "mlp.fc1.")
LAYER_TENSORS = [
    ("self_attn.grep_linear.", "self_attn.gru_rel_pos_linear."),
    ("self_attn.grep_a", "self_attn.gru_rel_pos_const"),
    GATED_UNIT,
    ("fc1.", "mlp.fc1."),
    ("fc2.", "mlp.fc2."),
]
# One table for all layers here, a copy in each layer there.
RELATIVE_BIAS = "beats.encoder.relative_position.relative_attention_bias."
RELATIVE_BIAS_COPY = "self_attn.relative_attention_bias."


def use_of(kind: Kind, model: str) -> list[str]:
    """Returns the words of a command that uses a model of this kind."""
    others = {"pretrained": ("embed", ["-o", "embeddings"]), "tokenizer": ("tokenize", ["-o", "tokens"])}
    command, output = others.get(kind, ("tag", []))
    return [command, "-m", model, "FILE_OR_FOLDER", *output]


def rename_key(key: str) -> str | None:
    """Returns our name of one of Microsoft's tensors, with the prefix of the encoder; None if there is none."""
    layer = re.fullmatch(r"(encoder\.layers\.\d+\.)(.*)", key)
    if layer is None:
        return _replace(key, TENSORS)
    if layer[2].startswith(RELATIVE_BIAS_COPY):
        return RELATIVE_BIAS + layer[2].removeprefix(RELATIVE_BIAS_COPY)
    # Already our name: taken for Microsoft's, the tensor would be converted as if nothing were wrong.
    if layer[2].startswith("mlp."):
        return None
    return f"beats.{layer[1]}{_replace(layer[2], LAYER_TENSORS) or layer[2]}"


def reference_key(name: str, is_gated: bool) -> str:
    """Returns Microsoft's name of one of our tensors but the relative bias; an unknown name stays as it is."""
    layer = re.fullmatch(r"beats\.(encoder\.layers\.\d+\.)(.*)", name)
    pairs = TENSORS if layer is None else [pair for pair in LAYER_TENSORS if is_gated or pair is not GATED_UNIT]
    backwards = [(ours, theirs) for theirs, ours in pairs]
    if layer is None:
        return _replace(name, backwards) or name
    return layer[1] + (_replace(layer[2], backwards) or layer[2])


def _replace(name: str, pairs: list[tuple[str, str]]) -> str | None:
    """Returns the name after the first replacement that applies, None if none does."""
    for old, new in pairs:
        if name == old or (old.endswith(".") and name.startswith(old)):
            return new + name.removeprefix(old)
    return None
