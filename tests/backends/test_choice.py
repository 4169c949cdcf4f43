# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""The table of `auto`."""

from dataclasses import replace

import pytest
from golden import ROOT

from transformers_beats.backends.choice import RULES, Circumstances, check_backend, choose
from transformers_beats.utils import machine
from transformers_beats.utils.errors import UsageError


USUAL = Circumstances(
    device="cpu",
    dtype="float32",
    is_wrapped=False,
    has_encoder=True,
    needs_layers=False,
    is_installed=True,
    instruction_sets=("avx2",),
)


@pytest.mark.parametrize(
    ("change", "backend", "words"),
    [
        ({}, "onnx", "float32 on a CPU with AVX2"),
        ({"instruction_sets": ("avx2", "avx512f", "avx512_bf16")}, "onnx", "AVX2"),
        ({"instruction_sets": ("avx2", "avx512f", "avx512_bf16", "amx_bf16", "amx_int8")}, "torch", "AMX"),
        ({"instruction_sets": ()}, "torch", "AVX2 is not known of the CPU"),
        ({"window_seconds": 10.0}, "onnx", "AVX2"),
        ({"window_seconds": 10.5}, "torch", "windows are longer than 10 s"),
        ({"device": "cuda"}, "torch", "not on the CPU"),
        ({"dtype": "bfloat16"}, "torch", "not in float32"),
        ({"is_wrapped": True}, "torch", "adapters"),
        ({"has_encoder": False}, "torch", "no encoder"),
        ({"needs_layers": True}, "torch", "other layers"),
        ({"is_installed": False}, "torch", "extra onnx"),
        # The first reason is given.
        ({"is_installed": False, "device": "cuda"}, "torch", "not on the CPU"),
    ],
)
def test_the_table_decides(change, backend, words):
    rule = choose(replace(USUAL, **change))
    assert rule.backend == backend
    assert words in rule.condition


def test_no_rule_chooses_int8_and_the_last_one_always_holds():
    assert {rule.backend for rule in RULES} == {"torch", "onnx"}
    assert RULES[-1].holds(USUAL)


def test_the_documented_table_is_the_one_that_decides():
    text = (ROOT / "docs" / "performance.md").read_text(encoding="utf-8")
    rows = [f"| {rule.condition} | {rule.backend} |" for rule in RULES]
    assert "\n".join(rows) in text


@pytest.mark.parametrize("name", ["onxx", "", None, "ONNX", 3])
def test_an_unknown_backend_is_refused(name):
    with pytest.raises(UsageError, match="choose auto, torch, onnx or onnx-int8"):
        check_backend(name)


def test_instruction_sets_are_those_of_the_cpu(monkeypatch):
    monkeypatch.setattr(machine, "_cpu_fields", lambda: {"flags": "fpu avx2 amx_int8 avx512f"})
    assert machine.instruction_sets() == ("avx2", "avx512f", "amx_int8")
    monkeypatch.setattr(machine, "_cpu_fields", dict)
    assert machine.instruction_sets() == ()
