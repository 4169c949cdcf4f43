# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Set-up of the notebooks: legible pictures and sounds that take little room, and nothing else in the outputs."""

import atexit
import base64
import html
import tempfile
import warnings
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import soundfile

from transformers_beats.audio.decoding import open_audio
from transformers_beats.audio.synthesis import SAMPLING_RATE, synthesize


if TYPE_CHECKING:
    from IPython.display import HTML
    from matplotlib.figure import Figure


DPI = 150
# A spectrogram in so many colours looks the same as in all, and is half the size.
NUM_COLORS = 128
# Okabe and Ito's palette without yellow, which is hard to see on white: safe for colour-blind readers.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
STYLE: dict[str, Any] = {
    "figure.dpi": DPI,
    "figure.figsize": (7.4, 3),
    "figure.constrained_layout.use": True,
    "font.size": 10,
    "xtick.labelsize": 9.5,
    "ytick.labelsize": 9.5,
    "legend.fontsize": 9.5,
    "axes.titlesize": 10.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
}


def setup() -> Path:
    """
    Prepares a notebook: pictures are drawn at 150 dpi and take little room, random numbers are those of seed 0, and
    neither warnings nor progress bars are shown. What the cell has shown before is cleared.

    Returns:
        `Path`: an empty directory for what the notebook writes, which is removed when its kernel ends.
    """
    import datasets
    import matplotlib.pyplot as plt
    from cycler import cycler
    from datasets import config as datasets_config
    from IPython import get_ipython
    from IPython.display import clear_output
    from matplotlib.figure import Figure
    from transformers import set_seed
    from transformers.utils import logging

    clear_output()  # of notes that libraries write when they are imported
    warnings.filterwarnings("ignore")
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    datasets.disable_progress_bars()
    set_seed(0)
    plt.switch_backend("inline")
    plt.style.use({**STYLE, "axes.prop_cycle": cycler(color=COLORS)})
    get_ipython().display_formatter.formatters["image/png"].for_type(Figure, render)
    work = tempfile.TemporaryDirectory()
    atexit.register(work.cleanup)
    datasets_config.HF_DATASETS_CACHE = Path(work.name, "cache")
    return Path(work.name)


def examples(*labels: str, seed: int = 0) -> dict[str, np.ndarray]:
    """Returns a synthesised clip `(num_samples,)`, float32 at 16 kHz, of each of these classes by its name."""
    return {label: synthesize(label, np.random.default_rng(seed)) for label in labels}


def render(figure: "Figure") -> bytes:
    """Returns a PNG of a figure in at most 128 colours, without metadata."""
    from PIL import Image

    drawn, small = BytesIO(), BytesIO()
    figure.savefig(drawn, format="png", dpi=DPI)
    method, dither = Image.Quantize.FASTOCTREE, Image.Dither.NONE
    picture = Image.open(drawn).convert("RGB").quantize(NUM_COLORS, method, dither=dither)
    picture.save(small, format="png", optimize=True, dpi=(DPI, DPI))
    return small.getvalue()


def play(sounds: dict[str, Any]) -> "HTML":
    """
    Shows players side by side, each under its name.

    Args:
        sounds (`dict[str, Any]`):
            Recordings by their names: files, or arrays `(num_samples,)` at 16 kHz. The notebook holds them as MP3 in
            mono, at 16 kHz.
    """
    from IPython.display import HTML

    players = []
    for name, sound in sounds.items():
        encoded = base64.b64encode(_to_mp3(sound)).decode()
        players.append(
            f'<figure style="margin: 0.2em 1em 0.6em 0; display: inline-block"><figcaption>{html.escape(name)}'
            '</figcaption><audio controls preload="metadata" style="width: 15em; height: 2.4em" '
            f'src="data:audio/mpeg;base64,{encoded}"></audio></figure>'
        )
    return HTML(f"<div>{''.join(players)}</div>")


def _to_mp3(sound: Any) -> bytes:
    encoded = BytesIO()
    waveform = np.concatenate(list(open_audio(sound, SAMPLING_RATE, SAMPLING_RATE).blocks))
    soundfile.write(encoded, waveform, SAMPLING_RATE, format="MP3")
    return encoded.getvalue()
