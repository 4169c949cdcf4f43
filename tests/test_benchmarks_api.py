# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Interfaces of benchmarks, by their own rules; by their own checkers where these are installed."""

import importlib.util
import sys
import types

import datasets
import numpy as np
import pytest
import torch

from transformers_beats import (
    BeatsConfig,
    BeatsFeatureExtractor,
    BeatsForAudioClassification,
    BeatsModel,
    BeatsRandomProjectionTokenizer,
    BeatsRandomProjectionTokenizerConfig,
    WindowedInference,
)
from transformers_beats.benchmarks_api import columns, hear, mteb, xares
from transformers_beats.benchmarks_api.columns import ColumnEmbedder
from transformers_beats.benchmarks_api.mteb import BeatsMtebModel
from transformers_beats.benchmarks_api.xares import BeatsXaresEncoder


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

    def test_released_sizes_are_768_and_6144(self, checkpoint):
        config = BeatsConfig(num_hidden_layers=1)
        sizes = []
        for pooling in ("mean", "concat"):
            embedder = ColumnEmbedder(checkpoint, pooling=pooling)
            embedder.model.config = config
            sizes.append(embedder.column_size)
        assert sizes == [768, 6144]

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
        with pytest.raises(ValueError, match="holds no BEATs encoder"):
            ColumnEmbedder(str(tmp_path))

    def test_other_poolings_are_refused(self, checkpoint):
        with pytest.raises(ValueError, match="'mean' or 'concat', got 'max'"):
            ColumnEmbedder(checkpoint, pooling="max")


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
        # All of the audio is covered: no timestamp beyond its end, and the last at most two steps before.
        milliseconds = num_samples / 16
        assert milliseconds - 320 <= timestamps[0, -1] <= milliseconds

    @pytest.mark.parametrize("num_samples", [1600, 43840, LONG])
    def test_a_scene_embedding_is_the_mean_of_the_timestamp_embeddings(self, model, num_samples):
        audio = noise(4, num_samples)
        scenes = hear.get_scene_embeddings(audio, model)
        assert scenes.dtype == torch.float32
        assert scenes.shape == (4, model.scene_embedding_size)
        embeddings, _ = hear.get_timestamp_embeddings(audio, model)
        torch.testing.assert_close(scenes, embeddings.mean(dim=1), atol=1e-5, rtol=0.0)

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

    def test_the_checker_is_content(self, checkpoint):
        checker = pytest.importorskip("xares.audio_encoder_checker")
        assert checker.check_audio_encoder(BeatsXaresEncoder(checkpoint))


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

    def test_mteb_accepts_it(self, model, checkpoint):
        models = pytest.importorskip("mteb.models")
        assert isinstance(model, models.EncoderProtocol)
        meta = model.mteb_model_meta
        assert (meta.name, meta.embed_dim, meta.modalities) == ("local/beats-tiny", 32, ["audio"])

    @pytest.mark.slow
    def test_mteb_evaluates_it(self, model):
        benchmark = pytest.importorskip("mteb")
        from mteb.abstasks import AbsTaskClassification
        from mteb.abstasks.task_metadata import TaskMetadata

        names = ("reference", "date", "domains", "task_subtypes", "license", "annotations_creators", "dialect")
        names += ("sample_creation", "bibtex_citation")

        class Tones(AbsTaskClassification):
            """Low tones against high ones, of different lengths."""

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

        result = benchmark.evaluate(model, tasks=[Tones()], cache=None)
        assert result.model_name == "local/beats-tiny"
        assert result.task_results[0].scores["test"][0]["accuracy"] > 0.9


@pytest.mark.parametrize("module", [columns, hear, mteb, xares])
def test_no_benchmark_is_needed_to_import_an_interface(module, monkeypatch):
    for name in ("mteb", "mteb.models", "xares", "hearvalidator", "heareval", "tensorflow", "torchaudio"):
        monkeypatch.setitem(sys.modules, name, None)
    spec = importlib.util.find_spec(module.__name__)
    spec.loader.exec_module(importlib.util.module_from_spec(spec))
