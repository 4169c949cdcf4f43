# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Entry point of a Space on the Hub, see docs/web.md."""

import os
from pathlib import Path

from transformers_beats.web.page import Limits, serve


if __name__ == "__main__":
    models = os.environ.get("BEATS_MODEL", "").split() or [Path(__file__).with_name("models")]
    serve(models, Limits(), explain=True)
