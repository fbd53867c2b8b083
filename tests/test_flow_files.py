"""Flow files keep values and unknown pixels; damaged ones are refused; colors and baselines follow the motion."""

import struct
import zlib

import numpy as np
import pytest

from benchmarks.flow_baselines import end_point_error, horn_schunck, interpolate, move_discs, zero_flow
from openjepa.core.errors import UserError
from openjepa.data.deep_png import encode_png16
from openjepa.data.flow_files import Flow, read_flow, write_flow
from openjepa.viz.flow_colors import color_flow, color_wheel

SIGNATURE = b"\x89PNG\r\n\x1a\n"


def random_flow(height: int = 5, width: int = 7) -> Flow:
    """Draw motion in steps of 1/64 pixel, which both formats hold, with some unknown pixels."""
    rng = np.random.default_rng(0)
    valid = rng.random((height, width)) < 0.8
    uv = rng.integers(-(2**15) + 1, 2**15, (2, height, width)) / 64
    return Flow(np.where(valid, uv, 0).astype(np.float32), valid)


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(rows: bytes, width: int, height: int, kind: tuple[int, ...] = (16, 2, 0, 0, 0)) -> bytes:
    """Return a PNG file of filtered rows."""
    header = struct.pack(">IIBBBBB", width, height, *kind)
    return SIGNATURE + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def filter_rows(values: np.ndarray, kinds: list[int]) -> bytes:
    """Filter rows byte by byte, as section 9 of the PNG specification defines the five filters."""
    height = len(values)
    rows = values.astype(">u2").tobytes()
    size, out = len(rows) // height, bytearray()

    def byte(y: int, at: int) -> int:
        return rows[y * size + at] if y >= 0 and at >= 0 else 0

    for y, kind in enumerate(kinds):
        out.append(kind)
        for at in range(size):
            left, above, corner = byte(y, at - 6), byte(y - 1, at), byte(y - 1, at - 6)
            estimate = left + above - corner
            paeth = min((left, above, corner), key=lambda each: abs(estimate - each))  # the first of equals
            out.append((byte(y, at) - (0, left, above, (left + above) // 2, paeth)[kind]) % 256)
    return bytes(out)


def smooth_pattern(shift: tuple[float, float]) -> np.ndarray:
    """Return waves of gray values that have moved by a shift to the right and down."""
    y, x = np.indices((60, 80)).astype(np.float32)
    x, y = x - shift[0], y - shift[1]
    waves = np.sin(x / 5 + y / 9) + np.cos(x / 8 - y / 4) + np.sin(x / 17) * np.cos(y / 13)
    return (128 + 30 * waves).astype(np.float32)


# .flo files


def test_a_flo_file_is_tag_width_height_and_pairs_by_row(tmp_path):
    file = tmp_path / "hand.flo"
    file.write_bytes(struct.pack("<fii12f", 202021.25, 3, 2, *range(12)))
    flow = read_flow(file)
    assert flow.uv.shape == (2, 2, 3) and flow.uv.dtype == np.float32 and flow.valid.all()
    assert flow.uv[0].tolist() == [[0, 2, 4], [6, 8, 10]] and flow.uv[1].tolist() == [[1, 3, 5], [7, 9, 11]]
    write_flow(tmp_path / "again.flo", flow)
    content = (tmp_path / "again.flo").read_bytes()
    assert content == file.read_bytes() and content.startswith(b"PIEH")


def test_values_beyond_1e9_and_nan_are_unknown(tmp_path):
    file, inf, nan = tmp_path / "unknown.flo", float("inf"), float("nan")
    values = (1.0, 2.0, 1e10, 0.0, 0.0, -2e9, nan, 1.0, 3.0, inf, 1e9, -1e9)
    file.write_bytes(struct.pack("<fii12f", 202021.25, 6, 1, *values))
    flow = read_flow(file)
    assert flow.valid.tolist() == [[True, False, False, False, False, True]]
    assert flow.uv[:, 0, 1:5].tolist() == [[0.0] * 4] * 2
    write_flow(file, flow)
    assert struct.unpack_from("<2f", file.read_bytes(), 12 + 8) == (1e10, 1e10)


@pytest.mark.parametrize("ending", ["flo", "png"])
def test_flow_is_equal_after_a_round_trip(tmp_path, ending):
    flow = random_flow()
    write_flow(tmp_path / f"flow.{ending}", flow)
    again = read_flow(tmp_path / f"flow.{ending}")
    assert np.array_equal(again.uv, flow.uv) and np.array_equal(again.valid, flow.valid)
    assert again.uv.dtype == np.float32 and again.valid.dtype == bool


def flo(width: int, height: int, size: int) -> bytes:
    """Return a .flo file with so many bytes after its header."""
    return struct.pack("<fii", 202021.25, width, height) + bytes(size)


BAD_FLO = {  # what is wrong -> the file, and words of the message
    "empty": (b"", "no flow file"),
    "big-endian": (b"HEIP" + bytes(20), "no flow file"),
    "half a header": (b"PIEH\1\0", "truncated"),
    "a byte too few": (flo(3, 2, 47), "truncated: 59 bytes"),
    "a byte too many": (flo(3, 2, 49), "damaged: 61 bytes"),
    "giant": (flo(2**31 - 1, 2**31 - 1, 0), "truncated: 12 bytes"),
    "negative": (flo(-1, 2, 16), "at least 1×1"),
    "both negative": (flo(-1, -2, 16), "at least 1×1"),
    "no columns": (flo(0, 2, 0), "at least 1×1"),
}


@pytest.mark.parametrize("name", BAD_FLO)
def test_damaged_and_hostile_flo_files_are_refused(tmp_path, name):
    content, words = BAD_FLO[name]
    (tmp_path / "bad.flo").write_bytes(content)
    with pytest.raises(UserError, match=words):
        read_flow(tmp_path / "bad.flo")


def test_a_missing_file_is_a_user_error(tmp_path):
    with pytest.raises(UserError, match="cannot be read"):
        read_flow(tmp_path / "missing.flo")


# PNG files of 16 bits


def test_a_png_holds_u_v_in_steps_of_a_64th_around_2_to_the_15_and_valid(tmp_path):
    file = tmp_path / "hand.png"
    pixels = struct.pack(">9H", 2**15 + 64, 2**15 - 32, 1, 0, 0, 0, 2**16 - 1, 0, 1)
    file.write_bytes(png(b"\0" + pixels, 3, 1))
    flow = read_flow(file)
    assert flow.valid.tolist() == [[True, False, True]]
    assert flow.uv[:, 0].T.tolist() == [[1.0, -0.5], [0.0, 0.0], [511.984375, -512.0]]


@pytest.mark.parametrize("kinds", [[kind] * 6 for kind in range(5)] + [[4, 3, 2, 1, 0, 4]])
def test_every_filter_of_png_is_undone(tmp_path, kinds):
    rng, file = np.random.default_rng(0), tmp_path / "filtered.png"
    wide, narrow = rng.integers(0, 2**16, (6, 4, 3)), 257 * rng.integers(0, 5, (6, 40, 3))  # narrow: Paeth has ties
    values = np.concatenate([wide, narrow], 1)
    values[..., 2] = 1
    file.write_bytes(png(filter_rows(values, kinds), 44, 6))
    uv = (values[..., :2].astype(np.float32) - 2**15) / 64
    assert np.array_equal(read_flow(file).uv, uv.transpose(2, 0, 1))


def test_another_decoder_reads_the_same_values():
    codecs = pytest.importorskip("imagecodecs")
    values = np.random.default_rng(0).integers(0, 2**16, (6, 4, 3), dtype=np.uint16)
    assert np.array_equal(codecs.png_decode(encode_png16(values)), values)


ROWS = filter_rows(np.ones((2, 3, 3), np.uint16), [0, 0])


WHOLE, PACKED = png(ROWS, 3, 2), chunk(b"IDAT", zlib.compress(ROWS))
BAD_PNG = {  # what is wrong -> the file, and words of the message
    "no chunks": (SIGNATURE, "truncated"),
    "no end of the pixels": (WHOLE[:-20], "truncated"),
    "a row's byte too few": (png(ROWS[:-1], 3, 2), "truncated"),
    "a byte too many": (png(ROWS + b"\0", 3, 2), "more than the 38 bytes"),
    "a bomb": (png(bytes(10**6), 3, 2), "more than the 38 bytes"),
    "giant": (png(ROWS, 2**31 - 1, 2**31 - 1), "million"),
    "larger than its pixels": (png(ROWS, 9_000, 9_000), "cannot hold"),
    "no columns": (png(ROWS, 0, 2), "at least 1×1"),
    "an unknown filter": (png(b"\5" + ROWS[1:], 3, 2), "filter 5"),
    "8 bits": (png(ROWS, 3, 2, (8, 2, 0, 0, 0)), "must have 16 bits"),
    "interlaced": (png(ROWS, 3, 2, (16, 2, 0, 0, 1)), "interlacing 1"),
    "no checksum of the pixels": (WHOLE.replace(PACKED, chunk(b"IDAT", zlib.compress(ROWS)[:-2])), "truncated"),
    "a flipped bit": (WHOLE.replace(b"IDAT\x78", b"IDAT\x79"), "checksum"),
    "no Deflate": (WHOLE.replace(PACKED, chunk(b"IDAT", ROWS)), "damaged"),
    "a picture": (png(filter_rows(np.full((2, 3, 3), 2, np.uint16), [0, 0]), 3, 2), "must be 0 or 1"),
}


@pytest.mark.parametrize("name", BAD_PNG)
def test_damaged_and_hostile_png_files_are_refused(tmp_path, name):
    content, words = BAD_PNG[name]
    (tmp_path / "bad.png").write_bytes(content)
    with pytest.raises(UserError, match=words):
        read_flow(tmp_path / "bad.png")


def test_flow_that_a_format_cannot_hold_is_refused(tmp_path):
    flow = Flow(np.full((2, 2, 3), 600.0, np.float32), np.ones((2, 3), bool))
    with pytest.raises(UserError, match=r"write a \.flo file"):
        write_flow(tmp_path / "flow.png", flow)
    with pytest.raises(UserError, match=r"must end in \.flo or \.png"):
        write_flow(tmp_path / "flow.jpg", flow)
    with pytest.raises(UserError, match="set valid to False"):
        write_flow(tmp_path / "flow.flo", flow._replace(uv=flow.uv * np.float32("nan")))
    with pytest.raises(UserError, match="must have the shape"):
        write_flow(tmp_path / "flow.flo", flow._replace(valid=np.ones((3, 2), bool)))
    assert not list(tmp_path.iterdir())


# colors


def test_directions_have_distinct_colors_and_no_motion_is_white():
    uv = np.array([[[1, 0, -1, 0, 0]], [[0, 1, 0, -1, 0]]], np.float32)  # right, down, left, up, none
    *directions, none = color_flow(uv)[0].astype(int)
    assert none.tolist() == [255, 255, 255] and directions[0].tolist() == [255, 0, 0]
    distances = [np.abs(one - other).max() for n, one in enumerate(directions) for other in directions[:n]]
    assert min(distances) > 100
    assert [each.argmin() for each in directions] == [1, 2, 0, 1]  # red, yellow, cyan and violet lack these


def test_longer_motion_is_more_saturated_and_darker_beyond_the_largest():
    uv = np.array([[[0.5, 1.0, 2.0]], [[0.0, 0.0, 0.0]]], np.float32)
    assert color_flow(uv, largest=1.0)[0].tolist() == [[255, 128, 128], [255, 0, 0], [191, 0, 0]]
    with pytest.raises(UserError, match="largest must be > 0"):
        color_flow(uv, largest=0.0)


def test_unknown_pixels_are_black_and_do_not_count_as_the_longest():
    uv = np.array([[[1.0, np.nan, 1e10, 9.0]], [[0.0, 0.0, 0.0, 0.0]]], np.float32)
    colors = color_flow(uv, valid=np.array([[True, True, True, False]]))
    assert colors[0].tolist() == [[255, 0, 0], [0, 0, 0], [0, 0, 0], [0, 0, 0]]


def test_the_wheel_has_no_jump_between_directions_and_the_colors_of_its_directions():
    angle = np.linspace(0, 2 * np.pi, 721)[None]
    circle = color_flow(np.stack([np.cos(angle), np.sin(angle)]), largest=1.0).astype(int)
    assert np.abs(np.diff(circle, axis=1)).max() < 10
    wheel = color_wheel(101)
    assert wheel.shape == (101, 101, 3) and (wheel[50, 50] == 255).all() and (wheel[0, 0] == 255).all()
    assert np.abs(wheel[50, 100].astype(int) - [255, 0, 0]).max() < 5


# baselines


def test_horn_schunck_finds_a_shift_of_a_smooth_pattern():
    shift = (1.5, -0.5)
    first, second = smooth_pattern((0.0, 0.0)), smooth_pattern(shift)
    flow = horn_schunck(first, second, iterations=50)
    valid = np.zeros(first.shape, bool)
    valid[8:-8, 8:-8] = True
    truth = Flow(np.broadcast_to(np.float32(shift)[:, None, None], flow.shape), valid)
    error = end_point_error(flow, truth)
    assert np.hypot(*(flow - truth.uv))[valid].max() < 0.2
    assert error < 0.1 < end_point_error(zero_flow(first, second), truth) == pytest.approx(np.hypot(*shift))


def test_smaller_sizes_of_the_frames_reach_longer_motion():
    shift = np.float32([12.0, 0.0])[:, None, None]
    first, second = smooth_pattern((0.0, 0.0)), smooth_pattern((12.0, 0.0))
    flows = [horn_schunck(first, second, iterations=50, levels=levels) for levels in (1, 3)]
    one, three = (np.hypot(*(flow - shift))[12:-12, 16:-16].mean() for flow in flows)
    assert three < 0.02 < 0.1 < one


def test_end_point_error_is_the_mean_distance_over_valid_pixels():
    truth = Flow(np.zeros((2, 1, 3), np.float32), np.array([[True, True, False]]))
    flow = np.array([[[3.0, 0.0, 100.0]], [[4.0, 1.0, 100.0]]], np.float32)
    assert end_point_error(flow, truth) == pytest.approx(3.0)


def test_synthetic_motion_leads_to_the_same_gray_values():
    pair = move_discs("waves", smooth_pattern((0.0, 0.0)), np.random.default_rng(0))
    y, x = np.indices(pair.first.shape)
    warped = interpolate(pair.second, x + pair.truth.uv[0], y + pair.truth.uv[1])
    assert np.median(np.abs(warped - pair.first)) < 0.5  # not where a disc covers another
    assert len(np.unique(pair.truth.uv[0])) > 5


def test_middlebury_files_are_read(jepa_data):
    flow = read_flow(jepa_data("flow") / "middlebury" / "RubberWhale" / "flow10.flo")
    assert flow.valid.shape == (388, 584) and 0.9 < flow.valid.mean() < 1
    assert np.abs(flow.uv).max() < 10
