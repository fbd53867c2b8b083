"""Compare brute force with the approximate index, one query at a time among a million vectors: time and recall.

    python benchmarks/search.py                               a million synthetic vectors, clustered as features are
    python benchmarks/search.py --index photos.safetensors    an index with class folders: compare whitening

Synthetic vectors lie around 200 centers, each cluster in 40 directions of its own, which gives an intrinsic dimension
of about 20 by the distances to the nearest neighbors. The queries are other vectors of the same kind.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from openjepa.evaluation.index import open_index
from openjepa.evaluation.nearest import ApproximateSearch, ExactSearch, normalize_rows
from openjepa.evaluation.whitening import WhitenedView, Whitening

CENTERS, DIRECTIONS, QUERIES = 200, 40, 200


def synthetic_vectors(count: int, width: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    centers = rng.normal(size=(CENTERS, width)).astype(np.float32)
    x = np.empty((count, width), np.float32)
    own = rng.integers(CENTERS, size=count)
    for number in range(CENTERS):
        rows = np.flatnonzero(own == number)
        spread = rng.normal(size=(DIRECTIONS, width)).astype(np.float32) * (1.0 / DIRECTIONS**0.5)
        x[rows] = centers[number] + rng.normal(size=(len(rows), DIRECTIONS)).astype(np.float32) @ spread
    return x


def dimension(near: np.ndarray) -> float:
    """Estimate the intrinsic dimension (Levina and Bickel, 2004) from cosines of neighbors, nearest first."""
    distance = np.sqrt(np.maximum(2 - 2 * near.astype(np.float64), 1e-12))
    return float(1 / np.mean(np.log(distance[:, -1:] / distance[:, :-1])))


def seconds(search, queries: np.ndarray) -> float:
    """Return the median seconds of one query at a time."""
    measured = []
    for query in queries:
        start = time.perf_counter()
        search(query[None])
        measured.append(time.perf_counter() - start)
    return statistics.median(measured)


def speed(count: int, width: int) -> dict[str, float]:
    x = normalize_rows(synthetic_vectors(count + QUERIES, width))
    x, queries = x[:count], x[count:]

    def brute(query: np.ndarray) -> np.ndarray:
        """Search as fast as numpy can: one matmul with unit vectors in memory, and the ten highest."""
        cosine = x @ query[0]
        best = np.argpartition(-cosine, 10)[:10]
        return best[np.argsort(-cosine[best])]

    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        index = ApproximateSearch.of(x, Path(folder) / "index.faiss")
        built = time.perf_counter() - start
        truth = ExactSearch(x).find(queries, 20)
        found = index.find(queries, 10).rows
        recall = np.mean([len(np.intersect1d(a, b)) / 10 for a, b in zip(truth.rows[:, :10], found, strict=True)])
        plain, quick = seconds(brute, queries[:20]), seconds(lambda query: index.find(query, 10), queries)
        exact = seconds(lambda query: ExactSearch(x).find(query, 10), queries[:5])
    return {
        "rows": count, "width": width, "intrinsic dimension": dimension(truth.cosine), "index made, s": built,
        "recall of ten": float(recall), "brute force, ms": 1e3 * plain, "our exact search, ms": 1e3 * exact,
        "approximate, ms": 1e3 * quick, "speedup over brute force": plain / quick,
    }  # fmt: skip


def spaces(file: Path) -> dict[str, float]:
    """Return the share of ten neighbors in the query's class folder, per whitening, over a thousand queries."""
    index = open_index(file)
    features, classes = np.asarray(index.features), np.array(index.classes)
    rows = np.random.default_rng(0).choice(len(features), min(1000, len(features)), replace=False)
    found = {}
    for name, power in (("as they are", None), ("less their mean", 0.0), ("half whitened", 0.5), ("whitened", 1.0)):
        x = features if power is None else WhitenedView(features, Whitening.of(features, power))
        near = ExactSearch(x).find(x[rows], 11).rows[:, 1:]
        found[f"{name}, share of the same folder"] = float((classes[near] == classes[rows][:, None]).mean())
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--width", type=int, default=384)
    parser.add_argument("--index", type=Path)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    result = spaces(options.index) if options.index else speed(options.rows, options.width)
    for name, value in result.items():
        print(f"{name:<45} {value:,.4g}")
    if options.json:
        options.json.write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
