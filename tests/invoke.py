# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""The command, run in the process of a test."""

from typing import Any

from typer.testing import CliRunner

from transformers_beats.cli.app import app


def run(*words: Any, exit_code: int = 0, **options: Any):
    """Runs `transformers-beats WORDS`, which must end with a status; `options` are those of Typer's runner."""
    result = CliRunner().invoke(app, [str(word) for word in words], **options)
    assert result.exit_code == exit_code, (result.output, result.exception)
    return result
