"""Data are known by their contents, runs and results by where they are: nothing stale, nothing mixed up."""

import dataclasses
import io
import itertools
import os
import shutil
import sys
import tarfile
import time
import unicodedata
import wave
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image as Pillow

from openjepa.core import registry
from openjepa.core.errors import UserError
from openjepa.core.names import distinct_labels
from openjepa.data import identity
from openjepa.data.image_files import ImageFiles
from openjepa.data.image_io import IMAGE_SUFFIXES
from openjepa.data.listing import list_files
from openjepa.evaluation.labeled import labeled_fingerprint
from openjepa.evaluation.result_files import choose_name, possible_names, results_folder
from openjepa.evaluation.scores import write_scores
from openjepa.evaluation.settings import LabeledData
from openjepa.modalities.image import Image
from tests.cases.inputs import png

NAMES = ("a/0", "a/1", "b/0", "b/2")


def picture(seed: int) -> bytes:
    stream = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), np.uint8)
    Pillow.fromarray(pixels).save(stream, "BMP")
    return stream.getvalue()


def signal(seed: int) -> bytes:
    stream = io.BytesIO()
    np.save(stream, np.random.default_rng(seed).normal(size=(1, 300)).astype(np.float32))
    return stream.getvalue()


def clip(seed: int) -> bytes:
    stream = io.BytesIO()
    np.save(stream, np.random.default_rng(seed).integers(0, 256, (2, 8, 8, 3), np.uint8))
    return stream.getvalue()


def sound(seed: int) -> bytes:
    stream = io.BytesIO()
    with wave.open(stream, "wb") as file:
        file.setparams((1, 2, 8000, 0, "NONE", ""))
        file.writeframes(np.random.default_rng(seed).integers(-9999, 9999, 900).astype("<i2").tobytes())
    return stream.getvalue()


def episode(seed: int) -> bytes:
    stream = io.BytesIO()
    rng = np.random.default_rng(seed)
    np.savez(stream, states=rng.normal(size=(12, 3)).astype(np.float32), actions=rng.normal(size=(11, 1)))
    return stream.getvalue()


# how files of a modality end and what they hold
CONTENTS = {
    "image": (".bmp", picture),
    "image-pair": (".bmp", picture),
    "series": (".npy", signal),
    "video": (".npy", clip),
    "trajectory": (".npz", episode),
    "audio": (".wav", sound),
}
MODALITIES = [
    name
    for name in registry.names("modality")
    if hasattr(registry.find("modality", name)(), "root") and name != "pair"  # tests/test_distill.py has its own
]


def make_tree(folder: Path, modality: str, names=NAMES) -> Path:
    ending, content = CONTENTS[modality]
    for name in names:
        file = folder / f"{name}{ending}"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content(NAMES.index(name)))
    return folder


def fingerprint(modality: str, *roots: Path | str) -> str:
    return registry.find("modality", modality)(root=tuple(map(str, roots))).listing().fingerprint


def change_byte(file: Path, position: int = -1) -> None:
    """Change one byte of a file; size and time of modification stay."""
    status, content = file.stat(), bytearray(file.read_bytes())
    content[position] ^= 1
    file.write_bytes(bytes(content))
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))


def test_every_modality_that_reads_files_is_tested():
    assert set(MODALITIES) == set(CONTENTS)


@pytest.mark.parametrize("modality", MODALITIES)
def test_a_data_set_keeps_its_fingerprint_wherever_and_however_it_is_given(modality, tmp_path, monkeypatch):
    first = make_tree(tmp_path / "here" / "data", modality)
    before = fingerprint(modality, first)
    make_tree(tmp_path / "other order", modality, NAMES[::-1])
    shutil.copytree(first, tmp_path / "copy")
    (tmp_path / "link").symlink_to(first)
    ways = [tmp_path / "other order", tmp_path / "copy", tmp_path / "link", f"{first}/", f"{first}/../data/."]
    assert {fingerprint(modality, each) for each in ways} == {before}
    monkeypatch.chdir(tmp_path / "here")
    assert fingerprint(modality, "data") == fingerprint(modality, "./data/") == before
    monkeypatch.chdir(first)
    assert fingerprint(modality, ".") == fingerprint(modality, "a/..") == before


@pytest.mark.parametrize("modality", MODALITIES)
@pytest.mark.parametrize("change", ["byte", "rename", "folder", "add", "remove", "swap"])
def test_every_change_of_a_data_set_changes_its_fingerprint(modality, change, tmp_path):
    ending, content = CONTENTS[modality]
    before = fingerprint(modality, make_tree(tmp_path, modality))
    file, other = (tmp_path / f"{name}{ending}" for name in NAMES[:2])
    if change == "byte":
        change_byte(file)
    elif change == "rename":
        file.rename(file.with_stem("00"))
    elif change == "folder":
        (tmp_path / "a").rename(tmp_path / "aa")
    elif change == "add":
        file.with_stem("9").write_bytes(content(9))
    elif change == "remove":
        file.unlink()
    else:
        one, two = file.read_bytes(), other.read_bytes()
        file.write_bytes(two)
        other.write_bytes(one)
    assert fingerprint(modality, tmp_path) != before


def test_the_order_of_roots_matters_and_their_places_do_not(tmp_path):
    names = [make_tree(tmp_path / place / name, "image") for place, name in (("a", "x"), ("z", "y"))]
    change_byte(names[1] / "a" / "0.bmp")
    one = fingerprint("image", *names)
    shutil.copytree(names[0], tmp_path / "z" / "later")
    assert fingerprint("image", tmp_path / "z" / "later", names[1]) == one
    assert fingerprint("image", *names[::-1]) != one


def test_a_file_in_two_overlapping_roots_is_listed_once(tmp_path):
    make_tree(tmp_path, "image")
    assert len(list_files((str(tmp_path), str(tmp_path / "a")), IMAGE_SUFFIXES).paths) == 4


def test_names_of_macos_are_those_of_linux(tmp_path):
    """HFS+ stores é as two characters, and sorts it elsewhere."""
    prints = set()
    for form in ("NFC", "NFD"):
        for number, name in enumerate(("éa.bmp", "ez.bmp", "zé.bmp")):
            (tmp_path / form).mkdir(exist_ok=True)
            (tmp_path / form / unicodedata.normalize(form, name)).write_bytes(picture(number))
        prints.add(fingerprint("image", tmp_path / form))
    assert len(prints) == 1


def test_a_list_of_paths_is_the_data_that_it_names(tmp_path, monkeypatch):
    make_tree(tmp_path / "data", "image")
    relative, absolute = tmp_path / "relative.txt", tmp_path / "absolute.txt"
    lines = [f"data/{name}.bmp" for name in NAMES]
    relative.write_text("\n".join(lines))
    absolute.write_text("\n".join(str(tmp_path / line) for line in lines))
    monkeypatch.chdir(tmp_path)
    prints = {fingerprint("image", each) for each in ("data", "relative.txt", relative, absolute)}
    assert len(prints) == 1


def test_names_with_bytes_that_are_no_text_have_a_fingerprint(tmp_path):
    (tmp_path / os.fsdecode(b"\xff.bmp")).write_bytes(picture(0))
    assert len(fingerprint("image", tmp_path)) == 32


def test_a_file_that_cannot_be_read_has_a_fingerprint_and_another_one_later(tmp_path):
    file = tmp_path / "0.bmp"
    group = identity.FileGroup(0, str(tmp_path), [str(file)], [246])
    gone = identity.content_fingerprint([group])
    file.write_bytes(picture(0))
    assert identity.content_fingerprint([group]) != gone


def test_of_a_large_data_set_a_sample_is_read(tmp_path, monkeypatch):
    """Names and sizes count for all files; contents for the first, the last and evenly spaced ones."""
    monkeypatch.setattr(identity, "MAX_HASHED_BYTES", 100)
    monkeypatch.setattr(identity, "SAMPLED_FILES", 2)
    monkeypatch.setattr(identity, "BLOCK_BYTES", 8)
    monkeypatch.setattr(identity, "SAMPLED_BLOCKS", 3)
    make_tree(tmp_path, "image")
    before = fingerprint("image", tmp_path)
    change_byte(tmp_path / "a" / "1.bmp")
    assert fingerprint("image", tmp_path) == before
    change_byte(tmp_path / "b" / "2.bmp")
    one = fingerprint("image", tmp_path)
    change_byte(tmp_path / "a" / "0.bmp", 0)
    two = fingerprint("image", tmp_path)
    (tmp_path / "a" / "1.bmp").rename(tmp_path / "a" / "2.bmp")
    assert len({before, one, two, fingerprint("image", tmp_path)}) == 4


def test_contents_are_hashed_once_and_again_after_a_change(tmp_path, monkeypatch):
    make_tree(tmp_path, "image")
    monkeypatch.setattr(identity, "RACY_SECONDS", -1.0)
    read, hash_file = [], identity.hash_file
    monkeypatch.setattr(identity, "hash_file", lambda file, sampled: [read.append(file), hash_file(file, sampled)][1])
    assert fingerprint("image", tmp_path) == fingerprint("image", tmp_path) and len(read) == 4
    os.utime(tmp_path / "a" / "0.bmp")
    before = fingerprint("image", tmp_path)
    assert len(read) == 8
    time.sleep(0.05)  # longer than a tick of the file system's clock
    change_byte(tmp_path / "a" / "0.bmp")
    assert fingerprint("image", tmp_path) != before


def test_a_change_right_after_the_first_reading_is_noticed(tmp_path, monkeypatch):
    """Within the resolution of a file system's clock, so that all times stay the same."""
    make_tree(tmp_path, "image")
    now = time.time_ns()
    monkeypatch.setattr(identity, "safe_version", lambda _: (246, now, now, 1))
    prints = set()
    for _ in range(4):
        change_byte(tmp_path / "a" / "0.bmp", -1 - len(prints))
        prints.add(fingerprint("image", tmp_path))
    assert len(prints) == 4


def test_a_listing_reads_no_contents_before_its_fingerprint_is_needed(tmp_path, monkeypatch):
    make_tree(tmp_path, "image")
    monkeypatch.setattr(identity, "hash_contents", lambda *_: pytest.fail("contents were read"))
    listing = list_files((str(tmp_path),), IMAGE_SUFFIXES)
    assert len(ImageFiles(Image(size=(8, 8), patch=4), listing.paths, listing.known_fingerprint).classes) == 2


# archives


def make_tar(file: Path, classes: dict[str, str]) -> Path:
    """Write a tar of pictures with a label beside each, as webdataset does."""
    with tarfile.open(file, "w") as tar:
        for name, label in classes.items():
            for ending, content in ((".bmp", picture(0)), (".cls", label.encode())):
                member = tarfile.TarInfo(name + ending)
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    return file


def rewrite(file: Path, make) -> None:
    """Write a file anew in place with the old time."""
    status = file.stat()
    content = make(file.with_name("new")).read_bytes()
    assert len(content) == status.st_size
    file.write_bytes(content)
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    file.with_name("new").unlink()


def test_labels_in_a_tar_that_was_rewritten_with_its_old_time_are_read_again(tmp_path):
    file = make_tar(tmp_path / "x.tar", {"0": "cat", "1": "dog"})
    before = list_files((str(file),), IMAGE_SUFFIXES)
    rewrite(file, lambda new: make_tar(new, {"0": "dog", "1": "cat"}))
    now = list_files((str(file),), IMAGE_SUFFIXES)
    assert [path.split("/")[-2] for path in now.paths] == ["dog", "cat"]
    assert now.fingerprint != before.fingerprint


@pytest.mark.parametrize("give", ["archive", "folder"])
def test_a_tar_that_is_moved_keeps_its_fingerprint(tmp_path, give):
    file = make_tar(tmp_path / "x.tar", {"0": "cat", "1": "dog"})
    before = fingerprint("image", file if give == "archive" else tmp_path)
    (tmp_path / "new").mkdir()
    moved = file.rename(tmp_path / "new" / ("y.tar" if give == "archive" else "x.tar"))
    assert fingerprint("image", moved if give == "archive" else moved.parent) == before
    change_byte(moved, 600)
    assert fingerprint("image", moved if give == "archive" else moved.parent) != before


def test_rows_of_a_parquet_file_that_was_rewritten_with_its_old_time_are_read_again(tmp_path):
    arrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")

    def write(file: Path, seeds: tuple[int, ...]) -> Path:
        rows = [{"bytes": picture(seed), "path": f"{number}.bmp"} for number, seed in enumerate(seeds)]
        parquet.write_table(arrow.table({"image": rows}), file, compression="none", use_dictionary=False)
        return file

    file = write(tmp_path / "x.parquet", (1, 2))
    data = Image(root=(str(file),), size=(8, 8), patch=4)
    before, old = data.dataset(data.listing()).read(torch.arange(2), None).views[0], data.listing().fingerprint
    rewrite(file, lambda new: write(new, (2, 1)))
    now = data.dataset(data.listing()).read(torch.arange(2), None).views[0]
    assert (now == before.flip(0)).all() and data.listing().fingerprint != old


# pixels that changed in place


def test_packed_pixels_of_old_contents_are_not_used(tmp_path):
    make_tree(tmp_path / "x", "image")
    data = Image(root=(str(tmp_path / "x"),), size=(8, 8), patch=4)
    old = data.dataset(data.listing(), tmp_path / "cache").array.clone()
    change_byte(tmp_path / "x" / "a" / "0.bmp")
    new = data.dataset(data.listing(), tmp_path / "cache").array
    assert (old[0] != new[0]).any() and (old[1:] == new[1:]).all()


def test_features_belong_to_labels_too(tmp_path):
    """The same files with labels from elsewhere are other labeled data."""
    data = Image(root=(str(make_tree(tmp_path, "image")),), size=(8, 8), patch=4)
    one, other = data.dataset(data.listing()), data.dataset(data.listing())
    assert labeled_fingerprint(one) == labeled_fingerprint(other)
    other.file_classes = (one.classes, one.label.flip(0))
    assert labeled_fingerprint(one) != labeled_fingerprint(other)


# names of results and labels in tables


def measure(out: Path, root: Path | str, images: list[str], labels: str = "folders") -> str:
    """Write a file of results as jepa probe does, and return its name."""
    from openjepa.evaluation.result_files import ROOTS, absolute_roots

    labeled = LabeledData((str(root),), labels)
    out.mkdir(exist_ok=True)
    name = choose_name(out, labeled, images)
    write_scores(out / f"{name}.json", [], {ROOTS: absolute_roots(labeled.root), "about": {"images": images}})
    return name


def test_data_sets_whose_folders_share_a_name_keep_their_own_results(tmp_path):
    out = tmp_path / "probes"
    places = [tmp_path / each for each in ("a/test", "b/test", "b-test", "c/b/test", "a/TEST", "x/a-b-test")]
    for place in places:
        place.mkdir(parents=True)
    names = [measure(out, place, [str(number)]) for number, place in enumerate(places)]
    assert names[:2] == ["test", "b-test"] and len({each.casefold() for each in names}) == len(places)
    assert [measure(out, place, [str(number)]) for number, place in enumerate(places)] == names


@pytest.mark.parametrize("folder", ["x", "x" * 200])
def test_results_of_columns_with_slashes_and_of_each_split_are_files_of_one_folder(folder):
    table = LabeledData((f"/{folder}",), "labels.csv", label="finding/left", group="site/patient")
    splits = [table, dataclasses.replace(table, split="groups"), dataclasses.replace(table, split="groups", folds=3)]
    names = {list(possible_names(each))[-1] for each in splits}
    assert len(names) == 3 and not any("/" in name for name in names)


def test_a_data_set_that_moved_or_changed_keeps_the_name_of_its_results(tmp_path, monkeypatch):
    out, place = tmp_path / "probes", tmp_path / "a" / "test"
    place.mkdir(parents=True)
    (tmp_path / "link").symlink_to(place)
    assert measure(out, place, ["1"]) == "test"
    assert measure(out, tmp_path / "gone" / "elsewhere" / "test", ["1"]) == "test"  # moved
    assert measure(out, tmp_path / "link", ["2"]) == "link"  # named as given
    monkeypatch.chdir(tmp_path)
    out = tmp_path / "more"
    assert measure(out, "a/test/", ["1"]) == measure(out, f"{tmp_path}/a/../a/test", ["2"]) == "test"


def test_a_task_on_two_data_sets_has_results_of_both(tmp_path):
    names = [measure(tmp_path / "o", tmp_path / each, [each], "clevr-count") for each in ("one", "two")]
    assert names == ["clevr-count", "two-clevr-count"]


@pytest.mark.parametrize(
    ("root", "name"),
    [(("..",), None), (("/",), "data"), (("a/", "b/."), "a+b"), (("x.tar",), "x.tar"), ((), "data"), (("~",), None)],
)
def test_every_root_has_a_name_that_can_be_a_file(root, name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = LabeledData(root).name
    assert found not in ("", ".", "..") and "/" not in found and found == (name or found)


def test_a_name_too_long_for_a_file_is_cut_and_still_unique(tmp_path):
    names = [list(possible_names(LabeledData((f"/{place}/{'猫' * 80}",)))) for place in "ab"]
    for name in itertools.chain(*names):
        (tmp_path / f"{name}-head.safetensors").touch()
    assert set(names[0]).isdisjoint(names[1])


def test_results_of_two_weights_that_are_no_folders_are_apart():
    one, other = (results_folder(each, "probes") for each in ("hf:a/vit", "hf:b/vit"))
    assert one != other and one.parts[0] == "probes" and len(one.parts) == 2


@pytest.mark.parametrize(
    ("paths", "labels"),
    [
        (("a/exp", "b/exp"), ["a/exp", "b/exp"]),
        (("a/exp", "b/exp", "c/other"), ["a/exp", "b/exp", "other"]),
        (("x/a/exp/", "y/a/exp"), ["x/a/exp", "y/a/exp"]),
        (("runs/one", "runs/two"), ["one", "two"]),
    ],
)
def test_labels_are_the_shortest_paths_that_differ(paths, labels):
    assert distinct_labels(paths) == labels


def test_a_label_is_a_name_also_for_dots(tmp_path, monkeypatch):
    (tmp_path / "run").mkdir()
    monkeypatch.chdir(tmp_path / "run")
    assert distinct_labels([".", ".."]) == ["run", tmp_path.name]


# boards


@pytest.fixture
def inits(monkeypatch):
    """Stand in for the library of Weights & Biases; return the arguments of every init."""
    calls: list[dict] = []

    class Error(Exception):
        pass

    def init(**arguments):
        calls.append(arguments)
        if arguments["id"] == "deleted":
            raise Error("run deleted was previously created and deleted")

    module = type("wandb", (), {"init": staticmethod(init), "Error": Error})
    monkeypatch.setitem(sys.modules, "wandb", module)
    return calls


def test_runs_of_the_same_name_are_two_at_weights_and_biases(inits, tmp_path, monkeypatch):
    from openjepa.training.log import WandB

    names = ["exp", "exp", "lr=0.1:b#2%?", "x\\y", os.fsdecode(b"\xff")]
    folders = [tmp_path / str(number) / name for number, name in enumerate(names)]
    for folder in folders:
        folder.mkdir(parents=True)
        WandB(folder)
    ids = [each["id"] for each in inits]
    assert len(set(ids)) == len(ids) and all(each.isalnum() for each in ids)
    assert [each["name"] for each in inits][:4] == names[:4]
    moved = folders[0].rename(tmp_path / "moved")
    monkeypatch.chdir(moved)
    WandB(Path())
    assert inits[-1]["id"] == ids[0] and inits[-1]["name"] == "moved"


def test_a_run_of_an_earlier_version_keeps_its_id_at_weights_and_biases(inits, tmp_path):
    from openjepa.training.log import WandB

    (tmp_path / "exp" / "wandb" / "run-20240101_120000-exp").mkdir(parents=True)
    WandB(tmp_path / "exp")
    assert inits[0]["id"] == "exp"


def test_a_run_that_was_deleted_at_weights_and_biases_says_what_to_remove(inits, tmp_path):
    from openjepa.training.log import WandB

    (tmp_path / "wandb.json").write_text('{"id": "deleted"}')
    with pytest.raises(UserError, match="previously created and deleted.*remove .*wandb.json"):
        WandB(tmp_path)
    (tmp_path / "wandb.json").unlink()
    WandB(tmp_path)
    assert inits[-1]["id"] != "deleted"


# empty paths


@pytest.mark.parametrize(
    "arguments",
    [
        ["pretrain", "--data.root", ""],
        ["pretrain", "--data.root="],
        ["pretrain", "--data.root", "photos", ""],
        ["pretrain", "--data.root", "photos", "--out", ""],
        ["pretrain", "--online-probe.root", " "],
        ["pretrain", "--init-from="],
        ["bench", "--data.root", ""],
        ["doctor", ""],
        ["shards", "photos", ""],
        ["probe", ".", "--encoder", "", "--data.root", ""],
        ["probe", "", "--data.root", "x"],
        ["compare", "a", ""],
        ["suite", "run", "--out", ""],
        ["predict", "run", ""],
        ["show", "", "x"],
        ["show", "curves", ""],
        ["report", ""],
        ["embed", "run", "", "--out", "x.npy"],
        ["search", "x.npy", ""],
        ["cluster", ""],
        ["decoder", "train", ""],
        ["export", ""],
        ["convert", "", "--out", "x"],
        ["push", "", "a/b"],
    ],
    ids=" ".join,
)
def test_an_empty_path_is_refused(arguments, tmp_path, monkeypatch, capsys):
    from openjepa.cli.main import main

    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.png").write_bytes(png())
    assert main(arguments) == 1
    assert "is empty: give a path" in capsys.readouterr().err and len(list(tmp_path.iterdir())) == 1


def test_an_empty_root_is_refused_in_python_too():
    with pytest.raises(UserError, match=r"--data\.root is empty"):
        Image(root=("",)).listing()
    with pytest.raises(UserError, match=r"--data\.root is empty"):
        LabeledData(("",))


def test_settings_that_are_no_paths_may_be_empty():
    from openjepa.cli.settings import DECODER_ACTIONS, SETTINGS
    from openjepa.core.arguments import MAY_BE_EMPTY, check_no_path_is_empty

    plain = {
        each.name
        for cls in (*SETTINGS.values(), *DECODER_ACTIONS.values())
        for each in dataclasses.fields(cls)
        if each.default == "" and (cls, each.name) != (SETTINGS["search"], "run")
    }
    assert plain == set(MAY_BE_EMPTY)
    check_no_path_is_empty(["pretrain", "--budget", "", "--method.note", "", "--license="])
