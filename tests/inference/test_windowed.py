# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
import copy
import io
import tracemalloc
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from transformers_beats import (
    BeatsConfig,
    BeatsFeatureExtractor,
    BeatsForAudioClassification,
    BeatsForAudioFrameClassification,
    BeatsModel,
    BeatsRandomProjectionTokenizer,
    BeatsRandomProjectionTokenizerConfig,
)
from transformers_beats.audio.decoding import AudioError, AudioStream, decode_audio
from transformers_beats.inference.results import Columns
from transformers_beats.inference.windowed import WindowedInference
from transformers_beats.inference.windows import cut_windows, merge_windows
from transformers_beats.utils.errors import UsageError


RATE = 16000
COLUMN = 2560
EXTRACTOR = BeatsFeatureExtractor()


def noise(num_samples: int, seed: int = 0) -> np.ndarray:
    # Loudness that changes, so that no two windows are alike.
    generator = np.random.default_rng(seed)
    knots = np.arange(0, num_samples + 8000, 8000)
    envelope = np.interp(np.arange(num_samples), knots, generator.random(len(knots)))
    return (0.2 * envelope * generator.standard_normal(num_samples)).astype(np.float32)


class FbankModel(torch.nn.Module):
    """Its scores of a column are the column's mean fbank, so that what comes out tells where it was."""

    dtype, device = torch.float32, torch.device("cpu")

    def __init__(self, is_clip_level: bool = False):
        super().__init__()
        self.config = BeatsConfig(problem_type="regression", num_labels=128)
        self.is_clip_level = is_clip_level

    def forward(self, input_values, attention_mask, return_dict):
        columns = fbank_columns(input_values)
        return SimpleNamespace(logits=columns.mean(dim=1) if self.is_clip_level else columns)


def fbank_columns(input_values: torch.Tensor) -> torch.Tensor:
    return input_values.unfold(1, 16, 16).mean(dim=-1)


def columns_of_whole(waveform: np.ndarray) -> np.ndarray:
    return fbank_columns(EXTRACTOR(waveform, sampling_rate=RATE, return_tensors="pt")["input_values"])[0].numpy()


def windowed(model, columns: int = 62, hop: int | None = None, **kwargs) -> WindowedInference:
    """Windows of so many columns."""
    hop_seconds = None if hop is None else hop * 0.16
    return WindowedInference(model, EXTRACTOR, columns * 0.16 + 0.02, hop_seconds, **kwargs)


@pytest.fixture
def clip_model(tiny_config):
    torch.manual_seed(0)
    return BeatsForAudioClassification(tiny_config).eval()


@pytest.fixture
def frame_model(tiny_config):
    torch.manual_seed(0)
    config = copy.deepcopy(tiny_config)
    config.problem_type = "multi_label_classification"
    return BeatsForAudioFrameClassification(config).eval()


# Geometry


@pytest.mark.parametrize(
    ("window_seconds", "hop_seconds", "columns"),
    [(10.0, None, (62, 62)), (10.0, 5.0, (62, 31)), (10, 0.01, (62, 1)), (0.175, None, (1, 1)), (1.0, 1.0, (6, 6))],
)
def test_a_window_has_the_columns_of_a_clip_of_its_length(window_seconds, hop_seconds, columns):
    inference = WindowedInference(FbankModel(), EXTRACTOR, window_seconds, hop_seconds)
    assert (inference.window_columns, inference.hop_columns) == columns
    assert inference.column_seconds == 0.16
    clip = np.zeros(round(window_seconds * RATE), dtype=np.float32)
    assert len(columns_of_whole(clip)) == inference.window_columns


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"hop_seconds": 10.1}, "not exceed"),
        ({"hop_seconds": 0.0}, "positive"),
        ({"hop_seconds": -1.0}, "positive"),
        ({"hop_seconds": float("nan")}, "positive"),
        ({"window_seconds": -1.0}, "`window_seconds` must be finite and at least 0.175, a patch, got -1.0"),
        ({"window_seconds": 0}, "`window_seconds` must .* got 0"),
        ({"window_seconds": float("nan")}, "window_seconds"),
        ({"window_seconds": float("inf")}, "window_seconds"),
        ({"window_seconds": 1e308}, "finite"),
        ({"window_seconds": 0.17}, "at least 0.175"),
        ({"window_seconds": "10"}, "`window_seconds` must .* got '10'"),
        ({"hop_seconds": "5"}, "`hop_seconds` must .* got '5'"),
        ({"batch_size": 0}, "batch_size"),
        ({"batch_size": 2.5}, "`batch_size` must be a whole number of at least 1, got 2.5"),
        ({"batch_size": float("nan")}, "got nan"),
    ],
)
def test_impossible_windows_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        WindowedInference(FbankModel(), EXTRACTOR, **settings)


def test_an_extractor_with_other_patches_is_refused():
    with pytest.raises(ValueError, match="patch_size"):
        WindowedInference(FbankModel(), BeatsFeatureExtractor(patch_size=8))


def test_the_fbank_of_a_window_is_that_of_the_same_frames_of_the_whole():
    waveform = noise(200_003)
    whole = EXTRACTOR(waveform, sampling_rate=RATE, return_tensors="np")["input_values"][0]
    starts = []
    for start, samples in cut_windows([waveform], EXTRACTOR, window_columns=30, hop_columns=17):
        part = EXTRACTOR(samples, sampling_rate=RATE, return_tensors="np")["input_values"][0]
        np.testing.assert_allclose(part, whole[start * 16 : (start + 30) * 16], atol=1e-5)
        starts.append(start)
    # 78 columns in all.
    assert starts == [0, 17, 34, 48]


@settings(max_examples=40, deadline=None)
@given(
    num_samples=st.integers(1, 12 * COLUMN) | st.integers(1, 12).map(lambda columns: columns * COLUMN + 240),
    columns=st.integers(1, 6),
    hop=st.integers(1, 6),
    batch_size=st.integers(1, 4),
    block=st.integers(1000, 20_000),
)
def test_every_column_of_the_whole_is_there_once(num_samples, columns, hop, batch_size, block):
    waveform = noise(num_samples)
    inference = windowed(FbankModel(), columns, min(hop, columns), batch_size=batch_size)
    stream = AudioStream("noise", (waveform[start : start + block] for start in range(0, num_samples, block)), 16000)
    blocks = list(inference.stream_frames(stream))
    assert [block.first for block in blocks[1:]] == np.cumsum([len(block.values) for block in blocks])[:-1].tolist()
    expected = columns_of_whole(waveform)
    frames = Columns.join(blocks).values
    assert frames.shape == expected.shape
    # FFTs round differently in the quietest bins.
    np.testing.assert_allclose(frames, expected, atol=1e-4)


def test_all_windows_of_a_longer_recording_have_the_same_shape():
    shapes = {samples.shape for _, samples in cut_windows([noise(100_000)], EXTRACTOR, 10, 7)}
    assert shapes == {(10 * COLUMN + 240,)}


# Merging


def table(*values: float) -> np.ndarray:
    return np.array(values, dtype=np.float32)[:, None]


def test_overlapping_columns_are_weighted_by_their_distance_from_the_edge():
    merged = list(merge_windows([(0, table(0, 0, 0, 0)), (2, table(6, 6, 6, 6))]))
    assert [start for start, _ in merged] == [0, 2]
    # Weights 1, 2, 2, 1: the third column is (2 * 0 + 1 * 6) / 3, the fourth (1 * 0 + 2 * 6) / 3.
    np.testing.assert_allclose(np.concatenate([values for _, values in merged])[:, 0], [0, 0, 2, 4, 6, 6])


def test_the_merge_of_equal_values_is_that_value_exactly():
    value = np.float32(0.1234567)
    merged = merge_windows((start, np.full((5, 3), value)) for start in (0, 1, 2, 4, 9, 9))
    values = np.concatenate([values for _, values in merged])
    assert values.shape == (14, 3)
    assert (values == value).all()


def test_integers_come_from_the_window_in_whose_middle_they_are():
    merged = merge_windows([(0, np.full((4, 1), 7)), (1, np.full((4, 1), 8)), (2, np.full((4, 1), 9))])
    values = np.concatenate([values for _, values in merged])
    assert values[:, 0].tolist() == [7, 7, 8, 8, 9, 9] or values[:, 0].tolist() == [7, 7, 7, 8, 9, 9]
    assert np.issubdtype(values.dtype, np.integer)


def test_columns_are_given_out_once_no_window_can_change_them():
    taken = []

    def windows():
        for start in range(0, 40, 4):
            taken.append(start)
            yield start, np.zeros((8, 1), dtype=np.float32)

    first, values = next(merge_windows(windows()))
    assert (first, len(values), taken) == (0, 4, [0, 4])


def test_columns_that_are_kept_do_not_keep_their_window():
    windows = ((start, np.zeros((50, 3), dtype=np.float32)) for start in range(100))
    blocks = [values for _, values in merge_windows(windows)]
    assert all(values.base is None for values in blocks)


# One window


@pytest.mark.parametrize("num_samples", [1, 399, 2799, 2800, 40_007, 160_000])
def test_where_one_window_covers_a_clip_the_result_is_the_models(num_samples, clip_model, frame_model, golden_model):
    waveform = noise(num_samples)
    inputs = EXTRACTOR(waveform, sampling_rate=RATE, return_tensors="pt")
    tokenizer = golden_model("tokenizer_tiny").eval()
    with torch.no_grad():
        probabilities = clip_model(**inputs).logits[0].softmax(-1).numpy()
        frames = frame_model(**inputs).logits[0].sigmoid().numpy()
        encoded = clip_model.beats(**inputs)
        codes = tokenizer(**inputs).audio_codes[0].numpy()

    clip = WindowedInference(clip_model, EXTRACTOR).classify(waveform, RATE)
    np.testing.assert_allclose(clip.scores, probabilities, atol=1e-6)
    np.testing.assert_allclose(clip.windows[0].scores, probabilities, atol=1e-6)
    np.testing.assert_allclose(
        WindowedInference(frame_model, EXTRACTOR).frames(waveform, RATE).values, frames, atol=1e-6
    )
    inference = WindowedInference(clip_model, EXTRACTOR)
    np.testing.assert_allclose(inference.embed(waveform, RATE), encoded.pooler_output[0].numpy(), atol=1e-6)
    (block,) = inference.stream_embeddings(waveform, RATE)
    np.testing.assert_allclose(block.values, clip_model.beats.to_grid(encoded.last_hidden_state)[0].numpy(), atol=1e-6)
    found = WindowedInference(tokenizer, EXTRACTOR).codes(waveform, RATE).values
    assert (found.dtype, found.tolist()) == (np.int64, codes.tolist())


def test_the_legacy_mask_changes_nothing_where_there_is_no_padding(tiny_config):
    tiny_config.legacy_padding_mask = True
    model, extractor = BeatsForAudioClassification(tiny_config).eval(), BeatsFeatureExtractor(legacy_padding_mask=True)
    waveform = noise(30_000)
    with torch.no_grad():
        logits = model(**extractor(waveform, sampling_rate=RATE, return_tensors="pt")).logits[0]
    clip = WindowedInference(model, extractor).classify(waveform, RATE)
    np.testing.assert_allclose(clip.scores, logits.softmax(-1).numpy(), atol=1e-6)


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize(("mean", "std"), [(0.0, 0.5), (-4.2677393, 4.5689974)])
def test_a_model_with_the_statistics_of_another_kind_is_used(mean, std, legacy, tiny_config):
    tiny_config.legacy_padding_mask = legacy
    model = BeatsForAudioClassification(tiny_config).eval()
    extractor = BeatsFeatureExtractor(fbank_mean=mean, fbank_std=std, legacy_padding_mask=legacy)
    waveform = noise(32_000)
    inputs = extractor(waveform, sampling_rate=RATE, return_tensors="pt")
    with pytest.raises(ValueError, match=r"are (not )?normalised"):
        model(inputs["input_values"])
    with torch.no_grad():
        logits = model(**inputs).logits[0]
    scores = WindowedInference(model, extractor).classify(waveform, RATE).scores
    np.testing.assert_allclose(scores, logits.softmax(-1).numpy(), atol=1e-6)


@pytest.mark.parametrize("dtype", ["int16", "int32", "uint8", "float64"])
def test_blocks_of_ones_own_may_be_pcm(dtype, clip_model):
    samples = noise(48_000).clip(-1, 1)
    scale = {"int16": 2**15 - 1, "int32": 2**31 - 200, "uint8": 127}.get(dtype, 1)
    blocks = (samples * scale + (128 if dtype == "uint8" else 0)).astype(dtype)
    stream = AudioStream("mic", np.array_split(blocks, 5), RATE)
    expected = windowed(clip_model).classify(blocks, RATE).scores
    # Also once more, and shared.
    for each in (stream, stream, *stream.share(2)):
        np.testing.assert_allclose(windowed(clip_model).classify(each).scores, expected, atol=1e-6)


def test_blocks_of_ones_own_are_checked_as_files_are(clip_model, caplog):
    loud, broken = 20_000 * noise(16_000), np.where(np.arange(16_000) == 9, np.nan, noise(16_000))
    stream = AudioStream("mic", [loud], RATE)
    windowed(clip_model).classify(stream)
    (warning,) = stream.report.warnings
    assert "but full scale is 1.0. Divide 16-bit samples by 32768." in warning
    assert [record.getMessage() for record in caplog.records] == [f"mic: {warning}"]
    with pytest.raises(AudioError, match="mic: contains NaN"):
        windowed(clip_model).classify(AudioStream("mic", [broken.astype(np.float32)], RATE))
    with pytest.raises(UsageError, match="got ndarray of int64; PCM is uint8, int16, int32"):
        windowed(clip_model).classify(AudioStream("mic", [np.arange(16_000)], RATE))
    # What the stream has told does not use up the extractor's own warning.
    caplog.clear()
    windowed(clip_model).feature_extractor(30 * loud, sampling_rate=RATE)
    assert "A waveform reaches more than 32" in caplog.text


# Several windows


def test_the_score_of_a_recording_counts_every_moment_once():
    # 7 columns in windows of 4: the last window shares one column, which counts half for each of both.
    waveform = noise(7 * COLUMN + 240)
    clip = windowed(FbankModel(is_clip_level=True), 4).classify(waveform, RATE)
    first, last = (window.scores for window in clip.windows)
    np.testing.assert_allclose(clip.scores, (3.5 * first + 3.5 * last) / 7, rtol=1e-5, atol=1e-7)
    # 5 columns: the last window adds one column of its own, and shares three, of weights 2 to 1, 2 to 2 and 1 to 2.
    clip = windowed(FbankModel(is_clip_level=True), 4).classify(noise(5 * COLUMN + 240), RATE)
    first, last = (window.scores for window in clip.windows)
    np.testing.assert_allclose(clip.scores, (2.5 * first + 2.5 * last) / 5, rtol=1e-5, atol=1e-7)


def test_windows_have_their_times(clip_model):
    inference = windowed(clip_model, columns=5, hop=3)
    waveform = noise(12 * COLUMN + 300)
    windows = inference.classify(waveform, RATE).windows
    assert [window.start for window in windows] == pytest.approx([0.0, 0.48, 0.96, 1.12])
    assert [window.end for window in windows] == pytest.approx([0.8, 1.28, 1.76, 1.92])
    for window, streamed in zip(windows, inference.stream_windows(waveform, RATE), strict=True):
        assert (window.start, window.end) == (streamed.start, streamed.end)
        np.testing.assert_array_equal(window.scores, streamed.scores)
    frames = inference.frames(waveform, RATE)
    assert (frames.starts[0], frames.ends[-1], len(frames.values)) == (0.0, pytest.approx(1.92), 12)
    np.testing.assert_allclose(frames.starts[1:], frames.ends[:-1])


def test_a_clip_level_model_gives_the_columns_of_a_window_its_scores(clip_model):
    inference = windowed(clip_model, columns=4)
    waveform = noise(8 * COLUMN + 240)
    first, second = inference.classify(waveform, RATE).windows
    frames = inference.frames(waveform, RATE)
    np.testing.assert_array_equal(frames.values, np.stack([first.scores] * 4 + [second.scores] * 4))


@pytest.mark.parametrize("batch_size", [1, 100])
def test_the_batch_size_changes_no_result(batch_size, clip_model):
    waveform = noise(20 * COLUMN)
    reference = windowed(clip_model, 5, 3, batch_size=2)
    inference = windowed(clip_model, 5, 3, batch_size=batch_size)
    np.testing.assert_allclose(
        inference.classify(waveform, RATE).scores, reference.classify(waveform, RATE).scores, atol=1e-6
    )
    np.testing.assert_allclose(inference.embed(waveform, RATE), reference.embed(waveform, RATE), atol=1e-5)


def test_codes_of_patches_do_not_depend_on_the_windows():
    model = BeatsRandomProjectionTokenizer(BeatsRandomProjectionTokenizerConfig(codebook_size=32, codebook_dim=8))
    waveform = noise(20 * COLUMN)
    whole = model(**EXTRACTOR(waveform, sampling_rate=RATE, return_tensors="pt")).audio_codes[0]
    codes = windowed(model, 6, 4).codes(waveform, RATE).values
    assert (codes == whole.numpy()).mean() > 0.99


def test_scores_are_those_of_the_problem_type(tiny_config):
    tiny_config.problem_type = "multi_label_classification"
    model = BeatsForAudioClassification(tiny_config)
    model.classifier.bias.data.fill_(3.0)
    assert WindowedInference(model, EXTRACTOR).classify(noise(5000), RATE).scores.sum() > 1.0
    tiny_config.problem_type = "single_label_classification"
    assert WindowedInference(model, EXTRACTOR).classify(noise(5000), RATE).scores.sum() == pytest.approx(1.0, abs=1e-5)
    tiny_config.problem_type = "regression"
    assert WindowedInference(model, EXTRACTOR).classify(noise(5000), RATE).scores.max() > 1.0


def test_a_single_value_is_a_regression_unless_the_model_says_otherwise(tiny_config):
    tiny_config.num_labels = 1
    model = BeatsForAudioClassification(tiny_config)
    model.classifier.bias.data.fill_(3.0)
    assert WindowedInference(model, EXTRACTOR).classify(noise(5000), RATE).scores.item() > 1.0


# Models


def test_half_precision_gives_float32_near_that_of_the_model_in_float32(clip_model):
    waveform = noise(40_000)
    expected = windowed(clip_model, 5).classify(waveform, RATE).scores
    scores = windowed(clip_model.bfloat16(), 5).classify(waveform, RATE).scores
    assert scores.dtype == np.float32
    np.testing.assert_allclose(scores, expected, atol=0.02)
    (block,) = windowed(clip_model).stream_embeddings(waveform, RATE)
    assert block.values.dtype == np.float32


def test_output_that_is_not_finite_is_an_error_that_names_the_recording(clip_model):
    clip_model.classifier.weight.data[0, 0] = float("inf")
    with pytest.raises(ValueError, match=r"the waveform: .* in torch\.float32 is not finite"):
        WindowedInference(clip_model, EXTRACTOR).classify(noise(5000), RATE)


def test_dropout_is_off_also_for_a_model_in_training(tiny_config):
    tiny_config.hidden_dropout = 0.5
    inference = WindowedInference(BeatsForAudioClassification(tiny_config).train(), EXTRACTOR)
    first = inference.classify(noise(5000), RATE).scores
    inference.model.train()
    np.testing.assert_array_equal(inference.classify(noise(5000), RATE).scores, first)


def test_inference_mode_holds_for_the_model_and_not_for_who_reads_the_stream(clip_model):
    modes = []
    clip_model.register_forward_pre_hook(lambda *_: modes.append(torch.is_inference_mode_enabled()))
    next(windowed(clip_model, 4).stream_frames(noise(60_000), RATE))
    assert modes == [True]
    assert not torch.is_inference_mode_enabled()
    assert torch.is_grad_enabled()


def test_a_compiled_model_is_compiled_once_for_a_recording(clip_model, compiler):
    graphs = []

    def count(graph, inputs):
        graphs.append(graph)
        return graph.forward

    waveform = noise(16 * COLUMN + 240)
    expected = windowed(clip_model, 4, batch_size=2).classify(waveform, RATE).scores
    clip_model.compile(backend=count, fullgraph=True)
    scores = windowed(clip_model, 4, batch_size=2).classify(waveform, RATE).scores
    assert len(graphs) == 1
    np.testing.assert_allclose(scores, expected, atol=1e-6)


def test_a_model_that_lacks_what_is_asked_for_says_so(tiny_config, clip_model, frame_model):
    with pytest.raises(ValueError, match="use `frames`"):
        WindowedInference(frame_model, EXTRACTOR).classify(noise(5000), RATE)
    with pytest.raises(ValueError, match="BeatsModel gives no logits"):
        WindowedInference(BeatsModel(tiny_config), EXTRACTOR).frames(noise(5000), RATE)
    with pytest.raises(ValueError, match="gives no audio_codes"):
        WindowedInference(clip_model, EXTRACTOR).codes(noise(5000), RATE)
    tokenizer = BeatsRandomProjectionTokenizer(BeatsRandomProjectionTokenizerConfig())
    with pytest.raises(ValueError, match="has no encoder"):
        WindowedInference(tokenizer, EXTRACTOR).embed(noise(5000), RATE)


# Audio


def test_files_bytes_arrays_and_dicts_give_the_same(tmp_path):
    path = tmp_path / "clip.wav"
    pcm = (noise(60_000) * 32767).astype(np.int16)
    soundfile.write(path, pcm, RATE)
    wave = pcm.astype(np.float32) / 32768
    inference = windowed(FbankModel(), 4)
    expected = inference.frames(path).values
    assert expected.shape == (23, 128)
    for audio in (str(path), path.read_bytes(), io.BytesIO(path.read_bytes()), {"raw": wave, "sampling_rate": RATE}):
        np.testing.assert_array_equal(inference.frames(audio).values, expected)
    for array in (wave, pcm, torch.from_numpy(wave), wave[None], wave.astype(np.float64), wave.tolist()):
        np.testing.assert_allclose(inference.frames(array, RATE).values, expected, atol=1e-6)
        dictionary = {"array": array, "sampling_rate": RATE}
        np.testing.assert_allclose(inference.frames(dictionary).values, expected, atol=1e-6)


@pytest.mark.parametrize("rate", [8000, 22050, 44100, 48000])
def test_arrays_of_another_rate_are_resampled_as_files_are(rate, tmp_path):
    wave = noise(3 * rate)
    soundfile.write(tmp_path / "clip.wav", wave, rate, subtype="FLOAT")
    inference = windowed(FbankModel(), 4)
    expected = columns_of_whole(decode_audio(tmp_path / "clip.wav"))
    np.testing.assert_allclose(inference.frames(tmp_path / "clip.wav").values, expected, atol=1e-4)
    np.testing.assert_allclose(inference.frames(wave, rate).values, expected, atol=1e-4)


@pytest.mark.parametrize(
    ("audio", "rate", "message"),
    [
        (np.zeros(9000), None, "sampling_rate"),
        ({"array": np.zeros(9000)}, None, "sampling_rate"),
        (np.zeros(9000), 0, "sampling_rate"),
        ({"file": "clip.wav"}, None, "A dict needs 'array'"),
        (np.zeros((1, 2, 9000)), RATE, r"\(1, 2, 9000\)"),
        (7, RATE, "a file or an array of numbers, got 7"),
        (np.zeros(9000, dtype=np.int64), RATE, "int64"),
        (np.zeros(0), RATE, "holds no audio"),
        (np.array([0.0] * 30_000 + [np.nan]), RATE, "NaN"),
    ],
)
def test_what_is_no_mono_waveform_of_a_known_rate_is_refused(audio, rate, message):
    with pytest.raises(ValueError, match=message):
        windowed(FbankModel(), 4).frames(audio, rate)


def test_a_file_that_cannot_be_opened_is_an_error_before_the_stream_is_read(clip_model, tmp_path):
    (tmp_path / "text.wav").write_text("not audio")
    inference = windowed(clip_model, 4)
    for stream in (inference.stream_frames, inference.stream_windows, inference.stream_embeddings):
        for name in ("text.wav", "absent.wav"):
            with pytest.raises(AudioError, match=name):
                stream(tmp_path / name)


def test_a_bad_sample_is_an_error_when_the_stream_comes_to_it(tmp_path):
    wave = noise(20 * RATE)
    wave[-1] = np.inf
    soundfile.write(tmp_path / "clip.wav", wave, RATE, subtype="FLOAT")
    stream = windowed(FbankModel(), 4, batch_size=1).stream_frames(tmp_path / "clip.wav")
    assert next(stream).first == 0
    with pytest.raises(AudioError, match=r"clip\.wav: contains NaN or infinite"):
        list(stream)


# Several recordings


LENGTHS = (5000, 1, 2799, 40_000, 12_000, 90_000, 12_100, 5000)


def batches_of(model) -> list[tuple[int, bool]]:
    """Will hold how many windows the model got at once, and whether with a mask."""
    batches = []

    def note(module, args, kwargs):
        batches.append((len(kwargs["input_values"]), kwargs["attention_mask"] is not None))

    model.register_forward_pre_hook(note, with_kwargs=True)
    return batches


def test_recordings_that_share_batches_have_the_results_that_they_have_alone(clip_model, frame_model, golden_model):
    recordings = [noise(length, seed) for seed, length in enumerate(LENGTHS)]
    tokenizer = golden_model("tokenizer_tiny")

    def make(model) -> WindowedInference:
        return windowed(model, 12, 7, batch_size=3)

    clips = make(clip_model)
    for scores, recording in zip(clips.classify_many(recordings, RATE), recordings, strict=True):
        alone = clips.classify(recording, RATE)
        np.testing.assert_allclose(scores.scores, alone.scores, atol=1e-5)
        assert [window.end for window in scores.windows] == [window.end for window in alone.windows]
    for embedding, recording in zip(clips.embed_many(recordings, RATE), recordings, strict=True):
        np.testing.assert_allclose(embedding, clips.embed(recording, RATE), atol=1e-5)
    frames = make(frame_model)
    for blocks, recording in zip(frames.stream_frames_many(recordings, RATE), recordings, strict=True):
        np.testing.assert_allclose(Columns.join(blocks).values, frames.frames(recording, RATE).values, atol=1e-5)
    codes = make(tokenizer)
    for found, recording in zip(codes.codes_many(recordings, RATE), recordings, strict=True):
        np.testing.assert_array_equal(found.values, codes.codes(recording, RATE).values)


def test_recordings_of_similar_length_share_batches(clip_model):
    batches = batches_of(clip_model)
    recordings = [noise(length) for length in (30_000, 5000, 90_000, 5100, 27_000, 5000)]
    # Of 1, 10 and 11 columns, and two windows of 24.
    list(windowed(clip_model, 24, batch_size=3).classify_many(recordings, RATE))
    assert batches == [(3, False), (2, True), (2, False)]


def test_under_the_legacy_mask_only_windows_of_the_same_length_share_a_batch(tiny_config):
    tiny_config.legacy_padding_mask = True
    model = BeatsForAudioClassification(tiny_config)
    batches = batches_of(model)
    extractor = BeatsFeatureExtractor(legacy_padding_mask=True)
    inference = WindowedInference(model, extractor)
    recordings = [noise(length, seed) for seed, length in enumerate((30_000, 5000, 5100, 27_000, 5000))]
    results = list(inference.classify_many(recordings, RATE))
    assert batches == [(3, False), (1, False), (1, False)]
    for scores, recording in zip(results, recordings, strict=True):
        np.testing.assert_allclose(scores.scores, inference.classify(recording, RATE).scores, atol=1e-6)


def test_under_the_legacy_mask_a_clip_shorter_than_a_patch_is_an_error_of_its_own(tiny_config):
    tiny_config.legacy_padding_mask = True
    model = BeatsForAudioClassification(tiny_config)
    inference = WindowedInference(model, BeatsFeatureExtractor(legacy_padding_mask=True))
    # Of one column, like the longer ones.
    results = inference.classify_many([noise(5000), noise(1600), noise(5100)], RATE)
    assert next(results).scores.shape == (5,)
    with pytest.raises(ValueError, match="undefined for clips of 1600 samples"):
        next(results)
    assert next(results).scores.shape == (5,)


def test_after_the_error_of_a_recording_come_the_results_of_the_next_ones(clip_model, tmp_path):
    wave = noise(20 * RATE)
    wave[-1] = np.inf
    soundfile.write(tmp_path / "bad.wav", wave, RATE, subtype="FLOAT")
    inference = windowed(clip_model, 12, batch_size=2)
    good = noise(9000)
    results = inference.classify_many([good, tmp_path / "bad.wav", tmp_path / "absent.wav", good], RATE)
    first = next(results)
    for name in ("bad.wav: contains NaN", "absent.wav: no such file"):
        with pytest.raises(AudioError, match=name):
            next(results)
    np.testing.assert_allclose(next(results).scores, first.scores, atol=1e-6)
    assert next(results, None) is None


def test_a_recording_that_the_model_refuses_does_not_take_the_others_with_it(clip_model, monkeypatch):
    forward = clip_model.forward

    def refuse_loud(input_values, **kwargs):
        if input_values.max() > 0.8:
            raise ValueError("too loud")
        return forward(input_values, **kwargs)

    monkeypatch.setattr(clip_model, "forward", refuse_loud)
    quiet = noise(9000) / 10
    inference = windowed(clip_model, 12)
    results = inference.classify_many([quiet, noise(9000) * 10, quiet], RATE)
    alone = inference.classify(quiet, RATE).scores
    np.testing.assert_allclose(next(results).scores, alone, atol=1e-6)
    with pytest.raises(ValueError, match="too loud"):
        next(results)
    np.testing.assert_allclose(next(results).scores, alone, atol=1e-6)


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("[enforce fail at alloc_cpu.cpp:121] err == 0. DefaultCPUAllocator: can't allocate memory"),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB."),
        RuntimeError("MPS backend out of memory"),
        MemoryError(),
    ],
)
def test_what_does_not_fit_into_the_memory_is_computed_window_by_window(clip_model, monkeypatch, error):
    forward = clip_model.forward
    sizes = []

    def allocate(input_values, **kwargs):
        sizes.append(len(input_values))
        if len(input_values) > 1 or input_values.shape[1] > 12 * 16:
            raise error
        return forward(input_values, **kwargs)

    clips = [noise(9000), noise(32000), noise(9000)]
    alone = windowed(clip_model, 12).classify(clips[0], RATE).scores
    monkeypatch.setattr(clip_model, "forward", allocate)
    results = windowed(clip_model, 62).classify_many(clips, RATE)
    np.testing.assert_allclose(next(results).scores, alone, atol=1e-6)
    with pytest.raises(MemoryError, match=r"^the waveform: a window of 1.92 s needs more memory .* shorter windows"):
        next(results)
    np.testing.assert_allclose(next(results).scores, alone, atol=1e-6)
    assert sizes == [2, 1, 1, 1]


def test_other_errors_of_the_model_are_not_taken_for_a_lack_of_memory(clip_model, monkeypatch):
    def fail(input_values, **kwargs):
        raise RuntimeError("shapes do not match")

    monkeypatch.setattr(clip_model, "forward", fail)
    with pytest.raises(RuntimeError, match="shapes do not match"):
        windowed(clip_model, 12).classify(noise(9000), RATE)


def test_after_any_error_of_the_source_come_the_results_of_the_next_ones(clip_model):
    class Source:
        """A dataset whose second clip cannot be decoded."""

        def __getitem__(self, index):
            if index == 1:
                raise RuntimeError("no decoder")
            return noise(9000)

    inference = windowed(clip_model, 12)
    results = inference.classify_many(map(Source().__getitem__, range(3)), RATE)
    first = next(results)
    with pytest.raises(RuntimeError, match="no decoder"):
        next(results)
    np.testing.assert_allclose(next(results).scores, first.scores, atol=1e-6)
    assert next(results, None) is None


def test_a_recording_that_has_failed_is_not_read_to_its_end():
    read = []

    class Broken(FbankModel):
        def forward(self, input_values, attention_mask, return_dict):
            logits = fbank_columns(input_values)
            return SimpleNamespace(logits=logits / 0 if input_values.max() < 0 else logits)

    results = windowed(Broken(), 4, batch_size=2).stream_frames_many([silence(1000, read), noise(9000)], RATE)
    with pytest.raises(ValueError, match=r"silence: the model's output in torch\.float32 is not finite"):
        list(next(results))
    assert len(list(next(results))) == 1
    assert len(read) < 20


def test_long_windows_are_not_held_for_short_ones():
    read = []

    def recordings():
        for second in range(20):
            read.append(second)
            yield noise(9000 if second == 0 else 60 * RATE)

    # 375 columns each.
    inference = WindowedInference(FbankModel(), EXTRACTOR, window_seconds=60, batch_size=2)
    list(next(inference.stream_frames_many(recordings(), RATE)))
    assert len(read) == 12


def test_several_batches_are_read_ahead_and_no_more(clip_model):
    read = []

    def recordings():
        for seconds in range(1000):
            read.append(seconds)
            yield noise(5000)

    results = windowed(clip_model, 12, batch_size=2).classify_many(recordings(), RATE)
    assert read == []
    next(results)
    assert len(read) == 16


# Memory and progress


def silence(seconds: int, read: list) -> AudioStream:
    """Blocks of a second, which are written down as they are read."""

    def blocks():
        for second in range(seconds):
            read.append(second)
            yield np.zeros(RATE, dtype=np.float32)

    return AudioStream("silence", blocks(), 16000)


def test_no_more_is_read_than_a_batch_needs():
    read = []
    stream = windowed(FbankModel(), 62, batch_size=2).stream_frames(silence(1000, read))
    next(stream)
    assert len(read) == 20
    next(stream)
    assert len(read) == 40


def test_memory_does_not_grow_with_the_length():
    peaks = []
    inference = windowed(FbankModel(), 62, batch_size=2)
    for minutes in (1, 1, 4):
        tracemalloc.start()
        assert sum(len(block.values) for block in inference.stream_frames(silence(60 * minutes, []))) > 370 * minutes
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    # The first has what is made once. 3 minutes more are 11 MB of samples.
    assert peaks[2] < peaks[1] + 1_000_000


def test_progress_is_shown_in_seconds_of_audio_if_asked_for(tmp_path, capsys):
    soundfile.write(tmp_path / "clip.wav", noise(50 * RATE), RATE)
    windowed(FbankModel(), 4).frames(tmp_path / "clip.wav")
    assert capsys.readouterr().err == ""
    inference = windowed(FbankModel(), 4, progress=True)
    inference.frames(tmp_path / "clip.wav")
    shown = capsys.readouterr().err
    assert "clip.wav" in shown
    assert "50/50" in shown
    for columns in inference.stream_frames_many(2 * [tmp_path / "clip.wav"]):
        list(columns)
    assert "100/100" in capsys.readouterr().err
