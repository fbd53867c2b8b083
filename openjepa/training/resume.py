"""Resume a run: restore its checkpoint and check that data and settings are unchanged."""

from __future__ import annotations

import json
import platform
from pathlib import Path
from typing import Any

import PIL
import torch

from openjepa.core.console import info, warn
from openjepa.core.distributed import barrier, is_main, rank_and_size
from openjepa.core.errors import UserError
from openjepa.core.fileio import atomic_write, read_json
from openjepa.core.types import FileList
from openjepa.modalities.image import Image
from openjepa.training.checkpoint import list_checkpoints, load_newest, restore_checkpoint
from openjepa.training.config import Pretrain, config_differences, load_config, to_json
from openjepa.training.log import read_metrics


def is_resuming(settings: Pretrain) -> bool:
    """Whether there is a run to go on with. Mistake if the folder and the wish do not go together."""
    there = (settings.out / "config.json").is_file()
    if not there and list_checkpoints(settings.out / "checkpoints"):
        raise UserError(
            f"{settings.out} has checkpoints and no config.json: put it back (export/ of a run has one, too), or give another --out"
        )
    if there and settings.resume == "no":
        raise UserError(
            f'{settings.out} already holds a run: go on with it by --resume (in Python resume="yes"), or give another --out'
        )
    if settings.resume == "yes" and not there:
        raise UserError(f"{settings.out} holds no run to resume: leave --resume out to start one")
    return there


def check_same_data(settings: Pretrain, listing: FileList) -> None:
    """Mistake if the files are not those that the run began with."""
    began = read_metadata(settings.out / "data.json")
    if not began:
        warn(f"{settings.out} has no data.json: whether the data are those the run began with is not known")
    if began and began.get("fingerprint") != listing.fingerprint:
        message = f"the data are not those the run began with: {began.get('count')} files then, {len(listing.paths)} now, or other names (from the root as it is given) or sizes"
        if not settings.allow_data_change:
            raise UserError(f"{message}; give the same --data.root, or insist with --allow-data-change")
        warn(f"{message}; the resumed run is not exact")


def warn_if_environment_changed(settings: Pretrain) -> None:
    """Says what is another than when the run began, of what its last bits depend on."""
    environment = environment_versions()
    then = read_metadata(settings.out / "environment.json") or environment
    other = [f"{name}: {then.get(name)} → {now}" for name, now in environment.items() if then.get(name) != now]
    if other:
        warn(f"resumed in another environment, so perhaps not bit for bit the same run: {'; '.join(other)}")


def read_metadata(file: Path) -> dict[str, Any]:
    """What a run wrote down when it began; nothing where it did not. Mistake if that is damaged."""
    try:
        return read_json(file) if file.exists() else {}
    except ValueError as error:
        raise UserError(f"{file} is damaged ({error}): put it back, or remove it to go on without its check") from error


def load_checkpoint(settings: Pretrain, method: torch.nn.Module, optimizer: torch.optim.Optimizer) -> int:
    """Steps already taken, their weights put back; says so if what follows is not what would have been."""
    began = load_config(settings.out)
    changed = config_differences(began, settings)
    if changed:
        warn(f"resumed with other settings, so not exactly the same run: {'; '.join(changed)}")
    warn_if_environment_changed(settings)
    folder = settings.out / "checkpoints"
    loaded = load_newest(folder) if is_main() else None  # alone: it may set damaged ones aside
    barrier()
    loaded = loaded if is_main() else load_newest(folder)
    if loaded is None:
        reached = max((row["step"] for row in read_metrics(settings.out / "metrics.jsonl")), default=0)
        if reached > 2 * began.save_every:  # one may be under way, but not the next one as well
            raise UserError(
                f"{settings.out} has a log up to step {reached} and no checkpoint: put checkpoints/ back, or give another --out"
            )
        info("the run was stopped before its first checkpoint: starting at step 0, as then")
        return 0
    restore_checkpoint(loaded, method, optimizer)
    return loaded.step


def environment_versions() -> dict[str, Any]:
    """What else the last bits depend on."""
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "pillow": PIL.__version__,
        "machine": platform.machine(),
        "cpu": torch.backends.cpu.get_cpu_capability(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "ranks": rank_and_size()[1],
    }


def write_metadata(settings: Pretrain, listing: FileList, count: int) -> None:
    """Writes config.json, environment.json and data.json."""
    data: dict[str, Any] = {"fingerprint": listing.fingerprint, "count": count}
    if isinstance(settings.data, Image):
        data |= {"mean": settings.data.mean, "std": settings.data.std}
    files = {"environment": environment_versions(), "data": data, "config": to_json(settings)}
    for name, content in files.items():
        with atomic_write(settings.out / f"{name}.json") as temporary:
            temporary.write_text(json.dumps(content, indent=1))
