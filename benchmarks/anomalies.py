# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""
Which back end, pooling and layer finds anomalous sounds:

    python -m benchmarks.anomalies --dataset ESC10 --output runs/anomalies --threads 1

Protocol, fixed before the runs:

- *Machines*: motor, fan and valve of `audio.machines`, three seeds each, clips of 3 s. A detector is fitted on 60
  normal clips of the source domain and 10 of the target domain. Tests are 20 normal clips of each domain, and 20 with
  a defect at each of three ratios to machine and background. Measured are the official score of DCASE's task 2 of each
  machine and seed (harmonic mean of AUC source, AUC target, pAUC), and the share of normal test clips of each
  domain that are called anomalous at a rate of 0.05 (that of the target domain was added after a first look).
- *ESC-10*: each class in turn is normal. A detector is fitted on its clips in folds 2 to 5, 32 of them; tests are the
  80 clips of fold 1. Measured is the AUC of each class.
- Models: the first iteration of the recipe `esc10_iterate`, pre-trained on folds 2 to 5; the same model with random
  weights; and, without a model, mean and deviation over time of each mel filter, in the same eight bands.
- Rows: back ends by poolings by layers, with separate bands; then bands and domains changed one at a time. The table
  has means over machines and seeds, or classes, with 95 % intervals of `scipy.stats.bootstrap` over these.

Every row is a JSON file in OUTPUT/rows, and vectors are in OUTPUT/vectors: what is there is not computed again, and
OUTPUT is refused for other arguments.
"""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Annotated, Any, NamedTuple, get_args

import numpy as np
import pandas as pd
import torch
import typer
from rich.console import Console
from rich.table import Table
from safetensors.numpy import load_file, save
from scipy.stats import bootstrap

from benchmarks.codes_ablation import make_teacher
from benchmarks.resuming import read_or_compute
from transformers_beats import BeatsFeatureExtractor, BeatsModel
from transformers_beats.anomalies.bank import MemoryBank
from transformers_beats.anomalies.calibration import threshold_of
from transformers_beats.anomalies.choices import BackendName, DetectorSettings, TimePooling
from transformers_beats.anomalies.dcase import measure_section, official_score
from transformers_beats.anomalies.embedding import read_columns, to_vectors
from transformers_beats.anomalies.pooling import arrange_bands
from transformers_beats.audio.machines import DOMAINS, MACHINES, SAMPLING_RATE, synthesize_machine
from transformers_beats.inference.windowed import WindowedInference
from transformers_beats.utils.files import replace_file
from transformers_beats.utils.resume import begin_or_resume


POOLINGS: tuple[TimePooling, ...] = get_args(TimePooling)
BACKENDS: tuple[BackendName, ...] = get_args(BackendName)
NUM_TRAIN = {"source": 60, "target": 10}
NUM_TEST, DEFECTS_DB = 20, (-6, -12, -18)
TEST_FOLD, RATE, NUM_BANDS = 1, 0.05, 8


class Clip(NamedTuple):
    """
    A clip: its samples or file; its machine and seed, or class; domain; split; and ratio of its defect in dB, or None.
    """

    audio: Any
    group: str
    domain: str
    split: str
    defect_db: int | None


def machine_clips(seeds: int) -> Iterator[Clip]:
    """Yields the clips of all machines and seeds; each has a generator of its own."""
    for number, machine in enumerate(MACHINES):
        for seed in range(seeds):
            for side, domain in enumerate(DOMAINS):
                kinds = [("train", None, NUM_TRAIN[domain]), *(("test", db, NUM_TEST) for db in (None, *DEFECTS_DB))]
                for kind, (split, db, count) in enumerate(kinds):
                    for index in range(count):
                        generator = np.random.default_rng([seed, number, side, kind, index])
                        audio = synthesize_machine(machine, generator, db, domain)
                        yield Clip(audio, f"{machine} {seed}", domain, split, db)


def esc10_clips(dataset: Path) -> Iterator[Clip]:
    """Yields the clips of ESC-10, with their class as the group."""
    for row in pd.read_csv(dataset / "metadata.csv").itertuples():
        yield Clip(dataset / row.file_name, row.label, "", "test" if row.fold == TEST_FOLD else "train", None)


def embed(clips: list[Clip], inference: WindowedInference, layers: list[int]) -> dict[str, np.ndarray]:
    """Returns vectors `(num_clips, num_layers, num_bands, hidden_size)` of each pooling."""
    pooled: dict[str, list[np.ndarray]] = {pooling: [] for pooling in POOLINGS}
    settings = {pooling: DetectorSettings(tuple(layers), pooling) for pooling in POOLINGS}
    recordings = (
        {"array": clip.audio, "sampling_rate": SAMPLING_RATE} if isinstance(clip.audio, np.ndarray) else clip.audio
        for clip in clips
    )
    for columns in read_columns(inference, recordings, settings["mean"]):
        for pooling in POOLINGS:
            pooled[pooling].append(to_vectors(columns.values, settings[pooling]))
    return {pooling: np.stack(values) for pooling, values in pooled.items()}


def fbank_statistics(clips: list[Clip], extractor: BeatsFeatureExtractor) -> dict[str, np.ndarray]:
    """Returns mean and deviation over time of the filters of each band, `(num_clips, 1, num_bands, 2 * filters)`."""
    from transformers_beats.audio.decoding import open_audio

    vectors = []
    for clip in clips:
        blocks = open_audio(clip.audio, SAMPLING_RATE, SAMPLING_RATE).blocks
        waveform = np.concatenate(list(blocks))
        fbank = extractor(waveform, sampling_rate=SAMPLING_RATE, return_tensors="np")["input_values"][0]
        bands = [part.reshape(NUM_BANDS, -1) for part in (fbank.mean(axis=0), fbank.std(axis=0))]
        vectors.append(np.concatenate(bands, axis=1)[None])
    return {"mean": np.stack(vectors).astype(np.float32)}


def measure_machines(
    clips: list[Clip], vectors: np.ndarray, settings: DetectorSettings, by_domain: bool
) -> dict[str, list[float]]:
    """Returns the official score of each machine and seed at each ratio, and the share of false alarms."""
    found: dict[str, list[float]] = {str(db): [] for db in DEFECTS_DB}
    found |= {f"false alarms, {domain}": [] for domain in DOMAINS}
    for group in dict.fromkeys(clip.group for clip in clips):
        own = [index for index, clip in enumerate(clips) if clip.group == group]
        train = [index for index in own if clips[index].split == "train"]
        domains = dict.fromkeys(clips[index].domain if by_domain else "" for index in train)
        bank = MemoryBank(
            {name: vectors[[index for index in train if name in ("", clips[index].domain)]] for name in domains},
            settings,
        )
        tests = np.array([index for index in own if clips[index].split == "test"])
        scores, ratios = bank.score(vectors[tests]), [clips[index].defect_db for index in tests]
        sides = [clips[index].domain for index in tests]
        for db in DEFECTS_DB:
            chosen = [place for place, ratio in enumerate(ratios) if ratio in (None, db)]
            labels = np.array([ratios[place] is not None for place in chosen])
            section = measure_section(labels, scores[chosen], [sides[place] for place in chosen])
            found[str(db)].append(official_score([section]))
        threshold = threshold_of(bank.normal_scores(), RATE)
        for domain in DOMAINS:
            normal = [place for place, ratio in enumerate(ratios) if ratio is None and sides[place] == domain]
            found[f"false alarms, {domain}"].append(float(np.mean(scores[normal] > threshold)))
    return found


def measure_esc10(clips: list[Clip], vectors: np.ndarray, settings: DetectorSettings) -> dict[str, list[float]]:
    """Returns the AUC of each class against the others."""
    tests = np.array([index for index, clip in enumerate(clips) if clip.split == "test"])
    found = []
    for group in dict.fromkeys(clip.group for clip in clips):
        train = [index for index, clip in enumerate(clips) if clip.split == "train" and clip.group == group]
        scores = MemoryBank({"": vectors[train]}, settings).score(vectors[tests])
        labels = np.array([clips[index].group != group for index in tests])
        found.append(measure_section(labels, scores, [""] * len(tests)).auc_source)
    return {"auc": found}


def interval(values: list[float]) -> str:
    """Returns the mean in per cent, with its interval."""
    if min(values) == max(values):
        return f"{100 * values[0]:.1f}"
    found = bootstrap((values,), np.mean, n_resamples=2000, rng=0).confidence_interval
    return f"{100 * np.mean(values):.1f} ({100 * found.low:.1f} to {100 * found.high:.1f})"


def rows_of(model: str, num_layers: int) -> Iterator[tuple[str, int, DetectorSettings, bool]]:
    """Yields name, place of the layer, settings, and whether domains are apart, of each row of a model."""
    layers = [num_layers // 2, num_layers] if num_layers else [0]
    poolings = POOLINGS if num_layers else ("mean",)
    for place, layer in enumerate(layers):
        for pooling in poolings:
            for backend in BACKENDS:
                yield (
                    f"{model}, layer {layer}, {pooling}, {backend}",
                    place,
                    DetectorSettings((0,), pooling, backend=backend),
                    True,
                )
        for backend in BACKENDS:
            for bands in ("mean", "concat"):
                settings = DetectorSettings((0,), "mean", bands, backend)
                yield f"{model}, layer {layer}, mean, {backend}, bands {bands}", place, settings, True
            settings = DetectorSettings((0,), "mean", backend=backend)
            yield f"{model}, layer {layer}, mean, {backend}, one domain", place, settings, False


def main(
    dataset: Annotated[Path, typer.Option(help="Folder of ESC-10, with metadata.csv")] = Path("esc10"),
    output: Annotated[Path, typer.Option(help="Where models, vectors and rows go")] = Path("runs/anomalies"),
    steps: Annotated[int, typer.Option(help="Steps of the pre-training")] = 200,
    seeds: Annotated[int, typer.Option(help="Seeds of each machine")] = 3,
    threads: Annotated[int, typer.Option(help="Threads; 0 for all")] = 0,
) -> None:
    """Compares back ends, poolings and layers of detectors of anomalous sounds."""
    if threads:
        torch.set_num_threads(threads)
    begin_or_resume(output / "settings.json", {"dataset": str(dataset), "steps": steps, "seeds": seeds}, output)
    _, teacher = make_teacher(str(dataset), output, steps, seed=0)
    extractor = BeatsFeatureExtractor.from_pretrained(teacher)
    pretrained = BeatsModel.from_pretrained(teacher)
    torch.manual_seed(0)
    models = {"pre-trained": pretrained, "random weights": BeatsModel(pretrained.config), "log-mel statistics": None}
    sets = {"machines": list(machine_clips(seeds)), "ESC-10": list(esc10_clips(dataset))}
    num_layers = pretrained.config.num_hidden_layers
    rows: dict[str, dict[str, Any]] = {}
    for folder in ("rows", "vectors"):
        (output / folder).mkdir(parents=True, exist_ok=True)
    for model, network in models.items():
        depth = 0 if network is None else num_layers
        for name, clips in sets.items():
            file = output / "vectors" / f"{model}-{name}.safetensors".replace(" ", "-")
            if not file.exists():
                if network is None:
                    vectors = fbank_statistics(clips, extractor)
                else:
                    vectors = embed(clips, WindowedInference(network, extractor), [depth // 2, depth])
                with replace_file(file) as temporary:
                    temporary.write_bytes(save(vectors))
            vectors = load_file(file)
            for row, place, settings, by_domain in rows_of(model, depth):
                if name == "ESC-10" and not by_domain:
                    continue
                result = output / "rows" / f"{name} {row}.json".replace(" ", "-").replace(",", "")
                chosen = arrange_bands(vectors[settings.pooling][:, [place]], settings.bands)
                if name == "machines":
                    measure = partial(measure_machines, clips, chosen, settings, by_domain)
                else:
                    measure = partial(measure_esc10, clips, chosen, settings)
                rows.setdefault(row, {}).update(read_or_compute(result, measure))
    print_table(rows)
    print_differences(rows, f"pre-trained, layer {num_layers}")


def print_table(rows: dict[str, dict[str, Any]]) -> None:
    """Prints the rows."""
    alarms = [f"false alarms, {domain}" for domain in DOMAINS]
    columns = [*map(str, DEFECTS_DB), *alarms, "auc"]
    table = Table("row", *(f"machines, {db} dB" for db in DEFECTS_DB), *alarms, "ESC-10, AUC")
    for name, row in rows.items():
        table.add_row(name, *(interval(row[key]) if key in row else "" for key in columns))
    Console(width=190).print(table)


def print_differences(rows: dict[str, dict[str, Any]], model: str) -> None:
    """
    Prints by how much each back end differs from nearest neighbors, in the mean over poolings, and each pooling from
    the mean over time, in the mean over back ends: pairs of the same machine and seed, or class.
    """
    keys = {"machines, -12 dB": "-12", "machines, -18 dB": "-18", "ESC-10, AUC": "auc"}
    table = Table("instead of", "", *keys, title=f"Differences, {model}")

    def values(pooling: str, backend: str, key: str) -> np.ndarray:
        return np.array(rows[f"{model}, {pooling}, {backend}"][key])

    def backend_difference(backend: str, key: str) -> np.ndarray:
        return np.mean([values(each, backend, key) - values(each, "knn", key) for each in POOLINGS], axis=0)

    def pooling_difference(pooling: str, key: str) -> np.ndarray:
        return np.mean([values(pooling, each, key) - values("mean", each, key) for each in BACKENDS], axis=0)

    for first, names, difference in (
        ("knn", BACKENDS, backend_difference),
        ("mean", POOLINGS, pooling_difference),
    ):
        for name in names:
            if name != first:
                table.add_row(first, name, *(interval(difference(name, key).tolist()) for key in keys.values()))
    Console(width=190).print(table)


if __name__ == "__main__":
    typer.run(main)
