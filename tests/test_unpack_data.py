"""Archives of data are unpacked whole or not at all, each into a folder of its own name."""

import io
import subprocess
import sys
import tarfile

import pytest

from openjepa.core.errors import UserError
from scripts.unpack_data import MARKER, unpack_all


def save_archive(file, members, mode="w:gz", link=None):
    """Write an archive of small files; `link` is the target of a last member, a symlink."""
    file.parent.mkdir(exist_ok=True)
    with tarfile.open(file, mode) as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
        if link:
            info = tarfile.TarInfo("series/link")
            info.type, info.linkname = tarfile.SYMTYPE, link
            archive.addfile(info)
    return file


@pytest.fixture
def archives(tmp_path):
    save_archive(tmp_path / "in" / "series.tar.gz", {"series/ett/a.csv": b"a", "series/b.csv": b"b"})
    save_archive(tmp_path / "in" / "cifar10.tar", {"train/cat/1.jpg": b"1", "test/dog/2.jpg": b"2"}, "w")
    (tmp_path / "in" / "README.md").write_text("not an archive")
    return tmp_path / "in"


def contents(out):
    return sorted(str(each.relative_to(out)) for each in out.rglob("*") if each.is_file() and each.name != "lock")


WHOLE = [f"cifar10/{MARKER}", "cifar10/test/dog/2.jpg", "cifar10/train/cat/1.jpg"]
WHOLE += [f"series/{MARKER}", "series/b.csv", "series/ett/a.csv"]


def test_every_archive_has_its_own_folder(archives, tmp_path, capsys):
    unpack_all(archives, tmp_path / "out")
    assert contents(tmp_path / "out") == WHOLE
    assert f"export JEPA_DATA={tmp_path / 'out'}" in capsys.readouterr().out


def test_unpacked_folders_are_skipped_and_missing_ones_are_added(archives, tmp_path):
    unpack_all(archives, tmp_path / "out")
    (tmp_path / "out" / "series" / "b.csv").write_text("changed")
    save_archive(archives / "audio.tgz", {"audio/a.wav": b"a"})
    unpack_all(archives, tmp_path / "out")
    assert (tmp_path / "out" / "series" / "b.csv").read_text() == "changed"
    assert (tmp_path / "out" / "audio" / "a.wav").is_file()


def test_an_interrupted_archive_leaves_no_folder_and_is_unpacked_again(archives, tmp_path):
    whole = (archives / "series.tar.gz").read_bytes()
    (archives / "series.tar.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match=r"series.tar.gz is damaged or incomplete"):
        unpack_all(archives, tmp_path / "out")
    assert not (tmp_path / "out" / "series").exists() and (tmp_path / "out" / "cifar10").is_dir()
    (tmp_path / "out" / ".series.unpacking" / "left").mkdir(parents=True)
    (archives / "series.tar.gz").write_bytes(whole)
    unpack_all(archives, tmp_path / "out")
    assert contents(tmp_path / "out") == WHOLE and not (tmp_path / "out" / ".series.unpacking").exists()


@pytest.mark.parametrize("name, link", [("../outside.csv", None), ("series/a.csv", "../../outside")])
def test_members_that_leave_the_folder_are_refused(tmp_path, name, link):
    save_archive(tmp_path / "in" / "series.tar", {name: b"a"}, "w", link)
    with pytest.raises(UserError, match="not safe to unpack"):
        unpack_all(tmp_path / "in", tmp_path / "out" / "data")
    assert not list(tmp_path.rglob("outside*")) and not (tmp_path / "out" / "data" / "series").exists()


def test_a_folder_from_elsewhere_is_left_alone(archives, tmp_path):
    (tmp_path / "out" / "series").mkdir(parents=True)
    with pytest.raises(UserError, match="series exists, but not from this command"):
        unpack_all(archives, tmp_path / "out")


def test_wrong_arguments_end_in_one_sentence(tmp_path):
    for folder, message in ((tmp_path, "holds no archives"), (tmp_path / "absent", "is not a folder")):
        with pytest.raises(UserError, match=message):
            unpack_all(folder, tmp_path / "out")
    command = [sys.executable, "-m", "scripts.unpack_data", str(tmp_path / "absent"), str(tmp_path / "out")]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 1 and result.stderr.startswith("unpack_data: ") and result.stderr.count("\n") == 1


def test_two_archives_of_one_name_are_refused(archives, tmp_path):
    save_archive(archives / "series.tar", {"a": b"a"}, "w")
    with pytest.raises(UserError, match="would unpack into one folder"):
        unpack_all(archives, tmp_path / "out")
