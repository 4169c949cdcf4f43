# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Encoders in onnxruntime: results, copies in the cache, and models that no other backend than PyTorch takes."""

import copy
import json
import os
import shutil
import signal
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from encoders import CONFIG, EXTRACTOR, TINY, with_one_encoder
from torch.nn.functional import cosine_similarity
from typer.testing import CliRunner

from transformers_beats import (
    BeatsAudioTaggingPipeline,
    BeatsConfig,
    BeatsFeatureExtractor,
    BeatsForAudioClassification,
    BeatsForAudioFrameClassification,
    BeatsRandomProjectionTokenizer,
    BeatsRandomProjectionTokenizerConfig,
    BeatsTokenizerConfig,
    BeatsTokenizerModel,
    WindowedInference,
)
from transformers_beats.backends import encoder as backend_encoder
from transformers_beats.backends.encoder import FILE, OnnxEncoder, in_torch, open_encoder, with_encoder
from transformers_beats.backends.graphs import ExportError
from transformers_beats.cli.app import app
from transformers_beats.inference import backend
from transformers_beats.inference.backend import in_backend
from transformers_beats.inference.loading import load_model
from transformers_beats.utils.cache import SECONDS_KEPT, cache_directory
from transformers_beats.utils.errors import UsageError
from transformers_beats.utils.fingerprint import model_fingerprint
from transformers_beats.web import analysis as web_analysis


RATE = 16_000
# In samples: several windows, a whole one, some that share a batch with padding, one of a single column.
LENGTHS = (250_000, 160_000, 31_000, 30_000, 29_999, 1000)

needs_onnx = pytest.mark.usefixtures("packages")


@pytest.fixture
def packages():
    for name in ("onnx", "onnxruntime", "onnxscript"):
        pytest.importorskip(name)


@pytest.fixture(scope="module")
def clips() -> list[np.ndarray]:
    generator = np.random.default_rng(0)
    return [generator.normal(0, 0.1, length).astype(np.float32) for length in LENGTHS]


@pytest.fixture(scope="module")
def classifier(saved_model) -> BeatsForAudioClassification:
    return load_model(saved_model)


@pytest.fixture(scope="module")
def frame_classifier(classifier) -> BeatsForAudioFrameClassification:
    torch.manual_seed(1)
    return with_one_encoder(BeatsForAudioFrameClassification(copy.deepcopy(classifier.config)))


def pair(model, name="onnx", **settings):
    """The same inference by PyTorch and by a backend."""
    return [WindowedInference(model, EXTRACTOR, backend=name, **settings) for name in ("torch", name)]


def is_in_onnx(inference) -> bool:
    return isinstance(inference.plain_model.base_model.encoder, OnnxEncoder)


@needs_onnx
@pytest.mark.parametrize("settings", [{}, {"window_seconds": 2.0, "hop_seconds": 0.5, "batch_size": 3}])
def test_scores_of_clips_are_those_of_torch(classifier, clips, settings):
    torch_, onnx = pair(classifier, **settings)
    assert is_in_onnx(onnx)
    for expected, found in zip(torch_.classify_many(clips, RATE), onnx.classify_many(clips, RATE), strict=True):
        np.testing.assert_allclose(found.scores, expected.scores, atol=1e-4, rtol=0)
        times = [[(window.start, window.end) for window in scores.windows] for scores in (expected, found)]
        assert times[0] == times[1]


@needs_onnx
def test_scores_of_frames_are_those_of_torch(frame_classifier, clips):
    torch_, onnx = pair(frame_classifier)
    for clip in clips:
        expected, found = torch_.frames(clip, RATE), onnx.frames(clip, RATE)
        np.testing.assert_allclose(found.values, expected.values, atol=1e-4, rtol=0)
        np.testing.assert_array_equal(found.silent, expected.silent)


@needs_onnx
@pytest.mark.parametrize("grain", ["clip", "band", "column", "patch"])
def test_embeddings_of_the_last_layer_are_those_of_torch(classifier, clips, grain):
    torch_, onnx = pair(classifier)
    for layers in (None, -1, 1):
        expected = torch_.embed_many(clips, RATE, layers=layers, grain=grain)
        found = onnx.embed_many(clips, RATE, layers=layers, grain=grain)
        for first, second in zip(expected, found, strict=True):
            np.testing.assert_allclose(second, first, atol=1e-4, rtol=0)


@needs_onnx
@pytest.mark.slow
@pytest.mark.parametrize(
    "change",
    [
        {"deep_norm": False, "layer_norm_first": True, "hidden_act": "glu"},
        {"relative_position_embedding": False, "gru_rel_pos": False, "hidden_act": "relu"},
        {"frame_pooling": "sequence"},
        {"frame_pooling": "sequence", "frame_recurrent_layers": 1, "frame_recurrent_size": 8},
        {"legacy_padding_mask": True},
        {"num_mel_bins": 64, "patch_size": 16},
    ],
)
def test_other_encoders_and_heads_are_computed_as_well(clips, change):
    torch.manual_seed(0)
    model_class = BeatsForAudioFrameClassification if "frame_pooling" in change else BeatsForAudioClassification
    model = model_class(BeatsConfig(**CONFIG | change)).eval()
    extractor = BeatsFeatureExtractor(
        feature_size=model.config.num_mel_bins, legacy_padding_mask=model.config.legacy_padding_mask
    )
    torch_, onnx = (WindowedInference(model, extractor, backend=name) for name in ("torch", "onnx"))
    # The last one is shorter than a column, for which the legacy mask is undefined.
    for clip in clips[:-1]:
        np.testing.assert_allclose(onnx.frames(clip, RATE).values, torch_.frames(clip, RATE).values, atol=1e-4, rtol=0)


@needs_onnx
@pytest.mark.slow
def test_tokenizers_find_the_same_codes(clips):
    torch.manual_seed(0)
    model = BeatsTokenizerModel(BeatsTokenizerConfig(**TINY, codebook_size=16, codebook_dim=8))
    model.quantizer.codebook.copy_(torch.nn.functional.normalize(torch.randn(16, 8), dim=-1))
    model.quantizer.is_initialized.fill_(1.0)
    torch_, onnx = pair(with_one_encoder(model))
    for clip in clips:
        # Where two codes are equally near, rounding decides.
        assert (onnx.codes(clip, RATE).values == torch_.codes(clip, RATE).values).mean() > 0.99


@needs_onnx
def test_the_export_is_made_once_and_only_for_its_model(classifier, clips, directory, exports):
    first = WindowedInference(classifier, EXTRACTOR, backend="onnx")
    exports.clear()
    again = WindowedInference(copy_of(classifier), EXTRACTOR, backend="onnx")
    assert exports == []
    np.testing.assert_array_equal(first.embed(clips[2], RATE), again.embed(clips[2], RATE))
    assert list(directory.rglob("*.partial")) == []


def copy_of(model):
    duplicate = type(model)(copy.deepcopy(model.config)).eval()
    duplicate.load_state_dict(model.state_dict())
    return duplicate


@needs_onnx
def test_other_weights_have_an_export_of_their_own(classifier, exports):
    open_encoder(classifier.beats, "float32")
    exports.clear()
    changed = copy_of(classifier)
    with torch.no_grad():
        changed.beats.encoder.layers[0].mlp.fc2.bias += 1.0
    torch_, onnx = pair(changed)
    assert exports == ["float32"]
    clip = np.random.default_rng(1).normal(0, 0.1, RATE).astype(np.float32)
    np.testing.assert_allclose(onnx.embed(clip, RATE), torch_.embed(clip, RATE), atol=1e-4, rtol=0)


def truncated(path, other):
    path.write_bytes(path.read_bytes()[:1000])


def empty(path, other):
    path.write_bytes(b"")


def of_another_model(path, other):
    path.write_bytes(other.read_bytes())


def no_graph(path, other):
    path.write_text("<html>")


@needs_onnx
@pytest.mark.parametrize("damage", [truncated, empty, of_another_model, no_graph])
def test_a_file_that_is_not_the_encoder_is_made_anew(classifier, directory, exports, damage, monkeypatch):
    open_encoder(classifier.beats, "float32")
    (path,) = [path for path in directory.rglob(FILE) if is_of(path, classifier)]
    good = path.read_bytes()
    other = path.with_name("other.onnx")
    write_other(good, other)
    damage(path, other)
    exports.clear()

    def write_again(model, precision, place):
        exports.append(precision)
        place.write_bytes(good)

    # What an export writes is tested elsewhere.
    monkeypatch.setattr(backend_encoder, "export_encoder", write_again)
    opened = open_encoder(classifier.beats, "float32")
    assert exports == ["float32"]
    assert backend_encoder.is_equal(opened, classifier.beats)


def is_of(path, model) -> bool:
    name = backend_encoder.NAME.format(f"{backend_encoder.model_fingerprint(model.beats)}-float32")
    return path.parent.name.startswith(name)


def write_other(good, path):
    """Writes an encoder with other weights in one layer: the right shape, the wrong numbers."""
    import onnx
    from onnx import numpy_helper

    graph = onnx.load_from_string(good)
    weight = next(tensor for tensor in graph.graph.initializer if list(tensor.dims) == [48, 32])
    weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight) * np.float32(1.5), weight.name))
    path.write_bytes(graph.SerializeToString())


@needs_onnx
def test_an_export_that_is_not_the_encoder_is_an_error_and_not_kept(classifier, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(backend_encoder, "cache_directory", lambda: tmp_path)
    monkeypatch.setattr(backend_encoder, "export_encoder", lambda model, precision, path: path.write_bytes(b"?"))
    with pytest.raises(ExportError, match=r"float32, cannot be opened by onnxruntime: .*: use the backend torch"):
        in_backend(classifier, "onnx")
    assert list(tmp_path.rglob(FILE)) == []
    # Left open, the choice falls on PyTorch.
    monkeypatch.setattr(backend, "instruction_sets", lambda: ("avx2",))
    assert in_backend(classifier, "auto") is classifier
    assert "Backend torch: The encoder in ONNX, float32, cannot be opened" in capsys.readouterr().err


@needs_onnx
def test_a_file_that_this_onnxruntime_does_not_open_stays_for_another(classifier, directory, monkeypatch, capsys):
    good = open_encoder(classifier.beats, "float32").path
    content = good.read_bytes()

    def refuse(path):
        raise Exception("Unsupported model IR version: 12")

    monkeypatch.setattr(backend_encoder, "open_session", refuse)
    monkeypatch.setattr(backend_encoder, "export_encoder", lambda model, precision, path: path.write_bytes(b"new"))
    with pytest.raises(ExportError, match="cannot be opened by onnxruntime: Unsupported model IR version: 12: use"):
        open_encoder(classifier.beats, "float32")
    assert good.read_bytes() == content
    assert list(directory.rglob("*.partial")) == []
    assert "once for this model (cannot be opened by onnxruntime: Unsupported" in capsys.readouterr().err


@needs_onnx
def test_an_export_that_computes_something_else_is_not_kept(classifier, tmp_path, monkeypatch):
    good = open_encoder(classifier.beats, "float32").path.read_bytes()
    monkeypatch.setattr(backend_encoder, "cache_directory", lambda: tmp_path)
    monkeypatch.setattr(backend_encoder, "export_encoder", lambda model, precision, path: write_other(good, path))
    with pytest.raises(ExportError, match="does not compute what PyTorch computes: use the backend torch"):
        open_encoder(classifier.beats, "float32")
    assert list(tmp_path.rglob("*.onnx")) == list(tmp_path.rglob("*.partial")) == []


@needs_onnx
def test_an_encoder_that_has_diverged_is_named(classifier, tmp_path, exports, monkeypatch):
    good = open_encoder(classifier.beats, "float32").path.read_bytes()
    monkeypatch.setattr(backend_encoder, "cache_directory", lambda: tmp_path)
    monkeypatch.setattr(backend_encoder, "export_encoder", lambda model, precision, path: path.write_bytes(good))
    changed = copy_of(classifier)
    with torch.no_grad():
        changed.beats.encoder.layers[0].mlp.fc2.bias[0] = float("nan")
    with pytest.raises(ExportError, match="The model's output is not finite"):
        in_backend(changed, "onnx")
    assert list(tmp_path.rglob("*.onnx")) == []


@needs_onnx
def test_a_file_is_found_under_autocast(classifier, exports):
    open_encoder(classifier.beats, "float32")
    exports.clear()
    with torch.autocast("cpu", torch.bfloat16):
        open_encoder(classifier.beats, "float32")
    assert exports == []


@needs_onnx
def test_auto_takes_torch_if_nothing_can_be_exported_or_kept(classifier, tmp_path, monkeypatch, capsys):
    def refuse():
        raise PermissionError(13, "Permission denied", "/cache")

    def fail(*args):
        raise RuntimeError("Failed to convert\nfurther lines")

    monkeypatch.setattr(backend, "instruction_sets", lambda: ("avx2",))
    monkeypatch.setattr(backend_encoder, "cache_directory", refuse)
    assert in_backend(classifier, "auto") is classifier
    assert "Backend torch: /cache: cannot be written, set HF_DATASETS_CACHE" in capsys.readouterr().err
    monkeypatch.setattr(backend_encoder, "cache_directory", lambda: tmp_path)
    monkeypatch.setattr(backend_encoder, "export_encoder", fail)
    changed = copy_of(classifier)
    for _ in range(2):
        # Not for each recording again, which takes a minute in base size.
        assert in_backend(changed, "auto") is changed
    message = "Backend torch: The encoder in ONNX, float32, cannot be made: Failed to convert:"
    assert capsys.readouterr().err.count(message) == 1
    with pytest.raises(ExportError, match="cannot be made: Failed to convert"):
        in_backend(changed, "onnx")


@needs_onnx
def test_what_another_process_has_exported_meanwhile_is_used(classifier, tmp_path, exports, monkeypatch):
    good = open_encoder(classifier.beats, "float32").path.read_bytes()
    exports.clear()

    @contextmanager
    def wait(directory, wait):
        """Waits for a process that ends its export."""
        directory.mkdir()
        (directory / FILE).write_bytes(good)
        yield

    monkeypatch.setattr(backend_encoder, "cache_directory", lambda: tmp_path)
    monkeypatch.setattr(backend_encoder, "hold", wait)
    open_encoder(classifier.beats, "float32")
    assert exports == []


@needs_onnx
def test_an_export_that_fails_half_way_leaves_nothing(classifier, tmp_path, monkeypatch):
    import onnx

    def fail(graph, path):
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(backend_encoder, "cache_directory", lambda: tmp_path)
    # An export takes seconds.
    monkeypatch.setattr(backend_encoder, "trace", lambda *args: None)
    monkeypatch.setattr(backend_encoder, "to_graph", lambda *args: onnx.ModelProto())
    monkeypatch.setattr(onnx, "save", fail)
    with pytest.raises(UsageError, match="cannot be written: No space left on device"):
        open_encoder(classifier.beats, "float32")
    assert [path.name for path in tmp_path.rglob("*") if path.is_file() and path.name != ".lock"] == []


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root writes everywhere")
def test_a_cache_that_cannot_be_written_is_an_error_of_one_line(classifier, tmp_path, monkeypatch):
    tmp_path.chmod(0o500)
    monkeypatch.setattr(backend_encoder, "cache_directory", lambda: tmp_path)
    with pytest.raises(UsageError, match="cannot be"):
        open_encoder(classifier.beats, "float32")


@needs_onnx
def test_exports_that_nothing_has_used_are_removed_from_the_cache_in_use(classifier, tmp_path, monkeypatch, exports):
    path = open_encoder(classifier.beats, "float32").path
    assert path.parent.parent == cache_directory()
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path)
    shutil.copytree(path.parent, cache_directory() / path.parent.name)
    exports.clear()
    others = [cache_directory() / f"encoder-{index}-int8-1" for index in range(4)]
    for age, other in enumerate(others):
        other.mkdir()
        used = time.time() - SECONDS_KEPT - 1000 * (1 + age)
        os.utime(other, (used, used))
    open_encoder(classifier.beats, "float32")
    # The three that were used last, this one among them.
    assert exports == []
    assert sorted(tmp_path.glob("*/*")) == sorted([*others[:2], cache_directory() / path.parent.name])
    assert path.is_file()


@needs_onnx
def test_a_clip_has_the_same_result_alone_and_in_a_batch_in_int8(classifier, clips):
    inference = WindowedInference(classifier, EXTRACTOR, backend="onnx-int8")
    together = list(inference.classify_many(clips, RATE))
    for clip, found in zip(clips, together, strict=True):
        np.testing.assert_array_equal(inference.classify(clip, RATE).scores, found.scores)


@needs_onnx
def test_int8_is_near_to_torch_and_smaller(classifier, clips, directory):
    torch_, int8 = pair(classifier, "onnx-int8")
    open_encoder(classifier.beats, "float32")
    expected, found = (
        torch.from_numpy(np.stack(list(inference.embed_many(clips[:5], RATE)))) for inference in (torch_, int8)
    )
    center = expected.mean(dim=0)
    assert cosine_similarity(found - center, expected - center).min() > 0.98
    sizes = {path.parent.name.split("-")[2]: path.stat().st_size for path in directory.rglob(FILE)}
    assert sizes["int8"] < sizes["float32"]


@needs_onnx
def test_int8_classifies_as_a_trained_model_does(classifier, clips):
    """A head that was fitted to two kinds of sounds, noise and tones, of many pitches and levels."""
    generator, time = np.random.default_rng(3), np.arange(RATE) / RATE
    levels = 10 ** generator.uniform(-2, -0.5, 40)
    tones = [np.sin(2 * np.pi * generator.uniform(200, 4000) * time) for _ in levels[::2]]
    noises = [generator.standard_normal(RATE) for _ in levels[::2]]
    sounds = [level * sound for level, sound in zip(levels, tones + noises)]
    labels = np.repeat([0, 1], 20)
    torch_, int8 = pair(classifier, "onnx-int8")
    vectors = [np.stack(list(inference.embed_many(sounds, RATE))) for inference in (torch_, int8)]

    from sklearn.linear_model import LogisticRegression

    head = LogisticRegression(max_iter=1000).fit(vectors[0][::2], labels[::2])
    accuracies = [head.score(found[1::2], labels[1::2]) for found in vectors]
    assert accuracies[0] >= 0.9
    assert accuracies[1] >= accuracies[0] - 0.05


def encoder_of(session, monkeypatch) -> OnnxEncoder:
    """An encoder with a session that is none of onnxruntime."""
    monkeypatch.setattr(backend_encoder, "open_session", lambda path: session)
    return OnnxEncoder(Path("encoder.onnx"), BeatsConfig(**TINY), "float32")


def test_a_mask_within_a_clip_is_refused(monkeypatch):
    module = encoder_of(None, monkeypatch)
    mask = torch.ones(1, 16, dtype=torch.bool)
    mask[0, 3] = False
    with pytest.raises(ValueError, match="whole columns at the end"):
        module(torch.zeros(1, 32, 128), mask)


def test_lack_of_memory_is_named(monkeypatch):
    class Session:
        def run(self, *args):
            raise Exception("bad allocation")

    module = encoder_of(Session(), monkeypatch)
    with pytest.raises(MemoryError, match="out of memory with 2 columns"):
        module(torch.zeros(1, 32, 128))


# Models and layers that onnxruntime does not compute.


def wrapped(model):
    return torch.nn.DataParallel(model)


def returning_layers(model):
    return BeatsForAudioClassification(BeatsConfig(**CONFIG, output_hidden_states=True)).eval()


def in_half(model):
    return copy_of(model).to(torch.bfloat16)


def averaging(model):
    return BeatsForAudioClassification(BeatsConfig(**CONFIG, use_weighted_layer_sum=True)).eval()


def without_encoder(model):
    return BeatsRandomProjectionTokenizer(BeatsRandomProjectionTokenizerConfig()).eval()


def on_another_device(model):
    return copy_of(model).to("meta")


REFUSED = {
    wrapped: "takes no wrapper and no adapters",
    in_half: "computes in float32, and the model is in bfloat16",
    averaging: "averages all",
    returning_layers: "or returns them",
    without_encoder: "a BeatsRandomProjectionTokenizer has none",
    on_another_device: "computes on the CPU, and the model is on meta",
}


@pytest.mark.parametrize("change", REFUSED)
@pytest.mark.parametrize("name", ["onnx", "onnx-int8"])
def test_what_a_backend_cannot_do_is_refused_if_it_was_named(classifier, change, name):
    with pytest.raises(UsageError, match=REFUSED[change]) as caught:
        in_backend(change(classifier), name)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("change", REFUSED)
def test_auto_leaves_to_torch_what_a_backend_cannot_do(classifier, change, exports, capsys):
    model = change(classifier)
    assert in_backend(model, "auto") is model
    assert exports == []
    assert "Backend torch: " in capsys.readouterr().err


def test_adapters_in_the_layers_are_found(classifier):
    peft = pytest.importorskip("peft")
    model = copy_of(classifier)
    peft.inject_adapter_in_model(peft.LoraConfig(target_modules=["q_proj"]), model)
    with pytest.raises(UsageError, match="no adapters"):
        in_backend(model, "onnx")


@needs_onnx
def test_other_layers_are_refused_if_the_backend_was_named(classifier, clips):
    onnx = WindowedInference(classifier, EXTRACTOR, backend="onnx")
    for layers in (0, "all", [0, 1]):
        with pytest.raises(UsageError, match=r"gives the last layer alone: .* use the backend torch"):
            onnx.embed(clips[2], RATE, layers=layers)
        with pytest.raises(UsageError, match="gives the last layer alone"):
            onnx.check_layers(layers)


@needs_onnx
def test_auto_computes_other_layers_with_torch(classifier, clips, monkeypatch):
    monkeypatch.setattr(backend, "instruction_sets", lambda: ("avx2",))
    torch_, auto = pair(classifier, "auto")
    assert is_in_onnx(auto)
    np.testing.assert_array_equal(auto.embed(clips[2], RATE, layers="all"), torch_.embed(clips[2], RATE, layers="all"))


@needs_onnx
def test_auto_says_once_what_it_chose(classifier, monkeypatch, capsys):
    monkeypatch.setattr(backend, "instruction_sets", lambda: ("avx2",))
    for _ in range(3):
        in_backend(classifier, "auto")
    assert capsys.readouterr().err.count("Backend onnx: float32 on a CPU with AVX2.") == 1


def test_without_onnxruntime_a_named_backend_is_an_error_and_auto_falls_back(classifier, monkeypatch, capsys):
    monkeypatch.setattr(backend, "_is_installed", lambda package: package != "onnxruntime")
    with pytest.raises(UsageError, match=r"needs onnxruntime: pip install 'transformers-beats\[onnx\]'"):
        in_backend(classifier, "onnx")
    assert in_backend(classifier, "auto") is classifier
    assert "Backend torch: the extra onnx is not installed." in capsys.readouterr().err


@needs_onnx
def test_long_windows_are_torchs_under_auto_and_a_named_backend_warns_once(classifier, monkeypatch, capsys):
    monkeypatch.setattr(backend, "instruction_sets", lambda: ("avx2",))
    auto = WindowedInference(classifier, EXTRACTOR, window_seconds=30, backend="auto")
    assert auto.model is classifier
    assert "Backend torch: windows are longer than 10 s: not measured." in capsys.readouterr().err
    for _ in range(2):
        assert is_in_onnx(WindowedInference(classifier, EXTRACTOR, window_seconds=30, backend="onnx"))
    assert capsys.readouterr().err.count("Backend onnx: windows of 30 s take far more memory than in PyTorch") == 1
    WindowedInference(classifier, EXTRACTOR, backend="onnx")
    assert capsys.readouterr().err == ""


@needs_onnx
def test_the_pipeline_chooses_for_the_windows_of_each_call(classifier, clips, monkeypatch, capsys):
    monkeypatch.setattr(backend, "instruction_sets", lambda: ("avx2",))
    pipeline = BeatsAudioTaggingPipeline(model=classifier, feature_extractor=EXTRACTOR, backend="auto")
    calls = []
    monkeypatch.setattr(OnnxEncoder, "_check_keywords", lambda self, keywords: calls.append(1))
    pipeline(clips[2])
    assert calls
    calls.clear()
    pipeline(clips[2], window_seconds=20.0)
    assert calls == []
    assert "Backend torch: windows are longer than 10 s" in capsys.readouterr().err


def test_an_unknown_backend_is_refused_before_anything_is_done(classifier):
    with pytest.raises(UsageError, match="`backend` is 'onxx'"):
        WindowedInference(classifier, EXTRACTOR, backend="onxx")


@needs_onnx
def test_the_model_is_as_it_was(classifier, clips):
    torch_ = WindowedInference(classifier, EXTRACTOR)
    before = torch_.embed(clips[2], RATE)
    replaced = in_backend(classifier, "onnx")
    assert isinstance(replaced.beats.encoder, OnnxEncoder)
    assert (replaced.dtype, replaced.device) == (classifier.dtype, classifier.device)
    own, others = (dict(model.get_input_embeddings().named_parameters()) for model in (replaced, classifier))
    assert own.keys() == others.keys()
    assert all(own[name] is others[name] for name in own)
    np.testing.assert_array_equal(torch_.embed(clips[2], RATE), before)
    # Once is enough.
    assert in_backend(replaced, "onnx") is replaced
    assert with_encoder(classifier.beats, replaced.beats.encoder).config is classifier.config


@needs_onnx
@pytest.mark.parametrize("part", ["classifier", "encoder"])
def test_a_replaced_model_saves_what_the_model_saves(classifier, clips, tmp_path, part):
    model = classifier if part == "classifier" else classifier.beats
    replaced = in_backend(model, "onnx")
    assert list(replaced.state_dict()) == list(model.state_dict())
    assert model_fingerprint(replaced) == model_fingerprint(model)
    replaced.save_pretrained(tmp_path / "saved")
    loaded, report = type(model).from_pretrained(tmp_path / "saved", output_loading_info=True)
    assert not any(report.values())
    for name, weight in model.state_dict().items():
        torch.testing.assert_close(loaded.state_dict()[name], weight, atol=0, rtol=0)
    # Under the names by which they are saved.
    assert replaced.num_parameters() == model.num_parameters()
    assert [*dict(replaced.named_parameters())] == [*dict(model.named_parameters())]
    replaced.load_state_dict(model.state_dict())


@needs_onnx
def test_weights_of_the_head_reach_it_and_others_are_refused(classifier, clips):
    model = copy_of(classifier)
    replaced, weights = in_backend(model, "onnx"), model.state_dict()
    head = {name: torch.ones_like(weight) for name, weight in weights.items() if name.startswith("classifier.")}
    replaced.load_state_dict(weights | head)
    inputs = EXTRACTOR(clips[2], sampling_rate=RATE, return_tensors="pt")
    torch.testing.assert_close(replaced(**inputs).logits, model(**inputs).logits, atol=1e-4, rtol=0)
    for name in ("beats.embeddings.layer_norm.bias", "beats.encoder.layers.0.mlp.fc2.weight"):
        for changed in (weights[name] + 1, weights[name][:1]):
            with pytest.raises(
                UsageError, match=f"^`{name}`: onnxruntime computes with the weights that it was opened"
            ):
                replaced.load_state_dict(weights | {name: changed})
        assert torch.equal(model.state_dict()[name], weights[name])
        with pytest.raises(RuntimeError, match=f'Missing key.*"{name}"'):
            replaced.load_state_dict({key: weight for key, weight in weights.items() if key != name})
        with pytest.raises(RuntimeError, match=f'Unexpected key.*"{name}_"'):
            replaced.load_state_dict(weights | {f"{name}_": weights[name]})


@needs_onnx
@pytest.mark.parametrize("kind", ["forward", "forward_pre"])
def test_hooks_that_nothing_would_call_are_refused(classifier, kind):
    encoder = in_backend(classifier, "onnx").beats
    assert len(encoder.encoder.layers) == len(classifier.beats.encoder.layers)
    layers = encoder.encoder.layers
    for layer in (layers[0], layers[-1].mlp.fc1, encoder.embeddings.patch_embeddings, encoder.get_input_embeddings()):
        with pytest.raises(UsageError, match="hooks on them need the backend torch"):
            getattr(layer, f"register_{kind}_hook")(print)


@needs_onnx
def test_adapters_find_no_layers_in_a_graph(classifier):
    peft = pytest.importorskip("peft")
    with pytest.raises(ValueError, match="Target modul"):
        peft.inject_adapter_in_model(peft.LoraConfig(target_modules=["q_proj"]), in_backend(classifier, "onnx"))


def make_input() -> torch.Tensor:
    """Filter banks of two clips, the same every time."""
    return torch.randn(2, 32, 128, generator=torch.Generator().manual_seed(0))


@needs_onnx
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_inputs_of_other_dtypes_are_taken_as_torch_takes_them(classifier, dtype):
    replaced = in_backend(classifier, "onnx")
    input_values = make_input().to(dtype)
    for ours, model in ((replaced, classifier), (replaced.beats, classifier.beats)):
        found, expected = ours(input_values)[0], model(input_values)[0]
        assert found.dtype == expected.dtype == torch.float32
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)


@needs_onnx
@pytest.mark.parametrize(
    "change",
    [lambda model: model.half(), lambda model: model.to(torch.float64), lambda model: model.to("meta")],
    ids=["half", "double", "meta"],
)
def test_another_dtype_or_device_is_refused_and_changes_nothing(classifier, change):
    model = copy_of(classifier)
    for replaced in (in_backend(model, "onnx"), in_backend(model.beats, "onnx")):
        with pytest.raises(UsageError, match=r"computes in float32 on the CPU: a model for \w+ on \w+ needs the back"):
            change(replaced)
        assert {weight.dtype for weight in model.state_dict().values()} == {torch.float32}
        assert model.device.type == "cpu"
        assert replaced.float().to("cpu") is replaced


@needs_onnx
@pytest.mark.parametrize("source", ["weights", "input", "embeddings"])
def test_gradients_that_onnxruntime_does_not_give_are_refused(classifier, source):
    model = copy_of(classifier)
    model.beats.requires_grad_(source == "weights")
    model.beats.embeddings.requires_grad_(source != "input")
    input_values = make_input().requires_grad_(source == "input")
    for replaced in (in_backend(model, "onnx"), in_backend(model.beats, "onnx")):
        output = replaced(input_values)[0]
        torch.testing.assert_close(output, in_torch(replaced)(input_values)[0], atol=1e-4, rtol=0)
        with pytest.raises(
            UsageError, match="onnxruntime computes no gradients: train with the backend torch, or free"
        ):
            output.sum().backward()
        with torch.no_grad():
            assert not replaced(input_values)[0].requires_grad


@needs_onnx
def test_a_head_on_a_frozen_encoder_is_trained(classifier):
    model = copy_of(classifier)
    model.beats.requires_grad_(False)
    input_values = make_input()
    gradients = []
    for each in (model, in_backend(model, "onnx")):
        model.zero_grad()
        each(input_values).logits.sum().backward()
        gradients.append(model.classifier.weight.grad.clone())
        assert model.beats.encoder.layers[0].mlp.fc2.weight.grad is None
    torch.testing.assert_close(gradients[1], gradients[0], atol=1e-4, rtol=1e-4)


@needs_onnx
@pytest.mark.parametrize("name", ["onnx", "onnx-int8"])
def test_a_copy_computes_the_same(classifier, name):
    replaced = in_backend(classifier, name)
    copied = copy.deepcopy(replaced)
    input_values = make_input()
    torch.testing.assert_close(copied(input_values).logits, replaced(input_values).logits, atol=0, rtol=0)
    assert copied.beats.encoder.session is replaced.beats.encoder.session
    # Its weights are its own, and those of its model in PyTorch.
    with torch.no_grad():
        copied.classifier.bias += 1
    assert not torch.equal(copied.classifier.bias, classifier.classifier.bias)
    assert in_backend(copied, name) is copied
    copied.load_state_dict(classifier.state_dict())


@needs_onnx
def test_another_precision_is_opened_from_the_same_model(classifier, clips):
    float32, int8 = (in_backend(classifier, name) for name in ("onnx", "onnx-int8"))
    assert in_backend(float32, "onnx-int8").beats.encoder.precision == "int8"
    assert in_backend(int8, "onnx").beats.encoder.precision == "float32"
    assert in_backend(int8, "onnx-int8") is int8
    assert in_backend(int8.beats, "onnx").encoder.precision == "float32"
    # As it is.
    assert in_backend(int8, "torch") is int8
    again = WindowedInference(int8, EXTRACTOR, backend="onnx")
    expected = WindowedInference(float32, EXTRACTOR).embed(clips[2], RATE)
    np.testing.assert_array_equal(again.embed(clips[2], RATE), expected)


@needs_onnx
def test_auto_never_keeps_int8(classifier, clips, monkeypatch):
    int8 = in_backend(classifier, "onnx-int8")
    monkeypatch.setattr(backend, "instruction_sets", lambda: ("avx2",))
    auto = WindowedInference(int8, EXTRACTOR, backend="auto")
    assert auto.plain_model.beats.encoder.precision == "float32"
    expected = WindowedInference(classifier, EXTRACTOR).embed(clips[2], RATE, layers="all")
    np.testing.assert_array_equal(auto.embed(clips[2], RATE, layers="all"), expected)
    monkeypatch.setattr(backend, "instruction_sets", tuple)
    assert in_backend(int8, "auto") is classifier


@needs_onnx
def test_outputs_that_onnxruntime_does_not_give_are_refused(classifier):
    replaced = in_backend(classifier, "onnx")
    input_values = torch.randn(1, 32, 128)
    for name, value in {"output_hidden_states": True, "output_attentions": True}.items():
        for model in (replaced, replaced.beats):
            with pytest.raises(UsageError, match=f"without `{name}`, or with the backend torch"):
                model(input_values, **{name: value})
        assert torch.isfinite(replaced(input_values, **{name: False}).logits).all()
    with pytest.raises(UsageError, match="without `kept_positions`"):
        replaced.beats.encoder(input_values, None, kept_positions=torch.zeros(1, 1, dtype=torch.long))
    # The layers of the model, which are not called, have no second hooks from that.
    assert len(classifier(input_values, output_hidden_states=True).hidden_states) == 2


# Pipeline and command line.


@needs_onnx
def test_the_pipeline_has_the_same_labels_and_events(classifier, clips, tmp_path):
    settings = {"model": classifier, "feature_extractor": EXTRACTOR, "return_events": True}
    torch_, onnx = (BeatsAudioTaggingPipeline(**settings, backend=name) for name in ("torch", "onnx"))
    for expected, found in zip(torch_(clips[:3]), onnx(clips[:3]), strict=True):
        assert [label["label"] for label in found["labels"]] == [label["label"] for label in expected["labels"]]
        assert [label["score"] for label in found["labels"]] == pytest.approx(
            [label["score"] for label in expected["labels"]], abs=1e-4
        )
        assert len(found["events"]) == len(expected["events"])
    # What is saved is a model of PyTorch.
    onnx.save_pretrained(tmp_path / "saved")
    assert BeatsForAudioClassification.from_pretrained(tmp_path / "saved").num_parameters() > 1000


@pytest.fixture
def saved(saved_model, tmp_path, clips):
    """Words of a command: a model and a file."""
    soundfile.write(tmp_path / "a clip.wav", clips[2], RATE)
    return ["--model", str(saved_model), "--device", "cpu", str(tmp_path / "a clip.wav")]


def run(command, *words):
    return CliRunner().invoke(app, [command, *words])


@needs_onnx
def test_the_commands_compute_in_a_backend_and_say_what_auto_chose(saved, monkeypatch, exports):
    monkeypatch.setattr(backend, "instruction_sets", lambda: ("avx2",))
    outputs = {}
    for name in ("torch", "onnx", "auto"):
        result = run("tag", *saved, "--json", "--backend", name)
        assert result.exit_code == 0, result.output
        outputs[name] = [label["score"] for label in json.loads(result.stdout)["labels"]]
        assert ("Backend onnx: float32 on a CPU with AVX2." in result.stderr) == (name == "auto")
    assert outputs["onnx"] == outputs["auto"] == pytest.approx(outputs["torch"], abs=1e-4)
    assert exports in ([], ["float32"])
    embedded = [
        json.loads(run("embed", *saved, "--json", "--backend", name).stdout)["embeddings"]
        for name in ("torch", "onnx")
    ]
    assert embedded[1] == pytest.approx(embedded[0], abs=1e-4)


@needs_onnx
def test_layers_that_a_backend_does_not_give_are_refused_before_the_output_is_begun(saved, tmp_path):
    result = run("embed", *saved, "--output", str(tmp_path / "out"), "--backend", "onnx", "--layers", "0")
    assert result.exit_code == 2
    assert "gives the last layer alone" in result.stderr
    assert not (tmp_path / "out").exists()


@needs_onnx
def test_an_output_in_int8_is_not_continued_in_float32(saved, tmp_path):
    words = [*saved, "--output", str(tmp_path / "out.csv")]
    assert run("tag", *words, "--backend", "onnx-int8").exit_code == 0
    result = run("tag", *words, "--resume")
    assert result.exit_code == 2
    assert "`precision`" in result.stderr
    assert run("tag", *words, "--resume", "--backend", "onnx-int8").exit_code == 0


@needs_onnx
def test_the_page_loads_models_into_a_backend(saved_model):
    from transformers_beats.web import analysis

    (checkpoint,) = analysis.find_checkpoints([saved_model], "onnx")
    loaded, _ = analysis.load(checkpoint.path, "cpu", checkpoint.backend)
    assert isinstance(loaded.beats.encoder, OnnxEncoder)


def test_a_checkpoint_that_a_backend_cannot_compute_is_an_error_before_the_page_is_served(
    saved_model, tmp_path, monkeypatch, capsys
):
    pytest.importorskip("gradio", reason="the page needs gradio")
    from transformers_beats.web import page

    root = tmp_path / "models"
    shutil.copytree(saved_model, root / "clips")
    without_encoder(None).save_pretrained(root / "tokens")
    EXTRACTOR.save_pretrained(root / "tokens")
    monkeypatch.setattr(page, "build_page", lambda *args: pytest.fail("it is served"))
    monkeypatch.setattr(backend_encoder, "export_encoder", lambda *args: pytest.fail("it is exported"))
    # Put back after the test.
    monkeypatch.setattr(signal, "signal", lambda *args: None)
    for name in ("GRADIO_TEMP_DIR", "GRADIO_ANALYTICS_ENABLED"):
        monkeypatch.setenv(name, "")
    monkeypatch.setattr(web_analysis, "in_backend", lambda model, name: refuse_tokenizers(model, name))
    with pytest.raises(UsageError, match=r"^tokens: The backend onnx computes encoders, and a .* has none") as caught:
        page.serve([root], page.Limits(), "cpu", backend="onnx")
    assert "\n" not in str(caught.value)


def refuse_tokenizers(model, name):
    """Opens no classifier, which takes seconds."""
    return model if isinstance(model, BeatsForAudioClassification) else in_backend(model, name)


@needs_onnx
def test_models_are_opened_before_the_page_is_served(saved_model, monkeypatch):
    opened = []
    monkeypatch.setattr(web_analysis, "in_backend", lambda model, name: opened.append(name) or model)
    for name in ("torch", "onnx-int8", "auto"):
        web_analysis.load.cache_clear()
        web_analysis.check_backends(web_analysis.find_checkpoints([saved_model], name), "cpu")
    web_analysis.load.cache_clear()
    # PyTorch's need nothing.
    assert opened == ["onnx-int8", "auto"]


def test_commands_that_keep_a_model_have_no_backend(saved, tmp_path):
    result = run("index", *saved, "--output", str(tmp_path / "index"), "--backend", "onnx")
    assert result.exit_code == 2
    assert "no option --backend" in result.stderr


def test_an_unknown_backend_is_an_error_of_one_line(saved):
    result = run("tag", *saved, "--backend", "tensorrt")
    assert result.exit_code == 2
    assert "onnx-int8" in result.stderr


def test_errors_of_onnxruntime_are_in_one_line(monkeypatch):
    class Session:
        def run(self, *args):
            raise Exception("Non-zero status\nfurther lines")

    module = encoder_of(Session(), monkeypatch)
    with pytest.raises(RuntimeError, match=r"onnxruntime: Non-zero status$"):
        module(torch.zeros(1, 32, 128))


@needs_onnx
def test_variants_of_the_benchmark_compute_what_the_backends_compute(classifier):
    from benchmarks.backends import BACKENDS, VARIANTS, engines

    clips = [np.random.default_rng(seed).normal(0, 0.1, RATE).astype(np.float32) for seed in range(2)]
    functions, _ = engines(classifier, EXTRACTOR, False, False, False, 6)
    for backend_name in BACKENDS:
        expected = functions[backend_name](clips)
        for variant in VARIANTS:
            found = functions[f"{backend_name}, {variant}"](clips)
            np.testing.assert_allclose(found, expected, atol=1e-4, err_msg=f"{backend_name}, {variant}")
