# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Parts of the benchmark about recordings: of any length, of many lengths, and pieces of long ones."""

import copy
import statistics
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from benchmarks.measuring import Call, ModuleClock, in_fresh_process, peak_memory, time_alternately
from benchmarks.options import DTYPES, SAMPLING_RATE, Options, build_classifier, computing, make_clips
from benchmarks.report import Row, milliseconds
from transformers_beats import BeatsConfig, BeatsFeatureExtractor, BeatsForAudioClassification
from transformers_beats.audio.decoding import decode_audio, stream_audio
from transformers_beats.inference.windowed import WindowedInference


RECORDING_SECONDS, RECORDING_RATE = 60, 44100
RAGGED_CLIPS, RAGGED_SECONDS = 32, (0.5, 8.0)
LONG_SECONDS, CROP_SECONDS = 600, 10
HOURS = 3
# A model that needs little memory itself.
SMALL: dict[str, Any] = {"hidden_size": 96, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 192}


def write_noise(path: Path, seconds: int) -> None:
    """A recording at 44.1 kHz."""
    noise = np.random.default_rng(0).normal(scale=0.1, size=seconds * RECORDING_RATE)
    with soundfile.SoundFile(path, "w", RECORDING_RATE, 1) as file:
        # Written at once, ten minutes of Ogg overflow the stack of libsndfile.
        for block in np.array_split(noise.clip(-1, 1), seconds):
            file.write(block)


def any_length(options: Options) -> Iterator[Row]:
    """A recording on disk to scores in windows of 10 s, with the times of the stages, and all of it in one piece."""
    model, extractor = build_classifier(options.layers, options.device), BeatsFeatureExtractor()
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "recording.flac"
        write_noise(path, RECORDING_SECONDS)
        for precision in options.precisions:
            if precision == "autocast":
                continue
            variant = copy.deepcopy(model).to(DTYPES[precision])
            windowed = WindowedInference(variant, extractor)
            whole = WindowedInference(variant, extractor, window_seconds=RECORDING_SECONDS + 1)
            calls: dict[str, Call] = {
                "ours": partial(windowed.classify, path),
                "in one piece": partial(whole.classify, path),
            }
            times = time_alternately(calls, options.repeats, options.device)
            stages = time_stages(windowed, path, options)
            hours = RECORDING_SECONDS / times["ours"]
            yield Row(
                "any_length",
                f"{RECORDING_SECONDS} s of FLAC at 44.1 kHz, {precision}",
                1000 * times["ours"],
                {"in one piece": 1000 * times["in one piece"]},
                details={"hours of audio an hour": hours} | {f"{name}, ms": 1000 * t for name, t in stages.items()},
                audio_seconds=RECORDING_SECONDS,
            )


def recording_peak(path: Path, device: str) -> int:
    """In a fresh process: bytes at the peak of classifying a recording with a small model."""
    model = BeatsForAudioClassification(BeatsConfig(**SMALL)).to(device)
    return peak_memory(partial(WindowedInference(model, BeatsFeatureExtractor()).classify, path), device)


def recording_memory(options: Options) -> Iterator[Row]:
    """Three hours from disk, against ten minutes."""
    seconds = {f"{HOURS} h": HOURS * 3600, "10 min": LONG_SECONDS}
    peaks = {}
    with tempfile.TemporaryDirectory() as directory:
        for name, length in seconds.items():
            path = Path(directory) / "recording.flac"
            write_noise(path, length)
            peaks[name] = in_fresh_process(recording_peak, path, options.device) / 2**20
    ours, peer = seconds
    yield Row("recording_memory", f"{ours} of FLAC at 44.1 kHz, fp32", peaks[ours], {peer: peaks[peer]}, unit="MiB")


def ragged(options: Options) -> Iterator[Row]:
    """Clips of many lengths: those of similar length together; one by one; as they come, padded to the longest."""
    model, extractor = build_classifier(options.layers, options.device), BeatsFeatureExtractor()
    low, high = RAGGED_SECONDS
    clips = [make_clips(1, seconds)[0] for seconds in np.random.default_rng(0).uniform(low, high, RAGGED_CLIPS)]
    for precision in options.precisions:
        if precision == "autocast":
            continue
        variant = copy.deepcopy(model).to(DTYPES[precision])

        def classify_all(inference: WindowedInference) -> list:
            return list(inference.classify_many(clips, SAMPLING_RATE))

        calls: dict[str, Call] = {
            "ours": partial(classify_all, WindowedInference(variant, extractor)),
            "one by one": partial(classify_all, WindowedInference(variant, extractor, batch_size=1)),
            "padded": partial(classify_padded, computing(variant, precision, options.device), clips, options.device),
        }
        times = time_alternately(calls, options.repeats, options.device)
        yield Row(
            "ragged",
            f"{RAGGED_CLIPS} clips of {low:g} to {high:g} s, {precision}",
            1000 * times["ours"],
            milliseconds(times, ["one by one", "padded"]),
            details={"clips per second": RAGGED_CLIPS / times["ours"]},
        )


def classify_padded(model: Callable, clips: list[np.ndarray], device: str, batch_size: int = 8) -> None:
    """Batches in the order of the clips, as a pipeline of transformers makes them."""
    extractor = BeatsFeatureExtractor()
    for start in range(0, len(clips), batch_size):
        batch = clips[start : start + batch_size]
        model(**extractor(batch, sampling_rate=SAMPLING_RATE, return_tensors="pt", device=device))


def time_stages(windowed: WindowedInference, path: Path, options: Options) -> dict[str, float]:
    """Median seconds of each stage of a recording's way through the model."""

    def read(rate: int) -> int:
        return sum(len(block) for block in stream_audio(path, rate).blocks)

    windows = make_clips(RECORDING_SECONDS // 10, 10.0)
    calls: dict[str, Call] = {
        "decode": partial(read, RECORDING_RATE),
        "decode and resample": partial(read, SAMPLING_RATE),
        "fbank": partial(
            windowed.feature_extractor,
            windows,
            sampling_rate=SAMPLING_RATE,
            return_tensors="pt",
            device=options.device,
        ),
    }
    times = time_alternately(calls, options.repeats, options.device)
    encoders = []
    for _ in range(options.repeats):
        with ModuleClock(windowed.model, options.device) as module:
            windowed.classify(path)
        encoders.append(module.seconds)
    return {
        "decode": times["decode"],
        "resample": times["decode and resample"] - times["decode"],
        "fbank": times["fbank"],
        "encoder": statistics.median(encoders),
    }


def crops(options: Options) -> Iterator[Row]:
    """What a training reads for an item: a crop out of ten minutes, against all of it, then cut."""
    starts = np.random.default_rng(0).integers((LONG_SECONDS - CROP_SECONDS) * SAMPLING_RATE, size=8).tolist()
    num_samples = CROP_SECONDS * SAMPLING_RATE

    def cut(path: Path) -> None:
        for start in starts:
            decode_audio(path)[start : start + num_samples]

    def decode_parts(path: Path) -> None:
        for start in starts:
            decode_audio(path, start=start, num_samples=num_samples)

    with tempfile.TemporaryDirectory() as directory:
        for suffix in ("wav", "flac", "mp3", "ogg"):
            path = Path(directory) / f"recording.{suffix}"
            write_noise(path, LONG_SECONDS)
            calls: dict[str, Call] = {"ours": partial(decode_parts, path), "all, then cut": partial(cut, path)}
            # Of one crop.
            times = {
                name: seconds / len(starts)
                for name, seconds in time_alternately(calls, options.repeats, "cpu").items()
            }
            setting = f"{CROP_SECONDS} s out of {LONG_SECONDS // 60} min of {suffix.upper()} at 44.1 kHz"
            yield Row("crops", setting, 1000 * times["ours"], milliseconds(times, ["all, then cut"]))
