# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""What users do, through public interfaces only."""

import os
import shutil

import numpy as np
import pytest
import soundfile
import torch
import transformers
from datasets import ClassLabel, Dataset
from golden import FIXTURES, ROOT
from packaging import version
from transformers import (
    AutoFeatureExtractor,
    AutoModelForAudioClassification,
    DataCollatorWithPadding,
    Trainer,
    TrainingArguments,
    pipeline,
)
from transformers.audio_utils import load_audio

from transformers_beats.conversion.convert import convert


ESC10 = ROOT.parent / "shared" / "data" / "esc10" / "audio"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A converted fine-tuned checkpoint with six AudioSet classes."""
    output_dir = tmp_path_factory.mktemp("checkpoint") / "beats"
    convert(FIXTURES / "beats_tiny_finetuned.pt", output_dir)
    return output_dir


@pytest.fixture(scope="module")
def beeps(tmp_path_factory):
    """A 44.1 kHz Ogg Vorbis file."""
    path = tmp_path_factory.mktemp("audio") / "clip.ogg"
    time = np.arange(2 * 44100) / 44100
    soundfile.write(path, 0.3 * np.sin(2 * np.pi * 440 * time) * (time % 0.5 < 0.2), 44100)
    return path


@pytest.fixture(scope="module", params=["synthesised", "esc10"])
def clip(request, beeps):
    """That file, or a real recording where ESC-10 is at hand."""
    if request.param == "synthesised":
        return beeps
    if not ESC10.is_dir():
        pytest.skip("ESC-10 is not part of the package")
    return sorted(ESC10.glob("dog_*.ogg"))[0]


def test_pipeline_on_an_array(checkpoint, clip):
    import transformers_beats  # noqa: F401

    classifier = pipeline("audio-classification", model=str(checkpoint))
    audio = load_audio(str(clip), sampling_rate=16000)
    # Older pipelines take the softmax also of multi-label models, unless told.
    sigmoid = (
        {} if version.parse(transformers.__version__) >= version.parse("5.23") else {"function_to_apply": "sigmoid"}
    )
    labels = classifier(audio, top_k=3, **sigmoid)
    assert len(labels) == 3
    assert {"Dog", "Rain", "Thunder", "Baby cry, infant cry", "Printer", "Speech"} >= {x["label"] for x in labels}
    features = classifier.feature_extractor(audio, sampling_rate=16000, return_tensors="pt")
    with torch.no_grad():
        probabilities = classifier.model(**features).logits.sigmoid()[0]
    assert labels[0]["score"] == pytest.approx(probabilities.max().item())


def test_pipeline_batches_clips_of_different_lengths(checkpoint):
    classifier = pipeline("audio-classification", model=str(checkpoint))
    generator = np.random.default_rng(0)
    clips = [generator.standard_normal(length).astype(np.float32) * 0.1 for length in (30000, 9000, 1000, 48000)]
    together = classifier([{"raw": clip, "sampling_rate": 16000} for clip in clips], batch_size=4, top_k=None)
    for labels, clip in zip(together, clips):
        alone = {x["label"]: x["score"] for x in classifier(clip, top_k=None)}
        assert {x["label"]: x["score"] for x in labels} == pytest.approx(alone, abs=1e-5)


@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="transformers reads files for pipelines with ffmpeg")
def test_pipeline_on_a_file(checkpoint, clip):
    classifier = pipeline("audio-classification", model=str(checkpoint))
    from_file = {x["label"]: x["score"] for x in classifier(str(clip), top_k=None)}
    from_array = {x["label"]: x["score"] for x in classifier(load_audio(str(clip), sampling_rate=16000), top_k=None)}
    # ffmpeg and soxr resample differently.
    assert from_file == pytest.approx(from_array, abs=0.02)


@pytest.fixture(scope="module")
def tones():
    """Two classes of tones of different lengths."""
    generator = np.random.default_rng(0)

    def tone(label):
        time = np.arange(generator.integers(8000, 16000)) / 16000
        return (0.3 * np.sin(2 * np.pi * (300 if label == 0 else 3000) * time)).astype(np.float32)

    labels = [index % 2 for index in range(24)]
    data = {"audio": [tone(label) for label in labels], "label": labels}
    return Dataset.from_dict(data).cast_column("label", ClassLabel(names=["low", "high"]))


def test_trainer_fine_tunes_a_converted_checkpoint(checkpoint, tones, tmp_path):
    extractor = AutoFeatureExtractor.from_pretrained(checkpoint)
    model = AutoModelForAudioClassification.from_pretrained(
        checkpoint,
        num_labels=2,
        id2label={0: "low", 1: "high"},
        label2id={"low": 0, "high": 1},
        problem_type="single_label_classification",
        ignore_mismatched_sizes=True,
    )

    def featurise(batch):
        return extractor(batch["audio"], sampling_rate=16000, padding=False)

    features = tones.map(featurise, batched=True, remove_columns=["audio"])
    arguments = TrainingArguments(
        tmp_path / "run", max_steps=40, per_device_train_batch_size=8, learning_rate=3e-3, use_cpu=True, seed=0
    )
    trainer = Trainer(
        model,
        arguments,
        train_dataset=features,
        data_collator=DataCollatorWithPadding(extractor),
        processing_class=extractor,
    )
    result = trainer.train()
    assert result.training_loss < 0.6
    trainer.save_model(tmp_path / "tuned")

    classifier = pipeline("audio-classification", model=str(tmp_path / "tuned"))
    hits = [
        classifier(np.asarray(example["audio"], np.float32))[0]["label"] == ["low", "high"][example["label"]]
        for example in tones
    ]
    assert np.mean(hits) > 0.9
    assert (tmp_path / "tuned" / "modeling_beats.py").is_file()
    assert (tmp_path / "tuned" / "feature_extraction_beats.py").is_file()


def test_the_readme_runs(checkpoint, beeps, fresh_python, tmp_path):
    """Each Python block of the README, in one process, with this checkpoint; then the same pipeline with a file."""
    blocks = [part.split("```")[0] for part in (ROOT / "README.md").read_text().split("```python\n")[1:]]
    assert blocks
    code = "\n".join([*blocks, f"print(sorted(tagger({str(beeps)!r}, return_events=True)))"])
    code = code.replace('"demo-output/demo-model"', repr(str(checkpoint)))
    environment = {**os.environ, "MPLBACKEND": "Agg"}
    result = fresh_python(code, cwd=tmp_path, env=environment)
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines()[-1] == "['events', 'labels']"


@pytest.mark.parametrize("with_package", [True, False])
def test_the_model_cards_run(with_package, fresh_python, tmp_path):
    """What the cards of an encoder, a classifier and a tokenizer show, in one process for each way of use."""
    soundfile.write(tmp_path / "clip.wav", 0.1 * np.random.default_rng(0).standard_normal((44100, 2)), 44100)
    code = [f"import os; os.chdir({str(tmp_path)!r})"]
    for name in ("beats_tiny", "beats_tiny_finetuned", "tokenizer_tiny"):
        convert(FIXTURES / f"{name}.pt", tmp_path / name)
        card = (tmp_path / name / "README.md").read_text()
        blocks = [part.split("```")[0] for part in card.split("```python\n")[1:]]
        assert ["trust_remote_code=True" in block for block in blocks] == [False, True]
        assert ["import transformers_beats" in block for block in blocks] == [True, False]
        code.append(blocks[0 if with_package else 1].replace('"."', f'"./{name}"'))
    result = fresh_python("\n".join(code))
    assert result.returncode == 0, result.stderr
    embedding, _, labels, codes = result.stdout.splitlines()
    assert embedding == "torch.Size([1, 64])"
    assert "score" in labels
    assert codes == "torch.Size([1, 6, 8])"
