# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Models as ONNX files: what onnxruntime computes from them, and what they say of themselves."""

import copy
import json
import subprocess
import sys

import numpy as np
import pytest
import soundfile
import torch
from golden import ROOT
from typer.testing import CliRunner

from transformers_beats import (
    BeatsConfig,
    BeatsFeatureExtractor,
    BeatsForAudioClassification,
    BeatsForAudioFrameClassification,
    BeatsForPreTraining,
    BeatsModel,
    BeatsRandomProjectionTokenizer,
    BeatsRandomProjectionTokenizerConfig,
    BeatsTokenizerConfig,
    BeatsTokenizerModel,
    __version__,
)
from transformers_beats.cli.app import app
from transformers_beats.inference import loading
from transformers_beats.utils.errors import BeatsError


pytest.importorskip("onnx")
pytest.importorskip("onnxscript")
onnxruntime = pytest.importorskip("onnxruntime")

from transformers_beats.backends import graphs  # noqa: E402
from transformers_beats.export import checks  # noqa: E402
from transformers_beats.export import onnx as export  # noqa: E402
from transformers_beats.export.waveform_model import ExportError, WaveformModel  # noqa: E402
from transformers_beats.utils.fingerprint import model_fingerprint  # noqa: E402


TINY = {"embed_dim": 16, "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 48}
TINY |= {"num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 2}
LABELS = {"id2label": {0: "dog", 1: "cat", 2: "rain"}, "problem_type": "multi_label_classification"}
# Samples of each clip: one column and less, ragged batches, lengths that end within a frame or a column.
BATCHES = [[2800], [2800, 1], [5359, 400], [16000, 9000, 2799], [47777], [160000, 80001]]


def build(kind):
    torch.manual_seed(0)
    if kind == "tokenizer":
        model = BeatsTokenizerModel(BeatsTokenizerConfig(**TINY, codebook_size=16, codebook_dim=8))
        model.quantizer.codebook.copy_(torch.nn.functional.normalize(torch.randn(16, 8), dim=-1))
        model.quantizer.is_initialized.fill_(1.0)
        return model.eval()
    if kind == "random_projection":
        return BeatsRandomProjectionTokenizer(BeatsRandomProjectionTokenizerConfig()).eval()
    if kind == "frames":
        config = BeatsConfig(**TINY, frame_pooling="concat", use_weighted_layer_sum=True)
        return BeatsForAudioFrameClassification(config).eval()
    if kind == "steps":
        return BeatsForAudioFrameClassification(BeatsConfig(**TINY, **LABELS, frame_pooling="sequence")).eval()
    if kind in ("recurrent", "recurrent_clips"):
        head = {"frame_recurrent_layers": 2, "frame_recurrent_size": 12, "classifier_pooling": "frame_attention"}
        model_class = BeatsForAudioFrameClassification if kind == "recurrent" else BeatsForAudioClassification
        model = model_class(BeatsConfig(**TINY, **LABELS, **head, frame_pooling="sequence")).eval()
        # Weights of attention that are not equal.
        torch.nn.init.normal_(model.pooling.attention.weight)
        return model
    if kind == "encoder":
        variant = {"deep_norm": False, "layer_norm_first": True, "hidden_act": "glu"}
        return BeatsModel(BeatsConfig(**TINY, **variant)).eval()
    model = BeatsForAudioClassification(BeatsConfig(**TINY, **LABELS)).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            # Layers of random weights add next to nothing to their inputs. Those of trained models do.
            if name.endswith(tuple(f".{layer}.weight" for layer in graphs.QUANTIZED_LAYERS)):
                parameter *= 10
    return model


KINDS = ["classifier", "frames", "steps", "recurrent", "recurrent_clips", "encoder", "tokenizer", "random_projection"]
EXTRACTOR = BeatsFeatureExtractor(fbank_mean=12.5, fbank_std=5.5)


def clips_of(lengths):
    generator = torch.Generator().manual_seed(sum(lengths))
    return [torch.randn(length, generator=generator) * 0.1 for length in lengths]


def rows_of(clips):
    """One array with something else than zeros where no clip is, and the lengths."""
    waveforms = torch.full((len(clips), max(2800, *(len(clip) for clip in clips), 0)), 0.5)
    for row, clip in zip(waveforms, clips):
        row[: len(clip)] = clip
    return waveforms, torch.tensor([len(clip) for clip in clips])


def expected_outputs(model, clips):
    """What extractor and model compute from the clips."""
    with torch.no_grad():
        return model(**EXTRACTOR(clips, sampling_rate=16000, return_tensors="pt"))


def run(session, clips, names=None):
    waveforms, lengths = rows_of(clips)
    names = names or [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, {"waveforms": waveforms.numpy(), "lengths": lengths.numpy()})))


@pytest.fixture(scope="module")
def classifier():
    return build("classifier")


@pytest.fixture(scope="module")
def program(classifier):
    """Of a model as a training leaves it."""
    model = copy.deepcopy(classifier).train()
    model.set_attn_implementation("flex_attention")
    program = export.export_program(WaveformModel(model, EXTRACTOR))
    assert model.training
    assert model.config._attn_implementation == "flex_attention"
    return program


@pytest.fixture(scope="module")
def graph(classifier, program):
    return export.build_graph(WaveformModel(classifier, EXTRACTOR).eval(), program)


@pytest.fixture(scope="module")
def write(classifier, program, graph):
    """`export_onnx` of the classifier without tracing it again, which takes seconds; and with another graph."""

    def write(path, graph=graph, **kwargs):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(export, "trace", lambda module: program)
            patch.setattr(export, "build_graph", lambda module, program: copy.deepcopy(graph))
            return export.export_onnx(classifier, EXTRACTOR, path, **kwargs)

    return write


@pytest.fixture(scope="module")
def exported(write, tmp_path_factory):
    """An int8 file, and what was said of it."""
    path = tmp_path_factory.mktemp("onnx") / "deep" / "model.onnx"
    return path, write(path, int8=True)


@pytest.fixture(scope="module")
def fp32(write, tmp_path_factory):
    return write(tmp_path_factory.mktemp("onnx") / "model.onnx").path


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("lengths", [[2800, 1], [16000, 9000, 2799]])
def test_waveforms_with_lengths_give_what_extractor_and_model_give(kind, lengths):
    model, clips = build(kind), clips_of(lengths)
    module, expected = WaveformModel(model, EXTRACTOR), expected_outputs(model, clips)
    with torch.no_grad():
        found = dict(zip(module.output_names, module(*rows_of(clips))))
    for name in found.keys() - {"probabilities"}:
        torch.testing.assert_close(found[name], expected[name], atol=1e-5, rtol=0.0)


@pytest.mark.parametrize("lengths", BATCHES)
def test_onnxruntime_computes_what_torch_computes(classifier, fp32, lengths):
    clips = clips_of(lengths)
    found = run(onnxruntime.InferenceSession(fp32), clips)
    logits = expected_outputs(classifier, clips).logits
    np.testing.assert_allclose(found["logits"], logits.numpy(), atol=1e-4, rtol=0.0)
    np.testing.assert_allclose(found["probabilities"], logits.sigmoid().numpy(), atol=1e-4, rtol=0.0)


@pytest.mark.parametrize("lengths", BATCHES)
def test_torch_export_serves_all_lengths(classifier, program, lengths):
    clips = clips_of(lengths)
    logits, _ = program.module()(*rows_of(clips))
    torch.testing.assert_close(logits, expected_outputs(classifier, clips).logits, atol=1e-5, rtol=0.0)


def test_int8_is_close_and_keeps_the_filter_bank_in_float32(classifier, exported):
    path, written = exported
    noise, quiet, clipped = clips_of([48000, 30000, 16000])
    clips = [noise, quiet * 0.01, clipped.sign(), torch.zeros(20000)]
    found = run(onnxruntime.InferenceSession(path), clips)["logits"]
    expected = expected_outputs(classifier, clips).logits.numpy()
    assert graphs.centered_cosine(expected, found) > 0.99
    assert written.difference < 1e-4
    assert written.similarity > 0.99
    assert written.same_class == 1.0

    import onnx

    nodes = onnx.load(path).graph.node
    # Queries, keys, values, output and the two layers of the feed-forward network.
    assert sum(node.op_type == "MatMulInteger" for node in nodes) == 6 * TINY["num_hidden_layers"]
    assert sum(node.op_type == "DFT" for node in nodes) == 1


def test_an_int8_file_that_is_not_the_model_is_not_written(write, tmp_path, monkeypatch):
    import onnx

    def write_zeros(model, nodes, path, write_int8=export.write_int8):
        write_int8(model, nodes, path)
        quantized = onnx.load(path)
        for tensor in quantized.graph.initializer:
            if tensor.name.endswith("_quantized"):
                tensor.raw_data = bytes(len(tensor.raw_data))
        onnx.save(quantized, path)

    monkeypatch.setattr(export, "write_int8", write_zeros)
    with pytest.raises(ExportError, match=r"differs too much from the model, cosine .*, less than 0.95"):
        write(tmp_path / "model.onnx", int8=True)
    assert list(tmp_path.iterdir()) == []


def test_a_copy_for_an_export_draws_no_numbers(classifier):
    state = torch.get_rng_state()
    graphs.exportable_copy(classifier)
    assert torch.equal(torch.get_rng_state(), state)


def test_files_are_tried_on_loud_sounds_tones_and_silence():
    noise, sweep, silence, clipped, impulses = checks.check_sounds(16000, 16000)
    assert 0.09 < noise.std() < 0.11
    pitches = [np.abs(np.fft.rfft(part)).argmax() * 16000 / 2000 for part in sweep.reshape(8, 2000)]
    assert pitches == pytest.approx([7000 * (part + 0.5) / 8 for part in range(8)], abs=600)
    assert np.abs(silence).max() == 0
    assert (np.abs(clipped) == 1).mean() > 0.5
    assert impulses.sum() == 20


def test_constant_outputs_are_similar_only_if_they_are_equal():
    zeros, ones = np.zeros(3, dtype=np.float32), np.ones(3, dtype=np.float32)
    assert graphs.cosine(zeros, zeros) == 1.0
    assert graphs.cosine(zeros, ones) == 0.0


def test_what_is_common_to_all_hides_no_difference():
    expected = 100.0 + np.eye(3)
    assert graphs.centered_cosine(expected, expected) == pytest.approx(1.0)
    assert graphs.centered_cosine(expected, expected[::-1]) < 0.5
    assert graphs.cosine(expected, expected[::-1]) > 0.99
    assert graphs.largest_difference(expected, expected + 1.0) == pytest.approx(1 / 101)
    assert graphs.largest_difference(np.zeros(2), np.full(2, 0.5)) == 0.5


def test_silence_has_the_code_that_torch_finds(tmp_path):
    model = build("random_projection")
    export.export_onnx(model, EXTRACTOR, tmp_path / "model.onnx")
    clips = [torch.zeros(16000), *clips_of([8000])]
    codes = run(onnxruntime.InferenceSession(tmp_path / "model.onnx"), clips)["audio_codes"]
    np.testing.assert_array_equal(codes, expected_outputs(model, clips).audio_codes.numpy())
    assert (codes[0] == 0).all()


def test_the_file_says_what_its_users_need(exported, classifier):
    session = onnxruntime.InferenceSession(exported[0])
    metadata = session.get_modelmeta().custom_metadata_map
    assert json.loads(metadata["labels"]) == ["dog", "cat", "rain"]
    assert metadata["problem_type"] == "multi_label_classification"
    assert metadata["transformers_beats_version"] == __version__
    assert metadata["architecture"] == "BeatsForAudioClassification"
    assert metadata["model_fingerprint"] == model_fingerprint(classifier, EXTRACTOR)
    numbers = ("sampling_rate", "min_samples", "column_samples", "num_freq_patches")
    assert [metadata[name] for name in numbers] == ["16000", "2800", "2560", "8"]
    assert [value.shape for value in session.get_inputs()] == [["batch", "samples"], ["batch"]]


def test_the_file_says_how_far_apart_scores_are():
    for kind, expected in (("frames", "2560"), ("steps", "640")):
        assert export.metadata(WaveformModel(build(kind), EXTRACTOR))["column_samples"] == expected


def test_the_file_does_not_tell_where_it_was_made(exported):
    assert str(ROOT).encode() not in exported[0].read_bytes()


def test_only_the_file_is_left_and_the_model_is_as_it_was(classifier, exported):
    assert [path.name for path in exported[0].parent.iterdir()] == ["model.onnx"]
    assert classifier.config._attn_implementation == "sdpa"
    assert torch.nn.utils.parametrize.is_parametrized(classifier.beats.encoder.pos_conv_embed.conv, "weight")


def test_a_row_too_short_for_a_column_is_an_error(fp32):
    inputs = {"waveforms": np.zeros((1, 2799), dtype=np.float32), "lengths": np.array([2799])}
    with pytest.raises(onnxruntime.capi.onnxruntime_pybind11_state.InvalidArgument):
        onnxruntime.InferenceSession(fp32).run(None, inputs)


def test_a_graph_that_differs_from_torch_is_not_written(write, graph, tmp_path):
    spoilt = copy.deepcopy(graph)
    bias = next(tensor for tensor in spoilt.graph.initializer if tensor.name == "model.classifier.bias")
    bias.raw_data = (np.frombuffer(bias.raw_data, dtype=np.float32) + 0.01).tobytes()
    with pytest.raises(ExportError, match=r"differs from PyTorch by 1.0e-02"):
        write(tmp_path / "model.onnx", spoilt)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS[1:])
def test_other_models_export(kind, tmp_path):
    model = build(kind)
    export.export_onnx(model, EXTRACTOR, tmp_path / "model.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    for lengths in BATCHES:
        clips = clips_of(lengths)
        expected = expected_outputs(model, clips)
        for name, values in run(session, clips).items():
            if name == "audio_codes":
                assert (values == expected[name].numpy()).mean() > 0.99
            elif name != "probabilities":
                np.testing.assert_allclose(values, expected[name].numpy(), atol=1e-4, rtol=0.0)


@pytest.mark.slow
def test_a_tokenizer_in_int8_finds_most_codes(tmp_path):
    written = export.export_onnx(build("tokenizer"), EXTRACTOR, tmp_path / "model.onnx", int8=True)
    assert written.difference == 0.0
    assert 0.9 < written.similarity <= 1.0


def test_a_model_without_layers_for_int8_is_refused(tmp_path):
    with pytest.raises(ExportError, match="no layers for int8"):
        export.write_int8(None, [], tmp_path / "model.onnx")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda model, extractor: (model.half(), extractor), "float32"),
        (
            lambda model, extractor: (model, BeatsFeatureExtractor(patch_size=8)),
            "has `patch_size` 8, the model needs 16",
        ),
        (lambda model, extractor: (model, BeatsFeatureExtractor(legacy_padding_mask=True)), "legacy_padding_mask"),
        (lambda model, extractor: (BeatsForPreTraining(BeatsConfig(**TINY)), extractor), "cannot be exported"),
    ],
)
def test_what_cannot_be_exported_is_refused(change, message, tmp_path):
    model, extractor = change(build("classifier"), EXTRACTOR)
    with pytest.raises(BeatsError, match=message):
        export.export_onnx(model, extractor, tmp_path / "model.onnx")
    assert list(tmp_path.iterdir()) == []


def test_a_regression_has_no_probabilities():
    model = BeatsForAudioClassification(BeatsConfig(**TINY, num_labels=1))
    module = WaveformModel(model, EXTRACTOR)
    assert module.output_names == ["logits"]
    assert export.metadata(module)["problem_type"] == "regression"


def invoke(*arguments):
    return CliRunner().invoke(app, ["export", *map(str, arguments)])


def test_the_command_replaces_a_file_only_if_told_to(tmp_path):
    (tmp_path / "model.onnx").write_bytes(b"precious")
    result = invoke("nowhere", tmp_path / "model.onnx")
    assert result.exit_code == 2
    assert "pass --overwrite" in result.output
    assert (tmp_path / "model.onnx").read_bytes() == b"precious"


def test_the_command_says_how_near_the_file_is(write, classifier, tmp_path, monkeypatch):
    classifier.save_pretrained(tmp_path / "model")
    EXTRACTOR.save_pretrained(tmp_path / "model")
    written = write(tmp_path / "model.onnx", int8=True)
    monkeypatch.setattr(export, "export_onnx", lambda *args: written)
    result = invoke(tmp_path / "model", tmp_path / "model.onnx", "--int8", "--overwrite")
    assert result.exit_code == 0, result.output
    assert "waveforms, lengths -> logits, probabilities" in result.output
    assert "cosine on test sounds: 0.99" in result.output
    assert "the same likeliest label: 100%" in result.output


def empty(path):
    path.mkdir()


def of_unknown_type(path):
    path.mkdir()
    (path / "config.json").write_text('{"model_type": "bats", "architectures": ["BeatsModel"]}')


def damaged(path):
    BeatsModel(BeatsConfig(**TINY)).save_pretrained(path)
    EXTRACTOR.save_pretrained(path)
    (path / "model.safetensors").write_bytes((path / "model.safetensors").read_bytes()[:1000])


def of_other_sizes(path):
    BeatsModel(BeatsConfig(**TINY)).save_pretrained(path)
    EXTRACTOR.save_pretrained(path)
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps(config | {"intermediate_size": 50}))


def without_extractor(path):
    BeatsModel(BeatsConfig(**TINY)).save_pretrained(path)


@pytest.mark.parametrize(
    ("make", "status"), [(empty, 2), (of_unknown_type, 2), (damaged, 1), (of_other_sizes, 1), (without_extractor, 2)]
)
def test_what_cannot_be_loaded_is_an_error_of_one_line(make, status, tmp_path):
    make(tmp_path / "model")
    result = invoke(tmp_path / "model", tmp_path / "model.onnx")
    assert result.exit_code == status
    assert isinstance(result.exception, SystemExit)
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert line.startswith(f"error: {tmp_path / 'model'}: ")
    assert result.stderr.endswith(f"{line}\n")


@pytest.mark.parametrize("arguments", [[], ["model"], ["model", "model.onnx", "--int9"]])
def test_arguments_that_cannot_be_used_exit_with_status_2(arguments):
    assert invoke(*arguments).exit_code == 2


def test_a_missing_package_is_an_error_before_the_model_is_loaded(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    monkeypatch.setattr(loading, "load", lambda *args, **kwargs: pytest.fail("loaded"))
    result = invoke("user/nowhere", tmp_path / "model.onnx")
    assert result.exit_code == 1
    assert "onnxscript" in result.output
    assert "pip install 'transformers-beats[onnx]'" in result.output


def test_the_example_needs_only_the_file(exported, classifier, tmp_path):
    audio = torch.cat(clips_of([160000, 1500]))
    soundfile.write(tmp_path / "clip.wav", audio.numpy(), 16000, subtype="FLOAT")
    example = ROOT / "examples" / "onnx_inference.py"
    assert len(example.read_text().splitlines()) <= 42
    command = [sys.executable, "-I", str(example), str(exported[0]), str(tmp_path / "clip.wav")]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    scores = {line.split()[2]: float(line.split()[1]) for line in output.splitlines()}
    parts = [expected_outputs(classifier, [part]).logits.sigmoid()[0] for part in audio.split(160000)]
    expected = (parts[0] * 160000 + parts[1] * 1500) / 161500
    assert scores == pytest.approx(dict(zip(["dog", "cat", "rain"], expected.tolist())), abs=0.02)


@pytest.mark.parametrize(
    "change",
    [
        {"architecture": "BeatsModel"},
        {"architecture": "BeatsForAudioFrameClassification"},
        {"problem_type": "regression"},
    ],
)
def test_the_example_says_what_it_cannot_use(change, exported, tmp_path):
    import onnx

    model = onnx.load(exported[0])
    for entry in model.metadata_props:
        entry.value = change.get(entry.key, entry.value)
    onnx.save(model, tmp_path / "model.onnx")
    command = [
        sys.executable,
        "-I",
        str(ROOT / "examples" / "onnx_inference.py"),
        str(tmp_path / "model.onnx"),
        "a.wav",
    ]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert len(result.stderr.splitlines()) == 1
    assert next(iter(change.values())) in result.stderr


def test_the_example_ends_with_one_line_for_files_that_it_cannot_use(exported, tmp_path):
    model, clip = str(exported[0]), str(tmp_path / "clip.wav")
    soundfile.write(clip, np.zeros(8000), 16000)
    soundfile.write(tmp_path / "empty.wav", np.zeros(0), 16000)
    soundfile.write(tmp_path / "other.wav", np.zeros(8000), 44100)
    (tmp_path / "text.wav").write_text("no audio")
    for words, expected in (
        ([], "python onnx_inference.py MODEL.onnx CLIP.wav"),
        ([model], "python onnx_inference.py MODEL.onnx CLIP.wav"),
        ([tmp_path / "none.onnx", clip], "none.onnx"),
        ([clip, clip], "clip.wav"),
        ([model, tmp_path / "none.wav"], "none.wav"),
        ([model, tmp_path / "text.wav"], "text.wav"),
        ([model, tmp_path / "empty.wav"], "empty.wav: holds no audio."),
        ([model, tmp_path / "other.wav"], "other.wav: its rate is 44100 Hz"),
    ):
        command = [sys.executable, "-I", str(ROOT / "examples" / "onnx_inference.py"), *map(str, words)]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        assert result.returncode == 1, words
        assert expected in result.stderr, words
        assert len(result.stderr.splitlines()) == 1, words


def test_an_output_that_cannot_be_written_is_refused_before_the_export(classifier, tmp_path, monkeypatch):
    monkeypatch.setattr(export, "trace", None)
    (tmp_path / "file").touch()
    for output, message in ((tmp_path, "is a folder"), (tmp_path / "file" / "x.onnx", "cannot be written")):
        with pytest.raises(BeatsError, match=message):
            export.export_onnx(classifier, EXTRACTOR, output)
