# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""
Archives in Ray Data: an actor for `Dataset.map_batches`, and whole archives to a directory of Parquet files, each of
which is written once. Needs the extra `ray`.
"""

import hashlib
import json
import os
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
from pyarrow import parquet

from transformers_beats.audio.decoding import AudioStream
from transformers_beats.audio.files import find_audio, place_of, remember_folders
from transformers_beats.audio.recordings import AudioError
from transformers_beats.backends.choice import settings_of_backend
from transformers_beats.inference.event_options import event_settings, wants_events
from transformers_beats.inference.layers import choose_layers, is_single
from transformers_beats.inference.loading import place_of_model
from transformers_beats.utils.errors import BeatsError, UsageError, first_line, install_command
from transformers_beats.utils.files import make_directory, replace_file
from transformers_beats.utils.lock import hold
from transformers_beats.utils.machine import name_of
from transformers_beats.utils.resume import begin_or_resume

from .batches import Action, BeatsBatches, to_utf8


PATH, SETTINGS = "path", ".settings.json"
# Times that a file may end its process, as a decoder that crashes does, before it is left out.
MOST_CRASHES = 3


class BeatsActor(BeatsBatches):
    """
    Actor for `map_batches`, which loads its model once: [`BeatsBatches`] by the name that Ray users look for.

    ```python
    import ray
    from transformers_beats.integrations.ray import BeatsActor

    tagged = ray.data.read_parquet("clips").map_batches(
        BeatsActor,
        fn_constructor_kwargs={"model": "beats-finetuned", "column": "bytes"},
        compute=ray.data.ActorPoolStrategy(min_size=1, max_size=4),
        batch_size=64,
        num_gpus=1,
    )
    tagged.write_parquet("tags")
    ```
    """


class Outcome(NamedTuple):
    """Parquet files of an archive, number of their rows, and how many of these have an error."""

    files: list[Path]
    num_rows: int
    num_errors: int


class _BlockActor(BeatsActor):
    """
    Writes the results of each block of files to a Parquet file, whole or not at all. In one `run`, a block whose
    process has ended is tried again so many times.
    """

    def __init__(self, output: str, run: str, retries: int, **options: Any):
        super().__init__(**options)
        self.output, self.run, self.retries = Path(output), run, retries
        self.arguments |= {"output": output, "run": run, "retries": retries}
        # Names the file that is being decoded, how often it has been begun, and how often the block, for the next try.
        self.journal = Path()
        self.begun: dict[str, int] = {}
        self.tries = 0

    def __call__(self, batch: Any) -> dict[str, list]:
        paths = [os.fsdecode(path) for path in chain.from_iterable(batch["paths"])]
        target = self.output / name_of_block(paths)
        # Written by a process that was killed before it could say so.
        if not target.exists():
            self.journal = target.with_suffix(".begun")
            noted = json.loads(self.journal.read_text()) if self.journal.exists() else {}
            self.begun = noted.get("files", {})
            self.tries = 1 + (noted["tries"] if noted.get("run") == self.run else 0)
            if self.tries > 1 + self.retries:
                raise BeatsError(f"{target.name}: the process ended {self.tries - 1} times before it was written.")
            self.note(self.begun)
            table = pa.table({PATH: list(map(to_utf8, paths)), **self.results(paths)})
            with replace_file(target) as temporary:
                parquet.write_table(table, temporary)
            self.journal.unlink(missing_ok=True)
        return {"block": [target.name]}

    def open(self, recording: Any) -> AudioStream:
        """Opens a file, unless the process has ended several times before the next one was opened."""
        times = self.begun.get(recording, 0)
        if times >= MOST_CRASHES:
            raise AudioError(f"{recording}: was left out: the process ended {times} times after it was opened.")
        self.note(self.begun | {recording: times + 1})
        stream = super().open(recording)
        if (written := to_utf8(recording)) != recording:
            stream.report.warnings.append(f"its name is not UTF-8: its path is written as {written}.")
        return stream

    def note(self, files: dict[str, int]) -> None:
        """Notes how often files and their block have been begun."""
        with replace_file(self.journal) as temporary:
            temporary.write_text(json.dumps({"run": self.run, "tries": self.tries, "files": files}))


def name_of_block(paths: Sequence[str]) -> str:
    """Returns the name of the Parquet file of a block, which depends on its files."""
    digest = hashlib.blake2b(os.fsencode("\0".join(paths)), digest_size=12)
    return f"part-{digest.hexdigest()}.parquet"


def settings_of(batches: BeatsBatches, **options: Any) -> dict[str, Any]:
    """
    Returns the settings that results depend on, as they come out: a default that is written out is no other setting.
    """
    model = batches.inferences[0].plain_model
    settings: dict[str, Any] = {
        "action": batches.action,
        "model": batches.fingerprint,
        "dtype": name_of(model.dtype),
        "windows": [list(inference.windows) for inference in batches.inferences],
        **settings_of_backend(options.get("backend")),
    }
    if batches.action == "embed":
        layers = options.get("layers")
        chosen = choose_layers(-1 if layers is None else layers, model.base_model.config.num_hidden_layers)
        settings |= {"layers": chosen[0] if is_single(layers) else chosen}
        settings |= {name: options.get(name, default) for name, default in (("grain", "clip"), ("pooling", "mean"))}
    if batches.action == "tag":
        settings |= {"top_k": options.get("top_k", 5), "threshold": options.get("threshold")}
        settings["events"] = asdict(event_settings(options)) if wants_events(options) else None
        if wants_events(options) and model.config.event_settings:
            # They are no part of the fingerprint of a model.
            settings["event_settings"] = model.config.event_settings
    return settings


def process_with_ray(
    inputs: Iterable[str | Path],
    output: str | Path,
    model: str,
    action: Action = "tag",
    concurrency: int | tuple[int, int] = (1, 2),
    files_per_block: int = 256,
    num_cpus: float = 1,
    num_gpus: float = 0,
    retries: int = 10,
    **options: Any,
) -> Outcome:
    """
    Tags, embeds or tokenizes files with Ray, each exactly once. Blocks of files are computed by a pool of actors, and
    each is one Parquet file, which is written whole or not at all. An actor that dies is started again, with its
    block. Called again after an interruption, it goes on: files that are in finished Parquet files are left out.

    Args:
        inputs (`Iterable` of `str` or `Path`):
            Files and folders, which all nodes see under the same paths.
        output (`str` or `Path`):
            Directory of the Parquet files, which all nodes see, too. Their columns are `path`, absolute, and those of
            [`BeatsBatches`]. A name that is not UTF-8 is written as `repr` does, with a warning in its row.
        model, action, options:
            See [`BeatsBatches`]; there is no `column`. With the `dtype` `"auto"`, all actors compute in the one that
            this process would choose on its CPU.
        concurrency (`int` or `tuple[int, int]`, defaults to `(1, 2)`):
            Number of actors, or the smallest and the largest one.
        files_per_block (`int`, defaults to 256):
            Files of a block: what an actor that dies loses at most.
        num_cpus, num_gpus (`float`, defaults to 1 and 0):
            What an actor reserves.
        retries (`int`, defaults to 10):
            Times that a block is tried again after its actor has died. A file that was the last to be opened three
            times, such as one that crashes the decoder, is left out, with an error in its row.

    Returns:
        [`Outcome`]

    Raises:
        [`UsageError`]: if an input is not there, `output` was begun with other settings that change results or is
            written to by another run, or an argument is out of range.
        [`BeatsError`]: if blocks could not be computed. Call it again to go on.
    """
    try:
        import ray
        from ray.exceptions import RayError
    except ImportError as error:
        raise BeatsError(f"process_with_ray needs Ray: {install_command('ray')}") from error
    if files_per_block < 1 or retries < 0:
        raise UsageError(
            f"`files_per_block` must be at least 1 and `retries` at least 0, got {files_per_block} and {retries}."
        )
    smallest, largest = (concurrency, concurrency) if isinstance(concurrency, int) else concurrency
    if not 1 <= smallest <= largest:
        raise UsageError(f"`concurrency` must be at least 1, and a range must not fall, got {concurrency!r}.")
    if "column" in options:
        raise UsageError("process_with_ray reads files and has no `column`: for Parquet of contents, map BeatsActor.")
    output = Path(output).absolute()
    arguments: dict[str, Any] = {"model": place_of_model(model), "action": action, **options}
    # Checks all arguments.
    here: dict[str, Any] = {**arguments, "device": "cpu"}
    settings = settings_of(BeatsBatches(**here), **options)
    # Else one archive could have results of several.
    arguments["dtype"] = settings["dtype"]
    files = find_audio(map(Path, inputs))
    make_directory(output)
    with hold(output):
        begin_or_resume(output / SETTINGS, settings, output)
        real_path = remember_folders()
        paths = (path for part in finished(output) for path in _read_column(part, PATH).to_pylist())
        done = {place_of(path, real_path) for path in paths}
        places = (to_utf8(place_of(file.full_name, real_path)) for file in files)
        todo = [os.fsencode(file.address) for file, place in zip(files, places) if place not in done]
        blocks = [todo[start : start + files_per_block] for start in range(0, len(todo), files_per_block)]
        if blocks:
            dataset = ray.data.from_items([{"paths": block} for block in blocks], override_num_blocks=len(blocks))
            run = uuid.uuid4().hex
            # An actor that dies is started again, and its task with it, by default without end; to choose another
            # number there is no argument that Ray keeps.
            mapped = dataset.map_batches(
                _BlockActor,
                fn_constructor_kwargs={"output": str(output), "run": run, "retries": retries, **arguments},
                batch_size=1,
                compute=ray.data.ActorPoolStrategy(min_size=smallest, max_size=largest),
                num_cpus=num_cpus,
                num_gpus=num_gpus,
            )
            try:
                mapped.materialize()
            except RayError as error:
                left = sum(not (output / name_of_block([*map(os.fsdecode, block)])).exists() for block in blocks)
                raise BeatsError(
                    f"{output}: {left} of {len(blocks)} blocks could not be computed: {first_line(error)} Call it "
                    "again to go on."
                ) from error
        parts = finished(output)
        errors = [_read_column(part, "error") for part in parts]
    num_errors = sum(len(column) - column.null_count for column in errors)
    return Outcome(parts, sum(map(len, errors)), num_errors)


def _read_column(part: Path, name: str) -> pa.ChunkedArray:
    return parquet.read_table(part, columns=[name])[name]


def finished(output: Path) -> list[Path]:
    """Returns the Parquet files of an archive that are written to their end."""
    return sorted(output.glob("part-*.parquet"))


__all__ = ["BeatsActor", "Outcome", "process_with_ray"]
