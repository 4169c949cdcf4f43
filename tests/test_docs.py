# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""
The documentation: every block of code on its pages runs as it is written, in the order of the page, and the site
builds without complaints. Blocks that cannot run say why in a comment above them: `<!-- not run: REASON -->`.
"""

import os
import re
import shutil
import subprocess
import sys
import threading
from contextlib import ExitStack
from dataclasses import dataclass
from html.parser import HTMLParser
from http.client import HTTPConnection
from http.server import HTTPServer
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
import yaml
from fresh import COMMON, fork_server, write_program
from golden import FIXTURES, ROOT
from hub.server import local_hub
from huggingface_hub import constants

from transformers_beats.audio.synthesis import CLASSES, synthesize
from transformers_beats.conversion.convert import convert
from transformers_beats.conversion.released import MANIFEST, MANIFEST_VARIABLE
from transformers_beats.utils.files import sha256


DOCS = ROOT / "docs"
# Their code takes a few seconds; that of the others, which start many processes, up to two minutes.
FAST = ["design", "faq", "front-end", "index", "released", "web"]
SLOW = [
    "anomalies",
    "archives",
    *("convert", "deploy", "distillation", "events", "finetuning", "long-recordings", "migrate-espnet"),
    *("migrate-microsoft", "pretraining", "publish-classifier", "publishing", "search"),
]
# Pages about measurements, fuzzing and benchmarks, whose commands other tests run, or which take long.
NOT_RUN = ["choosing", "performance", "public-benchmarks", "reliability", "results", "tutorials/index"]
MAX_UNRUN_BLOCKS = 10
CHECKPOINTS = {
    "BEATs_iter3": "beats_tiny",
    "BEATs_iter3_plus_AS2M_finetuned_on_AS2M_cpt2": "beats_tiny_finetuned",
    "Tokenizer_iter3": "tokenizer_tiny",
}
CONVERTED = {
    "beats-iter3": "beats_tiny",
    "beats-finetuned": "beats_tiny_finetuned",
    "beats-tokenizer": "tokenizer_tiny",
    # The directory that `transformers-beats demo` writes.
    "demo-output/demo-model": "beats_tiny_finetuned",
}
# Programs that the pages call.
COMMANDS = {
    "accelerate": '"{python}" -m accelerate.commands.accelerate_cli "$@"',
    "torchrun": '"{python}" -m torch.distributed.run "$@"',
    "hf": '"{python}" -m huggingface_hub.cli.hf "$@"',
    "python": '"{python}" "$@"',
    "transformers-beats": '"{python}" -m transformers_beats.cli.app "$@"',
}
THREADS = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive", "ACCELERATE_USE_CPU": "true"}
# What `transformers-beats` runs where it is forked from a process that has imported most of what commands need.
COMMAND = "from transformers_beats.cli.app import main; main()"
IMPORTED = [*COMMON, "datasets", "librosa", "transformers.pipelines", "transformers.trainer"]
IMPORTED += ["transformers_beats.cli.app", "transformers_beats.inference.pipeline"]
IMPORTED += [f"transformers_beats.training.{name}" for name in ("evaluate", "finetune", "iterate")]
BLOCK = re.compile(
    r"^(?:<!-- not run: (?P<reason>.+?) -->\n)?```(?P<language>\w+)\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL
)
SEGMENTS = """# YTID, start_seconds, end_seconds, positive_labels
--aB3_-dE5F, 30.000, 40.000, "/m/0bt9lr"
Yabcdefghij, 0.000, 10.000, "/m/06mb1,/m/09x0r"
"""


@dataclass
class Block:
    """A block of code on a page: its language, text, first line, and why it is not run."""

    language: str
    code: str
    line: int
    reason: str | None


def read_blocks(path: Path) -> list[Block]:
    """Returns the blocks of Python and shell on a page."""
    text = path.read_text(encoding="utf-8")
    blocks = [
        Block(match["language"], match["code"], text.count("\n", 0, match.start("code")) + 1, match["reason"])
        for match in BLOCK.finditer(text)
    ]
    return [block for block in blocks if block.language in ("python", "sh")]


def write_sounds(folder: Path, labels: list[str], clips: int, seed: int) -> None:
    """Writes a folder for each label, with clips of half a second."""
    generator = np.random.default_rng(seed)
    for label in labels:
        (folder / label).mkdir(parents=True)
        for index in range(clips):
            soundfile.write(folder / label / f"{index}.wav", synthesize(label, generator, 0.5), 16000)


def write_audio(directory: Path) -> None:
    """Writes the clips and folders that pages name."""
    generator = np.random.default_rng(0)
    for name, rate, shape in [
        ("clip.ogg", 44100, (132300, 2)),
        ("clip.wav", 16000, (48000,)),
        ("short.wav", 16000, (16000,)),
        ("recording.flac", 22050, (330750,)),
        ("recordings/first.wav", 16000, (40000,)),
        ("recordings/more/second.flac", 48000, (96000, 2)),
        ("AUDIO/Y--aB3_-dE5F.wav", 16000, (16000,)),
        ("AUDIO/YYabcdefghij.wav", 16000, (16000,)),
    ]:
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, 0.1 * generator.standard_normal(shape), rate)
    write_sounds(directory / "my-sounds", list(CLASSES)[:2], 5, seed=1)
    write_sounds(directory / "more-sounds", list(CLASSES)[:2], 2, seed=2)
    (directory / "balanced_train_segments.csv").write_text(SEGMENTS)


def write_checkpoints(directory: Path) -> None:
    """Writes tiny checkpoints under the names of Microsoft's, and as ESPnet writes them."""
    for name, golden in CHECKPOINTS.items():
        shutil.copyfile(FIXTURES / f"{golden}.pt", directory / f"{name}.pt")
    (directory / "downloads").mkdir()
    kinds = {"pretrained": "beats_tiny", "finetuned": "beats_tiny_finetuned", "tokenizer": "tokenizer_tiny"}
    manifest = yaml.safe_load(MANIFEST.read_text())
    for entry in manifest["checkpoints"]:
        path = directory / "downloads" / entry["file"]
        shutil.copyfile(FIXTURES / f"{kinds[entry['kind']]}.pt", path)
        facts = {"sha256": sha256(path), "bytes": path.stat().st_size, "cfg": {}, "num_parameters": None}
        entry |= {key: value for key, value in facts.items() if key in entry}
    # Found through an environment variable: these are the released files of the pages.
    (directory / "manifest.yaml").write_text(yaml.safe_dump(manifest))
    openbeats = torch.load(FIXTURES / "beats_tiny.pt", weights_only=True)
    openbeats["model"]["raw2fbank_pad.weight"] = torch.ones(1, 1, 400)
    openbeats["model"]["patch_embedding_pad.weight"] = torch.ones(1, 1, 16, 16)
    torch.save(openbeats, directory / "openbeats.pt")
    tuned = torch.load(FIXTURES / "beats_tiny_finetuned.pt", weights_only=True)
    tensors = {
        f"encoder.{key}".replace("encoder.predictor.", "decoder.linear_out."): tensor
        for key, tensor in tuned["model"].items()
    }
    torch.save(tensors, directory / "valid.acc.best.pth")
    labels = ["dog", "cat", "rain", "wind", "bell", "car"]
    settings = {
        "encoder": "beats",
        "encoder_conf": {"beats_config": tuned["cfg"]},
        "decoder": "linear",
        "decoder_conf": {},
        "model_conf": {"classification_type": "multi-class"},
        "token_list": [*labels, "<blank>", "<unk>"],
    }
    (directory / "config.yaml").write_text(yaml.safe_dump(settings))


def write_commands(directory: Path) -> None:
    """Writes the programs, for the Python of this test."""
    (directory / "bin").mkdir()
    for name, command in COMMANDS.items():
        path = directory / "bin" / name
        path.write_text(f"#!/bin/sh\nexec {command}\n".replace("{python}", sys.executable))
        path.chmod(0o755)


@pytest.fixture(scope="session")
def converted(tmp_path_factory) -> Path:
    """Converts once the directories that pages name."""
    root = tmp_path_factory.mktemp("converted")
    (root / "demo-output").mkdir()
    for name, golden in CONVERTED.items():
        convert(FIXTURES / f"{golden}.pt", root / name)
    return root


@pytest.fixture
def workplace(tmp_path, converted, monkeypatch):
    """
    Makes a directory for a page the current one: a checkout with clips, folders and checkpoints, and with those models
    that the page does not convert itself.
    """

    def make(shell: str) -> Path:
        directory = tmp_path / "checkout"
        directory.mkdir()
        for name in ("benchmarks", "examples"):
            (directory / name).symlink_to(ROOT / name)
        write_audio(directory)
        write_checkpoints(directory)
        write_commands(directory)
        made = re.findall(r"^transformers-beats convert \S+ (\S+)", shell, re.MULTILINE)
        for name in CONVERTED.keys() - set(made):
            shutil.copytree(converted / name, directory / name)
        monkeypatch.chdir(directory)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
        return directory

    return make


@pytest.fixture(scope="module")
def offline(tmp_path_factory) -> dict[str, str]:
    """Variables that are read when a program starts, of all pages that publish nothing."""
    return {**THREADS, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path_factory.mktemp("home"))}


@pytest.fixture(scope="module")
def commands(offline):
    """Address of the process that the commands of those pages are forked from."""
    with fork_server(IMPORTED, env=os.environ | offline) as address:
        yield address


@pytest.fixture
def environment(tmp_path, offline, request):
    """Variables of the shell blocks; with a Hub on this machine where a page publishes, and otherwise offline."""
    with ExitStack() as stack:

        def make(directory: Path, shell: str) -> dict[str, str]:
            own = {
                **THREADS,
                "PATH": f"{directory / 'bin'}{os.pathsep}{os.environ['PATH']}",
                MANIFEST_VARIABLE: str(directory / "manifest.yaml"),
            }
            if "--push-to-hub" not in shell:
                if "transformers-beats" in shell:
                    address = request.getfixturevalue("commands")
                    write_program(directory / "bin" / "transformers-beats", address, COMMAND)
                return {**os.environ, **own, **offline}
            hub = stack.enter_context(local_hub())
            hub.users[hub.token] = "your-name"
            return hub.environment(tmp_path / "home", **own)

        yield make


@pytest.fixture(autouse=True)
def same_threads():
    """Restores the number of threads, which a page sets."""
    num_threads = torch.get_num_threads()
    yield
    torch.set_num_threads(num_threads)


def run_page(path: Path, workplace, environment, languages: tuple[str, ...] = ("python", "sh")) -> dict:
    """Runs the blocks of a page, those of Python in this process. Returns their names."""
    blocks = [block for block in read_blocks(path) if block.reason is None and block.language in languages]
    shell = "".join(block.code for block in blocks if block.language == "sh")
    variables = environment(workplace(shell), shell)
    namespace: dict = {"__name__": "__main__"}
    for block in blocks:
        if block.language == "python":
            # Line numbers of a failure are those of the page.
            exec(compile("\n" * (block.line - 1) + block.code, str(path), "exec"), namespace)
            continue
        result = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", block.code],
            env=variables,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        print(result.stdout)
        assert result.returncode == 0, f"{path.name}, line {block.line}:\n{result.stdout[-3000:]}"
    return namespace


def page(name: str) -> Path:
    return DOCS / f"{name}.md"


def test_every_page_with_code_is_run():
    pages = {path.relative_to(DOCS).with_suffix("").as_posix() for path in DOCS.rglob("*.md") if read_blocks(path)}
    assert pages - set(NOT_RUN) == {*FAST, *SLOW}


def test_few_blocks_are_not_run():
    unrun = [(name, block.reason) for name in FAST + SLOW for block in read_blocks(page(name)) if block.reason]
    assert 0 < len(unrun) <= MAX_UNRUN_BLOCKS, unrun
    # A comment that is not directly above a block, or is spelt otherwise, would have no effect.
    assert sum(page(name).read_text(encoding="utf-8").count("not run:") for name in FAST + SLOW) == len(unrun)


def test_an_unrun_block_has_its_reason_directly_above(tmp_path):
    path = tmp_path / "page.md"
    path.write_text("<!-- not run: a -->\n```sh\nx\n```\n<!-- not run: b -->\n\n```python\ny\n```\n```json\n{}\n```\n")
    assert read_blocks(path) == [Block("sh", "x\n", 3, "a"), Block("python", "y\n", 8, None)]


@pytest.mark.parametrize("path", [ROOT / "README.md", *map(page, FAST + SLOW)], ids=lambda path: path.stem)
def test_a_block_that_can_be_pasted_alone_makes_the_models_known(path):
    for block in read_blocks(path):
        if block.language == "python" and "from transformers import" in block.code:
            assert re.search(r"transformers_beats|trust_remote_code", block.code), f"line {block.line}"


@pytest.mark.parametrize("name", FAST)
def test_code_runs(name, workplace, environment):
    run_page(page(name), workplace, environment)


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("name", [name for name in SLOW if name != "deploy"])
def test_code_with_many_commands_runs(name, workplace, environment):
    run_page(page(name), workplace, environment)


@pytest.mark.slow
def test_service_of_the_deployment_page_answers(workplace, environment):
    handler = run_page(page("deploy"), workplace, environment)["Handler"]
    with HTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        answers = [post(server.server_port, body) for body in (Path("clip.ogg").read_bytes(), b"no audio", b"")]
        server.shutdown()
    assert [status for status, _ in answers] == [200, 400, 413]
    assert len(yaml.safe_load(answers[0][1])) == 5
    assert "holds text and no audio" in answers[1][1]


def post(port: int, body: bytes) -> tuple[int, str]:
    connection = HTTPConnection("127.0.0.1", port)
    connection.request("POST", "/", body)
    response = connection.getresponse()
    return response.status, response.read().decode()


def test_python_in_the_readme_runs(workplace, environment):
    run_page(ROOT / "README.md", workplace, environment, languages=("python",))


def test_a_space_requires_the_versions_of_the_package():
    tomllib = pytest.importorskip("tomllib", reason="Python 3.10 has no tomllib")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    web = project["optional-dependencies"]["web"]
    text = page("web").read_text(encoding="utf-8")
    (block,) = re.findall(r"`requirements.txt` has\n\n```text\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    requirements = block.splitlines()
    assert len(requirements) > 5
    assert set(requirements) <= {*project["dependencies"], *web}
    # The Space brings Gradio itself.
    (version,) = re.findall(r"^sdk_version: (\S+)\.0$", text, re.MULTILINE)
    assert f"gradio>={version}" in web


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """Builds the site, as CI does."""
    for module in ("mkdocs", "material", "mkdocstrings", "nbconvert"):
        pytest.importorskip(module)
    directory = tmp_path_factory.mktemp("site")
    # Material warns of a future mkdocs.
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(directory)]
    result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    return directory


class Sources(HTMLParser):
    """Addresses that a page loads, as a browser would."""

    def __init__(self, text: str):
        super().__init__()
        self.found: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        if tag in ("script", "img", "iframe", "audio", "source"):
            self.found.append(values.get("src") or "")
        elif tag == "link" and values.get("rel") != "canonical":
            self.found.append(values.get("href") or "")


@pytest.mark.slow
def test_site_loads_nothing_from_elsewhere(site):
    pages = list(site.rglob("*.html"))
    sources = {source for path in pages for source in Sources(path.read_text(encoding="utf-8")).found}
    assert len(pages) > 25
    assert not [source for source in sources if source.startswith(("http", "//"))]


@pytest.mark.slow
def test_site_shows_the_outputs_of_the_notebooks(site):
    for notebook in (ROOT / "notebooks").glob("*.ipynb"):
        text = (site / "tutorials" / notebook.stem / "index.html").read_text(encoding="utf-8")
        pictures = [source for source in Sources(text).found if source.endswith(".png")]
        assert pictures
        assert all((site / "tutorials" / notebook.stem / source).resolve().is_file() for source in pictures)


@pytest.mark.slow
def test_reference_describes_arguments_that_transformers_adds_to_docstrings(site):
    text = (site / "reference" / "models" / "index.html").read_text(encoding="utf-8")
    assert "1 for frames of audio, 0 for padding" in text
    # References of transformers' kind are links.
    assert "[<code>" not in text


@pytest.mark.slow
def test_reference_has_every_public_name(site):
    import transformers_beats

    text = "".join(path.read_text(encoding="utf-8") for path in (site / "reference").rglob("*.html"))
    assert [name for name in transformers_beats.__all__ if f'.{name}"' not in text] == []
