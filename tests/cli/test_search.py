# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""`index`, `search` and `distance` on folders of recordings."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import invoke
import numpy as np
import pytest
import soundfile
from PIL import Image

from transformers_beats.inference import loading
from transformers_beats.inference.windowed import WindowedInference
from transformers_beats.search.distance import measure_distance
from transformers_beats.search.index import Index
from transformers_beats.search.queries import Searcher
from transformers_beats.utils.errors import UsageError


RATE = 16000


run = partial(invoke.run, env={"COLUMNS": "100"})


def lines(*arguments, **options) -> list[dict]:
    return [json.loads(line) for line in run(*arguments, "--json", **options).stdout.splitlines()]


def write_noise(path, seed: int, seconds: float = 1.5, loudness: float = 0.1) -> None:
    """Noise of a colour of its own, so that embeddings differ."""
    generator = np.random.default_rng(seed)
    noise = generator.standard_normal(round(seconds * RATE))
    filtered = np.convolve(noise, generator.standard_normal(1 + seed % 7), mode="same")
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, loudness * filtered / np.abs(filtered).max(), RATE)


@pytest.fixture
def folder(tmp_path):
    """Six recordings in two folders."""
    for number in range(6):
        write_noise(tmp_path / "sounds" / f"kind {number % 2}" / f"{number}.wav", number)
    return tmp_path / "sounds"


@pytest.fixture
def index(models, folder, tmp_path):
    """Makes or updates the index of the folder; returns the lines on stderr."""

    def make(*options, exit_code: int = 0) -> list[str]:
        command = ["index", folder, "-m", models / "beats_tiny", "-o", tmp_path / "index", "--device", "cpu"]
        return run(*command, *options, exit_code=exit_code).stderr.splitlines()

    return make


def files_of(directory) -> set[str]:
    return {os.path.basename(file) for file in Index(directory).states()}


# Index


def test_files_are_added_updated_and_removed(index, folder, tmp_path):
    first = index()
    assert first[-2] == f"6 added, 0 updated, 0 removed: 6 files, 6 vectors in {tmp_path / 'index'}"
    write_noise(folder / "new.wav", 7)
    write_noise(folder / "kind 0" / "0.wav", 8, seconds=2.0)
    (folder / "kind 1" / "1.wav").unlink()
    assert index()[-2].startswith("1 added, 1 updated, 1 removed: 6 files, 6 vectors")
    assert files_of(tmp_path / "index") == {"0.wav", "2.wav", "3.wav", "4.wav", "5.wav", "new.wav"}
    assert lines("search", tmp_path / "index", folder / "kind 0" / "0.wav", "--top", 1)[0]["end"] == 1.92
    assert index()[-2].startswith("0 added, 0 updated, 0 removed: 6 files")


def test_a_file_that_was_named_itself_stays_while_it_is_there(index, folder, models, tmp_path):
    index()
    odd = (folder / "kind 0" / "0.wav").rename(folder / "kind 0" / "0.data")
    run("index", odd, "-m", models / "beats_tiny", "-o", tmp_path / "index")
    assert index()[-2].startswith("0 added, 0 updated, 1 removed: 6 files")
    assert index()[-2].startswith("0 added, 0 updated, 0 removed: 6 files")
    assert "0.data" in files_of(tmp_path / "index")
    odd.unlink()
    assert index()[-2].startswith("0 added, 0 updated, 1 removed: 5 files")


def test_a_file_that_has_changed_in_time_only_is_updated(index, folder):
    index()
    os.utime(folder / "kind 0" / "0.wav", (1, 1))
    assert index()[-2].startswith("0 added, 1 updated, 0 removed")


def test_another_folder_adds_and_removes_nothing_of_the_first(index, folder, models, tmp_path):
    index()
    write_noise(tmp_path / "more" / "a.wav", 9)
    (folder / "kind 0" / "0.wav").unlink()
    command = ["index", tmp_path / "more", "-m", models / "beats_tiny", "-o", tmp_path / "index"]
    assert run(*command).stderr.splitlines()[-2].startswith("1 added, 0 updated, 0 removed: 7 files")


def test_vectors_are_those_of_embed_and_of_length_1(index, folder, models, tmp_path):
    index()
    inference = WindowedInference(*loading.load(models / "beats_tiny", "cpu"))
    opened = Index(tmp_path / "index")
    (block,) = (vectors for _, vectors in opened.blocks())
    for moment, vector in zip(opened.moments(range(6)), block):
        expected = inference.embed(moment.file)
        np.testing.assert_allclose(vector, expected / np.linalg.norm(expected), atol=1e-5)


def test_another_model_or_other_segments_are_refused_in_one_line(index, folder, models, tmp_path):
    index()
    (line,) = index("--segments", "1", exit_code=2)
    assert "was begun with another `segments` (null, now 1.0): choose the same, or another output." in line
    command = ["index", folder, "-m", models / "beats_tiny_finetuned", "-o", tmp_path / "index"]
    (line,) = run(*command, exit_code=2).stderr.splitlines()
    assert "was begun with another `model`" in line
    assert len(Index(tmp_path / "index")) == 6


def test_a_corrupt_file_is_named_and_tried_again(index, folder, tmp_path):
    (folder / "bad.wav").write_text("no audio")
    stderr = index(exit_code=1)
    assert f"{folder / 'bad.wav'}: holds text and no audio" in stderr[0]
    assert stderr[1] == "1 of 7 files could not be used."
    assert stderr[2].startswith("6 added, 0 updated, 0 removed: 6 files")
    write_noise(folder / "bad.wav", 9)
    assert index()[-2].startswith("1 added, 0 updated, 0 removed: 7 files")


def test_a_file_that_has_become_corrupt_leaves_the_index(index, folder, tmp_path):
    index()
    (folder / "kind 0" / "0.wav").write_text("no audio")
    assert index(exit_code=1)[-2].startswith("0 added, 0 updated, 1 removed: 5 files")
    assert "0.wav" not in files_of(tmp_path / "index")


def test_a_link_that_leads_nowhere_is_named(index, folder):
    (folder / "link.wav").symlink_to(folder / "nowhere")
    assert "link.wav" in index(exit_code=1)[0]


def test_silence_is_in_the_index_and_never_found(index, folder, tmp_path):
    soundfile.write(folder / "silence.wav", np.zeros(RATE), RATE)
    soundfile.write(folder / "silence too.wav", np.zeros(RATE), RATE)
    assert index()[-2].startswith("8 added, 0 updated, 0 removed: 8 files, 8 vectors")
    assert index()[-2].startswith("0 added")
    found = lines("search", tmp_path / "index", folder / "kind 0" / "0.wav", "--top", 100)
    assert len(found) == 6
    pairs = lines("search", tmp_path / "index", "--duplicates", "--threshold", 0)
    names = {os.path.basename(moment["file"]) for pair in pairs for moment in pair["moments"]}
    assert names == {f"{number}.wav" for number in range(6)}
    (line,) = run("search", tmp_path / "index", folder / "silence.wav", exit_code=1).stderr.splitlines()[-1:]
    assert line == "error: The query is digital silence, and nothing is like it."


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_run_that_is_ended_is_continued(index, folder, models, tmp_path, number):
    # Commits after every file, where others wait for a minute, and hangs after the third.
    code = """
import sys, time
from transformers_beats.cli.app import main
from transformers_beats.search import index
index.COMMIT_SECONDS, add = 0.0, index.IndexWriter.add
def add_three(self, *arguments):
    add(self, *arguments)
    if len(self) == 3:
        time.sleep(600)
index.IndexWriter.add = add_three
main()
"""
    command = ["index", folder, "-m", models / "beats_tiny", "-o", tmp_path / "index", "--device", "cpu"]
    process = subprocess.Popen([sys.executable, "-c", code, *map(str, command)], stderr=subprocess.PIPE)
    manifest = tmp_path / "index" / "index.json"
    while process.poll() is None and not (manifest.exists() and len(Index(manifest.parent)) == 3):
        time.sleep(0.02)
    process.send_signal(number)
    _, stderr = process.communicate()
    assert process.returncode == (130 if number == signal.SIGINT else -number), stderr
    assert len(Index(tmp_path / "index")) == 3
    stderr = index()
    assert stderr[0] == "3 of 6 files are done already."
    assert stderr[-2].startswith("3 added, 0 updated, 0 removed: 6 files, 6 vectors")
    assert files_of(tmp_path / "index") == {f"{count}.wav" for count in range(6)}


def test_standard_input_and_a_folder_of_something_else_are_refused(folder, models, tmp_path):
    model = models / "beats_tiny"
    assert "standard input is none" in run("index", "-", "-m", model, "-o", tmp_path / "x", exit_code=2).stderr
    assert "holds no index" in run("index", folder, "-m", model, "-o", folder, exit_code=2).stderr
    assert (
        "must be positive"
        in run("index", folder, "-m", model, "-o", tmp_path / "x", "--segments", 0, exit_code=2).stderr
    )
    assert not (tmp_path / "x").exists()


# Search


def test_results_are_sorted_by_cosine_and_the_query_finds_itself(index, folder, models, tmp_path):
    index()
    found = lines("search", tmp_path / "index", folder / "kind 1" / "3.wav")
    inference = WindowedInference(*loading.load(models / "beats_tiny", "cpu"))
    query = inference.embed(folder / "kind 1" / "3.wav")
    for hit in found:
        other = inference.embed(hit["file"])
        expected = query @ other / np.linalg.norm(query) / np.linalg.norm(other)
        assert hit["similarity"] == pytest.approx(expected, abs=1e-5)
    assert found[0]["file"] == str(folder / "kind 1" / "3.wav")
    assert found[0]["similarity"] == pytest.approx(1, abs=1e-6)
    assert [hit["similarity"] for hit in found] == sorted((hit["similarity"] for hit in found), reverse=True)
    assert len(found) == 6
    lowest = found[2]["similarity"]
    options = ["--threshold", lowest]
    assert len(lines("search", tmp_path / "index", folder / "kind 1" / "3.wav", *options)) in (2, 3)


def test_moments_of_a_long_recording_are_found(index, folder, tmp_path):
    parts = [soundfile.read(folder / f"kind {number % 2}" / f"{number}.wav")[0] for number in range(6)]
    # Whole columns, so that segments of the long recording are those of the queries.
    parts = [np.tile(part, 2)[: 12 * 2560] for part in parts]
    shutil.rmtree(folder)
    folder.mkdir()
    soundfile.write(folder / "long.wav", np.concatenate(parts), RATE)
    assert "1 files, 12 vectors" in index("--segments", "0.96")[-2]
    soundfile.write(tmp_path / "query.wav", parts[3][: 6 * 2560], RATE)
    (best,) = lines("search", tmp_path / "index", tmp_path / "query.wav", "--top", 1)
    assert (best["start"], best["end"]) == pytest.approx((3 * 1.92, 3 * 1.92 + 0.96))
    assert best["similarity"] > 0.98


def test_of_a_long_query_the_part_is_named_that_is_alike(index, folder, tmp_path):
    index("--segments", "0.96")
    other = np.random.default_rng(50).standard_normal(12 * 2560) * np.linspace(0, 0.1, 12 * 2560)
    alike = soundfile.read(folder / "kind 0" / "4.wav")[0][: 6 * 2560 + 240]
    soundfile.write(tmp_path / "query.wav", np.concatenate([other, alike]), RATE)
    best = lines("search", tmp_path / "index", tmp_path / "query.wav", "--top", 3)[0]
    assert best["file"].endswith("4.wav")
    assert (best["query_start"], best["query_end"]) == pytest.approx((1.92, 2.88))
    assert best["similarity"] > 0.98
    assert "Query (s)" in run("search", tmp_path / "index", tmp_path / "query.wav").stdout


def test_an_index_that_changes_during_a_search_is_searched_as_it_is_then(index, folder, tmp_path):
    index()
    searcher = Searcher(Index(tmp_path / "index"), "cpu")
    query = [*searcher.embed(folder / "kind 0" / "0.wav")]
    write_noise(folder / "kind 0" / "new.wav", 0)
    index()
    hits = searcher.nearest(query, 10)
    assert {os.path.basename(hit.moment.file) for hit in hits[:2]} == {"0.wav", "new.wav"}
    assert len(hits) == 7
    shutil.rmtree(tmp_path / "index")
    with pytest.raises(UsageError, match="no such index"):
        searcher.nearest(query)


def test_a_table_and_standard_input(index, folder, tmp_path, monkeypatch):
    index()
    monkeypatch.chdir(tmp_path)
    data = (folder / "kind 0" / "2.wav").read_bytes()
    head, rule, first = run("search", "index", "-", "--top", 1, input=data).stdout.splitlines()
    assert head.split() == ["Similarity", "File", "Start", "(s)", "End", "(s)"]
    assert {*rule} == {"-"}
    assert first.split() == ["1.000", "sounds/kind", "0/2.wav", "0.00", "1.44"]


def test_duplicates_are_pairs_of_files(index, folder, tmp_path):
    audio, rate = soundfile.read(folder / "kind 0" / "0.wav")
    soundfile.write(folder / "copy.flac", audio, rate)
    index()
    (pair,) = lines("search", tmp_path / "index", "--duplicates", "--threshold", 0.99999)
    assert {os.path.basename(moment["file"]) for moment in pair["moments"]} == {"0.wav", "copy.flac"}
    result = run("search", tmp_path / "index", "--duplicates", "--threshold", 0, "--top", 2)
    assert len(result.stdout.splitlines()) == 4
    assert result.stderr.startswith("21 pairs with a similarity of 0 or more, of which the 2 most similar are shown")


def test_a_map_is_drawn(index, folder, tmp_path, monkeypatch):
    pytest.importorskip("matplotlib")
    from transformers_beats.plotting import map as map_module

    groups, draw_map = [], map_module.draw_map

    def keep(points, names, *arguments):
        groups.extend(names)
        draw_map(points, names, *arguments)

    monkeypatch.setattr(map_module, "draw_map", keep)
    # Of the same name as another folder, and in none.
    (folder / "more" / "kind 0").mkdir(parents=True)
    (folder / "kind 0" / "0.wav").rename(folder / "more" / "kind 0" / "0.wav")
    (folder / "kind 0" / "2.wav").rename(folder / "2.wav")
    index()
    assert run("search", tmp_path / "index", "--map", tmp_path / "map.png").stderr == (
        f"6 vectors: {tmp_path / 'map.png'}\n"
    )
    assert sorted(groups) == ["kind 0", "kind 1", "kind 1", "kind 1", "more/kind 0", "sounds/"]
    with Image.open(tmp_path / "map.png") as picture:
        assert picture.format == "PNG"
        assert picture.width > 500
    (line,) = run("search", tmp_path / "index", "--map", tmp_path / "no" / "map.png", exit_code=2).stderr.splitlines()
    assert "there is no folder" in line


def test_a_model_that_has_moved_can_be_named_and_another_is_refused(index, folder, models, tmp_path):
    shutil.copytree(models / "beats_tiny", tmp_path / "model")
    command = ["index", folder, "-m", tmp_path / "model", "-o", tmp_path / "index", "-q"]
    run(*command)
    (tmp_path / "model").rename(tmp_path / "moved")
    query = ["search", tmp_path / "index", folder / "kind 0" / "0.wav", "--top", 1]
    (line,) = run(*query, exit_code=2).stderr.splitlines()
    assert "no such directory" in line
    assert "--model" in line
    (line,) = run(*query, "--device", "nonsense", exit_code=2).stderr.splitlines()
    assert "--device nonsense" in line
    assert "--model" not in line
    assert len(lines(*query, "-m", tmp_path / "moved")) == 1
    (line,) = run(*query, "-m", models / "beats_tiny_finetuned", exit_code=2).stderr.splitlines()
    assert "is of another model" in line


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "Name a QUERY, or choose --duplicates or --map FILE."),
        (["a.wav", "--duplicates"], "Name a QUERY, or choose --duplicates or --map FILE."),
        (["missing.wav"], "no such file or folder"),
        (["--duplicates", "--model", "x"], "--model: without effect with --duplicates"),
        (["--map", "x.png", "--device", "cpu"], "--device: without effect with --map"),
        (
            ["--map", "x.png", "--json", "--top", "3", "--threshold", "1", "--model", "x"],
            "--model, --json, --top, --threshold: without effect with --map",
        ),
        (["--duplicates", "--threshold", "2"], "less than or equal to 1"),
    ],
)
def test_usage_errors_are_one_line(index, tmp_path, words, message):
    index()
    (line,) = run("search", tmp_path / "index", *words, exit_code=2).stderr.splitlines()
    assert message in line


def test_an_index_without_recordings_says_so(index, folder, models, tmp_path):
    for path in folder.rglob("*.wav"):
        path.write_text("no audio")
    index(exit_code=1)
    assert "is empty" in run("search", tmp_path / "index", "--duplicates", exit_code=2).stderr
    assert "no such index" in run("search", tmp_path / "none", "--duplicates", exit_code=2).stderr


# Distance


def test_the_distance_is_that_of_the_embeddings(folder, models, tmp_path):
    kinds = [folder / f"kind {number}" for number in range(2)]
    result = run("distance", *kinds, "-m", models / "beats_tiny", "--json")
    record = json.loads(result.stdout)
    inference = WindowedInference(*loading.load(models / "beats_tiny", "cpu"))
    embeddings = [np.stack(list(inference.embed_many(sorted(kind.iterdir())))) for kind in kinds]
    assert record["embeddings"] == [3, 3]
    assert record["value"] == pytest.approx(measure_distance(*embeddings).value, rel=1e-4)
    assert (record["extrapolated"], record["is_biased"]) == (None, True)
    assert "3 embeddings of 64 values have a singular covariance" in result.stderr


def test_a_folder_has_no_distance_to_itself(folder, models):
    output = run("distance", folder, folder, "-m", models / "beats_tiny", "--segments", 0.16).stdout
    assert "Fréchet distance: 0.000\n" in output
    assert "Extrapolated to infinitely many embeddings: unknown, needs at least 130 of each" in output


@pytest.mark.parametrize("words", [(".", "."), (".", "kind 0"), ("kind 0", "."), ("kind 0/../kind 0", "kind 0")])
def test_a_file_of_both_folders_is_counted_and_named_once(words, folder, models):
    (folder / "kind 0" / "bad.wav").write_text("no audio")
    soundfile.write(folder / "kind 0" / "quiet.wav", np.zeros(RATE), RATE)
    folders = [os.path.join(folder, word) for word in words]
    result = run("distance", *folders, "-m", models / "beats_tiny", "--json", exit_code=1)
    record = json.loads(result.stdout)
    paths = [sorted(path for path in Path(place).rglob("*.wav") if path.stem.isdigit()) for place in folders]
    inference = WindowedInference(*loading.load(models / "beats_tiny", "cpu"))
    embeddings = [np.stack(list(inference.embed_many(found))) for found in paths]
    assert record["embeddings"] == list(map(len, paths))
    assert record["value"] == pytest.approx(measure_distance(*embeddings).value, rel=1e-3, abs=1e-4)
    assert result.stderr.count("bad.wav: ") == 1
    assert result.stderr.count("quiet.wav: is digital silence") == 1
    assert f"1 of {5 if '.' not in words else 8} files could not be used." in result.stderr


def test_corrupt_files_are_named_and_too_few_are_refused(folder, models):
    (folder / "kind 0" / "bad.wav").write_text("no audio")
    kinds = [folder / f"kind {number}" for number in range(2)]
    result = run("distance", *kinds, "-m", models / "beats_tiny", exit_code=1)
    assert "Fréchet distance: " in result.stdout
    assert "1 of 7 files could not be used." in result.stderr
    for number in (2, 4):
        (folder / "kind 0" / f"{number}.wav").unlink()
    result = run("distance", *kinds, "-m", models / "beats_tiny", exit_code=1)
    assert result.stderr.splitlines()[-1].endswith(
        "kind 0: has 1 of the two or more embeddings that a covariance needs."
    )
    (line,) = run("distance", kinds[0], kinds[0] / "0.wav", "-m", "x", exit_code=2).stderr.splitlines()
    assert "no such directory" in line or "single recording" in line
