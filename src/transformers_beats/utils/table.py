# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Tables that are not wider than the terminal, and tables as CSV."""

import csv
import io
import shutil
import sys
from collections.abc import Iterable, Sequence
from typing import Any

from rich.cells import cell_len, set_cell_size

from .errors import printable


# Between two columns.
GAP = 2
# To which names and labels are shortened in the narrowest terminal.
MIN_WIDTH = 8
# Width of what is no terminal, such as a file: nothing is shortened.
UNLIMITED = 10_000


def print_table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """
    Prints a table in the width of the terminal, or of `COLUMNS`. Texts that do not fit are shortened in their middle;
    numbers never are. What the encoding of standard output does not have is replaced, as in [`print_text`].
    """
    cells = [[encodable(printable(cell), output_encoding()) for cell in row] for row in [headers, *rows]]
    print(format_table(cells[0], cells[1:], terminal_width()), flush=True)


def print_text(text: str) -> None:
    """Prints a text with "?" in place of what the encoding of standard output does not have, such as in a pipe."""
    print(encodable(text, output_encoding()), flush=True)


def output_encoding() -> str:
    """Returns the encoding of standard output."""
    return getattr(sys.stdout, "encoding", None) or "utf-8"


def terminal_width() -> int:
    """Returns the width of the terminal, or of `COLUMNS`; without either, there is no limit."""
    return shutil.get_terminal_size((UNLIMITED, 24)).columns


def format_table(headers: Sequence[str], rows: Sequence[Sequence[str]], width: int) -> str:
    """Returns a table whose lines have at most `width` columns of a terminal, if its numbers allow."""
    cells = [[printable(cell) for cell in row] for row in [headers, *rows]]
    widths = [max(map(cell_len, column)) for column in zip(*cells)]
    are_numbers = [all(is_number(cell) for cell in column[1:]) for column in zip(*cells)]
    texts = [index for index, is_right in enumerate(are_numbers) if not is_right]
    rest = width - GAP * (len(widths) - 1) - sum(size for size, is_right in zip(widths, are_numbers) if is_right)
    # The narrowest first: what it leaves is for the others.
    for number, index in enumerate(sorted(texts, key=lambda index: widths[index])):
        widths[index] = min(widths[index], max(MIN_WIDTH, rest // (len(texts) - number)))
        rest -= widths[index]
    lines = []
    for row in cells:
        aligned = [
            " " * (size - cell_len(cell)) + cell if is_right else set_cell_size(shorten(cell, size), size)
            for cell, size, is_right in zip(row, widths, are_numbers)
        ]
        lines.append((" " * GAP).join(aligned).rstrip())
    rule = "-" * min(width, sum(widths) + GAP * (len(widths) - 1))
    return "\n".join([lines[0], rule, *lines[1:]])


def is_number(cell: str) -> bool:
    """Returns whether a cell is a number, or empty."""
    return not cell or cell.replace(".", "", 1).replace("-", "", 1).isdigit()


def shorten(text: str, width: int) -> str:
    """Returns a text with "..." in place of its middle if it is wider: names differ at their ends."""
    if cell_len(text) <= width:
        return text
    head = (width - 3) // 2
    tail = text
    while cell_len(tail) > width - 3 - head:
        tail = tail[1:]
    return f"{set_cell_size(text, head)}...{tail}"


def encodable(text: str, encoding: str) -> str:
    """Returns a text with "?" in place of what an encoding does not have."""
    return text.encode(encoding, errors="replace").decode(encoding)


def to_csv(rows: Iterable[Sequence[Any]]) -> str:
    """Returns rows as CSV that any reader takes apart again, whatever line ends are within a cell."""
    stream = io.StringIO()
    for row in rows:
        # The writer would not quote line ends of other systems.
        quoting = csv.QUOTE_ALL if any("\r" in str(value) for value in row) else csv.QUOTE_MINIMAL
        csv.writer(stream, lineterminator="\n", quoting=quoting).writerow(row)
    return stream.getvalue()
