# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""
Compares a converted directory with the checkpoint that it came from: every tensor bit by bit, every setting, every
label. Nothing of the converter is used, so that a mistake there is found here.
"""

import dataclasses
import hashlib
import json
import math
import re
import sys
import zipfile
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file

import transformers_beats
from transformers_beats.audio.audioset import AUDIOSET_LABELS


# Our tensors and where the source has them; `{}` is the number of a layer. `fc1.linear` is that of a gated unit.
TENSORS = {
    "embeddings.patch_embeddings.projection.{kind}": ["patch_embedding.{kind}"],
    "embeddings.layer_norm.{kind}": ["layer_norm.{kind}"],
    "embeddings.projection.{kind}": ["post_extract_proj.{kind}"],
    "encoder.pos_conv_embed.conv.bias": ["encoder.pos_conv.0.bias"],
    "encoder.pos_conv_embed.conv.parametrizations.weight.original0": [
        "encoder.pos_conv.0.weight_g",
        "encoder.pos_conv.0.parametrizations.weight.original0",
    ],
    "encoder.pos_conv_embed.conv.parametrizations.weight.original1": [
        "encoder.pos_conv.0.weight_v",
        "encoder.pos_conv.0.parametrizations.weight.original1",
    ],
    "encoder.layer_norm.{kind}": ["encoder.layer_norm.{kind}"],
    "encoder.layers.{}.self_attn.q_proj.{kind}": ["encoder.layers.{}.self_attn.q_proj.{kind}"],
    "encoder.layers.{}.self_attn.k_proj.{kind}": ["encoder.layers.{}.self_attn.k_proj.{kind}"],
    "encoder.layers.{}.self_attn.v_proj.{kind}": ["encoder.layers.{}.self_attn.v_proj.{kind}"],
    "encoder.layers.{}.self_attn.out_proj.{kind}": ["encoder.layers.{}.self_attn.out_proj.{kind}"],
    "encoder.layers.{}.self_attn.gru_rel_pos_linear.{kind}": ["encoder.layers.{}.self_attn.grep_linear.{kind}"],
    "encoder.layers.{}.self_attn.gru_rel_pos_const": ["encoder.layers.{}.self_attn.grep_a"],
    "encoder.layers.{}.self_attn_layer_norm.{kind}": ["encoder.layers.{}.self_attn_layer_norm.{kind}"],
    "encoder.layers.{}.mlp.fc1.{kind}": ["encoder.layers.{}.fc1.{kind}", "encoder.layers.{}.fc1.linear.{kind}"],
    "encoder.layers.{}.mlp.fc2.{kind}": ["encoder.layers.{}.fc2.{kind}"],
    "encoder.layers.{}.final_layer_norm.{kind}": ["encoder.layers.{}.final_layer_norm.{kind}"],
    "projection.0.{kind}": ["quantize_layer.0.{kind}"],
    "projection.2.{kind}": ["quantize_layer.2.{kind}"],
    "quantizer.codebook": ["quantize.embedding.weight"],
    "quantizer.cluster_size": ["quantize.cluster_size"],
    "quantizer.is_initialized": ["quantize.embedding.initted"],
}
# One table here, a copy for each layer there.
SHARED_BIAS = "encoder.relative_position.relative_attention_bias.weight"
SHARED_BIAS_COPY = re.compile(r"encoder\.layers\.\d+\.self_attn\.relative_attention_bias\.weight")
# Where a head may be: in avex's or ESPnet's model around the encoder, or in the model itself.
HEADS = ["{root}classifier.", "{root}decoder.linear_out.", "{prefix}predictor."]
# Tensors of the source that no model needs.
NOT_NEEDED = {
    "patch_embedding_pad.weight": "a constant of ESPnet's padding mask",
    "raw2fbank_pad.weight": "a constant of ESPnet's padding mask",
    "fbank.window": "a constant of avex's filter bank",
    "fbank.mel_fb": "a constant of avex's filter bank",
    "quantize.embedding.cluster_size": "left over from the initialisation of the codebook",
    "quantize.embedding.embed_avg": "left over from the initialisation of the codebook",
}

# `config.json` and the `cfg` of the source.
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
FIXED_SETTINGS = {
    "num_mel_bins": 128,
    "layer_norm_eps": 1e-5,
    "legacy_padding_mask": False,
    "use_weighted_layer_sum": False,
}
# Fixed in Microsoft's code, or AudioSet's.
FRONT_END = {"sampling_rate": 16000, "feature_size": 128, "legacy_padding_mask": False}
STATISTICS = {"fbank_mean": 15.41663, "fbank_std": 6.55582}
# Both names of the tanh approximation.
ACTIVATIONS = {"gelu_fast": "gelu_new", "gelu_accurate": "gelu_new"}
ARCHITECTURES = {
    "pretrained": "BeatsModel",
    "finetuned": "BeatsForAudioClassification",
    "tokenizer": "BeatsTokenizerModel",
}
# Silence after the logarithm, before the normalisation: what padded frames must hold.
LOG_SILENCE = math.log(torch.finfo(torch.float32).eps)
SHOWN = 10


class UnreadableError(Exception):
    """A source or a directory that cannot be compared, with one line that says why."""


@dataclass
class Report:
    """
    What a comparison found.

    Attributes:
        kind: `"pretrained"`, `"finetuned"` or `"tokenizer"`.
        source_sha256: Hash of the source file.
        model_sha256: Hash of each file of weights in the directory.
        num_tensors: Tensors of the directory, all compared.
        num_values: Their values: the parameters and, in a tokenizer, the codebook.
        dtypes: Their types.
        num_labels: Classes, 0 without a head.
        statistics: Mean and standard deviation of the fbank in `preprocessor_config.json`.
        is_card_of_source: Whether the card names the hash of the source; None without a card or a hash in it.
        without_counterpart: Tensors of the source that the directory does not have, and why.
        notes: What could not be compared.
        differences: What is wrong, worst first within each of tensors, settings, labels, front end and card.
    """

    kind: str
    source_sha256: str
    model_sha256: dict[str, str]
    num_tensors: int = 0
    num_values: int = 0
    dtypes: list[str] = field(default_factory=list)
    num_labels: int = 0
    statistics: dict[str, float] = field(default_factory=dict)
    is_card_of_source: bool | None = None
    without_counterpart: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    differences: list[str] = field(default_factory=list)


def verify(source: Path, directory: Path, statistics: dict[str, float] = STATISTICS) -> Report:
    """
    Compares `directory` with the checkpoint that it was converted from.

    Args:
        source: The checkpoint, `.pt` or `.safetensors`.
        directory: What the converter wrote, or a copy of it from the Hub.
        statistics: `fbank_mean` and `fbank_std` that were asked for, if not AudioSet's.

    Returns:
        [`Report`]: all differences, none if everything is as it should be.

    Raises:
        UnreadableError: a source or a directory that is not there, damaged, or no BEATs model.
    """
    contents = read_source(source)
    tensors, prefix = find_model(contents, source)
    config, weights = read_json(directory / "config.json"), weight_files(directory)
    is_tokenizer = config.get("model_type") == "beats_tokenizer"
    has_head = any(name.startswith("classifier.") for names in weights.values() for name in names)
    report = Report(
        kind="tokenizer" if is_tokenizer else "finetuned" if has_head else "pretrained",
        source_sha256=sha256(source),
        model_sha256={path.name: sha256(path) for path in weights},
    )
    compare_tensors(report, tensors, prefix, weights)
    compare_settings(report, contents.get("cfg"), config)
    if report.kind == "finetuned":
        compare_labels(report, contents.get("label_dict"), config)
    compare_front_end(report, read_json(directory / "preprocessor_config.json"), config, statistics)
    compare_card(report, directory / "README.md")
    compare_code(report, directory)
    return report


def read_source(path: Path) -> Mapping[str, Any]:
    """The dictionary in a checkpoint, mapped and not read; nothing in it is executed."""
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        contents = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except Exception as error:  # whatever a foreign file makes of the readers
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UnreadableError(f"{path}: cannot be read: {reason}") from error
    if not isinstance(contents, Mapping):
        raise UnreadableError(f"{path}: holds no dictionary.")
    return contents


def find_model(contents: Mapping[str, Any], path: Path) -> tuple[dict[str, torch.Tensor], str]:
    """All tensors of the dictionary that has a patch embedding, and what stands before the names of the encoder's."""
    end = "patch_embedding.weight"
    candidates = [contents.get("model"), contents, *contents.values()]
    for candidate in (mapping for mapping in candidates if isinstance(mapping, Mapping)):
        keys = [key for key in candidate if isinstance(key, str) and key.endswith(end)]
        prefixes = [key.removesuffix(end) for key in keys if key == end or key.endswith(f".{end}")]
        if len(prefixes) > 1 and "encoder." not in prefixes:
            raise UnreadableError(f"{path}: holds encoders under {', '.join(prefixes)}.")
        if prefixes:
            tensors = {key: value for key, value in candidate.items() if isinstance(value, torch.Tensor)}
            return tensors, prefixes[0] if len(prefixes) == 1 else "encoder."
    raise UnreadableError(f"{path}: holds no `{end}`.")


def read_json(path: Path) -> dict[str, Any]:
    """A JSON file of the directory."""
    try:
        contents = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UnreadableError(f"{path}: cannot be read: {error}") from error
    if not isinstance(contents, dict):
        raise UnreadableError(f"{path}: holds no dictionary.")
    return contents


def weight_files(directory: Path) -> dict[Path, list[str]]:
    """The files of weights, one or several with an index, and the names of the tensors in each."""
    index, single = directory / "model.safetensors.index.json", directory / "model.safetensors"
    paths = [single]
    if index.is_file():
        paths = [directory / name for name in sorted(set(read_json(index)["weight_map"].values()))]
    files = {}
    for path in paths:
        try:
            with safe_open(path, framework="pt") as file:
                files[path] = list(file.keys())
        except (OSError, SafetensorError) as error:
            raise UnreadableError(f"{path}: cannot be read: {error}") from error
    return files


def sha256(path: Path) -> str:
    """Hash of a file, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def compare_tensors(
    report: Report, source: Mapping[str, torch.Tensor], prefix: str, weights: Mapping[Path, list[str]]
) -> None:
    """Every tensor of the directory against the one of the source, and what of the source is left."""
    matched: set[str] = set()
    dtypes: Counter[str] = Counter()
    for path, names in weights.items():
        with safe_open(path, framework="pt") as file:
            for name in names:
                tensor = file.get_tensor(name)
                report.num_tensors += 1
                report.num_values += tensor.numel()
                report.num_labels = tensor.shape[0] if name == "classifier.weight" else report.num_labels
                dtypes[str(tensor.dtype).removeprefix("torch.")] += 1
                keys = source_keys(name, source, prefix)
                if not keys:
                    report.differences.append(f"`{name}` has no counterpart in the source")
                for key in keys:
                    if difference := compare(tensor, source[key], is_flag=name == "quantizer.is_initialized"):
                        report.differences.append(f"`{name}` and `{key}`: {difference}")
                matched.update(keys)
    report.dtypes = list(dtypes)
    for key in (key for key in source if key not in matched):
        own = key.removeprefix(prefix)
        if own in NOT_NEEDED:
            report.without_counterpart[key] = NOT_NEEDED[own]
        elif not key.startswith(prefix):
            report.without_counterpart[key] = "outside of the encoder"
        elif prefix and own.startswith("predictor."):
            report.without_counterpart[key] = "a head inside another model"
        else:
            report.differences.append(f"`{key}` of the source has no counterpart in the directory")


def source_keys(name: str, source: Mapping[str, torch.Tensor], prefix: str) -> list[str]:
    """Where the source has a tensor of ours: one key, one for each layer if they share it, or none."""
    name = name.removeprefix("beats.")
    if name == SHARED_BIAS:
        return [key for key in source if key.startswith(prefix) and SHARED_BIAS_COPY.fullmatch(key[len(prefix) :])]
    head, _, kind = name.rpartition(".")
    if head == "classifier":
        root = prefix.removesuffix("backbone.").removesuffix("encoder.")
        wanted = [template.format(prefix=prefix, root=root) + kind for template in HEADS]
    else:
        layer = re.search(r"\.layers\.(\d+)\.", name)
        general = re.sub(r"\.layers\.\d+\.", ".layers.{}.", name)
        templates = TENSORS.get(general) or TENSORS.get(f"{general.removesuffix(kind)}{{kind}}", [])
        number = layer[1] if layer else ""
        wanted = [prefix + key.replace("{}", number).replace("{kind}", kind) for key in templates]
    return [key for key in wanted if key in source][:1]


def compare(ours: torch.Tensor, theirs: torch.Tensor, is_flag: bool) -> str:
    """What differs between two tensors, or an empty string. A flag is a scalar here and a vector of one there."""
    theirs = theirs.reshape(()) if is_flag and theirs.numel() == 1 else theirs
    if ours.shape != theirs.shape:
        return f"shape {tuple(ours.shape)} and {tuple(theirs.shape)}"
    if ours.dtype != theirs.dtype:
        return f"{ours.dtype} and {theirs.dtype}"
    bits = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[ours.element_size()]
    differs = ours.contiguous().view(bits) != theirs.contiguous().view(bits)
    if not differs.any():
        return ""
    first = tuple(differs.nonzero()[0].tolist())
    return (
        f"{int(differs.sum())} of {ours.numel()} values, first at {first}: {ours[first]:.9g} and {theirs[first]:.9g}"
    )


def compare_settings(report: Report, cfg: Any, config: Mapping[str, Any]) -> None:
    """`config.json` against the `cfg` of the source, and what the source's code fixes."""
    for name, expected in FIXED_SETTINGS.items():
        if config.get(name, expected) != expected:
            report.differences.append(f"config.json: `{name}` is {config[name]!r}, not {expected!r}")
    if config.get("architectures") != [ARCHITECTURES[report.kind]]:
        report.differences.append(f"config.json: `architectures` is {config.get('architectures')!r}")
    if config.get("dtype") not in report.dtypes:
        report.differences.append(f"config.json: `dtype` is {config.get('dtype')!r}, the tensors are {report.dtypes}")
    if not isinstance(cfg, Mapping):
        report.notes.append("the source has no `cfg`: only the shapes speak for config.json")
        return
    silent = []
    for name, key in SETTINGS.items():
        if name.startswith("codebook") and report.kind != "tokenizer":
            continue
        if key not in cfg:
            silent.append(key)
        elif config.get(name) != ACTIVATIONS.get(cfg[key], cfg[key]):
            report.differences.append(f"config.json: `{name}` is {config.get(name)!r}, `cfg` has {key}={cfg[key]!r}")
    if silent:
        report.notes.append(f"not in the source's `cfg`: {', '.join(silent)}")


def compare_labels(report: Report, label_dict: Any, config: Mapping[str, Any]) -> None:
    """The names of the classes, in the source's order."""
    if not isinstance(label_dict, Mapping):
        report.notes.append("the source has no `label_dict`: labels were not compared")
        return
    if config.get("problem_type") != "multi_label_classification":
        report.differences.append(f"config.json: `problem_type` is {config.get('problem_type')!r}")
    names = config.get("id2label") or {}
    if len(names) != report.num_labels or len(label_dict) != report.num_labels:
        report.differences.append(
            f"{report.num_labels} classes in the head, {len(names)} in config.json, {len(label_dict)} in the source"
        )
    for index, machine_id in sorted((int(index), machine_id) for index, machine_id in label_dict.items()):
        expected, found = AUDIOSET_LABELS.get(machine_id, machine_id), names.get(str(index))
        if found != expected:
            report.differences.append(f"config.json: label {index} is {found!r}, the source has {expected!r}")
        elif (config.get("label2id") or {}).get(found) != index:
            report.differences.append(f"config.json: `label2id` does not lead from {found!r} back to {index}")


def compare_front_end(
    report: Report, extractor: Mapping[str, Any], config: Mapping[str, Any], statistics: Mapping[str, float]
) -> None:
    """The feature extractor against Microsoft's front end and the statistics that were asked for."""
    report.statistics = {name: extractor.get(name, math.nan) for name in STATISTICS}
    expected = {**FRONT_END, **statistics, "patch_size": config.get("patch_size")}
    for name, value in expected.items():
        if extractor.get(name) != value:
            report.differences.append(f"preprocessor_config.json: `{name}` is {extractor.get(name)!r}, not {value!r}")
    try:
        silence = (LOG_SILENCE - report.statistics["fbank_mean"]) / (2 * report.statistics["fbank_std"])
        is_silence = math.isclose(extractor.get("padding_value", math.nan), silence, rel_tol=1e-6)
    except (TypeError, ZeroDivisionError, OverflowError):  # no numbers
        silence, is_silence = math.nan, False
    if not is_silence:
        report.differences.append(
            f"preprocessor_config.json: `padding_value` is {extractor.get('padding_value')!r}, not silence, {silence}"
        )


def compare_card(report: Report, card: Path) -> None:
    """Whether the card names the source by its hash."""
    text = card.read_text(encoding="utf-8", errors="replace") if card.is_file() else ""
    hashes = set(re.findall(r"\b[0-9a-f]{64}\b", text))
    if not hashes:
        report.notes.append(f"no hash of the source in {card.name}")
        return
    report.is_card_of_source = report.source_sha256 in hashes
    if not report.is_card_of_source:
        report.differences.append(f"{card.name} names another source: SHA-256 {', '.join(sorted(hashes))}")


def compare_code(report: Report, directory: Path) -> None:
    """The copy of the model's code against the installed package, which may be another version."""
    package = Path(transformers_beats.__file__).parent
    for path in sorted(directory.glob("*.py")):
        original = package / path.name
        if not original.is_file() or original.read_bytes() != path.read_bytes():
            report.notes.append(
                f"{path.name} is not that of transformers-beats {transformers_beats.__version__}, installed here"
            )


def print_report(report: Report) -> None:
    """The report in lines, the first differences last."""
    lines = [("source", f"SHA-256 {report.source_sha256}")]
    lines += [(name, f"SHA-256 {digest}") for name, digest in report.model_sha256.items()]
    lines += [
        ("kind", report.kind),
        ("tensors", f"{report.num_tensors}, {report.num_values:,} values, {', '.join(report.dtypes)}"),
        ("labels", str(report.num_labels)),
        ("fbank", ", ".join(f"{name} {value}" for name, value in report.statistics.items())),
        ("card", {True: "names the source", False: "names another", None: "names none"}[report.is_card_of_source]),
    ]
    for reason, count in Counter(report.without_counterpart.values()).items():
        keys = [key for key, other in report.without_counterpart.items() if other == reason]
        lines.append(("left out", f"{count} ({reason}): {', '.join(keys[:3])}{', ...' if count > 3 else ''}"))
    lines += [("note", note) for note in report.notes]
    lines += [("DIFFERENT", difference) for difference in report.differences[:SHOWN]]
    if len(report.differences) > SHOWN:
        lines.append(("DIFFERENT", f"{len(report.differences) - SHOWN} more; --json lists all"))
    width = max(len(name) for name, _ in lines)
    for name, text in lines:
        print(f"{name:{width}}  {text}")


def main(
    source: Annotated[Path, typer.Argument(help="The checkpoint that was converted (.pt or .safetensors).")],
    directory: Annotated[Path, typer.Argument(help="What the converter wrote.")],
    fbank_mean: Annotated[float, typer.Option(help="Mean of the fbank that was asked for.")] = STATISTICS[
        "fbank_mean"
    ],
    fbank_std: Annotated[float, typer.Option(help="Its standard deviation.")] = STATISTICS["fbank_std"],
    as_json: Annotated[bool, typer.Option("--json", help="Print the whole report as JSON.")] = False,
) -> None:
    """Compare a converted directory with its source, bit by bit; exit status 1 if anything differs."""
    try:
        report = verify(source, directory, {"fbank_mean": fbank_mean, "fbank_std": fbank_std})
    except (UnreadableError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        raise typer.Exit(code=1) from None
    if as_json:
        print(json.dumps(dataclasses.asdict(report), indent=2))
    else:
        print_report(report)
        if not report.differences:
            print(f"{directory} holds what {source} holds.")
    if report.differences:
        raise typer.Exit(code=1)


if __name__ == "__main__":
    typer.run(main)
