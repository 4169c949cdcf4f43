# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Diagnosis of codes: whether a model can learn from them, before the stage that costs most; a page and JSON."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.cluster import MiniBatchKMeans
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import adjusted_mutual_info_score, normalized_mutual_info_score
from sklearn.model_selection import StratifiedKFold, cross_val_score

from transformers_beats.utils.errors import BeatsError
from transformers_beats.utils.files import new_directory
from transformers_beats.utils.numbers import format_number

from .report import check_drawing


# Directory beside a tokenizer or codes, and its files.
DIAGNOSIS, VALUES_FILE, PAGE = "diagnosis", "diagnosis.json", "diagnosis.html"
TEMPLATE = "codes_template.html"
# Rows of the page.
CODES, K_MEANS = "codes", "k-means on the teacher"
NUM_FOLDS = 5
# Inverse strength of the regularisation.
PROBE_C = 10.0
# k-means in batches, as all patches at once would take minutes.
BATCH_PATCHES = 4096


@dataclass
class CodeSample:
    """
    Codes of the patches of some clips, and what the clips are.

    Args:
        codes (`list[np.ndarray]` of shape `(num_columns, num_bands)` or `(num_columns, num_bands, num_codebooks)`):
            Codes of each clip, from 0 to `codebook_size - 1`.
        codebook_size (`int`):
            Number of codes of a codebook.
        classes (`np.ndarray` of shape `(num_clips,)`, *optional*):
            Class index of each clip; `folds`, of the same shape, the fold that it is tested in, -1 for none.
        states (`list[np.ndarray]` of shape `(num_columns * num_bands, dim)`, *optional*):
            Outputs of the teacher for the same patches, time-major.

    Raises:
        [`BeatsError`]: if there is no clip, a code that the codebook does not have, or a clip with another number of
            the teacher's outputs than of patches with codes.
    """

    codes: list[np.ndarray]
    codebook_size: int
    classes: np.ndarray | None = None
    folds: np.ndarray | None = None
    states: list[np.ndarray] | None = None
    notes: list[str] = field(default_factory=list)

    def __post_init__(self):
        self.codes = [codes if codes.ndim == 3 else codes[..., None] for codes in self.codes]
        values = np.concatenate([codes.ravel() for codes in self.codes]) if self.codes else np.empty(0, dtype=int)
        if len(values) == 0:
            raise BeatsError("There is no code to examine.")
        if values.min() < 0 or values.max() >= self.codebook_size:
            raise BeatsError(
                f"Codes must lie between 0 and {self.codebook_size - 1}, got {values.min()} to {values.max()}."
            )

        for codes, states in zip(self.codes, self.states or []):
            if len(states) != codes.shape[0] * codes.shape[1]:
                raise BeatsError(
                    f"A clip has codes of {codes.shape[0] * codes.shape[1]} patches, and {len(states)} outputs of the "
                    "teacher: choose models with the same `legacy_padding_mask`."
                )

    def spread(self, of_clips: np.ndarray) -> np.ndarray:
        """Returns the value of a clip for each of its patches."""
        return np.repeat(of_clips, [codes.shape[0] * codes.shape[1] for codes in self.codes])

    @property
    def flat(self) -> np.ndarray:
        """Codes of all patches, `(num_patches, num_codebooks)`."""
        return np.concatenate([codes.reshape(-1, codes.shape[2]) for codes in self.codes]).astype(np.int64)

    @property
    def positions(self) -> np.ndarray:
        """Column of each patch, `(num_patches,)`, and the band of each, as a second row."""
        grids = [np.indices(codes.shape[:2]).reshape(2, -1) for codes in self.codes]
        return np.concatenate(grids, axis=1)


def perplexity(codes: np.ndarray, codebook_size: int) -> float:
    """Computes the exponential of the entropy of codes: 1 if all are the same, `codebook_size` if uniform."""
    shares = np.bincount(codes, minlength=codebook_size) / len(codes)
    shares = shares[shares > 0]
    return float(np.exp(-(shares * np.log(shares)).sum()))


def mutual_information(first: np.ndarray, second: np.ndarray) -> float:
    """
    Computes the mutual information of two arrays of indices of the same shape, in nats, by their joint frequencies.
    That estimate is too large for few samples: compare it with one of shuffled values.
    """
    size = int(second.max()) + 1
    joint = np.bincount(first * size + second).astype(np.float64)
    joint = np.pad(joint, (0, -len(joint) % size)).reshape(-1, size) / len(first)
    expected = joint.sum(axis=1, keepdims=True) * joint.sum(axis=0, keepdims=True)
    known = joint > 0
    return float((joint[known] * np.log(joint[known] / expected[known])).sum())


def bag_of_codes(sample: CodeSample) -> np.ndarray:
    """Computes how often each clip has each code, as square roots of shares, `(num_clips, num_codebooks * size)`."""
    size = sample.codebook_size
    rows = []
    for codes in sample.codes:
        of_codebooks = codes.reshape(-1, codes.shape[2]).T
        counts = np.stack([np.bincount(values, minlength=size) for values in of_codebooks])
        rows.append(np.sqrt(counts / of_codebooks.shape[1]).ravel())
    return np.stack(rows)


def split_clips(sample: CodeSample, seed: int = 0) -> tuple[list[tuple[np.ndarray, np.ndarray]], str]:
    """
    Returns for each fold, of the sample or drawn, the indices of the clips that a probe learns from and of those that
    it is tested on; and `""`. Without classes, or if no probe can be computed, there are none, and the reason.
    """
    if sample.classes is None:
        return [], "the clips have no classes"
    counts = np.unique(sample.classes, return_counts=True)[1]
    if len(counts) < 2:
        return [], "all clips are of one class"
    if sample.folds is None:
        if counts.min() < 2:
            return [], "a class has a single clip"
        drawn = StratifiedKFold(min(NUM_FOLDS, int(counts.min())), shuffle=True, random_state=seed)
        return list(drawn.split(sample.classes, sample.classes)), ""
    numbers = sorted(set(sample.folds[sample.folds >= 0].tolist()))
    if len(numbers) < 2:
        return [], "the clips lie in fewer than two folds"
    splits = [(np.flatnonzero(sample.folds != fold), np.flatnonzero(sample.folds == fold)) for fold in numbers]
    if any(len(np.unique(sample.classes[train])) < 2 for train, _ in splits):
        return [], "without one of the folds, all clips are of one class"
    return splits, ""


def probe(sample: CodeSample, seed: int = 0) -> dict[str, float] | None:
    """
    Returns the `accuracy` of a logistic regression on [`bag_of_codes`], its standard `deviation` over folds, the
    accuracy of the most frequent class, and the numbers of `classes` and `folds`; None if there are no
    [`split_clips`].
    """
    splits, _ = split_clips(sample, seed)
    if not splits or sample.classes is None:
        return None
    counts = np.unique(sample.classes, return_counts=True)[1]
    # Not standardised: rare codes would count as much as others.
    model = LogisticRegression(C=PROBE_C, max_iter=2000, random_state=seed)
    scores = cross_val_score(model, bag_of_codes(sample), sample.classes, cv=splits)
    return {
        "accuracy": float(scores.mean()),
        "deviation": float(scores.std(ddof=1)),
        "most_frequent_class": float(counts.max() / counts.sum()),
        "classes": len(counts),
        "folds": len(splits),
    }


def measure_codes(sample: CodeSample, seed: int = 0) -> dict[str, Any]:
    """
    Measures codes: `perplexity`, `codes_alive` (share), `perplexity_by_band`, `information` in nats about class, band
    and position, each beside its value `by_chance`, for shuffled clips or patches, and `probe`; means over codebooks.
    """
    generator = np.random.default_rng(seed)
    columns, bands = sample.positions
    known = {"band": bands, "position": columns}
    chance = {name: generator.permutation(values) for name, values in known.items()}
    if sample.classes is not None:
        known["class"] = sample.spread(sample.classes)
        # Patches of a clip stay together, as they are no independent samples.
        chance["class"] = sample.spread(generator.permutation(sample.classes))
    of_codebooks = []
    for codes in sample.flat.T:
        of_codebooks.append(
            {
                "perplexity": perplexity(codes, sample.codebook_size),
                "codes_alive": len(np.unique(codes)) / sample.codebook_size,
                "perplexity_by_band": [
                    perplexity(codes[bands == band], sample.codebook_size) for band in range(bands.max() + 1)
                ],
                "information": {name: mutual_information(codes, values) for name, values in known.items()},
                "by_chance": {name: mutual_information(codes, values) for name, values in chance.items()},
            }
        )
    return mean_of(of_codebooks) | {"probe": probe(sample, seed)}


def mean_of(values: list[Any]) -> Any:
    """Computes the mean of numbers, or of the numbers in mappings and lists of one form."""
    if isinstance(values[0], dict):
        return {key: mean_of([entry[key] for entry in values]) for key in values[0]}
    if isinstance(values[0], list):
        return [mean_of(list(entries)) for entries in zip(*values)]
    return float(np.mean(values))


def fit_k_means(states: np.ndarray, num_clusters: int, seed: int = 0) -> MiniBatchKMeans:
    """Learns the means of clusters of a model's outputs `(num_patches, dim)`, in batches."""
    return MiniBatchKMeans(num_clusters, batch_size=BATCH_PATCHES, n_init=1, random_state=seed).fit(states)


def cluster_states(sample: CodeSample, seed: int = 0) -> CodeSample:
    """Returns the sample with other codes: as many clusters of the teacher's outputs, by k-means."""
    states = np.concatenate(sample.states or []).astype(np.float32)
    means = fit_k_means(states, min(sample.codebook_size, len(states)), seed)
    shapes = [codes.shape[:2] for codes in sample.codes]
    ends = np.cumsum([height * width for height, width in shapes])
    parts = np.split(means.predict(states), ends[:-1])
    codes = [part.reshape(shape) for part, shape in zip(parts, shapes)]
    return CodeSample(codes, sample.codebook_size, sample.classes, sample.folds)


def diagnose_sample(sample: CodeSample, description: Mapping[str, Any], seed: int = 0) -> dict[str, Any]:
    """
    Returns the diagnosis of a sample: its `description`, [`measure_codes`] of the `codes` and, with a teacher's
    outputs, of `k_means` on these, and the `agreement` of both: mutual information, adjusted for chance and
    normalised, a mean over codebooks.
    """
    found: dict[str, Any] = {
        "description": dict(description)
        | {
            "clips": len(sample.codes),
            "patches": len(sample.flat),
            "codebook_size": sample.codebook_size,
            "codebooks": sample.flat.shape[1],
        },
        "codes": measure_codes(sample, seed),
        "k_means": None,
        "agreement": None,
        "notes": list(sample.notes),
    }
    if sample.classes is not None and (reason := split_clips(sample, seed)[1]):
        found["notes"].append(f"Without a probe of classes: {reason}.")
    if sample.states is not None:
        clusters = cluster_states(sample, seed)
        found["k_means"] = measure_codes(clusters, seed)
        expected = clusters.flat[:, 0]
        found["agreement"] = mean_of(
            [
                {
                    "adjusted_mutual_information": adjusted_mutual_info_score(expected, codes),
                    "normalized_mutual_information": normalized_mutual_info_score(expected, codes),
                }
                for codes in sample.flat.T
            ]
        )
    return found


def describe_diagnosis(found: Mapping[str, Any]) -> str:
    """Returns the diagnosis in a line, such as `perplexity 155.2 of 256, 77 % of the codes in use, ...`."""
    codes, size = found["codes"], found["description"]["codebook_size"]
    parts = [f"perplexity {codes['perplexity']:.1f} of {size}", f"{codes['codes_alive']:.0%} of the codes in use"]
    if (about := codes["information"].get("class")) is not None:
        chance = codes["by_chance"]["class"]
        parts.append(f"{about:.2f} nats about the class ({chance:.2f} by chance)")
    if codes["probe"] is not None:
        size_of_probe = f"({codes['probe']['classes']} classes, {codes['probe']['folds']} folds)"
        parts.append(f"bag-of-codes probe {codes['probe']['accuracy']:.1%} {size_of_probe}")
        if found["k_means"] is not None:
            parts.append(f"{found['k_means']['probe']['accuracy']:.1%} with k-means on the teacher")
    if found["agreement"] is not None:
        parts.append(
            f"agreement with these clusters {format_number(found['agreement']['adjusted_mutual_information'])}"
        )
    return ", ".join(parts)


def write_diagnosis(directory: Path, found: Mapping[str, Any], sample: CodeSample) -> None:
    """
    Writes `diagnosis.json` and `diagnosis.html`, a page that needs no other file, to a new directory.

    Raises:
        [`BeatsError`]: if matplotlib is not installed.
    """
    check_drawing()
    from .codes_page import render_diagnosis

    with new_directory(directory) as new:
        text = json.dumps(found, indent=2, ensure_ascii=False, allow_nan=False)
        (new / VALUES_FILE).write_text(text + "\n", encoding="utf-8")
        (new / PAGE).write_text(render_diagnosis(found, sample), encoding="utf-8")
