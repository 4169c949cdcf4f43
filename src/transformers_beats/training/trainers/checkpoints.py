# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Checkpoints of a training: found again after an interruption, and replaced by the finished model."""

import json
import shutil
from collections.abc import Callable
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers.trainer import TRAINING_ARGS_NAME
from transformers.trainer_callback import TrainerCallback, TrainerState
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR, has_length

from transformers_beats.training.reports import LOG_HISTORY
from transformers_beats.utils.errors import BeatsError, UsageError
from transformers_beats.utils.files import check_new, replace_directory
from transformers_beats.utils.lock import hold
from transformers_beats.utils.resume import begin_or_resume


if TYPE_CHECKING:
    from .pretraining import WaveformTrainer


TRAINER_STATE = "trainer_state.json"
SETTINGS = "settings.json"
# What a search for hyperparameters has found, and what it was asked.
SEARCH_FILE = "search.json"
NO_STEP = (
    "The training has no step, since there are fewer clips than the batches of all processes: add clips, or a smaller "
    "`per_device_train_batch_size`, or `dataloader_drop_last: false`."
)


def complete_checkpoints(directory: Path) -> list[Path]:
    """
    Returns the checkpoints of a run that were written to their end, in the order of their steps. `Trainer` writes its
    state last, so one whose state cannot be read was cut off.
    """
    checkpoints = []
    for path in directory.glob(f"{PREFIX_CHECKPOINT_DIR}-*"):
        try:
            state = TrainerState.load_from_json(str(path / TRAINER_STATE))
        except (OSError, ValueError, TypeError):
            continue
        checkpoints.append((state.global_step, path))
    return [path for _, path in sorted(checkpoints)]


def best_checkpoint(directory: Path, state: TrainerState) -> Path | None:
    """
    Returns the checkpoint of the best evaluation, in whatever directory it was written; None if no evaluation was.

    Raises:
        [`BeatsError`]: if it is gone.
    """
    if state.best_global_step is None:
        return None
    path = directory / f"{PREFIX_CHECKPOINT_DIR}-{state.best_global_step}"
    if not path.exists():
        raise BeatsError(f"{path}: the best checkpoint of this training is gone: remove {directory} and begin anew.")
    return path


class FindBest(TrainerCallback):
    """Finds the best checkpoint of an earlier attempt in the directory of this one, which may have been moved."""

    def on_train_begin(self, args, state, control, **kwargs):
        if args.load_best_model_at_end:
            best = best_checkpoint(Path(args.output_dir), state)
            state.best_model_checkpoint = None if best is None else str(best)


def training_directory(output_dir: Path) -> Path:
    """Returns the directory of a stage's checkpoints and logs, beside the model that it is to write."""
    return output_dir.with_name(f"{output_dir.name}.training")


def has_stopped(state: TrainerState) -> bool:
    """Returns whether a training has ended before its last step, by early stopping."""
    callbacks: Any = state.stateful_callbacks
    return bool(callbacks and callbacks.get("TrainerControl", {}).get("args", {}).get("should_training_stop"))


def train_and_save(
    trainer: "WaveformTrainer",
    output_dir: Path,
    settings: dict[str, Any],
    finish: Callable[[Path], None] | None = None,
) -> None:
    """
    Trains, from the last complete checkpoint beside `output_dir` on if there is one, and writes model,
    feature extractor and `log_history.json` to `output_dir`, which appears when it is complete.

    The trainer's `args.output_dir` is the [`training_directory`] of `output_dir`. `settings` must not change between
    an interrupted training and its continuation. `finish` is called on every process in the place of
    `Trainer.save_model` and writes the model, and what belongs to it, to the directory that becomes `output_dir`.

    Raises:
        [`UsageError`]: if an interrupted training had other settings, another run writes to the same place, or there
            are too few clips for a step.
        [`BeatsError`]: if the best checkpoint of an interrupted training is gone.
        [`CodebookCollapseError`]: see [`BeatsTokenizerTrainer`].
        [`DivergenceError`]: if the loss or a weight is not finite; nothing is written.
    """
    clips: Any = trainer.train_dataset
    # Without a whole batch for each process, there is none for any.
    needed = trainer.args.train_batch_size * (1 if trainer.accelerator.split_batches else trainer.args.world_size)
    if trainer.args.dataloader_drop_last and has_length(clips) and len(clips) < needed:
        raise UsageError(NO_STEP)
    directory = training_directory(output_dir)
    with hold(directory) if trainer.is_world_process_zero() else nullcontext():
        _train_and_save(trainer, directory, output_dir, settings, finish)
    if trainer.is_world_process_zero():
        # It has logs for trackers, or another run has taken it.
        with suppress(OSError):
            directory.rmdir()
    trainer.accelerator.wait_for_everyone()


def _train_and_save(
    trainer: "WaveformTrainer",
    directory: Path,
    output_dir: Path,
    settings: dict[str, Any],
    finish: Callable[[Path], None] | None,
) -> None:
    """Does what [`train_and_save`] says, in a locked directory."""
    if trainer.is_world_process_zero():
        # Another run may have ended since the start of this one.
        check_new(output_dir)
        begin_or_resume(directory / SETTINGS, settings, directory)
    checkpoint = next(reversed(complete_checkpoints(directory)), None)
    trainer.accelerator.wait_for_everyone()
    state = TrainerState.load_from_json(str(checkpoint / TRAINER_STATE)) if checkpoint else None
    if state is not None and (state.global_step >= state.max_steps or has_stopped(state)):
        # Interrupted between its last step and here; `Trainer` would do one step more.
        trainer.state = state
        FindBest().on_train_begin(trainer.args, state, trainer.control)
        best = state.best_model_checkpoint if trainer.args.load_best_model_at_end else None
        trainer._load_from_checkpoint(best or str(checkpoint))
    else:
        trainer.add_callback(FindBest())
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        if not trainer.state.global_step:
            raise UsageError(NO_STEP)
        trainer.check_rest()
    trainer.check_weights()
    final = directory / "final"
    if trainer.is_world_process_zero():
        # Left by an earlier attempt.
        shutil.rmtree(final, ignore_errors=True)
    trainer.accelerator.wait_for_everyone()
    if finish is None:
        trainer.save_model(str(final))
    else:
        finish(final)
    # Others may still read checkpoints.
    trainer.accelerator.wait_for_everyone()
    if trainer.is_world_process_zero():
        trainer.feature_extractor.save_pretrained(final)
        for path in final.rglob(TRAINING_ARGS_NAME):
            path.unlink()
        (final / LOG_HISTORY).write_text(json.dumps(trainer.state.log_history, indent=1), encoding="utf-8")
        replace_directory(final, output_dir)
        # The rest are logs for trackers.
        for path in directory.glob(f"{PREFIX_CHECKPOINT_DIR}-*"):
            shutil.rmtree(path, ignore_errors=True)
        for name in (SETTINGS, SEARCH_FILE):
            (directory / name).unlink(missing_ok=True)
