"""Inspect a folder of images for files that cause problems in training."""

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
)
from openjepa.data.image_values import upright_image

FINDINGS = {  # finding -> what a training run does with such a file
    "unreadable": "stops: repair the disk or the permissions, or remove the file",
    "truncated": "skips the file, trains on another one instead and lists it in skipped.jsonl",
    "undecodable": "skips the file, trains on another one instead and lists it in skipped.jsonl",
    "duplicate": "trains on every copy; check for leakage between training and test set",
    "near duplicate": "trains on every copy; check for leakage between training and test set",
    "blank": "trains on it, although a single color teaches nothing",
    "tiny": "enlarges it",
    "giant": "decodes it slowly: downscale the file once",
    "narrow": "crops it where crops fit, otherwise takes the center",
    "wrong ending": "reads it by its content",
    "odd colors": "converts it to RGB; of 16 bits the upper 8 are kept",
    "transparent": "puts it on a white background",
    "turned": "rotates it upright by its EXIF data",
    "animated": "reads the first frame",
}

TINY_SIDE = 32  # pixels of the shorter side

GIANT_PIXELS = 50_000_000  # width × height

NARROW_ASPECT = 3.0  # longer / shorter side

DECODED_SIDE = 64  # pixels; minimum shorter side at which images are decoded for the checks

MAX_HASH_DISTANCE = 3  # bits of 64 in which near duplicates may differ

OWN_FILES = ("lock", SHARDS_FILE)  # files that jepa itself writes into image folders

MIN_FOR_PROCESSES = 500  # below this number of files, starting processes takes longer than it saves

MAX_GROUP = 200  # larger groups of one hash band are not compared: their number of pairs grows quadratically

FORMAT_SUFFIXES = {"JPEG": {".jpg", ".jpeg"}, "TIFF": {".tif", ".tiff"}}  # other formats have their name as suffix


@dataclass(frozen=True)
class FileFacts:
    """Size, hashes and findings of one file."""

    path: str
    width: int = 0  # pixels after the EXIF rotation; 0 if undecodable
    height: int = 0
    findings: tuple[str, ...] = ()  # keys of FINDINGS
    reason: str = ""  # why it cannot be read or decoded
    sha256: str = ""
    dhash: int = 0  # 64-bit difference hash: where brightness increases from left to right


def examine_files(paths: list[str], workers: int) -> Iterator[FileFacts]:
    """Yield the facts of every file in order; use several processes if there are many files."""
    count = available_cores() if workers < 0 else workers
    if count < 2 or len(paths) < MIN_FOR_PROCESSES:
        yield from map(examine_file, paths)
        return
    with ProcessPoolExecutor(count, multiprocessing.get_context("forkserver")) as pool:
        yield from pool.map(examine_file, paths, chunksize=64)


def examine_file(path: str) -> FileFacts:
    """Read and decode one file completely, as training does, but at a small size."""
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
        with open_image(path) as image:
            findings = list(find_unusual_properties(image, path))
            stored_width, stored_height = image.size
            small = upright_image(image, 3, max(1.0, min(image.size) / DECODED_SIDE))
    except (Undecodable, ValueError) as error:
        finding = "truncated" if "truncated" in str(error) or "not processed" in str(error) else "undecodable"
        return FileFacts(path, findings=(finding,), reason=str(error), sha256=digest)
    gray = np.asarray(small.convert("L").resize((9, 8), Pillow.Resampling.BOX)).astype(int)
    if gray.max() == gray.min():
        findings.append("blank")
    dhash = int(np.packbits(gray[:, 1:] > gray[:, :-1]).view(np.uint64)[0])
    width, height = stored_width, stored_height
    if (small.size[0] < small.size[1]) != (stored_width < stored_height):
        width, height = stored_height, stored_width
    return FileFacts(path, width, height, tuple(findings), "", digest, dhash)


def find_unusual_properties(image: Pillow.Image, path: str) -> Iterator[str]:
    """Yield the findings that the header alone shows."""
    (width, height), file_format = image.size, image.format or ""
    if min(width, height) < TINY_SIDE:
        yield "tiny"
    if width * height > GIANT_PIXELS:
        yield "giant"
    if max(width, height) > NARROW_ASPECT * min(width, height):
        yield "narrow"
    suffix = PurePosixPath(path).suffix.lower()
    if suffix and suffix not in FORMAT_SUFFIXES.get(file_format, {f".{file_format.lower()}"}):
        yield "wrong ending"
    if image.mode not in ("RGB", "RGBA", "L", "LA", "P", "PA", "1"):
        yield "odd colors"
    if "A" in image.mode or "transparency" in image.info:
        yield "transparent"
    if may_have_exif(image) and image.getexif().get(ORIENTATION, 1) != 1:
        yield "turned"
    if getattr(image, "n_frames", 1) > 1:
        yield "animated"


def find_exact_duplicates(files: list[FileFacts]) -> dict[str, list[list[str]]]:
    """Group the files with equal contents."""
    groups = defaultdict(list)
    for file in files:
        if file.width:
            groups[file.sha256].append(file.path)
    return {"duplicate": [group for group in groups.values() if len(group) > 1]}


def find_near_duplicates(files: list[FileFacts]) -> dict[str, list[list[str]]]:
    """Find pairs of different files whose difference hashes differ in at most MAX_HASH_DISTANCE (d) bits.

    The 64 bits are split into d + 1 bands. Two such hashes agree in at least one band, so only files with an equal band
    are compared.
    """
    candidates = [file for file in files if file.width and "blank" not in file.findings and file.dhash]
    pairs, bits = set(), 64 // (MAX_HASH_DISTANCE + 1)
    for band in range(MAX_HASH_DISTANCE + 1):
        groups = defaultdict(list)
        for index, file in enumerate(candidates):
            groups[file.dhash >> (band * bits) & (2**bits - 1)].append(index)
        for group in groups.values():
            if len(group) <= MAX_GROUP:
                pairs |= {
                    (one, other)
                    for one, other in combinations(group, 2)
                    if are_near_duplicates(candidates[one], candidates[other])
                }
    return {"near duplicate": [[candidates[one].path, candidates[other].path] for one, other in sorted(pairs)]}


def are_near_duplicates(one: FileFacts, other: FileFacts) -> bool:
    """Return whether two different files have difference hashes within MAX_HASH_DISTANCE bits."""
    return one.sha256 != other.sha256 and (one.dhash ^ other.dhash).bit_count() <= MAX_HASH_DISTANCE


def count_ignored_suffixes(roots: Iterable[str], include_archives: bool) -> Counter[str]:
    """Count the files that are not read, by suffix.

    With `include_archives`, tar and Parquet files count as read.
    """
    counts: Counter[str] = Counter()
    read_suffixes = IMAGE_SUFFIXES | (ARCHIVE_SUFFIXES if include_archives else frozenset())
    for root in roots:
        for _, _, names in os.walk(root):
            foreign = [name for name in names if not name.startswith(".") and name not in OWN_FILES]
            suffixes = [Path(name).suffix.lower() for name in foreign]
            counts.update(suffix or "none" for suffix in suffixes if suffix not in read_suffixes)
    return counts
