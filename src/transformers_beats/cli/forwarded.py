# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Commands that other folders own: the words after their names go to the `main` of a module, imported when it runs."""

import inspect
from importlib import import_module
from typing import NamedTuple

import typer

from transformers_beats.utils.errors import errors_in_one_line, run_command
from transformers_beats.utils.messages import quietly

from .commands import NAME, STATUSES, add_command, make_app


class Forwarded(NamedTuple):
    """
    A command that is `main` of a module below `transformers_beats`, which takes the words as a list `argv` or is a
    function for typer; a sentence for the list of commands; words of an example for a function for typer whose help
    has none; and words that come after those of the user.
    """

    module: str
    help: str
    example: str = ""
    added: tuple[str, ...] = ()


MODELS = {
    "publish": Forwarded(
        "publishing.publish_all",
        "Convert and publish all checkpoints of a release.",
        example="--source-dir checkpoints --namespace your-name --dry-run",
    ),
    "verify": Forwarded(
        "verification.verify", "Prove that released weights compute what the paper says.", example="beats-iter3"
    ),
    "serve": Forwarded(
        "web.page",
        "Serve a web page: record or drop a clip, see its labels and events.",
        example="--model beats-finetuned",
    ),
    "demo": Forwarded(
        "demo.__main__", "Train a small model on synthesised sounds, or classify clips with yours.", example="door.wav"
    ),
}
TRAINING = {
    "finetune": Forwarded("training.finetune", "Fine-tune a model on labelled audio."),
    "evaluate": Forwarded("training.evaluate", "Measure a fine-tuned model on labelled audio."),
    "probe": Forwarded(
        "training.finetune",
        "Train classifiers on the embeddings of a frozen encoder.",
        example="--config folder_probe --dataset FOLDER --model_name_or_path MODEL --output_dir DIR",
        added=("--freeze", "true"),
    ),
    "distill": Forwarded("training.distill", "Train a smaller model on the outputs of a larger one."),
    "pretrain": Forwarded("training.pretrain", "Pre-train an encoder on codes of a tokenizer."),
    "train-tokenizer": Forwarded("training.train_tokenizer", "Train an acoustic tokenizer on an encoder."),
    "compute-codes": Forwarded("training.compute_codes", "Compute the codes that an encoder is pre-trained on."),
    "diagnose-codes": Forwarded("training.diagnose_codes", "Examine codes: usage, classes, bands, the teacher."),
    "iterate": Forwarded("training.iterate", "Pre-train in iterations of tokenizer and encoder."),
    "fbank-statistics": Forwarded(
        "training.fbank_statistics", "Compute mean and deviation of the fbank of a dataset."
    ),
    "index-audio": Forwarded(
        "training.index_audio", "Decode every file of a folder once, before a training.", example="my-sounds"
    ),
    "prepare-audioset": Forwarded("training.prepare_audioset", "Make the tables of AudioSet for training."),
}


QUIET_OPTIONS = ("-q", "--quiet")
QUIET_HELP = "-q, --quiet: no progress bars and notes; only warnings and errors."
# All words of these commands, `--help` as well, are parsed by their modules.
FORWARD_ALL = {"ignore_unknown_options": True, "allow_extra_args": True, "allow_interspersed_args": False}


def add_forwarded(app: typer.Typer, name: str, command: Forwarded, panel: str) -> None:
    """Adds a command, which runs with the words after its name, under a heading in the list of commands."""

    @app.command(name, help=command.help, rich_help_panel=panel, context_settings=FORWARD_ALL, add_help_option=False)
    def run(context: typer.Context) -> None:
        words = list(context.args)
        with errors_in_one_line():
            main = import_module(f"transformers_beats.{command.module}").main
        if "argv" in inspect.signature(main).parameters:
            wants_help = {"-h", "--help", "--help-all"} & {*words}
            if command.added and wants_help:
                print(f"{command.help} Keys are those of `finetune`, with `{' '.join(command.added)}`.\n")
            is_quiet = any(word in QUIET_OPTIONS for word in words)
            words = [word for word in words if word not in QUIET_OPTIONS]
            try:
                with quietly(is_quiet):
                    run_command(lambda: main([*words, *command.added]))
            finally:
                if wants_help:
                    example = f"Example: {NAME} {name} {command.example}\n\n" if command.example else ""
                    print(f"\n{example}{QUIET_HELP}\n\n{STATUSES}")
        else:
            single = make_app()
            add_command(single, name, main, [command.example], panel, quiet=True)
            single([name, *words])
