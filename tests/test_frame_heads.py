# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Heads over frames: recurrent layers before the classifier, and scores of clips from those of their frames."""

import copy
import json
import math

import numpy as np
import pytest
import soundfile
import torch
from huggingface_hub.errors import StrictDataclassError
from peft import LoraConfig, get_peft_model
from torch.func import functional_call
from transformers import pipeline
from typer.testing import CliRunner

from transformers_beats import BeatsConfig, BeatsFeatureExtractor, WindowedInference
from transformers_beats import BeatsForAudioClassification as ClipClassifier
from transformers_beats import BeatsForAudioFrameClassification as FrameClassifier
from transformers_beats.cli.app import app
from transformers_beats.inference.loading import describe, load_model
from transformers_beats.modeling_beats import BeatsRecurrentLayers, gather_patches
from transformers_beats.training.classifiers import NEW_WEIGHTS
from transformers_beats.utils.errors import BeatsError


RATE = 16_000
EXTRACTOR = BeatsFeatureExtractor()
RECURRENT = {"frame_recurrent_layers": 2, "frame_recurrent_size": 6}
POOLINGS = ["frame_mean", "frame_attention"]
FRAMES = ["mean", "concat", "sequence"]


def build(tiny_config, model_class=FrameClassifier, **values):
    """A model whose recurrent layers and attention have weights that tell frames apart."""
    torch.manual_seed(0)
    for name, value in values.items():
        setattr(tiny_config, name, value)
    model = model_class(copy.deepcopy(tiny_config)).eval()
    with torch.no_grad():
        for name, value in model.named_parameters():
            if name.startswith(("pooling.", "recurrent.", "classifier.")):
                value.copy_(0.5 * torch.randn(value.shape))
    return model


@pytest.fixture
def clips() -> list[np.ndarray]:
    """Clips of 3 s, 1.234 s, 0.3 s, and one shorter than a column."""
    rng = np.random.default_rng(0)
    return [rng.standard_normal(n).astype(np.float32) * 0.1 for n in (48_000, 19_744, 4_800, 1_000)]


def extract(clips):
    return EXTRACTOR(clips, sampling_rate=RATE, return_tensors="pt", padding=True, return_attention_mask=True)


def torch_gru(layers: BeatsRecurrentLayers) -> torch.nn.GRU:
    """PyTorch's own bidirectional GRU with the weights of ours."""
    size, depth = layers.num_outputs // 2, len(layers.forward_layers)
    gru = torch.nn.GRU(layers.forward_layers[0].weight_ih.shape[1], size, depth, batch_first=True, bidirectional=True)
    with torch.no_grad():
        for suffix, directions in (("", layers.forward_layers), ("_reverse", layers.backward_layers)):
            for number, layer in enumerate(directions):
                for name, value in layer.named_parameters():
                    getattr(gru, f"{name}_l{number}{suffix}").copy_(value)
    return gru


def scores_of_clip(scores: np.ndarray, attention: np.ndarray) -> np.ndarray:
    """The definition: scores and attention logits of frames, `(num_frames, num_labels)`, to scores `(num_labels,)`."""
    weights = np.exp(attention) / np.exp(attention).sum(axis=1, keepdims=True)
    weights = np.clip(weights, 1e-7, 1)
    return (scores * weights).sum(axis=0) / weights.sum(axis=0)


@pytest.mark.parametrize("depth", [1, 3])
def test_recurrent_layers_are_a_bidirectional_gru_of_the_valid_frames(depth):
    torch.manual_seed(0)
    layers = BeatsRecurrentLayers(BeatsConfig(frame_recurrent_layers=depth, frame_recurrent_size=6), 8)
    for parameter in layers.parameters():
        torch.nn.init.normal_(parameter)
    gru = torch_gru(layers)
    frames = torch.randn(5, 9, 8)
    # All, the first ones, the last ones, some, none.
    masks = ["111111111", "111100000", "000000111", "011010011", "000000000"]
    is_valid = torch.tensor([[mark == "1" for mark in mask] for mask in masks])
    with torch.no_grad():
        found = layers(frames, is_valid)
        for clip, valid, states in zip(frames, is_valid, found):
            assert (states[~valid] == 0).all()
            if valid.any():
                torch.testing.assert_close(states[valid], gru(clip[valid])[0], atol=1e-5, rtol=0)


@pytest.mark.parametrize("frame_pooling", FRAMES)
@pytest.mark.parametrize("pooling", POOLINGS)
def test_logits_are_those_of_the_equations(frame_pooling, pooling, tiny_config, clips):
    values = {**RECURRENT, "frame_pooling": frame_pooling, "classifier_pooling": pooling}
    model, inputs = build(tiny_config, **values), extract(clips)
    plain = build(tiny_config, frame_pooling=frame_pooling, frame_recurrent_layers=0)
    plain.beats.load_state_dict(model.beats.state_dict())
    gru = torch_gru(model.recurrent)
    with torch.no_grad():
        outputs = model(**inputs)
        patches = plain.beats(**inputs)
        frames, is_valid = plain.pool(
            patches.last_hidden_state, patches.patch_attention_mask, inputs["attention_mask"], 298
        )
        assert torch.equal(outputs.column_attention_mask.bool(), is_valid)
        for clip in range(len(clips)):
            states = gru(frames[clip, is_valid[clip]])[0]
            logits = model.classifier(states)
            torch.testing.assert_close(outputs.logits[clip, is_valid[clip]], logits, atol=1e-5, rtol=0)
            found = outputs.clip_logits[clip]
            if pooling == "frame_mean":
                torch.testing.assert_close(found, logits.mean(dim=0), atol=1e-5, rtol=0)
                continue
            attention = model.pooling.attention(states).double().numpy()
            expected = scores_of_clip(logits.double().sigmoid().numpy(), attention)
            np.testing.assert_allclose(found.sigmoid().numpy(), expected, atol=1e-6)


@pytest.mark.parametrize("depth", [0, 2])
@pytest.mark.parametrize("pooling", POOLINGS)
def test_a_clip_alone_is_as_in_a_batch_and_the_clip_classifier_has_its_logits(pooling, depth, tiny_config, clips):
    # Of a few units: many of random weights would make large differences of those of rounding.
    values = {**RECURRENT, "frame_recurrent_layers": depth}
    model = build(tiny_config, **values, frame_pooling="sequence", classifier_pooling=pooling)
    of_clips = build(tiny_config, ClipClassifier)
    of_clips.load_state_dict(model.state_dict())
    with torch.no_grad():
        together = model(**extract(clips))
        torch.testing.assert_close(of_clips(**extract(clips)).logits, together.clip_logits, atol=1e-6, rtol=0)
        for index, clip in enumerate(clips):
            features = extract([clip])
            for mask in ({}, {"attention_mask": features["attention_mask"]}):
                alone = model(features["input_values"], **mask)
                count = alone.logits.shape[1]
                assert together.column_attention_mask[index].sum() == count
                torch.testing.assert_close(together.logits[index, :count], alone.logits[0], atol=1e-5, rtol=0)
                torch.testing.assert_close(together.clip_logits[index], alone.clip_logits[0], atol=1e-5, rtol=0)


def test_padding_changes_nothing_and_has_no_gradient(tiny_config, clips):
    values = {**RECURRENT, "frame_pooling": "sequence", "classifier_pooling": "frame_attention"}
    model, inputs = build(tiny_config, **values), extract(clips[:2])
    with torch.no_grad():
        expected = model(**inputs)
        inputs["input_values"][1, int(inputs["attention_mask"][1].sum()) :] = 7.0
        torch.testing.assert_close(model(**inputs).clip_logits, expected.clip_logits, atol=1e-6, rtol=0)
    model(**inputs, labels=torch.zeros(2, expected.logits.shape[1], dtype=torch.long)).loss.backward()
    gradients = {name: each.grad for name, each in model.named_parameters() if name.startswith("recurrent.")}
    assert all(gradient is not None and 0 < gradient.abs().max() < math.inf for gradient in gradients.values())


@pytest.mark.parametrize("model_class", [ClipClassifier, FrameClassifier])
@pytest.mark.parametrize("pooling", POOLINGS)
def test_a_clip_of_nothing_but_padding_is_finite(pooling, model_class, tiny_config, clips):
    values = {**RECURRENT, "frame_pooling": "sequence", "classifier_pooling": pooling}
    model, inputs = build(tiny_config, model_class, **values), extract(clips[:2])
    inputs["attention_mask"][1] = 0
    with torch.no_grad():
        outputs = model(**inputs)
    found = outputs.logits if model_class is ClipClassifier else outputs.clip_logits
    assert torch.isfinite(outputs.logits).all()
    assert found[1].tolist() == [0] * 5
    assert (found[0] != 0).all()


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_scores_near_0_and_1_keep_their_digits(scale, tiny_config):
    model = build(tiny_config, classifier_pooling="frame_attention")
    frames, logits = torch.randn(1, 7, 64), scale * torch.randn(1, 7, 5)
    is_valid = torch.ones(1, 7, dtype=torch.bool)
    with torch.no_grad():
        found = model.pooling(frames, logits, is_valid)[0].double()
        weights = model.pooling.attention(frames).double().softmax(dim=-1).clamp(min=1e-7)[0]
    # Of log-odds x, the score is 1 / (1 + exp(-x)), and what it lacks of 1 is that of -x.
    log_scores, log_rests = (torch.nn.functional.logsigmoid(sign * logits[0].double()) for sign in (1, -1))
    expected = (weights.log() + log_scores).logsumexp(0) - (weights.log() + log_rests).logsumexp(0)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64, "autocast"])
def test_other_precisions_are_computed(dtype, tiny_config, clips):
    values = {**RECURRENT, "frame_pooling": "sequence", "classifier_pooling": "frame_attention"}
    model, inputs = build(tiny_config, **values), extract(clips[:2])
    with torch.no_grad():
        expected = model(**inputs)
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == "autocast"):
            dtype, given = (torch.bfloat16, torch.float32) if dtype == "autocast" else (dtype, dtype)
            found = model.to(given)(inputs["input_values"].to(given), attention_mask=inputs["attention_mask"])
    assert found.logits.dtype == found.clip_logits.dtype == dtype
    tolerance = 0.3 if dtype == torch.bfloat16 else 1e-4
    torch.testing.assert_close(found.clip_logits.float(), expected.clip_logits, atol=tolerance, rtol=0)


@pytest.mark.parametrize("model_class", [ClipClassifier, FrameClassifier])
def test_heads_are_saved_whole(model_class, tiny_config, clips, tmp_path):
    values = {**RECURRENT, "frame_pooling": "sequence", "classifier_pooling": "frame_attention"}
    model = build(tiny_config, model_class, **values)
    model.save_pretrained(tmp_path)
    again = model_class.from_pretrained(tmp_path).eval()
    assert again.state_dict().keys() == model.state_dict().keys()
    with torch.no_grad():
        assert torch.equal(again(**extract(clips)).logits, model(**extract(clips)).logits)
    saved = json.loads((tmp_path / "config.json").read_text())
    assert {name: saved[name] for name in values} == values


def test_a_checkpoint_without_these_settings_is_the_model_that_it_was(tiny_config, clips, tmp_path):
    model = build(tiny_config, frame_pooling="sequence")
    model.save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "config.json").read_text())
    for name in RECURRENT:
        del saved[name]
    (tmp_path / "config.json").write_text(json.dumps(saved))
    again = FrameClassifier.from_pretrained(tmp_path).eval()
    assert (again.recurrent, again.pooling) == (None, None)
    outputs = again(**extract(clips))
    assert outputs.clip_logits is None
    torch.testing.assert_close(outputs.logits, model(**extract(clips)).logits)


def test_new_recurrent_layers_begin_as_those_of_pytorch(tiny_config):
    for name, value in RECURRENT.items():
        setattr(tiny_config, name, value)
    weights = torch.cat([each.detach().flatten() for each in FrameClassifier(tiny_config).recurrent.parameters()])
    bound = RECURRENT["frame_recurrent_size"] ** -0.5
    assert 0.95 * bound < weights.abs().max() <= bound
    assert abs(weights.mean()) < 0.05 * bound


@pytest.fixture
def recurrence() -> tuple[BeatsRecurrentLayers, torch.Tensor, torch.Tensor]:
    """Recurrent layers, and frames of two clips with what is valid of them."""
    torch.manual_seed(0)
    layers = BeatsRecurrentLayers(BeatsConfig(**RECURRENT), 8)
    for parameter in layers.parameters():
        torch.nn.init.normal_(parameter)
    return layers, torch.randn(2, 4, 8), torch.tensor([[True] * 4, [True, True, False, False]])


@torch.no_grad()
def test_recurrent_layers_read_weights_that_are_passed(recurrence):
    """Weights of a mean teacher are passed to the model of the student."""
    layers, *inputs = recurrence
    others = {name: 1.5 * value for name, value in layers.state_dict().items()}
    found = functional_call(layers, others, tuple(inputs))
    layers.load_state_dict(others)
    torch.testing.assert_close(layers(*inputs), found, atol=1e-5, rtol=0)


@pytest.mark.usefixtures("compiler")
def test_recurrent_layers_are_no_part_of_a_compiled_graph(recurrence):
    """Backends write out every step of the clip, and compile that again for each length."""
    layers, frames, is_valid = recurrence
    called = []

    def note(graph, inputs):
        called.extend(node.target for node in graph.graph.nodes)
        return graph.forward

    compiled = torch.compile(layers, backend=note)
    for length in (4, 3):
        inputs = (frames[:, :length], is_valid[:, :length])
        found = compiled(*inputs)
        torch.testing.assert_close(found, layers(*inputs), atol=1e-5, rtol=0)
    found.sum().backward()
    assert all(parameter.grad.abs().max() > 0 for parameter in layers.parameters())
    assert "gather" in called
    assert torch.gru not in called


def test_adapters_of_the_classifier_count_in_both_logits(tiny_config, clips):
    values = {**RECURRENT, "frame_pooling": "sequence", "classifier_pooling": "frame_attention"}
    model, inputs = build(tiny_config, **values), extract(clips[:2])
    with torch.no_grad():
        expected = model(**inputs)
        adapted = get_peft_model(model, LoraConfig(target_modules=["classifier"], init_lora_weights=False))
        found = adapted(**inputs)
    for name in ("logits", "clip_logits"):
        assert (found[name] - expected[name]).abs().max() > 1e-3


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"frame_recurrent_layers": -1}, "`frame_recurrent_layers` must be at least 0, got -1"),
        ({"frame_recurrent_size": 0}, "`frame_recurrent_size`"),
        ({"classifier_pooling": "frame_max"}, "classifier_pooling"),
    ],
)
def test_settings_out_of_range_are_refused(values, message):
    with pytest.raises(StrictDataclassError, match=message):
        BeatsConfig(**values)


def test_recurrent_layers_under_a_pooling_of_patches_are_refused(tiny_config):
    with pytest.raises(ValueError, match="`classifier_pooling` 'mean' pools patches: set it to 'frame_mean' or"):
        build(tiny_config, ClipClassifier, **RECURRENT)


@pytest.mark.parametrize("model_class", [ClipClassifier, FrameClassifier])
@pytest.mark.parametrize(
    "values",
    [
        {"num_labels": 1},
        {"num_labels": 1, "problem_type": "multi_label_classification"},
        {"problem_type": "regression"},
    ],
)
def test_attention_of_one_class_or_of_a_regression_is_refused(values, model_class, tiny_config):
    """A softmax over one class weighs nothing, and means of scores are no values of a regression."""
    build(tiny_config, model_class, classifier_pooling="frame_mean", **values)
    with pytest.raises(ValueError, match=r"weighs several classes .* set `classifier_pooling` to 'frame_mean'\.$"):
        build(tiny_config, model_class, classifier_pooling="frame_attention", **values)


@pytest.mark.parametrize("pooling", POOLINGS)
def test_clips_of_as_many_columns_have_the_steps_that_they_have_alone(pooling, tiny_config):
    """Batches of clips whose numbers of columns are equal, and of steps not, need a mask."""
    values = {**RECURRENT, "frame_pooling": "sequence", "classifier_pooling": pooling}
    model = build(tiny_config, ClipClassifier, **values, problem_type="multi_label_classification")
    rng = np.random.default_rng(0)
    waveforms = [0.1 * rng.standard_normal(length).astype(np.float32) for length in (31_600, 30_300)]
    inference = WindowedInference(model, EXTRACTOR)
    assert inference.frame_seconds == 0.16
    for waveform, found in zip(waveforms, inference.classify_many(waveforms, RATE)):
        with torch.no_grad():
            alone = model(extract([waveform])["input_values"]).logits[0].sigmoid().numpy()
        np.testing.assert_allclose(found.scores, alone, atol=1e-5)


def test_windows_of_10_s_of_a_clip_classifier_have_all_250_steps(tiny_config):
    values = {**RECURRENT, "frame_pooling": "sequence", "classifier_pooling": "frame_mean"}
    model = build(tiny_config, ClipClassifier, **values, problem_type="multi_label_classification")
    waveform = 0.1 * np.random.default_rng(1).standard_normal(10 * RATE).astype(np.float32)
    with torch.no_grad():
        expected = model(extract([waveform])["input_values"]).logits[0].sigmoid().numpy()
    windows = list(WindowedInference(model, EXTRACTOR).stream_windows(np.tile(waveform, 2), RATE))
    np.testing.assert_allclose(windows[0].scores, expected, atol=1e-5)


def test_positions_are_gathered_by_clip():
    values = torch.arange(12.0).view(2, 3, 2)
    found = gather_patches(values, torch.tensor([[2, 0], [1, 1]]))
    assert found.tolist() == [[[4, 5], [0, 1]], [[8, 9], [8, 9]]]


def test_the_description_tells_recurrent_layers(tiny_config):
    model = build(tiny_config, **RECURRENT, frame_pooling="sequence")
    assert describe(model, EXTRACTOR)["scores"] == "every 40 ms, behind 2 recurrent layers of 2 x 6"
    model = build(tiny_config, ClipClassifier, classifier_pooling="frame_mean")
    expected = "of a clip, by frame_mean of those every 40 ms, behind 2 recurrent layers of 2 x 6"
    assert describe(model, EXTRACTOR)["scores"] == expected
    model = build(tiny_config, ClipClassifier, classifier_pooling="mean", frame_recurrent_layers=0)
    assert "scores" not in describe(model, EXTRACTOR)


def test_events_of_recordings_follow_the_head(tiny_config, tmp_path):
    """As those of other models of events: alone and in a batch, of a directory, by the pipeline and by `tag`."""
    labels = {"id2label": {0: "sound", 1: "silence"}, "label2id": {"sound": 0, "silence": 1}}
    values = {**RECURRENT, "frame_pooling": "sequence", "classifier_pooling": "frame_attention"}
    model = build(tiny_config, **values, **labels, problem_type="multi_label_classification")
    rng = np.random.default_rng(0)
    clips = [0.1 * rng.standard_normal(length).astype(np.float32) for length in (31_600, 30_300, 3_000)]
    inference = WindowedInference(model, EXTRACTOR)
    with torch.no_grad():
        alone = [model(extract([clip])["input_values"]).logits[0].sigmoid().numpy() for clip in clips]
    for expected, blocks in zip(alone, inference.stream_frames_many(clips, RATE)):
        np.testing.assert_allclose(next(blocks).values, expected, atol=1e-5)

    model.save_pretrained(tmp_path / "model")
    EXTRACTOR.save_pretrained(tmp_path / "model")
    soundfile.write(tmp_path / "noise.wav", clips[0], RATE, subtype="FLOAT")
    threshold = float(np.median(alone[0][:, 0]))
    above = np.flatnonzero(np.diff(np.concatenate([[0], alone[0][:, 0] >= threshold, [0]]).astype(int))) * 0.04
    arguments = ["tag", tmp_path / "noise.wav", "-m", tmp_path / "model", "--json", "--event-threshold", threshold]
    result = CliRunner().invoke(app, list(map(str, arguments)))
    assert result.exit_code == 0, result.output
    tagger = pipeline("audio-tagging", model=str(tmp_path / "model"), device="cpu")
    by_pipeline = tagger(tmp_path / "noise.wav", return_events=True, event_threshold=threshold)
    for events in (json.loads(result.stdout)["events"], by_pipeline["events"]):
        times = [time for event in events if event["label"] == "sound" for time in (event["start"], event["end"])]
        assert times == pytest.approx(above)


def test_recurrent_layers_may_be_added_to_a_model_of_events(tiny_config, tmp_path):
    build(tiny_config, frame_pooling="sequence").save_pretrained(tmp_path)
    values = {**RECURRENT, "classifier_pooling": "frame_attention"}
    model = load_model(tmp_path, FrameClassifier, new_weights=NEW_WEIGHTS, **values)
    bound = RECURRENT["frame_recurrent_size"] ** -0.5
    assert all(0 < parameter.abs().max() <= bound for parameter in model.recurrent.parameters())
    assert model.classifier.in_features == 12
    with pytest.raises(BeatsError, match="weights of a BeatsForAudioFrameClassification are missing"):
        load_model(tmp_path, FrameClassifier, **values)
