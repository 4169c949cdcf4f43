# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""
What pre-training on four folds of ESC-10 without labels is worth on the fifth:

    python -m benchmarks.pretraining_esc10 --dataset ESC10 --output runs/esc10 [--key value ...]

For every fold: pre-training as in the recipe `esc10_iterate` (`--key value` changes it, such as
`--model.max_steps 100`), and a linear probe of each encoder; for every seed: fine-tuning as in `esc10_finetune`, from
scratch and from the model of each iteration. What is done already is not done again.
"""

from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from rich.console import Console
from rich.table import Table

from transformers_beats.training.config.iterations import IterateArguments
from transformers_beats.training.config.recipes import parse_arguments
from transformers_beats.training.finetune import FINETUNE_ARGUMENTS, Arguments, finetune
from transformers_beats.training.iterate import iterate
from transformers_beats.training.reports.curves import read_log_history


NUM_FOLDS = 5
# Columns of the table of pre-training, by their keys in the log.
LOGGED = {
    "loss": "cross-entropy (nats)",
    "code_entropy": "entropy of the codes (nats)",
    "accuracy": "masked-code accuracy",
    "code_perplexity": "perplexity of the codes",
    "codes_alive": "codes in use",
}


def pretrain(dataset: str, directory: Path, fold: int, seed: int, overrides: list[str]) -> int:
    """Pre-trains on all folds but one; returns the number of iterations."""
    others = [other for other in range(1, NUM_FOLDS + 1) if other != fold]
    words = ["--config", "esc10_iterate", f"--data.dataset={dataset}", f"--data.select.fold={others}"]
    words += [f"--output_dir={directory}"]
    words += [f"--{stage}.seed={seed}" for stage in ("model", "tokenizer", "random_projection")]
    (arguments,) = parse_arguments((IterateArguments,), [*words, *overrides])
    iterate(arguments)
    return arguments.num_iterations


def accuracies(output: Path, metric: str, folds: list[int], **values: object) -> list[float]:
    """Fine-tunes on each fold, or reads what an earlier call has written to `output`; returns a metric of each."""
    words = [f"--{name}={value}" for name, value in {**values, "folds": folds, "output_dir": output}.items()]
    arguments = parse_arguments(FINETUNE_ARGUMENTS, ["--config", "esc10_finetune", *words])
    return [metrics[metric] for metrics in finetune(Arguments(*arguments))["folds"].values()]


def describe(values: list[float]) -> str:
    """Mean and, of several values, standard deviation; then each."""
    spread = f" ± {np.std(values, ddof=1):.1%}" if len(values) > 1 else ""
    return f"{np.mean(values):.1%}{spread} ({', '.join(f'{value:.1%}' for value in values)})"


def print_pretraining(console: Console, models: list[Path]) -> None:
    """Prints what every model had learned of its codes at the end, over the steps of the last log."""
    table = Table("model", "steps", *LOGGED.values(), title="Pre-training, last log")
    for model in models:
        last = read_log_history(model)[-1]
        table.add_row(str(model.parent), str(last["step"]), *(f"{last[key]:.3f}" for key in LOGGED))
    console.print(table)


def main(
    context: typer.Context,
    dataset: Annotated[str, typer.Option(help="Folder of ESC-10, with metadata.csv")] = "esc10",
    output: Annotated[Path, typer.Option(help="Where models and results go")] = Path("runs/esc10"),
    name: Annotated[str, typer.Option(help="Name of a variant of the recipe")] = "recipe",
    folds: Annotated[str, typer.Option(help="Folds to test on")] = "1,2",
    seeds: Annotated[str, typer.Option(help="Seeds of fine-tuning, for each of which there is a run")] = "0,1",
    pretraining_seed: Annotated[int, typer.Option(help="Seed of pre-training")] = 0,
    learning_rate: Annotated[float, typer.Option(help="Learning rate from a pre-trained model")] = 5e-4,
    scratch_learning_rate: Annotated[float, typer.Option(help="Learning rate from scratch; 0 leaves it out")] = 1e-3,
    threads: Annotated[int, typer.Option(help="Threads; 0 for all")] = 0,
) -> None:
    """Measures what pre-training is worth on ESC-10."""
    if threads:
        torch.set_num_threads(threads)
    test_folds = [int(fold) for fold in folds.split(",")]
    run = f"{name}-fold{{fold}}-seed{pretraining_seed}"
    for fold in test_folds:
        num_iterations = pretrain(dataset, output / run.format(fold=fold), fold, pretraining_seed, context.args)
    starts = {"scratch": (scratch_learning_rate, "")} if scratch_learning_rate else {}
    for number in range(1, num_iterations + 1):
        starts[f"iteration-{number}"] = (learning_rate, str(output / run / f"iteration-{number}" / "model"))

    table = Table("start", "linear probe", "fine-tuned", title="ESC-10, accuracy on the fold left out")
    for start, (rate, model) in starts.items():
        results = output / "results" / f"{name}-seed{pretraining_seed}-{start}"
        # A pre-trained model has a configuration of its own.
        values = {"dataset": dataset}
        if model:
            values |= {"model_name_or_path": model, "model_config": "null"}
        probe = results.with_name(f"{results.name}-probe")
        probed = accuracies(probe, "accuracy", test_folds, **values, freeze="true")
        tuned = []
        for seed in seeds.split(","):
            directory = results.with_name(f"{results.name}-{seed}")
            tuned += accuracies(directory, "accuracy", test_folds, **values, seed=seed, learning_rate=rate)
        table.add_row(start, describe(probed), describe(tuned))
    console = Console(width=140)
    console.print(table)
    print_pretraining(console, sorted(output.glob(f"{name}-*/iteration-*/model")))


if __name__ == "__main__":
    app = typer.Typer()
    # What it does not know is for the recipe.
    app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})(main)
    app()
