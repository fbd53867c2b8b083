"""Write metrics to metrics.jsonl, to a progress bar and to optional loggers."""

from __future__ import annotations

import glob
import json
import os
import uuid
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from openjepa.core.console import console, print_line, warn
from openjepa.core.errors import UserError
from openjepa.core.fileio import atomic_write, fsync_path, read_json
from openjepa.core.types import Skipped

DISPLAYED_METRICS = (
    "loss",
    "relative_loss",
    "target_std",
    "rankme",
    "samples_per_second",
    "data_wait",
    "share_of_ceiling",
    "online_knn",
    "online_logistic",
)

WANDB_FILE = "wandb.json"  # in the run's folder: its id at Weights & Biases

ILLEGAL_IN_IDS = "/\\#?%:"

OLD_METRICS = {"images_per_second": "samples_per_second"}  # name in logs of earlier versions -> name

# these differ from run to run; all other metrics are reproducible
TIMING_METRICS = frozenset({"samples_per_second", "data_wait", "share_of_ceiling", "seconds"})


@runtime_checkable
class MetricSink(Protocol):
    """Receives the metrics of a step, such as TensorBoard."""

    def write_row(self, step: int, metrics: dict[str, float]) -> None: ...


class TensorBoard:
    """Writes TensorBoard event files in the run folder; needs openjepa[board]."""

    def __init__(self, folder: Path):
        from torch.utils.tensorboard.writer import SummaryWriter

        self.writer = SummaryWriter(str(folder / "board"))

    def write_row(self, step: int, metrics: dict[str, float]) -> None:
        for name, value in metrics.items():
            self.writer.add_scalar(name, value, step)


class WandB:
    """Sends metrics to Weights & Biases; needs openjepa[wandb].

    The run's id there is random and stays in RUN/wandb.json for resumes: folders of different runs may share a name.
    An id that was deleted there can never be used again: without the file, the run continues under a new one.
    """

    def __init__(self, folder: Path):
        import wandb  # type: ignore[import-not-found]

        name = os.fsencode(folder.resolve().name).decode(errors="replace")
        try:
            self.run = wandb.init(
                project="openjepa", name=name, dir=str(folder), resume="allow", id=wandb_id(folder)
            )  # fmt: skip
        except wandb.Error as error:
            raise UserError(
                f"Weights & Biases refused the run ({error}): if it was deleted there, remove {folder / WANDB_FILE} "
                f"and {folder / 'wandb'}, and it continues under a new id; or leave --loggers wandb out"
            ) from error

    def write_row(self, step: int, metrics: dict[str, float]) -> None:
        self.run.log(metrics, step=step)


def wandb_id(folder: Path) -> str:
    """Return the id of a run at Weights & Biases: the one in its folder, or a new one.

    Earlier versions took the folder's name, which then ends the names in RUN/wandb, unless it was refused there.
    """
    file, name = folder / WANDB_FILE, folder.resolve().name
    if not file.is_file():
        used = any((folder / "wandb").glob(f"*run-*-{glob.escape(name)}")) and not set(name) & set(ILLEGAL_IN_IDS)
        with atomic_write(file) as temporary:
            temporary.write_text(json.dumps({"id": name if used else uuid.uuid4().hex}), encoding="utf-8")
    try:
        return str(read_json(file)["id"])
    except (ValueError, KeyError) as error:
        raise UserError(f"{file} is damaged ({error}): remove it to continue under a new id") from error


LOGGERS: dict[str, type[TensorBoard] | type[WandB]] = {"tensorboard": TensorBoard, "wandb": WandB}

EXTRAS = {"tensorboard": "board", "wandb": "wandb"}


def create_logger(name: str, folder: Path) -> MetricSink:
    """Create a logger by name. Raises UserError if its library is not installed."""
    try:
        return LOGGERS[name](folder)
    except ImportError as error:
        raise UserError(f"{name} is not installed: run pip install 'openjepa[{EXTRAS[name]}]'") from error


class RunLog:
    """Writes the metrics of a run to metrics.jsonl, the progress bar and the loggers, on the main process."""

    def __init__(self, folder: Path, start: int, total: int, loggers: Iterable[str] = ()):
        truncate_metrics(folder / "metrics.jsonl", start)
        self.file, self.total = MetricsFile(folder / "metrics.jsonl"), total
        self.loggers = [create_logger(name, folder) for name in loggers]
        self.progress = Progress(
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
            TextColumn("{task.fields[metrics]}"), console=console, disable=not console.is_terminal,
        )  # fmt: skip
        self.task = self.progress.add_task("pretrain", total=total, completed=start, metrics="")

    def __enter__(self) -> RunLog:
        self.progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.file.flush()
        self.progress.stop()

    def write_row(self, step: int, metrics: dict[str, float]) -> None:
        """Write the metrics after `step` steps."""
        self.file.append({"step": step, **metrics})
        text = "  ".join(f"{name} {metrics[name]:.4g}" for name in DISPLAYED_METRICS if name in metrics)
        self.progress.update(self.task, completed=step, metrics=text)
        if not console.is_terminal:
            print_line(f"step {step}/{self.total}  {text}")
        for logger in self.loggers:
            logger.write_row(step, metrics)

    def flush(self) -> None:
        """Make the rows durable, before a checkpoint that includes their steps is written."""
        self.file.flush()


class MetricsFile:
    """A growing file of JSON rows; rows that cannot be written now wait in memory for the next try."""

    def __init__(self, file: Path):
        self.file, self.pending, self.failing = file, "", False

    def append(self, row: dict[str, Any]) -> None:
        """Write a row, after those that wait."""
        self.pending += json.dumps(row) + "\n"
        self.write()

    def write(self) -> None:
        """Try to write the rows that wait."""
        size = self.file.stat().st_size if self.file.exists() else 0
        try:
            with self.file.open("a", encoding="utf-8") as stream:
                stream.write(self.pending)
            self.pending, self.failing = "", False
        except OSError as error:
            self.handle_error(error, size)

    def handle_error(self, error: OSError, size: int) -> None:
        """Cut the file back to `size` bytes, which removes half a row, and warn at the first failure in a row."""
        if self.file.exists():
            os.truncate(self.file, size)
        if not self.failing:
            warn(
                f"{self.file} cannot be written ({error.strerror or error}): "
                "its rows wait in memory and training continues"
            )
        self.failing = True

    def flush(self) -> None:
        """Try again to write the rows that wait, and make all rows durable."""
        if self.pending:
            self.write()
        try:
            if self.file.exists():
                fsync_path(self.file)
                fsync_path(self.file.parent)
        except OSError as error:
            self.handle_error(error, self.file.stat().st_size)


def log_skipped(folder: Path, samples: Iterable[Skipped]) -> None:
    """Append skipped files and the reasons to skipped.jsonl; every rank writes its own."""
    lines = [json.dumps(sample._asdict()) + "\n" for sample in samples]
    try:
        with (folder / "skipped.jsonl").open("a", encoding="utf-8") as stream:
            stream.writelines(lines)
    except OSError as error:
        warn(
            f"skipped.jsonl cannot be written ({error.strerror or error}); training continues. "
            f"Skipped files: {' '.join(lines)}"
        )


def read_metrics(file: Path) -> list[dict[str, Any]]:
    """Read the rows of a metrics file, also of earlier versions, without lines that a kill or a crash cut short."""
    rows = []
    for line in file.read_text(encoding="utf-8", errors="replace").splitlines() if file.exists() else []:
        with suppress(ValueError):
            row = json.loads(line)
            if isinstance(row, dict) and isinstance(row.get("step"), int):
                rows.append({OLD_METRICS.get(name, name): value for name, value in row.items()})
    return rows


def truncate_metrics(file: Path, step: int) -> None:
    """Drop the rows after `step`, whose steps a resumed run repeats."""
    if file.exists():
        rows = [row for row in read_metrics(file) if row["step"] <= step]
        with atomic_write(file) as temporary:
            temporary.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
