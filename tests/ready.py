"""Start Python processes quickly: fork them from a server process that has already imported what a run needs.

A fork behaves like `python -c CODE ARGUMENTS`: it has its own signals, exit status and interpreter shutdown. It is a
child of the server, not of the tests, and /proc does not show its environment: tests of that start a new Python.
"""

from __future__ import annotations

import atexit
import functools
import gc
import json
import os
import select
import signal
import socket
import subprocess
import sys
from pathlib import Path

IMPORTED = "import openjepa.cli.main, openjepa.cli.pretrain, tests.small, torch._dynamo"
POLL_SECONDS, MAX_MESSAGE = 0.02, 2**20  # between looks for forks that have ended; bytes of a request


class Ready:
    """A forked process with the part of subprocess.Popen that tests use."""

    def __init__(self, code: str, *arguments: str, env: dict[str, str] | None = None, capture_stderr: bool = False):
        self.stderr = os.memfd_create("stderr") if capture_stderr else 2
        request = {"argv": ["-c", *arguments], "code": code, "env": env or dict(os.environ), "cwd": str(Path.cwd())}
        self.report, remote = socket.socketpair(type=socket.SOCK_SEQPACKET)  # two messages: process id, exit status
        with remote:
            socket.send_fds(server_socket(), [json.dumps(request).encode()], [1, self.stderr, remote.fileno()])
        self.pid, self.returncode = int(self.report.recv(100)), None

    def poll(self) -> int | None:
        if self.returncode is None and select.select([self.report], [], [], 0)[0]:
            self.returncode = int(self.report.recv(100))
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        if self.returncode is None and not select.select([self.report], [], [], timeout)[0]:
            raise subprocess.TimeoutExpired("a forked process", timeout or 0.0)
        return self.poll()  # type: ignore[return-value]

    def communicate(self, timeout: float | None = None) -> tuple[None, str]:
        self.wait(timeout)
        return None, os.pread(self.stderr, MAX_MESSAGE, 0).decode()

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


@functools.cache
def server_socket() -> socket.socket:
    """Start the server; return the socket on which this process requests forks."""
    local, remote = socket.socketpair(type=socket.SOCK_SEQPACKET)
    with remote:
        command = [sys.executable, "-m", "tests.ready", str(remote.fileno())]
        subprocess.Popen(command, pass_fds=[remote.fileno()], cwd=Path(__file__).parents[1])
    atexit.register(local.close)
    return local


def serve(requests: socket.socket) -> str:
    """Fork on every request until the other end is closed; return, in each fork, the code that it must run."""
    reports: dict[int, int] = {}
    while True:
        if select.select([requests], [], [], POLL_SECONDS if reports else None)[0]:
            content, files, *_ = socket.recv_fds(requests, MAX_MESSAGE, 3)
            if not content:
                raise SystemExit
            pid = os.fork()
            if not pid:
                for each in (requests.detach(), files[2], *reports.values()):
                    os.close(each)
                return become(json.loads(content), files)
            os.write(files[2], str(pid).encode())
            reports[pid] = files[2]
            for each in files[:2]:
                os.close(each)
        while reports and (ended := os.waitpid(-1, os.WNOHANG))[0]:
            report = reports.pop(ended[0])
            os.write(report, str(os.waitstatus_to_exitcode(ended[1])).encode())
            os.close(report)


def become(request: dict, files: list[int]) -> str:
    """Give this process the requested output, environment, folder and arguments; return the code to run."""
    for number, file in enumerate(files[:2], 1):
        os.dup2(file, number)
        os.close(file)
    os.environ.clear()
    os.environ.update(request["env"])
    os.chdir(request["cwd"])
    sys.argv = request["argv"]
    return request["code"]


if __name__ == "__main__":
    exec(IMPORTED)
    gc.freeze()  # forks must not garbage-collect what was imported
    assert len([*Path("/proc/self/task").iterdir()]) == 1, "only a process with a single thread can be forked safely"
    exec(compile(serve(socket.socket(fileno=int(sys.argv[1]))), "<string>", "exec"), {"__name__": "__main__"})
