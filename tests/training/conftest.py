# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
import shutil
from pathlib import Path

import datasets
import pytest
from tiny import empty_pictures, make_recipe, make_sounds


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def cache_of_the_module(tmp_path_factory):
    """For what is made once for all tests of a module, before each gets a cache of its own."""
    cache = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets.config, "HF_DATASETS_CACHE", cache)
        patch.setenv("HF_DATASETS_CACHE", str(cache))
        yield


@pytest.fixture
def sounds(tmp_path) -> Path:
    return make_sounds(tmp_path / "sounds")


@pytest.fixture
def recipe(sounds, tmp_path) -> dict:
    return make_recipe(sounds, tmp_path / "run")


@pytest.fixture
def labelled(sounds, tmp_path) -> Path:
    """The same sounds, in folders of two classes."""
    for index, path in enumerate(sorted(sounds.iterdir())):
        folder = tmp_path / "labelled" / ("low", "high")[index // 6]
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, folder / path.name)
    return tmp_path / "labelled"


@pytest.fixture
def no_pictures():
    with empty_pictures():
        yield
