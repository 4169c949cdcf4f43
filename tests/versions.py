# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""
Runs quick tests with the lowest versions that pyproject.toml claims and with the newest that the package index serves.

Makes an environment for each set, with the lowest or newest interpreter that is claimed and found on this machine,
installs the package into it as users do, and runs the tests there. The lowest set pins every dependency to its floor,
so that a floor that another dependency cannot work with fails the installation. On Linux the index serves builds of
PyTorch for GPUs, except the version in constraints.txt: each set downloads and unpacks about 5 GB. `--here` tries
every other floor in minutes, with this interpreter and that PyTorch.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path


try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10
    from pip._vendor import tomli as tomllib


ROOT = Path(__file__).parents[1]
CONSTRAINTS = ROOT / "constraints.txt"
CACHE = ROOT / ".cache" / "versions"
PYENV = Path(os.environ.get("PYENV_ROOT") or "~/.pyenv").expanduser() / "versions"
INTERPRETERS = [(3, minor) for minor in range(10, 16)]
TEST_REQUIREMENTS = ["hypothesis", "pytest", "pytest-timeout"]
QUICK_TESTS = [
    "tests/test_configuration_beats.py",
    "tests/test_feature_extraction_beats.py",
    "tests/test_modeling_beats.py",
    "tests/test_auto_classes.py",
]
# Of each part whose work depends on versions: audio tagging pipeline; Trainer, saving and loading.
QUICK_PARTS = [
    "tests/inference/test_pipeline.py::test_scores_are_those_of_the_model_on_the_clip",
    "tests/inference/test_pipeline.py::test_files_bytes_arrays_and_dicts_give_the_same",
    "tests/training/trainers/test_pretraining.py::test_training_goes_on_from_a_model",
]
# Arithmetic and compilation, which PyTorch alone decides, are left out of the quick tests.
NOT_QUICK = "any_batch any_level any_number any_patch any_size bands blocks graph half_precision legacy neighbours"
MORE_TESTS = [
    "tests/test_modeling_beats_pretraining.py",
    "tests/test_modeling_beats_tokenizer.py",
    "tests/conversion/test_conversion.py",
    "tests/inference/test_windowed.py",
    "tests/inference/test_pipeline.py",
]
REPORTED = ["torch", "transformers"]


def read_project() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def floors(dependencies: list[str]) -> list[str]:
    """Pins of requirements to their floors: `torch>=2.6,<3` to `torch==2.6`."""
    pins = []
    for requirement in dependencies:
        match = re.fullmatch(r"([\w.-]+)(?:\[[\w,-]+\])?>=([\w.]+)(?:,.*)?", requirement)
        if match is None:
            raise ValueError(f"pyproject.toml: {requirement!r} has no floor: write it as name>=version.")
        pins.append(f"{match[1]}=={match[2]}")
    return pins


def works(interpreter: str) -> bool:
    """Returns whether an interpreter starts: pyenv puts commands on the path that only say what is missing."""
    try:
        return subprocess.run([interpreter, "-c", "import venv"], capture_output=True, check=False).returncode == 0
    except OSError:
        return False


def find_interpreters(requires_python: str) -> dict[tuple[int, int], str]:
    """Interpreters on this machine that `requires-python` allows, by version; says which it does not find."""
    minimum = tuple(map(int, re.findall(r"\d+", requires_python)[:2]))
    found = {}
    for version in INTERPRETERS:
        if version < minimum:
            continue
        name = "python{}.{}".format(*version)
        candidates = [sys.executable] if sys.version_info[:2] == version else []
        candidates += [shutil.which(name) or name, *sorted(map(str, PYENV.glob(f"{name[6:]}.*/bin/{name}")))]
        path = next(filter(works, candidates), None)
        if path is None:
            print(f"{name} is not on this machine: not tried", flush=True)
        else:
            found[version] = path
    return found


def run(*command: object, log: Path | None = None) -> int:
    """Runs a command and returns its status. With `log`, its output goes there, and is printed if it fails."""
    print("+", *command, flush=True)
    arguments = list(map(str, command))
    if log is None:
        return subprocess.run(arguments, cwd=ROOT, check=False).returncode
    with log.open("w", encoding="utf-8") as file:
        status = subprocess.run(arguments, cwd=ROOT, check=False, stdout=file, stderr=subprocess.STDOUT).returncode
    if status:
        # pip's reason stands at the end, after what it has collected.
        print(*log.read_text(encoding="utf-8", errors="replace").splitlines()[-20:], sep="\n")
    return status


def installed_versions(python: Path) -> str:
    code = "import sys; from importlib.metadata import version; print(*map(version, sys.argv[1:]))"
    output = subprocess.run([python, "-c", code, *REPORTED], capture_output=True, text=True, check=False).stdout
    return ", ".join(f"{name} {version}" for name, version in zip(REPORTED, output.split()))


def try_set(name: str, interpreter: str, pins: list[str], tests: list[str], cache: Path) -> str:
    """Makes the environment `name`, runs the tests in it, and returns the line that reports on it."""
    directory = cache / name
    # Made anew, so that nothing is left of another set of versions; pip's cache has the downloads.
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    constraints = directory / "constraints.txt"
    constraints.write_text("".join(f"{pin}\n" for pin in pins), encoding="utf-8")
    python = directory / "venv" / "bin" / "python"
    start = time.monotonic()
    pip = [python, "-m", "pip", "--disable-pip-version-check", "install", "--progress-bar", "off", "-c", constraints]
    log = directory / "pip.log"
    if run(interpreter, "-m", "venv", directory / "venv") or run(*pip, ROOT, *TEST_REQUIREMENTS, log=log):
        return f"{name}: FAILED to install"
    installed = time.monotonic()
    status = run(python, "-m", "pytest", "-q", "-p", "no:cacheprovider", *tests)
    seconds = f"installed in {installed - start:.0f} s, tested in {time.monotonic() - installed:.0f} s"
    return f"{name}: {'FAILED' if status else 'passed'} with {installed_versions(python)} ({seconds})"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lowest", action="store_true", help="only the lowest versions")
    parser.add_argument("--newest", action="store_true", help="only the newest versions")
    parser.add_argument("--quick", action="store_true", help="fewer tests: what transformers decides")
    parser.add_argument("--here", action="store_true", help="this Python, the PyTorch of constraints.txt")
    parser.add_argument("--cache", type=Path, default=CACHE, help="where environments are made: %(default)s")
    arguments = parser.parse_args()

    project = read_project()
    interpreters = find_interpreters(project["requires-python"])
    pinned = []
    if arguments.here:
        interpreters = {sys.version_info[:2]: sys.executable}
        pinned = [line for line in CONSTRAINTS.read_text(encoding="utf-8").splitlines() if line.startswith("torch==")]
    tests = QUICK_TESTS + MORE_TESTS
    if arguments.quick:
        tests = [*QUICK_TESTS, *QUICK_PARTS, "-k", f"not ({NOT_QUICK.replace(' ', ' or ')})"]
    sets = []
    if arguments.lowest or not arguments.newest:
        lowest = floors(project["dependencies"])
        if pinned:
            lowest = [pin for pin in lowest if not pin.startswith("torch==")]
        sets.append(("lowest", min(interpreters), lowest + pinned))
    if arguments.newest or not arguments.lowest:
        sets.append(("newest", max(interpreters), pinned))
    reports = [
        try_set("{}-python{}.{}".format(name, *version), interpreters[version], pins, tests, arguments.cache)
        for name, version, pins in sets
    ]
    print(*reports, sep="\n")
    return int(any("FAILED" in report for report in reports))


if __name__ == "__main__":
    sys.exit(main())
