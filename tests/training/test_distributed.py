# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Two processes (gloo) against one."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from safetensors.torch import load_file
from tiny import ENCODER, TRAINING, make_recipe, make_sounds
from worker import find_silence, run_iterate, train_steps

from transformers_beats import BeatsConfig, BeatsFeatureExtractor, BeatsForAudioClassification, BeatsForPreTraining
from transformers_beats.training.compute_codes import load_codes
from transformers_beats.training.config.distillation import DISTILL_ARGUMENTS
from transformers_beats.training.config.iterations import IterateArguments
from transformers_beats.training.config.recipes import build_arguments
from transformers_beats.training.data.sources import DataArguments
from transformers_beats.training.distill import distill
from transformers_beats.training.evaluate import EVALUATE_ARGUMENTS, evaluate
from transformers_beats.training.fbank_statistics import StatisticsArguments, compute_statistics


# What is changed in a finished run: a name, a file, and its new values.
REFUSALS = [
    ("codes", "iteration-1/codes/codes.json", {"tokenizer": "another"}),
    ("statistics", "feature-extractor/origin.json", {"clips": "others"}),
]


def launch(tasks: list[tuple[str, Any]], directory: Path, is_killed: bool = False) -> None:
    """Runs tasks of the worker, one after the other, in two processes."""
    (directory / "tasks.json").write_text(json.dumps(tasks))
    # `accelerate launch --cpu` starts one process only, whatever it is told.
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    command += [str(Path(__file__).with_name("worker.py")), str(directory / "tasks.json")]
    environment = os.environ | {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=570)
    assert (result.returncode != 0) == is_killed, result.stdout[-500:] + result.stderr[-3000:]


def losses_of(directory: Path) -> dict[str, list[float]]:
    history = json.loads((directory / "log_history.json").read_text())
    names = ("loss", "accuracy", "distillation_loss", "code_perplexity", "logits_loss", "representation_loss")
    return {name: [entry[name] for entry in history if name in entry] for name in names}


def check_weights(actual: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert actual.keys() == expected.keys()
    for name, value in expected.items():
        # The same vector added to all keys changes no attention: the gradient is zero, and Adam enlarges its rounding.
        if not name.endswith("k_proj.bias"):
            torch.testing.assert_close(actual[name], value, rtol=0, atol=1e-5, msg=name)


@pytest.fixture(scope="module")
def together(tmp_path_factory, cache_of_the_module) -> Path:
    """A directory of inputs, and of what two processes made of them in `run`, `masks`, `metrics` and `sharded`."""
    directory = tmp_path_factory.mktemp("together")
    sounds = make_sounds(directory / "sounds")
    recipe = make_recipe(sounds, directory / "run")
    for stage in ("model", "tokenizer"):
        # The batches of one process, in two.
        recipe[stage]["per_device_train_batch_size"] //= 2
    masks = make_recipe(sounds, directory / "masks") | {"num_iterations": 1, "feature_extractor": "corpus"}
    classifier = make_classifier(directory) | {"output_dir": str(directory / "metrics")}
    names = {"model": "start", "batches": "batches.pt", "output_dir": "sharded"}
    sharded = {key: str(directory / name) for key, name in names.items()}
    model, batches = make_pretraining_model()
    model.save_pretrained(sharded["model"])
    torch.save(batches, sharded["batches"])
    student = make_distillation(directory) | {"output_dir": str(directory / "student")}
    student["per_device_train_batch_size"] //= 2
    tasks = [("iterate", recipe), ("record_masks", masks), ("evaluate", classifier), ("distill", student)]
    tasks.append(("find_silence", make_gaps(directory) | {"output": str(directory / "silence")}))
    # Again, with nothing changed, and with what was.
    tasks.append(("iterate", masks))
    for name, file, changes in REFUSALS:
        values = {"recipe": masks, "file": str(directory / "masks" / file), "changes": changes}
        tasks.append(("record_refusal", values | {"output": str(directory / f"refused-{name}")}))
    # The last ends the processes.
    tasks.append(("fully_shard", sharded))
    launch(tasks, directory)
    return directory


def make_classifier(directory: Path) -> dict:
    """Makes a classifier and labelled sounds; returns arguments of `evaluate`."""
    sounds = make_sounds(directory / "labelled")
    rows = [f"{path.name},{'odd' if index % 2 else 'even'}" for index, path in enumerate(sorted(sounds.iterdir()))]
    (sounds / "metadata.csv").write_text("\n".join(["file_name,label", *rows]))
    torch.manual_seed(0)
    labels = {"id2label": {0: "odd", 1: "even"}, "problem_type": "single_label_classification"}
    BeatsForAudioClassification(BeatsConfig(**ENCODER, **labels)).save_pretrained(directory / "classifier")
    BeatsFeatureExtractor().save_pretrained(directory / "classifier")
    # Windows of half a second: one or two for each clip, and more for one process than for the other.
    return {"model": str(directory / "classifier"), "dataset": str(sounds), "crop_seconds": 0.5, "batch_size": 4}


def make_gaps(directory: Path) -> dict:
    """Writes recordings with gaps of digital silence; returns arguments of `find_silence`."""
    (directory / "gaps").mkdir()
    for number in range(5):
        samples = 0.1 * np.random.default_rng(number).standard_normal(4000 * (number + 1))
        samples[1000 * number : 1000 * number + 3000] = 0
        soundfile.write(directory / "gaps" / f"{number}.wav", samples, 16000)
    return {"dataset": str(directory / "gaps"), "config": ENCODER}


def make_distillation(directory: Path) -> dict:
    """Returns arguments of `distill`, of a student of the classifier in a directory."""
    values = {"teacher": str(directory / "classifier"), "dataset": str(directory / "sounds"), "crop_seconds": 1.0}
    return {**values, "model_config": {"num_hidden_layers": 1, "hidden_size": 16, "embed_dim": 16}, **TRAINING}


def make_pretraining_model() -> tuple[BeatsForPreTraining, list[dict]]:
    """Returns a model and batches for it, the same every time."""
    torch.manual_seed(0)
    model = BeatsForPreTraining(BeatsConfig(**ENCODER, codebook_size=16, label_predictor_num_hidden_layers=1)).train()
    batches = [
        {"input_values": torch.randn(4, 96, 128), "labels": torch.randint(16, (4, 6, 8)), "noise": torch.rand(4, 48)}
        for _ in range(3)
    ]
    return model, batches


def test_two_processes_learn_what_one_learns(together, tmp_path):
    recipe = make_recipe(together / "sounds", tmp_path / "run")
    run_iterate(recipe)
    runs = tmp_path / "run", together / "run"
    for stage in ("iteration-1/model", "iteration-2/tokenizer", "iteration-2/model"):
        expected, actual = (losses_of(run / stage) for run in runs)
        assert len(expected["loss"]) == 6
        for name, values in expected.items():
            assert actual[name] == pytest.approx(values, abs=1e-5), (stage, name)
        expected, actual = (load_file(run / stage / "model.safetensors") for run in runs)
        check_weights(actual, expected)
    for number in (1, 2):
        codes = [
            load_codes(str(run / f"iteration-{number}" / "codes"), DataArguments(**recipe["data"]))[0] for run in runs
        ]
        assert codes[0]["codes"] == codes[1]["codes"]


def test_processes_mask_differently(together):
    first, second = torch.load(together / "masks" / "masks.pt", weights_only=True)
    assert first.shape == second.shape == (6, 4, first.shape[2])
    assert not (first == second).all(dim=-1).any()


def test_one_of_two_processes_writes_the_statistics_of_the_clips(together, tmp_path):
    data = DataArguments(str(together / "sounds"), crop_seconds=1.0)
    expected = compute_statistics(StatisticsArguments(str(tmp_path / "extractor")), data)
    for place in ("feature-extractor", "iteration-1/model"):
        assert BeatsFeatureExtractor.from_pretrained(together / "masks" / place).to_dict() == expected.to_dict()


@pytest.mark.parametrize(("name", "file", "changes"), REFUSALS)
def test_all_processes_refuse_what_was_made_from_something_else(together, name, file, changes):
    one, two = (together.joinpath(f"refused-{name}-{rank}.txt").read_text() for rank in range(2))
    assert one == two
    assert one.startswith(f"{together / 'masks' / Path(file).parent}: ")


def test_two_processes_classify_as_one_does(together, tmp_path):
    values = make_classifier(tmp_path) | {"output_dir": str(tmp_path / "metrics")}
    metrics = evaluate(*build_arguments(EVALUATE_ARGUMENTS, values))
    runs = tmp_path / "metrics", together / "metrics"
    one, two = (json.loads((run / "metrics.json").read_text()) for run in runs)
    assert one["metrics"] == metrics
    assert one["num_clips"] == two["num_clips"] == 12
    scores = [np.genfromtxt(run / "predictions.csv", delimiter=",", skip_header=1)[:, 3:] for run in runs]
    np.testing.assert_allclose(scores[1], scores[0], atol=1e-6)


def test_two_processes_find_the_silence_that_one_finds(together, tmp_path):
    found = find_silence(make_gaps(tmp_path))
    # One more for one process than for the other.
    assert len(found) == 9
    assert 0 < sum(map(sum, found)) < sum(map(len, found))
    for rank in range(2):
        assert json.loads((together / f"silence-{rank}.json").read_text()) == found


def test_two_processes_distill_what_one_does(together, tmp_path):
    values = make_distillation(together) | {"output_dir": str(tmp_path / "student")}
    distill(*build_arguments(DISTILL_ARGUMENTS, values))
    expected, actual = (losses_of(place / "student") for place in (tmp_path, together))
    assert len(expected["loss"]) == len(expected["representation_loss"]) == 6
    for name, found in expected.items():
        assert actual[name] == pytest.approx(found, abs=1e-5), name
    expected, actual = (load_file(place / "student" / "model.safetensors") for place in (tmp_path, together))
    check_weights(actual, expected)


def test_fully_sharded_training_is_the_same_and_reloads(together):
    model, batches = make_pretraining_model()
    expected = train_steps(model, batches)
    per_process = json.loads((together / "sharded" / "losses.json").read_text())
    assert torch.tensor(per_process).mean(dim=0).tolist() == pytest.approx(expected, abs=1e-5)
    trained = BeatsForPreTraining.from_pretrained(together / "sharded")
    check_weights(trained.state_dict(), model.state_dict())


@pytest.mark.slow
def test_processes_go_on_with_streams_and_shares_after_a_kill(together, tmp_path):
    recipe = make_recipe(together / "sounds", tmp_path / "run")
    # Two processes of two workers: a batch is what a worker reads in an epoch, and two steps are an epoch of all.
    recipe["model"] |= {"per_device_train_batch_size": 3, "dataloader_num_workers": 2}
    recipe["model"]["model_config"] |= {"hidden_dropout": 0.1, "layerdrop": 0.1}
    tokenizer = str(together / "run" / "iteration-1" / "tokenizer")
    values = IterateArguments(**recipe).stage_values("model", tokenizer=tokenizer, streaming=True)
    # Epochs of two steps, in shares: the kill is within the third.
    for index, path in enumerate(sorted((together / "sounds").iterdir())):
        target = tmp_path / ("few" if index < 3 else "many") / path.name
        target.parent.mkdir(exist_ok=True)
        shutil.copy(path, target)
    shares = {"dataset": [str(tmp_path / "few"), str(tmp_path / "many")], "dataset_weights": [1, 1]}
    shares |= {"streaming": False, "save_steps": 1}
    kinds = {"": (values, 4), "-shares": (values | shares, 6)}
    named = [
        (f"{name}{kind}", of_kind | {"output_dir": str(tmp_path / f"{name}{kind}")}, step)
        for name in ("one-go", "killed")
        for kind, (of_kind, step) in kinds.items()
    ]
    launch([("record_clips", of_run) for _, of_run, _ in named[:2]], tmp_path)
    for name, of_run, step in named[2:]:
        launch([("die_at", f"checkpoint-{step}"), ("record_clips", of_run)], tmp_path, is_killed=True)
        assert not (tmp_path / name).exists()
    launch([("record_clips", of_run) for _, of_run, _ in named[2:]], tmp_path)
    assert losses_of(tmp_path / "killed-shares") == losses_of(tmp_path / "one-go-shares")
    # All clips differ in length.
    all_clips = np.linspace(7200, 16000, 12).astype(int).tolist()
    clips, rest = (json.loads((tmp_path / name / "clips.json").read_text()) for name in ("one-go", "killed"))
    for epoch in range(3):
        steps = [batch for process in clips for batch in process[2 * epoch : 2 * epoch + 2]]
        assert sorted(length for batch in steps for length in batch) == all_clips
    assert [process[2:] for process in clips] == rest
    assert losses_of(tmp_path / "killed") == losses_of(tmp_path / "one-go")
