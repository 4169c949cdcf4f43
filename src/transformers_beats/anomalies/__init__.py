# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Anomalous sounds: a memory bank of normal clips, scores against it, and their calibration."""
