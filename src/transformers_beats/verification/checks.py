# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Checks of a converted model against the file that it comes from, and against what is known of that file."""

import contextlib
import csv
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from transformers_beats import BeatsFeatureExtractor
from transformers_beats.audio.audioset import AUDIOSET_LABELS
from transformers_beats.audio.decoding import decode_audio
from transformers_beats.inference.loading import labels_of
from transformers_beats.utils.errors import UsageError, name_some
from transformers_beats.utils.files import sha256
from transformers_beats.utils.numbers import format_number

from .plain import FBANK_STD, PlainBeats, plain_features


CLIPS = Path(__file__).with_name("clips")
# Largest difference from the plain implementation, relative to the largest value where that is above 1. Both round in
# float32, in another order.
TOLERANCE = 1e-4
# Of two codes that are equally near, two orders of rounding may choose different ones.
EQUAL_CODES = 0.999
# Classes among which one of the expected ones must be, and those that are reported.
TOP, SHOWN = 10, 3
SPEED_CLIPS, SPEED_SECONDS, SPEED_TURNS = 8, 10, 3
PROBE = {"--freeze": "true", "--crop_seconds": "5"}
PROBE |= {"--per_device_eval_batch_size": "64", "--disable_tqdm": "true"}


@dataclass
class Check:
    """Row of a report: what was checked or measured, with which result."""

    name: str
    result: str
    passed: bool = True


@cache
def read_clips() -> list[dict[str, Any]]:
    """Reads the list of clips with the labels that are expected; `waveform` is mono float32 at 16 kHz."""
    clips = yaml.safe_load((CLIPS / "clips.yaml").read_text(encoding="utf-8"))
    return [{**clip, "waveform": decode_audio(CLIPS / clip["file"], 16000)} for clip in clips]


def check_hash(source: Path, digest: str | None) -> Check:
    """Compares the SHA-256 of a file with that of the release, if it is known."""
    found = sha256(source)
    expected = "as expected" if found == digest else f"expected `{digest}`" if digest else "none is known"
    return Check(f"SHA-256 of {source.name}", f"`{found}`, {expected}", digest in (None, found))


def check_cfg(held: Mapping[str, Any], cfg: Mapping[str, Any]) -> Check:
    """Compares the settings in a file with those that are known of it."""
    others = [f"{name} is {held.get(name)!r}, not {value!r}" for name, value in cfg.items() if held.get(name) != value]
    return Check("`cfg`", ", ".join(others) or f"{len(cfg)} settings as expected", not others)


def check_labels(label_dict: Mapping[int, str] | None, model: Any) -> Check:
    """
    Compares the names of a classifier's labels, and their order, with the machine ids in a file; one without them
    fails.
    """
    if label_dict is None:
        return Check("Labels", "the file has no `label_dict`, by which they could be compared", False)
    names = {int(index): AUDIOSET_LABELS.get(machine_id, machine_id) for index, machine_id in label_dict.items()}
    ours = labels_of(model)
    wrong = [index for index in sorted(names.keys() | ours.keys()) if names.get(index) != ours.get(index)]
    found = f"{len(wrong)} are wrong, such as {wrong[0]}: {ours.get(wrong[0])!r}" if wrong else "as in the file"
    return Check("Labels", f"{len(ours)}, {found}", not wrong)


@torch.no_grad()
def check_outputs(contents: Mapping[str, Any], model: Any, extractor: BeatsFeatureExtractor) -> Iterator[Check]:
    """
    Compares a model in float32 on a CPU, which computes all clips in a padded batch, with the plain implementation,
    which computes each alone. By a classifier whose file names the labels, the clips must be recognised as well.

    The states of single patches are compared from the same filter bank on: beside a loud tone, the logarithm makes
    much of the rounding of an FFT, and a state of the error of its patch. All else begins with the waveform.
    """
    plain, clips = PlainBeats(contents["cfg"], contents["model"]), read_clips()
    inputs = extractor([clip["waveform"] for clip in clips], sampling_rate=16000, return_tensors="pt")
    features = [plain_features([torch.from_numpy(clip["waveform"])]) for clip in clips]
    states, features = [plain.encode(values) for values in features], torch.cat(features, dim=1)[0]
    is_frame = inputs["attention_mask"].bool()
    # Half the logarithm of an energy is that of an amplitude; the mean cancels out.
    loudest = features.amax(dim=1, keepdim=True)
    amplitudes = [((values - loudest) * FBANK_STD).exp() for values in (inputs["input_values"][is_frame], features)]
    yield compare("Filter bank, amplitudes by the loudest in a frame", *amplitudes)
    same = inputs["input_values"].clone()
    same[is_frame] = features
    encoded = getattr(model, "beats", model)(same, attention_mask=inputs["attention_mask"])
    ours, theirs = encoded.last_hidden_state[encoded.patch_attention_mask], torch.cat(states, dim=1)[0]
    yield compare("Hidden states", ours, theirs)
    outputs = model(**inputs)
    if "predictor.weight" in plain.weights:
        probabilities = outputs.logits.sigmoid()
        yield compare("Probabilities", probabilities, torch.cat([plain.classify(row) for row in states]))
        if contents.get("label_dict") is not None:
            yield from check_hearing(probabilities, labels_of(model))
    elif "quantize.embedding.weight" in plain.weights:
        codes = outputs.audio_codes.flatten(1)
        equal = codes[codes >= 0] == torch.cat([plain.quantize(row)[0] for row in states])
        share = equal.float().mean().item()
        yield Check("Codes", f"{share:.4%} of {len(equal):,} equal", share >= EQUAL_CODES)
    else:
        yield compare("Embeddings", outputs.pooler_output, torch.cat([row.mean(dim=1) for row in states]))


def compare(name: str, ours: torch.Tensor, theirs: torch.Tensor) -> Check:
    """Compares values with those of the plain implementation."""
    if ours.shape != theirs.shape:
        return Check(name, f"shapes {tuple(ours.shape)} and {tuple(theirs.shape)}", False)
    difference, largest = (ours - theirs).abs().max().item(), theirs.abs().max().item()
    result = f"at most {difference:.1e} from the plain implementation, of values up to {largest:.3g}"
    # NaN fails: it is not below anything.
    return Check(name, result, difference <= TOLERANCE * max(1, largest))


def check_hearing(probabilities: torch.Tensor, labels: Mapping[int, str]) -> Iterator[Check]:
    """Checks that one of the expected labels of each clip is among those with the highest probabilities."""
    for clip, row in zip(read_clips(), probabilities):
        values, indices = row.topk(min(TOP, len(row)))
        heard = [labels[index] for index in indices.tolist()]
        shown = ", ".join(f"{name} {format_number(value)}" for name, value in zip(heard[:SHOWN], values.tolist()))
        found = next((rank for rank, name in enumerate(heard, start=1) if name in clip["labels"]), None)
        place = f"place {found}" if found else f"none in the first {TOP}"
        expected = name_some([heard[found - 1]] if found else clip["labels"])
        yield Check(f"Heard in {clip['file']}", f"{shown}; expected: {expected} ({place})", found is not None)


@torch.inference_mode()
def measure_speed(model: Any, extractor: BeatsFeatureExtractor) -> Check:
    """Measures clips per second, from waveforms to outputs, where the model is: the median of some turns."""
    waveforms = list(np.random.default_rng(0).normal(0, 0.1, (SPEED_CLIPS, SPEED_SECONDS * 16000)).astype(np.float32))
    times = []
    for _ in range(1 + SPEED_TURNS):
        start = time.perf_counter()
        inputs = extractor(waveforms, sampling_rate=16000, return_tensors="pt", device=str(model.device))
        # Waits for a GPU.
        model(**inputs.to(model.device))[0].sum().item()
        times.append(time.perf_counter() - start)
    name = f"Clips of {SPEED_SECONDS} s per second, batches of {SPEED_CLIPS}, float32"
    # The first turn allocates.
    return Check(name, f"{SPEED_CLIPS / statistics.median(times[1:]):.3g}")


def find_table(folder: Path) -> Path:
    """
    Returns the table of ESC-50, whose folder has `meta/esc50.csv` and `audio/`; or of another dataset, `metadata.csv`
    with the columns `file_name`, `label` and `fold`. Raises a [`UsageError`] if there is none.
    """
    for table in (folder / "meta" / "esc50.csv", folder / "metadata.csv"):
        if table.is_file():
            return table
    raise UsageError(f"{folder}: is no copy of ESC-50, it has no meta/esc50.csv; and no metadata.csv.")


def probe_folds(directory: Path, folder: Path) -> Check:
    """Trains the package's linear probe on the official folds of a dataset: see [`find_table`]."""
    from transformers_beats.training.config.arguments import FINETUNE_ARGUMENTS, Arguments
    from transformers_beats.training.config.recipes import parse_arguments
    from transformers_beats.training.finetune import finetune

    table = find_table(folder)
    is_esc50 = table.name == "esc50.csv"
    # Standard output is for the report.
    with tempfile.TemporaryDirectory() as work, contextlib.redirect_stdout(sys.stderr):
        if is_esc50:
            copy = Path(work) / "metadata.csv"
            with (
                table.open(newline="", encoding="utf-8") as file,
                copy.open("w", newline="", encoding="utf-8") as ours,
            ):
                writer = csv.writer(ours)
                writer.writerow(("file_name", "label", "fold"))
                audio = (folder / "audio").absolute()
                writer.writerows(
                    (audio / row["filename"], row["category"], row["fold"]) for row in csv.DictReader(file)
                )
        options = {"--dataset": work if is_esc50 else folder, "--model_name_or_path": directory, **PROBE}
        options |= {"--label_column": "label", "--fold_column": "fold", "--output_dir": Path(work) / "probe"}
        words = [str(word) for option in options.items() for word in option]
        metrics = finetune(Arguments(*parse_arguments(FINETUNE_ARGUMENTS, words)), prints=False)
    name = f"Linear probe on {folder.absolute().name}, accuracy in {len(metrics['folds'])} folds"
    mean, std = (format_number(metrics[key]["accuracy"]) for key in ("mean", "std"))
    return Check(name, f"{mean} ± {std}")
