# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
import re
import subprocess
import sys

import pytest
from tqdm import tqdm

from transformers_beats.utils.errors import (
    FAILURE,
    INTERRUPTED,
    BeatsError,
    errors_in_one_line,
    first_line,
    name_some,
)


def test_names_are_quoted_and_those_beyond_a_limit_counted():
    assert name_some(["a", "b"]) == "'a', 'b'"
    assert name_some(list("abcdefg")) == "'a', 'b', 'c', 'd', 'e' and 2 more"


# All line ends of `str.splitlines`, and other names that a first line would not have as they are.
NAMES = [f"a{end}b.wav" for end in "\n\r\v\f\x1c\x1d\x1e\x85\u2028\u2029"] + [" a.wav", "a.wav", "b: c.wav"]


@pytest.mark.parametrize("name", NAMES)
def test_the_first_line_of_a_message_about_a_file_is_the_reason(name):
    assert first_line(BeatsError(f"{name}: is empty.\nMore."), name) == "is empty."
    assert first_line(OSError("no space"), name) == "no space"
    (line,) = first_line(ValueError(f"Error in '{name}'."), name).splitlines()
    assert line.startswith("Error in '")
    assert line.endswith("'.")
    assert first_line(MemoryError(), name) == "MemoryError"


def test_what_a_terminal_would_obey_is_in_no_message(capsys):
    with pytest.raises(SystemExit), errors_in_one_line():
        raise BeatsError("a\x1b[31m\x85b.wav: no such file")
    assert capsys.readouterr().err == "error: a\N{REPLACEMENT CHARACTER}[31m b.wav: no such file\n"


@pytest.mark.parametrize(("is_pipe", "message"), [(True, ""), (False, "error: [Errno 32] Broken pipe\n")])
def test_only_standard_output_may_break_without_a_message(is_pipe, message, tmp_path):
    code = (
        "from transformers_beats.utils.errors import errors_in_one_line\n"
        "with errors_in_one_line():\n    raise BrokenPipeError(32, 'Broken pipe')"
    )
    with (tmp_path / "output").open("w") as file:
        done = subprocess.run(
            [sys.executable, "-c", code],
            stdout=subprocess.PIPE if is_pipe else file,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert (done.returncode, done.stderr) == (FAILURE, message)


@pytest.mark.parametrize(
    ("error", "line", "status"),
    [(KeyboardInterrupt, "interrupted", INTERRUPTED), (BeatsError("no audio"), "error: no audio", FAILURE)],
)
def test_the_last_message_has_a_line_of_its_own_below_a_bar(error, line, status, capsys):
    bar = tqdm(total=2, file=sys.stderr)
    bar.update()
    with pytest.raises(SystemExit) as raised, errors_in_one_line():
        raise error
    bar.close()
    assert raised.value.code == status
    assert line in re.split("[\r\n]", capsys.readouterr().err)
