# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Locations of checkpoints, on this machine, on the Hub or at a URL, and their download."""

import hashlib
import re
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlsplit

from huggingface_hub.errors import HfHubHTTPError, HTTPError  # of the HTTP library that its version uses
from huggingface_hub.utils import logging

from transformers_beats.utils.errors import BeatsError, UsageError
from transformers_beats.utils.hub import describe, hub_errors


logger = logging.get_logger(__name__)

# Larger than any BEATs checkpoint that a project has published: 1.25 GB, with an optimizer's state 5 GB.
MAX_BYTES = 8 * 10**9
# Begins as names on the Hub do: `../file` is a path.
NAME = r"\w[\w.-]*"
# Revisions whose slash `REPOSITORY` tells from that of a path.
REFERENCE = re.compile(rf"refs/(pr|convert)/{NAME}")
REPOSITORY = re.compile(
    rf"hf://(?!spaces/|buckets/)(?P<type>datasets/|models/)?(?P<id>{NAME}/{NAME})(@(?P<revision>{REFERENCE.pattern}|[^/@]+))?"
    r"(/(?P<path>.+))?"
)
# Addresses of pages and files that people copy from a browser.
PAGE = re.compile(
    rf"https://(huggingface\.co|hf\.co)/(?P<type>datasets/|models/)?(?P<id>{NAME}/{NAME})"
    r"(/(tree|blob|resolve|raw)/(?P<revision>[^/?]+)(/(?P<path>[^?]+))?)?/?(\?.*)?"
)
# Beside a download, with its size: written after the last byte.
COMPLETE = ".complete"
LOOPBACK = ("localhost", "127.0.0.1", "::1")


def quote_characters(text: str, further: str = "") -> str:
    """
    Returns a part of a location with `%xx` for characters that [`parse_location`], or a reader, would take for
    something else: `%`, white space and control characters, and `further` ones. Letters of all languages stay.
    """
    return re.sub(rf"[%\s\x00-\x1f\x7f{further}]", lambda match: quote(match[0], safe=""), text)


@dataclass(frozen=True)
class HubRepository:
    """
    Repository on the Hub; `revision` is a branch, tag or commit, `main` by default. What `str` makes of it,
    [`parse_location`] understands.
    """

    repo_id: str
    revision: str | None = None
    repo_type: str = "model"

    def __str__(self) -> str:
        prefix = "" if self.repo_type == "model" else f"{self.repo_type}s/"
        revision = self.revision or ""
        if not REFERENCE.fullmatch(revision):
            revision = quote_characters(revision, "/@")
        return f"hf://{prefix}{self.repo_id}{f'@{revision}' if revision else ''}"

    def file(self, path: str) -> "HubFile":
        """Returns the location of a file in the repository."""
        return HubFile(self.repo_id, self.revision, self.repo_type, path)


@dataclass(frozen=True)
class HubFile(HubRepository):
    """File in a repository on the Hub."""

    path: str = ""

    def __str__(self) -> str:
        return f"{super().__str__()}/{quote_characters(self.path)}"


@dataclass(frozen=True)
class Url:
    """Address of a file: `https`, or `http` on this machine."""

    address: str

    def __str__(self) -> str:
        """Address without what may be secret, as it is written into cards: user, password and query."""
        parts = urlsplit(self.address)
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"

    @property
    def name(self) -> str:
        """Name of the file."""
        return Path(unquote(urlsplit(self.address).path)).name


Location = HubFile | HubRepository | Url


def parse_location(text: str) -> Path | Location:
    """
    Returns the location that a text names: `hf://[datasets/]owner/repo[@revision][/path]`, the address of a page or
    file of the Hub, another `https` address, `owner/repo` where there is no such path, and else a path.

    Raises:
        [`UsageError`]: for an address that is none of these.
    """
    if (match := REPOSITORY.fullmatch(text)) or (match := PAGE.fullmatch(text)):
        repo_type = "dataset" if match["type"] == "datasets/" else "model"
        revision = unquote(match["revision"]) if match["revision"] else None
        repository, path = HubRepository(match["id"], revision, repo_type), unquote(match["path"] or "")
        if path and {"", ".", ".."} & {*path.split("/")}:
            raise UsageError(f"{text}: is no file on the Hub; its path goes from folder to folder, down only.")
        return repository.file(path) if path else repository
    if text.startswith("hf://"):
        raise UsageError(f"{text}: is no location on the Hub; write hf://[datasets/]owner/repo[@revision][/path].")
    if re.match(r"\w+://", text):
        try:
            parts = urlsplit(text)
        except ValueError as error:
            raise UsageError(f"{text}: is no address: {error}.") from None
        if parts.scheme != "https" and not (parts.scheme == "http" and parts.hostname in LOOPBACK):
            raise UsageError(f"{text}: is not fetched; an address must begin with https:// or hf://.")
        # Names that begin with a dot are of the cache.
        if not (url := Url(text)).name or url.name.startswith("."):
            raise UsageError(f"{text}: names no file.")
        return url
    if not Path(text).exists() and re.fullmatch(f"{NAME}/{NAME}", text) and Path(text).suffix not in (".pt", ".pth"):
        return HubRepository(text)
    return Path(text)


def parse_file(text: str) -> HubFile | Url:
    """Returns the location of a file on the Hub or at an address; raises a [`UsageError`] for anything else."""
    location = parse_location(text)
    if not isinstance(location, HubFile | Url):
        raise UsageError(f"{text}: is no file on the Hub or at an address.")
    return location


def check_size(place: str, size: int | None, max_bytes: float, expected: int | None = None) -> None:
    """
    Raises a [`BeatsError`] for a file of another size than the expected one, and a [`UsageError`] for one that is
    larger than a checkpoint is.
    """
    if None not in (size, expected) and size != expected:
        raise BeatsError(f"{place}: is another file: {size} bytes, expected {expected}.")
    if size is not None and size > max_bytes:
        raise UsageError(
            f"{place}: has {size / 1e9:.3g} GB, more than the limit of {max_bytes / 1e9:.3g} GB for a checkpoint; "
            "--max-size raises it."
        )


def list_files(repository: HubRepository) -> dict[str, int]:
    """
    Returns the files of a repository on the Hub, and their sizes in bytes; without a network those in the cache of its
    client, with a warning that there may be others.

    Raises:
        [`BeatsError`]: if the Hub cannot be reached and there are none, or it has no such repository.
    """
    from huggingface_hub import HfApi, is_offline_mode, snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError
    from huggingface_hub.hf_api import RepoFile

    where: Any = {"revision": repository.revision, "repo_type": repository.repo_type}
    with hub_errors(str(repository)):
        failure = None
        if not is_offline_mode():
            try:
                entries = HfApi().list_repo_tree(repository.repo_id, recursive=True, **where)
                return {entry.path: entry.size for entry in entries if isinstance(entry, RepoFile)}
            except HTTPError as error:
                if not _is_of_connection(error):
                    raise
                failure = error
        try:
            snapshot = Path(snapshot_download(repository.repo_id, local_files_only=True, **where))
        except LocalEntryNotFoundError as error:
            raise failure or error from None
        reason = "the network is switched off." if failure is None else describe(failure)
        logger.warning(f"{repository}: only those files count that are in the cache: {reason}")
        files = (path for path in snapshot.rglob("*") if path.is_file())
        return {path.relative_to(snapshot).as_posix(): path.stat().st_size for path in files}


def _is_of_connection(error: HTTPError) -> bool:
    """Returns whether the Hub was not reached, or is out of order, and has not answered what was asked."""
    return not isinstance(error, HfHubHTTPError) or error.response.status_code >= 500


def find_in_cache(location: HubFile | Url, size: int | None = None) -> Path | None:
    """
    Returns the path of a file of the Hub in its client's cache, or of the complete file of another address among our
    downloads; None if it is not there. `size` tells whether a download of an older version is complete.
    """
    from huggingface_hub import try_to_load_from_cache

    if isinstance(location, Url):
        download = _downloads_of(location) / location.name
        if not download.is_file():
            return None
        marker = download.with_name(COMPLETE)
        expected = marker.read_text(encoding="utf-8") if marker.is_file() else str(size)
        return download if expected == str(download.stat().st_size) else None
    where = {"revision": location.revision, "repo_type": location.repo_type}
    path = try_to_load_from_cache(location.repo_id, location.path, **where)
    return Path(path) if isinstance(path, str) else None


def _downloads_of(url: Url) -> Path:
    """Returns the directory of the downloads from an address."""
    from huggingface_hub import constants

    digest = hashlib.blake2b(url.address.encode(), digest_size=8).hexdigest()
    return Path(constants.HF_HOME).expanduser().absolute() / "transformers-beats" / ".downloads" / digest


def path_in_cache(path: Path) -> Path | None:
    """
    Returns the path of a file within the cache of the Hub's client, `models--owner--name/snapshots/commit/...`, None
    for a file elsewhere.
    """
    from huggingface_hub import constants

    # Not resolved: a file of a snapshot is a link.
    cache = Path(constants.HF_HUB_CACHE).expanduser().absolute()
    inside = path.absolute()
    if not inside.is_relative_to(cache):
        return None
    inside = inside.relative_to(cache)
    return inside if len(inside.parts) > 3 and inside.parts[1] == "snapshots" else None


def download(
    location: HubFile | Url,
    max_bytes: float = MAX_BYTES,
    size: int | None = None,
    sha256: str | None = None,
    force: bool = False,
) -> Path:
    """
    Returns the path of a file after its download: a file of the Hub in the cache of its client, and the file of
    another address in `HF_HOME/transformers-beats/.downloads`. Where the connection breaks, or the program was
    interrupted, the download goes on. Without a network, a complete file in either cache is used.

    Args:
        location ([`HubFile`] or [`Url`]):
            Location of the file.
        max_bytes (`int`, defaults to 8 GB):
            Size above which a file is refused before its download.
        size (`int`, *optional*), sha256 (`str`, *optional*):
            What the file must have. A file for which the server states something else is refused before its download;
            the hash of the download itself is the caller's to check.
        force (`bool`, defaults to `False`):
            Whether to replace a file in the cache.

    Raises:
        [`UsageError`]: for a file that is too large.
        [`BeatsError`]: if there is no such file, or it cannot be had. The message names the location and the reason.
        `OSError`: if this machine cannot write it.
    """
    from huggingface_hub import constants, hf_hub_download, is_offline_mode

    cached = find_in_cache(location, size)
    if isinstance(location, Url):
        if cached is not None and force:
            cached.unlink()
        return _download_url(location, max_bytes, size)
    is_final = is_offline_mode() or re.fullmatch("[0-9a-f]{40}", location.revision or "")
    if cached is not None and is_final and not force:
        check_size(str(location), cached.stat().st_size, max_bytes)
        return cached
    with hub_errors(str(location)):
        # Asked first: without the client's retries, which take most of a minute where there is no network.
        try:
            metadata = _metadata(location)
        except HTTPError as error:
            # The client itself would take it, too.
            if cached is None or force or not _is_of_connection(error):
                raise
            return _take_cached(location, cached, error, max_bytes, size)
        check_size(str(location), metadata.size, max_bytes, size)
        if sha256 is not None and (found := _hash(metadata)) not in (None, sha256):
            raise BeatsError(f"{location}: is another file: SHA-256 {found}, expected {sha256}.")
        try:
            return Path(
                hf_hub_download(
                    location.repo_id,
                    location.path,
                    revision=location.revision,
                    repo_type=location.repo_type,
                    force_download=force,
                )
            )
        except OSError as error:
            # That of a full disk does not say which one.
            if error.errno is not None and error.filename is None:
                raise OSError(error.errno, error.strerror, constants.HF_HUB_CACHE) from error
            raise


def _take_cached(location: Location, cached: Path, error: Exception, max_bytes: float, size: int | None) -> Path:
    """Returns the path of a file in the cache, with a warning that its server was not reached."""
    logger.warning(f"{location}: what is in the cache is used: {describe(error)}")
    check_size(str(location), cached.stat().st_size, max_bytes, size)
    return cached


def hash_on_hub(file: HubFile) -> str | None:
    """Returns the SHA-256 that the Hub states of a file, None for a small one."""
    with hub_errors(str(file)):
        return _hash(_metadata(file))


def _metadata(file: HubFile) -> Any:
    from huggingface_hub import constants, get_hf_file_metadata, hf_hub_url

    address = hf_hub_url(file.repo_id, file.path, revision=file.revision, repo_type=file.repo_type)
    metadata = get_hf_file_metadata(address, timeout=constants.HF_HUB_ETAG_TIMEOUT)
    if metadata.commit_hash is None:
        raise BeatsError(
            f"{file}: the answer is not the Hub's: check whether this network has a login page, and HF_ENDPOINT."
        )
    return metadata


def _hash(metadata: Any) -> str | None:
    """Returns the ETag of a large file, its SHA-256; that of a small one is another hash."""
    return metadata.etag if re.fullmatch("[0-9a-f]{64}", metadata.etag or "") else None


def _download_url(url: Url, max_bytes: float, size: int | None) -> Path:
    """
    Downloads to a directory of the address in our cache, where an interrupted download goes on. A complete file there
    is used if its server is not reached.
    """
    from huggingface_hub import is_offline_mode
    from huggingface_hub.utils import WeakFileLock

    if is_offline_mode() and (cached := find_in_cache(url, size)):
        check_size(str(url), cached.stat().st_size, max_bytes, size)
        return cached
    directory = _downloads_of(url)
    with hub_errors(str(url)):
        directory.mkdir(parents=True, exist_ok=True)
        with WeakFileLock(directory / ".lock"):
            try:
                path = _download_parts(url, directory, max_bytes, size)
            except HTTPError as error:
                # Not the one from before: the answer that broke off may have replaced it.
                if not _is_of_connection(error) or (cached := find_in_cache(url, size)) is None:
                    raise
                return _take_cached(url, cached, error, max_bytes, size)
            (directory / COMPLETE).write_text(str(path.stat().st_size), encoding="utf-8")
            return path


def _download_parts(url: Url, directory: Path, max_bytes: float, size: int | None) -> Path:
    """Downloads a file in as many requests as are needed, and returns its path."""
    from tqdm.auto import tqdm

    # The file, or its beginning, and the version of it that the server has named.
    target, tag, can_go_on = directory / url.name, directory / ".etag", True
    with tqdm(unit="B", unit_scale=True, desc=url.name, delay=1) as progress:
        while True:
            start = target.stat().st_size if can_go_on and tag.is_file() and target.is_file() else 0
            etag = tag.read_text(encoding="utf-8") if start else None
            try:
                with _request(url, start, etag) as response:
                    first, total = _content_range(response)
                    if first not in (0, start) or (first and response.headers.get("ETag", etag) != etag):
                        if not start:
                            raise BeatsError(f"{url}: the server sends another part than the beginning.")
                        can_go_on = False
                        continue
                    check_size(str(url), total, max_bytes, size)
                    if first and first == total:
                        return target
                    progress.total = total
                    with target.open("ab" if first else "wb") as file:
                        if not first:
                            # One that begins with W/ may stand for other bytes, too. Without any, no later request
                            # can tell whether the file is still the same.
                            etag = response.headers.get("ETag", "W/")
                            for stale in (tag, directory / COMPLETE):
                                stale.unlink(missing_ok=True)
                            if not etag.startswith("W/"):
                                tag.write_text(etag, encoding="utf-8")
                        for chunk in response.iter_bytes():
                            check_size(str(url), file.tell() + len(chunk), max_bytes)
                            file.write(chunk)
                            progress.update(file.tell() - progress.n)
                arrived = target.stat().st_size
                if total is None or arrived >= total:
                    return target
                # A server may send less than it was asked for.
                if arrived <= start:
                    raise BeatsError(f"{url}: {arrived} of {total} bytes arrived; try again.")
            except HTTPError:
                # Goes on as long as each connection brings something.
                if not (can_go_on and tag.is_file() and target.is_file() and target.stat().st_size > start):
                    raise


@contextmanager
def _request(url: Url, start: int, etag: str | None) -> Generator[Any, None, None]:
    """Yields the response with a file from byte `start` on, or with all of it if its ETag is another now."""
    from huggingface_hub import constants, get_session

    # The size is that of the file, not of its compressed form.
    headers = {"Accept-Encoding": "identity"}
    if start > 0:
        headers |= {"Range": f"bytes={start}-", "If-Range": str(etag)}
    timeout = constants.HF_HUB_DOWNLOAD_TIMEOUT
    stream = get_session().stream("GET", url.address, headers=headers, follow_redirects=True, timeout=timeout)
    with stream as response:
        if response.status_code not in (200, 206, *([416] if start > 0 else [])):
            raise BeatsError(f"{url}: the server answers {response.status_code} {response.reason_phrase}.")
        # Redirects may lead anywhere: the same addresses are refused.
        for hop in (*response.history, response):
            parse_location(str(hop.url))
        if response.status_code != 416 and response.headers.get("Content-Type", "").startswith("text/html"):
            raise BeatsError(f"{url}: is a web page, not a file.")
        yield response


def _content_range(response: Any) -> tuple[int, int | None]:
    """
    Returns the first byte of a file that a response sends, -1 if it does not say so, and the number of bytes of the
    whole file. A response to a request for the bytes after the last one sends none.
    """
    if response.status_code == 200:
        length = response.headers.get("Content-Length")
        return 0, None if length is None else int(length)
    found = re.fullmatch(r"bytes (?:(\d+)-\d+|\*)/(\d+)", response.headers.get("Content-Range", ""))
    if found is None:
        return -1, None
    return int(found[1] or found[2]), int(found[2])
