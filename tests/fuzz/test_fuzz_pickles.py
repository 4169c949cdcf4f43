# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Checkpoints that would run code, or fill the memory: nothing runs, and one line says why."""

import builtins
import io
import os
import pickle
import shutil
import tarfile
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import torch
from converting import assert_converted_or_refused, contents_of, read, to_bytes
from fuzzing import DAMAGES, IS_THOROUGH, at_most, count, damage, fuzz
from hypothesis import strategies as st


class Calls:
    """Unpickling this calls a function."""

    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


def payloads(marker: Path) -> list:
    text = f"open({str(marker)!r}, 'w')"
    return [
        Calls(os.system, f"touch {marker}"),
        Calls(builtins.eval, text),
        Calls(builtins.exec, text),
        Calls(open, str(marker), "w"),
        Calls(os.mkdir, str(marker)),
        Calls(getattr, Calls(__import__, "os"), "system"),
        Calls(torch.hub.load_state_dict_from_url, "file:///etc/passwd", str(marker.parent)),
        Calls(torch.save, {}, str(marker)),
        Calls(Path.touch, marker),
        Calls(shutil.copy, "/etc/passwd", str(marker)),
        Calls(np.save, str(marker), np.zeros(1)),
        Calls(pickle.loads, pickle.dumps(Calls(os.mkdir, str(marker)))),
    ]


def plant(payload, place: str):
    """A checkpoint with a payload in it."""
    contents = contents_of("beats_tiny_finetuned")
    if place == "root":
        return payload
    if place == "tensor":
        contents["model"]["layer_norm.weight"] = payload
    elif place == "deep":
        contents["x"] = [{"y": ([payload],)}]
    elif place == "key":
        contents[("k", payload)] = 1
    else:
        contents[place] = payload
    return contents


def legacy_tar(payload) -> bytes:
    """PyTorch's oldest layout: a tar of pickles."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:") as archive:
        for name in ("sys_info", "storages", "tensors", "pickle"):
            data = pickle.dumps({"little_endian": True} if name == "sys_info" else payload, protocol=2)
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return file.getvalue()


PLACES = ["root", "cfg", "label_dict", "model", "tensor", "deep", "key", "optimizer"]
LAYOUTS = ["zip", "legacy", "pickle 0", "pickle 2", "pickle 4", "tar", "zip of a zip", "magic"]


def with_payload(payload, place: str, layout: str) -> bytes:
    contents = plant(payload, place)
    if layout in ("zip", "legacy"):
        return to_bytes(contents, layout)
    if layout == "tar":
        return legacy_tar(contents)
    if layout == "zip of a zip":
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w") as archive:
            archive.writestr("archive/data.pkl", to_bytes(contents))
            archive.writestr("archive/version", "3")
        return file.getvalue()
    if layout == "magic":
        # The header of the legacy layout, then a pickle.
        return b"".join(pickle.dumps(part, 2) for part in (0x1950A86A20F9469CFC6C, 1001, payload, payload))
    return pickle.dumps(contents, protocol=int(layout[-1]))


def test_no_payload_runs_in_any_place_of_any_layout(tmp_path):
    marker = tmp_path / "ran"
    for place in PLACES:
        for layout in LAYOUTS:
            for payload in payloads(marker) if IS_THOROUGH else payloads(marker)[:1]:
                assert not assert_converted_or_refused(with_payload(payload, place, layout))
                assert not marker.exists()
                count("test_no_payload_runs_in_any_place_of_any_layout")


@fuzz(
    20,
    800,
    number=st.integers(0, 11),
    place=st.sampled_from(PLACES),
    layout=st.sampled_from(LAYOUTS),
    how=st.sampled_from(DAMAGES),
    seed=st.integers(0, 2**32),
)
def test_no_payload_runs_in_damaged_files(number, place, layout, how, seed):
    with tempfile.TemporaryDirectory() as name:
        marker = Path(name) / "ran"
        data = with_payload(payloads(marker)[number], place, layout)
        assert not assert_converted_or_refused(damage(data, how, np.random.default_rng(seed)))
        assert not marker.exists()


def rezip(data: bytes, compression: int, **extra: bytes) -> bytes:
    """The entries of a zip, compressed, and others."""
    file = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(data)) as source,
        zipfile.ZipFile(file, "w", compression, compresslevel=1) as target,
    ):
        root = source.namelist()[0].split("/")[0]
        for info in source.infolist():
            target.writestr(info.filename, source.read(info))
        for name, value in extra.items():
            target.writestr(f"{root}/{name}", value)
    return file.getvalue()


def test_compressed_entries_are_refused_before_they_are_unpacked():
    bomb = rezip(read("beats_tiny"), zipfile.ZIP_DEFLATED, bomb=bytes(2**29))
    assert len(bomb) < 2**22
    with at_most(100):
        assert not assert_converted_or_refused(bomb)
        assert not assert_converted_or_refused(rezip(read("beats_tiny"), zipfile.ZIP_DEFLATED))
        assert not assert_converted_or_refused(rezip(read("beats_tiny"), zipfile.ZIP_BZIP2))
    count("test_compressed_entries_are_refused_before_they_are_unpacked", 3)
