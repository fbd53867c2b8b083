"""Spoken digits of a voice that neither the encoder nor the probe has heard.

    python -m studies.audio.digits --sounds audio/wav --out runs/digits --seeds 0 1 2

The recordings are those of FSDD, named DIGIT_SPEAKER_TAKE.wav. For each speaker an encoder is trained on the recordings
of all others, without labels, by the recipe `audio-words`; logistic regression and kNN learn the digit from the others
and are tested on the speaker. With 5 and 20 labels a class, the labels are drawn five times. Beside it stand the
encoder before training, features without an encoder, and an unlabeled dictionary of pieces (k-means on the others).
Settings were chosen with the labels of s2, s3, s4 and s6, leaving out one of them in turn: s1 alone chose nothing, so
its row is the strictest. Finished runs are kept. Prints a table.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
import tyro
from torch import Tensor

from openjepa.core.fileio import write_text
from openjepa.data.wrappers import Subset
from openjepa.evaluation.evaluator import ProbeInput, SplitFeatures, select_rows
from openjepa.evaluation.feature_store import Features
from openjepa.evaluation.features import baseline_features, compute_features
from openjepa.evaluation.probes.knn import KNN
from openjepa.evaluation.probes.logistic import Logistic
from openjepa.evaluation.probes.lowshot import LowShot
from openjepa.evaluation.probing import run_probes
from openjepa.interop.pretrained import load_run
from openjepa.modalities.audio import Audio
from openjepa.recipes.audio import audio_words
from openjepa.training.config import Pretrain
from openjepa.training.device import choose_device
from openjepa.training.perf.allocator import retain_freed_memory
from openjepa.training.run import pretrain

ATOMS, BANDS, FRAMES = 200, 16, 16  # of the dictionary, and the size of a piece

PIECES = 20_000  # on which it is trained


@dataclass(frozen=True)
class Study:
    """Train and measure. A second call goes on where the first one stopped."""

    sounds: Path  # folder of the recordings
    out: Path = Path("runs/digits")
    seeds: tuple[int, ...] = (0,)
    speakers: tuple[str, ...] = ("s1", "s2", "s3", "s4", "s6")
    steps: int = 400


class Digits:
    """All recordings, their digits and speakers."""

    def __init__(self, sounds: Path):
        self.files = sorted(sounds.glob("*.wav"))
        self.digit = torch.tensor([int(file.stem[0]) for file in self.files])
        names = [file.stem.split("_")[1] for file in self.files]
        self.speakers = sorted(set(names))
        self.speaker = torch.tensor([self.speakers.index(name) for name in names])

    def data(self, settings: Audio):
        """Return the recordings as a data set, in their order."""
        modality = dataclasses.replace(settings, root=tuple(map(str, self.files)))
        dataset = modality.dataset(modality.listing())
        row = {dataset.source(number): number for number in range(len(dataset))}
        return Subset(dataset, torch.tensor([row[str(file)] for file in self.files]))


def list_others(out: Path, digits: Digits, speaker: str) -> Path:
    """Write the list of the recordings of all other speakers."""
    lines = [str(file.absolute()) for file in digits.files if file.stem.split("_")[1] != speaker]
    return write_text(out / f"without-{speaker}.txt", "\n".join(lines) + "\n")


def settings_without(study: Study, digits: Digits, speaker: str, seed: int) -> Pretrain:
    """Return the settings of a run on the recordings of all other speakers."""
    others, config = list_others(study.out, digits, speaker), audio_words()
    return dataclasses.replace(
        config,
        data=dataclasses.replace(config.data, root=(str(others),)),
        out=study.out / f"{speaker}-seed{seed}",
        seed=seed,
        steps=study.steps,
        threads=1,
        workers=0,
        device="cpu",
        report=False,
        resume="if-any",
    )


def measure(name: str, features: Features, digits: Digits, held_out: int) -> dict[str, float]:
    """Return the accuracy on a speaker of classifiers that learned from all others."""
    test = digits.speaker == held_out
    rows, tested = torch.where(~test)[0], torch.where(test)[0]
    labeled = Features(features.kinds, digits.digit)
    groups = digits.speaker[rows]
    split = SplitFeatures(select_rows(labeled, rows), select_rows(labeled, tested), groups=groups)
    subject = ProbeInput("digits", name, split, 10, groups=groups, separate_groups=digits.speaker[tested])
    probes = {"logistic": Logistic(), "knn": KNN(), "lowshot": LowShot(shots=(20.0, 5.0), repeats=5)}
    return {result.score.metric: result.score.value for result in run_probes(subject, probes)}


def dictionary_features(views: Tensor, data: Audio, train: Tensor) -> Tensor:
    """Return the strongest response of each atom of a dictionary of pieces in each recording.

    A piece is the whole spectrum of some frames. The atoms are the centers of k-means on whitened pieces; a response is
    how much nearer an atom is than the mean one. Source: Coates and Ng, 2012, for the responses. The size of pieces was
    chosen among 18 kinds, as the settings of the encoder were.
    """
    spectrograms = torch.cat([data.spectrogram(part)[:, 0] for part in views.split(250)])
    coarse = F.adaptive_avg_pool2d(spectrograms[:, None], (BANDS, data.frames))[:, 0]
    pieces = coarse.unfold(2, FRAMES, 2).permute(0, 2, 1, 3).flatten(2)
    pieces = pieces - pieces.mean(2, keepdim=True)
    generator = torch.Generator().manual_seed(0)
    sample = pieces[train].flatten(0, 1)
    sample = sample[torch.randperm(len(sample), generator=generator)[:PIECES]]
    mean = sample.mean(0)
    variance, axes = torch.linalg.eigh(torch.cov(sample.T))
    whiten = axes * (variance.clamp(min=0) + 0.1 * variance.mean()) ** -0.5
    x = (sample - mean) @ whiten
    atoms = x[torch.randperm(len(x), generator=generator)[:ATOMS]]
    for _ in range(25):
        nearest = F.one_hot(torch.cdist(x, atoms).argmin(1), ATOMS).to(x)
        used = nearest.sum(0)
        atoms = torch.where(used[:, None] > 0, nearest.T @ x / used.clamp(min=1)[:, None], atoms)
    responses = []
    for part in pieces.split(100):
        distance = torch.cdist((part - mean) @ whiten, atoms)
        responses.append((distance.mean(2, keepdim=True) - distance).clamp(min=0).amax(1))
    return torch.cat(responses)


def measure_baselines(encoder, digits: Digits, held_out: int, file: Path) -> dict[str, dict[str, float]]:
    """Return what the encoder before training and features without an encoder reach; measured once a speaker."""
    if not file.exists():
        data, device = digits.data(encoder.data), choose_device("cpu", "fp32")
        found = {"before training": compute_features(encoder.untrained(), data, device)}
        found |= {name: baseline_features(data, compute) for name, compute in encoder.data.baselines().items()}
        views = torch.cat([data.read(rows, None).views[0] for rows in torch.arange(len(data)).split(250)])
        atoms = dictionary_features(views, encoder.data, digits.speaker != held_out)
        found["dictionary of pieces"] = Features({"last": atoms}, digits.digit)
        scores = {name: measure(name, features, digits, held_out) for name, features in found.items()}
        write_text(file, json.dumps(scores, indent=1))
    return json.loads(file.read_text(encoding="utf-8"))


def main(study: Study) -> None:
    """Train without each speaker, measure on the speaker, and print means over seeds, speaker by speaker."""
    retain_freed_memory()  # as `jepa` does
    torch.set_num_threads(1)
    digits = Digits(study.sounds)
    results: dict[str, dict[str, list[dict[str, float]]]] = {}  # features -> speaker -> scores of each seed
    for seed in study.seeds:
        for speaker in study.speakers:
            config, held_out = settings_without(study, digits, speaker, seed), digits.speakers.index(speaker)
            file = config.out / "digits.json"
            if not file.exists():
                encoder = load_run(pretrain(config))
                features = compute_features(encoder, digits.data(encoder.data), choose_device("cpu", "fp32"))
                write_text(file, json.dumps(measure("this encoder", features, digits, held_out), indent=1))
            own = json.loads(file.read_text(encoding="utf-8"))
            results.setdefault("this encoder", {}).setdefault(speaker, []).append(own)
            baselines = study.out / f"baselines-{speaker}.json"
            encoder = load_run(config.out)
            for name, scores in measure_baselines(encoder, digits, held_out, baselines).items():
                results.setdefault(name, {}).setdefault(speaker, [scores])
    print_table(results, study.speakers)


def print_table(results: dict[str, dict[str, list[dict[str, float]]]], speakers: tuple[str, ...]) -> None:
    """Print the mean over speakers and seeds of every metric, and logistic regression speaker by speaker."""
    metrics = list(next(iter(next(iter(results.values())).values()))[0])
    print("| features | " + " | ".join([*metrics, *(f"logistic, {name}" for name in speakers)]) + " |")
    print("|---" * (1 + len(metrics) + len(speakers)) + "|")
    for name, by_speaker in results.items():
        means = [
            np.mean([np.mean([scores[metric] for scores in seeds]) for seeds in by_speaker.values()])
            for metric in metrics
        ]
        own = [np.mean([scores["logistic"] for scores in by_speaker[speaker]]) for speaker in speakers]
        print(f"| {name} | " + " | ".join(f"{value:.1f}" for value in [*means, *own]) + " |")


if __name__ == "__main__":
    main(tyro.cli(Study))
