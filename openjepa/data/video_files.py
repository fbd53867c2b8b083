"""Video datasets: clips of files, or clips in memory.

B batch  S samples  F frames of a clip  C channels  H height  W width
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from openjepa.core.rng import CounterRNG
from openjepa.core.types import Samples, Skipped
from openjepa.data.clips import ClipSettings, Span, choose_frames, crop_clips, segment_spans
from openjepa.data.crops import Crops
from openjepa.data.cut_files import CutFiles, evaluation_starts
from openjepa.data.file_labels import FileLabels
from openjepa.data.video_folders import even_times
from openjepa.data.video_io import open_frames

STACKED_BYTES = 2**25  # of decoded clips that are cropped together

MIDDLE = 0.5  # where an evaluation clip starts, between the first and the last possible start


@runtime_checkable
class VideoViews(ClipSettings, Protocol):
    """The part of the video modality that a dataset needs: the frames of a clip, its size, cropping."""

    @property
    def channels(self) -> int: ...
    @property
    def size(self) -> tuple[int, int]: ...
    @property
    def eval_clips(self) -> int: ...
    def crops(self, height: Float[Tensor, "B"], width: Float[Tensor, "B"], rng: CounterRNG | None) -> Crops: ...


class VideoArray:
    """Videos in memory, all of the same length and size."""

    groups: Int[Tensor, "S"] | None = None

    def __init__(
        self,
        config: VideoViews,
        clips: UInt8[Tensor, "S N C H W"],
        label: Int[Tensor, "S"],
        fingerprint: str,
        classes: tuple[str, ...] = (),
    ):
        self.config, self.clips, self.label, self.fingerprint, self.classes = config, clips, label, fingerprint, classes

    def __len__(self) -> int:
        return len(self.clips)

    def source(self, index: int) -> str:
        return str(index)

    def read(self, index: Int[Tensor, "B"], rng: CounterRNG | None) -> Samples:
        """Choose frames and crop them; without `rng`, return the evaluation views."""
        if rng:
            return Samples((self.cut(index, rng.uniform("clip start").tolist(), rng),), self.label[index])
        views = tuple(self.cut(index, [u] * len(index), None) for u in evaluation_starts(self.config.eval_clips))
        return Samples(views, self.label[index])

    def cut(self, index: Int[Tensor, "B"], starts: list[float], rng: CounterRNG | None) -> UInt8[Tensor, "B F C h w"]:
        """Return a clip of each of some samples, at these starts from 0 to 1."""
        times = even_times(self.clips.shape[1])
        frames = [torch.from_numpy(choose_frames(self.config, times, u)) for u in starts]
        clips = torch.stack([self.clips[row, each] for row, each in zip(index.tolist(), frames, strict=True)])
        height, width = (torch.full((len(index),), float(side)) for side in self.clips.shape[3:])
        return crop_clips(clips, self.config.crops(height, width, rng), self.config.size)


class VideoFiles(CutFiles):
    """Clips of video files, folders of frames and arrays: one per file, or one for every so many seconds.

    Training starts a clip anywhere in its part of the file; evaluation reads the middle.
    """

    def __init__(
        self,
        config: VideoViews,
        paths: list[str],
        fingerprint: str | Callable[[], str],
        labels: FileLabels | None = None,
    ):
        self.config = config
        super().__init__(config, paths, fingerprint, labels)

    def spans_of(self, path: str) -> list[Span]:
        """Return the parts of a file that are samples. Raises Undecodable."""
        with open_frames(path, self.config.channels) as frames:
            return segment_spans(frames.times, self.every)

    def read(self, index: Int[Tensor, "B"], rng: CounterRNG | None) -> Samples:
        """Decode and crop the clips of a batch; without `rng`, return the evaluation views with their labels."""
        evaluation = [evaluation_starts(self.config.eval_clips)] * len(index)
        starts = rng.uniform("clip start")[:, None].tolist() if rng else evaluation
        decoded = (
            self.decode_or_replace(sample, starts[row], rng and rng.select(np.array([row])))
            for row, sample in enumerate(index.tolist())
        )
        views, skipped = [], list[list[Skipped]]()  # of each row
        for clips, undecodable in stack_equal_sizes(decoded):
            rows = np.arange(len(skipped), len(skipped) + len(clips))
            views.append(crop_views(self.config, clips, rng.select(rows) if rng else None))
            skipped += undecodable
        label = self.labels_of(index, skipped, rng)
        return Samples(torch.cat(views).unbind(1), label, tuple(itertools.chain(*skipped)))

    def decode_sample(self, sample: int, views: list[float]) -> UInt8[Tensor, "V F C H W"]:
        """Decode the clips of a sample at these starts, from 0 to 1. Raises Undecodable."""
        path, span = self.paths[self.file_index[sample]], self.spans[sample]
        return torch.stack([decode_clip(self.config, path, u, span) for u in views])

    def blank(self, views: int) -> UInt8[Tensor, "V F C H W"]:
        """Return black clips."""
        return torch.zeros(views, self.config.frames, self.config.channels, *self.config.size, dtype=torch.uint8)


Decoded = tuple[UInt8[Tensor, "V F C H W"], list[Skipped]]  # the clips of a row, and what was skipped on the way


def stack_equal_sizes(rows: Iterator[Decoded]) -> Iterator[tuple[UInt8[Tensor, "R V F C H W"], list[list[Skipped]]]]:
    """Stack the clips of neighbors of the same size, to be cropped together, as long as they are small."""
    stack: list[Decoded] = []
    for clips, skipped in rows:
        if stack and (clips.shape != stack[0][0].shape or len(stack) * clips.numel() > STACKED_BYTES):
            yield torch.stack([each for each, _ in stack]), [each for _, each in stack]
            stack = []
        stack.append((clips, skipped))
    if stack:
        yield torch.stack([each for each, _ in stack]), [each for _, each in stack]


def crop_views(
    config: VideoViews, clips: UInt8[Tensor, "R V F C H W"], rng: CounterRNG | None
) -> UInt8[Tensor, "R V F C h w"]:
    """Crop all frames of each clip alike; training has one view of each sample."""
    rows = clips.flatten(0, 1)
    height, width = (torch.full((len(rows),), float(side)) for side in rows.shape[3:])
    return crop_clips(rows, config.crops(height, width, rng), config.size).unflatten(0, clips.shape[:2])


def decode_clip(config: VideoViews, path: str, u: float, span: Span) -> UInt8[Tensor, "F C H W"]:
    """Decode the frames of a clip that starts at `u` of the possible starts in a part of a file.

    Raises Undecodable if the file has no frame that can be decoded.
    """
    with open_frames(path, config.channels) as frames:
        index = choose_frames(config, frames.times, u, span)
        return torch.from_numpy(np.ascontiguousarray(frames.read(index.tolist()))).permute(0, 3, 1, 2)
