"""Video clips as grids of tubelets.   B batch  F frames  C channels  H height  W width  N tokens  E raw token width"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.export import Dim

from openjepa.core.capabilities import Control
from openjepa.core.errors import UserError
from openjepa.core.options import EvalCrop
from openjepa.core.protocols import Dataset, Tokenizer
from openjepa.core.rng import CounterRNG
from openjepa.core.types import FileList, Layout, Tokens
from openjepa.data.crops import Crops, center_crops, random_crops
from openjepa.data.file_labels import FileLabels
from openjepa.data.normalization import measure_mean_std
from openjepa.data.video_baselines import frame_differences, middle_frame, raw_pixels
from openjepa.data.video_controls import repeat_middle_frame, reverse_time, shuffle_frames
from openjepa.data.video_doctor import VideoFacts, examine_videos
from openjepa.data.video_files import VideoArray, VideoFiles
from openjepa.data.video_formats import CONTAINER_SUFFIXES
from openjepa.data.video_inputs import VideoInput, evaluation_clip, iter_videos, read_small
from openjepa.data.video_listing import list_videos
from openjepa.nn.positions import grid_positions
from openjepa.nn.stems import TubeletEmbed

STRIP = 4  # frames of a clip in a picture of it


@dataclass(frozen=True)
class Video:
    """Video as grids of tubelets: the files, the frames and the crop of a clip, and the tubelets.

    A clip starts anywhere in a file; all its frames have the same random crop, as in V-JEPA.
    """

    suffixes: ClassVar = CONTAINER_SUFFIXES | {".npy"}  # GIF is an image unless --modality video is given
    arrays: ClassVar = (("u", 4),)  # .npy: kind of value and number of axes (frames, height, width, channels)
    plural: ClassVar[str] = "clips"  # what messages call the samples
    archives: ClassVar = False  # a folder of archives holds images, unless --modality video says otherwise

    # folders of video files, or of folders of frames; .tar or .parquet files; a .csv file with lines `path label`
    root: tuple[str, ...] = ()
    frames: int = 16  # frames of a clip; a multiple of --data.tubelet
    # frames of the file from one frame of a clip to the next; 0: the clip is spread evenly over the file
    stride: int = 4
    fps: float = 0.0  # frames per second of a clip, whatever the rate of the file; 0: --data.stride decides
    every: float = 0.0  # seconds from one clip of a file to the next, each a sample; 0: one clip per file
    size: tuple[int, int] = (224, 224)  # height and width of a crop in pixels; multiples of --data.patch
    patch: int = 16  # side of a tubelet in pixels
    tubelet: int = 2  # frames of a tubelet
    channels: int = 3  # 1: gray; 3: RGB
    # part of every frame that is used, such as the mouth in clips of a fixed camera: left, top, right and bottom, as
    # fractions of the width and the height
    region: tuple[float, float, float, float] = (0.0, 0.0, 1.0, 1.0)
    crop_scale: tuple[float, float] = (0.3, 1.0)  # area of a random crop, as a fraction of the region: min and max
    crop_aspect: tuple[float, float] = (3 / 4, 4 / 3)  # width / height of a random crop: min and max
    flip: bool = False  # mirror half of the training clips horizontally, as V-JEPA does; it turns left into right
    # how probes and figures fit a frame into --data.size. crop: its largest centered box; margin: the middle 7/8 of
    # that; squash: the whole frame, aspect ratio not kept
    eval_crop: EvalCrop = "crop"
    eval_clips: int = 1  # clips of a file, evenly spaced in time, whose features probes and jepa embed average
    mean: tuple[float, ...] = ()  # mean of each channel, of pixel values in [0, 1]; empty: measured on the data
    std: tuple[float, ...] = ()  # standard deviation of each channel, likewise; empty: measured on the data
    input_name: ClassVar[str] = "pixel_values_videos"  # of an exported program
    input_text: ClassVar[str] = "normalized clips (batch, frames, channels, height, width)"

    def __post_init__(self):
        counts = ("patch", "tubelet", "frames", "eval_clips")
        for name, value in (*((name, getattr(self, name)) for name in counts), *(("size", side) for side in self.size)):
            if value < 1:
                raise UserError(f"--data.{name.replace('_', '-')} must be >= 1, got {value}")
        if any(side % self.patch for side in self.size):
            better = " ".join(str(max(1, round(side / self.patch)) * self.patch) for side in self.size)
            raise UserError(
                f"frame size {self.size[0]}×{self.size[1]} is not a multiple of patch {self.patch}: try --data.size "
                f"{better}"
            )
        if self.frames % self.tubelet:
            better = max(1, self.frames // self.tubelet) * self.tubelet
            raise UserError(
                f"{self.frames} frames are not a multiple of tubelets of {self.tubelet}: try --data.frames {better}"
            )
        if self.channels not in (1, 3):
            raise UserError(f"--data.channels of video must be 1 (gray) or 3 (RGB), got {self.channels}")
        for name, value in (("stride", self.stride), ("fps", self.fps), ("every", self.every)):
            if value < 0:
                raise UserError(f"--data.{name} must be >= 0, got {value:g}")
        left, top, right, bottom = self.region
        if not (0 <= left < right <= 1 and 0 <= top < bottom <= 1):
            raise UserError(
                f"--data.region takes left, top, right and bottom in [0, 1], as 0.35 0.6 0.65 0.85, got {self.region}"
            )
        if not 0 < self.crop_scale[0] <= self.crop_scale[1] <= 1:
            raise UserError(f"crop scale {self.crop_scale} is not a range in (0, 1]: try --data.crop-scale 0.3 1.0")
        if not 0 < self.crop_aspect[0] <= self.crop_aspect[1]:
            raise UserError(f"crop aspect {self.crop_aspect} is not a range above 0: try --data.crop-aspect 0.75 1.33")

    @property
    def tubelets(self) -> tuple[int, int, int]:
        """Return tubelets along time, and rows and columns of them."""
        return self.frames // self.tubelet, self.size[0] // self.patch, self.size[1] // self.patch

    @property
    def layout(self) -> Layout:
        return Layout.grid(*self.tubelets)

    @property
    def token_dim(self) -> int:
        return self.channels * self.tubelet * self.patch**2

    def listing(self) -> FileList:
        return list_videos(self.root)

    def dataset(self, source: FileList, cache: Path | None = None) -> VideoFiles:
        """Open the clips of a list of files; with `every`, the times of all files are read."""
        fingerprint = source.fingerprint if cache else source.known_fingerprint
        return VideoFiles(self, source.paths, fingerprint, FileLabels.of(source))

    def synthetic(self, size: int, seed: int) -> Dataset:
        """Render scenes in motion; the label is the direction of the red object."""
        from openjepa.data.synthetic.moving_scenes import in_channels, render_clips

        scenes = render_clips(size, self.frames, self.size[0], seed)
        clips = in_channels(scenes.clips, self.channels)
        return VideoArray(self, clips, scenes.direction, f"moving-scenes-{size}-{seed}")

    def tokens(self, view: UInt8[Tensor, "B F C H W"]) -> Tokens:
        """Normalize the clips and cut them into tubelets, rows of C·t·p·p values.

        Positions are (x, y, t) = (column, row, time), rescaled to the grid of the trained size.
        """
        return self.cut_tubelets(self.normalize(view))

    def cut_tubelets(self, clips: Float[Tensor, "B F C H W"]) -> Tokens:
        """Cut normalized clips into tubelets, as `tokens` does."""
        batch, frames, channels, height, width = clips.shape
        if height % self.patch or width % self.patch or frames % self.tubelet:
            raise UserError(
                f"a clip of {frames} frames of {height}×{width} pixels does not divide into tubelets of "
                f"{self.tubelet}×{self.patch}×{self.patch}"
            )
        times, rows, columns = frames // self.tubelet, height // self.patch, width // self.patch
        x = clips.view(batch, times, self.tubelet, channels, rows, self.patch, columns, self.patch)
        x = x.permute(0, 1, 4, 6, 3, 2, 5, 7).reshape(batch, times * rows * columns, -1)
        pos = grid_positions(times, rows, columns, trained_grid=self.tubelets).to(clips.device)
        return Tokens(x, pos.expand(batch, -1, -1))

    def normalize(self, view: UInt8[Tensor, "B F C H W"]) -> Float[Tensor, "B F C H W"]:
        """Subtract each channel's mean and divide by its standard deviation."""
        mean, std = self.mean_and_std(view.device)
        return (view.float() - mean) / std

    def mean_and_std(self, device: torch.device) -> tuple[Float[Tensor, "C 1 1"], Float[Tensor, "C 1 1"]]:
        """Return each channel's mean and standard deviation on the scale of bytes, 0 to 255."""
        mean, std = (torch.tensor(each, device=device).view(-1, 1, 1) * 255 for each in (self.mean, self.std))
        return mean, std

    def tokenizer(self, dim: int) -> Tokenizer:
        return TubeletEmbed(self.channels, self.tubelet, self.patch, dim)

    def tokenizer_flops(self, dim: int) -> int:
        return 2 * self.token_dim * dim

    def crops(self, height: Float[Tensor, "B"], width: Float[Tensor, "B"], rng: CounterRNG | None) -> Crops:
        """Draw training crops of the region for clips of these sizes; without `rng`, return the evaluation crops."""
        left, top, right, bottom = self.region
        inside = ((bottom - top) * height).round().clamp(min=1), ((right - left) * width).round().clamp(min=1)
        if rng is None:
            crops = center_crops(self.size, *inside, self.eval_crop)
        else:
            crops = random_crops(self.crop_scale, self.crop_aspect, self.flip, *inside, rng)
        return crops.moved((top * height).round(), (left * width).round())

    def read(self, source: VideoInput, size: Any = None) -> UInt8[Tensor, "F C H W"]:
        """Return the clip in the middle of a file, or the one that FILE#t=SECONDS names; `size`: another frame size.

        Takes a path of a video, a folder of frames or an image; an array (F, H, W, C) or a tensor (F, C, H, W).
        """
        return evaluation_clip(source, self if size is None else dataclasses.replace(self, size=size))

    def iterate(self, sources: Any) -> Iterator[VideoInput]:
        """Yield single videos, also from a tensor (B, F, C, H, W) or array (B, F, H, W, C)."""
        return iter_videos(sources)

    def picture(self, view: UInt8[Tensor, "F C H W"]) -> UInt8[np.ndarray, "h w 3"]:
        """Return frames from first to last side by side."""
        return np.concatenate(list(self.play(view[strip_frames(len(view))])), axis=1)

    def paint(self, view: UInt8[Tensor, "F C H W"], colors: Float[Tensor, "N 3"]) -> UInt8[np.ndarray, "h w 3"]:
        """Return one pixel per tubelet, of those that the frames of `picture` belong to."""
        rows, columns = view.shape[2] // self.patch, view.shape[3] // self.patch
        times = [frame // self.tubelet for frame in strip_frames(len(view))]
        cells = (colors.view(-1, rows, columns, 3) * 255).round().to(torch.uint8)
        return np.concatenate(list(cells[times].cpu().numpy()), axis=1)

    def play(self, view: UInt8[Tensor, "F C H W"]) -> UInt8[np.ndarray, "F H W 3"]:
        """Return all frames in RGB."""
        return view.expand(-1, 3, -1, -1).permute(0, 2, 3, 1).contiguous().cpu().numpy()

    def thumbnail(self, source: str, side: int) -> UInt8[np.ndarray, "H W 3"]:
        """Return the whole frame in the middle of the evaluation clip, its longer side of `side` pixels."""
        return read_small(source, self, side, [self.frames // 2])[0]

    def moving_thumbnail(self, source: str, side: int) -> UInt8[np.ndarray, "F H W 3"]:
        """Return all frames of the evaluation clip, their longer side of `side` pixels."""
        return read_small(source, self, side, list(range(self.frames)))

    def unpatchify(
        self, x: Float[Tensor, "B N E"], grid: tuple[int, int, int] | None = None
    ) -> UInt8[Tensor, "B F C H W"]:
        """Invert `tokens`: assemble clips from tubelets and clip them to bytes."""
        times, rows, columns = grid or self.tubelets
        x = x.float().view(len(x), times, rows, columns, self.channels, self.tubelet, self.patch, self.patch)
        x = x.permute(0, 1, 5, 4, 2, 6, 3, 7).flatten(1, 2).flatten(3, 4).flatten(4, 5)
        mean, std = self.mean_and_std(x.device)
        return (x * std + mean).round().clamp(0, 255).to(torch.uint8)

    @property
    def statistics(self) -> dict[str, tuple[float, ...]]:
        return {"mean": self.mean, "std": self.std}

    def measure(self, data: Dataset) -> Video:
        """Return the modality with the mean and the standard deviation of each channel."""
        if self.mean:
            return self
        mean, std = measure_mean_std(data, max_samples=256, batch_size=8)
        return dataclasses.replace(self, mean=mean, std=std)

    def describe(self) -> str:
        step = "one after the other" if self.stride == 1 else f"{self.stride} apart"
        rate = f"{self.fps:g} per second" if self.fps else step if self.stride else "spread over the file"
        return f"{self.frames} frames ({rate}) of {self.size[0]}×{self.size[1]} px, tubelet {self.tubelet}×{self.patch}"

    def inspect(self, paths: list[str], workers: int) -> Iterator[VideoFacts]:
        """Yield frames, size, hash and problems of every video."""
        return examine_videos(paths, workers, self.channels)

    def baselines(self) -> dict[str, Callable[[UInt8[Tensor, "B F C H W"]], Float[Tensor, "B K"]]]:
        """Return pixels of the clip, of its middle frame, and differences of its frames, at low resolution."""
        return {"raw pixels": raw_pixels, "middle frame": middle_frame, "frame differences": frame_differences}

    def controls(self) -> dict[str, Control]:
        """Return clips without motion, without the order of frames, and backwards."""
        return {
            "single frame": Control(repeat_middle_frame),
            "shuffled frames": Control(shuffle_frames),
            "reversed time": Control(reverse_time, trained=False),
        }

    def example_input(self, batch: int, more: int = 0) -> Float[Tensor, "B F C H W"]:
        """Return normalized clips of noise, of the trained size, or `more` patches larger and tubelets longer."""
        height, width = (side + more * self.patch for side in self.size)
        shape = (batch, self.frames + more * self.tubelet, self.channels, height, width)
        return self.normalize(torch.randint(0, 256, shape, generator=torch.Generator().manual_seed(batch)).byte())

    def input_tokens(self, inputs: Float[Tensor, "B F C H W"]) -> Tokens:
        """Return the tubelets of normalized clips."""
        return self.cut_tubelets(inputs)

    def free_axes(self) -> dict[int, Any]:
        """Return time, height and width, in multiples of the tubelet."""
        times, rows, columns = (Dim(name, min=2, max=4096) for name in ("times", "rows", "columns"))
        return {1: self.tubelet * times, 3: self.patch * rows, 4: self.patch * columns}


def strip_frames(count: int) -> list[int]:
    """Return the frames of a clip that a picture of it has, evenly spaced, the first and the last among them."""
    return np.linspace(0, count - 1, min(STRIP, count)).round().astype(int).tolist()
