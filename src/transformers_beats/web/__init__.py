# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Web page: labels, events and pictures of a clip."""
