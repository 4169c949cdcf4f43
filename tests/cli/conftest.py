# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Recordings that the tests of several commands use."""

import numpy as np
import pytest
import soundfile


@pytest.fixture(scope="session")
def sounds(tmp_path_factory):
    """A folder of four recordings and what else is found in folders."""
    folder = tmp_path_factory.mktemp("sounds")
    (folder / "deep" / "er").mkdir(parents=True)
    generator = np.random.default_rng(0)
    for name, rate, shape in (
        ("a.wav", 16000, (16000,)),
        ("a.flac", 22050, (33000,)),
        ("deep/b.ogg", 44100, (88200, 2)),
        ("deep/er/c é.WAV", 8000, (12000,)),
    ):
        format = "WAV" if name.endswith("WAV") else None
        soundfile.write(folder / name, 0.1 * generator.standard_normal(shape), rate, format=format)
    (folder / "notes.txt").write_text("no audio")
    (folder / "._a.wav").write_text("no audio either")
    return folder
