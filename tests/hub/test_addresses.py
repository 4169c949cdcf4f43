# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Mirrors that are no repository of the Hub: any address of a file."""

from types import SimpleNamespace

import pytest

from hub.releases import NAME, SECOND, SOURCE, assert_complete, failure
from transformers_beats.conversion import released
from transformers_beats.conversion.locations import download, parse_location
from transformers_beats.utils.errors import BeatsError, UsageError


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
