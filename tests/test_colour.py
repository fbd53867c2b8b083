"""Changes of colour: each is what its name says, and nothing where none is asked for."""

import dataclasses

import numpy as np
import pytest
import torch

from openjepa.core.errors import UserError
from openjepa.core.rng import CounterRNG
from openjepa.data.augment import GRAY_WEIGHTS, color_jitter, hue_rotation
from openjepa.modalities.image import Image

VIEWS = torch.randint(60, 190, (256, 3, 8, 8), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
DRAWS = CounterRNG.of(0, 0, np.arange(256))


def test_without_strength_views_are_kept_or_grey():
    views = color_jitter(VIEWS, 0.0, DRAWS)
    kept = (views == VIEWS).flatten(1).all(1)
    grey = (views[:, 0] == views[:, 1]).flatten(1).all(1) & (views[:, 1] == views[:, 2]).flatten(1).all(1)
    assert bool((kept ^ grey).all()) and 0.12 < float(grey.float().mean()) < 0.28
    expected = torch.einsum("bchw,c->bhw", VIEWS.float(), GRAY_WEIGHTS)
    assert float((views[grey][:, 0].float() - expected[grey]).abs().max()) <= 0.51


def test_four_views_of_five_change_and_more_with_more_strength():
    changes = []
    for strength in (0.1, 0.5, 1.0):
        difference = (
            (color_jitter(VIEWS, strength, DRAWS).float() - color_jitter(VIEWS, 0.0, DRAWS).float())
            .abs()
            .flatten(1)
            .mean(1)
        )
        changes.append(float(difference.mean()))
        assert 0.7 < float((difference > 0.5).float().mean()) < 0.9
    assert changes == sorted(changes)


def test_hue_turns_colours_round_and_leaves_grey_alone():
    third = hue_rotation(torch.tensor([2 * torch.pi / 3]))[0]
    torch.testing.assert_close(third @ torch.tensor([1.0, 0, 0]), torch.tensor([0.0, 1, 0]), atol=1e-6, rtol=0)
    torch.testing.assert_close(third @ torch.ones(3), torch.ones(3))


def test_a_view_is_coloured_alike_in_any_company_and_never_for_evaluation(photos, tmp_path):
    config = Image(root=(str(photos),), size=(32, 32), patch=4, color_jitter=0.5)
    plain = dataclasses.replace(config, color_jitter=0.0)
    packed, files = config.dataset(config.listing(), tmp_path), config.dataset(config.listing())
    index, draws = torch.arange(6), CounterRNG.of(0, 0, np.arange(6))
    together, alone = packed.read(index, draws).views[0], packed.read(index[2:3], draws.select(np.array([2]))).views[0]
    assert torch.equal(together[2:3], alone)
    assert not torch.equal(together, plain.dataset(plain.listing(), tmp_path).read(index, draws).views[0])
    apart = (files.read(index, draws).views[0].float() - together.float()).abs()
    assert float(apart.mean()) < 2  # Pillow's resampling beside ours
    assert torch.equal(
        packed.read(index, None).views[0], plain.dataset(plain.listing(), tmp_path).read(index, None).views[0]
    )


def test_colours_of_other_than_three_channels_and_negative_strengths_are_refused():
    with pytest.raises(UserError, match="leave --data.color-jitter out"):
        Image(channels=1, color_jitter=0.5)
    with pytest.raises(UserError, match="try --data.color-jitter 0.5"):
        Image(color_jitter=-1.0)
