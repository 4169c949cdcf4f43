# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Low-rank adapters, with PEFT."""

from pathlib import Path
from typing import Any

from transformers import PreTrainedModel, Trainer

from transformers_beats.inference.loading import without_peft_warning
from transformers_beats.inference.models import HEAD_MODULES
from transformers_beats.utils.errors import BeatsError, install_command


# Beside the head, which is trained as it is: every linear layer of attention and feed-forward network.
DEFAULTS: dict[str, Any] = {
    "r": 8,
    "lora_alpha": 16,
    "target_modules": ["q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"],
}
ADAPTER = "adapter"


def check_peft() -> None:
    """Raises a [`BeatsError`] if PEFT is not installed."""
    try:
        import peft  # noqa: F401
    except ImportError as error:
        raise BeatsError(f"`lora` needs PEFT: {install_command('training')}") from error


def add_lora(model: PreTrainedModel, values: dict[str, Any]) -> Any:
    """
    Freezes the encoder of a classifier and adds low-rank adapters to it (Hu et al., 2021). `values` are fields of
    PEFT's `LoraConfig`, which go before the defaults of this module; the result is a `peft.PeftModel`.

    Raises:
        [`BeatsError`]: if PEFT is not installed, or does not accept the fields.
    """
    check_peft()
    from peft import LoraConfig, get_peft_model

    try:
        heads = [name for name in HEAD_MODULES if getattr(model, name, None) is not None]
        fields: dict[str, Any] = {"modules_to_save": heads} | DEFAULTS | values
        config = LoraConfig(**fields)
    except TypeError as error:
        raise BeatsError(f"`lora`: {error}") from error
    with without_peft_warning():
        return get_peft_model(model, config)


def save_merged(trainer: Trainer, directory: Path) -> None:
    """
    Writes the adapter to `directory/adapter`, and to `directory` an ordinary model with the adapter added to its
    weights, which needs no PEFT. Called on every process.
    """
    trainer.save_model(str(directory / ADAPTER))
    if trainer.is_world_process_zero():
        model: Any = trainer.accelerator.unwrap_model(trainer.model)
        # With it, `from_pretrained` of the adapter knows the classes.
        model.get_base_model().config.save_pretrained(directory / ADAPTER)
        model.merge_and_unload().save_pretrained(directory)
    trainer.accelerator.wait_for_everyone()
