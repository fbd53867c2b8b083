"""Muon updates block matrices as torch.optim.Muon does and all else as AdamW; its runs resume bit-exactly."""

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
from tests.conftest import METHODS, MODALITIES, replace, slow
from tests.faults import load_outcome, same_outcome
from tests.ranks import start_ranks

MUON = Optim(optimizer="muon")


def network_with_gradients():
    """Return a network, its trainable parameters by name, and the same random gradients every time."""
    net, generator = METHODS["averaged"].build(MODALITIES["image"]), torch.Generator().manual_seed(0)
    trained = {name: p for name, p in net.named_parameters() if p.requires_grad}
    for p in trained.values():
        p.grad = torch.randn(p.shape, generator=generator)
    return net, trained


def take_steps(optimizer, count: int = 3) -> None:
    set_hyperparameters(optimizer, Hyperparameters(1e-2, 5.0, 0.9))
    for _ in range(count):
        assert step_if_finite(optimizer, torch.tensor(1.0))
        roll_gradients(optimizer)


def roll_gradients(optimizer) -> None:
    """Make another gradient for the next step."""
    for group in optimizer.param_groups:
        for p in group["params"]:
            p.grad = p.grad.roll(1, -1) if p.grad is not None else None


def test_block_matrices_get_the_updates_of_torchs_muon(monkeypatch):
    """With queries, keys and values each separate. torch's multiplies in bf16, so ours runs under autocast."""
    monkeypatch.setattr(muon, "NEWTON_SCHULZ_COEFFICIENTS", ((3.4445, -4.7750, 2.0315),) * 5)
    net, trained = network_with_gradients()
    copies = {
        (p, number): torch.nn.Parameter(part.detach().clone())
        for p, count in block_matrices(net).items()
        for number, part in enumerate(p.chunk(count))
    }
    for (p, number), copy in copies.items():
        copy.grad = p.grad[number * len(copy) : (number + 1) * len(copy)].clone()
    initial = {key: copy.detach().clone() for key, copy in copies.items()}
    oracle = torch.optim.Muon(list(copies.values()), lr=1e-2, weight_decay=5.0, adjust_lr_fn="match_rms_adamw")
    with torch.autocast("cpu", torch.bfloat16):
        take_steps(build_optimizer(net, MUON))
    for _ in range(3):
        oracle.step()
        roll_gradients(oracle)
    blocks = {name: p for name, p in trained.items() if ".blocks." in name and p.ndim == 2}
    assert set(blocks.values()) == {p for p, _ in copies} and len(copies) == 6 * len(blocks) // 4
    for (p, number), copy in copies.items():
        part = p[number * len(copy) : (number + 1) * len(copy)]
        assert (part - copy).norm() < 0.03 * (copy - initial[p, number]).norm()


def test_all_other_parameters_get_the_updates_of_adamw():
    (net, trained), (other, expected) = network_with_gradients(), network_with_gradients()
    take_steps(build_optimizer(net, MUON))
    take_steps(build_optimizer(other, Optim()))
    by_muon = {name for name, p in trained.items() if p in block_matrices(net)}
    for name, p in trained.items():
        assert torch.equal(p, expected[name]) == (name not in by_muon), name


@pytest.mark.parametrize("shape", [(3, 24, 96), (3, 96, 24), (3, 48, 48)])
def test_orthogonalize_brings_singular_values_close_to_1_and_keeps_the_vectors(shape):
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    u, values, v = torch.linalg.svd(x, full_matrices=False)
    large = values > 0.02 * x.flatten(1).norm(dim=1, keepdim=True)
    new_values = (u.mT @ orthogonalize(x) @ v.mT).diagonal(dim1=1, dim2=2)
    assert large.float().mean() > 0.9
    assert new_values[large].min() > 0.88 and new_values.max() < 1.12
    torch.testing.assert_close(u @ torch.diag_embed(new_values) @ v, orthogonalize(x), atol=1e-4, rtol=0)


def test_a_non_finite_gradient_changes_neither_weights_nor_momentum():
    net, trained = network_with_gradients()
    optimizer = build_optimizer(net, MUON)
    take_steps(optimizer, 1)
    before = [p.detach().clone() for p in trained.values()]
    momenta = {
        p: state["momentum_buffer"].clone() for p, state in optimizer.state.items() if "momentum_buffer" in state
    }
    for p in trained.values():
        p.grad.flatten()[0] = float("nan")
    assert momenta and not step_if_finite(optimizer, clip_gradients(net, 0.0))
    assert all(torch.equal(a, b) for a, b in zip(before, trained.values(), strict=True))
    assert all(torch.equal(optimizer.state[p]["momentum_buffer"], momentum) for p, momentum in momenta.items())


def test_a_resumed_run_with_muon_is_bit_exact(tiny, monkeypatch):
    tiny = replace(tiny, optim=replace(tiny.optim, optimizer="muon"))
    whole = replace(tiny, out=tiny.out.with_name("whole"))
    pretrain(whole)
    monkeypatch.setattr(StopSignals, "check", lambda self, step, device: signal.SIGTERM if step + 1 == 5 else 0)
    with pytest.raises(Interrupted, match="SIGTERM"):
        pretrain(tiny)
    monkeypatch.undo()
    pretrain(replace(tiny, resume="yes"))
    assert same_outcome(load_outcome(tiny.out), load_outcome(whole.out))


@slow
def test_two_ranks_equal_one_with_muon(tiny):
    tiny = replace(tiny, optim=replace(tiny.optim, optimizer="muon"))
    pretrain(replace(tiny, out=tiny.out.with_name("one")))
    assert [process.wait(240) for process in start_ranks(tiny)] == [0, 0]
    one, two = (load_outcome(out)[0]["model"] for out in (tiny.out.with_name("one"), tiny.out))
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, atol=1e-4, rtol=0)


def test_muon_with_fsdp_is_refused(tiny, monkeypatch):
    monkeypatch.setattr("openjepa.training.setup.rank_and_size", lambda: (0, 2))
    with pytest.raises(UserError, match="requires unsharded matrices.*try --optim.optimizer adamw"):
        check_batch_size(replace(tiny, fsdp=True, optim=replace(tiny.optim, optimizer="muon")))
