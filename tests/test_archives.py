"""Pictures in tar and Parquet files: the same run as on the folder, random access, damage noticed, nothing extracted."""

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

from openjepa.cli.doctor import Doctor, doctor
from openjepa.cli.main import main
from openjepa.cli.pretrain import pretrain
from openjepa.cli.shards import make_shards
from openjepa.core.errors import UserError
from openjepa.data import archives
from openjepa.data import image_io as pictures
from openjepa.data import shards as archiving
from openjepa.data.archives import SHARDS_FILE, label_folder, parse_address
from openjepa.data.image_files import ImageFiles
from openjepa.data.image_io import IMAGE_SUFFIXES, ORIENTATION, Undecodable, read_bytes
from openjepa.data.listing import list_files
from openjepa.data.shards import Shards, write_shard
from openjepa.data.synthetic.scenes import render
from openjepa.evaluation.labeled import LabeledData, split_labeled
from openjepa.modalities.image import Image
from openjepa.training.checkpoint import load_newest
from tests.conftest import MODALITIES, replace


def put(tar: tarfile.TarFile, name: str, content: bytes, **changes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    for field, value in changes.items():
        setattr(member, field, value)
    tar.addfile(member, io.BytesIO(content))


def packed(file: Path, members: dict[str, bytes], **options) -> Path:
    with tarfile.open(file, "w", **options) as tar:
        for name, content in members.items():
            put(tar, name, content)
    return file


def jpeg(seed: int, size=(40, 56)) -> bytes:
    stream = io.BytesIO()
    Pillow.fromarray(render(1, size, seed=seed).image[0].permute(1, 2, 0).numpy()).save(stream, "JPEG")
    return stream.getvalue()


def listed(*roots) -> list[str]:
    return list_files([str(root) for root in roots], IMAGE_SUFFIXES).paths


def contents(*roots) -> list[bytes]:
    return [read_bytes(path) for path in listed(*roots)]


@pytest.fixture
def large(tmp_path) -> Path:
    """Forty pictures in two folders, too large to be packed for a run; one is no picture."""
    for number in range(40):
        folder = tmp_path / "large" / ("cats", "dogs")[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"a.{number:02d}.jpg").write_bytes(jpeg(number, (104, 120)) if number != 7 else b"no picture")
    return tmp_path / "large"


def test_a_run_on_shards_is_the_run_on_the_folder_bit_for_bit(tiny, large, tmp_path):
    shards = make_shards(Shards(str(large), tmp_path / "shards", samples=12, workers=1))
    assert len(list(shards.glob("*.tar"))) == 4
    ends = []
    for root in (large, shards):
        own = replace(
            tiny, data=replace(tiny.data, root=(str(root),)), out=tmp_path / f"run-{root.name}", max_skipped=0.5
        )
        pretrain(own)
        ends.append(load_newest(own.out / "checkpoints").model)
        assert "cannot" not in (own.out / "skipped.jsonl").read_text() and (own.out / "skipped.jsonl").read_text()
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0] | ends[1])


def test_a_run_on_shards_may_have_workers(tiny, large, tmp_path):
    shards = make_shards(Shards(str(large), tmp_path / "shards", samples=12, workers=2))
    own = replace(tiny, data=replace(tiny.data, root=(str(shards),)), max_skipped=0.5)
    pretrain(own)
    pretrain(replace(own, workers=2, out=tmp_path / "two"))
    ends = [load_newest(out / "checkpoints").model for out in (own.out, tmp_path / "two")]
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])


def test_names_keep_their_folders_and_lose_their_dots(large, tmp_path):
    shards = make_shards(Shards(str(large), tmp_path / "shards", samples=100, workers=1))
    paths = listed(shards)
    assert len(paths) == 40 and paths[0].endswith("/cats/a_00.jpg") and paths[-1].endswith("/dogs/a_39.jpg")
    files = ImageFiles(Image(), paths, "")
    assert files.classes == ("cats", "dogs") and files.label.tolist() == [0] * 20 + [1] * 20
    with tarfile.open(next(shards.glob("*.tar"))) as tar:  # as anybody else reads it
        assert [member.name for member in tar][:2] == ["cats/a_00.jpg", "cats/a_02.jpg"]


def test_no_two_pictures_bear_one_key(tmp_path):
    """webdataset takes what is alike up to the first dot for one sample."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for name in ("a.b.jpg", "a_b.jpg", "a_b.png", "a_b-2.jpg"):
        (folder / name).write_bytes(jpeg(len(name)))
    names = [Path(path).name for path in listed(make_shards(Shards(str(folder), tmp_path / "shards", workers=1)))]
    assert len({name.split(".")[0] for name in names}) == 4


def test_larger_pictures_are_made_smaller_and_others_left(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    (folder / "a.jpg").write_bytes(jpeg(0, (200, 300)))
    (folder / "b.jpg").write_bytes(small := jpeg(1, (40, 64)))
    (folder / "c.jpg").write_bytes(b"damaged")
    grey = Pillow.fromarray(np.full((90, 80), 99, np.uint8))
    grey.save(folder / "d.png")
    turned = Pillow.Exif()
    turned[ORIENTATION] = 6
    Pillow.open(io.BytesIO(jpeg(2, (100, 200)))).save(folder / "e.jpg", exif=turned)
    shards = make_shards(Shards(str(folder), tmp_path / "shards", size=64, workers=1))
    first, second, third, fourth, fifth = contents(shards)
    assert Pillow.open(io.BytesIO(first)).size == (96, 64)
    assert second == small and third == b"damaged"
    assert Pillow.open(io.BytesIO(fourth)).mode == "L" and Pillow.open(io.BytesIO(fourth)).size == (64, 72)
    assert Pillow.open(io.BytesIO(fifth)).size == (64, 128) and not Pillow.open(io.BytesIO(fifth)).getexif()
    assert [Path(path).suffix for path in listed(shards)] == [".jpg", ".jpg", ".jpg", ".jpg", ".jpg"]


def test_shards_go_on_where_they_were_left(large, tmp_path, monkeypatch):
    settings = Shards(str(large), tmp_path / "shards", samples=10, workers=1)
    whole = make_shards(settings)
    before = {file.name: file.read_bytes() for file in whole.glob("*.tar")}
    (whole / "shards-000001.tar").unlink()
    (whole / ".shards-000001.tar.123").write_bytes(b"half a file")
    written = []
    monkeypatch.setattr(
        archiving, "write_shard", lambda shard, own=write_shard: written.append(shard.file.name) or own(shard)
    )
    make_shards(settings)
    assert written == ["shards-000001.tar"]
    assert {file.name: file.read_bytes() for file in whole.glob("*.tar")} == before
    assert not list(whole.glob(".*.tar.[0-9]*"))


def test_shards_killed_at_any_time_are_whole_or_not_there(large, tmp_path):
    command = [
        sys.executable,
        "-m",
        "openjepa",
        "shards",
        str(large),
        str(tmp_path / "shards"),
        "--samples",
        "2",
    ]
    expected = make_shards(Shards(str(large), tmp_path / "whole" / "shards", samples=2, workers=1))
    for _ in range(2):
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
    theirs, mine = (
        {file.name: file.read_bytes() for file in folder.glob("*.tar")} for folder in (expected, tmp_path / "shards")
    )
    assert theirs == mine and len(mine) == 20


def test_other_shards_are_never_mixed(large, tmp_path):
    make_shards(Shards(str(large), tmp_path / "shards", workers=1))
    with pytest.raises(UserError, match="holds shards of other size and quality: give another folder"):
        make_shards(Shards(str(large), tmp_path / "shards", size=64, workers=1))
    (large / "cats" / "new.jpg").write_bytes(jpeg(99))
    with pytest.raises(UserError, match="of other data and count"):
        make_shards(Shards(str(large), tmp_path / "shards", workers=1))


def test_an_archive_is_looked_through_once(tmp_path, monkeypatch):
    file = packed(tmp_path / "a.tar", {"x/1.jpg": jpeg(1), "x/2.jpg": jpeg(2)})
    first = listed(file)
    monkeypatch.setattr(archives, "tar_files", None)
    assert listed(file) == first
    monkeypatch.undo()
    packed(file, {"x/1.jpg": jpeg(3)})
    assert len(listed(file)) == 1


@pytest.mark.parametrize(
    "index",
    ["", "{", "[]", '{"format": 1}', '{"members": 3}', '{"members": [[1, 2]]}', '{"members": [[-1, 2, 3, "x.jpg"]]}',
     '{"members": [[1, 1e999, 3, "x.jpg"]]}', '{"members": [[true, 2, 3, "x.jpg"]]}', '{"members": [[1, 2, 3, ""]]}'],
)  # fmt: skip
def test_an_index_that_is_damaged_is_made_again(tmp_path, index):
    file = packed(tmp_path / "a.tar", {"1.jpg": jpeg(1)})
    status = file.stat()
    if index.startswith('{"members"'):
        index = f'{{"format": 1, "bytes": {status.st_size}, "time": {status.st_mtime_ns}, {index[1:]}'
    (tmp_path / ".a.tar.index").write_text(index)
    assert contents(file) == [jpeg(1)]


def test_an_archive_without_an_index_is_read_where_nothing_can_be_written(tmp_path, monkeypatch, capsys):
    file = packed(tmp_path / "a.tar", {"1.jpg": jpeg(1)})

    class refused:
        def __init__(self, file):
            raise OSError(30, "Read-only file system")

    monkeypatch.setattr(archives, "atomic_write", refused)
    assert contents(file) == [jpeg(1)]
    assert "looked through every time" in capsys.readouterr().err


def test_loose_pictures_are_taken_before_archives(tmp_path):
    packed(tmp_path / "a.tar", {"1.jpg": jpeg(1)})
    assert len(listed(tmp_path)) == 1
    (tmp_path / "own.jpg").write_bytes(jpeg(2))
    assert listed(tmp_path) == [str(tmp_path / "own.jpg")]
    assert len(listed(tmp_path, tmp_path / "a.tar")) == 2


def test_archives_can_be_named_in_a_text_file(tmp_path):
    packed(tmp_path / "b.tar", {"1.jpg": jpeg(1)})
    packed(tmp_path / "a.tar", {"2.jpg": jpeg(2)})
    (tmp_path / "list.txt").write_text("b.tar\na.tar\n")
    assert contents(tmp_path / "list.txt") == [jpeg(2), jpeg(1)]  # sorted


def test_names_in_shards_lead_nobody_elsewhere(tmp_path):
    file = packed(tmp_path / "a.tar", {"../../a.jpg": jpeg(1), "/b.jpg": jpeg(2), "c/../d.jpg": jpeg(3)})
    shards = make_shards(Shards(str(file), tmp_path / "shards", workers=1))
    with tarfile.open(next(shards.glob("*.tar"))) as tar:
        assert tar.getnames() == ["a.jpg", "b.jpg", "c/d.jpg"]


def test_a_picture_too_long_for_a_jpeg_file_is_kept_as_it_is(tmp_path):
    (tmp_path / "photos").mkdir()
    Pillow.new("RGB", (70_000, 20)).save(tmp_path / "photos" / "long.png")
    shards = make_shards(Shards(str(tmp_path / "photos"), tmp_path / "shards", size=19, workers=1))
    assert contents(shards) == [(tmp_path / "photos" / "long.png").read_bytes()]


def test_labels_of_webdataset_become_folders(tmp_path):
    file = packed(
        tmp_path / "a.tar", {"k1.jpg": jpeg(1), "k1.cls": b"12\n", "k1.json": b"{}", "k2.cls": b"7", "k2.jpg": jpeg(2)}
    )
    assert [label_folder(path) for path in listed(file)] == ["12", "7"]


def test_pictures_without_a_folder_are_in_their_archives(tmp_path):
    folder = tmp_path / "birds"
    folder.mkdir()
    file = packed(folder / "a.tar", {"1.jpg": jpeg(1), "2.jpg": jpeg(2)})
    assert ImageFiles(Image(), listed(file), "").classes == ("birds",)


NAMES = [
    "../../etc/passwd.jpg",
    "/absolute.jpg",
    "x" * 300 + ".jpg",
    "a\nb.jpg",
    "b.tar/1+2/c.jpg",
    "ü/ß.jpg",
    "dots...jpg",
]


def test_names_that_begin_with_a_dot_are_names(tmp_path):
    """As a Mac puts them beside every file."""
    names = ["./._a.jpg", "./a.jpg", ".b.jpg", "x/.jpg"]
    file = packed(tmp_path / "a.tar", {name: jpeg(number) for number, name in enumerate(names)} | {"a.cls": b"7"})
    assert contents(file) == [jpeg(0), jpeg(1), jpeg(2)]


@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_names_are_only_names(tmp_path, form):
    """Whatever they say, what is read is what stands behind them, and nothing is written."""
    file = packed(tmp_path / "a.tar", {name: jpeg(number) for number, name in enumerate(NAMES)}, format=form)
    before = set(tmp_path.rglob("*"))
    assert contents(file) == [jpeg(number) for number in range(len(NAMES))]
    assert set(tmp_path.rglob("*")) - before == {tmp_path / ".a.tar.index"}


def test_links_and_devices_are_left_out_and_the_later_of_two_counts(tmp_path):
    file = tmp_path / "a.tar"
    with tarfile.open(file, "w") as tar:
        put(tar, "one.jpg", jpeg(1))
        put(tar, "two.jpg", b"", type=tarfile.SYMTYPE, linkname="/etc/passwd")
        put(tar, "three.jpg", b"", type=tarfile.LNKTYPE, linkname="one.jpg")
        put(tar, "four.jpg", b"", type=tarfile.CHRTYPE)
        put(tar, "five.jpg", b"", type=tarfile.FIFOTYPE)
        put(tar, "folder.jpg", b"", type=tarfile.DIRTYPE)
        put(tar, "one.jpg", jpeg(2))
    assert contents(file) == [jpeg(2)]


def test_a_tar_that_is_not_whole_is_refused(tmp_path):
    file = packed(tmp_path / "a.tar", {f"{number}.jpg": jpeg(number) for number in range(4)})
    whole = file.read_bytes()
    ends = [place.first + place.second for place in map(parse_address, listed(file)) if place]
    blocks = {-(-end // 512) * 512 for end in ends}
    found = 0
    for size in range(1, ends[-1], 97):
        if size not in blocks:
            file.write_bytes(whole[:size])
            with pytest.raises(UserError, match=r"copy or make it again|no images"):
                listed(file)
            found += 1
    assert found > 20
    for place in (
        ends[1] // 512 * 512 + 512 + 5,
        ends[0] // 512 * 512 + 512 + 130,
    ):  # in the headers of the third and the second
        damaged = bytearray(whole)
        damaged[place] ^= 0xFF
        file.write_bytes(damaged)
        with pytest.raises(UserError, match="damaged at byte|not a whole tar"):
            listed(file)


def test_an_archive_changed_under_a_run_is_noticed(tmp_path, monkeypatch):
    monkeypatch.setattr(pictures.time, "sleep", lambda _: None)
    file = packed(tmp_path / "a.tar", {"1.jpg": jpeg(1), "2.jpg": jpeg(2)})
    second = listed(file)[1]
    packed(file, {"1.jpg": jpeg(1, (90, 90)), "2.jpg": jpeg(2)})
    with pytest.raises(OSError, match=r"cannot be read \(.* has changed since it was listed\)"):
        read_bytes(second)
    packed(file, {"1.jpg": jpeg(1), "2.jpg": jpeg(2) + b"longer"})
    with pytest.raises(OSError, match="is something else: the archive has changed since it was listed"):
        read_bytes(second)
    file.unlink()
    with pytest.raises(OSError, match="No such file"):
        read_bytes(second)


def test_an_address_is_no_path_to_elsewhere(tmp_path, monkeypatch):
    """An index that somebody made up can name bytes of its own archive, and nothing else."""
    monkeypatch.setattr(pictures.time, "sleep", lambda _: None)
    file = packed(tmp_path / "a.tar", {"1.jpg": jpeg(1)})
    status = file.stat()
    members = [[512, 10**17, 5, "huge.jpg"], [4, 100, 5, "../../../etc/passwd.jpg"], [10**15, 4, 4, "far.jpg"]]
    (tmp_path / ".a.tar.index").write_text(
        json.dumps({"format": 1, "bytes": status.st_size, "time": status.st_mtime_ns, "members": members})
    )
    huge, passwd, far = listed(file)
    with pytest.raises(Undecodable, match="larger than 512 MiB"):
        read_bytes(huge)
    for path in (passwd, far):
        with pytest.raises(OSError, match="has changed since"):
            read_bytes(path)


def test_a_compressed_tar_is_a_sentence(tmp_path):
    file = packed(tmp_path / "a.tar", {"1.jpg": jpeg(1)})
    file.rename(tmp_path / "a.tar.gz")
    with pytest.raises(UserError, match="compressed, .* decompress it to a .tar file"):
        listed(tmp_path / "a.tar.gz")


def test_holes_are_refused(tmp_path):
    file = tmp_path / "a.tar"
    with tarfile.open(file, "w", format=tarfile.PAX_FORMAT) as tar:
        put(
            tar,
            "1.jpg",
            b"1\n0\n5\n" + bytes(506) + b"12345",
            pax_headers={"GNU.sparse.major": "1", "GNU.sparse.minor": "0"},
        )
    with pytest.raises(UserError, match="with holes in it"):
        listed(file)


def test_a_shard_that_was_damaged_is_made_again(large, tmp_path):
    settings = Shards(str(large), tmp_path / "shards", samples=10, workers=1)
    whole = (make_shards(settings) / "shards-000001.tar").read_bytes()
    (tmp_path / "shards" / "shards-000001.tar").write_bytes(whole[: len(whole) // 2])
    make_shards(settings)
    assert (tmp_path / "shards" / "shards-000001.tar").read_bytes() == whole


def test_unfinished_shards_are_not_taken_for_all(large, tmp_path):
    settings = Shards(str(large), tmp_path / "shards", samples=10, workers=1)
    (make_shards(settings) / "shards-000002.tar").unlink()
    with pytest.raises(UserError, match="3 of 4 tar files: let jepa shards go on"):
        listed(tmp_path / "shards")
    (tmp_path / "shards" / SHARDS_FILE).write_text('{"count": "many"}')
    with pytest.raises(UserError, match=r"shards.json is damaged"):
        listed(tmp_path / "shards")


@pytest.mark.parametrize("place", [".", "cats", "new", "../others"])
def test_shards_are_not_written_among_pictures(large, tmp_path, place):
    (tmp_path / "others").mkdir()
    (tmp_path / "others" / "a.jpg").write_bytes(jpeg(1))
    with pytest.raises(UserError, match="is a place of pictures"):
        make_shards(Shards(str(large), large / place, workers=1))


def test_doctor_says_nothing_of_the_archives_it_looked_into(large, tmp_path, capsys):
    shards = make_shards(Shards(str(large), tmp_path / "shards", workers=1))
    doctor(Doctor((str(shards),), out=tmp_path / "doctor", workers=1))
    assert "39 of 40" in (said := capsys.readouterr().out) and "not looked at" not in said
    packed(large / "a.tar", {"1.jpg": jpeg(1)})
    doctor(Doctor((str(large),), out=tmp_path / "doctor", workers=1))
    assert "not looked at, by their endings: 1 × .tar" in capsys.readouterr().out


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
    made = arrow.table({"image": cells, "label": [number % 2 for number in range(count)]})
    return made.replace_schema_metadata({"huggingface": json.dumps(HUGGINGFACE)}) if metadata else made


@pytest.fixture
def rows(tmp_path) -> Path:
    parquet.write_table(table(10), tmp_path / "train.parquet", row_group_size=4)
    return tmp_path / "train.parquet"


def test_rows_of_parquet_are_read_at_random_with_their_labels(rows):
    paths = listed(rows)
    assert [read_bytes(path) for path in reversed(paths)] == [jpeg(number) for number in reversed(range(10))]
    assert paths[5] == f"{rows}/1+1/dog-wolf/5.jpg"
    assert ImageFiles(Image(), paths, "").classes == ("cat", "dog-wolf")


def test_parquet_without_metadata_or_names_is_read(tmp_path):
    parquet.write_table(table(3, metadata=False, names=False), tmp_path / "a.parquet")
    assert contents(tmp_path) == [jpeg(number) for number in range(3)]
    assert listed(tmp_path)[1].endswith("a.parquet/0+1/1/0-1")


def test_a_column_of_plain_bytes_is_read(tmp_path):
    parquet.write_table(arrow.table({"jpg": [jpeg(0), None]}), tmp_path / "a.parquet")
    assert contents(tmp_path) == [jpeg(0), b""]


def test_parquet_makes_the_same_shards_as_its_pictures(rows, tmp_path):
    shards = make_shards(Shards(str(rows), tmp_path / "shards", samples=3, workers=1))
    assert contents(shards) == [jpeg(number) for number in range(10)]
    assert listed(shards)[5].endswith("/dog-wolf/5.jpg")


def test_rows_without_names_are_found_again_in_shards(tmp_path):
    cells = [{"bytes": jpeg(number) if number != 2 else None, "path": None} for number in range(4)]
    parquet.write_table(arrow.table({"image": cells}), tmp_path / "a.parquet")
    shards = make_shards(Shards(str(tmp_path / "a.parquet"), tmp_path / "shards", workers=1))
    assert contents(shards) == [jpeg(0), jpeg(1), b"", jpeg(3)]
    assert listed(shards)[0].endswith(".jpeg")


def test_parts_are_told_apart_by_the_names_of_their_files(tmp_path):
    for name, count in (("train-00000-of-00001", 8), ("test-00000-of-00001", 4)):
        parquet.write_table(table(count), tmp_path / f"{name}.parquet")
    parts = split_labeled(replace(MODALITIES["image"], mean=(0.5,) * 3), LabeledData((str(tmp_path),)), 0)
    assert (len(parts.train), len(parts.test), parts.how) == (8, 4, "test-*")


def test_a_run_on_parquet_is_the_run_on_its_pictures(tiny, tmp_path):
    parquet.write_table(table(20), tmp_path / "a.parquet", row_group_size=7)
    (tmp_path / "files").mkdir()
    for number in range(20):
        (tmp_path / "files" / f"{number:02d}.jpg").write_bytes(jpeg(number))
    ends = []
    for name in ("a.parquet", "files"):
        own = replace(
            tiny, steps=2, data=replace(tiny.data, root=(str(tmp_path / name),)), out=tmp_path / f"run {name}"
        )
        pretrain(own)
        ends.append(load_newest(own.out / "checkpoints").model)
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0] | ends[1])


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "not a whole Parquet file"),
        (b"PAR1 nothing PAR1", "not a whole Parquet file"),
        (None, "no column of pictures"),
    ],
)
def test_parquet_that_is_none_or_has_no_pictures_is_a_sentence(tmp_path, content, said):
    file = tmp_path / "a.parquet"
    if content is None:
        parquet.write_table(arrow.table({"text": ["a", "b"]}), file)
    else:
        file.write_bytes(content)
    with pytest.raises(UserError, match=said):
        listed(file)


def test_parquet_damaged_in_its_pictures_stops_with_a_sentence(rows, monkeypatch):
    monkeypatch.setattr(pictures.time, "sleep", lambda _: None)
    paths, whole = listed(rows), rows.read_bytes()
    said = []
    for place in range(8, len(whole) // 2, len(whole) // 40):
        damaged = bytearray(whole)
        damaged[place : place + 30] = os.urandom(30)
        rows.write_bytes(damaged)
        os.utime(rows, ns=(place, place))
        for path in paths:
            try:
                read_bytes(path)
            except (OSError, UserError) as error:
                said.append(str(error))
    assert all("Parquet" in each or "cannot be read" in each for each in said)


def test_without_pyarrow_there_is_a_sentence(rows, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(UserError, match=r"pip install 'openjepa\[parquet\]'"):
        listed(rows)


def test_the_fingerprint_of_a_folder_is_what_it_was(photos):
    """Runs of before go on."""
    import hashlib

    paths = listed(photos)
    old = hashlib.sha256("\0".join(f"{path}\0{Path(path).stat().st_size}" for path in paths).encode()).hexdigest()[:32]
    assert list_files([str(photos)], IMAGE_SUFFIXES).fingerprint == old
