# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""
Mean and standard deviation of a dataset's fbank, stored in a feature extractor for all that follows.

Example:

    transformers-beats fbank-statistics --dataset FOLDER --output_dir EXTRACTOR
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from transformers_beats.feature_extraction_beats import BeatsFeatureExtractor
from transformers_beats.training.config.recipes import parse_arguments
from transformers_beats.training.data.clips import Clips
from transformers_beats.training.data.crops import CropDataset, fbank_statistics
from transformers_beats.training.data.mixing import corpus_of_items, mixture_sampler
from transformers_beats.training.data.sources import DataArguments
from transformers_beats.utils.arguments import argument, check_numbers
from transformers_beats.utils.errors import BeatsError, run_command
from transformers_beats.utils.files import check_new, new_directory
from transformers_beats.utils.messages import next_command, note
from transformers_beats.utils.numbers import format_number

from .compute_codes import DECISIVE_CROP_SETTINGS, crop_words
from .stages import on_main_process, prepare_dataset, process_state, read_origin, write_origin


# Crops of each of several datasets, for its own statistics.
NUM_CROPS_OF_SOURCE = 300
# Of the sample.
SEED = 0


@dataclass
class StatisticsArguments:
    """Size of the sample, and directory of the feature extractor."""

    output_dir: str = argument("Directory of the feature extractor.")
    num_clips: int = argument("Number of crops to read, at most.", 10_000, min=1)

    def __post_init__(self):
        check_numbers(self)


def compute_statistics(arguments: StatisticsArguments, data: DataArguments) -> BeatsFeatureExtractor:
    """
    Writes a feature extractor with the statistics of the data, and returns it. Every process has to call this, as they
    prepare the clips together; one computes and writes.

    Raises:
        [`BeatsError`]: a streamed dataset, an output directory that exists, no crop that is as long as a frame, or
            fbanks that are all alike; of one of several datasets, too. Nothing is written then.
    """
    output_dir = Path(arguments.output_dir)
    if data.streaming:
        raise BeatsError("The statistics are those of a random sample: set `streaming: false`.")
    check_new(output_dir)
    extractor = BeatsFeatureExtractor()
    clips, state = prepare_dataset(data, extractor.sampling_rate), process_state()
    if state.is_main_process:
        _write_statistics(arguments, data, clips)
    state.wait_for_everyone()
    return BeatsFeatureExtractor.from_pretrained(output_dir)


def _write_statistics(arguments: StatisticsArguments, data: DataArguments, clips: Clips) -> None:
    """Computes the statistics, and writes and prints them."""
    output_dir, extractor = Path(arguments.output_dir), BeatsFeatureExtractor()
    crops = CropDataset(clips, data)
    sampler = mixture_sampler(crops, seed=SEED)
    # With shares, of an epoch: a repetition counts as often as it is drawn.
    items = None if sampler is None else list(sampler)
    mean, std = fbank_statistics(crops, extractor, arguments.num_clips, SEED, items)
    extractor = BeatsFeatureExtractor(fbank_mean=mean, fbank_std=std)
    lines = describe_sources(crops, extractor) if len(data.sources) > 1 else []
    with new_directory(output_dir) as new:
        extractor.save_pretrained(new)
        write_origin(new, describe_sample(crops) | {"num_clips": arguments.num_clips, "seed": SEED})
    for line in lines:
        print(line)
    print(
        f"{output_dir}: fbank mean {mean:.5f}, standard deviation {std:.5f}, from at most "
        f"{format_number(arguments.num_clips)} crops"
    )


def describe_sample(crops: CropDataset) -> dict[str, Any]:
    """Returns what the data decide of the statistics: clips, crops, and shares of several datasets."""
    names = (*DECISIVE_CROP_SETTINGS, "dataset_weights", "dataset_temperature")
    return {"clips": crops.description, **{name: getattr(crops.arguments, name) for name in names}}


def find_change(directory: Path, data: DataArguments) -> str | None:
    """
    Compares the data with those whose statistics the feature extractor of a directory has. Every process has to call
    this, as they prepare the clips together.

    Returns:
        `str`: the first difference; None if there is none, or if nobody knows of which data the statistics are.
    """
    stored = on_main_process(lambda: read_origin(directory))
    if "clips" not in stored:
        return None
    clips = prepare_dataset(data, BeatsFeatureExtractor().sampling_rate)

    def compare() -> str | None:
        for name, value in describe_sample(CropDataset(clips, data)).items():
            if stored.get(name) != value:
                return f"`{name}` was {stored.get(name)}, and is {value}"
        return None

    return on_main_process(compare)


def describe_sources(crops: CropDataset, extractor: BeatsFeatureExtractor) -> list[str]:
    """Returns a line for each of several datasets: number of its crops, and statistics of a sample of them."""
    of_items, lines = corpus_of_items(crops), []
    for number, source in enumerate(crops.arguments.sources):
        items = np.flatnonzero(of_items == number)
        if not len(items):
            lines.append(f"{source}: no clip that can be used")
            continue
        try:
            mean, std = fbank_statistics(crops, extractor, NUM_CROPS_OF_SOURCE, items=items)
        except BeatsError as error:
            raise BeatsError(f"{source}: {error}") from error
        sample = format_number(min(len(items), NUM_CROPS_OF_SOURCE))
        of_all = f"{sample} of {format_number(len(items))} crops"
        lines.append(f"{source}: fbank mean {mean:.5f}, standard deviation {std:.5f}, from {of_all}")
    return lines


def main(argv: list[str] | None = None) -> None:
    """Runs the command with the words of `argv`; by default those of the command line."""
    arguments, data = parse_arguments((StatisticsArguments, DataArguments), argv, __doc__)
    compute_statistics(arguments, data)
    words = ["iterate", "--config", "folder_iterate", "--feature_extractor", arguments.output_dir]
    if process_state().is_main_process:
        note(next_command(*words, *crop_words(data, "data."), "--output_dir", "RUN"))


if __name__ == "__main__":
    run_command(main)
