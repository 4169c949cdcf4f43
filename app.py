# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Entry point of a Space on the Hub, see docs/web.md."""

import os
from pathlib import Path

from transformers_beats.utils.errors import errors_in_one_line
from transformers_beats.web.page import Limits, serve


if __name__ == "__main__":
    models = os.environ.get("BEATS_MODEL", "").split() or [Path(__file__).with_name("models")]
    with errors_in_one_line():
        # Smaller than on a machine of one's own: visitors wait for one another.
        serve(models, Limits(max_seconds=600, max_megabytes=50), explain=True)
