# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""
What probes of a frozen encoder are worth on ESC-10, by probe and by layer:

    python -m benchmarks.probes_esc10 --dataset ESC10 --output runs/probes --threads 1

The protocol, written before the first run:

- Five folds, those of the dataset. For each an encoder is pre-trained by the first iteration of the recipe
  `esc10_iterate`, shortened to `--steps` 250, on the other four folds without labels: no clip of a test fold is seen
  in any stage. One seed, 0, for everything.
- Probes: linear (logistic regression, C = 1), nearest neighbours, one attentive query for all classes, one for each
  class, a learned average of the layers, attention over the layers, binarised prototypes. Those that read one layer
  are trained on each: 0, the input of the first layer, to 4. All settings are the defaults of `probe`.
- What is chosen (number of neighbours, steps of training, and the row "chosen": the layer of each probe) has the least
  log loss in a cross-validation of the clips to learn from. A test fold is looked at once, at the end.
- Reported: accuracy, the mean of the folds; an interval of 95 %, percentiles of a bootstrap over the clips of each
  fold; and the same of the difference from the linear probe of the last layer, on the same draws of clips. A
  difference whose interval holds 0 is no difference. The intervals know nothing of the seed of pre-training, nor of
  that of a probe.

Pre-trained encoders and rows (JSON files in OUTPUT/rows) that are there are not computed again, and OUTPUT is refused
for other arguments.
"""

from pathlib import Path
from typing import Annotated

import torch
import typer

from transformers_beats.utils.resume import begin_or_resume

from .pretraining_esc10 import NUM_FOLDS, pretrain


def main(
    dataset: Annotated[str, typer.Option(help="Folder of ESC-10, with metadata.csv")] = "esc10",
    output: Annotated[Path, typer.Option(help="Where encoders and rows go")] = Path("runs/probes"),
    steps: Annotated[int, typer.Option(help="Steps of each pre-training")] = 250,
    seed: Annotated[int, typer.Option(help="Seed of pre-training and of the probes")] = 0,
    threads: Annotated[int, typer.Option(help="Threads; 0 for all")] = 0,
) -> None:
    """Measures what probes of a frozen encoder are worth on ESC-10."""
    if threads:
        torch.set_num_threads(threads)
    begin_or_resume(output / "settings.json", {"dataset": dataset, "steps": steps, "seed": seed}, output)
    for fold in range(1, NUM_FOLDS + 1):
        changes = ["--num_iterations=1", f"--model.max_steps={steps}", "--diagnosis_clips=0"]
        pretrain(dataset, output / f"fold-{fold}", fold, seed, changes)


if __name__ == "__main__":
    typer.run(main)
