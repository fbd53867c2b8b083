"""Write checkpoints in a background thread while training goes on."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor

import torch
from torch import nn

from openjepa.core.console import warn
from openjepa.core.distributed import all_reduce_max, is_main
from openjepa.training.checkpoint import Snapshot, list_checkpoints, prune_checkpoints, save_checkpoint, take_snapshot
from openjepa.training.config import Pretrain


class CheckpointWriter:
    """Writes checkpoints on the main process, one at a time; all processes agree on the outcome.

    The failure of an optional checkpoint is reported when the next one is due; a required checkpoint is waited for.
    """

    def __init__(self, settings: Pretrain):
        self.settings, self.folder = settings, settings.out / "checkpoints"
        self.executor = ThreadPoolExecutor(1, "checkpoint-writer")
        self.pending: Future[str] | None = None

    def __enter__(self) -> CheckpointWriter:
        return self

    def __exit__(self, *_: object) -> None:
        """Wait for the pending write, however the run ended."""
        self.report_failure()
        self.executor.shutdown()

    def save(self, done: int, method: nn.Module, optimizer: torch.optim.Optimizer, required: bool) -> str:
        """Start to write a checkpoint; if it is required, wait and return why it failed, or ""."""
        failure = ""
        self.report_failure()
        snapshot = take_snapshot(done, method, optimizer)
        if is_main():
            self.pending = self.executor.submit(self.write, snapshot)
            if required:
                failure = self.wait()
            elif not self.settings.async_save:
                self.report_failure()
        if not required:
            return ""
        failed = all_reduce_max(torch.tensor(float(bool(failure)), device=next(method.parameters()).device))
        return (failure or "the main process could not save the checkpoint") if failed else ""

    def report_failure(self) -> None:
        """Wait for the pending write, if any, and warn if it failed."""
        if failure := self.wait():
            warn(f"{failure}; training continues")

    def wait(self) -> str:
        """Wait for the pending write, if any; return why it failed, or ""."""
        pending, self.pending = self.pending, None
        return pending.result() if pending else ""

    def write(self, snapshot: Snapshot) -> str:
        """Write a checkpoint and prune older ones; return why it failed, or ""."""
        try:
            save_checkpoint(self.folder, snapshot)
            prune_checkpoints(self.folder, self.settings.keep_last, self.settings.keep_every)
        except OSError as error:
            older = list_checkpoints(self.folder)
            state = (
                f"the previous checkpoint {older[0].name} is intact" if older else "no checkpoint was written before"
            )
            return f"step {snapshot.step} could not be saved ({error.strerror or error}); {state}"
        return ""
