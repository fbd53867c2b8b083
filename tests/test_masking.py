"""Masks: disjoint, in range, as often everywhere as enumeration says, and the same for any rank count."""

import time

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from openjepa.core.errors import UserError
from openjepa.core.rng import CounterRNG
from openjepa.masking.config import Masking
from openjepa.masking.multiblock import MultiBlock
from openjepa.masking.official import OfficialBlocks
from openjepa.masking.quadrants import Quadrants
from openjepa.masking.random import RandomMask

SAMPLERS = ("multiblock", "official", "quadrants", "block", "random")


def draws(step: int, batch: int = 32) -> CounterRNG:
    return CounterRNG.of(0, step, step * batch + np.arange(batch))


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("grid", [(14, 14), (16, 16), (12, 20)])
def test_context_and_targets_are_disjoint_in_range_and_listed(sampler, grid):
    masker = Masking(sampler=sampler).build(grid)
    shapes = set(masker.shapes())
    for step in range(20):
        (masks,) = masker(None, None, draws(step), 0.0)
        assert (masks.context.shape[1], *masks.target.shape[1:]) in shapes
        assert masks.context.min() >= 0 and masks.context.max() < grid[0] * grid[1]
        assert masks.target.min() >= 0 and masks.target.max() < grid[0] * grid[1]
        shown = torch.zeros(32, grid[0] * grid[1], dtype=torch.bool)
        valid = torch.ones_like(masks.context, dtype=torch.bool) if masks.context_valid is None else masks.context_valid
        shown.scatter_(1, masks.context, valid)
        assert not shown.gather(1, masks.target.flatten(1)).any()
        assert (masks.context.diff(dim=1) > 0).logical_or(~valid[:, 1:]).all()


@given(st.integers(6, 24), st.integers(6, 24), st.integers(0, 10**6))
@settings(max_examples=40, deadline=None)
def test_blocks_work_on_any_grid_that_is_not_refused(rows, columns, step):
    (masks,) = MultiBlock((rows, columns))(None, None, draws(step, 8), 0.0)
    assert (masks.context.shape[1], *masks.target.shape[1:]) in set(MultiBlock((rows, columns)).shapes())
    for index in masks.target.flatten(0, 1):
        assert len(set(index.tolist())) == len(index)


@pytest.mark.parametrize("grid", [(8, 8), (14, 14), (1, 32)])
def test_every_cell_is_sometimes_a_target_and_sometimes_context(grid):
    found = [MultiBlock(grid)(None, None, draws(step), 0.0)[0] for step in range(60)]
    for part in ("target", "context"):
        cells = torch.cat([getattr(masks, part).flatten() for masks in found]).unique()
        assert len(cells) == grid[0] * grid[1]


def test_how_often_a_cell_is_a_target_equals_the_enumeration():
    """Every admissible place equally likely: a cell's rate is the product of its rates along the two axes."""
    sampler = MultiBlock((8, 8), target_scale=(0.15, 0.15), target_aspect=(1.0, 1.0))
    seen = torch.cat([sampler(None, None, draws(step, 256), 0.0)[0].target.flatten() for step in range(40)])
    axis = (
        torch.tensor([min(cell, 2, 5, 7 - cell) + 1 for cell in range(8)]) / 6
    )  # places of a side of 3 that cover a cell
    expected = torch.outer(axis, axis).flatten()
    assert torch.allclose(seen.bincount(minlength=64) / (40 * 256 * 4), expected, atol=0.01)


def test_the_context_is_a_fixed_budget_for_any_batch_size():
    sizes = {
        MultiBlock((14, 14))(None, None, draws(step, batch), 0.0)[0].context.shape[1]
        for step in range(30)
        for batch in (1, 7, 128)
    }
    assert sizes == {49}


def test_thinning_favours_no_row():
    found = torch.cat(
        [MultiBlock((14, 14))(None, None, draws(step, 64), 0.0)[0].context.flatten() for step in range(40)]
    )
    rows = (found // 14).bincount(minlength=14).double()
    assert torch.allclose(rows, rows.flip(0), rtol=0.06)


def test_a_sample_that_falls_short_is_padded_and_says_so():
    greedy = MultiBlock((8, 8), context_fraction=0.6)
    found = [greedy(None, None, draws(step), 0.0)[0] for step in range(10)]
    assert {masks.context.shape[1] for masks in found} == {38}
    padded = [masks.context_valid for masks in found if masks.context_valid is not None]
    assert padded and all(valid.any(1).all() and not valid.all() for valid in padded)


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("ranks", [2, 4])
def test_masks_are_the_same_for_any_number_of_ranks(sampler, ranks):
    masker, numbers = Masking(sampler=sampler).build((14, 14)), 256 + np.arange(256)
    (whole,) = masker(None, None, CounterRNG.of(0, 1, numbers), 0.0)
    share = 256 // ranks
    for rank in range(ranks):
        mine = slice(rank * share, (rank + 1) * share)
        (part,) = masker(None, None, CounterRNG(0, 1, numbers[mine], numbers, rank * share), 0.0)
        assert torch.equal(part.target, whole.target[mine])
        for row in range(share):
            assert visible(part, row) == visible(whole, mine.start + row)


def visible(masks, row: int) -> list[int]:
    valid = slice(None) if masks.context_valid is None else masks.context_valid[row]
    return masks.context[row][valid].tolist()


@pytest.mark.parametrize(("grid", "expected"), [((14, 14), 33.4), ((16, 16), 44.2), ((28, 28), 136.3)])
def test_official_targets_have_the_published_mean_size(grid, expected):
    sampler = OfficialBlocks(grid)
    sizes = [np.prod(sampler.size(u, (0.15, 0.2), (0.75, 1.5))) for u in (np.arange(20_000) + 0.5) / 20_000]
    assert np.mean(sizes) == pytest.approx(expected, abs=0.05)


@pytest.mark.parametrize(
    ("grid", "batch", "expected"), [((16, 16), 128, 68), ((14, 14), 128, 52), ((16, 16), 16, 83), ((28, 28), 16, 275)]
)
def test_official_contexts_have_the_published_mean_size(grid, batch, expected):
    sampler = OfficialBlocks(grid)
    counts = [sampler(None, None, draws(step, batch), 0.0)[0].context.shape[1] for step in range(300)]
    assert np.mean(counts) == pytest.approx(expected, abs=2.0 if batch == 128 else 5.0)


def test_official_contexts_of_large_batches_are_cut_in_groups_of_128():
    (masks,) = OfficialBlocks((16, 16))(None, None, draws(0, 256), 0.0)
    (half,) = OfficialBlocks((16, 16))(None, None, CounterRNG(0, 0, np.arange(128, 256), np.arange(256), 128), 0.0)
    assert visible(masks, 200) == visible(half, 72)


@pytest.mark.parametrize("grid", [(14, 14), (16, 16), (28, 28)])
def test_official_blocks_never_use_the_last_row_and_column(grid):
    sampler = OfficialBlocks(grid)
    for step in range(30):
        (masks,) = sampler(None, None, draws(step), 0.0)
        for index in (masks.context, masks.target):
            assert (index // grid[1]).max() < grid[0] - 1 and (index % grid[1]).max() < grid[1] - 1


def test_official_block_sizes_are_those_of_the_released_runs():
    assert set(OfficialBlocks((14, 14)).target_sizes()) == {(5, 6), (6, 6), (6, 5), (7, 5), (8, 5)}
    assert set(OfficialBlocks((16, 16)).target_sizes()) == {(5, 7), (6, 7), (6, 6), (7, 6), (8, 6), (9, 6)}
    assert {OfficialBlocks((14, 14)).size(u, (0.85, 1.0), (1.0, 1.0)) for u in (0.0, 0.5, 0.999)} == {(13, 13)}


def test_official_contexts_keep_the_top_of_the_image():
    sampler = OfficialBlocks((16, 16))
    found = torch.cat([sampler(None, None, draws(step, 128), 0.0)[0].context.flatten() for step in range(40)])
    top = (found // 16 < 8).double().mean()
    assert top == pytest.approx(0.77, abs=0.03)


def test_official_contexts_may_overlap_targets_only_where_nothing_else_is_left():
    small = OfficialBlocks((8, 8), min_keep=8)
    overlaps = 0
    for step in range(200):
        (masks,) = small(None, None, draws(step), 0.0)
        assert masks.context.shape[1] > 8
        overlaps += sum(
            bool(set(c.tolist()) & set(t.flatten().tolist())) for c, t in zip(masks.context, masks.target, strict=True)
        )
    assert overlaps < 200 * 32 / 10


def test_rasterized_shows_one_quadrant_and_asks_for_the_others():
    (masks,) = Quadrants((8, 8))(None, None, draws(0), 0.0)
    everything = torch.cat([masks.context, masks.target.flatten(1)], 1).sort(1).values
    assert torch.equal(everything, torch.arange(64).expand(32, 64))


def test_random_and_block_show_all_that_they_do_not_ask_for():
    for masker in (RandomMask((14, 14)), Masking(sampler="block").build((14, 14))):
        (masks,) = masker(None, None, draws(0), 0.0)
        assert masks.context.shape[1] + masks.target.shape[2] == 196
        assert masks.target.shape[2] / 196 == pytest.approx(0.6, abs=0.03)


def test_a_part_of_what_is_hidden_is_asked_for_and_every_place_as_often():
    """The context stays what it is with all of it asked for, and what is not asked for is nowhere."""
    (whole,), (part,) = (RandomMask((8, 8), 0.75, asked)(None, None, draws(0), 0.0) for asked in (1.0, 1 / 3))
    assert torch.equal(whole.context, part.context) and part.target.shape == (32, 1, 16)
    for all_hidden, asked in zip(whole.target[:, 0].tolist(), part.target[:, 0].tolist(), strict=True):
        assert asked == sorted(set(asked)) and set(asked) < set(all_hidden)
    places = [RandomMask((4, 4), 0.5, 0.5)(None, None, draws(step), 0.0)[0].target.flatten() for step in range(200)]
    share = torch.cat(places).bincount(minlength=16) / (200 * 32)
    assert (share - 0.25).abs().max() < 0.03


@pytest.mark.parametrize("asked", [0.0, 1.5])
def test_a_share_that_is_none_is_refused_in_a_sentence(asked):
    with pytest.raises(UserError, match=r"cannot be asked for: try --masks.target-fraction 0.5"):
        Masking(sampler="random", target_fraction=asked).build((8, 8))


@pytest.mark.parametrize("grid", [(2, 2), (3, 3), (1, 8)])
def test_a_grid_too_small_is_refused_in_a_sentence(grid):
    with pytest.raises(UserError, match=r"too (small|little).*try"):
        MultiBlock(grid)


def test_official_blocks_refuse_grids_on_which_the_released_code_hangs():
    with pytest.raises(UserError, match="more than 10 tokens, here 9"):
        OfficialBlocks((8, 8))


def test_sampling_costs_microseconds_an_image(capsys):
    """Not asserted against a clock: prints the figure, and holds that a whole batch is one call."""
    sampler, batch = MultiBlock((14, 14)), draws(1, 256)
    began = time.perf_counter()
    (masks,) = sampler(None, None, batch, 0.0)
    print(f"{(time.perf_counter() - began) / 256 * 1e6:.1f} µs an image")
    assert len(masks.context) == 256
