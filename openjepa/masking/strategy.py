"""What mask strategies share: several masks of a sample, the size of a grid, checks of settings."""

from __future__ import annotations

from dataclasses import dataclass, field

from jaxtyping import Bool, Float
from torch import Tensor

from openjepa.core.errors import UserError
from openjepa.core.rng import CounterRNG
from openjepa.core.types import Layout, Masks, MaskShape
from openjepa.masking.geometry import MAX_ASPECT, GridSize


@dataclass(frozen=True)
class MaskStrategy:
    """Draws one or several masks of every sample; a subclass draws one (`draw_mask`)."""

    # masks drawn per sample in each step; one pass of the target encoder serves all of them
    masks_per_sample: int = field(default=1, kw_only=True)

    def __post_init__(self):
        require_at_least(self, 1, "masks_per_sample")

    def __call__(
        self,
        layout: Layout,
        pos: Float[Tensor, "B N P"] | None,
        valid: Bool[Tensor, "B N"] | None,
        rng: CounterRNG,
        progress: float,
    ) -> tuple[Masks, ...]:
        repeats = (rng.fold_in(repeat) for repeat in range(self.masks_per_sample))
        return tuple(self.draw_mask(layout, pos, valid, each, progress) for each in repeats)

    def draw_mask(
        self,
        layout: Layout,
        pos: Float[Tensor, "B N P"] | None,
        valid: Bool[Tensor, "B N"] | None,
        rng: CounterRNG,
        progress: float,
    ) -> Masks:
        """Draw one mask of every sample; the arguments are those of `Masker`."""
        raise NotImplementedError


@dataclass(frozen=True)
class GridStrategy(MaskStrategy):
    """Draws masks on a grid with one or two axes, the same at every step of the run; a subclass writes `draw`."""

    def draw_mask(
        self,
        layout: Layout,
        pos: Float[Tensor, "B N P"] | None,
        valid: Bool[Tensor, "B N"] | None,
        rng: CounterRNG,
        progress: float,
    ) -> Masks:
        return self.draw(grid_size(layout, self), rng)

    def draw(self, grid: GridSize, rng: CounterRNG) -> Masks:
        """Draw one mask of every sample."""
        raise NotImplementedError

    def shapes(self, layout: Layout) -> list[MaskShape]:
        """Return every shape that a mask can have. Raises UserError if the grid does not fit the strategy."""
        grid = grid_size(layout, self)
        self.check(grid)
        return self.grid_shapes(grid)

    def check(self, grid: GridSize) -> None:
        """Raise UserError if the grid does not fit the strategy."""

    def grid_shapes(self, grid: GridSize) -> list[MaskShape]:
        """Return every shape that a mask can have on this grid."""
        raise NotImplementedError


def grid_size(layout: Layout, strategy: object) -> GridSize:
    """Return rows and columns of a grid; a grid with one axis is one row. Raises UserError for other layouts."""
    if layout.shape is None or len(layout.shape) > 2:
        kind = "a set of tokens" if layout.shape is None else f"a grid with {len(layout.shape)} axes"
        name = type(strategy).__name__.lower()
        raise UserError(f"--masks {name} requires a grid with 1 or 2 axes, got {kind}: try --masks random")
    return layout.rows_columns


def require_range(strategy: object, *names: str) -> None:
    """Raise UserError unless these settings are ranges LOW HIGH within (0, 1]."""
    for name in names:
        low, high = getattr(strategy, name)
        if not 0 < low <= high <= 1:
            raise UserError(
                f"{flag(name)} must be LOW HIGH with 0 < low <= high <= 1, got {low:g} {high:g}: "
                f"{suggest_default(strategy, name)}"
            )


def require_aspect(strategy: object, name: str) -> None:
    """Raise UserError unless this setting is a range of aspect ratios."""
    low, high = getattr(strategy, name)
    if not 1 / MAX_ASPECT <= low <= high <= MAX_ASPECT:
        raise UserError(
            f"{flag(name)} must be LOW HIGH with {1 / MAX_ASPECT:g} <= low <= high <= {MAX_ASPECT:g}, "
            f"got {low:g} {high:g}: {suggest_default(strategy, name)}"
        )


def require_fraction(strategy: object, *names: str) -> None:
    """Raise UserError unless these settings are above 0 and at most 1."""
    for name in names:
        value = getattr(strategy, name)
        if not 0 < value <= 1:
            raise UserError(f"{flag(name)} must be > 0 and <= 1, got {value:g}: {suggest_default(strategy, name)}")


def require_at_least(strategy: object, minimum: int, *names: str) -> None:
    """Raise UserError unless these settings are at least `minimum`."""
    for name in names:
        value = getattr(strategy, name)
        if value < minimum:
            raise UserError(f"{flag(name)} must be >= {minimum}, got {value}: {suggest_default(strategy, name)}")


def flag(name: str) -> str:
    """Return the command-line flag of a setting."""
    return f"--masks.{name.replace('_', '-')}"


def suggest_default(strategy: object, name: str) -> str:
    """Suggest the default in place of an invalid value, as the user would type it."""
    default = getattr(type(strategy), name)
    values = " ".join(f"{value:g}" for value in (default if isinstance(default, tuple) else (default,)))
    return f"try {flag(name)} {values}"
