"""Train the encoder of the small recipes from scratch on labels alone: the baseline that pretraining has to beat.

    python studies/small_data/scratch.py --train cifar10/train --test cifar10/test --shots 10 100 1000

The recipe is that of fine-tuning (crops as in pretraining, AdamW, mixup, CutMix, label smoothing, drop path) with one
learning rate for all weights. A run sees `--crops` crops, as many as fit into the time compared with, but at most
`--epochs` epochs.
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
from openjepa.interop.pretrained import untrained_encoder
from openjepa.recipes.registry import load_recipe
from openjepa.training.device import choose_device


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--train", required=True, help="class folders")
    parser.add_argument("--test", required=True)
    parser.add_argument("--shots", nargs="+", type=int, default=[10, 100, 1000], help="labels per class")
    parser.add_argument("--crops", type=int, default=150_000, help="crops that a run sees")
    parser.add_argument("--epochs", type=int, default=200, help="maximum")
    parser.add_argument("--repeats", type=int, default=1, help="random subsets of labels")
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
    encoder = untrained_encoder(dataclasses.replace(config, data=train.config))
    test_rows, device = torch.arange(len(test)), choose_device("cpu")
    for shots in options.shots:
        for repeat in range(options.repeats):
            start = time.perf_counter()
            rows = choose_labeled(train.label, len(train.classes), shots, torch.Generator().manual_seed(repeat))
            epochs = max(1, min(options.epochs, options.crops // len(rows)))
            recipe = FinetuneRecipe(epochs=epochs, batch_size=min(128, len(rows)), lr=options.lr, layer_decay=1.0)
            predicted = finetune_probe(
                DatasetEncoder(encoder, train, device),
                DatasetEncoder(encoder, test, device),
                (rows, train.label[rows]),
                test_rows,
                len(train.classes),
                recipe,
                seed=repeat,
            )
            top1 = accuracy(predicted, test.label)
            print(
                f"{shots:5} labels per class, repeat {repeat}: {100 * top1:.1f} % after {epochs} epochs,"
                f" {time.perf_counter() - start:.0f} s",
                flush=True,
            )


if __name__ == "__main__":
    main()
