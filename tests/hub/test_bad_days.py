# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""`released.get` where the cache or the disk is not as it should be, without a network, and interrupted."""

import ctypes
import errno
import os
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from huggingface_hub import constants, hf_hub_download

from hub.releases import (
    FIRST,
    NAME,
    SECOND,
    SOURCE,
    assert_complete,
    failure,
    interrupt,
    interrupt_when_silent,
    largest_file,
)
from transformers_beats import BeatsFeatureExtractor
from transformers_beats.conversion import released


# Cache


def test_a_model_in_the_cache_asks_nothing(release):
    directory = released.get(NAME)
    release.hub.requests.clear()
    assert released.get(NAME) == directory
    assert release.hub.requests == []
    assert directory.is_relative_to(release.cache)


def test_another_cache_can_be_named(release, tmp_path):
    directory = released.get(NAME, cache_dir=tmp_path / "mine")
    assert directory.is_relative_to(tmp_path / "mine")
    assert_complete(directory, release)
    assert not release.cache.exists()


def remove(file: Path) -> None:
    file.unlink()


def halve(file: Path) -> None:
    os.truncate(file, file.stat().st_size // 2)


def empty(file: Path) -> None:
    os.truncate(file, 0)


@pytest.mark.parametrize("damage", [remove, halve, empty])
@pytest.mark.parametrize("name", ["config.json", "preprocessor_config.json", "model.safetensors"])
def test_a_damaged_directory_is_replaced(name, damage, release):
    directory = released.get(NAME)
    damage(directory / name)
    assert released.get(NAME) == directory
    assert_complete(directory, release)


def test_what_killed_runs_left_is_removed(release):
    (release.cache / NAME / ".converting-0123" / "model").mkdir(parents=True)
    assert_complete(released.get(NAME), release)


def test_a_file_in_the_cache_of_the_client_is_taken(release):
    hf_hub_download(FIRST, SOURCE.name)
    release.hub.requests.clear()
    assert_complete(released.get(NAME), release)
    assert release.hub.requests == []


def cached_file_that_differs(release) -> None:
    path = hf_hub_download(FIRST, SOURCE.name)
    content = Path(path).read_bytes()
    Path(path).resolve().write_bytes(content[:-1] + b"x")
    release.hub.requests.clear()


def test_a_file_in_the_cache_with_another_hash_is_fetched_again(release):
    cached_file_that_differs(release)
    assert_complete(released.get(NAME), release)
    assert len(release.hub.sent("GET", FIRST)) == 1


def test_a_file_that_differs_again_is_refused(release):
    cached_file_that_differs(release)
    release.write_manifest(f"hf://{FIRST}/{SOURCE.name}")
    release.hub.corrupt(FIRST, SOURCE.name)
    assert "has SHA-256" in failure()
    assert len(release.hub.sent("GET", FIRST)) == 1


# Offline


def switch_off(monkeypatch) -> dict:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return {}


def ask_for_it(monkeypatch) -> dict:
    return {"offline": True}


@pytest.mark.parametrize("way", [switch_off, ask_for_it], ids=lambda way: way.__name__)
def test_offline_nothing_is_asked(way, release, monkeypatch):
    arguments = way(monkeypatch)
    message = failure(**arguments)
    assert f"{NAME}: is not in the cache, and the network is switched off" in message
    assert release.hub.requests == []


@pytest.mark.parametrize("way", [switch_off, ask_for_it], ids=lambda way: way.__name__)
def test_offline_a_file_in_the_cache_of_the_client_is_converted(way, release, monkeypatch):
    hf_hub_download(FIRST, SOURCE.name)
    release.hub.requests.clear()
    assert_complete(released.get(NAME, **way(monkeypatch)), release)
    assert release.hub.requests == []


def test_offline_a_file_in_the_cache_with_another_hash_is_refused(release):
    cached_file_that_differs(release)
    assert "is not in the cache" in failure(offline=True)
    assert release.hub.requests == []


# Disk


def test_a_full_disk_ends_the_download(release):
    with largest_file(200_000):
        message = failure()
    assert message == (f"{constants.HF_HUB_CACHE}: cannot be used: File too large; name another cache with HF_HOME.")
    assert not release.hub.sent("GET", SECOND), "another mirror would not help"
    assert release.leftovers == []
    assert_complete(released.get(NAME), release)


def test_a_full_disk_ends_the_download_from_an_address(release):
    release.write_manifest(release.share())
    with largest_file(200_000):
        assert "cannot be used: File too large; name another cache" in failure()
    assert release.leftovers == []
    assert_complete(released.get(NAME), release)


@pytest.mark.parametrize("num_bytes", [100, 200_000])
def test_a_full_disk_ends_the_conversion(num_bytes, release):
    hf_hub_download(FIRST, SOURCE.name)
    with largest_file(num_bytes):
        message = failure()
    assert "File too large" in message
    assert release.models == []
    assert release.leftovers == []
    assert_complete(released.get(NAME), release)


def test_a_cache_that_is_no_directory_is_named(release):
    release.cache.parent.mkdir(exist_ok=True)
    release.cache.touch()
    message = failure()
    assert message.startswith(f"{release.cache}")
    assert "cannot be used" in message
    assert "HF_HOME" in message


@pytest.fixture
def read_only():
    """
    Makes directories read-only, for root as well: permissions bind the thread of the tests as they bind other users.
    """
    setfsuid = getattr(ctypes.CDLL(None), "setfsuid", None)
    if os.geteuid() == 0 and setfsuid is None:
        pytest.skip("root may write everywhere, and only Linux can take this right away")

    def read_only(root: Path) -> None:
        for directory in (root, *(path for path in root.rglob("*") if path.is_dir())):
            directory.chmod(0o555)
        if os.geteuid() == 0:
            setfsuid(65534)

    yield read_only
    if os.geteuid() == 0:
        setfsuid(0)


@pytest.fixture
def open_home(release, monkeypatch):
    """A home that other users can read; pytest's directories are private."""
    with tempfile.TemporaryDirectory() as root:
        os.chmod(root, 0o755)
        release.home = Path(root) / "home"
        release.home.mkdir()
        manifest = Path(root) / "manifest.yaml"
        manifest.write_text(release.manifest.read_text())
        monkeypatch.setenv(released.MANIFEST_VARIABLE, str(manifest))
        monkeypatch.setattr(constants, "HF_HOME", str(release.home))
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(release.home / "hub"))
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(release.home / "token"))
        yield release.home
        for directory in (path for path in release.home.rglob("*") if path.is_dir()):
            directory.chmod(0o755)


def test_a_read_only_cache_is_named(release, open_home, read_only):
    read_only(open_home)
    assert failure() == (f"{release.cache}: cannot be used: Permission denied; name another cache with HF_HOME.")
    assert release.hub.requests == []


def test_a_model_in_a_read_only_cache_is_used(release, open_home, read_only):
    directory = released.get(NAME)
    read_only(open_home)
    assert released.get(NAME) == directory


def test_a_read_only_cache_of_downloads_is_named(release, open_home, read_only):
    writable = open_home.with_name("writable")
    writable.mkdir(mode=0o777)
    writable.chmod(0o777)
    read_only(open_home)
    message = failure(cache_dir=writable)
    assert message.startswith(f"{constants.HF_HUB_CACHE}")
    assert "cannot be used: Permission denied" in message


# Interruptions


@pytest.mark.parametrize("is_address", [False, True])
def test_ctrl_c_during_the_download_leaves_nothing(is_address, release):
    if is_address:
        release.write_manifest(release.share())
    release.hub.silence("GET", "files/" if is_address else FIRST, after=200_000)
    with interrupt_when_silent(release.hub), pytest.raises(KeyboardInterrupt):
        released.get(NAME)
    assert release.models == []
    assert release.leftovers == []
    assert_complete(released.get(NAME), release)


def test_ctrl_c_during_the_conversion_leaves_nothing(release, monkeypatch):
    with monkeypatch.context() as patch:
        # Called after the weights have been written.
        patch.setattr(BeatsFeatureExtractor, "save_pretrained", lambda *_: interrupt())
        with pytest.raises(KeyboardInterrupt):
            released.get(NAME)
    assert release.models == []
    assert release.leftovers == []
    release.hub.requests.clear()
    assert_complete(released.get(NAME), release)
    assert not release.hub.sent("GET"), "the download is kept"


def test_those_who_ask_at_once_get_one_model_from_one_download(release):
    with ThreadPoolExecutor(3) as pool:
        directories = set(pool.map(released.get, [NAME] * 3))
    assert len(directories) == 1
    assert_complete(directories.pop(), release)
    assert len([request for request in release.hub.sent("GET", FIRST) if "resolve" not in request.path]) == 1


def test_a_disk_without_locks_will_do(release, monkeypatch):
    """As the parallel file systems of many clusters."""

    def flock(*_):
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr("fcntl.flock", flock)
    assert_complete(released.get(NAME), release)
