# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
# ruff: noqa: PT017  # either a result or an error: `pytest.raises` demands one
"""Pipelines, windows, events, the ONNX graph and recipes on anything that fits their types, or does not."""

import math
import tempfile
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from fuzzing import IS_THOROUGH, count, fuzz
from golden import FIXTURES
from hypothesis import strategies as st

from transformers_beats import BeatsFeatureExtractor
from transformers_beats.audio.decoding import AudioStream
from transformers_beats.conversion.checkpoint import read_checkpoint
from transformers_beats.inference.events import EventSettings, find_events
from transformers_beats.inference.pipeline import BeatsAudioTaggingPipeline
from transformers_beats.inference.results import Columns
from transformers_beats.inference.windowed import WindowedInference, count_columns
from transformers_beats.training.config.arguments import FineTuningArguments
from transformers_beats.training.config.recipes import find_settings, parse_arguments
from transformers_beats.training.data.augmentation import AugmentationArguments
from transformers_beats.training.data.folds import FoldArguments
from transformers_beats.training.data.sources import DataArguments
from transformers_beats.utils.errors import UsageError


RATE = 16000
SEEDS = st.integers(0, 2**32)
SECONDS = st.one_of(st.floats(), st.floats(0.17, 2.0), st.sampled_from([1e-320, 1e300, 1e308, 0.0, -1.0]))


@pytest.fixture(scope="module")
def classifier():
    return read_checkpoint(FIXTURES / "beats_tiny_finetuned.pt").build_model()


@pytest.fixture(scope="module")
def tagger(classifier):
    return BeatsAudioTaggingPipeline(model=classifier, feature_extractor=BeatsFeatureExtractor(), device="cpu")


@fuzz(
    20,
    400,
    length=st.one_of(st.integers(1, 3000), st.integers(1, 50_000)),
    window=st.floats(0.175, 2.0),
    overlap=st.floats(0, 1),
    batch_size=st.integers(1, 5),
    cuts=st.lists(st.integers(0, 50_000), max_size=6),
    scale=st.sampled_from([0.0, 1e-40, 1e-4, 0.3, 1e4]),
    seed=SEEDS,
)
def test_windows_give_each_column_a_score_however_the_recording_is_cut(
    classifier, length, window, overlap, batch_size, cuts, scale, seed
):
    extractor = BeatsFeatureExtractor()
    wave = (scale * np.random.default_rng(seed).uniform(-1, 1, length)).astype(np.float32)
    inference = WindowedInference(classifier, extractor, window, max(0.01, window * overlap), batch_size)
    blocks = np.split(wave, sorted(min(cut, length) for cut in cuts))
    columns = inference.frames(AudioStream("x", blocks, RATE))
    assert columns.values.shape == (count_columns(length, extractor), 6)
    assert np.isfinite(columns.values).all()
    assert ((columns.values >= 0) & (columns.values <= 1)).all()
    np.testing.assert_allclose(inference.frames(wave, RATE).values, columns.values, atol=1e-5)


@fuzz(
    40,
    500,
    values=st.fixed_dictionaries(
        {},
        optional={
            "window_seconds": st.one_of(st.floats(-1), st.sampled_from([math.nan, math.inf])),
            "hop_seconds": SECONDS,
            "event_window_seconds": st.one_of(st.floats(-1), st.sampled_from([math.nan, math.inf])),
            "event_hop_seconds": SECONDS,
            "batch_size": st.integers(-1, 9),
            "top_k": st.integers(-1, 9),
            "threshold": st.floats(),
            "event_threshold": st.floats(),
            "low_threshold": st.floats(),
            "median_seconds": SECONDS,
            "gap_seconds": SECONDS,
            "min_seconds": SECONDS,
            "sampling_rate": st.one_of(st.floats(), st.integers(-1, 10**6)),
        },
    ),
)
def test_any_parameters_of_the_pipeline_give_results_or_an_error(tagger, values):
    rate = values.get("sampling_rate")
    # Half a second at 1 Hz is hours at 16 kHz.
    if isinstance(rate, (int, float)) and not (rate >= 1000 or not rate > 0):
        return
    wave = 0.1 * np.random.default_rng(0).standard_normal(8000)
    try:
        result = tagger(wave, return_events=True, **values)
    except (ValueError, TypeError) as error:
        assert str(error)
        return
    assert all(math.isfinite(item["score"]) for key in ("labels", "events") for item in result[key])
    assert all(0 <= event["start"] < event["end"] for event in result["events"])


@fuzz(
    60,
    2000,
    audio=st.recursive(
        st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=3), st.binary(max_size=9)),
        lambda inner: st.one_of(
            st.lists(inner, max_size=3),
            st.dictionaries(
                st.sampled_from(["array", "raw", "bytes", "path", "sampling_rate", "x"]), inner, max_size=3
            ),
        ),
        max_leaves=8,
    ).filter(lambda audio: not isinstance(audio, list)),
)
def test_any_object_is_tagged_or_refused(tagger, audio):
    # Few samples at a low rate are hours.
    if (
        isinstance(audio, dict)
        and isinstance(audio.get("sampling_rate"), (int, float))
        and audio["sampling_rate"] < 1e3
    ):
        return
    try:
        result = tagger(audio)
    except (ValueError, TypeError) as error:
        assert str(error)
        return
    assert all(math.isfinite(item["score"]) for item in result)


@fuzz(
    60,
    4000,
    scores=st.lists(
        st.lists(st.one_of(st.floats(0, 1), st.sampled_from([0.0, 0.5, 1.0])), min_size=3, max_size=3),
        min_size=1,
        max_size=40,
    ),
    threshold=st.floats(0, 1),
    low=st.floats(0, 1),
    median=st.floats(0, 5),
    gap=st.floats(0, 5),
    shortest=st.floats(0, 5),
    first=st.integers(0, 1000),
)
def test_events_are_apart_long_enough_and_heard(scores, threshold, low, median, gap, shortest, first):
    settings = EventSettings(threshold, min(low, threshold), median, gap, shortest)
    columns = Columns(np.array(scores, dtype=np.float32), first, 0.16)
    events = find_events(columns, {0: "a", 1: "b", 2: "c"}, settings)
    assert [event.start for event in events] == sorted(event.start for event in events)
    for event in events:
        assert event.score >= np.float32(threshold)
        assert event.end - event.start >= shortest - 1e-5
        assert columns.starts[0] - 1e-5 <= event.start < event.end <= columns.ends[-1] + 1e-5
    for label in "abc":
        own = [event for event in events if event.label == label]
        assert all(later.start - earlier.end > gap - 1e-5 for earlier, later in pairwise(own))


RECIPE = (FineTuningArguments, DataArguments, FoldArguments, AugmentationArguments)
KEYS = [*find_settings(RECIPE), "config", "x", "model_config.x", "select.x", "lora.x", "dataset.x"]
# Messages repeat the word.
TEXT = st.text(st.characters(min_codepoint=32, exclude_categories=["C", "Z"]), max_size=6)
YAML_VALUES = st.one_of(
    TEXT,
    st.sampled_from(
        ["1e-3", "true", "[1, 2", "{a: b}", "2001-99-99", "!!int x", "nan", ".inf", "&a [*a]", "1" * 5000]
    ),
)


@fuzz(
    40,
    1000,
    words=st.lists(
        st.one_of(st.tuples(st.sampled_from(KEYS), YAML_VALUES).map("=".join).map("--{}".format), TEXT), max_size=4
    ),
)
def test_any_words_are_a_recipe_or_one_line(words):
    try:
        parse_arguments(RECIPE, [word for word in words if word not in ("-h", "--help", "--help-all")])
    except UsageError as error:
        assert len(str(error).splitlines()) == 1


@pytest.mark.slow
def test_the_onnx_graph_gives_what_pytorch_gives_for_any_batch(classifier):
    onnxruntime = pytest.importorskip("onnxruntime")
    from transformers_beats.export.onnx import export_onnx
    from transformers_beats.export.waveform_model import WaveformModel

    module = WaveformModel(classifier, BeatsFeatureExtractor()).eval()
    generator = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as name:
        export_onnx(classifier, BeatsFeatureExtractor(), Path(name) / "model.onnx")
        session = onnxruntime.InferenceSession(Path(name) / "model.onnx", providers=["CPUExecutionProvider"])
    for _ in range(1500 if IS_THOROUGH else 50):
        batch, samples = int(generator.integers(1, 5)), int(generator.integers(2800, 30_000))
        scale = generator.choice([0.0, 1e-30, 1e-3, 0.3, 1.0, 1e3])
        waves = (scale * generator.uniform(-1, 1, (batch, samples))).astype(np.float32)
        lengths = generator.choice(
            [0, 1, 399, 2800, samples, samples + 5, -3, 2**62, *generator.integers(samples, size=4)], batch
        )
        found = session.run(["probabilities"], {"waveforms": waves, "lengths": lengths.astype(np.int64)})[0]
        with torch.no_grad():
            expected = dict(zip(module.output_names, module(torch.from_numpy(waves), torch.from_numpy(lengths))))
        np.testing.assert_allclose(found, expected["probabilities"].numpy(), atol=1e-4)
        assert np.isfinite(found).all()
        count("test_the_onnx_graph_gives_what_pytorch_gives_for_any_batch")
    for waves, lengths in ((np.zeros((1, 2799)), [1]), (np.zeros((2, 2800)), [1, 2, 3]), (np.zeros((0, 2800)), [])):
        try:
            found = session.run(
                None, {"waveforms": waves.astype(np.float32), "lengths": np.array(lengths, dtype=np.int64)}
            )
        except Exception as error:  # onnxruntime's own
            assert "onnxruntime" in type(error).__module__
        else:
            assert found[0].shape[0] == len(waves)
