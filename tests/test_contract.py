"""Every method on every modality: shapes, finite values, a falling loss, masked tokens that stay hidden."""

import dataclasses

import numpy as np
import pytest
import torch

from openjepa.core.errors import UserError
from openjepa.core.protocols import Masker, Method, Modality
from openjepa.core.rng import CounterRNG
from openjepa.core.types import Masks, Skipped, Tokens, gather
from openjepa.data.loader import Steps
from openjepa.masking.multiblock import MultiBlock
from openjepa.masking.random import Random
from openjepa.masking.stack import stack_masks
from openjepa.methods.jepa import JEPA
from openjepa.methods.mae import MAE
from openjepa.training.config import Pretrain
from openjepa.training.optim import Optim, build_optimizer
from openjepa.training.step import micro_batches, train_step
from tests.conftest import CPU, METHODS, MODALITIES, SMALL, SMALL_PREDICTOR

FIXED = MultiBlock(
    masks_per_sample=3, target_scale=(0.2, 0.2), target_aspect=(1.0, 1.0), context_scale=(1.0, 1.0)
)  # one size of block
both = pytest.mark.parametrize(
    ("modality", "method"), [(m, j) for m in MODALITIES for j in METHODS if (m, j[:7]) != ("rectangle", "decoder")]
)


def build(modality: str, method: str, total: int = 30):
    config = MODALITIES[modality]
    net = METHODS[method].build(config)
    steps = Steps(
        config.synthetic(64, 0),
        MultiBlock(),
        config.layout,
        batch_size=32,
        total_steps=total,
        seed=0,
        num_views=net.num_views,
    )
    return net, steps


@both
def test_methods_and_modalities_satisfy_their_protocols(modality, method):
    net, steps = build(modality, method)
    assert isinstance(MODALITIES[modality], Modality) and isinstance(net, Method) and isinstance(steps.masker, Masker)
    step = steps[0]
    targets = net.targets(step.batch)
    output = net(step.batch, targets)
    assert output.loss.isfinite() and output.loss.ndim == 0
    assert all(value.isfinite() and not value.requires_grad for value in output.metrics.values())
    assert targets is None or not targets.x.requires_grad


@both
def test_the_loss_falls(modality, method):
    net, steps = build(modality, method)
    config = Optim(lr=3e-3, ema_momentum=1.0)  # a fixed target
    optimizer, losses, step = build_optimizer(net, config), [], steps[0]
    for number in range(100):
        result = train_step(net, optimizer, step.batch, config.at(number, 100), CPU, clip=1.0)
        losses.append(result.output.loss.item())
        if fallen := np.mean(losses[-5:]) < 0.85 * np.mean(losses[:5]):
            break
    assert fallen, f"from {np.mean(losses[:5]):.3f} to {np.mean(losses[-5:]):.3f} in 100 steps"


@both
def test_micro_batches_give_the_gradient_of_the_whole_batch(modality, method):
    net, steps = build(modality, method)
    if net.config.whole_batch:
        pytest.skip("the loss compares the samples of a batch, so runs with --accumulate are refused")
    step = steps[0]
    targets = net.targets(step.batch)
    gradients = []
    for parts in (1, 4):
        net.zero_grad()
        for micro in micro_batches(step.batch, targets, parts):
            (net(micro.batch, micro.targets).loss / parts).backward()
        gradients.append(torch.cat([p.grad.flatten() for p in net.parameters() if p.grad is not None]))
    torch.testing.assert_close(gradients[0], gradients[1], atol=1e-6, rtol=1e-3)


@pytest.mark.parametrize("masks", [FIXED, Random(masks_per_sample=3, target_fraction=0.5)])
@pytest.mark.parametrize("method", ["averaged", "pixels", "rotary", "mae"])
def test_stacked_masks_of_equal_shapes_give_the_same_loss_as_one_mask_at_a_time(method, masks):
    config = MODALITIES["image"]
    net = METHODS[method].build(config)
    step = Steps(config.synthetic(8, 0), masks, config.layout, batch_size=8, total_steps=1, seed=0)[0]
    targets, tokens = net.targets(step.batch), config.tokens(step.batch.views[0])
    other = Masks(step.batch.masks[0].context[:, :-1], step.batch.masks[0].target)
    assert len(step.batch.masks) == 3 and len(stack_masks(tokens, targets.x, step.batch.masks)) == 1
    assert len(stack_masks(tokens, targets.x, (*step.batch.masks, other))) == 4
    output = net(step.batch, targets)
    assert len(output.features) == 8
    apart = torch.stack([net(step.batch._replace(masks=(mask,)), targets).loss for mask in step.batch.masks]).mean()
    torch.testing.assert_close(output.loss, apart, atol=1e-6, rtol=0)


def test_stacked_masks_keep_padding_with_its_sample():
    """Rows are the contexts of a sample in turn, each with its own padding, positions and targets."""
    tokens = Tokens(torch.arange(12.0).view(2, 6, 1), torch.arange(12.0).view(2, 6, 1))
    index = torch.tensor([[[0, 1], [2, 3]], [[4, 5], [0, 2]]])  # masks, samples, tokens
    valid = torch.tensor([[[True, True], [True, False]], [[True, False], [True, True]]])
    masks = tuple(Masks(i, i[:, None], v, v[:, None]) for i, v in zip(index, valid, strict=True))
    (found,) = stack_masks(tokens, tokens.x, masks)
    context = tokens.take_groups(found.keep)
    rows = [[0.0, 1.0], [4.0, 5.0], [8.0, 9.0], [6.0, 8.0]]
    assert context.x[..., 0].tolist() == rows == found.targets[:, 0, :, 0].tolist() == found.where[:, 0, :, 0].tolist()
    expected = [[True, True], [True, False], [True, False], [True, True]]
    assert context.valid is not None and context.valid.tolist() == expected
    assert found.valid is not None and found.valid[:, 0].tolist() == expected


@pytest.mark.parametrize("modality", MODALITIES)
def test_context_features_do_not_depend_on_masked_tokens(modality):
    net, steps = build(modality, "released")
    step = steps[0]
    mask, tokens = step.batch.masks[0], MODALITIES[modality].tokens(step.batch.views[0])
    visible = torch.zeros(tokens.x.shape[:2], dtype=torch.bool).scatter_(1, mask.context, True)
    changed = tokens._replace(x=torch.where(visible[..., None], tokens.x, torch.randn_like(tokens.x)))
    one, other = (net.context_encoder(each.take(mask.context))[0].x for each in (tokens, changed))
    assert torch.equal(one, other)


@pytest.mark.parametrize("method", ["released", "rotary"])
def test_padding_in_the_context_does_not_change_predictions(method):
    net, steps = build("image", method)
    step = steps[0]
    mask, tokens = step.batch.masks[0], MODALITIES["image"].tokens(step.batch.views[0])
    valid = torch.ones_like(mask.context, dtype=torch.bool)
    valid[:, -3:] = False
    where = gather(tokens.pos, mask.target)
    padded = net.predictor(net.context_encoder(tokens.take(mask.context, valid))[0], where)
    short = net.predictor(net.context_encoder(tokens.take(mask.context[:, :-3]))[0], where)
    torch.testing.assert_close(padded, short, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("method", ["released", "rotary"])
def test_target_blocks_do_not_attend_to_each_other(method):
    net, steps = build("image", method)
    step = steps[0]
    mask, tokens = step.batch.masks[0], MODALITIES["image"].tokens(step.batch.views[0])
    (context,) = net.context_encoder(tokens.take(mask.context))
    where = gather(tokens.pos, mask.target)
    torch.testing.assert_close(
        net.predictor(context, where)[:, :1], net.predictor(context, where[:, :1]), atol=1e-5, rtol=1e-4
    )


def test_encoder_is_equivariant_to_the_order_of_tokens():
    net, steps = build("image", "released")
    tokens = MODALITIES["image"].tokens(steps[0].batch.views[0])
    shuffled = torch.randperm(64).expand(32, -1)
    (straight,), (mixed,) = net.context_encoder(tokens), net.context_encoder(tokens.take(shuffled))
    torch.testing.assert_close(mixed.x, gather(straight.x, shuffled), atol=1e-5, rtol=1e-4)


def test_layers_count_from_either_end_and_are_normalized():
    net, steps = build("image", "averaged")
    tokens = MODALITIES["image"].tokens(steps[0].batch.views[0])
    first, last = net.target_encoder(tokens, layers=(0, 2))
    (same,) = net.target_encoder(tokens, layers=(-1,))
    assert torch.equal(last.x, same.x) and not torch.equal(first.x, last.x)
    assert first.x.mean(-1).abs().max() < 1e-4


def test_standardized_targets_have_mean_0_and_variance_1():
    net, steps = build("image", "averaged")
    x = net.targets(steps[0].batch).x
    torch.testing.assert_close(x.mean((0, 1)), torch.zeros(48), atol=1e-4, rtol=0)
    torch.testing.assert_close(x.std((0, 1)), torch.ones(48), atol=0.02, rtol=0)


def test_a_step_depends_only_on_the_seed_and_its_number():
    _, steps = build("image", "released")
    _, again = build("image", "released")
    one, other = steps[5], again[5]
    assert torch.equal(one.batch.views[0], other.batch.views[0]) and torch.equal(
        one.batch.masks[0].context, other.batch.masks[0].context
    )
    assert not torch.equal(one.batch.views[0], steps[6].batch.views[0])


@pytest.mark.parametrize("ranks", [2, 4])
def test_ranks_together_hold_the_whole_batch(ranks):
    config = MODALITIES["image"]
    data, masker, layout = config.synthetic(64, 0), MultiBlock(), config.layout
    whole = Steps(data, masker, layout, batch_size=32, total_steps=9, seed=0)[3]
    parts = [
        Steps(data, masker, layout, batch_size=32, total_steps=9, seed=0, rank=rank, world_size=ranks)[3]
        for rank in range(ranks)
    ]
    assert torch.equal(torch.cat([part.batch.views[0] for part in parts]), whole.batch.views[0])
    assert torch.equal(torch.cat([part.batch.masks[0].target for part in parts]), whole.batch.masks[0].target)


def test_gather_selects_rows_in_order():
    x = torch.randn(3, 5, 2)
    index = torch.randint(0, 5, (3, 2, 4))
    expected = torch.stack([x[b][index[b]] for b in range(3)])
    assert torch.equal(gather(x, index), expected)


def test_take_keeps_the_padding_mask():
    tokens = Tokens(torch.randn(1, 4, 2), torch.zeros(1, 4, 1), torch.tensor([[True, False, True, True]]))
    assert tokens.take(torch.tensor([[1, 2]])).valid.tolist() == [[False, True]]


def test_crops_of_series_differ_between_epochs():
    data = MODALITIES["series"].synthetic(8, 0)
    index = torch.arange(4)
    one, other = (data.read(index, CounterRNG.of(0, 0, start + np.arange(4))).views[0] for start in (0, 8))
    assert not torch.equal(one, other)


def test_pixel_targets_are_normalized_per_patch():
    """They are the target of an MAE, and follow the features in the targets of a JEPA with a pixel loss."""
    net, steps = build("image", "pixels")
    mae = MAE(SMALL, SMALL_PREDICTOR).build(MODALITIES["image"])
    batch = steps[0].batch
    asked = mae.targets(batch).x
    torch.testing.assert_close(asked.mean(-1), torch.zeros(asked.shape[:2]), atol=1e-5, rtol=0)
    varied = MODALITIES["image"].tokens(batch.views[0]).x.var(-1) > 1e-3
    assert varied.float().mean() > 0.8
    torch.testing.assert_close(asked.var(-1, unbiased=False)[varied], torch.ones(int(varied.sum())), atol=0.1, rtol=0)
    assert torch.equal(net.targets(batch).x[..., 48:], asked)


def test_pixel_loss_is_weighted():
    """Twice the weight adds the pixel loss once more."""
    config = METHODS["pixels"]
    steps = build("image", "pixels")[1]
    step, losses = steps[0], []
    for weight in (1.0, 2.0, 3.0):
        net = dataclasses.replace(config, pixel_loss_weight=weight).build(MODALITIES["image"])
        losses.append(net(step.batch, net.targets(step.batch)).loss.item())
    assert losses[1] - losses[0] == pytest.approx(losses[2] - losses[1], rel=1e-4) and losses[1] > losses[0]


def test_centered_targets_have_mean_0_over_an_image():
    config = dataclasses.replace(METHODS["released"], target_transforms=("center",))
    net, step = config.build(MODALITIES["image"]), build("image", "released")[1][0]
    torch.testing.assert_close(net.targets(step.batch).x.mean(1), torch.zeros(32, 48), atol=1e-5, rtol=0)


def test_rotary_attention_depends_on_relative_positions_only():
    """Shifting all tokens changes nothing; shifting one of them does."""
    net, steps = build("image", "rotary")
    tokens = MODALITIES["image"].tokens(steps[0].batch.views[0])
    one, moved = (net.context_encoder(tokens._replace(pos=tokens.pos + shift))[0].x for shift in (0.0, 3.0))
    torch.testing.assert_close(one, moved, atol=1e-5, rtol=1e-4)
    apart = tokens.pos.clone()
    apart[:, 0] += 3
    assert not torch.allclose(one, net.context_encoder(tokens._replace(pos=apart))[0].x, atol=1e-4)


def test_loss_of_several_masks_is_the_mean_of_their_losses():
    """Each mask has its own context; the target encoder runs once."""
    config = MODALITIES["image"]
    net, masker = METHODS["released"].build(config), MultiBlock(masks_per_sample=3)
    step = Steps(config.synthetic(64, 0), masker, config.layout, batch_size=32, total_steps=9, seed=0)[0]
    assert len(step.batch.masks) == 3 and not torch.equal(step.batch.masks[0].context, step.batch.masks[1].context)
    targets = net.targets(step.batch)
    each = [net(step.batch._replace(masks=(mask,)), targets).loss for mask in step.batch.masks]
    torch.testing.assert_close(net(step.batch, targets).loss, torch.stack(each).mean())


def test_two_views_are_different_crops_of_the_same_samples():
    _, steps = build("image", "vicreg")
    one, other = steps[0].batch.views
    assert one.shape == other.shape and not torch.equal(one, other)
    assert torch.equal(
        one, build("image", "released")[1][0].batch.views[0]
    )  # the first view does not depend on the number of views


def test_joint_embedding_loss_is_symmetric_in_the_views():
    net, steps = build("image", "vicreg")
    batch = steps[0].batch
    losses = [net(batch._replace(views=views), None).loss for views in (batch.views, batch.views[::-1])]
    torch.testing.assert_close(*losses)


def test_masked_joint_embedding_does_not_depend_on_masked_patches():
    config = MODALITIES["image"]
    net = dataclasses.replace(METHODS["vicreg"], masked=True).build(config)
    masker = Random(mask_ratio=0.5, masks_per_sample=2)
    step = Steps(config.synthetic(64, 0), masker, config.layout, batch_size=32, total_steps=9, seed=0, num_views=2)[0]
    for view in (0, 1):
        other_context = step.batch.masks[1 - view].context[0].tolist()
        hidden = next(patch for patch in step.batch.masks[view].target[0, 0].tolist() if patch in other_context)
        row, column = divmod(hidden, 8)
        changed = [each.clone() for each in step.batch.views]
        changed[view][0, :, 4 * row : 4 * row + 4, 4 * column : 4 * column + 4] = 0
        both_views = (step.batch.views, tuple(changed))
        losses = [net(step.batch._replace(views=views), None).loss for views in both_views]
        assert torch.equal(*losses)


def test_scaled_weights_have_the_std_of_xavier_initialization():
    net = JEPA(dataclasses.replace(SMALL, init="scaled"), SMALL_PREDICTOR).build(MODALITIES["image"])
    weight = net.context_encoder.blocks[0].mlp.fc1.weight
    assert float(weight.detach().std()) == pytest.approx((2 / sum(weight.shape)) ** 0.5, rel=0.05)
    assert float(net.predictor.mask_token.detach().std()) == pytest.approx(0.02, rel=0.6)


def test_padding_is_not_pooled():
    x, valid = torch.randn(2, 4, 3), torch.tensor([[True, True, False, True], [True] * 4])
    tokens = Tokens(x, torch.zeros(2, 4, 1), valid)
    torch.testing.assert_close(tokens.mean()[0], x[0, [0, 1, 3]].mean(0))
    torch.testing.assert_close(tokens.mean()[1], tokens._replace(valid=None).mean()[1])


def test_both_views_of_an_undecodable_sample_come_from_the_same_replacement():
    """The undecodable file is counted once, not twice."""
    config = dataclasses.replace(MODALITIES["image"], crop_scale=(1.0, 1.0), crop_aspect=(1.0, 1.0))
    data = config.synthetic(64, 0)
    data.undecodable = {number: Skipped(f"{number}.png", "truncated") for number in range(0, 64, 4)}
    step = Steps(data, MultiBlock(), config.layout, batch_size=32, total_steps=2, seed=0, num_views=2)[0]
    assert torch.equal(*step.batch.views)  # crops are whole images here
    assert (
        0
        < len(step.skipped)
        == len(Steps(data, MultiBlock(), config.layout, batch_size=32, total_steps=2, seed=0)[0].skipped)
    )


def test_targets_only_targets_do_not_depend_on_other_tokens():
    """They are the target encoder's output for the target tokens alone; elsewhere they are 0."""
    config = MODALITIES["image"]
    method = dataclasses.replace(METHODS["released"], target_input="targets_only")
    net, masker = (
        method.build(config),
        Random(mask_ratio=0.75, target_fraction=0.5),
    )
    step = Steps(config.synthetic(64, 0), masker, config.layout, batch_size=8, total_steps=9, seed=0)[0]
    places, tokens = step.batch.masks[0].target[:, 0], config.tokens(step.batch.views[0])
    (seen,) = net.target_encoder(tokens.take(places))
    targets = net.targets(step.batch)
    expected = torch.nn.functional.layer_norm(seen.x, seen.x.shape[-1:])
    torch.testing.assert_close(gather(targets.x, places), expected, atol=1e-5, rtol=1e-4)
    asked = torch.zeros(8, 64, dtype=torch.bool).scatter(1, places, True)
    assert asked.sum() == 8 * 24 and not targets.x[~asked].any()
    assert net(step.batch, targets).loss.isfinite()
    torch.testing.assert_close(targets.features, seen.x.mean(1), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("sees", ["whole", "targets_only"])
def test_target_stride_subsamples_features_but_not_pixels(sees):
    """The loss depends on every third predicted feature and on all predicted pixels."""
    config = MODALITIES["image"]
    method = dataclasses.replace(METHODS["pixels"], target_stride=3, target_input=sees)
    net, masker = (
        method.build(config),
        Random(mask_ratio=0.75, target_fraction=0.5),
    )
    step = Steps(config.synthetic(64, 0), masker, config.layout, batch_size=8, total_steps=9, seed=0)[0]
    asked = gather(net.targets(step.batch).x, step.batch.masks[0].target[:, 0])[:, None]
    predicted = torch.randn_like(asked).requires_grad_()
    net.loss_of(predicted, asked, None).backward()
    felt = predicted.grad.ne(0)
    assert felt[:, :, ::3, :48].float().mean() > 0.9 and felt[..., 48:].float().mean() > 0.9
    assert not felt[:, :, 1::3, :48].any() and not felt[:, :, 2::3, :48].any()
    if sees == "targets_only":
        assert asked[:, :, ::3, :48].any() and not asked[:, :, 1::3, :48].any()
    output = net(step.batch, net.targets(step.batch))
    assert output.loss.isfinite() and output.metrics["mean_target_loss"] > 0


def test_target_stride_without_a_pixel_loss_is_refused():
    with pytest.raises(UserError, match="try --method.pixel-loss-weight 1 or --method.target-stride 1"):
        Pretrain(MODALITIES["image"], dataclasses.replace(METHODS["released"], target_stride=3))


def test_targets_only_requires_one_mask():
    method = dataclasses.replace(METHODS["released"], target_input="targets_only")
    once = Pretrain(MODALITIES["image"], method, masks=MultiBlock())
    with pytest.raises(UserError, match="--masks.masks-per-sample 1"):
        dataclasses.replace(once, masks=Random(masks_per_sample=2))
