# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""
Tables of recordings in, tables of results out: for what processes data in batches of rows, such as Ray Data,
`datasets` and Spark. A recording that cannot be used is a row with its error, and stops no other.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args

import numpy as np
import pyarrow as pa

from transformers_beats.audio.decoding import AudioReport, AudioStream, open_audio
from transformers_beats.inference.event_options import EVENT_WINDOW_PARAMETERS, check_event_options, wants_events
from transformers_beats.inference.grains import check_grain
from transformers_beats.inference.layers import is_single
from transformers_beats.inference.loading import check_model, load, place_of_model
from transformers_beats.inference.pipeline import PARAMETERS, BeatsAudioTaggingPipeline
from transformers_beats.inference.results import Columns
from transformers_beats.inference.windowed import WindowedInference
from transformers_beats.utils.errors import FOREIGN_ERRORS, BeatsError, UsageError, did_you_mean, first_line
from transformers_beats.utils.fingerprint import model_fingerprint


if TYPE_CHECKING:
    import pandas

Action: TypeAlias = Literal["tag", "embed", "tokenize"]
USES: dict[str, Any] = {"tag": "labels", "embed": "embeddings", "tokenize": "tokens"}
LABEL = pa.struct({"label": pa.string(), "score": pa.float32()})
EVENT = pa.struct({"label": pa.string(), "score": pa.float32(), "start": pa.float64(), "end": pa.float64()})
# What is known of each recording besides its results. `error` is null if it could be used.
COMMON = {"duration": pa.float64(), "warnings": pa.list_(pa.string()), "error": pa.string()}
# Parameters of the pipeline that change nothing here: arguments of their own take their place, and a recording is
# opened before the pipeline has it.
NO_OPTIONS = ("sampling_rate", "window_seconds", "hop_seconds", "windows_per_batch")
OPTIONS: dict[str, tuple[str, ...]] = {
    "tag": ("backend", *(name for name in PARAMETERS if name not in NO_OPTIONS)),
    "embed": ("layers", "grain", "pooling"),
    "tokenize": (),
}


def _to_tokens(columns: Columns) -> np.ndarray:
    return columns.values.astype(np.int32)


def to_utf8(text: str) -> str:
    """Returns a text that UTF-8 holds: bytes of a file name that are not UTF-8 are written as by `repr`, `\\udcff`."""
    return text.encode(errors="backslashreplace").decode()


def is_text(kind: pa.DataType) -> bool:
    """Returns whether a column is of texts; one of nulls alone counts as such."""
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    return str(kind) in ("string", "large_string", "string_view", "null")


def _to_arrow(values: Any) -> pa.Array:
    """Returns a column of a mapping, of any number of axes, as an array of its type."""
    values = values if isinstance(values, np.ndarray) else np.fromiter(values, dtype=object, count=len(values))
    if values.dtype == object:
        items = values.tolist()
        # Arrow takes arrays of one axis.
        items = [item.tolist() if isinstance(item, np.ndarray) and item.ndim > 1 else item for item in items]
        return pa.array([to_utf8(item) if isinstance(item, str) else item for item in items])
    column = pa.array(values.astype(values.dtype.newbyteorder("="), copy=False).reshape(-1))
    for axis in range(values.ndim - 1, 0, -1):
        offsets = np.arange(math.prod(values.shape[:axis]) + 1, dtype=np.int32) * values.shape[axis]
        column = pa.ListArray.from_arrays(offsets, column)
    return column


def is_of_datasets(batch: Any) -> bool:
    """Returns whether a batch is a mapping of `datasets`, which makes lists of the columns of a table on demand."""
    # The class itself would import `datasets`, which Ray and Spark do without.
    return hasattr(batch, "pa_table") and hasattr(batch, "keys_to_format")


def as_table(batch: Any) -> pa.Table:
    """Returns the table of such a mapping. A column that was read or set has the values that it has by now."""
    untouched = batch.keys_to_format
    return pa.table({name: batch.pa_table[name] if name in untouched else _to_arrow(batch[name]) for name in batch})


class BeatsBatches:
    """
    Tags, embeds or tokenizes the recordings of a batch of rows.

    Args:
        model (`str`):
            Name, directory or Hub id of a model. It is loaded once, where the object is made.
        action (`str`, defaults to `"tag"`):
            `"tag"`, `"embed"` or `"tokenize"`.
        column (`str`, defaults to `"path"`):
            Column of the recordings, of any kind that [`open_audio`] opens: paths, contents of files, or the structs
            of an `Audio` column of `datasets` that is not decoded. It is passed on if it is of texts: in a table by
            its type, in other batches if each value is a text or missing.
        device, dtype (`str`, defaults to `"auto"`):
            See [`WindowedInference.from_pretrained`].
        window_seconds, hop_seconds, batch_size:
            See [`WindowedInference`].
        options (`Any`):
            Of `"tag"`, those of [`BeatsAudioTaggingPipeline`], such as `top_k` and `return_events`, which options of
            events imply; of `"embed"`, `layers`, `grain` and `pooling` of [`WindowedInference.embed`].

    Raises:
        [`UsageError`]: if an argument is out of range, the action has no such option or would not look at it, or the
            model does not fit the action.
        [`BeatsError`]: if the model cannot be loaded.

    Called with a batch, a `pyarrow.Table`, a `pandas.DataFrame`, or a mapping of columns, it returns all rows in
    their order, with these columns more: `duration`, float64, in seconds; `warnings`, texts; `error`, a text, or null
    for a recording that could be used, all other columns of which are null then; and

    - `"tag"`: `labels`, structs of `label` and `score`, float32, the highest first; with events, also `events`, which
      have `start` and `end` in seconds;
    - `"embed"`: `embedding`, float32: a list or, for several layers or vectors, lists of lists;
    - `"tokenize"`: `tokens`, int32: a list for each 160 ms, of a token for each frequency band.

    A table gives a table, a frame a frame, and a mapping of lists one of lists, both of Python's objects. The mapping
    that `datasets.map` passes gives a table, too, with all columns of the dataset, so that all batches have the same
    types, whatever is missing in them; that of arrays, as of Ray, a table whose columns keep the types of the arrays.
    There, and in warnings and errors, bytes of the name of a file that are not UTF-8 are written as `repr` does, such
    as `\\udcff`.

    Example:

    ```python
    >>> tagger = BeatsBatches("beats-finetuned", top_k=1)  # doctest: +SKIP
    >>> tagger({"path": ["clip.wav", "missing.wav"]})["error"]  # doctest: +SKIP
    [None, 'missing.wav: no such file.']
    ```
    """

    def __init__(
        self,
        model: str,
        action: Action = "tag",
        column: str = "path",
        device: str = "auto",
        dtype: str = "auto",
        window_seconds: float = 10.0,
        hop_seconds: float | None = None,
        batch_size: int = 8,
        **options: Any,
    ):
        if action not in get_args(Action):
            raise UsageError(f"`action` must be one of {', '.join(get_args(Action))}, got {action!r}.")
        if unknown := [name for name in options if name not in OPTIONS[action]]:
            raise UsageError(f"{action} has no option {unknown[0]!r}{did_you_mean(unknown[0], OPTIONS[action])}")
        check_event_options(options)
        check_model(model, USES[action])
        self.action, self.column = action, column
        loaded, extractor = load(model, device, dtype)
        # Of the weights, too: `datasets` keeps results under a digest of what is pickled.
        self.fingerprint = model_fingerprint(loaded, extractor)
        self.arguments = {
            "model": place_of_model(model),
            "action": action,
            "column": column,
            "device": device,
            "dtype": dtype,
            "window_seconds": window_seconds,
            "hop_seconds": hop_seconds,
            "batch_size": batch_size,
            **options,
        }
        self.sampling_rate = extractor.sampling_rate
        self.fields: dict[str, pa.DataType] = {}
        if action == "tag":
            tagger = BeatsAudioTaggingPipeline(
                model=loaded,
                feature_extractor=extractor,
                device=loaded.device,
                window_seconds=window_seconds,
                hop_seconds=hop_seconds,
                batch_size=batch_size,
                **options,
            )
            given = {name: options[name] for name in EVENT_WINDOW_PARAMETERS if name in options}
            windows: dict[str, Any] = {"window_seconds": window_seconds, "hop_seconds": hop_seconds, **given}
            # Those of the labels and, if they are others, of the events.
            self.inferences = tagger.inferences(wants_events(options), **windows)
            self.fields["labels"] = pa.list_(LABEL)
            if wants_events(options):
                self.fields["events"] = pa.list_(EVENT)
            self.compute: Callable[[Iterator[AudioStream]], Iterator[Any]] = lambda streams: tagger(
                streams, batch_size=batch_size
            )
            return
        inference = WindowedInference(loaded, extractor, window_seconds, hop_seconds, batch_size)
        self.inferences = [inference]
        if action == "tokenize":
            self.fields["tokens"] = _list_of(pa.int32(), 2 + (loaded.config.num_codebooks > 1))
            # A `map`, unlike a generator, goes on after an error.
            self.compute = lambda streams: map(_to_tokens, inference.codes_many(streams))
            return
        grain, layers = options.get("grain", "clip"), options.get("layers")
        check_grain(grain, options.get("pooling", "mean"))
        # Fails for a layer that is not there.
        inference.embed_many([], layers=layers)
        depth = (1 if grain == "clip" else 2) + (not is_single(layers))
        self.fields["embedding"] = _list_of(pa.float32(), depth)
        self.compute = lambda streams: inference.embed_many(streams, **options)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickles the arguments: another process loads the model again."""
        return _make, (type(self), self.arguments, self.fingerprint)

    def __call__(
        self, batch: "pa.Table | pandas.DataFrame | Mapping[str, Any]"
    ) -> "pa.Table | pandas.DataFrame | dict[str, list]":
        """
        Computes the results of a batch; raises a [`UsageError`] if it has no column of recordings, or has one of the
        name of a result.
        """
        # pandas is needed by whoever has a frame.
        frame: Any = batch if hasattr(batch, "iloc") else None
        keeps_all = is_of_datasets(batch)
        table = as_table(batch) if keeps_all else batch if isinstance(batch, pa.Table) else None
        names = list(batch) if table is None else table.column_names
        if self.column not in names:
            raise UsageError(f"The batch has no column {self.column!r}; it has {', '.join(map(str, names))}.")
        values: Any = (batch if table is None else table)[self.column]
        if table is not None:
            recordings, is_passed_on = values.to_pylist(), is_text(values.type)
        else:
            # Frames have several values that stand for a missing one.
            recordings = list(values if frame is None else values.astype(object).where(values.notna(), None))
            is_passed_on = all(item is None or isinstance(item, str) for item in recordings)
        kept = [name for name in names if name != self.column or is_passed_on or keeps_all]
        if taken := [name for name in (*self.fields, *COMMON) if name in kept]:
            raise UsageError(
                f"The batch has a column {taken[0]!r}, which is the name of a result: rename or remove it before."
            )
        found = self.results(recordings)
        if frame is not None:
            return frame[kept].assign(**{name: column.to_pylist() for name, column in found.items()})
        if table is None and not isinstance(values, np.ndarray):
            return {name: list(batch[name]) for name in kept} | {n: column.to_pylist() for n, column in found.items()}
        if table is None:
            return pa.table({name: _to_arrow(batch[name]) for name in kept} | found)
        table = table.select(kept)
        for name, column in found.items():
            table = table.append_column(name, column)
        return table

    def results(self, recordings: list[Any]) -> dict[str, pa.Array]:
        """Returns the columns of results for recordings, each as long as they are."""
        reports: dict[int, AudioReport] = {}

        def open_one(item: tuple[int, Any]) -> AudioStream:
            number, recording = item
            stream = self.open(recording)
            stream.report.is_logged = False
            reports[number] = stream.report
            return stream

        rows: list[dict[str, Any]] = []
        results = self.compute(map(open_one, enumerate(recordings)))
        for number in range(len(recordings)):
            try:
                result = next(results)
                report = reports.pop(number)
                row = {"duration": report.seconds, "warnings": list(map(to_utf8, report.warnings)), "error": None}
                rows.append(row | self._as_row(result))
            except FOREIGN_ERRORS as error:
                rows.append({"error": to_utf8(first_line(error))})
        fields = self.fields | COMMON
        return {name: pa.array([row.get(name) for row in rows], field) for name, field in fields.items()}

    def open(self, recording: Any) -> AudioStream:
        """Opens a recording of a batch."""
        return open_audio(recording, self.sampling_rate)

    def _as_row(self, result: Any) -> dict[str, Any]:
        if self.action != "tag":
            return {next(iter(self.fields)): result.tolist()}
        return result if isinstance(result, dict) else {"labels": result}


def _list_of(field: pa.DataType, depth: int) -> pa.DataType:
    """Returns the type of lists of lists of a type, as deep as this."""
    for _ in range(depth):
        field = pa.list_(field)
    return field


def _make(kind: type[BeatsBatches], arguments: dict[str, Any], fingerprint: str) -> BeatsBatches:
    made = kind(**arguments)
    if made.fingerprint != fingerprint:
        raise BeatsError(f"{arguments['model']}: is another model than where it was pickled.")
    return made


__all__ = ["Action", "BeatsBatches"]
