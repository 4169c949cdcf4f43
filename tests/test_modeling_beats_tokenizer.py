# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
import copy

import pytest
import torch
from golden import NUM_CLIPS
from transformers import AutoModel

from transformers_beats import (
    BeatsModel,
    BeatsRandomProjectionTokenizer,
    BeatsRandomProjectionTokenizerConfig,
    BeatsTokenizerConfig,
    BeatsTokenizerModel,
)


pytestmark = pytest.mark.usefixtures("compiler")


@pytest.fixture
def tokenizer(golden_model):
    return golden_model("tokenizer_tiny")


@torch.no_grad()
def test_codes_equal_the_reference(tokenizer, golden_outputs, extract):
    expected = golden_outputs("tokenizer_tiny")
    for index in range(NUM_CLIPS):
        codes = tokenizer(**extract(index)).audio_codes
        assert codes.shape[2] == 8
        assert torch.equal(codes.flatten(1), expected[f"single{index}.labels"])


@torch.no_grad()
def test_codes_are_the_same_alone_and_in_a_batch(tokenizer, extract):
    batch = tokenizer(**extract()).audio_codes
    for index in range(NUM_CLIPS):
        alone = tokenizer(**extract(index)).audio_codes[0]
        assert torch.equal(batch[index, : len(alone)], alone)
        assert batch[index, len(alone) :].eq(-100).all()


@torch.no_grad()
def test_quantized_states_are_the_nearest_codes(tokenizer, extract):
    outputs = tokenizer(**extract())
    codebook = tokenizer.quantizer.codebook
    valid = outputs.patch_attention_mask
    units = torch.nn.functional.normalize(outputs.projected_states, dim=-1)[valid]
    nearest = torch.cdist(units.double(), codebook.double()).argmin(dim=1)
    assert torch.equal(outputs.audio_codes.flatten(1)[valid], nearest)
    assert torch.equal(outputs.quantized_states[valid], codebook[nearest])
    assert outputs.quantized_states[~valid].abs().max() == 0


@torch.no_grad()
def test_usage_counts_valid_patches_only(tokenizer, extract):
    outputs = tokenizer(**extract(), output_code_usage=True)
    valid_codes = outputs.audio_codes[outputs.audio_codes != -100]
    assert torch.equal(outputs.code_counts, torch.bincount(valid_codes, minlength=64))
    frequencies = outputs.code_counts[outputs.code_counts > 0] / len(valid_codes)
    expected = torch.exp(-(frequencies * frequencies.log()).sum())
    torch.testing.assert_close(outputs.codevector_perplexity, expected)
    assert tokenizer(**extract()).code_counts is None


@pytest.mark.parametrize("mode", ["eval", "train"])
def test_tokenizing_changes_nothing(mode, tokenizer, extract):
    getattr(tokenizer, mode)()
    before = copy.deepcopy(tokenizer.state_dict())
    tokenizer(**extract(), output_code_usage=True)
    assert all(torch.equal(value, before[name]) for name, value in tokenizer.state_dict().items())


def test_an_uninitialised_codebook_is_refused(extract):
    config = BeatsTokenizerConfig(
        hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32, embed_dim=16
    )
    with pytest.raises(ValueError, match="codebook is not initialised"):
        BeatsTokenizerModel(config)(**extract(2))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@torch.no_grad()
def test_the_codebook_stays_float32(dtype, tokenizer, extract, tmp_path):
    codebook = tokenizer.quantizer.codebook.clone()
    expected = tokenizer(**extract(0)).audio_codes
    tokenizer.save_pretrained(tmp_path)
    for model in (tokenizer.to(dtype), BeatsTokenizerModel.from_pretrained(tmp_path, dtype=dtype).eval()):
        assert model.projection[0].weight.dtype == dtype
        assert model.quantizer.codebook.dtype == torch.float32
        assert torch.equal(model.quantizer.codebook, codebook)
        agreement = (model(**extract(0)).audio_codes == expected).float().mean()
        assert agreement > 0.9


def test_a_model_made_in_half_precision_has_a_float32_codebook(tokenizer):
    quantizer = BeatsTokenizerModel._from_config(tokenizer.config, dtype=torch.float16).quantizer
    assert {buffer.dtype for buffer in quantizer.buffers()} == {torch.float32}


def test_saving_keeps_the_codebook(tokenizer, tmp_path):
    tokenizer.save_pretrained(tmp_path)
    reloaded = BeatsTokenizerModel.from_pretrained(tmp_path)
    state, expected = reloaded.state_dict(), tokenizer.state_dict()
    assert state.keys() == expected.keys()
    assert all(torch.equal(state[name], expected[name]) for name in expected)


@torch.no_grad()
def test_a_model_takes_the_encoder_of_a_tokenizer(tokenizer, extract, tmp_path):
    tokenizer.save_pretrained(tmp_path)
    model = BeatsModel.from_pretrained(tmp_path).eval()
    expected = tokenizer.beats(**extract(0)).last_hidden_state
    assert torch.equal(model(**extract(0)).last_hidden_state, expected)


@torch.no_grad()
def test_the_tokenizer_is_one_graph(tokenizer, extract):
    compiled = torch.compile(tokenizer, fullgraph=True, backend="eager")
    inputs = dict(extract(0))
    assert torch.equal(compiled(**inputs).audio_codes, tokenizer(**inputs).audio_codes)
    assert compiled(**inputs, output_code_usage=True).code_counts.sum() == 96


def test_tuples_are_returned_on_request(tokenizer, extract):
    tokenizer.config.return_dict = False
    assert torch.equal(tokenizer(**extract(0))[0], tokenizer(**extract(0), return_dict=True).audio_codes)


# Random projection


def random_projection(**kwargs) -> BeatsRandomProjectionTokenizer:
    return BeatsRandomProjectionTokenizer(BeatsRandomProjectionTokenizerConfig(**kwargs))


def test_random_projection_is_the_equation_of_the_paper(extract):
    tokenizer = random_projection(normalize=False, codebook_size=50, codebook_dim=12)
    fbank = extract(0)["input_values"]
    codes = tokenizer(fbank).audio_codes
    assert codes.shape == (1, 12, 8)
    projection, codebook = tokenizer.quantizer.projection.double(), tokenizer.quantizer.codebook.double()
    for column in range(12):
        for band in range(8):
            patch = fbank[0, 16 * column : 16 * (column + 1), 16 * band : 16 * (band + 1)].double().flatten()
            distances = (codebook - projection @ patch).pow(2).sum(dim=1)
            assert codes[0, column, band] == distances.argmin()


def test_random_projection_ignores_level_and_contrast_when_normalised(extract):
    tokenizer = random_projection(normalize=True)
    fbank = extract(0)["input_values"]
    agreement = (tokenizer(fbank * 0.5 + 3).audio_codes == tokenizer(fbank).audio_codes).float().mean()
    assert agreement > 0.99
    torch.testing.assert_close(tokenizer.quantizer.codebook.norm(dim=1), torch.ones(1024))


@pytest.mark.parametrize("value", [0.0, -2.5856714, 0.7, 1e4])
def test_silence_has_code_0_in_any_order_of_sums(value):
    # The codes have length 1 up to rounding, which depends on the order in which their squares are added.
    quantizer = random_projection().quantizer
    patches = torch.full((3, 256), value)
    for order in (torch.arange(256), torch.arange(256).flip(0), torch.randperm(256)):
        reordered = copy.deepcopy(quantizer)
        reordered.projection.copy_(quantizer.projection[order])
        reordered.codebook.copy_(quantizer.codebook[:, order])
        projected, codes, vectors = reordered(patches)
        assert projected.abs().max() == 0
        assert codes.tolist() == [0, 0, 0]
        assert torch.equal(vectors, reordered.codebook[:1].expand(3, -1))


@torch.no_grad()
def test_codes_of_a_normalised_random_projection_are_the_nearest(extract):
    tokenizer = random_projection(codebook_size=50, codebook_dim=12)
    outputs = tokenizer(extract(0)["input_values"])
    units = torch.nn.functional.normalize(outputs.projected_states[0].double(), dim=-1)
    distances = torch.cdist(units, tokenizer.quantizer.codebook.double())
    assert torch.equal(outputs.audio_codes.flatten(), distances.argmin(dim=1))


def test_random_projection_follows_its_seed_alone(extract, tmp_path):
    torch.manual_seed(1)
    first = random_projection(seed=3)
    torch.manual_seed(2)
    second = random_projection(seed=3)
    assert torch.equal(first.quantizer.projection, second.quantizer.projection)
    assert not torch.equal(first.quantizer.codebook, random_projection(seed=4).quantizer.codebook)
    first.save_pretrained(tmp_path)
    reloaded = AutoModel.from_pretrained(tmp_path, dtype=torch.bfloat16)
    assert isinstance(reloaded, BeatsRandomProjectionTokenizer)
    made = AutoModel.from_config(first.config, dtype=torch.float16)
    for tokenizer in (second, reloaded, made, second.to(torch.float16)):
        assert tokenizer.quantizer.codebook.dtype == torch.float32
        assert torch.equal(tokenizer(**extract(0)).audio_codes, first(**extract(0)).audio_codes)


def test_random_projection_knows_padding(extract):
    tokenizer = random_projection()
    outputs = tokenizer(**extract(), output_code_usage=True)
    for index in range(NUM_CLIPS):
        alone = tokenizer(**extract(index)).audio_codes[0]
        assert torch.equal(outputs.audio_codes[index, : len(alone)], alone)
        assert outputs.audio_codes[index, len(alone) :].eq(-100).all()
    assert outputs.code_counts.sum() == (outputs.audio_codes != -100).sum()
    assert outputs.quantized_states[~outputs.patch_attention_mask].abs().max() == 0


@torch.no_grad()
@pytest.mark.parametrize("normalize", [True, False])
def test_several_codebooks_are_as_many_random_projections(normalize, extract, tmp_path):
    tokenizer = random_projection(num_codebooks=3, normalize=normalize, codebook_size=50, codebook_dim=12)
    outputs = tokenizer(**extract(), output_code_usage=True)
    assert outputs.audio_codes.shape == (3, 12, 8, 3)
    assert outputs.code_counts.shape == (3, 50)
    perplexities = []
    for number in range(3):
        single = random_projection(normalize=normalize, codebook_size=50, codebook_dim=12)
        rows, codes = slice(12 * number, 12 * (number + 1)), slice(50 * number, 50 * (number + 1))
        single.quantizer.projection.copy_(tokenizer.quantizer.projection[rows])
        single.quantizer.codebook.copy_(tokenizer.quantizer.codebook[codes])
        expected = single(**extract(), output_code_usage=True)
        assert torch.equal(outputs.audio_codes[..., number], expected.audio_codes)
        assert torch.equal(outputs.quantized_states[..., rows], expected.quantized_states)
        assert torch.equal(outputs.code_counts[number], expected.code_counts)
        perplexities.append(expected.codevector_perplexity)
    torch.testing.assert_close(outputs.codevector_perplexity, torch.stack(perplexities).mean())
    # They are not one and the same.
    assert not torch.equal(outputs.audio_codes[..., 0], outputs.audio_codes[..., 1])
    tokenizer.save_pretrained(tmp_path)
    assert torch.equal(AutoModel.from_pretrained(tmp_path)(**extract()).audio_codes, outputs.audio_codes)


def test_one_codebook_is_drawn_as_ever():
    # The first numbers of seed 0, as they were before there could be several codebooks.
    quantizer = random_projection(codebook_size=4, codebook_dim=2).quantizer
    generator = torch.Generator().manual_seed(0)
    bound = (6 / (2 + 256)) ** 0.5
    projection = (torch.rand((2, 256), generator=generator) * 2 - 1) * bound
    assert torch.equal(quantizer.projection, projection)
    codebook = torch.nn.functional.normalize(torch.randn((4, 2), generator=generator), dim=-1)
    assert torch.equal(quantizer.codebook, codebook)


def test_random_projection_has_nothing_to_train():
    assert list(random_projection().parameters()) == []


def test_random_projection_refuses_waveforms():
    with pytest.raises(ValueError, match="BeatsFeatureExtractor"):
        random_projection()(torch.zeros(1, 16000))
