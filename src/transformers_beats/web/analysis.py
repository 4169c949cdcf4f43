# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Work behind the web page ([`page`]): finding checkpoints, and analysing a clip within limits."""

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
from transformers_beats.conversion import released
from transformers_beats.inference import loading
from transformers_beats.inference.events import Event, check_range
from transformers_beats.inference.pipeline import (
    EVENT_OVERLAP,
    EVENT_WINDOW_SECONDS,
    BeatsAudioTaggingPipeline,
    read_in_step,
)
from transformers_beats.inference.windowed import Columns, WindowedInference
from transformers_beats.plotting.spectrogram import SpectrogramReader
from transformers_beats.plotting.timeline import draw_timeline, draw_tokens
from transformers_beats.utils.errors import BeatsError, UsageError
from transformers_beats.utils.files import work_directory
from transformers_beats.utils.hub import check_model_repository


if TYPE_CHECKING:
    from PIL import Image
    from transformers import PreTrainedModel

    from transformers_beats.feature_extraction_beats import BeatsFeatureExtractor


Kind = Literal["clips", "frames", "tokens"]
# Function of the share that is done, in [0, 1].
Report = Callable[[float], Any]

TOP_K = 5
# Window and hop of events in seconds, which are those of the pipeline.
DEFAULT_WINDOWS: dict[Kind, tuple[float, float]] = {
    "clips": (EVENT_WINDOW_SECONDS, EVENT_WINDOW_SECONDS / EVENT_OVERLAP),
    "frames": (10.0, 10.0),
}
WINDOW_SECONDS = (0.5, 30.0)
# Largest number of windows that overlap, which bounds the work.
MAX_OVERLAP = 8


class Checkpoint(NamedTuple):
    """
    A model that can be chosen: its name on the page (id on the Hub, or name of its directory), its directory, and its
    kind, `"clips"` or `"frames"` for a classifier of these, `"tokens"` for a tokenizer.
    """

    name: str
    path: Path
    kind: Kind


@dataclass(frozen=True)
class Limits:
    """Length of the longest recording, in seconds, and size of the largest upload, in 2^20 bytes."""

    max_seconds: float = 1800.0
    max_megabytes: int = 200

    def __str__(self) -> str:
        return f"{format_duration(self.max_seconds)} and {self.max_megabytes} MB"


@dataclass(frozen=True)
class Settings:
    """
    Settings of events on the page: threshold, in [0, 1]; window of [`WindowedInference`], from 0.5 to 30 s; and hop,
    from an eighth of the window to all of it. Raises a [`UsageError`] for a value out of range.
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
    Results for a clip: summary of one line, scores of the best labels, events in order of their starts, picture of
    spectrogram and events, and picture of the acoustic tokens, if there is a tokenizer.
    """

    message: str
    labels: dict[str, float]
    events: list[Event]
    timeline: "Image.Image"
    tokens: "Image.Image | None" = None


def format_duration(seconds: float) -> str:
    """Returns a duration with its format: "1:30 (min:s)" or "2:00:00 (h:min:s)"."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d} (h:min:s)" if hours else f"{minutes}:{rest:02d} (min:s)"


def find_checkpoints(sources: Sequence[str | Path]) -> list[Checkpoint]:
    """
    Finds the checkpoints that the page can use. Others in the same folder, such as models that were only pre-trained,
    are left out. `sources` are directories with a `config.json`, directories of such directories, or ids of models on
    the Hub, which are downloaded without code. Returns checkpoints with different names, at least one a classifier.

    Raises:
        [`UsageError`]: if a source holds no checkpoint, or none of them is a classifier of sounds.
    """
    names: dict[Path, str] = {}
    for source in sources:
        directory, hub_id = local_directory(source)
        files = [file for name in ("config.json", "adapter_config.json") for file in (name, f"*/{name}")]
        found = sorted({path.parent for file in files for path in directory.glob(file)})
        if not found:
            raise UsageError(f"{source}: no checkpoint, it has no config.json, and no folder in it has one.")
        for path in found:
            # The name of a download's folder is that of a commit.
            names[path] = path.name if hub_id is None else str(PurePosixPath(hub_id, path.relative_to(directory)))
    kinds = {path: kind for path in names if (kind := kind_of(path)) is not None}
    if not any(kind in DEFAULT_WINDOWS for kind in kinds.values()):
        tried = ", ".join(map(str, names)) or "no directory was given"
        raise UsageError(f"There is no BEATs model that was fine-tuned to classify sounds ({tried}).")
    different = tell_apart({path: names[path] for path in kinds})
    return [Checkpoint(different[path], path, kind) for path, kind in kinds.items()]


def tell_apart(names: dict[Path, str]) -> dict[Path, str]:
    """
    Makes names different: equal ones are preceded by the folder above, and numbered if that is the same, too. No name
    tells a visitor of the page more about the folders of this machine.
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
    """Returns the directory of a source and, for a released model or one of the Hub, which are fetched, its name."""
    path = Path(source).expanduser()
    if path.is_dir():
        return path.resolve(), None
    if (found := released.resolve(source)) != str(source):
        return Path(found), str(source)
    if isinstance(source, str) and source.count("/") == 1 and not source.startswith((".", "/", "~")):
        from huggingface_hub import snapshot_download

        try:
            check_model_repository(source, "config.json", {})
            return Path(snapshot_download(source, allow_patterns=["*.json", "*.safetensors"])), source
        except BeatsError as error:
            raise UsageError(str(error)) from error
        except (OSError, ValueError) as error:
            raise UsageError(f"{source}: no such directory, and not found on the Hub.") from error
    loading.find_model(source)
    raise UsageError(f"{source}: no such directory.")


def kind_of(directory: Path) -> Kind | None:
    """Returns the use of a checkpoint on the page, from its configuration alone; `None` if it has none."""
    try:
        config = loading.saved_config(directory)
    except (OSError, ValueError):
        # A model of another project, or a damaged file.
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


# A base model has 360 MB: only the models used last are kept.
@lru_cache(maxsize=4)
def load(path: Path, device: str) -> tuple["PreTrainedModel", "BeatsFeatureExtractor"]:
    """Loads a model and its feature extractor. An error names the directory without its path."""
    try:
        return loading.load(path, device)
    except BeatsError as error:
        raise type(error)(str(error).replace(str(path), path.name)) from error


def open_limited(path: Path, sampling_rate: int, max_seconds: float, report: Report) -> AudioStream:
    """
    Opens a file, of which no more than `max_seconds` are read. `report` is called with the share that is read, in
    [0, 1], if the header of the file has its length.

    Raises:
        [`AudioError`]: if the file cannot be used or is too long: at once if its header says so, or at the limit.
    """
    stream = open_audio(path, sampling_rate)
    seconds = stream.seconds or None
    too_long = AudioError(
        f"{path.name} is too long: this page takes at most {format_duration(max_seconds)}. Cut it into parts."
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
    report: Report = lambda share: None,
) -> Analysis:
    """
    Computes labels, events and pictures of a clip, which is decoded once. Memory does not grow with its length but for
    the scores and tokens, one row for each 160 ms. Labels come from windows of 10 s, whatever those of the
    events are. `max_seconds` and `report` are those of [`open_limited`].

    Raises:
        [`AudioError`]: for a file that cannot be used, or is too long.
        [`BeatsError`]: for a checkpoint that cannot be used.
        `MemoryError`: for windows that are too long.
    """
    model, extractor = load(classifier.path, device)
    tagger = BeatsAudioTaggingPipeline(model=model, feature_extractor=extractor, device=model.device)
    picture = SpectrogramReader(extractor)
    stream = picture.follow(open_limited(path, extractor.sampling_rate, max_seconds, report))
    inferences = tagger.inferences(
        return_events=True, event_window_seconds=settings.window_seconds, event_hop_seconds=settings.hop_seconds
    )
    computations = [inference.stream_frames for inference in inferences]
    of_events = len(computations) - 1
    readers = []
    if tokenizer is not None:
        token_model, token_extractor = load(tokenizer.path, device)
        find_tokens = WindowedInference(token_model, token_extractor).stream_codes
        if token_extractor.sampling_rate == extractor.sampling_rate:
            computations.append(find_tokens)
        else:
            other = open_limited(path, token_extractor.sampling_rate, max_seconds, lambda share: None)
            readers.append(find_tokens(other))
    shared = stream.share(len(computations))
    readers = [compute(part) for compute, part in zip(computations, shared)] + readers
    results: list[list[Columns]] = [[] for _ in readers]
    for index, block in read_in_step(readers):
        results[index].append(block)
    labels = tagger.find_tags(results[0], top_k=TOP_K).labels
    events = tagger.find_tags(results[of_events], return_events=True, event_threshold=settings.threshold).events or []
    spectrogram = picture.spectrogram()
    timeline = draw(lambda file: draw_timeline(spectrogram, events, file, path.name))
    tokens = None
    if tokenizer is not None:
        codes, codebook = Columns.join(results[-1]), token_model.get_buffer("quantizer.codebook").cpu().numpy()
        tokens = draw(lambda file: draw_tokens(codes, codebook, token_extractor, file))
    noun = "event" if len(events) == 1 else "events"
    message = f"{path.name}: {spectrogram.seconds:.1f} s, {len(events)} {noun}, heard by {classifier.name}"
    return Analysis(message, {label.label: label.score for label in labels}, events, timeline, tokens)


def draw(write: Callable[[Path], None]) -> "Image.Image":
    """Returns the picture that a function writes to a file, and removes the file."""
    from PIL import Image

    with work_directory(Path(tempfile.gettempdir()), "beats-picture-") as directory:
        write(directory / "picture.png")
        with Image.open(directory / "picture.png") as picture:
            return picture.copy()
