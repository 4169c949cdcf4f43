# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Commands that fetch a released model, each in a process of its own, on bad days."""

import signal
import subprocess
import sys
import textwrap

import pytest

from hub.releases import FIRST, NAME, SECOND, SOURCE, assert_complete


pytestmark = pytest.mark.slow
COMMAND = [sys.executable, "-m", "transformers_beats"]


def start(release, *arguments: str, **variables: str) -> subprocess.Popen:
    environment = release.environment(**variables)
    return subprocess.Popen(
        [*COMMAND, *arguments],
        env=environment,
        cwd=release.manifest.parent,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(release, *arguments: str, **variables: str) -> tuple[int, str, str]:
    """Exit status, standard output and the last line of standard error."""
    process = start(release, *arguments, **variables)
    out, err = process.communicate()
    return process.returncode, out, err.strip().splitlines()[-1] if err.strip() else ""


@pytest.mark.parametrize(
    ("command", "sent", "status"),
    [
        (["get", NAME], signal.SIGINT, 130),
        (["get", NAME], signal.SIGTERM, 143),
        (["info", NAME], signal.SIGTERM, 143),
        (["info", NAME], signal.SIGHUP, 129),
    ],
)
def test_an_ended_download_is_made_by_the_next_run(release, command, sent, status):
    release.hub.silence("GET", FIRST, after=200_000)
    process = start(release, *command, HF_HUB_DOWNLOAD_TIMEOUT="60")
    assert release.hub.is_silent.wait(120)
    process.send_signal(sent)
    _, err = process.communicate()
    assert process.returncode == status
    assert "Traceback" not in err
    assert release.leftovers == []
    status, out, _ = run(release, "get", NAME)
    assert status == 0
    assert_complete(out.strip(), release)


def test_a_killed_download_leaves_nothing_after_the_next_run(release):
    release.hub.silence("GET", FIRST, after=200_000)
    process = start(release, "get", NAME, HF_HUB_DOWNLOAD_TIMEOUT="60")
    assert release.hub.is_silent.wait(120)
    process.kill()
    process.communicate()
    assert release.leftovers
    status, out, _ = run(release, "get", NAME)
    assert status == 0
    assert_complete(out.strip(), release)


def test_processes_that_fetch_at_once_get_one_model_from_one_download(release):
    processes = [start(release, "get", NAME) for _ in range(2)]
    outputs = {process.communicate()[0].strip() for process in processes}
    assert [process.returncode for process in processes] == [0, 0]
    assert len(outputs) == 1
    assert_complete(outputs.pop(), release)
    assert len([request for request in release.hub.sent("GET", FIRST) if "resolve" not in request.path]) == 1


def test_a_command_takes_the_name_of_a_model_whose_first_mirror_is_gone(release):
    release.api.delete_repo(FIRST)
    status, out, error = run(release, "info", NAME)
    assert status == 0, error
    assert "3 layers of 64" in out
    release.hub.requests.clear()
    assert run(release, "info", NAME, HF_HUB_OFFLINE="1")[:2] == (0, out)
    assert release.hub.requests == []


def test_without_a_network_commands_say_what_to_do(release):
    for arguments in (("get", NAME), ("info", NAME)):
        status, out, error = run(release, *arguments, HF_HUB_OFFLINE="1")
        assert (status, out) == (1, "")
        assert error.startswith(
            f"error: {NAME}: is not in the cache, and the network is switched off (HF_HUB_OFFLINE, "
            "TRANSFORMERS_OFFLINE or --offline). A file of"
        )
    assert release.hub.requests == []


def test_a_full_disk_is_one_line(release):
    """On a small disk of its own, which takes the right to mount one."""
    script = textwrap.dedent("""
        mkdir -p "$HF_HOME" && mount -t tmpfs -o size=300k tmpfs "$HF_HOME" || exit 77
        "$@"
    """)
    command = ["unshare", "--map-root-user", "--mount", "sh", "-c", script, "sh", *COMMAND, "get", NAME]
    try:
        result = subprocess.run(command, env=release.environment(), capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("needs the program unshare")
    if result.returncode in (1, 77) and "error: " not in result.stderr:
        pytest.skip(f"needs the right to mount a disk: {result.stderr.strip()}")
    assert result.returncode == 1
    error = result.stderr.strip().splitlines()[-1]
    assert error == (
        f"error: {release.home / 'hub'}: cannot be used: No space left on device; name another cache with HF_HOME."
    )
    assert not release.hub.sent("GET", f"{SECOND}/resolve")
    assert SOURCE.name not in result.stdout
