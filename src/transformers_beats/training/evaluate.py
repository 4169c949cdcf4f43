# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""
Metrics, predictions and pictures of a fine-tuned classifier on labelled clips.

Example:

    transformers-beats evaluate --model CLASSIFIER --dataset FOLDER --output_dir REPORT

On several devices: `accelerate launch -m transformers_beats.training.evaluate` with the same arguments.
"""

import platform
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
import transformers
from rich.console import Console
from transformers.utils import logging

import transformers_beats
from transformers_beats import BeatsForAudioClassification, BeatsForAudioFrameClassification
from transformers_beats.configuration_beats import problem_type_of
from transformers_beats.inference.loading import labels_of, load
from transformers_beats.training.config.arguments import BeatsTrainingArguments
from transformers_beats.training.config.recipes import parse_arguments
from transformers_beats.training.data.labelled import LabelledClips, Windows, collate_waveforms
from transformers_beats.training.data.labels import LabelArguments
from transformers_beats.training.data.sources import DataArguments
from transformers_beats.training.reports.report import (
    PAGE,
    PREDICTIONS_FILE,
    Evidence,
    check_drawing,
    write_report,
)
from transformers_beats.training.reports.tables import print_report
from transformers_beats.training.trainers.classification import ClassificationTrainer
from transformers_beats.utils.arguments import argument, check_numbers
from transformers_beats.utils.errors import BeatsError, run_command
from transformers_beats.utils.files import check_new, make_directory, replace_directory, work_directory
from transformers_beats.utils.messages import note

from .classifiers import clip_reader, count_learned, load_clips, name_dataset
from .reports.events import as_kept, check_model_directory, keep_settings, library_error, tune_settings
from .reports.scoring import as_predictions, clip_and_event_metrics, event_clips
from .stages import process_state


logger = logging.get_logger(__name__)

NO_MOMENTS = "has scores of clips, none of moments, and the labels are events: name the column of classes instead."
TUNED = "Thresholds and filters of events were chosen by these clips: their F1 is optimistic."


@dataclass
class EvaluateArguments:
    """Classifier to evaluate, and directory of the report."""

    model: str = argument("Name, directory or Hub id of a fine-tuned classifier.")
    output_dir: str = argument("Directory of the report.")
    revision: str | None = argument("Branch, tag or commit of a model on the Hub.", None)
    batch_size: int = argument("Windows that a device takes at a time.", 16, min=1)
    num_workers: int = argument("Processes that decode audio for each device.", 0, min=0)
    bf16: bool = argument("Compute in bfloat16.", False)
    tune_events: Literal["median", "boxes"] | None = argument(
        "Choose threshold, temperature and filter of the events of each class on these clips, and keep them in the "
        "model's directory: median filters, or boxes, which are tried as well.",
        None,
    )

    def __post_init__(self):
        check_numbers(self)


EVALUATE_ARGUMENTS = (EvaluateArguments, DataArguments, LabelArguments)


def evaluate(arguments: EvaluateArguments, data: DataArguments, labels: LabelArguments) -> dict[str, float | None]:
    """
    Classifies all clips, prints the metrics and writes a report; see [`write_report`].

    Returns:
        `dict[str, float | None]`: the metrics; None if undefined.

    Raises:
        [`BeatsError`]: an output directory that exists, clips or labels that cannot be used, a model of another
            kind.
    """
    output_dir = Path(arguments.output_dir)
    check_new(output_dir)
    make_directory(output_dir.absolute().parent)
    if data.streaming or data.precompute_fbank:
        raise BeatsError("An evaluation reads audio from disk: leave `streaming` and `precompute_fbank` out.")
    check_drawing()
    if arguments.tune_events is not None:
        check_model_directory(arguments.model)
        if error := library_error():
            raise BeatsError(error)
    model, extractor = load(arguments.model, revision=arguments.revision or "main")
    if not isinstance(model, (BeatsForAudioClassification, BeatsForAudioFrameClassification)):
        raise BeatsError(f"{arguments.model}: holds a {type(model).__name__}, no fine-tuned classifier.")
    problem_type = problem_type_of(model.config)
    if problem_type == "regression":
        raise BeatsError(f"{arguments.model}: is a model of regression, and an evaluation needs a classifier.")
    if isinstance(model, BeatsForAudioFrameClassification):
        problem_type, labels.task = "multi_label_classification", "frames"
    elif arguments.tune_events is not None:
        raise BeatsError(f"{arguments.model}: has no scores of moments, whose events could be tuned: leave it out.")
    elif labels.event_files is not None:
        raise BeatsError(f"{arguments.model}: {NO_MOMENTS}")
    names = list(labels_of(model).values())
    clips, known_labels = load_clips(data, labels, names)
    if known_labels.task == "frames" and not isinstance(model, BeatsForAudioFrameClassification):
        raise BeatsError(f"{arguments.model}: {NO_MOMENTS}")
    if num_learned := count_learned(arguments.model, clips):
        logger.warning(
            f"{num_learned} of {len(clips.names)} clips are among those that this model has learned from: metrics "
            "will be optimistic."
        )
    # Without labels: the loss is not of interest.
    windows = Windows(clips, data, extractor, num_workers=arguments.num_workers)
    with work_directory(output_dir.parent, ".writing-") as work:
        training = BeatsTrainingArguments(
            output_dir=str(work),
            per_device_eval_batch_size=arguments.batch_size,
            dataloader_num_workers=arguments.num_workers,
            bf16=arguments.bf16,
            label_names=["labels"],
        )
        trainer = ClassificationTrainer(model, training, data_collator=collate_waveforms, feature_extractor=extractor)
        output = trainer.predict(windows, ignore_keys=["hidden_states", "attentions"]).predictions
        windows.targets = LabelledClips(known_labels, True, extractor, model.config)
        predictions = as_predictions(output, windows, known_labels, problem_type)
        evidence = Evidence(read_audio=clip_reader(clips, extractor.sampling_rate), extractor=extractor)
        if arguments.tune_events is not None:
            tuned = tune_settings(event_clips(output, windows, known_labels), arguments.tune_events)
            model.config.event_settings = {name: as_kept(settings) for name, settings in tuned.items()}
            evidence.notes.append(TUNED)
        metrics = clip_and_event_metrics(output, predictions, windows, known_labels, evidence, model.config)
        if process_state().is_main_process:
            if num_learned:
                evidence.notes.append(f"{num_learned} of the clips were learned from: metrics are optimistic.")
            description = describe(arguments, data, num_learned)
            report = write_report(work / "new", predictions, metrics, description, evidence)
            replace_directory(work / "new", output_dir)
            print_report(Console(), predictions, report)
            # A model is changed only once there is a report on it.
            if arguments.tune_events is not None:
                keep_settings(arguments.model, tuned)
    process_state().wait_for_everyone()
    return metrics


def describe(arguments: EvaluateArguments, data: DataArguments, num_learned: int | None) -> dict[str, Any]:
    """Returns the description of the evaluation for its report: model, dataset, versions, and clips known before."""
    return {
        "model": arguments.model,
        "revision": arguments.revision,
        "dataset": name_dataset(data.dataset),
        "clips_in_training_set": num_learned,
        "config": data.dataset_config,
        "split": data.split,
        "select": data.select,
        "transformers_beats": transformers_beats.__version__,
        "transformers": transformers.__version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def main(argv: list[str] | None = None) -> None:
    """Runs the command with the words of `argv`; by default those of the command line."""
    arguments, *others = parse_arguments(EVALUATE_ARGUMENTS, argv, __doc__)
    evaluate(arguments, *others)
    if process_state().is_main_process:
        page = Path(arguments.output_dir) / PAGE
        print(f"Report: {page}")
        note(f"Next: open it in a browser; the scores are in {page.with_name(PREDICTIONS_FILE)}.")


if __name__ == "__main__":
    run_command(main)
