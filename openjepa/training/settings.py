"""Define the groups of a run's settings; each group checks its own.

`Pretrain` inherits all of them, so that the settings are flat in code.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Generic, Literal, TypeVar

from openjepa.core.config import parse_duration
from openjepa.core.errors import UserError
from openjepa.core.options import Precision

Data = TypeVar("Data")
Masks = TypeVar("Masks")


@dataclass(frozen=True)
class Training:
    """What else determines the result: length, batch, seed, initial weights."""

    epochs: float = 300.0  # length of the training, in passes through the data
    steps: int = 0  # number of optimizer steps; 0: from --epochs or --budget
    batch_size: int = 128  # samples per step, over all processes
    accumulate: int = 1  # micro-batches per step, to save memory
    seed: int = 0  # of weights, order of the data, crops and masks
    init_from: Path | None = None  # start from another run's weights

    def __post_init__(self):
        check_positive(self, "batch_size", "accumulate")
        if self.batch_size % self.accumulate:
            raise UserError(
                f"--batch-size {self.batch_size} is not a multiple of --accumulate {self.accumulate}: "
                f"try --batch-size {-(-self.batch_size // self.accumulate) * self.accumulate} or --accumulate 1"
            )
        if self.epochs <= 0 and self.steps <= 0:
            raise UserError("the run has no steps: try --epochs 100")


@dataclass(frozen=True)
class Execution:
    """Where and how the run computes; can change the last bits of the result."""

    device: str = "auto"  # auto: cuda, mps, cpu
    precision: Precision = "auto"  # auto: bf16 where the hardware multiplies it natively
    threads: int = 0  # CPU threads; 0: all cores
    fsdp: bool = False  # shard weights, gradients and optimizer state over all processes (FSDP2)
    compile: bool = False  # torch.compile transformer blocks: a minute or more at the start, for long runs on a GPU

    def __post_init__(self):
        if self.threads < 0:
            raise UserError(f"--threads must be >= 0 (0 = all cores), got {self.threads}")


@dataclass(frozen=True)
class Resources:
    """Time, memory and processes; does not change the result."""

    budget: str = ""  # time for the run, such as 90m or 1h30m; timed once at the start, then a number of steps
    dry_run: bool = False  # time a few steps, print how long the run takes, and exit
    workers: int = -1  # data loader processes; -1: automatic
    # recompute the blocks' activations in the backward pass: less memory, slower
    activation_checkpointing: bool = False
    rank_timeout: str = "30m"  # how long a process waits for the others before it reports which one is missing

    def __post_init__(self):
        parse_duration(self.budget, "--budget")
        if not parse_duration(self.rank_timeout, "--rank-timeout"):
            raise UserError("--rank-timeout must be positive: try --rank-timeout 30m")


@dataclass(frozen=True)
class Output:
    """Where the run writes what, and when; does not change the result."""

    out: Path = Path("runs/pretrain")  # folder of the run
    # resume the run in --out, bit-exact; --resume alone is yes; if-any: resume if there is a run, else start one
    resume: Literal["no", "yes", "if-any"] = "no"
    log_every: int = 20  # steps between log rows
    save_every: int = 500  # steps between checkpoints
    async_save: bool = True  # write checkpoints in the background; a step waits only for a copy in memory
    keep_last: int = 2  # number of recent checkpoints to keep
    keep_every: int = 0  # also keep every n-th step; 0: none
    loggers: tuple[Literal["tensorboard", "wandb"], ...] = ()  # write metrics there too; metrics.jsonl always is
    report: bool = True  # write report.html at the end

    def __post_init__(self):
        check_positive(self, "log_every", "save_every")


@dataclass(frozen=True)
class Guards:
    """When to stop a run or refuse to resume it."""

    max_skipped: float = 0.05  # fraction of files that may be undecodable before the run stops
    stop_on_collapse: bool = False  # stop when the representation collapses, instead of a warning
    allow_data_change: bool = False  # allow to resume although files have changed


@dataclass(frozen=True)
class OnlineProbe:
    """Probe the encoder on labeled images during the run; the run itself is the same without."""

    # labeled images: one sub-folder per class, or train/ and test/ (or val/) with such sub-folders; empty: no probe
    root: tuple[str, ...] = ()
    every: int = 1000  # steps between two probes
    samples: int = 5000  # images to train the probes on; half as many test them

    def __post_init__(self):
        if self.every < 1 or self.samples < 20:
            raise UserError("the online probe needs at least --online-probe.every 1 and --online-probe.samples 20")


@dataclass(frozen=True)
class Stream(Generic[Data, Masks]):
    """A further data set of a run, from which some of its steps take their batch."""

    data: Data
    masks: Masks
    batch_size: int = 128  # samples per step, over all processes
    weight: float = 1.0  # share of the steps, relative to the weight 1 of the run's own data
    from_step: int = 0  # first step that may use it

    def __post_init__(self):
        if self.batch_size < 1 or self.weight <= 0 or self.from_step < 0:
            raise UserError(
                "a stream needs a batch size of 1 or more, a weight above 0 and a first step of 0 or more, "
                f"got {self.batch_size}, {self.weight:g} and {self.from_step}"
            )


@dataclass(frozen=True)
class Slurm:
    """Submit the run to Slurm instead of running it here."""

    nodes: int = 0  # machines; 0: run here
    gpus: int = 1  # per machine, one process each; 0: one process without a GPU
    cpus: int = 8  # per process
    time: str = "24h"  # time limit of a job; then the run is saved, requeued and resumed
    options: tuple[str, ...] = ()  # further options of sbatch, such as partition=long account=vision

    def __post_init__(self):
        if self.nodes < 0 or self.gpus < 0 or self.cpus < 1 or parse_duration(self.time, "--slurm.time") < 300:
            raise UserError(
                "a Slurm job needs nodes, CPUs and at least five minutes: try --slurm.nodes 1 --slurm.time 24h"
            )


def check_positive(settings: object, *names: str) -> None:
    """Raise UserError unless these settings are at least 1."""
    for name in names:
        if getattr(settings, name) < 1:
            raise UserError(f"--{name.replace('_', '-')} must be >= 1, got {getattr(settings, name)}")
