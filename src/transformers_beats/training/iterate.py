# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""
Whole iterative pre-training (section 3.1 of the paper).

Example:

    transformers-beats iterate --config folder_iterate --data.dataset FOLDER --output_dir RUN --model.max_steps 10000

On several devices: `accelerate launch -m transformers_beats.training.iterate` with the same arguments. Every
stage writes a directory that is there or not there, so that an interrupted run goes on with the next one:

    OUTPUT_DIR/iteration-1/tokenizer    a random projection; in later iterations distilled from the last model
    OUTPUT_DIR/iteration-1/codes        its codes of all clips
    OUTPUT_DIR/iteration-1/diagnosis    what the codes are worth: diagnosis.html
    OUTPUT_DIR/iteration-1/model        a model that has learned to predict them

With `--supervised_teacher.dataset LABELLED`, or a classifier as `--supervised_teacher`, one more iteration follows:

    OUTPUT_DIR/iteration-3+/teacher     the last model, fine-tuned on labels; the tokenizer learns its logits
"""

import gc
from pathlib import Path
from typing import Any

import torch

from transformers_beats import BeatsRandomProjectionTokenizer, BeatsRandomProjectionTokenizerConfig
from transformers_beats.training.config.arguments import (
    FINETUNE_ARGUMENTS,
    PRETRAIN_ARGUMENTS,
    TOKENIZE_ARGUMENTS,
    TRAIN_TOKENIZER_ARGUMENTS,
    Arguments,
    DiagnosisArguments,
)
from transformers_beats.training.config.iterations import CORPUS, IterateArguments
from transformers_beats.training.config.recipes import build_arguments, parse_arguments
from transformers_beats.training.data.sources import DataArguments
from transformers_beats.training.reports.codes import DIAGNOSIS
from transformers_beats.utils.errors import run_command
from transformers_beats.utils.files import new_directory
from transformers_beats.utils.messages import without_weight_bars

from .classifiers import load_training_clips
from .compute_codes import DESCRIPTION, tokenize
from .diagnose_codes import diagnose_if_possible
from .fbank_statistics import StatisticsArguments, compute_statistics
from .finetune import finetune
from .pretrain import pretrain
from .stages import (
    announce,
    choose_extractor,
    close_stage,
    finetune_words,
    is_there,
    own_extractor,
    process_state,
)
from .train_tokenizer import train_tokenizer


def save_random_projection(arguments: IterateArguments, directory: Path) -> None:
    """Writes the tokenizer of the first iteration and its feature extractor, on one process."""
    state = process_state()
    if state.is_main_process:
        config = BeatsRandomProjectionTokenizerConfig(**(arguments.random_projection or {}))
        name = arguments.stage_values("tokenize")["feature_extractor"]
        extractor = choose_extractor(name, arguments.model.get("model_name_or_path"))
        with new_directory(directory) as new:
            BeatsRandomProjectionTokenizer(config).save_pretrained(new)
            extractor.save_pretrained(new)
    state.wait_for_everyone()


def save_statistics(arguments: IterateArguments) -> None:
    """Writes a feature extractor with the statistics of the data, if these are asked for."""
    directory = arguments.extractor_directory
    if arguments.feature_extractor != CORPUS or not is_missing(directory, "Statistics"):
        return
    (data,) = build_arguments((DataArguments,), arguments.data)
    compute_statistics(StatisticsArguments(str(directory)), data)


def check_extractor(arguments: IterateArguments) -> None:
    """Raises a [`BeatsError`] for a feature extractor of another fbank than that of a classifier that is to teach."""
    name = arguments.stage_values("tokenize")["feature_extractor"]
    if name is not None and isinstance(arguments.supervised_teacher, str):
        choose_extractor(name, None, **{"supervised teacher": own_extractor(arguments.supervised_teacher)})


def is_missing(result: Path, name: str) -> bool:
    """Returns whether a stage has to run, and frees the memory of the stage before on the device."""
    is_done = is_there(result)
    announce(f"{name}: {f'{result} is there already' if is_done else f'making {result}'}.")
    # A trainer and its model refer to each other.
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return not is_done


def supervised_teacher(arguments: IterateArguments, model: Path, directory: Path) -> str:
    """Returns the classifier that teaches the last tokenizer: the one that was given, or the last model fine-tuned."""
    if isinstance(arguments.supervised_teacher, str):
        return arguments.supervised_teacher
    if is_missing(directory, directory.parent.name):
        finetune(teacher_arguments(arguments, str(model), str(directory)), prints=False)
    return str(directory)


def teacher_arguments(arguments: IterateArguments, model: str, output_dir: str) -> Arguments:
    """Returns the arguments of `finetune` that make the supervised teacher."""
    return Arguments(*build_arguments(FINETUNE_ARGUMENTS, arguments.teacher_values(model, output_dir)))


def check_labels(arguments: IterateArguments) -> None:
    """Reads the labels of the supervised teacher, if it is still to be made: mistakes must not show after days."""
    if isinstance(arguments.supervised_teacher, dict):
        place = Path(arguments.output_dir) / arguments.iterations[-1] / "teacher"
        if not is_there(place):
            load_training_clips(teacher_arguments(arguments, str(place), str(place)))


@without_weight_bars()
def iterate(arguments: IterateArguments) -> Path:
    """
    Runs all stages that are not done yet.

    Returns:
        `Path`: the directory of the last model.
    """
    model: Path | None = None
    check_labels(arguments)
    save_statistics(arguments)
    check_extractor(arguments)
    for number, name in enumerate(arguments.iterations, start=1):
        directory = Path(arguments.output_dir) / name
        is_supervised = number > arguments.num_iterations
        teacher = None if model is None else str(model)
        if is_supervised and model is not None:
            teacher = supervised_teacher(arguments, model, directory / "teacher")
        start: dict[str, Any] = {}
        if arguments.initialize_from_last and model is not None:
            start = {"model_name_or_path": str(model), "new_label_predictor": True}
        model = run_iteration(arguments, directory, teacher, is_supervised, start)
    return Path(arguments.output_dir) / arguments.iterations[-1] / "model"


def run_iteration(
    arguments: IterateArguments, directory: Path, teacher: str | None, is_supervised: bool, start: dict[str, Any]
) -> Path:
    """
    Runs the stages of an iteration that are not done yet; returns the directory of its model. `start` are arguments of
    `pretrain` that say where the model starts.
    """
    tokenizer, codes, diagnosis, model = (directory / name for name in ("tokenizer", "codes", DIAGNOSIS, "model"))
    name = directory.name
    if is_missing(tokenizer, name):
        if teacher is None:
            save_random_projection(arguments, tokenizer)
        else:
            values = arguments.stage_values("tokenizer", is_supervised, teacher=teacher, output_dir=str(tokenizer))
            train_tokenizer(*build_arguments(TRAIN_TOKENIZER_ARGUMENTS, values))
    if is_missing(codes / DESCRIPTION, name):
        values = arguments.stage_values("tokenize", tokenizer=str(tokenizer), output_dir=str(codes))
        tokenize(*build_arguments(TOKENIZE_ARGUMENTS, values))
    if arguments.diagnosis_clips and is_missing(diagnosis, name):
        values = arguments.stage_values("tokenizer", is_supervised)
        targets: dict[str, Any] = {}
        if teacher is not None:
            targets = {key: values.get(key) for key in ("teacher_layers", "teacher_normalization")}
        (data,) = build_arguments((DataArguments,), arguments.data)
        examined = DiagnosisArguments(
            str(diagnosis), codes=str(codes), teacher=teacher, num_clips=arguments.diagnosis_clips, **targets
        )
        diagnose_if_possible(examined, data)
    if is_missing(model, name):
        values = arguments.stage_values("model", codes=str(codes), output_dir=str(model), **start)
        pretrain(*build_arguments(PRETRAIN_ARGUMENTS, values))
    return model


def main(argv: list[str] | None = None) -> None:
    """Runs the command with the words of `argv`; by default those of the command line."""
    model = str(iterate(*parse_arguments((IterateArguments,), argv, __doc__)))
    close_stage("Model", model, *finetune_words(model))


if __name__ == "__main__":
    run_command(main)
