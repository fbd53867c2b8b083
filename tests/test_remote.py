"""Control over a channel: the cart's equations, frames, packets, controllers, and an actor that imitates."""

import dataclasses
import json

import numpy as np
import pytest
import torch

from openjepa.cli import plan_remote
from openjepa.cli.main import main
from openjepa.core.errors import UserError
from openjepa.core.rng import CounterRNG
from openjepa.core.types import Batch
from openjepa.data.synthetic import cart_pole
from openjepa.data.synthetic.cart_pole import (
    PERIOD,
    PIXEL,
    balance,
    draw_cart,
    draw_drives,
    draw_pair,
    has_fallen,
    obey,
    push,
)
from openjepa.methods.cloning import Cloning
from openjepa.methods.world_model import WorldModel
from openjepa.nn.convnet import ConvNetConfig
from openjepa.planning.remote import Channel, ExactController, ImaginingController, KeepingController, run_carts
from openjepa.recipes.ts_jepa import ts_jepa
from openjepa.training.optim import Optim, build_optimizer
from openjepa.training.run import pretrain
from openjepa.training.step import train_step
from tests.conftest import CPU
from tests.worlds import tiny_runs

DATA = dataclasses.replace(ts_jepa().runs[0].data, episodes=64, steps=4)

CLONING = Cloning(WorldModel(ConvNetConfig(dim=8, hidden=8, depth=1, latent="vector"), dynamics="mlp"), hidden=32)


def test_halving_the_step_changes_a_command_s_effect_by_less_than_its_size(monkeypatch):
    state, command = (
        torch.tensor([[0.1, 0.2, 0.05, -0.1]], dtype=torch.float64),
        torch.tensor([0.3], dtype=torch.float64),
    )
    ends = []
    for parts in (1, 2, 4):
        monkeypatch.setattr(cart_pole, "SECONDS", 0.02 / parts)
        monkeypatch.setattr(cart_pole, "PERIOD", PERIOD * parts)
        ends.append(obey(state, command))
    first, second = ((ends[each] - ends[each + 1]).abs().max() for each in (0, 1))
    assert second < 0.6 * first < 0.02


def test_the_known_controller_is_the_optimum_of_its_cost():
    """Any other gain costs more, over a long time from a small angle."""
    weights = torch.tensor(cart_pole.STATE_COST, dtype=torch.float64)

    def cost(gain):
        state, total = torch.tensor([[0.02, 0.0, 0.02, 0.0]], dtype=torch.float64), 0.0
        for _ in range(300):
            command = -(state @ gain)
            total += float((weights * state.square()).sum() + cart_pole.FORCE_COST * (20 * command).square().sum())
            state = obey(state, command)
        return total

    best = cart_pole.gain().double()
    for axis in range(4):
        for change in (0.9, 1.1):
            other = best.clone()
            other[axis] *= change
            assert cost(best) < cost(other)


def test_carts_are_drawn_where_they_are_and_movements_below_a_pixel_are_visible():
    states = torch.tensor([[0.0, 0.0, 0.0, 0.0], [4 * PIXEL, 0.0, 0.0, 0.0], [0.1 * PIXEL, 0.0, 0.0, 0.0]])
    frames = draw_cart(states)
    assert torch.equal(frames[1][:, 4:], frames[0][:, :-4]) and frames[0].max() > 250
    assert not torch.equal(frames[2], frames[0])
    leaning = draw_cart(torch.tensor([[0.0, 0.0, 0.2, 0.0]]))[0]
    columns = torch.arange(leaning.shape[1]).float()
    top = leaning[:18].float()
    assert (top.sum(0) * columns).sum() / top.sum() > leaning.shape[1] / 2  # to the right


def test_a_drive_obeys_its_commands():
    drives = draw_drives(CounterRNG.of(0, 0, np.arange(50)), 6)
    assert drives.command.abs().max() <= 1 and drives.command.shape == (50, 6) and drives.state.shape == (50, 7, 4)
    calm = obey(drives.state[:, 0], drives.command[:, 0])
    assert (calm - drives.state[:, 1])[:, 0].abs().max() < 0.02  # what the disturbance does in one command


def test_two_pictures_are_what_was_seen_now_and_one_step_before(monkeypatch):
    """So that they show the velocities, whatever the command was."""
    state, command = torch.tensor([[0.1, 0.4, 0.05, -0.6]]), torch.tensor([0.7])
    monkeypatch.setattr(cart_pole, "PERIOD", PERIOD - 1)
    before = obey(state, command)
    monkeypatch.setattr(cart_pole, "PERIOD", PERIOD)
    now = obey(state, command)
    pictures = torch.cat([draw_cart(now), draw_cart(before)]).int()
    assert (draw_pair(now)[0].int() - pictures).abs().max() <= 1 and (pictures[0] - pictures[1]).abs().max() > 5


def test_settings_of_frames_that_do_not_fit_the_world_are_refused():
    with pytest.raises(UserError, match="--data.size 32 64 --data.channels 2 --data.patch 4"):
        dataclasses.replace(DATA, size=(32, 32)).synthetic(4, 0)
    with pytest.raises(UserError, match="choose of two-rooms"):
        dataclasses.replace(DATA, world="three-rooms").synthetic(4, 0)


def test_the_actor_learns_and_the_world_stays_as_it_is():
    method = CLONING.build(DATA, 0)
    samples = DATA.synthetic(64, 0).read(torch.arange(16), None)
    batch = Batch(samples.views, torch.arange(16), conditions=samples.conditions)
    before = {name: value.clone() for name, value in method.world.state_dict().items()}
    config, losses = Optim(lr=3e-3), []
    optimizer = build_optimizer(method, config)
    for _ in range(60):
        rates = config.at(200, 1000)._replace(lr=3e-3)
        losses.append(float(train_step(method, optimizer, batch, rates, CPU, clip=5.0).output.loss))
    assert losses[-1] < 0.9 * losses[0]  # the rest is noise of the commands
    changed = {name for name, value in method.world.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {name for name in before if name.startswith("actor.")}


def test_nothing_is_imagined_while_every_packet_arrives():
    world = CLONING.build(DATA, 0).world.eval()
    whole, counted = Channel(), []
    imagining = ImaginingController(world, DATA)
    world.step = lambda *_: counted.append(1) or torch.full((20, 1, 8), float("nan"))
    one = run_carts(imagining, whole, count=20, commands=10)
    other = run_carts(KeepingController(world, DATA, 1.0), whole, count=20, commands=10)
    assert torch.equal(one.seconds, other.seconds)


def test_packets_are_counted_while_the_pole_is_up_and_sent_as_rarely_as_asked():
    for every, expected in ((1, 20), (2, 10), (5, 4)):
        balanced = run_carts(ExactController(), Channel(every=every), count=5, commands=20)
        assert balanced.packets.tolist() == [expected] * 5


def test_who_knows_the_equations_needs_few_packets_and_who_lets_go_falls():
    class LettingGo(ExactController):
        def __call__(self, now):
            return torch.where(now.arrived, balance(now.state), 0.0)

    lossy = Channel(lost=0.5)
    exact, letting_go = (run_carts(each, lossy, count=50).mean()[0] for each in (ExactController(), LettingGo()))
    assert exact > letting_go + 3


def test_a_fallen_cart_stays_where_it_is():
    state = torch.tensor([[0.0, 0.0, 1.0, 0.0], [0.0, 0.0, 0.01, 0.0]])
    assert has_fallen(state).tolist() == [True, False]
    balanced = run_carts(lambda now: torch.ones(4), Channel(), count=4, commands=60)
    assert balanced.seconds.max() < 2 and (balanced.packets < 60).all()
    assert push(state, torch.zeros(2)).shape == (2, 4)


def test_plan_balances_carts_with_every_controller_over_lossy_channels(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(plan_remote, "LOST", (0.0, 0.5))
    run = tiny_runs()["cloning"]
    pretrain(dataclasses.replace(run, out=tmp_path / "run"))
    assert main(["plan", str(tmp_path / "run"), "--episodes", "3", "--every", "1", "2"]) == 0
    rows = json.loads((tmp_path / "run" / "plan.json").read_text())["rows"]
    assert len({row["name"] for row in rows}) == 4 and len(rows) == 16 and (tmp_path / "run" / "plan.png").exists()
    assert all(row["low"] <= row["seconds"] <= row["high"] and row["frame_bytes"] > row["latent_bytes"] for row in rows)
    assert main(["plan", str(tmp_path / "run"), "--zone", "--horizon", "9"]) == 1
    assert "--horizon and --zone have no effect on carts: leave them out" in capsys.readouterr().err
