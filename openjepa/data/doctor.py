"""Inspect a folder of pictures for files that would be trouble in training."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image as Pillow

from openjepa.core.cpus import available_cores
from openjepa.data.archives import ARCHIVE_SUFFIXES, SHARDS_FILE
from openjepa.data.image_io import (
    IMAGE_SUFFIXES,
    ORIENTATION,
    Undecodable,
    load_npy,
    may_have_exif,
    open_image,
    read_bytes,
    upright_image,
)

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

DECODED_SIDE = 64  # pixels of the shorter side at which a picture is looked at, at least

MAX_HASH_DISTANCE = 3  # bits of 64 in which near duplicates may differ

OWN_FILES = ("lock", SHARDS_FILE)  # files beside pictures that are our own

MIN_FOR_PROCESSES = 500  # files for which more processes than this one do not pay

MAX_GROUP = 200  # pictures of one band among which near duplicates are looked for: more are left as they are

FORMAT_SUFFIXES = {"JPEG": {".jpg", ".jpeg"}, "TIFF": {".tif", ".tiff"}}  # others are their own


@dataclass(frozen=True)
class FileFacts:
    """What one file is."""

    path: str
    width: int = 0  # as a person sees it; 0 where nobody can
    height: int = 0
    findings: tuple[str, ...] = ()
    reason: str = ""  # why it cannot be read or decoded
    sha256: str = ""
    look: int = 0  # 64 bits: where the picture gets brighter from left to right


def examine_files(paths: list[str], workers: int) -> Iterator[FileFacts]:
    """Every file, in order, in several processes where that pays."""
    count = available_cores() if workers < 0 else workers
    if count < 2 or len(paths) < MIN_FOR_PROCESSES:
        yield from map(examine_file, paths)
        return
    with ProcessPoolExecutor(count, multiprocessing.get_context("forkserver")) as pool:
        yield from pool.map(examine_file, paths, chunksize=64)


def examine_file(path: str) -> FileFacts:
    """One file, read and decoded as a run would, to the end, at a small size."""
    try:
        content = read_bytes(path)
    except OSError as error:
        return FileFacts(path, findings=("unreadable",), reason=str(error))
    except Undecodable as error:
        return FileFacts(path, findings=("undecodable",), reason=str(error))
    digest = hashlib.sha256(content).hexdigest()
    try:
        if path.endswith(".npy"):
            height, width, channels = load_npy(path).shape
            return FileFacts(path, width, height, (), "", digest) if channels else FileFacts(path)
        with open_image(path) as picture:
            findings = list(unusual_properties(picture, path))
            across, down = picture.size
            small = upright_image(picture, 3, max(1.0, min(picture.size) / DECODED_SIDE))
    except (Undecodable, ValueError) as error:
        cut = "truncated" in str(error) or "not processed" in str(error)
        return FileFacts(path, findings=("truncated" if cut else "undecodable",), reason=str(error), sha256=digest)
    grey = np.asarray(small.convert("L").resize((9, 8), Pillow.Resampling.BOX)).astype(int)
    if grey.max() == grey.min():
        findings.append("blank")
    look = int(np.packbits(grey[:, 1:] > grey[:, :-1]).view(np.uint64)[0])
    width, height = (down, across) if (small.size[0] < small.size[1]) != (across < down) else (across, down)
    return FileFacts(path, width, height, tuple(findings), "", digest, look)


def unusual_properties(picture: Pillow.Image, path: str) -> Iterator[str]:
    """What is unusual, as far as the header says."""
    (width, height), kind = picture.size, picture.format or ""
    if min(width, height) < TINY:
        yield "tiny"
    if width * height > GIANT:
        yield "giant"
    if max(width, height) > NARROW * min(width, height):
        yield "narrow"
    ending = PurePosixPath(path).suffix.lower()
    if ending and ending not in FORMAT_SUFFIXES.get(kind, {f".{kind.lower()}"}):
        yield "wrong ending"
    if picture.mode not in ("RGB", "RGBA", "L", "LA", "P", "PA", "1"):
        yield "odd colours"
    if "A" in picture.mode or "transparency" in picture.info:
        yield "transparent"
    if may_have_exif(picture) and picture.getexif().get(ORIENTATION, 1) != 1:
        yield "turned"
    if getattr(picture, "n_frames", 1) > 1:
        yield "animated"


def exact_duplicates(seen: list[FileFacts]) -> dict[str, list[list[str]]]:
    """Files that are equal, in groups."""
    same = defaultdict(list)
    for each in seen:
        if each.width:
            same[each.sha256].append(each.path)
    return {"duplicate": [group for group in same.values() if len(group) > 1]}


def near_duplicates(seen: list[FileFacts]) -> dict[str, list[list[str]]]:
    """Pairs of pictures, unequal as files, that look alike at 9×8 pixels.

    Two looks that differ in at most NEAR bits agree in one of NEAR + 1 bands of them, so only those are compared that do.
    """
    there = [each for each in seen if each.width and "blank" not in each.findings and each.look]
    pairs, size = set(), 64 // (MAX_HASH_DISTANCE + 1)
    for band in range(MAX_HASH_DISTANCE + 1):
        crowd = defaultdict(list)
        for place, each in enumerate(there):
            crowd[each.look >> (band * size) & (2**size - 1)].append(place)
        for places in crowd.values():
            if len(places) <= MAX_GROUP:
                pairs |= {
                    pair for pair in combinations(places, 2) if are_near_duplicates(there[pair[0]], there[pair[1]])
                }
    return {"near duplicate": [[there[one].path, there[other].path] for one, other in sorted(pairs)]}


def are_near_duplicates(one: FileFacts, other: FileFacts) -> bool:
    return one.sha256 != other.sha256 and (one.look ^ other.look).bit_count() <= MAX_HASH_DISTANCE


def count_ignored_suffixes(roots: Iterable[str], inside: bool) -> Counter[str]:
    """How many files are not looked at at all, by their endings; tar and Parquet files are, if pictures were found inside them."""
    found: Counter[str] = Counter()
    seen = IMAGE_SUFFIXES | (ARCHIVE_SUFFIXES if inside else frozenset())
    for root in roots:
        for _, _, files in os.walk(root):
            endings = (
                Path(name).suffix.lower() for name in files if not name.startswith(".") and name not in OWN_FILES
            )
            found.update(ending or "none" for ending in endings if ending not in seen)
    return found
