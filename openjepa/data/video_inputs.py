"""Turn a path, an array or a tensor into an evaluation clip.   F frames  C channels  H height  W width"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image as Pillow
from torch import Tensor

from openjepa.core.errors import UserError
from openjepa.data.clips import WHOLE_FILE, Span, choose_frames, parse_clip_name
from openjepa.data.image_io import Undecodable
from openjepa.data.video_files import MIDDLE, VideoViews, crop_views, decode_clip
from openjepa.data.video_folders import even_times
from openjepa.data.video_io import open_frames

VideoInput = np.ndarray | Tensor | str | Path

EXPECTED = "give a path, an array (frames, height, width, channels) or a tensor (frames, channels, height, width)"


def evaluation_clip(source: VideoInput, config: VideoViews) -> UInt8[Tensor, "F C h w"]:
    """Return the evaluation clip of a file, an array or a tensor. Raises UserError if it is not a video."""
    if isinstance(source, str | Path):
        part = part_of_file(str(source), config)
        try:
            clip = decode_clip(config, part.path, part.u, part.span)
        except Undecodable as error:
            raise UserError(f"{source}: {error}") from error
    else:
        frames = clip_of(source)
        if frames.shape[1] != config.channels:
            raise UserError(f"the encoder takes {config.channels} channels, got {frames.shape[1]}: {EXPECTED}")
        clip = frames[choose_frames(config, even_times(len(frames)), MIDDLE)]
    return crop_views(config, clip[None, None], None)[0, 0]


class FilePart(NamedTuple):
    """Where in a file a clip starts: at `u` of the possible starts in a span."""

    path: str
    span: Span
    u: float


def part_of_file(source: str, config: VideoViews) -> FilePart:
    """Return the file and the part of it that a path or FILE#t=SECONDS names."""
    path, start = parse_clip_name(source)
    if start is None:
        return FilePart(path, WHOLE_FILE, MIDDLE)
    return FilePart(path, Span(start, config.every or float("inf")), MIDDLE if config.every else 0.0)


def read_small(source: str, config: VideoViews, side: int, chosen: list[int]) -> UInt8[np.ndarray, "K H W 3"]:
    """Decode some frames of a file's evaluation clip, uncropped in RGB, the longer side scaled to `side` pixels.

    Raises UserError if the file cannot be decoded.
    """
    part = part_of_file(source, config)
    try:
        with open_frames(part.path, config.channels) as frames:
            index = choose_frames(config, frames.times, part.u, part.span)[chosen].tolist()
            pixels = frames.read(index)
    except Undecodable as error:
        raise UserError(f"{source}: {error}") from error
    height, width = (max(1, round(length * side / max(pixels.shape[1:3]))) for length in pixels.shape[1:3])
    rgb = np.broadcast_to(pixels, (*pixels.shape[:3], 3))
    return np.stack([np.asarray(Pillow.fromarray(frame).resize((width, height))) for frame in rgb])


def clip_of(source: Any) -> UInt8[Tensor, "F C H W"]:
    """Return an array (F, H, W, C) or a tensor (F, C, H, W) as a tensor. Raises UserError for anything else."""
    if not isinstance(source, np.ndarray | Tensor):
        raise UserError(f"a {type(source).__name__} is not a video: {EXPECTED}")
    if source.ndim != 4 or not len(source):
        raise UserError(f"a video has 4 axes, got shape {tuple(source.shape)}: {EXPECTED}")
    clip = torch.from_numpy(source).permute(0, 3, 1, 2) if isinstance(source, np.ndarray) else source.cpu()
    if clip.dtype != torch.uint8:
        raise UserError(f"pixels must be uint8, got {clip.dtype}: for values in [0, 1] give (255 * x).round() as uint8")
    return clip


def iter_videos(sources: Any) -> Iterator[VideoInput]:
    """Yield one video after the other, from one video, a batch or a sequence."""
    if isinstance(sources, str | Path) or (isinstance(sources, np.ndarray | Tensor) and sources.ndim == 4):
        yield sources
    elif isinstance(sources, Iterable) and not isinstance(sources, bytes):
        yield from sources
    else:
        raise UserError(f"a {type(sources).__name__} is not a video: {EXPECTED}")
