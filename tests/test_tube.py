"""Masks of video: tubes, random tubes, and the future after the past."""

from itertools import product

import numpy as np
import pytest
import torch

from openjepa.core.errors import UserError
from openjepa.core.rng import CounterRNG
from openjepa.core.types import Layout
from openjepa.masking.causal import Causal
from openjepa.masking.random_tube import RandomTube
from openjepa.masking.tube import Tube

VIDEO = Layout.grid(4, 8, 8)


def draw(masks, count: int, layout: Layout = VIDEO, step: int = 0):
    return masks(layout, None, None, CounterRNG.of(0, step, np.arange(count)), 0.0)


def hidden_tokens(mask, layout: Layout = VIDEO) -> torch.Tensor:
    """Return which tokens of each sample are targets."""
    target = mask.target.flatten(1)
    valid = torch.ones_like(target, dtype=torch.bool) if mask.target_valid is None else mask.target_valid.flatten(1)
    return torch.zeros(len(target), layout.count).scatter_reduce(1, target, valid.float(), "amax") > 0


def visible_tokens(mask, layout: Layout = VIDEO) -> torch.Tensor:
    """Return which tokens of each sample the encoder sees."""
    valid = torch.ones_like(mask.context) > 0 if mask.context_valid is None else mask.context_valid
    return torch.zeros(len(valid), layout.count).scatter_reduce(1, mask.context, valid.float(), "amax") > 0


def block_union(corners, size: tuple[int, int], frame: tuple[int, int]) -> np.ndarray:
    union = np.zeros(frame, bool)
    for top, left in corners:
        union[top : top + size[0], left : left + size[1]] = True
    return union


@pytest.mark.parametrize("masks", [Tube(), RandomTube()], ids=["tube", "random-tube"])
def test_the_same_cells_are_hidden_at_all_times_and_the_context_is_the_rest(masks):
    for mask in draw(masks, 40):
        hidden = hidden_tokens(mask)
        frames = hidden.view(40, 4, 64)
        assert (frames == frames[:, :1]).all()
        assert (visible_tokens(mask) == ~hidden).all() and hidden.any(1).all() and (~hidden).any(1).all()


def test_cells_are_hidden_as_often_as_an_enumeration_of_all_positions_says():
    """One size of blocks: 3×3 for the small ones, 7×6 for the large ones; every position is equally likely."""
    frame, count = (8, 8), 20_000
    for mask, blocks, size in zip(draw(Tube(aspect=(1.0, 1.0)), count), (8, 2), ((3, 3), (7, 6)), strict=True):
        corners = list(product(range(frame[0] - size[0] + 1), range(frame[1] - size[1] + 1)))
        covered = np.mean([block_union([corner], size, frame) for corner in corners], axis=0)
        expected = 1 - (1 - covered) ** blocks
        measured = hidden_tokens(mask).view(count, 4, *frame)[:, 0].double().mean(0).numpy()
        assert np.abs(measured - expected).max() < 4 * np.sqrt(0.25 / count)


def test_the_number_of_hidden_cells_is_distributed_as_an_enumeration_of_all_pairs_says():
    corners = list(product(range(2), range(3)))
    exact = np.bincount([block_union(pair, (7, 6), (8, 8)).sum() for pair in product(corners, corners)], minlength=65)
    mask = draw(Tube(aspect=(1.0, 1.0)), 20_000)[1]
    measured = np.bincount(hidden_tokens(mask).sum(1).numpy() // 4, minlength=65)
    assert np.abs(measured / 20_000 - exact / exact.sum()).max() < 4 * np.sqrt(0.25 / 20_000)


def test_every_edge_of_the_frame_is_hidden_sometimes():
    """The official sampler of images never hides the last row and column."""
    hidden = hidden_tokens(draw(Tube(), 500)[0]).view(500, 4, 8, 8)[:, 0]
    assert hidden[:, 0].any() and hidden[:, -1].any() and hidden[:, :, 0].any() and hidden[:, :, -1].any()


def test_blocks_that_cover_the_frame_are_drawn_again():
    """Of two blocks of 3×4 on 4×4 cells, half of all draws cover everything."""
    layout = Layout.grid(2, 4, 4)
    (mask,) = draw(Tube(blocks=(2,), scale=(0.7,), aspect=(0.75, 0.76)), 4000, layout)
    rows = (~hidden_tokens(mask, layout)).view(4000, 2, 4, 4)[:, 0].all(2)
    assert (rows.sum(1) == 1).all() and rows[:, 0].double().mean() == pytest.approx(0.5, abs=0.04)


def test_a_sample_has_the_same_mask_in_any_part_of_the_batch():
    whole = draw(Tube(), 32)
    rng = CounterRNG.of(0, 0, np.arange(32)).select(np.arange(20, 32))
    for alone, mask in zip(Tube()(VIDEO, None, None, rng, 0.0), whole, strict=True):
        assert (hidden_tokens(alone) == hidden_tokens(mask)[20:]).all()


def test_an_image_is_a_video_of_one_time_step():
    layout = Layout.grid(8, 8)
    for image, video in zip(draw(Tube(), 16, layout), draw(Tube(), 16), strict=True):
        assert (hidden_tokens(image, layout) == hidden_tokens(video)[:, :64]).all()


def test_a_random_tube_hides_its_ratio_of_each_frame():
    (mask,) = draw(RandomTube(mask_ratio=0.75), 8)
    assert (hidden_tokens(mask).sum(1) == 4 * 48).all() and mask.context_valid is None
    assert RandomTube(mask_ratio=0.75).shapes(VIDEO) == [(4 * 16, 1, 4 * 48)]


def test_causal_masks_hide_the_future_and_nothing_of_the_past():
    lengths = set()
    for step in range(40):
        (mask,) = draw(Causal(), 3, step=step)
        assert (mask.target.min() > mask.context.max()).item()
        assert mask.context.shape[1] + mask.target.shape[2] == VIDEO.count
        lengths.add(mask.context.shape[1] // 64)
    assert lengths == {1, 2, 3} and [shape[0] for shape in Causal().shapes(VIDEO)] == [64, 128, 192]


@pytest.mark.parametrize(
    ("build", "layout", "advice"),
    [
        (lambda: Tube(blocks=(8,)), VIDEO, "--masks.blocks"),
        (lambda: Tube(scale=(0.15, 1.0)), VIDEO, "--masks.scale"),
        (lambda: Tube(blocks=(0, 2)), VIDEO, "--masks.blocks 8 2"),
        (Tube, Layout.grid(64), "--masks random"),
        (Tube, Layout.grid(4, 2, 2), "--data.patch"),
        (lambda: RandomTube(mask_ratio=0.01), VIDEO, "another ratio"),
        (Causal, Layout(None, 64, 3), "--masks random"),
    ],
)
def test_settings_that_do_not_fit_are_refused_with_what_to_type(build, layout, advice):
    with pytest.raises(UserError, match=advice):
        build().shapes(layout)
