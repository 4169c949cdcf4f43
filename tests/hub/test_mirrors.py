# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""`released.get` where mirrors, the network or names are not as they should be."""

import io

import pytest
import torch
from huggingface_hub import close_session, constants

from hub.proxy import local_proxy
from hub.releases import FIRST, NAME, SECOND, SOURCE, assert_complete, failure, save_malicious
from transformers_beats import BeatsModel
from transformers_beats.conversion import released
from transformers_beats.utils.errors import UsageError


FOREVER = -1


def no_repository(release):
    release.api.delete_repo(FIRST)


def no_file(release):
    release.api.delete_file(SOURCE.name, FIRST)


def no_revision(release):
    release.write_manifest(f"hf://{FIRST}@v9/{SOURCE.name}", f"hf://{SECOND}/{SOURCE.name}")


def private(release):
    release.api.update_repo_settings(FIRST, private=True)


def gated(release):
    release.api.update_repo_settings(FIRST, gated="manual")


def forbidden(release):
    release.hub.fail("HEAD", FIRST, status=403, times=FOREVER)


def broken(release):
    release.hub.fail("HEAD", FIRST, status=500, times=FOREVER)


def broken_storage(release):
    release.hub.fail("GET", FIRST, status=500, times=FOREVER)


def silent(release):
    release.hub.silence("HEAD", FIRST, times=FOREVER)


def silent_storage(release):
    release.hub.silence("GET", FIRST, times=FOREVER)


def login_page(release):
    release.hub.intercept("HEAD", FIRST, times=FOREVER)


def login_page_as_file(release):
    release.hub.intercept("GET", FIRST, times=FOREVER)


def another_file(release):
    release.upload(FIRST, release.content[:-1] + b"x")


def half_a_file(release):
    release.upload(FIRST, release.content[: len(release.content) // 2])


def half_arrives(release):
    release.hub.disconnect("GET", FIRST, after=40_000, times=FOREVER)


def wrong_bytes(release):
    release.hub.corrupt(FIRST, SOURCE.name)


NOT_FOUND = "no such repository, or a private one: check the name, or run `hf auth login`"
MIRRORS = {
    no_repository: NOT_FOUND,
    no_file: "the repository has no such file",
    no_revision: "the repository has no such revision",
    private: NOT_FOUND,
    gated: "its owner must give you access: ask on its page on the Hub, and run `hf auth login`",
    forbidden: "the Hub answers 403: The local Hub was asked to fail. Run `hf auth login` with an account",
    broken: "the Hub answers 500: The local Hub was asked to fail",
    broken_storage: "the Hub answers 500: The local Hub was asked to fail",
    silent: "no answer in time; try again, or set HF_HUB_ETAG_TIMEOUT and HF_HUB_DOWNLOAD_TIMEOUT to more seconds",
    silent_storage: "no answer in time; try again",
    login_page: "the answer is not the Hub's: check whether this network has a login page, and HF_ENDPOINT",
    login_page_as_file: "80 of 487925 bytes arrived",
    another_file: "is another file: SHA-256",
    half_a_file: "is another file: 243962 bytes, expected 487925",
    half_arrives: "peer closed connection without sending complete message body",
    wrong_bytes: "has SHA-256",
}


@pytest.mark.parametrize("day", MIRRORS, ids=lambda day: day.__name__)
def test_the_next_mirror_is_taken_if_the_first_has(day, release):
    day(release)
    assert_complete(released.get(NAME), release)
    assert release.hub.sent("GET", SECOND)


@pytest.mark.parametrize(("day", "reason"), MIRRORS.items(), ids=lambda value: getattr(value, "__name__", ""))
def test_the_message_has_a_reason_for_each_mirror(day, reason, release):
    day(release)
    release.api.delete_file(SOURCE.name, SECOND)
    message = failure()
    reasons = message.partition("no mirror has it: ")[2].split(" | ")
    assert reasons[0].startswith(f"hf://{FIRST}")
    assert reason in reasons[0]
    assert reasons[1].startswith(f"hf://{SECOND}/{SOURCE.name}: the repository has no such file. A file of one's own")
    assert f"transformers-beats convert {SOURCE.name} {NAME}" in message
    assert "signature" not in message
    assert release.models == []


def test_models_of_one_name_without_a_hash_are_told_apart_by_their_mirrors(release):
    release.write_manifest(release.upload(FIRST), sha256=None)
    first = released.get(NAME)
    assert released.get(NAME) == first
    other = torch.load(io.BytesIO(release.content), weights_only=True)
    other["model"]["layer_norm.weight"] *= 2
    file = io.BytesIO()
    torch.save(other, file)
    content = file.getvalue()
    release.write_manifest(release.upload(SECOND, content), sha256=None, bytes=len(content))
    weights = [BeatsModel.from_pretrained(place).embeddings.layer_norm.weight for place in (first, released.get(NAME))]
    torch.testing.assert_close(weights[1], 2 * weights[0])


def test_a_mirror_can_be_a_dataset(release):
    release.write_manifest(release.upload("user/data", repo_type="dataset"))
    assert_complete(released.get(NAME), release)


@pytest.mark.parametrize("repo_type", ["model", "dataset"])
def test_a_renamed_repository_is_found(release, repo_type):
    release.write_manifest(release.upload("user/old", repo_type=repo_type))
    release.api.move_repo("user/old", "user/new", repo_type=repo_type)
    assert_complete(released.get(NAME), release)


def test_a_private_mirror_opens_with_a_token(release, monkeypatch):
    private(release)
    monkeypatch.setenv("HF_TOKEN", release.hub.token)
    assert_complete(released.get(NAME), release)
    assert release.hub.sent("GET", FIRST)
    assert not release.hub.sent("GET", SECOND)


def test_one_without_mirrors_names_the_page(release):
    release.write_manifest()
    assert failure() == (
        f"{NAME}: no public mirror is known. A file of one's own is converted by: transformers-beats convert "
        f"{SOURCE.name} {NAME}."
    )


def test_the_message_names_the_publisher_and_the_page_of_the_entry(release):
    release.write_manifest(publisher="Our lab", page="https://example.org/models")
    assert failure().endswith(f"{NAME} (https://example.org/models has Our lab's links).")
    release.write_manifest(page="https://example.org/models")
    assert failure().endswith("(https://example.org/models has the publisher's links).")


def test_a_pickle_with_code_is_not_executed(release, tmp_path):
    """A manifest without a hash, such as one of a lab, must not make a mirror trusted."""
    marker = tmp_path / "executed"
    save_malicious(tmp_path / SOURCE.name, marker)
    mirror = release.upload(FIRST, (tmp_path / SOURCE.name).read_bytes())
    release.write_manifest(mirror, sha256=None, bytes=None)
    assert "contains Python objects other than tensors (posix.system); loading it could run code" in failure()
    assert not marker.exists()
    release.write_manifest(mirror)
    assert "is another file" in failure()
    assert release.leftovers == []


# Connections


def test_an_interrupted_download_goes_on(release):
    release.hub.silence("GET", FIRST, after=200_000)
    assert_complete(released.get(NAME), release)
    storage = [request for request in release.hub.sent("GET", FIRST) if "resolve" not in request.path]
    assert [request.range for request in storage] == [None, "bytes=200000-"]
    assert not release.hub.sent("GET", SECOND)


@pytest.fixture
def fresh_client():
    """The client reads proxies from the environment when it is made."""
    close_session()
    yield
    close_session()


def test_a_proxy_is_used(release, fresh_client, monkeypatch):
    with local_proxy() as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        monkeypatch.delenv("NO_PROXY", raising=False)
        assert_complete(released.get(NAME), release)
        assert len(proxy.asked) == len(release.hub.requests) > 0


def test_hosts_in_no_proxy_are_asked_directly(release, fresh_client, monkeypatch):
    with local_proxy() as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        monkeypatch.setenv("NO_PROXY", "localhost,127.0.0.1")
        assert_complete(released.get(NAME), release)
        assert proxy.asked == []


def test_a_proxy_that_refuses_is_named(release, fresh_client, monkeypatch):
    with local_proxy() as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        monkeypatch.setattr(constants, "ENDPOINT", "https://huggingface.co")
        monkeypatch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", "https://huggingface.co/{repo_id}/resolve/{revision}/{filename}"
        )
        message = failure()
    assert proxy.asked == ["CONNECT huggingface.co:443"] * 2
    reason = "the proxy refuses: 403 Forbidden by policy; check HTTP_PROXY, HTTPS_PROXY and NO_PROXY"
    assert message.count(reason) == 2


def test_a_dead_proxy_is_one_line(release, fresh_client, monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.delenv("NO_PROXY", raising=False)
    assert "cannot be reached: [Errno 111] Connection refused; check the network, and HTTP_PROXY" in failure()
    assert release.hub.requests == []


def test_a_hub_that_is_gone_is_one_line(release, fresh_client):
    for server in release.hub.servers:
        server.shutdown()
        server.server_close()
    assert failure().count("cannot be reached: [Errno 111] Connection refused") == 2


def test_a_misspelt_name_is_told_the_right_one(release):
    with pytest.raises(UsageError, match=f"beats-smal: no released model has this name; did you mean {NAME}?"):
        released.get("beats-smal")
    with pytest.raises(UsageError, match="`transformers-beats models` lists those"):
        released.get("whisper")
    assert release.hub.requests == []


@pytest.mark.parametrize("name", ["a b", "a/b", "..", "-a", "a\nb", "a\0b", "a" * 97])
def test_a_name_must_be_one_of_a_folder_and_of_a_repository(name, release):
    release.write_manifest(name=name)
    with pytest.raises(UsageError, match=r"manifest.yaml, checkpoint 1: .*`name`: .* is no name of a file"):
        released.read_manifest()


@pytest.mark.parametrize("mirror", ["user/first", "hf://user/first@main", "/shared/beats.pt", "ftp://host/beats.pt"])
def test_a_mirror_must_be_a_file_that_can_be_fetched(mirror, release):
    release.write_manifest(mirror)
    with pytest.raises(UsageError, match=f"manifest.yaml, checkpoint 1: .*{mirror}"):
        released.get(NAME)
