# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Notes of commands for people, on stderr, and progress bars: `--quiet` is without both."""

import functools
import logging
import os
import shlex
import sys
from collections.abc import Generator
from contextlib import contextmanager


# Read by libraries when they are imported, here and in processes that are started.
QUIET = {
    "TQDM_DISABLE": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
    "TRANSFORMERS_VERBOSITY": "error",
}
_state = {"quiet": False}


def is_quiet() -> bool:
    """Returns whether the command was asked for neither notes nor progress bars."""
    return _state["quiet"]


@contextmanager
def quietly(quiet: bool = True) -> Generator[None, None, None]:
    """Leaves out notes and the progress bars of all libraries; does nothing if `quiet` is false."""
    if not quiet:
        yield
        return
    from tqdm import tqdm

    # huggingface_hub has imported it, so that it does not read the environment any more.
    earlier, initialize = {name: os.environ.get(name) for name in QUIET}, tqdm.__init__
    os.environ.update(QUIET)
    tqdm.__init__ = functools.partialmethod(initialize, disable=True)
    _state["quiet"] = True
    try:
        yield
    finally:
        _state["quiet"] = False
        tqdm.__init__ = initialize
        for name, value in earlier.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextmanager
def hold_back(name: str, text: str) -> Generator[None, None, None]:
    """
    Holds back the messages of the logger `name` that contain `text`: they are about what is done on purpose. If an
    error is raised, they may explain it and are printed.
    """
    source, held = logging.getLogger(name), []

    def hold(record: logging.LogRecord) -> bool:
        is_meant = text in record.getMessage()
        held.extend([record] if is_meant else [])
        return not is_meant

    source.addFilter(hold)
    try:
        yield
    except Exception:
        source.removeFilter(hold)
        for record in held:
            source.handle(record)
        raise
    finally:
        source.removeFilter(hold)


@contextmanager
def without_weight_bars() -> Generator[None, None, None]:
    """
    Leaves out the progress bars of transformers for weights, which here are one file, and would break those of a
    training. Also a decorator.
    """
    from huggingface_hub.utils import are_progress_bars_disabled
    from transformers.utils import logging as transformers_logging

    # The client's follow: those that were switched off must not come back.
    is_on = transformers_logging.is_progress_bar_enabled() and not are_progress_bars_disabled()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        if is_on:
            transformers_logging.enable_progress_bar()


def note(*lines: str) -> None:
    """Prints lines on stderr, such as where results are; none under `--quiet`."""
    if lines and not is_quiet():
        print(*lines, sep="\n", file=sys.stderr)


def next_command(*words: str) -> str:
    """Returns the line that tells what to type after a command: words of another one, quoted for the shell."""
    return f"Next: transformers-beats {shlex.join(words)}"


def warn(message: str) -> None:
    """Prints a line on stderr, above a progress bar if there is one, also under `--quiet`."""
    from tqdm import tqdm

    tqdm.write(message, file=sys.stderr)
