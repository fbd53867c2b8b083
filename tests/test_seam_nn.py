"""Networks other than an image ViT: running statistics, norms of any name, more coordinates, padding, whole batches."""

import copy
import math
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

from openjepa.core.distributed import full_tensor, gather_ranks
from openjepa.core.errors import UserError
from openjepa.core.rng import CounterRNG
from openjepa.core.types import Batch, Masks, Tokens
from openjepa.masking.random import Random
from openjepa.masking.tube import Tube
from openjepa.methods.jepa import JEPA
from openjepa.modalities.image import Image
from openjepa.nn.ema import update_ema
from openjepa.nn.init import initialize, scale_stem
from openjepa.nn.losses import l1
from openjepa.nn.pooling import AttentivePool
from openjepa.nn.positions import (
    apply_rope,
    grid_positions,
    rope_angles,
    rope_frequency_count,
    sincos,
    vjepa2_rope_angles,
)
from openjepa.nn.predictor import Predictor, PredictorConfig
from openjepa.nn.regularizers import covariance_loss, variance_loss
from openjepa.nn.stems import LocalTokenizer
from openjepa.nn.target_transforms import center, global_mean_var
from openjepa.nn.vit import ViT, ViTConfig, check_heads
from studies.small_data.jepa_variants import zca_whiten
from tests.ranks import rank_environments
from tests.ready import Ready

# Running statistics in the EMA


class Normalized(nn.Module):
    """A batch norm, a mask of infinities, and a table that is not saved."""

    def __init__(self):
        super().__init__()
        self.bn = nn.BatchNorm1d(3)
        self.register_buffer("scores", torch.tensor([0.0, float("-inf")]))
        self.register_buffer("cache", torch.zeros(2), persistent=False)


def networks() -> tuple[Normalized, Normalized]:
    """Return an EMA at its start and a source that has seen data."""
    source = Normalized()
    ema = copy.deepcopy(source)
    source.bn(torch.randn(64, 3, generator=torch.Generator().manual_seed(0)) * 3 + 5)
    source.cache = torch.ones(4)
    return ema, source


@pytest.mark.parametrize("flag", [None, True])
def test_running_statistics_are_averaged_like_weights_and_counts_are_copied(flag):
    ema, source = networks()
    before = copy.deepcopy(ema)
    update_ema(ema, source, 0.9, None if flag is None else torch.tensor(flag))
    for name in ("running_mean", "running_var"):
        expected = 0.9 * getattr(before.bn, name) + 0.1 * getattr(source.bn, name)
        torch.testing.assert_close(getattr(ema.bn, name), expected)
    assert ema.bn.num_batches_tracked == 1
    assert ema.scores.tolist() == [0.0, float("-inf")] and torch.equal(ema.cache, torch.zeros(2))


def test_no_running_statistic_moves_in_a_skipped_step_even_if_the_sources_are_nan():
    ema, source = networks()
    source.bn.running_mean.fill_(float("nan"))
    before = copy.deepcopy(ema.state_dict())
    update_ema(ema, source, 0.9, torch.tensor(False))
    assert all(torch.equal(value, before[name]) for name, value in ema.state_dict().items())


def test_running_statistics_are_updated_without_waiting_for_the_device():
    """A fake tensor has no value: reading one on the host is an error."""
    with FakeTensorMode():
        ema, source = Normalized(), Normalized()
        update_ema(ema, source, 0.9, torch.ones((), dtype=torch.bool))


# Initialization by type of layer


def initialized(module: nn.Module, init: str = "paper") -> nn.Module:
    initialize(module, torch.Generator().manual_seed(0), init)
    return module


@pytest.mark.parametrize(
    "layer",
    [nn.BatchNorm1d(8), nn.BatchNorm3d(8), nn.LayerNorm(8), nn.LayerNorm((4, 8)), nn.GroupNorm(2, 8), nn.RMSNorm(8)],
    ids=lambda layer: f"{type(layer).__name__} {tuple(layer.weight.shape)}",
)
def test_a_norm_starts_as_the_identity_whatever_its_name(layer):
    network = nn.ModuleDict({"bn": copy.deepcopy(layer)})
    for parameter in network.parameters():
        nn.init.normal_(parameter)
    initialized(network)
    for name, parameter in network.named_parameters():
        assert (parameter == (1.0 if name.endswith("weight") else 0.0)).all(), name


def test_a_layer_called_norm_that_is_no_norm_has_bias_0_and_random_weights():
    network = initialized(nn.ModuleDict({"normalizer": nn.Linear(64, 64)}))
    assert not network["normalizer"].bias.any() and 0.015 < network["normalizer"].weight.std() < 0.025


class Gains(nn.Module):
    def __init__(self):
        super().__init__()
        self.gamma = nn.Parameter(torch.full((8,), 1e-5))  # LayerScale
        self.eps = nn.Parameter(torch.tensor(0.3))  # the weight of a node's own features in a GIN
        self.prelu = nn.PReLU()
        self.query = nn.Parameter(torch.zeros(1, 4, 64))


def test_gains_keep_the_values_of_their_constructor_and_tokens_are_drawn():
    gains = initialized(Gains(), "scaled")
    assert (gains.gamma == 1e-5).all() and gains.eps.item() == pytest.approx(0.3) and gains.prelu.weight.item() == 0.25
    assert gains.query.std().item() == pytest.approx(0.02, rel=0.2)


@pytest.mark.parametrize("init", ["paper", "scaled"])
def test_embeddings_are_drawn_like_tokens_and_the_row_of_padding_is_0(init):
    embedding = initialized(nn.Embedding(50, 64, padding_idx=3), init)
    assert embedding.weight.std().item() == pytest.approx(0.02, rel=0.1) and not embedding.weight[3].any()


def test_the_order_of_random_draws_is_that_of_the_parameters():
    """The same seed gives the weights that it has always given: nothing is drawn for norms and biases."""
    network = initialized(nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Linear(6, 2)))
    generator = torch.Generator().manual_seed(0)
    for layer in (network[0], network[2]):
        expected = nn.init.trunc_normal_(torch.empty_like(layer.weight), std=0.02, a=-2, b=2, generator=generator)
        assert torch.equal(layer.weight, expected)


class Layers(LocalTokenizer):
    """Apply layers to the values of tokens."""

    def __init__(self, layers: nn.Module):
        super().__init__()
        self.layers = layers

    def embed(self, x):
        return self.layers(x)


def test_scaling_a_stem_leaves_its_norms_and_running_statistics_alone():
    stem = initialized(
        nn.Sequential(nn.Linear(12, 32), nn.LayerNorm((256, 32)), nn.BatchNorm1d(256), nn.Linear(32, 16))
    )
    scale_stem(Layers(stem), 12)
    assert (stem[1].weight == 1).all()
    assert not stem[2].running_mean.any() and stem[2].num_batches_tracked == 0
    assert stem(torch.randn(1, 256, 12)).square().mean().sqrt().item() == pytest.approx(1, abs=0.3)


# Positions in one, two, three coordinates


def test_a_grid_of_three_axes_counts_the_last_axis_first():
    pos = grid_positions(2, 3, 4)
    expected = [[x, y, t] for t in range(2) for y in range(3) for x in range(4)]
    assert pos.tolist() == expected
    assert grid_positions(3).tolist() == [[0], [1], [2]]
    fine = grid_positions(4, 6, 8, trained_grid=(2, 3, 4))
    torch.testing.assert_close(fine.amin(0), torch.tensor([-0.25] * 3))
    torch.testing.assert_close(fine.amax(0), torch.tensor([3.25, 2.25, 1.25]))


def test_a_grid_of_three_axes_is_traced_with_symbolic_sizes():
    class Grid(nn.Module):
        def forward(self, video):
            return video.mean() + grid_positions(*video.shape[1:], trained_grid=(2, 4, 4))

    sizes = {axis: torch.export.Dim(f"size{axis}", min=2, max=64) for axis in (1, 2, 3)}
    program = torch.export.export(Grid(), (torch.zeros(1, 2, 4, 6),), dynamic_shapes=(sizes,))
    expected = grid_positions(3, 5, 7, trained_grid=(2, 4, 4))
    torch.testing.assert_close(program.module()(torch.zeros(1, 3, 5, 7)), expected)


@pytest.mark.parametrize("width", [1024, 1280, 1408])
def test_widths_of_large_vits_embed_three_coordinates(width):
    pos = grid_positions(8, 4, 4)
    table, pairs = sincos(pos, width), width // 6
    assert table.shape == (128, width) and not table[:, 6 * pairs :].any()
    assert torch.equal(table[:, : 6 * pairs], sincos(pos, 6 * pairs))
    distances = torch.cdist(table, table) + 9 * torch.eye(128)
    assert distances.min() > 0.1  # every position has its own embedding


@pytest.mark.parametrize("head_dim", [64, 80, 88])
def test_heads_of_large_vits_rotate_by_three_coordinates(head_dim):
    """Scores depend on differences of positions; features beyond the last full pair per coordinate do not rotate."""
    generator, pairs, half = torch.Generator().manual_seed(0), head_dim // 6, head_dim // 2
    pos = torch.rand(1, 5, 3, generator=generator) * 8
    q, k = torch.randn(2, 1, 2, 5, head_dim, generator=generator).unbind()

    def scores(shift: float) -> torch.Tensor:
        rope = rope_angles(pos + shift, head_dim)
        return apply_rope(q, rope) @ apply_rope(k, rope).mT

    torch.testing.assert_close(scores(0), scores(3), atol=1e-3, rtol=1e-3)
    rotated = apply_rope(q, rope_angles(pos, head_dim))
    moved = (rotated != q).flatten(0, -2).any(0)
    expected = [index % half < 3 * pairs for index in range(head_dim)]
    assert moved.tolist() == expected and rope_frequency_count(head_dim, 3) == pairs
    for coordinate in range(3):
        other = pos + torch.eye(3)[coordinate]
        assert not torch.allclose(rotated, apply_rope(q, rope_angles(other, head_dim)))


@pytest.mark.parametrize("positions", ["sincos", "rope", "rope_vjepa2"])
def test_networks_encode_and_predict_in_three_coordinates(positions):
    check_heads("--method.dim", 64, 4, positions, 3)
    encoder = ViT(Layers(nn.Linear(5, 64)), 64, 1, 4, positions=positions)
    predictor = Predictor(64, 64, 32, 1, 2, positions=positions)
    pos = grid_positions(2, 3, 4)[None]
    (features,) = encoder(Tokens(torch.randn(1, 24, 5), pos))
    assert predictor(features, pos[:, None, :7]).shape == (1, 1, 7, 64)


@pytest.mark.parametrize("head_dim", [64, 88])
def test_rope_of_vjepa2_turns_neighboring_features_by_time_row_and_column(head_dim):
    """Written out feature by feature: even features minus their right neighbor, odd ones plus their left neighbor."""
    part, pos = head_dim // 3 // 2 * 2, torch.tensor([[[3.0, 5.0, 2.0], [0.5, 0.0, 7.0]]])  # column, row, time
    q = torch.randn(1, 1, 2, head_dim, generator=torch.Generator().manual_seed(0))
    expected = q.clone()
    for token in range(2):
        for feature in range(3 * part):
            coordinate = pos[0, token, 2 - feature // part].item()
            angle = coordinate * 10000 ** -(feature % part % (part // 2) / (part // 2))
            neighbor = -q[0, 0, token, feature + 1] if feature % 2 == 0 else q[0, 0, token, feature - 1]
            expected[0, 0, token, feature] = q[0, 0, token, feature] * math.cos(angle) + neighbor * math.sin(angle)
    torch.testing.assert_close(apply_rope(q, vjepa2_rope_angles(pos, head_dim)), expected)


def test_queries_of_rope_vjepa2_differ_by_rotation_alone():
    predictor = initialized(Predictor(8, 8, 24, 2, 2, positions="rope_vjepa2"), "scaled")
    pos = grid_positions(2, 2, 2)[None]
    context = Tokens(torch.randn(1, 8, 8, generator=torch.Generator().manual_seed(1)), pos)
    at_0, at_7 = (predictor(context, pos[:, None, index : index + 1]) for index in (0, 7))
    assert not torch.allclose(at_0, at_7)
    order = torch.tensor([3, 1, 7, 0, 2, 6, 4, 5])
    shuffled = predictor(Tokens(context.x[:, order], pos[:, order]), pos[:, None, :1])
    torch.testing.assert_close(shuffled, at_0)


# A mask token for each mask of a sample


def test_every_mask_of_a_sample_has_its_own_mask_token():
    predictor = initialized(Predictor(8, 8, 12, 1, 2, mask_tokens=2), "scaled")
    singles = [copy.deepcopy(predictor) for _ in range(2)]
    for number, single in enumerate(singles):
        single.mask_token = nn.Parameter(predictor.mask_token[number : number + 1])
    generator = torch.Generator().manual_seed(0)
    context = Tokens(torch.randn(6, 4, 8, generator=generator), torch.rand(6, 4, 2, generator=generator))
    where = torch.rand(6, 3, 5, 2, generator=generator)  # contexts of masks 0, 1 of a sample, then of the next
    expected = torch.stack([singles[row % 2](context, where)[row] for row in range(6)])
    torch.testing.assert_close(predictor(context, where, mask_sets=(0, 1)), expected)
    torch.testing.assert_close(predictor(context, where, mask_sets=(3,)), singles[1](context, where))
    assert not torch.allclose(predictor(context, where, mask_sets=(0,)), singles[1](context, where))


def test_one_mask_token_has_the_shape_of_old_checkpoints_and_several_start_at_0():
    encoder = ViTConfig(dim=8, num_heads=2)
    one, two = PredictorConfig(dim=12, depth=1), PredictorConfig(dim=12, depth=1, mask_tokens=2)
    networks = [each.build(encoder, 8) for each in (one, two)]
    for each, network in zip((one, two), networks, strict=True):
        each.initialize(network, torch.Generator().manual_seed(0))
    assert networks[0].mask_token.shape == (1, 1, 12) and networks[0].mask_token.std() > 0.01
    assert networks[1].mask_token.shape == (2, 1, 12) and not networks[1].mask_token.any()


def test_more_mask_tokens_than_masks_are_refused():
    message = "mask-tokens 3 is more than the masks of a sample, 2: try --method.predictor.mask-tokens 2"
    with pytest.raises(UserError, match=message):
        JEPA(predictor=PredictorConfig(mask_tokens=3)).check(Image(), Random(masks_per_sample=2))
    with pytest.raises(UserError, match="mask-tokens must be >= 1, got 0"):
        JEPA(predictor=PredictorConfig(mask_tokens=0)).check(Image(), Random())


@pytest.mark.parametrize("positions", ["sincos", "rope_vjepa2"])
def test_padded_masks_of_different_lengths_give_the_loss_and_gradients_of_single_samples(positions):
    """One sequence of all hidden tokens for each mask, as in V-JEPA: the mean over samples, whatever their lengths."""
    data = Image(size=(16, 16), patch=4, mean=(0.5,) * 3, std=(0.2,) * 3)
    settings = JEPA(
        ViTConfig(dim=24, depth=1, num_heads=2, positions=positions), PredictorConfig(12, 1, mask_tokens=2), loss="l1"
    )
    model = settings.build(data)
    nn.init.normal_(model.predictor.mask_token, generator=torch.Generator().manual_seed(0))
    view = torch.randint(0, 256, (3, 3, 16, 16), generator=torch.Generator().manual_seed(1)).byte()
    masks = Tube(blocks=(2, 1), scale=(0.2, 0.6))(data.layout, None, None, CounterRNG.of(0, 0, np.arange(3)), 0.0)
    assert any(mask.context_valid is not None for mask in masks)
    losses, parameters = [], [*model.context_encoder.parameters(), model.predictor.mask_token]
    for sample in range(3):
        alone = tuple(Masks(context[None], target[None]) for context, target in unpadded(masks, sample))
        batch = Batch((view[sample : sample + 1],), torch.tensor([sample]), alone)
        losses.append(model(batch, model.targets(batch)).loss)
    expected = torch.stack(losses).mean()
    gradients = torch.autograd.grad(expected, parameters)
    batch = Batch((view,), torch.arange(3), masks)
    loss = model(batch, model.targets(batch)).loss
    torch.testing.assert_close(loss, expected)
    own = torch.autograd.grad(loss, parameters)
    torch.testing.assert_close(own, gradients, atol=1e-5, rtol=1e-4)


def unpadded(masks: tuple[Masks, ...], sample: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Yield context (C) and target (1, T) of each mask of a sample without padding."""
    for context, target, context_valid, target_valid in masks:
        everything = slice(None)
        yield (
            context[sample, everything if context_valid is None else context_valid[sample]],
            target[sample][:, everything if target_valid is None else target_valid[sample, 0]],
        )


def test_l1_is_the_mean_absolute_difference_of_valid_tokens():
    predicted, target = torch.tensor([[[[1.0, 3.0], [0.0, 0.0]]]]), torch.tensor([[[[2.0, 1.0], [9.0, 9.0]]]])
    assert l1(predicted, target).item() == pytest.approx((1 + 2 + 9 + 9) / 4)
    assert l1(predicted, target, torch.tensor([[[True, False]]])).item() == pytest.approx(1.5)


def test_a_width_without_a_pair_per_coordinate_is_refused():
    with pytest.raises(UserError, match="3 coordinates require a width of at least 6, got 5: try 6"):
        sincos(torch.zeros(2, 3), 5)
    with pytest.raises(UserError, match="even head width .* of at least 6, got 4: try 6"):
        check_heads("--method.dim", 16, 4, "rope", 3)
    with pytest.raises(UserError, match="even head width .* of at least 4, got 13: try 12"):
        check_heads("--method.dim", 26, 2, "rope", 2)
    with pytest.raises(UserError, match="a width of at least 6, got 4"):
        check_heads("--method.dim", 4, 2, "sincos", 3)
    with pytest.raises(UserError, match="multiple of its 3 attention heads, got 64"):
        check_heads("--method.dim", 64, 3, "rope", 3)


# Padding

VALID = torch.tensor([[True] * 5, [True, True, False, False, False], [True, False, True, False, True]])


def padded(fill: float) -> torch.Tensor:
    """Return three samples of at most five tokens whose padding holds `fill`."""
    x = torch.randn(3, 5, 4, generator=torch.Generator().manual_seed(0)) * 2 + 1
    return x.masked_fill(~VALID[..., None], fill)


@pytest.mark.parametrize("fill", [100.0, float("nan")])
def test_moments_and_whitening_ignore_padding(fill):
    x, rows = padded(fill), padded(fill)[VALID]
    mean, variance = global_mean_var(x, VALID)
    torch.testing.assert_close(mean, rows.mean(0))
    torch.testing.assert_close(variance, rows.var(0, unbiased=False))
    white = zca_whiten(x - mean, 1.0, VALID)[VALID]
    torch.testing.assert_close(white.T @ white / len(white), torch.eye(4), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(white, zca_whiten((rows - rows.mean(0))[None], 1.0)[0], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("fill", [100.0, float("nan")])
def test_centering_and_means_ignore_padding(fill):
    x = padded(fill)
    centered = center(x, VALID)
    means = Tokens(x, x[..., :2], VALID).mean()
    for sample in range(3):
        rows = x[sample, VALID[sample]]
        torch.testing.assert_close(centered[sample, VALID[sample]], rows - rows.mean(0))
        torch.testing.assert_close(means[sample], rows.mean(0))


@pytest.mark.parametrize("fill", [100.0, float("nan")])
def test_attentive_pooling_ignores_padding(fill):
    pool = initialized(AttentivePool(4, 2), "scaled")
    x = padded(fill)
    pooled = pool(x, VALID)
    for sample in range(3):
        torch.testing.assert_close(pooled[sample], pool(x[sample, VALID[sample]][None])[0])
    pooled.sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in pool.parameters())
    assert pool(x, torch.zeros_like(VALID)).isfinite().all()


def test_nothing_changes_without_padding():
    x, everything = padded(0.0), torch.ones_like(VALID)
    assert torch.equal(center(x), x - x.mean(1, keepdim=True))
    pool = initialized(AttentivePool(4, 2))
    for without, with_valid in (
        (center(x), center(x, everything)),
        (torch.stack(global_mean_var(x)), torch.stack(global_mean_var(x, everything))),
        (zca_whiten(x, 0.5), zca_whiten(x, 0.5, everything)),
        (pool(x), pool(x, everything)),
    ):
        torch.testing.assert_close(without, with_valid)


# Several processes

RANK = """
import sys, torch
from openjepa.training.parallel.launch import process_group
from tests import test_seam_nn
with process_group(torch.device("cpu")):
    getattr(test_seam_nn, sys.argv[1])(sys.argv[2])
"""


def save_gradients(folder: str) -> None:
    """Compute the loss on the samples of all ranks, each of which has half, and save DDP's gradients."""
    rank, model = dist.get_rank(), DistributedDataParallel(network())
    spread_loss(gather_ranks(model(samples()[8 * rank : 8 * rank + 8]))).backward()
    torch.save([parameter.grad for parameter in model.parameters()], f"{folder}/{rank}")


def save_sharded_ema(folder: str) -> None:
    """Update the EMA of networks that two ranks share, and save all of it."""
    mesh = init_device_mesh("cpu", (2,))
    ema, source = (fully_shard(each, mesh=mesh) for each in (network(), network(seed=1)))
    update_ema(ema, source, 0.9, torch.tensor(True))
    torch.save({name: full_tensor(value) for name, value in ema.state_dict().items()}, f"{folder}/{dist.get_rank()}")


def network(seed: int = 0) -> nn.Module:
    """Return a small network whose batch norm uses and keeps statistics that depend on the seed."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 6)).eval()
        nn.init.normal_(model[1].running_mean)
    return model


def samples() -> torch.Tensor:
    return torch.randn(16, 4, generator=torch.Generator().manual_seed(2))


def spread_loss(x: torch.Tensor) -> torch.Tensor:
    """Compute a loss that is not the mean of the losses of two halves of the batch."""
    return 25 * variance_loss(x) + covariance_loss(x)


def run_two(function: Callable[[str], None], folder: Path) -> list:
    """Call a function of this module in two processes; return what each of them saved."""
    processes = [Ready(RANK, function.__name__, str(folder), env=each) for each in rank_environments(2)]
    assert [process.wait(120) for process in processes] == [0, 0]
    return [torch.load(folder / str(rank), weights_only=True) for rank in range(2)]


def test_a_loss_on_the_batch_of_two_ranks_has_the_gradient_of_one_process(tmp_path):
    model = network()
    spread_loss(model(samples())).backward()
    expected = [parameter.grad for parameter in model.parameters()]
    for gradients in run_two(save_gradients, tmp_path):
        torch.testing.assert_close(gradients, expected)
    halves = sum(spread_loss(network()(half)) for half in samples().chunk(2)) / 2
    assert abs(halves - spread_loss(network()(samples()))) > 0.01  # without gathering, the loss is another


def test_the_ema_of_a_sharded_network_and_its_running_statistics_equals_one_processs(tmp_path):
    ema, source = network().state_dict(), network(seed=1).state_dict()
    expected = {name: 0.9 * ema[name] + 0.1 * source[name] for name in ema if ema[name].is_floating_point()}
    expected["1.num_batches_tracked"] = source["1.num_batches_tracked"]
    for state in run_two(save_sharded_ema, tmp_path):
        torch.testing.assert_close(state, {name: expected[name] for name in ema})
