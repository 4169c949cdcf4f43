# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Targets of pre-training: outputs of teachers, mixtures of clips, and codes of several codebooks."""

import json
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tiny import ENCODER, make_recipe
from torch import nn

from transformers_beats import BeatsConfig, BeatsFeatureExtractor, BeatsForAudioClassification, BeatsModel
from transformers_beats.fbank_beats import kaldi_fbank
from transformers_beats.training import pretrain as pretrain_module
from transformers_beats.training.compute_codes import load_codes
from transformers_beats.training.config.arguments import (
    PRETRAIN_ARGUMENTS,
    TRAIN_TOKENIZER_ARGUMENTS,
    BeatsTrainingArguments,
)
from transformers_beats.training.config.iterations import IterateArguments
from transformers_beats.training.config.recipes import build_arguments
from transformers_beats.training.data.sources import DataArguments
from transformers_beats.training.iterate import iterate
from transformers_beats.training.stages import load_teacher, training_settings
from transformers_beats.training.train_tokenizer import train_tokenizer
from transformers_beats.training.trainers.averaging import prepare_average
from transformers_beats.training.trainers.mixtures import mix_clips
from transformers_beats.training.trainers.pretraining import BeatsPreTrainer, teacher_outputs
from transformers_beats.utils.errors import BeatsError


@pytest.fixture
def teacher() -> BeatsModel:
    torch.manual_seed(0)
    return BeatsModel(BeatsConfig(**ENCODER)).eval()


@pytest.fixture
def inputs() -> tuple[torch.Tensor, torch.Tensor]:
    """Two clips of four columns, of which the second has two."""
    attention_mask = torch.ones(2, 64, dtype=torch.long)
    attention_mask[1, 32:] = 0
    return torch.randn(2, 64, 128, generator=torch.Generator().manual_seed(0)), attention_mask


# Teachers


@torch.no_grad()
def test_a_teacher_gives_the_mean_of_layers(teacher, inputs):
    states = teacher(inputs[0], attention_mask=inputs[1], output_hidden_states=True).hidden_states
    assert len(states) == 3
    for layers, expected in (
        (None, states[2]),
        ([1], states[1]),
        ([-1], states[2]),
        ([1, 2], (states[1] + states[2]) / 2),
        ([0, -1], (states[0] + states[2]) / 2),
    ):
        torch.testing.assert_close(teacher_outputs(teacher, *inputs, layers), expected)


@torch.no_grad()
def test_layers_are_normalised_before_their_mean(teacher, inputs):
    states = teacher(inputs[0], attention_mask=inputs[1], output_hidden_states=True).hidden_states
    normalised = [
        (values - values.mean(-1, keepdim=True)) / (values.var(-1, unbiased=False, keepdim=True) + 1e-5).sqrt()
        for values in states[1:]
    ]
    outputs = teacher_outputs(teacher, *inputs, [1, 2], "layer_norm")
    torch.testing.assert_close(outputs, torch.stack(normalised).mean(dim=0))


@torch.no_grad()
def test_centred_outputs_lack_the_mean_of_their_band(teacher, inputs):
    states = teacher_outputs(teacher, *inputs)
    centred = teacher_outputs(teacher, *inputs, normalization="center")
    for band in range(8):
        # Of six columns that hold no padding.
        valid = torch.cat([states[0, band::8], states[1, band:16:8]])
        torch.testing.assert_close(centred[0, band::8], states[0, band::8] - valid.mean(dim=0))
        torch.testing.assert_close(centred[1, band:16:8], states[1, band:16:8] - valid.mean(dim=0))


# As many prototypes as a patch has values, which its classifier would read without complaint.
WITHOUT_LOGITS_OF_PATCHES = [
    {"classifier_pooling": "frame_mean"},
    {"classifier_pooling": "prototypes", "num_prototypes": ENCODER["hidden_size"]},
]


@pytest.mark.parametrize("head", WITHOUT_LOGITS_OF_PATCHES)
def test_a_classifier_without_logits_of_patches_is_no_teacher_of_patches(inputs, head):
    model = BeatsForAudioClassification(BeatsConfig(**ENCODER, **head, num_labels=3))
    with pytest.raises(BeatsError, match="the classifier of this one has none"):
        teacher_outputs(model, *inputs)


@pytest.mark.parametrize("of_patches", [True, False])
@pytest.mark.parametrize("head", WITHOUT_LOGITS_OF_PATCHES)
def test_the_encoder_of_a_classifier_without_logits_of_patches_teaches_patches(of_patches, head, tmp_path, caplog):
    model = BeatsForAudioClassification(BeatsConfig(**ENCODER, **head, num_labels=3))
    model.save_pretrained(tmp_path / "teacher")
    teacher = load_teacher(str(tmp_path / "teacher"), of_patches)
    assert type(teacher) is (BeatsModel if of_patches else BeatsForAudioClassification)
    assert ("no logits of patches, so its encoder alone is the teacher" in caplog.text) == of_patches


@pytest.mark.parametrize(
    ("layers", "is_classifier", "message"),
    [
        ([3], False, r"`teacher_layers`: There is no layer 3: this model has 0 \(the input of the first layer\) to 2"),
        ([-4], False, "`teacher_layers`: There is no layer -4:"),
        ([], False, r"`teacher_layers`: Layers are \[\], which names none"),
        ([1], True, "`teacher_layers` are those of an encoder, and a classifier teaches its logits"),
    ],
)
def test_layers_that_a_teacher_does_not_have_are_refused(recipe, tmp_path, layers, is_classifier, message):
    model_class = BeatsForAudioClassification if is_classifier else BeatsModel
    model_class(BeatsConfig(**ENCODER, num_labels=2)).save_pretrained(tmp_path / "teacher")
    values = IterateArguments(**recipe).stage_values(
        "tokenizer", teacher=str(tmp_path / "teacher"), output_dir=str(tmp_path / "new"), teacher_layers=layers
    )
    with pytest.raises(ValueError, match=message):
        train_tokenizer(*build_arguments(TRAIN_TOKENIZER_ARGUMENTS, values))


def test_a_tokenizer_learns_chosen_layers(recipe, teacher, tmp_path):
    teacher.save_pretrained(tmp_path / "teacher")
    losses = {}
    for name, values in {
        "last": {},
        "both": {"teacher_layers": [1, 2], "teacher_normalization": "layer_norm"},
        "centred": {"teacher_normalization": "center"},
    }.items():
        place = tmp_path / name
        values = IterateArguments(**recipe).stage_values(
            "tokenizer", teacher=str(tmp_path / "teacher"), output_dir=str(place), max_steps=2, **values
        )
        train_tokenizer(*build_arguments(TRAIN_TOKENIZER_ARGUMENTS, values))
        history = json.loads((place / "log_history.json").read_text())
        losses[name] = history[0]["distillation_loss"]
    assert len(set(losses.values())) == 3


# Mixtures


def test_the_energies_of_two_clips_are_added():
    extractor = BeatsFeatureExtractor(fbank_mean=9.0, fbank_std=3.0)
    generator = np.random.default_rng(0)
    waveforms = [torch.from_numpy(0.1 * generator.standard_normal(16000)).float() for _ in range(2)]
    batch = extractor([item.numpy() for item in waveforms], sampling_rate=16000, return_tensors="pt")
    batch["labels"] = torch.arange(2 * 6 * 8).view(2, 6, 8)
    torch.manual_seed(0)
    mixed = mix_clips(dict(batch), extractor, 1.0)
    energies = sum(kaldi_fbank(item.unsqueeze(0), 128, 16000).exp() for item in waveforms)
    expected = (energies.log() - 9.0) / 6.0
    for values in mixed["input_values"]:
        torch.testing.assert_close(values, expected[0], rtol=0, atol=1e-4)
    assert torch.equal(mixed["mixed_codes"], batch["labels"].flip(0))
    assert torch.equal(mixed["labels"], batch["labels"])


def test_some_clips_are_mixed_and_padding_stays(inputs):
    extractor = BeatsFeatureExtractor()
    values, attention_mask = inputs[0].repeat(20, 1, 1), inputs[1].repeat(20, 1)
    labels = torch.arange(40).view(40, 1, 1, 1).expand(40, 4, 8, 2)
    torch.manual_seed(0)
    mixed = mix_clips({"input_values": values, "attention_mask": attention_mask, "labels": labels}, extractor, 0.5)
    is_mixed = mixed["mixed_codes"][:, 0, 0, 0] >= 0
    assert 10 <= is_mixed.sum() <= 30
    assert torch.equal(mixed["mixed_codes"][is_mixed, 0, 0, 1], torch.arange(40).roll(1)[is_mixed])
    assert torch.equal(mixed["input_values"][~is_mixed], values[~is_mixed])
    gain = (mixed["input_values"] - values)[is_mixed][:, :32]
    # Nothing becomes softer, but for rounding.
    assert gain.min() >= -1e-5
    assert gain.mean() > 0.1
    padding = attention_mask == 0
    assert torch.equal(mixed["input_values"][padding], values[padding])
    one = {"input_values": values[:1], "attention_mask": attention_mask[:1], "labels": labels[:1]}
    assert mix_clips(one, extractor, 1.0) == one


def test_padding_of_the_other_clip_is_not_heard(inputs):
    # Zeros would be as loud as an average sound.
    values = inputs[0].masked_fill(inputs[1].unsqueeze(-1) == 0, 0.0)
    labels = torch.zeros(2, 4, 8, dtype=torch.long)
    mixed = mix_clips(
        {"input_values": values, "attention_mask": inputs[1], "labels": labels}, BeatsFeatureExtractor(), 1.0
    )["input_values"]
    torch.testing.assert_close(mixed[0, 32:], values[0, 32:])
    gain = (mixed - values)[0, :32]
    # Nothing becomes softer, but for rounding.
    assert gain.min() >= -1e-5
    assert gain.mean() > 0.1
    assert torch.equal(mixed[1, 32:], values[1, 32:])
    assert mixed.isfinite().all()


def test_mixtures_are_heard_in_training_only(recipe, tmp_path):
    config = BeatsConfig(**recipe["model"]["model_config"], codebook_size=32)
    items = [
        {
            "input_values": torch.randn(48, 128),
            "attention_mask": torch.ones(48, dtype=torch.long),
            "labels": torch.full((3, 8), number),
        }
        for number in range(4)
    ]
    arguments = BeatsTrainingArguments(output_dir=str(tmp_path / "out"), disable_tqdm=True)
    trainer = BeatsPreTrainer(
        pretrain_module.BeatsForPreTraining(config),
        arguments,
        feature_extractor=BeatsFeatureExtractor(),
        mixture_probability=1.0,
    )
    batch = {name: torch.stack([item[name] for item in items]) for name in items[0]}
    trainer.model.train()
    assert trainer._prepare_inputs(dict(batch))["mixed_codes"][:, 0, 0].tolist() == [3, 0, 1, 2]
    trainer.model.eval()
    assert "mixed_codes" not in trainer._prepare_inputs(dict(batch))


def test_a_batch_of_one_clip_is_no_mixture(recipe):
    recipe["model"] |= {"mixture_probability": 0.5, "per_device_train_batch_size": 1}
    with pytest.raises(ValueError, match="model: `mixture_probability` mixes clips of a batch"):
        IterateArguments(**recipe)


@pytest.mark.parametrize(
    ("stage", "changes", "is_stored"),
    [
        ("tokenizer", {"teacher_normalization": "center"}, True),
        ("tokenizer", {"teacher_normalization": "layer_norm"}, False),
        ("model", {"mixture_probability": 0.5}, True),
        ("model", {}, False),
    ],
)
def test_the_clips_of_a_device_decide_where_they_are_mixed_or_centred(recipe, stage, changes, is_stored):
    recipe[stage] |= changes
    inputs = {"model": {"codes": "codes"}, "tokenizer": {"teacher": "teacher"}}[stage]
    values = IterateArguments(**recipe).stage_values(stage, **inputs, output_dir="out")
    owners = PRETRAIN_ARGUMENTS if stage == "model" else TRAIN_TOKENIZER_ARGUMENTS
    arguments, data, _, training = build_arguments(owners, values)
    settings = training_settings(training, arguments, data)
    assert settings.get("per_device_train_batch_size") == (4 if is_stored else None)


@pytest.mark.parametrize(("stage", "is_stored"), [("tokenizer", True), ("model", False)])
def test_the_batches_of_a_step_decide_how_often_a_codebook_moves(recipe, stage, is_stored):
    inputs = {"model": {"codes": "codes"}, "tokenizer": {"teacher": "teacher"}}[stage]
    owners = PRETRAIN_ARGUMENTS if stage == "model" else TRAIN_TOKENIZER_ARGUMENTS
    found = []
    for clips in (4, 2):
        recipe[stage] |= {"per_device_train_batch_size": clips, "gradient_accumulation_steps": 4 // clips}
        values = IterateArguments(**recipe).stage_values(stage, **inputs, output_dir="out")
        arguments, data, _, training = build_arguments(owners, values)
        found.append(training_settings(training, arguments, data))
    assert (found[0] != found[1]) == is_stored


def test_an_average_of_checkpoints_of_divided_weights_is_refused():
    trainer = Mock(is_fsdp_enabled=True)
    with pytest.raises(ValueError, match="`average_checkpoints` is not for FSDP"):
        prepare_average(trainer, 2)
    trainer.is_fsdp_enabled = False
    prepare_average(trainer, 2)
    trainer.add_callback.assert_called_once()


# Whole runs


def log_of(model: Path, key: str) -> list[float]:
    return [entry[key] for entry in json.loads((model / "log_history.json").read_text()) if key in entry]


def test_several_codebooks_go_from_codes_to_the_model(recipe):
    recipe["random_projection"] |= {"num_codebooks": 3}
    recipe["model"] |= {"mixture_probability": 0.5}
    recipe["model"]["model_config"] = recipe["model"]["model_config"] | {"mask_block_size": 2}
    run = iterate(IterateArguments(**recipe)).parents[1]
    codes, description = load_codes(str(run / "iteration-1/codes"), DataArguments(**recipe["data"]))
    assert description["num_codebooks"] == 3
    assert np.asarray(codes[0]["codes"]).shape[1:] == (8, 3)
    first, second = (BeatsConfig.from_pretrained(run / f"iteration-{number}/model") for number in (1, 2))
    assert (first.num_codebooks, first.codebook_size, first.mask_block_size) == (3, 32, 2)
    # A distilled tokenizer has one codebook.
    assert (second.num_codebooks, second.codebook_size) == (1, 16)
    assert log_of(run / "iteration-1/model", "loss")[0] == pytest.approx(np.log(32), rel=0.1)
    assert all(1 < value <= 32 for value in log_of(run / "iteration-1/model", "code_perplexity"))


def test_a_model_has_as_many_codebooks_as_its_tokenizer(recipe):
    recipe["model"]["model_config"] = recipe["model"]["model_config"] | {"num_codebooks": 2}
    with pytest.raises(ValueError, match=r"`model.model_config.num_codebooks` is that of each tokenizer"):
        IterateArguments(**recipe)
    recipe = make_recipe(Path(recipe["data"]["dataset"]), Path(recipe["output_dir"]))
    recipe["tokenizer"]["model_config"] = recipe["tokenizer"]["model_config"] | {"num_codebooks": 2}
    with pytest.raises(ValueError, match="`num_codebooks` of a self-distilled tokenizer must be 1, got 2"):
        IterateArguments(**recipe)


def test_the_model_is_the_average_of_its_last_checkpoints(recipe, monkeypatch):
    recipe["model"] |= {"average_checkpoints": 3, "save_total_limit": 1}
    checkpoints = []
    original = pretrain_module.average_checkpoints

    def keep(model: nn.Module, directory: Path, count: int) -> None:
        checkpoints.extend(load_file(path) for path in sorted(directory.glob("checkpoint-*/model.safetensors")))
        original(model, directory, count)

    monkeypatch.setattr(pretrain_module, "average_checkpoints", keep)
    model = iterate(IterateArguments(**recipe, num_iterations=1))
    assert len(checkpoints) == 3
    for name, value in load_file(model / "model.safetensors").items():
        expected = torch.stack([weights[name].double() for weights in checkpoints]).mean(dim=0).float()
        torch.testing.assert_close(value, expected, rtol=0, atol=1e-7)


def test_fewer_checkpoints_than_are_averaged_are_refused(recipe, tmp_path):
    run = iterate(IterateArguments(**recipe, num_iterations=1)).parent
    values = IterateArguments(**recipe).stage_values(
        "model", codes=str(run / "codes"), output_dir=str(tmp_path / "new"), average_checkpoints=4
    )
    with pytest.raises(ValueError, match=r"`average_checkpoints` is 4, but 3 checkpoint\(s\) would be written"):
        pretrain_module.pretrain(*build_arguments(PRETRAIN_ARGUMENTS, values))
