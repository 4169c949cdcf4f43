# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Synthesised machines: their defects have the power that was asked for, and nothing else changes."""

import numpy as np
import pytest

from transformers_beats.audio.machines import MACHINES, synthesize_machine


@pytest.mark.parametrize("domain", ["source", "target"])
@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("ratio", [-15.0, 0.0])
def test_a_defect_is_added_at_its_ratio(machine, domain, ratio):
    normal, defective = (
        synthesize_machine(machine, np.random.default_rng(3), defect_db, domain) for defect_db in (None, ratio)
    )
    assert normal.shape == defective.shape == (48000,)
    assert normal.dtype == np.float32
    assert max(np.abs(normal).max(), np.abs(defective).max()) < 1
    found = 10 * np.log10(np.square(defective - normal).mean() / np.square(normal).mean())
    assert found == pytest.approx(ratio, abs=0.05)


def test_clips_follow_their_seeds():
    first, again, other = (synthesize_machine("fan", np.random.default_rng(seed)) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"machine": "pump"}, "Unknown machine 'pump': expected one of motor, fan, valve."),
        ({"machine": "fan", "domain": "x"}, "Unknown domain 'x'"),
        ({"machine": "fan", "duration": 0.5}, "must be at least 1 s, got 0.5"),
    ],
)
def test_wrong_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=r".") as caught:
        synthesize_machine(generator=np.random.default_rng(0), **arguments)
    assert message in str(caught.value)
