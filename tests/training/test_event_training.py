# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Training on events from the files of the field, with clips of which classes or nothing is known."""

import contextlib
import json
import pickle
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
import torch
from tiny import ENCODER, TRAINING

from transformers_beats import (
    BeatsConfig,
    BeatsFeatureExtractor,
    BeatsForAudioClassification,
    BeatsForAudioFrameClassification,
)
from transformers_beats.training.config.arguments import FINETUNE_ARGUMENTS, Arguments
from transformers_beats.training.config.event_arguments import EventTrainingArguments
from transformers_beats.training.config.recipes import build_arguments
from transformers_beats.training.data.augmentation import AugmentationArguments, augment
from transformers_beats.training.data.folds import draw_folds, draw_share
from transformers_beats.training.data.labelled import LabelledClips, roll_events
from transformers_beats.training.data.labels import Labels, frame_labels
from transformers_beats.training.finetune import finetune, fingerprint
from transformers_beats.training.reports.report import read_predictions
from transformers_beats.training.trainers import pretraining as pretraining_module
from transformers_beats.training.trainers.event_logits import EventLogits
from transformers_beats.training.trainers.events import (
    consistency_share,
    known_loss,
    mix_targets,
    pool_scores,
    scores_of,
)
from transformers_beats.utils.errors import BeatsError, UsageError


RATE = 16000
# Recurrent layers, and scores of clips by attention.
HEAD = {"frame_pooling": "sequence", "frame_recurrent_layers": 1, "frame_recurrent_size": 16}
HEAD |= {"classifier_pooling": "frame_attention"}
NUM_CLIPS = 12


@pytest.fixture
def folder(tmp_path) -> Path:
    """Clips of a second, each with a high or a low tone of 320 ms, and tables of DESED about them."""
    strong, weak = ["filename\tonset\toffset\tevent_label"], ["filename\tevent_labels"]
    (tmp_path / "sounds").mkdir()
    for number in range(NUM_CLIPS):
        label, frequency = (("high", 3000), ("low", 400))[number % 2]
        onset = 0.16 * (number % 4)
        samples = 0.01 * np.random.default_rng(number).standard_normal(RATE)
        first, last = round(RATE * onset), round(RATE * (onset + 0.32))
        samples[first:last] += 0.5 * np.sin(2 * np.pi * frequency * np.arange(last - first) / RATE)
        soundfile.write(tmp_path / "sounds" / f"{number:02d}.wav", samples, RATE)
        strong.append(f"{number:02d}.wav\t{onset:.2f}\t{onset + 0.32:.2f}\t{label}")
        weak.append(f"{number:02d}.wav\t{label}")
    (tmp_path / "strong.tsv").write_text("\n".join(strong[:5]) + "\n")
    (tmp_path / "weak.tsv").write_text("\n".join([weak[0], *weak[5:9]]) + "\n")
    (tmp_path / "all.tsv").write_text("\n".join(strong) + "\n")
    return tmp_path


def run(folder: Path, **values) -> dict:
    recipe = {
        "dataset": str(folder / "sounds"),
        "event_files": [str(folder / "strong.tsv"), str(folder / "weak.tsv")],
        "eval_dataset": str(folder / "sounds"),
        "eval_event_files": str(folder / "all.tsv"),
        "allow_overlap": True,
        "output_dir": str(folder / "model"),
        "model_config": ENCODER | {"frame_pooling": "sequence"},
        **TRAINING,
        "save_strategy": "no",
        "eval_strategy": "no",
    }
    return finetune(Arguments(*build_arguments(FINETUNE_ARGUMENTS, recipe | values)), prints=False)


@pytest.mark.usefixtures("no_pictures")
@pytest.mark.parametrize(
    ("values", "num_clips"),
    [
        ({}, 4),
        ({"clip_loss_weight": 1.0}, 8),
        ({"clip_loss_weight": 1.0, "consistency_weight": 2.0, "ema_decay": 0.9}, 12),
        ({"consistency_weight": 2.0, "ema_decay": 0.9, "mixup_alpha": 0.5, "roll": True, "filter_db": 6.0}, 12),
        (
            {
                "model_config": ENCODER | HEAD,
                "clip_loss_weight": 1.0,
                "consistency_weight": 2.0,
                "ema_decay": 0.9,
                "layer_wise_learning_rate_decay": 0.5,
                "gradient_checkpointing": True,
            },
            12,
        ),
    ],
)
def test_clips_are_learned_from_by_what_is_known_of_them(values, num_clips, folder):
    metrics = run(folder, **values)
    assert np.isfinite(metrics["mAP"])
    report = json.loads((folder / "model" / "evaluation" / "metrics.json").read_text())
    assert report["description"]["training_clips"] == num_clips
    history = json.loads((folder / "model" / "log_history.json").read_text())
    assert all(np.isfinite(entry["loss"]) for entry in history if "loss" in entry)


@pytest.mark.parametrize(
    ("values", "kinds"),
    [
        ({}, ["events"]),
        ({"clip_loss_weight": 1.0}, ["events", "classes"]),
        ({"consistency_weight": 1.0}, ["events", "classes", "nothing"]),
        # A teacher tells of a clip of which the classes are known what it tells of one of which nothing is.
        ({"event_logits": "x.h5"}, ["events", "classes", "nothing"]),
    ],
)
def test_what_must_be_known_of_a_clip(values, kinds):
    assert EventTrainingArguments(**values).kinds == kinds


@pytest.mark.usefixtures("no_pictures")
@pytest.mark.parametrize("pooling", ["mean", "frame_attention"])
def test_a_weak_label_alone_teaches_which_class_sounds(pooling, folder):
    (folder / "weak.tsv").write_text(
        "filename\tevent_labels\n" + "".join(f"{n:02d}.wav\t{('high', 'low')[n % 2]}\n" for n in range(NUM_CLIPS))
    )
    # The loss of clips is all there is. It says which class there is, and little about when.
    config = ENCODER | {"frame_pooling": "sequence", "classifier_pooling": pooling}
    values = {"event_files": str(folder / "weak.tsv"), "clip_loss_weight": 1.0, "max_steps": 40}
    metrics = run(folder, **values, model_config=config)
    assert metrics["lwlrap"] > 0.95


@pytest.mark.usefixtures("no_pictures")
def test_datasets_of_other_classes_are_learned_from_together(folder):
    # Each clip has both tones. Half of them were labelled for one, the others for the other.
    tables = {"high": ["filename\tonset\toffset\tevent_label"], "low": ["filename\tonset\toffset\tevent_label"]}
    for number in range(NUM_CLIPS):
        samples = 0.01 * np.random.default_rng(number).standard_normal(RATE)
        for label, frequency, onset in (("high", 3000, 0.16 * (number % 3)), ("low", 400, 0.16 * (number % 4))):
            first, last = round(RATE * onset), round(RATE * (onset + 0.32))
            samples[first:last] += 0.4 * np.sin(2 * np.pi * frequency * np.arange(last - first) / RATE)
            if (number < NUM_CLIPS // 2) == (label == "high"):
                tables[label].append(f"{number:02d}.wav\t{onset:.2f}\t{onset + 0.32:.2f}\t{label}")
        soundfile.write(folder / "sounds" / f"{number:02d}.wav", samples, RATE)
    for name, rows in tables.items():
        (folder / f"{name}.tsv").write_text("\n".join(rows) + "\n")
    files = [str(folder / f"{name}.tsv") for name in tables]
    scores = {}
    for classes in ("own", "all"):
        output = folder / classes
        metrics = run(
            folder,
            event_files=files,
            eval_event_files=files,
            event_classes=classes,
            clip_loss_weight=0.5,
            max_steps=20,
            output_dir=str(output),
            eval_strategy="steps",
            eval_steps=20,
        )
        assert np.isfinite(metrics["mAP"])
        history = json.loads((output / "log_history.json").read_text())
        assert all(np.isfinite(value) for entry in history for value in entry.values())
        predictions = read_predictions(output / "evaluation")
        assert (predictions.known is None) == (classes == "all")
        scores[classes] = predictions.scores[predictions.labels == 1].mean()
    assert predictions.is_known.all()
    half = read_predictions(folder / "own" / "evaluation").known
    assert (half.sum(axis=1) == 1).all()
    # Where a tone counts as absent though it sounds, its score cannot rise.
    assert scores["own"] > scores["all"] + 0.1


@pytest.mark.usefixtures("no_pictures")
def test_a_model_of_events_goes_on_with_other_classes_and_as_a_classifier_of_clips(folder):
    values = {"clip_loss_weight": 1.0, "max_steps": 2}
    run(folder, **values, model_config=ENCODER | HEAD)
    first = BeatsForAudioFrameClassification.from_pretrained(folder / "model")
    (folder / "all.tsv").write_text((folder / "all.tsv").read_text().replace("high", "bell"))
    values |= {"model_name_or_path": str(folder / "model"), "learning_rate": 1e-9, "max_steps": 1}
    others = {"event_files": str(folder / "all.tsv"), "eval_event_files": str(folder / "all.tsv")}
    run(folder, **values, **others, model_config={}, output_dir=str(folder / "events"))
    events = BeatsForAudioFrameClassification.from_pretrained(folder / "events")
    # Layers go on, and what belongs to classes begins anew.
    for name, value in first.state_dict().items():
        is_of_classes = name.startswith(("classifier.", "pooling.attention."))
        assert torch.allclose(value, events.state_dict()[name], atol=1e-4) != is_of_classes

    labels = "file_name,label\n" + "".join(f"sounds/{n:02d}.wav,{('high', 'low')[n % 2]}\n" for n in range(NUM_CLIPS))
    (folder / "clips.csv").write_text(labels)
    recipe = {"dataset": str(folder / "clips.csv"), **TRAINING, "save_strategy": "no", "max_steps": 1}
    recipe |= {"model_name_or_path": str(folder / "model"), "eval_strategy": "no"}
    for pooling, depth in (("mean", 0), ("frame_attention", 1)):
        output = str(folder / pooling)
        values = {"model_config": {"classifier_pooling": pooling}, "output_dir": output}
        finetune(Arguments(*build_arguments(FINETUNE_ARGUMENTS, recipe | values)), prints=False)
        model = BeatsForAudioClassification.from_pretrained(output)
        assert (model.config.classifier_pooling, model.config.frame_recurrent_layers) == (pooling, depth)
        # Weights of recurrent states are none of patches, also if these have as many dimensions.
        weights = [each.classifier.weight for each in (model, first)]
        assert weights[0].shape == weights[1].shape
        assert torch.allclose(*weights, atol=2e-3) == (depth == 1)


@pytest.mark.usefixtures("no_pictures")
@pytest.mark.parametrize(
    ("values", "is_warned"),
    [
        ({"consistency_weight": 2.0, "ema_decay": 0.9, "consistency_warmup": 7}, True),
        ({"consistency_weight": 2.0, "ema_decay": 0.9, "consistency_warmup": 1}, False),
        ({"consistency_warmup": 7}, False),
    ],
)
def test_a_mean_teacher_that_never_has_its_weight_is_warned_of(values, is_warned, folder, monkeypatch):
    said = []
    monkeypatch.setattr(pretraining_module.logger, "warning_once", said.append)
    run(folder, max_steps=2, **values)
    text = "`consistency_warmup` is 7, but the training has 2 step(s): `consistency_weight` is never reached."
    assert [message.partition(" Set")[0] for message in said] == [text] * is_warned


@pytest.mark.usefixtures("no_pictures")
def test_attention_that_nothing_teaches_is_refused(folder):
    # A mean teacher has the same attention, and no labels.
    for values in ({}, {"consistency_weight": 1.0, "ema_decay": 0.9}):
        with pytest.raises(UsageError, match="which only labels of clips teach: set `clip_loss_weight`, or"):
            run(folder, model_config=ENCODER | HEAD, **values)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"consistency_weight": 1.0}, "needs a mean teacher: set `ema_decay`"),
        ({"clip_loss_weight": 1.0, "freeze": True}, "A probe has no loss of clips"),
        ({"clip_loss_weight": -1.0}, "`clip_loss_weight` must not be negative"),
        ({"distillation_weight": 1.5}, "`distillation_weight` must be at most 1"),
        ({"eval_dataset": None, "eval_share": 0.5}, "`eval_event_files` are those of other clips"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(values, message, folder):
    with pytest.raises(UsageError, match=message):
        run(folder, **values)


def test_clips_that_nothing_is_known_of_are_no_training(folder):
    with pytest.raises(BeatsError, match="There is no clip whose events are known: 4 with classes alone, 8 without"):
        run(folder, event_files=str(folder / "weak.tsv"))


@pytest.mark.usefixtures("no_pictures")
def test_a_share_is_drawn_of_the_clips_whose_events_are_known(folder):
    values = {"eval_dataset": None, "eval_event_files": None, "eval_share": 0.5, "clip_loss_weight": 1.0}
    run(folder, **values, consistency_weight=1.0, ema_decay=0.9)
    report = json.loads((folder / "model" / "evaluation" / "metrics.json").read_text())
    # Of four, two are evaluated on, and all others are learned from.
    assert report["description"]["training_clips"] == NUM_CLIPS - 2


def test_shares_and_folds_have_clips_whose_events_are_known():
    kinds = ["events", "nothing", "classes", "nothing"] * 5
    labels = Labels("frames", ["a"], [[] for _ in kinds], kinds)
    for seed in range(3):
        fold = draw_share(labels, 0.4, seed)
        assert {kinds[index] for index in fold.test} == {"events"}
        assert (len(fold.test), sorted([*fold.train, *fold.test])) == (2, list(range(20)))
        folds = draw_folds(labels, 5, seed)
        assert sorted(folds[np.array(kinds) == "events"]) == list("12345")
        assert sorted(folds) == sorted("12345" * 4)
        # A clip without known events that is a copy of one to evaluate on is in neither part.
        fold = draw_share(labels, 0.4, seed, np.arange(20) // 2)
        assert {kinds[index] for index in fold.test} == {"events"}
        assert len(fold.test) == 2
        assert len(fold.train) == 16
        assert not {*(fold.test // 2)} & {*(fold.train // 2)}
    # Whatever the order of the clips is.
    kinds = ["events", "nothing"] * 10
    folds = draw_folds(Labels("frames", ["a"], [[] for _ in kinds], kinds), 2, 0)
    assert sorted(folds[1::2]) == sorted(folds[::2]) == list("1111122222")
    with pytest.raises(BeatsError, match="5 clips do not make 6 folds"):
        draw_folds(labels, 6, 0)


def test_clips_that_are_never_drawn_are_no_training(folder):
    with pytest.raises(BeatsError, match="`balanced_sampling` draws by classes, and never the 4 clips without labels"):
        run(folder, balanced_sampling=True, consistency_weight=1.0, ema_decay=0.9)


def test_what_is_known_is_a_part_of_the_digest_of_a_training():
    clips = SimpleNamespace(fingerprint="that of two clips")
    kinds = (None, ["events", "events"], ["events", "nothing"], ["nothing", "events"])
    assert len({fingerprint(clips, Labels("frames", ["x"], [[], []], kind), None) for kind in kinds}) == 4
    sets = (None, [[0], [0]], [[0], []])
    found = {fingerprint(clips, Labels("frames", ["x"], [[], []], kinds[1], each), None) for each in sets}
    assert len(found) == 3


# Targets


def make_targets(knowledge, values, **arguments):
    labels = Labels("frames", ["a", "b"], values, knowledge)
    config = BeatsConfig(**ENCODER, frame_pooling="sequence", num_labels=2)
    return LabelledClips(labels, False, BeatsFeatureExtractor(), config, with_clips=True, **arguments)


def test_what_is_not_known_is_nan():
    targets = make_targets(["events", "classes", "nothing"], [[(0, 0.0, 0.4)], [(1, 0.0, np.inf)], []])
    frames = [targets.target(clip, 0, RATE) for clip in range(3)]
    assert frames[0].sum(dim=0).tolist() == [10, 0]
    assert torch.isnan(torch.stack(frames[1:])).all()
    assert targets.clip_target(0, frames[0], True).tolist() == [1, 0]
    assert targets.clip_target(1, frames[1], True).tolist() == [0, 1]
    # A part of a clip may lack a class that the whole has, and has none that it lacks.
    assert torch.equal(torch.isnan(targets.clip_target(1, frames[1], False)), torch.tensor([False, True]))
    assert torch.isnan(targets.clip_target(2, frames[2], True)).all()


def test_classes_that_a_clip_was_not_labelled_for_are_nan():
    labels = Labels("frames", ["a", "b"], [[(0, 0.0, 0.4)], [(0, 0.0, np.inf)], []], ["events", "classes", "events"])
    labels.annotated = [[0], [0], [1]]
    config = BeatsConfig(**ENCODER, frame_pooling="sequence", num_labels=2)
    targets = LabelledClips(labels, False, BeatsFeatureExtractor(), config, with_clips=True)
    # Rolled by two and a half columns, the event covers the half of two.
    for shift, num_columns in ((0, 10), (1600, 11)):
        frames = targets.target(0, 0, RATE, shift)
        assert frames[:, 0].sum() == num_columns
        assert torch.isnan(frames[:, 1]).all()
    of_clips = [targets.clip_target(clip, targets.target(clip, 0, RATE), True) for clip in range(3)]
    nan = float("nan")
    torch.testing.assert_close(torch.stack(of_clips), torch.tensor([[1, nan], [1, nan], [nan, 0]]), equal_nan=True)


@pytest.mark.parametrize("shift", [0, 3, 10, 24])
def test_events_are_rolled_with_the_sound(shift):
    events = [(0, 0.2, 0.6), (1, 0.76, 1.4), (1, -0.4, 0.12)]
    plain = frame_labels(events, 2, 25, 0.04, start=0.0)
    rolled = frame_labels(roll_events(events, 0.0, 1.0, 0.04 * shift), 2, 25, 0.04, start=0.0)
    np.testing.assert_array_equal(rolled, np.roll(plain, shift, axis=0))


@pytest.mark.parametrize("shift", [0, 3, 10, 24])
@pytest.mark.parametrize(("onset", "offset"), [(-1.0, 0.01), (0.99, 3.0), (0.31, 0.36), (0.98, 1.01)])
def test_a_part_of_an_event_is_labelled_by_the_length_of_the_whole(onset, offset, shift):
    plain = frame_labels([(0, onset, offset)], 1, 25, 0.04, start=0.0)
    rolled = frame_labels(roll_events([(0, onset, offset)], 0.0, 1.0, 0.04 * shift), 1, 25, 0.04, start=0.0)
    np.testing.assert_array_equal(rolled, np.roll(plain, shift, axis=0))


def test_an_event_that_a_roll_splits_has_no_column_more():
    # It covers a quarter of a column before the wrap, and all of two after it.
    rolled = frame_labels(roll_events([(0, 0.5, 0.59)], 0.0, 1.0, 0.49), 1, 25, 0.04, start=0.0)
    assert np.flatnonzero(rolled).tolist() == [0, 1]


@pytest.mark.parametrize("num_columns", [2, 4])
def test_a_mixture_with_what_is_not_known_is_not_known(num_columns):
    torch.manual_seed(0)
    batch = {
        "waveforms": torch.ones(4, 100),
        "num_samples": torch.full((4,), 100),
        "labels": torch.tensor([1.0, torch.nan, 0.0, 1.0])[:, None, None].repeat(1, 3, num_columns),
        "clip_labels": torch.tensor([1.0, 0.0, torch.nan, 1.0])[:, None].repeat(1, 2),
    }
    for probability in (0.0, 1.0):
        mixed = augment(
            batch, AugmentationArguments(mixup_alpha=1.0, mixup_probability=probability), torch.device("cpu")
        )
        # A teacher's scores are further columns.
        assert mixed["labels"].shape == (4, 3, num_columns)
        assert mixed["clip_labels"].shape == (4, 2)
        unknown = torch.isnan(mixed["labels"][:, 0, 0])
        # Each clip is mixed with another one: the unknown one makes two.
        assert int(unknown.sum()) == (1 if probability == 0 else 2)
        assert unknown[1]
        # One clip knows no classes: it and what it is mixed with.
        assert int(torch.isnan(mixed["clip_labels"]).any(dim=1).sum()) == (1 if probability == 0 else 2)
        both = ~torch.isnan(mixed["clip_labels"][:, 0]) & ~unknown
        torch.testing.assert_close(mixed["clip_labels"][both], mixed["labels"][both, 0, :2])


# Losses


def test_scores_of_clips_are_means_weighted_by_themselves():
    scores = torch.tensor([[[0.9, 0.0], [0.1, 0.0], [0.8, 1.0]]])
    pooled = pool_scores(scores, torch.tensor([[1, 1, 0]]))
    torch.testing.assert_close(pooled, torch.tensor([[(0.81 + 0.01) / 1.0, 0.0]]))


def test_scores_of_clips_are_those_of_the_model_if_it_has_any():
    outputs = {"logits": torch.randn(2, 3, 4), "column_attention_mask": torch.tensor([[1, 1, 1], [1, 0, 0]])}
    scores, clips = scores_of(outputs)
    torch.testing.assert_close(scores, outputs["logits"].sigmoid())
    torch.testing.assert_close(clips, pool_scores(scores, outputs["column_attention_mask"]))
    logits = torch.randn(2, 4)
    torch.testing.assert_close(scores_of(outputs | {"clip_logits": logits})[1], logits.sigmoid())


def test_the_loss_is_a_mean_over_what_is_known():
    scores, targets = torch.tensor([[0.5, 0.9], [0.2, 0.3]]), torch.tensor([[1.0, torch.nan], [torch.nan, torch.nan]])
    torch.testing.assert_close(known_loss(scores, targets), torch.tensor(0.5).log().neg())
    assert known_loss(scores, torch.full_like(targets, torch.nan)) == 0
    assert known_loss(scores, torch.full_like(targets, torch.nan), scores) == 0


def test_wrong_scores_of_the_model_near_0_and_1_have_a_gradient():
    logits = torch.tensor([[40.0, -40.0, 0.5, 3.0]], requires_grad=True)
    targets = torch.tensor([[0.0, 1.0, 1.0, torch.nan]])
    known_loss(logits.sigmoid(), targets, logits).backward()
    expected = torch.tensor([[1.0, -1.0, torch.tensor(0.5).sigmoid() - 1, 0.0]]) / 3
    torch.testing.assert_close(logits.grad, expected)
    plain = torch.tensor([[1.0, -2.0, 0.5, 3.0]])
    torch.testing.assert_close(known_loss(plain.sigmoid(), targets, plain), known_loss(plain.sigmoid(), targets))


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_labels_count_in_full_where_the_teacher_has_no_score(share):
    nan = float("nan")
    labels, teacher = torch.tensor([1.0, 1.0, nan, nan]), torch.tensor([0.2, nan, 0.2, nan])
    mixed = mix_targets(labels, teacher, share)
    torch.testing.assert_close(mixed, torch.tensor([1 - 0.8 * share, 1.0, 0.2, nan]), equal_nan=True)
    logits = torch.tensor(0.7)
    both = [torch.nn.functional.binary_cross_entropy_with_logits(logits, target) for target in (labels[0], teacher[0])]
    loss = torch.nn.functional.binary_cross_entropy_with_logits(logits, mixed[0])
    torch.testing.assert_close(loss, (1 - share) * both[0] + share * both[1])


def test_the_weight_of_the_mean_teacher_rises():
    shares = [consistency_share(step, 100) for step in (0, 50, 100, 200)]
    assert shares == [pytest.approx(np.exp(-5)), pytest.approx(np.exp(-1.25)), 1, 1]
    assert consistency_share(1, 0) == 1


# Logits of a teacher


@pytest.fixture
def write_logits(tmp_path):
    h5py = pytest.importorskip("h5py")

    def write(names, logits, **others):
        path = tmp_path / "logits.hdf5"
        with h5py.File(path, "w") as file:
            file["filenames"] = [name.encode() for name in names]
            file["strong_logits"] = np.asarray(logits, dtype=np.float16)
            for name, value in others.items():
                file[name] = value
        return str(path)

    return write


def test_scores_of_a_teacher_are_those_of_the_clip_and_the_time(write_logits):
    logits = np.random.default_rng(0).normal(size=(2, 3, 25))
    path = write_logits(["YaB3_-dE5Fgh", "b"], logits)
    teacher = EventLogits(path, ["x/b.wav", "aB3_-dE5Fgh_30.000.wav", "c.wav"], 3, 0.16, 0.04)
    scores = 1 / (1 + np.exp(-logits.astype(np.float16).astype(np.float32)))
    found = teacher.scores(0, 0.16, 6)
    np.testing.assert_allclose(found[0], scores[1, :, 4:8].mean(axis=1), rtol=1e-5)
    # The last column has the only step that is left, and one after it has none.
    np.testing.assert_allclose(found[5], scores[1, :, 24], rtol=1e-5)
    np.testing.assert_allclose(teacher.scores(1, 0.0, 1)[0], scores[0, :, :4].mean(axis=1), rtol=1e-5)
    assert np.isnan(teacher.scores(0, 1.0, 2)).all()
    assert np.isnan(teacher.scores(2, 0.0, 2)).all()


def test_clips_of_one_name_have_the_scores_of_their_file(monkeypatch, caplog):
    logits = np.stack([np.zeros((3, 25)), np.ones((3, 25))]).astype(np.float16)
    file = {"filenames": np.array([b"a", b"b"]), "strong_logits": logits}
    monkeypatch.setattr(EventLogits, "_open", lambda self: contextlib.nullcontext(file))
    monkeypatch.setattr(EventLogits, "open", lambda self: file)
    teacher = EventLogits("logits.hdf5", list("abaca"), 3, 0.04, 0.04)
    first = [float(teacher.scores(clip, 0.0, 1)[0, 0]) for clip in range(5)]
    assert first[0] == first[2] == first[4] == 0.5
    assert first[1] > 0.5
    assert np.isnan(first[3])
    assert "has 4 of 5 clips" in caplog.text


def test_each_process_opens_the_logits_itself(write_logits, monkeypatch):
    teacher = EventLogits(write_logits(["a"], np.zeros((1, 3, 25))), ["a.wav"], 3, 0.04, 0.04)
    # What a process inherits by fork is closed.
    assert teacher._file is None
    of_parent = teacher.open()
    assert teacher.open() is of_parent
    monkeypatch.setattr("os.getpid", lambda: -1)
    assert teacher.open() is not of_parent
    assert pickle.loads(pickle.dumps(teacher)).scores(0, 0.0, 1).tolist() == [[0.5, 0.5, 0.5]]


def test_logits_that_do_not_fit_are_refused(write_logits, tmp_path):
    path = write_logits(["a"], np.zeros((1, 3, 25)))
    for arguments, message in (
        ((path, ["a.wav"], 2, 0.04, 0.04), r"has logits of \(1, 3, 25\), where \(1, 2\) and the steps are needed"),
        ((path, ["b.wav"], 3, 0.04, 0.04), "has none of the clips, such as 'b.wav'"),
        ((str(tmp_path / "absent.hdf5"), ["a.wav"], 3, 0.04, 0.04), "cannot be read"),
    ):
        with pytest.raises(BeatsError, match=message):
            EventLogits(*arguments)


@pytest.mark.usefixtures("no_pictures")
def test_a_teacher_of_some_clips_goes_with_every_other_loss(folder, write_logits):
    path = write_logits([f"{number:02d}" for number in range(0, NUM_CLIPS, 3)], np.zeros((4, 2, 25)))
    values = {"clip_loss_weight": 1.0, "consistency_weight": 1.0, "ema_decay": 0.9}
    run(folder, event_logits=path, mixup_alpha=0.5, roll=True, distillation_weight=1.0, max_steps=3, **values)
    history = json.loads((folder / "model" / "log_history.json").read_text())
    losses = [entry["loss"] for entry in history if "loss" in entry]
    assert np.isfinite(losses).all()
    assert min(losses) > 0


@pytest.mark.usefixtures("no_pictures")
def test_a_teacher_is_learned_from_without_labels(folder, write_logits):
    names = [f"{number:02d}" for number in range(NUM_CLIPS)]
    logits = np.full((NUM_CLIPS, 2, 25), -4.0)
    for number in range(NUM_CLIPS):
        onset = 4 * (number % 4)
        logits[number, number % 2, onset : onset + 8] = 4.0
    path = write_logits(names, logits)
    # Labels of two clips only, and those of one class each.
    (folder / "strong.tsv").write_text(
        "filename\tonset\toffset\tevent_label\n00.wav\t0\t0.3\thigh\n01.wav\t0.1\t0.4\tlow\n"
    )
    metrics = run(
        folder, event_files=str(folder / "strong.tsv"), event_logits=path, distillation_weight=1.0, max_steps=80
    )
    assert metrics["mAP"] > 0.8
    model = BeatsForAudioFrameClassification.from_pretrained(folder / "model")
    assert model.config.id2label == {0: "high", 1: "low"}
