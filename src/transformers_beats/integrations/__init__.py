# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""
Interfaces of others: embeddings for the audio benchmarks HEAR, X-ARES and MTEB, and every 160 ms, as in DCASE's
baselines; tables of recordings for `datasets`, Spark and Ray.
"""
