"""One description of labeled data: classes, splits, what is left out, and what looks wrong."""

import contextlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image as Pillow

from openjepa.cli.main import main
from openjepa.core import fileio
from openjepa.core.errors import UserError
from openjepa.core.fileio import atomic_write
from openjepa.core.types import Samples
from openjepa.data import walking
from openjepa.data.labels.describe import LabeledFiles, to_json
from openjepa.data.labels.folders import label_by_folders
from openjepa.data.labels.words import find_splits, read_split_name
from openjepa.evaluation.evaluator import ProbeInput, SplitFeatures
from openjepa.evaluation.feature_store import Features
from openjepa.evaluation.labeled import split_labeled
from openjepa.evaluation.probes.lowshot import possible_shots
from openjepa.evaluation.settings import LabeledData
from openjepa.evaluation.tasks.folders import check_classes, choose_parts, describe_data
from openjepa.modalities.image import Image
from openjepa.modalities.series import Series
from tests.cases import inputs
from tests.cases.inputs import fill, picture
from tests.cases.layouts import LAYOUTS, mixed, table

IMAGE = Image(size=(32, 32), patch=4, mean=(0.5,) * 3, std=(0.25,) * 3)


def describe_folder(root: Path, **options) -> LabeledFiles:
    return describe_data(IMAGE, LabeledData((str(root),), **options))


def counts(files: LabeledFiles) -> dict[str, dict[str, int]]:
    return {split: dict(part["classes"]) for split, part in to_json(files)["splits"].items()}


@pytest.fixture(scope="module")
def cases(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("cases")
    for name in ("R02", "R03", "R04", "R06", "R07", "R08", "R36", "R37"):
        inputs.MAKERS[name](folder / name)
    return folder


UNDERSTOOD = {  # layout -> files of each class to train on, and to test on if it has test data of its own
    "image_folder": ((20, 20), (8, 8)),
    "nested_image_folder": ((20, 20), None),
    "class_then_split": ((20, 20), (8, 8)),
    "kaggle": ((20, 20), None),
    "kaggle_one_hot": ((20, 20), None),
    "huggingface": ((20, 20), (8, 8)),
    "huggingface_lines": ((20, 20), None),
    "cub": ((15, 15), (5, 5)),
    "table_beside": ((20, 20), None),
    "webdataset": ((20, 20), (8, 8)),
    "parquet_shards": ((20, 20), (8, 8)),
    "coco": ((20, 20), None),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_common_layouts_are_understood_or_refused_with_the_flag_to_use(layout, tmp_path):
    LAYOUTS[layout](tmp_path / "data")
    files = describe_folder(tmp_path / "data")
    train, test, _ = choose_parts(files)
    if layout not in UNDERSTOOD:
        with pytest.raises(UserError, match="--data.pattern"):
            check_classes(files, train, "images")
        return
    check_classes(files, train, "images")
    expected_train, expected_test = UNDERSTOOD[layout]
    assert [train.labels.count(name) for name in files.classes] == list(expected_train)
    assert [test.labels.count(name) for name in files.classes] == list(expected_test) if expected_test else test is None
    assert all(name.endswith(("disc", "square", "0", "1")) for name in files.classes)


def test_the_suggested_pattern_labels_flat_names(tmp_path):
    LAYOUTS["flat_names"](tmp_path / "data")
    files = describe_folder(tmp_path / "data", pattern=r"^([a-z]+)\.")
    assert counts(files) == {"all": {"disc": 20, "square": 20}}


@pytest.mark.parametrize(("case", "expected"), [
    ("R03/x", {"all": {"disc": 20, "square": 20}}),
    ("R04/x", {"all": {"disc": 20, "square": 20}}),
    ("R06/x", {"all": {"cat": 30, "dog": 30}}),
    ("R06/one", {"all": {"cat": 20, "dog": 20}}),
    ("R06/split", {"train": {"cat": 16, "dog": 16}, "test": {"cat": 16, "dog": 16}}),
    ("R07/kaggle", {"train": {"disc": 20, "square": 20}, "test": {"disc": 8, "square": 8}}),
    ("R07/capital", {"train": {"disc": 20, "square": 20}, "test": {"disc": 8, "square": 8}}),
    ("R07/seg", {"train": {"disc": 20, "square": 20}, "test": {"disc": 8, "square": 8}}),
    ("R07/dev", {"train": {"disc": 20, "square": 20}, "val": {"disc": 8, "square": 8}}),
    ("R07/eval", {"train": {"disc": 20, "square": 20}, "val": {"disc": 8, "square": 8}}),
    ("R08/flat", {"train": {"disc": 20, "square": 20}, "val": {"disc": 8, "square": 8}, "test": {}}),
    ("R08/deep", {"train": {"disc": 20, "square": 20}, "val": {"disc": 8, "square": 8}, "test": {}}),
    ("R02/seg.tar", {"all": {"0": 20, "1": 20}}),
    ("R02/dots.tar", {"all": {"0": 20, "1": 20}}),
    ("R02/same.tar", {"all": {"0": 20, "1": 20}}),
    ("R02/json.tar", {"all": {"0": 20, "1": 20}}),
    ("R02/apple.tar", {"all": {"disc": 20, "square": 20}}),
])  # fmt: skip
def test_cases_have_the_classes_and_splits_that_people_mean(cases, case, expected):
    assert counts(describe_folder(cases / case)) == expected


def test_test_data_without_labels_leave_the_validation_data_to_test_on(cases):
    for name in ("flat", "deep"):
        split = split_labeled(IMAGE, LabeledData((str(cases / "R08" / name),)), 0)
        assert (len(split.train), len(split.test), split.how) == (40, 16, "val/; test/ has no labels")


def test_the_same_files_in_both_parts_are_named(cases, capsys):
    for name in ("copy", "link"):
        split_labeled(IMAGE, LabeledData((str(cases / "R37" / name),)), 0)
        said = capsys.readouterr().err
        assert "40 of 40 test files are also training files" in said and "test/disc/000.jpg" in said


@pytest.mark.parametrize("seed", range(12))
def test_every_class_with_two_images_is_in_both_parts(cases, seed, capsys):
    for name, counted in (("rare", 2), ("tiny", 3)):
        split = split_labeled(IMAGE, LabeledData((str(cases / "R36" / name),)), seed)
        trained, tested = ({label_of(part, row) for row in range(len(part))} for part in (split.train, split.test))
        assert trained == set(split.train.classes) and len(tested) == counted
    assert "no images of 1 classes, e.g. lone" in capsys.readouterr().err


def label_of(part, row: int) -> str:
    return Path(part.source(row)).parent.name


def test_one_image_of_each_class_is_refused(cases):
    with pytest.raises(UserError, match="nothing is left to test on"):
        split_labeled(IMAGE, LabeledData((str(cases / "R36" / "two"),)), 0)


def test_what_is_left_out_is_counted_with_its_reason(cases):
    assert reasons(cases / "R02" / "seg.tar") == {"further pictures of a sample": 40}
    assert reasons(cases / "R03" / "x") == {"hidden files": 8}
    assert reasons(cases / "R04" / "x") == {"macOS companion files (._*)": 40, "hidden files": 2}
    assert reasons(cases / "R04" / "zip") == {"files of the system or of other programs": 40}


def reasons(root: Path) -> dict[str, int]:
    return {each["reason"]: each["count"] for each in to_json(describe_folder(root))["left_out"]}


# further folders: a radiologist, a satellite, a microscope, a photographer, a scraper, a Kaggle user, a Windows user


def test_pictures_and_their_masks_are_no_classes(tmp_path):
    for names in (("images", "masks"), ("imagesTr", "labelsTr"), ("JPEGImages", "SegmentationClass"), ("img", "gt")):
        for name in names:
            fill(tmp_path / names[0] / "data" / name, 6)
        with pytest.raises(UserError, match="look like pictures and what belongs to them"):
            describe_folder(tmp_path / names[0] / "data")


def test_folders_and_a_table_that_disagree_are_refused(tmp_path):
    rows = mixed(tmp_path / "images" / "part1", 20) + [(f"p{number}.jpg", "disc") for number in range(10)]
    for number in range(10):
        (tmp_path / "images" / "part2").mkdir(exist_ok=True)
        picture(number).save(tmp_path / "images" / "part2" / f"p{number}.jpg")
    table(tmp_path / "labels.csv", ("image_id", "dx"), rows)
    with pytest.raises(UserError, match="give different classes: type --data.labels"):
        describe_folder(tmp_path)
    assert counts(describe_folder(tmp_path, labels=str(tmp_path / "labels.csv"))) == {"all": {"disc": 20, "square": 10}}
    assert counts(describe_folder(tmp_path, labels="folders")) == {"all": {"part1": 20, "part2": 10}}


def test_a_column_of_patients_keeps_their_pictures_together(tmp_path, capsys):
    rows = mixed(tmp_path / "x")
    file = tmp_path / "patients.csv"
    table(file, ("name", "dx", "patient"), [(*row, f"p{number // 4}") for number, row in enumerate(rows)])
    for seed in range(3):
        labeled = LabeledData((str(tmp_path / "x"),), labels=str(file), group="patient")
        split = split_labeled(IMAGE, labeled, seed)
        patients = [
            {int(Path(part.source(row)).stem) // 4 for row in range(len(part))} for part in (split.train, split.test)
        ]
        assert not patients[0] & patients[1] and "groups" in split.how
    with pytest.raises(UserError, match="has no column patients for --data.group: choose from name, dx, patient"):
        split_labeled(IMAGE, LabeledData((str(tmp_path / "x"),), labels=str(file), group="patients"), 0)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "cp1252"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_tables_of_windows_programs_are_read(tmp_path, encoding, delimiter):
    rows = mixed(tmp_path / "x", 12)
    lines = [delimiter.join(("Datei", "Größe", "class")), *(delimiter.join((name, "3", label)) for name, label in rows)]
    (tmp_path / "t.csv").write_bytes("\r\n".join(lines).encode(encoding))
    assert counts(describe_folder(tmp_path / "x", labels=str(tmp_path / "t.csv"))) == {"all": {"disc": 6, "square": 6}}


def test_several_columns_that_may_be_the_label_are_asked_for(tmp_path):
    rows = [(name, label, "a" * (number % 3 + 1)) for number, (name, label) in enumerate(mixed(tmp_path / "x", 12))]
    table(tmp_path / "t.csv", ("file", "shape", "color"), rows)
    with pytest.raises(
        UserError, match=r"may be the label \(shape, color\): type --data.labels \S*t.csv --data.label COLUMN"
    ):
        describe_folder(tmp_path / "x", labels=str(tmp_path / "t.csv"))
    files = describe_folder(tmp_path / "x", labels=str(tmp_path / "t.csv"), label="shape")
    assert counts(files) == {"all": {"disc": 6, "square": 6}}


def test_a_name_that_may_be_two_files_is_refused(tmp_path):
    for folder in ("a", "b"):
        fill(tmp_path / "x" / folder, 3)
    table(tmp_path / "t.csv", ("file", "label"), [(f"{number:03d}.jpg", number) for number in range(3)])
    with pytest.raises(UserError, match="which may be a/000.jpg, b/000.jpg: give paths"):
        describe_folder(tmp_path / "x", labels=str(tmp_path / "t.csv"))
    rows = [(f"D:\\photos\\{folder}\\{number:03d}.jpg", folder) for folder in "ab" for number in range(3)]
    table(tmp_path / "t.csv", ("file", "label"), rows)
    assert counts(describe_folder(tmp_path / "x", labels=str(tmp_path / "t.csv"))) == {"all": {"a": 3, "b": 3}}


def test_coco_with_several_categories_in_an_image_is_refused(tmp_path):
    LAYOUTS["coco"](tmp_path / "data")
    file = tmp_path / "data" / "annotations" / "instances.json"
    content = json.loads(file.read_text())
    content["annotations"].append({"id": 99, "image_id": 0, "category_id": 2})
    file.write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"several categories \(disc, square\)"):
        describe_folder(tmp_path / "data")


def test_training_and_test_folders_can_be_named(tmp_path):
    for part, count in (("first batch", 12), ("second batch", 4)):
        for kind, name in enumerate(("disc", "square")):
            fill(tmp_path / part / name, count, kind, first=100 * count)
    labeled = LabeledData(train=(str(tmp_path / "first batch"),), test=(str(tmp_path / "second batch"),))
    split = split_labeled(IMAGE, labeled, 0)
    assert (len(split.train), len(split.test)) == (24, 8)
    with pytest.raises(UserError, match="are given together"):
        split_labeled(IMAGE, LabeledData(train=(str(tmp_path / "first batch"),)), 0)


def test_classes_and_splits_survive_another_kind_of_unicode(tmp_path):
    """macOS unpacks é as two characters."""
    for part, name in (("train", "caf\u00e9"), ("test", "cafe\u0301")):
        fill(tmp_path / part / name, 6, 0, first=50 * (part == "test"))
        fill(tmp_path / part / "bar", 6, 1, first=50 * (part == "test"))
    split = split_labeled(IMAGE, LabeledData((str(tmp_path),)), 0)
    assert split.train.classes == split.test.classes == ("bar", "caf\u00e9")


def test_a_class_called_train_is_a_class(tmp_path):
    for kind, name in enumerate(("bus", "train", "car")):
        fill(tmp_path / name, 6, kind)
    assert counts(describe_folder(tmp_path)) == {"all": {"bus": 6, "car": 6, "train": 6}}
    assert find_splits(["train_station", "test_tube"]) == {} and read_split_name("latest") is None


def test_an_unpacked_archive_in_an_archive_is_one_folder_deeper(tmp_path):
    inner = tmp_path / "archive" / "dataset"
    for part in ("training_set", "test_set"):
        for kind, name in enumerate(("cats", "dogs")):
            fill(inner / part / part / name, 6, kind, first=50 * (part == "test_set"))
    files = describe_folder(tmp_path)
    assert counts(files) == {"train": {"cats": 6, "dogs": 6}, "test": {"cats": 6, "dogs": 6}}


NAME = st.sampled_from(["a", "b", "train", "Test", "val", "2019", "images", "x y", "seg_train", "é", "1"])


@settings(max_examples=200, deadline=None)
@given(st.lists(st.lists(NAME, min_size=0, max_size=4), min_size=1, max_size=12), st.randoms())
def test_labels_depend_on_the_set_of_files_alone(folders, random):
    files = sorted({(*names, f"{number}.jpg") for number, names in enumerate(folders)})
    shuffled = random.sample(files, len(files))
    try:
        first = label_by_folders(files)
    except UserError:
        with pytest.raises(UserError):
            label_by_folders(shuffled)
        return
    again = label_by_folders(shuffled)
    assert dict(zip(files, zip(first.labels, first.splits, strict=True), strict=True)) == dict(
        zip(shuffled, zip(again.labels, again.splits, strict=True), strict=True)
    )
    assert (first.how, first.notes) == (again.how, again.notes)
    for parts, label in zip(files, first.labels, strict=True):
        assert label == "" or label in parts[:-1]


def test_the_command_prints_the_description(cases, capsys):
    assert main(["labels", str(cases / "R07" / "kaggle")]) == 0
    said = capsys.readouterr().out
    assert "2 classes: classes are the folders below Training/, Testing/" in said
    assert "train (Training/): 40 labeled, 2 classes" in said and "tested on: Testing/" in said


def test_labels_reach_probes_of_every_modality_that_reads_files(tmp_path):
    """The table of a recording's file labels all of its segments."""
    (tmp_path / "x").mkdir()
    for number in range(8):
        np.save(tmp_path / "x" / f"r{number}.npy", np.random.default_rng(number).normal(size=(1, 96)).astype("f4"))
    table(tmp_path / "t.csv", ("recording", "label", "subject"), [(f"r{n}", "ab"[n % 2], n // 2) for n in range(8)])
    labeled = LabeledData((str(tmp_path / "x"),), labels=str(tmp_path / "t.csv"), group="subject")
    split = split_labeled(Series(length=48, window=8), labeled, 0)
    samples: Samples = split.train.read(torch.arange(len(split.train)), None)
    expected = [int(Path(split.train.source(row).split("#")[0]).stem[1:]) % 2 for row in range(len(split.train))]
    assert split.train.classes == ("a", "b") and samples.label.tolist() == expected


def test_changed_labels_are_other_data(tmp_path):
    rows = mixed(tmp_path / "x", 12)
    fingerprints = []
    for name, label in (("one", "disc"), ("two", "square")):
        table(tmp_path / f"{name}.csv", ("file", "label"), [(rows[0][0], label), *rows[1:]])
        split = split_labeled(IMAGE, LabeledData((str(tmp_path / "x"),), labels=str(tmp_path / f"{name}.csv")), 0)
        fingerprints.append(split.train.dataset.fingerprint)
    assert fingerprints[0] != fingerprints[1]


def test_outputs_of_commands_are_never_data(tmp_path, monkeypatch):
    inputs.MAKERS["R01"](tmp_path)
    monkeypatch.chdir(tmp_path / "photos")
    before = Image(root=(".",)).listing()
    assert main(["doctor", "."]) == 0
    Pillow.new("RGB", (8, 8)).save("doctor-like.png")
    after = Image(root=(".",)).listing()
    assert set(after.paths) - set(before.paths) == {"./doctor-like.png"}
    shutil.rmtree("runs")


def test_tables_that_commands_write_are_no_labels(tmp_path):
    fill(tmp_path / "x", 12)
    with atomic_write(tmp_path / "x" / "f-clusters.csv") as temporary:
        temporary.write_text("file,cluster\n" + "".join(f"{number:03d}.jpg,{number % 2}\n" for number in range(12)))
    assert counts(describe_folder(tmp_path / "x")) == {"all": {}}


def test_names_that_do_not_tell_the_format_are_read(tmp_path):
    inputs.MAKERS["R18"](tmp_path)
    for number, name in enumerate(("photo.jpg?w=300", "a.jpg~", "0123abcd", "x.JPEG", "b.Jfif")):
        picture(number).save(tmp_path / "x" / name, "JPEG")
    (tmp_path / "x" / "README").write_text("This is text.")
    assert len(Image(root=(str(tmp_path / "x"),)).listing().paths) == 112 + 5


def test_more_shots_than_a_class_has_are_left_out(capsys):
    label = torch.tensor([0, 0, 0, 1, 1, 0, 1])
    features = Features({"last": torch.randn(7, 3)}, label)
    subject = ProbeInput("x", "this encoder", SplitFeatures(features, features), 2)
    assert possible_shots(subject, (1.0, 10.0, 0.5)) == [1.0, 0.5]
    assert "the smallest class has 3 images to train on: 10 labels per class are left out" in capsys.readouterr().err
    with pytest.raises(UserError, match="type --shots 3"):
        possible_shots(subject, (10.0,))


def test_a_table_of_hashes_beside_classes_is_no_table_of_labels(tmp_path):
    LAYOUTS["image_folder"](tmp_path)
    rows = [(file.name, f"{number:032x}") for number, file in enumerate(sorted(tmp_path.rglob("*.jpg")))]
    table(tmp_path / "hashes.csv", ("file", "sha256"), rows)
    files = describe_folder(tmp_path)
    assert counts(files)["train"] == {"disc": 20, "square": 20} and "no column of classes" in files.notes[-1]


@pytest.mark.parametrize("delimiter", [" ", ","])
def test_a_table_without_a_header_loses_no_file(tmp_path, delimiter):
    rows = mixed(tmp_path / "x", 12)
    (tmp_path / "t.csv").write_text("\n".join(f"x/{name}{delimiter}{label}" for name, label in rows))
    assert counts(describe_folder(tmp_path / "x", labels=str(tmp_path / "t.csv"))) == {"all": {"disc": 6, "square": 6}}


def test_results_of_two_columns_of_labels_have_two_names():
    names = [LabeledData(("photos",), labels="t.csv", label=label).name for label in ("species", "sex", "")]
    assert names == ["photos-species", "photos-sex", "photos-t"] and LabeledData(("photos",)).name == "photos"


def test_an_output_is_marked_before_it_exists(tmp_path, monkeypatch):
    """A kill in between must not leave a picture that counts as data."""
    fill(tmp_path / "x", 3)
    listed = []

    def replace_and_list(source: Path, target: Path) -> None:
        source.replace(target)
        listed.append(Image(root=(str(tmp_path / "x"),)).listing().paths)

    monkeypatch.setattr(fileio, "replace_file", replace_and_list)
    with atomic_write(tmp_path / "x" / "figure.png") as temporary:
        picture(1).save(temporary, "PNG")
    assert len(listed[0]) == 3 and (tmp_path / "x" / "figure.png").exists()


def test_the_order_of_the_file_system_changes_nothing(tmp_path, monkeypatch):
    inputs.MAKERS["R04"](tmp_path)
    inputs.MAKERS["R37"](tmp_path)
    before, scan = Image(root=(str(tmp_path),)).listing(), walking.os.scandir

    @contextlib.contextmanager
    def reversed_scan(folder):
        with scan(folder) as entries:
            yield sorted(entries, key=lambda entry: entry.name, reverse=True)

    monkeypatch.setattr(walking.os, "scandir", reversed_scan)
    after = Image(root=(str(tmp_path),)).listing()
    assert before == after and before.left_out == after.left_out and len(before.left_out) > 2
