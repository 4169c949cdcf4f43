# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""The notebooks: what is committed of them, and, slow, that each runs from a fresh kernel without network."""

import json
import re
import shutil

import nbformat
import pytest
from golden import ROOT
from nbclient import NotebookClient


NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
MAX_BYTES = 500_000
# Where files lie on somebody's machine. Pictures and sounds are left out before.
ABSOLUTE_PATH = re.compile(r"(?<![\w.:/])/(home|tmp|root|work|opt|usr|var|private|Users)/|\b[A-Za-z]:\\\\?Users")
# What each notebook computes, and the least that it must be. Guessing has 0.1, the average precision of it 0.13.
RESULTS = {
    "01_tag_your_own_audio": {"average_precision.mean()": 0.5},
    "02_fine_tune_with_trainer": {"accuracy": 0.5, "agree": 1.0},
    "03_acoustic_tokens": {
        "probe_accuracy['random projection']": 0.3,
        "probe_accuracy['distilled']": 0.3,
        "errors['mean of the band'] - errors['distilled']": 0.0,
    },
    "04_pretrain_on_your_own_folder": {
        "perplexities['iteration 1']": 10,
        "perplexities['iteration 2']": 5,
        "np.mean(accuracies['iteration 1'])": 0.2,
        "np.mean(accuracies['iteration 2'])": 0.2,
    },
}

each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def code_cells(path) -> list:
    return [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]


def texts(output) -> list[str]:
    """What an output says in words."""
    if output.output_type == "stream":
        return [output.text]
    return [text for mime, text in output.get("data", {}).items() if mime.startswith("text/")]


def test_every_notebook_has_results_to_check():
    assert [path.stem for path in NOTEBOOKS] == list(RESULTS)


@each_notebook
def test_is_committed_as_it_ran_from_top_to_bottom(path):
    cells = code_cells(path)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))


@each_notebook
def test_is_committed_with_pictures_and_without_errors_or_warnings(path):
    outputs = [output for cell in code_cells(path) for output in cell.outputs]
    assert any("image/png" in output.get("data", {}) for output in outputs)
    assert not [output for output in outputs if output.output_type == "error" or output.get("name") == "stderr"]
    assert not [output for output in outputs if any("widget" in mime for mime in output.get("data", {}))]


@each_notebook
def test_is_small(path):
    assert path.stat().st_size < MAX_BYTES


@each_notebook
def test_names_no_place_on_a_machine(path):
    cells = nbformat.read(path, as_version=4).cells
    said = [cell.source for cell in cells]
    said += [text for cell in cells for output in cell.get("outputs", []) for text in texts(output)]
    # Sounds are base64, in which any letters can follow each other.
    found = [match[0] for text in said if (match := ABSOLUTE_PATH.search(re.sub(r"data:audio[^\"]*", "", text)))]
    assert not found


@each_notebook
def test_is_tied_to_no_version_of_python(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert notebook.metadata.kernelspec.name == "python3"
    assert set(notebook.metadata) <= {"kernelspec", "language_info"}
    assert "version" not in notebook.metadata.get("language_info", {})


@pytest.mark.slow
@pytest.mark.timeout(1800)
@each_notebook
def test_runs_from_a_fresh_kernel(path, tmp_path, monkeypatch):
    shutil.copytree(ROOT / "notebooks", tmp_path / "notebooks")
    # The kernel inherits them.
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "huggingface"))
    notebook = nbformat.read(tmp_path / "notebooks" / path.name, as_version=4)
    asked = ", ".join(f"{expression!r}: float({expression})" for expression in RESULTS[path.stem])
    question = f"import json\n\nprint(json.dumps({{{asked}}}))"
    notebook.cells.append(nbformat.v4.new_code_cell(question))
    client = NotebookClient(
        notebook, timeout=1500, kernel_name="python3", resources={"metadata": {"path": str(tmp_path / "notebooks")}}
    )
    found = json.loads(client.execute().cells[-1].outputs[0].text)
    assert {name: value for name, value in found.items() if not value >= RESULTS[path.stem][name]} == {}
