# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""
What a step of 40 ms is worth beside one of 160 ms, and what tuned filters are, on soundscapes of ESC-10:

    python -m benchmarks.events_esc10 --dataset ESC10 --output runs/events --threads 1

The protocol, fixed before the first run:

- Soundscapes of 5 s (`audio.soundscapes`): one to four events of 0.25 to 3 s, at most two at a time, 5 to 20 dB over
  coloured noise. Those to learn from have events of folds 1 to 3 of ESC-10, those to tune on of fold 4, those to test
  on of fold 5. There are `--scenes` 600 to learn from, 150 to tune on and 200 to test on, the same for all rows.
- A unit is a head and a seed, of 0, 1 and 2. Heads: `mean` and `concat`, a score every 160 ms, and `sequence`, one
  every 40 ms. The encoder is that of the recipe `esc10_finetune` (four layers of width 128), from the weights of a
  classifier of the clips of folds 1 to 3 that was trained for `--clip-epochs` 15 with the same seed. It is trained for
  `--epochs` 12, with a peak learning rate of 5e-4 (cosine), 16 soundscapes a step, in float32, with the loss of
  columns, and with nothing else: no augmentation.
- Each unit is tested three times: with a threshold of 0.5 and no filter; with threshold, temperature and median filter
  of each class that have the highest collar F1 on the soundscapes to tune on; and with boxes of change points tried
  as well.
- Reported: PSDS1, collar F1 (200 ms; 20 %) and segment F1 (1 s), means over the classes; of the three seeds mean and
  range. Intervals of 95 % are percentiles of a bootstrap over the soundscapes to test on, of the mean over the seeds;
  those of differences from the row `mean` with the same filters are of the same draws. PSDS1 has no interval. They
  know nothing of other folds: which recordings are tested on is not drawn anew.

A unit that is done is a file in ROWS, with the draws of its bootstrap, and is not computed again.
"""

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from rich.console import Console
from rich.table import Table

from transformers_beats.audio.decoding import decode_audio
from transformers_beats.audio.soundscapes import SoundscapeSettings, write_soundscapes
from transformers_beats.audio.synthesis import SAMPLING_RATE
from transformers_beats.inference.events import EventSettings
from transformers_beats.inference.loading import labels_of, load
from transformers_beats.inference.windowed import WindowedInference
from transformers_beats.metrics.sound_event_detection import count_events
from transformers_beats.training.config.recipes import parse_arguments
from transformers_beats.training.data.labels import LabelArguments
from transformers_beats.training.data.strong_labels import read_event_files
from transformers_beats.training.finetune import FINETUNE_ARGUMENTS, Arguments, finetune
from transformers_beats.training.reports.events import (
    ClipEvents,
    as_kept,
    detect,
    resample_f1,
    score_events,
    tune_settings,
)
from transformers_beats.training.reports.intervals import percentiles
from transformers_beats.utils.resume import begin_or_resume

from .resuming import read_or_compute


FOLDS = {"train": ("1", "2", "3"), "validation": ("4",), "test": ("5",)}
SETTINGS = SoundscapeSettings(seconds=5.0, num_events=(1, 4), snr_db=(5.0, 20.0), max_polyphony=2)
# In the order in which units are computed; differences are from the first.
HEADS, SEEDS = ("mean", "sequence", "concat"), (0, 1, 2)
FILTERS = ("none", "median", "boxes")
F1 = ("collar_f1", "segment_f1")
# Of the draws in a row.
DECIMALS = 4


def write_scenes(dataset: Path, output: Path, counts: dict[str, int], settings: SoundscapeSettings = SETTINGS) -> None:
    """Writes the soundscapes of each part of the protocol that has a count, unless they are there."""
    with (dataset / "metadata.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    for number, (part, folds) in enumerate(FOLDS.items()):
        if part in counts and not (output / part).exists():
            sources: dict[str, list[np.ndarray]] = {}
            for row in rows:
                if row["fold"] in folds:
                    samples = decode_audio(str(dataset / row["file_name"]), SAMPLING_RATE)
                    sources.setdefault(row["label"], []).append(samples)
            write_soundscapes(output / part, sources, counts[part], seed=number, settings=settings)


def run_finetune(values: dict[str, Any]) -> None:
    """Runs `finetune`, or leaves what it has done."""
    if not (Path(values["output_dir"]) / "model.safetensors").exists():
        words = [f"--{key}={value}" for key, value in values.items()]
        finetune(Arguments(*parse_arguments(FINETUNE_ARGUMENTS, words)), prints=False)


def train(dataset: Path, output: Path, head: str, seed: int, epochs: int, clip_epochs: int) -> Path:
    """Trains the model of a unit, and returns its directory."""
    common = {
        "seed": seed,
        "bf16": "false",
        "save_strategy": "no",
        "logging_strategy": "epoch",
        "disable_tqdm": "true",
    }
    encoder = output / "models" / f"clips-{seed}"
    run_finetune(
        {
            "config": "esc10_finetune",
            "dataset": dataset,
            "select.fold": "[1, 2, 3]",
            "fold_column": "null",
            "num_train_epochs": clip_epochs,
            "output_dir": encoder,
            **common,
        }
    )
    directory = output / "models" / f"{head}-{seed}"
    run_finetune(
        {
            "dataset": output / "train" / "audio",
            "event_files": output / "train" / "events.tsv",
            "model_name_or_path": encoder,
            "model_config.frame_pooling": head,
            "crop_seconds": SETTINGS.seconds,
            "cache_audio": "true",
            "num_train_epochs": epochs,
            "learning_rate": 5e-4,
            "lr_scheduler_type": "cosine",
            "warmup_steps": 0.1,
            "per_device_train_batch_size": 16,
            "output_dir": directory,
            **common,
        }
    )
    return directory


def score_scenes(
    model_dir: Path,
    folder: Path,
    seconds: float = SETTINGS.seconds,
    window: float | None = None,
    hop: float | None = None,
) -> ClipEvents:
    """
    Computes the scores of the soundscapes of a folder, which last `seconds`, in windows, by default one, and reads
    their events.
    """
    model, extractor = load(str(model_dir))
    inference = WindowedInference(model, extractor, seconds if window is None else window, hop)
    files = sorted((folder / "audio").iterdir())
    tables = [inference.frames(str(file)).values for file in files]
    arguments = LabelArguments(event_files=str(folder / "events.tsv"))
    names = list(labels_of(model).values())
    labels = read_event_files(arguments, [file.name for file in files], [seconds] * len(files), names)
    events = [
        [{"label": label, "onset": onset, "offset": offset} for label, onset, offset in of_clip]
        for of_clip in labels.values
    ]
    return ClipEvents(tables, events, model.config.frame_seconds, names, np.arange(len(files)))


def compute_row(model_dir: Path, output: Path) -> dict[str, Any]:
    """Tests a model with each kind of filters."""
    validation, test = (score_scenes(model_dir, output / part) for part in ("validation", "test"))
    row: dict[str, Any] = {}
    for name in FILTERS:
        settings: dict[str, EventSettings] = {} if name == "none" else tune_settings(validation, name)
        row[name] = describe(test, settings)
    return row


def describe(clips: ClipEvents, settings: Mapping[str, EventSettings]) -> dict[str, Any]:
    """Returns the measures of events that are found with settings, also by class, intervals and draws."""
    scores = score_events(clips, settings)
    draws = resample_f1(count_events(detect(clips, settings), clips.references, clips.column_seconds), clips.files)
    return {
        "metrics": scores.metrics,
        # Rows have draws of these alone.
        "intervals": {key: scores.intervals[key] for key in F1},
        "settings": {label: as_kept(each) for label, each in settings.items()},
        "classes": [{key: each[key] for key in ("label", "events", *F1, "psds1")} for each in scores.classes],
        "draws": {key: values.round(DECIMALS).tolist() for key, values in draws.items()},
    }


def summarise(rows: dict[tuple[str, int], dict[str, Any]]) -> list[dict[str, Any]]:
    """Returns means over the seeds of each head and kind of filters, and intervals of them and of differences."""
    lines: list[dict[str, Any]] = []
    for name in FILTERS:
        baseline: dict[str, np.ndarray] = {}
        for head in HEADS:
            known = [rows[head, seed][name]["metrics"] for seed in SEEDS if (head, seed) in rows]
            if len(known) < len(SEEDS):
                continue
            line: dict[str, Any] = {"head": head, "filters": name}
            for metric in (*F1, "psds1"):
                values = [float(each[metric]) for each in known]
                line[metric] = {"mean": float(np.mean(values)), "seeds": values}
            for metric in F1:
                draws = np.mean([rows[head, seed][name]["draws"][metric] for seed in SEEDS], axis=0)
                baseline.setdefault(metric, draws)
                line[metric] |= {
                    "interval": percentiles(draws),
                    "interval_of_difference": None
                    if head == HEADS[0]
                    else percentiles(draws - baseline[metric], of_differences=True),
                }
            lines.append(line)
    return lines


def print_summary(lines: list[dict[str, Any]]) -> None:
    """Prints a table of [`summarise`]."""
    names = ("head", "filters", "PSDS1", "collar F1", "95 %", "beyond mean", "segment F1", "95 %", "beyond mean")
    table = Table(*names, title="Events of soundscapes of ESC-10, means of three seeds")

    def span(values: Any) -> str:
        return "" if values is None else " to ".join(f"{100 * value:+.1f}" for value in values)

    for line in lines:
        cells = [line["head"], line["filters"], f"{100 * line['psds1']['mean']:.1f}"]
        for metric in F1:
            interval = " to ".join(f"{100 * value:.1f}" for value in line[metric]["interval"] or ())
            cells += [f"{100 * line[metric]['mean']:.1f}", interval, span(line[metric]["interval_of_difference"])]
        table.add_row(*cells)
    Console(width=150).print(table)


def main(
    dataset: Annotated[Path, typer.Option(help="Folder of ESC-10, with metadata.csv")] = Path("esc10"),
    output: Annotated[Path, typer.Option(help="Where soundscapes, models and draws go")] = Path("runs/events"),
    rows: Annotated[Path, typer.Option(help="Where the rows go")] = Path("benchmarks/rows/events_esc10"),
    scenes: Annotated[int, typer.Option(help="Soundscapes to learn from")] = 600,
    epochs: Annotated[int, typer.Option(help="Passes over them")] = 12,
    clip_epochs: Annotated[int, typer.Option(help="Passes of the classifier of clips")] = 15,
    threads: Annotated[int, typer.Option(help="Threads; 0 for all")] = 0,
) -> None:
    """Measures what steps of 40 ms and tuned filters are worth on soundscapes of ESC-10."""
    if threads:
        torch.set_num_threads(threads)
    counts = {"train": scenes, "validation": max(1, scenes // 4), "test": max(1, scenes // 3)}
    settings = {"scenes": scenes, "epochs": epochs, "clip_epochs": clip_epochs}
    begin_or_resume(output / "settings.json", settings, output)
    rows.mkdir(parents=True, exist_ok=True)
    begin_or_resume(rows / "settings.json", settings, rows)
    write_scenes(dataset, output, counts)
    found: dict[tuple[str, int], dict[str, Any]] = {}
    for seed in SEEDS:
        for head in HEADS:

            def compute(head: str = head, seed: int = seed) -> dict[str, Any]:
                model = train(dataset, output, head, seed, epochs, clip_epochs)
                return compute_row(model, output)

            found[head, seed] = read_or_compute(rows / f"{head}-{seed}.json", compute)
    lines = summarise(found)
    read_or_compute(rows / "summary.json", lambda: {"rows": lines})
    print_summary(lines)


if __name__ == "__main__":
    typer.run(main)
