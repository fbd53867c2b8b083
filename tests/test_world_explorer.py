"""What the page about a world model computes, without a browser."""

import pytest
import torch

from openjepa.core.errors import UserError
from openjepa.methods.actor import Actor
from openjepa.methods.critic import Critic
from openjepa.methods.world_model import WorldModel
from openjepa.modalities.trajectory import Trajectory
from openjepa.nn.convnet import ConvNetConfig
from openjepa.planning.actors.planning import PlanningActor
from openjepa.planning.actors.policy import PolicyActor
from openjepa.planning.diagnosis import Decoder
from openjepa.planning.systems import RoomSystem
from openjepa.viz.explorer.world_session import WorldSession


@pytest.fixture
def session(tmp_path):
    """Return a session with an untrained world."""
    data = Trajectory()
    critic = Critic(WorldModel(ConvNetConfig(hidden=8, depth=1)), directions=4)
    world = Actor(critic).build(data).world.requires_grad_(False)
    torch.nn.init.normal_(world.dynamics.out.weight, std=0.1)  # fresh dynamics change nothing
    system = RoomSystem(tmp_path, "two-rooms", world, data, critic.pushes(data))
    return WorldSession(system, Decoder(lambda rows: rows.flatten(1), lambda x: x[..., :2]), seed=1)


def test_a_click_makes_a_goal_and_starts_the_path_again(session):
    session.advance()
    session.set_goal(3.0, 5.0)
    assert session.env.tasks.goal.tolist() == [[3.0, 5.0]] and len(session.path) == 1


def test_a_goal_in_a_wall_is_refused(session):
    row, column = session.env.tasks.rooms.wall[0].nonzero()[0].tolist()
    with pytest.raises(UserError, match="a goal cannot be in a wall"):
        session.set_goal(column + 0.5, row + 0.5)


def test_the_agent_moves_until_its_goal_and_then_stands(session):
    session.set_goal(*(session.env.position[0] + torch.tensor([0.1, 0.0])).tolist())
    assert session.advance() and len(session.path) == 1
    session.start_room(2)
    session.advance()
    assert len(session.path) == 2 and session.describe().startswith("step 1;")
    session.env.position = session.env.tasks.goal
    assert session.describe() == "reached at step 1: click another position"


def test_modes_and_costs_reach_the_agent(session):
    session.mode = "1"
    session.configure()
    assert isinstance(session.agent.actor, PolicyActor)
    session.mode, session.zone = "2", (10.0, 10.0)
    session.configure()
    assert isinstance(session.agent.actor, PlanningActor)
    near, far = (torch.full((1, 1, 8, 2), value) for value in (0.0, 0.5))
    state = session.agent.perception(session.env.observe())
    costs = session.agent.actor.cost_from(state)
    assert not torch.equal(costs(near), costs(far))


def test_the_picture_shows_zone_and_plan(session):
    before = session.picture()
    session.zone = (16.0, 16.0)
    assert (session.picture() != before).any()
    session.configure()
    session.advance()
    assert session.imagined().shape[1] == 2
