# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Training of a small BEATs classifier from scratch on synthesised sounds, with `transformers_beats.training`."""

from pathlib import Path
from typing import Any

import soundfile
from datasets import Dataset

from transformers_beats.audio.synthesis import MAX_DURATION, SAMPLING_RATE, make_dataset
from transformers_beats.training.classifiers import EVALUATION
from transformers_beats.training.config.recipes import build_arguments
from transformers_beats.training.finetune import FINETUNE_ARGUMENTS, Arguments, finetune
from transformers_beats.training.reports.card import write_card
from transformers_beats.training.reports.folds import read_report
from transformers_beats.training.reports.report import PAGE
from transformers_beats.utils.files import replace_directory, work_directory


# Configuration of an encoder with 0.7 M parameters, 1/130 of the released models.
ENCODER = {
    "embed_dim": 128,
    "hidden_size": 128,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 512,
    "num_conv_pos_embeddings": 32,
    "num_conv_pos_embedding_groups": 8,
    # A few passes over the data are too few to overfit, and random numbers cost a fifth of a step on a CPU.
    "hidden_dropout": 0.0,
    "attention_dropout": 0.0,
    "feat_proj_dropout": 0.0,
    "layerdrop": 0.0,
}
# Half the computation, for the notebooks.
SMALL_ENCODER: dict[str, Any] = {
    **ENCODER,
    "embed_dim": 96,
    "hidden_size": 96,
    "num_hidden_layers": 2,
    "intermediate_size": 384,
    "num_conv_pos_embeddings": 16,
}
FINE_TUNING = {
    "crop_seconds": MAX_DURATION,
    "per_device_eval_batch_size": 32,
    "learning_rate": 1e-3,
    "lr_scheduler_type": "cosine",
    "warmup_steps": 0.1,
    "adam_beta2": 0.999,
    "save_strategy": "no",
}
HELD_OUT_PER_CLASS = 30
# Page of the evaluation, in the directory of the model.
REPORT = Path(EVALUATION, PAGE)


def write_sounds(directory: Path, dataset: Dataset, has_classes: bool = True) -> None:
    """Writes clips of [`make_dataset`] as WAV files, in a folder for each class or together, unless they are there."""
    if directory.exists():
        return
    directory.parent.mkdir(parents=True, exist_ok=True)
    with work_directory(directory.parent, ".sounds-") as work:
        for index, row in enumerate(dataset.with_format("numpy")):
            folder = work / (dataset.features["label"].int2str(int(row["label"])) if has_classes else "")
            folder.mkdir(exist_ok=True)
            soundfile.write(folder / f"sound-{index:04d}.wav", row["audio"], SAMPLING_RATE)
        work.rename(directory)


def fine_tune(sounds: Path, held_out: Path, output_dir: Path, **values: Any) -> dict[str, float]:
    """Fine-tunes a classifier and returns its metrics; `values` are further arguments of [`finetune`]."""
    values = {"dataset": str(sounds), "eval_dataset": str(held_out), "output_dir": str(output_dir)} | values
    # The demo has last lines of its own.
    return finetune(Arguments(*build_arguments(FINETUNE_ARGUMENTS, FINE_TUNING | values)), prints=False)


def train_classifier(
    model_dir: Path, seed: int, clips_per_class: int = 100, held_out_per_class: int = HELD_OUT_PER_CLASS, **values: Any
) -> float:
    """
    Trains a classifier on synthesised sounds, saves it with its feature extractor, and returns its accuracy on the
    held-out clips, in [0, 1]. An older `model_dir` is replaced once the new one is whole. `seed` is that of weights,
    order and training clips, the held-out clips have the next one; `values` are further arguments of [`finetune`].
    """
    training: dict[str, Any] = {
        "num_train_epochs": 5,
        "per_device_train_batch_size": 16,
        "model_config": ENCODER,
        "logging_strategy": "epoch",
        "eval_strategy": "epoch",
        "seed": seed,
    }
    model_dir.parent.mkdir(parents=True, exist_ok=True)
    with work_directory(model_dir.parent, ".training-") as work:
        write_sounds(work / "synthesised-sounds", make_dataset(clips_per_class, seed))
        write_sounds(work / "held-out", make_dataset(held_out_per_class, seed + 1))
        new = work / model_dir.name
        metrics = fine_tune(work / "synthesised-sounds", work / "held-out", new, **training | values)
        replace_directory(new, model_dir)
    # Its card names the place where it was trained.
    report = read_report(model_dir / EVALUATION)
    write_card(model_dir, report["description"], report, model_dir / EVALUATION)
    return metrics["accuracy"]
