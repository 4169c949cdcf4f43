# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Inference on recordings of any length: windows, events and the pipeline."""
