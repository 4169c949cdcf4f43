# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""A checkpoint of the released size: converted, published, loaded from the Hub and exported back."""

import re
import subprocess
import sys

import pytest
import torch
from independent_check import compare

from transformers_beats import BeatsConfig, BeatsForAudioClassification
from transformers_beats.audio.audioset import AUDIOSET_LABELS
from transformers_beats.export.to_microsoft import export_cfg, export_state_dict


# Runs `convert` and prints its memory before and at its peak (Linux).
MEASURED = """
import sys
import time
from pathlib import Path

from transformers_beats.cli.app import app
from transformers_beats.export import to_microsoft
from transformers_beats.publishing import publish

def peak():
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) * 1024

if __name__ == "__main__":
    imported, start = peak(), time.monotonic()
    try:
        app(["convert", *sys.argv[1:]])
    finally:
        print("MEASURED", imported, peak(), time.monotonic() - start)
"""


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """90 M random parameters and AudioSet's classes, in Microsoft's layout."""
    path = tmp_path_factory.mktemp("full") / "BEATs_full.pt"
    torch.manual_seed(0)
    config = BeatsConfig(num_labels=len(AUDIOSET_LABELS), problem_type="multi_label_classification")
    state_dict = export_state_dict(BeatsForAudioClassification(config).state_dict(), config)
    cfg = export_cfg(config, "finetuned")
    torch.save({"cfg": cfg, "model": state_dict, "label_dict": dict(enumerate(AUDIOSET_LABELS))}, path)
    return path


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="memory is read from /proc")
def test_a_checkpoint_of_full_size_comes_back_from_the_hub_bit_by_bit(source, hub, tmp_path, capsys):
    size = source.stat().st_size
    steps = {
        "convert": (source, tmp_path / "converted"),
        "convert and publish": (source, tmp_path / "published", "--push-to-hub", "user/beats"),
        "load from the Hub and export": ("user/beats", tmp_path / "back.pt"),
    }
    for name, arguments in steps.items():
        command = [sys.executable, "-c", MEASURED, *arguments]
        environment = hub.environment(tmp_path / "home")
        result = subprocess.run(list(map(str, command)), env=environment, capture_output=True, text=True, check=False)
        assert result.returncode == 0, result.stderr
        imported, peak, seconds = map(float, re.search(r"MEASURED (\S+) (\S+) (\S+)", result.stdout).groups())
        with capsys.disabled():
            print(
                f"\n{name}: {seconds:.1f} s, at most {peak / 1e6:.0f} MB or {peak / size:.2f} times the file, "
                f"{imported / 1e6:.0f} MB of it imported libraries"
            )
        # A step itself takes the weights once and not twice.
        assert peak - imported < 1.5 * size

    assert compare(source, tmp_path / "converted") == []
    expected, actual = (torch.load(path, weights_only=True) for path in (source, tmp_path / "back.pt"))
    assert actual["model"].keys() == expected["model"].keys()
    for key, tensor in expected["model"].items():
        assert torch.equal(actual["model"][key], tensor), key
    assert actual["label_dict"] == expected["label_dict"]
    assert expected["cfg"].items() <= actual["cfg"].items()
