"""Motion and content: warps by optical flow, pairs of images, and the losses of MC-JEPA."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from openjepa.core.capabilities import DecodesFiles
from openjepa.core.errors import UserError
from openjepa.core.rng import CounterRNG
from openjepa.core.types import Batch, Tokens
from openjepa.evaluation.measure import measure_encoders
from openjepa.evaluation.settings import LabeledData, ProbeSettings
from openjepa.interop.pretrained import load_run
from openjepa.masking.random import Random
from openjepa.methods.mc_jepa import MCJEPA
from openjepa.modalities.image import Image
from openjepa.modalities.image_pair import ImagePair, next_in_folder, random_affine_flow
from openjepa.nn.expander import ExpanderConfig
from openjepa.nn.flow_losses import photometric, smoothness, structure
from openjepa.nn.flow_network import FlowNetwork
from openjepa.nn.pyramid import PyramidConfig
from openjepa.nn.warp import correlation, resize_flow, stays_inside, warp
from openjepa.training.config import Pretrain
from openjepa.training.optim import Optim, build_optimizer
from openjepa.training.run import pretrain
from openjepa.training.settings import Stream
from openjepa.training.step import train_step
from openjepa.viz.masks import show_masks
from openjepa.viz.settings import MasksOptions
from tests.conftest import CPU, MODALITIES

DATA = ImagePair(size=(32, 32), patch=8, mean=(0.5,) * 3, std=(0.25,) * 3)
METHOD = MCJEPA(PyramidConfig((8, 8, 16), (1, 1, 1), 3), ExpanderConfig(32, 2))


def pattern(batch: int = 1, side: int = 32) -> torch.Tensor:
    return torch.rand(batch, 3, side, side, generator=torch.Generator().manual_seed(0))


def flow_of(x: float, y: float, side: int = 32) -> torch.Tensor:
    return torch.tensor([float(x), float(y)]).view(1, 2, 1, 1).expand(1, 2, side, side)


# Warps


def test_a_warp_by_no_flow_is_the_identity_and_by_whole_pixels_a_shift():
    x = pattern()
    torch.testing.assert_close(warp(x, flow_of(0, 0)), x, atol=1e-5, rtol=0)
    shifted = warp(x, flow_of(3, -2))
    torch.testing.assert_close(shifted[..., 2:, :-3], x[..., :-2, 3:], atol=1e-5, rtol=0)


def test_a_warp_there_and_back_is_the_identity_inside():
    smooth = torch.nn.functional.avg_pool2d(pattern(side=36), 5, 1)
    back = warp(warp(smooth, flow_of(1.5, 0.5)), flow_of(-1.5, -0.5))
    assert (back - smooth)[..., 4:-4, 4:-4].abs().max() < 0.1


def test_only_pixels_that_stay_inside_count():
    inside = stays_inside(flow_of(3, -2))[0, 0]
    assert inside[2:, :-3].all() and not inside[:2].any() and not inside[:, -3:].any()


def test_a_resized_flow_moves_as_many_pixels_of_its_new_size():
    assert torch.equal(resize_flow(flow_of(2, 1, 8), (16, 32)), flow_of(8, 2, 32)[..., :16, :])


def test_the_correlation_is_largest_at_the_true_displacement():
    x = torch.randn(1, 16, 12, 12, generator=torch.Generator().manual_seed(0))
    moved = torch.roll(x, (1, -2), (2, 3))  # down by 1, left by 2
    best = correlation(x, moved, 3)[0, :, 4:-4, 4:-4].argmax(0)
    assert (best == (1 + 3) * 7 + (-2 + 3)).all()
    at_rest = correlation(x, x, 3)[:, 3 * 7 + 3]
    torch.testing.assert_close(at_rest, x.square().mean(1))  # a mean over channels


def test_photometric_losses_are_zero_for_equal_images_and_larger_for_others():
    x, inside = pattern(), torch.ones(1, 1, 32, 32)
    assert photometric(x, x, inside) < 1e-6 < photometric(x, x.flip(-1), inside)
    torch.testing.assert_close(structure(x, x), torch.ones_like(x))
    hidden = torch.zeros_like(inside)
    assert photometric(x, x.flip(-1), hidden) == 0


def test_smoothness_is_cheaper_at_edges_of_the_image():
    flow = torch.zeros(1, 2, 8, 8)
    flow[..., 4:] = 2.0
    flat, edge = torch.zeros(1, 3, 8, 8), torch.zeros(1, 3, 8, 8)
    edge[..., 4:] = 1.0
    assert smoothness(flow, edge) < 0.01 * smoothness(flow, flat)
    assert smoothness(flow_of(3, 1, 8), flat) == 0


# Pairs


def test_the_next_frame_is_in_the_same_folder():
    assert next_in_folder(["a/1", "a/2", "a/3", "b/1", "b/2"]).tolist() == [1, 2, 1, 4, 3]
    with pytest.raises(UserError, match="no folder has two images"):
        next_in_folder(["a/1", "b/1"])


def test_pairs_are_views_warps_or_frames_of_the_same_images(photos):
    rng, index = CounterRNG.of(0, 0, np.arange(4)), torch.arange(4)
    pairs = {}
    for kind in ("views", "warps", "frames"):
        config = replace(DATA, root=(str(photos),), pairs=kind, crop_scale=(0.5, 0.5))
        data = config.dataset(config.listing())
        assert data.read(index, None).views[0].shape == (4, 3, 32, 32)  # to evaluate: single images
        pairs[kind] = data.read(index, rng).views[0]
        assert pairs[kind].shape == (4, 2, 3, 32, 32) and len(data) == 96
    first = pairs["views"][:, 0]
    assert all(torch.equal(each[:, 0], first) for each in pairs.values())
    assert isinstance(data, DecodesFiles)  # so that loader processes decode them
    flow = random_affine_flow(0.1, (32, 32), rng)
    torch.testing.assert_close(warp(first.float(), flow).round().byte(), pairs["warps"][:, 1])
    assert 0.5 < float(flow.norm(dim=1).mean()) < 6
    assert not torch.equal(pairs["frames"][:, 1], first) and not torch.equal(pairs["views"][:, 1], first)


# The method


def build(stream: int):
    net = METHOD.build(DATA)
    rng, index = CounterRNG.of(0, 0, np.arange(8)), torch.arange(8)
    data = replace(DATA, pairs="views" if stream == 0 else "warps").synthetic(16, 0)
    return net, Batch(data.read(index, rng).views, index, stream=stream)


@pytest.mark.parametrize("stream", [0, 1])
def test_the_loss_of_each_stream_falls(stream):
    net, batch = build(stream)
    config, losses = Optim(lr=3e-3), []
    optimizer = build_optimizer(net, config)
    for number in range(40):
        losses.append(train_step(net, optimizer, batch, config.at(number, 40), CPU, clip=1.0).output.loss.item())
        if losses[-1] < 0.9 * losses[0]:
            break
    assert losses[-1] < 0.9 * losses[0]


def test_the_motion_loss_is_the_weighted_sum_of_its_terms_and_at_first_nothing_moves():
    net, batch = build(1)
    output = net(batch, None)
    names = ("regression", "photometric", "smoothness", "cycle", "variance", "covariance")
    expected = sum(getattr(METHOD, name) * output.metrics[name] for name in names)
    torch.testing.assert_close(output.loss.detach(), expected)
    assert output.metrics["flow_length"] == 0 == output.metrics["smoothness"]
    first, second = batch.views[0].unbind(1)
    levels = [net.pyramid.levels(DATA.normalize(frame)) for frame in (first, second)]
    plain = torch.stack([(one - other).square().mean() for one, other in zip(*levels, strict=True)]).mean()
    torch.testing.assert_close(output.metrics["regression"], plain)


def test_the_cycle_term_is_small_where_the_way_back_is_the_inverse():
    net, batch = build(1)
    x, image = pattern(1, 16).repeat(8, 1, 1, 1), pattern(8, 16)
    there = flow_of(2, 1, 16).expand(8, -1, -1, -1)
    inverse, same = (
        net.motion_terms(x, x, image, image, there, back, batch.index)["cycle"] for back in (-there, there)
    )
    assert inverse < 0.2 * same


def test_an_estimated_flow_has_the_size_of_the_frames():
    net, batch = build(1)
    with torch.no_grad():
        net.flow_network.levels[0].out.bias.fill_(1.0)
    flow = net.estimate_flow(*batch.views[0][..., :20, :28].unbind(1))
    assert flow.shape == (8, 2, 20, 28)
    torch.testing.assert_close(flow, torch.full_like(flow, 2.0))  # a cell of the finest level is two pixels


def test_a_coarse_flow_is_refined_by_finer_levels():
    network, features = FlowNetwork((4, 4)), [torch.randn(2, 4, 16, 16), torch.randn(2, 4, 8, 8)]
    with torch.no_grad():
        for level in network.levels:
            torch.nn.init.zeros_(level.out.weight)
            level.out.bias.fill_(0.5)
    fine, coarse = network(features, features)
    torch.testing.assert_close(coarse, torch.full_like(coarse, 0.5))
    torch.testing.assert_close(fine, torch.full_like(fine, 2 * 0.5 + 0.5))


def test_a_pyramid_gives_a_feature_for_each_patch_and_refuses_parts_of_images():
    net, batch = build(0)
    tokens = DATA.tokens(batch.views[0][:, 0])
    (features,) = net.pyramid(tokens)
    torch.testing.assert_close(features.x, net.pyramid.levels(DATA.normalize(batch.views[0][:, 0]))[-1].flatten(2).mT)
    with pytest.raises(UserError, match="whole images"):
        net.pyramid(tokens, Random()(DATA.layout, None, None, CounterRNG.of(0, 0, np.arange(8)), 0.0)[0].keep_context())
    assert isinstance(features, Tokens)


def test_cells_of_a_sample_depend_on_the_sample_alone():
    """So that two processes with half of a batch each take the cells that one process takes."""
    net, batch = build(1)
    x = torch.arange(32.0 * 32).view(1, 1, 32, 32).expand(8, 1, -1, -1)  # each cell has its own number
    whole = net.choose_cells(x, batch.index).view(8, -1)
    half = net.choose_cells(x[4:], batch.index[4:]).view(4, -1)
    assert torch.equal(half[:, : whole.shape[1]], whole[4:]) and whole.shape[1] == 256
    assert not torch.equal(whole[0], whole[1])


def test_the_photometric_loss_is_a_mean_over_pairs():
    """Pairs whose flow leaves the frame elsewhere do not change the weight of the others."""
    x, inside = pattern(2), torch.ones(2, 1, 32, 32)
    inside[1, :, :, 8:] = 0
    both = photometric(x, x.flip(-1), inside)
    each = [photometric(x[row : row + 1], x[row : row + 1].flip(-1), inside[row : row + 1]) for row in range(2)]
    torch.testing.assert_close(both, torch.stack(each).mean())


@pytest.mark.parametrize("size", [0.0, 0.6])
def test_warps_out_of_range_are_refused(size):
    with pytest.raises(UserError, match="--data.warp"):
        replace(DATA, warp=size)


@pytest.mark.parametrize(
    ("data", "match"), [(MODALITIES["image"], "--modality image-pair"), (replace(DATA, patch=4), "--data.patch 8")]
)
def test_data_that_do_not_fit_are_refused(data, match):
    with pytest.raises(UserError, match=match):
        METHOD.check(data, Random())


def test_a_run_alternates_content_and_motion_and_is_probed_on_single_images(photos, tmp_path):
    data = replace(DATA, root=(str(photos),))
    motion = Stream(replace(data, pairs="frames"), Random(), batch_size=8)
    run = Pretrain(data, METHOD, Random(), streams=(motion,), steps=4, batch_size=16, log_every=1, out=tmp_path / "run")
    pretrain(run)
    log = (tmp_path / "run" / "metrics.jsonl").read_text()
    assert "content_invariance" in log and "photometric" in log
    assert type(load_run(tmp_path / "run").data) is Image  # not pairs
    probes = ProbeSettings(data=LabeledData((str(photos),)), probes=("knn",), device="cpu")
    result = measure_encoders([load_run(tmp_path / "run")], probes, pixels=True)
    assert result is not None and result.label_free["run"]["lidar"] > 0
    with pytest.raises(UserError, match="no random masks"):
        show_masks(MasksOptions(run=str(tmp_path / "run")))
