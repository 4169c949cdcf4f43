# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""
Whether iterations of pre-training pay for an attentive probe and for fine-tuning, on ESC-10:

    python -m benchmarks.iterations_heads --dataset ESC10 --models runs/iterations --output runs/heads --threads 1

The protocol, fixed before the first run. The models are those that `benchmarks.iterations_esc10` has pre-trained on
four folds, of seed 2, which has not decided anything; each is measured on the fifth, by two ways that use all 32 clips
of each class:

- `attentive`: the probe of that name on the last layer, with the defaults of `probe`;
- `fine-tuned`: the recipe `esc10_finetune`, in float32, with the learning rate of 5e-4 that docs/finetuning.md has for
  pre-trained models; `random weights` have the recipe's own of 1e-3.

Changed after the first fine-tuning of the first fold, from random weights, had taken eight minutes: of the five models
only the first, the first iteration and the last are fine-tuned.

Added when seed 2 was complete (1 December 2026): seeds 1 and 0 by the same, so that all three seeds of
`iterations_esc10` are measured. Their models are pre-trained again, on another CPU than the rows there are of. A seed
counts in the tables once all of its folds are there. The linear probes of these models of seed 0 are in
`rows/iterations_esc10_again`.

The seed of both is that of the unit. The model after the last step is evaluated, once. Differences and intervals are
those of `iterations_esc10`. A finished unit is a file in ROWS and not computed again; of others, OUTPUT has parts.
"""

from functools import partial
from pathlib import Path
from typing import Annotated, Any

import datasets
import torch
import typer

from transformers_beats.training.config.arguments import FINETUNE_ARGUMENTS, Arguments
from transformers_beats.training.config.recipes import parse_arguments
from transformers_beats.training.finetune import finetune

from .iterations_esc10 import CONFIRMED, FIRST, RANDOM, place_of, print_tables, read_rows
from .resuming import read_or_compute, read_right


ROWS = Path(__file__).parent / "rows" / "iterations_heads"
MEASURES = {
    "attentive": ["--config=folder_probe", "--freeze=true", "--probe=attentive", "--num_folds=null"],
    "fine-tuned": ["--config=esc10_finetune", "--model_config=null", "--bf16=false"],
}
TUNED = (RANDOM, FIRST, "k-means, again")
RATES = {RANDOM: 1e-3}
RATE = 5e-4


def measure(dataset: str, model: Path, output: Path, fold: int, seed: int, words: list[str]) -> list[int]:
    """Returns which clips of a fold are right, in the order of their names."""
    words = [*words, f"--dataset={dataset}", f"--model_name_or_path={model}", f"--output_dir={output}"]
    words += ["--label_column=label", "--fold_column=fold", f"--folds=[{fold}]", "--crop_seconds=5"]
    words += ["--cache_audio=true", f"--seed={seed}", "--disable_tqdm=true"]
    finetune(Arguments(*parse_arguments(FINETUNE_ARGUMENTS, words)), prints=False)
    return [*read_right(output / f"fold-{fold}" / "evaluation").values()]


def run_unit(dataset: str, models: Path, output: Path, fold: int, seed: int) -> dict[str, Any]:
    """Measures the models of a unit."""
    row: dict[str, Any] = {"fold": fold, "seed": seed}
    for name in (RANDOM, *CONFIRMED):
        place = place_of(models, name)
        model = place if name == RANDOM else place / "model"
        row[name] = {"right": {}}
        for way, words in MEASURES.items():
            if way == "fine-tuned":
                if name not in TUNED:
                    continue
                words = [*words, f"--learning_rate={RATES.get(name, RATE)}"]
            row[name]["right"][way] = measure(dataset, model, place_of(output, name) / way, fold, seed, words)
    return row


def main(
    dataset: Annotated[str, typer.Option(help="Folder of ESC-10, with metadata.csv")] = "esc10",
    models: Annotated[Path, typer.Option(help="OUTPUT of iterations_esc10")] = Path("runs/iterations"),
    output: Annotated[Path, typer.Option(help="Where classifiers go")] = Path("runs/heads"),
    rows: Annotated[Path, typer.Option(help="Where results go")] = ROWS,
    folds: Annotated[str, typer.Option(help="Folds to test on; '' prints the rows")] = "1,2,3,4,5",
    seed: Annotated[int, typer.Option(help="Seed of the units")] = 2,
    threads: Annotated[int, typer.Option(help="Threads; 0 for all")] = 0,
) -> None:
    """Measures what each iteration adds to an attentive probe and to fine-tuning."""
    if threads:
        torch.set_num_threads(threads)
    datasets.disable_progress_bars()
    rows.mkdir(parents=True, exist_ok=True)
    for fold in map(int, filter(None, folds.split(","))):
        unit = f"seed{seed}-fold{fold}"
        compute = partial(run_unit, dataset, models / unit, output / unit, fold, seed)
        read_or_compute(rows / f"{unit}.json", compute)
    # Of all models, and of those that have both.
    units, title = read_rows(rows), "Accuracy, all clips to learn from"
    print_tables(units, {"attentive": "attentive"}, title)
    tuned = {unit: {name: row[name] for name in TUNED} for unit, row in units.items()}
    print_tables(tuned, {way: way for way in MEASURES}, title)


if __name__ == "__main__":
    typer.run(main)
