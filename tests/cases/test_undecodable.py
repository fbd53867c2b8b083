"""Broken files among labeled ones: every command counts them, names the first one and why, and uses the others only."""

import json
import math
import shutil

import numpy as np
import pytest
import torch

from openjepa.cli.cluster import cluster
from openjepa.cli.embed import embed
from openjepa.cli.main import main
from openjepa.cli.predict import predict
from openjepa.cli.pretrain import pretrain
from openjepa.cli.probe import probe
from openjepa.cli.settings import Cluster, Embed, Predict, Probe
from openjepa.core.errors import UserError
from openjepa.evaluation.feature_store import Features
from openjepa.evaluation.features import DatasetEncoder
from openjepa.evaluation.label_free import augmented_features
from openjepa.evaluation.measure import labeled_part
from openjepa.evaluation.settings import LabeledData
from openjepa.evaluation.splits import Fold
from openjepa.evaluation.undecodable import find_undecodable, fold_of_labeled, lost_classes
from openjepa.interop.adapters import load_any
from openjepa.training.settings import OnlineProbe
from tests.cases.inputs import fill
from tests.conftest import CPU, TINY, Image, MultiBlock, Optim, Pretrain, replace, slow

PAGE = b"<!DOCTYPE html><html>404</html>"
WHY = "(the file is an HTML page, not an image: a failed download?)"


@pytest.fixture(scope="module")
def run(photos, tmp_path_factory):
    return pretrain(
        Pretrain(
            Image(root=(str(photos),), size=(32, 32), patch=4), TINY, MultiBlock(), Optim(warmup=0.1), steps=2,
            batch_size=16, device="cpu", precision="fp32", threads=1, workers=0, report=False,
            out=tmp_path_factory.mktemp("broken") / "run",
        )
    )  # fmt: skip


@pytest.fixture
def labeled(tmp_path):
    """Two classes of 12 files to train on and 6 to test."""
    for kind, name in enumerate(("disc", "square")):
        fill(tmp_path / "data" / "train" / name, 12, kind)
        fill(tmp_path / "data" / "test" / name, 6, kind, first=500)
    return tmp_path / "data"


def break_files(folder, count=100):
    for file in sorted(file for file in folder.rglob("*.jpg"))[:count]:
        file.write_bytes(PAGE)


def measure(run, folder, tmp_path, probes=("knn", "logistic"), **more):
    labeled = LabeledData(root=(str(folder),), **more)
    return probe(Probe(run=str(run), data=labeled, probes=probes, device="cpu", precision="fp32", out=tmp_path / "out"))


@pytest.mark.parametrize(("part", "purpose", "count"), [("train", "to train on", 24), ("test", "to test", 12)])
def test_a_part_of_broken_files_is_one_sentence(part, purpose, count, run, labeled, tmp_path, capsys):
    break_files(labeled / part)
    line = [
        "probe",
        str(run),
        "--data.root",
        str(labeled),
        "--probes",
        "knn",
        "--device",
        "cpu",
        "--out",
        str(tmp_path),
    ]
    assert main(line) == 1
    error = capsys.readouterr().err.strip()
    first = labeled / part / "disc"
    assert error.startswith(f"jepa: none of the {count} images {purpose} can be decoded, the first is {first}")
    assert WHY in error and error.endswith(f": jepa doctor {labeled} lists them") and "\n" not in error


def test_a_class_of_broken_files_is_named_and_the_printed_counts_are_those_used(run, labeled, tmp_path, capsys):
    break_files(labeled / "train" / "square")
    break_files(labeled / "test" / "disc", 2)
    scores = measure(run, labeled, tmp_path)
    output = capsys.readouterr()
    assert "2 classes, 12 images to train on, 10 to test (test/)" in output.out
    assert f"12 of 24 images to train on cannot be decoded, the first is {labeled}/train/square/000.jpg" in output.err
    assert "of these classes: square; no probe can predict them" in output.err
    assert f"2 of 12 images to test cannot be decoded, the first is {labeled}/test/disc/500.jpg" in output.err
    assert all(score.value == pytest.approx(40) for score in scores)  # 4 of the 10 tested are discs


@pytest.mark.parametrize(
    "probes",
    [
        ("knn", "logistic"),
        *(pytest.param((name,), marks=slow) for name in ("linear", "attentive", "lowshot", "finetune")),
    ],
)
def test_every_probe_leaves_broken_files_out(probes, run, labeled, tmp_path, capsys):
    for folder in ("train/disc", "train/square", "test/square"):
        break_files(labeled / folder, 2)
    clean = tmp_path / "clean"
    shutil.copytree(labeled, clean)
    for file in clean.rglob("*.jpg"):
        if file.read_bytes() == PAGE:
            file.unlink()
    scores, truth = (measure(run, folder, tmp_path / folder.name, probes) for folder in (labeled, clean))
    assert [each.value for each in scores] == [each.value for each in truth]
    assert "20 images to train on, 10 to test" in capsys.readouterr().out


@pytest.mark.parametrize("split", ["k-fold", "random"])
def test_folds_are_of_the_files_that_can_be_decoded(split, run, tmp_path, capsys):
    for kind, name in enumerate(("disc", "square")):
        fill(tmp_path / "data" / name, 10, kind)
    break_files(tmp_path / "data" / "square", 3)
    measure(run, tmp_path / "data", tmp_path, split=split)
    output = capsys.readouterr()
    assert "cannot be decoded" in output.err
    assert ("17 images" in output.out) == (split == "k-fold")


def test_stored_features_name_the_broken_files_again(run, labeled, tmp_path, capsys):
    break_files(labeled / "train" / "disc", 3)
    line = ["probe", str(run), "--data.root", str(labeled), "--probes", "knn", "--device", "cpu", "--no-baselines"]
    line += ["--cache", str(tmp_path / "cache"), "--out", str(tmp_path / "out")]
    for _ in range(2):
        assert main(line) == 0
        output = capsys.readouterr()
        assert "3 of 24 images to train on cannot be decoded" in output.err and "21 images to train on" in output.out


def test_metrics_without_labels_use_the_files_that_can_be_decoded(run, labeled):
    break_files(labeled / "train" / "disc", 5)
    encoder = load_any(str(run))
    data = encoder.data.dataset(replace(encoder.data, root=(str(labeled / "train"),)).listing())
    label = data.read(torch.arange(24), None).label
    kept = labeled_part(data, Features({"last": torch.zeros(24, 1)}, label))
    assert len(kept) == 19
    views = augmented_features(DatasetEncoder(encoder, kept, CPU), seed=0)
    assert views.shape[0] == 19 and views.isfinite().all()


def test_the_online_probe_refuses_broken_data_at_its_start_and_writes_no_nan(tiny, labeled, capsys):
    config = replace(tiny, steps=2, online_probe=OnlineProbe(root=(str(labeled),), every=1))
    break_files(labeled / "train" / "disc", 12)
    out = pretrain(config)
    assert "no image of the online probe to train on can be decoded of these classes: disc" in capsys.readouterr().err
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert any("online_knn" in row for row in rows)
    assert all(math.isfinite(value) for row in rows for value in row.values() if isinstance(value, float))
    break_files(labeled / "test")
    with pytest.raises(UserError, match="none of the 12 images of the online probe to test can be decoded"):
        pretrain(replace(config, out=config.out.with_name("other")))


def test_predict_counts_broken_files_and_refuses_a_folder_of_them(run, labeled, tmp_path, capsys):
    measure(run, labeled, tmp_path, ("logistic",))
    (head,) = (tmp_path / "out").glob("*-head.safetensors")
    break_files(labeled / "test" / "disc", 2)
    capsys.readouterr()
    settings = Predict(run=str(run), images=str(labeled / "test"), head=head, device="cpu", precision="fp32")
    predictions = predict(settings)
    error = capsys.readouterr().err
    assert [len(each.classes) for each in predictions] == [0] * 2 + [2] * 10
    assert f"2 of 12 images cannot be decoded, the first is {labeled}/test/disc/500.jpg {WHY}" in error
    break_files(labeled / "test")
    with pytest.raises(UserError, match="none of the 12 images can be decoded, the first is"):
        predict(settings)


def test_embed_and_cluster_count_broken_files_and_search_names_the_reason(run, labeled, tmp_path, capsys):
    break_files(labeled / "train" / "disc", 2)
    settings = Embed(run=str(run), data=str(labeled / "train"), out=tmp_path / "x.npy", device="cpu", precision="fp32")
    embed(settings)
    first = f"2 of 24 images cannot be decoded, the first is {labeled}/train/disc/000.jpg {WHY}: jepa doctor {labeled}"
    assert first in capsys.readouterr().err
    assert int(np.isnan(np.load(tmp_path / "x.npy")).any(1).sum()) == 2
    cluster(Cluster(index=tmp_path / "x.npy", clusters=2))
    assert first in capsys.readouterr().err
    assert main(["search", str(tmp_path / "x.npy"), str(labeled / "train/disc/000.jpg")]) == 1
    assert WHY.strip("()") in capsys.readouterr().err
    break_files(labeled)
    with pytest.raises(UserError, match="none of the 24 images can be decoded"):
        embed(replace(settings, out=tmp_path / "y.npy"))
    assert not list(tmp_path.glob("*y.npy*"))


def test_a_run_names_the_first_broken_file_and_counts_all(tiny, labeled, capsys):
    break_files(labeled / "train" / "disc", 1)
    roots = (*tiny.data.root, str(labeled / "train"))
    pretrain(replace(tiny, data=replace(tiny.data, root=roots), steps=12, max_skipped=1.0))
    output = capsys.readouterr()
    assert f"{labeled}/train/disc/000.jpg cannot be decoded {WHY}" in output.err
    assert "1 file that cannot be decoded was replaced by others" in output.out


def test_folds_of_a_task_are_renumbered_to_the_labeled_samples():
    label = torch.tensor([0, -1, 1, 0, -1, 1])
    fold = fold_of_labeled(Fold(torch.tensor([0, 1, 2]), torch.tensor([5, 3, 4])), label)
    assert (fold.train.tolist(), fold.test.tolist()) == ([0, 1], [3, 2])


def test_samples_without_a_label_that_can_be_decoded_are_not_counted(run, labeled):
    encoder = load_any(str(run))
    data = encoder.data.dataset(replace(encoder.data, root=(str(labeled / "train"),)).listing())
    assert find_undecodable(data, torch.full((24,), -1)) is None
    break_files(labeled / "train" / "square", 4)
    label = torch.where(torch.arange(24) < 12, -1, 1)
    label[12:16] = -1
    bad = find_undecodable(data, label)
    assert bad is not None and (bad.count, bad.total) == (4, 24)
    assert lost_classes(data, data.read(torch.arange(24), None).label) == []
