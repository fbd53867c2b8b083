"""Which masks, and what the target encoder sees: the findings of A-JEPA and of the design study, on spoken digits.

    python -m studies.audio.design --sounds audio/wav --out runs/design --speakers s1
    python -m studies.audio.design --sounds audio/wav --out runs/design --speakers s2     # on another core
    python -m studies.audio.design --sounds audio/wav --out runs/design --speakers s1 s2  # the tables

Five kinds of masks, each with a target encoder that sees the whole spectrogram (A-JEPA, I-JEPA) or the hidden patches
alone (the design study); everything else is `audio-small`. Each is trained for five minutes of one core on the
recordings of all speakers but one, with three seeds, and measured on that speaker, beside the encoder before training.
Differences to unstructured masks with whole targets, and those that the papers' findings are about, are paired by
speaker and seed, with Student's 95 % interval. Steps are as many as fit into the time by one timing of each, with
nothing else running. Finished runs are kept. Those whose scores are in `design.json` beside this file are not run
again: the last command prints the tables of these scores.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro

from openjepa.core.fileio import write_text
from openjepa.evaluation.features import compute_features
from openjepa.interop.pretrained import load_run, untrained_encoder
from openjepa.masking.curriculum import Curriculum
from openjepa.masking.multiblock import MultiBlock
from openjepa.masking.random import Random
from openjepa.masking.spectrogram import Spectrogram
from openjepa.masking.stretches import Stretches
from openjepa.modalities.audio import Audio
from openjepa.recipes.audio import tune_for_audio
from openjepa.training.budget import time_step
from openjepa.training.config import Pretrain
from openjepa.training.device import choose_device
from openjepa.training.perf.allocator import retain_freed_memory
from openjepa.training.run import pretrain
from openjepa.training.setup import prepare_data
from studies.audio.digits import Digits, list_others, measure

MASKS: dict[str, Any] = {
    "unstructured": Random(mask_ratio=0.6),
    "multiblock": MultiBlock(),
    "time": Stretches(),
    "time–frequency": Spectrogram(),
    "curriculum": Curriculum(),
}
TARGETS = {"whole": "whole", "targets only": "targets_only"}

UNTRAINED = ("before training", "nothing")

# finding -> the kinds of runs that it says are better, and those that it says are worse
FINDINGS = {
    "design study: unstructured masks are better than multiblock": (
        [("unstructured", targets) for targets in TARGETS],
        [("multiblock", targets) for targets in TARGETS],
    ),
    "design study: unstructured masks are better than time": (
        [("unstructured", targets) for targets in TARGETS],
        [("time", targets) for targets in TARGETS],
    ),
    "design study: the target encoder should see targets only": (
        [(masks, "targets only") for masks in MASKS],
        [(masks, "whole") for masks in MASKS],
    ),
    "the same with time–frequency masks": ([("time–frequency", "targets only")], [("time–frequency", "whole")]),
    "the same with the other masks": (
        [(masks, "targets only") for masks in MASKS if masks != "time–frequency"],
        [(masks, "whole") for masks in MASKS if masks != "time–frequency"],
    ),
    "A-JEPA: the curriculum is better than multiblock": ([("curriculum", "whole")], [("multiblock", "whole")]),
    "A-JEPA: time–frequency masks are better than multiblock": (
        [("time–frequency", "whole")],
        [("multiblock", "whole")],
    ),
}

MEASURED = Path(__file__).with_name("design.json")  # scores of finished runs, and the seconds per step of each kind

# quantile 97.5 % of Student's distribution, by the number of pairs
STUDENT_T = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776, 6: 2.571}


@dataclass(frozen=True)
class Study:
    """Train and measure. A second call goes on where the first one stopped."""

    sounds: Path  # folder of the recordings
    out: Path = Path("runs/design")
    speakers: tuple[str, ...] = ("s1", "s2")
    seeds: tuple[int, ...] = (0, 1, 2)
    minutes: float = 5.0  # of one core


def arm_settings(study: Study, digits: Digits, arm: tuple[str, str], speaker: str, seed: int) -> Pretrain:
    """Return the settings of a run, without its number of steps."""
    data = Audio(
        (str(list_others(study.out, digits, speaker)),), rate=8000, short="silence", normalize="stretch", floor=45.0,
        gain=6.0,
    )  # fmt: skip
    config, (masks, targets) = tune_for_audio(data), arm
    name = f"{masks}-{targets}-{speaker}-seed{seed}".replace(" ", "-").replace("–", "-")
    return dataclasses.replace(
        config,
        method=dataclasses.replace(config.method, target_input=TARGETS[targets]),
        masks=MASKS[masks],
        out=study.out / name,
        seed=seed,
        threads=1,
        workers=0,
        device="cpu",
        report=False,
        resume="if-any",
    )


def steps_of(settings: Pretrain, arm: tuple[str, str], study: Study) -> int:
    """Return how many steps fit into the time of a run; each kind of step is timed once."""
    file = study.out / "seconds_per_step.json"
    known = json.loads(file.read_text(encoding="utf-8")) if file.exists() else measured("seconds_per_step")
    name = ", ".join(arm)
    if name not in known:
        device = choose_device("cpu")
        data, settings = prepare_data(settings, device, settings.data.listing(), study.out / "data")
        known[name] = time_step(settings, data, device, count=16).step_seconds
        write_text(file, json.dumps(known, indent=1))
    return round(60 * study.minutes / known[name])


def main(study: Study) -> None:
    """Train and measure every kind of run, and print the tables."""
    retain_freed_memory()  # as `jepa` does
    torch.set_num_threads(1)
    digits, arms = Digits(study.sounds), [(masks, targets) for masks in MASKS for targets in TARGETS]
    known = measured("scores") if study.minutes == Study.minutes else {}  # those of five minutes
    results: dict[tuple[str, str], list[dict[str, float]]] = {arm: [] for arm in [*arms, UNTRAINED]}
    for seed in study.seeds:
        for speaker in study.speakers:
            for arm in results:
                name = f"{'-'.join(arm)}-{speaker}-seed{seed}".replace(" ", "-").replace("–", "-")
                if name not in known:
                    config = arm_settings(study, digits, arms[0] if arm == UNTRAINED else arm, speaker, seed)
                    known[name] = score_of(config, arm, study, digits, speaker)
                    write_text(study.out / f"scores-{'-'.join(study.speakers)}.json", json.dumps(known, indent=1))
                results[arm].append(known[name])
    print_table(results)
    print_findings(results)


def measured(what: str) -> dict[str, Any]:
    """Return what was measured before, by the name of the run or of the kind of run."""
    return json.loads(MEASURED.read_text(encoding="utf-8"))[what]


def score_of(config: Pretrain, arm: tuple[str, str], study: Study, digits: Digits, speaker: str) -> dict[str, float]:
    """Train a run, unless it is finished, and return the scores of its encoder, or of its encoder before training."""
    file = config.out / ("untrained.json" if arm == UNTRAINED else "digits.json")
    if not file.exists():
        if arm == UNTRAINED:
            encoder = untrained_encoder(config)
        else:
            encoder = load_run(pretrain(dataclasses.replace(config, steps=steps_of(config, arm, study))))
        features = compute_features(encoder, digits.data(encoder.data), choose_device("cpu", "fp32"))
        scores = measure("run", features, digits, digits.speakers.index(speaker))
        write_text(file, json.dumps({name: round(value, 2) for name, value in scores.items()}, indent=1))
    return json.loads(file.read_text(encoding="utf-8"))


def print_table(results: dict[tuple[str, str], list[dict[str, float]]]) -> None:
    """Print the mean of each kind of run, and its paired difference to unstructured masks with whole targets."""
    baseline = results["unstructured", "whole"]
    metrics = list(baseline[0])
    print("| masks | the target encoder sees | " + " | ".join(metrics) + " |")
    print("|---|---" + "|---" * len(metrics) + "|")
    for (masks, targets), runs in results.items():
        cells = []
        for metric in metrics:
            values = np.array([scores[metric] for scores in runs])
            difference = values - [scores[metric] for scores in baseline]
            paired = "" if runs is baseline else f" ({describe(difference)})"
            cells.append(f"{values.mean():.1f}{paired}")
        print(f"| {masks} | {targets} | " + " | ".join(cells) + " |")


def print_findings(results: dict[tuple[str, str], list[dict[str, float]]]) -> None:
    """Print, for each finding of the two papers, the mean of its better kinds of runs minus that of its worse ones."""
    metrics = list(results[UNTRAINED][0])
    print("| finding | " + " | ".join(metrics) + " |\n|---" + "|---" * len(metrics) + "|")
    for finding, (better, worse) in FINDINGS.items():
        cells = []
        for metric in metrics:
            means = [
                np.mean([[scores[metric] for scores in results[arm]] for arm in arms], axis=0)
                for arms in (better, worse)
            ]
            cells.append(describe(means[0] - means[1]))
        print(f"| {finding} | " + " | ".join(cells) + " |")


def describe(difference: np.ndarray) -> str:
    """Return the mean of paired differences, with Student's 95 % interval."""
    count = len(difference)
    spread = STUDENT_T.get(count, 2.0) * difference.std(ddof=1) / count**0.5 if count > 1 else 0.0
    return f"{difference.mean():+.1f} ± {spread:.1f}"


if __name__ == "__main__":
    main(tyro.cli(Study))
