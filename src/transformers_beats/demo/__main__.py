# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Command line of the demo."""

import argparse
import sys
from pathlib import Path

from transformers_beats.plotting.figures import check_matplotlib
from transformers_beats.utils.errors import UsageError, errors_in_one_line


DESCRIPTION = """\
Trains a small BEATs classifier on synthesised sounds and shows what it hears, or classifies your own audio files,
or pre-trains a small BEATs without labels and shows what that is worth. Nothing is downloaded.
"""
EPILOG = """\
examples:
  %(prog)s                                  train, evaluate, draw (a minute or two)
  %(prog)s door.wav street.flac             your files, with the model trained above
  %(prog)s --model my-beats door.wav        your files, with your own model
  %(prog)s --model my-beats                 synthesised sounds, with your own model
  %(prog)s --pretrain                       pre-train, fine-tune with few labels, compare (five minutes)

Written to the output directory: demo-model/, which `pipeline("audio-classification")` loads, and predictions.png;
by --pretrain: pretraining/, with the models, the sounds and the recipe, and pretraining-curves.png.
"""
# Classes of each clip in the table and in the picture.
TABLE_TOP_K, PICTURE_TOP_K = 3, 5


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    """Returns the arguments; raises a [`UsageError`] for those that cannot be used together."""
    parser = argparse.ArgumentParser(
        prog="transformers-beats demo",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    clips_help = "audio file to classify, of any length, sampling rate and number of channels"
    parser.add_argument("clips", nargs="*", type=Path, metavar="CLIP", help=clips_help)
    model_help = "directory of a classifier and its feature extractor (default: the demo's, trained if not there)"
    parser.add_argument("--model", type=Path, metavar="DIR", help=model_help)
    pretrain_help = (
        "two iterations of pre-training on sounds without labels, then fine-tuning with a few labels, from scratch "
        "and from each iteration; after an interruption, the same command goes on"
    )
    parser.add_argument("--pretrain", action="store_true", help=pretrain_help)
    output_help = "where to write models and pictures (default: %(default)s)"
    parser.add_argument("--output", type=Path, default=Path("demo-output"), metavar="DIR", help=output_help)
    seed_help = "seed of the sounds and of the training (default: %(default)s)"
    parser.add_argument("--seed", type=int, default=0, metavar="N", help=seed_help)
    arguments = parser.parse_args(argv)
    if not 0 <= arguments.seed < 2**31:
        raise UsageError(f"--seed {arguments.seed}: must be between 0 and 2147483647.")
    if arguments.pretrain and (arguments.clips or arguments.model):
        raise UsageError("--pretrain takes neither clips nor --model.")
    return arguments


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
            cells.append(Text(f"{score:.3f} {label}{mark}", style="bold" if is_right else ""))
        table.add_row(*cells)
    console.print(table)


def run(arguments: argparse.Namespace, console) -> None:
    """Reads or synthesises clips, trains or loads a model, prints the table, draws the picture."""
    from transformers_beats.audio.synthesis import CLASSES
    from transformers_beats.inference.loading import labels_of

    from .inference import classify, load_classifier, read_clip, synthesised_clips
    from .picture import MAX_PICTURED, draw_predictions
    from .training import HELD_OUT_PER_CLASS, train_classifier

    # Before the training, so that a mistake shows at once.
    clips = [read_clip(path) for path in arguments.clips]
    arguments.output.mkdir(parents=True, exist_ok=True)

    model_dir, accuracy = arguments.model or arguments.output / "demo-model", None
    if arguments.model is None and not (clips and model_dir.is_dir()):
        console.print("Training a BEATs classifier from scratch on ten classes of synthesised sounds.")
        accuracy = train_classifier(model_dir, arguments.seed)
    model, extractor = load_classifier(model_dir)
    clips = clips or synthesised_clips(arguments.seed + 1, labels_of(model).values())
    classify(model, extractor, clips, PICTURE_TOP_K)
    print_table(console, clips)
    if accuracy is not None:
        console.print(f"Accuracy on {HELD_OUT_PER_CLASS * len(CLASSES)} held-out clips: {accuracy:.1%}")

    picture = arguments.output / "predictions.png"
    draw_predictions(clips, extractor, picture)
    shown = "" if len(clips) <= MAX_PICTURED else f" (the first {MAX_PICTURED} clips)"
    console.print(f"Model: {model_dir}\nPicture: {picture}{shown}", markup=False, soft_wrap=True)


def main(argv: list[str] | None = None) -> None:
    """Runs the command line; ends with [`errors_in_one_line`]'s exit statuses."""
    with errors_in_one_line():
        arguments = parse_arguments(argv)
        check_matplotlib()
        from rich.console import Console

        # Standard output of now: trainings of --pretrain print to another one.
        console = Console(file=sys.stdout, highlight=False)
        if arguments.pretrain:
            from .pretraining import PretrainingSettings, run_pretraining

            arguments.output.mkdir(parents=True, exist_ok=True)
            run_pretraining(arguments.output, PretrainingSettings(seed=arguments.seed), console)
        else:
            run(arguments, console)


if __name__ == "__main__":
    main()
