# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Embeddings of any layer and grain, against the model's own `hidden_states`."""

import copy

import numpy as np
import pytest
import torch

from transformers_beats import BeatsConfig, BeatsFeatureExtractor, BeatsForAudioClassification, BeatsModel
from transformers_beats.inference.layers import choose_layers, is_single
from transformers_beats.inference.windowed import WindowedInference
from transformers_beats.utils.errors import UsageError


RATE = 16000
NUM_LAYERS = 3
EXTRACTOR = BeatsFeatureExtractor()


def make_model(**values) -> BeatsModel:
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "embed_dim": 16, "intermediate_size": 48, "num_attention_heads": 4}
    model = BeatsModel(BeatsConfig(**sizes, num_hidden_layers=NUM_LAYERS, **values))
    # Positions, gates and norms with effects of their own.
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    return model.eval()


def noise(seconds: float, seed: int = 0) -> np.ndarray:
    return (0.1 * np.random.default_rng(seed).standard_normal(round(seconds * RATE))).astype(np.float32)


def hidden_states(model: BeatsModel, clip: np.ndarray) -> np.ndarray:
    """All hidden states of a clip, `(num_layers + 1, num_columns, num_freq_patches, hidden_size)`."""
    inputs = EXTRACTOR(clip, sampling_rate=RATE, return_tensors="pt")
    with torch.no_grad():
        states = model(**inputs, output_hidden_states=True).hidden_states
    return np.stack([model.to_grid(state)[0].numpy() for state in states])


@pytest.mark.parametrize(
    "values",
    [{}, {"layer_norm_first": True, "deep_norm": False}, {"relative_position_embedding": False, "gru_rel_pos": False}],
    ids=["as released", "layer norm first", "no relative positions"],
)
@pytest.mark.parametrize("layers", [None, -1, 0, 1, [2, 0], "all", "-2:", slice(0, 4, 2), "1,3"], ids=str)
def test_every_layer_and_grain_is_that_of_the_model(values, layers):
    model, clip = make_model(**values), noise(2.0)
    inference = WindowedInference(model, EXTRACTOR)
    chosen = choose_layers(-1 if layers is None else layers, NUM_LAYERS)
    states = hidden_states(model, clip)[chosen]
    num_columns = states.shape[1]
    expected = {
        ("clip", "mean"): states.mean(axis=(1, 2)),
        ("clip", "concat"): states.mean(axis=1).reshape(len(chosen), -1),
        ("band", "mean"): states.mean(axis=1),
        ("column", "mean"): states.mean(axis=2),
        ("column", "concat"): states.reshape(len(chosen), num_columns, -1),
        ("patch", "mean"): states.reshape(len(chosen), -1, states.shape[-1]),
    }
    for (grain, pooling), value in expected.items():
        found = inference.embed(clip, RATE, layers=layers, grain=grain, pooling=pooling)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, value[0] if is_single(layers) else value, atol=1e-5)
    blocks = list(inference.stream_embeddings(clip, RATE, layers=layers))
    found = np.concatenate([block.values for block in blocks])
    wanted = states[0] if is_single(layers) else np.moveaxis(states, 0, 1)
    np.testing.assert_allclose(found, wanted, atol=1e-5)


def test_windows_of_several_recordings_are_joined_for_each_layer():
    model = make_model()
    inference = WindowedInference(model, EXTRACTOR, window_seconds=1.0, hop_seconds=0.5, batch_size=3)
    clips = [noise(2.7, 1), noise(0.4, 2), noise(5.0, 3)]
    layers = [inference.embed_many(clips, RATE, layers=layer, grain="patch") for layer in range(NUM_LAYERS + 1)]
    together = inference.embed_many(clips, RATE, layers="all", grain="patch")
    for several, *single in zip(together, *layers):
        np.testing.assert_allclose(several, np.stack(single), atol=1e-5)
    # By hand: each column is the mean of the windows that cover it, weighted by the distance from their edges. The
    # last window ends with the last column.
    total, weight = np.zeros((16, 8, 32)), np.zeros(16)
    for first in (0, 3, 6, 9, 10):
        states = hidden_states(model, clips[0][first * 2560 : first * 2560 + 15600])[2]
        for column in range(6):
            distance = min(column + 1, 6 - column)
            total[first + column] += distance * states[column]
            weight[first + column] += distance
    found = inference.embed(clips[0], RATE, layers=2, grain="column")
    np.testing.assert_allclose(found, (total / weight[:, None, None]).mean(axis=1), atol=1e-5)


@pytest.mark.parametrize(("layers", "computed"), [(0, 0), (1, 1), ([2, 1], 2), (-1, 3), ("0,3", 3)], ids=str)
def test_layers_above_the_last_one_are_not_computed(layers, computed):
    model = make_model()
    calls = []
    for number, layer in enumerate(model.encoder.layers, start=1):
        layer.register_forward_hook(lambda *_, number=number: calls.append(number))
    before = copy.deepcopy(model.state_dict())
    inference = WindowedInference(model, EXTRACTOR)
    inference.embed(noise(1.0), RATE, layers=layers)
    assert calls == list(range(1, computed + 1))
    # The model is as it was.
    assert len(model.encoder.layers) == NUM_LAYERS
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_model_in_training_mode_gives_what_it_gives_in_evaluation():
    model = make_model(hidden_dropout=0.5, layerdrop=0.9)
    expected = WindowedInference(model, EXTRACTOR).embed(noise(1.0), RATE, layers="all")
    model.train()
    np.testing.assert_array_equal(WindowedInference(model, EXTRACTOR).embed(noise(1.0), RATE, layers="all"), expected)


def test_the_encoder_of_a_classifier_is_read():
    torch.manual_seed(0)
    classifier = BeatsForAudioClassification(make_model().config).eval()
    expected = hidden_states(classifier.beats, noise(1.0)).mean(axis=(1, 2))
    found = WindowedInference(classifier, EXTRACTOR).embed(noise(1.0), RATE, layers="all")
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        (4, r"There is no layer 4: this model has 0 \(the input of the first layer\) to 3, or -4 to -1"),
        (-5, "There is no layer -5"),
        ("eight", "Layers are 'eight': write a number"),
        ("", "Layers are '': write a number"),
        ("1,", "Layers are '1,': write a number"),
        (True, "Layers are True: write a number"),
        (1.0, "Layers are 1.0: write a number"),
        ([1.5], r"Layers are \[1.5\]: write a number"),
        ([], "names none"),
        ("7:", "names none"),
        ("1:2:0", "write a number"),
        ([1, -3], "names one twice"),
    ],
)
def test_layers_that_cannot_be_read_are_refused(layers, message):
    with pytest.raises(UsageError, match=message):
        WindowedInference(make_model(), EXTRACTOR).embed(noise(1.0), RATE, layers=layers)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"grain": "frame"}, "`grain` is 'frame': choose clip, band, column or patch"),
        ({"pooling": "max"}, "`pooling` is 'max': choose mean or concat"),
        ({"grain": "patch", "pooling": "concat"}, "with `grain` 'patch', leave it out"),
        ({"grain": "band", "pooling": "concat"}, "with `grain` 'band', leave it out"),
    ],
)
def test_grains_that_are_not_known_are_refused(options, message):
    with pytest.raises(UsageError, match=message):
        WindowedInference(make_model(), EXTRACTOR).embed(noise(1.0), RATE, **options)


@pytest.mark.parametrize("layers", [np.int64(1), 1, "1", " 1 "])
def test_one_layer_has_no_axis(layers):
    assert WindowedInference(make_model(), EXTRACTOR).embed(noise(1.0), RATE, layers=layers).shape == (32,)
