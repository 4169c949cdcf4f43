# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""
Whole iterative pre-training (section 3.1 of the paper).

Example:

    transformers-beats iterate --config folder_iterate --data.dataset FOLDER --output_dir RUN --model.max_steps 10000

On several devices: `accelerate launch -m transformers_beats.training.iterate` with the same arguments. Every
stage writes a directory that is there or not there, so that an interrupted run goes on with the next one:

    OUTPUT_DIR/iteration-1/tokenizer    a random projection; in later iterations distilled from the last model
    OUTPUT_DIR/iteration-1/codes        its codes of all clips
    OUTPUT_DIR/iteration-1/diagnosis    what the codes are worth: diagnosis.html
    OUTPUT_DIR/iteration-1/model        a model that has learned to predict them

With `--supervised_teacher.dataset LABELLED`, or a classifier as `--supervised_teacher`, one more iteration follows:

    OUTPUT_DIR/iteration-3+/teacher     the last model, fine-tuned on labels; the tokenizer learns its logits

A result that is there is kept if it was made from what is there now, and else refused: nothing is deleted.
"""

import gc
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import torch

from transformers_beats import BeatsRandomProjectionTokenizer, BeatsRandomProjectionTokenizerConfig
from transformers_beats.training.config.arguments import (
    FINETUNE_ARGUMENTS,
    PRETRAIN_ARGUMENTS,
    TOKENIZE_ARGUMENTS,
    TRAIN_TOKENIZER_ARGUMENTS,
    Arguments,
    DiagnosisArguments,
)
from transformers_beats.training.config.iterations import CORPUS, IterateArguments
from transformers_beats.training.config.recipes import build_arguments, parse_arguments
from transformers_beats.training.data.sources import DataArguments
from transformers_beats.training.reports.codes import DIAGNOSIS
from transformers_beats.training.trainers.checkpoints import training_directory
from transformers_beats.utils.errors import BeatsError, run_command
from transformers_beats.utils.files import new_directory
from transformers_beats.utils.fingerprint import FINGERPRINT_VERSION, model_fingerprint
from transformers_beats.utils.messages import without_weight_bars
from transformers_beats.utils.resume import read_settings

from .classifiers import load_sets
from .compute_codes import DESCRIPTION, codes_fingerprint, load_tokenizer_and_extractor, tokenize
from .diagnose_codes import diagnose_if_possible
from .fbank_statistics import StatisticsArguments, compute_statistics, find_change
from .finetune import finetune
from .pretrain import pretrain, start_fingerprint
from .stages import (
    FBANK_SETTINGS,
    announce,
    choose_extractor,
    close_stage,
    finetune_words,
    is_there,
    on_main_process,
    own_extractor,
    process_state,
    read_origin,
    write_origin,
)
from .train_tokenizer import load_teacher_and_extractor, train_tokenizer


def save_random_projection(arguments: IterateArguments, directory: Path) -> None:
    """Writes the tokenizer of the first iteration and its feature extractor, on one process."""
    state = process_state()
    if state.is_main_process:
        config = BeatsRandomProjectionTokenizerConfig(**(arguments.random_projection or {}))
        name = arguments.stage_values("tokenize")["feature_extractor"]
        extractor = choose_extractor(name, arguments.model.get("model_name_or_path"))
        with new_directory(directory) as new:
            BeatsRandomProjectionTokenizer(config).save_pretrained(new)
            extractor.save_pretrained(new)
    state.wait_for_everyone()


def save_statistics(arguments: IterateArguments) -> None:
    """Writes a feature extractor with the statistics of the data, if these are asked for; refuses those of others."""
    if arguments.feature_extractor != CORPUS:
        return
    directory = arguments.extractor_directory
    (data,) = build_arguments((DataArguments,), arguments.data)
    if is_missing(directory, "Statistics"):
        compute_statistics(StatisticsArguments(str(directory)), data)
    elif change := find_change(directory, data):
        places = on_main_process(lambda: made_since(arguments, directory))
        raise BeatsError(
            f"{directory}: has the statistics of other data ({change}): remove {places}, to be made anew, or keep it "
            f"by `feature_extractor: {directory}`."
        )


# Checks of results that are there


def made_since(arguments: IterateArguments, result: Path) -> str:
    """
    Returns the names of a result and of all that was made after it, which is made from it: directories of its own
    iteration, and whole later ones.
    """
    results, found = arguments.results, []
    for path in results[results.index(result) :]:
        places = [place for place in (path, training_directory(path)) if place.exists()]
        # What lies beside the result, or the iteration.
        found += places if path.parent == result.parent else [place.parent for place in places]
    return ", ".join(dict.fromkeys(map(str, found)))


def refuse(arguments: IterateArguments, result: Path, source: str | Path, what: str) -> NoReturn:
    """Raises a [`BeatsError`] for a result that was made from something else than the source that is there."""
    raise BeatsError(
        f"{result}: was made from {what} than {source}: remove {made_since(arguments, result)}, to be made anew, or "
        "choose another `output_dir`."
    )


def stored_fingerprint(result: Path, name: str) -> str | None:
    """Reads a fingerprint of what a result was made from; None if it is not there, or was made by another rule."""
    description = (read_settings(result / DESCRIPTION) if result.name == "codes" else read_origin(result)) or {}
    return description.get(name) if description.get("fingerprint_version") == FINGERPRINT_VERSION else None


def check_source(
    arguments: IterateArguments,
    result: Path,
    name: str,
    source: str | Path,
    what: str,
    find_fingerprint: Callable[[], str],
) -> None:
    """
    Compares the fingerprint that a result has under a `name` with that of its source, which one process computes.
    Raises a [`BeatsError`] on every process if they differ: it was made from `what` than the source, such as "another
    tokenizer".
    """

    def compare() -> None:
        stored = stored_fingerprint(result, name)
        if stored is not None and stored != find_fingerprint():
            refuse(arguments, result, source, what)

    on_main_process(compare)


def teacher_fingerprint(arguments: IterateArguments, teacher: str) -> str:
    """Returns the fingerprint of a model, or of a classifier, as a tokenizer stores that of its teacher."""
    name = arguments.stage_values("tokenizer")["feature_extractor"]
    return model_fingerprint(*load_teacher_and_extractor(teacher, name))


def check_tokenizer(arguments: IterateArguments, tokenizer: Path, teacher: str | None) -> None:
    """Raises a [`BeatsError`] for a tokenizer of another fbank than that of the run, or of another teacher."""
    name = arguments.stage_values("tokenizer")["feature_extractor"]

    def compare_extractors() -> None:
        own = own_extractor(str(tokenizer))
        if own is not None and name is not None:
            given = choose_extractor(name)
            if any(getattr(own, setting) != getattr(given, setting) for setting in FBANK_SETTINGS):
                refuse(arguments, tokenizer, name, "another feature extractor")

    on_main_process(compare_extractors)
    if teacher is not None:
        find = partial(teacher_fingerprint, arguments, teacher)
        check_source(arguments, tokenizer, "teacher_fingerprint", teacher, "another teacher", find)


def check_codes(arguments: IterateArguments, codes: Path, tokenizer: Path) -> None:
    """Raises a [`BeatsError`] for codes of another tokenizer."""
    name = arguments.stage_values("tokenize")["feature_extractor"]
    check_source(
        arguments,
        codes,
        "tokenizer",
        tokenizer,
        "another tokenizer",
        lambda: model_fingerprint(*load_tokenizer_and_extractor(str(tokenizer), name)),
    )


def check_model(arguments: IterateArguments, model: Path, codes: Path, start: str | None) -> None:
    """Raises a [`BeatsError`] for a model that has learned other codes, or started from another model."""

    def find() -> str:
        return codes_fingerprint(read_settings(codes / DESCRIPTION) or {})

    check_source(arguments, model, "codes_fingerprint", codes, "other codes", find)
    if start is not None:
        check_source(arguments, model, "start_fingerprint", start, "another model", partial(start_fingerprint, start))


def check_nothing_is_gone(arguments: IterateArguments) -> None:
    """
    Raises a [`BeatsError`] for the source of a result that is gone: what would be trained in its place, perhaps for
    days, would be another one. Codes, and the first tokenizer, come out the same when they are made again.
    """
    pairs: list[tuple[Path, str, Path]] = []
    last: Path | None = None
    for name in arguments.iterations:
        teacher, tokenizer, codes, model = (
            Path(arguments.output_dir) / name / stage for stage in ("teacher", "tokenizer", "codes", "model")
        )
        if last is not None:
            if teacher in arguments.results:
                pairs += [(teacher, "start_fingerprint", last), (tokenizer, "teacher_fingerprint", teacher)]
            elif not name.endswith("+"):
                pairs.append((tokenizer, "teacher_fingerprint", last))
            pairs += [(codes, "tokenizer", tokenizer), (model, "tokenizer_fingerprint", tokenizer)]
            if arguments.initialize_from_last:
                pairs.append((model, "start_fingerprint", last))
        last = model

    def check() -> None:
        for result, name, source in pairs:
            if not source.exists() and stored_fingerprint(result, name) is not None:
                raise BeatsError(
                    f"{result}: was made from {source}, which is gone, and another one would be trained in its place: "
                    f"put it back, or remove {made_since(arguments, result)}, to be made anew."
                )

    on_main_process(check)


def check_extractor(arguments: IterateArguments) -> None:
    """Raises a [`BeatsError`] for a feature extractor of another fbank than that of a classifier that is to teach."""
    name = arguments.stage_values("tokenize")["feature_extractor"]
    if name is not None and isinstance(arguments.supervised_teacher, str):
        choose_extractor(name, None, **{"supervised teacher": own_extractor(arguments.supervised_teacher)})


def is_missing(result: Path, name: str) -> bool:
    """Returns whether a stage has to run, and frees the memory of the stage before on the device."""
    is_done = is_there(result)
    announce(f"{name}: {f'{result} is there already' if is_done else f'making {result}'}.")
    # A trainer and its model refer to each other.
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return not is_done


def supervised_teacher(arguments: IterateArguments, model: Path, directory: Path) -> str:
    """Returns the classifier that teaches the last tokenizer: the one that was given, or the last model fine-tuned."""
    if isinstance(arguments.supervised_teacher, str):
        return arguments.supervised_teacher
    find = partial(teacher_fingerprint, arguments, str(model))
    if is_missing(directory, directory.parent.name):
        finetune(teacher_arguments(arguments, str(model), str(directory)), prints=False)
        on_main_process(lambda: write_origin(directory, {"start_fingerprint": find()}))
    else:
        check_source(arguments, directory, "start_fingerprint", model, "another model", find)
    return str(directory)


def teacher_arguments(arguments: IterateArguments, model: str, output_dir: str) -> Arguments:
    """Returns the arguments of `finetune` that make the supervised teacher."""
    return Arguments(*build_arguments(FINETUNE_ARGUMENTS, arguments.teacher_values(model, output_dir)))


def check_labels(arguments: IterateArguments) -> None:
    """Checks clips and labels of the supervised teacher, if it is to be made: mistakes must not show after days."""
    if isinstance(arguments.supervised_teacher, dict):
        place = Path(arguments.output_dir) / arguments.iterations[-1] / "teacher"
        if not is_there(place):
            load_sets(teacher_arguments(arguments, str(place), str(place)))


@without_weight_bars()
def iterate(arguments: IterateArguments) -> Path:
    """
    Runs all stages that are not done yet.

    Returns:
        `Path`: the directory of the last model.

    Raises:
        [`BeatsError`]: if a result that is there was made from something else than is there now; nothing is deleted.
    """
    model: Path | None = None
    check_nothing_is_gone(arguments)
    check_labels(arguments)
    save_statistics(arguments)
    check_extractor(arguments)
    for number, name in enumerate(arguments.iterations, start=1):
        directory = Path(arguments.output_dir) / name
        is_supervised = number > arguments.num_iterations
        teacher = None if model is None else str(model)
        if is_supervised and model is not None:
            teacher = supervised_teacher(arguments, model, directory / "teacher")
        start: dict[str, Any] = {}
        if arguments.initialize_from_last and model is not None:
            start = {"model_name_or_path": str(model), "new_label_predictor": True}
        model = run_iteration(arguments, directory, teacher, is_supervised, start)
    return Path(arguments.output_dir) / arguments.iterations[-1] / "model"


def run_iteration(
    arguments: IterateArguments, directory: Path, teacher: str | None, is_supervised: bool, start: dict[str, Any]
) -> Path:
    """
    Runs the stages of an iteration that are not done yet; returns the directory of its model. `start` are arguments of
    `pretrain` that say where the model starts.
    """
    tokenizer, codes, diagnosis, model = (directory / name for name in ("tokenizer", "codes", DIAGNOSIS, "model"))
    name = directory.name
    if is_missing(tokenizer, name):
        if teacher is None:
            save_random_projection(arguments, tokenizer)
        else:
            values = arguments.stage_values("tokenizer", is_supervised, teacher=teacher, output_dir=str(tokenizer))
            train_tokenizer(*build_arguments(TRAIN_TOKENIZER_ARGUMENTS, values))
    else:
        check_tokenizer(arguments, tokenizer, teacher)
    if is_missing(codes / DESCRIPTION, name):
        values = arguments.stage_values("tokenize", tokenizer=str(tokenizer), output_dir=str(codes))
        tokenize(*build_arguments(TOKENIZE_ARGUMENTS, values))
    else:
        check_codes(arguments, codes, tokenizer)
    if arguments.diagnosis_clips and is_missing(diagnosis, name):
        values = arguments.stage_values("tokenizer", is_supervised)
        targets: dict[str, Any] = {}
        if teacher is not None:
            targets = {key: values.get(key) for key in ("teacher_layers", "teacher_normalization")}
        (data,) = build_arguments((DataArguments,), arguments.data)
        examined = DiagnosisArguments(
            str(diagnosis), codes=str(codes), teacher=teacher, num_clips=arguments.diagnosis_clips, **targets
        )
        diagnose_if_possible(examined, data)
    if is_missing(model, name):
        values = arguments.stage_values("model", codes=str(codes), output_dir=str(model), **start)
        pretrain(*build_arguments(PRETRAIN_ARGUMENTS, values))
    else:
        check_model(arguments, model, codes, start.get("model_name_or_path"))
    return model


def main(argv: list[str] | None = None) -> None:
    """Runs the command with the words of `argv`; by default those of the command line."""
    model = str(iterate(*parse_arguments((IterateArguments,), argv, __doc__)))
    close_stage("Model", model, *finetune_words(model))


if __name__ == "__main__":
    run_command(main)
