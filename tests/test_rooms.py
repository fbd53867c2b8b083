"""Rooms: held-out layouts, walls that nothing passes, doors that let through, shortest ways, fixed draws."""

import numpy as np
import pytest
import torch

from openjepa.core.errors import UserError
from openjepa.core.rng import CounterRNG
from openjepa.data.synthetic.geodesic import distance_at, geodesic_distance
from openjepa.data.synthetic.room_layouts import COLUMNS, DOOR, DOOR_ROWS, SIDE, WALL, WORLDS, build_rooms
from openjepa.data.synthetic.rooms import (
    BORDER,
    MAX_STEP,
    draw_episodes,
    draw_positions,
    draw_rooms,
    move,
    read_pixels,
    render,
)
from openjepa.planning.envs.rooms import RoomEnv, draw_tasks, draw_tasks_to

every_world = pytest.mark.parametrize("world", WORLDS)


def rng(count=500, seed=0):
    return CounterRNG.of(seed, 0, np.arange(count))


@every_world
def test_layouts_of_tests_never_occur_in_training(world):
    trained, tested = (set(draw_rooms(world, rng(5000), held_out).number.tolist()) for held_out in (False, True))
    assert not trained & tested
    if world == "two-rooms":
        assert len(trained | tested) == COLUMNS * DOOR_ROWS and 0.15 < len(tested) / (COLUMNS * DOOR_ROWS) < 0.25


@every_world
def test_all_rooms_are_connected_by_doors_of_equal_width(world):
    rooms = draw_rooms(world, rng(200))
    doors, last = {"two-rooms": (1, 1), "four-rooms": (4, 3), "winding": (3, 3)}[world.removesuffix("-distractor")]
    assert rooms.room.amax((1, 2)).eq(last).all()
    passages = (rooms.room < 0) & ~rooms.wall
    assert passages.sum((1, 2)).eq(doors * WALL * DOOR).all()
    goal = draw_positions(rooms, rng(200), "goal")
    assert torch.equal(geodesic_distance(rooms.wall, goal).isinf(), rooms.wall)


@every_world
def test_nothing_enters_a_wall_or_leaves_the_frame(world):
    walks = draw_episodes(world, rng(), 40)
    assert walks.position.min() >= BORDER and walks.position.max() <= WORLDS[world].side - BORDER
    for time in range(41):
        assert not read_pixels(walks.rooms.wall, walks.position[:, time]).any()
    assert walks.position.diff(dim=1).norm(dim=-1).max() <= MAX_STEP + 1e-5
    assert len({int(room) for room in read_pixels(walks.rooms.room, walks.position[:, -1])}) > 1


def test_a_push_into_a_wall_ends_at_it_and_slides_along_it_and_one_into_a_door_passes():
    rooms = build_rooms(torch.tensor([[16, 10], [16, 10], [16, 10]]))
    position = torch.tensor([[14.0, 3.0], [14.0, 3.0], [14.0, 12.0]])
    action = torch.tensor([[1.5, 0.0], [1.0, 1.0], [9.0, 0.0]])
    for _ in range(4):
        position = move(rooms.wall, position, action)
    assert 15.5 <= position[0, 0] < 16 and position[0, 1] == 3
    assert position[1, 0] < 16 and position[1, 1] == pytest.approx(7, abs=1e-4)
    assert position[2].tolist() == pytest.approx([20, 12], abs=1e-4)


def test_the_shortest_way_is_straight_in_a_room_and_goes_through_the_door():
    rooms = build_rooms(torch.tensor([[16, 10]]))
    distance = geodesic_distance(rooms.wall, torch.tensor([[4.5, 28.5]]))
    assert distance_at(distance, torch.tensor([[12.5, 13.5]])) == pytest.approx(17.0, rel=0.02)
    around = torch.tensor([[28.5, 28.5]])
    edges = torch.tensor([[4.5, 28.5], [16.0, 15.0], [18.0, 15.0], [28.5, 28.5]])
    shortest = edges.diff(dim=0).norm(dim=-1).sum()  # around the door's lower corners
    assert distance_at(distance, around) == pytest.approx(float(shortest), rel=0.05)
    assert distance[0, 28, 4] == 0 and distance[0, 0, 16] == float("inf")


@every_world
def test_starts_and_goals_are_in_different_rooms_and_outside_doors(world):
    rooms = draw_rooms(world, rng())
    start = draw_positions(rooms, rng(), "start")
    goal = draw_positions(rooms, rng(), "goal", start)
    first, second = read_pixels(rooms.room, start), read_pixels(rooms.room, goal)
    assert (first >= 0).all() and (second >= 0).all() and (first != second).all()


@every_world
def test_one_goal_of_all_tasks_is_free_and_not_reached_at_the_start(world):
    goal = torch.tensor([16.0, 16.0])
    tasks = draw_tasks_to(world, goal.tolist(), 40, seed=0)
    assert len(tasks.goal) == 40 and (tasks.goal == goal).all()
    assert not read_pixels(tasks.rooms.wall, tasks.goal).any()
    solved = draw_tasks(world, 8, seed=0).start[0]  # is left out where it is the goal
    assert not RoomEnv(draw_tasks_to(world, solved.tolist(), 8, seed=0)).reached().any()
    layouts = draw_rooms(world, rng(80), held_out=True)
    is_wall = read_pixels(layouts.wall, goal.expand(80, 2))
    assert is_wall.any() == (world != "winding")  # the winding map has no wall at this position


def test_few_tasks_have_a_goal_that_many_layouts_have_a_wall_at(monkeypatch):
    for seed in range(6):
        assert len(draw_tasks_to("winding", (25.0, 12.0), 1, seed).goal) == 1
    monkeypatch.setattr("openjepa.planning.envs.rooms.LAYOUTS_PER_TASK", 1)
    with pytest.raises(UserError, match="have a wall at the --goal: give another position"):
        draw_tasks_to("winding", (25.0, 12.0), 1, seed=2)


@pytest.mark.parametrize("goal", [(28.0,), (28.0, 4.0, 1.0), (0.5, 4.0), (4.0, 33.0)])
def test_a_goal_outside_the_frame_is_refused(goal):
    with pytest.raises(UserError, match="x and y in pixels, each from 1 to 32, got"):
        draw_tasks_to("two-rooms", goal, 4, seed=0)


def test_frames_show_the_dot_where_it_is_and_the_walls():
    walks = draw_episodes("four-rooms", rng(50), 3)
    frames = render(walks.rooms.wall, walks.position)
    assert frames.shape == (50, 4, 2, SIDE, SIDE) and frames.dtype == torch.uint8
    assert torch.equal(frames[:, :, 1] > 0, walks.rooms.wall[:, None].expand(-1, 4, -1, -1))
    inner = (walks.position > 5).all(-1) & (walks.position < SIDE - 5).all(-1)
    weight = frames[:, :, 0].float()
    centers = torch.arange(SIDE) + 0.5
    mean = (
        torch.stack([(weight.sum(-2) * centers).sum(-1), (weight.sum(-1) * centers).sum(-1)], -1)
        / weight.sum((2, 3))[..., None]
    )
    torch.testing.assert_close(mean[inner], walks.position[inner], atol=0.05, rtol=0)


@every_world
def test_a_walk_is_a_function_of_its_number(world):
    whole = draw_episodes(world, rng(20), 6)
    part = draw_episodes(world, CounterRNG.of(0, 0, np.array([7, 3])), 6)
    assert torch.equal(part.position, whole.position[[7, 3]]) and torch.equal(part.action, whole.action[[7, 3]])
    assert torch.equal(part.rooms.wall, whole.rooms.wall[[7, 3]])
