# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""The notebooks: what is committed of them, and, slow, that each runs from a fresh kernel without network."""

import base64
import json
import re
import shutil
from io import BytesIO

import nbformat
import pytest
import soundfile
from golden import ROOT
from nbclient import NotebookClient
from PIL import Image


NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
MAX_BYTES, MAX_PICTURE_BYTES = 700_000, 150_000
# Lines of code that a reader passes before there is something to look at or to listen to.
MAX_LINES_BEFORE_A_RESULT = 5
DPI = 150
SOUND = re.compile(r'src="data:audio/mpeg;base64,([^"]*)"')
# Where files lie on somebody's machine. Pictures and sounds are left out before.
ABSOLUTE_PATH = re.compile(r"(?<![\w.:/])/(home|tmp|root|work|opt|usr|var|private|Users)/|\b[A-Za-z]:\\\\?Users")
# What each notebook computes, and the least that it must be. Guessing has 0.1, and an average precision of 0.22.
RESULTS = {
    "01_tag_your_own_audio": {"average_precision.mean()": 0.5},
    "02_fine_tune_with_trainer": {"accuracy": 0.5, "agree": 1.0},
    "03_acoustic_tokens": {
        "probe_accuracy['random projection']": 0.3,
        "probe_accuracy['distilled']": 0.3,
        "one_code['distilled'] - one_code['random projection']": 0.0,
        "errors['mean of the band'] - errors['distilled']": 0.0,
    },
    "04_pretrain_on_your_own_folder": {
        "perplexities['iteration 1']": 10,
        "perplexities['iteration 2']": 5,
        "np.mean(accuracies['iteration 1'])": 0.2,
        "np.mean(accuracies['iteration 2'])": 0.2,
    },
    "05_beats_as_a_front_end": {
        "accuracies['MLP']": 0.5,
        "accuracies['Q-Former']": 0.4,
        "unchanged": 1.0,
        "agree": 0.95,
        "1e-5 - difference": 0.0,
    },
}

# What is smaller where a test runs a notebook: trainings of fewer steps, which fulfil the values above as well.
SMALLER = {
    "04_pretrain_on_your_own_folder": {
        "clips_per_class=24": "clips_per_class=12",
        "model_steps=100": "model_steps=60",
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


def results(cell) -> list:
    """Outputs of a cell that are more than text."""
    return [output for output in cell.outputs if output.output_type in ("display_data", "execute_result")]


def pictures(path) -> list[bytes]:
    data = [output.data for cell in code_cells(path) for output in results(cell)]
    return [base64.b64decode(mimes["image/png"]) for mimes in data if "image/png" in mimes]


@each_notebook
def test_shows_a_result_after_five_lines_of_code(path):
    first, *_ = code_cells(path)
    lines = [line for line in first.source.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    assert len(lines) <= MAX_LINES_BEFORE_A_RESULT
    assert results(first)


@each_notebook
def test_pictures_are_sharp_and_small_and_say_nothing_of_their_making(path):
    for content in pictures(path):
        with Image.open(BytesIO(content)) as picture:
            assert [round(dpi) for dpi in picture.info["dpi"]] == [DPI, DPI]
            assert set(picture.info) <= {"dpi", "transparency"}
        assert len(content) < MAX_PICTURE_BYTES


@each_notebook
def test_sounds_can_be_played(path):
    texts_of_outputs = [text for cell in code_cells(path) for output in cell.outputs for text in texts(output)]
    for sound in SOUND.findall("".join(texts_of_outputs)):
        samples, sampling_rate = soundfile.read(BytesIO(base64.b64decode(sound)))
        assert sampling_rate == 16000
        assert samples.any()


@each_notebook
def test_is_committed_as_it_ran_from_top_to_bottom(path):
    cells = code_cells(path)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))


@each_notebook
def test_is_committed_with_pictures_and_without_errors_or_warnings(path):
    outputs = [output for cell in code_cells(path) for output in cell.outputs]
    assert pictures(path)
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
    for text, smaller in SMALLER.get(path.stem, {}).items():
        (cell,) = [cell for cell in notebook.cells if cell.cell_type == "code" and text in cell.source]
        cell.source = cell.source.replace(text, smaller)
    asked = ", ".join(f"{expression!r}: float({expression})" for expression in RESULTS[path.stem])
    question = f"import json\n\nprint(json.dumps({{{asked}}}))"
    notebook.cells.append(nbformat.v4.new_code_cell(question))
    client = NotebookClient(
        notebook, timeout=1500, kernel_name="python3", resources={"metadata": {"path": str(tmp_path / "notebooks")}}
    )
    found = json.loads(client.execute().cells[-1].outputs[0].text)
    assert {name: value for name, value in found.items() if not value >= RESULTS[path.stem][name]} == {}
