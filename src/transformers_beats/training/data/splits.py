# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Splits of a dataset in folders: subfolders, or the names of shards, in any spelling."""

import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePath

from transformers_beats.audio.files import AUDIO_SUFFIXES, has_suffix, list_folders
from transformers_beats.utils.errors import BeatsError, UsageError, name_some


# Split that stands for all of a dataset, as in `datasets`.
ALL = "all"
# Spellings of each split; the first three lines are those of `datasets`.
SPELLINGS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("validation", "valid", "val", "dev"), "validation"),
    **dict.fromkeys(("test", "testing", "eval", "evaluation"), "test"),
    **dict.fromkeys(("development",), "validation"),
    **dict.fromkeys(("holdout", "heldout", "tst"), "test"),
    **dict.fromkeys(("trn",), "train"),
}
# Around the name of a split: `train_set`, `Test data`, `1-audio-train`.
FILLER = re.compile(r"[\W\d_]+|(?<![^\W\d_])(?:audio|wavs?|clips|files)(?![^\W\d_])|(?:set|split|data)(?![^\W\d_])")


def split_of(name: str) -> str | None:
    """Returns `train`, `validation` or `test` for the name of a folder that means it: `VALID`, `TrainSet`."""
    return SPELLINGS.get(FILLER.sub("", name.casefold()))


def split_of_shard(path: Path) -> str | None:
    """Returns the split that a shard is of, by a word of its name or the folders above: `train-00000-of-2.tar`."""
    return next((split for part in (path.name, *reversed(path.parent.parts)) if (split := _split_in(part))), None)


def _asked(split: str) -> str:
    """Returns the split that is asked for: `Dev` is one, and `test2` no other spelling of one."""
    return SPELLINGS.get(split.casefold(), ALL)


def _split_in(name: str) -> str | None:
    """Returns the split that a word of a name means."""
    return next((SPELLINGS[word] for word in re.split(r"[\W\d_]+", name.casefold()) if word in SPELLINGS), None)


def splits_of_folders(names: Sequence[str]) -> dict[str, str]:
    """
    Returns the folders beside each other that are splits, and which. A word of a name, as in `esc_test` or
    `test-clean`, makes it one if all are and some are to train on: `test_tone` beside `dog` is a class.
    """
    by_word = {name: split_of(name) or _split_in(name) for name in names}
    splits = {*by_word.values()}
    is_known = None not in splits and "train" in splits and len(splits) > 1
    found = by_word if is_known else {name: split_of(name) for name in names}
    return {name: split for name, split in found.items() if split is not None}


def find_split(root: Path, split: str, beside: str | None = None) -> Path | None:
    """
    Finds the folder of a split in `root`, in any spelling. `train` is all of `root` if there is no other split:
    neither a folder that has the name of one, nor the folder `beside`.

    Returns:
        `Path | None`: None if there is none.

    Raises:
        [`UsageError`]: if `split` asks for a part of one, as of a dataset of the Hub.
        [`BeatsError`]: if several folders may be the split; or there are others, but none to train on.
    """
    if "[" in split and not (root / split).exists():
        raise UsageError(
            f"`split` is {split!r}, and a part can be asked of a dataset of the Hub only: name a split of {root}, and "
            "choose clips by `select`."
        )
    if split == ALL or root.is_file():
        return root if split in (ALL, "train") else None
    names = [entry.name for entry in list_folders(root)]
    splits = splits_of_folders(names)
    matches = [name for name in names if splits.get(name) == _asked(split) or name == split]
    if split != "train":
        if split in names:
            return root / split
        return root / _only(root, split, matches) if matches else None
    others = [name for name in names if name == beside or splits.get(name) in ("validation", "test")]
    if others and not matches:
        raise BeatsError(
            f"{root}: has the folder {others[0]!r}, a split, but none to train on: move the others into one called "
            f"'train', or set `split: {ALL}` if {others[0]!r} is a class like the others."
        )
    # Without others, a folder of that name may be the class of railway sounds, unless it is alone.
    is_alone = len(names) == 1 and not any(has_suffix(name, AUDIO_SUFFIXES) for name in os.listdir(root))
    return root / _only(root, split, matches) if matches and (others or is_alone) else root


def check_nested_splits(root: Path, names: Iterable[str], split: str) -> None:
    """
    Checks that files of a folder, by their paths in it, do not lie in splits below other folders, `dog/test/1.wav`.

    Raises:
        [`BeatsError`]: if there are some to train on and others; what is asked for would be read with the rest.
    """
    examples: dict[int, dict[str, str]] = {}
    for name in names if split != ALL else ():
        for depth, folder in enumerate(PurePath(name).parts[1:-1]):
            examples.setdefault(depth, {}).setdefault(folder, name)
    for folders in examples.values():
        splits = splits_of_folders([*folders])
        others = [name for name, meant in splits.items() if meant != "train"]
        if others and len(others) < len(splits):
            raise BeatsError(
                f"{root}: {folders[others[0]]} lies in a split below another folder: name the folder of the splits as "
                f"`dataset`, or set `split: {ALL}` to take all of them."
            )


def _only(root: Path, split: str, matches: list[str]) -> str:
    if len(matches) > 1:
        raise BeatsError(f"{root}: the split {split!r} may be any of {name_some(matches)}: name one as `dataset`.")
    return matches[0]


def select_shards(root: Path, shards: list[Path], split: str) -> list[Path]:
    """Returns the shards of a split; all, if no name tells. Without one called `train`, those of no split are."""
    splits = [split_of_shard(shard.relative_to(root)) for shard in shards]
    if split == ALL or (split == "train" and not any(splits)):
        return shards
    wanted = [shard for shard, name in zip(shards, splits) if name == _asked(split)]
    if not wanted and split == "train":
        wanted = [shard for shard, name in zip(shards, splits) if name is None]
    return wanted
