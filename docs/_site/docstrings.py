# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Extension of Griffe: docstrings in the manner of transformers, `Args:` with types and all, as Markdown."""

import ast
import importlib
import re
import textwrap
from collections.abc import Iterator

import griffe


# "name (`type`, *optional*): what", also without the type or with several names.
ENTRY = re.compile(r"(?P<names>\*{0,2}\w+(?:, \w+)*)(?: \((?P<type>.*)\))?:(?: (?P<text>.*))?$")
RAISED = re.compile(r"\[?`\w+`\]?[^:]*:")
SECTION = re.compile(r"(Args|Returns|Raises|Yields|Example):$")
REFERENCE = re.compile(r"\[`(~?[\w.]+)`\](?!\(|\[)")
# Methods whose docstring is only a list of arguments, to which transformers adds the rest when it is imported.
DECORATOR = "auto_docstring"
# Its arguments are the docstring, as `evaluate` has it: names of constants of the module.
METRIC_DECORATOR = "add_start_docstrings"


class TransformersDocstrings(griffe.Extension):
    """Rewrites all docstrings of a package once it is loaded, when the names in them can be looked up."""

    def on_package(self, *, pkg: griffe.Module, **kwargs) -> None:
        objects = list(_walk(pkg))
        paths = {obj.name: obj.path for obj in reversed(objects) if obj.is_class or obj.is_function}
        for obj in objects:
            text = "\n\n".join(filter(None, [_introduction(obj), _metric(obj), _body(obj), _keys(obj)]))
            if text:
                obj.docstring = griffe.Docstring(_with_references(text, paths), parent=obj)


def _walk(obj: griffe.Object) -> Iterator[griffe.Object]:
    yield obj
    for member in obj.members.values():
        if not member.is_alias:
            yield from _walk(member)


def _introduction(obj: griffe.Object) -> str:
    """What a class says in `auto_docstring(custom_intro=...)`, or a method does that transformers describes."""
    for decorator in getattr(obj, "decorators", []):
        tree = ast.parse(str(decorator.value), mode="eval").body
        if isinstance(tree, ast.Call) and getattr(tree.func, "id", None) == DECORATOR:
            given = {keyword.arg: ast.literal_eval(keyword.value) for keyword in tree.keywords}
            return textwrap.dedent(given.get("custom_intro", "")).strip()
    return ""


def _metric(obj: griffe.Object) -> str:
    """What a metric of `evaluate` says of itself and of its arguments."""
    for decorator in getattr(obj, "decorators", []):
        tree = ast.parse(str(decorator.value), mode="eval").body
        if isinstance(tree, ast.Call) and getattr(tree.func, "id", None) == METRIC_DECORATOR:
            # Some share a part of their texts, which the syntax tree does not show.
            module = importlib.import_module(obj.module.path)
            lines = "\n".join(getattr(module, ast.unparse(argument)) for argument in tree.args).splitlines()
            return "\n\n".join(_section(title, part) for title, part in _split(lines)).strip()
    return ""


def _body(obj: griffe.Object) -> str:
    if obj.docstring is None:
        return ""
    lines = obj.docstring.value.splitlines()
    decorators = " ".join(str(decorator.value) for decorator in getattr(obj, "decorators", []))
    if DECORATOR in decorators and ENTRY.match(lines[0]):
        return _section("Args" if obj.is_function else "Fields", lines)
    return "\n\n".join(_section(title, part) for title, part in _split(lines))


def _split(lines: list[str]) -> Iterator[tuple[str, list[str]]]:
    """The sections of a docstring with their titles, the first without; what is indented under one is dedented."""
    title, part = "", []
    for line in lines:
        starts = SECTION.match(line)
        if starts or (title and line and not line.startswith(" ")):
            yield title, textwrap.dedent("\n".join(part)).splitlines()
            title, part = (starts[1], []) if starts else ("", [line])
        else:
            part.append(line)
    yield title, textwrap.dedent("\n".join(part)).splitlines()


def _section(title: str, lines: list[str]) -> str:
    text = "\n".join(lines).strip("\n")
    if not text or not title:
        return text
    if title in ("Args", "Fields"):
        text = _list(lines, ENTRY)
    elif title == "Raises":
        text = _list(lines, RAISED)
    elif title == "Example" and "```" not in text:
        text = f"```pycon\n{text}\n```"
    return f"**{title}**\n\n{text}"


def _list(lines: list[str], entry: re.Pattern) -> str:
    """A list with an item for each line that begins an entry, and under it what belongs to that."""
    items: list[str] = []
    for line in lines:
        match = entry.match(line)
        if match is None:
            items[-1:] = [f"{items[-1] if items else '- '}\n    {line.strip()}"]
        elif entry is ENTRY:
            names = ", ".join(f"**`{name}`**" for name in match["names"].split(", "))
            kind = f" ({match['type']})" if match["type"] else ""
            items.append(f"- {names}{kind}: {match['text'] or ''}".rstrip())
        else:
            items.append(f"- {line}")
    return "\n".join(items)


def _keys(obj: griffe.Object) -> str:
    """Lists the fields of a dataclass of arguments, `argument("meaning", default, ...)`."""
    items = []
    for name, member in obj.members.items() if obj.is_class else []:
        call = ast.parse(str(getattr(member, "value", None)), mode="eval").body if member.is_attribute else None
        if not isinstance(call, ast.Call) or getattr(call.func, "id", None) != "argument":
            continue
        told = ast.literal_eval(_shown(obj, call.args[0])).replace("*", r"\*")
        default = f", defaults to `{_shown(obj, call.args[1])}`" if len(call.args) > 1 else ""
        items.append(f"- **`{name}`** (`{member.annotation}`{default}): {told}")
    return "\n".join(["**Keys**\n", *items]) if items else ""


def _shown(obj: griffe.Object, node: ast.expr) -> str:
    """An expression, or what a constant of the object's module was given: readers do not know its name."""
    is_constant = isinstance(node, ast.Name) and node.id in obj.module.members
    return str(obj.module.members[node.id].value) if is_constant else ast.unparse(node)


def _with_references(text: str, paths: dict[str, str]) -> str:
    """Names in brackets become links to where they are documented, if they are."""

    def link(match: re.Match) -> str:
        name = match[1].removeprefix("~")
        head, _, rest = name.partition(".")
        path = f"{paths[head]}.{rest}".rstrip(".") if head in paths else ""
        shown = f"<code>{rest if match[1].startswith('~') else name}</code>"
        return f'<autoref identifier="{path}" optional>{shown}</autoref>' if path else shown

    return REFERENCE.sub(link, text)
