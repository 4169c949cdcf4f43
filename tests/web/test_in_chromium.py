# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""
The web page as its users see it: with a mouse, by keyboard alone, on a desktop and a phone, and by an accessibility
checker. `BEATS_SCREENSHOTS=docs/images` makes the pictures in the documentation, with the demo's model if
`BEATS_DEMO_MODEL=demo-output/demo-model` names it, instead of one that is trained in seconds.
"""

import contextlib
import io
import json
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
from PIL import Image
from sklearn.linear_model import LogisticRegression
from typer.testing import CliRunner

from transformers_beats import (
    BeatsConfig,
    BeatsFeatureExtractor,
    BeatsForAudioClassification,
    BeatsRandomProjectionTokenizer,
)
from transformers_beats.audio.synthesis import CLASSES, SAMPLING_RATE, synthesize
from transformers_beats.cli.app import app
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
# `npm install --prefix .cache/axe axe-core@4` fetches it.
AXE = Path(__file__).parents[2] / ".cache" / "axe" / "node_modules" / "axe-core" / "axe.min.js"
# Everything of WCAG 2.2 A and AA, among it targets of 24 px.
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]
DESKTOP = {"viewport": {"width": 1280, "height": 900}}
PHONE = {"viewport": {"width": 390, "height": 844}, "is_mobile": True, "has_touch": True, "device_scale_factor": 2}
MAX_SECONDS, MAX_MEGABYTES = 20, 2
# Says whether the focus is there, at an element for the first time, at the same as before (a player has several
# controls), or again at an earlier one: then the Tab key has been all around the page.
ANY = """condition => {
    const matches = new Function("element", `return ${condition}`);
    return [...document.querySelectorAll("*")].some(matches);
}"""
# Clicks the button as soon as it is shown.
CLICK_CANCEL = """() => new MutationObserver((_, observer) => {
    const button = document.querySelector("#cancel");
    if (button.checkVisibility()) {
        observer.disconnect();
        button.click();
    }
}).observe(document.body, {childList: true, subtree: true, attributes: true})"""
# Other work on the machine can make everything slow.
PATIENCE_SECONDS = 120

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium (on Debian: apt install chromium)"),
]


def training_clip(label: str, number: int) -> np.ndarray:
    """A clip of two seconds, `(32000,)`."""
    return synthesize(label, np.random.default_rng([CLASSES.index(label), number]), 2.0)


def train(directory: Path) -> None:
    """Fits the last layer of a model, otherwise random."""
    torch.manual_seed(0)
    config = BeatsConfig(**ENCODER, id2label=dict(enumerate(CLASSES)), problem_type="single_label_classification")
    model, extractor = BeatsForAudioClassification(config).eval(), BeatsFeatureExtractor()
    clips = [training_clip(label, number) for number in range(12) for label in CLASSES]
    inputs = extractor(clips, sampling_rate=SAMPLING_RATE, return_tensors="pt")
    with torch.inference_mode():
        features = model.beats(**inputs).pooler_output.numpy()
    mean, scale = features.mean(axis=0), features.std(axis=0)
    fitted = LogisticRegression(C=10.0, max_iter=500).fit((features - mean) / scale, list(range(10)) * 12)
    with torch.no_grad():
        model.classifier.weight.copy_(torch.tensor(fitted.coef_ / scale))
        model.classifier.bias.copy_(torch.tensor(fitted.intercept_ - fitted.coef_ @ (mean / scale)))
    model.save_pretrained(directory)
    extractor.save_pretrained(directory)


def reverse_names(source: Path, directory: Path) -> None:
    """Copies a model, with the names of its classes in the reverse order."""
    shutil.copytree(source, directory)
    path = directory / "config.json"
    config = json.loads(path.read_text())
    names = list(config["id2label"].values())[::-1]
    config |= {"id2label": dict(enumerate(names)), "label2id": {name: index for index, name in enumerate(names)}}
    path.write_text(json.dumps(config))


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> Path:
    """Two classifiers, of which the second has the names in the reverse order, and a tokenizer."""
    root = tmp_path_factory.mktemp("models")
    if DEMO_MODEL:
        shutil.copytree(DEMO_MODEL, root / "ten-sounds")
    else:
        train(root / "ten-sounds")
    reverse_names(root / "ten-sounds", root / "wrong-names")
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


@pytest.fixture(scope="module")
def library(models, tmp_path_factory) -> Path:
    """An index of two clips of each class, of which the last one is gone since."""
    root = tmp_path_factory.mktemp("library")
    for label in CLASSES:
        (root / "sounds" / label).mkdir(parents=True)
        for number in range(2):
            soundfile.write(root / "sounds" / label / f"{number}.wav", training_clip(label, number), SAMPLING_RATE)
    words = ["index", root / "sounds", "-m", models / "ten-sounds", "-o", root / "index", "-q"]
    assert CliRunner().invoke(app, [*map(str, words)]).exit_code == 0
    (root / "sounds" / CLASSES[-1] / "1.wav").unlink()
    return root / "index"


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
def url(models, library, tmp_path_factory) -> Iterator[str]:
    options = [
        f"--model={models}",
        f"--index={library}",
        f"--max-seconds={MAX_SECONDS}",
        f"--max-megabytes={MAX_MEGABYTES}",
    ]
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
def screen() -> dict:
    """The screen of the tab: tests choose others."""
    return DESKTOP


@pytest.fixture
def tab(browser, screen, expected_errors):
    """A tab, of which all requests go to this machine and the console has no errors."""
    context = browser.new_context(**screen)
    tab = context.new_page()
    tab.set_default_timeout(1000 * PATIENCE_SECONDS)
    requests, errors = [], []
    tab.on("request", lambda request: requests.append(request.url))
    tab.on("console", lambda line: errors.append(line.text) if line.type == "error" else None)
    tab.on("pageerror", lambda error: errors.append(str(error)))
    yield tab
    context.close()
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
    return page.locator(".classes .class").first.inner_text()


def has_picture(page) -> bool:
    """Whether the picture of the open tab is one, as the browser sees it."""
    picture = page.locator(".timeline img:visible")
    picture.wait_for()
    page.wait_for_function("picture => picture.complete", arg=picture.element_handle())
    return picture.evaluate("picture => picture.naturalWidth > 10 && picture.clientHeight > 100")


def show_scene(page) -> None:
    """Chooses the sample of four sounds one after another."""
    page.get_by_text("scene", exact=True).click()
    message(page, "heard by")


def player(page, expression: str):
    return page.locator("#player audio").evaluate(f"audio => {expression}")


def screenshot(page, name: str, tmp_path: Path, element=None, **options) -> None:
    """Takes a picture of the page, or of an element, for the documentation."""
    path = Path(os.environ.get("BEATS_SCREENSHOTS", tmp_path)) / f"{name}.webp"
    page.wait_for_timeout(500)
    with Image.open(io.BytesIO((element or page).screenshot(**options))) as picture:
        picture.convert("RGB").save(path, quality=80, method=6)
    assert 5_000 < path.stat().st_size < 150_000


def test_an_upload_shows_classes_timeline_events_and_tokens(page, files):
    upload(page, files["a siren.flac"])
    assert message(page, "heard by") == "a siren.flac: 2.0 s, 1 event, heard by ten-sounds"
    assert top_class(page) == "siren"
    assert has_picture(page)
    page.get_by_role("tab", name="Events").click()
    page.get_by_role("rowheader", name="siren").first.wait_for()
    page.get_by_role("tab", name="Acoustic tokens").click()
    page.locator("img[alt*=tokens]:visible").wait_for()
    assert has_picture(page)


def test_a_sample_sound_can_be_chosen(page, tmp_path):
    show_scene(page)
    assert message(page, "heard by").startswith("scene.wav: 12.0 s")
    assert has_picture(page)
    screenshot(page, "page-desktop", tmp_path)
    screenshot(page, "page-timeline", tmp_path, page.locator(".timeline:visible"))


@pytest.mark.parametrize("screen", [{**DESKTOP, "color_scheme": "dark"}])
def test_a_dark_page_has_a_dark_timeline(page, tmp_path):
    show_scene(page)
    colors = "element => getComputedStyle(element).backgroundColor.match(/[0-9]+/g).slice(0, 3).map(Number)"
    assert max(page.locator(".lane .gutter").first.evaluate(colors)) < 80
    screenshot(page, "page-dark", tmp_path)


@pytest.mark.parametrize("screen", [PHONE])
def test_on_a_phone_the_result_is_under_the_player_and_can_be_read(page, tmp_path):
    show_scene(page)
    parts = ["#player audio", ".message p", ".classes", ".timeline:visible", "text=Sample sounds"]
    tops = [page.locator(part).first.bounding_box()["y"] for part in parts]
    assert tops == sorted(tops)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    picture, lane = (page.locator(part).first for part in (".timeline img:visible", ".lane .gutter"))
    assert picture.bounding_box()["width"] > 300
    assert lane.evaluate("name => parseFloat(getComputedStyle(name).fontSize)") >= 11
    screenshot(page, "page-phone", tmp_path, full_page=True)


def test_an_event_is_played_and_the_cursor_moves_with_the_sound(page):
    show_scene(page)
    event = page.locator(".bars button").nth(1)
    start, end = (float(event.get_attribute(f"data-{name}")) for name in ("start", "end"))
    event.click()
    page.wait_for_function("document.querySelector('.bars .playing')")
    assert start <= player(page, "audio.currentTime") <= end
    page.wait_for_function("document.querySelector('#player audio').paused")
    assert player(page, "audio.currentTime") == pytest.approx(end, abs=0.5)
    cursor, lane = (page.locator(part).first.bounding_box() for part in (".cursor", ".bars"))
    share = (cursor["x"] - lane["x"]) / lane["width"]
    assert share == pytest.approx(player(page, "audio.currentTime / audio.duration"), abs=0.01)


def compare_with(page, path: Path) -> None:
    """Compares the clip of the page with another one."""
    page.get_by_role("tab", name="Compare").click()
    page.get_by_text("Choose another sound to compare").wait_for()
    page.set_input_files("#other input[type=file]", str(path))
    page.get_by_text("Similarity of").wait_for()


def show_similar(page) -> None:
    page.get_by_role("tab", name="Similar").click()
    page.locator(".found li").first.wait_for()


def test_a_clip_is_compared_with_another_one(page, files, tmp_path):
    show_scene(page)
    compare_with(page, files["a siren.flac"])
    line = page.get_by_text("Similarity of").inner_text()
    similarity = re.fullmatch(r"Similarity of scene\.wav and a siren\.flac: (0\.\d{3}) \(cosine of .*\)", line)[1]
    assert 0 < float(similarity) < 1
    # Names of the clips are in the heads of the columns; the siren is heard in both.
    assert page.locator(".table:visible th[scope=col]").all_inner_texts() == ["Label", "scene.wav", "a siren.flac"]
    assert "siren" in page.locator(".table:visible th[scope=row]").all_inner_texts()
    screenshot(page, "page-compare", tmp_path)
    # Another clip closes the tab; then it is compared anew.
    page.locator("#options").get_by_text("rain", exact=True).click()
    message(page, "rain.wav.*heard by")
    page.get_by_role("tab", name="Compare").click()
    page.get_by_text("Similarity of rain.wav and a siren.flac").wait_for()


def test_a_bad_file_cannot_be_compared_and_the_page_goes_on_working(page, files):
    show_scene(page)
    page.get_by_role("tab", name="Compare").click()
    page.set_input_files("#other input[type=file]", str(files["bad.wav"]))
    page.get_by_text("bad.wav: holds text and no audio").wait_for()
    page.locator("#options").get_by_text("siren", exact=True).click()
    assert message(page, "siren.wav.*heard by")


def test_similar_recordings_are_found_and_played(page, files, tmp_path):
    upload(page, files["a siren.flac"])
    message(page, "heard by")
    show_similar(page)
    names = page.locator(".found .class").all_inner_texts()
    assert len(names) == 10
    assert names[0].startswith("siren/")
    players = page.locator(".found audio")
    page.wait_for_function("document.querySelector('.found audio').readyState > 0")
    assert players.first.evaluate("audio => audio.duration") == pytest.approx(1.92, abs=0.05)
    players.first.evaluate("audio => audio.play()")
    page.wait_for_function("document.querySelector('.found audio').currentTime > 0")
    # Another one ends it.
    players.nth(1).evaluate("audio => audio.play()")
    page.wait_for_function("document.querySelector('.found audio').paused")
    screenshot(page, "page-similar", tmp_path)


@pytest.mark.parametrize("screen", [PHONE])
def test_comparisons_and_similar_recordings_fit_a_phone(page, files):
    show_scene(page)
    compare_with(page, files["a siren.flac"])
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    tabs = page.locator("#result [role=tab]:visible")
    assert tabs.all_inner_texts() == ["Timeline", "Events", "Acoustic tokens", "Compare", "Similar"]
    assert tabs.evaluate_all("tabs => tabs.filter(tab => tab.scrollWidth > tab.clientWidth).length") == 0
    show_similar(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert all(box.bounding_box()["width"] > 250 for box in page.locator(".found audio").all())


def test_a_moment_of_the_picture_is_played(page):
    show_scene(page)
    picture = page.locator(".timeline img:visible")
    picture.click(position={"x": 0.75 * picture.bounding_box()["width"], "y": 50})
    page.wait_for_function("!document.querySelector('#player audio').paused")
    assert player(page, "audio.currentTime") == pytest.approx(9, abs=1)


def test_the_timeline_zooms(page):
    show_scene(page)
    axis = page.locator(".timeline:visible .axis")
    width, ticks = axis.bounding_box()["width"], axis.locator("span").count()
    for _ in range(3):
        page.get_by_role("button", name="Zoom in").click()
    assert axis.bounding_box()["width"] == pytest.approx(8 * width, rel=0.01)
    assert axis.locator("span").count() > 2 * ticks
    page.get_by_role("button", name="Show all").click()
    assert axis.bounding_box()["width"] == pytest.approx(width, rel=0.01)


@pytest.mark.parametrize(
    ("link", "start"), [("CSV", "file,label,"), ("JSON", "{"), ("Audacity labels", "0.0"), ("Picture", "\ufffdPNG")]
)
def test_events_can_be_downloaded(page, link, start):
    show_scene(page)
    with page.expect_download() as download:
        page.get_by_role("link", name=link, exact=True).click()
    assert download.value.suggested_filename.startswith("scene.")
    assert Path(download.value.path()).read_text(errors="replace").startswith(start)


def test_a_computation_can_be_cancelled_and_another_begun(page, models):
    page.get_by_text("Settings").click()
    # The most work: windows of 0.5 s, eight at each moment.
    for setting, value in (("Window", "0.5"), ("Hop", "0.1")):
        field = page.get_by_label(f"number input for {setting}")
        field.fill(value)
        field.press("Tab")
    # The whole work takes half a second, and Playwright looks for the button twice a second.
    for sample in ("scene", "bell", "scene", "bell"):
        page.evaluate(CLICK_CANCEL)
        page.locator("#options").get_by_text(sample, exact=True).click()
        if message(page, rf"Cancelled|^{sample}\.wav").startswith("Cancelled."):
            break
    # A result that was under way may have brought its bar back, for a second or more.
    page.wait_for_function("() => !document.querySelector('progress')")
    assert message(page, "Cancelled").startswith("Cancelled.")
    page.locator("#options").get_by_text("siren", exact=True).click()
    assert message(page, "heard by").startswith("siren.wav: 3.0 s")


def test_settings_are_marked_until_they_are_applied(page):
    show_scene(page)
    page.get_by_text("Settings").click()
    field = page.get_by_label("number input for Threshold")
    field.fill("0.9")
    field.press("Tab")
    page.get_by_text("These settings are not applied yet.").wait_for()
    page.get_by_role("button", name="Apply").click()
    page.get_by_text("These settings are not applied yet.").wait_for(state="hidden")
    page.get_by_label("Reset to default value").first.click()
    page.get_by_text("These settings are not applied yet.").wait_for()


def test_a_list_that_is_left_without_a_choice_changes_nothing(page):
    show_scene(page)
    jobs = []
    page.on("request", lambda request: jobs.append(request.post_data) if "/queue/join" in request.url else None)
    page.get_by_label("Model").focus()
    page.keyboard.press("Tab")
    page.get_by_role("tab", name="Acoustic tokens").click()
    page.locator("img[alt*=tokens]:visible").wait_for()
    show_similar(page)
    assert len(jobs) == 2


def test_without_a_microphone_it_is_said_once_and_no_button_offers_it(tab, url):
    tab.add_init_script("navigator.mediaDevices.enumerateDevices = async () => []")
    tab.goto(url)
    tab.get_by_text("No microphone was found").wait_for()
    assert tab.get_by_label("Record audio").is_hidden()


def press_tab_until(page, condition: str) -> None:
    """Presses the Tab key until a condition of JavaScript on the focused `element` is true."""
    page.wait_for_function(ANY, arg=condition)
    # Results that still come would replace what has the focus.
    page.locator("progress").first.wait_for(state="hidden")
    # Several rounds: what is drawn anew loses the focus.
    for _ in range(400):
        page.keyboard.press("Tab")
        if page.evaluate(f"(element => {condition})(document.activeElement)"):
            return
    raise AssertionError(f"the Tab key does not reach {condition}")


def test_by_keyboard_alone_similar_recordings_are_found_and_played(page):
    press_tab_until(page, "element.matches('#options button')")
    page.keyboard.press("Enter")
    message(page, "heard by")
    press_tab_until(page, "element.textContent.trim() == 'Similar'")
    page.keyboard.press("Enter")
    page.locator(".found audio").first.wait_for()
    press_tab_until(page, "element.matches('.found audio')")
    page.keyboard.press("Space")
    page.wait_for_function("!document.querySelector('.found audio').paused")


def test_by_keyboard_alone_a_sound_is_chosen_and_its_events_are_played(page):
    press_tab_until(page, "element.matches('#options button')")
    page.keyboard.press("Enter")
    message(page, "heard by")
    page.locator("body").evaluate("() => document.activeElement.blur()")
    press_tab_until(page, "element.matches('[data-zoom=\"2\"]')")
    page.keyboard.press("Enter")
    press_tab_until(page, "element.matches('.bars button')")
    first = page.evaluate("document.activeElement.dataset.start")
    page.keyboard.press("Enter")
    page.wait_for_function("document.querySelector('.bars .playing')")
    page.keyboard.press("End")
    assert float(page.evaluate("document.activeElement.dataset.start")) >= float(first)
    press_tab_until(page, "element.matches('a[download$=\".csv\"]')")
    press_tab_until(page, "element.matches('input, [role=listbox], [aria-haspopup]')")


@pytest.mark.skipif(not AXE.is_file(), reason="there is no axe-core: npm install --prefix .cache/axe axe-core@4")
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("screen", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_the_accessibility_checker_finds_nothing_serious(page, files, scheme):
    run = f"axe.run({{runOnly: {RULES}, rules: {{'target-size': {{enabled: true}}}}}})"
    page.emulate_media(color_scheme=scheme)
    page.reload()
    page.get_by_text("Sample sounds").wait_for()
    page.evaluate(AXE.read_text(encoding="utf-8"))
    found = []

    def check(place: str) -> None:
        page.wait_for_timeout(500)
        for finding in page.evaluate(f"async () => (await {run}).violations"):
            if finding["impact"] in ("serious", "critical"):
                found.extend((place, finding["id"], node["html"][:200]) for node in finding["nodes"])

    check("start")
    show_scene(page)
    page.get_by_text("Settings").click()
    for name in ("Timeline", "Events", "Acoustic tokens"):
        page.get_by_role("tab", name=name).click()
        if name == "Acoustic tokens":
            page.locator("img[alt*=tokens]:visible").wait_for()
        check(name)
    compare_with(page, files["a siren.flac"])
    check("Compare")
    show_similar(page)
    check("Similar")
    assert found == []


def test_another_checkpoint_gives_another_result(page, files):
    upload(page, files["a siren.flac"])
    message(page, "heard by ten-sounds")
    page.get_by_label("Model").click()
    page.get_by_role("option", name="wrong-names").click()
    message(page, "heard by wrong-names")
    assert top_class(page) == CLASSES[-1 - CLASSES.index("siren")]


def test_after_a_bad_file_the_page_goes_on_working(page, files):
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
