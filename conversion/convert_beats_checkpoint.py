# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Converts a published checkpoint into a directory for `from_pretrained`: the same as `transformers-beats convert`."""

import sys

from transformers_beats.cli.app import main


if __name__ == "__main__":
    sys.argv[1:1] = ["convert"]
    main()
