# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Linear probing: the encoder is run once over all clips, and only a linear classifier is trained."""

import copy
import io
import json
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate.utils import gather_object
from datasets import Dataset
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from torch import nn
from transformers import Trainer, set_seed

from transformers_beats import BeatsFeatureExtractor, BeatsForAudioClassification
from transformers_beats.training.config.arguments import Arguments, BeatsTrainingArguments
from transformers_beats.training.data.crops import Clips, cache_path
from transformers_beats.training.data.labelled import Windows, collate_waveforms
from transformers_beats.training.data.labels import Labels
from transformers_beats.training.data.sources import DataArguments
from transformers_beats.training.reports.report import (
    REGRESSION,
    Evidence,
    Predictions,
    compute_metrics,
    keep_model,
    write_report,
)
from transformers_beats.training.trainers.losses import class_weights
from transformers_beats.training.trainers.pretraining import WaveformTrainer
from transformers_beats.training.trainers.progress import print_lines
from transformers_beats.utils.errors import BeatsError
from transformers_beats.utils.files import new_directory, replace_file
from transformers_beats.utils.fingerprint import model_fingerprint

from .classifiers import EVALUATION, build_extractor, build_model, check_classes, clip_reader, describe, write_digests
from .reports import LOG_HISTORY
from .scoring import clip_scores, mean_over_windows
from .stages import prepare_training, process_state


# Outputs of a model beside its mean over patches.
NOT_POOLED = ["last_hidden_state", "patch_attention_mask", "hidden_states", "attentions"]


@dataclass
class Embeddings:
    """
    Embeddings of clips by a frozen encoder: means over the patches of each window, float32
    `(num_windows, hidden_size)`; the clip of each window, in ascending order; and the names of the clips.
    """

    values: np.ndarray
    clip_of: np.ndarray
    names: list[str]

    def select(self, clips: np.ndarray) -> "Embeddings":
        """Returns the embeddings of some of the clips, given in ascending order."""
        numbers = np.full(len(self.names), -1)
        numbers[clips] = np.arange(len(clips))
        clip_of = numbers[self.clip_of]
        return Embeddings(self.values[clip_of >= 0], clip_of[clip_of >= 0], [self.names[clip] for clip in clips])


class LinearHead(nn.Module):
    """Classifier of a model, on embeddings that are standardised: zero mean and unit variance."""

    def __init__(self, model: BeatsForAudioClassification):
        super().__init__()
        self.linear = nn.Linear(model.config.hidden_size, model.num_labels)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)
        self._compute_loss = model.compute_loss

    def forward(self, embeddings: torch.Tensor, labels: torch.Tensor | None = None) -> dict[str, torch.Tensor]:
        """Returns `logits` `(batch_size, num_labels)` of `embeddings` `(batch_size, hidden_size)`, and `loss`."""
        logits = self.linear(embeddings)
        return {"logits": logits} if labels is None else {"loss": self._compute_loss(logits, labels), "logits": logits}


def embed(
    model: BeatsForAudioClassification,
    extractor: BeatsFeatureExtractor,
    clips: Clips,
    data: DataArguments,
    training: BeatsTrainingArguments,
) -> Embeddings:
    """
    Computes the embeddings of all clips by the encoder of a model, or reads those of the same model and clips from
    the cache. `data` has the length of the windows, `training` batch size, device and precision.
    """
    if clips.whole is not None:
        # All folds need the same.
        whole, indices = clips.whole
        return embed(model, extractor, whole, data, training).select(indices)
    windows = Windows(clips, data, extractor)
    # The encoder's weights, the extractor's settings, and whatever else changes an embedding.
    key = (model_fingerprint(model.beats, extractor), clips.dataset._fingerprint, windows.num_samples)
    path = cache_path("embeddings-{}.npy", *key, data.min_seconds, training.bf16, training.fp16)
    # On every node, whose caches may differ.
    if all(gather_object([path.exists()])):
        return Embeddings(np.load(path), windows.clip_of, clips.names)
    trainer = WaveformTrainer(
        model.beats.eval(), training, data_collator=collate_waveforms, feature_extractor=extractor
    )
    # The pooled output is the only one that is not left out.
    values = np.asarray(trainer.predict(windows, ignore_keys=NOT_POOLED).predictions, dtype=np.float32)
    if trainer.args.local_process_index == 0:
        buffer = io.BytesIO()
        np.save(buffer, values)
        with replace_file(path) as temporary:
            temporary.write_bytes(buffer.getvalue())
    return Embeddings(values, windows.clip_of, clips.names)


def train_head(
    model: BeatsForAudioClassification, embeddings: Embeddings, labels: Labels, training: BeatsTrainingArguments
) -> list[dict[str, float]]:
    """Trains a linear classifier and copies it into the model; returns the log of the training."""
    mean, std = standardise(embeddings)
    head = LinearHead(model)
    targets = labels.as_array()
    if labels.task == "single_label" and model.config.problem_type != "single_label_classification":
        targets = np.eye(len(labels.names), dtype=np.float32)[targets]
    values = (embeddings.values - mean) / std
    items = Dataset.from_dict({"embeddings": values, "labels": targets[embeddings.clip_of]}).with_format("torch")
    trainer = Trainer(head, training, train_dataset=items)
    print_lines(trainer)
    trainer.train()
    # Standardising is an affine map, so that the classifier can take it over.
    linear = head.linear.cpu()
    weight = linear.weight.detach() / torch.from_numpy(std)
    with torch.no_grad():
        model.classifier.weight.copy_(weight)
        model.classifier.bias.copy_(linear.bias - weight @ torch.from_numpy(mean))
    return trainer.state.log_history


def standardise(embeddings: Embeddings) -> tuple[np.ndarray, np.ndarray]:
    """Computes mean and standard deviation of each dimension, `(hidden_size,)`; 1 for one that does not vary."""
    std = embeddings.values.std(axis=0)
    return embeddings.values.mean(axis=0), np.where(std > 1e-6, std, 1.0).astype(np.float32)


def predict_head(model: BeatsForAudioClassification, embeddings: Embeddings, labels: Labels) -> Predictions:
    """Returns the predictions of the model's classifier for embeddings."""
    with torch.no_grad():
        logits = model.cpu().classifier(torch.from_numpy(embeddings.values)).numpy()
    scores = clip_scores(logits, embeddings.clip_of, str(model.config.problem_type))
    return Predictions(embeddings.names, scores, labels.as_array(), labels.names)


def predict_regression(
    train: tuple[Embeddings, Labels],
    evaluation: tuple[Embeddings, Labels],
    seed: int,
    weights: np.ndarray | None = None,
) -> Predictions:
    """
    Returns the predictions of scikit-learn's logistic regression, trained on the same embeddings, with the same
    [`class_weights`].
    """
    (embeddings, labels), (unseen, unseen_labels) = train, evaluation
    mean, std = standardise(embeddings)
    targets = labels.as_array()[embeddings.clip_of]
    classifier: Any = LogisticRegression(max_iter=2000, random_state=seed)
    scores = np.zeros((len(unseen.values), len(labels.names)), dtype=np.float32)
    inputs, unseen_inputs = (embeddings.values - mean) / std, (unseen.values - mean) / std
    if targets.ndim == 1:
        # A class without a clip to learn from has no chance.
        per_window = None if weights is None else weights[targets]
        scores[:, np.unique(targets)] = classifier.fit(inputs, targets, per_window).predict_proba(unseen_inputs)
    for label, column in enumerate(targets.T if targets.ndim == 2 else ()):
        if column.all() or not column.any():
            scores[:, label] = column[0]
        else:
            per_window = None if weights is None else np.where(column > 0, weights[label], 1.0)
            scores[:, label] = clone(classifier).fit(inputs, column, per_window).predict_proba(unseen_inputs)[:, 1]
    of_clips = mean_over_windows(scores, unseen.clip_of)
    return Predictions(unseen.names, of_clips, unseen_labels.as_array(), labels.names)


def probe_metrics(
    model: BeatsForAudioClassification,
    train: tuple[Embeddings, Labels],
    evaluation: tuple[Embeddings, Labels],
    seed: int,
    wanted_weights: str | dict | None = None,
) -> tuple[Predictions, dict[str, float | None]]:
    """
    Returns the classifier's predictions, and its metrics beside those of a logistic regression. `wanted_weights` are
    those of [`class_weights`].
    """
    predictions = predict_head(model, *evaluation)
    problem_type = "single_label_classification" if train[1].task == "single_label" else "multi_label_classification"
    weights = None if wanted_weights is None else class_weights(train[1], wanted_weights, problem_type)
    regression = compute_metrics(predict_regression(train, evaluation, seed, weights))
    named = {f"{REGRESSION}_{name}": value for name, value in regression.items()}
    return predictions, compute_metrics(predictions) | named


def probe_once(
    arguments: Arguments,
    train: tuple[Clips, Labels],
    evaluation: tuple[Clips, Labels] | None,
    output_dir: Path,
    fold: str | None = None,
) -> dict[str, float | None]:
    """
    Trains a classifier on the embeddings of a frozen encoder, and writes it to `output_dir` with an evaluation if
    there are clips for one. Returns its metrics, on the main process, beside those of a logistic regression.

    Raises:
        [`BeatsError`]: labels of frames, clips of one class, or a model whose head reads all layers.
    """
    if train[1].task == "frames":
        raise BeatsError("`freeze` embeds whole clips: labels of frames need full fine-tuning, or `lora`.")
    if train[1].task == "single_label" and len(np.unique(train[1].as_array())) < 2:
        raise BeatsError("The clips to learn from are all of one class.")
    tuning, training = arguments.tuning, copy.deepcopy(arguments.training)
    training.output_dir = str(output_dir)
    output_dir = prepare_training(training, arguments.batch, arguments.data)
    training.save_strategy, training.eval_strategy = "no", "no"
    check_classes(train[1])
    # `Trainer` seeds only what comes after the model.
    set_seed(training.seed)
    extractor = build_extractor(tuning, fold)
    model: Any = build_model(tuning, train[1], arguments.augmentation, fold)
    if model.layer_average is not None:
        raise BeatsError("`freeze` embeds with the last layer: leave `model_config.use_weighted_layer_sum` out.")
    embedded = (embed(model, extractor, train[0], arguments.data, training), train[1])
    unseen = None
    if evaluation is not None:
        unseen = (embed(model, extractor, evaluation[0], arguments.data, training), evaluation[1])
    log_history = train_head(model, *embedded, training)
    metrics: dict[str, float | None] = {}
    if process_state().is_main_process:
        with new_directory(output_dir) as new:
            model.save_pretrained(new)
            extractor.save_pretrained(new)
            write_digests(new, train[0])
            (new / LOG_HISTORY).write_text(json.dumps(log_history, indent=1), encoding="utf-8")
            if unseen is not None:
                with keep_model():
                    predictions, metrics = probe_metrics(model, embedded, unseen, training.seed, tuning.class_weights)
                    description = describe(arguments, fold) | {
                        "trained": "classifier on frozen embeddings",
                        "training_clips": len(train[0].names),
                    }
                    evidence = Evidence(histories={"training": log_history})
                    if fold is None and evaluation is not None:
                        # As in `finetune`.
                        evidence.extractor = extractor
                        evidence.read_audio = clip_reader(evaluation[0], extractor.sampling_rate)
                    write_report(new / EVALUATION, predictions, metrics, description, evidence)
        # Kept if it has logs for trackers.
        with suppress(OSError):
            Path(str(training.output_dir)).rmdir()
    process_state().wait_for_everyone()
    return metrics
