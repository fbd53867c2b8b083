"""Inject faults: kill a run at its n-th boundary; lose everything that a disk has not made durable.

A boundary is a moment at which a kill could do harm: before a file in the run's folder is opened for writing, renamed
or removed, before and in the middle of every write, before and after every flush, and before every phase of a step.
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
    (runs, "write_metadata"), (Steps, "__getitem__"),
    (MaskedJEPA, "targets"), (MaskedJEPA, "forward"), (torch.Tensor, "backward"),
    (step, "clip_gradients"), (step, "step_if_finite"), (MaskedJEPA, "after_step"), (Meters, "report"),
    (checkpoint_writer, "take_snapshot"), (resume, "restore_checkpoint"), (runs, "export_encoder"),
    (command, "draw_training_curves"),
)  # fmt: skip
WATCHED = {"open": "open", "os.rename": "rename", "os.mkdir": "make", "os.remove": "remove", "os.rmdir": "remove"}


class Boundaries:
    """Counts the boundaries below a folder and acts at the n-th; patches this process for good, so fork first."""

    def __init__(self, folder: Path, at: int, action: Callable[[str], None]):
        self.folder, self.at, self.action, self.names = folder, at, action, list[str]()
        self.lock = threading.RLock()  # the checkpoint writer has its own thread
        write, fsync = os.write, os.fsync

        def write_in_halves(handle: int, content: Any) -> int:
            if not self.is_inside(path_of(handle)):
                return write(handle, content)
            self.reach("write")
            middle = write(handle, content[: len(content) // 2])
            self.reach("half a write")
            return middle + write(handle, content[len(content) // 2 :])

        def announce_fsync(handle: int) -> None:
            self.reach("flush")
            fsync(handle)
            self.reach("flushed")

        os.write, os.fsync = write_in_halves, announce_fsync
        for owner, name in PHASES:
            setattr(owner, name, self.announce(getattr(owner, name), name))
        sys.addaudithook(self.audit)

    def is_inside(self, path: Any) -> bool:
        return isinstance(path, str | os.PathLike) and Path(path).is_relative_to(self.folder)

    def audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event in WATCHED and self.is_inside(audited_path(event, arguments)):
            if event == "open" and not arguments[2] & (os.O_WRONLY | os.O_RDWR):
                return
            self.reach(WATCHED[event])

    def announce(self, function: Callable[..., Any], name: str) -> Callable[..., Any]:
        def called(*arguments: Any, **options: Any) -> Any:
            self.reach(f"step: {name.strip('_')}")
            return function(*arguments, **options)

        return called

    def reach(self, name: str) -> None:
        with self.lock:
            self.names.append(name)
            if len(self.names) == self.at:
                self.action(name)


def audited_path(event: str, arguments: tuple[Any, ...]) -> Any:
    """Return the path that an audited call is about; rmtree passes names relative to an open folder."""
    below = {"os.remove": 1, "os.rmdir": 1, "os.mkdir": 2}.get(event)
    if below is None or arguments[below] == -1:
        return arguments[0]
    return path_of(arguments[below]) / arguments[0]


def path_of(handle: int) -> Path:
    return Path(f"/proc/self/fd/{handle}").readlink()


class Node:
    """A file or folder as found after a power loss: its contents, or its names, at the last flush."""

    def __init__(self, folder: bool):
        self.content: bytes | dict[str, Node] = {} if folder else b""


class Disk:
    """The durable part of a folder: all that is left after a power loss in the worst case that POSIX allows."""

    def __init__(self, root: Path):
        self.nodes: dict[int, Node] = {}  # by inode number
        self.root, fsync = root, os.fsync
        for folder, _, files in os.walk(root, topdown=False):  # everything that exists at the start is durable
            for name in files:
                self.flush(Path(folder) / name)
            self.flush(Path(folder))

        def fsync_and_note(handle: int) -> None:
            fsync(handle)
            if path_of(handle).is_relative_to(root):
                self.flush(path_of(handle))

        os.fsync = fsync_and_note
        sys.addaudithook(self.forget_inode)

    def node(self, path: Path) -> Node:
        status = path.lstat()
        return self.nodes.setdefault(status.st_ino, Node(stat.S_ISDIR(status.st_mode)))

    def flush(self, path: Path) -> None:
        node = self.node(path)
        if isinstance(node.content, dict):
            node.content = {entry.name: self.node(entry) for entry in path.iterdir()}
        else:
            node.content = path.read_bytes()

    def forget_inode(self, event: str, arguments: tuple[Any, ...]) -> None:
        """Forget the inode of a removed file, because another file may get its number."""
        if event in ("os.remove", "os.rmdir", "os.rename"):
            path = Path(arguments[1] if event == "os.rename" else audited_path(event, arguments))
            if os.path.lexists(path):
                self.nodes.pop(path.lstat().st_ino, None)

    def after_power_loss(self, target: Path) -> None:
        """Write what is left to a new folder."""
        restore(self.node(self.root), target)


def restore(node: Node, target: Path) -> None:
    """Write a file or folder of the disk to `target`."""
    if isinstance(node.content, dict):
        target.mkdir()
        for name, child in node.content.items():
            restore(child, target / name)
    else:
        target.write_bytes(node.content)


def run_in_fork(work: Callable[[], None]) -> int:
    """Do the work in a fork of this process and return its exit status; only its errors are printed."""
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


def load_outcome(out: Path) -> tuple[dict[str, dict[str, torch.Tensor]], list[dict[str, Any]]]:
    """Load a run's final weights and optimizer state, and the rows of its log without timings."""
    last = list_checkpoints(out / "checkpoints")[0]
    tensors = {name: load_file(last / f"{name}.safetensors") for name in ("model", "optimizer")}
    rows = [{k: v for k, v in row.items() if k not in TIMING_METRICS} for row in read_metrics(out / "metrics.jsonl")]
    return tensors, rows


def same_outcome(one: tuple, other: tuple) -> bool:
    """Return whether two outcomes are bit-identical."""
    (tensors, rows), (others, other_rows) = one, other
    equal = all(torch.equal(tensors[part][name], others[part][name]) for part in tensors for name in tensors[part])
    return equal and all(tensors[part].keys() == others[part].keys() for part in tensors) and rows == other_rows


def list_boundaries(work: Callable[[], None], folder: Path, notes: Path) -> list[str]:
    """Return the names of a run's boundaries, in order."""

    def count() -> None:
        boundaries = Boundaries(folder, 0, die)
        work()
        notes.write_text(json.dumps(boundaries.names))

    assert run_in_fork(count) == 0
    return json.loads(notes.read_text())


def run_until_killed(work: Callable[[], None], folder: Path, at: int) -> int:
    """Run up to the n-th boundary below the folder, be killed there, and return the exit status."""

    def run() -> None:
        Boundaries(folder, at, die)
        work()

    return run_in_fork(run)


def run_until_power_loss(work: Callable[[], None], folder: Path, at: int, left: Path) -> int:
    """Run up to the n-th boundary and lose power there; `left` becomes what is left of the folder's parent."""

    def run() -> None:
        disk = Disk(folder.parent)

        def lose_power(_: str) -> None:
            disk.after_power_loss(left)
            die()

        Boundaries(folder, at, lose_power)
        work()

    return run_in_fork(run)


def sample_every(count: int, step: int) -> Iterator[int]:
    """Yield every `step`-th number from 1 to `count`, with the first and the last."""
    yield from sorted({*range(1, count + 1, step), count})
