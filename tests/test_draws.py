"""Counter-based random numbers depend on seed, sample index and name alone."""

import numpy as np
import pytest
import torch

from openjepa.core.rng import CounterRNG, epoch_order


def test_a_sample_draws_the_same_values_in_any_batch():
    alone = CounterRNG.of(3, 5, np.array([17])).uniform("crop", 4)
    together = CounterRNG.of(3, 9, np.array([4, 17, 99])).uniform("crop", 4)
    assert torch.equal(alone[0], together[1])


def test_global_values_depend_on_the_step_alone():
    one, other = CounterRNG.of(3, 5, np.array([1])), CounterRNG.of(3, 5, np.array([2, 8]))
    assert torch.equal(one.global_uniform("size", 3), other.global_uniform("size", 3))
    assert not torch.equal(one.global_uniform("size", 3), CounterRNG.of(3, 6, np.array([1])).global_uniform("size", 3))


@pytest.mark.parametrize("change", [{"seed": 1}, {"name": "b"}, {"index": 1}])
def test_seed_name_and_index_each_change_the_values(change):
    def draw(seed=0, name="a", index=0):
        return CounterRNG.of(seed, 0, np.array([index])).uniform(name, 8)

    assert not torch.equal(draw(), draw(**change))


def test_values_are_uniform_and_uncorrelated():
    u = CounterRNG.of(0, 0, np.arange(20_000)).uniform("x", 4).double()
    assert u.min() >= 0 and u.max() < 1
    assert torch.allclose(u.mean(0), torch.tensor(0.5).double(), atol=0.01)
    assert torch.allclose(u.var(0), torch.tensor(1 / 12).double(), atol=0.002)
    assert (torch.corrcoef(u.T) - torch.eye(4)).abs().max() < 0.03
    assert np.corrcoef(u[:-1, 0], u[1:, 0])[0, 1] == pytest.approx(0, abs=0.03)


def test_an_epoch_visits_every_sample_once_and_epochs_differ():
    assert sorted(epoch_order(0, 1, 1000)) == list(range(1000))
    assert not np.array_equal(epoch_order(0, 1, 1000), epoch_order(0, 2, 1000))


def test_fold_in_gives_new_values_and_repeat_0_the_original_ones():
    rng = CounterRNG.of(0, 0, np.arange(64))
    assert torch.equal(rng.uniform("crop"), rng.fold_in(0).uniform("crop"))
    repeats = [rng.fold_in(repeat) for repeat in range(3)]
    assert not torch.equal(repeats[1].uniform("crop"), repeats[2].uniform("crop"))
    assert not torch.equal(repeats[0].global_uniform("sizes"), repeats[1].global_uniform("sizes"))
    assert torch.equal(repeats[1].select(np.array([5])).uniform("crop"), repeats[1].uniform("crop")[5:6])
