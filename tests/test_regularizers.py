"""Regularizers are zero for diverse features and positive for collapsed ones."""

import numpy as np
import pytest
import torch

from openjepa.nn.regularizers import covariance_loss, sigreg, variance_loss


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
