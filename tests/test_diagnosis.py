"""Diagnosis of worlds: probes read latents; an exact world has no error; one that ignores walls is porous."""

import numpy as np
import pytest
import torch

from openjepa.planning import diagnosis, probes, value_quality
from openjepa.planning.diagnosis import diagnose_world
from openjepa.planning.probes import linear_probe, nonlinear_probe
from openjepa.planning.value_quality import measure_values, spearman
from tests.worlds import ExactModality, ExactValuedWorld, ExactWorld


@pytest.fixture
def few(monkeypatch):
    """Shrink the samples that a world is measured on."""
    for name, value in {"WALKS": 150, "TESTS": 20, "PUSHES": 60}.items():
        monkeypatch.setattr(diagnosis, name, value)
    monkeypatch.setattr(probes, "STEPS", 60)
    monkeypatch.setattr(value_quality, "ROOMS", 4)
    monkeypatch.setattr(value_quality, "STATES", 12)


def test_a_linear_probe_reads_a_linear_function_exactly():
    generator = torch.Generator().manual_seed(0)
    x, new = (torch.randn(300, 5, generator=generator) for _ in range(2))
    weight, bias = torch.randn(5, 2, generator=generator), torch.tensor([3.0, -20.0])
    read = linear_probe(x, x @ weight + bias)(new)
    torch.testing.assert_close(read, new @ weight + bias, atol=0.02, rtol=0)


def test_a_nonlinear_probe_reads_what_a_linear_one_cannot(monkeypatch):
    monkeypatch.setattr(probes, "RATE", 1e-2)
    generator = torch.Generator().manual_seed(0)
    x, new = (torch.randn(500, 2, generator=generator) for _ in range(2))
    truth = new.square()
    linear, nonlinear = (fit(x, x.square())(new) for fit in (linear_probe, nonlinear_probe))
    assert (nonlinear - truth).abs().mean() < 0.3 * (linear - truth).abs().mean()


def test_a_probe_is_a_function_of_its_seed():
    x, y = torch.randn(50, 3), torch.randn(50, 1)
    one, same, other = (nonlinear_probe(x, y, seed)(x) for seed in (0, 0, 1))
    assert torch.equal(one, same) and not torch.equal(one, other)


@pytest.mark.usefixtures("few")
def test_an_exact_world_has_no_imagined_error_and_no_porous_walls():
    found, decoder = diagnose_world(ExactWorld(), ExactModality(), "two-rooms")
    assert found.porosity == 0 and found.pushes > 40
    assert max(found.imagined.values()) < 0.1 and found.imagined.keys() == {1, 8, 16}
    assert max(found.linear.values()) < 0.1 and found.summary is None
    state = torch.tensor([[[7.0, 21.0, 15.0, 4.0]]])
    torch.testing.assert_close(decoder.position(state), state[:, 0, :2], atol=0.1, rtol=0)


@pytest.mark.usefixtures("few")
def test_a_world_whose_dynamics_ignore_walls_is_porous_and_imagines_wrong_positions():
    found, _ = diagnose_world(ExactWorld(porous=True), ExactModality(), "two-rooms")
    assert found.porosity > 0.95
    assert found.imagined[16] > found.imagined[1] and found.imagined[16] > 0.5
    assert found.linear["position"] < 0.1  # perception is as good as ever


@pytest.mark.usefixtures("few")
def test_a_critic_that_knows_the_shortest_ways_has_no_error():
    quality = measure_values(ExactValuedWorld(), ExactModality(), "two-rooms")
    assert quality.rank_correlation > 0.99 and quality.error < 0.1 and abs(quality.bias) < 0.1


def test_spearman_is_that_of_scipy():
    stats = pytest.importorskip("scipy.stats", reason="scipy is the oracle here")
    x, y = torch.randn(3, 20, generator=torch.Generator().manual_seed(0)), torch.arange(60.0).view(3, 20)
    expected = [stats.spearmanr(a, b).statistic for a, b in zip(x.numpy(), y.numpy(), strict=True)]
    np.testing.assert_allclose(spearman(x, y).numpy(), expected, atol=1e-12)
    assert spearman(y, y.exp().log() + y).tolist() == pytest.approx([1, 1, 1]) and spearman(y, -y)[0] == -1
