"""The settings of a run: frozen dataclasses, saved as JSON beside the weights."""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from openjepa.core.config import flatten, from_plain, lookup, registered_name
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
from openjepa.training.migrations import FORMAT, migrate
from openjepa.training.optim import Optim
from openjepa.training.settings import Execution, Guards, OnlineProbe, Output, Resources, Slurm, Training

MODALITIES = {"image": Image, "series": Series}

METHODS = {"jepa": JEPA, "mae": MAE, "vicreg": VICReg, "decoder": Decoder}


@dataclass(frozen=True)
class Parts:
    """What is trained on what: data, method, masks and optimizer."""

    data: Image | Series = field(default_factory=Image)
    method: JEPA | MAE | VICReg | Decoder = field(default_factory=JEPA)
    masks: Masking = field(default_factory=Masking)
    optim: Optim = field(default_factory=Optim)


@dataclass(frozen=True)
class Pretrain(Guards, Output, Resources, Execution, Training, Parts):
    """All settings of a run. Those of the groups Resources, Output and Guards do not change the result."""

    online_probe: OnlineProbe = field(default_factory=OnlineProbe)
    slurm: Slurm = field(default_factory=Slurm)

    def __post_init__(self):
        for name, value in flatten(dataclasses.asdict(self)).items():
            if isinstance(value, float) and not math.isfinite(value):
                raise UserError(f"--{name.replace('_', '-')} must be finite, got {value}")
        for group in (Training, Execution, Resources, Output):
            group.__post_init__(self)
        layers = self.method.target_layers if isinstance(self.method, JEPA) else ()
        if any(not -self.method.depth <= layer < self.method.depth for layer in layers):
            raise UserError(
                f"targets of blocks {' '.join(map(str, layers))} want more than the encoder's {self.method.depth}: "
                f"try --method.target-layers {' '.join(map(str, range(self.method.depth // 3, self.method.depth)))}"
            )
        every = self.method.target_stride if isinstance(self.method, JEPA) else 1
        if every < 1 or (every > 1 and not (isinstance(self.method, JEPA) and self.method.pixel_loss_weight)):
            raise UserError(
                f"features at every {every}th place leave others at which nothing is asked for: "
                "try --method.target-stride 1, or --method.pixel-loss-weight 1"
            )
        alone = isinstance(self.method, JEPA) and self.method.target_input == "targets_only"
        if alone and (self.masks.sampler not in ("random", "block") or self.masks.masks_per_sample > 1):
            raise UserError(
                "a target encoder that sees the places asked for alone wants one block of them a sample: "
                "try --masks.sampler random --masks.masks-per-sample 1, or --method.target-input whole"
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


RUN_SETTINGS = frozenset(each.name for group in (Resources, Output, Guards) for each in dataclasses.fields(group)) | {
    "online_probe",
    "slurm",
}


def to_json(config: Pretrain) -> dict[str, Any]:
    """The config as plain values; a modality and a method bear their registered names."""
    plain = json.loads(json.dumps(dataclasses.asdict(config), default=str))
    plain["data"] = {"type": registered_name(MODALITIES, config.data), **plain["data"]}
    plain["method"] = {"type": registered_name(METHODS, config.method), **plain["method"]}
    return {"format": FORMAT, **plain}


def from_json(plain: dict[str, Any]) -> Pretrain:
    """The config that `to_json` wrote. Mistake on a key or value that does not belong."""
    plain = dict(migrate(plain))
    if plain.pop("format", None) != FORMAT:
        raise UserError(f"config.json is not of format {FORMAT}: was it written by another version?")
    data, method = dict(plain.pop("data")), dict(plain.pop("method"))
    built: dict[str, Any] = {
        "data": from_plain(lookup(MODALITIES, data.pop("type", None)), data),
        "method": from_plain(lookup(METHODS, method.pop("type", None)), method),
        "masks": from_plain(Masking, plain.pop("masks")),
        "optim": from_plain(Optim, plain.pop("optim")),
        "online_probe": from_plain(OnlineProbe, plain.pop("online_probe", {})),
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
