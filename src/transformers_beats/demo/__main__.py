# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Command line of the demo."""

import argparse
import importlib.util
import os
import sys
from pathlib import Path


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


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m transformers_beats.demo",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "clips",
        nargs="*",
        type=Path,
        metavar="CLIP",
        help="audio file to classify; any sampling rate and number of channels; its first 30 s count",
    )
    parser.add_argument(
        "--model",
        type=Path,
        metavar="DIR",
        help="directory of a BeatsForAudioClassification and its feature extractor, as `save_pretrained` writes them "
        "(default: the demo's own model, trained if there is none yet)",
    )
    parser.add_argument(
        "--pretrain",
        action="store_true",
        help="two iterations of pre-training on sounds without labels, then fine-tuning with a few labels, from "
        "scratch and from each iteration; interrupted, it goes on where it was; finished, it only fine-tunes again",
    )
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("demo-output"),
        metavar="DIR",
        help="where to write the model and the picture (default: %(default)s)",
    )
    parser.add_argument(
        "--seed", type=int, default=0, help="seed of the sounds and of the training (default: %(default)s)"
    )
    return parser


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
        cells = [Text(clip.name)]
        if has_labels:
            cells.append(Text(clip.label or ""))
        for rank, (label, score) in enumerate(clip.predictions[:TABLE_TOP_K]):
            is_right = label == clip.label
            mark = " ✗" if clip.label is not None and rank == 0 and not is_right else ""
            cells.append(Text(f"{score:.3f} {label}{mark}", style="bold" if is_right else ""))
        table.add_row(*cells)
    console.print(table)


def read_clips(paths: list[Path], console) -> list:
    """Reads audio files, and says which of them are too long to count whole."""
    from transformers_beats.audio.synthesis import SAMPLING_RATE

    from .inference import MAX_SECONDS, read_clip

    clips = [read_clip(path) for path in paths]
    for clip in clips:
        seconds = clip.waveform.size / SAMPLING_RATE
        if seconds > MAX_SECONDS:
            note = f"{clip.name} lasts {seconds:.0f} s: only its first {MAX_SECONDS} s count."
            console.print(note, markup=False, soft_wrap=True)
    return clips


def make_output_directory(path: Path) -> None:
    """Raises a `DemoError` unless `path` is, or becomes, a directory that can be written to."""
    from .inference import DemoError

    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DemoError(f"{path}: cannot be the output directory: {error.strerror}") from error
    if not os.access(path, os.W_OK):
        raise DemoError(f"{path}: cannot be written to")


def pretrain(args: argparse.Namespace) -> None:
    """Runs `--pretrain`."""
    from rich.console import Console

    from .pretraining import PretrainingSettings, run_pretraining

    make_output_directory(args.output)
    run_pretraining(args.output, PretrainingSettings(seed=args.seed), Console(highlight=False))


def run(args: argparse.Namespace) -> None:
    """Runs the demo: reads or synthesises clips, trains or loads a model, prints the table, draws the picture."""
    from rich.console import Console

    from transformers_beats.audio.synthesis import CLASSES

    from .inference import classify, load_classifier, synthesised_clips
    from .picture import MAX_PICTURED, draw_predictions
    from .training import TrainingSettings, train_classifier

    console = Console(highlight=False)
    settings = TrainingSettings(seed=args.seed)
    # Before the training, so that a mistake shows at once.
    clips = read_clips(args.clips, console)
    make_output_directory(args.output)

    model_dir, accuracy = args.model or args.output / "demo-model", None
    if args.model is None and not (args.clips and model_dir.is_dir()):
        console.print("Training a BEATs classifier from scratch on ten classes of synthesised sounds.")
        accuracy = train_classifier(model_dir, settings)
    classifier, extractor = load_classifier(model_dir)
    clips = clips or synthesised_clips(settings.held_out_seed, classifier.model.config.label2id or {})
    classify(classifier, clips, PICTURE_TOP_K)
    print_table(console, clips)
    if accuracy is not None:
        num_held_out = settings.held_out_per_class * len(CLASSES)
        console.print(f"Accuracy on {num_held_out} held-out clips: {accuracy:.1%}")

    picture = args.output / "predictions.png"
    draw_predictions(clips, extractor, picture)
    shown = "" if len(clips) <= MAX_PICTURED else f" (the first {MAX_PICTURED} clips)"
    console.print(f"Model: {model_dir}\nPicture: {picture}{shown}", markup=False, soft_wrap=True)


def main(argv: list[str] | None = None) -> int:
    """Command line entry; returns the exit code: 0, or 1 after one line about what is wrong."""
    parser = build_parser()
    args = parser.parse_args(argv)
    if not 0 <= args.seed < 2**31:
        parser.error("--seed must be between 0 and 2147483647")
    if args.pretrain and (args.clips or args.model):
        parser.error("--pretrain takes neither clips nor --model")
    missing = [name for name in ("matplotlib", "rich") if importlib.util.find_spec(name) is None]
    if missing:
        print(f"error: the demo needs {' and '.join(missing)}: pip install {' '.join(missing)}", file=sys.stderr)
        return 1
    # Waiting threads sleep instead of spinning. On a machine that does other work as well, training is up to ten
    # times as fast. OpenMP reads this when torch is imported, so torch must not be before this line.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")

    from .inference import DemoError

    try:
        (pretrain if args.pretrain else run)(args)
    except DemoError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
