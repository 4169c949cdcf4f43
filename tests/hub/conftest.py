# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
from pathlib import Path

import pytest
from huggingface_hub import HfApi, constants

from hub.releases import Release
from hub.server import local_hub
from transformers_beats.conversion.released import MANIFEST_VARIABLE


@pytest.fixture
def hub():
    """A Hub on this machine, without repositories."""
    with local_hub() as hub:
        yield hub


@pytest.fixture
def api(hub, monkeypatch, tmp_path):
    """The real client in this process, signed in; it caches in a directory of its own and does not wait to retry."""
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda seconds: None)
    return HfApi(endpoint=hub.endpoint, token=hub.token)


@pytest.fixture
def home(hub, monkeypatch, tmp_path) -> Path:
    """This process knows the local Hub only, is signed out, and keeps all in a home of its own."""
    home = tmp_path / "home"
    values = {
        "ENDPOINT": hub.endpoint,
        "HUGGINGFACE_CO_URL_TEMPLATE": hub.endpoint + "/{repo_id}/resolve/{revision}/{filename}",
        "HF_HUB_DISABLE_XET": True,
        "HF_HOME": str(home),
        "HF_HUB_CACHE": str(home / "hub"),
        "HF_TOKEN_PATH": str(home / "token"),
    }
    for name, value in values.items():
        monkeypatch.setattr(constants, name, value)
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    return home


@pytest.fixture
def release(hub, api, home, monkeypatch, tmp_path) -> Release:
    """A manifest with one model, and a client that is in a hurry."""
    # Seconds; the client waits for 10, six times.
    hurry = {"DOWNLOAD_CHUNK_SIZE": 50_000, "HF_HUB_ETAG_TIMEOUT": 0.2, "HF_HUB_DOWNLOAD_TIMEOUT": 0.2}
    for name, value in hurry.items():
        monkeypatch.setattr(constants, name, value)
    release = Release(hub, api, tmp_path / "manifest.yaml", home)
    monkeypatch.setenv(MANIFEST_VARIABLE, str(release.manifest))
    hub.requests.clear()
    return release
