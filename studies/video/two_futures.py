"""Predict one of two futures: a JEPA with a hidden variable z on clips that could go on in two ways.

    python -m studies.video.two_futures --out runs/futures --world junction
    python -m studies.video.two_futures --out runs/futures --world return

junction: a dot comes to a junction and turns left or right; return: moving objects go on, or come back. Half of a clip
is visible, the features of the rest are predicted: without z (one code), with two, four and eight codes, with a small
and with a large vector. Measured on new clips, each rendered with both futures: the error of the prediction (at the
best z) as a share of the difference of both futures' targets, and the same along this difference alone. There, 0.25 is
the mean of both futures, and 0 separates them. Beside it: how often the code tells which future it was, by a lookup
fitted on other clips, and F and the energy gap of the last log row. Finished runs are kept. Prints a table.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import tyro
from torch import Tensor

from openjepa.core.fileio import write_text
from openjepa.core.tables import print_table
from openjepa.core.types import Batch, Masks
from openjepa.data.synthetic.two_futures import render_junction, render_return
from openjepa.masking.causal import Causal
from openjepa.masking.stack import stack_masks
from openjepa.methods.latent_jepa import LatentJEPA, Prediction
from openjepa.modalities.video import Video
from openjepa.nn.latent import LatentConfig
from openjepa.nn.predictor import PredictorConfig
from openjepa.recipes.video import tune_for_video
from openjepa.training.config import Pretrain, load_config
from openjepa.training.perf.allocator import retain_freed_memory
from openjepa.training.run import pretrain
from openjepa.training.run_folder import load_newest_method

WORLDS = {"junction": render_junction, "return": render_return}

FRAMES, SIDE, CLIPS, TESTED = 8, 32, 4000, 200

LATENTS = {
    "one code: no z": LatentConfig(size=1),
    "two codes": LatentConfig(size=2),
    "four codes": LatentConfig(size=4),
    "eight codes": LatentConfig(size=8),
    "two values, weight 0.1": LatentConfig("vector", size=2, weight=0.1),
    "as many values as a clip's targets need": LatentConfig("vector", size=256),
}


@dataclass(frozen=True)
class Study:
    """Train and measure. A second call goes on where the first one stopped."""

    out: Path = Path("runs/futures")
    world: Literal["junction", "return"] = "junction"
    steps: int = 1500
    seed: int = 0


def write_clips(study: Study) -> Path:
    """Write the clips to train on as arrays."""
    folder = study.out / study.world / "clips"
    if not (folder / f"{CLIPS - 1}.npy").exists():
        folder.mkdir(parents=True, exist_ok=True)
        clips, _ = WORLDS[study.world](CLIPS, FRAMES, SIDE, 0)
        for number, clip in enumerate(clips.permute(0, 1, 3, 4, 2).numpy()):
            np.save(folder / f"{number}.npy", clip)
    return folder


def settings_of(study: Study, name: str) -> Pretrain:
    """Return the settings of a run: those of `video-small` without the loss on pixels."""
    data = Video(root=(str(write_clips(study)),), frames=FRAMES, stride=1, size=(SIDE, SIDE), patch=8,
                 crop_scale=(1.0, 1.0), crop_aspect=(1.0, 1.0))  # fmt: skip
    config = tune_for_video(data)
    base, latent = config.method, LATENTS[name]
    method = LatentJEPA(
        base.encoder,
        predictor=PredictorConfig(dim=64, depth=2, init="scaled"),
        target_layers=base.target_layers,
        target_transforms=base.target_transforms,
        latent=latent,
    )
    return dataclasses.replace(
        config,
        method=method,
        masks=Causal(context_fraction=(0.5, 0.5)),
        out=study.out / study.world / f"{latent.kind}{latent.size}-seed{study.seed}",
        steps=study.steps,
        seed=study.seed,
        threads=1,
        workers=0,
        device="cpu",
        report=False,
        resume="if-any",
    )


@torch.no_grad()
def measure(run: Path, world: str) -> dict[str, float]:
    """Return the error as a share of the difference of both futures, and how often the code tells which it is."""
    settings = load_config(run)
    method, _ = load_newest_method(run, settings)
    method.eval()
    clips = [WORLDS[world](TESTED, FRAMES, SIDE, 1, torch.full((TESTED,), future))[0] for future in (0, 1)]
    predictions, hidden, codes = [], [], []
    for view in clips:
        batch = Batch((view,), torch.arange(TESTED), (hide_future(settings.data),))
        tokens, targets = settings.data.tokens(view), method.targets(batch).x
        (masked,) = stack_masks(tokens, targets, batch.masks)
        (context,) = method.context_encoder(tokens, masked.keep)
        z, _ = method.infer(Prediction(context, masked))
        predictions.append(method.predict(Prediction(context, masked), z).flatten(1).float())
        hidden.append(masked.targets.flatten(1))
        codes.append(z.argmax(1))
    difference = hidden[0] - hidden[1]
    squared = difference.square().sum(1)
    errors = torch.stack(predictions) - torch.stack(hidden)  # of both futures
    along = (errors * difference).sum(2) / squared
    return {
        "error": float(errors.square().sum(2).mean() / squared.mean()),
        "along": float(along.square().mean()),
        "told": told(codes, settings.method.latent),
    }


def hide_future(data: Video) -> Masks:
    """Return masks that hide the second half of clips."""
    times, rows, columns = data.tubelets
    half, count = times // 2 * rows * columns, times * rows * columns
    return Masks(torch.arange(half).expand(TESTED, -1), torch.arange(half, count).expand(TESTED, 1, -1))


def told(codes: list[Tensor], latent: LatentConfig) -> float:
    """Return how many futures a lookup from codes to futures gets right, fitted on one half, in percent."""
    if latent.kind != "codes":
        return float("nan")
    half = TESTED // 2
    counts = torch.stack([torch.bincount(each[:half], minlength=latent.size) for each in codes])
    lookup = counts.argmax(0)
    right = torch.cat([lookup[each[half:]] == future for future, each in enumerate(codes)])
    return 100 * right.float().mean().item()


def main(study: Study) -> None:
    """Train with every kind of z, measure, and print the table."""
    retain_freed_memory()  # as `jepa` does
    torch.set_num_threads(1)
    rows = []
    for name in LATENTS:
        settings = settings_of(study, name)
        file = settings.out / "futures.json"
        if not file.exists():
            scores = measure(pretrain(settings), study.world)
            write_text(file, json.dumps(scores | last_row(settings.out), indent=1))
        scores = json.loads(file.read_text(encoding="utf-8"))
        rows.append(
            (name, *(f"{scores[each]:.2f}" for each in ("error", "along", "told", "free_energy", "energy_gap")))
        )
    print_table(
        ("z", "error / difference", "along it", "code tells the future, %", "F", "energy gap"), rows, study.world
    )


def last_row(run: Path) -> dict[str, float]:
    """Return the last row of the log."""
    return json.loads((run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()[-1])


if __name__ == "__main__":
    main(tyro.cli(Study))
