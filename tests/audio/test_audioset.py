# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
import subprocess
import sys

import pytest

from transformers_beats.audio import audioset


def test_labels_are_the_official_list():
    labels = audioset.AUDIOSET_LABELS
    assert len(labels) == len(set(labels.values())) == 527
    items = list(labels.items())
    assert items[:2] == [("/m/09x0r", "Speech"), ("/m/05zppz", "Male speech, man speaking")]
    assert items[-1] == ("/m/07hvw1", "Field recording")
    assert all(name == name.strip() and machine_id.startswith(("/m/", "/g/", "/t/")) for machine_id, name in items)


def test_labels_of_events_are_those_of_audioset_strong():
    labels = audioset.AUDIOSET_STRONG_LABELS
    assert len(labels) == len(set(labels.values())) == 447
    items = list(labels.items())
    assert items[0] == ("/m/07q2z82", "Accelerating, revving, vroom")
    assert items[-1] == ("/m/01s0vc", "Zipper (clothing)")
    assert list(labels.values()) == sorted(labels.values())
    shared = [machine_id for machine_id in labels if machine_id in audioset.AUDIOSET_LABELS]
    renamed = [machine_id for machine_id in shared if labels[machine_id] != audioset.AUDIOSET_LABELS[machine_id]]
    assert (len(shared), len(renamed)) == (376, 11)


def test_labels_are_read_once():
    assert audioset.AUDIOSET_LABELS is audioset.AUDIOSET_LABELS


def test_labels_are_read_on_first_use():
    code = """
from transformers_beats.audio import audioset
print(audioset._read_labels.cache_info().currsize)
len(audioset.AUDIOSET_LABELS)
print(audioset._read_labels.cache_info().currsize)
"""
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert output.split() == ["0", "1"]


def test_other_names_are_attribute_errors():
    with pytest.raises(AttributeError, match="no attribute 'LABELS'"):
        audioset.LABELS  # noqa: B018
