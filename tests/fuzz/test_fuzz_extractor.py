# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
# ruff: noqa: PT017  # either a result or an error: `pytest.raises` demands one
"""The feature extractor on any input: finite features of the documented shape, or an error that names the value."""

import numpy as np
import pytest
import torch
from fuzzing import fuzz
from hypothesis import strategies as st

from transformers_beats import BeatsFeatureExtractor
from transformers_beats.fbank_beats import (
    INT16_SCALE,
    LOW_FREQUENCY,
    MEL_FLOOR,
    PREEMPHASIS,
    kaldi_fbank,
    num_fbank_frames,
)


RATE = 16000
MIN_SAMPLES = 2800
SCALES = st.sampled_from([0.0, 1e-45, 1e-38, 1e-30, 1e-10, 1e-3, 0.1, 1.0, 30.0, 1e4, 1e9])
SEEDS = st.integers(0, 2**32)
CLIP_LENGTHS = st.one_of(st.integers(1, 400), st.integers(2700, 2900), st.integers(1, 40_000))


def clip_of(length: int, scale: float, seed: int) -> np.ndarray:
    """Noise with an offset, float32."""
    generator = np.random.default_rng(seed)
    offset = generator.choice([0.0, 0.5, -1.0])
    return np.clip((generator.uniform(-1, 1, length) + offset) * scale, -9e9, 9e9).astype(np.float32)


def frames_of(num_samples: int) -> int:
    return num_fbank_frames(max(num_samples, MIN_SAMPLES))


@fuzz(
    15,
    4000,
    lengths=st.lists(CLIP_LENGTHS, min_size=1, max_size=5),
    scales=st.lists(SCALES, min_size=5, max_size=5),
    padding=st.sampled_from([None, False, True, "longest", "max_length"]),
    max_length=st.one_of(st.none(), st.integers(1, 50_000), st.floats(1e-5, 3.0)),
    truncation=st.booleans(),
    return_tensors=st.sampled_from([None, "np", "pt"]),
    return_attention_mask=st.sampled_from([None, False, True]),
    seed=SEEDS,
)
def test_every_combination_of_options_gives_the_documented_features(
    lengths, scales, padding, max_length, truncation, return_tensors, return_attention_mask, seed
):
    extractor = BeatsFeatureExtractor()
    clips = [clip_of(length, scales[index], seed + index) for index, length in enumerate(lengths)]
    options = {"padding": padding, "max_length": max_length, "truncation": truncation}
    options |= {"return_tensors": return_tensors, "return_attention_mask": return_attention_mask}
    max_samples = None
    if max_length is not None:
        max_samples = max_length if isinstance(max_length, int) else max(1, round(max_length * RATE))
    cut = [clip[:max_samples] if truncation else clip for clip in clips]
    frames = [frames_of(len(clip)) for clip in cut]
    is_ragged = padding is False and return_tensors is not None and len(set(frames)) > 1
    if (max_length is None and (truncation or padding == "max_length")) or is_ragged:
        with pytest.raises(ValueError, match=r"max_length|padding=True"):
            extractor(clips, sampling_rate=RATE, **options)
        return
    outputs = extractor(clips, sampling_rate=RATE, **options)
    assert ("attention_mask" in outputs) == (return_attention_mask is not False)
    is_padded = padding not in (None, False) or (padding is None and return_tensors is not None)
    rows = [max(frames)] * len(clips) if is_padded else frames
    if padding == "max_length":
        rows = [max(*frames, frames_of(max_samples))] * len(clips)
    for index, clip in enumerate(cut):
        values = np.asarray(outputs["input_values"][index])
        assert values.shape == (rows[index], 128)
        assert values.dtype == np.float32
        assert np.isfinite(values).all()
        alone = extractor(clip, sampling_rate=RATE, return_tensors="np")["input_values"][0]
        np.testing.assert_allclose(values[: frames[index]], alone, rtol=0, atol=1e-5)
        assert (values[frames[index] :] == np.float32(extractor.padding_value)).all()
        if return_attention_mask is not False:
            mask = np.asarray(outputs["attention_mask"][index])
            assert mask.tolist() == [1] * frames[index] + [0] * (rows[index] - frames[index])


@fuzz(15, 1500, lengths=st.lists(CLIP_LENGTHS, min_size=1, max_size=4), seed=SEEDS)
def test_the_legacy_mask_counts_as_the_reference(lengths, seed):
    clips = [clip_of(length, 0.1, seed + index) for index, length in enumerate(lengths)]
    extractor = BeatsFeatureExtractor(legacy_padding_mask=True)
    num_samples = max(lengths)
    if num_samples < MIN_SAMPLES:
        with pytest.raises(ValueError, match="legacy_padding_mask"):
            extractor(clips, sampling_rate=RATE)
        return
    outputs = extractor(clips, sampling_rate=RATE, return_tensors="np")
    num_frames = num_fbank_frames(num_samples)
    per_frame = num_samples // num_frames
    for index, length in enumerate(lengths):
        # The reference's: of the frames of equal numbers of samples, those that are not all padding.
        is_padding = np.arange(num_frames * per_frame) >= length
        expected = ~is_padding.reshape(num_frames, per_frame).all(axis=1)
        assert outputs["attention_mask"][index].astype(bool).tolist() == expected.tolist()
    assert np.isfinite(outputs["input_values"]).all()


KINDS = {
    "float64": lambda clip: clip.astype(np.float64),
    "list": lambda clip: clip.tolist(),
    "tuple": lambda clip: tuple(clip.tolist()),
    "tensor": torch.from_numpy,
    "double tensor": lambda clip: torch.from_numpy(clip).double(),
    "big-endian": lambda clip: clip.astype(">f4"),
    "strided": lambda clip: np.repeat(clip, 3)[::3],
    "reversed": lambda clip: clip[::-1].copy()[::-1],
    "row": lambda clip: clip[None],
    "list of one": lambda clip: [clip],
    "object array": lambda clip: clip.astype(object),
}


@fuzz(25, 2000, kind=st.sampled_from(sorted(KINDS)), length=CLIP_LENGTHS, scale=SCALES, seed=SEEDS)
def test_the_same_samples_give_the_same_features_in_every_container(kind, length, scale, seed):
    extractor, clip = BeatsFeatureExtractor(), clip_of(length, scale, seed)
    expected = extractor(clip, sampling_rate=RATE, return_tensors="np")["input_values"]
    actual = extractor(KINDS[kind](clip), sampling_rate=RATE, return_tensors="np")["input_values"]
    np.testing.assert_array_equal(actual, expected)


@fuzz(
    25,
    1500,
    dtype=st.sampled_from(["int16", "int32", "uint8"]),
    length=CLIP_LENGTHS,
    is_tensor=st.booleans(),
    seed=SEEDS,
)
def test_pcm_gives_the_features_of_its_samples(dtype, length, is_tensor, seed):
    limits = np.iinfo(dtype)
    pcm = np.random.default_rng(seed).integers(limits.min, limits.max, length, dtype=dtype, endpoint=True)
    middle = 128 if dtype == "uint8" else 0
    samples = (pcm.astype(np.float64) - middle) / (limits.max - middle + 1)
    extractor = BeatsFeatureExtractor()
    expected = extractor(samples, sampling_rate=RATE, return_tensors="np")["input_values"]
    actual = extractor(torch.from_numpy(pcm) if is_tensor else pcm, sampling_rate=RATE, return_tensors="np")
    np.testing.assert_allclose(actual["input_values"], expected, atol=1e-4)


WRONG_SHAPES = st.lists(st.integers(0, 6), max_size=4).map(tuple)
DTYPES = ["float16", "float32", "float64", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64"]
DTYPES += ["bool", "complex64", "longdouble", "S4", "U4", "object", "datetime64[s]"]
SPECIAL = (np.nan, np.inf, -np.inf, 1e11, -1e30, 3e38)


@fuzz(
    100,
    8000,
    shape=st.one_of(WRONG_SHAPES, st.tuples(st.integers(1, 3000)), st.tuples(st.integers(1, 4), st.integers(1, 3000))),
    dtype=st.sampled_from(DTYPES),
    special=st.sampled_from([None, *SPECIAL]),
    container=st.sampled_from(["array", "list", "tensor", "arrays", "memory view", "generator"]),
    seed=SEEDS,
)
def test_arrays_of_any_shape_and_dtype_give_finite_features_or_an_error(shape, dtype, special, container, seed):
    generator = np.random.default_rng(seed)
    array = np.asarray(generator.uniform(-1, 1, shape) * 100)
    array = np.asarray(array / 100 if dtype == "float32" else array.astype(np.int8), dtype=dtype)
    if special is not None and array.size and array.dtype.kind == "f":
        with np.errstate(over="ignore"):
            array.flat[generator.integers(array.size)] = special
    try:
        audio = {
            "array": lambda: array,
            "list": lambda: array.tolist(),
            "tensor": lambda: torch.from_numpy(array),
            "arrays": lambda: list(array),
            "memory view": lambda: memoryview(array),
            "generator": lambda: iter(array),
        }[container]()
    except (TypeError, ValueError):
        return
    assert_finite_or_refused(audio)


def assert_finite_or_refused(audio, **options) -> None:
    try:
        outputs = BeatsFeatureExtractor()(audio, sampling_rate=RATE, return_tensors="np", **options)
    except (ValueError, TypeError) as error:
        assert str(error)
        return
    values, mask = outputs["input_values"], outputs["attention_mask"]
    assert values.shape[0] >= 1
    assert np.isfinite(values).all()
    assert (mask.sum(axis=1) >= 16).all()


ATOMS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=3),
    st.binary(max_size=3),
    st.complex_numbers(),
)
OBJECTS = st.recursive(
    ATOMS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.tuples(inner, inner), st.dictionaries(st.text(max_size=3), inner, max_size=2)
    ),
    max_leaves=12,
)


@fuzz(150, 8000, audio=OBJECTS)
def test_any_object_gives_finite_features_or_an_error(audio):
    assert_finite_or_refused(audio)


@fuzz(100, 5000, name=st.sampled_from(["sampling_rate", "padding", "max_length", "return_tensors"]), value=ATOMS)
def test_any_option_gives_finite_features_or_an_error(name, value):
    # Not a defect: of a length that no memory holds, in seconds or samples, PyTorch says so, or the system.
    if name == "max_length" and isinstance(value, (int, float)) and value > 1e3:
        return
    options = {"sampling_rate": RATE, name: value}
    if name == "max_length":
        options["padding"] = "max_length"
    try:
        outputs = BeatsFeatureExtractor()(np.zeros(RATE), **options)
    except (ValueError, TypeError) as error:
        assert str(error)
        return
    assert np.isfinite(np.asarray(outputs["input_values"][0])).all()


@fuzz(
    100,
    4000,
    name=st.sampled_from(["feature_size", "sampling_rate", "padding_value", "fbank_mean", "fbank_std", "patch_size"]),
    value=st.one_of(
        ATOMS, st.integers(-3, 3), st.lists(st.integers(), max_size=2), st.sampled_from([1e-300, 1e300, 3e38])
    ),
)
def test_any_setting_makes_an_extractor_that_works_or_an_error(name, value):
    if name in ("feature_size", "sampling_rate", "patch_size") and isinstance(value, int) and value > 10**6:
        return
    try:
        extractor = BeatsFeatureExtractor(**{name: value})
    except (ValueError, TypeError) as error:
        assert name in str(error)
        return
    values = extractor(np.zeros(3 * extractor.sampling_rate), sampling_rate=extractor.sampling_rate)["input_values"]
    assert np.isfinite(values[0]).all()


@fuzz(6, 300, length=st.integers(400, 8000), scale=st.sampled_from([1e-3, 0.1, 1.0]), seed=SEEDS)
def test_fbank_equals_the_formula_with_the_spectrum_of_numpy(length, scale, seed):
    clip = clip_of(length, scale, seed).astype(np.float64)
    frames = np.lib.stride_tricks.sliding_window_view(clip * INT16_SCALE, 400)[::160]
    frames = frames - frames.mean(axis=1, keepdims=True)
    frames = frames - PREEMPHASIS * np.concatenate([frames[:, :1], frames[:, :-1]], axis=1)
    power = np.abs(np.fft.rfft(frames * np.hanning(400) ** 0.85, 512)) ** 2
    mel = 1127 * np.log1p(np.arange(257) * 31.25 / 700)
    edges = np.linspace(1127 * np.log1p(LOW_FREQUENCY / 700), 1127 * np.log1p(8000 / 700), 130)
    rising = (mel[:, None] - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - mel[:, None]) / (edges[2:] - edges[1:-1])
    filters = np.clip(np.minimum(rising, falling), 0, None)
    expected = np.sqrt(np.maximum(power @ filters, MEL_FLOOR))
    actual = kaldi_fbank(torch.from_numpy(clip).float()[None])[0].div(2).exp().numpy()
    np.testing.assert_allclose(actual, expected, rtol=1e-3, atol=1e-4 * expected.max())
