# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Detectors: files of them, vectors of clips, explanations."""

import json

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from transformers_beats import BeatsFeatureExtractor, BeatsModel
from transformers_beats.anomalies import detector as detector_module
from transformers_beats.anomalies.bank import MemoryBank
from transformers_beats.anomalies.choices import DetectorSettings
from transformers_beats.anomalies.detector import METADATA, AnomalyDetector
from transformers_beats.anomalies.embedding import embed_clips
from transformers_beats.anomalies.explanation import MAX_MOMENTS, explain
from transformers_beats.audio.decoding import AudioError
from transformers_beats.inference.results import Columns
from transformers_beats.inference.windowed import WindowedInference
from transformers_beats.utils.errors import BeatsError, UsageError


SETTINGS = DetectorSettings((1, 3), "rdp", "separate", "mahalanobis", 2)


def clips(seed: int, num_clips: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(4, size=(num_clips, 2, 3, 8)).astype(np.float32)


@pytest.fixture
def fitted() -> AnomalyDetector:
    vectors = {
        "fan/section_00": {"source": clips(0, 25), "target": clips(1, 4)},
        "valve/section_00": {"source": clips(2, 8)},
    }
    return AnomalyDetector(vectors, SETTINGS, "f" * 40, "beats-iter3", "float32", 0.1)


# Files


def test_a_detector_that_was_saved_scores_alike(fitted, tmp_path):
    fitted.save(tmp_path / "machines.safetensors")
    loaded = AnomalyDetector.load(tmp_path / "machines.safetensors")
    tests = clips(3, 6)
    for machine in ("fan/section_00", "valve/section_00"):
        np.testing.assert_array_equal(loaded.score(tests, machine), fitted.score(tests, machine))
        np.testing.assert_array_equal(loaded.normal_scores(machine), fitted.normal_scores(machine))
    assert loaded.threshold(machine="fan/section_00") == fitted.threshold(0.1, "fan/section_00")
    assert (loaded.settings, loaded.fingerprint, loaded.model) == (SETTINGS, "f" * 40, "beats-iter3")
    assert [path.name for path in tmp_path.iterdir()] == ["machines.safetensors"]


def test_scores_of_normal_clips_are_not_computed_again_when_a_detector_is_loaded(fitted, tmp_path, monkeypatch):
    fitted.save(tmp_path / "machines.safetensors")
    monkeypatch.setattr("transformers_beats.anomalies.backends.Mahalanobis.held_out", None)
    AnomalyDetector.load(tmp_path / "machines.safetensors")


def test_a_detector_that_cannot_be_written_leaves_the_one_before(fitted, tmp_path, monkeypatch):
    path = tmp_path / "machines.safetensors"
    fitted.save(path)
    before = path.read_bytes()

    def fail(tensors, path, metadata):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(detector_module, "save_file", fail)
    with pytest.raises(UsageError, match=r"machines.safetensors: cannot be written: No space left on device\."):
        fitted.save(path)
    assert path.read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 1


def change_file(path, change) -> None:
    """Writes a detector again, with other tensors or another description."""
    from safetensors import safe_open

    tensors = load_file(path)
    with safe_open(path, "np") as file:
        described = json.loads(file.metadata()[METADATA])
    change(tensors, described)
    save_file(tensors, path, metadata={METADATA: json.dumps(described)})


def lose_a_tensor(tensors, described):
    del tensors["0.held_out"]


def cut_a_tensor(tensors, described):
    tensors["1.vectors"] = tensors["1.vectors"][:, :, :2]


def spoil_a_tensor(tensors, described):
    tensors["0.vectors"] = tensors["0.vectors"] * np.float32("nan")


def forget_the_model(tensors, described):
    del described["model"]


@pytest.mark.parametrize("change", [lose_a_tensor, cut_a_tensor, spoil_a_tensor, forget_the_model])
def test_damaged_detectors_are_refused_in_one_line(fitted, tmp_path, change):
    path = tmp_path / "machines.safetensors"
    fitted.save(path)
    change_file(path, change)
    with pytest.raises(BeatsError, match=r"machines.safetensors: cannot be read as a detector \(.*\): fit it again\."):
        AnomalyDetector.load(path)


def test_other_files_are_no_detectors(fitted, tmp_path):
    other, cut = tmp_path / "other.safetensors", tmp_path / "cut.safetensors"
    save_file({"x": np.zeros(1)}, other)
    with pytest.raises(UsageError, match="is no detector: make one with"):
        AnomalyDetector.load(other)
    fitted.save(cut)
    cut.write_bytes(cut.read_bytes()[:-100])
    with pytest.raises(BeatsError, match="cannot be read as a detector"):
        AnomalyDetector.load(cut)
    with pytest.raises(UsageError, match="no such file"):
        AnomalyDetector.load(tmp_path / "nothing.safetensors")
    fitted.save(other)
    change_file(other, lambda tensors, described: described.update(version=2))
    with pytest.raises(UsageError, match="is of another version of this package: fit it again"):
        AnomalyDetector.load(other)


def test_machines_that_are_not_known_are_refused(fitted):
    with pytest.raises(UsageError, match=r"normal clips of fan/section_00, valve/section_00, and none of pump"):
        fitted.bank_of("pump/section_00")
    with pytest.raises(UsageError, match=r"is of 2 machines .* and the path of a clip does not tell"):
        fitted.bank_of()
    alone = AnomalyDetector({"": {"": clips(0, 5)}}, SETTINGS, "f", "m", "float32")
    assert alone.bank_of("fan/section_00") is alone.bank_of()
    of_one = AnomalyDetector({"fan/section_00": {"": clips(0, 5)}}, SETTINGS, "f", "m", "float32")
    assert of_one.bank_of() is of_one.bank_of("fan/section_00")


def test_a_rate_that_a_machine_cannot_tell_is_refused_with_its_name(fitted):
    with pytest.raises(UsageError, match=r"^valve/section_00: A rate of false alarms of 0.05 needs 19 normal clips"):
        fitted.threshold(0.05, "valve/section_00")


# Vectors


@pytest.fixture
def inference(tiny_config):
    torch.manual_seed(0)
    return WindowedInference(BeatsModel(tiny_config), BeatsFeatureExtractor(), window_seconds=1.0)


def noise(seed: int, num_samples: int) -> np.ndarray:
    return (0.1 * np.random.default_rng(seed).standard_normal(num_samples)).astype(np.float32)


def test_means_of_bands_are_those_of_embed(inference):
    recordings = [{"array": noise(seed, 16000 + 9000 * seed), "sampling_rate": 16000} for seed in range(3)]
    found = list(embed_clips(inference, recordings, DetectorSettings((1, 3))))
    for recording, vectors in zip(recordings, found):
        expected = inference.embed(audio=recording, layers=[1, 3], grain="band")
        np.testing.assert_allclose(vectors, expected, atol=1e-5)
    concatenated = next(embed_clips(inference, recordings, DetectorSettings((2,), bands="concat")))
    assert concatenated.shape == (1, 1, 8 * 64)


def test_silence_is_an_error_in_its_place(inference):
    recordings = [{"array": samples, "sampling_rate": 16000} for samples in (noise(0, 9000), np.zeros(9000))]
    # Shorter than a column.
    recordings.append({"array": noise(1, 500), "sampling_rate": 16000})
    found = embed_clips(inference, recordings, DetectorSettings((3,)))
    assert next(found).shape == (1, 8, 64)
    with pytest.raises(AudioError, match="digital silence"):
        next(found)
    assert np.isfinite(next(found)).all()


# Explanations


@pytest.fixture
def normal_columns():
    """Columns `(10, 1, 4, 8)` of 20 clips, all of which are a little different."""
    generator = np.random.default_rng(0)
    directions = generator.normal(size=(1, 4, 8))
    return [directions + 0.05 * generator.normal(size=(10, 1, 4, 8)) for _ in range(20)]


@pytest.mark.parametrize("pooling", ["mean", "gem", "rdp", "rdp-gem"])
@pytest.mark.parametrize("backend", ["knn", "density", "mahalanobis", "pca"])
def test_an_event_is_found_in_its_band_at_its_moment(normal_columns, backend, pooling):
    from transformers_beats.anomalies.embedding import to_vectors

    settings = DetectorSettings((0,), pooling, backend=backend)
    bank = MemoryBank({"": np.stack([to_vectors(values, settings) for values in normal_columns])}, settings)
    clip = normal_columns[0].copy()
    clip[6, :, 2] += 3.0
    found = explain(Columns(clip, 0, 0.16), bank, settings)
    assert found.bands.argmax() == 2
    assert np.unravel_index(found.moments.argmax(), found.moments.shape) == (6, 2)
    assert found.score == pytest.approx(bank.score(to_vectors(clip, settings)[None])[0])
    # The band has the score of its clip without the moment, or what is left of it.
    rest = to_vectors(np.delete(clip, 6, axis=0), settings)[None]
    assert found.bands[2] - found.moments[6, 2] == pytest.approx(
        bank.parts(rest)[""][0, 0, 2], abs=1e-6 * found.bands[2]
    )


def test_long_clips_have_few_moments_and_clips_of_one_column_have_one(normal_columns):
    settings = DetectorSettings((0,))
    bank = MemoryBank({"": np.stack([values.mean(axis=0) for values in normal_columns])}, settings)
    long = explain(Columns(np.concatenate(normal_columns * 2)[:390], 0, 0.16), bank, settings)
    assert long.moments.shape == (98, 4)
    assert len(long.moments) <= MAX_MOMENTS
    assert long.moment_seconds == pytest.approx(0.64)
    short = explain(Columns(normal_columns[0][:1], 0, 0.16), bank, settings)
    np.testing.assert_array_equal(short.moments, short.bands[None])
