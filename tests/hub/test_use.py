# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Models on the Hub as users meet them: every session of `sessions.py` is a fresh process with a home of its own."""

import json
from pathlib import Path

import pytest
import torch
from golden import FIXTURES
from huggingface_hub import HfApi, ModelCard, constants
from safetensors.torch import load_file

from hub.server import local_hub
from transformers_beats.conversion.convert import convert

from . import sessions


REPOSITORIES = {
    "user/beats-iter3": "beats_tiny",
    "user/beats-finetuned": "beats_tiny_finetuned",
    "user/beats-tokenizer": "tokenizer_tiny",
    "user/private": "beats_tiny",
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> Path:
    """Converted golden checkpoints; `old` is another model, with other code."""
    root = tmp_path_factory.mktemp("folders")
    for name in {*REPOSITORIES.values()}:
        convert(FIXTURES / f"{name}.pt", root / name)
    convert(FIXTURES / "beats_tiny_prenorm.pt", root / "old")
    with (root / "old" / "modeling_beats.py").open("a") as file:
        file.write('\n\nCODE_VERSION = "old"\n')
    return root


@pytest.fixture(scope="module")
def hub(folders):
    """A Hub with the converted models; `user/beats-iter3` has an older version, tagged v1."""
    with local_hub() as hub, pytest.MonkeyPatch.context() as patch:
        patch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        api = HfApi(endpoint=hub.endpoint, token=hub.token)
        for repo, name in REPOSITORIES.items():
            api.create_repo(repo, private=repo == "user/private")
            if repo == "user/beats-iter3":
                api.upload_folder(repo_id=repo, folder_path=folders / "old")
                api.create_tag(repo, tag="v1")
            api.upload_folder(repo_id=repo, folder_path=folders / name)
        hub.old_commit = hub.repository("user/beats-iter3").at("v1").oid
        yield hub


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def run(hub, fresh_python):
    """Runs a session and returns what it prints."""

    def run(home: Path, *arguments: str, **environment) -> dict:
        home.mkdir(exist_ok=True)
        environment = hub.environment(home, OMP_NUM_THREADS="1", **environment)
        code = f"import runpy; runpy.run_path({sessions.__file__!r}, run_name='__main__')"
        result = fresh_python(code, *arguments, env=environment, cwd=home)
        assert result.returncode == 0, result.stderr
        return json.loads(result.stdout.splitlines()[-1])

    return run


def assert_same(result: dict, expected: dict) -> None:
    """The same weights bit by bit, and the same outputs but for the rounding of another process."""
    assert result["class"] == expected["class"]
    assert result["weights"] == expected["weights"]
    assert result["outputs"] == pytest.approx(expected["outputs"], abs=1e-5)


@pytest.fixture(scope="module")
def with_package(run, hub, home) -> dict:
    return run(home / "with", "use", hub.old_commit, signed_in=False)


@pytest.fixture(scope="module")
def without_package(run, hub, home) -> dict:
    return run(home / "without", "use", hub.old_commit, "--without-package", signed_in=False)


def test_models_arrive_bit_exact(with_package, folders):
    import transformers_beats  # noqa: F401

    expected = {
        "base": sessions.compute("AutoModel", folders / "beats_tiny"),
        "classifier": sessions.compute("AutoModelForAudioClassification", folders / "beats_tiny_finetuned"),
        "tokenizer": sessions.compute("AutoModel", folders / "tokenizer_tiny"),
        "tag": sessions.compute("AutoModel", folders / "old"),
    }
    for name, result in expected.items():
        assert_same(with_package[name], result)
        assert with_package[name]["code"] == "transformers_beats"
    assert_same(with_package["commit"], with_package["tag"])
    assert with_package["tag"]["weights"] != with_package["base"]["weights"]
    classes = [result["class"] for result in expected.values()]
    assert classes == ["BeatsModel", "BeatsForAudioClassification", "BeatsTokenizerModel", "BeatsModel"]


def test_the_code_in_the_repository_computes_the_same(with_package, without_package):
    for name in ("base", "classifier", "tokenizer", "tag", "commit"):
        assert without_package[name]["code"] == "transformers_modules"
        assert_same(without_package[name], with_package[name])
    for result, expected in zip(without_package["pipeline"], with_package["pipeline"]):
        assert result == {"label": expected["label"], "score": pytest.approx(expected["score"], abs=1e-5)}
    assert len(without_package["pipeline"]) == 2


def test_code_follows_the_revision(without_package):
    versions = {name: without_package[name]["version"] for name in ("base", "tag", "commit")}
    assert versions == {"base": "newest", "tag": "old", "commit": "old"}


def test_code_can_be_of_another_revision_than_the_weights(without_package):
    assert without_package["old weights"]["version"] == "newest"
    assert_same(without_package["old weights"], without_package["tag"])
    assert without_package["old code"]["version"] == "old"
    assert_same(without_package["old code"], without_package["base"])


@pytest.mark.parametrize("name", ["with", "without"])
def test_what_was_loaded_once_loads_offline(run, hub, home, name, request):
    online = request.getfixturevalue(f"{name}_package")
    number = len(hub.requests)
    flags = ["--without-package"] if name == "without" else []
    offline = run(home / name, "use", hub.old_commit, *flags, signed_in=False, HF_HUB_OFFLINE="1")
    assert len(hub.requests) == number
    assert offline.keys() == online.keys()
    for key in offline.keys() - {"pipeline"}:
        assert_same(offline[key], online[key])


def test_refusals_say_what_to_do(run, home):
    errors = run(home / "refused", "refused", "--without-package", signed_in=False)
    for name in ("no answer about trust", "no trust", "no trust, pipeline"):
        assert "trust_remote_code=True" in errors[name]
    for name in ("private", "private extractor"):
        assert "user/private is not a local folder and is not a valid model identifier" in errors[name]
        assert "token" in errors[name]
    assert errors["wrong token"]
    assert "v9 is not a valid git identifier" in errors["absent revision"]
    assert not (home / "refused" / "modules" / "transformers_modules" / "user").exists(), "nothing was copied"


@pytest.fixture(scope="module")
def pushed(run, hub, home) -> dict:
    hub.requests.clear()
    hub.fail("PUT", "/user/pushed", status=403)
    return run(home / "with", "push")


def test_a_push_that_fails_shows_nothing_and_is_completed_by_the_next(hub, pushed):
    assert "Error while uploading 'model.safetensors'" in pushed["failure"]
    assert pushed["files after it"] == [".gitattributes"]
    titles = [commit.title for commit in hub.repository("user/pushed").history()]
    assert titles == ["Upload feature extractor", "second attempt", "initial commit"]
    assert [request.status for request in hub.sent("PUT", "/user/pushed")] == [403, 200]


def test_pushed_models_load_without_the_package(run, home, pushed, with_package):
    result = run(home / "pushed", "load_pushed", "--without-package", signed_in=False)
    assert_same(result["pushed"], with_package["classifier"])
    assert result["pushed"]["code"] == "transformers_modules"
    assert result["trained"] == ["dog", "rain"]


def test_trainers_repository_has_a_valid_card(hub, pushed, monkeypatch):
    monkeypatch.setattr(constants, "ENDPOINT", hub.endpoint)
    repository = hub.repository("user/trained")
    card = ModelCard(repository.blob("README.md").content.decode())
    card.validate()
    assert card.data.base_model == "user/beats-iter3"
    assert card.data.library_name == "transformers"
    blob = repository.blob("model.safetensors")
    weights = load_file(repository.directory / blob.sha256)
    assert all(torch.isfinite(tensor).all() for tensor in weights.values())
