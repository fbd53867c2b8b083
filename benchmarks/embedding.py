"""Compare the speed of `jepa embed` with the bare forward pass, in turn, in one process.

python benchmarks/embedding.py RUN FOLDER --images 4096
"""

import argparse
import dataclasses
import statistics
import sys
import tempfile
import time
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from openjepa.data.wrappers import Subset, ThreadedDataset
from openjepa.evaluation.feature_store import FeatureWriter, store_features
from openjepa.evaluation.features import feature_encoder, view_reader
from openjepa.interop.adapters import load_any
from openjepa.training.device import choose_device

BATCH = 256


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("run")
    parser.add_argument("data")
    parser.add_argument("--images", type=int, default=4096)
    parser.add_argument("--times", type=int, default=5)
    options = parser.parse_args()
    where, this = choose_device(), load_any(options.run)
    data = dataclasses.replace(this.data, root=(options.data,))
    whole = data.dataset(data.listing())
    some = ThreadedDataset(Subset(whole, torch.arange(options.images) % len(whole)))
    encode = feature_encoder(this, where, {"last": "features"}, BATCH)
    view = some.read(torch.arange(BATCH), None).views[0]
    about = {"encoder": "", "data": "", "precision": ""}

    def forward() -> float:
        began = time.perf_counter()
        with torch.no_grad():
            for _ in range(options.images // BATCH):
                with where.autocast():
                    this.encode(where.move(view)).last.cpu()
        return options.images / (time.perf_counter() - began)

    def embedding() -> float:
        with tempfile.TemporaryDirectory() as folder:
            began = time.perf_counter()
            store_features(FeatureWriter(view_reader(some), encode), options.images, about, Path(folder))
            return options.images / (time.perf_counter() - began)

    forward()
    embedding()  # once, so that everything is warm
    pairs = [(forward(), embedding()) for _ in range(options.times)]
    ratios = sorted(after / before for before, after in pairs)
    bare, made = (statistics.median(each) for each in zip(*pairs, strict=True))
    print(f"bare forward pass  {bare:8,.1f} images/s\nembedding          {made:8,.1f} images/s")
    print(f"share              {100 * statistics.median(ratios):8.1f} % ({100 * ratios[0]:.1f}–{100 * ratios[-1]:.1f})")


if __name__ == "__main__":
    main()
