# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
import io
import types

import numpy as np
import pytest
import soundfile
import torch
from datasets import Dataset
from golden import FIXTURES
from loud import RATE, recording
from safetensors.torch import load_file, save_file
from transformers import pipeline
from transformers.pipelines.pt_utils import KeyDataset

from transformers_beats import (
    BeatsAudioTaggingPipeline,
    BeatsFeatureExtractor,
    BeatsForAudioClassification,
    BeatsForAudioFrameClassification,
    BeatsModel,
)
from transformers_beats.audio import decoding
from transformers_beats.audio.decoding import AudioError, AudioStream, open_audio, stream_audio
from transformers_beats.conversion.convert import convert
from transformers_beats.inference.events import Event
from transformers_beats.inference.pipeline import SHORTEST_EVENT_WINDOW, BeatsModelForTask, Label
from transformers_beats.inference.windowed import WindowedInference
from transformers_beats.plotting.spectrogram import SpectrogramReader, read_spectrogram
from transformers_beats.utils.errors import UsageError


LABELS = {"Dog", "Rain", "Thunder", "Baby cry, infant cry", "Printer", "Speech"}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A converted fine-tuned checkpoint with six AudioSet classes."""
    output_dir = tmp_path_factory.mktemp("checkpoint") / "beats"
    convert(FIXTURES / "beats_tiny_finetuned.pt", output_dir)
    return output_dir


@pytest.fixture(scope="module")
def tagger(checkpoint):
    return pipeline("audio-tagging", model=str(checkpoint), device="cpu")


@pytest.fixture(scope="module")
def clip():
    """Two seconds, of changing loudness."""
    generator = np.random.default_rng(0)
    envelope = np.interp(np.arange(2 * RATE), [0, 8000, 20000, 32000], [0, 0.2, 0.02, 0.1])
    return (envelope * generator.standard_normal(2 * RATE)).astype(np.float32)


def scores_of(labels: list[dict]) -> dict[str, float]:
    return {item["label"]: item["score"] for item in labels}


def model_scores(tagger, clip) -> dict[str, float]:
    """What the model itself gives for a clip."""
    inputs = tagger.feature_extractor(clip, sampling_rate=RATE, return_tensors="pt")
    with torch.no_grad():
        probabilities = tagger.model(**inputs).logits[0].sigmoid()
    return {tagger.model.config.id2label[index]: value.item() for index, value in enumerate(probabilities)}


class ScriptedModel(BeatsForAudioFrameClassification):
    """A frame-level model that says what it is told of the columns of each window."""

    def forward(self, input_values, attention_mask=None, return_dict=True):
        num_columns = input_values.shape[1] // 16
        # 2 is the mean of the fbank of loud noise here, -2.39 that of silence.
        loudness = input_values[:, : 16 * num_columns].unflatten(1, (num_columns, 16)).mean(dim=(2, 3))
        return types.SimpleNamespace(logits=torch.stack([4 * loudness, -4 * loudness], dim=-1))


@pytest.fixture
def scripted(tiny_config):
    """A pipeline that hears "sound" where a recording is loud and "silence" where it is silent."""
    tiny_config.id2label, tiny_config.label2id = {0: "sound", 1: "silence"}, {"sound": 0, "silence": 1}
    tiny_config.problem_type = "multi_label_classification"
    model = ScriptedModel(tiny_config)
    return pipeline("audio-tagging", model=model, feature_extractor=BeatsFeatureExtractor(), device="cpu")


# Clip-level labels


def test_scores_are_those_of_the_model_on_the_clip(tagger, clip):
    labels = tagger(clip, top_k=None)
    assert set(scores_of(labels)) == LABELS
    assert [item["score"] for item in labels] == sorted((item["score"] for item in labels), reverse=True)
    assert scores_of(labels) == pytest.approx(model_scores(tagger, clip), abs=1e-5)


def test_top_k_and_threshold_leave_out_labels(tagger, clip):
    everything = tagger(clip, top_k=None)
    assert tagger(clip) == everything[:5]
    assert tagger(clip, top_k=2) == everything[:2]
    assert tagger(clip, top_k=None, threshold=everything[3]["score"]) == everything[:4]
    assert tagger(clip, threshold=1.0) == []


def test_files_bytes_arrays_and_dicts_give_the_same(tagger, clip, tmp_path):
    soundfile.write(tmp_path / "clip.wav", clip, RATE, subtype="FLOAT")
    expected = scores_of(tagger(clip))
    content = (tmp_path / "clip.wav").read_bytes()
    with open(tmp_path / "clip.wav", "rb") as file:
        assert scores_of(tagger(file)) == pytest.approx(expected)
    for audio in (
        str(tmp_path / "clip.wav"),
        tmp_path / "clip.wav",
        content,
        bytearray(content),
        stream_audio(content),
        torch.from_numpy(clip),
        {"array": clip, "sampling_rate": RATE, "path": None},
        {"raw": clip, "sampling_rate": RATE},
        {"bytes": content, "path": "somewhere.wav"},
        {"bytes": None, "path": str(tmp_path / "clip.wav")},
    ):
        assert scores_of(tagger(audio)) == pytest.approx(expected)


def test_what_torchcodec_decodes_with_is_audio(tagger, clip):
    samples = types.SimpleNamespace(data=torch.from_numpy(clip)[None], sample_rate=RATE)
    assert tagger(types.SimpleNamespace(get_all_samples=lambda: samples)) == tagger(clip)


@pytest.mark.parametrize("layout", ["channels first", "channels last", "int16"])
def test_channels_of_arrays_are_averaged(tagger, clip, layout):
    stereo = np.stack([clip * 0.5, clip * 1.5])
    if layout == "int16":
        stereo = np.round(stereo * 32768).clip(-32768, 32767).astype(np.int16)
    array = stereo.T if layout == "channels last" else stereo
    assert scores_of(tagger(array)) == pytest.approx(scores_of(tagger(clip)), abs=1e-2 if layout == "int16" else 1e-5)


def test_other_rates_are_resampled_as_files_are(tagger, clip):
    stream = io.BytesIO()
    soundfile.write(stream, clip, 44100, format="WAV", subtype="FLOAT")
    from_file = scores_of(tagger(stream.getvalue()))
    assert scores_of(tagger({"array": clip, "sampling_rate": 44100})) == pytest.approx(from_file)
    assert scores_of(tagger(clip, sampling_rate=44100)) == pytest.approx(from_file)
    assert scores_of(tagger(clip)) != pytest.approx(from_file)


@pytest.mark.parametrize("rate", [0, 0.0, False, -1, float("nan")])
def test_a_rate_that_is_none_is_refused(tagger, checkpoint, clip, rate):
    for audio in (clip, {"array": clip}, [clip]):
        with pytest.raises(ValueError, match="needs its `sampling_rate` in hertz, got "):
            tagger(audio, sampling_rate=rate)
    with pytest.raises(ValueError, match="needs its `sampling_rate` in hertz, got "):
        pipeline("audio-tagging", model=str(checkpoint), device="cpu", sampling_rate=rate)(clip)


def test_a_long_recording_goes_through_windows(tagger, clip):
    recording = np.tile(clip, 4)
    settings = {"window_seconds": 2.0, "hop_seconds": 1.0}
    expected = WindowedInference(tagger.model, tagger.feature_extractor, **settings).classify(recording, RATE)
    names = tagger.model.config.id2label
    scores = scores_of(tagger(recording, top_k=None, **settings))
    assert scores == pytest.approx({names[index]: score for index, score in enumerate(expected.scores)})
    assert scores != pytest.approx(scores_of(tagger(recording, top_k=None)))


def test_a_stream_at_another_rate_is_refused(tagger, tmp_path):
    soundfile.write(tmp_path / "clip.wav", np.zeros(9000), 8000)
    with pytest.raises(ValueError, match="read at 8000 Hz"):
        tagger(stream_audio(tmp_path / "clip.wav", 8000))


@pytest.mark.parametrize(
    "audio", ["missing.wav", b"no audio at all", {"sampling_rate": RATE}, np.zeros((2, 3, 4)), np.zeros((0, 2))]
)
def test_what_is_no_audio_is_an_error(tagger, audio):
    with pytest.raises(ValueError, match=r"missing.wav|holds text|A dict needs|one waveform"):
        tagger(audio)


@pytest.mark.parametrize(
    ("parameters", "error", "message"),
    [
        ({"top_k": 0}, ValueError, "top_k"),
        ({"top_k": 2.5}, ValueError, r"`top_k` must be a whole number .* got 2\.5"),
        ({"threshold": 50}, ValueError, "The `threshold` must be a number from 0 to 1, got 50"),
        ({"threshold": "0.5"}, ValueError, "The `threshold` must be a number from 0 to 1, got '0.5'"),
        ({"threshold": float("nan")}, ValueError, "The `threshold` must be a number from 0 to 1, got nan"),
        ({"event_threshold": 5}, ValueError, "The `event_threshold` must be a number from 0 to 1, got 5"),
        ({"batch_size": 0}, ValueError, "batch_size"),
        ({"batch_size": 2.5}, ValueError, r"`batch_size` must be a whole number .* got 2\.5"),
        ({"window_seconds": float("inf")}, ValueError, "window_seconds"),
        ({"hop_seconds": float("nan")}, ValueError, "hop_seconds"),
        ({"hop_seconds": 11}, ValueError, "hop_seconds"),
        ({"event_window_seconds": 0.1}, ValueError, "`event_window_seconds` must be finite and at least"),
        ({"event_hop_seconds": 3}, ValueError, r"`event_hop_seconds` must be .* not exceed `event_window_seconds`"),
        ({"event_window_seconds": "2"}, ValueError, "`event_window_seconds` must"),
        ({"return_events": True, "low_threshold": 0.6}, ValueError, r"must not be above `event_threshold` \(0\.5"),
        ({"min_second": 1}, TypeError, "no parameter min_second; it has sampling_rate, .*min_seconds"),
    ],
)
def test_impossible_parameters_are_refused_before_anything_is_read(tagger, checkpoint, parameters, error, message):
    with pytest.raises(error, match=message):
        tagger("missing.wav", **parameters)
    with pytest.raises(error, match=message):
        pipeline("audio-tagging", model=str(checkpoint), device="cpu", **parameters)("missing.wav")


# Several recordings


@pytest.mark.parametrize("return_events", [False, True])
def test_no_recordings_have_no_results(tagger, return_events):
    assert tagger([], return_events=return_events) == []
    for inputs in (iter([]), Dataset.from_dict({"audio": []})["audio"]):
        assert list(tagger(inputs, return_events=return_events)) == []


def test_a_list_gives_a_list(tagger, clip):
    results = tagger([clip, clip[:9000]])
    for labels, alone in zip(results, [tagger(clip), tagger(clip[:9000])]):
        assert scores_of(labels) == pytest.approx(scores_of(alone), abs=1e-5)


def test_anything_that_holds_recordings_gives_their_results(tagger, clip, tmp_path):
    paths = [str(tmp_path / name) for name in ("a.wav", "b.wav")]
    for path, length in zip(paths, (9000, 12000)):
        soundfile.write(path, clip[:length], RATE, subtype="FLOAT")
    expected = [tagger(path, top_k=1)[0]["score"] for path in paths]
    data_set = Dataset.from_dict({"audio": paths})
    several = [
        tuple(paths),
        dict.fromkeys(paths).keys(),
        iter(paths),
        map(str, paths),
        (path for path in paths),
        data_set["audio"],
        data_set.to_iterable_dataset()["audio"],
        KeyDataset(data_set, "audio"),
        torch.utils.data.DataLoader(paths, batch_size=None),
        PathStream(paths),
    ]
    for recordings in several:
        results = list(tagger(recordings, top_k=1))
        scores = [labels[0]["score"] for labels in results]
        assert scores == pytest.approx(expected, abs=1e-5), type(recordings)
    assert type(tagger(tuple(paths))) is list
    assert tagger([]) == []
    assert list(tagger(iter(()))) == []


def test_files_are_decoded_once_for_scores_and_spectrograms(tagger, clip, tmp_path, monkeypatch):
    paths = [str(tmp_path / name) for name in ("a.wav", "b.wav", "c.wav")]
    for path, length in zip(paths, (9000, 32000, 12000)):
        soundfile.write(path, clip[:length], RATE, subtype="FLOAT")
    expected = [read_spectrogram(path, tagger.feature_extractor).decibels for path in paths]
    decoded, readers = [], []

    def count(source, *arguments):
        decoded.append(source)
        return stream_audio(source, *arguments)

    def follow(path):
        readers.append(SpectrogramReader(tagger.feature_extractor))
        return readers[-1].follow(open_audio(path, RATE))

    monkeypatch.setattr(decoding, "stream_audio", count)
    for result, spectrogram in zip(tagger(map(follow, paths), batch_size=2, window_seconds=1.0), expected):
        assert len(result) == 5
        # As soon as there is a result, the recording has been read to its end.
        np.testing.assert_allclose(readers.pop(0).spectrogram().decibels, spectrogram, atol=1e-2)
    assert decoded == paths


class PathStream(torch.utils.data.IterableDataset):
    """A dataset with a length that cannot be indexed."""

    def __init__(self, paths):
        self.paths = paths

    def __len__(self):
        return len(self.paths)

    def __iter__(self):
        return iter(self.paths)


@pytest.mark.parametrize("batch_size", [None, 8])
def test_results_come_one_by_one(tagger, clip, batch_size):
    results = tagger((clip[:length] for length in (9000, 12000, 15000)), batch_size=batch_size, top_k=1)
    first = next(results)
    assert scores_of(first) == pytest.approx(scores_of(tagger(clip[:9000], top_k=1)), abs=1e-5)
    # None of those that were read ahead is lost.
    assert len(list(results)) == 2
    assert next(results, None) is None


def test_what_holds_no_recordings_is_an_error_that_says_so(tagger, clip):
    for numbers in ([0.1, 0.2], (1, 2), list(clip[:5])):
        with pytest.raises(ValueError, match=r"Got a list of numbers: pass np\.asarray"):
            tagger(numbers)
    with pytest.raises(ValueError, match="Expected a file or an array of numbers, got 3"):
        tagger(3)
    with pytest.raises(ValueError, match=r"A dict needs .* got \['audio'\]"):
        tagger({"audio": clip})


def test_recordings_of_a_list_share_batches(tagger, clip):
    batches = []

    def note(model, args, kwargs):
        batches.append(len(kwargs["input_values"]))

    tagger.model.register_forward_pre_hook(note, with_kwargs=True)
    recordings = [clip[:27000], np.tile(clip, 5), clip[:28000], clip]
    tagger(recordings, window_seconds=2.0, batch_size=8)
    # Six windows of the longest.
    assert batches == [8, 1]
    batches.clear()
    # These may wait for one another.
    list(tagger(iter(recordings).__next__() for _ in range(4)))
    assert len(batches) == 4


def test_a_data_set_has_as_many_results_as_recordings(tagger, clip):
    recordings = Dataset.from_list([{"audio": clip[:9000].tolist()}, {"audio": clip[:12000].tolist()}])
    results = tagger(KeyDataset(recordings.with_format("numpy"), "audio"), top_k=1)
    assert len(results) == 2
    assert [labels[0]["score"] for labels in results] == pytest.approx(
        [tagger(clip[:length], top_k=1)[0]["score"] for length in (9000, 12000)], abs=1e-5
    )


def test_after_the_error_of_one_recording_the_next_one_comes(tagger, clip, tmp_path):
    (tmp_path / "text.wav").write_text("not audio")
    recordings = (audio for audio in (clip, str(tmp_path / "text.wav"), {"array": clip}, clip))
    results = iter(tagger(recordings, batch_size=8, top_k=1))
    first = next(results)
    with pytest.raises(AudioError, match=r"text\.wav"):
        next(results)
    with pytest.raises(ValueError, match="needs its `sampling_rate`"):
        next(results)
    assert next(results) == first
    with pytest.raises(StopIteration):
        next(results)


def test_a_generator_gives_results_as_they_are_asked_for(tagger, clip):
    read = []

    def recordings():
        for length in (9000, 20000, 30000):
            read.append(length)
            yield {"array": clip[:length], "sampling_rate": RATE}

    results = iter(tagger(recordings(), top_k=1))
    assert next(results) == tagger(clip[:9000], top_k=1)
    assert len(read) < 3
    assert len(list(results)) == 2


def test_batches_change_nothing(tagger, checkpoint, clip):
    recordings = [np.tile(clip, 3), clip, clip[:1000]]
    expected = [scores_of(labels) for labels in tagger(recordings, window_seconds=1.0, batch_size=1)]
    batched = pipeline("audio-tagging", model=str(checkpoint), device="cpu", batch_size=4, num_workers=2)
    for labels, scores in zip(batched(recordings, window_seconds=1.0), expected):
        assert scores_of(labels) == pytest.approx(scores, abs=1e-5)


def test_parameters_of_the_pipeline_hold_until_a_call_says_otherwise(checkpoint, clip):
    tagger = pipeline("audio-tagging", model=str(checkpoint), device="cpu", top_k=1, return_events=True)
    assert len(tagger(clip)["labels"]) == 1
    assert len(tagger(clip, top_k=2, return_events=False)) == 2


@pytest.mark.parametrize(
    "option",
    [{"event_threshold": 0.0}, {"gap_seconds": 0.5}, {"event_window_seconds": 1.0}, {"event_hop_seconds": 1.0}],
)
def test_options_of_events_ask_for_events(tagger, checkpoint, clip, option):
    expected = tagger(clip, return_events=True, **option)
    assert tagger(clip, **option) == expected
    assert tagger([clip], **option) == [expected]
    with pytest.raises(
        UsageError, match=f"`{next(iter(option))}` is of events, which `return_events=False` leaves out"
    ):
        tagger(clip, return_events=False, **option)
    # An option that is not given asks for nothing.
    assert isinstance(tagger(clip, **dict.fromkeys(option)), list)
    # Those of the pipeline are kept for calls that want events.
    kept = pipeline("audio-tagging", model=str(checkpoint), device="cpu", return_events=False, **option)
    assert isinstance(kept(clip), list)
    assert kept(clip, return_events=True) == expected


@pytest.mark.parametrize(
    "option",
    [{"event_threshold": 0.0}, {"merge_ratio": 0.5}, {"event_window_seconds": 1.0}, {"event_hop_seconds": 1.0}],
)
def test_options_of_events_at_a_call_are_not_ignored(checkpoint, clip, option):
    kept = pipeline("audio-tagging", model=str(checkpoint), device="cpu", return_events=False, gap_seconds=0.5)
    for recordings in (clip, [clip, clip], iter([clip])):
        with pytest.raises(UsageError, match=rf"`{next(iter(option))}` is of events, .* `return_events=True`\."):
            kept(recordings, **option)
    for asked in (True, None):
        assert "events" in kept(clip, return_events=asked, **option)
    assert isinstance(kept(clip, **dict.fromkeys(option)), list)


def test_columns_have_windows_already(tagger, clip):
    columns = [tagger.inferences(False)[0].frames(clip, RATE)]
    assert tagger.find_tags(columns).events is None
    for option in ({"event_threshold": 0.0}, {"gap_seconds": 0.5}):
        assert tagger.find_tags(columns, **option).events is not None
        with pytest.raises(UsageError, match="leaves out"):
            tagger.find_tags(columns, False, **option)
    for name in ("event_window_seconds", "hop_seconds", "evnt_threshold", "sampling_rate"):
        with pytest.raises(TypeError, match=f"find_tags has no parameter {name}; it has top_k, threshold, event_thre"):
            tagger.find_tags(columns, **{name: 1.0})
    with pytest.raises(UsageError, match="`top_k` must be a whole number"):
        tagger.find_tags(columns, top_k=0)


def test_progress_is_shown(tagger, clip, capsys):
    tagger(clip)
    assert capsys.readouterr().err == ""
    tagger(clip, progress=True)
    assert "the waveform" in capsys.readouterr().err


# Events


def test_windows_of_events_overlap_by_a_quarter_unless_a_hop_is_given(scripted, tagger):
    for pipe in (scripted, tagger):
        labels, events = pipe.inferences(True, event_window_seconds=3.2)
        assert (events.window_columns, events.hop_columns) == (19, 5)
        assert labels.window_columns == 62
    # Those of a model of moments are the windows of the labels, if none are given.
    assert len(scripted.inferences(True, hop_seconds=5.0)) == 1


def test_events_of_a_frame_level_model_are_where_they_are(scripted):
    # From column 10 to 20, and from 40 to 41, of 62.
    audio = recording((1.6, 3.2), (6.4, 6.56), seconds=10)
    result = scripted(audio, return_events=True)
    sounds = [event for event in result["events"] if event["label"] == "sound"]
    # A frame is 25 ms long: the column before an event hears its first 15 ms.
    assert [(event["start"], event["end"]) for event in sounds] == [(1.6, 3.2), (6.4, 6.56)]
    assert all(0.5 < event["score"] <= 1 for event in sounds)
    silences = [(event["start"], event["end"]) for event in result["events"] if event["label"] == "silence"]
    assert silences == [(0.0, 1.6), (3.2, 6.4), (6.56, 9.92)]
    assert [event["start"] for event in result["events"]] == [0.0, 1.6, 3.2, 6.4, 6.56]


def test_events_do_not_depend_on_windows(scripted):
    audio = recording((1.6, 3.2), (6.4, 6.56), (9.6, 24.0), seconds=30)
    whole = scripted(audio, return_events=True, window_seconds=30)
    assert len(whole["events"]) == 7
    for settings in ({"window_seconds": 2.0}, {"window_seconds": 2.0, "hop_seconds": 0.5}):
        windowed = scripted(audio, return_events=True, **settings)
        spans = [[(e["label"], e["start"], e["end"]) for e in result["events"]] for result in (whole, windowed)]
        assert spans[0] == spans[1]


def test_event_settings_are_passed_on(scripted):
    audio = recording((1.6, 3.2), (3.52, 4.0), (6.4, 6.56), seconds=10)

    def sounds(**settings):
        events = scripted(audio, return_events=True, **settings)["events"]
        return [(event["start"], event["end"]) for event in events if event["label"] == "sound"]

    assert sounds(gap_seconds=0.32) == [(1.6, 4.0), (6.4, 6.56)]
    assert sounds(min_seconds=0.5) == [(1.6, 3.2)]
    assert sounds(median_seconds=0.48) == [(1.6, 3.2), (3.52, 4.0)]
    assert sounds(event_threshold=1.0) == []


def test_settings_in_the_configuration_are_those_of_events_unless_others_are_given(scripted):
    audio = recording((1.6, 3.2), (3.52, 4.0), (6.4, 6.56), seconds=10)
    config = scripted.model.config

    def sounds(**settings):
        events = scripted(audio, return_events=True, **settings)["events"]
        return [(event["start"], event["end"]) for event in events if event["label"] == "sound"]

    plain = sounds()
    config.event_settings = {"sound": {"threshold": 0.5, "gap_seconds": 0.32, "min_seconds": 0.5}}
    assert sounds() == [(1.6, 4.0)]
    assert sounds(min_seconds=0.0) == [(1.6, 4.0), (6.4, 6.56)]
    assert sounds(min_seconds=0.0, gap_seconds=0.0) == plain
    # Labels do not depend on them.
    config.event_settings = {"sound": {"threshold": 1.0}, "no such label": {"threshold": 0.1}}
    assert sounds() == []
    assert scores_of(scripted(audio))["sound"] > 0.9
    config.event_settings = {"sound": {"threshold": 2.0}}
    with pytest.raises(ValueError, match="`event_settings` of 'sound': The `threshold` must be a number from 0 to 1"):
        scripted(audio, return_events=True)


def test_a_frame_level_models_label_is_as_present_as_in_its_best_column(scripted):
    labels = scores_of(scripted(recording((1.6, 1.76), seconds=10)))
    assert labels["sound"] > 0.9
    assert labels["silence"] > 0.9
    # No mean is blamed for a label without an event, that a filter has taken.
    sound, silence = Label("sound", 0.95), Event("silence", 0.9, 0.0, 1.0)
    assert scripted.compare([sound], [silence]).endswith(
        "its highest score is in no moment that the settings of events let pass."
    )


def test_a_frame_level_model_of_one_label_at_a_time_has_mean_scores(scripted):
    scripted.model.config.problem_type = "single_label_classification"
    labels = scores_of(scripted(recording((0.0, 2.4), seconds=10)))
    assert sum(labels.values()) == pytest.approx(1)
    assert labels["sound"] == pytest.approx(15 / 62, abs=0.02)


def test_events_of_a_clip_level_model_come_from_its_windows(tagger, clip):
    audio = np.concatenate([clip, 1e-3 * clip, 1e-3 * clip, clip])
    windows = {"event_window_seconds": 1.0, "event_hop_seconds": 0.48}
    result = tagger(audio, return_events=True, **windows, event_threshold=0.0, top_k=None)
    # Everything is above 0, all the time.
    assert {event["label"] for event in result["events"]} == LABELS
    assert {(event["start"], event["end"]) for event in result["events"]} == {(0.0, 7.84)}
    windows = WindowedInference(tagger.model, tagger.feature_extractor, 1.0, 0.48).frames(audio, RATE).values
    best = {tagger.model.config.id2label[index]: score for index, score in enumerate(windows.max(axis=0))}
    assert scores_of(result["events"]) == pytest.approx(best)


def test_the_events_of_a_clip_level_model_have_short_windows_by_default(tagger, clip):
    audio = np.tile(clip, 3)
    expected = tagger(audio, return_events=True, event_window_seconds=2.0, event_hop_seconds=0.5, event_threshold=0.0)
    assert tagger(audio, return_events=True, event_threshold=0.0) == expected
    assert tagger(audio, return_events=True, event_window_seconds=2.0, event_threshold=0.0) == expected
    inferences = tagger.inferences(True, event_window_seconds=10.0, event_hop_seconds=10.0)
    assert len(inferences) == 1


@pytest.mark.parametrize("kind", ["clips", "frames"])
def test_windows_that_are_too_short_for_events_are_told(kind, tagger, scripted, caplog):
    model = tagger if kind == "clips" else scripted
    model.inferences(False, window_seconds=0.25)
    model.inferences(True, event_window_seconds=SHORTEST_EVENT_WINDOW, event_hop_seconds=0.16)
    assert not caplog.text
    # A message is told once in a process.
    short = 0.37 if kind == "clips" else 0.38
    model.inferences(True, event_window_seconds=short)
    assert (
        f"Windows of events are {short} s: below {SHORTEST_EVENT_WINDOW} s, events are found less well. Set"
        in caplog.text
    )
    assert "(--event-window) to that or more" in caplog.text


@pytest.mark.parametrize("kind", ["clips", "frames"])
@pytest.mark.parametrize("source", ["one", "list", "generator", "files"])
def test_labels_do_not_depend_on_the_settings_of_events(kind, source, tagger, scripted, clip, tmp_path):
    """As of a recording of barks, whose labels were others with short windows for the events."""
    audio = np.concatenate([clip, np.zeros(6 * RATE, dtype=np.float32), clip, clip])
    soundfile.write(tmp_path / "audio.wav", audio, RATE, subtype="FLOAT")
    model = tagger if kind == "clips" else scripted

    def labels(**settings):
        inputs = {"one": audio, "list": [audio, clip], "generator": iter([audio]), "files": [tmp_path / "audio.wav"]}
        results = model(inputs[source], top_k=None, **settings)
        first = results if source == "one" else next(iter(results))
        return first["labels"] if settings else first

    expected = labels()
    for window, hop in ((2.0, 0.5), (1.0, None), (0.2, 0.2), (30.0, 1.0), (None, 0.5)):
        settings = {"event_window_seconds": window, "event_hop_seconds": hop, "event_threshold": 0.1}
        assert scores_of(labels(return_events=True, **settings)) == pytest.approx(scores_of(expected), abs=1e-6)


def test_an_error_of_a_recording_is_its_own_also_where_events_have_other_windows(tagger, clip, tmp_path):
    (tmp_path / "bad.wav").write_bytes(b"no audio")
    recordings = [clip, tmp_path / "bad.wav", clip]
    results = tagger(iter(recordings), return_events=True, event_window_seconds=30.0, batch_size=2)
    first = next(results)
    with pytest.raises(ValueError, match=r"bad\.wav"):
        next(results)
    assert scores_of(next(results)["labels"]) == pytest.approx(scores_of(first["labels"]))

    def damaged():
        yield clip
        raise ValueError("damaged after a second")

    for window in (0.5, 30.0):
        streams = iter([AudioStream("a", iter([clip]), RATE), AudioStream("b", damaged(), RATE), clip])
        results = tagger(streams, return_events=True, event_window_seconds=window, batch_size=2)
        next(results)
        with pytest.raises(ValueError, match="damaged after a second"):
            next(results)
        assert scores_of(next(results)["labels"]) == pytest.approx(scores_of(first["labels"]))


# Models


def test_the_kind_of_model_that_was_saved_is_loaded(tiny_config, tmp_path):
    for model_class in (BeatsForAudioClassification, BeatsForAudioFrameClassification):
        directory = tmp_path / model_class.__name__
        model_class(tiny_config).save_pretrained(directory)
        BeatsFeatureExtractor().save_pretrained(directory)
        tagger = pipeline("audio-tagging", model=str(directory), device="cpu")
        assert type(tagger) is BeatsAudioTaggingPipeline
        assert type(tagger.model) is model_class


def test_a_model_without_labels_is_refused(tiny_config, tmp_path):
    BeatsModel(tiny_config).save_pretrained(tmp_path)
    BeatsFeatureExtractor().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="A BeatsModel knows no labels"):
        pipeline("audio-tagging", model=str(tmp_path), device="cpu")


def test_a_regression_is_refused(tiny_config):
    tiny_config.problem_type = "regression"
    model = BeatsForAudioClassification(tiny_config)
    with pytest.raises(ValueError, match="A regression has no labels"):
        pipeline("audio-tagging", model=model, feature_extractor=BeatsFeatureExtractor(), device="cpu")


@pytest.mark.parametrize(("change", "problem"), [("remove", "are missing"), ("resize", "have another shape")])
def test_a_model_with_random_weights_is_refused(tiny_config, tmp_path, change, problem):
    BeatsForAudioClassification(tiny_config).save_pretrained(tmp_path)
    BeatsFeatureExtractor().save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    for name in ("classifier.weight", "classifier.bias"):
        weights[name] = weights[name][:3]
        if change == "remove":
            del weights[name]
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    message = rf"2 weights of a BeatsForAudioClassification {problem} \(classifier.bias, classifier.weight\)"
    with pytest.raises(ValueError, match=message):
        BeatsModelForTask.from_pretrained(tmp_path)
    with pytest.raises(ValueError, match=message):
        pipeline("audio-tagging", model=str(tmp_path), device="cpu")


def test_a_missing_feature_extractor_is_an_error(tiny_config):
    with pytest.raises(ValueError, match="feature_extractor"):
        BeatsAudioTaggingPipeline(BeatsForAudioClassification(tiny_config), device="cpu")


def test_bfloat16_is_close(checkpoint, tagger, clip):
    half = pipeline("audio-tagging", model=str(checkpoint), device="cpu", dtype=torch.bfloat16)
    assert half.model.dtype == torch.bfloat16
    assert scores_of(half(clip, top_k=None)) == pytest.approx(scores_of(tagger(clip, top_k=None)), abs=0.02)


def test_a_saved_pipeline_loads_without_asking_for_trust(tagger, clip, tmp_path):
    tagger.save_pretrained(tmp_path)
    assert not list(tmp_path.glob("pipeline_*"))
    assert pipeline("audio-tagging", model=str(tmp_path), device="cpu")(clip) == tagger(clip)


def test_a_corrupt_file_names_itself(tagger, tmp_path):
    (tmp_path / "corrupt.flac").write_bytes(b"fLaC and nothing else")
    with pytest.raises(AudioError, match=r"corrupt\.flac"):
        tagger(str(tmp_path / "corrupt.flac"))


@pytest.mark.parametrize(
    "imports",
    [
        "import transformers_beats; from transformers import pipeline",
        "from transformers import pipeline; import transformers_beats",
    ],
)
def test_the_task_is_known_whatever_is_imported_first(imports, checkpoint, fresh_python):
    code = f"""
import sys
{imports}
import numpy as np
tagger = pipeline("audio-tagging", model=sys.argv[1], device="cpu")
print(type(tagger).__name__, len(tagger(np.zeros(16000, dtype=np.float32), top_k=3)))
"""
    result = fresh_python(code, checkpoint)
    assert result.returncode == 0, result.stderr
    assert result.stdout.split() == ["BeatsAudioTaggingPipeline", "3"]
    assert "already registered" not in result.stderr


# Silence, pairs, and labels that the events do not bear out


def test_there_is_no_event_in_digital_silence(tagger, clip):
    silence = np.zeros(4 * RATE, dtype=np.float32)
    windows = {"event_window_seconds": 1.0, "event_hop_seconds": 0.48}
    settings = {"return_events": True, **windows, "event_threshold": 0.0}
    assert tagger(silence, **settings)["events"] == []
    events = tagger(np.concatenate([clip, silence, clip]), **settings)["events"]
    # A column that holds any sound is not silent.
    assert {(event["start"], event["end"]) for event in events} == {(0.0, 2.08), (5.92, 7.84)}
    joined = tagger(np.concatenate([clip, silence, clip]), **settings, median_seconds=1.0, gap_seconds=4)["events"]
    assert {(event["start"], event["end"]) for event in joined} == {(0.0, 7.84)}


def test_a_pair_of_waveform_and_rate_is_one_recording(tagger, clip):
    expected = scores_of(tagger(clip))
    for pair in ((clip, RATE), (RATE, clip)):
        assert scores_of(tagger(pair)) == pytest.approx(expected)
        assert [scores_of(labels) for labels in tagger([pair, pair])] == [pytest.approx(expected)] * 2


def test_a_best_label_without_an_event_is_said(tagger):
    labels = [{"label": "clock", "score": 0.5}, {"label": "dog", "score": 0.4}]
    dog, clock = Event("dog", 0.9, 0.0, 1.0), Event("clock", 0.9, 1.0, 2.0)
    assert tagger.compare(labels, [dog]).startswith("the best label, 'clock', has no event, but 'dog' has: ")
    for events in ([], [clock], [dog, clock]):
        assert tagger.compare(labels, events) is None
    assert tagger.compare([], [dog]) is None


def test_labels_and_events_are_compared_as_the_pipeline_and_as_find_tags_give_them(tagger):
    labels, events = [Label("clock", 0.5), Label("dog", 0.4)], [Event("dog", 0.9, 0.0, 1.0)]
    as_dicts = [[entry._asdict() for entry in entries] for entries in (labels, events)]
    assert tagger.compare(labels, events) == tagger.compare(*as_dicts) is not None
