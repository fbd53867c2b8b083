"""A Python that has imported what a run needs already, of which copies are taken: a start takes seconds, a copy none.

A copy is a process as `python -c CODE ARGUMENTS` is, with its signals, its exit status and an end of its own interpreter.
It is the Python's child, not ours, and /proc does not know its variables: tests of those start a Python afresh.
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
LOOK, LARGEST = 0.02, 2**20  # seconds between looks for copies that have ended; bytes of what one is asked


class Ready:
    """A copy, and as much of subprocess.Popen as tests use. What it says on stderr is kept where that is `heard`."""

    def __init__(self, code: str, *arguments: str, env: dict[str, str] | None = None, heard: bool = False):
        self.said = os.memfd_create("said") if heard else 2
        asked = {"argv": ["-c", *arguments], "code": code, "env": env or dict(os.environ), "cwd": str(Path.cwd())}
        self.report, theirs = socket.socketpair(type=socket.SOCK_SEQPACKET)  # its number and its end are two messages
        with theirs:
            socket.send_fds(door(), [json.dumps(asked).encode()], [1, self.said, theirs.fileno()])
        self.pid, self.returncode = int(self.report.recv(100)), None

    def poll(self) -> int | None:
        if self.returncode is None and select.select([self.report], [], [], 0)[0]:
            self.returncode = int(self.report.recv(100))
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        if self.returncode is None and not select.select([self.report], [], [], timeout)[0]:
            raise subprocess.TimeoutExpired("a copy", timeout or 0.0)
        return self.poll()  # type: ignore[return-value]

    def communicate(self, timeout: float | None = None) -> tuple[None, str]:
        self.wait(timeout)
        return None, os.pread(self.said, LARGEST, 0).decode()

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


@functools.cache
def door() -> socket.socket:
    """Where this process asks for copies."""
    ours, theirs = socket.socketpair(type=socket.SOCK_SEQPACKET)
    with theirs:
        command = [sys.executable, "-m", "tests.ready", str(theirs.fileno())]
        subprocess.Popen(command, pass_fds=[theirs.fileno()], cwd=Path(__file__).parents[1])
    atexit.register(ours.close)
    return ours


def copied(door: socket.socket) -> str:
    """Takes copies until nobody can ask for one; in each of them, the code that it is to run."""
    reports: dict[int, int] = {}
    while True:
        if select.select([door], [], [], LOOK if reports else None)[0]:
            content, files, *_ = socket.recv_fds(door, LARGEST, 3)
            if not content:
                raise SystemExit
            pid = os.fork()
            if not pid:
                for each in (door.detach(), files[2], *reports.values()):
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


def become(asked: dict, files: list[int]) -> str:
    """Makes this process what was asked for."""
    for place, file in enumerate(files[:2], 1):
        os.dup2(file, place)
        os.close(file)
    os.environ.clear()
    os.environ.update(asked["env"])
    os.chdir(asked["cwd"])
    sys.argv = asked["argv"]
    return asked["code"]


if __name__ == "__main__":
    exec(IMPORTED)
    gc.freeze()  # what is imported is not a copy's to take down
    assert len([*Path("/proc/self/task").iterdir()]) == 1, "a copy has one thread alone"
    exec(compile(copied(socket.socket(fileno=int(sys.argv[1]))), "<string>", "exec"), {"__name__": "__main__"})
