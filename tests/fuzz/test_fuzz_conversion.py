# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
# ruff: noqa: PT017  # either a result or an error: `pytest.raises` demands one
"""The converter on any file: the model that the file holds, or one line, and nothing left on the disk."""

import json
import os
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from converting import assert_converted_or_refused, contents_of, read, to_bytes
from fuzzing import DAMAGES, IS_THOROUGH, count, damage, fuzz
from golden import CHECKPOINTS, FIXTURES
from huggingface_hub import ModelCard
from hypothesis import strategies as st
from safetensors.torch import save
from typer.testing import CliRunner

from transformers_beats.cli.app import app
from transformers_beats.conversion.checkpoint import CheckpointError, read_checkpoint
from transformers_beats.conversion.convert import convert
from transformers_beats.utils.errors import BeatsError


NAMES = st.sampled_from(CHECKPOINTS)
SEEDS = st.integers(0, 2**32)


def assert_one_line(*arguments) -> bool:
    """Converts: exit status 0, or 1 or 2 and one line on stderr. Returns whether it did what it was asked."""
    result = CliRunner().invoke(app, ["convert", *map(str, arguments)])
    if result.exit_code == 0:
        return True
    assert isinstance(result.exception, SystemExit), repr(result.exception)
    assert result.exit_code in (1, 2), result.output
    # What is left of progress bars comes before.
    assert result.stderr.splitlines()[-1].startswith("error: ")
    assert result.stderr.count("\n") <= 2, result.stderr
    return False


# Damage


@pytest.mark.parametrize("layout", ["zip", "legacy"])
def test_a_file_cut_anywhere_is_refused(layout):
    data = to_bytes(contents_of("beats_tiny"), layout)
    step = max(1, len(data) // (1000 if IS_THOROUGH else 12))
    for length in range(0, len(data), step):
        assert not assert_converted_or_refused(data[:length])
        count("test_a_file_cut_anywhere_is_refused")


@fuzz(15, 1000, name=NAMES, layout=st.sampled_from(["zip", "legacy"]), how=st.sampled_from(DAMAGES), seed=SEEDS)
def test_damaged_files_are_refused_or_hold_finite_numbers(name, layout, how, seed):
    data = to_bytes(contents_of(name), layout)
    assert_converted_or_refused(damage(data, how, np.random.default_rng(seed)))


@fuzz(25, 1500, name=NAMES, seed=SEEDS)
def test_flipped_bits_in_a_zip_are_never_taken_for_weights(name, seed):
    data, generator = read(name), np.random.default_rng(seed)
    flipped = bytearray(data)
    flipped[int(generator.integers(len(data)))] ^= 1 << int(generator.integers(8))
    with tempfile.TemporaryDirectory() as directory:
        source = Path(directory) / "source.pt"
        source.write_bytes(flipped)
        try:
            found = read_checkpoint(source).state_dict
        except CheckpointError:
            return
        # A bit that says nothing: padding, a date.
        expected = read_checkpoint(FIXTURES / f"{name}.pt").state_dict
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[key], expected[key]) for key in expected)


@fuzz(12, 2000, name=NAMES, how=st.sampled_from(DAMAGES), seed=SEEDS)
def test_damaged_safetensors_are_refused_or_hold_finite_numbers(name, how, seed):
    data = save({key: tensor.clone() for key, tensor in contents_of(name)["model"].items()})
    assert not assert_converted_or_refused(damage(data, how, np.random.default_rng(seed)), ".safetensors")


STARTS = [
    b"",
    b"\x80\x02",
    b"\x80\x04\x95",
    b"PK\x03\x04",
    b"PK\x05\x06" + 18 * b"\0",
    b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.",
]
STARTS += [(16).to_bytes(8, "little") + b'{"a":{"dtype":', (2**63).to_bytes(8, "little")]


@fuzz(
    50,
    4000,
    start=st.sampled_from(STARTS),
    rest=st.binary(max_size=300),
    suffix=st.sampled_from([".pt", ".bin", ".safetensors"]),
)
def test_random_bytes_are_refused(start, rest, suffix):
    assert not assert_converted_or_refused(start + rest, suffix)


# What does not fit


VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-2, 200),
    st.sampled_from([2**31, 2**62, 2**63, 10**30, -(2**63)]),
    st.floats(),
    st.text(max_size=4),
    st.binary(max_size=3),
    st.lists(st.integers(0, 3), max_size=2),
    st.dictionaries(st.integers(0, 3), st.text(max_size=2), max_size=2),
    st.builds(lambda: torch.zeros(2)),
    st.sampled_from(["gelu", "relu", "12", "True", "\ud800", "a\nb"]),
)
CFG_KEYS = sorted(
    {*contents_of("beats_tiny_finetuned")["cfg"], *contents_of("tokenizer_tiny")["cfg"], "fbank_mean", "x"}
)


@fuzz(
    12,
    250,
    name=NAMES,
    changes=st.dictionaries(st.sampled_from(CFG_KEYS), VALUES, min_size=1, max_size=3),
    removed=st.lists(st.sampled_from(CFG_KEYS), max_size=1),
)
def test_any_settings_are_refused_or_fit(name, changes, removed):
    contents = contents_of(name)
    contents["cfg"] = {key: value for key, value in (contents["cfg"] | changes).items() if key not in removed}
    assert_converted_or_refused(to_bytes(contents))


TENSOR_CHANGES = {
    "half": lambda tensor: tensor.half(),
    "bfloat16": lambda tensor: tensor.bfloat16(),
    "double": lambda tensor: tensor.double(),
    "float8": lambda tensor: tensor.to(torch.float8_e4m3fn),
    "int": lambda tensor: tensor.int(),
    "int8": lambda tensor: tensor.to(torch.int8),
    "bool": lambda tensor: tensor.bool(),
    "complex": lambda tensor: tensor.to(torch.complex64),
    "sparse": lambda tensor: tensor.to_sparse(),
    "meta": lambda tensor: tensor.to("meta"),
    "nan": lambda tensor: tensor + float("nan"),
    "infinite": lambda tensor: tensor / 0,
    "empty": lambda tensor: tensor[:0],
    "scalar": lambda tensor: tensor.sum(),
    "row": lambda tensor: tensor[None],
    "flat": lambda tensor: tensor.reshape(-1),
    "transposed": lambda tensor: tensor.T if tensor.ndim == 2 else tensor,
    "twice": lambda tensor: torch.cat([tensor, tensor]) if tensor.ndim else tensor,
    "strided": lambda tensor: torch.stack([tensor, tensor], dim=-1)[..., 0],
    "expanded": lambda tensor: tensor.reshape(-1)[:1].expand(tensor.numel()).reshape(tensor.shape),
    "view": lambda tensor: torch.cat([tensor.reshape(-1), torch.ones(9)])[: tensor.numel()].reshape(tensor.shape),
    "gradient": lambda tensor: tensor.clone().requires_grad_(),
    "parameter": lambda tensor: torch.nn.Parameter(tensor.clone()),
    "enormous": lambda tensor: torch.zeros(1).expand(2**40),
    "none": lambda tensor: None,
    "list": lambda tensor: tensor.tolist(),
    "number": lambda tensor: 1.0,
}
KEY_CHANGES = {
    "removed": lambda key: None,
    "prefixed": lambda key: f"module.{key}",
    "renamed": lambda key: key + "x",
    "other layer": lambda key: key.replace("layers.0", "layers.7"),
    "huge layer": lambda key: key.replace("layers.0", f"layers.{10**30}"),
    "bytes": lambda key: key.encode(errors="surrogatepass"),
    "number": lambda key: 3,
    "tuple": lambda key: (key,),
    "empty": lambda key: "",
    "lines": lambda key: f"{key}\nerror:",
    "surrogate": lambda key: f"{key}\ud800",
}


@fuzz(
    8,
    250,
    name=NAMES,
    changes=st.lists(
        st.tuples(
            st.integers(0, 10**4),
            st.one_of(
                st.sampled_from(sorted(TENSOR_CHANGES)), st.sampled_from(sorted(KEY_CHANGES)).map("key ".__add__)
            ),
        ),
        min_size=1,
        max_size=3,
    ),
    is_all=st.booleans(),
)
def test_any_change_of_the_tensors_is_refused_or_finite(name, changes, is_all):
    contents = contents_of(name)
    model = contents["model"]
    for number, change in changes:
        keys = list(model)
        for key in keys if is_all else [keys[number % len(keys)]]:
            if not isinstance(key, str) or not isinstance(model[key], torch.Tensor):
                continue
            tensor = model.pop(key)
            if change.startswith("key "):
                key = KEY_CHANGES[change.removeprefix("key ")](key)
            elif tensor.layout == torch.strided and tensor.device.type == "cpu" and not tensor.is_complex():
                if change != "enormous" and tensor.numel() > 10**6:
                    continue
                tensor = TENSOR_CHANGES[change](tensor.float().detach())
            if key is not None:
                model[key] = tensor
        if not model:
            break
    assert_converted_or_refused(to_bytes(contents))


LABEL_KEYS = st.one_of(st.integers(-1, 6), st.text(max_size=2), st.none(), st.floats(), st.booleans())
LABELS = st.one_of(
    VALUES,
    st.dictionaries(LABEL_KEYS, st.one_of(VALUES, st.text(max_size=3)), max_size=7),
    st.lists(st.text(max_size=3), min_size=6, max_size=6).map(lambda names: dict(enumerate(names))),
    st.lists(VALUES, min_size=6, max_size=6).map(lambda names: dict(enumerate(names))),
)


@fuzz(5, 200, labels=LABELS)
def test_any_labels_are_refused_or_kept(labels):
    contents = contents_of("beats_tiny_finetuned")
    contents["label_dict"] = labels
    assert_converted_or_refused(to_bytes(contents), is_whole=True)


@fuzz(
    40,
    1500,
    contents=st.recursive(
        VALUES,
        lambda x: st.one_of(
            st.lists(x, max_size=3),
            st.dictionaries(
                st.one_of(
                    st.sampled_from(["cfg", "model", "state_dict", "patch_embedding.weight"]),
                    st.integers(),
                    st.text(max_size=3),
                ),
                x,
                max_size=4,
            ),
        ),
        max_leaves=8,
    ),
)
def test_any_contents_are_refused(contents):
    assert not assert_converted_or_refused(to_bytes(contents))


ENTRIES = [
    "cfg",
    "beats_cfg",
    "encoder_conf",
    "model_spec",
    "encoder_layers",
    "deep_norm",
    "token_list",
    "decoder_conf",
]
ENTRIES += [
    "model_conf",
    "decoder",
    "frontend",
    "beats_config",
    "init_config",
    "beats_ckpt_path",
    "max_layer",
    "fbank_mean",
]
TREES = st.recursive(
    st.one_of(st.none(), st.integers(-2, 200), st.floats(), st.text(max_size=3), st.booleans(), st.dates()),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.sampled_from(ENTRIES + CFG_KEYS), inner, max_size=4)
    ),
    max_leaves=15,
)
WEIRD_YAML = [
    "a: 2001-99-99",
    "{[a]: b}",
    "? {}",
    "a: !!python/object/apply:os.system [id]",
    "- " * 5000,
    "&a [*a]",
    "a: &x {b: *x}",
]
WEIRD_YAML += ["a: 0b", "a: !!int x", "a: !!float x", "a: !!binary x", "\0", "a: !!timestamp x", "{" * 3000, "<<: 3"]


@fuzz(
    15,
    400,
    text=st.one_of(
        st.dictionaries(st.sampled_from(ENTRIES), TREES, max_size=6).map(yaml.safe_dump),
        st.text(max_size=40),
        st.sampled_from(WEIRD_YAML),
    ),
)
def test_any_settings_file_is_refused_or_fits(text):
    with tempfile.TemporaryDirectory() as name:
        source, settings = Path(name) / "weights.pt", Path(name) / "config.yaml"
        weights = contents_of("beats_tiny")["model"]
        torch.save(
            {f"encoder.{key}": value for key, value in weights.items()}
            | {"decoder.linear_out.weight": torch.zeros(6, 64), "decoder.linear_out.bias": torch.zeros(6)},
            source,
        )
        settings.write_text(text, encoding="utf-8", errors="surrogatepass")
        for origin in ("auto", "espnet"):
            try:
                read_checkpoint(source, origin=origin, cfg=[settings])
            except BeatsError as error:
                assert len(str(error).splitlines()) == 1, str(error)


# Paths


FILE_NAMES = [
    "with space.pt",
    "-o.pt",
    "ü\n'\".pt",
    "--- x: [.pt",
    "{{ x }}.pt",
    "%s.pt",
    "[a](b).pt",
    "x" * 200 + ".pt",
]


@pytest.mark.parametrize("name", FILE_NAMES)
def test_any_file_name_converts(name, tmp_path):
    source = tmp_path / name
    source.write_bytes(read("beats_tiny"))
    convert(source, tmp_path / "out")
    assert ModelCard.load(tmp_path / "out" / "README.md").data.library_name == "transformers"
    count("test_any_file_name_converts")


def test_a_name_that_is_no_text_is_refused_as_such(tmp_path):
    source = tmp_path / os.fsdecode(b"latin-\xe9.pt")
    source.write_bytes(read("beats_tiny"))
    with pytest.raises(CheckpointError, match="rename it"):
        convert(source, tmp_path / "out")


def test_links_are_followed_and_only_files_read(tmp_path):
    (tmp_path / "link.pt").symlink_to(FIXTURES / "beats_tiny.pt")
    (tmp_path / "real").mkdir()
    (tmp_path / "out").symlink_to(tmp_path / "real")
    convert(tmp_path / "link.pt", tmp_path / "out")
    assert (tmp_path / "out").is_symlink()
    assert (tmp_path / "real" / "model.safetensors").is_file()
    (tmp_path / "loop.pt").symlink_to("loop.pt")
    (tmp_path / "nowhere.pt").symlink_to("absent")
    os.mkfifo(tmp_path / "pipe.pt")
    for name in ("loop.pt", "nowhere.pt", "pipe.pt", "real"):
        assert not assert_one_line(tmp_path / name, tmp_path / "new")
    assert not assert_one_line("/dev/zero", tmp_path / "new")
    assert not assert_one_line(tmp_path / "link.pt", tmp_path / "link.pt" / "out")
    assert not assert_one_line(tmp_path / "link.pt", tmp_path / "loop.pt")
    assert not (tmp_path / "new").exists()
    count("test_links_are_followed_and_only_files_read", 8)


# The way back


@pytest.fixture(scope="module")
def converted(tmp_path_factory):
    """Converted directories."""
    root = tmp_path_factory.mktemp("converted")
    for name in CHECKPOINTS:
        convert(FIXTURES / f"{name}.pt", root / name)
    return root


JSON_VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-2, 100),
    st.floats(allow_nan=False),
    st.text(max_size=4),
    st.lists(st.integers(0, 3), max_size=2),
    st.dictionaries(st.text(max_size=2), st.integers(0, 3), max_size=2),
)


@fuzz(
    10,
    100,
    name=NAMES,
    file=st.sampled_from(["config.json", "preprocessor_config.json", "model.safetensors", "README.md"]),
    how=st.one_of(st.sampled_from(["remove", "directory", "value", "not a mapping"]), st.sampled_from(DAMAGES)),
    value=JSON_VALUES,
    seed=SEEDS,
)
def test_damaged_directories_are_exported_or_refused(converted, name, file, how, value, seed):
    generator = np.random.default_rng(seed)
    with tempfile.TemporaryDirectory() as root:
        directory = Path(root) / "model"
        shutil.copytree(converted / name, directory)
        path = directory / file
        data = path.read_bytes()
        path.unlink()
        if how == "directory":
            path.mkdir()
        elif how == "value" and file.endswith(".json"):
            contents = json.loads(data)
            contents[list(contents)[generator.integers(len(contents))]] = value
            path.write_text(json.dumps(contents))
        elif how == "not a mapping":
            path.write_text(json.dumps(value if not isinstance(value, dict) else []))
        elif how in DAMAGES:
            path.write_bytes(damage(data, how, generator))
        if not assert_one_line(directory, Path(root) / "exported.pt"):
            assert sorted(os.listdir(root)) == ["model"]
