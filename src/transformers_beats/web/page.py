# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""
Web page, with Gradio: record or drop a clip and see its labels and events.

```sh
transformers-beats serve --model beats-finetuned --model beats-tokenizer
```

The page loads nothing from other sites and sends nothing to them. Uploads are in a temporary directory, which is
removed when the page is stopped.
"""

import os
import signal
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import numpy as np
import typer

from transformers_beats.backends.choice import Backend, BackendName
from transformers_beats.inference.loading import choose_device
from transformers_beats.utils.errors import FOREIGN_ERRORS, UsageError, errors_in_one_line, install_command
from transformers_beats.utils.files import work_directory

from .address import choose_address
from .alike import Alike, Library, add_alike, connect_alike, respond_with_comparison, respond_with_similar
from .analysis import (
    DEFAULT_WINDOWS,
    EVENT_THRESHOLD,
    WINDOW_SECONDS,
    Checkpoint,
    Limits,
    Settings,
    analyse,
    check_backends,
    find_checkpoints,
    find_tokens,
)
from .blocks import in_turn, make_blocks
from .views import (
    STAGES,
    as_alert,
    as_html,
    record_of,
    show_downloads,
    show_labels,
    show_message,
    show_progress,
    show_table,
    show_timeline,
    show_tokens,
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
    "`transformers-beats demo --output demo-output` trains a small model in minutes, then pass `--model "
    "demo-output`; `transformers-beats convert SOURCE.pt DIR` converts one of Microsoft's."
)
CANCELLED = "Cancelled. The results so far are shown."
NO_MICROPHONE = "No microphone was found: drop or choose a file."
HERE = Path(__file__).parent
# Functions of the browser, which need no answer of the server.
JS_PENDING = '() => \'<p class="pending" role="status">These settings are not applied yet.</p>\''
JS_CANCEL = f"""(message, ...others) => [message.includes('<progress') ? '{as_html(CANCELLED)}' : message,
    ...others.map((other) => other.includes('<progress') ? '' : other)]"""
JS_WAIT = "() => new Promise((done) => setTimeout(done, 1000))"


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


def respond(
    clip: str | None,
    model: str,
    threshold: float,
    window: float,
    hop: float,
    classifiers: dict[str, Checkpoint],
    max_seconds: float,
    device: str,
) -> Iterator[tuple[Any, ...]]:
    """
    Analyses the file that was uploaded, if it was not removed. Yields the values of the components of [`Outputs`]
    while the results grow: labels, then events, then picture; after one of `FOREIGN_ERRORS` its first line alone.
    """
    import gradio as gr

    nothing = ("", "", "", "", None)
    # Tokens, their names, tabs, pending settings: tokens are computed when their tab is opened, so it is closed.
    reset = ("", None, gr.Tabs(selected="timeline"), "")
    kept = (gr.skip(),) * len(reset)
    if clip is None:
        yield as_html(PROMPT), *nothing, *reset
        return
    yield show_progress(f"Loading {model}", None), *nothing, *reset
    path = Path(clip)
    name = path.name
    timeline = table = ""
    try:
        for analysis in analyse(path, classifiers[model], Settings(threshold, window, hop), max_seconds, device):
            labels = show_labels(analysis)
            if analysis.events is not None:
                timeline, table = show_timeline(name, analysis), show_table(analysis.events)
            progress = show_progress(STAGES[analysis.stage], analysis.share)
            yield progress, labels, timeline, table, "", None, *kept
        message = show_message(name, analysis, model)
        yield message, labels, timeline, table, show_downloads(name, analysis), record_of(name, analysis), *kept
    except FOREIGN_ERRORS as error:
        yield as_alert(error, path), *nothing, *kept


def respond_with_tokens(
    clip: str | None,
    tokenizer: str | None,
    shown: tuple[str, str] | None,
    tokenizers: dict[str, Checkpoint],
    max_seconds: float,
    device: str,
) -> Iterator[tuple[Any, Any]]:
    """
    Computes the acoustic tokens of a clip, unless they are `shown`, file and tokenizer. Yields their HTML, and what is
    shown.
    """
    import gradio as gr

    if clip is None or tokenizer is None or (clip, tokenizer) == shown:
        yield gr.skip(), gr.skip()
        return
    yield show_progress(f"Loading {tokenizer}", None), None
    path = Path(clip)
    try:
        for tokens in find_tokens(path, tokenizers[tokenizer], max_seconds, device):
            yield show_progress("Finding acoustic tokens", tokens.share), None
        yield show_tokens(path.name, tokens), (clip, tokenizer)
    except FOREIGN_ERRORS as error:
        yield as_alert(error, path), None


class Inputs(NamedTuple):
    """Components of the settings of [`respond`], in the order of its arguments, and of the page's other inputs."""

    clip: Any
    model: Any
    threshold: Any
    window: Any
    hop: Any
    apply: Any
    pending: Any
    sample: Any


class Outputs(NamedTuple):
    """Components of the results of [`respond`], in their order, but for the last, and of the tab of the tokens."""

    message: Any
    labels: Any
    timeline: Any
    table: Any
    downloads: Any
    record: Any
    tokens: Any
    shown: Any
    tabs: Any
    cancel: Any
    tokenizer: Any
    token_tab: Any
    alike: Alike


def build_page(
    checkpoints: Sequence[Checkpoint],
    limits: Limits,
    samples: dict[str, Path],
    device: str,
    library: Library | None = None,
) -> "gr.Blocks":
    """
    Builds the page for checkpoints of [`find_checkpoints`] and sounds of [`write_samples`]; with a library, it also
    finds recordings that are like the clip.
    """
    import gradio as gr

    classifiers = {item.name: item for item in checkpoints if item.kind != "tokens"}
    tokenizers = {item.name: item for item in checkpoints if item.kind == "tokens"}

    # Gradio takes the names of the API from those of the functions.
    def analyse_clip(clip, model, threshold, window, hop):
        yield from in_turn(respond(clip, model, threshold, window, hop, classifiers, limits.max_seconds, device))

    def tokenize_clip(clip, tokenizer, shown):
        yield from in_turn(respond_with_tokens(clip, tokenizer, shown, tokenizers, limits.max_seconds, device))

    def compare_clips(clip, other, model, shown):
        yield from in_turn(respond_with_comparison(clip, other, model, shown, classifiers, limits.max_seconds, device))

    def find_similar(clip, shown):
        assert library is not None
        yield from in_turn(respond_with_similar(clip, shown, library, limits.max_seconds))

    with make_blocks(title="BEATs", analytics_enabled=False, delete_cache=DELETE_CACHE) as page:
        formats = "WAV, FLAC, MP3, Ogg and others"
        gr.Markdown(f"# BEATs: what is heard, and when\nRecord, drop or choose a sound ({formats}), up to {limits}.")
        with gr.Row(elem_id="layout"):
            # In the order of a phone, where the result is under the player.
            with gr.Column(elem_id="player"):
                clip = gr.Audio(
                    sources=["upload", "microphone"],
                    type="filepath",
                    label="Sound",
                    buttons=["download"],
                    editable=False,
                    # The player of the browser, which keyboards reach and the timeline controls.
                    waveform_options=gr.WaveformOptions(show_recording_waveform=False),
                )
                gr.HTML(as_html(NO_MICROPHONE), elem_id="no-microphone", padding=False)
            with gr.Column(elem_id="result"):
                outputs = add_outputs(tokenizers, library is not None)
            with gr.Column(elem_id="options"):
                inputs = add_inputs(clip, classifiers, samples)
        search = None if library is None else find_similar
        connect(inputs, outputs, classifiers, samples, analyse_clip, tokenize_clip, compare_clips, search)
    # Direct calls of the API, which would not wait in the queue, are refused.
    return page.queue(max_size=MAX_QUEUE, default_concurrency_limit=1, api_open=False)


def connect(
    inputs: Inputs,
    outputs: Outputs,
    classifiers: dict[str, Checkpoint],
    samples: dict[str, Path],
    analyse_clip: Callable[..., Any],
    tokenize_clip: Callable[..., Any],
    compare_clips: Callable[..., Any],
    find_similar: Callable[..., Any] | None,
) -> None:
    """Connects what visitors do with the functions, of which one runs at a time."""
    import gradio as gr

    # The page has a bar of its own; Gradio tells the place in the queue.
    job: dict[str, Any] = {"concurrency_id": "analyse", "show_progress": "minimal"}
    analysis = {"fn": analyse_clip, "inputs": list(inputs[:5]), "show_progress_on": outputs.message, **job}
    analysis["outputs"] = [*outputs[:9], inputs.pending]
    # A file of this process, which Gradio copies into its cache.
    inputs.sample.select(lambda chosen: str(samples[chosen[0]]), inputs.sample, inputs.clip, api_visibility="private")
    windows = [inputs.window, inputs.hop]
    # Not `input`, which a list of choices also sends when the focus leaves it.
    changed = inputs.model.change(
        lambda name: DEFAULT_WINDOWS[classifiers[name].kind], inputs.model, windows, api_visibility="private"
    )
    jobs = [
        changed.then(**analysis, api_visibility="private"),
        gr.on([inputs.clip.change, inputs.apply.click], **analysis, trigger_mode="multiple", api_name="analyse"),
        gr.on(
            [outputs.token_tab.select, outputs.tokenizer.change],
            tokenize_clip,
            [inputs.clip, outputs.tokenizer, outputs.shown],
            [outputs.tokens, outputs.shown],
            show_progress_on=outputs.tokens,
            api_visibility="private",
            **job,
        ),
    ]
    jobs += connect_alike(outputs.alike, inputs.clip, inputs.model, compare_clips, find_similar, job)
    texts = [outputs.message, outputs.tokens, outputs.alike.comparison, outputs.alike.similar]
    cancelled = outputs.cancel.click(None, texts, texts, js=JS_CANCEL, cancels=jobs)
    # A result that was under way when the job ended would bring its bar back. What the server has sent before comes
    # before its answer.
    waited = cancelled.then(None, js=JS_WAIT).then(lambda: None, concurrency_limit=None, api_visibility="private")
    waited.then(None, texts, texts, js=JS_CANCEL)
    # Not `input`, which a slider's button for the first value does not send.
    for setting in (inputs.threshold, *windows):
        setting.change(None, None, inputs.pending, js=JS_PENDING)


def add_inputs(clip: Any, classifiers: dict[str, Checkpoint], samples: dict[str, Path]) -> Inputs:
    """Adds samples, model and settings of events."""
    import gradio as gr

    sample = gr.Dataset(
        label="Sample sounds, synthesised",
        components=[gr.Textbox(visible=False)],
        samples=[[name] for name in samples],
        samples_per_page=len(samples),
    )
    model = gr.Dropdown(list(classifiers), value=next(iter(classifiers)), label="Model", filterable=False)
    shortest, longest = WINDOW_SECONDS
    seconds, hop_seconds = DEFAULT_WINDOWS[next(iter(classifiers.values())).kind]
    with gr.Accordion("Settings", open=False):
        of_events = f"Threshold of events ({EVENT_THRESHOLD:g}: the model's own, if it was tuned)"
        threshold = gr.Slider(0, 1, EVENT_THRESHOLD, step=0.01, label=of_events)
        window = gr.Slider(shortest, longest, seconds, step=0.1, label="Window of events (seconds)")
        hop = gr.Slider(
            0.1, longest, hop_seconds, step=0.1, label="Hop of events (seconds), an eighth of the window or more"
        )
        pending = gr.HTML("", elem_id="pending", padding=False)
        apply = gr.Button("Apply", variant="primary")
    return Inputs(clip, model, threshold, window, hop, apply, pending, sample)


def add_outputs(tokenizers: dict[str, Checkpoint], has_library: bool) -> Outputs:
    """Adds the results; without a tokenizer, a hint takes the place of the tokens."""
    import gradio as gr

    message = gr.HTML(as_html(PROMPT), elem_classes="message", padding=False)
    cancel = gr.Button("Cancel", elem_id="cancel", size="sm")
    labels = gr.HTML("", elem_classes="labels", padding=False)
    with gr.Tabs() as tabs:
        with gr.Tab("Timeline", id="timeline"):
            timeline = gr.HTML("", padding=False)
        with gr.Tab("Events", id="events"):
            table = gr.HTML("", padding=False)
        with gr.Tab("Acoustic tokens", id="tokens") as token_tab:
            tokenizer = gr.Dropdown(
                list(tokenizers),
                value=next(iter(tokenizers), None),
                label="Tokenizer",
                visible=len(tokenizers) > 1,
                filterable=False,
            )
            tokens = gr.HTML("", visible=bool(tokenizers), padding=False)
            gr.Markdown(NO_TOKENIZER, visible=not tokenizers)
        alike = add_alike(has_library)
    downloads = gr.HTML("", padding=False)
    # For programs that call the page.
    record, shown = gr.JSON(visible=False), gr.State()
    return Outputs(
        message, labels, timeline, table, downloads, record, tokens, shown, tabs, cancel, tokenizer, token_tab, alike
    )


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
    index: Path | None = None,
    backend: Backend = "torch",
) -> None:
    """
    Serves the page until it is interrupted, for `models` and the `backend` as [`find_checkpoints`] takes them, and
    with an `index` of recordings that are like the clip. The address defaults to `GRADIO_SERVER_NAME` or 127.0.0.1,
    this machine only, the port to `GRADIO_SERVER_PORT` or the first free one from 7860 on. If there is no model,
    `explain` serves a page that says what to do instead of raising an error.

    Raises:
        [`UsageError`]: if there is no model or index, or the device or the address cannot be used.
        `ImportError`: if Gradio is not installed.
    """
    choose_device(device)
    host, port = choose_address(host, port)
    # As Ctrl-C does, so that the directory is removed.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with work_directory(Path(tempfile.gettempdir()), "beats-web-") as directory:
        # Read when Gradio is imported, and when components are made.
        os.environ.update(GRADIO_TEMP_DIR=f"{directory}/gradio", GRADIO_ANALYTICS_ENABLED="False")
        try:
            import gradio as gr
            from gradio.themes.utils.fonts import LocalFont
        except ImportError as error:
            raise ImportError(f"The page needs Gradio: {install_command('web')}") from error
        library = None if index is None else Library(index, device)
        try:
            checkpoints = find_checkpoints(models, backend)
            check_backends(checkpoints, device)
            page = build_page(checkpoints, limits, write_samples(directory), device, library)
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
            css_paths=HERE / "page.css",
            js=(HERE / "page.js").read_text(encoding="utf-8"),
            # Gradio would advise to share the page through a server of others.
            quiet=True,
            prevent_thread_lock=True,
        )
        print(f"The page is at {page.local_url}. Ctrl-C ends it.", flush=True)
        page.block_thread()


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
    index: Annotated[
        Path | None,
        typer.Option(
            metavar="INDEX", help="Index of recordings, see `index`: the page finds those that are like a clip."
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
    backend: Annotated[
        BackendName,
        typer.Option(metavar="BACKEND", help="What computes the encoders of --model: torch, onnx, onnx-int8, auto."),
    ] = BackendName["torch"],
) -> None:
    """
    Serve a web page: record or drop a clip, see its labels and events.
    """
    with errors_in_one_line():
        if not model:
            raise UsageError(f"no --model. {HOW_TO_GET_A_MODEL}".replace("`", ""))
        serve(model, Limits(max_seconds, max_megabytes), device, host, port, index=index, backend=backend.value)


if __name__ == "__main__":
    typer.run(main)
