"""Which findings of the papers on video hold for small encoders and five minutes on one core?

    python studies/video/findings.py --out runs/findings --share 0 2 &
    python studies/video/findings.py --out runs/findings --share 1 2

Each arm changes one thing of a small V-JEPA that predicts the features and the pixels of the future from the past, as
the recipe `video-small` does, with the papers' L1 and EMA target encoder. All arms train for the same time on the same
rendered clips from the same first weights, with three seeds. An attentive head and logistic regression on the mean
token then read the direction and the speed of the red object. Finished runs are kept: call it again to resume, or to
see the table. `--share 0 2` does the first half of the runs.
"""

import argparse
import dataclasses
import json
import statistics
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parents[2]))

from openjepa.cli.demos.video import FRAMES, HELD_OUT, PATCH, SIDE, Subject, encode_clips
from openjepa.cli.pretrain import pretrain
from openjepa.core import registry
from openjepa.core.tables import print_table
from openjepa.data.synthetic.moving_scenes import render_clips, write_clips
from openjepa.interop.pretrained import PretrainedEncoder, load_run
from openjepa.masking.causal import Causal
from openjepa.masking.random_tube import RandomTube
from openjepa.masking.tube import Tube
from openjepa.methods.mae import MAE
from openjepa.modalities.video import Video
from openjepa.recipes.video import tune_for_video
from openjepa.training.config import Pretrain
from openjepa.training.perf.allocator import retain_freed_memory

registry.load_plugins([str(Path(__file__).with_name("frozen_teacher.py"))])

REFERENCE = "future from past"
SEEDS, TRAINED, LABELED, TESTED = (0, 1, 2), 12_000, 4_000, 1_000  # clips
TASKS = ("direction", "speed")
COLUMNS = ("direction", "speed", "direction, mean", "speed, mean")  # mean: logistic regression on the mean token
TEACHER_SHARE = 0.25  # of an arm's time, to train a frozen teacher on pixels
T_95 = {2: 12.71, 3: 4.303, 4: 3.182, 5: 2.776}  # of Student's t at 95 %, by number of seeds

Change = Callable[[Pretrain], Pretrain]


def masks(strategy: Any) -> Change:
    """Return a change of the masks; a predictor has a mask token for each mask of a sample."""

    def change(base: Pretrain) -> Pretrain:
        predictor = dataclasses.replace(base.method.predictor, mask_tokens=strategy.masks_per_sample)
        return dataclasses.replace(base, masks=strategy, method=dataclasses.replace(base.method, predictor=predictor))

    return change


ARMS: dict[str, Change] = {
    REFERENCE: lambda base: base,
    "tubes of two sizes": masks(Tube()),
    "short tubes": masks(Tube(blocks=(8,), scale=(0.15,))),
    "long tubes": masks(Tube(blocks=(2,), scale=(0.7,))),
    "random tubes": masks(RandomTube(mask_ratio=0.9)),
    "no pixels": lambda base: dataclasses.replace(base, method=dataclasses.replace(base.method, pixel_loss_weight=0.0)),
    "squared L2": lambda base: dataclasses.replace(base, method=dataclasses.replace(base.method, loss="squared_l2")),
    "frozen teacher": lambda base: base,  # `train_student` changes it
    "single frames": lambda base: base,  # `main` gives it other clips
}


def main() -> None:
    options = parse_options()
    retain_freed_memory()
    torch.set_num_threads(1)
    jobs = [(arm, seed) for seed in SEEDS for arm in options.arms]
    for arm, seed in jobs[options.share[0] :: options.share[1]]:
        result = options.out / arm.replace(" ", "-") / f"seed{seed}.json"
        if not result.exists():
            run = train(arm, seed, options, result.with_suffix(""))
            result.write_text(json.dumps(measure(load_run(run), seed)), encoding="utf-8")
            print(f"{arm}, seed {seed}: {result.read_text(encoding='utf-8')}", flush=True)
    report(options)


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/findings"))
    parser.add_argument("--minutes", type=float, default=5.0, help="of training for each arm and seed")
    parser.add_argument("--arms", nargs="+", default=list(ARMS), choices=ARMS)
    parser.add_argument("--share", nargs=2, type=int, default=(0, 1), metavar=("NUMBER", "OF"))
    return parser.parse_args()


def train(arm: str, seed: int, options: argparse.Namespace, out: Path) -> Path:
    """Train one arm for the minutes of the options and return its run."""
    clips = training_clips(options.out / f"clips{seed}-{options.share[0]}", seed, single=arm == "single frames")
    settings = ARMS[arm](reference(clips, seed, options.minutes))
    return train_student(settings, out) if arm == "frozen teacher" else train_once(settings, out)


def reference(clips: Path, seed: int, minutes: float) -> Pretrain:
    """Return V-JEPA's objective with the masks, the networks and the optimizer of small runs."""
    data = Video(root=(str(clips),), frames=FRAMES, stride=1, size=(SIDE, SIDE), patch=PATCH, crop_scale=(1.0, 1.0),
                 crop_aspect=(1.0, 1.0))  # fmt: skip
    base = tune_for_video(data)
    method = dataclasses.replace(base.method, loss="l1")
    base = dataclasses.replace(
        base, method=method, seed=seed, budget=f"{60 * minutes:.0f}s", threads=1, workers=0, device="cpu",
        save_every=10_000, report=False, resume="if-any",
    )  # fmt: skip
    return masks(Causal())(base)


def train_once(settings: Pretrain, out: Path) -> Path:
    if not (out / "export" / "config.json").exists():
        pretrain(dataclasses.replace(settings, out=out))
    return out


def train_student(settings: Pretrain, out: Path) -> Path:
    """Train a teacher on pixels for a part of the time, then a student on its features for the rest."""
    seconds = float(settings.budget.removesuffix("s"))
    encoder, predictor = settings.method.encoder, settings.method.predictor
    teacher = dataclasses.replace(settings, method=MAE(encoder, predictor), budget=f"{TEACHER_SHARE * seconds:.0f}s")
    run = train_once(teacher, out.with_name(f"{out.name}-teacher"))
    cls = registry.find("method", "frozen-teacher")
    shared = {each.name: getattr(settings.method, each.name) for each in dataclasses.fields(settings.method)}
    student = dataclasses.replace(
        settings, method=cls(**shared, teacher=str(run)), budget=f"{(1 - TEACHER_SHARE) * seconds:.0f}s"
    )
    return train_once(student, out)


def training_clips(folder: Path, seed: int, single: bool) -> Path:
    """Render the clips of a seed once; for single frames, clips that show their middle frame all the time.

    Each share has a folder of its own, so that two of them can start at once.
    """
    if not folder.exists():
        unfinished = folder.with_name(f"{folder.name}-unfinished")
        write_clips(unfinished, TRAINED, FRAMES, SIDE, seed)
        unfinished.rename(folder)
    frozen = folder.with_name(f"{folder.name}-single")
    if single and not frozen.exists():
        frozen.mkdir()
        for file in sorted(folder.glob("*.npy")):
            clip = np.load(file)
            np.save(frozen / file.name, np.broadcast_to(clip[FRAMES // 2], clip.shape))
    return frozen if single else folder


def measure(trained: PretrainedEncoder, seed: int) -> dict[str, float]:
    """Return the accuracy of both readers on each task, and the steps of the run."""
    labeled, test = render_clips(LABELED, FRAMES, SIDE, seed), render_clips(TESTED, FRAMES, SIDE, seed, HELD_OUT)
    tokens = [encode_clips(trained, part.clips) for part in (labeled, test)]
    means = [each.tokens.float().mean(1) for each in tokens]
    result = {"steps": float(trained.config.steps or 0)}
    for task in TASKS:
        subject = Subject(task, trained.name, labeled, test, seed)
        result[task] = subject.attentive(*tokens).value
        result[f"{task}, mean"] = subject.logistic(*means).value
    return result


def report(options: argparse.Namespace) -> None:
    """Print each arm's accuracy, its difference to the reference with the same seeds, and a 95 % interval of it."""
    results = {arm: read_arm(options.out / arm.replace(" ", "-")) for arm in options.arms}
    results = {arm: seeds for arm, seeds in results.items() if seeds}
    rows = []
    for arm, seeds in results.items():
        cells = [arm, f"{statistics.mean(each['steps'] for each in seeds.values()):.0f}"]
        for column in COLUMNS:
            cells += [f"{statistics.mean(each[column] for each in seeds.values()):.1f}"]
            cells += [difference(seeds, results.get(REFERENCE, {}), column)]
        rows.append(tuple(cells))
    header = ("arm", "steps", *(text for each in COLUMNS for text in (f"{each} %", "± first")))
    print_table(header, rows, f"{options.minutes:g} minutes an arm")


def read_arm(folder: Path) -> dict[int, dict[str, float]]:
    """Return the results of an arm by seed."""
    files = {seed: folder / f"seed{seed}.json" for seed in SEEDS}
    return {seed: json.loads(file.read_text(encoding="utf-8")) for seed, file in files.items() if file.exists()}


def difference(arm: dict[int, dict[str, float]], base: dict[int, dict[str, float]], column: str) -> str:
    """Return the mean difference over the seeds that both have, with Student's interval over the seeds."""
    gained = [arm[seed][column] - base[seed][column] for seed in sorted(arm.keys() & base.keys())]
    if len(gained) < 2 or arm is base:
        return ""
    half = T_95[len(gained)] * statistics.stdev(gained) / len(gained) ** 0.5
    return f"{statistics.mean(gained):+.1f} ±{half:.1f}"


if __name__ == "__main__":
    main()
