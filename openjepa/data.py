"""From files to batches: a list of paths, the order of samples, and the loader that can start at any step."""

from __future__ import annotations

import errno
import hashlib
import mmap
import multiprocessing
import os
import re
import shutil
import threading
from collections.abc import Iterator, Sequence
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.utils.data import DataLoader

from openjepa.archives import SQUEEZED, SUFFIXES, addresses, complete
from openjepa.core.errors import UserError
from openjepa.core.fileio import atomic_write
from openjepa.core.protocols import Dataset, Masker
from openjepa.core.rng import CounterRNG, epoch_order
from openjepa.core.types import Batch, FileList, Masks, Skipped

SHARED = Path("/dev/shm")


class Paths(Sequence[str]):
    """A list of paths in one memory-mapped file: a million of them open at once, and workers share the memory."""

    def __init__(self, file: Path):
        self.file = file
        with file.open("rb") as stream:
            self.data = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
        count = int.from_bytes(self.data[:8], "little")
        self.ends = np.frombuffer(self.data, np.int64, count, offset=8)
        self.start = 8 + 8 * count

    def __len__(self) -> int:
        return len(self.ends)

    def __getitem__(self, index: int) -> str:  # type: ignore[override]
        first = 0 if index == 0 else int(self.ends[index - 1])
        return os.fsdecode(self.data[self.start + first : self.start + int(self.ends[index])])

    def __reduce__(self):
        return Paths, (self.file,)

    @staticmethod
    def write(file: Path, paths: list[str]) -> Paths:
        """Stores the list and opens it. The file appears whole or not at all."""
        encoded = [os.fsencode(path) for path in paths]
        ends = np.cumsum([len(path) for path in encoded], dtype=np.int64)
        with atomic_write(file) as temporary, temporary.open("wb") as stream:
            stream.write(len(encoded).to_bytes(8, "little"))
            stream.write(ends.tobytes())
            stream.write(b"".join(encoded))
        return Paths(file)


def list_files(roots: Sequence[str], suffixes: frozenset[str], inside: bool = True) -> FileList:
    """Every file with one of these suffixes below the folders, or named in text files, sorted; links are followed once.

    With `inside`, also those inside the tar and Parquet files named, or in folders that hold no files of these suffixes
    themselves: archives sorted, each in its own order. Mistake in a sentence where there is nothing to find.
    """
    if not roots:
        raise UserError("no data given: name a folder of images, for a run by --data.root FOLDER")
    found: dict[str, int] = {}
    for root in roots:
        found.update(below(root, suffixes, SUFFIXES if inside else frozenset()))
    packed = sorted(path for path in found if path_suffix(path) in SUFFIXES)
    loose = sorted(found.keys() - set(packed))
    sizes = {path: found[path] for path in loose}
    for archive in packed:
        sizes.update(addresses(archive, suffixes))
    if not sizes:
        kinds = " ".join(sorted(suffix.lstrip(".") for suffix in suffixes))
        raise UserError(f"no images in {' '.join(roots)}: looked for files ending in {kinds}, in all sub-folders")
    digest = hashlib.sha256(
        "\0".join(f"{path}\0{size}" for path, size in sizes.items()).encode("utf-8", "surrogateescape")
    )
    return FileList(list(sizes), digest.hexdigest()[:32])


def below(root: str, suffixes: frozenset[str], packed: frozenset[str]) -> dict[str, int]:
    """Path and size of what a root stands for: files of the suffixes, or else archives. Mistake if it is nothing."""
    path = Path(root).expanduser()
    if path.is_dir():
        if loose := dict(walk(str(path), suffixes)):
            return loose
        complete(path)
        return dict(walk(str(path), packed))
    if path.is_file() and path.suffix.lower() == ".txt":
        return dict(named_in(path))
    if path.is_file() and path.suffix.lower() in suffixes | packed:
        return {str(path): path.stat().st_size}
    if path.is_file() and path.name.lower().endswith(SQUEEZED):
        raise UserError(
            f"{root} is compressed, so that no picture in it can be read by itself: decompress it to a .tar file"
        )
    if not path.exists():
        raise UserError(f"{root} is not there: check its spelling")
    raise UserError(
        f"{root} is no picture, not a folder, a .tar or .parquet file, nor a .txt file of paths: check its spelling"
    )


def path_suffix(path: str) -> str:
    return os.path.splitext(path)[1].lower()  # noqa: PTH122 (speed)


def walk(root: str, suffixes: frozenset[str]) -> Iterator[tuple[str, int]]:
    """Path and size of every plain file below a folder with one of the suffixes."""
    folders = [(root, os.path.realpath(root))]
    seen = {folders[0][1]}
    while folders:
        folder, place = folders.pop()
        with os.scandir(folder) as entries:
            for entry in entries:
                if endless(entry):
                    continue
                if entry.is_dir():
                    real = os.path.realpath(entry.path) if entry.is_symlink() else f"{place}{os.sep}{entry.name}"
                    if real not in seen:
                        seen.add(real)
                        folders.append((entry.path, real))
                elif path_suffix(entry.name) in suffixes and entry.is_file():
                    yield entry.path, entry.stat().st_size


def endless(entry: os.DirEntry[str]) -> bool:
    """Whether a link leads to itself; like one that leads nowhere, it is no file."""
    try:
        entry.is_dir()
    except OSError as error:
        if error.errno == errno.ELOOP:
            return True
        raise
    return False


def named_in(file: Path) -> Iterator[tuple[str, int]]:
    """Path and size of the files that a text file names, one a line, relative to the text file."""
    for line in file.read_text(encoding="utf-8", errors="surrogateescape").splitlines():
        if line.strip():
            path = file.parent / line.strip()
            if not path.is_file():
                raise UserError(f"{file} names {line.strip()}, which is not a file: remove the line or mend the path")
            yield str(path), path.stat().st_size


class Step(NamedTuple):
    """All that one training step needs from the loader."""

    step: int
    batch: Batch
    masks: tuple[Masks, ...]
    skipped: tuple[Skipped, ...]


class Steps(torch.utils.data.Dataset):
    """A dataset whose items are whole steps: a rank's share of the global batch, with its masks.

    An epoch is len(data) // batch_size steps over a permutation keyed by (seed, epoch); what is left over waits for
    another epoch. Item i is a function of (seed, i), so a run can start anywhere.
    """

    def __init__(
        self,
        data: Dataset,
        masker: Masker,
        *,
        batch_size: int,
        total: int,
        seed: int,
        rank: int = 0,
        ranks: int = 1,
        views: int = 1,
    ):
        if batch_size % ranks:
            raise UserError(
                f"batch size {batch_size} does not divide by {ranks} processes: try --batch-size {batch_size // ranks * ranks}"
            )
        if len(data) < batch_size:
            raise UserError(
                f"{len(data)} images are fewer than a batch of {batch_size}: try --batch-size {max(1, len(data) // 2)}"
            )
        self.data, self.masker, self.seed, self.total, self.views = data, masker, seed, total, views
        self.batch_size, self.rank, self.share = batch_size, rank, batch_size // ranks
        self.epoch, self.order = -1, np.empty(0, np.int64)

    def __len__(self) -> int:
        return self.total

    def __getitem__(self, step: int) -> Step:
        epoch, place = divmod(step, len(self.data) // self.batch_size)
        if epoch != self.epoch:
            self.epoch, self.order = epoch, epoch_order(self.seed, epoch, len(self.data))
        places = place * self.batch_size + np.arange(self.batch_size)
        mine = slice(self.rank * self.share, (self.rank + 1) * self.share)
        numbers = epoch * len(self.data) + places
        draws = CounterRNG(self.seed, step, numbers[mine], numbers, self.rank * self.share)

        wanted = torch.from_numpy(self.order[places[mine]])
        reads = [self.data.read(wanted, draws.again(turn)) for turn in range(self.views)]
        batch = Batch(tuple(view for read in reads for view in read.views), torch.from_numpy(numbers[mine]))
        return Step(step, batch, self.masker(None, None, draws, step / self.total), reads[0].skipped)


def load(steps: Steps, start: int, workers: int, pin: bool) -> Iterator[Step]:
    """The steps from `start` on, in order, made ahead by `workers` processes (0: made when asked for).

    What goes wrong in a worker is raised as it was there; Mistake if one of them has gone.
    """
    loader = DataLoader(
        Outcomes(steps, workers),
        batch_size=None,
        collate_fn=as_is,  # pyright: ignore[reportArgumentType]
        sampler=range(start, len(steps)),
        num_workers=workers,
        pin_memory=pin,
        prefetch_factor=4 if workers else None,
        worker_init_fn=one_of_many,
        multiprocessing_context="forkserver" if workers else None,
    )
    made = iter(loader)
    while outcome := following(made, workers):
        if isinstance(outcome, Exception):
            raise outcome
        yield outcome


def following(made: Iterator[Any], workers: int) -> Any:
    """What comes next, or nothing at the end. Mistake if a worker has gone, and what it had made with it."""
    try:
        return next(made, None)
    except (RuntimeError, EOFError, OSError) as error:
        if isinstance(error, RuntimeError) and not re.search(r"DataLoader worker \(pid", str(error)):
            raise
        raise UserError(
            f"a loader process was killed, for memory perhaps; nothing is lost: go on with --resume yes --workers {workers // 2}"
        ) from error


class Outcomes(torch.utils.data.Dataset):
    """The steps, or, in place of one, the error it ended with, which so comes back from a worker as it is."""

    def __init__(self, steps: Steps, workers: int):
        self.steps, self.workers = steps, workers

    def __getitem__(self, step: int) -> Step | UserError | OSError:
        try:
            made = self.steps[step]
            if self.workers:
                fits(sum(view.nbytes for view in made.batch.views if isinstance(view, torch.Tensor)), self.workers)
            return made
        except (UserError, OSError) as error:
            return error


def fits(size: int, workers: int) -> None:
    """Mistake unless shared memory, through which batches come from workers, has room: without it torch waits for ever."""
    if SHARED.is_dir() and (free := shutil.disk_usage(SHARED).free) < (workers + 1) * size:
        raise UserError(
            f"shared memory is full: {SHARED} has {free / 1e6:.1f} MB left, and a batch wants {size / 1e6:.1f}: give it more "
            f"(docker run --shm-size=2g), then go on with --resume yes, or with --workers {workers // 2}"
        )


def as_is(outcome: Any) -> Any:
    """A step is a batch already."""
    return outcome


def one_of_many(worker: int) -> None:
    """A worker is one of several, so it keeps to one core; and it does not outlive the run, however that was ended."""
    torch.set_num_threads(1)
    threading.Thread(target=leave_with, args=(multiprocessing.parent_process(),), daemon=True).start()


def leave_with(parent: Any) -> None:
    """Waits for the run's process to end. A worker's own parent is a server of forks, which waits for its workers."""
    if parent:
        wait([parent.sentinel])
        os._exit(1)
