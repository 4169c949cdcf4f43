# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Command line of the demo, `transformers-beats demo`."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from transformers_beats.conversion.names import use_of
from transformers_beats.utils.errors import UsageError, errors_in_one_line
from transformers_beats.utils.messages import next_command, note
from transformers_beats.utils.numbers import format_number


# Classes of each clip in the table and in the picture.
TABLE_TOP_K, PICTURE_TOP_K = 3, 5


def print_table(console, clips) -> None:
    """Prints the best classes of every clip; a cross marks a best class that is not the true one."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    has_labels = any(clip.label is not None for clip in clips)
    table = Table(title="Best classes and their scores", box=SIMPLE_HEAD)
    for header in ("Clip", *(["True class"] if has_labels else []), "1st", "2nd", "3rd"):
        table.add_column(header, overflow="fold")
    for clip in clips:
        cells = [Text(clip.name)] + [Text(clip.label or "")] * has_labels
        for rank, (label, score) in enumerate(clip.predictions[:TABLE_TOP_K]):
            is_right = label == clip.label
            mark = " ✗" if clip.label is not None and rank == 0 and not is_right else ""
            cells.append(Text(f"{format_number(score)} {label}{mark}", style="bold" if is_right else ""))
        table.add_row(*cells)
    console.print(table)


def run(paths: list[Path], model_dir: Path | None, output: Path, seed: int, console) -> None:
    """Reads or synthesises clips, trains or loads a model, prints the table, draws the picture."""
    from transformers_beats.audio.decoding import decode_audio
    from transformers_beats.audio.synthesis import CLASSES, SAMPLING_RATE
    from transformers_beats.inference.loading import labels_of

    from .inference import Clip, classify, load_classifier, synthesised_clips
    from .picture import MAX_PICTURED, draw_predictions
    from .training import HELD_OUT_PER_CLASS, REPORT, train_classifier

    # Before the training, so that a mistake shows at once.
    clips = [Clip(path.name, decode_audio(path, SAMPLING_RATE)) for path in paths]
    output.mkdir(parents=True, exist_ok=True)
    accuracy = None
    if model_dir is None:
        model_dir = output / "demo-model"
        if not (clips and model_dir.is_dir()):
            console.print("Training a BEATs classifier from scratch on ten classes of synthesised sounds.")
            accuracy = train_classifier(model_dir, seed)
    model, extractor = load_classifier(model_dir)
    clips = clips or synthesised_clips(seed + 1, labels_of(model).values())
    classify(model, extractor, clips, PICTURE_TOP_K)
    print_table(console, clips)
    if accuracy is not None:
        console.print(f"Accuracy on {HELD_OUT_PER_CLASS * len(CLASSES)} held-out clips: {format_number(accuracy)}")
        console.print(f"Report: {model_dir / REPORT}", markup=False, soft_wrap=True)
    picture = output / "predictions.png"
    draw_predictions(clips, extractor, picture)
    shown = "" if len(clips) <= MAX_PICTURED else f" (the first {MAX_PICTURED} clips)"
    console.print(f"Model: {model_dir}\nPicture: {picture}{shown}", markup=False, soft_wrap=True)
    note(next_command(*use_of("finetuned", str(model_dir))))


def main(
    clips: Annotated[
        list[Path] | None,
        typer.Argument(metavar="CLIP", help="Audio files to classify, instead of synthesised sounds."),
    ] = None,
    model: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Directory of a classifier (default: the demo's, trained if not there)."),
    ] = None,
    pretrain: Annotated[
        bool,
        typer.Option(
            "--pretrain",
            help="Two iterations of pre-training on sounds without labels, then fine-tuning with a few labels, from "
            "scratch and from each iteration. After an interruption, the same command goes on.",
        ),
    ] = False,
    output: Annotated[Path, typer.Option(metavar="DIR", help="Output directory.")] = Path("demo-output"),
    seed: Annotated[
        int, typer.Option(min=0, max=2**31 - 1, metavar="N", help="Seed of the sounds and of the training.")
    ] = 0,
) -> None:
    """
    Train a small classifier on synthesised sounds and show what it hears, in a few minutes; or classify audio files;
    or pre-train a small BEATs without labels, in ten minutes, and show what that is worth. Nothing is downloaded.

    Written to --output: `demo-model/`, which `pipeline("audio-classification")` loads, and `predictions.png`; by
    --pretrain `pretraining/`, with the models, the sounds and the recipe, and `pretraining-curves.png`.
    """
    with errors_in_one_line():
        if pretrain and (clips or model):
            raise UsageError("--pretrain takes neither clips nor --model.")
        from rich.console import Console

        from transformers_beats.plotting.figures import check_matplotlib

        check_matplotlib()
        # Standard output of now: trainings of --pretrain print to another one.
        console = Console(file=sys.stdout, highlight=False)
        if pretrain:
            from .pretraining import PretrainingSettings, run_pretraining

            output.mkdir(parents=True, exist_ok=True)
            run_pretraining(output, PretrainingSettings(seed=seed), console)
        else:
            run(clips or [], model, output, seed, console)


if __name__ == "__main__":
    typer.run(main)
