# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Trainers of the two objectives of pre-training."""

import itertools
import math
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel, SchedulerType, Trainer, TrainerCallback, TrainingArguments
from transformers.utils import logging

from transformers_beats.feature_extraction_beats import BeatsFeatureExtractor
from transformers_beats.inference.layers import choose_layers
from transformers_beats.modeling_beats import BeatsForAudioClassification, BeatsModel, at_least_float32
from transformers_beats.modeling_beats_tokenizer import code_usage
from transformers_beats.training.data.crops import CropDataset, FbankDataset, featurize
from transformers_beats.training.data.mixing import mixture_sampler
from transformers_beats.training.data.streams import StreamingCrops, StreamLoader
from transformers_beats.utils.errors import BeatsError, DivergenceError, UsageError
from transformers_beats.utils.messages import hold_back

from .mixtures import mix_clips
from .progress import print_lines
from .streaming import EpochOfStream, build_stream_loader, keep_positions


logger = logging.get_logger(__name__)

# Schedules of the learning rate that have none.
WITHOUT_WARMUP = (SchedulerType.CONSTANT, SchedulerType.REDUCE_ON_PLATEAU, SchedulerType.GREEDY)
# Parameters that multiply others: that of the gate of relative positions, and the norms of weight normalisation.
FACTORS = ("gru_rel_pos_const", "parametrizations.weight.original0", "weight_g")


class CodebookCollapseError(BeatsError):
    """Collapse of a codebook: a tokenizer in training uses next to none of its codes."""


class SeedEachProcess(TrainerCallback):
    """
    Seeds each process differently: `Trainer` seeds all alike, so that their clips would share masks and dropout. Runs
    once the model is made; the states of a checkpoint are restored after it.
    """

    def on_train_begin(self, args, state, control, **kwargs):
        if args.process_index > 0:
            torch.manual_seed(args.seed + args.process_index)


class EpochOfData(TrainerCallback):
    """
    Tells samplers and datasets their epoch: accelerate does not where several processes go on within an epoch, which
    would then have the order of the first one, and tells a dataset only if the sampler takes none.
    """

    def on_epoch_begin(self, args, state, control, train_dataloader: Any = None, **kwargs):
        sampler = getattr(train_dataloader, "batch_sampler", None)
        while sampler is not None:
            if hasattr(sampler, "set_epoch"):
                sampler.set_epoch(int(state.epoch or 0))
            sampler = getattr(sampler, "batch_sampler", None) or getattr(sampler, "sampler", None)
        dataset = getattr(train_dataloader, "dataset", None)
        if hasattr(dataset, "set_epoch"):
            dataset.set_epoch(int(state.epoch or 0))


class WarnOfWarmup(TrainerCallback):
    """Says where a training is over before its learning rate has risen to what was asked for."""

    name, target = "warmup_steps", "learning_rate"

    def count_steps(self, args: TrainingArguments, max_steps: int) -> float:
        """Returns the number of steps of the warm-up."""
        return 0 if args.lr_scheduler_type in WITHOUT_WARMUP else args.get_warmup_steps(max_steps)

    def on_train_begin(self, args, state, control, **kwargs):
        warmup = self.count_steps(args, state.max_steps)
        if warmup > state.max_steps and state.is_world_process_zero:
            logger.warning_once(
                f"`{self.name}` is {warmup:g}, but the training has {state.max_steps} step(s): `{self.target}` is "
                "never reached. Set fewer steps, or a share, such as 0.1."
            )


class WaveformTrainer(Trainer):
    """
    [`Trainer`] that computes the fbank on the training device.

    Args:
        feature_extractor ([`BeatsFeatureExtractor`]):
            Feature extractor for the waveforms of the collator; a batch of ready features is left alone.
    """

    def __init__(self, *args, feature_extractor: BeatsFeatureExtractor, **kwargs):
        super().__init__(*args, **kwargs)
        self.feature_extractor = feature_extractor
        self.add_callback(SeedEachProcess())
        self.add_callback(EpochOfData())
        self.add_callback(WarnOfWarmup())
        print_lines(self)

    def train(self, *args, **kwargs):
        # Of checkpoints that were written within a second: their numbers tell the order as well.
        with hold_back("transformers.trainer_utils", "mtime may not be reliable"):
            return super().train(*args, **kwargs)

    def _get_dataloader(self, *args, **kwargs):
        loader = super()._get_dataloader(*args, **kwargs)
        # Otherwise the start of an iteration, also of an evaluation, draws from the random numbers of the model, and
        # an interrupted training would go on with other ones.
        generator = torch.Generator().manual_seed(self.args.seed)
        # That of accelerate contains one of PyTorch.
        for each in (loader, getattr(loader, "base_dataloader", loader)):
            each.generator = generator
        return loader

    def _get_eval_sampler(self, eval_dataset):
        # In order, whatever the order of the training: metrics belong to their clips.
        return None

    def get_decay_parameter_names(self, model) -> list[str]:
        """
        Returns the names of the parameters with weight decay: no biases, norms, tables of relative positions, or
        factors, whose neutral value is not zero.
        """
        return [name for name in super().get_decay_parameter_names(model) if not name.endswith(FACTORS)]

    def _prepare_input(self, data):
        # `Trainer` would give audio and fbank DeepSpeed's precision, which is for the model.
        return data.to(self.args.device) if isinstance(data, torch.Tensor) else super()._prepare_input(data)

    def _prepare_inputs(self, inputs):
        return featurize(super()._prepare_inputs(inputs), self.feature_extractor, self.args.device)

    def _save_checkpoint(self, *args, **kwargs):
        if self.state.global_step >= self.state.max_steps:
            # Another attempt would go on from there, and write the model.
            self.check_rest()
        super()._save_checkpoint(*args, **kwargs)

    def _save_rng_state(self, output_dir) -> None:
        super()._save_rng_state(output_dir)
        # The state of `Trainer` says that a checkpoint is complete: it comes after those of all processes.
        self.accelerator.wait_for_everyone()

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Adds the measures of [`add_measures`]; raises a [`DivergenceError`] for a loss that is not finite."""
        # In a search on several processes, one alone would go on to the next trial; Optuna leaves out its value.
        if self.hp_search_backend is None or self.args.world_size == 1:
            for name, title in (("loss", "loss"), ("eval_loss", "validation loss")):
                if not math.isfinite(value := logs.get(name, 0.0)):
                    raise self._divergence(f"the {title} is {value}")
        self.add_measures(logs)
        super().log(logs, start_time)

    def add_measures(self, logs: dict[str, float]) -> None:
        """Adds measures to a log, and raises an error that ought to end the run; called on every process."""

    def check_rest(self) -> None:
        """
        Raises an error that ought to end the run; called on every process after the last step, before its checkpoint
        is written.
        """

    def check_weights(self) -> None:
        """Raises a [`DivergenceError`], on every process, for a model with weights that are not finite."""
        model: Any = self.model
        values = itertools.chain(model.parameters(), model.buffers())
        count = torch.tensor(0, device=self.args.device)
        for value in values:
            if value.is_floating_point() and not torch.isfinite(value.detach()).all():
                count += 1
        if self.args.world_size > 1:
            # Each may have a part of the weights.
            count = self.accelerator.reduce(count)
        if count > 0:
            raise self._divergence("weights are not finite")

    def _divergence(self, found: str) -> DivergenceError:
        """Returns the error of a training that has diverged."""
        precision = "".join(f", or leave `{name}` out" for name in ("bf16", "fp16") if getattr(self.args, name))
        return DivergenceError(
            f"The training has diverged, at step {self.state.global_step} {found}: set a lower `learning_rate`"
            f"{precision}."
        )


class BeatsTrainer(WaveformTrainer):
    """[`WaveformTrainer`] for the objectives of pre-training, which also logs the measures of the model."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        # Sums over the steps since the last log, for training and for evaluation.
        self._sums: dict[bool, dict[str, torch.Tensor]] = {True: {}, False: {}}
        self._counts: dict[bool, dict[str, int]] = {True: defaultdict(int), False: defaultdict(int)}
        self._checkpoint: Path | None = None
        self.add_callback(EpochOfStream())

    def train(self, resume_from_checkpoint=None, *args, **kwargs):
        if isinstance(self.train_dataset, StreamingCrops) and resume_from_checkpoint is not None:
            # `Trainer` would decode all clips up to there: the stream itself goes on where it was.
            self._checkpoint, self.args.ignore_data_skip = Path(resume_from_checkpoint), True
        return super().train(resume_from_checkpoint, *args, **kwargs)

    def get_train_dataloader(self):
        crops = self.train_dataset
        if not isinstance(crops, StreamingCrops):
            return super().get_train_dataloader()
        # Not through accelerate, which would have the first process decode for all.
        return build_stream_loader(self, crops, self._checkpoint)

    def _save_checkpoint(self, *args, **kwargs):
        # Whatever asked for the checkpoint.
        if isinstance(loader := self.callback_handler.train_dataloader, StreamLoader):
            keep_positions(self.state, loader)
        super()._save_checkpoint(*args, **kwargs)

    def _get_train_sampler(self, train_dataset=None):
        dataset = self.train_dataset
        sampler = (
            mixture_sampler(dataset, self.args.seed) if isinstance(dataset, (CropDataset, FbankDataset)) else None
        )
        return super()._get_train_sampler(train_dataset) if sampler is None else sampler

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        outputs = model(**inputs)
        measured = {"loss": outputs["loss"], **self.measure(outputs, inputs)}
        if self.args.world_size > 1:
            # A mean over processes follows: with this, every patch (or clip) counts alike, wherever it is.
            num_counted = self.num_counted(outputs).float()
            weight = num_counted * self.args.world_size / self.accelerator.reduce(num_counted).clamp(min=1)
            measured = {name: value if name == "code_counts" else value * weight for name, value in measured.items()}
        loss = measured.pop("loss")
        sums, counts = self._sums[model.training], self._counts[model.training]
        for name, value in measured.items():
            sums[name] = sums[name] + value.detach() if name in sums else value.detach()
            counts[name] += 1
        return (loss, outputs) if return_outputs else loss

    def measure(self, outputs: Mapping, inputs: Mapping) -> dict[str, torch.Tensor]:
        """Returns scalars to average, and under `code_counts` a histogram to add up, until the next log."""
        raise NotImplementedError

    def num_counted(self, outputs: Mapping) -> torch.Tensor:
        """Returns the number of patches, or of clips, that the loss is a mean over."""
        raise NotImplementedError

    def prediction_step(self, model, inputs, prediction_loss_only, ignore_keys=None):
        inputs = self._prepare_inputs(inputs)
        # Every evaluation hides the same patches, whatever happened before.
        with torch.no_grad(), torch.random.fork_rng(), self.compute_loss_context_manager():
            torch.manual_seed(self.args.seed)
            loss = self.compute_loss(model, inputs)
        return loss.detach(), None, None

    def add_measures(self, logs: dict[str, float]) -> None:
        """Adds the measures of the model since the last log, averaged over steps and processes."""
        is_evaluation = "eval_loss" in logs
        if is_evaluation or "loss" in logs:
            measured = self._collect(is_training=not is_evaluation)
            self._sums[not is_evaluation].clear()
            self._counts[not is_evaluation].clear()
            logs |= {f"eval_{name}" if is_evaluation else name: value for name, value in measured.items()}
            self.check(measured)

    def check(self, measured: dict[str, float]) -> None:
        """Raises an error that ought to end the run; called on every process before a log."""

    def check_rest(self) -> None:
        """Runs [`check`] for the steps after the last log."""
        if measured := self._collect(is_training=True):
            self.check(measured)

    def _collect(self, is_training: bool) -> dict[str, float]:
        """Returns the measures since the last log; called on every process."""
        sums, counts = self._sums[is_training], self._counts[is_training]
        measured = {}
        for name, value in sums.items():
            if self.args.world_size > 1:
                value = self.accelerator.reduce(value, reduction="sum")
            if name != "code_counts":
                measured[name] = value.item() / (counts[name] * self.args.world_size)
                continue
            # Of several codebooks the mean.
            frequencies = value / value.sum(dim=-1, keepdim=True).clamp(min=1)
            entropies = torch.special.entr(frequencies).sum(dim=-1)
            # In nats, as the loss is: what guessing by frequency alone would cost.
            measured["code_entropy"] = entropies.mean().item()
            measured["code_perplexity"] = entropies.exp().mean().item()
            measured["codes_alive"] = (value > 0).float().mean().item()
        return measured


class BeatsPreTrainer(BeatsTrainer):
    """
    [`BeatsTrainer`] of masked acoustic modelling with `BeatsForPreTraining`. Logs `accuracy` on the masked patches,
    and the entropy, the perplexity and the share of codes alive of the labels.

    Args:
        tokenizer (`PreTrainedModel`, *optional*):
            Tokenizer that computes the codes of batches without `labels`.
        mixture_probability (`float`, defaults to 0.0):
            Share of the clips that are mixed with another one, see [`mix_clips`]; in training only.
    """

    def __init__(self, *args, tokenizer: PreTrainedModel | None = None, mixture_probability: float = 0.0, **kwargs):
        super().__init__(*args, **kwargs)
        self.tokenizer = None if tokenizer is None else tokenizer.requires_grad_(False).eval().to(self.args.device)
        self.mixture_probability = mixture_probability

    def _prepare_inputs(self, inputs):
        inputs = super()._prepare_inputs(inputs)
        if "labels" not in inputs:
            if self.tokenizer is None:
                raise BeatsError("The batch has no codes: pass `codes` from `tokenize`, or a `tokenizer`.")
            with torch.no_grad(), self.accelerator.autocast():
                codes = self.tokenizer(inputs["input_values"], attention_mask=inputs["attention_mask"]).audio_codes
            inputs["labels"] = codes
        if self.mixture_probability and self.model is not None and self.model.training:
            inputs = mix_clips(inputs, self.feature_extractor, self.mixture_probability)
        return inputs

    def measure(self, outputs: Mapping, inputs: Mapping) -> dict[str, torch.Tensor]:
        labels = inputs["labels"]
        logits, is_code = outputs["logits"], labels >= 0
        # Labels of several codebooks have a dimension more, and those of a patch all count or none.
        is_patch = is_code[..., 0] if logits.ndim == 4 else is_code
        counts, _ = code_usage(labels.clamp(min=0), is_patch, logits.shape[-1])
        return {"accuracy": outputs["accuracy"], "code_counts": counts}

    def num_counted(self, outputs: Mapping) -> torch.Tensor:
        return (outputs["masked_positions"] != -100).sum()


class BeatsTokenizerTrainer(BeatsTrainer):
    """
    [`BeatsTrainer`] of `BeatsTokenizerForPreTraining`. Logs both losses and the usage of the codes.

    Args:
        teacher ([`BeatsModel`] or [`BeatsForAudioClassification`]):
            Teacher whose last hidden state, or as a classifier logits of each patch, the estimator learns.
        layers (`list[int]`, *optional*), normalization (`str`, *optional*):
            Choices of [`teacher_outputs`].
        min_perplexity (`float`, defaults to 2.0):
            Least perplexity of the codes between two logs; below, the run ends with a [`CodebookCollapseError`].
    """

    def __init__(
        self,
        *args,
        teacher: PreTrainedModel,
        layers: list[int] | None = None,
        normalization: str | None = None,
        min_perplexity: float = 2.0,
        **kwargs,
    ):
        super().__init__(*args, **kwargs)
        self.teacher = teacher.requires_grad_(False).eval().to(self.args.device)
        self.min_perplexity = min_perplexity
        self.targets: dict[str, Any] = {"layers": layers, "normalization": normalization}

    def _prepare_inputs(self, inputs):
        inputs = super()._prepare_inputs(inputs)
        with torch.no_grad(), self.accelerator.autocast():
            inputs["teacher_outputs"] = teacher_outputs(
                self.teacher, inputs["input_values"], inputs["attention_mask"], **self.targets
            )
        return inputs

    def measure(self, outputs: Mapping, inputs: Mapping) -> dict[str, torch.Tensor]:
        return {name: outputs[name] for name in ("distillation_loss", "commitment_loss", "code_counts")}

    def num_counted(self, outputs: Mapping) -> torch.Tensor:
        return outputs["code_counts"].sum()

    def check(self, measured: dict[str, float]) -> None:
        perplexity = measured["code_perplexity"]
        if perplexity < self.min_perplexity:
            raise CodebookCollapseError(
                f"The codebook collapsed: at step {self.state.global_step} the codes have a perplexity of "
                f"{perplexity:.2f}, less than `min_perplexity` ({self.min_perplexity:g}), and "
                f"{measured['codes_alive']:.1%} of them are in use. Try a longer warm-up, a smaller learning rate, or "
                "`config.dead_code_threshold`."
            )


def teacher_outputs(
    teacher: PreTrainedModel,
    input_values: torch.Tensor,
    attention_mask: torch.Tensor | None,
    layers: list[int] | None = None,
    normalization: str | None = None,
) -> torch.Tensor:
    """
    Returns the outputs of a teacher for each patch, which a tokenizer is to learn: the last hidden state
    `(batch_size, num_patches, hidden_size)` of a [`BeatsModel`]; the logits `(batch_size, num_patches, num_labels)` of
    a [`BeatsForAudioClassification`], whose mean are the classifier's. Inputs are those of the models.

    Args:
        layers (`list[int]`, *optional*):
            Hidden states of a [`BeatsModel`] whose mean is returned, 0 being the input of the first layer.
        normalization (`"layer_norm"` or `"center"`, *optional*):
            With `"layer_norm"` every output for a patch has zero mean and unit variance before that mean, as in
            data2vec (Baevski et al., 2022); with `"center"` the mean of each band, over time and clips of the batch,
            is subtracted.

    Raises:
        [`BeatsError`]: if the teacher is another model, or has no such layers.
    """
    check_teacher(teacher, layers)
    if isinstance(teacher, BeatsForAudioClassification):
        outputs, hidden_states = teacher.encode(input_values, attention_mask)
        states = [teacher.classifier(hidden_states)]
    else:
        outputs = teacher(input_values, attention_mask=attention_mask, output_hidden_states=layers is not None)
        states = [outputs.last_hidden_state] if layers is None else [outputs.hidden_states[layer] for layer in layers]
    mean = mean_of_states(states, normalization)
    if normalization != "center":
        return mean
    num_bands = teacher.config.num_freq_patches
    return center_bands(mean, outputs["patch_attention_mask"], num_bands)


def mean_of_states(states: list[torch.Tensor], normalization: str | None = None) -> torch.Tensor:
    """
    Returns the mean of layers' states of one shape; with the `normalization` `"layer_norm"`, each state of a patch has
    zero mean and unit variance before it, and is float32.
    """
    if normalization == "layer_norm":
        states = [nn.functional.layer_norm(at_least_float32(values), values.shape[-1:]) for values in states]
    return states[0] if len(states) == 1 else torch.stack(states).mean(dim=0)


def center_bands(states: torch.Tensor, mask: torch.Tensor, num_bands: int) -> torch.Tensor:
    """
    Returns `states` `(batch_size, num_patches, dim)` less the mean of their band, over the patches of the batch where
    `mask` `(batch_size, num_patches)` is true; float32.
    """
    grid = at_least_float32(states).unflatten(1, (-1, num_bands))
    weights = mask.unflatten(1, (-1, num_bands)).unsqueeze(-1)
    means = (grid * weights).sum(dim=(0, 1)) / weights.sum(dim=(0, 1)).clamp(min=1)
    return (grid - means).flatten(1, 2)


def check_teacher(teacher: PreTrainedModel, layers: list[int] | None) -> None:
    """Raises a [`BeatsError`] for a model that is no teacher, and for layers that it does not have."""
    if not isinstance(teacher, (BeatsModel, BeatsForAudioClassification)):
        raise BeatsError(f"A teacher is a BeatsModel or a BeatsForAudioClassification, got {type(teacher).__name__}.")
    if isinstance(teacher, BeatsForAudioClassification) and not teacher.config.scores_patches:
        raise BeatsError(
            "A teacher has logits of patches, and the classifier of this one has none (`classifier_pooling` is "
            f"{teacher.config.classifier_pooling}): load it as an encoder, or take another."
        )
    if layers is None:
        return
    if isinstance(teacher, BeatsForAudioClassification):
        raise BeatsError(
            "`teacher_layers` are those of an encoder, and a classifier teaches its logits: leave them out."
        )
    check_layers(layers, teacher)


def check_layers(layers: list[int] | None, teacher: PreTrainedModel) -> None:
    """Raises a [`UsageError`] for `teacher_layers` that a teacher does not have."""
    try:
        choose_layers([-1] if layers is None else layers, teacher.config.num_hidden_layers)
    except UsageError as error:
        raise UsageError(f"`teacher_layers`: {error}") from None
