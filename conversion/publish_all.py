# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Converts and publishes every file of Microsoft's release: the same as `transformers-beats publish`."""

import sys

from transformers_beats.cli.app import main


if __name__ == "__main__":
    sys.argv[1:1] = ["publish"]
    main()
