"""`jepa doctor`: what is wrong with a folder of pictures, before hours are spent on it, and what a run would do about it."""

from __future__ import annotations

import hashlib
import json
import math
import multiprocessing
import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path, PurePosixPath
from typing import Annotated, Any

import matplotlib
import numpy as np
import tyro
from matplotlib.figure import Figure
from PIL import Image as Pillow
from rich.markup import escape
from rich.progress import track
from rich.table import Table

from openjepa.archives import NOTE, SUFFIXES, inside
from openjepa.core.console import console, info
from openjepa.core.cpus import available_cores
from openjepa.core.errors import UserError
from openjepa.core.fileio import atomic_write
from openjepa.data import list_files
from openjepa.pictures import ORIENTATION, Undecodable, opened, plain_array, read_bytes, tagged, upright

FINDINGS = {  # what may be found, and what a run does then
    "unreadable": "the run stops: mend its disk or its permissions, or remove it",
    "truncated": "passed over, another takes its place; listed in skipped.jsonl",
    "undecodable": "passed over, another takes its place; listed in skipped.jsonl",
    "duplicate": "learnt from as often as it is there; beware of the same pictures in a test set",
    "near duplicate": "learnt from as often as it is there; beware of the same pictures in a test set",
    "blank": "read, though there is nothing to learn from one colour",
    "tiny": "enlarged",
    "giant": "read, slowly: make it smaller once",
    "narrow": "crops are cut from it where they fit, else its middle",
    "wrong ending": "read as what it is",
    "odd colours": "made RGB; of 16 bits the upper 8 are kept",
    "transparent": "laid on white",
    "turned": "set upright, as its EXIF data say",
    "animated": "its first picture is read",
}

TINY, GIANT, NARROW = 32, 50_000_000, 3.0  # pixels of the shorter side; pixels in all; longer by shorter side

SIDE = 64  # pixels of the shorter side at which a picture is looked at, at least

NEAR = 3  # bits of 64 in which near duplicates may differ

OURS = ("lock", NOTE)  # files beside pictures that are our own

FEW = 500  # files for which more processes than this one do not pay

CROWD = 200  # pictures of one band among which near duplicates are looked for: more are left as they are

ENDINGS = {"JPEG": {".jpg", ".jpeg"}, "TIFF": {".tif", ".tiff"}}  # others are their own


@dataclass(frozen=True)
class Doctor:
    """Looks at every picture of a folder, once."""

    root: Annotated[tuple[str, ...], tyro.conf.Positional]  # folders, or text files of paths
    out: Path = Path("runs/doctor")  # a folder for doctor.json, which names every file, and doctor.png
    workers: int = -1  # processes; -1: one for each core
    near: bool = True  # look for near duplicates, too


@dataclass(frozen=True)
class Seen:
    """What one file is."""

    path: str
    width: int = 0  # as a person sees it; 0 where nobody can
    height: int = 0
    findings: tuple[str, ...] = ()
    reason: str = ""  # why it cannot be read or decoded
    sha256: str = ""
    look: int = 0  # 64 bits: where the picture gets brighter from left to right


def doctor(settings: Doctor) -> dict[str, Any]:
    """What was found: printed, written as JSON with the files' names, drawn; returned. Mistake if there are no pictures, or none that can be read."""
    if settings.workers < -1:
        raise UserError(f"{settings.workers} processes are none: try --workers -1, which is one for each core")
    listing = list_files(settings.root, SUFFIXES)
    seen = list(track(examined(listing.paths, settings.workers), "looking", len(listing.paths), console=console))
    groups = duplicates(seen) | (near_duplicates(seen) if settings.near else {})
    found: dict[str, list[str]] = {name: [each.path for each in seen if name in each.findings] for name in FINDINGS}
    found |= {name: sorted({path for group in own for path in group}) for name, own in groups.items()}
    others = other_endings(settings.root, inside=bool(inside(listing.paths[0])))
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
    tell(result, seen)
    info(f"written    {settings.out / 'doctor.json'}, {drawn(seen, settings.out / 'doctor.png')}")
    if not result["fit"]:
        raise UserError(f"there is nothing to learn from: of {len(seen)} files none is a picture that can be read")
    return result


def examined(paths: list[str], workers: int) -> Iterator[Seen]:
    """Every file, in order, in several processes where that pays."""
    count = available_cores() if workers < 0 else workers
    if count < 2 or len(paths) < FEW:
        yield from map(examine, paths)
        return
    with ProcessPoolExecutor(count, multiprocessing.get_context("forkserver")) as pool:
        yield from pool.map(examine, paths, chunksize=64)


def examine(path: str) -> Seen:
    """One file, read and decoded as a run would, to the end, at a small size."""
    try:
        content = read_bytes(path)
    except OSError as error:
        return Seen(path, findings=("unreadable",), reason=str(error))
    except Undecodable as error:
        return Seen(path, findings=("undecodable",), reason=str(error))
    digest = hashlib.sha256(content).hexdigest()
    try:
        if path.endswith(".npy"):
            height, width, channels = plain_array(path).shape
            return Seen(path, width, height, (), "", digest) if channels else Seen(path)
        with opened(path) as picture:
            findings = list(odd(picture, path))
            across, down = picture.size
            small = upright(picture, 3, max(1.0, min(picture.size) / SIDE))
    except (Undecodable, ValueError) as error:
        cut = "truncated" in str(error) or "not processed" in str(error)
        return Seen(path, findings=("truncated" if cut else "undecodable",), reason=str(error), sha256=digest)
    grey = np.asarray(small.convert("L").resize((9, 8), Pillow.Resampling.BOX)).astype(int)
    if grey.max() == grey.min():
        findings.append("blank")
    look = int(np.packbits(grey[:, 1:] > grey[:, :-1]).view(np.uint64)[0])
    width, height = (down, across) if (small.size[0] < small.size[1]) != (across < down) else (across, down)
    return Seen(path, width, height, tuple(findings), "", digest, look)


def odd(picture: Pillow.Image, path: str) -> Iterator[str]:
    """What is unusual, as far as the header says."""
    (width, height), kind = picture.size, picture.format or ""
    if min(width, height) < TINY:
        yield "tiny"
    if width * height > GIANT:
        yield "giant"
    if max(width, height) > NARROW * min(width, height):
        yield "narrow"
    ending = PurePosixPath(path).suffix.lower()
    if ending and ending not in ENDINGS.get(kind, {f".{kind.lower()}"}):
        yield "wrong ending"
    if picture.mode not in ("RGB", "RGBA", "L", "LA", "P", "PA", "1"):
        yield "odd colours"
    if "A" in picture.mode or "transparency" in picture.info:
        yield "transparent"
    if tagged(picture) and picture.getexif().get(ORIENTATION, 1) != 1:
        yield "turned"
    if getattr(picture, "n_frames", 1) > 1:
        yield "animated"


def duplicates(seen: list[Seen]) -> dict[str, list[list[str]]]:
    """Files that are equal, in groups."""
    same = defaultdict(list)
    for each in seen:
        if each.width:
            same[each.sha256].append(each.path)
    return {"duplicate": [group for group in same.values() if len(group) > 1]}


def near_duplicates(seen: list[Seen]) -> dict[str, list[list[str]]]:
    """Pairs of pictures, unequal as files, that look alike at 9×8 pixels.

    Two looks that differ in at most NEAR bits agree in one of NEAR + 1 bands of them, so only those are compared that do.
    """
    there = [each for each in seen if each.width and "blank" not in each.findings and each.look]
    pairs, size = set(), 64 // (NEAR + 1)
    for band in range(NEAR + 1):
        crowd = defaultdict(list)
        for place, each in enumerate(there):
            crowd[each.look >> (band * size) & (2**size - 1)].append(place)
        for places in crowd.values():
            if len(places) <= CROWD:
                pairs |= {pair for pair in combinations(places, 2) if alike(there[pair[0]], there[pair[1]])}
    return {"near duplicate": [[there[one].path, there[other].path] for one, other in sorted(pairs)]}


def alike(one: Seen, other: Seen) -> bool:
    return one.sha256 != other.sha256 and (one.look ^ other.look).bit_count() <= NEAR


def other_endings(roots: Iterable[str], inside: bool) -> Counter[str]:
    """How many files are not looked at at all, by their endings; tar and Parquet files are, if pictures were found inside them."""
    found: Counter[str] = Counter()
    seen = SUFFIXES | (SUFFIXES if inside else frozenset())
    for root in roots:
        for _, _, files in os.walk(root):
            endings = (Path(name).suffix.lower() for name in files if not name.startswith(".") and name not in OURS)
            found.update(ending or "none" for ending in endings if ending not in seen)
    return found


def tell(result: dict[str, Any], seen: list[Seen]) -> None:
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


def drawn(seen: list[Seen], file: Path) -> Path:
    """Two histograms: shorter sides, and how much wider than high."""
    matplotlib.use("agg")
    there = [each for each in seen if each.width]
    figure = Figure(figsize=(8, 3), layout="constrained")
    sides, aspects = figure.subplots(1, 2)
    sides.hist([math.log2(min(each.width, each.height)) for each in there], np.arange(0, 14.5, 0.5), color="tab:blue")
    sides.set_xticks(ticks := range(0, 15, 2), [str(2**tick) for tick in ticks])
    sides.set_xlabel("pixels of the shorter side")
    aspects.hist(
        [max(-2.0, min(2.0, math.log2(each.width / each.height))) for each in there],
        np.linspace(-2, 2, 33),
        color="tab:orange",
    )
    aspects.set_xticks((-2, -1, 0, 1, 2), ("1:4", "1:2", "1:1", "2:1", "4:1"))
    aspects.set_xlabel("width : height")
    for axes in (sides, aspects):
        axes.set_ylabel("files")
        axes.yaxis.get_major_locator().set_params(integer=True)
        axes.spines[["top", "right"]].set_visible(False)
    with atomic_write(file) as temporary:
        figure.savefig(temporary, dpi=120, format="png")
    return file
