# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""
Released checkpoints by name: `get("beats-iter3")` returns a directory for `from_pretrained`, after download, check of
the hash and conversion.

The manifest `official_checkpoints.yaml` lists them. The environment variable `TRANSFORMERS_BEATS_MANIFEST` names
another one, such as a lab's list of its own models and mirrors.
"""

import errno
import hashlib
import json
import os
import re
import shutil
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from huggingface_hub import constants, is_offline_mode
from huggingface_hub.dataclasses import strict
from huggingface_hub.errors import StrictDataclassError
from huggingface_hub.utils import logging
from safetensors import SafetensorError, safe_open

from transformers_beats.utils.errors import BeatsError, UsageError, did_you_mean, one_line
from transformers_beats.utils.files import check_file, read_yaml, replace_directory, sha256, work_directory
from transformers_beats.utils.hub import OFFLINE

from .locations import HubFile, Location, Url, download, find_in_cache, hash_on_hub, parse_file, parse_location
from .model_card import CardDetails
from .names import ARCHITECTURE, QUANTIZER, REGULARIZATION, Kind


if TYPE_CHECKING:
    from .checkpoint import BeatsCheckpoint


logger = logging.get_logger(__name__)

MANIFEST = Path(__file__).with_name("official_checkpoints.yaml")
MANIFEST_VARIABLE = "TRANSFORMERS_BEATS_MANIFEST"
# Files of a converted directory beside its weights.
CONFIGURATIONS = ("config.json", "preprocessor_config.json")
WEIGHTS = "model.safetensors"


@strict
@dataclass(kw_only=True)
class Entry(CardDetails):
    """
    Entry of a manifest, with the text of its card; `official_checkpoints.yaml` explains the keys.

    Figures of a paper belong to certain weights: an entry that has some must state the hash.
    """

    file: str
    name: str
    kind: Kind
    bytes: int | None = None
    sha256: str | None = None
    cfg: dict[str, Any] = field(default_factory=dict)
    num_parameters: int | None = None
    mirrors: list[str] = field(default_factory=list)
    vouched_by: str | None = None
    publisher: str = "the publisher"
    page: str | None = None

    def validate_paper(self) -> None:
        """Checks the names of tasks, and that figures of a paper have a hash beside them; called by `strict`."""
        CardDetails.validate_paper(self)
        if self.paper and self.sha256 is None:
            raise ValueError("`paper` needs `sha256`: figures belong to certain weights.")

    def validate_sizes(self) -> None:
        """Checks that sizes are positive; called by `strict`."""
        for key in ("bytes", "num_parameters"):
            if (value := getattr(self, key)) is not None and value < 1:
                raise ValueError(f"`{key}`: {value} is no size.")

    def validate_names(self) -> None:
        """Checks what becomes part of a path: a name, the name of a file, a hash; called by `strict`."""
        # The name is also that of a repository; the file may have one that browsers make.
        for key, pattern in {"file": r"\w[^/\\:\x00-\x1f]{,200}", "name": r"\w[\w.-]{,95}"}.items():
            if not re.fullmatch(pattern, getattr(self, key)):
                raise ValueError(f"`{key}`: {getattr(self, key)[:100]!r} is no name of a file.")
        if self.sha256 is not None and not re.fullmatch("[0-9a-f]{64}", self.sha256):
            raise ValueError(f"`sha256`: {self.sha256} must have 64 digits, 0 to 9 and a to f.")

    def validate_mirrors(self) -> None:
        """Checks that each mirror is a file; called by `strict`."""
        for mirror in self.mirrors:
            parse_file(mirror)

    def check_file(self, path: Path) -> None:
        """
        Checks size and hash of a file, before anything of it is read.

        Raises:
            [`CheckpointError`]: if the manifest states others.
        """
        from .reading import CheckpointError

        if self.bytes is not None and path.stat().st_size != self.bytes:
            raise CheckpointError(f"has {path.stat().st_size} bytes, {self.file} has {self.bytes}.")
        if self.sha256 is not None and (found := sha256(path)) != self.sha256:
            raise CheckpointError(f"has SHA-256 {found}, {self.file} has {self.sha256}.")

    def check_checkpoint(self, checkpoint: "BeatsCheckpoint") -> None:
        """
        Checks kind, settings and number of parameters.

        Raises:
            [`CheckpointError`]: if the manifest states others.
        """
        from .reading import CheckpointError

        names = {**ARCHITECTURE, **QUANTIZER, **REGULARIZATION}
        facts: dict[str, tuple[Any, Any]] = {
            key: (getattr(checkpoint.config, names[key], None), value)
            for key, value in self.cfg.items()
            if key in names
        }
        facts["kind"] = (checkpoint.kind, self.kind)
        if self.num_parameters is not None:
            facts["number of parameters"] = (checkpoint.build_model().num_parameters(), self.num_parameters)
        for what, (found, expected) in facts.items():
            if found != expected:
                raise CheckpointError(f"its {what} is {found}, that of {self.file} is {expected}.")


def read_manifest(path: str | Path | None = None) -> dict[str, Entry]:
    """
    Reads and checks a manifest, by default the one in use. Returns its entries by name.

    Raises:
        [`BeatsError`]: naming the entry and the key that is missing, unknown or wrong.
    """
    path = Path(path or os.environ.get(MANIFEST_VARIABLE) or MANIFEST)
    contents = read_yaml(path)
    defaults, checkpoints = contents.get("defaults") or {}, contents.get("checkpoints")
    if not isinstance(checkpoints, list):
        raise UsageError(f"{path}: must have a list `checkpoints`.")
    entries: dict[str, Entry] = {}
    for number, values in enumerate(checkpoints, start=1):
        try:
            if not isinstance(values, Mapping) or not isinstance(defaults, Mapping):
                raise TypeError("a checkpoint, and `defaults`, must have keys and values.")
            entry = Entry(**{**defaults, **values})
        except (TypeError, StrictDataclassError) as error:
            raise UsageError(f"{path}, checkpoint {number}: {one_line(error)}") from error
        if entry.name in entries:
            raise UsageError(f"{path}: several checkpoints of the name {entry.name}.")
        entries[entry.name] = entry
    return entries


def find(name: str) -> Entry:
    """Returns the entry of a name; raises a [`UsageError`] for an unknown one."""
    entries = read_manifest()
    if name not in entries:
        raise UsageError(f"{name}: no released model has this name{hint_of(name, entries)}")
    return entries[name]


def hint_of(name: str, entries: dict[str, Entry]) -> str:
    """Returns the end of a message about an unknown name: names like it, or where all of them are."""
    return did_you_mean(name, entries) or "; `transformers-beats models` lists those that there are."


def find_by_hash(digest: str) -> Entry | None:
    """Returns the entry of the file with this SHA-256, None if no released file has it."""
    return next((entry for entry in read_manifest().values() if entry.sha256 == digest), None)


def cache_directory(entry: Entry, cache_dir: str | Path | None = None) -> Path:
    """Returns the directory of a converted model: in `cache_dir`, by default `HF_HOME/transformers-beats`."""
    root = Path(cache_dir or Path(constants.HF_HOME) / "transformers-beats")
    # The hash tells apart the models of one name in several manifests; without one, where its file is from.
    version = (entry.sha256 or "")[:12]
    if not version:
        source = json.dumps([entry.file, entry.bytes, entry.mirrors, entry.cfg], sort_keys=True, default=str)
        version = f"unverified-{hashlib.blake2b(source.encode(), digest_size=6).hexdigest()}"
    return root.expanduser().absolute() / entry.name / version


def is_complete(directory: Path) -> bool:
    """Returns whether a directory of the cache holds a converted model, of which no file was cut off."""
    try:
        for name in CONFIGURATIONS:
            json.loads((directory / name).read_text(encoding="utf-8"))
        # Compares the size of the file with its header.
        with safe_open(directory / WEIGHTS, "np"):
            return True
    except (OSError, ValueError, SafetensorError):
        return False


def _files_of(directory: Path) -> list[Path]:
    return [directory, *(directory / name for name in (*CONFIGURATIONS, WEIGHTS))]


def _is_readable(path: Path) -> bool:
    """Returns whether a file or directory may be read, if there is one."""
    return not path.exists() or os.access(path, os.R_OK)


def get(name: str, cache_dir: str | Path | None = None, offline: bool | None = None) -> Path:
    """
    Returns the directory of a released model, for `from_pretrained`: the one in the cache, or a new one.

    A new one takes a file that was downloaded before, or the first mirror that has the right file. Its hash is
    checked before it is read; the directory appears at the end, complete. Only one process at a time converts a model.

    Args:
        name (`str`):
            Name in the manifest, such as `"beats-iter3"`.
        cache_dir (`str` or `Path`, *optional*):
            Directory of converted models. Defaults to `HF_HOME/transformers-beats`. Downloads are kept in the cache of
            the Hub's client.
        offline (`bool`, *optional*):
            Whether to ask no network. Defaults to `HF_HUB_OFFLINE`.

    Raises:
        [`UsageError`]: for an unknown name.
        [`BeatsError`]: if no mirror has the right file, with the reason of each, or the cache cannot be written.
    """
    from huggingface_hub.utils import WeakFileLock

    from .convert import convert

    entry = find(name)
    directory = cache_directory(entry, cache_dir)
    with _errors_of_cache(directory):
        if unreadable := next((path for path in _files_of(directory) if not _is_readable(path)), None):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(unreadable))
        if is_complete(directory):
            return directory
        directory.parent.mkdir(parents=True, exist_ok=True)
        with WeakFileLock(directory.parent / ".lock"), work_directory(directory.parent, ".converting-") as work:
            # Of runs that were killed: no other process writes here now.
            for left in (*directory.parent.glob(".converting-*"), *directory.parent.glob(".old-*")):
                if left != work:
                    shutil.rmtree(left, ignore_errors=True)
            # Another process may have been faster.
            if not is_complete(directory):
                convert(fetch(entry, offline), work / "model", details=entry)
                replace_directory(work / "model", directory)
    return directory


@contextmanager
def _errors_of_cache(directory: Path) -> Generator[None, None, None]:
    try:
        yield
    except BeatsError:
        raise
    except OSError as error:
        raise BeatsError(
            f"{error.filename or directory}: cannot be used: {error.strerror or error}; name another cache with "
            "HF_HOME."
        ) from error


def fetch(entry: Entry, offline: bool | None = None, advice: str | None = None) -> Path:
    """
    Returns the path of a file of the manifest, with the right hash: from the cache of the Hub's client or our
    downloads from other addresses, or from the first mirror that has it. A file whose hash the manifest does not state
    is taken with a warning. `offline` is that of [`get`].

    Raises:
        [`BeatsError`]: if there is none. The message has the reason of each mirror, and `advice` on how to use a file
            of one's own, by default the command that converts it.
    """
    offline = is_offline_mode() if offline is None else offline
    locations = [parse_file(mirror) for mirror in entry.mirrors]
    # Files in the cache that are not the right one, with what they are, and are to be replaced.
    wrong: dict[Location, str] = {}
    for location in locations:
        # Without a hash, only the server of an address knows whether it has another file now.
        if isinstance(location, Url) and entry.sha256 is None and not offline:
            continue
        if cached := find_in_cache(location, entry.bytes):
            try:
                entry.check_file(cached)
            except BeatsError as error:
                wrong[location] = f"{cached}: {error}"
                continue
            if entry.sha256 is None:
                _warn(entry, f"that of {location} in the cache is taken as it is.")
            return cached
    reasons = []
    for location in [] if offline else locations:
        try:
            if entry.sha256 is None:
                _warn(entry, _vouch(entry, location))
            path = download(location, size=entry.bytes, sha256=entry.sha256, force=location in wrong)
            try:
                entry.check_file(path)
            except BeatsError:
                if isinstance(location, Url):
                    # What is kept would be taken for an unchanged file.
                    path.unlink()
                raise
            return path
        except BeatsError as error:
            message = str(error)
            reasons.append(message if message.startswith(str(location)) else f"{location}: {message}")
    if offline and wrong:
        found = f"the right file {OFFLINE}: {' | '.join(reason.rstrip('.') for reason in wrong.values())}"
    elif offline:
        found = OFFLINE
    elif reasons:
        found = f"no mirror has it: {' | '.join(reason.rstrip('.') for reason in reasons)}"
    else:
        found = "no public mirror is known"
    advice = advice or f"A file of one's own is converted by: transformers-beats convert {entry.file} {entry.name}"
    links = f" ({entry.page} has {entry.publisher}'s links)" if entry.page else ""
    raise BeatsError(f"{entry.name}: {found}. {advice}{links}.")


def _warn(entry: Entry, decision: str) -> None:
    logger.warning(f"{entry.name}: the manifest states no hash of {entry.file}; {decision}")


def _vouch(entry: Entry, location: HubFile | Url) -> str:
    """Returns a clause about the uploader of a file without a known hash: whether the file beside it is genuine."""
    beside = next(
        (known for known in read_manifest().values() if known.file == entry.vouched_by and known.sha256), None
    )
    if beside is None or isinstance(location, Url):
        return f"{location} is taken as it is."
    try:
        found = hash_on_hub(location.file(str(PurePosixPath(location.path).with_name(beside.file))))
    except BeatsError:
        return f"{location} is taken as it is, and no {beside.file} beside it tells what it is worth."
    if found == beside.sha256:
        return f"{location} is taken because the {beside.file} beside it is {beside.publisher}'s."
    raise BeatsError(f"{location}: is not taken, because the {beside.file} beside it is not {beside.publisher}'s.")


def is_released(name: str) -> bool:
    """Returns whether a name is that of a released model, and not a path."""
    return "/" not in name and not Path(name).exists() and name in read_manifest()


def find_source(text: str) -> Entry | Path | Location:
    """
    Returns what a text names: a released model, a file, a directory or a location ([`parse_location`]). Raises a
    [`UsageError`] for a path where nothing is.
    """
    if is_released(text):
        return find(text)
    location = parse_location(text)
    if isinstance(location, Path) and not location.exists():
        raise UsageError(f"{text}: no such file{did_you_mean(text, read_manifest()) or '.'}")
    if isinstance(location, Path) and not location.is_dir():
        check_file(location)
    return location


def resolve(name: str | Path) -> str:
    """Returns the directory of a released model for its name; a directory and any other name as they are."""
    return str(get(str(name)) if is_released(str(name)) else name)
