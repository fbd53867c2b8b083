"""`jepa doctor` finds what was put into a folder, and says of nothing else that it is wrong."""

import io
import json
import struct
import zlib

import numpy as np
import pytest
from PIL import Image as Pillow

from openjepa.cli.doctor import Doctor, doctor
from openjepa.cli.main import main
from openjepa.data import doctor as checkup
from openjepa.data.doctor import FINDINGS
from openjepa.data.image_io import read_bytes
from openjepa.data.synthetic.scenes import render


def jpeg(number: int, size=(96, 128), **options) -> bytes:
    stream = io.BytesIO()
    image = render(1, size, seed=number).image[0].permute(1, 2, 0).numpy()
    Pillow.fromarray(image).save(stream, "JPEG", **options)
    return stream.getvalue()


@pytest.fixture
def clean(tmp_path):
    """Twelve photographs of which nothing bad can be said."""
    folder = tmp_path / "photos"
    (folder / "below").mkdir(parents=True)
    for number in range(12):
        (folder / "below" / f"{number:02d}.jpg").write_bytes(jpeg(number))
    return folder


def found(folder) -> dict[str, list[str]]:
    result = doctor(Doctor((str(folder),), out=folder.parent / "doctor", workers=1))
    return {
        name: sorted(path.removeprefix(f"{folder}/") for path in paths) for name, paths in result["findings"].items()
    }


def test_of_a_clean_folder_nothing_is_said(clean, capsys):
    assert found(clean) == {}
    assert "12 of 12 files can be learnt from" in (said := capsys.readouterr().out) and "nothing is wrong" in said


def picture(mode="RGB", size=(64, 48), ending="PNG", **options) -> bytes:
    stream = io.BytesIO()
    noise = np.random.default_rng(size[0]).integers(0, 256, (size[1], size[0], 3), np.uint8)
    Pillow.fromarray(noise).resize((8, 6)).resize(size).convert(mode).save(stream, ending, **options)
    return stream.getvalue()


def turned() -> bytes:
    exif = Pillow.Exif()
    exif[0x0112] = 6
    return jpeg(40, exif=exif)


def animated() -> bytes:
    stream = io.BytesIO()
    first, second = (Pillow.open(io.BytesIO(jpeg(number))) for number in (50, 51))
    first.save(stream, "GIF", save_all=True, append_images=[second])
    return stream.getvalue()


def bomb() -> bytes:
    """A PNG's header that claims 60,000 × 60,000 pixels."""
    whole = bytearray(picture())
    whole[16:24] = struct.pack(">II", 60_000, 60_000)
    whole[29:33] = struct.pack(">I", zlib.crc32(whole[12:29]))
    return bytes(whole)


HARM = {
    "truncated": ("x.jpg", lambda: jpeg(20)[:-800]),
    "undecodable": ("x.jpg", lambda: b"<html>not found</html>"),
    "tiny": ("x.png", lambda: picture(size=(31, 40))),
    "narrow": ("x.png", lambda: picture(size=(160, 40))),
    "wrong ending": ("x.png", lambda: jpeg(21)),
    "odd colours": ("x.jpg", lambda: picture("CMYK", ending="JPEG")),
    "transparent": ("x.png", lambda: picture("RGBA")),
    "blank": (
        "x.png",
        lambda: (lambda s: (Pillow.new("RGB", (64, 64), "red").save(s, "PNG"), s.getvalue())[1])(io.BytesIO()),
    ),
    "turned": ("x.jpg", turned),
    "animated": ("x.gif", animated),
}


@pytest.mark.parametrize("harm", HARM)
def test_what_is_wrong_with_a_file_is_found_and_nothing_else(clean, harm):
    name, content = HARM[harm]
    (clean / name).write_bytes(content())
    assert found(clean) == {harm: [name]}
    assert harm in FINDINGS


@pytest.mark.parametrize("content", [b"", bomb()])
def test_empty_files_and_bombs_are_undecodable_for_a_stated_reason(clean, content):
    (clean / "x.png").write_bytes(content)
    assert found(clean) == {"undecodable": ["x.png"]}
    (reason,) = json.loads((clean.parent / "doctor" / "doctor.json").read_text())["reasons"].values()
    assert reason in (
        "the file is empty",
        "60000×60000 pixels: a decompression bomb?",
        "too many pixels: a decompression bomb?",
    )


def test_equal_files_and_pictures_that_look_alike_are_grouped(clean):
    (clean / "copy.jpg").write_bytes(jpeg(3))
    (clean / "worse.jpg").write_bytes(jpeg(5, quality=40))
    result = doctor(Doctor((str(clean),), out=clean.parent / "doctor", workers=1))
    assert result["groups"]["duplicate"] == [[str(clean / "below" / "03.jpg"), str(clean / "copy.jpg")]]
    assert [str(clean / "below" / "05.jpg"), str(clean / "worse.jpg")] in result["groups"]["near duplicate"]
    assert len(result["groups"]["near duplicate"]) == 1
    alone = doctor(Doctor((str(clean),), out=clean.parent / "doctor", workers=1, near_duplicates=False))
    assert "near duplicate" not in alone["groups"]


def test_bad_files_are_no_duplicates_and_how_many_a_run_bears_is_said(clean, capsys):
    for name in ("one.jpg", "[bold]two.jpg"):
        (clean / name).write_bytes(b"no picture")
    assert found(clean) == {"undecodable": ["[bold]two.jpg", "one.jpg"]}
    said = capsys.readouterr().out
    assert "14.3% of the files cannot be learnt from" in said and "--max-skipped" in said
    assert main(["doctor", str(clean), "--workers", "-5"]) == 1
    assert "try --workers -1" in capsys.readouterr().err


def test_an_unreadable_file_is_said_to_stop_a_run(clean, monkeypatch):

    (clean / "x.jpg").write_bytes(jpeg(30))
    read = read_bytes

    def failing(path):
        if path.endswith("x.jpg"):
            raise OSError(5, "Input/output error")
        return read(path)

    monkeypatch.setattr(checkup, "read_bytes", failing)
    assert found(clean) == {"unreadable": ["x.jpg"]} and "stops" in FINDINGS["unreadable"]


def test_files_of_other_endings_are_counted_and_processes_change_nothing(clean, monkeypatch, capsys):
    (clean / "phone.heic").write_bytes(b"?")
    (clean / "notes").write_bytes(b"?")
    (clean / "x.png").write_bytes(jpeg(21))
    one = doctor(Doctor((str(clean),), out=clean.parent / "one", workers=1))
    assert one["other_endings"] == {".heic": 1, "none": 1} and "1 × .heic" in capsys.readouterr().out
    monkeypatch.setattr(checkup, "MIN_FOR_PROCESSES", 2)
    assert doctor(Doctor((str(clean),), out=clean.parent / "two", workers=2)) == one


def test_a_folder_without_one_good_picture_fails_when_all_is_said_and_written(tmp_path, capsys):
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "one.jpg").write_bytes(b"no picture")
    assert main(["doctor", str(tmp_path / "bad"), "--out", str(tmp_path / "out")]) == 1
    said = capsys.readouterr()
    assert "there is nothing to learn from" in said.err and "undecodable" in said.out
    assert json.loads((tmp_path / "out" / "doctor.json").read_text())["fit"] == 0


def test_the_verb_writes_names_and_a_picture(clean, tmp_path, capsys):
    assert main(["doctor", str(clean), "--out", str(tmp_path / "out"), "--workers", "1"]) == 0
    assert json.loads((tmp_path / "out" / "doctor.json").read_text())["files"] == 12
    with Pillow.open(tmp_path / "out" / "doctor.png") as drawn:
        assert drawn.size[0] > 500
    assert main(["doctor", str(tmp_path / "nothing")]) == 1
    assert "is not there" in capsys.readouterr().err
