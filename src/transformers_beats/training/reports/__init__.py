# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Reports, pictures and learning curves."""

# The log of a training, beside the model that it has trained.
LOG_HISTORY = "log_history.json"
