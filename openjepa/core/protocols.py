"""The protocols that data sets, maskers, modalities and methods implement."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from openjepa.core.rng import CounterRNG
from openjepa.core.types import Batch, FileList, Masks, Output, Samples, Tokens


@runtime_checkable
class Dataset(Protocol):
    """Samples by index. `read` makes a whole batch in one call, in a worker."""

    @property
    def fingerprint(self) -> str:
        """Changes when the list of samples does."""
        ...

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the labels; empty without labels."""
        ...

    def __len__(self) -> int: ...

    def source(self, index: int) -> str:
        """The file that a sample comes from, or its number where there is no file."""
        ...

    def read(self, index: Int[Tensor, "B"], draws: CounterRNG | None) -> Samples:
        """With draws: training views, augmented as they say. Without: the evaluation view, the same every time."""
        ...


@runtime_checkable
class Masker(Protocol):
    """Decides what is shown and what is asked for. I-JEPA gives one Masks, V-JEPA several."""

    def __call__(
        self, pos: Float[Tensor, "B N P"] | None, valid: Bool[Tensor, "B N"] | None, draws: CounterRNG, progress: float
    ) -> tuple[Masks, ...]: ...

    def shapes(self) -> list[tuple[int, int, int]]:
        """Every (C, M, T) it can give."""
        ...


@runtime_checkable
class Modality(Protocol):
    """The one seam to extend: what a view is, and how it becomes raw tokens. A frozen dataclass; see modalities/."""

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of tokens; (1, N) where there is only one axis."""
        ...

    @property
    def coordinates(self) -> int:
        """P: numbers in a token's position."""
        ...

    @property
    def token_dim(self) -> int:
        """E: numbers in a raw token."""
        ...

    def listing(self) -> FileList: ...
    def dataset(self, source: FileList, cache: Path | None = None) -> Dataset: ...
    def synthetic(self, size: int, seed: int) -> Dataset: ...
    def tokens(self, view: Any) -> Tokens: ...
    def tokenizer(self, dim: int) -> nn.Module: ...

    def tokenizer_flops(self, dim: int) -> int:
        """Multiplications and additions of the stem on one raw token, forward."""
        ...


@runtime_checkable
class Method(Protocol):
    """An objective with its networks; an nn.Module."""

    num_views: int  # how many it wants of each sample

    def targets(self, batch: Batch, masks: tuple[Masks, ...]) -> Any: ...
    def forward(self, batch: Batch, masks: tuple[Masks, ...], targets: Any) -> Output: ...
    def after_step(self, momentum: float, taken: Tensor | None = None) -> None: ...
    def encoder(self, which: str) -> nn.Module: ...
