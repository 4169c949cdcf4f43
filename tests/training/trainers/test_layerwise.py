# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
import copy

import pytest
import torch
from tiny import ENCODER
from transformers import Trainer, TrainingArguments

from transformers_beats import (
    BeatsConfig,
    BeatsFeatureExtractor,
    BeatsForAudioClassification,
    BeatsForAudioFrameClassification,
    BeatsForPreTraining,
)
from transformers_beats.training.trainers.layerwise import layer_of, layerwise_parameter_groups, multiply_gradients
from transformers_beats.training.trainers.pretraining import WaveformTrainer


NUM_LAYERS = 4
# Half of a floating-point number is exact in every precision.
HALF = 0.5


def build_model(model_class=BeatsForAudioClassification, **config):
    """A model of four layers in float64, in training, without dropout."""
    torch.manual_seed(0)
    settings = ENCODER | {"num_hidden_layers": NUM_LAYERS, "num_labels": 5, "num_buckets": 32}
    settings |= {"problem_type": "multi_label_classification"}
    return model_class(BeatsConfig(**settings | config)).double().train()


def make_batch(batch_size: int = 2, num_frames: int = 48) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        "input_values": torch.randn(batch_size, num_frames, 128, generator=generator, dtype=torch.float64),
        "labels": torch.randint(2, (batch_size, 5), generator=generator).double(),
    }


def step(model, bf16: bool = False) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Loss and gradients of a step."""
    model.zero_grad()
    torch.manual_seed(1)
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        loss = model(**make_batch()).loss
    loss.backward()
    return loss.detach(), {name: parameter.grad.clone() for name, parameter in model.named_parameters()}


def assert_multiplied(
    plain: dict, multiplied: dict, ratio: float, num_layers: int = NUM_LAYERS, **tolerance: float
) -> None:
    for name, gradient in plain.items():
        # The table of relative positions has one factor for each layer.
        if "relative_attention_bias" not in name:
            factor = ratio ** max(0, num_layers - layer_of(name, num_layers))
            torch.testing.assert_close(
                multiplied[name], factor * gradient, msg=lambda text, name=name: f"{name}: {text}", **tolerance
            )


def checkpoint(model, kind: str) -> None:
    if kind != "none":
        model.gradient_checkpointing_enable({"use_reentrant": kind == "reentrant"})


# Depths


@pytest.mark.parametrize(
    ("name", "depth"),
    [
        ("beats.embeddings.patch_embeddings.projection.weight", 0),
        ("beats.embeddings.layer_norm.bias", 0),
        ("beats.embeddings.projection.weight", 0),
        ("beats.encoder.pos_conv_embed.conv.parametrizations.weight.original0", 0),
        ("beats.encoder.layer_norm.weight", 0),
        ("beats.encoder.relative_position.relative_attention_bias.weight", 0),
        ("beats.encoder.layers.0.self_attn.q_proj.weight", 1),
        ("beats.encoder.layers.11.final_layer_norm.bias", 12),
        ("layer_average.weight", 13),
        ("classifier.weight", 13),
        ("base_model.model.beats.encoder.layers.3.self_attn.q_proj.lora_A.default.weight", 4),
        ("base_model.model.classifier.modules_to_save.default.weight", 13),
        ("module._orig_mod.beats.embeddings.projection.bias", 0),
        ("label_predictor.encoder.layers.0.mlp.fc1.weight", 13),
    ],
)
def test_depth_of_a_parameter(name, depth):
    assert layer_of(name, 12) == depth


def test_the_norm_after_pre_norm_layers_belongs_to_the_head():
    assert layer_of("beats.encoder.layer_norm.weight", 12, layer_norm_first=True) == 13
    assert layer_of("beats.embeddings.layer_norm.weight", 12, layer_norm_first=True) == 0


# Learning rates


@pytest.mark.parametrize("model_class", [BeatsForAudioClassification, BeatsForAudioFrameClassification])
def test_learning_rates_fall_from_the_head_to_the_patches(model_class):
    model = build_model(model_class, use_weighted_layer_sum=True)
    groups = layerwise_parameter_groups(model, learning_rate=1e-3, weight_decay=0.1, decay=0.5)
    rates = {id(parameter): group["lr"] for group in groups for parameter in group["params"]}
    expected = {0: 1e-3 / 32, 1: 1e-3 / 16, 2: 1e-3 / 8, 3: 1e-3 / 4, 4: 1e-3 / 2, 5: 1e-3}
    for name, parameter in model.named_parameters():
        assert rates[id(parameter)] == pytest.approx(expected[layer_of(name, NUM_LAYERS)], rel=1e-12)
    assert {group["lr"] for group in groups[:2]} == {1e-3}


def test_every_trainable_parameter_is_in_one_group():
    model = build_model()
    model.beats.embeddings.requires_grad_(False)
    model.beats.encoder.layers[1].requires_grad_(False)
    groups = layerwise_parameter_groups(model, 1e-3, 0.1, 0.5)
    grouped = [id(parameter) for group in groups for parameter in group["params"]]
    assert sorted(grouped) == sorted(id(parameter) for parameter in model.parameters() if parameter.requires_grad)
    assert 2 not in {group["depth"] for group in groups}


def test_weight_decay_is_for_matrices_and_kernels_alone(tmp_path):
    model = build_model()
    trainer = WaveformTrainer(model, TrainingArguments(str(tmp_path)), feature_extractor=BeatsFeatureExtractor())
    decayed = set(trainer.get_decay_parameter_names(model))
    kinds = {name for name, _ in model.named_parameters() if name not in decayed}
    ends = ("bias", "layer_norm.weight", "relative_attention_bias.weight", "gru_rel_pos_const", "weight.original0")
    assert {next((end for end in ends if name.endswith(end)), name) for name in kinds} == set(ends)
    assert not any(name.endswith(ends) for name in decayed)
    groups = layerwise_parameter_groups(model, 1e-3, 0.1, 0.5)
    decays = {id(parameter): group["weight_decay"] for group in groups for parameter in group["params"]}
    assert {name for name, parameter in model.named_parameters() if decays[id(parameter)] == 0.1} == decayed
    assert set(decays.values()) == {0.0, 0.1}


def test_without_a_decay_all_layers_learn_alike():
    assert {group["lr"] for group in layerwise_parameter_groups(build_model(), 1e-3, 0.1, 1.0)} == {1e-3}


def test_a_training_uses_the_learning_rate_of_each_layer(tmp_path):
    model = build_model().float()
    before = copy.deepcopy(model.state_dict())
    optimizer = torch.optim.AdamW(layerwise_parameter_groups(model, 1e-2, 0.0, 0.1))
    items = [{name: value[0] for name, value in make_batch(1).items()}] * 2
    arguments = TrainingArguments(
        str(tmp_path), max_steps=1, per_device_train_batch_size=2, logging_steps=1, use_cpu=True, disable_tqdm=True
    )
    trainer = Trainer(model, arguments, train_dataset=items, optimizers=(optimizer, None))
    trainer.train()
    # The first step of Adam moves every weight by the learning rate.
    for name in ("classifier.bias", *(f"beats.encoder.layers.{index}.mlp.fc2.bias" for index in range(NUM_LAYERS))):
        moved = (model.get_parameter(name) - before[name]).abs().median().item()
        assert moved == pytest.approx(1e-2 * 0.1 ** (NUM_LAYERS + 1 - layer_of(name, NUM_LAYERS)), rel=0.05)
    assert trainer.state.log_history[0]["learning_rate"] == 1e-2


def test_models_with_nothing_to_decay_are_refused():
    with pytest.raises(ValueError, match="no BeatsModel in Linear"):
        layerwise_parameter_groups(torch.nn.Linear(2, 2), 1e-3, 0.1, 0.5)
    with pytest.raises(ValueError, match="All parameters of the model are frozen"):
        layerwise_parameter_groups(build_model().requires_grad_(False), 1e-3, 0.1, 0.5)


# Gradients


@pytest.mark.parametrize("checkpointing", ["none", "reentrant", "non-reentrant"])
def test_each_layer_gets_its_share_of_the_gradient(checkpointing):
    model = build_model()
    plain_loss, plain = step(model)
    checkpoint(model, checkpointing)
    multiply_gradients(model, 0.6)
    loss, multiplied = step(model)
    assert torch.equal(loss, plain_loss)
    assert_multiplied(plain, multiplied, 0.6, rtol=1e-9, atol=1e-15)
    for name, gradient in multiplied.items():
        # In theory, the bias of the keys has none: it moves all scores of a query alike.
        assert gradient.abs().max() > (0 if name.endswith("k_proj.bias") else 1e-9), name


def test_layer_0_of_12_gets_the_gradient_that_microsofts_ratio_gives_it():
    model = build_model(num_hidden_layers=12)
    _, plain = step(model)
    multiply_gradients(model, 0.6)
    _, multiplied = step(model)
    for name, factor in (
        ("beats.embeddings.patch_embeddings.projection.weight", 0.6**12),
        ("beats.encoder.layers.0.mlp.fc1.weight", 0.6**11),
        ("beats.encoder.layers.10.mlp.fc1.weight", 0.6),
        ("beats.encoder.layers.11.mlp.fc1.weight", 1.0),
        ("classifier.weight", 1.0),
    ):
        assert multiplied[name].norm().item() == pytest.approx(factor * plain[name].norm().item(), rel=1e-9)
        assert multiplied[name].norm() > 0


def test_each_layer_adds_to_the_table_of_relative_positions_by_its_factor():
    name = "beats.encoder.relative_position.relative_attention_bias.weight"
    model = build_model()
    expected = 0.0
    for wanted in range(NUM_LAYERS):
        # Only one layer reads the table; the gradient of all layers' biases together goes to nothing else.
        handles = [
            layer.register_forward_pre_hook(lambda _, args: (*args[:2], args[2].detach()))
            for index, layer in enumerate(model.beats.encoder.layers)
            if index != wanted
        ]
        expected = expected + 0.6 ** (NUM_LAYERS - 1 - wanted) * step(model)[1][name]
        for handle in handles:
            handle.remove()
    multiply_gradients(model, 0.6)
    torch.testing.assert_close(step(model)[1][name], expected, rtol=1e-9, atol=1e-15)


@pytest.mark.parametrize("checkpointing", ["none", "reentrant", "non-reentrant"])
def test_gradients_are_multiplied_under_bf16_autocast(checkpointing):
    model = build_model().float()
    checkpoint(model, checkpointing)
    plain_loss, plain = step(model, bf16=True)
    multiply_gradients(model, HALF)
    loss, multiplied = step(model, bf16=True)
    assert torch.equal(loss, plain_loss)
    assert_multiplied(plain, multiplied, HALF, rtol=0, atol=0)


@pytest.mark.parametrize("checkpointing", ["none", "non-reentrant"])
def test_gradients_are_multiplied_with_layerdrop_and_dropout(checkpointing):
    model = build_model(layerdrop=0.5, hidden_dropout=0.1, attention_dropout=0.1)
    checkpoint(model, checkpointing)
    plain_loss, plain = step(model)
    multiply_gradients(model, HALF)
    loss, multiplied = step(model)
    assert torch.equal(loss, plain_loss)
    assert_multiplied(plain, multiplied, HALF, rtol=0, atol=0)
    weights = [plain[f"beats.encoder.layers.{index}.mlp.fc1.weight"] for index in range(NUM_LAYERS)]
    # Some layers were dropped; the gradient goes past them.
    assert 0 < sum(bool(weight.any()) for weight in weights) < NUM_LAYERS
    assert multiplied["beats.embeddings.projection.weight"].any()


def test_gradients_are_multiplied_in_pre_norm_models():
    model = build_model(deep_norm=False, layer_norm_first=True)
    _, plain = step(model)
    multiply_gradients(model, HALF)
    _, multiplied = step(model)
    for name in ("beats.encoder.layer_norm.weight", "beats.encoder.layer_norm.bias"):
        # Comes after the layers.
        assert torch.equal(multiplied.pop(name), plain.pop(name))
    assert_multiplied(plain, multiplied, HALF, rtol=0, atol=0)


def test_gradients_are_multiplied_in_compiled_models():
    model = build_model(num_hidden_layers=2).float()
    _, plain = step(model)
    multiply_gradients(model, HALF)
    torch._dynamo.reset()
    # This backend traces forward and backward, and generates no code, which would take a minute.
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    model.zero_grad()
    compiled(**make_batch()).loss.backward()
    multiplied = {name: parameter.grad for name, parameter in model.named_parameters()}
    assert_multiplied(plain, multiplied, HALF, num_layers=2, rtol=1e-4, atol=1e-7)


def test_gradients_are_multiplied_below_frozen_embeddings():
    model = build_model()
    _, plain = step(model)
    model.beats.embeddings.requires_grad_(False)
    model.zero_grad()
    multiply_gradients(model, HALF)
    model(**make_batch()).loss.backward()
    for index in range(NUM_LAYERS):
        name = f"beats.encoder.layers.{index}.mlp.fc1.weight"
        torch.testing.assert_close(model.get_parameter(name).grad, HALF ** (NUM_LAYERS - 1 - index) * plain[name])


def test_models_that_multiply_gradients_can_be_copied_and_saved(tmp_path):
    model = build_model()
    multiply_gradients(model, HALF)
    _, gradients = step(copy.deepcopy(model))
    assert all(torch.equal(value, gradients[name]) for name, value in step(model)[1].items())
    model.save_pretrained(tmp_path)
    assert BeatsForAudioClassification.from_pretrained(tmp_path).dtype == torch.float64


def test_only_the_encoder_of_a_model_is_touched():
    model = build_model(BeatsForPreTraining, label_predictor_num_hidden_layers=1)
    multiply_gradients(model, HALF)
    hooked = [name for name, module in model.named_modules() if module._forward_pre_hooks]
    assert hooked == [f"beats.encoder.layers.{index}" for index in range(NUM_LAYERS)]


# Accumulation


def train(directory, accumulation_steps: int, ratio: float) -> tuple[list[list[float]], dict[str, torch.Tensor]]:
    """Losses and norms of the gradients of three steps of eight clips with several labels each, and the parameters."""
    model = build_model().float()
    multiply_gradients(model, ratio)
    batch = make_batch(24)
    items = [{name: value[index] for name, value in batch.items()} for index in range(24)]
    arguments = TrainingArguments(
        str(directory),
        per_device_train_batch_size=8 // accumulation_steps,
        gradient_accumulation_steps=accumulation_steps,
        num_train_epochs=1,
        # Adam makes steps of full size out of gradients that are nothing but rounding.
        optim="sgd",
        learning_rate=2.0,
        logging_steps=1,
        use_cpu=True,
        disable_tqdm=True,
    )
    trainer = Trainer(model, arguments, train_dataset=items)
    trainer.train()
    history = [[entry["loss"], entry["grad_norm"]] for entry in trainer.state.log_history if "loss" in entry]
    return history, model.state_dict()


@pytest.mark.parametrize("ratio", [1.0, 0.6])
def test_accumulated_batches_of_several_labels_learn_what_one_batch_learns(tmp_path, ratio):
    history, parameters = train(tmp_path / "one", 1, ratio)
    accumulated_history, accumulated = train(tmp_path / "four", 4, ratio)
    torch.testing.assert_close(torch.tensor(accumulated_history), torch.tensor(history), rtol=1e-5, atol=1e-6)
    assert len(history) == 3
    before = build_model().float().state_dict()
    for name, value in parameters.items():
        torch.testing.assert_close(accumulated[name], value, rtol=0, atol=1e-6)
    name = "beats.encoder.layers.0.mlp.fc1.weight"
    assert (parameters[name] - before[name]).abs().max() > 1e-4
