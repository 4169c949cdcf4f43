# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Events in the files that the field writes. The formats are those of their specifications, written out by hand."""

import json
import math

import pytest

from transformers_beats.audio.audioset import AUDIOSET_STRONG_LABELS
from transformers_beats.inference.events import Event
from transformers_beats.training.data.labels import LabelArguments
from transformers_beats.training.data.strong_labels import read_event_files, read_rows
from transformers_beats.utils.errors import BeatsError, UsageError


NAMES = ["train/a.wav", "train/b b.flac", "train/c.wav"]
SECONDS = [10.0, 4.0, 10.0]
DESED = "filename\tonset\toffset\tevent_label\na.wav\t0.5\t1.25\tDog\na.wav\t1\t2\tSpeech\nb b.flac\t\t\t\n"
RAVEN = (
    "Selection\tView\tChannel\tBegin Time (s)\tEnd Time (s)\tLow Freq (Hz)\tHigh Freq (Hz)\tSpecies\n"
    "1\tWaveform 1\t1\t0.5\t1.25\t0\t8000\tDog\n"
    "1\tSpectrogram 1\t1\t0.5\t1.25\t0\t8000\tDog\n"
    "1\tSpectrogram 1\t2\t0.5\t1.25\t0\t8000\tDog\n"
    "2\tSpectrogram 1\t1\t1.0\t2.0\t0\t8000\tSpeech\n"
)


def read(path, names=NAMES, seconds=SECONDS, known=None, **arguments):
    sources = [str(each) for each in path] if isinstance(path, list) else str(path)
    return read_event_files(LabelArguments(event_files=sources, **arguments), names, seconds, known)


def write(folder, name, text, encoding="utf-8"):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode(encoding))
    return path


def events_of(labels, clip):
    return [(labels.names[label], onset, offset) for label, onset, offset in labels.values[clip]]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("train.tsv", DESED),
        ("train.csv", DESED.replace("\t", ",")),
        ("windows.tsv", DESED.replace("\n", "\r\n")),
        ("commas.tsv", DESED.replace("0.5", "0,5").replace("1.25", "1,25")),
        ("paths.tsv", DESED.replace("a.wav", "audio/train/a.wav").replace("b b", "/data/train/b b")),
        ("stems.tsv", DESED.replace(".wav", "").replace(".flac", "")),
        ("nan.tsv", DESED.replace("\t\t\t\n", "\tNaN\tNaN\tNaN\n")),
        ("train.jsonl", "\n".join(map(json.dumps, [
            {"file_name": "a.wav", "onset": 0.5, "offset": 1.25, "label": "Dog"},
            {"file_name": "a.wav", "onset": 1, "offset": 2, "label": "Speech"},
            {"file_name": "b b.flac"},
        ]))),
        ("tagged.jsonl", "\n".join(map(json.dumps, [
            {"file": "train/a.wav", "status": "ok", "events": [
                Event("Dog", 0.9, 0.5, 1.25)._asdict(), Event("Speech", 0.8, 1.0, 2.0)._asdict()
            ]},
            {"file": "train/b b.flac", "status": "ok", "events": []},
            {"file": "train/c.wav", "status": "failed", "events": []},
        ]))),
    ],
)  # fmt: skip
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_events_are_read_from_tables(name, text, encoding, tmp_path):
    labels = read(write(tmp_path, name, text, encoding))
    assert (labels.task, labels.names) == ("frames", ["Dog", "Speech"])
    assert events_of(labels, 0) == [("Dog", 0.5, 1.25), ("Speech", 1.0, 2.0)]
    # No event, which is something that is known, unlike nothing.
    assert (labels.values[1:], labels.knowledge) == ([[], []], ["events", "events", "nothing"])


@pytest.mark.parametrize("nested", [False, True])
def test_tracks_beside_recordings_are_read(nested, tmp_path):
    folder = tmp_path / "train" if nested else tmp_path
    write(folder, "a.txt", "0,500000\t1,250000\tDog\n\\\t100.0\t900.0\n1.000000\t2.000000\tSpeech\n")
    write(folder, "b b.Table.1.selections.txt", RAVEN)
    write(folder, "c.wav.txt", "")
    labels = read(tmp_path)
    dog_and_speech = [("Dog", 0.5, 1.25), ("Speech", 1.0, 2.0)]
    assert events_of(labels, 0) == events_of(labels, 1) == dog_and_speech
    assert (labels.values[2], labels.knowledge) == ([], ["events"] * 3)


def test_other_files_in_a_folder_are_named(tmp_path, caplog):
    write(tmp_path, "a.txt", "0\t1\tDog\n")
    write(tmp_path, "README.txt", "not a track")
    assert read(tmp_path).knowledge == ["events", "nothing", "nothing"]
    assert "1 files are named after no recording: 'README.txt'" in caplog.text
    (tmp_path / "a.txt").unlink()
    with pytest.raises(BeatsError, match=r"no file of events that is named after a recording, only 'README.txt'"):
        read(tmp_path)


def test_a_selection_has_the_class_of_a_named_column(tmp_path):
    path = write(tmp_path, "a.selections.txt", RAVEN.replace("Species", "My class"))
    with pytest.raises(
        BeatsError, match=r"no column 'annotations' of classes, only Selection, .*: set `label_column`"
    ):
        read(path)
    assert events_of(read(path, label_column="my class"), 0) == [("Dog", 0.5, 1.25), ("Speech", 1.0, 2.0)]


def test_selections_of_several_files_count_from_the_beginning_of_each(tmp_path):
    lines = [f"{line}\t{end}" for line, end in zip(RAVEN.splitlines(), [
        "Begin File\tFile Offset (s)", *["a.wav\t0.5"] * 3, "c.wav\t0.25"
    ])]  # fmt: skip
    labels = read(write(tmp_path, "all.selections.txt", "\n".join(lines)))
    assert events_of(labels, 0) == [("Dog", 0.5, 1.25)]
    assert events_of(labels, 2) == [("Speech", 0.25, 1.25)]


def test_segments_of_audioset_find_their_clips(tmp_path):
    names = ["YaB3_-dE5Fgh.wav", "bB3_-dE5Fgh_30.000.wav", "bB3_-dE5Fgh_60.000.wav"]
    dog = next(key for key, name in AUDIOSET_STRONG_LABELS.items() if name == "Dog")
    text = "segment_id\tstart_time_seconds\tend_time_seconds\tlabel\n"
    text += f"aB3_-dE5Fgh_30000\t0.000\t2.5\t{dog}\nbB3_-dE5Fgh_30000\t1.5\t10.0\t/m/09x0r\n"
    labels = read(write(tmp_path, "strong.tsv", text), names, [10.0, 9.9, 10.0], label_set="audioset_strong")
    assert labels.names == list(AUDIOSET_STRONG_LABELS.values())
    assert events_of(labels, 0) == [("Dog", 0.0, 2.5)]
    # The table has the length of the segment, which the file may not quite have.
    assert events_of(labels, 1) == [("Speech", 1.5, 9.9)]
    assert labels.knowledge == ["events", "events", "nothing"]


def test_classes_of_the_evaluation_of_audioset_are_left_out(tmp_path, caplog):
    text = "segment_id\tstart_time_seconds\tend_time_seconds\tlabel\na_30000\t0\t1\tNo such class\n"
    labels = read(write(tmp_path, "strong.tsv", text), ["a_30000.wav"], [10.0], label_set="audioset_strong")
    assert (labels.values, labels.knowledge) == ([[]], ["events"])
    assert "1 events of 1 other classes are left out: 'No such class'" in caplog.text


def test_weak_labels_stand_beside_strong_ones(tmp_path):
    strong = write(tmp_path, "strong.tsv", DESED)
    weak = write(tmp_path, "weak.tsv", "filename\tevent_labels\na.wav\tCat\nc.wav\tDog,Cat\n")
    for order in ([strong, weak], [weak, strong]):
        labels = read(order)
        assert labels.knowledge == ["events", "events", "classes"]
        assert events_of(labels, 0) == [("Dog", 0.5, 1.25), ("Speech", 1.0, 2.0)]
        assert events_of(labels, 2) == [("Dog", 0.0, math.inf), ("Cat", 0.0, math.inf)]
        assert labels.classes_of(2) == [0, 1]
        assert labels.select([2]).knowledge == ["classes"]


def test_rows_that_are_there_twice_count_once(tmp_path, caplog):
    labels = read(write(tmp_path, "twice.tsv", DESED + "a.wav\t0.5\t1.25\tDog\n"))
    assert len(labels.values[0]) == 2
    assert "1 rows of events appear twice" in caplog.text


def test_recordings_that_are_not_there_are_counted(tmp_path, caplog):
    path = write(tmp_path, "train.tsv", DESED + "lost.wav\t0\t1\tDog\n")
    assert len(read(path)) == 3
    assert f"1 rows are of recordings that are not there, such as {path}, line 5: lost.wav" in caplog.text
    with pytest.raises(BeatsError, match=r"none of the recordings is there, such as .*line 2: a\.wav"):
        read(path, ["x.wav"], [1.0])


HEADER = "filename\tonset\toffset\tevent_label\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a.wav\t2\t1\tDog", "line 2: 'Dog' from 2 to 1 s: the offset must be after the onset"),
        ("a.wav\t1\t1\tDog", "line 2: 'Dog' from 1 to 1 s: the offset must be after the onset"),
        ("a.wav\t-1\t1\tDog", "line 2: 'Dog' from -1 to 1 s: the onset is negative"),
        ("a.wav\tnan\t1\tDog", "line 2: the event has no onset"),
        ("a.wav\tinf\t1\tDog", "line 2: the onset 'inf' is no time in seconds"),
        ("a.wav\t1.000,5\t2\tDog", "line 2: the onset '1.000,5' is no time in seconds"),
        ("a.wav\t0:01\t2\tDog", "line 2: the onset '0:01' is no time in seconds"),
        ("a.wav\t0\t1\t", "line 2: the event has no label"),
        ("a.wav\t0\t\t", "line 2: the event has no label and no offset"),
        ("a.wav\t0\t1", "line 2: has 3 cells, but the header 4"),
        ("a.wav\t10\t11\tDog", "line 2: 'Dog' from 10 to 11 s is not within train/a.wav, which lasts 10 s"),
        ("a.wav\t9\t12\tDog", "line 2: 'Dog' from 9 to 12 s is not within train/a.wav, which lasts 10 s"),
        ("a.wav\t0\t1\tWolf", "line 2: 'Wolf' is not among the classes: there are 'Dog', 'Speech'"),
    ],
)
def test_a_bad_row_is_named(text, message, tmp_path):
    path = write(tmp_path, "train.tsv", HEADER + text + "\n")
    with pytest.raises(BeatsError) as caught:
        read(path, known=["Dog", "Speech"])
    assert str(caught.value).startswith(f"{path}, {message}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.txt", "1\t1\tDog\n", "line 1: 'Dog' is a point at 1 s"),
        ("a.txt", "0\t1\tDog\n2\t3\n", "line 2: has no label"),
        ("a.txt", "0\t1\tDog\nDog\t3\t4\n", "line 2: is no `onset, offset, label`"),
        ("a.txt", "Dog from 1 to 2\n", "no file of events that is known by its first line 'Dog from 1 to 2'"),
        ("a.tsv", "", "a.tsv: holds no event"),
        ("a.tsv", "filename\tonset\tevent_label\na\t1\tDog\n", "needs the columns filename, onset, offset and"),
        ("a.jsonl", '{"file": "a.wav", "events": [{"label": "Dog", "onset": 1}]}', "line 1: an event has no label"),
        ("a.jsonl", '{"file": "a.wav", "events": 3}', "line 1: `events` must be a list"),
        ("a.jsonl", '{"label": "Dog", "onset": 1, "offset": 2}', "has no column of recordings"),
        ("a.selections.txt", "Begin Time (s)\tLabel\n1\tDog\n", "has no column 'End Time \\(s\\)'"),
        ("a.tsv", "segment_id\tlabel\nb\tDog\n", "has no column 'start_time_seconds', 'end_time_seconds'"),
    ],
)
def test_a_bad_file_is_named(name, text, message, tmp_path):
    if message.endswith("holds no event"):
        # A recording that is known to have no events gives no class.
        message = "`event_files` has no label for any recording"
    with pytest.raises(BeatsError, match=message) as caught:
        read(write(tmp_path, name, text))
    assert "\n" not in str(caught.value)


def test_a_name_that_fits_several_recordings_is_refused(tmp_path):
    path = write(tmp_path, "train.tsv", DESED)
    with pytest.raises(
        BeatsError, match=r"line 2: 'a.wav' may be any of 'x/a.wav', 'y/a.wav': name its folder as well"
    ):
        read(path, ["x/a.wav", "y/a.wav"], [10.0, 10.0])
    named = write(tmp_path, "folders.tsv", DESED.replace("a.wav", "y/a.wav").replace("b b.flac", "x/a.wav"))
    assert len(read(named, ["x/a.wav", "y/a.wav"], [10.0, 10.0]).values[1]) == 2


def test_a_format_can_be_named(tmp_path):
    path = write(tmp_path, "a.txt", "start\tend\tfile\tlabel\n0\t1\ta\tDog\n")
    assert [row.label for row in read_rows(path)] == ["Dog"]
    with pytest.raises(BeatsError, match="line 1: is no `onset, offset, label`"):
        read_rows(path, "audacity")


@pytest.mark.parametrize(
    "values",
    [
        {"event_format": "desed"},
        {"event_files": "x", "label_separator": ","},
        {"event_files": "x", "label_folder": "first"},
        {"event_files": "x", "task": "single_label"},
    ],
)
def test_arguments_that_exclude_each_other_are_refused(values):
    with pytest.raises(UsageError, match="event_files"):
        LabelArguments(**values)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(BeatsError, match=r"`event_files`: .*absent\.tsv: no such file or folder"):
        read(tmp_path / "absent.tsv")
