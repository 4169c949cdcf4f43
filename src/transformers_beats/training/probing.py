# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""
Probing: the encoder is run once over all clips, and a classifier is trained on its embeddings. The kinds of probes are
in `probes/`.
"""

import copy
import json
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from transformers import set_seed
from transformers.utils import logging

from transformers_beats.inference.layers import choose_layers, is_single
from transformers_beats.training.config.arguments import Arguments
from transformers_beats.training.config.checks import READERS
from transformers_beats.training.data.clips import Clips
from transformers_beats.training.data.labels import Labels
from transformers_beats.training.data.tables import read_column
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
    check_embeddable,
    clip_reader,
    describe,
    write_digests,
)
from .probes.embeddings import Embedded, embed
from .probes.few_shot import SHOTS_FILE, check_shots, draw_episodes, read_shots, write_shots
from .probes.selection import KINDS, Candidate, Choice, choose, list_candidates, predict
from .probes.settings import Settings, set_layer
from .stages import prepare_training, process_state


logger = logging.get_logger(__name__)

# Beside a model: its probe, layer and settings, and the log losses of all in the cross-validation that chose them.
PROBE_FILE = "probe.json"


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
    Fits probes to the embeddings of a frozen encoder, and writes the best of them to `output_dir` as the head of a
    model, with an evaluation of all if there are clips for one. The best is the one of the least log loss in a
    cross-validation of the clips to learn from; of nearest neighbours, there is no model. Returns its metrics, on the
    main process.

    Raises:
        [`BeatsError`]: labels of frames, clips of one class, or a model whose head reads several layers.
    """
    # Of a fold, there may be less than of all.
    check_embeddable(train[1])
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
    reads_one = any(KINDS[name].reads != "layers" for name in tuning.probes)
    if model.layer_average is not None and tuning.probe_layers is None and reads_one:
        raise BeatsError("The head of this model reads a mean of all layers: choose one with `probe_layers`.")
    num_layers = model.config.num_hidden_layers
    layers = choose_layers(-1 if tuning.probe_layers is None else tuning.probe_layers, num_layers)
    candidates = list_candidates(tuning.probes, layers)
    needed = {candidate.probe.reads for candidate in candidates}
    patch_layers = layers if "patches" in needed else []
    read = choose_layers("all", num_layers) if "layers" in needed else layers
    embedded = embed(model, extractor, train[0], arguments.data, training, read, patch_layers)
    unseen: Embedded | None = None
    if evaluation is not None:
        unseen = embed(model, extractor, evaluation[0], arguments.data, training, read, patch_layers)
    metrics: dict[str, float | None] = {}
    if process_state().is_main_process:
        settings = build_settings(arguments, train[1], str(model.config.problem_type))
        column = arguments.folds.fold_column
        groups = None if column is None else read_column(train[0].dataset, column)
        best, choices = choose(candidates, embedded, train[1], settings, groups)
        warn_of_neighbours(candidates, choices, best)
        fitted = {}
        if best is not None:
            fitted[best] = fit(candidates[best], embedded, train[1], settings, choices[best])
            # In this order: the average over layers of a probe that reads all is its own.
            layer = candidates[best].layer
            set_layer(model, num_layers if layer is None else layer)
            fitted[best].write(model)
        with new_directory(output_dir) as new:
            if best is not None:
                model.cpu().save_pretrained(new)
            extractor.save_pretrained(new)
            write_digests(new, train[0])
            # Nearest neighbours alone are evaluated, too.
            shown = best if best is not None else int(np.argmin([choice.loss or 0.0 for choice in choices]))
            write_choice(new, candidates, choices, shown, tuning)
            if evaluation is not None and unseen is not None:
                with keep_model():
                    predictions = []
                    for position, candidate in enumerate(candidates):
                        if position not in fitted:
                            fitted[position] = fit(candidate, embedded, train[1], settings, choices[position])
                        predictions.append(predict(fitted[position], candidate.view(unseen), evaluation[1]))
                    metrics = compute_metrics(predictions[shown])
                    description = describe(arguments, fold) | describe_probe(arguments, candidates[shown])
                    description["training_clips"] = len(train[0].names)
                    evidence = Evidence()
                    if fold is None:
                        # As in `finetune`.
                        evidence.extractor = extractor
                        evidence.read_audio = clip_reader(evaluation[0], extractor.sampling_rate)
                    write_report(new / EVALUATION, predictions[shown], metrics, description, evidence)
                    if len(candidates) > 1:
                        scores = Scores(
                            predictions,
                            [candidate.probe.name for candidate in candidates],
                            [candidate.layer for candidate in candidates],
                            [float(choice.loss or 0.0) for choice in choices],
                            shown,
                        )
                        write_scores(new, scores)
                        report_layers(new, [scores])
                    if tuning.probe_shots is not None:
                        if tuning.class_weights == BALANCED:
                            # Episodes have as many clips of each class.
                            settings = settings._replace(weights=None)
                        views = candidates[shown].view(embedded), candidates[shown].view(unseen)
                        drawn = draw_episodes(
                            candidates[shown].probe,
                            *views,
                            train[1],
                            evaluation[1],
                            tuning.probe_shots,
                            tuning.probe_episodes,
                            settings,
                            choices[shown].value,
                        )
                        write_shots(new, [drawn])
        # Kept if it has logs for trackers.
        with suppress(OSError):
            Path(str(training.output_dir)).rmdir()
    process_state().wait_for_everyone()
    return metrics


def build_settings(arguments: Arguments, labels: Labels, problem_type: str) -> Settings:
    """Returns the settings of the probes."""
    tuning = arguments.tuning
    weights = None
    if tuning.class_weights is not None:
        weights = class_weights(labels, tuning.class_weights, problem_type)
    return Settings(
        problem_type,
        tuning.probe_c,
        weights,
        arguments.training.seed,
        query=tuning.probe_query,
        layer_weights=tuning.probe_layer_weights,
        prototypes=tuning.probe_prototypes,
        steps=tuning.probe_steps,
        learning_rate=tuning.probe_learning_rate,
        device=str(arguments.training.device),
    )


def fit(candidate: Candidate, embedded: Embedded, labels: Labels, settings: Settings, choice: Choice) -> Any:
    """Fits a probe with what was chosen for it."""
    (fitted,) = candidate.probe.fit(candidate.view(embedded), labels, settings, [choice.value])
    return fitted


def warn_of_neighbours(candidates: Sequence[Candidate], choices: Sequence[Choice], best: int | None) -> None:
    """Says that the model is not that of the least log loss, if nearest neighbours have it."""
    least = int(np.argmin([choice.loss or 0.0 for choice in choices]))
    if best is not None and not candidates[least].probe.has_weights:
        name = candidates[best].probe.name
        logger.warning(f"`knn` has the least log loss, but is an evaluation only: the model is that of `{name}`.")


def write_choice(
    directory: Path, candidates: Sequence[Candidate], choices: Sequence[Choice], chosen: int, tuning: Any
) -> None:
    """Writes `probe.json` beside a model."""
    probe, layer = candidates[chosen]
    found: dict[str, Any] = {"probe": probe.name, "layer": layer}
    found |= read_settings([probe], tuning)
    found |= {} if probe.chosen is None else {probe.chosen.removeprefix("the "): choices[chosen].value}
    found["log_losses"] = [
        {"probe": candidate.probe.name, "layer": candidate.layer, "log_loss": choice.loss}
        for candidate, choice in zip(candidates, choices)
        if choice.loss is not None
    ]
    (directory / PROBE_FILE).write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def read_settings(probes: Sequence[Any], tuning: Any) -> dict[str, Any]:
    """Returns the settings that probes read beside layers, with their own learning rate if none is given."""
    names = {probe.name for probe in probes}
    found = {
        option: getattr(tuning, option)
        for option, readers in READERS.items()
        if option != "probe_layers" and names & {*readers}
    }
    if found.get("probe_learning_rate", 0) is None:
        rates = {probe.name: probe.learning_rate for probe in probes if hasattr(probe, "learning_rate")}
        found["probe_learning_rate"] = next(iter(rates.values())) if len({*rates.values()}) == 1 else rates
    return found


def describe_probe(arguments: Arguments, candidate: Candidate | None = None) -> dict[str, Any]:
    """Returns what was fitted, for a report: one probe of one layer, or in each fold one that was chosen."""
    tuning = arguments.tuning
    probes = [KINDS[name] for name in tuning.probes] if candidate is None else [candidate.probe]
    # One that is named is that of all folds.
    is_named = tuning.probe_layers is not None and is_single(tuning.probe_layers)
    layer = (tuning.probe_layers if is_named else None) if candidate is None else candidate.layer
    title = probes[0].title if len(probes) == 1 else f"a probe chosen in each fold ({', '.join(tuning.probes)})"
    read = "a layer chosen in each fold" if layer is None else f"layer {layer}"
    if layer is None and tuning.probe_layers is None:
        read = "the last layer"
    if len(probes) == 1 and probes[0].reads == "layers":
        read = None
    description: dict[str, Any] = {
        "trained": f"{title} {'of' if read is None else f'on {read} of'} the frozen encoder"
    }
    description |= read_settings(probes, tuning)
    return description | ({} if tuning.class_weights is None else {"class_weights": tuning.class_weights})
