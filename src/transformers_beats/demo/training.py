# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Trains a small BEATs classifier from scratch on the synthesised sounds, with transformers' `Trainer`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Array2D, Dataset, Features, List, Value
from sklearn.metrics import accuracy_score
from transformers import EvalPrediction, Trainer, TrainingArguments, set_seed

from transformers_beats import BeatsConfig, BeatsFeatureExtractor, BeatsForAudioClassification
from transformers_beats.audio.synthesis import CLASSES, make_dataset
from transformers_beats.utils.files import replace_directory, work_directory


@dataclass(frozen=True)
class TrainingSettings:
    """
    Size and length of the training.

    Args:
        clips_per_class (`int`, defaults to 100):
            Training clips of each of the ten classes.
        held_out_per_class (`int`, defaults to 30):
            Clips of each class for the accuracy.
        num_epochs (`int`, defaults to 5):
            Passes over the training clips.
        max_steps (`int`, defaults to -1):
            Stops after so many steps of 16 clips, if positive.
        seed (`int`, defaults to 0):
            Of the training clips, the weights and their order. The held-out clips have `held_out_seed`.
    """

    clips_per_class: int = 100
    held_out_per_class: int = 30
    num_epochs: int = 5
    max_steps: int = -1
    seed: int = 0

    @property
    def held_out_seed(self) -> int:
        return self.seed + 1


def build_model() -> BeatsForAudioClassification:
    """An untrained classifier of the ten classes with 0.7 M parameters, 1/130 of the released models."""
    config = BeatsConfig(
        embed_dim=128,
        hidden_size=128,
        num_hidden_layers=3,
        num_attention_heads=2,
        intermediate_size=512,
        num_conv_pos_embeddings=32,
        num_conv_pos_embedding_groups=8,
        # Five passes over the data are too few to overfit, and random numbers cost a fifth of a step on a CPU.
        hidden_dropout=0.0,
        attention_dropout=0.0,
        feat_proj_dropout=0.0,
        layerdrop=0.0,
        id2label=dict(enumerate(CLASSES)),
        label2id={label: index for index, label in enumerate(CLASSES)},
        problem_type="single_label_classification",
    )
    return BeatsForAudioClassification(config)


def featurize(dataset: Dataset, extractor: BeatsFeatureExtractor) -> Dataset:
    """Replaces `audio` by its fbank: `input_values` `(num_frames, num_mel_bins)` and `attention_mask`, unpadded."""
    columns = {
        # Two-dimensional arrays load ten times as fast as the nested lists that `map` would choose.
        "input_values": Array2D(shape=(None, extractor.feature_size), dtype="float32"),
        "attention_mask": List(Value("int32")),
        "label": dataset.features["label"],
    }
    fbanks = dataset.with_format("torch").map(
        lambda batch: extractor(batch["audio"], sampling_rate=extractor.sampling_rate, padding=False),
        batched=True,
        batch_size=32,
        features=Features(columns),
        remove_columns=["audio", "sampling_rate"],
        desc="Computing fbanks",
    )
    return fbanks.with_format("torch")


def compute_accuracy(prediction: EvalPrediction) -> dict[str, float]:
    """Share of clips, in [0, 1], whose largest logit is at the true class."""
    return {"accuracy": float(accuracy_score(prediction.label_ids, np.argmax(prediction.predictions, axis=-1)))}


def build_trainer(
    model: BeatsForAudioClassification, work: Path, train: Dataset, held_out: Dataset, **arguments: Any
) -> Trainer:
    """
    A trainer of featurized clips that measures the accuracy on `held_out`.

    Args:
        model ([`BeatsForAudioClassification`]):
            What to train.
        work (`Path`):
            Directory for what `Trainer` writes.
        train (`Dataset`):
            From [`featurize`].
        held_out (`Dataset`):
            Likewise.
        arguments:
            Of `TrainingArguments`: length, logs and seed.
    """
    training = TrainingArguments(
        output_dir=str(work),
        per_device_eval_batch_size=32,
        learning_rate=1e-3,
        lr_scheduler_type="cosine",
        warmup_steps=0.1,
        weight_decay=0.01,
        save_strategy="no",
        report_to="none",
        # In float32, as most CPUs do not compute in bfloat16; those that do would save a fifth of the time.
        use_cpu=not torch.cuda.is_available(),
        dataloader_pin_memory=torch.cuda.is_available(),
        **arguments,
    )
    return Trainer(
        model,
        training,
        train_dataset=train,
        eval_dataset=held_out,
        # Trainer then pads batches with `extractor.pad`.
        processing_class=BeatsFeatureExtractor(),
        compute_metrics=compute_accuracy,
    )


def train_classifier(model_dir: Path, settings: TrainingSettings) -> float:
    """
    Trains a classifier and saves it with its feature extractor, ready for `pipeline("audio-classification")`.

    Args:
        model_dir (`Path`):
            Directory to write, or to replace. It appears when it is complete, so an interruption leaves it as it was.
        settings ([`TrainingSettings`]):
            Size, length and seed.

    Returns:
        `float`: accuracy on the held-out clips, in [0, 1].
    """
    set_seed(settings.seed)
    extractor = BeatsFeatureExtractor()
    train = featurize(make_dataset(settings.clips_per_class, settings.seed), extractor)
    held_out = featurize(make_dataset(settings.held_out_per_class, settings.held_out_seed), extractor)
    model = build_model()

    model_dir.parent.mkdir(parents=True, exist_ok=True)
    with work_directory(model_dir.parent, ".training-") as work:
        trainer = build_trainer(
            model,
            work,
            train,
            held_out,
            num_train_epochs=settings.num_epochs,
            max_steps=settings.max_steps,
            per_device_train_batch_size=16,
            logging_strategy="epoch",
            eval_strategy="epoch",
            seed=settings.seed,
        )
        trainer.train()
        accuracy = trainer.evaluate()["eval_accuracy"]
        saved = work / "model"
        model.save_pretrained(saved)
        extractor.save_pretrained(saved)
        replace_directory(saved, model_dir)
    return accuracy


__all__ = ["TrainingSettings", "build_model", "build_trainer", "compute_accuracy", "featurize", "train_classifier"]
