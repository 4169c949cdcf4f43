# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Windows of labelled clips."""

import numpy as np
import pytest
import soundfile

from transformers_beats import BeatsFeatureExtractor
from transformers_beats.training.data.clips import prepare_clips
from transformers_beats.training.data.labelled import Windows
from transformers_beats.training.data.sources import DataArguments, load_audio_dataset


@pytest.mark.parametrize(
    ("min_seconds", "expected"),
    [
        # The rest of the first clip, half a second, is a window of its own.
        (0.2, [[0.0, 1.0, 2.0], [0.0, 1.0, 2.0]]),
        (0.6, [[0.0, 1.0], [0.0, 1.0, 2.0]]),
        (1.0, [[0.0, 1.0], [0.0, 1.0, 2.0]]),
        # Longer than a window: all that are whole are read.
        (2.0, [[0.0, 1.0], [0.0, 1.0, 2.0]]),
        (2.75, [[0.0, 1.0, 2.0]]),
    ],
)
def test_whole_windows_cover_every_clip(min_seconds, expected, tmp_path):
    for number, seconds in enumerate((2.5, 3.0, 0.1)):
        soundfile.write(tmp_path / f"{number}.wav", np.zeros(round(seconds * 16000)), 16000)
    data = DataArguments(dataset=str(tmp_path), crop_seconds=1.0, min_seconds=min_seconds)
    windows = Windows(prepare_clips(load_audio_dataset(data), data, 16000), data, BeatsFeatureExtractor())
    starts = [(windows.starts[windows.clip_of == clip] / 16000).tolist() for clip in range(len(expected))]
    assert starts == expected
    assert len(windows) == sum(map(len, expected))
