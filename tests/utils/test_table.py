# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
import pytest
from rich.cells import cell_len

from transformers_beats.utils.table import format_table, shorten


HEADERS = ["File", "Score", "Label"]
ROWS = [
    ["a.wav", "0.500", "Speech"],
    ["2026-04-18_05-30-00_station-north-ridge_microphone-2.wav", "0.125", "Vehicle horn, car horn, honking"],
    ["録音" * 20 + ".wav", "", "skipped: is empty, it has no bytes."],
]


@pytest.mark.parametrize("width", [40, 60, 80, 120])
def test_no_line_is_wider_than_the_terminal(width):
    lines = format_table(HEADERS, ROWS, width).splitlines()
    assert max(map(cell_len, lines)) <= width
    # Numbers are never shortened.
    assert all(row[1] in line for row, line in zip(ROWS, lines[2:]))


def test_what_fits_is_not_shortened():
    lines = format_table(HEADERS, ROWS, 10_000).splitlines()
    for row, line in zip(ROWS, lines[2:]):
        assert line.split() == " ".join(row).split()


def test_a_short_column_leaves_its_width_to_the_others():
    rows = [["x" * 50, "0.500", "Dog"]]
    assert "x" * 50 in format_table(HEADERS, rows, 64)


@pytest.mark.parametrize(
    ("text", "width", "expected"),
    [
        ("abcdefghij.wav", 14, "abcdefghij.wav"),
        ("abcdefghij.wav", 13, "abcde...j.wav"),
        ("abcdefghij.wav", 9, "abc...wav"),
        ("録音録音録音", 9, "録 ...音"),
    ],
)
def test_names_are_shortened_in_their_middle(text, width, expected):
    assert shorten(text, width) == expected
    assert cell_len(shorten(text, width)) <= width


def test_what_a_terminal_would_obey_is_not_printed():
    table = format_table(["File"], [["a\x1b[2J\n\udcff.wav"]], 80)
    assert table.splitlines()[2] == "a\N{REPLACEMENT CHARACTER}[2J" + 2 * "\N{REPLACEMENT CHARACTER}" + ".wav"
