"""Load whole training steps, starting at any step."""

from __future__ import annotations

import multiprocessing
import os
import re
import shutil
import threading
from collections.abc import Iterator
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.utils.data import DataLoader

from openjepa.core.errors import UserError
from openjepa.core.protocols import Dataset, Masker
from openjepa.core.rng import CounterRNG, epoch_order
from openjepa.core.types import Batch, Masks, Skipped

SHARED_MEMORY = Path("/dev/shm")


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
        reads = [self.data.read(wanted, draws.fold_in(turn)) for turn in range(self.views)]
        batch = Batch(tuple(view for read in reads for view in read.views), torch.from_numpy(numbers[mine]))
        return Step(step, batch, self.masker(None, None, draws, step / self.total), reads[0].skipped)


def load_steps(steps: Steps, start: int, workers: int, pin: bool) -> Iterator[Step]:
    """The steps from `start` on, in order, made ahead by `workers` processes (0: made when asked for).

    What goes wrong in a worker is raised as it was there; Mistake if one of them has gone.
    """
    loader = DataLoader(
        StepOrError(steps, workers),
        batch_size=None,
        collate_fn=identity,  # pyright: ignore[reportArgumentType]
        sampler=range(start, len(steps)),
        num_workers=workers,
        pin_memory=pin,
        prefetch_factor=4 if workers else None,
        worker_init_fn=init_worker,
        multiprocessing_context="forkserver" if workers else None,
    )
    made = iter(loader)
    while outcome := next_step(made, workers):
        if isinstance(outcome, Exception):
            raise outcome
        yield outcome


def next_step(made: Iterator[Any], workers: int) -> Any:
    """What comes next, or nothing at the end. Mistake if a worker has gone, and what it had made with it."""
    try:
        return next(made, None)
    except (RuntimeError, EOFError, OSError) as error:
        if isinstance(error, RuntimeError) and not re.search(r"DataLoader worker \(pid", str(error)):
            raise
        raise UserError(
            f"a loader process was killed, for memory perhaps; nothing is lost: go on with --resume yes --workers {workers // 2}"
        ) from error


class StepOrError(torch.utils.data.Dataset):
    """The steps, or, in place of one, the error it ended with, which so comes back from a worker as it is."""

    def __init__(self, steps: Steps, workers: int):
        self.steps, self.workers = steps, workers

    def __getitem__(self, step: int) -> Step | UserError | OSError:
        try:
            made = self.steps[step]
            if self.workers:
                check_shared_memory(
                    sum(view.nbytes for view in made.batch.views if isinstance(view, torch.Tensor)), self.workers
                )
            return made
        except (UserError, OSError) as error:
            return error


def check_shared_memory(size: int, workers: int) -> None:
    """Mistake unless shared memory, through which batches come from workers, has room: without it torch waits for ever."""
    if SHARED_MEMORY.is_dir() and (free := shutil.disk_usage(SHARED_MEMORY).free) < (workers + 1) * size:
        raise UserError(
            f"shared memory is full: {SHARED_MEMORY} has {free / 1e6:.1f} MB left, and a batch wants {size / 1e6:.1f}: give it more "
            f"(docker run --shm-size=2g), then go on with --resume yes, or with --workers {workers // 2}"
        )


def identity(outcome: Any) -> Any:
    """A step is a batch already."""
    return outcome


def init_worker(worker: int) -> None:
    """A worker is one of several, so it keeps to one core; and it does not outlive the run, however that was ended."""
    torch.set_num_threads(1)
    threading.Thread(target=exit_with_parent, args=(multiprocessing.parent_process(),), daemon=True).start()


def exit_with_parent(parent: Any) -> None:
    """Waits for the run's process to end. A worker's own parent is a server of forks, which waits for its workers."""
    if parent:
        wait([parent.sentinel])
        os._exit(1)
