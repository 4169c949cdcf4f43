# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""`Trainer` of a classifier of moments, on clips of which events, classes or nothing is known."""

import math
from typing import Any

import torch
from torch.func import functional_call
from torch.nn.functional import binary_cross_entropy, binary_cross_entropy_with_logits

from transformers_beats.modeling_beats import at_least_float32
from transformers_beats.training.config.event_arguments import EventTrainingArguments

from .classification import ClassificationTrainer
from .pretraining import WarnOfWarmup


# Steepness of the rise of the weight of a mean teacher (Laine and Aila, 2017; Tarvainen and Valpola, 2017).
STEEPNESS = 5.0
# Smallest distance of a score from 0 and 1 in a loss.
EPSILON = 1e-6


def pool_scores(scores: torch.Tensor, is_valid: torch.Tensor) -> torch.Tensor:
    """
    Computes the scores of clips from those of their moments: means weighted by the scores themselves (linear softmax;
    Wang et al., 2019, arXiv 1810.09050).

    Args:
        scores (`torch.FloatTensor` of shape `(batch_size, num_columns, num_labels)`):
            In [0, 1].
        is_valid (`torch.Tensor` of shape `(batch_size, num_columns)`):
            0 for padding.

    Returns:
        `torch.FloatTensor` of shape `(batch_size, num_labels)`: 0 of a clip without columns.
    """
    weights = scores * is_valid.to(scores.dtype).unsqueeze(-1)
    return (weights * scores).sum(dim=1) / weights.sum(dim=1).clamp(min=EPSILON)


def scores_of(outputs: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """
    Returns the scores of moments `(batch_size, num_columns, num_labels)` and of clips `(batch_size, num_labels)`, at
    least in float32, from the output of a classifier of moments: those of its own `classifier_pooling` of frames, or
    by [`pool_scores`].
    """
    scores, clip_logits = at_least_float32(outputs["logits"]).sigmoid(), outputs.get("clip_logits")
    if clip_logits is None:
        return scores, pool_scores(scores, outputs["column_attention_mask"])
    return scores, at_least_float32(clip_logits).sigmoid()


def known_loss(scores: torch.Tensor, targets: torch.Tensor, logits: torch.Tensor | None = None) -> torch.Tensor:
    """
    Computes the mean binary cross-entropy of scores whose target is known, which is not NaN; 0 without any. With
    `logits`, of which the scores are the sigmoid, it is computed from these, all of the same shape.
    """
    is_known, known = ~torch.isnan(targets), targets.nan_to_num(0.0)
    if logits is None:
        each = binary_cross_entropy(scores.clamp(EPSILON, 1 - EPSILON), known, reduction="none")
    else:
        # A score that is wrong and near 0 or 1 has a gradient, too.
        each = binary_cross_entropy_with_logits(at_least_float32(logits), known, reduction="none")
    return (each * is_known).sum() / is_known.sum().clamp(min=1)


def mix_targets(labels: torch.Tensor, teacher: torch.Tensor, share: float) -> torch.Tensor:
    """
    Mixes labels of moments with a `share` of the scores of a teacher, of the same shape. Where one of both is NaN, the
    other counts alone. The binary cross-entropy of the mixture is the same mixture of both losses.
    """
    mixed = (1 - share) * labels + share * teacher
    return torch.where(torch.isnan(labels), teacher, torch.where(torch.isnan(teacher), labels, mixed))


def consistency_share(step: int, num_steps: float) -> float:
    """Returns the share of the weight of a mean teacher in a step: exp(-5 (1 - t)^2), 1 from `num_steps` on."""
    return math.exp(-STEEPNESS * (1 - min(1.0, step / max(1.0, num_steps))) ** 2)


class WarnOfConsistency(WarnOfWarmup):
    """Says where a training is over before the weight of the mean teacher has risen to what was asked for."""

    name, target = "consistency_warmup", "consistency_weight"

    def __init__(self, events: EventTrainingArguments):
        # Up to 1, it is a share.
        self.warmup = events.consistency_warmup if events.consistency_weight else 0.0

    def count_steps(self, args, max_steps):
        return self.warmup


class EventTrainer(ClassificationTrainer):
    """
    [`ClassificationTrainer`] of a classifier of moments. The loss is the sum of that of the moments and classes whose
    labels are known, which are not NaN, and of those that [`EventTrainingArguments`] give a weight.
    """

    def __init__(self, *args: Any, events: EventTrainingArguments, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.events = events
        self.add_callback(WarnOfConsistency(events))

    def _prepare_inputs(self, inputs):
        inputs = super()._prepare_inputs(inputs)
        labels = inputs.get("labels")
        if labels is not None:
            num_labels = self.num_labels
            # Evaluations have no teacher.
            if labels.shape[-1] > num_labels:
                labels, teacher = labels[..., :num_labels], labels[..., num_labels:]
                labels = mix_targets(labels, teacher, self.events.distillation_weight)
            # What does not count to the model.
            inputs["labels"] = labels.nan_to_num(nan=-100.0)
        return inputs

    @property
    def num_labels(self) -> int:
        """Number of classes of the model."""
        return self.accelerator.unwrap_model(self.classifier).config.num_labels

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        clip_labels = inputs.pop("clip_labels", None)
        loss, outputs = super().compute_loss(model, inputs, True, num_items_in_batch)
        if model.training:
            is_valid = outputs["column_attention_mask"]
            scores, clips = scores_of(outputs)
            if clip_labels is not None and self.events.clip_loss_weight:
                of_clips = known_loss(clips, clip_labels.to(clips), outputs.get("clip_logits"))
                loss = loss + self.events.clip_loss_weight * of_clips
            if self.events.consistency_weight:
                loss = loss + self._consistency_weight() * self._consistency(model, inputs, scores, clips, is_valid)
        return (loss, outputs) if return_outputs else loss

    def _consistency_weight(self) -> float:
        warmup = self.events.consistency_warmup
        num_steps = warmup * self.state.max_steps if warmup <= 1 else warmup
        return self.events.consistency_weight * consistency_share(self.state.global_step, num_steps)

    def _consistency(
        self, model: Any, inputs: Any, scores: torch.Tensor, clips: torch.Tensor, is_valid: torch.Tensor
    ) -> torch.Tensor:
        """Computes the mean squared difference from the scores of the average of the weights, without dropout."""
        if self.weight_average is None or not self.weight_average.values:
            return scores.new_zeros(())
        plain = self.accelerator.unwrap_model(model)
        weights = {name: value.to(scores.device) for name, value in self.weight_average.values.items()}
        features = {name: inputs[name] for name in ("input_values", "attention_mask")}
        plain.eval()
        try:
            with torch.no_grad(), self.compute_loss_context_manager():
                teacher, teacher_clips = scores_of(functional_call(plain, weights, (), features))
        finally:
            plain.train()
        each = (scores - teacher).square() * is_valid.to(scores.dtype).unsqueeze(-1)
        of_moments = each.sum() / (is_valid.sum() * scores.shape[-1]).clamp(min=1)
        return of_moments + (clips - teacher_clips).square().mean()
