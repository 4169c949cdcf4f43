# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""
Whole iterative pre-training (section 3.1 of the paper).

Example:

    transformers-beats iterate --config folder_iterate --data.dataset FOLDER --output_dir RUN --model.max_steps 10000

On several devices: `accelerate launch -m transformers_beats.training.iterate` with the same arguments. Every
stage writes a directory that is there or not there, so that an interrupted run goes on with the next one:

    OUTPUT_DIR/iteration-1/tokenizer    a random projection; in later iterations distilled from the last model
    OUTPUT_DIR/iteration-1/codes        its codes of all clips
    OUTPUT_DIR/iteration-1/model        a model that has learned to predict them
"""

import gc
from pathlib import Path

import torch
from transformers.utils import logging

from transformers_beats import BeatsRandomProjectionTokenizer, BeatsRandomProjectionTokenizerConfig
from transformers_beats.training.config.arguments import (
    PRETRAIN_ARGUMENTS,
    TOKENIZE_ARGUMENTS,
    TRAIN_TOKENIZER_ARGUMENTS,
    IterateArguments,
)
from transformers_beats.training.config.recipes import build_arguments, parse_arguments
from transformers_beats.utils.errors import run_command
from transformers_beats.utils.files import new_directory

from .compute_codes import DESCRIPTION, tokenize
from .pretrain import pretrain
from .stages import announce, choose_extractor, close_stage, finetune_words, is_there, process_state
from .train_tokenizer import train_tokenizer


def save_random_projection(arguments: IterateArguments, directory: Path) -> None:
    """Writes the tokenizer of the first iteration and its feature extractor, on one process."""
    state = process_state()
    if state.is_main_process:
        config = BeatsRandomProjectionTokenizerConfig(**(arguments.random_projection or {}))
        extractor = choose_extractor(arguments.feature_extractor, arguments.model.get("model_name_or_path"))
        with new_directory(directory) as new:
            BeatsRandomProjectionTokenizer(config).save_pretrained(new)
            extractor.save_pretrained(new)
    state.wait_for_everyone()


def is_missing(result: Path, number: int) -> bool:
    """Returns whether a stage has to run, and frees the memory of the stage before on the device."""
    is_done = is_there(result)
    announce(f"Iteration {number}: {f'{result} is there already' if is_done else f'making {result}'}.")
    # A trainer and its model refer to each other.
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return not is_done


def iterate(arguments: IterateArguments) -> Path:
    """
    Runs all stages that are not done yet.

    Returns:
        `Path`: the directory of the last model.
    """
    model: Path | None = None
    # Bars for the files of each model would break that of its training.
    logging.disable_progress_bar()
    for number in range(1, arguments.num_iterations + 1):
        directory = Path(arguments.output_dir) / f"iteration-{number}"
        tokenizer, codes, teacher = directory / "tokenizer", directory / "codes", model
        model = directory / "model"
        if is_missing(tokenizer, number):
            if teacher is None:
                save_random_projection(arguments, tokenizer)
            else:
                values = arguments.stage_values("tokenizer", teacher=str(teacher), output_dir=str(tokenizer))
                train_tokenizer(*build_arguments(TRAIN_TOKENIZER_ARGUMENTS, values))
        if is_missing(codes / DESCRIPTION, number):
            values = arguments.stage_values("tokenize", tokenizer=str(tokenizer), output_dir=str(codes))
            tokenize(*build_arguments(TOKENIZE_ARGUMENTS, values))
        if is_missing(model, number):
            values = arguments.stage_values("model", codes=str(codes), output_dir=str(model))
            pretrain(*build_arguments(PRETRAIN_ARGUMENTS, values))
    return Path(arguments.output_dir) / f"iteration-{arguments.num_iterations}" / "model"


def main(argv: list[str] | None = None) -> None:
    """Runs the command with the words of `argv`; by default those of the command line."""
    model = str(iterate(*parse_arguments((IterateArguments,), argv, __doc__)))
    close_stage("Model", model, *finetune_words(model))


if __name__ == "__main__":
    run_command(main)
