# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""
Choice of the files of a repository on the Hub that make a checkpoint, by the layouts of publishers of BEATs models.

Sources of the layouts (each a public repository and a path in it), besides those of `layouts`:
    OpenBEATs: the package `openbeats` on PyPI, `openbeats/utils.py`; the names of its training runs,
        `beats_iter1_large1.tune_...`, are those of its authors' scripts.
    ESPnet: `espnet/espnet`, `espnet2/main_funcs/pack_funcs.py` (`meta.yaml`), `egs2/TEMPLATE/ssl1/beats.sh`.
    avex: `earthspecies/avex`, `scripts/upload_esp_aves2_models_to_hf.py`, `avex/models/utils/load.py`.
    NatureLM-audio: `earthspecies/NatureLM-audio`, `NatureLM/models/NatureLM.py` (`_save_to_local`).
"""

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from transformers_beats.utils.errors import UsageError, name_some
from transformers_beats.utils.files import check_settings_size, read_yaml

from .locations import HubRepository, parse_location, path_in_cache, quote_characters
from .settings import find_cfg


# Gets a file of the repository by its path in it.
Fetch = Callable[[str], Path]

CHECKPOINT_SUFFIXES = (".pt", ".pth", ".ckpt", ".safetensors", ".bin")
# Of a training: not the weights.
TRAINING_STATE = re.compile(r"(optimizer|scheduler|scaler|training_args|rng_state.*|.*optim_states)\.\w+")
# NatureLM-audio saves its encoder beside the whole model and its other parts.
ENCODER_NAME = "beats.pt"
SETTINGS_NAMES = ("config.yaml", "config.yml", "train_config.yaml", "model_config.yaml")
LABELS_NAME = "label_map.json"
# Pre-trained OpenBEATs models, which fine-tuned ones are named after.
OPENBEATS = "shikhar7ssu/OpenBEATs-{size}-i{iteration}"
OPENBEATS_NAME = re.compile(r"openbeats-(?P<size>base|large)-i(?P<iteration>\d+)", re.IGNORECASE)
# A run of ESPnet counts iterations from 0. Its size follows, or stands before, or in a folder above.
OPENBEATS_RUN = re.compile(
    r"(?P<before>.*?)beats_iter(?P<iteration>\d+)(_(?P<size>base|large)(?![a-z]))?.*", re.IGNORECASE
)
SIZE = re.compile(r"(?<![a-z])(base|large)(?![a-z])", re.IGNORECASE)
# Names of Microsoft's files, whose models all have one architecture.
MICROSOFT_FILE = re.compile(r"BEATs_iter\d[^/]*\.pt")


@dataclass
class RepositoryFiles:
    """
    Files that make a checkpoint, by their paths in the repository.

    Attributes:
        checkpoint: The weights.
        settings: Files beside it that state the architecture, the statistics of the fbank or the classes.
        labels: Names of the classes, as avex stores them.
        base: Repository of the model whose `cfg` states the architecture, or `"released"`, if the files do not.
        notes: Derivations, in sentences.
    """

    checkpoint: str
    settings: list[str] = field(default_factory=list)
    labels: str | None = None
    base: str | None = None
    notes: list[str] = field(default_factory=list)


def choose_files(repository: str, sizes: Mapping[str, int], fetch: Fetch, has_base: bool = False) -> RepositoryFiles:
    """
    Chooses the checkpoint of a repository and what belongs to it.

    Args:
        repository (`str`):
            Name for messages, `hf://owner/name`; also tells the base of a fine-tuned OpenBEATs model.
        sizes (`Mapping[str, int]`):
            Sizes of all files in bytes by their paths.
        fetch (`Callable[[str], Path]`):
            Gets a file; called for small files only.
        has_base (`bool`, defaults to `False`):
            The user names the base.

    Raises:
        [`UsageError`]: if there is no checkpoint or several, if the repository is a model of this package, or if
            nothing tells its base, or two things tell different ones.
        [`CheckpointError`]: if its settings cannot be read.
    """
    checkpoint = choose_checkpoint(repository, sizes, fetch)
    return describe_checkpoint(repository, checkpoint, sizes, fetch, has_base)


def choose_checkpoint(repository: str, sizes: Mapping[str, int], fetch: Fetch) -> str:
    """Returns the path of the one checkpoint in a repository; raises a [`UsageError`] if there is not one."""
    if "config.json" in sizes:
        model_type = str(_read(fetch, sizes, "config.json").get("model_type"))
        if model_type.startswith("beats"):
            model = repository.removeprefix("hf://")
            raise UsageError(
                f"{repository}: is a model for transformers already ({model_type}), not a checkpoint: "
                f"from_pretrained({model!r}) and -m {model} load it as it is. To convert it back, name an OUTPUT.pt."
            )
    found = [path for path in sorted(sizes) if PurePosixPath(path).suffix in CHECKPOINT_SUFFIXES]
    found = [path for path in found if not TRAINING_STATE.fullmatch(PurePosixPath(path).name)]
    if not found:
        others = f"only {name_some(sorted(sizes))}" if sizes else "nor any other file"
        raise UsageError(f"{repository}: has no checkpoint ({', '.join(CHECKPOINT_SUFFIXES)}), {others}.")
    packed = _packed(fetch, sizes)
    # An upload may hold the file that its safetensors were made from.
    stems = {path.removesuffix(".safetensors") for path in found if path.endswith(".safetensors")}
    for is_meant in (
        lambda path: path in packed,
        lambda path: PurePosixPath(path).name == ENCODER_NAME,
        lambda path: path.endswith(".safetensors") or path.rpartition(".")[0] not in stems,
    ):
        found = list(filter(is_meant, found)) or found
    if len(found) > 1:
        is_on_hub = repository.startswith("hf://")
        names = ", ".join(f"{repository}/{quote_characters(path) if is_on_hub else path}" for path in found[:20])
        raise UsageError(f"{repository}: has {len(found)} checkpoints; name one of them: {names}")
    return found[0]


def describe_checkpoint(
    repository: str, checkpoint: str, sizes: Mapping[str, int], fetch: Fetch, has_base: bool = False
) -> RepositoryFiles:
    """Returns what belongs to a checkpoint of a repository; raises errors as [`choose_files`] does."""
    files = RepositoryFiles(checkpoint, labels=_beside(checkpoint, sizes, (LABELS_NAME,)))
    settings = _beside(checkpoint, sizes, SETTINGS_NAMES)
    if settings is None:
        return files
    contents = _read(fetch, sizes, settings)
    encoder = contents.get("encoder_conf")
    if find_cfg(contents) is None and not isinstance(encoder, Mapping):
        return files
    files.settings = [settings]
    if isinstance(encoder, Mapping) and encoder.get("beats_ckpt_path") and not has_base:
        files.base, note = derive_base(repository, str(encoder["beats_ckpt_path"]))
        files.notes.append(note)
    return files


def derive_base(repository: str, path: str) -> tuple[str, str]:
    """
    Returns the pre-trained model that a model of ESPnet was fine-tuned from, and how that is known: by the name of the
    repository, and by the `path` of the checkpoint on the machine of those who trained it.

    Raises:
        [`UsageError`]: if they tell different models, or neither tells one.
    """
    named = OPENBEATS_NAME.search(_name_of(repository))
    by_name = named and OPENBEATS.format(size=named["size"].capitalize(), iteration=int(named["iteration"]))
    by_path = "released" if MICROSOFT_FILE.fullmatch(PurePosixPath(path).name) else _base_of_run(path)
    if by_name and by_path and by_name != by_path:
        raise UsageError(
            f"{repository}: was it trained from {by_name}, as its name says, or from {by_path}, as `beats_ckpt_path` "
            f"{path} in its settings says? Answer with --cfg {by_name} or --cfg {by_path}."
        )
    base = by_name or by_path
    if base is None:
        raise UsageError(
            f"{repository}: was trained from {path}, which states its architecture: name that model, by its file, "
            "hf:// location or Hub id, with --cfg."
        )
    evidence = [*(["its name"] if by_name else []), *([f"`beats_ckpt_path` {path}"] if by_path else [])]
    model = "Microsoft's released models" if base == "released" else base
    return base, f"architecture of {model}, from which it was trained by {' and '.join(evidence)}"


def _name_of(repository: str) -> str:
    """Returns the name of a repository on the Hub without its owner, or of a directory without those above it."""
    if isinstance(location := parse_location(repository), HubRepository):
        return location.repo_id.rpartition("/")[2]
    directory = Path(os.path.abspath(repository))
    # A snapshot is named after its commit.
    inside = path_in_cache(directory / "file")
    return inside.parts[0].rpartition("--")[2] if inside is not None else directory.name


def _base_of_run(path: str) -> str | None:
    """Returns the OpenBEATs model whose training wrote a file, by the folder of its run; None if none tells it."""
    folders = PurePosixPath(path).parts
    for depth in range(len(folders) - 1, -1, -1):
        if run := OPENBEATS_RUN.fullmatch(folders[depth]):
            # The nearest one is of the run; folders further above are of a disk or an account.
            places = (run["size"] or "", run["before"], *folders[:depth][::-1])
            size = next((found[-1] for place in places if (found := SIZE.findall(place))), None)
            return size and OPENBEATS.format(size=size.capitalize(), iteration=int(run["iteration"]) + 1)
    return None


def choose_settings(repository: str, sizes: Mapping[str, int], fetch: Fetch) -> str:
    """
    Returns the path of the file that states the architecture of a pre-trained model: its settings if these do, else
    its checkpoint, which is larger by far. Raises a [`UsageError`] if there is neither.
    """
    for path in sorted(sizes, key=lambda path: (path.count("/"), path)):
        if PurePosixPath(path).name in SETTINGS_NAMES and find_cfg(_read(fetch, sizes, path)):
            return path
    return choose_checkpoint(repository, sizes, fetch)


def _packed(fetch: Fetch, sizes: Mapping[str, int]) -> set[str]:
    """Returns the weights that ESPnet's list of a packed model names; none without such a list."""
    files = _read(fetch, sizes, "meta.yaml").get("files") if "meta.yaml" in sizes else None
    return set(map(str, files.values())) if isinstance(files, Mapping) else set()


def _beside(checkpoint: str, sizes: Mapping[str, int], names: tuple[str, ...]) -> str | None:
    """Returns the first of some files in the folder of a checkpoint or the nearest one above."""
    for folder in PurePosixPath(checkpoint).parents:
        for name in names:
            if str(folder / name) in sizes:
                return str(folder / name)
    return None


def _read(fetch: Fetch, sizes: Mapping[str, int], path: str) -> Mapping[str, Any]:
    check_settings_size(path, sizes[path])
    return read_yaml(fetch(path))
