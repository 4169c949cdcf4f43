# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""AudioSet's segment lists and folders of clips as datasets."""

import subprocess
import sys
from pathlib import Path

import datasets
import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from transformers_beats.audio.audioset import AUDIOSET_LABELS
from transformers_beats.audio.files import AUDIO_SUFFIXES
from transformers_beats.training.data.sources import DataArguments, decode_row, load_audio_dataset
from transformers_beats.training.prepare_audioset import CLIP_NAME, main, read_segments
from transformers_beats.utils import files


HEADER = """# Segments csv created by hand
# num_ytids=5, num_segs=5, num_unique_labels=4, num_positive_labels=7
# YTID, start_seconds, end_seconds, positive_labels
"""
ROWS = {
    "--aB3_-dE5F": '30.000, 40.000, "/m/09x0r,/m/05zppz"',
    "_1-3_5-7_9-": '0.000, 10.000, "/m/0bt9lr"',
    "Yabcdefghij": '12.500, 22.500, "/m/0bt9lr,/m/nothing"',
    "abcdefghijY": '100.000, 104.700, "/m/04rlf,/t/dd00135"',
    "-----------": '0.000, 10.000, "/m/09x0r"',
}
LABELS = {
    "--aB3_-dE5F": ["Speech", "Male speech, man speaking"],
    "_1-3_5-7_9-": ["Dog"],
    "Yabcdefghij": ["Dog"],
    "abcdefghijY": ["Music", "Children shouting"],
}


def write_segments(path: Path, rows: dict[str, str], header: str = HEADER) -> Path:
    path.write_text(header + "".join(f"{ytid}, {row}\n" for ytid, row in rows.items()), encoding="utf-8")
    return path


@pytest.fixture
def segments(tmp_path) -> Path:
    return write_segments(tmp_path / "segments.csv", ROWS)


@pytest.fixture
def audio(tmp_path):
    """Writes short clips under the given names, and returns their folder."""

    def write(*names: str) -> Path:
        folder = tmp_path / "clips"
        folder.mkdir()
        for number, name in enumerate(names):
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
            if path.suffix in (".wav", ".flac"):
                soundfile.write(path, np.full(4000, 0.01 * (number + 1), np.float32), 16000)
            else:
                path.write_bytes(b"not looked at")
        return folder

    return write


@pytest.fixture
def output_dir(tmp_path) -> Path:
    return tmp_path / "prepared" / "balanced"


def prepare(segments: Path, audio: Path, output_dir: Path) -> None:
    main([f"--segments={segments}", f"--audio={audio}", f"--output_dir={output_dir}"])


def read_rows(output_dir: Path) -> list[dict]:
    return datasets.Dataset.from_parquet(str(output_dir / "metadata.parquet")).to_list()


def test_clips_are_found_under_their_usual_names(segments, audio, output_dir):
    folder = audio(
        "--aB3_-dE5F_30.000.wav",
        "deep/er/Y_1-3_5-7_9-.flac",
        "deep/Yabcdefghij_12500_22500.M4A",
        "YabcdefghijY.mp3",
        "-----------_0.0-10.0.opus",
        "notes.txt",
        "another.wav",
    )
    prepare(segments, folder, output_dir)
    rows = {row["ytid"]: row for row in read_rows(output_dir)}
    assert {ytid: Path(row["file_name"]).relative_to(folder).as_posix() for ytid, row in rows.items()} == {
        "--aB3_-dE5F": "--aB3_-dE5F_30.000.wav",
        "_1-3_5-7_9-": "deep/er/Y_1-3_5-7_9-.flac",
        "Yabcdefghij": "deep/Yabcdefghij_12500_22500.M4A",
        "abcdefghijY": "YabcdefghijY.mp3",
        "-----------": "-----------_0.0-10.0.opus",
    }
    assert list(rows) == list(ROWS)


YTIDS = st.text("abYZ01-_", min_size=11, max_size=11)
STARTS = st.sampled_from(["", "_30", "_30.000", "_30_40", "_30.0_40.0", "_30000_40000", "_000030", "_30.0-40.0"])


@given(ytid=YTIDS, prefix=st.sampled_from(["", "Y"]), start=STARTS)
def test_every_id_is_read_from_every_kind_of_name(ytid, prefix, start):
    match = CLIP_NAME.fullmatch(f"{prefix}{ytid}{start}")
    assert match is not None
    assert match["ytid"] == ytid
    assert (match["start"] is None) == (start == "")


@pytest.mark.parametrize("name", ["{}_", "{}x", "x{}", "{}_30_", "{}_30_40_50", "{}-30", "{} 30", "{}_abc", "{}.30"])
def test_other_names_are_no_clips(name):
    assert CLIP_NAME.fullmatch(name.format("--aB3_-dE5F")) is None


def test_training_reads_what_was_written(segments, audio, output_dir):
    folder = audio("Y--aB3_-dE5F.wav", "_1-3_5-7_9-.wav", "Yabcdefghij.flac", "abcdefghijY_100.wav")
    prepare(segments, folder, output_dir)
    dataset = load_audio_dataset(DataArguments(dataset=str(output_dir)))
    assert {row["ytid"]: row["labels"] for row in dataset} == LABELS
    assert [row["start_seconds"] for row in dataset] == [30.0, 0.0, 12.5, 100.0]
    for number, row in enumerate(dataset):
        np.testing.assert_allclose(decode_row(row, 16000), 0.01 * (number + 1), atol=1e-4)


def test_a_relative_folder_is_written_as_absolute_paths(segments, audio, output_dir, monkeypatch):
    folder = audio("_1-3_5-7_9-.wav")
    monkeypatch.chdir(folder.parent)
    prepare(segments, Path(folder.name), output_dir)
    (row,) = read_rows(output_dir)
    assert row["file_name"] == str(folder / "_1-3_5-7_9-.wav")


def test_what_is_missing_is_counted_and_listed(segments, audio, output_dir, capsys):
    prepare(segments, audio("--aB3_-dE5F.wav", "Yabcdefghij.wav"), output_dir)
    printed = capsys.readouterr().out
    assert "2 of 5 clips found, 3 missing" in printed
    assert "labels unknown: 1 ('/m/nothing'), left out\n" in printed
    lines = (output_dir / "missing.csv").read_text().splitlines()
    assert lines[0] == HEADER.splitlines()[-1]
    assert lines[1:] == [f"{ytid}, {ROWS[ytid]}" for ytid in ("_1-3_5-7_9-", "abcdefghijY", "-----------")]


def test_the_list_of_missing_clips_is_a_segment_list(segments, audio, output_dir, tmp_path):
    folder = audio("--aB3_-dE5F.wav")
    prepare(segments, folder, output_dir)
    soundfile.write(folder / "abcdefghijY.wav", np.zeros(4000), 16000)
    prepare(output_dir / "missing.csv", folder, tmp_path / "rest")
    (row,) = read_rows(tmp_path / "rest")
    assert row["labels"] == LABELS["abcdefghijY"]
    assert list(read_segments(tmp_path / "rest" / "missing.csv")) == ["_1-3_5-7_9-", "Yabcdefghij", "-----------"]


def test_nothing_missing_is_an_empty_list(tmp_path, audio, output_dir, capsys):
    segments = write_segments(tmp_path / "one.csv", {"_1-3_5-7_9-": ROWS["_1-3_5-7_9-"]})
    prepare(segments, audio("_1-3_5-7_9-.wav"), output_dir)
    assert (output_dir / "missing.csv").read_text() == HEADER.splitlines()[-1] + "\n"
    assert "1 of 1 clips found, 0 missing; labels unknown: 0\n" in capsys.readouterr().out


@pytest.mark.parametrize("start", ["30", "30.0", "30.000", "000030", "30000"])
def test_a_start_is_read_in_seconds_and_milliseconds(start, segments, audio, output_dir):
    prepare(segments, audio(f"--aB3_-dE5F_{start}.wav"), output_dir)
    assert [row["ytid"] for row in read_rows(output_dir)] == ["--aB3_-dE5F"]


def test_a_start_cut_to_whole_seconds_is_accepted(segments, audio, output_dir):
    prepare(segments, audio("Yabcdefghij_12_22.wav"), output_dir)
    assert [row["ytid"] for row in read_rows(output_dir)] == ["Yabcdefghij"]


def test_another_part_of_a_listed_video_is_not_the_clip(segments, audio, output_dir, capsys):
    prepare(segments, audio("--aB3_-dE5F_40.000.wav", "_1-3_5-7_9-.wav"), output_dir)
    assert [row["ytid"] for row in read_rows(output_dir)] == ["_1-3_5-7_9-"]
    assert "begin elsewhere in it, by their names: 1 ('--aB3_-dE5F_40.000.wav')" in capsys.readouterr().out


def test_empty_files_count_as_missing(segments, audio, output_dir, capsys):
    folder = audio("--aB3_-dE5F.wav", "b/_1-3_5-7_9-.wav")
    (folder / "a").mkdir()
    for name in ("abcdefghijY.wav", "a/_1-3_5-7_9-.wav"):
        (folder / name).touch()
    prepare(segments, folder, output_dir)
    assert [row["file_name"] for row in read_rows(output_dir)] == [
        str(folder / "--aB3_-dE5F.wav"),
        str(folder / "b/_1-3_5-7_9-.wav"),
    ]
    assert "empty files: 2 ('_1-3_5-7_9-.wav', 'abcdefghijY.wav')" in capsys.readouterr().out


def test_of_two_files_the_first_counts(segments, audio, output_dir, capsys):
    folder = audio("b/_1-3_5-7_9-.wav", "a/Y_1-3_5-7_9-.flac")
    prepare(segments, folder, output_dir)
    (row,) = read_rows(output_dir)
    assert row["file_name"] == str(folder / "a/Y_1-3_5-7_9-.flac")
    assert "further files of clips that have one: 1 ('_1-3_5-7_9-.wav')" in capsys.readouterr().out


def test_all_suffixes_of_training_are_found(tmp_path, audio, output_dir):
    ytids = {suffix: f"{number:011d}" for number, suffix in enumerate(sorted(AUDIO_SUFFIXES))}
    segments = write_segments(tmp_path / "all.csv", dict.fromkeys(ytids.values(), '0.000, 10.000, "/m/09x0r"'))
    prepare(segments, audio(*(ytid + suffix for suffix, ytid in ytids.items())), output_dir)
    assert {row["ytid"] for row in read_rows(output_dir)} == set(ytids.values())


def test_all_classes_keep_their_names(tmp_path, audio, output_dir):
    segments = write_segments(tmp_path / "all.csv", {"_1-3_5-7_9-": f'0.000, 10.000, "{",".join(AUDIOSET_LABELS)}"'})
    prepare(segments, audio("_1-3_5-7_9-.wav"), output_dir)
    (row,) = read_rows(output_dir)
    assert row["labels"] == list(AUDIOSET_LABELS.values())


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ('0, 10, "/m/nothing,/m/more"', "line 4: 12345678901 has no label .* only '/m/nothing,/m/more'"),
        ('0, 10, ""', "line 4: 12345678901 has no label"),
        ("0, 10, /m/09x0r,/m/0bt9lr", "line 4: is not `YTID, start_seconds, end_seconds, positive_labels`"),
        ("0, 10", "line 4: is not `YTID"),
        ('0, end, "/m/09x0r"', "cannot last from 0 to end seconds"),
        ('10, 10, "/m/09x0r"', "cannot last from 10 to 10 seconds"),
        ('nan, 10, "/m/09x0r"', "cannot last from nan to 10 seconds"),
        ('-1, 10, "/m/09x0r"', "cannot last from -1 to 10 seconds"),
        ('0, 10, "/m/09x0r"\n12345678901, 10, 20, "/m/09x0r"', "line 5: 12345678901 is listed twice"),
        ('0, 10, "/m/09x0r"\n1234, 10, 20, "/m/09x0r"', "line 5: '1234' is no id"),
    ],
)
def test_rows_that_make_no_sense_are_named(row, message, tmp_path, audio, output_dir):
    segments = write_segments(tmp_path / "bad.csv", {"12345678901": row})
    with pytest.raises(ValueError, match=message):
        prepare(segments, audio("12345678901.wav"), output_dir)
    assert not output_dir.exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [(HEADER.encode(), "lists no segments"), (b"\xff\xfe\x00", "is not text"), (None, "cannot be read: No such file")],
)
def test_lists_that_cannot_be_read_are_refused(content, message, tmp_path, audio, output_dir):
    path = tmp_path / "list.csv"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        prepare(path, audio("_1-3_5-7_9-.wav"), output_dir)


def test_no_clip_at_all_is_an_error(segments, audio, output_dir):
    folder = audio("dog.wav", "--aB3_-dE5F_50.wav")
    with pytest.raises(ValueError, match=r"of 2 audio files none is a clip of .*segments\.csv") as error:
        prepare(segments, folder, output_dir)
    assert "--aB3_-dE5F_30.000.wav was expected" in str(error.value)
    assert "begin elsewhere in it, by their names: 1 ('--aB3_-dE5F_50.wav')" in str(error.value)
    assert not output_dir.parent.exists()


def test_a_folder_that_does_not_exist_is_an_error(segments, tmp_path, output_dir):
    with pytest.raises(ValueError, match="nowhere: no such folder"):
        prepare(segments, tmp_path / "nowhere", output_dir)


def test_an_existing_output_is_left_alone(segments, audio, output_dir):
    output_dir.mkdir(parents=True)
    (output_dir / "mine").touch()
    with pytest.raises(ValueError, match="exists already"):
        prepare(segments, audio("_1-3_5-7_9-.wav"), output_dir)
    assert [path.name for path in output_dir.iterdir()] == ["mine"]


def test_an_interruption_leaves_nothing(segments, audio, output_dir, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(files, "replace_directory", interrupt)
    with pytest.raises(KeyboardInterrupt):
        prepare(segments, audio("_1-3_5-7_9-.wav"), output_dir)
    assert list(output_dir.parent.iterdir()) == []


def test_it_runs_as_a_module(segments, audio, output_dir):
    words = [f"--segments={segments}", f"--audio={audio('_1-3_5-7_9-.wav')}", f"--output_dir={output_dir}"]
    main(words)
    command = [sys.executable, "-m", "transformers_beats.training.prepare_audioset"]
    again = subprocess.run([*command, *words], capture_output=True, text=True, check=False)
    assert again.returncode == 2
    assert again.stderr.splitlines()[-1].startswith(f"error: {output_dir} exists already")
