# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Workflow, hooks, forms, citation, changelog and README: each agrees with the files that it speaks of."""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from golden import ROOT

from transformers_beats import __version__, released


GITHUB = ROOT / ".github"
FORMS = sorted(path for path in (GITHUB / "ISSUE_TEMPLATE").glob("*.yml") if path.stem != "config")
# Pages beside `docs/`, whose links mkdocs does not check.
PAGES = ["CHANGELOG.md", "CONTRIBUTING.md", "README.md", "SECURITY.md", "conversion/README.md", "notebooks/README.md"]
SCHEMAS = {
    "github-workflows": [GITHUB / "workflows" / "ci.yml"],
    "github-issue-forms": FORMS,
    "github-issue-config": [GITHUB / "ISSUE_TEMPLATE" / "config.yml"],
    "citation-file-format": [ROOT / "CITATION.cff"],
}
FIELD_TYPES = {"checkboxes", "dropdown", "input", "markdown", "textarea"}


def read(path: str | Path) -> str:
    return (ROOT / path).read_text(encoding="utf-8")


def load(path: str | Path):
    return yaml.safe_load(read(path))


def workflow_steps() -> list[str]:
    """Returns the commands of all steps of the workflow, one a line."""
    jobs = load(".github/workflows/ci.yml")["jobs"].values()
    scripts = [step["run"] for job in jobs for step in job["steps"] if "run" in step]
    return [line.strip() for script in scripts for line in script.splitlines() if line.strip()]


def floor(package: str) -> str:
    """Returns the lowest version of a dependency in pyproject.toml."""
    (version,) = re.findall(rf'^    "{package}>=([\d.]+)"', read("pyproject.toml"), re.MULTILINE)
    return version


def lowest_python() -> str:
    (version,) = re.findall(r'^requires-python = ">=([\d.]+)"', read("pyproject.toml"), re.MULTILINE)
    return version


def test_every_step_of_the_workflow_is_one_of_ci_or_run():
    of_ci = set(re.findall(r"^\./run .*$", read(".ci/run"), re.MULTILINE)) | {".ci/run"}
    of_run = {f"./run {name}" for name in re.findall(r"^  (\w+) ?.*? {2,}\S", read("run"), re.MULTILINE)}
    steps = workflow_steps()
    assert steps
    assert [step for step in steps if step not in of_ci and " ".join(step.split()[:2]) not in of_run] == []


def test_the_workflow_runs_what_ci_runs():
    steps = workflow_steps()
    assert {"./run check", "./run test", "./run conformance -q", ".ci/run"} <= {*steps}


@pytest.mark.parametrize("schema", SCHEMAS)
def test_files_fit_their_schemas(schema):
    pytest.importorskip("check_jsonschema")
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", f"vendor.{schema}", *SCHEMAS[schema]]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


def test_the_workflow_has_no_secrets_and_may_only_read():
    text = read(".github/workflows/ci.yml")
    assert "secrets." not in text
    assert load(".github/workflows/ci.yml")["permissions"] == {"contents": "read"}


def test_the_workflow_tests_the_lowest_versions_of_the_package():
    *_, setup, step = load(".github/workflows/ci.yml")["jobs"]["lowest"]["steps"]
    assert setup["with"] == {"python-version": lowest_python()}
    # It takes those of the dependencies from pyproject.toml.
    assert step["run"] == "./run versions --lowest"


def test_only_the_main_branch_of_transformers_may_fail():
    job = load(".github/workflows/ci.yml")["jobs"]["test"]
    assert job["continue-on-error"] == "${{ matrix.versions == 'coming' }}"
    rows = {row["versions"]: row["install"] for row in job["strategy"]["matrix"]["include"]}
    assert [name for name, install in rows.items() if "github.com/huggingface/transformers" in install] == ["coming"]


@pytest.mark.parametrize("page", ["README.md", "docs/reference/index.md"])
def test_documentation_names_the_lowest_versions(page):
    text = read(page)
    versions = {"Python": lowest_python()} | {name: floor(name) for name in ("torch", "transformers")}
    for name, version in versions.items():
        assert set(re.findall(rf"\b{name} >= ([\d.]+\d)", text)) == {version}


def test_hooks_have_the_version_of_ruff_of_the_package():
    (version,) = re.findall(r'"ruff==([\d.]+)"', read("pyproject.toml"))
    (repository,) = load(".pre-commit-config.yaml")["repos"]
    assert repository["repo"] == "local"
    needed = [name for hook in repository["hooks"] for name in hook["additional_dependencies"]]
    assert {name for name in needed if name.startswith("ruff")} == {f"ruff=={version}"}


@pytest.mark.parametrize("path", FORMS, ids=lambda path: path.stem)
def test_issue_forms_have_fields_with_names_and_labels(path):
    form = load(path)
    assert form["name"]
    assert form["description"]
    assert {field["type"] for field in form["body"]} <= FIELD_TYPES
    names = [field["id"] for field in form["body"]]
    assert len(set(names)) == len(names)
    assert all(field["attributes"]["label"] for field in form["body"])


def test_citation_is_of_this_version_and_of_the_paper():
    citation = load("CITATION.cff")
    assert citation["cff-version"] == "1.2.0"
    assert citation["version"] == __version__
    assert citation["license"] == "Apache-2.0"
    assert {"message", "title", "authors"} <= citation.keys()
    paper = citation["preferred-citation"]
    assert paper["authors"][0] == {"family-names": "Chen", "given-names": "Sanyuan"}
    assert "arXiv:2212.09058" in [identifier["value"] for identifier in paper["identifiers"]]


def test_changelog_begins_with_this_version_or_with_unreleased_changes():
    sections = re.findall(r"^## \[(.+?)\]", read("CHANGELOG.md"), re.MULTILINE)
    assert sections[0] in ("Unreleased", __version__)
    assert len(set(sections)) == len(sections)


def test_readme_has_a_screen_or_two():
    assert 60 <= len(read("README.md").splitlines()) <= 100


def test_readme_lists_the_models_that_can_be_fetched_by_name():
    table = re.findall(r"^\| `(beats-[\w-]+)` \|", read("README.md"), re.MULTILINE)
    assert sorted(table) == sorted(
        name for name, entry in released.read_manifest(released.MANIFEST).items() if entry.mirrors
    )


@pytest.mark.parametrize("page", PAGES)
def test_links_between_files_lead_somewhere(page):
    targets = re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", read(page))
    local = [target for target in targets if "://" not in target]
    assert local
    assert [target for target in local if not (ROOT / page).parent.joinpath(target).exists()] == []


def test_the_paper_has_the_same_authors_wherever_it_is_cited():
    people = load("CITATION.cff")["preferred-citation"]["authors"]
    authors = " and ".join(f"{person['family-names']}, {person['given-names']}" for person in people)
    for path in (
        "README.md",
        "src/transformers_beats/conversion/model_card_template.md",
        "src/transformers_beats/integrations/mteb.py",
    ):
        (found,) = re.findall(r"author\s*=\s*\{([^}]*)\}", read(path))
        assert " ".join(found.split()) == authors, path


def test_new_names_of_modules_are_there():
    table = read("docs/renames.md").split("## Modules")[1].split("\n## ")[0]
    rows = [line.split(" | ")[1] for line in table.splitlines() if line.startswith("| `")]
    names = {name for row in rows for name in re.findall(r"`([a-z_]+(?:\.\w+)+)`", row)}
    assert len(names) > 40
    for name in sorted(names):
        module, attributes = f"transformers_beats.{name}", []
        while not is_module(module):
            module, _, attribute = module.rpartition(".")
            attributes.insert(0, attribute)
        found = importlib.import_module(module) if attributes else None
        for attribute in attributes:
            found = getattr(found, attribute)


def is_module(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        return False
