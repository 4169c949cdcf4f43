# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Sources of a conversion, as users name them: released models, files, repositories, addresses; as files here."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from .locations import MAX_BYTES, HubFile, HubRepository, Url, check_size, download, list_files, path_in_cache
from .outputs import find_source, is_output, stem_of
from .released import Entry
from .released import fetch as fetch_released
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
        entry: The entry of a released model that was named.
    """

    path: Path
    name: str
    stem: str
    cfg: list[str | Path] = field(default_factory=list)
    labels: Path | None = None
    notes: list[str] = field(default_factory=list)
    entry: Entry | None = None


def localize(
    source: str, cfg: Sequence[str] = (), labels: str | Path | None = None, max_bytes: float = MAX_BYTES
) -> LocalSource:
    """
    Downloads what a conversion needs: the checkpoint and, from a repository, the files that belong to it.

    Args:
        source (`str`):
            Name of a released model, path of a file or of a directory with the files of a repository, or location
            ([`parse_location`]).
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
    architecture = [find_settings(name, max_bytes) for name in cfg]
    labels = None if labels is None else Path(labels)
    location = _find_file(source, max_bytes)
    if isinstance(location, LocalSource):
        location.cfg, location.labels = architecture, labels
        return location
    place, sizes, fetch = _list(location, max_bytes)
    if isinstance(location, HubFile):
        files = describe_checkpoint(place, location.path, sizes, fetch, has_base=bool(cfg))
    else:
        files = choose_files(place, sizes, fetch, has_base=bool(cfg))
    # The small files come first, and with them all questions.
    if files.base is not None:
        architecture.append(find_settings(files.base, max_bytes))
    architecture += map(fetch, files.settings)
    if labels is None and files.labels is not None:
        labels = fetch(files.labels)
    path = fetch(files.checkpoint)
    name = path.name
    if isinstance(location, HubRepository):
        name = str(HubFile(location.repo_id, commit_of(path), location.repo_type, files.checkpoint))
    return LocalSource(path, name, stem_of(location), architecture, labels, files.notes)


def find_settings(name: str, max_bytes: float = MAX_BYTES) -> str | Path:
    """
    Returns the file that states the architecture of a model, after its download; `"released"` as it is.

    The arguments are those of [`localize`], and so are the errors.
    """
    if name == "released":
        return name
    location = _find_file(name, max_bytes)
    if isinstance(location, LocalSource):
        return location.path
    if isinstance(location, HubFile):
        return download(location, max_bytes)
    place, sizes, fetch = _list(location, max_bytes)
    return fetch(choose_settings(place, sizes, fetch))


def commit_of(path: Path) -> str | None:
    """
    Returns the commit of a file in the cache of the Hub's client, `models--owner--name/snapshots/commit/path`; None
    for any other file.
    """
    inside = path_in_cache(path)
    return None if inside is None else inside.parts[2]


def _find_file(name: str, max_bytes: float) -> LocalSource | Path | HubRepository:
    """Returns the file of a model that is a single one, after its download; otherwise where the files are."""
    found = find_source(name)
    if isinstance(found, Entry):
        check_size(found.name, found.bytes, max_bytes)
        return LocalSource(fetch_released(found), found.file, stem_of(found), entry=found)
    if isinstance(found, Url):
        return LocalSource(download(found, max_bytes), str(found), stem_of(found))
    if isinstance(found, Path) and not found.is_dir():
        return LocalSource(found, found.name, stem_of(found))
    return found


def _list(location: Path | HubRepository, max_bytes: float) -> tuple[str, dict[str, int], Fetch]:
    """Returns a repository on the Hub or in a directory: its name, the sizes of its files, and how to get one."""
    if isinstance(location, Path):
        # Models that were converted to a folder in it are no sources.
        found = (path for path in location.rglob("*") if path.is_file())
        paths = [path for path in found if path.parent == location or not is_output(path)]
        sizes = {path.relative_to(location).as_posix(): path.stat().st_size for path in paths}
        return str(location), sizes, location.joinpath
    repository = HubRepository(location.repo_id, location.revision, location.repo_type)
    return str(repository), list_files(repository), lambda path: download(repository.file(path), max_bytes)
