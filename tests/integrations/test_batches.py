# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Batches of rows, as `datasets`, Spark and Ray pass them: every row has its result or its error."""

import dataclasses
import inspect
import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress

import datasets
import numpy as np
import pandas as pd
import psutil
import pyarrow as pa
import pytest
import soundfile
from datasets.fingerprint import Hasher
from pyarrow import parquet

from transformers_beats import (
    BeatsFeatureExtractor,
    BeatsRandomProjectionTokenizer,
    BeatsRandomProjectionTokenizerConfig,
)
from transformers_beats.inference.loading import load
from transformers_beats.inference.windowed import WindowedInference
from transformers_beats.integrations.batches import BeatsBatches
from transformers_beats.integrations.blocks import (
    RowBlock,
    count_rows,
    digest_of,
    find_parquet,
    name_of_block,
    split_rows,
)
from transformers_beats.utils.errors import BeatsError, UsageError


@pytest.fixture(scope="session")
def rows(tmp_path_factory):
    """Paths of five files, of which the second is no audio and the fourth is missing."""
    folder = tmp_path_factory.mktemp("rows")
    generator = np.random.default_rng(0)
    paths = [folder / f"{number}.wav" for number in range(5)]
    for number, path in enumerate(paths):
        soundfile.write(path, 0.1 * generator.standard_normal(9000 + 2000 * number), 16000)
    paths[1].write_bytes(b"RIFF and nothing else")
    paths[3].unlink()
    return [str(path) for path in paths]


def errors_are_right(errors: list, rows: list[str]) -> None:
    assert [error is None for error in errors] == [True, False, True, False, True]
    assert "holds text and no audio" in errors[1]
    assert errors[3] == f"{rows[3]}: no such file."


@pytest.fixture(scope="session")
def tagger(models):
    return BeatsBatches(str(models / "beats_tiny_finetuned"), top_k=2, return_events=True, event_threshold=0.0)


def test_rows_of_any_container_have_their_results_in_order(tagger, rows):
    table = tagger(pa.table({"path": rows, "number": range(5)}))
    assert table.column_names == ["path", "number", "labels", "events", "duration", "warnings", "error"]
    errors_are_right(table["error"].to_pylist(), rows)
    records = table.to_pylist()
    assert [record["number"] for record in records] == list(range(5))
    assert [len(record["labels"] or []) for record in records] == [2, 0, 2, 0, 2]
    assert records[0]["duration"] == pytest.approx(9000 / 16000)
    assert records[0]["events"][0].keys() == {"label", "score", "start", "end"}
    assert records[1]["labels"] is records[1]["duration"] is None
    frame = tagger(pd.DataFrame({"path": rows, "number": range(5)}))
    assert frame["labels"].tolist() == table["labels"].to_pylist()
    lists = tagger({"path": rows, "number": list(range(5))})
    assert lists == table.to_pydict()
    # As Ray passes batches in its default format.
    arrays = tagger({"path": np.array(rows, dtype=object), "number": np.arange(5)})
    assert arrays.equals(table)


def test_bytes_are_read_and_not_passed_on(models, tagger, rows):
    contents = [None if number == 3 else open(path, "rb").read() for number, path in enumerate(rows)]  # noqa: SIM115
    batches = BeatsBatches(str(models / "beats_tiny_finetuned"), column="bytes", top_k=2)
    table = batches(pa.table({"bytes": pa.array(contents, pa.binary()), "name": rows}))
    assert table.column_names == ["name", "labels", "duration", "warnings", "error"]
    assert [error is None for error in table["error"].to_pylist()] == [True, False, True, False, True]
    assert table["labels"].to_pylist() == tagger(pa.table({"path": rows}))["labels"].to_pylist()


def as_batch(kind: str, columns: dict[str, list]):
    """Rows as a table, a frame, or a mapping of lists or of arrays, as Ray passes them."""
    if kind in ("table", "frame"):
        return pa.table(columns) if kind == "table" else pd.DataFrame(columns, dtype=object)
    arrays = {name: np.fromiter(values, dtype=object, count=len(values)) for name, values in columns.items()}
    return columns if kind == "lists" else arrays


def columns_of(batch) -> list[str]:
    return batch.column_names if isinstance(batch, pa.Table) else list(batch)


def listed(batch, name: str) -> list:
    """The values of a column; a missing one is None."""
    if isinstance(batch, pa.Table):
        return batch[name].to_pylist()
    return [None if isinstance(item, float) and np.isnan(item) else item for item in batch[name]]


KINDS = ("table", "frame", "lists", "arrays")
RESULTS = ["labels", "duration", "warnings", "error"]


@pytest.fixture(scope="session")
def by_bytes(models):
    return BeatsBatches(str(models / "beats_tiny_finetuned"), column="bytes", top_k=2)


@pytest.mark.parametrize("kind", KINDS)
def test_batches_with_no_other_column_have_results(by_bytes, rows, kind):
    contents = [open(rows[0], "rb").read(), b"", None]  # noqa: SIM115
    found = by_bytes(as_batch(kind, {"bytes": contents}))
    assert columns_of(found) == RESULTS
    assert [error is None for error in listed(found, "error")] == [True, False, False]


@pytest.mark.parametrize("kind", KINDS)
def test_texts_with_a_missing_one_are_passed_on(tagger, rows, kind):
    found = tagger(as_batch(kind, {"path": [rows[0], None], "n": [1, 2]}))
    assert [name for name in columns_of(found) if name != "events"] == ["path", "n", *RESULTS]
    assert listed(found, "path") == [rows[0], None]
    assert listed(found, "error") == [None, "Expected a file or an array of numbers, got None."]


def test_the_columns_of_a_table_follow_from_its_types(by_bytes, tagger):
    schema = {"bytes": pa.binary(), "n": pa.int8()}
    empty = by_bytes(pa.table({name: pa.array([], kind) for name, kind in schema.items()}))
    nulls = by_bytes(pa.table({name: pa.array([None], kind) for name, kind in schema.items()}))
    assert empty.schema == nulls.schema
    assert empty.column_names == ["n", *RESULTS]
    for kind in (pa.string(), pa.large_string(), pa.dictionary(pa.int32(), pa.string())):
        for values in ([], [None], ["missing.wav"]):
            found = tagger(pa.table({"path": pa.array(values, pa.string()).cast(kind)}))
            assert found.schema.field("path").type == kind


def test_columns_of_arrays_keep_their_types(tagger, rows):
    times = np.array(["2020-01-01", "NaT"])
    columns = {
        "nanoseconds": times.astype("datetime64[ns]"),
        "days": times.astype("datetime64[D]"),
        "single": np.array([0.1, np.nan], np.float32),
        "small": np.array([-1, 2], np.int16),
        "swapped": np.array([1, 2], ">i4"),
        "flag": np.array([True, False]),
        "text": np.array(["a", "bc"]),
        "vectors": np.arange(6, dtype=np.float32).reshape(2, 3),
        "matrices": np.arange(12, dtype=np.uint8).reshape(2, 3, 2),
        "nothing": np.zeros((2, 0), np.float32),
        "objects": np.fromiter([{"a": 1}, None], dtype=object),
    }
    table = tagger({"path": np.array(rows[::4], dtype=object)[:2]} | columns)
    types = ["timestamp[ns]", "date32[day]", "float", "int16", "int32", "bool", "string"]
    types += ["list<item: float>", "list<item: list<item: uint8>>", "list<item: float>", "struct<a: int64>"]
    assert [str(table.schema.field(name).type) for name in columns] == types
    for name in ("small", "swapped", "flag", "text", "vectors", "matrices", "nothing", "objects"):
        assert table[name].to_pylist() == columns[name].tolist()
    assert [time and time.year for time in table["nanoseconds"].to_pylist()] == [2020, None]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["labels", "duration", "error"])
def test_a_column_of_the_name_of_a_result_is_refused(by_bytes, kind, name):
    batch = as_batch(kind, {"bytes": [b""], name: ["known"]})
    with pytest.raises(UsageError, match=f"has a column '{name}', which is the name of a result: rename"):
        by_bytes(batch)


@pytest.mark.parametrize("kind", ["frame", "lists", "arrays"])
def test_a_name_that_is_not_utf8_stops_no_other(tagger, rows, kind):
    name = os.fsdecode(b"x\xff.wav")
    found = tagger(as_batch(kind, {"path": [name, rows[0]]}))
    assert listed(found, "error") == ["x\\udcff.wav: no such file.", None]
    assert listed(found, "path") == ["x\\udcff.wav" if kind == "arrays" else name, rows[0]]


@pytest.mark.parametrize(
    ("options", "shape"),
    [
        ({}, (64,)),
        ({"layers": "1,2"}, (2, 64)),
        ({"grain": "band", "layers": 1}, (8, 64)),
        ({"grain": "band", "layers": "1,2"}, (2, 8, 64)),
    ],
)
def test_embeddings_are_those_of_the_model(models, rows, options, shape):
    name = str(models / "beats_tiny")
    found = BeatsBatches(name, "embed", **options)({"path": rows})["embedding"]
    inference = WindowedInference(*load(name, "cpu"))
    for row in (0, 2, 4):
        expected = inference.embed(rows[row], **options)
        assert expected.shape[:-1] == shape[:-1]
        np.testing.assert_allclose(np.array(found[row]), expected, atol=1e-5)
    assert found[1] is found[3] is None


def test_tokens_are_those_of_the_tokenizer(models, rows):
    name = str(models / "tokenizer_tiny")
    found = BeatsBatches(name, "tokenize")({"path": rows})["tokens"]
    expected = WindowedInference(*load(name, "cpu")).codes(rows[4])
    np.testing.assert_array_equal(found[4], expected.values)


def test_tokens_of_several_codebooks_are_lists_of_patches(rows, tmp_path):
    BeatsRandomProjectionTokenizer(BeatsRandomProjectionTokenizerConfig(num_codebooks=2)).save_pretrained(tmp_path)
    BeatsFeatureExtractor().save_pretrained(tmp_path)
    found = BeatsBatches(str(tmp_path), "tokenize")({"path": rows})["tokens"]
    expected = WindowedInference(*load(tmp_path, "cpu")).codes(rows[4])
    assert expected.values.shape[1:] == (8, 2)
    np.testing.assert_array_equal(found[4], expected.values)


def test_a_pickle_loads_the_model_again(tagger, rows):
    """As in another process, and so that `datasets` knows its results again."""
    copy = pickle.loads(pickle.dumps(tagger))
    assert copy({"path": rows})["labels"] == tagger({"path": rows})["labels"]
    assert Hasher.hash(tagger) == Hasher.hash(copy)
    changed = pickle.loads(pickle.dumps(tagger))
    changed.fingerprint = "0"
    assert Hasher.hash(tagger) != Hasher.hash(changed)
    with pytest.raises(BeatsError, match="is another model than where it was pickled"):
        pickle.loads(pickle.dumps(changed))


@pytest.mark.parametrize("option", [{"event_threshold": 0.0}, {"min_seconds": 0.1}, {"event_window_seconds": 1.0}])
def test_options_of_events_ask_for_events(models, rows, option):
    name, batch = str(models / "beats_tiny_finetuned"), pa.table({"path": rows})
    found = BeatsBatches(name, **option)(batch)
    assert "events" in found.column_names
    assert found.equals(BeatsBatches(name, return_events=True, **option)(batch))


def test_an_empty_batch_has_all_columns(tagger):
    table = tagger(pa.table({"path": pa.array([], pa.string())}))
    assert len(table) == 0
    assert table.schema.field("labels").type.value_type.field("score").type == pa.float32()


def test_wrong_uses_are_named(models, tagger):
    with pytest.raises(UsageError, match="has no column 'path'; it has file"):
        tagger({"file": ["a.wav"]})
    with pytest.raises(UsageError, match="`action` must be one of tag, embed, tokenize, got 'classify'"):
        BeatsBatches(str(models / "beats_tiny"), "classify")
    with pytest.raises(UsageError, match="knows no labels"):
        BeatsBatches(str(models / "beats_tiny"))
    with pytest.raises(UsageError, match="embed has no option 'layer'; did you mean layers"):
        BeatsBatches(str(models / "beats_tiny"), "embed", layer=1)
    for name in ("top_p", "sampling_rate", "windows_per_batch", "layers", "feature_extractor"):
        with pytest.raises(UsageError, match=f"tag has no option '{name}'"):
            BeatsBatches(str(models / "beats_tiny_finetuned"), **{name: 1})
    with pytest.raises(UsageError, match="tokenize has no option 'top_k'"):
        BeatsBatches(str(models / "tokenizer_tiny"), "tokenize", top_k=1)
    with pytest.raises(UsageError, match="`event_threshold` is of events, which `return_events=False` leaves out"):
        BeatsBatches(str(models / "beats_tiny_finetuned"), return_events=False, event_threshold=0.1)
    with pytest.raises(UsageError, match="layer"):
        BeatsBatches(str(models / "beats_tiny"), "embed", layers=99)


@pytest.fixture(scope="session")
def unlike_rows(rows, tmp_path_factory):
    """Files that give nothing, a warning, an error and results, in which other columns of results are missing."""
    silent, short = (tmp_path_factory.mktemp("unlike") / name for name in ("silent.wav", "short.wav"))
    soundfile.write(silent, np.zeros(16000), 16000)
    soundfile.write(short, 0.1 * np.random.default_rng(1).standard_normal(3000), 16000)
    return {"good": rows[0], "bad": rows[1], "missing": rows[3], "silent": str(silent), "short": str(short)}


UNLIKE = [
    ("good", "bad"),
    ("good", "silent"),
    ("bad", "missing", "good"),
    ("silent", "good", "bad"),
    ("missing", "silent", "short"),
]


@pytest.mark.parametrize("names", UNLIKE)
@pytest.mark.parametrize("format", [None, "arrow"])
def test_in_datasets_any_batch_may_come_first(tagger, unlike_rows, names, format):
    """The types of a dataset are those of its first batch, here of one row."""
    paths = [unlike_rows[name] for name in names]
    notes = [None, *range(1, len(paths))]
    found = datasets.Dataset.from_dict({"path": paths, "note": notes}).with_format(format)
    found = found.map(tagger, batched=True, batch_size=1, load_from_cache_file=False).with_format("arrow")[:]
    # Rows of one call and of several share no batches.
    expected = [
        tagger(pa.table({"path": [path], "note": pa.array([note], pa.int64())})) for path, note in zip(paths, notes)
    ]
    assert found.to_pylist() == [row for table in expected for row in table.to_pylist()]
    assert found.schema.field("labels").type.value_type.field("score").type == pa.float32()


@pytest.mark.parametrize(
    ("name", "action", "kind"),
    [("beats_tiny", "embed", pa.list_(pa.float32())), ("tokenizer_tiny", "tokenize", pa.list_(pa.list_(pa.int32())))],
)
def test_in_datasets_arrays_keep_their_types(models, unlike_rows, name, action, kind):
    batches = BeatsBatches(str(models / name), action)
    found = datasets.Dataset.from_dict({"path": [unlike_rows[name] for name in ("bad", "good", "missing")]})
    found = found.map(batches, batched=True, batch_size=1, load_from_cache_file=False).with_format("arrow")[:]
    (field,) = batches.fields
    assert found.schema.field(field).type == kind
    assert [error is None for error in found["error"].to_pylist()] == [False, True, False]


@pytest.mark.parametrize("decode", [False, True])
def test_in_datasets_all_columns_are_kept(models, unlike_rows, decode):
    tagger = BeatsBatches(str(models / "beats_tiny_finetuned"), column="audio", top_k=1)
    columns = {"audio": [unlike_rows[name] for name in ("good", "bad", "good")], "kind": [0, 1, 0]}
    found = datasets.Dataset.from_dict(columns).cast_column("audio", datasets.Audio(decode=decode))
    found = found.cast_column("kind", datasets.ClassLabel(names=["a", "b"]))

    def touch(batch):
        # A column that was read or set has those values.
        batch["kind"], batch["new"] = [1 - kind for kind in batch["kind"]], ["x"] * len(batch["kind"])
        return tagger(batch)

    for function in (tagger, touch):
        mapped = found.map(function, batched=True, batch_size=1, load_from_cache_file=False)
        assert mapped.column_names == ["audio", "kind", *(["new"] if function is touch else []), *RESULTS]
        assert mapped["kind"][:] == ([0, 1, 0] if function is tagger else [1, 0, 1])
        assert mapped.features["audio"] == found.features["audio"]
        assert mapped.features["kind"] == found.features["kind"]
        assert [error is None for error in mapped["error"]] == [True, False, True]


def test_an_iterable_dataset_goes_on_after_a_bad_row(tagger, unlike_rows):
    found = datasets.Dataset.from_dict({"path": [unlike_rows[name] for name in ("bad", "good", "missing")]})
    mapped = list(found.to_iterable_dataset().map(tagger, batched=True, batch_size=1))
    assert [row["error"] is None for row in mapped] == [False, True, False]


def test_datasets_map(models, rows):
    tagger = BeatsBatches(str(models / "beats_tiny_finetuned"), column="audio", top_k=1)
    found = datasets.Dataset.from_dict({"audio": rows[:1] + rows[2:3], "row": [0, 2]})
    found = found.cast_column("audio", datasets.Audio(decode=False))
    mapped = found.map(tagger, batched=True, batch_size=2)
    assert mapped["row"][:] == [0, 2]
    expected = BeatsBatches(str(models / "beats_tiny_finetuned"), top_k=1)({"path": rows})["labels"]
    assert [labels[0]["label"] for labels in mapped["labels"]] == [expected[row][0]["label"] for row in (0, 2)]


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("java") is None, reason="Spark needs Java")
def test_spark_maps_frames(models, tagger, rows, monkeypatch):
    sql = pytest.importorskip("pyspark.sql")
    monkeypatch.setenv("PYSPARK_PYTHON", sys.executable)
    # Paths for the tasks, which are processes of their own.
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    schema = "path string, labels array<struct<label: string, score: float>>, duration double, warnings array<string>"
    model = str(models / "beats_tiny_finetuned")

    def tag_frames(frames):
        batches = BeatsBatches(model, top_k=2)
        for frame in frames:
            yield batches(frame)

    builder = sql.SparkSession.builder.master("local[2]").config("spark.ui.enabled", "false")
    spark = builder.config("spark.driver.host", "127.0.0.1").getOrCreate()
    try:
        paths = spark.createDataFrame([(path,) for path in rows], "path string").repartition(2)
        found = [row.asDict(True) for row in paths.mapInPandas(tag_frames, f"{schema}, error string").collect()]
        found.sort(key=lambda row: row["path"])
    finally:
        spark.stop()
    errors_are_right([row["error"] for row in found], rows)
    expected = tagger({"path": rows})
    assert [row["path"] for row in found] == rows
    for row, labels, duration in zip(found, expected["labels"], expected["duration"]):
        assert row["duration"] == duration
        assert [label["label"] for label in row["labels"] or []] == [label["label"] for label in labels or []]


@pytest.fixture(scope="module")
def cluster():
    """A local cluster of Ray of two processors."""
    ray = pytest.importorskip("ray")
    ray.init(num_cpus=2, include_dashboard=False, configure_logging=False, log_to_driver=False)
    ray.data.DataContext.get_current().enable_progress_bars = False
    yield ray
    ray.shutdown()


def actors() -> list[int]:
    """The numbers of the processes of the pool."""
    found = []
    for process in psutil.Process().children(recursive=True):
        # Some end meanwhile.
        with suppress(psutil.Error):
            if "MapWorker" in " ".join(process.cmdline()):
                found.append(process.pid)
    return found


def kill_one_actor(output, num_blocks: int = 0) -> list[int]:
    """Kills a process of the pool as soon as there are more finished blocks than these; returns its number."""
    killed: list[int] = []
    deadline = time.monotonic() + 240
    while not killed and time.monotonic() < deadline:
        if len(list(output.glob("part-*.parquet"))) > num_blocks:
            for process in actors()[:1]:
                os.kill(process, signal.SIGKILL)
                killed.append(process)
        time.sleep(0.005)
    return killed


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="an actor is killed by a signal")
def test_ray_computes_every_file_once_although_an_actor_is_killed(cluster, models, rows, tmp_path):
    from transformers_beats.integrations.ray import process_with_ray

    folder, output = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    for number in range(40):
        shutil.copy(rows[(0, 1, 2, 4)[number % 4]], folder / f"{number:02d}.wav")
    # Neither is one of them lost, nor does it end the others.
    os.rename(folder / "07.wav", os.fsencode(folder) + b"/07\xff.wav")
    killed: list[int] = []
    killer = threading.Thread(target=lambda: killed.extend(kill_one_actor(output)))
    killer.start()
    arguments = {"model": str(models / "beats_tiny_finetuned"), "concurrency": 2, "files_per_block": 2, "top_k": 1}
    outcome = process_with_ray([folder], output, **arguments)
    killer.join()
    assert len(killed) == 1
    assert (outcome.num_rows, outcome.num_errors, len(outcome.files)) == (40, 10, 20)
    table = pa.concat_tables(parquet.read_table(part) for part in outcome.files)
    names = [os.path.basename(path) for path in table["path"].to_pylist()]
    suffix = r"\udcff"
    assert sorted(names) == [f"{number:02d}{suffix * (number == 7)}.wav" for number in range(40)]
    assert not list(output.glob("*.begun"))
    # Again: nothing is computed; new files are added.
    states = {part: part.stat().st_mtime_ns for part in outcome.files}
    shutil.copy(rows[0], folder / "new.wav")
    again = process_with_ray([folder], output, **arguments, batch_size=4, window_seconds=10, dtype="float32")
    assert (again.num_rows, len(again.files)) == (41, 21)
    assert {part: part.stat().st_mtime_ns for part in outcome.files} == states
    with pytest.raises(UsageError, match="was begun with another `top_k`"):
        process_with_ray([folder], output, **arguments | {"top_k": 2})


# Of a driver that is killed.
DRIVER = """
import json, sys, ray
from transformers_beats.integrations.ray import process_with_ray
address, inputs, output, arguments = sys.argv[1:]
ray.init(address=address, configure_logging=False, log_to_driver=False)
process_with_ray([inputs], output, **json.loads(arguments))
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="processes are killed by a signal")
def test_ray_computes_every_row_once_although_all_is_interrupted_and_an_actor_is_killed(
    cluster, models, rows, tmp_path
):
    from transformers_beats.integrations.ray import process_with_ray

    folder, output = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    contents = [open(rows[(0, 1, 2, 4)[number % 4]], "rb").read() for number in range(45)]  # noqa: SIM115
    for part, (start, stop) in enumerate(((0, 20), (20, 45))):
        table = pa.table({"id": range(start, stop), "bytes": contents[start:stop]})
        parquet.write_table(table, folder / f"{part}.parquet", row_group_size=7)
    arguments = {"model": str(models / "beats_tiny_finetuned"), "column": "bytes", "top_k": 1}
    arguments |= {"concurrency": 2, "files_per_block": 2}
    # The whole is interrupted: the process that shares out the blocks is killed, and with it Ray ends its actors.
    address = cluster.get_runtime_context().gcs_address
    words = [sys.executable, "-c", DRIVER, address, str(folder), str(output), json.dumps(arguments)]
    driver = subprocess.Popen(words, env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)})
    try:
        deadline = time.monotonic() + 240
        while len(list(output.glob("part-*.parquet"))) < 3 and time.monotonic() < deadline:
            assert driver.poll() is None
            time.sleep(0.005)
    finally:
        driver.kill()
        driver.wait()
    while actors() and time.monotonic() < deadline:
        time.sleep(0.05)
    states = {part: part.stat().st_mtime_ns for part in output.glob("part-*.parquet")}
    assert 3 <= len(states) < 23
    # And goes on, and one of its two actors is killed.
    killed: list[int] = []
    killer = threading.Thread(target=lambda: killed.extend(kill_one_actor(output, len(states))))
    killer.start()
    outcome = process_with_ray([folder], output, **arguments)
    killer.join()
    assert len(killed) == 1
    assert (outcome.num_rows, outcome.num_errors, len(outcome.files)) == (45, 11, 23)
    assert {part: part.stat().st_mtime_ns for part in states} == states
    table = pa.concat_tables(parquet.read_table(part) for part in outcome.files).sort_by("id")
    assert table.column_names == ["source_file", "source_row", "id", "labels", "duration", "warnings", "error"]
    assert table["id"].to_pylist() == list(range(45))
    places = [(str(folder / f"{int(number >= 20)}.parquet"), number - 20 * (number >= 20)) for number in range(45)]
    assert list(zip(table["source_file"].to_pylist(), table["source_row"].to_pylist())) == places
    errors = table["error"].to_pylist()
    assert [number for number, error in enumerate(errors) if error] == list(range(1, 45, 4))
    assert errors[21].startswith(f"{folder / '1.parquet'}, row 1: holds text and no audio")
    assert not list(output.glob("*.begun"))
    with pytest.raises(UsageError, match="was begun with another `column`"):
        process_with_ray(rows[:1], output, **arguments | {"column": None})


@pytest.mark.slow
def test_ray_reads_parquet_of_bytes_and_writes_parquet(cluster, models, rows, tmp_path):
    from transformers_beats.integrations.ray import BeatsActor

    contents = [b"" if number == 3 else open(path, "rb").read() for number, path in enumerate(rows)]  # noqa: SIM115
    (tmp_path / "in").mkdir()
    parquet.write_table(pa.table({"bytes": contents, "name": rows}), tmp_path / "in" / "a.parquet")
    for batch_format in ("numpy", "pyarrow"):
        mapped = cluster.data.read_parquet(str(tmp_path / "in")).map_batches(
            BeatsActor,
            fn_constructor_kwargs={"model": str(models / "beats_tiny"), "action": "embed", "column": "bytes"},
            compute=cluster.data.ActorPoolStrategy(min_size=1, max_size=2),
            batch_size=2,
            batch_format=batch_format,
        )
        mapped.write_parquet(str(tmp_path / batch_format))
        table = parquet.read_table(tmp_path / batch_format).sort_by("name")
        assert table["name"].to_pylist() == rows
        assert [error is None for error in table["error"].to_pylist()] == [True, False, True, False, True]
        inference = WindowedInference(*load(str(models / "beats_tiny"), "cpu"))
        np.testing.assert_allclose(table["embedding"][4].as_py(), inference.embed(rows[4]), atol=1e-5)


def block_actor(models, output, run: str = "now", retries: int = 10, **options):
    from transformers_beats.integrations import ray

    model = str(models / "beats_tiny_finetuned")
    return ray._BlockActor(output=str(output), run=run, retries=retries, model=model, **options)


def test_a_block_with_a_name_that_is_not_utf8_is_written(models, rows, tmp_path):
    path = os.fsencode(tmp_path) + b"/x\xff.wav"
    try:
        shutil.copy(rows[0], path)
    except OSError:
        pytest.skip("the file system takes no such names")
    actor = block_actor(models, tmp_path, top_k=2)
    # As Ray passes them.
    block = [path, os.fsencode(tmp_path) + b"/missing\xff.wav", os.fsencode(rows[0])]
    found = actor({"paths": np.array([np.array(block)], dtype=object)})
    table = parquet.read_table(tmp_path / found["block"][0])
    assert table["path"].to_pylist() == [f"{tmp_path}/x\\udcff.wav", f"{tmp_path}/missing\\udcff.wav", rows[0]]
    assert table["error"].to_pylist() == [None, f"{tmp_path}/missing\\udcff.wav: no such file.", None]
    assert table["warnings"][0].as_py() == [f"its name is not UTF-8: its path is written as {tmp_path}/x\\udcff.wav."]
    assert table["labels"][0] == table["labels"][2]


def write_rows(path, rows, kind=None, row_group_size: int = 3, **columns) -> RowBlock:
    """Writes the contents of the rows, three times, the missing one as null, to Parquet; returns all as a block."""
    contents = 3 * [None if number == 3 else open(row, "rb").read() for number, row in enumerate(rows)]  # noqa: SIM115
    values = pa.array(contents, kind or pa.binary())
    table = pa.table({"name": pa.array([f"n{number}" for number in range(15)]), "audio": values, **columns})
    parquet.write_table(table, path, row_group_size=row_group_size)
    return RowBlock(str(path), digest_of(str(path)), 0, 15, "audio")


def computed(actor, output, block: RowBlock) -> pa.Table:
    """The results of a block, which is passed as Ray passes it."""
    batch = {key: np.array([value]) for key, value in block.as_item().items()}
    return parquet.read_table(output / actor(batch)["block"][0])


def test_rows_of_parquet_have_the_results_of_their_files(models, tagger, rows, tmp_path):
    expected = 3 * tagger({"path": rows})["labels"]
    actor = block_actor(models, tmp_path, top_k=2)
    whole = write_rows(tmp_path / "a.parquet", rows, number=pa.array(range(15), pa.int8()))
    # Within a group of rows, over several of them, to the last row.
    for start, stop in ((0, 15), (4, 5), (2, 10), (13, 15)):
        block = dataclasses.replace(whole, start=start, stop=stop)
        table = computed(actor, tmp_path, block)
        assert table.column_names == ["source_file", "source_row", "name", "number", *RESULTS]
        assert table["source_row"].to_pylist() == table["number"].to_pylist() == list(range(start, stop))
        assert table["name"].to_pylist() == [f"n{number}" for number in range(start, stop)]
        assert table.schema.field("number").type == pa.int8()
        assert table["labels"].to_pylist() == expected[start:stop]
        for row, error in zip(range(start, stop), table["error"].to_pylist()):
            place = f"{tmp_path / 'a.parquet'}, row {row}: "
            if row % 5 == 1:
                assert error.startswith(f"{place}holds text and no audio")
            else:
                assert error == (f"{place}holds no recording." if row % 5 == 3 else None)


def test_rows_that_datasets_wrote_have_results_and_keep_their_features(models, tagger, rows, tmp_path):
    contents = [{"bytes": open(rows[0], "rb").read(), "path": "a.wav"}, {"bytes": None, "path": rows[2]}]  # noqa: SIM115
    written = {"audio": [*contents, {"bytes": None, "path": None}], "kind": [1, 0, 1], "id": ["a", "b", "c"]}
    kinds = datasets.ClassLabel(names=["dog", "cat"])
    found = datasets.Dataset.from_dict(written).cast_column("kind", kinds)
    file = str(tmp_path / "a.parquet")
    found.cast_column("audio", datasets.Audio(decode=False)).to_parquet(file)
    block = RowBlock(file, digest_of(file), 0, 3, "audio", ["kind"])
    table = computed(block_actor(models, tmp_path, top_k=2), tmp_path, block)
    assert table.column_names == ["source_file", "source_row", "kind", *RESULTS]
    assert table["labels"].to_pylist() == [*tagger({"path": [rows[0], rows[2]]})["labels"], None]
    assert table["error"].to_pylist() == [None, None, f"{file}, row 2: holds no recording."]
    assert datasets.Features.from_arrow_schema(table.schema)["kind"] == kinds


@pytest.mark.parametrize("damaged", ["audio", "name"])
def test_rows_of_a_damaged_place_have_errors_and_stop_no_others(models, rows, tmp_path, damaged):
    block = write_rows(tmp_path / "a.parquet", rows, row_group_size=5)
    chunk = parquet.read_metadata(block.file).row_group(1).column(["name", "audio"].index(damaged))
    with open(block.file, "r+b") as file:
        file.seek(chunk.dictionary_page_offset or chunk.data_page_offset)
        file.write(b"\xff" * 40)
    table = computed(block_actor(models, tmp_path), tmp_path, block)
    errors = table["error"].to_pylist()
    assert table["source_row"].to_pylist() == list(range(15))
    if damaged == "audio":
        assert table["name"].to_pylist() == [f"n{number}" for number in range(15)]
    else:
        # Whose results they would be, nobody could tell.
        assert [name is None for name in table["name"].to_pylist()] == [5 <= row < 10 for row in range(15)]
    assert [error is None for error in errors[:5] + errors[10:]] == 2 * [True, False, True, False, True]
    for row in range(5, 10):
        assert errors[row].startswith(f"{block.file}, row {row}: cannot be read: ")


def test_a_row_that_ends_its_process_again_and_again_is_left_out(models, rows, tmp_path):
    from transformers_beats.integrations import ray

    block = write_rows(tmp_path / "a.parquet", rows)
    noted = {"run": "earlier", "tries": 3, "files": {"2": ray.MOST_CRASHES}}
    (tmp_path / block.name).with_suffix(".begun").write_text(json.dumps(noted))
    errors = computed(block_actor(models, tmp_path), tmp_path, block)["error"].to_pylist()
    assert errors[2] == f"{block.file}, row 2: was left out: the process ended 3 times after it was opened."
    assert errors[0] is errors[4] is None


def test_blocks_of_rows_are_those_that_are_not_done(models, rows, tmp_path):
    file = str(tmp_path / "a.parquet")
    whole = write_rows(file, rows)
    actor = block_actor(models, tmp_path)
    parts = []
    for start, stop in ((4, 6), (10, 12)):
        done = dataclasses.replace(whole, start=start, stop=stop)
        computed(actor, tmp_path, done)
        parts.append(tmp_path / done.name)
    for size, spans in (
        (4, [(0, 4), (6, 10), (12, 15)]),
        (3, [(0, 3), (3, 4), (6, 9), (9, 10), (12, 15)]),
        (99, [(0, 4), (6, 10), (12, 15)]),
    ):
        blocks = split_rows({file: 15}, parts, size, "audio", None)
        assert [(block.start, block.stop) for block in blocks] == spans
    # Found by another path, it is the same file.
    (tmp_path / "link").symlink_to(tmp_path, target_is_directory=True)
    assert len(split_rows({str(tmp_path / "link" / "a.parquet"): 15}, parts, 99, "audio", None)) == 3
    write_rows(file, rows, number=pa.array(range(15)))
    with pytest.raises(UsageError, match=r"a\.parquet: has changed since rows of it were computed"):
        split_rows({file: 15}, parts, 4, "audio", None)
    # Not counted among the rows, but noticed before any is computed.
    with pytest.raises(BeatsError, match=r"a\.parquet: has changed since its rows were counted"):
        computed(actor, tmp_path, whole)


def test_parquet_that_cannot_be_used_is_refused(rows, tmp_path):
    file = str(tmp_path / "in" / "a.parquet")
    (tmp_path / "in").mkdir()
    write_rows(file, rows, labels=pa.array(range(15)), numbers=pa.array([[0.0]] * 15))
    assert count_rows(file, "audio", ["name"], ["labels"]) == 15
    for arguments, message in (
        (("sound", None, []), "has no column 'sound'; it has name, audio, labels, numbers"),
        (("audio", ["id"], []), "has no column 'id'"),
        (("audio", None, ["labels"]), "has a column 'labels', which is the name of a result: leave it out of `keep`"),
        (("numbers", None, []), "its column 'numbers' is of list<.*>: expected bytes"),
    ):
        with pytest.raises(UsageError, match=message):
            count_rows(file, *arguments)
    assert find_parquet([tmp_path / "in", tmp_path / "in" / "a.parquet"], tmp_path / "out") == [file]
    with pytest.raises(UsageError, match=r"lies in .*in, whose Parquet files are read: choose another output"):
        find_parquet([tmp_path / "in"], tmp_path / "in" / "out")
    with pytest.raises(UsageError, match="missing: no such file or folder"):
        find_parquet([tmp_path / "missing"], tmp_path / "out")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match=r"No Parquet file in .*empty"):
        find_parquet([tmp_path / "empty"], tmp_path / "out")


def settings_with(models, action: str = "tag", **options) -> dict:
    from transformers_beats.integrations.ray import settings_of

    name = {"tag": "beats_tiny_finetuned", "embed": "beats_tiny", "tokenize": "tokenizer_tiny"}[action]
    return settings_of(BeatsBatches(str(models / name), action, **options), **options)


def test_settings_of_an_archive_are_those_that_change_results(models):
    plain = settings_with(models)
    for same in (
        {"batch_size": 16},
        {"device": "cpu"},
        {"dtype": "float32"},
        {"window_seconds": 10},
        {"hop_seconds": 10.0},
        {"top_k": 5, "threshold": None, "return_events": False},
        {"event_threshold": None, "gap_seconds": None},
    ):
        assert settings_with(models, **same) == plain, same
    for other in (
        {"dtype": "bfloat16"},
        {"window_seconds": 5.0},
        {"hop_seconds": 5.0},
        {"top_k": None},
        {"threshold": 0.1},
        {"return_events": True},
        {"event_threshold": 0.1},
    ):
        assert settings_with(models, **other) != plain, other
    events = settings_with(models, return_events=True)
    written = {"event_threshold": 0.5, "event_window_seconds": 2.0, "event_hop_seconds": 0.5, "gap_seconds": 0.0}
    assert settings_with(models, return_events=True, **written) == events
    assert settings_with(models, **written) == events
    for name in ("event_threshold", "event_window_seconds", "event_hop_seconds", "gap_seconds"):
        assert settings_with(models, return_events=True, **{name: 0.8}) != events
    arrays = settings_with(models, "embed")
    assert settings_with(models, "embed", layers="-1", grain="clip", pooling="mean") == arrays
    for other in ({"layers": "1"}, {"layers": "-1:"}, {"grain": "band"}, {"pooling": "concat"}):
        assert settings_with(models, "embed", **other) != arrays, other
    assert settings_with(models, "tokenize")["action"] == "tokenize"
    assert settings_with(models, backend="onnx") == plain
    assert settings_with(models, backend="onnx-int8") != plain


def test_process_with_ray_refuses_what_it_cannot_use_before_it_starts(models, rows, tmp_path):
    pytest.importorskip("ray")
    from transformers_beats.integrations.ray import process_with_ray

    for wrong, message in (
        ({"column": "bytes"}, "0.wav: cannot be read as Parquet"),
        ({"keep": ["name"]}, "`keep` is of the columns of Parquet files"),
        ({"top_k": 0}, "`top_k` must be"),
    ):
        with pytest.raises(UsageError, match=message):
            process_with_ray(rows[:1], tmp_path / "out", str(models / "beats_tiny_finetuned"), **wrong)
    assert not (tmp_path / "out").exists()


def test_a_file_that_ends_its_process_again_and_again_is_left_out(models, rows, tmp_path):
    from transformers_beats.integrations import ray

    actor = block_actor(models, tmp_path)
    block = [rows[0], rows[4]]
    noted = {"run": "earlier", "tries": 3, "files": {rows[4]: ray.MOST_CRASHES}}
    (tmp_path / name_of_block(block)).with_suffix(".begun").write_text(json.dumps(noted))
    assert actor({"paths": [block]}) == {"block": [name_of_block(block)]}
    table = parquet.read_table(tmp_path / name_of_block(block))
    assert table["error"].to_pylist() == [
        None,
        f"{rows[4]}: was left out: the process ended {ray.MOST_CRASHES} times after it was opened.",
    ]


def test_a_block_is_tried_again_so_many_times_in_each_run(models, rows, tmp_path, monkeypatch):
    class Died(BaseException):
        """End of the process, such as by a signal."""

    def die(*_):
        raise Died

    block = [rows[0], rows[4]]
    for run in ("first", "second"):
        with monkeypatch.context() as patched:
            patched.setattr(BeatsBatches, "open", die)
            for _ in range(3):
                with pytest.raises(Died):
                    block_actor(models, tmp_path, run, retries=2)({"paths": [block]})
            with pytest.raises(BeatsError, match=r"part-.*: the process ended 3 times before it was written"):
                block_actor(models, tmp_path, run, retries=2)({"paths": [block]})
    # Files that were the last to be opened are left out by now, and all is noted.
    (name,) = block_actor(models, tmp_path, "third", retries=0)({"paths": [block]})["block"]
    errors = parquet.read_table(tmp_path / name)["error"].to_pylist()
    assert [error is None for error in errors] == [False, False]
    assert not list(tmp_path.glob("*.begun"))


@pytest.mark.parametrize(("concurrency", "sizes"), [(2, (2, 2)), ((1, 3), (1, 3))])
def test_ray_is_called_with_arguments_that_it_keeps(models, rows, tmp_path, monkeypatch, concurrency, sizes):
    ray = pytest.importorskip("ray")
    from transformers_beats.integrations.ray import process_with_ray

    seen = {}

    class Blocks:
        def map_batches(self, function, **arguments):
            seen.update(arguments)
            return self

        def materialize(self):
            pass

    monkeypatch.setattr(ray.data, "from_items", lambda items, override_num_blocks: Blocks())
    process_with_ray(rows[:1], tmp_path / "out", str(models / "beats_tiny_finetuned"), concurrency=concurrency)
    # What is no parameter of its own is no longer taken from Ray 2.64 on, and `concurrency` is deprecated.
    parameters = inspect.signature(ray.data.Dataset.map_batches).parameters
    assert seen.keys() <= parameters.keys() - {"concurrency", "ray_remote_args_fn", "ray_remote_args"}
    assert (seen["compute"].min_size, seen["compute"].max_size) == sizes


@pytest.mark.parametrize("concurrency", [0, (0, 2), (3, 2)])
def test_a_pool_of_no_actors_is_refused(models, rows, tmp_path, concurrency):
    pytest.importorskip("ray")
    from transformers_beats.integrations.ray import process_with_ray

    with pytest.raises(UsageError, match="`concurrency` must be at least 1, and a range must not fall, got "):
        process_with_ray(rows[:1], tmp_path, str(models / "beats_tiny_finetuned"), concurrency=concurrency)


def test_without_ray_the_error_says_what_to_install(models, rows, tmp_path, monkeypatch):
    from transformers_beats.integrations.ray import process_with_ray

    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    with pytest.raises(BeatsError, match=r"pip install 'transformers-beats\[ray\]'"):
        process_with_ray(rows[:1], tmp_path / "out", str(models / "beats_tiny_finetuned"))


def test_columns_of_matrices_are_kept(tagger, rows):
    matrices = np.empty(2, dtype=object)
    matrices[:] = [np.ones((2, 3), np.float32), np.zeros((4, 3), np.float32)]
    table = tagger({"path": np.array([rows[0], rows[2]], dtype=object), "mel": matrices})
    assert table["mel"].to_pylist() == [matrix.tolist() for matrix in matrices]
