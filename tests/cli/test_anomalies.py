# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""`anomalies fit` and `score` on folders of recordings."""

import csv
import itertools
import json
import shutil
from functools import partial

import invoke
import numpy as np
import pytest
import soundfile
from PIL import Image

from transformers_beats.anomalies import embedding
from transformers_beats.anomalies.calibration import p_values
from transformers_beats.anomalies.choices import DetectorSettings
from transformers_beats.anomalies.detector import AnomalyDetector
from transformers_beats.anomalies.embedding import embed_clips
from transformers_beats.inference import loading
from transformers_beats.inference.windowed import WindowedInference


RATE = 16000


run = partial(invoke.run, "anomalies", env={"COLUMNS": "140"})


def write_hum(path, seed: int, seconds: float = 1.0, whistle: float = 0.0) -> None:
    """A hum with noise and, if it is anomalous, a whistle."""
    generator = np.random.default_rng(seed)
    time = np.arange(round(seconds * RATE)) / RATE
    sound = np.sin(2 * np.pi * generator.uniform(90, 110) * time) + 0.3 * generator.standard_normal(len(time))
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, 0.1 * (sound + whistle * np.sin(2 * np.pi * 3000 * time)), RATE)


@pytest.fixture(scope="module")
def hums(tmp_path_factory):
    """25 normal clips; and folders of 6 new ones and 6 with a whistle."""
    root = tmp_path_factory.mktemp("hums")
    for number in range(25):
        write_hum(root / "fitted" / f"{number:02}.wav", number)
    for number in range(6):
        write_hum(root / "new" / "normal" / f"{number}.wav", 100 + number)
        write_hum(root / "new" / "abnormal" / f"{number}.wav", 200 + number, whistle=3.0)
    return root


@pytest.fixture(scope="module")
def detector(models, hums, tmp_path_factory):
    path = tmp_path_factory.mktemp("detector") / "hum.safetensors"
    run("fit", hums / "fitted", "-m", models / "beats_tiny", "-o", path, "--device", "cpu")
    return path


def records(*arguments, **options) -> list[dict]:
    return [json.loads(line) for line in run("score", *arguments, "--json", **options).stdout.splitlines()]


# Fit


def test_a_detector_says_its_threshold_and_what_comes_next(models, hums, tmp_path):
    result = run("fit", hums / "fitted", "-m", models / "beats_tiny", "-o", tmp_path / "hum.safetensors")
    loaded = AnomalyDetector.load(tmp_path / "hum.safetensors")
    assert result.stdout.splitlines()[0].split() == ["Machine", "Normal", "clips", "Threshold", "(0.05)"]
    assert result.stdout.splitlines()[2].split() == ["-", "25", f"{loaded.threshold():.3f}"]
    assert result.stderr.splitlines() == [
        f"25 files: {tmp_path / 'hum.safetensors'}",
        f"Next: transformers-beats anomalies score {tmp_path / 'hum.safetensors'} recordings",
    ]


def test_settings_are_those_of_the_options(models, hums, tmp_path):
    options = ["--backend", "density", "--pooling", "rdp-gem", "--layers", "1:", "--bands", "concat"]
    path = tmp_path / "hum.safetensors"
    run("fit", hums / "fitted", "-m", models / "beats_tiny", "-o", path, *options, "--neighbors", 2)
    settings = AnomalyDetector.load(path).settings
    assert settings.backend == "density"
    assert settings.pooling == "rdp-gem"
    assert settings.bands == "concat"
    assert settings.num_neighbors == 2
    assert settings.layers == tuple(range(1, len(settings.layers) + 1))


def test_bad_files_are_named_and_copies_count_once(models, hums, tmp_path):
    folder = shutil.copytree(hums / "fitted", tmp_path / "fitted")
    (folder / "bad.wav").write_text("no audio")
    soundfile.write(folder / "nan.wav", np.full(RATE, np.nan), RATE, subtype="FLOAT")
    soundfile.write(folder / "silent.wav", np.zeros(RATE), RATE)
    shutil.copy(folder / "00.wav", folder / "copy.wav")
    path = tmp_path / "hum.safetensors"
    lines = run("fit", folder, "-m", models / "beats_tiny", "-o", path, exit_code=1).stderr.splitlines()
    assert lines[0] == "1 clips are copies of others, and count once."
    assert [line.split("/")[-1].split(":")[0] for line in lines[1:4]] == ["bad.wav", "nan.wav", "silent.wav"]
    assert lines[4] == "3 of 29 files could not be used."
    assert len(AnomalyDetector.load(path).bank_of()) == 25


def test_copies_in_both_domains_are_told_and_do_not_change_the_calibration(models, hums, tmp_path):
    folder = shutil.copytree(hums / "fitted", tmp_path / "fitted")
    for number in range(3):
        write_hum(tmp_path / "target" / f"{number}.wav", 300 + number, whistle=3.0)
    command = ["--target", tmp_path / "target", "-m", models / "beats_tiny"]
    run("fit", folder, *command, "-o", tmp_path / "apart.safetensors")
    for number in range(3):
        shutil.copy(tmp_path / "target" / f"{number}.wav", folder / f"copy{number}.wav")
    result = run("fit", folder, *command, "-o", tmp_path / "mixed.safetensors")
    assert result.stderr.splitlines()[:2] == [
        "3 clips are copies of others, and count once.",
        "3 of them are in both domains, and count for the target only.",
    ]
    apart, mixed = (AnomalyDetector.load(tmp_path / f"{name}.safetensors") for name in ("apart", "mixed"))
    np.testing.assert_allclose(mixed.normal_scores(), apart.normal_scores(), atol=1e-3)


def test_few_clips_of_a_target_domain_have_a_bank_of_their_own(models, hums, tmp_path):
    for number in range(3):
        write_hum(tmp_path / "target" / f"{number}.wav", 300 + number, whistle=3.0)
    path = tmp_path / "hum.safetensors"
    command = ["fit", hums / "fitted", "--target", tmp_path / "target", "-m", models / "beats_tiny", "-o", path]
    run(*command)
    assert {name: len(values) for name, values in AnomalyDetector.load(path).bank_of().vectors.items()} == {
        "source": 25,
        "target": 3,
    }
    # With them, a whistle is normal.
    assert not any(record["anomalous"] for record in records(path, hums / "new" / "abnormal"))
    run(*command, "--one-domain", "--overwrite")
    assert list(AnomalyDetector.load(path).bank_of().vectors) == [""]


def test_an_interrupted_fit_goes_on(models, hums, tmp_path, monkeypatch):
    folder = shutil.copytree(hums / "fitted", tmp_path / "fitted")
    path = tmp_path / "hum.safetensors"
    command = ["fit", folder, "-m", models / "beats_tiny", "-o", path]

    def interrupt(*arguments):
        yield from itertools.islice(embed_clips(*arguments), 10)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(embedding, "embed_clips", interrupt)
        assert run(*command, exit_code=130).stderr.splitlines() == ["interrupted"]
    assert not path.exists()
    (line,) = run(*command, exit_code=2).stderr.splitlines()
    assert "is of an interrupted run. To go on with the same settings, add --resume" in line
    (line,) = run(*command, "--resume", "--pooling", "gem", exit_code=2).stderr.splitlines()
    assert "was begun with another `pooling`" in line
    write_hum(folder / "03.wav", 999)
    result = run(*command, "--resume", "--backend", "density")
    assert result.stderr.splitlines()[0] == "9 of 25 files are done already."
    assert {file.name for file in tmp_path.iterdir()} == {"fitted", "hum.safetensors"}
    expected = np.stack(list(embed_clips(inference_of(models), sorted(folder.iterdir()), DetectorSettings((3,)))))
    np.testing.assert_allclose(AnomalyDetector.load(path).bank_of().vectors[""], expected, atol=1e-5)


def inference_of(models) -> WindowedInference:
    return WindowedInference(*loading.load(models / "beats_tiny", "cpu"))


@pytest.mark.parametrize(
    ("options", "status", "message"),
    [
        (["-o", "hum.npz"], 2, "hum.npz: a detector is one file: choose a name that ends in .safetensors."),
        (["-o", "no/hum.safetensors"], 2, "no/hum.safetensors: there is no folder no."),
        (["-o", "here.safetensors"], 2, "here.safetensors: exists; pass --overwrite to replace it."),
        (["-o", "hum.safetensors", "--layers", "77"], 2, "There is no layer 77"),
        (["-o", "hum.safetensors", "--false-alarm-rate", "1.5"], 2, "must be between 0 and 1, got 1.5."),
        (["-o", "hum.safetensors", "--target", "nothing"], 2, "nothing: no such file or folder."),
        (["-o", "hum.safetensors", "--target", "-"], 2, "standard input is none: name files or folders."),
        (["-o", "hum.safetensors", "--target", "FITTED"], 2, "--target holds all normal clips: name those of the"),
    ],
)
def test_what_cannot_be_fitted_is_refused_in_one_line(models, hums, tmp_path, monkeypatch, options, status, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here.safetensors").write_text("")
    options = [str(hums / "fitted") if option == "FITTED" else option for option in options]
    command = ["fit", hums / "fitted", "-m", models / "beats_tiny", *options]
    (line,) = run(*command, exit_code=status).stderr.splitlines()
    assert message in line
    assert not (tmp_path / "hum.safetensors").exists()


def test_too_few_clips_are_refused_and_too_few_for_the_rate_are_told(models, hums, tmp_path):
    folder = tmp_path / "few"
    for number in range(2):
        write_hum(folder / f"{number}.wav", number)
    command = ["fit", folder, "-m", models / "beats_tiny", "-o", tmp_path / "few.safetensors"]
    (line,) = run(*command, exit_code=1).stderr.splitlines()
    assert line == "error: There are 2 different normal clips, and 3 are needed at least: add more."
    assert not (tmp_path / "few.safetensors").exists()
    write_hum(folder / "2.wav", 2)
    result = run(*command)
    assert "A rate of false alarms of 0.05 needs 19 normal clips or more, and there are 3" in result.stderr
    assert result.stdout.splitlines()[2].split() == ["-", "3", "-"]
    (line,) = run("score", tmp_path / "few.safetensors", folder, exit_code=2).stderr.splitlines()
    assert "ask for at least 0.25, or fit on more." in line
    assert len(records(tmp_path / "few.safetensors", folder, "--false-alarm-rate", 0.25)) == 3


def test_few_clips_of_one_domain_are_refused_before_any_is_embedded(models, hums, tmp_path, monkeypatch):
    monkeypatch.setattr(loading, "load", None)
    path = tmp_path / "hum.safetensors"
    for number in range(2):
        write_hum(tmp_path / "target" / f"{number}.wav", number + 50)
    command = ["fit", hums / "fitted", "--target", tmp_path / "target", "-m", models / "beats_tiny", "-o", path]
    (line,) = run(*command, exit_code=1).stderr.splitlines()
    assert line == "error: There are 2 different normal clips (target), and 3 are needed at least: add more."
    assert {file.name for file in tmp_path.iterdir()} == {"target"}


def test_vectors_are_kept_if_a_domain_turns_out_to_have_too_few_clips(models, hums, tmp_path):
    path, target = tmp_path / "hum.safetensors", tmp_path / "target"
    for number in range(2):
        write_hum(target / f"{number}.wav", number + 50)
    (target / "bad.wav").write_text("no audio")
    command = ["fit", hums / "fitted", "--target", target, "-m", models / "beats_tiny", "-o", path]
    lines = run(*command, exit_code=1).stderr.splitlines()
    assert "bad.wav: holds text and no audio" in lines[0]
    assert lines[1].startswith("error: There are 2 different normal clips (target), and 3 are needed at least")
    assert lines[1].endswith("The 27 that are embedded are kept: add clips and pass --resume.")
    write_hum(target / "bad.wav", 60)
    assert run(*command, "--resume").stderr.splitlines()[0] == "27 of 28 files are done already."
    assert len(AnomalyDetector.load(path).bank_of()) == 28


def test_a_folder_without_a_clip_that_can_be_used_is_an_error(models, tmp_path):
    for number in range(3):
        (tmp_path / f"bad{number}.wav").write_text("no audio")
    result = run("fit", tmp_path, "-m", models / "beats_tiny", "-o", tmp_path / "x.safetensors", exit_code=1)
    assert "bad0.wav: holds text and no audio" in result.stderr.splitlines()[0]
    assert result.stderr.splitlines()[3] == "error: None of 3 files could be used."
    assert len(list(tmp_path.iterdir())) == 3


# Score


def test_scores_are_those_of_the_detector_in_python(detector, hums, models):
    loaded = AnomalyDetector.load(detector)
    inference = inference_of(models)
    for record in records(detector, hums / "new")[::4]:
        vectors = np.stack(list(embed_clips(inference, [record["file"]], loaded.settings)))
        (score,) = loaded.score(vectors)
        assert record["score"] == pytest.approx(score, abs=1e-3)
        (expected,) = p_values(np.array([record["score"]]), loaded.normal_scores())
        assert record["p_value"] == pytest.approx(expected, abs=1e-6)
        assert record["anomalous"] == (expected <= 0.05)
        assert record["label"] == ("anomaly" if "abnormal" in record["file"] else "normal")
        assert 20 < record["band_low_hz"] < record["band_high_hz"] <= 8000


def test_a_whistle_is_found_in_its_band(detector, hums):
    found = records(detector, hums / "new" / "abnormal")
    assert all(record["anomalous"] for record in found)
    assert all(record["band_low_hz"] <= 3000 <= record["band_high_hz"] for record in found)


def test_tables_have_the_least_normal_clips_and_metrics_of_known_labels(detector, hums, tmp_path):
    result = run("score", detector, hums / "new", "--top", 3)
    lines = result.stdout.splitlines()
    assert lines[0].split() == ["File", "Score", "p", "Anomalous", "Band", "(Hz)"]
    assert [line.split()[0].split("/")[0] for line in lines[2:5]] == ["abnormal"] * 3
    assert lines[6].split() == ["Machine", "Clips", "AUC", "pAUC", "Detected", "False", "alarms"]
    assert lines[8].split()[:5] == ["-", "12", "1.000", "1.000", "1.000"]
    assert lines[10] == "Harmonic mean of AUC and pAUC: 1.000"
    assert "clips are anomalous at a rate of false alarms of 0.05." in result.stderr
    unlabelled = run("score", detector, hums / "new" / "abnormal" / "0.wav").stdout
    assert "Harmonic" in unlabelled
    write_hum(tmp_path / "x.wav", 1)
    assert "Harmonic" not in run("score", detector, tmp_path / "x.wav").stdout


def test_a_csv_has_a_row_for_each_file_and_the_reasons(detector, hums, tmp_path):
    folder = shutil.copytree(hums / "new", tmp_path / "new")
    (folder / "normal" / "bad.wav").write_text("no audio")
    path = tmp_path / "scores.csv"
    result = run("score", detector, folder, "-o", path, exit_code=1)
    assert "bad.wav: holds text and no audio" in result.stderr
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 13
    by_name = {row["file"].removeprefix(f"{folder}/"): row for row in rows}
    bad = by_name["normal/bad.wav"]
    assert (bad["score"], bad["anomalous"], bad["status"]) == ("", "", "skipped")
    assert "holds text" in bad["reason"]
    expected = {record["file"]: record for record in records(detector, hums / "new")}
    for name, row in by_name.items():
        if row["status"] == "ok":
            record = expected[str(hums / "new" / name)]
            assert float(row["score"]) == pytest.approx(record["score"], abs=1e-4)
            assert row["anomalous"] == ("yes" if record["anomalous"] else "no")
    assert "pass --overwrite" in run("score", detector, folder, "-o", path, exit_code=2).stderr


def test_clips_that_a_detector_was_fitted_on_are_told(detector, hums):
    result = run("score", detector, hums / "fitted")
    assert "25 clips, such as" in result.stderr
    assert "are among the normal clips of the detector" in result.stderr


def test_pictures_are_drawn_of_the_clips_of_the_table(detector, hums, tmp_path):
    run("score", detector, hums / "new", "--top", 2, "--explain", tmp_path / "pictures")
    found = sorted(path.relative_to(tmp_path / "pictures").parts for path in tmp_path.rglob("*.png"))
    assert len(found) == 2
    assert all(folder == "abnormal" for folder, _ in found)
    for path in tmp_path.rglob("*.png"):
        with Image.open(path) as picture:
            assert picture.size[0] > 1000


def test_scores_are_written_before_pictures_which_may_fail(detector, hums, tmp_path, monkeypatch):
    command = ["score", detector, hums / "new", "--top", 2, "--explain", tmp_path / "pictures", "--overwrite"]
    command += ["-o", tmp_path / "scores.csv"]

    def fail(error):
        def draw(*arguments):
            raise error

        monkeypatch.setattr("transformers_beats.plotting.anomaly.draw_anomaly", draw)
        result = run(*command, exit_code=1)
        assert len((tmp_path / "scores.csv").read_text().splitlines()) == 13
        assert result.stdout.startswith("File")
        (tmp_path / "scores.csv").unlink()
        return result.stderr.splitlines()

    lines = fail(MemoryError("too large"))
    assert [line.split(": ", 1)[1] for line in lines[:2]] == ["no picture: too large"] * 2
    # After a full disk, no other picture is tried.
    (line,) = fail(OSError(28, "No space left on device"))
    assert line.startswith("error: ")
    assert "No space left on device" in line


def test_a_folder_for_pictures_that_cannot_be_made_is_refused_before_anything_is_scored(detector, hums, tmp_path):
    (tmp_path / "file").write_text("")
    command = ["score", detector, hums / "new", "--explain", tmp_path / "file", "-o", tmp_path / "scores.csv"]
    (line,) = run(*command, exit_code=2).stderr.splitlines()
    assert "file: cannot be an output directory" in line
    assert not (tmp_path / "scores.csv").exists()


def test_standard_input_is_scored(detector, hums):
    (record,) = records(detector, "-", input=(hums / "new" / "abnormal" / "0.wav").read_bytes())
    assert record["file"] == "-"
    assert record["anomalous"]


def test_the_rate_can_be_another_than_the_one_of_the_fit(detector, hums):
    few, many = (
        sum(record["anomalous"] for record in records(detector, hums / "new" / "normal", "--false-alarm-rate", rate))
        for rate in (0.04, 0.9)
    )
    assert few < many
    (line,) = run("score", detector, hums / "new", "--false-alarm-rate", 0.01, exit_code=2).stderr.splitlines()
    assert "needs 99 normal clips or more, and there are 25" in line


def test_another_model_is_refused(detector, hums, models):
    command = ["score", detector, hums / "new", "-m", models / "beats_tiny_finetuned"]
    (line,) = run(*command, exit_code=2).stderr.splitlines()
    assert "is of another model than" in line


def test_a_detector_without_its_model_asks_for_it(hums, models, tmp_path):
    moved = shutil.copytree(models / "beats_tiny", tmp_path / "model")
    path = tmp_path / "hum.safetensors"
    run("fit", hums / "fitted", "-m", moved, "-o", path)
    shutil.move(moved, tmp_path / "elsewhere")
    (line,) = run("score", path, hums / "new", exit_code=2).stderr.splitlines()
    assert "if it was moved, name its place as --model." in line
    assert len(records(path, hums / "new", "-m", tmp_path / "elsewhere")) == 12


# The layout of DCASE


@pytest.fixture(scope="module")
def machines(tmp_path_factory):
    """Two machines in the layout of task 2."""
    root = tmp_path_factory.mktemp("dcase") / "dev_data"
    for number, machine in enumerate(("fan", "valve")):
        folder = root / machine
        for clip in range(20):
            write_hum(
                folder / "train" / f"section_00_source_train_normal_{clip:04}_v_{number}.wav", 1000 * number + clip
            )
        for clip in range(3):
            seed = 1000 * number + 100 + clip
            write_hum(folder / "train" / f"section_00_target_train_normal_{clip:04}_v_2.wav", seed, whistle=1.0)
        for clip in range(3):
            for domain in ("source", "target"):
                for label, loud in (("normal", 0.0), ("anomaly", 3.0)):
                    seed = 1000 * number + 200 + 10 * clip
                    name = f"section_00_{domain}_test_{label}_{clip:04}_v_1.wav"
                    write_hum(folder / "test" / name, seed, whistle=loud + (domain == "target"))
    return root


def test_all_machines_of_dcase_are_fitted_and_measured_at_once(machines, models, tmp_path):
    path = tmp_path / "machines.safetensors"
    result = run("fit", machines, "-m", models / "beats_tiny", "-o", path)
    assert "24 files are no normal clips to fit on, and are left out." in result.stderr
    rows = [line.split() for line in result.stdout.splitlines()[2:]]
    assert [row[:5] for row in rows] == [
        [f"{machine}/section_00", "20", "source,", "3", "target"] for machine in ("fan", "valve")
    ]
    result = run("score", path, machines, "-o", tmp_path / "scores.csv")
    lines = result.stdout.splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith("Machine"))
    assert [line.split()[:2] for line in lines[start + 2 : start + 4]] == [
        ["fan/section_00", "12"],
        ["valve/section_00", "12"],
    ]
    assert result.stderr.splitlines()[0] == "46 files are no test clips, and are left out."
    with (tmp_path / "scores.csv").open(newline="") as file:
        found = list(csv.DictReader(file))
    assert len(found) == 24
    assert {(row["machine"], row["domain"], row["label"]) for row in found} == {
        (f"{machine}/section_00", domain, label)
        for machine in ("fan", "valve")
        for domain in ("source", "target")
        for label in ("normal", "anomaly")
    }


def test_a_stray_file_among_machines_is_refused(machines, models, tmp_path):
    folder = shutil.copytree(machines, tmp_path / "dc")
    write_hum(folder / "fan" / "readme.wav", 1)
    path = tmp_path / "machines.safetensors"
    (line,) = run("fit", folder, "-m", models / "beats_tiny", "-o", path, exit_code=2).stderr.splitlines()
    assert "fan/readme.wav: is no name of DCASE's task 2, and 70 others are: move it out" in line


def test_a_machine_that_was_not_fitted_is_refused_before_anything_is_computed(machines, models, tmp_path):
    path = tmp_path / "fan.safetensors"
    run("fit", machines / "fan", "-m", models / "beats_tiny", "-o", path)
    (line,) = run("score", path, machines, exit_code=2).stderr.splitlines()
    assert "normal clips of fan/section_00, and none of valve/section_00" in line
    assert len(records(path, machines / "fan" / "test")) == 12
