# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""
Fetches transformers' own common tests and makes them importable as the package `transformers_tests`. The wheel lacks
them, so they come from the source distribution of the installed version.
"""

import importlib.util
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from types import ModuleType

import transformers


PACKAGE = "transformers_tests"
CACHE = Path(__file__).parents[2] / ".cache" / "transformers-tests"


class DownloadError(RuntimeError):
    """The source distribution could not be downloaded."""


def import_package() -> None:
    """Imports `transformers_tests`, after a download if this version of transformers is not in the cache."""
    if PACKAGE in sys.modules:
        return
    directory = fetch()
    # Not through `sys.path`, where its real name, `tests`, would compete with ours.
    spec = importlib.util.spec_from_file_location(
        PACKAGE, directory / "__init__.py", submodule_search_locations=[str(directory)]
    )
    package = sys.modules[PACKAGE] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(package)
    _add_stand_ins()


def fetch() -> Path:
    """Directory with the top-level test modules of the installed version of transformers."""
    directory = CACHE / transformers.__version__
    if directory.exists():
        return directory
    CACHE.mkdir(parents=True, exist_ok=True)
    # In the cache's own file system, so that the rename below is atomic.
    with tempfile.TemporaryDirectory(dir=CACHE) as temporary:
        unpacked = _unpack(_download(Path(temporary)), Path(temporary))
        try:
            unpacked.rename(directory)
        except OSError:
            # Another process was faster.
            if not directory.exists():
                raise
    return directory


def _download(target: Path) -> Path:
    requirement = f"transformers=={transformers.__version__}"
    if importlib.util.find_spec("pip") is None:
        raise DownloadError(f"downloading the source of {requirement} needs pip: run `python -m ensurepip`")
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--retries", "1", "download", "--quiet"]
    command += ["--no-deps", "--no-binary", "transformers", "--dest", str(target), requirement]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        reason = " ".join(result.stderr.split())[:500]
        raise DownloadError(f"pip could not download the source of {requirement}: {reason}")
    return next(target.glob("*.tar.gz"))


def _unpack(archive: Path, target: Path) -> Path:
    with tarfile.open(archive) as tar:
        # transformers-5.23.0/tests/test_modeling_common.py
        names = [member for member in tar.getmembers() if Path(member.name).parts[1:2] == ("tests",)]
        tar.extractall(target, members=names, filter="data")
    (directory,) = target.glob("*/tests")
    # test_configuration_common.py executes the `__init__.py` beside it.
    (directory / "__init__.py").touch()
    return directory


def _add_stand_ins() -> None:
    """Defines the modules that the common tests import and that the source distribution leaves out."""

    class ExportTesterMixin:
        """Tests `torch.export` in transformers' repository."""

    class GenerationTesterMixin:
        """Tests `generate` in transformers' repository. BEATs does not generate."""

    # Arguments that every configuration accepts, with values that differ from the defaults.
    config_common_kwargs = {
        "return_dict": False,
        "output_hidden_states": True,
        "output_attentions": True,
        "dtype": "float16",
        "chunk_size_feed_forward": 5,
        "architectures": ["BeatsModel"],
        "id2label": {0: "speech"},
        "label2id": {"speech": 0},
        "problem_type": "regression",
    }
    _add_module("exporters")
    _add_module("exporters.test_export", ExportTesterMixin=ExportTesterMixin)
    _add_module("generation")
    _add_module("generation.test_utils", GenerationTesterMixin=GenerationTesterMixin)
    _add_module("utils")
    _add_module("utils.test_configuration_utils", config_common_kwargs=config_common_kwargs)


def _add_module(name: str, **attributes) -> None:
    module = ModuleType(f"{PACKAGE}.{name}")
    module.__path__ = []
    vars(module).update(attributes)
    sys.modules[module.__name__] = module
