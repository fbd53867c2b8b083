"""Generated samples of the tiny modalities, in memory.   B batch  S samples"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from jaxtyping import Int
from torch import Tensor

from openjepa.core.protocols import Tokenizer
from openjepa.core.rng import CounterRNG
from openjepa.core.types import FileList, Samples
from openjepa.nn.stems import WindowEmbed


class Generated(NamedTuple):
    """A dataset of tensors with a row per sample."""

    views: tuple[Tensor, ...]
    label: Int[Tensor, "S"]
    pos: Tensor | None = None
    valid: Tensor | None = None
    conditions: Tensor | None = None
    classes: tuple[str, ...] = ("0", "1")
    fingerprint: str = "generated"

    def __len__(self) -> int:  # type: ignore[override]
        return len(self.label)

    def source(self, index: int) -> str:
        return str(index)

    def read(self, index: Int[Tensor, "B"], rng: CounterRNG | None) -> Samples:
        def rows(value: Any) -> Any:
            return None if value is None else value[index]

        views = tuple(view[index] for view in self.views)
        return Samples(views, self.label[index], (), rows(self.pos), rows(self.valid), rows(self.conditions))


@dataclass(frozen=True)
class GeneratedModality:
    """A modality without files; a subclass writes `layout`, `token_dim`, `synthetic` and `tokens`."""

    size: int = 64  # number of generated samples

    def listing(self) -> FileList:
        return FileList(["generated"], "generated")

    def dataset(self, source: FileList, cache: Path | None = None) -> Generated:
        return self.synthetic(self.size, 0)

    def synthetic(self, size: int, seed: int) -> Generated:
        """Generate labeled samples."""
        raise NotImplementedError

    def tokenizer(self, dim: int) -> Tokenizer:
        return WindowEmbed(self.token_dim, dim)  # type: ignore[attr-defined]
