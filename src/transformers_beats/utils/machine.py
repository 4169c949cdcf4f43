# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""The machine: precisions that it computes in, and the description that figures come with."""

import os
import platform
from pathlib import Path
from typing import TYPE_CHECKING, Any


if TYPE_CHECKING:
    import torch


# Instructions that decide how fast a CPU multiplies matrices.
INSTRUCTION_SETS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_int8")


def count_cpus() -> int:
    """Returns the number of CPUs that this process may use, at least one."""
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return available or 1


def name_of(dtype: "torch.dtype") -> str:
    """Returns the name of a precision, such as `bfloat16`."""
    return str(dtype).removeprefix("torch.")


def is_emulated(dtype: "torch.dtype", device: "str | torch.device") -> bool:
    """
    Returns whether PyTorch computes in a half precision without vector instructions on a device. On a CPU with AVX2
    and no AVX-512, base size takes 8 times as long in bfloat16 as in float32, and 7 times in float16.
    """
    import torch

    if torch.device(device).type != "cpu" or dtype not in (torch.bfloat16, torch.float16):
        return False
    kernels: Any = torch.ops.mkldnn
    try:
        if dtype == torch.bfloat16:
            return not kernels._is_mkldnn_bf16_supported()
        return not kernels._is_mkldnn_fp16_supported()
    except AttributeError:
        # Without oneDNN, PyTorch does not tell.
        return False


def _cpu_fields() -> dict[str, str]:
    """Returns what Linux says of the last core, by name; nothing elsewhere."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    return {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}


def instruction_sets() -> tuple[str, ...]:
    """Returns those of `INSTRUCTION_SETS` that the CPU has; none where that is not known."""
    flags = _cpu_fields().get("flags", "").split()
    return tuple(name for name in INSTRUCTION_SETS if name in flags)


def describe_machine(device: str) -> dict[str, Any]:
    """Returns hardware, threads and versions by name, and how busy the machine was. `device` is one of PyTorch's."""
    import torch
    import transformers

    fields = _cpu_fields()
    kind = torch.device(device).type
    return {
        "device": torch.cuda.get_device_name(device) if kind == "cuda" else kind.upper(),
        "cpu": fields.get("model name") or platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "instruction_sets": list(instruction_sets()),
        "threads": torch.get_num_threads(),
        # Windows has none.
        "load": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "python": platform.python_version(),
    }


def in_a_line(machine: dict[str, Any]) -> str:
    """Returns a description of [`describe_machine`] as text."""
    sets = ", ".join(machine["instruction_sets"]) or "no vector instructions known"
    name = machine["cpu"] if machine["device"] == "CPU" else f"{machine['device']}, {machine['cpu']}"
    versions = f"torch {machine['torch']}, transformers {machine['transformers']}, Python {machine['python']}"
    return f"{name}, {machine['cores']} cores, {machine['threads']} threads ({sets}); {versions}"
