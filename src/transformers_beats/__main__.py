# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""`python -m transformers_beats`: the same as `transformers-beats`."""

from transformers_beats.cli.app import main


if __name__ == "__main__":
    main()
