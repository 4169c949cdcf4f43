# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Rules of docs/design.md about the house: which folder imports which, sizes, first words, private names."""

import ast
import importlib
import inspect
import pkgutil
import re
import sys
from collections import defaultdict
from functools import cache
from pathlib import Path

import pytest

import transformers_beats


ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "transformers_beats"
# Files at the root that travel to the Hub, each with those that it may import.
TRAVELLING = {
    "configuration_beats": set(),
    "fbank_beats": set(),
    "feature_extraction_beats": {"configuration_beats", "fbank_beats"},
    "modeling_beats": {"configuration_beats"},
    "modeling_beats_tokenizer": {"configuration_beats", "modeling_beats"},
    "modeling_beats_pretraining": {"configuration_beats", "modeling_beats", "modeling_beats_tokenizer"},
}
# Public names, the command line and registration.
FRONT_DOORS = {"__init__.py", "__main__.py", "_auto.py"}
# Folders from the bottom to the top. Each may import those below it; those of one floor may import each other without
# a circle.
FLOORS = [
    {"root", "utils"},
    {"audio", "metrics"},
    {"plotting"},
    {"backends", "conversion"},
    {"anomalies", "export", "inference", "integrations", "publishing", "search", "training", "verification"},
    {"cli", "demo", "web"},
]
# Files at the root that the lowest folders may import.
ROOT_OF_LOW_FOLDERS = {
    "utils": set(),
    "metrics": set(),
    "audio": {"fbank_beats"},
    "plotting": {"fbank_beats", "feature_extraction_beats"},
}
MAX_LINES, MAX_MODULES = 500, 15
LONG_MODULES = {"modeling_beats.py"}
RIDDLES = {"what", "where", "of", "those", "how", "which", "whether"}
# Modules of other projects that they do not promise to keep.
UNSTABLE = (
    "datasets.fingerprint",
    "evaluate.utils",
    "gradio.themes.utils",
    "torch.fx",
    "transformers.initialization",
    "transformers.integrations",
    "transformers.masking_utils",
    "transformers.modeling_layers",
    "transformers.processing_utils",
    "transformers.trainer",
    "transformers.trainer_pt_utils",
    "transformers.utils",
)
# Names of these modules that are documented.
DOCUMENTED = {"transformers.utils.ModelOutput", "transformers.utils.logging"}
PRIVATE_NAMES = "## Private names we rely on"


@cache
def modules() -> dict[str, ast.Module]:
    """Syntax tree of each module of the package, by its path in it."""
    paths = sorted(path for path in PACKAGE.rglob("*.py") if "__pycache__" not in path.parts)
    return {str(path.relative_to(PACKAGE)): ast.parse(path.read_text(encoding="utf-8")) for path in paths}


def imports_of(path: str) -> set[str]:
    """
    Modules of the package that a module imports, anywhere in it, such as `audio.decoding`. Imports for type checkers,
    which are never executed, are left out.
    """
    package = ["transformers_beats", *Path(path).parent.parts]
    found, nodes = set(), [modules()[path]]
    while nodes:
        node = nodes.pop()
        if not (isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"):
            nodes.extend(ast.iter_child_nodes(node))
        if isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            base = [*base, *(node.module.split(".") if node.module else [])]
            names = [".".join([*base, alias.name]) for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        found.update(filter(None, map(module_of, names)))
    return found


def module_of(name: str) -> str | None:
    """Module of the package that holds a full name, `audio.decoding` for `transformers_beats.audio.decoding.open`."""
    parts = name.split(".")
    if parts[0] != "transformers_beats":
        return None
    if len(parts) == 2 and parts[1] in transformers_beats._HOME:
        return transformers_beats._HOME[parts[1]]
    while len(parts) > 1:
        path = "/".join(parts[1:])
        if f"{path}.py" in modules() or f"{path}/__init__.py" in modules():
            return ".".join(parts[1:])
        parts.pop()
    return "__init__"


def room_of(module: str) -> str:
    """Folder of a module: `training/data` for `training.data.crops`, `root` for those at the root."""
    path = module.replace(".", "/")
    return path if f"{path}/__init__.py" in modules() else str(Path(path).parent).replace(".", "root")


def rooms() -> dict[str, set[str]]:
    """Folders that each folder imports. The front doors, which know everything, are left out."""
    arrows = defaultdict(set)
    for path in modules():
        if path not in FRONT_DOORS:
            source = str(Path(path).parent).replace(".", "root")
            arrows[source].update(map(room_of, imports_of(path) - {"__init__"}))
            arrows[source].discard(source)
    return arrows


def floor_of(room: str) -> int:
    return next(number for number, folders in enumerate(FLOORS) if room.split("/")[0] in folders)


def test_every_folder_has_its_floor():
    folders = {Path(path).parts[0] for path in modules() if "/" in path}
    assert folders == set.union(*FLOORS) - {"root"}


@pytest.mark.parametrize("module", TRAVELLING)
def test_files_that_travel_to_the_hub_import_only_each_other(module):
    assert imports_of(f"{module}.py") <= TRAVELLING[module]
    relative = {
        (node.level, node.module)
        for node in ast.walk(modules()[f"{module}.py"])
        if isinstance(node, ast.ImportFrom) and (node.level > 0 or module_of(node.module or "") is not None)
    }
    # Remote code understands no other form than `from .module import name`.
    assert all(level == 1 and name in TRAVELLING for level, name in relative)


def test_no_other_modules_stand_at_the_root():
    assert {path for path in modules() if "/" not in path} == FRONT_DOORS | {f"{name}.py" for name in TRAVELLING}


def test_arrows_run_down_only():
    upwards = {
        (source, target)
        for source, targets in rooms().items()
        for target in targets
        if floor_of(target) > floor_of(source)
    }
    assert upwards == set()


@pytest.mark.parametrize("folder", ROOT_OF_LOW_FOLDERS)
def test_low_folders_know_no_models(folder):
    known = set().union(*(imports_of(path) for path in modules() if path.startswith(f"{folder}/")))
    assert known & set(TRAVELLING) <= ROOT_OF_LOW_FOLDERS[folder]


def test_folders_import_each_other_in_no_circle():
    arrows = rooms()
    # Whatever imports nothing that is left, or is imported by nothing that is left, is no part of a circle.
    while True:
        targets = set().union(*arrows.values())
        inner = {room: arrows[room] & set(arrows) for room in arrows if room in targets and arrows[room] & set(arrows)}
        if inner == arrows:
            break
        arrows = inner
    assert arrows == {}


def test_no_module_is_too_long():
    lengths = {path: len((PACKAGE / path).read_text(encoding="utf-8").splitlines()) for path in modules()}
    assert {path for path, length in lengths.items() if length > MAX_LINES} == LONG_MODULES


def test_no_folder_has_too_many_modules():
    counts = defaultdict(int)
    for path in modules():
        counts[str(Path(path).parent)] += not path.endswith("__init__.py")
    assert {folder for folder, count in counts.items() if count > MAX_MODULES} == set()


def test_docstrings_begin_with_a_verb_or_a_noun():
    found = set()
    for path, tree in modules().items():
        for node in ast.walk(tree):
            if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
                words = (ast.get_docstring(node) or "").split()
                if words and words[0].lower() in RIDDLES:
                    found.add(f"{path}: {getattr(node, 'name', 'module')}")
    assert found == set()


def private_names() -> set[str]:
    """Names of other projects that the package uses although they begin with `_` or stand in unstable modules."""
    found, attributes, defined = set(), set(), set()
    for tree in modules().values():
        for node in ast.walk(tree):
            if (
                isinstance(node, ast.ImportFrom)
                and node.level == 0
                and not node.module.startswith("transformers_beats")
            ):
                for alias in node.names:
                    name = f"{node.module}.{alias.name}"
                    is_unstable = f"{name}.".startswith(tuple(f"{module}." for module in UNSTABLE))
                    is_private = re.search(r"(^|\.)_[a-z]", name) is not None
                    if is_private or (is_unstable and name not in DOCUMENTED):
                        found.add(name)
            elif isinstance(node, ast.Attribute) and re.match("_[a-z]", node.attr):
                (defined if isinstance(node.ctx, ast.Store) else attributes).add(node.attr)
            elif isinstance(node, (ast.FunctionDef, ast.ClassDef)):
                defined.add(node.name)
            elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                defined.add(node.target.id)
    # `_asdict` and `_replace` are public: named tuples have them so that they are no fields.
    return found | (attributes - defined - {"_asdict", "_replace"}) | overridden_names()


def overridden_names() -> set[str]:
    """Names with `_` of classes of other projects that classes of the package define anew."""
    found = set()
    for path in modules():
        if path.endswith("__main__.py"):
            continue
        name = ".".join(["transformers_beats", *Path(path).with_suffix("").parts]).removesuffix(".__init__")
        try:
            module = importlib.import_module(name)
        except ImportError:
            continue
        for _, cls in inspect.getmembers(module, inspect.isclass):
            if cls.__module__ == name:
                # The standard library documents its own; two names are written by metaclasses.
                mine = {*sys.stdlib_module_names, "transformers_beats"}
                bases = [base for base in cls.__mro__ if base.__module__.partition(".")[0] not in mine]
                found |= {key for key in vars(cls) if re.match("_[a-z]", key) and any(key in vars(b) for b in bases)}
    return found - {"_abc_impl", "_backward_cls"}


def test_private_names_of_other_projects_are_listed():
    text = (ROOT / "docs" / "design.md").read_text(encoding="utf-8")
    section = text.partition(PRIVATE_NAMES)[2].partition("\n## ")[0]
    listed = {
        name for row in re.findall(r"^\| (`[^|]*)\|", section, re.MULTILINE) for name in re.findall(r"`([\w.]+)`", row)
    }
    used = private_names()
    assert used - listed == set(), "not in the table of docs/design.md"
    assert listed - used == set(), "in the table of docs/design.md and not used"


def test_all_modules_are_found():
    names = {module.name for module in pkgutil.walk_packages([str(PACKAGE)], "transformers_beats.")}
    assert len(names) == len(modules()) - 1
