"""Any frames of a video file are what decoding the whole file gives; every bad file has one reason."""

import io
import os
import random
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Pillow

from openjepa.core.errors import UserError
from openjepa.data import video_streams
from openjepa.data.image_opening import Undecodable
from openjepa.data.video_folders import ArrayFrames
from openjepa.data.video_formats import is_video
from openjepa.data.video_index import number_frames, split_runs, stack_packets
from openjepa.data.video_io import INDEXES, open_frames
from openjepa.data.video_listing import list_videos
from tests.clips import ENCODINGS, SIZE, encode, encode_sound, number_of, numbered_frame

av = pytest.importorskip("av", reason="video files need PyAV: pip install 'openjepa[video]'")


def decode_all(file: Path) -> list[np.ndarray]:
    """Decode a whole file from its start."""
    with av.open(str(file)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def write(folder: Path, content: bytes, name: str = "clip.mp4") -> Path:
    (folder / name).write_bytes(content)
    return folder / name


def check_reading(file: Path, numbers: range | None = None, calls: int = 12) -> None:
    """Check that any frames, in any distance, are those of the whole file."""
    whole, dice = decode_all(file), random.Random(0)
    for _ in range(calls):
        index = sorted(dice.choices(range(len(whole)), k=dice.choice([1, 2, 8])))
        with open_frames(str(file), 3) as frames:
            assert len(frames.times) == len(whole)
            for number, picture in zip(index, frames.read(index), strict=True):
                np.testing.assert_array_equal(picture, whole[number], f"frame {number}")
                if numbers is not None:
                    assert number_of(picture) == numbers[number]


@pytest.mark.parametrize("name", ENCODINGS)
def test_any_frames_are_those_of_the_whole_file(name, tmp_path):
    file = write(tmp_path, encode(name), "clip")
    check_reading(file, range(40))
    with open_frames(str(file), 3) as frames:
        np.testing.assert_allclose(frames.times, np.arange(40) / 25, atol=0.002)
        assert frames.size == SIZE


def test_only_what_is_needed_is_decoded(tmp_path, monkeypatch):
    """Of 100 frames with a keyframe every 10, frame 95 takes the packets from 90 on."""
    file = write(tmp_path, encode("mkv", count=100))
    open_frames(str(file), 3).close()
    decoded = []
    decode = video_streams.OpenVideo.decode
    monkeypatch.setattr(
        video_streams.OpenVideo, "decode", lambda self, packet: (decoded.append(packet), decode(self, packet))[1]
    )
    with open_frames(str(file), 3) as frames:
        assert number_of(frames.read([95])[0]) == 95 and len(decoded) <= 10
        decoded.clear()
        assert [number_of(each) for each in frames.read([3, 61])] == [3, 61] and len(decoded) <= 16


def test_a_run_is_split_where_a_keyframe_leaves_packets_out():
    rows = [(number, 1, 40 * number, 40 * number, number % 10 == 0, False) for number in range(60)]
    numbers = number_frames(stack_packets(rows), unit=0.001, rate=25.0, reorders=False)
    assert split_runs(numbers, [2, 8, 22, 25, 59], min_skip=8) == [(0, [2, 8]), (20, [22, 25]), (50, [59])]
    assert split_runs(numbers, [2, 8, 12], min_skip=8) == [(0, [2, 8, 12])]


@pytest.mark.parametrize("name", ["mp4 with B-frames", "mkv", "mov"])
def test_variable_rate_gives_each_frame_its_time(name, tmp_path):
    stamps = np.cumsum([0, *np.random.default_rng(0).integers(5, 200, 39)]).tolist()
    file = write(tmp_path, encode(name, stamps=stamps))
    check_reading(file, range(40))
    with open_frames(str(file), 3) as frames:
        np.testing.assert_allclose(frames.times, np.array(stamps) / 1000, atol=0.002)


def test_a_late_or_negative_start_counts_from_the_first_frame(tmp_path):
    for start in (-400, 5000):
        file = write(tmp_path, encode("mkv" if start > 0 else "mov", stamps=[start + 40 * n for n in range(40)]))
        check_reading(file, calls=4)
        with open_frames(str(file), 3) as frames:
            assert frames.times[0] == 0 and frames.times[-1] <= 39 * 0.04 + 0.002


@pytest.mark.parametrize(("degrees", "turns"), [(90, 1), (-90, 3), (180, 2), (0, 0)])
def test_rotation_is_applied(degrees, turns, tmp_path):
    file = write(tmp_path, encode("mov", rotation=degrees))
    with open_frames(str(file), 3) as frames:
        (picture,) = frames.read([37])
        stored = decode_all(file)[37]
        np.testing.assert_array_equal(picture, np.rot90(stored, turns))
        assert picture.shape[:2] == frames.size == (SIZE if turns % 2 == 0 else SIZE[::-1])


def test_odd_sizes_have_every_pixel(tmp_path):
    file = write(tmp_path, encode("lossless", size=(47, 61)))
    check_reading(file, range(40), calls=4)
    with open_frames(str(file), 3) as frames:
        assert frames.size == (47, 61)


def test_pixels_that_are_not_square_are_stretched(tmp_path):
    from fractions import Fraction

    file = write(tmp_path, encode("mkv", sample_aspect_ratio=Fraction(16, 11)))
    with open_frames(str(file), 3) as frames:
        assert frames.size == (48, 93) and number_of(frames.read([21])[0]) == 21


def test_gray_is_the_brightness_in_full_range(tmp_path):
    file = write(tmp_path, encode("lossless"))
    with open_frames(str(file), 1) as gray, open_frames(str(file), 3) as color:
        one, three = gray.read([5, 100 % 40]), color.read([5, 100 % 40])
        assert one.shape == (2, *SIZE, 1)
        np.testing.assert_allclose(one[..., 0], three.astype(float).mean(-1), atol=2)


def test_sound_beside_the_video_does_not_matter(tmp_path):
    check_reading(write(tmp_path, encode("mpeg-1", sound=True)), range(40), calls=4)
    check_reading(write(tmp_path, encode("mp4 with B-frames", sound=True), "two.mp4"), range(40), calls=4)


def test_a_truncated_file_has_the_frames_that_are_left(tmp_path):
    for name in ("mkv", "mpeg-1", "transport stream", "avi"):
        content = encode(name)
        file = write(tmp_path, content[: len(content) * 2 // 3], name)
        with open_frames(str(file), 3) as frames:
            count = len(frames.times)
            assert 5 < count < 40
            numbers = [number_of(each) for each in frames.read(list(range(count)))]
        assert numbers[:-3] == list(range(count))[:-3]  # the last may be damaged


def test_a_damaged_frame_is_the_one_before_it_and_nothing_raises(tmp_path):
    content = bytearray(encode("mkv"))
    middle = len(content) // 2
    content[middle : middle + 200] = bytes(200)
    with open_frames(str(write(tmp_path, bytes(content))), 3) as frames:
        count = len(frames.times)
        whole = frames.read(list(range(count)))
        for number in range(0, count, 3):
            np.testing.assert_array_equal(frames.read([number])[0], whole[number])


def test_a_member_of_a_tar_is_read_from_memory(tmp_path):
    with tarfile.open(tmp_path / "shard.tar", "w") as tar:
        for name in ("a/one.mp4", "b/two.avi"):
            content = encode("mp4 with B-frames" if name.endswith("mp4") else "avi")
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    listing = list_videos((str(tmp_path),))
    assert [path.rpartition("/")[2] for path in listing.paths] == ["one.mp4", "two.avi"]
    for path in listing.paths:
        with open_frames(path, 3) as frames:
            assert [number_of(each) for each in frames.read([3, 33])] == [3, 33]


def test_a_changed_file_is_numbered_again(tmp_path):
    file = write(tmp_path, encode("avi", count=40))
    open_frames(str(file), 3).close()
    write(tmp_path, encode("avi", count=20))
    with open_frames(str(file), 3) as frames:
        assert len(frames.times) == 20


def test_indexes_of_many_files_take_bounded_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(INDEXES, "capacity", 100)
    for number in range(5):
        open_frames(str(write(tmp_path, encode("avi"), f"{number}.avi")), 3).close()
    assert INDEXES.total <= 100 and len(INDEXES.values) == 2


def test_frame_folders_are_in_natural_order(tmp_path):
    folder = tmp_path / "walk" / "clip 1"
    folder.mkdir(parents=True)
    for number in range(12):
        Pillow.fromarray(numbered_frame(number)).save(folder / f"frame_{number}.png")
    (path,) = list_videos((str(tmp_path),)).paths
    assert path == str(folder)
    with open_frames(path, 3) as frames:
        assert [number_of(each) for each in frames.read([0, 2, 2, 10])] == [0, 2, 2, 10]
        assert frames.size == SIZE and len(frames.times) == 12


@pytest.mark.parametrize(("ending", "options"), [("gif", {}), ("png", {}), ("webp", {"lossless": True})])
def test_animated_images_are_clips(ending, options, tmp_path):
    pictures = [Pillow.fromarray(numbered_frame(number)) for number in range(10)]
    durations = [50 * (number + 1) for number in range(10)]
    file = tmp_path / f"clip.{ending}"
    pictures[0].save(file, save_all=True, append_images=pictures[1:], duration=durations, **options)
    with open_frames(str(file), 3) as frames:
        assert [number_of(each) for each in frames.read([1, 4, 9])] == [1, 4, 9]
        np.testing.assert_allclose(frames.times, np.cumsum([0, *durations[:-1]]) / 1000)
    with open_frames(str(file), 1) as frames:
        assert number_of(frames.read([6])[0]) == 6


def test_an_image_is_a_clip_of_one_frame(tmp_path):
    Pillow.fromarray(numbered_frame(9)).save(tmp_path / "one.png")
    with open_frames(str(tmp_path / "one.png"), 3) as frames:
        assert len(frames.times) == 1 and [number_of(each) for each in frames.read([0, 0])] == [9, 9]


@pytest.mark.parametrize("axes", [3, 4])
def test_arrays_are_mapped_and_not_read(axes, tmp_path):
    clip = np.stack([numbered_frame(number) for number in range(10)])
    np.save(tmp_path / "clip.npy", clip[..., 0] if axes == 3 else clip)
    with open_frames(str(tmp_path / "clip.npy"), 3) as frames:
        assert isinstance(frames, ArrayFrames) and isinstance(frames.array, np.memmap)
        assert [number_of(each) for each in frames.read([0, 7])] == [0, 7]


def npy(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def huge_frames() -> bytes:
    """Return a clip of JPEG frames whose headers state 60,000 x 60,000 pixels."""
    return encode("motion jpeg").replace(b"\x08\x00\x30\x00\x40", b"\x08\xea\x60\xea\x60")


def huge_header() -> bytes:
    """Return a clip without compression whose container states 60,000 x 60,000 pixels."""
    return encode("raw").replace(bytes([64, 0, 0, 0, 48, 0, 0, 0]), (60_000).to_bytes(4, "little") * 2)


BAD = {  # content, words of the reason
    "empty": (lambda: b"", "the file is empty"),
    "zeros": (lambda: bytes(5000), "full of zeros"),
    "text": (lambda: b"hello, this is text", "text, not a video"),
    "page": (lambda: b"<html><body>404</body></html>", "an HTML page, not a video"),
    "playlist": (lambda: b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n", "text, not a video"),
    "noise": (lambda: np.random.default_rng(0).bytes(5000), "it is damaged, or of a format that is not read"),
    "sound": (encode_sound, "audio only"),
    "no index": (lambda: encode("mp4 with B-frames")[:2000], "it is damaged, or of a format that is not read"),
    "huge frames": (huge_frames, "decoded"),
    "huge header": (huge_header, "decoded"),
    "floats": (lambda: npy(np.zeros((4, 8, 8, 3))), "must be uint8 of shape"),
    "five channels": (lambda: npy(np.zeros((4, 8, 8, 5), np.uint8)), "must be uint8 of shape"),
    "objects": (lambda: npy(np.array([{}, 1], object)), "not a plain numpy array"),
    "cut array": (lambda: npy(np.zeros((4, 8, 8, 3), np.uint8))[:-50], "truncated"),
    "damaged frames": (lambda: wipe_frames(encode("avi")), "can be decoded"),
}


def wipe_frames(content: bytes) -> bytes:
    """Overwrite the compressed frames of an AVI file."""
    start = content.index(b"movi")
    return content[:start] + content[start : start + 12] + bytes(len(content) - start - 12)


@pytest.mark.parametrize("name", BAD)
def test_a_bad_file_has_one_reason(name, tmp_path):
    content, words = BAD[name]
    with pytest.raises(Undecodable) as error:
        open_frames(str(write(tmp_path, content())), 3)
    assert words in str(error.value) and "\n" not in str(error.value)


def test_a_bad_folder_has_one_reason(tmp_path):
    def reason() -> str:
        with pytest.raises(Undecodable) as error, open_frames(str(tmp_path), 3) as frames:
            frames.read([0, 1])
        return str(error.value)

    assert "no images" in reason()
    for number, size in enumerate([(32, 32), (32, 40)]):
        Pillow.new("RGB", size).save(tmp_path / f"{number}.png")
        os.utime(tmp_path, ns=(number, number))
    assert reason() == "frame 1.png has 32×40 pixels, 0.png has 32×32: give all frames of a folder one size"
    (tmp_path / "1.png").write_bytes(b"")
    assert reason() == "frame 1.png: the file is empty"


def test_a_missing_file_stops_a_run(tmp_path, monkeypatch):
    monkeypatch.setattr("openjepa.data.image_io.READ_ATTEMPTS", 1)
    with pytest.raises(OSError, match="put it back"):
        open_frames(str(tmp_path / "gone.mp4"), 3)


def test_without_pyav_one_sentence_names_the_extra_and_folders_work(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    file = write(tmp_path, encode_without_av(), "walk.mp4")
    with pytest.raises(Undecodable) as error:
        open_frames(str(file), 3)
    assert str(error.value) == "reading walk.mp4 needs PyAV: pip install 'openjepa[video]'"
    np.save(tmp_path / "clip.npy", np.zeros((2, 8, 8, 3), np.uint8))
    with open_frames(str(tmp_path / "clip.npy"), 3) as frames:
        assert len(frames.read([0, 1])) == 2


def encode_without_av() -> bytes:
    return b"\0\0\0\x20ftypisom\0\0\2\0isomiso2avc1mp41" + bytes(100)


def test_videos_are_known_by_their_first_bytes():
    for name in ENCODINGS:
        assert is_video(encode(name, count=3)[:512]) or name == "stream without time stamps"
    assert not is_video(b"\x89PNG\r\n\x1a\n" + bytes(100)) and not is_video(b"text")


def make_tree(folder: Path) -> None:
    for label in ("run", "walk"):
        for clip in ("c1", "c2"):
            (folder / label / clip).mkdir(parents=True)
            for number in range(3):
                Pillow.new("RGB", (8, 8), (number * 50,) * 3).save(folder / label / clip / f"{number}.png")


def test_a_tree_of_frame_folders_has_the_classes_above_them(tmp_path):
    from openjepa.modalities.video import Video

    make_tree(tmp_path)
    Pillow.new("RGB", (8, 8)).save(tmp_path / "run" / "poster.png")
    modality = Video(root=(str(tmp_path),), mean=(0.5,) * 3, std=(0.25,) * 3)
    listing = modality.listing()
    assert [path.removeprefix(f"{tmp_path}/") for path in listing.paths] == ["run/c1", "run/c2", "walk/c1", "walk/c2"]
    data = modality.dataset(listing)
    assert data.classes == ("run", "walk") and data.label.tolist() == [0, 0, 1, 1]
    assert any(each.reason == "images outside folders of frames" and each.count == 1 for each in listing.left_out)


def test_the_contents_of_frames_make_the_fingerprint(tmp_path):
    for name in ("one", "two"):
        make_tree(tmp_path / name)
    before = list_videos((str(tmp_path / "one"),)).fingerprint
    assert list_videos((str(tmp_path / "two"),)).fingerprint == before
    assert list_videos((str(tmp_path / "one/run/c1"),)).fingerprint == (
        list_videos((str(tmp_path / "two/run/c1"),)).fingerprint
    )
    Pillow.new("RGB", (8, 8), "red").save(tmp_path / "one" / "run" / "c1" / "1.png")
    assert list_videos((str(tmp_path / "one"),)).fingerprint != before


@pytest.mark.parametrize("separator", [" ", ",", "\t", ", "])
def test_a_table_gives_paths_and_labels(separator, tmp_path):
    for name in ("b.mp4", "a a.mp4"):
        write(tmp_path, b"x", name)
    make_tree(tmp_path / "frames")
    lines = ["b.mp4", f"{tmp_path}/a a.mp4", "frames/walk/c1"]
    table = tmp_path / "train.csv"
    table.write_text("".join(f"{path}{separator}{label}\n" for label, path in enumerate(lines, 3)), encoding="utf-8")
    listing = list_videos((str(table),))
    found = {
        path.removeprefix(f"{tmp_path}/"): label for path, label in zip(listing.paths, listing.labels, strict=True)
    }
    assert found == {"b.mp4": "3", "a a.mp4": "4", "frames/walk/c1": "5"}
    table.write_text("\n".join(lines), encoding="utf-8")
    assert list_videos((str(table),)).labels == () and len(list_videos((str(table),)).paths) == 3


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("gone.mp4 1\n", "line 1 of .* names no file or folder: a table has no header"),
        ("b.mp4 1\ngone.mp4 2\n", "line 2 of .*: correct the path or remove the line"),
        ("b.mp4 1\nb.mp4 2\n", "line 2 of .* gives .*b.mp4 the label '2', an earlier one '1'"),
        ("b.mp4 1\nc.mp4\n", "has labels, but none for .*c.mp4"),
        ("\n", "names no video"),
    ],
)
def test_a_bad_table_is_refused_in_one_sentence(text, words, tmp_path):
    for name in ("b.mp4", "c.mp4"):
        write(tmp_path, b"x", name)
    (tmp_path / "t.csv").write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=words):
        list_videos((str(tmp_path / "t.csv"),))


def test_a_folder_without_videos_is_refused_as_such(tmp_path):
    write(tmp_path, b"x", "notes.txt")
    with pytest.raises(UserError, match="^no videos in .*mp4.*left out: other files: 1 .txt"):
        list_videos((str(tmp_path),))
    with pytest.raises(UserError, match="single videos cannot be read from it"):
        list_videos((str(write(tmp_path, b"x", "a.tar.gz")),))


def test_real_clips_are_read_as_a_whole(jepa_data):
    for file in sorted((jepa_data("video") / "clips").iterdir())[:2]:
        check_reading(file, calls=3)
