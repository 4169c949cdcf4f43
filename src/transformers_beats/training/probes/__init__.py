# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Probes: classifiers on the embeddings of a frozen encoder, each kind in its own module."""
