# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
import io
import sys

import pytest
from rich.cells import cell_len

from transformers_beats.utils.table import format_table, print_table, print_text, shorten


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


def test_spaces_of_other_scripts_are_printed():
    assert format_table(["File"], [["a\u3000b\xa0c.wav"]], 80).splitlines()[2] == "a\u3000b\xa0c.wav"


@pytest.mark.parametrize(
    ("encoding", "expected"),
    [
        ("cp1252", ["?.wav  é  0.5", "??.wav  Dog  0.25"]),
        ("ascii", ["?.wav  ?  0.5", "??.wav  Dog  0.25"]),
        ("utf-8", ["音.wav  é  0.5", "😀\ufffd.wav  Dog  0.25"]),
        ("utf-16", ["音.wav  é  0.5", "😀\ufffd.wav  Dog  0.25"]),
    ],
)
def test_what_standard_output_cannot_hold_is_replaced(encoding, expected, monkeypatch):
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding, newline="\n")
    monkeypatch.setattr(sys, "stdout", stream)
    print_table(["File", "Label", "Score"], [["音.wav", "é", "0.5"], ["😀\udcff.wav", "Dog", "0.25"]])
    print_text("The end of 音.")
    stream.flush()
    lines = stream.buffer.getvalue().decode(encoding).splitlines()
    assert [line.split() for line in lines[2:4]] == [line.split() for line in expected]
    assert lines[4] == ("The end of ?." if encoding in ("cp1252", "ascii") else "The end of 音.")
    # Cells are as wide as what is printed.
    assert len({cell_len(line) for line in lines[1:4]}) == 1
