# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Converts a published checkpoint into a directory for `from_pretrained`: the same as `transformers-beats convert`."""

import sys

from transformers_beats.cli.app import app


if __name__ == "__main__":
    app(["convert", *sys.argv[1:]])
