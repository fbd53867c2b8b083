"""Turn a path, an array or a tensor into an evaluation stretch.   C channels  S samples  L samples of a stretch"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from openjepa.core.errors import UserError
from openjepa.data.audio_files import AudioViews, Stretch, cut, decode
from openjepa.data.audio_io import LARGEST, find_damaged, mix, open_sound
from openjepa.data.clips import WHOLE_FILE, Span, parse_clip_name
from openjepa.data.image_io import Undecodable
from openjepa.data.video_files import MIDDLE

AudioInput = np.ndarray | Tensor | str | Path

EXPECTED = "give a path, or an array or tensor (channels, samples) of values from -1 to 1 at the rate of --data.rate"


def evaluation_stretch(source: AudioInput, config: AudioViews) -> Float[Tensor, "C L"]:
    """Return the stretch in the middle of a recording, or the one that FILE#t=SECONDS names.

    Raises UserError if the source is no recording.
    """
    stretch = Stretch(MIDDLE)
    try:
        if isinstance(source, str | Path):
            path, span = part_of_file(str(source), config)
            with open_sound(path) as sound:
                return torch.from_numpy(decode(config, sound, stretch, span))
        return torch.from_numpy(cut(config, mix(values_of(source), config.channels), stretch))
    except Undecodable as error:
        name = source if isinstance(source, str | Path) else "the array"
        raise UserError(f"{name}: {error}") from error


def part_of_file(source: str, config: AudioViews) -> tuple[str, Span]:
    """Return the file and the part of it that a path or FILE#t=SECONDS names: as long as a stretch, or `every`."""
    path, start = parse_clip_name(source)
    return path, WHOLE_FILE if start is None else Span(start, config.every or config.samples / config.rate)


def values_of(source: Any) -> np.ndarray:
    """Return the values of an array or tensor, full scale as 1. Raises UserError for anything else."""
    if not isinstance(source, np.ndarray | Tensor):
        raise UserError(f"a {type(source).__name__} is not a recording: {EXPECTED}")
    values = source.cpu().numpy() if isinstance(source, Tensor) else source
    if values.ndim not in (1, 2) or not values.size:
        raise UserError(f"a recording has 2 axes, got shape {tuple(values.shape)}: {EXPECTED}")
    if values.dtype.kind == "i":
        values = values / float(np.iinfo(values.dtype).max + 1)
    if values.dtype.kind != "f" or find_damaged(np.atleast_2d(values).astype(np.float32)).any():
        raise UserError(
            f"the values of a recording are finite numbers up to {LARGEST:g}, got {values.dtype}: {EXPECTED}"
        )
    return np.atleast_2d(values).astype(np.float32)


def iter_sounds(sources: Any) -> Iterator[AudioInput]:
    """Yield one recording after the other, from one, a batch (recordings, channels, samples) or a sequence."""
    if isinstance(sources, str | Path) or (isinstance(sources, np.ndarray | Tensor) and sources.ndim < 3):
        yield sources
    elif isinstance(sources, Iterable) and not isinstance(sources, bytes):
        yield from sources
    else:
        raise UserError(f"a {type(sources).__name__} is not a recording: {EXPECTED}")
