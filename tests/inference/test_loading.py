# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
import pytest
from huggingface_hub import constants

from transformers_beats import (
    BeatsConfig,
    BeatsFeatureExtractor,
    BeatsForAudioClassification,
    BeatsForPreTraining,
    BeatsModel,
)
from transformers_beats.inference.loading import describe, find_model, load, load_extractor, load_model
from transformers_beats.utils.errors import BeatsError, UsageError


TINY = {"embed_dim": 16, "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 48}
TINY |= {"num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 2}


@pytest.mark.parametrize(("saved", "loaded"), [(BeatsForPreTraining, BeatsModel), (BeatsModel, BeatsModel)])
def test_a_pretraining_checkpoint_is_loaded_as_its_encoder(saved, loaded, tmp_path):
    saved(BeatsConfig(**TINY)).save_pretrained(tmp_path)
    model = load_model(tmp_path)
    assert type(model) is loaded
    assert not model.training


def test_missing_weights_are_an_error(tmp_path):
    BeatsModel(BeatsConfig(**TINY)).save_pretrained(tmp_path)
    with pytest.raises(BeatsError, match=r"2 weights of a BeatsForAudioClassification are missing \(classifier"):
        load_model(tmp_path, BeatsForAudioClassification)


def test_a_file_in_place_of_a_model_names_the_command_that_converts_it(tmp_path):
    (tmp_path / "beats.pt").write_bytes(b"")
    with pytest.raises(UsageError, match=r"is a file, .*transformers-beats convert .*beats\.pt DIRECTORY"):
        find_model(str(tmp_path / "beats.pt"))


def test_a_name_that_is_nowhere_is_named_with_the_reason(tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    for function in (load, load_model, load_extractor):
        with pytest.raises(
            BeatsError, match=r"^no/where: no such directory here, and from the Hub it cannot be loaded: "
        ):
            function("no/where", cache_dir=tmp_path)


@pytest.mark.parametrize("name", ["beats-iter4", "beats-iter3-plus"])
def test_a_name_like_a_released_one_is_not_looked_for_on_the_hub(name):
    with pytest.raises(UsageError, match=rf"^{name}: no such directory, and no released .* did you mean beats-iter3"):
        load(name)


def test_the_extractor_of_another_model_is_refused(tmp_path):
    (tmp_path / "preprocessor_config.json").write_text('{"feature_extractor_type": "WhisperFeatureExtractor"}')
    with pytest.raises(UsageError, match="is a WhisperFeatureExtractor, not that of a BEATs model"):
        load_extractor(tmp_path)


@pytest.mark.parametrize(
    ("settings", "kind"),
    [
        ({"num_labels": 1}, "1, regression: "),
        ({"num_labels": 3, "problem_type": "regression"}, "3, regression: "),
        ({"num_labels": 3}, "3, single_label_classification: "),
        ({"num_labels": 3, "problem_type": "multi_label_classification"}, "3, multi_label_classification: "),
    ],
)
def test_the_description_names_the_kind_of_problem(settings, kind):
    model = BeatsForAudioClassification(BeatsConfig(**TINY, **settings))
    assert describe(model, BeatsFeatureExtractor())["labels"].startswith(kind)
