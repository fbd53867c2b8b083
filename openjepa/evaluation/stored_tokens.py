"""Keep the tokens of a frozen encoder in memory, so that heads on them train without encoding again."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from openjepa.core.rng import CounterRNG, epoch_order
from openjepa.evaluation.features import DatasetEncoder, Epochs
from openjepa.interop.pretrained import EncoderOutput
from openjepa.training.device import Device

MAX_BYTES = 2**30  # of stored tokens; those of larger data sets are computed in every epoch


class StoredTokens(NamedTuple):
    """The tokens of some samples; in place of a DatasetEncoder, for what needs tokens alone."""

    tokens: Float[Tensor, "R N D"]
    row: Int[Tensor, "S"]  # of each sample of the data set; -1: not stored
    device: Device

    def encode(self, index: Int[Tensor, "B"], rng: CounterRNG | None = None, patches: bool = True) -> EncoderOutput:
        """Return the tokens of some samples, and their mean in place of pooled features."""
        tokens = self.tokens[self.row[index]].to(self.device.device)
        mean = tokens.mean(1, dtype=torch.float32)
        return EncoderOutput(tokens, mean, mean)

    def epochs(self, index: Int[Tensor, "R"], batch: int, seed: int, augment: bool, patches: bool = True) -> Epochs:
        """Return a function from an epoch to its batches, in the order of DatasetEncoder."""

        def batches_of(epoch: int) -> Iterator[tuple[EncoderOutput, Int[Tensor, "B"]]]:
            for rows in torch.from_numpy(epoch_order(seed, epoch, len(index))).split(batch):
                yield self.encode(index[rows]), rows

        return batches_of


def store_tokens(source: DatasetEncoder, index: Int[Tensor, "R"]) -> DatasetEncoder | StoredTokens:
    """Encode some samples once and store their tokens; return the source itself if they need too much memory."""
    first = source.encode(index[:1]).patches
    if first.nbytes * len(index) > MAX_BYTES:
        return source
    tokens = torch.cat([source.encode(rows).patches.cpu() for rows in index.split(256)])
    row = torch.full((len(source.data),), -1)
    row[index] = torch.arange(len(index))
    return StoredTokens(tokens, row, source.device)
