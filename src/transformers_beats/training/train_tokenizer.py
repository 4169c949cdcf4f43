# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""
Training of a self-distilled tokenizer (section 3.2.2 of the paper).

Example:

    transformers-beats train-tokenizer --config audioset_tokenizer --teacher MODEL --dataset FOLDER --output_dir DIR

On several devices: `accelerate launch -m transformers_beats.training.train_tokenizer` with the same arguments.
"""

import itertools
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from torch.utils.data import Subset
from transformers import PreTrainedModel, set_seed

from transformers_beats import (
    BeatsFeatureExtractor,
    BeatsForAudioClassification,
    BeatsTokenizerConfig,
    BeatsTokenizerForPreTraining,
)
from transformers_beats.training.config.arguments import (
    TRAIN_TOKENIZER_ARGUMENTS,
    BeatsTrainingArguments,
    DiagnosisArguments,
    TokenizerModelArguments,
)
from transformers_beats.training.config.batch_plan import BatchArguments
from transformers_beats.training.config.checks import check_unlabelled
from transformers_beats.training.config.recipes import parse_arguments
from transformers_beats.training.data.crops import DataCollator
from transformers_beats.training.data.mixing import mixture_sampler
from transformers_beats.training.data.sources import DataArguments
from transformers_beats.training.reports.codes import DIAGNOSIS
from transformers_beats.training.trainers.checkpoints import train_and_save
from transformers_beats.training.trainers.k_means import build_k_means_tokenizer, count_draws, draw_patches
from transformers_beats.training.trainers.pretraining import BeatsTokenizerTrainer, check_teacher
from transformers_beats.utils.errors import BeatsError, UsageError, one_line, run_command
from transformers_beats.utils.files import check_new, new_directory
from transformers_beats.utils.fingerprint import model_fingerprint
from transformers_beats.utils.messages import without_weight_bars

from .compute_codes import crop_words
from .diagnose_codes import diagnose_if_possible, run_models
from .stages import (
    choose_extractor,
    close_stage,
    load_crops,
    load_teacher,
    own_extractor,
    prepare_training,
    process_state,
    save_with_origin,
    training_settings,
    write_origin,
)


def load_teacher_and_extractor(
    name: str, feature_extractor: str | None = None
) -> tuple[PreTrainedModel, BeatsFeatureExtractor]:
    """
    Loads a teacher, see [`load_teacher`], and the feature extractor that a tokenizer of it is trained with. Raises a
    [`BeatsError`] if the teacher reads another fbank than that of `feature_extractor`.
    """
    extractor = choose_extractor(feature_extractor, teacher=own_extractor(name))
    return load_teacher(name), extractor


def build_tokenizer(arguments: TokenizerModelArguments, teacher: PreTrainedModel) -> BeatsTokenizerForPreTraining:
    """
    Builds the tokenizer to train, whose estimator has the size of the teacher's output.

    Raises:
        [`BeatsError`]: if it is to start from the teacher's weights and these do not fit.
    """
    is_classifier = isinstance(teacher, BeatsForAudioClassification)
    output_size = teacher.config.num_labels if is_classifier else teacher.config.hidden_size
    values: dict[str, Any] = {"teacher_output_size": output_size} | (arguments.model_config or {})
    config = BeatsTokenizerConfig(**values)
    if config.teacher_output_size != output_size:
        raise BeatsError(
            f"`model_config.teacher_output_size` is {config.teacher_output_size}, but the teacher's output has "
            f"{output_size} dimensions: leave it out."
        )
    tokenizer = BeatsTokenizerForPreTraining(config)
    if arguments.initialize_from_teacher:
        encoder = teacher.beats if is_classifier else teacher
        try:
            tokenizer.beats.load_state_dict(encoder.state_dict())
        except RuntimeError as error:
            raise BeatsError(
                f"`initialize_from_teacher` needs a tokenizer of the teacher's size: {one_line(error)}"
            ) from error
    return tokenizer


@without_weight_bars()
def train_tokenizer(
    tokenizer_arguments: TokenizerModelArguments,
    data: DataArguments,
    batch: BatchArguments,
    training: BeatsTrainingArguments,
) -> None:
    """
    Trains a [`BeatsTokenizerForPreTraining`] and writes it to `training.output_dir`, where `BeatsTokenizerModel` finds
    the tokenizer, with a diagnosis of its codes in `diagnosis/`; goes on where it was interrupted. With the method
    `k_means`, nothing is trained: the codes are clusters of the teacher's outputs.
    """
    check_unlabelled(training)
    is_k_means = tokenizer_arguments.method == "k_means"
    if is_k_means and data.streaming:
        raise UsageError("k-means draws clips of a dataset: set `streaming: false`.")
    output_dir = prepare_training(training, batch, data, has_steps=not is_k_means)
    teacher, extractor = load_teacher_and_extractor(tokenizer_arguments.teacher, tokenizer_arguments.feature_extractor)
    check_teacher(teacher, tokenizer_arguments.teacher_layers)
    make = fit_tokenizer if is_k_means else distil_tokenizer
    make(tokenizer_arguments, data, training, output_dir, extractor, teacher)
    if tokenizer_arguments.diagnosis_clips:
        examined = DiagnosisArguments(
            output_dir=str(output_dir / DIAGNOSIS),
            tokenizer=str(output_dir),
            teacher=tokenizer_arguments.teacher,
            teacher_layers=tokenizer_arguments.teacher_layers,
            teacher_normalization=tokenizer_arguments.teacher_normalization,
            num_clips=tokenizer_arguments.diagnosis_clips,
        )
        diagnose_if_possible(examined, data)


def distil_tokenizer(
    tokenizer_arguments: TokenizerModelArguments,
    data: DataArguments,
    training: BeatsTrainingArguments,
    output_dir: Path,
    extractor: BeatsFeatureExtractor,
    teacher: PreTrainedModel,
) -> None:
    """Trains a tokenizer that learns the teacher's outputs, and writes it to `output_dir`."""
    crops = load_crops(data, extractor)
    # `Trainer` seeds only what comes after the model.
    set_seed(training.seed)
    trainer = BeatsTokenizerTrainer(
        build_tokenizer(tokenizer_arguments, teacher),
        training,
        data_collator=DataCollator(extractor, data.crop_seconds),
        train_dataset=crops,
        feature_extractor=extractor,
        teacher=teacher,
        layers=tokenizer_arguments.teacher_layers,
        normalization=tokenizer_arguments.teacher_normalization,
        min_perplexity=tokenizer_arguments.min_perplexity,
    )
    # One of the same name may have been trained anew meanwhile.
    origin = {"teacher_fingerprint": model_fingerprint(teacher, extractor)}
    settings = training_settings(training, tokenizer_arguments, data, crops=crops) | origin
    train_and_save(trainer, output_dir, settings, partial(save_with_origin, trainer=trainer, origin=origin))


def fit_tokenizer(
    tokenizer_arguments: TokenizerModelArguments,
    data: DataArguments,
    training: BeatsTrainingArguments,
    output_dir: Path,
    extractor: BeatsFeatureExtractor,
    teacher: PreTrainedModel,
) -> None:
    """
    Writes a tokenizer to `output_dir` whose codes are clusters of the outputs of the teacher's encoder. Called on
    every process; one computes.
    """
    codebook_size = BeatsTokenizerConfig(**(tokenizer_arguments.model_config or {})).codebook_size
    crops = load_crops(data, extractor)
    try:
        if process_state().is_main_process:
            origin = {"teacher_fingerprint": model_fingerprint(teacher, extractor)}
            encoder: Any = teacher.beats if isinstance(teacher, BeatsForAudioClassification) else teacher
            count, per_clip = count_draws(len(crops), codebook_size)
            # With shares of datasets, in the order in which they are drawn.
            order: Any = mixture_sampler(crops, training.seed)
            if order is None:
                order = np.random.default_rng(training.seed).permutation(len(crops)).tolist()
            clips = Subset(crops, list(itertools.islice(order, count)))
            batch_size = training.per_device_train_batch_size
            found = run_models(clips, extractor, data.crop_seconds, None, encoder, batch_size=batch_size)
            states = draw_patches((values for _, values in found if values is not None), per_clip, training.seed)
            with new_directory(output_dir, check=lambda: check_new(output_dir)) as new:
                built = build_k_means_tokenizer(
                    encoder.cpu(), states, codebook_size, training.seed, tokenizer_arguments.min_perplexity
                )
                built.save_pretrained(new)
                extractor.save_pretrained(new)
                write_origin(new, origin)
    finally:
        process_state().wait_for_everyone()


def main(argv: list[str] | None = None) -> None:
    """Runs the command with the words of `argv`; by default those of the command line."""
    tokenizer, data, batch, training = parse_arguments(TRAIN_TOKENIZER_ARGUMENTS, argv, __doc__)
    # A training has a directory of its own meanwhile.
    output_dir = training.output_dir
    train_tokenizer(tokenizer, data, batch, training)
    words = ["compute-codes", "--tokenizer", output_dir, *crop_words(data), "--output_dir", "CODES"]
    close_stage("Tokenizer", output_dir, *words)


if __name__ == "__main__":
    run_command(main)
