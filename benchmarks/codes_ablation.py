# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""
What decides whether codes are worth learning, by the diagnosis of `diagnose-codes`, on folds 2 to 5 of ESC-10:

    python -m benchmarks.codes_ablation --dataset ESC10 --output runs/codes --threads 1

A teacher, the model of a short first iteration of the recipe `esc10_iterate`; then rows: its random projection,
k-means on its outputs, and tokenizers that are distilled from it with one setting changed at a time. Every row is a
JSON file in OUTPUT/rows; what is there is not computed again, and OUTPUT is refused for other arguments.
"""

import copy
import json
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.console import Console
from rich.table import Table

from benchmarks.resuming import read_or_compute
from transformers_beats import BeatsFeatureExtractor, BeatsRandomProjectionTokenizer
from transformers_beats import BeatsRandomProjectionTokenizerConfig as RandomProjectionConfig
from transformers_beats.training.config.arguments import TRAIN_TOKENIZER_ARGUMENTS, DiagnosisArguments
from transformers_beats.training.config.iterations import IterateArguments
from transformers_beats.training.config.recipes import build_arguments, merge, parse_arguments
from transformers_beats.training.data.labels import LabelArguments
from transformers_beats.training.data.sources import DataArguments
from transformers_beats.training.diagnose_codes import diagnose
from transformers_beats.training.iterate import iterate
from transformers_beats.training.train_tokenizer import train_tokenizer
from transformers_beats.utils.resume import begin_or_resume


# What each row changes in the section `tokenizer` of the recipe; `share` is that of the steps.
DISTILLED: dict[str, dict[str, Any]] = {
    "distilled": {},
    "distilled, half of the steps": {"share": 0.5},
    "commitment 10": {"model_config": {"commitment_weight": 10.0}},
    "commitment 256": {"model_config": {"commitment_weight": 256.0}},
    "estimator of each patch alone": {"model_config": {"estimator_num_hidden_layers": 0}},
    "estimator of three layers": {"model_config": {"estimator_num_hidden_layers": 3}},
    "no dead codes replaced": {"model_config": {"dead_code_threshold": 0.0}},
    "from the teacher's weights": {"initialize_from_teacher": True},
    "from the teacher, estimator alone": {
        "initialize_from_teacher": True,
        "model_config": {"estimator_num_hidden_layers": 0},
    },
    "from the teacher, estimator alone, commitment 256": {
        "initialize_from_teacher": True,
        "model_config": {"estimator_num_hidden_layers": 0, "commitment_weight": 256.0},
    },
    "layer 2 of 4": {"teacher_layers": [2]},
    "mean of layers 3 and 4, normalised": {"teacher_layers": [3, 4], "teacher_normalization": "layer_norm"},
    "centred by band": {"teacher_normalization": "center"},
    "1,024 codes": {"model_config": {"codebook_size": 1024}},
    "distilled, three times the steps": {"share": 3},
}
RANDOM, K_MEANS = "random projection, {}", "k-means, {}"
SIZES = (256, 1024)


def make_teacher(dataset: str, output: Path, steps: int, seed: int) -> tuple[IterateArguments, Path]:
    """Pre-trains a first iteration on the folds of the recipe, without a diagnosis of its own."""
    words = ["--config", "esc10_iterate", f"--data.dataset={dataset}", "--num_iterations=1"]
    words += [f"--output_dir={output / 'run'}", f"--model.max_steps={steps}", "--diagnosis_clips=0"]
    words += [f"--{stage}.seed={seed}" for stage in ("model", "tokenizer", "random_projection")]
    (arguments,) = parse_arguments((IterateArguments,), words)
    return arguments, iterate(arguments)


def examine(tokenizer: Path, teacher: Path, data: DataArguments, directory: Path, **targets: Any) -> dict[str, Any]:
    """Diagnoses a tokenizer, with the folds of ESC-10 for the probe, or reads what an earlier call has found."""
    if not directory.exists():
        examined = DiagnosisArguments(
            str(directory), str(tokenizer), teacher=str(teacher), num_clips=400, fold_column="fold", **targets
        )
        diagnose(examined, data, LabelArguments(label_column="label"))
    return json.loads((directory / "diagnosis.json").read_text(encoding="utf-8"))


def distil(arguments: IterateArguments, teacher: Path, output: Path, name: str, steps: int) -> dict[str, Any]:
    """Trains and diagnoses the tokenizer of a row."""
    place = output / "tokenizers" / name.replace(" ", "-").replace(",", "")
    values = arguments.stage_values("tokenizer", teacher=str(teacher), output_dir=str(place))
    changes = copy.deepcopy(DISTILLED[name])
    values["max_steps"] = round(changes.pop("share", 1) * steps)
    merge(values, changes)
    owners = build_arguments(TRAIN_TOKENIZER_ARGUMENTS, values)
    # It becomes the directory of the training meanwhile.
    if not place.exists():
        train_tokenizer(*owners)
    tokenizer, data = owners[:2]
    targets = {name: getattr(tokenizer, name) for name in ("teacher_layers", "teacher_normalization")}
    found = examine(place, teacher, data, output / "diagnoses" / place.name, **targets)
    history = json.loads((place / "log_history.json").read_text(encoding="utf-8"))
    last = [entry for entry in history if "distillation_loss" in entry][-1]
    return {"measures": found["codes"], "agreement": found["agreement"], "changes": DISTILLED[name], "log": last}


def untrained_rows(teacher: Path, data: DataArguments, output: Path, size: int, seed: int) -> dict[str, Any]:
    """Diagnoses a random projection of a size, and k-means on the teacher's outputs with as many clusters."""
    place = output / "tokenizers" / f"random-{size}"
    if not place.exists():
        BeatsRandomProjectionTokenizer(RandomProjectionConfig(codebook_size=size, seed=seed)).save_pretrained(place)
        BeatsFeatureExtractor.from_pretrained(teacher).save_pretrained(place)
    found = examine(place, teacher, data, output / "diagnoses" / place.name)
    return {
        RANDOM.format(size): {"measures": found["codes"], "agreement": found["agreement"]},
        K_MEANS.format(size): {"measures": found["k_means"], "agreement": None},
    }


def untrained_row(teacher: Path, data: DataArguments, output: Path, name: str, seed: int) -> dict[str, Any]:
    """Returns one of [`untrained_rows`], whose name ends in its size."""
    return untrained_rows(teacher, data, output, int(name.split()[-1]), seed)[name]


def print_table(rows: dict[str, dict[str, Any]]) -> None:
    """Prints the rows."""
    names = ("codes", "perplexity", "in use", "class, nats (by chance)", "band", "position", "probe", "agreement")
    table = Table(*names, title="Codes of ESC-10")
    for name, row in rows.items():
        measures, agreement = row["measures"], row["agreement"]
        information, chance = measures["information"], measures["by_chance"]
        table.add_row(
            name,
            f"{measures['perplexity']:.0f}",
            f"{measures['codes_alive']:.0%}",
            f"{information['class']:.2f} ({chance['class']:.2f})",
            f"{information['band']:.2f}",
            f"{information['position'] - chance['position']:.2f}",
            f"{measures['probe']['accuracy']:.1%} ± {measures['probe']['deviation']:.1%}",
            "" if agreement is None else f"{agreement['adjusted_mutual_information']:.2f}",
        )
    Console(width=140).print(table)


def main(
    dataset: Annotated[str, typer.Option(help="Folder of ESC-10, with metadata.csv")] = "esc10",
    output: Annotated[Path, typer.Option(help="Where tokenizers and rows go")] = Path("runs/codes"),
    teacher_steps: Annotated[int, typer.Option(help="Steps of the teacher's pre-training")] = 200,
    tokenizer_steps: Annotated[int, typer.Option(help="Steps of each tokenizer")] = 100,
    seed: Annotated[int, typer.Option(help="Seed of the teacher and of the tokenizers")] = 0,
    threads: Annotated[int, typer.Option(help="Threads; 0 for all")] = 0,
) -> None:
    """Measures what codes of ESC-10 are worth."""
    if threads:
        torch.set_num_threads(threads)
    settings = {"dataset": dataset, "teacher_steps": teacher_steps, "tokenizer_steps": tokenizer_steps, "seed": seed}
    begin_or_resume(output / "settings.json", settings, output)
    arguments, teacher = make_teacher(dataset, output, teacher_steps, seed)
    (data,) = build_arguments((DataArguments,), arguments.data)
    rows: dict[str, dict[str, Any]] = {}
    (output / "rows").mkdir(parents=True, exist_ok=True)
    for name in [*map(RANDOM.format, SIZES), *map(K_MEANS.format, SIZES), *DISTILLED]:
        file = output / "rows" / f"{name.replace(' ', '-').replace(',', '')}.json"
        if name in DISTILLED:
            rows[name] = read_or_compute(file, partial(distil, arguments, teacher, output, name, tokenizer_steps))
        else:
            rows[name] = read_or_compute(file, partial(untrained_row, teacher, data, output, name, seed))
        print_table(rows)


if __name__ == "__main__":
    typer.run(main)
