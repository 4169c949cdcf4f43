# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""The demo: its sounds, a training of a few steps, the command line."""

import sys

import numpy as np
import pytest
import soundfile
import torch
from datasets import ClassLabel, List, Value
from PIL import Image
from safetensors.torch import load_file
from transformers import AutoFeatureExtractor, pipeline

from transformers_beats import BeatsConfig, BeatsFeatureExtractor, BeatsForAudioClassification, BeatsModel
from transformers_beats.audio.synthesis import CLASSES, SAMPLING_RATE, make_dataset, synthesize
from transformers_beats.cli.app import app
from transformers_beats.demo.inference import Clip, classify, load_classifier, synthesised_clips
from transformers_beats.demo.picture import draw_predictions
from transformers_beats.demo.training import train_classifier, write_sounds
from transformers_beats.utils.errors import BeatsError


TINY = {"seed": 0, "clips_per_class": 2, "held_out_per_class": 1, "max_steps": 2}


def run_demo(words: list[str]) -> None:
    """Runs the command line; raises the `SystemExit` of a failure."""
    try:
        app(["demo", *words])
    except SystemExit as error:
        if error.code:
            raise


@pytest.fixture(scope="module")
def demo_model(tmp_path_factory):
    """A demo model after two steps, its accuracy, and nothing else in the directory."""
    model_dir = tmp_path_factory.mktemp("demo") / "demo-model"
    accuracy = train_classifier(model_dir, **TINY)
    return model_dir, accuracy


@pytest.fixture(autouse=True)
def openmp(monkeypatch):
    """`main` sets this for its own process."""
    monkeypatch.setenv("OMP_WAIT_POLICY", "passive")


def tiny_config(**kwargs):
    return BeatsConfig(
        embed_dim=16,
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        num_conv_pos_embeddings=4,
        num_conv_pos_embedding_groups=2,
        **kwargs,
    )


def save_model(directory, model):
    model.save_pretrained(directory)
    BeatsFeatureExtractor().save_pretrained(directory)
    return directory


@pytest.mark.parametrize("label", CLASSES)
class TestSynthesize:
    @pytest.mark.parametrize("duration", [0.5, 1.5, 2.0003, 3.0])
    def test_samples(self, label, duration):
        for seed in range(3):
            waveform = synthesize(label, np.random.default_rng(seed), duration)
            assert waveform.dtype == np.float32
            assert waveform.shape == (round(duration * SAMPLING_RATE),)
            assert np.isfinite(waveform).all()
            # The peak lies between -20 and -1 dB of full scale.
            assert 0.0999 < np.abs(waveform).max() < 0.8913

    def test_same_seed_same_samples(self, label):
        first, second = (synthesize(label, np.random.default_rng(7)) for _ in range(2))
        np.testing.assert_array_equal(first, second)

    def test_clips_differ(self, label):
        generator = np.random.default_rng(0)
        first, second = (synthesize(label, generator, duration=2.0) for _ in range(2))
        assert abs(np.corrcoef(first, second)[0, 1]) < 0.9

    def test_drawn_durations(self, label):
        durations = [synthesize(label, np.random.default_rng(seed)).size / SAMPLING_RATE for seed in range(8)]
        assert 1.5 <= min(durations) < max(durations) <= 3.0

    def test_event_stands_out_from_background(self, label):
        """With this seed there is nothing but background noise for 50 ms or more; the event has 8 times its power."""
        waveform = synthesize(label, np.random.default_rng(3), 3.0)
        power = np.square(waveform.astype(np.float64)).reshape(-1, 800).mean(axis=1)
        assert power.max() > 8 * power.min()


def test_synthesize_errors():
    generator = np.random.default_rng(0)
    with pytest.raises(ValueError, match=r"Unknown class 'violin'.*thunder"):
        synthesize("violin", generator)
    for duration in (0.4, 0.0, -1.0, float("nan")):
        with pytest.raises(ValueError, match=r"at least 0\.5 s"):
            synthesize("bell", generator, duration)


class TestMakeDataset:
    def test_schema(self):
        dataset = make_dataset(2, seed=0)
        assert dataset.features == {
            "audio": List(Value("float32")),
            "sampling_rate": Value("int32"),
            "label": ClassLabel(names=list(CLASSES)),
        }
        assert len(CLASSES) == 10
        assert dataset["label"][:] == list(range(10)) * 2
        assert set(dataset["sampling_rate"]) == {16000}
        lengths = [len(audio) for audio in dataset["audio"]]
        assert len(set(lengths)) > 10

    def test_same_seed_same_samples(self):
        assert make_dataset(1, seed=3).to_dict() == make_dataset(1, seed=3).to_dict()

    def test_seeds_differ(self):
        for first, second in zip(make_dataset(1, seed=0)["audio"], make_dataset(1, seed=1)["audio"]):
            assert first != second

    def test_larger_data_set_begins_with_smaller(self):
        assert make_dataset(2, seed=0).select(range(10)).to_dict() == make_dataset(1, seed=0).to_dict()

    def test_errors(self):
        with pytest.raises(ValueError, match="clips_per_class"):
            make_dataset(0, seed=0)
        with pytest.raises(ValueError, match="seed"):
            make_dataset(1, seed=-1)


class TestTraining:
    def test_saved_model_loads_through_pipeline(self, demo_model):
        model_dir, accuracy = demo_model
        assert accuracy in [correct / 10 for correct in range(11)]
        classifier = pipeline("audio-classification", model=str(model_dir))
        assert type(classifier.model) is BeatsForAudioClassification
        outputs = classifier(synthesize("bell", np.random.default_rng(0)), top_k=10)
        assert {output["label"] for output in outputs} == set(CLASSES)
        assert sum(output["score"] for output in outputs) == pytest.approx(1.0, abs=1e-5)
        assert type(AutoFeatureExtractor.from_pretrained(model_dir)) is BeatsFeatureExtractor
        card = (model_dir / "README.md").read_text()
        assert f'model="{model_dir}"' in card
        assert "fine-tuned from random weights" in card
        assert "on synthesised-sounds." in card

    def test_leaves_nothing_but_the_model(self, demo_model):
        model_dir, _ = demo_model
        assert list(model_dir.parent.iterdir()) == [model_dir]

    def test_is_deterministic_and_replaces_an_older_model(self, demo_model, tmp_path):
        first_dir, first_accuracy = demo_model
        model_dir = tmp_path / "demo-model"
        model_dir.mkdir()
        (model_dir / "old").touch()
        assert train_classifier(model_dir, **TINY) == first_accuracy
        assert not (model_dir / "old").exists()
        assert list(tmp_path.iterdir()) == [model_dir]
        first, second = (load_file(directory / "model.safetensors") for directory in (first_dir, model_dir))
        assert first.keys() == second.keys()
        for name, weight in first.items():
            assert torch.equal(weight, second[name]), name

    def test_interruption_leaves_older_model(self, tmp_path, monkeypatch):
        (tmp_path / "demo-model").mkdir()
        (tmp_path / "demo-model" / "old").touch()

        def interrupt(*args, **kwargs):
            raise KeyboardInterrupt

        monkeypatch.setattr(BeatsFeatureExtractor, "save_pretrained", interrupt)
        with pytest.raises(KeyboardInterrupt):
            train_classifier(tmp_path / "demo-model", **TINY)
        assert [str(path.relative_to(tmp_path)) for path in sorted(tmp_path.rglob("*"))] == [
            "demo-model",
            "demo-model/old",
        ]


class TestWriteSounds:
    def test_a_folder_for_each_class(self, tmp_path):
        write_sounds(tmp_path / "sounds", make_dataset(1, seed=0))
        files = sorted(str(path.relative_to(tmp_path / "sounds")) for path in tmp_path.rglob("*.wav"))
        assert files == [f"{label}/sound-{index:04d}.wav" for index, label in enumerate(CLASSES)]
        assert list(tmp_path.iterdir()) == [tmp_path / "sounds"]

    def test_files_hold_the_samples_of_the_dataset(self, tmp_path):
        dataset = make_dataset(1, seed=0).select([3])
        write_sounds(tmp_path / "sounds", dataset)
        waveform, rate = soundfile.read(tmp_path / "sounds" / CLASSES[3] / "sound-0000.wav", dtype="float32")
        assert rate == SAMPLING_RATE
        np.testing.assert_allclose(waveform, np.array(dataset[0]["audio"], np.float32), atol=2**-15)

    def test_sounds_are_written_whole_or_not_at_all(self, tmp_path, monkeypatch):
        written = []

        def write(path, *args):
            if len(written) == 3:
                raise KeyboardInterrupt
            written.append(path)
            path.touch()

        monkeypatch.setattr(soundfile, "write", write)
        with pytest.raises(KeyboardInterrupt):
            write_sounds(tmp_path / "sounds", make_dataset(1, seed=0))
        assert len(written) == 3
        assert list(tmp_path.iterdir()) == []


class TestLoadClassifier:
    def test_rejects_what_is_no_classifier(self, tmp_path, demo_model):
        encoder = save_model(tmp_path / "encoder", BeatsModel(tiny_config()))
        without_extractor = tmp_path / "half"
        BeatsForAudioClassification(tiny_config()).save_pretrained(without_extractor)
        truncated = save_model(tmp_path / "truncated", BeatsForAudioClassification(tiny_config()))
        weights = truncated / "model.safetensors"
        weights.write_bytes(weights.read_bytes()[:1000])
        expectations = {
            tmp_path / "nowhere": "no such directory",
            encoder: "holds a BeatsModel, but the demo needs a classifier",
            without_extractor: "it has no preprocessor_config.json",
            truncated: "cannot be loaded",
        }
        for directory, message in expectations.items():
            with pytest.raises(BeatsError, match=f"{directory.name}: .*{message}") as error:
                load_classifier(directory)
            assert "\n" not in str(error.value)

    def test_multi_label_scores_are_sigmoids(self, tmp_path):
        model = BeatsForAudioClassification(tiny_config(num_labels=4, problem_type="multi_label_classification"))
        classifier, extractor = load_classifier(save_model(tmp_path, model))
        clip = Clip("bell", synthesize("bell", np.random.default_rng(0)))
        classify(classifier, extractor, [clip], top_k=3)
        with torch.no_grad():
            logits = model.eval()(**extractor(clip.waveform, sampling_rate=16000, return_tensors="pt")).logits[0]
        expected = logits.sigmoid().sort(descending=True).values[:3]
        assert [score for _, score in clip.predictions] == pytest.approx(expected.tolist(), abs=1e-5)


def test_synthesised_clips():
    clips = synthesised_clips(1, known_labels=CLASSES)
    assert [clip.label for clip in clips] == list(CLASSES)
    np.testing.assert_array_equal(clips[4].waveform, np.array(make_dataset(2, 1)[4]["audio"], np.float32))
    foreign = synthesised_clips(1, known_labels=["bell", "Siren"])
    assert [clip.label for clip in foreign if clip.label] == ["bell"]
    assert foreign[8].name == "synthesised siren"


@pytest.mark.parametrize("num_clips", [1, 5, 12])
def test_picture(tmp_path, num_clips):
    predictions = [("Vehicle horn, car horn, honking, toot", 0.7), ("$x", 0.2)]
    generator = np.random.default_rng(0)
    clips = [
        Clip(f"$clip_{index}$.wav", synthesize("bell", generator, 1.0), predictions=predictions)
        for index in range(num_clips)
    ]
    clips[-1].label = "bell"
    draw_predictions(clips, BeatsFeatureExtractor(), tmp_path / "picture.png")
    assert [path.name for path in tmp_path.iterdir()] == ["picture.png"]
    with Image.open(tmp_path / "picture.png") as image:
        image.load()
        assert image.format == "PNG"
        assert len(image.convert("L").getcolors(256)) > 50


class TestCommandLine:
    def test_own_clips_and_model(self, demo_model, tmp_path, capsys):
        model_dir, _ = demo_model
        soundfile.write(tmp_path / "[red]door.wav", synthesize("bell", np.random.default_rng(0), 1.5), 22050)
        soundfile.write(tmp_path / "minute.wav", np.zeros(8000 * 60), 8000)
        clips = [str(tmp_path / "[red]door.wav"), str(tmp_path / "minute.wav")]
        output = tmp_path / "output"
        run_demo(["--model", str(model_dir), "--output", str(output), *clips])
        printed = capsys.readouterr().out
        assert "[red]door.wav" in printed
        assert "minute.wav" in printed
        assert [path.name for path in output.iterdir()] == ["predictions.png"]

    def test_own_clips_reuse_the_demo_model(self, demo_model, tmp_path, capsys):
        model_dir, _ = demo_model
        soundfile.write(tmp_path / "clip.wav", synthesize("dog", np.random.default_rng(0)), 16000)
        before = (model_dir / "model.safetensors").stat().st_mtime_ns
        run_demo(["--output", str(model_dir.parent), str(tmp_path / "clip.wav")])
        assert "clip.wav" in capsys.readouterr().out
        assert (model_dir / "model.safetensors").stat().st_mtime_ns == before
        (model_dir.parent / "predictions.png").unlink()

    def test_own_model_hears_synthesised_sounds(self, tmp_path, capsys):
        config = tiny_config(id2label={0: "bell", 1: "speech"}, label2id={"bell": 0, "speech": 1})
        model_dir = save_model(tmp_path / "model", BeatsForAudioClassification(config))
        run_demo(["--model", str(model_dir), "--output", str(tmp_path / "output")])
        printed = capsys.readouterr().out
        foreign = [line for line in printed.splitlines() if "synthesised " in line]
        assert len(foreign) == 9
        assert not any("✗" in line for line in foreign)
        assert "True class" in printed
        assert "Accuracy" not in printed

    def test_without_matplotlib_nothing_is_trained(self, tmp_path, capsys, monkeypatch):
        monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
        with pytest.raises(SystemExit, match="1"):
            run_demo(["--output", str(tmp_path / "output")])
        assert capsys.readouterr().err == "error: Pictures need matplotlib: pip install 'transformers-beats[demo]'\n"
        assert not (tmp_path / "output").exists()

    def test_mistakes_give_one_line(self, tmp_path, capsys):
        (tmp_path / "corrupt.wav").write_bytes(b"RIFF\x00\x00")
        (tmp_path / "file").touch()
        mistakes = (
            (1, [str(tmp_path / "missing.wav")]),
            (1, [str(tmp_path / "corrupt.wav"), "--output", str(tmp_path / "unused")]),
            (2, ["--model", str(tmp_path / "nowhere"), "--output", str(tmp_path / "output")]),
            (1, ["--output", str(tmp_path / "file")]),
            (2, ["--seed", "-1"]),
        )
        for status, argv in mistakes:
            with pytest.raises(SystemExit) as exit_info:
                run_demo(argv)
            assert exit_info.value.code == status, argv
            captured = capsys.readouterr()
            assert captured.err.startswith("error: ")
            assert captured.err.count("\n") == 1
            assert captured.out == ""
        assert not (tmp_path / "unused").exists()

    def test_interruption_is_one_line(self, tmp_path, monkeypatch, capsys):
        def interrupt(*args, **kwargs):
            raise KeyboardInterrupt

        monkeypatch.setattr("transformers_beats.demo.training.train_classifier", interrupt)
        with pytest.raises(SystemExit) as exit_info:
            run_demo(["--output", str(tmp_path)])
        assert exit_info.value.code == 130
        assert capsys.readouterr().err == "interrupted\n"

    def test_usage(self, capsys):
        run_demo(["--help"])
        printed = capsys.readouterr().out
        assert "Usage: transformers-beats demo [OPTIONS] [CLIP]" in printed
        assert "transformers-beats demo door.wav" in printed
