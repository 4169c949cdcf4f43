# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
import base64
import io
import json
import os
import re
import runpy
import shutil
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any, NamedTuple
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import numpy as np
import pytest
import soundfile
import typer
from PIL import Image
from typer.testing import CliRunner

from transformers_beats import (
    BeatsConfig,
    BeatsFeatureExtractor,
    BeatsForAudioClassification,
    BeatsForAudioFrameClassification,
    BeatsModel,
    BeatsRandomProjectionTokenizer,
)
from transformers_beats.audio.decoding import AudioReport, AudioStream, decode_audio, open_audio
from transformers_beats.audio.synthesis import CLASSES
from transformers_beats.cli.app import app
from transformers_beats.cli.writers import csv_header
from transformers_beats.configuration_beats import BeatsRandomProjectionTokenizerConfig
from transformers_beats.inference.events import Event
from transformers_beats.inference.pipeline import BeatsAudioTaggingPipeline, Label, read_in_step
from transformers_beats.inference.results import Columns
from transformers_beats.inference.windowed import WindowedInference
from transformers_beats.plotting.spectrogram import Spectrogram
from transformers_beats.plotting.timeline import code_colors
from transformers_beats.utils.errors import BeatsError, UsageError
from transformers_beats.web import analysis as analysis_module
from transformers_beats.web import page as web_module
from transformers_beats.web.alike import Library, respond_with_comparison, respond_with_similar
from transformers_beats.web.analysis import (
    DEFAULT_WINDOWS,
    Analysis,
    Checkpoint,
    Settings,
    Tokens,
    analyse,
    best_scores,
    describe_scores,
    find_checkpoints,
    find_tokens,
    open_limited,
)
from transformers_beats.web.blocks import COMPUTING, in_turn
from transformers_beats.web.page import (
    Limits,
    build_page,
    build_setup_page,
    main,
    respond,
    respond_with_tokens,
    serve,
    write_samples,
)
from transformers_beats.web.views import (
    as_html,
    record_of,
    show_downloads,
    show_labels,
    show_message,
    show_table,
    show_timeline,
    show_tokens,
)


RATE = 16000
# Everything that an untrained model hears, it hears all the time.
SETTINGS = Settings(threshold=0.0, window_seconds=1.0, hop_seconds=0.5)
SMALL = {
    "hidden_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "embed_dim": 16,
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 2,
}


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> Path:
    """A folder with a checkpoint of each kind, and what else is found in folders."""
    root = tmp_path_factory.mktemp("models")
    labels = {"id2label": {0: "cat", 1: "dog", 2: "rain"}, "label2id": {"cat": 0, "dog": 1, "rain": 2}}
    saved = {
        "clips": BeatsForAudioClassification(BeatsConfig(**SMALL, **labels)),
        "frames": BeatsForAudioFrameClassification(BeatsConfig(**SMALL, **labels)),
        "pretrained": BeatsModel(BeatsConfig(**SMALL)),
        "regression": BeatsForAudioClassification(BeatsConfig(**SMALL, num_labels=1)),
        "tokens": BeatsRandomProjectionTokenizer(BeatsRandomProjectionTokenizerConfig()),
    }
    for name, model in saved.items():
        model.save_pretrained(root / name)
        BeatsFeatureExtractor().save_pretrained(root / name)
    (root / "other").mkdir()
    (root / "other" / "config.json").write_text(json.dumps({"model_type": "wav2vec2"}))
    (root / "damaged").mkdir()
    (root / "damaged" / "config.json").write_text("{")
    (root / "notes.txt").write_text("no model")
    return root


@pytest.fixture(scope="module")
def checkpoints(models) -> dict[str, Checkpoint]:
    return {checkpoint.name: checkpoint for checkpoint in find_checkpoints([models])}


@pytest.fixture
def noise(tmp_path) -> Path:
    """Two seconds of stereo at 44.1 kHz."""
    path = tmp_path / "some noise.flac"
    soundfile.write(path, 0.1 * np.random.default_rng(0).standard_normal((88200, 2)), 44100)
    return path


def flac_of_unknown_length(seconds: float) -> bytes:
    """As written to a pipe: the number of samples, the last 36 bits before the MD5 sum, is 0."""
    buffer = io.BytesIO()
    soundfile.write(buffer, 0.1 * np.random.default_rng(0).standard_normal(round(seconds * RATE)), RATE, format="FLAC")
    data = bytearray(buffer.getvalue())
    data[21] &= 0xF0
    data[22:26] = bytes(4)
    return bytes(data)


@pytest.fixture
def endless(tmp_path, monkeypatch) -> Path:
    """Five minutes, of which no header tells the length, as in webm that a browser records."""
    path = tmp_path / "endless.wav"
    soundfile.write(path, 0.1 * np.random.default_rng(0).standard_normal(300 * RATE), RATE)
    monkeypatch.setattr(
        analysis_module, "open_audio", lambda *arguments: replace(open_audio(*arguments), seconds=None)
    )
    return path


@pytest.fixture
def batches(monkeypatch) -> list[int]:
    """The number of windows of each batch that was computed."""
    sizes: list[int] = []
    compute = WindowedInference._compute

    def note(self, cuts, *arguments):
        sizes.append(len(cuts))
        return compute(self, cuts, *arguments)

    monkeypatch.setattr(WindowedInference, "_compute", note)
    return sizes


class TestCheckpoints:
    def test_those_of_a_folder_are_found_and_the_others_left_out(self, models):
        found = find_checkpoints([models])
        assert {checkpoint.name: checkpoint.kind for checkpoint in found} == {
            "clips": "clips",
            "frames": "frames",
            "tokens": "tokens",
        }

    def test_directories_can_be_named_one_by_one_and_twice(self, models):
        found = find_checkpoints([models / "tokens", str(models / "clips"), models / "clips"])
        assert [checkpoint.name for checkpoint in found] == ["tokens", "clips"]

    def test_equal_names_are_preceded_by_the_folder_above_and_numbered(self, models, tmp_path):
        copies = [
            tmp_path / "first" / "clips",
            tmp_path / "one" / "same" / "clips",
            tmp_path / "two" / "same" / "clips",
        ]
        for copy in copies:
            shutil.copytree(models / "clips", copy)
        names = [checkpoint.name for checkpoint in find_checkpoints([*copies, models / "tokens"])]
        assert names == ["first/clips", "same/clips", "same/clips (2)", "tokens"]

    def test_a_missing_directory_is_named(self, tmp_path):
        with pytest.raises(ValueError, match=r"nowhere: no such directory\."):
            find_checkpoints([tmp_path / "nowhere"])

    def test_a_file_is_no_directory(self, models):
        with pytest.raises(ValueError, match=r"notes\.txt: is a file, and a model is a directory"):
            find_checkpoints([models / "notes.txt"])

    def test_a_directory_without_checkpoints_is_named(self, tmp_path):
        with pytest.raises(ValueError, match=r"no checkpoint, it has no config\.json"):
            find_checkpoints([tmp_path])

    def test_hidden_folders_are_no_choice(self, models, tmp_path):
        for name in ("tokens", ".old", ".cache"):
            shutil.copytree(models / "clips", tmp_path / name)
        assert [checkpoint.name for checkpoint in find_checkpoints([tmp_path])] == ["tokens"]
        # One that is named is meant.
        assert [checkpoint.name for checkpoint in find_checkpoints([tmp_path / ".old"])] == [".old"]

    def test_folders_below_a_checkpoint_are_those_of_its_training(self, models, tmp_path):
        run = tmp_path / "run"
        shutil.copytree(models / "clips", run)
        for name in ("checkpoint-10", "tokens"):
            shutil.copytree(models / "clips", run / name)
        assert [checkpoint.path for checkpoint in find_checkpoints([run])] == [run]
        # An adapter is a checkpoint, too: here, of a model that is none.
        (run / "config.json").rename(run / "adapter_config.json")
        with pytest.raises(ValueError, match="no BEATs model that was fine-tuned"):
            find_checkpoints([run])

    @pytest.mark.parametrize("source", ["beats-iter3", "someone/beats"])
    def test_whatever_a_source_lacks_is_an_error_of_usage(self, source, monkeypatch):
        def fail(*arguments, **options):
            raise BeatsError(f"{source}: no connection; try again.")

        monkeypatch.setattr("transformers_beats.conversion.released.get", fail)
        monkeypatch.setattr(analysis_module, "check_model_repository", fail)
        with pytest.raises(UsageError, match=f"^{source}: no connection; try again.$"):
            find_checkpoints([source])

    def test_without_a_classifier_there_is_nothing_to_show(self, models):
        with pytest.raises(ValueError, match="no BEATs model that was fine-tuned to classify sounds"):
            find_checkpoints([models / "pretrained", models / "tokens"])

    def test_models_of_the_hub_are_called_by_their_ids_and_have_no_code(self, models, tmp_path, monkeypatch):
        calls = []

        def download(repo_id, allow_patterns):
            calls.append((repo_id, allow_patterns))
            # As the cache is laid out.
            snapshot = tmp_path / f"models--{repo_id.replace('/', '--')}" / "snapshots" / ("0123456789" * 4)
            shutil.copytree(models / "clips", snapshot)
            shutil.copytree(models / "tokens", snapshot / "tokens")
            return str(snapshot)

        monkeypatch.setattr("huggingface_hub.snapshot_download", download)
        monkeypatch.setattr("huggingface_hub.HfApi.repo_info", lambda self, name, **options: name)
        found = find_checkpoints(["someone/beats", "another/beats"])
        assert [(checkpoint.name, checkpoint.kind) for checkpoint in found] == [
            ("someone/beats", "clips"),
            ("someone/beats/tokens", "tokens"),
            ("another/beats", "clips"),
            ("another/beats/tokens", "tokens"),
        ]
        assert calls == [(name, ["*.json", "*.safetensors"]) for name in ("someone/beats", "another/beats")]


class TestAnalysis:
    @pytest.mark.parametrize("kind", ["clips", "frames"])
    def test_it_has_labels_events_and_a_spectrogram(self, checkpoints, noise, kind):
        *_, analysis = analyse(noise, checkpoints[kind], SETTINGS, max_seconds=10)
        assert {label for label, _ in analysis.labels} == {"cat", "dog", "rain"}
        assert {event.label for event in analysis.events} == {"cat", "dog", "rain"}
        assert all(0 <= event.start < event.end <= 2 for event in analysis.events)
        assert analysis.spectrogram.seconds == pytest.approx(2, abs=0.03)
        assert analysis.share == 1

    def test_tokens_are_computed_apart(self, checkpoints, noise):
        *_, tokens = find_tokens(noise, checkpoints["tokens"], max_seconds=10)
        assert tokens.codes.values.shape == (12, 8)
        # Noise hardly has the same one twice.
        assert len(np.unique(tokens.codes.values)) > 40

    def test_labels_come_first_and_then_events_and_spectrogram(self, checkpoints, noise):
        stages = [
            (analysis.stage, bool(analysis.labels), analysis.events is not None, analysis.spectrogram is not None)
            for analysis in analyse(noise, checkpoints["clips"], SETTINGS, max_seconds=10)
        ]
        assert list(dict.fromkeys(stages)) == [
            ("labels", True, False, False),
            ("events", True, False, False),
            ("picture", True, True, True),
        ]

    @pytest.mark.parametrize("kind", ["clips", "frames"])
    def test_the_first_labels_of_ten_minutes_need_a_quarter_of_the_windows(
        self, checkpoints, tmp_path, kind, monkeypatch
    ):
        path = tmp_path / "long.wav"
        soundfile.write(path, 0.1 * np.random.default_rng(0).standard_normal(600 * RATE), RATE)
        columns, compute = [0], WindowedInference._compute

        def count(self, cuts, function):
            columns[0] += sum(cut.num_columns for cut in cuts)
            return compute(self, cuts, function)

        monkeypatch.setattr(WindowedInference, "_compute", count)
        settings = Settings(0.0, *DEFAULT_WINDOWS[kind])
        first, whole = None, None
        for analysis in analyse(path, checkpoints[kind], settings, max_seconds=1000):
            if analysis.labels and first is None:
                first = columns[0]
            if analysis.stage == "events" and whole is None:
                whole = columns[0]
        assert first <= columns[0] / 4
        # Those of the whole recording, with a clip-level model: its events come from other windows.
        if kind == "clips":
            assert whole <= columns[0] / 4

    def test_the_bar_moves_once_from_the_left_to_the_right(self, checkpoints, tmp_path):
        path = tmp_path / "minute.wav"
        soundfile.write(path, 0.1 * np.random.default_rng(0).standard_normal(60 * RATE), RATE)
        results = list(analyse(path, checkpoints["clips"], Settings(0.0, 2.0, 0.5), max_seconds=100))
        shares = [analysis.share for analysis in results]
        assert shares == sorted(shares)
        assert shares[-1] == 1
        # The labels are a fifth of the work.
        first_of_events = next(analysis for analysis in results if analysis.stage == "events")
        assert first_of_events.share == pytest.approx(0.2, abs=0.02)

    def test_without_a_known_length_the_bar_moves_once_too(self, checkpoints, noise, monkeypatch):
        monkeypatch.setattr(
            analysis_module, "open_audio", lambda *arguments: replace(open_audio(*arguments), seconds=None)
        )
        results = analyse(noise, checkpoints["clips"], Settings(0.0, 2.0, 0.5), max_seconds=100)
        first, *shares = [analysis.share for analysis in results]
        assert first is None
        assert shares == sorted(shares)

    @pytest.mark.parametrize("kind", ["clips", "frames", "tokens"])
    def test_without_a_known_length_it_can_be_cancelled_after_every_batch(self, checkpoints, endless, batches, kind):
        """It ends only where a result is yielded."""
        if kind == "tokens":
            results = find_tokens(endless, checkpoints[kind], max_seconds=1000)
        else:
            results = analyse(endless, checkpoints[kind], Settings(0.0, 10.0, 10.0), max_seconds=1000)
        found = [(len(batches), result.share) for result in results]
        assert len(batches) >= 4
        assert {number for number, _ in found} == set(range(1, len(batches) + 1))
        # The length is known at the end of a pass.
        shares = [share for _, share in found]
        assert shares[:3] == [None] * 3
        assert shares[-1] == 1

    def test_it_ends_where_it_is_cancelled(self, checkpoints, noise, monkeypatch):
        computed = []
        stream_frames = WindowedInference.stream_frames

        def note(self, stream):
            computed.append(self)
            return stream_frames(self, stream)

        monkeypatch.setattr(WindowedInference, "stream_frames", note)
        results = analyse(noise, checkpoints["clips"], SETTINGS, max_seconds=10)
        next(results)
        results.close()
        assert len(computed) == 1

    @pytest.mark.parametrize(("kind", "times"), [("clips", 2), ("frames", 1)])
    def test_the_clip_is_decoded_once_for_each_kind_of_windows(self, checkpoints, noise, kind, times, monkeypatch):
        opened = []

        def count(path, sampling_rate):
            opened.append(path)
            return open_audio(path, sampling_rate)

        monkeypatch.setattr(analysis_module, "open_audio", count)
        settings = Settings(0.0, *DEFAULT_WINDOWS[kind])
        list(analyse(noise, checkpoints[kind], settings, max_seconds=10))
        assert opened == [noise] * times

    def test_readers_of_one_recording_hold_few_of_its_blocks(self):
        produced, behind = [], [0, 0]

        def blocks():
            for number in range(500):
                produced.append(number)
                yield np.zeros(RATE, dtype=np.float32)

        def read(index, stream, blocks_at_once):
            source = iter(stream.blocks)
            for start in range(0, 500, blocks_at_once):
                for _ in range(blocks_at_once):
                    next(source)
                behind[index] = start + blocks_at_once
                assert len(produced) - min(behind) <= 50
                yield Columns(np.zeros((blocks_at_once, 1)), start, 1.0)

        first, second = AudioStream("zeros", blocks(), RATE).share(2)
        lengths = [0, 0]
        for index, block in read_in_step([read(0, first, 2), read(1, second, 20)]):
            lengths[index] += len(block.values)
        assert lengths == [500, 500]

    def test_settings_that_a_model_keeps_are_used_at_the_first_threshold(self, checkpoints, noise, monkeypatch):
        model, _ = analysis_module.load(checkpoints["frames"].path, "cpu", "torch")
        label = model.config.id2label[0]
        windows = (10.0, 10.0)
        *_, plain = analyse(noise, checkpoints["frames"], Settings(0.5, *windows), max_seconds=10)
        monkeypatch.setattr(model.config, "event_settings", {label: {"threshold": 0.0}})
        *_, tuned = analyse(noise, checkpoints["frames"], Settings(0.5, *windows), max_seconds=10)
        *_, chosen = analyse(noise, checkpoints["frames"], Settings(0.51, *windows), max_seconds=10)
        (whole,) = (event for event in tuned.events if event.label == label)
        assert whole.start == 0.0
        assert [event for event in tuned.events if event.label != label] == [
            event for event in plain.events if event.label != label
        ]
        assert tuned.caption.endswith("Thresholds and filters are those that were tuned for this model.")
        assert "tuned" not in plain.caption + chosen.caption

    @pytest.mark.parametrize("kind", ["clips", "frames"])
    def test_windows_of_events_do_not_change_the_means(self, checkpoints, noise, kind):
        # At this threshold, no event takes the place of a mean.
        *_, coarse = analyse(noise, checkpoints[kind], Settings(1.0, 10.0, 10.0), max_seconds=10)
        *_, fine = analyse(noise, checkpoints[kind], Settings(1.0, 0.5, 0.25), max_seconds=10)
        assert fine.labels == coarse.labels

    @pytest.mark.parametrize("kind", ["clips", "frames"])
    def test_its_record_is_that_of_tag(self, models, checkpoints, tmp_path, kind):
        """Labels as well, which the page shows with the highest scores of their events."""
        # Louder and louder.
        samples = np.geomspace(1e-4, 0.3, 14 * RATE) * np.random.default_rng(0).standard_normal(14 * RATE)
        path = tmp_path / "some noise.flac"
        soundfile.write(path, samples, RATE)
        settings = Settings(0.34, *DEFAULT_WINDOWS[kind])
        *_, analysis = analyse(path, checkpoints[kind], settings, max_seconds=20)
        assert analysis.classes != analysis.labels
        # Events of some of them.
        assert 0 < len({event.label for event in analysis.events}) <= 3
        assert show_labels(analysis) == show_labels(replace(analysis, labels=[]))
        words = ["tag", path, "-m", models / kind, "--events", "--event-threshold", 0.34, "--json", "--device", "cpu"]
        result = CliRunner().invoke(app, [*map(str, words)])
        assert result.exit_code == 0, result.output
        expected = json.loads(result.stdout) | {"file": path.name}
        assert json.loads(json.dumps(record_of(path.name, analysis))) == expected


class TestScores:
    EVENTS = [Event("dog", 0.6, 0.0, 1.0), Event("dog", 0.9, 3.0, 4.0)]

    @pytest.fixture
    def tagger(self, checkpoints):
        model, extractor = analysis_module.load(checkpoints["clips"].path, "cpu")
        return BeatsAudioTaggingPipeline(model=model, feature_extractor=extractor)

    def test_a_class_with_events_has_the_best_of_their_scores(self):
        means = [Label("rain", 0.4), Label("dog", 0.2)]
        assert best_scores(means, self.EVENTS) == [Label("dog", 0.9), Label("rain", 0.4)]

    def test_a_class_with_events_is_never_behind_those_with_lower_means(self):
        means = [Label(f"class {index}", 0.3) for index in range(5)]
        assert best_scores(means, self.EVENTS)[0] == Label("dog", 0.9)
        assert len(best_scores(means, self.EVENTS)) == 5

    def test_without_events_the_means_are_said_to_be_means(self, tagger):
        caption = describe_scores([Label("rain", 0.4)], [], 0.5, tagger)
        assert caption == "Means over the whole recording. At no moment does a class reach the threshold of 0.5."

    def test_labels_of_a_model_of_moments_are_said_to_be_the_highest(self, checkpoints, noise, monkeypatch):
        model, _ = analysis_module.load(checkpoints["frames"].path, "cpu", "torch")
        monkeypatch.setattr(model.config, "problem_type", "multi_label_classification")
        first, *_, last = analyse(noise, checkpoints["frames"], Settings(1.0, 10.0, 10.0), max_seconds=10)
        assert first.caption.startswith("So far: highest scores in the first ")
        assert last.caption.startswith("Highest scores in the whole recording. At no moment")

    def test_a_model_that_was_tuned_is_said_to_be(self, tagger, monkeypatch):
        monkeypatch.setattr(tagger.model.config, "event_settings", {"rain": {"threshold": 0.9}})
        assert describe_scores([Label("rain", 0.4)], [], 0.5, tagger).endswith("does a class reach its threshold.")
        assert describe_scores([Label("rain", 0.4)], [], 0.6, tagger).endswith("reach the threshold of 0.6.")

    def test_a_model_of_one_class_at_a_time_is_said_to_be_one(self, tagger):
        caption = describe_scores([Label("dog", 0.9), Label("rain", 0.4)], self.EVENTS, 0.5, tagger)
        assert "without events, the mean: 'rain'." in caption
        assert "one class at a time" in caption

    def test_a_best_class_without_events_is_explained(self, tagger):
        caption = describe_scores([Label("rain", 0.95), Label("dog", 0.9)], self.EVENTS, 0.5, tagger)
        assert "the best label, 'rain', has no event, but 'dog' has" in caption

    def test_classes_that_only_the_timeline_shows_are_counted(self, tagger):
        events = [Event(f"class {index}", 0.9, 0.0, 1.0) for index in range(7)]
        assert "The timeline has 2 more." in describe_scores(best_scores([], events), events, 0.5, tagger)


class TestSettings:
    @pytest.mark.parametrize("hop", [2.1, 0.24, 0.0, -1.0, float("nan"), "1", None])
    def test_a_hop_is_from_an_eighth_of_the_window_to_all_of_it(self, hop):
        with pytest.raises(
            ValueError, match=r"hop \(seconds\) with this window must be a number from 0\.25 to 2, got"
        ):
            Settings(0.5, 2.0, hop)

    @pytest.mark.parametrize("window", [30.1, 0.4, 1e9, float("inf"), float("nan"), "2", [2.0]])
    def test_a_window_is_bounded(self, window):
        with pytest.raises(ValueError, match=r"window \(seconds\) must be a number from 0\.5 to 30, got"):
            Settings(0.5, window, 1.0)

    @pytest.mark.parametrize("threshold", [1.1, -0.1, float("nan"), "0.5"])
    def test_a_threshold_is_a_share(self, threshold):
        with pytest.raises(ValueError, match="threshold must be a number from 0 to 1, got"):
            Settings(threshold, 2.0, 1.0)

    @pytest.mark.parametrize(("window", "hop"), [*DEFAULT_WINDOWS.values(), (0.5, 0.1), (30, 30), (2.4, 0.3)])
    def test_others_can_be_used(self, window, hop):
        assert Settings(0.5, window, hop).hop_seconds == hop


class TestLimits:
    def test_a_clip_as_long_as_the_limit_is_read(self, noise):
        blocks = open_limited(noise, RATE, 2.0).blocks
        assert sum(map(len, blocks)) == 2 * RATE

    def test_a_file_that_says_it_is_longer_is_refused_at_once(self, noise):
        with pytest.raises(ValueError, match=r"some noise\.flac is too long: this page takes at most 0:01"):
            open_limited(noise, RATE, 1.0)

    def test_a_file_whose_header_has_no_length_is_read(self, tmp_path):
        path = tmp_path / "pipe.flac"
        path.write_bytes(flac_of_unknown_length(2.0))
        assert sum(map(len, open_limited(path, RATE, 3.0).blocks)) == 2 * RATE

    def test_a_file_whose_header_has_no_length_is_refused_above_the_limit(self, tmp_path):
        path = tmp_path / "pipe.flac"
        path.write_bytes(flac_of_unknown_length(5.0))
        with pytest.raises(ValueError, match="too long"):
            open_limited(path, RATE, 2.0)

    @pytest.mark.parametrize(
        ("limits", "problem"),
        [
            ((float("inf"), 5), "--max-seconds must be finite, got inf"),
            ((float("nan"), 5), "--max-seconds must be finite, got nan"),
            ((0.5, 5), "--max-seconds must be at least 1, got 0.5"),
            ((60, 0), "--max-megabytes must be at least 1, got 0"),
        ],
    )
    def test_limits_are_finite(self, limits, problem):
        with pytest.raises(UsageError, match=re.escape(problem)):
            Limits(*limits)

    def test_they_are_said_as_people_say_them(self):
        assert str(Limits()) == "30:00 (min:s) and 200 MB"
        assert str(Limits(max_seconds=7200)) == "2:00:00 (h:min:s) and 200 MB"


class TestRespond:
    @pytest.fixture(autouse=True)
    def _gradio(self):
        pytest.importorskip("gradio", reason="the page needs gradio")

    @pytest.fixture
    def answer(self, checkpoints):
        """All answers to a clip: message, labels, timeline, table, downloads, record and what is reset."""

        def answer(clip, checkpoint=checkpoints["clips"]):
            settings = (SETTINGS.threshold, SETTINGS.window_seconds, SETTINGS.hop_seconds)
            return list(respond(clip, "model", *settings, {"model": checkpoint}, 10, "cpu"))

        return answer

    def test_without_a_clip_it_says_what_to_do(self, answer):
        ((message, *rest),) = answer(None)
        assert "Record or drop a sound" in message
        assert rest[:5] == ["", "", "", "", None]

    def test_a_result_fills_the_page(self, answer, noise):
        message, labels, timeline, table, downloads, record = answer(str(noise))[-1][:6]
        assert message == '<p role="status">some noise.flac: 2.0 s, 3 events, heard by model</p>'
        assert labels.count("<li>") == 3
        assert timeline.count("data-start") == table.count("data-start") == 3
        assert downloads.count("download=") == 4
        assert [event["label"] for event in record["events"]] == ["cat", "dog", "rain"]

    def test_results_appear_one_after_the_other(self, answer, noise):
        filled = [[bool(value) for value in values[1:5]] for values in answer(str(noise))]
        assert filled == sorted(filled)
        # Nothing, labels, events with their timeline, and downloads with the picture.
        assert [sum(values) for values in filled if values] == sorted(map(sum, filled))
        assert {sum(values) for values in filled} == {0, 1, 3, 4}

    def test_only_the_last_answer_has_no_bar(self, answer, noise):
        *others, last = ["<progress" in values[0] for values in answer(str(noise))]
        assert all(others)
        assert not last

    def test_tokens_of_the_clip_before_are_gone_and_their_tab_is_closed(self, answer, noise):
        tokens, shown, tabs, pending = answer(str(noise))[0][6:]
        assert (tokens, shown, pending) == ("", None, "")
        assert tabs.selected == "timeline"

    def test_it_leaves_no_file(self, answer, noise, tmp_path, monkeypatch):
        monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
        before = sorted(tmp_path.rglob("*"))
        answer(str(noise))
        assert sorted(tmp_path.rglob("*")) == before

    def test_a_bad_file_is_a_message_without_the_directory(self, answer, tmp_path):
        path = tmp_path / "bad.wav"
        path.write_text("no audio")
        message, *rest = answer(str(path))[-1]
        assert message.startswith('<p role="alert">bad.wav: holds text and no audio')
        assert str(tmp_path) not in message
        assert rest[:5] == ["", "", "", "", None]

    def test_a_damaged_checkpoint_is_a_message(self, answer, models, noise, tmp_path):
        for name in ("config.json", "preprocessor_config.json"):
            (tmp_path / name).write_bytes((models / "clips" / name).read_bytes())
        (tmp_path / "model.safetensors").write_bytes(b"\x08\0\0\0\0\0\0\0damaged!")
        message = answer(str(noise), Checkpoint("damaged", tmp_path, "clips"))[-1][0]
        assert message.startswith(f'<p role="alert">{tmp_path.name}: cannot be loaded')
        # Visitors are not told the paths of models.
        assert str(tmp_path.parent) not in message

    @pytest.mark.parametrize("error", [MemoryError("too long"), RuntimeError("too long")])
    def test_too_little_memory_is_a_message(self, answer, noise, error, monkeypatch):
        def fail(*arguments):
            yield Analysis(labels=[Label("dog", 0.5)])
            raise error

        monkeypatch.setattr(web_module, "analyse", fail)
        message, *rest = answer(str(noise))[-1]
        assert message == '<p role="alert">too long</p>'
        assert rest[:5] == ["", "", "", "", None]

    def test_tokens_are_computed_once(self, checkpoints, noise):
        arguments = ({"tokens": checkpoints["tokens"]}, 10, "cpu")
        *_, (tokens, shown) = respond_with_tokens(str(noise), "tokens", None, *arguments)
        assert "96 tokens" in tokens
        assert shown == (str(noise), "tokens")
        ((again, _),) = respond_with_tokens(str(noise), "tokens", shown, *arguments)
        assert not isinstance(again, str)

    def test_without_a_tokenizer_nothing_is_computed(self, noise):
        ((tokens, shown),) = respond_with_tokens(str(noise), None, None, {}, 10, "cpu")
        assert not isinstance(tokens, str)
        assert not isinstance(shown, tuple)

    def test_tokens_of_a_bad_file_are_a_message(self, checkpoints, tmp_path):
        path = tmp_path / "bad.wav"
        path.write_text("no audio")
        *_, (tokens, shown) = respond_with_tokens(
            str(path), "tokens", None, {"tokens": checkpoints["tokens"]}, 10, "cpu"
        )
        assert tokens.startswith('<p role="alert">bad.wav: holds text')
        assert shown is None


class TestViews:
    NAME = '<b>&".wav'
    EVENTS = [Event(NAME, 0.9, 1.0, 2.0), Event("dog", 0.8, 1.5, 2.5)]

    @pytest.fixture
    def analysis(self) -> Analysis:
        spectrogram = Spectrogram(np.linspace(-80, 0, 400 * 128, dtype=np.float32).reshape(400, 128), 0.01, RATE)
        return Analysis("picture", [Label(self.NAME, 0.9)], "", 1.0, events=self.EVENTS, spectrogram=spectrogram)

    @staticmethod
    def picture(html: str) -> Image.Image:
        (data,) = re.findall(r'src="data:image/png;base64,([^"]+)"', html)
        return Image.open(io.BytesIO(base64.b64decode(data)))

    def test_names_of_files_are_no_html(self):
        assert as_html("<b>&.wav") == '<p role="status">&lt;b&gt;&amp;.wav</p>'

    @pytest.mark.parametrize("function", [show_timeline, show_downloads])
    def test_names_are_no_html_in_results(self, analysis, function):
        assert "<b>" not in function(self.NAME, analysis)

    def test_labels_are_no_html(self, analysis):
        assert "<b>" not in show_labels(analysis)
        assert "<b>" not in show_table(self.EVENTS)

    def test_warnings_of_the_decoder_are_shown(self, analysis):
        report = AudioReport(4.0, 5.0, ["a.wav: is shorter than its header says."])
        assert "a.wav: is shorter than" in show_message("a.wav", replace(analysis, report=report), "model")

    def test_events_are_under_their_time(self, analysis):
        bars = re.findall(r'<i style="left:([\d.]+)%;width:([\d.]+)%', show_timeline("a.wav", analysis))
        assert [tuple(map(float, bar)) for bar in bars] == [(25.0, 25.0), (37.5, 25.0)]

    def test_the_picture_has_the_high_frequencies_above(self, analysis):
        picture = self.picture(show_timeline("a.wav", analysis)).convert("L")
        assert picture.size == (400, 128)
        # The levels rise with the time, and within a frame with the frequency.
        assert picture.getpixel((200, 0)) >= picture.getpixel((200, 127))
        assert picture.getpixel((399, 64)) > picture.getpixel((0, 64))

    def test_the_picture_is_said_in_words(self, analysis):
        assert 'alt="Spectrogram of a.wav, 4.0 s. Events: ' in show_timeline("a.wav", analysis)

    def test_each_event_is_a_button_that_says_what_it_plays(self, analysis):
        for html in (show_timeline("a.wav", analysis), show_table(self.EVENTS)):
            assert 'aria-label="Play dog, 1.50 to 2.50 s, score 0.80"' in html

    def test_a_timeline_without_events_says_so(self, analysis):
        assert "No events." in show_timeline("a.wav", replace(analysis, events=[]))
        assert "No events" in show_table([])

    def test_downloads_are_those_of_the_command_line(self, analysis):
        links = re.findall(r'download="([^"]+)" href="data:([^;]+);base64,([^"]+)"', show_downloads("a.wav", analysis))
        contents = {name: base64.b64decode(data) for name, _, data in links}
        assert list(contents) == ["a.csv", "a.json", "a.txt", "a.png"]
        assert contents["a.csv"].decode().splitlines()[0] == ",".join(csv_header(with_events=True))
        assert json.loads(contents["a.json"])["events"][1]["label"] == "dog"
        assert contents["a.txt"].decode().splitlines()[1] == "1.500000\t2.500000\tdog"
        assert contents["a.png"].startswith(b"\x89PNG")

    def test_tokens_have_the_colours_of_their_codes(self):
        codes = Columns(np.arange(32).reshape(4, 8) % 5, first=0, column_seconds=0.16)
        tokens = Tokens(1.0, codes, np.random.default_rng(0).standard_normal((5, 3)), BeatsFeatureExtractor())
        html = show_tokens("a.wav", tokens)
        assert "32 tokens, 5 different ones of 5" in html
        picture = self.picture(html)
        assert picture.size == (4, 8)
        # From low to high frequencies, upwards.
        expected = (255 * code_colors(tokens.codebook)[codes.values[2, 0]]).round().tolist()
        assert list(picture.getpixel((2, 7))) == expected


def test_sample_sounds_are_one_of_each_class_and_a_scene(tmp_path):
    samples = write_samples(tmp_path)
    assert list(samples) == [*CLASSES, "scene"]
    seconds = {name: soundfile.info(path).duration for name, path in samples.items()}
    assert seconds == {**dict.fromkeys(CLASSES, 3.0), "scene": 12.0}


class TestPage:
    @pytest.fixture(autouse=True)
    def _gradio(self):
        pytest.importorskip("gradio", reason="the page needs gradio")

    @staticmethod
    def components(page, kind) -> list[dict]:
        return [item["props"] for item in page.get_config_file()["components"] if item["type"] == kind]

    def test_classifiers_and_tokenizers_can_be_chosen(self, checkpoints, tmp_path):
        page = build_page(list(checkpoints.values()), Limits(), write_samples(tmp_path), "cpu")
        tokenizer, model = self.components(page, "dropdown")
        assert [name for name, _ in model["choices"]] == ["clips", "frames"]
        assert [name for name, _ in tokenizer["choices"]] == ["tokens"]
        assert not tokenizer["visible"]

    def test_without_a_tokenizer_a_hint_takes_the_place_of_the_tokens(self, checkpoints, tmp_path):
        page = build_page([checkpoints["clips"]], Limits(), write_samples(tmp_path), "cpu")
        hints = [item for item in self.components(page, "markdown") if "No tokenizer" in item["value"]]
        assert [hint["visible"] for hint in hints] == [True]

    def test_it_says_its_limits(self, checkpoints, tmp_path):
        page = build_page([checkpoints["clips"]], Limits(90, 5), write_samples(tmp_path), "cpu")
        assert "up to 1:30 (min:s) and 5 MB" in self.components(page, "markdown")[0]["value"]

    def test_the_setup_page_says_what_to_set(self):
        page = build_setup_page("/app/models: no such directory.")
        assert "/app/models: no such directory." in self.components(page, "html")[0]["value"]
        assert "BEATS_MODEL" in self.components(page, "markdown")[1]["value"]


class Served(NamedTuple):
    """A page that is served, and the clips that it has computed."""

    url: str
    functions: list[int]
    analysed: list[Path]

    def post(self, route: str, body: bytes, **headers: str) -> Any:
        request = Request(f"{self.url}gradio_api/{route}", body, {"Content-Type": "application/json", **headers})
        with urlopen(request, timeout=60) as response:
            return json.load(response)

    def upload(self, path: Path) -> str:
        """The file's name on the server."""
        parts = [f'--part\r\nContent-Disposition: form-data; name="files"; filename="{path.name}"\r\n\r\n'.encode()]
        body = b"".join([*parts, path.read_bytes(), b"\r\n--part--\r\n"])
        return self.post("upload", body, **{"Content-Type": "multipart/form-data; boundary=part"})[0]

    def call(self, *inputs: Any) -> str:
        """A call of the API that waits for its turn: its id."""
        return self.post("call/analyse", json.dumps({"data": inputs}).encode())["event_id"]

    def answer(self, event: str) -> str:
        with urlopen(f"{self.url}gradio_api/call/analyse/{event}", timeout=60) as response:
            return response.read().decode()


def file_data(path: str) -> dict:
    """As clients of Gradio give files."""
    return {"path": path, "meta": {"_type": "gradio.FileData"}}


@pytest.fixture(scope="module")
def served(checkpoints, tmp_path_factory):
    """A page on a real server. Clips take a moment, and two of them at once are an error."""
    pytest.importorskip("gradio", reason="the page needs gradio")
    analysed, turn = [], threading.Lock()

    def note(path, *arguments):
        assert turn.acquire(blocking=False)
        time.sleep(0.2)
        turn.release()
        analysed.append(path)
        spectrogram = Spectrogram(np.zeros((100, 128), dtype=np.float32), 0.01, RATE)
        yield Analysis("picture", [], "", 1.0, events=[], spectrogram=spectrogram)

    directory = tmp_path_factory.mktemp("served")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADIO_TEMP_DIR", str(directory / "gradio"))
        patch.setenv("GRADIO_ANALYTICS_ENABLED", "False")
        patch.setattr(web_module, "analyse", note)
        page = build_page(list(checkpoints.values()), Limits(), write_samples(directory), "cpu")
        _, url, _ = page.launch(prevent_thread_lock=True, quiet=True, share=False, ssr_mode=False)
        # Others are functions of the browser alone.
        functions = [number for number, function in page.fns.items() if function.fn is not None]
        yield Served(url, functions, analysed)
        page.close(verbose=False)


class TestAlike:
    """Comparison with another clip, and with the recordings of an index."""

    @pytest.fixture(autouse=True)
    def _gradio(self):
        pytest.importorskip("gradio", reason="the page needs gradio")

    @pytest.fixture
    def other(self, tmp_path):
        path = tmp_path / "another <noise>.wav"
        soundfile.write(path, 0.1 * np.random.default_rng(1).standard_normal(3 * RATE), RATE)
        return path

    @pytest.fixture
    def library(self, models, noise, other, tmp_path):
        """An index of seconds of two recordings, in two folders, of which the second was then removed."""
        folder = tmp_path / "secret"
        for name, path in (("first", noise), ("second", other)):
            (folder / name).mkdir(parents=True)
            shutil.copy(path, folder / name)
        words = ["index", folder, "-m", models / "clips", "-o", tmp_path / "index", "--segments", "0.96", "-q"]
        result = CliRunner().invoke(app, [*map(str, words)])
        assert result.exit_code == 0, result.output
        (folder / "second" / other.name).unlink()
        return Library(tmp_path / "index", "cpu")

    def compare(self, clip, other, checkpoints, shown=None):
        classifiers = {"model": checkpoints["clips"]}
        return list(respond_with_comparison(clip, other, "model", shown, classifiers, 10, "cpu"))

    def test_two_clips_are_compared(self, checkpoints, noise, other):
        *bars, (text, shown) = self.compare(str(noise), str(other), checkpoints)
        assert all("<progress" in bar and key is None for bar, key in bars)
        assert len(bars) > 1
        model, extractor = analysis_module.load(checkpoints["clips"].path, "cpu")
        first, second = (WindowedInference(model, extractor).embed(path) for path in (noise, other))
        similarity = first @ second / np.linalg.norm(first) / np.linalg.norm(second)
        assert f"some noise.flac and another &lt;noise&gt;.wav: {similarity:.3f} " in text
        assert text.count("<tr>") == 4
        assert str(noise.parent) not in text
        assert shown == (str(noise), str(other), "model")

    @pytest.mark.parametrize("kind", ["comparison", "search"])
    def test_without_a_known_length_it_can_be_cancelled_after_every_batch(
        self, checkpoints, library, endless, batches, kind
    ):
        clip, classifiers = str(endless), {"model": checkpoints["clips"]}
        if kind == "comparison":
            results = respond_with_comparison(clip, clip, "model", None, classifiers, 1000, "cpu")
        else:
            results = respond_with_similar(clip, None, library, 1000)
        found = [len(batches) for text, _ in results if "<progress" in text]
        assert len(batches) >= 4
        # Two clips are read in step.
        assert max(np.diff(found)) <= 2
        assert found[-1] >= len(batches) - 2

    def test_what_is_shown_is_not_compared_again(self, checkpoints, noise, other):
        shown = (str(noise), str(other), "model")
        assert len(self.compare(*shown[:2], checkpoints, shown)) == 1
        assert "Choose another sound" in self.compare(str(noise), None, checkpoints)[0][0]

    def test_a_bad_clip_is_a_message_without_the_directory(self, checkpoints, noise, tmp_path):
        path = tmp_path / "bad.wav"
        path.write_text("no audio")
        text, shown = self.compare(str(noise), str(path), checkpoints)[-1]
        assert text.startswith('<p role="alert">bad.wav: holds text and no audio')
        assert str(tmp_path) not in text
        assert shown is None

    def test_similar_moments_have_the_sound_of_the_index(self, library, noise):
        *_, found = library.find(library.open(noise, 10))
        best = found[0]
        assert best.name == f"first/{noise.name}"
        assert best.similarity == pytest.approx(1, abs=1e-3)
        samples, rate = soundfile.read(io.BytesIO(best.sound))
        assert rate == RATE
        expected = decode_audio(noise, RATE, round(best.start * RATE), round((best.end - best.start) * RATE))
        np.testing.assert_allclose(samples, expected, atol=1e-4)
        # Their file is gone.
        assert {item.name: item.sound for item in found if item.sound is None} == {"second/another <noise>.wav": None}

    def test_the_list_names_no_folder_of_the_machine(self, library, noise, tmp_path):
        *_, (text, shown) = respond_with_similar(str(noise), None, library, 10)
        assert str(tmp_path) not in text
        assert "secret" not in text
        assert "another &lt;noise&gt;.wav" in text
        assert text.count("<audio") == text.count("data:audio/flac;base64,") > 0
        assert "is gone or cannot be read" in text
        assert shown[0] == str(noise)
        assert len(list(respond_with_similar(str(noise), shown, library, 10))) == 1
        # Where the sound is removed, what was found for it goes.
        assert list(respond_with_similar(None, shown, library, 10)) == [("", None)]

    def test_an_index_that_is_updated_is_searched_as_it_is_now(self, library, models, noise, tmp_path):
        *_, before = library.find(library.open(noise, 10))
        *_, (_, shown) = respond_with_similar(str(noise), None, library, 10)
        shutil.copy(noise, tmp_path / "secret" / "second" / "new.flac")
        words = ["index", tmp_path / "secret", "-m", models / "clips", "-o", tmp_path / "index", "--segments", "0.96"]
        assert CliRunner().invoke(app, [*map(str, words)]).exit_code == 0
        # Also what is shown already, and what is shown to others.
        for _ in range(2):
            *_, (text, _) = respond_with_similar(str(noise), shown, library, 10)
            assert "new.flac" in text
        *_, after = library.find(library.open(noise, 10))
        assert {item.name for item in before} == {"first/some noise.flac", "second/another <noise>.wav"}
        assert {item.name for item in after} == {"first/some noise.flac", "second/new.flac"}

    @pytest.mark.parametrize("damage", ["parts", "model", "everything"])
    def test_an_index_that_cannot_be_read_is_a_message_without_its_place(
        self, library, noise, tmp_path, capsys, damage
    ):
        manifest = tmp_path / "index" / "index.json"
        if damage == "everything":
            shutil.rmtree(tmp_path / "index")
        elif damage == "model":
            record = json.loads(manifest.read_text())
            record["settings"]["model"] = "another"
            manifest.write_text(json.dumps(record))
        else:
            for path in (tmp_path / "index").glob("*.safetensors"):
                path.unlink()
        *_, (text, shown) = respond_with_similar(str(noise), None, library, 10)
        assert (text, shown) == ('<p role="alert">The recordings cannot be searched now: try again later.</p>', None)
        assert str(tmp_path / "index") in capsys.readouterr().err

    def test_warnings_of_the_clip_are_shown(self, library, noise, tmp_path):
        samples, _ = soundfile.read(noise)
        soundfile.write(tmp_path / "cut.wav", samples, RATE)
        data = (tmp_path / "cut.wav").read_bytes()
        (tmp_path / "cut.wav").write_bytes(data[: len(data) // 2])
        *_, (text, shown) = respond_with_similar(str(tmp_path / "cut.wav"), None, library, 10)
        assert re.search(r'<p role="status">[^<]*which its header states', text)
        assert shown[0] == str(tmp_path / "cut.wav")

    def test_long_moments_are_cut_and_silence_is_a_message(self, models, tmp_path):
        folder = tmp_path / "sounds"
        folder.mkdir()
        long = 0.1 * np.random.default_rng(0).standard_normal(12 * RATE)
        soundfile.write(folder / "long.wav", long, RATE)
        words = ["index", folder, "-m", models / "clips", "-o", tmp_path / "index", "-q"]
        assert CliRunner().invoke(app, [*map(str, words)]).exit_code == 0
        library = Library(tmp_path / "index", "cpu")
        *_, (found,) = library.find(library.open(folder / "long.wav", 20))
        assert soundfile.info(io.BytesIO(found.sound)).duration == pytest.approx(10)
        soundfile.write(tmp_path / "silence.wav", np.zeros(RATE), RATE)
        (*_, (text, _)) = respond_with_similar(str(tmp_path / "silence.wav"), None, library, 10)
        assert "digital silence" in text
        (*_, (text, _)) = respond_with_similar(str(folder / "long.wav"), None, library, 10)
        assert "long.wav is too long" in text

    def test_a_page_has_the_tab_of_similar_recordings_with_an_index_only(self, checkpoints, library, tmp_path):
        for given in (library, None):
            page = build_page([checkpoints["clips"]], Limits(), write_samples(tmp_path), "cpu", given)
            jobs = [job.name for job in page.fns.values()]
            assert ("find_similar" in jobs) == (given is not None)
            assert "compare_clips" in jobs

    def test_a_missing_index_is_an_error_at_the_start(self, models, tmp_path):
        with pytest.raises(ValueError, match="no such index"):
            serve([models], Limits(), index=tmp_path / "nowhere")


class TestTurns:
    """One step at a time, whatever Gradio's queue allows: it begins the next job while a cancelled one computes."""

    def test_a_step_is_computed_alone_and_others_may_follow_it(self):
        def job(name):
            for number in range(2):
                assert COMPUTING.locked()
                yield name, number
            assert COMPUTING.locked()

        first, second, told = in_turn(job("a")), in_turn(job("b")), []
        for results in (first, second, second, first):
            told.append(next(results))
            assert not COMPUTING.locked()
        assert told == [("a", 0), ("b", 0), ("b", 1), ("a", 1)]
        assert list(first) == list(second) == []
        assert not COMPUTING.locked()

    def test_a_step_waits_for_that_of_a_job_that_was_cancelled(self):
        begun, goes_on, busy = threading.Event(), threading.Event(), []

        def job():
            busy.append(None)
            assert len(busy) == 1
            begun.set()
            assert goes_on.wait(60)
            busy.pop()
            yield "done"

        # Nobody waits for the first any more.
        results: list[str] = []
        threads = [
            threading.Thread(target=lambda: results.append(next(in_turn(job()))), daemon=True) for _ in range(2)
        ]
        for thread in threads:
            thread.start()
        assert begun.wait(60)
        # Time for the second to begin, if it could.
        threads[1].join(0.2)
        assert threads[1].is_alive()
        goes_on.set()
        for thread in threads:
            thread.join(60)
        assert not any(thread.is_alive() for thread in threads)
        assert results == ["done"] * 2

    def test_after_an_error_the_next_is_computed(self):
        def fail():
            yield "begun"
            raise RuntimeError("no memory")

        results = in_turn(fail())
        assert next(results) == "begun"
        with pytest.raises(RuntimeError, match="no memory"):
            next(results)
        assert list(in_turn(iter("ab"))) == ["a", "b"]

    def test_all_that_computes_takes_turns(self, checkpoints, tmp_path, monkeypatch):
        pytest.importorskip("gradio", reason="the page needs gradio")

        def respond(*arguments):
            yield COMPUTING.locked()

        names = ("respond", "respond_with_tokens", "respond_with_comparison", "respond_with_similar")
        for name in names:
            monkeypatch.setattr(web_module, name, respond)
        library: Any = object()
        page = build_page([checkpoints["clips"]], Limits(), write_samples(tmp_path), "cpu", library)
        jobs = {job.name: job for job in page.fns.values() if job.concurrency_id == "analyse"}
        assert set(jobs) == {"analyse_clip", "tokenize_clip", "compare_clips", "find_similar"}
        for job in jobs.values():
            assert list(job.fn(*[None] * len(job.inputs))) == [True]


class TestServer:
    @pytest.fixture
    def requests(self, monkeypatch):
        """Another site, which Gradio takes for a public one: its address, and the requests that arrive there."""
        requests = []

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                requests.append(self.path)
                self.send_error(404)

        monkeypatch.setattr("gradio.processing_utils.PUBLIC_HOSTNAME_WHITELIST", ["localhost"])
        with HTTPServer(("127.0.0.1", 0), Handler) as server:
            thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
            thread.start()
            yield f"http://localhost:{server.server_port}/clip.wav", requests
            server.shutdown()
            thread.join()

    def test_calls_that_do_not_wait_for_their_turn_are_refused(self, served):
        before = list(served.analysed)
        inputs = [None, "clips", 0.5, 2, 1]
        calls = [("run/analyse", None), ("api/analyse", None)]
        calls += [("run/predict", function) for function in served.functions]
        for route, function in calls:
            with pytest.raises(HTTPError) as error:
                served.post(route, json.dumps({"data": inputs, "fn_index": function}).encode())
            assert error.value.code == 404
            assert "join the queue" in error.value.read().decode()
        assert served.analysed == before

    def test_clips_are_computed_one_at_a_time(self, served, noise):
        inputs = [file_data(served.upload(noise)), "clips", 0.5, 2, 1]
        answers = [served.answer(event) for event in [served.call(*inputs) for _ in range(3)]]
        assert all("some noise.flac: 1.0 s, 0 events, heard by clips" in answer for answer in answers)

    def test_whatever_starts_a_computation_waits_in_the_same_queue(self, checkpoints, tmp_path):
        pytest.importorskip("gradio", reason="the page needs gradio")
        page = build_page([checkpoints["clips"]], Limits(), write_samples(tmp_path), "cpu")
        queues = [job.concurrency_id for job in page.fns.values() if job.name in ("analyse_clip", "tokenize_clip")]
        assert queues == ["analyse"] * 3

    def test_an_upload_is_computed(self, served, noise):
        answer = served.answer(served.call(file_data(served.upload(noise)), "clips", 0.5, 2, 1))
        assert "some noise.flac: 1.0 s, 0 events, heard by clips" in answer
        assert served.analysed[-1].name == noise.name

    @pytest.mark.parametrize(
        ("position", "value", "problem"),
        [
            (1, None, "Model: choose one."),
            (2, None, "Threshold of events (0.5: the model's own, if it was tuned): enter a number."),
            (3, None, "Window of events (seconds): enter a number."),
            (4, None, "Hop of events (seconds), an eighth of the window or more: enter a number."),
            (3, "", "Window of events (seconds): enter a number."),
            (2, [0.5], "Threshold of events (0.5: the model's own, if it was tuned): enter a number."),
        ],
    )
    def test_an_empty_setting_is_named(self, served, noise, position, value, problem):
        before = list(served.analysed)
        inputs = [file_data(served.upload(noise)), "clips", 0.5, 2, 1]
        inputs[position] = value
        answer = served.answer(served.call(*inputs))
        assert answer.startswith("event: error")
        assert problem in answer
        assert served.analysed == before

    def test_the_record_is_the_sixth_value_of_the_last_answer(self, served, noise):
        answer = served.answer(served.call(file_data(served.upload(noise)), "clips", 0.5, 2, 1))
        values = json.loads(answer.rpartition("data: ")[2])
        assert values[5]["file"] == noise.name

    @pytest.mark.parametrize("position", range(5))
    def test_an_address_is_not_loaded(self, served, requests, position):
        address, arrived = requests
        before = list(served.analysed)
        inputs = [None, "clips", 0.5, 2, 1]
        # Gradio looks for files in all inputs.
        inputs[position] = file_data(address) if position == 0 else [file_data(address)]
        answer = served.answer(served.call(*inputs))
        assert arrived == []
        assert answer.startswith("event: error")
        assert "this page loads nothing from addresses" in answer
        assert served.analysed == before


class TestServe:
    @pytest.fixture
    def launched(self, monkeypatch, tmp_path):
        """What pages are launched with, instead of being launched, and their temporary directories."""
        gradio = pytest.importorskip("gradio", reason="the page needs gradio")
        launched = []

        def launch(page, **options):
            launched.append({"page": page, "directory": Path(os.environ["GRADIO_TEMP_DIR"]).parent, **options})

        monkeypatch.setattr(gradio.Blocks, "launch", launch)
        monkeypatch.setattr(gradio.Blocks, "block_thread", lambda page: None)
        # Set by `serve`, and put back after the test.
        monkeypatch.setenv("GRADIO_TEMP_DIR", "")
        monkeypatch.setenv("GRADIO_ANALYTICS_ENABLED", "")
        monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
        handler = signal.getsignal(signal.SIGTERM)
        yield launched
        signal.signal(signal.SIGTERM, handler)

    def test_nothing_is_shared_or_sent(self, launched, models):
        serve([models], Limits())
        (options,) = launched
        assert options["share"] is False
        assert options["server_name"] is None
        assert not options["page"].analytics_enabled
        assert os.environ["GRADIO_ANALYTICS_ENABLED"] == "False"
        assert "allowed_paths" not in options
        assert all("googleapis" not in str(sheet) for sheet in options["theme"]._stylesheets)

    def test_temporary_files_are_gone_at_the_end(self, launched, models, tmp_path):
        serve([models], Limits())
        assert launched[0]["directory"].parent == tmp_path
        assert list(tmp_path.iterdir()) == []

    def test_nothing_is_left_by_a_signal_while_the_page_is_made(self, launched, models, tmp_path, monkeypatch):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)

        def stop(sources, backend):
            assert [path.name.startswith("beats-web-") for path in tmp_path.iterdir()] == [True]
            signal.raise_signal(signal.SIGTERM)

        monkeypatch.setattr(web_module, "find_checkpoints", stop)
        with pytest.raises(KeyboardInterrupt):
            serve([models], Limits())
        assert list(tmp_path.iterdir()) == []

    def test_the_size_of_uploads_is_limited(self, launched, models):
        serve([models], Limits(max_megabytes=3))
        assert launched[0]["max_file_size"] == 3 * 2**20

    def test_a_space_without_a_model_explains_itself(self, launched, tmp_path):
        serve([tmp_path / "models"], Limits(), explain=True)
        texts = [item["props"].get("value") for item in launched[0]["page"].get_config_file()["components"]]
        assert any("BEATS_MODEL" in str(text) for text in texts)

    def test_a_space_whose_model_cannot_be_fetched_explains_itself(self, launched, monkeypatch):
        def fail(name):
            raise BeatsError(f"{name}: no connection; try again.")

        monkeypatch.setattr("transformers_beats.conversion.released.get", fail)
        serve(["beats-iter3"], Limits(), explain=True)
        texts = [item["props"].get("value") for item in launched[0]["page"].get_config_file()["components"]]
        assert any("beats-iter3: no connection; try again." in str(text) for text in texts)

    def test_a_device_that_cannot_be_used_is_an_error_at_the_start(self, launched, models):
        with pytest.raises(ValueError, match="--device nothing: "):
            serve([models], Limits(), device="nothing")
        assert launched == []

    def test_an_address_that_is_none_is_an_error_at_the_start(self, no_such_host, launched, models):
        with pytest.raises(ValueError, match=r"--host 999\.1\.1\.1: "):
            serve([models], Limits(), host="999.1.1.1")
        assert launched == []

    def test_the_address_is_that_of_the_variables_too(self, launched, models, monkeypatch):
        monkeypatch.setattr("transformers_beats.web.address.try_address", lambda family, address: None)
        monkeypatch.setenv("GRADIO_SERVER_NAME", "::1")
        monkeypatch.setenv("GRADIO_SERVER_PORT", "7901")
        serve([models], Limits())
        assert (launched[0]["server_name"], launched[0]["server_port"]) == ("[::1]", 7901)

    def test_a_missing_model_is_an_error_elsewhere(self, launched, tmp_path):
        with pytest.raises(ValueError, match="no such directory"):
            serve([tmp_path / "models"], Limits())
        assert launched == []


class TestCommandLine:
    def run(self, *arguments):
        app = typer.Typer()
        app.command()(main)
        return CliRunner().invoke(app, [str(argument) for argument in arguments], env={"BEATS_MODEL": None})

    def test_without_a_model_it_says_how_to_get_one(self):
        result = self.run()
        assert result.exit_code == 2
        assert "transformers-beats demo --output demo-output" in result.stderr
        assert "--model demo-output" in result.stderr

    def test_unknown_options_exit_with_status_2(self):
        assert self.run("--modle", "x").exit_code == 2

    def test_options_reach_the_page(self, monkeypatch, models):
        calls = []
        monkeypatch.setattr(web_module, "serve", lambda *arguments, **named: calls.append((*arguments, named)))
        words = ["-m", models, "-m", "b", "--index", "i", "--max-seconds", 60, "--max-megabytes", 5, "--port", 7000]
        result = self.run(*words, "--backend", "auto")
        assert result.exit_code == 0
        named = {"index": Path("i"), "backend": "auto"}
        assert calls == [([str(models), "b"], Limits(60, 5), "auto", None, 7000, named)]

    def test_a_limit_without_an_end_is_one_line(self, models):
        result = self.run("-m", models, "--max-seconds", "inf")
        assert result.exit_code == 2
        assert result.stderr == "error: --max-seconds must be finite, got inf.\n"

    def test_without_gradio_it_says_what_to_install(self, monkeypatch, models):
        monkeypatch.setitem(sys.modules, "gradio", None)
        monkeypatch.setenv("GRADIO_TEMP_DIR", "")
        monkeypatch.setenv("GRADIO_ANALYTICS_ENABLED", "")
        result = self.run("-m", models)
        assert result.exit_code == 1
        assert result.stderr == "error: The page needs Gradio: pip install 'transformers-beats[web]'\n"


@pytest.mark.parametrize(
    ("variable", "expected"),
    [("", [Path("models")]), ("someone/beats /data/tokenizer", ["someone/beats", "/data/tokenizer"])],
)
def test_a_space_takes_its_models_from_a_variable_or_a_folder(monkeypatch, variable, expected):
    calls = []
    monkeypatch.setattr(web_module, "serve", lambda models, limits, explain: calls.append((models, explain)))
    monkeypatch.setenv("BEATS_MODEL", variable)
    root = Path(__file__).parents[2]
    runpy.run_path(str(root / "app.py"), run_name="__main__")
    assert calls == [([root / path if isinstance(path, Path) else path for path in expected], True)]


def test_a_space_that_cannot_be_served_is_one_line(monkeypatch, capsys):
    monkeypatch.setenv("GRADIO_SERVER_PORT", "abc")
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(Path(__file__).parents[2] / "app.py"), run_name="__main__")
    assert end.value.code == 2
    expected = "error: GRADIO_SERVER_PORT must be a port from 1 to 65535, got 'abc'.\n"
    assert capsys.readouterr().err == expected


def test_importing_the_package_does_not_import_gradio():
    program = "import sys, transformers_beats; print('gradio' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout == "False\n"
