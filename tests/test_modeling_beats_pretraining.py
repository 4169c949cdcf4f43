# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
import copy
import math

import pytest
import torch
from torch import nn
from transformers import AutoModel, AutoModelForPreTraining, Trainer, TrainingArguments

from transformers_beats import (
    BeatsConfig,
    BeatsForAudioClassification,
    BeatsForPreTraining,
    BeatsModel,
    BeatsTokenizerConfig,
    BeatsTokenizerForPreTraining,
    BeatsTokenizerModel,
)
from transformers_beats.modeling_beats import BeatsEncoder, BeatsRelativePositionBias, first_positions, gather_patches
from transformers_beats.modeling_beats_pretraining import (
    BeatsTrainableQuantizer,
    block_noise,
    num_kept_patches,
    select_kept_patches,
)


POSITIONS = ["original", "compacted"]
NUM_COLUMNS, NUM_PATCHES = 6, 48


@pytest.fixture
def config(tiny_config) -> BeatsConfig:
    return BeatsConfig(**tiny_config.to_diff_dict() | {"codebook_size": 32, "label_predictor_num_hidden_layers": 2})


@pytest.fixture
def batch() -> dict[str, torch.Tensor]:
    """Two clips, the second of 3 columns and some frames, and codes of all patches."""
    generator = torch.Generator().manual_seed(0)
    attention_mask = torch.ones(2, 100, dtype=torch.long)
    attention_mask[1, 50:] = 0
    return {
        "input_values": torch.randn(2, 100, 128, generator=generator),
        "attention_mask": attention_mask,
        "labels": torch.randint(32, (2, NUM_COLUMNS, 8), generator=generator),
        "noise": torch.rand(2, NUM_PATCHES, generator=generator),
    }


def build(model_class, config):
    torch.manual_seed(0)
    return model_class(copy.deepcopy(config))


# Masking


@pytest.mark.parametrize(("num_patches", "expected"), [(0, 0), (1, 1), (2, 1), (8, 2), (248, 62), (496, 124)])
def test_a_quarter_of_the_patches_is_kept(num_patches, expected):
    assert num_kept_patches(num_patches, 0.75) == expected


def test_never_all_and_never_none_are_kept():
    for ratio in (0.01, 0.5, 0.99):
        counts = [num_kept_patches(number, ratio) for number in range(2, 100)]
        assert all(0 < count < number for number, count in enumerate(counts, start=2))
        # The encoder has room for as many as the longest clip keeps.
        assert counts == sorted(counts)


@pytest.mark.parametrize("ratio", [0.01, 0.3, 0.5, 0.75, 0.99])
def test_a_clip_keeps_as_many_patches_as_one_of_its_length(ratio):
    valid = torch.arange(200) < torch.arange(201).unsqueeze(1)
    is_kept = select_kept_patches(valid, torch.rand(201, 200), ratio)
    assert is_kept.sum(dim=1).tolist() == [num_kept_patches(number, ratio) for number in range(201)]


def test_of_each_clip_the_valid_patches_with_the_least_noise_are_kept():
    valid = torch.arange(16).expand(3, -1) < torch.tensor([[16], [8], [0]])
    noise = torch.arange(16.0).flip(0).expand(3, -1)
    is_kept = select_kept_patches(valid, noise, 0.75)
    assert is_kept.nonzero().tolist() == [[0, 12], [0, 13], [0, 14], [0, 15], [1, 6], [1, 7]]


def test_every_patch_is_kept_equally_often():
    torch.manual_seed(0)
    valid = torch.ones(4000, 16, dtype=torch.bool)
    shares = select_kept_patches(valid, torch.rand(4000, 16), 0.75).float().mean(dim=0)
    # Four standard deviations of a share of 4,000.
    assert (shares - 0.25).abs().max() < 4 * math.sqrt(0.25 * 0.75 / 4000)


def test_positions_are_those_of_the_mask_and_then_others():
    mask = torch.tensor([[False, True, False, True], [False, False, True, False]])
    assert first_positions(mask, 2).tolist() == [[1, 3], [2, 0]]


# Positions of the kept patches


def test_the_bias_of_kept_patches_is_that_of_their_places(config):
    bias = build(BeatsRelativePositionBias, config)
    positions = torch.tensor([[0, 3, 4, 40], [7, 8, 20, 47]])
    with torch.no_grad():
        device = positions.device
        full, kept = bias(NUM_PATCHES, device), bias(NUM_PATCHES, device, positions)
    for index, place in enumerate(positions):
        torch.testing.assert_close(kept[index], full[:, place][:, :, place], rtol=0, atol=0)


@torch.no_grad()
def test_original_positions_equal_masking_inside_attention(config):
    torch.manual_seed(0)
    config._attn_implementation = "sdpa"
    encoder = BeatsEncoder(config).eval()
    hidden_states = torch.randn(2, NUM_PATCHES, config.hidden_size)
    is_kept = select_kept_patches(torch.ones(2, NUM_PATCHES, dtype=torch.bool), torch.rand(2, NUM_PATCHES), 0.75)
    positions = first_positions(is_kept, 12)
    gathered = encoder(hidden_states, is_kept, kept_positions=positions)
    masked = encoder(hidden_states, is_kept)
    torch.testing.assert_close(gathered, gather_patches(masked, positions), rtol=0, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("positions", POSITIONS)
def test_positions_decide_whether_the_encoder_sees_gaps(positions, config, batch):
    config.kept_positions = positions
    model = build(BeatsForPreTraining, config).eval()
    # All columns are alike, so that the kept patches are the same twelve, close together or with a gap.
    input_values = batch["input_values"][:1, :16].repeat(1, NUM_COLUMNS, 1)
    states = []
    for second_column in (8, 32):
        noise = torch.ones(1, NUM_PATCHES)
        noise[0, :8] = noise[0, second_column : second_column + 4] = 0
        states.append(model(input_values, noise=noise, output_hidden_states=True).hidden_states[-1])
    assert torch.allclose(*states, atol=1e-5) == (positions == "compacted")


# Masked acoustic modelling


@torch.no_grad()
@pytest.mark.parametrize("positions", POSITIONS)
def test_only_kept_patches_go_through_the_encoder(positions, config, batch):
    config.kept_positions = positions
    model = build(BeatsForPreTraining, config).eval()
    model.set_attn_implementation("eager")
    outputs = model(**batch, output_hidden_states=True, output_attentions=True)
    assert {tuple(states.shape) for states in outputs.hidden_states} == {(2, 12, config.hidden_size)}
    assert len(outputs.hidden_states) == config.num_hidden_layers + 1
    assert {tuple(weights.shape) for weights in outputs.attentions} == {(2, config.num_attention_heads, 12, 12)}


@torch.no_grad()
@pytest.mark.parametrize("positions", POSITIONS)
def test_hidden_patches_stay_hidden(positions, config, batch):
    config.kept_positions = positions
    model = build(BeatsForPreTraining, config).eval()
    expected = model(**batch)
    is_masked = torch.zeros(2, NUM_PATCHES, dtype=torch.bool)
    for clip, places in enumerate(expected.masked_positions):
        is_masked[clip, places[places >= 0]] = True
    assert is_masked.sum(dim=1).tolist() == [36, 18]
    # A patch is 16 frames of 16 mel bins.
    frames = is_masked.view(2, NUM_COLUMNS, 8).repeat_interleave(16, dim=1).repeat_interleave(16, dim=2)
    batch["input_values"][:, :96][frames] += 3.0
    torch.testing.assert_close(model(**batch).logits, expected.logits, rtol=0, atol=0)
    batch["input_values"][:, :96][~frames] += 3.0
    assert not torch.allclose(model(**batch).logits, expected.logits, atol=1e-2)


@torch.no_grad()
@pytest.mark.parametrize("positions", POSITIONS)
def test_padding_changes_nothing(positions, config, batch):
    config.kept_positions = positions
    model = build(BeatsForPreTraining, config).eval()
    together = model(**batch)
    alone = model(
        input_values=batch["input_values"][1:, :50],
        labels=batch["labels"][1:, :3],
        noise=batch["noise"][1:, :24],
    )
    assert together.masked_positions[1, :18].tolist() == alone.masked_positions[0].tolist()
    assert (together.masked_positions[1, 18:] == -100).all()
    torch.testing.assert_close(together.logits[1, :18], alone.logits[0], rtol=0, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_loss_is_the_cross_entropy_of_masked_valid_patches(smoothing, config, batch):
    config.label_smoothing = smoothing
    outputs = build(BeatsForPreTraining, config).eval()(**batch)
    logits, labels = [], []
    for clip, places in enumerate(outputs.masked_positions):
        is_real = places >= 0
        logits.append(outputs.logits[clip, is_real])
        labels.append(batch["labels"][clip].flatten()[places[is_real]])
    logits, labels = torch.cat(logits), torch.cat(labels)
    expected = nn.functional.cross_entropy(logits, labels, label_smoothing=smoothing)
    torch.testing.assert_close(outputs.loss, expected)
    torch.testing.assert_close(outputs.accuracy, (logits.argmax(dim=-1) == labels).float().mean())


@torch.no_grad()
def test_the_loss_of_several_codebooks_is_the_mean_of_theirs(config, batch, tmp_path):
    config.num_codebooks = 3
    model = build(BeatsForPreTraining, config).eval()
    batch["labels"] = torch.randint(32, (2, NUM_COLUMNS, 8, 3), generator=torch.Generator().manual_seed(1))
    outputs = model(**batch)
    assert outputs.logits.shape == (2, 36, 3, 32)
    losses, accuracies = [], []
    for number in range(3):
        logits, labels = [], []
        for clip, places in enumerate(outputs.masked_positions):
            is_real = places >= 0
            logits.append(outputs.logits[clip, is_real, number])
            labels.append(batch["labels"][clip, ..., number].flatten()[places[is_real]])
        logits, labels = torch.cat(logits), torch.cat(labels)
        losses.append(nn.functional.cross_entropy(logits, labels))
        accuracies.append((logits.argmax(dim=-1) == labels).float().mean())
    torch.testing.assert_close(outputs.loss, torch.stack(losses).mean())
    torch.testing.assert_close(outputs.accuracy, torch.stack(accuracies).mean())
    with pytest.raises(ValueError, match=r"must have shape \(2, 6, 8, 3\)"):
        model(**batch | {"labels": batch["labels"][..., 0]})
    # As many values in another order.
    with pytest.raises(ValueError, match=r"must have shape \(2, 6, 8, 3\)"):
        model(**batch | {"labels": batch["labels"].movedim(-1, 1)})
    with pytest.raises(ValueError, match="`mixed_codes` are those of a second sound: pass the `labels`"):
        model(batch["input_values"], mixed_codes=batch["labels"])
    model.save_pretrained(tmp_path)
    torch.testing.assert_close(BeatsForPreTraining.from_pretrained(tmp_path)(**batch).loss, outputs.loss)


@torch.no_grad()
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_loss_of_a_mixture_is_the_mean_of_both_sounds(smoothing, config, batch):
    config.label_smoothing = smoothing
    model = build(BeatsForPreTraining, config).eval()
    others = torch.randint(32, (2, NUM_COLUMNS, 8), generator=torch.Generator().manual_seed(1))
    # The first clip is mixed with one that ends after two columns, the second with none.
    others[0, 2:] = others[1] = -100
    outputs = model(**batch, mixed_codes=others)
    losses = []
    for clip, places in enumerate(outputs.masked_positions):
        for logits, place in zip(outputs.logits[clip], places.tolist()):
            if place < 0:
                continue
            targets = [labels[clip].flatten()[place] for labels in (batch["labels"], others)]
            of_targets = [
                nn.functional.cross_entropy(logits, target, label_smoothing=smoothing)
                for target in targets
                if target >= 0
            ]
            losses.append(torch.stack(of_targets).mean())
    assert len(losses) == 36 + 18
    torch.testing.assert_close(outputs.loss, torch.stack(losses).mean())
    # Other codes than those of the first sound count in the loss only.
    torch.testing.assert_close(outputs.accuracy, model(**batch).accuracy)
    assert not torch.allclose(outputs.loss, model(**batch).loss)


@pytest.mark.parametrize("block_size", [2, 3, 5, 16])
def test_kept_patches_form_blocks_around_the_least_noise(block_size):
    num_columns, num_bands, half = 20, 8, block_size // 2
    valid = torch.arange(num_columns * num_bands) < torch.tensor([[160], [96]])
    noise = torch.rand(valid.shape, generator=torch.Generator().manual_seed(0))
    blocks = block_noise(noise, valid, num_bands, block_size)
    is_kept = select_kept_patches(valid, blocks, 0.75)
    for clip, count in enumerate((40, 24)):
        kept = set(is_kept[clip].nonzero().flatten().tolist())
        assert len(kept) == count
        expected, last = set(), set()
        for centre in noise[clip].masked_fill(~valid[clip], 2.0).argsort().tolist():
            column, band = divmod(centre, num_bands)
            # A patch lies in the block of a centre that is at most half a block before it, or less after it.
            last = {
                place
                for place in range(int(valid[clip].sum()))
                if column - (block_size - 1 - half) <= place // num_bands <= column + half
                and band - (block_size - 1 - half) <= place % num_bands <= band + half
            }
            if len(expected | last) > count:
                break
            expected |= last
        # Of the last block there is place for a part.
        assert expected <= kept <= expected | last


@torch.no_grad()
def test_block_masks_are_those_of_the_configuration(config, batch):
    config.mask_block_size = 3
    outputs = build(BeatsForPreTraining, config).eval()(**batch)
    valid = torch.arange(NUM_PATCHES) < torch.tensor([[48], [24]])
    is_kept = select_kept_patches(valid, block_noise(batch["noise"], valid, 8, 3), 0.75)
    for clip, places in enumerate(outputs.masked_positions):
        assert places[places >= 0].tolist() == (valid & ~is_kept)[clip].nonzero().flatten().tolist()


@torch.no_grad()
def test_labels_that_do_not_count_do_not_count(config, batch):
    model = build(BeatsForPreTraining, config).eval()
    batch["labels"][:] = -100
    outputs = model(**batch)
    assert (outputs.loss, outputs.accuracy) == (0, 0)


@pytest.mark.parametrize("positions", POSITIONS)
@pytest.mark.parametrize("mask_embedding", ["zeros", "learned"])
def test_every_parameter_learns(mask_embedding, positions, config, batch):
    config.mask_embedding, config.kept_positions = mask_embedding, positions
    model = build(BeatsForPreTraining, config)
    model(**batch).loss.backward()
    without = [name for name, parameter in model.named_parameters() if parameter.grad is None]
    assert without == []
    assert ("label_predictor.mask_embedding" in dict(model.named_parameters())) == (mask_embedding == "learned")
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


def test_a_learned_mask_embedding_is_not_zero_at_first(config):
    config.mask_embedding = "learned"
    assert build(BeatsForPreTraining, config).label_predictor.mask_embedding.std() > 0.01


def test_the_model_learns(config, batch):
    model = build(BeatsForPreTraining, config)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    losses = []
    for _ in range(40):
        loss = model(**batch).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[0] == pytest.approx(math.log(32), rel=0.1)
    assert losses[-1] < 0.2 * losses[0]


@pytest.mark.parametrize("num_frames", [16, 31, 32])
def test_shortest_clips(num_frames, config):
    model = build(BeatsForPreTraining, config)
    attention_mask = torch.ones(2, num_frames)
    attention_mask[1] = 0
    outputs = model(torch.randn(2, num_frames, 128), attention_mask, labels=torch.zeros(2, num_frames // 16, 8).long())
    outputs.loss.backward()
    assert outputs.loss.isfinite()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


@pytest.mark.parametrize(
    "change",
    [
        lambda codes: codes[:, :-1],
        # As many values as there are patches, in another order.
        lambda codes: codes.transpose(1, 2),
        lambda codes: codes.reshape(1, 12, 8),
        lambda codes: codes.flatten(),
        lambda codes: codes.flatten(1).T,
        lambda codes: codes.unsqueeze(-1),
    ],
    ids=["shorter", "by frequency", "one clip", "one dimension", "by patch", "codebook"],
)
@pytest.mark.parametrize("name", ["labels", "mixed_codes"])
def test_codes_of_another_shape_are_refused(name, change, config, batch):
    model = build(BeatsForPreTraining, config)
    codes = {"labels": batch["labels"]}
    with pytest.raises(ValueError, match=rf"`{name}` must have shape \(2, 6, 8\), a code for each patch"):
        model(batch["input_values"], **codes | {name: change(batch["labels"])})


def test_codes_of_several_codebooks_by_codebook_are_refused(config, batch):
    config.num_codebooks = 2
    model = build(BeatsForPreTraining, config)
    with pytest.raises(ValueError, match=r"`labels` must have shape \(2, 6, 8, 2\)"):
        model(batch["input_values"], labels=batch["labels"].unsqueeze(1).expand(-1, 2, -1, -1))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bool, torch.complex64])
@pytest.mark.parametrize("name", ["labels", "mixed_codes"])
def test_codes_that_are_no_integers_are_refused(name, dtype, config, batch):
    model = build(BeatsForPreTraining, config)
    with pytest.raises(ValueError, match=rf"`{name}` must be integers, .* got {dtype}"):
        model(batch["input_values"], **{"labels": batch["labels"], name: batch["labels"].to(dtype)})


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.int32, torch.int16])
def test_codes_may_be_flat_and_of_any_integer_type(dtype, config, batch):
    model = build(BeatsForPreTraining, config).eval()
    expected = model(**batch, mixed_codes=batch["labels"].flip(0)).loss
    codes = batch["labels"].to(dtype)
    given = {"labels": codes.flatten(1), "mixed_codes": codes.flip(0).flatten(1)}
    torch.testing.assert_close(model(**batch | given).loss, expected)


@pytest.mark.parametrize(
    ("noise", "message"),
    [
        (torch.rand(1, NUM_PATCHES), r"`noise` must have shape \(2, 48\), .* got \(1, 48\) and torch.float32"),
        (torch.rand(2, 7), r"`noise` must have shape \(2, 48\), .* got \(2, 7\)"),
        (torch.ones(2, NUM_PATCHES, dtype=torch.long), r"a floating-point number for each patch, .* torch.int64"),
        (torch.full((2, NUM_PATCHES), math.nan), "`noise` must be finite"),
        (torch.full((2, NUM_PATCHES), math.inf), "`noise` must be finite"),
    ],
)
def test_noise_that_does_not_order_the_patches_is_refused(noise, message, config, batch):
    with pytest.raises(ValueError, match=message):
        build(BeatsForPreTraining, config)(**batch | {"noise": noise})


@torch.no_grad()
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_attention_implementations_agree(attention, config, batch):
    model = build(BeatsForPreTraining, config).eval()
    expected = model(**batch).logits
    model.set_attn_implementation(attention)
    torch.testing.assert_close(model(**batch).logits, expected, rtol=0, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("positions", POSITIONS)
def test_one_graph_serves_every_length(positions, config, batch, compiler):
    config.kept_positions = positions
    config.num_hidden_layers = config.label_predictor_num_hidden_layers = 1
    model = build(BeatsForPreTraining, config).train()
    graphs = []

    def count(graph, _):
        graphs.append(graph)
        return graph

    compiled = torch.compile(model, fullgraph=True, dynamic=True, backend=count)
    for num_columns in (2, 4, 5, 6):
        part = {
            "input_values": batch["input_values"][:, : 16 * num_columns].contiguous(),
            "attention_mask": batch["attention_mask"][:, : 16 * num_columns].contiguous(),
            "labels": batch["labels"][:, :num_columns].contiguous(),
            "noise": batch["noise"][:, : 8 * num_columns].contiguous(),
        }
        torch.testing.assert_close(compiled(**part).loss, model(**part).loss, rtol=0, atol=1e-5)
    assert len(graphs) <= 2


def test_gradient_checkpointing_changes_nothing(config, batch):
    gradients = []
    for is_checkpointing in (False, True):
        model = build(BeatsForPreTraining, config).train()
        if is_checkpointing:
            model.gradient_checkpointing_enable()
        model(**batch).loss.backward()
        gradients.append([parameter.grad for parameter in model.parameters()])
    torch.testing.assert_close(*gradients)


# Saving and loading


def test_a_checkpoint_of_pre_training_serves_all_models(config, batch, tmp_path):
    model = build(BeatsForPreTraining, config).eval()
    model.save_pretrained(tmp_path)
    again = AutoModelForPreTraining.from_pretrained(tmp_path)
    assert type(again) is BeatsForPreTraining
    assert {name for name, _ in again.named_parameters()} == {name for name, _ in model.named_parameters()}
    for loaded in (
        AutoModel.from_pretrained(tmp_path),
        BeatsModel.from_pretrained(tmp_path),
        BeatsForAudioClassification.from_pretrained(tmp_path, num_labels=3).beats,
    ):
        state = model.beats.state_dict()
        assert loaded.state_dict().keys() == state.keys()
        assert all(torch.equal(value, state[name]) for name, value in loaded.state_dict().items())
    with torch.no_grad():
        torch.testing.assert_close(again(**batch).logits, model(**batch).logits, rtol=0, atol=0)


@pytest.mark.parametrize("depth", [1, 3])
def test_a_predictor_of_another_depth_computes_the_same(depth, config, tokenizer_config, tmp_path):
    for model, name, key in (
        (build(BeatsForPreTraining, config), "label_predictor.encoder", "label_predictor_num_hidden_layers"),
        (build(BeatsTokenizerForPreTraining, tokenizer_config), "estimator.encoder", "estimator_num_hidden_layers"),
    ):
        model.save_pretrained(tmp_path / name)
        other, info = type(model).from_pretrained(tmp_path / name, output_loading_info=True, **{key: depth})
        layers = {name.split(".")[3] for name in info["unexpected_keys"] | info["missing_keys"]}
        assert layers == {"1" if depth == 1 else "2"}
        layer, same = (each.eval().get_submodule(name).layers[0] for each in (model, other))
        states = torch.randn(1, 16, config.hidden_size)
        torch.testing.assert_close(same(states, None, None), layer(states, None, None), rtol=1e-4, atol=1e-4)


def test_states_are_those_of_each_layer_whoever_is_asked_first(config, batch):
    model = build(BeatsForPreTraining, config).eval()
    inputs = {name: batch[name] for name in ("input_values", "attention_mask")}
    model.set_attn_implementation("eager")
    for asked in (model.beats, model, model.beats):
        outputs = asked(**inputs, output_hidden_states=True, output_attentions=True)
        assert len(outputs.hidden_states) == config.num_hidden_layers + 1
        assert len(outputs.attentions) == config.num_hidden_layers


class Rows(torch.utils.data.Dataset):
    """Clips of a batch, one by one."""

    def __init__(self, batch):
        self.batch = batch

    def __len__(self):
        return len(self.batch["input_values"])

    def __getitem__(self, index):
        return {name: values[index] for name, values in self.batch.items()}


def evaluate_with_trainer(model, batch, directory) -> dict[str, float]:
    """Measures of the last evaluation of transformers' own `Trainer`, which needs the loss to find the best model."""
    arguments = TrainingArguments(
        str(directory),
        max_steps=2,
        per_device_train_batch_size=2,
        eval_strategy="steps",
        eval_steps=1,
        save_steps=1,
        load_best_model_at_end=True,
        report_to=[],
        disable_tqdm=True,
        use_cpu=True,
    )
    trainer = Trainer(model, arguments, train_dataset=Rows(batch), eval_dataset=Rows(batch))
    trainer.train()
    return trainer.evaluate()


@pytest.mark.parametrize("is_mixed", [False, True])
def test_trainer_evaluates_with_codes_of_one_sound_and_of_two(is_mixed, config, batch, tmp_path):
    batch |= {"mixed_codes": batch["labels"].flip(0)} if is_mixed else {}
    assert evaluate_with_trainer(build(BeatsForPreTraining, config), batch, tmp_path)["eval_loss"] > 0


# Tokenizer training


def test_trainer_evaluates_a_tokenizer(tokenizer_config, tokenizer_batch, tmp_path):
    model = build(BeatsTokenizerForPreTraining, tokenizer_config)
    assert evaluate_with_trainer(model, tokenizer_batch, tmp_path)["eval_loss"] > 0


def test_a_loss_that_is_not_wanted_is_not_computed(tokenizer_config, tokenizer_batch):
    outputs = build(BeatsTokenizerForPreTraining, tokenizer_config).train()(**tokenizer_batch, return_loss=False)
    assert (outputs.loss, outputs.distillation_loss) == (None, None)


@pytest.fixture
def tokenizer_config(config) -> BeatsTokenizerConfig:
    values = config.to_diff_dict() | {"codebook_dim": 12, "estimator_num_hidden_layers": 2, "teacher_output_size": 20}
    return BeatsTokenizerConfig(**{name: value for name, value in values.items() if name != "model_type"})


@pytest.fixture
def tokenizer_batch(batch) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    inputs = {name: batch[name] for name in ("input_values", "attention_mask")}
    return inputs | {"teacher_outputs": torch.randn(2, NUM_PATCHES, 20, generator=generator)}


def test_the_first_batch_makes_the_codebook(tokenizer_config, tokenizer_batch):
    model = build(BeatsTokenizerForPreTraining, tokenizer_config).train()
    assert not model.quantizer.is_initialized
    outputs = model(**tokenizer_batch)
    assert model.quantizer.is_initialized
    codebook = model.quantizer.codebook
    torch.testing.assert_close(codebook.norm(dim=-1), torch.ones(32))
    # 72 valid patches, of 48 and 24.
    assert outputs.code_counts.sum() == 72
    assert (outputs.audio_codes == -100).sum() == 2 * NUM_PATCHES - 72
    assert 1 < outputs.codevector_perplexity <= 32


def test_an_untrained_tokenizer_is_refused_in_evaluation(tokenizer_config, tokenizer_batch):
    model = build(BeatsTokenizerForPreTraining, tokenizer_config).eval()
    with pytest.raises(ValueError, match="not initialised"):
        model(**tokenizer_batch)


def test_k_means_finds_clusters(tokenizer_config):
    torch.manual_seed(0)
    tokenizer_config.codebook_size = 8
    centers = nn.functional.normalize(torch.randn(8, 12), dim=-1)
    labels = torch.arange(8).repeat(200)
    states = nn.functional.normalize(centers[labels] + 0.02 * torch.randn(1600, 12), dim=-1)
    quantizer = BeatsTrainableQuantizer(tokenizer_config)
    quantizer.initialize(states, torch.ones(1600, dtype=torch.bool))
    distances = torch.cdist(states, quantizer.codebook).min(dim=1).values
    # k-means may join two clusters, but not most.
    assert (distances < 0.2).float().mean() >= 0.6
    torch.testing.assert_close(quantizer.cluster_size.sum(), torch.tensor(1600.0))


def test_the_codebook_is_a_moving_average_of_valid_patches(tokenizer_config):
    torch.manual_seed(0)
    quantizer = BeatsTrainableQuantizer(tokenizer_config)
    codebook = nn.functional.normalize(torch.randn(32, 12), dim=-1)
    quantizer.codebook.copy_(codebook)
    quantizer.cluster_size.fill_(2.0)
    states = nn.functional.normalize(torch.randn(4, 12), dim=-1)
    quantizer.update(states, torch.tensor([5, 5, 7, 9]), torch.tensor([True, True, True, False]))
    expected = codebook.clone()
    for code, members in ((5, states[:2]), (7, states[2:3])):
        mean = nn.functional.normalize(members.mean(dim=0), dim=0)
        expected[code] = nn.functional.normalize(0.99 * codebook[code] + 0.01 * mean, dim=0)
    torch.testing.assert_close(quantizer.codebook, expected)
    sizes = torch.full((32,), 0.99 * 2.0)
    sizes[5] += 0.02
    sizes[7] += 0.01
    torch.testing.assert_close(quantizer.cluster_size, sizes)


def test_dead_codes_become_patches_of_the_batch(tokenizer_config):
    torch.manual_seed(0)
    tokenizer_config.dead_code_threshold = 0.5
    quantizer = BeatsTrainableQuantizer(tokenizer_config)
    quantizer.codebook.copy_(nn.functional.normalize(torch.randn(32, 12), dim=-1))
    quantizer.cluster_size.copy_(torch.arange(32) % 2 * 2.0)
    before = quantizer.codebook.clone()
    states = nn.functional.normalize(torch.randn(64, 12), dim=-1)
    mask = torch.arange(64) < 40
    quantizer.update(states, torch.ones(64, dtype=torch.long), mask)
    assert torch.equal(quantizer.codebook[3::2], before[3::2])
    distances = torch.cdist(quantizer.codebook[::2], states[:40]).min(dim=1).values
    assert distances.max() < 1e-3
    assert (quantizer.cluster_size >= 0.5).all()


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_patches_that_are_not_finite_leave_the_codebook_alone(value, tokenizer_config):
    torch.manual_seed(0)
    states = nn.functional.normalize(torch.randn(40, 12), dim=-1)
    damaged = torch.cat([states, torch.full((3, 12), value), states[:2]])
    damaged[-1, 4] = value
    codes, mask = torch.arange(45) % 32, torch.arange(45) != 43
    codes[40:] = 0
    buffers = []
    for given in (slice(None), slice(40)):
        quantizer = BeatsTrainableQuantizer(tokenizer_config)
        quantizer.initialize(damaged[given], mask[given])
        quantizer.update(damaged[given], codes[given], mask[given])
        buffers.append(dict(quantizer.named_buffers()))
    for name, expected in buffers[1].items():
        torch.testing.assert_close(buffers[0][name], expected)
    quantizer.dead_code_threshold = 100.0
    quantizer.update(damaged, codes, mask)
    torch.testing.assert_close(quantizer.codebook.norm(dim=-1), torch.ones(32))
    # Of a batch without any, no code is replaced.
    before = quantizer.codebook.clone()
    quantizer.update(torch.full((4, 12), value), torch.zeros(4, dtype=torch.long), torch.ones(4, dtype=torch.bool))
    assert torch.equal(quantizer.codebook, before)


@pytest.mark.parametrize(("value", "is_valid"), [(math.nan, True), (math.inf, True), (1.0, False)])
def test_a_first_batch_without_a_patch_to_learn_from_is_named(value, is_valid, tokenizer_config):
    quantizer = BeatsTrainableQuantizer(tokenizer_config)
    with pytest.raises(ValueError, match="one must be valid, and its state finite"):
        quantizer.initialize(torch.full((4, 12), value), torch.full((4,), is_valid))
    assert not quantizer.is_initialized


def test_a_clip_that_is_not_finite_leaves_the_codebook_alone(tokenizer_config, tokenizer_batch):
    model = build(BeatsTokenizerForPreTraining, tokenizer_config).train()
    damaged = tokenizer_batch | {"input_values": tokenizer_batch["input_values"].clone()}
    damaged["input_values"][0, 5, 3] = math.inf
    # As the first batch, and as a later one.
    for _ in range(2):
        model(**damaged)
        assert all(buffer.isfinite().all() for buffer in model.quantizer.buffers())
    assert model(**tokenizer_batch).loss.isfinite()


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_padding_is_in_no_loss_of_a_tokenizer(value, tokenizer_config, tokenizer_batch, monkeypatch):
    model = build(BeatsTokenizerForPreTraining, tokenizer_config).train()
    model(**tokenizer_batch)
    expected = model.eval()(**tokenizer_batch)
    expected.loss.backward()
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    is_padding = ~model.beats(tokenizer_batch["input_values"], tokenizer_batch["attention_mask"]).patch_attention_mask
    assert is_padding.any()
    tokenizer_batch["teacher_outputs"][is_padding] = value
    forward = type(model.beats).forward

    def with_damaged_padding(self, *args, **kwargs):
        outputs = forward(self, *args, **kwargs)
        outputs.last_hidden_state = outputs.last_hidden_state.masked_fill(is_padding.unsqueeze(-1), value)
        return outputs

    monkeypatch.setattr(type(model.beats), "forward", with_damaged_padding)
    model.zero_grad()
    outputs = model(**tokenizer_batch)
    outputs.loss.backward()
    for name in ("loss", "commitment_loss", "distillation_loss"):
        torch.testing.assert_close(outputs[name], expected[name])
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, gradients[name])


def test_evaluation_leaves_the_codebook_alone(tokenizer_config, tokenizer_batch):
    model = build(BeatsTokenizerForPreTraining, tokenizer_config).train()
    model(**tokenizer_batch)
    before = copy.deepcopy(dict(model.named_buffers()))
    model.eval()(**tokenizer_batch)
    assert all(torch.equal(value, before[name]) for name, value in model.named_buffers())


@torch.no_grad()
@pytest.mark.parametrize("num_layers", [0, 1])
def test_an_estimator_without_layers_sees_each_patch_alone(num_layers, tokenizer_config):
    tokenizer_config.estimator_num_hidden_layers = num_layers
    estimator = build(BeatsTokenizerForPreTraining, tokenizer_config).estimator.eval()
    states = torch.randn(1, 16, 12, generator=torch.Generator().manual_seed(0))
    changed = states.clone()
    changed[0, 3] += 1.0
    difference = (estimator(changed, None) - estimator(states, None)).abs().amax(dim=-1)[0]
    assert difference[3] > 1e-4
    assert (difference[torch.arange(16) != 3].max() > 1e-6) == (num_layers > 0)


def test_the_loss_is_distillation_and_commitment(tokenizer_config, tokenizer_batch):
    tokenizer_config.commitment_weight = 0.3
    model = build(BeatsTokenizerForPreTraining, tokenizer_config).train()
    model(**tokenizer_batch)
    model.eval()
    with torch.no_grad():
        outputs = model(**tokenizer_batch)
        tokens = BeatsTokenizerModel.forward(model, tokenizer_batch["input_values"], tokenizer_batch["attention_mask"])
    valid = tokens.patch_attention_mask
    cosine = nn.functional.cosine_similarity(outputs.estimates, tokenizer_batch["teacher_outputs"], dim=-1)
    states = nn.functional.normalize(tokens.projected_states, dim=-1)
    torch.testing.assert_close(outputs.distillation_loss, (1 - cosine)[valid].mean())
    torch.testing.assert_close(outputs.commitment_loss, (states - tokens.quantized_states)[valid].pow(2).mean())
    torch.testing.assert_close(outputs.loss, outputs.distillation_loss + 0.3 * outputs.commitment_loss)
    assert torch.equal(outputs.audio_codes, tokens.audio_codes)


def test_the_gradient_passes_straight_through_the_quantiser(tokenizer_config, tokenizer_batch):
    tokenizer_config.commitment_weight = 0.0
    model = build(BeatsTokenizerForPreTraining, tokenizer_config).train()
    model(**tokenizer_batch).loss.backward()
    assert [name for name, parameter in model.named_parameters() if parameter.grad is None] == []
    assert model.projection[0].weight.grad.abs().sum() > 0


def test_a_teacher_of_another_size_is_refused(tokenizer_config, tokenizer_batch):
    model = build(BeatsTokenizerForPreTraining, tokenizer_config)
    tokenizer_batch["teacher_outputs"] = torch.randn(2, NUM_PATCHES, 21)
    with pytest.raises(ValueError, match="teacher_output_size"):
        model(**tokenizer_batch)


def test_half_precision_leaves_the_codebook_in_float32(tokenizer_config, tokenizer_batch):
    model = build(BeatsTokenizerForPreTraining, tokenizer_config).to(torch.bfloat16).train()
    outputs = model(**tokenizer_batch)
    outputs.loss.backward()
    assert {buffer.dtype for buffer in model.quantizer.buffers()} == {torch.float32}
    torch.testing.assert_close(model.quantizer.codebook.norm(dim=-1), torch.ones(32))


def test_a_trained_tokenizer_loads_as_a_tokenizer(tokenizer_config, tokenizer_batch, tmp_path):
    model = build(BeatsTokenizerForPreTraining, tokenizer_config).train()
    model(**tokenizer_batch)
    model.eval().save_pretrained(tmp_path)
    inputs = {name: tokenizer_batch[name] for name in ("input_values", "attention_mask")}
    with torch.no_grad():
        expected = model(**tokenizer_batch)
        for loaded in (AutoModel.from_pretrained(tmp_path), BeatsTokenizerModel.from_pretrained(tmp_path)):
            assert type(loaded) is BeatsTokenizerModel
            assert torch.equal(loaded(**inputs).audio_codes, expected.audio_codes)
        again = AutoModelForPreTraining.from_pretrained(tmp_path)
        torch.testing.assert_close(again(**tokenizer_batch).loss, expected.loss, rtol=0, atol=0)
