# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Sources of a conversion, as users name them: released models, files, repositories, addresses; as files here."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from . import released
from .locations import MAX_BYTES, HubFile, HubRepository, Url, download, list_files, parse_location
from .repositories import Fetch, choose_files, choose_settings, describe_checkpoint


@dataclass
class LocalSource:
    """
    Source of a conversion on this machine: arguments of [`convert`].

    Attributes:
        path: The checkpoint.
        name: Location that it comes from, for the card; the name of a file of one's own.
        stem: Name for the converted directory.
        cfg: Files that state the architecture, or `"released"`.
        labels: Names of the classes, as avex's `label_map.json` has them.
        notes: How the architecture was found, in sentences.
    """

    path: Path
    name: str
    stem: str
    cfg: list[str | Path] = field(default_factory=list)
    labels: Path | None = None
    notes: list[str] = field(default_factory=list)


def localize(
    source: str,
    directory: Path,
    cfg: Sequence[str] = (),
    labels: str | Path | None = None,
    max_bytes: int = MAX_BYTES,
) -> LocalSource:
    """
    Downloads what a conversion needs: the checkpoint and, from a repository, the files that belong to it.

    Args:
        source (`str`):
            Name of a released model, path of a file or of a directory with the files of a repository, or location
            ([`parse_location`]).
        directory (`Path`):
            Directory for downloads that no cache keeps.
        cfg (`Sequence[str]`, *optional*):
            Models whose architecture the checkpoint has, each named like a source, or `"released"`.
        labels (`str` or `Path`, *optional*):
            Names of the classes. A repository may have them.
        max_bytes (`int`, defaults to 8 GB):
            A larger file is refused before its download.

    Raises:
        [`UsageError`]: if there is no such file, if it is too large, if a repository has no checkpoint or several, or
            if nothing tells its architecture.
        [`BeatsError`]: if something cannot be downloaded.
    """
    architecture = [find_settings(name, directory, max_bytes) for name in cfg]
    labels = None if labels is None else Path(labels)
    if released.is_released(source):
        entry = released.find(source)
        return LocalSource(released.fetch(entry, directory), entry.file, entry.name, architecture, labels)
    location = parse_location(source)
    if isinstance(location, Url):
        path = download(location, directory, max_bytes)
        return LocalSource(path, str(location), path.stem, architecture, labels)
    if isinstance(location, Path) and not location.is_dir():
        return LocalSource(location, location.name, location.stem, architecture, labels)
    place, sizes, fetch = _list(location, directory, max_bytes)
    if isinstance(location, HubFile):
        files = describe_checkpoint(place, location.path, sizes, fetch, has_base=bool(cfg))
    else:
        files = choose_files(place, sizes, fetch, has_base=bool(cfg))
    # The small files come first, and with them all questions.
    if files.base is not None:
        architecture.append(find_settings(files.base, directory, max_bytes))
    architecture += map(fetch, files.settings)
    if labels is None and files.labels is not None:
        labels = fetch(files.labels)
    path = fetch(files.checkpoint)
    name, stem = path.name, location.name if isinstance(location, Path) else location.repo_id.partition("/")[2]
    if isinstance(location, HubRepository):
        name = str(HubFile(location.repo_id, commit_of(path), location.repo_type, files.checkpoint))
        stem = path.stem if isinstance(location, HubFile) else stem
    return LocalSource(path, name, stem, architecture, labels, files.notes)


def find_settings(name: str, directory: Path, max_bytes: int = MAX_BYTES) -> str | Path:
    """
    Returns the file that states the architecture of a model, after its download; `"released"` as it is.

    The arguments are those of [`localize`], and so are the errors.
    """
    if name == "released":
        return name
    if released.is_released(name):
        return released.fetch(released.find(name), directory)
    location = parse_location(name)
    if isinstance(location, Path) and not location.is_dir():
        return location
    if isinstance(location, HubFile | Url):
        return download(location, directory, max_bytes)
    place, sizes, fetch = _list(location, directory, max_bytes)
    return fetch(choose_settings(place, sizes, fetch))


def commit_of(path: Path) -> str | None:
    """Returns the commit of a file in the cache of the Hub's client: `.../snapshots/commit/path`."""
    return path.parts[path.parts.index("snapshots") + 1] if "snapshots" in path.parts else None


def _list(location: Path | HubRepository, directory: Path, max_bytes: int) -> tuple[str, dict[str, int], Fetch]:
    """Returns a repository on the Hub or in a directory: its name, the sizes of its files, and how to get one."""
    if isinstance(location, Path):
        paths = [path for path in location.rglob("*") if path.is_file()]
        sizes = {path.relative_to(location).as_posix(): path.stat().st_size for path in paths}
        return str(location), sizes, location.joinpath
    repository = HubRepository(location.repo_id, location.revision, location.repo_type)
    return str(repository), list_files(repository), lambda path: download(repository.file(path), directory, max_bytes)
