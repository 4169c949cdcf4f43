# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""
What pre-training on unlabelled sounds is worth when few have labels: two small iterations of the real thing,
`transformers_beats.training.iterate`, on the synthesised sounds, then linear probes and fine-tuning of each and of an
untrained model.
"""

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
import yaml
from datasets import Dataset
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import track
from rich.table import Table
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from transformers import PrinterCallback, set_seed
from transformers.utils import logging

from transformers_beats import BeatsFeatureExtractor, BeatsForAudioClassification, BeatsModel
from transformers_beats.audio.synthesis import CLASSES, SAMPLING_RATE, make_dataset
from transformers_beats.training.config.arguments import IterateArguments
from transformers_beats.training.config.recipes import parse_arguments
from transformers_beats.training.iterate import iterate
from transformers_beats.training.reports.curves import draw_curves, read_log_history
from transformers_beats.training.trainers.pretraining import CodebookCollapseError
from transformers_beats.utils.files import replace_directory, work_directory

from .inference import DemoError
from .training import build_model, build_trainer, featurize


NUM_ITERATIONS = 2
# Attention and the label predictor see every patch of a crop, so that shorter crops make faster steps.
CROP_SECONDS = 2
RECIPE, CURVES = "recipe.yaml", "pretraining-curves.png"
# Rows of the table: title, key in the log, format.
LOGGED = (
    ("Masked codes predicted", "accuracy", ".1%"),
    ("Cross-entropy (nats)", "loss", ".2f"),
    ("Unigram entropy (nats)", "code_entropy", ".2f"),
    ("Code perplexity", "code_perplexity", ".0f"),
    ("Codes alive", "codes_alive", ".0%"),
)
# What the encoder of `build_model` has and its default configuration does not.
ENCODER_KEYS = (
    "embed_dim",
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "intermediate_size",
    "num_conv_pos_embeddings",
    "num_conv_pos_embedding_groups",
    "hidden_dropout",
    "attention_dropout",
    "feat_proj_dropout",
    "layerdrop",
)


@dataclass(frozen=True)
class PretrainingSettings:
    """
    Size and length of pre-training and of fine-tuning.

    Args:
        clips_per_class (`int`, defaults to 60):
            Unlabelled clips of each of the ten classes.
        model_steps (`int`, defaults to 300):
            Steps of masked acoustic modelling in each iteration.
        tokenizer_steps (`int`, defaults to 100):
            Steps of the training of the second iteration's tokenizer.
        labelled_per_class (`int`, defaults to 3):
            Clips of each class to learn the classes from.
        held_out_per_class (`int`, defaults to 20):
            Clips of each class for the accuracy.
        draws (`int`, defaults to 3):
            How often that is repeated, each time with other labelled clips.
        fine_tuning_steps (`int`, defaults to 60):
            Steps of every fine-tuning.
        seed (`int`, defaults to 0):
            Of all sounds and trainings.
    """

    clips_per_class: int = 60
    model_steps: int = 300
    tokenizer_steps: int = 100
    labelled_per_class: int = 3
    held_out_per_class: int = 20
    draws: int = 3
    fine_tuning_steps: int = 60
    seed: int = 0


@dataclass
class Accuracies:
    """
    On the held-out clips, one for each draw of the labelled ones.

    Args:
        probed (`list[float]`):
            Of a linear classifier on the frozen encoder.
        fine_tuned (`list[float]`):
            Of the whole model after fine-tuning.
    """

    probed: list[float] = field(default_factory=list)
    fine_tuned: list[float] = field(default_factory=list)


def write_sounds(directory: Path, settings: PretrainingSettings) -> None:
    """WAV files of all classes, without their labels, unless they are there. They appear all at once."""
    if directory.exists():
        return
    directory.parent.mkdir(parents=True, exist_ok=True)
    with work_directory(directory.parent, ".sounds-") as work:
        for index, row in enumerate(make_dataset(settings.clips_per_class, settings.seed).with_format("numpy")):
            soundfile.write(work / f"sound-{index:04d}.wav", row["audio"], SAMPLING_RATE)
        work.rename(directory)


def build_recipe(run: Path, settings: PretrainingSettings) -> dict[str, Any]:
    """Returns a recipe of `transformers_beats.training.iterate`; that named `folder_iterate` explains the keys."""
    # Their number and seed are in the name, so that a run with others has another recipe.
    sounds = run / f"sounds-{settings.clips_per_class}-per-class-seed-{settings.seed}"
    encoder = {name: getattr(build_model().config, name) for name in ENCODER_KEYS}
    training = {
        "per_device_train_batch_size": 32,
        "learning_rate": 1e-3,
        "warmup_steps": 0.1,
        # A share of the steps, as `warmup_steps`.
        "logging_steps": 0.05,
        "save_steps": 100,
        "seed": settings.seed,
    }
    return {
        "output_dir": str(run),
        "num_iterations": NUM_ITERATIONS,
        "data": {"dataset": str(sounds), "crop_seconds": CROP_SECONDS},
        "random_projection": {"codebook_size": 512, "seed": settings.seed},
        "model": {
            **training,
            "model_config": {**encoder, "label_predictor_num_hidden_layers": 1},
            "max_steps": settings.model_steps,
        },
        "tokenizer": {
            **training,
            "model_config": {
                **encoder,
                "codebook_size": 256,
                "estimator_num_hidden_layers": 1,
                "dead_code_threshold": 1.0,
            },
            "max_steps": settings.tokenizer_steps,
            # All patches go through the encoder, and not a quarter of them.
            "per_device_train_batch_size": 16,
        },
        "tokenize": {"batch_size": 32},
    }


@contextmanager
def quiet_loading() -> Generator[None, None, None]:
    """
    Leaves out transformers' bar and its table of missing weights: that the classifier is new needs no warning, and
    there would be one for each fine-tuning.
    """
    verbosity, shows_bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if shows_bars:
            logging.enable_progress_bar()


def fine_tune(
    source: Path | None, train: Dataset, held_out: Dataset, settings: PretrainingSettings, seed: int, work: Path
) -> float:
    """Accuracy on the held-out clips after fine-tuning a pre-trained model, or a new one if `source` is None."""
    set_seed(seed)
    model = build_model()
    if source is not None:
        labels = {name: getattr(model.config, name) for name in ("id2label", "label2id", "problem_type")}
        with quiet_loading():
            model = BeatsForAudioClassification.from_pretrained(source, **labels)
    trainer = build_trainer(
        model,
        work,
        train,
        held_out,
        max_steps=settings.fine_tuning_steps,
        per_device_train_batch_size=10,
        logging_strategy="no",
        disable_tqdm=True,
        seed=seed,
    )
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    return trainer.evaluate()["eval_accuracy"]


def prepare_run(run: Path, recipe: dict[str, Any]) -> Path:
    """
    The directory of a run, with its recipe. One of another recipe is replaced by an empty one: what it holds would not
    fit. One of the same recipe is left alone, and `iterate` goes on with it.

    Returns:
        `Path`: the recipe's file, which `transformers-beats iterate --config` reads.
    """
    path, text = run / RECIPE, yaml.safe_dump(recipe, sort_keys=False)
    if not path.is_file() or path.read_text(encoding="utf-8") != text:
        with work_directory(run.parent, ".pretraining-") as work:
            (work / "new").mkdir()
            (work / "new" / RECIPE).write_text(text, encoding="utf-8")
            replace_directory(work / "new", run)
    return path


@torch.no_grad()
def pooled_features(source: Path | None, clips: Dataset, seed: int) -> np.ndarray:
    """Mean hidden state of every clip, `(num_clips, hidden_size)`, of a frozen encoder."""
    set_seed(seed)
    extractor = BeatsFeatureExtractor()
    with quiet_loading():
        encoder = build_model().beats if source is None else BeatsModel.from_pretrained(source)
    encoder.eval()
    pooled = []
    for batch in clips.iter(batch_size=32):
        fbanks = [{"input_values": fbank.numpy()} for fbank in batch["input_values"]]
        inputs = extractor.pad(fbanks, return_tensors="pt")
        outputs = encoder(inputs["input_values"], attention_mask=inputs["attention_mask"])
        pooled.append(outputs.pooler_output.numpy())
    return np.concatenate(pooled)


def compare_starts(
    models: dict[str, Path | None], settings: PretrainingSettings, work: Path, console: Console
) -> dict[str, Accuracies]:
    """What each model, or an untrained one for None, gives on the held-out clips with few labelled ones."""
    extractor = BeatsFeatureExtractor()
    # The unlabelled clips have the seed itself, so all sounds differ.
    held_out = featurize(make_dataset(settings.held_out_per_class, settings.seed + 1), extractor)
    labelled = featurize(make_dataset(settings.labelled_per_class * settings.draws, settings.seed + 2), extractor)
    size = len(labelled) // settings.draws
    # Classes alternate, so that every slice has as many clips of each.
    draws = [range(draw * size, (draw + 1) * size) for draw in range(settings.draws)]
    labels, held_out_labels = np.array(labelled["label"]), np.array(held_out["label"])
    found = {name: Accuracies() for name in models}
    for name, source in models.items():
        features, held_out_features = (pooled_features(source, clips, settings.seed) for clips in (labelled, held_out))
        for rows in draws:
            probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
            probe.fit(features[rows], labels[rows])
            found[name].probed.append(float(probe.score(held_out_features, held_out_labels)))
    runs = [(name, draw, rows) for draw, rows in enumerate(draws) for name in models]
    for name, draw, rows in track(runs, "Fine-tuning", console=console):
        train = labelled.select(rows)
        accuracy = fine_tune(models[name], train, held_out, settings, settings.seed + draw, work)
        found[name].fine_tuned.append(accuracy)
    return found


def format_accuracies(values: list[float]) -> str:
    """Mean and, of several values, standard deviation."""
    spread = f" ± {np.std(values, ddof=1):.1%}" if len(values) > 1 else ""
    return f"{np.mean(values):.1%}{spread}"


def build_table(found: dict[str, Accuracies], logs: dict[str, dict[str, Any]]) -> Table:
    """A column for each start: its accuracies, and what the pre-training behind it logged last."""
    table = Table("", box=SIMPLE_HEAD)
    for name in found:
        table.add_column(name, justify="right")
    table.add_row("Linear probe, accuracy", *(format_accuracies(accuracies.probed) for accuracies in found.values()))
    table.add_row("Fine-tuned, accuracy", *(format_accuracies(accuracies.fine_tuned) for accuracies in found.values()))
    for title, key, form in LOGGED:
        table.add_row(title, *(format(logs[name][key], form) if name in logs else "-" for name in found))
    return table


def describe_table(settings: PretrainingSettings) -> str:
    """What is in the rows, in lines of at most 80 characters."""
    num_labelled, num_held_out = (n * len(CLASSES) for n in (settings.labelled_per_class, settings.held_out_per_class))
    return (
        f"Accuracies: with {num_labelled} labelled clips, on {num_held_out} held-out ones; mean and standard\n"
        f"deviation over {settings.draws} draws of the labelled clips. The linear probe is a logistic\n"
        "regression on what the frozen encoder makes of a clip; from scratch, the encoder\n"
        "is random. Unigram entropy: what guessing by the frequency of the codes would\n"
        "cost. Each iteration has codes of its own: compare the two within a column."
    )


def run_pretraining(output: Path, settings: PretrainingSettings, console: Console) -> None:
    """
    Pre-trains, compares each iteration with an untrained model, prints a table and draws the learning curves.
    What an earlier call has pre-trained with the same settings and sounds is taken as it is.

    Args:
        output (`Path`):
            An existing directory. The run goes to `pretraining/` in it, the picture beside that.
        settings ([`PretrainingSettings`]):
            Size, length and seed.
        console (`Console`):
            Where to print.

    Raises:
        [`DemoError`]: if the second tokenizer's codebook collapses.
    """
    run = output.resolve() / "pretraining"
    num_sounds = settings.clips_per_class * len(CLASSES)
    recipe = prepare_run(run, build_recipe(run, settings))
    (arguments,) = parse_arguments((IterateArguments,), ["--config", str(recipe)])
    console.print(f"Pre-training on {num_sounds} synthesised sounds without labels, in {NUM_ITERATIONS} iterations.")
    write_sounds(Path(arguments.data["dataset"]), settings)
    try:
        iterate(arguments)
    except CodebookCollapseError as error:
        raise DemoError(f"{error} Or try another --seed.") from error
    models = {f"iteration {n}": run / f"iteration-{n}" / "model" for n in range(1, NUM_ITERATIONS + 1)}
    histories = {name: read_log_history(model) for name, model in models.items()}
    picture = output / CURVES
    draw_curves(histories, picture)

    with work_directory(output, ".fine-tuning-") as work:
        found = compare_starts({"from scratch": None, **models}, settings, work, console)
    console.print(build_table(found, {name: entries[-1] for name, entries in histories.items()}))
    console.print(describe_table(settings), markup=False)
    console.print(f"Models and recipe: {run}\nLearning curves: {picture}", markup=False, soft_wrap=True)


__all__ = ["PretrainingSettings", "run_pretraining"]
