# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
import pytest
from huggingface_hub import HfApi, constants

from hub.server import local_hub


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
