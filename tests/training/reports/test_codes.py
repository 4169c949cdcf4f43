# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Diagnosis of codes: its numbers against plain computations, its page, and the command."""

import json
import math
import shlex

import numpy as np
import pytest
import torch
from tiny import ENCODER
from typer.testing import CliRunner

from transformers_beats import (
    BeatsConfig,
    BeatsFeatureExtractor,
    BeatsForAudioClassification,
    BeatsModel,
    BeatsRandomProjectionTokenizer,
    BeatsRandomProjectionTokenizerConfig,
)
from transformers_beats.cli.app import app
from transformers_beats.training.compute_codes import tokenize
from transformers_beats.training.config.arguments import DiagnosisArguments, TokenizeArguments
from transformers_beats.training.data.labels import LabelArguments
from transformers_beats.training.data.sources import DataArguments
from transformers_beats.training.diagnose_codes import diagnose, diagnose_if_possible, draw_clips
from transformers_beats.training.reports.codes import (
    CodeSample,
    bag_of_codes,
    cluster_states,
    describe_diagnosis,
    diagnose_sample,
    measure_codes,
    mutual_information,
    perplexity,
    probe,
    split_clips,
    write_diagnosis,
)
from transformers_beats.utils.errors import BeatsError, UsageError


def sample_of(generator, num_clips: int = 40, num_codes: int = 8, num_codebooks: int | None = None) -> CodeSample:
    """Clips of two classes, each of which has half of the codes; outputs of a teacher that tell the codes apart."""
    classes = np.arange(num_clips) % 2
    shape = (5, 4) if num_codebooks is None else (5, 4, num_codebooks)
    half = num_codes // 2
    codes = [generator.integers(half, size=shape) + half * label for label in classes]
    first = [values if num_codebooks is None else values[..., 0] for values in codes]
    states = [
        np.eye(num_codes)[values.ravel()] + 0.01 * generator.standard_normal((20, num_codes)) for values in first
    ]
    return CodeSample(codes, num_codes, classes, states=states)


@pytest.fixture
def generator():
    return np.random.default_rng(0)


def test_perplexity_is_that_of_the_frequencies():
    assert perplexity(np.array([3, 3, 3]), 8) == pytest.approx(1.0)
    assert perplexity(np.arange(8).repeat(5), 8) == pytest.approx(8.0)
    entropy = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    assert perplexity(np.array([0, 0, 0, 5]), 8) == pytest.approx(math.exp(entropy))


def test_mutual_information_is_that_of_the_joint_frequencies(generator):
    values = generator.integers(4, size=10_000)
    # About itself, all; about what is independent, nearly nothing; about half of it, one bit.
    assert mutual_information(values, values) == pytest.approx(math.log(perplexity(values, 4)))
    assert mutual_information(values, generator.integers(7, size=10_000)) < 0.005
    assert mutual_information(values, values // 2) == pytest.approx(math.log(2), abs=0.001)
    assert mutual_information(np.array([0, 5]), np.array([0, 0])) == 0


def test_a_bag_of_codes_has_the_root_of_each_share():
    sample = CodeSample([np.array([[0, 0], [2, 0]]), np.array([[1, 1]])], 3)
    np.testing.assert_allclose(bag_of_codes(sample), [[math.sqrt(0.75), 0, 0.5], [0, 1, 0]])


def test_codes_of_two_classes_say_which(generator):
    sample = sample_of(generator)
    found = measure_codes(sample)
    assert found["information"]["class"] == pytest.approx(math.log(2))
    assert found["by_chance"]["class"] < 0.1
    # Neither band nor column matters.
    for name in ("band", "position"):
        assert abs(found["information"][name] - found["by_chance"][name]) < 0.05
    assert found["probe"]["accuracy"] == 1.0
    assert found["probe"]["most_frequent_class"] == 0.5
    assert found["codes_alive"] == 1.0
    assert found["perplexity"] == pytest.approx(8, abs=0.2)
    assert len(found["perplexity_by_band"]) == 4


def test_codes_of_bands_say_which(generator):
    codes = [np.tile(np.arange(4), (5, 1)) for _ in range(10)]
    found = measure_codes(CodeSample(codes, 8))
    assert found["information"]["band"] == pytest.approx(math.log(4))
    assert found["information"]["position"] == pytest.approx(0, abs=1e-9)
    assert "class" not in found["information"]
    assert found["probe"] is None
    assert found["perplexity_by_band"] == pytest.approx([1.0] * 4)
    assert found["codes_alive"] == 0.5


def test_codes_without_anything_about_the_class_are_not_told_apart(generator):
    sample = sample_of(generator, num_clips=60)
    sample.classes = generator.permutation(sample.classes)
    found = probe(sample)
    assert 0.2 < found["accuracy"] < 0.8


def test_folds_of_the_data_are_used(generator):
    sample = sample_of(generator)
    # In a fold with classes that the others call by another name, the probe is wrong.
    sample.folds = np.arange(40) // 10
    sample.classes = np.where(sample.folds == 0, 1 - sample.classes, sample.classes)
    assert probe(sample)["accuracy"] == pytest.approx(0.75, abs=0.1)


@pytest.mark.parametrize(
    ("classes", "folds", "reason"),
    [
        ([0] * 4, None, "all clips are of one class"),
        ([0, 0, 0, 1], None, "a class has a single clip"),
        ([0, 1, 0, 1], [0, 0, 0, -1], "fewer than two folds"),
        ([0, 0, 1, 1], [0, 0, 1, 1], "without one of the folds, all clips are of one class"),
    ],
)
def test_a_probe_that_cannot_be_computed_is_none(generator, classes, folds, reason):
    codes = [generator.integers(4, size=(2, 4)) for _ in classes]
    sample = CodeSample(codes, 4, np.array(classes), None if folds is None else np.array(folds))
    assert probe(sample) is None
    assert reason in split_clips(sample)[1]
    found = diagnose_sample(sample, {})
    assert found["codes"]["probe"] is None
    (remark,) = found["notes"]
    assert reason in remark


def test_clips_without_a_fold_are_learned_from_only(generator):
    sample = sample_of(generator)
    sample.folds = np.where(np.arange(40) < 20, -1, np.arange(40) % 3)
    splits, _ = split_clips(sample)
    assert sorted(np.concatenate([test for _, test in splits]).tolist()) == list(range(20, 40))
    assert all(set(range(20)) <= set(train.tolist()) for train, _ in splits)
    assert probe(sample)["folds"] == 3
    assert probe(sample)["classes"] == 2


def test_measures_of_several_codebooks_are_means(generator):
    sample = sample_of(generator, num_codebooks=2)
    found = measure_codes(sample)
    of_each = [measure_codes(CodeSample([codes[..., k] for codes in sample.codes], 8, sample.classes)) for k in (0, 1)]
    assert found["perplexity"] == pytest.approx(np.mean([entry["perplexity"] for entry in of_each]))
    assert found["information"]["class"] == pytest.approx(
        np.mean([entry["information"]["class"] for entry in of_each])
    )
    assert bag_of_codes(sample).shape == (40, 16)


def test_codes_agree_with_clusters_of_the_same_patches(generator):
    sample = sample_of(generator)
    clusters = cluster_states(sample)
    assert [codes.shape for codes in clusters.codes] == [(5, 4, 1)] * 40
    found = diagnose_sample(sample, {"tokenizer": "a"})
    # k-means may join two of eight clusters.
    assert found["agreement"]["adjusted_mutual_information"] > 0.8
    assert found["k_means"]["information"]["class"] > 0.6
    sample.states = [generator.standard_normal((20, 8)) for _ in sample.codes]
    other = diagnose_sample(sample, {"tokenizer": "a"})
    assert abs(other["agreement"]["adjusted_mutual_information"]) < 0.1
    assert other["agreement"]["normalized_mutual_information"] < 0.2


@pytest.mark.parametrize("codes", [[], [np.array([[0, 8]])], [np.array([[0, -100]])]])
def test_codes_that_are_none_are_refused(codes):
    with pytest.raises(BeatsError, match=r"There is no code to examine|Codes must lie between 0 and 7, got"):
        CodeSample(codes, 8)


def test_outputs_of_other_patches_are_refused():
    with pytest.raises(BeatsError, match="has codes of 8 patches, and 4 outputs of the teacher"):
        CodeSample([np.zeros((2, 4), dtype=int)], 8, states=[np.zeros((4, 3))])


def test_a_page_needs_no_other_file(generator, tmp_path):
    for number, sample in enumerate((sample_of(generator), CodeSample(sample_of(generator).codes, 8))):
        sample.notes.append("Without <classes>")
        found = diagnose_sample(sample, {"tokenizer": "tok", "teacher": None})
        write_diagnosis(tmp_path / str(number), found, sample)
        assert json.loads((tmp_path / str(number) / "diagnosis.json").read_text()) == found
        page = (tmp_path / str(number) / "diagnosis.html").read_text()
        assert page.count("<svg") == 3
        assert "Without &lt;classes&gt;" in page
        assert "http" not in page.replace("http-equiv", "").replace("http://www.w3.org", "")
    text = describe_diagnosis(diagnose_sample(sample_of(generator), {}))
    assert text.startswith("perplexity 8.0 of 8, 100% of the codes in use, 0.69 nats about the class (0.0")
    assert (
        "bag-of-codes probe 100.0% (2 classes, 5 folds), 100.0% with k-means on the teacher, agreement with " in text
    )


def test_as_many_clips_of_each_class_are_drawn():
    classes = np.array([0] * 50 + [1] * 30 + [2] * 20)
    drawn = draw_clips(classes, 100, 45, 0)
    assert np.bincount(classes[drawn]).tolist() == [15, 15, 15]
    # With ten of each, two classes.
    assert np.bincount(classes[draw_clips(classes, 100, 20, 0)]).tolist() == [10, 10]
    # Classes with fewer clips than folds, unless fewer than two others remain.
    rare = np.array([0] * 50 + [1] * 30 + [2] * 4)
    assert np.bincount(rare[draw_clips(rare, 84, 45, 0)]).tolist() == [23, 22]
    assert np.bincount(rare[draw_clips(rare, 84, 45, 0, num_folds=4)]).tolist() == [21, 20, 4]
    assert np.bincount(rare[draw_clips(rare, 84, 45, 0, num_folds=40)]).tolist() == [21, 20, 4]
    assert len(draw_clips(None, 100, 30, 0)) == len(set(draw_clips(None, 100, 30, 0).tolist())) == 30
    assert draw_clips(None, 5, 30, 0).tolist() == list(range(5))


# The command


@pytest.fixture
def tokenizer(tmp_path) -> str:
    config = BeatsRandomProjectionTokenizerConfig(codebook_size=16, codebook_dim=8)
    BeatsRandomProjectionTokenizer(config).save_pretrained(tmp_path / "tokenizer")
    BeatsFeatureExtractor().save_pretrained(tmp_path / "tokenizer")
    return str(tmp_path / "tokenizer")


@pytest.fixture
def teacher(tmp_path) -> str:
    torch.manual_seed(0)
    BeatsModel(BeatsConfig(**ENCODER)).save_pretrained(tmp_path / "teacher")
    BeatsFeatureExtractor().save_pretrained(tmp_path / "teacher")
    return str(tmp_path / "teacher")


def test_stored_codes_are_those_of_the_tokenizer(labelled, tokenizer, teacher, tmp_path):
    data = DataArguments(str(labelled), crop_seconds=0.5)
    tokenize(TokenizeArguments(tokenizer, str(tmp_path / "codes"), batch_size=4), data)
    found = {}
    for name, place in (("codes", str(tmp_path / "codes")), ("tokenizer", tokenizer)):
        arguments = DiagnosisArguments(str(tmp_path / f"of-{name}"), **{name: place}, teacher=teacher, num_clips=10)
        found[name] = diagnose(arguments, data, LabelArguments())
        assert found[name]["description"].pop("tokenizer") == place
    assert found["codes"] == found["tokenizer"]
    assert found["codes"]["description"]["clips"] == 10


@pytest.mark.parametrize("legacy", [False, True])
def test_states_are_centred_over_the_whole_sample(labelled, tmp_path, monkeypatch, legacy):
    torch.manual_seed(0)
    place = str(tmp_path / "models")
    BeatsModel(BeatsConfig(**ENCODER, legacy_padding_mask=legacy)).save_pretrained(f"{place}-teacher")
    config = BeatsRandomProjectionTokenizerConfig(codebook_size=16, codebook_dim=8, legacy_padding_mask=legacy)
    BeatsRandomProjectionTokenizer(config).save_pretrained(f"{place}-tokenizer")
    for role in ("teacher", "tokenizer"):
        BeatsFeatureExtractor(legacy_padding_mask=legacy).save_pretrained(f"{place}-{role}")
    samples = []

    def keep(sample, *_):
        samples.append(sample)
        raise BeatsError("enough")

    monkeypatch.setattr("transformers_beats.training.diagnose_codes.diagnose_sample", keep)
    for batch_size in (1, 2, 12):
        arguments = DiagnosisArguments(
            str(tmp_path / "new"),
            f"{place}-tokenizer",
            teacher=f"{place}-teacher",
            teacher_normalization="center",
            batch_size=batch_size,
        )
        with pytest.raises(BeatsError, match="enough"):
            diagnose(arguments, DataArguments(str(labelled), crop_seconds=1.0), LabelArguments())
    ones, twos, alls = (np.concatenate(sample.states) for sample in samples)
    if not legacy:
        np.testing.assert_allclose(ones, alls, atol=1e-5)
        np.testing.assert_allclose(twos, alls, atol=1e-5)
    for states in (ones, twos, alls):
        np.testing.assert_allclose(states.reshape(-1, 8, states.shape[1]).mean(axis=0), 0, atol=1e-5)


def test_errors_of_loading_end_a_run(labelled, tokenizer, tmp_path, caplog):
    arguments = DiagnosisArguments(str(tmp_path / "new"), tokenizer, num_clips=4)
    with pytest.raises(ValueError, match="nowhere"):
        diagnose_if_possible(arguments, DataArguments(str(tmp_path / "nowhere"), crop_seconds=1.0))


def test_a_stream_has_no_diagnosis_and_is_told_what_makes_one(labelled, tokenizer, tmp_path, caplog):
    data = DataArguments(str(labelled), crop_seconds=0.5, streaming=True)
    arguments = DiagnosisArguments(str(tmp_path / "new"), tokenizer, teacher="some teacher", num_clips=4)
    diagnose_if_possible(arguments, data)
    (message,) = [record.getMessage() for record in caplog.records if "diagnosis" in record.getMessage()]
    assert message.startswith("There is no diagnosis of the codes of a stream. ")
    words = shlex.split(message[message.index("transformers-beats ") :])[1:]
    assert words[words.index("--teacher") + 1] == "some teacher"
    result = CliRunner().invoke(app, [*words[: words.index("--teacher")], *words[words.index("--teacher") + 2 :]])
    assert result.exit_code == 0, result.output
    assert (tmp_path / "new" / "diagnosis.html").exists()


def test_the_command_examines_codes(labelled, tokenizer, tmp_path):
    words = ["diagnose-codes", "--tokenizer", tokenizer, "--dataset", str(labelled), "--crop_seconds", "1"]
    result = CliRunner().invoke(app, [*words, "--output_dir", str(tmp_path / "diagnosis")])
    assert result.exit_code == 0, result.output
    assert (tmp_path / "diagnosis" / "diagnosis.html").exists()
    assert "bag-of-codes probe " in result.stderr
    assert f"Diagnosis: {tmp_path / 'diagnosis' / 'diagnosis.html'}" in result.stderr


def test_a_teacher_that_knows_labels_is_remarked_on(labelled, tokenizer, tmp_path):
    BeatsForAudioClassification(BeatsConfig(**ENCODER, num_labels=3)).save_pretrained(tmp_path / "classifier")
    arguments = DiagnosisArguments(str(tmp_path / "new"), tokenizer, teacher=str(tmp_path / "classifier"))
    found = diagnose(arguments, DataArguments(str(labelled), crop_seconds=0.5), LabelArguments())
    (remark,) = found["notes"]
    assert remark.startswith("The teacher has learned labels: ")


def test_clips_without_classes_are_examined_without(sounds, tokenizer, tmp_path):
    data = DataArguments(str(sounds), crop_seconds=1.0)
    found = diagnose(DiagnosisArguments(str(tmp_path / "new"), tokenizer), data, LabelArguments())
    assert found["codes"]["probe"] is None
    (remark,) = found["notes"]
    assert remark.startswith("Without classes: ")
    folds = DiagnosisArguments(str(tmp_path / "other"), tokenizer, fold_column="fold")
    with pytest.raises(BeatsError, match="`fold_column` is for the probe of classes"):
        diagnose(folds, data, LabelArguments())
    with pytest.raises(BeatsError, match="new exists already"):
        diagnose(DiagnosisArguments(str(tmp_path / "new"), tokenizer), data, LabelArguments())
    with pytest.raises(UsageError, match="`event_files` are for fine-tuning and evaluations of events"):
        diagnose(DiagnosisArguments(str(tmp_path / "more"), tokenizer), data, LabelArguments(event_files="events.tsv"))


@pytest.mark.parametrize(("given", "kwargs"), [("neither", {}), ("both", {"tokenizer": "a", "codes": "b"})])
def test_a_tokenizer_or_codes_are_needed(given, kwargs):
    with pytest.raises(ValueError, match=f"`tokenizer` and `codes` is needed, got {given}"):
        DiagnosisArguments("new", **kwargs)
