"""Inspect a folder of images for files that cause problems in training."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import combinations
from pathlib import PurePosixPath
from typing import ClassVar

import numpy as np
import torch
from PIL import Image as Pillow

from openjepa.core.cpus import available_cores
from openjepa.core.errors import UserError
from openjepa.core.processes import map_in_processes
from openjepa.data.archives import parse_address
from openjepa.data.crops import center_crops
from openjepa.data.file_facts import Facts, PictureFacts
from openjepa.data.image_formats import FORMAT_SUFFIXES, IMAGE_SUFFIXES, SNIFF_BYTES, sniff_format
from openjepa.data.image_io import encoded_image, read_bytes
from openjepa.data.image_opening import Undecodable, count_frames
from openjepa.data.image_pixels import Pixels, StoredPixels, draw_pixels
from openjepa.data.image_values import EncodedImage, crop_file, form_of, open_pixels
from openjepa.data.orientation import ORIENTATION

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
    "odd colors": "converts it to RGB",
    "more than 8 bits": "scales its values by the range that it measures on the data set, or that you give",
    "fourth band": "reads the first three as RGB and ignores it; --data.channels 4 reads it",
    "transparent": "puts it on a white background",
    "turned": "rotates it upright by its EXIF data",
    "animated": "reads the first frame",
}

TINY_SIDE = 32  # pixels of the shorter side

GIANT_PIXELS = 50_000_000  # width × height

NARROW_ASPECT = 3.0  # longer / shorter side

DECODED_SIDE = 64  # pixels; side of the squares into which images are decoded for the checks

MAX_HASH_DISTANCE = 3  # bits of 64 in which near duplicates may differ

MIN_FOR_PROCESSES = 500  # below this number of files, starting processes takes longer than it saves

MAX_GROUP = 200  # larger groups of one hash band are not compared: their number of pairs grows quadratically


@dataclass(frozen=True)
class FileFacts(PictureFacts):
    """Size, hashes and findings of one file."""

    meanings: ClassVar = FINDINGS

    path: str
    width: int = 0  # pixels after the EXIF rotation; 0 if undecodable
    height: int = 0
    findings: tuple[str, ...] = ()  # keys of FINDINGS
    reason: str = ""  # why it cannot be read or decoded
    sha256: str = ""
    dhash: int = 0  # 64-bit difference hash: where brightness increases from left to right

    @classmethod
    def summarize(cls, facts: Sequence[FileFacts]) -> list[tuple[str, ...]]:
        """Return the rows of a table of sizes."""
        sides = sorted(min(each.width, each.height) for each in facts if each.width)
        if not sides:
            return []
        median = sides[len(sides) // 2]
        return [("", "smallest", "median", "largest"), ("shorter side", str(sides[0]), str(median), str(sides[-1]))]


def examine_files(paths: list[str], workers: int, channels: int = 3) -> Iterator[FileFacts]:
    """Yield the facts of every file in order; use several processes if there are many files.

    Raises:
        UserError: a process was killed.
    """
    count, examine = available_cores() if workers < 0 else workers, partial(examine_file, channels=channels)
    if count < 2 or len(paths) < MIN_FOR_PROCESSES:
        yield from map(examine, paths)
        return
    yield from map_in_processes(examine, paths, count, chunksize=64)


def examine_file(path: str, channels: int = 3) -> FileFacts:
    """Read and decode one file completely, with the functions that training uses, into a small square."""
    try:
        content = read_bytes(path)
    except (OSError, UserError) as error:  # UserError: a damaged Parquet file
        return FileFacts(path, findings=("unreadable",), reason=str(error))
    except Undecodable as error:
        return FileFacts(path, findings=("undecodable",), reason=str(error))
    digest = hashlib.sha256(content).hexdigest()
    try:
        file = encoded_image(content, channels)
        findings = list(find_unusual_properties(file, content, path))
        square = decode_square(file, channels)
    except Undecodable as error:
        finding = "truncated" if "truncated" in str(error) else "undecodable"
        return FileFacts(path, findings=(finding,), reason=str(error), sha256=digest)
    gray = np.asarray(square.convert("L").resize((9, 8), Pillow.Resampling.BOX)).astype(int)
    if gray.max() == gray.min():
        findings.append("blank")
    dhash = int(np.packbits(gray[:, 1:] > gray[:, :-1]).view(np.uint64)[0])
    return FileFacts(path, file.width, file.height, tuple(findings), "", digest, dhash)


def decode_square(file: EncodedImage, channels: int) -> Pillow.Image:
    """Decode an image into a small square, without keeping its aspect ratio; of many channels show the first three.

    Raises:
        Undecodable: the pixels cannot be decoded.
    """
    content = open_pixels(file.content, ())
    if isinstance(content, Pixels) and not content.is_bytes:
        return draw_pixels(content).resize((DECODED_SIDE, DECODED_SIDE), Pillow.Resampling.BILINEAR)
    height, width = (torch.tensor([float(side)]) for side in file[:2])
    size = (DECODED_SIDE, DECODED_SIDE)
    planes = crop_file(file, channels, center_crops(size, height, width, "squash"), 0, size)
    return Pillow.fromarray(np.ascontiguousarray(planes[:3].transpose(1, 2, 0) if len(planes) > 2 else planes[0]))


def find_unusual_properties(file: EncodedImage, content: bytes, path: str) -> Iterator[str]:
    """Yield the findings that the header alone shows."""
    if min(file.width, file.height) < TINY_SIDE:
        yield "tiny"
    if file.width * file.height > GIANT_PIXELS:
        yield "giant"
    if max(file.width, file.height) > NARROW_ASPECT * min(file.width, file.height):
        yield "narrow"
    address = parse_address(path)
    suffix = PurePosixPath(address.name if address else path).suffix.lower()
    if suffix in IMAGE_SUFFIXES and suffix not in FORMAT_SUFFIXES[sniff_format(content[:SNIFF_BYTES])]:
        yield "wrong ending"
    image, form = file.content, form_of(file)
    if form.is_deep:
        yield "more than 8 bits"
    if form.bands == 4 and not isinstance(image, np.ndarray):
        yield "fourth band"
    if form.alpha >= 0:
        yield "transparent"
    if isinstance(image, np.ndarray):
        return
    is_stored = isinstance(image, StoredPixels)
    if not is_stored and image.mode not in ("RGB", "RGBA", "L", "LA", "P", "PA", "1") and not form.is_deep:
        yield "odd colors"
    if (image.form.orientation if is_stored else image.getexif().get(ORIENTATION, 1)) != 1:
        yield "turned"
    if count_frames(content) > 1:
        yield "animated"


def find_exact_duplicates(files: Sequence[Facts]) -> dict[str, list[list[str]]]:
    """Group the files with equal contents."""
    groups = defaultdict(list)
    for file in files:
        if file.is_usable:
            groups[file.sha256].append(file.path)
    return {"duplicate": [group for group in groups.values() if len(group) > 1]}


def find_near_duplicates(files: Sequence[Facts]) -> dict[str, list[list[str]]]:
    """Find pairs of different files whose difference hashes differ in at most MAX_HASH_DISTANCE (d) bits.

    The 64 bits are split into d + 1 bands. Two such hashes agree in at least one band, so only files with an equal band
    are compared.
    """
    candidates = [file for file in files if file.is_usable and "blank" not in file.findings and file.dhash]
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


def are_near_duplicates(one: Facts, other: Facts) -> bool:
    """Return whether two different files have difference hashes within MAX_HASH_DISTANCE bits."""
    return one.sha256 != other.sha256 and (one.dhash ^ other.dhash).bit_count() <= MAX_HASH_DISTANCE
