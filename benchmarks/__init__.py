# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""What this package costs, against other implementations on the same machine: `python -m benchmarks`."""
