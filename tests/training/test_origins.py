# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""What results of `iterate` were made from: fingerprints beside them, which the next run compares."""

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from safetensors.torch import load_file, save_file
from tiny import ENCODER, TRAINING, make_recipe, make_sounds

from transformers_beats import BeatsConfig, BeatsFeatureExtractor, BeatsForAudioClassification
from transformers_beats.training.config.iterations import IterateArguments
from transformers_beats.training.fbank_statistics import main as statistics_main
from transformers_beats.training.iterate import iterate
from transformers_beats.utils.errors import BeatsError
from transformers_beats.utils.fingerprint import FINGERPRINT_VERSION


@pytest.fixture(scope="module")
def sounds(tmp_path_factory) -> Path:
    """Sounds for all tests of this module, as codes are those of a directory."""
    return make_sounds(tmp_path_factory.mktemp("once") / "sounds")


def short_recipe(sounds: Path, run: Path) -> dict:
    """Two iterations of one step, with the statistics of the data."""
    recipe = make_recipe(sounds, run) | {"feature_extractor": "corpus"}
    for stage in ("model", "tokenizer"):
        recipe[stage] |= {"max_steps": 1}
    return recipe


@pytest.fixture(scope="module")
def made_once(sounds, cache_of_the_module) -> Path:
    run = sounds.with_name("run")
    iterate(IterateArguments(**short_recipe(sounds, run)))
    return run


@pytest.fixture
def recipe(sounds, made_once, tmp_path) -> dict:
    """The recipe of a finished run, for the test alone."""
    return short_recipe(sounds, Path(shutil.copytree(made_once, tmp_path / "run")))


@pytest.fixture
def run(recipe) -> Path:
    return Path(recipe["output_dir"])


def files_of(directory: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in directory.rglob("*") if path.is_file()}


def change_weights(model: Path) -> None:
    weights = load_file(model / "model.safetensors")
    name = next(name for name in sorted(weights) if weights[name].is_floating_point())
    save_file(weights | {name: weights[name] + 1}, model / "model.safetensors", {"format": "pt"})


def change_json(file: Path, **values) -> None:
    """Sets values of a file; those that are None are removed."""
    known = json.loads(file.read_text()) | values
    file.write_text(json.dumps({name: value for name, value in known.items() if value is not None}))


def refusal_of(recipe: dict) -> str:
    """The one line with which `iterate` refuses results, after which all are there as before."""
    before = files_of(Path(recipe["output_dir"]))
    with pytest.raises(BeatsError) as caught:
        iterate(IterateArguments(**recipe))
    after = files_of(Path(recipe["output_dir"]))
    assert {path: after.get(path) for path in before} == before
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_what_was_made_from_what_is_there_is_kept(recipe, run, monkeypatch):
    before = files_of(run)
    iterate(IterateArguments(**recipe))
    # The same statistics, given by hand, and with the place of the run written otherwise.
    monkeypatch.chdir(run.parent)
    recipe |= {"output_dir": "run", "feature_extractor": "run/feature-extractor"}
    iterate(IterateArguments(**recipe))
    assert files_of(run) == before


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (
            "iteration-1/tokenizer",
            "iteration-1/codes: was made from another tokenizer than RUN/iteration-1/tokenizer:",
        ),
        ("iteration-1/model", "iteration-2/tokenizer: was made from another teacher than RUN/iteration-1/model:"),
        (
            "iteration-2/tokenizer",
            "iteration-2/codes: was made from another tokenizer than RUN/iteration-2/tokenizer:",
        ),
    ],
)
def test_what_was_made_from_another_model_is_refused(recipe, run, changed, message):
    change_weights(run / changed)
    assert refusal_of(recipe).startswith(f"{run}/{message.replace('RUN', str(run))} remove {run}/")


def test_a_model_of_other_codes_is_refused(recipe, run):
    change_json(run / "iteration-1/codes/codes.json", bf16=True)
    places = f"{run}/iteration-1/model, {run}/iteration-2"
    assert refusal_of(recipe) == (
        f"{run}/iteration-1/model: was made from other codes than {run}/iteration-1/codes: "
        f"remove {places}, to be made anew, or choose another `output_dir`."
    )


def test_codes_are_the_same_in_shards_of_another_size_and_when_they_are_made_again(recipe, run):
    shutil.rmtree(run / "iteration-1" / "codes")
    recipe["tokenize"]["shard_size"] = 7
    before = files_of(run / "iteration-1/model")
    iterate(IterateArguments(**recipe))
    assert files_of(run / "iteration-1/model") == before


@pytest.mark.parametrize(
    ("gone", "result", "places"),
    [
        ("iteration-2/tokenizer", "iteration-2/codes", ["iteration-2/codes", "iteration-2/model"]),
        (
            "iteration-1/model",
            "iteration-2/tokenizer",
            [f"iteration-2/{name}" for name in ("tokenizer", "codes", "model")],
        ),
    ],
)
def test_nothing_is_trained_in_the_place_of_what_is_gone(recipe, run, gone, result, places):
    shutil.rmtree(run / gone)
    named = ", ".join(f"{run}/{name}" for name in places)
    assert refusal_of(recipe) == (
        f"{run}/{result}: was made from {run}/{gone}, which is gone, and another one would be trained in its place: "
        f"put it back, or remove {named}, to be made anew."
    )
    assert not (run / gone).exists()
    for name in places:
        shutil.rmtree(run / name)
    iterate(IterateArguments(**recipe))
    iterate(IterateArguments(**recipe))


def test_another_random_projection_needs_other_codes(recipe, run):
    shutil.rmtree(run / "iteration-1" / "tokenizer")
    # The same one again.
    iterate(IterateArguments(**recipe))
    shutil.rmtree(run / "iteration-1" / "tokenizer")
    recipe["random_projection"] = {"codebook_size": 16}
    message = refusal_of(recipe)
    assert message.startswith(f"{run}/iteration-1/codes: was made from another tokenizer than")
    assert f"remove {run}/iteration-1/codes, {run}/iteration-1/model, {run}/iteration-2, to be made anew" in message


def test_results_of_an_earlier_version_are_kept(recipe, run):
    for file in run.rglob("origin.json"):
        file.unlink()
    for file in run.rglob("codes.json"):
        change_json(file, tokenizer=None)
    for place in ("iteration-1/tokenizer", "iteration-1/model"):
        change_weights(run / place)
    shutil.rmtree(run / "iteration-2/tokenizer")
    before = files_of(run)
    iterate(IterateArguments(**recipe))
    after = files_of(run)
    assert {path: after.get(path) for path in before} == before


def test_fingerprints_of_another_rule_are_not_compared(recipe, run):
    for file in (*run.rglob("origin.json"), *run.rglob("codes.json")):
        change_json(file, fingerprint_version=0)
    change_weights(run / "iteration-1/model")
    before = files_of(run)
    iterate(IterateArguments(**recipe))
    assert files_of(run) == before


@pytest.mark.parametrize("is_gone", [True, False])
def test_the_model_that_a_model_started_from_is_compared(recipe, run, is_gone):
    recipe["initialize_from_last"] = True
    shutil.rmtree(run / "iteration-2")
    iterate(IterateArguments(**recipe))
    # As with a classifier that was given, the tokenizer does not know the model.
    change_json(run / "iteration-2/tokenizer/origin.json", teacher_fingerprint=None)
    model = run / "iteration-1/model"
    if is_gone:
        shutil.rmtree(model)
    else:
        change_weights(model)
    message = f"was made from {model}, which is gone" if is_gone else f"was made from another model than {model}:"
    assert refusal_of(recipe).startswith(f"{run}/iteration-2/model: {message}")


def test_a_file_that_is_no_origin_is_named(recipe, run):
    (run / "iteration-2/tokenizer/origin.json").write_text("{")
    assert refusal_of(recipe).startswith(f"{run}/iteration-2/tokenizer/origin.json: cannot be read")


def test_a_run_goes_on_after_interruptions(recipe, run, monkeypatch):
    shutil.rmtree(run / "iteration-2")

    def stop(*args, **kwargs):
        sys.exit("killed")

    for name, place in (("train_tokenizer", "tokenizer"), ("tokenize", "codes"), ("pretrain", "model")):
        with monkeypatch.context() as patch:
            patch.setattr(f"transformers_beats.training.iterate.{name}", stop)
            with pytest.raises(SystemExit, match="killed"):
                iterate(IterateArguments(**recipe))
        assert not (run / "iteration-2" / place).exists()
    iterate(IterateArguments(**recipe))
    before = files_of(run)
    assert {run / f"iteration-2/{name}/origin.json" for name in ("tokenizer", "model")} < before.keys()
    iterate(IterateArguments(**recipe))
    assert files_of(run) == before


# Teachers


def test_the_tokenizer_of_another_classifier_is_refused(recipe, run, tmp_path):
    shutil.rmtree(run / "iteration-2")
    teacher = tmp_path / "teacher"
    BeatsForAudioClassification(BeatsConfig(**ENCODER, num_labels=3)).save_pretrained(teacher)
    shutil.copy(run / "feature-extractor" / "preprocessor_config.json", teacher)
    recipe |= {"num_iterations": 1, "supervised_teacher": str(teacher), "supervised_tokenizer": {"method": "k_means"}}
    iterate(IterateArguments(**recipe))
    iterate(IterateArguments(**recipe))
    change_weights(teacher)
    message = refusal_of(recipe)
    assert message.startswith(f"{run}/iteration-2+/tokenizer: was made from another teacher than {teacher}: remove")
    # That is the user's own.
    assert f"{teacher}," not in message.split("remove")[1]


def test_a_classifier_of_another_model_is_refused(recipe, run, sounds, tmp_path):
    shutil.rmtree(run / "iteration-2")
    for index, path in enumerate(sorted(sounds.iterdir())):
        folder = tmp_path / "labelled" / ("low", "high")[index // 6]
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, folder / path.name)
    own = {"dataset": str(tmp_path / "labelled"), **TRAINING, "max_steps": 1}
    recipe |= {"num_iterations": 1, "supervised_teacher": own}
    iterate(IterateArguments(**recipe))
    iterate(IterateArguments(**recipe))
    kept = {name: (run / "iteration-2+" / name).rename(tmp_path / name) for name in ("teacher", "model")}
    assert f"{run}/iteration-2+/tokenizer: was made from {run}/iteration-2+/teacher, which is gone" in refusal_of(
        recipe
    )
    kept["teacher"].rename(run / "iteration-2+" / "teacher")
    change_weights(run / "iteration-1" / "model")
    places = ", ".join(f"{run}/iteration-2+/{name}" for name in ("teacher", "tokenizer", "codes"))
    assert refusal_of(recipe) == (
        f"{run}/iteration-2+/teacher: was made from another model than {run}/iteration-1/model: "
        f"remove {places}, to be made anew, or choose another `output_dir`."
    )


# Statistics


def other_sounds(sounds: Path, folder: Path) -> str:
    """A copy of the sounds, and one more."""
    shutil.copytree(sounds, folder)
    soundfile.write(folder / "more.wav", 0.1 * np.random.default_rng(1).standard_normal(16000), 16000)
    return str(folder)


def test_statistics_of_other_clips_are_refused(recipe, run, sounds, tmp_path):
    recipe["data"]["dataset"] = other_sounds(sounds, tmp_path / "others")
    message = refusal_of(recipe)
    assert message.startswith(
        f"{run}/feature-extractor: has the statistics of other data (`clips` was 12 clips, digest "
    )
    assert ", and is 13 clips, digest " in message
    places = ", ".join(f"{run}/{name}" for name in ("feature-extractor", "iteration-1", "iteration-2"))
    assert f"remove {places}, to be made anew, or keep it by `feature_extractor: {run}/feature-extractor`." in message
    # Those that are given by hand are not compared.
    iterate(IterateArguments(**recipe | {"feature_extractor": f"{run}/feature-extractor"}))
    # New ones are not those that the rest was made with.
    shutil.rmtree(run / "feature-extractor")
    assert refusal_of(recipe).startswith(
        f"{run}/iteration-1/tokenizer: was made from another feature extractor than {run}/feature-extractor: remove"
    )


@pytest.mark.parametrize(
    ("name", "earlier", "value"), [("crop_seconds", 1.0, 0.5), ("num_crops", None, 2), ("crop_seed", 0, 1)]
)
def test_statistics_of_other_crops_are_refused(recipe, name, earlier, value):
    recipe["data"][name] = value
    assert f"has the statistics of other data (`{name}` was {earlier}, and is {value}): remove" in refusal_of(recipe)


def test_statistics_of_the_same_clips_elsewhere_are_kept(recipe, run, sounds, tmp_path):
    recipe["data"]["dataset"] = str(shutil.copytree(sounds, tmp_path / "elsewhere"))
    before = files_of(run)
    iterate(IterateArguments(**recipe))
    assert files_of(run) == before


def test_statistics_of_an_earlier_version_are_kept(recipe, run, sounds, tmp_path):
    (run / "feature-extractor" / "origin.json").unlink()
    recipe["data"]["dataset"] = other_sounds(sounds, tmp_path / "others")
    before = files_of(run)
    iterate(IterateArguments(**recipe))
    assert files_of(run) == before


def test_the_command_says_of_what_its_statistics_are(sounds, tmp_path):
    words = ["--dataset", str([str(sounds), str(sounds)]), "--dataset_weights", "[1, 2]", "--num_clips", "5"]
    statistics_main([*words, "--output_dir", str(tmp_path / "extractor")])
    origin = json.loads((tmp_path / "extractor" / "origin.json").read_text())
    clips = origin.pop("clips")
    assert clips.startswith("24 clips, digest ")
    assert origin.pop("fingerprint_version") == FINGERPRINT_VERSION
    expected = {"crop_seconds": 10.0, "num_crops": None, "crop_seed": 0, "num_clips": 5, "seed": 0}
    assert origin == expected | {"dataset_weights": [1, 2], "dataset_temperature": None}
    assert (
        BeatsFeatureExtractor.from_pretrained(tmp_path / "extractor").fbank_mean != BeatsFeatureExtractor().fbank_mean
    )
