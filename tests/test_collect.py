"""`jepa collect`: the same seed gives the same bytes, files that train, refused folders, controllers beside random."""

import hashlib
import json
from dataclasses import replace
from importlib.util import find_spec

import numpy as np
import pytest
import torch

from openjepa.cli.main import main
from openjepa.core.errors import UserError
from openjepa.data.synthetic.rooms import draw_episodes, render
from openjepa.modalities.trajectory import Trajectory
from openjepa.planning.collect import collect_episodes, known_policy, random_policy, record_episode
from openjepa.planning.controllers import CONTROLLERS
from openjepa.planning.envs.gym import GymEnv
from openjepa.planning.settings import Collect
from tests.test_rooms import rng

needs_gymnasium = pytest.mark.skipif(
    not find_spec("gymnasium"),
    reason="gymnasium is not installed: pip install 'openjepa[control]'",
)
ENVIRONMENTS = [
    pytest.param("two-rooms", id="rooms"),
    pytest.param("CartPole-v1", marks=needs_gymnasium),
    pytest.param("Pendulum-v1", marks=needs_gymnasium),
]


def digests(folder):
    return [hashlib.sha256(file.read_bytes()).hexdigest() for file in sorted(folder.iterdir())]


@pytest.mark.parametrize("env", ENVIRONMENTS)
def test_the_same_seed_collects_the_same_bytes_and_each_episode_is_another(env, tmp_path):
    settings = Collect(env=env, out=tmp_path / "a", episodes=3, steps=20)
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        collect_episodes(replace(settings, out=tmp_path / name, seed=seed))
    one, same, other = (digests(tmp_path / name) for name in "abc")
    assert one == same and len(set(one)) == 3 and not set(one) & set(other)
    contents = [np.load(file) for name in "ac" for file in sorted((tmp_path / name).iterdir())]
    assert len({each["states"][0].tobytes() for each in contents}) == 6
    assert len({each["actions"][:8].tobytes() for each in contents}) == 6


@pytest.mark.parametrize("env", ENVIRONMENTS)
def test_the_first_episodes_do_not_depend_on_how_many_follow(env, tmp_path):
    settings = Collect(env=env, out=tmp_path / "few", episodes=2, steps=10)
    collect_episodes(settings)
    collect_episodes(replace(settings, out=tmp_path / "many", episodes=4))
    assert digests(tmp_path / "many")[:2] == digests(tmp_path / "few")


@pytest.mark.parametrize("env", ENVIRONMENTS)
def test_collected_episodes_are_read_by_the_modality(env, tmp_path):
    collected = collect_episodes(Collect(env=env, out=tmp_path, episodes=4, steps=20))
    modality, _ = Trajectory(root=(str(tmp_path),)).suggest()
    data = modality.dataset(modality.listing())
    samples = data.read(torch.arange(len(data)), None)
    modality = modality.measure(data)
    assert modality.tokens(samples.views[0]).x.shape[1:] == (modality.layout.count, modality.token_dim)
    assert samples.conditions.shape == (len(data), modality.steps, modality.action_dim)
    assert len(data) == collected.steps - 4 * (modality.steps - 1)


def test_walks_in_rooms_are_those_of_the_renderer(tmp_path):
    collect_episodes(Collect(env="four-rooms", out=tmp_path, episodes=2, steps=6, seed=3))
    walks = draw_episodes("four-rooms", rng(2, seed=3), 6)
    frames = render(walks.rooms.wall, walks.position)
    for number in range(2):
        with np.load(tmp_path / f"episode-{number:06d}.npz") as content:
            assert np.array_equal(content["observations"], frames[number].permute(0, 2, 3, 1).numpy())
            assert np.array_equal(content["states"], walks.position[number].numpy())
            assert np.array_equal(content["actions"], walks.action[number].numpy())


@needs_gymnasium
def test_an_episode_ends_where_the_environment_ends_it(tmp_path):
    collect_episodes(Collect(env="CartPole-v1", out=tmp_path, episodes=5))
    lengths = []
    for file in sorted(tmp_path.iterdir()):
        with np.load(file) as content:
            lengths.append(len(content["actions"]))
            assert content["terminated"] and content["rewards"].sum() == lengths[-1] < 200
            assert len(content["states"]) == lengths[-1] + 1 and abs(content["states"][-1, 2]) > 0.2
            assert (abs(content["states"][:-1, 2]) < 0.21).all()
    assert len(set(lengths)) > 1


@needs_gymnasium
def test_frames_are_saved_beside_states(tmp_path):
    pytest.importorskip("pygame", reason="pygame is not installed: pip install 'openjepa[control]'")
    collect_episodes(Collect(env="Pendulum-v1", out=tmp_path, episodes=1, steps=4, pixels=16))
    with np.load(tmp_path / "episode-000000.npz") as content:
        assert content["observations"].shape == (5, 16, 16, 3) and content["states"].shape == (5, 3)


def test_a_folder_with_files_is_refused_and_stays_as_it_is(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="is not empty: give another --out"):
        collect_episodes(Collect(env="two-rooms", out=tmp_path, episodes=1))
    assert [each.name for each in tmp_path.iterdir()] == ["notes.txt"]


@pytest.mark.parametrize(
    ("settings", "advice"),
    [({"episodes": 0}, "--episodes must be >= 1"), ({"pixels": -1}, "--pixels must be >= 0, got -1")],
)
def test_settings_that_cannot_be_are_refused(settings, advice, tmp_path):
    with pytest.raises(UserError, match=advice):
        Collect(env="two-rooms", out=tmp_path, **settings)


def test_the_command_says_what_to_type_next(tmp_path, capsys):
    out = tmp_path / "with space"
    assert main(["collect", "two-rooms", "--episodes", "2", "--steps", "4", "--out", str(out)]) == 0
    *_, last = capsys.readouterr().out.splitlines()
    assert last == (f"next       jepa pretrain --modality trajectory --data.root '{out}' --out 'runs/with space'")
    assert (
        main(["collect", "two-rooms", "--episodes", "2", "--steps", "4", "--out", str(tmp_path / "b"), "--json"]) == 0
    )
    assert json.loads(capsys.readouterr().out)["steps"] == 8


def mean_return(env, policy_of, seeds, limit):
    """Return the mean sum of rewards over the episodes that begin with these seeds."""
    return float(np.mean([record_episode(env, policy_of(seed), seed, limit).rewards.sum() for seed in seeds]))


@needs_gymnasium
@pytest.mark.parametrize(("name", "least"), [("CartPole-v1", 500.0), ("Pendulum-v1", -250.0)])
def test_a_known_controller_is_far_better_than_random_actions(name, least):
    env, controller = GymEnv(name), CONTROLLERS[name]
    controlled = mean_return(env, lambda _: known_policy(controller), range(3), 500)
    random = mean_return(env, lambda seed: random_policy(env, seed, 0, 500), range(3), 500)
    assert controlled >= least > random + 100
