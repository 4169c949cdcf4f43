# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""
Web page, with Gradio: record or drop a clip and see its labels and events.

```sh
transformers-beats serve --model beats-finetuned --model beats-tokenizer
```

The page loads nothing from other sites and sends nothing to them. Uploads and pictures are in a temporary directory,
which is removed when the page is stopped.
"""

import html
import os
import signal
import socket
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
import typer

from transformers_beats.inference.loading import choose_device
from transformers_beats.utils.errors import FOREIGN_ERRORS, UsageError, errors_in_one_line, first_line
from transformers_beats.utils.files import work_directory

from .analysis import (
    DEFAULT_WINDOWS,
    TOP_K,
    WINDOW_SECONDS,
    Analysis,
    Checkpoint,
    Limits,
    Settings,
    analyse,
    find_checkpoints,
)


if TYPE_CHECKING:
    import gradio as gr


SAMPLE_SECONDS, SAMPLE_SEED = 3.0, 2
# Every ten minutes, uploads and pictures older than an hour are deleted.
DELETE_CACHE = (600, 3600)
MAX_QUEUE = 20
PROMPT = "Record or drop a sound, or choose a sample."
NO_TOKENIZER = "No tokenizer among the checkpoints: pass the directory of one as a further `--model`."

HOW_TO_GET_A_MODEL = (
    "`transformers-beats demo --output demo-output` trains a small model in two minutes, then pass `--model "
    "demo-output`; `transformers-beats convert SOURCE.pt DIR` converts one of Microsoft's."
)
CSS = """
.picture img { padding-top: 2.2em; }
.message { padding: 0 !important; }
.message p { margin: 0; padding: 0.6em 0.9em; border-radius: 0.4em; background: var(--block-background-fill);
             border: 1px solid var(--border-color-primary); overflow-wrap: anywhere; }
.message p[role="alert"] { border-color: #b91c1c; background: #fef2f2; color: #7f1d1d; }
"""


def write_samples(directory: Path) -> dict[str, Path]:
    """Writes sample sounds, a clip of each class and a scene of several, and returns their files by their names."""
    import soundfile

    from transformers_beats.audio.synthesis import CLASSES, SAMPLING_RATE, synthesize

    clips = {label: synthesize(label, np.random.default_rng(SAMPLE_SEED), SAMPLE_SECONDS) for label in CLASSES}
    clips["scene"] = np.concatenate([clips[label] for label in ("rain", "dog", "siren", "bell")])
    paths = {name: directory / f"{name}.wav" for name in clips}
    for name, waveform in clips.items():
        soundfile.write(paths[name], waveform, SAMPLING_RATE)
    return paths


def as_html(message: str, role: Literal["status", "alert"] = "status") -> str:
    """Returns a line that screen readers announce. It is escaped, since names of files may hold HTML."""
    return f'<p role="{role}">{html.escape(message)}</p>'


def show(clip: str | None, analyse_clip: Callable[[Path], Analysis]) -> tuple[Any, ...]:
    """
    Analyses the file that was uploaded, if it was not removed, and returns message, labels, timeline, rows of the
    table of events, and tokens; the last four are empty after one of `FOREIGN_ERRORS`, whose first line is the
    message.
    """
    nothing = ({}, None, [], None)
    if clip is None:
        return as_html(PROMPT), *nothing
    path = Path(clip)
    try:
        analysis = analyse_clip(path)
    except FOREIGN_ERRORS as error:
        # Visitors are not told the paths of uploads.
        return as_html(first_line(error).replace(str(path), path.name), "alert"), *nothing
    rows = [(event.label, event.start, event.end, round(event.score, 3)) for event in analysis.events]
    return as_html(analysis.message), analysis.labels, analysis.timeline, rows, analysis.tokens


def build_page(
    checkpoints: Sequence[Checkpoint], limits: Limits, samples: dict[str, Path], device: str
) -> "gr.Blocks":
    """Builds the page for checkpoints of [`find_checkpoints`] and sounds of [`write_samples`]."""
    import gradio as gr

    classifiers = {item.name: item for item in checkpoints if item.kind != "tokens"}
    tokenizers = {item.name: item for item in checkpoints if item.kind == "tokens"}

    def respond(clip, model, tokenizer, threshold, window, hop, progress=gr.Progress()):  # noqa: B008
        return show(
            clip,
            lambda path: analyse(
                path,
                classifiers[model],
                tokenizers.get(tokenizer),
                Settings(threshold, window, hop),
                limits.max_seconds,
                device,
                lambda share: progress(share, desc="Listening"),
            ),
        )

    with make_blocks(title="BEATs", analytics_enabled=False, delete_cache=DELETE_CACHE) as page:
        formats = "WAV, FLAC, MP3, Ogg and others"
        gr.Markdown(f"# BEATs: what is heard, and when\nRecord, drop or choose a sound ({formats}), up to {limits}.")
        with gr.Row():
            with gr.Column(scale=2, min_width=320):
                clip, sample, model, tokenizer, threshold, *windows, apply = add_inputs(
                    classifiers, tokenizers, samples
                )
            with gr.Column(scale=5, min_width=480):
                outputs = add_outputs(has_tokens=bool(tokenizers))
        # One job of this group at a time.
        job: dict[str, Any] = {"fn": respond, "outputs": outputs, "concurrency_id": "analyse"}
        job["inputs"] = [clip, model, tokenizer, threshold, *windows]
        # A file of this process, which Gradio copies into its cache.
        sample.select(lambda chosen: str(samples[chosen[0]]), sample, clip, api_visibility="private")
        changed = model.input(
            lambda name: DEFAULT_WINDOWS[classifiers[name].kind], model, windows, api_visibility="private"
        )
        changed.then(**job, api_visibility="private")
        triggers = [clip.change, tokenizer.input, apply.click]
        gr.on(triggers, **job, trigger_mode="always_last", api_name="analyse")
    # Direct calls of the API, which would not wait in the queue, are refused.
    return page.queue(max_size=MAX_QUEUE, default_concurrency_limit=1, api_open=False)


def make_blocks(**options: Any) -> "gr.Blocks":
    """
    Makes an empty page that refuses addresses in place of uploads: Gradio would download files of any size from there,
    in any input.
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
            return await super().preprocess_data(block_fn, inputs, *args, **kwargs)

    return Page(**options)


def add_inputs(
    classifiers: dict[str, Checkpoint], tokenizers: dict[str, Checkpoint], samples: dict[str, Path]
) -> list[Any]:
    """Adds clip, sample, model, tokenizer, threshold, window, hop and a button, and returns them in this order."""
    import gradio as gr

    clip = gr.Audio(sources=["upload", "microphone"], type="filepath", label="Sound", buttons=["download"])
    sample = gr.Dataset(
        label="Sample sounds, synthesised",
        components=[gr.Textbox(visible=False)],
        samples=[[name] for name in samples],
        samples_per_page=len(samples),
    )
    model = gr.Dropdown(list(classifiers), value=next(iter(classifiers)), label="Model", filterable=False)
    tokenizer = gr.Dropdown(
        list(tokenizers),
        value=next(iter(tokenizers), None),
        label="Tokenizer",
        visible=len(tokenizers) > 1,
        filterable=False,
    )
    shortest, longest = WINDOW_SECONDS
    seconds, hop_seconds = DEFAULT_WINDOWS[next(iter(classifiers.values())).kind]
    with gr.Accordion("Settings", open=False):
        threshold = gr.Slider(0, 1, 0.5, step=0.01, label="Threshold of events")
        window = gr.Slider(shortest, longest, seconds, step=0.1, label="Window of events (seconds)")
        hop = gr.Slider(
            0.1, longest, hop_seconds, step=0.1, label="Hop of events (seconds), an eighth of the window or more"
        )
        apply = gr.Button("Apply", variant="primary")
    return [clip, sample, model, tokenizer, threshold, window, hop, apply]


def add_outputs(has_tokens: bool) -> list[Any]:
    """Adds the outputs of [`show`], in its order; without a tokenizer, a hint takes the place of the tokens."""
    import gradio as gr

    message = gr.HTML(as_html(PROMPT), elem_classes="message", padding=False)
    picture: dict[str, Any] = {"show_label": False, "elem_classes": "picture", "format": "png", "interactive": False}
    picture |= {"buttons": ["download", "fullscreen"]}
    labels = gr.Label(num_top_classes=TOP_K, label="Top classes", show_heading=False)
    with gr.Tabs():
        with gr.Tab("Timeline"):
            timeline = gr.Image(label="Spectrogram and events", **picture)
        with gr.Tab("Events"):
            events = gr.Dataframe(
                headers=["Label", "Start (s)", "End (s)", "Score"],
                datatype=["str", "number", "number", "number"],
                show_label=False,
                interactive=False,
            )
        with gr.Tab("Acoustic tokens"):
            tokens = gr.Image(label="Acoustic tokens", visible=has_tokens, **picture)
            gr.Markdown(NO_TOKENIZER, visible=not has_tokens)
    return [message, labels, timeline, events, tokens]


def build_setup_page(problem: str) -> "gr.Blocks":
    """Builds the page of a Space without a model, which says what to set."""
    import gradio as gr

    with gr.Blocks(title="BEATs", analytics_enabled=False) as page:
        gr.Markdown("# This page has no model yet")
        gr.HTML(as_html(problem, "alert"), elem_classes="message", padding=False)
        gr.Markdown(
            "Put a checkpoint, as `save_pretrained` writes it, into the folder `models` beside `app.py`, or set the "
            "variable `BEATS_MODEL` to the id of a model on the Hub, or to a directory; several are separated by "
            f"spaces. Then start again.\n\n{HOW_TO_GET_A_MODEL}"
        )
    return page


def serve(
    models: Sequence[str | Path],
    limits: Limits,
    device: str = "auto",
    host: str | None = None,
    port: int | None = None,
    explain: bool = False,
) -> None:
    """
    Serves the page until it is interrupted, for `models` as [`find_checkpoints`] takes them. The address defaults to
    `GRADIO_SERVER_NAME` or 127.0.0.1, this machine only, the port to `GRADIO_SERVER_PORT` or the first free one from
    7860 on. If there is no model, `explain` serves a page that says what to do instead of raising an error.

    Raises:
        [`UsageError`]: if there is no model, or the device or the address cannot be used.
        `ImportError`: if Gradio is not installed.
    """
    choose_device(device)
    try:
        if host is not None:
            socket.getaddrinfo(host, port)
    except OSError as error:
        # Gradio would try a hundred ports one after the other.
        raise UsageError(f"--host {host}: {error.strerror}.") from error
    # As Ctrl-C does, so that the directory is removed.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with work_directory(Path(tempfile.gettempdir()), "beats-web-") as directory:
        # Read when Gradio is imported, and when components are made.
        os.environ.update(GRADIO_TEMP_DIR=f"{directory}/gradio", GRADIO_ANALYTICS_ENABLED="False")
        try:
            import gradio as gr
            from gradio.themes.utils.fonts import LocalFont
        except ImportError as error:
            raise ImportError("The page needs Gradio: pip install 'transformers-beats[web]'") from error
        try:
            page = build_page(find_checkpoints(models), limits, write_samples(directory), device)
        except UsageError as error:
            if not explain:
                raise
            page = build_setup_page(str(error))
        # A font in Gradio's package, without the weights that are not in it.
        font = (LocalFont("Source Sans Pro", weights=(400, 700)), "sans-serif")
        page.launch(
            server_name=host,
            server_port=port,
            share=False,
            max_file_size=limits.max_megabytes * 2**20,
            footer_links=[],
            run_history=False,
            enable_monitoring=False,
            ssr_mode=False,
            theme=gr.themes.Default(primary_hue="blue", font=font),
            css=CSS,
        )


def main(
    model: Annotated[
        list[str] | None,
        typer.Option(
            "--model",
            "-m",
            envvar="BEATS_MODEL",
            help="Directory of a model or of several, or id of a model on the Hub; can be given several times. "
            "Tokenizers add pictures of acoustic tokens.",
        ),
    ] = None,
    max_seconds: Annotated[float, typer.Option(min=1, help="The longest recording, in seconds.")] = Limits.max_seconds,
    max_megabytes: Annotated[int, typer.Option(min=1, help="The largest upload, in MB.")] = Limits.max_megabytes,
    host: Annotated[
        str | None, typer.Option(help="Address to listen at; 0.0.0.0 for all networks (default: 127.0.0.1).")
    ] = None,
    port: Annotated[
        int | None, typer.Option(min=1, max=65535, help="Port (default: the first free one from 7860 on).")
    ] = None,
    device: Annotated[
        str, typer.Option(help="cpu, cuda, cuda:1, mps ...; auto takes a GPU if there is one.")
    ] = "auto",
) -> None:
    """
    Serve a web page: record or drop a clip, see its labels and events.
    """
    with errors_in_one_line():
        if not model:
            raise UsageError(f"no --model. {HOW_TO_GET_A_MODEL}".replace("`", ""))
        serve(model, Limits(max_seconds, max_megabytes), device, host, port)


if __name__ == "__main__":
    typer.run(main)
