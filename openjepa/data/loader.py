"""Load the batches and masks of whole training steps, starting at any step."""

from __future__ import annotations

import multiprocessing
import os
import re
import shutil
import threading
from collections.abc import Iterator
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from torch.utils.data import DataLoader

from openjepa.core.errors import UserError
from openjepa.core.processes import START_METHOD, describe_ending, start_processes
from openjepa.core.protocols import Dataset, Masker
from openjepa.core.registry import PLUGINS, load_plugins
from openjepa.core.rng import CounterRNG, epoch_order
from openjepa.core.types import Batch, Layout, Skipped

SHARED_MEMORY = Path("/dev/shm")


class Step(NamedTuple):
    """The batch of one training step."""

    step: int
    batch: Batch
    skipped: tuple[Skipped, ...]


class Steps(torch.utils.data.Dataset):
    """A dataset whose items are whole steps: one rank's share of the global batch, with its masks.

    An epoch is len(data) // batch_size steps over a permutation keyed by (seed, epoch); the remaining samples are
    dropped until the next epoch. Item i is a function of (seed, i), so a run can start at any step.
    """

    def __init__(
        self,
        data: Dataset,
        masker: Masker | None,
        layout: Layout,
        *,
        batch_size: int,
        total_steps: int,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
        num_views: int = 1,
    ):
        if batch_size % world_size:
            raise UserError(
                f"--batch-size {batch_size} is not divisible by {world_size} processes: "
                f"try --batch-size {batch_size // world_size * world_size}"
            )
        if len(data) < batch_size:
            raise UserError(
                f"the dataset has {len(data)} samples, fewer than --batch-size {batch_size}: "
                f"try --batch-size {max(1, len(data) // 2)}"
            )
        if masker:
            masker.shapes(layout)  # raises now if the masks do not fit the layout
        self.data, self.masker, self.layout, self.num_views = data, masker, layout, num_views
        self.seed, self.total_steps = seed, total_steps
        self.batch_size, self.rank, self.local_batch_size = batch_size, rank, batch_size // world_size
        self.epoch, self.order = -1, np.empty(0, np.int64)

    def __len__(self) -> int:
        return self.total_steps

    def __getitem__(self, step: int) -> Step:
        epoch, step_in_epoch = divmod(step, len(self.data) // self.batch_size)
        if epoch != self.epoch:
            self.epoch, self.order = epoch, epoch_order(self.seed, epoch, len(self.data))
        positions = step_in_epoch * self.batch_size + np.arange(self.batch_size)  # in the epoch's order
        local = slice(self.rank * self.local_batch_size, (self.rank + 1) * self.local_batch_size)
        index = epoch * len(self.data) + positions
        rng = CounterRNG(self.seed, step, index[local], index, self.rank * self.local_batch_size)

        samples = torch.from_numpy(self.order[positions[local]])
        reads = [self.data.read(samples, rng.fold_in(view)) for view in range(self.num_views)]
        first = reads[0]
        progress = step / self.total_steps
        masks = self.masker(self.layout, first.pos, first.valid, rng, progress) if self.masker else ()
        views = tuple(view for read in reads for view in read.views)
        return Step(step, Batch(views, torch.from_numpy(index[local]), masks, first.conditions), first.skipped)


@runtime_checkable
class StepSource(Protocol):
    """Steps by number, of one data set or of several."""

    def __len__(self) -> int: ...
    def __getitem__(self, step: int) -> Step: ...


def load_steps(steps: StepSource, start: int, workers: int, pin: bool) -> Iterator[Step]:
    """Yield the steps from `start` on, in order.

    `workers` processes prefetch them; with 0 workers this process loads them. An error in a worker
    is raised here unchanged.

    Raises:
        UserError: a worker process ended early, or the steps cannot be sent to one.
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
        multiprocessing_context=START_METHOD if workers else None,
    )
    outcomes, processes = start_processes(lambda: iter(loader))
    while outcome := next_step(outcomes, workers, processes):
        if isinstance(outcome, Exception):
            raise outcome
        yield outcome


def next_step(outcomes: Iterator[Any], workers: int, processes: list[Any]) -> Any:
    """Return the next step or error, or None at the end.

    Raises:
        UserError: a worker process ended early, and its prefetched steps are lost.
    """
    try:
        return next(outcomes, None)
    except (RuntimeError, EOFError, OSError) as error:
        if isinstance(error, RuntimeError) and not re.search(r"DataLoader worker \(pid", str(error)):
            raise
        raise UserError(
            f"a data-loading worker {describe_ending(processes)}; no progress is lost: "
            f"resume with --resume yes --workers {workers // 2}"
        ) from error


class StepOrError(torch.utils.data.Dataset):
    """The steps, with the error in place of a step that failed.

    A worker that returns an error, instead of raising it, hands it over unchanged.
    """

    def __init__(self, steps: StepSource, workers: int):
        self.steps, self.workers = steps, workers

    def __reduce__(self):
        """Let a worker load the plug-ins first: the steps may be of classes that they define."""
        return restore_in_worker, (PluginsInWorker(tuple(PLUGINS.sources)), self.steps, self.workers)

    def __getitem__(self, step: int) -> Step | UserError | OSError:
        try:
            item = self.steps[step]
            if self.workers:
                check_shared_memory(
                    sum(view.nbytes for view in item.batch.views if isinstance(view, torch.Tensor)), self.workers
                )
            return item
        except (UserError, OSError) as error:
            return error


class PluginsInWorker(NamedTuple):
    """The plug-ins of this process; arriving in another one, they are loaded there."""

    sources: tuple[str, ...]

    def __reduce__(self):
        return load_plugins, (self.sources,)


def restore_in_worker(plugins: None, steps: StepSource, workers: int) -> StepOrError:
    """Return the steps in a worker, whose plug-ins are loaded by now."""
    return StepOrError(steps, workers)


def check_shared_memory(size: int, workers: int) -> None:
    """Check that shared memory, which carries batches from workers, has room for workers + 1 batches.

    Without this check torch waits forever when shared memory is full.

    Raises:
        UserError: too little shared memory is free.
    """
    if SHARED_MEMORY.is_dir() and (free := shutil.disk_usage(SHARED_MEMORY).free) < (workers + 1) * size:
        raise UserError(
            f"shared memory is full: {SHARED_MEMORY} has {free / 1e6:.1f} MB free, a batch needs {size / 1e6:.1f} MB: "
            "give it more (docker run --shm-size=2g) and resume with --resume yes, "
            f"or resume with --resume yes --workers {workers // 2}"
        )


def identity(outcome: Any) -> Any:
    """Return the step unchanged: it is a batch already."""
    return outcome


def init_worker(worker: int) -> None:
    """Limit a worker to one thread, since several run at once, and end it when the training process ends."""
    torch.set_num_threads(1)
    threading.Thread(target=exit_with_parent, args=(multiprocessing.parent_process(),), daemon=True).start()


def exit_with_parent(parent: Any) -> None:
    """Wait for the training process to end, then exit.

    The worker's direct parent is the fork server, which itself waits for its workers.
    """
    if parent:
        wait([parent.sentinel])
        os._exit(1)
