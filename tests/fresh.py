# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""
Fresh processes, each as a user starts one. Most of the seconds that such a process takes pass in importing PyTorch and
what else it needs, so one process imports that and is forked for every program. What reads the environment when it is
imported, as transformers, huggingface_hub and this package do, is imported by the program itself, or by a server that
was started in the environment of all its programs.
"""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory


# What programs import that does not read the environment.
COMMON = ["torch._dynamo", "torch.distributed.fsdp", "torch.distributed.tensor", "torch.export"]
COMMON += ["pandas", "pyarrow.dataset", "scipy.optimize"]
SERVER = """
import gc
import importlib
import json
import os
import select
import socket
import sys

address, *modules = sys.argv[1:]
for name in modules:
    importlib.import_module(name)
listener = socket.socket(socket.AF_UNIX)
listener.bind(address)
listener.listen()
# Else every program would copy what is imported, to look for garbage in it when it ends: that takes seconds.
gc.freeze()
print(flush=True)

while True:
    if sys.stdin in select.select([listener, sys.stdin], [], [])[0]:
        # Whoever started this has ended.
        sys.exit()
    connection, _ = listener.accept()
    if os.fork() == 0:
        # Waits for the program, while the server listens.
        request, files, _, _ = socket.recv_fds(connection, 2**16, 3)
        while part := connection.recv(2**16):
            request += part
        program = os.fork()
        if program == 0:
            break
        status = os.waitstatus_to_exitcode(os.waitpid(program, 0)[1])
        connection.sendall(str(status).encode())
        os._exit(0)
    connection.close()
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass

code, sys.argv, environment, directory = json.loads(request)
os.environ.clear()
os.environ.update(environment)
os.chdir(directory)
for number, file in enumerate(files):
    os.dup2(file, number)
    os.close(file)
listener.close()
connection.close()
exec(compile(code, "<string>", "exec"), {"__name__": "__main__"})
"""
# A program that has the server run code, with its own arguments, surroundings and standard streams.
PROGRAM = """#!{python} -IS
import os
import sys

sys.path.insert(0, {folder!r})
from fresh import ask

status = ask({address!r}, {code!r}, sys.argv, dict(os.environ), os.getcwd(), [0, 1, 2])
sys.exit(status if status >= 0 else 128 - status)
"""


def ask(address: str, code: str, argv: list[str], environment: dict[str, str], directory: str, files: list) -> int:
    """Has the server run a program with three standard streams, and returns its exit status."""
    request = json.dumps([code, argv, environment, directory]).encode()
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(address)
        socket.send_fds(connection, [request[:1]], files)
        connection.sendall(request[1:])
        connection.shutdown(socket.SHUT_WR)
        return int(connection.recv(16))


@contextmanager
def fork_server(modules: list[str], *options: str, env: dict[str, str] | None = None) -> Generator[str, None, None]:
    """Starts a process that imports modules, with options of Python, and listens at the address that is yielded."""
    with TemporaryDirectory() as directory:
        address = f"{directory}/socket"
        command = [sys.executable, *options, "-c", SERVER, address, *modules]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=env) as server:
            assert server.stdout.readline(), "the server of fresh processes did not start"
            yield address
            server.stdin.close()


def write_program(path: Path, address: str, code: str) -> None:
    """Writes a program for a shell that has the server run `code`."""
    folder = str(Path(__file__).parent)
    path.write_text(PROGRAM.format(python=sys.executable, folder=folder, address=address, code=code))
    path.chmod(0o755)


@contextmanager
def forked_python(modules: list[str] = COMMON) -> Generator[Callable[..., subprocess.CompletedProcess], None, None]:
    """
    A function that runs a program as `python -W error::UserWarning -c CODE ARGUMENT...` does, with no input. The given
    modules are imported already: other ones than `COMMON` may have read the environment of this process.
    """
    with fork_server(modules, "-W", "error::UserWarning") as address:

        def run(code: str, *arguments, env: dict[str, str] | None = None, cwd: Path | None = None):
            argv = ["-c", *map(str, arguments)]
            with TemporaryDirectory() as directory, open(os.devnull) as stdin:
                paths = [Path(directory) / name for name in ("stdout", "stderr")]
                environment = dict(os.environ if env is None else env)
                with paths[0].open("w") as stdout, paths[1].open("w") as stderr:
                    files = [file.fileno() for file in (stdin, stdout, stderr)]
                    status = ask(address, code, argv, environment, str(cwd or Path.cwd()), files)
                return subprocess.CompletedProcess(argv, status, *(path.read_text() for path in paths))

        yield run
