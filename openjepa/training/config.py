"""Define the settings of a run: frozen dataclasses, saved as JSON next to the weights."""

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
from openjepa.nn.positions import rope_frequency_count, sincos_frequency_count
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
        if isinstance(self.method, JEPA):
            check_targets(self.method, self.masks)
        method, coordinates = self.method, self.data.coordinates
        predictor_heads = method.predictor_heads or method.num_heads
        check_heads("--method.dim", method.dim, method.num_heads, method.positions, coordinates)
        check_heads("--method.predictor-dim", method.predictor_dim, predictor_heads, method.positions, coordinates)


def check_targets(method: JEPA, masks: Masking) -> None:
    """Raise UserError unless the targets exist in the encoder and fit the masks."""
    depth, layers = method.depth, method.target_layers
    if any(not -depth <= layer < depth for layer in layers):
        raise UserError(
            f"--method.target-layers {' '.join(map(str, layers))} must be layers of the encoder, "
            f"numbered 0 to {depth - 1} (-1: the last): "
            f"try --method.target-layers {' '.join(map(str, range(depth // 3, depth)))}"
        )
    stride = method.target_stride
    if stride < 1:
        raise UserError(f"--method.target-stride must be >= 1, got {stride}")
    if stride > 1 and not method.pixel_loss_weight:
        raise UserError(
            f"--method.target-stride {stride} leaves positions without a target unless there is a pixel loss: "
            "try --method.pixel-loss-weight 1 or --method.target-stride 1"
        )
    single_block = masks.sampler in ("random", "block") and masks.masks_per_sample <= 1
    if method.target_input == "targets_only" and not single_block:
        raise UserError(
            "--method.target-input targets_only requires a single target block per sample: "
            "try --masks.sampler random --masks.masks-per-sample 1, or --method.target-input whole"
        )


def check_heads(flag: str, dim: int, heads: int, positions: str, coordinates: int) -> None:
    """Raise UserError unless the width divides into heads and has room for positions with this many coordinates."""
    if dim % heads:
        unit = math.lcm(heads, 2 * coordinates)  # of sine-cosine positions: a sine and a cosine per coordinate
        raise UserError(
            f"{flag} must be a multiple of its {heads} attention heads, got {dim}: "
            f"try {flag} {dim // unit * unit or unit}"
        )
    if positions == "rope":
        rope_frequency_count(dim // heads, coordinates)
    else:
        sincos_frequency_count(dim, coordinates)


RUN_SETTINGS = frozenset(each.name for group in (Resources, Output, Guards) for each in dataclasses.fields(group)) | {
    "online_probe",
    "slurm",
}


def to_json(config: Pretrain) -> dict[str, Any]:
    """Return the settings as plain JSON values, with the registered names of the modality and the method."""
    plain = json.loads(json.dumps(dataclasses.asdict(config), default=str))
    plain["data"] = {"type": registered_name(MODALITIES, config.data), **plain["data"]}
    plain["method"] = {"type": registered_name(METHODS, config.method), **plain["method"]}
    return {"format": FORMAT, **plain}


def from_json(plain: dict[str, Any]) -> Pretrain:
    """Return the settings that `to_json` wrote, also in an older format.

    Raises UserError for an unknown key or value.
    """
    plain = dict(migrate(plain))
    if plain.get("format") != FORMAT:
        raise UserError(
            f"config.json has format {plain.get('format')}, but this version of openjepa reads formats 1 to {FORMAT}"
        )
    del plain["format"]
    data, method = dict(plain.pop("data")), dict(plain.pop("method"))
    parts: dict[str, Any] = {
        "data": from_plain(lookup(MODALITIES, data.pop("type", None)), data),
        "method": from_plain(lookup(METHODS, method.pop("type", None)), method),
        "masks": from_plain(Masking, plain.pop("masks")),
        "optim": from_plain(Optim, plain.pop("optim")),
        "online_probe": from_plain(OnlineProbe, plain.pop("online_probe", {})),
        "slurm": from_plain(Slurm, plain.pop("slurm", {})),
    }
    return dataclasses.replace(from_plain(Pretrain, plain), **parts)


def load_config(folder: Path) -> Pretrain:
    """Load the settings of a run or an export. Raises UserError if they are absent or damaged."""
    file = folder / "config.json"
    if not file.is_file():
        raise UserError(f"{folder} is not a run: it has no config.json")
    try:
        return from_json(read_json(file))
    except UserError as error:
        raise UserError(f"{file}: {error}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{file} cannot be read ({error}): restore it (export/ of a run has a copy)") from error


def is_run_folder(folder: Path) -> bool:
    """Return whether a folder is a run or an export.

    True also if its config.json is damaged, which `load_config` reports.
    """
    file = folder / "config.json"
    try:
        return file.is_file() and "format" in read_json(file)
    except ValueError:
        return True


def config_differences(old: Pretrain, new: Pretrain) -> list[str]:
    """Return the settings that change the result and differ between two configs, as `name: old → new`."""
    before, after = flatten(to_json(old)), flatten(to_json(new))
    names = [name for name in before | after if name.split(".")[0] not in RUN_SETTINGS and name != "data.root"]
    return [f"{name}: {before.get(name)} → {after.get(name)}" for name in names if before.get(name) != after.get(name)]
