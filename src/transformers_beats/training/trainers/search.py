# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Search for hyperparameters, with `Trainer.hyperparameter_search` and Optuna."""

import copy
import importlib.util
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from accelerate.utils import broadcast_object_list
from transformers.utils import logging

from transformers_beats.training.config.arguments import BeatsTrainingArguments, FineTuningArguments
from transformers_beats.utils.errors import BeatsError, DivergenceError, UsageError, install_command
from transformers_beats.utils.files import make_directory, replace_file, work_directory
from transformers_beats.utils.numbers import format_number
from transformers_beats.utils.resume import as_json, read_settings

from .checkpoints import SEARCH_FILE
from .classification import ClassificationTrainer, best_metric


logger = logging.get_logger(__name__)

# Optuna's words where it is asked for the best of no trial.
NO_TRIAL = "No trials are completed"


def search_hyperparameters(
    training: BeatsTrainingArguments,
    tuning: FineTuningArguments,
    build: Callable[[BeatsTrainingArguments], ClassificationTrainer],
    settings: dict[str, Any],
) -> None:
    """
    Trains `tuning.num_trials` times with values that Optuna chooses from `tuning.search_space`, and sets those of the
    best trial in `training`: by `metric_for_best_model`, by default the loss on the evaluation clips. `build` makes a
    trainer with `model_init`. What was chosen is kept beside the checkpoints, for a training that goes on with the
    same `settings`: all that decides the result.

    Raises:
        [`UsageError`]: if the metric is undefined in all trials.
        [`BeatsError`]: if Optuna is not installed.
        [`DivergenceError`]: if no trial comes to its end.
    """
    space = tuning.search_space or {}
    check_optuna()
    from optuna.samplers import TPESampler

    sampler = TPESampler(seed=training.seed)
    metric = best_metric(training)
    # The rule of `TrainingArguments`.
    is_greater_better = training.greater_is_better
    if is_greater_better is None:
        is_greater_better = not metric.endswith("loss")
    asked = as_json(settings | {"metric": metric, "is_greater_better": is_greater_better})
    file = Path(str(training.output_dir)) / SEARCH_FILE
    # The first of several processes has the study, and what it has found.
    found = broadcast_object_list([read_settings(file)])[0]
    if found is not None and found.get("asked") == asked:
        set_values(training, tuning, found, metric)
        return
    trial_arguments = copy.deepcopy(training)
    trial_arguments.save_strategy, trial_arguments.load_best_model_at_end = "no", False
    if training.evaluates_by_default:
        # Once, at the end of a trial.
        trial_arguments.eval_strategy = "no"
    objectives: list[float] = []

    def propose(trial: Any) -> dict[str, Any]:
        for name in space:
            # `Trainer` gives a value the type of the one before: a share of warm-up would be the integer 0.
            if type(getattr(trial_arguments, name)) in (int, float):
                setattr(trial_arguments, name, None)
        return {name: suggest(trial, name, values) for name, values in space.items()}

    def objective(metrics: dict[str, float]) -> float:
        objectives.append(metrics[metric])
        return metrics[metric]

    with work_directory(Path(str(training.output_dir)).absolute().parent, ".search-") as directory:
        trial_arguments.output_dir = str(directory)
        try:
            best: Any = build(trial_arguments).hyperparameter_search(
                hp_space=propose,
                compute_objective=objective,
                n_trials=tuning.num_trials,
                direction="maximize" if is_greater_better else "minimize",
                backend="optuna",
                # For `optuna.create_study`: otherwise the same search would try other values.
                sampler=sampler,
                # Of a trial that has no loss, the others may have one.
                catch=(DivergenceError,),
            )
        except ValueError as error:
            if NO_TRIAL not in str(error):
                raise
            # A loss that is not a number is a divergence.
            if metric != "eval_loss" and any(map(math.isnan, objectives)):
                raise UsageError(
                    f"`metric_for_best_model` is {training.metric_for_best_model}, which is undefined for the clips "
                    "that are evaluated on: choose another, such as loss."
                ) from error
            raise DivergenceError(
                f"`search_space`: all {tuning.num_trials} trials have diverged: lower the values to try, such as "
                "those of `learning_rate`."
            ) from error
    if best is not None:
        found = {"asked": asked, "values": best.hyperparameters, "objective": best.objective}
        make_directory(file.parent)
        with replace_file(file) as temporary:
            temporary.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    set_values(training, tuning, broadcast_object_list([found])[0], metric)


def check_optuna() -> None:
    """Raises a [`BeatsError`] if Optuna is not installed."""
    if importlib.util.find_spec("optuna") is None:
        raise BeatsError(f"`search_space` needs Optuna: {install_command('search')}")


def set_values(
    training: BeatsTrainingArguments, tuning: FineTuningArguments, found: dict[str, Any], metric: str
) -> None:
    """Sets and says what a search has found."""
    for name, value in found["values"].items():
        setattr(training, name, value)
    chosen = ", ".join(f"{name} {value}" for name, value in found["values"].items())
    objective = format_number(found["objective"])
    logger.warning(f"Best of {tuning.num_trials} trials: {chosen} ({metric} {objective}).")


def suggest(trial: Any, name: str, values: list | dict[str, Any]) -> Any:
    """Returns a value for a trial of Optuna: one of a list, or an integer or float of a range."""
    if isinstance(values, list):
        return trial.suggest_categorical(name, values)
    is_integer = all(isinstance(values[end], int) for end in ("low", "high"))
    return (trial.suggest_int if is_integer else trial.suggest_float)(name, **values)
