# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Loading of models and feature extractors, with all checks, for the whole package."""

import json
import logging
import os
import warnings
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers_beats.conversion import released
from transformers_beats.utils.errors import BeatsError, UsageError, first_line, install_command, name_some
from transformers_beats.utils.hub import check_id, check_model_repository, is_id
from transformers_beats.utils.machine import is_emulated, name_of
from transformers_beats.utils.messages import hold_back, without_weight_bars
from transformers_beats.utils.ranks import LOCAL_NUMBER

from .kinds import CLASS_OF, Use, check_use


if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedConfig, PreTrainedModel

    from transformers_beats.feature_extraction_beats import BeatsFeatureExtractor


logger = logging.getLogger(__name__)

# Options of `from_pretrained` that say where the files are.
HUB_OPTIONS = ("cache_dir", "local_files_only", "revision", "token", "trust_remote_code")
# Classes of the tasks that an adapter of PEFT may name in the place of its class.
TASK_CLASSES = {"SEQ_CLS": "BeatsForAudioClassification", "TOKEN_CLS": "BeatsForAudioFrameClassification"}
# Weights of an adapter, in the order in which PEFT looks for them, and those of a whole model.
ADAPTER_FILES = ("adapter_model.safetensors", "adapter_model.bin")
WHOLE_MODEL_FILES = ("model*.safetensors", "pytorch_model.*")
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
    _check_place(model, files)
    return model


def check_model(name: str | Path, use: Use | None = None) -> None:
    """
    Checks what can be known of a model without fetching or loading it, and without importing torch: its directory, and
    there the kind that its `config.json` names. A name of the Hub and an adapter are checked when they are loaded.

    Raises:
        [`UsageError`]: as [`find_model`] and [`load_model`], and for a model that has not what `use` needs.
    """
    if released.is_released(str(name)):
        if use is not None:
            check_use(name, CLASS_OF[released.find(str(name)).kind], use)
        return
    _check_place(str(name), tuple(MODEL_FILES))
    try:
        config = json.loads(Path(name, "config.json").read_text(encoding="utf-8"))
        model_type, architecture = config["model_type"], (config.get("architectures") or [None])[0]
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        # Of an adapter, on the Hub, or damaged: named when it is loaded.
        return
    check_model_type(str(model_type), name)
    if use is not None and read_adapter(name) is None:
        check_use(name, architecture, use)


def check_model_type(model_type: str, name: str | Path) -> None:
    """Raises a [`UsageError`] for a model of another project."""
    if not model_type.startswith("beats"):
        raise UsageError(f"{name}: holds a model of type {model_type!r}, not a BEATs model.")


def _check_place(model: str, files: Sequence[str]) -> None:
    """Raises a [`UsageError`] for a path that is not a model, see [`find_model`]."""
    path = Path(model)
    if not path.exists() and "/" not in model:
        hint = released.hint_of(model, released.read_manifest())
        raise UsageError(f"{model}: no such directory, and no released model has this name{hint}")
    if not path.exists() and not is_id(model):
        raise UsageError(f"{model}: no such directory.")
    if not path.exists():
        check_id(model)
    if path.is_file():
        raise UsageError(
            f"{model}: is a file, and a model is a directory. One of Microsoft's .pt files is converted by: "
            f"transformers-beats convert {model} DIRECTORY"
        )
    # What an adapter lacks is of its base model.
    for name in () if read_adapter(model) else files:
        if path.is_dir() and not any(file for pattern in MODEL_FILES[name] for file in path.glob(pattern)):
            raise UsageError(f"{model}: is no directory of a model, it has no {name}.")


def choose_device(device: str) -> "torch.device":
    """
    Returns the device of that name, `"auto"` for a GPU if there is one, of which each process of torchrun has its own;
    raises a [`UsageError`] for no device.
    """
    import torch

    if device == "auto":
        found = (torch.accelerator.is_available() and torch.accelerator.current_accelerator()) or torch.device("cpu")
        local = os.environ.get(LOCAL_NUMBER, "")
        if found.type == "cpu" or not local.isdigit():
            return found
        return torch.device(found.type, int(local) % torch.accelerator.device_count())
    try:
        torch.zeros(1, device=device)
    # A torch without CUDA fails with an AssertionError.
    except (RuntimeError, AssertionError) as error:
        raise UsageError(f"--device {device}: {first_line(error)}") from error
    return torch.device(device)


@without_weight_bars()
def load_model(
    name: str | Path,
    model_class: Any = None,
    device: str | None = None,
    dtype: str = "auto",
    new_weights: tuple[str, ...] = (),
    **options: Any,
) -> "PreTrainedModel":
    """
    Loads a model, in evaluation mode, without a progress bar. All commands and interfaces of the package load models
    through this function.

    Args:
        name (`str` or `Path`):
            Name of a released model, directory, or id on the Hub. In the directory may be an adapter of PEFT, which is
            added to the weights of its base model.
        model_class (`type`, *optional*):
            Class to load, such as [`BeatsModel`] for the encoder of any model. Defaults to the class that was saved.
        device (`str`, *optional*):
            Name of a device, or `"auto"` for a GPU if there is one. Defaults to where `from_pretrained` puts it.
        dtype (`str`, defaults to `"auto"`):
            Precision; `"auto"` is the one that the model was saved in, or float32 on a CPU that emulates it.
        new_weights (`tuple[str, ...]`, *optional*):
            Beginnings of the names of weights that are to be trained: they may be missing or of another shape.
        options (`Any`):
            Passed on to `from_pretrained`, such as `revision` and `token`, and values of the configuration.

    Raises:
        [`UsageError`]: if the device cannot be used, there is no BEATs model of that name, or its configuration does
            not accept a value that is given.
        [`BeatsError`]: if its files cannot be read, its configuration has a wrong value, or weights are missing or of
            another shape, which would be random.
    """
    name = find_model(name, ["config.json", "model.safetensors"])
    target = None if device is None else choose_device(device)
    if adapter := read_adapter(name):
        model = _load_with_adapter(name, adapter, model_class, dtype=dtype, new_weights=new_weights, **options)
        return (model if target is None else model.to(target)).eval()
    if not Path(name).exists():
        check_model_repository(name, "config.json", options)
    with _errors_of_loading(name):
        # Read without the values that are given, so that a wrong one in the file is known as such.
        # A class of somebody else may have a configuration of its own, with other rules.
        is_ours = model_class is not None and model_class.__module__.startswith("transformers_beats.")
        if model_class is None or (is_ours and "config" not in options):
            saved_class = _saved_class(name, options)
            model_class = model_class or saved_class
    with _errors_of_loading(name, of_values=True):
        options = {**options, "output_loading_info": True, "ignore_mismatched_sizes": True}
        # A table of weights, also of those of a new classifier, which are expected: judged below.
        with hold_back("transformers.modeling_utils", "LOAD REPORT"):
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
    if unused := sorted(found["unexpected_keys"]):
        logger.warning(f"{name}: {len(unused)} weights are of no {type(model).__name__}: {name_some(unused)}.")
    if target is not None:
        model = model.to(target)
    if dtype == "auto" and is_emulated(model.dtype, model.device):
        logger.warning(f"{name}: float32 is used, as this CPU has no instructions for {name_of(model.dtype)}.")
        model = model.float()
    return model.eval()


def load_extractor(name: str | Path, **options: Any) -> "BeatsFeatureExtractor":
    """
    Loads the feature extractor of a model; `options` go to `from_pretrained`.

    Raises:
        [`UsageError`]: if there is no such model, or it is of another kind.
        [`BeatsError`]: if its files cannot be read.
    """
    from transformers import AutoFeatureExtractor

    from .models import is_beats_extractor

    name = find_model(name, ["preprocessor_config.json"])
    adapter, files = read_adapter(name), MODEL_FILES["preprocessor_config.json"]
    if adapter and not any(Path(name, file).exists() for file in files):
        return load_extractor(adapter["base_model_name_or_path"], **options)
    if not Path(name).exists():
        check_model_repository(name, "preprocessor_config.json", options)
    with _errors_of_loading(name):
        extractor = AutoFeatureExtractor.from_pretrained(name, **options)
    if not is_beats_extractor(extractor):
        raise UsageError(f"{name}: its feature extractor is a {type(extractor).__name__}, not that of a BEATs model.")
    return extractor


def load(
    name: str | Path, device: str | None = None, dtype: str = "auto", **options: Any
) -> tuple["PreTrainedModel", "BeatsFeatureExtractor"]:
    """Loads a model and its feature extractor: see [`load_model`] and [`load_extractor`]."""
    name = find_model(name)
    hub_options = {key: value for key, value in options.items() if key in HUB_OPTIONS}
    extractor = load_extractor(name, **hub_options)
    return load_model(name, device=device, dtype=dtype, **options), extractor


def place_of_model(name: str) -> str:
    """Returns what loads a model again from any folder: the absolute path of a directory, or its name as it is."""
    return os.path.abspath(name) if os.path.isdir(name) else name


def load_again(
    output: Path, saved: str, fingerprint: str, device: str, dtype: str, model: str | None = None
) -> tuple["PreTrainedModel", "BeatsFeatureExtractor"]:
    """
    Loads the model that an output, such as an index, was made with, and its feature extractor. A precision that this
    CPU emulates is kept, with a warning, since embeddings are compared with those of the output.

    Args:
        output (`Path`):
            The output, for messages.
        saved (`str`):
            Name or directory of the model when the output was made, see [`place_of_model`].
        fingerprint (`str`):
            Its [`model_fingerprint`].
        device (`str`):
            Name of a device, or `"auto"` for a GPU if there is one.
        dtype (`str`):
            Precision that it had.
        model (`str`, *optional*):
            Name or directory of the model now, if it was moved.

    Raises:
        [`UsageError`]: if it is another model.
        [`BeatsError`]: if it cannot be loaded.
    """
    from transformers_beats.utils.fingerprint import model_fingerprint

    from .models import warn_if_emulated

    # An unknown one has nothing to do with the place of the model.
    choose_device(device)
    try:
        loaded, extractor = load(model or saved, device, dtype)
    except BeatsError as error:
        if model is None and not Path(saved).is_dir():
            hint = f"{output} was made with this model: if it was moved, name its place as --model."
            raise type(error)(f"{error} {hint}") from error
        raise
    if model_fingerprint(loaded, extractor) != fingerprint:
        raise UsageError(
            f"{output}: is of another model than {model or saved} is: pass that one as --model, or make it again."
        )
    warn_if_emulated(loaded, output)
    return loaded, extractor


def _saved_class(name: str | Path, options: dict[str, Any]) -> Any:
    """Returns the class that loads a model as the kind that was saved."""
    config = saved_config(name, **{key: value for key, value in options.items() if key in HUB_OPTIONS})
    return _class_of(config, name)


def _class_of(config: "PreTrainedConfig", name: str | Path) -> Any:
    """
    Returns the class that loads a model as the kind that its configuration names. `AutoModelForAudioClassification`
    would also load a frame-level model without a word, and the other way round.
    """
    import transformers

    check_model_type(str(config.model_type), name)
    kind = (config.architectures or [""])[0]
    for task in ("AudioClassification", "AudioFrameClassification"):
        if kind.endswith(f"For{task}"):
            return getattr(transformers, f"AutoModelFor{task}")
    return transformers.AutoModel


def read_adapter(name: str | Path) -> dict[str, Any] | None:
    """
    Returns the configuration of an adapter of PEFT if this is the directory of one.

    Raises:
        [`UsageError`]: if it cannot be read, names no base model, or there are weights of a whole model beside it.
    """
    file = Path(name, "adapter_config.json")
    if not file.is_file():
        return None
    if whole := [found.name for pattern in WHOLE_MODEL_FILES for found in sorted(Path(name).glob(pattern))]:
        # transformers adds the adapter to them, with which it may have been merged already.
        raise UsageError(
            f"{name}: has both an adapter and a whole model, {whole[0]}: remove {file.name} to use the model alone, "
            "or move the adapter to a directory of its own."
        )
    try:
        adapter = dict(json.loads(file.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise UsageError(f"{file}: cannot be read as the configuration of an adapter.") from error
    if not adapter.get("base_model_name_or_path"):
        raise UsageError(f"{file}: names no `base_model_name_or_path`, the model that the adapter belongs to.")
    return adapter


def saved_config(name: str | Path, **options: Any) -> "PreTrainedConfig":
    """
    Reads the configuration of a model. That of an adapter, if it is not beside it, is its base model's; class and
    number of labels are those that the adapter was trained with. `options` are `HUB_OPTIONS`.
    """
    adapter = read_adapter(name)
    config = _config_without_adapter(name, adapter, options)
    if adapter is not None:
        _set_what_was_adapted(config, name, adapter)
    return config


def _config_without_adapter(
    name: str | Path, adapter: dict[str, Any] | None, options: dict[str, Any]
) -> "PreTrainedConfig":
    """Reads the configuration in a directory of a model; of that of an adapter without one, its base model's."""
    from transformers import AutoConfig

    if adapter is None or Path(name, "config.json").is_file():
        return AutoConfig.from_pretrained(name, **options)
    return saved_config(find_model(adapter["base_model_name_or_path"], ["config.json"]), **options)


def _set_what_was_adapted(config: "PreTrainedConfig", name: str | Path, adapter: dict[str, Any]) -> None:
    """Sets class and number of labels in a configuration to those that an adapter was trained with."""
    from transformers_beats.conversion.reading import load as load_weights

    # PEFT keeps the class, or else the task.
    task_class = TASK_CLASSES.get(adapter.get("task_type") or "")
    if class_name := (adapter.get("auto_mapping") or {}).get("base_model_class", task_class):
        config.architectures = [class_name]
    file = next((file for file in ADAPTER_FILES if Path(name, file).is_file()), None)
    if file is None:
        raise UsageError(f"{name}: is the directory of an adapter without its weights, {' or '.join(ADAPTER_FILES)}.")
    # Executes nothing in a file that PEFT will read, too.
    weights = load_weights(Path(name, file))
    num_labels = [len(value) for key, value in weights.items() if key.endswith(".classifier.weight")]
    if num_labels and num_labels[0] != config.num_labels:
        config.num_labels = num_labels[0]


def _load_with_adapter(
    name: str, adapter: dict[str, Any], model_class: Any, new_weights: tuple[str, ...], **options: Any
) -> "PreTrainedModel":
    """Loads the base model of an adapter and adds the adapter to its weights."""
    try:
        from peft import PeftModel
    except ImportError as error:
        raise BeatsError(f"{name}: an adapter needs PEFT: {install_command('training')}") from error
    from .models import kind_of

    hub_options = {key: value for key, value in options.items() if key in HUB_OPTIONS}
    with _errors_of_loading(name):
        config = _config_without_adapter(name, adapter, hub_options)
        before = config.architectures, config.num_labels
        _set_what_was_adapted(config, name, adapter)
        is_new_head = (
            "Classification" in (config.architectures or [""])[0]
            and (config.architectures, config.num_labels) != before
        )
        if is_new_head and not Path(name, "config.json").is_file():
            logger.warning(
                f"{name}: has no config.json, so that labels and kind of loss of its classifier are not known: save "
                "the configuration beside the adapter (`model.config.save_pretrained`)."
            )
        base = load_model(
            adapter["base_model_name_or_path"],
            _class_of(config, name),
            new_weights=(*new_weights, *(adapter.get("modules_to_save") or ())),
            config=config,
            **options,
        )
        with without_peft_warning():
            # Otherwise the base model would be used as it is.
            warnings.filterwarnings("error", message=".*[Mm]issing adapter keys")
            try:
                model = PeftModel.from_pretrained(base, name).merge_and_unload()
            except UserWarning as warning:
                raise BeatsError(
                    f"{name}: the adapter is of another model than a {type(base).__name__}, whose layers it does not "
                    "name: save the configuration of its model beside it (`model.config.save_pretrained`)."
                ) from warning
    wants_encoder = getattr(model_class, "__name__", "") == "BeatsModel"
    return model.base_model if wants_encoder and kind_of(model) != "encoder" else model


@contextmanager
def without_peft_warning() -> Generator[None, None, None]:
    """Leaves out a warning of transformers about the older name of a property, by which PEFT asks for it."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated")
        yield


@contextmanager
def _errors_of_loading(name: str | Path, of_values: bool = False) -> Generator[None, None, None]:
    """
    Turns whatever the files of a model make transformers raise into one line that names the model: a [`BeatsError`]
    or, for a value of the configuration, a [`UsageError`], with `of_values`: those of the file are right.
    """
    from huggingface_hub.errors import StrictDataclassError

    try:
        yield
    except BeatsError:
        raise
    except Exception as error:
        is_of_config = isinstance(error, StrictDataclassError)
        # Strict dataclasses wrap the reason in a second exception.
        message = first_line(error.__cause__ or error if is_of_config else error)
        if isinstance(error, OSError) and not Path(name).exists():
            # Further sentences of transformers are about directories.
            reason = message.partition(". ")[0]
            message = f"{name}: no such directory here, and from the Hub it cannot be loaded: {reason}"
        elif str(name) not in message:
            message = f"{name}: cannot be loaded: {message}"
        raise (UsageError if is_of_config and of_values else BeatsError)(message) from error


def labels_of(model: "PreTrainedModel") -> dict[int, str]:
    """Returns the labels of a classifier by index; none for other models, whose configurations have made-up ones."""
    id2label = model.config.id2label if "Classification" in type(model).__name__ else None
    return {int(index): label for index, label in (id2label or {}).items()}


def describe(model: "PreTrainedModel", extractor: "BeatsFeatureExtractor") -> dict[str, str]:
    """Describes a model: its kind, size, audio, fbank statistics, codebook and labels, as texts by their names."""
    from transformers_beats.configuration_beats import problem_type_of

    from .models import kind_of, reads_frames
    from .windows import column_samples

    config: Any = model.config
    kind, saved = type(model).__name__, next(iter(config.architectures or []), None)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    description = {
        "kind": kind if saved in (None, kind) else f"{kind}, of a {saved}",
        "parameters": f"{parameters:,} ({name_of(model.dtype)})",
        "encoder": f"{config.num_hidden_layers} layers of {config.hidden_size}, {config.num_attention_heads} heads"
        if hasattr(config, "num_hidden_layers")
        else "none",
        "audio": f"{extractor.sampling_rate} Hz mono, a column every "
        f"{1000 * column_samples(extractor) // extractor.sampling_rate} ms",
        "fbank": f"{extractor.feature_size} filters, mean {extractor.fbank_mean}, standard deviation "
        f"{extractor.fbank_std}",
    }
    if hasattr(config, "codebook_dim"):
        count = f"{config.num_codebooks} x " if config.num_codebooks > 1 else ""
        description["codebook"] = f"{count}{config.codebook_size} codes of {config.codebook_dim}"
    if reads_frames(model):
        depth, size = config.frame_recurrent_layers, config.frame_recurrent_size
        behind = f", behind {depth} recurrent layers of 2 x {size}" if depth else ""
        of = "" if kind_of(model) == "frames" else f"of a clip, by {config.classifier_pooling} of those "
        description["scores"] = f"{of}every {1000 * config.frame_seconds:g} ms{behind}"
    if labels := labels_of(model):
        names = list(labels.values())
        shown = "; ".join(names[:10]) + ("; ... (all with --labels)" if len(names) > 10 else "")
        description["labels"] = f"{len(names)}, {problem_type_of(config)}: {shown}"
    return description
