# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Mirrors that are no repository of the Hub: any address of a file."""

from types import SimpleNamespace

import pytest
from huggingface_hub import constants

from hub.releases import NAME, SECOND, SOURCE, assert_complete, failure
from transformers_beats.conversion import released
from transformers_beats.conversion.locations import download, parse_location
from transformers_beats.utils.errors import BeatsError, UsageError
from transformers_beats.utils.files import sha256


FOREVER = -1


def test_a_mirror_can_be_any_address(release):
    release.write_manifest(release.share())
    assert_complete(released.get(NAME), release)


def test_redirects_are_followed(release):
    release.write_manifest(release.hub.redirect("a", release.hub.redirect("b", release.share())))
    assert_complete(released.get(NAME), release)


def test_the_download_from_an_address_goes_on(release):
    release.write_manifest(release.share())
    release.hub.disconnect("GET", "files/", after=200_000)
    release.hub.silence("GET", "files/", after=100_000)
    assert_complete(released.get(NAME), release)
    assert [request.range for request in release.hub.sent("GET")] == [None, "bytes=200000-", "bytes=300000-"]


def test_a_file_that_changes_during_the_download_is_fetched_from_its_start(release, tmp_path, monkeypatch):
    (tmp_path / "old.pt").write_bytes(b"x" * len(release.content))
    release.write_manifest(release.share())
    versions = iter([tmp_path / "old.pt", SOURCE])
    monkeypatch.setattr(release.hub, "shared", SimpleNamespace(get=lambda path: next(versions)))
    release.hub.disconnect("GET", "files/", after=200_000)
    assert_complete(released.get(NAME), release)
    assert [(request.range, request.status) for request in release.hub.sent("GET")] == [
        (None, None),
        ("bytes=200000-", 200),
    ]


def absent_address(release):
    return f"{release.hub.website}/absent.pt"


def broken_address(release):
    release.hub.fail("GET", "files/", status=500, times=FOREVER)
    return release.share()


def forbidden_address(release):
    release.hub.fail("GET", "files/", status=403, times=FOREVER)
    return release.share()


def silent_address(release):
    release.hub.silence("GET", "files/", times=FOREVER)
    return release.share()


def page_at_address(release):
    release.hub.intercept("GET", "files/", times=FOREVER)
    return release.share()


def half_at_address(release):
    return release.share(release.content[: len(release.content) // 2])


def another_file_at_address(release):
    return release.share(release.content[:-1] + b"x")


def redirects_in_a_circle(release):
    return release.hub.redirect("b", release.hub.redirect("a", f"{release.hub.website}/b"))


def redirect_to_an_insecure_host(release):
    # This machine, too, but not by a name that says so.
    return release.hub.redirect("a.pt", release.share().replace("127.0.0.1", "0.0.0.0"))


ADDRESSES = {
    absent_address: "the server answers 404 Not Found",
    broken_address: "the server answers 500 Internal Server Error",
    forbidden_address: "the server answers 403 Forbidden",
    silent_address: "no answer in time",
    page_at_address: "is a web page, not a file",
    half_at_address: "is another file: 243962 bytes, expected 487925",
    another_file_at_address: "has SHA-256",
    redirects_in_a_circle: "redirect",
    redirect_to_an_insecure_host: "an address must begin with https:// or hf://",
}


@pytest.mark.parametrize(("day", "reason"), ADDRESSES.items(), ids=lambda value: getattr(value, "__name__", ""))
def test_the_reason_of_an_address_is_told(day, reason, release):
    address = day(release)
    release.write_manifest(address)
    message = failure()
    assert f"{address}: " in message
    assert reason in message
    release.write_manifest(address, f"hf://{SECOND}/{SOURCE.name}")
    assert_complete(released.get(NAME), release)


def test_a_file_that_is_much_too_large_is_refused_before_it_is_read(release, tmp_path):
    large = tmp_path / "large.pt"
    with large.open("wb") as file:
        file.truncate(30 * 10**9)
    location = parse_location(release.hub.share("files/large.pt", large))
    with pytest.raises(UsageError, match=r"large.pt: has 30 GB, more than the limit of 8 GB for a checkpoint"):
        download(location)
    release.write_manifest(str(location))
    assert "is another file: 30000000000 bytes, expected 487925" in failure()
    assert not list(release.cache.rglob("*.pt"))


def test_an_interrupted_download_from_an_address_goes_on_in_the_next_run(release):
    release.write_manifest(release.share())
    release.hub.disconnect("GET", "files/", after=200_000)
    release.hub.fail("GET", "files/")
    assert "503" in failure()
    release.hub.requests.clear()
    assert_complete(released.get(NAME), release)
    assert [request.range for request in release.hub.sent("GET")] == ["bytes=200000-"]


def test_a_complete_download_from_an_address_is_not_repeated(release):
    location = parse_location(release.share())
    path = download(location)
    assert download(location) == path
    assert path.read_bytes() == release.content
    assert [request.status for request in release.hub.sent("GET")] == [200, 416]
    release.share(b"another")
    assert download(location).read_bytes() == b"another"


@pytest.fixture
def switched_off(release, monkeypatch):
    """Switches the network off, and checks afterwards that nobody was asked."""

    def switch_off():
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
        release.hub.requests.clear()

    yield switch_off
    assert not release.hub.requests


@pytest.mark.parametrize("values", [{}, {"sha256": None}, {"sha256": None, "bytes": None}])
def test_a_complete_download_from_an_address_is_used_without_a_network(values, release, switched_off, tmp_path):
    release.write_manifest(release.share(), **values)
    released.get(NAME)
    switched_off()
    assert_complete(released.get(NAME, cache_dir=tmp_path / "other"), release)
    assert_complete(released.get(NAME, cache_dir=tmp_path / "another", offline=True), release)


def test_an_address_is_converted_without_a_network(release, switched_off, tmp_path):
    address = release.share()
    path = download(parse_location(address))
    switched_off()
    assert download(parse_location(address)) == path
    with pytest.raises(UsageError, match="more than the limit of"):
        download(parse_location(address), max_bytes=1000)


def test_a_download_of_an_older_version_is_used_if_its_hash_is_right(release, switched_off, tmp_path):
    """Which did not write down that a file is complete."""
    release.write_manifest(release.share())
    released.get(NAME)
    (marker,) = release.cache.rglob(".complete")
    marker.unlink()
    switched_off()
    assert_complete(released.get(NAME, cache_dir=tmp_path / "other"), release)


@pytest.mark.parametrize("values", [{}, {"sha256": None}, {"sha256": None, "bytes": None}])
def test_half_a_download_is_not_used_without_a_network(values, release, switched_off):
    release.write_manifest(release.share(), **values)
    release.hub.disconnect("GET", "files/", after=200_000)
    release.hub.fail("GET", "files/")
    assert "503" in failure()
    switched_off()
    message = "beats-small: is not in the cache, and the network is switched off"
    assert failure().startswith(message)
    address = parse_location(release.share())
    with pytest.raises(BeatsError, match="is not in the cache, and the network is switched off"):
        download(address)


def test_a_complete_download_is_used_if_the_server_is_not_reached(release, caplog):
    location = parse_location(release.share())
    path = download(location)
    release.hub.silence("GET", "files/", times=FOREVER)
    assert download(location) == path
    assert "what is in the cache is used: no answer in time" in caplog.text


def test_a_file_that_a_broken_answer_has_replaced_is_not_used(release):
    location = parse_location(release.share())
    path = download(location)
    release.share(b"another" * 50_000)
    release.hub.disconnect("GET", "files/", after=100_000)
    with pytest.raises(BeatsError, match="peer closed connection"):
        download(location)
    assert path.stat().st_size == 100_000


def test_a_wrong_file_among_the_downloads_is_named_and_then_replaced(release, tmp_path):
    release.write_manifest(release.share())
    released.get(NAME)
    (path,) = release.cache.rglob(SOURCE.name)
    path.write_bytes(release.content[:-1] + b"x")
    message = failure(offline=True, cache_dir=tmp_path / "other")
    assert "beats-small: the right file is not in the cache, and the network is switched off" in message
    assert f": {path}: has SHA-256 {sha256(path)}, {SOURCE.name} has {release.sha256}. A file of" in message
    assert_complete(released.get(NAME, cache_dir=tmp_path / "other"), release)


def test_a_wrong_file_of_the_hub_is_named_without_a_network(release, tmp_path):
    released.get(NAME)
    (path,) = (path for path in (release.home / "hub").rglob(SOURCE.name) if path.is_file())
    blob = path.resolve()
    blob.write_bytes(release.content[:1000])
    message = failure(offline=True, cache_dir=tmp_path / "other")
    assert "the right file is not in the cache" in message
    assert f"{path}: has 1000 bytes, {SOURCE.name} has {len(release.content)}. A file of" in message


def test_a_wrong_file_from_an_address_is_not_kept(release):
    release.write_manifest(release.share(release.content[:-1] + b"x"))
    assert "has SHA-256" in failure()
    release.share()
    assert_complete(released.get(NAME), release)


@pytest.mark.parametrize(
    ("part", "times", "ranges"),
    [
        pytest.param(lambda start, stop: (start - 1000, stop), 1, [200_000, None], id="earlier"),
        pytest.param(lambda start, stop: (start + 1000, stop), FOREVER, [200_000, None], id="later"),
        pytest.param(lambda start, stop: (0, stop), 1, [200_000], id="all"),
        pytest.param(lambda start, stop: (start, start + 100_000), 2, [200_000, 300_000, 400_000], id="shorter"),
    ],
)
def test_another_part_than_was_asked_for_does_not_spoil_the_file(part, times, ranges, release):
    release.hub.disconnect("GET", "files/", after=200_000)
    release.hub.send_part(part, "files/", times=times)
    path = download(parse_location(release.share()))
    assert path.read_bytes() == release.content
    asked = [request.range for request in release.hub.sent("GET")]
    assert asked == [None, *(start and f"bytes={start}-" for start in ranges)]


def test_a_server_that_never_sends_the_right_part_is_given_up(release):
    address = release.share()
    release.hub.disconnect("GET", "files/", after=200_000)
    release.hub.send_part(lambda start, stop: (start + 1, stop), "files/")
    release.hub.disconnect("GET", "files/", after=200_000)
    with pytest.raises(BeatsError, match=f"{address}: "):
        download(parse_location(address))
