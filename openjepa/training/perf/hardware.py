"""Measure what this machine can do: matmuls, copies, JPEG decoding."""

from __future__ import annotations

import io
import resource
import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image as Pillow

from openjepa.training.device import Device

MATMUL_SIDES = {"cpu": (1024, 2048), "gpu": (4096, 8192)}  # sides of the matrices whose product sets the ceiling

COPY_BYTES = 2**27  # bytes

PHOTO_SIZE = (500, 375)  # pixels of the JPEG that is decoded, as wide and high as photographs on the web


class MachineRates(NamedTuple):
    """Ceilings."""

    matrices: float  # FLOP/s of products in the run's precision, the better of two sizes
    copy: float  # bytes/s read and written
    decode: float  # JPEG pictures of 500×375 a second, on one core


def measure_machine(where: Device) -> MachineRates:
    """The ceilings of this machine: products and copies on the device, decoding on one core."""
    source = torch.ones(COPY_BYTES // 4, device=where.device)
    copy = 2 * COPY_BYTES / fastest_seconds(lambda: source.clone(), where)
    return MachineRates(matmul_rate(where), copy, 1 / fastest_seconds(jpeg_decoder(), where))


def matmul_rate(where: Device, times: int = 12) -> float:
    """FLOP/s of the better of two sizes of square products, in the place's precision; the best of so many times."""
    dtype, rates = torch.bfloat16 if where.bf16 else torch.float32, []
    generator = torch.Generator(where.device).manual_seed(0)  # the caller's random state is left alone
    for side in MATMUL_SIDES["cpu" if where.device.type == "cpu" else "gpu"]:
        a, b = (torch.randn(side, side, device=where.device, generator=generator).to(dtype) for _ in range(2))
        rates.append(2 * side**3 / fastest_seconds(lambda a=a, b=b: a @ b, where, times))
    return max(rates)


def jpeg_decoder() -> Callable[[], object]:
    """Decodes a JPEG of smooth noise, from memory."""
    noise = np.random.default_rng(0).integers(0, 256, (PHOTO_SIZE[1] // 8, PHOTO_SIZE[0] // 8, 3), dtype=np.uint8)
    file = io.BytesIO()
    Pillow.fromarray(noise).resize(PHOTO_SIZE, Pillow.Resampling.BICUBIC).save(file, "JPEG", quality=90)
    return lambda: Pillow.open(io.BytesIO(file.getvalue())).load()


def time_call(function: Callable[[], Any], where: Device) -> tuple[Any, float]:
    """What a call gives, and the seconds it takes until the device is done."""
    began = time.perf_counter()
    value = function()
    if where.device.type != "cpu":
        torch.accelerator.synchronize()
    return value, time.perf_counter() - began


def fastest_seconds(function: Callable[[], Any], where: Device, times: int = 12) -> float:
    """Seconds of the fastest of several calls."""
    return min(time_call(function, where)[1] for _ in range(times))


def peak_memory(where: Device) -> int:
    """Bytes: of the device's memory on a GPU, else of this process."""
    if where.device.type == "cuda":
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
