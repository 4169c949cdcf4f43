# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Iterative pre-training: recipes, data, and the commands that train tokenizers and models."""
