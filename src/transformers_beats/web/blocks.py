# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Blocks of Gradio that refuse inputs before they are used, and the order of jobs, one step at a time."""

import threading
from collections.abc import Iterator, Sequence
from numbers import Real
from typing import TYPE_CHECKING, Any, TypeVar


if TYPE_CHECKING:
    import gradio as gr


Result = TypeVar("Result")

# Held by whoever computes.
COMPUTING = threading.Lock()


def in_turn(steps: Iterator[Result]) -> Iterator[Result]:
    """
    Takes the steps of a job, one at a time of all jobs of the process. Gradio's queue is not enough: it gives the
    place of a job that is cancelled to the next one while a thread still computes its last step.
    """
    while True:
        with COMPUTING:
            try:
                result = next(steps)
            except StopIteration:
                return
        yield result


def make_blocks(**options: Any) -> "gr.Blocks":
    """
    Makes an empty page that refuses addresses in place of uploads, since Gradio would download files of any size from
    there, in any input; and sliders and choices without a value, of which Gradio would say nothing.
    """
    import gradio as gr
    from gradio_client.utils import is_file_obj_with_meta, is_http_url_like, traverse

    def refuse_address(file: dict[str, Any]) -> dict[str, Any]:
        if is_http_url_like(file["path"]):
            raise gr.Error("Upload the sound: this page loads nothing from addresses.", print_exception=False)
        return file

    class Page(gr.Blocks):
        async def preprocess_data(self, block_fn, inputs, *args, **kwargs):
            traverse(inputs, refuse_address, is_file_obj_with_meta)
            if problem := find_missing(block_fn.inputs, inputs):
                raise gr.Error(problem, print_exception=False)
            return await super().preprocess_data(block_fn, inputs, *args, **kwargs)

    return Page(**options)


def find_missing(components: Sequence[Any], values: Sequence[Any]) -> str | None:
    """Returns a message about the first slider without a number, or choice without a value; None if there is none."""
    import gradio as gr

    for component, value in zip(components, values):
        if isinstance(component, gr.Slider) and not isinstance(value, Real):
            return f"{component.label}: enter a number."
        if isinstance(component, gr.Dropdown) and component.choices and value is None:
            return f"{component.label}: choose one."
    return None
