# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""The one rule for continuing an output: it may go on if it was begun with the same settings."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .errors import UsageError
from .files import replace_file


def check_settings(earlier: Mapping[str, Any], settings: Mapping[str, Any], name: str | Path) -> None:
    """
    Compares the settings that an output was begun with, as they were read from JSON, and those of this run: whatever
    changes the result, nothing that does not. `name` is the name of the output for the message.

    Raises:
        [`UsageError`]: if a setting differs, or only one of the two has it.
    """
    settings = as_json(settings)
    for key in sorted(settings.keys() | earlier.keys()):
        if settings.get(key) != earlier.get(key):
            raise UsageError(
                f"{name}: was begun with another `{key}` ({json.dumps(earlier.get(key))}, now "
                f"{json.dumps(settings.get(key))}): choose the same, or another output."
            )


def begin_or_resume(
    file: Path, settings: Mapping[str, Any], name: str | Path, resume: bool = True, has_results: bool = False
) -> bool:
    """
    Writes the settings of a new output to the JSON file `file`, whose directory is made, or compares them with those
    of an output that is continued; see [`check_settings`]. Without `resume`, settings that are there are replaced.
    With `has_results`, an output without settings has results nevertheless: nobody knows with which they were made.

    Returns:
        `bool`: whether the output was begun before.

    Raises:
        [`UsageError`]: if a setting differs, results have no settings, or the file cannot be read or written.
    """
    try:
        earlier = read_settings(file) if resume else None
        if earlier is not None:
            check_settings(earlier, settings, name)
            return True
        if resume and has_results:
            raise UsageError(
                f"{name}: cannot be resumed without {file}, which says with what settings its results were made: "
                "choose another output."
            )
        file.parent.mkdir(parents=True, exist_ok=True)
        with replace_file(file) as temporary:
            temporary.write_text(json.dumps(as_json(settings), indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise UsageError(f"{file}: cannot be written: {error.strerror}.") from error
    return False


def read_settings(file: Path) -> dict[str, Any] | None:
    """
    Reads the settings of an output; None if there are none.

    Raises:
        [`UsageError`]: if the file holds something else.
    """
    try:
        return dict(json.loads(file.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise UsageError(f"{file}: cannot be read as settings: remove it, or choose another output.") from error


def as_json(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the settings as JSON gives them back: tuples become lists, paths text."""
    return json.loads(json.dumps(dict(settings), default=str))
