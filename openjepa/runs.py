"""A pretraining run from its folder to its export: everything around the loop."""

from __future__ import annotations

import dataclasses
import json
import platform
import time
from contextlib import nullcontext
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

import PIL
import torch

from openjepa import checkpoint, config, distributed, flops, optim, weights
from openjepa.config import Pretrain
from openjepa.data import Steps, load, locked
from openjepa.device import Place, cores, place
from openjepa.durable import read_json, replacing
from openjepa.evaluate.online import Online
from openjepa.figures import report
from openjepa.figures.curves import draw
from openjepa.log import Log, say, warn
from openjepa.log import rows as log_rows
from openjepa.machine import matrix_rate, peak
from openjepa.methods.decoder import Decoder
from openjepa.methods.jepa import JEPA
from openjepa.modalities.image import Image, measure
from openjepa.nn.transformer import recompute_blocks
from openjepa.saving import Saver
from openjepa.sharding import sharded
from openjepa.training import Signals, train
from openjepa.types import Dataset, Listing, Mistake

MARGIN, LEAST = 0.97, 10  # of a budget: the share that steps may take, and the fewest that are worth beginning


def pretrain(settings: Pretrain) -> Path:
    """Trains an encoder as the settings say, in the folder `settings.out`, which is returned.

    Mistake or OSError in a sentence where the settings, the data or the folder are no good; Trouble where a run
    cannot go on; Stopped after a signal, with everything saved.
    """
    where = place(settings.device, settings.precision)
    with distributed.process_group(where.device, timedelta(seconds=config.seconds(settings.patience))):
        torch.set_num_threads(settings.threads or max(1, cores() // distributed.local_size()))
        settings.masks.build(settings.data.grid)  # says at once if the grid is too small
        if settings.dry_run:
            return rehearse(settings, where)
        main = distributed.is_main()
        with locked(settings.out, "training") if main else nullcontext():
            run(settings, where)
    if settings.report and main:
        report.at_end(
            settings.out
        )  # by one process when the others have left: its figures sum over nobody else's share
    return settings.out


def run(settings: Pretrain, where: Place) -> None:
    """One run: a new one, or one to go on with."""
    resumed = resuming(settings)
    listing = settings.data.listing()
    if resumed:
        same_data(settings, listing)
    if settings.budget:
        settings = kept_steps(settings) if resumed else within(settings)
    divides(settings)
    began = time.perf_counter()
    data, settings = prepared(settings, where, listing, settings.out / "data")
    if settings.budget and not resumed:
        settings = lasting(settings, affordable(settings, paced(settings, data, where), where, began), len(data))

    method, steps = built(settings, data, where)
    optimizer = optim.build(method, settings.optim)
    start = restored(settings, method, optimizer) if resumed else 0
    if start >= settings.steps:
        say(f"nothing is left to do: {start} steps are taken, and {settings.steps} were asked for")
    if start == 0 and settings.init_from:
        unfit = weights.initialise_from(method, settings.init_from)
        if distributed.is_main():
            weights.inherit(settings.init_from, settings.out)
            say("\n".join([f"started from {settings.init_from}{', all but' if unfit else ''}", *unfit]))
    if distributed.is_main():
        describe(settings, listing, len(data))
        introduce(settings, where, len(data), start)

    online = Online(settings, where) if settings.online.root and distributed.is_main() else None
    loader = load(steps, start, settings.workers, pin=where.device.type == "cuda")
    opened = Log(settings.out, start, settings.steps, settings.boards) if distributed.is_main() else nullcontext()
    with opened as log, Signals() as signals, Saver(settings) as saver:
        train(settings, method, optimizer, loader, where, start, log, signals, saver, online)
    finish(settings, method)
    distributed.barrier()


def divides(settings: Pretrain) -> None:
    """Mistake if a batch has no equal part for every process, or must not be taken in parts."""
    ranks = distributed.world()[1]
    if settings.sharded and settings.online.root and ranks > 1:
        raise Mistake(
            "probes during a run want whole weights: leave --online.root out, or --sharded, and probe afterwards"
        )
    if settings.method.whole_batch and settings.batch_size < 2:
        raise Mistake(
            f"{type(settings.method).__name__} compares the samples of a batch with one another: try --batch-size 128"
        )
    if settings.method.whole_batch and settings.accumulate * ranks > 1:
        raise Mistake(
            f"{type(settings.method).__name__} compares the samples of a batch with one another, so that a batch cannot be "
            "taken in parts: run it in one process, without --accumulate"
        )
    if settings.batch_size % (settings.accumulate * ranks):
        raise Mistake(
            f"a batch of {settings.batch_size} does not divide over {ranks} processes and {settings.accumulate} parts: "
            f"try --batch-size {max(1, settings.batch_size // (settings.accumulate * ranks)) * settings.accumulate * ranks}"
        )


def built(settings: Pretrain, data: Dataset, where: Place) -> tuple[Any, Steps]:
    """The method with the weights that the run's seed gives it, on its device, and the steps it will take."""
    method = settings.method.build(settings.data, settings.seed)
    if settings.recompute:
        recompute_blocks(method)
    method = sharded(method, where.device) if settings.sharded else method.to(where.device)
    steps = steps_of(settings, data, method.views)
    if settings.compile:
        from openjepa.compiled import compile_blocks  # a second, which others need not wait

        if distributed.is_main():
            say("compiling  transformer blocks: a minute or more")
        compile_blocks(settings, method, steps[0], where)
    return method, steps


def steps_of(settings: Pretrain, data: Dataset, views: int) -> Steps:
    """All steps of a run, this process's share of each, with so many views of every sample."""
    (rank, ranks), masker = distributed.world(), settings.masks.build(settings.data.grid)
    return Steps(
        data,
        masker,
        batch_size=settings.batch_size,
        total=settings.steps,
        seed=settings.seed,
        rank=rank,
        ranks=ranks,
        views=views,
    )


def resuming(settings: Pretrain) -> bool:
    """Whether there is a run to go on with. Mistake if the folder and the wish do not go together."""
    there = (settings.out / "config.json").is_file()
    if not there and checkpoint.steps(settings.out / "checkpoints"):
        raise Mistake(
            f"{settings.out} has checkpoints and no config.json: put it back (export/ of a run has one, too), or give another --out"
        )
    if there and settings.resume == "no":
        raise Mistake(f"{settings.out} already holds a run: go on with it by --resume, or give another --out")
    if settings.resume == "yes" and not there:
        raise Mistake(f"{settings.out} holds no run to resume: leave --resume out to start one")
    return there


def same_data(settings: Pretrain, listing: Listing) -> None:
    """Mistake if the files are not those that the run began with."""
    began = noted(settings.out / "data.json")
    if not began:
        warn(f"{settings.out} has no data.json: whether the data are those the run began with is not known")
    if began and began.get("fingerprint") != listing.fingerprint:
        message = f"the data are not those the run began with: {began.get('count')} files then, {len(listing.paths)} now, or other names (from the root as it is given) or sizes"
        if not settings.other_data:
            raise Mistake(f"{message}; give the same --data.root, or insist with --other-data")
        warn(f"{message}; the resumed run is not exact")


def same_environment(settings: Pretrain) -> None:
    """Says what is another than when the run began, of what its last bits depend on."""
    environment = versions()
    then = noted(settings.out / "environment.json") or environment
    other = [f"{name}: {then.get(name)} → {now}" for name, now in environment.items() if then.get(name) != now]
    if other:
        warn(f"resumed in another environment, so perhaps not bit for bit the same run: {'; '.join(other)}")


def noted(file: Path) -> dict[str, Any]:
    """What a run wrote down when it began; nothing where it did not. Mistake if that is damaged."""
    try:
        return read_json(file) if file.exists() else {}
    except ValueError as error:
        raise Mistake(f"{file} is damaged ({error}): put it back, or remove it to go on without its check") from error


def prepared(settings: Pretrain, where: Place, listing: Listing, cache: Path | None) -> tuple[Dataset, Pretrain]:
    """The data and the settings with everything chosen that was left to us."""
    if distributed.is_main() or cache is None:
        data = settings.data.dataset(listing, cache)  # the main process packs and measures; the others find it done
    distributed.barrier()
    data = settings.data.dataset(listing, cache)
    if isinstance(settings.data, Image) and not settings.data.mean:
        mean, std = measure(data)
        settings = dataclasses.replace(settings, data=dataclasses.replace(settings.data, mean=mean, std=std))
        data = settings.data.dataset(listing, cache)
    per_epoch = max(1, len(data) // settings.batch_size)
    packed = not hasattr(data, "paths")
    workers = 0 if packed else min(8, max(1, cores() // distributed.local_size() - (where.device.type != "cpu")))
    return data, dataclasses.replace(
        settings,
        steps=settings.steps or max(1, round(settings.epochs * per_epoch)),
        epochs=settings.epochs if not settings.steps else settings.steps / per_epoch,
        device=where.device.type,
        precision=where.precision,
        threads=torch.get_num_threads() if where.device.type == "cpu" else settings.threads,
        workers=workers if settings.workers < 0 else settings.workers,
    )


def restored(settings: Pretrain, method: torch.nn.Module, optimizer: torch.optim.Optimizer) -> int:
    """Steps already taken, their weights put back; says so if what follows is not what would have been."""
    began = config.load(settings.out)
    changed = config.differences(began, settings)
    if changed:
        warn(f"resumed with other settings, so not exactly the same run: {'; '.join(changed)}")
    same_environment(settings)
    folder = settings.out / "checkpoints"
    loaded = checkpoint.newest(folder) if distributed.is_main() else None  # alone: it may set damaged ones aside
    distributed.barrier()
    loaded = loaded if distributed.is_main() else checkpoint.newest(folder)
    if loaded is None:
        reached = max((row["step"] for row in log_rows(settings.out / "metrics.jsonl")), default=0)
        if reached > 2 * began.save_every:  # one may be under way, but not the next one as well
            raise Mistake(
                f"{settings.out} has a log up to step {reached} and no checkpoint: put checkpoints/ back, or give another --out"
            )
        say("the run was stopped before its first checkpoint: starting at step 0, as then")
        return 0
    checkpoint.restore(loaded, method, optimizer)
    return loaded.step


def versions() -> dict[str, Any]:
    """What else the last bits depend on."""
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "pillow": PIL.__version__,
        "machine": platform.machine(),
        "cpu": torch.backends.cpu.get_cpu_capability(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "ranks": distributed.world()[1],
    }


def describe(settings: Pretrain, listing: Listing, count: int) -> None:
    """Writes config.json, environment.json and data.json."""
    data: dict[str, Any] = {"fingerprint": listing.fingerprint, "count": count}
    if isinstance(settings.data, Image):
        data |= {"mean": settings.data.mean, "std": settings.data.std}
    files = {"environment": versions(), "data": data, "config": config.to_json(settings)}
    for name, content in files.items():
        with replacing(settings.out / f"{name}.json") as temporary:
            temporary.write_text(json.dumps(content, indent=1))


def introduce(settings: Pretrain, where: Place, count: int, start: int) -> None:
    """Says what will be done, everything chosen included."""
    data, method = settings.data, settings.method
    shape = (
        f"{data.size[0]}×{data.size[1]} px, patch {data.patch}" if isinstance(data, Image) else f"{data.length} samples"
    )
    rows_, columns = data.grid
    say(f"data       {count:,} samples, {shape}: a grid of {rows_}×{columns}")
    say(
        f"encoder    width {method.dim}, depth {method.depth}, {method.num_heads} heads; predictor {method.predictor_dim}×{method.predictor_depth}"
        + (f"; targets of blocks {' '.join(map(str, method.target_layers))}" if isinstance(method, JEPA) else "")
    )
    say(
        f"training   {settings.steps:,} steps of {settings.batch_size} ({settings.epochs:.4g} epochs), {settings.precision} on {where.device}, {settings.threads} threads, {settings.workers} workers"
    )
    say(f"folder     {settings.out}" + (f", going on after step {start}" if start else ""))


def finish(settings: Pretrain, method: Any) -> None:
    """The export, the curves, and what to do next."""
    folder = weights.export(method, settings, settings.steps, settings.out / "export")
    if not distributed.is_main():
        return
    following = f"jepa probe {settings.out} --data.root LABELLED_FOLDER"
    if isinstance(settings.method, Decoder):
        following = f"jepa decode sample {settings.out} PICTURES"
    picture = draw([settings.out], settings.out / "curves.png")
    say(f"\nencoder    {folder}\ncurves     {picture}\nnext       {following}")


class Pace(NamedTuple):
    """Seconds a step."""

    loading: float  # with all workers at work
    stepping: float
    workers: int
    work: float  # FLOP a step, of this process
    shared: float = 0.0  # both spread over all cores, where the workers have none of their own

    @property
    def step(self) -> float:
        """Of both together: at the same time where there are workers, one after the other where there are none."""
        return max(self.loading, self.stepping, self.shared) if self.workers else self.loading + self.stepping


def paced(settings: Pretrain, data: Dataset, where: Place, count: int = 6) -> Pace:
    """How long a step takes, by taking a few with a method of its own."""
    method, steps = built(settings, data, where)
    optimizer = optim.build(method, settings.optim)
    shortened = dataclasses.replace(settings, steps=count, log_every=10**9, save_every=10**9)

    began = time.perf_counter()
    made = [steps[number] for number in range(count)]
    loading = (time.perf_counter() - began) / count / max(1, settings.workers)
    with torch.random.fork_rng():
        stepping = timed_steps(shortened, method, optimizer, made, where)
    work = [flops.work(settings.method, settings.data, flops.shapes(step.masks)).total for step in made]
    mine = cores() / distributed.local_size()
    busy = stepping * torch.get_num_threads() + loading * settings.workers  # seconds of a core
    shared = busy / mine if where.device.type == "cpu" else 0.0
    return Pace(loading, stepping, settings.workers, sum(work) / count * len(made[0].batch.number), shared)


def within(settings: Pretrain) -> Pretrain:
    """Mistake if both a time and a number of steps were asked for."""
    if settings.steps:
        raise Mistake(
            f"--steps {settings.steps} and --budget {settings.budget} are two lengths of one run: leave one out"
        )
    return settings


def kept_steps(settings: Pretrain) -> Pretrain:
    """A resumed run's own number of steps. Mistake if it is given another time than it began with."""
    began = config.load(settings.out)
    if began.budget != settings.budget:
        raise Mistake(
            "a run keeps the number of steps that its first --budget gave: leave --budget out, or give --steps"
        )
    return dataclasses.replace(settings, steps=settings.steps or began.steps)


def affordable(settings: Pretrain, pace: Pace, where: Place, began: float) -> int:
    """The steps that fit into the budget, by the slowest process; what has passed since `began` is spent.

    Timed once: a run that is resumed keeps its number of steps, so that its schedules, and its weights, are the same.
    Probes during the run come on top.
    """
    step, spent = distributed.most(torch.tensor([pace.step, time.perf_counter() - began], device=where.device)).tolist()
    left = MARGIN * (config.seconds(settings.budget) - spent)
    if left < LEAST * step:
        raise Mistake(
            f"a step takes {step:.2g} s here, so {settings.budget} is too short: try --budget {max(1, round(1000 * step / 60))}m"
        )
    return int(left / step)


def lasting(settings: Pretrain, steps: int, count: int) -> Pretrain:
    """The run with another number of steps."""
    return dataclasses.replace(settings, steps=steps, epochs=steps / max(1, count // settings.batch_size))


def rehearse(settings: Pretrain, where: Place) -> Path:
    """Takes a few steps in no folder and says how long the run takes, how much memory, and whether the loader keeps up.

    Small pictures, which a run packs first, are read from their files here: the loader is timed slower than it will be.
    """
    if settings.budget:
        within(settings)
    divides(settings)
    began = time.perf_counter()
    data, settings = prepared(settings, where, settings.data.listing(), None)
    pace = paced(settings, data, where)
    if settings.budget:
        settings = lasting(settings, affordable(settings, pace, where, began), len(data))
    memory = peak(where)
    say(
        f"a step     {pace.stepping:.3f} s computing, {pace.loading:.3f} s loading with {settings.workers} workers: {settings.batch_size / pace.step:.0f} images/s"
    )
    rate = pace.work / pace.stepping
    say(f"reached    {rate / 1e9:,.0f} GFLOP/s, {rate / matrix_rate(where):.0%} of what matrix products reach here")
    say(f"the run    {settings.steps:,} steps, about {settings.steps * pace.step / 3600:.2g} hours")
    say(f"memory     {memory / 2**30:.1f} GiB")
    keeps = pace.loading < pace.stepping or not settings.workers
    say(
        "loader     keeps up" if keeps else f"loader     does not keep up: try --workers {2 * max(1, settings.workers)}"
    )
    return settings.out


def timed_steps(settings: Pretrain, method: Any, optimizer: torch.optim.Optimizer, made: list, where: Place) -> float:
    """Seconds a step, the median without the first two."""
    seconds = []
    for step in made:
        began = time.perf_counter()
        endless = dataclasses.replace(settings, steps=10**9, save_every=10**9)
        with Saver(endless) as saver:
            train(endless, method, optimizer, iter([step]), where, 0, None, Signals(), saver)
        if where.device.type != "cpu":
            torch.accelerator.synchronize()
        seconds.append(time.perf_counter() - began)
    return sorted(seconds[2:])[len(seconds[2:]) // 2]
