"""The arms of the small-data study: each is a change of the recipe `cifar10`, one line with one reason."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from openjepa.core import registry
from openjepa.masking.multiblock import MultiBlock
from openjepa.masking.official import Official
from openjepa.masking.random import Random
from openjepa.nn.expander import ExpanderConfig
from openjepa.recipes.registry import load_recipe
from openjepa.training.config import Pretrain

registry.load_plugins([str(Path(__file__).with_name("jepa_variants.py"))])  # options that no recipe kept

Change = Callable[[Pretrain], Pretrain]


def method(**changes: Any) -> Change:
    """Return a change of the objective."""
    return lambda base: replace(base, method=replace(base.method, **changes))


def variant(**changes: Any) -> Change:
    """Return a change to the plug-in method, which has options that no recipe kept."""
    cls = registry.find("method", "jepa-variants")
    return lambda base: replace(base, method=cls(**shallow(base.method), **changes))


def shallow(settings: Any) -> dict[str, Any]:
    """Return settings by name."""
    return {each.name: getattr(settings, each.name) for each in fields(settings)}


def encoder(**changes: Any) -> Change:
    """Return a change of the encoder."""
    return lambda base: method(encoder=replace(base.method.encoder, **changes))(base)


def predictor(**changes: Any) -> Change:
    """Return a change of the predictor."""
    return lambda base: method(predictor=replace(base.method.predictor, **changes))(base)


def init(name: str) -> Change:
    """Return a change of the first weights of encoder and predictor."""
    return both(encoder(init=name), predictor(init=name))


def sized(dim: int, depth: int, heads: int) -> Change:
    """Return a change of the sizes: a predictor of half the width, and targets from all layers."""
    return lambda base: method(
        encoder=replace(base.method.encoder, dim=dim, depth=depth, num_heads=heads),
        predictor=replace(base.method.predictor, dim=dim // 2),
        target_layers=tuple(range(depth)),
    )(base)


def masks(**changes: Any) -> Change:
    """Return a change of the masks."""
    return lambda base: replace(base, masks=replace(base.masks, **changes))


def strategy(cls: Any, **changes: Any) -> Change:
    """Return a change to another mask strategy, with as many masks per sample."""
    return lambda base: replace(base, masks=cls(**{"masks_per_sample": base.masks.masks_per_sample} | changes))


def random(**changes: Any) -> Change:
    """Return a change to random masks."""
    return strategy(Random, **changes)


def blocks(**changes: Any) -> Change:
    """Return a change to the paper's blocks."""
    return strategy(MultiBlock, **changes)


def optim(**changes: Any) -> Change:
    """Return a change of the optimizer or its schedules."""
    return lambda base: replace(base, optim=replace(base.optim, **changes))


def both(*changes: Change) -> Change:
    """Return a change that applies several changes in order."""

    def changed(base: Pretrain) -> Pretrain:
        for change in changes:
            base = change(base)
        return base

    return changed


def mae(*changes: Change, mask_ratio: float = 0.75) -> Change:
    """Return a change to a masked autoencoder on the base's data, then more changes.

    Its weights are initialized as the base's; its decoder is as deep as the base's predictor.
    """
    own = load_recipe("mae-cifar10").method
    return both(
        lambda base: replace(base, method=own, masks=Random(mask_ratio=mask_ratio)),
        init("paper"),
        predictor(depth=4),
        *changes,
    )


def views(color_jitter: float = 0.0, masked: bool = False) -> Change:
    """Return a change to joint embedding of two crops on the base's data; `masked` shows half of each crop."""
    own = load_recipe("vicreg-cifar10")
    changed = {"method": replace(own.method, masked=masked), "masks": replace(own.masks, mask_ratio=0.5)}
    return lambda base: replace(base, data=replace(base.data, flip=True, color_jitter=color_jitter), **changed)


def data(**changes: Any) -> Change:
    """Return a change of the crops or the color jitter."""
    return lambda base: replace(base, data=replace(base.data, **changes))


def batch(size: int) -> Change:
    """Return a change of the number of images per step."""
    return lambda base: replace(base, batch_size=size)


CENTER = method(target_transforms=("center", "standardize"))  # targets without what all tokens share

# The recipe `cifar10-minutes`, built up one change at a time
FOUR = both(random(mask_ratio=0.75, masks_per_sample=4), batch(32))  # 4 masks × 32 images, not 1 × 128
CALM = both(FOUR, CENTER, init("scaled"), encoder(positions="rope"))
FAST = both(CALM, optim(lr=2e-3, beta2=0.95))
LIGHT = both(FAST, method(pixel_loss_weight=1.0), predictor(depth=2))
MAE_LIGHT = both(mae(init("scaled"), predictor(depth=2)), optim(lr=2e-3, beta2=0.95))
KEPT = both(LIGHT, batch(16), optim(final_ema_momentum=0.99))  # an EMA whose horizon stays as short as at the start
CALMER = both(KEPT, optim(lr=1e-3))
HALF = both(CALMER, masks(target_fraction=0.5))
WIDE = both(
    HALF, masks(masks_per_sample=1), batch(64), encoder(positions="sincos"), optim(lr=2e-3)
)  # more images, as MAE
ALONE = both(WIDE, method(target_input="targets_only"))  # the target encoder sees only the target tokens
QUIET = both(ALONE, optim(lr=1e-3))
UPPER = both(QUIET, method(target_layers=(2, 3, 4, 5)))  # targets from layers further from the pixels
# Predict the pixels of all hidden patches, as MAE does, and the features of every third of them
THIRD = both(UPPER, masks(target_fraction=1.0), method(target_stride=3), optim(lr=1.5e-3))
MUON = optim(optimizer="muon")  # orthogonalized updates for the matrices of blocks
THIRD_LARGER = both(THIRD, batch(128))
BEST = both(THIRD, MUON, batch(128), optim(lr=3e-3))  # the recipe `cifar10-muon`
BEST_IN_BLOCKS = both(BEST, method(target_input="whole", target_stride=1), blocks())
IN_BLOCKS = both(UPPER, method(target_input="whole"), blocks())
SLOWER = both(ALONE, optim(lr=7e-4))
PLAIN = both(LIGHT, batch(16), encoder(positions="sincos"))
FAST_VIEWS = both(views(masked=True), optim(lr=2e-3, beta2=0.95))  # the rate that is best for the masked autoencoder
QUARTERS = both(FAST_VIEWS, masks(mask_ratio=0.75))

ARMS: dict[str, Change] = {
    "base": lambda base: base,
    # masks
    "official masks": strategy(Official, min_keep=8),  # the released floor of 10 does not fit an 8×8 grid
    "60 % at random": random(mask_ratio=0.6),
    "75 % at random": random(mask_ratio=0.75),
    "half of the grid shown": masks(context_fraction=0.5),
    "smaller targets": masks(target_scale=(0.08, 0.12)),
    # targets
    "last layer only": method(target_layers=(-1,)),
    "plain targets": method(target_transforms=()),
    "layers 1, 3, 5 side by side": both(method(target_layers=(1, 3, 5)), variant(target_join="concat")),
    "pixels besides": method(pixel_loss_weight=1.0),
    "75 % at random, pixels besides": both(random(mask_ratio=0.75), method(pixel_loss_weight=1.0)),
    # EMA momentum
    "momentum 0.98": optim(ema_momentum=0.98),
    "momentum 0.996": optim(ema_momentum=0.996),
    # effort
    "predictor of two layers": predictor(depth=2),
    "lr 2e-3": optim(lr=2e-3),
    "batch 64": batch(64),
    # start from a masked autoencoder that trains in the first half of the time
    "after MAE": lambda base: base,
    "after MAE, momentum 0.996": optim(ema_momentum=0.996),
    "after MAE, pixels besides": method(pixel_loss_weight=1.0),
    "after MAE, target frozen": optim(ema_momentum=1.0),
    "after MAE, 75 % at random": random(mask_ratio=0.75),
    # several masks for one pass of the target encoder
    "four masks": FOUR,
    "four masks, rotary": both(FOUR, encoder(positions="rope")),
    "four masks, whitened": both(FOUR, variant(whiten=1.0)),
    "four masks, half whitened": both(FOUR, variant(whiten=0.5)),
    "four masks, frozen at random": both(FOUR, optim(ema_momentum=1.0)),
    "four masks, centred, rotary": both(
        FOUR, method(target_transforms=("center", "standardize")), encoder(positions="rope")
    ),
    "four masks, centred, xavier": both(FOUR, CENTER, init("scaled")),
    # targets without what all tokens of an image share
    "calm": CALM,
    "calm, pixels": both(CALM, method(pixel_loss_weight=1.0)),
    "calm, half whitened": both(CALM, variant(whiten=0.5)),
    "fast": FAST,
    "fast, two masks of 64": both(FAST, masks(masks_per_sample=2), batch(64)),
    # features and pixels as targets, and a small predictor
    "light": LIGHT,
    "light, batch 16": both(LIGHT, batch(16)),
    "light, half whitened": both(LIGHT, variant(whiten=0.5)),
    "light, Gaussian": both(LIGHT, batch(16), variant(sigreg_weight=1.0)),
    "light, momentum 0.98": both(LIGHT, batch(16), optim(ema_momentum=0.98)),
    "light, momentum 0.996": both(LIGHT, batch(16), optim(ema_momentum=0.996)),
    "light, in blocks": both(LIGHT, batch(16), blocks()),
    "light, last layer only": both(LIGHT, batch(16), method(target_layers=(-1,))),
    # an EMA whose horizon stays as short as at the start
    "kept": KEPT,
    "kept, Gaussian": both(KEPT, variant(sigreg_weight=1.0)),
    "kept, a little Gaussian": both(KEPT, variant(sigreg_weight=0.1)),
    "kept, momentum 0.98": both(KEPT, optim(ema_momentum=0.98, final_ema_momentum=0.98)),
    "kept, half asked": both(KEPT, masks(target_fraction=0.5)),
    "calmer": CALMER,
    "calmer, half asked": HALF,
    "calmer, half asked, 64 images": both(HALF, masks(masks_per_sample=1), batch(64)),
    "calmer, half asked, pixels 3": both(HALF, method(pixel_loss_weight=3.0)),
    "wide": WIDE,
    "wide, two masks of 32": both(WIDE, masks(masks_per_sample=2), batch(32)),
    "alone": ALONE,
    "quiet": QUIET,
    "quiet, last two layers": both(QUIET, method(target_layers=(4, 5))),
    "upper": UPPER,  # the recipe `cifar10-minutes`
    "third": THIRD,  # the recipe `cifar10-hours`
    "third, lr 1e-3": both(THIRD, optim(lr=1e-3)),
    "third, pixels 2": both(THIRD, method(pixel_loss_weight=2.0)),
    "third, 128 images": THIRD_LARGER,
    "upper, Muon": both(UPPER, MUON),
    "upper, Muon, lr 2e-3": both(UPPER, MUON, optim(lr=2e-3)),
    "upper, Muon, 128 images": both(UPPER, MUON, batch(128)),
    "upper, Muon, 128 images, lr 2e-3": both(UPPER, MUON, batch(128), optim(lr=2e-3)),
    "third, Muon": both(THIRD, MUON),
    "third, Muon, lr 3e-3": both(THIRD, MUON, optim(lr=3e-3)),
    "third, Muon, 128 images": both(THIRD, MUON, batch(128)),
    # the recipe `cifar10-muon`, and each of its departures from the paper reverted on its own
    "muon": BEST,
    "muon, the paper's blocks": BEST_IN_BLOCKS,
    "muon, official masks": both(BEST_IN_BLOCKS, strategy(Official, min_keep=8)),
    "muon, blocks, half of the grid shown": both(BEST_IN_BLOCKS, masks(context_fraction=0.5)),
    "muon, blocks, smaller targets": both(BEST_IN_BLOCKS, masks(target_scale=(0.08, 0.12))),
    "muon, blocks, two targets": both(BEST_IN_BLOCKS, masks(targets=2)),
    "muon, last layer only": both(BEST, method(target_layers=(-1,))),
    "muon, not standardised": both(BEST, method(target_transforms=("center",))),
    "muon, not centred": both(BEST, method(target_transforms=("standardize",))),
    "muon, neither": both(BEST, method(target_transforms=())),
    "muon, no pixels": both(BEST, method(pixel_loss_weight=0.0, target_stride=1)),
    "muon, features at all places": both(BEST, method(target_stride=1)),
    "muon, seeing all": both(BEST, method(target_input="whole")),
    "muon, the paper's average": both(BEST, optim(ema_momentum=0.996, final_ema_momentum=1.0)),
    "muon, released weights": both(BEST, init("paper")),
    "muon, released stem": both(BEST, encoder(stem_init="paper")),
    "muon, a predictor of four layers": both(BEST, predictor(depth=4)),
    "muon, the paper's decay": both(BEST, optim(final_weight_decay=0.4)),
    "muon, AdamW": THIRD_LARGER,
    # other settings of `cifar10-muon`
    "muon, lower layers": both(BEST, method(target_layers=(0, 1, 2, 3))),
    "muon, after lower layers": BEST,  # targets that start near the pixels
    "muon, after muon": BEST,  # a run in two halves, as the control
    "muon, cosine": both(BEST, method(loss="cosine")),
    "muon, all layers": both(BEST, method(target_layers=tuple(range(6)))),
    "muon, momentum 0.98": both(BEST, optim(ema_momentum=0.98, final_ema_momentum=0.98)),
    "muon, recent": both(BEST, optim(ema_rampup=0.1)),  # an EMA over at most a tenth of the steps so far
    "muon, recent, to 0.996": both(BEST, optim(ema_rampup=0.1, ema_momentum=0.996, final_ema_momentum=0.996)),
    "muon, no decay": both(BEST, optim(weight_decay=0.0, final_weight_decay=0.0)),
    "muon, a narrower predictor": both(BEST, predictor(dim=48)),
    "muon, a wider predictor": both(BEST, predictor(dim=192)),
    "muon, held": both(BEST, optim(constant_fraction=0.6)),
    "muon, 60 % hidden": both(BEST, masks(mask_ratio=0.6)),
    "muon, 85 % hidden": both(BEST, masks(mask_ratio=0.85)),
    "muon, larger crops": both(BEST, data(crop_scale=(0.6, 1.0))),
    "muon, smaller crops": both(BEST, data(crop_scale=(0.1, 1.0))),
    "muon, mirrored": both(BEST, data(flip=True)),
    "muon, patches of 8": both(BEST, data(patch=8)),
    "muon, rotary": both(BEST, encoder(positions="rope")),
    "third, seeing all": both(THIRD, method(target_input="whole")),
    "third, last two layers": both(THIRD, method(target_layers=(4, 5))),
    "third, momentum 0.97": both(THIRD, optim(ema_momentum=0.97, final_ema_momentum=0.97)),
    "third, mirrored": both(THIRD, data(flip=True)),
    "third, mirrored, colours": both(THIRD, data(flip=True, color_jitter=0.5)),
    "third, larger crops": both(THIRD, data(crop_scale=(0.6, 1.0))),
    "third, smaller crops": both(THIRD, data(crop_scale=(0.1, 1.0))),
    "third, a predictor of four layers": both(THIRD, predictor(depth=4)),
    "third, 85 % hidden": both(THIRD, masks(mask_ratio=0.85)),
    "upper, momentum 0.996": both(UPPER, optim(ema_momentum=0.996, final_ema_momentum=0.996)),
    "upper, held": both(UPPER, optim(constant_fraction=0.6)),
    "upper, all asked": both(UPPER, masks(target_fraction=1.0)),
    "upper, seeing all": both(UPPER, method(target_input="whole")),
    "upper, side by side": both(UPPER, method(target_layers=(1, 3, 5)), variant(target_join="concat")),
    "upper, pixels half": both(UPPER, method(pixel_loss_weight=0.5)),
    "upper, in fp32": lambda base: replace(UPPER(base), precision="fp32"),
    "upper, in blocks": IN_BLOCKS,
    "upper, in blocks, shared context": both(IN_BLOCKS, variant(predictor_context="shared")),
    "slower": SLOWER,
    "slower, last four layers": both(SLOWER, method(target_layers=(2, 3, 4, 5))),
    "slower, no pixels": both(SLOWER, method(pixel_loss_weight=0.0)),
    "slower, momentum 0.996": both(SLOWER, optim(ema_momentum=0.996, final_ema_momentum=0.996)),
    "slower, predictor of one layer": both(SLOWER, predictor(depth=1)),
    "alone, lr 3e-3": both(ALONE, optim(lr=3e-3)),
    "alone, all asked": both(ALONE, masks(target_fraction=1.0)),
    "alone, a third asked": both(ALONE, masks(target_fraction=1 / 3)),
    "upper, not centred": both(UPPER, method(target_transforms=("standardize",))),
    "upper, convolutions": lambda base: replace(UPPER(base), data=replace(base.data, stem="convolutions")),
    "upper, four registers": both(UPPER, variant(registers=4)),
    "upper, rotary": both(UPPER, encoder(positions="rope")),
    "upper, 128 images": both(UPPER, batch(128)),
    "upper, 128 images, lr 1.5e-3": both(UPPER, batch(128), optim(lr=1.5e-3)),
    "upper, 128 images, lr 2e-3": both(UPPER, batch(128), optim(lr=2e-3)),
    "upper, lr 2e-3": both(UPPER, optim(lr=2e-3)),
    "calmer, pixels 3": both(CALMER, method(pixel_loss_weight=3.0)),
    "calmer, 128×4": both(CALMER, sized(128, 4, 2)),
    "calmer, 256×8": both(CALMER, sized(256, 8, 4)),
    # light with sine-cosine positions, so that its encoder can start from the masked autoencoder's
    "plain light": PLAIN,
    "plain light, pixels 3": both(PLAIN, method(pixel_loss_weight=3.0)),
    "plain light, lr 3e-3": both(PLAIN, optim(lr=3e-3)),
    "plain light, 8 images, 8 masks": both(PLAIN, masks(masks_per_sample=8), batch(8)),
    "plain light, squared": both(PLAIN, method(loss="squared_l2")),
    "plain light, average kept": both(PLAIN, optim(final_ema_momentum=0.99)),
    "plain light, momentum 0.98": both(PLAIN, optim(ema_momentum=0.98)),
    "plain light, momentum 0.996": both(PLAIN, optim(ema_momentum=0.996)),
    "plain light, last four layers": both(PLAIN, method(target_layers=(2, 3, 4, 5))),
    "plain light, last layer": both(PLAIN, method(target_layers=(-1,))),
    "plain light, 85 % hidden": both(PLAIN, masks(mask_ratio=0.85)),
    "plain light, 60 % hidden": both(PLAIN, masks(mask_ratio=0.6)),
    "plain light, after MAE": PLAIN,
    "plain light, after MAE, features alone": both(PLAIN, method(pixel_loss_weight=0.0)),
    "plain light, after MAE, target frozen": both(PLAIN, optim(ema_momentum=1.0)),
    # the masked autoencoder: with the changes that help a JEPA, and with its own
    "MAE": mae(),
    "MAE, lr 2e-3": both(mae(), optim(lr=2e-3)),
    "MAE, batch 64": both(mae(), batch(64)),
    "MAE, 60 % hidden": mae(mask_ratio=0.6),
    "MAE, plain pixels": mae(method(normalize_targets=False)),
    "MAE, rotary": mae(encoder(positions="rope")),
    "MAE, xavier": mae(init("scaled")),
    "MAE, fast": both(mae(init("scaled")), optim(lr=2e-3, beta2=0.95)),
    "MAE, fast, batch 64": both(mae(init("scaled")), optim(lr=2e-3, beta2=0.95), batch(64)),
    "MAE, light": MAE_LIGHT,  # the recipe `mae-cifar10`
    "MAE, light, Muon": both(MAE_LIGHT, MUON),
    "MAE, light, Muon, lr 4e-3": both(MAE_LIGHT, MUON, optim(lr=4e-3)),
    "MAE, light, half asked": both(MAE_LIGHT, masks(target_fraction=0.5)),
    "MAE, light, a third asked": both(MAE_LIGHT, masks(target_fraction=1 / 3)),
    # joint embedding of two crops
    "VICReg, crops": views(),
    "VICReg, crops and colours": views(color_jitter=0.5),
    "VICReg, half shown, crops": views(masked=True),
    "VICReg, half shown, crops and colours": views(masked=True, color_jitter=0.5),
    "VICReg, fast": FAST_VIEWS,
    "VICReg, fast, colours": both(FAST_VIEWS, data(color_jitter=0.5)),
    "VICReg, fast, whole crops": both(FAST_VIEWS, method(masked=False)),
    "VICReg, fast, a quarter shown": QUARTERS,
    "VICReg, fast, batch 64": both(FAST_VIEWS, batch(64)),
    "VICReg, fast, smaller crops": both(FAST_VIEWS, data(crop_scale=(0.1, 1.0))),
    "VICReg, a quarter shown": both(views(masked=True), masks(mask_ratio=0.75)),
    "VICReg, fast, a quarter shown, colours": both(QUARTERS, data(color_jitter=0.5)),
    "VICReg, fast, a quarter shown, batch 256": both(QUARTERS, batch(256)),
    "VICReg, fast, a quarter shown, narrow expander": both(QUARTERS, method(expander=ExpanderConfig(256, 2))),
    "VICReg, fast, a quarter shown, covariance 4": both(QUARTERS, method(covariance=4.0)),
    "VICReg, Muon": both(QUARTERS, MUON),
    "VICReg, Muon, lr 4e-3": both(QUARTERS, MUON, optim(lr=4e-3)),
    "VICReg, fast, an eighth shown": both(FAST_VIEWS, masks(mask_ratio=0.875)),
}

# The arm that trains in the first half of the time
FIRST = {name: "MAE, light" if "light" in name else "MAE" for name in ARMS if "after MAE" in name}
FIRST |= {"muon, after lower layers": "muon, lower layers", "muon, after muon": "muon"}
FROZEN = {name for name in ARMS if "frozen" in name}  # arms whose context encoder is the one that learns
