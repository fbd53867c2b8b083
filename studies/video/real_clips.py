"""Six actions of two people in 90 clips: does an encoder trained on a fold's other clips beat simple features?

    python studies/video/real_clips.py --clips video/clips --labels video/labels.csv --minutes 60 --out runs/real-clips

Five folds of three sequences. For each fold an encoder is trained without labels on the clips of the other twelve
sequences, and probes are trained on their labels. Clips are read in two ways: spread evenly over a file, and with a
fixed step of two frames. A fold takes the minutes of the argument for training and a few more for its probes. Finished
folds are kept: call it again to resume, or to see the table of the folds that are finished.
"""

import argparse
import csv
import dataclasses
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

sys.path.insert(0, str(Path(__file__).parents[2]))

from openjepa.cli.pretrain import pretrain
from openjepa.core.bootstrap import bootstrap_interval
from openjepa.core.tables import print_table
from openjepa.data.video_io import open_frames
from openjepa.evaluation.controls import controlled_encoders
from openjepa.evaluation.evaluator import Features, SplitFeatures
from openjepa.evaluation.labeled import Split, find_task, task_baselines
from openjepa.evaluation.measure import controlled_features, probe_input, split_features_of
from openjepa.evaluation.probing import create_probes, run_probes
from openjepa.evaluation.settings import LabeledData, ProbeSettings
from openjepa.interop.pretrained import PretrainedEncoder, load_run
from openjepa.modalities.video import Video
from openjepa.recipes.video import tune_for_video
from openjepa.training.config import Pretrain
from openjepa.training.device import choose_device
from openjepa.training.perf.allocator import retain_freed_memory

FOLDS = 5
PROTOCOLS = {"uniform": 0, "fixed step": 2}  # frames of the file from one frame of a clip to the next; 0: spread evenly
CLIPS = 3  # evaluation clips of a file, averaged
CELLS = (3, 6, 6)  # of time, height and width, over which tokens are averaged: about those of the optical flow

Subject = tuple[str, Split, SplitFeatures]  # the name of an encoder or a baseline, the data, the features


def main() -> None:
    options = parse_options()
    retain_freed_memory()
    torch.set_num_threads(options.threads)
    rows = read_labels(options.labels)
    for fold, tested in enumerate(fold_sequences(rows)):
        result = options.out / f"fold{fold}.json"
        if not result.exists():
            write_folders(rows, tested, options, options.out / f"fold{fold}")
            run = train(fold, options)
            result.write_text(json.dumps(list(measure(fold, run, options))), encoding="utf-8")
        print(f"fold {fold}: sequences {' '.join(tested)} tested", flush=True)
    report([each for fold in range(FOLDS) for each in read_result(options.out / f"fold{fold}.json")], rows)


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=Path, required=True)
    parser.add_argument("--labels", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument(
        "--steps", type=int, default=0, help="of each fold, in place of the minutes: for a busy machine"
    )
    parser.add_argument("--out", type=Path, default=Path("runs/real-clips"))
    parser.add_argument("--attentive", action="store_true", help="also train attentive probes, which takes longer")
    parser.add_argument("--threads", type=int, default=1)
    return parser.parse_args()


def read_labels(file: Path) -> dict[str, dict[str, str]]:
    """Return the rows of the table of labels by the name of the clip, without its ending."""
    with file.open(encoding="utf-8") as stream:
        return {Path(row["file"]).stem: row for row in csv.DictReader(stream)}


def fold_sequences(rows: dict[str, dict[str, str]]) -> list[list[str]]:
    """Return the sequences that each fold tests: every fifth one, in the order of their numbers."""
    sequences = sorted({row["sequence"] for row in rows.values()}, key=int)
    return [sequences[fold::FOLDS] for fold in range(FOLDS)]


def write_folders(
    rows: dict[str, dict[str, str]], tested: list[str], options: argparse.Namespace, folder: Path
) -> None:
    """Write train/ACTION/CLIP.npy and test/ACTION/CLIP.npy, links to clips that are decoded once."""
    for name, row in rows.items():
        stored = options.out / "stored" / f"{name}.npy"
        if not stored.exists():
            stored.parent.mkdir(parents=True, exist_ok=True)
            np.save(stored, decode(options.clips / row["file"]))
        link = folder / ("test" if row["sequence"] in tested else "train") / row["action"] / stored.name
        link.parent.mkdir(parents=True, exist_ok=True)
        if not link.exists():
            link.hardlink_to(stored)


def decode(file: Path) -> np.ndarray:
    """Return all frames of a file (F, H, W, C)."""
    with open_frames(str(file), 3) as frames:
        return np.ascontiguousarray(frames.read(list(range(len(frames.times)))))


def train(fold: int, options: argparse.Namespace) -> Path:
    """Train an encoder on the clips of the other folds."""
    data = Video(
        root=(str(options.out / f"fold{fold}" / "train"),), frames=16, stride=2, size=(96, 96), patch=16,
        crop_scale=(0.5, 1.0), flip=True,
    )  # fmt: skip
    base = tune_for_video(data)
    settings = dataclasses.replace(
        base, batch_size=32, seed=fold, threads=options.threads, workers=0, device="cpu", log_every=20, save_every=200,
        report=False, resume="if-any", out=options.out / f"run{fold}", **length(options),
    )  # fmt: skip
    assert isinstance(settings, Pretrain)
    if not (settings.out / "export" / "config.json").exists():
        pretrain(settings)
    return settings.out


def length(options: argparse.Namespace) -> dict[str, Any]:
    """Return the settings that say how long to train."""
    return {"steps": options.steps} if options.steps else {"budget": f"{options.minutes * 60:.0f}s"}


def measure(fold: int, run: Path, options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Yield for every protocol, encoder, baseline and probe which test clips are classified correctly."""
    labeled = LabeledData(root=(str(options.out / f"fold{fold}"),))
    pooled = ProbeSettings(data=labeled, probes=("logistic", "knn"), features="last4", device="cpu")
    attentive = dataclasses.replace(pooled, probes=("attentive",))
    for protocol, stride in PROTOCOLS.items():
        trained = with_clips(dataclasses.replace(load_run(run), name="this encoder"), stride, CLIPS)
        assert trained.untrained
        subjects = list(pooled_features(trained, pooled))
        subjects += list(pooled_features(with_clips(trained.untrained(), stride, CLIPS), pooled))
        for name, compute in task_baselines(find_task("folders"), trained.data).items():
            split = subjects[0][1]
            subjects.append((name, split, SplitFeatures(compute(split.train), compute(split.test))))
        for name, split, features in subjects:
            yield from answers(protocol, name, split, features, pooled)
            if features.views:
                yield from answers(protocol, f"{name}, cells", split, cell_features(features, trained), pooled)
        if options.attentive:
            for subject in pooled_features(with_clips(trained, stride, 1), attentive):
                yield from answers(protocol, *subject, attentive)


def cell_features(features: SplitFeatures, encoder: PretrainedEncoder) -> SplitFeatures:
    """Return the tokens' features averaged over the cells of CELLS, which keep where something is, like the baselines.

    The clips of a file are averaged.
    """
    assert features.views
    parts = []
    for part, views in ((features.train, features.views.train), (features.test, features.views.test)):
        tokens = torch.cat([views.encode(rows).patches.float() for rows in part.labeled.split(8)])
        grid = tokens.unflatten(1, (-1, *encoder.data.tubelets)).mean(1).movedim(-1, 1)
        parts.append(Features({"last": F.adaptive_avg_pool3d(grid, CELLS).flatten(1)}, part.label))
    return features._replace(train=parts[0], test=parts[1], views=None)


def with_clips(encoder: PretrainedEncoder, stride: int, clips: int) -> PretrainedEncoder:
    """Return the encoder with this step between frames, and features averaged over so many clips."""
    return dataclasses.replace(encoder, modality=dataclasses.replace(encoder.data, stride=stride, eval_clips=clips))


def pooled_features(encoder: PretrainedEncoder, settings: ProbeSettings) -> Iterator[Subject]:
    """Yield the features of an encoder, and those behind each control."""
    device = choose_device("cpu")
    split, features = split_features_of(encoder, settings, create_probes(settings), device)
    yield encoder.name, split, features
    for controlled in controlled_encoders(encoder):
        changed = controlled_features(controlled, split, features, settings, device)
        yield controlled.encoder.name, split, changed


def answers(
    protocol: str, name: str, split: Split, features: SplitFeatures, settings: ProbeSettings
) -> Iterator[dict[str, Any]]:
    """Yield for each probe which test clips it classifies correctly."""
    files = [Path(split.test.source(row)).stem for row in range(len(split.test))]
    for score, evidence in run_probes(probe_input(name, split, features, settings), create_probes(settings)):
        assert evidence
        right = (evidence.predicted == evidence.truth).tolist()
        yield {"protocol": protocol, "features": name, "probe": score.metric, "files": files, "right": right}


def read_result(file: Path) -> list[dict[str, Any]]:
    return json.loads(file.read_text(encoding="utf-8")) if file.exists() else []


def report(results: list[dict[str, Any]], rows: dict[str, dict[str, str]]) -> None:
    """Print the accuracy over all tested clips, with an interval over whole sequences."""
    table: dict[tuple[str, str, str], dict[str, bool]] = {}
    for each in results:
        key = (each["protocol"], each["features"], each["probe"])
        table.setdefault(key, {}).update(zip(each["files"], each["right"], strict=True))
    lines = []
    for (protocol, features, probe), right in table.items():
        groups = torch.tensor([int(rows[name]["sequence"]) for name in right])
        correct = torch.tensor([float(each) for each in right.values()])
        low, high = bootstrap_interval(correct, groups=groups)
        lines.append(
            (
                protocol,
                features,
                probe,
                f"{100 * correct.mean():.1f} ({100 * low:.0f}–{100 * high:.0f})",
                str(len(right)),
            )
        )
    print_table(("clips", "features", "probe", "accuracy %", "clips tested"), lines, "real clips, six actions")


if __name__ == "__main__":
    main()
