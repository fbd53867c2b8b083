"""Values: distances spread over a map, pushes are imagined once, and targets equal plain loops."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from openjepa.core.errors import UserError
from openjepa.core.types import Batch
from openjepa.methods.actor import Actor
from openjepa.methods.critic import Critic, choose_goals
from openjepa.methods.world_model import WorldModel
from openjepa.modalities.trajectory import Trajectory
from openjepa.nn.convnet import ConvNetConfig
from openjepa.nn.locator import Location, Locator
from openjepa.nn.pushes import PushCache, imagine_pushes
from openjepa.nn.quasimetric import Quasimetric
from openjepa.nn.value_iteration import START, FieldReader, GoalField, ValueIteration
from openjepa.nn.world import encode_steps

DATA = Trajectory(episodes=8, steps=2)
CRITIC = Critic(WorldModel(ConvNetConfig(hidden=8, depth=1)), directions=4, lengths=(1, 3), goals=2)


@pytest.fixture(scope="module")
def critic():
    """Build a critic whose dynamics and values differ from state to state."""
    method, generator = CRITIC.build(DATA, 0), torch.Generator().manual_seed(0)
    nn.init.normal_(method.world.dynamics.out.weight, std=0.1, generator=generator)  # type: ignore[union-attr, arg-type]
    for layer in (0, 2, 4):
        nn.init.normal_(method.target_values.reader.head[layer].weight, std=1.0, generator=generator)  # type: ignore[arg-type]
    return method


@pytest.fixture(scope="module")
def frames():
    return DATA.synthetic(8, 0).read(torch.arange(3), None).views[0]


@pytest.fixture(scope="module")
def states(critic, frames):
    with torch.no_grad():
        return encode_steps(critic.world, DATA.tokens(frames), frames.shape[1])


def test_with_a_constant_cost_distances_spread_as_city_blocks():
    """What a fresh network computes without the noise of its initialization."""
    net = ValueIteration(3, (11, 11))
    with torch.no_grad():
        net.spread.mul_(100.0)  # means of one cell
        net.anchor.weight.zero_()
        net.cost[2].weight.zero_()  # type: ignore[operator]
        net.cost[2].bias.fill_(0.5413249)  # type: ignore[operator]  # softplus: 1
    focus = torch.zeros(2, 121)
    focus[0, 0] = focus[1, 60] = 1.0
    row, column = torch.arange(121) // 11, torch.arange(121) % 11
    for number, (y, x) in enumerate(((0, 0), (5, 5))):
        expected = ((row - y).abs() + (column - x).abs()).float().clamp(max=START)
        torch.testing.assert_close(net(torch.zeros(2, 121, 3), focus)[number], expected[:, None].expand(-1, 8))


def test_distances_never_rise_above_the_anchor():
    net = ValueIteration(3, (11, 11)).requires_grad_(False)
    goal = torch.randn(1, 121, 3, generator=torch.Generator().manual_seed(0))
    focus = torch.zeros(1, 121)
    focus[0, 60] = 1.0
    after = net(goal, focus)
    net.iterations = 0
    assert (after <= net(goal, focus)).all() and (after < net(goal, focus)).any()


def test_a_locator_attends_to_all_cells_alike_before_training():
    """Attention that begins at a wrong cell may stay there, whatever the seed."""
    where = Locator(3, (5, 5))(torch.randn(2, 25, 3, generator=torch.Generator().manual_seed(0)))
    torch.testing.assert_close(where.focus, torch.full((2, 25), 1 / 25))
    torch.testing.assert_close(where.summary[:, :2], torch.full((2, 2), 2.0))  # the center


def test_reading_several_goals_is_reading_each_alone():
    reader, generator = FieldReader(8, (11, 11), 5, 2).requires_grad_(False), torch.Generator().manual_seed(0)
    goals = Location(torch.randn(6, 5, generator=generator), torch.ones(6, 121))
    field = reader.field(torch.randn(6, 121, 8, generator=generator), goals, 2)
    focus = torch.randn(8, 121, generator=generator).softmax(-1)
    states = Location(torch.randn(8, 5, generator=generator), focus)  # 4 states of each of 2 tasks
    together = reader.read(field, states)
    assert together.shape == (2, 3, 4, 2)
    for task in range(2):
        own = Location(*(part[4 * task : 4 * task + 4] for part in states))
        for goal in range(3):
            alone = reader.read(GoalField(*(part[task : task + 1, goal : goal + 1] for part in field)), own)
            torch.testing.assert_close(together[task, goal], alone[0, 0], atol=1e-5, rtol=1e-5)


def test_imagined_pushes_are_those_of_a_plain_loop(critic, states):
    actions, rows = CRITIC.pushes(DATA), states[0]
    ends = imagine_pushes(critic.world, rows, actions, (1, 3))
    assert len(ends.summary) == len(rows) * 4 * 2
    for number, (row, push, length) in enumerate((r, p, n) for r in range(3) for p in range(4) for n in (1, 3)):
        with torch.no_grad():
            path = critic.world.unroll(rows[row : row + 1], actions[push].expand(1, length, -1))
            expected = critic.world.locate(path[:, -1])
        torch.testing.assert_close(ends.summary[number], expected.summary[0], atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(ends.focus[number], expected.focus[0], atol=1e-4, rtol=1e-4)


def new_cache(critic, limit=2048) -> PushCache:
    return PushCache(critic.world, CRITIC.pushes(DATA), CRITIC.lengths, limit)


def test_pushes_from_the_cache_are_those_that_are_imagined_anew(critic, frames, states, monkeypatch):
    cache = new_cache(critic)
    first = cache(frames, states)
    monkeypatch.setattr("openjepa.nn.pushes.imagine_pushes", None)  # cannot be called
    assert all(torch.equal(one, other) for one, other in zip(first, cache(frames, states), strict=True))
    monkeypatch.undo()
    assert all(torch.equal(one, other) for one, other in zip(first, new_cache(critic)(frames, states), strict=True))
    direct = imagine_pushes(critic.world, states.flatten(0, 1), CRITIC.pushes(DATA), CRITIC.lengths)
    for one, other in zip(first, direct, strict=True):
        torch.testing.assert_close(one, other, atol=1e-2, rtol=1e-2)  # kept in half precision


def test_pushes_do_not_depend_on_the_other_episodes_of_a_batch(critic, frames, states):
    whole, order = new_cache(critic)(frames, states), [2, 0]
    parts = [part.unflatten(0, (3, -1))[order].flatten(0, 1) for part in whole]
    for one, other in zip(parts, new_cache(critic)(frames[order], states[order]), strict=True):
        assert torch.equal(one, other)


def test_a_full_cache_imagines_again_and_returns_the_same(critic, frames, states):
    cache = new_cache(critic, limit=1)
    once, again = cache(frames, states), cache(frames, states)
    assert len(cache.ends) == 1
    assert all(torch.equal(one, other) for one, other in zip(once, again, strict=True))


def test_values_after_pushes_are_those_of_a_plain_loop(critic, states, monkeypatch):
    goals = states[:, :2]  # 2 of each of 3 episodes
    ends = imagine_pushes(critic.world, states.flatten(0, 1), CRITIC.pushes(DATA), CRITIC.lengths)
    costs = torch.zeros(3, 2, 3, 4, 2)  # episode, goal, state, direction, length
    for episode, goal, state, push, at in torch.cartesian_prod(*(torch.arange(size) for size in costs.shape)).tolist():
        number = ((episode * 3 + state) * 4 + push) * 2 + at
        end = Location(*(part[number : number + 1] for part in ends))
        one = goals[episode, goal : goal + 1]
        with torch.no_grad():
            field = critic.target_values.field(one, critic.world.locate(one), 1)
            value = critic.target_values(field, end).clamp(min=0.0)
        costs[episode, goal, state, push, at] = CRITIC.lengths[at] + float(value)
    longer, shortest = costs[..., 1:].amin((3, 4)), costs.amin((3, 4))
    far = float(longer.median())  # so that both rules occur
    monkeypatch.setattr(critic, "config", replace(CRITIC, far=far, patience=10))
    differs = ((longer - far).abs() > 1e-3) | (longer == shortest)
    assert (longer > shortest).any()
    early, late = torch.tensor([0, 5, 9]), torch.tensor([10, 11, 99])
    for index, expected in ((early, torch.where(longer > far, longer, shortest)), (late, shortest)):
        computed = critic.values_after_pushes(ends, goals.flatten(0, 1), index)
        torch.testing.assert_close(computed[differs], expected[differs], atol=1e-3, rtol=1e-4)


def test_the_loss_is_the_mean_squared_error_of_each_value_against_its_bounded_target(critic, frames, states):
    batch = Batch((frames,), torch.arange(3))
    chosen = choose_goals(batch, states.shape[1], CRITIC.goals)
    ends = imagine_pushes(critic.world, states.flatten(0, 1), CRITIC.pushes(DATA), CRITIC.lengths)
    errors = []
    for episode in range(3):
        for number, at in enumerate(chosen[episode].tolist()):
            goal = states[episode, at : at + 1]
            rows = Location(*(part.unflatten(0, (3, -1))[episode] for part in ends))
            field = critic.world.value_field(goal, 1)
            target = critic.values_after_pushes(rows, goal, batch.index[episode : episode + 1])
            target = critic.bound(target, chosen[episode : episode + 1, number : number + 1])
            value = critic.world.values(field, critic.world.locate(states[episode]))
            errors.append((value - target).square().mean())
    torch.testing.assert_close(critic(batch, None).loss, torch.stack(errors).mean(), atol=1e-2, rtol=1e-3)


def test_targets_are_bounded_by_the_steps_of_the_same_walk_and_by_the_start():
    data = Trajectory(steps=5, stride=2, restart=3)  # two walks of 3 states each
    method = CRITIC.build(data, 0)
    chosen = torch.tensor([[1, 5]])
    high = method.bound(torch.full((1, 2, 6), 100.0), chosen)
    assert high[0, 0].tolist() == [2, 0, 2, 40, 40, 40]
    assert high[0, 1].tolist() == [40, 40, 40, 4, 2, 0]
    low = method.bound(torch.full((1, 2, 6), 1.0), chosen)
    assert low[0, 0].tolist() == [1, 0, 1, 1, 1, 1]  # a bound only lowers


def test_without_restarts_all_states_belong_to_one_walk():
    method = CRITIC.build(DATA, 0)
    assert method.bound(torch.full((1, 1, 3), 100.0), torch.tensor([[2]])).tolist() == [[[2, 1, 0]]]


def test_goals_are_different_states_and_a_function_of_the_number_of_the_sample():
    batch = Batch((torch.zeros(3, 1),), torch.tensor([4, 9, 4]))
    chosen = choose_goals(batch, 6, 4)
    assert torch.equal(chosen[0], chosen[2]) and not torch.equal(chosen[0], chosen[1])
    assert all(len(set(row)) == 4 and max(row) < 6 for row in chosen.tolist())


def test_a_critic_starts_high_and_its_ema_follows(critic, states):
    fresh = CRITIC.build(DATA, 0)
    with torch.no_grad():
        field = fresh.world.value_field(states[:, 0], len(states))
        value = fresh.world.values(field, fresh.world.locate(states.flatten(0, 1)))
    assert (value - CRITIC.start).abs().max() < 2
    before = next(fresh.target_values.parameters()).clone()
    with torch.no_grad():
        for parameter in fresh.world.values.parameters():
            parameter.add_(1.0)
    fresh.after_step(0.75)
    torch.testing.assert_close(next(fresh.target_values.parameters()), before + 0.25)


def test_targets_are_bounded_on_the_device_where_they_are():
    """The device `meta` computes nothing, and refuses tensors of another one."""
    target, chosen = torch.zeros(1, 1, 3, device="meta"), torch.zeros(1, 1, dtype=torch.long, device="meta")
    assert CRITIC.build(DATA, 0).bound(target, chosen).device.type == "meta"


def quasimetric_distances() -> torch.Tensor:
    """Return the distances from each of 6 states to each of them as the goal, in one layout: state, goal."""
    torch.manual_seed(0)
    net = Quasimetric(3, (5, 5), 4, 40.0).requires_grad_(False)
    generator = torch.Generator().manual_seed(0)
    where = Location(torch.randn(6, 4, generator=generator), torch.ones(6, 25))
    layout = torch.randn(1, 25, 3, generator=generator).expand(6, -1, -1)
    return net(net.field(layout, where, 1), where)[0].mT


def test_a_quasimetric_is_0_at_the_goal_one_way_and_never_longer_than_a_detour():
    distance = quasimetric_distances()
    assert distance.diagonal().eq(0).all() and (distance + torch.eye(6) > 0).all()
    assert (distance - distance.mT).abs().max() > 0.01  # the way back is another one
    for stop in range(6):
        assert (distance <= distance[:, stop : stop + 1] + distance[stop] + 1e-4).all()


def test_a_critic_learns_a_quasimetric_by_the_same_loss_and_a_policy_refuses_it(frames):
    config = replace(CRITIC, values="quasimetric")
    method = config.build(DATA, 0)
    method(Batch((frames,), torch.arange(3)), None).loss.backward()
    gradients = [each.grad for each in method.world.values.parameters()]
    assert all(each is not None and each.isfinite().all() for each in gradients)
    with pytest.raises(UserError, match=r"a policy reads the maps of the critic: give --method.critic.values maps"):
        Actor(config).check(DATA, None)
