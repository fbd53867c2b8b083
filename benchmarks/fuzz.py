"""Read damaged and hostile files: none may crash the process, exhaust its memory, run code or pass as intact.

    python benchmarks/fuzz.py --images 10000 --checkpoints 2000 --archives 2000 --weights 1000

Every case is a function of the seed and its number. Images are decoded. A mutated checkpoint must be refused, or
equal what was saved bit for bit; one whose hashes an attacker fixed must be refused, or be one that a run can resume
from. Prints the number of cases per result, and exits with 1 if there was any other result.
"""

import argparse
import dataclasses
import hashlib
import io
import json
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import pyarrow as arrow
import pyarrow.parquet as parquet
import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.kills import ran, small
from openjepa.cli.shards import shards as make_shards
from openjepa.core.errors import UserError
from openjepa.data import image_io
from openjepa.data.crops import center_crops
from openjepa.data.doctor import examine_file
from openjepa.data.image_io import IMAGE_SUFFIXES, Undecodable, read_bytes, read_image_file
from openjepa.data.image_values import crop_file
from openjepa.data.listing import list_files
from openjepa.data.settings import Shards
from openjepa.interop.imported import ImportOptions
from openjepa.interop.official import read_official
from openjepa.training.checkpoint import (
    DAMAGE_ERRORS,
    Checkpoint,
    list_checkpoints,
    read_checkpoint,
    restore_checkpoint,
)
from openjepa.training.config import load_config
from openjepa.training.log import read_metrics
from openjepa.training.optim import build_optimizer
from openjepa.training.resume import check_same_data, warn_if_environment_changed
from tests import mutants
from tests.faults import run_in_fork
from tests.mutants import mutate, run_cases
from tests.test_interop import METHOD, SQUARE, official_checkpoint

DEEP_RANGE = (0.0, 65535.0)  # of images with more than 8 bits, as a run measures it


class Images:
    """Decode and crop a mutated image as a loader does; `jepa doctor` must call it what the loader does."""

    accepted = frozenset({"decoded", "undecodable"})

    def __init__(self, folder: Path, seed: int):
        self.folder, self.seed, self.good = folder, seed, mutants.sample_images()

    def __call__(self, number: int) -> str:
        dice = random.Random(f"{self.seed} picture {number}")
        name, other = dice.choice(list(self.good)), dice.choice(list(self.good))
        file = self.folder / f"case{Path(name).suffix}"
        file.write_bytes(mutate(self.good[name], dice, self.good[other]))
        try:
            image = read_image_file(str(file), 3)
            height, width = (torch.tensor([float(side)]) for side in image[:2])
            crop = center_crops((32, 32), height, width, "crop")
            assert crop_file(image, 3, crop, 0, (32, 32), DEEP_RANGE).shape == (3, 32, 32)
        except Undecodable as error:
            assert str(error) and not examine_file(str(file)).width
            return "undecodable"
        assert examine_file(str(file)).width
        return "decoded"


class Checkpoints:
    """Open a run whose newest checkpoint, config, data.json or log was mutated."""

    accepted = frozenset({"refused", "as saved", "read, with fixed hash", "refused, despite fixed hash"})

    def __init__(self, folder: Path, seed: int):
        self.folder, self.seed = folder, seed
        self.settings = dataclasses.replace(small(folder), out=folder / "run", steps=3)
        assert run_in_fork(lambda: ran(self.settings)) == 0
        (self.checkpoint,) = list_checkpoints(folder / "run" / "checkpoints")
        self.good = {file: file.read_bytes() for file in self.checkpoint.iterdir()}
        names = ("config.json", "data.json", "environment.json", "metrics.jsonl")
        self.other_files = {folder / "run" / name: (folder / "run" / name).read_bytes() for name in names}
        self.whole = read_checkpoint(self.checkpoint)

    def __call__(self, number: int) -> str:
        dice = random.Random(f"{self.seed} checkpoint {number}")
        for file, content in {**self.good, **self.other_files}.items():
            file.write_bytes(content)
        if dice.random() < 0.3:
            return self.run(dice)
        file = dice.choice(list(self.good))
        file.write_bytes(mutate(self.good[file], dice, self.good[dice.choice(list(self.good))]))
        hash_fixed = file.suffix == ".safetensors" and dice.random() < 0.5
        if hash_fixed:
            state = json.loads(self.good[self.checkpoint / "state.json"])
            state["sha256"][file.name] = hashlib.sha256(file.read_bytes()).hexdigest()
            (self.checkpoint / "state.json").write_text(json.dumps(state))
        try:
            loaded = read_checkpoint(self.checkpoint)
            if hash_fixed:
                method = self.settings.method.build(self.settings.data)
                restore_checkpoint(loaded, method, build_optimizer(method, self.settings.optim))
        except (*DAMAGE_ERRORS, UserError):
            return "refused, despite fixed hash" if hash_fixed else "refused"
        if not hash_fixed:
            assert loaded.step == self.whole.step and same(loaded, self.whole), "a damaged checkpoint was accepted"
        return "read, with fixed hash" if hash_fixed else "as saved"

    def run(self, dice: random.Random) -> str:
        """Mutate one of the other files of the run and read it."""
        file = dice.choice(list(self.other_files))
        file.write_bytes(mutate(self.other_files[file], dice, self.other_files[dice.choice(list(self.other_files))]))
        try:
            settings = load_config(self.settings.out)
            check_same_data(settings, [self.settings.data.listing()])
            warn_if_environment_changed(settings)
            read_metrics(self.settings.out / "metrics.jsonl")
        except UserError:
            return "refused"
        return "as saved"


class Archives:
    """List and read a mutated tar or Parquet file, or one with a mutated index."""

    accepted = frozenset({"refused", "unread", "as packed", "read, other than packed"})

    def __init__(self, folder: Path, seed: int):
        self.seed, self.folder = seed, folder / "archives"
        self.folder.mkdir()
        (folder / "files").mkdir()
        for name, content in list(mutants.sample_images().items())[:6]:
            (folder / "files" / name).write_bytes(content)
        self.whole = self.read(str(folder / "files"))
        (made,) = make_shards(Shards(str(folder / "files"), folder / "made", workers=1)).glob("*.tar")
        cells = [{"bytes": content, "path": "name.png"} for content in self.whole]
        stream = io.BytesIO()
        parquet.write_table(arrow.table({"image": cells, "label": [0, 1, 0, 1, 0, 1]}), stream, row_group_size=4)
        self.good = {"a.tar": made.read_bytes(), "b.parquet": stream.getvalue()}

    def __call__(self, number: int) -> str:
        dice = random.Random(f"{self.seed} archive {number}")
        image_io.READ_ATTEMPTS = 1  # a second attempt would take a second
        for file in self.folder.iterdir():
            file.unlink()
        name = dice.choice(list(self.good))
        file, index = self.folder / name, self.folder / f".{name}.index"
        file.write_bytes(self.good[name])
        if dice.random() < 0.3:
            self.read(str(file))
            index.write_bytes(mutate(index.read_bytes(), dice, self.good[name]))
        else:
            file.write_bytes(mutate(self.good[name], dice, self.good[dice.choice(list(self.good))]))
        try:
            return "as packed" if self.read(str(file)) == self.whole else "read, other than packed"
        except UserError:
            return "refused"
        except (OSError, Undecodable) as error:
            assert str(error)
            return "unread"

    def read(self, root: str) -> list[bytes]:
        return [read_bytes(path) for path in list_files((root,), IMAGE_SUFFIXES).paths]


class Weights:
    """Read a mutated official checkpoint: it must be refused, or hold the same tensors."""

    accepted = frozenset({"refused", "same"})

    def __init__(self, folder: Path, seed: int):
        self.folder, self.seed = folder, seed
        torch.save(official_checkpoint(METHOD, SQUARE), folder / "whole.pth.tar")
        self.content = (folder / "whole.pth.tar").read_bytes()
        self.expected = read_official(folder / "whole.pth.tar", ImportOptions(METHOD.encoder.num_heads)).networks

    def __call__(self, number: int) -> str:
        dice = random.Random(f"{self.seed} weights {number}")
        file, content = self.folder / "case.pth.tar", mutate(self.content, dice, self.content)
        file.write_bytes(content)
        try:
            found = read_official(file, ImportOptions(METHOD.encoder.num_heads)).networks
        except UserError as error:
            assert str(error) and "\n" not in str(error)
            return "refused"
        expected = {name: state for name, state in self.expected.items() if name in found}
        return "same" if all(equal(found[name], state) for name, state in expected.items()) else "other values"


def equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def same(one: Checkpoint, other: Checkpoint) -> bool:
    return equal(one.model, other.model) and equal(one.optimizer, other.optimizer)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--checkpoints", type=int, default=2_000)
    parser.add_argument("--archives", type=int, default=2_000)
    parser.add_argument("--weights", type=int, default=1_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    bad: Counter[str] = Counter()
    every = (
        (Images, options.images),
        (Checkpoints, options.checkpoints),
        (Archives, options.archives),
        (Weights, options.weights),
    )
    for kind, cases in every:
        start = time.perf_counter()
        folder = Path(tempfile.mkdtemp())
        each = kind(folder, options.seed)
        found = run_cases(cases, each, folder / "notes")
        shutil.rmtree(folder)
        print(
            f"{cases} {kind.__name__.lower()}, {time.perf_counter() - start:.0f} s: "
            + ", ".join(f"{count} {word}" for word, count in found.most_common())
        )
        bad.update({word: count for word, count in found.items() if word not in kind.accepted})
    sys.exit(bool(bad))


if __name__ == "__main__":
    main()
