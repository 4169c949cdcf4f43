# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Arguments of `finetune`."""

from dataclasses import asdict, dataclass, field
from typing import ClassVar

from transformers.utils import logging

from transformers_beats import BeatsConfig
from transformers_beats.training.data.folds import FoldArguments
from transformers_beats.training.data.labels import LabelArguments
from transformers_beats.training.data.sources import DataArguments
from transformers_beats.training.trainers.classification import AugmentationArguments

from .arguments import BatchArguments, BeatsTrainingArguments, check_at_least, check_config


logger = logging.get_logger(__name__)


@dataclass
class FineTuningArguments:
    """What is fine-tuned, and how."""

    _sections: ClassVar[dict[str, tuple[type, ...]]] = {"config": (BeatsConfig,)}

    model_name_or_path: str | None = field(
        default=None,
        metadata={
            "help": "Directory or Hub id of a pre-trained or fine-tuned model; {fold} in it stands for the fold. "
            "Default: random weights."
        },
    )
    config: dict | None = field(
        default=None, metadata={"help": "Configuration of a new model; of another one, what differs from its own."}
    )
    feature_extractor: str | None = field(
        default=None,
        metadata={"help": "Directory or Hub id of a feature extractor. Default: the model's; AudioSet's statistics."},
    )
    fbank_mean: float | None = field(
        default=None, metadata={"help": "Mean of the fbank before normalisation, in the feature extractor's place."}
    )
    fbank_std: float | None = field(default=None, metadata={"help": "Likewise, the standard deviation."})
    freeze: bool = field(
        default=False, metadata={"help": "Linear probing: the encoder is run once, and only the classifier trained."}
    )
    lora: dict | None = field(
        default=None, metadata={"help": "Low-rank adapters, fields of PEFT's LoraConfig; {} for defaults."}
    )
    layer_wise_learning_rate_decay: float = field(
        default=1.0, metadata={"help": "Factor of the learning rate from a layer to the one before it."}
    )
    layer_wise_gradient_decay_ratio: float = field(
        default=1.0,
        metadata={"help": "Factor of the gradient from a layer to the one before it, as in Microsoft's code."},
    )
    average_checkpoints: int = field(
        default=0, metadata={"help": "Average the weights of so many of the last checkpoints. 0: the last weights."}
    )

    def __post_init__(self):
        check_at_least(self, 0, "average_checkpoints")
        for name in ("layer_wise_learning_rate_decay", "layer_wise_gradient_decay_ratio"):
            if not 0 < getattr(self, name) <= 1:
                raise ValueError(f"`{name}` must lie in (0, 1], got {getattr(self, name)}.")
        if self.fbank_std is not None and not self.fbank_std > 0:
            raise ValueError(f"`fbank_std` must be positive, got {self.fbank_std}.")
        if self.freeze and self.lora is not None:
            raise ValueError("`freeze` and `lora` exclude each other: the one trains no layer, the other all.")
        if self.average_checkpoints and (self.freeze or self.lora is not None):
            raise ValueError("`average_checkpoints` is for full fine-tuning: leave `freeze` and `lora` out.")
        if self.model_name_or_path is None:
            check_config(BeatsConfig, self.config)


@dataclass
class EvaluationDataArguments:
    """The clips to evaluate on, if there are no folds. `data` says how they are read."""

    eval_dataset: str | None = field(default=None, metadata={"help": "As `dataset`. Default: the same."})
    eval_split: str | None = field(default=None, metadata={"help": "As `split`."})
    eval_select: dict | None = field(default=None, metadata={"help": "As `select`: {fold: 5}."})

    @property
    def is_given(self) -> bool:
        return any(value is not None for value in asdict(self).values())


FINETUNE_ARGUMENTS = (
    FineTuningArguments,
    DataArguments,
    LabelArguments,
    EvaluationDataArguments,
    FoldArguments,
    AugmentationArguments,
    BatchArguments,
    BeatsTrainingArguments,
)


@dataclass
class Arguments:
    """All arguments of the command."""

    tuning: FineTuningArguments
    data: DataArguments
    labels: LabelArguments
    evaluation: EvaluationDataArguments
    folds: FoldArguments
    augmentation: AugmentationArguments
    batch: BatchArguments
    training: BeatsTrainingArguments

    def __post_init__(self):
        if self.data.streaming or self.data.precompute_fbank:
            raise ValueError("Fine-tuning reads audio from disk: leave `streaming` and `precompute_fbank` out.")
        if self.folds.is_given and self.evaluation.is_given:
            raise ValueError("Folds say what is evaluated: leave `eval_dataset`, `eval_split` and `eval_select` out.")
        self._check_training()
        self._leave_out()

    def _check_training(self) -> None:
        """Raises what `Trainer` would do wrong, or not do."""
        training = self.training
        if self.tuning.average_checkpoints and training.load_best_model_at_end:
            raise ValueError("`average_checkpoints` and `load_best_model_at_end` exclude each other.")
        if training.bf16_full_eval or training.fp16_full_eval:
            raise ValueError("`bf16_full_eval` and `fp16_full_eval` would change the model that is saved: use `bf16`.")
        evaluates = training.eval_strategy != "no" or training.load_best_model_at_end
        if evaluates and not self.folds.is_given and not self.evaluation.is_given:
            raise ValueError("There is nothing to evaluate on: set `num_folds`, `eval_dataset` or `eval_split`.")
        if self.folds.is_given and training.load_best_model_at_end:
            logger.warning("The best checkpoint of each fold is chosen by the clips it is evaluated on: too good.")

    def _leave_out(self) -> None:
        """Sets back, with a warning, what a recipe for full fine-tuning says and neither probe nor adapters use."""
        left_out = []
        if self.tuning.freeze or self.tuning.lora is not None:
            for name in ("layer_wise_learning_rate_decay", "layer_wise_gradient_decay_ratio"):
                if getattr(self.tuning, name) != 1:
                    setattr(self.tuning, name, 1.0)
                    left_out.append(name)
        if self.tuning.freeze:
            default = AugmentationArguments()
            left_out += [name for name, value in asdict(default).items() if getattr(self.augmentation, name) != value]
            self.augmentation = default
            if self.training.eval_strategy != "no" or self.training.load_best_model_at_end:
                self.training.eval_strategy, self.training.load_best_model_at_end = "no", False
                left_out.append("eval_strategy")
        if left_out:
            kind = "freeze" if self.tuning.freeze else "lora"
            logger.warning(f"With `{kind}` there is no place for {', '.join(left_out)}: left out.")


__all__ = ["FINETUNE_ARGUMENTS", "Arguments", "EvaluationDataArguments", "FineTuningArguments"]
