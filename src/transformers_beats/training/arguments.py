# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Arguments of the training commands: their dataclasses, and the recipes and command lines that fill them."""

import dataclasses
import difflib
import math
import os
import sys
import textwrap
import traceback
import types
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any, ClassVar, Literal, Union, get_args, get_origin, get_type_hints

import torch
import yaml
from huggingface_hub.dataclasses import type_validator
from huggingface_hub.errors import StrictDataclassError
from transformers import HfArgumentParser, SchedulerType, TrainingArguments
from transformers.utils import logging
from transformers.utils.generic import strtobool

from transformers_beats import BeatsConfig, BeatsRandomProjectionTokenizerConfig, BeatsTokenizerConfig

from .data import DataArguments


logger = logging.get_logger(__name__)

USAGE = "usage: COMMAND [RECIPE.yaml ...] [key=value ...]"
HELP_WIDTH = 100


class RecipeError(ValueError):
    """A recipe or a command line that cannot be used; the message is one line."""


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

    def __post_init__(self):
        # Without this, bf16 on a CPU is refused.
        self.use_cpu = self.use_cpu or is_on_cpu()
        if self.use_cpu and self.bf16 and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
            # There PyTorch computes it without vector instructions, which took ten times as long as float32.
            logger.warning("This CPU does not compute in bfloat16: training in float32 (`bf16: false`).")
            self.bf16 = False
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


def apply_batch_plan(training: TrainingArguments, batch: BatchArguments, crop_seconds: float) -> BatchPlan:
    """
    Sets batch size and accumulation of `training` from `batch.batch_seconds`, if that is given.

    Returns:
        [`BatchPlan`]: what `training` then says, in either case.

    Raises:
        `ValueError`: see [`plan_batch`]; also if `gradient_accumulation_steps` was set as well.
    """
    # Without torchrun, a process drives all its GPUs.
    num_devices = training.world_size * max(training.n_gpu, 1)
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
    return plan


def parse_arguments(dataclass_types: tuple[type, ...], argv: list[str] | None = None) -> tuple:
    """
    Reads recipes and `key=value` words into dataclasses. Of two values for one key the later counts; mappings are
    merged. A dotted key (`config.hidden_size=192`) sets an entry of a mapping. `-h` prints all keys and exits.

    Args:
        dataclass_types (`tuple[type, ...]`):
            The dataclasses. No two of them may have a field of the same name.
        argv (`list[str]`, *optional*):
            The words; those of the command line by default.

    Returns:
        `tuple`: an instance of each dataclass.

    Raises:
        [`RecipeError`]: a recipe that cannot be read, an unknown or missing key, a value of a wrong type.
    """
    argv = sys.argv[1:] if argv is None else argv
    if "-h" in argv or "--help" in argv:
        print(format_help(dataclass_types))
        raise SystemExit(0)
    values: dict[str, Any] = {}
    for word in argv:
        merge(values, read_override(word) if "=" in word else read_recipe(word))
    return build_arguments(dataclass_types, values)


def build_arguments(dataclass_types: tuple[type, ...], values: dict[str, Any], prefix: str = "") -> tuple:
    """
    Dataclasses from a mapping, as [`parse_arguments`] makes them.

    Args:
        dataclass_types (`tuple[type, ...]`):
            The dataclasses. No two of them may have a field of the same name.
        values (`dict[str, Any]`):
            Values of their fields.
        prefix (`str`, *optional*):
            What messages put before a key.

    Returns:
        `tuple`: an instance of each dataclass.

    Raises:
        [`RecipeError`]: an unknown or missing key, a value of a wrong type or one that a dataclass refuses.
    """
    values = check_values(dataclass_types, values, prefix)
    for name, (entry, _) in find_fields(dataclass_types).items():
        if is_required(entry) and name not in values:
            raise RecipeError(f"`{prefix}{name}` is missing: {entry.metadata.get('help', 'it is needed')}")
    parser = HfArgumentParser(list[Any](dataclass_types))
    try:
        return parser.parse_dict(values)
    except ValueError as error:
        raise RecipeError(one_line(error)) from error


def run_command(main: Callable[[], Any]) -> None:
    """Runs the `main` of a command. A `ValueError` becomes one line on stderr and the exit code 1."""
    try:
        main()
    except ValueError as error:
        # In the middle of a training, where it comes from matters more than brevity.
        if not isinstance(error, RecipeError):
            traceback.print_exc()
        print(f"error: {one_line(error)}", file=sys.stderr)
        raise SystemExit(1) from None


def read_recipe(path: str) -> dict[str, Any]:
    """The mapping in a YAML file."""
    if path.startswith("-"):
        raise RecipeError(f"{path}: there are no options; settings are written key=value, and -h shows them")
    try:
        values = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        hint = "" if Path(path).suffix in (".yaml", ".yml") else "; settings are written key=value"
        raise RecipeError(f"{path}: cannot be read: {error.strerror}{hint}") from error
    except (ValueError, yaml.YAMLError) as error:
        raise RecipeError(f"{path}: is not YAML: {one_line(error)}") from error
    if not isinstance(values, dict):
        raise RecipeError(f"{path}: must hold `key: value` lines, but holds {type(values).__name__}")
    return values


def read_override(word: str) -> dict[str, Any]:
    """`{"a": {"b": value}}` of `a.b=value`."""
    key, _, text = word.partition("=")
    names = key.split(".")
    if not all(name.isidentifier() for name in names):
        raise RecipeError(f"{word}: settings are written key=value; {key!r} is no key")
    try:
        value = yaml.safe_load(text)
    # Also a ValueError, of dates such as 2026-13-01.
    except (ValueError, yaml.YAMLError) as error:
        raise RecipeError(f"{word}: the value is not YAML: {one_line(error)}") from error
    for name in reversed(names):
        value = {name: value}
    return value


def merge(values: dict[str, Any], later: dict[str, Any]) -> None:
    """Puts what is in `later` into `values`; where both hold a mapping, its entries."""
    for key, value in later.items():
        if isinstance(value, dict) and isinstance(values.get(key), dict):
            merge(values[key], value)
        else:
            values[key] = value


def find_fields(dataclass_types: tuple[type, ...]) -> dict[str, tuple[dataclasses.Field, Any]]:
    """All fields by name, each with its type."""
    found: dict[str, tuple[dataclasses.Field, Any]] = {}
    owners: dict[str, type] = {}
    for owner in dataclass_types:
        # Transformers' configurations name `torch.dtype` without importing torch.
        hints = get_type_hints(owner, localns={"torch": torch})
        for entry in init_fields(owner):
            if entry.name in owners:
                raise TypeError(f"{owners[entry.name].__name__} and {owner.__name__} both have `{entry.name}`.")
            owners[entry.name] = owner
            found[entry.name] = (entry, hints[entry.name])
    return found


def init_fields(owner: Any) -> list[dataclasses.Field]:
    """Fields that can be given when a dataclass is created."""
    return [entry for entry in dataclasses.fields(owner) if entry.init]


def find_sections(dataclass_types: tuple[type, ...]) -> dict[str, tuple[type, ...]]:
    """Fields whose mapping holds the fields of other dataclasses."""
    return {name: section for owner in dataclass_types for name, section in getattr(owner, "_sections", {}).items()}


def check_values(dataclass_types: tuple[type, ...], values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """
    The values with the types of their fields, also inside sections. Whether a field is missing is not looked at:
    `iterate` adds to its sections.
    """
    fields, sections = find_fields(dataclass_types), find_sections(dataclass_types)
    checked = {}
    for name, value in values.items():
        if name not in fields:
            raise RecipeError(f"unknown key `{prefix}{name}`{suggest(str(name), fields, sections, prefix)}")
        if name in sections and isinstance(value, dict):
            checked[name] = check_values(sections[name], value, f"{prefix}{name}.")
        else:
            checked[name] = convert(value, fields[name][1], prefix + name)
    return checked


def suggest(name: str, fields: dict[str, Any], sections: dict[str, tuple[type, ...]], prefix: str) -> str:
    """`": did you mean ...?"` with the keys that look like `name`, or that are called so in a section."""
    matches = [f"{section}.{name}" for section, owners in sections.items() if name in find_fields(owners)]
    matches = matches or difflib.get_close_matches(name, fields)
    return f": did you mean {' or '.join(f'`{prefix}{match}`' for match in matches)}?" if matches else ""


def union_members(hint: Any) -> tuple[Any, ...]:
    """`int` and `None` of `int | None`, `int` of `int`."""
    return get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)


def accepts(hint: Any, value: Any) -> bool:
    """Whether a value is of a type."""
    try:
        type_validator("value", value, hint)
    except TypeError:
        return False
    return True


def convert(value: Any, hint: Any, key: str) -> Any:
    """The value as what its field holds, or a `RecipeError`."""
    members = union_members(hint)
    options = [value, *as_numbers(value)]
    # YAML 1.1 reads `no`, as in `save_strategy: no`, as false.
    if value is False and any(isinstance(member, type) and issubclass(member, Enum) for member in members):
        options.append("no")
    for option in options:
        if accepts(hint, option):
            return option
    expected = " or ".join(describe(member) for member in members)
    is_scalar = value is not None and not isinstance(value, (dict, list))
    quote = f" (to have it as text: {key}='\"{value}\"')" if is_scalar and str in members else ""
    raise RecipeError(f"`{key}` must be {expected}, got {value!r}{quote}")


def as_numbers(value: Any) -> list[int | float]:
    """
    A number, or text that is one, as an integer if it is one and as a float: YAML 1.1 reads 5e-4 and 1e5 as text, and
    a field of floats may be given 1.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return []
    try:
        number = float(value)
    except ValueError:
        return []
    return [int(number), number] if number.is_integer() else [number]


def describe(hint: Any) -> str:
    """A type in words."""
    if get_origin(hint) is Literal:
        return " or ".join(repr(choice) for choice in get_args(hint))
    names = ("true or false", "an integer", "a number", "text", "a mapping", "a list", "null")
    words = dict(zip((bool, int, float, str, dict, list, type(None)), names))
    return words.get(get_origin(hint) or hint, getattr(hint, "__name__", str(hint)))


def is_required(entry: dataclasses.Field) -> bool:
    """Whether a field has no default."""
    return entry.default is dataclasses.MISSING and entry.default_factory is dataclasses.MISSING


def default_of(entry: dataclasses.Field) -> Any:
    """The default of a field that has one."""
    return entry.default if entry.default_factory is dataclasses.MISSING else entry.default_factory()


def one_line(text: Any) -> str:
    """A message in one line, however many it has."""
    return " ".join(str(text).split())


def format_help(dataclass_types: tuple[type, ...]) -> str:
    """All keys with their defaults and meanings, grouped by dataclass."""
    sections = find_sections(dataclass_types)
    lines = [USAGE]
    for owner in dataclass_types:
        lines += ["", f"{owner.__name__}: {one_line(owner.__doc__ or '')}"]
        if issubclass(owner, TrainingArguments):
            lines += wrap(f"All fields of transformers.TrainingArguments. {format_changed_defaults(owner)}", "  ")
            continue
        for name, (entry, hint) in find_fields((owner,)).items():
            default = "required" if is_required(entry) else f"default: {default_of(entry)!r}"
            type_name = hint.__name__ if isinstance(hint, type) else str(hint).replace("typing.", "")
            meaning = entry.metadata.get("help", "")
            if name in sections:
                meaning += f" Keys: {name}.NAME=value, fields of {', '.join(s.__name__ for s in sections[name])}."
            lines += [f"  {name} ({type_name}, {default})", *wrap(meaning, "      ")]
    return "\n".join(lines)


def format_changed_defaults(owner: type) -> str:
    """In which defaults a subclass differs from `TrainingArguments`."""
    base = {name: default_of(entry) for name, (entry, _) in find_fields((TrainingArguments,)).items()}
    own = {name: default_of(entry) for name, (entry, _) in find_fields((owner,)).items()}
    changed = [f"{name}={value!r}" for name, value in own.items() if value != base.get(name)]
    return f"Other defaults here: {', '.join(changed)}." if changed else ""


def wrap(text: str, indent: str) -> list[str]:
    """Lines of help."""
    return textwrap.wrap(text, HELP_WIDTH, initial_indent=indent, subsequent_indent=indent)


__all__ = [
    "PRETRAIN_ARGUMENTS",
    "TOKENIZE_ARGUMENTS",
    "TRAIN_TOKENIZER_ARGUMENTS",
    "BatchArguments",
    "BatchPlan",
    "BeatsTrainingArguments",
    "IterateArguments",
    "PreTrainingModelArguments",
    "RecipeError",
    "TokenizeArguments",
    "TokenizerModelArguments",
    "apply_batch_plan",
    "build_arguments",
    "parse_arguments",
    "plan_batch",
    "run_command",
]
