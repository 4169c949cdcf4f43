# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""
Linear probing: the encoder is run once over all clips, and a logistic regression on its embeddings is the classifier.
"""

import copy
import json
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import set_seed

from transformers_beats.inference.layers import choose_layers
from transformers_beats.modeling_beats import BeatsLayerAverage
from transformers_beats.training.config.arguments import Arguments
from transformers_beats.training.data.clips import Clips
from transformers_beats.training.data.labels import Labels
from transformers_beats.training.reports.layers import SCORES_FILE, Scores, read_scores, report_layers, write_scores
from transformers_beats.training.reports.report import Evidence, compute_metrics, keep_model, write_report
from transformers_beats.training.trainers.losses import BALANCED, class_weights
from transformers_beats.utils.errors import BeatsError
from transformers_beats.utils.files import new_directory

from .classifiers import (
    EVALUATION,
    build_extractor,
    build_model,
    check_classes,
    clip_reader,
    describe,
    write_digests,
)
from .probes.embeddings import Embeddings, embed
from .probes.few_shot import SHOTS_FILE, check_shots, draw_episodes, read_shots, write_shots
from .probes.regression import LinearClassifier, Settings, choose_layer, fit_classifier, predict
from .stages import prepare_training, process_state


# A logit of the weights of layers that leaves nothing to the others.
ONE_HOT = 100.0
# Beside a model: its layer, the log losses of all in the cross-validation by which it was chosen, and `probe_c`.
PROBE_FILE = "probe.json"


def set_classifier(model: Any, classifier: LinearClassifier, layer: int) -> None:
    """Copies a classifier of the mean over the patches of a layer into a model."""
    if layer != model.config.num_hidden_layers and model.layer_average is None:
        model.config.use_weighted_layer_sum = True
        model.layer_average = BeatsLayerAverage(model.config)
    with torch.no_grad():
        model.classifier.weight.copy_(torch.from_numpy(classifier.weight))
        model.classifier.bias.copy_(torch.from_numpy(classifier.bias))
        if model.layer_average is not None:
            model.layer_average.weight.fill_(-ONE_HOT)
            model.layer_average.weight[layer] = ONE_HOT


def report_probes(output_dir: Path, directories: Sequence[Path]) -> None:
    """Writes to a directory what the probes in `directories`, one or those of folds, have found, if anything."""
    if all((directory / SCORES_FILE).exists() for directory in directories):
        with keep_model():
            report_layers(output_dir, [read_scores(directory) for directory in directories])
    if all((directory / SHOTS_FILE).exists() for directory in directories):
        write_shots(output_dir, [read_shots(directory) for directory in directories])


def probe_once(
    arguments: Arguments,
    train: tuple[Clips, Labels],
    evaluation: tuple[Clips, Labels] | None,
    output_dir: Path,
    fold: str | None = None,
) -> dict[str, float | None]:
    """
    Fits a classifier to the embeddings of a frozen encoder, and writes it to `output_dir` with an evaluation if there
    are clips for one. Of several layers, the one of the least log loss in a cross-validation of the clips to learn
    from is kept. Returns its metrics, on the main process.

    Raises:
        [`BeatsError`]: labels of frames, clips of one class, or a model whose head reads several layers.
    """
    if train[1].task == "frames":
        raise BeatsError("`freeze` embeds whole clips: labels of frames need full fine-tuning, or `lora`.")
    if train[1].task == "single_label" and len(np.unique(train[1].as_array())) < 2:
        raise BeatsError("The clips to learn from are all of one class.")
    tuning, training = arguments.tuning, copy.deepcopy(arguments.training)
    if evaluation is not None and tuning.probe_shots is not None:
        check_shots(train[1], tuning.probe_shots)
    training.output_dir = str(output_dir)
    output_dir = prepare_training(training, arguments.batch, arguments.data, has_steps=False)
    training.save_strategy, training.eval_strategy = "no", "no"
    check_classes(train[1])
    # `Trainer` seeds only what comes after the model.
    set_seed(training.seed)
    extractor = build_extractor(tuning, fold)
    model: Any = build_model(tuning, train[1], arguments.augmentation, fold)
    if model.layer_average is not None and tuning.probe_layers is None:
        raise BeatsError("The head of this model reads a mean of all layers: choose one with `probe_layers`.")
    layers = choose_layers(-1 if tuning.probe_layers is None else tuning.probe_layers, model.config.num_hidden_layers)
    embedded = embed(model, extractor, train[0], arguments.data, training, layers)
    unseen: Embeddings | None = None
    if evaluation is not None:
        unseen = embed(model, extractor, evaluation[0], arguments.data, training, layers)
    metrics: dict[str, float | None] = {}
    if process_state().is_main_process:
        problem_type = str(model.config.problem_type)
        weights = None
        if tuning.class_weights is not None:
            weights = class_weights(train[1], tuning.class_weights, problem_type)
        settings = Settings(problem_type, tuning.probe_c, weights, training.seed)
        position, losses = choose_layer(embedded, train[1], settings) if len(layers) > 1 else (0, [])
        classifiers = {position: fit_classifier(embedded.of_layer(position), train[1], settings)}
        set_classifier(model, classifiers[position], layers[position])
        with new_directory(output_dir) as new:
            model.cpu().save_pretrained(new)
            extractor.save_pretrained(new)
            write_digests(new, train[0])
            choice = {"layer": layers[position], "probe_c": tuning.probe_c, "log_losses": dict(zip(layers, losses))}
            (new / PROBE_FILE).write_text(json.dumps(choice, indent=1) + "\n", encoding="utf-8")
            if evaluation is not None and unseen is not None:
                with keep_model():
                    for index in range(len(layers)):
                        if index not in classifiers:
                            classifiers[index] = fit_classifier(embedded.of_layer(index), train[1], settings)
                    of_layers = [
                        predict(classifiers[index], unseen.of_layer(index), evaluation[1], problem_type)
                        for index in range(len(layers))
                    ]
                    metrics = compute_metrics(of_layers[position])
                    description = describe(arguments, fold) | describe_probe(arguments, layers[position])
                    description["training_clips"] = len(train[0].names)
                    evidence = Evidence()
                    if fold is None:
                        # As in `finetune`.
                        evidence.extractor = extractor
                        evidence.read_audio = clip_reader(evaluation[0], extractor.sampling_rate)
                    write_report(new / EVALUATION, of_layers[position], metrics, description, evidence)
                    if len(layers) > 1:
                        scores = Scores(of_layers, layers, losses, layers[position])
                        write_scores(new, scores)
                        report_layers(new, [scores])
                    if tuning.probe_shots is not None:
                        if tuning.class_weights == BALANCED:
                            # Episodes have as many clips of each class.
                            settings = settings._replace(weights=None)
                        of_layer = embedded.of_layer(position), unseen.of_layer(position)
                        shots = tuning.probe_shots, tuning.probe_episodes
                        write_shots(new, [draw_episodes(*of_layer, train[1], evaluation[1], *shots, settings)])
        # Kept if it has logs for trackers.
        with suppress(OSError):
            Path(str(training.output_dir)).rmdir()
    process_state().wait_for_everyone()
    return metrics


def describe_probe(arguments: Arguments, layer: int | None = None) -> dict[str, Any]:
    """Returns what was fitted, for a report: to one layer, or in each fold to one that was chosen."""
    tuning = arguments.tuning
    read = "a layer chosen in each fold" if layer is None else f"layer {layer}"
    if layer is None and tuning.probe_layers is None:
        read = "the last layer"
    description = {"trained": f"logistic regression on {read} of the frozen encoder", "probe_c": tuning.probe_c}
    return description | ({} if tuning.class_weights is None else {"class_weights": tuning.class_weights})
