# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Converts a BEATs checkpoint, such as Microsoft's `.pt` files, into a directory for `from_pretrained`."""

import enum
import gc
import json
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from safetensors import SafetensorError

from transformers_beats import BeatsFeatureExtractor
from transformers_beats.utils.files import replace_directory, work_directory

from .checkpoint import BeatsCheckpoint, CheckpointError, read_checkpoint
from .model_card import CardDetails, render_model_card
from .publishing import PublishingError, check_account, publish


class Origin(str, enum.Enum):
    AUTO = "auto"
    MICROSOFT = "microsoft"
    ESPNET = "espnet"
    AVEX = "avex"
    PRETRAINED_SED = "pretrained-sed"


def convert(
    source: Path,
    output_dir: Path,
    origin: Origin = Origin.AUTO,
    fbank_mean: float | None = None,
    fbank_std: float | None = None,
    overwrite: bool = False,
    repo_id: str | None = None,
    revision: str | None = None,
    details: CardDetails | None = None,
    cfg: Sequence[str | Path] = (),
) -> BeatsCheckpoint:
    """
    Converts `source` into `output_dir`: configuration, weights (safetensors), feature extractor, remote code and card.

    Everything is written to a temporary directory beside `output_dir` and renamed at the end, so that a refused or
    interrupted conversion leaves everything as it was. The card says how to load the model from `repo_id` at
    `revision`, or from the directory itself, and what `details` tells of it. `origin` and `cfg` are those of
    [`read_checkpoint`].

    Raises:
        CheckpointError: if the checkpoint, the statistics or `output_dir` ([`check_output_dir`]) are refused.
    """
    # Unlike `Path.resolve`, without an exception of its own for links that go in circles.
    output_dir = Path(os.path.realpath(output_dir))
    check_output_dir(output_dir, overwrite)
    checkpoint = read_checkpoint(source, origin.value, cfg)
    statistics = {"fbank_mean": fbank_mean, "fbank_std": fbank_std}
    try:
        extractor = BeatsFeatureExtractor(
            feature_size=checkpoint.config.num_mel_bins,
            patch_size=checkpoint.config.patch_size,
            **{name: value for name, value in statistics.items() if value is not None},
        )
    except ValueError as error:
        raise CheckpointError(str(error)) from error
    output_dir.parent.mkdir(parents=True, exist_ok=True)
    with work_directory(output_dir.parent, f".{output_dir.name}.") as work:
        new = work / "new"
        try:
            checkpoint.build_model().save_pretrained(new)
        except SafetensorError as error:
            # What the library makes of a full disk.
            raise CheckpointError(f"{output_dir}: the weights could not be written: {error}") from error
        extractor.save_pretrained(new)
        card = render_model_card(checkpoint, extractor, source.name, repo_id or ".", revision, details)
        card.save(new / "README.md")
        replace_directory(new, output_dir)
    return checkpoint


def check_output_dir(output_dir: Path, overwrite: bool) -> None:
    """
    Raises a [`CheckpointError`] unless `output_dir`, an absolute path, can be written without losing anything: it must
    be absent or empty or, with `overwrite`, hold a BEATs model.
    """
    if Path.cwd().is_relative_to(output_dir):
        raise CheckpointError(f"{output_dir}: is the current directory or contains it; name a directory of its own.")
    if not output_dir.exists():
        return
    if not output_dir.is_dir():
        raise CheckpointError(f"{output_dir}: is a file.")
    if not any(output_dir.iterdir()):
        return
    if not overwrite:
        raise CheckpointError(f"{output_dir}: is not empty; pass --overwrite to replace it.")
    try:
        model_type = json.loads((output_dir / "config.json").read_text())["model_type"]
    except (OSError, ValueError, KeyError, TypeError):
        model_type = ""
    if not str(model_type).startswith("beats"):
        raise CheckpointError(f"{output_dir}: holds no BEATs model; --overwrite replaces nothing else.")
    if any(output_dir.glob("*.pt")):
        raise CheckpointError(f"{output_dir}: holds .pt files; move them away, --overwrite would delete them.")


def main(
    source: Annotated[Path, typer.Argument(help="Checkpoint: Microsoft's .pt, or another that holds a BEATs model.")],
    output_dir: Annotated[Path, typer.Argument(help="Directory to write; `from_pretrained` reads it.")],
    origin: Annotated[
        Origin, typer.Option(help="Who wrote the file: decides what a value missing in its `cfg` means.")
    ] = Origin.AUTO,
    cfg: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FILE|released",
            help="For a file that does not state its architecture: one that does, or that of Microsoft's models. "
            "May be given several times; a later file overrides an earlier one.",
        ),
    ] = None,
    fbank_mean: Annotated[
        float | None, typer.Option(help="Mean of the fbank in training, if not AudioSet's 15.41663.")
    ] = None,
    fbank_std: Annotated[float | None, typer.Option(help="Its standard deviation, if not AudioSet's 6.55582.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace OUTPUT_DIR.")] = False,
    push_to_hub: Annotated[
        str | None, typer.Option(metavar="REPO_ID", help="Publish OUTPUT_DIR on the Hub, as account/name.")
    ] = None,
    private: Annotated[bool, typer.Option("--private", help="A new repository is private.")] = False,
    revision: Annotated[str | None, typer.Option(help="Branch to publish on, made if there is none.")] = None,
) -> None:
    """Convert a BEATs checkpoint (pre-trained, fine-tuned or tokenizer) for transformers."""
    # So that an ended conversion cleans up as an interrupted one does.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        if push_to_hub is not None:
            check_account(push_to_hub)
        elif private or revision is not None:
            raise CheckpointError("--private and --revision belong to --push-to-hub, which is not given.")
        checkpoint = convert(
            source, output_dir, origin, fbank_mean, fbank_std, overwrite, push_to_hub, revision, cfg=cfg or ()
        )
    except (CheckpointError, PublishingError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        raise typer.Exit(code=1) from None
    num_parameters = sum(tensor.numel() for tensor in checkpoint.state_dict.values())
    print(f"{output_dir}: BEATs, {checkpoint.kind}, {num_parameters / 1e6:.1f} M values")
    for note in checkpoint.notes:
        print(f"  {note}")
    if push_to_hub is None:
        return
    # The weights would otherwise be held twice while the download is checked; the model refers to itself.
    del checkpoint
    gc.collect()
    try:
        publication = publish(output_dir, push_to_hub, private, revision)
    except PublishingError as error:
        print(f"error: {error}\n{output_dir} is complete; with --overwrite the same command goes on.", file=sys.stderr)
        raise typer.Exit(code=1) from None
    print(f"{publication.repo_id}: {'published' if publication.is_new else 'unchanged'}, commit {publication.commit}")


if __name__ == "__main__":
    typer.run(main)
