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
    """Saves on the main process, one checkpoint at a time; on the others it does nothing but agree.

    What went wrong with a save is told when the next one is due; a save that must be is waited for.
    """

    def __init__(self, config: Pretrain):
        self.config, self.folder = config, config.out / "checkpoints"
        self.writer = ThreadPoolExecutor(1, "saver")
        self.writing: Future[str] | None = None

    def __enter__(self) -> CheckpointWriter:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing is left under way, whatever the run ended by."""
        self.tell()
        self.writer.shutdown()

    def save(self, done: int, method: nn.Module, optimizer: torch.optim.Optimizer, must: bool) -> str:
        """Begins to write what there is after `done` steps. If it must be, waits, and returns why it could not be, or nothing."""
        failure = ""
        self.tell()
        taken = take_snapshot(done, method, optimizer)
        if is_main():
            self.writing = self.writer.submit(self.write, taken)
            if must:
                failure = self.settled()
            elif not self.config.async_save:
                self.tell()
        if not must:
            return ""
        failed = all_reduce_max(torch.tensor(float(bool(failure)), device=next(method.parameters()).device))
        return (failure or "the main process could not save") if failed else ""

    def tell(self) -> None:
        """Waits for the save under way, if there is one, and says if it failed."""
        if failure := self.settled():
            warn(f"{failure}; training goes on")

    def settled(self) -> str:
        """Why the save under way failed, or nothing."""
        writing, self.writing = self.writing, None
        return writing.result() if writing else ""

    def write(self, taken: Snapshot) -> str:
        """Writes a checkpoint and prunes older ones; returns why it could not, or nothing."""
        try:
            save_checkpoint(self.folder, taken)
            prune_checkpoints(self.folder, self.config.keep_last, self.config.keep_every)
        except OSError as error:
            older = list_checkpoints(self.folder)
            left = f"{older[0].name} is intact" if older else "there is none yet"
            return f"step {taken.step} could not be saved ({error.strerror or error}); of older checkpoints, {left}"
        return ""
