"""Measure what this machine can do: matmuls, copies, JPEG decoding."""

from __future__ import annotations

import io
import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image as Pillow

from openjepa.training.device import Device

try:
    import resource
except ImportError:  # Windows
    resource = None

MATMUL_SIDES = {"cpu": (1024, 2048), "gpu": (4096, 8192)}  # sides of the square matrices that are multiplied

COPY_BYTES = 2**27  # bytes

PHOTO_SIZE = (500, 375)  # width and height in pixels of the JPEG to decode, typical of photographs on the web


class MachineRates(NamedTuple):
    """What the machine reaches at most."""

    matrices: float  # FLOP/s of matmuls in the run's precision, the better of two sizes
    copy: float  # bytes/s read and written
    decode: float  # JPEGs of 500×375 pixels per second, on one core


def measure_machine(device: Device) -> MachineRates:
    """Measure matmuls and copies on the device, and JPEG decoding on one core."""
    source = torch.ones(COPY_BYTES // 4, device=device.device)
    copy = 2 * COPY_BYTES / fastest_seconds(lambda: source.clone(), device)
    return MachineRates(matmul_rate(device), copy, 1 / fastest_seconds(jpeg_decoder(), device))


def matmul_rate(device: Device, repeats: int = 12) -> float:
    """Return the FLOP/s of square matmuls in the device's precision: best of two sizes and of `repeats` calls each."""
    dtype, rates = torch.bfloat16 if device.bf16 else torch.float32, []
    generator = torch.Generator(device.device).manual_seed(0)  # its own, so that the global random state is unchanged
    for side in MATMUL_SIDES["cpu" if device.device.type == "cpu" else "gpu"]:
        a, b = (torch.randn(side, side, device=device.device, generator=generator).to(dtype) for _ in range(2))
        rates.append(2 * side**3 / fastest_seconds(lambda a=a, b=b: a @ b, device, repeats))
    return max(rates)


def jpeg_decoder() -> Callable[[], object]:
    """Return a function that decodes a JPEG of smooth noise from memory."""
    noise = np.random.default_rng(0).integers(0, 256, (PHOTO_SIZE[1] // 8, PHOTO_SIZE[0] // 8, 3), dtype=np.uint8)
    file = io.BytesIO()
    Pillow.fromarray(noise).resize(PHOTO_SIZE, Pillow.Resampling.BICUBIC).save(file, "JPEG", quality=90)
    return lambda: Pillow.open(io.BytesIO(file.getvalue())).load()


def time_call(function: Callable[[], Any], device: Device) -> tuple[Any, float]:
    """Call the function; return its value and the seconds until the device has finished."""
    start = time.perf_counter()
    value = function()
    if device.device.type != "cpu":
        torch.accelerator.synchronize()
    return value, time.perf_counter() - start


def fastest_seconds(function: Callable[[], Any], device: Device, repeats: int = 12) -> float:
    """Return the seconds of the fastest of several calls."""
    return min(time_call(function, device)[1] for _ in range(repeats))


def peak_memory(device: Device) -> int | None:
    """Return the peak memory in bytes: of the device on a GPU, else of this process; None on Windows."""
    if device.device.type == "cuda":
        return torch.cuda.max_memory_allocated()
    if resource is None:
        return None
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def describe_memory(peak: int | None) -> str:
    """Return a peak memory in GiB."""
    return "unknown on this system" if peak is None else f"{peak / 2**30:.1f} GiB"
