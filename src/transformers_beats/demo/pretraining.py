# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""
Comparison of pre-training on unlabelled sounds with none when few sounds have labels: two small iterations of
`transformers_beats.training.iterate`, then linear probes and fine-tuning of each model and of an untrained one.
"""

import logging
from collections.abc import Generator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import asdict, dataclass
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import track
from rich.table import Table

from transformers_beats.audio.synthesis import CLASSES, make_dataset
from transformers_beats.conversion.names import use_of
from transformers_beats.training.config.iterations import IterateArguments
from transformers_beats.training.iterate import iterate
from transformers_beats.training.reports.curves import draw_curves, read_log_history
from transformers_beats.training.trainers.pretraining import CodebookCollapseError
from transformers_beats.utils.errors import BeatsError
from transformers_beats.utils.files import work_directory
from transformers_beats.utils.messages import next_command, note
from transformers_beats.utils.numbers import format_number
from transformers_beats.utils.resume import begin_or_resume

from .training import ENCODER, fine_tune, write_sounds


NUM_ITERATIONS = 2
# Attention and the label predictor see every patch of a crop, so that shorter crops make faster steps.
CROP_SECONDS = 2
RECIPE, CURVES = "recipe.yaml", "pretraining-curves.png"
PROBED, FINE_TUNED = "Linear probe, accuracy", "Fine-tuned, accuracy"
# Rows of the table: title, and key in the log.
LOGGED = (
    ("Masked codes predicted", "accuracy"),
    ("Cross-entropy (nats)", "loss"),
    ("Unigram entropy (nats)", "code_entropy"),
    ("Code perplexity", "code_perplexity"),
    ("Codes alive", "codes_alive"),
)


@dataclass(frozen=True)
class PretrainingSettings:
    """Size and length of pre-training and of fine-tuning."""

    # Unlabelled clips of each of the ten classes.
    clips_per_class: int = 60
    # Steps of masked acoustic modelling in each iteration, and of the training of the second tokenizer.
    model_steps: int = 300
    tokenizer_steps: int = 100
    # Clips of each class to learn the classes from, and for the accuracy.
    labelled_per_class: int = 3
    held_out_per_class: int = 20
    # How often the classes are learned, each time from other clips, and the steps of it.
    draws: int = 3
    fine_tuning_steps: int = 60
    seed: int = 0


def build_recipe(run: Path, settings: PretrainingSettings) -> dict[str, Any]:
    """Returns a recipe of `transformers_beats.training.iterate`; that named `folder_iterate` explains the keys."""
    training = {
        "per_device_train_batch_size": 32,
        "learning_rate": 1e-3,
        "warmup_steps": 0.1,
        "logging_steps": 0.05,  # a share of the steps, as `warmup_steps`
        "save_steps": 100,
        "seed": settings.seed,
    }
    quantizer = {"codebook_size": 256, "estimator_num_hidden_layers": 1, "dead_code_threshold": 1.0}
    return {
        "output_dir": str(run),
        "num_iterations": NUM_ITERATIONS,
        "data": {"dataset": str(run / "sounds"), "crop_seconds": CROP_SECONDS},
        "random_projection": {"codebook_size": 512, "seed": settings.seed},
        "model": {
            **training,
            "model_config": {**ENCODER, "label_predictor_num_hidden_layers": 1},
            "max_steps": settings.model_steps,
        },
        "tokenizer": {
            **training,
            "model_config": {**ENCODER, **quantizer},
            "max_steps": settings.tokenizer_steps,
            "per_device_train_batch_size": 16,  # all patches go through the encoder, and not a quarter of them
        },
        "tokenize": {"batch_size": 32},
    }


def pretrain(run: Path, settings: PretrainingSettings) -> list[Path]:
    """
    Pre-trains on unlabelled sounds, or goes on with an earlier run of the same settings; returns the directory of each
    iteration's model. Raises a [`BeatsError`] for a run of other settings, or if a codebook collapses.
    """
    begin_or_resume(run / "settings.json", asdict(settings), run)
    recipe = build_recipe(run, settings)
    (run / RECIPE).write_text(yaml.safe_dump(recipe, sort_keys=False), encoding="utf-8")
    write_sounds(run / "sounds", make_dataset(settings.clips_per_class, settings.seed), has_classes=False)
    try:
        iterate(IterateArguments(**recipe))
    except CodebookCollapseError as error:
        raise BeatsError(f"{error} Or try another --seed and --output.") from error
    return [run / f"iteration-{number}" / "model" for number in range(1, NUM_ITERATIONS + 1)]


@contextmanager
def _quiet() -> Generator[None, None, None]:
    """Leaves out what each of many short trainings prints."""
    logging.disable(logging.WARNING)
    try:
        with redirect_stdout(StringIO()), redirect_stderr(StringIO()):
            yield
    finally:
        logging.disable(logging.NOTSET)


def compare_starts(
    models: dict[str, Path | None], run: Path, settings: PretrainingSettings, console: Console
) -> dict[str, dict[str, list[float]]]:
    """
    Trains classifiers with few labelled clips, on pre-trained models or, for None, on an untrained one. Returns for
    each name, under `PROBED` and `FINE_TUNED`, the accuracies on held-out clips, one for each draw of labelled ones.
    """
    # The unlabelled clips have the seed itself, so all sounds differ.
    held_out = run / "held-out"
    write_sounds(held_out, make_dataset(settings.held_out_per_class, settings.seed + 1))
    size = settings.labelled_per_class * len(CLASSES)
    labelled = make_dataset(settings.labelled_per_class * settings.draws, settings.seed + 2)
    for draw in range(settings.draws):
        # Classes alternate, so that every slice has as many clips of each.
        write_sounds(run / f"labelled-{draw + 1}", labelled.select(range(draw * size, (draw + 1) * size)))
    found: dict[str, dict[str, list[float]]] = {name: {PROBED: [], FINE_TUNED: []} for name in models}
    trainings = [(name, draw) for draw in range(settings.draws) for name in models]
    for name, draw in track(trainings, "Fine-tuning", console=console):
        values: dict[str, Any] = {"per_device_train_batch_size": 10, "logging_strategy": "no", "disable_tqdm": True}
        # The metrics are those of the end; an evaluation of every epoch, of three steps, would take most of the time.
        values |= {"eval_strategy": "no"}
        values |= {"model_name_or_path": str(models[name])} if models[name] else {"model_config": ENCODER}
        sounds = run / f"labelled-{draw + 1}", held_out
        with work_directory(run, ".fine-tuning-") as work, _quiet():
            # The weights of an untrained encoder have the seed itself, those of the probe's features.
            probed = fine_tune(*sounds, work / "probe", **values, freeze=True, seed=settings.seed)
            seed, max_steps = settings.seed + draw, settings.fine_tuning_steps
            tuned = fine_tune(*sounds, work / "fine-tuned", **values, max_steps=max_steps, seed=seed)
        found[name][PROBED].append(probed["accuracy"])
        found[name][FINE_TUNED].append(tuned["accuracy"])
    return found


def format_accuracies(values: list[float]) -> str:
    """Returns mean and, of several values, standard deviation."""
    spread = f" ± {format_number(float(np.std(values, ddof=1)))}" if len(values) > 1 else ""
    return f"{format_number(float(np.mean(values)))}{spread}"


def build_table(found: dict[str, dict[str, list[float]]], logs: dict[str, dict[str, Any]]) -> Table:
    """Returns a table with a column for each start: accuracies, and the last log of the pre-training behind it."""
    table = Table("", box=SIMPLE_HEAD)
    for name in found:
        table.add_column(name, justify="right")
    for title in (PROBED, FINE_TUNED):
        table.add_row(title, *(format_accuracies(accuracies[title]) for accuracies in found.values()))
    for title, key in LOGGED:
        table.add_row(title, *(format_number(logs[name][key] if name in logs else None) for name in found))
    return table


def run_pretraining(output: Path, settings: PretrainingSettings, console: Console) -> None:
    """
    Pre-trains in `output/pretraining`, compares each iteration with an untrained model, prints a table and draws the
    learning curves. `console` must not write to `sys.stdout` of the moment, which [`_quiet`] turns off.
    """
    run = output.resolve() / "pretraining"
    num_sounds = settings.clips_per_class * len(CLASSES)
    console.print(f"Pre-training on {num_sounds} synthesised sounds without labels, in {NUM_ITERATIONS} iterations.")
    models = {f"iteration {number}": model for number, model in enumerate(pretrain(run, settings), start=1)}
    histories = {name: read_log_history(model) for name, model in models.items()}
    picture = output / CURVES
    draw_curves(histories, picture)
    found = compare_starts({"from scratch": None, **models}, run, settings, console)
    console.print(build_table(found, {name: entries[-1] for name, entries in histories.items()}))
    num_labelled, num_held_out = (n * len(CLASSES) for n in (settings.labelled_per_class, settings.held_out_per_class))
    # In lines of at most 80 characters.
    console.print(
        f"Accuracies: with {num_labelled} labelled clips, on {num_held_out} held-out ones; mean and standard\n"
        f"deviation over {settings.draws} draws of the labelled clips. The linear probe is a logistic\n"
        "regression on the embeddings of the frozen encoder; from scratch, the encoder is\n"
        "random. Unigram entropy: the cross-entropy of guessing by the frequency of the\n"
        "codes. Each iteration has codes of its own: compare the two within a column.",
        markup=False,
    )
    console.print(f"Models and recipe: {run}\nLearning curves: {picture}", markup=False, soft_wrap=True)
    note(next_command(*use_of("pretrained", str(models[f"iteration {NUM_ITERATIONS}"]))))
