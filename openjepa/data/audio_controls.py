"""Take the order of time away from stretches of sound.   B batch  C channels  L samples"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

PIECES = 20  # of a stretch that is shuffled


def shuffle_pieces(view: Float[Tensor, "B C L"]) -> Float[Tensor, "B C L"]:
    """Return stretches whose pieces are in another order, the same for all."""
    order = torch.randperm(PIECES, generator=torch.Generator().manual_seed(0)).to(view.device)
    length = view.shape[-1] // PIECES
    pieces = view[..., : length * PIECES].unflatten(-1, (PIECES, length))
    return torch.cat([pieces[..., order, :].flatten(-2), view[..., length * PIECES :]], -1)


def reverse_time(view: Float[Tensor, "B C L"]) -> Float[Tensor, "B C L"]:
    """Return stretches backwards."""
    return view.flip(-1)
