# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""
Masked acoustic modelling (section 3.3 of the paper).

Example:

    transformers-beats pretrain --codes CODES --dataset FOLDER --output_dir MODEL --max_steps 10000

On several devices: `accelerate launch -m transformers_beats.training.pretrain` with the same arguments.
"""

from functools import partial
from pathlib import Path
from typing import Any

from transformers import set_seed

from transformers_beats import BeatsConfig, BeatsForPreTraining
from transformers_beats.feature_extraction_beats import BeatsFeatureExtractor
from transformers_beats.inference.loading import load_model
from transformers_beats.training.config.arguments import (
    PRETRAIN_ARGUMENTS,
    BeatsTrainingArguments,
    PreTrainingModelArguments,
)
from transformers_beats.training.config.batch_plan import BatchArguments
from transformers_beats.training.config.checks import check_partners, check_unlabelled
from transformers_beats.training.config.recipes import parse_arguments
from transformers_beats.training.data.crops import DataCollator
from transformers_beats.training.data.sources import DataArguments
from transformers_beats.training.trainers.averaging import average_checkpoints, keep_checkpoints, prepare_average
from transformers_beats.training.trainers.checkpoints import train_and_save
from transformers_beats.training.trainers.pretraining import BeatsPreTrainer
from transformers_beats.utils.errors import BeatsError, run_command
from transformers_beats.utils.fingerprint import model_fingerprint
from transformers_beats.utils.messages import without_weight_bars

from .compute_codes import codes_fingerprint, load_codes
from .stages import (
    choose_extractor,
    close_stage,
    finetune_words,
    load_crops,
    load_tokenizer,
    on_main_process,
    own_extractor,
    prepare_training,
    save_with_origin,
    training_settings,
)


def build_model(
    arguments: PreTrainingModelArguments, codebook_size: int, num_codebooks: int = 1
) -> BeatsForPreTraining:
    """
    Builds the model to train. Its `codebook_size` is the tokenizer's unless the configuration gives another; it has as
    many codebooks.

    Raises:
        [`BeatsError`]: if it has fewer codes than the tokenizer, or another number of codebooks.
    """
    known = {"codebook_size": codebook_size, "num_codebooks": num_codebooks}
    values: dict[str, Any] = known | (arguments.model_config or {})
    if values["num_codebooks"] != num_codebooks:
        raise BeatsError(
            f"`model_config.num_codebooks` is {values['num_codebooks']}, but the tokenizer has {num_codebooks}: "
            "leave it out."
        )
    if values["codebook_size"] < codebook_size:
        raise BeatsError(
            f"`model_config.codebook_size` is {values['codebook_size']}, but the tokenizer has {codebook_size} codes."
        )
    if arguments.model_name_or_path is None:
        return BeatsForPreTraining(BeatsConfig(**values))
    # Other codes need another classifier, and an encoder has no label predictor.
    new_weights = ("label_predictor.",)
    model: Any = load_model(
        arguments.model_name_or_path, BeatsForPreTraining, dtype="float32", new_weights=new_weights, **values
    )
    if arguments.new_label_predictor:
        model.label_predictor = BeatsForPreTraining(model.config).label_predictor
    return model


@without_weight_bars()
def pretrain(
    model_arguments: PreTrainingModelArguments,
    data: DataArguments,
    batch: BatchArguments,
    training: BeatsTrainingArguments,
) -> None:
    """Trains a [`BeatsForPreTraining`] and writes it to `training.output_dir`; goes on where it was interrupted."""
    check_unlabelled(training)
    output_dir = prepare_training(training, batch, data)
    check_partners("mixture_probability", model_arguments.mixture_probability, training)
    keep_checkpoints(training, model_arguments.average_checkpoints)
    tokenizer = codes = read_by_codes = None
    description: dict[str, Any] = {}
    if model_arguments.codes is not None:
        codes, description = load_codes(model_arguments.codes, data)
        codebooks = (description["codebook_size"], description.get("num_codebooks", 1))
        if "feature_extractor" in description:
            read_by_codes = BeatsFeatureExtractor(**description["feature_extractor"])
    else:
        tokenizer = load_tokenizer(str(model_arguments.tokenizer))
        codebooks = (tokenizer.config.codebook_size, tokenizer.config.num_codebooks)
    extractor = choose_extractor(
        model_arguments.feature_extractor,
        model_arguments.model_name_or_path,
        tokenizer=read_by_codes if tokenizer is None else own_extractor(model_arguments.tokenizer),
    )
    crops = load_crops(data, extractor, codes)
    if codes is not None and crops.fingerprint != description["clips"]:
        raise BeatsError(
            f"{model_arguments.codes}: the codes were computed from other files than {data.dataset} now holds, from "
            "the same in another order, or by an earlier version: tokenize again."
        )
    # `Trainer` seeds only what comes after the model.
    set_seed(training.seed)
    trainer = BeatsPreTrainer(
        build_model(model_arguments, *codebooks),
        training,
        data_collator=DataCollator(extractor, data.crop_seconds),
        train_dataset=crops,
        feature_extractor=extractor,
        tokenizer=tokenizer,
        mixture_probability=model_arguments.mixture_probability,
    )
    settings = training_settings(training, model_arguments, data, crops=crops)
    # One of the same name may have been trained anew meanwhile.
    settings["tokenizer_fingerprint"] = (
        description.get("tokenizer") if tokenizer is None else model_fingerprint(tokenizer, extractor)
    )
    if (start := model_arguments.model_name_or_path) is not None:
        # Read once more, without what is new in the model: on one process, as only this one compares it.
        settings["start_fingerprint"] = on_main_process(lambda: start_fingerprint(start))
    origin = {name: value for name, value in settings.items() if name.endswith("_fingerprint")}
    origin["clips"] = crops.description
    if codes is not None:
        origin["codes_fingerprint"] = codes_fingerprint(description)
    if model_arguments.average_checkpoints:
        prepare_average(trainer, model_arguments.average_checkpoints)
    finish = partial(save_model, trainer=trainer, origin=origin, num_checkpoints=model_arguments.average_checkpoints)
    train_and_save(trainer, output_dir, settings, finish)


def start_fingerprint(name: str) -> str:
    """Returns the fingerprint of the encoder that a model starts from, and of its feature extractor."""
    return model_fingerprint(load_model(name, dtype="float32"), own_extractor(name))


def save_model(final: Path, trainer: BeatsPreTrainer, origin: dict[str, Any], num_checkpoints: int | None) -> None:
    """
    Writes the model to `final`, and what it was made from; if asked to, with the mean of the weights of its last
    checkpoints.
    """
    if num_checkpoints:
        model: Any = trainer.model
        average_checkpoints(model, Path(str(trainer.args.output_dir)), num_checkpoints)
    save_with_origin(final, trainer, origin)


def main(argv: list[str] | None = None) -> None:
    """Runs the command with the words of `argv`; by default those of the command line."""
    arguments = parse_arguments(PRETRAIN_ARGUMENTS, argv, __doc__)
    # A training has a directory of its own meanwhile.
    output_dir = arguments[-1].output_dir
    pretrain(*arguments)
    close_stage("Model", output_dir, *finetune_words(output_dir))


if __name__ == "__main__":
    run_command(main)
