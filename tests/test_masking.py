"""Masks are disjoint, in range, distributed as an enumeration says, and the same for any number of ranks."""

import time

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from openjepa.core.errors import UserError
from openjepa.core.registry import find
from openjepa.core.rng import CounterRNG
from openjepa.core.types import Layout
from openjepa.masking.block import Block
from openjepa.masking.multiblock import MultiBlock
from openjepa.masking.official import Official, sized_block
from openjepa.masking.quadrants import Quadrants
from openjepa.masking.random import Random

SAMPLERS = ("multiblock", "official", "quadrants", "block", "random")


def rng(step: int, batch: int = 32) -> CounterRNG:
    return CounterRNG.of(0, step, step * batch + np.arange(batch))


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("grid", [(14, 14), (16, 16), (12, 20)])
def test_context_and_targets_are_disjoint_in_range_and_have_a_listed_shape(sampler, grid):
    masker = find("masks", sampler)()
    layout = Layout.grid(*grid)
    shapes = set(masker.shapes(layout))
    for step in range(20):
        (masks,) = masker(layout, None, None, rng(step), 0.0)
        assert (masks.context.shape[1], *masks.target.shape[1:]) in shapes
        assert masks.context.min() >= 0 and masks.context.max() < grid[0] * grid[1]
        assert masks.target.min() >= 0 and masks.target.max() < grid[0] * grid[1]
        in_context = torch.zeros(32, grid[0] * grid[1], dtype=torch.bool)
        valid = torch.ones_like(masks.context, dtype=torch.bool) if masks.context_valid is None else masks.context_valid
        in_context.scatter_(1, masks.context, valid)
        assert not in_context.gather(1, masks.target.flatten(1)).any()
        assert (masks.context.diff(dim=1) > 0).logical_or(~valid[:, 1:]).all()


@given(st.integers(6, 24), st.integers(6, 24), st.integers(0, 10**6))
@settings(max_examples=40, deadline=None)
def test_multiblock_works_on_any_grid_that_it_accepts(rows, columns, step):
    (masks,) = MultiBlock()(Layout.grid(rows, columns), None, None, rng(step, 8), 0.0)
    assert (masks.context.shape[1], *masks.target.shape[1:]) in set(MultiBlock().shapes(Layout.grid(rows, columns)))
    for index in masks.target.flatten(0, 1):
        assert len(set(index.tolist())) == len(index)


@pytest.mark.parametrize("grid", [(8, 8), (14, 14), (1, 32)])
def test_every_cell_is_a_target_in_some_masks_and_context_in_others(grid):
    drawn = [MultiBlock()(Layout.grid(*grid), None, None, rng(step), 0.0)[0] for step in range(60)]
    for part in ("target", "context"):
        cells = torch.cat([getattr(masks, part).flatten() for masks in drawn]).unique()
        assert len(cells) == grid[0] * grid[1]


def test_target_frequency_of_each_cell_equals_the_enumeration():
    """All block positions are equally likely: a cell's frequency is the product of its frequencies along both axes."""
    sampler = MultiBlock(target_scale=(0.15, 0.15), target_aspect=(1.0, 1.0))
    targets = torch.cat(
        [sampler(Layout.grid(8, 8), None, None, rng(step, 256), 0.0)[0].target.flatten() for step in range(40)]
    )
    covering = [min(cell, 2, 5, 7 - cell) + 1 for cell in range(8)]  # positions of a side of 3 that cover a cell
    axis = torch.tensor(covering) / 6
    expected = torch.outer(axis, axis).flatten()
    assert torch.allclose(targets.bincount(minlength=64) / (40 * 256 * 4), expected, atol=0.01)


def test_context_size_is_the_same_for_any_batch_size():
    sizes = {
        MultiBlock()(Layout.grid(14, 14), None, None, rng(step, batch), 0.0)[0].context.shape[1]
        for step in range(30)
        for batch in (1, 7, 128)
    }
    assert sizes == {49}


def test_subsampling_favors_no_row():
    context = torch.cat(
        [MultiBlock()(Layout.grid(14, 14), None, None, rng(step, 64), 0.0)[0].context.flatten() for step in range(40)]
    )
    rows = (context // 14).bincount(minlength=14).double()
    assert torch.allclose(rows, rows.flip(0), rtol=0.06)


def test_a_sample_with_too_few_free_tokens_is_padded_and_marked():
    greedy = MultiBlock(context_fraction=0.6)
    drawn = [greedy(Layout.grid(8, 8), None, None, rng(step), 0.0)[0] for step in range(10)]
    assert {masks.context.shape[1] for masks in drawn} == {38}
    padded = [masks.context_valid for masks in drawn if masks.context_valid is not None]
    assert padded and all(valid.any(1).all() and not valid.all() for valid in padded)


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("ranks", [2, 4])
def test_masks_are_the_same_for_any_number_of_ranks(sampler, ranks):
    masker, layout, index = find("masks", sampler)(), Layout.grid(14, 14), 256 + np.arange(256)
    (whole,) = masker(layout, None, None, CounterRNG.of(0, 1, index), 0.0)
    share = 256 // ranks
    for rank in range(ranks):
        local = slice(rank * share, (rank + 1) * share)
        (part,) = masker(layout, None, None, CounterRNG(0, 1, index[local], index, rank * share), 0.0)
        assert torch.equal(part.target, whole.target[local])
        for row in range(share):
            assert context_of(part, row) == context_of(whole, local.start + row)


def context_of(masks, row: int) -> list[int]:
    valid = slice(None) if masks.context_valid is None else masks.context_valid[row]
    return masks.context[row][valid].tolist()


@pytest.mark.parametrize(("grid", "expected"), [((14, 14), 33.4), ((16, 16), 44.2), ((28, 28), 136.3)])
def test_official_targets_have_the_published_mean_size(grid, expected):
    sizes = [np.prod(sized_block(u, (0.15, 0.2), (0.75, 1.5), grid)) for u in (np.arange(20_000) + 0.5) / 20_000]
    assert np.mean(sizes) == pytest.approx(expected, abs=0.05)


@pytest.mark.parametrize(
    ("grid", "batch", "expected"), [((16, 16), 128, 68), ((14, 14), 128, 52), ((16, 16), 16, 83), ((28, 28), 16, 275)]
)
def test_official_contexts_have_the_published_mean_size(grid, batch, expected):
    counts = [
        Official()(Layout.grid(*grid), None, None, rng(step, batch), 0.0)[0].context.shape[1] for step in range(300)
    ]
    assert np.mean(counts) == pytest.approx(expected, abs=2.0 if batch == 128 else 5.0)


def test_official_contexts_of_large_batches_are_cut_in_groups_of_128():
    (masks,) = Official()(Layout.grid(16, 16), None, None, rng(0, 256), 0.0)
    (half,) = Official()(
        Layout.grid(16, 16), None, None, CounterRNG(0, 0, np.arange(128, 256), np.arange(256), 128), 0.0
    )
    assert context_of(masks, 200) == context_of(half, 72)


@pytest.mark.parametrize("grid", [(14, 14), (16, 16), (28, 28)])
def test_official_blocks_never_use_the_last_row_and_column(grid):
    for step in range(30):
        (masks,) = Official()(Layout.grid(*grid), None, None, rng(step), 0.0)
        for index in (masks.context, masks.target):
            assert (index // grid[1]).max() < grid[0] - 1 and (index % grid[1]).max() < grid[1] - 1


def test_official_block_sizes_are_those_of_the_official_runs():
    assert set(Official().target_sizes((14, 14))) == {(5, 6), (6, 6), (6, 5), (7, 5), (8, 5)}
    assert set(Official().target_sizes((16, 16))) == {(5, 7), (6, 7), (6, 6), (7, 6), (8, 6), (9, 6)}
    assert {sized_block(u, (0.85, 1.0), (1.0, 1.0), (14, 14)) for u in (0.0, 0.5, 0.999)} == {(13, 13)}


def test_official_contexts_keep_the_top_of_the_image():
    context = torch.cat(
        [Official()(Layout.grid(16, 16), None, None, rng(step, 128), 0.0)[0].context.flatten() for step in range(40)]
    )
    top = (context // 16 < 8).double().mean()
    assert top == pytest.approx(0.77, abs=0.03)


def test_official_contexts_overlap_targets_only_as_a_last_resort():
    small = Official(min_keep=8)
    overlaps = 0
    for step in range(200):
        (masks,) = small(Layout.grid(8, 8), None, None, rng(step), 0.0)
        assert masks.context.shape[1] > 8
        overlaps += sum(
            bool(set(c.tolist()) & set(t.flatten().tolist())) for c, t in zip(masks.context, masks.target, strict=True)
        )
    assert overlaps < 200 * 32 / 10


def test_quadrants_split_the_grid_into_one_context_and_three_targets():
    (masks,) = Quadrants()(Layout.grid(8, 8), None, None, rng(0), 0.0)
    cells = torch.cat([masks.context, masks.target.flatten(1)], 1).sort(1).values
    assert torch.equal(cells, torch.arange(64).expand(32, 64))


def test_random_and_block_masks_use_every_token_as_context_or_target():
    for masker in (Random(), Block()):
        (masks,) = masker(Layout.grid(14, 14), None, None, rng(0), 0.0)
        assert masks.context.shape[1] + masks.target.shape[2] == 196
        assert masks.target.shape[2] / 196 == pytest.approx(0.6, abs=0.03)


def test_target_fraction_chooses_masked_tokens_uniformly():
    """The context is the same for any target fraction; the other masked tokens are neither context nor target."""
    (whole,), (part,) = (Random(0.75, share)(Layout.grid(8, 8), None, None, rng(0), 0.0) for share in (1.0, 1 / 3))
    assert torch.equal(whole.context, part.context) and part.target.shape == (32, 1, 16)
    for masked, target in zip(whole.target[:, 0].tolist(), part.target[:, 0].tolist(), strict=True):
        assert target == sorted(set(target)) and set(target) < set(masked)
    targets = [
        Random(0.5, 0.5)(Layout.grid(4, 4), None, None, rng(step), 0.0)[0].target.flatten() for step in range(200)
    ]
    share = torch.cat(targets).bincount(minlength=16) / (200 * 32)
    assert (share - 0.25).abs().max() < 0.03


@pytest.mark.parametrize("fraction", [0.0, 1.5])
def test_an_invalid_target_fraction_is_a_user_error(fraction):
    with pytest.raises(UserError, match=r"must be > 0 and <= 1, got .*: try --masks.target-fraction 1"):
        Random(target_fraction=fraction)


@pytest.mark.parametrize("grid", [(2, 2), (3, 3), (1, 8)])
def test_a_grid_that_is_too_small_is_a_user_error(grid):
    with pytest.raises(UserError, match=r"too (small|little).*try"):
        MultiBlock().shapes(Layout.grid(*grid))


def test_official_blocks_refuse_grids_on_which_the_official_code_hangs():
    with pytest.raises(UserError, match="more than 10 tokens, got 9"):
        Official().shapes(Layout.grid(8, 8))


def test_sampling_takes_microseconds_per_image(capsys):
    """Print the time per image without asserting it; assert only that one call masks a whole batch."""
    sampler, layout, batch = MultiBlock(), Layout.grid(14, 14), rng(1, 256)
    start = time.perf_counter()
    (masks,) = sampler(layout, None, None, batch, 0.0)
    print(f"{(time.perf_counter() - start) / 256 * 1e6:.1f} µs per image")
    assert len(masks.context) == 256
