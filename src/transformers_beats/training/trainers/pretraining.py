# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""What transformers' `Trainer` needs for the two objectives of pre-training, and how a stage ends or goes on."""

import json
import shutil
from collections import defaultdict
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from transformers import PreTrainedModel, Trainer, TrainerCallback
from transformers.trainer import TRAINING_ARGS_NAME
from transformers.trainer_callback import TrainerState
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from transformers_beats.feature_extraction_beats import BeatsFeatureExtractor
from transformers_beats.modeling_beats import BeatsForAudioClassification, BeatsModel
from transformers_beats.modeling_beats_tokenizer import code_usage
from transformers_beats.training.data.crops import featurize
from transformers_beats.utils.files import replace_directory, replace_file


TRAINER_STATE = "trainer_state.json"
LOG_HISTORY = "log_history.json"
SETTINGS = "settings.json"


class CodebookCollapseError(RuntimeError):
    """A tokenizer in training uses next to none of its codes."""


class SeedEachProcess(TrainerCallback):
    """
    `Trainer` seeds all processes alike, so that their clips would share masks and dropout. Runs once the model is
    made; the states of a checkpoint are restored after it.
    """

    def on_train_begin(self, args, state, control, **kwargs):
        if args.process_index > 0:
            torch.manual_seed(args.seed + args.process_index)


class WaveformTrainer(Trainer):
    """
    A [`Trainer`] that computes the fbank on the training device.

    Args:
        feature_extractor ([`BeatsFeatureExtractor`]):
            Turns the waveforms of the collator into the model's input; a batch of ready features is left alone.
        kwargs:
            See [`Trainer`].
    """

    def __init__(self, *args, feature_extractor: BeatsFeatureExtractor, **kwargs):
        super().__init__(*args, **kwargs)
        self.feature_extractor = feature_extractor
        self.add_callback(SeedEachProcess())

    def _prepare_input(self, data):
        # `Trainer` would give audio and fbank DeepSpeed's precision, which is for the model.
        return data.to(self.args.device) if isinstance(data, torch.Tensor) else super()._prepare_input(data)

    def _prepare_inputs(self, inputs):
        return featurize(super()._prepare_inputs(inputs), self.feature_extractor, self.args.device)

    def check_rest(self) -> None:
        """Called on every process after the last step; raises what ought to end the run."""


class BeatsTrainer(WaveformTrainer):
    """A [`WaveformTrainer`] for the objectives of pre-training, which logs what the model counts."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        # Sums over the steps since the last log, for training and for evaluation.
        self._sums: dict[bool, dict[str, torch.Tensor]] = {True: {}, False: {}}
        self._counts: dict[bool, dict[str, int]] = {True: defaultdict(int), False: defaultdict(int)}

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        outputs = model(**inputs)
        measured = {"loss": outputs["loss"], **self.measure(outputs, inputs)}
        if self.args.world_size > 1:
            # A mean over processes follows: with this, every patch counts alike, wherever it is.
            num_patches = self.num_patches(outputs).float()
            weight = num_patches * self.args.world_size / self.accelerator.reduce(num_patches).clamp(min=1)
            measured = {name: value if name == "code_counts" else value * weight for name, value in measured.items()}
        loss = measured.pop("loss")
        sums, counts = self._sums[model.training], self._counts[model.training]
        for name, value in measured.items():
            sums[name] = sums[name] + value.detach() if name in sums else value.detach()
            counts[name] += 1
        return (loss, outputs) if return_outputs else loss

    def measure(self, outputs: Mapping, inputs: Mapping) -> dict[str, torch.Tensor]:
        """Scalars to average, and under `code_counts` a histogram to add up, until the next log."""
        raise NotImplementedError

    def num_patches(self, outputs: Mapping) -> torch.Tensor:
        """How many patches the loss is a mean over."""
        raise NotImplementedError

    def prediction_step(self, model, inputs, prediction_loss_only, ignore_keys=None):
        inputs = self._prepare_inputs(inputs)
        # Every evaluation hides the same patches, whatever happened before.
        with torch.no_grad(), torch.random.fork_rng(), self.compute_loss_context_manager():
            torch.manual_seed(self.args.seed)
            loss = self.compute_loss(model, inputs)
        return loss.detach(), None, None

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Adds what the model measured since the last log, averaged over steps and processes."""
        is_evaluation = "eval_loss" in logs
        if is_evaluation or "loss" in logs:
            measured = self._collect(is_training=not is_evaluation)
            logs |= {f"eval_{name}" if is_evaluation else name: value for name, value in measured.items()}
            self.check(measured)
        super().log(logs, start_time)

    def check(self, measured: dict[str, float]) -> None:
        """Called on every process before a log; raises what ought to end the run."""

    def check_rest(self) -> None:
        """[`check`] of the steps after the last log."""
        if measured := self._collect(is_training=True):
            self.check(measured)

    def _collect(self, is_training: bool) -> dict[str, float]:
        sums, counts = self._sums[is_training], self._counts[is_training]
        measured = {}
        for name, value in sums.items():
            if self.args.world_size > 1:
                value = self.accelerator.reduce(value, reduction="sum")
            if name != "code_counts":
                measured[name] = value.item() / (counts[name] * self.args.world_size)
                continue
            frequencies = value / value.sum().clamp(min=1)
            # In nats, as the loss is: what guessing by frequency alone would cost.
            measured["code_entropy"] = torch.special.entr(frequencies).sum().item()
            measured["code_perplexity"] = torch.special.entr(frequencies).sum().exp().item()
            measured["codes_alive"] = (value > 0).float().mean().item()
        sums.clear()
        counts.clear()
        return measured


class BeatsPreTrainer(BeatsTrainer):
    """
    Masked acoustic modelling with `BeatsForPreTraining`. Logs `accuracy` on the masked patches, and the entropy, the
    perplexity and the share of codes alive of the labels.

    Args:
        tokenizer (`PreTrainedModel`, *optional*):
            Computes the codes of batches that come without `labels`.
    """

    def __init__(self, *args, tokenizer: PreTrainedModel | None = None, **kwargs):
        super().__init__(*args, **kwargs)
        self.tokenizer = None if tokenizer is None else tokenizer.requires_grad_(False).eval().to(self.args.device)

    def _prepare_inputs(self, inputs):
        inputs = super()._prepare_inputs(inputs)
        if "labels" not in inputs:
            if self.tokenizer is None:
                raise ValueError("The batch has no codes: pass `codes` from `tokenize`, or a `tokenizer`.")
            with torch.no_grad(), self.accelerator.autocast():
                codes = self.tokenizer(inputs["input_values"], attention_mask=inputs["attention_mask"]).audio_codes
            inputs["labels"] = codes
        return inputs

    def measure(self, outputs: Mapping, inputs: Mapping) -> dict[str, torch.Tensor]:
        labels = inputs["labels"]
        codebook_size = outputs["logits"].shape[-1]
        counts, _ = code_usage(labels.clamp(min=0), labels >= 0, codebook_size)
        return {"accuracy": outputs["accuracy"], "code_counts": counts}

    def num_patches(self, outputs: Mapping) -> torch.Tensor:
        return (outputs["masked_positions"] != -100).sum()


class BeatsTokenizerTrainer(BeatsTrainer):
    """
    Training of `BeatsTokenizerForPreTraining`. Logs both losses and the usage of the codes.

    Args:
        teacher ([`BeatsModel`] or [`BeatsForAudioClassification`]):
            The estimator learns its last hidden state or, of a fine-tuned classifier, its logits for each patch.
        min_perplexity (`float`, defaults to 2.0):
            The run ends with a [`CodebookCollapseError`] if the codes between two logs have less.
    """

    def __init__(self, *args, teacher: PreTrainedModel, min_perplexity: float = 2.0, **kwargs):
        super().__init__(*args, **kwargs)
        self.teacher = teacher.requires_grad_(False).eval().to(self.args.device)
        self.min_perplexity = min_perplexity

    def _prepare_inputs(self, inputs):
        inputs = super()._prepare_inputs(inputs)
        with torch.no_grad(), self.accelerator.autocast():
            inputs["teacher_outputs"] = teacher_outputs(self.teacher, inputs["input_values"], inputs["attention_mask"])
        return inputs

    def measure(self, outputs: Mapping, inputs: Mapping) -> dict[str, torch.Tensor]:
        return {name: outputs[name] for name in ("distillation_loss", "commitment_loss", "code_counts")}

    def num_patches(self, outputs: Mapping) -> torch.Tensor:
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


def teacher_outputs(teacher: PreTrainedModel, input_values: torch.Tensor, attention_mask: torch.Tensor | None):
    """
    What a tokenizer is to learn from its teacher, for each patch.

    Args:
        teacher ([`BeatsModel`] or [`BeatsForAudioClassification`]):
            In evaluation mode.
        input_values (`torch.FloatTensor` of shape `(batch_size, num_frames, num_mel_bins)`):
            Normalised filter banks.
        attention_mask (`torch.Tensor` of shape `(batch_size, num_frames)`, *optional*):
            1 for frames of audio.

    Returns:
        `torch.FloatTensor` of shape `(batch_size, num_patches, hidden_size)`: the last hidden state; or of shape
        `(batch_size, num_patches, num_labels)`: the logits of each patch, whose mean are the classifier's.
    """
    if isinstance(teacher, BeatsForAudioClassification):
        _, hidden_states = teacher.encode(input_values, attention_mask)
        return teacher.classifier(hidden_states)
    if not isinstance(teacher, BeatsModel):
        raise ValueError(f"A teacher is a BeatsModel or a BeatsForAudioClassification, got {type(teacher).__name__}.")
    return teacher(input_values, attention_mask=attention_mask).last_hidden_state


def last_complete_checkpoint(directory: Path) -> Path | None:
    """
    The newest checkpoint of a run that was written to its end, if any. `Trainer` writes its state last, so one whose
    state cannot be read was cut off.
    """
    checkpoints = []
    for path in directory.glob(f"{PREFIX_CHECKPOINT_DIR}-*"):
        try:
            state = TrainerState.load_from_json(str(path / TRAINER_STATE))
        except (OSError, ValueError, TypeError):
            continue
        checkpoints.append((state.global_step, path))
    return max(checkpoints)[1] if checkpoints else None


def training_directory(output_dir: Path) -> Path:
    """Where a stage keeps checkpoints and logs, beside the model that it is to write."""
    return output_dir.with_name(f"{output_dir.name}.training")


def check_settings(directory: Path, settings: dict) -> None:
    """
    Notes the settings of a training in its directory.

    Raises:
        `ValueError`: if the directory holds a training with others, which its checkpoints would go on with.
    """
    path, settings = directory / SETTINGS, json.loads(json.dumps(settings, default=str))
    try:
        earlier = json.loads(path.read_text(encoding="utf-8"))
    except OSError:
        directory.mkdir(parents=True, exist_ok=True)
        with replace_file(path) as temporary:
            temporary.write_text(json.dumps(settings, indent=1), encoding="utf-8")
        return
    for name in sorted(settings.keys() | earlier.keys()):
        if settings.get(name) != earlier.get(name):
            raise ValueError(
                f"{directory} holds a training with `{name}: {earlier.get(name)}`, now it is {settings.get(name)}: "
                "remove the directory to begin anew."
            )


def train_and_save(
    trainer: WaveformTrainer,
    output_dir: Path,
    settings: dict,
    finish: Callable[[Path], None] | None = None,
) -> None:
    """
    Trains, from the last complete checkpoint beside `output_dir` on if there is one, and writes model,
    feature extractor and `log_history.json` to `output_dir`, which appears when it is complete.

    Args:
        trainer ([`WaveformTrainer`]):
            Its `args.output_dir` is the [`training_directory`] of `output_dir`.
        output_dir (`Path`):
            Where the result goes.
        settings (`dict`):
            What must not change between an interrupted training and its continuation.
        finish (`Callable[[Path], None]`, *optional*):
            Called on every process once the model is trained, with the directory that becomes `output_dir`. It writes
            the model there instead of [`~transformers.Trainer.save_model`], and whatever else belongs to it.

    Raises:
        `ValueError`: if an interrupted training had other settings.
        [`CodebookCollapseError`]: see [`BeatsTokenizerTrainer`].
    """
    directory = training_directory(output_dir)
    if trainer.is_world_process_zero():
        check_settings(directory, settings)
    checkpoint = last_complete_checkpoint(directory)
    trainer.accelerator.wait_for_everyone()
    state = TrainerState.load_from_json(str(checkpoint / TRAINER_STATE)) if checkpoint else None
    if state is not None and state.global_step >= state.max_steps:
        # Interrupted between its last step and here; `Trainer` would do one step more.
        best = state.best_model_checkpoint if trainer.args.load_best_model_at_end else None
        trainer._load_from_checkpoint(best if best and Path(best).exists() else str(checkpoint))
        trainer.state = state
    else:
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        trainer.check_rest()
    final = directory / "final"
    if trainer.is_world_process_zero():
        # Of an earlier attempt.
        shutil.rmtree(final, ignore_errors=True)
    trainer.accelerator.wait_for_everyone()
    if finish is None:
        trainer.save_model(str(final))
    else:
        finish(final)
    if trainer.is_world_process_zero():
        trainer.feature_extractor.save_pretrained(final)
        for path in final.rglob(TRAINING_ARGS_NAME):
            path.unlink()
        (final / LOG_HISTORY).write_text(json.dumps(trainer.state.log_history, indent=1), encoding="utf-8")
        replace_directory(final, output_dir)
        # What is left are the logs for trackers.
        for path in directory.glob(f"{PREFIX_CHECKPOINT_DIR}-*"):
            shutil.rmtree(path, ignore_errors=True)
        (directory / SETTINGS).unlink(missing_ok=True)
        if not any(directory.iterdir()):
            directory.rmdir()
    trainer.accelerator.wait_for_everyone()


__all__ = [
    "BeatsPreTrainer",
    "BeatsTokenizerTrainer",
    "BeatsTrainer",
    "CodebookCollapseError",
    "WaveformTrainer",
    "last_complete_checkpoint",
    "teacher_outputs",
    "train_and_save",
    "training_directory",
]
