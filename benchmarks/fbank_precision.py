# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""
Differences of the filter bank from the same steps in float64, and what they change in a model's probabilities:

    python -m benchmarks.fbank_precision MODEL CLIPS

prints the largest and the mean difference of single values after normalisation and, of the first 40 clips, the largest
one of the probabilities. `fbank_in_float64` follows Kaldi's description and shares no code with the package.
"""

import argparse
import math
from pathlib import Path

import numpy as np
import torch
from transformers import AutoFeatureExtractor, AutoModelForAudioClassification

import transformers_beats  # noqa: F401
from transformers_beats.audio.decoding import decode_audio
from transformers_beats.audio.files import find_audio


NUM_PROBABILITIES = 40


def fbank_in_float64(waveform: np.ndarray, num_mel_bins: int = 128, sampling_rate: int = 16000) -> np.ndarray:
    """Log mel filter bank `(num_frames, num_mel_bins)` of a waveform `(num_samples,)` at the scale of 16 bit."""
    length, shift, size = sampling_rate // 40, sampling_rate // 100, 512
    frames = np.lib.stride_tricks.sliding_window_view(waveform.astype(np.float64) * 32768, length)[::shift]
    frames = frames - frames.mean(axis=1, keepdims=True)
    frames = frames - 0.97 * np.concatenate([frames[:, :1], frames[:, :-1]], axis=1)
    window = (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(length) / (length - 1))) ** 0.85
    power = np.abs(np.fft.rfft(frames * window, size)) ** 2
    lowest, highest = (1127 * math.log(1 + hertz / 700) for hertz in (20.0, sampling_rate / 2))
    edges = lowest + np.arange(num_mel_bins + 2)[:, None] * (highest - lowest) / (num_mel_bins + 1)
    mel = 1127 * np.log(1 + np.arange(size // 2) * sampling_rate / size / 700)
    rising, falling = (mel - edges[:-2]) / np.diff(edges[:-1], axis=0), (edges[2:] - mel) / np.diff(edges[1:], axis=0)
    filters = np.maximum(0, np.minimum(rising, falling))
    return np.log(np.maximum(power[:, : size // 2] @ filters.T, np.finfo(np.float32).eps))


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("clips", type=Path)
    arguments = parser.parse_args()
    extractor = AutoFeatureExtractor.from_pretrained(arguments.model)
    model = AutoModelForAudioClassification.from_pretrained(arguments.model).eval()
    largest, means, probabilities, files = 0.0, [], 0.0, find_audio([arguments.clips])
    for index, file in enumerate(files):
        waveform = decode_audio(file.path, extractor.sampling_rate)
        fbank = extractor(waveform, sampling_rate=extractor.sampling_rate, return_tensors="pt")["input_values"]
        exact = (fbank_in_float64(waveform) - extractor.fbank_mean) / (2 * extractor.fbank_std)
        difference = np.abs(fbank[0].numpy() - exact)
        largest, means = max(largest, float(difference.max())), [*means, float(difference.mean())]
        if index < NUM_PROBABILITIES:
            both = torch.cat([fbank, torch.from_numpy(exact).float().unsqueeze(0)])
            first, second = model(both).logits.sigmoid()
            probabilities = max(probabilities, float((first - second).abs().max()))
    print(f"{len(files)} clips, filter bank: {largest:.1e} at most, {np.mean(means):.1e} in the mean")
    print(f"{min(len(files), NUM_PROBABILITIES)} clips, probabilities: {probabilities:.1e} at most")


if __name__ == "__main__":
    main()
