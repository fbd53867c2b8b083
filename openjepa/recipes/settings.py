"""Settings of `jepa decoder train`; without torch, so that --help is quick."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from openjepa.core.arguments import Run
from openjepa.core.options import Condition, Precision


@dataclass(frozen=True, kw_only=True)
class TrainDecoder:
    """Train a decoder on a run's images; the run's networks stay frozen. Called again, it resumes."""

    run: Run  # run folder, or weights from jepa convert
    out: Path | None = None  # folder of the decoder; default: RUN/decoder
    # what to sample from. features: the whole image from its features; prediction: a block from the predictor's output
    condition: Condition = "features"
    pooled: bool = True  # with --condition prediction: the block's mean token as in the paper; or every token by itself
    root: tuple[str, ...] = ()  # images to train on; default: the run's own
    dim: int = 256  # width of the decoder; a multiple of 4 · --num-heads
    depth: int = 8  # number of transformer blocks of the decoder
    num_heads: int = 4  # attention heads of the decoder
    lr: float = 1e-3  # peak learning rate
    batch_size: int = 64  # images per step
    budget: str = "1h"  # time for the training, such as 90m or 1h30m
    steps: int = 0  # number of steps; 0: as many as --budget allows
    seed: int = 0  # another seed, other weights, masks and noise
    device: str = "auto"  # cuda, mps or cpu; auto: the first of these that is available
    precision: Precision = "auto"  # auto: bf16 where the hardware multiplies it natively, else fp32
    threads: int = 0  # CPU threads; 0: all cores
