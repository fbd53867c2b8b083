"""Choose the device and the precision of a run."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor

from openjepa.core.distributed import local_rank
from openjepa.core.errors import UserError
from openjepa.core.options import Precision
from openjepa.nn.cpu_kernels import HAS_ONEDNN_BF16


class Device(NamedTuple):
    """A torch device and the precision of its matmuls; weights and sums are always fp32."""

    device: torch.device
    bf16: bool

    @property
    def precision(self) -> str:
        return "bf16" if self.bf16 else "fp32"

    def autocast(self) -> AbstractContextManager:
        """Return a context in which matmuls run in this precision."""
        return torch.autocast(self.device.type, torch.bfloat16) if self.bf16 else nullcontext()

    def move(self, value: Any) -> Any:
        """Move a tensor, or every tensor in a (named) tuple, to the device."""
        if isinstance(value, Tensor):
            return value.to(self.device, non_blocking=True)
        if isinstance(value, tuple):
            moved = [self.move(each) for each in value]
            return type(value)(*moved) if hasattr(value, "_fields") else tuple(moved)
        return value


def choose_device(device: str = "auto", precision: Precision = "auto") -> Device:
    """Return the device and precision of a run.

    "auto" is the first of cuda, mps and cpu that is available, and bf16 where the hardware multiplies it natively.
    Raises UserError if the device is absent, or if bf16 is requested of a CPU without fast bf16 matmuls.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    kind = device.split(":")[0]
    available = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not available.get(kind, False):
        raise UserError(f"device {device} is not available on this machine: try --device cpu")
    if precision == "bf16" and kind == "cpu" and not HAS_ONEDNN_BF16:
        raise UserError("this CPU has no fast bf16 matmuls: try --precision fp32")
    chosen = torch.device(f"cuda:{local_rank()}") if device == "cuda" else torch.device(device)
    if chosen.type == "cuda":
        torch.cuda.set_device(chosen)
    return Device(chosen, precision == "bf16" or (precision == "auto" and has_native_bf16(chosen)))


def has_native_bf16(device: torch.device) -> bool:
    """Return whether the hardware multiplies bf16 natively, not by emulation."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "cpu":
        return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
    return False
