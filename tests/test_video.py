"""Video as a modality: which frames a clip has, how tubelets are cut, and what training and evaluation read."""

import numpy as np
import pytest
import torch

from openjepa.core.errors import UserError
from openjepa.core.rng import CounterRNG
from openjepa.data import video_files
from openjepa.data.clips import Span, choose_frames, parse_clip_name, segment_spans
from openjepa.data.video_files import VideoArray
from openjepa.modalities.video import Video
from tests.conftest import replace

SMALL = Video(frames=4, stride=2, size=(16, 24), patch=8, mean=(0.4, 0.5, 0.6), std=(0.2, 0.25, 0.3))
TIMES = np.arange(20) / 10


def frames(u: float, times=TIMES, span: Span | None = None, **settings) -> list[int]:
    return choose_frames(replace(SMALL, **settings), times, u, span or Span()).tolist()


def test_a_clip_starts_anywhere_and_ends_within_the_file():
    assert frames(0.0) == [0, 2, 4, 6] and frames(0.9999) == [13, 15, 17, 19]
    starts = [frames(u / 140)[0] for u in range(140)]
    assert np.bincount(starts).tolist() == [10] * 14


def test_a_file_that_is_too_short_holds_its_last_frame():
    assert frames(0.5, TIMES[:5]) == [0, 2, 4, 4] and frames(0.5, TIMES[:1]) == [0, 0, 0, 0]
    assert frames(0.5, TIMES[:5], fps=5.0) == [0, 2, 4, 4]


def test_a_whole_file_of_as_many_frames_as_a_clip_is_the_clip():
    assert frames(0.5, TIMES[:4]) == frames(0.5, TIMES[:4], fps=2.0) == [0, 1, 2, 3]
    assert frames(0.0, TIMES[:4], Span(0.2, 0.2)) == [2, 3, 3, 3]  # one of several clips of the file


def test_without_a_stride_the_clip_is_spread_evenly_over_the_file():
    assert frames(0.5, stride=0) == [2, 7, 12, 17] and frames(0.0, stride=0) == [0, 5, 10, 15]


def test_at_a_rate_of_frames_a_clip_follows_the_clock_of_the_file():
    """Frames 10 to 14 last twice as long as the others."""
    assert frames(0.0, fps=5.0) == [0, 2, 4, 6]
    times = np.concatenate([np.arange(10) / 10, 1.0 + np.arange(5) / 5])
    assert frames(0.0, times, span=Span(0.8, 0.05), fps=5.0) == [8, 10, 11, 12]


def test_parts_of_a_file_share_its_frames_without_gap_or_overlap():
    spans = segment_spans(TIMES, 0.5)
    assert [span.start for span in spans] == [0.0, 0.5, 1.0, 1.5]
    firsts = {span: {frames(u / 100, span=span)[0] for u in range(100)} for span in spans}
    assert [sorted(each) for each in firsts.values()] == [
        [0, 1, 2, 3, 4], [5, 6, 7, 8, 9], [10, 11, 12, 13], [15],
    ]  # fmt: skip


def test_a_clip_is_named_by_its_second():
    assert parse_clip_name("a#t=b/c.mp4#t=1.5") == ("a#t=b/c.mp4", 1.5) and parse_clip_name("c.mp4") == ("c.mp4", None)


def test_tubelets_have_the_order_of_a_three_dimensional_convolution():
    clip = torch.randint(0, 256, (2, 4, 3, 16, 24), dtype=torch.uint8)
    tokens, embed = SMALL.tokens(clip), SMALL.tokenizer(8)
    embedded = embed(tokens).x
    convolved = embed.proj(SMALL.normalize(clip).transpose(1, 2)).flatten(2).transpose(1, 2)
    torch.testing.assert_close(embedded, convolved)


def test_positions_are_column_row_and_time_in_raster_order():
    pos = SMALL.tokens(torch.zeros(1, 4, 3, 16, 24, dtype=torch.uint8)).pos[0]
    assert pos[[0, 1, 3, 6]].tolist() == [[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]]
    longer = SMALL.tokens(torch.zeros(1, 8, 3, 16, 24, dtype=torch.uint8)).pos[0]
    assert longer[:, 2].unique().tolist() == [-0.25, 0.25, 0.75, 1.25]


def moving_dot() -> torch.Tensor:
    """Return clips of 12 frames in which frame t has the gray value 10 + t, alike everywhere."""
    return (10 + torch.arange(12)).view(1, 12, 1, 1, 1).expand(6, 12, 3, 20, 30).to(torch.uint8)


def test_all_frames_of_a_training_clip_have_the_same_crop():
    ramp = torch.arange(30).expand(6, 12, 3, 20, 30).to(torch.uint8)
    data = VideoArray(replace(SMALL, stride=1, crop_scale=(0.3, 0.5)), ramp, torch.zeros(6).long(), "ramp")
    view = data.read(torch.arange(6), CounterRNG.of(0, 0, np.arange(6))).views[0]
    assert (view == view[:, :1]).all() and len({tuple(each[0, 0, 0].tolist()) for each in view}) > 1


def test_a_region_is_all_that_a_clip_has():
    """Rows 5 to 14 and columns 15 to 29 of 20×30 pixels, in training and evaluation."""
    pixels = torch.zeros(6, 12, 3, 20, 30, dtype=torch.uint8)
    pixels[..., 5:15, 15:] = 200
    config = replace(SMALL, stride=1, region=(0.5, 0.25, 1.0, 0.75), crop_scale=(0.3, 1.0))
    data = VideoArray(config, pixels, torch.zeros(6).long(), "region")
    for rng in (None, CounterRNG.of(0, 0, np.arange(6))):
        assert (data.read(torch.arange(6), rng).views[0] == 200).all()
    assert (config.read(pixels[0]) == 200).all() and not (SMALL.read(pixels[0]) == 200).all()
    whole = VideoArray(replace(config, region=(0.0, 0.0, 1.0, 1.0)), pixels, torch.zeros(6).long(), "whole")
    assert (whole.read(torch.arange(6), None).views[0] == 0).any()


def test_training_draws_other_frames_and_evaluation_reads_the_middle():
    data = VideoArray(SMALL, moving_dot(), torch.zeros(6).long(), "dot")
    assert data.read(torch.arange(2), None).views[0][:, :, 0, 0, 0].tolist() == [[13, 15, 17, 19]] * 2
    starts = set()
    for step in range(20):
        view = data.read(torch.arange(6), CounterRNG.of(0, step, step * 6 + np.arange(6))).views[0]
        values = view[:, :, 0, 0, 0].int()
        assert (values.diff(dim=1) == 2).all()
        starts |= set(values[:, 0].tolist())
    assert starts == {10, 11, 12, 13, 14, 15}


def test_a_clip_is_the_same_alone_and_in_a_batch():
    data = VideoArray(SMALL, torch.randint(0, 256, (6, 12, 3, 20, 30)).byte(), torch.zeros(6).long(), "noise")
    rng = CounterRNG.of(0, 3, np.arange(6))
    whole, alone = data.read(torch.arange(6), rng), data.read(torch.tensor([4]), rng.select(np.array([4])))
    assert torch.equal(whole.views[0][4], alone.views[0][0])


def test_a_file_is_the_same_alone_and_in_a_batch(tmp_path, monkeypatch):
    """Files of different sizes, also with a damaged one between them, and when few clips are cropped together."""
    dice, rng = np.random.default_rng(0), CounterRNG.of(0, 5, np.arange(7))
    for number, side in enumerate((16, 16, 24, 16, 16, 16)):
        np.save(tmp_path / f"{number}.npy", dice.integers(0, 256, (9, side, 20, 3), np.uint8))
    (tmp_path / "3.npy").write_bytes((tmp_path / "3.npy").read_bytes()[:500])
    config = Video(root=(str(tmp_path),), frames=4, stride=2, size=(8, 16), patch=8, eval_clips=2)
    data = config.dataset(config.listing())
    index = torch.tensor([0, 1, 2, 3, 4, 5, 3])
    for bytes_together in (video_files.STACKED_BYTES, 1):
        monkeypatch.setattr(video_files, "STACKED_BYTES", bytes_together)
        for drawn in (rng, None):
            whole = data.read(index, drawn)
            alone = [data.read(index[row : row + 1], drawn and drawn.select(np.array([row]))) for row in range(7)]
            for view, parts in zip(whole.views, zip(*(each.views for each in alone), strict=True), strict=True):
                assert torch.equal(view, torch.cat(parts))
            assert [each.path for each in whole.skipped] == [str(tmp_path / "3.npy")] * 2
            assert whole.label.tolist() == [each.label.item() for each in alone]


def test_arrays_and_tensors_in_hand_are_read_as_the_middle_of_a_file():
    tensor = moving_dot()[0]
    assert SMALL.read(tensor)[:, 0, 0, 0].tolist() == [13, 15, 17, 19]
    assert torch.equal(SMALL.read(tensor.permute(0, 2, 3, 1).numpy()), SMALL.read(tensor))


@pytest.mark.parametrize(
    ("settings", "advice"),
    [
        ({"frames": 5}, "--data.frames 4"),
        ({"size": (17, 24)}, "--data.size 16 24"),
        ({"channels": 4}, "1 .gray. or 3"),
        ({"stride": -1}, "--data.stride must be >= 0"),
        ({"crop_scale": (0.0, 1.0)}, "--data.crop-scale"),
        ({"region": (0.6, 0.0, 0.4, 1.0)}, "--data.region"),
    ],
)
def test_settings_that_make_no_clip_are_refused_with_what_to_type(settings, advice):
    with pytest.raises(UserError, match=advice):
        replace(SMALL, **settings)


@pytest.mark.parametrize(
    "source", [np.zeros((4, 8, 8), np.uint8), np.zeros((4, 8, 8, 3)), torch.zeros(4, 1, 8, 8).byte()]
)
def test_what_is_no_video_is_refused_with_the_shape_that_is(source):
    with pytest.raises(UserError, match="give a path|uint8"):
        SMALL.read(source)


def test_files_that_are_cut_otherwise_are_other_data(tmp_path):
    np.save(tmp_path / "clip.npy", np.zeros((60, 8, 8, 3), np.uint8))
    fingerprints = {
        (data := replace(SMALL, root=(str(tmp_path),), every=every)).dataset(data.listing()).fingerprint
        for every in (0.0, 1.0, 2.0)
    }
    assert len(fingerprints) == 3
