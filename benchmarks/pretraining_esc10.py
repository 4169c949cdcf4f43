# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""
What pre-training on four folds of ESC-10 without labels is worth on the fifth:

    python benchmarks/pretraining_esc10.py --dataset ESC10 --output runs/esc10 [key=value ...]

For every fold: pre-training as in the recipe (`key=value` changes it); for every seed: fine-tuning from scratch and
from the model of each iteration. Whatever is done already is not done again; the tables show all that is.
"""

import json
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from datasets import Array2D, ClassLabel, Dataset, Features, List, Value, load_dataset
from rich.console import Console
from rich.table import Table
from transformers import Trainer, TrainingArguments, set_seed

from transformers_beats import BeatsConfig, BeatsFeatureExtractor, BeatsForAudioClassification
from transformers_beats.audio import decode_audio
from transformers_beats.demo.training import compute_accuracy
from transformers_beats.training.arguments import IterateArguments
from transformers_beats.training.iterate import iterate
from transformers_beats.training.recipes import parse_arguments


RECIPE = Path(__file__).parents[1] / "recipes" / "esc10_iterate.yaml"
NUM_FOLDS = 5


def load_features(dataset: str, extractor: BeatsFeatureExtractor) -> Dataset:
    """Fbank, frame mask, class and fold of every clip; cached on disk."""
    clips = load_dataset("csv", data_files=str(Path(dataset) / "metadata.csv"), split="train")
    names = sorted(set(clips["label"]))
    features = Features(
        {
            "input_values": Array2D((None, extractor.feature_size), "float32"),
            "attention_mask": List(Value("int32")),
            "label": ClassLabel(names=names),
            "fold": Value("int32"),
        }
    )

    def featurize(row):
        waveform = decode_audio(Path(dataset) / row["file_name"], extractor.sampling_rate)
        inputs = extractor([waveform], sampling_rate=extractor.sampling_rate)
        return {name: values[0] for name, values in inputs.items()} | {"label": names.index(row["label"])}

    return clips.map(featurize, features=features, remove_columns=["file_name"]).with_format("torch")


class Rolled(torch.utils.data.Dataset):
    """Every clip turned in time by a random number of frames."""

    def __init__(self, clips: Dataset):
        self.clips = clips

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        row = self.clips[index]
        shift = int(torch.randint(len(row["input_values"]), ()))
        return row | {"input_values": row["input_values"].roll(shift, dims=0)}


def fine_tune(
    source: Path | BeatsConfig,
    clips: Dataset,
    extractor: BeatsFeatureExtractor,
    fold: int,
    seed: int,
    learning_rate: float,
    epochs: int,
    work: Path,
) -> float:
    """Accuracy on one fold after fine-tuning on the others, from a pre-trained model or from random weights."""
    folds = np.array(clips["fold"])
    names = clips.features["label"].names
    set_seed(seed)
    labels = {"num_labels": len(names), "problem_type": "single_label_classification"}
    if isinstance(source, Path):
        model = BeatsForAudioClassification.from_pretrained(source, **labels)
    else:
        model = BeatsForAudioClassification(BeatsConfig(**source.to_diff_dict() | labels))
    arguments = TrainingArguments(
        output_dir=str(work),
        num_train_epochs=epochs,
        per_device_train_batch_size=32,
        per_device_eval_batch_size=40,
        learning_rate=learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=0.1,
        weight_decay=0.01,
        logging_strategy="epoch",
        save_strategy="no",
        report_to="none",
        seed=seed,
        use_cpu=not torch.cuda.is_available(),
        dataloader_pin_memory=torch.cuda.is_available(),
        disable_tqdm=True,
    )
    clips = clips.remove_columns("fold")
    trainer = Trainer(
        model,
        arguments,
        train_dataset=Rolled(clips.select(np.flatnonzero(folds != fold))),
        eval_dataset=clips.select(np.flatnonzero(folds == fold)),
        # Trainer then pads batches with `extractor.pad`.
        processing_class=extractor,
        compute_metrics=compute_accuracy,
    )
    trainer.train()
    return trainer.evaluate()["eval_accuracy"]


def print_results(results: Path) -> None:
    """Mean and spread of every variant, over folds and seeds."""
    table = Table(title="ESC-10, accuracy on the fold left out")
    for header in ("run", "start", "mean", "standard deviation", "runs", "fold-seed: accuracy"):
        table.add_column(header)
    groups: dict[tuple[str, str], list[dict]] = {}
    for path in sorted(results.glob("*.json")):
        result = json.loads(path.read_text())
        groups.setdefault((result["name"], result["start"]), []).append(result)
    for (name, start), group in groups.items():
        accuracies = np.array([result["accuracy"] for result in group])
        spread = f"{accuracies.std(ddof=1):.1%}" if len(group) > 1 else "-"
        each = ", ".join(f"{result['fold']}-{result['seed']}: {result['accuracy']:.1%}" for result in group)
        table.add_row(name, start, f"{accuracies.mean():.1%}", spread, str(len(group)), each)
    Console(width=140).print(table)


def print_pretraining(output: Path) -> None:
    """What every model of `output` had learned of its codes at the end, over the steps of the last log."""
    table = Table(title="Pre-training, last log")
    names = {
        "loss": "cross-entropy (nats)",
        "code_entropy": "entropy of the codes (nats)",
        "accuracy": "masked-code accuracy",
        "code_perplexity": "perplexity of the codes",
        "codes_alive": "codes in use",
    }
    for header in ("model", "steps", *names.values()):
        table.add_column(header)
    for path in sorted(output.glob("*/iteration-*/model/log_history.json")):
        last = [entry for entry in json.loads(path.read_text()) if "loss" in entry][-1]
        name = str(path.parent.relative_to(output))
        table.add_row(name, str(last["step"]), *(f"{last[key]:.3f}" for key in names))
    Console(width=140).print(table)


def main(
    overrides: Annotated[list[str] | None, typer.Argument(help="key=value for the recipe")] = None,
    dataset: Annotated[str, typer.Option(help="Folder of ESC-10, with metadata.csv")] = "../shared/data/esc10",
    output: Annotated[Path, typer.Option(help="Where models and results go")] = Path("runs/esc10"),
    name: Annotated[str, typer.Option(help="What a variant of the recipe is called in the table")] = "recipe",
    folds: Annotated[str, typer.Option(help="Folds to test on")] = "1,2",
    seeds: Annotated[str, typer.Option(help="Seeds of fine-tuning, for each of which there is a run")] = "0,1",
    pretraining_seed: Annotated[int, typer.Option(help="Seed of pre-training")] = 0,
    epochs: Annotated[int, typer.Option(help="Epochs of fine-tuning")] = 25,
    learning_rate: Annotated[float, typer.Option(help="Of fine-tuning a pre-trained model")] = 5e-4,
    scratch_learning_rate: Annotated[float, typer.Option(help="Of training from scratch; 0 leaves it out")] = 1e-3,
    threads: Annotated[int, typer.Option(help="Threads; 0 for all")] = 0,
) -> None:
    """Measure what pre-training is worth on ESC-10."""
    if threads:
        torch.set_num_threads(threads)
    extractor = BeatsFeatureExtractor()
    clips = load_features(dataset, extractor)
    results = output / "results"
    results.mkdir(parents=True, exist_ok=True)
    for seed in map(int, seeds.split(",")):
        for fold in map(int, folds.split(",")):
            directory = output / f"{name}-fold{fold}-seed{pretraining_seed}"
            others = [other for other in range(1, NUM_FOLDS + 1) if other != fold]
            recipe = [str(RECIPE), f"data.dataset={dataset}", f"data.select.fold={others}", f"output_dir={directory}"]
            recipe += [f"{stage}.seed={pretraining_seed}" for stage in ("model", "tokenizer", "random_projection")]
            (arguments,) = parse_arguments((IterateArguments,), [*recipe, *(overrides or [])])
            starts: dict[str, tuple[Path | BeatsConfig, float]] = {}
            if scratch_learning_rate:
                starts["scratch"] = (BeatsConfig(**arguments.model["config"]), scratch_learning_rate)
            for number in range(1, arguments.num_iterations + 1):
                starts[f"iteration-{number}"] = (directory / f"iteration-{number}" / "model", learning_rate)
            for start, (source, rate) in starts.items():
                result = results / f"{name}-{start}-fold{fold}-seed{seed}.json"
                if result.exists():
                    continue
                if isinstance(source, Path):
                    arguments.num_iterations = int(start.rpartition("-")[2])
                    iterate(arguments)
                accuracy = fine_tune(source, clips, extractor, fold, seed, rate, epochs, directory / "fine-tuning")
                values = {"name": name, "start": start, "fold": fold, "seed": seed, "accuracy": accuracy}
                result.write_text(json.dumps(values | {"learning_rate": rate, "epochs": epochs}))
                print_results(results)
    print_results(results)
    print_pretraining(output)


if __name__ == "__main__":
    typer.run(main)
