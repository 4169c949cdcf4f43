# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Conversion of a BEATs checkpoint, such as Microsoft's `.pt` files, into a directory for `from_pretrained`."""

import gc
import json
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from transformers_beats.utils.errors import BeatsError, UsageError, errors_in_one_line
from transformers_beats.utils.files import replace_directory, work_directory

from .names import Origin


# torch and transformers are imported in the functions, so that --help comes at once.
if TYPE_CHECKING:
    from .checkpoint import BeatsCheckpoint
    from .model_card import CardDetails


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
) -> "BeatsCheckpoint":
    """
    Converts a checkpoint into configuration, weights (safetensors), feature extractor, remote code and model card.

    Everything is written to a temporary directory beside `output_dir` and renamed at the end, so that a refused or
    interrupted conversion leaves everything as it was. `source`, `origin` and `cfg` are those of [`read_checkpoint`],
    `output_dir` and `overwrite` those of [`check_output_dir`]. The statistics of the fbank default to AudioSet's. The
    card names the directory itself, unless `repo_id` and `revision` are given, and has the text of `details`.

    Raises:
        [`UsageError`]: if there is no such source, or statistics or `output_dir` cannot be used.
        [`CheckpointError`]: if the checkpoint cannot be converted.
    """
    from safetensors import SafetensorError
    from transformers.utils import logging

    from transformers_beats import BeatsFeatureExtractor

    from .checkpoint import CheckpointError, read_checkpoint
    from .model_card import render_model_card

    # For the one file that is written.
    logging.disable_progress_bar()
    # Unlike `Path.resolve`, without an exception of its own for links that go in circles.
    output_dir = Path(os.path.realpath(output_dir))
    check_output_dir(output_dir, overwrite)
    checkpoint = read_checkpoint(source, origin, cfg, fbank_mean=fbank_mean, fbank_std=fbank_std)
    options: dict[str, Any] = {**checkpoint.statistics}
    config = checkpoint.config
    try:
        extractor = BeatsFeatureExtractor(config.num_mel_bins, patch_size=config.patch_size, **options)
    except ValueError as error:
        raise UsageError(str(error)) from error
    output_dir.parent.mkdir(parents=True, exist_ok=True)
    with work_directory(output_dir.parent, f".{output_dir.name}.") as work:
        new = work / "new"
        try:
            checkpoint.build_model().save_pretrained(new)
        except SafetensorError as error:
            # safetensors' error for a full disk.
            raise CheckpointError(f"{output_dir}: the weights could not be written: {error}") from error
        extractor.save_pretrained(new)
        card = render_model_card(checkpoint, extractor, source.name, repo_id or ".", revision, details)
        card.save(new / "README.md")
        replace_directory(new, output_dir)
    return checkpoint


def check_output_dir(output_dir: Path, overwrite: bool) -> None:
    """
    Checks that a directory, an absolute path, can be written without losing anything.

    Raises:
        [`UsageError`]: unless it is absent or empty or, with `overwrite`, holds a BEATs model.
    """
    if Path.cwd().is_relative_to(output_dir):
        raise UsageError(f"{output_dir}: is the current directory or contains it; name a directory of its own.")
    if output_dir.exists() and not output_dir.is_dir():
        raise UsageError(f"{output_dir}: is a file.")
    if not output_dir.exists() or not any(output_dir.iterdir()):
        return
    if not overwrite:
        raise UsageError(f"{output_dir}: is not empty; pass --overwrite to replace it.")
    try:
        model_type = json.loads((output_dir / "config.json").read_text())["model_type"]
    except (OSError, ValueError, KeyError, TypeError):
        model_type = ""
    if not str(model_type).startswith("beats"):
        raise UsageError(f"{output_dir}: holds no BEATs model; --overwrite replaces nothing else.")
    if any(output_dir.glob("*.pt")):
        raise UsageError(f"{output_dir}: holds .pt files; move them away, --overwrite would delete them.")


def end_on_sigterm() -> None:
    """Makes SIGTERM raise `SystemExit`, so that an ended conversion cleans up as an interrupted one does."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))


def main(
    source: Annotated[
        str,
        typer.Argument(help="Checkpoint, such as Microsoft's .pt. For the way back, directory or Hub id of a model."),
    ],
    output: Annotated[Path, typer.Argument(help="Directory to write. For the way back, a file that ends in .pt.")],
    origin: Annotated[
        Origin, typer.Option(help="Project that wrote SOURCE: decides the meaning of settings that it lacks.")
    ] = Origin.AUTO,
    cfg: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FILE|released",
            help="File that states the architecture, if SOURCE does not, or that of Microsoft's models. May be given "
            "several times; a later file overrides an earlier one.",
        ),
    ] = None,
    fbank_mean: Annotated[
        float | None, typer.Option(help="Mean of the fbank in training, if not AudioSet's 15.41663.")
    ] = None,
    fbank_std: Annotated[float | None, typer.Option(help="Its standard deviation, if not AudioSet's 6.55582.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace OUTPUT.")] = False,
    push_to_hub: Annotated[
        str | None, typer.Option(metavar="REPO_ID", help="Publish OUTPUT on the Hub, as account/name.")
    ] = None,
    private: Annotated[bool, typer.Option("--private", help="A new repository is private.")] = False,
    revision: Annotated[str | None, typer.Option(help="Branch to publish on, made if there is none.")] = None,
) -> None:
    """Convert a BEATs checkpoint (encoder, classifier or tokenizer) for transformers, or back."""
    end_on_sigterm()
    with errors_in_one_line():
        if push_to_hub is None and (private or revision is not None):
            raise UsageError("--private and --revision belong to --push-to-hub, which is not given.")
        if output.suffix == ".pt":
            others = {
                "--cfg": cfg or None,
                "--fbank-mean": fbank_mean,
                "--fbank-std": fbank_std,
                "--push-to-hub": push_to_hub,
            }
            others["--origin"] = None if origin is Origin.AUTO else origin
            if given := [name for name, value in others.items() if value is not None]:
                raise UsageError(f"{output}: for a conversion to a .pt file, leave out {', '.join(given)}.")
            from .to_microsoft import export

            notes = export(source, output, overwrite)
            typer.echo("\n  ".join([f"{output}: {output.stat().st_size / 2**20:.1f} MiB", *notes]))
            return
        if Path(source).is_dir():
            raise UsageError(f"{source}: is a directory, not a checkpoint. To convert it back, name an OUTPUT.pt.")
        from .publishing import check_account, publish

        if push_to_hub is not None:
            check_account(push_to_hub)
        checkpoint = convert(
            Path(source), output, origin, fbank_mean, fbank_std, overwrite, push_to_hub, revision, cfg=cfg or ()
        )
        num_values = sum(tensor.numel() for tensor in checkpoint.state_dict.values())
        summary = f"{output}: BEATs, {checkpoint.kind}, {num_values / 1e6:.1f} M parameters"
        typer.echo("\n  ".join([summary, *checkpoint.notes]))
        if push_to_hub is None:
            return
        # The weights would otherwise be held twice while the download is checked; the model refers to itself.
        del checkpoint
        gc.collect()
        try:
            publication = publish(output, push_to_hub, private, revision)
        except BeatsError as error:
            raise BeatsError(f"{error} {output} is complete; the same command with --overwrite goes on.") from error
        typer.echo(f"{push_to_hub}: {'published' if publication.is_new else 'unchanged'}, commit {publication.commit}")
