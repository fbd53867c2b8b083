"""Command `jepa embed`: write a row of features for every sample."""

from __future__ import annotations

import os
import shutil
from contextlib import nullcontext
from pathlib import Path

import torch

from openjepa.cli.settings import Embed
from openjepa.core.console import info, warn
from openjepa.core.distributed import is_main
from openjepa.core.errors import UserError
from openjepa.core.fileio import lock_folder
from openjepa.data.labels.describe import label_if_possible
from openjepa.data.wrappers import ThreadedDataset
from openjepa.evaluation.feature_export import (
    FEATURE_SUFFIXES,
    FEATURES_KEY,
    ROWS_FILE,
    UNDECODABLE,
    WRITERS,
    absolute_source,
    nan_if_undecodable,
    path_beside,
    write_rows,
)
from openjepa.evaluation.feature_store import FeatureWriter, store_features
from openjepa.evaluation.features import count_clips, feature_encoder, view_reader
from openjepa.evaluation.undecodable import describe_undecodable, find_undecodable
from openjepa.interop.adapters import load_any
from openjepa.interop.inputs import modality_to_text, replace_root, with_eval_clips, with_every
from openjepa.training.device import choose_device
from openjepa.training.parallel.launch import process_group


def embed(settings: Embed) -> Path:
    """Write the features of all samples to a file and return its path.

    Next to .safetensors and .npy files, a CSV file (photos.npy.csv) lists the file and its class for each row. Samples
    that cannot be decoded have a row of NaN. Memory does not grow with the number of samples. Under torchrun the ranks
    share the work. Raises UserError if the file exists, or was begun with another encoder or other files.
    """
    out = settings.out
    if out.suffix not in FEATURE_SUFFIXES:
        suffixes = ", ".join(FEATURE_SUFFIXES)
        raise UserError(f"--out {out} must end in {suffixes}: try --out {out.with_suffix('.safetensors')}")
    if settings.batch < 1:
        raise UserError(f"--batch must be >= 1, got {settings.batch}")
    work = out.with_name(f".{out.name}.part")
    # a call that was killed may already have written the lists of its unfinished work
    lists = () if work.exists() else (path_beside(out, ".csv"), path_beside(out, ".json"))
    for file in (out, *lists):
        if file.exists():
            raise UserError(f"{file} already exists: give another --out, or remove it")
    device = choose_device(settings.device, settings.precision)
    loaded = load_any(settings.run, settings.encoder)
    encoder = with_eval_clips(loaded, settings.eval_clips)
    if settings.features == "patches" and count_clips(encoder.modality) > 1:
        raise UserError("--features patches takes one clip of each file: try --eval-clips 1")
    data = with_every(replace_root(encoder.modality, (settings.data,), settings.eval_crop), settings.every)
    samples = ThreadedDataset(data.dataset(label_if_possible(data.listing()).listing))
    about = {
        "encoder": loaded.fingerprint, "data": samples.fingerprint, "precision": device.precision,
        "kind": settings.features, "run": str(absolute_source(settings.run)), "which": settings.encoder,
        "fit": settings.eval_crop, "modality": modality_to_text(data),
    }  # fmt: skip
    if count_clips(encoder.modality) > 1:
        about["clips"] = str(count_clips(encoder.modality))
    with process_group(device.device):
        with lock_folder(work, "embedding") if is_main() else nullcontext():
            encode = feature_encoder(encoder, device, {settings.features: FEATURES_KEY}, settings.batch)
            features = store_features(
                FeatureWriter(view_reader(samples), nan_if_undecodable(encode, samples)), len(samples), about, work
            )
            bad = find_undecodable(samples, torch.where(features.label == UNDECODABLE, -1, 0)) if is_main() else None
            if is_main() and not (bad and bad.count == bad.total):
                write_rows(samples, features.label, work / ROWS_FILE)
                WRITERS[out.suffix](features, work, out)
        if is_main():
            shutil.rmtree(work, ignore_errors=os.name == "nt")  # which keeps mapped files
            if bad and bad.count == bad.total:
                raise UserError(describe_undecodable(bad, data, (settings.data,)))
            shape = "×".join(map(str, features.kinds[FEATURES_KEY].shape))
            info(f"written    {out}: {shape}")
            if bad:
                warn(f"{describe_undecodable(bad, data, (settings.data,))}; their rows are NaN")
    return out
