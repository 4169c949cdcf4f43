# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Events in the files that the field writes. The formats are those of their specifications, written out by hand."""

import json
import math

import pytest

from transformers_beats.audio.audioset import AUDIOSET_LABELS, AUDIOSET_STRONG_LABELS
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


def test_each_file_may_have_been_labelled_for_its_own_classes(tmp_path):
    names = ["a.wav", "b.wav", "c.wav", "d.wav", "e.wav"]
    header = "filename\tonset\toffset\tevent_label\n"
    desed = write(tmp_path, "desed.tsv", header + "a.wav\t0\t1\tDog\nlost.wav\t0\t1\tCat\nb.wav\t\t\t\n")
    maestro = write(tmp_path, "maestro.tsv", header + "c.wav\t0\t1\tCar\nb.wav\t1\t2\tBirds\n")
    weak = write(tmp_path, "weak.tsv", "filename\tevent_labels\na.wav\tBirds\nd.wav\tBirds\n")
    known = ["Birds", "Car", "Cat", "Dog"]
    labels = read([desed, maestro, weak], names, [10.0] * 5, known, event_classes="own")
    # Of a recording without an event, and of one in two files; a class without a recording counts as well.
    assert labels.annotated == [[2, 3], [0, 1, 2, 3], [0, 1], [0], []]
    assert labels.knowledge == ["events", "events", "events", "classes", "nothing"]
    assert [labels.is_known(clip).sum() for clip in range(5)] == [2, 4, 2, 1, 0]
    assert labels.known_counts().tolist() == [3, 2, 2, 2]
    assert labels.select([3, 0]).annotated == [[0], [2, 3]]
    everywhere = read([desed, maestro, weak], names, [10.0] * 5, known)
    assert everywhere.annotated is None
    assert [everywhere.is_known(clip).sum() for clip in range(5)] == [4, 4, 4, 4, 0]
    assert everywhere.values == labels.values


def test_a_file_without_classes_says_nothing(tmp_path):
    first = write(tmp_path, "a.txt", "0\t1\tDog\n")
    empty = write(tmp_path, "b b.txt", "")
    assert read([first, empty]).annotated is None
    with pytest.raises(BeatsError, match=r"`event_classes: own`: .*b b\.txt has none of the classes"):
        read([first, empty], event_classes="own")
    with pytest.raises(UsageError, match="`event_classes` are those of `event_files`"):
        LabelArguments(event_classes="own")


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
        ("a.wav\t10\t11.1\tDog", "line 2: 'Dog' from 10 to 11.1 s is not within train/a.wav, which lasts 10 s"),
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
        (
            "a.jsonl",
            '{"file": "a.wav", "class": "Dog", "t0": 0, "t1": 1}',
            "needs label, onset and offset of an event",
        ),
        (
            "a.jsonl",
            '{"file": "a.wav", "label": "Dog"}',
            "needs label, onset and offset of an event, or `events`, has",
        ),
        (
            "a.jsonl",
            '{"file": "a.wav", "status": "ok", "labels": [{"label": "Dog", "score": 0.5}]}',
            "or `events`, has",
        ),
        (
            "a.jsonl",
            '{"file": "a.wav", "events": []}\n{"file": "c", "t0": 1}',
            "line 2: `events` must be a list",
        ),
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


def test_rows_of_one_name_are_one_recording(tmp_path):
    names = ["a.wav", "b.wav", "a.wav", "x/c.wav"]
    weak = write(tmp_path, "weak.tsv", "filename\tevent_labels\nc.wav\tCat\n")
    strong = write(tmp_path, "strong.tsv", DESED.replace("b b.flac", "b.wav"))
    labels = read([strong, weak], names, [10.0] * 4, event_classes="own")
    assert labels.knowledge == ["events", "events", "events", "classes"]
    assert events_of(labels, 2) == events_of(labels, 0) == [("Dog", 0.5, 1.25), ("Speech", 1.0, 2.0)]
    assert labels.annotated is not None
    assert labels.annotated[0] == labels.annotated[2]
    # Its own file, too.
    write(tmp_path / "tracks", "a.txt", "0\t1\tDog\n")
    assert read(tmp_path / "tracks", names, [10.0] * 4).knowledge == ["events", "nothing", "events", "nothing"]


def test_a_format_can_be_named(tmp_path):
    path = write(tmp_path, "a.txt", "start\tend\tfile\tlabel\n0\t1\ta\tDog\n")
    assert [row.label for row in read_rows(path)] == ["Dog"]
    with pytest.raises(BeatsError, match="line 1: is no `onset, offset, label`"):
        read_rows(path, LabelArguments(event_files=str(path), event_format="audacity"))
    with pytest.raises(BeatsError, match=r"has no column 'Begin Time \(s\)', 'End Time \(s\)', only start, end"):
        read_rows(path, LabelArguments(event_files=str(path), event_format="raven"))


DISTANT = "filename\tonset\toffset\tevent_label\n{first}/001.wav\t0\t1\tdog\n{second}/001.wav\t2\t3\tcat\n"


@pytest.mark.parametrize(
    ("name", "first", "second"),
    [("001.wav", "fold1", "fold2"), ("x/001.wav", "a/x", "b/x"), ("001.wav", "/a/b", "/a/c")],
)
def test_rows_of_two_recordings_are_not_of_one(name, first, second, tmp_path):
    path = write(tmp_path, "all.tsv", DISTANT.format(first=first, second=second))
    with pytest.raises(BeatsError, match=r"line 3: '.*/001.wav' would be .*001.wav, and so would '.*/001': leave out"):
        read(path, [name], [10.0])
    # With their folders, both are there.
    names = [f"{folder.strip('/')}/001.wav" for folder in (first, second)]
    assert [len(values) for values in read(path, names, [10.0, 10.0]).values] == [1, 1]


def test_a_row_of_another_folder_is_of_no_recording(tmp_path, caplog):
    path = write(tmp_path, "all.tsv", DISTANT.format(first="data/train", second="eval"))
    assert events_of(read(path, ["train/001.wav"], [10.0]), 0) == [("dog", 0.0, 1.0)]
    assert "1 rows are of recordings that are not there" in caplog.text
    with pytest.raises(BeatsError, match="none of the recordings is there"):
        read(path, ["test/001.wav"], [10.0])


def test_tracks_of_other_folders_are_of_recordings_by_their_folders(tmp_path):
    tracks = [write(tmp_path, f"labels/{fold}/001.txt", f"0\t1\t{fold}\n") for fold in ("fold1", "fold2")]
    labels = read(tracks, ["fold1/001.wav", "fold2/001.wav"], [10.0, 10.0])
    assert [events_of(labels, clip)[0][0] for clip in range(2)] == ["fold1", "fold2"]
    # A file that is named is about the recording of its name, wherever it lies; two are not about one.
    assert len(read(tracks[0], ["x/001.wav"], [10.0]).values[0]) == 1
    for source in (tracks, tmp_path / "labels"):
        with pytest.raises(BeatsError, match=r"fold2.* would be 001.wav, and so would .*fold1/001'"):
            read(source, ["001.wav"], [10.0])
    with pytest.raises(BeatsError, match="no file of events that is named after a recording"):
        read(tmp_path / "labels", ["fold3/001.wav"], [10.0])


@pytest.mark.parametrize("name", ["dog_bark_01.wav", "YaB3_-dE5Fgh.wav"])
def test_only_segments_of_audioset_are_found_by_a_video(name, tmp_path):
    path = write(tmp_path, "train.tsv", f"{HEADER}{name.removesuffix('.wav').removeprefix('Y')}_2.wav\t0\t1\tDog\n")
    with pytest.raises(BeatsError, match="none of the recordings is there"):
        read(path, [name], [10.0])


def test_two_segments_are_not_of_one_video(tmp_path):
    text = "segment_id\tstart_time_seconds\tend_time_seconds\tlabel\n"
    text += "".join(f"aB3_-dE5Fgh_{start}\t0\t1\t/m/09x0r\n" for start in (30000, 30000, 60000))
    with pytest.raises(BeatsError, match=r"line 4: 'aB3_-dE5Fgh_60000' would be YaB3_-dE5Fgh.wav, and so would"):
        read(write(tmp_path, "strong.tsv", text), ["YaB3_-dE5Fgh.wav"], [10.0])


def test_a_class_with_two_names_has_the_one_that_is_known(tmp_path):
    mid = "/m/09ddx"
    assert AUDIOSET_LABELS[mid] != AUDIOSET_STRONG_LABELS[mid]
    text = f"segment_id\tstart_time_seconds\tend_time_seconds\tlabel\na_30000\t0\t1\t{mid}\n"
    path = write(tmp_path, "strong.tsv", text)
    for arguments, name in (
        ({}, AUDIOSET_STRONG_LABELS[mid]),
        ({"label_set": "audioset_strong"}, AUDIOSET_STRONG_LABELS[mid]),
        ({"label_set": "audioset"}, AUDIOSET_LABELS[mid]),
        ({"known": [AUDIOSET_LABELS[mid], "Dog"]}, AUDIOSET_LABELS[mid]),
    ):
        assert events_of(read(path, ["a_30000.wav"], [10.0], **arguments), 0) == [(name, 0.0, 1.0)]


def test_classes_with_commas_have_another_separator(tmp_path):
    path = write(tmp_path, "weak.tsv", "filename\tevent_labels\na.wav\tMale speech, man speaking; Dog\n")
    assert read(path, label_separator=";").names == ["Dog", "Male speech, man speaking"]


@pytest.mark.parametrize("text", [RAVEN.lower(), RAVEN.replace("\t", ",").upper()])
def test_columns_of_raven_are_known_in_any_case(text, tmp_path):
    labels = read(write(tmp_path, "a.selections.txt", text))
    assert [event[1:] for event in labels.values[0]] == [(0.5, 1.25), (1.0, 2.0)]


def test_lines_of_events_and_of_recordings_may_be_mixed(tmp_path):
    lines = [
        {"file": "a.wav", "label": "Dog", "onset": 0, "offset": 1},
        {"file": "c.wav", "events": [{"label": "Cat", "onset": 0, "offset": 1}]},
        {"file": "b b.flac", "events": []},
    ]
    labels = read(write(tmp_path, "all.jsonl", "\n".join(map(json.dumps, lines))))
    assert [len(values) for values in labels.values] == [1, 0, 1]
    assert labels.knowledge == ["events"] * 3


def test_an_event_after_a_recording_that_was_cut_short_is_left_out(tmp_path, caplog):
    text = f"{HEADER}a.wav\t9.98\t10\tDog\na.wav\t9\t10\tCat\nc.wav\t9.97\t10.5\tDog\n"
    labels = read(write(tmp_path, "train.tsv", text), seconds=[9.97, 4.0, 9.97])
    assert (labels.names, events_of(labels, 0)) == (["Cat"], [("Cat", 9.0, 9.97)])
    # That of its recording is known: it has no event.
    assert (labels.values[2], labels.knowledge) == ([], ["events", "nothing", "events"])
    assert "2 events begin where their recording has ended, and are left out" in caplog.text


def test_recordings_that_are_not_there_give_no_class(tmp_path):
    path = write(tmp_path, "train.tsv", f"{HEADER}a.wav\t0\t1\tDog\nlost.wav\t0\t1\tCat\n")
    assert read(path).names == ["Dog"]
    assert read(path, known=["Dog"]).names == ["Dog"]


@pytest.mark.parametrize(
    "values",
    [
        {"event_format": "desed"},
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
