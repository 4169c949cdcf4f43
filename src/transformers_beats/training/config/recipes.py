# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""
Recipes and command lines of training: `--config RECIPE --key value` into dataclasses.

jsonargparse converts the values to the types of the fields, because it leaves text alone where a field holds text
(OmegaConf makes the integer 7 of `007`) and knows nested keys (HfArgumentParser does not).
"""

import copy
import dataclasses
import difflib
import json
import os
import re
import shutil
import sys
import textwrap
from argparse import SUPPRESS, ArgumentError
from functools import cache, reduce
from pathlib import Path
from typing import Any, NamedTuple, get_origin, get_type_hints

import torch
import yaml
from jsonargparse import ArgumentParser
from transformers.trainer_utils import SaveStrategy

import transformers_beats
from transformers_beats.utils.arguments import union_members
from transformers_beats.utils.errors import UsageError, first_line, one_line


RECIPES = Path(transformers_beats.__file__).parent / "recipes"


class RecipeLoader(yaml.SafeLoader):
    """YAML with the scalars of JSON: 5e-4 is a number; `no`, `007`, `12:30` and dates are text."""


# A copy: the loader would share those of its base class.
RecipeLoader.yaml_implicit_resolvers = {}
for kind, pattern, first in (
    ("null", r"null|~|", ["n", "~", ""]),
    ("bool", r"true|false|True|False", list("tfTF")),
    ("int", r"-?(?:0|[1-9]\d*)", list("-0123456789")),
    ("float", r"[-+]?(?:\d+\.?\d*|\.\d+)[eE][-+]?\d+|-?(?:\d+\.\d*|\.\d+)", list("-+.0123456789")),
    ("merge", "<<", ["<"]),
):
    RecipeLoader.add_implicit_resolver(f"tag:yaml.org,2002:{kind}", re.compile(f"^(?:{pattern})$"), first)


class Setting(NamedTuple):
    """A field of a dataclass, its type, and the dataclasses whose fields its mapping holds."""

    entry: dataclasses.Field
    hint: Any
    section: tuple[type, ...]

    @property
    def types(self) -> tuple[Any, ...]:
        """Types that the field accepts: see [`union_members`]."""
        return union_members(self.hint)

    @property
    def default(self) -> Any:
        """The default of a field; `MISSING` if it is required."""
        factory = self.entry.default_factory
        return self.entry.default if factory is dataclasses.MISSING else factory()


def parse_arguments(dataclass_types: tuple[type, ...], argv: list[str] | None = None, doc: str | None = None) -> tuple:
    """
    Reads `--config RECIPE` and `--key value` into dataclasses. Of two values for one key the later counts, and those
    of the command line before those of recipes; mappings are merged. A dotted key (`--model_config.hidden_size 192`)
    sets an entry of a mapping, and `-` stands for `_`. `--help` prints the important keys, between what `doc`, the
    docstring of the command's module, says in its first paragraph and its others, and exits; `--help-all` prints all
    keys. No two dataclasses may have a field of one name.

    Raises:
        [`UsageError`]: a recipe that cannot be read, an unknown or missing key, a value of a wrong type.
    """
    argv = sys.argv[1:] if argv is None else argv
    if {"-h", "--help", "--help-all"} & {*argv}:
        print(format_help(dataclass_types, doc or "", "--help-all" in argv))
        raise SystemExit(0)
    return build_arguments(dataclass_types, read_line(argv, find_settings(dataclass_types)))


def build_arguments(dataclass_types: tuple[type, ...], values: dict[str, Any]) -> tuple:
    """
    Makes dataclasses of a mapping of their fields to values, or to text that is read as such, as [`parse_arguments`]
    does.

    Raises:
        [`UsageError`]: an unknown or missing key, a value of a wrong type or one that a dataclass refuses.
    """
    # A misspelt key is named before the one that is therefore missing.
    converted = convert(dataclass_types, values)
    for name, setting in find_settings(dataclass_types).items():
        if "." not in name and name not in values and setting.default is dataclasses.MISSING:
            raise UsageError(f"`{name}` is missing: {setting.entry.metadata.get('help', 'it is needed')}")
    try:
        return tuple(
            owner(**{name: converted[name] for name in find_settings((owner,)) if name in converted})
            for owner in dataclass_types
        )
    except ValueError as error:
        raise UsageError(one_line(error)) from error


@cache
def find_settings(dataclass_types: tuple[Any, ...], prefix: str = "") -> dict[str, Setting]:
    """Returns all fields, also those of sections, by their dotted keys."""
    found: dict[str, Setting] = {}
    owners: dict[str, type] = {}
    for owner in dataclass_types:
        # Transformers' configurations name `torch.dtype` without importing torch.
        hints = get_type_hints(owner, localns={"torch": torch})
        sections = getattr(owner, "_sections", {})
        for entry in dataclasses.fields(owner):
            if not entry.init:
                continue
            if entry.name in owners:
                raise TypeError(f"{owners[entry.name].__name__} and {owner.__name__} both have `{entry.name}`.")
            owners[entry.name] = owner
            key, section = prefix + entry.name, sections.get(entry.name, ())
            found[key] = Setting(entry, hints[entry.name], section)
            found |= find_settings(section, f"{key}.")
    return found


@cache
def build_parser(dataclass_types: tuple[type, ...]) -> ArgumentParser:
    """Returns a parser of the fields of dataclasses, which gives what was given and no defaults."""
    parser = ArgumentParser(exit_on_error=False, add_help=False)
    for key, setting in find_settings(dataclass_types).items():
        if "." not in key:
            try:
                parser.add_argument(f"--{key}", type=setting.hint, default=SUPPRESS)
            # A type of transformers' that jsonargparse does not know.
            except ValueError:
                parser.add_argument(f"--{key}", type=object, default=SUPPRESS)
    return parser


def convert(dataclass_types: tuple[type, ...], values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Returns the values, also inside sections, with the types of their fields."""
    settings = find_settings(dataclass_types)
    converted, others = {}, {}
    for name, value in values.items():
        if name not in settings:
            raise UsageError(f"unknown key `{prefix}{name}`{suggest(str(name), settings, prefix)}")
        if settings[name].section and isinstance(value, dict):
            converted[name] = convert(settings[name].section, value, f"{prefix}{name}.")
        # jsonargparse would take a text such as `#` or `~` for null.
        elif isinstance(value, str) and str in settings[name].types:
            converted[name] = value
        else:
            others[name] = value
    try:
        return converted | build_parser(dataclass_types).parse_object(others).as_dict()
    except ArgumentError as error:
        named = re.search(r'key "([^".]+)', str(error))
        if named is None or named[1] not in others:
            raise UsageError(one_line(error)) from error
        hint = settings[named[1]].hint
        expected = hint.__name__ if isinstance(hint, type) else str(hint).replace("typing.", "")
        raise UsageError(f"`{prefix}{named[1]}` must be {expected}, got {others[named[1]]!r}") from error


def suggest(name: str, settings: dict[str, Setting], prefix: str) -> str:
    """Returns `": did you mean ...?"` with the keys that look like `name`, or have it in a section."""
    own = [key for key in settings if "." not in key]
    matches = [key for key in settings if key.endswith(f".{name}")] or difflib.get_close_matches(
        name, own, cutoff=0.75
    )
    return f": did you mean {' or '.join(f'`{prefix}{match}`' for match in matches[:3])}?" if matches else ""


def read_line(argv: list[str], settings: dict[str, Setting]) -> dict[str, Any]:
    """Returns the mapping that the words of a command line make, with the recipes that they name."""
    recipes: list[dict[str, Any]] = []
    given: list[dict[str, Any]] = []
    words = list(argv)
    while words:
        word = words.pop(0)
        if not word.startswith("--") or word == "--":
            what = "recipes are given as --config RECIPE" if word.endswith((".yaml", ".yml")) else "a value too many"
            raise UsageError(f"{word}: {what}; settings are written --key value, and --help shows them")
        option, has_value, text = word[2:].partition("=")
        path = split_key(option, settings)
        setting = settings.get(".".join(path))
        if not has_value:
            if words and not words[0].startswith("--"):
                text = words.pop(0)
            elif setting is not None and bool in setting.types:
                text = "true"
            # An unknown key is reported as such later on. Entries of a mapping without fields have any name.
            elif setting is not None or option == "config" or is_entry(path, settings):
                raise UsageError(f"{word}: its value is missing; settings are written --key value")
        if option == "config":
            later = read_recipe(text)
            check_length(later, f"{text}: ")
            recipes.append(later)
        else:
            value = read_value(text, setting, word)
            given.append(reduce(lambda inner, name: {name: inner}, reversed(path), value))
    line = put_together(given)
    check_length(line)
    whole = put_together([*recipes, *given])
    values: dict[str, Any] = {}
    for recipe in recipes:
        merge(values, recipe, whole)
    give_way(values, line, whole)
    # A recipe that follows a value does not take its place. One after another: a null takes away what a recipe has.
    for each in given:
        put(values, each)
    return values


def is_entry(path: list[str], settings: dict[str, Setting]) -> bool:
    """Returns whether a key is that of an entry of a mapping that is no section."""
    known = [key for count in range(1, len(path)) if (key := ".".join(path[:count])) in settings]
    return bool(known) and not settings[known[-1]].section


def split_key(option: str, settings: dict[str, Setting]) -> list[str]:
    """Returns the names in a dotted key, with `_` for `-` in those of fields; columns keep theirs."""
    names = option.split(".")
    for count in range(len(names), 0, -1):
        if (known := ".".join(names[:count]).replace("-", "_")) in settings:
            return [*known.split("."), *names[count:]]
    return option.replace("-", "_").split(".")


def read_value(text: str, setting: Setting | None, word: str) -> Any:
    """Returns the YAML of a mapping, a list or an entry of a mapping, None for a `null`, otherwise the text."""
    holds = {get_origin(member) or member for member in setting.types} if setting else {dict}
    if holds & {dict, list} and not (str in holds and not text.startswith(("[", "{"))):
        return load_yaml(text, f"{word} {text}: the value is not YAML")
    return None if text == "null" and type(None) in holds else text


def merge(values: dict[str, Any], later: dict[str, Any], whole: dict[str, Any] | None = None) -> None:
    """
    Puts `later` into `values`; where both hold a mapping, its entries. What `later` takes the place of gives way, see
    [`give_way`].
    """
    give_way(values, later, put_together([values, later]) if whole is None else whole)
    put(values, later)


def put(values: dict[str, Any], later: dict[str, Any]) -> None:
    """Puts `later` into `values`, key by key; where both hold a mapping, its entries."""
    for key, value in later.items():
        if isinstance(value, dict) and isinstance(values.get(key), dict):
            put(values[key], value)
        else:
            values[key] = value


def put_together(several: list[dict[str, Any]]) -> dict[str, Any]:
    """Returns a copy of several mappings, put one into the other."""
    whole: dict[str, Any] = {}
    for values in several:
        put(whole, copy.deepcopy(values))
    return whole


def give_way(values: dict[str, Any], later: dict[str, Any], whole: dict[str, Any]) -> None:
    """
    Removes from `values`, also from mappings in them, what would win over `later`, or contradict it, though it is
    older: `max_steps` where `later` has epochs alone, and, where the best model is kept, when checkpoints are written,
    which is when the training evaluates. `whole` is all that is given together.
    """
    if "num_train_epochs" in later and str(later.get("max_steps", -1)) == "-1":
        share_warmup(values, values.pop("max_steps", None))
    if later.get("eval_strategy") not in (None, "steps") and "eval_steps" not in later:
        values.pop("eval_steps", None)
    if keeps_best(whole):
        for evaluation, save in (("eval_strategy", "save_strategy"), ("eval_steps", "save_steps")):
            # What is saved where it is best is compared with all evaluations.
            if later.get(evaluation) is not None and save not in later and values.get(save) != SaveStrategy.BEST:
                values.pop(save, None)
    for key, value in later.items():
        if isinstance(value, dict) and isinstance(values.get(key), dict):
            inner = whole.get(key)
            # Something else, such as a null, may follow.
            give_way(values[key], value, inner if isinstance(inner, dict) else {})


def share_warmup(values: dict[str, Any], steps: Any) -> None:
    """Makes a warm-up in steps, of a training of so many `steps`, the share that it was of these."""
    for name in ("warmup_steps", "consistency_warmup"):
        warmup: Any = values.get(name)
        # Below 1 it is a share, and none of a training that is shorter.
        if all(type(number) in (int, float) for number in (steps, warmup)) and 1 < warmup < steps:
            values[name] = warmup / steps


def keeps_best(values: dict[str, Any]) -> bool:
    """Returns whether a training with such values keeps its best model; values of a command line are text."""
    return (
        values.get("early_stopping_patience") is not None
        or str(values.get("load_best_model_at_end")).lower() == "true"
    )


def check_length(values: dict[str, Any], place: str = "") -> None:
    """Raises a [`UsageError`] that begins with `place` if the length of a training is given in steps and epochs."""
    # Numbers of a command line are text; -1 stands for none.
    if "num_train_epochs" in values and str(values.get("max_steps")).isdigit():
        raise UsageError(f"{place}both `max_steps` and `num_train_epochs` are given: leave one of them out.")
    for value in values.values():
        if isinstance(value, dict):
            check_length(value, place)


# Recipes


def list_recipes() -> dict[str, str]:
    """Returns the names of the recipes that come with the package, each with what it trains."""
    texts = {path.stem: path.read_text(encoding="utf-8") for path in sorted(RECIPES.glob("*.yaml"))}
    return {name: first_line(text).lstrip("# ").removesuffix(":") for name, text in texts.items()}


def read_recipe(name: str) -> dict[str, Any]:
    """Returns the mapping of a recipe, given by its path or, if it comes with the package, by its name."""
    names = list_recipes()
    path = RECIPES / f"{name}.yaml" if name in names else Path(name)
    # `Path.exists` raises for a name that is too long.
    if not os.path.exists(path):
        matches = difflib.get_close_matches(path.stem, names) or names
        raise UsageError(f"{name}: no such file, and no recipe of that name: did you mean {', '.join(matches)}?")
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}: is not YAML: {one_line(error)}") from error
    values = load_yaml(text, f"{path}: is not YAML")
    if not isinstance(values, dict):
        raise UsageError(f"{path}: must hold `key: value` lines, but holds {type(values).__name__}")
    return values


def load_yaml(text: str, problem: str) -> Any:
    """Returns what a text in YAML holds."""
    try:
        return yaml.load(text, RecipeLoader)
    # The last, of a thousand open brackets.
    except (ValueError, yaml.YAMLError, RecursionError) as error:
        raise UsageError(f"{problem}: {one_line(error)}") from error


# Help


def format_help(dataclass_types: tuple[type, ...], doc: str, shows_all: bool = False) -> str:
    """
    Returns a line for each key, grouped by dataclass, between the first paragraph of `doc` and the others. With
    `shows_all` the lines are whole, and no key is left out.
    """
    title, _, example = doc.strip().partition("\n\n")
    lines = [one_line(title), "", "Arguments: [--config RECIPE ...] [--key value ...]"]
    width = 10_000 if shows_all else shutil.get_terminal_size((119, 24)).columns
    for owner in dataclass_types:
        settings = find_settings((owner,))
        shown = "" if shows_all else getattr(owner, "_shown", "")
        lines += ["", one_line((owner.__doc__ or owner.__name__).strip().split("\n\n")[0])]
        for name in shown.split() or [key for key in settings if "." not in key]:
            text = describe_setting(name, settings[name])
            lines.append(f"  --{name:<32}{textwrap.shorten(text, max(width - 36, 20), placeholder=' ...')}")
        if shown:
            lines.append("  and all other fields of transformers.TrainingArguments: --help-all shows them.")
    return "\n".join(lines + (["", example] if example else []))


def describe_setting(name: str, setting: Setting) -> str:
    """Returns the default of a key, its meaning, and how the keys of its section are written."""
    value = "required" if setting.default is dataclasses.MISSING else setting.default
    # As it is written on the command line.
    default = json.dumps(value) if value is None or isinstance(value, bool) else value
    owners = ", ".join(owner.__name__ for owner in setting.section)
    section = f" Keys: --{name}.KEY, of {owners}." if owners else ""
    return f"[{getattr(default, 'value', default)}] {one_line(setting.entry.metadata.get('help') or '')}{section}"
