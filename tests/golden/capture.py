"""Compute what the package computes, and store it, or say what differs from what is stored.

    python -m tests.golden.capture --out tests/golden/results.json
    python -m tests.golden.capture --compare tests/golden/results.json [--only "figures" "method: rotary"]

Results are compared bit for bit, which holds only on one machine with one version of torch; tests/test_golden.py allows
within a tolerance elsewhere.
"""

from __future__ import annotations

import argparse
import io
import json
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import torch

from openjepa.nn.cpu_kernels import HAS_ONEDNN_BF16
from tests.golden.training import TWO, by_one_process, first_weights, recipes, trained_together
from tests.golden.values import differences, machine
from tests.golden.verbs import QUICK, SLOW, small_run
from tests.small import small

RESULTS = Path(__file__).with_name("results.json")


def entries(folder: Path) -> dict[str, dict[str, Callable[[], Any]]]:
    """Give what computes every result, by section and name."""
    together = {name: each for name, each in TWO.items() if HAS_ONEDNN_BF16 or each.precision == "fp32"}
    found: dict[str, dict[str, Callable[[], Any]]] = {
        "recipes at full size": {"all": recipes},
        "first weights": {"all": lambda: first_weights(folder)},
        "training": dict(by_one_process(folder, bool(HAS_ONEDNN_BF16))),
        "training by two processes": {"all": lambda: trained_together(folder, together)},
        "small run": {},
    }
    for name, compute in (QUICK | SLOW).items():
        found["small run"][name] = lambda compute=compute: compute(small_run(folder))
    return found


def captured(only: list[str]) -> dict[str, Any]:
    """Compute all results, or those whose section or name begins with one of these words; print the seconds of each."""
    torch.set_num_threads(1)
    small()
    found: dict[str, Any] = {"machine": machine()}
    with tempfile.TemporaryDirectory() as folder:
        for section, parts in entries(Path(folder)).items():
            began, results = time.perf_counter(), {}
            for name, compute in parts.items():
                if not only or section in only or any(name.startswith(each) for each in only):
                    since = time.perf_counter()
                    results[name] = quietly(compute)
                    if time.perf_counter() - since > 3:
                        print(f"  {name}: {time.perf_counter() - since:.1f} s", file=sys.stderr)
            if results:
                found[section] = results
                print(f"{section}: {len(results)}, {time.perf_counter() - began:.1f} s", file=sys.stderr)
    return json.loads(json.dumps(found))


def quietly(compute: Callable[[], Any]) -> Any:
    """Compute without what is said meanwhile."""
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        return compute()


def written(results: dict[str, Any], file: Path) -> None:
    """Write results, a line each."""
    sections = []
    for section, parts in results.items():
        lines = [f"{json.dumps(name)}: {json.dumps(parts[name], separators=(',', ':'))}" for name in parts]
        sections.append(f"{json.dumps(section)}: {{\n" + ",\n".join(lines) + "\n}")
    file.write_text("{\n" + ",\n".join(sections) + "\n}\n")


def compared(file: Path, only: list[str]) -> int:
    """Print every difference from what is stored; gives how many there are."""
    stored, found = json.loads(file.read_text()), captured(only)
    if only:
        stored = {
            section: {name: value for name, value in parts.items() if section == "machine" or name in found[section]}
            for section, parts in stored.items()
            if section in found
        }
    all_of_them = list(differences(stored, found, None))
    for each in all_of_them:
        print(each)
    count = sum(len(parts) for section, parts in found.items() if section != "machine")
    print(f"{len(all_of_them)} differences in {count} results")
    return len(all_of_them)


def main() -> int:
    asked = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    asked.add_argument("--out", type=Path, help="write results here")
    asked.add_argument("--compare", type=Path, help="compare with the results here")
    asked.add_argument("--only", nargs="*", default=[], help="sections, or how names of results begin")
    given = asked.parse_args()
    if given.compare:
        return 1 if compared(given.compare, given.only) else 0
    written(captured(given.only), given.out or RESULTS)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
