# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Names of commands and options, exit statuses, and commands that other folders own."""

import os
import re
import shutil
import subprocess
import sys
from functools import partial
from importlib import import_module
from types import ModuleType

import invoke
import pytest
import typer
from tqdm import tqdm

import transformers_beats
from transformers_beats.cli import forwarded
from transformers_beats.cli.commands import STATUSES
from transformers_beats.cli.forwarded import MODELS, TRAINING
from transformers_beats.utils.errors import BeatsError, UsageError
from transformers_beats.utils.messages import is_quiet


AUDIO = ("tag", "listen", "embed", "tokenize", "compare", "index", "search", "distance")
OWN = (*AUDIO, "anomalies", "models", "get", "info", "convert", "recipes", "completion")
# Commands of `anomalies`.
ANOMALIES = ("anomalies fit", "anomalies score")


run = partial(invoke.run, env={"COLUMNS": "100", "TERM": "dumb"})


@pytest.fixture
def module(monkeypatch):
    """A module in place of those that commands are forwarded to; each test gives it a `main`."""
    module = ModuleType("module")
    monkeypatch.setattr(forwarded, "import_module", lambda name: module)
    return module


# Help


def test_help_of_all_commands_imports_neither_torch_nor_transformers():
    code = f"""
import sys
from typer.testing import CliRunner
from transformers_beats.cli.app import app
from transformers_beats.cli.commands import STATUSES
for name in {["", *OWN, *ANOMALIES]}:
    assert CliRunner().invoke(app, [*name.split(), "--help"]).exit_code == 0
print([name for name in ("torch", "transformers", "numpy", "matplotlib", "datasets") if name in sys.modules])
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (result.stdout, result.stderr) == ("[]\n", "")


def test_the_list_of_commands_is_complete_and_fits_a_screen():
    output = run("--help").stdout
    for name in (*OWN, *MODELS, *TRAINING, "recipes"):
        assert re.search(rf"^\W*{name}\s+[A-Z].*\.\W*$", output, re.MULTILINE), name
    assert len(output.splitlines()) <= 57


def test_without_words_there_is_help():
    assert run().stdout == run("--help").stdout


@pytest.mark.parametrize("name", [*OWN, *ANOMALIES])
def test_help_fits_a_screen(name):
    output = run(*name.split(), "--help").stdout
    assert len(output.rstrip().splitlines()) <= 60
    assert run(*name.split(), "-h").stdout == output


@pytest.mark.parametrize("name", ["", *OWN, *ANOMALIES, *MODELS, *TRAINING])
def test_every_help_has_an_example_and_ends_with_the_exit_statuses(name):
    output = " ".join(run(*name.split(), "--help").stdout.split())
    usage, _, examples = output.partition("Example")
    assert f" transformers-beats {name}".rstrip() in examples
    assert name in TRAINING or f"Usage: transformers-beats {name}".rstrip() in usage
    assert output.endswith(STATUSES)


PROGRESS = (*AUDIO, *ANOMALIES, "get", "convert", *MODELS, *TRAINING)


@pytest.mark.parametrize("name", PROGRESS)
def test_commands_that_print_progress_can_be_quiet(name):
    assert "--quiet" in run(*name.split(), "--help").stdout


# `index-audio` is a function for typer.
@pytest.mark.parametrize("name", sorted({*TRAINING} - {"index-audio"}))
def test_training_commands_print_the_help_of_their_modules(name, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    main = import_module(f"transformers_beats.{TRAINING[name].module}").main
    with pytest.raises(SystemExit, match=r"^0$"):
        main(["--help"])
    assert capsys.readouterr().out in run(name, "--help").stdout


def test_the_help_of_probe_says_first_what_it_is():
    first = run("probe", "--help").stdout.splitlines()[0]
    assert first.startswith("Train classifiers on the embeddings of a frozen encoder. Keys are those of `finetune`")
    assert first.endswith(", with `--freeze true`.")


# Grammar


@pytest.mark.parametrize("option", ["--event-threshold", "--event_threshold"])
def test_names_of_options_may_be_spelled_with_dashes_or_underscores(option):
    # 2 is out of range: the option was recognised.
    assert "'--event-threshold'" in run("tag", option, "2", "a.wav", exit_code=2).stderr


def test_names_of_commands_may_be_spelled_with_dashes_or_underscores(module):
    words = []
    module.main = lambda argv: words.append(argv)
    run("train_tokenizer", "--config", "x")
    run("train-tokenizer", "--config", "x")
    assert words == [["--config", "x"], ["--config", "x"]]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["tga"], "error: no command tga; did you mean tag?\n"),
        (["xyz"], "error: no command xyz; see transformers-beats --help\n"),
        (["fine_tune"], "error: no command fine_tune; did you mean finetune?\n"),
        (
            ["tag", "--windw", "2"],
            "error: no option --windw; did you mean --window or --event-window? See transformers-beats tag --help.\n",
        ),
        (["embed", "--xyz"], "error: no option --xyz. See transformers-beats embed --help.\n"),
        (
            ["convert", "--overwrit"],
            "error: no option --overwrit; did you mean --overwrite? See transformers-beats convert --help.\n",
        ),
        (["demo", "--sed", "1"], "error: no option --sed; did you mean --seed? See transformers-beats demo --help.\n"),
        (["--tag"], "error: no option --tag. See transformers-beats --help.\n"),
        (["anomalies"], "error: Missing command. See transformers-beats anomalies --help.\n"),
        (["anomalies", "fti"], "error: no command fti; did you mean fit?\n"),
        (["anomalies", "xyz"], "error: no command xyz; see transformers-beats anomalies --help\n"),
        (["info"], "error: Missing argument 'MODEL'. See transformers-beats info --help.\n"),
    ],
)
def test_usage_errors_are_one_line_that_says_what_could_be_meant(words, message):
    assert run(*words, exit_code=2).stderr == message


# Commands that other folders own


def test_all_words_are_forwarded_as_they_are(module):
    words = ["x.yaml", "--learning_rate", "1e-4", "-h", "--", "--help", "a=b", "--dry-run=no"]
    received = []
    module.main = lambda argv: received.extend(argv)
    run("finetune", *words)
    assert received == words


def test_probe_freezes_the_encoder(module):
    received = []
    module.main = lambda argv: received.extend(argv)
    run("probe", "--dataset", "folder")
    assert received == ["--dataset", "folder", "--freeze", "true"]


def test_the_functions_of_commands_exist():
    for command in (*MODELS.values(), *TRAINING.values()):
        assert callable(import_module(f"transformers_beats.{command.module}").main)


def test_recipes_are_listed_by_name():
    assert re.search(r"^folder_finetune +A classifier ", run("recipes").stdout, re.MULTILINE)


# Exit statuses


@pytest.mark.parametrize(
    ("error", "status", "line"),
    [
        (UsageError("a value\nis wrong."), 2, "error: a value is wrong."),
        (BeatsError("a file is damaged."), 1, "error: a file is damaged."),
        (OSError("no space"), 1, "error: no space"),
        (KeyboardInterrupt(), 130, "interrupted"),
    ],
)
@pytest.mark.parametrize("is_typer", [False, True])
def test_errors_of_forwarded_commands_have_one_line_and_a_status(module, error, status, line, is_typer):
    def fail_for_typer() -> None:
        raise error

    def fail(argv: list[str]) -> None:
        raise error

    module.main = fail_for_typer if is_typer else fail
    assert run("publish", exit_code=status).stderr.splitlines()[-1] == line


def test_a_status_that_is_returned_or_raised_is_the_exit_status(module):
    def leave() -> None:
        raise typer.Exit(1)

    module.main = lambda argv: 1
    run("evaluate", exit_code=1)
    module.main = leave
    run("publish", exit_code=1)
    module.main = lambda argv: 0
    run("evaluate")


def test_the_version_is_printed():
    assert run("--version").stdout == f"transformers-beats {transformers_beats.__version__}\n"


def test_quiet_is_no_word_of_a_training_command_and_ends_with_it(module):
    seen = []
    module.main = lambda argv: seen.append((argv, is_quiet(), tqdm([], leave=False).disable))
    run("finetune", "--quiet", "--config", "x")
    run("finetune", "--config", "x")
    assert seen == [(["--config", "x"], True, True), (["--config", "x"], False, False)]


# Completion


def complete(shell: str, words: str, **variables: str) -> str:
    program = [sys.executable, "-m", "transformers_beats"]
    variables |= {"_TRANSFORMERS_BEATS_COMPLETE": f"complete_{shell}", "_TYPER_COMPLETE_ARGS": words}
    result = subprocess.run(program, env={**os.environ, **variables}, capture_output=True, text=True, check=False)
    assert result.stderr == ""
    return result.stdout


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_gets_a_script_that_completes_commands(shell):
    script = run("completion", shell).stdout
    assert "_TRANSFORMERS_BEATS_COMPLETE" in script
    if program := shutil.which(shell):
        subprocess.run([program, "-n"], input=script, text=True, check=True)
    variables = {"COMP_WORDS": "transformers-beats toke", "COMP_CWORD": "1"}
    variables |= {"_TYPER_COMPLETE_FISH_ACTION": "get-args"}
    assert "tokenize" in complete(shell, "transformers-beats toke", **variables)


def test_names_of_released_models_are_completed():
    variables = {"COMP_WORDS": "transformers-beats tag -m beats-iter3-plus-as2m-f", "COMP_CWORD": "3"}
    found = complete("bash", variables["COMP_WORDS"], **variables).split()
    assert "beats-iter3-plus-as2m-finetuned-as2m-cpt2" in found


def test_an_unknown_shell_is_refused():
    assert "'xonsh'" in run("completion", "xonsh", exit_code=2).stderr


def test_the_package_runs_as_a_program():
    result = subprocess.run(
        [sys.executable, "-m", "transformers_beats", "nothing"], capture_output=True, text=True, check=False
    )
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr == "error: no command nothing; see transformers-beats --help\n"
