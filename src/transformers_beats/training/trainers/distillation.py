# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Objective and trainer of the distillation of a smaller model."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.utils import ModelOutput

from transformers_beats.modeling_beats import (
    BeatsForAudioClassification,
    BeatsModel,
    BeatsPreTrainedModel,
    at_least_float32,
    masked_mean,
)
from transformers_beats.training.data.augmentation import AugmentationArguments, augment, augment_fbank

from .pretraining import BeatsTrainer, mean_of_states


@dataclass
class DistillationOutput(ModelOutput):
    """
    Output of [`BeatsForDistillation`]. Without a kind of target, its loss is None.

    Args:
        loss (`torch.FloatTensor` of shape `()`):
            `logits_weight * logits_loss + representation_weight * representation_loss`.
        logits_loss (`torch.FloatTensor` of shape `()`, *optional*):
            Mean of [`distances_of_logits`] over the clips.
        representation_loss (`torch.FloatTensor` of shape `()`, *optional*):
            Mean over the clips of one minus the mean cosine of their patches.
        agreement (`torch.FloatTensor` of shape `()`, *optional*):
            Share of the clips whose best class is the teacher's.
        num_clips (`torch.LongTensor` of shape `()`):
            Clips of the batch.
    """

    loss: torch.Tensor | None = None
    logits_loss: torch.Tensor | None = None
    representation_loss: torch.Tensor | None = None
    agreement: torch.Tensor | None = None
    num_clips: torch.Tensor | None = None


def distances_of_logits(
    logits: torch.Tensor, teacher_logits: torch.Tensor, problem_type: str, temperature: float
) -> torch.Tensor:
    """
    Computes what each clip's logits cost, `(batch_size,)`, at least in float32, from two tensors `(batch_size,
    num_labels)`, both divided by the temperature T and multiplied by T^2, so that gradients keep their size (Hinton et
    al., 2015, arXiv:1503.02531). For a single label the Kullback-Leibler divergence from the teacher's softmax; for
    several the binary cross-entropy with the teacher's sigmoid, mean over the classes, as in CED (Dinkel et al., 2023,
    arXiv:2308.11957).
    """
    logits, teacher_logits = (at_least_float32(values) / temperature for values in (logits, teacher_logits))
    if problem_type == "single_label_classification":
        logs, teacher_logs = logits.log_softmax(dim=-1), teacher_logits.log_softmax(dim=-1)
        distances = nn.functional.kl_div(logs, teacher_logs, reduction="none", log_target=True).sum(dim=-1)
    else:
        targets = teacher_logits.sigmoid()
        distances = nn.functional.binary_cross_entropy_with_logits(logits, targets, reduction="none").mean(dim=-1)
    return temperature**2 * distances


def distances_of_states(states: torch.Tensor, teacher_states: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """
    Computes one minus the mean cosine of each clip's patches, `(batch_size,)`, at least in float32, from two tensors
    `(batch_size, num_patches, hidden_size)`, over the patches where `mask` `(batch_size, num_patches)` is true.
    """
    cosine = nn.functional.cosine_similarity(at_least_float32(states), at_least_float32(teacher_states), dim=-1)
    return masked_mean((1 - cosine).unsqueeze(-1), mask).squeeze(-1)


def run_model(
    model: Any, input_values: torch.Tensor, attention_mask: torch.Tensor | None, **kwargs: Any
) -> tuple[Any, torch.Tensor | None]:
    """Returns the output of the encoder of a student or a teacher, and the logits of a classifier, else None."""
    if not isinstance(model, BeatsForAudioClassification):
        return model(input_values, attention_mask=attention_mask, return_dict=True, **kwargs), None
    outputs, states = model.encode(input_values, attention_mask, **kwargs)
    mask = outputs["patch_attention_mask"]
    return outputs, model.classify(states, mask, attention_mask, input_values.shape[1])


class BeatsForDistillation(BeatsPreTrainedModel):
    """
    Student that learns a teacher's logits and representations. For these it has a linear projection of its last hidden
    state to the teacher's width, which is not part of the student; between equal widths it begins as the identity.

    Args:
        student ([`BeatsForAudioClassification`] or [`BeatsModel`]):
            Model that is trained.
        teacher_hidden_size (`int`):
            Width of the teacher.
        problem_type (`str`):
            `"single_label_classification"` or `"multi_label_classification"`; not read for an encoder.
        logits_weight (`float`), representation_weight (`float`):
            Weights of both losses; of one that is 0 nothing is computed, and an encoder has no logits.
        temperature (`float`, defaults to 1.0):
            Temperature of the logits.
    """

    def __init__(
        self,
        student: BeatsForAudioClassification | BeatsModel,
        teacher_hidden_size: int,
        problem_type: str,
        logits_weight: float,
        representation_weight: float,
        temperature: float = 1.0,
    ):
        super().__init__(student.config)
        self.student = student
        self.problem_type, self.temperature = problem_type, temperature
        self.logits_weight, self.representation_weight = logits_weight, representation_weight
        width = student.config.hidden_size
        self.projection = nn.Linear(width, teacher_hidden_size) if representation_weight else None
        self.post_init()
        if self.projection is not None and width == teacher_hidden_size:
            nn.init.eye_(self.projection.weight)

    def forward(
        self,
        input_values: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        teacher_logits: torch.Tensor | None = None,
        teacher_states: torch.Tensor | None = None,
    ) -> DistillationOutput:
        """
        Computes the losses of a batch, in which every clip counts alike, and padding does not count.

        Args:
            input_values, attention_mask:
                See [`BeatsModel`].
            teacher_logits (`torch.FloatTensor` of shape `(batch_size, num_labels)`, *optional*):
                The teacher's logits of the same `input_values`.
            teacher_states (`torch.FloatTensor` of shape `(batch_size, num_patches, teacher_hidden_size)`, *optional*):
                The teacher's representations of the same `input_values`.
        """
        logits_loss = representation_loss = agreement = None
        outputs, logits = run_model(self.student, input_values, attention_mask)
        losses = []
        if logits is not None and teacher_logits is not None:
            distances = distances_of_logits(logits, teacher_logits, self.problem_type, self.temperature)
            logits_loss = distances.mean()
            losses.append(self.logits_weight * logits_loss)
            agreement = (logits.argmax(dim=-1) == teacher_logits.argmax(dim=-1)).float().mean()
        if self.projection is not None and teacher_states is not None:
            projected, mask = self.projection(outputs["last_hidden_state"]), outputs["patch_attention_mask"]
            representation_loss = distances_of_states(projected, teacher_states, mask).mean()
            losses.append(self.representation_weight * representation_loss)
        return DistillationOutput(
            loss=torch.stack(losses).sum() if losses else None,
            logits_loss=logits_loss,
            representation_loss=representation_loss,
            agreement=agreement,
            num_clips=torch.tensor(len(input_values), device=input_values.device),
        )


class DistillationTrainer(BeatsTrainer):
    """
    [`BeatsTrainer`] of [`BeatsForDistillation`]. Logs both losses, and the share of clips whose best class is the
    teacher's. Teacher and student see the same views of the clips (consistent teaching, the lesson of CED): crop and
    augmentation are made once for both.

    Args:
        teacher ([`BeatsModel`] or [`BeatsForAudioClassification`]):
            Teacher, which is not trained and has no dropout.
        layers (`list[int]`, *optional*):
            Its hidden states whose mean is learned, 0 being the input of the first layer; by default the last.
        augmentation ([`AugmentationArguments`], *optional*):
            Augmentation of the views.
    """

    def __init__(
        self,
        *args,
        teacher: PreTrainedModel,
        layers: list[int] | None = None,
        augmentation: AugmentationArguments | None = None,
        **kwargs,
    ):
        super().__init__(*args, **kwargs)
        self.teacher = teacher.requires_grad_(False).eval().to(self.args.device)
        self.layers, self.augmentation = [-1] if layers is None else layers, augmentation or AugmentationArguments()

    def _prepare_inputs(self, inputs):
        if "waveforms" in inputs:
            # Mixing is written for labels, which there are none of.
            unlabelled = {**inputs, "labels": inputs["waveforms"].new_zeros(len(inputs["waveforms"]), 1)}
            inputs = augment(unlabelled, self.augmentation, self.args.device)
            del inputs["labels"]
        inputs = super()._prepare_inputs(inputs)
        values, mask = inputs["input_values"], inputs["attention_mask"]
        views = augment_fbank(values, mask, self.augmentation, self.feature_extractor.fbank_std)
        inputs = {**inputs, "input_values": views}
        return inputs | self.teach(views, mask)

    @torch.no_grad()
    def teach(self, input_values: torch.Tensor, attention_mask: torch.Tensor) -> dict[str, torch.Tensor]:
        """Computes the targets of [`BeatsForDistillation`] of a batch."""
        model: Any = self.accelerator.unwrap_model(self.model)
        # Of a large model, all hidden states are many.
        needs_all = model.projection is not None and self.layers != [-1]
        with self.accelerator.autocast():
            outputs, logits = run_model(self.teacher, input_values, attention_mask, output_hidden_states=needs_all)
        targets = {}
        if logits is not None and model.logits_weight:
            targets["teacher_logits"] = logits
        if model.projection is not None:
            states = [outputs["last_hidden_state"]]
            if needs_all:
                states = [outputs["hidden_states"][layer] for layer in self.layers]
            targets["teacher_states"] = mean_of_states(states)
        return targets

    def measure(self, outputs: Mapping, inputs: Mapping) -> dict[str, torch.Tensor]:
        names = ("logits_loss", "representation_loss", "agreement")
        return {name: outputs[name] for name in names if outputs.get(name) is not None}

    def num_counted(self, outputs: Mapping) -> torch.Tensor:
        return outputs["num_clips"]
