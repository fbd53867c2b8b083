"""A pretraining run from its folder to its export: everything around the loop."""

from __future__ import annotations

import time
from contextlib import nullcontext
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch

from openjepa import config, distributed, optim, weights
from openjepa.budget import affordable, kept_steps, lasting, paced, rehearse, within
from openjepa.config import Pretrain
from openjepa.data import load, locked
from openjepa.device import Place, cores, place
from openjepa.evaluate.online import Online
from openjepa.figures import report
from openjepa.figures.curves import draw
from openjepa.log import Log, say
from openjepa.methods.decoder import Decoder
from openjepa.methods.jepa import JEPA
from openjepa.modalities.image import Image
from openjepa.preparing import built, divides, prepared
from openjepa.resuming import describe, restored, resuming, same_data
from openjepa.saving import Saver
from openjepa.training import Signals, train


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
        report.at_end(settings.out)  # when the others have left: its figures sum over nobody else's share
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
        say(
            f"nothing is left to do: {start} steps are taken, and {settings.steps} were asked for; --steps asks for more"
        )
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
