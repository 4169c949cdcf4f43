# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Recipes and command lines: YAML and `key=value` words into dataclasses, and commands that fail in one line."""

import dataclasses
import difflib
import gc
import sys
import textwrap
import traceback
import types
from collections.abc import Callable
from enum import Enum
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import torch
import yaml
from huggingface_hub.dataclasses import type_validator
from torch import distributed
from transformers import HfArgumentParser, TrainingArguments

import transformers_beats


USAGE = "usage: COMMAND [RECIPE.yaml ...] [key=value ...]"
HELP_WIDTH = 100


PACKAGE = Path(transformers_beats.__file__).parent


class RecipeError(ValueError):
    """A recipe or a command line that cannot be used; the message is one line."""


def parse_arguments(dataclass_types: tuple[type, ...], argv: list[str] | None = None) -> tuple:
    """
    Reads recipes and `key=value` words into dataclasses. Of two values for one key the later counts; mappings are
    merged. A dotted key (`config.hidden_size=192`) sets an entry of a mapping. `-h` prints all keys and exits.

    Args:
        dataclass_types (`tuple[type, ...]`):
            The dataclasses. No two of them may have a field of the same name.
        argv (`list[str]`, *optional*):
            The words; those of the command line by default.

    Returns:
        `tuple`: an instance of each dataclass.

    Raises:
        [`RecipeError`]: a recipe that cannot be read, an unknown or missing key, a value of a wrong type.
    """
    argv = sys.argv[1:] if argv is None else argv
    if "-h" in argv or "--help" in argv:
        print(format_help(dataclass_types))
        raise SystemExit(0)
    values: dict[str, Any] = {}
    for word in argv:
        merge(values, read_override(word) if "=" in word else read_recipe(word))
    return build_arguments(dataclass_types, values)


def build_arguments(dataclass_types: tuple[type, ...], values: dict[str, Any], prefix: str = "") -> tuple:
    """
    Dataclasses from a mapping, as [`parse_arguments`] makes them.

    Args:
        dataclass_types (`tuple[type, ...]`):
            The dataclasses. No two of them may have a field of the same name.
        values (`dict[str, Any]`):
            Values of their fields.
        prefix (`str`, *optional*):
            What messages put before a key.

    Returns:
        `tuple`: an instance of each dataclass.

    Raises:
        [`RecipeError`]: an unknown or missing key, a value of a wrong type or one that a dataclass refuses.
    """
    values = check_values(dataclass_types, values, prefix)
    for name, (entry, _) in find_fields(dataclass_types).items():
        if is_required(entry) and name not in values:
            raise RecipeError(f"`{prefix}{name}` is missing: {entry.metadata.get('help', 'it is needed')}")
    parser = HfArgumentParser(list[Any](dataclass_types))
    try:
        return parser.parse_dict(values)
    except ValueError as error:
        raise RecipeError(one_line(error)) from error


def run_command(main: Callable[[], Any]) -> None:
    """
    Runs the `main` of a command, then takes leave of other processes, if there are any. A `ValueError` or `OSError`
    becomes one line on stderr and the exit code 1.
    """
    try:
        main()
    except (ValueError, OSError) as error:
        # What this package raises says what to do. Of other errors, in the middle of a training, it matters more where
        # they come from.
        origin = traceback.extract_tb(error.__traceback__)[-1]
        if not (Path(origin.filename).is_relative_to(PACKAGE) and (origin.line or "").startswith("raise ")):
            traceback.print_exc()
        print(f"error: {one_line(error)}", file=sys.stderr)
        raise SystemExit(1) from None
    if distributed.is_available() and distributed.is_initialized():
        # A thread of gloo that lets go of a tensor while Python shuts down aborts the process, and with it the whole
        # run. Destroying the group ends them, if no trainer left in a reference cycle holds it.
        gc.collect()
        distributed.destroy_process_group()


def read_recipe(path: str) -> dict[str, Any]:
    """The mapping in a YAML file."""
    if path.startswith("-"):
        raise RecipeError(f"{path}: there are no options; settings are written key=value, and -h shows them")
    try:
        values = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        hint = "" if Path(path).suffix in (".yaml", ".yml") else "; settings are written key=value"
        raise RecipeError(f"{path}: cannot be read: {error.strerror}{hint}") from error
    # The last, of a thousand open brackets.
    except (ValueError, yaml.YAMLError, RecursionError) as error:
        raise RecipeError(f"{path}: is not YAML: {one_line(error)}") from error
    if not isinstance(values, dict):
        raise RecipeError(f"{path}: must hold `key: value` lines, but holds {type(values).__name__}")
    return values


def read_override(word: str) -> dict[str, Any]:
    """`{"a": {"b": value}}` of `a.b=value`."""
    key, _, text = word.partition("=")
    names = key.split(".")
    if not all(name.isidentifier() for name in names):
        raise RecipeError(f"{word}: settings are written key=value; {key!r} is no key")
    try:
        value = yaml.safe_load(text)
    # Also a ValueError, of dates such as 2026-13-01.
    except (ValueError, yaml.YAMLError, RecursionError) as error:
        raise RecipeError(f"{word}: the value is not YAML: {one_line(error)}") from error
    for name in reversed(names):
        value = {name: value}
    return value


def merge(values: dict[str, Any], later: dict[str, Any]) -> None:
    """Puts what is in `later` into `values`; where both hold a mapping, its entries."""
    for key, value in later.items():
        if isinstance(value, dict) and isinstance(values.get(key), dict):
            merge(values[key], value)
        else:
            values[key] = value


def find_fields(dataclass_types: tuple[type, ...]) -> dict[str, tuple[dataclasses.Field, Any]]:
    """All fields by name, each with its type."""
    found: dict[str, tuple[dataclasses.Field, Any]] = {}
    owners: dict[str, type] = {}
    for owner in dataclass_types:
        # Transformers' configurations name `torch.dtype` without importing torch.
        hints = get_type_hints(owner, localns={"torch": torch})
        for entry in init_fields(owner):
            if entry.name in owners:
                raise TypeError(f"{owners[entry.name].__name__} and {owner.__name__} both have `{entry.name}`.")
            owners[entry.name] = owner
            found[entry.name] = (entry, hints[entry.name])
    return found


def init_fields(owner: Any) -> list[dataclasses.Field]:
    """Fields that can be given when a dataclass is created."""
    return [entry for entry in dataclasses.fields(owner) if entry.init]


def find_sections(dataclass_types: tuple[type, ...]) -> dict[str, tuple[type, ...]]:
    """Fields whose mapping holds the fields of other dataclasses."""
    return {name: section for owner in dataclass_types for name, section in getattr(owner, "_sections", {}).items()}


def check_values(dataclass_types: tuple[type, ...], values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """
    The values with the types of their fields, also inside sections. Whether a field is missing is not looked at:
    `iterate` adds to its sections.
    """
    fields, sections = find_fields(dataclass_types), find_sections(dataclass_types)
    checked = {}
    for name, value in values.items():
        if name not in fields:
            raise RecipeError(f"unknown key `{prefix}{name}`{suggest(str(name), fields, sections, prefix)}")
        if name in sections and isinstance(value, dict):
            checked[name] = check_values(sections[name], value, f"{prefix}{name}.")
        else:
            checked[name] = convert(value, fields[name][1], prefix + name)
    return checked


def suggest(name: str, fields: dict[str, Any], sections: dict[str, tuple[type, ...]], prefix: str) -> str:
    """`": did you mean ...?"` with the keys that look like `name`, or that are called so in a section."""
    matches = [f"{section}.{name}" for section, owners in sections.items() if name in find_fields(owners)]
    matches = matches or difflib.get_close_matches(name, fields)
    return f": did you mean {' or '.join(f'`{prefix}{match}`' for match in matches)}?" if matches else ""


def union_members(hint: Any) -> tuple[Any, ...]:
    """`int` and `None` of `int | None`, `int` of `int`."""
    return get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)


def accepts(hint: Any, value: Any) -> bool:
    """Whether a value is of a type."""
    try:
        type_validator("value", value, hint)
    except TypeError:
        return False
    return True


def convert(value: Any, hint: Any, key: str) -> Any:
    """The value as what its field holds, or a `RecipeError`."""
    members = union_members(hint)
    options = [value, *as_numbers(value)]
    # YAML 1.1 reads `no`, as in `save_strategy: no`, as false.
    if value is False and any(isinstance(member, type) and issubclass(member, Enum) for member in members):
        options.append("no")
    for option in options:
        if accepts(hint, option):
            return option
    expected = " or ".join(describe(member) for member in members)
    is_scalar = value is not None and not isinstance(value, (dict, list))
    quote = f" (to have it as text: {key}='\"{value}\"')" if is_scalar and str in members else ""
    raise RecipeError(f"`{key}` must be {expected}, got {value!r}{quote}")


def as_numbers(value: Any) -> list[int | float]:
    """
    A number, or text that is one, as an integer if it is one and as a float: YAML 1.1 reads 5e-4 and 1e5 as text, and
    a field of floats may be given 1.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return []
    try:
        number = float(value)
    except ValueError:
        return []
    return [int(number), number] if number.is_integer() else [number]


def describe(hint: Any) -> str:
    """A type in words."""
    if get_origin(hint) is Literal:
        return " or ".join(repr(choice) for choice in get_args(hint))
    names = ("true or false", "an integer", "a number", "text", "a mapping", "a list", "null")
    words = dict(zip((bool, int, float, str, dict, list, type(None)), names))
    return words.get(get_origin(hint) or hint, getattr(hint, "__name__", str(hint)))


def is_required(entry: dataclasses.Field) -> bool:
    """Whether a field has no default."""
    return entry.default is dataclasses.MISSING and entry.default_factory is dataclasses.MISSING


def default_of(entry: dataclasses.Field) -> Any:
    """The default of a field that has one."""
    return entry.default if entry.default_factory is dataclasses.MISSING else entry.default_factory()


def one_line(text: Any) -> str:
    """A message in one line, however many it has."""
    return " ".join(str(text).split())


def format_help(dataclass_types: tuple[type, ...]) -> str:
    """All keys with their defaults and meanings, grouped by dataclass."""
    sections = find_sections(dataclass_types)
    lines = [USAGE]
    for owner in dataclass_types:
        lines += ["", f"{owner.__name__}: {one_line(owner.__doc__ or '')}"]
        if issubclass(owner, TrainingArguments):
            lines += wrap(f"All fields of transformers.TrainingArguments. {format_changed_defaults(owner)}", "  ")
            continue
        for name, (entry, hint) in find_fields((owner,)).items():
            default = "required" if is_required(entry) else f"default: {default_of(entry)!r}"
            type_name = hint.__name__ if isinstance(hint, type) else str(hint).replace("typing.", "")
            meaning = entry.metadata.get("help", "")
            if name in sections:
                meaning += f" Keys: {name}.NAME=value, fields of {', '.join(s.__name__ for s in sections[name])}."
            lines += [f"  {name} ({type_name}, {default})", *wrap(meaning, "      ")]
    return "\n".join(lines)


def format_changed_defaults(owner: type) -> str:
    """In which defaults a subclass differs from `TrainingArguments`."""
    base = {name: default_of(entry) for name, (entry, _) in find_fields((TrainingArguments,)).items()}
    own = {name: default_of(entry) for name, (entry, _) in find_fields((owner,)).items()}
    changed = [f"{name}={value!r}" for name, value in own.items() if value != base.get(name)]
    return f"Other defaults here: {', '.join(changed)}." if changed else ""


def wrap(text: str, indent: str) -> list[str]:
    """Lines of help."""
    return textwrap.wrap(text, HELP_WIDTH, initial_indent=indent, subsequent_indent=indent)


__all__ = ["RecipeError", "build_arguments", "parse_arguments", "run_command"]
