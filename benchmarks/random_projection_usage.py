# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""
How many codes the random-projection tokenizer uses, with and without normalisation of the patches:

    python -m benchmarks.random_projection_usage FOLDER
"""

from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from transformers_beats import (
    BeatsFeatureExtractor,
    BeatsRandomProjectionTokenizer,
    BeatsRandomProjectionTokenizerConfig,
    WindowedInference,
)


def main(
    folder: Annotated[Path, typer.Argument(help="Folder of WAV files, such as ESC-10")],
    seeds: Annotated[int, typer.Option(help="Number of projections")] = 3,
) -> None:
    """Prints perplexity and share of the codes in use, over all patches."""
    files = sorted(folder.rglob("*.wav"))
    table = Table("normalised", "seed", "perplexity", "codes in use", title=f"Codes of {len(files)} clips")
    for normalize in (False, True):
        for seed in range(seeds):
            config = BeatsRandomProjectionTokenizerConfig(normalize=normalize, seed=seed)
            inference = WindowedInference(BeatsRandomProjectionTokenizer(config), BeatsFeatureExtractor())
            codes = np.concatenate([found.values.ravel() for found in inference.codes_many(files)])
            shares = np.bincount(codes, minlength=config.codebook_size) / len(codes)
            used = shares[shares > 0]
            perplexity = np.exp(-(used * np.log(used)).sum())
            table.add_row(str(normalize), str(seed), f"{perplexity:.1f}", f"{len(used) / len(shares):.1%}")
    Console().print(table)


if __name__ == "__main__":
    typer.run(main)
