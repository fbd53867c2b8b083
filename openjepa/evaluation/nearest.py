"""Find the nearest rows by cosine, exactly or with an inverted file (faiss).   S rows  Q queries  D width"""

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

EXACT_LIMIT = 200_000  # rows; of more, an approximate index is made

TUNING_QUERIES = 200  # rows whose neighbours are looked up both ways to state the recall

TARGET_RECALL = 0.97  # of ten neighbours, that the index is set to

NO_COSINE = -2.0  # the cosine of what has no direction

PROBE_COUNTS = (1, 2, 4, 8, 16, 32, 64, 128, 256)  # lists looked into

Rows = np.ndarray | WhitenedView  # S D


class Neighbors(NamedTuple):
    """For each query the nearest rows, the nearest first, and their cosines."""

    rows: Int[np.ndarray, "Q K"]
    cosine: Float[np.ndarray, "Q K"]


@runtime_checkable
class Finder(Protocol):
    how: str  # a word on how it searches

    def find(self, queries: Float[np.ndarray, "Q D"], count: int) -> Neighbors: ...


def normalize_rows(x: Float[np.ndarray, "*S D"]) -> Float[np.ndarray, "*S D"]:
    """Vectors of length 1, in fp32; what is not finite, or nothing at all, becomes 0 and is near to nothing."""
    x = np.asarray(x, np.float32)
    length = np.linalg.norm(x, axis=-1, keepdims=True)
    sound = np.isfinite(length) & (length > 0)
    return np.where(sound, x / np.where(sound, length, 1), np.float32(0))


def cosines(queries: Float[np.ndarray, "Q D"], x: Float[np.ndarray, "S D"]) -> Float[np.ndarray, "Q S"]:
    """Of unit queries and rows of any length; -2 for what is not finite, or nothing at all."""
    length = np.sqrt(np.einsum("sd,sd->s", x, x))
    with np.errstate(invalid="ignore", divide="ignore"):
        found = queries @ x.T / length
    found[:, ~(np.isfinite(length) & (length > 0))] = NO_COSINE
    found[~queries.any(1)] = NO_COSINE
    return found


class ExactSearch:
    """Looks at every row, in pieces, so that memory does not grow with their number."""

    def __init__(self, features: Rows):
        self.features, self.how = features, f"exact, all of {len(features):,} rows"

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
    """The `count` highest of each line, the highest first; of equal ones the first row."""
    if cosine.shape[1] > 4 * count:
        some = np.argpartition(-cosine, count, 1)[:, : count + 1]
        edge = np.take_along_axis(cosine, some, 1).min(1, keepdims=True)
        if ((cosine >= edge).sum(1) == count + 1).all():  # no ties at the edge
            cosine, rows = np.take_along_axis(cosine, some, 1), np.take_along_axis(rows, some, 1)
    order = np.lexsort((rows, -cosine), axis=1)[:, :count]
    return np.take_along_axis(cosine, order, 1), np.take_along_axis(rows, order, 1)


class ApproximateSearch:
    """Looks into the lists of an inverted file (faiss) whose centres are nearest; made once and kept beside the features."""

    def __init__(self, lists: Any, recall: float):
        self.lists = lists
        self.how = f"approximate, {lists.nprobe} of {lists.nlist} lists, recall of ten {recall:.3f}"

    def find(self, queries: Float[np.ndarray, "Q D"], count: int) -> Neighbors:
        queries = normalize_rows(queries)
        cosine, rows = self.lists.search(queries, count)
        cosine[~queries.any(1)] = NO_COSINE
        return Neighbors(rows, cosine)

    @classmethod
    def of(cls, features: Rows, file: Path) -> ApproximateSearch:
        """The index in `file`, made anew if it is not there or of other features."""
        try:
            import faiss
        except ImportError as error:
            raise UserError(
                f"{len(features):,} rows want an approximate index: pip install 'openjepa[search]', or search with --exact"
            ) from error
        about, mark = file.with_name(f"{file.name}.json"), features_digest(features)
        told = json.loads(about.read_text()) if about.is_file() and file.is_file() else {}
        if told.get("of") == mark:
            lists: Any = faiss.read_index(str(file), faiss.IO_FLAG_MMAP | faiss.IO_FLAG_READ_ONLY)
            lists.nprobe = told["probes"]
            return cls(lists, told["recall"])
        began = time.perf_counter()
        lists = build_lists(features, faiss)
        probes, recall = tune_probes(lists, features)
        with atomic_write(file) as temporary:
            faiss.write_index(lists, str(temporary))
        seconds = time.perf_counter() - began
        with atomic_write(about) as temporary:
            temporary.write_text(json.dumps({"of": mark, "probes": probes, "recall": recall, "seconds": seconds}))
        info(f"index      {file}, made in {seconds:.0f} s; recall of ten neighbours {recall:.3f}")
        return cls(lists, recall)


def features_digest(features: Rows) -> list[Any]:
    """What tells features from others: their shape, and some of their numbers."""
    some = np.asarray(features[:: max(1, len(features) // 100)], np.float32)
    return [*features.shape, float(np.nansum(some.astype(np.float64)))]


def build_lists(features: Rows, faiss: Any) -> Any:
    """Lists by k-means: as many as four times the root of the number of rows."""
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
    """How many lists to look into for RECALL of ten neighbours, and the recall on rows that did not choose it."""
    rows = np.random.default_rng(1).choice(len(features), 2 * TUNING_QUERIES, replace=False)
    queries = normalize_rows(features[np.sort(rows)])
    truth, half = ExactSearch(features).find(queries, 11).rows[:, 1:], TUNING_QUERIES  # each is its own nearest
    measured = 0.0
    for probes in PROBE_COUNTS:
        lists.nprobe = probes
        found = lists.search(queries, 11)[1]
        share = np.array([len(np.intersect1d(a, b)) / 10 for a, b in zip(found, truth, strict=True)])
        measured = float(share[half:].mean())
        if share[:half].mean() >= TARGET_RECALL or probes >= lists.nlist:
            break
    return lists.nprobe, measured


def choose_finder(features: Rows, file: Path, exact: bool = False) -> Finder:
    """By the number of rows."""
    return ExactSearch(features) if exact or len(features) <= EXACT_LIMIT else ApproximateSearch.of(features, file)
