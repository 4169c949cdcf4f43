# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""
What the tests run in processes of their own: `worker.py TASKS.json`, also under torchrun. TASKS is a list of names and
arguments: a process that imports all takes longer than any task.
"""

import gc
import json
import os
import signal
import sys
from pathlib import Path

import torch
from torch import distributed
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from transformers.trainer_callback import TrainerState

from transformers_beats import BeatsConfig, BeatsFeatureExtractor, BeatsForPreTraining
from transformers_beats.training.config.arguments import PRETRAIN_ARGUMENTS
from transformers_beats.training.config.distillation import DISTILL_ARGUMENTS
from transformers_beats.training.config.iterations import IterateArguments
from transformers_beats.training.config.recipes import build_arguments
from transformers_beats.training.data.clips import prepare_clips
from transformers_beats.training.data.labelled import LabelledClips, Windows
from transformers_beats.training.data.labels import Labels
from transformers_beats.training.data.sources import DataArguments, load_audio_dataset
from transformers_beats.training.distill import distill
from transformers_beats.training.evaluate import EVALUATE_ARGUMENTS, evaluate
from transformers_beats.training.iterate import iterate
from transformers_beats.training.trainers.checkpoints import TRAINER_STATE
from transformers_beats.training.trainers.pretraining import BeatsPreTrainer
from transformers_beats.utils.errors import BeatsError, run_command


class NoiseOfTheClip(BeatsPreTrainer):
    """Masks each clip by its length, so that it is the same in every process; all clips differ in length."""

    def _prepare_inputs(self, inputs):
        inputs = super()._prepare_inputs(inputs)
        num_patches = inputs["labels"][0].numel()
        seeds = (inputs["attention_mask"].sum(dim=1) + 1000 * self.state.global_step).tolist()
        noise = [torch.rand(num_patches, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
        return inputs | {"noise": torch.stack(noise)}


class RecordMasks(BeatsPreTrainer):
    """Keeps which patches each process has masked."""

    masks: list[torch.Tensor]

    def measure(self, outputs, inputs):
        self.masks = [*getattr(self, "masks", []), outputs["masked_positions"]]
        return super().measure(outputs, inputs)


def run_iterate(values: dict, trainer_class: type[BeatsPreTrainer] = NoiseOfTheClip) -> list[BeatsPreTrainer]:
    """`iterate`, with another trainer; returns the trainers that it made."""
    from transformers_beats.training import pretrain

    trainers = []

    def make(*args, **kwargs):
        trainers.append(trainer_class(*args, **kwargs))
        return trainers[-1]

    pretrain.BeatsPreTrainer = make
    try:
        iterate(IterateArguments(**values))
    finally:
        pretrain.BeatsPreTrainer = BeatsPreTrainer
    return trainers


def record_masks(values: dict) -> None:
    (trainer,) = run_iterate(values, RecordMasks)
    parts: list = [None] * distributed.get_world_size()
    distributed.all_gather_object(parts, torch.stack(trainer.masks))
    torch.save(parts, Path(values["output_dir"]) / "masks.pt")


class RecordClips(BeatsPreTrainer):
    """Keeps the lengths of the clips in each batch of a process."""

    clips: list[list[int]]

    def _prepare_inputs(self, inputs):
        self.clips = [*getattr(self, "clips", []), inputs["num_samples"].tolist()]
        return super()._prepare_inputs(inputs)


def record_clips(values: dict) -> None:
    """`pretrain`, and the clips that each process has read."""
    from transformers_beats.training import pretrain

    trainers = []

    def make(*args, **kwargs):
        trainers.append(RecordClips(*args, **kwargs))
        return trainers[-1]

    pretrain.BeatsPreTrainer = make
    try:
        pretrain.pretrain(*build_arguments(PRETRAIN_ARGUMENTS, values))
    finally:
        pretrain.BeatsPreTrainer = BeatsPreTrainer
    parts: list = [None] * distributed.get_world_size()
    distributed.all_gather_object(parts, trainers[0].clips)
    if distributed.get_rank() == 0:
        Path(values["output_dir"], "clips.json").write_text(json.dumps(parts))


def find_silence(values: dict) -> list[list[bool]]:
    """Returns the silence of windows of half a second of a folder; with `output`, each process writes what it has."""
    data = DataArguments(dataset=values["dataset"], crop_seconds=0.5)
    clips = prepare_clips(load_audio_dataset(data), data, 16000)
    config = BeatsConfig(**values["config"], num_labels=1)
    labels = Labels("frames", ["on"], [[] for _ in clips.names])
    targets = LabelledClips(labels, True, BeatsFeatureExtractor(), config)
    found = [
        silent.tolist() for silent in Windows(clips, data, BeatsFeatureExtractor(), targets, num_workers=1).silent
    ]
    if "output" in values:
        Path(f"{values['output']}-{distributed.get_rank()}.json").write_text(json.dumps(found))
    return found


def die_at(target: str) -> None:
    """Makes this process kill itself where the checkpoint `target` is all but written."""
    save_to_json = TrainerState.save_to_json

    def save_or_die(self, path):
        if path.endswith(f"{target}/{TRAINER_STATE}"):
            os.kill(os.getpid(), signal.SIGKILL)
        save_to_json(self, path)

    TrainerState.save_to_json = save_or_die


def run_until_killed(values: dict) -> None:
    """`iterate` until this process kills itself where the checkpoint `values["kill_at"]` is all but written."""
    die_at(values.pop("kill_at"))
    iterate(IterateArguments(**values))


def record_refusal(values: dict) -> None:
    """`iterate` after one process has changed a JSON file; each process writes the message of its error."""
    if distributed.get_rank() == 0:
        file = Path(values["file"])
        file.write_text(json.dumps(json.loads(file.read_text()) | values["changes"]))
    distributed.barrier()
    message = ""
    try:
        iterate(IterateArguments(**values["recipe"]))
    except BeatsError as error:
        message = str(error)
    Path(f"{values['output']}-{distributed.get_rank()}.txt").write_text(message)


def train_steps(model: BeatsForPreTraining, batches: list[dict]) -> list[float]:
    """Losses of a few steps of AdamW."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    losses = []
    for batch in batches:
        loss = model(**batch).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses


def train_fully_sharded(values: dict) -> None:
    """Every process takes its clips of each batch; process 0 writes what it learned. Ends the process."""
    if not distributed.is_initialized():
        distributed.init_process_group("gloo")
    rank, world_size = distributed.get_rank(), distributed.get_world_size()
    model = BeatsForPreTraining.from_pretrained(values["model"]).train()
    mesh = init_device_mesh("cpu", (world_size,))
    for layer in [*model.beats.encoder.layers, *model.label_predictor.encoder.layers]:
        fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh)
    batches = torch.load(values["batches"], weights_only=True)
    own = [{name: value.chunk(world_size)[rank] for name, value in batch.items()} for batch in batches]
    losses: list = [None] * world_size
    distributed.all_gather_object(losses, train_steps(model, own))
    full = StateDictOptions(full_state_dict=True, cpu_offload=True)
    state = get_model_state_dict(model, options=full)
    if rank == 0:
        fresh = BeatsForPreTraining(BeatsConfig.from_pretrained(values["model"]))
        fresh.save_pretrained(values["output_dir"], state_dict=state)
        Path(values["output_dir"], "losses.json").write_text(json.dumps(losses))
    # Caches of DTensor keep the group's threads alive, which abort a Python that shuts down (see `run_command`).
    os._exit(0)


if __name__ == "__main__":
    torch.set_num_threads(1)
    # Every training collects garbage, and what is imported is none.
    gc.freeze()
    tasks = {
        "iterate": run_iterate,
        "run_until_killed": run_until_killed,
        "record_masks": record_masks,
        "record_clips": record_clips,
        "die_at": die_at,
        "record_refusal": record_refusal,
        "find_silence": find_silence,
        "fully_shard": train_fully_sharded,
        "distill": lambda values: distill(*build_arguments(DISTILL_ARGUMENTS, values)),
        "evaluate": lambda values: evaluate(*build_arguments(EVALUATE_ARGUMENTS, values)),
    }
    run_command(lambda: [tasks[name](values) for name, values in json.loads(Path(sys.argv[1]).read_text())])
