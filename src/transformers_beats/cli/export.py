# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""`transformers-beats export`: a model as one ONNX file."""

from pathlib import Path
from typing import Annotated

import typer

from transformers_beats.utils.files import check_absent
from transformers_beats.utils.messages import note
from transformers_beats.utils.numbers import format_number


def export(
    model: Annotated[str, typer.Argument(help="Name (see `models`), directory, or Hub id.")],
    output: Annotated[Path, typer.Argument(help="File to write (.onnx).")],
    int8: Annotated[bool, typer.Option("--int8", help="Int8 weights, and int8 products at run time.")] = False,
    revision: Annotated[str, typer.Option(help="Branch, tag or commit on the Hub.")] = "main",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace OUTPUT.")] = False,
) -> None:
    """Export a model (encoder, classifier or tokenizer) to one ONNX file, from waveforms to results."""
    from transformers_beats.inference.loading import check_model, load

    check_absent(output, overwrite)
    check_model(model)
    # What cannot be used is refused before this imports torch, and before a download.
    from transformers_beats.export.onnx import INPUTS, export_onnx, require_exporters

    require_exporters()
    written = export_onnx(*load(model, dtype="float32", revision=revision), output, int8)
    megabytes = output.stat().st_size / 2**20
    typer.echo(f"{output}: {megabytes:.1f} MiB, {', '.join(INPUTS)} -> {', '.join(written.outputs)}")
    typer.echo(f"  largest difference from PyTorch: {written.difference:.1e}")
    if written.similarity is not None:
        measure = "equal codes" if "audio_codes" in written.outputs else "cosine"
        typer.echo(f"  after quantisation, {measure} on test sounds: {format_number(written.similarity)}")
    if written.same_class is not None:
        typer.echo(f"  the same likeliest label: {written.same_class:.0%}")
    note(f"Next: onnxruntime.InferenceSession({str(output)!r}) in Python.")
