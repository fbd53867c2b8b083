"""World model, critic and actor as stages of one recipe: each starts from the weights before, which stay frozen."""

from dataclasses import replace
from itertools import pairwise

import pytest
import torch

from openjepa.interop.pretrained import load_run
from openjepa.nn.convnet import ConvNetConfig
from openjepa.recipes.world_rooms import world_rooms
from openjepa.training.run import pretrain
from openjepa.training.stages import Stages, run_stages

SMALL = ConvNetConfig(hidden=8, depth=1)


@pytest.fixture(scope="module")
def stages(tmp_path_factory):
    """Train two steps of each stage of a tiny system, and return the folder."""
    out = tmp_path_factory.mktemp("rooms") / "run"
    first, locator, second, third = world_rooms().runs
    model = replace(first.method, encoder=SMALL)
    critic = replace(second.method, world=model, directions=4, lengths=(1, 2))
    short = {"steps": 2, "batch_size": 4, "device": "cpu", "precision": "fp32", "report": False, "workers": 0}
    runs = [
        replace(stage, data=replace(stage.data, episodes=16, steps=3), method=method, **short)
        for stage, method in zip(
            (first, locator, second, third),
            (model, replace(locator.method, world=model), critic, replace(third.method, critic=critic)),
            strict=True,
        )
    ]
    run_stages(Stages(tuple(runs)), out, pretrain)
    return out


def weights(run):
    """Return the exported weights of a run."""
    return load_run(run / "export").network.state_dict()


def test_each_stage_keeps_the_networks_of_the_one_before(stages):
    states = [weights(stages / f"stage-{number}") for number in (1, 2, 3, 4)]
    for before, after in pairwise(states):
        assert before.keys() < after.keys()
        assert all(torch.equal(value, after[name]) for name, value in before.items())


def test_a_loaded_actor_gives_logits_for_frames_and_goals(stages):
    trained = load_run(stages / "stage-4" / "export")
    world = trained.network
    frames = trained.data.synthetic(6, 0).read(torch.arange(6), None).views[0][:, :1]
    with torch.no_grad():
        states = world(trained.data.tokens(frames))[0].x
        logits = world.logits(world.policy_field(states[:2])[:, None], world.locate(states))  # type: ignore[operator]
    assert logits.shape == (2, 1, 3, 4) and logits.isfinite().all()
