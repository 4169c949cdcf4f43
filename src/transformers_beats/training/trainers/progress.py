# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Progress of a training on the console: a bar, and a line for each log."""

from typing import Any

from transformers import PrinterCallback, ProgressCallback, Trainer, TrainerCallback

from transformers_beats.utils.numbers import format_number


# Parts of the names of values that stay in the log: speed, and the state of the optimiser.
HIDDEN = ("epoch", "grad_norm", "learning_rate", "runtime", "per_second", "total_flos", "train_loss")


def describe_log(logs: dict[str, Any]) -> str:
    """Returns the measures of a log as text, such as `epoch 2: validation loss 0.513, accuracy 0.838`."""
    shown = {name: value for name, value in logs.items() if not any(part in name for part in HIDDEN)}
    if not shown:
        return ""
    names = {name: name.removeprefix("eval_") for name in shown} | {"eval_loss": "validation loss"}
    values = ", ".join(f"{names[name]} {format_number(value)}" for name, value in shown.items())
    return f"epoch {logs.get('epoch', 0):.4g}: {values}"


class ProgressWithLines(ProgressCallback):
    """Progress bar of transformers, above which the measures are written as [`describe_log`]."""

    def on_log(self, args, state, control, logs=None, **kwargs):
        if state.is_world_process_zero and self.training_bar is not None and (line := describe_log(logs or {})):
            self.training_bar.write(line)


class Lines(TrainerCallback):
    """Measures as [`describe_log`], without a bar."""

    def on_log(self, args, state, control, logs=None, **kwargs):
        if state.is_local_process_zero and (line := describe_log(logs or {})):
            print(line)


def print_lines(trainer: Trainer) -> None:
    """Makes a trainer print its logs as lines, in the place of the mappings that transformers prints."""
    # In a notebook, `Trainer` has another callback, which stays.
    for default, ours in ((ProgressCallback, ProgressWithLines), (PrinterCallback, Lines)):
        if trainer.pop_callback(default) is not None:
            trainer.add_callback(ours)
