"""Join and leave the process group that torchrun started; say which rank is missing."""

from __future__ import annotations

import contextlib
import gc
import importlib
import os
import sys
import threading
import traceback
from collections.abc import Iterator
from datetime import timedelta

import torch
import torch.distributed as dist

from openjepa.core.errors import UserError

ROLL_CALL_SECONDS = 10.0  # seconds that ranks have to say that they are there


@contextlib.contextmanager
def process_group(device: torch.device, patience: timedelta | None = None) -> Iterator[None]:
    """Joins the ranks that torchrun started; does nothing without torchrun, or where they have joined already.

    `patience`: how long one rank waits for another, by default as torch has it; Mistake, naming who is missing, if another
    does not answer by then or has gone. The group's threads end with it: one left over that lets go of a tensor while
    Python shuts down takes the process with it ("terminate called …").
    """
    if int(os.environ.get("WORLD_SIZE", "1")) < 2 or dist.is_initialized():
        yield
        return
    importlib.import_module("torch.distributed.nn")  # its functions keep, as a default, the group there is at import
    store, rank, ranks = join_process_group(device, patience)
    try:
        yield
    except RuntimeError as error:  # as torch calls what goes wrong between ranks, and much else
        if gone := unreachable_ranks(dist.PrefixStore("roll", store), rank, ranks):
            traceback.clear_frames(error.__traceback__)
            raise UserError(
                f"of {ranks} processes, {', '.join(map(str, gone))} has gone or does not answer: see what it said; what was "
                "saved is safe, go on with --resume yes"
            ) from error
        raise
    finally:
        # nobody but torch must be the last to let go of the group: its threads would wait for Python, and Python for them
        if error := sys.exception():
            traceback.clear_frames(error.__traceback__)
        gc.collect()
        dist.destroy_process_group()
        gc.collect()


def join_process_group(device: torch.device, patience: timedelta | None) -> tuple[dist.Store, int, int]:
    """Meets the other ranks; Mistake where there is nobody to be met."""
    ranks = int(os.environ["WORLD_SIZE"])
    try:
        store, rank, _ = next(iter(dist.rendezvous("env://", timeout=patience or timedelta(minutes=5))))
        backend = "nccl" if device.type == "cuda" else "gloo"
        own = dist.PrefixStore("group", store)
        dist.init_process_group(backend, timeout=patience, store=own, rank=rank, world_size=ranks)
    except (dist.DistError, ValueError) as error:
        raise UserError(
            f"the {ranks} processes of WORLD_SIZE did not find one another ({str(error).splitlines()[0]}): start them by "
            "torchrun, or unset WORLD_SIZE"
        ) from error
    return store, rank, ranks


def unreachable_ranks(store: dist.Store, rank: int, ranks: int) -> list[int]:
    """The ranks that do not answer a roll call. They are given ROLL seconds: the others notice when we do.

    The call ends with it: a thread that asks the store while Python shuts down takes the process with it ("terminate
    called …"). One that the store leaves without an answer is left waiting.
    """
    late, answered, over = set(range(ranks)) - {rank}, threading.Event(), threading.Event()

    def call() -> None:
        with contextlib.suppress(dist.DistError):
            store.set(str(rank), "here")
            while late and not over.is_set():
                late.difference_update([other for other in late if store.check([str(other)])])
                answered.set()
                over.wait(0.1)
        if late and not over.is_set():
            answered.clear()

    roll = threading.Thread(target=call, daemon=True)  # the store may never answer, if the first rank keeps it
    roll.start()
    roll.join(ROLL_CALL_SECONDS)
    over.set()
    roll.join(1.0)
    return sorted(late) if answered.is_set() else [0]
