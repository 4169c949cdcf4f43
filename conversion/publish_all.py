# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Converts and publishes every file of Microsoft's release: the same as `transformers-beats publish`."""

import typer

from transformers_beats.publishing.publish_all import main


if __name__ == "__main__":
    typer.run(main)
