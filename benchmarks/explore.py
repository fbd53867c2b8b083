"""Time each answer of `jepa explore`.

    python benchmarks/explore.py RUN IMAGES --count 10000

Prints the median and the slowest of twenty answers of each kind, and how long the page takes to be ready.
"""

import argparse
import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from openjepa.viz.explorer.session import Session
from openjepa.viz.settings import Explore

TIMES = 20


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("run")
    parser.add_argument("images")
    parser.add_argument("--count", type=int, default=10_000)
    options = parser.parse_args()
    start_time = time.perf_counter()
    session = Session.load(Explore(run=options.run, images=(options.images,), count=options.count))
    print(
        f"{len(session.images.view):,} images ready in {time.perf_counter() - start_time:.1f} s; "
        f"patches of {len(session.patches):,} images in memory"
    )
    questions = {
        "similar patches": lambda view: session.similar_patches(view, 0),
        "neighbors": session.neighbors,
        "a hidden box": lambda view: session.predict_region(view, (0.25, 0.25, 0.75, 0.75)),
    }
    for name, answer in questions.items():
        seconds = []
        for row in range(TIMES):
            view, start = session.images.view[row * 7 % len(session.images.view)], time.perf_counter()
            answer(view)
            seconds.append(time.perf_counter() - start)
        print(f"{name:<24} {statistics.median(seconds):.3f} s, slowest {max(seconds):.3f} s")


if __name__ == "__main__":
    main()
