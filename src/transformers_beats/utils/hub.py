# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Errors of the Hub's client, in one line."""

import re
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, try_to_load_from_cache
from huggingface_hub.constants import HF_HUB_ETAG_TIMEOUT
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    HTTPError,  # of the HTTP library that this version of huggingface_hub uses
    LocalEntryNotFoundError,
    LocalTokenNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import validate_repo_id

from .errors import BeatsError, UsageError, one_line


OFFLINE = "is not in the cache, and the network is switched off (HF_HUB_OFFLINE, TRANSFORMERS_OFFLINE or --offline)"
# The first class that an error belongs to decides.
REASONS: list[tuple[type[Exception], str]] = [
    (LocalTokenNotFoundError, "no token: run `hf auth login`, or set HF_TOKEN."),
    (OfflineModeIsEnabled, f"{OFFLINE}."),
    (GatedRepoError, "its owner must give you access: ask on its page on the Hub, and run `hf auth login`."),
    (RepositoryNotFoundError, "no such repository, or a private one: check the name, or run `hf auth login`."),
    (RevisionNotFoundError, "the repository has no such revision."),
    (LocalEntryNotFoundError, f"{OFFLINE}."),
    (EntryNotFoundError, "the repository has no such file."),
]


@contextmanager
def hub_errors(place: str = "") -> Generator[None, None, None]:
    """
    Turns errors of the Hub's client into a [`BeatsError`] that begins with `place`, a file or a repository. Errors of
    this machine's files stay as they are: no other place on the Hub would mend them.
    """
    try:
        yield
    except BeatsError:
        raise
    except (HTTPError, OSError, ValueError, RuntimeError) as error:
        if is_of_disk(error):
            raise
        raise BeatsError(f"{place}: {describe(error)}" if place else describe(error)) from error


def is_of_disk(error: BaseException) -> bool:
    """Returns whether the operating system has refused something else than a connection."""
    return isinstance(error, OSError) and error.errno is not None and not isinstance(error, ConnectionError)


def check_model_repository(name: str, file: str, options: Mapping[str, Any]) -> None:
    """
    Calls [`check_repository`] for a model whose `file` is not in the cache; `options` are those of `from_pretrained`.
    """
    place = {key: options[key] for key in ("cache_dir", "revision") if options.get(key) is not None}
    check_id(name)
    if not options.get("local_files_only") and not isinstance(try_to_load_from_cache(name, file, **place), str):
        check_repository(name, "model", options.get("revision"), options.get("token"))


def is_id(name: str) -> bool:
    """Returns whether a name is an id of the Hub, an account and a name, and no path."""
    return (
        name.count("/") == 1 and not name.startswith((".", "/", "~")) and name[-1] != "/" and not Path(name).exists()
    )


def check_id(name: str) -> None:
    """Raises a [`UsageError`] for what is no id of a repository on the Hub."""
    try:
        validate_repo_id(name)
    except HFValidationError as error:
        raise UsageError(f"{name}: no such directory, and no id of the Hub: {one_line(error)}") from error


def check_repository(name: str, repo_type: str, revision: str | None = None, token: Any = None) -> None:
    """
    Asks the Hub once whether it has a repository, before others ask for its files, again and again for as long as the
    Hub does not answer. Other answers than that there is none are left to them.

    Raises:
        [`UsageError`]: for what is no id.
        [`BeatsError`]: if there is no such repository or revision, or the Hub was not reached.
    """
    check_id(name)
    try:
        HfApi(token=token).repo_info(name, repo_type=repo_type, revision=revision, timeout=HF_HUB_ETAG_TIMEOUT)
    except (GatedRepoError, OfflineModeIsEnabled):
        return
    except (RepositoryNotFoundError, RevisionNotFoundError) as error:
        raise BeatsError(f"{name}: no such directory, and on the Hub {describe(error)}") from error
    except HfHubHTTPError:
        return
    except (HTTPError, OSError) as error:
        raise BeatsError(f"{name}: no such directory, and the Hub was not reached: {describe(error)}") from error


def describe(error: BaseException) -> str:
    """Returns the reason of an error of the Hub's client, and what to do about it."""
    # The client wraps what stopped it: an upload into a RuntimeError that names the file only, a failed request into
    # the statement that the cache has no such file.
    cause = error.__cause__
    if isinstance(error, LocalEntryNotFoundError) and cause is not None:
        return describe(cause)
    if reason := next((reason for kind, reason in REASONS if isinstance(error, kind)), None):
        return reason
    if isinstance(error, HfHubHTTPError) and (status := getattr(error.response, "status_code", None)):
        # The whole message would have links to explanations of the status, and signed addresses.
        reason = one_line(error.server_message or error.response.reason_phrase).rstrip(".")
        if status in (401, 403):
            return f"the Hub answers {status}: {reason}. Run `hf auth login` with an account that may do this."
        return f"the Hub answers {status}: {reason}."
    # Classes of the HTTP library, which is not the same one in all versions of huggingface_hub.
    if type(error).__name__ == "ProxyError":
        return f"the proxy refuses: {one_line(error)}; check HTTP_PROXY, HTTPS_PROXY and NO_PROXY."
    if type(error).__name__ == "ConnectError":
        return (
            f"cannot be reached: {one_line(error)}; check the network, and HTTP_PROXY and HTTPS_PROXY if you use them."
        )
    if "Timeout" in type(error).__name__:
        return "no answer in time; try again, or set HF_HUB_ETAG_TIMEOUT and HF_HUB_DOWNLOAD_TIMEOUT to more seconds."
    if sizes := re.match(r"Consistency check failed: file should be of size (\d+) but has size (\d+)", str(error)):
        return f"{sizes[2]} of {sizes[1]} bytes arrived; try again."
    reasons = [error, cause] if isinstance(error, RuntimeError) and cause else [error]
    return one_line(" ".join(str(reason) or type(reason).__name__ for reason in reasons))
