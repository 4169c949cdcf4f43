# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Trainings on clips of which some are damaged, some are no files, and one is removed in the middle."""

import io
import json
import os
import re
from pathlib import Path

import numpy as np
import pytest
import soundfile
from tiny import make_recipe, write_shards

from transformers_beats import BeatsModel
from transformers_beats.training.compute_codes import tokenize
from transformers_beats.training.config.arguments import PRETRAIN_ARGUMENTS, TOKENIZE_ARGUMENTS
from transformers_beats.training.config.iterations import IterateArguments
from transformers_beats.training.config.recipes import build_arguments
from transformers_beats.training.data import reading
from transformers_beats.training.data.crops import CropDataset
from transformers_beats.training.data.streams import StreamingCrops
from transformers_beats.training.iterate import save_random_projection
from transformers_beats.training.pretrain import pretrain
from transformers_beats.utils.errors import BeatsError


NUM_CLIPS = 200
# 1 % of the clips.
DAMAGED = ("017.wav", "142.wav")
DAMAGE = b"RIFF nonsense"
# More than an epoch of 50 steps with four clips each.
NUM_STEPS = 60


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch):
    monkeypatch.setattr(reading, "FIRST_PAUSE", 0.0)


@pytest.fixture(scope="module")
def contents() -> dict[str, bytes]:
    """200 clips of 0.3 s by name; two are damaged."""
    generator, found = np.random.default_rng(0), {}
    for number in range(NUM_CLIPS):
        file = io.BytesIO()
        soundfile.write(file, 0.1 * generator.standard_normal(4800), 16000, format="WAV")
        found[f"{number:03d}.wav"] = file.getvalue()
    return found | dict.fromkeys(DAMAGED, DAMAGE)


def write_folder(folder: Path, contents: dict[str, bytes]) -> Path:
    """Writes files, and a pipe that is called like one."""
    folder.mkdir()
    for name, data in contents.items():
        (folder / name).write_bytes(data)
    os.mkfifo(folder / "clip.wav")
    return folder


def train(source: Path, directory: Path, **values) -> None:
    """Pre-trains a tiny model on codes of a random projection, by default computed on the fly."""
    recipe = make_recipe(source, directory / "run")
    recipe["model"] |= {"max_steps": NUM_STEPS, "save_steps": NUM_STEPS, "logging_steps": 10}
    arguments = IterateArguments(**recipe)
    if not (directory / "tokenizer").exists():
        save_random_projection(arguments, directory / "tokenizer")
    values = {"tokenizer": str(directory / "tokenizer"), "output_dir": str(directory / "model")} | values
    pretrain(*build_arguments(PRETRAIN_ARGUMENTS, arguments.stage_values("model", **values)))


def check_model(directory: Path) -> None:
    """Checks that all steps were made, and that a model was written."""
    history = json.loads((directory / "model" / "log_history.json").read_text())
    assert max(entry["step"] for entry in history) == NUM_STEPS
    losses = [entry["loss"] for entry in history if "loss" in entry]
    assert len(losses) == NUM_STEPS // 10
    assert np.isfinite(losses).all()
    BeatsModel.from_pretrained(directory / "model")


def remove_in_the_middle(monkeypatch, folder: Path) -> list[str]:
    """Removes a file that is still to come once a hundred clips were read; returns a list that will have its name."""
    removed, seen = [], set()
    read_item = CropDataset.read_item

    def read(self, index, repetition=0):
        seen.add(self.name_of(index))
        if len(seen) == NUM_CLIPS // 2 and not removed:
            removed.append(next(name for name in self.clips.names if name not in seen))
            (folder / removed[0]).unlink()
        return read_item(self, index, repetition)

    monkeypatch.setattr(CropDataset, "read_item", read)
    return removed


@pytest.mark.parametrize("codes", ["on the fly", "computed before"])
def test_a_training_ends_and_names_what_it_could_not_read(codes, contents, tmp_path, monkeypatch, caplog):
    folder = write_folder(tmp_path / "sounds", contents)
    values = {}
    if codes == "computed before":
        arguments = IterateArguments(**make_recipe(folder, tmp_path / "run"))
        save_random_projection(arguments, tmp_path / "tokenizer")
        stage = {"tokenizer": str(tmp_path / "tokenizer"), "output_dir": str(tmp_path / "codes")}
        tokenize(*build_arguments(TOKENIZE_ARGUMENTS, arguments.stage_values("tokenize", **stage)))
        values = {"codes": str(tmp_path / "codes"), "tokenizer": None}
        caplog.clear()
    removed = remove_in_the_middle(monkeypatch, folder)
    train(folder, tmp_path, **values)
    check_model(tmp_path)
    messages = [record.getMessage() for record in caplog.records]
    # What is bad from the start.
    (skipped,) = [message for message in messages if "are skipped" in message]
    assert skipped.startswith(f"3 of {NUM_CLIPS + 1} clips are skipped: ")
    assert all(f"{folder / name}: holds text and no audio" in skipped for name in DAMAGED)
    assert f"{folder / 'clip.wav'}: is no file that can be read again, but a folder, a pipe or a device" in skipped
    # What was lost on the way.
    (lost,) = [message for message in messages if "is lost" in message]
    assert lost == (
        f"Another clip takes the place of one that is lost, 1 so far: {folder / removed[0]}: no such file."
    )


def losses_of(messages: list[str]) -> dict[str, list[int]]:
    """The numbers of the lines about the clips of a stream that were lost, by their names."""
    found: dict[str, list[int]] = {}
    for message in messages:
        if match := re.match(r"A clip of the stream is lost, (\d+) so far: .*?([^/]+\.wav): ", message):
            found.setdefault(match[2], []).append(int(match[1]))
    return found


@pytest.mark.parametrize("kind", ["tar", "parquet", "folder"])
def test_a_training_on_a_stream_ends_and_names_what_it_could_not_read(kind, contents, tmp_path, monkeypatch, caplog):
    source = tmp_path / "sounds"
    expected = {*DAMAGED}
    if kind == "folder":
        write_folder(source, contents)
        expected |= {"clip.wav", "100.wav"}
        draw = StreamingCrops._draw

        def remove(self, reader, count):
            if count == NUM_CLIPS // 2:
                (source / "100.wav").unlink()
            return draw(self, reader, count)

        monkeypatch.setattr(StreamingCrops, "_draw", remove)
    else:
        write_shards(source, contents, kind)
    # Of two epochs at least.
    train(source, tmp_path, streaming=True, max_steps=2 * NUM_STEPS, shuffle_buffer_size=50)
    history = json.loads((tmp_path / "model" / "log_history.json").read_text())
    assert max(entry["step"] for entry in history) == 2 * NUM_STEPS
    BeatsModel.from_pretrained(tmp_path / "model")
    found = losses_of([record.getMessage() for record in caplog.records])
    assert found.keys() == expected
    # They are counted, each in every epoch.
    numbers = sorted(number for part in found.values() for number in part)
    assert numbers == list(range(1, len(numbers) + 1))
    assert len(numbers) >= 2 * len(DAMAGED)


@pytest.mark.parametrize("kind", ["tar", "parquet"])
def test_a_training_on_a_stream_that_is_mostly_lost_ends_at_once(kind, contents, tmp_path):
    damaged = {name: data if number % 5 == 0 else DAMAGE for number, (name, data) in enumerate(contents.items())}
    write_shards(tmp_path / "sounds", damaged, kind)
    message = (
        r"^[12]\d clips that a reader of the stream asked for cannot be read, (the last 10 in a row|more than `max_l)"
    )
    with pytest.raises(BeatsError, match=message):
        train(tmp_path / "sounds", tmp_path, streaming=True)
    assert not (tmp_path / "model").exists()
