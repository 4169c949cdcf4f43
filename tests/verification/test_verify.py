# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""`transformers-beats verify`: against a Hub on this machine, with random weights under a manifest of their own."""

import csv
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
import yaml
from golden import FIXTURES
from hub.server import local_hub
from huggingface_hub import HfApi, constants
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from transformers_beats.audio.audioset import AUDIOSET_LABELS
from transformers_beats.cli.app import app
from transformers_beats.conversion.convert import convert
from transformers_beats.conversion.released import MANIFEST_VARIABLE
from transformers_beats.inference.loading import load
from transformers_beats.verification import checks
from transformers_beats.verification.checks import CLIPS, Check, read_clips
from transformers_beats.verification.plain import LayoutError, read_file


NAME = "our-classifier"
# The command, but that speed, of which no test knows what is right, is measured on one clip.
BRIEF = """
from transformers_beats.cli.app import main
from transformers_beats.verification import checks
checks.SPEED_CLIPS = checks.SPEED_TURNS = 1
main()
"""


def failed(found: list[Check]) -> list[str]:
    return [re.split("[,;]", check.name)[0] for check in found if not check.passed]


def write_manifest(path: Path, source: Path, **entry) -> Path:
    """A manifest of one checkpoint, a copy of which is in the repository user/mirror."""
    contents = torch.load(source, weights_only=True)
    facts = {
        "file": source.name,
        "name": NAME,
        "kind": "finetuned" if "label_dict" in contents else "pretrained",
        "title": "Random weights",
        "summary": "A test.",
        "license": "mit",
        "bytes": source.stat().st_size,
        "sha256": hashlib.sha256(source.read_bytes()).hexdigest(),
        "cfg": contents["cfg"],
        "mirrors": [f"hf://user/mirror/{source.name}"],
    }
    path.write_text(yaml.safe_dump({"checkpoints": [{**facts, **entry}]}))
    return path


@pytest.fixture(scope="module")
def session(tmp_path_factory, classifier_file):
    """A Hub without checkpoints yet; uploads one and runs `verify` in a process that knows this Hub only."""
    root = tmp_path_factory.mktemp("session")
    with local_hub() as hub, pytest.MonkeyPatch.context() as patch:
        patch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        api = HfApi(endpoint=hub.endpoint, token=hub.token)
        api.create_repo("user/mirror")

        def run(source: Path, *words, is_brief: bool = False, **entry) -> subprocess.CompletedProcess:
            if source.name not in hub.repository("user/mirror").at("main").files:
                api.upload_file(repo_id="user/mirror", path_in_repo=source.name, path_or_fileobj=source)
            manifest = write_manifest(root / "manifest.yaml", source, **entry)
            variables = {MANIFEST_VARIABLE: str(manifest), "OMP_NUM_THREADS": "1"}
            environment = hub.environment(root / "home", signed_in=False, **variables)
            program = ["-c", BRIEF] if is_brief else ["-m", "transformers_beats"]
            command = [sys.executable, *program, "verify", NAME, "--device", "cpu", *map(str, words)]
            return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)

        yield run, root


@pytest.fixture(scope="module")
def first(session, classifier_file):
    """The first run, which has to download and convert, and a report that was begun before."""
    run, root = session
    report = root / "reports" / "report.md"
    report.parent.mkdir()
    report.write_text("### before\n\n")
    result = run(classifier_file, "--output", report)
    assert result.returncode == 0, result.stderr
    return result, report.read_text()


@pytest.fixture
def verify(session, first, classifier_file, monkeypatch, capsys):
    """Runs the command in this process, with the cache of the first run; returns status, output and last line."""
    _, root = session
    monkeypatch.setattr(constants, "HF_HOME", str(root / "home"))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(root / "home" / "hub"))

    def run(*words, **entry) -> tuple[int, str, str]:
        monkeypatch.setenv(MANIFEST_VARIABLE, str(write_manifest(root / "manifest.yaml", classifier_file, **entry)))
        with pytest.raises(SystemExit) as stop:
            app(["verify", NAME, "--device", "cpu", *map(str, words)])
        output = capsys.readouterr()
        run.stderr = output.err
        return stop.value.code, output.out, output.err.splitlines()[-1]

    return run


@pytest.fixture
def verified(session, first):
    """The directory in the cache that the first run has converted and found right; put back after the test."""
    _, root = session
    (config,) = (root / "home" / "transformers-beats").rglob("config.json")
    backup = shutil.copytree(config.parent, root / "backup", dirs_exist_ok=True)
    yield config.parent
    shutil.rmtree(config.parent)
    shutil.copytree(backup, config.parent)


def test_a_right_model_passes_and_its_report_is_added(first, classifier_file):
    result, report = first
    assert report == f"### before\n\n{result.stdout}\n"
    assert result.stdout.startswith(f"### {NAME}\n")
    rows = [line for line in result.stdout.splitlines() if line.startswith("| ")]
    names = [row.split("|")[1].strip() for row in rows]
    assert len(names) == len(set(names))
    assert hashlib.sha256(classifier_file.read_bytes()).hexdigest() in rows[2]
    for beginning in ("`cfg`", "Labels", "Filter bank", "Hidden states", "Probabilities", "Clips of 10 s per second"):
        assert sum(name.startswith(beginning) for name in names) == 1
    assert sum(name.startswith("Heard in") for name in names) == len(read_clips())
    # No probe was asked for.
    assert not any("probe" in name for name in names)


def test_weights_that_changed_after_the_conversion_are_found(verify, verified, tmp_path):
    tensors = load_file(verified / "model.safetensors")
    tensors["beats.encoder.layers.1.mlp.fc2.weight"][3] *= 1.5
    save_file(tensors, verified / "model.safetensors", {"format": "pt"})
    status, output, line = verify("--output", tmp_path / "new" / "report.md")
    assert status == 1
    assert line.startswith(f"error: 2 failed, for the reasons above: '{NAME}: Hidden states', '{NAME}: ")
    assert output.startswith(f"### {NAME}, failed\n")
    assert "| Hidden states | **failed**: at most" in output
    assert (tmp_path / "new" / "report.md").read_text() == f"{output}\n"


def test_labels_in_a_wrong_order_are_found_and_heard(verify, verified):
    config = json.loads((verified / "config.json").read_text())
    names = list(config["id2label"].values())
    config["id2label"] = dict(zip(config["id2label"], names[100:] + names[:100]))
    config["label2id"] = {name: int(index) for index, name in config["id2label"].items()}
    (verified / "config.json").write_text(json.dumps(config))
    status, output, line = verify()
    assert status == 1
    assert "| Labels | **failed**: 527, 527 are wrong, such as 0: " in output
    assert output.count("| **failed**: ") == 1 + len(read_clips())
    assert line.startswith(f"error: {1 + len(read_clips())} failed, for the reasons above: '{NAME}: Labels', ")
    assert line.count(f"{NAME}: Heard in ") == 4
    assert line.endswith(f" and {len(read_clips()) - 4} more.")


def test_another_file_than_the_manifests_is_not_looked_into(verify, classifier_file, tmp_path):
    (tmp_path / classifier_file.name).write_bytes(b"something else")
    status, output, line = verify("--source-dir", tmp_path)
    assert status == 1
    assert line == f"error: 1 failed, for the reasons above: '{NAME}: SHA-256 of {classifier_file.name}'."
    assert output.count("\n| ") == 3


def test_a_report_that_cannot_be_written_is_refused_before_anything_is_read(verify, tmp_path):
    (tmp_path / "reports").mkdir()
    status, output, line = verify("--output", tmp_path / "reports", mirrors=[])
    assert (status, output) == (2, "")
    assert line == f"error: {tmp_path / 'reports'}: is a folder, and a file is to be written."


def test_a_report_is_added_where_no_file_could_be_made(verify, tmp_path, monkeypatch):
    (tmp_path / "report.md").write_text("before\n")
    # As in a folder that is closed to writing.
    monkeypatch.setattr(os, "access", lambda path, mode, **options: Path(path).name == "report.md")
    status, _, line = verify("--output", tmp_path / "report.md", mirrors=[])
    assert (status, line) == (1, f"error: 1 failed, for the reasons above: '{NAME}: not verified'.")
    monkeypatch.setattr(os, "access", lambda path, mode, **options: mode != os.W_OK)
    status, _, line = verify("--output", tmp_path / "report.md", mirrors=[])
    assert status == 2
    assert line == f"error: {tmp_path / 'report.md'}: is closed to writing, and the report is added to it."


def test_nothing_is_written_for_a_checkpoint_that_cannot_be_had(verify, classifier_file, tmp_path):
    status, output, line = verify("--output", tmp_path / "report.md", mirrors=[])
    assert (status, output) == (1, "")
    assert line == f"error: 1 failed, for the reasons above: '{NAME}: not verified'."
    advice = f"A folder that has {classifier_file.name} is named with --source-dir."
    assert f"FAILED {NAME}: no public mirror is known. {advice}" in verify.stderr
    assert not (tmp_path / "report.md").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "Name a checkpoint, or pass --all."),
        (["beats-iter"], "no released model has this name; did you mean"),
        (["beats-iter3", "--esc50", "no-such-folder"], "no-such-folder: is no copy of ESC-50"),
    ],
)
def test_arguments_that_cannot_be_used_are_refused(words, message, monkeypatch, capsys):
    monkeypatch.delenv(MANIFEST_VARIABLE, raising=False)
    with pytest.raises(SystemExit) as stop:
        app(["verify", *words])
    assert stop.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "tensor", "row"),
    [
        ("beats_tiny", "encoder.layers.2.self_attn.gru_rel_pos_const", "Hidden states"),
        ("tokenizer_tiny", "quantizer.codebook", "Codes"),
    ],
)
def test_an_encoder_and_a_tokenizer_are_compared(name, tensor, row, tmp_path):
    convert(FIXTURES / f"{name}.pt", tmp_path / "model")
    contents = read_file(FIXTURES / f"{name}.pt")
    model, extractor = load(tmp_path / "model", "cpu", "float32")
    found = list(checks.check_outputs(contents, model, extractor))
    assert failed(found) == []
    assert len(found) == 3
    state = model.state_dict()[tensor]
    state.copy_(state.flip(0) + 0.5)
    assert row in failed(list(checks.check_outputs(contents, model, extractor)))


@pytest.mark.parametrize("change", [{"fbank_mean": 15.3}, {"fbank_std": 6.5}])
def test_a_wrong_front_end_is_found(change, tmp_path):
    convert(FIXTURES / "beats_tiny.pt", tmp_path / "model", **change)
    model, extractor = load(tmp_path / "model", "cpu", "float32")
    found = list(checks.check_outputs(read_file(FIXTURES / "beats_tiny.pt"), model, extractor))
    assert "Filter bank" in failed(found)


def test_other_settings_than_the_manifests_are_named():
    held = read_file(FIXTURES / "beats_tiny.pt")["cfg"]
    check = checks.check_cfg(held, {"encoder_layers": 12, "deep_norm": True})
    assert (check.passed, check.result) == (False, "encoder_layers is 3, not 12")


@pytest.fixture
def verify_own(tmp_path, monkeypatch):
    """Verifies classifiers in a folder, of which a manifest states nothing but the kind; returns status and output."""
    monkeypatch.setattr(checks, "measure_speed", lambda *args: Check("Speed", "1"))

    def run(**files) -> tuple[int, str, str]:
        entries = []
        for name, contents in files.items():
            torch.save(contents, tmp_path / f"{name}.pt")
            entries.append({"file": f"{name}.pt", "name": name, "kind": "finetuned"})
        (tmp_path / "manifest.yaml").write_text(yaml.safe_dump({"checkpoints": entries}))
        monkeypatch.setenv(MANIFEST_VARIABLE, str(tmp_path / "manifest.yaml"))
        result = CliRunner().invoke(app, ["verify", *files, "--source-dir", str(tmp_path), "--device", "cpu"])
        return result.exit_code, result.stdout, result.stderr

    return run


def under(prefix: str, contents: dict) -> dict:
    return {f"{prefix}{key}": tensor for key, tensor in contents["model"].items()}


def with_parametrizations(contents: dict) -> dict:
    """Weight norm as newer versions of PyTorch, and ESPnet, write it."""
    names = {"weight_g": "parametrizations.weight.original0", "weight_v": "parametrizations.weight.original1"}
    tensors = {key.replace(key[-8:], names.get(key[-8:], key[-8:])): each for key, each in contents["model"].items()}
    return contents | {"model": tensors}


def test_a_file_in_another_layout_is_a_failed_check_and_the_next_one_is_verified(verify_own, classifier_file):
    contents = torch.load(classifier_file, weights_only=True)
    unlabelled = {key: contents[key] for key in ("cfg", "model")}
    files = {
        "prefixed": {"cfg": contents["cfg"], "model": under("module.", contents)},
        "parametrized": with_parametrizations(contents),
        "unlabelled": unlabelled,
        "right": contents,
    }
    status, output, errors = verify_own(**files)
    assert status == 1
    sections = dict(section.split("\n", 1) for section in output.split("### ")[1:])
    assert [*sections] == ["prefixed, failed", "parametrized, failed", "unlabelled, failed", "right"]
    layout = "| Comparison with the file | **failed**: the file is not in Microsoft's layout: it has no `{}`. |"
    assert layout.format("encoder.pos_conv.0.weight_v") in sections["prefixed, failed"]
    assert layout.format("encoder.pos_conv.0.weight_v") in sections["parametrized, failed"]
    found = sections["unlabelled, failed"]
    assert "| Labels | **failed**: the file has no `label_dict`, by which they could be compared |" in found
    assert ("| Probabilities | at most" in found, "Heard in" in found) == (True, False)
    assert "Traceback" not in errors


@pytest.mark.parametrize(
    ("make", "found"),
    [
        (lambda contents: contents["model"], "expected `cfg` and `model`, found 'post_extract_proj.weight'"),
        (lambda contents: {"state_dict": under("a.", contents)}, "expected `cfg` and `model`, found 'state_dict'."),
        (lambda contents: contents | {"cfg": None}, "expected `cfg` and `model`, found 'cfg', 'model', 'label_dict'."),
        (lambda contents: [1], "expected `cfg` and `model`, found list."),
    ],
)
def test_the_plain_implementation_reads_microsofts_layout_alone(make, found, tmp_path):
    torch.save(make(torch.load(FIXTURES / "beats_tiny_finetuned.pt", weights_only=True)), tmp_path / "model.pt")
    with pytest.raises(LayoutError, match=re.escape(f"the file is not in Microsoft's layout: {found}")):
        read_file(tmp_path / "model.pt")


def test_safetensors_are_no_file_of_microsofts(tmp_path):
    save_file({"layer_norm.bias": torch.ones(2)}, tmp_path / "a.safetensors")
    with pytest.raises(LayoutError, match="the file is not in Microsoft's layout: "):
        read_file(tmp_path / "a.safetensors")


@pytest.mark.parametrize("key", ["input_patch_size", "encoder_layers", "conv_pos_groups", "max_distance"])
def test_a_setting_that_is_not_in_the_file_is_named(key, tmp_path):
    contents = read_file(FIXTURES / "beats_tiny.pt")
    del contents["cfg"][key]
    convert(FIXTURES / "beats_tiny.pt", tmp_path / "model")
    with pytest.raises(LayoutError, match=f"it has no `{key}`"):
        list(checks.check_outputs(contents, *load(tmp_path / "model", "cpu", "float32")))


def test_values_that_are_no_numbers_fail():
    assert not checks.compare("Embeddings", torch.tensor([float("nan")]), torch.tensor([1.0])).passed


def test_every_clip_is_there_with_labels_of_audioset():
    files = {path.name for path in CLIPS.glob("*.ogg")}
    assert {clip["file"] for clip in read_clips()} == files
    for clip in read_clips():
        assert clip["reason"]
        assert {*clip["labels"]} <= {*AUDIOSET_LABELS.values()}
        assert 5 * 16000 < len(clip["waveform"]) < 10 * 16000
        assert 0.1 < np.abs(clip["waveform"]).max() <= 1


@pytest.mark.slow
@pytest.mark.parametrize("layout", ["esc50", "folder"])
def test_a_probe_is_trained_on_the_folds(layout, tmp_path, capsys):
    convert(FIXTURES / "beats_tiny.pt", tmp_path / "model")
    folder = tmp_path / "ESC-50"
    (folder / "audio").mkdir(parents=True)
    (folder / "meta").mkdir()
    rows = []
    for fold in range(1, 6):
        for label, pitch in {"low": 200, "high": 3000}.items():
            name = f"{fold}-{label}.wav"
            samples = np.sin(2 * np.pi * pitch * (1 + 0.02 * fold) * np.arange(16000) / 16000)
            soundfile.write(folder / "audio" / name, 0.5 * samples, 16000)
            rows.append((name, fold, label))
    names = ("filename", "fold", "category") if layout == "esc50" else ("file_name", "fold", "label")
    rows = [(name if layout == "esc50" else f"audio/{name}", *others) for name, *others in rows]
    with (folder / ("meta/esc50.csv" if layout == "esc50" else "metadata.csv")).open("w", newline="") as file:
        csv.writer(file).writerows([names, *rows])
    check = checks.probe_folds(tmp_path / "model", folder)
    assert check.name == "Linear probe on ESC-50, accuracy in 5 folds"
    assert check.result == "1.000 ± 0.000"
    assert capsys.readouterr().out == ""


@pytest.mark.slow
def test_a_model_of_the_released_size_is_verified(session, make_classifier, tmp_path, capsys):
    run, _ = session
    source = make_classifier(tmp_path / "BEATs_random_finetuned.pt")
    result = run(source, is_brief=True)
    with capsys.disabled():
        print(f"\n{result.stdout}")
    assert result.returncode == 0, result.stderr
