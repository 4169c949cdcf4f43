# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""A Hub on this machine, and the tests that use it."""
