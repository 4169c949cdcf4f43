# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""
Inference on recordings of any length, in windows.

Attention compares all pairs of patches, so a long recording goes through the model in windows of 10 s. Each window
begins at a column of patches of the recording, so that its columns are columns of the whole, and none is lost between
two windows. Decoding, inference and joining go on one batch at a time: memory does not grow with the length.
"""

import math
from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import partial
from itertools import count, groupby
from numbers import Integral, Real
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm.auto import tqdm
from transformers import PreTrainedModel
from transformers.utils import logging

from transformers_beats.audio.decoding import AudioStream, open_audio
from transformers_beats.backends.choice import Backend
from transformers_beats.backends.encoder import in_torch
from transformers_beats.fbank_beats import loudness_was_reported, num_fbank_samples
from transformers_beats.feature_extraction_beats import BeatsFeatureExtractor
from transformers_beats.utils.errors import BeatsError, UsageError, printable
from transformers_beats.utils.stages import current_times, stage

from .backend import in_backend
from .batching import Compute, Cut, fill_pool, make_batches, name_lack_of_memory
from .grains import Grain, Pooling, check_grain
from .kinds import REFUSED
from .layers import LayerReader, Layers, choose_layers, is_single, join_columns
from .loading import load
from .models import check_extractor, is_like_another, kind_of, reads_frames, unwrap, warn_if_emulated
from .results import ClipScores, Columns, WindowScores, to_scores
from .windows import (
    Window,
    column_samples,
    count_columns,
    cut_windows,
    find_silence,
    mean_of_rows,
    merge_windows,
    repeat_values,
    step_seconds,
)


logger = logging.get_logger(__name__)

_END = object()


def _raise_errors(results: Iterable[tuple[int, Window | Exception]]) -> Iterator[Window]:
    """Yields the windows of a recording, and raises its error in their place."""
    for _, result in results:
        if isinstance(result, Exception):
            raise result
        yield result


class WindowedInference:
    """
    Applies a model to recordings of any length, in windows of the same shape, several at once.

    A recording that fits into one window has the result of the model. A longer one has a result for each of its time
    columns, or of the steps that these consist of (`frame_pooling="sequence"`). Where windows overlap, results are
    averaged ([`merge_windows`]): probabilities and not logits, as in the evaluation of this package, since a mean of
    probabilities is a probability, and a single window cannot outweigh all others. Without overlap, only the last
    window shares columns with the one before it: it is as long as the others, since models do badly on short scraps.

    Several recordings ([`~WindowedInference.classify_many`] and others) share batches. Those shorter than a window are
    sorted by length for that, up to 8 batches of them at a time, and padded to the longest of their batch, by a
    quarter at most, with a mask: up to rounding, each has the result that it has alone. (Under the legacy mask, only
    windows of the same length share a batch.) Results come in the order of the recordings.

    The model stays on its device and in its dtype; it is put into evaluation mode. Compile it with `model.compile()`:
    all windows have the same shape, except that the last batch may be smaller and a recording shorter than a window
    has its own length.

    Args:
        model (`PreTrainedModel`):
            [`BeatsForAudioClassification`], [`BeatsForAudioFrameClassification`], [`BeatsModel`] or a tokenizer, also
            inside a wrapper of PEFT, `torch.compile` or PyTorch's parallelism.
        feature_extractor ([`BeatsFeatureExtractor`]):
            The model's.
        window_seconds (`float`, defaults to 10.0):
            Length of a window, cut down to whole columns: 10 s are 62 columns, 9.92 s, as for a clip of 10 s. Windows
            of a model with steps are not cut, and overlap by less than a column: 10 s are 250 steps.
        hop_seconds (`float`, *optional*):
            Time from the start of one window to that of the next, rounded to columns, at least one and at most the
            columns of a window. Defaults to `window_seconds`: no overlap. Half of that doubles the work.
        batch_size (`int`, defaults to 8):
            Windows in a batch.
        progress (`bool`, defaults to `False`):
            Whether to show a progress bar, in seconds of audio.
        backend (`str`, defaults to `"torch"`):
            What computes the encoder, see [`in_backend`]: `"torch"`, `"onnx"`, `"onnx-int8"` or `"auto"`.

    All methods take `audio` of any kind that [`open_audio`] opens, an array together with its `sampling_rate`. They
    raise [`AudioError`] for a file that cannot be used; a stream raises it at the damaged place. Methods for several
    recordings raise any error when the result of that recording is asked for, and go on with the next. A batch that
    does not fit into the memory is computed window by window; a window that does not fit alone is a `MemoryError` of
    its recording.

    Raises:
        [`UsageError`]: if a length or `batch_size` is out of range, or model and extractor do not fit.

    Example:

    ```python
    >>> inference = WindowedInference(model, feature_extractor, hop_seconds=5.0)  # doctest: +SKIP
    >>> clip = inference.classify("three_hours.flac")  # doctest: +SKIP
    >>> clip.scores.shape, clip.windows[0].end  # doctest: +SKIP
    ((527,), 9.92)
    ```
    """

    @classmethod
    def from_pretrained(
        cls, name: str | Path, device: str | None = None, dtype: str = "auto", **settings: Any
    ) -> "WindowedInference":
        """
        Loads a model and its feature extractor.

        Args:
            name (`str` or `Path`):
                Name of a released model ([`released.get`]), directory, or id on the Hub.
            device (`str`, *optional*):
                Name of a device, or `"auto"` for a GPU if there is one. Defaults to where `from_pretrained` puts it.
            dtype (`str`, defaults to `"auto"`):
                Precision; `"auto"` is the one that the model was saved in, or float32 on a CPU that emulates it.
            settings (`Any`):
                Further arguments of the class, such as `window_seconds`.

        Raises:
            [`BeatsError`]: if the model cannot be loaded, or a setting is out of range.
        """
        return cls(*load(name, device, dtype), **settings)

    def __init__(
        self,
        model: PreTrainedModel,
        feature_extractor: BeatsFeatureExtractor,
        window_seconds: float = 10.0,
        hop_seconds: float | None = None,
        batch_size: int = 8,
        progress: bool = False,
        backend: Backend = "torch",
    ):
        plain_model = unwrap(model)
        check_extractor(feature_extractor, plain_model)
        rate = feature_extractor.sampling_rate
        shortest = num_fbank_samples(feature_extractor.patch_size, rate)
        is_number = isinstance(window_seconds, Real) and math.isfinite(window_seconds * rate)
        if not is_number or round(window_seconds * rate) < shortest:
            raise UsageError(
                f"`window_seconds` must be finite and at least {shortest / rate}, a patch, got {window_seconds!r}."
            )
        hop_seconds = window_seconds if hop_seconds is None else hop_seconds
        if not isinstance(hop_seconds, Real) or not 0 < hop_seconds <= window_seconds:
            raise UsageError(
                f"`hop_seconds` must be positive and not exceed `window_seconds` ({window_seconds}), got "
                f"{hop_seconds!r}."
            )
        if not isinstance(batch_size, Integral) or batch_size < 1:
            raise UsageError(f"`batch_size` must be a whole number of at least 1, got {batch_size!r}.")
        warn_if_emulated(plain_model)
        # A wrapper, such as that of `torch.compile`, stays around the model where its output is asked for.
        self.model = in_backend(model, backend, float(window_seconds))
        self.plain_model = unwrap(self.model)
        # Where the choice was left open, PyTorch computes layers that the other backend does not give.
        self._layers_model = in_torch(plain_model) if backend == "auto" else self.plain_model
        self.feature_extractor = feature_extractor
        self.batch_size = batch_size
        self.progress = progress
        self.can_pad = not (feature_extractor.legacy_padding_mask or plain_model.config.legacy_padding_mask)
        self.column_seconds = column_samples(feature_extractor) / rate
        config, has_frames = plain_model.config, kind_of(plain_model) == "frames"
        # A clip-level model may read them as well.
        self.reads_steps = reads_frames(plain_model) and config.frame_pooling == "sequence"
        self.has_steps = has_frames and self.reads_steps
        if self.reads_steps and not self.can_pad:
            raise UsageError(
                "Steps of frames need the exact padding mask: set the extractor's `legacy_padding_mask=False`."
            )
        # The steps of 10 s are 250, also of the 160 ms after the last whole column: windows overlap there.
        self.window_samples = round(window_seconds * rate) if self.reads_steps else None
        # Of scores; those of a clip-level model are repeated for each column.
        self.frame_seconds = step_seconds(config, feature_extractor) if has_frames else self.column_seconds
        self.window_columns = count_columns(round(window_seconds * rate), feature_extractor)
        self.hop_columns = min(max(1, round(float(hop_seconds) / self.column_seconds)), self.window_columns)
        self.windows = (self.window_columns, self.hop_columns, self.window_samples)

    def classify(self, audio: Any, sampling_rate: int | None = None) -> ClipScores:
        """
        Scores of a whole recording, with a clip-level model: the mean over its columns, so that every moment counts
        once, however many windows cover it.
        """
        return self._to_clip_scores(self._recording(audio, sampling_rate, self._scores_of_clips))

    def classify_many(self, recordings: Iterable[Any], sampling_rate: int | None = None) -> Iterator[ClipScores]:
        """Scores of each of several recordings, see [`~WindowedInference.classify`]."""
        # A `map`, unlike a generator, goes on after an error.
        return map(self._to_clip_scores, self._recordings(recordings, sampling_rate, self._scores_of_clips))

    def stream_windows(self, audio: Any, sampling_rate: int | None = None) -> Iterator[WindowScores]:
        """Scores of each window, with a clip-level model, as soon as they are known."""
        return map(self._to_window_scores, self._recording(audio, sampling_rate, self._scores_of_clips))

    def frames(self, audio: Any, sampling_rate: int | None = None) -> Columns:
        """Scores `(num_columns, num_labels)` of all time columns; see [`~WindowedInference.stream_frames`]."""
        return Columns.join(self.stream_frames(audio, sampling_rate))

    def stream_frames(self, audio: Any, sampling_rate: int | None = None) -> Iterator[Columns]:
        """
        Scores `(num_columns, num_labels)` of time columns, block by block. A clip-level model gives all columns of a
        window the window's scores: short hops then make a timeline. A frame-level model with steps has a row for each
        step, and `column_seconds` of the blocks is its length, 0.04.
        """
        return self._to_columns(self._recording(audio, sampling_rate, self._frame_scores), self.frame_seconds)

    def stream_frames_many(
        self, recordings: Iterable[Any], sampling_rate: int | None = None
    ) -> Iterator[Iterator[Columns]]:
        """[`~WindowedInference.stream_frames`] of each of several recordings: read one before you ask for the next."""
        to_columns = partial(self._to_columns, seconds=self.frame_seconds)
        return map(to_columns, self._recordings(recordings, sampling_rate, self._frame_scores))

    def embed(
        self,
        audio: Any,
        sampling_rate: int | None = None,
        layers: Layers | None = None,
        grain: Grain = "clip",
        pooling: Pooling = "mean",
    ) -> np.ndarray:
        """
        Embeddings of a recording: means of the hidden states of the encoder of any model.

        Args:
            audio, sampling_rate:
                See the class.
            layers (`int`, `str`, `slice` or `Sequence[int]`, *optional*):
                Layers as in `hidden_states`: 0 is the input of the first layer, -1 the last. Several, also as `"-4:"`,
                `"2,5,8"` or `"all"`. Layers above them are not computed. Defaults to the last.
            grain (`str`, defaults to `"clip"`):
                `"clip"`: one vector, the mean over all patches. `"band"`: one for each frequency band, the mean over
                time. `"column"`: one for each 160 ms, the mean over its bands. `"patch"`: one for each patch, by time
                and then by frequency, as in `last_hidden_state`: 50 for each second.
            pooling (`str`, defaults to `"mean"`):
                `"concat"` puts the bands of a clip or of a column one after another, in the place of their mean.

        Returns:
            `np.ndarray`, float32: `(hidden_size,)`, `(num_freq_patches, hidden_size)`, `(num_columns, hidden_size)` or
            `(num_patches, hidden_size)`; with `"concat"`, the last axis is `num_freq_patches * hidden_size`. Several
            layers are a first axis more, in their order.

        Raises:
            [`UsageError`]: if there is no such layer, grain or pooling, or the model has no encoder.
        """
        check_grain(grain, pooling)
        read = self._layer_reader(layers)
        return join_columns(
            self._to_columns(self._recording(audio, sampling_rate, read)), grain, pooling, is_single(layers)
        )

    def embed_many(
        self,
        recordings: Iterable[Any],
        sampling_rate: int | None = None,
        layers: Layers | None = None,
        grain: Grain = "clip",
        pooling: Pooling = "mean",
    ) -> Iterator[np.ndarray]:
        """Embeddings of each of several recordings, see [`~WindowedInference.embed`]."""
        check_grain(grain, pooling)
        join = partial(join_columns, grain=grain, pooling=pooling, single=is_single(layers))
        read = self._layer_reader(layers)
        return map(join, map(self._to_columns, self._recordings(recordings, sampling_rate, read)))

    def stream_embeddings(
        self, audio: Any, sampling_rate: int | None = None, layers: Layers | None = None
    ) -> Iterator[Columns]:
        """
        Hidden states of the encoder of any model, block by block: `(num_columns, num_freq_patches, hidden_size)`,
        float32, of the last layer or one other; of several `layers`, see [`~WindowedInference.embed`], `(num_columns,
        num_layers, num_freq_patches, hidden_size)`. A column's embedding is the mean over its patches, or their
        concatenation.
        """
        read = self._layer_reader(layers)
        return self._without_axis(self._to_columns(self._recording(audio, sampling_rate, read)), layers)

    def stream_embeddings_many(
        self, recordings: Iterable[Any], sampling_rate: int | None = None, layers: Layers | None = None
    ) -> Iterator[Iterator[Columns]]:
        """[`~WindowedInference.stream_embeddings`] of each of several: read one before you ask for the next."""
        blocks = map(self._to_columns, self._recordings(recordings, sampling_rate, self._layer_reader(layers)))
        return map(partial(self._without_axis, layers=layers), blocks)

    def _without_axis(self, blocks: Iterator[Columns], layers: Layers | None) -> Iterator[Columns]:
        """Leaves out the axis of a single layer."""
        return (replace(block, values=block.values[:, 0]) if is_single(layers) else block for block in blocks)

    def codes(self, audio: Any, sampling_rate: int | None = None) -> Columns:
        """Acoustic tokens `(num_columns, num_freq_patches[, num_codebooks])`, int64, with a tokenizer."""
        return Columns.join(self.stream_codes(audio, sampling_rate))

    def codes_many(self, recordings: Iterable[Any], sampling_rate: int | None = None) -> Iterator[Columns]:
        """Acoustic tokens of each of several recordings, with a tokenizer."""
        return map(
            Columns.join, map(self._to_columns, self._recordings(recordings, sampling_rate, Compute(self._codes)))
        )

    def stream_codes(self, audio: Any, sampling_rate: int | None = None) -> Iterator[Columns]:
        """[`~WindowedInference.codes`], block by block."""
        return self._to_columns(self._recording(audio, sampling_rate, Compute(self._codes)))

    def _to_columns(self, windows: Iterator[Window], seconds: float | None = None) -> Iterator[Columns]:
        seconds = self.column_seconds if seconds is None else seconds
        # Of columns that were not yielded yet, the first of which is `begin`.
        silent, begin = np.zeros(0, dtype=bool), 0

        def spread(window: Window) -> tuple[int, np.ndarray]:
            nonlocal silent
            silent = np.concatenate([silent, window.silent[begin + len(silent) - window.first :]])
            return repeat_values(window)

        for first, values in merge_windows(map(spread, windows)):
            yield Columns(values, first, seconds, silent[: len(values)])
            silent, begin = silent[len(values) :], first + len(values)

    def _to_window_scores(self, window: Window) -> WindowScores:
        start = window.first * self.column_seconds
        return WindowScores(window.values, start, start + window.num_columns * self.column_seconds)

    def _to_clip_scores(self, windows: Iterator[Window]) -> ClipScores:
        joined = list(windows)
        scores = mean_of_rows(values for _, values in merge_windows(map(repeat_values, joined)))
        return ClipScores(scores, [self._to_window_scores(window) for window in joined])

    def _open(self, audio: Any, sampling_rate: int | None) -> AudioStream:
        return open_audio(audio, self.feature_extractor.sampling_rate, sampling_rate)

    def _recording(self, audio: Any, sampling_rate: int | None, compute: Compute) -> Iterator[Window]:
        """Opens a recording at once, so that a missing file is an error here, and returns its windows."""
        return _raise_errors(self._results([self._open(audio, sampling_rate)], None, compute))

    def _recordings(
        self, recordings: Iterable[Any], sampling_rate: int | None, compute: Compute
    ) -> Iterator[Iterator[Window]]:
        """Yields the windows of each recording, to be read before those of the next."""
        for _, results in groupby(self._results(recordings, sampling_rate, compute), key=itemgetter(0)):
            yield _raise_errors(results)

    def _results(
        self, recordings: Iterable[Any], sampling_rate: int | None, compute: Compute
    ) -> Iterator[tuple[int, Window | Exception]]:
        """Yields the results of all windows, in order, with the number of the recording; none after its error."""
        self.model.eval()
        failed: set[int] = set()
        num_columns = 0
        with tqdm(total=0, unit="s", disable=not self.progress) as bar:
            cuts = self._cut(recordings, sampling_rate, failed, bar)
            while pool := fill_pool(cuts, self.batch_size, self.window_columns):
                results: dict[int, Any] = {i: cut.error for i, cut in enumerate(pool) if cut.error is not None}
                for batch in make_batches(pool, self.batch_size, self.can_pad):
                    results |= zip(batch, self._compute_batch([pool[index] for index in batch], compute))
                    num_columns += sum(pool[index].num_new for index in batch)
                    bar.update(round(num_columns * self.column_seconds) - bar.n)
                for index, cut in enumerate(pool):
                    if cut.recording not in failed:
                        if isinstance(results[index], Exception):
                            failed.add(cut.recording)
                        yield cut.recording, results[index]

    def _cut(self, recordings: Iterable[Any], sampling_rate: int | None, failed: set[int], bar: tqdm) -> Iterator[Cut]:
        """Yields the windows of one recording after the other, and any error of a recording in its place."""
        items = iter(recordings)
        for index in count():
            name, covered = "", 0
            try:
                if (audio := next(items, _END)) is _END:
                    return
                stream = self._open(audio, sampling_rate)
                name = stream.name
                is_known = bar.total is not None and stream.seconds is not None
                bar.total = bar.total + round(stream.seconds) if is_known else None
                bar.set_description(printable(Path(name).name))
                sizes = self.window_columns, self.hop_columns, self.window_samples
                for first, waveform in cut_windows(stream.blocks, self.feature_extractor, *sizes):
                    if index in failed:
                        break
                    num_columns = count_columns(len(waveform), self.feature_extractor)
                    yield Cut(index, name, first, num_columns, first + num_columns - covered, waveform)
                    covered = first + num_columns
            except Exception as error:  # raised when the result of this recording is asked for
                yield Cut(index, name, error=error)

    def _compute_batch(self, cuts: list[Cut], compute: Compute) -> list[Window | Exception]:
        """Computes the windows of a batch, one by one after an error, so that it is that of one window."""
        try:
            rows, silent = self._compute(cuts, compute)
            return [self._to_window(cut, row, mask, compute) for cut, row, mask in zip(cuts, rows, silent)]
        except (ValueError, RuntimeError, MemoryError) as error:
            failure = name_lack_of_memory(error, cuts[0].name, cuts[0].num_columns * self.column_seconds)
        # Outside of the `except`, which would keep the tensors of the batch. A window that fails must not fail the
        # others, and one alone may fit into the memory.
        return [failure] if len(cuts) == 1 else [self._compute_batch([cut], compute)[0] for cut in cuts]

    def _to_window(self, cut: Cut, row: np.ndarray, silent: np.ndarray, compute: Compute) -> Window | BeatsError:
        """Returns the model's values for a window, of columns or of the whole, without those of padding."""
        num_columns = compute.count_rows(cut, self.plain_model.config, self.feature_extractor)
        # Windows begin at a column, and a column has a whole number of steps.
        first = cut.first * round(self.column_seconds / self.frame_seconds) if compute.is_of_steps else cut.first
        values = row[:num_columns] if row.ndim > 1 else row
        if np.isfinite(values).all():
            return Window(first, num_columns, values, silent[:num_columns])
        return BeatsError(
            f"{cut.name}: the model's output in {self.plain_model.dtype} is not finite: its training has diverged, or "
            "its precision is too low."
        )

    # Not around a `yield`, which would leave the mode on for the reader of the stream.
    @torch.inference_mode()
    @loudness_was_reported()
    def _compute(self, cuts: list[Cut], compute: Compute) -> tuple[np.ndarray, np.ndarray]:
        """Runs `compute` on windows, the shortest first; and finds their columns of silence."""
        extractor, device, waveforms = self.feature_extractor, self.plain_model.device, [cut.waveform for cut in cuts]
        extract = partial(extractor, sampling_rate=extractor.sampling_rate, return_tensors="pt", device=device)
        with stage("fbank"):
            if self.can_pad:
                inputs = extract(waveforms, padding=True, return_attention_mask=True)
            else:
                # Each as it is alone: under the legacy rule, samples that are padded change the mask.
                num_frames = cuts[0].num_columns * extractor.patch_size
                values = torch.cat([extract([waveform])["input_values"][:, :num_frames] for waveform in waveforms])
                inputs = {"input_values": values, "attention_mask": torch.ones_like(values[..., 0], dtype=torch.long)}
            if current_times() is not None and device.type == "cuda":
                # Kernels that were only queued would count for the model.
                torch.cuda.synchronize(device)
        # Without padding, attention without a mask is faster.
        lengths = {compute.length(cut, self.plain_model.config, extractor) for cut in cuts}
        has_mask = (self.can_pad and len(lengths) > 1) or is_like_another(extractor)
        with stage("model"):
            values = compute.function(inputs["input_values"], inputs["attention_mask"] if has_mask else None)
            frames = self.plain_model.config.frames_per_step if compute.is_of_steps else None
            silent = find_silence(inputs["input_values"], waveforms, extractor, frames).cpu().numpy()
            return (values.float() if values.is_floating_point() else values).cpu().numpy(), silent

    def _output(self, input_values: torch.Tensor, attention_mask: torch.Tensor | None, name: str) -> torch.Tensor:
        # By their names: wrappers of PEFT for a task have another first parameter.
        inputs = {"input_values": input_values, "attention_mask": attention_mask}
        output = getattr(self.model(**inputs, return_dict=True), name, None)
        if output is None:
            raise UsageError(f"A {type(self.plain_model).__name__} gives no {name}: load a model that does.")
        return output

    def _scores(self, input_values: torch.Tensor, attention_mask: torch.Tensor | None) -> torch.Tensor:
        return to_scores(self._output(input_values, attention_mask, "logits"), self.plain_model.config)

    @property
    def _frame_scores(self) -> Compute:
        return Compute(self._scores, self.has_steps, self.reads_steps)

    @property
    def _scores_of_clips(self) -> Compute:
        return Compute(self._clip_scores, reads_steps=self.reads_steps)

    def _clip_scores(self, input_values: torch.Tensor, attention_mask: torch.Tensor | None) -> torch.Tensor:
        scores = self._scores(input_values, attention_mask)
        if scores.ndim == 3:
            raise UsageError(f"A {type(self.plain_model).__name__} gives scores of time columns: use `frames`.")
        return scores

    def _codes(self, input_values: torch.Tensor, attention_mask: torch.Tensor | None) -> torch.Tensor:
        return self._output(input_values, attention_mask, "audio_codes")

    def _layer_reader(self, layers: Layers | None) -> Compute:
        encoder: Any = self.plain_model.base_model
        if kind_of(encoder) != "encoder":
            raise UsageError(f"A {type(self.plain_model).__name__} {REFUSED['embeddings'].reason}")
        num_layers = encoder.config.num_hidden_layers
        chosen = choose_layers(-1 if layers is None else layers, num_layers)
        return Compute(LayerReader(encoder if chosen == [num_layers] else self._layers_model.base_model, chosen))

    def check_layers(self, layers: Layers | None) -> None:
        """Raises a [`UsageError`] for layers that do not exist, or that the backend does not give."""
        self._layer_reader(layers)


__all__ = ["WindowedInference"]
