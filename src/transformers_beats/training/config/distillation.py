# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Arguments of `distill`."""

from dataclasses import dataclass
from typing import Any, ClassVar

from transformers import PreTrainedConfig

from transformers_beats import BeatsConfig
from transformers_beats.training.data.augmentation import AugmentationArguments
from transformers_beats.training.data.sources import DataArguments
from transformers_beats.utils.arguments import argument, check_numbers
from transformers_beats.utils.errors import UsageError, did_you_mean

from .arguments import EXTRACTOR_HELP, BeatsTrainingArguments
from .batch_plan import BatchArguments
from .checks import check_partners


# Widths and depth of CED (Dinkel et al., 2023, arXiv:2308.11957; its code), which has the proportions of vision
# transformers: feed-forward networks of four times the width, heads of 64 dimensions.
SIZES: dict[str, dict[str, int]] = {
    name: {
        "embed_dim": width,
        "hidden_size": width,
        "num_hidden_layers": 12,
        "num_attention_heads": width // 64,
        "intermediate_size": 4 * width,
    }
    for name, width in (("tiny", 192), ("mini", 256), ("small", 384))
}
# What a saved configuration has, and a new model gets anew: settings of events were tuned for other weights.
NOT_ARCHITECTURE = ("architectures", "auto_map", "dtype", "event_settings", "model_type", "transformers_version")
# Settings of a classifier's configuration that an encoder has no use for.
OF_HEADS = ("classifier_pooling", "frame_pooling", "frame_recurrent_layers")
OF_CLASSES = ("num_labels", "id2label", "label2id", "problem_type")
# Settings that a student has of its teacher: the fbank and the patches that both read, and the classes.
INHERITED = ("num_mel_bins", "patch_size", "legacy_padding_mask", *OF_CLASSES)


def architecture_of(config: PreTrainedConfig, with_head: bool = False) -> dict[str, Any]:
    """Returns the settings by which a model of the architecture of another one is made: its encoder, or all of it."""
    left_out = NOT_ARCHITECTURE if with_head else (*NOT_ARCHITECTURE, *OF_CLASSES, *OF_HEADS)
    return {name: value for name, value in config.to_dict().items() if name not in left_out}


@dataclass
class DistillationArguments:
    """Teacher, student, and what the student learns."""

    _sections: ClassVar[dict[str, tuple[type, ...]]] = {"model_config": (BeatsConfig,)}

    teacher: str = argument("Name, directory or Hub id of a BEATs classifier or encoder: the first word, or this key.")
    size: str | None = argument(
        "Size of the student: tiny, mini or small. They have 12 layers of width 192, 256 or 384; from a teacher like "
        "the released ones, 5.7, 10.1 or 22.6 million parameters.",
        None,
    )
    model_config: dict | None = argument(
        "Configuration of the student: what differs from its `size` or, without one, from the teacher.", None
    )
    initialize_from_teacher: bool = argument(
        "Start from every k-th layer of the teacher, if all widths are the teacher's. Otherwise, random weights.", True
    )
    feature_extractor: str | None = argument(EXTRACTOR_HELP, None)
    logits_weight: float | None = argument(
        "Weight of the loss of the logits. Default: 1 with a classifier, which an encoder is not. 0: the student of a "
        "classifier is an encoder.",
        None,
        min=0,
    )
    representation_weight: float = argument("Weight of the loss of the patches' representations. 0: none.", 1.0, min=0)
    temperature: float = argument("Temperature of the logits of both.", 1.0, positive=True)
    teacher_layers: list[int] | None = argument(
        "Layers of the teacher whose mean is the representation: 1 is the first, -1 the last, 0 the input of the "
        "first. Default: the last.",
        None,
    )

    def __post_init__(self):
        check_numbers(self)
        if self.size is not None and self.size not in SIZES:
            hint = did_you_mean(self.size, SIZES) or f": choose {', '.join(SIZES)}, or leave it out."
            raise UsageError(f"There is no `size` {self.size!r}{hint}")
        if self.size is None and not self.model_config:
            raise UsageError(
                f"The student has no size: set `size` ({', '.join(SIZES)}), or `model_config` to what differs from "
                "the teacher's, such as {num_hidden_layers: 4}."
            )
        if given := [name for name in INHERITED if name in (self.model_config or {})]:
            raise UsageError(f"`model_config.{given[0]}` of a student is its teacher's: leave it out.")
        if self.representation_weight == 0 and self.logits_weight == 0:
            raise UsageError("`logits_weight` and `representation_weight` are 0: there is nothing to learn.")
        if self.representation_weight == 0 and self.teacher_layers is not None:
            raise UsageError("`teacher_layers` are those of the representations: set `representation_weight`.")


DISTILL_ARGUMENTS: tuple[Any, ...] = (
    *(DistillationArguments, DataArguments, AugmentationArguments),
    *(BatchArguments, BeatsTrainingArguments),
)


def check_views(augmentation: AugmentationArguments, data: DataArguments, training: BeatsTrainingArguments) -> None:
    """Raises a [`UsageError`] for augmentation that needs labels, audio that is not read, or another clip."""
    if augmentation.balanced_sampling:
        raise UsageError("`balanced_sampling` needs labels, which a distillation does not read: leave it out.")
    if data.precompute_fbank and (augmentation.roll or augmentation.mixes):
        raise UsageError(
            "`roll` and `mixup_alpha` change the audio, which `precompute_fbank` does not read: leave one of them out."
        )
    check_partners("mixup_alpha", augmentation.mixes, training)
