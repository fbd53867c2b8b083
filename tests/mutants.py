"""Files that are nearly right: what a disk, a network or somebody with bad intentions makes of a good one."""

from __future__ import annotations

import faulthandler
import io
import os
import random
import resource
import signal
import sys
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image as Pillow

from openjepa.data.synthetic.scenes import render

MEMORY = 2**31  # bytes that a process may have beyond what it has when it begins
SECONDS = 20  # that one file may take
EXTREMES = (
    b"\xff" * 4,
    b"\x00" * 4,
    b"\x7f\xff\xff\xff",
    b"\x80\x00\x00\x00",
    b"\x00\x00\x00\x01",
    b"\xff\xff\xff\x7f",
)


def mutant(good: bytes, dice: random.Random, other: bytes = b"") -> bytes:
    """One to four changes: bits, bytes, extreme numbers, pieces cut out, doubled, or taken from another file."""
    content = bytearray(good)
    for _ in range(dice.choice((1, 1, 1, 2, 4))):
        place = dice.randrange(len(content) + 1) if dice.random() < 0.5 else dice.randrange(min(len(content), 256) + 1)
        length = min(dice.choice((1, 4, 64, 4096)), len(content) - place)
        kind = dice.randrange(8)
        if kind == 0 and place < len(content):
            content[place] ^= 1 << dice.randrange(8)
        elif kind == 1 and place < len(content):
            content[place] = dice.randrange(256)
        elif kind == 2:
            content[place : place + 4] = dice.choice(EXTREMES)
        elif kind == 3:
            del content[place:]
        elif kind == 4:
            del content[place : place + length]
        elif kind == 5:
            content[place:place] = content[place : place + length] * dice.choice((1, 2, 50))
        elif kind == 6:
            content[place : place + length] = dice.randbytes(length)
        elif other:
            content[place:] = other[dice.randrange(len(other)) :]
    return bytes(content)


def pictures() -> dict[str, bytes]:
    """Small pictures of every format and mode, by a name with the right ending."""
    plain = Pillow.fromarray(render(1, (40, 56), seed=3).image[0].permute(1, 2, 0).numpy())
    exif = Pillow.Exif()
    exif[0x0112] = 6
    options = {
        "plain.jpg": {}, "progressive.jpg": {"progressive": True}, "turned.jpg": {"exif": exif}, "plain.png": {},
        "plain.webp": {"lossless": True}, "plain.bmp": {}, "plain.tif": {}, "packed.tif": {"compression": "tiff_lzw"}, "plain.gif": {},
    }  # fmt: skip
    modes = {
        "grey.jpg": "L",
        "cmyk.jpg": "CMYK",
        "palette.png": "P",
        "alpha.png": "RGBA",
        "sixteen.png": "I;16",
        "bits.png": "1",
    }
    formats = {"jpg": "JPEG", "tif": "TIFF"}
    made = {}
    for name, (picture, given) in {
        **{name: (plain, given) for name, given in options.items()},
        **{
            name: (plain.convert("I;16" if mode == "I;16" else mode), {})
            for name, mode in modes.items()
            if mode != "I;16"
        },
        "sixteen.png": (Pillow.fromarray(np.asarray(plain.convert("L")).astype(np.uint16) << 8), {}),
    }.items():
        stream = io.BytesIO()
        ending = name.split(".")[1]
        picture.save(stream, formats.get(ending, ending.upper()), **given)
        made[name] = stream.getvalue()
    stream = io.BytesIO()
    np.save(stream, np.asarray(plain))
    return {**made, "array.npy": stream.getvalue()}


def survived(cases: int, each: Callable[[int], str], notes: Path) -> Counter[str]:
    """What came of each case, tried in processes of little memory: its own word, or "crash", "slow", or an error's name."""
    found: Counter[str] = Counter()
    first = 0
    while first < cases:
        notes.write_text("")
        child = os.fork()
        if child == 0:
            faulthandler.disable()  # it would tell of a crash that is looked for
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
            limited()
            with notes.open("a", buffering=1) as stream:
                for number in range(first, cases):
                    signal.alarm(SECONDS)
                    stream.write(f"{tried(each, number)}\n")
            os._exit(0)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        words = notes.read_text().splitlines()
        found.update(words)
        first += len(words)
        if status:
            found["slow" if status == -signal.SIGALRM else f"crash {status}"] += 1
            print(f"case {first}: {status}", file=sys.stderr)
            first += 1
    return found


def tried(each: Callable[[int], str], number: int) -> str:
    try:
        return each(number)
    except Exception as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        return f"{type(error).__name__} in {Path(place.filename).name}:{place.lineno}, case {number}"


def limited() -> tuple[int, int]:
    """No more memory than MEMORY beyond what there is; the limits there were before."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + MEMORY, before[1]))
    return before
