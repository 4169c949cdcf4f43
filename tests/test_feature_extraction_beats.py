# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
import json
import logging
from decimal import Decimal

import numpy as np
import pytest
import torch
from benchmarks.fbank_precision import fbank_in_float64
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import DataCollatorWithPadding
from transformers.feature_extraction_sequence_utils import SequenceFeatureExtractor

from transformers_beats import BeatsFeatureExtractor
from transformers_beats.fbank_beats import (
    _mel_filters,
    fbank_constants,
    kaldi_fbank,
    num_fbank_frames,
    num_fbank_samples,
)


@pytest.fixture(scope="module")
def extractor():
    return BeatsFeatureExtractor()


def noise(num_samples: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(num_samples).astype(np.float32) * 0.1


def check_fbank(actual: torch.Tensor, expected: torch.Tensor):
    """
    The FFTs of different CPUs round differently, by about one part in 10^6 of a frame's loudest amplitude. In the
    logarithm of the faintest filters this is visible, everywhere else it is not.
    """
    assert actual.shape == expected.shape
    assert (actual - expected).abs().mean() < 1e-6
    extractor = BeatsFeatureExtractor()
    amplitudes = [
        (0.5 * (x.double() * 2 * extractor.fbank_std + extractor.fbank_mean)).exp() for x in (actual, expected)
    ]
    loudest = amplitudes[1].amax(dim=-1, keepdim=True)
    torch.testing.assert_close(amplitudes[0] / loudest, amplitudes[1] / loudest, rtol=0, atol=1e-5)


@pytest.mark.parametrize("order", [1, -1])
def test_a_clip_may_be_a_pair_of_waveform_and_rate(extractor, order):
    pair = (noise(8000), 16000)[::order]
    expected = extractor(noise(8000), sampling_rate=16000)["input_values"][0]
    for clips in (pair, [pair, pair]):
        for features in extractor(clips)["input_values"]:
            np.testing.assert_array_equal(features, expected)
    with pytest.raises(ValueError, match="The audio is at 8000 Hz"):
        extractor((noise(8000), 8000), sampling_rate=16000)
    with pytest.raises(ValueError, match="Expected mono audio"):
        extractor((np.stack([noise(8000)] * 2), 16000))
    with pytest.raises(ValueError, match="Some clips of the batch are pairs"):
        extractor([(noise(8000), 16000), noise(8000)])


def test_two_rows_are_a_batch_where_the_caller_says_so(extractor):
    rows = np.stack([noise(8000), noise(8000, seed=1)])
    features = extractor(rows, sampling_rate=16000, is_batch=True)["input_values"]
    expected = extractor(list(rows), sampling_rate=16000)["input_values"]
    np.testing.assert_array_equal(features, expected)


@pytest.mark.parametrize("index", [0, 1, 2])
def test_fbank_equals_the_reference(golden_inputs, extract, index):
    check_fbank(extract(index).input_values, golden_inputs[f"single{index}.fbank"])


def test_legacy_batch_equals_the_reference(golden_inputs, extract):
    features = extract(legacy_padding_mask=True)
    check_fbank(features.input_values, golden_inputs["batch.fbank"])
    # 32,777 samples are dealt to 203 frames: 161 each.
    assert features.attention_mask.sum(dim=1).tolist() == [203, -(-16123 // 161), -(-10000 // 161)]


@pytest.mark.parametrize("index", [0, 1, 2])
def test_fbank_is_as_near_to_float64_as_the_references(golden_inputs, extract, extractor, index):
    exact = fbank_in_float64(golden_inputs[f"waveform{index}"].numpy())
    exact = torch.from_numpy(exact - extractor.fbank_mean) / (2 * extractor.fbank_std)
    ours = (extract(index).input_values[0] - exact).abs()
    theirs = (golden_inputs[f"single{index}.fbank"][0] - exact).abs()
    assert ours.mean() < 1.5 * theirs.mean()
    assert ours.max() < 5e-4


@pytest.mark.parametrize("num_samples", [400, 559, 560, 2800, 16000, 160000])
def test_number_of_frames(num_samples):
    assert num_fbank_frames(num_samples) == 1 + (num_samples - 400) // 160
    assert kaldi_fbank(torch.zeros(1, num_samples)).shape == (1, num_fbank_frames(num_samples), 128)


def test_number_of_samples_inverts_number_of_frames():
    for num_frames in (1, 16, 998):
        assert num_fbank_frames(num_fbank_samples(num_frames)) == num_frames
        assert num_fbank_frames(num_fbank_samples(num_frames) - 1) == num_frames - 1


def test_fbank_of_many_clips_equals_fbank_of_each():
    # More frames than one block holds.
    waveforms = torch.from_numpy(np.stack([noise(48000, seed) for seed in range(20)]))
    together = kaldi_fbank(waveforms)
    alone = torch.cat([kaldi_fbank(waveform[None]) for waveform in waveforms])
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-5)


def test_fbank_is_differentiable_also_on_silence():
    waveform = torch.from_numpy(noise(4000)).reshape(1, -1)
    waveform[:, :1000] = 0
    waveform.requires_grad_()
    kaldi_fbank(waveform).sum().backward()
    assert waveform.grad is not None
    assert waveform.grad.isfinite().all()
    assert waveform.grad[:, 1000:].abs().max() > 0


# Seen with 2.6.0, not with 2.13.0: `aten._fft_r2c` is not supported for tensors of symbolic size.
traces_fft = pytest.mark.skipif(torch.__version__.startswith("2.6."), reason="PyTorch 2.6 traces no FFT of any size")


class Fbank(torch.nn.Module):
    def forward(self, waveforms):
        return kaldi_fbank(waveforms)


@traces_fft
@pytest.mark.usefixtures("compiler")
def test_one_graph_computes_the_fbank_of_any_number_and_length_of_clips():
    graphs = []

    def count(graph, _):
        graphs.append(graph)
        return graph

    compiled = torch.compile(Fbank(), fullgraph=True, dynamic=True, backend=count)
    for num_clips, num_samples in ((2, 16000), (3, 5000), (30, 48000), (5, 700)):
        waveforms = torch.from_numpy(np.stack([noise(num_samples, seed) for seed in range(num_clips)]))
        torch.testing.assert_close(compiled(waveforms), kaldi_fbank(waveforms), rtol=0, atol=1e-5)
    assert len(graphs) == 1


@traces_fft
def test_fbank_can_be_exported_for_any_number_and_length_of_clips():
    waveforms = torch.from_numpy(np.stack([noise(16000, seed) for seed in range(2)]))
    dynamic = torch.export.Dim.DYNAMIC
    program = torch.export.export(Fbank(), (waveforms,), dynamic_shapes=({0: dynamic, 1: dynamic},))
    more = torch.from_numpy(np.stack([noise(48000, seed) for seed in range(11)]))
    torch.testing.assert_close(program.module()(more), kaldi_fbank(more), rtol=0, atol=1e-5)


@pytest.mark.parametrize("sampling_rate", [1000, 8000, 16000, 44100])
@pytest.mark.parametrize("num_mel_bins", [1, 3, 64, 128])
def test_bands_of_mel_filters_hold_all_that_the_filters_hear(num_mel_bins, sampling_rate):
    fft_length = 1 << (sampling_rate * 25 // 1000 - 1).bit_length()
    expected, _ = _mel_filters(num_mel_bins, fft_length, sampling_rate)
    _, _, bands = fbank_constants(num_mel_bins, sampling_rate, torch.device("cpu"))
    filters, start = torch.zeros_like(expected), 0
    for first, band in bands:
        filters[first : first + len(band), start : start + band.shape[1]] = band
        start += band.shape[1]
    assert start == num_mel_bins
    assert torch.equal(filters, expected)


def test_what_was_computed_before_changes_nothing():
    waveform = torch.from_numpy(noise(4000)).reshape(1, -1)
    expected = kaldi_fbank(waveform)
    with torch.inference_mode():
        kaldi_fbank(waveform)
    torch.export.export(Fbank(), (waveform,))
    torch.set_default_dtype(torch.float64)
    try:
        assert torch.equal(kaldi_fbank(waveform), expected)
    finally:
        torch.set_default_dtype(torch.float32)
    with torch.device("meta"):
        assert torch.equal(kaldi_fbank(waveform), expected)
    waveform.requires_grad_()
    kaldi_fbank(waveform).sum().backward()
    assert waveform.grad is not None


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_fbank_is_float32_under_autocast(dtype):
    waveform = torch.from_numpy(noise(8000)).reshape(1, -1)
    expected = kaldi_fbank(waveform)
    with torch.autocast("cpu", dtype=dtype):
        actual = kaldi_fbank(waveform)
    assert actual.dtype == torch.float32
    assert torch.equal(actual, expected)


def test_gradient_flows_from_features_to_tensors(extractor):
    waveform = torch.from_numpy(noise(4000)).requires_grad_()
    features = extractor(waveform, sampling_rate=16000, return_tensors="pt")
    features.input_values.sum().backward()
    assert waveform.grad is not None


def as_int16(clip):
    return (clip * 32768).astype(np.int16)


@pytest.mark.parametrize(
    "convert",
    [
        lambda clip: clip.astype(np.float64),
        lambda clip: clip.tolist(),
        lambda clip: tuple(clip.tolist()),
        lambda clip: list(clip),
        torch.from_numpy,
        lambda clip: torch.from_numpy(clip)[None],
        lambda clip: clip[None],
        lambda clip: [clip],
        lambda clip: [clip.tolist()],
        lambda clip: [torch.from_numpy(clip)[None]],
        lambda clip: clip[::-1].copy()[::-1],
        lambda clip: np.frombuffer(clip.tobytes(), np.float32),
        lambda clip: clip.astype(">f4"),
    ],
)
def test_same_features_for_every_kind_of_input(extractor, convert):
    clip = noise(8000)
    expected = extractor(clip, sampling_rate=16000, return_tensors="pt")
    actual = extractor(convert(clip), sampling_rate=16000, return_tensors="pt")
    assert torch.equal(actual.input_values, expected.input_values)


@pytest.mark.parametrize(
    "convert",
    [as_int16, lambda clip: as_int16(clip).astype(np.int32) << 16, lambda clip: torch.from_numpy(as_int16(clip))],
)
def test_pcm_is_scaled(extractor, convert):
    clip = noise(8000)
    expected = extractor(as_int16(clip).astype(np.float32) / 32768, sampling_rate=16000, return_tensors="pt")
    actual = extractor(convert(clip), sampling_rate=16000, return_tensors="pt")
    torch.testing.assert_close(actual.input_values, expected.input_values, rtol=0, atol=1e-5)


def test_unsigned_8_bit_pcm_is_centred(extractor):
    silence = extractor(np.full(8000, 128, np.uint8), sampling_rate=16000, return_tensors="pt")
    torch.testing.assert_close(silence.input_values, torch.full((1, 48, 128), extractor.padding_value))


def test_batches_of_datasets_in_numpy_format(extractor):
    clips = [noise(8000), noise(5000)]
    batch = np.empty(2, dtype=object)
    batch[:] = clips
    actual = extractor(batch, sampling_rate=16000, return_tensors="pt")
    assert torch.equal(actual.input_values, extractor(clips, sampling_rate=16000, return_tensors="pt").input_values)


def test_input_is_left_alone(extractor):
    clip = noise(1000)
    copy = clip.copy()
    extractor([clip, noise(5000)], sampling_rate=16000, return_tensors="np")
    assert np.array_equal(clip, copy)


def test_return_types(extractor):
    clips = [noise(8000), noise(4000)]
    tensors = extractor(clips, sampling_rate=16000, return_tensors="pt")
    arrays = extractor(clips, sampling_rate=16000, return_tensors="np")
    lists = extractor(clips, sampling_rate=16000, padding=True)
    assert isinstance(arrays.input_values, np.ndarray)
    assert isinstance(lists.input_values, list)
    assert np.array_equal(arrays.input_values, tensors.input_values.numpy())
    assert np.array_equal(np.stack(lists.input_values), arrays.input_values)
    assert tensors.attention_mask.dtype == torch.int32
    assert "attention_mask" not in extractor(clips, sampling_rate=16000, return_attention_mask=False)


def test_padding_truncation_and_max_length(extractor):
    clips = [noise(16000), noise(48000)]

    def num_frames(**kwargs):
        features = extractor(clips, sampling_rate=16000, **kwargs)
        return [len(values) for values in features.input_values]

    assert num_frames() == [98, 298]
    assert num_frames(return_tensors="pt") == [298, 298]
    assert num_frames(padding=True) == [298, 298]
    assert num_frames(padding=False) == [98, 298]
    assert num_frames(padding="max_length", max_length=64000) == [398, 398]
    assert num_frames(padding="max_length", max_length=4.0) == [398, 398]
    assert num_frames(padding="max_length", max_length=2.0, truncation=True) == [198, 198]
    assert num_frames(padding=False, max_length=32000, truncation=True) == [98, 198]
    assert num_frames(padding=False, max_length=np.int64(32000), truncation=True) == [98, 198]
    assert num_frames(padding=False, max_length=np.float32(2.0), truncation=True) == [98, 198]
    assert num_frames(padding=False, max_length=Decimal("2.0"), truncation=True) == [98, 198]
    assert num_frames(max_length=0.01, truncation=True) == [16, 16]


def test_ragged_tensors_need_padding(extractor):
    with pytest.raises(ValueError, match="padding=True"):
        extractor([noise(8000), noise(4000)], sampling_rate=16000, padding=False, return_tensors="pt")


@pytest.mark.parametrize("num_samples", [1, 399, 400, 1600, 2799, 2800])
def test_short_clips_fill_one_column(extractor, num_samples):
    features = extractor(noise(num_samples), sampling_rate=16000, return_tensors="pt")
    assert features.input_values.shape == (1, 16, 128)
    assert features.attention_mask.tolist() == [[1] * 16]
    padded = np.pad(noise(num_samples), (0, 2800 - num_samples))
    expected = extractor(padded, sampling_rate=16000, return_tensors="pt")
    assert torch.equal(features.input_values, expected.input_values)


@pytest.mark.parametrize("lengths", [(160_000, 1600), (32_777, 2799, 400), (2800, 1)])
def test_the_legacy_mask_of_short_clips_is_the_references(lengths):
    extractor = BeatsFeatureExtractor(legacy_padding_mask=True)
    mask = extractor([noise(length) for length in lengths], sampling_rate=16000, return_tensors="pt").attention_mask
    # As in Microsoft's `forward_padding_mask`, from samples to frames.
    padding_mask = torch.arange(lengths[0]) >= torch.tensor(lengths).unsqueeze(1)
    num_frames = mask.shape[1]
    if lengths[0] % num_frames > 0:
        padding_mask = padding_mask[:, : -(lengths[0] % num_frames)]
    assert torch.equal(mask == 0, padding_mask.view(len(lengths), num_frames, -1).all(-1))


def test_the_legacy_mask_is_refused_where_microsofts_code_fails():
    extractor = BeatsFeatureExtractor(legacy_padding_mask=True)
    for clips, padding in (
        (noise(2799), True),
        ([noise(400), noise(2799)], True),
        ([noise(3000), noise(2799)], False),
    ):
        with pytest.raises(ValueError, match="undefined for clips of 2799 samples"):
            extractor(clips, sampling_rate=16000, padding=padding)
    mask = extractor(noise(1600), sampling_rate=16000, padding="max_length", max_length=3200)["attention_mask"]
    assert mask[0].tolist() == [1] * 10 + [0] * 8


@pytest.mark.parametrize(("max_length", "milliseconds"), [(1024, "64"), (998, "62.375"), (3000, "187.5")])
def test_a_length_in_frames_is_warned_of(max_length, milliseconds, extractor, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("transformers"), "propagate", True)
    extractor(noise(160000), sampling_rate=16000, max_length=max_length, padding="max_length", truncation=True)
    message = f"`max_length={max_length}` counts samples: clips are cut to {milliseconds} ms"
    assert message in caplog.text


@pytest.mark.parametrize(("max_length", "num_samples"), [(16000, 160000), (0.1, 160000), (1024, 1000)])
def test_other_lengths_are_not_warned_of(max_length, num_samples, extractor, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("transformers"), "propagate", True)
    extractor(noise(num_samples), sampling_rate=16000, max_length=max_length, truncation=True)
    assert "counts samples" not in caplog.text


def test_padding_value_is_silence(extractor):
    silence = extractor(np.zeros(4000, np.float32), sampling_rate=16000, return_tensors="pt")
    torch.testing.assert_close(silence.input_values, torch.full((1, 23, 128), extractor.padding_value))
    other = BeatsFeatureExtractor(fbank_mean=11.72215, fbank_std=10.60431)
    assert other.padding_value != extractor.padding_value


def test_padding_follows_statistics_that_are_set_later(tmp_path):
    extractor = BeatsFeatureExtractor()
    extractor.fbank_mean, extractor.fbank_std = 5.0, 3.0
    features = extractor([noise(16000), np.zeros(8000, np.float32)], sampling_rate=16000, return_tensors="pt")
    assert len(features.input_values[1].unique()) == 1
    alone = [{"input_values": values} for values in extractor([noise(16000), noise(8000)], 16000).input_values]
    assert (extractor.pad(alone)["input_values"][1, 48:] == np.float32(extractor.padding_value)).all()
    # What is saved is known as derived when it is loaded.
    extractor.save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "preprocessor_config.json").read_text())
    assert saved["padding_value"] == extractor.padding_value == BeatsFeatureExtractor(**saved).padding_value
    assert not any(name.startswith("_") for name in saved)
    loaded = BeatsFeatureExtractor.from_pretrained(tmp_path, fbank_mean=1.0)
    assert loaded.padding_value == BeatsFeatureExtractor(fbank_mean=1.0, fbank_std=3.0).padding_value


def test_padding_that_was_chosen_stays():
    extractor = BeatsFeatureExtractor(padding_value=-1)
    extractor.fbank_std = 3.0
    assert extractor.padding_value == -1.0
    extractor.padding_value = np.float32(0.5)
    assert json.loads(extractor.to_json_string())["padding_value"] == 0.5
    extractor.padding_value = None
    assert extractor.padding_value == BeatsFeatureExtractor(fbank_std=3.0).padding_value
    with pytest.raises(ValueError, match="`padding_value` must be a finite float32, got nan"):
        extractor.padding_value = float("nan")
    assert extractor.padding_value == BeatsFeatureExtractor(fbank_std=3.0).padding_value


@pytest.mark.parametrize(
    "given",
    [
        {"feature_size": np.int64(64)},
        {"sampling_rate": np.int16(16000)},
        {"patch_size": np.int32(8)},
        {"padding_value": np.float32(0)},
        {"fbank_mean": np.float32(1), "fbank_std": np.float32(2)},
        {"return_attention_mask": np.False_},
        {"legacy_padding_mask": np.True_},
    ],
)
def test_accepted_settings_of_numpy_are_saved(given, tmp_path):
    extractor = BeatsFeatureExtractor(**given)
    extractor.save_pretrained(tmp_path)
    loaded = BeatsFeatureExtractor.from_pretrained(tmp_path)
    assert loaded.to_dict() == extractor.to_dict()
    assert {name: getattr(loaded, name) for name in given} == given
    # At 16 bits, a rate in hertz has no room for its products.
    shapes = [each(noise(8000), sampling_rate=16000)["input_values"][0].shape for each in (extractor, loaded)]
    assert shapes == [(48, extractor.feature_size)] * 2


def test_statistics_are_saved_with_the_checkpoint(tmp_path):
    BeatsFeatureExtractor(fbank_mean=11.72215, fbank_std=10.60431).save_pretrained(tmp_path)
    reloaded = BeatsFeatureExtractor.from_pretrained(tmp_path)
    assert (reloaded.fbank_mean, reloaded.fbank_std) == (11.72215, 10.60431)
    assert (tmp_path / "feature_extraction_beats.py").is_file()


def test_resampling_is_asked_for(extractor):
    with pytest.raises(ValueError, match=r"44100 Hz.*16000 Hz.*librosa\.resample"):
        extractor(noise(8000), sampling_rate=44100)


@pytest.mark.parametrize("rate", [16000.0, np.int32(16000), np.array(16000), torch.tensor(16000), Decimal(16000)])
def test_a_rate_may_be_any_number(rate, extractor):
    assert extractor(noise(4000), sampling_rate=rate)["input_values"][0].shape == (23, 128)


@pytest.mark.parametrize("rate", ["16000", [16000], np.array([16000]), True, float("nan"), Decimal("nan")])
def test_a_rate_that_is_no_number_is_refused(rate, extractor):
    with pytest.raises(ValueError, match="`sampling_rate` must be a number, in hertz, got "):
        extractor(noise(4000), sampling_rate=rate)


@pytest.mark.parametrize("rate", [np.array(8000), torch.tensor(8000)])
def test_another_rate_in_an_array_is_named(rate, extractor):
    with pytest.raises(ValueError, match="Resample it"):
        extractor(noise(4000), sampling_rate=rate)


def test_missing_sampling_rate_warns_once(extractor, caplog):
    logger = logging.getLogger("transformers")
    logger.propagate = True
    with caplog.at_level(logging.WARNING, "transformers"):
        extractor(noise(8000))
        extractor(noise(8000))
    assert sum("sampling_rate" in record.getMessage() for record in caplog.records) == 1


@pytest.mark.parametrize(
    ("clip", "message"),
    [
        ([], "empty"),
        (np.zeros(0, np.float32), "empty"),
        ([np.zeros(4000, np.float32), np.zeros(0, np.float32)], "Clip 1 of the batch is empty"),
        (np.array([0.0, np.nan] * 2000), "NaN"),
        ([noise(4000), np.full(4000, np.inf)], "Clip 1 of the batch contains NaN or infinite"),
        (np.zeros((4000, 2), np.float32), "mono"),
        (np.zeros((2, 4000), np.float32), "stereo or two clips"),
        (torch.zeros(2, 4000), "stereo or two clips"),
        (np.full(4000, 1e20, np.float32), "full scale is 1.0"),
        ([np.zeros((2, 4000), np.float32)], "mono"),
        (np.zeros((2, 2, 4000), np.float32), "mono"),
        (np.zeros(4000, np.int64), "full scale is unknown"),
        (np.zeros(4000, bool), "full scale is unknown"),
        ("clip.wav", "load_audio"),
        (None, "load_audio"),
    ],
)
def test_bad_input_is_refused_with_a_reason(extractor, clip, message):
    with pytest.raises(ValueError, match=message):
        extractor(clip, sampling_rate=16000)


@pytest.mark.parametrize(
    "kwargs", [{"max_length": value} for value in (0, -1.0, float("nan"), True, "1", [1], 10**400)]
)
def test_max_length_must_be_positive(extractor, kwargs):
    with pytest.raises(ValueError, match="`max_length` must be a positive number, got "):
        extractor(noise(4000), sampling_rate=16000, truncation=True, **kwargs)


def test_truncation_needs_max_length(extractor):
    with pytest.raises(ValueError, match="max_length"):
        extractor(noise(4000), sampling_rate=16000, truncation=True)


@pytest.mark.parametrize("statistics", [{"fbank_std": 0.0}, {"fbank_std": float("nan")}, {"fbank_mean": float("inf")}])
def test_statistics_must_make_sense(statistics):
    with pytest.raises(ValueError, match="fbank_std"):
        BeatsFeatureExtractor(**statistics)


def test_padding_is_on_the_right():
    with pytest.raises(ValueError, match="padding_side"):
        BeatsFeatureExtractor(padding_side="left")


def test_unknown_arguments_are_errors(extractor):
    with pytest.raises(TypeError, match="truncaton"):
        extractor(noise(4000), sampling_rate=16000, truncaton=True)


def test_fbank_refuses_other_shapes():
    with pytest.raises(ValueError, match="batch_size, num_samples"):
        kaldi_fbank(torch.zeros(4000))
    with pytest.raises(ValueError, match="399 samples"):
        kaldi_fbank(torch.zeros(1, 399))


@pytest.mark.parametrize(
    ("name", "ours"),
    [("num_mel_bins", "feature_size"), ("mean", "fbank_mean"), ("std", "fbank_std"), ("sample_rate", "sampling_rate")],
)
def test_arguments_of_other_extractors_are_refused_with_the_right_name(name, ours, extractor, tmp_path):
    with pytest.raises(ValueError, match=f"no argument `{name}`: use `{ours}`"):
        BeatsFeatureExtractor(**{name: 64})
    extractor.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=f"no argument `{name}`: use `{ours}`"):
        BeatsFeatureExtractor.from_pretrained(tmp_path, **{name: 64})


def test_arguments_without_a_counterpart_are_refused():
    with pytest.raises(ValueError, match="no argument `do_normalize`"):
        BeatsFeatureExtractor(do_normalize=False)


def test_keys_that_transformers_writes_are_accepted(extractor, tmp_path):
    keys = {"feature_extractor_type": "BeatsFeatureExtractor", "processor_class": None, "padding_side": "right"}
    assert BeatsFeatureExtractor(**keys, auto_map={}, _processor_class=None).to_dict()["fbank_mean"] == 15.41663
    extractor.save_pretrained(tmp_path)
    assert BeatsFeatureExtractor.from_pretrained(tmp_path).to_dict() == {
        **extractor.to_dict(),
        "auto_map": {"AutoFeatureExtractor": "feature_extraction_beats.BeatsFeatureExtractor"},
    }


def test_unknown_settings_of_a_saved_file_are_left_out_with_a_warning(extractor, tmp_path, caplog):
    extractor.save_pretrained(tmp_path)
    path = tmp_path / "preprocessor_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "num_mel_bins": 64, "do_normalize": True}))
    logger = logging.getLogger("transformers")
    logger.propagate = True
    with caplog.at_level(logging.WARNING, "transformers"):
        loaded = BeatsFeatureExtractor.from_pretrained(tmp_path)
    assert "lacks, left out: `do_normalize`, `num_mel_bins`" in caplog.text
    assert not {"num_mel_bins", "do_normalize"} & set(loaded.to_dict())
    assert loaded.feature_size == 128


def test_settings_that_a_saved_file_lacks_can_be_given(extractor, tmp_path):
    extractor.save_pretrained(tmp_path)
    path = tmp_path / "preprocessor_config.json"
    saved = json.loads(path.read_text())
    del saved["legacy_padding_mask"]
    path.write_text(json.dumps(saved))
    assert BeatsFeatureExtractor.from_pretrained(tmp_path, legacy_padding_mask=True).legacy_padding_mask


class ExtractorWithGain(BeatsFeatureExtractor):
    def __init__(self, gain=1.0, **kwargs):
        super().__init__(**kwargs)
        self.gain = gain


def test_subclasses_keep_settings_of_their_own(tmp_path):
    ExtractorWithGain(gain=2.0, fbank_mean=10.0).save_pretrained(tmp_path)
    loaded = ExtractorWithGain.from_pretrained(tmp_path)
    assert (loaded.gain, loaded.fbank_mean) == (2.0, 10.0)
    # The file of its author is not copied.
    assert [path.name for path in tmp_path.iterdir()] == ["preprocessor_config.json"]


def test_statistics_that_are_given_at_loading_change_the_padding_that_follows_from_them(extractor, tmp_path):
    extractor.save_pretrained(tmp_path)
    given = {"fbank_mean": 0.0, "fbank_std": 0.5}
    loaded = BeatsFeatureExtractor.from_pretrained(tmp_path, **given)
    assert loaded.padding_value == BeatsFeatureExtractor(**given).padding_value
    assert BeatsFeatureExtractor.from_pretrained(tmp_path).padding_value == extractor.padding_value
    # One that was chosen stays.
    BeatsFeatureExtractor(padding_value=-1.0).save_pretrained(tmp_path)
    assert BeatsFeatureExtractor.from_pretrained(tmp_path, **given).padding_value == -1.0


@pytest.mark.parametrize(
    ("batch", "kind"),
    [
        (["a.wav", "b.wav"], "a list of str"),
        ([{"array": [0.0], "sampling_rate": 16000}], "a list of dict"),
        ([None], "a list of NoneType"),
        (np.array(["2026-01-01"], dtype="datetime64[D]"), "ndarray"),
    ],
)
def test_what_is_no_waveform_is_told(extractor, batch, kind):
    with pytest.raises(ValueError, match=f"Clip 0 of the batch is no waveform: .* got {kind}"):
        extractor(batch, sampling_rate=16000)


def test_a_mask_of_samples_is_refused_by_pad(extractor):
    features = {"input_values": [np.zeros((98, 128), np.float32)], "attention_mask": [np.ones(16000)]}
    with pytest.raises(ValueError, match=r"`attention_mask` of clip 0 must have shape \(98,\), .* got \(16000,\)"):
        extractor.pad(features)


def test_features_in_bfloat16_are_padded(extractor):
    values = torch.randn(98, 128).to(torch.bfloat16)
    padded = extractor.pad({"input_values": [values, values[:50]]})["input_values"]
    assert padded.dtype == torch.float32
    torch.testing.assert_close(padded[0], values.float())


def features_of(*lengths: int) -> list[np.ndarray]:
    generator = np.random.default_rng(0)
    return [generator.standard_normal((length, 128)).astype(np.float32) for length in lengths]


@pytest.mark.parametrize(
    ("options", "num_frames"),
    [
        ({}, 30),
        ({"padding": True}, 30),
        ({"padding": "longest"}, 30),
        ({"padding": "longest", "max_length": 50}, 30),
        ({"padding": "max_length", "max_length": 40}, 40),
        ({"padding": "max_length", "max_length": 20, "truncation": True}, 20),
        ({"padding": "longest", "max_length": 20, "truncation": True}, 20),
        ({"pad_to_multiple_of": 16}, 32),
        ({"pad_to_multiple_of": 10}, 30),
        ({"padding": "max_length", "max_length": 33, "pad_to_multiple_of": 16}, 48),
        ({"padding": "longest", "max_length": 18, "truncation": True, "pad_to_multiple_of": 8}, 24),
    ],
)
@pytest.mark.parametrize("return_tensors", ["pt", "np", None])
@pytest.mark.parametrize("as_examples", [True, False])
def test_pad(extractor, options, num_frames, return_tensors, as_examples):
    clips = features_of(17, 30)
    features = [{"input_values": clip} for clip in clips] if as_examples else {"input_values": clips}
    batch = extractor.pad(features, return_tensors=return_tensors, **options)
    assert list(batch) == ["input_values", "attention_mask"]
    assert isinstance(batch["input_values"], torch.Tensor if return_tensors == "pt" else np.ndarray)
    assert batch["input_values"].shape == (2, num_frames, 128)
    values, mask = np.asarray(batch["input_values"]), np.asarray(batch["attention_mask"])
    assert (values.dtype, mask.dtype) == (np.float32, np.int32)
    for index, clip in enumerate(clips):
        length = min(len(clip), num_frames)
        assert np.array_equal(values[index, :length], clip[:length])
        assert (values[index, length:] == np.float32(extractor.padding_value)).all()
        assert mask[index].tolist() == [1] * length + [0] * (num_frames - length)


def test_pad_without_padding_keeps_lengths(extractor):
    batch = extractor.pad({"input_values": features_of(17, 30)}, padding=False)
    assert [values.shape for values in batch["input_values"]] == [(17, 128), (30, 128)]
    batch = extractor.pad({"input_values": features_of(17, 30)}, padding=False, truncation=True, max_length=20)
    assert [len(mask) for mask in batch["attention_mask"]] == [17, 20]
    with pytest.raises(ValueError, match="padding=True"):
        extractor.pad({"input_values": features_of(17, 30)}, padding=False, return_tensors="pt")


def test_pad_names_labels_that_differ_in_length(extractor):
    features = {"input_values": features_of(17, 30), "labels": [np.zeros(1), np.zeros(2)], "file": ["a", "bc"]}
    with pytest.raises(ValueError, match=r"`labels` have shape \(1,\) for one clip and \(2,\) for another"):
        extractor.pad(features, return_tensors="pt")


@pytest.mark.parametrize("order", ["<", ">"])
def test_numbers_of_extended_precision_are_numbers(order, extractor):
    clip = noise(4000).astype(np.longdouble).astype(np.dtype(np.longdouble).newbyteorder(order))
    expected = extractor(noise(4000), sampling_rate=16000)["input_values"]
    assert np.array_equal(extractor(clip, sampling_rate=16000)["input_values"], expected)
    batch = extractor.pad({"input_values": [expected[0].astype(np.longdouble)]}, return_tensors="pt")
    assert np.array_equal(batch["input_values"][0], expected[0])
    with pytest.raises(ValueError, match="full scale is unknown"):
        extractor(clip.astype(np.clongdouble), sampling_rate=16000)


def test_pad_returns_the_kind_of_its_input(extractor):
    clips = features_of(17, 30)
    expected = extractor.pad({"input_values": clips})["input_values"]
    tensors = extractor.pad({"input_values": [torch.from_numpy(clip) for clip in clips]})["input_values"]
    assert isinstance(tensors, torch.Tensor)
    assert np.array_equal(tensors.numpy(), expected)
    for convert in (np.float64, np.ndarray.tolist):
        values = extractor.pad({"input_values": [convert(clip) for clip in clips]})["input_values"]
        assert (type(values), values.dtype) == (np.ndarray, np.float32)
        assert np.array_equal(values, expected)


def test_pad_takes_whole_arrays(extractor):
    clips = np.stack(features_of(17, 17))
    batch = extractor.pad({"input_values": clips}, pad_to_multiple_of=16)
    assert np.array_equal(batch["input_values"][:, :17], clips)
    assert batch["attention_mask"].sum(axis=1).tolist() == [17, 17]


def test_pad_continues_a_given_mask(extractor):
    masks = [np.array([1] * 10 + [0] * 7), np.ones(30, dtype=np.int64)]
    batch = extractor.pad({"input_values": features_of(17, 30), "attention_mask": masks}, return_tensors="pt")
    assert batch["attention_mask"].dtype == torch.int64
    assert batch["attention_mask"].sum(dim=1).tolist() == [10, 30]


@pytest.mark.parametrize("with_mask", [True, False])
def test_pad_returns_no_mask_if_none_is_wanted(with_mask, extractor):
    features = {"input_values": features_of(17, 30)}
    if with_mask:
        features["attention_mask"] = [np.ones(17), np.ones(30)]
    assert list(extractor.pad(features, return_attention_mask=False)) == ["input_values"]
    assert list(BeatsFeatureExtractor(return_attention_mask=False).pad(features)) == ["input_values"]


def test_pad_passes_labels_on(extractor):
    examples = [{"input_values": clip, "labels": index} for index, clip in enumerate(features_of(17, 30))]
    assert extractor.pad(examples, return_tensors="pt")["labels"].tolist() == [0, 1]
    examples = [{**example, "labels": [0.0, 1.0]} for example in examples]
    labels = extractor.pad(examples, return_tensors="pt")["labels"]
    assert (labels.dtype, labels.shape) == (torch.float32, (2, 2))


@pytest.mark.parametrize(
    ("examples", "message"),
    [
        ([{"labels": 1}, {}], "Clip 0 has `labels` and clip 1 has not"),
        ([{}, {}, {"labels": 1}], "Clip 2 has `labels` and clip 0 has not"),
        ([{"attention_mask": np.ones(3)}, {"labels": 1}], "Clip 0 has `attention_mask` and clip 1 has not"),
    ],
)
def test_pad_refuses_clips_that_differ_in_their_keys(examples, message, extractor):
    with pytest.raises(ValueError, match=message):
        extractor.pad([{"input_values": np.zeros((3, 128)), **example} for example in examples])


@pytest.mark.parametrize("truth", [True, np.True_, torch.tensor(True), np.array(True)])
@pytest.mark.parametrize("return_tensors", ["pt", "np"])
def test_pad_makes_tensors_of_truth_values(truth, return_tensors, extractor):
    examples = [{"input_values": np.zeros((3, 128)), "labels": label} for label in (truth, truth ^ True)]
    labels = extractor.pad(examples, return_tensors=return_tensors)["labels"]
    assert labels.dtype == (torch.bool if return_tensors == "pt" else np.bool_)
    assert labels.tolist() == [True, False]


def test_pad_pads_features_of_one_mel_bin():
    extractor = BeatsFeatureExtractor(feature_size=1)
    assert extractor.pad({"input_values": [np.zeros((3, 1)), np.zeros((5, 1))]})["input_values"].shape == (2, 5, 1)


def test_padding_does_not_rely_on_the_base_class(extractor, monkeypatch):
    # In transformers to come, the base class pads raw audio.
    for name in ("pad", "_pad", "_truncate", "_get_padding_strategies"):
        monkeypatch.delattr(SequenceFeatureExtractor, name, raising=False)
    features = extractor([noise(16000), noise(30000)], sampling_rate=16000, padding=False)
    padded = extractor.pad(features, return_tensors="pt", max_length=200, padding="max_length", truncation=True)
    assert padded["input_values"].shape == (2, 200, 128)
    assert padded["attention_mask"].sum(dim=1).tolist() == [98, 186]


@pytest.mark.parametrize("features", [{"input_values": []}, {"input_values": [], "attention_mask": []}])
def test_pad_of_nothing_is_nothing(features, extractor):
    assert dict(extractor.pad(features)) == {"input_values": [], "attention_mask": []}


@pytest.mark.parametrize(
    ("features", "options", "message"),
    [
        ({"input_values": [noise(16000)]}, {}, "Waveforms go through `__call__`"),
        ({"input_values": np.zeros((17, 128))}, {}, "clip 0 must have shape"),
        ({"input_values": [np.zeros((17, 64))]}, {}, r"must have shape \(num_frames, 128\), got \(17, 64\)"),
        ({"labels": [1]}, {}, "needs the `input_values`"),
        ([], {}, "needs the `input_values`"),
        ({"input_values": features_of(17), "labels": [1, 2]}, {}, "Not all of"),
        ({"input_values": features_of(17)}, {"padding": "max_length"}, "needs a `max_length`"),
        ({"input_values": features_of(17)}, {"truncation": True}, "needs a `max_length`, in frames"),
        ({"input_values": features_of(17)}, {"padding": "max_length", "max_length": 2.0}, "counts frames"),
        ({"input_values": features_of(17)}, {"pad_to_multiple_of": 0}, "counts frames"),
        ({"input_values": features_of(17)}, {"padding": "widest"}, "widest"),
    ],
)
def test_pad_refuses_bad_input_with_a_reason(features, options, message, extractor):
    with pytest.raises(ValueError, match=message):
        extractor.pad(features, **options)


def test_data_collator_pads_as_the_extractor_does(extractor):
    clips = [noise(16000), noise(30000), noise(500)]
    examples = [dict(extractor(clip, sampling_rate=16000).items()) for clip in clips]
    examples = [{key: value[0] for key, value in example.items()} for example in examples]
    collated = DataCollatorWithPadding(extractor)(examples)
    expected = extractor(clips, sampling_rate=16000, return_tensors="pt")
    assert torch.equal(collated["attention_mask"], expected.attention_mask)
    torch.testing.assert_close(collated["input_values"], expected.input_values, rtol=0, atol=1e-5)


lengths = st.integers(min_value=1, max_value=20 * 16000)


@settings(max_examples=25, deadline=None)
@given(
    batch=st.lists(lengths, min_size=1, max_size=4),
    dtype=st.sampled_from([np.float32, np.float64, np.int16]),
    seed=st.integers(0, 2**16),
)
def test_any_batch_gives_each_clip_its_own_frames(batch, dtype, seed):
    extractor = BeatsFeatureExtractor()
    clips = [noise(length, seed + index) for index, length in enumerate(batch)]
    clips = [as_int16(clip) if dtype == np.int16 else clip.astype(dtype) for clip in clips]
    features = extractor(clips, sampling_rate=16000, return_tensors="pt")
    assert features.input_values.isfinite().all()
    assert features.input_values.shape[1] == max(max(num_fbank_frames(length), 16) for length in batch)
    for index, clip in enumerate(clips):
        num_frames = max(num_fbank_frames(len(clip)), 16)
        mask = features.attention_mask[index]
        assert mask.sum() == num_frames
        assert mask[:num_frames].all()
        assert (features.input_values[index, num_frames:] == np.float32(extractor.padding_value)).all()
        alone = extractor(clip, sampling_rate=16000, return_tensors="pt")
        torch.testing.assert_close(features.input_values[index, :num_frames], alone.input_values[0], rtol=0, atol=1e-5)


@settings(max_examples=60, deadline=None)
@given(scale=st.floats(0, 1), offset=st.floats(-1, 1), length=st.integers(1, 8000), seed=st.integers(0, 2**16))
def test_features_are_finite_for_any_level(scale, offset, length, seed):
    clip = noise(length, seed) * 10 * scale + offset
    features = BeatsFeatureExtractor()(np.clip(clip, -1, 1), sampling_rate=16000, return_tensors="pt")
    assert features.input_values.isfinite().all()


@pytest.mark.parametrize(
    "name", ["feature_size", "sampling_rate", "patch_size", "fbank_mean", "fbank_std", "padding_value"]
)
@pytest.mark.parametrize("value", ["16", -1e39, float("nan"), True])
def test_impossible_settings_are_named(name, value):
    with pytest.raises(ValueError, match=name):
        BeatsFeatureExtractor(**{name: value})


def test_a_reversed_clip_of_one_sample_is_a_clip(extractor):
    values = extractor(np.ones(1, dtype=np.float32)[::-1], sampling_rate=16000)["input_values"]
    assert np.isfinite(values[0]).all()


def test_loud_clips_warn_once_and_not_for_each_level(extractor, caplog):
    for level in (100, 200, 300):
        extractor(np.full(4000, level, dtype=np.float32), sampling_rate=16000)
    assert sum("full scale" in record.message for record in caplog.records) <= 1
