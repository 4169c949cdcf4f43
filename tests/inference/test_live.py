# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Events of a stream: each is told when it begins and when it ends, and all are those of the whole recording."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
import types
from itertools import pairwise

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st
from invoke import run
from loud import RATE, recording
from test_steps import LABELS as STEP_LABELS
from test_steps import LoudSteps

from transformers_beats import BeatsFeatureExtractor
from transformers_beats.audio.decoding import AudioStream, stream_audio, stream_blocks
from transformers_beats.audio.files import RAW_FORMATS
from transformers_beats.audio.live import stream_microphone, stream_raw
from transformers_beats.audio.recordings import AudioError
from transformers_beats.inference import live
from transformers_beats.inference.events import EventSettings, find_events
from transformers_beats.inference.live import Begin, Dropped, End, EventCollector, EventFinder, Feed, Listener
from transformers_beats.inference.results import Columns
from transformers_beats.inference.windowed import WindowedInference
from transformers_beats.utils.errors import BeatsError, UsageError


LABELS = {0: "bark", 1: "bell", 2: "rain"}
SECONDS = 0.16


def in_blocks(columns: Columns, cuts: list[int]) -> list[Columns]:
    """Cuts columns at some places."""
    places = [0, *sorted({cut % (len(columns.values) + 1) for cut in cuts}), len(columns.values)]
    silent = columns.silent
    return [
        Columns(columns.values[start:end], start, SECONDS, None if silent is None else silent[start:end])
        for start, end in pairwise(places)
        if end > start
    ]


def follow(columns: Columns, chosen: EventSettings, cuts: list[int], of_labels=None) -> list:
    finder = EventFinder(LABELS, chosen, SECONDS, of_labels=of_labels)
    told = [item for block in in_blocks(columns, cuts) for item in finder.add(block)]
    return [*told, *finder.finish()]


def check_told(told: list, expected: list) -> None:
    """Each event is told once when it begins and, later, once when it ends."""
    ends = [item.event for item in told if isinstance(item, End)]
    assert sorted(ends, key=lambda event: (event.start, event.end, event.label)) == expected
    begun = [item for item in told if isinstance(item, Begin)]
    assert [item.id for item in begun] == list(range(len(expected)))
    for item in begun:
        (end,) = [other for other in told if isinstance(other, End) and other.id == item.id]
        assert told.index(item) < told.index(end)
        assert (item.label, item.start) == (end.event.label, end.event.start)


scores = st.sampled_from([0.0, 0.2, 0.3, 0.5, 0.7, 1.0])


@settings(max_examples=300)
@given(
    st.lists(st.tuples(scores, scores, scores), min_size=1, max_size=40),
    st.lists(st.booleans(), min_size=40, max_size=40),
    st.sampled_from([(0.5, None), (0.5, 0.3), (0.7, 0.2), (0.0, 0.0)]),
    st.sampled_from([0.0, 0.16, 0.5, 0.8, 20.0]),
    st.sampled_from([0.0, 0.16, 0.4]),
    st.sampled_from([0.0, 0.16, 0.32, 0.7]),
    st.lists(st.integers(0, 40), max_size=6),
)
def test_a_stream_has_the_events_of_the_whole(values, silent, thresholds, median, gap, shortest, cuts):
    columns = Columns(np.array(values, np.float32), 0, SECONDS, np.array(silent[: len(values)]))
    chosen = EventSettings(*thresholds, median, gap, shortest)
    check_told(follow(columns, chosen, cuts), find_events(columns, LABELS, chosen))


one_of_many = st.builds(
    EventSettings,
    threshold=st.sampled_from([0.3, 0.5, 0.7]),
    low_threshold=st.sampled_from([None, 0.2]),
    median_seconds=st.sampled_from([0.0, 0.5, 0.8]),
    gap_seconds=st.sampled_from([0.0, 0.16, 0.4]),
    min_seconds=st.sampled_from([0.0, 0.32]),
    temperature=st.sampled_from([0.5, 1.0, 3.0]),
)


@settings(max_examples=200)
@given(
    st.lists(st.tuples(scores, scores, scores), min_size=1, max_size=40),
    st.lists(st.booleans(), min_size=40, max_size=40),
    one_of_many,
    st.dictionaries(st.sampled_from(list(LABELS.values())), one_of_many),
    st.lists(st.integers(0, 40), max_size=6),
)
def test_labels_with_settings_of_their_own_have_the_events_of_the_whole(values, silent, chosen, of_labels, cuts):
    columns = Columns(np.array(values, np.float32), 0, SECONDS, np.array(silent[: len(values)]))
    expected = find_events(columns, LABELS, chosen, of_labels)
    check_told(follow(columns, chosen, cuts, of_labels), expected)


@settings(max_examples=100)
@given(
    st.lists(st.tuples(scores, scores, scores), min_size=1, max_size=40),
    one_of_many,
    st.lists(st.integers(0, 40), max_size=6),
    st.integers(0, 500),
)
def test_events_are_collected_from_a_long_recording_as_from_a_short_one(values, chosen, cuts, most_held):
    columns = Columns(np.array(values, np.float32), 0, SECONDS)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(live, "MOST_HELD", most_held)
        collector, held = EventCollector(LABELS, chosen), 0
        for block in in_blocks(columns, cuts):
            collector.add(block)
            held = max(held, sum(each.values.nbytes for each in collector.blocks))
        assert held <= most_held
        assert collector.finish() == find_events(columns, LABELS, chosen)


def test_boxes_are_collected_from_all_columns(monkeypatch):
    monkeypatch.setattr(live, "MOST_HELD", 0)
    columns = Columns(np.random.default_rng(0).random((50, 3), np.float32), 0, SECONDS)
    of_labels = {"bell": EventSettings(box_seconds=0.5)}
    collector = EventCollector(LABELS, EventSettings(), of_labels)
    for block in in_blocks(columns, [7, 20]):
        collector.add(block)
    found = collector.finish()
    assert found == find_events(columns, LABELS, EventSettings(), of_labels)
    assert "bell" in {event.label for event in found}


def test_boxes_are_refused_in_a_stream():
    with pytest.raises(UsageError, match="`box_seconds` of 'bell' needs the whole recording"):
        EventFinder(LABELS, EventSettings(), SECONDS, of_labels={"bell": EventSettings(box_seconds=0.5)})


def test_an_event_is_told_with_its_first_column_and_after_its_last():
    finder = EventFinder(LABELS, EventSettings(0.5), SECONDS, offset=100.0, first_id=7)
    told = [
        [type(item).__name__ for item in finder.add(Columns(np.array([[score, 0, 0]], np.float32), column, SECONDS))]
        for column, score in enumerate([0.1, 0.6, 0.9, 0.1, 0.1])
    ]
    assert told == [[], ["Begin"], [], ["End"], []]
    assert finder.next_id == 8


def test_memory_of_a_finder_does_not_grow():
    finder = EventFinder(LABELS, EventSettings(0.5, median_seconds=0.8), SECONDS)
    for column in range(200):
        list(finder.add(Columns(np.full((3, 3), float(column % 7 > 3), np.float32), 3 * column, SECONDS)))
        assert len(finder.raw) <= 5 + 3


@pytest.fixture
def waveform():
    return recording((0.9, 1.6), (2.5, 3.0), (3.3, 5.9), seconds=7.3)


@pytest.fixture
def inference(tiny_config):
    config = type(tiny_config)(**tiny_config.to_dict() | {"frame_pooling": "sequence"} | STEP_LABELS)
    return WindowedInference(LoudSteps(config), BeatsFeatureExtractor(), 2.0, 0.5, batch_size=1)


def cut(waveform: np.ndarray, generator: np.random.Generator) -> list[np.ndarray]:
    """Cuts a waveform into chunks of random sizes."""
    return np.split(waveform, np.sort(generator.integers(0, len(waveform), 60)))


@pytest.mark.parametrize("seed", range(3))
def test_chunks_of_any_sizes_give_the_events_of_the_recording(inference, waveform, seed):
    chosen = EventSettings(0.5, gap_seconds=0.2, min_seconds=0.1)
    listener = Listener(inference, chosen)
    feed = Feed(AudioStream("chunks", cut(waveform, np.random.default_rng(seed)), RATE), buffer_seconds=0.5)
    told = list(listener.listen(feed))
    expected = find_events(inference.frames(waveform, RATE), inference.plain_model.config.id2label, chosen)
    assert len(expected) >= 3
    check_told(told, expected)
    assert listener.audio_seconds == pytest.approx(len(waveform) / RATE)
    assert listener.real_time_factor > 0
    assert feed.num_dropped == 0


def test_an_event_is_known_within_the_stated_latency(inference, waveform):
    """Counted with chunks of 10 ms: what had been read when a beginning was told, against when the event began."""
    for chosen in (EventSettings(0.5), EventSettings(0.5, median_seconds=0.2), EventSettings(0.5, min_seconds=0.3)):
        listener, num_read = Listener(inference, chosen), 0

        def chunks():
            nonlocal num_read
            for start in range(0, len(waveform), 160):
                num_read += 160
                yield waveform[start : start + 160]

        # Not through the thread of a feed, which reads ahead.
        finder = EventFinder(listener.id2label, chosen, inference.frame_seconds)
        delays = [
            num_read / RATE - item.start
            for columns in inference.stream_frames(AudioStream("chunks", chunks(), RATE))
            for item in finder.add(columns)
            if isinstance(item, Begin)
        ]
        assert len(delays) >= 2
        assert 0.5 * listener.latency < max(delays) <= listener.latency + 0.01


def test_what_is_dropped_is_told_and_counted(inference):
    """The buffer is full before the model looks at it: what comes then is dropped, and times stay right."""
    second = recording((0.2, 0.8), seconds=1.0)
    all_read = threading.Event()

    def blocks():
        for _ in range(8):
            yield second
        all_read.set()
        # Once the model has caught up.
        while feed._waiting > 0:
            time.sleep(0.01)
        for _ in range(3):
            yield second

    feed = Feed(AudioStream("fast", blocks(), RATE), buffer_seconds=4.0, drops=True)
    listener = Listener(inference, EventSettings(0.5))
    feed.start()
    assert all_read.wait(60)
    told = list(listener.listen(feed))
    assert feed.num_dropped == 4 * RATE
    assert [item for item in told if isinstance(item, Dropped)] == [Dropped(4.0, 8.0)]
    assert listener.audio_seconds == pytest.approx(7.0)
    ends = [item.event for item in told if isinstance(item, End)]
    starts = sorted({int(event.start) for event in ends})
    assert starts == [0, 1, 2, 3, 8, 9, 10]
    # Numbers are given once.
    ids = [item.id for item in told if isinstance(item, Begin)]
    assert ids == list(range(len(ends)))


def test_an_error_of_the_stream_comes_after_what_was_heard(inference, waveform):
    def blocks():
        yield waveform
        raise AudioError("the cable: is gone.")

    chosen = EventSettings(0.5)
    listener, told = Listener(inference, chosen), []
    with pytest.raises(AudioError, match="the cable: is gone"):
        told.extend(listener.listen(Feed(AudioStream("cable", blocks(), RATE))))
    # Also what no window was complete for; and no event that began is left without its end.
    expected = find_events(inference.frames(waveform, RATE), inference.plain_model.config.id2label, chosen)
    check_told(told, expected)
    assert listener.audio_seconds == pytest.approx(len(waveform) / RATE)
    assert listener.real_time_factor > 0


def test_a_stream_that_is_damaged_within_an_event_ends_it(inference):
    def blocks():
        yield recording((0.5, 2.0), seconds=2.0)
        raise OSError("the disk: is gone.")

    listener, told = Listener(inference, EventSettings(0.5)), []
    with pytest.raises(OSError, match="the disk: is gone"):
        told.extend(listener.listen(Feed(AudioStream("disk", blocks(), RATE))))
    ends = [item.event for item in told if isinstance(item, End)]
    assert len(ends) == sum(isinstance(item, Begin) for item in told) > 0
    assert max(event.end for event in ends) == pytest.approx(2.0, abs=0.2)


def test_an_error_of_the_model_is_counted_and_raised(inference, waveform, monkeypatch):
    def fail(*arguments):
        raise RuntimeError("no such kernel")

    listener = Listener(inference, EventSettings(0.5))
    monkeypatch.setattr(inference, "_compute", fail)
    with pytest.raises(RuntimeError, match="no such kernel"):
        list(listener.listen(Feed(AudioStream("a", [waveform], RATE))))
    assert listener.audio_seconds == pytest.approx(len(waveform) / RATE)


def test_the_time_of_several_streams_is_that_of_their_audio(inference, waveform, monkeypatch):
    """By a clock that counts how often it is read, so that each stream takes the same time."""
    listener, factors = Listener(inference, EventSettings(0.5)), []
    now = iter(range(10**9))
    monkeypatch.setattr(live, "time", types.SimpleNamespace(monotonic=lambda: next(now)))
    for _ in range(3):
        feed = Feed(AudioStream("a", [waveform], RATE))
        # Of a feed that waited before.
        feed.idle_seconds = 1000.0
        list(listener.listen(feed))
        factors.append(listener.real_time_factor)
    assert listener.audio_seconds == pytest.approx(3 * len(waveform) / RATE)
    assert factors[0] > 0
    assert factors == pytest.approx([factors[0]] * 3)


def test_a_stream_that_is_left_is_closed(inference, waveform):
    """The thread waits for the model when the listener is left, or when an error ends it."""
    closed = threading.Event()

    def blocks():
        try:
            while True:
                yield waveform
        finally:
            closed.set()

    def leave(feed):
        for _ in Listener(inference, EventSettings(0.5)).listen(feed):
            break

    def fail(feed):
        listened = Listener(inference, EventSettings(0.5)).listen(feed)
        next(listened)
        with pytest.raises(KeyError):
            listened.throw(KeyError("of the caller"))

    for way in (leave, fail):
        # Somebody has the stream still.
        stream = AudioStream("endless", blocks(), RATE)
        feed = Feed(stream, buffer_seconds=8.0)
        closed.clear()
        way(feed)
        feed._thread.join(60)
        assert not feed._thread.is_alive()
        assert closed.is_set()


def test_wrong_arguments_are_named(inference):
    with pytest.raises(UsageError, match="`buffer_seconds` must be positive, got 0"):
        Feed(AudioStream("x", [], RATE), 0)
    inference.batch_size = 8
    with pytest.raises(UsageError, match="`batch_size` must be 1"):
        Listener(inference, EventSettings())


# Sources


@pytest.mark.parametrize("format", RAW_FORMATS)
@pytest.mark.parametrize("channels", [1, 2])
def test_raw_samples_are_those_of_the_file(format, channels):
    samples = np.random.default_rng(0).uniform(-0.9, 0.9, (5000, channels)).astype(np.float32)
    dtype, scale = RAW_FORMATS[format]
    data = (samples * scale + (scale if format == "u8" else 0)).astype(dtype).tobytes()
    # A sample that is cut off.
    data += b"\1" * (np.dtype(dtype).itemsize * channels > 1)
    reader, writer = os.pipe()
    thread = threading.Thread(target=lambda: (os.write(writer, data), os.close(writer)))
    thread.start()
    stream = stream_raw(reader, 16000, format, channels, 16000)
    found = np.concatenate(list(stream.blocks))
    thread.join()
    os.close(reader)
    np.testing.assert_allclose(found, samples.mean(axis=1), atol=1.1 / min(scale, 2**15) if scale > 1 else 1e-6)


@pytest.mark.skipif(not os.path.exists("/dev/fd"), reason="a pipe has no path")
@pytest.mark.parametrize("size", [None, 0xFFFFFFFF, 0x7FFFF000, 6400])
def test_the_length_in_a_header_from_a_pipe_may_be_a_placeholder(size, tmp_path):
    soundfile.write(tmp_path / "a.wav", 0.1 * np.ones((1600, 1)) * [[1, 1]], RATE)
    data = bytearray((tmp_path / "a.wav").read_bytes())
    if size is not None:
        data[40:44] = size.to_bytes(4, "little")
    reader, writer = os.pipe()
    thread = threading.Thread(target=lambda: (os.write(writer, data), os.close(writer)))
    thread.start()
    stream = stream_audio(f"/dev/fd/{reader}", RATE)
    assert sum(map(len, stream.blocks)) == 1600
    assert not any("cut off" in warning for warning in stream.report.warnings)
    thread.join()
    os.close(reader)


@pytest.mark.skipif(not os.path.exists("/dev/fd"), reason="a pipe has no path")
def test_a_pipe_without_audio_is_no_missing_file():
    reader, writer = os.pipe()
    thread = threading.Thread(target=lambda: (os.write(writer, bytes(range(256)) * 200), os.close(writer)))
    thread.start()
    with pytest.raises(AudioError, match=r"is a pipe or a device.*has to be told the rate"):
        stream_audio(f"/dev/fd/{reader}", RATE)
    os.close(reader)
    thread.join()


def test_raw_samples_are_resampled_as_files_are(tmp_path):
    samples = 0.1 * np.random.default_rng(0).standard_normal(44100).astype(np.float32)
    soundfile.write(tmp_path / "a.wav", samples, 44100, subtype="FLOAT")
    expected = np.concatenate(list(stream_audio(tmp_path / "a.wav").blocks))
    blocks = iter(np.array_split(samples[:, None], 17))
    np.testing.assert_allclose(np.concatenate(list(stream_blocks("x", blocks, 44100).blocks)), expected, atol=1e-6)


def test_wrong_raw_formats_are_named():
    with pytest.raises(UsageError, match="must be one of s16le, s32le, f32le, u8, got 's24le'"):
        stream_raw(0, 16000, "s24le", 1, 16000)
    for rate, channels in ((0, 1), (float("nan"), 1), (16000, 0)):
        with pytest.raises(UsageError, match="needs its rate"):
            stream_raw(0, rate, "s16le", channels, 16000)


class FakeMicrophone:
    """A device of sounddevice."""

    def __init__(self, **options):
        self.options, self.begin = options, 0

    def __enter__(self):
        return self

    def __exit__(self, *error):
        pass

    def read(self, count):
        self.begin += count
        return np.full((count, 1), 0.01, np.float32), False


def test_audio_that_a_microphone_loses_is_said(monkeypatch, caplog):
    devices = types.ModuleType("sounddevice")
    devices.InputStream, devices.PortAudioError = FakeMicrophone, RuntimeError
    devices.query_devices = lambda device, kind: {"default_samplerate": 16000.0}
    monkeypatch.setitem(sys.modules, "sounddevice", devices)
    blocks = iter(stream_microphone(16000).blocks)
    next(blocks)
    assert "lost" not in caplog.text
    monkeypatch.setattr(FakeMicrophone, "read", lambda self, count: (np.full((count, 1), 0.01, np.float32), True))
    next(blocks)
    assert "The microphone lost audio" in caplog.text


def test_empty_blocks_are_no_audio():
    block = np.full((800, 1), 0.1, np.float32)
    empty = np.zeros((0, 1), np.float32)
    found = stream_blocks("x", iter([empty, block, empty, block]), 16000).blocks
    assert sum(map(len, found)) == 1600


def test_a_microphone_is_read_in_short_blocks(monkeypatch):
    devices = types.ModuleType("sounddevice")
    devices.InputStream, devices.PortAudioError = FakeMicrophone, RuntimeError
    devices.query_devices = lambda device, kind: {"default_samplerate": 48000.0}
    monkeypatch.setitem(sys.modules, "sounddevice", devices)
    stream = stream_microphone(16000, "3")
    blocks = iter(stream.blocks)
    lengths = [len(next(blocks)) for _ in range(5)]
    assert max(lengths) <= 3200
    devices.query_devices = lambda device, kind: (_ for _ in ()).throw(ValueError("No input device matching 'x'"))
    with pytest.raises(BeatsError, match="The microphone cannot be opened: No input device"):
        stream_microphone(16000, "x")
    monkeypatch.setitem(sys.modules, "sounddevice", None)
    with pytest.raises(BeatsError, match=r"pip install 'transformers-beats\[live\]'"):
        stream_microphone(16000)


# The command


OPTIONS = ["--event-threshold", 0.18, "--gap", 0.2, "--min-duration", 0.1]


@pytest.fixture
def file(tmp_path, waveform):
    soundfile.write(tmp_path / "a b.wav", waveform, RATE)
    return tmp_path / "a b.wav"


def test_the_command_tells_the_events_of_tag(models, file):
    model = ["-m", models / "beats_tiny_finetuned", "--device", "cpu"]
    result = run("listen", file, *model, *OPTIONS)
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    names = ("label", "score", "start", "end")
    ends = [{name: line[name] for name in names} for line in lines if line["type"] == "end"]
    (record,) = map(json.loads, run("tag", file, *model, "--json", "--events", *OPTIONS).stdout.splitlines())
    assert len(record["events"]) > 3
    ends.sort(key=lambda event: (event["start"], event["end"], event["label"]))
    scores = [event.pop("score") for event in ends]
    assert scores == pytest.approx([event.pop("score") for event in record["events"]], abs=1e-5)
    assert ends == record["events"]
    assert {line["type"] for line in lines} == {"begin", "end"}
    assert "An event is known at most 2." in result.stderr
    assert "0.0 s were dropped." in result.stderr


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no named pipes")
def test_the_command_reads_a_named_pipe(models, file, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    thread = threading.Thread(target=lambda: (tmp_path / "pipe").write_bytes(file.read_bytes()), daemon=True)
    thread.start()
    model = ["-m", models / "beats_tiny_finetuned", "--device", "cpu"]
    assert run("listen", tmp_path / "pipe", *model, *OPTIONS).stdout == run("listen", file, *model, *OPTIONS).stdout
    thread.join(10)


@pytest.mark.slow
@pytest.mark.skipif(not os.path.exists("/dev/stdin"), reason="standard input has no path")
@pytest.mark.parametrize("kind", ["raw", "wav"])
def test_the_command_reads_a_pipe_until_it_ends_or_ctrl_c(models, file, waveform, kind):
    words = [sys.executable, "-m", "transformers_beats", "listen", "-m", models / "beats_tiny_finetuned"]
    words += ["-", "--device", "cpu", *OPTIONS, *(["--rate", RATE, "--format", "f32le"] if kind == "raw" else [])]
    process = subprocess.Popen(
        list(map(str, words)), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    data = waveform.astype("<f4").tobytes() if kind == "raw" else file.read_bytes()
    process.stdin.write(data)
    process.stdin.flush()
    # The pipe stays open, as that of a recorder: events are told meanwhile.
    line = b""
    # No more than that: `communicate` does not know of what is read ahead.
    while not line.endswith(b"\n"):
        byte = os.read(process.stdout.fileno(), 1)
        assert byte, "the command ended"
        line += byte
    first = json.loads(line)
    assert first["type"] == "begin"
    if kind == "raw":
        process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=100)
    assert process.returncode == 0, stderr
    lines = [first, *map(json.loads, stdout.splitlines())]
    assert [line["id"] for line in lines if line["type"] == "begin"] == list(range(len(lines) // 2))
    assert sorted(line["id"] for line in lines if line["type"] == "end") == list(range(len(lines) // 2))
    assert "s of computing for a second" in stderr.decode()


def test_wrong_uses_of_the_command_are_named(models, file, tmp_path):
    model = ["-m", models / "beats_tiny_finetuned"]
    assert "no such file" in run("listen", tmp_path / "x.wav", *model, exit_code=2).stderr
    assert "is a directory" in run("listen", tmp_path, *model, exit_code=2).stderr
    assert "--rate is of raw samples" in run("listen", file, "--rate", 16000, *model, exit_code=2).stderr
    for option in (["--format", "s16le"], ["--channels", 2]):
        assert f"{option[0]} is of raw samples" in run("listen", "-", *option, *model, exit_code=2).stderr
    assert "choose one of them" in run("listen", file, "--microphone", 1, *model, exit_code=2).stderr
    for seconds in (0, -1, "inf", "nan"):
        result = run("listen", file, "--buffer", seconds, "-m", tmp_path / "no model", exit_code=2)
        # Before the model is looked for.
        assert re.search(r"--buffer must be (positive|finite), got", result.stderr)
    assert "knows no labels" in run("listen", file, "-m", models / "beats_tiny", exit_code=2).stderr
    file.write_bytes(b"RIFF and nothing else")
    assert "no audio" in run("listen", file, *model, exit_code=1).stderr
