# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Loading of models and feature extractors, with all checks, for the whole package."""

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers_beats.configuration_beats import problem_type_of
from transformers_beats.conversion import released
from transformers_beats.utils.errors import BeatsError, UsageError, first_line


if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

    from transformers_beats.feature_extraction_beats import BeatsFeatureExtractor


# Options of `from_pretrained` that say where the files are.
HUB_OPTIONS = ("cache_dir", "local_files_only", "revision", "token", "trust_remote_code")
# One file of each is needed in a model's directory.
MODEL_FILES = {
    "config.json": ("config.json",),
    "preprocessor_config.json": ("preprocessor_config.json", "processor_config.json"),
    "model.safetensors": ("*.safetensors", "*.safetensors.index.json", "*.bin", "*.bin.index.json"),
}


def find_model(name: str | Path, files: Sequence[str] = tuple(MODEL_FILES)) -> str:
    """
    Returns the directory or the Hub id of a model: of a released one, which is fetched if it is not here, for its name
    ([`released.get`]); of any other model what was given.

    Raises:
        [`UsageError`]: for a path that is not a model: a file, or a directory that lacks one of the files.
        [`BeatsError`]: if a released model cannot be had.
    """
    model = released.resolve(name)
    path = Path(model)
    if not path.exists() and "/" not in model:
        hint = released.hint_of(model, released.read_manifest())
        raise UsageError(f"{model}: no such directory, and no released model has this name{hint}")
    # An id on the Hub has one slash.
    if not path.exists() and (model.startswith((".", "/", "~")) or model.count("/") > 1):
        raise UsageError(f"{model}: no such directory.")
    if path.is_file():
        raise UsageError(
            f"{model}: is a file, and a model is a directory. One of Microsoft's .pt files is converted by: "
            f"transformers-beats convert {model} DIRECTORY"
        )
    for name in files:
        if path.is_dir() and not any(file for pattern in MODEL_FILES[name] for file in path.glob(pattern)):
            raise UsageError(f"{model}: is no directory of a model, it has no {name}.")
    return model


def choose_device(device: str) -> "torch.device":
    """Returns the device of that name, `"auto"` for a GPU if there is one; raises a [`UsageError`] for no device."""
    import torch

    if device == "auto":
        return (torch.accelerator.is_available() and torch.accelerator.current_accelerator()) or torch.device("cpu")
    try:
        torch.zeros(1, device=device)
    # A torch without CUDA fails with an AssertionError.
    except (RuntimeError, AssertionError) as error:
        raise UsageError(f"--device {device}: {first_line(error)}") from error
    return torch.device(device)


def load_model(
    name: str | Path,
    model_class: Any = None,
    device: str | None = None,
    dtype: str = "auto",
    new_weights: tuple[str, ...] = (),
    **options: Any,
) -> "PreTrainedModel":
    """
    Loads a model, in evaluation mode. All commands and interfaces of the package load models through this function.

    Args:
        name (`str` or `Path`):
            Name of a released model, directory, or id on the Hub.
        model_class (`type`, *optional*):
            Class to load, such as [`BeatsModel`] for the encoder of any model. Defaults to the class that was saved.
        device (`str`, *optional*):
            Name of a device, or `"auto"` for a GPU if there is one. Defaults to where `from_pretrained` puts it.
        dtype (`str`, defaults to `"auto"`):
            Precision; `"auto"` is the one that the model was saved in.
        new_weights (`tuple[str, ...]`, *optional*):
            Beginnings of the names of weights that are to be trained: they may be missing or of another shape.
        options (`Any`):
            Passed on to `from_pretrained`, such as `revision` and `token`, and values of the configuration.

    Raises:
        [`UsageError`]: if the device cannot be used, or there is no BEATs model of that name.
        [`BeatsError`]: if its files cannot be read, or weights are missing or of another shape, which would be random.
    """
    name = find_model(name, ["config.json", "model.safetensors"])
    target = None if device is None else choose_device(device)
    with _errors_of_loading(name):
        model_class = model_class or _saved_class(name, options)
        options = {**options, "output_loading_info": True, "ignore_mismatched_sizes": True}
        model, found = model_class.from_pretrained(name, dtype=dtype, **options)
    problems = {"are missing": found["missing_keys"], "have another shape": found["mismatched_keys"]}
    for problem, keys in problems.items():
        # A mismatched key comes with both shapes.
        names = sorted(key if isinstance(key, str) else key[0] for key in keys)
        names = [name for name in names if not name.startswith(new_weights)]
        if names:
            shown = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
            raise BeatsError(
                f"{name}: {len(names)} weights of a {type(model).__name__} {problem} ({shown}): its results would be "
                "random."
            )
    return (model if target is None else model.to(target)).eval()


def load_extractor(name: str | Path, **options: Any) -> "BeatsFeatureExtractor":
    """
    Loads the feature extractor of a model; `options` go to `from_pretrained`.

    Raises:
        [`UsageError`]: if there is no such model, or it is of another kind.
        [`BeatsError`]: if its files cannot be read.
    """
    from transformers import AutoFeatureExtractor

    from transformers_beats.feature_extraction_beats import BeatsFeatureExtractor

    name = find_model(name, ["preprocessor_config.json"])
    with _errors_of_loading(name):
        extractor = AutoFeatureExtractor.from_pretrained(name, **options)
    if not isinstance(extractor, BeatsFeatureExtractor):
        raise UsageError(f"{name}: its feature extractor is a {type(extractor).__name__}, not that of a BEATs model.")
    return extractor


def load(
    name: str | Path, device: str | None = None, dtype: str = "auto", **options: Any
) -> tuple["PreTrainedModel", "BeatsFeatureExtractor"]:
    """Loads a model and its feature extractor, without a progress bar: see [`load_model`] and [`load_extractor`]."""
    from transformers.utils import logging

    logging.disable_progress_bar()
    name = find_model(name)
    hub_options = {key: value for key, value in options.items() if key in HUB_OPTIONS}
    extractor = load_extractor(name, **hub_options)
    return load_model(name, device=device, dtype=dtype, **options), extractor


def _saved_class(name: str | Path, options: dict[str, Any]) -> Any:
    """
    Returns the class that loads a model as the kind that was saved. `AutoModelForAudioClassification` would also load
    a frame-level model without a word, and the other way round.
    """
    import transformers

    config = transformers.AutoConfig.from_pretrained(
        name, **{key: value for key, value in options.items() if key in HUB_OPTIONS}
    )
    if not str(config.model_type).startswith("beats"):
        raise UsageError(f"{name}: holds a model of type {config.model_type!r}, not a BEATs model.")
    kind = (config.architectures or [""])[0]
    for task in ("AudioClassification", "AudioFrameClassification"):
        if kind.endswith(f"For{task}"):
            return getattr(transformers, f"AutoModelFor{task}")
    return transformers.AutoModel


@contextmanager
def _errors_of_loading(name: str | Path) -> Generator[None, None, None]:
    """Turns whatever the files of a model make transformers raise into one line that names the model."""
    try:
        yield
    except BeatsError:
        raise
    except Exception as error:
        message = first_line(error)
        if isinstance(error, OSError) and not Path(name).exists():
            # Further sentences of transformers are about directories.
            reason = message.partition(". ")[0]
            message = f"{name}: no such directory here, and from the Hub it cannot be loaded: {reason}"
        elif str(name) not in message:
            message = f"{name}: cannot be loaded: {message}"
        raise BeatsError(message) from error


def labels_of(model: "PreTrainedModel") -> dict[int, str]:
    """Returns the labels of a classifier by index; none for other models, whose configurations have made-up ones."""
    id2label = model.config.id2label if "Classification" in type(model).__name__ else None
    return {int(index): label for index, label in (id2label or {}).items()}


def describe(model: "PreTrainedModel", extractor: "BeatsFeatureExtractor") -> dict[str, str]:
    """Describes a model: its kind, size, audio, fbank statistics, codebook and labels, as texts by their names."""
    from .windows import column_samples

    config = model.config
    kind, saved = type(model).__name__, next(iter(config.architectures or []), None)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    description = {
        "kind": kind if saved in (None, kind) else f"{kind}, of a {saved}",
        "parameters": f"{parameters:,} ({str(model.dtype).removeprefix('torch.')})",
        "encoder": f"{config.num_hidden_layers} layers of {config.hidden_size}, {config.num_attention_heads} heads"
        if hasattr(config, "num_hidden_layers")
        else "none",
        "audio": f"{extractor.sampling_rate} Hz mono, a column every "
        f"{1000 * column_samples(extractor) // extractor.sampling_rate} ms",
        "fbank": f"{extractor.feature_size} filters, mean {extractor.fbank_mean}, standard deviation "
        f"{extractor.fbank_std}",
    }
    if hasattr(config, "codebook_dim"):
        description["codebook"] = f"{config.codebook_size} codes of {config.codebook_dim}"
    if labels := labels_of(model):
        names = list(labels.values())
        shown = "; ".join(names[:10]) + ("; ... (all with --labels)" if len(names) > 10 else "")
        description["labels"] = f"{len(names)}, {problem_type_of(config)}: {shown}"
    return description
