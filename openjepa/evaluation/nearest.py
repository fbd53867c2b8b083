"""Find the nearest rows by cosine, exactly or with an inverted-file index (faiss).   S rows  Q queries  D width"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Int

from openjepa.core.console import info
from openjepa.core.errors import UserError
from openjepa.core.fileio import atomic_write
from openjepa.evaluation.whitening import PIECE_ROWS, WhitenedView

EXACT_LIMIT = 200_000  # with more rows, use an approximate index

TUNING_QUERIES = 200  # queries to tune the approximate index, and as many to measure its recall

TARGET_RECALL = 0.97  # recall of the 10 nearest neighbors to which the index is tuned

NO_COSINE = -2.0  # stands for the cosine of a vector that is 0 or not finite

PROBE_COUNTS = (1, 2, 4, 8, 16, 32, 64, 128, 256)  # candidate numbers of lists to search

Rows = np.ndarray | WhitenedView  # S D


class Neighbors(NamedTuple):
    """The nearest rows of each query and their cosines, the nearest first."""

    rows: Int[np.ndarray, "Q K"]
    cosine: Float[np.ndarray, "Q K"]


@runtime_checkable
class Finder(Protocol):
    """Anything that finds the nearest rows of queries."""

    how: str  # description of the search, for the output

    def find(self, queries: Float[np.ndarray, "Q D"], count: int) -> Neighbors: ...


def normalize_rows(x: Float[np.ndarray, "*S D"]) -> Float[np.ndarray, "*S D"]:
    """Scale vectors to length 1 in fp32; vectors that are 0 or not finite become 0."""
    x = np.asarray(x, np.float32)
    length = np.linalg.norm(x, axis=-1, keepdims=True)
    sound = np.isfinite(length) & (length > 0)
    return np.where(sound, x / np.where(sound, length, 1), np.float32(0))


def cosines(queries: Float[np.ndarray, "Q D"], x: Float[np.ndarray, "S D"]) -> Float[np.ndarray, "Q S"]:
    """Compute cosines of unit queries and rows of any length; `NO_COSINE` for vectors that are 0 or not finite."""
    length = np.sqrt(np.einsum("sd,sd->s", x, x))
    with np.errstate(invalid="ignore", divide="ignore"):
        cosine = queries @ x.T / length
    cosine[:, ~(np.isfinite(length) & (length > 0))] = NO_COSINE
    cosine[~queries.any(1)] = NO_COSINE
    return cosine


class ExactSearch:
    """Exact search: compare with every row, in chunks, so that memory does not grow with the number of rows."""

    def __init__(self, features: Rows):
        self.features, self.how = features, f"exact, all {len(features):,} rows"

    def find(self, queries: Float[np.ndarray, "Q D"], count: int) -> Neighbors:
        queries, count = normalize_rows(queries), min(count, len(self.features))
        best = np.empty((len(queries), 0), np.float32), np.empty((len(queries), 0), np.int64)
        for first in range(0, len(self.features), PIECE_ROWS):
            cosine = cosines(queries, np.asarray(self.features[first : first + PIECE_ROWS], np.float32))
            rows = np.broadcast_to(np.arange(first, first + cosine.shape[1]), cosine.shape)
            best = top_rows(np.concatenate([best[0], cosine], 1), np.concatenate([best[1], rows], 1), count)
        return Neighbors(best[1], best[0])


def top_rows(
    cosine: Float[np.ndarray, "Q K"], rows: Int[np.ndarray, "Q K"], count: int
) -> tuple[Float[np.ndarray, "Q k"], Int[np.ndarray, "Q k"]]:
    """Select the `count` highest cosines of each query, the highest first; ties by the lower row."""
    if cosine.shape[1] > 4 * count:
        top = np.argpartition(-cosine, count, 1)[:, : count + 1]
        edge = np.take_along_axis(cosine, top, 1).min(1, keepdims=True)
        if ((cosine >= edge).sum(1) == count + 1).all():  # no ties at the edge
            cosine, rows = np.take_along_axis(cosine, top, 1), np.take_along_axis(rows, top, 1)
    order = np.lexsort((rows, -cosine), axis=1)[:, :count]
    return np.take_along_axis(cosine, order, 1), np.take_along_axis(rows, order, 1)


class ApproximateSearch:
    """Approximate search with an inverted-file index (faiss), which is built once and saved next to the features."""

    def __init__(self, lists: Any, recall: float):
        self.lists = lists
        self.how = f"approximate, {lists.nprobe} of {lists.nlist} lists, recall@10 {recall:.3f}"

    def find(self, queries: Float[np.ndarray, "Q D"], count: int) -> Neighbors:
        queries = normalize_rows(queries)
        cosine, rows = self.lists.search(queries, count)
        cosine[~queries.any(1)] = NO_COSINE
        return Neighbors(rows, cosine)

    @classmethod
    def of(cls, features: Rows, file: Path) -> ApproximateSearch:
        """Load the index in `file`, or build it if it is missing or was built from other features. Requires faiss."""
        try:
            import faiss
        except ImportError as error:
            raise UserError(
                f"searching {len(features):,} rows requires faiss: pip install 'openjepa[search]', or add --exact"
            ) from error
        json_file, digest = file.with_name(f"{file.name}.json"), features_digest(features)
        saved = json.loads(json_file.read_text(encoding="utf-8")) if json_file.is_file() and file.is_file() else {}
        if saved.get("of") == digest:
            lists: Any = faiss.read_index(str(file), faiss.IO_FLAG_MMAP | faiss.IO_FLAG_READ_ONLY)
            lists.nprobe = saved["probes"]
            return cls(lists, saved["recall"])
        start = time.perf_counter()
        lists = build_lists(features, faiss)
        probes, recall = tune_probes(lists, features)
        with atomic_write(file) as temporary:
            faiss.write_index(lists, str(temporary))
        seconds = time.perf_counter() - start
        with atomic_write(json_file) as temporary:
            temporary.write_text(
                json.dumps({"of": digest, "probes": probes, "recall": recall, "seconds": seconds}), encoding="utf-8"
            )
        info(f"index      {file}, built in {seconds:.0f} s; recall@10 {recall:.3f}")
        return cls(lists, recall)


def features_digest(features: Rows) -> list[Any]:
    """Return a fingerprint of features: their shape and the sum of about 100 rows."""
    sample = np.asarray(features[:: max(1, len(features) // 100)], np.float32)
    return [*features.shape, float(np.nansum(sample.astype(np.float64)))]


def build_lists(features: Rows, faiss: Any) -> Any:
    """Build an inverted file with 4·√S lists, whose centers are found by k-means."""
    count, width = features.shape
    lists = int(4 * count**0.5)
    index = faiss.IndexIVFFlat(faiss.IndexFlatIP(width), width, lists, faiss.METRIC_INNER_PRODUCT)
    index.cp.niter, index.cp.seed, index.cp.min_points_per_centroid = 8, 1, 1
    rows = np.sort(np.random.default_rng(0).choice(count, min(count, 40 * lists), replace=False))
    index.train(normalize_rows(features[rows]))
    for first in range(0, count, PIECE_ROWS):
        part = normalize_rows(features[first : first + PIECE_ROWS])
        sound = part.any(1)
        index.add_with_ids(part[sound], first + np.flatnonzero(sound))
    return index


def tune_probes(lists: Any, features: Rows) -> tuple[int, float]:
    """Choose how many lists to search for `TARGET_RECALL` of the 10 nearest neighbors; measure the recall.

    The recall is measured on other queries than those that chose the number.
    """
    rows = np.random.default_rng(1).choice(len(features), 2 * TUNING_QUERIES, replace=False)
    queries = normalize_rows(features[np.sort(rows)])
    truth, half = ExactSearch(features).find(queries, 11).rows[:, 1:], TUNING_QUERIES  # the first is the query itself
    recall = 0.0
    for probes in PROBE_COUNTS:
        lists.nprobe = probes
        nearest = lists.search(queries, 11)[1]
        share = np.array([len(np.intersect1d(a, b)) / 10 for a, b in zip(nearest, truth, strict=True)])
        recall = float(share[half:].mean())
        if share[:half].mean() >= TARGET_RECALL or probes >= lists.nlist:
            break
    return lists.nprobe, recall


def choose_finder(features: Rows, file: Path, exact: bool = False) -> Finder:
    """Choose exact search up to `EXACT_LIMIT` rows or on request, else approximate search."""
    return ExactSearch(features) if exact or len(features) <= EXACT_LIMIT else ApproximateSearch.of(features, file)
