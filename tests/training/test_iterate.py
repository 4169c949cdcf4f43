# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""`iterate` with a supervised teacher, statistics of the data, a size, and a diagnosis of every iteration's codes."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest
from tiny import ENCODER, TRAINING

from transformers_beats import (
    BeatsConfig,
    BeatsFeatureExtractor,
    BeatsForAudioClassification,
    BeatsModel,
    BeatsTokenizerForPreTraining,
)
from transformers_beats.training.config import iterations
from transformers_beats.training.config.arguments import (
    FINETUNE_ARGUMENTS,
    Arguments,
    PreTrainingModelArguments,
    TokenizerModelArguments,
)
from transformers_beats.training.config.checks import PROBES
from transformers_beats.training.config.iterations import IterateArguments
from transformers_beats.training.config.recipes import build_arguments, merge, parse_arguments
from transformers_beats.training.finetune import finetune
from transformers_beats.training.iterate import iterate
from transformers_beats.training.pretrain import pretrain
from transformers_beats.training.train_tokenizer import build_tokenizer
from transformers_beats.training.trainers import checkpoints as checkpoints_module
from transformers_beats.utils.errors import BeatsError, UsageError


@pytest.fixture
def supervised(recipe, labelled) -> dict:
    """One iteration, and one with a supervised teacher."""
    return recipe | {
        "num_iterations": 1,
        "supervised_teacher": {"dataset": str(labelled), **TRAINING, "max_steps": 2},
        "supervised_tokenizer": {"learning_rate": 2e-3},
    }


def files_of(directory: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in directory.rglob("*") if path.is_file()}


def test_a_fine_tuned_model_teaches_the_last_tokenizer(supervised, monkeypatch):
    # Interrupted when the classifier is all but written.
    replace, run = checkpoints_module.replace_directory, Path(supervised["output_dir"])

    def fail_for_teachers(new, target):
        if target.name == "teacher":
            sys.exit("killed")
        replace(new, target)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoints_module, "replace_directory", fail_for_teachers)
        with pytest.raises(SystemExit, match="killed"):
            iterate(IterateArguments(**supervised))
    directory = run / "iteration-2+"
    assert not (directory / "teacher").exists()
    model = iterate(IterateArguments(**supervised))
    assert model == directory / "model"
    teacher = BeatsForAudioClassification.from_pretrained(directory / "teacher")
    assert list(teacher.config.id2label.values()) == ["high", "low"]
    # The estimator predicts logits.
    assert BeatsTokenizerForPreTraining.from_pretrained(directory / "tokenizer").estimator.head.out_features == 2
    history = json.loads((directory / "tokenizer" / "log_history.json").read_text())
    assert history[0]["learning_rate"] == pytest.approx(2e-3)
    assert BeatsConfig.from_pretrained(model).codebook_size == 16
    before = files_of(run)
    iterate(IterateArguments(**supervised))
    assert files_of(run) == before


def test_a_classifier_that_exists_teaches(recipe, tmp_path):
    BeatsForAudioClassification(BeatsConfig(**ENCODER, num_labels=3)).save_pretrained(tmp_path / "teacher")
    BeatsFeatureExtractor().save_pretrained(tmp_path / "teacher")
    recipe |= {"num_iterations": 1, "supervised_teacher": str(tmp_path / "teacher")}
    directory = iterate(IterateArguments(**recipe)).parent
    assert sorted(path.name for path in directory.iterdir()) == ["codes", "model", "tokenizer"]
    assert BeatsTokenizerForPreTraining.from_pretrained(directory / "tokenizer").estimator.head.out_features == 3


def test_the_audio_of_a_supervised_teacher_is_that_of_pretraining_by_default(supervised, labelled):
    supervised["data"] |= {"dataset": str(labelled), "precompute_fbank": True, "min_seconds": 0.1}
    own = supervised["supervised_teacher"]
    del own["dataset"]
    values = IterateArguments(**supervised).teacher_values("model", "teacher")
    assert (values["dataset"], values["crop_seconds"], values["min_seconds"]) == (str(labelled), 1.0, 0.1)
    assert "precompute_fbank" not in values
    own["dataset"] = "other"
    values = IterateArguments(**supervised).teacher_values("model", "teacher")
    assert (values["dataset"], values["crop_seconds"]) == ("other", 1.0)
    assert "min_seconds" not in values


def test_labels_are_read_before_anything_is_trained(supervised, sounds):
    supervised["supervised_teacher"]["dataset"] = str(sounds)
    with pytest.raises(ValueError, match="lies in no folder named after its class"):
        iterate(IterateArguments(**supervised))
    assert not Path(supervised["output_dir"]).exists()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"eval_share": 0.25, "metric_for_best_model": "acuracy"},
            "`metric_for_best_model` is 'acuracy': choose loss",
        ),
        ({"class_weights": "balanced", "label_smoothing_factor": 0.1}, "`label_smoothing_factor` is for one class a"),
        ({"class_weights": {"middle": 2.0}}, "`class_weights`: there is no class 'middle', only"),
        (
            {"model_config": {"problem_type": "regression"}},
            "`model_config.problem_type` is regression, but the labels",
        ),
        ({"clip_loss_weight": 1.0}, "Losses of clips, mean teacher and `event_logits` are for events"),
        ({"eval_share": 0.01}, "`eval_share` is 0.01, which cannot be drawn"),
        ({"eval_dataset": "labelled"}, "clips to evaluate on are also in the training set"),
        ({"eval_dataset": "sounds"}, "lies in no folder named after its class"),
        ({"mixup_alpha": 0.5, "batch_seconds": 1.0}, "`mixup_alpha` mixes clips of a batch"),
        ({"average_checkpoints": 3}, "`average_checkpoints` is 3, but 1 checkpoint(s) would be written"),
        ({"freeze": True, "eval_share": 0.25, "probe_shots": [50]}, "`probe_shots` has 50, but of 'high' there are"),
        ({"eval_share": 0.25, "search_space": {"learning_rate": [1e-3]}}, "`search_space` needs Optuna"),
    ],
)
def test_what_the_teacher_would_refuse_shows_before_the_first_stage(
    supervised, labelled, sounds, monkeypatch, values, message
):
    if "eval_dataset" in values:
        values = {"eval_dataset": str({"labelled": labelled, "sounds": sounds}[values["eval_dataset"]])}
    supervised["supervised_teacher"] |= values
    find_spec = importlib.util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name, *_: None if name == "optuna" else find_spec(name, *_))
    arguments = IterateArguments(**supervised)
    with pytest.raises(BeatsError) as caught:
        iterate(arguments)
    assert message in str(caught.value)
    assert not Path(supervised["output_dir"]).exists()
    # As the training itself.
    own = arguments.teacher_values(encoder(Path(supervised["output_dir"]).parent), f"{supervised['output_dir']}-own")
    with pytest.raises(BeatsError) as later:
        finetune(Arguments(*build_arguments(FINETUNE_ARGUMENTS, own)))
    assert str(later.value) == str(caught.value)


def encoder(tmp_path: Path) -> str:
    BeatsModel(BeatsConfig(**ENCODER)).save_pretrained(tmp_path / "encoder")
    BeatsFeatureExtractor().save_pretrained(tmp_path / "encoder")
    return str(tmp_path / "encoder")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"supervised_tokenizer": {"model_config": {"codebook_size": 40_000}}},
            "`supervised_tokenizer.model_config.codebook_size` must be at most 32768, got 40000",
        ),
        ({"supervised_teacher": {"fbank_mean": 9.0}}, "`supervised_teacher.fbank_mean` is set by `iterate`"),
        ({"supervised_tokenizer": {"teacher_layers": [1]}}, "`supervised_tokenizer.teacher_layers`: a classifier"),
        (
            {"num_iterations": 2, "tokenizer": {"teacher_layers": [3]}},
            "`tokenizer.teacher_layers`: There is no layer 3: this model",
        ),
        (
            {
                "num_iterations": 2,
                "tokenizer": {"initialize_from_teacher": True, "model_config": {"hidden_size": 48}},
            },
            "`tokenizer.initialize_from_teacher` needs a tokenizer of the teacher's size, and `",
        ),
        (
            {"supervised_tokenizer": {"initialize_from_teacher": True, "model_config": {"num_hidden_layers": 3}}},
            "`supervised_tokenizer.initialize_from_teacher` needs a tokenizer of the teacher's size, and `encoder.",
        ),
        (
            {"model": {"average_checkpoints": 4}},
            "model: `average_checkpoints` is 4, but 3 checkpoint(s) would be written",
        ),
    ],
)
def test_errors_of_later_stages_show_before_the_first(supervised, changes, message):
    merge(supervised, changes)
    with pytest.raises(UsageError) as caught:
        build_arguments((IterateArguments,), supervised)
    assert message in str(caught.value)


def test_a_teacher_of_another_size_is_refused_in_one_line():
    values = ENCODER | {"codebook_size": 16, "codebook_dim": 8}
    arguments = TokenizerModelArguments("teacher", model_config=values, initialize_from_teacher=True)
    with pytest.raises(
        ValueError, match="`initialize_from_teacher` needs a tokenizer of the teacher's size"
    ) as caught:
        build_tokenizer(arguments, BeatsModel(BeatsConfig(**ENCODER | {"intermediate_size": 64})))
    assert "\n" not in str(caught.value)


def test_what_later_stages_accept_is_accepted(supervised):
    changes = {"initialize_from_teacher": True, "teacher_layers": [0, 2, -2]}
    merge(supervised, {"num_iterations": 2, "tokenizer": changes, "model": {"average_checkpoints": 3}})
    (arguments,) = build_arguments((IterateArguments,), supervised)
    assert arguments.iterations == ["iteration-1", "iteration-2", "iteration-3+"]


def test_a_teacher_of_another_fbank_is_refused_before_the_first_stage(recipe, tmp_path):
    BeatsForAudioClassification(BeatsConfig(**ENCODER, num_labels=3)).save_pretrained(tmp_path / "teacher")
    BeatsFeatureExtractor(fbank_mean=9.0).save_pretrained(tmp_path / "teacher")
    BeatsFeatureExtractor().save_pretrained(tmp_path / "own")
    recipe |= {"num_iterations": 1, "supervised_teacher": str(tmp_path / "teacher")}
    for name in (str(tmp_path / "own"), "corpus"):
        arguments = IterateArguments(**recipe, feature_extractor=name)
        with pytest.raises(ValueError, match=r"The supervised teacher reads an fbank of `fbank_mean` 9\.0"):
            iterate(arguments)
    assert not (Path(recipe["output_dir"]) / "iteration-1").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"supervised_teacher": {"num_folds": 5}}, "`supervised_teacher.num_folds` is set by `iterate`"),
        ({"diagnosis_clips": 1}, "`diagnosis_clips` must be at least 2, got 1"),
        ({"supervised_teacher": {"learning_rate": -1.0}}, "supervised_teacher: `learning_rate` must not be negative"),
        ({"supervised_teacher": {"learning_rat": 1.0}}, "unknown key `supervised_teacher.learning_rat`: did you mean"),
        ({"supervised_teacher": "/no/model"}, "/no/model: no such directory"),
        ({"supervised_teacher": encoder}, "a BeatsModel knows no labels"),
        ({"supervised_teacher": None}, "`supervised_tokenizer` is that of a `supervised_teacher`"),
        ({"supervised_tokenizer": {"min_perplexity": 0.5}}, "supervised_tokenizer: `min_perplexity` must be at least"),
        ({"supervised_tokenizer": {"teacher": "a"}}, "`supervised_tokenizer.teacher` is set by `iterate`"),
        ({"size": "huge"}, "`size` must be Literal"),
        (
            {"supervised_teacher": {"probe": "knn", "eval_share": 0.25}},
            "supervised_teacher: `probe: knn` has no logits",
        ),
        ({"supervised_teacher": {"probe": "prototype"}}, "`probe: prototype` has no logits of patches, which"),
        ({"supervised_teacher": {"probe": ["linear", "prototype"]}}, "`probe: prototype` has no logits of patches"),
        (
            {"supervised_teacher": {"freeze": True}, "supervised_tokenizer": {"method": "k_means"}},
            "supervised_teacher: k-means clusters the outputs of the encoder, and a probe leaves that as it is",
        ),
    ],
)
def test_mistakes_of_a_supervised_teacher_are_refused(supervised, tmp_path, changes, message):
    changes = {name: value(tmp_path) if callable(value) else value for name, value in changes.items()}
    with pytest.raises(UsageError) as caught:
        build_arguments((IterateArguments,), supervised | changes)
    assert message in str(caught.value)


@pytest.mark.parametrize("probe", PROBES)
def test_probes_that_teach_are_those_with_logits_of_patches(supervised, probe):
    pooling = {"knn": None, "attentive": "attention", "prototype": "prototypes"}.get(probe, "mean")
    supervised["supervised_teacher"] = {"probe": probe, "eval_share": 0.25}
    if pooling is not None and BeatsConfig(classifier_pooling=pooling).scores_patches:
        build_arguments((IterateArguments,), supervised)
        return
    with pytest.raises(UsageError, match="has no logits of patches"):
        build_arguments((IterateArguments,), supervised)


# Size and statistics


def test_large_models_have_the_values_of_openbeats():
    words = ["--output_dir=run", "--data.dataset=sounds", "--size=large"]
    (arguments,) = parse_arguments((IterateArguments,), words)
    config = BeatsConfig(**arguments.model["model_config"])
    shape = (config.num_hidden_layers, config.hidden_size, config.num_attention_heads, config.intermediate_size)
    assert shape == (24, 1024, 16, 4096)
    training = {name: arguments.model[name] for name in ("learning_rate", "max_steps", "warmup_steps")}
    assert training == {"learning_rate": 2.5e-4, "max_steps": 800_000, "warmup_steps": 40_000}
    assert arguments.feature_extractor == "corpus"
    assert arguments.tokenizer == {}


def test_values_of_a_user_win_over_those_of_a_size(tmp_path):
    BeatsFeatureExtractor().save_pretrained(tmp_path)
    words = ["--output_dir=run", "--data.dataset=sounds", "--size=large", f"--feature_extractor={tmp_path}"]
    words += ["--model.learning_rate=1e-4", "--model.model_config.num_hidden_layers=18", "--model.num_train_epochs=3"]
    (arguments,) = parse_arguments((IterateArguments,), words)
    assert arguments.model["learning_rate"] == 1e-4
    assert arguments.model["model_config"]["num_hidden_layers"] == 18
    assert arguments.model["model_config"]["hidden_size"] == 1024
    assert "max_steps" not in arguments.model
    assert arguments.feature_extractor == str(tmp_path)


def test_the_recipe_of_a_size_changes_another_recipe():
    words = ["--config", "audioset_iterate", "--config", "iterate_large"]
    (arguments,) = parse_arguments((IterateArguments,), words)
    assert (arguments.model["max_steps"], arguments.model["learning_rate"]) == (800_000, 2.5e-4)
    assert arguments.model["model_config"]["num_hidden_layers"] == 24
    assert arguments.model["model_config"]["mask_ratio"] == 0.75
    assert "num_hidden_layers" not in arguments.tokenizer["model_config"]


def test_a_size_says_which_values_of_a_recipe_it_leaves(monkeypatch):
    said = []
    monkeypatch.setattr(iterations.logger, "warning_once", said.append)
    shapes = []
    for words in (["--size=large"], ["--config", "iterate_large"]):
        words += ["--output_dir=run", "--data.dataset=sounds"]
        (arguments,) = parse_arguments((IterateArguments,), words)
        shapes.append(BeatsConfig(**arguments.model["model_config"]).to_dict())
    assert shapes[0] == shapes[1]
    assert said == []
    words = ["--config", "folder_iterate", "--size=large"]
    (arguments,) = parse_arguments((IterateArguments,), words)
    (line,) = said
    assert line.startswith("`size: large` leaves as given: model.max_steps, model.model_config.embed_dim")
    assert "model.model_config.hidden_size, " in line
    assert line.endswith("`--config iterate_large` after the recipe sets them.")
    words = ["--config", "folder_iterate", "--config", "iterate_large"]
    (arguments,) = parse_arguments((IterateArguments,), words)
    assert arguments.model["model_config"]["embed_dim"] == 512
    assert len(said) == 1


def test_the_fbank_may_have_the_statistics_of_the_data(recipe):
    recipe |= {"feature_extractor": "corpus", "num_iterations": 1}
    recipe["model"] |= {"max_steps": 1}
    run = iterate(IterateArguments(**recipe)).parent
    own = BeatsFeatureExtractor.from_pretrained(run.parent / "feature-extractor")
    assert own.fbank_mean != BeatsFeatureExtractor().fbank_mean
    for stage in ("tokenizer", "model"):
        extractor = BeatsFeatureExtractor.from_pretrained(run / stage)
        assert (extractor.fbank_mean, extractor.fbank_std) == (own.fbank_mean, own.fbank_std)


# Diagnosis


def test_every_iteration_has_a_diagnosis_of_its_codes(recipe, labelled):
    recipe["data"] |= {"dataset": str(labelled), "precompute_fbank": True}
    recipe["diagnosis_clips"] = 12
    run = iterate(IterateArguments(**recipe)).parents[1]
    first, second = (
        json.loads((run / f"iteration-{number}/diagnosis/diagnosis.json").read_text()) for number in (1, 2)
    )
    assert (first["description"]["codebook_size"], second["description"]["codebook_size"]) == (32, 16)
    assert first["description"]["clips"] == 12
    assert first["k_means"] is None
    assert second["k_means"]["perplexity"] > 1
    assert second["description"]["teacher"] == str(run / "iteration-1/model")
    for found in (first, second):
        assert 0 <= found["codes"]["probe"]["accuracy"] <= 1
        assert found["notes"] == []
    assert "<svg" in (run / "iteration-2/diagnosis/diagnosis.html").read_text()
    # Where they are made by themselves only.
    assert not (run / "iteration-2/tokenizer/diagnosis").exists()


def test_a_diagnosis_that_fails_ends_no_run(recipe, monkeypatch, caplog):
    from transformers_beats.training import diagnose_codes

    recipe |= {"num_iterations": 1, "diagnosis_clips": 12}
    recipe["model"] |= {"max_steps": 1}
    monkeypatch.setattr(diagnose_codes, "diagnose_sample", lambda *args: 1 / 0)
    model = iterate(IterateArguments(**recipe))
    assert (model / "model.safetensors").exists()
    assert not (model.parent / "diagnosis").exists()


@pytest.mark.parametrize("asked", [False, True])
def test_models_start_from_the_last_if_asked_to(recipe, monkeypatch, asked):
    starts = []

    def note(arguments, *others):
        starts.append((arguments.model_name_or_path, arguments.new_label_predictor))
        pretrain(arguments, *others)

    monkeypatch.setattr("transformers_beats.training.iterate.pretrain", note)
    iterate(IterateArguments(**recipe, num_iterations=2, initialize_from_last=asked))
    last = str(Path(recipe["output_dir"]) / "iteration-1" / "model")
    assert starts == [(None, False), (last, True) if asked else (None, False)]


def test_a_new_label_predictor_is_that_of_a_model_to_go_on_from():
    with pytest.raises(UsageError, match="`new_label_predictor` is for a model to continue from"):
        PreTrainingModelArguments(codes="codes", new_label_predictor=True)
