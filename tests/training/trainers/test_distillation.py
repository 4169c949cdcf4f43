# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""The objective of distillation, and the views that its trainer gives to teacher and student."""

import copy

import numpy as np
import pytest
import torch
from tiny import ENCODER

from transformers_beats import BeatsConfig, BeatsFeatureExtractor, BeatsForAudioClassification, BeatsModel
from transformers_beats.training.config.arguments import BeatsTrainingArguments
from transformers_beats.training.data.augmentation import AugmentationArguments
from transformers_beats.training.trainers.distillation import (
    BeatsForDistillation,
    DistillationTrainer,
    distances_of_logits,
    distances_of_states,
)


SINGLE, MULTI = "single_label_classification", "multi_label_classification"


def softmax(values: np.ndarray) -> np.ndarray:
    return np.exp(values) / np.exp(values).sum(axis=-1, keepdims=True)


def make_teacher(seed: int = 0, **values) -> BeatsForAudioClassification:
    torch.manual_seed(seed)
    teacher = BeatsForAudioClassification(BeatsConfig(**ENCODER | {"num_labels": 3, "problem_type": MULTI} | values))
    # Otherwise, all logits are almost 0.
    torch.nn.init.normal_(teacher.classifier.weight)
    return teacher.eval()


def make_objective(teacher, student, logits_weight=1.0, representation_weight=1.0, problem_type=MULTI):
    torch.manual_seed(1)
    width = teacher.config.hidden_size
    return BeatsForDistillation(student, width, problem_type, logits_weight, representation_weight, 2.0)


@pytest.fixture
def inputs() -> dict[str, torch.Tensor]:
    """Two clips of four columns, of which the second has two."""
    attention_mask = torch.ones(2, 64, dtype=torch.long)
    attention_mask[1, 32:] = 0
    values = torch.randn(2, 64, 128, generator=torch.Generator().manual_seed(0))
    return {"input_values": values, "attention_mask": attention_mask}


# Losses


@pytest.mark.parametrize("temperature", [1.0, 2.5])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_logits_cost_what_the_equations_say(temperature, dtype):
    generator = torch.Generator().manual_seed(0)
    logits, targets = (3 * torch.randn(4, 5, generator=generator).to(dtype) for _ in range(2))
    student, teacher = (values.double().numpy() / temperature for values in (logits, targets))
    own, others = softmax(student), softmax(teacher)
    expected = temperature**2 * (others * (np.log(others) - np.log(own))).sum(axis=-1)
    found = distances_of_logits(logits, targets, SINGLE, temperature)
    assert found.dtype == torch.float32
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-5)

    own, others = (1 / (1 + np.exp(-values)) for values in (student, teacher))
    expected = temperature**2 * -(others * np.log(own) + (1 - others) * np.log(1 - own)).mean(axis=-1)
    np.testing.assert_allclose(distances_of_logits(logits, targets, MULTI, temperature).numpy(), expected, rtol=1e-5)


@pytest.mark.parametrize("problem_type", [SINGLE, MULTI])
def test_logits_cost_least_where_they_are_the_teachers(problem_type):
    targets = torch.tensor([[2.0, -1.0, 0.5]])
    logits = targets.clone().requires_grad_()
    distances_of_logits(logits, targets, problem_type, 2.0).sum().backward()
    torch.testing.assert_close(logits.grad, torch.zeros_like(logits), rtol=0, atol=1e-6)


@pytest.mark.parametrize("problem_type", [SINGLE, MULTI])
def test_extreme_logits_cost_no_nan(problem_type):
    logits = torch.tensor([[1e4, -1e4], [-1e4, 1e4]]).requires_grad_()
    distances = distances_of_logits(logits, logits.detach().flip(1), problem_type, 1.0)
    distances.sum().backward()
    assert distances.isfinite().all()
    assert logits.grad.isfinite().all()


def test_states_cost_one_minus_the_mean_cosine_of_a_clip():
    generator = torch.Generator().manual_seed(0)
    states, targets = (torch.randn(2, 6, 8, generator=generator) for _ in range(2))
    mask = torch.tensor([[True] * 6, [True] * 2 + [False] * 4])
    first, second = (values.double().numpy() for values in (states, targets))
    cosine = (first * second).sum(-1) / np.linalg.norm(first, axis=-1) / np.linalg.norm(second, axis=-1)
    expected = [1 - cosine[0].mean(), 1 - cosine[1, :2].mean()]
    np.testing.assert_allclose(distances_of_states(states, targets, mask).numpy(), expected, rtol=1e-5)


def test_the_loss_is_the_weighted_sum_of_both(inputs):
    teacher = make_teacher()
    student = make_teacher(3, num_hidden_layers=1, hidden_size=16)
    objective = make_objective(teacher, student, 0.5, 2.0).eval()
    with torch.no_grad():
        taught = teacher(**inputs, output_hidden_states=True)
        output = objective(**inputs, teacher_logits=taught.logits, teacher_states=taught.hidden_states[-1])
        own = student(**inputs, output_hidden_states=True)
    logits_loss = distances_of_logits(own.logits, taught.logits, MULTI, 2.0).mean()
    torch.testing.assert_close(output.logits_loss, logits_loss)
    mask = torch.tensor([[True] * 32, [True] * 16 + [False] * 16])
    states = own.hidden_states[-1] @ objective.projection.weight.T + objective.projection.bias
    representation_loss = distances_of_states(states, taught.hidden_states[-1], mask).mean()
    torch.testing.assert_close(output.representation_loss, representation_loss)
    torch.testing.assert_close(output.loss, 0.5 * logits_loss + 2.0 * representation_loss)
    assert output.num_clips == 2
    assert output.agreement == (own.logits.argmax(-1) == taught.logits.argmax(-1)).float().mean()


@torch.no_grad()
def test_padding_never_enters_the_loss(inputs):
    teacher = make_teacher()
    objective = make_objective(teacher, make_teacher(3, num_hidden_layers=1, hidden_size=16)).eval()

    def losses_of(values: torch.Tensor, mask: torch.Tensor):
        taught = teacher(values, attention_mask=mask, output_hidden_states=True)
        return objective(values, mask, teacher_logits=taught.logits, teacher_states=taught.hidden_states[-1])

    values, mask = inputs["input_values"], inputs["attention_mask"]
    other = values.clone()
    other[1, 32:] = 50.0
    expected = losses_of(values, mask)
    assert losses_of(other, mask).loss == expected.loss
    # Every clip counts alike, whatever its length.
    alone = [losses_of(values[:1], mask[:1]), losses_of(values[1:, :32], mask[1:, :32])]
    for name in ("loss", "logits_loss", "representation_loss", "agreement"):
        mean = torch.stack([output[name] for output in alone]).mean()
        torch.testing.assert_close(expected[name], mean, rtol=0, atol=1e-5)


def test_a_projection_between_equal_widths_begins_as_the_identity(inputs):
    teacher = make_teacher()
    objective = make_objective(teacher, copy.deepcopy(teacher)).eval()
    with torch.no_grad():
        taught = teacher(**inputs, output_hidden_states=True)
        output = objective(**inputs, teacher_states=taught.hidden_states[-1])
    assert output.representation_loss == pytest.approx(0, abs=1e-6)
    assert output.logits_loss is None


def test_an_encoder_learns_representations_only(inputs):
    teacher = make_teacher()
    objective = make_objective(teacher, BeatsModel(BeatsConfig(**ENCODER)), 0.0)
    output = objective(**inputs, teacher_states=torch.randn(2, 32, 32))
    assert output.logits_loss is None
    assert output.agreement is None
    assert output.loss == output.representation_loss
    output.loss.backward()
    assert all(value.grad is not None for value in objective.parameters())


# The trainer


def make_trainer(tmp_path, teacher, student, augmentation=None, layers=None, **weights) -> DistillationTrainer:
    return DistillationTrainer(
        make_objective(teacher, student, **weights),
        BeatsTrainingArguments(output_dir=str(tmp_path / "out"), disable_tqdm=True),
        feature_extractor=BeatsFeatureExtractor(),
        teacher=teacher,
        layers=layers,
        augmentation=augmentation,
    )


@pytest.fixture
def batch() -> dict[str, torch.Tensor]:
    """Three clips, of which the last is shorter."""
    waveforms = 0.1 * torch.randn(3, 16000, generator=torch.Generator().manual_seed(0))
    waveforms[2, 9000:] = 0
    return {"waveforms": waveforms, "num_samples": torch.tensor([16000, 16000, 9000])}


def test_teacher_and_student_see_the_same_views(tmp_path, batch, monkeypatch):
    teacher = make_teacher()
    student = make_teacher(3, num_hidden_layers=1)
    augmentation = AugmentationArguments(roll=True, mixup_alpha=1.0, time_mask_ratio=0.5, freq_mask_bins=30)
    trainer = make_trainer(tmp_path, teacher, student, augmentation)
    seen = {}

    def spy(name, encoder):
        forward = encoder.forward

        def record(input_values, attention_mask=None, **kwargs):
            seen[name] = input_values, attention_mask
            return forward(input_values, attention_mask=attention_mask, **kwargs)

        monkeypatch.setattr(encoder, "forward", record)

    spy("teacher", teacher.beats)
    spy("student", student.beats)
    given = {name: value.clone() for name, value in batch.items()}
    views = []
    for _ in range(2):
        trainer.compute_loss(trainer.model.train(), trainer._prepare_inputs(batch))
        for own, others in zip(seen["student"], seen["teacher"]):
            assert torch.equal(own, others)
        views.append(seen["student"][0])
    # Others at every step, and not the clips themselves.
    plain = trainer.feature_extractor([*batch["waveforms"].numpy()], sampling_rate=16000, return_tensors="pt")
    assert not torch.equal(*views)
    assert not torch.equal(views[0], plain["input_values"])
    assert all(torch.equal(batch[name], value) for name, value in given.items())


def test_a_ready_fbank_is_taken_as_it_is(tmp_path, inputs):
    trainer = make_trainer(tmp_path, make_teacher(), make_teacher(3, num_hidden_layers=1))
    prepared = trainer._prepare_inputs(inputs)
    assert torch.equal(prepared["input_values"], inputs["input_values"])
    assert prepared.keys() == {"input_values", "attention_mask", "teacher_logits", "teacher_states"}


def test_the_teacher_is_not_trained(tmp_path, batch):
    teacher = make_teacher(hidden_dropout=0.5, layerdrop=0.5).train()
    trainer = make_trainer(tmp_path, teacher, make_teacher(3, num_hidden_layers=1))
    assert not trainer.teacher.training
    assert not any(value.requires_grad for value in trainer.teacher.parameters())
    first, second = (trainer._prepare_inputs(batch) for _ in range(2))
    for name in ("teacher_logits", "teacher_states"):
        # Without dropout.
        assert torch.equal(first[name], second[name])
        assert not first[name].requires_grad
    assert not any(name.startswith("teacher") for name, _ in trainer.model.named_parameters())


def test_the_mean_of_chosen_layers_is_learned(tmp_path, batch):
    teacher = make_teacher()
    trainer = make_trainer(tmp_path, teacher, make_teacher(3, num_hidden_layers=1), layers=[0, -1])
    prepared = trainer._prepare_inputs(batch)
    with torch.no_grad():
        inputs = {name: prepared[name] for name in ("input_values", "attention_mask")}
        states = teacher(**inputs, output_hidden_states=True).hidden_states
    torch.testing.assert_close(prepared["teacher_states"], (states[0] + states[-1]) / 2)


@pytest.mark.parametrize(
    ("weights", "targets"),
    [({"representation_weight": 0.0}, {"teacher_logits"}), ({"logits_weight": 0.0}, {"teacher_states"})],
)
def test_of_a_weight_of_zero_nothing_is_computed(tmp_path, batch, weights, targets):
    student = make_teacher(3) if "representation_weight" in weights else BeatsModel(BeatsConfig(**ENCODER))
    trainer = make_trainer(tmp_path, make_teacher(), student, **weights)
    prepared = trainer._prepare_inputs(batch)
    assert prepared.keys() == {"input_values", "attention_mask", *targets}
    assert trainer.compute_loss(trainer.model, prepared).isfinite()
