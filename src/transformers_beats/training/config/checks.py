# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Checks of a stage that `iterate` makes before its first one, too."""

import math
from collections.abc import Collection, Mapping
from dataclasses import fields
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from transformers import TrainingArguments
from transformers.trainer_utils import IntervalStrategy, SaveStrategy
from transformers.utils import logging

from transformers_beats import BeatsConfig, BeatsModel
from transformers_beats.utils.errors import BeatsError, UsageError, did_you_mean


logger = logging.get_logger(__name__)

# Arguments of `Trainer` that no command can use with another value than the default, and why.
UNUSABLE = {
    "resume_from_checkpoint": "a training goes on from its last checkpoint by itself",
    "save_only_model": "an interrupted training could not go on from such checkpoints",
    "ignore_data_skip": "an interrupted training would hear the first clips of an epoch twice, and others never",
    "bf16_full_eval": "it would change the model that is saved: use `bf16`",
    "fp16_full_eval": "it would change the model that is saved: use `bf16`",
    "prediction_loss_only": "metrics and reports need what the model predicts",
    "eval_do_concat_batches": "metrics and reports need what the model predicts for all clips",
    "batch_eval_metrics": "metrics are of all clips, not means over batches",
    "remove_unused_columns": "the collator reads what no model takes",
}
# Arguments that every trial of a search reads anew, as the training that follows does. Others change nothing that is
# learned, are of the choice of the best checkpoint, which trials do not make, or are read when a trainer is made.
SEARCHABLE = (
    "learning_rate",
    "lr_scheduler_type",
    "lr_scheduler_kwargs",
    "warmup_steps",
    "num_train_epochs",
    "max_steps",
    "per_device_train_batch_size",
    "gradient_accumulation_steps",
    "weight_decay",
    "max_grad_norm",
    "adam_beta1",
    "adam_beta2",
    "adam_epsilon",
    "optim",
    "optim_args",
)
# Orders of clips that `Trainer` knows, but for one that counts tokens.
SAMPLING_STRATEGIES = ("random", "sequential", "group_by_length")
# Kinds of probes, of which nearest neighbours alone have no weights.
PROBES = ("linear", "knn", "attentive", "multi_layer", "prototype")
# Kinds whose classifier has logits of patches: neighbours are none, and prototypes are compared with whole clips.
WITH_LOGITS_OF_PATCHES = ("linear", "attentive", "multi_layer")
# Options, and the kinds that read them; of others, they would be ignored.
READERS = {
    "probe_layers": ("linear", "knn", "attentive", "prototype"),
    "probe_c": ("linear",),
    "probe_query": ("attentive",),
    "probe_layer_weights": ("multi_layer",),
    "probe_prototypes": ("prototype",),
    "probe_steps": ("attentive", "multi_layer", "prototype"),
    "probe_learning_rate": ("attentive", "multi_layer", "prototype"),
}
# Options of few-shot episodes, of any kind of probe.
OF_SHOTS = ("probe_shots", "probe_episodes")
# Settings of a configuration that a probe sets itself.
OF_PROBES = ("classifier_pooling", "use_weighted_layer_sum")
NOT_SAVED = (
    "`probe: knn` is an evaluation only, and nothing of it can be saved or published: name another probe, or clips to "
    "evaluate on and neither `final` nor `push_to_hub`."
)


def check_probes(tuning: Any) -> None:
    """Raises a [`UsageError`] for arguments of probes that cannot be used, or not together."""
    names = tuning.probes
    if unknown := [name for name in names if name not in PROBES]:
        raise UsageError(f"`probe` has {unknown[0]!r}: choose {', '.join(PROBES[:-1])} or {PROBES[-1]}.")
    if not names or len({*names}) < len(names):
        raise UsageError(f"`probe` must be different names, such as [linear, knn], got {tuning.probe}.")
    defaults = {each.name: each.default for each in fields(tuning)}
    given = [name for name in (*READERS, *OF_SHOTS) if getattr(tuning, name) != defaults[name]]
    if given and not tuning.freeze:
        named = ", ".join(f"`{name}`" for name in given)
        raise UsageError(f"Only a probe reads {named}: set `freeze: true`, or leave this out.")
    if "probe_episodes" in given and tuning.probe_shots is None:
        raise UsageError("`probe_episodes` are draws of `probe_shots`: set these, or leave it out.")
    for name, value, known in (
        ("probe_query", tuning.probe_query, ("shared", "class")),
        ("probe_layer_weights", tuning.probe_layer_weights, ("learned", "attention")),
    ):
        if value not in known:
            raise UsageError(f"`{name}` is {value!r}: choose {' or '.join(known)}.")
    for name in given:
        if not {*READERS.get(name, names)} & {*names}:
            read = " or ".join(READERS[name])
            raise UsageError(f"`{name}` is not read by `probe: {', '.join(names)}`: leave it out, or name {read}.")
    if tuning.freeze and (fixed := [name for name in OF_PROBES if name in (tuning.model_config or {})]):
        raise UsageError(f"`model_config` has {fixed[0]!r}, which `probe` sets: leave it out, and choose a probe.")
    if "knn" in names and tuning.class_weights is not None:
        raise UsageError("`class_weights` are of a loss, which `probe: knn` has none of: leave one of them out.")


def check_teaching_probes(tuning: Any, method: str) -> None:
    """
    Raises a [`UsageError`] for probes whose model could not teach a tokenizer of that `method` what they have learned.
    """
    if tuning.freeze and method == "k_means":
        raise UsageError(
            "k-means clusters the outputs of the encoder, and a probe leaves that as it is: leave `freeze` and "
            "`probe` out, or set `supervised_tokenizer.method: distillation`."
        )
    for name in tuning.probes if tuning.freeze else ():
        if name not in WITH_LOGITS_OF_PATCHES:
            known = ", ".join(WITH_LOGITS_OF_PATCHES[:-1])
            raise UsageError(
                f"`probe: {name}` has no logits of patches, which a tokenizer learns: choose {known} or "
                f"{WITH_LOGITS_OF_PATCHES[-1]}."
            )


def check_kept(arguments: Any) -> None:
    """Raises a [`UsageError`] if only nearest neighbours are named, and something is to be kept or published."""
    is_evaluated = arguments.folds.is_given or arguments.evaluation.is_given
    is_kept = arguments.folds.final or arguments.training.push_to_hub or not is_evaluated
    if arguments.tuning.freeze and arguments.tuning.probes == ["knn"] and is_kept:
        raise UsageError(NOT_SAVED)


def check_saves(
    num_checkpoints: int, strategy: str, save_steps: float, max_steps: int, num_train_epochs: float
) -> None:
    """
    Raises a [`BeatsError`] if a training would write fewer than `num_checkpoints`. `save_steps` below 1 is a share of
    `max_steps`, and without positive `max_steps` the number of steps is not known.
    """
    num_saves: float = 0
    if strategy == SaveStrategy.STEPS:
        if max_steps <= 0:
            return
        step = math.ceil(max_steps * save_steps) if save_steps < 1 else save_steps
        num_saves = math.ceil(max_steps / step)
    elif strategy == SaveStrategy.EPOCH:
        num_saves = math.ceil(num_train_epochs)
    if num_saves < num_checkpoints:
        raise BeatsError(
            f"`average_checkpoints` is {num_checkpoints}, but {num_saves} checkpoint(s) would be written: "
            "save more often (`save_strategy`, `save_steps`)."
        )


def find_difference(first: Any, second: Any) -> str | None:
    """Returns the name of the first weight that encoders of two configurations do not share; None if all are alike."""
    # Nothing is allocated there.
    with torch.device("meta"):
        shapes = [
            {name: value.shape for name, value in BeatsModel(config).state_dict().items()}
            for config in (first, second)
        ]
    names = [*shapes[0], *shapes[1]]
    return next((name for name in names if shapes[0].get(name) != shapes[1].get(name)), None)


def check_partners(option: str, mixes: Any, training: Any) -> None:
    """Raises `UsageError` if an option mixes clips, and a batch holds a single one."""
    if mixes and training.per_device_train_batch_size < 2:
        raise UsageError(f"`{option}` mixes clips of a batch: set `per_device_train_batch_size` to at least 2.")


def check_method(arguments: Any) -> None:
    """Raises a [`UsageError`] for arguments of a distillation, which k-means on the teacher has no use for."""
    if arguments.method == "distillation":
        return
    if arguments.method != "k_means":
        raise UsageError(f"`method` must be distillation or k_means, got {arguments.method!r}.")
    for name in ("teacher_layers", "teacher_normalization"):
        if getattr(arguments, name) is not None:
            raise UsageError(f"`{name}`: k-means clusters the outputs of the last layer as they are; leave it out.")
    if arguments.initialize_from_teacher:
        logger.warning_once("`initialize_from_teacher` changes nothing: by k-means, a tokenizer has these weights.")


def without_recurrent_layers(values: Mapping[str, Any], pooling: str) -> dict[str, Any]:
    """
    Returns what a classifier of clips with such a `classifier_pooling` sets beside `values`: of an event model that it
    is made of, recurrent layers over frames have no place where patches are pooled.
    """
    reads_frames = BeatsConfig(classifier_pooling=values.get("classifier_pooling", pooling)).pools_frames
    return {} if reads_frames or "frame_recurrent_layers" in values else {"frame_recurrent_layers": 0}


def check_usable(training: TrainingArguments) -> None:
    """Raises a [`UsageError`] for an argument of `Trainer` that no command can use."""
    for name, reason in UNUSABLE.items():
        if getattr(training, name) != getattr(type(training), name):
            raise UsageError(f"`{name}`: {reason}; leave it out.")
    if (strategy := training.train_sampling_strategy) not in SAMPLING_STRATEGIES:
        known = ", ".join(SAMPLING_STRATEGIES[:-1])
        raise UsageError(f"`train_sampling_strategy` is {strategy!r}: choose {known} or {SAMPLING_STRATEGIES[-1]}.")


def check_metric(training: Any, names: Collection[str]) -> None:
    """Raises a [`UsageError`] if `metric_for_best_model` is neither the loss nor one of the metrics `names`."""
    known = ["loss", *names]
    given = training.metric_for_best_model
    if given is not None and given.removeprefix("eval_") not in known:
        raise UsageError(f"`metric_for_best_model` is {given!r}: choose {', '.join(known[:-1])} or {known[-1]}.")


def check_search(arguments: Any) -> None:
    """
    Raises a [`UsageError`] for a search that cannot be made: its space is empty, or has an entry by which trials would
    not differ, or of no known kind.
    """
    space, training = arguments.tuning.search_space, arguments.training
    if space is None:
        return
    if arguments.tuning.freeze or not arguments.evaluation.is_given:
        raise UsageError("`search_space` needs full fine-tuning and clips to evaluate on, such as `eval_share`.")
    if not space:
        raise UsageError("`search_space` is empty: name values to try, such as {learning_rate: [1e-4, 1e-3]}.")
    for name, values in space.items():
        if not hasattr(training, name):
            hint = did_you_mean(name, vars(training))
            raise UsageError(f"`search_space` holds {name!r}, which is no training argument{hint}")
        if name not in SEARCHABLE:
            raise UsageError(
                f"`search_space` holds {name!r}, by which trials would not differ: leave it out, or choose "
                f"{', '.join(SEARCHABLE[:-1])} or {SEARCHABLE[-1]}."
            )
        if name == "num_train_epochs" and training.max_steps > 0 and "max_steps" not in space:
            raise UsageError("`search_space` holds 'num_train_epochs', but `max_steps` counts: leave it out.")
        has_range = isinstance(values, dict) and {"low", "high"} <= values.keys() <= {"low", "high", "log"}
        if not has_range and not (isinstance(values, list) and values):
            raise UsageError(f"`search_space.{name}` must be a list or {{low: ..., high: ...}}, got {values!r}.")


def check_training(arguments: Any) -> None:
    """Raises a [`UsageError`] for what `Trainer` would do wrong, or not do; see [`Arguments`]."""
    training = arguments.training
    if arguments.tuning.average_checkpoints and training.load_best_model_at_end:
        raise UsageError(
            "`average_checkpoints` excludes `load_best_model_at_end`, and `early_stopping_patience` with it."
        )
    if arguments.augmentation.balanced_sampling and training.train_sampling_strategy != "random":
        raise UsageError("`balanced_sampling` draws the clips: leave it out, or `train_sampling_strategy`.")
    evaluates = training.eval_strategy != "no" or training.save_strategy == SaveStrategy.BEST
    has_clips = arguments.folds.is_given or arguments.evaluation.is_given
    if evaluates and not has_clips:
        raise UsageError(
            "There is nothing to evaluate on: set `num_folds`, `eval_share`, `eval_split` or `eval_dataset`."
        )
    if arguments.folds.final and "{fold}" in str(arguments.tuning.model_name_or_path):
        raise UsageError("`final` trains one model: it needs a `model_name_or_path` without {fold}.")
    if training.push_to_hub and arguments.folds.is_given and not arguments.folds.final:
        raise UsageError("`push_to_hub` publishes one model: set `final: true`, or `num_folds: null`.")
    if arguments.folds.is_given and training.load_best_model_at_end:
        logger.warning(
            "The best checkpoint of each fold is chosen by the clips that it is evaluated on: metrics will be "
            "optimistic."
        )


def settle_strategies(training: Any) -> None:
    """
    Sets when a training saves and evaluates where nobody chose it, which is None. Where the best model is kept, there
    is a checkpoint at every evaluation: `Trainer` takes the last checkpoint for the best one if that was never saved.

    Raises:
        [`UsageError`]: if what was chosen would not keep the best model, or would not be used.
    """
    stops, compares = training.early_stopping_patience is not None, training.load_best_model_at_end
    saves = training.save_strategy and SaveStrategy(training.save_strategy).value
    evaluates = training.eval_strategy and IntervalStrategy(training.eval_strategy).value
    name = "early_stopping_patience" if stops else "load_best_model_at_end" if compares else "save_strategy: best"
    if evaluates == "no" and (stops or compares or saves == "best"):
        raise UsageError(f"`{name}` needs evaluations: set `eval_strategy` to epoch or steps, or leave it out.")
    if stops:
        training.load_best_model_at_end = True
        # Otherwise it would begin to count anew after an interruption.
        training.restore_callback_states_from_checkpoint = True
    if training.load_best_model_at_end:
        if saves == "no":
            raise UsageError(f"`{name}` needs checkpoints: set `save_strategy` to epoch or steps.")
        has_chosen = evaluates is not None
        if saves is None:
            # Of a small dataset, 500 steps are more than the training.
            saves = evaluates or "epoch"
            if not has_chosen and training.save_steps is not None:
                logger.warning_once(
                    f"`{name}` saves and evaluates every epoch; set `save_strategy: steps` for every "
                    f"{training.save_steps:g} steps (`save_steps`)."
                )
        evaluates = evaluates or ("epoch" if saves == "best" else saves)
        if saves not in ("best", evaluates):
            raise UsageError(
                f"`{name}` needs a checkpoint at every evaluation, but `save_strategy` is {saves} and `eval_strategy` "
                f"{evaluates}: set both alike."
            )
        if saves == "steps":
            settle_steps(training, name, has_chosen)
    if training.eval_steps is not None and evaluates != "steps":
        raise UsageError("`eval_steps` is read with `eval_strategy: steps` only: set this, or leave it out.")
    if saves == "best" and training.metric_for_best_model is None:
        training.metric_for_best_model = "loss"
    if training.save_steps is None:
        training.save_steps = TrainingArguments.save_steps
    training.save_strategy, training.eval_strategy = saves or "steps", evaluates or "no"


def settle_steps(training: Any, name: str, has_chosen: bool) -> None:
    """
    Sets steps of saves and evaluations to the same: what was chosen of both or, if `eval_strategy` was chosen,
    `logging_steps`, its default. Raises a [`UsageError`], which names the argument that needs it, if they differ.
    """
    saves, evaluates = training.save_steps, training.eval_steps
    if None not in (saves, evaluates) and saves != evaluates:
        raise UsageError(
            f"`{name}` needs a checkpoint at every evaluation, but `save_steps` is {saves:g} and `eval_steps` "
            f"{evaluates:g}: set both alike."
        )
    default = training.logging_steps if has_chosen else TrainingArguments.save_steps
    training.save_steps = training.eval_steps = saves or evaluates or default


def check_unlabelled(training: Any) -> None:
    """
    Raises `UsageError` for what needs labels, or clips to evaluate on, which a command has none of, and for a model
    that is to be published: `Trainer` would publish the checkpoints and settings of the training.
    """
    if training.push_to_hub:
        raise UsageError("`push_to_hub` is for `finetune`: leave it out, and call that of the finished model.")
    # Those that set others come first: the error names what was given.
    is_given = {
        "early_stopping_patience": training.early_stopping_patience is not None,
        "load_best_model_at_end": training.load_best_model_at_end,
        "save_strategy: best": training.save_strategy == SaveStrategy.BEST,
        "eval_strategy": training.eval_strategy != IntervalStrategy.NO,
        "metric_for_best_model": training.metric_for_best_model is not None,
    }
    if given := [name for name, is_it in is_given.items() if is_it]:
        raise UsageError(f"`{given[0]}`: there are no clips to evaluate on; leave it out.")
    if training.train_sampling_strategy == "group_by_length":
        raise UsageError("`train_sampling_strategy`: without labels, all crops have one length; leave it out.")
    if training.label_smoothing_factor:
        raise UsageError("`label_smoothing_factor` needs labels; that of codes is `model_config.label_smoothing`.")


def check_config(config_class: type, values: dict | None) -> None:
    """Raises `UsageError` if a configuration does not accept the values; its own exception is no `ValueError`."""
    try:
        config_class(**(values or {}))
    except StrictDataclassError as error:
        raise UsageError(str(error.__cause__ or error)) from error
