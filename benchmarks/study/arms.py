"""The arms of the small-data study: each a change of the recipe `cifar10`, one line and one reason."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from openjepa.config import Pretrain
from openjepa.recipes import recipe

Change = Callable[[Pretrain], Pretrain]


def method(**changes: Any) -> Change:
    """The base with other networks or another objective."""
    return lambda base: replace(base, method=replace(base.method, **changes))


def masks(**changes: Any) -> Change:
    """The base with other masks."""
    return lambda base: replace(base, masks=replace(base.masks, **changes))


def optim(**changes: Any) -> Change:
    """The base with another schedule."""
    return lambda base: replace(base, optim=replace(base.optim, **changes))


def both(*changes: Change) -> Change:
    """Several changes, one after the other."""

    def changed(base: Pretrain) -> Pretrain:
        for change in changes:
            base = change(base)
        return base

    return changed


def mae(hidden: float = 0.75, **changes: Any) -> Change:
    """The recipe `mae-cifar10`, on the base's data."""
    own = recipe("mae-cifar10")
    changed = {"method": replace(own.method, **changes), "masks": replace(own.masks, hidden=hidden)}
    return lambda base: replace(base, **changed)


ARMS: dict[str, Change] = {
    "base": lambda base: base,
    # masks
    "official masks": masks(sampler="official", min_keep=8),  # 10, as released, cannot be had on 8×8
    "60 % at random": masks(sampler="random", hidden=0.6),
    "75 % at random": masks(sampler="random", hidden=0.75),
    "half of the grid shown": masks(budget=0.5),
    "smaller targets": masks(target_scale=(0.08, 0.12)),
    # targets
    "last layer only": method(target_layers=(-1,)),
    "plain targets": method(standardise=False),
    "layers 1, 3, 5 side by side": method(target_layers=(1, 3, 5), target_join="concat"),
    "pixels besides": method(pixels=1.0),
    "75 % at random, pixels besides": both(masks(sampler="random", hidden=0.75), method(pixels=1.0)),
    # the average
    "momentum 0.98": optim(momentum=0.98),
    "momentum 0.996": optim(momentum=0.996),
    # effort
    "predictor of two layers": method(predictor_depth=2),
    "lr 2e-3": optim(lr=2e-3),
    "batch 64": lambda base: replace(base, batch_size=64),
    # a target that has learnt something before it is asked for: in the first half of the time, a masked autoencoder
    "after MAE": lambda base: base,
    "after MAE, momentum 0.996": optim(momentum=0.996),
    "after MAE, pixels besides": method(pixels=1.0),
    "after MAE, target frozen": optim(momentum=1.0),
    "after MAE, 75 % at random": masks(sampler="random", hidden=0.75),
    # the opponent, with as many trials
    "MAE": mae(),
    "MAE, lr 2e-3": both(mae(), optim(lr=2e-3)),
    "MAE, batch 64": both(mae(), lambda base: replace(base, batch_size=64)),
    "MAE, 60 % hidden": mae(hidden=0.6),
    "MAE, decoder of two layers": mae(predictor_depth=2),
    "MAE, plain pixels": mae(normalise=False),
}

FIRST = {name: "MAE" for name in ARMS if name.startswith("after MAE")}  # what half of the time goes to before
FROZEN = frozenset({"after MAE, target frozen"})  # whose context encoder is what learns
