"""Join and leave the process group that torchrun started; say which rank does not answer."""

from __future__ import annotations

import contextlib
import gc
import importlib
import itertools
import os
import sys
import threading
import traceback
from collections.abc import Iterator
from datetime import timedelta

import torch
import torch.distributed as dist

from openjepa.core.errors import UserError

GROUP_NUMBERS = itertools.count()  # of the groups that this process has joined, one after another

StoreAddress = tuple[str, str, str, int]  # host, port, this rank and the number of ranks, as in the environment

STORES: dict[StoreAddress, dist.Store] = {}  # of this process

ROLL_CALL_SECONDS = 10.0  # how long ranks have to answer a roll call, after another rank has failed


@contextlib.contextmanager
def process_group(device: torch.device, timeout: timedelta | None = None) -> Iterator[None]:
    """Join the ranks that torchrun started; do nothing without torchrun or if they have joined already.

    `timeout`: how long a rank waits for another; None: torch's default. The group's threads end with it: a thread that
    frees a tensor while Python shuts down would abort the process ("terminate called …").

    Raises:
        UserError: the ranks cannot connect, or one has died or did not answer within `timeout`; names it.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) < 2 or dist.is_initialized():
        yield
        return
    # Import before the group exists: default arguments in this module would keep a reference to the group.
    importlib.import_module("torch.distributed.nn")
    store, rank, ranks = join_process_group(device, timeout)
    try:
        yield
    except RuntimeError as error:  # torch raises it for failures between ranks, and for much else
        if silent := unreachable_ranks(dist.PrefixStore("roll", store), rank, ranks):
            traceback.clear_frames(error.__traceback__)
            raise UserError(unreachable_message(silent, ranks)) from error
        raise
    finally:
        # Release our references to the group first: otherwise its threads and Python's shutdown wait for each other.
        if error := sys.exception():
            traceback.clear_frames(error.__traceback__)
        gc.collect()
        dist.destroy_process_group()
        gc.collect()


def join_process_group(device: torch.device, timeout: timedelta | None) -> tuple[dist.Store, int, int]:
    """Connect to the other ranks and return the group's store, this rank and the number of ranks.

    Raises UserError if they cannot connect.
    """
    ranks, rank = int(os.environ["WORLD_SIZE"]), os.environ.get("RANK", "")
    try:
        address = os.environ.get("MASTER_ADDR", ""), os.environ.get("MASTER_PORT", ""), rank, ranks
        whole = open_store(address, timeout or timedelta(minutes=5))
        store = dist.PrefixStore(f"group {next(GROUP_NUMBERS)}", whole)
        backend = "nccl" if device.type == "cuda" else "gloo"
        own = dist.PrefixStore("members", store)
        dist.init_process_group(backend, timeout=timeout, store=own, rank=int(rank), world_size=ranks)
    except (dist.DistError, ValueError) as error:
        raise UserError(
            f"WORLD_SIZE is {ranks}, but the processes could not connect ({str(error).splitlines()[0]}): "
            "start them with torchrun, or unset WORLD_SIZE"
        ) from error
    return store, int(rank), ranks


def open_store(address: StoreAddress, timeout: timedelta) -> dist.Store:
    """Connect to the store of rank 0, which lasts as long as its process: all groups of a process share it.

    With a store for each group, a rank that is early could connect to the one that rank 0 is about to close.
    """
    if address not in STORES:
        STORES[address], _, _ = next(iter(dist.rendezvous("env://", timeout=timeout)))
    STORES[address].set_timeout(timeout)
    return STORES[address]


def unreachable_ranks(store: dist.Store, rank: int, ranks: int) -> list[int]:
    """Return the ranks that do not answer a roll call within ROLL_CALL_SECONDS.

    The other ranks start their roll call when they notice the failure, as this one did. The thread of the call ends
    with it: one that queries the store while Python shuts down would abort the process ("terminate called …"). Only a
    thread whose query the store never answers is left behind.
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

    roll = threading.Thread(target=call, daemon=True)  # rank 0 holds the store: if rank 0 hangs, a query never returns
    roll.start()
    roll.join(ROLL_CALL_SECONDS)
    over.set()
    roll.join(1.0)
    return sorted(late) if answered.is_set() else [0]


def unreachable_message(silent: list[int], ranks: int) -> str:
    """Say which ranks do not answer and how to resume."""
    one = len(silent) == 1
    subject = f"{'rank' if one else 'ranks'} {', '.join(map(str, silent))} of {ranks}"
    return (
        f"{subject} {'has' if one else 'have'} died or {'does' if one else 'do'} not answer: read "
        f"{'its' if one else 'their'} output; checkpoints are safe, continue with --resume yes"
    )
