# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""The package as users install it: a wheel, built from the sdist, in an environment and a directory of its own."""

import os
import re
import shutil
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import numpy as np
import pytest
import soundfile
import yaml
from golden import FIXTURES, ROOT

from transformers_beats.cli.forwarded import MODELS, TRAINING


pytest.importorskip("hatchling", reason="builds without the network need hatchling")
pytestmark = pytest.mark.slow
# Paths that the README and the tests use; those that other work adds are checked once they exist.
IN_THE_SDIST = ["README.md", "MODEL_CARD.md", "LICENSE", "NOTICE", "pyproject.toml", "constraints.txt", "mkdocs.yml"]
IN_THE_SDIST += ["app.py", "run", "docs/index.md", "notebooks/README.md", "tests/golden.py"]
IN_THE_SDIST += ["benchmarks/__main__.py", "examples/onnx_inference.py", "tests/fixtures/beats_tiny.pt"]
OPTIONAL = ["CHANGELOG.md", "CONTRIBUTING.md", "CITATION.cff", "SECURITY.md"]
IN_THE_SDIST += [name for name in OPTIONAL if (ROOT / name).exists()]


@pytest.fixture(scope="module")
def distributions(tmp_path_factory) -> tuple[Path, Path]:
    """The sdist and, made from it, the wheel."""
    directory = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(directory), str(ROOT)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    return next(directory.glob("*.tar.gz")), next(directory.glob("*.whl"))


@pytest.fixture(scope="module")
def run(distributions, tmp_path_factory):
    """Runs `transformers-beats` of the wheel, with this environment's dependencies, outside of the checkout."""
    root = tmp_path_factory.mktemp("installed")
    venv.create(root / "venv", symlinks=True)
    python = root / "venv" / "bin" / "python"
    command = [sys.executable, "-m", "pip", "--python", str(python), "install", "--no-deps", "--no-index", "--quiet"]
    subprocess.run([*command, str(distributions[1])], check=True)
    site = next((root / "venv" / "lib").glob("python*/site-packages"))
    # Of an added directory Python reads no .pth files: an editable installation there is not seen.
    dependencies = [path for path in sys.path if path.endswith(("site-packages", "dist-packages"))]
    (site / "dependencies.pth").write_text("\n".join(dependencies))
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment |= {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"}
    program = {"transformers-beats": root / "venv" / "bin" / "transformers-beats", "python": python}

    def run(*words, program_name: str = "transformers-beats") -> str:
        command = [program[program_name], *words]
        result = subprocess.run(
            list(map(str, command)), cwd=root, env=environment, capture_output=True, text=True, check=False
        )
        assert result.returncode == 0, result.stdout + result.stderr
        return result.stdout

    run.root = root
    return run


@pytest.fixture(scope="module")
def model(run) -> str:
    """The golden classifier, converted there."""
    assert "BEATs, finetuned" in run("convert", FIXTURES / "beats_tiny_finetuned.pt", "converted")
    return "converted"


def test_the_sdist_holds_what_readme_and_tests_use(distributions):
    with tarfile.open(distributions[0]) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert set(IN_THE_SDIST) <= names
    assert not [name for name in names if "__pycache__" in name or name.endswith(".pyc")]


def test_the_wheel_holds_every_file_of_the_package(distributions):
    with zipfile.ZipFile(distributions[1]) as archive:
        names = {name for name in archive.namelist() if name.startswith("transformers_beats/")}
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "src"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    ).stdout.split("\n")
    paths = listed if any(listed) else [str(path.relative_to(ROOT)) for path in (ROOT / "src").rglob("*.*")]
    files = {path.removeprefix("src/") for path in paths if path and (ROOT / path).is_file() and ".pyc" not in path}
    assert names == files
    assert "transformers_beats/py.typed" in names


def test_nothing_in_the_wheel_names_the_checkout(distributions):
    with zipfile.ZipFile(distributions[1]) as archive:
        names = [name for name in archive.namelist() if name.startswith("transformers_") and not name.endswith(".ogg")]
        texts = {name: archive.read(name).decode() for name in names}
    sources = {name: text for name, text in texts.items() if "dist-info" not in name}
    assert sources
    for name, text in sources.items():
        assert not re.search(r"(?<![\w.])\./run\b|sys\.path\b", text), name
        assert str(ROOT) not in text, name


def test_the_installed_package_is_the_wheels(run):
    where = run("-c", "import transformers_beats; print(transformers_beats.__file__)", program_name="python")
    assert Path(where.strip()).is_relative_to(run.root / "venv")


def test_a_checkpoint_converts_there_and_back(run, model):
    assert "6, multi_label_classification" in run("info", model)
    run("convert", model, "back.pt")
    assert (run.root / "back.pt").is_file()


def test_a_dry_run_publishes_checkpoints_of_a_manifest(run):
    (run.root / "downloads").mkdir()
    kinds = {"beats_tiny": "pretrained", "beats_tiny_finetuned": "finetuned", "tokenizer_tiny": "tokenizer"}
    for name in kinds:
        shutil.copy(FIXTURES / f"{name}.pt", run.root / "downloads")
    entries = [{"file": f"{name}.pt", "name": name, "kind": kind} for name, kind in kinds.items()]
    (run.root / "manifest.yaml").write_text(yaml.safe_dump({"checkpoints": entries}))
    options = ("--source-dir", "downloads", "--namespace", "user", "--dry-run")
    lines = run("publish", "--manifest", "manifest.yaml", *options).splitlines()[-3:]
    assert [line.split() for line in lines] == [["user/" + name, "checked", kind] for name, kind in kinds.items()]


def test_the_manifest_of_the_release_is_installed(run):
    code = "from transformers_beats import released; print(len(released.read_manifest()))"
    assert run("-c", code, program_name="python").strip() == "19"


def test_a_clip_is_tagged(run, model):
    soundfile.write(run.root / "clip.wav", np.random.default_rng(0).uniform(-0.1, 0.1, 16000), 16000)
    run("tag", "clip.wav", "--model", model, "--output", "tags.csv")
    assert "clip.wav" in (run.root / "tags.csv").read_text()


def test_every_command_of_other_folders_prints_its_help(run):
    """In one process: importing PyTorch for each would take longer than all else."""
    code = """
import sys
from typer.testing import CliRunner
from transformers_beats.cli.app import app
for name in sys.argv[1:]:
    result = CliRunner().invoke(app, [name, "--help"])
    assert (result.exit_code, "--" in result.output) == (0, True), (name, result.output)
    print(name)
"""
    names = [*MODELS, *TRAINING]
    assert run("-c", code, *names, program_name="python").split() == names


def test_recipes_are_installed(run):
    assert "folder_finetune" in run("recipes")
