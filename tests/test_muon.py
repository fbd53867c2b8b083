"""Muon moves the matrices of blocks as torch's own does, all else as AdamW, and its runs end where they would have."""

import signal

import pytest
import torch

from openjepa.cli.pretrain import pretrain
from openjepa.core.errors import Interrupted, UserError
from openjepa.training import muon
from openjepa.training.muon import block_matrices, orthogonalize
from openjepa.training.optim import (
    Hyperparameters,
    Optim,
    build_optimizer,
    clip_gradients,
    set_hyperparameters,
    step_if_finite,
)
from openjepa.training.setup import check_batch_size
from openjepa.training.signals import StopSignals
from tests.conftest import METHODS, MODALITIES, replace
from tests.faults import outcome, same
from tests.ranks import started

ASKED = Optim(optimizer="muon")


def with_gradients():
    """A network, its weights by name, and gradients that are the same every time."""
    net, generator = METHODS["averaged"].build(MODALITIES["image"]), torch.Generator().manual_seed(0)
    trained = {name: p for name, p in net.named_parameters() if p.requires_grad}
    for p in trained.values():
        p.grad = torch.randn(p.shape, generator=generator)
    return net, trained


def stepped(optimizer, times: int = 3) -> None:
    set_hyperparameters(optimizer, Hyperparameters(1e-2, 5.0, 0.9))
    for _ in range(times):
        assert step_if_finite(optimizer, torch.tensor(1.0))
        rolled(optimizer)


def rolled(optimizer) -> None:
    """Another gradient for the next step."""
    for group in optimizer.param_groups:
        for p in group["params"]:
            p.grad = p.grad.roll(1, -1) if p.grad is not None else None


def test_every_matrix_of_a_block_moves_as_torchs_own_muon_moves_it(monkeypatch):
    """Queries, keys and values each by themselves. Torch's multiplies in bf16, so does ours around the call."""
    monkeypatch.setattr(muon, "NEWTON_SCHULZ_COEFFICIENTS", ((3.4445, -4.7750, 2.0315),) * 5)
    net, trained = with_gradients()
    theirs = {
        (p, number): torch.nn.Parameter(part.detach().clone())
        for p, count in block_matrices(net).items()
        for number, part in enumerate(p.chunk(count))
    }
    for (p, number), copy in theirs.items():
        copy.grad = p.grad[number * len(copy) : (number + 1) * len(copy)].clone()
    begun = {key: copy.detach().clone() for key, copy in theirs.items()}
    oracle = torch.optim.Muon(list(theirs.values()), lr=1e-2, weight_decay=5.0, adjust_lr_fn="match_rms_adamw")
    with torch.autocast("cpu", torch.bfloat16):
        stepped(build_optimizer(net, ASKED))
    for _ in range(3):
        oracle.step()
        rolled(oracle)
    blocks = {name: p for name, p in trained.items() if ".blocks." in name and p.ndim == 2}
    assert set(blocks.values()) == {p for p, _ in theirs} and len(theirs) == 6 * len(blocks) // 4
    for (p, number), copy in theirs.items():
        ours = p[number * len(copy) : (number + 1) * len(copy)]
        assert (ours - copy).norm() < 0.03 * (copy - begun[p, number]).norm()


def test_all_else_moves_as_adamw_moves_it():
    (net, trained), (other, theirs) = with_gradients(), with_gradients()
    stepped(build_optimizer(net, ASKED))
    stepped(build_optimizer(other, Optim()))
    turned = {name for name, p in trained.items() if p in block_matrices(net)}
    for name, p in trained.items():
        assert torch.equal(p, theirs[name]) == (name not in turned), name


@pytest.mark.parametrize("shape", [(3, 24, 96), (3, 96, 24), (3, 48, 48)])
def test_singular_values_come_close_to_one_and_directions_stay(shape):
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    u, values, v = torch.linalg.svd(x, full_matrices=False)
    large = values > 0.02 * x.flatten(1).norm(dim=1, keepdim=True)
    kept = (u.mT @ orthogonalize(x) @ v.mT).diagonal(dim1=1, dim2=2)
    assert large.float().mean() > 0.9
    assert kept[large].min() > 0.88 and kept.max() < 1.12
    torch.testing.assert_close(u @ torch.diag_embed(kept) @ v, orthogonalize(x), atol=1e-4, rtol=0)


def test_a_step_without_a_finite_gradient_changes_nothing_nor_what_is_kept():
    net, trained = with_gradients()
    optimizer = build_optimizer(net, ASKED)
    stepped(optimizer, 1)
    before = [p.detach().clone() for p in trained.values()]
    kept = {p: value["momentum_buffer"].clone() for p, value in optimizer.state.items() if "momentum_buffer" in value}
    for p in trained.values():
        p.grad.flatten()[0] = float("nan")
    assert kept and not step_if_finite(optimizer, clip_gradients(net, 0.0))
    assert all(torch.equal(a, b) for a, b in zip(before, trained.values(), strict=True))
    assert all(torch.equal(optimizer.state[p]["momentum_buffer"], value) for p, value in kept.items())


def test_a_run_that_was_stopped_ends_bit_for_bit_where_one_that_was_not_does(tiny, monkeypatch):
    tiny = replace(tiny, optim=replace(tiny.optim, optimizer="muon"))
    whole = replace(tiny, out=tiny.out.with_name("whole"))
    pretrain(whole)
    monkeypatch.setattr(StopSignals, "stop", lambda self, step, device: signal.SIGTERM if step + 1 == 5 else 0)
    with pytest.raises(Interrupted, match="SIGTERM"):
        pretrain(tiny)
    monkeypatch.undo()
    pretrain(replace(tiny, resume="yes"))
    assert same(outcome(tiny.out), outcome(whole.out))


def test_two_ranks_equal_one(tiny):
    tiny = replace(tiny, optim=replace(tiny.optim, optimizer="muon"))
    pretrain(replace(tiny, out=tiny.out.with_name("one")))
    assert [process.wait(240) for process in started(tiny)] == [0, 0]
    one, two = (outcome(out)[0]["model"] for out in (tiny.out.with_name("one"), tiny.out))
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, atol=1e-4, rtol=0)


def test_weights_that_are_spread_are_refused_in_a_sentence(tiny, monkeypatch):
    monkeypatch.setattr("openjepa.training.setup.rank_and_size", lambda: (0, 2))
    with pytest.raises(UserError, match="whole matrices.*try --optim.optimizer adamw"):
        check_batch_size(replace(tiny, fsdp=True, optim=replace(tiny.optim, optimizer="muon")))
