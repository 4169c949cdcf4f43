# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Where the golden values of the reference are, and which."""

from pathlib import Path


ROOT = Path(__file__).parent.parent
FIXTURES = Path(__file__).parent / "fixtures"
ENCODERS = ["beats_tiny", "beats_tiny_prenorm", "beats_tiny_plain", "beats_tiny_glu"]
CHECKPOINTS = [*ENCODERS, "beats_tiny_finetuned", "tokenizer_tiny"]
NUM_CLIPS = 3
