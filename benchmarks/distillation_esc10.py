# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""
What distillation is worth on ESC-10, for models that are smaller and faster than their teacher:

    python -m benchmarks.distillation_esc10 --dataset ESC10 --output runs/distillation --threads 1

The protocol, fixed before the first run of a student:

- Five folds, those of the dataset. The teacher of a fold is fine-tuned on the other four by the recipe
  `esc10_finetune`: four layers of width 128, random weights, 25 epochs of 10 steps. One seed, 0, for everything.
- Two students. `fast`: one layer of width 80 with one head, about four times as fast as the teacher with an eighth of
  its parameters; its weights begin at random. `third`: one layer of width 128, a third of the parameters, which begins
  as the teacher's last layer.
- Each is trained twice, for 250 steps of 32 clips. `alone`: as the teacher, on labels of the four folds, by the same
  recipe. `distilled`: by the recipe `esc10_distill`, without labels, three quarters of the clips from the four folds,
  and one quarter from 320 clips of 5 s that `audio.synthesis` makes, all of its classes alike. No clip of the test
  fold is seen by any model. Nothing is tuned on these folds; the model after the last step is evaluated, once.
- Reported: accuracy over the 400 clips, each by the model that has not seen its fold, and an interval of 95 %,
  percentiles of 5,000 bootstraps over clips. The same for the difference of distilled and alone, paired by clip. The
  share of the gain that is kept is (distilled - alone) / (teacher - alone), with the interval of the same draws; where
  the interval of the gain (teacher - alone) holds 0, there is no share to speak of. Intervals know nothing of seeds.
- Time: milliseconds from a waveform of 5 s to logits, batch 1, float32, median of 25 turns of all models, on a machine
  that does nothing else (`--times`).

Added after the first test of `fast` (fold 1: alone 67.5 %, distilled 66.2 %), which at the end of its training agreed
with its teacher on 69 % of the views: `--steps 1000` trains both students of both kinds for 1,000 steps, with rows of
their own. Both tables are to be reported.

A finished row is a file in ROWS and not computed again; models in OUTPUT are not trained again. Times are measured
again if OUTPUT has a model that they lack, or if machine or threads are others. `--picture` draws accuracy against
milliseconds, of the models that have been timed.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import soundfile
import torch
import typer
from rich.console import Console
from rich.table import Table

from transformers_beats.audio.synthesis import CLASSES, synthesize
from transformers_beats.inference.loading import load
from transformers_beats.plotting.figures import make_figure, save_figure
from transformers_beats.training.config.arguments import FINETUNE_ARGUMENTS, Arguments
from transformers_beats.training.config.distillation import DISTILL_ARGUMENTS
from transformers_beats.training.config.recipes import build_arguments, parse_arguments
from transformers_beats.training.distill import distill
from transformers_beats.training.evaluate import EVALUATE_ARGUMENTS, evaluate
from transformers_beats.training.finetune import finetune
from transformers_beats.utils.files import new_directory
from transformers_beats.utils.machine import describe_machine, in_a_line

from .measuring import time_alternately
from .resuming import read_or_compute, read_right


FOLDS = range(1, 6)
ROWS = Path(__file__).parent / "rows" / "distillation_esc10"
STUDENTS: dict[str, dict[str, int]] = {
    "fast": {
        "embed_dim": 80,
        "hidden_size": 80,
        "num_hidden_layers": 1,
        "num_attention_heads": 1,
        "intermediate_size": 320,
    },
    "third": {"num_hidden_layers": 1},
}
METHODS = ("alone", "distilled")
NUM_SYNTHESISED, SECONDS, SAMPLING_RATE = 320, 5, 16000
NUM_RESAMPLES = 5000
DIFFERENCE = (
    "A distilled student and the same one alone differ in more than the teacher: a quarter of its clips are "
    "synthesised, some are mixed, and `third` starts from the teacher's last layer and not from random weights. Their "
    "difference is that of all of it together."
)
STEPS = 250
TURNS = 25


def make_sounds(folder: Path) -> Path:
    """Writes the synthesised clips, with a table in which their fold is 0; what is there is left alone."""
    if not folder.exists():
        with new_directory(folder) as new:
            lines = ["file_name,fold"]
            for number in range(NUM_SYNTHESISED):
                label = CLASSES[number % len(CLASSES)]
                samples = synthesize(label, np.random.default_rng([0, number]), float(SECONDS))
                soundfile.write(new / f"{number:03d}.wav", samples, SAMPLING_RATE)
                lines.append(f"{number:03d}.wav,0")
            (new / "metadata.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


def train_on_labels(dataset: str, output: Path, fold: int, changes: dict[str, int], steps: int = STEPS) -> Path:
    """Fine-tunes from random weights, tests on a fold, and returns the directory of the model."""
    model = output / f"fold-{fold}"
    if not model.exists():
        words = [f"--dataset={dataset}", f"--output_dir={output}", f"--folds=[{fold}]", "--disable_tqdm=true"]
        words += [f"--model_config.{name}={value}" for name, value in changes.items()]
        # The recipe has 25 epochs of 10 steps.
        words += [f"--num_train_epochs={steps // 10}"] if steps != STEPS else []
        arguments = parse_arguments(FINETUNE_ARGUMENTS, ["--config", "esc10_finetune", *words])
        finetune(Arguments(*arguments), prints=False)
    return model


def train_on_teacher(dataset: str, output: Path, fold: int, changes: dict[str, int], steps: int, place: Path) -> Path:
    """Distills the teacher of a fold, tests on that fold, and returns the directory of the model."""
    model = place / f"fold-{fold}"
    if not model.exists():
        # Its row may be there already, of another machine.
        teacher = train_on_labels(dataset, output / "teacher", fold, {})
        others = [other for other in FOLDS if other != fold]
        sounds = make_sounds(output / "sounds")
        words = [f"--dataset={json.dumps([dataset, str(sounds)])}", "--dataset_weights=[3, 1]"]
        words += [f"--select.fold={[0, *others]}", f"--output_dir={model}", "--disable_tqdm=true"]
        words += [f"--teacher={teacher}", f"--max_steps={steps}"]
        words += [f"--model_config.{name}={value}" for name, value in changes.items()]
        distill(*parse_arguments(DISTILL_ARGUMENTS, ["--config", "esc10_distill", *words]))
    report = place / f"fold-{fold}-evaluation"
    if not report.exists():
        values = {"model": str(model), "output_dir": str(report), "dataset": dataset, "select": {"fold": fold}}
        values |= {"label_column": "label", "crop_seconds": SECONDS}
        evaluate(*build_arguments(EVALUATE_ARGUMENTS, values))
    return model


def make_row(model: Path, report: Path) -> dict[str, Any]:
    """Returns which clips a model gets right, by their names, and its parameters."""
    return {"parameters": load(model)[0].num_parameters(), "right": read_right(report)}


def name_of(student: str, method: str, steps: int) -> str:
    """Returns the name of the rows and the models of a student; without one, that of the teachers."""
    suffix = "" if steps == STEPS or not student else str(steps)
    return "-".join(filter(None, (student or "teacher", method, suffix)))


def compute_row(dataset: str, output: Path, fold: int, student: str, method: str, steps: int) -> dict[str, Any]:
    """Trains a model for a fold, unless it is there, and returns its row; without a student, that of the teacher."""
    place = output / name_of(student, method, steps)
    if method == "distilled":
        model = train_on_teacher(dataset, output, fold, STUDENTS[student], steps, place)
        return make_row(model, place / f"fold-{fold}-evaluation")
    model = train_on_labels(dataset, place, fold, STUDENTS.get(student, {}), steps if student else STEPS)
    return make_row(model, model / "evaluation")


def read_times(file: Path, output: Path, steps: int) -> dict[str, Any]:
    """
    Returns the milliseconds of the models of the first fold in OUTPUT, and the machine, from a file. All are timed
    anew, in turns, if one of them is not in the file, or its times are of another machine or number of threads.
    """
    names = {"teacher": ("", "")} | {student: (student, "distilled") for student in STUDENTS}
    places = {name: output / name_of(*model, steps) / "fold-1" for name, model in names.items()}
    places = {name: place for name, place in places.items() if place.exists()}
    if not places:
        raise typer.BadParameter(f"--times: there are no models of fold 1 in {output}, which are timed")

    def measure() -> dict[str, Any]:
        clip = synthesize(CLASSES[0], np.random.default_rng(0), float(SECONDS))
        times = time_alternately({name: classify(place, clip) for name, place in places.items()}, TURNS, "cpu")
        milliseconds = {name: round(1000 * each, 2) for name, each in times.items()}
        return {"machine": describe_machine("cpu"), "ms": milliseconds}

    def is_current(row: dict[str, Any]) -> bool:
        machines = [{**machine, "load": None} for machine in (row["machine"], describe_machine("cpu"))]
        return machines[0] == machines[1] and places.keys() <= row["ms"].keys()

    return read_or_compute(file, measure, is_current)


def classify(place: Path, clip: np.ndarray) -> Callable[[], torch.Tensor]:
    """Returns a function from a waveform to logits."""
    model, extractor = load(place)

    @torch.inference_mode()
    def call() -> torch.Tensor:
        inputs = extractor([clip], sampling_rate=SAMPLING_RATE, return_tensors="pt")
        return model(inputs["input_values"]).logits

    return call


# The table


def accuracy_of(draws: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Returns the accuracies `(num_draws,)` of draws of clips `(num_draws, num_clips)`."""
    return right[draws].mean(axis=1)


def describe(value: float, draws: np.ndarray, unit: str = "%") -> str:
    """Formats a value and the interval of its draws, in per cent."""
    low, high = np.nanpercentile(draws, [2.5, 97.5])
    sign = "+" if unit == "points" else ""
    return f"{100 * value:{sign}.1f} ({100 * low:{sign}.1f} to {100 * high:{sign}.1f})"


def print_table(rows: dict[str, dict[int, dict[str, Any]]], times: dict[str, float]) -> dict[str, float]:
    """Prints the models on the folds that all have; returns their accuracies."""
    folds = sorted(set.intersection(*(set(of_model) for of_model in rows.values()))) if "teacher" in rows else []
    if not folds:
        return {}
    right = {
        name: np.array([value for fold in folds for value in of_model[fold]["right"].values()])
        for name, of_model in rows.items()
    }
    size = len(right["teacher"])
    draws = np.random.default_rng(0).integers(size, size=(NUM_RESAMPLES, size))
    drawn = {name: accuracy_of(draws, values) for name, values in right.items()}
    means = {name: float(values.mean()) for name, values in right.items()}
    names = ("model", "parameters", "ms", "accuracy, %", "distilled - alone, points", "gain kept, %", "by folds, %")
    title = f"ESC-10, folds {folds}, 95 % intervals over {size} clips"
    table = Table(*names, title=title, caption=DIFFERENCE, caption_justify="left")
    for name, of_model in rows.items():
        student, _, method = name.partition(" ")
        cells = ["", ""]
        if method == "distilled" and (alone := f"{student} alone") in means:
            cells[0] = describe(means[name] - means[alone], drawn[name] - drawn[alone], "points")
            gain, gains = means["teacher"] - means[alone], drawn["teacher"] - drawn[alone]
            cells[1] = "no gain" if np.percentile(gains, 2.5) <= 0 else ""
            if gain > 0:
                shares = np.where(gains > 0, (drawn[name] - drawn[alone]) / np.where(gains > 0, gains, 1), np.nan)
                cells[1] = f"{describe((means[name] - means[alone]) / gain, shares)} {cells[1]}".strip()
        by_folds = [100 * np.mean([*of_model[fold]["right"].values()]) for fold in folds]
        table.add_row(
            name,
            f"{of_model[folds[0]]['parameters']:,}",
            f"{times[student]:.1f}" if student in times else "",
            describe(means[name], drawn[name]),
            *cells,
            ", ".join(f"{value:.1f}" for value in by_folds),
        )
    Console(width=160).print(table)
    return means


def draw(means: dict[str, float], times: dict[str, float], path: Path) -> None:
    """Draws accuracy against milliseconds."""
    figure = make_figure(6, 4)
    axes = figure.subplots()
    for method, color in (("alone", "tab:gray"), ("distilled", "tab:blue"), ("", "black")):
        found = {name: value for name, value in means.items() if name.partition(" ")[2] == method}
        pairs = [(times.get(name.partition(" ")[0]), 100 * value) for name, value in found.items()]
        points = sorted((each, value) for each, value in pairs if each is not None)
        axes.plot([each for each, _ in points], [value for _, value in points], "o", color=color)
        axes.lines[-1].set_label(method or "teacher")
    axes.set_xlabel("Milliseconds for a clip of 5 s, batch 1")
    axes.set_ylabel("Accuracy on ESC-10, %")
    axes.set_xlim(left=0)
    axes.legend(frameon=False, loc="lower right")
    save_figure(figure, path)


def main(
    dataset: Annotated[str, typer.Option(help="Folder of ESC-10, with metadata.csv")] = "esc10",
    output: Annotated[Path, typer.Option(help="Where models go")] = Path("runs/distillation"),
    rows: Annotated[Path, typer.Option(help="Where results go")] = ROWS,
    folds: Annotated[
        str, typer.Option(help="Folds to test on; empty: none, rows that are there are printed")
    ] = "1,2,3,4,5",
    students: Annotated[str, typer.Option(help="Students to train; empty: the teachers only")] = ",".join(STUDENTS),
    threads: Annotated[int, typer.Option(help="Threads; 0 for all")] = 0,
    steps: Annotated[int, typer.Option(help="Steps of each student: 250 or 1000")] = STEPS,
    times: Annotated[bool, typer.Option(help="Time the models, which must be in OUTPUT")] = False,
    picture: Annotated[Path | None, typer.Option(help="PNG of accuracy against milliseconds")] = None,
) -> None:
    """Measures what distillation is worth on ESC-10."""
    if picture is not None and not times and not (rows / "times.json").exists():
        raise typer.BadParameter("--picture needs the times of models: measure them with --times")
    if threads:
        torch.set_num_threads(threads)
    rows.mkdir(parents=True, exist_ok=True)
    asked = [name for name in students.split(",") if name]
    for fold in [int(fold) for fold in folds.split(",") if fold]:
        for student, method in [("", ""), *((name, method) for name in asked for method in METHODS)]:
            file = rows / f"{name_of(student, method, steps)}-fold{fold}.json"
            read_or_compute(file, lambda: compute_row(dataset, output, fold, student, method, steps))  # noqa: B023
    if times:
        read_times(rows / "times.json", output, steps)
    known: dict[str, dict[int, dict[str, Any]]] = {}
    for student, method in [("", ""), *((name, method) for name in STUDENTS for method in METHODS)]:
        name = f"{student} {method}".strip() or "teacher"
        files = {fold: rows / f"{name_of(student, method, steps)}-fold{fold}.json" for fold in FOLDS}
        found = {fold: json.loads(file.read_text("utf-8")) for fold, file in files.items() if file.exists()}
        known |= {name: found} if found else {}
    timed = json.loads((rows / "times.json").read_text("utf-8")) if (rows / "times.json").exists() else {"ms": {}}
    means = print_table(known, timed["ms"])
    if timed["ms"]:
        print(f"ms: {in_a_line(timed['machine'])}")
    if picture is not None:
        draw(means, timed["ms"], picture)


if __name__ == "__main__":
    typer.run(main)
