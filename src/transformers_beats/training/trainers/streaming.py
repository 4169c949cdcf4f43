# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Streams in a training: their batches, and where they were in a checkpoint."""

from pathlib import Path
from typing import Any

from accelerate.utils import gather_object
from transformers import Trainer, TrainerCallback
from transformers.trainer_callback import TrainerState

from transformers_beats.training.data.streams import StreamingCrops, StreamLoader
from transformers_beats.utils.errors import BeatsError

from .checkpoints import TRAINER_STATE


# Entry of the callbacks' states in the trainer's state, which is written last of all files of a checkpoint.
STREAM = "stream"


class EpochOfStream(TrainerCallback):
    """Logs the epoch of a stream, which has no end and is a single epoch for `Trainer`."""

    def on_step_end(self, args, state, control, train_dataloader: Any = None, **kwargs):
        if isinstance(train_dataloader, StreamLoader):
            state.epoch = train_dataloader.epoch


def keep_positions(state: TrainerState, loader: StreamLoader) -> None:
    """Puts the positions of all processes into the state that the next checkpoint has; called by every process."""
    states = gather_object([loader.state()])
    callbacks: Any = state.stateful_callbacks
    callbacks[STREAM] = {"args": {}, "attributes": {"states": states}}


def read_positions(checkpoint: Path, process_index: int) -> dict[str, Any]:
    """
    Reads the positions of the readers of a process from a checkpoint.

    Raises:
        [`BeatsError`]: if it has none.
    """
    callbacks: Any = TrainerState.load_from_json(str(checkpoint / TRAINER_STATE)).stateful_callbacks
    states = callbacks.get(STREAM, {}).get("attributes", {}).get("states", [])
    if process_index >= len(states):
        raise BeatsError(f"{checkpoint}: does not say where its stream was: remove it, to go on from another one.")
    return states[process_index]


def build_stream_loader(trainer: Trainer, crops: StreamingCrops, checkpoint: Path | None) -> StreamLoader:
    """Builds the batches of this process, from the positions of a checkpoint on if there is one."""
    args = trainer.args
    return StreamLoader(
        crops,
        args.train_batch_size,
        trainer.data_collator,
        num_workers=args.dataloader_num_workers,
        state=None if checkpoint is None else read_positions(checkpoint, args.process_index),
        pin_memory=args.dataloader_pin_memory,
        prefetch_factor=args.dataloader_prefetch_factor,
        multiprocessing_context=args.dataloader_multiprocessing_context,
    )
