# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""`transformers-beats recipes`: the recipes that `--config` takes by their names."""


def recipes() -> None:
    """List the recipes that come with the package, for --config NAME."""
    from transformers_beats.training.config.recipes import list_recipes

    found = list_recipes()
    width = max(map(len, found))
    for name, purpose in found.items():
        print(f"{name:{width}}  {purpose}")
