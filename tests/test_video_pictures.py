"""Pictures of clips, pages that play them, and search among them."""

import base64
import io
import re
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image as Pillow

from openjepa.cli.embed import embed
from openjepa.cli.pretrain import pretrain
from openjepa.cli.search import search
from openjepa.cli.settings import Embed, Show
from openjepa.cli.show import show
from openjepa.core.capabilities import plural_of
from openjepa.core.errors import UserError
from openjepa.core.types import Layout
from openjepa.data.synthetic.moving_scenes import write_clips
from openjepa.evaluation.index import open_index
from openjepa.evaluation.predictive_runs import load_predictive_method
from openjepa.evaluation.settings import Search
from openjepa.interop.inputs import source_exists
from openjepa.masking.causal import Causal
from openjepa.masking.region import hide_region
from openjepa.masking.tube import Tube
from openjepa.modalities.image import Image
from openjepa.modalities.series import Series
from openjepa.modalities.video import Video
from openjepa.training.config import Pretrain
from openjepa.viz.animation import animate_tiles, to_gif
from openjepa.viz.board import Board, lay_out
from openjepa.viz.clip_masks import draw_clip_masks, hide_tubelets
from openjepa.viz.clip_predictions import fill
from openjepa.viz.coverage import measure_coverage
from openjepa.viz.explorer.session import Session
from openjepa.viz.inputs import ImageBatch
from openjepa.viz.map_page import thumbnail_sprite
from openjepa.viz.prediction_error import predict_hidden
from openjepa.viz.predictions import prediction_masks
from openjepa.viz.report import write_report
from openjepa.viz.settings import Explore, PredictionOptions, SimilarityOptions, TrackOptions
from openjepa.viz.thumbnails import PageThumbnails
from openjepa.viz.track import follow
from tests.conftest import TINY, replace

DATA: Any = Video(frames=8, stride=1, size=(32, 32), patch=8, mean=(0.4, 0.5, 0.6), std=(0.2, 0.25, 0.3))
SMALL = {"steps": 2, "batch_size": 4, "device": "cpu", "precision": "fp32", "threads": 1, "workers": 0, "log_every": 1}


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clips")
    write_clips(folder, 12, 10, 40, seed=0)
    return folder


@pytest.fixture(scope="module")
def run(clips, tmp_path_factory):
    out = tmp_path_factory.mktemp("video") / "run"
    data = replace(DATA, root=(str(clips),))
    return pretrain(Pretrain(data, TINY, masks=Tube(), out=out, report=False, **SMALL))


def batch(count=2, **settings) -> ImageBatch:
    view = torch.randint(0, 256, (count, 8, 3, 32, 32), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    names = tuple(f"{row}.mp4" for row in range(count))
    return ImageBatch(view, names, ("",) * count, replace(DATA, **settings), count, count)


def frame_count(file: Any) -> int:
    return getattr(Pillow.open(file), "n_frames", 1)


def playing(page: str) -> list[int]:
    """Return the number of frames of each animated picture in a page."""
    sources = re.findall(r"data:image/webp;base64,([A-Za-z0-9+/=]+)", page)
    return [frame_count(io.BytesIO(base64.b64decode(each))) for each in sources]


def self_contained(page: str) -> bool:
    return "http" not in re.sub(r"http://www\.w3\.org/\S+", "", page)


def test_samples_are_called_what_their_modality_says():
    assert [plural_of(each) for each in (DATA, Image(), Series())] == ["clips", "images", "samples"]


def test_assembled_tubelets_are_the_clip():
    view = batch().view
    assert (DATA.unpatchify(DATA.tokens(view).x) == view).all()


def test_tubelets_outside_the_context_are_hatched_at_their_time_and_no_others():
    clips = batch(1)
    plain = DATA.play(clips.view[0])
    visible = torch.tensor([0, 17, 63])  # first step, second step, last step
    mask = Causal().draw_mask(DATA.layout, None, None, _rng(), 0.0)._replace(context=visible[None], context_valid=None)
    mask = mask._replace(target=torch.zeros(1, 1, 0, dtype=torch.long))
    changed = (hide_tubelets(DATA, plain, mask, 0, "#000000") != plain).any(-1)  # F H W
    cells = changed.reshape(4, 2, 4, 8, 4, 8).any((1, 3, 5)).flatten()
    assert np.flatnonzero(~cells).tolist() == visible.tolist()


def _rng():
    from openjepa.core.rng import CounterRNG

    return CounterRNG.of(0, 0, np.arange(1))


def test_a_figure_in_motion_has_a_picture_for_each_frame_of_the_clip():
    figure = draw_clip_masks(Pretrain(DATA, masks=Tube()), batch())
    assert figure.frames is not None and len(figure.frames) == 8
    assert frame_count(io.BytesIO(to_gif(figure.frames))) == 8


def test_tiles_in_motion_are_where_the_still_figure_has_them():
    dark, bright = np.zeros((3, 16, 16, 3), np.uint8), np.full((3, 16, 16, 3), 200, np.uint8)
    dark[1:] = 90
    frames = animate_tiles([[dark, bright]], ["dark", "bright"], ["clip"], (32, 32))
    moved = (frames[0] != frames[1]).any(-1)
    assert moved.sum() == 32 * 32 and (frames[0][moved] == 0).all() and (frames[1] == frames[2]).all()


def test_coverage_of_causal_masks_says_that_the_first_step_is_never_hidden_and_the_last_one_always():
    cover = measure_coverage(Pretrain(DATA, masks=Causal()), DATA.tubelets, samples=256)
    assert cover.context.shape == DATA.tubelets
    assert (cover.context[0] == 1).all() and (cover.target[0] == 0).all()
    assert (cover.context[-1] == 0).all() and (cover.target[-1] == 1).all()


def test_coverage_leaves_out_the_padding_of_tubes():
    cover = measure_coverage(Pretrain(DATA, masks=Tube()), DATA.tubelets, samples=256)
    assert np.allclose(cover.context + cover.target, 1)  # a token is either context or target


def test_a_box_of_a_clip_is_hidden_at_all_times():
    mask = hide_region((0.0, 0.0, 0.5, 0.25), (4, 4, 4), 2)
    assert mask.target[0, 0].tolist() == [0, 1, 16, 17, 32, 33, 48, 49] and mask.context.shape == (2, 56)


def test_a_patch_is_followed_where_it_moves():
    """A feature that goes one column to the right with each step."""
    x = torch.randn(4, 4, 4, 16, generator=torch.Generator().manual_seed(0))
    for step in range(4):
        x[step, 2, step] = torch.ones(16) + 0.1 * x[step, 2, step]
    start = np.zeros((4, 4), bool)
    start[2, 0] = True
    track = follow(x.view(-1, 16), (4, 4, 4), start)
    assert track.path.tolist() == [[2, 0], [2, 1], [2, 2], [2, 3]]


def test_errors_of_padded_targets_do_not_count(run):
    settings, method = load_predictive_method(run)
    clips = batch(3)
    mask = prediction_masks(PredictionOptions(run=str(run)), settings, clips)
    counts = mask.target_valid[:, 0].sum(1) if mask.target_valid is not None else torch.full((3,), mask.target.shape[2])
    result = predict_hidden(method, settings, clips, mask)
    assert (~result.errors.predictor.isnan()).sum(1).tolist() == counts.tolist()
    truth = result.truth[result.valid]
    variance = (truth - truth.mean(0)).square().mean()
    assert result.errors.mean[result.valid].mean() == pytest.approx(1.0, rel=1e-5) and variance > 0


def test_real_tubelets_fill_the_hidden_ones_and_leave_the_others():
    view = batch(1).view
    tokens, target = DATA.tokens(view).x[0], torch.tensor([5, 40])
    hole = np.zeros((8, 32, 32, 3), np.uint8)
    filled = fill(DATA, hole, tokens[target], target)
    expected = np.where(_inside(target), DATA.play(view[0]), hole)
    assert (filled == expected).all()


def _inside(target: torch.Tensor) -> np.ndarray:
    cells = np.zeros(64, bool)
    cells[target] = True
    return cells.reshape(4, 1, 4, 1, 4, 1).repeat(2, 1).repeat(8, 3).repeat(8, 5).reshape(8, 32, 32, 1)


def test_a_board_has_every_token_once_and_a_clip_in_rows_of_steps():
    board = Board.of(replace(DATA, frames=10))  # 5 steps: a row of 4, then one
    cells = board.cells
    assert cells.shape == (8, 16) and sorted(cells[cells >= 0].tolist()) == list(range(80))
    assert cells[0, 4] == 16 and cells[4, 0] == 64 and (cells[4:, 4:] == -1).all()
    assert board.cell_of(17) == (0, 5)
    assert lay_out(np.zeros((1, 3, 2)), 1).shape == (3, 2)  # an image as it is


def test_thumbnails_play_until_the_page_is_full(clips, monkeypatch):
    files = [str(each) for each in sorted(clips.glob("*.npy"))]
    draw = PageThumbnails(DATA)
    assert playing(draw(files[0], 32)) == [8]
    draw.room = 1
    assert playing(draw(files[0], 32)) == [8] and draw(files[1], 32).startswith("data:image/jpeg")
    assert PageThumbnails(DATA)(str(clips / "missing.mp4"), 32).startswith("data:image/jpeg")
    assert PageThumbnails(Image())(str(clips / "missing.png"), 32).startswith("data:image/jpeg")


def test_a_thumbnail_is_the_whole_frame_and_keeps_its_shape(tmp_path):
    clip = np.zeros((10, 20, 60, 3), np.uint8)
    clip[:, :, -10:] = 255  # outside the crop of the encoder
    np.save(tmp_path / "wide.npy", clip)
    picture = DATA.thumbnail(str(tmp_path / "wide.npy"), 48)
    assert picture.shape == (16, 48, 3) and picture[:, -4:].min() > 200
    assert DATA.moving_thumbnail(str(tmp_path / "wide.npy"), 48).shape == (8, 16, 48, 3)
    with pytest.raises((UserError, OSError), match=r"gone\.mp4"):
        DATA.thumbnail(str(tmp_path / "gone.mp4"), 48)


def test_the_sprite_of_a_map_has_a_sheet_for_each_moment():
    sprite = thumbnail_sprite(batch(5))
    picture = Pillow.open(io.BytesIO(base64.b64decode(sprite.source.partition(",")[2])))
    assert (sprite.across, sprite.down, sprite.frames) == (3, 2, 8) and picture.size == (120, 640)


def test_the_figures_of_clips_are_pictures_gifs_and_one_self_contained_page(run, tmp_path):
    files = show(Show(run=str(run), out=tmp_path / "overview.png", count=1))
    names = {file.name for file in files}
    for name in ("masks", "features", "track", "prediction"):
        assert {f"{name}.png", f"{name}.gif"} <= names
        assert frame_count(tmp_path / f"{name}.gif") <= 8
    page = files[-1].read_text(encoding="utf-8")
    assert self_contained(page) and len(playing(page)) == 4


def test_a_run_on_clips_has_a_report_that_plays(run):
    page = write_report([str(run)]).read_text(encoding="utf-8")
    for title in ("Context and target masks", "Principal components", "Predicted target", "Nearest neighbors"):
        assert title in page
    assert self_contained(page) and playing(page) == [8, 8, 8, 8] and "jepa search clips.safetensors CLIP" in page


def test_figures_of_images_say_what_to_draw_of_clips(run, photos):
    from openjepa.viz.similarity import show_similarity
    from openjepa.viz.track import show_track

    with pytest.raises(UserError, match="jepa show track"):
        show_similarity(SimilarityOptions(run=str(run)))
    with pytest.raises(UserError, match="--at must be"):
        show_track(TrackOptions(run=str(run), at=((0.5, 2.0),)))


def test_an_index_with_a_row_every_second_names_files_and_times(run, clips, tmp_path, capsys):
    parts = [np.load(file) for file in sorted(clips.glob("*.npy"))[:6]]
    (tmp_path / "films").mkdir()
    np.save(tmp_path / "films" / "long.npy", np.concatenate(parts))  # 60 frames
    index = embed(Embed(run=str(run), data=str(tmp_path / "films"), out=tmp_path / "long.safetensors", every=0.4))
    files = open_index(index).files
    assert files[0].endswith("long.npy#t=0") and files[2].endswith("long.npy#t=0.8") and source_exists(files[2])
    np.save(tmp_path / "query.npy", parts[2])
    capsys.readouterr()
    hits = search(Search(index=index, query=str(tmp_path / "query.npy"), count=2, run=str(run)))
    said = capsys.readouterr().out
    assert all("#t=" in hit.file for hit in hits) and "#t=" not in said.split("sheet")[0] and "0:0" in said
    page = (tmp_path / "long-search.html").read_text(encoding="utf-8")
    assert self_contained(page) and playing(page)
    row = search(Search(index=index, query="row:1", count=2, page=False))
    assert {hit.row for hit in row}.isdisjoint({1})


def test_only_videos_have_a_row_every_second(photos, tmp_path):
    from openjepa.interop.inputs import with_every

    with pytest.raises(UserError, match="--every 2 is for video"):
        with_every(Image(), 2.0)
    assert with_every(Image(), 0.0) == Image()


def test_the_explorer_finds_tokens_boxes_and_predictions_on_the_board(run):
    session = Session.load(Explore(run=str(run), count=12, map=0))
    side = session.patch_side
    assert session.patch_at(4.5 * side, 0.5 * side) == 16 and session.patch_corners(16)[0] == (4 * side, 0)
    frame = 4 * side  # a drag in the second frame is a box of a frame
    assert session.box((frame + 1.0, 1.0), (frame + 2.0 * side, 2.0 * side)) == pytest.approx(
        (0, 0, 0.5, 0.5), abs=0.02
    )
    answer = session.predict_region(session.images.view[0], (0.0, 0.0, 0.5, 0.5))
    assert (
        answer.hole.shape
        == answer.errors.shape
        == answer.predicted.shape
        == session.display(session.images.view[0]).shape
    )
    _, hits = session.similar_patches(session.images.view[0], 20)
    assert all(0 <= hit.patch < 64 for hit in hits) and len(playing(session.tile(session.images.view[0]))) == 1
    assert session.frame_patch(hits[0]).shape[0] == session.frame_patch(hits[0]).shape[1]


def test_coverage_of_images_is_measured_on_any_grid():
    assert measure_coverage(Pretrain(Image(size=(48, 48), patch=8)), (6, 6), samples=64).target.shape == (6, 6)
    assert Layout.grid(6, 6).shape == (6, 6)
