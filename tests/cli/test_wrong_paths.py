# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Commands that take weights refuse a path that is wrong at once: before they import torch, which takes seconds."""

import json
import os
import subprocess
import sys

import pytest
from golden import FIXTURES


SOURCE = str(FIXTURES / "beats_tiny.pt")
COMMANDS = {
    "convert absent.pt": "absent.pt: no such file.",
    "convert absent": "absent: no such file.",
    "convert ./absent/model.pt out": "absent/model.pt: no such file.",
    f"convert {SOURCE} out --cfg absent.yaml": "absent.yaml: no such file.",
    f"convert {SOURCE} out --labels absent.json": "absent.json: no such file.",
    f"convert {SOURCE} full": "full: is not empty; pass --overwrite to replace it.",
    f"convert {SOURCE} full --overwrite": "full: holds no BEATs model; --overwrite replaces nothing else.",
    "convert full": "full: is a directory; name an OUTPUT, or an OUTPUT.pt for the way back.",
    "convert absent out.pt": "absent: no such directory, and no released model has this name",
    "convert full out.pt": "full: is no directory of a model, it has no config.json.",
    "convert absent full/file.pt": "full/file.pt: exists; pass --overwrite to replace it.",
    "get absent": "absent: no released model has this name",
    "verify absent": "absent: no released model has this name",
    "verify beats-iter3 --source-dir absent": "absent: no such folder.",
    "publish --source-dir absent --namespace me --dry-run": "absent: no such folder.",
    "export ./absent out.onnx": "absent: no such directory.",
    "export absent/ out.onnx": "absent/: no such directory.",
    "info absent/": "absent/: no such directory.",
    "info a/b,c": "a/b,c: no such directory, and no id of the Hub: Repo id must use",
    f"export {SOURCE} out.onnx": "beats_tiny.pt: is a file, and a model is a directory.",
    "export absent full/file.pt": "full/file.pt: exists; pass --overwrite to replace it.",
    "convert absent folder.pt --overwrite": "folder.pt: is a folder, and a file is to be written.",
    "export absent folder.pt --overwrite": "folder.pt: is a folder, and a file is to be written.",
    "export absent full/file.pt/out.onnx": "full/file.pt/out.onnx: cannot be written: ",
    f"convert {SOURCE} full/file.pt/out": "full/file.pt/out: cannot be written: ",
    f"convert {SOURCE} {'x' * 300}": "x: cannot be written: File name too long.",
    "export beats-iter3 out.onnx --revision v9": "--revision belongs to a model on the Hub, which beats-iter3 is not",
    "export ./full/model out.onnx --revision main": "which ./full/model is not: leave it out.",
}
SCRIPT = """
import json, sys
sys.modules["torch"] = None  # any import of it fails
from typer.testing import CliRunner
from transformers_beats.cli.app import app
results = (CliRunner().invoke(app, command.split()) for command in json.loads(sys.argv[1]))
print(json.dumps([(result.exit_code, result.stderr) for result in results]))
"""


@pytest.fixture(scope="module")
def results(tmp_path_factory) -> dict[str, tuple[int, str]]:
    """Exit status and messages of all commands, in one process without torch."""
    work = tmp_path_factory.mktemp("work")
    (work / "full").mkdir()
    (work / "full" / "file.pt").touch()
    (work / "folder.pt").mkdir()
    (work / "full" / "model").mkdir()
    for name in ("config.json", "preprocessor_config.json", "model.safetensors"):
        (work / "full" / "model" / name).touch()
    command = [sys.executable, "-c", SCRIPT, json.dumps([*COMMANDS])]
    environment = {name: value for name, value in os.environ.items() if name != "TRANSFORMERS_BEATS_MANIFEST"}
    output = subprocess.run(command, cwd=work, env=environment, capture_output=True, text=True, check=True).stdout
    return dict(zip(COMMANDS, json.loads(output)))


@pytest.mark.parametrize(("command", "message"), COMMANDS.items())
def test_a_wrong_path_is_refused_without_torch(command, message, results):
    status, error = results[command]
    assert message in error
    assert (status, error.count("\n")) == (2, 1)
