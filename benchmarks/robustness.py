# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""
Accuracy of a classifier on shorter, compressed and narrow-band versions of the same clips. Needs the program ffmpeg.

    python -m benchmarks.robustness --model CHECKPOINT --dataset FOLDER --fold 1 --output runs/robustness
"""

import json
import subprocess
from collections.abc import Callable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any, TypeAlias

import numpy as np
import soundfile
import torch
import typer
from rich.console import Console
from rich.table import Table
from scipy.stats import binomtest

from benchmarks.clips import load_classifier, read_clips
from transformers_beats.audio.decoding import decode_audio
from transformers_beats.inference.results import to_scores
from transformers_beats.utils.errors import errors_in_one_line
from transformers_beats.utils.files import replace_file
from transformers_beats.utils.machine import describe_machine, in_a_line


# A version of a waveform at the model's rate.
Version: TypeAlias = Callable[[np.ndarray], np.ndarray]

SECONDS = (3.0, 2.0, 1.0, 0.5, 0.25)
# Suffix of the file, ffmpeg's encoder, and bit rates in kbit/s of mono at the model's rate.
CODECS = {
    "MP3": ("mp3", "libmp3lame", (64, 32, 16, 8)),
    "AAC": ("m4a", "aac", (64, 32, 16)),
    "Vorbis": ("ogg", "libvorbis", (48, 32)),
    "Opus": ("opus", "libopus", (64, 32, 16, 8)),
}
# Rates of telephones and of simple recorders.
RATES = (8000, 4000)


def loudest(waveform: np.ndarray, num_samples: int) -> np.ndarray:
    """The part of this length with the most energy; the whole of a shorter clip."""
    if len(waveform) <= num_samples:
        return waveform
    sums = np.concatenate([[0.0], np.cumsum(np.square(waveform, dtype=np.float64))])
    start = int((sums[num_samples:] - sums[:-num_samples]).argmax())
    return waveform[start : start + num_samples]


def through_ffmpeg(waveform: np.ndarray, rate: int, suffix: str, arguments: list[str]) -> np.ndarray:
    """The clip after ffmpeg wrote it with these arguments, and this package decoded it."""
    with TemporaryDirectory() as directory:
        source, target = Path(directory, "source.wav"), Path(directory, f"coded.{suffix}")
        soundfile.write(source, waveform, rate, subtype="PCM_16")
        command = ["ffmpeg", "-nostdin", "-v", "error", "-i", str(source), *arguments, str(target)]
        subprocess.run(command, check=True)
        return decode_audio(target, rate)


def make_versions(rate: int) -> dict[str, Version]:
    """Names of versions, and how each is made from a clip at this rate."""
    versions: dict[str, Version] = {"as it is": lambda waveform: waveform}
    versions |= {f"loudest {seconds:g} s": partial(loudest, num_samples=round(seconds * rate)) for seconds in SECONDS}
    for name, (suffix, encoder, kilobits) in CODECS.items():
        for bits in kilobits:
            arguments = ["-c:a", encoder, "-b:a", f"{bits}k"]
            versions[f"{name}, {bits} kbit/s"] = partial(through_ffmpeg, rate=rate, suffix=suffix, arguments=arguments)
    for other in RATES:
        versions[f"sampled at {other:,} Hz"] = partial(
            through_ffmpeg, rate=rate, suffix="wav", arguments=["-ar", str(other)]
        )
    return versions


def describe(scores: np.ndarray, reference: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """
    Accuracy with Wilson's 95 % interval, the share of clips whose best class is that of the clips as they are, and the
    mean change of its probability. `scores` and `reference` have the shape `(num_clips, num_labels)`.
    """
    right, best = scores.argmax(axis=1) == labels, reference.argmax(axis=1)
    interval = binomtest(int(right.sum()), len(right)).proportion_ci(method="wilson")
    clips = np.arange(len(labels))
    return {
        "accuracy": float(right.mean()),
        "low": float(interval.low),
        "high": float(interval.high),
        "same_class": float((scores.argmax(axis=1) == best).mean()),
        "change": float((scores[clips, best] - reference[clips, best]).mean()),
    }


def make_table(rows: list[dict[str, Any]], title: str) -> Table:
    table = Table(title=title, title_justify="left")
    for header in ("clips", "accuracy", "95 % interval", "same class", "probability", "fbank"):
        table.add_column(header, justify="left" if header == "clips" else "right", no_wrap=True)
    for row in rows:
        table.add_row(
            row["name"],
            f"{row['accuracy']:.1%}",
            f"{row['low']:.0%} to {row['high']:.0%}",
            f"{row['same_class']:.1%}",
            f"{row['change']:+.3f}",
            "" if row["fbank"] is None else f"{row['fbank']:.3f}",
        )
    return table


def main(
    model: Annotated[str, typer.Option(help="Directory, Hub id or name of a classifier")],
    dataset: Annotated[Path, typer.Option(help="Folder with metadata.csv: file_name, label and, for --fold, fold")],
    fold: Annotated[int | None, typer.Option(help="Which clips are taken [all]")] = None,
    output: Annotated[Path | None, typer.Option(help="JSON file to write")] = None,
) -> None:
    """
    The last column is the root mean square difference of the model's input, in units of two standard deviations of
    AudioSet's filter banks as the extractor normalises them; it does not depend on the weights. Each clip is computed
    alone.
    """
    with errors_in_one_line():
        classifier, extractor = load_classifier(model, layers=0)
        clips = read_clips(dataset, fold, classifier.config.id2label, extractor.sampling_rate)
    labels = np.array([clip.label for clip in clips])

    def compute(version: Version) -> tuple[list[torch.Tensor], np.ndarray]:
        features, scores = [], []
        for clip in clips:
            inputs = extractor(version(clip.waveform), sampling_rate=extractor.sampling_rate, return_tensors="pt")
            with torch.inference_mode():
                scores.append(to_scores(classifier(**inputs).logits, classifier.config)[0].numpy())
            features.append(inputs["input_values"][0])
        return features, np.stack(scores)

    rows: list[dict[str, Any]] = []
    reference: tuple[list[torch.Tensor], np.ndarray] | None = None
    for name, version in make_versions(extractor.sampling_rate).items():
        features, scores = compute(version)
        reference = reference or (features, scores)
        # Codecs may append samples; a shorter clip is another input.
        pairs = [(after[: len(before)], before) for after, before in zip(features, reference[0])]
        comparable = all(len(after) == len(before) for after, before in pairs)
        differences = [(after - before).square().mean().sqrt().item() for after, before in pairs if comparable]
        fbank = float(np.mean(differences)) if comparable else None
        rows.append({"name": name, **describe(scores, reference[1], labels), "fbank": fbank})
    machine = describe_machine("cpu")
    Console(width=120).print(make_table(rows, f"{len(clips)} clips of {dataset}\n{in_a_line(machine)}"))
    if output is not None:
        with replace_file(output) as path:
            path.write_text(json.dumps({"machine": machine, "clips": len(clips), "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    typer.run(main)
