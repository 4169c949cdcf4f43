# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""
Archives in Ray Data: an actor for `Dataset.map_batches`, and whole archives to a directory of Parquet files, each of
which is written once. Needs the extra `ray`.
"""

import json
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

from pyarrow import parquet

from transformers_beats.audio.decoding import AudioStream
from transformers_beats.audio.files import find_audio
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

from .batches import COMMON, Action, BeatsBatches, to_utf8
from .blocks import (
    Block,
    FileBlock,
    block_of,
    count_rows,
    find_parquet,
    read_column,
    split_files,
    split_rows,
)


SETTINGS = ".settings.json"
# Times that a recording may end its process, as a decoder that crashes does, before it is left out.
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
    Writes the results of each block to a Parquet file, whole or not at all. In one `run`, a block whose
    process has ended is tried again so many times.
    """

    def __init__(self, output: str, run: str, retries: int, **options: Any):
        super().__init__(**options)
        self.output, self.run, self.retries = Path(output), run, retries
        self.arguments |= {"output": output, "run": run, "retries": retries}
        self.block: Block = FileBlock([])
        # Names the recording that is being decoded, how often it has been begun, and how often the block, for the next
        # try.
        self.journal = Path()
        self.begun: dict[str, int] = {}
        self.tries = 0

    def __call__(self, batch: Any) -> dict[str, list]:
        self.block = block_of(batch)
        target = self.output / self.block.name
        # Written by a process that was killed before it could say so.
        if not target.exists():
            self.journal = target.with_suffix(".begun")
            noted = json.loads(self.journal.read_text()) if self.journal.exists() else {}
            self.begun = noted.get("files", {})
            self.tries = 1 + (noted["tries"] if noted.get("run") == self.run else 0)
            if self.tries > 1 + self.retries:
                raise BeatsError(f"{target.name}: the process ended {self.tries - 1} times before it was written.")
            self.note(self.begun)
            table = self.block.table(self.results(self.block.recordings()))
            with replace_file(target) as temporary:
                parquet.write_table(table, temporary)
            self.journal.unlink(missing_ok=True)
        return {"block": [target.name]}

    def open(self, recording: Any) -> AudioStream:
        """Opens a recording, unless the process has ended several times before the next one was opened."""
        key, name = str(recording), self.block.label(recording)
        times = self.begun.get(key, 0)
        if times >= MOST_CRASHES:
            raise AudioError(f"{name}: was left out: the process ended {times} times after it was opened.")
        self.note(self.begun | {key: times + 1})
        stream = super().open(self.block.open(recording))
        if (written := to_utf8(key)) != key:
            stream.report.warnings.append(f"its name is not UTF-8: its path is written as {written}.")
        return stream

    def note(self, files: dict[str, int]) -> None:
        """Notes how often recordings and their block have been begun."""
        with replace_file(self.journal) as temporary:
            temporary.write_text(json.dumps({"run": self.run, "tries": self.tries, "files": files}))


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
    column: str | None = None,
    keep: Sequence[str] | None = None,
    **options: Any,
) -> Outcome:
    """
    Tags, embeds or tokenizes files, or rows of Parquet files, with Ray, each exactly once. Blocks of them are computed
    by a pool of actors, and each is one Parquet file, which is written whole or not at all. An actor that dies is
    started again, with its block. Called again after an interruption, it goes on: what is in finished Parquet files is
    left out.

    Args:
        inputs (`Iterable` of `str` or `Path`):
            Files and folders, which all nodes see under the same paths.
        output (`str` or `Path`):
            Directory of the Parquet files, which all nodes see, too. Their columns are `path`, absolute, and those of
            [`BeatsBatches`]. A name that is not UTF-8 is written as `repr` does, with a warning in its row.
        model, action, options:
            See [`BeatsBatches`]. With the `dtype` `"auto"`, all actors compute in the one that this process would
            choose on its CPU.
        concurrency (`int` or `tuple[int, int]`, defaults to `(1, 2)`):
            Number of actors, or the smallest and the largest one.
        files_per_block (`int`, defaults to 256):
            Files, or rows, of a block: what an actor that dies loses at most.
        num_cpus, num_gpus (`float`, defaults to 1 and 0):
            What an actor reserves.
        retries (`int`, defaults to 10):
            Times that a block is tried again after its actor has died. A recording that was the last to be opened
            three times, such as one that crashes the decoder, is left out, with an error in its row.
        column (`str`, *optional*):
            Column of the recordings, if `inputs` are Parquet files, or folders of them: contents of files, or the
            structs of bytes and path that `datasets` writes. In place of `path`, results have the columns
            `source_file`, the absolute path of the Parquet file, `source_row`, from 0, and the other columns of the
            row. A block is of one Parquet file.
        keep (`Sequence[str]`, *optional*):
            Those of the other columns that results have; all by default.

    Returns:
        [`Outcome`]

    Raises:
        [`UsageError`]: if an input is not there or is no such Parquet file, `output` was begun with other settings
            that change results or is written to by another run, an argument is out of range, or a Parquet file has
            changed since rows of it were computed.
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
    if column is None and keep is not None:
        raise UsageError("`keep` is of the columns of Parquet files: it needs the `column` of the recordings, too.")
    output = Path(output).absolute()
    arguments: dict[str, Any] = {"model": place_of_model(model), "action": action, **options}
    # Checks all arguments.
    here: dict[str, Any] = {**arguments, "device": "cpu"}
    batches = BeatsBatches(**here)
    settings = settings_of(batches, **options)
    # Else one archive could have results of several.
    arguments["dtype"] = settings["dtype"]
    if column is None:
        files = find_audio(map(Path, inputs))
    else:
        keep = None if keep is None else sorted({keep} if isinstance(keep, str) else set(keep))
        settings |= {"column": column, "keep": keep}
        paths = find_parquet(map(Path, inputs), output)
        num_rows = {path: count_rows(path, column, keep, [*batches.fields, *COMMON]) for path in paths}
    make_directory(output)
    with hold(output):
        begin_or_resume(output / SETTINGS, settings, output)
        if column is None:
            blocks = split_files(files, finished(output), files_per_block)
        else:
            blocks = split_rows(num_rows, finished(output), files_per_block, column, keep)
        if blocks:
            dataset = ray.data.from_items([block.as_item() for block in blocks], override_num_blocks=len(blocks))
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
                left = sum(not (output / block.name).exists() for block in blocks)
                raise BeatsError(
                    f"{output}: {left} of {len(blocks)} blocks could not be computed: {first_line(error)} Call it "
                    "again to go on."
                ) from error
        parts = finished(output)
        errors = [read_column(part, "error") for part in parts]
    num_errors = sum(len(column) - column.null_count for column in errors)
    return Outcome(parts, sum(map(len, errors)), num_errors)


def finished(output: Path) -> list[Path]:
    """Returns the Parquet files of an archive that are written to their end."""
    return sorted(output.glob("part-*.parquet"))


__all__ = ["BeatsActor", "Outcome", "process_with_ray"]
