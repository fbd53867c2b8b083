"""Prepare what a run needs: data, networks, steps."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import torch

from openjepa.core.console import info
from openjepa.core.cpus import available_cores
from openjepa.core.distributed import barrier, is_main, local_size, rank_and_size
from openjepa.core.errors import UserError
from openjepa.core.protocols import Dataset
from openjepa.core.types import FileList
from openjepa.data.loader import Steps
from openjepa.data.normalization import measure_mean_std
from openjepa.modalities.image import Image
from openjepa.nn.transformer import checkpoint_activations
from openjepa.training.config import Pretrain
from openjepa.training.device import Device
from openjepa.training.parallel.fsdp import shard_method


def check_batch_size(settings: Pretrain) -> None:
    """Mistake if a batch has no equal part for every process, or must not be taken in parts."""
    ranks = rank_and_size()[1]
    if settings.fsdp and settings.online_probe.root and ranks > 1:
        raise UserError(
            "probes during a run want whole weights: leave --online-probe.root out, or --fsdp, and probe afterwards"
        )
    if settings.fsdp and settings.optim.optimizer == "muon" and ranks > 1:
        raise UserError("Muon wants whole matrices, which --fsdp does not leave: try --optim.optimizer adamw")
    if settings.method.whole_batch and settings.batch_size < 2:
        raise UserError(
            f"{type(settings.method).__name__} compares the samples of a batch with one another: try --batch-size 128"
        )
    if settings.method.whole_batch and settings.accumulate * ranks > 1:
        raise UserError(
            f"{type(settings.method).__name__} compares the samples of a batch with one another, so that a batch cannot be "
            "taken in parts: run it in one process, without --accumulate"
        )
    if settings.batch_size % (settings.accumulate * ranks):
        raise UserError(
            f"a batch of {settings.batch_size} does not divide over {ranks} processes and {settings.accumulate} parts: "
            f"try --batch-size {max(1, settings.batch_size // (settings.accumulate * ranks)) * settings.accumulate * ranks}"
        )


def prepare_data(settings: Pretrain, where: Device, listing: FileList, cache: Path | None) -> tuple[Dataset, Pretrain]:
    """The data and the settings with everything chosen that was left to us."""
    if is_main() or cache is None:
        data = settings.data.dataset(listing, cache)  # the main process packs and measures; the others find it done
    barrier()
    data = settings.data.dataset(listing, cache)
    if isinstance(settings.data, Image) and not settings.data.mean:
        mean, std = measure_mean_std(data)
        settings = dataclasses.replace(settings, data=dataclasses.replace(settings.data, mean=mean, std=std))
        data = settings.data.dataset(listing, cache)
    per_epoch = max(1, len(data) // settings.batch_size)
    packed = not hasattr(data, "paths")
    workers = 0 if packed else min(8, max(1, available_cores() // local_size() - (where.device.type != "cpu")))
    return data, dataclasses.replace(
        settings,
        steps=settings.steps or max(1, round(settings.epochs * per_epoch)),
        epochs=settings.epochs if not settings.steps else settings.steps / per_epoch,
        device=where.device.type,
        precision=where.precision,
        threads=torch.get_num_threads() if where.device.type == "cpu" else settings.threads,
        workers=workers if settings.workers < 0 else settings.workers,
    )


def build_model(settings: Pretrain, data: Dataset, where: Device) -> tuple[Any, Steps]:
    """The method with the weights that the run's seed gives it, on its device, and the steps it will take."""
    method = settings.method.build(settings.data, settings.seed)
    if settings.activation_checkpointing:
        checkpoint_activations(method)
    method = shard_method(method, where.device) if settings.fsdp else method.to(where.device)
    steps = build_steps(settings, data, method.num_views)
    if settings.compile:
        from openjepa.training.perf.compile import compile_blocks  # a second, which others need not wait

        if is_main():
            info("compiling  transformer blocks: a minute or more")
        compile_blocks(settings, method, steps[0], where)
    return method, steps


def build_steps(settings: Pretrain, data: Dataset, views: int) -> Steps:
    """All steps of a run, this process's share of each, with so many views of every sample."""
    (rank, ranks), masker = rank_and_size(), settings.masks.build(settings.data.grid)
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
