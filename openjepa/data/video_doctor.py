"""Inspect videos for what causes problems in training.   N frames"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Float64, UInt8
from PIL import Image as Pillow

from openjepa.core.cpus import available_cores
from openjepa.core.errors import UserError
from openjepa.core.processes import map_in_processes
from openjepa.data.archives import parse_address
from openjepa.data.file_facts import PictureFacts
from openjepa.data.image_io import read_bytes, retry_reading
from openjepa.data.image_opening import Undecodable
from openjepa.data.video_containers import ContainerFrames
from openjepa.data.video_folders import FolderFrames
from openjepa.data.video_io import Frames, open_frames
from openjepa.data.video_listing import files_with_contents
from openjepa.data.video_streams import FrameForm, PixelReader

VIDEO_FINDINGS = {  # finding -> what a training run does with such a file
    "unreadable": "stops: repair the disk or the permissions, or remove the file",
    "undecodable": "skips the file, trains on another one instead and lists it in skipped.jsonl",
    "audio only": "skips the file, trains on another one instead and lists it in skipped.jsonl",
    "no frames": "skips the file, trains on another one instead and lists it in skipped.jsonl",
    "sizes differ": "scales the frames of a stream to the size of the first; skips a folder of frames",
    "truncated": "trains on the frames that are there: copy or download the file again",
    "damaged frames": "takes the frame before instead: copy or download the file again",
    "zero duration": "trains on it, although nothing moves",
    "constant": "trains on it, although nothing moves",
    "very short": "repeats the last frame where a clip is longer than the file",
    "variable rate": "takes frames by number with --data.stride, by their time with --data.fps",
    "no time stamps": "dates the frames by the rate in the header",
    "rotated": "turns it upright by its display matrix",
    "oblong pixels": "stretches it to square pixels, as players do",
    "duplicate": "trains on every copy; check for leakage between training and test set",
}

FEW_FRAMES = 16  # fewer are very short: the clips of most recipes are longer

SAME = 1.0  # gray levels by which frames may differ, at DECODED_SIDE, before something moves

DECODED_SIDE = 32  # pixels; side of the squares into which frames are drawn for the checks

UNEVEN = 0.25  # by which share of the median the time between frames may differ before the rate varies

CHUNK_BYTES = 2**20


@dataclass(frozen=True)
class VideoFacts(PictureFacts):
    """What one video is and has, its hash and its findings."""

    meanings: ClassVar = VIDEO_FINDINGS

    path: str
    width: int = 0  # pixels as displayed; 0 if undecodable
    height: int = 0
    findings: tuple[str, ...] = ()  # keys of VIDEO_FINDINGS
    reason: str = ""  # why it cannot be read, or where it is damaged
    sha256: str = ""
    dhash: int = 0  # of near duplicates, which are not looked for
    frames: int = 0
    seconds: float = 0.0  # from the first frame to the end of the last
    codec: str = ""

    @classmethod
    def summarize(cls, facts: Sequence[VideoFacts]) -> list[tuple[str, ...]]:
        """Return the rows of a table: smallest, median and largest of what differs between videos, and codecs."""
        usable = [each for each in facts if each.width]
        columns = {
            "frames": [each.frames for each in usable],
            "seconds": [each.seconds for each in usable],
            "frames per second": [each.frames / each.seconds for each in usable if each.seconds],
            "width": [each.width for each in usable],
            "height": [each.height for each in usable],
        }
        rows: list[tuple[str, ...]] = [("", "smallest", "median", "largest")]
        for name, values in columns.items():
            if values:
                ordered = sorted(values)
                rows.append((name, *(f"{ordered[at]:.4g}" for at in (0, len(values) // 2, -1))))
        codecs = ", ".join(f"{count:,} {name}" for name, count in Counter(each.codec for each in usable).most_common())
        return [*rows, ("codecs", codecs, "", "")] if codecs else []


def examine_videos(paths: list[str], workers: int, channels: int = 3) -> Iterator[VideoFacts]:
    """Decode every video completely and yield its facts, in order; with several processes if there are many.

    Raises:
        UserError: a process was killed.
    """
    count, examine = available_cores() if workers < 0 else workers, partial(examine_video, channels=channels)
    if count < 2 or len(paths) < 2 * count:
        yield from map(examine, paths)
        return
    yield from map_in_processes(examine, paths, count, chunksize=4)


def examine_video(path: str, channels: int = 3) -> VideoFacts:
    """Decode one video completely, with the functions that training uses."""
    try:
        digest = hash_video(path)
    except (OSError, UserError) as error:  # UserError: a damaged Parquet file
        return VideoFacts(path, findings=("unreadable",), reason=str(error))
    except Undecodable as error:
        return VideoFacts(path, findings=("undecodable",), reason=str(error))
    try:
        with open_frames(path, channels) as frames:
            return examine_frames(path, digest, frames)
    except Undecodable as error:
        return VideoFacts(path, findings=(finding_of(str(error)),), reason=str(error), sha256=digest)


def finding_of(reason: str) -> str:
    """Return the finding of a video that cannot be decoded for this reason."""
    words = {"audio only": "audio only", "no frames": "no frames", "no images": "no frames", "one size": "sizes differ"}
    return next((finding for text, finding in words.items() if text in reason), "undecodable")


def hash_video(path: str) -> str:
    """Return the SHA-256 of the contents of a file, of the frames of a folder, or of a member of an archive."""
    if parse_address(path):
        return hashlib.sha256(read_bytes(path)).hexdigest()
    digest = hashlib.sha256()
    for file in files_with_contents([path]):
        with retry_reading(file, lambda name=file: Path(name).open("rb")) as stream:
            while block := stream.read(CHUNK_BYTES):
                digest.update(block)
    return digest.hexdigest()


def examine_frames(path: str, digest: str, frames: Frames) -> VideoFacts:
    """Decode all frames and return the facts of the video. Raises Undecodable."""
    times, (height, width) = frames.times, frames.size
    if isinstance(frames, ContainerFrames):
        squares, damage = decode_stream(frames)
        codec, header = frames.index.codec, list(find_unusual_header(frames))
    else:
        squares = np.stack([shrink(frames.read([number])[0]) for number in range(len(times))])
        damage, header = {}, []
        codec = "images" if isinstance(frames, FolderFrames) else "array" if path.endswith(".npy") else "animation"
    findings = [*damage, *header, *find_unusual_frames(times, squares)]
    seconds = float(times[-1] + (np.median(np.diff(times)) if len(times) > 1 else 0))
    reason = "; ".join(filter(None, damage.values()))
    return VideoFacts(
        path, width, height, tuple(findings), reason, digest, frames=len(times), seconds=seconds, codec=codec
    )


def decode_stream(frames: ContainerFrames) -> tuple[UInt8[np.ndarray, "N h w"], dict[str, str]]:
    """Decode a whole stream into small gray squares; also return what is damaged in it, and how."""
    reader, squares, corrupt, sizes = PixelReader(FrameForm(DECODED_SIDE, DECODED_SIDE), 1), [], 0, set()
    for _, frame in frames.frames_from(0, set()):
        squares.append(reader.read(frame)[..., 0])
        corrupt += frame.is_corrupt
        sizes.add((frame.width, frame.height))
    if not squares:
        raise Undecodable(f"none of its frames can be decoded: its {frames.index.codec} data is damaged")
    index, damage, total = frames.index, {}, len(frames.times)
    if reason := index.damage or describe_missing(frames):
        damage["truncated"] = reason
    if corrupt or len(squares) < total:
        damage["damaged frames"] = f"{max(corrupt, total - len(squares)):,} of {total:,} frames are damaged"
    if len(sizes) > 1:
        damage["sizes differ"] = ""
    return np.stack(squares), damage


def describe_missing(frames: ContainerFrames) -> str:
    """Say how much of a stream is missing by its header; empty if nothing is."""
    index, last = frames.index, float(frames.times[-1])
    if index.declared > len(index.extent):
        return f"its header states {index.declared:,} frames, it has {len(index.extent):,}"
    if index.seconds > last + max(0.5, 0.1 * index.seconds):
        return f"its header states {index.seconds:.1f} seconds, its last frame is at {last:.1f}"
    return ""


def find_unusual_header(frames: ContainerFrames) -> Iterator[str]:
    """Yield the findings that the header and the time stamps alone give."""
    index = frames.index
    if index.form.is_turned:
        yield "rotated"
    if index.form.is_stretched:
        yield "oblong pixels"
    if not index.order.has_stamps:
        yield "no time stamps"


def find_unusual_frames(times: Float64[np.ndarray, "N"], squares: UInt8[np.ndarray, "M h w"]) -> Iterator[str]:
    """Yield the findings on the times and the contents of frames."""
    if times[-1] == times[0]:
        yield "zero duration"
    elif np.ptp(squares.astype(np.float32), axis=0).max() <= SAME:
        yield "constant"
    if len(times) < FEW_FRAMES:
        yield "very short"
    steps = np.diff(times)
    if len(steps) > 1 and (np.abs(steps - np.median(steps)) > UNEVEN * np.median(steps)).any():
        yield "variable rate"


def shrink(picture: UInt8[np.ndarray, "H W C"]) -> UInt8[np.ndarray, "h w"]:
    """Return a picture as a small gray square."""
    image: Any = Pillow.fromarray(picture if picture.shape[2] == 3 else picture[..., 0])
    return np.asarray(image.convert("L").resize((DECODED_SIDE, DECODED_SIDE), Pillow.Resampling.BOX))
