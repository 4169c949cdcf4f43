# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Arguments of `iterate`: what its stages share, and a section for each."""

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from transformers import PreTrainedConfig
from transformers.trainer_utils import SaveStrategy
from transformers.utils import logging

from transformers_beats import BeatsConfig, BeatsRandomProjectionTokenizerConfig, BeatsTokenizerConfig
from transformers_beats.inference.layers import choose_layers
from transformers_beats.inference.loading import check_model, find_model, saved_config
from transformers_beats.training.data.sources import DataArguments
from transformers_beats.utils.arguments import argument, check_numbers
from transformers_beats.utils.errors import UsageError

from .arguments import (
    DIAGNOSIS_CLIPS,
    DIAGNOSIS_HELP,
    FINETUNE_ARGUMENTS,
    PRETRAIN_ARGUMENTS,
    TOKENIZE_ARGUMENTS,
    TRAIN_TOKENIZER_ARGUMENTS,
    Arguments,
)
from .batch_plan import apply_batch_plan, check_launch
from .checks import (
    check_config,
    check_partners,
    check_saves,
    check_teaching_probes,
    check_unlabelled,
    find_difference,
)
from .recipes import build_arguments, merge, read_recipe


logger = logging.get_logger(__name__)

# Codes are stored as int16.
MAX_CODEBOOK_SIZE = 2**15
# Stages of `iterate`, by the section of their arguments.
STAGES = {"tokenizer": TRAIN_TOKENIZER_ARGUMENTS, "tokenize": TOKENIZE_ARGUMENTS, "model": PRETRAIN_ARGUMENTS}
# Directories of an iteration, in the order in which they are made.
STAGE_DIRECTORIES = ("tokenizer", "codes", "diagnosis", "model")
# In the place of a feature extractor: one with the statistics of the data.
CORPUS = "corpus"
# Recipes of the sizes, whose values count where nothing else was given.
SIZES = {"large": "iterate_large"}
# Arguments of fine-tuning that make no single classifier of the last model, or that its stage sets.
NOT_OF_A_TEACHER = frozenset(
    {"final", "fold_column", "folds", "hub_model_id", "model_name_or_path", "num_folds", "output_dir", "push_to_hub"}
    | {"fbank_mean", "fbank_std", "feature_extractor", "resume_from_checkpoint"}
)


@dataclass
class IterateArguments:
    """Settings that the stages of `iterate` share, and a section for each stage."""

    _sections: ClassVar[dict[str, tuple[type, ...]]] = {
        "data": (DataArguments,),
        "random_projection": (BeatsRandomProjectionTokenizerConfig,),
        **{name: tuple(owner for owner in owners if owner is not DataArguments) for name, owners in STAGES.items()},
        "supervised_teacher": FINETUNE_ARGUMENTS,
        "supervised_tokenizer": tuple(owner for owner in TRAIN_TOKENIZER_ARGUMENTS if owner is not DataArguments),
    }
    _set_by_iterate: ClassVar[frozenset[str]] = frozenset(
        {"codes", "diagnosis_clips", "feature_extractor", "output_dir", "resume_from_checkpoint", "teacher"}
        | {"tokenizer"}
    )

    output_dir: str = argument("Directory of all models, tokenizers and codes.")
    data: dict = argument("Audio of all stages.")
    num_iterations: int = argument("Number of models, which are trained one after another.", 2, min=1)
    size: Literal["base", "large"] = argument(
        "Size of the models: large has width, depth, learning rate, steps and warm-up of OpenBEATs, and by default "
        "corpus statistics, where `model` and `feature_extractor` say nothing else.",
        "base",
    )
    feature_extractor: str | None = argument(
        "Name, directory or Hub id of a feature extractor. Default: that of the models before, or AudioSet's "
        "statistics. corpus: the statistics of `data`, which are computed first.",
        None,
    )
    random_projection: dict | None = argument("Configuration of the first iteration's tokenizer.", None)
    model: dict = argument("Training of each iteration's model.", default_factory=dict)
    initialize_from_last: bool = argument(
        "Start each model after the first from the encoder of the last one, with a new label predictor, instead of "
        "from random weights.",
        False,
    )
    tokenizer: dict = argument("Training of the tokenizer of each iteration after the first.", default_factory=dict)
    tokenize: dict = argument("Computation of the codes.", default_factory=dict)
    supervised_teacher: str | dict | None = argument(
        "A further iteration, the paper's iter3+, whose tokenizer learns the logits of a classifier (by k-means, the "
        "outputs of its encoder): its name, directory or Hub id, or the arguments of `finetune` that make one of the "
        "last model. Its audio is `data` unless they name a `dataset`.",
        None,
    )
    supervised_tokenizer: dict | None = argument(
        "Training of the tokenizer of that iteration: what differs from `tokenizer`.", None
    )
    diagnosis_clips: int = argument(DIAGNOSIS_HELP, DIAGNOSIS_CLIPS, min=2, or_zero=True)

    def __post_init__(self):
        check_numbers(self)
        for name in ("data", *STAGES):
            if not isinstance(section := getattr(self, name), dict):
                raise UsageError(f"`{name}` must be a mapping of its arguments, got {section!r}: leave it out.")
        check_config(BeatsRandomProjectionTokenizerConfig, self.random_projection)
        self._set_size()
        # A mistake in the last stage must not show only when the others are done, perhaps days later.
        with_prefix("data", build_arguments, (DataArguments,), self.data)
        if self.feature_extractor not in (None, CORPUS):
            find_model(str(self.feature_extractor), ["preprocessor_config.json"])
        if (start := self.model.get("model_name_or_path")) is not None:
            find_model(start, ["config.json", "model.safetensors"])
        for name in STAGES:
            self._check_not_set(name, getattr(self, name), self._set_by_iterate)
            with_prefix(name, self._check_stage, name)
        self._check_supervised()
        self._check_codebooks()
        self._check_teachers()

    @property
    def extractor_directory(self) -> Path:
        """Directory of the feature extractor that has the statistics of the data, if these are asked for."""
        return Path(self.output_dir) / "feature-extractor"

    @property
    def iterations(self) -> list[str]:
        """Names of the iterations, which are those of their directories; that with a supervised teacher ends in +."""
        names = [f"iteration-{number}" for number in range(1, self.num_iterations + 1)]
        return names if self.supervised_teacher is None else [*names, f"iteration-{self.num_iterations + 1}+"]

    @property
    def results(self) -> list[Path]:
        """Directories of all results, in the order in which they are made: each from one or some before it."""
        found = [self.extractor_directory]
        for name in self.iterations:
            # A classifier that was given is none.
            own = ["teacher"] if name.endswith("+") and isinstance(self.supervised_teacher, dict) else []
            found += [Path(self.output_dir) / name / stage for stage in (*own, *STAGE_DIRECTORIES)]
        return found

    def stage_values(
        self, name: Literal["model", "tokenizer", "tokenize"], is_supervised: bool = False, **values: Any
    ) -> dict[str, Any]:
        """
        Returns a flat recipe of one stage's own command: feature extractor, data, its section, and `values`; for the
        tokenizer of a classifier, what differs for it. [`build_arguments`] makes dataclasses of it.
        """
        extractor = str(self.extractor_directory) if self.feature_extractor == CORPUS else self.feature_extractor
        section = copy.deepcopy(getattr(self, name))
        if name == "tokenizer":
            if is_supervised:
                # Layers are those of an encoder; a classifier teaches its logits.
                section.pop("teacher_layers", None)
                merge(section, copy.deepcopy(self.supervised_tokenizer or {}))
            section["diagnosis_clips"] = 0
        return {"feature_extractor": extractor, **self.data, **section, **values}

    def teacher_values(self, model: str, output_dir: str) -> dict[str, Any]:
        """Returns a flat recipe of `finetune`, which makes the supervised teacher of a model."""
        own = self.supervised_teacher if isinstance(self.supervised_teacher, dict) else {}
        # Fine-tuning reads waveforms.
        shared = {key: value for key, value in self.data.items() if key not in ("precompute_fbank", "streaming")}
        if "dataset" in own:
            shared = {key: value for key, value in shared.items() if key == "crop_seconds"}
        return {**shared, **own, "model_name_or_path": model, "output_dir": output_dir}

    def _set_size(self) -> None:
        """Sets the values of the size where nothing else was given."""
        if self.size == "base":
            return
        if self.size not in SIZES:
            raise UsageError(f"`size` must be one of base, {', '.join(SIZES)}, got {self.size!r}.")
        recipe = read_recipe(SIZES[self.size])
        values = recipe["model"]
        given = copy.deepcopy(self.model)
        if given.get("model_config", {}) is None:
            del given["model_config"]
        others = [f"model.{name}" for name in different_values(values, given)]
        merge(values, given)
        self.model = values
        if "model_name_or_path" not in self.model:
            if self.feature_extractor not in (None, recipe["feature_extractor"]):
                others.insert(0, "feature_extractor")
            self.feature_extractor = self.feature_extractor or recipe["feature_extractor"]
        if others:
            logger.warning_once(
                f"`size: {self.size}` leaves as given: {', '.join(others)}. `--config {SIZES[self.size]}` after the "
                "recipe sets them."
            )

    def _check_not_set(self, section: str, values: dict, names: frozenset[str]) -> None:
        """Raises `UsageError` for a value that is not the user's."""
        for key in sorted(names & values.keys()):
            raise UsageError(f"`{section}.{key}` is set by `iterate`: leave it out.")

    def _check_stage(self, name: Literal["model", "tokenizer", "tokenize"], is_supervised: bool = False) -> None:
        """Raises `UsageError` for what the command of a stage would refuse."""
        place = str(Path(self.output_dir) / name)
        inputs = {"model": {"codes": place}, "tokenizer": {"teacher": place}, "tokenize": {"tokenizer": place}}
        values = self.stage_values(name, is_supervised, **inputs[name], output_dir=place)
        arguments = build_arguments(STAGES[name], values)
        data = arguments[1]
        if data.streaming:
            raise UsageError("Codes belong to the items of a dataset: set `data.streaming: false`.")
        if name != "tokenize":
            _, _, batch, training = arguments
            check_launch(training)
            check_unlabelled(training)
            apply_batch_plan(training, batch, data.crop_seconds)
        if name == "model":
            check_partners("mixture_probability", arguments[0].mixture_probability, training)
            steps, epochs = training.max_steps, training.num_train_epochs
            # The number of epochs that steps take is known when the clips are.
            if steps <= 0 or training.save_strategy != SaveStrategy.EPOCH:
                num_averaged = arguments[0].average_checkpoints
                check_saves(num_averaged, training.save_strategy, training.save_steps, steps, epochs)

    def _check_codebooks(self) -> None:
        """Raises `UsageError` for a codebook that codes, or the model that predicts them, have no place for."""
        first = BeatsRandomProjectionTokenizerConfig(**(self.random_projection or {})).codebook_size
        sizes = {"random_projection.codebook_size": first}
        for name, config in self._tokenizer_configs().items():
            sizes[f"{name}.model_config.codebook_size"] = config.codebook_size
        given = self.model.get("model_config") or {}
        if "num_codebooks" in given:
            raise UsageError("`model.model_config.num_codebooks` is that of each tokenizer: leave it out.")
        known = given.get("codebook_size", MAX_CODEBOOK_SIZE)
        for name, size in sizes.items():
            if size > MAX_CODEBOOK_SIZE:
                raise UsageError(f"`{name}` must be at most {MAX_CODEBOOK_SIZE}, got {size}: codes are int16.")
            if size > known:
                raise UsageError(
                    f"`model.model_config.codebook_size` is {known}, but `{name}` is {size}: leave it out."
                )

    def _tokenizer_configs(self) -> dict[str, BeatsTokenizerConfig]:
        """Returns the configurations of the tokenizers that are trained, by the section of each."""
        configs = {}
        if self.num_iterations > 1:
            configs["tokenizer"] = BeatsTokenizerConfig(**(self.tokenizer.get("model_config") or {}))
        if self.supervised_teacher is not None:
            values = self.stage_values("tokenizer", True)
            configs["supervised_tokenizer"] = BeatsTokenizerConfig(**(values.get("model_config") or {}))
        return configs

    def _model_config(self) -> PreTrainedConfig | None:
        """Returns the configuration of the models; None if it is that of a model that is not on this machine."""
        values, start = self.model.get("model_config") or {}, self.model.get("model_name_or_path")
        if start is None:
            return BeatsConfig(**values)
        place = find_model(start, ["config.json", "model.safetensors"])
        return saved_config(place, **values) if Path(place).is_dir() else None

    def _check_teachers(self) -> None:
        """Raises `UsageError` for tokenizers that could not be distilled from the models, if these are known."""
        known = self._model_config()
        if known is None:
            return
        for name, config in self._tokenizer_configs().items():
            values, teacher = self.stage_values("tokenizer", name != "tokenizer"), known
            layers = values.get("teacher_layers")
            if name == "tokenizer":
                if layers is not None:
                    with_prefix("`tokenizer.teacher_layers`", choose_layers, layers, known.num_hidden_layers)
            elif layers is not None:
                raise UsageError(f"`{name}.teacher_layers`: a classifier teaches its logits; leave it out.")
            elif isinstance(self.supervised_teacher, str):
                if not Path(self.supervised_teacher).is_dir():
                    continue
                teacher = saved_config(self.supervised_teacher)
            # By k-means, a tokenizer has the teacher's weights and size anyway.
            is_copy = values.get("initialize_from_teacher") and values.get("method") != "k_means"
            if is_copy and (weight := find_difference(teacher, config)) is not None:
                raise UsageError(
                    f"`{name}.initialize_from_teacher` needs a tokenizer of the teacher's size, and `{weight}` has "
                    f"another shape: make `{name}.model_config` and that of the teacher alike, or leave it out."
                )

    def _check_supervised(self) -> None:
        """Raises `UsageError` for a supervised teacher that could not be had, or a tokenizer of it."""
        if self.supervised_teacher is None:
            if self.supervised_tokenizer is not None:
                raise UsageError("`supervised_tokenizer` is that of a `supervised_teacher`: give one.")
            return
        if isinstance(self.supervised_teacher, str):
            check_model(self.supervised_teacher, "labels")
        else:
            self._check_not_set("supervised_teacher", self.supervised_teacher, NOT_OF_A_TEACHER)
            with_prefix("supervised_teacher", self._check_teacher)
        self._check_not_set("supervised_tokenizer", self.supervised_tokenizer or {}, self._set_by_iterate)
        with_prefix("supervised_tokenizer", self._check_stage, "tokenizer", True)

    def _check_teacher(self) -> None:
        """Raises `UsageError` for what `finetune` would refuse, and for probes that could not teach."""
        place = str(Path(self.output_dir) / "teacher")
        arguments = Arguments(*build_arguments(FINETUNE_ARGUMENTS, self.teacher_values(place, place)))
        method = self.stage_values("tokenizer", True).get("method", "distillation")
        check_teaching_probes(arguments.tuning, method)
        check_launch(arguments.training)
        apply_batch_plan(arguments.training, arguments.batch, arguments.data.crop_seconds)


def different_values(values: dict, given: dict) -> list[str]:
    """Returns the names of the values that are given otherwise, those of sections after their name and a dot."""
    names = []
    for name in values.keys() & given.keys():
        if isinstance(values[name], dict) and isinstance(given[name], dict):
            names += [f"{name}.{inner}" for inner in different_values(values[name], given[name])]
        elif values[name] != given[name]:
            names.append(name)
    return sorted(names)


def with_prefix(name: str, check: Any, *values: Any) -> None:
    """Calls `check`, and names the section in its errors."""
    try:
        check(*values)
    except ValueError as error:
        raise UsageError(f"{name}: {error}") from error
