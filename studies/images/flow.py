"""Train MC-JEPA on unlabeled frames, warps and CIFAR-10, and measure its optical flow on the Middlebury pairs.

    python -m studies.images.flow --data DATA --out runs/flow --steps 3000
    python -m studies.images.flow --data DATA --out runs/flow --name vicreg --content-alone --steps 6000
    python -m studies.images.flow --data DATA --out runs/flow --name collapsed --set variance=0 covariance=0 content=0

DATA has flow/, video/, photos/ and cifar10/ (scripts/unpack_data.py). Pairs are warps of photographs, frames of the
videos and of film, and rendered moving scenes. The Middlebury pairs are for testing alone: what is chosen is chosen on
warps of other photographs and on other scenes, whose flow is known. --content-alone trains VICReg with the same
network. Prints end-point errors, and what probes read from the features of CIFAR-10.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image as Pillow

from openjepa.core.fileio import write_text
from openjepa.core.rng import CounterRNG
from openjepa.data.flow_files import read_flow
from openjepa.data.image_inputs import read_whole_image
from openjepa.data.synthetic.moving_scenes import render_clips, render_geometry
from openjepa.evaluation.flow import end_point_error, estimate_flow, load_motion
from openjepa.evaluation.measure import measure_encoders
from openjepa.evaluation.settings import LabeledData, ProbeSettings
from openjepa.interop.pretrained import load_run
from openjepa.modalities.image_pair import ImagePair, random_affine_flow
from openjepa.nn.warp import warp
from openjepa.recipes.mc_jepa import mc_jepa_small
from openjepa.training.config import Pretrain
from openjepa.training.device import choose_device
from openjepa.training.perf.allocator import retain_freed_memory
from openjepa.training.run import pretrain

CLIP_SIDE = 128  # of the strips of video frames
HELD_OUT = 40  # photographs whose warps are validation data, and moving scenes
SCENES, SCENE_FRAMES = 200, 12  # rendered moving scenes to train on, and their frames
FIRST_HELD_OUT = 10_000_000  # number of the first moving scene to validate on


def write_frames(data: Path, out: Path) -> Path:
    """Write the frames of the video clips, which are strips, into a folder for each clip."""
    if not (out / "complete").exists():  # else a kill left a part of them
        for strip in sorted((data / "video" / "frames").glob("*.jpg")):
            folder = out / strip.stem
            folder.mkdir(parents=True, exist_ok=True)
            frames = np.asarray(Pillow.open(strip)).reshape(-1, CLIP_SIDE, CLIP_SIDE, 3)
            for number, frame in enumerate(frames):
                Pillow.fromarray(frame).save(folder / f"{number:03d}.png")
        (out / "complete").touch()
    return out


def write_scenes(out: Path) -> Path:
    """Render moving scenes, and write their frames into a folder for each."""
    complete = out.with_suffix(".complete")
    if not complete.exists():
        for number in range(SCENES):
            folder = out / f"{number:03d}"
            folder.mkdir(parents=True, exist_ok=True)
            frames = render_clips(1, SCENE_FRAMES, CLIP_SIDE, 0, number).clips[0].permute(0, 2, 3, 1).numpy()
            for time, frame in enumerate(frames):
                Pillow.fromarray(frame).save(folder / f"{time:03d}.png")
        complete.touch()
    return out


def link_photos(data: Path, out: Path) -> tuple[Path, Path]:
    """Return a folder of photographs to train on, and one of held-out photographs."""
    for name, part in (("held-out", slice(HELD_OUT)), ("train", slice(HELD_OUT, None))):
        (out / name).mkdir(parents=True, exist_ok=True)
        for photo in sorted((data / "photos").glob("**/*.JPEG"))[part]:
            if not (out / name / photo.name).exists():
                (out / name / photo.name).symlink_to(photo.resolve())
    return out / "train", out / "held-out"


def settings_of(options: argparse.Namespace) -> Pretrain:
    """Return the run: content from CIFAR-10, motion from warps, film and video."""
    photos, _ = link_photos(options.data, options.out / "photos")
    clips = write_frames(options.data, options.out / "clips")
    scenes = write_scenes(options.out / "moving-scenes")
    base = mc_jepa_small()
    sources = {"warps": (photos,), "frames": (clips, scenes, options.data / "flow" / "sintel")}
    streams = []
    for stream, (pairs, roots) in zip(base.streams, sources.items(), strict=True):
        data = dataclasses.replace(stream.data, root=tuple(map(str, roots)), pairs=pairs)
        streams.append(dataclasses.replace(stream, data=data))
    data = dataclasses.replace(base.data, root=(str(options.data / "cifar10" / "train"),))
    return dataclasses.replace(base, data=data, streams=() if options.content_alone else tuple(streams))


@torch.no_grad()
def validate(method: Any, options: argparse.Namespace) -> dict[str, float]:
    """Return the mean end-point error on held-out warps and moving scenes of 128 pixels, 16 pixels from the border."""
    _, held_out = link_photos(options.data, options.out / "photos")
    data = ImagePair(root=(str(held_out),), size=(128, 128), patch=8, mean=(0.5,) * 3, std=(0.25,) * 3)
    images = data.dataset(data.listing()).read(torch.arange(HELD_OUT), None).views[0].float()
    flow = random_affine_flow(0.1, (128, 128), CounterRNG.of(0, 0, np.arange(HELD_OUT)))
    rendered = (HELD_OUT, SCENE_FRAMES, CLIP_SIDE, 0, FIRST_HELD_OUT)
    clips, middle = render_clips(*rendered).clips.float(), SCENE_FRAMES // 2
    scene_flow = render_geometry(*rendered).flow[:, middle]
    pairs = {
        "warps": (warp(images, flow), images, flow),
        "moving scenes": (clips[:, middle], clips[:, middle + 1], scene_flow),
    }
    errors, inside = {}, slice(16, -16)
    for name, (first, second, truth) in pairs.items():
        for which, estimate in ((name, method.estimate_flow(first, second)), (f"{name}, no motion", 0 * truth)):
            errors[which] = float((estimate - truth).norm(dim=1)[:, inside, inside].mean())
    return errors


def measure_content(folder: Path, options: argparse.Namespace) -> dict[str, float]:
    """Return the accuracy of probes on CIFAR-10's test images, and how many dimensions the features have."""
    labeled = LabeledData(root=(str(options.data / "cifar10"),))
    measurement = measure_encoders([load_run(folder)], ProbeSettings(data=labeled, probes=("logistic", "knn")), False)
    assert measurement is not None
    scores = {result.score.metric: result.score.value for result in measurement.results}
    return scores | {"rankme": measurement.label_free[folder.name]["rankme_centered"]}


def test(method: Any, options: argparse.Namespace) -> dict[str, float]:
    """Return the mean end-point error on each Middlebury pair, in pixels, over pixels whose flow is known."""
    errors = {}
    for folder in sorted((options.data / "flow" / "middlebury").iterdir()):
        first, second = (read_whole_image(str(folder / name)) for name in ("frame10.png", "frame11.png"))
        estimate = estimate_flow(method, first, second, choose_device("cpu", "fp32"))
        errors[folder.name] = end_point_error(estimate, read_flow(folder / "flow10.flo"))
    return errors


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("runs/flow"))
    parser.add_argument("--name", default="run", help="folder of the run in --out")
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--set", nargs="*", default=[], metavar="NAME=VALUE", help="settings of the method")
    parser.add_argument("--content-alone", action="store_true", help="no motion: VICReg with the same network")
    parser.add_argument("--test", action="store_true", help="measure on the Middlebury pairs, once all is chosen")
    options = parser.parse_args()
    retain_freed_memory()  # as `jepa` does
    torch.set_num_threads(1)
    settings = settings_of(options)
    changes = {name: float(value) for name, value in (each.split("=") for each in options.set)}
    method = dataclasses.replace(settings.method, **changes)
    folder = options.out / options.name
    settings = dataclasses.replace(
        settings,
        method=method,
        steps=options.steps,
        seed=options.seed,
        out=folder,
        threads=1,
        workers=0,
        resume="if-any",
    )
    if not (folder / "export" / "config.json").exists():
        pretrain(settings)
    trained = load_motion(str(folder))
    result: dict[str, Any] = {"errors": validate(trained, options), "content": measure_content(folder, options)}
    if options.test:
        result["middlebury"] = test(trained, options)
        result["mean"] = float(np.mean([*result["middlebury"].values()]))
    write_text(folder / "flow.json", json.dumps(result, indent=1))
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
