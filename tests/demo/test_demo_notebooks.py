# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Pictures, sounds and the small classifier of the notebooks."""

import base64
import re
from io import BytesIO

import numpy as np
import pytest
import soundfile
from PIL import Image
from transformers import pipeline

from transformers_beats.demo.notebooks import examples, play, render
from transformers_beats.demo.scenes import CLASSES, STREET, make_scene, train_tagger, write_street
from transformers_beats.plotting.figures import make_figure


def sounds_of(players) -> list[np.ndarray]:
    found = re.findall(r'src="data:audio/mpeg;base64,([^"]*)"', players.data)
    return [soundfile.read(BytesIO(base64.b64decode(sound)))[0] for sound in found]


def test_a_picture_has_150_dpi_and_no_metadata():
    figure = make_figure(4, 2)
    figure.subplots().plot([1, 2, 3])
    with Image.open(BytesIO(render(figure))) as picture:
        assert picture.size == (600, 300)
        assert [round(dpi) for dpi in picture.info.pop("dpi")] == [150, 150]
        assert picture.info == {}


def test_a_player_holds_the_sound_of_an_array():
    waveform = examples("siren")["siren"]
    (sound,) = sounds_of(play({"siren": waveform}))
    # MP3 adds silence at both ends.
    assert 0 <= len(sound) - len(waveform) < 3000
    assert np.abs(sound).max() == pytest.approx(np.abs(waveform).max(), rel=0.2)


def test_a_player_holds_the_sound_of_a_file_in_mono(tmp_path):
    (sound,) = sounds_of(play({"street": write_street(tmp_path / "street.flac")}))
    assert sound.ndim == 1
    assert len(sound) == pytest.approx(15 * 16000, abs=3000)


def test_names_of_players_are_text():
    assert "&lt;b&gt;" in play({"<b>": examples("dog")["dog"]}).data


def test_the_street_is_a_stereo_recording_with_all_its_sounds(tmp_path):
    info = soundfile.info(write_street(tmp_path / "street.flac"))
    assert (info.samplerate, info.channels, info.duration) == (44100, 2, 15.0)
    assert max(onset + seconds for _, onset, seconds, _ in STREET) <= info.duration


def test_a_scene_has_at_most_two_sounds():
    scenes = [make_scene(np.random.default_rng(seed)) for seed in range(60)]
    assert {waveform.shape for waveform, _ in scenes} == {(32000,)}
    assert {int(labels.sum()) for _, labels in scenes} == {0, 1, 2}


def test_the_small_classifier_is_saved_with_all_that_a_pipeline_needs(tmp_path):
    precision = train_tagger(tmp_path / "model", num_scenes=8, num_epochs=1, num_held_out=30)
    assert precision.shape == (len(CLASSES),)
    tagger = pipeline("audio-tagging", model=str(tmp_path / "model"))
    labels = tagger(write_street(tmp_path / "street.flac"), top_k=None)
    assert {label["label"] for label in labels} == set(CLASSES)
