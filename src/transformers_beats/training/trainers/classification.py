# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""`Trainer` of a classifier."""

import math
from pathlib import Path
from typing import Any

from torch import nn
from transformers import EarlyStoppingCallback, TrainerCallback, TrainingArguments
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from transformers_beats.training.data.augmentation import (
    AugmentationArguments,
    BalancedSampler,
    LengthSampler,
    augment,
    augment_fbank,
    balanced_sample_weights,
)
from transformers_beats.utils.errors import BeatsError

from .averaging import WeightAverage
from .layerwise import layerwise_parameter_groups, multiply_gradients
from .pretraining import WaveformTrainer


class StopAtEpoch(TrainerCallback):
    """Ends a training after an epoch; the learning rate follows the schedule of the whole training until then."""

    def __init__(self, epoch: float):
        self.epoch = epoch

    def on_step_end(self, args, state, control, **kwargs):
        # Epochs are sums of fractions.
        if state.epoch is not None and state.epoch > self.epoch - 1e-6:
            control.should_training_stop = True


def best_metric(args: TrainingArguments) -> str:
    """Returns the name that an evaluation gives to the metric by which the best model is chosen."""
    return f"eval_{(args.metric_for_best_model or 'loss').removeprefix('eval_')}"


class StopEarly(EarlyStoppingCallback):
    """Ends a training after evaluations that are not better, as those are in which the metric is undefined."""

    def on_evaluate(self, args, state, control, metrics, **kwargs):
        # Without a value, it would be silent about early stopping from then on.
        super().on_evaluate(args, state, control, {best_metric(args): math.nan} | metrics, **kwargs)


class ClassificationTrainer(WaveformTrainer):
    """
    [`WaveformTrainer`] of a classifier, with augmentation, balanced sampling and layer-wise decay.

    Args:
        augmentation ([`AugmentationArguments`], *optional*):
            Augmentation of the batches of training.
        learning_rate_decay (`float`, defaults to 1.0):
            Factor of the learning rate from a layer to the one before it.
        gradient_decay (`float`, defaults to 1.0):
            Factor of the gradient from a layer to the one before it, the reference's
            `layer_wise_gradient_decay_ratio`.
        weight_average ([`WeightAverage`], *optional*):
            Moving average of the weights, with which the model is evaluated.

    Raises:
        [`BeatsError`]: for a moving average with FSDP or DeepSpeed.
    """

    def __init__(
        self,
        *args,
        augmentation: AugmentationArguments | None = None,
        learning_rate_decay: float = 1.0,
        gradient_decay: float = 1.0,
        weight_average: WeightAverage | None = None,
        **kwargs,
    ):
        # Read by `call_model_init`.
        self.gradient_decay = gradient_decay
        super().__init__(*args, **kwargs)
        self.weight_average = weight_average
        if weight_average is not None:
            if self.is_fsdp_enabled or self.is_deepspeed_enabled:
                raise BeatsError(
                    "`ema_decay` is not for FSDP and DeepSpeed, which divide the weights among devices: leave it out, "
                    "or train without them."
                )
            self.add_callback(weight_average)
        self.augmentation = augmentation or AugmentationArguments()
        self.learning_rate_decay = learning_rate_decay
        if gradient_decay != 1.0 and self.model_init is None:
            multiply_gradients(self.classifier, gradient_decay)

    def call_model_init(self, trial=None):
        model = super().call_model_init(trial)
        if self.gradient_decay != 1.0:
            multiply_gradients(model, self.gradient_decay)
        return model

    def evaluate(self, *args, **kwargs):
        # An undefined metric is missing: what chooses the best model and the learning rate needs a value, and none is
        # better than another by this one. It is not logged.
        return {best_metric(self.args): math.nan} | super().evaluate(*args, **kwargs)

    def evaluation_loop(self, *args, **kwargs):
        if self.weight_average is None:
            return super().evaluation_loop(*args, **kwargs)
        with self.weight_average.applied(self.classifier):
            return super().evaluation_loop(*args, **kwargs)

    def use_weight_average(self) -> None:
        """Sets the weights, once and for all, to their moving average: that of the best checkpoint, or the last."""
        if self.weight_average is not None:
            best = self.state.best_model_checkpoint if self.args.load_best_model_at_end else None
            if best:
                self.weight_average.load(Path(best))
            elif not self.weight_average.values:
                # The training had ended before.
                step = f"{PREFIX_CHECKPOINT_DIR}-{self.state.global_step}"
                self.weight_average.load(Path(str(self.args.output_dir)) / step)
            self.weight_average.copy_to(self.classifier)
            self.weight_average = None

    def _save_checkpoint(self, model, trial):
        if self.weight_average is not None and self.is_world_process_zero():
            # Before the state of `Trainer`, which says that a checkpoint is complete.
            step = f"{PREFIX_CHECKPOINT_DIR}-{self.state.global_step}"
            self.weight_average.save(Path(str(self.args.output_dir)) / step)
        super()._save_checkpoint(model, trial)

    @property
    def classifier(self) -> nn.Module:
        """Model that is trained; `Trainer` knows cases in which there is none yet."""
        if self.model is None:
            raise RuntimeError("The trainer has no model.")
        return self.model

    def _prepare_inputs(self, inputs):
        if not self.classifier.training:
            return super()._prepare_inputs(inputs)
        inputs = super()._prepare_inputs(augment(inputs, self.augmentation, self.args.device))
        values, mask = inputs["input_values"], inputs["attention_mask"]
        inputs["input_values"] = augment_fbank(values, mask, self.augmentation, self.feature_extractor.fbank_std)
        return inputs

    def _get_dataloader(self, *args, is_training=False, **kwargs):
        drop_last = self.args.dataloader_drop_last
        # An evaluation without its last clips would be another one.
        self.args.dataloader_drop_last = drop_last and is_training
        try:
            return super()._get_dataloader(*args, is_training=is_training, **kwargs)
        finally:
            self.args.dataloader_drop_last = drop_last

    def _get_train_sampler(self, train_dataset=None):
        crops: Any = self.train_dataset
        if not self.augmentation.balanced_sampling:
            if self.args.train_sampling_strategy != "group_by_length":
                return super()._get_train_sampler(train_dataset)
            batch_size = self.args.train_batch_size * self.args.gradient_accumulation_steps
            return LengthSampler(batch_size, crops.lengths.tolist(), self.args.seed)
        labels = crops.targets.labels
        per_clip = balanced_sample_weights([labels.classes_of(index) for index in range(len(labels))])
        return BalancedSampler(per_clip[crops.clip_of], num_samples=len(crops), seed=self.args.seed)

    def create_optimizer(self, model=None):
        if self.optimizer is None and self.learning_rate_decay != 1.0:
            args = self.args
            groups = layerwise_parameter_groups(
                self.classifier, args.learning_rate, args.weight_decay, self.learning_rate_decay
            )
            optimizer_class, kwargs = self.get_optimizer_cls_and_kwargs(args)
            self.optimizer = optimizer_class(groups, **kwargs)
        return super().create_optimizer(model)
