"""Run pretraining from its folder to its exported encoder."""

from __future__ import annotations

import time
from contextlib import nullcontext
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch

from openjepa.core.config import parse_duration
from openjepa.core.console import info
from openjepa.core.cpus import available_cores
from openjepa.core.distributed import barrier, is_main, local_size
from openjepa.core.fileio import lock_folder
from openjepa.data.loader import load_steps
from openjepa.methods.decoder import Decoder
from openjepa.methods.jepa import JEPA
from openjepa.modalities.image import Image
from openjepa.training.budget import check_one_length, dry_run, keep_steps, steps_in_budget, time_step, with_steps
from openjepa.training.callbacks import Callbacks
from openjepa.training.checkpoint_writer import CheckpointWriter
from openjepa.training.config import Pretrain
from openjepa.training.device import Device, choose_device
from openjepa.training.log import RunLog
from openjepa.training.loop import train
from openjepa.training.optim import build_optimizer
from openjepa.training.parallel.launch import process_group
from openjepa.training.resume import check_same_data, is_resuming, load_checkpoint, write_metadata
from openjepa.training.run_folder import copy_provenance, export_encoder, initialize_from
from openjepa.training.setup import build_model, check_batch_size, prepare_data
from openjepa.training.signals import StopSignals

NO_CALLBACKS = Callbacks()


def pretrain(settings: Pretrain, callbacks: Callbacks = NO_CALLBACKS) -> Path:
    """Trains an encoder as the settings say, in the folder `settings.out`, which is returned.

    Mistake or OSError in a sentence where the settings, the data or the folder are no good; Trouble where a run
    cannot go on; Stopped after a signal, with everything saved.
    """
    where = choose_device(settings.device, settings.precision)
    with process_group(where.device, timedelta(seconds=parse_duration(settings.rank_timeout))):
        torch.set_num_threads(settings.threads or max(1, available_cores() // local_size()))
        settings.masks.build(settings.data.grid)  # says at once if the grid is too small
        if settings.dry_run:
            return dry_run(settings, where)
        main = is_main()
        with lock_folder(settings.out, "training") if main else nullcontext():
            run(settings, where, callbacks)
    if settings.report and main and callbacks.report:
        callbacks.report(settings.out)  # when the others have left: its figures sum over nobody else's share
    return settings.out


def run(settings: Pretrain, where: Device, callbacks: Callbacks) -> None:
    """One run: a new one, or one to go on with."""
    resumed = is_resuming(settings)
    listing = settings.data.listing()
    if resumed:
        check_same_data(settings, listing)
    if settings.budget:
        settings = keep_steps(settings) if resumed else check_one_length(settings)
    check_batch_size(settings)
    began = time.perf_counter()
    data, settings = prepare_data(settings, where, listing, settings.out / "data")
    if settings.budget and not resumed:
        settings = with_steps(
            settings, steps_in_budget(settings, time_step(settings, data, where), where, began), len(data)
        )

    method, steps = build_model(settings, data, where)
    optimizer = build_optimizer(method, settings.optim)
    start = load_checkpoint(settings, method, optimizer) if resumed else 0
    if start >= settings.steps:
        info(
            f"nothing is left to do: {start} steps are taken, and {settings.steps} were asked for; --steps asks for more"
        )
    if start == 0 and settings.init_from:
        unfit = initialize_from(method, settings.init_from)
        if is_main():
            copy_provenance(settings.init_from, settings.out)
            info("\n".join([f"started from {settings.init_from}{', all but' if unfit else ''}", *unfit]))
    if is_main():
        write_metadata(settings, listing, len(data))
        print_summary(settings, where, len(data), start)

    probed = settings.online_probe.root and is_main() and callbacks.evaluator
    evaluator = callbacks.evaluator(settings, where) if probed and callbacks.evaluator else None
    loader = load_steps(steps, start, settings.workers, pin=where.device.type == "cuda")
    opened = RunLog(settings.out, start, settings.steps, settings.loggers) if is_main() else nullcontext()
    with opened as log, StopSignals() as signals, CheckpointWriter(settings) as saver:
        train(settings, method, optimizer, loader, where, start, log, signals, saver, evaluator)
    export_run(settings, method, callbacks)
    barrier()


def print_summary(settings: Pretrain, where: Device, count: int, start: int) -> None:
    """Says what will be done, everything chosen included."""
    data, method = settings.data, settings.method
    shape = (
        f"{data.size[0]}×{data.size[1]} px, patch {data.patch}" if isinstance(data, Image) else f"{data.length} samples"
    )
    rows_, columns = data.grid
    info(f"data       {count:,} samples, {shape}: a grid of {rows_}×{columns}")
    info(
        f"encoder    width {method.dim}, depth {method.depth}, {method.num_heads} heads; predictor {method.predictor_dim}×{method.predictor_depth}"
        + (f"; targets of blocks {' '.join(map(str, method.target_layers))}" if isinstance(method, JEPA) else "")
    )
    info(
        f"training   {settings.steps:,} steps of {settings.batch_size} ({settings.epochs:.4g} epochs), {settings.precision} on {where.device}, {settings.threads} threads, {settings.workers} workers"
    )
    info(f"folder     {settings.out}" + (f", going on after step {start}" if start else ""))


def export_run(settings: Pretrain, method: Any, callbacks: Callbacks) -> None:
    """The export, the curves, and what to do next."""
    folder = export_encoder(method, settings, settings.steps, settings.out / "export")
    if not is_main():
        return
    following = f"jepa probe {settings.out} --data.root LABELLED_FOLDER"
    if isinstance(settings.method, Decoder):
        following = f"jepa decoder sample {settings.out} PICTURES"
    drawn = f"\ncurves     {callbacks.curves([settings.out], settings.out / 'curves.png')}" if callbacks.curves else ""
    info(f"\nencoder    {folder}{drawn}\nnext       {following}")
