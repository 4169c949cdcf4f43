# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Clips that are lost while a model is trained."""

import functools
import os
import shutil
import threading
from dataclasses import replace

import numpy as np
import pytest
from tiny import make_recipe
from torch.utils.data import DataLoader

from transformers_beats import BeatsFeatureExtractor
from transformers_beats.audio.decoding import AudioError
from transformers_beats.training.compute_codes import load_codes, tokenize
from transformers_beats.training.config.arguments import PRETRAIN_ARGUMENTS, TOKENIZE_ARGUMENTS, IterateArguments
from transformers_beats.training.config.recipes import build_arguments
from transformers_beats.training.data import reading
from transformers_beats.training.data.clips import prepare_clips
from transformers_beats.training.data.crops import CropDataset
from transformers_beats.training.data.labelled import Windows
from transformers_beats.training.data.reading import ItemReader, within
from transformers_beats.training.data.sources import DataArguments, load_audio_dataset
from transformers_beats.training.iterate import save_random_projection
from transformers_beats.training.pretrain import pretrain
from transformers_beats.utils.errors import BeatsError, first_line, one_line


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch):
    monkeypatch.setattr(reading, "FIRST_PAUSE", 0.0)


def crops_of(folder, **values) -> CropDataset:
    arguments = DataArguments(dataset=str(folder), crop_seconds=0.4, num_crops=1, **values)
    return CropDataset(prepare_clips(load_audio_dataset(arguments), arguments, 16000), arguments)


def test_a_call_in_time_gives_its_result_or_its_error():
    assert within(10.0, lambda first, second: first + second, 1, 2) == 3
    with pytest.raises(KeyError, match="key"):
        within(10.0, {}.__getitem__, "key")


def test_a_call_that_does_not_end_is_an_error():
    end = threading.Event()
    with pytest.raises(TimeoutError, match=r"took longer than 0\.05 s"):
        within(0.05, end.wait)
    end.set()


def test_a_failure_that_passes_costs_nothing_else():
    attempts = []

    def read(index):
        attempts.append(index)
        if len(attempts) < 3:
            raise OSError(5, "Input/output error")
        return index

    reader = ItemReader(DataArguments(dataset="", read_attempts=3), 10, str)
    assert reader.read(read, 7) == 7
    assert attempts == [7, 7, 7]
    assert not reader.lost


def test_the_same_item_takes_the_place_of_a_lost_one_every_time(caplog):
    arguments = DataArguments(dataset="", read_attempts=1, max_lost_share=0.2)
    tried = []

    def read(index):
        tried.append(index)
        if index == 3:
            raise AudioError("3.wav: is gone")
        return index

    first, second = ItemReader(arguments, 10, str), ItemReader(arguments, 10, str)
    found = first.read(read, 3)
    assert found != 3
    assert first.read(read, 3) == found == second.read(read, 3)
    # A lost item is not asked for again by the process that knows it.
    assert tried.count(3) == 2
    assert [record.getMessage() for record in caplog.records].count(
        "Another clip takes the place of one that is lost, 1 so far: 3.wav: is gone"
    ) == 2
    assert ItemReader(replace(arguments, crop_seed=1), 10, str).read(read, 3) != found


@pytest.mark.parametrize(("share", "num_lost"), [(0.0, 0), (0.01, 1), (0.2, 2), (1.0, 9)])
def test_too_many_lost_items_end_the_training(share, num_lost):
    reader = ItemReader(DataArguments(dataset="", read_attempts=1, max_lost_share=share), 10, str)
    lost = set(range(1, num_lost + 1))

    def read(index):
        if index in lost:
            raise AudioError(f"{index}.wav: is gone")
        return index

    for index in range(10):
        assert reader.read(read, index) not in lost
    assert reader.lost == lost
    lost.add(0)
    with pytest.raises(
        BeatsError, match=f"^{num_lost + 1} clips that could be read before cannot be read now.*: 0.wav: is gone"
    ):
        reader.read(read, 0)


def test_ten_lost_items_in_a_row_end_the_training():
    reader = ItemReader(DataArguments(dataset="", read_attempts=1, max_lost_share=1.0), 1000, str)

    def read(index):
        raise OSError(107, "Transport endpoint is not connected")

    with pytest.raises(BeatsError, match=r"cannot be read now, the last 10 in a row: .*Transport endpoint"):
        reader.read(read, 0)


def test_the_share_is_that_of_what_a_process_was_asked_for():
    reader = ItemReader(DataArguments(dataset="", read_attempts=1, max_lost_share=0.05), 100_000, str)

    def read(index):
        if index % 10 == 0 and index < 10_000:
            raise AudioError(f"{index}.wav: is gone")
        return index

    # Ten of the first 200 are 5 %; a tenth of all is more, whatever the number of items.
    with pytest.raises(BeatsError, match=r"^1\d clips .* more than `max_lost_share` \(0\.05\) of 200: "):
        list(map(functools.partial(reader.read, read), range(1000)))


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("change", ["removed", "cut", "pipe", "directory"])
def test_files_that_change_after_the_check_are_replaced(sounds, change, num_workers):
    crops = crops_of(sounds, max_lost_share=0.1)
    expected = [item["waveform"] for item in crops]
    lost = sounds / "05.wav"
    lost.unlink()
    if change == "cut":
        lost.write_bytes(b"RIFF")
    elif change == "pipe":
        os.mkfifo(lost)
    elif change == "directory":
        lost.mkdir()
    loader = DataLoader(crops, batch_size=None, num_workers=num_workers)
    found = [np.asarray(item["waveform"]) for item in loader]
    assert len(found) == 12
    others = [index for index in range(12) if index != 5]
    assert all(np.array_equal(found[index], expected[index]) for index in others)
    assert any(np.array_equal(found[5], expected[index]) for index in others)


def test_a_read_that_blocks_is_given_up(sounds, monkeypatch):
    crops = crops_of(sounds, read_seconds=0.2, read_attempts=2)
    end, original, attempts = threading.Event(), CropDataset.read_item, []

    def block(self, index):
        if index != 4:
            return original(self, index)
        attempts.append(index)
        return end.wait()

    monkeypatch.setattr(CropDataset, "read_item", block)
    assert len(crops[4]["waveform"]) == 6400
    assert len(attempts) == 2
    end.set()


def test_a_clip_that_takes_too_long_is_named(sounds, monkeypatch, caplog):
    end = threading.Event()
    monkeypatch.setattr(CropDataset, "read_item", lambda self, index: end.wait() if index == 4 else {})
    assert crops_of(sounds, read_seconds=0.1, read_attempts=1)[4] == {}
    assert "so far: 04.wav: took longer than 0.1 s (`read_seconds`)." in caplog.text
    end.set()


def test_an_evaluation_reads_again_and_replaces_nothing(sounds, monkeypatch):
    arguments = DataArguments(dataset=str(sounds), crop_seconds=0.4, read_attempts=2)
    clips = prepare_clips(load_audio_dataset(arguments), arguments, 16000)
    windows, attempts = Windows(clips, arguments, BeatsFeatureExtractor()), []
    read = Windows.read_item

    def fail_once(self, index):
        attempts.append(index)
        if len(attempts) == 1:
            raise OSError(5, "Input/output error")
        return read(self, index)

    monkeypatch.setattr(Windows, "read_item", fail_once)
    assert len(windows[0]["waveform"]) == 6400
    (sounds / "00.wav").unlink()
    with pytest.raises(BeatsError, match=r"^1 clips .* cannot be read now: .*00\.wav"):
        windows[0]


def test_an_error_in_a_worker_is_one_line(sounds):
    crops = crops_of(sounds, max_lost_share=0.0)
    (sounds / "05.wav").unlink()
    with pytest.raises(BeatsError) as caught:
        list(DataLoader(crops, batch_size=None, num_workers=1))
    message = "1 clips that could be read before cannot be read now: "
    assert one_line(caught.value).startswith(message)
    assert first_line(caught.value).startswith(message)
    assert "05.wav" in first_line(caught.value)


def test_a_training_goes_on_without_a_file_and_codes_do_not(sounds, tmp_path):
    recipe = make_recipe(sounds, tmp_path / "run")
    arguments = IterateArguments(**recipe)
    save_random_projection(arguments, tmp_path / "tokenizer")

    def run(stage, command, owners, **values):
        values = arguments.stage_values(stage, output_dir=str(tmp_path / stage), **values)
        command(*build_arguments(owners, values))

    prepare = CropDataset.__init__

    def lose_one(self, *args, **kwargs):
        prepare(self, *args, **kwargs)
        (sounds / "03.wav").rename(sounds / "03.gone")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CropDataset, "__init__", lose_one)
        run("model", pretrain, PRETRAIN_ARGUMENTS, tokenizer=str(tmp_path / "tokenizer"))
        assert (tmp_path / "model" / "model.safetensors").exists()
        shutil.move(sounds / "03.gone", sounds / "03.wav")
        with pytest.raises(BeatsError, match=r"^1 clips that could be read before cannot be read now: .*03\.wav"):
            run("tokenize", tokenize, TOKENIZE_ARGUMENTS, tokenizer=str(tmp_path / "tokenizer"))
        with pytest.raises(BeatsError, match="holds no complete codes"):
            load_codes(str(tmp_path / "tokenize"), DataArguments(**recipe["data"]))
    shutil.move(sounds / "03.gone", sounds / "03.wav")
    run("tokenize", tokenize, TOKENIZE_ARGUMENTS, tokenizer=str(tmp_path / "tokenizer"))
    assert len(load_codes(str(tmp_path / "tokenize"), DataArguments(**recipe["data"]))[0]) == 12
