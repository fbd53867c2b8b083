"""Make damaged and hostile variants of valid files, and run a reader on them in processes of limited memory."""

from __future__ import annotations

import argparse
import faulthandler
import io
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image as Pillow

from openjepa.data.synthetic.scenes import render

MEMORY = 2**31  # bytes that a process may allocate beyond what it has at its start
SECONDS = 20  # time limit per case
EXTREMES = (
    b"\xff" * 4,
    b"\x00" * 4,
    b"\x7f\xff\xff\xff",
    b"\x80\x00\x00\x00",
    b"\x00\x00\x00\x01",
    b"\xff\xff\xff\x7f",
)


def mutate(good: bytes, dice: random.Random, other: bytes = b"") -> bytes:
    """Make one to four changes: bits, bytes, extreme numbers, pieces removed, repeated, or copied from another file."""
    content = bytearray(good)
    for _ in range(dice.choice((1, 1, 1, 2, 4))):
        start = dice.randrange(len(content) + 1) if dice.random() < 0.5 else dice.randrange(min(len(content), 256) + 1)
        length = min(dice.choice((1, 4, 64, 4096)), len(content) - start)
        kind = dice.randrange(8)
        if kind == 0 and start < len(content):
            content[start] ^= 1 << dice.randrange(8)
        elif kind == 1 and start < len(content):
            content[start] = dice.randrange(256)
        elif kind == 2:
            content[start : start + 4] = dice.choice(EXTREMES)
        elif kind == 3:
            del content[start:]
        elif kind == 4:
            del content[start : start + length]
        elif kind == 5:
            content[start:start] = content[start : start + length] * dice.choice((1, 2, 50))
        elif kind == 6:
            content[start : start + length] = dice.randbytes(length)
        elif other:
            content[start:] = other[dice.randrange(len(other)) :]
    return bytes(content)


def sample_images() -> dict[str, bytes]:
    """Return small images of every format and mode, by a name with the right suffix."""
    plain = Pillow.fromarray(render(1, (40, 56), seed=3).image[0].permute(1, 2, 0).numpy())
    exif = Pillow.Exif()
    exif[0x0112] = 6
    options = {
        "plain.jpg": {}, "progressive.jpg": {"progressive": True}, "turned.jpg": {"exif": exif}, "plain.png": {},
        "plain.webp": {"lossless": True}, "plain.bmp": {}, "plain.tif": {}, "packed.tif": {"compression": "tiff_lzw"},
        "plain.gif": {}, "plain.ppm": {}, "plain.jp2": {}, "plain.avif": {},
    }  # fmt: skip
    modes = {
        "gray.jpg": "L",
        "cmyk.jpg": "CMYK",
        "palette.png": "P",
        "alpha.png": "RGBA",
        "sixteen.png": "I;16",
        "bits.png": "1",
    }
    formats = {"jpg": "JPEG", "tif": "TIFF", "jp2": "JPEG2000"}
    encoded = {}
    for name, (image, arguments) in {
        **{name: (plain, arguments) for name, arguments in options.items()},
        **{
            name: (plain.convert("I;16" if mode == "I;16" else mode), {})
            for name, mode in modes.items()
            if mode != "I;16"
        },
        "sixteen.png": (Pillow.fromarray(np.asarray(plain.convert("L")).astype(np.uint16) << 8), {}),
    }.items():
        stream = io.BytesIO()
        suffix = name.split(".")[1]
        image.save(stream, formats.get(suffix, suffix.upper()), **arguments)
        encoded[name] = stream.getvalue()
    stream = io.BytesIO()
    np.save(stream, np.asarray(plain))
    return {**encoded, "array.npy": stream.getvalue()}


def run_benchmark(description: str, plural: str, reader: Callable[[Path, int], Any]) -> None:
    """Run the cases that the command line asks for, print the counts; exit with 1 if any result is not accepted."""
    parser = argparse.ArgumentParser(description=description.splitlines()[0])
    parser.add_argument("--cases", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    start, folder = time.perf_counter(), Path(tempfile.mkdtemp())
    run_one = reader(folder, options.seed)
    results = run_cases(options.cases, run_one, folder / "notes")
    shutil.rmtree(folder)
    counts = ", ".join(f"{count} {word}" for word, count in results.most_common())
    print(f"{options.cases} {plural}, {time.perf_counter() - start:.0f} s: {counts}")
    sys.exit(bool(results.keys() - run_one.accepted))


def run_cases(cases: int, run_one: Callable[[int], str], notes: Path) -> Counter[str]:
    """Run each case in a process of limited memory and count the results.

    A result is the word that `run_one` returns, or "crash", "slow" or the name of an error.
    """
    results: Counter[str] = Counter()
    first = 0
    while first < cases:
        notes.write_text("")
        child = os.fork()
        if child == 0:
            faulthandler.disable()  # crashes are expected here
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
            limit_memory()
            with notes.open("a", buffering=1) as stream:
                for number in range(first, cases):
                    signal.alarm(SECONDS)
                    stream.write(f"{run_case(run_one, number)}\n")
            os._exit(0)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        words = notes.read_text().splitlines()
        results.update(words)
        first += len(words)
        if status:
            results["slow" if status == -signal.SIGALRM else f"crash {status}"] += 1
            print(f"case {first}: {status}", file=sys.stderr)
            first += 1
    return results


def run_case(run_one: Callable[[int], str], number: int) -> str:
    """Return the result of a case, or the error and where it was raised."""
    try:
        return run_one(number)
    except Exception as error:
        frame = traceback.extract_tb(error.__traceback__)[-1]
        return f"{type(error).__name__} in {Path(frame.filename).name}:{frame.lineno}, case {number}"


def limit_memory() -> tuple[int, int]:
    """Limit the process to MEMORY bytes more than it uses now; return the previous limits."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + MEMORY, before[1]))
    return before
