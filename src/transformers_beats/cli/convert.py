# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""`transformers-beats convert`: a checkpoint for transformers, or back."""

import gc
from pathlib import Path
from typing import Annotated

import typer

from transformers_beats.conversion.names import Origin
from transformers_beats.utils.errors import BeatsError, UsageError, end_on_sigterm


def convert(
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
        from transformers_beats.export.to_microsoft import export

        notes = export(source, output, overwrite)
        typer.echo("\n  ".join([f"{output}: {output.stat().st_size / 2**20:.1f} MiB", *notes]))
        return
    if Path(source).is_dir():
        raise UsageError(f"{source}: is a directory, not a checkpoint. To convert it back, name an OUTPUT.pt.")
    from transformers_beats.conversion import convert as conversion
    from transformers_beats.publishing.publish import check_account, publish

    if push_to_hub is not None:
        check_account(push_to_hub)
    checkpoint = conversion.convert(
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
