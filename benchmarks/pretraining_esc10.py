# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""
What pre-training on four folds of ESC-10 without labels is worth on the fifth:

    python benchmarks/pretraining_esc10.py --dataset ESC10 --output runs/esc10 [--key value ...]

For every fold: pre-training as in the recipe (`--key value` changes it, such as `--model.max_steps 100`), and a linear
probe of each encoder; for every seed: fine-tuning from scratch and from the model of each iteration. Whatever is done
already is not done again; the tables show all that is.
"""

import json
from itertools import product
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from datasets import Array2D, ClassLabel, Dataset, Features, List, Value, load_dataset
from rich.console import Console
from rich.table import Table
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from transformers import Trainer, TrainingArguments, set_seed

from transformers_beats import BeatsConfig, BeatsFeatureExtractor, BeatsForAudioClassification
from transformers_beats.audio.decoding import decode_audio
from transformers_beats.demo.training import compute_accuracy
from transformers_beats.training.config.arguments import BeatsTrainingArguments, IterateArguments
from transformers_beats.training.config.recipes import parse_arguments
from transformers_beats.training.iterate import iterate


RECIPE = "esc10_iterate"
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


def build_classifier(source: Path | BeatsConfig, names: list[str], seed: int) -> BeatsForAudioClassification:
    """A classifier from a pre-trained model or, given its configuration, from random weights."""
    set_seed(seed)
    labels = {"num_labels": len(names), "problem_type": "single_label_classification"}
    if isinstance(source, Path):
        return BeatsForAudioClassification.from_pretrained(source, **labels)
    return BeatsForAudioClassification(BeatsConfig(**source.to_diff_dict() | labels))


def fine_tuning_arguments(work: Path, seed: int, learning_rate: float, epochs: int) -> TrainingArguments:
    return BeatsTrainingArguments(
        output_dir=str(work),
        num_train_epochs=epochs,
        per_device_train_batch_size=32,
        per_device_eval_batch_size=40,
        learning_rate=learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=0.1,
        adam_beta2=0.999,
        remove_unused_columns=True,
        logging_strategy="epoch",
        save_strategy="no",
        seed=seed,
        # In float32 on a CPU that does not compute in it.
        bf16=True,
        disable_tqdm=True,
    )


def fine_tune(
    model: BeatsForAudioClassification,
    clips: Dataset,
    extractor: BeatsFeatureExtractor,
    fold: int,
    arguments: TrainingArguments,
) -> float:
    """Accuracy on one fold after fine-tuning on the others."""
    folds = np.array(clips["fold"])
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


@torch.no_grad()
def probe(model: BeatsForAudioClassification, clips: Dataset, fold: int) -> float:
    """Accuracy on one fold of a logistic regression on what the frozen encoder makes of the others."""
    encoder = model.beats.eval()
    clips = clips.with_format("torch")
    features = [encoder(clip["input_values"].unsqueeze(0).to(encoder.device)).pooler_output for clip in clips]
    pooled = torch.cat(features).float().cpu().numpy()
    labels, is_test = np.array(clips["label"]), np.array(clips["fold"]) == fold
    classifier = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
    classifier.fit(pooled[~is_test], labels[~is_test])
    return float(classifier.score(pooled[is_test], labels[is_test]))


def format_accuracies(results: list[dict], key: str) -> str:
    accuracies = np.array([result[key] for result in results])
    spread = f" ± {accuracies.std(ddof=1):.1%}" if len(accuracies) > 1 else ""
    return f"{accuracies.mean():.1%}{spread}"


def print_results(results: Path) -> None:
    """Mean and standard deviation of every variant, over folds and seeds."""
    table = Table(title="ESC-10, accuracy on the fold left out")
    for header in ("run", "start", "linear probe", "fine-tuned", "fold-seed: fine-tuned"):
        table.add_column(header)
    groups: dict[tuple[str, str], list[dict]] = {}
    for path in sorted(results.glob("*.json")):
        result = json.loads(path.read_text())
        groups.setdefault((result["name"], result["start"]), []).append(result)
    for (name, start), group in groups.items():
        # The probe of a pre-trained encoder does not depend on the seed of fine-tuning.
        probed = list({(result["fold"], result["probe"]): result for result in group}.values())
        each = ", ".join(f"{result['fold']}-{result['seed']}: {result['accuracy']:.1%}" for result in group)
        table.add_row(name, start, format_accuracies(probed, "probe"), format_accuracies(group, "accuracy"), each)
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


def build_recipe(dataset: str, directory: Path, fold: int, seed: int, overrides: list[str]) -> IterateArguments:
    """The recipe for pre-training on all folds but one."""
    others = [other for other in range(1, NUM_FOLDS + 1) if other != fold]
    recipe = ["--config", RECIPE, f"--data.dataset={dataset}", f"--data.select.fold={others}"]
    recipe += [f"--output_dir={directory}"]
    recipe += [f"--{stage}.seed={seed}" for stage in ("model", "tokenizer", "random_projection")]
    (arguments,) = parse_arguments((IterateArguments,), [*recipe, *overrides])
    return arguments


def find_starts(arguments: IterateArguments, is_scratch_left_out: bool) -> dict[str, Path | BeatsConfig]:
    """What fine-tuning starts from: the configuration of a new model, and where each iteration's will be."""
    starts: dict[str, Path | BeatsConfig] = {}
    if not is_scratch_left_out:
        starts["scratch"] = BeatsConfig(**arguments.model["model_config"])
    for number in range(1, arguments.num_iterations + 1):
        starts[f"iteration-{number}"] = Path(arguments.output_dir) / f"iteration-{number}" / "model"
    return starts


def main(
    context: typer.Context,
    dataset: Annotated[str, typer.Option(help="Folder of ESC-10, with metadata.csv")] = "esc10",
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
    for seed, fold in product(map(int, seeds.split(",")), map(int, folds.split(","))):
        directory = output / f"{name}-fold{fold}-seed{pretraining_seed}"
        arguments = build_recipe(dataset, directory, fold, pretraining_seed, context.args)
        for start, source in find_starts(arguments, is_scratch_left_out=not scratch_learning_rate).items():
            result = results / f"{name}-{start}-fold{fold}-seed{seed}.json"
            rate = learning_rate if isinstance(source, Path) else scratch_learning_rate
            values = {"name": name, "start": start, "fold": fold, "seed": seed, "pretraining_seed": pretraining_seed}
            values |= {"learning_rate": rate, "epochs": epochs}
            if result.exists():
                earlier = json.loads(result.read_text())
                if any(earlier[key] != value for key, value in values.items()):
                    raise typer.BadParameter(f"{result} has other settings than {values}: choose another --name.")
                continue
            if isinstance(source, Path):
                arguments.num_iterations = int(start.rpartition("-")[2])
                iterate(arguments)
            model = build_classifier(source, clips.features["label"].names, seed)
            probed = probe(model, clips, fold)
            training = fine_tuning_arguments(directory / "fine-tuning", seed, rate, epochs)
            accuracy = fine_tune(model, clips, extractor, fold, training)
            result.write_text(json.dumps(values | {"accuracy": accuracy, "probe": probed}))
            print_results(results)
    print_results(results)
    print_pretraining(output)


if __name__ == "__main__":
    app = typer.Typer()
    # What it does not know is for the recipe.
    app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})(main)
    app()
