"""Prepare a run: check its settings, then build the dataset, the networks and the training steps."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import torch

from openjepa.core.capabilities import DecodesFiles, Measures
from openjepa.core.console import info
from openjepa.core.distributed import barrier, is_main, process_cores, rank_and_size
from openjepa.core.errors import UserError
from openjepa.core.protocols import Dataset
from openjepa.core.types import FileList
from openjepa.data.loader import Steps
from openjepa.data.streams import StreamSteps, choose_streams
from openjepa.nn.transformer import checkpoint_activations
from openjepa.training.config import Pretrain
from openjepa.training.device import Device
from openjepa.training.parallel.fsdp import shard_method
from openjepa.training.settings import Stream
from openjepa.training.teachers import attach_teachers

STREAM_SEED = 1_000_003  # between the seeds of two streams, so that their samples draw other crops and masks


def check_batch_size(settings: Pretrain) -> None:
    """Raise UserError unless the batch splits evenly over processes and micro-batches."""
    ranks = rank_and_size()[1]
    if ranks > 1:
        check_fsdp(settings)
    parts = settings.accumulate * ranks
    method = type(settings.method).__name__
    if settings.method.whole_batch and settings.batch_size < 2:
        raise UserError(
            f"{method} compares the samples of a batch, so it requires a batch size of 2 or more: try --batch-size 128"
        )
    if settings.method.whole_batch and settings.accumulate > 1:
        raise UserError(
            f"{method} compares the samples of a batch, so the batch cannot be split into micro-batches: "
            "leave --accumulate out, or spread the batch over several processes"
        )
    for stream in settings.streams:
        if stream.batch_size % parts:
            raise UserError(
                f"the batch size {stream.batch_size} of a stream does not divide over {ranks} processes × --accumulate "
                f"{settings.accumulate}: choose a multiple of {parts}"
            )
    if settings.batch_size % parts:
        raise UserError(
            f"--batch-size {settings.batch_size} does not divide over {ranks} processes × --accumulate "
            f"{settings.accumulate}: try --batch-size {max(1, settings.batch_size // parts) * parts}"
        )


def check_fsdp(settings: Pretrain) -> None:
    """Raise UserError for what cannot work on sharded weights."""
    if settings.fsdp and settings.online_probe.root:
        raise UserError(
            "the online probe does not work with --fsdp: leave --online-probe.root out and run jepa probe afterwards, "
            "or leave --fsdp out"
        )
    if settings.fsdp and settings.optim.optimizer == "muon":
        raise UserError("Muon requires unsharded matrices, but --fsdp shards them: try --optim.optimizer adamw")


def prepare_data(settings: Pretrain, device: Device, listing: FileList, cache: Path | None) -> tuple[Dataset, Pretrain]:
    """Build the dataset and resolve every automatic setting.

    These are steps, epochs, device, precision, threads, workers and the statistics that normalize views.
    """
    data, modality = open_data(settings.data, listing, cache)
    streams = tuple(
        dataclasses.replace(each, data=open_data(each.data, each.data.listing(), cache)[1]) for each in settings.streams
    )
    settings = dataclasses.replace(settings, data=modality, streams=streams)
    steps_per_epoch = max(1, len(data) // settings.batch_size)
    on_cpu = device.device.type == "cpu"
    workers = min(8, max(1, int(process_cores()) - (not on_cpu))) if isinstance(data, DecodesFiles) else 0
    return data, dataclasses.replace(
        settings,
        steps=settings.steps or max(1, round(settings.epochs * steps_per_epoch)),
        epochs=settings.epochs if not settings.steps else settings.steps / steps_per_epoch,
        device=device.device.type,
        precision=device.precision,
        threads=torch.get_num_threads() if on_cpu else settings.threads,
        workers=workers if settings.workers < 0 else settings.workers,
    )


def open_data(modality: Any, listing: FileList, cache: Path | None) -> tuple[Dataset, Any]:
    """Open the files as a dataset; also return the modality with the statistics that it measures on them."""
    if is_main() or cache is None:
        modality.dataset(listing, cache)  # the main process packs and measures; the others read its result
    barrier()
    data = modality.dataset(listing, cache)
    if not isinstance(modality, Measures):
        return data, modality
    measured = modality.measure(data)
    return data if measured is modality else measured.dataset(listing, cache), measured


def list_all_files(settings: Pretrain) -> list[FileList]:
    """Return the files of the run's data and of each of its streams."""
    return [settings.data.listing(), *(stream.data.listing() for stream in settings.streams)]


def build_model(settings: Pretrain, data: Dataset, device: Device) -> tuple[Any, Steps | StreamSteps]:
    """Build the method on its device, initialized from the run's seed, and the run's training steps."""
    method = settings.method.build(settings.data, settings.seed)
    if settings.activation_checkpointing:
        checkpoint_activations(method)
    method = shard_method(method, device.device) if settings.fsdp else method.to(device.device)
    attach_teachers(settings, method, device.device)
    steps = build_steps(settings, data, method.num_views)
    if settings.compile:
        from openjepa.training.perf.compile import compile_blocks  # here, because the import takes a second

        if is_main():
            info("compiling  transformer blocks: a minute or more")
        compile_blocks(settings, method, steps[0], device)
    return method, steps


def build_steps(settings: Pretrain, data: Dataset, views: int | tuple[int, ...]) -> Steps | StreamSteps:
    """Build all steps of a run, with this process's share of each batch."""
    if not settings.streams:
        assert isinstance(views, int)
        return stream_steps(settings, data, settings, settings.steps, settings.seed, views)
    streams = settings.streams
    choices = choose_streams(
        [1.0, *(each.weight for each in streams)], [0, *(each.from_step for each in streams)], settings.steps
    )
    counts = np.bincount(choices, minlength=len(streams) + 1)
    all_views = (views,) * len(counts) if isinstance(views, int) else views
    datasets = [data, *(each.data.dataset(each.data.listing(), settings.out / "data") for each in streams)]
    parts = zip(datasets, [settings, *streams], counts.tolist(), all_views, strict=True)
    steps = [
        stream_steps(settings, dataset, owner, max(1, count), settings.seed + number * STREAM_SEED, each)
        for number, (dataset, owner, count, each) in enumerate(parts)
    ]
    return StreamSteps(steps, choices)


def stream_steps(
    settings: Pretrain, data: Dataset, owner: Pretrain | Stream, total: int, seed: int, views: int
) -> Steps:
    """Build the steps that take their batches from one data set, with the masks and the batch size of `owner`."""
    rank, ranks = rank_and_size()
    return Steps(
        data,
        owner.masks if settings.method.needs_masks else None,
        owner.data.layout,
        batch_size=owner.batch_size,
        total_steps=total,
        seed=seed,
        rank=rank,
        world_size=ranks,
        num_views=views,
    )
