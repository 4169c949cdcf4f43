# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""The local Hub behaves as the real client expects of the real one."""

import hashlib
import os
import socket
import urllib.error
import urllib.request
from urllib.parse import urlsplit

import pytest
from huggingface_hub import CommitOperationAdd, HfApi, constants
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from hub.proxy import local_proxy


REPO = "user/thing"
LARGE = os.urandom(300_000)
CARD = "---\nlicense: mit\ntags:\n- audio\n---\n\n# Thing\n"


def commit(api, files: dict[str, bytes], **kwargs) -> str:
    """One commit of `files`; its name."""
    operations = [CommitOperationAdd(path, content) for path, content in files.items()]
    return api.create_commit(REPO, operations, commit_message="change", **kwargs).oid


@pytest.fixture
def repo(api) -> str:
    """A repository with a card and a large file."""
    api.create_repo(REPO)
    commit(api, {"README.md": CARD.encode(), "weights.bin": LARGE, "folder/empty.txt": b""})
    return REPO


def download(api, path: str, **kwargs) -> bytes:
    with open(api.hf_hub_download(REPO, path, **kwargs), "rb") as file:
        return file.read()


def test_files_come_back_as_they_were(api, hub, repo):
    assert download(api, "README.md") == CARD.encode()
    assert download(api, "weights.bin") == LARGE
    assert download(api, "folder/empty.txt") == b""
    assert len(hub.sent("PUT")) == 1, "small files are part of the commit"
    assert [item.title for item in api.list_repo_commits(repo)] == ["change", "initial commit"]


def test_what_the_api_tells_of_a_repository(api, repo):
    info = api.model_info(repo, files_metadata=True)
    assert (info.id, info.private, info.card_data.license, info.tags) == (repo, False, "mit", ["audio"])
    sizes = {item.rfilename: item.size for item in info.siblings}
    assert sizes["weights.bin"] == len(LARGE)
    tree = {item.path: item for item in api.list_repo_tree(repo, recursive=True)}
    assert sorted(tree) == [".gitattributes", "README.md", "folder", "folder/empty.txt", "weights.bin"]
    assert tree["weights.bin"].lfs.sha256 == hashlib.sha256(LARGE).hexdigest()
    assert [item.path for item in api.list_repo_tree(repo, "folder")] == ["folder/empty.txt"]
    assert [item.path for item in api.get_paths_info(repo, ["README.md", "absent"])] == ["README.md"]
    assert api.whoami()["name"] == "user"
    assert api.file_exists(repo, "weights.bin")
    assert not api.file_exists(repo, "absent")
    assert not api.repo_exists("user/absent")


def test_a_second_download_fetches_nothing(api, hub, repo):
    download(api, "README.md")
    download(api, "weights.bin")
    hub.requests.clear()
    assert download(api, "weights.bin") == LARGE
    assert download(api, "README.md") == CARD.encode()
    assert [request.method for request in hub.requests] == ["HEAD", "HEAD"]


def test_revisions_stay_what_they_were(api, repo):
    old = api.model_info(repo).sha
    api.create_tag(repo, tag="v1", revision=old)
    api.create_branch(repo, branch="work/a", revision="v1")
    new = commit(api, {"weights.bin": LARGE + b"2"}, parent_commit=old)
    commit(api, {"weights.bin": LARGE + b"3"}, revision="work/a")
    assert download(api, "weights.bin") == download(api, "weights.bin", revision=new) == LARGE + b"2"
    assert download(api, "weights.bin", revision="v1") == download(api, "weights.bin", revision=old) == LARGE
    assert download(api, "weights.bin", revision="work/a") == LARGE + b"3"
    refs = api.list_repo_refs(repo)
    assert {ref.name: ref.target_commit for ref in [*refs.branches, *refs.tags]}["v1"] == old
    with pytest.raises(HfHubHTTPError, match="412"):
        commit(api, {"weights.bin": b"4"}, parent_commit=old)
    with pytest.raises(RevisionNotFoundError):
        download(api, "weights.bin", revision="v2")
    api.delete_tag(repo, tag="v1")
    api.delete_branch(repo, branch="work/a")
    assert [ref.name for ref in api.list_repo_refs(repo).branches] == ["main"]


def test_refs_and_repositories_exist_once(api, repo):
    with pytest.raises(HfHubHTTPError, match="409"):
        api.create_repo(repo)
    assert api.create_repo(repo, exist_ok=True).repo_id == repo
    api.create_tag(repo, tag="v1")
    with pytest.raises(HfHubHTTPError, match="409"):
        api.create_tag(repo, tag="v1")
    api.create_tag(repo, tag="v1", exist_ok=True)
    api.delete_repo(repo)
    with pytest.raises(RepositoryNotFoundError):
        api.model_info(repo)


def test_deleted_files_are_gone_from_the_next_commit_on(api, repo):
    old = api.model_info(repo).sha
    api.delete_file("weights.bin", repo)
    api.delete_folder("folder", repo)
    assert api.list_repo_files(repo) == [".gitattributes", "README.md"]
    with pytest.raises(EntryNotFoundError):
        download(api, "weights.bin")
    assert download(api, "weights.bin", revision=old) == LARGE
    with pytest.raises(EntryNotFoundError):
        api.delete_file("absent", repo)


def test_unchanged_files_are_neither_uploaded_nor_committed_again(api, hub, repo, tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "README.md").write_text(CARD)
    (tmp_path / "folder" / "weights.bin").write_bytes(LARGE)
    hub.requests.clear()
    api.upload_folder(repo_id=repo, folder_path=tmp_path / "folder")
    assert hub.sent("PUT") == hub.sent("POST", "/commit/") == []
    assert len(hub.repository(repo).history()) == 2


def test_private_repositories_are_as_if_absent_for_others(api, hub, tmp_path):
    api.create_repo(REPO, private=True)
    commit(api, {"config.json": b"{}"})
    assert download(api, "config.json") == b"{}"
    for token in (False, hub.stranger_token):
        others = HfApi(endpoint=hub.endpoint, token=token)
        with pytest.raises(RepositoryNotFoundError, match="private or gated"):
            others.model_info(REPO)
        with pytest.raises(RepositoryNotFoundError, match="private or gated"):
            others.hf_hub_download(REPO, "config.json", cache_dir=tmp_path / "others")
    with pytest.raises(HfHubHTTPError, match="Invalid credentials in Authorization header"):
        HfApi(endpoint=hub.endpoint, token="hf_wrong").model_info(REPO)
    api.update_repo_settings(REPO, private=False)
    assert HfApi(endpoint=hub.endpoint, token=False).model_info(REPO).private is False


def test_only_the_owner_writes(api, hub, repo):
    others = HfApi(endpoint=hub.endpoint, token=hub.stranger_token)
    for attempt in (
        lambda: commit(others, {"README.md": b"mine"}),
        lambda: others.create_repo("user/other"),
        lambda: others.delete_repo(repo),
        lambda: others.create_tag(repo, tag="v1"),
    ):
        with pytest.raises(HfHubHTTPError, match="403"):
            attempt()
    assert len(hub.repository(repo).history()) == 2


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ("license: [", "YAML"),
        ("license: Apache License 2.0", '"license" must be an identifier'),
        ("tags: audio", '"tags" must be an array'),
        ("model-index:\n- results: []", 'name" is required'),
        (
            "model-index:\n- name: a\n  results:\n  - task: {type: b}\n    dataset: {name: c}\n"
            "    metrics:\n    - {type: d, value: 1}",
            'dataset.type" is required',
        ),
    ],
)
def test_invalid_metadata_of_a_card_is_refused(api, hub, repo, metadata, message):
    with pytest.raises(ValueError, match=message):
        commit(api, {"README.md": f"---\n{metadata}\n---\n".encode()})
    assert len(hub.repository(repo).history()) == 2


def test_a_card_without_metadata_is_a_warning(api, repo):
    with pytest.warns(UserWarning, match="empty or missing yaml metadata"):
        commit(api, {"README.md": b"# Thing\n"})


def test_content_that_does_not_hash_to_its_name_is_refused(api, hub, repo):
    operation = CommitOperationAdd("other.bin", LARGE + b"x")
    operation.upload_info.sha256 = b"\0" * 32
    with pytest.raises(RuntimeError, match=r"other\.bin") as error:
        api.preupload_lfs_files(repo, [operation])
    assert "expected 0000" in str(error.value.__cause__)
    assert not hub.repository(repo).has_object("00" * 32)


def test_a_commit_cannot_name_what_was_never_uploaded(api, hub, repo):
    operation = CommitOperationAdd("other.bin", LARGE + b"x")
    operation._upload_mode, operation._is_uploaded = "lfs", True
    with pytest.raises(HfHubHTTPError, match="never uploaded"):
        api.create_commit(repo, [operation], commit_message="bad")
    assert len(hub.repository(repo).history()) == 2


def test_storage_needs_a_signed_url_and_no_token(api, hub, repo):
    sha256 = hashlib.sha256(LARGE).hexdigest()
    signed = f"{hub.storage}/{repo}/{sha256}?signature={hub.storage_key}"
    with urllib.request.urlopen(signed) as response:
        assert response.read() == LARGE
    with pytest.raises(urllib.error.HTTPError, match="403"):
        urllib.request.urlopen(signed.partition("?")[0])
    request = urllib.request.Request(signed, headers={"Authorization": f"Bearer {hub.token}"})
    with pytest.raises(urllib.error.HTTPError, match="400"):
        urllib.request.urlopen(request)


def test_ranges(api, hub, repo):
    def read(span: str) -> tuple[int, bytes]:
        request = urllib.request.Request(f"{hub.endpoint}/{repo}/resolve/main/weights.bin", headers={"Range": span})
        with urllib.request.urlopen(request) as response:
            return response.status, response.read()

    assert read("bytes=10-19") == (206, LARGE[10:20])
    assert read("bytes=299990-") == (206, LARGE[299990:])
    assert read("bytes=-7") == (206, LARGE[-7:])
    with pytest.raises(urllib.error.HTTPError, match="416"):
        read("bytes=300000-")


def test_requests_that_the_hub_does_not_know_are_named(api, repo):
    with pytest.raises(HfHubHTTPError, match="does not know POST /api/models/user/thing/discussions"):
        api.create_discussion(repo, title="a")


def test_datasets_are_apart_from_models(api, hub, tmp_path):
    api.create_repo(REPO, repo_type="dataset")
    operations = [CommitOperationAdd("folder/weights.pt", LARGE), CommitOperationAdd("README.md", CARD.encode())]
    api.create_commit(REPO, operations, commit_message="change", repo_type="dataset")
    assert download(api, "folder/weights.pt", repo_type="dataset") == LARGE
    assert download(api, "README.md", repo_type="dataset", revision="main") == CARD.encode()
    assert api.dataset_info(REPO).id == REPO
    assert "folder/weights.pt" in api.list_repo_files(REPO, repo_type="dataset")
    with pytest.raises(RepositoryNotFoundError):
        api.model_info(REPO)


@pytest.mark.parametrize("repo_type", ["model", "dataset"])
def test_a_renamed_repository_is_found_under_its_old_name(api, hub, repo_type):
    api.create_repo(REPO, repo_type=repo_type)
    operations = [CommitOperationAdd("weights.bin", LARGE), CommitOperationAdd("README.md", CARD.encode())]
    api.create_commit(REPO, operations, commit_message="change", repo_type=repo_type)
    api.move_repo(REPO, "user/renamed", repo_type=repo_type)
    assert api.repo_info(REPO, repo_type=repo_type).id == "user/renamed"
    assert download(api, "weights.bin", repo_type=repo_type) == LARGE
    assert download(api, "README.md", repo_type=repo_type) == CARD.encode()
    assert [request.status for request in hub.sent("HEAD", "weights.bin")] == [307, 302]


def test_files_of_a_gated_repository_are_for_those_with_access(api, hub, repo, tmp_path):
    api.update_repo_settings(repo, gated="manual")
    assert download(api, "weights.bin") == LARGE
    for token, status in ((False, 401), (hub.stranger_token, 403)):
        others = HfApi(endpoint=hub.endpoint, token=token)
        assert others.model_info(repo).gated == "manual"
        with pytest.raises(GatedRepoError, match=str(status)):
            others.hf_hub_download(repo, "weights.bin", cache_dir=tmp_path / "others")
    hub.repository(repo).access.add("stranger")
    others.hf_hub_download(repo, "weights.bin", cache_dir=tmp_path / "others")


def test_the_website_has_files_and_redirects(hub, tmp_path):
    (tmp_path / "beats.pt").write_bytes(LARGE)
    url = hub.redirect("latest", hub.share("files/beats.pt", tmp_path / "beats.pt"))
    with urllib.request.urlopen(url) as response:
        assert response.url.endswith("/files/beats.pt")
        assert response.read() == LARGE
        etag = response.headers["ETag"]
    for condition, status, start in ((etag, 206, 299_990), ('"other"', 200, 0)):
        headers = {"Range": "bytes=299990-", "If-Range": condition}
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers)) as response:
            assert (response.status, response.read()) == (status, LARGE[start:])
    with pytest.raises(urllib.error.HTTPError, match="404"):
        urllib.request.urlopen(f"{hub.website}/absent")


def test_the_proxy_fetches_and_takes_note(api, hub, repo):
    with local_proxy() as proxy:
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({"http": proxy.url, "https": proxy.url}))
        url = f"{hub.endpoint}/{repo}/resolve/main/weights.bin"
        assert opener.open(url).read() == LARGE
        with pytest.raises(OSError, match="Forbidden by policy"):
            opener.open("https://huggingface.co")
        assert [line.partition("?")[0] for line in proxy.asked] == [
            f"GET {url}",
            f"GET {hub.storage}/{repo}/{hashlib.sha256(LARGE).hexdigest()}",
            "CONNECT huggingface.co:443",
        ]


# Failures


def test_a_silent_hub_says_no_more_but_stays_connected(hub, repo):
    url = f"{hub.endpoint}/{repo}/resolve/main/weights.bin"
    hub.silence("GET", "weights.bin")
    with pytest.raises(TimeoutError):
        urllib.request.urlopen(url, timeout=0.2)
    hub.silence("GET", hashlib.sha256(LARGE).hexdigest(), after=100_000)
    with urllib.request.urlopen(url, timeout=0.2) as response:
        assert response.read(100_000) == LARGE[:100_000]
        with pytest.raises(TimeoutError):
            response.read()


def test_a_network_with_a_login_page_answers_everything_with_it(api, hub, repo):
    hub.intercept("HEAD", "weights.bin")
    with pytest.raises(LocalEntryNotFoundError):
        download(api, "weights.bin")
    hub.intercept("GET", "/user/thing/")
    with pytest.raises(OSError, match="Consistency check failed"):
        download(api, "weights.bin")


def test_an_upload_whose_sender_is_gone_is_not_kept(hub, repo):
    sha256 = hashlib.sha256(LARGE + b"x").hexdigest()
    path = f"/{repo}/{sha256}?signature={hub.storage_key}"
    with socket.create_connection(("127.0.0.1", urlsplit(hub.storage).port)) as connection:
        head = f"PUT {path} HTTP/1.1\r\nHost: hub\r\nContent-Length: {len(LARGE) + 1}\r\n\r\n"
        connection.sendall(head.encode() + LARGE)
        connection.shutdown(socket.SHUT_WR)
        assert connection.recv(1) == b"", "the Hub closes the connection, too"
    assert [file.name for file in hub.repository(repo).directory.iterdir()] == [hashlib.sha256(LARGE).hexdigest()]


def test_an_upload_that_fails_leaves_nothing_visible_and_is_completed_by_the_next(api, hub, repo):
    files = {"README.md": b"new", "a.bin": LARGE + b"a", "b.bin": LARGE + b"b"}
    hub.fail("PUT", status=403, skip=1)
    with pytest.raises(RuntimeError, match="Error while uploading"):
        commit(api, files)
    assert api.list_repo_files(repo) == [".gitattributes", "README.md", "folder/empty.txt", "weights.bin"]
    assert download(api, "README.md") == CARD.encode()
    hub.requests.clear()
    commit(api, files)
    assert len(hub.sent("PUT")) == 1, "what had arrived is not sent again"
    assert download(api, "a.bin") == files["a.bin"]
    assert download(api, "b.bin") == files["b.bin"]
    assert len(hub.repository(repo).history()) == 3


def test_the_client_goes_on_after_passing_failures(api, hub, repo, monkeypatch):
    """Errors of the server, and silence; only newer clients go on after a connection was closed."""
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 50_000)
    monkeypatch.setattr(constants, "HF_HUB_DOWNLOAD_TIMEOUT", 0.2)
    hub.fail("PUT", times=2)
    hub.silence("GET", "/user/thing/", after=100_000)
    commit(api, {"a.bin": LARGE + b"a"})
    assert [request.status for request in hub.sent("PUT")[1:]] == [503, 503, 200]
    assert download(api, "a.bin") == LARGE + b"a"
    assert [request.status for request in hub.sent("GET", "/user/thing/")] == [None, 206]


def test_a_failed_commit_changes_nothing(api, hub, repo):
    hub.fail("POST", "/commit/", status=500)
    with pytest.raises(HfHubHTTPError, match="500"):
        commit(api, {"a.bin": LARGE + b"a"})
    assert len(hub.repository(repo).history()) == 2
    hub.requests.clear()
    commit(api, {"a.bin": LARGE + b"a"})
    assert hub.sent("PUT") == []
    assert len(hub.repository(repo).history()) == 3


def test_a_commit_whose_answer_was_lost_is_not_made_twice(api, hub, repo):
    hub.fail("POST", "/commit/", applied=True)
    with pytest.raises(HfHubHTTPError, match="503"):
        commit(api, {"a.bin": LARGE + b"a"})
    commit(api, {"a.bin": LARGE + b"a"})
    assert len(hub.repository(repo).history()) == 3


def test_the_client_does_not_notice_corrupted_bytes_of_the_right_size(api, hub, repo):
    """Whoever publishes has to compare hashes; `verify_repo_checksums` does."""
    hub.corrupt(repo, "weights.bin")
    content = download(api, "weights.bin")
    assert len(content) == len(LARGE)
    assert content != LARGE
    mismatches = api.verify_repo_checksums(repo, cache_dir=constants.HF_HUB_CACHE).mismatches
    assert [item["path"] for item in mismatches] == ["weights.bin"]
    hub.heal()
    assert download(api, "weights.bin") == content, "and keeps what it got"
    assert download(api, "weights.bin", force_download=True) == LARGE
