# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Labels of every kind that datasets have, and what is wrong with some."""

import io
import json
import tarfile
from pathlib import Path

import datasets
import numpy as np
import pytest
import soundfile

from transformers_beats.training.classifiers import load_clips
from transformers_beats.training.data.clips import prepare_clips
from transformers_beats.training.data.folds import FoldArguments, read_folds
from transformers_beats.training.data.labels import LabelArguments, Labels, frame_labels, read_labels
from transformers_beats.training.data.shards import read_audio
from transformers_beats.training.data.sources import DataArguments, decode_row, load_audio_dataset
from transformers_beats.utils.errors import BeatsError


def read(
    columns: dict,
    known: list[str] | None = None,
    features: dict | None = None,
    seconds: list | None = None,
    **arguments,
) -> Labels:
    features = None if features is None else datasets.Features(features)
    dataset = datasets.Dataset.from_dict(columns, features=features)
    names = [f"clip-{index}.wav" for index in range(len(dataset))]
    return read_labels(dataset, LabelArguments(**arguments), names, known, seconds)


def wav() -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, np.zeros(8000), 16000, format="WAV")
    return buffer.getvalue()


def write_tar(path: Path, members: dict[str, bytes]) -> None:
    with tarfile.open(path, "w") as archive:
        for name, data in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))


@pytest.fixture
def tar_shard(tmp_path):
    """Makes a dataset of one tar shard from the names and contents of its files."""

    def build(members: dict[str, bytes]) -> datasets.Dataset:
        write_tar(tmp_path / "shard.tar", members)
        return load_audio_dataset(DataArguments(dataset=str(tmp_path)))

    return build


# What is read


def test_names_are_sorted_and_indexed():
    labels = read({"label": ["dog", "cat", "dog"]})
    assert (labels.task, labels.names) == ("single_label", ["cat", "dog"])
    assert labels.as_array().tolist() == [1, 0, 1]
    assert labels.counts().tolist() == [1, 2]


def test_numbers_are_sorted_as_numbers():
    assert read({"target": [10, 9, 2]}).names == ["2", "9", "10"]


def test_a_number_and_its_text_are_one_class(tar_shard):
    members = {}
    for number, label in enumerate((1, "1", 1.0, "2")):
        members |= {f"{number}.wav": wav(), f"{number}.json": json.dumps({"label": label}).encode()}
    assert read_labels(tar_shard(members), LabelArguments(), list("0123")).values == [[0], [0], [0], [1]]
    assert read_labels(tar_shard(members), LabelArguments(), list("0123"), ["2", "1"]).values == [[1], [1], [1], [0]]


def test_class_labels_have_their_names():
    feature = {"label": datasets.ClassLabel(names=["wind", "rain"])}
    labels = read({"label": [1, 0, 1]}, features=feature)
    assert labels.names == ["rain", "wind"]
    assert labels.as_array().tolist() == [0, 1, 0]


def test_a_list_means_several_classes_or_none():
    labels = read({"labels": [["dog", "wind"], [], ["wind", "wind"]]})
    assert labels.task == "multi_label"
    assert labels.as_array().tolist() == [[1, 1], [0, 0], [0, 1]]


def test_lists_of_class_labels_have_their_names():
    feature = {"labels": datasets.List(datasets.ClassLabel(names=["b", "a"]))}
    assert read({"labels": [[0, 1], [1]]}, features=feature).as_array().tolist() == [[1, 1], [1, 0]]


def test_several_classes_in_one_text_are_separated():
    labels = read({"labels": ["dog,wind", "", "wind"]}, label_separator=",")
    assert (labels.task, labels.values) == ("multi_label", [[0, 1], [], [1]])


def test_single_labels_can_be_learned_as_several():
    labels = read({"label": ["dog", "cat"]}, task="multi_label")
    assert labels.as_array().tolist() == [[0, 1], [1, 0]]


def test_events_keep_their_times():
    events = [[{"label": "dog", "onset": 0.5, "offset": 1.0}], []]
    labels = read({"events": events}, label_column="events")
    assert (labels.task, labels.values) == ("frames", [[(0, 0.5, 1.0)], []])
    assert labels.as_array().tolist() == [[1], [0]]


def test_the_classes_of_events_can_be_learned_without_their_times():
    events = [[{"label": "dog", "onset": 0.5, "offset": 1.0}, {"label": "cat", "onset": 0.5, "offset": 1.0}], []]
    labels = read({"events": events}, label_column="events", task="multi_label")
    assert (labels.task, labels.values) == ("multi_label", [[0, 1], []])


def test_class_labels_of_events_have_their_names():
    event = {"label": datasets.ClassLabel(names=["b", "a"]), "onset": datasets.Value("float32")}
    features = {"events": datasets.List(event | {"offset": datasets.Value("float32")})}
    labels = read({"events": [[{"label": 0, "onset": 0.0, "offset": 1.0}]]}, features=features, label_column="events")
    assert labels.names == ["b"]


def test_whole_numbers_with_gaps_are_whole_numbers():
    labels = read({"label": [2.0, float("nan"), 10.0]}, task="multi_label")
    assert (labels.names, labels.values) == (["2", "10"], [[0], [], [1]])


def test_the_classes_of_a_model_keep_their_order():
    labels = read({"label": ["dog", "cat"]}, known=["dog", "bird", "cat"])
    assert labels.names == ["dog", "bird", "cat"]
    assert labels.as_array().tolist() == [0, 2]


def test_folders_are_classes(tmp_path):
    for name in ("cat/a.wav", "dog/deep/b.wav", "dog/c.wav"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(wav())
    dataset = load_audio_dataset(DataArguments(dataset=str(tmp_path)))
    labels = read_labels(dataset, LabelArguments(), dataset["file_name"])
    assert labels.names == ["cat", "dog"]


def test_a_column_of_paths_takes_the_place_of_file_names(tmp_path):
    (tmp_path / "a.wav").write_bytes(wav())
    (tmp_path / "clips.csv").write_text("file_name,path,audio,label\nold/1.wav,a.wav,x,cat\nold/2.wav,a.wav,y,dog\n")
    dataset = load_audio_dataset(DataArguments(dataset=str(tmp_path / "clips.csv"), audio_column="path"))
    assert dataset["file_name"] == ["a.wav", "a.wav"]
    assert [audio["path"] for audio in dataset["audio"]] == 2 * [str(tmp_path / "a.wav")]
    assert read_labels(dataset, LabelArguments(), dataset["file_name"]).names == ["cat", "dog"]


def test_a_column_of_audio_takes_the_place_of_another_one(tmp_path):
    sounds = [{"bytes": wav(), "path": "a.wav"}]
    features = {"sound": {"bytes": datasets.Value("binary"), "path": datasets.Value("string")}}
    features |= {"audio": datasets.Value("string")}
    table = datasets.Dataset.from_dict({"sound": sounds, "audio": ["no audio"]}, features=datasets.Features(features))
    (tmp_path / "rows").mkdir()
    table.to_parquet(str(tmp_path / "rows" / "0.parquet"))
    dataset = load_audio_dataset(DataArguments(dataset=str(tmp_path / "rows"), audio_column="sound"))
    assert dataset.column_names == ["audio"]
    assert read_audio(dataset[0]["audio"]) == wav()


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_tables_name_files_and_classes(tmp_path, suffix):
    (tmp_path / "a.wav").write_bytes(wav())
    (tmp_path / "b.wav").write_bytes(wav())
    table = datasets.Dataset.from_dict({"path": ["a.wav", "b.wav"], "category": ["cat", "dog"]})
    path = tmp_path / f"clips.{suffix}"
    {"csv": table.to_csv, "jsonl": table.to_json, "parquet": table.to_parquet}[suffix](str(path))
    dataset = load_audio_dataset(DataArguments(dataset=str(path), audio_column="path"))
    assert [audio["path"] for audio in dataset["audio"]] == [str(tmp_path / "a.wav"), str(tmp_path / "b.wav")]
    assert read_labels(dataset, LabelArguments(), dataset["file_name"]).as_array().tolist() == [0, 1]


def test_tar_shards_hold_classes_beside_the_audio(tar_shard):
    members = {
        "x/1.wav": wav(),
        "x/1.json": json.dumps({"label": "cat", "fold": 1}).encode(),
        "x/2.cls": b"dog\n",
        "x/2.wav": wav(),
        "x/3.wav": wav(),
        "x/3.json": b"{broken",
    }
    dataset = tar_shard(members)
    for column in (None, "label"):
        arguments = LabelArguments(label_column=column, task="multi_label")
        assert read_labels(dataset, arguments, ["1", "2", "3"]).values == [[0], [1], []]


def test_folders_in_shards_are_classes_if_nothing_else_is(tar_shard, tmp_path):
    files = {"dog/b/0.wav": wav(), "cat/a/1.wav": wav()}
    dataset = tar_shard(files)
    assert read_labels(dataset, LabelArguments(), ["0", "1"]).names == ["cat", "dog"]
    assert read_labels(dataset, LabelArguments(label_folder="last"), ["0", "1"]).values == [[1], [0]]
    sounds = [{"bytes": data, "path": name} for name, data in files.items()]
    (tmp_path / "parquet").mkdir()
    file = tmp_path / "parquet" / "0.parquet"
    datasets.Dataset.from_dict({"audio": sounds}).to_parquet(file)
    dataset = load_audio_dataset(DataArguments(dataset=str(file.parent)))
    assert read_labels(dataset, LabelArguments(label_folder="first"), ["0", "1"]).names == ["cat", "dog"]


@pytest.mark.parametrize("path", ["0.wav", None, "/elsewhere/dog/0.wav"])
def test_shards_without_folders_have_no_classes(tmp_path, path):
    sounds = [{"bytes": wav(), "path": "dog/1.wav"}, {"bytes": wav(), "path": path}]
    datasets.Dataset.from_dict({"audio": sounds}).to_parquet(tmp_path / "0.parquet")
    dataset = load_audio_dataset(DataArguments(dataset=str(tmp_path)))
    named = "0.wav" if path == "0.wav" else "Clip 2"
    for folder in (None, "first"):
        with pytest.raises(BeatsError, match=f"{named}: lies in no folder named after its class"):
            read_labels(dataset, LabelArguments(label_folder=folder), ["0", "1"])


def test_a_label_column_that_is_not_there_is_told(tar_shard):
    dataset = tar_shard({"0.wav": wav(), "0.json": b'{"species": "dog"}', "1.wav": wav(), "1.json": b'{"sex": "f"}'})
    with pytest.raises(BeatsError, match="no column 'specie' of labels, only audio, species, sex"):
        read_labels(dataset, LabelArguments(label_column="specie"), ["0", "1"])
    with pytest.raises(BeatsError, match="No column of labels among species, sex: set"):
        read_labels(dataset, LabelArguments(), ["0", "1"])


def test_columns_of_a_table_are_no_others_than_those_of_its_owner(tmp_path):
    own = {"metadata": ["recorded outside", "7"], "waveform": ["sine", ""], "_waveform": ["a", "b"]}
    own |= {"_corpus": ["x", "y"], "_metadata": ["?", "!"]}
    sounds = [{"bytes": wav(), "path": f"{number}.wav"} for number in range(2)]
    (tmp_path / "table").mkdir()
    for sound in sounds:
        (tmp_path / "table" / sound["path"]).write_bytes(sound["bytes"])
    names = [sound["path"] for sound in sounds]
    table, shard = tmp_path / "table" / "metadata.csv", tmp_path / "shards" / "0.parquet"
    datasets.Dataset.from_dict({"file_name": names, "label": ["dog", "cat"]} | own).to_csv(table)
    shard.parent.mkdir()
    columns = {"audio": sounds, "label": ["dog", "cat"], "file_state": [1, 2]} | own
    datasets.Dataset.from_dict(columns).to_parquet(shard)
    for folders in ([str(table.parent)], [str(shard.parent)], [str(table.parent), str(shard.parent)]):
        for keeps in (False, True):
            data = DataArguments(dataset=folders if len(folders) > 1 else folders[0], cache_audio=keeps)
            clips = prepare_clips(load_audio_dataset(data), data, 16000)
            assert read_labels(clips.dataset, LabelArguments(), clips.names).names == ["cat", "dog"]
            assert all(decode_row(row, 16000).shape == (8000,) for row in clips.dataset)
            named = LabelArguments(label_column="metadata")
            assert set(read_labels(clips.dataset, named, clips.names).names) == {*own["metadata"]}
            with pytest.raises(BeatsError, match="There is no column 'lable' of labels, only "):
                read_labels(clips.dataset, LabelArguments(label_column="lable"), clips.names)


def test_class_labels_are_selected_and_left_out_by_their_names(tmp_path):
    kind = datasets.ClassLabel(names=["1", "2", "3"])
    sounds = [{"bytes": wav(), "path": f"{number}.wav"} for number in range(6)]
    columns = {"audio": sounds, "label": ["dog", "cat"] * 3, "fold": [0, 0, 1, 1, 2, 2]}
    dataset = datasets.Dataset.from_dict(columns).cast_column("fold", kind)
    dataset.to_parquet(tmp_path / "0.parquet")
    for wanted, rows in ((1, [0, 1]), ("3", [4, 5]), ([1, 2], [0, 1, 2, 3]), (0, [])):
        for streaming in (False, True):
            data = DataArguments(dataset=str(tmp_path), select={"fold": wanted}, streaming=streaming)
            assert [row["audio"]["path"] for row in load_audio_dataset(data)] == [f"{row}.wav" for row in rows]
    dataset = load_audio_dataset(DataArguments(dataset=str(tmp_path)))
    labels = read_labels(dataset, LabelArguments(), list(map(str, range(6))))
    (fold,) = read_folds(dataset, labels, FoldArguments(fold_column="fold", folds=[1]), seed=0)
    assert (fold.name, fold.test.tolist()) == ("1", [0, 1])


def test_audioset_has_all_its_classes():
    labels = read({"labels": [["Speech"], ["Music", "Speech"]]}, label_set="audioset")
    assert len(labels.names) == 527
    assert labels.values == [[0], [0, labels.names.index("Music")]]


# What is refused


@pytest.mark.parametrize(
    ("columns", "arguments", "message"),
    [
        ({"label": []}, {}, "The dataset is empty"),
        ({"sound": ["a", "b"]}, {}, "No column of labels among sound"),
        ({"sound": ["a", "b"]}, {"label_column": "class"}, "There is no column 'class' of labels, only sound"),
        ({"label": ["a"], "target": [1]}, {}, "the columns label, target may hold the labels"),
        ({"label": ["a", None]}, {}, r"clip-1.wav: column 'label' has 0 labels"),
        ({"labels": [["a", "b"]]}, {"task": "single_label"}, r"clip-0.wav: column 'labels' has 2 labels \('a', 'b'\)"),
        ({"label": ["a", "a"]}, {}, r"has one class only \('a'\)"),
        ({"labels": [["a"], ["b"]]}, {"task": "frames"}, r"clip-0.wav: column 'labels' holds 'a', no event"),
        ({"labels": [[0], [1, 2]]}, {"task": "frames"}, r"clip-0.wav: column 'labels' holds 0, no event"),
        ({"labels": ["['a']", "[{}]"]}, {}, r"clip-1.wav: column 'labels' holds \{\}, which is no name of a class"),
        ({"label": [None, None]}, {"task": "multi_label"}, "has no label for any clip"),
    ],
)
def test_labels_that_cannot_be_used_are_refused(columns, arguments, message):
    with pytest.raises(ValueError, match=message):
        read(columns, **arguments)


def test_labels_that_a_model_does_not_have_are_named():
    with pytest.raises(ValueError, match=r"labels that are not among the classes: 'bird'\. There are 'cat', 'dog'"):
        read({"label": ["dog", "bird"]}, known=["cat", "dog"])


@pytest.mark.parametrize(
    ("event", "message"),
    [
        ({"onset": 1.0, "offset": 1.0}, r"clip-0\.wav, column 'label': 'dog' from 1 to 1 s: the offset must be after"),
        ({"onset": 2.0, "offset": 1.0}, "'dog' from 2 to 1 s: the offset must be after the onset"),
        ({"onset": -0.1, "offset": 1.0}, "'dog' from -0.1 to 1 s: the onset is negative"),
        ({"offset": "inf"}, "the offset 'inf' is no time in seconds"),
        ({"onset": None}, "the event has no onset"),
        # In milliseconds.
        ({"onset": 1000.0, "offset": 1500.0}, r"'dog' from 1000 to 1500 s is not within clip-0\.wav, which lasts 2 s"),
    ],
)
@pytest.mark.parametrize("task", ["frames", "multi_label", "single_label"])
def test_times_of_events_are_those_of_files_of_events_if_they_are_learned(event, message, task):
    columns = {"label": [[{"label": name, "onset": 0.0, "offset": 1.0} | event] for name in ("dog", "cat")]}
    if task == "frames":
        with pytest.raises(BeatsError, match=message):
            read(columns, task=task, seconds=[2.0, 2.0])
    else:
        labels = read(columns, task=task, seconds=[2.0, 2.0])
        assert (labels.task, labels.names, labels.values) == (task, ["cat", "dog"], [[1], [0]])


@pytest.mark.parametrize("task", [None, "multi_label"])
@pytest.mark.parametrize("label", [None, " ", float("nan")])
def test_an_event_needs_a_label(label, task):
    text = isinstance(label, str)
    events = [{"label": "dog" if text else 1.0, "onset": 0.0, "offset": 1.0}, {"label": label} | TIMES]
    with pytest.raises(BeatsError, match=r"clip-0\.wav, column 'label': the event has no label"):
        read({"label": [events]}, task=task)


@pytest.mark.parametrize("task", ["frames", "multi_label", "single_label"])
@pytest.mark.parametrize("name", ["None", "nan", "NULL"])
def test_a_text_is_a_label_whatever_it_says(name, task):
    assert read({"label": [[{"label": name} | TIMES], [DOG]]}, task=task).names == sorted([name, "dog"])


def test_without_times_an_event_is_a_class():
    times = [("dog", None, None), (" dog", 0.5, 0.5), ("cat", None, None), (None, None, None)]
    events = [{"label": label, "onset": onset, "offset": offset} for label, onset, offset in times]
    labels = read({"label": [events, [], events[:2]]}, task="multi_label", seconds=[1.0] * 3)
    assert (labels.names, labels.values) == (["cat", "dog"], [[0, 1], [], [1]])
    # Events of one class at several times are of this class.
    assert read({"label": [events[:2], events[2:]]}, task="single_label").values == [[1], [0]]
    with pytest.raises(BeatsError, match=r"clip-0\.wav: column 'label' has 2 labels \('dog', 'cat'\), one is needed"):
        read({"label": [events, events[:2]]}, task="single_label")


def test_events_of_a_column_are_read_as_those_of_files(caplog):
    times = [("dog", "0,5", "1"), ("dog ", 1.5, 2.5), ("cat", 2.0, 2.5), ("dog", 0.5, 1.0), (None, None, None)]
    events = [{"label": label, "onset": str(onset), "offset": str(offset)} for label, onset, offset in times]
    labels = read({"label": [events, []]}, seconds=[2.0, 1.0])
    assert (labels.names, labels.values) == (["dog"], [[(0, 0.5, 1.0), (0, 1.5, 2.0)], []])
    assert "1 events begin where their recording has ended" in caplog.text
    assert "1 events of column 'label' appear twice" in caplog.text


def test_events_end_with_their_clips(tmp_path):
    for number in range(2):
        (tmp_path / f"{number}.wav").write_bytes(wav())
    event = {"label": "dog", "onset": 1000, "offset": 1500}
    rows = [{"file_name": f"{number}.wav", "label": [event]} for number in range(2)]
    (tmp_path / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    with pytest.raises(BeatsError, match=r"'dog' from 1000 to 1500 s is not within 0\.wav, which lasts 0\.5 s"):
        load_clips(DataArguments(dataset=str(tmp_path)), LabelArguments())


@pytest.mark.parametrize("kind", ["text", "list", "classes", "events", "tar"])
def test_a_dataset_that_lacks_the_column_is_told(kind, tmp_path):
    first, second = tmp_path / "table", tmp_path / "folder"
    (second / "bird").mkdir(parents=True)
    (second / "bird" / "0.wav").write_bytes(wav())
    first.mkdir()
    cells = {"text": ["dog;cat", "dog"], "events": [[DOG], []], "classes": [[0, 1], []]}.get(
        kind, [["dog", "cat"], []]
    )
    sounds = [{"bytes": wav(), "path": f"{number}.wav"} for number in range(2)]
    if kind == "tar":
        files = [
            {f"{number}.wav": wav(), f"{number}.json": json.dumps({"label": cells[number]}).encode()}
            for number in range(2)
        ]
        write_tar(first / "shard.tar", files[0] | files[1])
    else:
        dataset = datasets.Dataset.from_dict({"audio": sounds, "label": cells})
        if kind == "classes":
            dataset = dataset.cast_column("label", datasets.List(datasets.ClassLabel(names=["dog", "cat"])))
        dataset.to_parquet(first / "0.parquet")
    labels = LabelArguments(label_separator=";" if kind == "text" else None)
    for sources in ([str(first), str(second)], [str(second), str(first)]):
        for known in (None, ["cat", "dog"]):
            with pytest.raises(
                BeatsError, match=r"0\.wav: column 'label' has no label for any clip of its dataset, 1 in"
            ):
                load_clips(DataArguments(dataset=sources), labels, known)
    assert len(load_clips(DataArguments(dataset=str(first)), labels)[1]) == 2


@pytest.mark.parametrize("keeps", [False, True])
@pytest.mark.parametrize("kind", ["list", "text", "tar"])
def test_a_dataset_may_say_of_all_its_clips_that_they_are_of_no_class(kind, keeps, tmp_path):
    """Background sounds, whose cells are all empty."""
    first, second = tmp_path / "a", tmp_path / "b"
    for folder, cells in ((first, [["dog"], ["cat"]]), (second, [None, None])):
        folder.mkdir()
        if kind == "tar":
            files = [
                {f"{number}.wav": wav(), f"{number}.json": json.dumps({"labels": cells[number]}).encode()}
                for number in range(2)
            ]
            write_tar(folder / "0.tar", files[0] | files[1])
            continue
        feature = datasets.Value("string") if kind == "text" else datasets.List(datasets.Value("string"))
        sounds = [{"bytes": wav(), "path": f"{folder.name}{number}.wav"} for number in range(2)]
        texts = cells if kind == "list" else [cell and cell[0] for cell in cells]
        dataset = datasets.Dataset.from_dict({"audio": sounds, "labels": texts}).cast_column("labels", feature)
        dataset.to_parquet(folder / "0.parquet")
    labels = LabelArguments(task="multi_label")
    data = DataArguments(dataset=str(second), cache_audio=keeps)
    assert load_clips(data, labels, ["dog", "cat"])[1].values == [[], []]
    with pytest.raises(BeatsError, match="column 'labels' has no label for any clip"):
        load_clips(data, labels)
    for folders, values in (((first, second), [[1], [0], [], []]), ((second, first), [[], [], [1], [0]])):
        data = DataArguments(dataset=list(map(str, folders)), cache_audio=keeps)
        assert load_clips(data, labels)[1].values == values


TIMES = {"onset": 0.25, "offset": 0.5}
DOG = {"label": "dog"} | TIMES


@pytest.mark.parametrize("empty", ["", " ", "[]"])
@pytest.mark.parametrize("is_first", [True, False])
def test_an_empty_cell_does_not_change_the_kind_of_labels(empty, is_first):
    for cell, task, value in ((str([DOG]), "frames", (0, 0.25, 0.5)), ("['dog']", "multi_label", 0)):
        labels = read({"label": [empty, cell] if is_first else [cell, empty]})
        assert (labels.task, labels.values) == (task, [[], [value]] if is_first else [[value], []])


@pytest.mark.parametrize("other", ["cat", ["cat"], [DOG, "cat"]])
@pytest.mark.parametrize("separator", [None, ";"])
def test_events_and_names_of_classes_are_not_mixed(other, separator):
    names = ["a.wav", "b.wav", "c.wav"]
    for cells in ([[DOG], other, None], [None, other, [DOG]]):
        dataset = datasets.Dataset.from_dict({"label": [json.dumps(cell) if cell else "" for cell in cells]})
        with pytest.raises(BeatsError, match=r"b\.wav: column 'label' holds '\"?cat\"?', no event"):
            read_labels(dataset, LabelArguments(label_separator=separator), names)


@pytest.mark.parametrize(
    ("cells", "task"),
    [(["dog", "cat"], None), ([["dog"], ["cat"]], None), (["dog", "cat"], "multi_label"), ("events", None)],
)
def test_rows_of_one_clip_have_the_same_labels(cells, task, tmp_path, caplog):
    cells = [[DOG], [DOG | {"onset": 0.0}]] if cells == "events" else cells
    for number, samples in enumerate((8000, 8000, 9000)):
        soundfile.write(tmp_path / f"{number}.wav", np.zeros(samples), 16000)

    def load(*rows) -> Labels:
        lines = [json.dumps({"file_name": name, "label": cell}) for name, cell in rows]
        (tmp_path / "metadata.jsonl").write_text("\n".join(lines))
        return load_clips(DataArguments(dataset=str(tmp_path)), LabelArguments(task=task))[1]

    # As tables in long form have it.
    with pytest.raises(
        BeatsError, match=r"0\.wav: several rows name it, and their labels differ \('dog', '(cat|dog)'\)"
    ):
        load(("0.wav", cells[0]), ("2.wav", cells[1]), ("0.wav", cells[1]))
    assert len(load(("0.wav", cells[0]), ("2.wav", cells[1]), ("0.wav", cells[0]))) == 3
    assert "content of another one" not in caplog.text
    # A copy of another name.
    assert len(load(("0.wav", cells[0]), ("2.wav", cells[1]), ("1.wav", cells[1]))) == 3
    assert "1 clips have the content of another one, and other labels, such as '0.wav', '1.wav'" in caplog.text


# Frames


def test_a_column_belongs_to_what_covers_half_of_it():
    labels = frame_labels([(0, 0.16, 0.32), (1, 0.25, 0.50)], 2, 4, 0.16, start=0.0)
    assert labels.T.tolist() == [[0, 1, 0, 0], [0, 0, 1, 0]]


def test_a_short_event_is_in_the_column_where_most_of_it_is():
    assert frame_labels([(0, 0.30, 0.36)], 1, 4, 0.16, start=0.0).ravel().tolist() == [0, 0, 1, 0]


def test_a_short_event_in_the_middle_between_two_columns_is_in_both():
    for column in range(1, 60):
        for seconds in (0.02, 0.04, 0.06, 0.1):
            middle = column * 0.16
            event = (0, round(middle - seconds / 2, 3), round(middle + seconds / 2, 3))
            for start in (0.0, round(middle - 0.16, 3)):
                found = frame_labels([event], 1, 61, 0.16, start=start).ravel()
                first = column - 1 if start == 0 else 0
                assert np.flatnonzero(found).tolist() == [first, first + 1]


def test_an_event_that_does_not_touch_a_column_is_not_in_it():
    assert frame_labels([(0, 0.16, 0.32), (1, 0.1, 0.1000001)], 2, 3, 0.16, 0.0).T.tolist() == [[0, 1, 0], [1, 0, 0]]


def test_the_columns_of_a_crop_begin_with_it():
    assert frame_labels([(0, 1.0, 1.16)], 1, 2, 0.16, start=1.0).ravel().tolist() == [1, 0]
