"""Run arms of the small-data study for equal time and rank them.

    python studies/small_data/run.py --data cifar10/train --minutes 4 --arms base MAE --seeds 0 1

The step of each arm is timed once, alone on one core, and turned into a number of steps, so that other load on the
machine changes nothing. Two runs go in parallel, one thread each. Probes train on 20,000 of the training images and
are measured on 5,000 others: the test set is never used. Finished runs are kept: call it again to resume, or to see
the table.
"""

import argparse
import dataclasses
import itertools
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[2]))

from openjepa.cli.pretrain import pretrain
from openjepa.core.rng import epoch_order
from openjepa.data.image_io import IMAGE_SUFFIXES
from openjepa.data.listing import list_files
from openjepa.data.loader import Steps
from openjepa.data.normalization import measure_mean_std
from openjepa.data.wrappers import Subset
from openjepa.evaluation.feature_store import Features
from openjepa.evaluation.features import compute_features
from openjepa.evaluation.probes.knn import knn_predict
from openjepa.evaluation.probes.linear import LabeledFeatures, linear_probe
from openjepa.evaluation.probes.logistic import logistic_probe
from openjepa.interop.pretrained import POOLED_KINDS, PretrainedEncoder, load_run, untrained_encoder
from openjepa.recipes.registry import load_recipe
from openjepa.training.config import Pretrain
from openjepa.training.device import choose_device
from openjepa.training.log import read_metrics
from openjepa.training.optim import build_optimizer
from openjepa.training.perf.allocator import retain_freed_memory
from openjepa.training.setup import prepare_data
from openjepa.training.step import train_step
from studies.small_data.arms import ARMS, FIRST, FROZEN

TRAIN, HELD = 20_000, 5_000  # images that probes train on, and are measured on
LOOKS = 20  # steps timed
HALF = "half "  # prefix of the runs of half the time that another arm starts from


def settings_of(arm: str, seed: int, options: argparse.Namespace) -> Pretrain:
    base = dataclasses.replace(load_recipe("cifar10"), seed=seed, threads=1, workers=0, log_every=50, save_every=10**9)
    data = dataclasses.replace(base.data, root=(str(options.data),))
    return ARMS[arm](dataclasses.replace(base, data=data))


def subset_folder(options: argparse.Namespace) -> Path:
    """Return a folder of links to `--images` training images that the probes do not use."""
    folder = options.out / f"{options.images}images"
    folder.mkdir(parents=True, exist_ok=True)
    paths = list_files((str(options.data),), IMAGE_SUFFIXES).paths
    for number in epoch_order(12345, 0, len(paths))[TRAIN + HELD :][: options.images]:
        link = folder / f"{number:06d}{Path(paths[number]).suffix}"
        if not link.exists():
            link.symlink_to(Path(paths[number]).resolve())
    return folder


def folder_of(arm: str, seed: int, options: argparse.Namespace) -> Path:
    images = f"{options.images}images-" if options.images else ""
    name = arm.replace(" ", "_").replace("%", "percent")
    length = f"{options.steps}steps" if options.steps else f"{options.minutes:g}min"
    return options.out / f"{images}{length}" / name / f"seed{seed}"


def seconds_per_step(arm: str, options: argparse.Namespace) -> float:
    """Return the median seconds per step on one thread."""
    settings, device = settings_of(arm, 0, options), choose_device("cpu")
    data = settings.data.dataset(settings.data.listing(), options.out / "packed")
    mean, std = measure_mean_std(data)
    settings = dataclasses.replace(settings, data=dataclasses.replace(settings.data, mean=mean, std=std))
    data = settings.data.dataset(settings.data.listing(), options.out / "packed")
    net = settings.method.build(settings.data, 0)
    steps = Steps(
        data, settings.masks, settings.data.layout, batch_size=settings.batch_size, total_steps=1000, seed=0,
        num_views=net.num_views,
    )  # fmt: skip
    optimizer, seconds = build_optimizer(net, settings.optim), []
    for number in range(LOOKS):
        start = time.perf_counter()
        step = steps[number]
        train_step(net, optimizer, step.batch, settings.optim.at(number, 1000), device)
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds[3:])


def one(arm: str, seed: int, steps: int, options: argparse.Namespace) -> None:
    """Pretrain, probe and write result.json."""
    folder = folder_of(arm, seed, options)
    folder.mkdir(parents=True, exist_ok=True)
    packed = options.out / "packed"
    packed.mkdir(exist_ok=True)
    if not (folder / "data").exists() and not options.images:
        (folder / "data").symlink_to(packed.resolve())
    first_half = folder_of(HALF + FIRST[arm], seed, options) if arm in FIRST else None
    settings = settings_of(arm.removeprefix(HALF), seed, options)
    settings = dataclasses.replace(settings, steps=steps, out=folder, resume="if-any", init_from=first_half)
    if options.images:
        settings = dataclasses.replace(
            settings, data=dataclasses.replace(settings.data, root=(str(subset_folder(options)),))
        )
    if not (folder / "export" / "config.json").exists():
        pretrain(settings)
    if arm.startswith(HALF):
        return
    which = "context" if arm in FROZEN else "target"
    log = list(read_metrics(folder / "metrics.jsonl"))
    alarms = {name: log[-1][name] for name in ("relative_loss", "target_std", "rankme") if name in log[-1]}
    right = probed(folder, which, options)
    bits = {name: packed_bits(each) for name, each in right.items()}
    result = {"arm": arm, "seed": seed, "steps": steps, **accuracies(right), **alarms, "right": bits}
    (folder / "result.json").write_text(json.dumps(result))


def probed(run: Path, which: str, options: argparse.Namespace) -> dict[str, Tensor]:
    """Return which held-out images the probes get right with one of a run's encoders."""
    trained = load_run(run, which)
    data = dataclasses.replace(trained.config.data, root=(str(options.data),))
    encoder = dataclasses.replace(trained, modality=data)
    return held_out(encoder, options.out / "packed")


def before(arm: str, seed: int, options: argparse.Namespace) -> dict[str, float]:
    """Return the accuracies of an arm's encoder before training."""
    settings = settings_of(arm, seed, options)
    _, settings = prepare_data(settings, choose_device("cpu"), settings.data.listing(), options.out / "packed")
    return accuracies(held_out(untrained_encoder(settings), options.out / "packed"))


def held_out(encoder: PretrainedEncoder, packed: Path) -> dict[str, Tensor]:
    """Return which held-out training images three probes get right."""
    whole = encoder.data.dataset(encoder.data.listing(), packed)
    chosen = torch.from_numpy(epoch_order(12345, 0, len(whole)))
    parts = [Subset(whole, chosen[:TRAIN]), Subset(whole, chosen[TRAIN : TRAIN + HELD])]
    train, held = (compute_features(encoder, part, choose_device("cpu"), POOLED_KINDS) for part in parts)
    return compared(train, held, len(whole.classes))


def by_heads(train: Features, held: Features, classes: int) -> Tensor:
    train_set, test_set = (
        LabeledFeatures({kind: part[kind] for kind in POOLED_KINDS}, part.y) for part in (train, held)
    )
    return linear_probe(train_set, test_set, classes).predicted


PROBES = {
    "linear": by_heads,
    "logistic": lambda train, held, classes: logistic_probe(train["last"], train.y, held["last"], classes).predicted,
    "kNN": lambda train, held, classes: knn_predict(train["last"], train.y, held["last"], classes),
}


def compared(train: Features, held: Features, classes: int, probes: Iterable[str] = PROBES) -> dict[str, Tensor]:
    """Train probes on one part and return which samples of the other they get right."""
    return {name: PROBES[name](train, held, classes) == held.y for name in probes}


def accuracies(right: dict[str, Tensor]) -> dict[str, float]:
    return {name: each.float().mean().item() for name, each in right.items()}


def packed_bits(right: Tensor) -> str:
    """Pack one bit per sample into hexadecimal digits."""
    return np.packbits(right.numpy()).tobytes().hex()


def table(options: argparse.Namespace) -> None:
    """Print the arms by their mean linear accuracy, each seed in brackets."""
    found: dict[str, list[dict[str, Any]]] = {}
    for arm in ARMS:
        for file in sorted(folder_of(arm, 0, options).parent.glob("seed*/result.json")):
            found.setdefault(arm, []).append(json.loads(file.read_text()))
    names = ("linear", "logistic", "kNN")
    print("\n| arm | steps | " + " | ".join(f"{name} %" for name in names) + " | relative loss | RankMe |")
    print("|---" * 7 + "|")
    for arm, each in sorted(found.items(), key=lambda item: -statistics.mean(one["linear"] for one in item[1])):
        cells = [
            f"{100 * statistics.mean(one[name] for one in each):.1f}"
            f" ({', '.join(f'{100 * one[name]:.1f}' for one in each)})"
            for name in names
        ]
        last = [
            f"{statistics.mean(one[name] for one in each):.2f}" if name in each[0] else "–"
            for name in ("relative_loss", "rankme")
        ]
        print(f"| {arm} | {each[0]['steps']:,} | " + " | ".join([*cells, *last]) + " |")


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="class folders of 32-pixel images")
    parser.add_argument("--out", type=Path, default=Path("runs/study"))
    parser.add_argument("--minutes", type=float, default=4.0, help="minutes of training on one core")
    parser.add_argument("--steps", type=int, default=0, help="train for this number of steps instead of equal time")
    parser.add_argument("--arms", nargs="+", default=list(ARMS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1])
    parser.add_argument(
        "--images", type=int, default=0, help="pretrain on this number of images, disjoint from the probes' (0: all)"
    )
    parser.add_argument("--together", type=int, default=2, help="runs in parallel")
    parser.add_argument("--turns", type=int, default=0, help="time the arms' steps this many times in turn, and exit")
    parser.add_argument("--before", action="store_true", help="probe the arms' encoders before training, and exit")
    parser.add_argument("--one", nargs=3, metavar=("ARM", "SEED", "STEPS"), help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    options = parse_options()
    retain_freed_memory()
    torch.set_num_threads(1)
    if options.one:
        arm, seed, steps = options.one
        return one(arm, int(seed), int(steps), options)
    options.out.mkdir(parents=True, exist_ok=True)
    if options.turns:
        return in_turn(options)
    if options.before:
        return print_untrained(options)

    firsts = sorted({FIRST[arm] for arm in options.arms if arm in FIRST})
    rates = {} if options.steps else rates_of([*firsts, *options.arms], options)
    with ThreadPoolExecutor(options.together) as pool:
        for arms in ([HALF + first for first in firsts], options.arms):
            jobs = list(itertools.product(arms, options.seeds))
            list(pool.map(lambda job: start(job[0], job[1], rates, options), jobs))
    table(options)


def in_turn(options: argparse.Namespace) -> None:
    """Print how long a step of each arm takes, the median of several turns."""
    timed = [[seconds_per_step(arm, options) for arm in options.arms] for _ in range(options.turns)]
    for arm, each in zip(options.arms, zip(*timed, strict=True), strict=True):
        print(f"{arm}: {1000 * statistics.median(each):.0f} ms a step")


def print_untrained(options: argparse.Namespace) -> None:
    """Print the probes' accuracies before training."""
    for arm, seed in itertools.product(options.arms, options.seeds):
        cells = [f"{name} {100 * value:.1f}" for name, value in before(arm, seed, options).items()]
        print(f"{arm}, seed {seed}, before training: {', '.join(cells)}", flush=True)


def rates_of(arms: list[str], options: argparse.Namespace) -> dict[str, float]:
    """Return the seconds per step of each arm, timed once and stored."""
    file = options.out / "rates.json"
    rates = json.loads(file.read_text()) if file.exists() else {}
    for arm in arms:
        if arm not in rates:
            rates[arm] = seconds_per_step(arm, options)
            print(f"{arm:32} {1000 * rates[arm]:.0f} ms a step", flush=True)
            file.write_text(json.dumps(rates, indent=1))
    return rates


def start(arm: str, seed: int, rates: dict[str, float], options: argparse.Namespace) -> None:
    """Start one run in a process of its own, unless it is finished."""
    folder = folder_of(arm, seed, options)
    if (folder / "result.json").exists() or (arm.startswith(HALF) and (folder / "export").exists()):
        return
    folder.mkdir(parents=True, exist_ok=True)
    parts = 2 if arm in FIRST or arm.startswith(HALF) else 1
    steps = round((options.steps or 60 * options.minutes / rates[arm.removeprefix(HALF)]) / parts)
    command = [
        sys.executable, __file__, "--data", options.data, "--out", options.out, "--minutes", options.minutes,
        "--steps", options.steps, "--images", options.images, "--one", arm, seed, steps,
    ]  # fmt: skip
    with (folder / "log.txt").open("w") as log:
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        done = subprocess.run([str(word) for word in command], stdout=log, stderr=log, env=environment)
    print(f"{arm}, seed {seed}: " + ("done" if not done.returncode else f"failed, see {log.name}"), flush=True)


if __name__ == "__main__":
    main()
