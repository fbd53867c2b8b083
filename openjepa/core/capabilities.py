"""What a modality may be able to do beyond `Modality`: small protocols that commands test for and name when missing."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any, ClassVar, NamedTuple, Protocol, TypeVar, runtime_checkable

import numpy as np
from jaxtyping import Float, UInt8
from torch import Tensor

from openjepa.core.errors import UserError
from openjepa.core.protocols import Dataset, Modality
from openjepa.core.types import Tokens


@runtime_checkable
class Reads(Protocol):
    """Turn what a user has in hand into evaluation views: features of single samples, and `jepa search` by a file."""

    def read(self, source: Any, size: Any = None) -> Tensor:
        """Return the evaluation view of a path, an array or an object, at another size if one is given.

        Raises UserError for anything else, and for files that cannot be read.
        """
        ...

    def iterate(self, sources: Any) -> Iterator[Any]:
        """Yield one source after the other, from one source, a batch or a sequence."""
        ...


@runtime_checkable
class Renders(Protocol):
    """Draw a view: sheets and pages of `jepa search`, `duplicates` and `cluster`, and the figures of `jepa report`."""

    def picture(self, view: Any) -> UInt8[np.ndarray, "H W 3"]: ...

    def paint(self, view: Any, colors: Float[Tensor, "N 3"]) -> UInt8[np.ndarray, "H W 3"]:
        """Draw the colors of a view's tokens, each from 0 to 1, where the tokens are."""
        ...


@runtime_checkable
class Prepares(Protocol):
    """Compute once a step, on the device, what a view costs before it is cut into tokens; `tokens` takes both."""

    def prepare(self, view: Any) -> Any: ...


@runtime_checkable
class Thumbnails(Protocol):
    """Draw a source without cropping it to a view, for sheets and pages."""

    def thumbnail(self, source: str, side: int) -> UInt8[np.ndarray, "H W 3"]:
        """Return a picture whose longer side has `side` pixels. Raises UserError if the source cannot be read."""
        ...


@runtime_checkable
class Plays(Protocol):
    """Show samples in motion: pages that play them, animated figures, and pictures of one moment."""

    def play(self, view: Any) -> UInt8[np.ndarray, "F H W 3"]:
        """Return the frames of a view."""
        ...

    def moving_thumbnail(self, source: str, side: int) -> UInt8[np.ndarray, "F H W 3"]:
        """Return the frames of a source, as `Thumbnails` does of one. Raises UserError if it cannot be read."""
        ...


@runtime_checkable
class Sounds(Protocol):
    """Play samples as sound: pages with a player beside each picture."""

    def sound(self, source: Any) -> bytes:
        """Return a WAV file of a source's evaluation view. Raises UserError if the source cannot be read."""
        ...


@runtime_checkable
class Pools(Protocol):
    """Pool the tokens of a sample to one vector for probes, search and joint embedding; without it: their mean."""

    def pool(self, x: Float[Tensor, "B N D"]) -> Float[Tensor, "B F"]: ...

    def pooled_dim(self, dim: int) -> int:
        """Return the width of the vector for tokens of a width."""
        ...


@runtime_checkable
class Measures(Protocol):
    """Measure the statistics that normalize views: `jepa pretrain` and `jepa bench`, before the first step."""

    @property
    def statistics(self) -> dict[str, tuple[float, ...]]:
        """Return the statistics by name, for the run's data.json; empty tuples before they are measured."""
        ...

    def measure(self, data: Dataset) -> Any:
        """Return the modality with its statistics filled in; those that are set stay."""
        ...


@runtime_checkable
class Describes(Protocol):
    """Say the size of a view and of a token in a few words: the summaries of `jepa pretrain` and `jepa report`."""

    def describe(self) -> str: ...


@runtime_checkable
class CountsFlops(Protocol):
    """Count the work of the tokenizer: the share of the machine's ceiling in the log, and `jepa bench`."""

    def tokenizer_flops(self, dim: int) -> int:
        """Return the forward FLOPs (multiplications plus additions) of the tokenizer for one raw token."""
        ...


@runtime_checkable
class Inspects(Protocol):
    """Check files before training on them: `jepa doctor`."""

    def inspect(self, paths: list[str], workers: int) -> Iterator[Any]:
        """Yield what was found in each file, in order; `workers`: processes, -1 for one per core."""
        ...


@runtime_checkable
class Pairs(Protocol):
    """Train on pairs of inputs, although encoders encode single ones: what measures and draws reads single inputs."""

    def single(self) -> Modality:
        """Return the modality of single inputs."""
        ...


@runtime_checkable
class Suggests(Protocol):
    """Choose settings that fit the files: `jepa pretrain` without a recipe. Those of images are in recipes/auto.py."""

    def suggest(self) -> tuple[Any, tuple[str, ...]]:
        """Return the modality with settings for the files below its root, and the reasons, one line each."""
        ...


@runtime_checkable
class Exports(Protocol):
    """Define the input of an exported program: `jepa export --format torch` and `onnx`."""

    input_name: ClassVar[str]
    input_text: ClassVar[str]  # what the input is, with its axes, for the model card

    def example_input(self, batch: int, more: int = 0) -> Tensor:
        """Return random input of the trained size, or `more` tokens longer along every axis."""
        ...

    def input_tokens(self, inputs: Any) -> Tokens:
        """Return the raw tokens of a program's input."""
        ...

    def free_axes(self) -> dict[int, Any]:
        """Return the axes, beside the batch, whose length may vary, as torch.export takes them."""
        ...


@runtime_checkable
class PatchGrid(Protocol):
    """Cut a view into square patches: figures that hatch and frame patches, `jepa explore`, `jepa search --box`."""

    @property
    def grid(self) -> tuple[int, int]:
        """Return rows and columns of patches."""
        ...

    @property
    def patch(self) -> int:
        """Return the side of a patch in pixels."""
        ...


@runtime_checkable
class TubeletGrid(Protocol):
    """Cut a view into tubelets, patches that last some frames: the figures of clips, and `jepa explore`."""

    @property
    def tubelets(self) -> tuple[int, int, int]:
        """Return time steps, and rows and columns of tubelets."""
        ...

    @property
    def tubelet(self) -> int:
        """Return the frames of a tubelet."""
        ...

    @property
    def patch(self) -> int:
        """Return the side of a tubelet in pixels."""
        ...


@runtime_checkable
class Inverts(Protocol):
    """Assemble a view from raw tokens: `jepa decoder` and the real patches in `jepa show prediction`."""

    def unpatchify(self, x: Float[Tensor, "B N E"], grid: Any = None) -> Tensor: ...


@runtime_checkable
class Baselines(Protocol):
    """Offer features without an encoder, which probes measure beside the encoder's."""

    def baselines(self) -> dict[str, Callable[[Any], Float[Tensor, "B F"]]]:
        """Return by name the functions from a batch of evaluation views to features."""
        ...


class Control(NamedTuple):
    """A change of evaluation views that takes something away from the encoder, such as the order of frames."""

    change: Callable[[Any], Any]  # a batch of evaluation views -> changed views
    trained: bool = True  # whether probes are also trained on changed views; otherwise only tested on them


@runtime_checkable
class Controls(Protocol):
    """Offer changed views, whose scores stand beside the encoder's: `jepa probe`. Without them: none."""

    def controls(self) -> dict[str, Control]: ...


@runtime_checkable
class EvaluationClips(Protocol):
    """Read several evaluation views of a sample, whose features are averaged: `jepa probe` and `jepa embed`."""

    @property
    def eval_clips(self) -> int: ...


@runtime_checkable
class DecodesFiles(Protocol):
    """Mark a data set whose `read` decodes files, so that loader processes pay: `jepa pretrain --workers -1`."""

    decodes_files: ClassVar[bool]


C = TypeVar("C")

ACTIONS = {  # what a modality without the capability cannot be
    "Reads": "read",
    "Renders": "drawn",
    "Inspects": "checked",
    "Exports": "exported",
    "Inverts": "decoded",
}


def require(modality: object, capability: type[C], command: str) -> C:
    """Return the modality. Raises UserError, which names the capability, if its class does not have it."""
    if isinstance(modality, capability):
        return modality
    name = capability.__name__
    methods = [each for each in {**capability.__annotations__, **vars(capability)} if not each.startswith("_")]
    raise UserError(
        f"{modality_name(modality)} cannot be {ACTIONS.get(name, 'used')} by {command}: its class needs the capability "
        f"{name} ({', '.join(methods)}), see docs/explained/architecture.md"
    )


def require_grid(modality: object, command: str) -> Any:
    """Return the modality. Raises UserError if its tokens are neither patches of an image nor tubelets of a clip."""
    return modality if isinstance(modality, TubeletGrid) else require(modality, PatchGrid, command)


def with_root(modality: Any, root: tuple[str, ...]) -> Any:
    """Return the modality for other files; one that generates its samples has no `root` and stays as it is."""
    has_root = any(each.name == "root" for each in dataclasses.fields(modality))
    return dataclasses.replace(modality, root=root) if has_root else modality


def modality_name(modality: object) -> str:
    """Return what a modality is called in messages: its class, which has the name of its file."""
    return type(modality).__name__.lower()


def plural_of(modality: object) -> str:
    """Return what the samples of a modality are called in messages: its class's `plural`, if it has one."""
    return getattr(type(modality), "plural", "samples")
