# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
import json
from functools import partial

import invoke
import numpy as np
import pytest
import soundfile

from transformers_beats.inference import loading
from transformers_beats.inference.pipeline import BeatsAudioTaggingPipeline
from transformers_beats.inference.windowed import WindowedInference
from transformers_beats.inference.windows import RowMean


run = partial(invoke.run, "compare", "--device", "cpu")


@pytest.mark.parametrize("name", ["beats_tiny", "beats_tiny_finetuned"])
def test_the_similarity_is_the_cosine_of_what_embed_gives(models, sounds, name):
    paths = [sounds / "a.flac", sounds / "deep" / "b.ogg"]
    record = json.loads(run("-m", models / name, *paths, "--json").stdout)
    inference = WindowedInference(*loading.load(models / name, "cpu"))
    first, second = (inference.embed(path) for path in paths)
    expected = first @ second / np.linalg.norm(first) / np.linalg.norm(second)
    assert record["similarity"] == pytest.approx(expected, abs=1e-5)
    assert record["files"] == [str(path) for path in paths]
    assert ("labels" in record) == (name != "beats_tiny")


def test_labels_have_the_scores_that_tag_gives_first_those_of_both(models, sounds):
    paths = [sounds / "a.wav", sounds / "deep" / "b.ogg"]
    labels = json.loads(run("-m", models / "beats_tiny_finetuned", *paths, "--json", "--top-k", 2).stdout)["labels"]
    model, extractor = loading.load(models / "beats_tiny_finetuned", "cpu")
    tagger = BeatsAudioTaggingPipeline(model=model, feature_extractor=extractor, device="cpu", top_k=6)
    known = [{item["label"]: item["score"] for item in tagger(str(path))} for path in paths]
    best = {label for scores in known for label in sorted(scores, key=scores.__getitem__)[-2:]}
    assert {item["label"] for item in labels} == best
    for item in labels:
        assert item["scores"] == pytest.approx([scores[item["label"]] for scores in known], abs=1e-6)
    lower = [min(item["scores"]) for item in labels]
    assert lower == sorted(lower, reverse=True)


def test_a_recording_is_like_itself(models, sounds):
    output = run("-m", models / "beats_tiny", "-", sounds / "a.wav", input=(sounds / "a.wav").read_bytes()).stdout
    assert "stdin" in output
    assert output.endswith("Similarity of embeddings (cosine): 1.000\n")


def test_standard_input_is_one_recording(models):
    assert "name a file for the other one" in run("-m", models / "beats_tiny", "-", "-", exit_code=2).stderr


def test_a_recording_that_cannot_be_used_is_an_error(models, sounds):
    (line,) = run("-m", models / "beats_tiny", sounds / "a.wav", sounds / "notes.txt", exit_code=1).stderr.splitlines()
    assert "notes.txt: holds text and no audio" in line


def test_an_embedding_without_a_direction_has_no_similarity(models, sounds, monkeypatch):
    monkeypatch.setattr(RowMean, "value", lambda self: np.zeros(3))
    (line,) = run("-m", models / "beats_tiny", sounds / "a.wav", sounds / "a.wav", exit_code=1).stderr.splitlines()
    assert "An embedding is zero" in line


def test_a_recording_that_is_compared_with_itself_has_its_warnings_once(models, tmp_path):
    soundfile.write(tmp_path / "quiet.wav", np.zeros(16000), 16000)
    stderr = run("-m", models / "beats_tiny", tmp_path / "quiet.wav", tmp_path / "quiet.wav").stderr
    assert stderr.count("is digital silence") == 1
