"""Define the settings of a run: frozen dataclasses, saved as JSON next to the weights."""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar, cast

from openjepa.core import registry
from openjepa.core.config import build_registered, flatten, from_plain, with_types
from openjepa.core.errors import UserError
from openjepa.core.fileio import absolute_path, read_json
from openjepa.data.image_values import LEGACY
from openjepa.masking.multiblock import MultiBlock
from openjepa.methods.jepa import JEPA
from openjepa.modalities.image import Image
from openjepa.training.migrations import FORMAT, migrate
from openjepa.training.optim import Optim
from openjepa.training.settings import Execution, Guards, OnlineProbe, Output, Resources, Slurm, Stream, Training

Data = TypeVar("Data")
Method = TypeVar("Method")
Masks = TypeVar("Masks")


@dataclass(frozen=True)
class Parts(Generic[Data, Method, Masks]):
    """What is trained on what: data, method, masks and optimizer."""

    data: Data = field(default_factory=cast("Any", Image))
    method: Method = field(default_factory=cast("Any", JEPA))
    masks: Masks = field(default_factory=cast("Any", MultiBlock))
    optim: Optim = field(default_factory=Optim)


@dataclass(frozen=True)
class Pretrain(Guards, Output, Resources, Execution, Training, Parts[Data, Method, Masks]):
    """All settings of a run. Those of the groups Resources, Output and Guards do not change the result.

    Any registered modality, method and mask strategy fits: `Pretrain[Image, JEPA, MultiBlock]` is the default.
    """

    streams: tuple[Stream, ...] = ()  # further data sets, from which some of the steps take their batches
    online_probe: OnlineProbe = field(default_factory=OnlineProbe)
    slurm: Slurm = field(default_factory=Slurm)

    def __post_init__(self):
        for name, value in flatten(dataclasses.asdict(self)).items():
            if isinstance(value, float) and not math.isfinite(value):
                raise UserError(f"--{name.replace('_', '-')} must be finite, got {value}")
        for group in (Training, Execution, Resources, Output):
            group.__post_init__(self)
        self.method.check(self.data, self.masks)  # type: ignore[attr-defined]


PARTS = {"data": "modality", "method": "method", "masks": "masks"}  # field -> kind of registered class

RUN_SETTINGS = frozenset(each.name for group in (Resources, Output, Guards) for each in dataclasses.fields(group)) | {
    "online_probe",
    "slurm",
}


def to_json(config: Pretrain) -> dict[str, Any]:
    """Return the settings as plain JSON values, with the registered names of the modality and the method."""
    plain = json.loads(json.dumps(dataclasses.asdict(config), default=str))
    for owner, settings in zip([plain, *plain["streams"]], [config, *config.streams], strict=True):
        for part, kind in PARTS.items():
            if part in owner:
                own = getattr(settings, part)
                owner[part] = {"type": registry.name_of(kind, own), **with_types(own, owner[part])}
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
    parts: dict[str, Any] = {part: build_registered(kind, plain.pop(part)) for part, kind in PARTS.items()}
    parts |= {
        "streams": tuple(stream_from_json(dict(each)) for each in plain.pop("streams", ())),
        "optim": from_plain(Optim, plain.pop("optim")),
        "online_probe": from_plain(OnlineProbe, plain.pop("online_probe", {})),
        "slurm": from_plain(Slurm, plain.pop("slurm", {})),
    }
    return dataclasses.replace(from_plain(Pretrain, plain), **parts)


def stream_from_json(plain: dict[str, Any]) -> Stream:
    """Build a stream from its settings."""
    data, masks = (build_registered(PARTS[part], plain.pop(part)) for part in ("data", "masks"))
    return Stream(data, masks, **plain)


def load_config(folder: Path) -> Pretrain:
    """Load the settings of a run or an export. Raises UserError if they are absent or damaged."""
    file = folder / "config.json"
    if not file.is_file():
        stages = sorted(each.name for each in Path(folder).glob("stage-*"))
        advice = f"; it has stages: try {Path(folder) / stages[-1]}" if stages else ""
        raise UserError(f"{folder} is not a run: it has no config.json{advice}")
    try:
        return from_json(read_json(file))
    except UserError as error:
        raise UserError(f"{file}: {error}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:  # such as a list in place of an object
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
    """Return the settings that change the result and differ between two configs, as `name: old → new`.

    Paths of data and teachers are left out: their contents are compared.
    """
    before, after = comparable_settings(old), comparable_settings(new)
    if before.get("data.value_range") == list(LEGACY) and not after.get("data.value_range"):
        before["data.value_range"] = []  # it has no effect on the images of this run
    teachers = {f"method.{name}" for name in new.method.teachers()}
    names = [
        name
        for name in before | after
        if name.split(".")[0] not in RUN_SETTINGS and not name.endswith("data.root") and name not in teachers
    ]
    return [f"{name}: {before.get(name)} → {after.get(name)}" for name in names if before.get(name) != after.get(name)]


def comparable_settings(config: Pretrain) -> dict[str, Any]:
    """Return all settings by name, those of streams too, with the absolute path of the initial weights."""
    plain = to_json(config)
    streams = {f"streams.{number}": each for number, each in enumerate(plain.pop("streams"))}
    start = plain.pop("init_from")
    return flatten(plain | streams | {"init_from": start and absolute_path(start)})
