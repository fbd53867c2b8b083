"""Weights spread over two processes: the same run as one process that has them whole."""

import numpy as np
import pytest
import torch

from openjepa.cli.pretrain import pretrain
from openjepa.core.errors import UserError
from openjepa.training.checkpoint import load_newest
from openjepa.training.config import OnlineProbe, config_differences
from openjepa.training.setup import check_batch_size
from tests.conftest import METHODS, replace, slow
from tests.ranks import RUN
from tests.test_distributed import features, losses, torchrun


@pytest.mark.parametrize(
    ("method", "other"),
    [
        pytest.param("released", {}, marks=slow),
        pytest.param("averaged", {"accumulate": 4}, marks=slow),
        pytest.param("rotary", {"activation_checkpointing": True}, marks=slow),
        pytest.param("mae", {}, marks=slow),
    ],
)
def test_two_processes_that_share_the_weights_equal_one(tiny, method, other):
    tiny = replace(tiny, method=METHODS[method], steps=20, optim=replace(tiny.optim, clip=0.5))
    one, two = replace(tiny, out=tiny.out.with_name("one")), replace(tiny, out=tiny.out.with_name("two"))
    pretrain(one)
    torchrun(replace(two, fsdp=True, **other))
    np.testing.assert_allclose(losses(two.out), losses(one.out), atol=1e-6, rtol=0)
    torch.testing.assert_close(features(two.out), features(one.out), atol=1e-4, rtol=0)


SHARES = RUN.replace(
    "pretrain(from_json",
    """
from openjepa.training import meters, run
took = meters.Meters.on_step
def weighed(self, *given):
    took(self, *given)
    held = lambda tensors: sum(x.to_local().numel() for x in tensors)
    method, optimizer = KEPT
    everything = [*method.parameters()], [x for own in optimizer.state.values() for x in own.values() if x.ndim]
    for tensors in everything:
        assert tensors and held(tensors) < 0.6 * sum(x.numel() for x in tensors)
meters.Meters.on_step = weighed
train = run.train
def kept(settings, method, optimizer, *rest):
    global KEPT
    KEPT = method, optimizer
    train(settings, method, optimizer, *rest)
run.train = kept
pretrain(from_json""",
    1,
)


def test_each_process_holds_its_part_of_weights_moments_and_average(tiny):
    torchrun(replace(tiny, steps=3, fsdp=True), code=SHARES)


def test_a_checkpoint_of_two_goes_on_with_one_and_again_with_two(tiny):
    pretrain(replace(tiny, out=tiny.out.with_name("one"), steps=20))
    shared = replace(tiny, steps=20, fsdp=True)
    for steps, alone in ((5, False), (10, True), (20, False)):
        code = RUN.replace("pretrain(from_json", f"{UNTIL.format(steps)}\npretrain(from_json")
        settings = replace(shared, resume="if-any")
        torchrun(settings, ranks=1 if alone else 2, code=code)
        assert load_newest(tiny.out / "checkpoints").step == steps
    np.testing.assert_allclose(losses(tiny.out), losses(tiny.out.with_name("one")), atol=1e-6, rtol=0)


UNTIL = """
from openjepa.training.checkpoint_writer import CheckpointWriter
save = CheckpointWriter.save
def last(self, done, method, optimizer, required):
    failure = save(self, done, method, optimizer, True)
    if done == {0} < self.settings.steps:
        os._exit(0)
    return failure
CheckpointWriter.save = last
"""


@slow
def test_a_run_from_other_weights_starts_alike_spread_or_whole(tiny):
    first = replace(tiny, steps=4, out=tiny.out.with_name("first"))
    pretrain(first)
    one = replace(tiny, steps=6, out=tiny.out.with_name("one"), init_from=first.out)
    pretrain(one)
    torchrun(replace(one, out=tiny.out, fsdp=True))
    np.testing.assert_allclose(losses(tiny.out), losses(one.out), atol=1e-6, rtol=0)


def test_probes_during_a_run_whose_weights_are_spread_are_refused(tiny, monkeypatch):
    monkeypatch.setattr("openjepa.training.setup.rank_and_size", lambda: (0, 2))
    with pytest.raises(UserError, match="leave --online-probe.root out"):
        check_batch_size(replace(tiny, fsdp=True, online_probe=OnlineProbe(("photos",))))


def test_recomputed_activations_change_no_bit(tiny):
    """Nor is a run that begins without them another run."""
    pretrain(replace(tiny, out=tiny.out.with_name("one")))
    recomputed = replace(tiny, activation_checkpointing=True)
    pretrain(recomputed)
    one, other = (load_newest(out / "checkpoints") for out in (tiny.out.with_name("one"), tiny.out))
    assert all(torch.equal(one.model[name], other.model[name]) for name in one.model | other.model)
    assert not config_differences(tiny, recomputed)


@pytest.mark.slow
def test_compiled_blocks_can_be_spread(tiny):
    tiny = replace(tiny, steps=6, fsdp=True)
    one = replace(tiny, out=tiny.out.with_name("one"))
    torchrun(one)
    torchrun(replace(tiny, compile=True))
    np.testing.assert_allclose(losses(tiny.out), losses(one.out), atol=1e-6, rtol=0)
