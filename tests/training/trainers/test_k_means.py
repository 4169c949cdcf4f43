# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Tokenizers by k-means: their codes are the nearest means, and every stage takes them."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import ENCODER

from transformers_beats import (
    BeatsConfig,
    BeatsFeatureExtractor,
    BeatsForAudioClassification,
    BeatsModel,
    BeatsRandomProjectionTokenizer,
    BeatsRandomProjectionTokenizerConfig,
    BeatsTokenizerModel,
)
from transformers_beats.training import train_tokenizer as train_tokenizer_module
from transformers_beats.training.config.arguments import TRAIN_TOKENIZER_ARGUMENTS, TokenizerModelArguments
from transformers_beats.training.config.iterations import IterateArguments
from transformers_beats.training.config.recipes import build_arguments, merge
from transformers_beats.training.data.mixing import corpus_of_items
from transformers_beats.training.iterate import iterate
from transformers_beats.training.reports.codes import fit_k_means
from transformers_beats.training.stages import load_tokenizer
from transformers_beats.training.train_tokenizer import train_tokenizer
from transformers_beats.training.trainers.k_means import build_k_means_tokenizer, count_draws, draw_patches
from transformers_beats.training.trainers.pretraining import CodebookCollapseError
from transformers_beats.utils.errors import BeatsError, UsageError


def make_teacher(directory: Path, num_labels: int = 0) -> Path:
    """Writes a model with random weights, and its feature extractor."""
    torch.manual_seed(0)
    if num_labels:
        BeatsForAudioClassification(BeatsConfig(**ENCODER, num_labels=num_labels)).save_pretrained(directory)
    else:
        BeatsModel(BeatsConfig(**ENCODER)).save_pretrained(directory)
    BeatsFeatureExtractor(fbank_mean=14.0).save_pretrained(directory)
    return directory


def fit(recipe: dict, teacher: Path, output_dir: Path, **values) -> None:
    """Runs `train-tokenizer` with the method `k_means`."""
    places = {"teacher": str(teacher), "output_dir": str(output_dir)}
    stage = {**recipe["data"], **recipe["tokenizer"], **places, "method": "k_means", "diagnosis_clips": 0, **values}
    train_tokenizer(*build_arguments(TRAIN_TOKENIZER_ARGUMENTS, stage))


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_codes_are_the_nearest_means(scale):
    """The lookup on the unit sphere is that of Euclidean means, in any unit and far from the origin."""
    torch.manual_seed(0)
    encoder = BeatsModel(BeatsConfig(**ENCODER)).eval()
    values = torch.randn(3, 96, 128)
    mask = torch.ones(3, 96, dtype=torch.long)
    mask[1, 50:] = 0
    with torch.no_grad():
        last = encoder.encoder.layers[-1].final_layer_norm
        last.weight.mul_(scale)
        last.bias.add_(5 * scale)
        states = encoder(values, attention_mask=mask).last_hidden_state
    valid = states[:, :].flatten(0, 1).numpy()
    tokenizer = build_k_means_tokenizer(encoder, valid, 12, seed=3)
    with torch.no_grad():
        found = tokenizer(values, attention_mask=mask).audio_codes.flatten(1)
    means = torch.from_numpy(fit_k_means(valid, 12, seed=3).cluster_centers_).double()
    distances = torch.cdist(states.double(), means)
    nearest, second = distances.topk(2, largest=False).values.unbind(-1)
    # Neighbours of a border may round either way.
    is_clear = (second - nearest > 1e-4 * nearest) & (found >= 0)
    assert is_clear.float().mean() > 0.8
    assert torch.equal(found[is_clear], distances.argmin(-1)[is_clear])
    assert (found[1] == -100).sum() == 3 * 8
    assert len(found[is_clear].unique()) == 12


def test_a_tokenizer_is_saved_with_the_weights_and_the_fbank_of_its_teacher(recipe, tmp_path):
    teacher, place = make_teacher(tmp_path / "teacher"), tmp_path / "tokenizer"
    fit(recipe, teacher, place)
    tokenizer = BeatsTokenizerModel.from_pretrained(place)
    assert (tokenizer.config.codebook_size, tokenizer.config.codebook_dim) == (16, ENCODER["hidden_size"] + 2)
    expected = BeatsModel.from_pretrained(teacher).state_dict()
    actual = tokenizer.beats.state_dict()
    assert all(torch.equal(actual[name], value) for name, value in expected.items())
    assert BeatsFeatureExtractor.from_pretrained(place).fbank_mean == 14.0
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_dir()) == [
        *("cache", "sounds", "teacher", "tokenizer")
    ]
    # The same clips, patches and means with the same seed.
    fit(recipe, teacher, tmp_path / "again")
    again = BeatsTokenizerModel.from_pretrained(tmp_path / "again")
    torch.testing.assert_close(again.quantizer.codebook, tokenizer.quantizer.codebook)


def test_a_tokenizer_that_another_run_has_written_is_not_replaced(recipe, tmp_path, monkeypatch):
    place = tmp_path / "tokenizer"

    def build(*args):
        place.mkdir()
        (place / "config.json").write_text("of another run")
        return build_k_means_tokenizer(*args)

    monkeypatch.setattr(train_tokenizer_module, "build_k_means_tokenizer", build)
    with pytest.raises(UsageError, match="tokenizer exists already"):
        fit(recipe, make_teacher(tmp_path / "teacher"), place)
    assert [(path.name, path.read_text()) for path in place.iterdir()] == [("config.json", "of another run")]


def test_a_classifier_teaches_the_outputs_of_its_encoder(recipe, tmp_path):
    teacher = make_teacher(tmp_path / "teacher", num_labels=3)
    fit(recipe, teacher, tmp_path / "tokenizer")
    tokenizer = BeatsTokenizerModel.from_pretrained(tmp_path / "tokenizer")
    assert tokenizer.config.codebook_dim == ENCODER["hidden_size"] + 2
    expected = BeatsForAudioClassification.from_pretrained(teacher).beats.state_dict()
    assert all(torch.equal(tokenizer.beats.state_dict()[name], value) for name, value in expected.items())


@pytest.mark.usefixtures("no_pictures")
def test_iterations_go_on_with_k_means(recipe):
    # Of no size that a tokenizer of the teacher's weights could have, which a distillation refuses.
    changes = {"method": "k_means", "initialize_from_teacher": True, "model_config": {"num_hidden_layers": 3}}
    merge(recipe, {"tokenizer": changes, "initialize_from_last": True, "diagnosis_clips": 12})
    model = iterate(IterateArguments(**recipe))
    assert model.parent.name == "iteration-2"
    assert BeatsConfig.from_pretrained(model).codebook_size == 16
    assert type(BeatsTokenizerModel.from_pretrained(model.parent / "tokenizer")) is BeatsTokenizerModel
    assert (model.parent / "diagnosis" / "diagnosis.json").exists()


def test_what_cannot_be_clustered_leaves_nothing(recipe, tmp_path):
    teacher, place = make_teacher(tmp_path / "teacher"), tmp_path / "tokenizer"
    # Twelve clips of at most six columns of eight patches.
    too_many = recipe["tokenizer"]["model_config"] | {"codebook_size": 1000}
    with pytest.raises(
        BeatsError, match=r"k-means needs at least as many patches as codes, got \d+ for a codebook of"
    ):
        fit(recipe, teacher, place, model_config=too_many)
    with pytest.raises(CodebookCollapseError, match="below `min_perplexity` 16"):
        fit(recipe, teacher, place, min_perplexity=16.0)
    with pytest.raises(UsageError, match="k-means draws clips of a dataset: set `streaming: false`"):
        fit(recipe, teacher, place, streaming=True, max_steps=2)
    assert not place.exists()
    encoder = BeatsModel(BeatsConfig(**ENCODER))
    with pytest.raises(BeatsError, match="no numbers"):
        build_k_means_tokenizer(encoder, np.full((20, 32), np.nan, dtype=np.float32), 4, seed=0)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"teacher_layers": [1]}, "`teacher_layers`: k-means clusters the outputs of the last layer"),
        ({"teacher_normalization": "center"}, "`teacher_normalization`: k-means clusters"),
    ],
)
def test_arguments_of_a_distillation_are_refused(values, message):
    with pytest.raises(UsageError, match=message):
        TokenizerModelArguments("teacher", method="k_means", **values)


def test_datasets_have_their_shares_of_the_clips(recipe, sounds, tmp_path, monkeypatch):
    few = tmp_path / "few"
    few.mkdir()
    shutil.copy(next(iter(sorted(sounds.rglob("*.wav")))), few / "a.wav")
    recipe["data"] |= {"dataset": [str(few), str(sounds)], "dataset_weights": [1, 1]}
    counts, original = [], train_tokenizer_module.run_models

    def look(clips, *others, **options):
        of_items = corpus_of_items(clips.dataset)
        counts.append(np.bincount([of_items[item] for item, _ in clips.indices]).tolist())
        return original(clips, *others, **options)

    monkeypatch.setattr(train_tokenizer_module, "run_models", look)
    fit(recipe, make_teacher(tmp_path / "teacher"), tmp_path / "tokenizer", min_perplexity=1)
    (found,) = counts
    assert abs(found[0] - found[1]) <= 1
    assert sum(found) > 2


def test_patches_are_drawn_from_many_clips():
    assert count_draws(10, 4) == (10, 103)
    assert count_draws(10**6, 1024) == (4096, 64)
    states = [np.full((size, 2), index, dtype=np.float64) for index, size in enumerate((5, 2, 9))]
    drawn = draw_patches(iter(states), 4, seed=0)
    assert drawn.dtype == np.float32
    assert np.bincount(drawn[:, 0].astype(int)).tolist() == [4, 2, 4]


@pytest.mark.parametrize("kind", ["k_means", "random_projection"])
def test_codes_are_computed_in_float32_whatever_a_tokenizer_was_saved_in(kind, tmp_path):
    if kind == "k_means":
        states = np.random.default_rng(0).standard_normal((64, ENCODER["hidden_size"])).astype(np.float32)
        tokenizer = build_k_means_tokenizer(BeatsModel(BeatsConfig(**ENCODER)), states, 16, seed=0)
    else:
        tokenizer = BeatsRandomProjectionTokenizer(BeatsRandomProjectionTokenizerConfig())
    tokenizer.to(torch.bfloat16).save_pretrained(tmp_path / "tokenizer")
    loaded = load_tokenizer(str(tmp_path / "tokenizer"))
    assert {value.dtype for value in loaded.state_dict().values()} == {torch.float32}
