# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Pictures of recordings: spectrograms, timelines and acoustic tokens."""
