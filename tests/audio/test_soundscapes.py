# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
import numpy as np
import pytest
import soundfile

from transformers_beats.audio.soundscapes import (
    SoundscapeSettings,
    cut_event,
    find_active,
    make_soundscape,
    write_soundscapes,
)
from transformers_beats.training.data.labels import LabelArguments
from transformers_beats.training.data.strong_labels import read_event_files
from transformers_beats.utils.errors import BeatsError, UsageError


RATE = 16000


def tone(frequency: float, seconds: float) -> np.ndarray:
    return np.sin(2 * np.pi * frequency * np.arange(round(RATE * seconds)) / RATE)


SOURCES = {"high": [tone(3000, 2.0)], "low": [tone(400, 5.0), tone(500, 0.3)], "middle": [tone(1200, 1.0)]}


def test_the_sound_of_a_recording_is_found_between_silence():
    silence = np.zeros(RATE)
    recording = np.concatenate([silence, tone(400, 0.5), silence, tone(400, 1.0), 1e-3 * tone(400, 1.0)])
    start, end = find_active(recording)
    assert (start / RATE, end / RATE) == (pytest.approx(2.5, abs=0.021), pytest.approx(3.5, abs=0.021))
    assert find_active(silence) == find_active(silence[:0]) == (0, 0)


@pytest.mark.parametrize("seed", range(5))
def test_events_are_where_the_labels_say(seed):
    settings = SoundscapeSettings(num_events=(6, 6), snr_db=(20, 20), max_polyphony=1)
    scene = make_soundscape(SOURCES, np.random.default_rng(seed), settings)
    assert len(scene.samples) == 10 * RATE
    assert np.abs(scene.samples).max() <= 1
    heard = np.zeros(len(scene.samples), dtype=bool)
    for event in scene.events:
        heard[round(event.onset * RATE) : round(event.offset * RATE)] = True
    # 20 dB: a hundred times the power of the background, but for the fades.
    background = np.square(scene.samples[~heard]).mean()
    for event in scene.events:
        part = scene.samples[round(event.onset * RATE) : round(event.offset * RATE)]
        assert 50 < np.square(part).mean() / background < 220


@pytest.mark.parametrize("event_seconds", [(0.02, 0.05), (0.05, 0.3), (0.25, 1.0)])
def test_no_event_begins_or_ends_in_a_pause(event_seconds):
    # Bursts of 20 ms, and digital silence between them.
    bursts = np.zeros(2 * RATE)
    for begin in range(0, 2 * RATE, RATE // 8):
        bursts[begin : begin + RATE // 50] = tone(1000, 0.02)
    block, lengths = RATE // 50, []
    for seed in range(30):
        event = cut_event(bursts, np.random.default_rng(seed), event_seconds)
        lengths.append(len(event) / RATE)
        assert np.any(event[:block])
        assert np.any(event[-block:])
    assert max(lengths) <= event_seconds[1]
    settings = SoundscapeSettings(event_seconds=event_seconds, num_events=(8, 8))
    scene = make_soundscape({"bursts": [bursts]}, np.random.default_rng(0), settings)
    assert np.isfinite(scene.samples).all()
    assert scene.events


def test_a_click_of_which_fades_leave_nothing_is_left_out():
    click = np.zeros(RATE)
    click[0] = 1.0
    scene = make_soundscape({"click": [click]}, np.random.default_rng(0), SoundscapeSettings(num_events=(3, 3)))
    assert np.isfinite(scene.samples).all()
    assert scene.events == []


@pytest.mark.parametrize("polyphony", [1, 2, 3])
def test_no_more_events_sound_at_a_time_than_asked_for(polyphony):
    settings = SoundscapeSettings(num_events=(12, 12), max_polyphony=polyphony)
    most = 0
    for seed in range(8):
        events = make_soundscape(SOURCES, np.random.default_rng(seed), settings).events
        for event in events:
            sounding = [other for other in events if other.onset <= event.onset < other.offset]
            assert len({other.label for other in sounding}) == len(sounding)
            most = max(most, len(sounding))
    assert most == polyphony


def test_a_folder_has_the_labels_of_its_soundscapes(tmp_path):
    settings = SoundscapeSettings(seconds=4, num_events=(0, 3))
    folder = write_soundscapes(tmp_path / "scenes", SOURCES, 6, seed=3, settings=settings)
    names = sorted(path.name for path in (folder / "audio").iterdir())
    labels = read_event_files(LabelArguments(event_files=str(folder / "events.tsv")), names, [4.0] * 6)
    assert set(labels.knowledge) == {"events"}
    for number, name in enumerate(names):
        scene = make_soundscape(SOURCES, np.random.default_rng([3, number]), settings)
        samples, _ = soundfile.read(folder / "audio" / name)
        np.testing.assert_allclose(samples, scene.samples, atol=1 / 32768)
        known = [(labels.names[label], onset, offset) for label, onset, offset in labels.values[number]]
        assert known == [(each.label, *map(pytest.approx, each[1:3])) for each in scene.events]
    with pytest.raises(BeatsError, match="scenes"):
        write_soundscapes(folder, SOURCES, 6)


@pytest.mark.parametrize(
    ("sources", "message"),
    [
        ({}, "no class"),
        ({"a": []}, "no recording of 'a'"),
        ({"a": [np.zeros(100)]}, "Recording 0 of 'a' must be mono, finite and not silent"),
        ({"a": [np.full(100, np.nan)]}, "must be mono, finite"),
        ({"a": [np.ones((100, 2))]}, "must be mono"),
    ],
)
def test_recordings_without_a_sound_are_refused(sources, message, tmp_path):
    with pytest.raises(UsageError, match=message):
        write_soundscapes(tmp_path / "scenes", sources, 1)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "label", ["a\tb", "c\nd", "e\r", "f\u2028g", " h", "i ", '"j"', "", "k\0", "nan", "None", "NULL"]
)
def test_labels_that_a_line_of_events_does_not_hold_are_refused(label, tmp_path):
    with pytest.raises(UsageError, match=r"A label in events\.tsv must be printable text without .*, got ") as refusal:
        write_soundscapes(tmp_path / "scenes", {"a": SOURCES["high"], label: SOURCES["low"]}, 1)
    assert "\n" not in str(refusal.value)
    assert not list(tmp_path.iterdir())


def test_labels_are_read_as_they_were_written(tmp_path):
    label = "Bell, small; it's \u00e9-#1"
    settings = SoundscapeSettings(num_events=(2, 2))
    folder = write_soundscapes(tmp_path / "scenes", {label: SOURCES["low"]}, 1, settings=settings)
    labels = read_event_files(LabelArguments(event_files=str(folder / "events.tsv")), ["000000.wav"], [10.0])
    assert list(labels.names) == [label]


@pytest.mark.parametrize(
    "values",
    [
        {"seconds": 1.0},
        {"seconds": float("inf")},
        {"num_events": (3, 1)},
        {"snr_db": (float("nan"), 3.0)},
        {"event_seconds": (0.0, 1.0)},
        {"max_polyphony": 0},
    ],
)
def test_impossible_settings_are_refused(values):
    with pytest.raises(UsageError, match="must be"):
        SoundscapeSettings(**values)
