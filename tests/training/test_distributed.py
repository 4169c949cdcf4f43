# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Two processes (gloo) against one."""

import copy
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tiny import ENCODER
from worker import run_iterate, train_steps

from transformers_beats import BeatsConfig, BeatsFeatureExtractor, BeatsForAudioClassification, BeatsForPreTraining
from transformers_beats.training.compute_codes import load_codes
from transformers_beats.training.config.recipes import build_arguments
from transformers_beats.training.data.sources import DataArguments
from transformers_beats.training.evaluate import EVALUATE_ARGUMENTS, evaluate


def launch(task: str, values: dict, tmp_path: Path) -> None:
    """Runs a task of the worker in two processes."""
    arguments = tmp_path / f"{task}.json"
    arguments.write_text(json.dumps(values))
    # `accelerate launch --cpu` starts one process only, whatever it is told.
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    command += [str(Path(__file__).with_name("worker.py")), task, str(arguments)]
    environment = os.environ | {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=570)
    assert result.returncode == 0, result.stdout[-500:] + result.stderr[-3000:]


def losses_of(directory: Path) -> dict[str, list[float]]:
    history = json.loads((directory / "log_history.json").read_text())
    names = ("loss", "accuracy", "distillation_loss", "code_perplexity")
    return {name: [entry[name] for entry in history if name in entry] for name in names}


def check_weights(actual: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert actual.keys() == expected.keys()
    for name, value in expected.items():
        # The same vector added to all keys changes no attention: the gradient is zero, and Adam enlarges its rounding.
        if not name.endswith("k_proj.bias"):
            torch.testing.assert_close(actual[name], value, rtol=0, atol=1e-5, msg=name)


@pytest.fixture
def runs(recipe, tmp_path) -> tuple[Path, Path]:
    """The same two iterations in one process and in two, with the same batches."""
    alone, together = copy.deepcopy(recipe), copy.deepcopy(recipe)
    alone["output_dir"], together["output_dir"] = str(tmp_path / "alone"), str(tmp_path / "together")
    for stage in ("model", "tokenizer"):
        together[stage]["per_device_train_batch_size"] //= 2
    run_iterate(alone)
    launch("iterate", together, tmp_path)
    return tmp_path / "alone", tmp_path / "together"


def test_two_processes_learn_what_one_learns(runs, recipe):
    alone, together = runs
    for stage in ("iteration-1/model", "iteration-2/tokenizer", "iteration-2/model"):
        expected, actual = losses_of(alone / stage), losses_of(together / stage)
        assert len(expected["loss"]) == 6
        for name, values in expected.items():
            assert actual[name] == pytest.approx(values, abs=1e-5), (stage, name)
        check_weights(*(load_file(run / stage / "model.safetensors") for run in (together, alone)))
    for number in (1, 2):
        codes = [
            load_codes(str(run / f"iteration-{number}" / "codes"), DataArguments(**recipe["data"]))[0] for run in runs
        ]
        assert codes[0]["codes"] == codes[1]["codes"]


def test_processes_mask_differently(recipe, tmp_path):
    recipe |= {"num_iterations": 1}
    launch("record_masks", recipe, tmp_path)
    first, second = torch.load(tmp_path / "run" / "masks.pt", weights_only=True)
    assert first.shape == second.shape == (6, 4, first.shape[2])
    assert not (first == second).all(dim=-1).any()


def test_two_processes_classify_as_one_does(sounds, tmp_path):
    rows = [f"{path.name},{'odd' if index % 2 else 'even'}" for index, path in enumerate(sorted(sounds.iterdir()))]
    (sounds / "metadata.csv").write_text("\n".join(["file_name,label", *rows]))
    torch.manual_seed(0)
    labels = {"id2label": {0: "odd", 1: "even"}, "problem_type": "single_label_classification"}
    BeatsForAudioClassification(BeatsConfig(**ENCODER, **labels)).save_pretrained(tmp_path / "model")
    BeatsFeatureExtractor().save_pretrained(tmp_path / "model")
    # Windows of half a second: one or two for each clip, and more for one process than for the other.
    values = {"model": str(tmp_path / "model"), "dataset": str(sounds), "crop_seconds": 0.5, "batch_size": 4}
    metrics = evaluate(*build_arguments(EVALUATE_ARGUMENTS, values | {"output_dir": str(tmp_path / "one")}))
    launch("evaluate", values | {"output_dir": str(tmp_path / "two")}, tmp_path)
    one, two = (json.loads((tmp_path / name / "metrics.json").read_text()) for name in ("one", "two"))
    assert one["metrics"] == metrics
    assert one["num_clips"] == two["num_clips"] == 12
    scores = [
        np.genfromtxt(tmp_path / name / "predictions.csv", delimiter=",", skip_header=1)[:, 3:]
        for name in ("one", "two")
    ]
    np.testing.assert_allclose(scores[1], scores[0], atol=1e-6)


def test_fully_sharded_training_is_the_same_and_reloads(tmp_path):
    config = BeatsConfig(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=48,
        embed_dim=16,
        num_conv_pos_embeddings=16,
        num_conv_pos_embedding_groups=2,
        codebook_size=16,
        label_predictor_num_hidden_layers=1,
        hidden_dropout=0.0,
        attention_dropout=0.0,
        feat_proj_dropout=0.0,
        layerdrop=0.0,
    )
    torch.manual_seed(0)
    model = BeatsForPreTraining(config).train()
    model.save_pretrained(tmp_path / "start")
    batches = [
        {"input_values": torch.randn(4, 96, 128), "labels": torch.randint(16, (4, 6, 8)), "noise": torch.rand(4, 48)}
        for _ in range(3)
    ]
    torch.save(batches, tmp_path / "batches.pt")
    values = {"model": tmp_path / "start", "batches": tmp_path / "batches.pt", "output_dir": tmp_path / "trained"}
    launch("fully_shard", {name: str(path) for name, path in values.items()}, tmp_path)

    expected = train_steps(model, batches)
    per_process = json.loads((tmp_path / "trained" / "losses.json").read_text())
    assert torch.tensor(per_process).mean(dim=0).tolist() == pytest.approx(expected, abs=1e-5)
    trained = BeatsForPreTraining.from_pretrained(tmp_path / "trained")
    check_weights(trained.state_dict(), model.state_dict())
