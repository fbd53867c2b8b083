"""World model, critic and actor as stages of one recipe: each starts from the weights before, which stay frozen."""

from itertools import pairwise

import torch

from openjepa.interop.pretrained import load_run


def weights(run):
    """Return the exported weights of a run."""
    return load_run(run / "export").network.state_dict()


def test_each_stage_keeps_the_networks_of_the_one_before(rooms_run):
    states = [weights(rooms_run / f"stage-{number}") for number in (1, 2, 3, 4)]
    for before, after in pairwise(states):
        assert before.keys() < after.keys()
        assert all(torch.equal(value, after[name]) for name, value in before.items())


def test_a_loaded_actor_gives_logits_for_frames_and_goals(rooms_run):
    trained = load_run(rooms_run / "stage-4" / "export")
    world = trained.network
    frames = trained.data.synthetic(6, 0).read(torch.arange(6), None).views[0][:, :1]
    with torch.no_grad():
        states = world(trained.data.tokens(frames))[0].x
        logits = world.logits(world.policy_field(states[:2], 2), world.locate(states))  # type: ignore[operator]
    assert logits.shape == (2, 1, 3, 4) and logits.isfinite().all()
