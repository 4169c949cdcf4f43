# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Folders as classes and as splits: links, hidden folders, depth, and every spelling of a split."""

import re
import shutil
import tarfile

import datasets
import pyarrow
import pyarrow.parquet
import pytest

from transformers_beats.training.data.labels import LabelArguments, Labels, read_labels
from transformers_beats.training.data.sources import DataArguments, load_audio_dataset
from transformers_beats.training.data.splits import split_of
from transformers_beats.utils.errors import BeatsError, UsageError


@pytest.fixture
def tree(tmp_path):
    """Makes empty files in a folder."""

    def build(*names: str):
        for name in names:
            (tmp_path / "ds" / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "ds" / name).write_bytes(b"")
        return tmp_path / "ds"

    return build


def load(folder, **values) -> datasets.Dataset:
    return load_audio_dataset(DataArguments(dataset=str(folder), **values))


def labels_of(dataset: datasets.Dataset, known: list[str] | None = None, **values) -> Labels:
    return read_labels(dataset, LabelArguments(**values), dataset["file_name"], known)


# Classes


def test_a_linked_folder_is_a_class(tree, tmp_path):
    folder = tree("dog/0.wav", "cat/0.wav")
    (tmp_path / "store" / "cow").mkdir(parents=True)
    (tmp_path / "store" / "cow" / "0.wav").write_bytes(b"")
    (folder / "cow").symlink_to("../store/cow")
    assert labels_of(load(folder)).names == ["cat", "cow", "dog"]


def test_all_classes_may_be_links(tree, tmp_path):
    store = tree("dog/0.wav", "cat/0.wav", "cat/1.wav")
    (tmp_path / "links").mkdir()
    for name in ("dog", "cat"):
        (tmp_path / "links" / name).symlink_to(store / name)
    labels = labels_of(load(tmp_path / "links"))
    assert (labels.names, labels.counts().tolist()) == (["cat", "dog"], [2, 1])


def test_links_to_files_are_clips_of_their_own_class(tree, tmp_path):
    folder = tree("dog/0.wav", "cat/0.wav")
    (tmp_path / "x.wav").write_bytes(b"")
    (folder / "dog" / "1.wav").symlink_to(tmp_path / "x.wav")
    assert load(folder)["file_name"] == ["cat/0.wav", "dog/0.wav", "dog/1.wav"]


def test_circles_are_harmless(tree, caplog):
    folder = tree("dog/0.wav", "cat/0.wav")
    (folder / "dog" / "up").symlink_to(folder)
    (folder / "self").symlink_to(".")
    (folder / "above").symlink_to(folder.parent.parent)
    assert labels_of(load(folder)).names == ["cat", "dog"]
    assert not caplog.text


@pytest.mark.parametrize(
    "name", [".ipynb_checkpoints", ".Trash-1000", ".git/annex", ".cache", "__MACOSX/dog", "@eaDir", "$RECYCLE.BIN"]
)
def test_hidden_folders_and_files_are_no_classes(tree, name):
    folder = tree("dog/0.wav", "cat/0.wav", f"{name}/0-checkpoint.wav", "dog/.hidden.wav", "dog/.deep/1.wav")
    (folder / "dog" / "@eaDir").mkdir()
    (folder / "dog" / "@eaDir" / "0.wav").touch()
    assert load(folder)["file_name"] == ["cat/0.wav", "dog/0.wav"]


def test_folders_that_no_clip_is_read_from_are_told(tree, tmp_path, caplog):
    folder = tree("dog/0.wav", "cat/0.wav", "cow/notes.txt")
    (folder / "hound").symlink_to("dog")
    (folder / "lost").symlink_to(tmp_path / "nowhere")
    load(folder)
    told = [record.message.partition(":")[0].rpartition("/")[2] for record in caplog.records]
    assert told == ["cow", "hound", "lost"]


def test_the_first_folder_is_the_class(tree):
    folder = tree("dog/0.wav", "dog/session0/1.wav", "dog/session1/deep/2.wav", "cat/session2/0.wav")
    assert labels_of(load(folder)).names == ["cat", "dog"]


@pytest.mark.parametrize(
    "names",
    [
        ("dog/session0/0.wav", "cat/session0/0.wav"),
        ("fold1/dog/0.wav", "fold2/dog/0.wav", "fold1/cat/0.wav", "fold2/cat/0.wav"),
        ("audio/dog/0.wav", "audio/cat/0.wav"),
    ],
)
def test_folders_that_can_be_read_both_ways_are_refused(tree, names):
    dataset = load(tree(*names))
    with pytest.raises(BeatsError, match=r"set `label_folder: first` if the classes are .*`label_folder: last` if"):
        labels_of(dataset)
    last = sorted({name.split("/")[1] for name in names})
    if len(last) > 1:
        assert labels_of(dataset, label_folder="last").names == last
        # The classes of a model tell.
        assert labels_of(dataset, known=["bird", *last]).values[0] == [last.index(names[-1].split("/")[1]) + 1]
    else:
        assert labels_of(dataset, label_folder="first").names == ["cat", "dog"]
        assert labels_of(dataset, known=["cat", "dog"]).values == [[0], [1]]


def test_clips_outside_of_the_folders_are_refused(tree):
    with pytest.raises(BeatsError, match=r"loose\.wav: lies in no folder named after its class"):
        labels_of(load(tree("dog/0.wav", "cat/0.wav", "loose.wav")))


def test_two_rules_for_labels_are_refused():
    with pytest.raises(BeatsError, match="`label_folder` and `label_column` exclude each other"):
        LabelArguments(label_folder="first", label_column="label")


# Splits


@pytest.mark.parametrize(
    ("name", "split"),
    [
        *((name, "train") for name in ("train", "Train", "TRAIN", "training", "train_set", "TrainSet", "1-train")),
        *((name, "validation") for name in ("valid", "VALIDATION", "val", "Dev", "devset", "audio_val")),
        *((name, "test") for name in ("test", "Testing", "eval", "EVALUATION", "test split", "hold-out", "wav_test")),
        *((name, None) for name in ("trains", "train_horn", "contest", "data", "dog", "latest", "valve", "set", "1")),
    ],
)
def test_splits_are_known_by_any_spelling(name, split):
    assert split_of(name) == split


@pytest.mark.parametrize(
    ("train", "test"),
    [("Train", "Test"), ("TRAIN", "EVAL"), ("training", "testing"), ("train_set", "test_set"), ("train", "Hold-Out")],
)
def test_what_is_for_the_test_is_not_trained_on(tree, train, test):
    folder = tree(f"{train}/dog/0.wav", f"{train}/cat/1.wav", f"{test}/dog/2.wav", f"{test}/cat/3.wav")
    assert load(folder)["file_name"] == ["cat/1.wav", "dog/0.wav"]
    assert labels_of(load(folder, split="test"), known=["cat", "dog"]).values == [[0], [1]]
    assert load(folder, split=test)["file_name"] == ["cat/3.wav", "dog/2.wav"]
    assert len(load(folder, split="all")) == 4


@pytest.mark.parametrize(
    ("train", "test"),
    [("esc_train", "esc_test"), ("train-clean-100", "test-other"), ("train_16k", "eval_16k"), ("trn", "tst")],
)
def test_a_word_of_every_folder_tells_its_split(tree, train, test):
    folder = tree(f"{train}/dog/0.wav", f"{train}/cat/1.wav", f"{test}/dog/2.wav", f"{test}/cat/3.wav")
    assert load(folder)["file_name"] == ["cat/1.wav", "dog/0.wav"]
    for split in ("test", test):
        assert load(folder, split=split)["file_name"] == ["cat/3.wav", "dog/2.wav"]


@pytest.mark.parametrize("names", [("train_horn", "dog"), ("train_horn", "train_whistle"), ("test_tone", "dev_kit")])
def test_a_word_of_some_folders_or_of_one_split_is_that_of_a_class(tree, names):
    assert labels_of(load(tree(*(f"{name}/0.wav" for name in names)))).names == sorted(names)


@pytest.mark.parametrize("name", ["valid", "VALIDATION", "dev", "Val"])
def test_a_validation_split_has_many_names(tree, name):
    folder = tree("train/dog/0.wav", f"{name}/dog/1.wav", "test/dog/2.wav")
    for split in ("validation", "dev", name):
        assert load(folder, split=split)["audio"][0]["path"] == str(folder / name / "dog" / "1.wav")


def test_a_linked_split_is_a_split(tree, tmp_path):
    store = tree("a/dog/0.wav", "b/dog/1.wav")
    (tmp_path / "links").mkdir()
    (tmp_path / "links" / "Train").symlink_to(store / "a")
    (tmp_path / "links" / "Test").symlink_to(store / "b")
    assert load(tmp_path / "links")["file_name"] == ["dog/0.wav"]


def test_a_class_may_be_called_train(tree):
    assert labels_of(load(tree("train/0.wav", "car/0.wav", "bus/0.wav"))).names == ["bus", "car", "train"]


def test_a_split_may_be_alone(tree):
    assert labels_of(load(tree("Train/dog/0.wav", "Train/cat/0.wav"))).names == ["cat", "dog"]


def test_a_split_beside_classes_is_refused(tree):
    folder = tree("dog/0.wav", "cat/0.wav", "test/0.wav")
    with pytest.raises(BeatsError, match=r"has the folder 'test', a split, but none to train on: .* `split: all` if"):
        load(folder)
    assert labels_of(load(folder, split="all")).names == ["cat", "dog", "test"]


def test_two_folders_of_one_split_are_refused(tree):
    folder = tree("train/dog/0.wav", "Train/dog/0.wav", "val/dog/0.wav", "dev/dog/0.wav")
    with pytest.raises(BeatsError, match="the split 'train' may be any of 'Train', 'train': name one as `dataset`"):
        load(folder)
    with pytest.raises(BeatsError, match="the split 'validation' may be any of 'dev', 'val'"):
        load(folder, split="validation")
    assert load(folder, split="dev")["audio"][0]["path"] == str(folder / "dev" / "dog" / "0.wav")


@pytest.mark.parametrize(
    "names",
    [
        ("ds/train/dog/0.wav", "ds/train/cat/0.wav", "ds/test/dog/1.wav", "ds/test/cat/1.wav"),
        ("dog/Train/0.wav", "dog/Valid/1.wav", "cat/Train/0.wav", "cat/Valid/1.wav"),
        ("a/b/train_set/dog/0.wav", "a/b/test_set/dog/1.wav"),
        ("a/esc_train/dog/0.wav", "b/esc_train/cat/0.wav", "b/esc_test/cat/1.wav"),
    ],
)
def test_splits_below_other_folders_are_refused(tree, names):
    folder = tree(*names)
    with pytest.raises(BeatsError, match=r"lies in a split below another folder: name the folder .*`split: all`"):
        load(folder)
    assert len(load(folder, split="all")) == len(names)


def test_folders_below_classes_are_no_splits_if_none_is_to_train_on(tree):
    assert len(load(tree("dog/test/0.wav", "cat/test/0.wav", "bell/valid/1.wav", "bird/take/1.wav"))) == 4


def test_a_split_that_is_not_there_is_refused(tree):
    with pytest.raises(BeatsError, match="has no folder 'test', which the split of that name would be"):
        load(tree("train/dog/0.wav", "dev/dog/0.wav"), split="test")


@pytest.mark.parametrize("split", ["train[:10%]", "test[:25%]", "all[:3]"])
def test_a_part_of_a_local_split_is_refused(tree, split):
    folder = tree("train/dog/0.wav", "test/dog/1.wav")
    with pytest.raises(UsageError, match=f"`split` is '{re.escape(split)}', and a part can be asked of a dataset"):
        load(folder, split=split)
    assert len(load(tree(f"{split}/0.wav"), split=split)) == 1


@pytest.mark.parametrize("split", ["train2", "test_", "testdata"])
def test_a_split_that_is_asked_for_by_another_name_is_not_there(tree, tmp_path, split):
    folder = tree("train/dog/0.wav", "test/dog/1.wav")
    with pytest.raises(BeatsError, match=f"has no folder '{split}'"):
        load(folder, split=split)
    for name in ("train-0", "test-0"):
        (tmp_path / "tar").mkdir(exist_ok=True)
        tarfile.open(tmp_path / "tar" / f"{name}.tar", "w").close()
    with pytest.raises(BeatsError, match=f"has no folder '{split}'"):
        load(tmp_path / "tar", split=split)


def test_a_table_above_the_splits_is_read_for_each(tree):
    folder = tree("train/0.wav", "train/1.wav", "Test/2.wav")
    (folder / "metadata.csv").write_text("file_name,label\ntrain/0.wav,dog\ntrain/1.wav,cat\nTest/2.wav,dog\n")
    assert labels_of(load(folder)).values == [[1], [0]]
    assert load(folder, split="test")["label"] == ["dog"]


@pytest.mark.parametrize("form", ["{}", "link", ".", "../ds", "train/../../ds"])
@pytest.mark.parametrize("is_relative", [True, False])
def test_a_table_above_the_splits_may_name_paths_of_any_form(tree, tmp_path, monkeypatch, form, is_relative):
    folder = tree("train/0.wav", "train/deep/1.wav", "test/2.wav", "trainer/3.wav")
    (tmp_path / "link").symlink_to(folder)
    monkeypatch.chdir(tmp_path)
    start = {"{}": folder, "link": tmp_path / "link"}.get(form, form)
    names = ("train/0.wav", "train/deep/1.wav", "test/2.wav", "trainer/3.wav", "train/../test/2.wav")
    rows = "".join(f"{start}/{name},{name}\n" for name in names)
    (folder / "metadata.csv").write_text(f"file_name,label\n{rows}")
    source = "ds" if is_relative else folder
    assert load(source)["label"] == ["train/0.wav", "train/deep/1.wav"]
    assert load(source, split="test")["label"] == ["test/2.wav", "train/../test/2.wav"]
    monkeypatch.chdir(folder)
    assert load(".")["label"] == ["train/0.wav", "train/deep/1.wav"]


def test_a_link_in_a_split_is_of_it_wherever_it_leads(tree):
    folder = tree("train/0.wav", "store/1.wav")
    (folder / "test").mkdir()
    (folder / "test" / "1.wav").symlink_to(folder / "train" / "0.wav")
    (folder / "test" / "more").symlink_to(folder / "store")
    (folder / "metadata.csv").write_text("file_name,label\ntrain/0.wav,a\ntest/1.wav,b\ntest/more/1.wav,c\n")
    assert load(folder)["label"] == ["a"]
    assert load(folder, split="test")["label"] == ["b", "c"]


def test_shards_tell_their_split_in_their_names(tmp_path):
    for number, name in enumerate(("train-00000-of-00002", "train-00001-of-00002", "test-00000-of-00001")):
        rows = [{"audio": {"bytes": b"x", "path": name}, "label": number}]
        (tmp_path / "data").mkdir(exist_ok=True)
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "data" / f"{name}.parquet")
    assert sorted(load(tmp_path)["label"]) == [0, 1]
    assert load(tmp_path, split="test")["label"] == [2]
    assert len(load(tmp_path, split="all")) == 3
    with pytest.raises(BeatsError, match="has no folder 'validation'"):
        load(tmp_path, split="validation")


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("suffix", ["parquet", "tar"])
def test_shards_of_other_splits_alone_are_refused(tree, suffix, streaming):
    folder = tree("sounds/0.wav").parent
    for name in ("ds2/test", "ds2/data/validation-0"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.make_archive(str(folder / name), "tar", folder / "ds" / "sounds")
        if suffix == "parquet":
            (folder / f"{name}.tar").unlink()
            rows = [{"audio": {"bytes": b"x", "path": "0.wav"}}]
            pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), folder / f"{name}.parquet")
    with pytest.raises(
        BeatsError, match=rf"ds2: holds '.*\.{suffix}', a shard of another split, but none to train on"
    ):
        load(folder / "ds2", streaming=streaming)
    assert len(list(load(folder / "ds2", split="all", streaming=streaming))) == 2
    # Audio files beside them are to train on.
    (folder / "ds2" / "0.wav").write_bytes(b"")
    assert [row["audio"]["path"] for row in load(folder / "ds2", streaming=streaming)] == [str(folder / "ds2/0.wav")]


# Several folders


def test_several_folders_are_one_dataset(tree, tmp_path):
    first, second = tree("a/dog/0.wav", "a/cat/0.wav", "b/dog/0.wav"), tmp_path / "ds" / "b"
    dataset = load_audio_dataset(DataArguments(dataset=[str(first / "a"), str(second)]))
    assert [row["path"] for row in dataset["audio"]] == [
        str(first / name) for name in ("a/cat/0.wav", "a/dog/0.wav", "b/dog/0.wav")
    ]
    assert labels_of(dataset).values == [[0], [1], [1]]


def test_several_datasets_need_the_same_columns(tree):
    folder = tree("a/0.wav", "b/0.wav")
    (folder / "a" / "metadata.csv").write_text("file_name,label\n0.wav,dog\n")
    (folder / "b" / "metadata.jsonl").write_text('{"file_name": "0.wav", "label": ["dog"]}\n')
    with pytest.raises(BeatsError, match="their columns differ"):
        load_audio_dataset(DataArguments(dataset=[str(folder / "a"), str(folder / "b")]))
