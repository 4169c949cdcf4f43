# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""
Diagnosis of codes: how many are in use, what they say about class, band and position, and how much of the teacher.

Example:

    transformers-beats diagnose-codes --codes CODES --teacher MODEL --dataset FOLDER --output_dir DIAGNOSIS

With `--tokenizer TOKENIZER` in the place of `--codes CODES`, the codes of the sample are computed.
"""

import dataclasses
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Subset
from transformers import PreTrainedModel
from transformers.utils import logging

from transformers_beats.feature_extraction_beats import BeatsFeatureExtractor
from transformers_beats.modeling_beats import BeatsForAudioClassification, patch_mask_from_frame_mask
from transformers_beats.training.config.arguments import DIAGNOSE_ARGUMENTS, DiagnosisArguments
from transformers_beats.training.config.recipes import parse_arguments
from transformers_beats.training.data.crops import CropDataset, DataCollator, featurize
from transformers_beats.training.data.folds import FoldArguments, read_folds
from transformers_beats.training.data.labels import LabelArguments, Labels, read_labels
from transformers_beats.training.data.sources import DataArguments
from transformers_beats.training.reports.codes import (
    NUM_FOLDS,
    PAGE,
    CodeSample,
    describe_diagnosis,
    diagnose_sample,
    write_diagnosis,
)
from transformers_beats.training.reports.report import check_drawing
from transformers_beats.training.trainers.pretraining import center_bands, check_teacher, teacher_outputs
from transformers_beats.utils.errors import BeatsError, UsageError, first_line, run_command
from transformers_beats.utils.files import check_new
from transformers_beats.utils.messages import note

from .compute_codes import crop_words, load_codes
from .stages import announce, choose_extractor, load_crops, load_teacher, load_tokenizer, own_extractor, process_state


logger = logging.get_logger(__name__)

# Of many classes, those of the most clips are examined: a probe needs several clips of each.
MIN_CLIPS_PER_CLASS = 10
LABELLED_TEACHER = (
    "The teacher has learned labels: if these are clips that it learned from, what the codes say about classes is "
    "optimistic."
)


def read_classes(crops: CropDataset, labels: LabelArguments) -> tuple[Labels | None, str]:
    """Reads the class of each clip, if there is one; else None, and the reason."""
    try:
        found = read_labels(crops.clips.dataset, labels, crops.clips.names)
    except UsageError:
        raise
    except BeatsError as error:
        return None, f"Without classes: {first_line(error)}"
    if found.task != "single_label":
        return None, "Without classes: the clips have any number of them, and one each is needed."
    return found, ""


def draw_clips(
    classes: np.ndarray | None, num_clips: int, count: int, seed: int, num_folds: int = NUM_FOLDS
) -> np.ndarray:
    """
    Draws at most `count` of `num_clips` clips, ascending; with `classes` `(num_clips,)` as many of each class, of
    those that are most frequent. Classes with fewer clips than folds are left out if two others remain.
    """
    order = np.random.default_rng(seed).permutation(num_clips)
    if classes is None:
        return np.sort(order[:count])
    counts = np.bincount(classes)
    most_frequent = np.argsort(-counts, kind="stable")[: max(2, count // MIN_CLIPS_PER_CLASS)]
    is_frequent = counts[most_frequent] >= num_folds
    if is_frequent.sum() >= 2:
        most_frequent = most_frequent[is_frequent]
    order = order[np.isin(classes[order], most_frequent)]
    seen = dict.fromkeys(most_frequent.tolist(), 0)
    ranks = []
    for label in classes[order].tolist():
        ranks.append(seen[label])
        seen[label] += 1
    return np.sort(order[np.argsort(ranks, kind="stable")][:count])


@torch.no_grad()
def run_models(
    items: Any,
    extractor: BeatsFeatureExtractor,
    crop_seconds: float,
    tokenizer: PreTrainedModel | None,
    teacher: PreTrainedModel | None,
    teacher_layers: list[int] | None = None,
    normalization: str | None = None,
    batch_size: int = 16,
) -> Iterator[tuple[np.ndarray | None, np.ndarray | None]]:
    """
    Yields codes `(num_columns, num_bands, ...)` and the teacher's outputs `(num_patches, dim)`, float32, of each item,
    without padding; None without such a model. Outputs are not centred, which is for the whole sample.
    """
    device = torch.device(process_state().device or "cpu")
    models = [model.to(device).eval() for model in (tokenizer, teacher) if model is not None]
    loader = DataLoader(items, batch_size, collate_fn=DataCollator(extractor, crop_seconds))
    if not models:
        yield from [(None, None)] * len(items)
        return
    for batch in loader:
        inputs = {name: value.to(device) for name, value in featurize(batch, extractor, device).items()}
        values, mask = inputs["input_values"], inputs["attention_mask"]
        size = len(values)
        codes: Any = [None] * size
        states: Any = [None] * size
        if tokenizer is not None:
            found = tokenizer(values, attention_mask=mask).audio_codes.cpu().numpy()
            codes = [item[(item >= 0).all(axis=tuple(range(1, item.ndim)))] for item in found]
        if teacher is not None:
            per_patch = None if normalization == "center" else normalization
            outputs = teacher_outputs(teacher, values, mask, teacher_layers, per_patch).float()
            config: Any = teacher.config
            num_bands = config.num_freq_patches
            # Whole columns, as of the codes.
            columns = patch_mask_from_frame_mask(mask, config).unflatten(1, (-1, num_bands)).all(dim=2)
            is_known = columns.repeat_interleave(num_bands, dim=1)
            states = [item[known].cpu().numpy() for item, known in zip(outputs, is_known)]
        yield from zip(codes, states)


def center_states(states: list[np.ndarray], num_bands: int) -> list[np.ndarray]:
    """Returns outputs of a teacher, `(num_patches, dim)` of each clip, less the mean of their band over all clips."""
    joined = torch.from_numpy(np.concatenate(states)).unsqueeze(0)
    centred = center_bands(joined, torch.ones(joined.shape[:2], dtype=torch.bool), num_bands)[0].numpy()
    return np.split(centred, np.cumsum([len(values) for values in states])[:-1])


def build_sample(
    arguments: DiagnosisArguments,
    data: DataArguments,
    labels: LabelArguments,
    crops: CropDataset,
    extractor: BeatsFeatureExtractor,
    tokenizer: PreTrainedModel | None,
    teacher: PreTrainedModel | None,
) -> CodeSample:
    """Reads or computes the codes of a sample of clips, each with its first crop, and the outputs of a teacher."""
    stored: Any = None
    if arguments.codes is not None:
        stored, description = load_codes(arguments.codes, data)
        if crops.fingerprint != description["clips"]:
            raise BeatsError(f"{arguments.codes}: the codes are of other files than {data.dataset} now holds.")
    found, remark = read_classes(crops, labels)
    classes = None if found is None else found.as_array()
    folds, num_folds = None, NUM_FOLDS
    if arguments.fold_column is not None:
        if found is None:
            raise BeatsError(f"`fold_column` is for the probe of classes. {remark}")
        folds = np.full(len(found), -1)
        parts = read_folds(crops.clips.dataset, found, FoldArguments(arguments.fold_column), 0)
        for number, fold in enumerate(parts):
            folds[fold.test] = number
        num_folds = len(parts)
    clips = draw_clips(classes, len(crops.clips.names), arguments.num_clips, arguments.seed, num_folds)
    indices = crops.offsets[clips].tolist()
    items = Subset(CropDataset(crops.clips, data, sampling_rate=crops.sampling_rate), indices)
    targets = (arguments.teacher_layers, arguments.teacher_normalization, arguments.batch_size)
    pairs: list[tuple[Any, Any]] = list(run_models(items, extractor, data.crop_seconds, tokenizer, teacher, *targets))
    if stored is not None:
        size = description["codebook_size"]
        codes = [np.asarray(stored[index]["codes"]) for index in indices]
    else:
        size = 0 if tokenizer is None else tokenizer.config.codebook_size
        codes = [item for item, _ in pairs]
    states = None if teacher is None else [values for _, values in pairs]
    if states is not None and teacher is not None and arguments.teacher_normalization == "center":
        states = center_states(states, teacher.config.num_freq_patches)
    return CodeSample(
        codes,
        size,
        None if classes is None else classes[clips],
        None if folds is None else folds[clips],
        states,
        [remark] if remark else [],
    )


def diagnose(arguments: DiagnosisArguments, data: DataArguments, labels: LabelArguments) -> dict[str, Any] | None:
    """
    Examines the codes of a sample of clips, and writes `diagnosis.html` and `diagnosis.json` to
    `arguments.output_dir`. Called on every process; one examines.

    Returns:
        `dict`: the content of `diagnosis.json`; None on other processes.

    Raises:
        [`BeatsError`]: a streamed dataset, an output that exists, codes of other clips, a teacher that reads another
            fbank than the tokenizer, or matplotlib is not installed.
    """
    check_drawing()
    if data.streaming:
        raise BeatsError("A diagnosis needs the clips of a dataset: set `streaming: false`.")
    data, crops, extractor = load_clips(arguments, data)
    found = None
    try:
        if process_state().is_main_process:
            found = examine(arguments, data, labels, crops, extractor)
    finally:
        process_state().wait_for_everyone()
    return found


def load_clips(
    arguments: DiagnosisArguments, data: DataArguments
) -> tuple[DataArguments, CropDataset, BeatsFeatureExtractor]:
    """Loads the clips, and the feature extractor of the models; returns with them how the clips are read."""
    check_new(Path(arguments.output_dir))
    owned: dict[str, Any] = {}
    if arguments.codes is not None:
        _, description = load_codes(arguments.codes, data)
        if "feature_extractor" in description:
            owned["codes"] = BeatsFeatureExtractor(**description["feature_extractor"])
    elif arguments.tokenizer is not None:
        owned["tokenizer"] = own_extractor(arguments.tokenizer)
    if arguments.teacher is not None:
        owned["teacher"] = own_extractor(arguments.teacher)
    extractor = choose_extractor(arguments.feature_extractor, **owned)
    # Waveforms are read for a few clips only; one that is lost must not be replaced by another one.
    data = dataclasses.replace(data, precompute_fbank=False, max_lost_share=0.0)
    return data, load_crops(data, extractor), extractor


def examine(
    arguments: DiagnosisArguments,
    data: DataArguments,
    labels: LabelArguments,
    crops: CropDataset,
    extractor: BeatsFeatureExtractor,
) -> dict[str, Any]:
    """Does what [`diagnose`] says, on one process."""
    tokenizer = None if arguments.tokenizer is None else load_tokenizer(arguments.tokenizer)
    teacher = None if arguments.teacher is None else load_teacher(arguments.teacher)
    if teacher is not None:
        check_teacher(teacher, arguments.teacher_layers)
    sample = build_sample(arguments, data, labels, crops, extractor, tokenizer, teacher)
    if isinstance(teacher, BeatsForAudioClassification) and sample.classes is not None:
        sample.notes.append(LABELLED_TEACHER)
    description = {
        "tokenizer": arguments.tokenizer or arguments.codes,
        "teacher": arguments.teacher,
        "teacher_layers": arguments.teacher_layers and str(arguments.teacher_layers),
        "teacher_normalization": arguments.teacher_normalization,
        "dataset": str(data.dataset),
        "folds": arguments.fold_column,
        "seed": arguments.seed,
    }
    found = diagnose_sample(sample, description, arguments.seed)
    write_diagnosis(Path(arguments.output_dir), found, sample)
    note(f"Codes: {describe_diagnosis(found)}", f"Diagnosis: {Path(arguments.output_dir) / PAGE}")
    return found


def diagnose_if_possible(arguments: DiagnosisArguments, data: DataArguments) -> None:
    """
    Does what [`diagnose`] does in the middle of a training, which an error of the examination does not end: it is
    logged. An error of loading clips ends it, as in every stage: other processes would wait for this one. Of a
    stream there is no diagnosis, which a line says.
    """
    if data.streaming:
        words = ["diagnose-codes", "--tokenizer", arguments.tokenizer or "TOKENIZER"]
        if arguments.teacher is not None:
            words += ["--teacher", arguments.teacher]
        words += [*crop_words(data), "--output_dir", arguments.output_dir]
        announce(
            "There is no diagnosis of the codes of a stream. On a dataset that is not streamed, this makes one: "
            f"transformers-beats {shlex.join(words)}"
        )
        return
    data, crops, extractor = load_clips(arguments, data)
    try:
        if process_state().is_main_process:
            check_drawing()
            examine(arguments, data, LabelArguments(), crops, extractor)
    except Exception as error:
        logger.error(f"There is no diagnosis of the codes: {error}", exc_info=not isinstance(error, BeatsError))
    finally:
        process_state().wait_for_everyone()


def main(argv: list[str] | None = None) -> None:
    """Runs the command with the words of `argv`; by default those of the command line."""
    diagnose(*parse_arguments(DIAGNOSE_ARGUMENTS, argv, __doc__))


if __name__ == "__main__":
    run_command(main)
