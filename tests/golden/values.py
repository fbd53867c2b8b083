"""Results as plain values: numbers, digests of their bits, and what differs between two results."""

from __future__ import annotations

import hashlib
import math
import platform
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from openjepa.training.device import has_native_bf16

BITS, EXACT = "bits:", "exact:"  # digests of floats, which another machine may round differently, and of all else
Array = Tensor | np.ndarray


class Difference(NamedTuple):
    """A value that is not what was stored."""

    where: str
    stored: Any
    found: Any

    def __str__(self) -> str:
        return f"{self.where}: {self.stored!r} stored, {self.found!r} found"


class Tolerance(NamedTuple):
    """How far floats may be apart."""

    relative: float
    absolute: float

    def allows(self, one: float, other: float) -> bool:
        return math.isclose(one, other, rel_tol=self.relative, abs_tol=self.absolute)


def machine() -> dict[str, Any]:
    """Describe what last bits depend on."""
    told = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    lines = dict(line.split("\t", 1) for line in reversed(told) if "\t" in line)
    wanted = ("vendor_id", "cpu family", "model", "model name")
    return {
        "torch": torch.__version__,
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "machine": platform.machine(),
        "processor": " ".join(lines.get(each, "").strip("\t: ") for each in wanted),
        "native bf16": has_native_bf16(torch.device("cpu")),
        "bf16 products": torch.ops.mkldnn._is_mkldnn_bf16_supported(),
    }


def raw(value: Array) -> bytes:
    """Give an array's kind, shape and bytes."""
    if isinstance(value, Tensor):
        value = value.detach().cpu().contiguous()
        kind, shape = str(value.dtype).removeprefix("torch."), tuple(value.shape)
        return f"{kind} {shape} ".encode() + value.flatten().view(torch.uint8).numpy().tobytes()
    return f"{value.dtype} {value.shape} ".encode() + np.ascontiguousarray(value).tobytes()


def digest(parts: Iterable[bytes]) -> str:
    """Hash some bytes after the other."""
    total = hashlib.sha256()
    for part in parts:
        total.update(part)
    return total.hexdigest()[:32]


def bits(*values: Array) -> str:
    """Digest floats."""
    return BITS + digest(raw(value) for value in values)


def exact(*values: Array | None) -> str:
    """Digest whole numbers, which are the same on every machine."""
    return EXACT + digest(b"none" if value is None else raw(value) for value in values)


def tensors(state: dict[str, Tensor]) -> dict[str, str]:
    """Digest named tensors in the order of their names, and once more whatever they are called."""
    named = digest(part for name in sorted(state) for part in (name.encode(), raw(state[name])))
    return {"with names": BITS + named, "without names": BITS + digest(sorted(raw(value) for value in state.values()))}


def numbers(value: Array, count: int = 4) -> dict[str, Any]:
    """Show a few of many floats, and digest all."""
    flat = torch.as_tensor(value).detach().double().flatten()
    kept = flat[:: max(1, len(flat) // count)][:count]
    return {
        "shape": list(value.shape),
        "some": kept.tolist(),
        "mean of sizes": float(flat.abs().mean()),
        "all": bits(value),
    }


def statistics(state: dict[str, Tensor]) -> dict[str, list[float]]:
    """Give mean size and norm of each network's weights."""
    groups: dict[str, list[Tensor]] = {}
    for name in sorted(state):
        groups.setdefault(name.split(".")[0].replace("_", " "), []).append(state[name].double().flatten())
    joined = {name: torch.cat(parts) for name, parts in groups.items()}
    return {name: [float(x.abs().mean()), float(x.norm())] for name, x in joined.items()}


def differences(stored: Any, found: Any, tolerance: Tolerance | None, where: str = "") -> Iterator[Difference]:
    """Yield what differs; with a tolerance floats may be that far apart and digests of floats are left out."""
    if isinstance(stored, dict) and isinstance(found, dict):
        for name in sorted(stored.keys() | found.keys()):
            inner = f"{where} / {name}" if where else name
            if name in stored and name in found:
                yield from differences(stored[name], found[name], tolerance, inner)
            else:
                yield Difference(inner, stored.get(name, "nothing"), found.get(name, "nothing"))
    elif isinstance(stored, list) and isinstance(found, list) and len(stored) == len(found):
        for place, (one, other) in enumerate(zip(stored, found, strict=True)):
            yield from differences(one, other, tolerance, f"{where} [{place}]")
    elif tolerance and isinstance(stored, float) and isinstance(found, float):
        if not tolerance.allows(stored, found):
            yield Difference(where, stored, found)
    elif tolerance and isinstance(stored, str) and stored.startswith(BITS):
        pass
    elif stored != found or type(stored) is not type(found):
        yield Difference(where, stored, found)
