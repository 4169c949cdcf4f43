# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""
Distillation: a smaller model learns from a classifier or an encoder, on audio without labels.

Example:

    transformers-beats distill TEACHER -o STUDENT --size tiny --dataset FOLDER --max_steps 10000

On several devices: `accelerate launch -m transformers_beats.training.distill` with the same arguments.
"""

import json
import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel, set_seed

from transformers_beats import BeatsConfig, BeatsForAudioClassification, BeatsModel
from transformers_beats.configuration_beats import problem_type_of
from transformers_beats.inference.models import HEAD_MODULES, check_extractor
from transformers_beats.training.config.arguments import BeatsTrainingArguments
from transformers_beats.training.config.batch_plan import BatchArguments
from transformers_beats.training.config.checks import check_config, check_unlabelled, without_recurrent_layers
from transformers_beats.training.config.distillation import (
    DISTILL_ARGUMENTS,
    SIZES,
    DistillationArguments,
    architecture_of,
    check_views,
)
from transformers_beats.training.config.recipes import parse_arguments
from transformers_beats.training.data.augmentation import AugmentationArguments
from transformers_beats.training.data.crops import DataCollator, FbankDataset
from transformers_beats.training.data.sources import DataArguments
from transformers_beats.training.data.streams import StreamingCrops
from transformers_beats.training.reports.card import write_card
from transformers_beats.training.trainers.checkpoints import train_and_save
from transformers_beats.training.trainers.distillation import BeatsForDistillation, DistillationTrainer
from transformers_beats.training.trainers.pretraining import check_layers
from transformers_beats.utils.errors import UsageError, run_command
from transformers_beats.utils.fingerprint import model_fingerprint
from transformers_beats.utils.messages import without_weight_bars
from transformers_beats.utils.numbers import format_number

from .classifiers import name_dataset, write_digests
from .stages import (
    announce,
    choose_extractor,
    close_stage,
    finetune_words,
    load_crops,
    load_teacher,
    own_extractor,
    prepare_training,
    process_state,
    training_settings,
)


DESCRIPTION = "distillation.json"
# Settings by which layers of the same shapes compute other things. The depth is none: see `BeatsLayer.rescale`.
LAYER_SETTINGS = (
    *("num_attention_heads", "hidden_act", "deep_norm", "layer_norm_first", "layer_norm_eps"),
    *("relative_position_embedding", "gru_rel_pos"),
)


def logits_weight_of(arguments: DistillationArguments, teacher: PreTrainedModel) -> float:
    """
    Returns the weight of the loss of the logits: 1 with a classifier, unless another is given, and 0 with an encoder.

    Raises:
        [`UsageError`]: if it is positive and the teacher has no logits of classes, or if nothing is to be learned.
    """
    weight = arguments.logits_weight
    if not isinstance(teacher, BeatsForAudioClassification):
        if weight:
            raise UsageError(f"`logits_weight` is {weight:g}, but the teacher is no clip classifier: leave it out.")
        weight = 0.0
    elif weight != 0 and problem_type_of(teacher.config) == "regression":
        raise UsageError(
            "The teacher is a regression, whose logits are no classes: `--logits_weight 0` makes an encoder of it."
        )
    weight = 1.0 if weight is None else weight
    if weight == 0 and arguments.representation_weight == 0:
        raise UsageError("`representation_weight` is 0, and there are no logits to learn: leave it out.")
    return weight


def build_config(arguments: DistillationArguments, teacher: PreTrainedModel) -> BeatsConfig:
    """
    Returns the configuration of the student: the teacher's, with the widths and the depth of a size, and with
    `model_config`. Prototypes, which are a probe's, are not learned: the student has the mean of its patches instead.

    Raises:
        [`UsageError`]: if a configuration does not accept the values.
    """
    is_classifier = logits_weight_of(arguments, teacher) > 0
    values = architecture_of(teacher.config, with_head=is_classifier)
    if values.get("classifier_pooling") == "prototypes":
        values["classifier_pooling"] = "mean"
    if is_classifier:
        values |= without_recurrent_layers(arguments.model_config or {}, values["classifier_pooling"])
    values |= SIZES.get(arguments.size or "", {}) | (arguments.model_config or {})
    check_config(BeatsConfig, values)
    return BeatsConfig(**values)


def build_student(
    arguments: DistillationArguments, teacher: PreTrainedModel
) -> tuple[BeatsForAudioClassification | BeatsModel, list[int]]:
    """
    Builds the student: a classifier if it learns logits, else an encoder, with random weights or those of layers of
    the teacher.

    Returns:
        `tuple`: the model, and the layers of the teacher that it starts from, from 1; none if they are random.

    Raises:
        [`UsageError`]: if the student has more parameters than its teacher.
    """
    config = build_config(arguments, teacher)
    model_class = BeatsForAudioClassification if logits_weight_of(arguments, teacher) else BeatsModel
    student = model_class(config)
    sizes = [encoder_of(model).num_parameters() for model in (student, teacher)]
    if sizes[0] > sizes[1]:
        raise UsageError(
            f"The student's encoder has {format_number(sizes[0])} parameters, more than its teacher's, "
            f"{format_number(sizes[1])}: choose a smaller `size`, or fewer layers or widths in `model_config`."
        )
    return student, copy_layers(student, teacher) if arguments.initialize_from_teacher else []


def encoder_of(model: Any) -> Any:
    """Returns the encoder of a classifier, or the encoder itself."""
    return model if isinstance(model, BeatsModel) else model.beats


def choose_copied(num_layers: int, num_teacher_layers: int) -> list[int]:
    """
    Returns the layers of the teacher, from 1, that those of a student start from: the k-th of n layers from layer k *
    N / n of N, rounded up, so that the last is the last. Four of twelve are 3, 6, 9 and 12.
    """
    return [-(-number * num_teacher_layers // num_layers) for number in range(1, num_layers + 1)]


def copy_layers(student: Any, teacher: Any) -> list[int]:
    """
    Gives a student the layers of [`choose_copied`], and all other modules of encoder and head that have the same
    shapes as the teacher's, if its layers are like the teacher's. Otherwise nothing is copied.

    Returns:
        `list[int]`: the layers that were copied, from 1.
    """
    own, others = encoder_of(student), encoder_of(teacher)
    depths = [len(encoder.encoder.layers) for encoder in (own, others)]
    settings = [[getattr(model.config, name) for name in LAYER_SETTINGS] for model in (own, others)]
    is_alike = settings[0] == settings[1] and shapes_of(own.encoder.layers[0]) == shapes_of(others.encoder.layers[0])
    if depths[0] > depths[1] or not is_alike:
        return []
    chosen = choose_copied(*depths)
    for layer, number in zip(own.encoder.layers, chosen):
        other = others.encoder.layers[number - 1]
        layer.load_state_dict(other.state_dict())
        layer.rescale(other.residual_scale)
    pairs = [(own.embeddings, others.embeddings)]
    names = ["pos_conv_embed", "layer_norm"]
    if own.config.max_bucket_distance == others.config.max_bucket_distance:
        # Otherwise the buckets of the same table are of other distances.
        names.append("relative_position")
    for name in names:
        pairs.append((getattr(own.encoder, name), getattr(others.encoder, name)))
    for name in HEAD_MODULES:
        pairs.append((getattr(student, name, None), getattr(teacher, name, None)))
    for module, other in pairs:
        if module is not None and other is not None and shapes_of(module) == shapes_of(other):
            module.load_state_dict(other.state_dict())
    return chosen


def shapes_of(module: Any) -> dict[str, Any]:
    """Returns the shapes of the weights of a module, by their names."""
    return {name: value.shape for name, value in module.state_dict().items()}


@without_weight_bars()
def distill(
    arguments: DistillationArguments,
    data: DataArguments,
    augmentation: AugmentationArguments,
    batch: BatchArguments,
    training: BeatsTrainingArguments,
) -> bool:
    """
    Trains a smaller model on the outputs of a teacher, and writes it to `training.output_dir`, an ordinary checkpoint
    with the teacher's feature extractor and labels; goes on where it was interrupted.

    Returns:
        `bool`: whether the student is a classifier.

    Raises:
        [`BeatsError`]: if the teacher is no BEATs classifier or encoder, or the student does not fit it.
    """
    check_unlabelled(training)
    output_dir = prepare_training(training, batch, data)
    check_views(augmentation, data, training)
    teacher = load_teacher(arguments.teacher, of_patches=False)
    logits_weight = logits_weight_of(arguments, teacher)
    check_layers(arguments.teacher_layers, teacher)
    extractor = choose_extractor(arguments.feature_extractor, teacher=own_extractor(arguments.teacher))
    check_extractor(extractor, teacher)
    # `Trainer` seeds only what comes after the model.
    set_seed(training.seed)
    student, copied = build_student(arguments, teacher)
    objective = BeatsForDistillation(
        student,
        teacher.config.hidden_size,
        problem_type_of(teacher.config),
        logits_weight,
        arguments.representation_weight,
        arguments.temperature,
    )
    origin = f"layers {', '.join(map(str, copied))} of the teacher" if copied else "random weights"
    description = {
        "teacher": arguments.teacher,
        "teacher_fingerprint": model_fingerprint(teacher, extractor),
        "teacher_parameters": teacher.num_parameters(),
        "student_parameters": student.num_parameters(),
        "starts_from": origin,
        "logits_weight": logits_weight,
        "representation_weight": arguments.representation_weight,
        "temperature": arguments.temperature,
        "training_dataset": name_dataset(data.dataset),
    }
    announce(
        f"The student has {format_number(description['student_parameters'])} parameters, the teacher "
        f"{format_number(description['teacher_parameters'])}. It starts from {origin}."
    )
    crops = load_crops(data, extractor)
    trainer = DistillationTrainer(
        objective,
        training,
        data_collator=DataCollator(extractor, data.crop_seconds),
        train_dataset=crops,
        feature_extractor=extractor,
        teacher=teacher,
        layers=arguments.teacher_layers,
        augmentation=augmentation,
    )
    settings = training_settings(training, arguments, data, augmentation, crops=crops)
    # A teacher of the same name may have been trained anew meanwhile.
    settings["teacher_fingerprint"] = description["teacher_fingerprint"]
    finish = partial(save_student, trainer=trainer, description=description, crops=crops)
    train_and_save(trainer, output_dir, settings, finish)
    if process_state().is_main_process:
        written = json.loads((output_dir / DESCRIPTION).read_text(encoding="utf-8"))
        known = {name: value for name, value in written.items() if name not in ("teacher", "teacher_fingerprint")}
        write_card(output_dir, known | {"base_model": arguments.teacher}, method="distilled")
    return isinstance(student, BeatsForAudioClassification)


def save_student(final: Path, trainer: DistillationTrainer, description: Mapping[str, Any], crops: Any) -> None:
    """Writes the student to `final`, without the projection, and what it has learned from. Called on every process."""
    objective: Any = trainer.accelerator.unwrap_model(trainer.model)
    # Of all processes, where the weights are divided among them.
    state = trainer.accelerator.get_state_dict(trainer.model)
    if not trainer.is_world_process_zero():
        return
    weights = {name.removeprefix("student."): value for name, value in state.items() if name.startswith("student.")}
    objective.student.save_pretrained(final, state_dict=weights)
    logged = [entry for entry in trainer.state.log_history if "loss" in entry]
    names = ("loss", "logits_loss", "representation_loss", "agreement")
    measured = {f"last_{name}": logged[-1][name] for name in names if logged and name in logged[-1]}
    done = {"steps": trainer.state.global_step, "epoch": trainer.state.epoch, "seed": trainer.args.seed}
    done["learning_rate"] = trainer.args.learning_rate
    text = json.dumps({**description, **done, **measured}, indent=1)
    (final / DESCRIPTION).write_text(text, encoding="utf-8")
    if not isinstance(crops, StreamingCrops):
        # For `evaluate`. The clips of a stream are not counted.
        write_digests(final, (crops.crops if isinstance(crops, FbankDataset) else crops).clips)


def name_words(words: list[str]) -> list[str]:
    """
    Returns the words of the command line with keys: a first word is the teacher, and `-o` the output directory. They
    come last, so that no recipe replaces them.

    Raises:
        [`UsageError`]: if `-o` is the last word.
    """
    words, named = list(words), []
    if words and not words[0].startswith("-"):
        named += ["--teacher", words.pop(0)]
    while "-o" in words:
        place = words.index("-o")
        if place + 1 == len(words):
            raise UsageError("-o: its value is missing, the directory that the student is written to.")
        named += ["--output_dir", words.pop(place + 1)]
        words.pop(place)
    return [*words, *named]


def main(argv: list[str] | None = None) -> None:
    """Runs the command with the words of `argv`; by default those of the command line."""
    arguments = parse_arguments(DISTILL_ARGUMENTS, name_words(list(sys.argv[1:] if argv is None else argv)), __doc__)
    # A training has a directory of its own meanwhile.
    output_dir = arguments[-1].output_dir
    is_classifier = distill(*arguments)
    words = ["evaluate", "--model", output_dir, "--dataset", "FOLDER", "--output_dir", "REPORT"]
    close_stage("Student", output_dir, *(words if is_classifier else finetune_words(output_dir)))


if __name__ == "__main__":
    run_command(main)
