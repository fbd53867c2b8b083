"""Each change of color jitter does what its name says; views that need no change stay as they are."""

import dataclasses

import numpy as np
import pytest
import torch

from openjepa.core.errors import UserError
from openjepa.core.rng import CounterRNG
from openjepa.data.augment import GRAY_WEIGHTS, color_jitter, hue_rotation
from openjepa.modalities.image import Image

VIEWS = torch.randint(60, 190, (256, 3, 8, 8), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
RNG = CounterRNG.of(0, 0, np.arange(256))


def test_at_strength_zero_views_are_unchanged_or_gray():
    views = color_jitter(VIEWS, 0.0, RNG)
    unchanged = (views == VIEWS).flatten(1).all(1)
    gray = (views[:, 0] == views[:, 1]).flatten(1).all(1) & (views[:, 1] == views[:, 2]).flatten(1).all(1)
    assert bool((unchanged ^ gray).all()) and 0.12 < float(gray.float().mean()) < 0.28
    expected = torch.einsum("bchw,c->bhw", VIEWS.float(), GRAY_WEIGHTS)
    assert float((views[gray][:, 0].float() - expected[gray]).abs().max()) <= 0.51


def test_80_percent_of_views_change_and_more_strength_changes_more():
    changes = []
    for strength in (0.1, 0.5, 1.0):
        difference = (
            (color_jitter(VIEWS, strength, RNG).float() - color_jitter(VIEWS, 0.0, RNG).float())
            .abs()
            .flatten(1)
            .mean(1)
        )
        changes.append(float(difference.mean()))
        assert 0.7 < float((difference > 0.5).float().mean()) < 0.9
    assert changes == sorted(changes)


def test_hue_rotates_colors_and_leaves_gray_unchanged():
    third = hue_rotation(torch.tensor([2 * torch.pi / 3]))[0]
    torch.testing.assert_close(third @ torch.tensor([1.0, 0, 0]), torch.tensor([0.0, 1, 0]), atol=1e-6, rtol=0)
    torch.testing.assert_close(third @ torch.ones(3), torch.ones(3))


def test_color_jitter_does_not_depend_on_the_batch_and_is_off_in_evaluation(photos, tmp_path):
    config = Image(root=(str(photos),), size=(32, 32), patch=4, color_jitter=0.5)
    plain = dataclasses.replace(config, color_jitter=0.0)
    packed, files = config.dataset(config.listing(), tmp_path), config.dataset(config.listing())
    index, rng = torch.arange(6), CounterRNG.of(0, 0, np.arange(6))
    together, alone = packed.read(index, rng).views[0], packed.read(index[2:3], rng.select(np.array([2]))).views[0]
    assert torch.equal(together[2:3], alone)
    assert not torch.equal(together, plain.dataset(plain.listing(), tmp_path).read(index, rng).views[0])
    difference = (files.read(index, rng).views[0].float() - together.float()).abs()
    assert float(difference.mean()) < 2  # Pillow's resampling against ours
    assert torch.equal(
        packed.read(index, None).views[0], plain.dataset(plain.listing(), tmp_path).read(index, None).views[0]
    )


def test_other_than_three_channels_and_negative_strengths_are_refused():
    with pytest.raises(UserError, match="leave --data.color-jitter out"):
        Image(channels=1, color_jitter=0.5)
    with pytest.raises(UserError, match=r"--data.color-jitter must be >= 0 \(0 = off\), got -1"):
        Image(color_jitter=-1.0)
