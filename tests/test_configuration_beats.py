# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
import json
import math

import numpy as np
import pytest
import torch
from huggingface_hub.dataclasses import strict
from huggingface_hub.errors import StrictDataclassError
from transformers import AutoModel

from transformers_beats import (
    BeatsConfig,
    BeatsForAudioClassification,
    BeatsForAudioFrameClassification,
    BeatsForPreTraining,
    BeatsModel,
    BeatsRandomProjectionTokenizer,
    BeatsRandomProjectionTokenizerConfig,
    BeatsTokenizerConfig,
)


def test_defaults_are_the_released_models():
    config = BeatsConfig()
    assert (config.patch_size, config.embed_dim, config.num_freq_patches) == (16, 512, 8)
    assert (config.hidden_size, config.num_hidden_layers, config.num_attention_heads) == (768, 12, 12)
    assert (config.intermediate_size, config.hidden_act, config.deep_norm) == (3072, "gelu", True)
    assert (config.num_conv_pos_embeddings, config.num_conv_pos_embedding_groups) == (128, 16)
    assert (config.gru_rel_pos, config.num_buckets, config.max_bucket_distance) == (True, 320, 800)
    assert config.layerdrop == 0.05


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_attention_heads": 5}, "`num_attention_heads` (5) must divide `hidden_size` (768)"),
        ({"num_conv_pos_embedding_groups": 7}, "must divide `hidden_size`"),
        ({"patch_size": 24}, "`patch_size` (24) must divide `num_mel_bins` (128)"),
        ({"layer_norm_first": True}, "`layer_norm_first=False`"),
        ({"relative_position_embedding": False}, "`relative_position_embedding=True`"),
        ({"num_buckets": 321}, "must be even"),
        ({"max_bucket_distance": 80}, "must exceed `num_buckets // 4` (80)"),
        ({"hidden_dropout": 1.5}, "`hidden_dropout` is a probability in [0, 1), got 1.5"),
        ({"num_hidden_layers": 0}, "`num_hidden_layers` must be at least 1"),
        ({"hidden_size": "768"}, "hidden_size"),
        ({"frame_pooling": "max"}, "frame_pooling"),
        ({"classifier_pooling": "max"}, "classifier_pooling"),
        ({"num_prototypes": 0}, "`num_prototypes` must be at least 1"),
        ({"layer_weights": "attention"}, "set `use_weighted_layer_sum=True`"),
        ({"hidden_act": "swiglu"}, "`hidden_act` 'swiglu' is neither"),
        ({"patch_size": 8, "legacy_padding_mask": True}, "undefined for 128 mel bins and patches of 8"),
        ({"layer_norm_eps": -1.0}, "`layer_norm_eps` must be positive and finite, got -1.0"),
        ({"layer_norm_eps": 0}, "`layer_norm_eps` must be positive and finite, got 0"),
        ({"layer_norm_eps": math.inf}, "`layer_norm_eps` must be positive and finite, got inf"),
        ({"initializer_range": -1}, "`initializer_range` must be finite and not negative, got -1"),
        ({"initializer_range": math.nan}, "`initializer_range` must be finite and not negative, got nan"),
        ({"event_settings": {"dog": 0.5}}, "got 0.5 for 'dog'"),
        ({"event_settings": {0: {"threshold": 0.5}}}, "got {'threshold': 0.5} for 0"),
        ({"event_settings": {"dog": {1: 0.5}}}, "got {1: 0.5} for 'dog'"),
        ({"event_settings": {"dog": {"threshold": np.float32(0.5)}}}, "strings and finite numbers of Python"),
        ({"event_settings": {"dog": {"threshold": [0.5]}}}, "strings and finite numbers of Python"),
        ({"event_settings": {"dog": {"threshold": math.nan}}}, "got {'threshold': nan} for 'dog'"),
        ({"event_settings": {"dog": {"gap_seconds": -math.inf}}}, "got {'gap_seconds': -inf} for 'dog'"),
        ({"event_settings": {"dog": {"threshold": True}}}, "got {'threshold': True} for 'dog'"),
        # Some versions of transformers refuse it first, with a message of their own.
        ({"problem_type": "multi_label"}, "single_label_classification"),
    ],
)
def test_impossible_architectures_are_refused(arguments, message):
    # Strict dataclasses raise exceptions of their own, which carry the reason as their cause.
    with pytest.raises(Exception) as caught:  # noqa: PT011
        BeatsConfig(**arguments)
    assert message in f"{caught.value} {caught.value.__cause__}"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"layerdrop": 2.0}, "`layerdrop` is a probability in [0, 1), got 2.0"),
        ({"mask_ratio": 5.0}, "`mask_ratio` must lie between 0 and 1"),
        ({"deep_norm": True, "layer_norm_first": True}, "set `layer_norm_first=False`"),
        ({"legacy_padding_mask": True, "frame_pooling": "sequence"}, "set `legacy_padding_mask=False`"),
        ({"layer_weights": "attention"}, "set `use_weighted_layer_sum=True`"),
        ({"problem_type": "multi_label"}, "single_label_classification"),
    ],
)
def test_a_model_that_could_not_be_saved_is_not_made(values, message, tiny_config, tmp_path):
    BeatsForAudioClassification(tiny_config).save_pretrained(tmp_path)
    # Values that are given replace those of the file after the configuration was checked.
    with pytest.raises(StrictDataclassError) as caught:
        BeatsForAudioClassification.from_pretrained(tmp_path, **values, ignore_mismatched_sizes=True)
    assert message in str(caught.value.__cause__)

    def change_and_make(model_class):
        for name, value in values.items():
            setattr(tiny_config, name, value)
        return model_class(tiny_config)

    for model_class in (BeatsModel, BeatsForAudioClassification):
        with pytest.raises(StrictDataclassError) as caught:
            change_and_make(model_class)
        assert message in str(caught.value.__cause__)


@pytest.mark.parametrize(
    "values", [{"num_labels": 0}, {"num_labels": -1}, {"id2label": {}}, {"id2label": None, "label2id": None}]
)
def test_a_classifier_has_a_label_and_an_encoder_needs_none(values, tiny_config, tmp_path):
    BeatsForAudioClassification(tiny_config).save_pretrained(tmp_path)
    for model_class in (BeatsForAudioClassification, BeatsForAudioFrameClassification):
        with pytest.raises(ValueError, match=f"A {model_class.__name__} needs a label, .*: set `num_labels`"):
            model_class.from_pretrained(tmp_path, **values, ignore_mismatched_sizes=True)
    encoder = BeatsModel.from_pretrained(tmp_path, **values)
    assert not encoder.config.id2label
    for name, value in values.items():
        setattr(tiny_config, name, value)
    BeatsModel(tiny_config).save_pretrained(tmp_path / "encoder")
    assert BeatsModel.from_pretrained(tmp_path / "encoder").num_parameters() == encoder.num_parameters()


def test_values_are_checked_together_with_those_of_the_checkpoint(tiny_config, tmp_path):
    tiny_config.use_weighted_layer_sum = True
    BeatsForAudioClassification(tiny_config).save_pretrained(tmp_path)
    model = BeatsForAudioClassification.from_pretrained(tmp_path, layer_weights="attention")
    assert model.config.layer_weights == "attention"
    model.save_pretrained(tmp_path / "again")


@pytest.mark.parametrize("seed", [2**64, 2**70, -(2**63) - 1])
def test_a_seed_that_pytorch_cannot_read_is_refused(seed):
    with pytest.raises(StrictDataclassError) as caught:
        BeatsRandomProjectionTokenizerConfig(seed=seed)
    assert f"`seed` must fit 64 bits, as PyTorch reads it, got {seed}" in str(caught.value.__cause__)


@pytest.mark.parametrize("seed", [2**64 - 1, -(2**63)])
def test_every_other_seed_makes_a_tokenizer(seed):
    BeatsRandomProjectionTokenizer(BeatsRandomProjectionTokenizerConfig(seed=seed))


def test_a_random_projection_that_could_not_be_saved_is_not_made(tmp_path):
    BeatsRandomProjectionTokenizer(BeatsRandomProjectionTokenizerConfig()).save_pretrained(tmp_path)
    with pytest.raises(StrictDataclassError) as caught:
        BeatsRandomProjectionTokenizer.from_pretrained(tmp_path, codebook_size=0)
    assert "`codebook_size` must be at least 1, got 0" in str(caught.value.__cause__)


def test_tokenizer_config_checks_its_codebook():
    with pytest.raises(Exception, match="codebook_size"):
        BeatsTokenizerConfig(codebook_size=0)


@pytest.mark.parametrize("name", ["commitment_weight", "dead_code_threshold"])
@pytest.mark.parametrize("value", [-1, math.nan, math.inf])
def test_weights_of_a_tokenizer_are_finite(name, value):
    with pytest.raises(Exception, match="validate_architecture") as caught:
        BeatsTokenizerConfig(**{name: value})
    assert f"`{name}` must be finite and not negative" in str(caught.value.__cause__)


def test_a_codebook_without_memory_may_be_written_as_an_integer():
    assert BeatsTokenizerConfig(codebook_decay=0).codebook_decay == 0


def test_other_numbers_may_be_written_as_integers():
    config = BeatsConfig(initializer_range=0, layer_norm_eps=1)
    assert (config.initializer_range, config.layer_norm_eps) == (0, 1)


def test_accepted_event_settings_are_saved_as_they_are(tmp_path):
    settings = {"dog": {"threshold": np.float64(0.25), "low_threshold": None, "gap_seconds": 1}, "cat": {}}
    BeatsConfig(event_settings=settings).save_pretrained(tmp_path)
    assert BeatsConfig.from_pretrained(tmp_path).event_settings == settings


@pytest.mark.parametrize("config_class", [BeatsConfig, BeatsTokenizerConfig])
def test_saved_config_names_every_auto_class(config_class, tmp_path):
    config_class().save_pretrained(tmp_path)
    auto_map = json.loads((tmp_path / "config.json").read_text())["auto_map"]
    assert auto_map == config_class._remote_code
    assert (tmp_path / "configuration_beats.py").is_file()
    assert config_class.from_pretrained(tmp_path).to_dict() == config_class().to_dict()


class ConfigOfTheirs(BeatsConfig):
    their_size: int = 3


def test_a_subclass_elsewhere_is_saved_without_code(tmp_path):
    ConfigOfTheirs(their_size=4).save_pretrained(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]
    assert "auto_map" not in json.loads((tmp_path / "config.json").read_text())
    assert ConfigOfTheirs.from_pretrained(tmp_path).their_size == 4


class RelaxedConfig(BeatsConfig):
    """A subclass without `@strict` that overrides the rules of the base class."""

    def validate_architecture(self):
        if self.mask_ratio > 1:
            raise ValueError("`mask_ratio` is at most 1 here.")


class RelaxedInitConfig(RelaxedConfig):
    """The same with an `__init__` of the author's own, which `transformers` leaves as it is."""

    def __init__(self, their_size: int = 3, mask_ratio: float = 0.5, **kwargs):
        super().__init__(**kwargs)
        self.their_size = their_size
        self.mask_ratio = mask_ratio


@strict
class StrictConfig(RelaxedConfig):
    their_size: int = 3

    def validate_their_size(self):
        if self.their_size < 1:
            raise ValueError("`their_size` is too small.")


class RelaxedTokenizerConfig(BeatsTokenizerConfig):
    def validate_architecture(self):
        pass

    def validate_nothing(self, argument):
        raise AssertionError("this is not a validator")


@pytest.mark.parametrize("config_class", [RelaxedConfig, RelaxedInitConfig, StrictConfig])
def test_a_subclass_is_validated_by_its_own_rules(config_class, tiny_config, tmp_path):
    values = {name: getattr(tiny_config, name) for name in tiny_config.to_diff_dict() if hasattr(BeatsConfig, name)}
    model = BeatsModel(config_class(**values | {"mask_ratio": 1.0}))
    model.save_pretrained(tmp_path)
    assert config_class.from_pretrained(tmp_path).mask_ratio == 1.0
    model.config.mask_ratio = 2.0
    with pytest.raises(StrictDataclassError, match="'validate_architecture'") as caught:
        BeatsModel(model.config)
    assert "`mask_ratio` is at most 1 here" in str(caught.value.__cause__)
    with pytest.raises(StrictDataclassError, match="'validate_architecture'"):
        model.save_pretrained(tmp_path)


def test_a_subclass_without_rules_is_validated_by_those_of_its_base(tiny_config):
    config = ConfigOfTheirs(**{**tiny_config.to_dict(), "mask_ratio": 5.0})
    with pytest.raises(StrictDataclassError) as caught:
        BeatsModel(config)
    assert "`mask_ratio` must lie between 0 and 1" in str(caught.value.__cause__)


def test_subclasses_of_subclasses_keep_the_rules_they_inherit(tiny_config):
    class Grandchild(StrictConfig):
        pass

    class AnyArguments(BeatsConfig):
        @classmethod
        def validate_architecture(cls, is_strict=True):
            raise ValueError("of the class")

    class OwnValidate(BeatsConfig):
        def validate(self):
            raise NotImplementedError("mine")

    class Heir(OwnValidate):
        pass

    with pytest.raises(StrictDataclassError, match="'validate_their_size'"):
        Grandchild(their_size=0).validate()
    with pytest.raises(StrictDataclassError, match="'validate_architecture'"):
        Grandchild(mask_ratio=2.0).validate()
    with pytest.raises(NotImplementedError, match="mine"):
        Heir().validate()
    assert AnyArguments(mask_ratio=0.5).mask_ratio == 0.5
    with pytest.raises(StrictDataclassError, match="'validate_architecture'"):
        AnyArguments(mask_ratio=0.5).validate()
    # Only what is a validator in the class that is decorated.
    RelaxedTokenizerConfig(num_codebooks=2).validate()


@pytest.mark.parametrize("model_class", [BeatsModel, BeatsForAudioClassification, BeatsForPreTraining])
def test_a_model_that_returns_attentions_is_loaded_as_it_was_saved(model_class, tiny_config, tmp_path):
    tiny_config.save_pretrained(tmp_path / "plain")
    model = model_class(tiny_config)
    assert model.config._attn_implementation == "sdpa"
    model.save_pretrained(tmp_path / "plain")
    model = model_class.from_pretrained(tmp_path / "plain", attn_implementation="eager", output_attentions=True)
    model.save_pretrained(tmp_path / "saved")
    assert json.loads((tmp_path / "saved" / "config.json").read_text())["output_attentions"] is True
    loaded = model_class.from_pretrained(tmp_path / "saved")
    assert loaded.config._attn_implementation == "eager"
    assert loaded.config.output_attentions is True
    loaded.save_pretrained(tmp_path / "again")
    # Without attentions, nothing asks for the slower function.
    plain = model_class.from_pretrained(tmp_path / "saved", output_attentions=False)
    assert plain.config._attn_implementation == "sdpa"
    # What was asked for stays an error.
    with pytest.raises(Exception, match="output_attentions"):
        model_class.from_pretrained(tmp_path / "saved", attn_implementation="sdpa")


def test_a_config_that_returns_attentions_makes_a_model(tiny_config):
    values = {**tiny_config.to_dict(), "output_attentions": True}
    for model in (BeatsModel(BeatsConfig(**values)), AutoModel.from_config(BeatsConfig(**values))):
        outputs = model.eval()(torch.zeros(1, 64, 128))
        assert [attention.shape for attention in outputs.attentions] == [(1, 4, 32, 32)] * 3


def test_auto_map_forgets_the_repository_a_model_came_from(tiny_config, tmp_path):
    tiny_config.auto_map = {
        "AutoConfig": "user/repo--configuration_beats.BeatsConfig",
        "AutoModel": "user/repo--modeling_beats.BeatsModel",
        "AutoModelForCTC": ("modeling_other.TheirTokenizerThing", None),
    }
    BeatsForAudioClassification(tiny_config).save_pretrained(tmp_path)
    auto_map = json.loads((tmp_path / "config.json").read_text())["auto_map"]
    assert auto_map == {**BeatsConfig._remote_code, "AutoModelForCTC": "modeling_other.TheirTokenizerThing"}
