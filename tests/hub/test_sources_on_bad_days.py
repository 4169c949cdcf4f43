# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""`convert SOURCE` on days on which the source, the network or the disk is not as it should be."""

import pytest
from huggingface_hub import close_session, constants
from typer.testing import CliRunner

from hub.releases import FIRST, NAME, SOURCE, interrupt, interrupt_when_silent, largest_file, save_malicious
from transformers_beats import BeatsFeatureExtractor, BeatsModel
from transformers_beats.cli.app import app


FOREVER = -1
FILE = f"hf://{FIRST}/{SOURCE.name}"


@pytest.fixture
def work(release, tmp_path, monkeypatch):
    """The current directory, and beside it the one for temporary files."""
    (tmp_path / "work").mkdir()
    (tmp_path / "temporary").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    return tmp_path / "work"


def convert(*arguments: str) -> tuple[int, str]:
    """Exit status, and the last line of standard error."""
    result = CliRunner().invoke(app, ["convert", *arguments])
    assert "Traceback" not in result.stderr
    return result.exit_code, result.stderr.strip().splitlines()[-1] if result.stderr.strip() else ""


def refusal(source: str, work, *options: str) -> str:
    """The message of a conversion that fails and leaves nothing."""
    status, error = convert(source, "out", *options)
    assert status in (1, 2)
    assert_nothing_is_left(work)
    return error


def assert_nothing_is_left(work) -> None:
    assert list(work.iterdir()) == []
    assert list((work.parent / "temporary").iterdir()) == []


def assert_converts(source: str, work) -> None:
    assert convert(source, "out") == (0, "") or (work / "out" / "model.safetensors").exists()
    assert BeatsModel.from_pretrained(work / "out").config.hidden_size == 64
    assert [path.name for path in work.iterdir()] == ["out"]
    assert list((work.parent / "temporary").iterdir()) == []


@pytest.mark.parametrize("source", [FILE, FIRST, f"hf://{FIRST}"])
@pytest.mark.parametrize("settings", [{"private": True}, {"gated": "manual"}])
def test_a_repository_without_access_says_hf_auth_login(source, settings, release, work):
    release.api.update_repo_settings(FIRST, **settings)
    assert "`hf auth login`" in refusal(source, work)


def test_a_repository_with_access_is_converted(release, work, monkeypatch):
    release.api.update_repo_settings(FIRST, private=True)
    monkeypatch.setenv("HF_TOKEN", release.hub.token)
    assert_converts(FILE, work)


@pytest.mark.parametrize("form", ["hf://{}/" + SOURCE.name, "{}"])
def test_a_renamed_repository_is_converted(form, release, work):
    release.api.move_repo(FIRST, "user/renamed")
    assert_converts(form.format(FIRST), work)


def test_a_file_that_is_much_too_large_is_refused_before_it_is_read_from_anywhere(release, work, tmp_path):
    large = tmp_path / "large.pt"
    with large.open("wb") as file:
        file.truncate(30 * 10**9)
    for source in (str(large), release.hub.share("large.pt", large)):
        error = refusal(source, work)
        assert f"{source}: has 30 GB, more than the limit of 8 GB for a checkpoint; --max-size raises it." in error
    assert_converts(str(SOURCE), work)


@pytest.mark.parametrize("is_address", [False, True])
def test_a_larger_file_is_read_if_asked(is_address, release, work):
    source = release.share() if is_address else FILE
    assert "GB, more than the limit of 0.0001 GB" in refusal(source, work, "--max-size", "0.0001")
    assert_converts(source, work)


@pytest.mark.parametrize("limit", ["inf", "1e300"])
def test_a_limit_can_be_infinite(limit, release, work):
    assert convert(FILE, "out", "--max-size", limit)[0] == 0


def test_the_card_does_not_have_what_may_be_secret_of_an_address(release, work):
    address = release.share()
    with_secrets = address.replace("//", "//me:password@") + "?token=signature"
    assert convert(with_secrets, "out")[0] == 0
    card = (work / "out" / "README.md").read_text()
    assert f"`{address}`, SHA-256" in card
    assert "password" not in card
    assert "signature" not in card


@pytest.mark.parametrize("place", ["file", "hub", "address"])
def test_a_pickle_with_code_is_not_executed(place, release, work, tmp_path):
    file, marker = tmp_path / SOURCE.name, tmp_path / "executed"
    save_malicious(file, marker)
    content = file.read_bytes()
    source = {
        "file": lambda: str(file),
        "hub": lambda: release.upload(FIRST, content),
        "address": lambda: release.share(content),
    }[place]()
    assert "contains Python objects other than tensors (posix.system)" in refusal(source, work)
    assert not marker.exists()


def test_a_login_page_is_not_taken_for_a_file(release, work):
    release.hub.intercept("GET", "files/")
    assert "is a web page, not a file" in refusal(release.share(), work)
    release.hub.intercept("HEAD", FIRST)
    assert "check whether this network has a login page" in refusal(FILE, work)


def test_a_silent_server_is_given_up(release, work):
    release.hub.silence("GET", "files/", times=FOREVER)
    release.hub.silence("HEAD", FIRST, times=FOREVER)
    for source in (release.share(), FILE):
        assert refusal(source, work).startswith(f"error: {source}: no answer in time; try again")


@pytest.mark.parametrize("source", [FILE, FIRST, NAME, "https://example.org/beats.pt"])
def test_offline_nothing_is_asked(source, release, work, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    error = refusal(source, work)
    assert "is not in the cache" in error
    assert "HF_HUB_OFFLINE" in error
    assert release.hub.requests == []


def test_offline_a_file_in_the_cache_is_converted(release, work, monkeypatch):
    assert_converts(FILE, work)
    release.hub.requests.clear()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert convert(FILE, "out", "--overwrite")[0] == 0
    assert release.hub.requests == []


def test_without_a_network_files_in_the_cache_are_converted(release, work, caplog):
    assert_converts(FIRST, work)
    for server in release.hub.servers:
        server.shutdown()
        server.server_close()
    # Connections that are open would still be served.
    close_session()
    caplog.clear()
    assert convert(FIRST, "out", "--overwrite")[0] == 0
    said = [record.getMessage() for record in caplog.records]
    reason = "cannot be reached: [Errno 111] Connection refused"
    for beginning in (
        f"hf://{FIRST}: only those files count that are in the cache: ",
        f"{FILE}: what is in the cache",
    ):
        (line,) = [line for line in said if line.startswith(beginning)]
        assert reason in line
    # What is not there needs it.
    assert "cannot be reached" in convert("user/second", "other")[1]


@pytest.mark.parametrize("is_address", [False, True])
def test_a_full_disk_leaves_nothing(is_address, release, work):
    source = release.share() if is_address else FILE
    with largest_file(200_000):
        assert "File too large" in refusal(source, work)
    assert_converts(source, work)


def test_a_full_disk_during_the_conversion_leaves_nothing(release, work):
    with largest_file(200_000):
        assert "File too large" in refusal(str(SOURCE), work)
    assert_converts(str(SOURCE), work)


@pytest.mark.parametrize("is_address", [False, True])
def test_ctrl_c_during_the_download_leaves_nothing(is_address, release, work):
    source = release.share() if is_address else FILE
    release.hub.silence("GET", "files/" if is_address else release.sha256, after=200_000)
    with interrupt_when_silent(release.hub):
        assert convert(source, "out") == (130, "interrupted")
    assert_nothing_is_left(work)
    assert_converts(source, work)


def test_ctrl_c_during_the_conversion_leaves_nothing(release, work, monkeypatch):
    with monkeypatch.context() as patch:
        # Called after the weights have been written.
        patch.setattr(BeatsFeatureExtractor, "save_pretrained", lambda *_: interrupt())
        assert convert(FILE, "out") == (130, "interrupted")
    assert_nothing_is_left(work)
    assert_converts(FILE, work)


@pytest.mark.parametrize("output", [[], [NAME]])
def test_a_released_model_is_converted_again_to_the_directory_of_its_name(output, release, work):
    assert convert(NAME, *output)[0] == 0
    status, error = convert(NAME, *output)
    assert (status, NAME + ": is not empty; pass --overwrite to replace it." in error) == (2, True)
    assert convert(NAME, *output, "--overwrite")[0] == 0
    # It also states the architecture.
    assert convert(str(SOURCE), "other", "--cfg", NAME)[0] == 0
    # As a path, it is the directory.
    assert "is a model for transformers already" in convert(f"./{NAME}", "another")[1]


def test_a_directory_of_files_has_a_name_of_its_own(release, work):
    (work / NAME).mkdir()
    (work / NAME / "mine.pt").write_bytes(release.content)
    assert convert(NAME, "out")[0] == 0
    assert release.hub.requests == []


@pytest.mark.parametrize("source", [NAME, FILE, FIRST])
def test_a_file_that_is_too_large_is_not_downloaded(source, release, work):
    assert "more than the limit of 0.0001 GB" in refusal(source, work, "--max-size", "0.0001")
    assert not list(release.home.rglob("blobs/*"))


def test_an_output_that_exists_is_refused_before_the_download(release, work):
    for source, name in ((FILE, "beats_tiny"), (FIRST, "first"), (release.share(), "beats_tiny")):
        (work / name).mkdir(exist_ok=True)
        (work / name / "mine").touch()
        assert "is not empty" in convert(source)[1]
    assert release.hub.requests == []
