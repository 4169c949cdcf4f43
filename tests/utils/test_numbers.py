# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""The one format of numbers."""

import pytest

from transformers_beats.utils.numbers import format_interval, format_number


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.83754, "0.838"), (1.0, "1.000"), (2000, "2,000"), (None, "-"), ("dog", "dog")],
)
def test_a_value_has_one_text(value, text):
    assert format_number(value) == text


def test_an_interval_has_both_ends():
    assert format_interval((0.81, 0.8779)) == "0.810 to 0.878"
    assert format_interval(None) == "-"
