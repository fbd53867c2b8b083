"""Command `jepa doctor`: check a folder of pictures before training on it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro
from rich.markup import escape
from rich.progress import track
from rich.table import Table

from openjepa.core.console import console, info
from openjepa.core.errors import UserError
from openjepa.core.fileio import atomic_write
from openjepa.data.archives import parse_address
from openjepa.data.doctor import (
    FINDINGS,
    FileFacts,
    count_ignored_suffixes,
    exact_duplicates,
    examine_files,
    near_duplicates,
)
from openjepa.data.image_io import IMAGE_SUFFIXES
from openjepa.data.listing import list_files
from openjepa.viz.doctor import draw_histograms


@dataclass(frozen=True)
class Doctor:
    """Looks at every picture of a folder, once."""

    root: Annotated[tuple[str, ...], tyro.conf.Positional]  # folders, or text files of paths
    out: Path = Path("runs/doctor")  # a folder for doctor.json, which names every file, and doctor.png
    workers: int = -1  # processes; -1: one for each core
    near_duplicates: bool = True  # look for near duplicates, too


def doctor(settings: Doctor) -> dict[str, Any]:
    """What was found: printed, written as JSON with the files' names, drawn; returned. Mistake if there are no pictures, or none that can be read."""
    if settings.workers < -1:
        raise UserError(f"{settings.workers} processes are none: try --workers -1, which is one for each core")
    listing = list_files(settings.root, IMAGE_SUFFIXES)
    seen = list(track(examine_files(listing.paths, settings.workers), "looking", len(listing.paths), console=console))
    groups = exact_duplicates(seen) | (near_duplicates(seen) if settings.near_duplicates else {})
    found: dict[str, list[str]] = {name: [each.path for each in seen if name in each.findings] for name in FINDINGS}
    found |= {name: sorted({path for group in own for path in group}) for name, own in groups.items()}
    others = count_ignored_suffixes(settings.root, inside=bool(parse_address(listing.paths[0])))
    result = {
        "files": len(seen),
        "fit": sum(bool(each.width) for each in seen),
        "other_endings": dict(others.most_common()),
        "findings": {name: paths for name, paths in found.items() if paths},
        "groups": groups,
        "reasons": {each.path: each.reason for each in seen if each.reason},
    }
    with atomic_write(settings.out / "doctor.json") as temporary:
        temporary.write_text(json.dumps(result, indent=1))
    print_findings(result, seen)
    info(f"written    {settings.out / 'doctor.json'}, {draw_histograms(seen, settings.out / 'doctor.png')}")
    if not result["fit"]:
        raise UserError(f"there is nothing to learn from: of {len(seen)} files none is a picture that can be read")
    return result


def print_findings(result: dict[str, Any], seen: list[FileFacts]) -> None:
    """The table, with an example of everything."""
    info(f"{result['fit']:,} of {result['files']:,} files can be learnt from")
    if result["other_endings"]:
        kinds = ", ".join(f"{count} × {ending}" for ending, count in list(result["other_endings"].items())[:8])
        info(f"not looked at, by their endings: {kinds}")
    sides = sorted(min(each.width, each.height) for each in seen if each.width)
    if sides:
        info(f"shorter side: {sides[0]} to {sides[-1]} pixels, the middle one {sides[len(sides) // 2]}")
    table = Table("found", "files", "for instance", "what a run does")
    for name, paths in result["findings"].items():
        reason = result["reasons"].get(paths[0])
        partner = next((group[1] for group in result["groups"].get(name, []) if group[0] == paths[0]), None)
        about = f" ({reason})" if reason else f" and {partner}" if partner else ""
        table.add_row(name, f"{len(paths):,}", f"{escape(paths[0] + about)}", FINDINGS[name])
    if lost := len(result["reasons"]):
        info(
            f"{lost / result['files']:.1%} of the files cannot be learnt from: a run stops at 5 % of what it draws, or at --max-skipped"
        )
    if result["findings"]:
        console.print(table)
    else:
        info("nothing is wrong with them")
