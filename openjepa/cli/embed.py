"""Command `jepa embed`: write a row of features for every picture."""

from __future__ import annotations

import dataclasses
import shutil
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from openjepa.core.arguments import Folder, Run
from openjepa.core.console import info
from openjepa.core.distributed import is_main
from openjepa.core.errors import UserError
from openjepa.core.fileio import lock_folder
from openjepa.data.crops import EvalCrop
from openjepa.data.wrappers import ThreadedDataset
from openjepa.evaluation.feature_export import (
    FEATURE_SUFFIXES,
    FEATURES_KEY,
    ROWS_FILE,
    WRITERS,
    absolute_source,
    nan_if_undecodable,
    path_beside,
    write_rows,
)
from openjepa.evaluation.feature_store import FeatureWriter, store_features
from openjepa.evaluation.features import feature_encoder, view_reader
from openjepa.interop.adapters import load_adapter
from openjepa.interop.pretrained import FeatureKind
from openjepa.training.device import Precision, choose_device
from openjepa.training.parallel.launch import process_group


@dataclass(frozen=True, kw_only=True)
class Embed:
    """Writes a row of features for every picture. Called again, it goes on where it stopped."""

    run: Run  # a run, an export, weights of another project, or module:function
    data: Folder  # pictures, nested or flat; a .tar or .parquet file; a .txt of paths; rows are in the order of paths
    out: Path  # a .safetensors, .npy or .parquet file
    features: FeatureKind = (
        "last"  # the mean over patches; the last four layers side by side; or every patch, in raster order
    )
    encoder: Literal["target", "context"] = "target"  # the averaged encoder, as in the paper, or the trained one
    eval_crop: EvalCrop = "crop"  # largest centred box; its middle 7/8; the whole picture squashed
    batch: int = 256  # pictures that pass the encoder at once
    device: str = "auto"
    precision: Precision = "auto"


def embed(settings: Embed) -> Path:
    """The file of features; beside .safetensors and .npy a .csv (photos.npy.csv) says which picture each row is, and its folder's name.

    What cannot be decoded has a row of NaN. Memory does not grow with the number of pictures; under torchrun the processes
    share the work. Mistake if the file is there already, or is half done by another encoder or on other pictures.
    """
    out = settings.out
    if out.suffix not in FEATURE_SUFFIXES:
        raise UserError(
            f"{out} has none of the endings {', '.join(FEATURE_SUFFIXES)}: try --out {out.with_suffix('.safetensors')}"
        )
    if settings.batch < 1:
        raise UserError(f"batches of {settings.batch} hold nothing: try --batch 64")
    work = out.with_name(f".{out.name}.part")
    # beside unfinished work, a killed call may have put them there
    lists = () if work.exists() else (path_beside(out, ".csv"), path_beside(out, ".json"))
    for file in (out, *lists):
        if file.exists():
            raise UserError(f"{file} is there already: give another --out, or remove it")
    where, this = choose_device(settings.device, settings.precision), load_adapter(settings.run, settings.encoder)
    data = dataclasses.replace(this.data, root=(settings.data,), eval_crop=settings.eval_crop)
    samples = ThreadedDataset(data.dataset(data.listing()))
    about = {
        "encoder": this.fingerprint, "data": samples.fingerprint, "precision": where.precision, "kind": settings.features,
        "run": str(absolute_source(settings.run)), "which": settings.encoder, "fit": settings.eval_crop,
    }  # fmt: skip
    with process_group(where.device):
        with lock_folder(work, "embedding") if is_main() else nullcontext():
            encode = feature_encoder(this, where, {settings.features: FEATURES_KEY}, settings.batch)
            features = store_features(
                FeatureWriter(view_reader(samples), nan_if_undecodable(encode)), len(samples), about, work
            )
            if is_main():
                write_rows(samples, features.label, work / ROWS_FILE)
                WRITERS[out.suffix](features, work, out)
        if is_main():
            shutil.rmtree(work)
            shape = "×".join(map(str, features.kinds[FEATURES_KEY].shape))
            bad = int((features.label < 0).sum())
            info(
                f"written    {out}: {shape}"
                + (f"; {bad} pictures could not be decoded, and are NaN: jepa doctor says why" if bad else "")
            )
    return out
