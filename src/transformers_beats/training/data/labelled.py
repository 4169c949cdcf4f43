# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Datasets of labelled audio: crops for fine-tuning, windows for evaluation."""

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from accelerate import PartialState
from accelerate.utils import gather_object
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import DataLoader, Dataset

from transformers_beats.configuration_beats import BeatsConfig
from transformers_beats.fbank_beats import loudness_was_reported
from transformers_beats.feature_extraction_beats import BeatsFeatureExtractor
from transformers_beats.inference.windows import count_steps, find_silence, step_seconds
from transformers_beats.utils.errors import BeatsError

from .clips import Clips
from .crops import CropDataset
from .labels import Labels, frame_labels
from .reading import ItemReader
from .sources import DataArguments, decode_row


if TYPE_CHECKING:
    from transformers_beats.training.trainers.event_logits import EventLogits


class LabelledClips:
    """
    Targets of parts of clips, for a model of this `config`. With `as_indices`, a single class is an index instead of
    zeros and a one. Events may have targets of clips beside those of columns, by `with_clips`, and scores of a
    `teacher`, in as many further columns of labels. What is not known is NaN.
    """

    def __init__(
        self,
        labels: Labels,
        as_indices: bool,
        extractor: BeatsFeatureExtractor,
        config: BeatsConfig,
        with_clips: bool = False,
        teacher: "EventLogits | None" = None,
    ):
        self.labels, self.extractor, self.config = labels, extractor, config
        self.with_clips, self.teacher = with_clips, teacher
        self.targets = None if labels.task == "frames" else labels.as_array()
        if labels.task == "single_label" and not as_indices:
            self.targets = np.eye(len(labels.names), dtype=np.float32)[labels.as_array()]

    @property
    def column_seconds(self) -> float:
        """Time from one score of a frame-level model to the next, in seconds."""
        return step_seconds(self.config, self.extractor)

    def target(self, clip: int, start: int, num_samples: int, shift: int = 0) -> torch.Tensor:
        """
        Returns the target of the part of a clip that begins at sample `start`; of events, once it is rolled by `shift`
        samples.
        """
        if self.targets is not None:
            return torch.as_tensor(self.targets[clip])
        num_labels = len(self.labels.names)
        num_columns = count_steps(num_samples, self.config, self.extractor)
        rate = self.extractor.sampling_rate
        if self.labels.knows(clip) == "events":
            events, begin = self.labels.values[clip], start / rate
            if shift:
                events, begin = roll_events(events, begin, num_samples / rate, shift / rate), 0.0
            found = torch.from_numpy(frame_labels(events, num_labels, num_columns, self.column_seconds, start=begin))
            found[:, ~self.labels.is_known(clip)] = torch.nan
        else:
            found = torch.full((num_columns, num_labels), torch.nan)
        if self.teacher is None:
            return found
        scores = self.teacher.scores(clip, begin_seconds=start / rate, num_columns=num_columns)
        return torch.cat([found, torch.from_numpy(np.roll(scores, round(shift / rate / self.column_seconds), 0))], 1)

    def clip_target(self, clip: int, frames: torch.Tensor, is_whole: bool) -> torch.Tensor:
        """
        Returns the target of a part of a clip as one, `(num_labels,)`: classes of its columns `frames`; or those of
        the clip, of which a part that is not the whole may lack some.
        """
        num_labels = len(self.labels.names)
        knowledge = self.labels.knows(clip)
        if knowledge == "events":
            return frames[:, :num_labels].amax(dim=0)
        target = torch.zeros(num_labels)
        target[~self.labels.is_known(clip)] = torch.nan
        target[self.labels.classes_of(clip)] = 1.0 if is_whole else torch.nan
        return target


def roll_events(events: Sequence[tuple], start: float, seconds: float, shift: float) -> list[tuple]:
    """
    Returns the events of a part of a clip, class, onset, offset and length of the whole event, once it is rolled by
    `shift` seconds: one that reaches over its end goes on at its beginning. The part begins at `start` and lasts
    `seconds`.
    """
    rolled = []
    for label, onset, offset in events:
        whole = offset - onset
        onset, offset = max(onset - start, 0.0), min(offset - start, seconds)
        if onset >= offset:
            continue
        onset, offset = onset + shift, offset + shift
        if onset >= seconds:
            onset, offset = onset - seconds, offset - seconds
        if offset > seconds:
            rolled.append((label, 0.0, offset - seconds, whole))
        rolled.append((label, onset, min(offset, seconds), whole))
    return rolled


class TrainingCrops(CropDataset):
    """
    Crops of labelled clips, in every epoch, and whenever one is repeated in it, at other places. A place depends on
    the seed, the epoch, the crop and the number of its repetition only: random numbers of the process would depend on
    what a `DataLoader` has read ahead, and a training that was interrupted would go on with other ones.
    """

    def __init__(
        self, clips: Clips, targets: LabelledClips, arguments: DataArguments, seed: int = 0, rolls: bool = False
    ):
        super().__init__(clips, arguments, sampling_rate=targets.extractor.sampling_rate)
        self.targets, self.seed, self.rolls = targets, seed, rolls
        # Workers that live for several epochs see the same memory.
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()

    def set_epoch(self, epoch: int) -> None:
        """Sets the epoch, also for workers that live already."""
        self._epoch.fill_(epoch)

    @property
    def clip_of(self) -> np.ndarray:
        """Clip of each crop, `(num_crops,)`."""
        return np.repeat(np.arange(len(self.offsets) - 1), np.diff(self.offsets))

    @property
    def lengths(self) -> np.ndarray:
        """Samples of each crop, `(num_crops,)`."""
        return np.minimum(self.clips.num_samples, self.num_samples)[self.clip_of]

    def read_item(self, index: int, repetition: int = 0) -> dict[str, Any]:
        """
        Returns `waveform` `(num_samples,)`, float32, and `labels`, see [`LabelledClips`], with `clip_labels` if these
        are asked for. A crop that `rolls` is rolled in time with its events.
        """
        clip = self.clip_index(index)
        generator = np.random.default_rng([self.arguments.crop_seed, self.seed, int(self._epoch), index, repetition])
        start, waveform = self.decode_crop(clip, generator)
        shift = int(generator.integers(len(waveform))) if self.rolls and len(waveform) else 0
        labels = self.targets.target(clip, start, len(waveform), shift)
        item = {"waveform": np.roll(waveform, shift) if shift else waveform, "labels": labels}
        if self.targets.with_clips:
            is_whole = len(waveform) >= int(self.clips.num_samples[clip])
            item["clip_labels"] = self.targets.clip_target(clip, labels, is_whole)
        return item


class Windows(Dataset):
    """
    Windows of `crop_seconds`, one after another, that cover every clip, for evaluation. The rest at the end of a clip
    is a window as well if it lasts `min_seconds`, as is any whole window. Without `targets`, items have no labels.
    Their silence is found in `num_workers` processes.
    """

    def __init__(
        self,
        clips: Clips,
        arguments: DataArguments,
        extractor: BeatsFeatureExtractor,
        targets: LabelledClips | None = None,
        num_workers: int = 0,
    ):
        self.clips, self.targets, self.sampling_rate = clips, targets, extractor.sampling_rate
        self.num_workers = num_workers
        self.num_samples = round(arguments.crop_seconds * self.sampling_rate)
        # A whole window is one, also where shorter clips are skipped.
        shortest = max(1, min(self.num_samples, round(arguments.min_seconds * self.sampling_rate)))
        starts = [range(0, max(1, int(length) - shortest + 1), self.num_samples) for length in clips.num_samples]
        self.starts = np.concatenate([list(of_clip) for of_clip in starts])
        self.clip_of = np.repeat(np.arange(len(starts)), [len(of_clip) for of_clip in starts])
        # Metrics of other clips would be wrong ones.
        strict = replace(arguments, max_lost_share=0.0)
        self.reader = ItemReader(strict, len(self), lambda index: clips.names[int(self.clip_of[index])])

    def __len__(self) -> int:
        return len(self.starts)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.reader.read(self.read_item, int(index))

    def read_item(self, index: int) -> dict[str, Any]:
        """Returns `waveform` `(num_samples,)`, float32, and `labels` if there are targets."""
        clip, start = int(self.clip_of[index]), int(self.starts[index])
        waveform = decode_row(self.clips.dataset[clip], self.sampling_rate, start, self.num_samples)
        return {"waveform": waveform} if self.targets is None else {"waveform": waveform, "labels": self.target(index)}

    def target(self, index: int) -> torch.Tensor:
        """Returns the target of a window."""
        if self.targets is None:
            raise BeatsError("These clips have no labels.")
        clip, start = int(self.clip_of[index]), int(self.starts[index])
        return self.targets.target(clip, start, min(self.num_samples, int(self.clips.num_samples[clip]) - start))

    @cached_property
    def silent(self) -> list[np.ndarray]:
        """
        Scores of each window that are of digital silence, boolean `(num_columns,)`. All audio is read for it, by each
        process its share: all of them must ask.
        """
        state = PartialState()
        shares = [range(process, len(self), state.num_processes) for process in range(state.num_processes)]
        # Samples one by one: the last function is called by the workers.
        loader = DataLoader(
            self,
            batch_size=None,
            sampler=shares[state.process_index],
            collate_fn=self._find_silence,
            num_workers=self.num_workers,
        )
        # Of all processes, one after another.
        found = gather_object(list(loader))
        windows = [window for share in shares for window in share]
        return [silent for _, silent in sorted(zip(windows, found), key=lambda pair: pair[0])]

    @loudness_was_reported()
    def _find_silence(self, item: Any) -> np.ndarray:
        if self.targets is None:
            raise BeatsError("These clips have no labels.")
        extractor, config = self.targets.extractor, self.targets.config
        waveform = item["waveform"]
        values = extractor([waveform], sampling_rate=self.sampling_rate, return_tensors="pt")["input_values"]
        silent = find_silence(values, [waveform], extractor, config.frames_per_step)[0].numpy()
        # Of columns, a last one that is not whole has no score.
        return silent[: count_steps(len(waveform), config, extractor)]


def collate_waveforms(items: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
    """
    Pads waveforms, and the labels of frames, to the longest of a batch.

    Returns:
        `waveforms` `(batch_size, max_samples)`, float32; `num_samples` `(batch_size,)`; and `labels` and
        `clip_labels`, if the items have any.
    """
    waveforms = [torch.from_numpy(item["waveform"]) for item in items]
    batch = {
        "waveforms": pad_sequence(waveforms, batch_first=True),
        "num_samples": torch.tensor([len(waveform) for waveform in waveforms]),
    }
    if "labels" in items[0]:
        labels = [item["labels"] for item in items]
        batch["labels"] = pad_sequence(labels, batch_first=True) if labels[0].ndim == 2 else torch.stack(labels)
    if "clip_labels" in items[0]:
        batch["clip_labels"] = torch.stack([item["clip_labels"] for item in items])
    return batch
