"""Make the paths in the settings of a run independent of the working folder, and find out what has moved."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection
from pathlib import Path
from typing import Any

from openjepa.core.capabilities import with_root
from openjepa.core.errors import UserError
from openjepa.core.fileio import absolute_path, expand_home
from openjepa.training.config import Pretrain


def with_absolute_paths(settings: Pretrain, stage_names: Collection[str] = ()) -> Pretrain:
    """Return the settings with absolute paths of data, initial weights and teachers, so that any folder can resume.

    Names of earlier stages are no paths.
    """

    def absolute(path: str) -> str:
        return path if path in stage_names else absolute_path(path)

    teachers = {name: absolute(folder) for name, folder in settings.method.teachers().items()}
    probe_root = tuple(map(absolute_path, settings.online_probe.root))
    return dataclasses.replace(
        settings,
        data=absolute_data(settings.data),
        streams=tuple(dataclasses.replace(each, data=absolute_data(each.data)) for each in settings.streams),
        online_probe=dataclasses.replace(settings.online_probe, root=probe_root),
        init_from=settings.init_from and Path(absolute(str(settings.init_from))),
        method=dataclasses.replace(settings.method, **teachers) if teachers else settings.method,
    )


def data_roots(data: Any) -> tuple[str, ...]:
    """Return the files and folders of a modality; empty if it generates its samples."""
    root = getattr(data, "root", ())
    return root if isinstance(root, tuple) else ()


def absolute_data(data: Any) -> Any:
    """Return the modality with absolute paths of its files."""
    roots = data_roots(data)
    return with_root(data, tuple(map(absolute_path, roots))) if roots else data


def check_roots_exist(settings: Pretrain) -> None:
    """Raise UserError if data of the run that is resumed are not where they were, with the flag that says where."""
    flags = {"--data.root": data_roots(settings.data), "--online-probe.root": settings.online_probe.root}
    flags |= {f"--streams.{number}.data.root": data_roots(each.data) for number, each in enumerate(settings.streams)}
    for flag, roots in flags.items():
        missing = [root for root in roots if not expand_home(root).exists()]
        if missing:
            where = "" if Path(missing[0]).is_absolute() else f" in {Path.cwd()}"
            raise UserError(
                f"{missing[0]}, data of the run in {settings.out}, is not there{where}: "
                f"if it has moved, add {flag} {' '.join('NEW_PATH' if root in missing else root for root in roots)}"
            )
