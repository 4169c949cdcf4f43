# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Proof that released weights compute here what the paper's equations say."""
