# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""`transformers-beats convert` and `export`: a checkpoint for transformers, or back, and a model as one ONNX file."""

import gc
from pathlib import Path
from typing import Annotated

import typer

from transformers_beats.conversion.locations import MAX_BYTES
from transformers_beats.conversion.names import Head, Origin, use_of
from transformers_beats.utils.errors import BeatsError, UsageError
from transformers_beats.utils.files import check_absent, check_file
from transformers_beats.utils.hub import is_id
from transformers_beats.utils.messages import next_command, note
from transformers_beats.utils.numbers import format_number


def convert(
    source: Annotated[
        str,
        typer.Argument(
            help="Checkpoint: a file, the name of a released model (see `models`), a repository or file on the Hub "
            "(owner/name, hf://owner/name@revision/path), or an https address. For the way back, directory or Hub id "
            "of a model."
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Argument(
            help="Directory to write. For the way back, a file that ends in .pt.", show_default="named after SOURCE"
        ),
    ] = None,
    origin: Annotated[
        Origin, typer.Option(help="Project that wrote SOURCE: decides the meaning of settings that it lacks.")
    ] = Origin.AUTO,
    cfg: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FILE|MODEL|released",
            help="File, Hub id or location of a model that states the architecture, if SOURCE does not, or "
            "`released`: that of Microsoft's models. May be given several times; a later one overrides the earlier.",
        ),
    ] = None,
    labels: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Names of the classes: avex's label_map.json.")
    ] = None,
    head: Annotated[
        Head, typer.Option(help="Head of a file of PretrainedSED: for events, for clips, or both, by attention.")
    ] = Head.AUTO,
    fbank_mean: Annotated[
        float | None,
        typer.Option(help="Mean of the fbank in training.", show_default="as SOURCE states, or AudioSet's 15.41663"),
    ] = None,
    fbank_std: Annotated[
        float | None, typer.Option(help="Its standard deviation.", show_default="the same, or AudioSet's 6.55582")
    ] = None,
    max_size: Annotated[
        float, typer.Option(metavar="GB", min=0, help="Refuse a larger file before it is read.")
    ] = MAX_BYTES / 1e9,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace OUTPUT.")] = False,
    push_to_hub: Annotated[
        str | None, typer.Option(metavar="REPO_ID", help="Publish OUTPUT on the Hub, as account/name.")
    ] = None,
    private: Annotated[bool, typer.Option("--private", help="A new repository is private.")] = False,
    revision: Annotated[str | None, typer.Option(help="Branch to publish on, made if there is none.")] = None,
) -> None:
    """
    Convert a BEATs checkpoint for transformers, or back.

    Encoders, classifiers and tokenizers of Microsoft, OpenBEATs, ESPnet, avex and PretrainedSED.
    """
    if push_to_hub is None and (private or revision is not None):
        raise UsageError("--private and --revision belong to --push-to-hub, which is not given.")
    if output is not None and output.suffix == ".pt":
        others = {
            "--cfg": cfg or None,
            "--labels": labels,
            "--fbank-mean": fbank_mean,
            "--fbank-std": fbank_std,
            "--push-to-hub": push_to_hub,
        }
        others["--max-size"] = max_size if max_size != MAX_BYTES / 1e9 else None
        others["--origin"] = None if origin is Origin.AUTO else origin
        others["--head"] = None if head is Head.AUTO else head
        if given := [name for name, value in others.items() if value is not None]:
            raise UsageError(f"{output}: for a conversion to a .pt file, leave out {', '.join(given)}.")
        from transformers_beats.inference.loading import find_model

        check_absent(output, overwrite)
        find_model(source, ["config.json", "model.safetensors"])
        # Imports torch.
        from transformers_beats.export.to_microsoft import export

        notes = export(source, output, overwrite)
        typer.echo("\n  ".join([f"{output}: {output.stat().st_size / 2**20:.1f} MiB", *notes]))
        note(f"Next: torch.load({str(output)!r}) in Python, as Microsoft's code does.")
        return
    from transformers_beats.conversion import convert as conversion
    from transformers_beats.conversion import released
    from transformers_beats.conversion.outputs import check_output_dir, find_source, stem_of

    found, *bases = [find_source(name) for name in (source, *(name for name in cfg or () if name != "released"))]
    if output is None and isinstance(found, Path) and found.is_dir():
        raise UsageError(f"{source}: is a directory; name an OUTPUT, or an OUTPUT.pt for the way back.")
    if labels is not None:
        check_file(labels)
    output = Path(stem_of(found)) if output is None else output
    check_output_dir(output, overwrite, [path for path in (found, *bases, labels) if isinstance(path, Path)])
    # What cannot be used is refused before these import torch.
    from transformers_beats.conversion.sources import localize
    from transformers_beats.publishing.publish import RefusedError, check_account, publish

    if push_to_hub is not None:
        check_account(push_to_hub)
    is_elsewhere, max_bytes = not isinstance(found, Path), max_size * 1e9
    local = localize(source, cfg or (), labels, max_bytes)
    checkpoint = conversion.convert(
        local.path,
        output,
        origin,
        fbank_mean,
        fbank_std,
        overwrite,
        push_to_hub,
        revision,
        details=local.entry,
        cfg=local.cfg,
        labels=local.labels,
        source_name=local.name,
        notes=local.notes,
        max_bytes=max_bytes,
        head=head,
    )
    size = local.path.stat().st_size
    num_values = sum(tensor.numel() for tensor in checkpoint.state_dict.values())
    lines = [f"{output}: BEATs, {checkpoint.kind}, {num_values / 1e6:.1f} M parameters"]
    if is_elsewhere:
        lines.append(f"from {local.name}, {size:,} bytes, SHA-256 {checkpoint.sha256}")
    if entry := released.find_by_hash(checkpoint.sha256):
        lines.append(f"the file is {entry.file} as it was released: {entry.name} in the list of `models`")
    typer.echo("\n  ".join([*lines, *checkpoint.notes]))
    if push_to_hub is None:
        note(next_command(*use_of(checkpoint.kind, str(output))))
        return
    kind = checkpoint.kind
    # The weights would otherwise be held twice while the download is checked; the model refers to itself.
    del checkpoint
    gc.collect()
    try:
        publication = publish(output, push_to_hub, private, revision)
    except RefusedError:
        raise
    except BeatsError as error:
        again = "goes on" if overwrite else "with --overwrite goes on"
        raise BeatsError(f"{error} {output} is complete; the same command {again}.") from error
    typer.echo(f"{push_to_hub}: {'published' if publication.is_new else 'unchanged'}, commit {publication.commit}")
    # Models of another branch are loaded in Python.
    if revision is None:
        note(next_command(*use_of(kind, push_to_hub)))


def export(
    model: Annotated[str, typer.Argument(help="Name (see `models`), directory, or Hub id.")],
    output: Annotated[Path, typer.Argument(help="File to write (.onnx).")],
    int8: Annotated[bool, typer.Option("--int8", help="Int8 weights, and int8 products at run time.")] = False,
    revision: Annotated[
        str | None, typer.Option(help="Branch, tag or commit on the Hub.", show_default="main")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace OUTPUT.")] = False,
) -> None:
    """Export an encoder, classifier or tokenizer to ONNX, from waveforms to results."""
    from transformers_beats.inference.loading import check_model, load

    check_absent(output, overwrite)
    check_model(model)
    if revision is not None and not is_id(model):
        raise UsageError(f"--revision belongs to a model on the Hub, which {model} is not: leave it out.")
    # What cannot be used is refused before this imports torch, and before a download.
    from transformers_beats.export.onnx import INPUTS, export_onnx, require_exporters

    require_exporters()
    written = export_onnx(*load(model, dtype="float32", revision=revision or "main"), output, int8)
    megabytes = output.stat().st_size / 2**20
    typer.echo(f"{output}: {megabytes:.1f} MiB, {', '.join(INPUTS)} -> {', '.join(written.outputs)}")
    typer.echo(f"  largest difference from PyTorch: {written.difference:.1e}")
    if written.similarity is not None:
        measure = "equal codes" if "audio_codes" in written.outputs else "cosine"
        typer.echo(f"  after quantisation, {measure} on test sounds: {format_number(written.similarity)}")
    if written.same_class is not None:
        typer.echo(f"  the same likeliest label: {written.same_class:.0%}")
    note(f"Next: onnxruntime.InferenceSession({str(output)!r}) in Python.")
