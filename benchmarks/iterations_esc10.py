# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""
Whether iterations of pre-training pay, on ESC-10:

    python -m benchmarks.iterations_esc10 --dataset ESC10 --output runs/iterations --threads 1

The protocol, fixed before the first run. A unit is a test fold and a seed; there are five folds and three seeds. In a
unit, models of the size of the recipe `esc10_iterate` are pre-trained on the other four folds without labels:

- `iteration 1`: from random weights, on the codes of a random projection (1,024);
- `iteration 2`: from the encoder of iteration 1, on 256 codes of a tokenizer that is distilled from it: from its
  weights, with an estimator of each patch alone and a commitment weight of 256;
- `iteration 3`: the same again, from iteration 2;
- `iteration 1, continued`: from the encoder of iteration 1, on its own codes: the compute of iteration 2 without its
  codes;
- `k-means`: from the encoder of iteration 1, on 256 clusters of its outputs (`--tokenizer.method k_means`);
- `k-means, again`: the same again, from `k-means`.

Seed 0 was run with the first five. It decided what seeds 1 and 2 are to confirm, before these were run (30 November
2026): k-means in the place of the distilled tokenizer, so `iteration 2` and `iteration 3` are left out of them, and
`k-means, again` was added. Clusters of seed 0 are of all patches, later ones of as many as `train-tokenizer` draws. A
difference is that of the units that have both models; `--models` names those of a run.

Each has the same number of steps. `random weights` are those that iteration 1 starts from. The measure is the accuracy
on the test fold of a logistic regression on the last layer's mean over the patches, which learns from five clips of
each class (the mean of 20 draws, the same for all models); beside it from one, and from all 32. Differences are paired
by clip; their intervals are bootstraps over the 400 clips of the mean over the seeds.

Whether 600 steps of four layers of 128 decide the answer is asked of seed 0 and folds 1 and 2 (fixed on 1 December
2026, before the first of these runs): `iteration 1` alone with 150 to 2,400 steps, with eight layers, and with a width
of 256 (`--steps`, `--layers`, `--width`, each with ROWS of its own in `rows/iterations_esc10_sizes`); then, with the
steps after which its probe rises no more, or 2,400, `k-means` and `iteration 1, continued` with as many again.

A finished unit is a file in ROWS, and is not computed again; with other settings it is refused. What is unfinished in
OUTPUT goes on.
"""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import datasets
import numpy as np
import torch
import typer
from rich.console import Console
from rich.table import Table
from scipy.stats import bootstrap
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits
from transformers import set_seed

from transformers_beats import BeatsFeatureExtractor, BeatsForPreTraining
from transformers_beats.inference.windowed import WindowedInference
from transformers_beats.training.compute_codes import DESCRIPTION, load_codes, tokenize
from transformers_beats.training.config.arguments import (
    PRETRAIN_ARGUMENTS,
    TOKENIZE_ARGUMENTS,
    TRAIN_TOKENIZER_ARGUMENTS,
)
from transformers_beats.training.config.iterations import IterateArguments
from transformers_beats.training.config.recipes import build_arguments, merge, parse_arguments
from transformers_beats.training.data.sources import DataArguments
from transformers_beats.training.iterate import save_random_projection
from transformers_beats.training.pretrain import build_model, pretrain
from transformers_beats.training.reports.codes import perplexity
from transformers_beats.training.train_tokenizer import train_tokenizer
from transformers_beats.utils.files import new_directory, replace_file
from transformers_beats.utils.resume import begin_or_resume, check_settings


FOLDS = range(1, 6)
ROWS = Path(__file__).parent / "rows" / "iterations_esc10"
NUM_CODES = 256
# What changes in the tokenizer of the recipe.
TOKENIZERS: dict[str, dict[str, Any]] = {
    "distilled": {
        "initialize_from_teacher": True,
        "model_config": {"codebook_size": NUM_CODES, "commitment_weight": 256.0, "estimator_num_hidden_layers": 0},
    },
    "k-means": {"method": "k_means", "model_config": {"codebook_size": NUM_CODES}},
}
# The model that each starts from, and the codes that it learns.
RANDOM, FIRST = "random weights", "iteration 1"
MODELS = {
    FIRST: (None, "random projection"),
    "iteration 1, continued": (FIRST, "random projection"),
    "k-means": (FIRST, "k-means"),
    "iteration 2": (FIRST, "distilled"),
    "iteration 3": ("iteration 2", "distilled"),
    "k-means, again": ("k-means", "k-means"),
}
CONFIRMED = (FIRST, "iteration 1, continued", "k-means", "k-means, again")
DIFFERENCES = [
    (FIRST, RANDOM),
    ("iteration 1, continued", FIRST),
    ("k-means", FIRST),
    ("k-means", "iteration 1, continued"),
    ("k-means, again", "k-means"),
    ("k-means, again", FIRST),
    ("iteration 2", FIRST),
    ("iteration 2", "iteration 1, continued"),
    ("iteration 3", "iteration 2"),
]
# Clips of each class to learn from; None for all. The first is the measure.
SHOTS = (5, 1, None)
NUM_DRAWS = 20


def place_of(output: Path, name: str) -> Path:
    """Returns the directory of a model of a unit."""
    return output / name.replace(",", "").replace(" ", "-")


# Pre-training


def make_arguments(dataset: str, output: Path, fold: int, seed: int, settings: dict[str, Any]) -> IterateArguments:
    """Returns the recipe `esc10_iterate` for a unit, with float32, so that CPUs of all kinds compute the same."""
    others = [other for other in FOLDS if other != fold]
    words = ["--config", "esc10_iterate", f"--data.dataset={dataset}", f"--data.select.fold={others}"]
    words += [f"--output_dir={output}", f"--random_projection.seed={seed}"]
    words += [f"--{stage}.seed={seed}" for stage in ("model", "tokenizer")]
    words += [f"--{stage}.bf16=false" for stage in ("model", "tokenizer", "tokenize")]
    words += [
        f"--model.max_steps={settings['steps']}",
        f"--tokenizer.max_steps={settings['tokenizer_steps']}",
        f"--model.learning_rate={settings['learning_rate']}",
    ]
    for name, value in settings.get("model_config", {}).items():
        words += [f"--{stage}.model_config.{name}={value}" for stage in ("model", "tokenizer")]
    # 16 clips of 5 s.
    words += ["--model.batch_seconds=80", "--model.per_device_train_batch_size=16", "--model.logging_steps=0.1"]
    (arguments,) = parse_arguments((IterateArguments,), words)
    return arguments


def make_codes(arguments: IterateArguments, name: str, output: Path, seed: int) -> Path:
    """Computes the codes that a model learns, or returns those that are there."""
    teacher, kind = MODELS[name]
    if kind == "random projection":
        name = FIRST
    place = place_of(output, name)
    codes, tokenizer = place / "codes", place / "tokenizer"
    if (codes / DESCRIPTION).exists():
        return codes
    if not tokenizer.exists():
        if kind == "random projection":
            save_random_projection(arguments, tokenizer)
        else:
            values = arguments.stage_values(
                "tokenizer", teacher=str(place_of(output, str(teacher)) / "model"), output_dir=str(tokenizer)
            )
            merge(values, TOKENIZERS[kind])
            train_tokenizer(*build_arguments(TRAIN_TOKENIZER_ARGUMENTS, values))
    values = arguments.stage_values("tokenize", tokenizer=str(tokenizer), output_dir=str(codes))
    tokenize(*build_arguments(TOKENIZE_ARGUMENTS, values))
    return codes


def make_model(arguments: IterateArguments, name: str, output: Path, seed: int) -> tuple[Path, dict[str, float]]:
    """Pre-trains a model, or returns what is there, with the perplexity of its codes and its last loss."""
    start, _ = MODELS[name]
    codes = make_codes(arguments, name, output, seed)
    model = place_of(output, name) / "model"
    if not model.exists():
        first: dict[str, Any] = {} if start is None else {"model_name_or_path": str(place_of(output, start) / "model")}
        values = arguments.stage_values("model", codes=str(codes), output_dir=str(model), **first)
        values["new_label_predictor"] = start is not None
        pretrain(*build_arguments(PRETRAIN_ARGUMENTS, values))
    (data,) = build_arguments((DataArguments,), arguments.data)
    stored, description = load_codes(str(codes), data)
    flat = np.concatenate([np.asarray(each).ravel() for each in stored["codes"]]).astype(np.int64)
    history = json.loads((model / "log_history.json").read_text(encoding="utf-8"))
    last = [entry for entry in history if "loss" in entry][-1]
    return model, {"perplexity": perplexity(flat, description["codebook_size"]), "loss": last["loss"]}


def make_random(arguments: IterateArguments, output: Path, seed: int) -> Path:
    """Writes the weights that the first iteration starts from."""
    place = place_of(output, RANDOM)
    if not place.exists():
        values = arguments.stage_values("model", codes="codes", output_dir=str(place))
        set_seed(seed)
        model: BeatsForPreTraining = build_model(build_arguments(PRETRAIN_ARGUMENTS, values)[0], 1024)
        with new_directory(place) as new:
            model.save_pretrained(new)
            BeatsFeatureExtractor().save_pretrained(new)
    return place


# Probes


def embed(model: Path, files: list[Path]) -> np.ndarray:
    """Computes the means over the patches of the last layer, `(num_clips, hidden_size)`."""
    inference = WindowedInference.from_pretrained(str(model))
    return np.stack(list(inference.embed_many(files)))


def draw(labels: np.ndarray, shots: int | None, seed: int) -> Iterator[np.ndarray]:
    """Yields the clips that a probe learns from, at each draw."""
    generator = np.random.default_rng(seed)
    for _ in range(1 if shots is None else NUM_DRAWS):
        if shots is None:
            yield np.arange(len(labels))
        else:
            of_classes = [np.flatnonzero(labels == label) for label in np.unique(labels)]
            yield np.concatenate([generator.choice(clips, shots, replace=False) for clips in of_classes])


def probe(values: np.ndarray, labels: np.ndarray, is_test: np.ndarray, seed: int) -> dict[str, list[float]]:
    """Returns the share of the draws in which each clip of the test is right, by the number of shots."""
    found = {}
    train, test = np.flatnonzero(~is_test), np.flatnonzero(is_test)
    for shots in SHOTS:
        right = []
        for drawn in draw(labels[train], shots, seed):
            classifier = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
            with threadpool_limits(1):
                classifier.fit(values[train[drawn]], labels[train[drawn]])
                right.append(classifier.predict(values[test]) == labels[test])
        found[str(shots)] = np.mean(right, axis=0).round(4).tolist()
    return found


def run_unit(
    arguments: IterateArguments, dataset: str, output: Path, fold: int, seed: int, models: Sequence[str]
) -> dict[str, Any]:
    """Trains and probes the models of a unit; what is there is not trained again."""
    table = datasets.load_dataset("csv", data_files=str(Path(dataset) / "metadata.csv"), split="train")
    files = [Path(dataset) / name for name in table["file_name"]]
    labels, is_test = np.array(table["label"]), np.array(table["fold"]) == fold
    row: dict[str, Any] = {"clips": [name for name, tested in zip(table["file_name"], is_test) if tested]}
    for name in (RANDOM, *models):
        if name == RANDOM:
            model, facts = make_random(arguments, output, seed), {}
        else:
            model, facts = make_model(arguments, name, output, seed)
        row[name] = facts | {"right": probe(embed(model, files), labels, is_test, 100 * fold + seed)}
    return row


# The table


def choose_units(rows: dict[tuple[int, int], dict[str, Any]], *names: str) -> tuple[list[int], list[int]]:
    """
    Returns folds and seeds of the units that have all these models: of the seeds that have all folds or, before one
    has, of the first seed.
    """
    rows = {unit: row for unit, row in rows.items() if all(name in row for name in names)}
    seeds = sorted({seed for _, seed in rows})
    complete = [seed for seed in seeds if all((fold, seed) in rows for fold in FOLDS)] or seeds[:1]
    return [fold for fold in FOLDS if complete and all((fold, seed) in rows for seed in complete)], complete


def collect(
    rows: dict[tuple[int, int], dict[str, Any]], name: str, measure: str, folds: list[int], seeds: list[int]
) -> np.ndarray:
    """Returns how often each clip is right by a measure, the mean over the seeds."""
    return np.concatenate(
        [np.mean([rows[fold, seed][name]["right"][measure] for seed in seeds], axis=0) for fold in folds]
    )


def interval(values: np.ndarray) -> tuple[float, float]:
    """Computes the 95 % interval of a mean over clips by the bootstrap (BCa)."""
    found = bootstrap((values,), np.mean, n_resamples=5000, rng=np.random.default_rng(0))
    return found.confidence_interval.low, found.confidence_interval.high


def read_rows(directory: Path) -> dict[tuple[int, int], dict[str, Any]]:
    """Reads the finished units of a directory, by fold and seed."""
    units = [json.loads(file.read_text(encoding="utf-8")) for file in sorted(directory.glob("*.json"))]
    return {(unit["fold"], unit["seed"]): unit for unit in units}


def print_tables(rows: dict[tuple[int, int], dict[str, Any]], measures: dict[str, str], title: str) -> None:
    """Prints accuracies and differences by measures, which are keys of the rows with their names."""
    table = Table("model", "folds", "seeds", *measures.values(), title=title)
    for name in (RANDOM, *MODELS):
        folds, seeds = choose_units(rows, name)
        if folds:
            values = [collect(rows, name, measure, folds, seeds) for measure in measures]
            table.add_row(name, str(folds), str(seeds), *(f"{np.mean(value):.1%}" for value in values))
    differences = Table("difference, points", "folds", "seeds", *measures.values(), title="95 % intervals over clips")
    for first, second in DIFFERENCES:
        folds, seeds = choose_units(rows, first, second)
        cells = []
        for measure in measures if folds else ():
            values = 100 * (collect(rows, first, measure, folds, seeds) - collect(rows, second, measure, folds, seeds))
            low, high = interval(values)
            cells.append(f"{values.mean():+.1f} ({low:+.1f} to {high:+.1f})")
        if cells:
            differences.add_row(f"{first} - {second}", str(folds), str(seeds), *cells)
    console = Console(width=140)
    console.print(table)
    console.print(differences)


def size_of(layers: int, width: int) -> dict[str, Any]:
    """Returns what models of another size than that of the recipe, four layers of 128, change in its settings."""
    if (layers, width) == (4, 128):
        return {}
    sizes = {"num_hidden_layers": layers, "hidden_size": width, "intermediate_size": 4 * width}
    return {"model_config": sizes | {"num_attention_heads": width // 64}}


def main(
    dataset: Annotated[str, typer.Option(help="Folder of ESC-10, with metadata.csv")] = "esc10",
    output: Annotated[Path, typer.Option(help="Where models go")] = Path("runs/iterations"),
    rows: Annotated[Path, typer.Option(help="Where results go")] = ROWS,
    folds: Annotated[str, typer.Option(help="Folds to test on")] = "1,2,3,4,5",
    seeds: Annotated[str, typer.Option(help="Seeds, each of which is a run of all folds")] = "0,1,2",
    models: Annotated[str, typer.Option(help="Models of a unit, with ; between them")] = "; ".join(CONFIRMED),
    steps: Annotated[int, typer.Option(help="Steps of each model")] = 600,
    tokenizer_steps: Annotated[int, typer.Option(help="Steps of each tokenizer")] = 150,
    learning_rate: Annotated[float, typer.Option(help="Peak learning rate of the models")] = 1e-3,
    layers: Annotated[int, typer.Option(help="Layers of the models")] = 4,
    width: Annotated[int, typer.Option(help="Hidden size of the models, a multiple of 64")] = 128,
    threads: Annotated[int, typer.Option(help="Threads; 0 for all")] = 0,
) -> None:
    """Measures what each iteration adds."""
    if threads:
        torch.set_num_threads(threads)
    datasets.disable_progress_bars()
    names = [name.strip() for name in models.split(";")]
    if unknown := [name for name in names if name not in MODELS]:
        raise typer.BadParameter(f"{unknown[0]!r} is none of: {'; '.join(MODELS)}.")
    settings = {"steps": steps, "tokenizer_steps": tokenizer_steps, "learning_rate": learning_rate}
    settings |= size_of(layers, width)
    begin_or_resume(output / "settings.json", settings | {"dataset": dataset}, output)
    for seed in map(int, seeds.split(",")):
        for fold in map(int, folds.split(",")):
            file = rows / f"seed{seed}-fold{fold}.json"
            if file.exists():
                check_settings(json.loads(file.read_text(encoding="utf-8"))["settings"], settings, f"{file}: a unit")
                continue
            place = output / file.stem
            arguments = make_arguments(dataset, place, fold, seed, settings)
            row = run_unit(arguments, dataset, place, fold, seed, names)
            rows.mkdir(parents=True, exist_ok=True)
            with replace_file(file) as temporary:
                temporary.write_text(
                    json.dumps({"fold": fold, "seed": seed, "settings": settings} | row), encoding="utf-8"
                )
    measures = {str(shots): "all" if shots is None else str(shots) for shots in SHOTS}
    print_tables(read_rows(rows), measures, "Accuracy, by clips of each class to learn from")


if __name__ == "__main__":
    typer.run(main)
