# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Conversion of a BEATs checkpoint, such as Microsoft's `.pt` files, into a directory for `from_pretrained`."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers_beats.utils.errors import UsageError
from transformers_beats.utils.files import new_directory
from transformers_beats.utils.messages import without_weight_bars

from .locations import MAX_BYTES
from .outputs import check_output_dir


# torch and transformers are imported in the functions, so that --help comes at once.
if TYPE_CHECKING:
    from .checkpoint import BeatsCheckpoint
    from .model_card import CardDetails


@without_weight_bars()
def convert(
    source: Path,
    output_dir: Path,
    origin: str = "auto",
    fbank_mean: float | None = None,
    fbank_std: float | None = None,
    overwrite: bool = False,
    repo_id: str | None = None,
    revision: str | None = None,
    details: "CardDetails | None" = None,
    cfg: Sequence[str | Path] = (),
    labels: str | Path | None = None,
    source_name: str | None = None,
    notes: Sequence[str] = (),
    max_bytes: float = MAX_BYTES,
    head: str = "auto",
) -> "BeatsCheckpoint":
    """
    Converts a checkpoint into configuration, weights (safetensors), feature extractor, remote code and model card.

    Everything is written to a temporary directory and moved to `output_dir` at the end, so that a refused or
    interrupted conversion leaves everything as it was. `source`, `origin`, `cfg`, `labels`, `max_bytes`, `head` and
    the statistics of the fbank are those of [`read_checkpoint`], `output_dir` and `overwrite` those of
    [`check_output_dir`]. The card names the directory itself, unless `repo_id` and `revision` are given, and has the
    text of `details`; it calls the source `source_name`, by default the name of the file. `notes` go before those of
    the conversion. An entry of a manifest, which `details` may be, must have the kind, the settings and the number of
    parameters that the checkpoint has; a released file is recognised without.

    Raises:
        [`UsageError`]: if there is no such source, or statistics or `output_dir` cannot be used.
        [`CheckpointError`]: if the checkpoint cannot be converted.
    """
    from safetensors import SafetensorError

    from transformers_beats import BeatsFeatureExtractor

    from .checkpoint import CheckpointError, read_checkpoint
    from .model_card import render_model_card
    from .released import Entry, find_by_hash

    inputs = [source, *cfg, *([] if labels is None else [labels])]
    output_dir = check_output_dir(output_dir, overwrite, inputs)
    checkpoint = read_checkpoint(source, origin, cfg, labels, fbank_mean, fbank_std, max_bytes, head)
    checkpoint.notes[:0] = notes
    # Figures and licence of a released model belong to the file, however it came here.
    details = details or find_by_hash(checkpoint.sha256)
    if isinstance(details, Entry):
        try:
            details.check_checkpoint(checkpoint)
        except CheckpointError as error:
            raise CheckpointError(f"{source_name or source.name}: {error}") from error
    options: dict[str, Any] = {**checkpoint.statistics}
    config = checkpoint.config
    try:
        extractor = BeatsFeatureExtractor(config.num_mel_bins, patch_size=config.patch_size, **options)
    except ValueError as error:
        raise UsageError(str(error)) from error
    with new_directory(output_dir, lambda: check_output_dir(output_dir, overwrite, inputs)) as new:
        try:
            checkpoint.build_model().save_pretrained(new)
        except SafetensorError as error:
            # safetensors' error for a full disk.
            raise CheckpointError(f"{output_dir}: the weights could not be written: {error}") from error
        extractor.save_pretrained(new)
        card = render_model_card(checkpoint, extractor, source_name or source.name, repo_id or ".", revision, details)
        card.save(new / "README.md")
    return checkpoint
