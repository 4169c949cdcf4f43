# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""
Fine-tunes any audio classifier of transformers on a folder `train/CLASS/*.wav`, `test/CLASS/*.wav`, the way its users
do it. Of this package it knows the name only.

    python finetune_with_transformers.py --model MODEL --sounds FOLDER --output_dir DIR --do_train --do_eval
"""

import io
import json
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import soundfile
from datasets import Audio, ClassLabel, Dataset, DatasetDict
from sklearn.metrics import accuracy_score
from transformers import (
    AutoConfig,
    AutoFeatureExtractor,
    AutoModelForAudioClassification,
    HfArgumentParser,
    Trainer,
    TrainingArguments,
    pipeline,
    set_seed,
)

import transformers_beats  # noqa: F401


@dataclass
class Arguments:
    """What this script needs beside `TrainingArguments`."""

    model: str = field(metadata={"help": "Directory or Hub id of a pre-trained model."})
    sounds: str = field(metadata={"help": "Folder of the splits."})
    max_seconds: float = field(default=10.0, metadata={"help": "Longer training clips are cut at random."})


def list_files(folder: Path) -> Dataset:
    """What `load_dataset("audiofolder")` makes of a folder, but without torchcodec."""
    files = sorted(folder.rglob("*.wav"))
    columns = {"audio": [str(file) for file in files], "label": [file.parent.name for file in files]}
    dataset = Dataset.from_dict(columns).cast_column("audio", Audio(decode=False))
    return dataset.cast_column("label", ClassLabel(names=sorted(set(columns["label"]))))


def read(audio: dict) -> np.ndarray:
    """The samples of a file as `datasets` gives it if it is not to decode: its bytes, or its path."""
    return soundfile.read(io.BytesIO(audio["bytes"]) if audio["bytes"] else audio["path"], dtype="float32")[0]


def main() -> None:
    """Trains, evaluates, saves, and classifies the test clips with a pipeline."""
    arguments, training = HfArgumentParser((Arguments, TrainingArguments)).parse_args_into_dataclasses()
    set_seed(training.seed)
    sounds = DatasetDict({split: list_files(Path(arguments.sounds) / split) for split in ("train", "test")})
    names = sounds["train"].features["label"].names

    extractor = AutoFeatureExtractor.from_pretrained(arguments.model)
    config = AutoConfig.from_pretrained(
        arguments.model,
        num_labels=len(names),
        # As text, as transformers' own scripts write them.
        label2id={name: str(number) for number, name in enumerate(names)},
        id2label={str(number): name for number, name in enumerate(names)},
        finetuning_task="audio-classification",
    )
    model = AutoModelForAudioClassification.from_pretrained(arguments.model, config=config)

    generator = np.random.default_rng(training.seed)
    max_samples = round(arguments.max_seconds * extractor.sampling_rate)

    def cut(samples: np.ndarray) -> np.ndarray:
        start = generator.integers(max(len(samples) - max_samples, 0) + 1)
        return samples[start : start + max_samples]

    def featurize(batch: dict, augment=lambda samples: samples) -> dict:
        clips = [augment(read(audio)) for audio in batch["audio"]]
        return {**extractor(clips, sampling_rate=extractor.sampling_rate), "labels": batch["label"]}

    sounds["train"].set_transform(lambda batch: featurize(batch, cut))
    sounds["test"].set_transform(featurize)

    trainer = Trainer(
        model,
        training,
        train_dataset=sounds["train"],
        eval_dataset=sounds["test"],
        compute_metrics=lambda p: {"accuracy": float(accuracy_score(p.label_ids, p.predictions.argmax(axis=-1)))},
        processing_class=extractor,
    )
    if training.do_train:
        trainer.save_metrics("train", trainer.train().metrics)
        trainer.save_model()
        trainer.save_state()
    if training.do_eval:
        trainer.save_metrics("eval", trainer.evaluate())
    trainer.create_model_card(tasks="audio-classification", tags=["audio-classification"])

    # What others do with the result.
    classifier = pipeline("audio-classification", model=training.output_dir)
    sounds["test"].reset_format()
    predictions = [
        {"label": names[row["label"]], "scores": classifier(read(row["audio"]), top_k=None)} for row in sounds["test"]
    ]
    (Path(training.output_dir) / "predictions.json").write_text(json.dumps(predictions), encoding="utf-8")


if __name__ == "__main__":
    main()
