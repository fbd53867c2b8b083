"""Average gradients over ranks with DistributedDataParallel."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from openjepa.core.distributed import rank_and_size


def wrap_ddp(method: nn.Module, device: torch.device) -> nn.Module:
    """Wrap the method in DistributedDataParallel if there are several ranks; else return it unchanged.

    Of a method whose steps do not all use every weight, those without a gradient are looked for in each step.
    """
    if rank_and_size()[1] == 1:
        return method
    ids = [device.index] if device.type == "cuda" else None
    some_rest = not getattr(method, "uses_every_weight", True)
    return DistributedDataParallel(
        method, device_ids=ids, gradient_as_bucket_view=True, find_unused_parameters=some_rest
    )


@contextlib.contextmanager
def sync_only_when(module: nn.Module, last: bool) -> Iterator[None]:
    """Average gradients over ranks in the last micro-batch only; the others accumulate locally."""
    if isinstance(module, DistributedDataParallel) and not last:
        with module.no_sync():
            yield
    else:
        yield
