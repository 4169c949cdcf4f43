# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Parts that the stages of training share: extractor, audio, tokenizer, settings."""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import datasets
from accelerate import PartialState
from accelerate.utils import broadcast_object_list
from transformers import PreTrainedModel
from transformers.utils import FEATURE_EXTRACTOR_NAME, logging

from transformers_beats.feature_extraction_beats import BeatsFeatureExtractor
from transformers_beats.inference.loading import load_extractor, load_model, read_adapter
from transformers_beats.modeling_beats import (
    BeatsForAudioClassification,
    BeatsForAudioFrameClassification,
    BeatsModel,
)
from transformers_beats.modeling_beats_tokenizer import BeatsRandomProjectionTokenizer, BeatsTokenizerModel
from transformers_beats.training.config.arguments import TIMEOUT_SECONDS, BeatsTrainingArguments, is_on_cpu
from transformers_beats.training.config.batch_plan import BatchArguments, apply_batch_plan, check_launch
from transformers_beats.training.data.clips import Clips, prepare_clips
from transformers_beats.training.data.crops import CropDataset, FbankDataset
from transformers_beats.training.data.sources import DataArguments, load_audio_dataset, load_parts
from transformers_beats.training.data.streams import StreamingCrops
from transformers_beats.training.trainers.checkpoints import training_directory
from transformers_beats.utils.errors import BeatsError, UsageError, one_line
from transformers_beats.utils.files import check_new, make_directory, replace_file
from transformers_beats.utils.fingerprint import FINGERPRINT_VERSION
from transformers_beats.utils.messages import next_command, note
from transformers_beats.utils.resume import read_settings


logger = logging.get_logger(__name__)

T = TypeVar("T")
# Beside a result: fingerprints of what it was made from.
ORIGIN = "origin.json"
# Settings of a feature extractor that decide the values of the fbank.
FBANK_SETTINGS = ("feature_size", "sampling_rate", "fbank_mean", "fbank_std")
OTHER_SETTINGS = ("padding_value", "patch_size", "legacy_padding_mask")
# Fields of `TrainingArguments` that decide the result.
DECISIVE_ARGUMENTS = (
    "adam_beta1",
    "adam_beta2",
    "adam_epsilon",
    "bf16",
    "data_seed",
    "fp16",
    "learning_rate",
    "lr_scheduler_kwargs",
    "lr_scheduler_type",
    "max_grad_norm",
    "max_steps",
    "num_train_epochs",
    "optim",
    "optim_args",
    "optim_target_modules",
    "seed",
    "warmup_steps",
    "weight_decay",
    "early_stopping_patience",
    "early_stopping_threshold",
    "dataloader_drop_last",
    "greater_is_better",
    "label_smoothing_factor",
    "load_best_model_at_end",
    "metric_for_best_model",
    "train_sampling_strategy",
)
# Those that decide which weights are kept, where these are the best ones.
DECISIVE_FOR_BEST = ("eval_delay", "eval_steps", "eval_strategy", "save_steps", "save_strategy")


def process_state() -> PartialState:
    """Returns the state of this process. Without `cpu`, accelerate on a CPU takes every process for the only one."""
    return PartialState(cpu=is_on_cpu(), timeout=timedelta(seconds=TIMEOUT_SECONDS))


def is_there(path: Path) -> bool:
    """Returns whether an output exists. One process looks for all: others may be so late that it is there by then."""
    process_state()
    return broadcast_object_list([path.exists()])[0]


def on_main_process(call: Callable[[], T]) -> T:
    """
    Calls a function on the main process alone, and returns on all processes what it returned. What it raises is raised
    on all of them, as they would wait for the main process: on the others as a [`BeatsError`] of one line.
    """
    caught: Exception | None = None
    result: Any = None
    if process_state().is_main_process:
        try:
            result = call()
        except Exception as error:
            caught = error
    result, message = broadcast_object_list([result, None if caught is None else one_line(caught)])
    if caught is not None:
        raise caught
    if message is not None:
        raise BeatsError(message)
    return result


def write_origin(directory: Path, origin: Mapping[str, Any]) -> None:
    """Writes, beside the result in a directory, what it was made from."""
    content = {"fingerprint_version": FINGERPRINT_VERSION, **origin}
    with replace_file(directory / ORIGIN) as temporary:
        temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def read_origin(directory: Path) -> dict[str, Any]:
    """
    Reads what a result was made from; nothing of one that an earlier version has written, or another program.

    Raises:
        [`UsageError`]: if the file holds something else.
    """
    return read_settings(directory / ORIGIN) or {}


def save_with_origin(final: Path, trainer: Any, origin: Mapping[str, Any]) -> None:
    """Writes the model of a trainer to `final`, and what it was made from. Called on every process."""
    trainer.save_model(str(final))
    if trainer.is_world_process_zero():
        write_origin(final, origin)


def own_extractor(model: str | None) -> BeatsFeatureExtractor | None:
    """Loads the feature extractor of a model; none if its directory lacks one."""
    if model is None:
        return None
    is_missing = Path(model).is_dir() and not (Path(model) / FEATURE_EXTRACTOR_NAME).exists()
    # The directory of an adapter has that of its model.
    if is_missing and read_adapter(model) is None:
        return None
    return load_extractor(model)


def extractor_settings(extractor: BeatsFeatureExtractor) -> dict[str, Any]:
    """Returns the arguments that make such a feature extractor."""
    return {name: getattr(extractor, name) for name in (*FBANK_SETTINGS, *OTHER_SETTINGS)}


def choose_extractor(
    name: str | None, start: str | None = None, **frozen: BeatsFeatureExtractor | None
) -> BeatsFeatureExtractor:
    """
    Chooses the feature extractor of a stage: that of the directory or Hub id `name`; without a name that of the
    `frozen` models, which read the same fbank, or of the model that training starts from; or that of Microsoft's
    checkpoints.

    Raises:
        [`BeatsError`]: if a frozen model reads another fbank.
    """
    owned = {role: extractor for role, extractor in frozen.items() if extractor is not None}
    if name is not None:
        chosen = load_extractor(name)
    elif (found := next(iter(owned.values()), None) or own_extractor(start)) is not None:
        chosen = found
    else:
        chosen = BeatsFeatureExtractor()
        if without := [f"The {role}" for role in frozen] if start is None else [start]:
            logger.warning(f"{', '.join(without)}: has no feature extractor; AudioSet's statistics are used.")
    for role, extractor in owned.items():
        for setting in FBANK_SETTINGS:
            value, other = getattr(extractor, setting), getattr(chosen, setting)
            if value != other:
                raise BeatsError(
                    f"The {role} reads an fbank of `{setting}` {value!r}, and this stage would have one of {other!r}: "
                    "leave `feature_extractor` out, or choose models of the same fbank."
                )
    return chosen


def prepare_dataset(data: DataArguments, sampling_rate: int, beside: str | None = None) -> Clips:
    """
    Loads the clips of a dataset that can be read. One process of a node prepares them, and the others map into memory
    what it has written; see [`load_audio_dataset`] and [`prepare_clips`].
    """
    state = process_state()
    with state.local_main_process_first():
        refresh = state.is_local_main_process
        return prepare_clips(load_audio_dataset(data, beside, refresh), data, sampling_rate, refresh)


def load_crops(data: DataArguments, extractor: BeatsFeatureExtractor, codes: datasets.Dataset | None = None):
    """
    Loads the clips of a training run, for a `DataLoader`: audio, or fbanks if `data.precompute_fbank` is set; with
    their codes, if given.
    """
    if data.streaming:
        if codes is not None or data.precompute_fbank:
            raise BeatsError("A streamed dataset has no place for codes or fbanks: set `streaming: false`.")
        state = process_state()
        with state.local_main_process_first():
            parts = load_parts(data, refresh=state.is_local_main_process)
        return StreamingCrops(parts, data, extractor.sampling_rate, state.num_processes, state.process_index)
    crops = CropDataset(prepare_dataset(data, extractor.sampling_rate), data, codes, extractor.sampling_rate)
    if not data.precompute_fbank:
        return crops
    with process_state().local_main_process_first():
        return FbankDataset(crops, extractor)


def load_tokenizer(name: str) -> PreTrainedModel:
    """
    Loads an acoustic tokenizer, frozen, in float32, whatever it was saved in: half precision rounds to other codes,
    and is asked for by `bf16`. Raises a [`BeatsError`] for another kind of model.
    """
    tokenizer = load_model(name, dtype="float32")
    if not isinstance(tokenizer, (BeatsTokenizerModel, BeatsRandomProjectionTokenizer)):
        raise BeatsError(f"{name}: holds a {type(tokenizer).__name__}, not an acoustic tokenizer.")
    return tokenizer.requires_grad_(False)


def load_teacher(name: str, of_patches: bool = True) -> PreTrainedModel:
    """
    Loads the teacher of a directory or Hub repository: the whole classifier if it was fine-tuned, else the encoder; in
    float32, as the model that learns, whatever it was saved in. A training with `bf16` computes both by autocast. As a
    teacher `of_patches`, a classifier that has no scores of patches is its encoder, and a warning says so.

    Raises:
        [`BeatsError`]: if it holds another kind of model.
    """
    teacher: Any = load_model(name, dtype="float32")
    has_none = isinstance(teacher, BeatsForAudioClassification) and not teacher.config.scores_patches
    if (of_patches and has_none) or isinstance(teacher, BeatsForAudioFrameClassification):
        teacher = teacher.beats
        if of_patches and process_state().is_main_process:
            logger.warning_once(
                f"{name}: its classifier has no logits of patches, so its encoder alone is the teacher."
            )
    if not isinstance(teacher, (BeatsForAudioClassification, BeatsModel)):
        raise BeatsError(f"{name}: holds a {type(teacher).__name__}, not a BEATs model that could be a teacher.")
    return teacher


def prepare_training(
    training: BeatsTrainingArguments, batch: BatchArguments, data: DataArguments, has_steps: bool = True
) -> Path:
    """
    Plans the batch, says its size if the training `has_steps`, and gives the `Trainer` a directory beside
    `training.output_dir`.

    Returns:
        `Path`: the directory that the model is to be written to.
    """
    check_launch(training)
    if data.streaming:
        check_strategies(training)
    if data.mixes and training.train_sampling_strategy != "random":
        raise UsageError(
            "`dataset_weights` and `dataset_temperature` draw the clips: leave them out, or `train_sampling_strategy`."
        )
    plan = apply_batch_plan(training, batch, data.crop_seconds)
    if has_steps and process_state().is_main_process:
        logger.warning_once(
            f"A step takes {plan.seconds:g} s of audio: {training.world_size} process(es) x "
            f"{plan.gradient_accumulation_steps} accumulation step(s) x {plan.per_device_train_batch_size} clip(s)."
        )
    output_dir = Path(training.output_dir)
    check_new(output_dir)
    make_directory(output_dir.absolute().parent)
    training.output_dir = str(training_directory(output_dir))
    return output_dir


def check_strategies(training: BeatsTrainingArguments) -> None:
    """Raises a [`UsageError`] for what would happen at the end of an epoch of a stream, which workers reach apart."""
    for name in ("save_strategy", "logging_strategy"):
        if getattr(training, name) == "epoch":
            raise UsageError(f"`{name}`: a stream has no end of an epoch, its workers reach theirs apart: set steps.")


def announce(message: str) -> None:
    """Says, on the main process, what is done now."""
    if process_state().is_main_process:
        logger.warning(message)


def close_stage(kind: str, output_dir: str, *words: str) -> None:
    """Says, on the main process, where the result of a stage is, and the words of the command that comes next."""
    if process_state().is_main_process:
        note(f"{kind}: {output_dir}", next_command(*words))


def finetune_words(model: str) -> list[str]:
    """Returns the words of the command that goes on with a pre-trained encoder."""
    words = ["finetune", "--config", "folder_finetune", "--dataset", "FOLDER", "--model_name_or_path", model]
    return [*words, "--output_dir", "CLASSIFIER"]


def training_settings(
    training: BeatsTrainingArguments, *others: Any, crops: CropDataset | FbankDataset | StreamingCrops | None = None
) -> dict[str, Any]:
    """
    Returns the settings that an interrupted training must go on with: those that decide the result, and a digest of
    the names, lengths and contents of the clips. If these changed, what is left of an epoch would not be known.
    """
    of_best = DECISIVE_FOR_BEST if training.load_best_model_at_end else ()
    # A number of steps is read by the strategy `steps` alone.
    unread = [f"{name}_steps" for name in ("eval", "save") if getattr(training, f"{name}_strategy") != "steps"]
    names = (*DECISIVE_ARGUMENTS, *(name for name in of_best if name not in unread))
    settings = {name: getattr(training, name) for name in names}
    settings["batch_size"] = (
        training.per_device_train_batch_size * training.gradient_accumulation_steps * training.world_size
    )
    for arguments in others:
        settings |= asdict(arguments)
    of_devices = [settings.get(name) for name in ("mixture_probability", "mixup_alpha")]
    if settings.get("teacher_normalization") == "center" or any(of_devices):
        # Means and mixtures are of the clips of a device.
        settings["per_device_train_batch_size"] = training.per_device_train_batch_size
    if settings.get("method") == "distillation":
        # The codebook moves once for each batch of all processes.
        settings["gradient_accumulation_steps"] = training.gradient_accumulation_steps
    if crops is not None:
        settings["clips"] = crops.description
    if isinstance(crops, StreamingCrops):
        # Each has a part of the stream, and goes on with it.
        settings["readers"] = [
            training.world_size,
            max(1, training.dataloader_num_workers),
            training.per_device_train_batch_size,
        ]
    # These change how the data are read, not which, or what is made of the result.
    not_decisive = [
        "num_proc",
        "cache_audio",
        "read_attempts",
        "read_seconds",
        "max_lost_share",
        "average_checkpoints",
        "diagnosis_clips",
    ]
    # Crops of audio that an epoch has again are others, and their fbanks are not.
    if not any(isinstance(arguments, DataArguments) and arguments.mixes for arguments in others):
        not_decisive.append("precompute_fbank")
    return {name: value for name, value in settings.items() if name not in not_decisive}
