# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""
HTML of the page's results. `page.css` has its looks, and `page.js` plays events and zooms.

All names are escaped, since those of files and labels may hold HTML. Pictures and downloads are inside the HTML, so
that no file is left to delete.
"""

import base64
import html
import io
import json
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from transformers_beats.inference.events import Event
from transformers_beats.inference.records import Record, csv_header, csv_rows, make_record, to_label_track
from transformers_beats.plotting.figures import TIME_STEPS
from transformers_beats.plotting.spectrogram import DYNAMIC_RANGE_DB, FREQUENCY_TICKS_KHZ, mel_edges
from transformers_beats.plotting.timeline import choose_labels, draw_timeline, draw_tokens, token_colors
from transformers_beats.search.comparison import Comparison
from transformers_beats.utils.errors import first_line
from transformers_beats.utils.files import work_directory
from transformers_beats.utils.numbers import format_number
from transformers_beats.utils.table import to_csv

from .analysis import Analysis, Stage, Tokens


STAGES: dict[Stage, str] = {
    "labels": "Listening for classes",
    "events": "Listening for events",
    "picture": "Drawing the picture",
}


def as_html(message: str, role: Literal["status", "alert"] = "status") -> str:
    """Returns a line that screen readers announce."""
    return f'<p role="{role}">{html.escape(message)}</p>'


def as_alert(error: BaseException, *uploads: Path) -> str:
    """Returns the first line of an error. Visitors are not told the paths of uploads."""
    message = first_line(error)
    for path in uploads:
        message = message.replace(str(path), path.name)
    return as_html(message, "alert")


def show_progress(stage: str, share: float | None) -> str:
    """Returns a bar of the share that is done, or one without an end if this is not known, and the stage in words."""
    value = "" if share is None else f' value="{share:.2f}"'
    return f'<p>{html.escape(stage)} …</p><progress aria-label="Progress"{value}></progress>'


def show_message(name: str, analysis: Analysis, model: str) -> str:
    """Returns the summary of a complete analysis, with the decoder's warnings."""
    assert analysis.events is not None
    assert analysis.spectrogram is not None
    noun = "event" if len(analysis.events) == 1 else "events"
    summary = f"{name}: {analysis.spectrogram.seconds:.1f} s, {len(analysis.events)} {noun}, heard by {model}"
    return "".join(map(as_html, [summary, *analysis.report.warnings]))


def show_labels(analysis: Analysis) -> str:
    """Returns the best classes with bars of their scores, and the meaning of the scores."""
    rows = "".join(
        f'<li><span class="class">{html.escape(label)}</span> <span class="score">{score:.2f}</span>'
        f'<span class="bar" style="width:{100 * score:.1f}%"></span></li>'
        for label, score in (analysis.labels if analysis.classes is None else analysis.classes)
    )
    return f'<h2>Top classes</h2><ol class="classes">{rows}</ol><p class="caption">{html.escape(analysis.caption)}</p>'


def show_timeline(name: str, analysis: Analysis) -> str:
    """Returns the spectrogram and under it the events, which can be played, a row for each of up to twelve labels."""
    assert analysis.events is not None
    assert analysis.spectrogram is not None
    spectrogram, events = analysis.spectrogram, analysis.events
    # The only column of a very short clip is longer than the clip.
    seconds = max([spectrogram.seconds, *(event.end for event in events)])
    labels = choose_labels(events)
    heard = ", ".join(labels) or "none"
    alternative = f"Spectrogram of {name}, {spectrogram.seconds:.1f} s. Events: {heard}. The table has their times."
    levels = 255 * (1 + np.clip(spectrogram.decibels.T / DYNAMIC_RANGE_DB, -1, 0))
    picture = _picture(levels.round().astype(np.uint8), alternative, spectrogram.seconds / seconds, "smooth")
    lanes = "".join(_lane(label, [event for event in events if event.label == label], seconds) for label in labels)
    num_left_out = len({event.label for event in events}) - len(labels)
    note = "Select an event or a moment to hear it. Stronger colours are higher scores." if labels else "No events."
    if num_left_out:
        note += f" {num_left_out} labels with lower scores are in the table only."
    ticks = _frequency_ticks(spectrogram.decibels.shape[1], spectrogram.sampling_rate)
    lanes = f'<div class="lanes" role="group" aria-label="Events, in order of time by arrow keys">{lanes}</div>'
    return _figure(seconds, f'<div class="picture">{ticks}{picture}</div>{lanes if labels else ""}', note)


def show_tokens(name: str, tokens: Tokens) -> str:
    """Returns a coloured cell for each token, 160 ms and a frequency band."""
    codes, codebook, extractor = tokens.codes, tokens.codebook, tokens.extractor
    assert codes is not None
    assert codebook is not None
    assert extractor is not None
    found, seconds = len(np.unique(codes.values)), float(codes.ends[-1])
    alternative = f"Acoustic tokens of {name}, {seconds:.1f} s: {found} different ones of {len(codebook)}."
    colors = (255 * token_colors(codes.values, codebook)).round().astype(np.uint8)
    ticks = _frequency_ticks(extractor.feature_size, extractor.sampling_rate)
    note = f"{codes.values.size} tokens, {found} different ones of {len(codebook)}. Similar codes have similar "
    note += "colours."
    figure = _figure(seconds, f'<div class="picture">{ticks}{_picture(colors, alternative, 1.0, "sharp")}</div>', note)
    picture = draw(lambda path: draw_tokens(codes, codebook, extractor, path))
    return figure + _links("Download tokens", {f"{Path(name).stem}-tokens.png": ("Picture", "image/png", picture)})


def show_table(events: Sequence[Event]) -> str:
    """Returns a table of all events, each with a button that plays it."""
    rows = "".join(
        f'<tr><th scope="row">{html.escape(event.label)}</th><td>{event.start:.2f}</td><td>{event.end:.2f}</td>'
        f"<td>{event.score:.3f}</td><td>{_button(event, '▶')}</td></tr>"
        for event in events
    )
    heads = "".join(f'<th scope="col">{name}</th>' for name in ("Label", "Start (s)", "End (s)", "Score", "Play"))
    body = rows or '<tr><td colspan="5">No events</td></tr>'
    table = f"<table><caption>Events</caption><thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table>"
    return f'<div class="table" tabindex="0" role="region" aria-label="Table of events">{table}</div>'


class Found(NamedTuple):
    """A moment that is like the clip: name, start and end in seconds, similarity, and its sound as FLAC, if known."""

    name: str
    start: float
    end: float
    similarity: float
    sound: bytes | None


def show_comparison(names: Sequence[str], comparison: Comparison, warnings: Sequence[str] = ()) -> str:
    """Returns the similarity of two clips, and a table of the labels of both with both scores."""
    summary = (
        f"Similarity of {names[0]} and {names[1]}: {format_number(comparison.similarity)} (cosine of their embeddings)"
    )
    lines = "".join(map(as_html, [summary, *warnings]))
    rows = "".join(
        f'<tr><th scope="row">{html.escape(label)}</th>{"".join(f"<td>{score:.3f}</td>" for score in scores)}</tr>'
        for label, scores in comparison.labels or ()
    )
    if not rows:
        return lines
    heads = "".join(f'<th scope="col">{html.escape(name)}</th>' for name in ("Label", *names))
    caption = "<caption>Best classes, first those of both</caption>"
    table = f"<table>{caption}<thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table>"
    return f'{lines}<div class="table" tabindex="0" role="region" aria-label="Comparison">{table}</div>'


def show_found(name: str, found: Sequence[Found], warnings: Sequence[str] = ()) -> str:
    """Returns a list of moments that are like a clip, each with a player, and the decoder's warnings of the clip."""
    items = "".join(_found(item) for item in found)
    note = "Similarity is the cosine of the embeddings. Players have the first 10 s of a moment at most."
    return (
        f'<h2 class="found-title">Most like {html.escape(name)}</h2>{"".join(map(as_html, warnings))}'
        f'<ol class="found">{items}</ol>'
        f'<p class="caption">{note}</p>'
    )


def _found(item: Found) -> str:
    similarity = format_number(item.similarity)
    label = html.escape(f"{item.name}, {item.start:.2f} to {item.end:.2f} s, similarity {similarity}")
    player = '<span class="gone">This recording is gone or cannot be read.</span>'
    if item.sound is not None:
        source = _address("audio/flac", item.sound)
        player = f'<audio controls preload="metadata" aria-label="{label}" src="{source}"></audio>'
    return (
        f'<li><span class="class">{html.escape(item.name)}</span> <span class="score">{similarity}</span>'
        f'<span class="times">{item.start:.2f} to {item.end:.2f} s</span>{player}</li>'
    )


def record_of(name: str, analysis: Analysis) -> Record:
    """Returns the results as `tag` writes them in JSON lines, for downloads and for programs that call the page."""
    labels = [label._asdict() for label in analysis.labels]
    return make_record(name, labels, analysis.events, analysis.report)


def show_downloads(name: str, analysis: Analysis) -> str:
    """Returns links to the events, in the formats of `tag`, and to the picture."""
    assert analysis.events is not None
    assert analysis.spectrogram is not None
    spectrogram, events, record = analysis.spectrogram, analysis.events, record_of(name, analysis)
    table = to_csv([csv_header(with_events=True), *csv_rows(record)])
    picture = draw(lambda path: draw_timeline(spectrogram, events, path, name))
    stem = Path(name).stem
    return _links(
        "Download events",
        {
            f"{stem}.csv": ("CSV", "text/csv", table.encode("utf-8", "replace")),
            f"{stem}.json": ("JSON", "application/json", json.dumps(record, indent=1).encode()),
            f"{stem}.txt": ("Audacity labels", "text/plain", to_label_track(record).encode("utf-8", "replace")),
            f"{stem}.png": ("Picture", "image/png", picture),
        },
    )


def draw(write: Callable[[Path], None]) -> bytes:
    """Returns the content of the picture that a function writes to a file, and removes the file."""
    with work_directory(Path(tempfile.gettempdir()), "beats-picture-") as directory:
        write(directory / "picture.png")
        return (directory / "picture.png").read_bytes()


def _address(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def _links(title: str, files: dict[str, tuple[str, str, bytes]]) -> str:
    """Returns a line of downloads: text of the link, type and content of each, by the names of the files."""
    links = "".join(
        f'<a download="{html.escape(name)}" href="{_address(kind, content)}">{text}</a>'
        for name, (text, kind, content) in files.items()
    )
    return f'<p class="links">{title} {links}</p>'


def _figure(seconds: float, content: str, note: str) -> str:
    """Returns a figure with a time axis of `seconds`; `content` begins with the picture."""
    zoom = "".join(
        f'<button type="button" data-zoom="{factor}" aria-label="{name}">{sign}</button>'
        for factor, name, sign in ((0.5, "Zoom out", "&minus;"), (2, "Zoom in", "+"), (0, "Show all", "⤢"))
    )
    steps = html.escape(json.dumps(TIME_STEPS))
    return (
        f'<figure class="timeline" data-seconds="{seconds:.6f}" data-steps="{steps}">'
        f'<div class="tools"><figcaption>{html.escape(note)}</figcaption><span class="zoom">{zoom}</span></div>'
        f'<div class="scroll" tabindex="0" role="region" aria-label="Timeline"><div class="track">{content}'
        '<div class="axis" aria-hidden="true"></div><div class="cursor" hidden></div></div></div></figure>'
    )


def _picture(pixels: np.ndarray, alternative: str, width: float, scaling: Literal["smooth", "sharp"]) -> str:
    """
    Returns an image of `(num_rows, num_columns)` levels, coloured as spectrograms are, or of `(num_rows, num_columns,
    3)` colours, from low to high frequencies; uint8. `width` is its share of the time axis.
    """
    from matplotlib import colormaps
    from PIL import Image

    image = Image.fromarray(np.ascontiguousarray(pixels[::-1]))
    if pixels.ndim == 2:
        image.putpalette(colormaps["magma"](np.arange(256), bytes=True)[:, :3].tobytes())
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return (
        f'<img class="{scaling}" style="width:{100 * width:.3f}%" alt="{html.escape(alternative)}" '
        f'src="{_address("image/png", buffer.getvalue())}">'
    )


def _frequency_ticks(num_mel_bins: int, sampling_rate: int) -> str:
    edges = mel_edges(num_mel_bins, sampling_rate)
    heights = {
        khz: np.interp(1000 * khz, edges, np.linspace(0, 100, len(edges)))
        for khz in FREQUENCY_TICKS_KHZ
        if 2000 * khz < sampling_rate
    }
    ticks = "".join(f'<span style="bottom:{height:.1f}%">{khz:g}</span>' for khz, height in heights.items())
    return f'<div class="gutter" aria-hidden="true"><span class="unit">kHz</span>{ticks}</div>'


def _lane(label: str, events: Sequence[Event], seconds: float) -> str:
    """Returns a row of events. A bar is as long as its event, and its button at least as wide as a finger needs."""
    bars = "".join(
        f'<i style="left:{left:.3f}%;width:{width:.3f}%;opacity:{0.3 + 0.7 * event.score:.2f}"></i>'
        f"{_button(event, '', f'left:{left:.3f}%;width:{width:.3f}%')}"
        for event in events
        for left, width in [(100 * event.start / seconds, 100 * (event.end - event.start) / seconds)]
    )
    return f'<div class="lane"><span class="gutter">{html.escape(label)}</span><div class="bars">{bars}</div></div>'


def _button(event: Event, text: str, style: str = "") -> str:
    name = f"Play {event.label}, {event.start:.2f} to {event.end:.2f} s, score {event.score:.2f}"
    attributes: dict[str, Any] = {"aria-label": name, "title": name, "data-start": event.start, "data-end": event.end}
    if style:
        attributes |= {"style": style}
    listed = " ".join(f'{key}="{html.escape(str(value))}"' for key, value in attributes.items())
    return f'<button type="button" {listed}>{text}</button>'
