# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""`transformers-beats recipes`: the recipes that `--config` knows by name."""


def recipes() -> None:
    """List the named recipes for --config NAME of the training commands."""
