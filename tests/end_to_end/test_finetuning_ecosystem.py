# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Fine-tuning with code that is not ours: a script, what `Trainer` can do, PEFT."""

import json
import os
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from datasets import Dataset
from huggingface_hub import ModelCard
from safetensors import safe_open
from safetensors.torch import load_file
from transformers import (
    AutoFeatureExtractor,
    AutoModelForAudioClassification,
    DataCollatorWithPadding,
    Trainer,
    TrainingArguments,
    set_seed,
)

from transformers_beats import BeatsConfig, BeatsFeatureExtractor, BeatsForAudioClassification, BeatsForPreTraining


SCRIPT = Path(__file__).with_name("finetune_with_transformers.py")
CLASSES = {"low": 300, "middle": 1200, "high": 4000}
DROPOUTS = ("hidden_dropout", "attention_dropout", "feat_proj_dropout", "layerdrop")


def tone(generator: np.random.Generator, label: str) -> np.ndarray:
    """A quarter to half a second of a tone in noise."""
    time = np.arange(generator.integers(4000, 8000)) / 16000
    frequency = CLASSES[label] * generator.uniform(0.9, 1.1)
    return (0.3 * np.sin(2 * np.pi * frequency * time) + 0.01 * generator.standard_normal(len(time))).astype("float32")


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory) -> Path:
    """A small model as pre-training leaves it, with its feature extractor."""
    directory = tmp_path_factory.mktemp("models") / "pretrained"
    config = BeatsConfig(
        embed_dim=16,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=48,
        num_conv_pos_embeddings=16,
        num_conv_pos_embedding_groups=2,
        label_predictor_num_hidden_layers=1,
        **dict.fromkeys(DROPOUTS, 0.0),
    )
    set_seed(0)
    BeatsForPreTraining(config).save_pretrained(directory)
    BeatsFeatureExtractor().save_pretrained(directory)
    return directory


@pytest.fixture(scope="module")
def extractor(pretrained):
    return AutoFeatureExtractor.from_pretrained(pretrained)


@pytest.fixture(scope="module")
def clips(extractor) -> list[dict]:
    """Features of 24 tones of three classes, each of its own length."""
    generator = np.random.default_rng(0)
    labels = [index % 3 for index in range(24)]
    waveforms = [tone(generator, list(CLASSES)[label]) for label in labels]
    features = extractor(waveforms, sampling_rate=16000, padding=False)
    return [
        {"input_values": values, "attention_mask": mask, "labels": label}
        for values, mask, label in zip(features["input_values"], features["attention_mask"], labels)
    ]


@pytest.fixture(scope="module")
def build_model(pretrained):
    """A classifier on the encoder that was pre-trained, always with the same new head."""

    def build(**kwargs):
        set_seed(1)
        return AutoModelForAudioClassification.from_pretrained(pretrained, num_labels=len(CLASSES), **kwargs)

    return build


@pytest.fixture(scope="module")
def build_trainer(tmp_path_factory, extractor, clips):
    """A `Trainer` that logs every step and stays silent; keyword arguments are those of `TrainingArguments`."""

    def build(model, train=clips, evaluation=None, **kwargs):
        defaults = {"max_steps": 6, "per_device_train_batch_size": 4, "learning_rate": 1e-3, "logging_steps": 1}
        defaults |= {"save_strategy": "no", "report_to": "none", "disable_tqdm": True, "use_cpu": True, "seed": 0}
        arguments = TrainingArguments(str(tmp_path_factory.mktemp("run")), **(defaults | kwargs))
        return Trainer(model, arguments, train_dataset=train, eval_dataset=evaluation, processing_class=extractor)

    return build


def losses_of(trainer) -> list[float]:
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


def weights_of(model) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


@torch.no_grad()
def logits_of(model, clips, extractor) -> torch.Tensor:
    return model.eval()(**DataCollatorWithPadding(extractor)(clips[:8])).logits


# A script


@pytest.fixture(scope="module")
def finetuned(pretrained, fresh_python, tmp_path_factory):
    """What the script wrote, in a process of its own."""
    directory = tmp_path_factory.mktemp("script")
    generator = np.random.default_rng(0)
    for split, number in (("train", 30), ("test", 12)):
        for index in range(number):
            label = list(CLASSES)[index % 3]
            path = directory / "sounds" / split / label / f"{index}.wav"
            path.parent.mkdir(parents=True, exist_ok=True)
            soundfile.write(path, tone(generator, label), 16000)
    words = f"--model {pretrained} --sounds {directory / 'sounds'} --output_dir {directory / 'model'} --do_train"
    words += " --do_eval --max_steps 40 --learning_rate 3e-3 --per_device_train_batch_size 8 --max_seconds 0.4"
    words += " --remove_unused_columns False --save_strategy no --report_to none --disable_tqdm True --use_cpu True"
    environment = os.environ | {"HF_DATASETS_CACHE": str(directory / "cache"), "HF_HUB_OFFLINE": "1"}
    program = f"import runpy; runpy.run_path({str(SCRIPT)!r}, run_name='__main__')"
    done = fresh_python(program, *words.split(), env=environment)
    assert done.returncode == 0, done.stderr
    return directory / "model"


def test_a_script_for_any_model_of_transformers_learns_tones(finetuned):
    metrics = json.loads((finetuned / "all_results.json").read_text())
    assert metrics["eval_accuracy"] >= 0.9
    assert 0 < metrics["eval_loss"] < 0.6


def test_pipeline_agrees_with_the_evaluation_of_the_script(finetuned):
    predictions = json.loads((finetuned / "predictions.json").read_text())
    assert len(predictions) == 12
    hits = []
    for prediction in predictions:
        scores = {entry["label"]: entry["score"] for entry in prediction["scores"]}
        assert scores.keys() == CLASSES.keys()
        assert sum(scores.values()) == pytest.approx(1, abs=1e-5)
        hits.append(max(scores, key=scores.get) == prediction["label"])
    assert np.mean(hits) == json.loads((finetuned / "all_results.json").read_text())["eval_accuracy"]


def test_the_result_of_the_script_is_a_model_of_ours(finetuned):
    model = AutoModelForAudioClassification.from_pretrained(finetuned)
    assert type(model) is BeatsForAudioClassification
    assert model.config.id2label == dict(enumerate(sorted(CLASSES)))


def test_features_without_their_mask_are_padded_by_the_collator_alone(extractor):
    """transformers' own example keeps the first of `model_input_names` only, and leaves the padding to `Trainer`."""
    waveforms = [np.zeros(4000, np.float32), np.zeros(8000, np.float32)]
    features = extractor(waveforms, sampling_rate=16000)[extractor.model_input_names[0]]
    batch = DataCollatorWithPadding(extractor)([{"input_values": values} for values in features])
    assert batch["attention_mask"].sum(dim=1).tolist() == [23, 48]


# What `Trainer` can do


def test_the_best_model_is_loaded_at_the_end(build_model, build_trainer, clips):
    # The more it learns of wrong labels, the worse it gets at the right ones.
    wrong = [clip | {"labels": (clip["labels"] + 1) % 3} for clip in clips]
    model = build_model()
    trainer = build_trainer(
        model,
        wrong,
        clips,
        learning_rate=3e-3,
        load_best_model_at_end=True,
        metric_for_best_model="loss",
        eval_strategy="steps",
        save_strategy="steps",
        eval_steps=2,
        save_steps=2,
    )
    trainer.train()
    evaluations = [entry["eval_loss"] for entry in trainer.state.log_history if "eval_loss" in entry]
    best = Path(trainer.state.best_model_checkpoint)
    assert int(best.name.partition("-")[2]) == 2 * (1 + int(np.argmin(evaluations))) < 6
    assert trainer.evaluate()["eval_loss"] == pytest.approx(min(evaluations), abs=1e-6)
    saved = load_file(best / "model.safetensors")
    assert all(torch.equal(value, saved[name]) for name, value in weights_of(model).items())


def test_a_resumed_training_continues_as_if_uninterrupted(build_model, build_trainer):
    dropouts = dict.fromkeys(DROPOUTS, 0.1)
    # Six steps make an epoch: one checkpoint within the first, one within the second.
    whole = build_trainer(build_model(**dropouts), max_steps=10, save_strategy="steps", save_steps=4)
    whole.train()
    for step in (4, 8):
        resumed = build_trainer(build_model(**dropouts), max_steps=10)
        # Moves the generators away from where they began.
        torch.rand(7)
        resumed.train(resume_from_checkpoint=f"{whole.args.output_dir}/checkpoint-{step}")
        assert losses_of(resumed) == losses_of(whole)
        actual, expected = weights_of(resumed.model), weights_of(whole.model)
        assert all(torch.equal(actual[name], expected[name]) for name in expected)


@pytest.mark.parametrize("problem_type", ["single_label_classification", "multi_label_classification"])
def test_gradient_accumulation_changes_nothing(problem_type, build_model, build_trainer, clips):
    if problem_type == "multi_label_classification":
        clips = [clip | {"labels": np.eye(3, dtype=np.float32)[clip["labels"]]} for clip in clips]
    runs = []
    for batch_size, steps in ((8, 1), (2, 4)):
        # Adam would blow up the rounding of tiny gradients.
        trainer = build_trainer(
            build_model(problem_type=problem_type),
            clips,
            per_device_train_batch_size=batch_size,
            gradient_accumulation_steps=steps,
            optim="sgd",
            learning_rate=0.05,
        )
        trainer.train()
        runs.append((losses_of(trainer), weights_of(trainer.model)))
    (losses, weights), (accumulated_losses, accumulated_weights) = runs
    assert len(losses) == 6
    assert accumulated_losses == pytest.approx(losses, abs=1e-5)
    torch.testing.assert_close(accumulated_weights, weights, rtol=0, atol=1e-5)


@pytest.mark.skipif(not torch.ops.mkldnn._is_mkldnn_bf16_supported(), reason="this CPU does not compute in bfloat16")
def test_bfloat16_trains_as_float32_does(build_model, build_trainer):
    runs = {}
    for bf16 in (False, True):
        trainer = build_trainer(build_model(), bf16=bf16)
        trainer.train()
        runs[bf16] = losses_of(trainer)
        assert all(parameter.dtype == torch.float32 for parameter in trainer.model.parameters())
    assert runs[True] != runs[False]
    assert runs[True] == pytest.approx(runs[False], rel=0.03)


def test_clips_of_like_length_share_batches(build_model, build_trainer, clips):
    """The lengths are those of the fbanks, which `Trainer` finds by the name of the model's first input."""
    # Among few clips there is nothing to choose.
    clips = clips * 8
    seen = {}
    for strategy in ("random", "group_by_length"):
        trainer = build_trainer(build_model(), clips, train_sampling_strategy=strategy, max_steps=2)
        batches = list(trainer.get_train_dataloader())
        seen[strategy] = [batch["attention_mask"].sum(dim=1).tolist() for batch in batches]
    lengths = sorted(len(clip["input_values"]) for clip in clips)
    padding = {name: sum(max(row) * len(row) - sum(row) for row in rows) for name, rows in seen.items()}
    assert all(sorted(chain(*rows)) == lengths for rows in seen.values())
    assert padding["group_by_length"] < padding["random"] / 2
    trainer.train()
    assert np.isfinite(losses_of(trainer)).all()


def test_lengths_may_come_from_a_column(build_model, build_trainer, clips):
    columns = {name: [clip[name] for clip in clips] for name in clips[0]}
    dataset = Dataset.from_dict(columns | {"num_frames": [len(clip["input_values"]) for clip in clips]})
    trainer = build_trainer(
        build_model(),
        dataset.with_format("numpy"),
        train_sampling_strategy="group_by_length",
        length_column_name="num_frames",
        max_steps=2,
    )
    longest = max(len(clip["input_values"]) for clip in clips)
    # The sampler puts the longest clip first, so that a lack of memory shows at once.
    assert next(iter(trainer.get_train_dataloader()))["input_values"].shape[1] == longest
    trainer.train()
    assert np.isfinite(losses_of(trainer)).all()


def test_a_directory_for_the_hub_is_complete(build_model, build_trainer, clips):
    trainer = build_trainer(
        build_model(),
        evaluation=clips,
        push_to_hub=False,
        hub_model_id="someone/beats-tones",
        hub_strategy="end",
        hub_private_repo=True,
        eval_strategy="steps",
        eval_steps=3,
    )
    trainer.train()
    trainer.save_model()
    trainer.create_model_card(
        language="en",
        license="apache-2.0",
        tags=["audio-classification", "beats"],
        tasks="audio-classification",
        dataset="Tones",
        finetuned_from="someone/beats",
    )
    directory = Path(trainer.args.output_dir)
    needed = ["config.json", "model.safetensors", "preprocessor_config.json", "README.md", "modeling_beats.py"]
    assert [name for name in needed if not (directory / name).is_file()] == []
    card = ModelCard.load(directory / "README.md")
    assert card.data.library_name == "transformers"
    assert {"audio-classification", "beats", "generated_from_trainer"} <= set(card.data.tags)
    assert card.data.base_model == "someone/beats"
    assert "| Training Loss |" in card.text


@pytest.mark.parametrize("backend", ["eager", pytest.param("inductor", marks=pytest.mark.slow)])
def test_a_compiled_model_trains_as_it_does_otherwise(backend, build_model, build_trainer, compiler):
    runs = []
    for options in ({}, {"torch_compile": True, "torch_compile_backend": backend}):
        # The compiler of C++ takes seconds for each layer. Padded to one length: every other would be compiled anew.
        trainer = build_trainer(build_model(num_hidden_layers=1), max_steps=3, **options)
        trainer.data_collator = DataCollatorWithPadding(trainer.processing_class, "max_length", 48)
        trainer.train()
        runs.append((losses_of(trainer), weights_of(trainer.model)))
    (losses, weights), (compiled_losses, compiled_weights) = runs
    assert compiled_losses == pytest.approx(losses, abs=1e-4)
    torch.testing.assert_close(compiled_weights, weights, rtol=1e-3, atol=1e-4)


# PEFT


@pytest.fixture(scope="module")
def build_lora(build_model):
    """A classifier with an adapter on the attention, whose head is trained as it is."""
    peft = pytest.importorskip("peft")

    def build(**kwargs):
        config = peft.LoraConfig(r=4, target_modules=["q_proj", "v_proj"], modules_to_save=["classifier"])
        return peft.get_peft_model(build_model(**kwargs), config)

    return build


@pytest.fixture(scope="module")
def adapter(build_lora, build_trainer, clips, extractor):
    """A directory that `Trainer` wrote, and the logits of what it trained."""
    trainer = build_trainer(build_lora(), max_steps=40, learning_rate=1e-2, per_device_train_batch_size=8)
    trainer.train()
    trainer.save_model()
    return Path(trainer.args.output_dir), logits_of(trainer.model, clips, extractor)


def test_lora_learns_and_leaves_the_encoder_alone(build_model, build_lora, build_trainer, clips):
    before = weights_of(build_model().beats)
    model = build_lora()
    trainer = build_trainer(
        model, evaluation=clips, max_steps=40, learning_rate=1e-2, per_device_train_batch_size=8, weight_decay=0.1
    )
    untrained = trainer.evaluate()["eval_loss"]
    trainer.train()
    assert trainer.evaluate()["eval_loss"] < untrained / 2
    # Every adapter took part: its second matrix is zero at first.
    assert all(value.abs().max() > 0 for name, value in model.named_parameters() if "lora_B" in name)
    after = {
        name.replace(".base_layer", ""): value for name, value in weights_of(model.base_model.model.beats).items()
    }
    assert all(torch.equal(after[name], value) for name, value in before.items())


def test_an_adapter_holds_its_own_weights_only(adapter):
    directory, _ = adapter
    with safe_open(directory / "adapter_model.safetensors", "pt") as file:
        names = list(file.keys())
    lora = [name for name in names if ".lora_" in name]
    # Two matrices for two projections in two layers; weight and bias of the head.
    assert len(lora) == 8
    assert all(".self_attn.q_proj." in name or ".self_attn.v_proj." in name for name in lora)
    assert sorted(name.rpartition("classifier.")[2] for name in set(names) - set(lora)) == ["bias", "weight"]
    assert not (directory / "model.safetensors").exists()


def test_an_adapter_is_loaded_and_merged(adapter, build_model, clips, extractor, tmp_path):
    peft = pytest.importorskip("peft")
    directory, expected = adapter
    loaded = peft.PeftModel.from_pretrained(build_model(), directory)
    assert torch.equal(logits_of(loaded, clips, extractor), expected)
    merged = loaded.merge_and_unload()
    assert type(merged) is BeatsForAudioClassification
    torch.testing.assert_close(logits_of(merged, clips, extractor), expected, rtol=0, atol=1e-5)

    merged.save_pretrained(tmp_path / "merged")
    read = AutoModelForAudioClassification.from_pretrained(tmp_path / "merged")
    assert torch.equal(logits_of(read, clips, extractor), logits_of(merged, clips, extractor))


def test_transformers_loads_an_adapter_as_a_model(adapter, clips, extractor):
    """Without a word of PEFT; the adapter's directory names the model that it belongs to."""
    directory, expected = adapter
    model = AutoModelForAudioClassification.from_pretrained(directory, num_labels=len(CLASSES))
    assert type(model) is BeatsForAudioClassification
    torch.testing.assert_close(logits_of(model, clips, extractor), expected, rtol=0, atol=1e-6)


def test_lora_trains_with_gradient_checkpointing(build_lora, build_trainer):
    runs = []
    for options in ({}, {"gradient_checkpointing": True}):
        trainer = build_trainer(build_lora(), learning_rate=1e-2, **options)
        trainer.train()
        runs.append(losses_of(trainer))
    assert runs[1] == pytest.approx(runs[0], abs=1e-5)
