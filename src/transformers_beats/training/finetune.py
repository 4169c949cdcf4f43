# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""
Fine-tuning of a classifier, with cross-validation, linear probing and LoRA.

Example:

    transformers-beats finetune --config folder_finetune --dataset FOLDER --model_name_or_path MODEL --output_dir DIR

On several devices: `accelerate launch -m transformers_beats.training.finetune` with the same arguments.
"""

import copy
import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from accelerate.utils import broadcast_object_list
from datasets.fingerprint import Hasher
from rich.console import Console
from transformers.utils import FEATURE_EXTRACTOR_NAME, logging

from transformers_beats import (
    BeatsConfig,
    BeatsFeatureExtractor,
    BeatsForAudioClassification,
    BeatsForAudioFrameClassification,
)
from transformers_beats.training.config.arguments import (
    FINETUNE_ARGUMENTS,
    Arguments,
    BeatsTrainingArguments,
    FineTuningArguments,
)
from transformers_beats.training.config.recipes import parse_arguments
from transformers_beats.training.data.crops import Clips, prepare_clips
from transformers_beats.training.data.folds import read_folds, report_folds
from transformers_beats.training.data.labels import LabelArguments, Labels, name_some, read_labels
from transformers_beats.training.data.sources import DataArguments, load_audio_dataset
from transformers_beats.training.reports.report import check_drawing, compute_metrics, write_report
from transformers_beats.training.trainers.averaging import average_checkpoints, check_saves
from transformers_beats.training.trainers.classification import (
    AugmentationArguments,
    ClassificationTrainer,
    LabelledClips,
    TrainingCrops,
    Windows,
    as_predictions,
    collate_waveforms,
    event_metrics,
    metrics_function,
)
from transformers_beats.training.trainers.lora import add_lora, save_merged
from transformers_beats.training.trainers.pretraining import LOG_HISTORY, check_settings, train_and_save
from transformers_beats.utils.errors import run_command
from transformers_beats.utils.files import replace_directory, work_directory

from .linear_probe import embed, probe_metrics, train_head
from .stages import load_extractor, prepare_training, process_state, seed_weights, training_settings


logger = logging.get_logger(__name__)

PROBLEM_TYPES = {
    "single_label": "single_label_classification",
    "multi_label": "multi_label_classification",
    "frames": "multi_label_classification",
}
EVALUATION = "evaluation"


def build_model(
    arguments: FineTuningArguments, labels: Labels, augmentation: AugmentationArguments, fold: str | None
) -> BeatsForAudioClassification | BeatsForAudioFrameClassification:
    """
    The classifier to train, on random weights or on those of a checkpoint.

    Raises:
        `ValueError`: if `model_config` makes the encoder another size than the checkpoint has.
    """
    model_class = BeatsForAudioFrameClassification if labels.task == "frames" else BeatsForAudioClassification
    problem_type = "multi_label_classification" if augmentation.mixes else PROBLEM_TYPES[labels.task]
    values = {
        "id2label": dict(enumerate(labels.names)),
        "label2id": {name: index for index, name in enumerate(labels.names)},
        "problem_type": problem_type,
        **(arguments.model_config or {}),
    }
    if arguments.model_name_or_path is None:
        return model_class(BeatsConfig(**values))
    model, loading = model_class.from_pretrained(
        model_path(arguments, fold), **values, ignore_mismatched_sizes=True, output_loading_info=True
    )
    mismatched = [name for name, *_ in loading["mismatched_keys"] if not name.startswith("classifier.")]
    missing = [name for name in loading["missing_keys"] if name.startswith("beats.")]
    if mismatched or missing:
        raise ValueError(
            f"{model_path(arguments, fold)}: its encoder does not have the weights {name_some(mismatched + missing)}, "
            "or has them in another size."
        )
    known = BeatsConfig.from_pretrained(model_path(arguments, fold)).id2label
    if [known[index] for index in sorted(known)] != labels.names:
        # As many classes as before, perhaps, but others.
        model.classifier.weight.data.normal_(std=model.config.initializer_range)
        model.classifier.bias.data.zero_()
    # Hub and disk hold half precision at times, in which small steps of the optimiser would be lost.
    return model.float()


def model_path(arguments: FineTuningArguments, fold: str | None) -> str:
    """Where the weights are, for a fold."""
    return str(arguments.model_name_or_path).replace("{fold}", fold or "")


def build_extractor(arguments: FineTuningArguments, fold: str | None) -> BeatsFeatureExtractor:
    """The feature extractor that was asked for, or that of the model; without either, the default."""
    if arguments.feature_extractor is not None or arguments.model_name_or_path is None:
        extractor = load_extractor(arguments.feature_extractor)
    else:
        directory = Path(model_path(arguments, fold))
        if directory.is_dir() and not (directory / FEATURE_EXTRACTOR_NAME).exists():
            logger.warning(f"{directory}: has no feature extractor; AudioSet's statistics are used.")
            extractor = BeatsFeatureExtractor()
        else:
            extractor = load_extractor(model_path(arguments, fold))
    if extractor.sampling_rate != BeatsFeatureExtractor().sampling_rate:
        raise ValueError(f"The feature extractor reads {extractor.sampling_rate} Hz; fine-tuning has audio at 16 kHz.")
    asked = {"fbank_mean": arguments.fbank_mean, "fbank_std": arguments.fbank_std}
    asked = {name: value for name, value in asked.items() if value is not None}
    # The padding value follows from the statistics, and is not that of others.
    kept = {name: value for name, value in extractor.to_dict().items() if name != "padding_value"}
    return BeatsFeatureExtractor.from_dict(kept | asked) if asked else extractor


def load_clips(data: DataArguments, labels: LabelArguments, known: list[str] | None = None) -> tuple[Clips, Labels]:
    """
    Clips that can be read, and their labels.

    Args:
        data ([`DataArguments`]):
            Where they are.
        labels ([`LabelArguments`]):
            Where their labels are.
        known (`list[str]`, *optional*):
            Classes that a model has already.

    Raises:
        `ValueError`: see [`prepare_clips`] and [`read_labels`].
    """
    with process_state().local_main_process_first():
        clips = prepare_clips(load_audio_dataset(data), data, BeatsFeatureExtractor().sampling_rate)
    return clips, read_labels(clips.dataset, labels, clips.names, known)


def load_evaluation_clips(arguments: Arguments, known: list[str]) -> tuple[Clips, Labels] | None:
    """The clips that `eval_dataset`, `eval_split` and `eval_select` name; None without them."""
    evaluation = arguments.evaluation
    if not evaluation.is_given:
        return None
    data = copy.copy(arguments.data)
    data.dataset = evaluation.eval_dataset or data.dataset
    data.split = evaluation.eval_split or data.split
    # The selection of the training clips is not that of the others.
    data.select = evaluation.eval_select
    return load_clips(data, arguments.labels, known)


def check_overlap(train: Clips, evaluation: Clips) -> None:
    """Warns of clips that are evaluated on and learned from."""
    paths = [
        {audio["path"] for audio in clips.dataset["audio"] if audio["path"] and not audio["bytes"]}
        for clips in (train, evaluation)
    ]
    if num_common := len(paths[0] & paths[1]):
        logger.warning(f"{num_common} of {len(paths[1])} clips to evaluate on are also learned from: too good.")


def check_classes(train: Labels) -> None:
    """Warns of classes that can hardly be learned."""
    counts = train.counts()
    absent = [name for name, count in zip(train.names, counts) if count == 0]
    if absent:
        logger.warning(f"{len(absent)} of {len(counts)} classes have no clip to learn from: {name_some(absent)}.")
    single = [name for name, count in zip(train.names, counts) if count == 1]
    if single:
        logger.warning(f"{len(single)} classes have a single clip to learn from: {name_some(single)}.")


def finetune_once(
    arguments: Arguments,
    train: tuple[Clips, Labels],
    evaluation: tuple[Clips, Labels] | None,
    output_dir: Path,
    fold: str | None = None,
) -> dict[str, float]:
    """
    Trains one classifier and writes it, with an evaluation if there are clips for one, to `output_dir`.

    Returns:
        `dict[str, float]`: the metrics on the evaluation clips, on the main process.
    """
    tuning, training = arguments.tuning, copy.deepcopy(arguments.training)
    if train[1].task == "frames" and arguments.augmentation.roll:
        raise ValueError("`roll` would move the events of frames away from their labels: leave it out.")
    training.output_dir = str(output_dir)
    output_dir = prepare_training(training, arguments.batch, arguments.data)
    training.label_names = ["labels"]
    check_saves(training, tuning.average_checkpoints, len(train[0].num_samples))
    # Each checkpoint that is to be averaged has to be there at the end.
    training.save_total_limit = max(training.save_total_limit or 0, tuning.average_checkpoints) or None
    if evaluation is None:
        training.eval_strategy = "no"
    check_classes(train[1])

    seed_weights(training.seed)
    extractor = build_extractor(tuning, fold)
    model = build_model(tuning, train[1], arguments.augmentation, fold)
    problem_type = str(model.config.problem_type)
    as_indices = problem_type == "single_label_classification"
    crops = TrainingCrops(train[0], LabelledClips(train[1], as_indices, extractor), arguments.data)
    windows = compute = None
    if evaluation is not None:
        targets = LabelledClips(evaluation[1], as_indices, extractor)
        windows = Windows(evaluation[0], arguments.data, extractor, targets)
        compute = metrics_function(windows, evaluation[1], problem_type)
    trainer = ClassificationTrainer(
        model if tuning.lora is None else add_lora(model, tuning.lora),
        training,
        data_collator=collate_waveforms,
        train_dataset=crops,
        eval_dataset=windows,
        compute_metrics=compute,
        feature_extractor=extractor,
        augmentation=arguments.augmentation,
        learning_rate_decay=tuning.layer_wise_learning_rate_decay,
        gradient_decay=tuning.layer_wise_gradient_decay_ratio,
    )
    metrics: dict[str, float] = {}
    finish = partial(
        finish_training, trainer=trainer, arguments=arguments, evaluation=evaluation, metrics=metrics, fold=fold
    )
    train_and_save(trainer, output_dir, decisive_settings(arguments, training), finish)
    return metrics


def decisive_settings(arguments: Arguments, training: BeatsTrainingArguments) -> dict[str, Any]:
    """What must not change between an interrupted training, or the other folds, and what follows."""
    settings = training_settings(
        training, arguments.tuning, arguments.data, arguments.labels, arguments.augmentation, arguments.folds
    )
    # They do not change a training that is under way, or another fold.
    return {name: value for name, value in settings.items() if name not in ("average_checkpoints", "folds")}


def finish_training(
    final: Path,
    trainer: ClassificationTrainer,
    arguments: Arguments,
    evaluation: tuple[Clips, Labels] | None,
    metrics: dict[str, float],
    fold: str | None,
) -> None:
    """Averages checkpoints, writes the model to `final`, and evaluates it; fills `metrics`."""
    tuning = arguments.tuning
    if tuning.average_checkpoints:
        average_checkpoints(trainer.classifier, Path(str(trainer.args.output_dir)), tuning.average_checkpoints)
    predictions = None
    if evaluation is not None:
        windows: Any = trainer.eval_dataset
        output = trainer.predict(windows, ignore_keys=["hidden_states", "attentions"]).predictions
        problem_type = str(trainer.accelerator.unwrap_model(trainer.classifier).config.problem_type)
        predictions = as_predictions(output, windows, evaluation[1], problem_type)
        metrics |= compute_metrics(predictions)
        if evaluation[1].task == "frames":
            metrics |= event_metrics(output, windows, evaluation[1])
    if tuning.lora is not None:
        save_merged(trainer, final)
    else:
        trainer.save_model(str(final))
    if predictions is not None and trainer.is_world_process_zero():
        write_report(final / EVALUATION, predictions, metrics, describe(arguments, fold))


def describe(arguments: Arguments, fold: str | None) -> dict[str, Any]:
    """What a report says of a training."""
    tuning, evaluation = arguments.tuning, arguments.evaluation
    output_dir = Path(str(arguments.training.output_dir))
    return {
        "model": str(output_dir / f"fold-{fold}" if fold else output_dir),
        "base_model": model_path(tuning, fold) if tuning.model_name_or_path else "random weights",
        "dataset": evaluation.eval_dataset or arguments.data.dataset,
        "split": f"fold {fold}" if fold else evaluation.eval_split or arguments.data.split,
        "select": evaluation.eval_select if evaluation.is_given else arguments.data.select,
    }


def probe_once(
    arguments: Arguments,
    train: tuple[Clips, Labels],
    evaluation: tuple[Clips, Labels] | None,
    output_dir: Path,
    fold: str | None = None,
) -> dict[str, float]:
    """
    Trains a classifier on the embeddings of a frozen encoder; writes and returns what [`finetune_once`] does, and the
    metrics of a logistic regression on the same embeddings.

    Raises:
        `ValueError`: labels of frames, clips of one class, or a model whose head reads all layers.
    """
    if train[1].task == "frames":
        raise ValueError("`freeze` embeds whole clips: labels of frames need full fine-tuning, or `lora`.")
    if train[1].task == "single_label" and len(np.unique(train[1].as_array())) < 2:
        raise ValueError("The clips to learn from are all of one class.")
    tuning, training = arguments.tuning, copy.deepcopy(arguments.training)
    training.output_dir = str(output_dir)
    output_dir = prepare_training(training, arguments.batch, arguments.data)
    training.save_strategy, training.eval_strategy = "no", "no"
    check_classes(train[1])
    seed_weights(training.seed)
    extractor = build_extractor(tuning, fold)
    model = build_model(tuning, train[1], arguments.augmentation, fold)
    if model.layer_average is not None:
        raise ValueError("`freeze` embeds with the last layer: leave `model_config.use_weighted_layer_sum` out.")
    embedded = (embed(model, extractor, train[0], arguments.data, training), train[1])
    unseen = None
    if evaluation is not None:
        unseen = (embed(model, extractor, evaluation[0], arguments.data, training), evaluation[1])
    log_history = train_head(model, *embedded, training)
    predictions, metrics = None, {}
    if unseen is not None:
        predictions, metrics = probe_metrics(model, embedded, unseen, training.seed)
    if process_state().is_main_process:
        with work_directory(output_dir.parent, ".writing-") as work:
            model.save_pretrained(work / "new")
            extractor.save_pretrained(work / "new")
            (work / "new" / LOG_HISTORY).write_text(json.dumps(log_history, indent=1), encoding="utf-8")
            if predictions is not None:
                description = describe(arguments, fold) | {"trained": "classifier on frozen embeddings"}
                write_report(work / "new" / EVALUATION, predictions, metrics, description)
            replace_directory(work / "new", output_dir)
    process_state().wait_for_everyone()
    return metrics


def finetune(arguments: Arguments) -> dict[str, Any]:
    """
    Fine-tunes, once or once for each fold.

    Returns:
        `dict[str, Any]`: the metrics; of folds, those of each, and mean and standard deviation.
    """
    output_dir = Path(str(arguments.training.output_dir))
    if output_dir.exists() and not arguments.folds.is_given:
        raise ValueError(f"{output_dir} exists already: move it away, or choose another `output_dir`.")
    if arguments.folds.is_given or arguments.evaluation.is_given:
        check_drawing()
    clips, labels = load_clips(arguments.data, arguments.labels)
    run = probe_once if arguments.tuning.freeze else finetune_once
    if not arguments.folds.is_given:
        evaluation = load_evaluation_clips(arguments, labels.names)
        if evaluation is not None:
            check_overlap(clips, evaluation[0])
        metrics = run(arguments, (clips, labels), evaluation, output_dir)
        if metrics and process_state().is_main_process:
            Console().print({name: round(value, 4) for name, value in metrics.items()})
        return metrics
    folds = read_folds(clips.dataset, labels, arguments.folds, arguments.training.seed)
    column = arguments.folds.fold_column
    if process_state().is_main_process:
        check_settings(
            output_dir,
            decisive_settings(arguments, arguments.training) | {"clips": fingerprint(clips, labels, column)},
        )
    for fold in folds:
        fold_dir = output_dir / f"fold-{fold.name}"
        # One process looks for all, as in `iterate`.
        process_state()
        (is_there,) = broadcast_object_list([fold_dir.exists()])
        if is_there:
            logger.warning(f"Fold {fold.name}: {fold_dir} is there already.")
            continue
        logger.warning(f"Fold {fold.name}: {len(fold.train)} clips to learn from, {len(fold.test)} to evaluate on.")
        run(arguments, select(clips, labels, fold.train), select(clips, labels, fold.test), fold_dir, fold.name)
    return report_folds(output_dir, folds, EVALUATION) if process_state().is_main_process else {}


def fingerprint(clips: Clips, labels: Labels, fold_column: str | None) -> str:
    """Changes with the clips and with what decides their folds."""
    folds = None if fold_column is None else list(clips.dataset[fold_column])
    return Hasher.hash((clips.names, clips.num_samples.tolist(), labels.values, folds))


def select(clips: Clips, labels: Labels, indices: np.ndarray) -> tuple[Clips, Labels]:
    """Some of the clips, and their labels."""
    names = [clips.names[index] for index in indices]
    chosen = Clips(clips.dataset.select(indices), clips.num_samples[indices], names, 0, whole=(clips, indices))
    return chosen, labels.select(indices.tolist())


def main(argv: list[str] | None = None) -> None:
    """Runs the command with the words of `argv`; by default those of the command line."""
    finetune(Arguments(*parse_arguments(FINETUNE_ARGUMENTS, argv, __doc__)))


if __name__ == "__main__":
    run_command(main)
