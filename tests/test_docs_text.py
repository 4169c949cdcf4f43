# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""
What the documentation says beside its blocks of code: commands within sentences, extras, names of models and folders
are those of the package.
"""

import importlib
import json
import re
import shlex
import subprocess
import sys
from importlib import metadata
from inspect import signature
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import typer
from golden import ROOT

from transformers_beats.cli import app, forwarded
from transformers_beats.cli.commands import add_command, make_app
from transformers_beats.conversion.released import MANIFEST, read_manifest
from transformers_beats.training.config.recipes import list_recipes
from transformers_beats.utils.errors import install_command


DOCS, PACKAGE = ROOT / "docs", ROOT / "src" / "transformers_beats"
BLOCK = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)


def read(path: Path) -> str:
    return path.read_text(encoding="utf-8")


@pytest.fixture
def project() -> dict[str, Any]:
    """The table `project` of pyproject.toml."""
    tomllib = pytest.importorskip("tomllib", reason="Python 3.10 has no tomllib")
    return tomllib.loads(read(ROOT / "pyproject.toml"))["project"]


def test_the_page_lists_all_extras(project):
    table = read(DOCS / "index.md").partition("| extra |")[2].partition("\n\n")[0]
    listed = re.findall(r"`([a-z]+)`", "".join(re.findall(r"^\|[^|]+\|", table, re.MULTILINE)))
    assert sorted(listed) == sorted(project["optional-dependencies"])


def test_extras_that_pages_and_messages_name_exist(project):
    texts = [*pages().values(), *(read(path) for path in PACKAGE.rglob("*") if path.suffix in (".py", ".yaml"))]
    named = {
        name
        for text in texts
        for names in re.findall(r"(?:install_command\('|\.\[|\bextra(?:\]\([^)]*\))? `)([a-z,]+)['\]`]", text)
        for name in names.split(",")
    }
    assert {"demo", "faiss", "live", "onnx", "ray", "sed", "strong", "training", "web"} <= named
    assert named <= project["optional-dependencies"].keys()


def test_how_an_extra_is_installed_is_said_in_one_place():
    paths = {*pages(), *(path for path in PACKAGE.rglob("*") if path.suffix in (".py", ".yaml", ".md"))}
    found = {path for path in paths if re.search("pip install '?transformers-beats", read(path))}
    # Of messages, pages, and metrics, which import nothing of the package.
    of_messages, metric = PACKAGE / "utils" / "errors.py", PACKAGE / "metrics" / "sound_event_detection.py"
    assert found == {of_messages, DOCS / "index.md", metric}
    assert install_command("web") in read(DOCS / "index.md")
    assert install_command("sed") in read(metric)


def test_an_extra_is_added_to_the_installed_package_without_an_index(tmp_path):
    pytest.importorskip("pip")
    try:
        metadata.version("transformers-beats")
    except metadata.PackageNotFoundError:
        pytest.skip("the package is not installed")
    words = shlex.split(install_command("live"))
    command = [sys.executable, "-m", *words, "--dry-run", "--no-index", "--no-deps"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert "Requirement already satisfied: transformers-beats[live]" in result.stdout
    assert "does not provide" not in result.stdout + result.stderr


def pages() -> dict[Path, str]:
    """Returns the pages: README.md and others at the root, docs/, and the cells of text of the notebooks."""
    paths = [*ROOT.glob("*.md"), *DOCS.rglob("*.md"), *ROOT.glob("*/README.md")]
    texts = {path: read(path) for path in paths if path.name != "CHANGELOG.md"}
    for path in (ROOT / "notebooks").glob("*.ipynb"):
        cells = json.loads(read(path))["cells"]
        texts[path] = "\n\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
    return texts


def problem_of(words: list[str]) -> str | None:
    """
    Returns why the command line `transformers-beats WORDS` is refused, as far as can be said without its files: a
    command or an option that does not exist, an argument that is missing, an unknown recipe.
    """
    name, *rest = words
    group: Any = typer.main.get_command(app.app)
    forward = {**forwarded.MODELS, **forwarded.TRAINING}
    if name in forward:
        main = importlib.import_module(f"transformers_beats.{forward[name].module}").main
        if "argv" in signature(main).parameters:
            given = [value for option, value in pairwise(rest) if option == "--config"]
            return next((f"{value}: no recipe" for value in given if value not in {*list_recipes(), "RECIPE"}), None)
        single = make_app()
        add_command(single, name, main, [forward[name].example], "")
        group = typer.main.get_command(single)
    if name not in group.commands:
        return f"{name}: no command"
    command = group.commands[name]
    if name == "anomalies" and rest:
        name, *rest = rest
        command = command.commands[name]
    context = command.context_class(command, info_name=name)
    try:
        values, _, _ = command.make_parser(context).parse_args(args=rest)
    except Exception as error:  # of the parser: one class in click, another in the copy that typer may have
        return str(error)
    missing = [parameter.name for parameter in command.params if parameter.required and not values.get(parameter.name)]
    return f"missing: {missing}" if missing else None


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        ("tag -m MODEL my-sounds --events", None),
        ("tag my-sounds --events", "model"),
        ("tag -m MODEL my-sounds --evnts", "--evnts"),
        ("tags -m MODEL my-sounds", "no command"),
        ("demo --output demo-output", None),
        ("demo --outputs demo-output", "--outputs"),
        ("finetune --config folder_finetune --dataset my-sounds", None),
        ("finetune --config folder_fintune", "no recipe"),
        ("anomalies fit -m MODEL NORMAL -o DETECTOR", None),
        ("anomalies fit NORMAL -o DETECTOR", "model"),
    ],
)
def test_problems_of_command_lines_are_found(words, problem):
    found = problem_of(words.split())
    assert found is None if problem is None else problem in found


def test_commands_within_sentences_are_complete():
    found = [
        (path.name, words)
        for path, text in pages().items()
        for words in re.findall(r"`transformers-beats\s+([^`]+)`", BLOCK.sub("", text))
    ]
    assert len(found) > 30
    # What is in brackets may be left out, and an ellipsis stands for more.
    split = [(name, shlex.split(re.sub(r"\[[^]]*\]|\.\.\.", "", words))) for name, words in found]
    # A name alone is not meant to be typed, nor is the help of one.
    typed = [(name, words) for name, words in split if words[1:] not in ([], ["--help"]) and words[0] != "COMMAND"]
    assert [(name, words, problem_of(words)) for name, words in typed if problem_of(words)] == []


def test_commands_of_blocks_are_complete():
    # Those of README.md and of some pages are not run.
    found = [
        (path.name, words)
        for path, text in pages().items()
        for block in BLOCK.findall(text)
        for words in re.findall(r"^transformers-beats +([^|<>&\n]+)", block.replace("\\\n", ""), re.MULTILINE)
    ]
    assert len({name for name, _ in found}) > 15
    split = [(name, shlex.split(words, comments=True)) for name, words in found]
    assert [(name, words, problem_of(words)) for name, words in split if problem_of(words)] == []


def test_names_of_released_models_in_texts_and_notebooks_are_in_the_list():
    texts = [*pages().values(), *(read(path) for path in (ROOT / "notebooks").glob("*.ipynb"))]
    names = {name for text in texts for name in re.findall(r'released\.get\(\\?"([\w-]+)\\?"\)', text)}
    assert len(names) >= 3
    assert names <= read_manifest(MANIFEST).keys()


def test_models_of_notebooks_that_do_not_take_names_say_how_a_released_one_is_taken():
    cells = [
        "".join(cell["source"])
        for path in (ROOT / "notebooks").glob("*.ipynb")
        for cell in json.loads(read(path))["cells"]
        if cell["cell_type"] == "code"
    ]
    places = [cell for cell in cells if re.search(r"^(MODEL|TOKENIZER|ENCODER) = None", cell, re.MULTILINE)]
    assert len(places) == 4
    # This package's loader knows the names, `from_pretrained` and `pipeline` do not.
    assert [cell for cell in places if "released.get(" not in cell and "load_model(" not in cell] == []


def test_the_tree_of_the_design_is_that_of_the_package():
    tree = read(DOCS / "design.md").partition("```text\n")[2].partition("```")[0]
    block = tree.partition("src/transformers_beats/\n")[2].partition("\nconversion/")[0]
    listed = [
        name
        for line in block.splitlines()
        if re.match(r"  \w", line)
        for name in re.findall(r"(\w+)/(?=\s)", re.split(r"(?<=/) {3,}", line)[0] + " ")
    ]
    # Python leaves its caches where a folder was removed.
    folders = [path.name for path in PACKAGE.iterdir() if path.name != "__pycache__" and any(path.glob("*.*"))]
    assert sorted(listed) == sorted(folders)


def test_counts_of_mirrors_are_those_of_the_list():
    entries = [entry for entry in read_manifest(MANIFEST).values() if entry.kind != "tokenizer"]
    without = [entry for entry in entries if not entry.mirrors]
    assert (len(entries), len(without)) == (15, 11)
    words = {"released": "Eleven of the fifteen encoders and classifiers have no known mirror"}
    words |= {"results": "All fifteen encoders and classifiers"}
    assert [name for name, text in words.items() if text not in read(DOCS / f"{name}.md")] == []
