"""Random trees of files through doctor, embed and probe: no traceback, nothing lost, whatever the order of creation."""

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from openjepa.cli.main import main
from openjepa.core import registry
from openjepa.masking.random import Random
from openjepa.modalities.image import Image
from openjepa.modalities.series import Series
from openjepa.modalities.video import Video
from openjepa.nn.predictor import PredictorConfig
from openjepa.nn.vit import ViTConfig
from openjepa.training.config import Pretrain
from openjepa.training.run import pretrain
from tests.cases.trees import WRITERS, random_tree, write_tree
from tests.conftest import METHODS, slow

TREES = 10  # of each modality in make test

DATA = {
    "image": Image(size=(16, 16), patch=4),
    "series": Series(length=32, window=2),
    "video": Video(frames=4, stride=1, size=(8, 8), patch=4),
}


def test_every_modality_that_reads_files_has_random_trees():
    reading = {name for name in registry.names("modality") if getattr(registry.find("modality", name), "suffixes", ())}
    assert set(DATA) == set(WRITERS) <= reading


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> dict[str, Path]:
    """Train a tiny encoder of each modality for two steps."""
    folder, made = tmp_path_factory.mktemp("runs"), {}
    for name, data in DATA.items():
        root = folder / name / "data"
        root.mkdir(parents=True)
        good = [entry for seed in range(8) for entry in random_tree(name, seed, folder)]
        for number, entry in enumerate(good):
            if entry.path.endswith((".bmp", ".npy")) and len(entry.content) > 200:
                (root / f"{number}{Path(entry.path).suffix}").write_bytes(entry.content)
        method = replace(METHODS["released"], encoder=ViTConfig(dim=16, depth=1, num_heads=2),
                         predictor=PredictorConfig(dim=8, depth=1))  # fmt: skip
        settings = Pretrain(data=replace(data, root=(str(root),)), method=method, masks=Random(), steps=2, batch_size=2,
                            threads=1, workers=0, report=False, device="cpu", out=folder / name / "run")  # fmt: skip
        made[name] = pretrain(settings)
    return made


def run(capsys, *arguments: str) -> tuple[int, str]:
    """Run a command; an error must be one sentence."""
    status = main(list(arguments))
    error = capsys.readouterr().err
    assert status in (0, 1) and "Traceback" not in error
    if status:
        assert error.strip().splitlines()[-1].startswith("jepa: ")
    return status, error


def measure(root: Path, run_folder: Path, out: Path, modality: str, capsys) -> tuple:
    """Return what doctor, embed and probe say about a tree, with paths relative to it."""
    results: list = []
    doctor = run(capsys, "doctor", str(root), "--out", str(out / "doctor")) if modality != "series" else (1, "")
    if (out / "doctor" / "doctor.json").exists():
        content = (out / "doctor" / "doctor.json").read_text(encoding="utf-8")
        results.append(json.loads(content.replace(json.dumps(str(root))[1:-1], "ROOT")))
    status, _ = run(capsys, "embed", str(run_folder), str(root), "--out", str(out / "f.npy"), "--device", "cpu")
    if not status:
        with (out / "f.npy.csv").open(newline="", encoding="utf-8", errors="surrogateescape") as stream:
            rows = [(str(Path(row["file"]).relative_to(root)), row["class"]) for row in csv.DictReader(stream)]
        features = np.load(out / "f.npy")
        assert len(features) == len(rows)
        results += [rows, features.tobytes()]
    probed, error = run(
        capsys, "probe", str(run_folder), "--data.root", str(root), "--probes", "knn", "--no-baselines", "--out",
        str(out / "probes"), "--device", "cpu",
    )  # fmt: skip
    scores = [
        json.loads(file.read_text(encoding="utf-8"))["scores"] for file in sorted((out / "probes").glob("*.json"))
    ]
    assert bool(scores) == (probed == 0)
    return doctor[0], status, probed, error.replace(str(root), "ROOT"), results, scores


def check_tree(modality: str, seed: int, runs: dict[str, Path], work: Path, capsys) -> None:
    """Measure a tree twice, its files created in another order."""
    entries, measured = random_tree(modality, seed, work), []
    for order in range(2):
        root = work / f"order{order}" / "tree"
        write_tree(root, entries, order)
        measured.append(measure(root, runs[modality], work / f"out{order}", modality, capsys))
        left = {str(file.relative_to(root)): file.read_bytes() for file in root.rglob("*") if file.is_file()}
        assert left == {entry.path: entry.content for entry in entries}, "data were changed"
        shutil.rmtree(work / f"order{order}")
        shutil.rmtree(work / f"out{order}", ignore_errors=True)
    assert measured[0] == measured[1]


@pytest.mark.parametrize(
    ("modality", "first"), [(name, first) for name in DATA for first in range(0, 5 if name == "video" else TREES, 5)]
)
def test_random_trees(modality, first, runs, tmp_path, capsys):
    for seed in range(first, first + 5):
        check_tree(modality, seed, runs, tmp_path, capsys)


@slow
@pytest.mark.parametrize("first", range(TREES, 1000, 25))
@pytest.mark.parametrize("modality", DATA)
def test_many_random_trees(modality, first, runs, tmp_path, capsys):
    for seed in range(first, first + 25):
        check_tree(modality, seed, runs, tmp_path, capsys)
