# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Writes down how many cases were tried."""

import os
from pathlib import Path

from fuzzing import COUNTS


def pytest_sessionfinish(session):
    if "FUZZ_COUNTS" in os.environ and COUNTS:
        lines = [f"{name}\t{number}\n" for name, number in sorted(COUNTS.items())]
        with Path(os.environ["FUZZ_COUNTS"]).open("a") as file:
            file.writelines(lines)
