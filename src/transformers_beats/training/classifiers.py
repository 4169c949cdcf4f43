# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Classifiers to train, their clips, and checks of both before a training."""

import copy
from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import replace
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
from transformers.trainer_utils import SaveStrategy
from transformers.utils import logging

from transformers_beats import (
    BeatsConfig,
    BeatsFeatureExtractor,
    BeatsForAudioClassification,
    BeatsForAudioFrameClassification,
)
from transformers_beats.audio.event_rows import first_rows
from transformers_beats.inference.loading import find_model, load_model
from transformers_beats.inference.models import HEAD_MODULES
from transformers_beats.training.config.arguments import Arguments, BeatsTrainingArguments, FineTuningArguments
from transformers_beats.training.config.batch_plan import apply_batch_plan
from transformers_beats.training.config.checks import (
    check_metric,
    check_partners,
    check_saves,
    without_recurrent_layers,
)
from transformers_beats.training.data.augmentation import AugmentationArguments
from transformers_beats.training.data.clips import Clips
from transformers_beats.training.data.crops import CropDataset
from transformers_beats.training.data.folds import draw_share
from transformers_beats.training.data.labels import FILE_COLUMNS, LabelArguments, Labels, read_labels
from transformers_beats.training.data.manifest import state_of
from transformers_beats.training.data.sources import DataArguments, decode_row
from transformers_beats.training.data.strong_labels import read_event_files
from transformers_beats.training.data.tables import list_columns
from transformers_beats.training.reports.report import check_drawing
from transformers_beats.training.reports.scoring import metric_names
from transformers_beats.training.trainers.lora import check_peft
from transformers_beats.training.trainers.losses import class_weights, weigh_classes
from transformers_beats.training.trainers.search import check_optuna
from transformers_beats.utils.errors import BeatsError, UsageError, name_some
from transformers_beats.utils.files import write_array
from transformers_beats.utils.fingerprint import model_fingerprint

from .probes.few_shot import check_shots
from .stages import choose_extractor, prepare_dataset, training_settings


logger = logging.get_logger(__name__)

# Kinds of problem that can be learned from each kind of labels; the first is the default.
PROBLEM_TYPES = {
    "single_label": ("single_label_classification", "multi_label_classification"),
    "multi_label": ("multi_label_classification",),
    "frames": ("multi_label_classification",),
}
EVALUATION = "evaluation"
# Digests of the files that a model has learned from.
TRAINING_CLIPS = "training_clips.npy"
# Weights of a classifier that a pre-trained model does not have.
NEW_WEIGHTS = tuple(f"{name}." for name in HEAD_MODULES)


def build_model(
    arguments: FineTuningArguments, labels: Labels, augmentation: AugmentationArguments, fold: str | None
) -> BeatsForAudioClassification | BeatsForAudioFrameClassification:
    """
    Builds the classifier to train, with random weights or those of a checkpoint.

    Raises:
        [`BeatsError`]: if `model_config` makes the encoder another size than the checkpoint has, or its `problem_type`
            does not fit the labels.
    """
    model_class = BeatsForAudioFrameClassification if labels.task == "frames" else BeatsForAudioClassification
    values: dict[str, Any] = {
        "id2label": dict(enumerate(labels.names)),
        "label2id": {name: index for index, name in enumerate(labels.names)},
        # They were tuned for other weights.
        "event_settings": None,
        **(arguments.model_config or {}),
        "problem_type": choose_problem_type(arguments, labels, augmentation),
    }
    if arguments.model_name_or_path is None:
        return weigh_classes(model_class(BeatsConfig(**values)), labels, arguments.class_weights)
    path = find_model(model_path(arguments, fold), ["config.json"])
    known: Any = BeatsConfig.from_pretrained(path)
    if model_class is BeatsForAudioClassification:
        values |= without_recurrent_layers(values, known.classifier_pooling)
    # Hub and disk hold half precision at times, in which small steps of the optimiser would be lost.
    model: Any = load_model(path, model_class, dtype="float32", new_weights=NEW_WEIGHTS, **values)
    reads_others = known.frame_recurrent_layers != model.config.frame_recurrent_layers
    if reads_others or [known.id2label[index] for index in sorted(known.id2label)] != labels.names:
        # As many classes or inputs as before, perhaps, but others.
        model.classifier.weight.data.normal_(std=model.config.initializer_range)
        model.classifier.bias.data.zero_()
        if model.config.classifier_pooling == "class_attention" and labels.task != "frames":
            model.pooling.query.data.zero_()
        elif model.config.classifier_pooling == "frame_attention":
            model.pooling.attention.weight.data.normal_(std=model.config.initializer_range)
            model.pooling.attention.bias.data.zero_()
    return weigh_classes(model, labels, arguments.class_weights)


def choose_problem_type(arguments: FineTuningArguments, labels: Labels, augmentation: AugmentationArguments) -> str:
    """Returns the kind of problem that is learned; raises a [`BeatsError`] if another was asked for."""
    allowed = PROBLEM_TYPES[labels.task]
    asked = (arguments.model_config or {}).get("problem_type", allowed[-1 if augmentation.mixes else 0])
    if asked not in allowed:
        raise BeatsError(
            f"`model_config.problem_type` is {asked}, but the labels are classes ({labels.task}): leave it out, or "
            f"choose {' or '.join(allowed)}."
        )
    return str(asked)


def start_fingerprint(arguments: Arguments, labels: Labels) -> str:
    """Returns the fingerprint of the model and the feature extractor that a fold starts from, before it learns."""
    # Weights that are new are drawn: here always the same.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(arguments.training.seed)
        model = build_model(arguments.tuning, labels, arguments.augmentation, None)
    return model_fingerprint(model, build_extractor(arguments.tuning, None))


def model_path(arguments: FineTuningArguments, fold: str | None) -> str:
    """Returns the directory or Hub id of the weights that a fold starts from."""
    return str(arguments.model_name_or_path).replace("{fold}", fold or "")


def build_extractor(arguments: FineTuningArguments, fold: str | None) -> BeatsFeatureExtractor:
    """Builds the feature extractor that was asked for, or that of the model; without either, the default."""
    start = None if arguments.model_name_or_path is None else model_path(arguments, fold)
    extractor = choose_extractor(arguments.feature_extractor, start)
    if extractor.sampling_rate != BeatsFeatureExtractor().sampling_rate:
        raise BeatsError(f"The feature extractor reads {extractor.sampling_rate} Hz; fine-tuning has audio at 16 kHz.")
    asked = {"fbank_mean": arguments.fbank_mean, "fbank_std": arguments.fbank_std}
    asked = {name: value for name, value in asked.items() if value is not None}
    # The padding value follows from the statistics, and is not that of others.
    kept = {name: value for name, value in extractor.to_dict().items() if name != "padding_value"}
    return BeatsFeatureExtractor.from_dict(kept | asked) if asked else extractor


def load_clips(
    data: DataArguments,
    labels: LabelArguments,
    known: list[str] | None = None,
    beside: str | None = None,
    kinds: Collection[str] = ("events",),
) -> tuple[Clips, Labels]:
    """
    Loads the clips that can be read, and their labels; `known` are the classes of a model or of the training clips,
    and `beside` is another split of the dataset. Of those of `event_files`, clips of which other than `kinds` is known
    are left out; see [`with_known`].

    Raises:
        [`UsageError`]: if datasets have shares of an epoch.
        [`BeatsError`]: if events are needed and nothing names them; see [`prepare_clips`], [`read_labels`] and
            [`check_copies`].
    """
    if data.mixes:
        raise UsageError("`dataset_weights` and `dataset_temperature` are for pre-training: leave them out.")
    sampling_rate = BeatsFeatureExtractor().sampling_rate
    clips = prepare_dataset(data, sampling_rate, beside)
    seconds = (clips.num_samples / sampling_rate).tolist()
    if labels.event_files is None:
        if labels.task == "frames" and labels.label_column is None and not has_labels(clips.dataset):
            # Folders are no events.
            raise BeatsError(
                "There are no labels of events: name files of events with `event_files`, or their column with "
                "`label_column`."
            )
        found = read_labels(clips.dataset, labels, clips.names, known, seconds)
        check_copies(clips, found)
        return clips, found
    found = read_event_files(labels, clips.names, seconds, known)
    check_copies(clips, found)
    return with_known(clips, found, kinds)


def has_labels(dataset: datasets.Dataset) -> bool:
    """Returns whether a dataset has columns beside those of the files, which may hold labels."""
    return not {*list_columns(dataset)} <= {*FILE_COLUMNS}


def with_known(clips: Clips, labels: Labels, kinds: Collection[str]) -> tuple[Clips, Labels]:
    """
    Returns the clips of which `kinds` are known (`"events"`, `"classes"`, `"nothing"`), with a warning of the others.

    Raises:
        [`BeatsError`]: if there are none.
    """
    known = [labels.knows(index) for index in range(len(labels))]
    kept = [index for index, kind in enumerate(known) if kind in kinds]
    if len(kept) == len(labels):
        return clips, labels
    others = Counter(kind for kind in known if kind not in kinds)
    counts = ", ".join(
        f"{count} with {kind} alone" if kind == "classes" else f"{count} without labels"
        for kind, count in sorted(others.items())
    )
    if not kept:
        raise BeatsError(f"There is no clip whose {' or '.join(sorted(kinds))} are known: {counts}.")
    logger.warning(f"{len(labels) - len(kept)} of {len(labels)} clips are left out: {counts}.")
    return select(clips, labels, np.array(kept))


def with_events(clips: Clips, labels: Labels) -> tuple[Clips, Labels]:
    """Returns the clips that can be evaluated on: of events, those whose events are known; see [`with_known`]."""
    return with_known(clips, labels, ("events",))


def select(clips: Clips, labels: Labels, indices: np.ndarray) -> tuple[Clips, Labels]:
    """Returns some of the clips, and their labels."""
    names = [clips.names[index] for index in indices]
    dataset, num_samples, digests = clips.dataset.select(indices), clips.num_samples[indices], clips.digests[indices]
    return Clips(dataset, num_samples, names, 0, digests, whole=(clips, indices)), labels.select(indices.tolist())


def load_training_clips(arguments: Arguments) -> tuple[Clips, Labels]:
    """Loads the clips to learn from; see [`load_clips`]."""
    kinds = arguments.events.kinds
    # A folder `train` is a split, and no class of railway sounds, if the other split lies beside it.
    return load_clips(arguments.data, arguments.labels, beside=arguments.evaluation.eval_split, kinds=kinds)


def load_evaluation_clips(arguments: Arguments, known: list[str]) -> tuple[Clips, Labels] | None:
    """Loads the clips that `eval_dataset`, `eval_split` and `eval_select` name; None without them."""
    evaluation = arguments.evaluation
    if not evaluation.has_clips:
        return None
    data = copy.copy(arguments.data)
    data.dataset = evaluation.eval_dataset or data.dataset
    data.split = evaluation.eval_split or data.split
    # The selection of the training clips is not that of the others.
    data.select = evaluation.eval_select
    labels = arguments.labels
    if evaluation.eval_event_files is not None:
        labels = replace(labels, event_files=evaluation.eval_event_files)
    return load_clips(data, labels, known)


def load_sets(arguments: Arguments) -> tuple[tuple[Clips, Labels], tuple[Clips, Labels] | None]:
    """
    Loads the clips to learn from and, without folds, those to evaluate on, and makes all checks that need no model:
    `finetune` does, and `iterate` long before it fine-tunes.

    Raises:
        [`BeatsError`]: if arguments, clips or labels cannot be used, or clips to evaluate on are learned from; see
            [`check_extras`] and [`check_learnable`].
    """
    check_extras(arguments)
    clips, labels = load_training_clips(arguments)
    train, evaluation = (clips, labels), load_evaluation_clips(arguments, labels.names)
    if arguments.evaluation.eval_share is not None:
        drawn = draw_share(labels, arguments.evaluation.eval_share, arguments.training.seed, clips.digests)
        train, evaluation = select(clips, labels, drawn.train), select(clips, labels, drawn.test)
    if evaluation is not None:
        check_overlap(train[0], evaluation[0], arguments.evaluation.allow_overlap)
    evaluated = labels if arguments.folds.is_given else None if evaluation is None else evaluation[1]
    check_learnable(arguments, train[1], evaluated)
    return train, evaluation


def check_extras(arguments: Arguments) -> None:
    """Raises a [`BeatsError`] for a package that a training needs and that is not installed."""
    if arguments.folds.is_given or arguments.evaluation.is_given:
        check_drawing()
    if arguments.tuning.search_space is not None:
        check_optuna()
    if arguments.tuning.lora is not None:
        check_peft()


def check_learnable(arguments: Arguments, train: Labels, evaluated: Labels | None) -> None:
    """
    Checks what arguments, the labels to learn from and those of the clips that are `evaluated`, if there are any, say
    of a training.

    Raises:
        [`BeatsError`]: if they cannot be used together.
    """
    tuning, augmentation = arguments.tuning, arguments.augmentation
    problem_type = choose_problem_type(tuning, train, augmentation)
    if tuning.class_weights is not None:
        class_weights(train, tuning.class_weights, problem_type)
    if arguments.events.is_given and train.task != "frames":
        raise BeatsError("Losses of clips, mean teacher and `event_logits` are for events: the labels are classes.")
    if tuning.freeze:
        check_embeddable(train)
        if evaluated is not None and tuning.probe_shots is not None:
            check_shots(train, tuning.probe_shots)
        return
    if augmentation.balanced_sampling and (num_unknown := (train.knowledge or []).count("nothing")):
        raise BeatsError(
            f"`balanced_sampling` draws by classes, and never the {num_unknown} clips without labels: leave it out, "
            "or `consistency_weight` and `event_logits`."
        )
    training = copy.deepcopy(arguments.training)
    is_of_one_class = problem_type == "single_label_classification" and tuning.class_weights is None
    if training.label_smoothing_factor and not is_of_one_class:
        raise UsageError(
            "`label_smoothing_factor` is for one class a clip, without `class_weights` and `mixup_alpha`: leave it "
            "out, or these."
        )
    if evaluated is not None:
        check_metric(training, metric_names(evaluated))
    apply_batch_plan(training, arguments.batch, arguments.data.crop_seconds)
    check_partners("mixup_alpha", augmentation.mixes, training)
    steps, epochs = training.max_steps, training.num_train_epochs
    strategy, save_steps = str(SaveStrategy(training.save_strategy).value), float(training.save_steps or 1)
    # The number of epochs that steps take is known when the crops are.
    if strategy != SaveStrategy.EPOCH or steps <= 0:
        check_saves(tuning.average_checkpoints, strategy, save_steps, steps, epochs)


def check_embeddable(train: Labels) -> None:
    """Raises a [`BeatsError`] for labels that no probe can learn: of frames, or of one class."""
    if train.task == "frames":
        raise BeatsError("`freeze` embeds whole clips: labels of frames need full fine-tuning, or `lora`.")
    if train.task == "single_label" and len(np.unique(train.as_array())) < 2:
        raise BeatsError("The clips to learn from are all of one class.")


def clip_reader(clips: Clips, sampling_rate: int) -> Callable[[str, int], np.ndarray]:
    """Returns a function that decodes the first samples of the clip of a name, for a report."""
    rows = first_rows(clips.names)
    return lambda name, num_samples: decode_row(clips.dataset[rows[name]], sampling_rate, 0, num_samples)


def find_copies(clips: Clips, digests: np.ndarray) -> np.ndarray:
    """Returns the indices of the clips whose content, whatever their name, is that of a digest, int64."""
    return np.flatnonzero(np.isin(clips.digests, digests))


def check_copies(clips: Clips, labels: Labels) -> None:
    """
    Compares the labels of the rows of each clip; warns of clips of the same content whose labels differ.

    Raises:
        [`BeatsError`]: if those of one clip differ: a row has all of its classes, or events.
    """
    _, first, content_of = np.unique(clips.digests, return_index=True, return_inverse=True)
    first_of = first[content_of.reshape(-1)]
    others: list[tuple[str, str]] = []
    for index in np.flatnonzero(first_of != np.arange(len(first_of))).tolist():
        same = int(first_of[index])
        pair = clips.names[same], clips.names[index]
        if any(labels.is_known(index) != labels.is_known(same)) or labels.knows(index) != labels.knows(same):
            continue
        if sorted(labels.values[index]) == sorted(labels.values[same]):
            continue
        if pair[0] == pair[1]:
            classes = [labels.names[label] for each in (same, index) for label in labels.classes_of(each)]
            raise BeatsError(
                f"{pair[0]}: several rows name it, and their labels differ ({name_some(classes)}): put all of its "
                "classes in one row, as a list or with `label_separator`, or all of its events."
            )
        others.append(pair)
    if others:
        logger.warning(
            f"{len(others)} clips have the content of another one, and other labels, such as {name_some(others[0])}."
        )


def check_overlap(train: Clips, evaluation: Clips, allowed: bool) -> None:
    """
    Looks for clips that are in both sets, by [`find_copies`].

    Raises:
        [`BeatsError`]: if there are any; a warning instead if that is `allowed`.
    """
    copies = find_copies(evaluation, train.digests)
    if len(copies):
        named = name_some([evaluation.names[index] for index in copies], 3)
        message = (
            f"{len(copies)} of {len(evaluation.names)} clips to evaluate on are also in the training set: metrics "
            f"will be optimistic. Files of the same content: {named}."
        )
        if not allowed:
            raise BeatsError(f"{message} Choose other clips, or set `allow_overlap: true`.")
        logger.warning(message)


def write_digests(directory: Path, clips: Clips) -> None:
    """Writes digests of the files that a model has learned from beside it, so that `evaluate` can tell them."""
    write_array(directory / TRAINING_CLIPS, np.unique(clips.digests))


def count_learned(model: str, clips: Clips) -> int | None:
    """Returns the number of clips that a model in a directory has learned from, by [`write_digests`], if known."""
    path = Path(model) / TRAINING_CLIPS
    try:
        return len(find_copies(clips, np.load(path))) if path.exists() else None
    except (OSError, ValueError, EOFError):
        logger.warning(f"{path}: cannot be read: whether the model has learned from these clips is not known.")
        return None


def check_classes(train: Labels) -> None:
    """Warns of classes that can hardly be learned."""
    counts = train.counts()
    absent = [name for name, count in zip(train.names, counts) if count == 0]
    if absent:
        logger.warning(f"{len(absent)} of {len(counts)} classes without a clip to learn from: {name_some(absent)}.")
    single = [name for name, count in zip(train.names, counts) if count == 1]
    if single:
        have = "class has" if len(single) == 1 else "classes have"
        logger.warning(f"{len(single)} {have} a single clip to learn from: {name_some(single)}.")


def decisive_settings(
    arguments: Arguments, training: BeatsTrainingArguments, crops: CropDataset | None = None
) -> dict[str, Any]:
    """Returns the settings that must not change between an interrupted training, or the other folds, and this one."""
    parts = (
        arguments.tuning,
        arguments.data,
        arguments.labels,
        arguments.augmentation,
        arguments.folds,
        arguments.events,
    )
    settings = training_settings(training, *parts, crops=crops)
    settings["eval_share"] = arguments.evaluation.eval_share
    if arguments.events.event_logits is not None:
        # The same name may stand for another file meanwhile.
        settings["event_logits_state"] = list(state_of(arguments.events.event_logits))
    # They do not change another fold.
    return {name: value for name, value in settings.items() if name not in ("final", "folds")}


def name_dataset(dataset: str | list[str]) -> str | list[str]:
    """Returns the name of a dataset, or those of several, which stay apart: they are paths or Hub ids of their own."""
    return dataset[0] if len(dataset) == 1 and not isinstance(dataset, str) else dataset


def describe(arguments: Arguments, fold: str | None) -> dict[str, Any]:
    """Returns the description of a training for its report."""
    tuning, evaluation = arguments.tuning, arguments.evaluation
    output_dir = Path(str(arguments.training.output_dir))
    drawn = evaluation.eval_share and f"{evaluation.eval_share:g}, drawn with seed {arguments.training.seed}"
    return {
        "model": str(output_dir / f"fold-{fold}" if fold else output_dir),
        "base_model": model_path(tuning, fold) if tuning.model_name_or_path else "random weights",
        "training_dataset": name_dataset(arguments.data.dataset),
        "dataset": name_dataset(evaluation.eval_dataset or arguments.data.dataset),
        "split": f"fold {fold}" if fold else drawn or evaluation.eval_split or arguments.data.split,
        "select": evaluation.eval_select if evaluation.has_clips else arguments.data.select,
    }
