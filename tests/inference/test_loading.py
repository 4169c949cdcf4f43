# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
import json
import pickle

import peft
import pytest
import torch
from huggingface_hub import HfApi, constants
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForAudioClassification, AutoModelForAudioFrameClassification

from transformers_beats import (
    BeatsConfig,
    BeatsFeatureExtractor,
    BeatsForAudioClassification,
    BeatsForPreTraining,
    BeatsModel,
)
from transformers_beats.inference.loading import (
    check_model,
    describe,
    find_model,
    load,
    load_extractor,
    load_model,
    saved_config,
)
from transformers_beats.training.data.sources import DataArguments, load_audio_dataset
from transformers_beats.utils.errors import BeatsError, UsageError


TINY = {"embed_dim": 16, "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 48}
TINY |= {"num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 2}


@pytest.fixture
def fbank():
    return torch.randn(2, 203, 128, generator=torch.Generator().manual_seed(0))


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


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"layerdrop": 2.0}, r": cannot be loaded: `layerdrop` is a probability in \[0, 1\), got 2\.0\.$"),
        ({"classifier_pooling": "max"}, r": cannot be loaded: Field 'classifier_pooling' expected one of \("),
    ],
)
def test_values_that_the_configuration_does_not_accept_are_named(values, message, tmp_path):
    BeatsForAudioClassification(BeatsConfig(**TINY)).save_pretrained(tmp_path)
    with pytest.raises(UsageError, match=message) as caught:
        load_model(tmp_path, BeatsForAudioClassification, **values)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("model_class", [None, BeatsForAudioClassification])
@pytest.mark.parametrize("values", [{}, {"hidden_dropout": 0.2}, {"revision": "main"}])
def test_a_wrong_value_in_a_file_is_no_wrong_argument(values, model_class, tmp_path):
    BeatsForAudioClassification(BeatsConfig(**TINY)).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "layerdrop": 2.0}))
    with pytest.raises(
        BeatsError, match=r": cannot be loaded: `layerdrop` is a probability in .*, got 2\.0\.$"
    ) as caught:
        load_model(tmp_path, model_class, **values)
    assert not isinstance(caught.value, UsageError)


@pytest.mark.parametrize("model_class", [None, BeatsForAudioClassification])
def test_a_model_that_returns_attentions_is_used_as_any_other(model_class, tmp_path):
    config = BeatsConfig(**TINY, output_attentions=True)
    BeatsForAudioClassification(config).save_pretrained(tmp_path)
    assert load_model(tmp_path, model_class).config.output_attentions is True


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


def test_a_name_that_is_nowhere_is_an_error_after_one_request(tmp_path, monkeypatch):
    requests = []

    def refuse(self, name, **options):
        requests.append((name, options["repo_type"]))
        raise OSError("Name or service not known")

    monkeypatch.setattr(HfApi, "repo_info", refuse)
    for function in (load, load_model, load_extractor):
        with pytest.raises(BeatsError, match=r"^no/where: no such directory, and the Hub was not reached: Name or"):
            function("no/where", cache_dir=tmp_path)
    with pytest.raises(BeatsError, match=r"^no/sounds: no such directory, and the Hub was not reached"):
        load_audio_dataset(DataArguments(dataset="no/sounds"))
    assert requests == [("no/where", "model")] * 3 + [("no/sounds", "dataset")]


@pytest.fixture
def adapter(tmp_path):
    """A model of two classes with an adapter for five, as PEFT saves it: without configuration and extractor."""
    torch.manual_seed(0)
    base, directory = tmp_path / "base", tmp_path / "adapter"
    BeatsForAudioClassification(BeatsConfig(**TINY, num_labels=2)).save_pretrained(base)
    BeatsFeatureExtractor(fbank_mean=12.5).save_pretrained(base)
    model = BeatsForAudioClassification.from_pretrained(base, num_labels=5, ignore_mismatched_sizes=True)
    model = peft.get_peft_model(model, peft.LoraConfig(target_modules=["q_proj"], modules_to_save=["classifier"]))
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter)
    model.save_pretrained(directory)
    return model.eval(), directory


def test_the_directory_of_an_adapter_is_the_model_with_it(adapter, fbank):
    wrapped, directory = adapter
    model, extractor = load(directory)
    assert type(model) is BeatsForAudioClassification
    assert extractor.fbank_mean == 12.5
    torch.testing.assert_close(model(fbank).logits, wrapped(input_values=fbank).logits)
    encoder = load_model(directory, BeatsModel)
    assert type(encoder) is BeatsModel
    torch.testing.assert_close(encoder(fbank).pooler_output, model.beats(fbank).pooler_output)


def to_pickle(directory, name, pickled):
    """Writes weights again as `torch.save` does."""
    torch.save(load_file(directory / name), directory / pickled)
    (directory / name).unlink()


def test_the_weights_of_an_adapter_may_be_a_pickle_of_tensors(adapter, fbank):
    wrapped, directory = adapter
    to_pickle(directory, "adapter_model.safetensors", "adapter_model.bin")
    assert saved_config(directory).num_labels == 5
    model, extractor = load(directory)
    assert extractor.fbank_mean == 12.5
    torch.testing.assert_close(model(fbank).logits, wrapped(input_values=fbank).logits)


def test_a_pickled_adapter_runs_nothing(adapter, tmp_path):
    class Attack:
        def __reduce__(self):
            return open, (str(tmp_path / "was-here"), "w")

    directory = adapter[1]
    (directory / "adapter_model.safetensors").unlink()
    weights = {"base_model.model.classifier.weight": Attack()}
    (directory / "adapter_model.bin").write_bytes(pickle.dumps(weights, protocol=2))
    for use in (saved_config, load_model):
        with pytest.raises(BeatsError, match=r"adapter_model\.bin: "):
            use(directory)
    assert not (tmp_path / "was-here").exists()


def test_an_adapter_without_weights_is_an_error(adapter):
    directory = adapter[1]
    (directory / "adapter_model.safetensors").unlink()
    for use in (saved_config, load_model):
        with pytest.raises(UsageError, match=r"adapter without its weights, adapter_model\.safetensors or adapter_mo"):
            use(directory)


@pytest.mark.parametrize("files", ["model.safetensors", "pytorch_model.bin", "model-*.safetensors"])
def test_an_adapter_beside_a_whole_model_is_refused(adapter, files):
    """transformers would add the adapter to a model that has it in its weights."""
    wrapped, directory = adapter
    size = "2KB" if "*" in files else "1GB"
    wrapped.merge_and_unload().save_pretrained(directory, max_shard_size=size)
    if files == "pytorch_model.bin":
        to_pickle(directory, "model.safetensors", files)
    assert list(directory.glob(files))
    for use in (check_model, saved_config, load_model, load_extractor, load):
        with pytest.raises(UsageError, match=r"both an adapter and a whole model, .*: remove adapter_config\.json"):
            use(directory)
    (directory / "adapter_config.json").unlink()
    assert load_model(directory).config.num_labels == 5


def test_files_of_a_training_beside_an_adapter_are_no_model(adapter, fbank):
    wrapped, directory = adapter
    for name in ("training_args.bin", "pytorch_model_fsdp.bin"):
        (directory / name).write_bytes(b"")
    torch.testing.assert_close(load_model(directory)(fbank).logits, wrapped(input_values=fbank).logits)


@pytest.mark.parametrize("has_config", [False, True])
def test_the_configuration_of_an_adapted_model_is_read_once(adapter, has_config, monkeypatch):
    wrapped, directory = adapter
    if has_config:
        wrapped.config.save_pretrained(directory)
    read, from_pretrained = [], AutoConfig.from_pretrained

    def note(name, **options):
        read.append(str(name))
        return from_pretrained(name, **options)

    monkeypatch.setattr(AutoConfig, "from_pretrained", note)
    assert load_model(directory).config.num_labels == 5
    assert read == [str(directory if has_config else directory.parent / "base")]


def test_an_adapter_without_its_model_names_both(adapter):
    directory = adapter[1]
    (directory.parent / "base").rename(directory.parent / "moved")
    with pytest.raises(BeatsError, match=r"base: no such directory"):
        load_model(directory)
    (directory / "adapter_config.json").write_text("{}")
    with pytest.raises(UsageError, match="names no `base_model_name_or_path`"):
        load_model(directory)
    (directory / "adapter_config.json").write_text("no JSON")
    with pytest.raises(UsageError, match="cannot be read as the configuration of an adapter"):
        load_model(directory)


@pytest.mark.parametrize(
    ("task", "model_class"),
    [
        (None, AutoModelForAudioClassification),
        ("SEQ_CLS", AutoModelForAudioClassification),
        (None, AutoModelForAudioFrameClassification),
        ("TOKEN_CLS", AutoModelForAudioFrameClassification),
    ],
)
def test_an_adapter_of_a_classifier_on_an_encoder_is_the_classifier(tmp_path, fbank, caplog, task, model_class):
    BeatsModel(BeatsConfig(**TINY)).save_pretrained(tmp_path / "base")
    BeatsFeatureExtractor().save_pretrained(tmp_path / "base")
    model = model_class.from_pretrained(tmp_path / "base", num_labels=2)
    settings = peft.LoraConfig(target_modules=["q_proj"], modules_to_save=["classifier"], task_type=task)
    wrapped = peft.get_peft_model(model, settings)
    for name, parameter in wrapped.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter)
    wrapped.save_pretrained(tmp_path / "adapter")
    loaded = load_model(tmp_path / "adapter")
    assert type(loaded) is type(model)
    torch.testing.assert_close(loaded(fbank).logits, wrapped.eval()(input_values=fbank).logits)
    assert "labels and kind of loss of its classifier are not known" in caplog.text
    caplog.clear()
    model.config.save_pretrained(tmp_path / "adapter")
    load_model(tmp_path / "adapter")
    assert "not known" not in caplog.text


def test_an_adapter_that_does_not_fit_its_base_is_refused(tmp_path):
    BeatsModel(BeatsConfig(**TINY)).save_pretrained(tmp_path / "base")
    model = BeatsForAudioClassification.from_pretrained(tmp_path / "base", num_labels=2)
    settings = peft.LoraConfig(target_modules=["q_proj"], task_type="FEATURE_EXTRACTION")
    peft.get_peft_model(model, settings).save_pretrained(tmp_path / "adapter")
    with pytest.raises(BeatsError, match="adapter: the adapter is of another model than a BeatsModel"):
        load_model(tmp_path / "adapter")


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
