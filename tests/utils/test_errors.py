# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
import re
import subprocess
import sys

import pytest
from tqdm import tqdm

from transformers_beats.utils.errors import FAILURE, INTERRUPTED, BeatsError, errors_in_one_line, name_some


def test_names_are_quoted_and_those_beyond_a_limit_counted():
    assert name_some(["a", "b"]) == "'a', 'b'"
    assert name_some(list("abcdefg")) == "'a', 'b', 'c', 'd', 'e' and 2 more"


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
