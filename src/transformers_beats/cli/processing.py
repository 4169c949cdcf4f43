# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Loop over the files of a command, in which a file that cannot be used does not stop the others."""

import errno
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers_beats.audio.files import AudioFile
from transformers_beats.utils.errors import FOREIGN_ERRORS, UsageError, first_line

from .options import Shared
from .writers import OutputError


if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from transformers_beats.feature_extraction_beats import BeatsFeatureExtractor


# After these, no other file can be written either. The last is raised if the reader of a pipe has gone.
END_OF_OUTPUT = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EPIPE)


def process(
    files: list[AudioFile],
    is_done: Callable[[AudioFile], bool],
    compute: Callable[[list[Path]], Iterator[Any]],
    write: Callable[[AudioFile, Any], None],
) -> None:
    """
    Computes and writes the results of the files that are not done; names those that cannot be used on stderr.
    `compute` returns the results of files in their order: after an error, `next` gives that of the next file.

    Raises:
        `SystemExit`: with status 1 if a file could not be used.
        [`OutputError`], `OSError`: if the output takes no more results.
    """
    from tqdm import tqdm

    todo = [file for file in files if not is_done(file)]
    if len(todo) < len(files):
        print(f"{len(files) - len(todo)} of {len(files)} files are done already.", file=sys.stderr)
    failures, results = [], compute([file.path for file in todo])
    for file in tqdm(todo, unit="file", disable=True if has_seconds_bar(files) else None):
        try:
            write(file, next(results))
        except FOREIGN_ERRORS as error:
            if isinstance(error, (OutputError, UsageError)) or getattr(error, "errno", None) in END_OF_OUTPUT:
                raise
            message = first_line(error)
            failures.append(message if str(file.path) in message else f"{file.path}: {message}")
    if failures:
        print(*failures, f"{len(failures)} of {len(todo)} files could not be used.", sep="\n", file=sys.stderr)
        raise SystemExit(1)


def has_seconds_bar(files: list[AudioFile]) -> bool:
    """Returns whether the progress bar counts seconds of a single file; without a terminal there is no bar."""
    return len(files) == 1 and sys.stderr.isatty()


def settings_of(
    command: str, model: "PreTrainedModel", extractor: "BeatsFeatureExtractor", shared: Shared, **others: Any
) -> dict[str, Any]:
    """Returns the settings that results depend on. An output that was begun with others cannot be resumed."""
    from transformers_beats.utils.fingerprint import model_fingerprint

    return {
        "command": command,
        "model": model_fingerprint(model, extractor),
        "dtype": str(model.dtype).removeprefix("torch."),
        "window": shared.window,
        "hop": shared.window if shared.hop is None else shared.hop,
        **others,
    }
