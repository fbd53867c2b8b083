import numpy as np
import pytest
import torch

from openjepa.core.rng import CounterRNG, epoch_order


def test_a_sample_draws_the_same_in_any_company():
    alone = CounterRNG.of(3, 5, np.array([17])).uniform("crop", 4)
    together = CounterRNG.of(3, 9, np.array([4, 17, 99])).uniform("crop", 4)
    assert torch.equal(alone[0], together[1])


def test_shared_draws_depend_on_the_step_alone():
    one, other = CounterRNG.of(3, 5, np.array([1])), CounterRNG.of(3, 5, np.array([2, 8]))
    assert torch.equal(one.global_uniform("size", 3), other.global_uniform("size", 3))
    assert not torch.equal(one.global_uniform("size", 3), CounterRNG.of(3, 6, np.array([1])).global_uniform("size", 3))


@pytest.mark.parametrize("change", [{"seed": 1}, {"name": "b"}, {"number": 1}])
def test_seed_name_and_number_each_matter(change):
    def draw(seed=0, name="a", number=0):
        return CounterRNG.of(seed, 0, np.array([number])).uniform(name, 8)

    assert not torch.equal(draw(), draw(**change))


def test_draws_are_uniform_and_uncorrelated():
    u = CounterRNG.of(0, 0, np.arange(20_000)).uniform("x", 4).double()
    assert u.min() >= 0 and u.max() < 1
    assert torch.allclose(u.mean(0), torch.tensor(0.5).double(), atol=0.01)
    assert torch.allclose(u.var(0), torch.tensor(1 / 12).double(), atol=0.002)
    assert (torch.corrcoef(u.T) - torch.eye(4)).abs().max() < 0.03
    assert np.corrcoef(u[:-1, 0], u[1:, 0])[0, 1] == pytest.approx(0, abs=0.03)


def test_an_epoch_visits_every_sample_once_and_epochs_differ():
    assert sorted(epoch_order(0, 1, 1000)) == list(range(1000))
    assert not np.array_equal(epoch_order(0, 1, 1000), epoch_order(0, 2, 1000))


def test_a_second_asker_gets_numbers_of_its_own_and_the_first_keeps_its():
    draws = CounterRNG.of(0, 0, np.arange(64))
    assert torch.equal(draws.uniform("crop"), draws.fold_in(0).uniform("crop"))
    turns = [draws.fold_in(turn) for turn in range(3)]
    assert not torch.equal(turns[1].uniform("crop"), turns[2].uniform("crop"))
    assert not torch.equal(turns[0].global_uniform("sizes"), turns[1].global_uniform("sizes"))
    assert torch.equal(turns[1].select(np.array([5])).uniform("crop"), turns[1].uniform("crop")[5:6])
