# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
import os
import socket
from pathlib import Path

import pytest

from transformers_beats.audio.files import (
    AUDIO_SUFFIXES,
    check_names,
    find_audio,
    place_of,
    search_folder,
    walk_folder,
)
from transformers_beats.training.data.manifest import list_audio_files
from transformers_beats.utils.errors import UsageError


def write(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")


def names_in(folder: Path) -> list[str]:
    return [path.relative_to(folder).as_posix() for path in search_folder(folder)]


@pytest.fixture
def tree(tmp_path):
    """A folder with links, circles, hidden files and files that are no audio."""
    folder, elsewhere = tmp_path / "folder", tmp_path / "elsewhere"
    write(folder / "deep" / "er" / "a.wav", folder / ".Trash" / "a.wav", folder / "._a.wav", folder / "notes.txt")
    write(elsewhere / "b.FLAC", folder / "B.Wav")
    (folder / "linked").symlink_to(elsewhere)
    (folder / "again").symlink_to(folder)
    (elsewhere / "back").symlink_to(folder / "deep")
    (folder / "linked.ogg").symlink_to(elsewhere / "b.FLAC")
    return folder


FOUND = ["B.Wav", "deep/er/a.wav", "linked/b.FLAC", "linked.ogg"]


def test_links_are_followed_once_and_hidden_files_left_out(tree):
    assert names_in(tree) == FOUND


def test_command_line_and_training_find_the_same_files(tree):
    assert [file.short_name for file in find_audio([tree])] == FOUND
    assert list_audio_files(tree)["file_name"] == FOUND


def test_a_folder_has_its_own_path_and_not_that_of_a_link_before_it(tmp_path):
    write(tmp_path / "z" / "deep" / "a.wav", tmp_path / "b" / "a.wav")
    (tmp_path / "a_link").symlink_to(tmp_path / "z" / "deep")
    (tmp_path / "b" / "link").symlink_to(tmp_path / "z")
    assert names_in(tmp_path) == ["b/a.wav", "z/deep/a.wav"]


def test_a_link_to_a_missing_file_is_listed(tmp_path):
    (tmp_path / "dangling.wav").symlink_to("nowhere.wav")
    assert names_in(tmp_path) == ["dangling.wav"]


def test_what_may_block_is_named_and_not_listed(tmp_path, caplog):
    write(tmp_path / "a.wav")
    os.mkfifo(tmp_path / "pipe.wav")
    os.mkfifo(tmp_path / "pipe.tar")
    os.mkfifo(tmp_path / "pipe.txt")
    (tmp_path / "linked.wav").symlink_to("pipe.wav")
    (tmp_path / "device.wav").symlink_to(os.devnull)
    with socket.socket(socket.AF_UNIX) as server, pytest.MonkeyPatch.context() as patch:
        # Its path may not be long.
        patch.chdir(tmp_path)
        server.bind("socket.wav")
    assert [file.short_name for file in find_audio([tmp_path])] == ["a.wav"]
    messages = [record.getMessage() for record in caplog.records]
    names = ["device.wav", "linked.wav", "pipe.wav", "socket.wav"]
    message = "is no file that can be read again, but a pipe, a socket or a device: it is left out."
    assert sorted(messages) == [f"{tmp_path / name}: {message}" for name in names]
    caplog.clear()
    suffixes = {*AUDIO_SUFFIXES, ".tar"}
    found = [path[len(str(tmp_path)) + 1 :] for path in walk_folder(tmp_path, suffixes, special_suffixes={".wav"})]
    assert sorted(found) == sorted(["a.wav", *names])
    assert [record.getMessage() for record in caplog.records] == [f"{tmp_path / 'pipe.tar'}: {message}"]


def test_a_folder_called_like_a_file_is_searched(tmp_path):
    write(tmp_path / "a.wav" / "b.wav")
    assert names_in(tmp_path) == ["a.wav/b.wav"]


def test_a_hidden_folder_may_be_named_itself(tmp_path):
    write(tmp_path / ".hidden" / "a.wav")
    assert names_in(tmp_path / ".hidden") == ["a.wav"]


def test_other_suffixes_are_found_on_demand(tmp_path):
    write(tmp_path / "a.tar", tmp_path / "b.TAR", tmp_path / "c.wav")
    assert [path.name for path in search_folder(tmp_path, {".tar"})] == ["a.tar", "b.TAR"]
    assert ".wav" in AUDIO_SUFFIXES


def test_a_file_that_is_named_in_two_ways_is_one(tmp_path, monkeypatch):
    write(tmp_path / "in" / "a.wav")
    (tmp_path / "link").symlink_to(tmp_path / "in")
    monkeypatch.chdir(tmp_path)
    files = find_audio([tmp_path / "in", Path("link"), Path("in/../in/a.wav")])
    assert [place_of(file.path) for file in files] == [place_of("in/a.wav")]


@pytest.mark.parametrize("folder", [".", "in", "in/", "./in", "in/../in", "link"])
def test_names_are_those_of_paths(tmp_path, monkeypatch, folder):
    write(tmp_path / "in" / "deep" / "a.wav", tmp_path / "in" / "b.wav")
    (tmp_path / "link").symlink_to(tmp_path / "in")
    monkeypatch.chdir(tmp_path)
    for file in find_audio([Path(folder)]):
        assert file.full_name == str(file.path) == str(Path(folder, file.short_name))
        assert file.address == os.path.abspath(file.path)
        assert file.result(Path("out"), ".npy") == Path("out", f"{file.short_name}.npy")


def test_what_is_above_a_link_is_above_its_target(tmp_path, monkeypatch):
    write(tmp_path / "disk" / "clips" / "a.wav", tmp_path / "here" / "clips" / "a.wav")
    (tmp_path / "disk" / "sub").mkdir()
    (tmp_path / "here" / "link").symlink_to(tmp_path / "disk" / "sub")
    monkeypatch.chdir(tmp_path / "here")
    (file,) = find_audio([Path("link/../clips")])
    assert os.path.samefile(file.path, tmp_path / "disk" / "clips" / "a.wav")
    assert file.address == place_of(file.full_name) == place_of(file.address)
    assert file.address == str(tmp_path / "disk" / "clips" / "a.wav")
    (twice,) = find_audio([Path("link/../clips"), tmp_path / "disk" / "clips"])
    assert place_of(twice.full_name) == file.address


def test_a_file_is_taken_whatever_its_suffix_if_it_is_named(tmp_path):
    write(tmp_path / "a.bin")
    assert [file.short_name for file in find_audio([tmp_path / "a.bin"])] == ["a.bin"]


def test_missing_inputs_and_empty_folders_are_refused(tmp_path):
    with pytest.raises(UsageError, match=r"missing: no such file or folder\."):
        find_audio([tmp_path / "missing"])
    with pytest.raises(UsageError, match="No audio in"):
        find_audio([tmp_path])


def test_results_of_one_name_are_refused(tmp_path):
    write(tmp_path / "a" / "x.wav", tmp_path / "b" / "x.wav")
    check_names(find_audio([tmp_path]))
    with pytest.raises(UsageError, match=r"would both be written as x\.wav"):
        check_names(find_audio([tmp_path / "a", tmp_path / "b"]))


def test_a_folder_that_cannot_be_listed_is_named(tmp_path, monkeypatch, caplog):
    write(tmp_path / "a" / "1.wav", tmp_path / "b" / "2.wav")
    scan = os.scandir

    def refuse(directory):
        if Path(directory).name == "a":
            raise PermissionError(13, "Permission denied")
        return scan(directory)

    monkeypatch.setattr(os, "scandir", refuse)
    assert names_in(tmp_path) == ["b/2.wav"]
    assert f"{tmp_path / 'a'}: cannot be listed: Permission denied" in caplog.text
