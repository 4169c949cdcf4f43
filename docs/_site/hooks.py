# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""
Hooks of mkdocs: pages of the notebooks, with the outputs that are committed, of the command line and of the changelog;
links to source files become text.
"""

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
    title, rest = text.lstrip().split("\n", 1)
    return f"{title}\n\n`notebooks/{name}`, with the outputs of its last run.\n{rest}"


def _command_line() -> str:
    """What typer knows of the commands."""
    titled = ["--name", "transformers-beats", "--title", "Command line"]
    command = [sys.executable, "-m", "typer", "transformers_beats.cli.app", "utils", "docs", *titled]
    written = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    # The list of commands, in which their descriptions are cut off: each has a section of its own.
    written = re.sub(r"\*\*Commands\*\*:\n\n(\* .*\n)+", "", written)
    return written.replace("```console\n$ ", "```text\n")


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """On a page, links to files beside `docs/` lead nowhere; the names of the files stay."""
    own = {file.src_uri for file in files}

    def unlink(match: re.Match) -> str:
        return match[0] if match[2] in own else match[1]

    return LINK.sub(unlink, markdown)
