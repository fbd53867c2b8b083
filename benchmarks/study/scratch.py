"""The encoder of the small recipes trained from nothing by labels alone: what pretraining has to beat.

    python benchmarks/study/scratch.py --train cifar10/train --test cifar10/test --shots 10 100 1000

The recipe of fine-tuning (crops as in pretraining, AdamW, mixup, CutMix, label smoothing, drop path) with one rate for all
weights; `--crops` of them, as many as fit into the time compared with, but no more than `--epochs` of the labelled images.
"""

import argparse
import dataclasses
import sys
import time
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[2]))

from openjepa.data.normalization import measure_mean_std
from openjepa.evaluation.features import DatasetEncoder
from openjepa.evaluation.probes.finetune import finetune_probe
from openjepa.evaluation.probes.finetune_recipes import FinetuneRecipe
from openjepa.evaluation.probes.logistic import accuracy
from openjepa.evaluation.probes.lowshot import choose_labeled
from openjepa.interop.adapters import from_untrained
from openjepa.recipes.registry import load_recipe
from openjepa.training.device import choose_device


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--train", required=True, help="class folders")
    parser.add_argument("--test", required=True)
    parser.add_argument("--shots", nargs="+", type=int, default=[10, 100, 1000], help="labels a class")
    parser.add_argument("--crops", type=int, default=150_000, help="seen by a run")
    parser.add_argument("--epochs", type=int, default=200, help="at most")
    parser.add_argument("--draws", type=int, default=1)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    config = load_recipe("mae-cifar10")
    parts = []
    for root in (options.train, options.test):
        image = dataclasses.replace(config.data, root=(root,))
        data = image.dataset(image.listing())
        if not parts:
            mean, std = measure_mean_std(data)
        image = dataclasses.replace(image, mean=mean, std=std)
        parts.append(image.dataset(image.listing()))
    train, test = parts
    this = from_untrained(dataclasses.replace(config, data=train.config))
    asked, where = torch.arange(len(test)), choose_device("cpu")
    for shots in options.shots:
        for draw in range(options.draws):
            began = time.perf_counter()
            few = choose_labeled(train.label, len(train.classes), shots, torch.Generator().manual_seed(draw))
            epochs = max(1, min(options.epochs, options.crops // len(few)))
            plan = FinetuneRecipe(epochs=epochs, batch_size=min(128, len(few)), lr=options.lr, layer_decay=1.0)
            answer = finetune_probe(
                DatasetEncoder(this, train, where),
                DatasetEncoder(this, test, where),
                (few, train.label[few]),
                asked,
                len(train.classes),
                plan,
                seed=draw,
            )
            right = accuracy(answer, test.label)
            print(
                f"{shots:5} labels a class, draw {draw}: {100 * right:.1f} % after {epochs} epochs, {time.perf_counter() - began:.0f} s",
                flush=True,
            )


if __name__ == "__main__":
    main()
