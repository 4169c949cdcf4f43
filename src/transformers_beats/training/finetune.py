# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""
Fine-tuning of a classifier, with cross-validation, probes and LoRA.

Example:

    transformers-beats finetune --config folder_finetune --dataset FOLDER --model_name_or_path MODEL --output_dir DIR

On several devices: `accelerate launch -m transformers_beats.training.finetune` with the same arguments.
"""

import copy
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from datasets.fingerprint import Hasher
from transformers import IntervalStrategy, set_seed
from transformers.trainer_utils import SaveStrategy

from transformers_beats import BeatsFeatureExtractor
from transformers_beats.inference.loading import find_model
from transformers_beats.training.config.arguments import FINETUNE_ARGUMENTS, Arguments, BeatsTrainingArguments
from transformers_beats.training.config.batch_plan import apply_batch_plan
from transformers_beats.training.config.event_arguments import check_attention
from transformers_beats.training.config.recipes import parse_arguments
from transformers_beats.training.data.clips import Clips
from transformers_beats.training.data.folds import read_folds
from transformers_beats.training.data.labelled import LabelledClips, TrainingCrops, Windows, collate_waveforms
from transformers_beats.training.data.labels import Labels
from transformers_beats.training.data.tables import read_column
from transformers_beats.training.reports.folds import kept_epochs, report_folds
from transformers_beats.training.reports.report import Evidence, keep_model, write_report
from transformers_beats.training.trainers.averaging import (
    WeightAverage,
    average_checkpoints,
    keep_checkpoints,
    prepare_average,
)
from transformers_beats.training.trainers.checkpoints import SETTINGS, train_and_save
from transformers_beats.training.trainers.classification import ClassificationTrainer, StopAtEpoch, StopEarly
from transformers_beats.training.trainers.event_logits import EventLogits
from transformers_beats.training.trainers.events import EventTrainer
from transformers_beats.training.trainers.layerwise import UnfreezeByEpoch
from transformers_beats.training.trainers.lora import add_lora, save_merged
from transformers_beats.training.trainers.search import search_hyperparameters
from transformers_beats.utils.errors import run_command
from transformers_beats.utils.files import check_new, make_directory
from transformers_beats.utils.messages import without_weight_bars
from transformers_beats.utils.resume import begin_or_resume, read_settings

from .classifiers import (
    EVALUATION,
    build_extractor,
    build_model,
    check_classes,
    check_overlap,
    clip_reader,
    decisive_settings,
    describe,
    load_sets,
    select,
    start_fingerprint,
    with_events,
    write_digests,
)
from .closing import FINAL, CrossValidation, choose_epoch, choose_repository, close, final_arguments, join_epochs
from .probing import describe_probe, probe_once, report_probes
from .reports.scoring import as_predictions, clip_and_event_metrics, metrics_function
from .stages import announce, is_there, on_main_process, prepare_training, process_state


CHOSEN_BY_EVALUATION = (
    "The epoch of the weights was chosen by the clips that they are evaluated on: the metrics are optimistic."
)
CHOSEN_BY_SEARCH = (
    "Values of `search_space` were chosen by the clips that the model is evaluated on: the metrics are optimistic."
)


def finetune_once(
    arguments: Arguments,
    train: tuple[Clips, Labels],
    evaluation: tuple[Clips, Labels] | None,
    output_dir: Path,
    fold: str | None = None,
    stop_epoch: float | None = None,
) -> dict[str, float | None]:
    """
    Trains one classifier, until `stop_epoch` if it is given, and writes it, with an evaluation if there are clips for
    one, to `output_dir`.

    Returns:
        `dict[str, float | None]`: the metrics on the evaluation clips, on the main process.
    """
    tuning, training = arguments.tuning, copy.deepcopy(arguments.training)
    training.output_dir = str(output_dir)
    output_dir = prepare_training(training, arguments.batch, arguments.data)
    training.label_names = ["labels"]
    keep_checkpoints(training, tuning.average_checkpoints)
    if evaluation is None:
        leave_out_evaluations(training)
    check_classes(train[1])

    if tuning.search_space is not None:
        settings = decisive_settings(arguments, training)
        settings["labels"] = [fingerprint(*clips, None) for clips in (train, evaluation) if clips is not None]
        build = partial(build_trainer, arguments, train, evaluation, fold=fold, searches=True)
        search_hyperparameters(training, tuning, build, settings)
    trainer = build_trainer(arguments, train, evaluation, training, fold)
    if stop_epoch is not None:
        trainer.add_callback(StopAtEpoch(stop_epoch))
    metrics: dict[str, float | None] = {}
    finish = partial(
        finish_training,
        trainer=trainer,
        arguments=arguments,
        train=train[0],
        evaluation=evaluation,
        metrics=metrics,
        fold=fold,
    )
    crops: Any = trainer.train_dataset
    settings = decisive_settings(arguments, training, crops) | {"stop_epoch": stop_epoch}
    # Files of events, and tables beside the audio, are no part of the clips.
    settings["labels"] = fingerprint(*train, None)
    if evaluation is not None and training.eval_strategy != "no":
        # They tell which checkpoint is the best, and when to stop.
        settings["test_clips"] = fingerprint(*evaluation, None)
    train_and_save(trainer, output_dir, settings, finish)
    return metrics


def build_trainer(
    arguments: Arguments,
    train: tuple[Clips, Labels],
    evaluation: tuple[Clips, Labels] | None,
    training: BeatsTrainingArguments,
    fold: str | None = None,
    searches: bool = False,
) -> ClassificationTrainer:
    """Builds the trainer of a classifier; one that `searches` builds its model anew for each training."""
    tuning = arguments.tuning

    def build() -> Any:
        # `Trainer` seeds only what comes after the model.
        set_seed(training.seed)
        model = build_model(tuning, train[1], arguments.augmentation, fold)
        return model if tuning.lora is None else add_lora(model, tuning.lora)

    extractor, model = build_extractor(tuning, fold), build()
    problem_type = str(model.config.problem_type)
    as_indices = problem_type == "single_label_classification"
    windows = compute = None
    if evaluation is not None:
        targets = LabelledClips(evaluation[1], as_indices, extractor, model.config)
        windows = Windows(evaluation[0], arguments.data, extractor, targets, training.dataloader_num_workers)
        compute = metrics_function(windows, evaluation[1], problem_type)
    events, augmentation, rolls = arguments.events, arguments.augmentation, False
    targets = LabelledClips(train[1], as_indices, extractor, model.config)
    trainer_class: Any = ClassificationTrainer
    if train[1].task == "frames":
        # Crops are rolled with their events.
        rolls, augmentation = augmentation.roll, replace(augmentation, roll=False)
        check_attention(events, model.config)
        targets.with_clips = bool(events.clip_loss_weight)
        trainer_class = partial(EventTrainer, events=events)
        if events.event_logits is not None:
            targets.teacher = EventLogits(
                events.event_logits,
                train[0].names,
                len(train[1].names),
                targets.column_seconds,
                events.event_logits_seconds,
            )
    if tuning.unfreezes:
        # `Trainer` reads it when it is made.
        training.ddp_find_unused_parameters = True
    trainer = trainer_class(
        None if searches else model,
        training,
        model_init=build if searches else None,
        data_collator=collate_waveforms,
        train_dataset=TrainingCrops(train[0], targets, arguments.data, training.seed, rolls),
        eval_dataset=windows,
        compute_metrics=compute,
        feature_extractor=extractor,
        augmentation=augmentation,
        learning_rate_decay=tuning.layer_wise_learning_rate_decay,
        gradient_decay=tuning.layer_wise_gradient_decay_ratio,
        weight_average=None if tuning.ema_decay is None else WeightAverage(tuning.ema_decay),
    )
    if tuning.unfreezes:
        trainer.add_callback(UnfreezeByEpoch(tuning.unfreeze_epoch, tuning.unfreeze_layers))
    # A search has one trainer for all trainings, in which this one would go on counting.
    if training.early_stopping_patience is not None and not searches:
        trainer.add_callback(StopEarly(training.early_stopping_patience, training.early_stopping_threshold))
    if tuning.average_checkpoints and not searches:
        prepare_average(trainer, tuning.average_checkpoints)
    return trainer


def finish_training(
    final: Path,
    trainer: ClassificationTrainer,
    arguments: Arguments,
    train: Clips,
    evaluation: tuple[Clips, Labels] | None,
    metrics: dict[str, float | None],
    fold: str | None,
) -> None:
    """Averages checkpoints, writes the model to `final`, and evaluates it; fills `metrics`."""
    tuning = arguments.tuning
    if trainer.args.load_best_model_at_end and not has_kept_best(trainer):
        announce("No evaluation is the best by `metric_for_best_model`: the weights are those of the last step.")
    if tuning.average_checkpoints:
        average_checkpoints(trainer.classifier, Path(str(trainer.args.output_dir)), tuning.average_checkpoints)
    trainer.use_weight_average()
    windows: Any = trainer.eval_dataset
    output = predictions = None
    if evaluation is not None:
        output = trainer.predict(windows, ignore_keys=["hidden_states", "attentions"]).predictions
        problem_type = str(trainer.accelerator.unwrap_model(trainer.classifier).config.problem_type)
        predictions = as_predictions(output, windows, evaluation[1], problem_type)
    if tuning.lora is not None:
        save_merged(trainer, final)
    else:
        trainer.save_model(str(final))
    if trainer.is_world_process_zero():
        write_digests(final, train)
    if evaluation is not None and predictions is not None:
        with keep_model():
            evidence = Evidence(histories={"training": trainer.state.log_history})
            config = trainer.accelerator.unwrap_model(trainer.classifier).config
            metrics |= clip_and_event_metrics(output, predictions, windows, evaluation[1], evidence, config)
            if trainer.is_world_process_zero():
                if fold is None:
                    # Those of folds are in one report for all.
                    evidence.extractor = trainer.feature_extractor
                    evidence.read_audio = clip_reader(evaluation[0], trainer.feature_extractor.sampling_rate)
                evaluated = [entry for entry in trainer.state.log_history if "eval_loss" in entry]
                if has_kept_best(trainer) and len(evaluated) > 1:
                    evidence.notes.append(CHOSEN_BY_EVALUATION)
                if tuning.search_space is not None:
                    evidence.notes.append(CHOSEN_BY_SEARCH)
                description = describe(arguments, fold) | describe_training(trainer, len(train.names))
                write_report(final / EVALUATION, predictions, metrics, description, evidence)


def has_kept_best(trainer: ClassificationTrainer) -> bool:
    """Returns whether the weights are those of the best checkpoint; there is none if its metric was never defined."""
    best = trainer.state.best_model_checkpoint if trainer.args.load_best_model_at_end else None
    return best is not None and Path(best).exists()


def describe_training(trainer: ClassificationTrainer, num_clips: int) -> dict[str, Any]:
    """Returns what a training has done: clips that it learned from, steps, and the epoch whose weights are kept."""
    state, args = trainer.state, trainer.args
    best = state.best_global_step if has_kept_best(trainer) else None
    of_best = [entry["epoch"] for entry in state.log_history if best and entry["step"] == best]
    return {
        "training_clips": num_clips,
        "steps": state.global_step,
        "epoch": of_best[0] if of_best else state.epoch,
        "learning_rate": args.learning_rate,
        "seed": args.seed,
    }


@without_weight_bars()
def finetune(arguments: Arguments, prints: bool = True) -> dict[str, Any]:
    """
    Fine-tunes, once or once for each fold, prints metrics and where everything is unless `prints` is false, and
    publishes the model if that was asked for.

    Returns:
        `dict[str, Any]`: the metrics; of folds, those of each, and mean and standard deviation. None if undefined.

    Raises:
        [`BeatsError`]: if arguments, clips or labels cannot be used, clips to evaluate on are learned from, or the
            model cannot be published.
    """
    output_dir = Path(str(arguments.training.output_dir))
    if not arguments.folds.is_given:
        check_new(output_dir)
        make_directory(output_dir.absolute().parent)
    if arguments.tuning.model_name_or_path is not None and "{fold}" not in arguments.tuning.model_name_or_path:
        # All clips are decoded before the model is loaded.
        find_model(arguments.tuning.model_name_or_path, ["config.json", "model.safetensors"])
    repo_id = choose_repository(arguments, output_dir)
    train, evaluation = load_sets(arguments)
    run = probe_once if arguments.tuning.freeze else finetune_once
    if arguments.folds.is_given:
        return cross_validate(arguments, *train, output_dir, repo_id, prints)
    metrics = run(arguments, train, evaluation, output_dir)
    if process_state().is_main_process:
        close(arguments, output_dir, len(train[0].names), repo_id, prints=prints)
    return metrics


def cross_validate(
    arguments: Arguments, clips: Clips, labels: Labels, output_dir: Path, repo_id: str | None, prints: bool
) -> dict[str, Any]:
    """Trains a model for each fold and, if `final` is set, one on all clips; see [`finetune`]."""
    run = probe_once if arguments.tuning.freeze else finetune_once
    folds = read_folds(clips.dataset, labels, arguments.folds, arguments.training.seed, clips.digests)
    on_main_process(lambda: begin_folds(arguments, clips, labels, output_dir))
    for fold in folds:
        fold_dir = output_dir / f"fold-{fold.name}"
        if is_there(fold_dir):
            announce(f"Fold {fold.name}: {fold_dir} is there already.")
            continue
        announce(f"Fold {fold.name}: {len(fold.train)} clips to learn from, {len(fold.test)} to evaluate on.")
        train, test = select(clips, labels, fold.train), with_events(*select(clips, labels, fold.test))
        check_overlap(train[0], test[0], arguments.evaluation.allow_overlap)
        run(arguments, train, test, fold_dir, fold.name)
    names = [fold.name for fold in folds]
    epochs = kept_epochs(output_dir, names, EVALUATION)
    result: dict[str, Any] = {}
    if process_state().is_main_process:
        description = describe(arguments, None) | {"split": f"{len(folds)} folds", "seed": arguments.training.seed}
        if arguments.tuning.freeze:
            description |= describe_probe(arguments)
        else:
            description |= {"epoch": join_epochs(epochs), "learning_rate": arguments.training.learning_rate}
        reader = clip_reader(clips, BeatsFeatureExtractor().sampling_rate)
        report_probes(output_dir, [output_dir / f"fold-{name}" for name in names])
        result = report_folds(output_dir, names, EVALUATION, description, reader)
    final_dir = output_dir / FINAL
    if arguments.folds.final and not is_there(final_dir):
        announce(f"Final model: {len(clips.names)} clips to learn from, none to evaluate on.")
        if epochs and not arguments.tuning.freeze:
            run = partial(finetune_once, stop_epoch=choose_epoch(epochs))
        of_folds = [len(fold.train) for fold in folds]
        run(final_arguments(arguments, len(clips.names), of_folds), (clips, labels), None, final_dir)
    if process_state().is_main_process:
        validation = CrossValidation(names, epochs, result["std"])
        close(arguments, output_dir, len(clips.names), repo_id, validation, prints)
    return result


def begin_folds(arguments: Arguments, clips: Clips, labels: Labels, output_dir: Path) -> None:
    """Writes the settings that all folds have, or compares them with those of the folds that are there."""
    training = copy.deepcopy(arguments.training)
    # Each fold does it for itself; the settings have the batch that it gives.
    apply_batch_plan(training, arguments.batch, arguments.data.crop_seconds)
    settings = decisive_settings(arguments, training)
    settings["clips"] = fingerprint(clips, labels, arguments.folds.fold_column)
    # Before the first fold, nothing depends on the settings of an earlier attempt.
    resume = any(output_dir.glob("fold-*"))
    earlier = read_settings(output_dir / SETTINGS) if resume else None
    name = arguments.tuning.model_name_or_path
    # Folds of an earlier version do not say what they started from.
    if name is not None and "{fold}" not in name and (earlier is None or "start_fingerprint" in earlier):
        # One of the same name may have been trained anew since an earlier fold.
        settings["start_fingerprint"] = start_fingerprint(arguments, labels)
    begin_or_resume(output_dir / SETTINGS, settings, output_dir, resume=resume)


def leave_out_evaluations(training: BeatsTrainingArguments) -> None:
    """Sets a training without clips to evaluate on; what would save the best checkpoint saves where it would look."""
    if training.save_strategy == SaveStrategy.BEST:
        in_steps = training.eval_strategy == IntervalStrategy.STEPS
        training.save_strategy = SaveStrategy.STEPS if in_steps else SaveStrategy.EPOCH
        training.save_steps = training.eval_steps if in_steps else training.save_steps
    training.eval_strategy, training.load_best_model_at_end = IntervalStrategy.NO, False
    training.early_stopping_patience = None


def fingerprint(clips: Clips, labels: Labels, fold_column: str | None) -> str:
    """Returns a digest that changes with the clips, what is known of them, and their folds."""
    folds = None if fold_column is None else read_column(clips.dataset, fold_column)
    values: Any = labels.values if labels.knowledge is None else (labels.values, labels.knowledge)
    values = values if labels.annotated is None else (*values, labels.annotated)
    return Hasher.hash((clips.fingerprint, list(labels.names), values, folds))


def main(argv: list[str] | None = None) -> None:
    """Runs the command with the words of `argv`; by default those of the command line."""
    finetune(Arguments(*parse_arguments(FINETUNE_ARGUMENTS, argv, __doc__)))


if __name__ == "__main__":
    run_command(main)
