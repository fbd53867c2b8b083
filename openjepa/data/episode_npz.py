"""Episodes in .npz files: `observations` or `states` or both, and `actions`; one episode, or many of one length.

N episodes  F observations, T + 1  T actions  A width of an action  S values of a state  K frames read  C channels
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from openjepa.core.errors import UserError
from openjepa.core.fileio import file_version
from openjepa.data.episode import Episode
from openjepa.data.recent import RecentValues

CACHED_BYTES = 2**29  # of decompressed frames, in each process

DAMAGE = (zipfile.BadZipFile, ValueError, KeyError, EOFError, OSError)  # what numpy raises on files of another kind

FRAMES: RecentValues[np.ndarray] = RecentValues(CACHED_BYTES, lambda frames: frames.nbytes)

EXPECTED = "an episode is a .npz file with `actions` (T, A) and `observations` (T+1, H, W, C) or `states` (T+1, S)"


def open_npz(path: str) -> Iterator[Episode]:
    """Yield the episodes of a file: one, or as many as its arrays have rows if `actions` has three axes.

    Raises UserError if the file is damaged or has other arrays.
    """
    actions = read_array(path, "actions", required=True)
    states = read_array(path, "states")
    assert actions is not None
    shape, dtype = frames_header(path)
    several = actions.ndim == 3
    check_shapes(path, actions, states, shape, dtype)
    for number in range(len(actions) if several else 1):
        rows: Any = number if several else slice(None)
        yield Episode(
            source=f"{path}#{number}" if several else path,
            actions=actions[rows],
            states=None if states is None else states[rows],
            read_frames=partial(read_frames, path, number if several else -1) if shape else None,
            channels=shape[-1] if shape else 0,
        ).check(shape[-4] if shape else 0)


def read_array(path: str, name: str, required: bool = False) -> np.ndarray | None:
    """Return an array as float32, or None if the file lacks it and does not require it. Raises UserError."""
    try:
        with np.load(path, allow_pickle=False) as content:
            if name not in content and not required:
                return None
            values = content[name]
    except DAMAGE as error:
        raise UserError(f"{name} of {path} cannot be read ({error}): {EXPECTED}") from error
    if values.dtype.kind not in "fiub":
        raise UserError(f"{name} of {path} are of type {values.dtype}: write numbers")
    return values.astype(np.float32)


def frames_header(path: str) -> tuple[tuple[int, ...], np.dtype]:
    """Return shape and type of `observations` without reading them; an empty shape if the file lacks them."""
    try:
        with zipfile.ZipFile(path) as archive:
            if "observations.npy" not in archive.namelist():
                return (), np.dtype(np.uint8)
            with archive.open("observations.npy") as stream:
                version = np.lib.format.read_magic(stream)
                read = {(1, 0): np.lib.format.read_array_header_1_0}.get(version, np.lib.format.read_array_header_2_0)
                shape, _, dtype = read(stream)
    except DAMAGE as error:
        raise UserError(f"observations of {path} cannot be read ({error}): {EXPECTED}") from error
    return shape, dtype


def check_shapes(
    path: str, actions: np.ndarray, states: np.ndarray | None, shape: tuple[int, ...], dtype: np.dtype
) -> None:
    """Raise UserError unless the arrays have the axes of one episode, or those of many with one axis more."""
    more = actions.ndim - 2
    episodes = actions.shape[:more]
    wrong = actions.ndim not in (2, 3)
    wrong |= states is not None and (states.ndim != 2 + more or states.shape[:more] != episodes)
    wrong |= bool(shape) and (len(shape) != 4 + more or shape[:more] != episodes or dtype != np.uint8)
    if wrong:
        frames = f", observations {dtype} {shape}" if shape else ""
        values = "" if states is None else f", states {states.shape}"
        raise UserError(f"{path} has actions {actions.shape}{values}{frames}: {EXPECTED}, frames as uint8")


def read_frames(path: str, number: int, index: list[int]) -> UInt8[np.ndarray, "K H W C"]:
    """Return some frames of a file's only episode (-1), or of one of many; the file stays in memory for a while."""

    def load() -> np.ndarray:
        with np.load(path, allow_pickle=False) as content:
            return content["observations"]

    try:
        frames = FRAMES.get((path, *file_version(Path(path))), load)
    except DAMAGE as error:
        raise UserError(f"observations of {path} cannot be read ({error}): repair or remove the file") from error
    return np.ascontiguousarray((frames if number < 0 else frames[number])[index])
