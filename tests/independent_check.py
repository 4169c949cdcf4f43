# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""
Comparison of a converted directory with Microsoft's file: every tensor bit by bit, every setting, every label. It uses
nothing of the converter, so that a mistake there is found here.
"""

import json
import math
import re
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from transformers_beats.audio.audioset import AUDIOSET_LABELS


# Our tensors and Microsoft's: patterns and replacements. `fc1.linear` is that of a gated unit.
TENSORS = {
    r"embeddings\.patch_embeddings\.projection\.(\w+)": [r"patch_embedding.\1"],
    r"embeddings\.layer_norm\.(\w+)": [r"layer_norm.\1"],
    r"embeddings\.projection\.(\w+)": [r"post_extract_proj.\1"],
    r"encoder\.pos_conv_embed\.conv\.bias": ["encoder.pos_conv.0.bias"],
    r"encoder\.pos_conv_embed\.conv\.parametrizations\.weight\.original0": ["encoder.pos_conv.0.weight_g"],
    r"encoder\.pos_conv_embed\.conv\.parametrizations\.weight\.original1": ["encoder.pos_conv.0.weight_v"],
    r"(encoder\.layer_norm\.\w+)": [r"\1"],
    r"(encoder\.layers\.\d+\.self_attn\.[qkv]_proj\.\w+)": [r"\1"],
    r"(encoder\.layers\.\d+\.self_attn\.out_proj\.\w+)": [r"\1"],
    r"(encoder\.layers\.\d+\.(?:self_attn|final)_layer_norm\.\w+)": [r"\1"],
    r"(encoder\.layers\.\d+\.self_attn)\.gru_rel_pos_linear\.(\w+)": [r"\1.grep_linear.\2"],
    r"(encoder\.layers\.\d+\.self_attn)\.gru_rel_pos_const": [r"\1.grep_a"],
    r"(encoder\.layers\.\d+)\.mlp\.fc1\.(\w+)": [r"\1.fc1.\2", r"\1.fc1.linear.\2"],
    r"(encoder\.layers\.\d+)\.mlp\.fc2\.(\w+)": [r"\1.fc2.\2"],
    r"classifier\.(\w+)": [r"predictor.\1"],
    r"projection\.([02]\.\w+)": [r"quantize_layer.\1"],
    r"quantizer\.codebook": ["quantize.embedding.weight"],
    r"quantizer\.cluster_size": ["quantize.cluster_size"],
    r"quantizer\.is_initialized": ["quantize.embedding.initted"],
}
# One table here, a copy in each layer there.
SHARED_BIAS = "encoder.relative_position.relative_attention_bias.weight"
SHARED_BIAS_COPY = r"encoder\.layers\.\d+\.self_attn\.relative_attention_bias\.weight"
# Left over from the initialisation of the codebook; constants of ESPnet's padding mask.
NOT_NEEDED = {"quantize.embedding.cluster_size", "quantize.embedding.embed_avg"}
NOT_NEEDED |= {"patch_embedding_pad.weight", "raw2fbank_pad.weight"}
# `config.json` and `cfg`.
SETTINGS = {
    "patch_size": "input_patch_size",
    "embed_dim": "embed_dim",
    "conv_bias": "conv_bias",
    "num_hidden_layers": "encoder_layers",
    "hidden_size": "encoder_embed_dim",
    "intermediate_size": "encoder_ffn_embed_dim",
    "num_attention_heads": "encoder_attention_heads",
    "hidden_act": "activation_fn",
    "layer_norm_first": "layer_norm_first",
    "deep_norm": "deep_norm",
    "num_conv_pos_embeddings": "conv_pos",
    "num_conv_pos_embedding_groups": "conv_pos_groups",
    "relative_position_embedding": "relative_position_embedding",
    "num_buckets": "num_buckets",
    "max_bucket_distance": "max_distance",
    "gru_rel_pos": "gru_rel_pos",
    "hidden_dropout": "dropout",
    "attention_dropout": "attention_dropout",
    "activation_dropout": "activation_dropout",
    "layerdrop": "encoder_layerdrop",
    "feat_proj_dropout": "dropout_input",
    "classifier_dropout": "predictor_dropout",
    "codebook_size": "quant_n",
    "codebook_dim": "quant_dim",
}
# Fixed in Microsoft's code, so that no `cfg` has them.
FIXED_SETTINGS = {"num_mel_bins": 128, "layer_norm_eps": 1e-5, "legacy_padding_mask": False}
FIXED_SETTINGS |= {"use_weighted_layer_sum": False, "classifier_pooling": "mean"}
FRONT_END = {"sampling_rate": 16000, "feature_size": 128, "legacy_padding_mask": False}
STATISTICS = {"fbank_mean": 15.41663, "fbank_std": 6.55582}
# Both names of the tanh approximation.
ACTIVATIONS = {"gelu_fast": "gelu_new", "gelu_accurate": "gelu_new"}


def compare(source: Path, directory: Path, statistics: Mapping[str, float] = STATISTICS) -> list[str]:
    """Returns the differences between a converted directory and its source, none if the conversion was right."""
    contents = torch.load(source, weights_only=True, mmap=True)
    config, extractor = (
        json.loads((directory / name).read_text()) for name in ("config.json", "preprocessor_config.json")
    )
    ours = load_file(directory / "model.safetensors")
    expected = {**FRONT_END, **statistics, "patch_size": config["patch_size"]}
    # Silence after the logarithm and the normalisation.
    silence = math.log(torch.finfo(torch.float32).eps) - statistics["fbank_mean"]
    is_silent = math.isclose(extractor["padding_value"], silence / (2 * statistics["fbank_std"]), rel_tol=1e-6)
    return [
        *compare_tensors(ours, contents["model"]),
        *compare_settings(config, contents["cfg"], contents["model"], next(iter(ours.values())).dtype),
        *(compare_labels(config, contents["label_dict"]) if "label_dict" in contents else []),
        *(f"extractor {name} is {extractor[name]!r}" for name, value in expected.items() if extractor[name] != value),
        *([] if is_silent else [f"extractor padding_value is {extractor['padding_value']!r}"]),
        *([] if sha256(source.read_bytes()).hexdigest() in (directory / "README.md").read_text() else ["card"]),
    ]


def compare_tensors(ours: Mapping[str, torch.Tensor], theirs: Mapping[str, torch.Tensor]) -> list[str]:
    differences, matched = [], set(NOT_NEEDED)
    for full_name, tensor in ours.items():
        name = full_name.removeprefix("beats.")
        if name == SHARED_BIAS:
            keys = [key for key in theirs if re.fullmatch(SHARED_BIAS_COPY, key)]
        else:
            found = [(match, names) for pattern, names in TENSORS.items() if (match := re.fullmatch(pattern, name))]
            keys = [key for match, names in found for key in map(match.expand, names) if key in theirs]
        matched.update(keys)
        differences += [] if keys else [f"tensor {full_name} is not in the source"]
        for key in keys:
            other = theirs[key].reshape(tensor.shape) if name == "quantizer.is_initialized" else theirs[key]
            if tensor.shape != other.shape or tensor.dtype != other.dtype:
                differences.append(f"tensor {full_name} has another shape or dtype than {key}")
            elif not torch.equal(tensor.flatten().view(torch.uint8), other.flatten().view(torch.uint8)):
                differences.append(f"tensor {full_name} differs from {key}")
    return differences + [f"tensor {key} is not in the directory" for key in theirs if key not in matched]


def compare_settings(
    config: Mapping[str, Any], cfg: Mapping[str, Any], theirs: Mapping[str, torch.Tensor], dtype: torch.dtype
) -> list[str]:
    is_tokenizer, is_classifier = "quantize.embedding.weight" in theirs, "predictor.weight" in theirs
    architecture = "BeatsForAudioClassification" if is_classifier else "BeatsModel"
    expected = {"architectures": ["BeatsTokenizerModel" if is_tokenizer else architecture]}
    expected |= {"dtype": str(dtype).removeprefix("torch.")}
    expected |= {"problem_type": "multi_label_classification"} if is_classifier else {}
    expected |= {name: value for name, value in FIXED_SETTINGS.items() if name in config}
    expected |= {
        name: ACTIVATIONS.get(cfg[key], cfg[key])
        for name, key in SETTINGS.items()
        if key in cfg and (is_tokenizer or not name.startswith("codebook"))
    }
    found = {name: config.get(name) for name in expected}
    return [f"config {name} is {found[name]!r}" for name, value in expected.items() if found[name] != value]


def compare_labels(config: Mapping[str, Any], label_dict: Mapping[int, str]) -> list[str]:
    names = {str(index): AUDIOSET_LABELS.get(machine_id, machine_id) for index, machine_id in label_dict.items()}
    is_inverse = config["label2id"] == {name: int(index) for index, name in config["id2label"].items()}
    wrong = [f"label {index} is not {name}" for index, name in names.items() if config["id2label"].get(index) != name]
    return [*wrong, *([] if len(names) == len(config["id2label"]) and is_inverse else ["labels"])]
