# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Interfaces of audio benchmarks: HEAR, X-ARES, MTEB, and frame embeddings as in DCASE baselines."""
