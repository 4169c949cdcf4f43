# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
from dataclasses import dataclass, field

import pytest

from transformers_beats.utils.arguments import check_numbers
from transformers_beats.utils.errors import UsageError


def test_numbers_inside_lists_are_not_taken_for_the_field():
    @dataclass
    class Listed:
        sizes: list[int] = field(default_factory=list)
        size: int | None = None

    check_numbers(Listed())
    with pytest.raises(UsageError, match="`size` must be an integer, got 1"):
        check_numbers(Listed(size=1.5))
