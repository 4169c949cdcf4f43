# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""
How many codes the random-projection tokenizer uses on ESC-10, with and without normalisation of the patches:

    python benchmarks/random_projection_usage.py ESC10
"""

from pathlib import Path
from typing import Annotated

import torch
import typer
from pretraining_esc10 import load_features
from rich.console import Console
from rich.table import Table

from transformers_beats import (
    BeatsFeatureExtractor,
    BeatsRandomProjectionTokenizer,
    BeatsRandomProjectionTokenizerConfig,
)


@torch.no_grad()
def main(
    dataset: Annotated[Path, typer.Argument(help="Folder of ESC-10, with metadata.csv")],
    seeds: Annotated[int, typer.Option(help="How many projections")] = 3,
) -> None:
    """Perplexity and share of the codes in use, over all patches."""
    clips = load_features(str(dataset), BeatsFeatureExtractor()).with_format("torch")
    table = Table(title="Codes of ESC-10")
    for header in ("normalised", "seed", "perplexity", "codes in use"):
        table.add_column(header)
    for normalize in (False, True):
        for seed in range(seeds):
            config = BeatsRandomProjectionTokenizerConfig(normalize=normalize, seed=seed)
            tokenizer = BeatsRandomProjectionTokenizer(config)
            codes = torch.cat([tokenizer(clip["input_values"].unsqueeze(0)).audio_codes.flatten() for clip in clips])
            counts = codes.bincount(minlength=config.codebook_size)
            perplexity = torch.special.entr(counts / counts.sum()).sum().exp().item()
            in_use = (counts > 0).float().mean().item()
            table.add_row(str(normalize), str(seed), f"{perplexity:.1f}", f"{in_use:.1%}")
    Console().print(table)


if __name__ == "__main__":
    typer.run(main)
