"""Write metrics to metrics.jsonl, to a progress bar and to optional loggers."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from openjepa.core.console import console, print_line, warn
from openjepa.core.errors import UserError
from openjepa.core.fileio import atomic_write, fsync_path
from openjepa.core.types import Skipped

DISPLAYED_METRICS = (
    "loss",
    "relative_loss",
    "target_std",
    "rankme",
    "images_per_second",
    "data_wait",
    "share_of_ceiling",
    "online_knn",
    "online_logistic",
)

# differ from run to run; all else is reproducible
TIMING_METRICS = frozenset({"images_per_second", "data_wait", "share_of_ceiling", "seconds"})


@runtime_checkable
class MetricSink(Protocol):
    """A drawing board for curves."""

    def row(self, step: int, metrics: dict[str, float]) -> None: ...


class TensorBoard:
    """Writes event files beside the run; the extra openjepa[board]."""

    def __init__(self, folder: Path):
        from torch.utils.tensorboard.writer import SummaryWriter

        self.writer = SummaryWriter(str(folder / "board"))

    def row(self, step: int, metrics: dict[str, float]) -> None:
        for name, value in metrics.items():
            self.writer.add_scalar(name, value, step)


class WandB:
    """Sends rows to Weights & Biases; the extra openjepa[wandb]."""

    def __init__(self, folder: Path):
        import wandb  # type: ignore[import-not-found]

        self.run = wandb.init(project="openjepa", name=folder.name, dir=str(folder), resume="allow", id=folder.name)

    def row(self, step: int, metrics: dict[str, float]) -> None:
        self.run.log(metrics, step=step)


LOGGERS: dict[str, type[TensorBoard] | type[WandB]] = {"tensorboard": TensorBoard, "wandb": WandB}

EXTRAS = {"tensorboard": "board", "wandb": "wandb"}


def create_logger(name: str, folder: Path) -> MetricSink:
    """A board by its name. Mistake if its library is not installed."""
    try:
        return LOGGERS[name](folder)
    except ImportError as error:
        raise UserError(f"{name} is not installed: type pip install 'openjepa[{EXTRAS[name]}]'") from error


class RunLog:
    """The log of one run on its main process."""

    def __init__(self, folder: Path, start: int, total: int, boards: Iterable[str] = ()):
        truncate_metrics(folder / "metrics.jsonl", start)
        self.file, self.total = MetricsFile(folder / "metrics.jsonl"), total
        self.boards = [create_logger(name, folder) for name in boards]
        self.bar = Progress(
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
            TextColumn("{task.fields[shown]}"), console=console, disable=not console.is_terminal,
        )  # fmt: skip
        self.task = self.bar.add_task("pretrain", total=total, completed=start, shown="")

    def __enter__(self) -> RunLog:
        self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.file.flush()
        self.bar.stop()

    def row(self, step: int, metrics: dict[str, float]) -> None:
        """One row: the step just taken, counted from 1, and its metrics."""
        self.file.append({"step": step, **metrics})
        shown = "  ".join(f"{name} {metrics[name]:.4g}" for name in DISPLAYED_METRICS if name in metrics)
        self.bar.update(self.task, completed=step, shown=shown)
        if not console.is_terminal:
            print_line(f"step {step}/{self.total}  {shown}")
        for board in self.boards:
            board.row(step, metrics)

    def flush(self) -> None:
        """Makes the rows durable: those of steps that a checkpoint is about to hold."""
        self.file.flush()


class MetricsFile:
    """A file of JSON rows that grows. What cannot be written now is kept, and written when it can be."""

    def __init__(self, file: Path):
        self.file, self.kept, self.failing = file, "", False

    def append(self, row: dict[str, Any]) -> None:
        self.kept += json.dumps(row) + "\n"
        self.write()

    def write(self) -> None:
        """Writes what is kept, or goes on keeping it."""
        good = self.file.stat().st_size if self.file.exists() else 0
        try:
            with self.file.open("a") as stream:
                stream.write(self.kept)
            self.kept, self.failing = "", False
        except OSError as error:
            self.failed(error, good)

    def failed(self, error: OSError, good: int) -> None:
        """Takes back half a row, and says once that rows wait in memory."""
        if self.file.exists():
            os.truncate(self.file, good)
        if not self.failing:
            warn(
                f"{self.file} cannot be written ({error.strerror or error}): its rows wait in memory; training goes on"
            )
        self.failing = True

    def flush(self) -> None:
        """Makes the rows durable, after another try to write those that wait."""
        if self.kept:
            self.write()
        try:
            if self.file.exists():
                fsync_path(self.file)
                fsync_path(self.file.parent)
        except OSError as error:
            self.failed(error, self.file.stat().st_size)


def log_skipped(folder: Path, samples: Iterable[Skipped]) -> None:
    """Adds files that were passed over, and why, to skipped.jsonl; any rank may."""
    lines = [json.dumps(sample._asdict()) + "\n" for sample in samples]
    try:
        with (folder / "skipped.jsonl").open("a") as stream:
            stream.writelines(lines)
    except OSError as error:
        warn(f"skipped.jsonl cannot be written ({error.strerror or error}); training goes on: {' '.join(lines)}")


def read_metrics(file: Path) -> list[dict[str, Any]]:
    """The rows of a metrics file; a line that a kill or a crash cut short is left out."""
    found = []
    for line in file.read_text(errors="replace").splitlines() if file.exists() else []:
        with suppress(ValueError):
            row = json.loads(line)
            if isinstance(row, dict) and isinstance(row.get("step"), int):
                found.append(row)
    return found


def truncate_metrics(file: Path, step: int) -> None:
    """Drops rows of steps that a resumed run will take again."""
    if file.exists():
        kept = [row for row in read_metrics(file) if row["step"] <= step]
        with atomic_write(file) as temporary:
            temporary.write_text("".join(json.dumps(row) + "\n" for row in kept))
