# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Arguments of the training commands."""

import math
import os
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import torch
from accelerate import DeepSpeedPlugin
from huggingface_hub.errors import StrictDataclassError
from transformers import SchedulerType, TrainingArguments
from transformers.integrations.deepspeed import HfTrainerDeepSpeedConfig
from transformers.utils import logging
from transformers.utils.generic import strtobool

from transformers_beats import BeatsConfig, BeatsRandomProjectionTokenizerConfig, BeatsTokenizerConfig
from transformers_beats.training.data.sources import DataArguments

from .recipes import build_arguments


logger = logging.get_logger(__name__)

TIMEOUT_SECONDS = 12 * 3600


def is_bf16_slow() -> bool:
    """Whether PyTorch computes bfloat16 without vector instructions on this CPU, ten times as slow; says so."""
    if torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return False
    logger.warning_once("This CPU does not compute in bfloat16: float32 is used (`bf16: false`).")
    return True


def is_on_cpu() -> bool:
    """Whether there is no accelerator, or accelerate was told to leave it alone."""
    return not torch.accelerator.is_available() or bool(strtobool(os.environ.get("ACCELERATE_USE_CPU", "false")))


@dataclass
class BeatsTrainingArguments(TrainingArguments):
    """
    [`~transformers.TrainingArguments`] with the defaults of this project. A machine without an accelerator is
    recognised, and so is `ACCELERATE_USE_CPU`.
    """

    adam_beta2: float = field(default=0.98, metadata={"help": "Second beta of AdamW, as in the paper."})
    weight_decay: float = field(default=0.01, metadata={"help": "Weight decay, as in the paper."})
    max_grad_norm: float = field(default=1.0, metadata={"help": "Gradient clipping, as in ESPnet."})
    lr_scheduler_type: SchedulerType | str = field(default="linear", metadata={"help": "Learning rate schedule."})
    remove_unused_columns: bool = field(default=False, metadata={"help": "The collator reads what no model takes."})
    # `HfArgumentParser` cannot read this type with `None` at its end.
    report_to: None | str | list[str] = field(  # noqa: RUF036
        default="none", metadata={"help": "Trackers, e.g. tensorboard."}
    )
    save_total_limit: int | None = field(default=2, metadata={"help": "How many checkpoints are kept."})
    logging_steps: float = field(default=50, metadata={"help": "Steps from one log to the next."})
    seed: int = field(default=0, metadata={"help": "Random seed."})
    # While one process of a node prepares a large data set, the others wait.
    ddp_timeout: int = field(default=TIMEOUT_SECONDS, metadata={"help": "Seconds that a process waits for others."})

    def __post_init__(self):
        # Without this, bf16 on a CPU is refused.
        self.use_cpu = self.use_cpu or is_on_cpu()
        self.bf16 = self.bf16 and not (self.use_cpu and is_bf16_slow())
        # Elsewhere than with CUDA, PyTorch warns that it does nothing.
        self.dataloader_pin_memory = self.dataloader_pin_memory and torch.cuda.is_available()
        super().__post_init__()


@dataclass
class PreTrainingModelArguments:
    """What `pretrain` trains, and on which codes."""

    _sections: ClassVar[dict[str, tuple[type, ...]]] = {"config": (BeatsConfig,)}

    config: dict | None = field(
        default=None,
        metadata={"help": "Configuration of the model; with `model_name_or_path`, what differs from its own."},
    )
    model_name_or_path: str | None = field(
        default=None, metadata={"help": "Directory or Hub id of a model to continue from. Default: random weights."}
    )
    feature_extractor: str | None = field(
        default=None, metadata={"help": "Directory or Hub id of a feature extractor. Default: AudioSet's statistics."}
    )
    tokenizer: str | None = field(
        default=None, metadata={"help": "Directory or Hub id of a tokenizer, which computes codes on the fly."}
    )
    codes: str | None = field(default=None, metadata={"help": "Directory of codes, as `tokenize` writes it."})

    def __post_init__(self):
        if (self.tokenizer is None) == (self.codes is None):
            given = "neither" if self.tokenizer is None else "both"
            raise ValueError(f"Exactly one of `tokenizer` and `codes` is needed, got {given}.")
        if self.model_name_or_path is None:
            check_config(BeatsConfig, self.config)


@dataclass
class TokenizerModelArguments:
    """What `train_tokenizer` trains, and what its teacher is."""

    _sections: ClassVar[dict[str, tuple[type, ...]]] = {"config": (BeatsTokenizerConfig,)}

    teacher: str = field(
        metadata={"help": "Directory or Hub id of a BeatsModel, or of a fine-tuned BeatsForAudioClassification."}
    )
    config: dict | None = field(default=None, metadata={"help": "Configuration of the tokenizer."})
    feature_extractor: str | None = field(
        default=None, metadata={"help": "Directory or Hub id of a feature extractor. Default: AudioSet's statistics."}
    )
    min_perplexity: float = field(
        default=2.0, metadata={"help": "The run stops if the perplexity of the codes falls below: a collapse."}
    )
    initialize_from_teacher: bool = field(
        default=False, metadata={"help": "Start from the teacher's weights, for a tokenizer of the same size."}
    )

    def __post_init__(self):
        check_config(BeatsTokenizerConfig, self.config)
        check_at_least(self, 1, "min_perplexity")


@dataclass
class TokenizeArguments:
    """What `tokenize` computes, and where it writes it."""

    tokenizer: str = field(metadata={"help": "Directory or Hub id of a tokenizer."})
    output_dir: str = field(metadata={"help": "Directory of the codes."})
    feature_extractor: str | None = field(
        default=None, metadata={"help": "Directory or Hub id of a feature extractor. Default: AudioSet's statistics."}
    )
    batch_size: int = field(default=32, metadata={"help": "Clips that a device tokenizes at a time."})
    shard_size: int = field(default=4096, metadata={"help": "Clips in a file: what an interruption costs at most."})
    num_workers: int = field(default=0, metadata={"help": "Processes that decode audio for each device."})
    bf16: bool = field(default=False, metadata={"help": "Compute in bfloat16. A few codes differ from float32's."})

    def __post_init__(self):
        check_at_least(self, 1, "batch_size", "shard_size")
        check_at_least(self, 0, "num_workers")
        self.bf16 = self.bf16 and not (is_on_cpu() and is_bf16_slow())


@dataclass
class BatchArguments:
    """Size of a batch in seconds, as the paper gives it."""

    batch_seconds: float | None = field(
        default=None,
        metadata={
            "help": "Seconds of audio in one step of the optimiser, over all devices. `per_device_train_batch_size` "
            "is then the most clips that a device takes at a time, and `gradient_accumulation_steps` is computed."
        },
    )


# What each command parses.
PRETRAIN_ARGUMENTS = (PreTrainingModelArguments, DataArguments, BatchArguments, BeatsTrainingArguments)
TRAIN_TOKENIZER_ARGUMENTS = (TokenizerModelArguments, DataArguments, BatchArguments, BeatsTrainingArguments)
TOKENIZE_ARGUMENTS = (TokenizeArguments, DataArguments)


@dataclass
class IterateArguments:
    """Sections of what the stages of `iterate` share, and of what each has for itself."""

    _sections: ClassVar[dict[str, tuple[type, ...]]] = {
        "data": (DataArguments,),
        "random_projection": (BeatsRandomProjectionTokenizerConfig,),
        "model": tuple(stage for stage in PRETRAIN_ARGUMENTS if stage is not DataArguments),
        "tokenizer": tuple(stage for stage in TRAIN_TOKENIZER_ARGUMENTS if stage is not DataArguments),
        "tokenize": tuple(stage for stage in TOKENIZE_ARGUMENTS if stage is not DataArguments),
    }
    _set_by_iterate: ClassVar[frozenset[str]] = frozenset(
        {"codes", "feature_extractor", "output_dir", "resume_from_checkpoint", "teacher", "tokenizer"}
    )

    output_dir: str = field(metadata={"help": "Directory of all models, tokenizers and codes."})
    data: dict = field(metadata={"help": "The audio of all stages."})
    num_iterations: int = field(default=2, metadata={"help": "How many models are trained one after another."})
    feature_extractor: str | None = field(
        default=None, metadata={"help": "Directory or Hub id of a feature extractor. Default: AudioSet's statistics."}
    )
    random_projection: dict | None = field(
        default=None, metadata={"help": "Configuration of the first iteration's tokenizer."}
    )
    model: dict = field(default_factory=dict, metadata={"help": "Training of each iteration's model."})
    tokenizer: dict = field(
        default_factory=dict, metadata={"help": "Training of the tokenizer of each iteration after the first."}
    )
    tokenize: dict = field(default_factory=dict, metadata={"help": "Computation of the codes."})

    def __post_init__(self):
        check_at_least(self, 1, "num_iterations")
        # A mistake in the last stage must not show only when the others are done, perhaps days later.
        for name in ("model", "tokenizer", "tokenize"):
            for key in sorted(self._set_by_iterate & getattr(self, name).keys()):
                raise ValueError(f"`{name}.{key}` is set by `iterate`: leave it out.")
        build_arguments((DataArguments,), self.data, "data.")
        check_config(BeatsRandomProjectionTokenizerConfig, self.random_projection)
        check_config(BeatsTokenizerConfig, self.tokenizer.get("config"))
        if self.model.get("model_name_or_path") is None:
            check_config(BeatsConfig, self.model.get("config"))

    def stage_values(self, name: Literal["model", "tokenizer", "tokenize"], **values: Any) -> dict[str, Any]:
        """
        What one stage would read from a flat recipe of its own command: feature extractor, data, its section, and
        `values`. Written to a file it is such a recipe; [`build_arguments`] makes dataclasses of it.
        """
        return {"feature_extractor": self.feature_extractor, **self.data, **getattr(self, name), **values}


def check_config(config_class: type, values: dict | None) -> None:
    """Raises `ValueError` if `config_class` does not accept the values; its own exception is not one."""
    try:
        config_class(**(values or {}))
    except StrictDataclassError as error:
        raise ValueError(str(error.__cause__ or error)) from error


def check_at_least(arguments: Any, minimum: int, *names: str) -> None:
    """Raises `ValueError` if an argument is smaller than `minimum`."""
    for name in names:
        if getattr(arguments, name) < minimum:
            raise ValueError(f"`{name}` must be at least {minimum}, got {getattr(arguments, name)}.")


@dataclass(frozen=True)
class BatchPlan:
    """
    How a batch is spread over devices and accumulation steps.

    Args:
        per_device_train_batch_size (`int`):
            Clips that a device takes at a time.
        gradient_accumulation_steps (`int`):
            How often it does so in one step of the optimiser.
        seconds (`float`):
            Seconds of audio in one step of the optimiser, over all devices.
    """

    per_device_train_batch_size: int
    gradient_accumulation_steps: int
    seconds: float


def plan_batch(batch_seconds: float, crop_seconds: float, world_size: int, max_clips_per_device: int) -> BatchPlan:
    """
    Spreads a batch over devices: as near as possible to `batch_seconds` with no more accumulation than
    `max_clips_per_device` asks for.

    Args:
        batch_seconds (`float`):
            Wanted seconds of audio in one step of the optimiser, over all devices.
        crop_seconds (`float`):
            Length of a clip.
        world_size (`int`):
            Number of devices.
        max_clips_per_device (`int`):
            The most clips that a device takes at a time.

    Returns:
        [`BatchPlan`]

    Raises:
        `ValueError`: a number is not positive, or the batch has less than a clip for each device.
    """
    numbers = {"batch_seconds": batch_seconds, "crop_seconds": crop_seconds}
    numbers |= {"world_size": world_size, "per_device_train_batch_size": max_clips_per_device}
    for name, number in numbers.items():
        if not (number > 0 and math.isfinite(number)):
            raise ValueError(f"`{name}` must be positive, got {number}.")
    seconds_per_clip_each = crop_seconds * world_size
    clips_wanted = batch_seconds / seconds_per_clip_each
    if clips_wanted < 1:
        raise ValueError(
            f"`batch_seconds` is {batch_seconds:g}, but one clip of {crop_seconds:g} s on each of {world_size} "
            f"device(s) makes {seconds_per_clip_each:g}."
        )
    options = []
    steps_wanted = clips_wanted / max_clips_per_device
    # A step less can be as near: for 65 clips where 64 fit, 64 at once rather than twice 32.
    for steps in (max(math.floor(steps_wanted), 1), math.ceil(steps_wanted)):
        clips = min(math.floor(clips_wanted / steps + 0.5), max_clips_per_device)
        options.append((abs(clips * steps - clips_wanted), steps, clips))
    _, steps, clips = min(options)
    return BatchPlan(clips, steps, clips * steps * seconds_per_clip_each)


def check_launch(training: TrainingArguments) -> None:
    """Raises `ValueError` if the training, as its processes were started, would not be what its arguments say."""
    # `DataParallel` would keep a codebook for each GPU, and lose all but one.
    if training.n_gpu > 1:
        raise ValueError(f"One process would drive {training.n_gpu} GPUs: start the command with `accelerate launch`.")
    deepspeed = training.deepspeed_plugin
    if training.use_cpu and (deepspeed is not None or training.fsdp):
        name = "FSDP" if deepspeed is None else "DeepSpeed"
        raise ValueError(f"accelerate has no {name} on CPUs, and would train without it: leave it out.")
    if deepspeed is None:
        return
    config = deepspeed.deepspeed_config
    if config.get("zero_optimization", {}).get("stage", 0) > 2:
        raise ValueError(
            "ZeRO stage 3 splits the frozen tokenizer or teacher as well, which then cannot be computed: "
            "use stage 1 or 2, or FSDP."
        )


def apply_batch_plan(training: TrainingArguments, batch: BatchArguments, crop_seconds: float) -> BatchPlan:
    """
    Sets batch size and accumulation of `training` from `batch.batch_seconds`, if that is given.

    Returns:
        [`BatchPlan`]: what `training` then says, in either case.

    Raises:
        `ValueError`: see [`plan_batch`]; also if `gradient_accumulation_steps` was set as well.
    """
    num_devices = training.world_size
    clips, steps = training.per_device_train_batch_size, training.gradient_accumulation_steps
    if batch.batch_seconds is None:
        return BatchPlan(clips, steps, clips * steps * num_devices * crop_seconds)
    if steps != 1:
        raise ValueError(
            "`batch_seconds` determines `gradient_accumulation_steps`: leave one of them out. "
            "`per_device_train_batch_size` is the most clips that a device takes at a time."
        )
    plan = plan_batch(batch.batch_seconds, crop_seconds, num_devices, clips)
    training.per_device_train_batch_size = plan.per_device_train_batch_size
    training.gradient_accumulation_steps = plan.gradient_accumulation_steps
    if training.deepspeed:
        # As `Trainer` does when it searches for hyperparameters: `auto` has been filled in already.
        training.hf_deepspeed_config = HfTrainerDeepSpeedConfig(training.deepspeed)
        training.hf_deepspeed_config.trainer_config_process(training)
        training.deepspeed_plugin = DeepSpeedPlugin(hf_ds_config=training.hf_deepspeed_config)
    return plan


__all__ = [
    "PRETRAIN_ARGUMENTS",
    "TOKENIZE_ARGUMENTS",
    "TRAIN_TOKENIZER_ARGUMENTS",
    "BatchArguments",
    "BatchPlan",
    "BeatsTrainingArguments",
    "IterateArguments",
    "PreTrainingModelArguments",
    "TokenizeArguments",
    "TokenizerModelArguments",
    "apply_batch_plan",
    "check_launch",
    "plan_batch",
]
