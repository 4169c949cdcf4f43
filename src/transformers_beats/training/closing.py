# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""End of a fine-tuning: the model card, the last screen, and publication on the Hub."""

import copy
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median_high
from typing import NamedTuple

from rich.console import Console

from transformers_beats import BeatsForAudioFrameClassification
from transformers_beats.publishing.publish import account_name, check_account, publish
from transformers_beats.training.config.arguments import Arguments
from transformers_beats.training.reports import LOG_HISTORY
from transformers_beats.training.reports.card import write_card
from transformers_beats.training.reports.folds import read_report
from transformers_beats.training.reports.layers import print_layers
from transformers_beats.training.reports.report import Metrics
from transformers_beats.training.reports.tables import print_closing
from transformers_beats.utils.numbers import format_number

from .classifiers import EVALUATION, TRAINING_CLIPS, describe
from .probes.few_shot import print_shots
from .stages import process_state


# Directory of the model of all clips, beside those of the folds.
FINAL = "final"


class CrossValidation(NamedTuple):
    """Names of the folds, the epoch whose weights each has kept, and the standard deviations of the metrics."""

    folds: Sequence[str]
    epochs: Mapping[str, float]
    spread: Metrics


def choose_epoch(epochs: Mapping[str, float]) -> float:
    """Returns the epoch after which a model of all clips is kept: the median of the folds, one that a fold has."""
    return median_high(epochs.values())


def final_arguments(arguments: Arguments, num_clips: int, of_folds: Sequence[int]) -> Arguments:
    """
    Returns the arguments of a model of all clips: steps, if these are given, for as many epochs as they are of the
    clips that a fold learns from.
    """
    if arguments.training.max_steps <= 0:
        return arguments
    changed = copy.copy(arguments)
    changed.training = copy.copy(arguments.training)
    changed.training.max_steps = math.ceil(arguments.training.max_steps * num_clips / min(of_folds))
    return changed


def reached_epoch(model: Path) -> float | None:
    """Returns the epoch that a training ended in, from the log beside its model; None without one."""
    path = model / LOG_HISTORY
    history = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
    return max((entry["epoch"] for entry in history if "epoch" in entry), default=None)


def is_of_events(model: Path) -> bool:
    """Returns whether a directory holds a model of scores of moments; False without a model."""
    path = model / "config.json"
    config = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return config.get("architectures") == [BeatsForAudioFrameClassification.__name__]


def join_epochs(epochs: Mapping[str, float]) -> str | None:
    """Returns the epochs of all folds as text, once if they are equal; None without any."""
    distinct = dict.fromkeys(f"{epoch:.4g}" for epoch in epochs.values())
    return ", ".join(distinct if len(distinct) < 2 else (f"{epoch:.4g}" for epoch in epochs.values())) or None


def choose_repository(arguments: Arguments, output_dir: Path) -> str | None:
    """
    Returns the repository that the model is to be published to, if that was asked for, after the Hub was asked whether
    this account may write to it. The `Trainer` itself publishes nothing.

    Raises:
        [`BeatsError`]: if the account may not write there.
    """
    training = arguments.training
    if not training.push_to_hub:
        return None
    training.push_to_hub = False
    if not process_state().is_main_process:
        return None
    repo_id = training.hub_model_id or f"{account_name()}/{output_dir.absolute().name}"
    check_account(repo_id)
    return repo_id


def close(
    arguments: Arguments,
    output_dir: Path,
    num_clips: int,
    repo_id: str | None,
    validation: CrossValidation | None = None,
    prints: bool = True,
) -> None:
    """
    Writes the card of a model that has learned from `num_clips` clips, prints the last screen if it `prints`, and
    publishes the model if there is a `repo_id`. Called on the main process.
    """
    report = read_report(output_dir / EVALUATION, is_needed=False) or None
    description = (report["description"] if report else describe(arguments, None)) | {"training_clips": num_clips}
    spread, remark = (None, "") if validation is None else (validation.spread, "")
    if validation is None:
        model: Path | None = output_dir
        models = [(str(output_dir), f"learned from {format_number(num_clips)} clips")]
        advice = "To go on:"
    else:
        model = output_dir / FINAL if arguments.folds.final else None
        folds = ", ".join(f"fold-{name}" for name in validation.folds)
        models = [(f"{output_dir}/fold-*", f"{folds}: each learned from the other folds")]
        advice = "For use, train one model of all clips: the same command with --final.\nTo try out a fold:"
    if validation is not None and model is not None:
        after = ""
        if validation.epochs:
            epoch, each = f"{choose_epoch(validation.epochs):.4g}", join_epochs(validation.epochs)
            reached = reached_epoch(model)
            # Another one where the last batch of an epoch is smaller.
            if reached is None or f"{reached:.4g}" == epoch:
                description["epoch"] = f"{epoch} (the median of those of the folds: {each})"
                after = f", to epoch {epoch}: the median of the folds ({each})"
            else:
                description["epoch"] = f"{reached:.4g} (those of the folds: {each})"
                after = f", to epoch {reached:.4g} (the folds: {each})"
        models.append((str(model), f"learned from all {format_number(num_clips)} clips{after}"))
        advice = f"Use {model}: the metrics are those of the folds, which learned from fewer clips.\nTo go on:"
        remark = (
            f"This model has learned from all clips. The metrics are those of {len(validation.folds)} models that "
            "were trained alike, each on the clips of the other folds, and evaluated on its own:"
        )
    used = str(model or output_dir / f"fold-{validation.folds[0]}" if validation else model)
    command = ["transformers-beats", "tag", "RECORDING.wav", "--model", used]
    if report is None:
        command = ["transformers-beats", "evaluate", "--model", used, "--dataset", "FOLDER"]
        # Of events, folders cannot be the labels.
        command += ["--event_files", "LABELS"] if is_of_events(Path(used)) else []
        command += ["--output_dir", "REPORT"]
    saves = not arguments.tuning.freeze or arguments.tuning.probes != ["knn"]
    if not saves:
        models, advice = [], "Nearest neighbours are an evaluation: there is no model."
    if prints:
        print_layers(Console(), output_dir)
        print_shots(Console(), output_dir)
        print_closing(Console(), report, output_dir / EVALUATION, models, advice, [command] * saves, spread)
    if model is None or not saves:
        return
    write_card(model, description, report, output_dir / EVALUATION, spread, repo_id, remark)
    if repo_id is not None:
        private = bool(arguments.training.hub_private_repo)
        publication = publish(model, repo_id, private, leave_out=(TRAINING_CLIPS,))
        print(f"{repo_id}: {'published' if publication.is_new else 'unchanged'}, commit {publication.commit}")
