"""Command `jepa doctor`: check a folder of images, videos or recordings before training on it."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from typing import Any

from rich.progress import track

from openjepa.cli.settings import Doctor
from openjepa.core import registry
from openjepa.core.capabilities import Inspects, modality_name, plural_of, require
from openjepa.core.console import console, draw_safely, info
from openjepa.core.errors import UserError
from openjepa.core.fileio import write_text
from openjepa.core.tables import print_table
from openjepa.data.doctor import find_exact_duplicates, find_near_duplicates
from openjepa.data.file_facts import Facts
from openjepa.data.never_data import NO_SUFFIX, LeftOut
from openjepa.recipes.auto import inspect_images
from openjepa.recipes.detect import detect_modality
from openjepa.viz.doctor import draw_histograms


def doctor(settings: Doctor) -> dict[str, Any]:
    """Check the files, print a table, write doctor.json and doctor.png, and return the result.

    Raises UserError if there are no files or none can be read.
    """
    if settings.workers < -1:
        raise UserError(f"--workers must be >= -1 (-1 = one process per core), got {settings.workers}")
    if settings.channels < 0:
        raise UserError(f"--channels must be >= 0 (0 = as a run chooses), got {settings.channels}")
    name = settings.modality or detect_modality(settings.root, skip_damaged=True)
    modality = registry.find("modality", name)(root=settings.root)
    require(modality, Inspects, "jepa doctor")
    listing = modality.listing()
    channels = settings.channels or default_channels(modality, listing.paths)
    checks = dataclasses.replace(modality, channels=channels).inspect(listing.paths, settings.workers)
    facts = list(track(checks, "checking", len(listing.paths), console=console, disable=not console.is_terminal))
    result = collect_findings(settings, facts, listing.left_out)
    write_text(settings.out / "doctor.json", json.dumps(result, indent=1))
    print_findings(result, facts, plural_of(modality))
    file = settings.out / "doctor.png"
    png = draw_safely(f"the histograms {file}", lambda: draw_histograms(facts, file))
    info(f"written    {settings.out / 'doctor.json'}{f', {png}' if png else ''}")
    if not result["fit"]:
        raise UserError(
            f"none of the {len(facts)} files is a readable {modality_name(modality)}: see "
            f"{settings.out / 'doctor.json'}"
        )
    return result


def default_channels(modality: Any, paths: list[str]) -> int:
    """Return the channels that a run chooses for these files: 1 for gray images, those of .npy files, else 3."""
    if modality_name(modality) != "image":
        return modality.channels
    try:
        return inspect_images(paths)[1]
    except UserError:  # of the files that a run inspects, none is an image
        return 3


def collect_findings(settings: Doctor, facts: Sequence[Facts], left_out: tuple[LeftOut, ...]) -> dict[str, Any]:
    """Return the findings with the files that have them, the groups of duplicates, and what is left out."""
    meanings = type(facts[0]).meanings
    groups = find_exact_duplicates(facts) | (find_near_duplicates(facts) if settings.near_duplicates else {})
    findings: dict[str, list[str]] = {name: [each.path for each in facts if name in each.findings] for name in meanings}
    findings |= type(facts[0]).compare(facts)
    findings |= {name: sorted({path for group in own for path in group}) for name, own in groups.items()}
    return {
        "files": len(facts),
        "fit": sum(each.is_usable for each in facts),
        "other_endings": {
            each.reason if each.reason != NO_SUFFIX else "none": each.count
            for each in left_out
            if each.reason.startswith(".")
        },
        "left_out": [each._asdict() for each in left_out],
        "findings": {name: paths for name, paths in findings.items() if paths},
        "groups": groups,
        "reasons": {each.path: each.reason for each in facts if each.reason},
    }


def print_findings(result: dict[str, Any], facts: Sequence[Facts], samples: str) -> None:
    """Print a summary, and a table of the findings with an example of each."""
    info(f"{result['fit']:,} of {result['files']:,} files are usable {samples}")
    if table := type(facts[0]).summarize(facts):
        print_table(table[0], table[1:])
    if unusable := result["files"] - result["fit"]:
        info(
            f"{unusable / result['files']:.1%} of the files are unusable: a run skips them, and stops when more than "
            "5 % of the files it draws are unusable, or more than --max-skipped"
        )
    if not result["findings"]:
        info("no problems found")
        return
    rows = []
    for name, paths in result["findings"].items():
        reason = result["reasons"].get(paths[0])
        partner = next((group[1] for group in result["groups"].get(name, []) if group[0] == paths[0]), None)
        about = f" ({reason})" if reason else f" and {partner}" if partner else ""
        rows.append((name, f"{len(paths):,}", paths[0] + about, type(facts[0]).meanings[name]))
    print_table(("problem", "files", "example", "what a run does"), rows)
