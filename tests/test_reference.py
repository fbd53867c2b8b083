"""Losses, schedules, positional embeddings and EMA equal a few plain lines of reference code."""

import itertools
import math

import numpy as np
import pytest
import torch

from openjepa.methods.jepa import JEPA
from openjepa.modalities.image import Image
from openjepa.nn import cpu_kernels
from openjepa.nn.cpu_kernels import HAS_ONEDNN_BF16, Linear, attention, self_attention
from openjepa.nn.losses import LOSSES, cosine, smooth_l1, squared_l2
from openjepa.nn.positions import grid_positions, sincos
from openjepa.nn.predictor import PredictorConfig
from openjepa.nn.stems import PatchEmbed
from openjepa.nn.target_transforms import global_mean_var
from openjepa.nn.vit import VIT_SIZES, ViT, ViTConfig
from openjepa.training.optim import (
    Hyperparameters,
    Optim,
    build_optimizer,
    clip_gradients,
    set_hyperparameters,
    step_if_finite,
)
from openjepa.training.schedules import ema_momentum, learning_rate, weight_decay
from tests.conftest import METHODS, MODALITIES

PARAMETERS = {  # trainable parameters, as published or counted in the official code
    ("tiny", 16): 5_486_400,
    ("small", 16): 21_589_632,
    ("base", 16): 85_646_592,
    ("large", 16): 303_098_880,
    ("huge", 14): 630_434_560,
    ("huge", 16): 630_664_960,
    ("giant", 16): 1_011_092_608,
}
PREDICTORS = {("large", 12): 22_082_560, ("huge", 12): 22_279_424, ("giant", 16): 29_475_712, ("base", 6): 11_238_912}


@pytest.mark.parametrize(("size", "patch"), PARAMETERS)
def test_an_encoder_has_the_published_number_of_parameters(size, patch):
    with torch.device("meta"):
        encoder = ViT(PatchEmbed(3, patch, VIT_SIZES[size]["dim"]), **VIT_SIZES[size])
    assert sum(p.numel() for p in encoder.parameters()) == PARAMETERS[size, patch]


@pytest.mark.parametrize(("size", "depth"), PREDICTORS)
def test_a_predictor_has_the_published_number_of_parameters(size, depth):
    with torch.device("meta"):
        predictor = JEPA(ViTConfig(**VIT_SIZES[size]), PredictorConfig(depth=depth)).build_predictor(Image())
    assert sum(p.numel() for p in predictor.parameters()) == PREDICTORS[size, depth]


def test_smooth_l1_is_the_mean_huber_loss_over_all_elements():
    predicted, target = 3 * torch.randn(2, 3, 4, 5), torch.randn(2, 3, 4, 5)
    d = (predicted - target).abs().numpy()
    assert smooth_l1(predicted, target).item() == pytest.approx(np.where(d < 1, d * d / 2, d - 0.5).mean(), rel=1e-5)


def test_squared_l2_is_the_papers_sum_over_a_block():
    predicted, target = torch.randn(2, 3, 4, 5), torch.randn(2, 3, 4, 5)
    expected = np.mean(
        [
            np.sum((p - t) ** 2)
            for p, t in zip(predicted.numpy().reshape(6, -1), target.numpy().reshape(6, -1), strict=True)
        ]
    )
    assert squared_l2(predicted, target).item() == pytest.approx(expected, rel=1e-5)


def test_cosine_loss_is_one_minus_the_mean_cosine_of_tokens():
    predicted, target = torch.randn(2, 3, 4, 5), torch.randn(2, 3, 4, 5)
    pairs = zip(predicted.numpy().reshape(24, 5), target.numpy().reshape(24, 5), strict=True)
    cosines = [p @ t / np.sqrt(p @ p * (t @ t)) for p, t in pairs]
    assert cosine(predicted, target).item() == pytest.approx(1 - np.mean(cosines), rel=1e-5)


@pytest.mark.parametrize("loss", LOSSES.values())
def test_padding_does_not_change_a_loss(loss):
    predicted, target = torch.randn(2, 3, 4, 5), torch.randn(2, 3, 4, 5)
    valid = torch.ones(2, 3, 4, dtype=torch.bool)
    assert loss(predicted, target, valid).item() == pytest.approx(loss(predicted, target).item(), rel=1e-6)
    valid[..., -1] = False
    corrupted = predicted.clone()
    corrupted[..., -1, :] = 100.0
    assert loss(corrupted, target, valid).item() == pytest.approx(loss(predicted, target, valid).item(), rel=1e-6)


def test_learning_rate_is_the_official_schedule():
    total, warmup = 187_500, 25_000  # ViT-H/14, 16 GPUs of 128, 300 epochs, 40 of them warmup
    rate = [learning_rate(n - 1, total, warmup, 2e-4, 1e-3, 1e-6) for n in (1, warmup, (warmup + total) // 2, total)]
    assert rate[0] == 2e-4 + 8e-4 / 25_000
    assert rate[1] == 1e-3
    assert rate[2] == pytest.approx((1e-3 + 1e-6) / 2, rel=1e-4)
    assert rate[3] == 1e-6
    for n in (24_999, 25_001, 100_000):
        p = (n - warmup) / (total - warmup)
        expected = (
            2e-4 + n / warmup * 8e-4
            if n < warmup
            else max(1e-6, 1e-6 + (1e-3 - 1e-6) * 0.5 * (1.0 + math.cos(math.pi * p)))
        )
        assert learning_rate(n - 1, total, warmup, 2e-4, 1e-3, 1e-6) == expected


def test_learning_rate_stays_constant_and_then_decays_to_the_same_end():
    rates = [Optim(lr=1e-3, warmup=0.1, constant_fraction=0.6).at(step, 1000).lr for step in range(1000)]
    assert rates[99:700] == [1e-3] * 601
    assert all(a > b for a, b in itertools.pairwise(rates[699:])) and rates[-1] == 1e-6
    assert rates[849] == pytest.approx((1e-3 + 1e-6) / 2)


def test_weight_decay_is_a_cosine_as_in_the_official_code_or_linear_as_in_the_paper():
    for n in (1, 500, 1000):
        expected = 0.4 + (0.04 - 0.4) * 0.5 * (1.0 + math.cos(math.pi * n / 1000))
        assert weight_decay(n - 1, 1000, 0.04, 0.4) == expected
        assert weight_decay(n - 1, 1000, 0.04, 0.4, "linear") == 0.04 + (0.4 - 0.04) * n / 1000


def test_ema_momentum_grows_linearly_and_stays_below_one():
    assert ema_momentum(0, 1000, 0.996, 1.0) == 0.996
    assert ema_momentum(999, 1000, 0.996, 1.0) == pytest.approx(1 - 0.004 / 1000, abs=1e-12)


def test_ema_rampup_limits_the_horizon_to_a_share_of_the_steps_so_far():
    share, linear = 0.1, [ema_momentum(n, 5000, 0.99, 0.992) for n in range(5000)]
    ramped = [ema_momentum(n, 5000, 0.99, 0.992, share) for n in range(5000)]
    horizons = [1 / (1 - m) for m in ramped]
    assert all(horizon <= max(1.0, share * (n + 1)) + 1e-6 for n, horizon in enumerate(horizons))
    assert all(m <= limit for m, limit in zip(ramped, linear, strict=True)) and ramped == sorted(ramped)
    assert ramped[9] == 0.0 and 0 < ramped[99] < linear[99] and ramped[1099:] == linear[1099:]
    assert Optim(ema_rampup=share, ema_momentum=0.99).at(99, 5000).momentum == ema_momentum(99, 5000, 0.99, 1.0, share)


def test_sincos_positions_equal_the_official_table():
    """The first half encodes the column, the second the row; sines, then cosines; frequencies 10000^(-k/K)."""
    table = sincos(grid_positions(3, 5), 16).numpy()
    for row in range(3):
        for column in range(5):
            expected = []
            for coordinate in (column, row):
                angles = [coordinate / 10000 ** (k / 4) for k in range(4)]
                expected += [math.sin(a) for a in angles] + [math.cos(a) for a in angles]
            np.testing.assert_allclose(table[row * 5 + column], expected, atol=1e-6)


def test_positions_of_another_resolution_span_the_trained_extent():
    fine = grid_positions(28, 28, trained_grid=(14, 14))
    assert fine.min() == pytest.approx(-0.25) and fine.max() == pytest.approx(13.25)
    assert torch.equal(grid_positions(14, 14, trained_grid=(14, 14)), grid_positions(14, 14))


def test_target_encoder_moves_towards_context_encoder():
    method = METHODS["released"].build(MODALITIES["image"])
    target, context = (method.encoders()[which].blocks[0].attn.qkv.weight for which in ("target", "context"))
    with torch.no_grad():
        context.add_(torch.randn_like(context))
    before = (target - context).norm().item()
    method.after_step(0.9)
    assert (target - context).norm().item() == pytest.approx(0.9 * before, rel=1e-5)


def test_global_mean_var_is_over_all_tokens():
    x = torch.randn(4, 6, 8) * 3 + 2
    mean, variance = global_mean_var(x)
    np.testing.assert_allclose(mean.numpy(), x.numpy().reshape(-1, 8).mean(0), rtol=1e-5)
    np.testing.assert_allclose(variance.numpy(), x.numpy().reshape(-1, 8).var(0), rtol=1e-4)


def test_attention_equals_torchs():
    q, k, v = (torch.randn(2, 3, 7, 8) for _ in range(3))
    mask = torch.rand(2, 1, 1, 7) > 0.3
    mask[..., 0] = True
    expected = torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    torch.testing.assert_close(attention(q, k, v, mask), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("masked", [False, True])
def test_self_attention_and_its_gradient_equal_attention(masked):
    qkv = torch.randn(3, 2, 3, 7, 8, dtype=torch.float64, requires_grad=True)
    mask = torch.rand(2, 1, 7, 7) > 0.3 if masked else None
    if mask is not None:
        mask[..., 0] = True
    grad = torch.randn(2, 3, 7, 8, dtype=torch.float64)
    results = []
    for function in (lambda: self_attention(qkv, mask), lambda: attention(*qkv, mask)):
        output = function()
        results.append((output, *torch.autograd.grad(output, qkv, grad)))
    torch.testing.assert_close(*results)


@pytest.mark.skipif(not HAS_ONEDNN_BF16, reason="this processor has no fast bf16 matmuls")
@pytest.mark.parametrize("sizes", [(16, 48), (48, 16)])
@pytest.mark.parametrize("leading", [(2, 5), (5,), ()])
def test_linear_in_bf16_and_its_gradients_equal_torchs(leading, sizes, monkeypatch):
    layer, x = Linear(*sizes), torch.randn(*leading, sizes[0], requires_grad=True)
    grad = torch.randn(*leading, sizes[1])
    results = []
    for available in (HAS_ONEDNN_BF16, False):
        monkeypatch.setattr(cpu_kernels, "HAS_ONEDNN_BF16", available)
        with torch.autocast("cpu", torch.bfloat16):
            output = layer(x)
        assert output.dtype == torch.bfloat16
        results.append((output, *torch.autograd.grad(output, (x, layer.weight, layer.bias), grad.bfloat16())))
    torch.testing.assert_close(*results, atol=0.05, rtol=0.02)


@pytest.mark.parametrize("stem", ["linear", "convolutions"])
@pytest.mark.parametrize("patch", [4, 16])
def test_whitened_patches_become_tokens_of_unit_size(stem, patch):
    data = Image(size=(2 * patch, 2 * patch), patch=patch, stem=stem)
    method = JEPA(ViTConfig(dim=96, depth=1, num_heads=2, stem_init="scaled"), PredictorConfig(dim=24, depth=1))
    patch_embed = method.build(data, 0).context_encoder.patch_embed
    size = patch_embed.embed(torch.randn(8, 64, data.token_dim)).square().mean().sqrt()
    assert size.item() == pytest.approx(1, abs=0.05)


def test_weight_decay_applies_to_matrices_but_not_to_biases_and_norms():
    method = METHODS["released"].build(MODALITIES["image"])
    decayed, not_decayed = build_optimizer(method, Optim()).param_groups
    assert all(p.ndim > 1 for p in decayed["params"]) and all(p.ndim <= 1 for p in not_decayed["params"])
    trained = sum(p.requires_grad for p in method.parameters())
    assert len(decayed["params"]) + len(not_decayed["params"]) == trained
    optimizer = build_optimizer(method, Optim())
    set_hyperparameters(optimizer, Hyperparameters(0.1, 0.2, 0.9))
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.2, 0.0]


def test_initialization_is_that_in_effect_in_the_official_runs():
    method = JEPA(ViTConfig(dim=192, depth=2, num_heads=3), PredictorConfig(dim=96, depth=2)).build(
        Image(size=(32, 32), patch=4, mean=(0.5,) * 3, std=(0.2,) * 3)
    )
    for name, parameter in method.named_parameters():
        if parameter.ndim > 1:
            assert parameter.std().item() == pytest.approx(0.02, rel=0.15), name
        else:
            assert (parameter == (1.0 if "norm" in name and name.endswith("weight") else 0.0)).all(), name


@pytest.mark.parametrize("fused", [True, False])
def test_a_step_with_a_nonfinite_gradient_changes_nothing(fused):
    """Also if the optimizer cannot skip a step by itself, as on MPS."""
    method = METHODS["released"].build(MODALITIES["image"])
    optimizer = build_optimizer(method, Optim())
    if not fused:
        optimizer = torch.optim.AdamW(optimizer.param_groups, fused=False)
    before = [p.clone() for p in method.parameters()]
    for p in method.parameters():
        if p.requires_grad:
            p.grad = torch.ones_like(p)
    next(p for p in method.parameters() if p.requires_grad).grad.flatten()[0] = float("nan")
    finite = step_if_finite(optimizer, clip_gradients(method, 1.0))
    method.after_step(0.5, finite)
    assert not finite
    assert all(torch.equal(a, b) for a, b in zip(before, method.parameters(), strict=True))


def test_clipping_scales_the_global_norm_to_the_limit():
    layer = torch.nn.Linear(4, 4)
    layer(torch.randn(8, 4)).square().sum().backward()
    norm = clip_gradients(layer, 0.5)
    after = torch.stack([p.grad.norm() for p in layer.parameters()]).norm()
    assert norm > 0.5 and after.item() == pytest.approx(0.5, rel=1e-4)
