# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""
Codes of a whole dataset, computed once.

Example:

    transformers-beats compute-codes --tokenizer TOKENIZER --dataset FOLDER --output_dir CODES

On several devices: `accelerate launch -m transformers_beats.training.compute_codes` with the same arguments.
"""

import dataclasses
import hashlib
import json
from collections.abc import Generator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
from datasets.table import concat_tables
from torch.utils.data import DataLoader, Subset
from tqdm.auto import tqdm
from transformers import PreTrainedModel
from transformers.utils import logging

from transformers_beats.feature_extraction_beats import BeatsFeatureExtractor
from transformers_beats.training.config.arguments import TOKENIZE_ARGUMENTS, TokenizeArguments
from transformers_beats.training.config.recipes import parse_arguments
from transformers_beats.training.data.crops import DataCollator, featurize
from transformers_beats.training.data.manifest import map_arrow
from transformers_beats.training.data.sources import DataArguments
from transformers_beats.utils.errors import BeatsError, run_command
from transformers_beats.utils.files import new_directory
from transformers_beats.utils.fingerprint import FINGERPRINT_VERSION, model_fingerprint
from transformers_beats.utils.lock import hold
from transformers_beats.utils.resume import begin_or_resume, check_settings, read_settings

from .stages import (
    choose_extractor,
    close_stage,
    extractor_settings,
    load_crops,
    load_tokenizer,
    own_extractor,
    process_state,
)


logger = logging.get_logger(__name__)

DESCRIPTION = "codes.json"
UNFINISHED = f"unfinished-{DESCRIPTION}"
# Settings of the data that decide which audio an item holds.
CROP_SETTINGS = (
    "dataset",
    "dataset_config",
    "split",
    "select",
    "audio_column",
    "crop_seconds",
    "num_crops",
    "min_seconds",
    "crop_seed",
)
# Of these, names of places and of columns do not decide it: the digest of the clips does.
DECISIVE_CROP_SETTINGS = ("crop_seconds", "num_crops", "crop_seed")


def crop_settings(data: DataArguments) -> dict:
    """Returns the settings that must agree between codes and the audio that they are read with."""
    return {name: getattr(data, name) for name in CROP_SETTINGS}


def load_tokenizer_and_extractor(
    name: str, feature_extractor: str | None = None
) -> tuple[PreTrainedModel, BeatsFeatureExtractor]:
    """
    Loads a tokenizer, see [`load_tokenizer`], and the feature extractor that its codes are computed with. Raises a
    [`BeatsError`] if the tokenizer reads another fbank than that of `feature_extractor`.
    """
    extractor = choose_extractor(feature_extractor, tokenizer=own_extractor(name))
    return load_tokenizer(name), extractor


def codes_fingerprint(description: Mapping[str, Any]) -> str:
    """
    Returns 40 hexadecimal digits that change with what decides codes: tokenizer, clips, crops, and precision. They
    do not change with the directory of the clips, or the size of the shards.

    Args:
        description (`Mapping`):
            Content of `codes.json`.
    """
    values = [description.get(name) for name in ("tokenizer", "clips", "bf16")]
    values += [description["data"].get(name) for name in DECISIVE_CROP_SETTINGS]
    return hashlib.sha256(json.dumps(values).encode()).hexdigest()[:40]


def crop_words(data: DataArguments, section: str = "") -> list[str]:
    """
    Returns the words that give a command the same settings, in a `section` such as "data."; those that have their
    default are left out.
    """
    words = []
    for entry in dataclasses.fields(data):
        value = getattr(data, entry.name)
        if entry.name in CROP_SETTINGS and value != entry.default:
            words += [f"--{section}{entry.name}", value if isinstance(value, str) else json.dumps(value)]
    return words


@torch.no_grad()
def compute_codes(
    crops,
    indices: range,
    tokenizer: PreTrainedModel,
    extractor: BeatsFeatureExtractor,
    collator: DataCollator,
    arguments: TokenizeArguments,
    device: torch.device,
) -> datasets.Dataset:
    """
    Computes the codes of some items: `codes` `(num_columns, num_freq_patches)` or, of several codebooks,
    `(num_columns, num_freq_patches, num_codebooks)`, int16, without padding.
    """
    loader = DataLoader(
        Subset(crops, indices),
        batch_size=arguments.batch_size,
        num_workers=arguments.num_workers,
        collate_fn=collator,
    )
    rows = []
    for batch in loader:
        inputs = featurize(batch, extractor, device)
        with torch.autocast(device.type, torch.bfloat16, enabled=arguments.bf16):
            codes = tokenizer(
                inputs["input_values"].to(device), attention_mask=inputs["attention_mask"].to(device)
            ).audio_codes
        for item in codes.cpu().numpy():
            is_column = (item >= 0).all(axis=tuple(range(1, item.ndim)))
            rows.append(item[is_column].astype(np.int16))
    shape, num_codebooks = (None, tokenizer.config.num_freq_patches), tokenizer.config.num_codebooks
    kind = datasets.Array2D(shape, "int16")
    if num_codebooks > 1:
        kind = datasets.Array3D((*shape, num_codebooks), "int16")
    return datasets.Dataset.from_dict({"codes": rows}, features=datasets.Features({"codes": kind}))


@contextmanager
def _without_bars() -> Generator[None, None, None]:
    """Leaves out the bars of datasets, which would break that of the shards."""
    if datasets.are_progress_bars_disabled():
        yield
        return
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        datasets.enable_progress_bars()


def check_no_codes(output_dir: Path) -> None:
    """Raises a [`BeatsError`] for a directory with complete codes."""
    if (output_dir / DESCRIPTION).exists():
        raise BeatsError(f"{output_dir} holds codes already: move it away, or choose another `output_dir`.")


def tokenize(arguments: TokenizeArguments, data: DataArguments) -> None:
    """
    Writes the codes of every item of the data to `arguments.output_dir`, in Arrow files of `shard_size` items.
    Files of an interrupted run are kept; several processes share the shards.

    Raises:
        [`BeatsError`]: a streamed dataset, a codebook too large for int16, or a directory with other codes.
    """
    if data.streaming:
        raise BeatsError("Codes belong to the items of a dataset: set `streaming: false`.")
    output_dir = Path(arguments.output_dir)
    check_no_codes(output_dir)
    state = process_state()
    device = torch.device(state.device or "cpu")
    tokenizer, extractor = load_tokenizer_and_extractor(arguments.tokenizer, arguments.feature_extractor)
    tokenizer.to(device)
    if tokenizer.config.codebook_size > np.iinfo(np.int16).max + 1:
        raise BeatsError(f"Codes are stored as int16, but the codebook has {tokenizer.config.codebook_size}.")
    # Codes of another item in the place of one that cannot be read would be wrong ones.
    crops = load_crops(dataclasses.replace(data, max_lost_share=0.0), extractor)
    collator = DataCollator(extractor, data.crop_seconds)
    starts = range(0, len(crops), arguments.shard_size)
    description = {
        "tokenizer": model_fingerprint(tokenizer, extractor),
        "fingerprint_version": FINGERPRINT_VERSION,
        "codebook_size": tokenizer.config.codebook_size,
        "num_codebooks": tokenizer.config.num_codebooks,
        "num_items": len(crops),
        "num_shards": len(starts),
        "shard_size": arguments.shard_size,
        "clips": crops.fingerprint,
        "feature_extractor": extractor_settings(extractor),
        "bf16": arguments.bf16,
        "data": crop_settings(data),
    }
    with hold(output_dir) if state.is_main_process else nullcontext():
        if state.is_main_process:
            # Another run may have ended since the start of this one.
            check_no_codes(output_dir)
            begin_or_resume(output_dir / UNFINISHED, description, output_dir)
        state.wait_for_everyone()
        own = list(enumerate(starts))[state.process_index :: state.num_processes]
        for number, start in tqdm(own, desc="Tokenizing", unit="shard", disable=not state.is_local_main_process):
            shard = output_dir / f"shard-{number:05d}"
            if shard.exists():
                continue
            indices = range(start, min(start + arguments.shard_size, len(crops)))
            codes = compute_codes(crops, indices, tokenizer, extractor, collator, arguments, device)
            with new_directory(shard) as new, _without_bars():
                codes.save_to_disk(str(new))
        state.wait_for_everyone()
        if state.is_main_process:
            # Last, and at once: codes without it are incomplete.
            (output_dir / UNFINISHED).rename(output_dir / DESCRIPTION)
        state.wait_for_everyone()


def load_codes(directory: str, data: DataArguments) -> tuple[datasets.Dataset, dict]:
    """
    Loads codes that [`tokenize`] wrote, memory-mapped, and their description: among others `codebook_size`, and with
    `clips` the fingerprint of the [`CropDataset`] that they belong to.

    Raises:
        [`BeatsError`]: if there are none, if they are incomplete, or if they belong to other data or other crops.
    """
    path = Path(directory)
    description = read_settings(path / DESCRIPTION)
    if description is None:
        raise BeatsError(f"{directory}: holds no complete codes; `compute-codes` writes them.")
    check_settings(description["data"], crop_settings(data), f"{directory}: codes")
    shards = [path / f"shard-{number:05d}" for number in range(description["num_shards"])]
    # Not as datasets, which would take hundreds of kilobytes for each shard in every process.
    files = [file for shard in shards for file in sorted(shard.glob("data-*.arrow"))]
    return datasets.Dataset(concat_tables([map_arrow(file) for file in files])), description


def main(argv: list[str] | None = None) -> None:
    """Runs the command with the words of `argv`; by default those of the command line."""
    arguments, data = parse_arguments(TOKENIZE_ARGUMENTS, argv, __doc__)
    tokenize(arguments, data)
    words = ["pretrain", "--codes", arguments.output_dir, *crop_words(data), "--output_dir", "MODEL"]
    close_stage("Codes", arguments.output_dir, *words)


if __name__ == "__main__":
    run_command(main)
