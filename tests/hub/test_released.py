# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Released models by name, from a Hub on this machine: fetched, verified, converted and kept."""

import os
from pathlib import Path

import numpy as np
import pytest
import soundfile
import yaml
from golden import FIXTURES
from huggingface_hub import constants, hf_hub_download
from typer.testing import CliRunner

from transformers_beats import WindowedInference, released
from transformers_beats.cli.app import app
from transformers_beats.conversion.locations import HubFile, HubRepository, Url, parse_location
from transformers_beats.utils.errors import BeatsError, UsageError
from transformers_beats.utils.files import sha256


CLASSIFIER = FIXTURES / "beats_tiny_finetuned.pt"
TOKENIZER = FIXTURES / "tokenizer_tiny.pt"


@pytest.fixture
def manifest(api, release):
    """Three models on two mirrors, of which the first is not there; the tokenizer's hash is not known."""
    api.create_repo("user/checkpoints")
    for name, source in {"classifier.pt": CLASSIFIER, "tokenizer.pt": TOKENIZER}.items():
        api.upload_file(path_or_fileobj=source, path_in_repo=name, repo_id="user/checkpoints")
    entries = [
        {
            "file": "classifier.pt",
            "name": "tiny-classifier",
            "kind": "finetuned",
            "bytes": CLASSIFIER.stat().st_size,
            "sha256": sha256(CLASSIFIER),
            "mirrors": ["hf://nobody/gone/classifier.pt", "hf://user/checkpoints/classifier.pt"],
        },
        {
            "file": "tokenizer.pt",
            "name": "tiny-tokenizer",
            "kind": "tokenizer",
            "mirrors": ["hf://user/checkpoints/tokenizer.pt"],
            "vouched_by": "classifier.pt",
        },
        {"file": "own.pt", "name": "tiny-own", "kind": "pretrained", "sha256": sha256(FIXTURES / "beats_tiny.pt")},
    ]
    defaults = {"publisher": "Our lab", "page": "https://example.org/models"}
    release.manifest.write_text(yaml.safe_dump({"defaults": defaults, "checkpoints": entries}))
    return release.manifest


@pytest.fixture
def run(hub, manifest, fresh_python, tmp_path):
    """Runs a command as a user of a fresh machine does."""

    def run(*words, **variables):
        environment = hub.environment(tmp_path / "home", **{released.MANIFEST_VARIABLE: str(manifest)}, **variables)
        code = "from transformers_beats.cli.app import main; main()"
        return fresh_python(code, *words, env=environment, cwd=tmp_path)

    return run


def test_a_clip_is_tagged_with_a_name_alone(run, hub, tmp_path):
    soundfile.write(tmp_path / "clip.wav", np.random.default_rng(0).uniform(-0.1, 0.1, 16000), 16000)
    result = run("tag", "-m", "tiny-classifier", "clip.wav")
    assert result.returncode == 0, result.stderr
    assert "clip.wav" in result.stdout
    requests = len(hub.requests)
    assert run("tag", "-m", "tiny-classifier", "clip.wav", HF_HUB_OFFLINE="1").stdout == result.stdout
    assert len(hub.requests) == requests


def test_models_are_listed_and_those_that_are_here_are_marked(manifest, monkeypatch):
    before = CliRunner().invoke(app, ["models"]).stdout
    directory = CliRunner().invoke(app, ["get", "tiny-classifier"]).stdout
    after = CliRunner().invoke(app, ["models"]).stdout
    line = next(line for line in after.splitlines() if line.startswith("tiny-classifier"))
    assert line.endswith("yes")
    assert line.removesuffix("yes").rstrip() in before
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    WindowedInference.from_pretrained("tiny-classifier")
    assert f"{released.get('tiny-classifier')}\n" == directory


def test_the_next_command_can_be_pasted(manifest, tmp_path):
    assert "-m tiny-classifier FILE_OR_FOLDER" in CliRunner().invoke(app, ["get", "tiny-classifier"]).stderr
    result = CliRunner().invoke(app, ["get", "tiny-classifier", "--cache-dir", str(tmp_path / "my models")])
    assert f"tag -m '{result.stdout.strip()}' FILE_OR_FOLDER" in result.stderr


def test_a_model_can_be_read_by_others(manifest):
    mask = os.umask(0o022)
    try:
        directory = released.get("tiny-classifier")
    finally:
        os.umask(mask)
    assert {path.stat().st_mode & 0o777 for path in directory.iterdir()} == {0o644}


def test_a_model_that_may_not_be_read_is_said(manifest, monkeypatch):
    directory = released.get("tiny-classifier")
    access = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: path.name != "model.safetensors" and access(path, mode))
    with pytest.raises(BeatsError, match=r"model.safetensors: cannot be used: Permission denied; name another cache"):
        released.get("tiny-classifier")
    assert directory.exists()


def test_what_killed_runs_have_left_goes(manifest):
    directory = released.cache_directory(released.find("tiny-classifier"))
    for name in (".converting-0", ".old-0"):
        (directory.parent / name).mkdir(parents=True)
    released.get("tiny-classifier")
    assert {path.name for path in directory.parent.iterdir()} == {directory.name, ".lock"}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["tag", "-m", "tiny-own", "clip.wav"], "tiny-own: a BeatsModel knows no labels"),
        (["tag", "-m", "tiny-tokenizer", "clip.wav"], "tiny-tokenizer: a BeatsTokenizerModel knows no labels"),
        (["embed", "-m", "tiny-tokenizer", "clip.wav", "-o", "out"], "tiny-tokenizer: a BeatsTokenizerModel has no"),
        (["tokenize", "-m", "tiny-classifier", "clip.wav", "-o", "out"], "tiny-classifier: a BeatsForAudioClass"),
    ],
)
def test_a_model_of_another_kind_is_refused_before_it_is_fetched(words, message, manifest, hub, tmp_path, monkeypatch):
    soundfile.write(tmp_path / "clip.wav", np.zeros(16000), 16000)
    monkeypatch.chdir(tmp_path)
    hub.requests.clear()
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 2
    assert message in result.stderr
    assert hub.requests == []


def test_a_model_without_a_mirror_names_the_file_and_the_page(manifest):
    with pytest.raises(BeatsError, match=r"^tiny-own: no public mirror is known. .* convert own.pt .*example.org"):
        released.get("tiny-own")


def test_a_file_of_known_hash_is_found(manifest):
    assert released.find_by_hash(sha256(FIXTURES / "beats_tiny.pt")).name == "tiny-own"
    assert released.find_by_hash("0" * 64) is None


def test_a_tokenizer_without_hash_is_taken_with_a_word_about_the_file_beside_it(manifest, caplog):
    released.get("tiny-tokenizer")
    assert "the manifest states no hash of tokenizer.pt" in caplog.text
    assert "is taken because the classifier.pt beside it is Our lab's" in caplog.text


def test_a_tokenizer_without_hash_in_the_cache_is_taken_with_a_warning(manifest, caplog):
    hf_hub_download("user/checkpoints", "tokenizer.pt")
    caplog.clear()
    released.get("tiny-tokenizer", offline=True)
    assert "the manifest states no hash of tokenizer.pt" in caplog.text
    assert "in the cache is taken as it is" in caplog.text


def test_a_tokenizer_beside_another_file_than_the_publishers_is_not_taken(manifest, api):
    api.upload_file(path_or_fileobj=b"another", path_in_repo="classifier.pt", repo_id="user/checkpoints")
    with pytest.raises(BeatsError, match=r"is not taken, because the classifier.pt beside it is not Our lab's"):
        released.get("tiny-tokenizer")


def test_the_list_names_publisher_page_and_files_without_a_hash(manifest):
    output = CliRunner().invoke(app, ["models"]).stdout
    assert "none is known of the\n'tiny-tokenizer'." in output
    assert max(map(len, output.splitlines())) <= 80
    assert "https://example.org/models" in output
    assert "Microsoft" not in output


def test_a_directory_of_the_name_is_the_directory(manifest, tmp_path, monkeypatch):
    (tmp_path / "tiny-classifier").mkdir()
    monkeypatch.chdir(tmp_path)
    assert released.resolve("tiny-classifier") == "tiny-classifier"
    assert released.resolve("user/beats") == "user/beats"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("hf://a/b", HubRepository("a/b")),
        ("hf://a/b/c/d.pt", HubFile("a/b", path="c/d.pt")),
        ("hf://datasets/a/b@v1/c.pt", HubFile("a/b", "v1", "dataset", "c.pt")),
        ("hf://models/a/b@refs/pr/3/c.pt", HubFile("a/b", "refs/pr/3", path="c.pt")),
        ("a/b", HubRepository("a/b")),
        ("https://huggingface.co/a/b/blob/main/c.pt", HubFile("a/b", "main", path="c.pt")),
        (
            "https://huggingface.co/datasets/a/b/resolve/main/c.pt?download=true",
            HubFile("a/b", "main", "dataset", "c.pt"),
        ),
        ("https://huggingface.co/a/b", HubRepository("a/b")),
        ("https://example.org/x/BEATs%20a.pt?key=1", Url("https://example.org/x/BEATs%20a.pt?key=1")),
    ],
)
def test_locations_are_understood(text, expected, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert parse_location(text) == expected
    if text.startswith("hf://"):
        assert parse_location(str(expected)) == expected


@pytest.mark.parametrize("revision", [None, "v1", "feature/x", "a@b", "100%", "a%2Fb", "refs/pr/3", "refs/heads/x"])
@pytest.mark.parametrize(
    "path", ["", "a.pt", "x/y/a.pt", "a b.pt", "a%20b.pt", "100%/a.pt", "a@b.pt", "é?#.pt", "a\nb.pt"]
)
@pytest.mark.parametrize("repo_type", ["model", "dataset"])
def test_what_is_printed_of_a_location_is_that_location(revision, path, repo_type):
    repository = HubRepository("a/b", revision, repo_type)
    location = repository.file(path) if path else repository
    assert parse_location(str(location)) == location
    # It can be copied from a line.
    assert len(str(location).split()) == 1


def test_letters_of_other_languages_stay_readable():
    assert str(HubFile("a/b", "größe", path="modèle.pt")) == "hf://a/b@größe/modèle.pt"


@pytest.mark.parametrize(
    "text",
    [
        "hf://a",
        "hf://../a",
        "hf://spaces/a/b",
        "http://b.org/a.pt",
        "ftp://a/b.pt",
        "https://a.org",
        "https://a.org/..",
    ],
)
def test_other_addresses_are_refused(text):
    with pytest.raises(UsageError):
        parse_location(text)


def test_a_relative_path_is_no_repository():
    assert parse_location("../missing") == Path("../missing")
