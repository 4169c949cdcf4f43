# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
import io
import json
import os
import runpy
import shutil
import signal
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any, NamedTuple
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import numpy as np
import pytest
import soundfile
import typer
from typer.testing import CliRunner

from transformers_beats import (
    BeatsConfig,
    BeatsFeatureExtractor,
    BeatsForAudioClassification,
    BeatsForAudioFrameClassification,
    BeatsModel,
    BeatsRandomProjectionTokenizer,
)
from transformers_beats.audio.decoding import AudioStream, open_audio
from transformers_beats.audio.synthesis import CLASSES
from transformers_beats.configuration_beats import BeatsRandomProjectionTokenizerConfig
from transformers_beats.inference.pipeline import read_in_step
from transformers_beats.inference.windowed import Columns
from transformers_beats.web import analysis as analysis_module
from transformers_beats.web import page as web_module
from transformers_beats.web.analysis import (
    DEFAULT_WINDOWS,
    Analysis,
    Checkpoint,
    Settings,
    analyse,
    find_checkpoints,
    open_limited,
)
from transformers_beats.web.page import (
    Limits,
    as_html,
    build_page,
    build_setup_page,
    main,
    serve,
    show,
    write_samples,
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
    def test_it_has_labels_events_and_a_picture(self, checkpoints, noise, kind):
        analysis = analyse(noise, checkpoints[kind], None, SETTINGS, max_seconds=10)
        assert set(analysis.labels) == {"cat", "dog", "rain"}
        assert sum(analysis.labels.values()) == pytest.approx(1)
        assert {event.label for event in analysis.events} == {"cat", "dog", "rain"}
        assert all(0 <= event.start < event.end <= 2 for event in analysis.events)
        assert min(analysis.timeline.size) > 200
        assert analysis.tokens is None
        assert analysis.message == f"some noise.flac: 2.0 s, 3 events, heard by {kind}"

    def test_a_tokenizer_adds_a_picture_of_tokens(self, checkpoints, noise):
        analysis = analyse(noise, checkpoints["clips"], checkpoints["tokens"], SETTINGS, max_seconds=10)
        colors = analysis.tokens.convert("RGB").getcolors(analysis.tokens.width * analysis.tokens.height)
        # 12 columns of 8 tokens; noise hardly has the same one twice.
        assert sum(count > 200 for count, _ in colors) > 40

    def test_it_leaves_no_file(self, checkpoints, noise, tmp_path, monkeypatch):
        monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
        before = sorted(tmp_path.rglob("*"))
        analyse(noise, checkpoints["clips"], checkpoints["tokens"], SETTINGS, max_seconds=10)
        assert sorted(tmp_path.rglob("*")) == before

    def test_it_reports_what_it_does(self, checkpoints, noise):
        reports = []
        analyse(noise, checkpoints["clips"], checkpoints["tokens"], SETTINGS, max_seconds=10, report=reports.append)
        assert reports == sorted(reports)
        assert reports[-1] == 1.0

    @pytest.mark.parametrize("kind", ["clips", "frames"])
    def test_the_clip_is_decoded_once(self, checkpoints, noise, kind, monkeypatch):
        opened = []

        def count(path, sampling_rate):
            opened.append(path)
            return open_audio(path, sampling_rate)

        monkeypatch.setattr(analysis_module, "open_audio", count)
        analyse(noise, checkpoints[kind], checkpoints["tokens"], SETTINGS, max_seconds=10)
        assert opened == [noise]

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

    @pytest.mark.parametrize("kind", ["clips", "frames"])
    def test_windows_of_events_do_not_change_the_labels(self, checkpoints, noise, kind):
        coarse = analyse(noise, checkpoints[kind], None, Settings(0.3, 10.0, 10.0), max_seconds=10)
        fine = analyse(noise, checkpoints[kind], None, Settings(0.3, 0.5, 0.25), max_seconds=10)
        assert fine.labels == coarse.labels
        assert [event.score for event in fine.events] != [event.score for event in coarse.events]


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
        blocks = open_limited(noise, RATE, 2.0, lambda share: None).blocks
        assert sum(map(len, blocks)) == 2 * RATE

    def test_a_file_that_says_it_is_longer_is_refused_at_once(self, noise):
        with pytest.raises(ValueError, match=r"some noise\.flac is too long: this page takes at most 0:01"):
            open_limited(noise, RATE, 1.0, lambda share: None)

    def test_a_file_whose_header_has_no_length_is_read(self, tmp_path):
        path = tmp_path / "pipe.flac"
        path.write_bytes(flac_of_unknown_length(2.0))
        reports = []
        blocks = open_limited(path, RATE, 3.0, reports.append).blocks
        assert sum(map(len, blocks)) == 2 * RATE
        assert reports[-1] == 1.0

    def test_a_file_whose_header_has_no_length_is_refused_above_the_limit(self, tmp_path):
        path = tmp_path / "pipe.flac"
        path.write_bytes(flac_of_unknown_length(5.0))
        with pytest.raises(ValueError, match="too long"):
            open_limited(path, RATE, 2.0, lambda share: None)

    def test_they_are_said_as_people_say_them(self):
        assert str(Limits()) == "30:00 (min:s) and 200 MB"
        assert str(Limits(max_seconds=7200)) == "2:00:00 (h:min:s) and 200 MB"


class TestShow:
    def test_without_a_clip_it_says_what_to_do(self):
        message, *rest = show(None, pytest.fail)
        assert "Record or drop a sound" in message
        assert rest == [{}, None, [], None]

    def test_a_result_fills_the_page(self, checkpoints, noise):
        message, labels, timeline, events, tokens = show(
            str(noise), lambda path: analyse(path, checkpoints["clips"], None, SETTINGS, 10)
        )
        assert 'role="status"' in message
        assert len(labels) == len(events) == 3
        assert timeline.format is None
        assert tokens is None

    def test_a_bad_file_is_a_message_without_the_directory(self, checkpoints, tmp_path):
        path = tmp_path / "bad.wav"
        path.write_text("no audio")
        message, *rest = show(str(path), lambda path: analyse(path, checkpoints["clips"], None, SETTINGS, 10))
        assert message.startswith('<p role="alert">bad.wav: holds text and no audio')
        assert str(tmp_path) not in message
        assert rest == [{}, None, [], None]

    def test_a_damaged_checkpoint_is_a_message(self, models, noise, tmp_path):
        for name in ("config.json", "preprocessor_config.json"):
            (tmp_path / name).write_bytes((models / "clips" / name).read_bytes())
        (tmp_path / "model.safetensors").write_bytes(b"\x08\0\0\0\0\0\0\0damaged!")
        checkpoint = Checkpoint("damaged", tmp_path, "clips")
        message, *_ = show(str(noise), lambda path: analyse(path, checkpoint, None, SETTINGS, 10))
        assert message.startswith(f'<p role="alert">{tmp_path.name}: cannot be loaded')
        # Visitors are not told the paths of models.
        assert str(tmp_path.parent) not in message

    @pytest.mark.parametrize("error", [MemoryError("too long"), RuntimeError("too long")])
    def test_too_little_memory_is_a_message(self, noise, error):
        def fail(path):
            raise error

        message, *rest = show(str(noise), fail)
        assert message == '<p role="alert">too long</p>'
        assert rest == [{}, None, [], None]

    def test_names_of_files_are_no_html(self):
        assert as_html("<b>&.wav") == '<p role="status">&lt;b&gt;&amp;.wav</p>'


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
        model, tokenizer = self.components(page, "dropdown")
        assert [name for name, _ in model["choices"]] == ["clips", "frames"]
        assert [name for name, _ in tokenizer["choices"]] == ["tokens"]
        assert not tokenizer["visible"]
        assert [image["visible"] for image in self.components(page, "image")] == [True, True]

    def test_without_a_tokenizer_a_hint_takes_the_place_of_the_tokens(self, checkpoints, tmp_path):
        page = build_page([checkpoints["clips"]], Limits(), write_samples(tmp_path), "cpu")
        hints = [item for item in self.components(page, "markdown") if "No tokenizer" in item["value"]]
        assert [hint["visible"] for hint in hints] == [True]
        assert [image["visible"] for image in self.components(page, "image")] == [True, False]

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
    num_functions: int
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
        return Analysis(f"{path.name} was heard", {}, [], None)

    directory = tmp_path_factory.mktemp("served")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADIO_TEMP_DIR", str(directory / "gradio"))
        patch.setenv("GRADIO_ANALYTICS_ENABLED", "False")
        patch.setattr(web_module, "analyse", note)
        page = build_page(list(checkpoints.values()), Limits(), write_samples(directory), "cpu")
        _, url, _ = page.launch(prevent_thread_lock=True, quiet=True, share=False, ssr_mode=False)
        yield Served(url, len(page.fns), analysed)
        page.close(verbose=False)


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
        inputs = [None, "clips", "tokens", 0.5, 2, 1]
        calls = [("run/analyse", None), ("api/analyse", None)]
        calls += [("run/predict", function) for function in range(served.num_functions)]
        for route, function in calls:
            with pytest.raises(HTTPError) as error:
                served.post(route, json.dumps({"data": inputs, "fn_index": function}).encode())
            assert error.value.code == 404
            assert "join the queue" in error.value.read().decode()
        assert served.analysed == before

    def test_clips_are_computed_one_at_a_time(self, served, noise):
        inputs = [file_data(served.upload(noise)), "clips", "tokens", 0.5, 2, 1]
        answers = [served.answer(event) for event in [served.call(*inputs) for _ in range(3)]]
        assert all("some noise.flac was heard" in answer for answer in answers)

    def test_whatever_starts_a_computation_waits_in_the_same_queue(self, checkpoints, tmp_path):
        pytest.importorskip("gradio", reason="the page needs gradio")
        page = build_page([checkpoints["clips"]], Limits(), write_samples(tmp_path), "cpu")
        queues = [job.concurrency_id for job in page.fns.values() if job.name == "respond"]
        assert queues == ["analyse", "analyse"]

    def test_an_upload_is_computed(self, served, noise):
        answer = served.answer(served.call(file_data(served.upload(noise)), "clips", "tokens", 0.5, 2, 1))
        assert "some noise.flac was heard" in answer
        assert served.analysed[-1].name == noise.name

    @pytest.mark.parametrize("position", range(6))
    def test_an_address_is_not_loaded(self, served, requests, position):
        address, arrived = requests
        before = list(served.analysed)
        inputs = [None, "clips", "tokens", 0.5, 2, 1]
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

        def stop(sources):
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

    def test_a_device_that_cannot_be_used_is_an_error_at_the_start(self, launched, models):
        with pytest.raises(ValueError, match="--device nothing: "):
            serve([models], Limits(), device="nothing")
        assert launched == []

    def test_an_address_that_is_none_is_an_error_at_the_start(self, launched, models):
        with pytest.raises(ValueError, match=r"--host 999\.1\.1\.1: "):
            serve([models], Limits(), host="999.1.1.1")
        assert launched == []

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
        monkeypatch.setattr(web_module, "serve", lambda *arguments: calls.append(arguments))
        result = self.run("-m", models, "-m", "b", "--max-seconds", 60, "--max-megabytes", 5, "--port", 7000)
        assert result.exit_code == 0
        assert calls == [([str(models), "b"], Limits(60, 5), "auto", None, 7000)]

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


def test_importing_the_package_does_not_import_gradio():
    program = "import sys, transformers_beats; print('gradio' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout == "False\n"
