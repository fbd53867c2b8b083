"""Episodes as folders: frames as images in natural order, `actions.npy` (T, A), and perhaps `states.npy` (T+1, S).

F observations, T + 1  T actions  A width of an action  S values of a state  K frames read  C channels
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
from jaxtyping import Float32, UInt8

from openjepa.core.errors import UserError
from openjepa.data.episode import Episode, decoded_channels
from openjepa.data.image_opening import Undecodable
from openjepa.data.video_folders import frames_in_folder
from openjepa.data.video_io import open_frames

ACTIONS, STATES = "actions.npy", "states.npy"


def open_folder(folder: str, channels: int) -> Episode:
    """Return the episode in a folder. Raises UserError if its arrays or the number of its frames do not fit."""
    frames, channels = frames_in_folder(folder), decoded_channels(channels)
    states = Path(folder, STATES)
    return Episode(
        source=folder,
        actions=read_values(Path(folder, ACTIONS)),
        states=read_values(states) if states.is_file() else None,
        read_frames=partial(read_files, folder, channels) if frames else None,
        channels=channels,
    ).check(len(frames))


def read_values(file: Path) -> Float32[np.ndarray, "T V"]:
    """Return an array of rows. Raises UserError if the file is no plain array of numbers with two axes."""
    try:
        values = np.load(file, allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise UserError(f"{file} is not a plain numpy array ({error}): write it with numpy.save") from error
    if values.ndim != 2 or values.dtype.kind not in "fiub":
        raise UserError(f"{file} is {values.dtype} of shape {values.shape}: write numbers with a row for each step")
    return values.astype(np.float32)


def read_files(path: str, channels: int, index: list[int]) -> UInt8[np.ndarray, "K H W C"]:
    """Decode some frames of a folder or a video. Raises UserError if one cannot be decoded."""
    try:
        with open_frames(path, channels) as frames:
            return np.ascontiguousarray(frames.read(index))
    except Undecodable as error:
        raise UserError(f"frames of {path} cannot be decoded ({error}): repair or remove the episode") from error
