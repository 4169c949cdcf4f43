# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Checks of a stage that `iterate` makes before its first one, too."""

import math
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from transformers.trainer_utils import SaveStrategy

from transformers_beats import BeatsConfig, BeatsModel
from transformers_beats.utils.errors import BeatsError, UsageError


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


def without_recurrent_layers(values: Mapping[str, Any], pooling: str) -> dict[str, Any]:
    """
    Returns what a classifier of clips with such a `classifier_pooling` sets beside `values`: of an event model that it
    is made of, recurrent layers over frames have no place where patches are pooled.
    """
    reads_frames = BeatsConfig(classifier_pooling=values.get("classifier_pooling", pooling)).pools_frames
    return {} if reads_frames or "frame_recurrent_layers" in values else {"frame_recurrent_layers": 0}


def check_unlabelled(training: Any) -> None:
    """Raises `UsageError` for what needs labels, or clips to evaluate on, which a command has none of."""
    if training.eval_strategy != "no":
        raise UsageError("`eval_strategy`: there are no clips to evaluate on; leave it out.")
    if training.label_smoothing_factor:
        raise UsageError("`label_smoothing_factor` needs labels; that of codes is `model_config.label_smoothing`.")


def check_config(config_class: type, values: dict | None) -> None:
    """Raises `UsageError` if a configuration does not accept the values; its own exception is no `ValueError`."""
    try:
        config_class(**(values or {}))
    except StrictDataclassError as error:
        raise UsageError(str(error.__cause__ or error)) from error
