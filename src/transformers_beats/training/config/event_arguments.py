# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Arguments of training on events, also with clips whose events are not known."""

from dataclasses import dataclass
from typing import Any

from transformers_beats.configuration_beats import BeatsConfig
from transformers_beats.utils.arguments import argument, check_numbers
from transformers_beats.utils.errors import UsageError


@dataclass
class EventTrainingArguments:
    """Training on events: clips whose classes alone are known, or nothing, and scores of a teacher."""

    clip_loss_weight: float = argument(
        "Weight of the loss of clips beside that of moments: a clip's scores are the linear softmax of those of its "
        "moments, or as `classifier_pooling` of frames says. With it, clips of `event_files` with classes alone are "
        "learned from.",
        0.0,
        min=0,
    )
    consistency_weight: float = argument(
        "Weight of the squared difference from a mean teacher, which is the average of `ema_decay`. With it, clips "
        "without labels are learned from.",
        0.0,
        min=0,
    )
    consistency_warmup: float = argument(
        "Steps over which that weight rises; up to 1, a share of all.", 0.5, positive=True
    )
    event_logits: str | None = argument(
        "Logits of a teacher, to learn its scores as well: HDF5 with `filenames` and `strong_logits` (clips, classes, "
        "steps), as PretrainedSED publishes them for AudioSet-Strong.",
        None,
    )
    event_logits_seconds: float = argument("Time from one of their steps to the next.", 0.04, positive=True)
    distillation_weight: float = argument(
        "Share of the loss of these scores where labels are known as well; the rest is that of the labels.",
        0.9,
        min=0,
        max=1,
    )

    def __post_init__(self):
        check_numbers(self)

    @property
    def kinds(self) -> list[str]:
        """Kinds of knowledge of a clip ([`Labels.knows`]) with which it is learned from."""
        if self.consistency_weight or self.event_logits:
            return ["events", "classes", "nothing"]
        return ["events", "classes"] if self.clip_loss_weight else ["events"]

    @property
    def is_given(self) -> bool:
        """Returns whether there is a loss beside that of the labels of moments."""
        return bool(self.clip_loss_weight or self.consistency_weight or self.event_logits)


def check_attention(events: EventTrainingArguments, config: BeatsConfig) -> None:
    """Raises a [`UsageError`] for a model of moments whose scores of clips have weights that no label teaches."""
    # A mean teacher has such weights itself.
    if config.classifier_pooling == "frame_attention" and not events.clip_loss_weight:
        raise UsageError(
            "`classifier_pooling` is frame_attention, which only labels of clips teach: set `clip_loss_weight`, or "
            "`model_config.classifier_pooling` to mean or frame_mean."
        )


def check_events(arguments: Any) -> None:
    """Raises a [`UsageError`] for arguments of events that cannot be used together; see [`Arguments`]."""
    events, tuning, evaluation = arguments.events, arguments.tuning, arguments.evaluation
    if evaluation.eval_event_files is not None and not evaluation.has_clips:
        raise UsageError("`eval_event_files` are those of other clips: name these by `eval_dataset` or its like.")
    if events.consistency_weight and tuning.ema_decay is None:
        raise UsageError("`consistency_weight` needs a mean teacher: set `ema_decay`, such as 0.999.")
    if events.is_given and tuning.freeze:
        raise UsageError("A probe has no loss of clips, no mean teacher and no `event_logits`: leave them out.")
    if events.is_given and tuning.search_space is not None:
        raise UsageError("`search_space` is for one loss: leave `clip_loss_weight` and its like out.")
