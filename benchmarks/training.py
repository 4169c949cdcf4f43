# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Parts of the benchmark about training: time and memory of steps of fine-tuning and of pre-training."""

import math
import statistics
import tempfile
import warnings
from collections.abc import Iterator
from functools import partial
from itertools import product
from pathlib import Path

import torch
from transformers import ASTForAudioClassification, PreTrainedModel

from benchmarks.measuring import Call, clock, count_operations, in_fresh_process, peak_memory, time_alternately
from benchmarks.options import NUM_LABELS, SIZES, Options, build_classifier, measure
from benchmarks.peers import AST, AudioSpectrogramTransformer
from benchmarks.report import Row, describe_size
from transformers_beats import BeatsConfig, BeatsForPreTraining
from transformers_beats.modeling_beats import BeatsEncoder, gather_patches


NUM_PROCESSES = 2
ALL_PATCHES, PLAIN = "all patches", "fp32"
# The new names of the methods for gradient checkpointing are younger than the oldest transformers that will do.
warnings.filterwarnings("ignore", "`gradient_checkpointing", FutureWarning)


class EncodeAllPatches(BeatsEncoder):
    """Peer that takes every patch through the layers and picks out the kept ones afterwards: the same loss."""

    def forward(self, hidden_states, patch_attention_mask=None, kept_positions=None, **kwargs):
        hidden_states = super().forward(hidden_states, patch_attention_mask, **kwargs)
        return hidden_states if kept_positions is None else gather_patches(hidden_states, kept_positions)


class Training:
    """A model and, unless left out, its optimizer, which do steps of training."""

    def __init__(self, model: PreTrainedModel, has_optimizer: bool = True):
        self.model = model.train()
        # As `Trainer` does by default.
        self.optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, fused=True) if has_optimizer else None

    def step(self, batch: dict[str, torch.Tensor], bf16: bool = False, checkpointing: bool = False) -> float:
        """Does a step and returns the loss, when the device has computed it."""
        device = batch["input_values"].device.type
        # That of several processes is wrapped.
        model = getattr(self.model, "module", self.model)
        if checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": False})
        else:
            model.gradient_checkpointing_disable()
        with torch.autocast(device, torch.bfloat16, enabled=bf16):
            loss = self.model(**batch).loss
        loss.backward()
        if self.optimizer is not None:
            self.optimizer.step()
        self.model.zero_grad()
        if not math.isfinite(loss.item()):
            raise ValueError(f"The loss is {loss.item()}.")
        if device == "cuda":
            torch.cuda.synchronize()
        return loss.item()


def build_pretraining(encodes_all: bool, layers: int, device: str, size: str = "base") -> Training:
    """Masked acoustic modelling without dropout, so that both ways of encoding compute the same."""
    torch.manual_seed(0)
    config = BeatsConfig(
        **SIZES[size],
        num_hidden_layers=layers,
        hidden_dropout=0.0,
        attention_dropout=0.0,
        feat_proj_dropout=0.0,
        layerdrop=0.0,
    )
    model = BeatsForPreTraining(config)
    if encodes_all:
        model.beats.encoder.__class__ = EncodeAllPatches
    return Training(model.to(device), has_optimizer=False)


def make_batch(batch_size: int, seconds: float, device: str, for_pretraining: bool = False) -> dict[str, torch.Tensor]:
    """Noise in the shape of fbanks without padding, with two labels or so a clip, or with codes and masking noise."""
    generator = torch.Generator().manual_seed(0)
    num_frames = int(seconds * 100) - 2
    batch = {"input_values": torch.randn(batch_size, num_frames, 128, generator=generator)}
    if for_pretraining:
        num_columns = num_frames // 16
        batch["labels"] = torch.randint(1024, (batch_size, num_columns, 8), generator=generator)
        batch["noise"] = torch.rand(batch_size, num_columns * 8, generator=generator)
    else:
        batch["attention_mask"] = torch.ones(batch_size, num_frames, dtype=torch.int32)
        batch["labels"] = (torch.rand(batch_size, NUM_LABELS, generator=generator) < 2 / NUM_LABELS).float()
    return {name: value.to(device) for name, value in batch.items()}


def make_ast_batch(batch: dict[str, torch.Tensor], model: ASTForAudioClassification) -> dict[str, torch.Tensor]:
    labels = batch["labels"]
    shape = (len(labels), model.config.max_length, model.config.num_mel_bins)
    return {"input_values": torch.randn(shape, device=labels.device), "labels": labels}


def name_precision(is_autocast: bool) -> str:
    return "bf16 autocast" if is_autocast else PLAIN


def training_rate(rates: dict[str, float], is_autocast: bool) -> float:
    """Rate of matrix products in the precision of a step of training."""
    return next(rate for precision, rate in rates.items() if (precision != "fp32") == is_autocast)


def finetuning(options: Options) -> Iterator[Row]:
    """A step of fine-tuning with AdamW, and AST's."""
    ours = Training(build_classifier(options.layers, options.device))
    for batch_size, seconds in options.training_sizes:
        batch = make_batch(batch_size, seconds, options.device)
        peer = AudioSpectrogramTransformer(seconds, NUM_LABELS, options.layers, options.device, torch.float32)
        ast, ast_batch = Training(peer.model), make_ast_batch(batch, peer.model)
        calls: dict[str, Call] = {}
        for is_autocast in options.autocasts:
            calls[name_precision(is_autocast)] = partial(ours.step, batch, is_autocast)
            calls[f"AST {name_precision(is_autocast)}"] = partial(ast.step, ast_batch, is_autocast)
        times, rates = measure(calls, options)
        single = {name: value[:1] for name, value in batch.items()}
        operations = batch_size * count_operations(partial(ours.step, single))
        for is_autocast in options.autocasts:
            name = name_precision(is_autocast)
            yield Row(
                "finetuning",
                f"{describe_size(batch_size, seconds)}, {name}",
                1000 * times[name],
                {AST: 1000 * times[f"AST {name}"]},
                roofline=operations / times[name] / training_rate(rates, is_autocast),
                details={"clips per second": batch_size / times[name]},
                audio_seconds=batch_size * seconds,
            )


def pretraining(options: Options) -> Iterator[Row]:
    """A step of masked acoustic modelling: only the kept patches in the encoder, and all."""
    size = (options.layers, options.device, options.size)
    ours, peer = (build_pretraining(encodes_all, *size) for encodes_all in (False, True))
    for batch_size, seconds in options.training_sizes:
        batch = make_batch(batch_size, seconds, options.device, for_pretraining=True)
        calls: dict[str, Call] = {}
        for is_autocast in options.autocasts:
            calls[name_precision(is_autocast)] = partial(ours.step, batch, is_autocast)
            calls[f"{ALL_PATCHES}, {name_precision(is_autocast)}"] = partial(peer.step, batch, is_autocast)
        times, rates = measure(calls, options)
        single = {name: value[:1] for name, value in batch.items()}
        operations, of_peer = (batch_size * count_operations(partial(each.step, single)) for each in (ours, peer))
        for is_autocast in options.autocasts:
            name = name_precision(is_autocast)
            yield Row(
                "pretraining",
                f"{describe_size(batch_size, seconds)}, {name}",
                1000 * times[name],
                {ALL_PATCHES: 1000 * times[f"{ALL_PATCHES}, {name}"]},
                roofline=operations / times[name] / training_rate(rates, is_autocast),
                details={
                    "clips per second": batch_size / times[name],
                    "patches per second": batch["noise"].numel() / times[name],
                    "TFLOP": operations / 1e12,
                    f"TFLOP, {ALL_PATCHES}": of_peer / 1e12,
                    "loss": ours.step(batch, is_autocast),
                    f"loss, {ALL_PATCHES}": peer.step(batch, is_autocast),
                },
                audio_seconds=batch_size * seconds,
            )


def step_in_processes(rank: int, address: str, output: str, size: tuple, batch: tuple, bf16: bool, steps: int) -> None:
    """A process of several that pre-train one model: writes the median seconds of a step, of the first process."""
    layers, device, name = size
    torch.set_num_threads(max(1, torch.get_num_threads() // NUM_PROCESSES))
    place = f"cuda:{rank}" if device == "cuda" else "cpu"
    if device == "cuda":
        torch.cuda.set_device(rank)
    backend = "nccl" if device == "cuda" else "gloo"
    torch.distributed.init_process_group(backend, f"file://{address}", rank=rank, world_size=NUM_PROCESSES)
    try:
        training = build_pretraining(False, layers, place, name)
        training.model = torch.nn.parallel.DistributedDataParallel(training.model)
        inputs = make_batch(*batch, place, for_pretraining=True)
        seconds = []
        for _ in range(1 + steps):
            torch.distributed.barrier()
            seconds.append(clock(partial(training.step, inputs, bf16), device))
        if rank == 0:
            Path(output).write_text(str(statistics.median(seconds[1:])))
    finally:
        torch.distributed.destroy_process_group()


def processes(options: Options) -> Iterator[Row]:
    """A step of two processes that share the gradients, each with a batch, and one process's steps on both batches."""
    if options.device == "cuda" and torch.cuda.device_count() < NUM_PROCESSES:
        return
    size = (options.layers, options.device, options.size)
    for (batch_size, seconds), is_autocast in product(options.training_sizes, options.autocasts):
        with tempfile.TemporaryDirectory() as directory:
            address, output = (str(Path(directory) / name) for name in ("address", "seconds"))
            arguments = (address, output, size, (batch_size, seconds), is_autocast, options.repeats)
            torch.multiprocessing.spawn(step_in_processes, arguments, nprocs=NUM_PROCESSES)
            together = 1000 * float(Path(output).read_text())
        alone = build_pretraining(False, *size)
        batch = make_batch(batch_size, seconds, options.device, for_pretraining=True)
        step = partial(alone.step, batch, is_autocast)
        times = time_alternately({"one": step}, options.repeats, options.device)
        yield Row(
            "processes",
            f"{NUM_PROCESSES} x {describe_size(batch_size, seconds)}, {name_precision(is_autocast)}",
            together,
            {"one process": 1000 * NUM_PROCESSES * times["one"]},
            details={"clips per second": 1000 * NUM_PROCESSES * batch_size / together},
        )


def finetuning_peak(bf16: bool, checkpointing: bool, batch_size: int, seconds: float, layers: int, device: str) -> int:
    """
    In a fresh process: bytes at the peak of a fine-tuning, that is, of weights, gradients, AdamW's averages and
    activations. The second step is the first that has all of them at once.
    """

    def train() -> None:
        training = Training(build_classifier(layers, device))
        batch = make_batch(batch_size, seconds, device)
        for _ in range(2):
            training.step(batch, bf16, checkpointing)

    return peak_memory(train, device)


def finetuning_memory(options: Options) -> Iterator[Row]:
    """Memory of fine-tuning with and without gradient checkpointing and bf16 autocast, and what it costs in time."""
    training = Training(build_classifier(options.layers, options.device))
    for batch_size, seconds in options.training_sizes:
        batch = make_batch(batch_size, seconds, options.device)
        settings = {PLAIN: (False, False)}
        for is_autocast in options.autocasts:
            settings[name_precision(is_autocast)] = (is_autocast, False)
            settings[f"{name_precision(is_autocast)}, checkpointing"] = (is_autocast, True)
        calls: dict[str, Call] = {name: partial(training.step, batch, *values) for name, values in settings.items()}
        times = time_alternately(calls, options.repeats, options.device)
        size = (batch_size, seconds, options.layers, options.device)
        peaks = {name: in_fresh_process(finetuning_peak, *values, *size) / 2**20 for name, values in settings.items()}
        for name, peak in peaks.items():
            yield Row(
                "finetuning_memory",
                f"{describe_size(batch_size, seconds)}, {name}",
                peak,
                {PLAIN: peaks[PLAIN]},
                unit="MiB",
                details={"ms": 1000 * times[name], f"time / {PLAIN}": times[name] / times[PLAIN]},
            )


def pretraining_peak(encodes_all: bool, bf16: bool, batch_size: int, seconds: float, layers: int, device: str) -> int:
    """In a fresh process: bytes at the peak of one step above what the model and the batch take."""
    training = build_pretraining(encodes_all, layers, device)
    batch = make_batch(batch_size, seconds, device, for_pretraining=True)
    return peak_memory(partial(training.step, batch, bf16), device)


def pretraining_memory(options: Options) -> Iterator[Row]:
    """Memory of a step of masked acoustic modelling: only the kept patches in the encoder, and all."""
    for batch_size, seconds in options.training_sizes:
        for is_autocast in options.autocasts:
            ours, peer = (
                in_fresh_process(
                    pretraining_peak, encodes_all, is_autocast, batch_size, seconds, options.layers, options.device
                )
                / 2**20
                for encodes_all in (False, True)
            )
            setting = f"{describe_size(batch_size, seconds)}, {name_precision(is_autocast)}"
            yield Row("pretraining_memory", setting, ours, {ALL_PATCHES: peer}, unit="MiB")
