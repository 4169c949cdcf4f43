# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
from transformers_beats.utils.errors import name_some


def test_names_are_quoted_and_those_beyond_a_limit_counted():
    assert name_some(["a", "b"]) == "'a', 'b'"
    assert name_some(list("abcdefg")) == "'a', 'b', 'c', 'd', 'e' and 2 more"
