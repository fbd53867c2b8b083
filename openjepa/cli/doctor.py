"""Command `jepa doctor`: check a folder of images before training on it."""

from __future__ import annotations

import json
from typing import Any

from rich.markup import escape
from rich.progress import track
from rich.table import Table

from openjepa.cli.settings import Doctor
from openjepa.core.console import console, info
from openjepa.core.errors import UserError
from openjepa.core.fileio import atomic_write
from openjepa.data.archives import parse_address
from openjepa.data.doctor import (
    FINDINGS,
    FileFacts,
    count_ignored_suffixes,
    examine_files,
    find_exact_duplicates,
    find_near_duplicates,
)
from openjepa.data.image_io import IMAGE_SUFFIXES
from openjepa.data.listing import list_files
from openjepa.recipes.auto import inspect_images
from openjepa.viz.doctor import draw_histograms


def doctor(settings: Doctor) -> dict[str, Any]:
    """Check the images, print a table, write doctor.json and doctor.png, and return the result.

    Raises UserError if there are no images or none can be read.
    """
    if settings.workers < -1:
        raise UserError(f"--workers must be >= -1 (-1 = one process per core), got {settings.workers}")
    if settings.channels < 0:
        raise UserError(f"--channels must be >= 0 (0 = as a run chooses), got {settings.channels}")
    listing = list_files(settings.root, IMAGE_SUFFIXES)
    checks = examine_files(listing.paths, settings.workers, settings.channels or default_channels(listing.paths))
    facts = list(track(checks, "checking", len(listing.paths), console=console))
    result = collect_findings(settings, facts)
    with atomic_write(settings.out / "doctor.json") as temporary:
        temporary.write_text(json.dumps(result, indent=1))
    print_findings(result, facts)
    info(f"written    {settings.out / 'doctor.json'}, {draw_histograms(facts, settings.out / 'doctor.png')}")
    if not result["fit"]:
        raise UserError(f"none of the {len(facts)} files is a readable image: see {settings.out / 'doctor.json'}")
    return result


def default_channels(paths: list[str]) -> int:
    """Return the channels that a run chooses for these files: 1 for gray images, those of .npy files, else 3."""
    try:
        return inspect_images(paths)[1]
    except UserError:  # of the files that a run inspects, none is an image
        return 3


def collect_findings(settings: Doctor, facts: list[FileFacts]) -> dict[str, Any]:
    """Return the findings with the files that have them, the groups of duplicates, and the ignored suffixes."""
    groups = find_exact_duplicates(facts) | (find_near_duplicates(facts) if settings.near_duplicates else {})
    findings: dict[str, list[str]] = {name: [each.path for each in facts if name in each.findings] for name in FINDINGS}
    findings |= {name: sorted({path for group in own for path in group}) for name, own in groups.items()}
    others = count_ignored_suffixes(settings.root, include_archives=bool(parse_address(facts[0].path)))
    return {
        "files": len(facts),
        "fit": sum(bool(each.width) for each in facts),
        "other_endings": dict(others.most_common()),
        "findings": {name: paths for name, paths in findings.items() if paths},
        "groups": groups,
        "reasons": {each.path: each.reason for each in facts if each.reason},
    }


def print_findings(result: dict[str, Any], facts: list[FileFacts]) -> None:
    """Print a summary, and a table of the findings with an example of each."""
    info(f"{result['fit']:,} of {result['files']:,} files are usable images")
    if result["other_endings"]:
        kinds = ", ".join(f"{count} × {suffix}" for suffix, count in list(result["other_endings"].items())[:8])
        info(f"ignored, by suffix: {kinds}")
    sides = sorted(min(each.width, each.height) for each in facts if each.width)
    if sides:
        info(f"shorter side: {sides[0]} to {sides[-1]} pixels, median {sides[len(sides) // 2]}")
    if unusable := len(result["reasons"]):
        info(
            f"{unusable / result['files']:.1%} of the files are unusable: a run skips them, and stops when more than "
            "5 % of the files it draws are unusable, or more than --max-skipped"
        )
    if not result["findings"]:
        info("no problems found")
        return
    table = Table("problem", "files", "example", "what a run does")
    for name, paths in result["findings"].items():
        reason = result["reasons"].get(paths[0])
        partner = next((group[1] for group in result["groups"].get(name, []) if group[0] == paths[0]), None)
        about = f" ({reason})" if reason else f" and {partner}" if partner else ""
        table.add_row(name, f"{len(paths):,}", f"{escape(paths[0] + about)}", FINDINGS[name])
    console.print(table)
