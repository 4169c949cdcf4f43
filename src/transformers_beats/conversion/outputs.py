# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Directories that conversions write: their names, and what of them may be replaced."""

import json
import os
from collections.abc import Iterable
from pathlib import Path

from transformers_beats.utils.errors import UsageError, name_some
from transformers_beats.utils.files import check_place, is_fixed

from . import released
from .locations import HubFile, HubRepository, Location
from .released import Entry, read_manifest


# Files that a conversion writes, besides the model's code, which is copied from the package.
WRITTEN = ("README.md", "config.json", "preprocessor_config.json", "model.safetensors")
PACKAGE = Path(__file__).parents[1]


def find_source(text: str) -> Entry | Path | Location:
    """
    Returns what a text names, as [`released.find_source`] does. A directory with a BEATs model is no source: it does
    not hide the released model of its name, which is converted to a directory of this name if no other is given.
    """
    if "/" not in text and is_beats_directory(Path(text)) and text in (entries := read_manifest()):
        return entries[text]
    return released.find_source(text)


def stem_of(found: Entry | Path | Location) -> str:
    """Returns the name that a source gives to its converted directory."""
    if isinstance(found, Entry):
        return found.name
    if isinstance(found, HubFile):
        return Path(found.path).stem
    if isinstance(found, HubRepository):
        return found.repo_id.partition("/")[2]
    return found.name if isinstance(found, Path) and found.is_dir() else Path(found.name).stem


def check_output_dir(output_dir: Path, overwrite: bool, inputs: Iterable[str | Path] = ()) -> Path:
    """
    Checks that a directory can be written without losing anything; returns its absolute path. `inputs` are the files
    that the conversion reads: those that are no paths here, such as ids of the Hub, do not count.

    Raises:
        [`UsageError`]: unless it is absent or empty or, with `overwrite`, holds a BEATs model and nothing besides what
            a conversion writes.
    """
    # Unlike `Path.resolve`, without an exception of its own for links that go in circles.
    output_dir = Path(os.path.realpath(output_dir))
    if Path.cwd().is_relative_to(output_dir):
        raise UsageError(f"{output_dir}: is the current directory or contains it; name a directory of its own.")
    if os.path.exists(output_dir) and not os.path.isdir(output_dir):
        raise UsageError(f"{output_dir}: is a file.")
    names = sorted(os.listdir(output_dir)) if os.path.isdir(output_dir) else []
    if names:
        _check_replaceable(output_dir, names, overwrite, inputs)
    check_place(output_dir / "new" if is_fixed(output_dir) else output_dir)
    return output_dir


def _check_replaceable(output_dir: Path, names: list[str], overwrite: bool, inputs: Iterable[str | Path]) -> None:
    """Raises a [`UsageError`] for a directory that is not empty and would lose more than an older conversion."""
    if not overwrite:
        raise UsageError(f"{output_dir}: is not empty; pass --overwrite to replace it.")
    if not is_beats_directory(output_dir):
        raise UsageError(f"{output_dir}: holds no BEATs model; --overwrite replaces nothing else.")
    for path in inputs:
        if os.path.exists(path) and Path(os.path.realpath(path)).is_relative_to(output_dir):
            raise UsageError(f"{path}: --overwrite would delete it with {output_dir}; name another OUTPUT.")
    if others := [name for name in names if not _is_written(output_dir / name)]:
        raise UsageError(
            f"{output_dir}: holds {name_some(others)}, which --overwrite would delete; move that away, or name "
            "another OUTPUT."
        )
    if is_fixed(output_dir):
        raise UsageError(f"{output_dir}: cannot be replaced, only filled; empty it, or name a directory in it.")


def is_beats_directory(directory: Path) -> bool:
    """Returns whether the `config.json` of a directory is that of a BEATs model."""
    try:
        model_type = json.loads((directory / "config.json").read_text(encoding="utf-8"))["model_type"]
    except (OSError, ValueError, KeyError, TypeError):
        return False
    return str(model_type).startswith("beats")


def is_output(path: Path) -> bool:
    """Returns whether a file is, by its name and the `config.json` beside it, of a converted model."""
    return _is_written(path) and is_beats_directory(path.parent)


def _is_written(path: Path) -> bool:
    """Returns whether a path has the name of a file that a conversion writes."""
    is_code = path.match("*_beats*.py") and (PACKAGE / path.name).is_file()
    return path.is_file() and (path.name in WRITTEN or is_code)
