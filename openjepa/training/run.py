"""Run pretraining: prepare the folder, train, export the encoder."""

from __future__ import annotations

import shlex
import time
from contextlib import nullcontext
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch

from openjepa.core.capabilities import Describes
from openjepa.core.config import parse_duration
from openjepa.core.console import info
from openjepa.core.cpus import describe_quota
from openjepa.core.distributed import barrier, is_main, process_cores
from openjepa.core.fileio import lock_folder
from openjepa.core.registry import PLUGINS
from openjepa.data.loader import load_steps
from openjepa.training.budget import (
    check_steps_or_budget,
    dry_run,
    restore_steps,
    set_steps,
    steps_in_budget,
    time_step,
)
from openjepa.training.callbacks import Callbacks
from openjepa.training.checkpoint_writer import CheckpointWriter
from openjepa.training.config import Pretrain
from openjepa.training.device import Device, choose_device
from openjepa.training.locations import check_roots_exist, follow_run, with_absolute_paths
from openjepa.training.log import RunLog
from openjepa.training.loop import train
from openjepa.training.optim import build_optimizer
from openjepa.training.parallel.launch import process_group
from openjepa.training.resume import check_same_data, is_resuming, load_checkpoint, read_metadata, write_metadata
from openjepa.training.run_folder import copy_provenance, export_encoder, initialize_from
from openjepa.training.setup import build_model, check_batch_size, list_all_files, prepare_data
from openjepa.training.signals import StopSignals

NO_CALLBACKS = Callbacks()


def pretrain(settings: Pretrain, callbacks: Callbacks = NO_CALLBACKS) -> Path:
    """Train an encoder as the settings say; return the folder of the run, `settings.out`.

    Raises:
        UserError, OSError: the settings, the data or the folder are not usable.
        RunError: the run cannot continue.
        Interrupted: a signal stopped the run; everything is saved.
    """
    device = choose_device(settings.device, settings.precision)
    with process_group(device.device, timedelta(seconds=parse_duration(settings.rank_timeout))):
        torch.set_num_threads(settings.threads or max(1, int(process_cores())))
        if settings.method.needs_masks:
            settings.masks.shapes(settings.data.layout)  # fails early if the masks do not fit
        if settings.dry_run:
            return dry_run(settings, device)
        main = is_main()
        with lock_folder(settings.out, "training") if main else nullcontext():
            run(settings, device, callbacks)
    if settings.report and main and callbacks.report:
        callbacks.report(settings.out)  # outside the process group: its sums must not wait for the other ranks
    return settings.out


def run(settings: Pretrain, device: Device, callbacks: Callbacks) -> None:
    """Start a new run or resume one: prepare data and networks, train, export."""
    resuming = is_resuming(settings)
    settings = with_absolute_paths(settings)
    if resuming:
        settings = follow_run(settings, read_metadata(settings.out / "data.json").get("places", {}))
        check_roots_exist(settings)
    listings = list_all_files(settings)
    if resuming:
        check_same_data(settings, listings)
    if settings.budget:
        settings = restore_steps(settings) if resuming else check_steps_or_budget(settings)
    check_batch_size(settings)
    start_time = time.perf_counter()
    data, settings = prepare_data(settings, device, listings[0], settings.out / "data")
    if settings.budget and not resuming:
        total = steps_in_budget(settings, time_step(settings, data, device), device, start_time)
        settings = set_steps(settings, total, len(data))

    method, steps = build_model(settings, data, device)
    optimizer = build_optimizer(method, settings.optim)
    start = load_checkpoint(settings, method, optimizer) if resuming else 0
    if start >= settings.steps:
        info(
            f"nothing left to train: the checkpoint is at step {start} and --steps is {settings.steps}; "
            "give more --steps to continue"
        )
    if start == 0 and settings.init_from:
        start_from_other_run(settings, method, settings.init_from)
    if is_main():
        write_metadata(settings, listings, len(data), method)
        print_summary(settings, device, len(data), start)

    probing = settings.online_probe.root and is_main()
    evaluator = callbacks.evaluator(settings, device) if probing and callbacks.evaluator else None
    loader = load_steps(steps, start, settings.workers, pin=device.device.type == "cuda")
    run_log = RunLog(settings.out, start, settings.steps, settings.loggers) if is_main() else nullcontext()
    with run_log as log, StopSignals() as signals, CheckpointWriter(settings) as writer:
        train(settings, method, optimizer, loader, device, start, log, signals, writer, evaluator)
    export_run(settings, method, callbacks)
    barrier()


def start_from_other_run(settings: Pretrain, method: Any, folder: Path) -> None:
    """Load the weights of another run that fit, and print those that do not."""
    differences = initialize_from(method, folder)
    if is_main():
        copy_provenance(folder, settings.out)
        info("\n".join([f"started from {folder}{', except:' if differences else ''}", *differences]))


def print_summary(settings: Pretrain, device: Device, count: int, start: int) -> None:
    """Print what the run will do, with every automatic setting as chosen."""
    data, layout = settings.data, settings.data.layout
    size = f", {data.describe()}" if isinstance(data, Describes) else ""
    tokens = f"a grid of {'×'.join(map(str, layout.shape))}" if layout.shape else f"at most {layout.count} tokens"
    info(f"data       {count:,} samples{size}: {tokens}")
    info(f"encoder    {settings.method.describe()}")
    quota = describe_quota()
    info(
        f"training   {settings.steps:,} steps of {settings.batch_size} ({settings.epochs:.4g} epochs), "
        f"{settings.precision} on {device.device}, {settings.threads} threads, {settings.workers} workers"
        f"{f' ({quota})' if quota else ''}"
    )
    info(f"folder     {settings.out}{f', resumed after step {start}' if start else ''}")


def export_run(settings: Pretrain, method: Any, callbacks: Callbacks) -> None:
    """Export the encoder, draw the training curves, and print what to do next."""
    folder = export_encoder(method, settings, settings.steps, settings.out / "export")
    if not is_main():
        return
    quoted = shlex.quote(str(settings.out))
    next_command, _ = settings.method.next_commands(quoted, settings.data)[0]
    next_command += "".join(f" --plugin {shlex.quote(source)}" for source in PLUGINS.sources)
    curves = callbacks.curves([settings.out], settings.out / "curves.png") if callbacks.curves else None
    line = f"\ncurves     {curves}" if curves else ""
    info(f"\nencoder    {folder}{line}\nnext       {next_command}")
