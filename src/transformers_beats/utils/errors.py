# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Errors of the package, and the one place that prints them: one line on stderr and an exit status."""

import difflib
import gc
import os
import pickle
import signal
import stat
import sys
import traceback
import unicodedata
import warnings
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import contextmanager
from typing import Any

from safetensors import SafetensorError

from .messages import warn


# Exit statuses of every command: 0 for success, FAILURE if a file or the whole work failed, USAGE for arguments that
# cannot be used, INTERRUPTED after Ctrl-C.
FAILURE, USAGE, INTERRUPTED = 1, 2, 130
# Errors that files, models and too little memory raise.
FOREIGN_ERRORS = (OSError, ValueError, ImportError, RuntimeError, MemoryError, SafetensorError, pickle.UnpicklingError)


class BeatsError(ValueError):
    """Base class of the package's errors. The message is one line: what is wrong, which value, what to do."""

    exit_status = FAILURE


class DivergenceError(BeatsError):
    """Divergence of a training: the loss, a weight or a logit is no finite number."""


class UsageError(BeatsError):
    """Arguments that cannot be used: an unknown option, a value out of range, an input or output of the wrong kind."""

    exit_status = USAGE


def message_of(error: BaseException | str) -> str:
    """Returns the message of an error; of one in a worker of a `DataLoader`, the part behind its traceback."""
    text = str(error)
    if text.startswith("Caught ") and "\nOriginal Traceback" in text:
        return text.rpartition(f"{type(error).__name__}: ")[2]
    return text


def first_line(error: BaseException | str, name: str | None = None) -> str:
    """
    Returns the first line of a message that is not empty; the class of an error without a message. Of a message about
    the file `name`, without the name at its beginning, whatever line ends are in it.
    """
    text = message_of(error)
    if name is not None:
        text = text.removeprefix(f"{name}: ").replace(name, printable(name))
    lines = (line.strip() for line in text.splitlines())
    return next((line for line in lines if line), type(error).__name__)


def one_line(text: Any) -> str:
    """Returns a text of several lines, or the message of an error, as one line."""
    return " ".join(message_of(text).split())


def printable(text: str) -> str:
    """Returns a text without what a terminal would obey or cannot show."""
    # Spaces that are not of ASCII count as not printable.
    return "".join(
        letter if letter.isprintable() or unicodedata.category(letter) == "Zs" else "\N{REPLACEMENT CHARACTER}"
        for letter in text
    )


def name_some(names: Sequence[object], limit: int = 5) -> str:
    """Returns the first names in quotes, and how many more there are."""
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(repr(name) for name in names[:limit]) + more


def install_command(extra: str) -> str:
    """
    Returns the command that adds an extra of the package, such as `"onnx"`, to an installation. pip takes the package
    that is installed, from whatever directory and also if no index has it, and fetches the packages of the extra.
    """
    return f"pip install 'transformers-beats[{extra}]'"


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Returns `"; did you mean ...?"` with the known names that look like an unknown one; `""` if there are none."""
    matches = difflib.get_close_matches(name, list(known))
    return f"; did you mean {' or '.join(matches)}?" if matches else ""


@contextmanager
def errors_in_one_line(with_traceback: bool = False) -> Generator[None, None, None]:
    """
    Ends the program with one line on stderr and the exit status of the error. With `with_traceback`, as in the middle
    of a training, errors of other packages are preceded by their traceback, except errors of files.

    Raises:
        `SystemExit`: with status 1 or 2 for an error, 130 after Ctrl-C.
    """
    # Waiting threads sleep instead of spinning; read when torch is imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    if sys.stderr is None:
        # Closed: messages would go to standard output, among the results.
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115
    try:
        yield
    except BrokenPipeError as error:
        if sys.stdout.isatty() or stat.S_ISREG(os.fstat(sys.stdout.fileno()).st_mode):
            # Standard output is no pipe: another one is broken, such as that of a process that was killed.
            _say(f"error: {first_line(error)}")
        else:
            # The reader of standard output has enough. Python would report its own failure to flush.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(FAILURE) from None
    except KeyboardInterrupt:
        _say("interrupted")
        raise SystemExit(INTERRUPTED) from None
    except FOREIGN_ERRORS as error:
        if with_traceback and not isinstance(error, (BeatsError, OSError)):
            traceback.print_exc()
        _say(f"error: {one_line(error) if isinstance(error, BeatsError) else first_line(error)}")
        raise SystemExit(getattr(error, "exit_status", FAILURE)) from None


def _say(message: str) -> None:
    """Prints a line on stderr, also if a progress bar has begun one."""
    message = printable(message)
    if "tqdm" in sys.modules:
        warn(message)
    else:
        print(message, file=sys.stderr)


def run_command(main: Callable[[], Any]) -> None:
    """
    Runs the `main` of a training command, with [`errors_in_one_line`], and ends its process group. An integer that
    `main` returns is the exit status.

    Raises:
        `SystemExit`: after an error, see [`errors_in_one_line`], and for an exit status other than 0.
    """
    # Recipes ask for as many as larger machines have; more than there are cores do no harm.
    warnings.filterwarnings("ignore", message="This DataLoader will create .* worker processes")
    with errors_in_one_line(with_traceback=True):
        status = main()
        distributed = sys.modules.get("torch.distributed")
        if distributed is not None and distributed.is_available() and distributed.is_initialized():
            # A thread of gloo that lets go of a tensor while Python shuts down aborts the process, and with it the
            # whole run. Destroying the group ends them, if no trainer left in a reference cycle holds it.
            gc.collect()
            distributed.destroy_process_group()
    if isinstance(status, int) and status:
        raise SystemExit(status)


def end_on_signals() -> None:
    """
    Makes SIGTERM, and SIGHUP of a closed terminal, raise `SystemExit` with 128 and the number of the signal, so that
    an ended command cleans up as an interrupted one does. A signal that is ignored, as by `nohup`, stays so.
    """
    for name in ("SIGTERM", "SIGHUP"):
        # Windows has no SIGHUP.
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, lambda received, _: sys.exit(128 + received))
