# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""
The web page as its users see it. `BEATS_SCREENSHOT=docs/web.png BEATS_DEMO_MODEL=demo-output/demo-model` makes the
picture in the documentation, with the demo's model instead of one that is trained in seconds.
"""

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from sklearn.linear_model import LogisticRegression

from transformers_beats import (
    BeatsConfig,
    BeatsFeatureExtractor,
    BeatsForAudioClassification,
    BeatsRandomProjectionTokenizer,
)
from transformers_beats.audio.synthesis import CLASSES, SAMPLING_RATE, synthesize
from transformers_beats.configuration_beats import BeatsRandomProjectionTokenizerConfig
from transformers_beats.demo.training import ENCODER


playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install playwright")
pytest.importorskip("gradio", reason="gradio is not installed: pip install -e '.[web]'")

CHROMIUM = shutil.which("chromium")
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--use-fake-device-for-media-stream",
    "--use-fake-ui-for-media-stream",
]
DEMO_MODEL = os.environ.get("BEATS_DEMO_MODEL")
MAX_SECONDS, MAX_MEGABYTES = 20, 2
# Other work on the machine can make everything slow.
PATIENCE_SECONDS = 120
# What Gradio's player says of a file that it cannot play.
PLAYER_ERROR = "Waveform load error"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium (on Debian: apt install chromium)"),
]


def training_clip(label: str, number: int) -> np.ndarray:
    """A clip of two seconds, `(32000,)`."""
    return synthesize(label, np.random.default_rng([CLASSES.index(label), number]), 2.0)


def train(directory: Path, flip: bool = False) -> None:
    """Fits the last layer of a model, otherwise random; with `flip` to names in the reverse order."""
    torch.manual_seed(0)
    config = BeatsConfig(**ENCODER, id2label=dict(enumerate(CLASSES)), problem_type="single_label_classification")
    model, extractor = BeatsForAudioClassification(config).eval(), BeatsFeatureExtractor()
    clips = [training_clip(label, number) for number in range(12) for label in CLASSES]
    inputs = extractor(clips, sampling_rate=SAMPLING_RATE, return_tensors="pt")
    with torch.inference_mode():
        features = model.beats(**inputs).pooler_output.numpy()
    mean, scale = features.mean(axis=0), features.std(axis=0)
    fitted = LogisticRegression(C=10.0, max_iter=500).fit((features - mean) / scale, list(range(10)) * 12)
    weight = torch.tensor(fitted.coef_ / scale, dtype=torch.float32)
    bias = torch.tensor(fitted.intercept_ - fitted.coef_ @ (mean / scale), dtype=torch.float32)
    with torch.no_grad():
        model.classifier.weight.copy_(weight.flip(0) if flip else weight)
        model.classifier.bias.copy_(bias.flip(0) if flip else bias)
    model.save_pretrained(directory)
    extractor.save_pretrained(directory)


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> Path:
    """Two classifiers, of which the second has the names in the reverse order, and a tokenizer."""
    root = tmp_path_factory.mktemp("models")
    if DEMO_MODEL:
        shutil.copytree(DEMO_MODEL, root / "ten-sounds")
    else:
        train(root / "ten-sounds")
    train(root / "wrong-names", flip=True)
    BeatsRandomProjectionTokenizer(BeatsRandomProjectionTokenizerConfig()).save_pretrained(root / "tokenizer")
    BeatsFeatureExtractor().save_pretrained(root / "tokenizer")
    return root


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> dict[str, Path]:
    """Uploads."""
    folder = tmp_path_factory.mktemp("files")
    siren = np.repeat(training_clip("siren", 0), 3)
    contents = {
        "a siren.flac": (np.stack([siren, siren], axis=1), 3 * SAMPLING_RATE),
        "long.flac": (np.zeros(21 * SAMPLING_RATE), SAMPLING_RATE),
        "large.wav": (np.zeros((15 * 48000, 2)), 48000),
    }
    for name, (waveform, rate) in contents.items():
        soundfile.write(folder / name, waveform, rate)
    (folder / "bad.wav").write_text("no audio")
    return {path.name: path for path in folder.iterdir()}


def start(command: list[str], work: Path, **variables: str) -> Iterator[str]:
    """Serves a page, and ends as a service manager ends it: nothing is left behind, and nothing has gone wrong."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    temporary = work / "tmp"
    temporary.mkdir()
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("GRADIO", "BEATS"))}
    environment |= {"TMPDIR": str(temporary), "GRADIO_SERVER_PORT": str(port), **variables}
    url, log = f"http://127.0.0.1:{port}", work / "log.txt"
    with log.open("w") as stream:
        process = subprocess.Popen([sys.executable, *command], env=environment, stdout=stream, stderr=stream)
    try:
        for _ in range(10 * PATIENCE_SECONDS):
            assert process.poll() is None, log.read_text()
            try:
                urllib.request.urlopen(url, timeout=5).close()
                break
            except OSError:
                time.sleep(0.1)
        yield url
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(PATIENCE_SECONDS)
    assert "Traceback" not in log.read_text()
    assert [path.name for path in temporary.iterdir() if path.name.startswith("beats-")] == []


@pytest.fixture(scope="module")
def url(models, tmp_path_factory) -> Iterator[str]:
    options = [f"--model={models}", f"--max-seconds={MAX_SECONDS}", f"--max-megabytes={MAX_MEGABYTES}"]
    yield from start(["-m", "transformers_beats.web.page", *options], tmp_path_factory.mktemp("server"))


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as session:
        browser = session.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def expected_errors() -> list[str]:
    """What the console may say: tests add to it."""
    return []


@pytest.fixture
def tab(browser, expected_errors):
    """A tab, of which all requests go to this machine and the console has no errors."""
    tab = browser.new_page(viewport={"width": 1360, "height": 900})
    tab.set_default_timeout(1000 * PATIENCE_SECONDS)
    requests, errors = [], []
    tab.on("request", lambda request: requests.append(request.url))
    tab.on("console", lambda line: errors.append(line.text) if line.type == "error" else None)
    tab.on("pageerror", lambda error: errors.append(str(error)))
    yield tab
    tab.close()
    local = re.compile(r"(blob:)?http://127\.0\.0\.1:\d+/|data:")
    assert requests
    assert [request for request in requests if not local.match(request)] == []
    assert [error for error in errors if not any(expected in error for expected in expected_errors)] == []


@pytest.fixture
def page(tab, url):
    tab.goto(url)
    tab.get_by_text("Sample sounds").wait_for()
    return tab


def upload(page, path: Path) -> None:
    page.set_input_files("input[type=file]", str(path))


def message(page, pattern: str) -> str:
    """The message of the page, once it matches."""
    line = page.locator(".message p", has_text=re.compile(pattern))
    line.wait_for()
    return line.inner_text()


def apply(page, setting: str, value: str, pattern: str) -> str:
    """The message once a setting is applied. On a busy machine, a click may come before the page has its value."""
    field = page.get_by_label(f"number input for {setting}")
    field.fill(value)
    field.press("Tab")
    line = page.locator(".message p", has_text=re.compile(pattern))
    for _ in range(4):
        page.get_by_role("button", name="Apply").click()
        with contextlib.suppress(playwright.TimeoutError):
            line.wait_for(timeout=250 * PATIENCE_SECONDS)
            break
    return message(page, pattern)


def top_class(page) -> str:
    return page.get_by_test_id("label-output-value").or_(page.locator("dt")).first.inner_text()


def has_picture(page) -> bool:
    """Whether the picture of the open tab is one, as the browser sees it."""
    picture = page.locator(".picture img:visible")
    picture.wait_for()
    page.wait_for_function("picture => picture.complete", arg=picture.element_handle())
    return picture.evaluate("picture => picture.naturalWidth > 500 && picture.naturalHeight > 200")


def test_an_upload_shows_classes_timeline_events_and_tokens(page, files):
    upload(page, files["a siren.flac"])
    assert message(page, "heard by") == "a siren.flac: 2.0 s, 1 event, heard by ten-sounds"
    assert top_class(page).startswith("siren")
    assert has_picture(page)
    page.get_by_role("tab", name="Events").click()
    page.get_by_role("gridcell", name="siren").first.wait_for()
    page.get_by_role("tab", name="Acoustic tokens").click()
    assert has_picture(page)


def test_a_sample_sound_can_be_chosen(page, tmp_path):
    page.get_by_text("scene", exact=True).click()
    assert message(page, "heard by").startswith("scene.wav: 12.0 s")
    assert has_picture(page)
    screenshot = Path(os.environ.get("BEATS_SCREENSHOT", tmp_path / "web.png"))
    page.wait_for_timeout(1000)
    page.screenshot(path=screenshot)
    assert screenshot.stat().st_size > 50_000


def test_another_checkpoint_gives_another_result(page, files):
    upload(page, files["a siren.flac"])
    message(page, "heard by ten-sounds")
    page.get_by_label("Model").click()
    page.get_by_role("option", name="wrong-names").click()
    message(page, "heard by wrong-names")
    assert top_class(page).startswith(CLASSES[-1 - CLASSES.index("siren")])


def test_after_a_bad_file_the_page_goes_on_working(page, files, expected_errors):
    expected_errors.append(PLAYER_ERROR)
    upload(page, files["bad.wav"])
    assert message(page, "bad.wav").startswith("bad.wav: holds text and no audio")
    assert page.locator(".message p").get_attribute("role") == "alert"
    page.get_by_text("siren", exact=True).click()
    assert message(page, "heard by").startswith("siren.wav: 3.0 s")


def test_a_long_clip_is_refused_with_a_message(page, files):
    upload(page, files["long.flac"])
    expected = "long.flac is too long: this page takes at most 0:20 (min:s). Cut it into parts."
    assert message(page, "too long") == expected


def test_a_large_upload_is_refused_with_a_message(page, files, expected_errors):
    # The answer to an upload that was cut off.
    expected_errors += ["Failed to load resource", "Response"]
    upload(page, files["large.wav"])
    page.get_by_text(re.compile("exceed.* the maximum allowed size of 2")).wait_for()
    page.get_by_text("siren", exact=True).click()
    assert message(page, "heard by").startswith("siren.wav: 3.0 s")


def test_settings_change_the_result(page):
    page.get_by_text("scene", exact=True).click()
    message(page, "heard by")
    page.get_by_text("Settings").click()
    assert "0 events" in apply(page, "Threshold", "1", " 0 events")
    assert (
        apply(page, "Hop", "9", "hop") == "The hop (seconds) with this window must be a number from 0.25 to 2, got 9."
    )


def test_the_microphone_can_be_recorded(page):
    page.get_by_label("Record audio").click()
    page.get_by_role("button", name="Record", exact=True).click()
    page.wait_for_timeout(2000)
    page.get_by_role("button", name="Stop", exact=True).click()
    assert message(page, "heard by").startswith("audio.wav: ")
    assert has_picture(page)


def test_a_space_without_a_model_says_what_to_set(tab, tmp_path):
    shutil.copy(Path(__file__).parents[2] / "app.py", tmp_path)
    for url in start([str(tmp_path / "app.py")], tmp_path):
        tab.goto(url)
        assert message(tab, "models") == f"{tmp_path}/models: no such directory."
        tab.get_by_text("BEATS_MODEL").wait_for()
