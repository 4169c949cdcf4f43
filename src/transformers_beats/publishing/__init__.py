# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Publication of converted checkpoints on the Hub."""
