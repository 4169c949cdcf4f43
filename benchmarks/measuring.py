# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Time, memory and operations of calls."""

import math
import os
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import cache, partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode


Call: TypeAlias = Callable[[], Any]

# A turn of a call lasts at least so long: shorter ones are repeated within it, since clock and scheduler are coarse.
TURN_SECONDS = 0.05
# Sizes of the square matrices whose product shows what the machine can do.
MATRIX_SIZES = {"cpu": (1024, 2048, 3072), "cuda": (4096, 8192)}
# Which of PyTorch's operations do the work of matrix products, under names for the table. The time counts where it is
# spent, not in what calls it.
OPERATION_KINDS = {
    "matrix products": ("mm", "addmm", "bmm", "baddbmm", "mkldnn_linear", "_linear_pointwise"),
    "fused attention": (
        "_attention_for_cpu",
        "_flash_attention_forward",
        "_efficient_attention_forward",
        "_cudnn_attention_forward",
    ),
    "convolutions": ("convolution", "conv1d", "conv2d", "slow_conv2d_forward"),
}


def choose_device() -> str:
    """
    The GPU, if there is one that PyTorch can use. Its convolutions then compute in float32 where float32 is asked for:
    by default they do not, but matrix products do, whose rate the convolutions are measured by.
    """
    torch.backends.cudnn.allow_tf32 = False
    return "cuda" if torch.cuda.is_available() else "cpu"


def clock(call: Call, device: str) -> float:
    """Seconds that a call takes, including what it leaves to the GPU."""
    if device == "cuda":
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda.synchronize()
        start.record()
        call()
        end.record()
        torch.cuda.synchronize()
        return start.elapsed_time(end) / 1000
    start_time = time.perf_counter()
    call()
    return time.perf_counter() - start_time


def time_alternately(calls: dict[str, Call], repeats: int, device: str) -> dict[str, float]:
    """
    Median seconds of each of several calls. They take turns, so that a machine that slows down slows all.

    Args:
        calls (`dict[str, Call]`):
            What to time, by name.
        repeats (`int`):
            Timed turns of each, after one for warming up.
        device (`str`):
            `"cpu"` or `"cuda"`.
    """
    counts: dict[str, int] = {}
    short = set()
    for name, call in calls.items():
        # The first call allocates and perhaps compiles.
        call()
        seconds = clock(call, device)
        counts[name] = max(1, math.ceil(TURN_SECONDS / max(seconds, 1e-6)))
        if seconds < 1.0:
            short.add(name)
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(repeats):
        for name, call in calls.items():
            if name in short:
                # What the call before left behind, such as memory given back and sleeping threads, is not to count.
                call()
            seconds = clock(lambda: [call() for _ in range(counts[name])], device)  # noqa: B023
            times[name].append(seconds / counts[name])
    return {name: statistics.median(values) for name, values in times.items()}


def convolution_backward_operations(grad_shape, _, weight_shape, *args, out_shape=None, **kwargs) -> int:
    """Each gradient costs what the convolution cost. PyTorch's own count leaves `groups` out for the weights'."""
    output_mask = args[-1]
    return sum(output_mask[:2]) * 2 * math.prod(grad_shape) * math.prod(weight_shape[1:])


def count_operations(call: Call) -> int:
    """Floating-point operations of the matrix products and convolutions of a call."""
    custom = {torch.ops.aten.convolution_backward: convolution_backward_operations}
    counter = FlopCounterMode(display=False, custom_mapping=custom)
    with counter:
        call()
    return counter.get_total_flops()


class MatrixProduct(NamedTuple):
    """A matrix product, its operations, and the operations in a second at which it was seen at its best."""

    call: Call
    operations: int
    rate: float


@cache
def best_matrix_product(dtype: torch.dtype, device: str) -> MatrixProduct:
    """The matrix product that this machine does best: what needs nothing else could reach its rate."""
    products = []
    for size in MATRIX_SIZES[device]:
        matrix = torch.randn(size, size, device=device).to(dtype)
        call = partial(torch.matmul, matrix, matrix.T)
        call()
        seconds = min(clock(call, device) for _ in range(5))
        products.append(MatrixProduct(call, 2 * size**3, 2 * size**3 / seconds))
    return max(products, key=lambda product: product.rate)


def profile_shares(call: Call, device: str) -> dict[str, float]:
    """Which shares of a call's time, in percent, each of `OPERATION_KINDS` takes; the rest is neither."""
    # Otherwise the profiler says when it begins and when it ends.
    os.environ.setdefault("KINETO_LOG_LEVEL", "9")
    activities = [ProfilerActivity.CPU] + ([ProfilerActivity.CUDA] if device == "cuda" else [])
    call()
    with profile(activities=activities) as profiler:
        call()
    times: dict[str, float] = {}
    for event in profiler.key_averages():
        if not event.key.startswith(("aten::", "mkldnn::")):
            continue
        spent = event.self_device_time_total if device == "cuda" else event.self_cpu_time_total
        operation = event.key.partition("::")[2]
        endings = (kind for kind, names in OPERATION_KINDS.items() if operation.endswith(names))
        kind = next(endings, "rest")
        times[kind] = times.get(kind, 0.0) + spent
    total = sum(times.values())
    return {kind: 100 * times.get(kind, 0.0) / total for kind in OPERATION_KINDS}


class ModuleClock:
    """The seconds that a module spends in its forward passes while this is used as a context."""

    def __init__(self, module: nn.Module, device: str):
        self.module, self.device = module, device
        self.marks: list[Any] = []

    def __enter__(self) -> "ModuleClock":
        self.handles = [
            self.module.register_forward_pre_hook(lambda *_: self._mark()),
            self.module.register_forward_hook(lambda *_: self._mark()),
        ]
        return self

    def __exit__(self, *_) -> None:
        for handle in self.handles:
            handle.remove()

    def _mark(self) -> None:
        if self.device == "cuda":
            event = torch.cuda.Event(enable_timing=True)
            event.record()
            self.marks.append(event)
        else:
            self.marks.append(time.perf_counter())

    @property
    def seconds(self) -> float:
        pairs = zip(self.marks[::2], self.marks[1::2])
        if self.device == "cuda":
            torch.cuda.synchronize()
            return sum(start.elapsed_time(end) for start, end in pairs) / 1000
        return sum(end - start for start, end in pairs)


def resident_memory(field: str) -> int:
    """`VmRSS` (now) or `VmHWM` (peak) of this process, in bytes (Linux). `resource` would also count the parent's."""
    return int(Path("/proc/self/status").read_text().split(f"{field}:")[1].split()[0]) * 1024


def peak_memory(call: Call, device: str) -> int:
    """Bytes at the peak of a call above what was in use before. For a fresh process, which has nothing cached."""
    if device == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        call()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before
    # Sets the peak back to what is in use now.
    Path("/proc/self/clear_refs").write_text("5")
    before = resident_memory("VmRSS")
    call()
    return resident_memory("VmHWM") - before


def in_fresh_process(function: Callable, *arguments: Any) -> Any:
    """What a function returns in a process of its own. Its exceptions are raised here."""
    with ProcessPoolExecutor(max_workers=1, mp_context=get_context("spawn")) as executor:
        return executor.submit(function, *arguments).result()
