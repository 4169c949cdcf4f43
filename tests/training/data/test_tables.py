# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Tables of audio files as people have them: what their cells mean, and what is said of those that cannot be read."""

import json
from pathlib import Path

import datasets
import pandas
import pyarrow
import pyarrow.parquet
import pytest

from transformers_beats.training.data.folds import FoldArguments, read_folds
from transformers_beats.training.data.labels import LabelArguments, Labels, read_labels
from transformers_beats.training.data.shards import read_audio
from transformers_beats.training.data.sources import DataArguments, load_audio_dataset
from transformers_beats.utils.errors import BeatsError


ANIMALS = ("dog", "cat", "cow")
NAMES = [f"audio/{animal}{number}.wav" for animal in ANIMALS for number in range(4)]


@pytest.fixture(autouse=True)
def audio(tmp_path) -> Path:
    """Twelve files, which nobody decodes here."""
    (tmp_path / "audio").mkdir()
    for name in NAMES:
        (tmp_path / name).write_bytes(b"")
    return tmp_path


def load(path: Path, **values) -> datasets.Dataset:
    return load_audio_dataset(DataArguments(dataset=str(path), **values))


def labels_of(path: Path, data: dict | None = None, **values) -> Labels:
    dataset = load(path, **(data or {}))
    return read_labels(dataset, LabelArguments(**values), dataset["file_name"])


def csv_of(labels: tuple[str, ...], names: list[str] = NAMES, delimiter: str = ",", end: str = "\r\n") -> str:
    """A table of twelve clips, four of each label."""
    rows = [f"{name}{delimiter}{labels[index // 4]}" for index, name in enumerate(names)]
    return end.join([f"file_name{delimiter}label", *rows, ""])


# Labels


@pytest.mark.parametrize(
    "labels",
    [
        ("007", "010", "100"),
        ("001", "01", "1"),
        ("NA", "None", "null"),
        ("nan", "NaN", "N/A"),
        ("1e5", "100000", "1E5"),
        ("True", "true", "1"),
        ("1.0", "1", "1.00"),
        ("2024-01-01", "12:30", "<unk>"),
    ],
)
@pytest.mark.parametrize("suffix", ["csv", "tsv", "json", "jsonl", "parquet"])
def test_text_stays_text(audio, labels, suffix):
    path = audio / f"clips.{suffix}"
    rows = [{"file_name": name, "label": labels[index // 4]} for index, name in enumerate(NAMES)]
    if suffix in ("csv", "tsv"):
        path.write_text(csv_of(labels, delimiter="," if suffix == "csv" else "\t"), newline="")
    elif suffix == "parquet":
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    else:
        path.write_text(json.dumps(rows) if suffix == "json" else "\n".join(map(json.dumps, rows)))
    found = labels_of(path)
    assert sorted(found.names) == sorted(labels)
    assert [found.names[index] for (index,) in found.values[::4]] == list(labels)


def test_numbers_in_text_are_sorted_as_numbers(audio):
    (audio / "clips.csv").write_text(csv_of(("10", "9", "-2")))
    assert labels_of(audio / "clips.csv").names == ["-2", "9", "10"]


@pytest.mark.parametrize(
    "write",
    [
        lambda animal: f"\"['{animal}', 'animal']\"",
        lambda animal: f'"[""{animal}"", ""animal""]"',
        lambda animal: f"['{animal}' 'animal']",
        lambda animal: f"\"['{animal}'\n 'animal']\"",
        lambda animal: f"\"{{'{animal}', 'animal'}}\"",
        lambda animal: f"\"('{animal}', 'animal')\"",
        lambda animal: f'"[{animal}, animal]"',
        lambda animal: f'"{{{animal},animal}}"',
    ],
)
def test_a_list_in_a_cell_is_a_list(audio, write):
    (audio / "clips.csv").write_text(csv_of(tuple(map(write, ANIMALS))), newline="")
    for values in ({}, {"label_separator": ","}):
        labels = labels_of(audio / "clips.csv", **values)
        assert (labels.task, labels.names) == ("multi_label", ["animal", "cat", "cow", "dog"])
        assert labels.values[::4] == [[0, 3], [0, 1], [0, 2]]


def test_empty_lists_and_plain_texts_stand_among_lists(audio):
    (audio / "clips.csv").write_text(csv_of(("[]", "\"['cat', 'dog']\"", "dog")))
    assert labels_of(audio / "clips.csv").values[::4] == [[], [0, 1], [1]]


def test_brackets_alone_make_no_list(audio):
    (audio / "clips.csv").write_text(csv_of(("[noise]", "(unknown)", "{x}")))
    assert labels_of(audio / "clips.csv").names == ["(unknown)", "[noise]", "{x}"]


def test_a_list_that_cannot_be_read_is_refused(audio):
    for cell in ("\"['dog', nan]\"", "\"array(['dog'], dtype=object)\"", "\"['dog', 'animal'\""):
        (audio / "clips.csv").write_text(csv_of((cell, "cat", "cow")))
        with pytest.raises(BeatsError, match=r"audio/dog0\.wav: column 'label' holds .*, which cannot be read as"):
            labels_of(audio / "clips.csv")


@pytest.mark.parametrize(
    "write", [str, lambda row: str(row).replace(",", ""), lambda row: str([float(v) for v in row])]
)
def test_vectors_of_zeros_and_ones_are_multi_hot(audio, write):
    vectors = [[1, 0, 1], [0, 1, 1], [0, 0, 0]]
    (audio / "clips.csv").write_text(csv_of(tuple(f'"{write(vector)}"' for vector in vectors)))
    labels = labels_of(audio / "clips.csv")
    assert (labels.task, labels.names) == ("multi_label", ["0", "1", "2"])
    assert labels.as_array()[::4].tolist() == vectors
    dataset = load(audio / "clips.csv")
    of_model = read_labels(dataset, LabelArguments(), dataset["file_name"], ["dog", "cat", "animal"])
    assert of_model.as_array()[::4].tolist() == vectors
    with pytest.raises(BeatsError, match="column 'label' has 3 zeros and ones, but there are 2 classes"):
        read_labels(dataset, LabelArguments(), dataset["file_name"], ["dog", "cat"])


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (
            [[1, None, 0, 1], [0, 1, 0, 0], [0, 0, 1, 1]],
            "a.wav: column 'label' has zeros and ones for 4",
        ),
        (
            [[1, 0, 0], [0, float("nan"), 0], [0, 0, 1]],
            "b.wav: column 'label' has .*3 classes, of which 1 are",
        ),
        ([[1, 0, 0], [0, 1, 0], None], "c.wav: column 'label' has .* 3 classes, of which 3 are missing"),
    ],
)
def test_vectors_with_missing_numbers_are_no_lists_of_the_classes_0_and_1(rows, message):
    dataset = datasets.Dataset.from_dict({"label": rows})
    with pytest.raises(BeatsError, match=message):
        read_labels(dataset, LabelArguments(), ["a.wav", "b.wav", "c.wav"])


@pytest.mark.parametrize("rows", [[[0, None], [1, None], [0, 1]], [["1", ""], ["0", ""], ["0", "1"]]])
def test_lists_of_two_classes_may_be_filled_up(rows):
    labels = read_labels(datasets.Dataset.from_dict({"label": rows}), LabelArguments(), ["a.wav", "b.wav", "c.wav"])
    assert (labels.names, labels.values[2]) == (["0", "1"], [0, 1])
    assert sorted(labels.values[:2]) == [[0], [1]]


def test_lists_of_classes_may_lack_some():
    dataset = datasets.Dataset.from_dict({"label": [[1, 2], [0, 1], None]})
    labels = read_labels(dataset, LabelArguments(), ["a.wav", "b.wav", "c.wav"])
    assert (labels.names, labels.values) == (["0", "1", "2"], [[1, 2], [0, 1], []])


def test_integers_of_datasets_are_multi_hot_too():
    for rows in ([[1, 0], [0, 1]], [[True, False], [False, True]], [[1.0, 0.0], [0.0, 1.0]]):
        dataset = datasets.Dataset.from_dict({"labels": rows})
        assert read_labels(dataset, LabelArguments(), ["a", "b"]).as_array().tolist() == [[1, 0], [0, 1]]
    # Indices of classes: of other lengths, or larger.
    for rows, expected in (([[0], [0, 1]], [[0], [0, 1]]), ([[0, 1], [1, 2]], [[0, 1], [1, 2]])):
        dataset = datasets.Dataset.from_dict({"labels": rows})
        assert read_labels(dataset, LabelArguments(), ["a", "b"]).values == expected


@pytest.mark.parametrize("separator", list(",|;:-#&*%@>~?!/+ \t"))
def test_any_text_separates_labels(audio, separator):
    cell = f'"dog{separator}animal"'
    (audio / "clips.csv").write_text(csv_of((cell, "cat", "cow")))
    labels = labels_of(audio / "clips.csv", label_separator=separator)
    assert (labels.task, labels.names) == ("multi_label", ["animal", "cat", "cow", "dog"])
    assert labels.values[0] == [0, 3]


def test_an_empty_separator_is_refused():
    with pytest.raises(BeatsError, match="`label_separator` is empty: in a recipe, it is written in quotes"):
        LabelArguments(label_separator="")


def test_labels_that_look_joined_are_told(audio, caplog):
    (audio / "clips.csv").write_text(csv_of(("dog|animal", "cat|animal", "cow")))
    assert len(labels_of(audio / "clips.csv").names) == 3
    assert "classes such as 'cat|animal', whose parts are in others too" in caplog.text
    assert "`label_separator: '|'`" in caplog.text
    caplog.clear()
    (audio / "clips.csv").write_text(csv_of(('"Chant, mantra"', '"Whoosh, swish"', "Dog")))
    labels_of(audio / "clips.csv")
    assert not caplog.text


def test_events_can_be_written_in_a_cell(audio):
    cells = (
        '"[{""label"": ""dog"", ""onset"": 0.5, ""offset"": 1}]"',
        "\"[{'label': 'cat', 'onset': 0, 'offset': 0.25}]\"",
        "[]",
    )
    (audio / "clips.csv").write_text(csv_of(cells))
    labels = labels_of(audio / "clips.csv")
    assert (labels.task, labels.names) == ("frames", ["cat", "dog"])
    assert labels.values[::4] == [[(1, 0.5, 1.0)], [(0, 0.0, 0.25)], []]


def test_a_label_that_is_empty_is_told(audio):
    (audio / "clips.csv").write_text(csv_of(("dog", "", "cow")))
    with pytest.raises(BeatsError, match=r"audio/cat0\.wav: column 'label' has 0 labels"):
        labels_of(audio / "clips.csv")


def test_rows_are_selected_by_text_and_by_number(audio):
    rows = [f"{name},{name[6:9]},{number % 3 + 1},{number % 2 == 0}" for number, name in enumerate(NAMES)]
    (audio / "clips.csv").write_text("\n".join(["file_name,label,fold,clean", *rows]))
    for wanted, count in ((1, 4), ([1, 2], 8), ("1", 4), ([3.0], 4), ("01", 0)):
        assert len(load(audio / "clips.csv", select={"fold": wanted})) == count
    assert len(load(audio / "clips.csv", select={"clean": True})) == 6
    assert len(load(audio / "clips.csv", select={"clean": None})) == 0
    dataset = load(audio / "clips.csv")
    labels = read_labels(dataset, LabelArguments(), dataset["file_name"])
    assert [fold.name for fold in read_folds(dataset, labels, FoldArguments(fold_column="fold"), 0)] == ["1", "2", "3"]
    # Each once.
    arguments = FoldArguments(fold_column="fold", folds=[2, "1", "2"])
    assert [fold.name for fold in read_folds(dataset, labels, arguments, 0)] == ["2", "1"]


# Formats


@pytest.mark.parametrize("delimiter", list(",;\t|"))
@pytest.mark.parametrize("suffix", ["csv", "tsv", "tab"])
def test_the_delimiter_is_that_of_the_header(audio, suffix, delimiter):
    (audio / f"clips.{suffix}").write_text(csv_of(ANIMALS, delimiter=delimiter))
    assert labels_of(audio / f"clips.{suffix}").names == ["cat", "cow", "dog"]


@pytest.mark.parametrize("delimiter", list(",;\t|"))
@pytest.mark.parametrize("before", ["", " \n", " \r\n\r\n", "{0}{0}\n", " {0} \n\n"])
def test_rows_without_content_before_the_header_do_not_tell_the_delimiter(audio, before, delimiter):
    (audio / "clips.csv").write_text(before.format(delimiter) + csv_of(ANIMALS, delimiter=delimiter))
    assert labels_of(audio / "clips.csv").names == ["cat", "cow", "dog"]


@pytest.mark.parametrize("suffix", ["csv", "tsv", "tab"])
def test_a_header_without_a_delimiter_has_one_column(audio, suffix):
    names = ["a,b.wav", "a;b.wav", "a|b.wav"]
    for name in names:
        (audio / name).write_bytes(b"")
    lines = [f'"{name}"' if suffix == "csv" else name for name in names]
    (audio / f"clips.{suffix}").write_text("\n".join(["file_name", *lines, ""]))
    assert load(audio / f"clips.{suffix}")["file_name"] == names


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_marks_of_encodings_and_ends_of_lines_are_understood(audio, encoding, end):
    mark = "\ufeff" if encoding.endswith(("le", "be")) else ""
    (audio / "clips.csv").write_bytes((mark + csv_of(("dogé", "猫", "cow"), end=end)).encode(encoding))
    assert labels_of(audio / "clips.csv").names == ["cow", "dogé", "猫"]


def test_quotes_spaces_and_empty_lines_are_understood(audio):
    text = f'"file_name", "label",\n\n"{NAMES[0]}", "big, ""dog""",\n{NAMES[1]},cat ,\n,,\n'
    (audio / "clips.csv").write_text(text)
    assert labels_of(audio / "clips.csv").names == ['big, "dog"', "cat"]


def test_the_index_of_pandas_is_no_column(audio):
    frame = pandas.DataFrame({"file_name": NAMES, "label": [name[6:9] for name in NAMES]})
    frame.to_csv(audio / "clips.csv")
    assert load(audio / "clips.csv").column_names == ["file_name", "label", "audio", "file_state"]
    frame.astype({"label": "category"}).to_parquet(audio / "clips.parquet")
    for orient in ("columns", "records", "list"):
        content = frame.to_dict() if orient == "columns" else frame.to_dict(orient)
        (audio / f"{orient}.json").write_text(json.dumps(content))
    for name in ("clips.csv", "clips.parquet", "columns.json", "records.json", "list.json"):
        assert labels_of(audio / name).names == ["cat", "cow", "dog"]


def test_json_may_be_lines_or_hold_its_rows_in_an_entry(audio):
    rows = [{"wav": str(audio / name), "labels": f"{name[6:9]},animal"} for name in NAMES]
    (audio / "ast.json").write_text(json.dumps({"data": rows}))
    (audio / "lines.json").write_text("\n".join(map(json.dumps, rows)))
    (audio / "lines.ndjson").write_text("\n\n".join(map(json.dumps, rows)) + "\n")
    for name in ("ast.json", "lines.json", "lines.ndjson"):
        labels = labels_of(audio / name, {"audio_column": "wav"}, label_separator=",")
        assert labels.names == ["animal", "cat", "cow", "dog"]


def test_numbers_texts_and_lists_may_share_a_column_of_json(audio):
    rows = [{"file_name": name, "label": label} for name, label in zip(NAMES, (1, "1", 1.0, "x", None, ["x", 2]))]
    (audio / "clips.jsonl").write_text("\n".join(map(json.dumps, rows)))
    labels = labels_of(audio / "clips.jsonl")
    assert labels.names == ["1", "2", "x"]
    assert labels.values == [[0], [0], [0], [2], [], [1, 2]]


def test_nan_in_json_is_no_label(audio):
    rows = [{"file_name": name, "label": label} for name, label in zip(NAMES, ("a", float("nan"), ["a", "b"]))]
    (audio / "clips.jsonl").write_text("\n".join(map(json.dumps, rows)))
    labels = labels_of(audio / "clips.jsonl")
    assert (labels.names, labels.values) == (["a", "b"], [[0], [], [0, 1]])


def test_a_parquet_file_of_audio_is_no_table_of_paths(audio):
    rows = [{"file_name": name, "label": name[6:9], "audio": {"bytes": b"x", "path": name}} for name in NAMES]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), audio / "clips.parquet")
    dataset = load(audio / "clips.parquet")
    assert read_audio(dataset[0]["audio"]) == b"x"


# Paths


def test_backslashes_of_windows_are_understood(audio):
    (audio / "clips.csv").write_text(csv_of(ANIMALS, [name.replace("/", "\\") for name in NAMES]))
    dataset = load(audio / "clips.csv")
    assert dataset["file_name"] == NAMES
    assert all(Path(row["path"]).exists() for row in dataset["audio"])


def test_a_file_whose_name_has_a_backslash_is_itself(audio):
    (audio / "audio\\dog0.wav").write_bytes(b"")
    (audio / "clips.csv").write_text("file_name,label\naudio\\dog0.wav,dog\n")
    assert load(audio / "clips.csv")["file_name"] == ["audio\\dog0.wav"]


def test_absolute_paths_and_the_home_directory_are_understood(audio, monkeypatch):
    monkeypatch.setenv("HOME", str(audio))
    (audio / "in").mkdir()
    text = f"file_name,label\n{audio / NAMES[0]},dog\n~/{NAMES[4]},cat\n../{NAMES[8]},cow\n./../{NAMES[9]},cow\n"
    (audio / "in" / "clips.csv").write_text(text)
    assert all(Path(row["path"]).exists() for row in load(audio / "in" / "clips.csv")["audio"])


def test_a_table_without_labels_does_not_take_folders_for_classes(audio):
    (audio / "clips.csv").write_text("file_name,species\naudio/dog0.wav,dog\naudio/cat0.wav,cat\n")
    with pytest.raises(BeatsError, match="No column of labels among species: set `label_column`, or `label_folder`"):
        labels_of(audio / "clips.csv")
    assert labels_of(audio / "clips.csv", label_column="species").names == ["cat", "dog"]


# What is refused, in one line


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("latin.csv", csv_of(("dogé", "cat", "cow")).encode("latin-1"), "latin.csv, line 2: byte 0xe9 is not UTF-8"),
        ("latin.json", '[{"file_name": "é"}]'.encode("latin-1"), "latin.json, line 1: byte 0xe9 is not UTF-8"),
        ("mark.csv", csv_of(ANIMALS).encode("utf-16-le"), "mark.csv, line 1: holds a zero byte"),
        ("ragged.csv", b"file_name,label\na.wav,dog\nb.wav,cat,extra,more\n", "ragged.csv, line 3: has 4 cells, but"),
        ("short.csv", b"file_name,label\na.wav,dog\nb.wav\n", "short.csv, line 3: has 1 cells, but the header 2"),
        ("quote.csv", b'file_name,label\na.wav,"dog\nb.wav,cat\n', "quote.csv, line 3: cannot be read"),
        ("twice.csv", b"file_name,label,label\na.wav,dog,cat\n", "twice.csv: has several columns 'label'"),
        ("empty.csv", b"", "empty.csv: is empty"),
        ("empty.jsonl", b"\n", "empty.jsonl: is empty"),
        ("delimiters.csv", b";;\n;;\n", "delimiters.csv: is empty"),
        ("headonly.csv", b"file_name,label\n", "headonly.csv: has no rows"),
        ("norows.json", b"[]", "norows.json: has no rows"),
        ("nopath.csv", b"file_name,label\naudio/dog0.wav,dog\n\n,cat\n", "nopath.csv, line 4: has no `file_name`"),
        ("nopath.jsonl", b'{"file_name": null, "label": "cat"}', "nopath.jsonl, line 1: has no `file_name`"),
        ("number.json", b'[{"file_name": 7, "label": "cat"}]', "number.json, row 1: has no `file_name`"),
        ("url.csv", b"file_name,label\nhttps://x.org/a.wav,dog\n", "url.csv, line 2: https://x.org/a.wav is a URL"),
        ("gone.csv", b"file_name,label\na.wav,dog\n", "gone.csv: none of its 1 files is there, such as 'a.wav'"),
        ("drive.csv", b"file_name,label\nC:\\a.wav,dog\n", "Drives of Windows are not known here"),
        (
            "header.csv",
            b"path,label\na.wav,dog\n",
            "header.csv: has no column `file_name`, only path, label: set",
        ),
        ("bad.jsonl", b'{"file_name": "a.wav"}\n{"file_name": \n', "bad.jsonl, line 2: is not JSON"),
        ("bad.json", b'{"file_name": ', "bad.json: is not JSON"),
        ("scalar.jsonl", b'{"file_name": "a.wav"}\n7\n', "scalar.jsonl, line 2: must be a record"),
        ("scalar.json", b"7", "scalar.json: must hold a list of records"),
        ("deep.json", b"[" * 100_000, "deep.json: is not JSON"),
        ("bad.parquet", b"PAR1garbage", "bad.parquet: cannot be read as Parquet"),
        ("clips.xlsx", b"PK", "clips.xlsx: is no audio, and no table of a known kind"),
    ],
)
def test_tables_that_cannot_be_read_are_told_in_one_line(audio, name, content, message):
    (audio / name).write_bytes(content)
    with pytest.raises(BeatsError) as caught:
        load(audio / name)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_bad_shard_among_others_is_named(audio):
    (audio / "shards").mkdir()
    pyarrow.parquet.write_table(pyarrow.table({"label": ["x"]}), audio / "shards" / "0.parquet")
    (audio / "shards" / "1.parquet").write_bytes(b"PAR1garbage")
    with pytest.raises(BeatsError, match=r"1\.parquet: cannot be read as Parquet"):
        load(audio / "shards")


def test_a_parquet_file_that_is_damaged_inside_is_named(audio):
    path = audio / "clips.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"file_name": NAMES, "label": NAMES}), path, compression="gzip")
    data = bytearray(path.read_bytes())
    data[20:60] = bytes(40)
    path.write_bytes(data)
    with pytest.raises(BeatsError, match=r"clips\.parquet: cannot be read as Parquet"):
        load(path)


@pytest.mark.parametrize("metadata", [b"\xff", b"{", b"[]", b'{"info": 7}', b'{"info": {"features": {"a": 7}}}'])
def test_damaged_metadata_of_a_parquet_file_are_told(audio, metadata):
    table = pyarrow.Table.from_pylist([{"file_name": "a.wav"}]).replace_schema_metadata({"huggingface": metadata})
    pyarrow.parquet.write_table(table, audio / "clips.parquet")
    with pytest.raises(BeatsError, match=r"clips.parquet: its metadata of `datasets` are damaged: .+"):
        load(audio / "clips.parquet")
