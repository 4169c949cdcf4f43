# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""
Hooks of mkdocs: pages of the notebooks, with the outputs that are committed, of the command line and of the changelog;
links to source files become text.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import nbformat
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from nbconvert import MarkdownExporter


NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
COMMAND_LINE = "reference/command-line.md"
CHANGELOG = Path(__file__).parents[2] / "CHANGELOG.md"
LINK = re.compile(r"(?<!!)\[([^\]]*)\]\((?:\.\./)+([^)#]+)(#[^)]*)?\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds a page for each notebook, and the pictures in it."""
    for path in sorted(NOTEBOOKS.glob("*.ipynb")):
        notebook = nbformat.read(path, as_version=4)
        text, resources = MarkdownExporter().from_notebook_node(notebook, {"output_files_dir": f"{path.stem}_files"})
        files.append(File.generated(config, f"tutorials/{path.stem}.md", content=_page(text, path.name)))
        for name, content in resources["outputs"].items():
            files.append(File.generated(config, f"tutorials/{name}", content=content))
    files.append(File.generated(config, COMMAND_LINE, content=_command_line()))
    # Its links begin beside `docs/`, those of the page in it.
    changelog = CHANGELOG.read_text(encoding="utf-8").replace("](docs/", "](")
    files.append(File.generated(config, "changelog.md", content=changelog))
    return files


def _page(text: str, name: str) -> str:
    """A notebook's text as a page: the notebook lies beside `docs/`, the page in a folder of it."""
    text = text.replace("](../docs/", "](../")
    text = re.sub(r"\]\((\d+_\w+)\.ipynb", r"](\1.md", text)
    title, rest = text.lstrip().split("\n", 1)
    return f"{title}\n\n`notebooks/{name}`, with the outputs of its last run.\n{rest}"


# Prints the help of all commands without frames: name, line break, help, null byte.
PRINT_HELP = """
from typer.testing import CliRunner
from transformers_beats.cli.app import app
from transformers_beats.cli.commands import NAME
names = ["", *(command.name for command in app.registered_commands)]
for group in app.registered_groups:
    own = [f"{group.name} {command.name}" for command in group.typer_instance.registered_commands]
    names += [group.name, *own]
for name in names:
    result = CliRunner().invoke(app, [*name.split(), "--help"], terminal_width=100)
    print(f"{NAME} {name}".strip(), result.stdout.strip(), sep="\\n", end="\\0")
"""


def _command_line() -> str:
    """Returns a page with the help of each command as it is printed."""
    environment = {**os.environ, "TYPER_USE_RICH": "0", "COLUMNS": "100", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", PRINT_HELP]
    written = subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout
    sections = [text.split("\n", 1) for text in written.split("\0") if text]
    return "# Command line\n" + "".join(f"\n## `{name}`\n\n```text\n{text}\n```\n" for name, text in sections)


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """On a page, links to files beside `docs/` lead nowhere; the names of the files stay."""
    own = {file.src_uri for file in files}

    def unlink(match: re.Match) -> str:
        return match[0] if match[2] in own else match[1]

    return LINK.sub(unlink, markdown)
