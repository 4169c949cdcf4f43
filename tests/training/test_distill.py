# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""The command `distill`: students, what they start from, interruptions, refusals."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file
from tiny import ENCODER, TRAINING
from transformers.trainer_callback import TrainerState

from transformers_beats import (
    BeatsConfig,
    BeatsFeatureExtractor,
    BeatsForAudioClassification,
    BeatsForAudioFrameClassification,
    BeatsModel,
    BeatsRandomProjectionTokenizer,
    BeatsRandomProjectionTokenizerConfig,
)
from transformers_beats.inference.loading import load
from transformers_beats.training.config.distillation import DISTILL_ARGUMENTS, SIZES, DistillationArguments
from transformers_beats.training.config.recipes import build_arguments
from transformers_beats.training.data import augmentation
from transformers_beats.training.distill import (
    build_config,
    build_student,
    choose_copied,
    distill,
    main,
    name_words,
)
from transformers_beats.training.evaluate import EVALUATE_ARGUMENTS, evaluate
from transformers_beats.training.stages import load_teacher
from transformers_beats.training.trainers import checkpoints as checkpoints_module
from transformers_beats.utils.errors import DivergenceError, UsageError


SINGLE, MULTI = "single_label_classification", "multi_label_classification"
# Of the teacher's widths.
SHALLOW = {"num_hidden_layers": 2}
NARROW = {"num_hidden_layers": 1, "hidden_size": 16, "embed_dim": 16, "intermediate_size": 32}
# Everything that is drawn at random.
RANDOM = dict.fromkeys(("hidden_dropout", "attention_dropout", "feat_proj_dropout", "layerdrop"), 0.2)
AUGMENTATION = {"roll": True, "mixup_alpha": 1.0, "time_mask_ratio": 0.3}
LABELS = {"id2label": {0: "high", 1: "low"}, "label2id": {"high": 0, "low": 1}}


def save_teacher(directory: Path, model_class=BeatsForAudioClassification, **values) -> Path:
    """Writes a teacher of four layers, with statistics of its own."""
    torch.manual_seed(0)
    known = LABELS if model_class is not BeatsModel else {}
    teacher = model_class(BeatsConfig(**ENCODER | {"num_hidden_layers": 4} | known | values))
    if hasattr(teacher, "classifier"):
        # Otherwise all logits are almost 0.
        torch.nn.init.normal_(teacher.classifier.weight)
    teacher.save_pretrained(directory)
    BeatsFeatureExtractor(fbank_mean=9.0, fbank_std=3.0).save_pretrained(directory)
    return directory


@pytest.fixture
def teacher(tmp_path) -> Path:
    return save_teacher(tmp_path / "teacher", problem_type=SINGLE)


@pytest.fixture
def values(teacher, sounds, tmp_path) -> dict:
    """Arguments of a distillation of six steps."""
    return {
        "teacher": str(teacher),
        "model_config": SHALLOW,
        "dataset": str(sounds),
        "crop_seconds": 1.0,
        "output_dir": str(tmp_path / "student"),
        **TRAINING,
    }


def run(values: dict, **changes) -> Path:
    values = values | changes
    distill(*build_arguments(DISTILL_ARGUMENTS, values))
    return Path(values["output_dir"])


def history_of(directory: Path) -> list[dict]:
    history = json.loads((directory / "log_history.json").read_text())
    names = ("step", "loss", "logits_loss", "representation_loss", "agreement", "grad_norm")
    return [{name: entry[name] for name in names if name in entry} for entry in history if "loss" in entry]


def description_of(directory: Path) -> dict:
    return json.loads((directory / "distillation.json").read_text())


# Students


@pytest.mark.parametrize("problem_type", [SINGLE, MULTI])
def test_a_student_of_a_classifier_is_one_of_the_same_classes(values, tmp_path, problem_type):
    teacher = save_teacher(tmp_path / "other", problem_type=problem_type)
    student = run(values, teacher=str(teacher), model_config=NARROW, max_steps=12, learning_rate=1e-2)
    model, extractor = load(student)
    assert type(model).__name__ == "BeatsForAudioClassification"
    assert model.config.id2label == LABELS["id2label"]
    assert model.config.label2id == LABELS["label2id"]
    assert model.config.problem_type == problem_type
    assert (model.config.hidden_size, model.config.num_hidden_layers) == (16, 1)
    # Nothing of the training is left, and no projection.
    assert not (tmp_path / "student.training").exists()
    assert not any(
        "projection" in name for name in load_file(student / "model.safetensors") if "embeddings" not in name
    )
    # The teacher's statistics.
    assert (extractor.fbank_mean, extractor.fbank_std) == (9.0, 3.0)
    history = history_of(student)
    for name in ("loss", "logits_loss", "representation_loss"):
        assert history[-1][name] < history[0][name], name
    assert history[0]["loss"] == pytest.approx(history[0]["logits_loss"] + history[0]["representation_loss"])


def test_a_training_that_diverges_writes_no_student(values, tmp_path):
    for _ in range(2):
        with pytest.raises(DivergenceError, match="at step 6 weights are not finite"):
            run(values, learning_rate=1e30, max_grad_norm=0.0, logging_steps=100)
        assert not (tmp_path / "student").exists()


@pytest.mark.parametrize("model_class", [BeatsModel, BeatsForAudioFrameClassification])
def test_a_student_of_another_model_is_an_encoder(values, tmp_path, model_class):
    teacher = save_teacher(tmp_path / "other", model_class)
    student = run(values, teacher=str(teacher), model_config=NARROW, teacher_layers=[2, -1])
    model, _ = load(student)
    assert type(model).__name__ == "BeatsModel"
    history = history_of(student)
    assert history[-1]["representation_loss"] < history[0]["representation_loss"]
    assert "logits_loss" not in history[0]
    card = (student / "README.md").read_text()
    assert "Encoder of audio, distilled from other" in card
    assert "transformers-beats embed" in card
    assert "Classes" not in card


def test_without_logits_a_classifier_has_an_encoder_as_student(values):
    model, _ = load(run(values, logits_weight=0.0, max_steps=1))
    assert type(model).__name__ == "BeatsModel"
    assert model.config.id2label == BeatsConfig().id2label


def test_a_student_can_learn_logits_only(values):
    history = history_of(run(values, representation_weight=0.0, temperature=2.0, max_steps=2))
    assert history[0]["loss"] == history[0]["logits_loss"]
    assert "representation_loss" not in history[0]


def test_gradient_checkpointing_learns_the_same(values, tmp_path):
    expected = history_of(run(values, max_steps=2))
    found = history_of(run(values, max_steps=2, output_dir=str(tmp_path / "other"), gradient_checkpointing=True))
    for own, others in zip(found, expected, strict=True):
        assert own == pytest.approx(others, rel=1e-4)


def test_the_report_says_what_was_done(values, teacher):
    student = run(values, max_steps=2)
    found = description_of(student)
    assert found["teacher"] == str(teacher)
    assert found["starts_from"] == "layers 2, 4 of the teacher"
    parameters = [sum(value.numel() for value in load(place)[0].parameters()) for place in (teacher, student)]
    assert [found["teacher_parameters"], found["student_parameters"]] == parameters
    assert found["steps"] == 2
    assert found["last_loss"] == history_of(student)[-1]["loss"]
    card = (student / "README.md").read_text()
    assert "Classifier of audio clips into 2 classes, distilled from teacher" in card
    assert "- starts_from: layers 2, 4 of the teacher" in card


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("model_class", [BeatsForAudioClassification, BeatsForAudioFrameClassification, BeatsModel])
def test_a_teacher_computes_in_float32_whatever_it_was_saved_in(tmp_path, model_class, dtype):
    directory = save_teacher(tmp_path / "teacher", model_class)
    saved = load(directory)[0].to(dtype)
    saved.save_pretrained(directory)
    teacher = load_teacher(str(directory))
    assert {value.dtype for value in teacher.parameters()} == {torch.float32}
    weights = saved.state_dict()
    for name, value in teacher.state_dict().items():
        assert torch.equal(value, weights.get(name, weights.get(f"beats.{name}")).float()), name


def test_a_teacher_in_half_precision_teaches_as_its_copy_in_float32(values, teacher, tmp_path):
    model, _ = load(teacher)
    model.bfloat16().save_pretrained(teacher)
    found = run(values, max_steps=2)
    model.float().save_pretrained(teacher)
    expected = run(values, max_steps=2, output_dir=str(tmp_path / "other"))
    assert history_of(found) == history_of(expected)
    assert description_of(found)["teacher_fingerprint"] == description_of(expected)["teacher_fingerprint"]
    assert load(found)[0].dtype == torch.float32


def test_an_evaluation_knows_the_clips_of_the_student(values, labelled, tmp_path, no_pictures, caplog):
    # As `evaluate` takes every other classifier.
    student = run(values, dataset=str(labelled), max_steps=1)
    asked = {"model": str(student), "dataset": str(labelled), "output_dir": str(tmp_path / "report")}
    assert evaluate(*build_arguments(EVALUATE_ARGUMENTS, asked | {"crop_seconds": 1.0})).keys() >= {"accuracy"}
    assert "12 of 12 clips are among those that this model has learned from" in caplog.text


def test_the_command_line_takes_the_teacher_as_its_first_word(teacher, sounds, tmp_path, capsys):
    words = [str(teacher), "-o", str(tmp_path / "student"), "--model_config.num_hidden_layers", "1"]
    words += ["--dataset", str(sounds), "--crop_seconds", "1", "--max_steps", "1", "--disable_tqdm"]
    main(words)
    assert description_of(tmp_path / "student")["starts_from"] == "layers 4 of the teacher"
    assert f"evaluate --model {tmp_path / 'student'}" in capsys.readouterr().err


def test_short_words_come_after_recipes():
    assert name_words(["teacher", "-o", "out", "--config", "esc10_distill", "--size", "tiny"]) == [
        *("--config", "esc10_distill", "--size", "tiny"),
        *("--teacher", "teacher", "--output_dir", "out"),
    ]
    assert name_words(["--help"]) == ["--help"]
    with pytest.raises(UsageError, match="-o: its value is missing"):
        name_words(["teacher", "-o"])


# Sizes, and where a student starts


@pytest.mark.parametrize(("name", "millions"), [("tiny", 5.7), ("mini", 10.1), ("small", 22.6)])
def test_sizes_have_the_parameters_that_the_help_says(name, millions):
    config = build_config(DistillationArguments("teacher", size=name), SimpleNamespace(config=BeatsConfig()))
    # Nothing is allocated there.
    with torch.device("meta"):
        num_parameters = BeatsModel(config).num_parameters()
    assert round(num_parameters / 1e6, 1) == millions
    assert config.hidden_size // config.num_attention_heads == 64
    assert str(millions) in DistillationArguments.__dataclass_fields__["size"].metadata["help"]


def test_a_size_can_be_changed():
    arguments = DistillationArguments("teacher", size="tiny", model_config={"num_hidden_layers": 4})
    config = build_config(
        arguments, SimpleNamespace(config=BeatsConfig(layerdrop=0.0, classifier_pooling="prototypes"))
    )
    assert (config.hidden_size, config.num_hidden_layers, config.layerdrop) == (192, 4, 0.0)
    assert config.classifier_pooling == "mean"


@pytest.mark.parametrize(("size", "model_config"), [("tiny", None), (None, SHALLOW)])
@pytest.mark.parametrize("problem_type", [SINGLE, MULTI])
def test_settings_of_events_are_not_those_of_the_teacher(size, model_config, problem_type):
    """They were tuned on the scores of its weights."""
    own = {"low": {"threshold": 0.2}}
    teacher = BeatsForAudioClassification(BeatsConfig(**ENCODER, **LABELS, problem_type=problem_type))
    teacher.config.event_settings = {"high": {"threshold": 0.9, "median_seconds": 0.5}}
    config = build_config(DistillationArguments("teacher", size=size, model_config=model_config), teacher)
    assert config.event_settings is None
    assert (config.id2label, config.problem_type) == (LABELS["id2label"], problem_type)
    asked = (model_config or {}) | {"event_settings": own}
    assert build_config(DistillationArguments("teacher", size=size, model_config=asked), teacher).event_settings == own


@pytest.mark.parametrize(
    ("depths", "layers"),
    [((4, 12), [3, 6, 9, 12]), ((1, 4), [4]), ((3, 4), [2, 3, 4]), ((5, 12), [3, 5, 8, 10, 12]), ((2, 2), [1, 2])],
)
def test_the_layers_of_a_student_are_spread_over_those_of_its_teacher(depths, layers):
    assert choose_copied(*depths) == layers


def test_a_student_of_the_same_widths_starts_from_its_teacher(values, teacher):
    student = run(values, learning_rate=0.0, max_steps=1)
    own, others = (load_file(place / "model.safetensors") for place in (student, teacher))
    numbers = {"0": "1", "1": "3"}
    for name, value in own.items():
        parts = name.split(".")
        if "layers" in parts:
            parts[3] = numbers[parts[3]]
        expected = others[".".join(parts)]
        if parts[-2] in ("out_proj", "fc2"):
            # DeepNorm's residuals are scaled by (2N)^(1/4), for N of 2 and of 4.
            expected = expected * (2 / 4) ** 0.25
        torch.testing.assert_close(value, expected, rtol=1e-6, atol=0)


@pytest.mark.parametrize("depth", [1, 3, 4])
@pytest.mark.parametrize(
    "settings",
    [{}, {"hidden_act": "glu"}, {"deep_norm": False}, {"deep_norm": False, "layer_norm_first": True}],
    ids=["deep-norm", "glu", "post-norm", "pre-norm"],
)
@torch.no_grad()
def test_copied_layers_compute_what_they_compute_in_the_teacher(depth, settings):
    torch.manual_seed(0)
    teacher = BeatsModel(BeatsConfig(**ENCODER | {"num_hidden_layers": 4, **settings})).eval()
    for value in teacher.parameters():
        # Of a trained model, also biases are not 0, nor the norms the identity.
        value.add_(0.1 * torch.randn(value.shape))
    arguments = DistillationArguments("teacher", model_config={"num_hidden_layers": depth})
    student, chosen = build_student(arguments, teacher)
    student.eval()
    assert chosen == choose_copied(depth, 4)
    states = 2 * torch.randn(2, 24, 32)
    bias = teacher.encoder.relative_position(24, states.device)
    torch.testing.assert_close(student.encoder.relative_position(24, states.device), bias)
    for layer, number in zip(student.encoder.layers, chosen):
        expected = teacher.encoder.layers[number - 1](states, position_bias=bias)
        torch.testing.assert_close(layer(states, position_bias=bias), expected, rtol=0, atol=1e-4)


def test_distances_of_other_buckets_are_not_those_of_the_teacher():
    teacher = BeatsModel(BeatsConfig(**ENCODER))
    arguments = DistillationArguments("teacher", model_config={"num_hidden_layers": 1, "max_bucket_distance": 400})
    student, chosen = build_student(arguments, teacher)
    assert chosen == [2]
    own, others = (model.encoder.relative_position.state_dict() for model in (student, teacher))
    assert not any(torch.equal(own[name], value) for name, value in others.items())


@pytest.mark.parametrize(
    "changes",
    [
        {"model_config": NARROW},
        {"model_config": SHALLOW | {"num_attention_heads": 1}},
        {"model_config": SHALLOW | {"intermediate_size": 32}},
        {"model_config": SHALLOW | {"hidden_act": "relu"}},
        {"model_config": SHALLOW | {"deep_norm": False}},
        {"model_config": SHALLOW | {"relative_position_embedding": False, "gru_rel_pos": False}},
        {"initialize_from_teacher": False},
    ],
)
def test_another_student_starts_from_random_weights(values, teacher, changes):
    student = run(values, learning_rate=0.0, max_steps=1, **changes)
    assert description_of(student)["starts_from"] == "random weights"
    own, others = (load_file(place / "model.safetensors") for place in (student, teacher))
    name = "beats.encoder.layers.0.self_attn.q_proj.weight"
    assert own[name].shape != others[name].shape or not any(
        torch.equal(own[name], others[name.replace("0", str(layer))]) for layer in range(4)
    )


# Interruptions


@pytest.mark.parametrize("streaming", [False, True])
def test_an_interrupted_training_learns_what_one_in_one_go_learns(values, tmp_path, monkeypatch, streaming):
    values |= AUGMENTATION | {"model_config": SHALLOW | RANDOM, "streaming": streaming, "shuffle_buffer_size": 5}
    expected = run(values, output_dir=str(tmp_path / "one-go"))
    save_to_json = TrainerState.save_to_json

    def save_or_stop(self, path):
        if "checkpoint-4" in path:
            raise KeyboardInterrupt
        save_to_json(self, path)

    with monkeypatch.context() as patch:
        patch.setattr(TrainerState, "save_to_json", save_or_stop)
        with pytest.raises(KeyboardInterrupt):
            run(values)
    assert not Path(values["output_dir"]).exists()
    with pytest.raises(UsageError, match=r"`temperature` \(1\.0, now 3\.0\)"):
        run(values, temperature=3.0)
    # Mixtures are of the clips of a device.
    with pytest.raises(UsageError, match="`per_device_train_batch_size`"):
        run(values, per_device_train_batch_size=2, gradient_accumulation_steps=2)
    student = run(values)
    assert history_of(student) == history_of(expected)
    assert len(history_of(student)) == 6
    own, others = (load_file(place / "model.safetensors") for place in (student, expected))
    assert all(torch.equal(own[name], value) for name, value in others.items())


@pytest.mark.parametrize("logits_weight", [None, 0.0])
def test_a_student_that_pools_patches_has_no_recurrent_layers_of_its_teacher(logits_weight, tmp_path):
    frames = {"classifier_pooling": "frame_mean", "frame_recurrent_layers": 1, "frame_recurrent_size": 16}
    teacher = load(save_teacher(tmp_path / "of-frames", **frames))[0]
    changes = {"num_hidden_layers": 2}
    if logits_weight is None:
        changes["classifier_pooling"] = "mean"
    student, _ = build_student(DistillationArguments("t", model_config=changes, logits_weight=logits_weight), teacher)
    assert (student.config.classifier_pooling, student.config.frame_recurrent_layers) == ("mean", 0)


def test_a_training_does_not_go_on_with_another_teacher(values, teacher, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(checkpoints_module, "replace_directory", lambda *args: sys.exit("killed"))
        with pytest.raises(SystemExit, match="killed"):
            run(values, max_steps=2)
    save_teacher(teacher, problem_type=MULTI)
    with pytest.raises(UsageError, match="teacher_fingerprint"):
        run(values, max_steps=2)
    save_teacher(teacher, problem_type=SINGLE)
    # After its last step: none is made again.
    assert len(history_of(run(values, max_steps=2))) == 2


@pytest.mark.slow
def test_a_killed_training_goes_on(values, tmp_path):
    expected = run(values, output_dir=str(tmp_path / "one-go"))
    tasks = [("die_at", "checkpoint-4"), ("distill", values)]
    (tmp_path / "tasks.json").write_text(json.dumps(tasks))
    command = [sys.executable, str(Path(__file__).with_name("worker.py")), str(tmp_path / "tasks.json")]
    result = subprocess.run(command, env=os.environ | {"ACCELERATE_USE_CPU": "true"}, capture_output=True, check=False)
    assert result.returncode == -9, result.stderr[-2000:]
    assert not Path(values["output_dir"]).exists()
    found = history_of(run(values))
    # Another process may have another number of threads, which round otherwise.
    for ours, theirs in zip(found, history_of(expected), strict=True):
        assert ours == pytest.approx(theirs, rel=1e-4, abs=1e-6)


def test_an_existing_student_is_never_overwritten(values):
    Path(values["output_dir"]).mkdir()
    with pytest.raises(ValueError, match="student exists already"):
        run(values)


# Refusals


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"size": "tny"}, r"There is no `size` 'tny'; did you mean tiny\?"),
        ({"size": "huge"}, r"There is no `size` 'huge': choose tiny, mini, small, or leave it out\."),
        ({"model_config": None}, r"The student has no size: set `size` \(tiny, mini, small\), or `model_config`"),
        ({"model_config": {"problem_type": MULTI}}, "`model_config.problem_type` of a student is its teacher's"),
        ({"model_config": {"patch_size": 8}}, "`model_config.patch_size` of a student is its teacher's"),
        ({"model_config": {"num_attention_heads": 3}}, r"`num_attention_heads` \(3\) must divide"),
        ({"model_config": {"hidden_size": 64}}, r"The student's encoder has .* parameters, more than its teacher's"),
        ({"model_config": None, "size": "tiny"}, r"more than its teacher's, .*: choose a smaller `size`"),
        ({"logits_weight": 0, "representation_weight": 0}, "there is nothing to learn"),
        ({"logits_weight": -1}, "`logits_weight` must not be negative"),
        ({"temperature": 0}, "`temperature` must be positive"),
        ({"teacher_layers": [5]}, "`teacher_layers`: There is no layer 5"),
        ({"teacher_layers": [1], "representation_weight": 0}, "`teacher_layers` are those of the representations"),
        ({"balanced_sampling": True}, "`balanced_sampling` needs labels"),
        ({"precompute_fbank": True, "roll": True}, "`roll` and `mixup_alpha` change the audio"),
        ({"mixup_alpha": 0.5, "per_device_train_batch_size": 1}, "`mixup_alpha` mixes clips of a batch"),
        ({"eval_strategy": "steps"}, r"^`eval_strategy`: there are no clips to evaluate on; leave it out\.$"),
        ({"label_smoothing_factor": 0.1}, "^`label_smoothing_factor` needs labels"),
    ],
)
def test_what_cannot_be_distilled_is_refused(values, changes, message):
    with pytest.raises(ValueError, match=message):
        run(values, **changes)
    assert not Path(values["output_dir"]).exists()


def test_views_are_filtered(values, monkeypatch):
    seen = []

    def look(input_values, mask, max_db, fbank_std):
        seen.append((max_db, fbank_std))
        return input_values

    monkeypatch.setattr(augmentation, "filter_augment", look)
    run(values, filter_db=6.0, max_steps=1)
    extractor = BeatsFeatureExtractor.from_pretrained(values["output_dir"])
    assert seen == [(6.0, extractor.fbank_std)]


def test_the_teacher_is_needed(values, capsys):
    del values["teacher"]
    with pytest.raises(UsageError, match="`teacher` is missing: Name, directory or Hub id"):
        run(values)
    with pytest.raises(UsageError, match="`teacher` is missing"):
        main(["-o", "student", "--size", "tiny", "--dataset", "sounds"])


def test_a_teacher_that_is_not_there_is_named(values):
    with pytest.raises(UsageError, match="absent-teacher"):
        run(values, teacher="absent-teacher")


def test_a_tokenizer_is_no_teacher(values, tmp_path):
    BeatsRandomProjectionTokenizer(BeatsRandomProjectionTokenizerConfig()).save_pretrained(tmp_path / "tokenizer")
    with pytest.raises(ValueError, match="holds a BeatsRandomProjectionTokenizer, not a BEATs model"):
        run(values, teacher=str(tmp_path / "tokenizer"))


def test_logits_of_no_classes_are_not_learned(values, tmp_path):
    teacher = save_teacher(tmp_path / "regression", id2label={0: "level"}, label2id={"level": 0})
    with pytest.raises(UsageError, match="The teacher is a regression"):
        run(values, teacher=str(teacher))
    encoder = save_teacher(tmp_path / "encoder", BeatsModel)
    with pytest.raises(UsageError, match="`logits_weight` is 2, but the teacher is no clip classifier"):
        run(values, teacher=str(encoder), logits_weight=2.0)
    with pytest.raises(UsageError, match="`representation_weight` is 0, and there are no logits to learn"):
        run(values, teacher=str(encoder), representation_weight=0.0)


def test_the_fbank_of_another_model_is_refused(values, tmp_path):
    BeatsFeatureExtractor().save_pretrained(tmp_path / "statistics")
    with pytest.raises(ValueError, match=r"The teacher reads an fbank of `fbank_mean` 9\.0"):
        run(values, feature_extractor=str(tmp_path / "statistics"))


def test_all_sizes_are_narrower_than_the_released_models():
    assert list(SIZES) == ["tiny", "mini", "small"]
    assert max(size["hidden_size"] for size in SIZES.values()) < BeatsConfig().hidden_size
