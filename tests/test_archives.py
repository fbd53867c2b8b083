"""Images in tar and Parquet files: the run equals that on the folder; damage is noticed; nothing is extracted."""

import io
import json
import os
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image as Pillow

from openjepa.cli.doctor import doctor
from openjepa.cli.main import main
from openjepa.cli.pretrain import pretrain
from openjepa.cli.settings import Doctor
from openjepa.cli.shards import shards as make_shards
from openjepa.core.errors import UserError
from openjepa.core.fileio import file_version
from openjepa.data import archives, image_io
from openjepa.data import shards as shards_module
from openjepa.data.archives import FORMAT, SHARDS_FILE, label_folder, parse_address
from openjepa.data.image_files import ImageFiles
from openjepa.data.image_io import IMAGE_SUFFIXES, ORIENTATION, Undecodable, read_bytes
from openjepa.data.listing import list_files
from openjepa.data.settings import Shards
from openjepa.data.shards import write_shard
from openjepa.data.synthetic.scenes import render
from openjepa.evaluation.labeled import split_labeled
from openjepa.evaluation.settings import LabeledData
from openjepa.modalities.image import Image
from openjepa.training.checkpoint import load_newest
from tests.conftest import MODALITIES, replace, slow


def add_member(tar: tarfile.TarFile, name: str, content: bytes, **changes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    for field, value in changes.items():
        setattr(member, field, value)
    tar.addfile(member, io.BytesIO(content))


def write_tar(file: Path, members: dict[str, bytes], **options) -> Path:
    with tarfile.open(file, "w", **options) as tar:
        for name, content in members.items():
            add_member(tar, name, content)
    return file


def jpeg(seed: int, size=(40, 56)) -> bytes:
    stream = io.BytesIO()
    Pillow.fromarray(render(1, size, seed=seed).image[0].permute(1, 2, 0).numpy()).save(stream, "JPEG")
    return stream.getvalue()


def list_paths(*roots) -> list[str]:
    return list_files([str(root) for root in roots], IMAGE_SUFFIXES).paths


def read_all(*roots) -> list[bytes]:
    return [read_bytes(path) for path in list_paths(*roots)]


@pytest.fixture
def photos_folder(tmp_path) -> Path:
    """Forty images in two folders, too large to be packed for a run; one file is not an image."""
    for number in range(40):
        folder = tmp_path / "photos_folder" / ("cats", "dogs")[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"a.{number:02d}.jpg").write_bytes(jpeg(number, (104, 120)) if number != 7 else b"not an image")
    return tmp_path / "photos_folder"


def test_a_run_on_shards_equals_the_run_on_the_folder_bit_for_bit(tiny, photos_folder, tmp_path):
    shards = make_shards(Shards(str(photos_folder), tmp_path / "shards", samples=12, workers=1))
    assert len(list(shards.glob("*.tar"))) == 4
    ends = []
    for root in (photos_folder, shards):
        settings = replace(
            tiny, data=replace(tiny.data, root=(str(root),)), out=tmp_path / f"run-{root.name}", max_skipped=0.5
        )
        pretrain(settings)
        ends.append(load_newest(settings.out / "checkpoints").model)
        assert (
            "cannot" not in (settings.out / "skipped.jsonl").read_text()
            and (settings.out / "skipped.jsonl").read_text()
        )
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0] | ends[1])


@slow
def test_a_run_on_shards_with_workers_equals_one_without(tiny, photos_folder, tmp_path):
    shards = make_shards(Shards(str(photos_folder), tmp_path / "shards", samples=12, workers=2))
    settings = replace(tiny, data=replace(tiny.data, root=(str(shards),)), max_skipped=0.5)
    pretrain(settings)
    pretrain(replace(settings, workers=2, out=tmp_path / "two"))
    ends = [load_newest(out / "checkpoints").model for out in (settings.out, tmp_path / "two")]
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])


def test_member_names_keep_folders_and_lose_dots(photos_folder, tmp_path):
    shards = make_shards(Shards(str(photos_folder), tmp_path / "shards", samples=100, workers=1))
    paths = list_paths(shards)
    assert len(paths) == 40 and paths[0].endswith("/cats/a_00.jpg") and paths[-1].endswith("/dogs/a_39.jpg")
    files = ImageFiles(Image(), paths, "")
    assert files.classes == ("cats", "dogs") and files.label.tolist() == [0] * 20 + [1] * 20
    with tarfile.open(next(shards.glob("*.tar"))) as tar:  # as other software reads it
        assert [member.name for member in tar][:2] == ["cats/a_00.jpg", "cats/a_02.jpg"]


def test_every_image_has_its_own_webdataset_key(tmp_path):
    """webdataset groups names with the same text before the first dot into one sample."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for name in ("a.b.jpg", "a_b.jpg", "a_b.png", "a_b-2.jpg"):
        (folder / name).write_bytes(jpeg(len(name)))
    names = [Path(path).name for path in list_paths(make_shards(Shards(str(folder), tmp_path / "shards", workers=1)))]
    assert len({name.split(".")[0] for name in names}) == 4


def test_larger_images_are_resized_and_others_copied_unchanged(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    (folder / "a.jpg").write_bytes(jpeg(0, (200, 300)))
    (folder / "b.jpg").write_bytes(small := jpeg(1, (40, 64)))
    (folder / "c.jpg").write_bytes(b"damaged")
    gray = Pillow.fromarray(np.full((90, 80), 99, np.uint8))
    gray.save(folder / "d.png")
    exif = Pillow.Exif()
    exif[ORIENTATION] = 6
    Pillow.open(io.BytesIO(jpeg(2, (100, 200)))).save(folder / "e.jpg", exif=exif)
    shards = make_shards(Shards(str(folder), tmp_path / "shards", size=64, workers=1))
    first, second, third, fourth, fifth = read_all(shards)
    assert Pillow.open(io.BytesIO(first)).size == (96, 64)
    assert second == small and third == b"damaged"
    assert Pillow.open(io.BytesIO(fourth)).mode == "L" and Pillow.open(io.BytesIO(fourth)).size == (64, 72)
    assert Pillow.open(io.BytesIO(fifth)).size == (64, 128) and not Pillow.open(io.BytesIO(fifth)).getexif()
    assert [Path(path).suffix for path in list_paths(shards)] == [".jpg", ".jpg", ".jpg", ".jpg", ".jpg"]


def test_an_interrupted_shards_command_resumes(photos_folder, tmp_path, monkeypatch):
    settings = Shards(str(photos_folder), tmp_path / "shards", samples=10, workers=1)
    whole = make_shards(settings)
    before = {file.name: file.read_bytes() for file in whole.glob("*.tar")}
    (whole / "shards-000001.tar").unlink()
    (whole / ".shards-000001.tar.123").write_bytes(b"half a file")
    written = []
    monkeypatch.setattr(
        shards_module, "write_shard", lambda shard, write=write_shard: written.append(shard.file.name) or write(shard)
    )
    make_shards(settings)
    assert written == ["shards-000001.tar"]
    assert {file.name: file.read_bytes() for file in whole.glob("*.tar")} == before
    assert not list(whole.glob(".*.tar.[0-9]*"))


@pytest.mark.parametrize("kills", [1, pytest.param(2, marks=slow)])
def test_shards_killed_at_any_time_are_complete_or_absent(kills, photos_folder, tmp_path):
    command = [
        sys.executable,
        "-m",
        "openjepa",
        "shards",
        str(photos_folder),
        str(tmp_path / "shards"),
        "--samples",
        "2",
    ]
    expected = make_shards(Shards(str(photos_folder), tmp_path / "whole" / "shards", samples=2, workers=1))
    for _ in range(kills):
        process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        )
        until = time.monotonic() + 60
        before = len(list((tmp_path / "shards").glob("*.tar")))
        while len(list((tmp_path / "shards").glob("*.tar"))) == before and process.poll() is None:
            assert time.monotonic() < until
            time.sleep(0.005)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    assert subprocess.run(command, capture_output=True, timeout=120).returncode == 0
    uninterrupted, resumed = (
        {file.name: file.read_bytes() for file in folder.glob("*.tar")} for folder in (expected, tmp_path / "shards")
    )
    assert uninterrupted == resumed and len(resumed) == 20


def test_shards_of_other_data_or_settings_are_refused(photos_folder, tmp_path):
    make_shards(Shards(str(photos_folder), tmp_path / "shards", workers=1))
    with pytest.raises(UserError, match="holds shards with a different size and quality: choose another output folder"):
        make_shards(Shards(str(photos_folder), tmp_path / "shards", size=64, workers=1))
    (photos_folder / "cats" / "new.jpg").write_bytes(jpeg(99))
    with pytest.raises(UserError, match="with a different data and count"):
        make_shards(Shards(str(photos_folder), tmp_path / "shards", workers=1))


def test_an_archive_is_scanned_once(tmp_path, monkeypatch):
    file = write_tar(tmp_path / "a.tar", {"x/1.jpg": jpeg(1), "x/2.jpg": jpeg(2)})
    first = list_paths(file)
    monkeypatch.setattr(archives, "list_tar_files", None)
    assert list_paths(file) == first
    monkeypatch.undo()
    write_tar(file, {"x/1.jpg": jpeg(3)})
    assert len(list_paths(file)) == 1


@pytest.mark.parametrize(
    "index",
    ["", "{", "[]", '{"format": 1}', '{"members": 3}', '{"members": [[1, 2]]}', '{"members": [[-1, 2, 3, "x.jpg"]]}',
     '{"members": [[1, 1e999, 3, "x.jpg"]]}', '{"members": [[true, 2, 3, "x.jpg"]]}', '{"members": [[1, 2, 3, ""]]}'],
)  # fmt: skip
def test_a_damaged_index_is_rebuilt(tmp_path, index):
    file = write_tar(tmp_path / "a.tar", {"1.jpg": jpeg(1)})
    if index.startswith('{"members"'):
        index = f'{{"format": {FORMAT}, "version": {list(file_version(file))}, {index[1:]}'
    (tmp_path / ".a.tar.index").write_text(index)
    assert read_all(file) == [jpeg(1)]


def test_an_archive_in_a_read_only_folder_is_read_without_an_index(tmp_path, monkeypatch, capsys):
    file = write_tar(tmp_path / "a.tar", {"1.jpg": jpeg(1)})

    class RefusingWriter:
        def __init__(self, file):
            raise OSError(30, "Read-only file system")

    monkeypatch.setattr(archives, "atomic_write", RefusingWriter)
    assert read_all(file) == [jpeg(1)]
    assert "will be scanned again every time" in capsys.readouterr().err


def test_a_folder_with_loose_images_ignores_its_archives(tmp_path):
    write_tar(tmp_path / "a.tar", {"1.jpg": jpeg(1)})
    assert len(list_paths(tmp_path)) == 1
    (tmp_path / "loose.jpg").write_bytes(jpeg(2))
    assert list_paths(tmp_path) == [str(tmp_path / "loose.jpg")]
    assert len(list_paths(tmp_path, tmp_path / "a.tar")) == 2


def test_a_text_file_can_list_archives(tmp_path):
    write_tar(tmp_path / "b.tar", {"1.jpg": jpeg(1)})
    write_tar(tmp_path / "a.tar", {"2.jpg": jpeg(2)})
    (tmp_path / "list.txt").write_text("b.tar\na.tar\n")
    assert read_all(tmp_path / "list.txt") == [jpeg(2), jpeg(1)]  # sorted


def test_names_in_shards_do_not_escape_the_folder_when_extracted(tmp_path):
    file = write_tar(tmp_path / "a.tar", {"../../a.jpg": jpeg(1), "/b.jpg": jpeg(2), "c/../d.jpg": jpeg(3)})
    shards = make_shards(Shards(str(file), tmp_path / "shards", workers=1))
    with tarfile.open(next(shards.glob("*.tar"))) as tar:
        assert tar.getnames() == ["a.jpg", "b.jpg", "c/d.jpg"]


def test_an_image_too_long_for_jpeg_is_copied_unchanged(tmp_path):
    (tmp_path / "photos").mkdir()
    Pillow.new("RGB", (70_000, 20)).save(tmp_path / "photos" / "long.png")
    shards = make_shards(Shards(str(tmp_path / "photos"), tmp_path / "shards", size=19, workers=1))
    assert read_all(shards) == [(tmp_path / "photos" / "long.png").read_bytes()]


def test_webdataset_labels_become_folders(tmp_path):
    file = write_tar(
        tmp_path / "a.tar", {"k1.jpg": jpeg(1), "k1.cls": b"12\n", "k1.json": b"{}", "k2.cls": b"7", "k2.jpg": jpeg(2)}
    )
    assert [label_folder(path) for path in list_paths(file)] == ["12", "7"]


def test_images_without_a_folder_get_the_folder_of_their_archive(tmp_path):
    folder = tmp_path / "birds"
    folder.mkdir()
    file = write_tar(folder / "a.tar", {"1.jpg": jpeg(1), "2.jpg": jpeg(2)})
    assert ImageFiles(Image(), list_paths(file), "").classes == ("birds",)


NAMES = [
    "../../etc/passwd.jpg",
    "/absolute.jpg",
    "x" * 300 + ".jpg",
    "a\nb.jpg",
    "b.tar/1+2/c.jpg",
    "ü/ß.jpg",
    "dots...jpg",
]


def test_hidden_members_are_left_out(tmp_path):
    """macOS writes ._NAME beside every file."""
    names = ["./._a.jpg", "./a.jpg", ".b.jpg", "x/.jpg"]
    file = write_tar(tmp_path / "a.tar", {name: jpeg(number) for number, name in enumerate(names)} | {"a.cls": b"7"})
    assert read_all(file) == [jpeg(1)]


@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_hostile_names_read_and_write_nothing_outside_the_archive(tmp_path, form):
    """A name never changes which bytes are read; only the index is written."""
    file = write_tar(tmp_path / "a.tar", {name: jpeg(number) for number, name in enumerate(NAMES)}, format=form)
    before = set(tmp_path.rglob("*"))
    assert read_all(file) == [jpeg(number) for number in range(len(NAMES))]
    assert set(tmp_path.rglob("*")) - before == {tmp_path / ".a.tar.index"}


def test_links_and_devices_are_ignored_and_the_later_duplicate_counts(tmp_path):
    file = tmp_path / "a.tar"
    with tarfile.open(file, "w") as tar:
        add_member(tar, "one.jpg", jpeg(1))
        add_member(tar, "two.jpg", b"", type=tarfile.SYMTYPE, linkname="/etc/passwd")
        add_member(tar, "three.jpg", b"", type=tarfile.LNKTYPE, linkname="one.jpg")
        add_member(tar, "four.jpg", b"", type=tarfile.CHRTYPE)
        add_member(tar, "five.jpg", b"", type=tarfile.FIFOTYPE)
        add_member(tar, "folder.jpg", b"", type=tarfile.DIRTYPE)
        add_member(tar, "one.jpg", jpeg(2))
    assert read_all(file) == [jpeg(2)]


def test_a_truncated_or_damaged_tar_is_refused(tmp_path):
    file = write_tar(tmp_path / "a.tar", {f"{number}.jpg": jpeg(number) for number in range(4)})
    whole = file.read_bytes()
    ends = [address.first + address.second for address in map(parse_address, list_paths(file)) if address]
    blocks = {-(-end // 512) * 512 for end in ends}
    refused = 0
    for size in range(1, ends[-1], 97):
        if size not in blocks:
            file.write_bytes(whole[:size])
            with pytest.raises(UserError, match=r"copy or create it again|no images"):
                list_paths(file)
            refused += 1
    assert refused > 20
    for position in (
        ends[1] // 512 * 512 + 512 + 5,
        ends[0] // 512 * 512 + 512 + 130,
    ):  # in the headers of the third and the second member
        damaged = bytearray(whole)
        damaged[position] ^= 0xFF
        file.write_bytes(damaged)
        with pytest.raises(UserError, match="damaged at byte|not a complete tar"):
            list_paths(file)


def test_an_archive_changed_during_a_run_is_noticed(tmp_path, monkeypatch):
    monkeypatch.setattr(image_io.time, "sleep", lambda _: None)
    file = write_tar(tmp_path / "a.tar", {"1.jpg": jpeg(1), "2.jpg": jpeg(2)})
    second = list_paths(file)[1]
    write_tar(file, {"1.jpg": jpeg(1, (90, 90)), "2.jpg": jpeg(2)})
    with pytest.raises(OSError, match=r"cannot be read \(.* has changed since it was listed\)"):
        read_bytes(second)
    write_tar(file, {"1.jpg": jpeg(1), "2.jpg": jpeg(2) + b"longer"})
    with pytest.raises(OSError, match="starts another member: the archive has changed since it was listed"):
        read_bytes(second)
    file.unlink()
    with pytest.raises(OSError, match="No such file"):
        read_bytes(second)


def test_an_address_cannot_point_outside_its_archive(tmp_path, monkeypatch):
    """A forged index can name bytes of its own archive and nothing else."""
    monkeypatch.setattr(image_io.time, "sleep", lambda _: None)
    file = write_tar(tmp_path / "a.tar", {"1.jpg": jpeg(1)})
    members = [[512, 10**17, 5, "huge.jpg"], [4, 100, 5, "../../../etc/passwd.jpg"], [10**15, 4, 4, "far.jpg"]]
    (tmp_path / ".a.tar.index").write_text(
        json.dumps({"format": FORMAT, "version": list(file_version(file)), "members": members})
    )
    huge, passwd, far = list_paths(file)
    with pytest.raises(Undecodable, match="larger than 512 MiB"):
        read_bytes(huge)
    for path in (passwd, far):
        with pytest.raises(OSError, match="has changed since"):
            read_bytes(path)


def test_a_compressed_tar_is_refused_with_advice(tmp_path):
    file = write_tar(tmp_path / "a.tar", {"1.jpg": jpeg(1)})
    file.rename(tmp_path / "a.tar.gz")
    with pytest.raises(UserError, match="compressed, .* decompress it to a .tar file"):
        list_paths(tmp_path / "a.tar.gz")


def test_sparse_members_are_refused(tmp_path):
    file = tmp_path / "a.tar"
    with tarfile.open(file, "w", format=tarfile.PAX_FORMAT) as tar:
        add_member(
            tar,
            "1.jpg",
            b"1\n0\n5\n" + bytes(506) + b"12345",
            pax_headers={"GNU.sparse.major": "1", "GNU.sparse.minor": "0"},
        )
    with pytest.raises(UserError, match="holds the sparse file"):
        list_paths(file)


def test_a_damaged_shard_is_written_again(photos_folder, tmp_path):
    settings = Shards(str(photos_folder), tmp_path / "shards", samples=10, workers=1)
    whole = (make_shards(settings) / "shards-000001.tar").read_bytes()
    (tmp_path / "shards" / "shards-000001.tar").write_bytes(whole[: len(whole) // 2])
    make_shards(settings)
    assert (tmp_path / "shards" / "shards-000001.tar").read_bytes() == whole


def test_unfinished_shards_are_refused(photos_folder, tmp_path):
    settings = Shards(str(photos_folder), tmp_path / "shards", samples=10, workers=1)
    (make_shards(settings) / "shards-000002.tar").unlink()
    with pytest.raises(UserError, match="3 of 4 tar files: run the same jepa shards command again"):
        list_paths(tmp_path / "shards")
    (tmp_path / "shards" / SHARDS_FILE).write_text('{"count": "many"}')
    with pytest.raises(UserError, match=r"shards.json is damaged"):
        list_paths(tmp_path / "shards")


@pytest.mark.parametrize("folder", [".", "cats", "new", "../others"])
def test_shards_are_not_written_among_images(photos_folder, tmp_path, folder):
    (tmp_path / "others").mkdir()
    (tmp_path / "others" / "a.jpg").write_bytes(jpeg(1))
    with pytest.raises(UserError, match="is among images"):
        make_shards(Shards(str(photos_folder), photos_folder / folder, workers=1))


def test_doctor_counts_unread_archives_only(photos_folder, tmp_path, capsys):
    shards = make_shards(Shards(str(photos_folder), tmp_path / "shards", workers=1))
    doctor(Doctor((str(shards),), out=tmp_path / "doctor", workers=1))
    assert "39 of 40" in (output := capsys.readouterr().out) and "left out" not in output
    write_tar(photos_folder / "a.tar", {"1.jpg": jpeg(1)})
    doctor(Doctor((str(photos_folder),), out=tmp_path / "doctor", workers=1))
    assert "left out   other files: 1 .tar" in capsys.readouterr().out


def test_shards_without_an_output_folder_are_refused(capsys):
    with pytest.raises(SystemExit):
        main(["shards", "FOLDER"])
    assert "OUT" in capsys.readouterr().err


parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed: pip install 'openjepa[parquet]'")
arrow = pytest.importorskip("pyarrow")
HUGGINGFACE = {
    "info": {"features": {"image": {"_type": "Image"}, "label": {"names": ["cat", "dog/wolf"], "_type": "ClassLabel"}}}
}


def table(count: int, metadata: bool = True, names: bool = True) -> "arrow.Table":
    cells = [{"bytes": jpeg(number), "path": f"{number}.jpg" if names else None} for number in range(count)]
    result = arrow.table({"image": cells, "label": [number % 2 for number in range(count)]})
    return result.replace_schema_metadata({"huggingface": json.dumps(HUGGINGFACE)}) if metadata else result


@pytest.fixture
def rows(tmp_path) -> Path:
    parquet.write_table(table(10), tmp_path / "train.parquet", row_group_size=4)
    return tmp_path / "train.parquet"


def test_parquet_rows_are_read_in_any_order_with_their_labels(rows):
    paths = list_paths(rows)
    assert [read_bytes(path) for path in reversed(paths)] == [jpeg(number) for number in reversed(range(10))]
    assert paths[5] == f"{rows}/1+1/dog-wolf/5.jpg"
    assert ImageFiles(Image(), paths, "").classes == ("cat", "dog-wolf")


def test_parquet_without_metadata_or_names_is_read(tmp_path):
    parquet.write_table(table(3, metadata=False, names=False), tmp_path / "a.parquet")
    assert read_all(tmp_path) == [jpeg(number) for number in range(3)]
    assert list_paths(tmp_path)[1].endswith("a.parquet/0+1/1/0-1")


def test_a_column_of_plain_bytes_is_read(tmp_path):
    parquet.write_table(arrow.table({"jpg": [jpeg(0), None]}), tmp_path / "a.parquet")
    assert read_all(tmp_path) == [jpeg(0), b""]


def test_shards_of_a_parquet_file_hold_its_images(rows, tmp_path):
    shards = make_shards(Shards(str(rows), tmp_path / "shards", samples=3, workers=1))
    assert read_all(shards) == [jpeg(number) for number in range(10)]
    assert list_paths(shards)[5].endswith("/dog-wolf/5.jpg")


def test_parquet_rows_without_names_get_readable_names_in_shards(tmp_path):
    cells = [{"bytes": jpeg(number) if number != 2 else None, "path": None} for number in range(4)]
    parquet.write_table(arrow.table({"image": cells}), tmp_path / "a.parquet")
    shards = make_shards(Shards(str(tmp_path / "a.parquet"), tmp_path / "shards", workers=1))
    assert read_all(shards) == [jpeg(0), jpeg(1), b"", jpeg(3)]
    assert list_paths(shards)[0].endswith(".jpeg")


def test_train_and_test_split_by_the_names_of_parquet_files(tmp_path):
    for name, count in (("train-00000-of-00001", 8), ("test-00000-of-00001", 4)):
        parquet.write_table(table(count), tmp_path / f"{name}.parquet")
    parts = split_labeled(replace(MODALITIES["image"], mean=(0.5,) * 3), LabeledData((str(tmp_path),)), 0)
    assert (len(parts.train), len(parts.test), parts.how) == (8, 4, "test-*")


def test_a_run_on_parquet_equals_the_run_on_its_images(tiny, tmp_path):
    parquet.write_table(table(20), tmp_path / "a.parquet", row_group_size=7)
    (tmp_path / "files").mkdir()
    for number in range(20):
        (tmp_path / "files" / f"{number:02d}.jpg").write_bytes(jpeg(number))
    ends = []
    for name in ("a.parquet", "files"):
        settings = replace(
            tiny, steps=2, data=replace(tiny.data, root=(str(tmp_path / name),)), out=tmp_path / f"run {name}"
        )
        pretrain(settings)
        ends.append(load_newest(settings.out / "checkpoints").model)
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0] | ends[1])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not a complete Parquet file"),
        (b"PAR1 nothing PAR1", "not a complete Parquet file"),
        (None, "no image column"),
    ],
)
def test_a_file_that_is_not_parquet_or_has_no_images_is_refused(tmp_path, content, message):
    file = tmp_path / "a.parquet"
    if content is None:
        parquet.write_table(arrow.table({"text": ["a", "b"]}), file)
    else:
        file.write_bytes(content)
    with pytest.raises(UserError, match=message):
        list_paths(file)


def test_damaged_parquet_data_raises_a_readable_error(rows, monkeypatch):
    monkeypatch.setattr(image_io.time, "sleep", lambda _: None)
    paths, whole = list_paths(rows), rows.read_bytes()
    messages = []
    for position in range(8, len(whole) // 2, len(whole) // 40):
        damaged = bytearray(whole)
        damaged[position : position + 30] = os.urandom(30)
        rows.write_bytes(damaged)
        os.utime(rows, ns=(position, position))
        for path in paths:
            try:
                read_bytes(path)
            except (OSError, UserError) as error:
                messages.append(str(error))
    assert all("Parquet" in each or "cannot be read" in each for each in messages)


def test_without_pyarrow_the_error_says_what_to_install(rows, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(UserError, match=r"pip install 'openjepa\[parquet\]'"):
        list_paths(rows)


def test_the_fingerprint_that_earlier_versions_recorded_can_be_computed(photos):
    """Otherwise older runs could not resume."""
    import hashlib

    paths = list_paths(photos)
    old = hashlib.sha256("\0".join(f"{path}\0{Path(path).stat().st_size}" for path in paths).encode()).hexdigest()[:32]
    assert list_files([str(photos)], IMAGE_SUFFIXES).earlier([str(photos)]) == old
