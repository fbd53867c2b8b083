"""The settings of a run: frozen dataclasses, saved as JSON beside the weights."""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from openjepa.core.config import flatten, from_plain, lookup, parse_duration, registered_name
from openjepa.core.errors import UserError
from openjepa.core.fileio import read_json
from openjepa.masking.config import Masking
from openjepa.methods.decoder import Decoder
from openjepa.methods.jepa import JEPA
from openjepa.methods.mae import MAE
from openjepa.methods.vicreg import VICReg
from openjepa.modalities.image import Image
from openjepa.modalities.series import Series
from openjepa.nn.positions import rope_frequency_count
from openjepa.training.device import Precision
from openjepa.training.optim import Optim

FORMAT = 1

MODALITIES = {"image": Image, "series": Series}

METHODS = {"jepa": JEPA, "mae": MAE, "vicreg": VICReg, "decoder": Decoder}


@dataclass(frozen=True)
class OnlineProbe:
    """Labelled images that are probed during a run. The run never learns from them, and is the same without them."""

    root: tuple[str, ...] = ()  # a folder of class folders, or of train/ and test/
    every: int = 1000  # steps
    samples: int = 5000  # images to train the probes on; half as many test them


@dataclass(frozen=True)
class Slurm:
    """The machines that a run is submitted to, in place of running here."""

    nodes: int = 0  # machines; 0: run here
    gpus: int = 1  # of each machine, a process for each; 0: none, one process a machine
    cpus: int = 8  # of each process
    time: str = "24h"  # of a job; then it saves, is put back into the queue, and goes on
    options: tuple[str, ...] = ()  # others of sbatch, as partition=long account=vision


@dataclass(frozen=True)
class Pretrain:
    """Everything that a pretraining run depends on, and, at the end, what it does not."""

    data: Image | Series = field(default_factory=Image)
    method: JEPA | MAE | VICReg | Decoder = field(default_factory=JEPA)
    masks: Masking = field(default_factory=Masking)
    optim: Optim = field(default_factory=Optim)
    epochs: float = 300.0  # passes over the data
    steps: int = 0  # steps in all; 0: from epochs, or from the budget
    budget: str = ""  # time that the run may take, as 90m or 1h30m; timed once at its start, then a number of steps
    batch_size: int = 128  # samples in a step, over all processes
    accumulate: int = 1  # micro-batches in a step, for less memory
    seed: int = 0
    device: str = "auto"  # auto: cuda, mps, cpu
    precision: Precision = "auto"  # auto: bf16 where the processor multiplies it natively
    threads: int = 0  # of the CPU; 0: all cores
    sharded: bool = False  # weights, moments and average spread over all processes (FSDP2): larger models
    recompute: bool = False  # activations of transformer blocks once more in the backward pass: less memory, more time
    compile: bool = False  # transformer blocks, by torch: a minute or more at the start, for long runs on a GPU

    out: Path = Path("runs/pretrain")  # the run's folder
    resume: Literal["no", "yes", "if-any"] = "no"  # go on with the run in `out`, exactly
    init_from: Path | None = None  # start from another run's weights
    workers: int = -1  # loader processes; -1: chosen
    log_every: int = 20  # steps
    save_every: int = 500  # steps
    save_beside: bool = True  # checkpoints are written while training goes on; a step waits for a copy in memory alone
    keep_last: int = 2  # checkpoints
    keep_every: int = 0  # steps; 0: none but the last
    max_skipped: float = 0.05  # share of files that may be undecodable before the run stops
    stop_on_collapse: bool = False
    patience: str = "30m"  # of one process with another: then it says which one is missing, and leaves
    other_data: bool = False  # allow a resume although the list of files has changed
    dry_run: bool = False  # time a few steps, say how long the run takes, and leave
    online: OnlineProbe = field(default_factory=OnlineProbe)
    slurm: Slurm = field(default_factory=Slurm)
    boards: tuple[Literal["tensorboard", "wandb"], ...] = ()
    report: bool = True  # write report.html at the end

    def __post_init__(self):
        for name, value in flatten(dataclasses.asdict(self)).items():
            if isinstance(value, float) and not math.isfinite(value):
                raise UserError(f"{name} cannot be {value}: leave --{name.replace('_', '-')} out")
        for name in ("batch_size", "accumulate", "log_every", "save_every"):
            if getattr(self, name) < 1:
                raise UserError(
                    f"{name} {getattr(self, name)} is not a positive number: try --{name.replace('_', '-')} 1"
                )
        parse_duration(self.budget)
        if not parse_duration(self.patience):
            raise UserError(
                "processes that do not wait for one another at all cannot work together: try --patience 30m"
            )
        if self.slurm.nodes < 0 or self.slurm.gpus < 0 or self.slurm.cpus < 1 or parse_duration(self.slurm.time) < 300:
            raise UserError(
                "a job wants machines, cores and five minutes at least: try --slurm.nodes 1 --slurm.time 24h"
            )
        if self.online.every < 1 or self.online.samples < 20:
            raise UserError("probes during a run need --online.every 1 and --online.samples 20 at least")
        if self.batch_size % self.accumulate:
            raise UserError(
                f"batch size {self.batch_size} does not divide into {self.accumulate} parts: try --accumulate 1"
            )
        if self.threads < 0:
            raise UserError(f"{self.threads} threads are none: try --threads 0, which is as many as there are cores")
        layers = self.method.target_layers if isinstance(self.method, JEPA) else ()
        if any(not -self.method.depth <= layer < self.method.depth for layer in layers):
            raise UserError(
                f"targets of blocks {' '.join(map(str, layers))} want more than the encoder's {self.method.depth}: "
                f"try --method.target-layers {' '.join(map(str, range(self.method.depth // 3, self.method.depth)))}"
            )
        if self.epochs <= 0 and self.steps <= 0:
            raise UserError("a run of no steps learns nothing: try --epochs 100")
        every = self.method.target_every if isinstance(self.method, JEPA) else 1
        if every < 1 or (every > 1 and not (isinstance(self.method, JEPA) and self.method.pixels)):
            raise UserError(
                f"features at every {every}th place leave others at which nothing is asked for: "
                "try --method.target-every 1, or --method.pixels 1"
            )
        alone = isinstance(self.method, JEPA) and self.method.target_sees == "asked"
        if alone and (self.masks.sampler not in ("random", "block") or self.masks.times > 1):
            raise UserError(
                "a target encoder that sees the places asked for alone wants one block of them a sample: "
                "try --masks.sampler random --masks.times 1, or --method.target-sees whole"
            )
        for dim, heads in (
            (self.method.dim, self.method.num_heads),
            (self.method.predictor_dim, self.method.predictor_heads or self.method.num_heads),
        ):
            if dim % heads:
                raise UserError(
                    f"width {dim} does not divide into {heads} heads: try a width of {dim // heads * heads or heads}"
                )
            if self.method.positions == "rope":
                rope_frequency_count(dim // heads, self.data.coordinates)


RUN_SETTINGS = frozenset({  # fields that the weights do not depend on
    "recompute", "budget", "out", "resume", "workers", "log_every", "save_every", "save_beside", "keep_last", "keep_every", "max_skipped",
    "stop_on_collapse", "patience", "other_data", "dry_run", "online", "slurm", "boards", "report",
})  # fmt: skip


def to_json(config: Pretrain) -> dict[str, Any]:
    """The config as plain values; a modality and a method bear their registered names."""
    plain = json.loads(json.dumps(dataclasses.asdict(config), default=str))
    plain["data"] = {"type": registered_name(MODALITIES, config.data), **plain["data"]}
    plain["method"] = {"type": registered_name(METHODS, config.method), **plain["method"]}
    return {"format": FORMAT, **plain}


def from_json(plain: dict[str, Any]) -> Pretrain:
    """The config that `to_json` wrote. Mistake on a key or value that does not belong."""
    plain = dict(plain)
    if plain.pop("format", None) != FORMAT:
        raise UserError(f"config.json is not of format {FORMAT}: was it written by another version?")
    data, method = dict(plain.pop("data")), dict(plain.pop("method"))
    built: dict[str, Any] = {
        "data": from_plain(lookup(MODALITIES, data.pop("type", None)), data),
        "method": from_plain(lookup(METHODS, method.pop("type", None)), method),
        "masks": from_plain(Masking, plain.pop("masks")),
        "optim": from_plain(Optim, plain.pop("optim")),
        "online": from_plain(OnlineProbe, plain.pop("online", {})),
        "slurm": from_plain(Slurm, plain.pop("slurm", {})),
    }
    return dataclasses.replace(from_plain(Pretrain, plain), **built)


def load_config(folder: Path) -> Pretrain:
    """The config of a run or an export. Mistake in a sentence if there is none."""
    file = folder / "config.json"
    if not file.is_file():
        raise UserError(f"{folder} is not a run: it has no config.json")
    try:
        return from_json(read_json(file))
    except UserError as error:
        raise UserError(f"{file}: {error}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{file} cannot be read ({error}): put it back; export/ of a run has one, too") from error


def is_run_folder(folder: Path) -> bool:
    """Whether a folder is a run or an export: its config.json is one of ours, or so broken that `load` has to say so."""
    file = folder / "config.json"
    try:
        return file.is_file() and "format" in read_json(file)
    except ValueError:
        return True


def config_differences(one: Pretrain, other: Pretrain) -> list[str]:
    """The settings that results depend on in which two configs differ, as `name: one → other`."""
    flat = [flatten(to_json(config)) for config in (one, other)]
    names = [name for name in flat[0] | flat[1] if name.split(".")[0] not in RUN_SETTINGS and name != "data.root"]
    return [
        f"{name}: {flat[0].get(name)} → {flat[1].get(name)}" for name in names if flat[0].get(name) != flat[1].get(name)
    ]
