"""The protocols that datasets, maskers, modalities and methods implement."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from openjepa.core.rng import CounterRNG
from openjepa.core.types import Batch, FileList, Keep, Layout, Masks, MaskShape, Output, ParamGroup, Samples, Tokens


@runtime_checkable
class Dataset(Protocol):
    """Samples by index; `read` loads a whole batch in one call, in a data-loader worker."""

    @property
    def fingerprint(self) -> str:
        """Return a hash that changes when the samples change, and not when their folder moves."""
        ...

    @property
    def classes(self) -> tuple[str, ...]:
        """Return the class names; empty without labels."""
        ...

    def __len__(self) -> int: ...

    def source(self, index: int) -> str:
        """Return the file that a sample comes from, or its index if it has no file."""
        ...

    def read(self, index: Int[Tensor, "B"], rng: CounterRNG | None) -> Samples:
        """Load samples: randomly augmented training views with `rng`, fixed evaluation views without."""
        ...


@runtime_checkable
class Masker(Protocol):
    """Choose context and target tokens for every sample of a batch: a frozen dataclass. See masking/.

    Returns one Masks per mask of a sample: I-JEPA draws one, V-JEPA several. `pos` and `valid` are given where samples
    differ in the positions or the number of their tokens. `progress` is the fraction of the run that is done, 0 to 1.
    """

    def __call__(
        self,
        layout: Layout,
        pos: Float[Tensor, "B N P"] | None,
        valid: Bool[Tensor, "B N"] | None,
        rng: CounterRNG,
        progress: float,
    ) -> tuple[Masks, ...]: ...

    def shapes(self, layout: Layout) -> list[MaskShape]:
        """Return every (C, M, T) that a mask can have: context tokens, target blocks, tokens per block.

        Empty if they depend on the data. Raises UserError if the layout does not fit the strategy.
        """
        ...


class Tokenizer(nn.Module):
    """Map raw tokens to tokens of the encoder's width.

    A local tokenizer sees one token at a time, so that only the tokens that an encoder keeps are mapped. One that is
    not local mixes neighbors, and gets all tokens, in which the hidden ones are 0 and not `valid`.
    """

    local = True

    def forward(self, tokens: Tokens) -> Tokens:
        """Map the tokens; positions and padding may change, too."""
        raise NotImplementedError


@runtime_checkable
class Modality(Protocol):
    """Define what a view is and how it becomes raw tokens; a frozen dataclass. See modalities/."""

    @property
    def layout(self) -> Layout:
        """Return how the tokens of a view are arranged."""
        ...

    @property
    def token_dim(self) -> int:
        """Return E, the number of values in a raw token."""
        ...

    def listing(self) -> FileList: ...
    def dataset(self, source: FileList, cache: Path | None = None) -> Dataset: ...
    def synthetic(self, size: int, seed: int) -> Dataset: ...
    def tokens(self, view: Any) -> Tokens: ...
    def tokenizer(self, dim: int) -> Tokenizer: ...


class Encoder(nn.Module):
    """Map tokens to features of each token: a transformer, a convolutional network, a graph network …"""

    depth: int = 1  # number of layers that return features
    any_size: bool = True  # whether an exported program may take inputs of other sizes than the trained one
    same_tokens: bool = True  # whether its tokens are those of the input; otherwise the modality cannot pool them

    def forward(self, tokens: Tokens, keep: Keep | None = None, layers: tuple[int, ...] = (-1,)) -> tuple[Tokens, ...]:
        """Encode all tokens, or the groups of them in `keep` as samples; return the features of each of `layers`."""
        raise NotImplementedError


@runtime_checkable
class Method(Protocol):
    """A training objective with its networks; an nn.Module. See methods/base.py, which has the defaults.

    `after_step` updates the EMA encoder; it changes nothing if the flag `step_taken` is False, i.e. if the optimizer
    step was skipped because a gradient was not finite.
    """

    num_views: int | tuple[int, ...]  # views of each sample that the objective needs, for all streams or for each

    def masks(self, batch: Batch) -> tuple[Masks, ...]:
        """Return the masks of this step: those of the loader, or masks that need the networks."""
        ...

    def targets(self, batch: Batch) -> Any: ...
    def __call__(self, batch: Batch, targets: Any) -> Output: ...
    def after_step(self, momentum: float, step_taken: Tensor | None = None) -> None: ...

    def encoders(self) -> dict[str, nn.Module]:
        """Return the encoders to export and evaluate by name; the first is the default."""
        ...

    def encoder(self, which: str = "") -> nn.Module:
        """Return one of `encoders` by name, the default without a name."""
        ...

    def param_groups(self) -> list[ParamGroup]:
        """Return the parameters to train, in groups with a learning rate of their own."""
        ...
