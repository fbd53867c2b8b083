"""What a run is: frozen dataclasses, two levels deep, saved as JSON beside the weights."""

from __future__ import annotations

import dataclasses
import json
import math
import re
import types
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from openjepa.device import Precision
from openjepa.durable import read_json
from openjepa.masking import Masking
from openjepa.methods.decoder import Decoder
from openjepa.methods.jepa import JEPA
from openjepa.methods.mae import MAE
from openjepa.methods.vicreg import VICReg
from openjepa.modalities.image import Image
from openjepa.modalities.series import Series
from openjepa.nn.positions import turns
from openjepa.optim import Optim
from openjepa.types import Mistake

FORMAT = 1
MODALITIES = {"image": Image, "series": Series}
METHODS = {"jepa": JEPA, "mae": MAE, "vicreg": VICReg, "decoder": Decoder}


@dataclass(frozen=True)
class Online:
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
    online: Online = field(default_factory=Online)
    slurm: Slurm = field(default_factory=Slurm)
    boards: tuple[Literal["tensorboard", "wandb"], ...] = ()
    report: bool = True  # write report.html at the end

    def __post_init__(self):
        for name, value in flatten(dataclasses.asdict(self)).items():
            if isinstance(value, float) and not math.isfinite(value):
                raise Mistake(f"{name} cannot be {value}: leave --{name.replace('_', '-')} out")
        for name in ("batch_size", "accumulate", "log_every", "save_every"):
            if getattr(self, name) < 1:
                raise Mistake(
                    f"{name} {getattr(self, name)} is not a positive number: try --{name.replace('_', '-')} 1"
                )
        seconds(self.budget)
        if not seconds(self.patience):
            raise Mistake("processes that do not wait for one another at all cannot work together: try --patience 30m")
        if self.slurm.nodes < 0 or self.slurm.gpus < 0 or self.slurm.cpus < 1 or seconds(self.slurm.time) < 300:
            raise Mistake("a job wants machines, cores and five minutes at least: try --slurm.nodes 1 --slurm.time 24h")
        if self.online.every < 1 or self.online.samples < 20:
            raise Mistake("probes during a run need --online.every 1 and --online.samples 20 at least")
        if self.batch_size % self.accumulate:
            raise Mistake(
                f"batch size {self.batch_size} does not divide into {self.accumulate} parts: try --accumulate 1"
            )
        if self.threads < 0:
            raise Mistake(f"{self.threads} threads are none: try --threads 0, which is as many as there are cores")
        layers = self.method.target_layers if isinstance(self.method, JEPA) else ()
        if any(not -self.method.depth <= layer < self.method.depth for layer in layers):
            raise Mistake(
                f"targets of blocks {' '.join(map(str, layers))} want more than the encoder's {self.method.depth}: "
                f"try --method.target-layers {' '.join(map(str, range(self.method.depth // 3, self.method.depth)))}"
            )
        if self.epochs <= 0 and self.steps <= 0:
            raise Mistake("a run of no steps learns nothing: try --epochs 100")
        every = self.method.target_every if isinstance(self.method, JEPA) else 1
        if every < 1 or (every > 1 and not (isinstance(self.method, JEPA) and self.method.pixels)):
            raise Mistake(
                f"features at every {every}th place leave others at which nothing is asked for: "
                "try --method.target-every 1, or --method.pixels 1"
            )
        alone = isinstance(self.method, JEPA) and self.method.target_sees == "asked"
        if alone and (self.masks.sampler not in ("random", "block") or self.masks.times > 1):
            raise Mistake(
                "a target encoder that sees the places asked for alone wants one block of them a sample: "
                "try --masks.sampler random --masks.times 1, or --method.target-sees whole"
            )
        for dim, heads in (
            (self.method.dim, self.method.num_heads),
            (self.method.predictor_dim, self.method.predictor_heads or self.method.num_heads),
        ):
            if dim % heads:
                raise Mistake(
                    f"width {dim} does not divide into {heads} heads: try a width of {dim // heads * heads or heads}"
                )
            if self.method.positions == "rope":
                turns(dim // heads, self.data.coordinates)


def seconds(budget: str) -> float:
    """The seconds of a time such as 2h, 90m, 1h30m or 45s; 0 of an empty one. Mistake in a sentence otherwise."""
    found = re.fullmatch(r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?", budget.strip())
    total = sum(int(part or 0) * unit for part, unit in zip(found.groups(), (3600, 60, 1), strict=True)) if found else 0
    if budget and not total:
        raise Mistake(f"{budget!r} is no time: times are written 2h, 1h30m, 90m or 45s")
    return float(total)


def lasts(time: float) -> str:
    """Seconds as `seconds` reads them: 48s, 75m or 2h10m."""
    if time < 120:
        return f"{time:.0f}s"
    minutes = round(time / 60)
    return f"{minutes}m" if minutes < 120 else f"{minutes // 60}h{minutes % 60 or ''}{'m' if minutes % 60 else ''}"


FREE = frozenset({  # fields that the weights do not depend on
    "recompute", "budget", "out", "resume", "workers", "log_every", "save_every", "save_beside", "keep_last", "keep_every", "max_skipped",
    "stop_on_collapse", "patience", "other_data", "dry_run", "online", "slurm", "boards", "report",
})  # fmt: skip


def to_json(config: Pretrain) -> dict[str, Any]:
    """The config as plain values; a modality and a method bear their registered names."""
    plain = json.loads(json.dumps(dataclasses.asdict(config), default=str))
    plain["data"] = {"type": name_of(MODALITIES, config.data), **plain["data"]}
    plain["method"] = {"type": name_of(METHODS, config.method), **plain["method"]}
    return {"format": FORMAT, **plain}


def from_json(plain: dict[str, Any]) -> Pretrain:
    """The config that `to_json` wrote. Mistake on a key or value that does not belong."""
    plain = dict(plain)
    if plain.pop("format", None) != FORMAT:
        raise Mistake(f"config.json is not of format {FORMAT}: was it written by another version?")
    data, method = dict(plain.pop("data")), dict(plain.pop("method"))
    built: dict[str, Any] = {
        "data": build(known(MODALITIES, data.pop("type", None)), data),
        "method": build(known(METHODS, method.pop("type", None)), method),
        "masks": build(Masking, plain.pop("masks")),
        "optim": build(Optim, plain.pop("optim")),
        "online": build(Online, plain.pop("online", {})),
        "slurm": build(Slurm, plain.pop("slurm", {})),
    }
    return dataclasses.replace(build(Pretrain, plain), **built)


def load(folder: Path) -> Pretrain:
    """The config of a run or an export. Mistake in a sentence if there is none."""
    file = folder / "config.json"
    if not file.is_file():
        raise Mistake(f"{folder} is not a run: it has no config.json")
    try:
        return from_json(read_json(file))
    except Mistake as error:
        raise Mistake(f"{file}: {error}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise Mistake(f"{file} cannot be read ({error}): put it back; export/ of a run has one, too") from error


def is_one(folder: Path) -> bool:
    """Whether a folder is a run or an export: its config.json is one of ours, or so broken that `load` has to say so."""
    file = folder / "config.json"
    try:
        return file.is_file() and "format" in read_json(file)
    except ValueError:
        return True


def build(kind: type, plain: dict[str, Any]) -> Any:
    """A dataclass from plain values, every one checked against its field's type."""
    every = typing.get_type_hints(kind)
    hints = {each.name: every[each.name] for each in dataclasses.fields(kind)}
    unknown = sorted(plain.keys() - hints.keys())
    if unknown:
        raise Mistake(f"{kind.__name__} has no setting {unknown[0]!r}: its settings are {', '.join(hints)}")
    return kind(**{name: value_of(hints[name], value, name) for name, value in plain.items()})


def value_of(hint: Any, value: Any, name: str) -> Any:
    """A JSON value as the type a field wants. Mistake if it is another."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal and value in arguments:
        return value
    if origin is tuple and isinstance(value, list):
        kinds = [arguments[0]] * len(value) if arguments[-1] is Ellipsis else arguments
        if len(kinds) == len(value):
            return tuple(value_of(kind, each, name) for kind, each in zip(kinds, value, strict=True))
    if origin in (typing.Union, types.UnionType) and value is None and type(None) in arguments:
        return None
    if hint is Path or (origin in (typing.Union, types.UnionType) and Path in arguments):
        return Path(str(value))
    if hint is float and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    if isinstance(hint, type) and type(value) is hint:
        return value
    raise Mistake(f"{name} cannot be {value!r}: it is {getattr(hint, '__name__', hint)}")


def known(registry: dict[str, type], name: Any) -> type:
    if name not in registry:
        raise Mistake(f"{name!r} is none of {', '.join(registry)}")
    return registry[name]


def name_of(registry: dict[str, type], value: Any) -> str:
    return next(name for name, kind in registry.items() if type(value) is kind)


def differences(one: Pretrain, other: Pretrain) -> list[str]:
    """The settings that results depend on in which two configs differ, as `name: one → other`."""
    flat = [flatten(to_json(config)) for config in (one, other)]
    names = [name for name in flat[0] | flat[1] if name.split(".")[0] not in FREE and name != "data.root"]
    return [
        f"{name}: {flat[0].get(name)} → {flat[1].get(name)}" for name in names if flat[0].get(name) != flat[1].get(name)
    ]


def flatten(plain: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat = {}
    for name, value in plain.items():
        flat |= flatten(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return flat
