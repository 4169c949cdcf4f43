# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import zipfile
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from golden import CHECKPOINTS, FIXTURES, ROOT
from huggingface_hub import ModelCard
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from typer.testing import CliRunner

from transformers_beats import BeatsFeatureExtractor, BeatsForAudioClassification, BeatsModel, BeatsTokenizerModel
from transformers_beats.audio.audioset import AUDIOSET_LABELS
from transformers_beats.cli.app import app
from transformers_beats.conversion.checkpoint import CheckpointError, read_checkpoint
from transformers_beats.conversion.convert import convert
from transformers_beats.export.to_microsoft import export
from transformers_beats.utils.errors import BeatsError, UsageError


SCRIPT = ROOT / "conversion" / "convert_beats_checkpoint.py"


@pytest.fixture
def altered(tmp_path):
    """A copy of a golden checkpoint after `change(contents)`."""

    def alter(name: str, change) -> str:
        contents = torch.load(FIXTURES / f"{name}.pt", weights_only=True)
        change(contents)
        path = tmp_path / "altered.pt"
        torch.save(contents, path)
        return path

    return alter


@pytest.fixture
def run_script(fresh_python):
    """Runs the script in a process of its own."""
    return partial(fresh_python, f"import runpy; runpy.run_path({str(SCRIPT)!r}, run_name='__main__')")


@pytest.mark.parametrize("key", ["patch_embedding.weight", "encoder.layers.0.fc1.bias"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float64])
def test_tensors_of_several_precisions_take_the_widest(altered, tmp_path, key, dtype):
    def change(contents):
        contents["model"][key] = contents["model"][key].to(dtype)

    source = altered("beats_tiny", change)
    found = read_checkpoint(source)
    widest = torch.promote_types(dtype, torch.float32)
    assert any("several precisions" in note and f"stored as {str(widest)[6:]}" in note for note in found.notes)
    convert(source, tmp_path / "converted")
    model = BeatsModel.from_pretrained(tmp_path / "converted")
    assert {parameter.dtype for parameter in model.parameters()} == {widest}
    weights = torch.load(source, weights_only=True)["model"]["encoder.layers.0.fc1.weight"]
    assert torch.equal(model.encoder.layers[0].mlp.fc1.weight, weights.to(widest))


@pytest.mark.parametrize("name", CHECKPOINTS)
@torch.no_grad()
def test_converted_directory_equals_the_source(name, golden_model, extract, tmp_path):
    output_dir = tmp_path / "converted"
    kind = convert(FIXTURES / f"{name}.pt", output_dir).kind
    model_class = {
        "pretrained": BeatsModel,
        "finetuned": BeatsForAudioClassification,
        "tokenizer": BeatsTokenizerModel,
    }[kind]
    model, info = model_class.from_pretrained(output_dir, output_loading_info=True)
    assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    for actual, expected in zip(model.eval()(**extract(0)).to_tuple(), golden_model(name)(**extract(0)).to_tuple()):
        assert torch.equal(actual, expected)
    assert not list(tmp_path.glob(".converted*"))


def test_files_of_a_converted_directory(tmp_path):
    convert(FIXTURES / "tokenizer_tiny.pt", tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "README.md",
        "config.json",
        "configuration_beats.py",
        "fbank_beats.py",
        "feature_extraction_beats.py",
        "model.safetensors",
        "modeling_beats.py",
        "modeling_beats_tokenizer.py",
        "preprocessor_config.json",
    ]
    card = ModelCard.load(tmp_path / "out" / "README.md")
    # Anyone can write a file in Microsoft's layout.
    assert card.data.license is None
    assert card.data.pipeline_tag == "feature-extraction"
    assert re.search(r"SHA-256\s`[0-9a-f]{64}`", card.text)


def test_every_tensor_of_the_source_arrives(tmp_path):
    source = torch.load(FIXTURES / "beats_tiny.pt", weights_only=True)["model"]
    convert(FIXTURES / "beats_tiny.pt", tmp_path / "out")
    tensors = load_file(tmp_path / "out" / "model.safetensors")
    copies = 2  # the relative bias of two of the three layers
    assert len(tensors) == len(source) - copies
    sums = sorted(tensor.double().sum().item() for tensor in tensors.values())
    layers = [key for key in source if "relative_attention_bias" in key][1:]
    assert sums == sorted(tensor.double().sum().item() for key, tensor in source.items() if key not in layers)


def test_labels_follow_the_checkpoint_not_the_class_list(tmp_path):
    source = torch.load(FIXTURES / "beats_tiny_finetuned.pt", weights_only=True)["label_dict"]
    convert(FIXTURES / "beats_tiny_finetuned.pt", tmp_path / "out")
    config = BeatsForAudioClassification.from_pretrained(tmp_path / "out").config
    assert config.problem_type == "multi_label_classification"
    assert config.id2label == {index: AUDIOSET_LABELS.get(mid, mid) for index, mid in source.items()}
    assert config.id2label[0] == "Dog"
    assert config.label2id["Dog"] == 0


def test_audioset_has_527_distinct_classes():
    assert len(AUDIOSET_LABELS) == len(set(AUDIOSET_LABELS.values())) == 527
    assert next(iter(AUDIOSET_LABELS.items())) == ("/m/09x0r", "Speech")
    assert list(AUDIOSET_LABELS)[-1] == "/m/07hvw1"


def test_unknown_labels_keep_their_id(altered):
    path = altered("beats_tiny_finetuned", lambda contents: contents["label_dict"].update({2: "my_class"}))
    checkpoint = read_checkpoint(path)
    assert checkpoint.config.id2label[2] == "my_class"
    assert any("my_class" in note for note in checkpoint.notes)


def test_the_gradient_decay_of_a_training_is_said(altered):
    name = "layer_wise_gradient_decay_ratio"
    checkpoint = read_checkpoint(altered("beats_tiny_finetuned", lambda contents: contents["cfg"].update({name: 0.6})))
    assert any(f"{name}=0.6" in note for note in checkpoint.notes)
    # 1, as in the released encoders, is none.
    assert not any(name in note for note in read_checkpoint(FIXTURES / "beats_tiny.pt").notes)


def test_missing_label_dict_is_said(altered):
    checkpoint = read_checkpoint(altered("beats_tiny_finetuned", lambda contents: contents.pop("label_dict")))
    assert checkpoint.config.num_labels == 6
    assert any("label_dict" in note for note in checkpoint.notes)


def test_fbank_statistics_are_stored(tmp_path):
    convert(FIXTURES / "beats_tiny.pt", tmp_path / "out", fbank_mean=15.2913, fbank_std=5.90532)
    extractor = BeatsFeatureExtractor.from_pretrained(tmp_path / "out")
    assert (extractor.fbank_mean, extractor.fbank_std) == (15.2913, 5.90532)


@pytest.mark.parametrize("key", ["deep_norm", "max_distance", "encoder_layers", "input_patch_size", "gru_rel_pos"])
def test_microsoft_files_must_state_the_architecture(key, altered):
    with pytest.raises(CheckpointError, match=rf"`cfg` lacks {key}.*--origin espnet"):
        read_checkpoint(altered("beats_tiny", lambda contents: contents["cfg"].pop(key)))


def test_unknown_cfg_keys_are_named(altered):
    checkpoint = read_checkpoint(altered("beats_tiny", lambda contents: contents["cfg"].update({"new_trick": 1})))
    assert checkpoint.notes == ["`cfg` keys without a meaning here: new_trick"]


def espnet_export(contents):
    """What ESPnet writes: its recipe's settings only, padding kernels, weight norm as a parametrization."""
    model = contents["model"]
    for key in ("input_patch_size", "conv_bias", "activation_fn", "layer_norm_first", "finetuned_model"):
        del contents["cfg"][key]
    contents["cfg"]["decoder_layers"] = 3
    model["patch_embedding_pad.weight"] = torch.ones(1, 1, 16, 16)
    model["raw2fbank_pad.weight"] = torch.ones(1, 1, 400)
    for old, new in (("weight_g", "original0"), ("weight_v", "original1")):
        model[f"encoder.pos_conv.0.parametrizations.weight.{new}"] = model.pop(f"encoder.pos_conv.0.{old}")


@torch.no_grad()
def test_espnet_exports_convert(altered, golden_model, extract, tmp_path):
    checkpoint = convert(altered("beats_tiny", espnet_export), tmp_path / "out")
    assert checkpoint.origin == "espnet"
    assert any("input_patch_size=16" in note and "conv_bias=False" in note for note in checkpoint.notes)
    assert sum("padding mask" in note for note in checkpoint.notes) == 2
    actual = BeatsModel.from_pretrained(tmp_path / "out").eval()(**extract(0)).last_hidden_state
    assert torch.equal(actual, golden_model("beats_tiny")(**extract(0)).last_hidden_state)


def without_cfg(*keys):
    """An ESPnet export whose recipe left settings to what it began from."""

    def change(contents):
        espnet_export(contents)
        for key in keys:
            del contents["cfg"][key]

    return change


@pytest.mark.parametrize("keys", [["deep_norm"], ["max_distance"], ["deep_norm", "max_distance"]], ids=str)
def test_settings_that_no_tensor_shows_are_not_guessed(keys, altered):
    """An export of a fine-tuning that began from DeepNorm and a distance of 80; ESPnet's class has neither."""
    path = altered("beats_tiny", without_cfg(*keys))
    with pytest.raises(CheckpointError, match=rf"`cfg` lacks {' and '.join(keys)}, which no tensor shows.*--cfg"):
        read_checkpoint(path)


@torch.no_grad()
def test_a_base_states_what_an_espnet_export_leaves_out(altered, golden_model, extract, tmp_path):
    path = altered("beats_tiny", without_cfg("deep_norm", "max_distance", "encoder_layers"))
    checkpoint = convert(path, tmp_path / "out", cfg=[FIXTURES / "beats_tiny.pt"])
    (note,) = [note for note in checkpoint.notes if "taken from beats_tiny.pt" in note]
    assert all(setting in note for setting in ("deep_norm=True", "max_distance=80", "encoder_layers=3"))
    actual = BeatsModel.from_pretrained(tmp_path / "out").eval()(**extract(0)).last_hidden_state
    assert torch.equal(actual, golden_model("beats_tiny")(**extract(0)).last_hidden_state)


@torch.no_grad()
def test_the_released_architecture_fills_what_an_espnet_export_leaves_out(altered, golden_model, extract):
    """`released` has another size; what the export states itself is kept."""
    checkpoint = read_checkpoint(altered("beats_tiny", without_cfg("deep_norm")), cfg=["released"])
    assert checkpoint.config.num_hidden_layers == 3
    assert any("Microsoft's released models: " in note and "deep_norm=True" in note for note in checkpoint.notes)
    expected = golden_model("beats_tiny")(**extract(0)).last_hidden_state
    assert torch.equal(checkpoint.build_model()(**extract(0)).last_hidden_state, expected)


@torch.no_grad()
def test_settings_that_tensors_show_are_taken_from_them(altered, golden_model, extract):
    checkpoint = read_checkpoint(altered("beats_tiny", without_cfg("relative_position_embedding", "gru_rel_pos")))
    assert any("shown by the tensors: relative_position_embedding=True" in note for note in checkpoint.notes)
    expected = golden_model("beats_tiny")(**extract(0)).last_hidden_state
    assert torch.equal(checkpoint.build_model()(**extract(0)).last_hidden_state, expected)


def test_the_distance_of_no_position_bias_is_nobodys_matter(altered):
    path = altered("beats_tiny_plain", lambda contents: contents["cfg"].pop("max_distance"))
    checkpoint = read_checkpoint(path, origin="espnet")
    assert not checkpoint.config.relative_position_embedding


def test_settings_of_another_model_are_refused():
    with pytest.raises(CheckpointError, match=r"its own `cfg` says embed_dim=32, --cfg 64: another model"):
        read_checkpoint(FIXTURES / "beats_tiny.pt", cfg=[FIXTURES / "beats_tiny_plain.pt"])


@pytest.mark.parametrize("name", ["beats_tiny.pt", "settings.yaml"])
def test_a_file_that_is_too_large_is_refused_by_its_size(name, tmp_path):
    """Of a sparse file of 30 GB nothing but the size may be read."""
    path = tmp_path / name
    with path.open("wb") as file:
        file.truncate(30_000_000_000)
    checkpoint, cfg = (path, []) if path.suffix == ".pt" else (FIXTURES / "beats_tiny.pt", [path])
    with pytest.raises(BeatsError, match=r"has 30 GB, more than the limit of 8 GB|30000 MB, which are"):
        read_checkpoint(checkpoint, cfg=cfg)


def set_tensor(key, change):
    def alter(contents):
        contents["model"][key] = change(contents["model"][key])

    return alter


def without_classes(contents):
    for key in ("predictor.weight", "predictor.bias"):
        contents["model"][key] = contents["model"][key][:0]
    contents["label_dict"] = {}


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        (
            "beats_tiny",
            lambda c: c["model"].pop("layer_norm.bias"),
            "tensors missing in the file: embeddings.layer_no",
        ),
        ("beats_tiny", lambda c: c["model"].update({"decoder.weight": torch.zeros(1)}), "no BEATs model has: decoder"),
        ("beats_tiny", lambda c: c["cfg"].update(encoder_layers=2), "has no place for: encoder.layers.2"),
        ("beats_tiny", lambda c: c["cfg"].update(encoder_ffn_embed_dim=128), r"shape \(96, 64\).*\(128, 64\)"),
        ("beats_tiny", lambda c: c["cfg"].update(encoder_attention_heads=5), "must divide `hidden_size`"),
        ("beats_tiny", lambda c: c["cfg"].update(encoder_layers="three"), "not a valid architecture"),
        ("beats_tiny", lambda c: c["cfg"].update(activation_fn="swiglu"), "unknown activation 'swiglu'"),
        ("beats_tiny", lambda c: c["cfg"].update(finetuned_model=True), "no `predictor.weight`"),
        ("beats_tiny", lambda c: c.pop("cfg"), "expected `cfg` and `model`"),
        ("beats_tiny", lambda c: c.update(model={}), "not a dictionary of tensors"),
        (
            "beats_tiny",
            set_tensor("encoder.layers.1.self_attn.relative_attention_bias.weight", lambda tensor: tensor + 1),
            "differs from the copies in other layers",
        ),
        ("beats_tiny", set_tensor("layer_norm.bias", lambda tensor: tensor / 0), "NaN or infinite"),
        ("beats_tiny", set_tensor("layer_norm.bias", lambda tensor: tensor.int()), "floating-point"),
        ("beats_tiny", set_tensor("layer_norm.bias", lambda tensor: tensor.to(torch.complex64)), "floating-point"),
        ("beats_tiny", set_tensor("layer_norm.bias", lambda tensor: tensor.to_sparse()), "floating-point"),
        ("beats_tiny", set_tensor("layer_norm.bias", lambda tensor: tensor.to("meta")), "floating-point"),
        ("beats_tiny", lambda c: c["model"].update({3: torch.zeros(1)}), "not a dictionary of tensors"),
        (
            "beats_tiny",
            set_tensor("layer_norm.bias", lambda tensor: tensor[:0]),
            "without any value: embeddings.layer",
        ),
        (
            "beats_tiny_finetuned",
            without_classes,
            r"without any value: classifier\.bias, classifier\.weight \(2 in all\)",
        ),
        (
            "tokenizer_tiny",
            set_tensor("quantize.embedding.weight", lambda tensor: tensor[:0]),
            "without any value: qua",
        ),
        *(
            (
                name,
                set_tensor("encoder.layers.0.fc2.weight", change),
                r"layers\.0\.fc2\.weight` is not a matrix, but has",
            )
            for name in ("beats_tiny", "beats_tiny_finetuned", "tokenizer_tiny")
            for change in (torch.sum, torch.flatten)
        ),
        (
            "beats_tiny",
            lambda c: c.update(model={"patch_embedding_pad.weight": torch.ones(1, 1, 16, 16)}),
            "it has none of the tensors of a model",
        ),
        ("beats_tiny", lambda c: c["model"].update({"encoder.layers.0.mlp.fc1.bias": torch.zeros(96)}), "no BEATs"),
        (
            "beats_tiny",
            lambda c: c["cfg"].update(activation_fn=["gelu"]),
            "expected a single value for `activation_fn`, found list",
        ),
        ("beats_tiny_finetuned", set_tensor("predictor.weight", lambda tensor: tensor[0, 0]), "not a matrix"),
        ("tokenizer_tiny", set_tensor("quantize.embedding.initted", lambda tensor: tensor * 0), "never learned"),
        ("tokenizer_tiny", set_tensor("quantize.embedding.initted", lambda tensor: tensor.repeat(2)), "never learned"),
        ("tokenizer_tiny", set_tensor("quantize.embedding.weight", lambda tensor: tensor * 0), "all zero"),
        ("beats_tiny_finetuned", lambda c: c["label_dict"].pop(3), "must name the classes 0 to 5"),
        ("beats_tiny_finetuned", lambda c: c["label_dict"].update({3: "/m/06mb1"}), "the same label"),
        ("beats_tiny_finetuned", lambda c: c.update(label_dict=["a"]), "must map class indices"),
        ("beats_tiny", lambda c: c["cfg"].update(fbank_mean=torch.zeros(2)), "a tensor for 'fbank_mean'"),
        ("beats_tiny_finetuned", lambda c: c.update(label_dict={None: "a"}), "must map class indices"),
        ("beats_tiny_finetuned", lambda c: c.update(label_dict={float("inf"): "a"}), "must map class indices"),
        ("beats_tiny_finetuned", lambda c: c["label_dict"].update({3: "\ud800"}), "must map class indices"),
        ("beats_tiny", lambda c: c["cfg"].update(encoder_layers=10**9), "it has 3 layers, `cfg` 1000000000"),
        ("beats_tiny", lambda c: c["cfg"].update(embed_dim=2**62), "no tensor can be so large"),
        ("beats_tiny", lambda c: c["cfg"].update(embed_dim=10**30), "no tensor can be so large"),
        ("tokenizer_tiny", lambda c: c["cfg"].pop("quant_n"), "lacks quant_n"),
        ("tokenizer_tiny", lambda c: c["cfg"].update(quant_n=32), r"quantizer.*\(64,\) in the file, \(32,\)"),
    ],
)
def test_files_that_do_not_fit_are_refused(name, change, message, altered, tmp_path):
    with pytest.raises(CheckpointError, match=message):
        convert(altered(name, change), tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert not list(tmp_path.glob(".out*"))


class Payload:
    """Unpickling this would create a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def test_code_in_a_checkpoint_is_not_run(run_script, tmp_path):
    torch.save({"cfg": {}, "model": {"a": torch.zeros(1)}, "x": Payload(tmp_path / "ran")}, tmp_path / "evil.pt")
    result = run_script(tmp_path / "evil.pt", tmp_path / "out")
    assert result.returncode == 1
    assert "could run code" in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert not (tmp_path / "ran").exists()
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("kind", ["truncated", "text", "empty", "absent", "directory", "array", "bits"])
def test_damaged_and_foreign_files_give_one_line(kind, run_script, tmp_path):
    path = tmp_path / "file.pt"
    whole = (FIXTURES / "beats_tiny.pt").read_bytes()
    if kind == "directory":
        path.mkdir()
    elif kind == "array":
        np.save(path.with_suffix(".npy"), np.zeros(3))
        path = path.with_suffix(".npy")
    elif kind == "bits":
        path.write_bytes(whole[:2000] + b"\0" * 4000 + whole[6000:])
    elif kind != "absent":
        path.write_bytes({"truncated": whole[: len(whole) // 2], "text": b"not a checkpoint\n", "empty": b""}[kind])
    result = run_script(path, tmp_path / "out")
    assert result.returncode == (2 if kind in ("absent", "directory") else 1)
    assert result.stderr.startswith("error: ")
    assert len(result.stderr.splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_converted_models_are_replaced_only_on_request(tmp_path):
    output_dir = tmp_path / "out"
    convert(FIXTURES / "beats_tiny.pt", output_dir)
    with pytest.raises(UsageError, match="--overwrite"):
        convert(FIXTURES / "tokenizer_tiny.pt", output_dir)
    assert json.loads((output_dir / "config.json").read_text())["model_type"] == "beats"
    convert(FIXTURES / "tokenizer_tiny.pt", output_dir, overwrite=True)
    assert json.loads((output_dir / "config.json").read_text())["model_type"] == "beats_tokenizer"
    assert list(tmp_path.iterdir()) == [output_dir]


def test_nothing_but_a_converted_model_is_ever_replaced(tmp_path, monkeypatch):
    precious = tmp_path / "home" / "precious"
    precious.parent.mkdir()
    precious.touch()
    with pytest.raises(UsageError, match="holds no BEATs model"):
        convert(FIXTURES / "beats_tiny.pt", precious.parent, overwrite=True)
    with pytest.raises(UsageError, match="is a file"):
        convert(FIXTURES / "beats_tiny.pt", precious, overwrite=True)
    monkeypatch.chdir(precious.parent)
    for output_dir in (Path(), Path("..")):
        with pytest.raises(UsageError, match="current directory"):
            convert(FIXTURES / "beats_tiny.pt", output_dir, overwrite=True)
    assert precious.exists()


def test_a_directory_that_holds_more_than_a_conversion_is_not_replaced(tmp_path):
    converted = tmp_path / "converted"
    convert(FIXTURES / "beats_tiny.pt", converted)
    names = ["model.pt", "last.ckpt", "pytorch_model.bin", "handler.py", "my_beats.py", "raw/x.pth", "checkpoint-5/a"]
    for name in names:
        path = converted / name
        path.parent.mkdir(exist_ok=True)
        path.touch()
        refused = f"holds '{name.partition('/')[0]}', which --overwrite would delete"
        with pytest.raises(UsageError, match=refused):
            convert(FIXTURES / "beats_tiny.pt", converted, overwrite=True)
        path.unlink()
        if path.parent != converted:
            path.parent.rmdir()
    convert(FIXTURES / "beats_tiny.pt", converted, overwrite=True)


@pytest.mark.parametrize("role", ["source", "cfg", "labels"])
def test_what_a_conversion_reads_is_not_replaced(role, tmp_path):
    converted = tmp_path / "converted"
    convert(FIXTURES / "beats_tiny.pt", converted)
    path = converted / ("model.safetensors" if role == "source" else "config.json")
    (tmp_path / "link").symlink_to(path)
    for name in (path, tmp_path / "link"):
        arguments = {"source": FIXTURES / "beats_tiny.pt", role: [name] if role == "cfg" else name}
        with pytest.raises(UsageError, match=re.escape(f"{name}: --overwrite would delete it with ")):
            convert(**arguments, output_dir=converted, overwrite=True)
    assert path.exists()


@pytest.mark.parametrize("was_there", [False, True])
def test_what_others_write_to_the_output_meanwhile_stays(was_there, tmp_path, monkeypatch):
    output_dir = tmp_path / "out"
    if was_there:
        convert(FIXTURES / "beats_tiny.pt", output_dir)
    save = BeatsFeatureExtractor.save_pretrained

    def save_late(self, *args, **kwargs):
        output_dir.mkdir(exist_ok=True)
        (output_dir / "thesis.txt").touch()
        return save(self, *args, **kwargs)

    monkeypatch.setattr(BeatsFeatureExtractor, "save_pretrained", save_late)
    with pytest.raises(UsageError, match=r"thesis\.txt" if was_there else "is not empty"):
        convert(FIXTURES / "beats_tiny.pt", output_dir, overwrite=was_there)
    assert (output_dir / "thesis.txt").exists()
    assert list(tmp_path.iterdir()) == [output_dir]


def test_models_that_were_converted_to_a_folder_of_the_source_are_no_sources(tmp_path, monkeypatch):
    (tmp_path / "deep" / "repository").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "deep" / "repository")
    shutil.copy(FIXTURES / "beats_tiny.pt", "BEATs.pt")
    for output in ("converted", "models/again"):
        for options in ([], ["--overwrite"]):
            result = CliRunner().invoke(app, ["convert", ".", output, *options])
            assert result.exit_code == 0, result.output
    # A checkpoint beside a converted model is one.
    shutil.copy(FIXTURES / "beats_tiny.pt", "converted/other.pt")
    result = CliRunner().invoke(app, ["convert", ".", "out"])
    assert "has 2 checkpoints" in result.stderr
    assert "converted/other.pt" in result.stderr


def test_an_output_that_cannot_be_written_is_refused_before_the_source_is_read(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    for path, message in {
        "file/out": r"cannot be written: .*/file is no folder",
        "x" * 300: "cannot be written: File name too long",
    }.items():
        with pytest.raises(UsageError, match=message):
            convert(tmp_path / "absent.pt", tmp_path / path)
    longest = tmp_path / ("x" * 255)
    convert(FIXTURES / "beats_tiny.pt", longest)
    monkeypatch.setattr(os.path, "ismount", lambda path: Path(path) == longest)
    with pytest.raises(UsageError, match="cannot be replaced, only filled"):
        convert(tmp_path / "absent.pt", longest, overwrite=True)
    shutil.rmtree(longest)
    longest.mkdir()
    convert(FIXTURES / "beats_tiny.pt", longest)
    assert BeatsModel.from_pretrained(longest).config.hidden_size == 64


@pytest.mark.parametrize("statistics", [{"fbank_std": 0.0}, {"fbank_mean": float("nan")}])
def test_impossible_statistics_are_refused(statistics, tmp_path):
    with pytest.raises(UsageError, match="fbank_std"):
        convert(FIXTURES / "beats_tiny.pt", tmp_path / "out", **statistics)
    assert not (tmp_path / "out").exists()


@settings(max_examples=60, deadline=None)
@given(start=st.sampled_from([b"", b"\x80\x02", b"PK\x03\x04"]), rest=st.binary(max_size=200))
def test_random_bytes_are_refused(start, rest):
    with tempfile.NamedTemporaryFile(suffix=".pt") as file:
        file.write(start + rest)
        file.flush()
        with pytest.raises(CheckpointError) as caught:
            read_checkpoint(file.name)
        assert len(str(caught.value).splitlines()) == 1


def test_an_interrupted_conversion_leaves_nothing(tmp_path, monkeypatch):
    def interrupt(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(BeatsFeatureExtractor, "save_pretrained", interrupt)
    with pytest.raises(KeyboardInterrupt):
        convert(FIXTURES / "beats_tiny.pt", tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def signal_while_writing(tmp_path, number: int) -> None:
    """Starts a conversion to `out`, sends it a signal once it has begun to write, and waits for its end."""
    process = subprocess.Popen(
        [sys.executable, str(SCRIPT), str(FIXTURES / "beats_tiny.pt"), str(tmp_path / "out")],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    while process.poll() is None and not list(tmp_path.iterdir()):
        time.sleep(0.001)
    process.send_signal(number)
    process.wait()


def test_an_ended_conversion_leaves_nothing(tmp_path):
    signal_while_writing(tmp_path, signal.SIGTERM)
    assert [path.name for path in tmp_path.iterdir()] in ([], ["out"])


def test_a_killed_conversion_leaves_no_directory_that_looks_finished(tmp_path):
    signal_while_writing(tmp_path, signal.SIGKILL)
    if (tmp_path / "out").exists():
        BeatsModel.from_pretrained(tmp_path / "out")


def test_command_line_reports_what_it_did(run_script, tmp_path):
    result = run_script(FIXTURES / "beats_tiny_finetuned.pt", tmp_path / "out")
    assert result.returncode == 0, result.stderr
    assert "BEATs, finetuned, 0.1 M parameters" in result.stdout
    assert result.stderr == f"Next: transformers-beats tag -m {tmp_path / 'out'} FILE_OR_FOLDER\n"
    assert (tmp_path / "out" / "model.safetensors").is_file()


def test_a_flipped_bit_in_the_weights_is_found(tmp_path):
    data = bytearray((FIXTURES / "beats_tiny.pt").read_bytes())
    data[len(data) // 2] ^= 1
    (tmp_path / "flipped.pt").write_bytes(data)
    with pytest.raises(CheckpointError, match="checksum"):
        read_checkpoint(tmp_path / "flipped.pt")


def test_a_name_with_line_ends_does_not_make_a_message_long(altered):
    with pytest.raises(CheckpointError) as caught:
        read_checkpoint(altered("beats_tiny", lambda c: c["model"].update({"x\nerror: y": torch.zeros(1)})))
    assert len(str(caught.value).splitlines()) == 1


def test_a_compressed_archive_is_refused(tmp_path):
    packed = zipfile.ZipFile(tmp_path / "packed.pt", "w", zipfile.ZIP_DEFLATED)
    with zipfile.ZipFile(FIXTURES / "beats_tiny.pt") as source, packed as target:
        for name in source.namelist():
            target.writestr(name, source.read(name))
    with pytest.raises(CheckpointError, match="compressed"):
        read_checkpoint(tmp_path / "packed.pt")


def test_an_output_link_that_goes_in_circles_is_an_error_of_the_file_system(tmp_path):
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(OSError, match="loop"):
        convert(FIXTURES / "beats_tiny.pt", tmp_path / "loop")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["MODEL", "back.pt", "--origin", "espnet"], "leave out --origin"),
        (["MODEL", "back.pt", "--fbank-mean", "1", "--cfg", "released"], "leave out --cfg, --fbank-mean"),
        (["MODEL", "other"], "is a model for transformers already (beats), not a checkpoint"),
        (["SOURCE", "back.pt"], "is a file, and a model is a directory"),
        (["absent.pt", "other"], "absent.pt: no such file"),
    ],
)
def test_arguments_that_cannot_be_used_are_a_usage_error(arguments, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    convert(FIXTURES / "beats_tiny.pt", tmp_path / "model")
    names = {"MODEL": "model", "SOURCE": str(FIXTURES / "beats_tiny.pt")}
    result = CliRunner().invoke(app, ["convert", *(names.get(word, word) for word in arguments)])
    assert result.exit_code == 2
    assert message in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_damaged_feature_extractor_stops_the_way_back_and_an_absent_one_does_not(tmp_path):
    convert(FIXTURES / "beats_tiny.pt", tmp_path / "model")
    (tmp_path / "model" / "preprocessor_config.json").write_text("[]")
    with pytest.raises(BeatsError, match="cannot be loaded"):
        export(str(tmp_path / "model"), tmp_path / "back.pt")
    assert not (tmp_path / "back.pt").exists()
    (tmp_path / "model" / "preprocessor_config.json").unlink()
    assert export(str(tmp_path / "model"), tmp_path / "back.pt") == []


def test_the_way_back_names_what_microsofts_code_does_otherwise(tiny_config, tmp_path):
    tiny_config.num_labels = 1
    BeatsForAudioClassification(tiny_config).save_pretrained(tmp_path / "model")
    BeatsFeatureExtractor(fbank_mean=1.0, sampling_rate=32000).save_pretrained(tmp_path / "model")
    assert export(str(tmp_path / "model"), tmp_path / "back.pt") == [
        "call it with fbank_mean=1.0, fbank_std=6.55582: they are not its own",
        "the model reads audio at 32000 Hz, but Microsoft's code computes the fbank of 16000 Hz",
        "a regression predicts the logits, but Microsoft's code takes a sigmoid of each",
    ]
