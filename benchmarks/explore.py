"""How long each answer of `jepa explore` takes.

    python benchmarks/explore.py RUN PICTURES --count 10000

Prints the median and the worst of twenty of each, and how long the page takes to be ready.
"""

import argparse
import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from openjepa.viz.explorer.session import Explore, Session

TIMES = 20


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("run")
    parser.add_argument("pictures")
    parser.add_argument("--count", type=int, default=10_000)
    options = parser.parse_args()
    began = time.perf_counter()
    session = Session.opened(Explore(run=options.run, images=(options.pictures,), count=options.count))
    print(
        f"{len(session.found.view):,} pictures ready in {time.perf_counter() - began:.1f} s, patches of {len(session.patches):,} kept"
    )
    asked = {
        "where else a patch is": lambda view: session.alike(view, 0),
        "neighbours": session.neighbours,
        "a hidden box": lambda view: session.hidden(view, (0.25, 0.25, 0.75, 0.75)),
    }
    for name, answer in asked.items():
        took = []
        for row in range(TIMES):
            view, start = session.found.view[row * 7 % len(session.found.view)], time.perf_counter()
            answer(view)
            took.append(time.perf_counter() - start)
        print(f"{name:<24} {statistics.median(took):.3f} s, at worst {max(took):.3f} s")


if __name__ == "__main__":
    main()
