"""Measure what a list of files costs as it grows: to list, write, open and shuffle it for an epoch.

    python benchmarks/index.py --counts 10000 100000 1000000

Empty files are created below a temporary folder, a thousand per sub-folder. Each row is a process of its own; memory
is its growth from before the list exists to the end.
"""

import argparse
import json
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from openjepa.core.rng import epoch_order
from openjepa.data.listing import MappedPathList, list_files

LOOKS = 100_000  # paths read at random


def made(folder: Path, count: int) -> Path:
    for number in range(count):
        place = folder / f"{number // 1000:05d}"
        if number % 1000 == 0:
            place.mkdir()
        (place / f"photograph-{number:08d}.jpg").touch()
    return folder


def resident() -> float:
    """Return the resident memory of this process in MB."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 1e6


def timed(work: Any) -> tuple[Any, float]:
    began = time.perf_counter()
    return work(), time.perf_counter() - began


def find(folder: Path, count: int) -> dict[str, float]:
    """Time listing the files and writing the list."""
    before = resident()
    listing, finding = timed(lambda: list_files((str(folder),), frozenset({".jpg"})))
    assert len(listing.paths) == count
    held = resident() - before
    _, writing = timed(lambda: MappedPathList.write(folder.with_name("paths"), listing.paths))
    return {"find": finding, "memory to find": held, "write": writing}


def reopen(folder: Path, count: int) -> dict[str, float]:
    """Time opening the stored list, as a worker does."""
    before = resident()
    paths, opening = timed(lambda: MappedPathList(folder.with_name("paths")))
    _, shuffling = timed(lambda: epoch_order(0, 0, count))
    rng = random.Random(0)
    _, looking = timed(lambda: [paths[rng.randrange(count)] for _ in range(LOOKS)])
    size = paths.file.stat().st_size
    return {
        "open": opening,
        "shuffle": shuffling,
        "read one, µs": 1e6 * looking / LOOKS,
        "memory": resident() - before,
        "bytes per entry": size / count,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--counts", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--out", type=Path, default=Path(tempfile.gettempdir()))
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        what, folder, count = options.one
        print(json.dumps({"find": find, "reopen": reopen}[what](Path(folder), int(count))))
        return
    rows = []
    for count in options.counts:
        place = Path(tempfile.mkdtemp(dir=options.out))
        (place / "files").mkdir()
        made(place / "files", count)
        row: dict[str, float] = {"files": count}
        for what in ("find", "reopen"):
            command = [sys.executable, __file__, "--one", what, str(place / "files"), str(count)]
            row |= json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
        rows.append(row)
        shutil.rmtree(place)
    print("| " + " | ".join(rows[0]) + " |\n" + "|---" * len(rows[0]) + "|")
    for row in rows:
        print("| " + " | ".join(f"{value:,.0f}" if value >= 100 else f"{value:.3g}" for value in row.values()) + " |")


if __name__ == "__main__":
    main()
