# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Search in recordings: index of embeddings, nearest moments, near duplicates, distance of two collections."""
