# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
# ruff: noqa: PT017  # either a result or an error: `pytest.raises` demands one
"""Tables and folders of a dataset: text as it was written, or one line that says what is wrong."""

import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest
from fuzzing import DAMAGES, damage, fuzz
from hypothesis import strategies as st

from transformers_beats.audio.files import is_hidden
from transformers_beats.training.data.labels import parse_lists
from transformers_beats.training.data.splits import find_split, split_of, splits_of_folders
from transformers_beats.training.data.tables import list_table_files, read_table
from transformers_beats.utils.errors import BeatsError


# What other programs make numbers, dates, truth values or nothing of.
CELLS = st.one_of(
    st.sampled_from(
        ["007", "7", "1.0", "1e5", "NA", "nan", "None", "null", "true", "-", "['a', 'b']", "{a,b}", "2020-01-01"]
    ),
    st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=8).map(str.strip).filter(bool),
)
WORDS = st.sampled_from(
    ["train", "Test", "VALID", "dev", "eval", "dog", "cat", "set", "data", "16k", "holdout", "trn"]
)
NAMES = st.builds(
    "".join, st.lists(st.one_of(WORDS, st.sampled_from(["_", "-", " ", ".", "1"])), min_size=1, max_size=4)
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("tables")
    (path / "a.wav").write_bytes(b"")
    return path


def is_refused(read, path: Path) -> bool:
    """Whether a table is refused, in one line that names it."""
    try:
        read(path)
    except BeatsError as error:
        assert len(str(error).splitlines()) == 1
        assert str(path) in str(error)
        return True
    return False


@fuzz(
    40, 3000, cells=st.lists(CELLS, min_size=1, max_size=6), kind=st.sampled_from([".csv", ".tsv", ".json", ".jsonl"])
)
def test_text_in_a_table_stays_as_it_was_written(folder, cells, kind):
    rows = [{"file_name": "a.wav", "label": cell} for cell in cells]
    text = io.StringIO(newline="")
    if kind in (".csv", ".tsv"):
        writer = csv.DictWriter(text, ["file_name", "label"], delimiter="," if kind == ".csv" else "\t")
        writer.writeheader()
        writer.writerows(rows)
    elif kind == ".json":
        json.dump(rows, text)
    else:
        text.writelines(json.dumps(row) + "\n" for row in rows)
    path = folder / f"table{kind}"
    path.write_text(text.getvalue(), encoding="utf-8", newline="")
    assert read_table(path).dataset["label"][:] == cells


@fuzz(
    40,
    10000,
    kind=st.sampled_from([".csv", ".tsv", ".json", ".jsonl", ".parquet"]),
    start=st.sampled_from(
        [b"", b"file_name,label\n", b'[{"file_name": "a.wav"}', b"PAR1", b"\xff\xfe", b"file_name\tlabel\r\n"]
    ),
    rest=st.binary(max_size=100),
)
def test_any_bytes_are_a_table_or_one_line(folder, kind, start, rest):
    path = folder / f"any{kind}"
    path.write_bytes(start + rest)
    is_refused(list_table_files, path)


@fuzz(
    40,
    5000,
    kind=st.sampled_from([".csv", ".json", ".parquet"]),
    how=st.sampled_from(DAMAGES),
    seed=st.integers(0, 2**32),
)
def test_damaged_tables_are_read_or_one_line(folder, kind, how, seed):
    path = folder / f"damaged{kind}"
    if kind == ".parquet":
        read_table(_write(folder / "whole.csv")).dataset.to_parquet(path)
    elif kind == ".json":
        path.write_text(json.dumps([{"file_name": "a.wav", "label": ["a", "b"]}] * 5))
    else:
        _write(path)
    path.write_bytes(damage(path.read_bytes(), how, np.random.default_rng(seed)))
    is_refused(list_table_files, path)


def _write(path: Path) -> Path:
    path.write_text("file_name,label\n" + "a.wav,dog\n" * 5)
    return path


@fuzz(60, 10000, texts=st.lists(st.one_of(CELLS, st.text("[]{}()'\", abc01.", max_size=12)), min_size=1, max_size=4))
def test_lists_in_texts_are_read_or_one_line(texts):
    try:
        values = parse_lists(texts, "column 'label'", [f"clip {index}" for index in range(len(texts))])
    except BeatsError as error:
        assert len(str(error).splitlines()) == 1
        return
    assert all(value == text or isinstance(value, list) for value, text in zip(values, texts))


@fuzz(60, 5000, names=st.sets(NAMES.filter(lambda name: name not in (".", "..")), min_size=1, max_size=4))
def test_folders_are_splits_or_all_of_them_classes(tmp_path_factory, names):
    root = tmp_path_factory.mktemp("ds")
    for name in names:
        (root / name).mkdir()
    names = {name for name in names if not is_hidden(name)}
    splits = splits_of_folders(sorted(names))
    assert all(splits[name] == split_of(name) for name in names if split_of(name) is not None)
    try:
        found = find_split(root, "train")
    except BeatsError as error:
        assert len(str(error).splitlines()) == 1
        return
    # Nothing of another split is trained on.
    assert found is not None
    assert found != root or not {"validation", "test"} & {split_of(name) for name in names}
    root_names = [name for name in names if found == root / name]
    assert found == root or splits[root_names[0]] == "train" or root_names == ["train"]
