"""Splits without leaks, evaluators and tasks found by their file, scores with units and in older files."""

import json
from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch

from openjepa.cli.pretrain import pretrain
from openjepa.cli.probe import probe
from openjepa.cli.settings import Probe
from openjepa.core import registry
from openjepa.core.bootstrap import bootstrap_interval, bootstrap_sums
from openjepa.core.errors import UserError
from openjepa.core.protocols import Dataset
from openjepa.core.types import Score
from openjepa.data.image_files import ImageArray
from openjepa.data.wrappers import Relabeled, Subset, ThreadedDataset
from openjepa.evaluation.evaluator import ProbeInput, SplitFeatures
from openjepa.evaluation.feature_store import Features
from openjepa.evaluation.features import raw_pixel_features
from openjepa.evaluation.labeled import Split, find_task, split_labeled
from openjepa.evaluation.probes.knn import KNN
from openjepa.evaluation.probes.logistic import Logistic, logistic_probe
from openjepa.evaluation.probes.ridge import Ridge, ridge_regression
from openjepa.evaluation.probes.split import validation_folds
from openjepa.evaluation.probing import create_probes, probe_names
from openjepa.evaluation.scores import format_scores, read_scores, table_rows, write_scores
from openjepa.evaluation.settings import LabeledData, ProbeSettings
from openjepa.evaluation.splits import k_fold, leave_group_out, random_split, sample_values, time_blocks
from openjepa.interop.pretrained import untrained_encoder
from openjepa.training.config import Pretrain
from openjepa.viz.scores import measure_and_publish
from tests.conftest import METHODS, MODALITIES, replace, slow

GROUPS = torch.tensor([3, 3, 3, 3, 3, 0, 0, 1, 7, 7, 7, 8, 8, 9, 1, 3])


def folds_of_every_kind():
    label = torch.arange(53) % 4
    return {
        "random": (random_split(53, 1), 53, False),
        "k-fold": (k_fold(53, 5, 1), 53, True),
        "k-fold by label": (k_fold(53, 5, 1, label), 53, True),
        "groups": (leave_group_out(GROUPS), 16, True),
        "groups, three folds": (leave_group_out(GROUPS, 3), 16, True),
        "time blocks": (time_blocks(53, 4, 3), 53, True),
    }


@pytest.mark.parametrize("kind", folds_of_every_kind())
def test_no_sample_is_in_training_and_test_of_a_fold_and_every_sample_is_tested_once(kind):
    folds, count, covers = folds_of_every_kind()[kind]
    for fold in folds:
        assert len(fold.train) and len(fold.test) and not set(fold.train.tolist()) & set(fold.test.tolist())
    tested = torch.cat([fold.test for fold in folds]).sort().values.tolist()
    assert tested == list(range(count)) if covers else len(tested) == 10


@pytest.mark.parametrize("folds", [0, 2, 3, 9])
def test_no_group_is_in_training_and_test_of_a_fold(folds):
    split = leave_group_out(GROUPS, folds)
    assert len(split) == {0: 6, 2: 2, 3: 3, 9: 6}[folds]
    for fold in split:
        assert not set(GROUPS[fold.train].tolist()) & set(GROUPS[fold.test].tolist())
    sizes = [len(fold.test) for fold in leave_group_out(torch.arange(40) // 4, 5)]
    assert sizes == [8] * 5  # two of ten equal groups in each


@pytest.mark.parametrize("gap", [0, 1, 4])
def test_no_window_within_the_gap_of_a_test_block_is_trained_on(gap):
    for fold in time_blocks(60, 5, gap):
        first, last = int(fold.test[0]), int(fold.test[-1])
        assert fold.test.tolist() == list(range(first, last + 1))
        assert all(row < first - gap or row > last + gap for row in fold.train.tolist())
        assert len(fold.train) == 48 - gap * ((first > 0) + (last < 59))  # nothing else is dropped


def test_folds_hold_as_many_of_each_class_and_follow_the_seed():
    label = torch.tensor([0] * 50 + [1] * 10)
    for fold in k_fold(60, 5, 0, label):
        assert label[fold.test].bincount().tolist() == [10, 2]
    one, same, other = (torch.cat([fold.test for fold in k_fold(60, 5, seed)]).tolist() for seed in (0, 0, 1))
    assert one == same != other


@pytest.mark.parametrize(
    ("split", "says"),
    [
        (lambda: k_fold(3, 5, 0), "--data.folds must be 2 to the number of samples, 3, got 5"),
        (lambda: leave_group_out(torch.zeros(4).long()), "at least 2 groups, got 1"),
        (lambda: time_blocks(6, 2, 9), "leave none to train on: lower --data.gap"),
        (lambda: time_blocks(6, 2, -1), "--data.gap must be >= 0, got -1"),
    ],
)
def test_folds_that_cannot_be_are_refused(split, says):
    with pytest.raises(UserError, match=says):
        split()


def test_values_of_samples_are_those_of_the_dataset_inside_its_wrappers():
    data = subjects(12)
    wrapped = Subset(
        Relabeled(ThreadedDataset(Subset(data, torch.arange(2, 12))), ("odd", "even")), torch.tensor([5, 0])
    )
    assert torch.equal(sample_values(wrapped, "groups"), data.groups[[7, 2]])
    assert sample_values(wrapped, "nothing of this name") is None


class Subjects(ImageArray):
    """Images of subjects, with a group and a real value for each."""

    groups: torch.Tensor
    targets: torch.Tensor
    target_unit = "m"


def subjects(count: int) -> Subjects:
    """Noise whose brightness is a tenth of the target in the first color, and the class in the second."""
    generator = torch.Generator().manual_seed(0)
    label, targets = torch.arange(count) % 2, torch.rand(count, generator=generator)
    images = torch.randint(0, 30, (count, 3, 32, 32), generator=generator, dtype=torch.uint8)
    images[:, 0] += (200 * targets).to(torch.uint8)[:, None, None]
    images[:, 1] += (200 * label).to(torch.uint8)[:, None, None]
    data = Subjects(MODALITIES["image"], images, label, "subjects", ("even", "odd"))
    data.groups, data.targets = torch.arange(count) // 6, targets
    return data


@dataclass(frozen=True)
class Brightness:
    """A task of the tests."""

    options: ClassVar[tuple[str, ...]] = ("",)
    needs_root: ClassVar[bool] = False
    baselines: ClassVar = {"raw pixels": raw_pixel_features}
    option: str = ""

    def split(self, modality, labeled: LabeledData, seed: int) -> Split:
        data: Dataset = ThreadedDataset(subjects(60))
        return Split(data, data, labeled.split)


@pytest.fixture
def brightness(monkeypatch):
    monkeypatch.setitem(registry.PLUGINS.registered, ("task", "brightness"), Brightness)


def encoder():
    return untrained_encoder(Pretrain(data=MODALITIES["image"], method=METHODS["released"]))


@pytest.mark.parametrize(
    "split", [pytest.param("k-fold", marks=slow), "groups", pytest.param("time-blocks", marks=slow)]
)
def test_folds_give_one_score_over_all_samples_and_features_are_computed_once(split, brightness, tmp_path, monkeypatch):
    data = LabeledData(labels="brightness", split=split, folds=5)
    settings = ProbeSettings(
        data=data, probes=("logistic", "knn", "linear", "lowshot", "ridge"), shots=(3.0,), device="cpu"
    )
    reads, read = [], Subjects.read
    monkeypatch.setattr(
        Subjects, "read", lambda self, index, rng: (reads.append((len(index), rng)), read(self, index, rng))[1]
    )
    scores = measure_and_publish([encoder()], settings, tmp_path, pixels=True)
    assert sum(count for count, rng in reads if rng is None) == 2 * 60  # once for the encoder, once for raw pixels
    pixels = {each.metric: each for each in scores if each.features == "raw pixels"}
    assert set(pixels) == {"logistic", "kNN", "linear", "3 a class", "ridge", "ridge error"}
    assert pixels["logistic"].value == 100 and pixels["logistic"].task == f"brightness-{split}"
    assert pixels["ridge"].unit == "R²" and pixels["ridge"].low < pixels["ridge"].value < pixels["ridge"].high < 1
    assert pixels["ridge"].value > 0.9 and len(pixels["ridge"].chosen["folds"]) == 5
    assert (pixels["ridge error"].unit, pixels["ridge error"].higher_is_better) == ("m", False)
    tables = (tmp_path / f"brightness-{split}.md").read_text()
    assert "60 images" in tables and "ridge error m ↓" in tables


def test_an_interval_over_groups_is_wider_than_over_samples_that_repeat_each_other():
    generator = torch.Generator().manual_seed(0)
    groups = torch.arange(40).repeat_interleave(25)
    values = torch.rand(40, generator=generator).round()[groups]
    low, high = bootstrap_interval(values)
    group_low, group_high = bootstrap_interval(values, groups=groups)
    assert group_high - group_low > 4 * (high - low)
    sums = torch.stack([torch.bincount(groups, values), torch.bincount(groups).double()], 1)
    from_sums = bootstrap_sums(lambda total: total[:, 0] / total[:, 1], sums)
    assert from_sums == pytest.approx((group_low, group_high), abs=0.02)
    own = bootstrap_interval(values, groups=torch.arange(1000))
    assert own == pytest.approx((low, high), abs=0.01)  # groups of one sample are samples


def test_a_score_of_grouped_folds_has_the_interval_of_its_groups():
    groups = torch.arange(60) // 20
    part = Features({"last": torch.randn(60, 4, generator=torch.Generator().manual_seed(0))}, torch.arange(60) % 2)
    plain = ProbeInput("blobs", "x", SplitFeatures(part, part), 2, tuple(leave_group_out(groups)))
    (alone,), (grouped,) = KNN().run(plain), KNN().run(replace(plain, groups=groups))
    correct = (plain.evidence["kNN"].predicted == plain.evidence["kNN"].truth).float()
    expected = bootstrap_interval(correct, groups=groups)
    assert (grouped.low, grouped.high) == pytest.approx(tuple(100 * end for end in expected))
    assert (alone.low, alone.high) != (grouped.low, grouped.high) and alone.value == grouped.value


def test_groups_are_refused_for_data_without_them_and_folds_for_data_with_test_data(photos, tmp_path):
    image = MODALITIES["image"]
    with pytest.raises(UserError, match="does not say which samples belong together"):
        split_labeled(image, LabeledData((str(photos),), split="groups"), 0)
    with pytest.raises(UserError, match="scenes-count has its own test data: leave --data.split out, got k-fold"):
        split_labeled(image, LabeledData(labels="scenes-count", split="k-fold"), 0)
    for part in ("train", "test"):
        (tmp_path / part).symlink_to(photos)
    with pytest.raises(UserError, match=r"has its own test data \(test/\): leave --data.split k-fold out"):
        split_labeled(image, LabeledData((str(tmp_path),), split="k-fold"), 0)
    with pytest.raises(UserError, match="--data.folds must be 2 to the number of samples, 96, got 1"):
        split_labeled(image, LabeledData((str(photos),), split="k-fold", folds=1), 0)


def test_images_in_folders_are_probed_in_folds(tiny, photos, tmp_path, capsys):
    pretrain(tiny)
    data = LabeledData((str(photos),), split="k-fold", folds=4)
    asked = Probe(run=str(tiny.out), data=data, probes=("knn",), baselines=False, out=tmp_path, device="cpu")
    (score,) = probe(asked)
    assert score.value * 96 / 100 == pytest.approx(round(score.value * 96 / 100))  # of 96 images, each tested once
    assert "96 images (k-fold, every image tested once)" in capsys.readouterr().out
    written = json.loads((tmp_path / f"{photos.name}-k-fold-4.json").read_text())
    assert written["about"]["split"] == ["k-fold", 4, 1]


def test_each_split_has_results_of_its_own(tiny, photos, tmp_path):
    pretrain(tiny)
    data = LabeledData((str(photos),))
    for asked in (data, replace(data, split="k-fold"), replace(data, split="k-fold", folds=3)):
        probe(Probe(run=str(tiny.out), data=asked, probes=("knn",), baselines=False, out=tmp_path, device="cpu"))
    written = {file.stem.removeprefix(photos.name): json.loads(file.read_text()) for file in tmp_path.glob("*.json")}
    assert {name: each["about"].get("split") for name, each in written.items()} == {
        "": None,
        "-k-fold": ["k-fold", 5, 1],
        "-k-fold-3": ["k-fold", 3, 1],
    }
    assert all(len(each["scores"]) == 1 for each in written.values())
    table = replace(data, labels="labels.csv", label="digit", group="speaker")
    assert [each.name.removeprefix(photos.name) for each in (table, replace(table, split="groups"))] == [
        "-digit-by-speaker",
        "-digit-by-speaker-groups",
    ]


def test_evaluators_are_the_files_of_their_folder_and_take_settings_of_their_fields_names():
    assert probe_names()[:7] == ["attentive", "finetune", "knn", "linear", "logistic", "lowshot", "predictor-finetune"]
    probes = create_probes(
        ProbeSettings(probes=("knn", "lowshot", "linear"), shots=(3.0,), features="last4", augment=True)
    )
    assert probes["knn"] == KNN("last4", 20, 0.07)
    assert (probes["lowshot"].shots, probes["linear"].augment) == ((3.0,), True)
    with pytest.raises(UserError, match="unknown probe 'logistics': did you mean logistic.* choose one of attentive, "):
        create_probes(ProbeSettings(probes=("logistics",)))


def test_tasks_are_found_by_the_first_part_of_their_name():
    assert {"clevr", "folders", "scenes"} < set(registry.names("task"))
    assert find_task("clevr-dist").option == "dist" and find_task("folders").needs_root
    with pytest.raises(UserError, match="unknown --data.labels 'scenes-color': choose from scenes-count, scenes-dist"):
        find_task("scenes-color")
    with pytest.raises(UserError, match="unknown task 'clever': did you mean clevr"):
        find_task("clever-count")


def test_a_file_without_its_class_has_no_name(tmp_path, monkeypatch):
    (tmp_path / "shelf").mkdir()
    (tmp_path / "shelf" / "four_rooms.py").write_text("class FourRooms:\n    pass\n")
    (tmp_path / "shelf" / "helpers.py").write_text("raise SystemError('imported')\ndef help_me():\n    pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(registry, "PACKAGE", tmp_path)
    monkeypatch.setitem(registry.FOLDERS, "room", "shelf")
    assert registry.names("room") == ["four-rooms"]  # and nothing was imported


def two_parts(targets: bool, classes: int = 2) -> ProbeInput:
    x = torch.randn(90, 6, generator=torch.Generator().manual_seed(0))
    y = x @ torch.tensor([1.0, -2.0, 0.5, 0.0, 3.0, 0.1]) + 4
    label = (y > 4).long()
    parts = [Features({"last": x[rows]}, label[rows]) for rows in (slice(60), slice(60, 90))]
    return ProbeInput(
        "blobs", "x", SplitFeatures(*parts, targets=(y[:60], y[60:]) if targets else None), classes, target_unit="m"
    )


def test_ridge_explains_a_linear_target_and_reports_its_error_in_its_unit():
    explained, error = Ridge().run(two_parts(True))
    assert explained.value > 0.999 and (explained.metric, explained.unit) == ("ridge", "R²")
    features, (train, test) = two_parts(True).features, two_parts(True).features.targets
    predicted = ridge_regression(features.train["last"], train, 0)(features.test["last"])
    assert error.value == pytest.approx(float((predicted - test).abs().mean())) and error.unit == "m"


def test_data_of_the_other_kind_is_refused():
    with pytest.raises(UserError, match="ridge needs real-valued targets, and blobs has classes"):
        list(Ridge().run(two_parts(False)))
    with pytest.raises(UserError, match="logistic needs classes, and blobs has real-valued targets"):
        list(Logistic().run(two_parts(True, classes=0)))


def test_an_older_file_of_scores_is_read_and_a_damaged_one_is_refused(tmp_path):
    old = {"features": "this encoder", "probe": "kNN", "accuracy": 0.5, "low": 0.4, "high": 0.625, "chosen": {"k": 20}}
    file = tmp_path / "photos.json"
    file.write_text(json.dumps({"split": "a random fifth", "scores": [old]}))
    content = read_scores(file)
    assert content["scores"] == [Score("photos", "this encoder", "kNN", 50.0, 40.0, 62.5, "%", True, {"k": 20})]
    write_scores(file, content["scores"], {"split": content["split"]})
    assert read_scores(file) == content  # written anew, in today's layout
    for damaged in ({**old, "unit": "m"}, {"probe": "kNN"}, {"task": "photos"}):
        file.write_text(json.dumps({"scores": [damaged]}))
        with pytest.raises(UserError, match="is damaged"):
            read_scores(file)


def test_earlier_scores_stay_beside_new_ones_after_an_update(tiny, photos, tmp_path):
    """A file that an earlier version wrote keeps its scores of other probes, if encoder and images are the same."""
    pretrain(tiny)
    asked = Probe(
        run=str(tiny.out),
        data=LabeledData((str(photos),)),
        probes=("knn",),
        baselines=False,
        out=tmp_path,
        device="cpu",
    )
    probe(asked)
    file = tmp_path / f"{photos.name}.json"
    content = json.loads(file.read_text())
    (new,) = content["scores"]
    old = {"features": new["features"], "probe": "logistic", "accuracy": 0.25, "low": 0.0, "high": 0.5, "chosen": {}}
    file.write_text(json.dumps({**content, "scores": [old]}))
    probe(asked)
    scores = read_scores(file)["scores"]
    assert [(each.metric, each.value) for each in scores] == [("logistic", 25.0), ("kNN", new["value"])]


def test_a_table_has_a_column_for_each_task_or_metric_with_its_unit():
    one = Score("photos", "x", "ridge", 0.91234, None, None, "R²")
    error = Score("photos", "x", "ridge error", 12.345, 11.0, 13.0, "m", False)
    assert table_rows([one, error]) == [["features", "ridge R²", "ridge error m ↓"], ["x", "0.912", "12.3 (11–13)"]]
    tasks_ = [Score(task, "x", "logistic", 50.04, 40.0, 60.0) for task in ("count", "kind")]
    assert format_scores(tasks_).splitlines()[0] == "| features | count % | kind % |"
    assert table_rows(tasks_)[1] == ["x", "50.0 (40.0–60.0)", "50.0 (40.0–60.0)"]


def test_settings_of_a_probe_are_selected_on_groups_that_it_did_not_train_on():
    groups = torch.tensor([3, 3, 7, 7, 7, 1, 9, 9, 4, 4])
    folds = validation_folds(len(groups), 0, groups)
    assert len(folds) == 4 and torch.cat([held_out for _, held_out in folds]).sort().values.tolist() == list(range(10))
    for training, held_out in folds:
        assert not set(groups[training].tolist()) & set(groups[held_out].tolist())
        assert len(training) + len(held_out) == len(groups)
    for without in (None, torch.zeros(10, dtype=torch.long)):
        ((training, held_out),) = validation_folds(10, 0, without)
        assert len(held_out) == 1 and len(training) == 9


def test_logistic_regression_is_validated_on_new_groups():
    """A feature that says the class within each group, another one in every group, is worth nothing in a new group."""
    generator = torch.Generator().manual_seed(0)
    groups, y = torch.arange(400) // 100, torch.randint(2, (400,), generator=generator)
    weak = (2 * y - 1)[:, None] * 0.7 + torch.randn(400, 1, generator=generator)
    own = torch.zeros(400, 4).scatter_(1, groups[:, None], (2.0 * y - 1)[:, None])
    x = torch.cat([weak, own], 1)
    apart = logistic_probe(x, y, x, 2, groups=groups)
    together = logistic_probe(x, y, x, 2)
    assert together.validation == 1.0 and apart.validation < 0.9
