"""`jepa doctor` finds every problem put into a folder of videos, and says nothing of good ones."""

import io
import json
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Pillow

from openjepa.cli.doctor import doctor
from openjepa.cli.main import main
from openjepa.cli.settings import Doctor
from openjepa.data.video_doctor import VIDEO_FINDINGS, examine_video, examine_videos
from tests.clips import encode, encode_sound, numbered_frame

pytest.importorskip("av", reason="video files need PyAV: pip install 'openjepa[video]'")


@pytest.fixture
def clean(tmp_path):
    folder = tmp_path / "clips"
    folder.mkdir()
    for number, name in enumerate(["mp4 with B-frames", "mkv", "avi", "webm", "mpeg-1"]):
        (folder / f"{number}.mp4").write_bytes(encode(name, count=20 + number))
    return folder


def findings_of(folder: Path, **options) -> dict[str, list[str]]:
    settings = Doctor((str(folder),), out=folder.parent / "doctor", workers=1, modality="video", **options)
    return {
        name: sorted(path.removeprefix(f"{folder}/") for path in paths)
        for name, paths in doctor(settings)["findings"].items()
    }


def test_good_videos_have_no_findings_and_a_summary(clean, capsys):
    assert findings_of(clean) == {}
    output = capsys.readouterr().out
    assert "5 of 5 files are usable clips" in output and "no problems found" in output
    for words in ("frames per second", "1 h264", "1 vp8", "1 mpeg1video"):
        assert words in output or words.replace("1 h264", "2 h264") in output


def constant() -> bytes:
    stream = io.BytesIO()
    np.save(stream, np.repeat(numbered_frame(5)[None], 20, 0))
    return stream.getvalue()


def as_gif(frames: list[np.ndarray], milliseconds: int | list[int]) -> bytes:
    stream = io.BytesIO()
    pictures = [Pillow.fromarray(each) for each in frames]
    for number, picture in enumerate(pictures):  # equal frames would become one
        picture.putpixel((0, 0), (number, 0, 0))
    pictures[0].save(stream, "GIF", save_all=True, append_images=pictures[1:], duration=milliseconds)
    return stream.getvalue()


def wiped() -> bytes:
    content = bytearray(encode("mkv"))
    content[len(content) // 2 : len(content) // 2 + 300] = b"\x55" * 300
    return bytes(content)


BAD = {
    "undecodable": ("x.mp4", lambda: b"<html>404</html>"),
    "audio only": ("x.mp4", encode_sound),
    "truncated": ("x.avi", lambda: encode("raw", count=40)[:-150_000]),
    "zero duration": ("x.gif", lambda: as_gif([numbered_frame(3)], 40)),
    "constant": ("x.npy", constant),
    "very short": ("x.mp4", lambda: encode("mkv", count=9)),
    "variable rate": ("x.mp4", lambda: encode("mkv", stamps=[40 * n + 300 * (n > 10) for n in range(40)])),
    "no time stamps": ("x.avi", lambda: encode("avi with B-frames")),
    "rotated": ("x.mov", lambda: encode("mov", rotation=90)),
    "oblong pixels": ("x.mp4", lambda: encode("mkv", sample_aspect_ratio=Fraction(16, 11))),
}


@pytest.mark.parametrize("finding", BAD)
def test_each_problem_is_reported_and_nothing_else(clean, finding):
    name, content = BAD[finding]
    (clean / name).write_bytes(content())
    expected = {finding: [name]}
    if finding in ("zero duration", "truncated"):
        expected |= {"very short": [name]}
    if finding == "truncated":
        expected |= {"damaged frames": [name]}
    assert findings_of(clean) == expected and finding in VIDEO_FINDINGS


def test_damage_in_the_middle_is_reported_with_its_extent(clean):
    (clean / "x.mkv").write_bytes(wiped())
    assert {"damaged frames", "truncated"} & findings_of(clean).keys()
    reason = json.loads((clean.parent / "doctor" / "doctor.json").read_text())["reasons"][str(clean / "x.mkv")]
    assert reason and "\n" not in reason


def test_copies_are_duplicates_whatever_their_names(clean):
    (clean / "copy.mov").write_bytes((clean / "0.mp4").read_bytes())
    assert findings_of(clean) == {"duplicate": ["0.mp4", "copy.mov"]}


def test_folders_of_frames_are_examined_as_clips(tmp_path):
    for clip in ("walk/a", "walk/b", "run/c"):
        folder = tmp_path / "data" / clip
        folder.mkdir(parents=True)
        for number in range(16):
            size = (40, 40) if clip == "walk/b" and number == 7 else (48, 64)
            Pillow.fromarray(numbered_frame(number + len(clip), size)).save(folder / f"{number}.png")
    (tmp_path / "data" / "run" / "c" / "3.png").write_bytes(b"")
    assert findings_of(tmp_path / "data") == {"sizes differ": ["walk/b"], "undecodable": ["run/c"]}


@pytest.mark.slow
def test_processes_change_nothing(clean):
    files = sorted(map(str, clean.iterdir()))
    assert list(examine_videos(files, 2)) == list(examine_videos(files, 1)) == [examine_video(each) for each in files]


def test_the_modality_is_known_from_the_files(clean, tmp_path, capsys):
    assert main(["doctor", str(clean), "--out", str(tmp_path / "out"), "--workers", "1"]) == 0
    assert "usable clips" in capsys.readouterr().out
    assert json.loads((tmp_path / "out" / "doctor.json").read_text())["files"] == 5


def test_a_folder_without_readable_videos_fails_after_the_report_is_written(tmp_path, capsys):
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "one.mp4").write_bytes(b"not a video")
    assert main(["doctor", str(tmp_path / "bad"), "--out", str(tmp_path / "out")]) == 1
    assert "is a readable video" in capsys.readouterr().err
    assert json.loads((tmp_path / "out" / "doctor.json").read_text())["fit"] == 0
