# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""What the web page ([`web`]) does behind its buttons: finds checkpoints, and analyses a clip within limits."""

import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import chain, count
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from transformers_beats.audio.decoding import AudioError, AudioStream, open_audio
from transformers_beats.configuration_beats import problem_type_of
from transformers_beats.inference import loading
from transformers_beats.inference.events import Event, check_range
from transformers_beats.inference.pipeline import BeatsAudioTaggingPipeline
from transformers_beats.inference.windowed import WindowedInference
from transformers_beats.plotting.timeline import draw_timeline, draw_tokens, format_time, read_spectrogram
from transformers_beats.utils.errors import BeatsError, UsageError
from transformers_beats.utils.files import work_directory


if TYPE_CHECKING:
    from PIL import Image
    from transformers import PreTrainedModel

    from transformers_beats.feature_extraction_beats import BeatsFeatureExtractor


Kind = Literal["clips", "frames", "tokens"]
# Called with the share that is done, in [0, 1], and what is being done.
Report = Callable[[float, str], Any]

TOP_K = 5
# Window and hop in seconds. The events of a clip-level model are as coarse as its windows.
DEFAULT_WINDOWS: dict[Kind, tuple[float, float]] = {"clips": (2.0, 0.5), "frames": (10.0, 10.0)}
WINDOW_SECONDS = (0.5, 30.0)
# Windows of the labels of a clip-level model, as long as the clips of AudioSet.
CLIP_SECONDS = 10.0
# A second is computed about as often as windows overlap.
MAX_OVERLAP = 8


class Checkpoint(NamedTuple):
    """
    A model that can be chosen.

    Args:
        name (`str`):
            By which it is chosen: its id on the Hub, or the name of its directory.
        path (`Path`):
            Its directory.
        kind (`str`):
            `"clips"` or `"frames"`, what a classifier gives labels to, or `"tokens"`, for a tokenizer.
    """

    name: str
    path: Path
    kind: Kind


@dataclass(frozen=True)
class Limits:
    """
    What the page takes.

    Args:
        max_seconds (`float`, defaults to 1800):
            The longest recording, in seconds.
        max_megabytes (`int`, defaults to 200):
            The largest upload, in 2^20 bytes.
    """

    max_seconds: float = 1800.0
    max_megabytes: int = 200

    def __str__(self) -> str:
        return f"{format_time(self.max_seconds, 1)} (min:s) and {self.max_megabytes} MB"


@dataclass(frozen=True)
class Settings:
    """
    What can be set on the page.

    Args:
        threshold (`float`):
            Of events, in [0, 1].
        window_seconds (`float`):
            See [`WindowedInference`]; from 0.5 to 30.
        hop_seconds (`float`):
            Likewise; from an eighth of the window, which bounds the work, to all of it.

    Raises:
        `ValueError`: for anything else.
    """

    threshold: float
    window_seconds: float
    hop_seconds: float

    def __post_init__(self):
        check_range("threshold", self.threshold, 0.0, 1.0)
        check_range("window (seconds)", self.window_seconds, *WINDOW_SECONDS)
        check_range(
            "hop (seconds) with this window", self.hop_seconds, self.window_seconds / MAX_OVERLAP, self.window_seconds
        )


@dataclass
class Analysis:
    """
    What is shown of a clip.

    Args:
        message (`str`):
            One line.
        labels (`dict[str, float]`):
            Scores of the best labels, in [0, 1].
        events (`list[tuple[str, float, float, float]]`):
            Label, start and end in seconds, score.
        timeline (`PIL.Image.Image`):
            Spectrogram, and events under it.
        tokens (`PIL.Image.Image`, *optional*):
            Acoustic tokens, if there is a tokenizer.
    """

    message: str
    labels: dict[str, float]
    events: list[tuple[str, float, float, float]]
    timeline: "Image.Image"
    tokens: "Image.Image | None" = None


def find_checkpoints(sources: Sequence[str | Path]) -> list[Checkpoint]:
    """
    The checkpoints that the page can use. Others in the same folder, such as models that were only pre-trained, are
    left out.

    Args:
        sources (`Sequence[str]` or `Sequence[Path]`):
            Directories with a `config.json`, directories of such directories, or ids of models on the Hub, which are
            downloaded, without code.

    Returns:
        `list[Checkpoint]`: with at least one classifier, and names that differ.

    Raises:
        `ValueError`: in one line, if a source holds no checkpoint or none of them is a classifier of sounds.
    """
    names: dict[Path, str] = {}
    for source in sources:
        directory, hub_id = local_directory(source)
        found = sorted(path.parent for path in [*directory.glob("config.json"), *directory.glob("*/config.json")])
        if not found:
            raise UsageError(f"{source}: no checkpoint, it has no config.json, and no folder in it has one.")
        for path in found:
            # The folder of a download is called by a commit.
            names[path] = path.name if hub_id is None else str(PurePosixPath(hub_id, path.relative_to(directory)))
    kinds = {path: kind for path in names if (kind := kind_of(path)) is not None}
    if not any(kind in DEFAULT_WINDOWS for kind in kinds.values()):
        tried = ", ".join(map(str, names)) or "no directory was given"
        raise UsageError(f"There is no BEATs model that was fine-tuned to classify sounds ({tried}).")
    different = tell_apart({path: names[path] for path in kinds})
    return [Checkpoint(different[path], path, kind) for path, kind in kinds.items()]


def tell_apart(names: dict[Path, str]) -> dict[Path, str]:
    """
    Names that differ: equal ones are preceded by the folder above, and numbered if that is the same, too. None tells
    where folders are on this machine.
    """
    different: dict[Path, str] = {}
    for path, name in names.items():
        if list(names.values()).count(name) > 1:
            name = f"{path.parent.name}/{name}".lstrip("/")
        numbered = (f"{name} ({number})" for number in count(2))
        different[path] = next(
            candidate for candidate in chain([name], numbered) if candidate not in different.values()
        )
    return different


def local_directory(source: str | Path) -> tuple[Path, str | None]:
    """The directory of a source, absolute, and its id if it is one of the Hub, from where it is downloaded."""
    path = Path(source).expanduser()
    if path.is_dir():
        return path.resolve(), None
    if isinstance(source, str) and source.count("/") == 1 and not source.startswith((".", "/", "~")):
        from huggingface_hub import snapshot_download

        try:
            return Path(snapshot_download(source, allow_patterns=["*.json", "*.safetensors"])), source
        except (OSError, ValueError) as error:
            raise UsageError(f"{source}: no such directory, and not found on the Hub.") from error
    loading.check_model(str(source))
    raise UsageError(f"{source}: no such directory.")


def kind_of(directory: Path) -> Kind | None:
    """What a checkpoint can be used for on the page, from its configuration alone; `None`: for nothing."""
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(directory)
    except (OSError, ValueError):
        # Of another project, or damaged.
        return None
    architecture = (config.architectures or [""])[0]
    if not config.model_type.startswith("beats"):
        return None
    if hasattr(config, "codebook_dim"):
        return "tokens"
    if architecture.endswith("ForAudioFrameClassification"):
        return "frames"
    is_classifier = architecture.endswith("ForAudioClassification") and problem_type_of(config) != "regression"
    return "clips" if is_classifier else None


# A base model has 360 MB: those used last stay.
@lru_cache(maxsize=4)
def load(path: Path, device: str) -> tuple["PreTrainedModel", "BeatsFeatureExtractor"]:
    """A model and its feature extractor. An error names the directory, and not where it is."""
    try:
        return loading.load(path, device)
    except BeatsError as error:
        raise type(error)(str(error).replace(str(path), path.name)) from error


def open_limited(path: Path, sampling_rate: int, max_seconds: float, report: Callable[[float], Any]) -> AudioStream:
    """
    Opens a file, of which no more than the limit is read.

    Args:
        path (`Path`):
            The file.
        sampling_rate (`int`):
            Of the stream, in hertz.
        max_seconds (`float`):
            The limit.
        report (`Callable[[float], Any]`):
            Called with the share that is read, in [0, 1], if the file says how long it is.

    Raises:
        [`AudioError`]: if the file cannot be used or is too long: at once if it says so, or when the limit is passed.
    """
    stream = open_audio(path, sampling_rate)
    seconds = stream.seconds or None
    too_long = AudioError(
        f"{path.name} is too long: this page takes at most {format_time(max_seconds, 1)} (min:s). Cut it into parts."
    )
    if seconds is not None and seconds > max_seconds:
        raise too_long

    def read() -> Iterator[np.ndarray]:
        num_samples = 0
        for block in stream.blocks:
            num_samples += len(block)
            if num_samples > max_seconds * sampling_rate:
                raise too_long
            if seconds is not None:
                report(min(1.0, num_samples / sampling_rate / seconds))
            yield block

    return replace(stream, blocks=read())


def analyse(
    path: Path,
    classifier: Checkpoint,
    tokenizer: Checkpoint | None,
    settings: Settings,
    max_seconds: float,
    device: str = "cpu",
    report: Report = lambda share, what: None,
) -> Analysis:
    """
    All that is shown of a clip. It is read several times rather than held, so that memory does not grow with its
    length but for the scores, one row for each 160 ms. The labels of a clip-level model come from its usual windows,
    whatever those of the events are.

    Raises:
        [`AudioError`]: for a file that cannot be used, or is too long.
        `ValueError`: for settings that do not fit, or a checkpoint that cannot be used.
        `MemoryError`: for windows that are too long.
    """

    def open_(extractor: "BeatsFeatureExtractor", what: str) -> AudioStream:
        return open_limited(path, extractor.sampling_rate, max_seconds, lambda share: report(share, what))

    model, extractor = load(classifier.path, device)
    tagger = BeatsAudioTaggingPipeline(model=model, feature_extractor=extractor, device=model.device)
    windows = (settings.window_seconds, settings.hop_seconds)
    labels = None
    if classifier.kind == "clips" and windows != (CLIP_SECONDS, CLIP_SECONDS):
        labels = tagger(open_(extractor, "Listening"), top_k=TOP_K, window_seconds=CLIP_SECONDS)
    result = tagger(
        open_(extractor, "Listening" if labels is None else "Finding events"),
        top_k=TOP_K,
        return_events=True,
        event_threshold=settings.threshold,
        window_seconds=settings.window_seconds,
        hop_seconds=settings.hop_seconds,
    )
    labels = result["labels"] if labels is None else labels
    events = [Event(**event) for event in result["events"]]
    spectrogram = read_spectrogram(open_(extractor, "Drawing the spectrogram"), extractor)
    timeline = draw(lambda picture: draw_timeline(spectrogram, events, picture, path.name))
    tokens = None
    if tokenizer is not None:
        token_model, token_extractor = load(tokenizer.path, device)
        codes = WindowedInference(token_model, token_extractor).codes(open_(token_extractor, "Finding tokens"))
        codebook = token_model.get_buffer("quantizer.codebook").cpu().numpy()
        tokens = draw(lambda picture: draw_tokens(codes, codebook, token_extractor, picture))
    noun = "event" if len(events) == 1 else "events"
    message = f"{path.name}: {spectrogram.seconds:.1f} s, {len(events)} {noun}, heard by {classifier.name}"
    rows = [(event.label, event.start, event.end, round(event.score, 3)) for event in events]
    return Analysis(message, {label["label"]: label["score"] for label in labels}, rows, timeline, tokens)


def draw(write: Callable[[Path], None]) -> "Image.Image":
    """The picture that a function writes to a file; no file is left."""
    from PIL import Image

    with work_directory(Path(tempfile.gettempdir()), "beats-picture-") as directory:
        write(directory / "picture.png")
        with Image.open(directory / "picture.png") as picture:
            return picture.copy()


__all__ = [
    "DEFAULT_WINDOWS",
    "TOP_K",
    "WINDOW_SECONDS",
    "Analysis",
    "Checkpoint",
    "Limits",
    "Settings",
    "analyse",
    "find_checkpoints",
    "open_limited",
]
