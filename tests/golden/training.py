"""Training runs of seconds: every recipe made small, every method of the tests, on one process and on two."""

from __future__ import annotations

import functools
import io
import json
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image as Pillow

from openjepa.cli.pretrain import pretrain
from openjepa.core.protocols import Masker
from openjepa.core.registry import names
from openjepa.data.synthetic.scenes import render
from openjepa.masking.block import Block
from openjepa.masking.multiblock import MultiBlock
from openjepa.masking.official import Official
from openjepa.masking.quadrants import Quadrants
from openjepa.masking.random import Random
from openjepa.methods.decoder import Decoder
from openjepa.methods.jepa import JEPA
from openjepa.methods.mae import MAE
from openjepa.methods.vicreg import VICReg
from openjepa.modalities.image import Image
from openjepa.modalities.series import Series
from openjepa.nn.expander import ExpanderConfig
from openjepa.nn.predictor import PredictorConfig
from openjepa.nn.vit import ViTConfig
from openjepa.recipes.auto import choose_config
from openjepa.recipes.ijepa_paper import (
    ijepa_vitb16,
    ijepa_vitg16_in22k,
    ijepa_vith14_in1k,
    ijepa_vith14_in22k,
    ijepa_vith16_448_in1k,
    ijepa_vitl16,
    ijepa_vits16,
)
from openjepa.recipes.image_small import (
    cifar10,
    cifar10_hours,
    cifar10_minutes,
    cifar10_muon,
    laptop,
    mae_cifar10,
    vicreg_cifar10,
)
from openjepa.recipes.registry import load_recipe
from openjepa.training.checkpoint import load_newest
from openjepa.training.config import Pretrain
from openjepa.training.log import read_metrics
from openjepa.training.optim import Optim
from openjepa.training.parallel.launch import process_group
from tests.golden.values import numbers, statistics, tensors
from tests.ranks import rank_environments
from tests.ready import Ready
from tests.small import small

STEPS, BATCH, SCENES = 20, 16, 96

MADE: dict[str, Callable[[], Pretrain]] = {  # recipes, under words of ours
    "published huge, patch 14": ijepa_vith14_in1k,
    "published huge, patch 16, large pictures": ijepa_vith16_448_in1k,
    "published huge, more classes": ijepa_vith14_in22k,
    "published giant": ijepa_vitg16_in22k,
    "paper base": ijepa_vitb16,
    "paper large": ijepa_vitl16,
    "one device, small": ijepa_vits16,
    "little pictures": cifar10,
    "little pictures in minutes": cifar10_minutes,
    "little pictures in hours": cifar10_hours,
    "little pictures by orthogonal steps": cifar10_muon,
    "little pictures, autoencoder": mae_cifar10,
    "little pictures, joint embedding": vicreg_cifar10,
    "laptop": laptop,
}
ENCODER, PREDICTOR = ViTConfig(dim=48, depth=2, num_heads=2), PredictorConfig(dim=24, depth=1)
DRAWING = Decoder(ENCODER, PREDICTOR, decoder_dim=48, decoder_depth=2)
METHODS = {  # those of tests/conftest.py, which may change while these must not
    "released": JEPA(ENCODER, PREDICTOR),
    "averaged layers": JEPA(
        replace(ENCODER, depth=3), PREDICTOR, target_layers=(0, 1, 2), target_transforms=("standardize",)
    ),
    "pixels too": JEPA(ENCODER, PREDICTOR, target_transforms=("standardize",), pixel_loss_weight=0.5),
    "autoencoder": MAE(ENCODER, PREDICTOR, normalize_targets=False),
    "rotary": JEPA(
        replace(ENCODER, positions="rope", init="scaled", stem_init="scaled"),
        replace(PREDICTOR, init="scaled"),
        target_transforms=("center", "standardize"),
    ),
    "joint embedding": VICReg(ENCODER, ExpanderConfig(dim=64, depth=2)),
    "drawing from features": DRAWING,
    "drawing from predictions": replace(DRAWING, condition="prediction"),
    "squared": JEPA(ENCODER, PREDICTOR, loss="squared_l2"),
}
SIGNALS = ("released", "rotary", "autoencoder", "joint embedding")  # methods that learn from signals, too


class Variant(NamedTuple):
    """How one case is computed."""

    precision: str = "fp32"
    parts: int = 1  # of a batch
    processes: int = 1
    fsdp: bool = False

    def __str__(self) -> str:
        several = {1: ""}.get(self.processes, f", {self.processes} processes{' that share weights' * self.fsdp}")
        return f"{self.precision}, {'whole batches' if self.parts == 1 else f'batches in {self.parts} parts'}{several}"


TWO = {  # cases that two processes run together
    "recipe: little pictures in hours": Variant(processes=2),
    "recipe: paper base": Variant(processes=2),
    "recipe: little pictures, autoencoder": Variant(processes=2, parts=2),
    "recipe: little pictures by orthogonal steps": Variant(processes=2),
    "method: averaged layers": Variant("bf16", processes=2),
    "method: rotary": Variant(processes=2, parts=2),
    "method: drawing from features": Variant(processes=2),
    "recipe: little pictures": Variant(processes=2, fsdp=True),
}
QUICK = (  # for a test of seconds
    "recipe: little pictures by orthogonal steps",
    "recipe: little pictures, joint embedding",
    "recipe: laptop",
    "method: averaged layers",
    "method: autoencoder",
    "method: rotary",
    "method: drawing from predictions",
    "signals: released",
    "also: convolutions, colours, mirrors",
)


def pictures(folder: Path, count: int = SCENES, side: int = 48, seed: int = 7, labelled: bool = False) -> Path:
    """Write rendered scenes as PNG files in three folders, by number, or by the nearest object's shape."""
    scenes = render(count, (side, side), seed)
    for number, image in enumerate(scenes.image):
        part = folder / f"class{int(scenes.kind[number]) // 6 if labelled else number % 3}"
        part.mkdir(parents=True, exist_ok=True)
        Pillow.fromarray(image.permute(1, 2, 0).numpy()).save(part / f"{number:03d}.png")
    return folder


def signals(folder: Path) -> Path:
    """Write sines of four frequencies in one file."""
    place = np.arange(512) * 2 * np.pi / 256
    number = np.arange(SCENES)[:, None, None]
    values = np.sin(place * (number % 4 + 2) + number) + 0.05 * (number % 7) * np.sin(3 * place * (number % 4 + 2))
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / "signals.npy", values.astype(np.float32))
    return folder / "signals.npy"


def data(folder: Path) -> None:
    """Write what all cases learn from, once."""
    if not (folder / "signals").exists():
        pictures(folder / "pictures")
        signals(folder / "signals")


def shrunk(config: Pretrain, root: tuple[str, ...]) -> Pretrain:
    """Make a recipe small: sizes alone, nothing else of it."""
    side = 48 if isinstance(config.masks, Official) else 32  # its blocks want a grid of 12×12
    method, depth = config.method, min(config.method.encoder.depth, 6)
    changes: dict[str, Any] = {"encoder": replace(method.encoder, dim=48, depth=depth, num_heads=3)}
    if isinstance(method, VICReg):
        changes["expander"] = ExpanderConfig(64, min(method.expander.depth, 3))
    else:
        changes["predictor"] = replace(method.predictor, dim=24, depth=min(method.predictor.depth, 3))
    if isinstance(method, JEPA) and len(method.target_layers) > depth:  # all of a deeper one
        changes["target_layers"] = tuple(range(depth))
    image = replace(config.data, root=root, size=(side, side), patch=4)
    return replace(config, data=image, method=replace(method, **changes))


def plain(data: Image | Series, method: JEPA | MAE | VICReg | Decoder, masks: Masker | None = None) -> Pretrain:
    """Give a run as the tests have them."""
    return Pretrain(data=data, method=method, masks=masks or MultiBlock(), optim=Optim(warmup=0.1, ema_momentum=0.99))


def cases(folder: Path) -> dict[str, Pretrain]:
    """Give every configuration that is trained, by name."""
    data(folder)
    root = (str(folder / "pictures"),)
    image = Image(root=root, size=(32, 32), patch=4, mean=(0.5,) * 3, std=(0.25,) * 3)
    series = Series(root=(str(folder / "signals" / "signals.npy"),), length=256, window=8)
    released, rotary = METHODS["released"], METHODS["rotary"]
    found = {f"recipe: {name}": shrunk(make(), root) for name, make in MADE.items()}
    found |= {
        "recipe: chosen for a folder on a processor": shrunk(choose_config(root, device="cpu", threads=1).config, root),
        "recipe: chosen for a folder on a GPU": shrunk(choose_config(root, device="cuda", threads=1).config, root),
    }
    found |= {f"method: {name}": plain(image, method) for name, method in METHODS.items()}
    found |= {f"signals: {name}": plain(series, METHODS[name]) for name in SIGNALS}
    changed = replace(image, stem="convolutions", color_jitter=0.5, flip=True)
    clipped = Optim(
        warmup=0.1, constant_fraction=0.3, ema_momentum=0.99, ema_rampup=0.2, clip=0.5, weight_decay_shape="linear"
    )
    found |= {
        "also: convolutions, colours, mirrors": plain(changed, rotary),
        "also: grey": plain(replace(image, channels=1, mean=(0.5,), std=(0.25,)), released),
        "also: rectangle": plain(replace(image, size=(24, 48)), METHODS["averaged layers"]),
        "also: cosine loss": plain(image, replace(released, loss="cosine")),
        "also: two masks": plain(image, released, Random(masks_per_sample=2, target_fraction=0.5)),
        "also: quadrants": plain(image, released, Quadrants()),
        "also: one block, targets see it alone": plain(image, replace(released, target_input="targets_only"), Block()),
        "also: clipped, held": replace(plain(image, released), optim=clipped),
        "also: blocks computed twice": replace(plain(image, released), activation_checkpointing=True),
        "also: another seed": replace(plain(image, released), seed=5),
    }
    return found


def variants(config: Pretrain, bf16: bool) -> list[Variant]:
    """Give the ways in which a case is computed by one process."""
    parts = (1,) if config.method.whole_batch else (1, 2)
    return [Variant(precision, part) for precision in ("fp32", "bf16")[: 1 + bf16] for part in parts]


def settings(config: Pretrain, variant: Variant, out: Path) -> Pretrain:
    """Give the run of a case."""
    return replace(
        config,
        steps=STEPS,
        batch_size=BATCH,
        accumulate=variant.parts,
        precision=variant.precision,
        fsdp=variant.fsdp,
        device="cpu",
        threads=1,
        workers=0,
        log_every=1,
        save_every=1000,
        out=out,
        report=False,
    )


def outcome(run: Path) -> dict[str, Any]:
    """Read what a run left: losses, weights, moments."""
    logged, kept = read_metrics(run / "metrics.jsonl"), load_newest(run / "checkpoints")
    assert kept is not None
    return {
        "losses": [row["loss"] for row in logged],
        "last gradient": logged[-1]["grad_norm"],
        "last rank of features": logged[-1]["rankme"],
        "weights": tensors(kept.model),
        "moments": tensors(kept.optimizer),
        "mean size and norm": statistics(kept.model),
    }


def trained(config: Pretrain, variant: Variant, out: Path) -> dict[str, Any]:
    """Train one case in this process."""
    pretrain(settings(config, variant, out))
    return outcome(out)


def share(folder: str, wanted: str) -> None:
    """Run one of two processes for the given cases."""
    torch.set_num_threads(1)
    small()
    with process_group(torch.device("cpu")), redirect_stdout(io.StringIO()):
        for name, variant in json.loads(wanted).items():
            pretrain(settings(cases(Path(folder))[name], Variant(*variant), together(Path(folder), name)))


def together(folder: Path, name: str) -> Path:
    """Give the folder of a run of two processes."""
    return folder / "together" / name.replace(":", "").replace(" ", "-")


def trained_together(folder: Path, wanted: dict[str, Variant]) -> dict[str, Any]:
    """Train cases in two processes."""
    data(folder)
    code = "import sys\nfrom tests.golden.training import share\nshare(*sys.argv[1:])"
    begun = [Ready(code, str(folder), json.dumps(wanted), env=each) for each in rank_environments(2)]
    assert [each.wait(300) for each in begun] == [0, 0]
    return {f"{name}; {variant}": outcome(together(folder, name)) for name, variant in wanted.items()}


def by_one_process(folder: Path, bf16: bool, names: tuple[str, ...] | None = None) -> dict[str, Callable[[], Any]]:
    """Give what computes each case in each way, under the name that its result bears."""
    found = {}
    for name, config in cases(folder).items():
        for number, variant in enumerate(variants(config, bf16) if names is None or name in names else []):
            out = folder / "alone" / f"{name.replace(':', '').replace(' ', '-')}-{number}"
            found[f"{name}; {variant}"] = functools.partial(trained, config, variant, out)
    return found


def recipes() -> dict[str, Any]:
    """Give what recipes say at their full size: the work of a step, schedules, lengths."""
    assert {make() for make in MADE.values()} <= {load_recipe(name) for name in names("recipe")}
    found = {}
    for name, make in MADE.items():
        config = make()
        schedule = [list(config.optim.at(step, 1000)) for step in (0, 50, 133, 500, 999)]
        found[name] = {
            "work": list(config.method.cost(config.data, config.masks.shapes(config.data.layout)[:4])),
            "rate, decay, momentum": [[float(each) for each in row] for row in schedule],
            "length": [float(config.epochs), config.batch_size],
        }
    return found


def first_weights(folder: Path) -> dict[str, Any]:
    """Give the weights that seeds give, before any step."""
    found = {}
    for name, config in cases(folder).items():
        state = config.method.build(replaced_data(config), 3).state_dict()
        found[name] = {"weights": tensors(state), "one": numbers(state[min(state)])}
    return found


def replaced_data(config: Pretrain) -> Image | Series:
    """Give the data with some mean, where none was measured yet."""
    if isinstance(config.data, Image) and not config.data.mean:
        return replace(config.data, mean=(0.5,) * 3, std=(0.25,) * 3)
    return config.data
