# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""
Heads of PretrainedSED's checkpoints (`fschmid56/PretrainedSED`, `models/prediction_wrapper.py`, `models/seq_models.py`):
the sequence of patches pooled to steps of 40 ms, an optional recurrent layer `seq_model`, and two linear layers,
`strong_head` for events and `weak_head` for clips. Their code makes both layers, whichever of them is trained.
"""  # noqa: E501

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from transformers_beats.audio.audioset import AUDIOSET_LABELS, AUDIOSET_STRONG_LABELS

from .names import Head, Kind
from .reading import CheckpointError


# Names under which the wrapper has the model, and its heads beside it.
MODELS = ("model.model.", "model.beats.")
STRONG, WEAK = HEADS = ("strong_head.", "weak_head.")
RECURRENT = "seq_model."


@dataclass
class SedHead:
    """
    Head that has a place here.

    Args:
        prefix (`str`):
            Name before `weight` and `bias` of the classifier.
        kind (`str`):
            Kind of the model with it.
        settings (`dict[str, Any]`):
            Its fields of [`BeatsConfig`].
        names (`dict[str, str]`):
            Further tensors: their names in the file, and ours.
    """

    prefix: str
    kind: Kind = "event-classifier"
    settings: dict[str, Any] = field(default_factory=lambda: {"frame_pooling": "sequence"})
    names: dict[str, str] = field(default_factory=dict)


def root_of(prefix: str) -> str | None:
    """Returns the name of the wrapper around a model of this name; None if it has another wrapper."""
    return next((prefix.removesuffix(name) for name in MODELS if prefix.endswith(name)), None)


def find_head(root: str, state_dict: Mapping[str, torch.Tensor], choice: Head) -> SedHead | str:
    """
    Finds the head in a file, by default `strong_head` if nothing speaks against its being trained.

    Args:
        root (`str`):
            Name of the wrapper, see [`root_of`].
        state_dict (`Mapping[str, torch.Tensor]`):
            Tensors of the file.
        choice ([`Head`]):
            Head that is wanted.

    Returns:
        [`SedHead`], or a `str`, the reason why none is taken.

    Raises:
        [`CheckpointError`]: if the head that is wanted is not in the file, or has no place here.
    """
    recurrent = _find_recurrent(root, state_dict)
    obstacle = recurrent if isinstance(recurrent, str) else _obstacle(root, state_dict, choice)
    if obstacle and choice is Head.AUTO:
        return obstacle
    if obstacle:
        raise CheckpointError(f"--head {choice.value}: {obstacle}.")
    head = SedHead(f"{root}{WEAK if choice is Head.WEAK else STRONG}")
    if not isinstance(recurrent, str) and recurrent:
        size = state_dict[f"{root}{RECURRENT}rnn.weight_hh_l0"].shape[1]
        head.settings |= {"frame_recurrent_layers": len(recurrent) // 8, "frame_recurrent_size": size}
        head.names |= recurrent
    if choice is Head.WEAK:
        head.kind = "finetuned"
        head.settings["classifier_pooling"] = "frame_mean"
    elif choice is Head.ATTENTION:
        head.settings["classifier_pooling"] = "frame_attention"
        head.names |= {f"{root}{WEAK}{part}": f"pooling.attention.{part}" for part in ("weight", "bias")}
    return head


def _find_recurrent(root: str, state_dict: Mapping[str, torch.Tensor]) -> dict[str, str] | str:
    """Returns the names of the parameters of `seq_model` and ours, none without one; or why it has no place here."""
    keys = {key for key in state_dict if key.startswith(f"{root}{RECURRENT}")}
    # Of each layer and direction four.
    names = {
        f"{root}{RECURRENT}rnn.{part}_l{depth}{suffix}": f"recurrent.{direction}_layers.{depth}.{part}"
        for depth in range(len(keys) // 8)
        for direction, suffix in (("forward", ""), ("backward", "_reverse"))
        for part in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    }
    weight = state_dict.get(f"{root}{RECURRENT}rnn.weight_hh_l0")
    # An LSTM has four gates.
    is_gru = weight is not None and weight.ndim == 2 and weight.shape[0] == 3 * weight.shape[1]
    if keys and not (is_gru and keys == names.keys()):
        return "it reads the states of `seq_model`, which is no bidirectional GRU"
    return names


def _obstacle(root: str, state_dict: Mapping[str, torch.Tensor], choice: Head) -> str:
    """Returns the reason why the head that is wanted cannot be taken, or an empty string."""
    needed = {Head.WEAK: (WEAK,), Head.ATTENTION: HEADS}.get(choice, (STRONG,))
    if choice is Head.AUTO and f"{root}{STRONG}weight" not in state_dict and f"{root}{WEAK}weight" in state_dict:
        return "nothing says whether `weak_head`, the only one, was trained: --head weak takes it"
    for head in needed:
        for part in ("weight", "bias"):
            if f"{root}{head}{part}" not in state_dict:
                return f"`{head.rstrip('.')}` has no {part}"
        if state_dict[f"{root}{head}weight"].ndim != 2:
            return f"the weight of `{head.rstrip('.')}` is no matrix"
    strong, weak = (_count_classes(state_dict.get(f"{root}{head}weight")) for head in HEADS)
    if choice is Head.ATTENTION and strong != weak:
        return f"`strong_head` has {strong} classes and `weak_head` {weak}, which must be the same"
    if choice is Head.ATTENTION and strong == 1:
        return "a softmax over the classes gives the only one equal weights everywhere: --head strong takes it"
    if choice is not Head.AUTO:
        return ""
    if strong == len(AUDIOSET_LABELS):
        return (
            f"`strong_head` has the {strong} classes of AudioSet's clips, which have no times to train it: --head "
            "weak takes `weak_head`, if that was trained"
        )
    if weak and strong != weak:
        return (
            f"`strong_head` has {strong} classes and `weak_head` {weak}: one of the two was not trained, and nothing "
            "says which: --head strong or weak takes it"
        )
    return ""


def _count_classes(weight: torch.Tensor | None) -> int:
    """Returns the number of classes of a head, 0 without one."""
    return len(weight) if weight is not None and weight.ndim == 2 else 0


def describe_head(head: SedHead, num_labels: int) -> tuple[list[str], Mapping[str, str] | None]:
    """Returns notes on a head of so many classes, and the names of its classes, None if they are not known."""
    name = head.prefix.split(".")[-2]
    untold = f"nothing in the file says whether `{name}` was trained: listen to its results"
    if head.kind == "finetuned":
        notes = [
            "it reads the mean over steps of 40 ms, as `weak_head` of PretrainedSED does, scored by a sigmoid",
            untold,
        ]
    else:
        notes = [
            "it reads steps of 40 ms, as `strong_head` of PretrainedSED does: an event is scored every 40 ms, by a "
            "sigmoid"
        ]
    if "frame_recurrent_layers" in head.settings:
        notes.append("`seq_model` became the recurrent layers before it")
    if head.settings.get("classifier_pooling") == "frame_attention":
        notes.append(
            "`weak_head` became the attention by which BeatsForAudioClassification scores clips with these weights: "
            '`head_type="attention"`, of which the file says nothing'
        )
    if num_labels == len(AUDIOSET_STRONG_LABELS):
        if head.kind == "finetuned":
            notes.append("PretrainedSED's training on AudioSet-Strong does not train `weak_head`: --head strong")
        notes.append(
            "its 447 classes are those of AudioSet-Strong, in PretrainedSED's order, unless others were given"
        )
        return notes, AUDIOSET_STRONG_LABELS
    if num_labels == len(AUDIOSET_LABELS) and head.kind == "finetuned":
        notes.append(
            "that its 527 classes have the order of AudioSet's class_labels_indices.csv is assumed, unless others "
            "were given"
        )
        return notes, AUDIOSET_LABELS
    return notes if head.kind == "finetuned" else [*notes, untold], None
