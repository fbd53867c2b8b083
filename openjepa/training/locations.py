"""Make the paths in the settings of a run independent of the working folder, and find out what has moved."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Collection
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
    return dataclasses.replace(
        map_roots(settings, absolute_path),
        init_from=settings.init_from and Path(absolute(str(settings.init_from))),
        method=dataclasses.replace(settings.method, **teachers) if teachers else settings.method,
    )


def data_roots(data: Any) -> tuple[str, ...]:
    """Return the files and folders of a modality; empty if it generates its samples."""
    root = getattr(data, "root", ())
    return root if isinstance(root, tuple) else ()


def map_roots(settings: Pretrain, move: Callable[[str], str]) -> Pretrain:
    """Return the settings with every file and folder of data at another place."""

    def moved(data: Any) -> Any:
        return with_root(data, tuple(map(move, data_roots(data)))) if data_roots(data) else data

    return dataclasses.replace(
        settings,
        data=moved(settings.data),
        streams=tuple(dataclasses.replace(each, data=moved(each.data)) for each in settings.streams),
        online_probe=dataclasses.replace(settings.online_probe, root=tuple(map(move, settings.online_probe.root))),
    )


def all_roots(settings: Pretrain) -> dict[str, tuple[str, ...]]:
    """Return the files and folders of data by the flag that names them."""
    streams = {f"--streams.{number}.data.root": data_roots(each.data) for number, each in enumerate(settings.streams)}
    return {"--data.root": data_roots(settings.data), "--online-probe.root": settings.online_probe.root, **streams}


def places_from_run(settings: Pretrain) -> dict[str, str]:
    """Return where data are as seen from the folder of the run, by their absolute paths."""
    roots = [root for roots in all_roots(settings).values() for root in roots if Path(root).is_absolute()]
    return {root: os.path.relpath(root, settings.out.absolute()) for root in roots}


def follow_run(settings: Pretrain, relative: dict[str, str]) -> Pretrain:
    """Return the settings with data that moved together with the folder of the run; `relative`: `places_from_run`."""

    def move(root: str) -> str:
        moved = os.path.normpath(settings.out.absolute() / relative.get(root, ""))
        return moved if root in relative and not Path(root).exists() and Path(moved).exists() else root

    return map_roots(settings, move)


def check_roots_exist(settings: Pretrain) -> None:
    """Raise UserError if data of the run that is resumed are not where they were, with the flag that says where."""
    for flag, roots in all_roots(settings).items():
        missing = [root for root in roots if not expand_home(root).exists()]
        if missing:
            where = "" if Path(missing[0]).is_absolute() else f" in {Path.cwd()}"
            raise UserError(
                f"{missing[0]}, data of the run in {settings.out}, is not there{where}: "
                f"if it has moved, add {flag} {' '.join('NEW_PATH' if root in missing else root for root in roots)}"
            )
