# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""
Mean and standard deviation of a dataset's fbank, stored in a feature extractor for all that follows.

Example:

    transformers-beats fbank-statistics --dataset FOLDER --output_dir EXTRACTOR
"""

from dataclasses import dataclass
from pathlib import Path

from transformers_beats.feature_extraction_beats import BeatsFeatureExtractor
from transformers_beats.training.config.recipes import parse_arguments
from transformers_beats.training.data.crops import CropDataset, fbank_statistics
from transformers_beats.training.data.sources import DataArguments
from transformers_beats.utils.arguments import argument, check_numbers
from transformers_beats.utils.errors import BeatsError, run_command
from transformers_beats.utils.files import check_new, new_directory
from transformers_beats.utils.messages import next_command, note
from transformers_beats.utils.numbers import format_number

from .compute_codes import crop_words
from .stages import prepare_dataset


@dataclass
class StatisticsArguments:
    """Size of the sample, and directory of the feature extractor."""

    output_dir: str = argument("Directory of the feature extractor.")
    num_clips: int = argument("Number of crops to read, at most.", 10_000, min=1)

    def __post_init__(self):
        check_numbers(self)


def compute_statistics(arguments: StatisticsArguments, data: DataArguments) -> BeatsFeatureExtractor:
    """
    Writes a feature extractor with the statistics of the data, and returns it.

    Raises:
        [`BeatsError`]: a streamed dataset, an output directory that exists, or fbanks that are all alike.
    """
    output_dir = Path(arguments.output_dir)
    if data.streaming:
        raise BeatsError("The statistics are those of a random sample: set `streaming: false`.")
    check_new(output_dir)
    extractor = BeatsFeatureExtractor()
    clips = prepare_dataset(data, extractor.sampling_rate)
    mean, std = fbank_statistics(CropDataset(clips, data), extractor, arguments.num_clips)
    extractor = BeatsFeatureExtractor(fbank_mean=mean, fbank_std=std)
    with new_directory(output_dir) as new:
        extractor.save_pretrained(new)
    print(
        f"{output_dir}: fbank mean {mean:.5f}, standard deviation {std:.5f}, from at most "
        f"{format_number(arguments.num_clips)} crops"
    )
    return extractor


def main(argv: list[str] | None = None) -> None:
    """Runs the command with the words of `argv`; by default those of the command line."""
    arguments, data = parse_arguments((StatisticsArguments, DataArguments), argv, __doc__)
    compute_statistics(arguments, data)
    words = ["iterate", "--config", "folder_iterate", "--feature_extractor", arguments.output_dir]
    note(next_command(*words, *crop_words(data, "data."), "--output_dir", "RUN"))


if __name__ == "__main__":
    run_command(main)
