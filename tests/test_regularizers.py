"""Regularizers are zero for diverse features and positive for collapsed ones."""

import math

import numpy as np
import pytest
import torch

from openjepa.nn.regularizers import (
    covariance_loss,
    kernel_sigreg,
    mean_over_directions,
    sigreg,
    variance_loss,
    vicreg_terms,
)


def normal(rows: int = 4000, width: int = 6) -> torch.Tensor:
    return torch.randn(rows, width, generator=torch.Generator().manual_seed(0))


def gaussian(x: torch.Tensor) -> float:
    return float(sigreg(x, 64, torch.Generator().manual_seed(1)))


@pytest.mark.parametrize("scale", [0.3, 2.0])
def test_features_of_another_scale_are_not_standard_normal(scale):
    assert gaussian(normal()) < 0.001 < 0.02 < gaussian(scale * normal())


def test_a_collapsed_or_shifted_cloud_is_not_standard_normal():
    assert gaussian(torch.zeros(100, 6)) > 0.1 and gaussian(normal() + 2) > 0.05


def test_sigreg_is_the_integral_over_characteristic_functions():
    """Compare with quadrature in numpy for one feature, for which the direction is 1 or -1."""
    x = torch.tensor([[0.3], [-1.2], [2.0]])
    t = np.linspace(-5, 5, 17)
    empirical = np.exp(1j * np.outer(t, x[:, 0].numpy())).mean(1)
    window = np.exp(-t * t / 2)
    expected = np.trapezoid(np.abs(empirical - window) ** 2 * window / np.sqrt(2 * np.pi), t)
    assert gaussian(x) == pytest.approx(expected, abs=1e-5)


def test_variance_loss_is_1_minus_the_standard_deviation():
    assert float(variance_loss(2 * normal())) == 0
    assert float(variance_loss(0.25 * normal())) == pytest.approx(0.75, abs=0.02)


def test_covariance_loss_counts_shared_variance_alone():
    x = normal()
    assert float(covariance_loss(x)) < 0.02
    assert float(covariance_loss(x[:, :1].expand(-1, 6))) == pytest.approx(5 * float(x[:, 0].var()) ** 2, rel=1e-3)


@pytest.mark.parametrize(("width", "scale"), [(1, 1.0), (2, 1.0), (8, 0.3), (64, 1.2)])
def test_the_kernel_is_the_limit_of_many_slices(width, scale):
    x = scale * normal(64, width) + 0.2
    slices = [float(sigreg(x, 2048, torch.Generator().manual_seed(seed))) for seed in range(8)]
    error = np.std(slices) / 8**0.5 + 2e-5  # of the mean, and of the integral over 17 points
    assert abs(float(kernel_sigreg(x)) - np.mean(slices)) < 4 * error


def test_directions_are_averaged_as_on_a_sphere():
    """In three dimensions cos is uniform, which gives an error function; two dimensions give a Bessel function."""
    s = torch.tensor([0.1, 1.0, 5.0])
    expected = (math.pi / s).sqrt() / 2 * torch.erf(s.sqrt())
    torch.testing.assert_close(mean_over_directions(s, 3), expected, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(mean_over_directions(s, 2), (-s / 2).exp() * torch.i0(s / 2), atol=1e-6, rtol=1e-5)


def test_the_kernel_does_not_depend_on_the_axes_and_pulls_a_collapsed_cloud_apart():
    x = normal(64, 8)
    rotation = torch.linalg.qr(normal(8, 8))[0]
    torch.testing.assert_close(kernel_sigreg(x @ rotation), kernel_sigreg(x), atol=1e-6, rtol=1e-4)
    narrow = (0.1 * x).requires_grad_(True)
    kernel_sigreg(narrow).backward()
    assert narrow.grad is not None and (narrow.grad * narrow).sum() < 0  # a step downhill makes it wider


def test_sigreg_of_normal_features_times_their_number_stays_and_of_a_constant_grows():
    few, many = (rows * float(kernel_sigreg(normal(rows, 16))) for rows in (64, 1024))
    assert 0.3 < few / many < 3
    few, many = (rows * float(kernel_sigreg(torch.ones(rows, 16))) for rows in (64, 1024))
    assert many / few == pytest.approx(16, rel=1e-3)


def test_terms_of_equal_and_spread_views_are_zero():
    z = 2 * torch.linalg.qr(normal(64, 6))[0] * 64**0.5
    z = z - z.mean(0)
    terms = vicreg_terms(z, z)
    assert terms.invariance == 0 and terms.variance == 0 and terms.covariance < 0.2
