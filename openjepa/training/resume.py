"""Resume a run: restore its checkpoint and check that data and settings are unchanged."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import PIL
import torch

from openjepa.core.capabilities import Measures
from openjepa.core.console import info, warn
from openjepa.core.distributed import barrier, is_main, rank_and_size
from openjepa.core.errors import UserError
from openjepa.core.fileio import atomic_write, read_json
from openjepa.core.types import FileList
from openjepa.training.checkpoint import list_checkpoints, load_newest, restore_checkpoint
from openjepa.training.config import Pretrain, config_differences, load_config, to_json
from openjepa.training.locations import data_roots, places_from_run
from openjepa.training.log import read_metrics

IDENTITY = "contents"  # what the fingerprint in data.json stands for; without this word: paths and sizes


def is_resuming(settings: Pretrain) -> bool:
    """Return whether the folder holds a run to resume.

    Raises UserError if the folder does not fit the --resume flag.
    """
    exists = (settings.out / "config.json").is_file()
    if not exists and list_checkpoints(settings.out / "checkpoints"):
        raise UserError(
            f"{settings.out} has checkpoints but no config.json: restore it (export/ of a run has a copy), "
            "or give another --out"
        )
    if exists and settings.resume == "no":
        raise UserError(
            f'{settings.out} already holds a run: continue it with --resume (in Python resume="yes"), '
            "or give another --out"
        )
    if settings.resume == "yes" and not exists:
        raise UserError(f"{settings.out} holds no run to resume: leave --resume out to start one")
    return exists


def check_same_data(settings: Pretrain, listings: Sequence[FileList]) -> None:
    """Raise UserError if the files of the run's data or of its streams have changed since the run started.

    With --allow-data-change, only warn. Where the files are does not matter.
    """
    recorded = read_metadata(settings.out / "data.json")
    if not recorded:
        warn(f"{settings.out} has no data.json: cannot check that the data are the same as when the run started")
    if recorded and recorded.get("fingerprint") not in fingerprints_of(settings, listings, recorded):
        then, now = recorded.get("files", recorded.get("count")), sum(len(each.paths) for each in listings)
        difference = f"{then} files then, {now} now" if then != now else f"names or contents of the {now} files differ"
        message = f"the data have changed since the run started: {difference}"
        if not settings.allow_data_change:
            raise UserError(
                f"{message}; give the same --data.root, or add --allow-data-change (the run is then not bit-exact)"
            )
        warn(f"{message}; the resumed run is not exact")


def fingerprints_of(settings: Pretrain, listings: Sequence[FileList], recorded: dict[str, Any]) -> list[str]:
    """Return what data.json may hold if the data are the same: contents or, in runs of earlier versions, paths."""
    if recorded.get("identity") == IDENTITY:
        return [combine_fingerprints([each.fingerprint for each in listings])]
    before = load_config(settings.out)
    roots = [data_roots(each) for each in (before.data, *(stream.data for stream in before.streams))]
    earlier = [
        each.earlier(root) if each.earlier else each.fingerprint for each, root in zip(listings, roots, strict=False)
    ]
    return [combine_fingerprints(earlier)]


def combine_fingerprints(fingerprints: Sequence[str]) -> str:
    """Return one fingerprint of the run's data and of its streams."""
    if len(fingerprints) == 1:
        return fingerprints[0]
    return hashlib.sha256("\0".join(fingerprints).encode()).hexdigest()[:32]


def warn_if_environment_changed(settings: Pretrain) -> None:
    """Warn about versions and hardware that have changed since the run started."""
    environment = environment_versions()
    recorded = read_metadata(settings.out / "environment.json") or environment
    changed = [
        f"{name}: {recorded.get(name)} → {now}" for name, now in environment.items() if recorded.get(name) != now
    ]
    if changed:
        warn(f"resumed in another environment, so the run may not be bit-exact: {'; '.join(changed)}")


def read_metadata(file: Path) -> dict[str, Any]:
    """Read a JSON file of the run, {} if absent. Raises UserError if it is damaged."""
    try:
        return read_json(file) if file.exists() else {}
    except ValueError as error:
        raise UserError(f"{file} is damaged ({error}): restore it, or delete it to resume without its check") from error


def load_checkpoint(settings: Pretrain, method: torch.nn.Module, optimizer: torch.optim.Optimizer) -> int:
    """Load the newest checkpoint and return its step; warn if the run will not be exact."""
    previous = load_config(settings.out)
    changed = config_differences(previous, settings)
    if changed:
        warn(f"resumed with other settings, so the run is not exactly the same: {'; '.join(changed)}")
    warn_if_environment_changed(settings)
    folder = settings.out / "checkpoints"
    checkpoint = load_newest(folder) if is_main() else None  # main process first: it may rename damaged ones
    barrier()
    checkpoint = checkpoint if is_main() else load_newest(folder)
    if checkpoint is None:
        logged = max((row["step"] for row in read_metrics(settings.out / "metrics.jsonl")), default=0)
        if logged > 2 * previous.save_every:  # the first save may still have been pending, but not the second as well
            raise UserError(
                f"{settings.out} has a log up to step {logged} but no checkpoint: restore checkpoints/, "
                "or give another --out"
            )
        info("the run stopped before its first checkpoint: starting again at step 0")
        return 0
    restore_checkpoint(checkpoint, method, optimizer)
    return checkpoint.step


def environment_versions() -> dict[str, Any]:
    """Return the versions and the hardware on which the last bits of a result depend."""
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "pillow": PIL.__version__,
        "machine": platform.machine(),
        "cpu": torch.backends.cpu.get_cpu_capability(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "ranks": rank_and_size()[1],
    }


def write_metadata(settings: Pretrain, listings: Sequence[FileList], count: int, method: Any) -> None:
    """Write config.json, environment.json and data.json."""
    fingerprint = combine_fingerprints([each.fingerprint for each in listings])
    files = sum(len(each.paths) for each in listings)
    data: dict[str, Any] = {"fingerprint": fingerprint, "identity": IDENTITY, "files": files, "count": count}
    data["places"] = places_from_run(settings)
    if isinstance(settings.data, Measures):
        data |= settings.data.statistics
    if method.teachers:
        data["teachers"] = {name: teacher.fingerprint for name, teacher in method.teachers.items()}
    files = {"environment": environment_versions(), "data": data, "config": to_json(settings)}
    for name, content in files.items():
        with atomic_write(settings.out / f"{name}.json") as temporary:
            temporary.write_text(json.dumps(content, indent=1), encoding="utf-8")
