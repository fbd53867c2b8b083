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


def batch(size: int) -> Change:
    """The base with another number of images in a step."""
    return lambda base: replace(base, batch_size=size)


FOUR = both(masks(sampler="random", hidden=0.75, times=4), batch(32))  # four masks of 32 images in place of one of 128

CALM = both(
    FOUR, method(centre=True, init="xavier", positions="rope")
)  # what targets have in common taken out, and louder weights

FAST = both(CALM, optim(lr=2e-3, beta2=0.95))
LIGHT = both(FAST, method(pixels=1.0, predictor_depth=2))

ARMS: dict[str, Change] = {
    "base": lambda base: base,
    # one pass of the target encoder for several masks
    "four masks": FOUR,
    "four masks, rotary": both(FOUR, method(positions="rope")),
    "four masks, whitened": both(FOUR, method(whiten=1.0)),
    "four masks, half whitened": both(FOUR, method(whiten=0.5)),
    "four masks, centred": both(FOUR, method(centre=True)),
    "four masks, centred, half whitened": both(FOUR, method(centre=True, whiten=0.5)),
    "four masks, centred, pixels": both(FOUR, method(centre=True, pixels=1.0)),
    "four masks, centred, xavier": CALM,
    "four masks, centred, rotary, xavier": both(FOUR, method(centre=True, positions="rope", init="xavier")),
    "four masks, centred, rotary": both(FOUR, method(centre=True, positions="rope")),
    "four masks, centred, half whitened, rotary": both(FOUR, method(centre=True, whiten=0.5, positions="rope")),
    "four masks, centred, whitened, rotary": both(FOUR, method(centre=True, whiten=1.0, positions="rope")),
    "four masks, centred, pixels, rotary": both(FOUR, method(centre=True, pixels=1.0, positions="rope")),
    "four masks, centred, frozen, rotary": both(FOUR, method(centre=True, positions="rope"), optim(momentum=1.0)),
    "four masks, centred, momentum 0.996, rotary": both(
        FOUR, method(centre=True, positions="rope"), optim(momentum=0.996)
    ),
    "four masks, centred, momentum 0.95, rotary": both(
        FOUR, method(centre=True, positions="rope"), optim(momentum=0.95)
    ),
    "four masks, centred, lr 2e-3, rotary": both(FOUR, method(centre=True, positions="rope"), optim(lr=2e-3)),
    "four masks, centred, last layer, rotary": both(FOUR, method(centre=True, positions="rope", target_layers=(-1,))),
    "four masks, gaussian": both(FOUR, method(gaussian=1.0)),
    "four masks, gaussian, centred, rotary": both(FOUR, method(gaussian=1.0, centre=True, positions="rope")),
    "four masks, frozen at random": both(FOUR, optim(momentum=1.0)),
    "four masks, momentum 0.95": both(FOUR, optim(momentum=0.95)),
    "four masks, lr 2e-3": both(FOUR, optim(lr=2e-3)),
    "four masks, pixels besides": both(FOUR, method(pixels=1.0)),
    "four masks, whitened, pixels besides": both(FOUR, method(whiten=1.0, pixels=1.0)),
    "four masks, half whitened, mostly pixels": both(FOUR, method(whiten=0.5, pixels=4.0)),
    "four masks, layers 1, 3, 5 side by side": both(FOUR, method(target_layers=(1, 3, 5), target_join="concat")),
    "four masks in blocks": both(masks(times=4), batch(32)),
    # from there
    "fast, lr 4e-3": both(FAST, optim(lr=4e-3)),
    "fast, pixels": both(FAST, method(pixels=1.0)),
    "fast, predictor of two layers": both(FAST, method(predictor_depth=2)),
    "fast, two masks of 64": both(FAST, masks(times=2), batch(64)),
    "fast, momentum 0.98": both(FAST, optim(momentum=0.98)),
    "fast, half whitened": both(FAST, method(whiten=0.5)),
    "fast, pixels, two layers": LIGHT,
    "light, four masks of 16": both(LIGHT, batch(16)),
    "light, eight masks of 16": both(LIGHT, masks(times=8), batch(16)),
    "light, half whitened": both(LIGHT, method(whiten=0.5)),
    "light, momentum 0.98": both(LIGHT, optim(momentum=0.98)),
    "light, momentum 0.996": both(LIGHT, optim(momentum=0.996)),
    "calm, two masks of 64": both(CALM, masks(times=2), batch(64)),
    "calm, one mask of 128": both(CALM, masks(times=1), batch(128)),
    "calm, two masks of 64, 60 % hidden": both(CALM, masks(times=2, hidden=0.6), batch(64)),
    "calm, rotary": both(CALM, method(positions="rope")),
    "calm, beta2 0.95": both(CALM, optim(beta2=0.95)),
    "calm, lr 2e-3, beta2 0.95": FAST,
    "calm, pixels": both(CALM, method(pixels=1.0)),
    "calm, mostly pixels": both(CALM, method(pixels=4.0)),
    "calm, half whitened": both(CALM, method(whiten=0.5)),
    "calm, gaussian": both(CALM, method(gaussian=1.0)),
    "calm, last layer": both(CALM, method(target_layers=(-1,))),
    "calm, layers 1, 3, 5 side by side": both(CALM, method(target_layers=(1, 3, 5), target_join="concat")),
    "calm, momentum 0.95": both(CALM, optim(momentum=0.95)),
    "calm, momentum 0.996": both(CALM, optim(momentum=0.996)),
    "calm, lr 2e-3": both(CALM, optim(lr=2e-3)),
    "calm, predictor of two layers": both(CALM, method(predictor_depth=2)),
    "calm, in blocks": both(CALM, masks(sampler="blocks")),
    "calm, squared": both(CALM, method(loss="squared_l2")),
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
    "MAE, rotary": mae(positions="rope"),
    "MAE, xavier": mae(init="xavier"),
    "MAE, xavier, lr 2e-3, beta2 0.95": both(mae(init="xavier"), optim(lr=2e-3, beta2=0.95)),
    "MAE, xavier, lr 2e-3, beta2 0.95, batch 64": both(mae(init="xavier"), optim(lr=2e-3, beta2=0.95), batch(64)),
    "MAE, xavier, lr 2e-3, beta2 0.95, two layers": both(
        mae(init="xavier", predictor_depth=2), optim(lr=2e-3, beta2=0.95)
    ),
    "MAE, xavier, lr 2e-3": both(mae(init="xavier"), optim(lr=2e-3)),
    "MAE, xavier, rotary": mae(init="xavier", positions="rope"),
    "MAE, four masks": both(mae(), masks(times=4), batch(32)),
    "MAE, lr 2e-3": both(mae(), optim(lr=2e-3)),
    "MAE, batch 64": both(mae(), lambda base: replace(base, batch_size=64)),
    "MAE, 60 % hidden": mae(hidden=0.6),
    "MAE, decoder of two layers": mae(predictor_depth=2),
    "MAE, plain pixels": mae(normalise=False),
}


def views(**changes: Any) -> Change:
    """The recipe `vicreg-cifar10`, on the base's data; `colour` belongs to the data."""
    own, colour = recipe("vicreg-cifar10"), changes.pop("colour", 0.0)
    return lambda base: replace(
        base, method=replace(own.method, **changes), masks=own.masks, data=replace(base.data, flip=True, colour=colour)
    )


ARMS |= {
    "VICReg, crops": views(init="xavier"),
    "VICReg, crops and colours": views(init="xavier", colour=0.5),
    "VICReg, half shown, crops": views(init="xavier", masked=True),
    "VICReg, half shown, crops and colours": views(init="xavier", masked=True, colour=0.5),
    "VICReg, crops, lr 2e-3": both(views(), optim(lr=2e-3)),
    "VICReg, crops, larger crops": both(
        views(), lambda base: replace(base, data=replace(base.data, crop_scale=(0.5, 1.0)))
    ),
    "VICReg, crops and colours, batch 256": both(views(colour=0.5), batch(256)),
}

FIRST = {name: "MAE" for name in ARMS if name.startswith("after MAE")}  # what half of the time goes to before
FROZEN = frozenset(
    {"after MAE, target frozen", "four masks, frozen at random", "four masks, centred, frozen, rotary"}
)  # whose context encoder is what learns
