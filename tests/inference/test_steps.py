# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Frame-level models whose steps are shorter than a column, on recordings of any length."""

import json
import types

import numpy as np
import pytest
import soundfile
import torch
from huggingface_hub.errors import StrictDataclassError
from loud import RATE, recording
from transformers import pipeline
from typer.testing import CliRunner

from transformers_beats import (
    BeatsConfig,
    BeatsFeatureExtractor,
    BeatsForAudioFrameClassification,
    WindowedInference,
)
from transformers_beats.cli.app import app
from transformers_beats.inference.events import EventSettings, find_events
from transformers_beats.inference.loading import describe
from transformers_beats.inference.windows import count_steps
from transformers_beats.utils.errors import UsageError


EXTRACTOR = BeatsFeatureExtractor()
LABELS = {"id2label": {0: "sound", 1: "silence"}, "label2id": {"sound": 0, "silence": 1}}


class LoudSteps(BeatsForAudioFrameClassification):
    """Hears "sound" in every step of 40 ms whose first frame is loud, whatever else is in its window."""

    def forward(self, input_values, attention_mask=None, return_dict=True):
        loudness = input_values[:, ::4].mean(dim=2)
        return types.SimpleNamespace(logits=torch.stack([4 * loudness, -4 * loudness], dim=-1))


def configure(tiny_config):
    tiny_config.frame_pooling, tiny_config.problem_type = "sequence", "multi_label_classification"
    tiny_config.id2label, tiny_config.label2id = LABELS.values()
    return tiny_config


@pytest.fixture
def model(tiny_config):
    torch.manual_seed(0)
    return BeatsForAudioFrameClassification(configure(tiny_config)).eval()


@pytest.fixture
def loud_steps(tiny_config):
    return LoudSteps(configure(tiny_config)).eval()


@pytest.mark.parametrize(("frame_pooling", "frames"), [("mean", 16), ("sequence", 4)])
def test_steps_of_other_rates_are_whole_samples(tiny_config, frame_pooling, frames):
    configure(tiny_config).frame_pooling = frame_pooling
    extractor = BeatsFeatureExtractor(sampling_rate=22050)
    tagger = pipeline(
        "audio-tagging", model=BeatsForAudioFrameClassification(tiny_config).eval(), feature_extractor=extractor
    )
    seconds = frames * 220 / 22050
    assert tagger.frame_seconds == seconds
    found = tagger.inferences(True)[0].frames(recording((1.0, 2.0), seconds=60), RATE)
    assert abs(found.ends[-1] - 60) <= max(seconds, 0.2)


def test_windows_with_other_steps_are_others(tiny_config):
    tagger = pipeline(
        "audio-tagging",
        model=BeatsForAudioFrameClassification(configure(tiny_config)).eval(),
        feature_extractor=EXTRACTOR,
    )
    # 62 columns both, and 250 and 252 steps.
    assert len(tagger.inferences(True, event_window_seconds=10.07, event_hop_seconds=10.0)) == 2
    assert len(tagger.inferences(True, event_window_seconds=10.0, event_hop_seconds=10.0)) == 1


def alone(model, waveform: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        logits = model(**EXTRACTOR(waveform, sampling_rate=RATE, return_tensors="pt")).logits
    return logits[0].sigmoid().numpy()


def test_the_configuration_says_the_step(model):
    assert model.config.frame_seconds == WindowedInference(model, EXTRACTOR).frame_seconds == 0.04
    assert describe(model, EXTRACTOR)["scores"] == "every 40 ms"
    model.config.frame_pooling = "mean"
    assert model.config.frame_seconds == WindowedInference(model, EXTRACTOR).frame_seconds == 0.16
    assert describe(model, EXTRACTOR)["scores"] == "every 160 ms"


def test_recordings_of_a_window_have_the_models_scores_alone_and_in_a_batch(model):
    rng = np.random.default_rng(0)
    # Of 62 columns twice, with other numbers of frames; and shorter ones.
    lengths = (160_000, 158_900, 80_000, 79_000, 3_000, 500)
    clips = [0.1 * rng.standard_normal(length).astype(np.float32) for length in lengths]
    inference = WindowedInference(model, EXTRACTOR)
    together = [next(blocks) for blocks in inference.stream_frames_many(clips, RATE)]
    for clip, length, columns in zip(clips, lengths, together):
        assert (columns.column_seconds, columns.first) == (0.04, 0)
        assert len(columns.values) == len(columns.silent) == count_steps(length, model.config, EXTRACTOR)
        np.testing.assert_allclose(columns.values, alone(model, clip), atol=1e-5)
        np.testing.assert_allclose(inference.frames(clip, RATE).values, columns.values, atol=1e-5)
    assert len(together[0].values) == 250


@pytest.mark.parametrize(("window", "hop"), [(10.0, None), (10.0, 5.0), (1.0, 0.3), (0.2, 0.16)])
def test_windows_share_one_grid_of_steps(window, hop, loud_steps):
    waveform = recording((1.0, 1.12), (9.9, 10.02), (15.2, 15.24), (23.6, 24.0), seconds=24.03)
    columns = WindowedInference(loud_steps, EXTRACTOR, window, hop).frames(waveform, RATE)
    whole = alone(loud_steps, waveform)
    # The last window has the frames after the last whole column, too.
    assert len(columns.values) == len(columns.silent) == len(whole) == 601
    np.testing.assert_allclose(columns.values, whole, atol=1e-5)
    settings = EventSettings(gap_seconds=0.04)
    expected = find_events(type(columns)(whole, 0, 0.04), LABELS["id2label"], settings)
    found = find_events(columns, LABELS["id2label"], settings)
    assert [event[:1] + event[2:] for event in found] == [event[:1] + event[2:] for event in expected]
    sounds = [event for event in found if event.label == "sound"]
    assert [(event.start, event.end) for event in sounds] == [
        pytest.approx(times, abs=0.03) for times in [(0.99, 1.12), (9.89, 10.02), (15.19, 15.24), (23.59, 24.0)]
    ]


def test_overlapping_windows_are_averaged_by_their_steps(model):
    waveform = 0.1 * np.random.default_rng(1).standard_normal(40_000).astype(np.float32)
    columns = WindowedInference(model, EXTRACTOR, 1.0, 0.48, batch_size=1).frames(waveform, RATE)
    # By hand: windows of 1 s, 25 steps, every 3 of the 15 columns; the last one has 6 columns and 2 frames.
    starts = (0, 3, 6, 9)
    parts = [alone(model, waveform[2560 * start :][:RATE]) for start in starts]
    assert [len(part) for part in parts] == [25, 25, 25, 25]
    total, weight = np.zeros((61, 2)), np.zeros((61, 1))
    ramp = np.minimum(np.arange(1, 26), np.arange(25, 0, -1))[:, None]
    for start, part in zip(starts, parts):
        total[4 * start :][:25] += ramp * part
        weight[4 * start :][:25] += ramp
    np.testing.assert_allclose(columns.values, total / weight, atol=1e-5)


def test_windows_of_10_s_have_the_250_steps_of_a_clip_of_10_s(model):
    waveform = 0.1 * np.random.default_rng(1).standard_normal(20 * RATE).astype(np.float32)
    columns = WindowedInference(model, EXTRACTOR).frames(waveform, RATE)
    first, last = alone(model, waveform[: 10 * RATE]), alone(model, waveform[2560 * 62 :][: 10 * RATE])
    assert (len(first), len(last)) == (250, 250)
    # The next window begins with the second column of them, 9.92 s, and the last one with the last whole column.
    np.testing.assert_allclose(columns.values[:244], first[:244], atol=1e-5)


def test_the_legacy_mask_is_refused_as_it_does_not_tell_frames(model):
    with pytest.raises(
        StrictDataclassError, match="counts the frames of a clip, which `legacy_padding_mask` does not tell"
    ):
        BeatsConfig(frame_pooling="sequence", legacy_padding_mask=True)
    with pytest.raises(UsageError, match="need the exact padding mask"):
        WindowedInference(model, BeatsFeatureExtractor(legacy_padding_mask=True))


def test_digital_silence_is_found_by_the_step(loud_steps):
    waveform = recording(seconds=12.0)
    waveform[round(3.0 * RATE) : round(3.3 * RATE)] = 0
    silent = WindowedInference(loud_steps, EXTRACTOR).frames(waveform, RATE).silent
    # Frames of 25 ms that begin from 3.0 to 3.275 s: the last step has those to 3.27 s.
    assert np.flatnonzero(silent).tolist() == list(range(75, 82))


def test_embeddings_of_the_same_model_stay_those_of_columns(model):
    waveform = 0.1 * np.random.default_rng(1).standard_normal(40_000).astype(np.float32)
    inference = WindowedInference(model, EXTRACTOR, 1.0)
    assert inference.embed(waveform, RATE, grain="column").shape == (15, 64)
    assert next(inference.stream_embeddings(waveform, RATE)).column_seconds == 0.16


def test_the_pipeline_gives_events_of_40_ms(loud_steps):
    tagger = pipeline("audio-tagging", model=loud_steps, feature_extractor=EXTRACTOR, device="cpu")
    waveform = recording((4.0, 4.2), (21.08, 21.12), seconds=30.0)
    assert tagger.frame_seconds == 0.04
    events = tagger(waveform, return_events=True)["events"]
    sounds = [(event["start"], event["end"]) for event in events if event["label"] == "sound"]
    assert len(sounds) == 2
    for (start, end), expected in zip(sounds, [(3.98, 4.2), (21.06, 21.12)]):
        assert (start, end) == pytest.approx(expected, abs=0.03)
        # On the grid of 40 ms, and not on that of 160 ms.
        assert np.allclose([25 * start, 25 * end], np.round([25 * start, 25 * end]))
    assert any(round(25 * time) % 4 for pair in sounds for time in pair)


def test_tag_writes_events_of_40_ms(model, tmp_path):
    model.save_pretrained(tmp_path / "model")
    EXTRACTOR.save_pretrained(tmp_path / "model")
    soundfile.write(tmp_path / "noise.wav", 0.1 * np.random.default_rng(2).standard_normal(12 * RATE), RATE)
    arguments = ["tag", tmp_path / "noise.wav", "--model", tmp_path / "model", "--events", "--json"]
    scores = WindowedInference(model, EXTRACTOR).frames(tmp_path / "noise.wav").values
    threshold = float(np.median(scores[:, 0]))
    result = CliRunner().invoke(app, list(map(str, [*arguments, "--event-threshold", threshold])))
    assert result.exit_code == 0, result.output
    events = [event for event in json.loads(result.stdout)["events"] if event["label"] == "sound"]
    above = np.flatnonzero(np.diff(np.concatenate([[0], scores[:, 0] >= threshold, [0]]).astype(int)))
    assert [time for event in events for time in (event["start"], event["end"])] == pytest.approx(above * 0.04)
