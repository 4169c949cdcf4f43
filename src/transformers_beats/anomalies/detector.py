# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Detector of anomalous sounds: a memory bank for each machine, in one file."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from transformers_beats.utils.errors import BeatsError, UsageError, first_line
from transformers_beats.utils.files import check_file, replace_file

from .bank import MemoryBank
from .calibration import check_rate, p_values, threshold_of
from .choices import GEM_POWER, RDP_POWER, DetectorSettings


VERSION = 1
# Key of the description in the metadata of the file, as JSON.
METADATA = "anomaly_detector"
# What changes the vectors besides the settings.
CONSTANTS = {"gem_power": GEM_POWER, "rdp_power": RDP_POWER}
# What a tensor holds, for each machine and domain.
VECTORS, HELD_OUT = "vectors", "held_out"


class AnomalyDetector:
    """
    Scores of clips against normal clips of their machine.

    Args:
        vectors (`Mapping[str, Mapping[str, np.ndarray]]`):
            For each machine, whose name is `""` if there is only one, and each of its domains, vectors `(num_clips,
            num_layers, num_bands, dim)` of normal clips, from [`embed_clips`].
        settings ([`DetectorSettings`]):
            How they were computed, and the back end.
        fingerprint (`str`):
            [`model_fingerprint`] of the model, which [`load_again`] compares.
        model (`str`):
            Its name or directory, for those who load it again.
        dtype (`str`):
            Its precision.
        false_alarm_rate (`float`, defaults to 0.05):
            Rate of false alarms that thresholds are for, unless another is asked for.
        held_out (`Mapping[str, Mapping[str, np.ndarray]]`, *optional*):
            Scores of the normal clips, see [`MemoryBank`]. Computed if not given.

    Raises:
        [`BeatsError`]: for a domain of fewer than three different clips.
        [`UsageError`]: for vectors of different shapes, see [`MemoryBank`].

    Example:

    ```python
    >>> path = Path("fan.safetensors")  # doctest: +SKIP
    >>> detector = AnomalyDetector.load(path)  # doctest: +SKIP
    >>> loaded = load_again(path, detector.model, detector.fingerprint, "auto", detector.dtype)  # doctest: +SKIP
    >>> inference = WindowedInference(*loaded)  # doctest: +SKIP
    >>> vectors = np.stack(list(embed_clips(inference, ["new.wav"], detector.settings)))  # doctest: +SKIP
    >>> scores = detector.score(vectors)  # doctest: +SKIP
    >>> scores, detector.p_values(scores)  # doctest: +SKIP
    (array([4.21]), array([0.0099]))
    ```
    """

    def __init__(
        self,
        vectors: Mapping[str, Mapping[str, np.ndarray]],
        settings: DetectorSettings,
        fingerprint: str,
        model: str,
        dtype: str,
        false_alarm_rate: float = 0.05,
        held_out: Mapping[str, Mapping[str, np.ndarray]] | None = None,
    ):
        check_rate(false_alarm_rate)
        self.settings, self.fingerprint, self.model, self.dtype = settings, fingerprint, model, dtype
        self.false_alarm_rate = false_alarm_rate
        known = held_out or {}
        self.banks = {
            machine: MemoryBank(domains, settings, known.get(machine), machine) for machine, domains in vectors.items()
        }
        self._normal: dict[str, np.ndarray] = {}

    @property
    def machines(self) -> list[str]:
        """Names of the machines; `[""]` if there is only one, without a name."""
        return list(self.banks)

    def bank_of(self, machine: str = "") -> MemoryBank:
        """
        Returns the bank of a machine. A detector of one machine has it also for clips that do not tell theirs.

        Raises:
            [`UsageError`]: if there is none.
        """
        if machine in self.banks:
            return self.banks[machine]
        if len(self.banks) == 1 and ("" in self.banks or not machine):
            return next(iter(self.banks.values()))
        known = ", ".join(self.banks)
        raise UsageError(
            f"The detector has normal clips of {known}, and none of {machine}: fit one on those, too."
            if machine
            else f"The detector is of {len(self.banks)} machines ({known}), and the path of a clip does not tell "
            "which is its own: keep the layout of the folders that it was fitted on."
        )

    def score(self, vectors: np.ndarray, machine: str = "") -> np.ndarray:
        """Returns the scores `(num_clips,)`, float64, of vectors `(num_clips, num_layers, num_bands, dim)`."""
        return self.bank_of(machine).score(vectors)

    def normal_scores(self, machine: str = "") -> np.ndarray:
        """Returns the scores `(num_clips,)` of a machine's normal clips, each against the others."""
        if machine not in self._normal:
            self._normal[machine] = self.bank_of(machine).normal_scores()
        return self._normal[machine]

    def p_values(self, scores: np.ndarray, machine: str = "") -> np.ndarray:
        """Returns the p-values `(num_clips,)` of scores `(num_clips,)`, see [`calibration.p_values`]."""
        return p_values(scores, self.normal_scores(machine))

    def threshold(self, rate: float | None = None, machine: str = "") -> float:
        """
        Returns the score above which a clip is anomalous, for a rate of false alarms, by default that of the detector;
        see [`threshold_of`].
        """
        try:
            return threshold_of(self.normal_scores(machine), self.false_alarm_rate if rate is None else rate)
        except UsageError as error:
            raise UsageError(f"{machine}: {error}" if machine else str(error)) from None

    def save(self, path: Path) -> None:
        """
        Writes the detector as one safetensors file, whole or not at all: vectors and scores of the normal clips, and
        the settings as JSON in its metadata.

        Raises:
            [`UsageError`]: if the file cannot be written.
        """
        entries = [(machine, domain) for machine, bank in self.banks.items() for domain in bank.vectors]
        described = {
            "version": VERSION,
            "model": {"name": self.model, "fingerprint": self.fingerprint, "dtype": self.dtype},
            "settings": asdict(self.settings),
            "constants": CONSTANTS,
            "false_alarm_rate": self.false_alarm_rate,
            "banks": entries,
        }
        tensors = {}
        for number, (machine, domain) in enumerate(entries):
            bank = self.banks[machine]
            tensors[f"{number}.{VECTORS}"] = np.ascontiguousarray(bank.vectors[domain], dtype=np.float32)
            tensors[f"{number}.{HELD_OUT}"] = np.ascontiguousarray(bank.held_out[domain], dtype=np.float64)
        try:
            with replace_file(path) as temporary:
                save_file(tensors, temporary, metadata={METADATA: json.dumps(described)})
        except OSError as error:
            raise UsageError(f"{path}: cannot be written: {error.strerror}.") from error

    @classmethod
    def load(cls, path: Path) -> "AnomalyDetector":
        """
        Reads a detector.

        Raises:
            [`UsageError`]: if there is no such file, or it is no detector, or one of another version.
            [`BeatsError`]: if it is damaged.
        """
        check_file(path)
        try:
            with safe_open(path, "np") as file:
                text = (file.metadata() or {}).get(METADATA)
                if text is None:
                    raise UsageError(f"{path}: is no detector: make one with `transformers-beats anomalies fit`.")
                described = json.loads(text)
                if described["version"] != VERSION or described["constants"] != CONSTANTS:
                    raise UsageError(f"{path}: is of another version of this package: fit it again.")
                vectors: dict[str, dict[str, Any]] = {}
                held_out: dict[str, dict[str, Any]] = {}
                for number, (machine, domain) in enumerate(described["banks"]):
                    for owner, kind in ((vectors, VECTORS), (held_out, HELD_OUT)):
                        owner.setdefault(machine, {})[domain] = file.get_tensor(f"{number}.{kind}")
                settings = dict(described["settings"])
                settings["layers"] = tuple(settings["layers"])
                model = described["model"]
                _check_shapes(vectors, held_out, len(settings["layers"]))
                return cls(
                    vectors,
                    DetectorSettings(**settings),
                    model["fingerprint"],
                    model["name"],
                    model["dtype"],
                    described["false_alarm_rate"],
                    held_out,
                )
        except BeatsError:
            raise
        except (OSError, ValueError, LookupError, TypeError, SafetensorError) as error:
            raise BeatsError(f"{path}: cannot be read as a detector ({first_line(error)}): fit it again.") from error


def _check_shapes(vectors: Mapping[str, Any], held_out: Mapping[str, Any], num_layers: int) -> None:
    """Raises a `ValueError` for tensors that do not fit each other, or are not finite."""
    dims = set()
    for machine, domains in vectors.items():
        for domain, values in domains.items():
            scores = held_out[machine][domain]
            if values.ndim != 4 or values.shape[1] != num_layers or scores.shape != values.shape[:3]:
                raise ValueError(f"tensors of {values.shape} and {scores.shape} do not fit")
            if not np.isfinite(values).all() or not np.isfinite(scores).all():
                raise ValueError("its values are not finite")
            dims.add(values.shape[1:])
    if len(dims) != 1:
        raise ValueError(f"its banks have {len(dims)} shapes")


__all__ = ["AnomalyDetector"]
