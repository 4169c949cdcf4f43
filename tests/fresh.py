# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""
Fresh processes, each as a user starts one. Most of the seconds that such a process takes pass in importing PyTorch, so
one process imports it and is forked for every program. Nothing of transformers, of huggingface_hub, which read the
environment, and of this package is imported before the program does it.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory


SERVER = """
import json
import os
import sys

import scipy.optimize
import torch._dynamo
import torch.distributed.fsdp
import torch.distributed.tensor
import torch.export

for line in sys.stdin:
    child = os.fork()
    if child == 0:
        break
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
else:
    sys.exit()

code, sys.argv, environment, directory, files = json.loads(line)
os.environ.clear()
os.environ.update(environment)
os.chdir(directory)
for number, file in enumerate([os.devnull, *files]):
    os.dup2(os.open(file, os.O_RDWR | os.O_CREAT), number)
exec(compile(code, "<string>", "exec"), {"__name__": "__main__"})
"""


@contextmanager
def forked_python() -> Generator[Callable[..., subprocess.CompletedProcess], None, None]:
    """A function that runs a program as `python -W error::UserWarning -c CODE ARGUMENT...` does, with no input."""
    command = [sys.executable, "-W", "error::UserWarning", "-c", SERVER]
    server = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def run(code: str, *arguments, env: dict[str, str] | None = None, cwd: Path | None = None):
        argv = ["-c", *map(str, arguments)]
        with TemporaryDirectory() as directory:
            files = [Path(directory) / name for name in ("stdout", "stderr")]
            environment = dict(os.environ if env is None else env)
            request = (code, argv, environment, str(cwd or Path.cwd()), list(map(str, files)))
            print(json.dumps(request), file=server.stdin, flush=True)
            status = int(server.stdout.readline())
            return subprocess.CompletedProcess(argv, status, *(file.read_text() for file in files))

    with server:
        yield run
        server.stdin.close()
