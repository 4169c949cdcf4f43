# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Interfaces of benchmarks, by their own rules; by their own checkers where these are installed."""

import importlib.util
import sys
import types
from pathlib import Path

import datasets
import numpy as np
import pytest
import soundfile
import torch
from huggingface_hub import ModelCard, ModelCardData, constants
from torch.nn.functional import pad

from transformers_beats import (
    BeatsConfig,
    BeatsFeatureExtractor,
    BeatsForAudioClassification,
    BeatsModel,
    BeatsRandomProjectionTokenizer,
    BeatsRandomProjectionTokenizerConfig,
    WindowedInference,
)
from transformers_beats.audio.recordings import AudioError
from transformers_beats.cli.app import app
from transformers_beats.export.waveform_model import WaveformModel
from transformers_beats.inference.loading import load
from transformers_beats.inference.results import Columns
from transformers_beats.integrations import columns, hear, mteb, xares
from transformers_beats.integrations.columns import ColumnEmbedder
from transformers_beats.integrations.mteb import BeatsMtebModel
from transformers_beats.integrations.xares import BeatsXaresEncoder, BeatsXaresLlmEncoder
from transformers_beats.utils.errors import UsageError


TINY = {"embed_dim": 16, "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 48}
TINY |= {"num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 2}
# Three windows of 10 s.
LONG = 16000 * 25


def noise(*shape):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(sum(shape))) * 2 - 1


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A classifier: each interface takes the encoder out of it."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("checkpoint") / "beats-tiny"
    BeatsForAudioClassification(BeatsConfig(**TINY)).save_pretrained(path)
    BeatsFeatureExtractor(fbank_mean=12.5).save_pretrained(path)
    return str(path)


def hidden_states(checkpoint, clip):
    """Of one clip alone, `(num_columns, 8, 32)`."""
    model, extractor = BeatsModel.from_pretrained(checkpoint).eval(), BeatsFeatureExtractor.from_pretrained(checkpoint)
    inputs = extractor(clip, sampling_rate=16000, return_tensors="pt")
    with torch.no_grad():
        return model.to_grid(model(**inputs).last_hidden_state)[0]


class TestColumns:
    @pytest.mark.parametrize(("pooling", "size"), [("mean", 32), ("concat", 256)])
    def test_each_clip_has_the_embeddings_that_it_has_alone(self, checkpoint, pooling, size):
        embedder = ColumnEmbedder(checkpoint, pooling=pooling, batch_size=2)
        clips = [noise(30000).requires_grad_(), noise(100), noise(48123).numpy()]
        found = embedder.columns(clips)
        assert embedder.column_size == size
        for clip, embeddings in zip(clips, found):
            grid = hidden_states(checkpoint, clip)
            expected = grid.mean(dim=1) if pooling == "mean" else grid.flatten(1)
            torch.testing.assert_close(embeddings, expected, atol=1e-5, rtol=0.0)
        torch.testing.assert_close(
            embedder.means(clips)[1], hidden_states(checkpoint, clips[1]).mean(dim=(0, 1)), atol=1e-5, rtol=0.0
        )

    def test_a_long_clip_goes_through_windows(self, checkpoint):
        embedder, clip = ColumnEmbedder(checkpoint), noise(LONG)
        inference = WindowedInference(embedder.model, embedder.feature_extractor)
        columns = embedder.columns([noise(16000), clip])[1]
        assert columns.shape == (156, 32)
        np.testing.assert_allclose(embedder.means([clip])[0], inference.embed(clip, 16000), atol=1e-5)
        # The first window is what the model gives for its samples alone.
        first = hidden_states(checkpoint, clip[: 400 + 160 * (62 * 16 - 1)])
        torch.testing.assert_close(columns[:62], first.mean(dim=1), atol=1e-5, rtol=0.0)

    def test_columns_of_the_released_sizes_have_768_and_6144_values(self, tmp_path):
        # The sizes of embeddings are the released ones, all others small.
        config = BeatsConfig(num_hidden_layers=1, intermediate_size=16, num_attention_heads=1, embed_dim=8)
        BeatsModel(config).save_pretrained(tmp_path)
        BeatsFeatureExtractor().save_pretrained(tmp_path)
        for pooling, size in {"mean": 768, "concat": 6144}.items():
            embedder = ColumnEmbedder(str(tmp_path), pooling=pooling)
            assert embedder.columns([noise(160000)])[0].shape == (62, size)
            assert embedder.column_size == size

    def test_an_impulse_changes_a_column_around_its_center(self, checkpoint):
        embedder = ColumnEmbedder(checkpoint)
        samples = range(12000, 16400, 40)
        clips = torch.zeros(len(samples), 20000)
        clips[torch.arange(len(samples)), list(samples)] = 1.0
        features = embedder.feature_extractor(clips, sampling_rate=16000, return_tensors="pt")["input_values"]
        # Frames of column 5, against those of silence.
        changes = (features[:, 80:96] != embedder.feature_extractor.padding_value).flatten(1).any(dim=1)
        times = [sample / 16 for sample, is_changed in zip(samples, changes) if is_changed]
        assert (min(times) + max(times)) / 2 == pytest.approx(embedder.centers(6)[5].item(), abs=3.0)

    def test_a_checkpoint_without_encoder_is_refused(self, tmp_path):
        BeatsRandomProjectionTokenizer(BeatsRandomProjectionTokenizerConfig()).save_pretrained(tmp_path)
        BeatsFeatureExtractor().save_pretrained(tmp_path)
        with pytest.raises(ValueError, match="weights of a BeatsModel are missing"):
            ColumnEmbedder(str(tmp_path))

    @pytest.mark.parametrize("layer", [0, -1, "0"])
    def test_all_interfaces_have_a_choice_of_layer(self, checkpoint, layer):
        clip = noise(16000)
        model, extractor = load(checkpoint, "cpu")
        inference = WindowedInference(model, extractor)
        expected = torch.from_numpy(inference.embed(clip, 16000, int(layer), "column"))
        hear_model = hear.load_model(checkpoint, layer=layer)
        mteb_model = BeatsMtebModel(checkpoint, device="cpu", layer=layer)
        for found in (
            ColumnEmbedder(checkpoint, layer=layer).columns([clip])[0],
            hear.get_timestamp_embeddings(clip[None, : 400 + 160 * 95], hear_model)[0][0],
            BeatsXaresEncoder(checkpoint, layer=layer)(clip)[0],
            BeatsXaresLlmEncoder(checkpoint, layer=layer)(clip)[0][0],
        ):
            torch.testing.assert_close(found[:5], expected[:5], atol=1e-5, rtol=0)
        item = {"audio": [{"array": clip.numpy(), "sampling_rate": 16000}]}
        means = torch.from_numpy(mteb_model.encode([item], show_progress_bar=False))
        torch.testing.assert_close(means, hear.get_scene_embeddings(clip[None], hear_model))
        torch.testing.assert_close(means[0], expected.mean(dim=0), atol=1e-5, rtol=0)
        assert ("layer-0" in mteb_model.embedder.fingerprint()) == (layer != -1)

    @pytest.mark.parametrize("layer", [1.9, 1.0, True, np.True_, None, "all", "-2:", "0,1", "1.9", [1, 0], [1], {}])
    def test_anything_but_one_layer_is_refused(self, checkpoint, layer):
        for make in (ColumnEmbedder, hear.load_model, BeatsMtebModel, BeatsXaresEncoder, BeatsXaresLlmEncoder):
            with pytest.raises(UsageError, match="`layer` must be the number of one layer, got "):
                make(checkpoint, layer=layer)

    @pytest.mark.parametrize("layer", [2, -3, "7", np.int64(2)])
    def test_a_layer_that_is_not_there_is_refused(self, checkpoint, layer):
        with pytest.raises(UsageError, match=rf"There is no layer {layer}: "):
            hear.load_model(checkpoint, layer=layer)

    @pytest.mark.parametrize("method", ["columns", "means"])
    def test_a_clip_that_cannot_be_used_is_named(self, checkpoint, method):
        embed = getattr(ColumnEmbedder(checkpoint, batch_size=1), method)
        for wrong in (np.zeros(0, np.float32), np.full(3000, np.nan, np.float32)):
            with pytest.raises(AudioError, match=r"^clips\[2\]: "):
                embed([noise(3000), noise(200), wrong, noise(3000)])

    def test_no_clips_have_no_embeddings(self, checkpoint):
        embedder = ColumnEmbedder(checkpoint, pooling="concat")
        assert embedder.columns([]) == []
        assert embedder.means([]).shape == (0, 32)
        assert embedder.means([]).dtype == torch.float32
        assert list(embedder.inference.classify_many([])) == list(embedder.inference.embed_many(iter([]))) == []

    def test_what_changes_results_is_in_their_name(self, checkpoint):
        names = [ColumnEmbedder(checkpoint, window_seconds=seconds).fingerprint() for seconds in (10, 10.0, 5.0)]
        assert names == [names[0], names[0], f"{names[0]}-window-5.0"]
        with pytest.raises(UsageError, match="leave out `pooling`"):
            BeatsMtebModel(checkpoint, device="cpu", pooling="concat")

    def test_other_poolings_are_refused(self, checkpoint):
        with pytest.raises(ValueError, match="'mean' or 'concat', got 'max'"):
            ColumnEmbedder(checkpoint, pooling="max")


# All ways to the embedding of a clip `(num_samples,)`, with the model in a directory.
def embed_in_a_padded_batch(directory, clip):
    model, extractor = BeatsModel.from_pretrained(directory), BeatsFeatureExtractor.from_pretrained(directory)
    inputs = extractor([clip, noise(len(clip) + 20_000)], sampling_rate=16000, return_tensors="pt")
    with torch.no_grad():
        return model(**inputs).pooler_output[0]


def embed_in_windows(directory, clip):
    model = BeatsForAudioClassification.from_pretrained(directory)
    extractor = BeatsFeatureExtractor.from_pretrained(directory)
    return WindowedInference(model, extractor).embed(clip, 16000)


def embed_many(directory, clip):
    inference = WindowedInference(*load(directory))
    return list(inference.embed_many([noise(len(clip) + 2000), clip], 16000))[1]


def mean_of_columns(directory, clip):
    blocks = WindowedInference(*load(directory)).stream_embeddings(clip, 16000)
    return Columns.join(blocks).values.mean(axis=(0, 1))


def embed_a_file(directory, clip, *options):
    path = Path(directory).parent / f"{len(clip)}.wav"
    soundfile.write(path, clip.numpy(), 16000, subtype="FLOAT")
    output = Path(directory).parent / f"{len(clip)}{len(options)}"
    with pytest.raises(SystemExit) as end:
        app(["embed", "--model", directory, str(path), "--output", str(output), *options])
    assert end.value.code == 0
    (result,) = output.glob("*.npy")
    return np.load(result)


def embed_columns_of_a_file(directory, clip):
    return embed_a_file(directory, clip, "--grain", "column").mean(axis=0)


def embed_for_mteb(directory, clip):
    batch = {"audio": [{"array": clip.numpy(), "sampling_rate": 16000}]}
    return BeatsMtebModel(directory, device="cpu").encode([batch], show_progress_bar=False)[0]


def embed_for_hear(directory, clip):
    return hear.get_scene_embeddings(clip.unsqueeze(0), hear.load_model(directory))[0]


def embed_for_xares(directory, clip):
    return BeatsXaresEncoder(directory)(clip).mean(dim=(0, 1))


def embed_by_exported_program(directory, clip):
    model = BeatsModel.from_pretrained(directory)
    waveforms = pad(clip, (0, 30_000)).unsqueeze(0)
    module = WaveformModel(model, BeatsFeatureExtractor.from_pretrained(directory))
    with torch.no_grad():
        return module(waveforms, torch.tensor([len(clip)]))[module.output_names.index("pooler_output")][0]


WAYS = [embed_in_a_padded_batch, embed_in_windows, embed_many, mean_of_columns, embed_a_file, embed_columns_of_a_file]
WAYS += [embed_for_mteb, embed_for_hear, embed_for_xares, embed_by_exported_program]


@pytest.mark.parametrize("num_samples", [1600, 30_000, 43_840])
@pytest.mark.parametrize("way", WAYS)
def test_a_clip_has_one_embedding_in_all_interfaces(way, num_samples, checkpoint):
    model, extractor = BeatsModel.from_pretrained(checkpoint), BeatsFeatureExtractor.from_pretrained(checkpoint)
    clip = noise(num_samples)
    with torch.no_grad():
        expected = model(**extractor(clip, sampling_rate=16000, return_tensors="pt")).pooler_output[0]
    torch.testing.assert_close(torch.as_tensor(way(checkpoint, clip)), expected, atol=1e-5, rtol=0.0)


class TestHear:
    """The rules of https://hearbenchmark.com/hear-api.html and of its validator."""

    @pytest.fixture
    def model(self, checkpoint):
        return hear.load_model(checkpoint)

    def test_the_model_says_its_rate_and_sizes(self, model):
        assert isinstance(model, torch.nn.Module)
        assert model.sample_rate == 16000
        assert type(model.scene_embedding_size) is type(model.timestamp_embedding_size) is int

    @pytest.mark.parametrize("num_samples", [17120, 31680, 64000, LONG])
    def test_timestamp_embeddings_follow_the_rules(self, model, num_samples):
        embeddings, timestamps = hear.get_timestamp_embeddings(noise(2, num_samples), model)
        assert embeddings.dtype == timestamps.dtype == torch.float32
        assert embeddings.shape == (*timestamps.shape, model.timestamp_embedding_size)
        assert len(embeddings) == 2
        assert torch.equal(timestamps[0], timestamps[1])
        assert timestamps[0, :2].tolist() == [87.5, 247.5]
        assert (timestamps.diff() == 160.0).all()
        # The last column, of 175 ms, begins more than 15 ms before the end, which the one before does not reach.
        milliseconds = num_samples / 16
        assert milliseconds - 87.5 <= timestamps[0, -1] < milliseconds + 72.5

    @pytest.mark.parametrize("num_samples", [1, 239, 240, 241, 2800, 2801])
    def test_the_last_timestamp_is_near_the_end_of_a_short_clip(self, model, num_samples):
        last = hear.get_timestamp_embeddings(noise(1, num_samples), model)[1][0, -1].item()
        milliseconds = num_samples / 16
        assert milliseconds - 87.5 <= last < milliseconds + (87.5 if milliseconds < 15 else 72.6)

    @pytest.mark.parametrize("num_samples", [2800, 2801, 5359, 16000, 161439])
    def test_the_last_samples_of_a_clip_count(self, model, num_samples):
        clip = noise(1, num_samples)
        changed = clip.clone()
        # A few milliseconds: the windows of the filter bank are near zero at their ends.
        changed[:, -80:] = 0.0
        embeddings, of_changed = (hear.get_timestamp_embeddings(audio, model)[0] for audio in (clip, changed))
        assert (of_changed - embeddings).abs().max() > 1e-4

    @pytest.mark.parametrize("num_samples", [0, 100, 16000, 17120, LONG])
    def test_an_empty_batch_has_the_shapes_of_others(self, model, num_samples):
        audio = noise(1, max(num_samples, 1))
        scenes = hear.get_scene_embeddings(audio[:0, :num_samples], model)
        assert (scenes.dtype, scenes.shape) == (torch.float32, (0, 32))
        found = hear.get_timestamp_embeddings(audio[:0, :num_samples], model)
        expected = hear.get_timestamp_embeddings(audio, model)
        for values, others in zip(found, expected):
            assert (values.dtype, values.shape) == (torch.float32, (0, *others.shape[1:]))

    def test_an_empty_clip_is_refused(self, model):
        with pytest.raises(ValueError, match="holds no audio"):
            hear.get_scene_embeddings(noise(2, 0), model)

    @pytest.mark.parametrize("num_samples", [1600, 43840])
    def test_a_scene_embedding_is_what_the_model_pools(self, checkpoint, model, num_samples):
        audio = noise(4, num_samples)
        scenes = hear.get_scene_embeddings(audio, model)
        assert scenes.dtype == torch.float32
        assert scenes.shape == (4, model.scene_embedding_size)
        torch.testing.assert_close(scenes[0], hidden_states(checkpoint, audio[0]).mean(dim=(0, 1)), atol=1e-5, rtol=0)

    def test_anything_but_a_batch_is_refused(self, model):
        with pytest.raises(ValueError, match=r"\(n_sounds, n_samples\), got \(1600,\)"):
            hear.get_scene_embeddings(noise(1600), model)

    def test_the_validator_is_content(self, checkpoint, monkeypatch):
        # It imports TensorFlow, only to ask whether a model is one of its.
        monkeypatch.setitem(sys.modules, "tensorflow", types.SimpleNamespace(Module=type("Module", (), {})))
        validate = pytest.importorskip("hearvalidator.validate")
        validate.ValidateModel(hear.__name__, checkpoint, device="cpu")()


class TestXares:
    def test_the_encoder_has_what_xares_reads(self, checkpoint):
        encoder = BeatsXaresEncoder(checkpoint, pooling="concat")
        assert type(encoder).__name__.endswith("Encoder")
        assert (encoder.sampling_rate, encoder.output_dim, encoder.hop_size_in_ms) == (16000, 256, 160.0)
        with torch.inference_mode():
            assert encoder(noise(2, 50000)).shape == (2, 19, 256)
            assert encoder(noise(LONG)).shape == (1, 156, 256)
            for num_samples in (100, 50000, LONG):
                audio = noise(1, num_samples)
                assert encoder(audio[:0]).shape == (0, *encoder(audio).shape[1:])

    def test_the_checker_is_content(self, checkpoint):
        checker = pytest.importorskip("xares.audio_encoder_checker")
        assert checker.check_audio_encoder(BeatsXaresEncoder(checkpoint))


class TestXaresLlm:
    @pytest.mark.parametrize("pooling", ["mean", "concat"])
    def test_a_clip_in_a_batch_is_what_it_is_alone(self, checkpoint, pooling):
        encoder = BeatsXaresLlmEncoder(checkpoint, pooling=pooling)
        lengths = [50000, 2000, 16000, LONG]
        audio, mask = torch.zeros(4, LONG), torch.zeros(4, LONG)
        for row, length in enumerate(lengths):
            # What is beyond the mask must not count.
            audio[row] = noise(LONG) + 3 * row
            audio[row, :length] = noise(length)
            mask[row, :length] = 1
        features, valid = encoder(audio, mask)
        assert features.shape == (4, 156, encoder.output_dim)
        assert (valid.dtype, valid.tolist()) == (torch.int64, [[1] * n + [0] * (156 - n) for n in (19, 1, 6, 156)])
        for row, length in enumerate(lengths):
            alone, of_alone = encoder(noise(length))
            assert of_alone.all()
            torch.testing.assert_close(features[row, valid[row] == 1], alone[0], atol=1e-5, rtol=0)
            assert not features[row, valid[row] == 0].any()
        # As the input of a projector that is trained.
        torch.nn.Linear(encoder.output_dim, 4)(features).sum().backward()

    @pytest.mark.parametrize("num_samples", [100, 50000, LONG])
    def test_an_empty_batch_has_the_shapes_of_others(self, checkpoint, num_samples):
        encoder, audio = BeatsXaresLlmEncoder(checkpoint), noise(1, num_samples)
        expected = encoder(audio)
        for mask in (None, torch.ones(0, num_samples)):
            for found, others in zip(encoder(audio[:0], mask), expected):
                assert (found.dtype, found.shape) == (others.dtype, (0, *others.shape[1:]))

    def test_an_empty_batch_without_samples_has_no_columns(self, checkpoint):
        encoder = BeatsXaresLlmEncoder(checkpoint)
        for mask in (None, torch.ones(0, 0)):
            for found, others in zip(encoder(torch.zeros(0, 0), mask), encoder(torch.zeros(0, 100))):
                assert (found.dtype, found.shape) == (others.dtype, others.shape)

    def test_a_clip_without_samples_is_named(self, checkpoint):
        mask = torch.ones(3, 3000)
        mask[1] = 0
        with pytest.raises(AudioError, match=r"^clips\[1\]: .*holds no audio"):
            BeatsXaresLlmEncoder(checkpoint)(noise(3, 3000), mask)

    @pytest.mark.parametrize("mask", [torch.ones(2, 3000), torch.tensor([[0.0, 1.0] * 1500])])
    def test_a_mask_that_does_not_fit_is_refused(self, checkpoint, mask):
        with pytest.raises(ValueError, match=r"must have the shape of `audio`, \(1, 3000\), and ones before zeros"):
            BeatsXaresLlmEncoder(checkpoint)(noise(3000), mask)

    def test_the_checker_is_content(self, checkpoint):
        checker = pytest.importorskip("xares_llm.audio_encoder_checker")
        checker.check_audio_encoder(BeatsXaresLlmEncoder(checkpoint))


class TestMteb:
    @pytest.fixture
    def model(self, checkpoint):
        return BeatsMtebModel(checkpoint, device="cpu")

    @staticmethod
    def items(*clips, rate=16000):
        return {"audio": [{"array": clip, "sampling_rate": rate} for clip in clips]}

    def test_each_clip_has_the_embedding_that_it_has_alone(self, model):
        clips = [noise(30000).numpy(), noise(9000).numpy(), noise(LONG).numpy()]
        embeddings = model.encode([self.items(*clips[:2]), self.items(clips[2])], show_progress_bar=False)
        assert embeddings.shape == (3, 32)
        assert embeddings.dtype == np.float32
        for clip, embedding in zip(clips, embeddings):
            alone = model.encode([self.items(clip)], show_progress_bar=False)[0]
            np.testing.assert_allclose(embedding, alone, atol=1e-5)

    def test_no_clips_have_no_embeddings(self, model):
        clip = noise(9000).numpy()
        for batches, count in (([], 0), ([self.items()], 0), ([self.items(clip), self.items()], 1)):
            embeddings = model.encode(batches, show_progress_bar=False)
            assert (embeddings.dtype, embeddings.shape) == (np.float32, (count, 32))

    def test_channels_are_averaged_and_other_rates_resampled(self, model):
        tone = np.sin(2 * np.pi * 440 * np.arange(44100) / 44100).astype(np.float32)
        at_16k = np.sin(2 * np.pi * 440 * np.arange(16000) / 16000).astype(np.float32)
        stereo = np.stack([tone * 1.5, tone * 0.5])
        found = model.encode([self.items(stereo, rate=44100), self.items(at_16k)], show_progress_bar=False)
        assert model.similarity_pairwise(found[:1], found[1:]).item() > 0.999

    def test_similarities_are_cosines(self, model):
        first, second = noise(3, 32), noise(4, 32).numpy()
        found = model.similarity(first, second)
        expected = torch.nn.functional.cosine_similarity(first[:, None], torch.from_numpy(second)[None], dim=-1)
        torch.testing.assert_close(found, expected)
        torch.testing.assert_close(model.similarity_pairwise(first, second[:3]), expected.diagonal())

    def test_a_batch_without_audio_is_refused(self, model):
        with pytest.raises(ValueError, match="has only text"):
            model.encode([{"text": ["a dog"]}], show_progress_bar=False)

    @staticmethod
    def save_checkpoint(directory, seed, **settings):
        """A checkpoint whose directory has the name that all have."""
        torch.manual_seed(seed)
        path = directory / "checkpoint"
        BeatsModel(BeatsConfig(**TINY)).save_pretrained(path)
        BeatsFeatureExtractor(**settings).save_pretrained(path)
        return BeatsMtebModel(str(path), device="cpu")

    def test_checkpoints_of_the_same_name_have_revisions_of_their_own(self, tmp_path, monkeypatch):
        class ModelMeta(types.SimpleNamespace):
            model_fields = dict.fromkeys(["name", "revision", "loader"])
            fetch_release_date = staticmethod(lambda name: None)

            @classmethod
            def create_empty(cls):
                return types.SimpleNamespace(model_dump=dict)

        package = types.ModuleType("mteb.models")
        package.ModelMeta = ModelMeta
        for name, fake in {"mteb": types.ModuleType("mteb"), "mteb.models": package}.items():
            monkeypatch.setitem(sys.modules, name, fake)
        monkeypatch.setattr(ModelCard, "load", lambda place: types.SimpleNamespace(data=ModelCardData()))

        first = self.save_checkpoint(tmp_path / "a", 0).mteb_model_meta
        others = {
            "other weights": self.save_checkpoint(tmp_path / "b", 1),
            "other settings": self.save_checkpoint(tmp_path / "c", 0, fbank_mean=12.5),
            "trained in place": self.save_checkpoint(tmp_path / "a", 2),
        }
        metas = [first, *(model.mteb_model_meta for model in others.values())]
        assert {meta.name for meta in metas} == {"local/checkpoint"}
        assert len({meta.revision for meta in metas}) == 4
        # The same in another place is the same.
        assert self.save_checkpoint(tmp_path / "d", 0).mteb_model_meta.revision == first.revision

        commit = "c0ffee" * 6 + "beef"
        cache = tmp_path / "models--someone--beats"
        for file, text in {"refs/main": commit, f"snapshots/{commit}/config.json": "{}"}.items():
            (cache / file).parent.mkdir(parents=True)
            (cache / file).write_text(text)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
        others["other weights"].model_name = "someone/beats"
        del others["other weights"].mteb_model_meta
        meta = others["other weights"].mteb_model_meta
        assert (meta.name, meta.revision, meta.loader) == ("someone/beats", commit, BeatsMtebModel)

    def test_mteb_accepts_it(self, model, checkpoint):
        models = pytest.importorskip("mteb.models")
        from mteb.models.model_meta import ScoringFunction

        assert isinstance(model, models.EncoderProtocol)
        meta = model.mteb_model_meta
        assert (meta.name, meta.embed_dim, meta.modalities) == ("local/beats-tiny", 32, ["audio"])
        assert meta.similarity_fn_name is ScoringFunction.COSINE

    def test_sizes_are_those_of_the_weights(self, model, checkpoint):
        pytest.importorskip("mteb")
        meta, weights = model.mteb_model_meta, BeatsModel.from_pretrained(checkpoint).state_dict().values()
        assert meta.n_parameters == sum(tensor.numel() for tensor in weights)
        assert meta.n_active_parameters == meta.n_parameters
        assert meta.memory_usage_mb == pytest.approx(sum(tensor.nbytes for tensor in weights) / 2**20, abs=0.05)
        # As it would be written into MTEB's list of models.
        assert f"n_parameters={meta.n_parameters}" in meta.to_python()

    @pytest.mark.parametrize(
        ("card", "license", "adapted_from", "is_audioset"),
        [
            ("license: mit\ndatasets: agkphysics/AudioSet\nbase_model: [someone/beats]", "mit", "someone/beats", True),
            ("license: mine\ndatasets: [agkphysics/AudioSet, ashraq/esc50]", None, None, False),
            ("license: [", None, None, False),
        ],
    )
    def test_a_model_card_tells_licence_and_training(self, tmp_path, card, license, adapted_from, is_audioset):
        pytest.importorskip("mteb")
        model = self.save_checkpoint(tmp_path, 0)
        (tmp_path / "checkpoint" / "README.md").write_text(f"---\n{card}\n---\n# A model\n")
        meta = model.mteb_model_meta
        assert (meta.license, meta.adapted_from) == (license, adapted_from)
        # Results on AudioSet's clips are not those of a model that has never heard them.
        assert meta.is_zero_shot_on(["AudioSet"]) is (False if is_audioset else None)

    def test_a_released_model_has_all_that_mteb_asks_for(self, model, monkeypatch):
        benchmark = pytest.importorskip("mteb")
        model.model_name = "beats-iter3"
        meta = model.mteb_model_meta
        assert (meta.name, meta.license, meta.release_date) == ("local/beats-iter3", "mit", "2022-12-18")
        missing = {name for name, value in meta.model_dump().items() if value is None}
        # Microsoft has not published the code of the pre-training.
        assert missing <= {
            *("loader", "n_active_parameters_override", "public_training_code", "adapted_from", "superseded_by"),
            *("contacts", "experiment_kwargs", "output_dtypes", "extra_requirements_groups"),
        }
        names = {task.metadata.name for task in benchmark.get_tasks(modalities=["audio"], exclude_superseded=False)}
        assert meta.training_datasets == {name for name in names if name.startswith("AudioSet")}

    def test_fields_of_ones_own_are_checked(self, checkpoint):
        pytest.importorskip("mteb")

        def meta_of(**fields):
            return BeatsMtebModel(checkpoint, device="cpu", meta=fields).mteb_model_meta

        meta = meta_of(release_date="2026-11-30", training_datasets={"ESC50"})
        assert (meta.release_date, meta.is_zero_shot_on(["ESC50"])) == ("2026-11-30", False)
        with pytest.raises(UsageError, match="'licence', which is no field of ModelMeta; did you mean license"):
            meta_of(licence="mit")
        with pytest.raises(UsageError, match="release_date of a ModelMeta cannot be 'tomorrow'"):
            meta_of(release_date="tomorrow")

    @pytest.mark.slow
    def test_mtebs_mock_run_passes(self, model):
        benchmark = pytest.importorskip("mteb", minversion="2.26")
        pytest.importorskip("torchcodec", exc_type=ImportError)
        found = {name: status for name, status in benchmark.mock_run(model).items() if status is not None}
        assert len(found) >= 7
        assert {name for name, status in found.items() if not hasattr(status, "scores")} == set()

    @pytest.fixture
    def tones(self):
        """A task of MTEB: low tones against high ones, of different lengths."""
        pytest.importorskip("mteb")
        from mteb.abstasks import AbsTaskClassification
        from mteb.abstasks.task_metadata import TaskMetadata

        names = ("reference", "date", "domains", "task_subtypes", "license", "annotations_creators", "dialect")
        names += ("sample_creation", "bibtex_citation")

        class Tones(AbsTaskClassification):
            metadata = TaskMetadata(
                **dict.fromkeys(names),
                name="Tones",
                description="Low and high tones.",
                dataset={"path": "local/tones", "revision": "0"},
                type="AudioClassification",
                category="a2t",
                modalities=["audio"],
                eval_splits=["test"],
                eval_langs=["eng-Latn"],
                main_score="accuracy",
            )
            input_column_name = "audio"
            samples_per_label, n_experiments = 4, 1

            def load_data(self, **kwargs):
                rows = [
                    {"audio": {"array": array, "sampling_rate": 16000}, "label": label}
                    for label, frequency in enumerate((300, 3000))
                    for array in (
                        np.sin(2 * np.pi * frequency / 16000 * np.arange(n)) for n in range(8000, 20000, 1500)
                    )
                ]
                self.dataset = datasets.DatasetDict(dict.fromkeys(("train", "test"), datasets.Dataset.from_list(rows)))
                self.data_loaded = True

        return Tones()

    @pytest.mark.slow
    def test_mteb_evaluates_it(self, model, tones):
        import mteb as benchmark

        result = benchmark.evaluate(model, tasks=[tones], cache=None)
        assert result.model_name == "local/beats-tiny"
        assert result.task_results[0].scores["test"][0]["accuracy"] > 0.9

    @pytest.mark.slow
    def test_mteb_computes_each_checkpoint_once(self, tones, tmp_path, monkeypatch):
        import mteb as benchmark
        from mteb.cache import ResultCache

        embedded, encode = [], BeatsMtebModel.encode

        def note(self, *args, **kwargs):
            embedded.append(self)
            return encode(self, *args, **kwargs)

        monkeypatch.setattr(BeatsMtebModel, "encode", note)
        cache = ResultCache(cache_path=tmp_path / "cache")
        models = [self.save_checkpoint(tmp_path / name, seed) for name, seed in (("a", 0), ("b", 1), ("c", 0))]
        computed = []
        for model in models:
            benchmark.evaluate(model, tasks=[tones], cache=cache)
            computed.append(model in embedded)
        # The third is the first in another place.
        assert computed == [True, True, False]


@pytest.mark.parametrize("module", [columns, hear, mteb, xares])
def test_no_benchmark_is_needed_to_import_an_interface(module, monkeypatch):
    for name in ("mteb", "mteb.models", "xares", "hearvalidator", "heareval", "tensorflow", "torchaudio"):
        monkeypatch.setitem(sys.modules, name, None)
    spec = importlib.util.find_spec(module.__name__)
    spec.loader.exec_module(importlib.util.module_from_spec(spec))
