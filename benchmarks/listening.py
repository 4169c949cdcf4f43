# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""
`listen`, fed at real-time speed from a recording, against `tag --events` of the whole:

    python -m benchmarks.listening WORK --model beats-finetuned --audio recording.flac

Without `--audio`, the recording is of synthesised sounds. Raw samples go to the command's standard input in blocks of
0.1 s, each when it would have been recorded, with `--drop` as from a microphone. Each line is stamped when it comes:
the delay of an event is counted from its start in the recording to the line that tells its beginning, computing
included.
"""

import json
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import soundfile
import typer
from rich.console import Console

from transformers_beats.audio.decoding import decode_audio
from transformers_beats.audio.synthesis import CLASSES, SAMPLING_RATE, synthesize
from transformers_beats.utils.files import replace_file


BLOCK_SECONDS = 0.1


def write_sounds(path: Path, seconds: float) -> None:
    """Writes sounds of one to three seconds with pauses, 16-bit WAV at 16 kHz, unless they are there."""
    if path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    generator, parts, length = np.random.default_rng(0), [], 0
    while length < seconds * SAMPLING_RATE:
        pause = 1e-4 * generator.standard_normal(round(generator.uniform(0.5, 4) * SAMPLING_RATE))
        parts += [pause, synthesize(str(generator.choice(CLASSES)), generator, float(generator.uniform(1, 3)))]
        length += sum(map(len, parts[-2:]))
    with replace_file(path) as temporary:
        samples = np.concatenate(parts)[: round(seconds * SAMPLING_RATE)]
        soundfile.write(temporary, samples, SAMPLING_RATE, format="WAV")


def listen(command: list[str], samples: np.ndarray, speed: float) -> tuple[list[tuple[float, dict[str, Any]]], str]:
    """Feeds a command at `speed` times real time; returns its lines, with the seconds when they came, and stderr."""
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    # Once the model is loaded.
    notes = [process.stderr.readline()]
    begin, lines = time.monotonic(), []

    def read() -> None:
        assert process.stdout is not None
        for line in process.stdout:
            lines.append(((time.monotonic() - begin) * speed, json.loads(line)))

    readers = [threading.Thread(target=read), threading.Thread(target=lambda: notes.extend(process.stderr or []))]
    for reader in readers:
        reader.start()
    size = round(BLOCK_SECONDS * SAMPLING_RATE)
    for start in range(0, len(samples), size):
        block = samples[start : start + size]
        # A block is there when its last sample was recorded.
        time.sleep(max(0.0, begin + (start + len(block)) / SAMPLING_RATE / speed - time.monotonic()))
        process.stdin.write(block.astype("<f4").tobytes())
        process.stdin.flush()
    process.stdin.close()
    for reader in readers:
        reader.join()
    if process.wait() != 0:
        raise typer.Exit(process.returncode)
    return lines, b"".join(notes).decode()


def main(
    work: Annotated[Path, typer.Argument(help="Directory for the recording.")],
    model: Annotated[str, typer.Option(help="Name, directory or Hub id of a classifier.")],
    audio: Annotated[Path | None, typer.Option(help="Recording (default: synthesised sounds)")] = None,
    seconds: Annotated[float, typer.Option(min=5, help="Length")] = 600.0,
    threshold: Annotated[float, typer.Option(min=0, max=1, help="Events reach this score")] = 0.5,
    window: Annotated[float, typer.Option(help="Windows, in seconds")] = 2.0,
    hop: Annotated[float, typer.Option(help="From one window to the next")] = 0.5,
    speed: Annotated[float, typer.Option(min=0.1, help="Times real time")] = 1.0,
) -> None:
    """Prints whether events were lost or doubled, their delay, and the real-time factor."""
    console, work = Console(width=140), work.absolute()
    path = work / "heard.wav"
    if audio is None:
        write_sounds(work / f"sounds-{seconds:g}.wav", seconds)
        audio = work / f"sounds-{seconds:g}.wav"
    samples = decode_audio(audio, SAMPLING_RATE, 0, round(seconds * SAMPLING_RATE))
    work.mkdir(parents=True, exist_ok=True)
    # Both hear these samples.
    soundfile.write(path, samples, SAMPLING_RATE, subtype="FLOAT")
    program = [sys.executable, "-m", "transformers_beats"]
    options = [
        "-m",
        model,
        "--event-threshold",
        str(threshold),
        "--event-window",
        str(window),
        "--event-hop",
        str(hop),
    ]
    raw = ["-", "--rate", str(SAMPLING_RATE), "--format", "f32le", "--drop"]
    lines, notes = listen([*program, "listen", *raw, *options], samples, speed)
    result = subprocess.run([*program, "tag", str(path), *options, "--json"], capture_output=True, check=True)
    expected = json.loads(result.stdout)["events"]
    begun = {line["id"]: (at, line) for at, line in lines if line["type"] == "begin"}
    ended = [line for _, line in lines if line["type"] == "end"]
    heard = sorted((line["start"], line["end"], line["label"]) for line in ended)
    wanted = sorted((event["start"], event["end"], event["label"]) for event in expected)
    same = sum(item in wanted for item in heard)
    scores = {(event["start"], event["label"]): event["score"] for event in expected}
    largest = max((abs(line["score"] - scores.get((line["start"], line["label"]), 9)) for line in ended), default=0.0)
    delays = sorted(at - line["start"] for at, line in begun.values())
    console.print(
        f"{len(samples) / SAMPLING_RATE:.0f} s at {speed:g} times real time: {len(wanted)} events of the whole, "
        f"{len(heard)} heard, {same} the same; lost {len(wanted) - same}, doubled or other {len(heard) - same}; "
        f"scores differ by {largest:.1e} at most."
    )
    if delays:
        middle = delays[len(delays) // 2]
        console.print(f"Beginnings were told after {middle:.2f} s (median), {delays[-1]:.2f} s at most.")
    console.print(notes.strip(), highlight=False)
    if heard != wanted or len(begun) != len(ended):
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
