# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Arguments of the training commands."""

import os
from dataclasses import asdict, dataclass, field, fields
from typing import Any, ClassVar, Literal

import torch
from transformers import IntervalStrategy, SchedulerType, TrainingArguments
from transformers.integrations import get_available_reporting_integrations
from transformers.trainer_utils import SaveStrategy
from transformers.utils import logging
from transformers.utils.generic import strtobool

from transformers_beats import BeatsConfig, BeatsTokenizerConfig
from transformers_beats.training.data.augmentation import AugmentationArguments
from transformers_beats.training.data.folds import FoldArguments
from transformers_beats.training.data.labels import LabelArguments
from transformers_beats.training.data.sources import DataArguments
from transformers_beats.utils.arguments import argument, check_numbers, find_problem
from transformers_beats.utils.errors import UsageError, install_command
from transformers_beats.utils.machine import is_emulated

from .batch_plan import BatchArguments
from .checks import (
    check_config,
    check_kept,
    check_method,
    check_probes,
    check_search,
    check_training,
    check_usable,
    settle_strategies,
)
from .event_arguments import EventTrainingArguments, check_events


logger = logging.get_logger(__name__)

TIMEOUT_SECONDS = 12 * 3600
DIAGNOSIS_CLIPS = 200
DIAGNOSIS_HELP = "Clips, at most, that the codes are examined on, beside the tokenizer or the codes. 0: no diagnosis."
LAYERS_HELP = (
    "Layers of the teacher whose mean is learned: 1 is the first, -1 the last, 0 the input of the first. Default: the "
    "last; a classifier's logits."
)
NORMALIZATION_HELP = (
    "layer_norm: each layer's output for a patch has zero mean and unit variance before the mean over layers. "
    "center: less the mean of its band (the patches of one frequency) over the clips that one device takes at a time. "
    "Default: as it is."
)
EXTRACTOR_HELP = (
    "Name, directory or Hub id of a feature extractor. Default: that of the tokenizer, teacher or model; without any, "
    "AudioSet's statistics."
)


def is_bf16_slow() -> bool:
    """Returns, with a warning, whether the CPU emulates bfloat16; see [`is_emulated`]."""
    if not is_emulated(torch.bfloat16, "cpu"):
        return False
    logger.warning_once("This CPU does not compute in bfloat16: float32 is used (`bf16: false`).")
    return True


def is_on_cpu() -> bool:
    """Returns whether there is no accelerator, or accelerate was told to leave it alone."""
    return not torch.accelerator.is_available() or bool(strtobool(os.environ.get("ACCELERATE_USE_CPU", "false")))


@dataclass
class BeatsTrainingArguments(TrainingArguments):
    """
    Training, with the defaults of this project.

    These are [`~transformers.TrainingArguments`]. A machine without an accelerator is recognised, and so is
    `ACCELERATE_USE_CPU`.
    """

    # The fields that `--help` shows.
    _shown: ClassVar[str] = (
        "output_dir learning_rate num_train_epochs max_steps per_device_train_batch_size gradient_accumulation_steps "
        "warmup_steps bf16 seed logging_steps save_strategy save_steps save_total_limit eval_strategy "
        "early_stopping_patience dataloader_num_workers report_to"
    )

    # `TrainingArguments` would write to `trainer_output`.
    output_dir: str = argument("Directory that the model is written to.")  # ty: ignore[incompatible-mutable-override]
    adam_beta2: float = argument("Second beta of AdamW, as in the paper.", 0.98)
    weight_decay: float = argument("Weight decay, as in the paper.", 0.01)
    max_grad_norm: float = argument("Gradient clipping, as in ESPnet.", 1.0)
    lr_scheduler_type: SchedulerType | str = argument("Learning rate schedule.", "linear")
    remove_unused_columns: bool = argument("The collator reads what no model takes.", False)
    report_to: str | list[str] | None = argument("Trackers, such as tensorboard.", "none")
    save_total_limit: int | None = argument("Number of checkpoints that are kept.", 2, min=1)
    logging_steps: float = argument("Steps from one log to the next; below 1, a share of all.", 50, positive=True)
    seed: int = argument("Random seed.", 0, min=0)
    # While one process of a node prepares a large dataset, the others wait.
    max_steps: int = argument("Steps of the optimiser, in the place of `num_train_epochs`. -1: not given.", -1, min=-1)
    ddp_timeout: int = argument("Seconds that a process waits for others.", TIMEOUT_SECONDS)
    per_device_train_batch_size: int = argument("Clips on a device at a time.", 8, min=1)
    per_device_eval_batch_size: int = argument("Clips on a device at a time, in evaluations.", 8, min=1)
    gradient_accumulation_steps: int = argument("Batches in one step of the optimiser.", 1, min=1)
    learning_rate: float = argument("Peak learning rate.", 5e-5, min=0)
    num_train_epochs: float = argument("Passes over the clips.", 3.0, positive=True)
    warmup_steps: float = argument("Steps of a linear warm-up; below 1, a share of all.", 0, min=0)
    early_stopping_patience: int | None = argument(
        "Evaluations without a better `metric_for_best_model` after which fine-tuning stops, and goes back to the "
        "best checkpoint. It evaluates whenever it saves: every epoch, unless `save_strategy` or `eval_strategy` is "
        "set.",
        None,
        min=1,
    )
    save_strategy: SaveStrategy | str | None = argument(  # ty: ignore[incompatible-attribute-override]
        "When checkpoints are written: no, steps, epoch or best. Default: steps, every `save_steps`; where the best "
        "model is kept as `eval_strategy`, or every epoch.",
        None,
    )
    save_steps: float | None = argument(  # ty: ignore[incompatible-attribute-override]
        "Steps from one checkpoint to the next; below 1, a share of all. Default: 500; where the best model is kept, "
        "`eval_steps`.",
        None,
        positive=True,
    )
    eval_strategy: IntervalStrategy | str | None = argument(  # ty: ignore[incompatible-attribute-override]
        "When fine-tuning evaluates: no, steps or epoch. Default: every epoch, if there are clips to evaluate on.",
        None,
    )
    eval_steps: float | None = argument(
        "Steps from one evaluation to the next, with `eval_strategy: steps`; below 1, a share of all. Default: "
        "`logging_steps`.",
        None,
        positive=True,
    )
    # With it, a loss that is not a number would be logged as 0.
    logging_nan_inf_filter: bool = argument("Leave losses that are not finite out of the log.", False)
    early_stopping_threshold: float = argument("Least difference that counts as better.", 0.0, min=0)
    # Whether nobody has chosen `eval_strategy`.
    evaluates_by_default: bool = field(init=False, default=False)

    def __post_init__(self):
        check_numbers(self)
        check_usable(self)
        self.evaluates_by_default = self.eval_strategy is None
        settle_strategies(self)
        # Without this, bf16 on a CPU is refused.
        self.use_cpu = self.use_cpu or is_on_cpu()
        self.bf16 = self.bf16 and not (self.use_cpu and is_bf16_slow())
        # Elsewhere than with CUDA, PyTorch warns that it does nothing.
        self.dataloader_pin_memory = self.dataloader_pin_memory and torch.cuda.is_available()
        super().__post_init__()
        installed = get_available_reporting_integrations()
        if unknown := [name for name in self.report_to or [] if name not in installed]:
            raise UsageError(
                f"`report_to` names trackers that are not known or not installed: {', '.join(unknown)}. That of "
                f"tensorboard needs: {install_command('training')}"
            )


@dataclass
class PreTrainingModelArguments:
    """Model that `pretrain` trains, and its codes."""

    _sections: ClassVar[dict[str, tuple[type, ...]]] = {"model_config": (BeatsConfig,)}

    model_config: dict | None = argument(
        "Configuration of the model; with `model_name_or_path`, what differs from its own.", None
    )
    model_name_or_path: str | None = argument(
        "Name, directory or Hub id of a model to continue from. Default: random weights.", None
    )
    new_label_predictor: bool = argument(
        "Give that model a label predictor of random weights, for codes that it has not learned.", False
    )
    feature_extractor: str | None = argument(EXTRACTOR_HELP, None)
    tokenizer: str | None = argument("Name, directory or Hub id of a tokenizer that computes codes on the fly.", None)
    codes: str | None = argument("Directory of codes, as `compute-codes` writes it.", None)
    average_checkpoints: int = argument(
        "Number of the last checkpoints whose weights are averaged. 0: the last weights.", 0, min=0
    )
    mixture_probability: float = argument(
        "Share of the clips that are heard together with another one of the batch: the codes of both are predicted.",
        0.0,
        min=0,
        max=1,
    )

    def __post_init__(self):
        if (self.tokenizer is None) == (self.codes is None):
            given = "neither" if self.tokenizer is None else "both"
            raise UsageError(f"Exactly one of `tokenizer` and `codes` is needed, got {given}.")
        check_numbers(self)
        if self.model_name_or_path is None:
            if self.new_label_predictor:
                raise UsageError("`new_label_predictor` is for a model to continue from: give `model_name_or_path`.")
            check_config(BeatsConfig, self.model_config)


@dataclass
class TokenizerModelArguments:
    """Tokenizer that `train-tokenizer` trains, and its teacher."""

    _sections: ClassVar[dict[str, tuple[type, ...]]] = {"model_config": (BeatsTokenizerConfig,)}

    teacher: str = argument("Name, directory or Hub id of a BeatsModel or a BeatsForAudioClassification.")
    model_config: dict | None = argument("Configuration of the tokenizer.", None)
    feature_extractor: str | None = argument(EXTRACTOR_HELP, None)
    min_perplexity: float = argument(
        "The run stops if the perplexity of the codes falls below: a collapse.", 2.0, min=1
    )
    method: Literal["distillation", "k_means"] = argument(
        "k_means: codes are clusters of the outputs of the teacher's last layer, as HuBERT's, and nothing is trained.",
        "distillation",
    )
    initialize_from_teacher: bool = argument(
        "Start from the teacher's weights, for a tokenizer of the same size.", False
    )
    teacher_layers: list[int] | None = argument(LAYERS_HELP, None)
    teacher_normalization: Literal["layer_norm", "center"] | None = argument(NORMALIZATION_HELP, None)
    diagnosis_clips: int = argument(DIAGNOSIS_HELP, DIAGNOSIS_CLIPS, min=2, or_zero=True)

    def __post_init__(self):
        check_config(BeatsTokenizerConfig, self.model_config)
        check_numbers(self)
        check_method(self)


@dataclass
class TokenizeArguments:
    """Computation of codes, and their directory."""

    tokenizer: str = argument("Name, directory or Hub id of a tokenizer.")
    output_dir: str = argument("Directory of the codes.")
    feature_extractor: str | None = argument(EXTRACTOR_HELP, None)
    batch_size: int = argument("Clips that a device tokenizes at a time.", 32, min=1)
    shard_size: int = argument("Clips in a file: what an interruption costs at most.", 4096, min=1)
    num_workers: int = argument("Processes that decode audio for each device.", 0, min=0)
    bf16: bool = argument("Compute in bfloat16. A few codes differ from float32's.", False)

    def __post_init__(self):
        check_numbers(self)
        self.bf16 = self.bf16 and not (is_on_cpu() and is_bf16_slow())


@dataclass
class DiagnosisArguments:
    """Codes that are examined, and on how many clips."""

    output_dir: str = argument("Directory of the diagnosis.")
    tokenizer: str | None = argument("Name, directory or Hub id of a tokenizer, which computes the codes.", None)
    codes: str | None = argument("Directory of codes, as `compute-codes` writes it.", None)
    teacher: str | None = argument(
        "Name, directory or Hub id of the model that the codes are compared with, by k-means on its outputs.", None
    )
    teacher_layers: list[int] | None = argument(LAYERS_HELP, None)
    teacher_normalization: Literal["layer_norm", "center"] | None = argument(NORMALIZATION_HELP, None)
    feature_extractor: str | None = argument(EXTRACTOR_HELP, None)
    num_clips: int = argument("Number of clips, at most, each with its first crop.", DIAGNOSIS_CLIPS, min=2)
    fold_column: str | None = argument("Column of folds of the probe. Default: five are drawn.", None)
    batch_size: int = argument("Clips that a device takes at a time.", 16, min=1)
    seed: int = argument("Random seed of the sample, the folds and k-means.", 0, min=0)

    def __post_init__(self):
        check_numbers(self)
        if (self.tokenizer is None) == (self.codes is None):
            given = "neither" if self.tokenizer is None else "both"
            raise UsageError(f"Exactly one of `tokenizer` and `codes` is needed, got {given}.")


@dataclass
class FineTuningArguments:
    """Model that is fine-tuned, and the method."""

    _sections: ClassVar[dict[str, tuple[type, ...]]] = {"model_config": (BeatsConfig,)}

    model_name_or_path: str | None = argument(
        "Name, directory or Hub id of a pre-trained or fine-tuned model; {fold} in it stands for the fold. "
        "Default: random weights.",
        None,
    )
    model_config: dict | None = argument(
        "Configuration of a new model; of another one, what differs from its own.", None
    )
    feature_extractor: str | None = argument(
        "Name, directory or Hub id of a feature extractor. Default: the model's; AudioSet's statistics.", None
    )
    fbank_mean: float | None = argument(
        "Mean of the fbank before normalisation, in the feature extractor's place.", None
    )
    fbank_std: float | None = argument("Standard deviation of the fbank, likewise.", None, positive=True)
    freeze: bool = argument(
        "Probing: the encoder is run once, and a classifier learns from its embeddings: that of `probe`.",
        False,
    )
    probe: str | list[str] | None = argument(
        "Kinds of probes, with `freeze`: linear, knn, attentive, multi_layer, prototype, or several, [linear, knn]. "
        "They are compared, and the best in a cross-validation of the clips to learn from is kept. Default: linear.",
        None,
    )
    probe_layers: int | str | list | None = argument(
        "Layers that a probe reads, as in `hidden_states`: 8, [4, 8], -4: or all. Of several, each is evaluated, and "
        "the best in a cross-validation of the clips to learn from is kept. Default: the last.",
        None,
    )
    probe_c: float = argument("Inverse of a probe's regularisation, for standardised embeddings.", 1.0, positive=True)
    probe_shots: list[int] | None = argument(
        "Numbers of clips of each class that further probes learn from, such as [1, 5, 10].", None
    )
    probe_episodes: int = argument("Draws of these clips, for each number and fold.", 20, min=1)
    probe_query: Literal["shared", "class"] = argument("Queries of an attentive probe: one, or one a class.", "shared")
    probe_layer_weights: Literal["learned", "attention"] = argument(
        "Weights of a multi_layer probe: learned, or attention, for each clip.", "learned"
    )
    probe_prototypes: int = argument("Prototypes of a prototype probe for each class.", 4, min=1)
    probe_steps: int = argument("Steps of AdamW of a probe, at most; how many is chosen.", 200, min=1)
    probe_learning_rate: float | None = argument(
        "Learning rate of these steps. Default: 0.01, for prototypes 0.03.", None, positive=True
    )
    lora: dict | None = argument("Low-rank adapters, fields of PEFT's LoraConfig; {} for defaults.", None)
    layer_wise_learning_rate_decay: float = argument(
        "Factor of the learning rate from a layer to the one before it.", 1.0, positive=True, max=1
    )
    layer_wise_gradient_decay_ratio: float = argument(
        "Factor of the gradient from a layer to the one before it, as in Microsoft's code.", 1.0, positive=True, max=1
    )
    average_checkpoints: int = argument(
        "Number of the last checkpoints whose weights are averaged. 0: the last weights.", 0, min=0
    )
    ema_decay: float | None = argument(
        "Decay of an exponential moving average of the weights, such as 0.999, which is evaluated and written.",
        None,
        positive=True,
        max=0.999999,
    )
    unfreeze_epoch: int = argument("Epoch, from 0, in which the encoder begins to learn.", 0, min=0)
    unfreeze_layers: int | None = argument(
        "Layers that begin to learn in each epoch from `unfreeze_epoch` on, the last ones first. Default: all.",
        None,
        min=1,
    )
    class_weights: str | dict | None = argument(
        "Weights of the classes in the loss: balanced, so that rare classes count as much as frequent ones, or a "
        "weight of some, {dog: 2}.",
        None,
    )
    search_space: dict | None = argument(
        "Values of training arguments to try before the training, with Optuna: a list of choices, or low, high and "
        "log: {learning_rate: {low: 1e-5, high: 1e-3, log: true}}.",
        None,
    )
    num_trials: int = argument("Trainings of `search_space` that are tried.", 10, min=1)

    def __post_init__(self):
        check_numbers(self)
        # A probe is one of a frozen encoder.
        self.freeze = self.freeze or self.probe is not None
        if self.freeze and self.lora is not None:
            raise UsageError("`freeze` and `lora` exclude each other: the one trains no layer, the other all.")
        if self.probe_shots is not None and (not self.probe_shots or len({*self.probe_shots}) < len(self.probe_shots)):
            raise UsageError(f"`probe_shots` must be different numbers, such as [1, 5, 10], got {self.probe_shots}.")
        for number in self.probe_shots or ():
            if problem := find_problem(number, False, {"min": 1}):
                raise UsageError(f"`probe_shots` must {problem}, got {number!r}.")
        check_probes(self)
        if self.average_checkpoints and (self.freeze or self.lora is not None):
            raise UsageError("`average_checkpoints` is for full fine-tuning: leave `freeze` and `lora` out.")
        if self.average_checkpoints and self.ema_decay is not None:
            raise UsageError("`average_checkpoints` and `ema_decay` exclude each other.")
        if self.unfreezes and self.lora is not None:
            raise UsageError("`lora` never trains the encoder: leave `unfreeze_epoch` and `unfreeze_layers` out.")
        if self.model_name_or_path is None:
            check_config(BeatsConfig, self.model_config)

    @property
    def probes(self) -> list[str]:
        """Kinds of probes, by their names."""
        named = "linear" if self.probe is None else self.probe
        return [name.strip() for name in named.split(",")] if isinstance(named, str) else list(named)

    @property
    def unfreezes(self) -> bool:
        return self.unfreeze_epoch > 0 or self.unfreeze_layers is not None


@dataclass
class EvaluationDataArguments:
    """Clips to evaluate on, if there are no folds. They are read as those of the training."""

    eval_dataset: str | list[str] | None = argument("As `dataset`. Default: the same.", None)
    eval_split: str | None = argument("As `split`.", None)
    eval_select: dict | None = argument("As `select`: {fold: 5}.", None)
    eval_event_files: str | list[str] | None = argument("As `event_files`. Default: the same.", None)
    eval_share: float | None = argument(
        "Share of the clips, such as 0.2, drawn to evaluate on, with equal shares of classes if a clip has one.",
        None,
        positive=True,
        max=0.99,
    )
    allow_overlap: bool = argument("Evaluate on clips that are also in the training set; else, an error.", False)

    def __post_init__(self):
        check_numbers(self)
        if self.eval_share is not None and self.has_clips:
            raise UsageError("`eval_share` draws clips: leave `eval_dataset`, `eval_split` and `eval_select` out.")

    @property
    def has_clips(self) -> bool:
        """Returns whether the clips to evaluate on are named."""
        return any(value is not None for value in (self.eval_dataset, self.eval_split, self.eval_select))

    @property
    def is_given(self) -> bool:
        return self.has_clips or self.eval_share is not None


@dataclass
class Arguments:
    """All arguments of `finetune`."""

    tuning: FineTuningArguments
    data: DataArguments
    labels: LabelArguments
    evaluation: EvaluationDataArguments
    folds: FoldArguments
    augmentation: AugmentationArguments
    batch: BatchArguments
    training: BeatsTrainingArguments
    events: EventTrainingArguments

    def __post_init__(self):
        if self.data.streaming or self.data.precompute_fbank:
            raise UsageError("Fine-tuning reads audio from disk: leave `streaming` and `precompute_fbank` out.")
        if self.folds.is_given and self.evaluation.is_given:
            raise UsageError("Folds say what is evaluated: leave `eval_dataset` and its like out.")
        if self.tuning.probe_shots is not None and not (self.folds.is_given or self.evaluation.is_given):
            raise UsageError(
                "`probe_shots` needs clips to evaluate on: set `num_folds`, `eval_share` or `eval_split`."
            )
        check_kept(self)
        check_events(self)
        check_search(self)
        self._leave_out()
        check_training(self)
        has_clips = (self.folds.is_given or self.evaluation.is_given) and not self.tuning.freeze
        if self.training.evaluates_by_default and self.training.eval_strategy == "no" and has_clips:
            self.training.eval_strategy = IntervalStrategy.EPOCH

    def _leave_out(self) -> None:
        """Resets, with a warning, what a recipe for full fine-tuning sets and neither probe nor adapters use."""
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
            for name, value in (("ema_decay", None), ("unfreeze_epoch", 0), ("unfreeze_layers", None)):
                if getattr(self.tuning, name) != value:
                    setattr(self.tuning, name, value)
                    left_out.append(name)
            if self.training.eval_strategy != "no" or self.training.load_best_model_at_end:
                self.training.eval_strategy, self.training.load_best_model_at_end = "no", False
                left_out.append("eval_strategy")
            if self.training.save_strategy == SaveStrategy.BEST:
                self.training.save_strategy = SaveStrategy.NO
                left_out.append("save_strategy")
        if left_out:
            kind = "freeze" if self.tuning.freeze else "lora"
            logger.warning(f"`{kind}` does not use {', '.join(left_out)}: left out.")


# Dataclasses of each command.
FINETUNE_ARGUMENTS: tuple[Any, ...] = tuple(field.type for field in fields(Arguments))
PRETRAIN_ARGUMENTS = (PreTrainingModelArguments, DataArguments, BatchArguments, BeatsTrainingArguments)
TRAIN_TOKENIZER_ARGUMENTS = (TokenizerModelArguments, DataArguments, BatchArguments, BeatsTrainingArguments)
TOKENIZE_ARGUMENTS = (TokenizeArguments, DataArguments)
DIAGNOSE_ARGUMENTS = (DiagnosisArguments, DataArguments, LabelArguments)
