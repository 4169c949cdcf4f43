# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Encoders computed by another engine than PyTorch: the choice, the ONNX graph, its copy in the cache."""
