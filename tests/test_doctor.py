"""`jepa doctor` finds every problem put into a folder and reports nothing else."""

import io
import json
import struct
import zlib

import numpy as np
import pytest
from PIL import Image as Pillow

from openjepa.cli.doctor import doctor
from openjepa.cli.main import main
from openjepa.cli.settings import Doctor
from openjepa.data import doctor as checks
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
    """Twelve images without any problem."""
    folder = tmp_path / "photos"
    (folder / "below").mkdir(parents=True)
    for number in range(12):
        (folder / "below" / f"{number:02d}.jpg").write_bytes(jpeg(number))
    return folder


def findings_of(folder) -> dict[str, list[str]]:
    result = doctor(Doctor((str(folder),), out=folder.parent / "doctor", workers=1))
    return {
        name: sorted(path.removeprefix(f"{folder}/") for path in paths) for name, paths in result["findings"].items()
    }


def test_a_clean_folder_has_no_findings(clean, capsys):
    assert findings_of(clean) == {}
    output = capsys.readouterr().out
    assert "12 of 12 files are usable images" in output and "no problems found" in output


def make_image(mode="RGB", size=(64, 48), image_format="PNG", **options) -> bytes:
    stream = io.BytesIO()
    noise = np.random.default_rng(size[0]).integers(0, 256, (size[1], size[0], 3), np.uint8)
    Pillow.fromarray(noise).resize((8, 6)).resize(size).convert(mode).save(stream, image_format, **options)
    return stream.getvalue()


def rotated_jpeg() -> bytes:
    exif = Pillow.Exif()
    exif[0x0112] = 6
    return jpeg(40, exif=exif)


def animated_gif() -> bytes:
    stream = io.BytesIO()
    first, second = (Pillow.open(io.BytesIO(jpeg(number))) for number in (50, 51))
    first.save(stream, "GIF", save_all=True, append_images=[second])
    return stream.getvalue()


def bomb_png() -> bytes:
    """Return a PNG whose header claims 60,000 × 60,000 pixels."""
    whole = bytearray(make_image())
    whole[16:24] = struct.pack(">II", 60_000, 60_000)
    whole[29:33] = struct.pack(">I", zlib.crc32(whole[12:29]))
    return bytes(whole)


BAD_FILES = {
    "truncated": ("x.jpg", lambda: jpeg(20)[:-800]),
    "undecodable": ("x.jpg", lambda: b"<html>not found</html>"),
    "tiny": ("x.png", lambda: make_image(size=(31, 40))),
    "narrow": ("x.png", lambda: make_image(size=(160, 40))),
    "wrong ending": ("x.png", lambda: jpeg(21)),
    "odd colors": ("x.jpg", lambda: make_image("CMYK", image_format="JPEG")),
    "transparent": ("x.png", lambda: make_image("RGBA")),
    "blank": (
        "x.png",
        lambda: (lambda s: (Pillow.new("RGB", (64, 64), "red").save(s, "PNG"), s.getvalue())[1])(io.BytesIO()),
    ),
    "turned": ("x.jpg", rotated_jpeg),
    "animated": ("x.gif", animated_gif),
}


@pytest.mark.parametrize("finding", BAD_FILES)
def test_each_problem_is_found_and_nothing_else(clean, finding):
    name, content = BAD_FILES[finding]
    (clean / name).write_bytes(content())
    assert findings_of(clean) == {finding: [name]}
    assert finding in FINDINGS


@pytest.mark.parametrize("content", [b"", bomb_png()])
def test_empty_files_and_decompression_bombs_are_undecodable_with_a_reason(clean, content):
    (clean / "x.png").write_bytes(content)
    assert findings_of(clean) == {"undecodable": ["x.png"]}
    (reason,) = json.loads((clean.parent / "doctor" / "doctor.json").read_text())["reasons"].values()
    assert reason in (
        "the file is empty",
        "60000×60000 pixels, more than 89 million: cut it into tiles (or a decompression bomb?)",
    )


def test_exact_and_near_duplicates_are_grouped(clean):
    (clean / "copy.jpg").write_bytes(jpeg(3))
    (clean / "worse.jpg").write_bytes(jpeg(5, quality=40))
    result = doctor(Doctor((str(clean),), out=clean.parent / "doctor", workers=1))
    assert result["groups"]["duplicate"] == [[str(clean / "below" / "03.jpg"), str(clean / "copy.jpg")]]
    assert [str(clean / "below" / "05.jpg"), str(clean / "worse.jpg")] in result["groups"]["near duplicate"]
    assert len(result["groups"]["near duplicate"]) == 1
    exact_only = doctor(Doctor((str(clean),), out=clean.parent / "doctor", workers=1, near_duplicates=False))
    assert "near duplicate" not in exact_only["groups"]


def test_bad_files_are_not_duplicates_and_the_limit_of_a_run_is_printed(clean, capsys):
    for name in ("one.jpg", "[bold]two.jpg"):
        (clean / name).write_bytes(b"not an image")
    assert findings_of(clean) == {"undecodable": ["[bold]two.jpg", "one.jpg"]}
    output = capsys.readouterr().out
    assert "14.3% of the files are unusable" in output and "--max-skipped" in output
    assert main(["doctor", str(clean), "--workers", "-5"]) == 1
    assert "--workers must be >= -1 (-1 = one process per core), got -5" in capsys.readouterr().err


def test_an_unreadable_file_is_reported_to_stop_a_run(clean, monkeypatch):
    (clean / "x.jpg").write_bytes(jpeg(30))
    read = read_bytes

    def failing(path):
        if path.endswith("x.jpg"):
            raise OSError(5, "Input/output error")
        return read(path)

    monkeypatch.setattr(checks, "read_bytes", failing)
    assert findings_of(clean) == {"unreadable": ["x.jpg"]} and "stops" in FINDINGS["unreadable"]


def test_ignored_files_are_counted_by_suffix_and_processes_change_nothing(clean, monkeypatch, capsys):
    (clean / "scan.dcm").write_bytes(b"?")
    (clean / "notes").write_bytes(b"?")
    (clean / "x.png").write_bytes(jpeg(21))
    one = doctor(Doctor((str(clean),), out=clean.parent / "one", workers=1))
    assert one["other_endings"] == {".dcm": 1, "none": 1} and "1 .dcm" in capsys.readouterr().out
    monkeypatch.setattr(checks, "MIN_FOR_PROCESSES", 2)
    assert doctor(Doctor((str(clean),), out=clean.parent / "two", workers=2)) == one


def test_a_folder_without_readable_images_fails_after_the_report_is_written(tmp_path, capsys):
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "one.jpg").write_bytes(b"not an image")
    assert main(["doctor", str(tmp_path / "bad"), "--out", str(tmp_path / "out")]) == 1
    output = capsys.readouterr()
    assert "is a readable image" in output.err and "undecodable" in output.out
    assert json.loads((tmp_path / "out" / "doctor.json").read_text())["fit"] == 0


def test_the_command_writes_json_and_a_figure(clean, tmp_path, capsys):
    assert main(["doctor", str(clean), "--out", str(tmp_path / "out"), "--workers", "1"]) == 0
    assert json.loads((tmp_path / "out" / "doctor.json").read_text())["files"] == 12
    with Pillow.open(tmp_path / "out" / "doctor.png") as figure:
        assert figure.size[0] > 500
    assert main(["doctor", str(tmp_path / "nothing")]) == 1
    assert "does not exist" in capsys.readouterr().err
