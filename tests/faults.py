"""Faults on purpose: a run killed at its n-th boundary, and a disk that forgets what was not made durable.

A boundary is a moment at which dying could matter: before every file of the run's folder is opened to be written, is
renamed or removed, before and in the middle of every write, before and after every flush, and before every phase of a step.
"""

from __future__ import annotations

import json
import os
import signal
import stat
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from openjepa.cli import pretrain as command
from openjepa.data.loader import Steps
from openjepa.methods.jepa import MaskedJEPA
from openjepa.training import checkpoint_writer, resume, step
from openjepa.training import run as runs
from openjepa.training.checkpoint import list_checkpoints
from openjepa.training.log import TIMING_METRICS, read_metrics
from openjepa.training.meters import Meters

PHASES: tuple[tuple[Any, str], ...] = (
    (runs, "write_metadata"), (Steps, "__getitem__"), (MaskedJEPA, "targets"), (MaskedJEPA, "forward"), (torch.Tensor, "backward"),
    (step, "clip_gradients"), (step, "step_if_finite"), (MaskedJEPA, "after_step"), (Meters, "report"),
    (checkpoint_writer, "take_snapshot"), (resume, "restore_checkpoint"), (runs, "export_encoder"), (command, "curves"),
)  # fmt: skip
WATCHED = {"open": "open", "os.rename": "rename", "os.mkdir": "make", "os.remove": "remove", "os.rmdir": "remove"}


class Boundaries:
    """Counts a process's boundaries below a folder, and does `then` at the n-th. To be made in a process of its own."""

    def __init__(self, folder: Path, at: int, then: Callable[[str], None]):
        self.folder, self.at, self.then, self.names = folder, at, then, list[str]()
        self.counting = threading.RLock()  # a save may be written by a thread of its own
        write, fsync = os.write, os.fsync

        def half(handle: int, content: Any) -> int:
            if not self.mine(path_of(handle)):
                return write(handle, content)
            self.reached("write")
            middle = write(handle, content[: len(content) // 2])
            self.reached("half a write")
            return middle + write(handle, content[len(content) // 2 :])

        def flushed(handle: int) -> None:
            self.reached("flush")
            fsync(handle)
            self.reached("flushed")

        os.write, os.fsync = half, flushed
        for place, name in PHASES:
            setattr(place, name, self.announced(getattr(place, name), name))
        sys.addaudithook(self.seen)

    def mine(self, path: Any) -> bool:
        return isinstance(path, str | os.PathLike) and Path(path).is_relative_to(self.folder)

    def seen(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event in WATCHED and self.mine(named(event, arguments)):
            if event == "open" and not arguments[2] & (os.O_WRONLY | os.O_RDWR):
                return
            self.reached(WATCHED[event])

    def announced(self, function: Callable[..., Any], name: str) -> Callable[..., Any]:
        def called(*arguments: Any, **options: Any) -> Any:
            self.reached(f"step: {name.strip('_')}")
            return function(*arguments, **options)

        return called

    def reached(self, name: str) -> None:
        with self.counting:
            self.names.append(name)
            if len(self.names) == self.at:
                self.then(name)


def named(event: str, arguments: tuple[Any, ...]) -> Any:
    """The path that an audited call is about; rmtree gives names below an open folder."""
    below = {"os.remove": 1, "os.rmdir": 1, "os.mkdir": 2}.get(event)
    if below is None or arguments[below] == -1:
        return arguments[0]
    return path_of(arguments[below]) / arguments[0]


def path_of(handle: int) -> Path:
    return Path(f"/proc/self/fd/{handle}").readlink()


class Node:
    """A file or folder as it would be found after the power had gone: contents, or names, as they were flushed last."""

    def __init__(self, folder: bool):
        self.content: bytes | dict[str, Node] = {} if folder else b""


class Disk:
    """What of a folder is durable. In the worst case that POSIX allows, nothing else is there after the power went."""

    def __init__(self, root: Path):
        self.live: dict[int, Node] = {}  # by the number of the inode
        self.root, fsync = root, os.fsync
        for folder, _, files in os.walk(root, topdown=False):  # what is there when we begin is durable
            for name in files:
                self.flushed(Path(folder) / name)
            self.flushed(Path(folder))

        def noted(handle: int) -> None:
            fsync(handle)
            if path_of(handle).is_relative_to(root):
                self.flushed(path_of(handle))

        os.fsync = noted
        sys.addaudithook(self.seen)

    def node(self, path: Path) -> Node:
        status = path.lstat()
        return self.live.setdefault(status.st_ino, Node(stat.S_ISDIR(status.st_mode)))

    def flushed(self, path: Path) -> None:
        node = self.node(path)
        if isinstance(node.content, dict):
            node.content = {entry.name: self.node(entry) for entry in path.iterdir()}
        else:
            node.content = path.read_bytes()

    def seen(self, event: str, arguments: tuple[Any, ...]) -> None:
        """An inode that is let go may be given to another file."""
        if event in ("os.remove", "os.rmdir", "os.rename"):
            path = Path(arguments[1] if event == "os.rename" else named(event, arguments))
            if os.path.lexists(path):
                self.live.pop(path.lstat().st_ino, None)

    def after_power_loss(self, place: Path) -> None:
        """Makes a folder of what is left."""
        restored(self.node(self.root), place)


def restored(node: Node, place: Path) -> None:
    if isinstance(node.content, dict):
        place.mkdir()
        for name, own in node.content.items():
            restored(own, place / name)
    else:
        place.write_bytes(node.content)


def forked(work: Callable[[], None]) -> int:
    """The status that a copy of this process leaves with after the work; what it says is dropped, but for errors."""
    child = os.fork()
    if child == 0:
        sys.stdout.flush()
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        try:
            work()
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def die(_: str = "") -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def outcome(out: Path) -> tuple[dict[str, dict[str, torch.Tensor]], list[dict[str, Any]]]:
    """Final weights and moments, and the rows of the log without timings."""
    last = list_checkpoints(out / "checkpoints")[0]
    tensors = {name: load_file(last / f"{name}.safetensors") for name in ("model", "optimizer")}
    rows = [{k: v for k, v in row.items() if k not in TIMING_METRICS} for row in read_metrics(out / "metrics.jsonl")]
    return tensors, rows


def same(one: tuple, other: tuple) -> bool:
    """Whether two outcomes are equal bit for bit."""
    (tensors, rows), (others, other_rows) = one, other
    alike = all(torch.equal(tensors[part][name], others[part][name]) for part in tensors for name in tensors[part])
    return alike and all(tensors[part].keys() == others[part].keys() for part in tensors) and rows == other_rows


def boundaries(work: Callable[[], None], folder: Path, notes: Path) -> list[str]:
    """The names of a run's boundaries, in order."""

    def counted() -> None:
        found = Boundaries(folder, 0, die)
        work()
        notes.write_text(json.dumps(found.names))

    assert forked(counted) == 0
    return json.loads(notes.read_text())


def killed(work: Callable[[], None], folder: Path, at: int) -> int:
    """Runs until the n-th boundary below the folder and dies there; the status."""

    def run() -> None:
        Boundaries(folder, at, die)
        work()

    return forked(run)


def powerless(work: Callable[[], None], folder: Path, at: int, left: Path) -> int:
    """The same, and the power goes: `left` is what of the folder's parent is found again."""

    def run() -> None:
        disk = Disk(folder.parent)

        def lost(_: str) -> None:
            disk.after_power_loss(left)
            die()

        Boundaries(folder, at, lost)
        work()

    return forked(run)


def every(count: int, step: int) -> Iterator[int]:
    """Each step-th number from 1 to count, the first and the last among them."""
    yield from sorted({*range(1, count + 1, step), count})
