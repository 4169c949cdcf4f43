# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Publishing converted checkpoints: one by one, and all of a manifest."""

import dataclasses
import json
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
import soundfile
import torch
import yaml
from golden import FIXTURES, ROOT
from huggingface_hub import ModelCard, constants
from tiny import ENCODER
from typer.testing import CliRunner, Result

from transformers_beats import BeatsModel
from transformers_beats.cli.app import app
from transformers_beats.conversion.checkpoint import read_checkpoint
from transformers_beats.conversion.convert import convert
from transformers_beats.conversion.released import MANIFEST, read_manifest
from transformers_beats.publishing import publish as publishing
from transformers_beats.publishing import publish_all
from transformers_beats.publishing.publish import check_account, publish
from transformers_beats.training.config.recipes import build_arguments
from transformers_beats.training.finetune import FINETUNE_ARGUMENTS, Arguments, finetune
from transformers_beats.utils.errors import BeatsError, UsageError
from transformers_beats.utils.files import sha256


@pytest.fixture
def signed_in(hub, api, monkeypatch):
    """This process knows the local Hub only, and the user's token; models are compared here, which is faster."""
    monkeypatch.setattr(
        publishing, "probe_in_fresh_process", lambda *directories: [*map(publishing.probe, directories)]
    )
    monkeypatch.setattr(constants, "ENDPOINT", hub.endpoint)
    monkeypatch.setattr(
        constants, "HUGGINGFACE_CO_URL_TEMPLATE", hub.endpoint + "/{repo_id}/resolve/{revision}/{filename}"
    )
    monkeypatch.setenv("HF_TOKEN", hub.token)
    return api


@pytest.fixture
def converted(tmp_path):
    convert(FIXTURES / "beats_tiny.pt", tmp_path / "beats", repo_id="user/beats")
    return tmp_path / "beats"


def run(*words) -> Result:
    """Runs the command line in this process."""
    return CliRunner().invoke(app, [*map(str, words)])


def run_script(name, *arguments, env) -> subprocess.CompletedProcess:
    command = [sys.executable, str(ROOT / "conversion" / name), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=env)


def commits(hub, repo_id="user/beats", branch="main"):
    """Titles of the commits after the first, which the Hub makes with the repository."""
    return [commit.title for commit in hub.repository(repo_id).history(branch)][:-1]


def contents(hub, repo_id, path):
    repository = hub.repository(repo_id)
    return repository.source(repository.blob(path)).decode()


def test_converting_publishes_in_one_commit(hub, signed_in, tmp_path):
    """The script, with a comparison in a process of its own; then the command, which finds no difference."""
    arguments = (FIXTURES / "beats_tiny.pt", tmp_path / "out", "--push-to-hub", "user/beats")
    result = run_script("convert_beats_checkpoint.py", *arguments, env=hub.environment(tmp_path / "home"))
    assert result.returncode == 0, result.stderr
    assert "user/beats: published, commit " in result.stdout
    assert len(commits(hub)) == 1
    assert not hub.repository("user/beats").private
    assert '"user/beats"' in (tmp_path / "out" / "README.md").read_text()

    assert "user/beats: unchanged" in run("convert", *arguments, "--overwrite").stdout
    assert len(commits(hub)) == 1


def test_without_a_token_nothing_is_converted(signed_in, tmp_path, monkeypatch):
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    result = run("convert", FIXTURES / "beats_tiny.pt", tmp_path / "out", "--push-to-hub", "user/beats")
    assert result.exit_code == 1
    assert result.stderr.startswith("error: no token: run `hf auth login`")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("repo_id", ["beats", "user/beats/3", "user/be ats"])
def test_names_that_no_repository_can_have_are_refused(repo_id, signed_in):
    with pytest.raises(UsageError, match=r"not the name of a repository|lacks the account"):
        check_account(repo_id)


def test_an_unreachable_hub_is_one_line(monkeypatch):
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("HF_TOKEN", "hf_any")
    with pytest.raises(BeatsError) as error:
        check_account("user/beats")
    assert "\n" not in str(error.value)


def test_a_branch_is_published_without_touching_main(hub, signed_in, converted):
    publication = publish(converted, "user/beats", revision="v1")
    assert publication.is_new
    assert commits(hub, branch="v1")
    assert commits(hub, branch="main") == []
    assert BeatsModel.from_pretrained("user/beats", revision="v1", cache_dir=converted.parent).config.hidden_size == 64


def test_the_card_of_a_branch_names_the_branch(tmp_path):
    convert(FIXTURES / "beats_tiny.pt", tmp_path / "beats", repo_id="user/beats", revision="v1")
    card = (tmp_path / "beats" / "README.md").read_text()
    assert 'from_pretrained("user/beats", revision="v1")' in card
    assert 'from_pretrained("user/beats", trust_remote_code=True, revision="v1")' in card


def test_a_fine_tuned_model_is_published_with_its_card_and_without_the_clips(hub, signed_in, tmp_path):
    generator = np.random.default_rng(0)
    for name in ("loud", "soft"):
        (tmp_path / "sounds" / name).mkdir(parents=True)
        for clip in range(4):
            samples = generator.uniform(-1, 1, 8000) * (0.9 if name == "loud" else 0.01)
            soundfile.write(tmp_path / "sounds" / name / f"{clip}.wav", samples, 16000)
    recipe = {"dataset": str(tmp_path / "sounds"), "output_dir": str(tmp_path / "farm"), "model_config": ENCODER}
    recipe |= {"max_steps": 1, "num_folds": 2, "final": True, "push_to_hub": True, "disable_tqdm": True}
    finetune(Arguments(*build_arguments(FINETUNE_ARGUMENTS, recipe)))
    assert len(commits(hub, "user/farm")) == 1
    files = {entry.rfilename for entry in signed_in.model_info("user/farm").siblings}
    assert {"README.md", "model.safetensors", "config.json", "confusion_matrix.png"} <= files
    assert not [name for name in files if name.endswith((".html", ".npy", ".csv"))]
    card = contents(hub, "user/farm", "README.md")
    assert 'model="user/farm"' in card
    assert str(tmp_path) not in card


@pytest.mark.parametrize("options", [["--private"], ["--revision", "v1"]])
def test_options_of_publishing_need_a_repository(options, tmp_path):
    result = run("convert", FIXTURES / "beats_tiny.pt", tmp_path / "out", *options)
    assert result.exit_code == 2
    assert "belong to --push-to-hub" in result.stderr
    assert not (tmp_path / "out").exists()


def test_another_accounts_name_is_refused_at_once(hub, signed_in):
    with pytest.raises(BeatsError, match=r"may write to user, not to stranger"):
        check_account("stranger/beats")


def test_another_model_is_not_overwritten(hub, signed_in, converted):
    signed_in.create_repo("user/beats")
    signed_in.upload_file(
        path_or_fileobj=b'{"model_type": "resnet"}', path_in_repo="config.json", repo_id="user/beats"
    )
    before = hub.repository("user/beats").at("main").oid
    with pytest.raises(BeatsError, match=r"holds another model \(`model_type` 'resnet'\)"):
        publish(converted, "user/beats")
    assert hub.repository("user/beats").at("main").oid == before


@pytest.mark.parametrize(
    "names",
    [
        ["adapter_config.json", "adapter_model.safetensors", "handler.py"],
        ["pytorch_model.bin"],
        ["handler.py"],
        ["model.onnx"],
        ["last.ckpt"],
        ["unet/weights.safetensors", "model_index.json"],
    ],
)
@pytest.mark.parametrize("revision", [None, "v2"])
def test_another_model_without_a_configuration_is_not_overwritten(names, revision, hub, signed_in, converted):
    signed_in.create_repo("user/beats")
    for name in names:
        signed_in.upload_file(path_or_fileobj=b"mine", path_in_repo=name, repo_id="user/beats")
    before = hub.repository("user/beats").at("main").oid
    with pytest.raises(BeatsError, match=rf"user/beats: holds another model \(.*'{names[0]}'.*nothing was changed"):
        publish(converted, "user/beats", revision=revision)
    assert hub.repository("user/beats").branches == {"main": before}


def test_a_branch_of_another_model_is_not_made(hub, signed_in, converted):
    signed_in.create_repo("user/beats")
    signed_in.upload_file(path_or_fileobj=b'{"model_type": "x"}', path_in_repo="config.json", repo_id="user/beats")
    before = hub.repository("user/beats").at("main").oid
    with pytest.raises(BeatsError, match=r"holds another model .* nothing was changed"):
        publish(converted, "user/beats", revision="v2")
    assert hub.repository("user/beats").branches == {"main": before}


def test_a_repository_of_text_takes_a_model(hub, signed_in, converted):
    signed_in.create_repo("user/beats")
    signed_in.upload_file(path_or_fileobj=b"mine", path_in_repo="LICENSE", repo_id="user/beats")
    publish(converted, "user/beats")
    assert {"LICENSE", "model.safetensors"} <= set(signed_in.list_repo_files("user/beats"))


def test_only_after_a_failed_transfer_the_same_command_goes_on(hub, signed_in, tmp_path, monkeypatch):
    command = ("convert", FIXTURES / "beats_tiny.pt", tmp_path / "out", "--push-to-hub", "user/beats")
    hub.fail("POST", "/commit/", status=500, times=20)
    is_complete = f"{tmp_path / 'out'} is complete; the same command"
    assert run(*command).stderr.endswith(f"{is_complete} with --overwrite goes on.\n")
    assert run(*command, "--overwrite").stderr.endswith(f"{is_complete} goes on.\n")
    hub.heal()
    refused = [run(*command, "--overwrite", "--private").stderr]
    signed_in.upload_file(path_or_fileobj=b'{"model_type": "x"}', path_in_repo="config.json", repo_id="user/beats")
    refused.append(run(*command, "--overwrite").stderr)
    monkeypatch.setattr(publishing, "probe_in_fresh_process", lambda *directories: [np.zeros(1), np.ones(1)])
    refused.append(run(*command[:-1], "user/other", "--overwrite").stderr)
    for error, reason in zip(refused, ("is public", "holds another model", "computes something else"), strict=True):
        assert reason in error
        assert "goes on" not in error


def test_private_weights_do_not_go_into_a_public_repository(hub, signed_in, converted):
    signed_in.create_repo("user/beats")
    with pytest.raises(BeatsError, match="exists and is public"):
        publish(converted, "user/beats", private=True)
    assert commits(hub) == []


def test_a_new_repository_can_be_private(hub, signed_in, converted):
    publish(converted, "user/beats", private=True)
    assert hub.repository("user/beats").private


@pytest.mark.parametrize("broken", ["upload", "commit"])
def test_a_failed_publication_shows_nothing_and_is_completed_by_the_next(hub, signed_in, converted, broken):
    if broken == "upload":
        hub.disconnect("PUT", after=1000, times=20)
    else:
        hub.fail("POST", "/commit/", status=500, times=20)
    with pytest.raises(BeatsError):
        publish(converted, "user/beats")
    assert commits(hub) == []
    hub.heal()
    sent = len(hub.sent("PUT"))
    assert publish(converted, "user/beats").is_new
    assert len(hub.sent("PUT")) - sent == (1 if broken == "upload" else 0)


def test_weights_that_arrive_changed_are_noticed(hub, signed_in, converted, monkeypatch):
    create_commit = publishing.HfApi.create_commit

    def commit_and_corrupt(*args, **kwargs):
        commit = create_commit(*args, **kwargs)
        hub.corrupt("user/beats", "model.safetensors")
        return commit

    monkeypatch.setattr(publishing.HfApi, "create_commit", commit_and_corrupt)
    with pytest.raises(BeatsError, match=r"model\.safetensors differs from what was sent"):
        publish(converted, "user/beats")


def test_a_check_that_failed_is_made_up_for(hub, signed_in, converted):
    # The first request is for the configuration of what is there already.
    hub.fail("HEAD", "/resolve/", status=403, skip=1, times=100)
    with pytest.raises(BeatsError):
        publish(converted, "user/beats")
    assert len(commits(hub)) == 1
    hub.heal()
    hub.corrupt("user/beats", "model.safetensors")
    with pytest.raises(BeatsError, match=r"model\.safetensors differs"):
        publish(converted, "user/beats")
    hub.heal()
    assert not publish(converted, "user/beats").is_new
    assert len(commits(hub)) == 1


def test_stale_files_go_and_others_stay(hub, signed_in, converted):
    signed_in.create_repo("user/beats")
    config = b'{"model_type": "beats_tokenizer"}'
    signed_in.upload_file(path_or_fileobj=config, path_in_repo="config.json", repo_id="user/beats")
    for name in ("pytorch_model.bin", "modeling_old.py", "notes.txt", "scripts/evaluate.py"):
        signed_in.upload_file(path_or_fileobj=b"old", path_in_repo=name, repo_id="user/beats")
    publish(converted, "user/beats")
    files = signed_in.list_repo_files("user/beats")
    assert {"notes.txt", "scripts/evaluate.py"} <= set(files)
    assert not {"pytorch_model.bin", "modeling_old.py"} & set(files)


def test_the_manifest_of_the_release_is_complete():
    entries = read_manifest(MANIFEST).values()
    assert len(entries) == 19
    kinds = [entry.kind for entry in entries]
    assert {kind: kinds.count(kind) for kind in kinds} == {"pretrained": 5, "finetuned": 10, "tokenizer": 4}
    names = {entry.file: entry.name for entry in entries}
    assert "beats-iter3-plus-as2m-finetuned-as2m-cpt2" in names.values()
    assert {entry.base_model for entry in entries} - {None} <= {*names.values()}
    # The bytes of the tensors and some for the archive: another number of parameters would be a mistake in the list.
    # Each layer of the file has a copy of the relative position embedding.
    for entry in entries:
        if entry.kind == "tokenizer":
            assert entry.sha256 is entry.bytes is entry.num_parameters is None
        else:
            assert 0 < entry.bytes - 4 * (entry.num_parameters + 11 * 320 * 12) < 150_000
            assert len(bytes.fromhex(entry.sha256)) == 32
    assert len({entry.sha256 for entry in entries}) == 16
    assert names["BEATs_iter1.pt"] == "beats-iter1"
    assert names["BEATs_iter3_plus_AS20K.pt"] == "beats-iter3-plus-as20k"
    assert names["BEATs_iter2_finetuned_on_AS2M_cpt1.pt"] == "beats-iter2-finetuned-as2m-cpt1"
    assert names["Tokenizer_iter3_plus_AS2M.pt"] == "beats-tokenizer-iter3-plus-as2m"


def test_cards_of_the_release_state_the_papers_figures_as_the_papers(tmp_path):
    # Without the facts of the file: this one is tiny.
    entry = dataclasses.replace(read_manifest(MANIFEST)["beats-iter3"], cfg={}, num_parameters=None)
    convert(FIXTURES / "beats_tiny.pt", tmp_path / "out", repo_id="someone/beats-iter3", details=entry)
    card = ModelCard.load(tmp_path / "out" / "README.md")
    assert card.data.license == "mit"
    results = {result.dataset_name: result.metric_value for result in card.data.eval_results}
    assert results == {
        "AudioSet-2M": 48.0,
        "AudioSet-20K": 38.3,
        "ESC-50": 95.6,
        "Speech Commands V1": 97.7,
        "Speech Commands V2": 98.3,
        "IEMOCAP": 64.5,
    }
    for result in card.data.eval_results:
        assert result.metric_name.endswith("after fine-tuning, in per cent, as the paper states it")
        assert result.source_url == "https://arxiv.org/abs/2212.09058"
    assert "Nobody measured them again" in " ".join(card.text.split())


@pytest.fixture
def sources(tmp_path):
    """A manifest of three golden checkpoints, and their directory."""
    directory = tmp_path / "sources"
    directory.mkdir()
    entries = [
        {"file": "a.pt", "name": "a", "kind": "pretrained", "title": "A", "paper": {"AS-2M": 47.9}},
        {"file": "b.pt", "name": "b", "kind": "finetuned", "base_model": "a"},
        {"file": "c.pt", "name": "c", "kind": "tokenizer"},
    ]
    entries[0]["sha256"] = sha256(FIXTURES / "beats_tiny.pt")
    for entry, name in zip(entries, ("beats_tiny", "beats_tiny_finetuned", "tokenizer_tiny")):
        shutil.copy(FIXTURES / f"{name}.pt", directory / entry["file"])
    manifest = {"defaults": {"license": "mit"}, "checkpoints": entries}
    (directory / "manifest.yaml").write_text(yaml.safe_dump(manifest))
    return directory


def options_for(sources):
    paths = ("--source-dir", sources, "--manifest", sources / "manifest.yaml", "--report", sources / "report.json")
    return (*paths, "--namespace", "user")


def test_a_manifest_is_published_around_a_bad_file_and_completed_later(hub, signed_in, sources):
    (sources / "b.pt").write_bytes(b"damaged")
    assert run("publish", *options_for(sources)).exit_code == 1
    statuses = {entry["repository"]: entry["status"] for entry in json.loads((sources / "report.json").read_text())}
    assert statuses == {"user/a": "published", "user/b": "refused", "user/c": "published"}
    assert "user/b" not in hub.repositories

    shutil.copy(FIXTURES / "beats_tiny_finetuned.pt", sources / "b.pt")
    downloads = len(hub.sent("GET", "/user/a/"))
    second = run("publish", *options_for(sources))
    # What the report says was compared is not downloaded again, only asked about.
    assert not [request for request in hub.sent("GET", "/user/a/")[downloads:] if "safetensors" in request.path]
    assert second.exit_code == 0, second.output
    report = {entry["repository"]: entry for entry in json.loads((sources / "report.json").read_text())}
    assert {name: entry["status"] for name, entry in report.items()} == {
        "user/a": "unchanged",
        "user/b": "published",
        "user/c": "unchanged",
    }
    assert [len(commits(hub, name)) for name in report] == [1, 1, 1]
    card = contents(hub, "user/b", "README.md")
    assert read_checkpoint(sources / "b.pt").sha256 == report["user/b"]["sha256"]
    assert report["user/b"]["sha256"] in card
    assert "base_model: user/a" in card


def test_a_dry_run_checks_the_files_without_network(sources, tmp_path):
    (sources / "c.pt").unlink()
    environment = {"PATH": "", "HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": str(tmp_path)}
    result = run_script("publish_all.py", *options_for(sources), "--dry-run", env=environment)
    assert result.returncode == 1
    lines = [line.split() for line in result.stdout.splitlines()[-3:]]
    assert [line[:2] for line in lines] == [["user/a", "checked"], ["user/b", "checked"], ["user/c", "missing"]]
    assert not (sources / "report.json").exists()


def test_the_script_is_the_command(tmp_path):
    """Also in what it says of a wrong word."""
    environment = {"PATH": "", "HF_HOME": str(tmp_path)}
    for words in (["--ony", "beats"], ["--source-dir", str(tmp_path)], ["--help"]):
        script = run_script("publish_all.py", *words, env=environment)
        command = [sys.executable, "-m", "transformers_beats", "publish", *words]
        result = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
        assert script.returncode == result.returncode, words
        assert script.stderr.splitlines() == result.stderr.splitlines(), words
        assert "Traceback" not in script.stderr
        # The name of the program is in the usage.
        assert len(script.stdout.splitlines()) == len(result.stdout.splitlines()), words


def test_a_dry_run_makes_no_folder_for_the_report(sources):
    result = run("publish", *options_for(sources), "--report", sources / "deep" / "report.json", "--dry-run")
    assert result.exit_code == 0, result.output
    assert not (sources / "deep").exists()


@pytest.mark.parametrize("dry_run", [[], ["--dry-run"]])
@pytest.mark.parametrize(("report", "message"), [("", "is a folder"), ("a.pt/report.json", "a.pt is no folder")])
def test_a_report_that_cannot_be_written_is_refused_at_once(report, message, dry_run, hub, signed_in, sources):
    result = run("publish", *options_for(sources), "--report", sources / report, *dry_run)
    assert result.exit_code == 2
    assert message in result.stderr
    assert hub.repositories == {}


@pytest.mark.parametrize("error", [KeyError("cfg"), RuntimeError("aminmax"), IndexError("tuple"), MemoryError()])
def test_a_file_that_fails_in_any_way_does_not_stop_the_others(error, sources, monkeypatch):
    def convert_or_fail(source, *args, **kwargs):
        if source.name == "b.pt":
            raise error
        return convert(source, *args, **kwargs)

    monkeypatch.setattr(publish_all, "convert", convert_or_fail)
    result = run("publish", *options_for(sources), "--dry-run")
    assert result.exit_code == 1
    assert [line.split()[1] for line in result.stdout.splitlines()[-3:]] == ["checked", "failed", "checked"]


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("kind", "tokenizer", "its kind is pretrained, that of beats_tiny.pt is tokenizer"),
        ("sha256", "0" * 64, "has SHA-256 .*, beats_tiny.pt has 0000"),
        ("bytes", 361499833, "has [0-9]* bytes, beats_tiny.pt has 361499833"),
        ("cfg", {"encoder_layers": 12}, "its encoder_layers is 3, that of beats_tiny.pt is 12"),
        ("cfg", {"encoder_embed_dim": 768}, "its encoder_embed_dim is [0-9]*, that of beats_tiny.pt is 768"),
        ("cfg", {"deep_norm": False}, "its deep_norm is True, that of beats_tiny.pt is False"),
        ("num_parameters", 90311792, "its number of parameters is [0-9]*, that of beats_tiny.pt is 90311792"),
    ],
)
def test_a_file_that_is_not_what_the_manifest_says_is_refused(key, value, message, tmp_path):
    entry = {"file": "beats_tiny.pt", "name": "a", "kind": "pretrained", key: value}
    path = tmp_path / "manifest.yaml"
    path.write_text(yaml.safe_dump({"checkpoints": [entry]}))
    outcome = publish_all.process(read_manifest(path)["a"], "user/a", FIXTURES, private=False, dry_run=True)
    assert outcome.status == "refused"
    assert re.search(message, outcome.detail)


def test_another_model_is_not_published_under_the_name_of_a_released_one(tmp_path):
    shutil.copy(FIXTURES / "beats_tiny.pt", tmp_path / "BEATs_iter3.pt")
    options = ("--source-dir", tmp_path, "--namespace", "user", "--only", "beats-iter3", "--dry-run")
    result = run("publish", *options)
    assert result.exit_code == 1
    assert "refused" in result.stdout.splitlines()[-1]
    assert "bytes, BEATs_iter3.pt has 361499833" in result.stdout


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "large"}, "'kind' expected one of .*, got large"),
        ({"sha": "0"}, "unexpected keyword argument 'sha'"),
        ({"paper": {"AS-3M": 1.0}}, "unknown tasks AS-3M"),
        ({"file": None}, "'file' expected str, got NoneType"),
        ({"paper": {"AS-2M": 48.0}}, "`paper` needs `sha256`"),
        ({"name": "../a"}, "`name`: '../a' is no name of a file"),
        ({"bytes": 0}, "`bytes`: 0 is no size"),
        ({"num_parameters": -1}, "`num_parameters`: -1 is no size"),
        ({"paper": {"ESC-50": float("nan")}, "sha256": "0" * 64}, "`paper`: ESC-50 is nan, which are no per cent"),
        ({"paper": {"ESC-50": 100.5}, "sha256": "0" * 64}, "`paper`: ESC-50 is 100.5, which are no per cent"),
        ({"name": "a/b"}, "`name`: 'a/b' is no name of a file"),
        ({"file": "C:\\a.pt"}, "`file`: .* is no name of a file"),
        ({"sha256": "../../a"}, "`sha256`: ../../a must have 64 digits"),
    ],
)
def test_mistakes_in_a_manifest_are_named(change, message, tmp_path):
    entry = {"file": "a.pt", "name": "a", "kind": "pretrained", **change}
    path = tmp_path / "manifest.yaml"
    path.write_text(yaml.safe_dump({"checkpoints": [entry]}))
    with pytest.raises(UsageError, match=message):
        read_manifest(path)


@pytest.mark.parametrize("contents", [{"checkpoints": ["a"]}, {"checkpoints": [{}], "defaults": ["a"]}])
def test_a_manifest_must_have_keys_and_values(contents, tmp_path):
    path = tmp_path / "manifest.yaml"
    path.write_text(yaml.safe_dump(contents))
    with pytest.raises(UsageError, match="checkpoint 1: a checkpoint, and `defaults`, must have keys and values"):
        read_manifest(path)


@torch.no_grad()
def test_the_probe_tells_models_apart(converted):
    expected = publishing.probe(converted)
    model = BeatsModel.from_pretrained(converted)
    model.encoder.layers[0].mlp.fc1.weight[0, 0] += 0.1
    model.save_pretrained(converted)
    assert not np.array_equal(publishing.probe(converted), expected)
