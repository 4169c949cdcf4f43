# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""The comparison of a converted directory with its source finds whatever was changed in it."""

import json
import math
import shutil
import subprocess
import sys

import pytest
import torch
import typer
from golden import CHECKPOINTS, FIXTURES
from safetensors.torch import load_file, save_file

from transformers_beats import BeatsFeatureExtractor, BeatsForAudioClassification
from transformers_beats.conversion.checkpoint import read_checkpoint
from transformers_beats.conversion.convert import convert
from transformers_beats.conversion.verify import UnreadableError, main, verify


SOURCE = FIXTURES / "beats_tiny_finetuned.pt"
WEIGHTS, CONFIG, EXTRACTOR = "model.safetensors", "config.json", "preprocessor_config.json"


@pytest.fixture(scope="session")
def pristine(tmp_path_factory):
    """A golden checkpoint with a head, converted."""
    directory = tmp_path_factory.mktemp("converted") / "model"
    convert(SOURCE, directory)
    return directory


@pytest.fixture
def converted(pristine, tmp_path):
    """A copy of it to spoil."""
    return shutil.copytree(pristine, tmp_path / "model")


@pytest.fixture
def change_tensors(converted):
    """Rewrites the weights after `change(tensors)`."""

    def rewrite(change):
        tensors = load_file(converted / WEIGHTS)
        change(tensors)
        save_file({name: tensor.clone() for name, tensor in tensors.items()}, converted / WEIGHTS)
        return verify(SOURCE, converted).differences

    return rewrite


@pytest.fixture
def change_json(converted):
    """Rewrites a JSON file after `change(contents)`."""

    def rewrite(name, change):
        contents = json.loads((converted / name).read_text())
        change(contents)
        (converted / name).write_text(json.dumps(contents))
        return verify(SOURCE, converted).differences

    return rewrite


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_nothing_differs_after_a_conversion(name, tmp_path):
    source = FIXTURES / f"{name}.pt"
    checkpoint = convert(source, tmp_path / "model")
    report = verify(source, tmp_path / "model")
    assert report.differences == []
    assert report.kind == checkpoint.kind
    assert report.num_tensors == len(checkpoint.state_dict)
    assert report.num_values == sum(tensor.numel() for tensor in checkpoint.state_dict.values())
    assert report.num_labels == (6 if name == "beats_tiny_finetuned" else 0)
    assert report.is_card_of_source
    assert report.source_sha256 == checkpoint.sha256
    leftovers = ["quantize.embedding.cluster_size", "quantize.embedding.embed_avg"]
    assert list(report.without_counterpart) == (leftovers if name == "tokenizer_tiny" else [])


def test_a_flipped_bit_is_found(change_tensors):
    name = "beats.encoder.layers.1.mlp.fc2.weight"
    (difference,) = change_tensors(lambda tensors: tensors[name].view(torch.int32)[3, 5].bitwise_xor_(1))
    assert f"`{name}` and `encoder.layers.1.fc2.weight`: 1 of 6144 values, first at (3, 5)" in difference


def test_a_zero_with_another_sign_is_found(tmp_path):
    contents = torch.load(SOURCE, weights_only=True)
    contents["model"]["predictor.bias"][2] = 0.0
    torch.save(contents, tmp_path / "source.pt")
    convert(tmp_path / "source.pt", tmp_path / "model")
    tensors = load_file(tmp_path / "model" / WEIGHTS)
    tensors["classifier.bias"][2] = -0.0
    save_file(tensors, tmp_path / "model" / WEIGHTS)
    (difference,) = verify(tmp_path / "source.pt", tmp_path / "model").differences
    assert "1 of 6 values, first at (2,): -0 and 0" in difference


def test_swapped_layers_are_found(change_tensors):
    def swap(tensors):
        first, second = (f"beats.encoder.layers.{layer}.self_attn.q_proj.bias" for layer in (0, 2))
        tensors[first], tensors[second] = tensors[second], tensors[first]

    differences = change_tensors(swap)
    assert [difference.split("`")[3] for difference in differences] == [
        "encoder.layers.0.self_attn.q_proj.bias",
        "encoder.layers.2.self_attn.q_proj.bias",
    ]


def test_a_missing_and_a_surplus_tensor_are_found(change_tensors):
    differences = change_tensors(lambda tensors: tensors.update(extra=tensors.pop("beats.embeddings.layer_norm.bias")))
    assert differences == [
        "`extra` has no counterpart in the source",
        "`layer_norm.bias` of the source has no counterpart in the directory",
    ]


def test_another_dtype_or_shape_is_found(change_tensors):
    def alter(tensors):
        tensors["classifier.bias"] = tensors["classifier.bias"].half()
        tensors["classifier.weight"] = tensors["classifier.weight"][:5]

    differences = change_tensors(alter)
    assert "torch.float16 and torch.float32" in differences[0]
    assert "shape (5, 64) and (6, 64)" in differences[1]


def test_a_relative_bias_that_one_layer_does_not_share_is_found(converted, tmp_path):
    contents = torch.load(SOURCE, weights_only=True)
    key = "encoder.layers.2.self_attn.relative_attention_bias.weight"
    contents["model"][key] = contents["model"][key] + 1
    torch.save(contents, tmp_path / "source.pt")
    differences = verify(tmp_path / "source.pt", converted).differences
    assert key in differences[0]
    assert "names another source" in differences[1]


def test_a_wrong_order_of_labels_is_found(change_json):
    def swap(config):
        names = config["id2label"]
        names["0"], names["1"] = names["1"], names["0"]

    assert change_json(CONFIG, swap) == [
        "config.json: label 0 is 'Rain', the source has 'Dog'",
        "config.json: label 1 is 'Dog', the source has 'Rain'",
    ]


def test_labels_that_do_not_lead_back_are_found(change_json):
    (difference,) = change_json(CONFIG, lambda config: config["label2id"].update(Dog=1))
    assert "`label2id` does not lead from 'Dog' back to 0" in difference


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("deep_norm", False),
        ("max_bucket_distance", 800),
        ("hidden_act", "gelu_new"),
        ("classifier_dropout", 0.3),
        ("layer_norm_eps", 1e-6),
        ("legacy_padding_mask", True),
        ("architectures", ["BeatsModel"]),
        ("dtype", "bfloat16"),
        ("problem_type", None),
    ],
)
def test_a_changed_setting_is_found(name, value, change_json):
    (difference,) = change_json(CONFIG, lambda config: config.update({name: value}))
    assert difference.startswith(f"config.json: `{name}` is {value!r}")


@pytest.mark.parametrize(
    ("name", "value"), [("fbank_mean", 15.2), ("sampling_rate", 8000), ("patch_size", 8), ("padding_value", 0.0)]
)
def test_a_changed_front_end_is_found(name, value, change_json):
    differences = change_json(EXTRACTOR, lambda extractor: extractor.update({name: value}))
    assert differences[0].startswith(f"preprocessor_config.json: `{name}` is {value!r}")


def test_statistics_that_were_asked_for_are_right(tmp_path):
    statistics = {"fbank_mean": 15.2913, "fbank_std": 5.90532}
    convert(SOURCE, tmp_path / "model", **statistics)
    assert len(verify(SOURCE, tmp_path / "model").differences) == 2
    report = verify(SOURCE, tmp_path / "model", statistics)
    assert report.differences == []
    assert report.statistics == statistics


def test_a_card_of_another_source_is_found(converted):
    (converted / "README.md").write_text(f"Converted from SHA-256 `{'0' * 64}`.")
    (difference,) = verify(SOURCE, converted).differences
    assert "names another source" in difference


def test_a_missing_card_is_only_said(converted):
    (converted / "README.md").unlink()
    report = verify(SOURCE, converted)
    assert (report.differences, report.is_card_of_source) == ([], None)
    assert report.notes == ["no hash of the source in README.md"]


def test_weights_in_several_files_are_compared(converted):
    model = BeatsForAudioClassification.from_pretrained(converted)
    (converted / WEIGHTS).unlink()
    model.save_pretrained(converted, max_shard_size="200KB")
    report = verify(SOURCE, converted)
    assert report.differences == []
    assert len(report.model_sha256) == math.ceil(4 * report.num_values / 200_000)


@pytest.mark.parametrize(
    ("origin", "prefix", "head", "kind"),
    [("avex", "backbone.", "classifier.", "finetuned"), ("espnet", "encoder.", "decoder.linear_out.", "pretrained")],
)
def test_models_within_other_models_are_compared(origin, prefix, head, kind, tmp_path):
    contents = torch.load(SOURCE, weights_only=True)
    tensors = {f"{prefix}{key}": tensor for key, tensor in contents["model"].items()}
    tensors |= {f"{head}{name}": tensors[f"{prefix}predictor.{name}"] for name in ("weight", "bias")}
    tensors[f"{prefix}predictor.weight"] = torch.ones(6, 64)
    position = f"{prefix}encoder.pos_conv.0."
    tensors[f"{position}parametrizations.weight.original0"] = tensors.pop(f"{position}weight_g")
    torch.save({"cfg": contents["cfg"], "model": tensors}, tmp_path / "source.pt")
    checkpoint = read_checkpoint(tmp_path / "source.pt", origin)
    checkpoint.build_model().save_pretrained(tmp_path / "model")
    BeatsFeatureExtractor().save_pretrained(tmp_path / "model")
    report = verify(tmp_path / "source.pt", tmp_path / "model")
    assert report.differences == []
    assert report.kind == checkpoint.kind == kind
    assert report.without_counterpart[f"{prefix}predictor.weight"] == "a head inside another model"


@pytest.mark.parametrize("missing", [CONFIG, WEIGHTS, EXTRACTOR])
def test_an_incomplete_directory_is_an_error_of_one_line(missing, converted):
    (converted / missing).unlink()
    with pytest.raises(UnreadableError, match=missing) as caught:
        verify(SOURCE, converted)
    assert len(str(caught.value).splitlines()) == 1


def test_sources_without_a_model_are_an_error(converted, tmp_path):
    torch.save({"model": {"a": torch.zeros(1)}}, tmp_path / "source.pt")
    with pytest.raises(UnreadableError, match=r"holds no `patch_embedding\.weight`"):
        verify(tmp_path / "source.pt", converted)
    with pytest.raises(UnreadableError, match="cannot be read"):
        verify(tmp_path / "absent.pt", converted)


def test_the_command_line_reports_and_fails_on_a_difference(converted):
    command = [sys.executable, "-m", "transformers_beats.conversion.verify", str(SOURCE), str(converted)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert "fbank_mean 15.41663" in result.stdout
    assert "holds what" in result.stdout


def test_the_command_line_names_the_first_differences(converted, capsys):
    with pytest.raises(typer.Exit) as caught:
        main(FIXTURES / "beats_tiny_prenorm.pt", converted)
    assert caught.value.exit_code == 1
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("DIFFERENT")]
    assert len(lines) == 11
    assert lines[-1].endswith("more; --json lists all")


def test_the_whole_report_is_there_as_json(converted, capsys):
    main(SOURCE, converted, as_json=True)
    report = json.loads(capsys.readouterr().out)
    assert report["num_labels"] == 6
    assert report["differences"] == []
