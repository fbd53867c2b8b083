"""Episodes of a LeRobot data set, version 3: Parquet files of states and actions, videos of many episodes each.

T steps of an episode  R rows of a table  V values of a row  K frames read  C channels  H W pixels
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int64, Real, UInt8

from openjepa.core.errors import UserError
from openjepa.core.fileio import read_json
from openjepa.data.clips import frames_on_screen
from openjepa.data.episode import Episode, decoded_channels
from openjepa.data.image_opening import Undecodable
from openjepa.data.parquet import require_pyarrow, with_readable_errors
from openjepa.data.video_io import open_frames

INFO = "meta/info.json"

STATE, ACTION, EPISODE, STEP = "observation.state", "action", "episode_index", "frame_index"

FILES = "chunk-*/file-*.parquet"


class Info(NamedTuple):
    """What the data set says about itself."""

    fps: float
    has_states: bool
    cameras: tuple[str, ...]  # keys of the videos


class Clip(NamedTuple):
    """Where the frames of an episode are."""

    video: str
    start: float  # seconds
    fps: float


def is_lerobot(folder: Path) -> bool:
    """Return whether a folder is a LeRobot data set, of any version."""
    return (folder / INFO).is_file()


def lerobot_files(folder: Path) -> list[str]:
    """Return the files that hold the contents of a data set."""
    parts = ("meta/episodes/**/*.parquet", "data/**/*.parquet", "videos/**/*.mp4")
    return [str(folder / INFO), *(str(file) for part in parts for file in sorted(folder.glob(part)))]


def open_lerobot(folder: str, channels: int, camera: str = "") -> Iterator[Episode]:
    """Yield the episodes of a data set, with the frames of one camera. Raises UserError if it cannot be read.

    A row holds an observation and the action after it, so the last action of an episode leads nowhere: it is left out.
    """
    root, info, channels = Path(folder), read_info(Path(folder)), decoded_channels(channels)
    columns = read_columns(root / "data", [EPISODE, STEP, ACTION, *([STATE] if info.has_states else [])])
    episodes = columns[EPISODE][:, 0].astype(np.int64)
    order = np.lexsort((columns[STEP][:, 0], episodes))
    clips = find_clips(root, info, choose_camera(root, info, camera)) if info.cameras else {}
    for number, rows in split_rows(episodes, order):
        clip = clips.get(number)
        yield Episode(
            source=f"{folder}#{number}",
            actions=columns[ACTION][rows[:-1]].astype(np.float32),
            states=columns[STATE][rows].astype(np.float32) if info.has_states else None,
            read_frames=partial(read_clip, clip, channels) if clip else None,
            channels=channels,
        ).check(len(rows))


def read_info(root: Path) -> Info:
    """Read meta/info.json. Raises UserError if it is damaged or of another version."""
    try:
        content = read_json(root / INFO)
        version, features = str(content["codebase_version"]), dict(content["features"])
        cameras = [name for name, each in features.items() if each["dtype"] == "video"]
        info = Info(float(content["fps"]), STATE in features, tuple(sorted(cameras)))
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{root / INFO} cannot be read ({error!r}): download the data set again") from error
    if not version.startswith("v3"):
        raise UserError(f"{root} is a LeRobot data set of version {version}: convert it to v3.0 with LeRobot")
    if ACTION not in features:
        raise UserError(f"{root} has no feature {ACTION!r}: choose a data set with actions")
    return info


def choose_camera(root: Path, info: Info, camera: str) -> str:
    """Return the key of a camera, the first one without a choice. Raises UserError if there is no such camera."""
    name = camera or info.cameras[0]
    if name not in info.cameras:
        raise UserError(f"{root} has no camera {camera!r}: type --data.camera {' or '.join(info.cameras)}")
    if Path(name).name != name:
        raise UserError(f"{root} has a camera named {name!r}, which is no name of a folder: rename it")
    return name


def read_columns(folder: Path, names: list[str]) -> dict[str, Real[np.ndarray, "R V"]]:
    """Read columns of all Parquet files of a folder, in the order of their names."""
    files = sorted(folder.glob(FILES))
    if not files:
        raise UserError(f"{folder} has no files {FILES}: download the data set again")
    parquet = require_pyarrow().parquet
    tables = [
        with_readable_errors(str(file), lambda file=file: parquet.ParquetFile(file, memory_map=True).read(names))
        for file in files
    ]
    missing = [name for name in names if any(name not in table.column_names for table in tables)]
    if missing:
        raise UserError(f"{folder} has no column {missing[0]!r}: download the data set again")
    return {name: np.concatenate([column_values(table[name]) for table in tables]) for name in names}


def column_values(column: Any) -> Real[np.ndarray, "R V"]:
    """Return the rows of a column of numbers, or of lists of numbers of one length, as two axes."""
    values = column.to_numpy()
    if values.dtype == object:
        values = np.stack(values) if len(values) else np.empty((0, 1))
    return values.reshape(len(values), -1)


def split_rows(
    episodes: Int64[np.ndarray, "R"], order: Int64[np.ndarray, "R"]
) -> Iterator[tuple[int, Int64[np.ndarray, "T"]]]:
    """Yield the number of each episode and its rows in order."""
    names, first = np.unique(episodes[order], return_index=True)
    yield from zip(names.tolist(), np.split(order, first[1:]), strict=True)


def find_clips(root: Path, info: Info, camera: str) -> dict[int, Clip]:
    """Return where the frames of each episode are, for one camera."""
    keys = [f"videos/{camera}/{part}" for part in ("chunk_index", "file_index", "from_timestamp")]
    columns = read_columns(root / "meta/episodes", [EPISODE, *keys])
    rows = zip(*(columns[name][:, 0].tolist() for name in (EPISODE, *keys)), strict=True)
    folder = root / "videos" / camera
    return {
        int(number): Clip(str(folder / f"chunk-{int(chunk):03d}" / f"file-{int(file):03d}.mp4"), start, info.fps)
        for number, chunk, file, start in rows
    }


def read_clip(clip: Clip, channels: int, index: list[int]) -> UInt8[np.ndarray, "K H W C"]:
    """Decode some frames of an episode. Raises UserError if the video cannot be read."""
    try:
        with open_frames(clip.video, channels) as frames:
            middle = clip.start + (np.asarray(index) + 0.5) / clip.fps  # of each frame's time on screen
            return np.ascontiguousarray(frames.read(frames_on_screen(frames.times, middle).tolist()))
    except Undecodable as error:
        raise UserError(f"{clip.video} cannot be decoded ({error}): download the data set again") from error
