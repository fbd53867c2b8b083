"""The study's plug-in method: options of a JEPA that no recipe kept."""

import dataclasses
import sys

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from openjepa.core.errors import UserError
from openjepa.core.types import Tokens, gather
from openjepa.data.loader import Steps
from openjepa.masking.multiblock import MultiBlock
from openjepa.masking.stack import mask_shapes
from openjepa.nn.positions import rope_angles, sincos
from openjepa.nn.regularizers import covariance_loss, sigreg
from openjepa.nn.stems import PatchEmbed
from openjepa.training.config import Pretrain, from_json, to_json
from openjepa.training.optim import Optim, build_optimizer
from openjepa.training.step import train_step
from studies.small_data import arms
from tests.conftest import CPU, DEEPER, METHODS, MODALITIES, SMALL, SMALL_PREDICTOR

JepaVariants = arms.registry.find("method", "jepa-variants")
PLUGIN = sys.modules[JepaVariants.__module__]
DATA = MODALITIES["image"]
ROTARY = METHODS["rotary"]
VARIANTS = {
    "joined": JepaVariants(DEEPER, SMALL_PREDICTOR, target_layers=(0, 2), target_join="concat"),
    "whitened": JepaVariants(ROTARY.encoder, ROTARY.predictor, target_transforms=("center", "standardize"), whiten=0.5),
    "shared": JepaVariants(SMALL, dataclasses.replace(SMALL_PREDICTOR, depth=2), predictor_context="shared"),
    "gaussian": JepaVariants(SMALL, SMALL_PREDICTOR, sigreg_weight=0.5),
    "registers": JepaVariants(SMALL, SMALL_PREDICTOR, registers=7),
}


def build(name: str, total: int = 30):
    net = VARIANTS[name].build(DATA)
    return net, Steps(DATA.synthetic(64, 0), MultiBlock(), DATA.layout, batch_size=32, total_steps=total, seed=0)


@pytest.mark.parametrize("name", VARIANTS)
def test_the_loss_of_a_variant_falls(name):
    net, steps = build(name)
    config, step, losses = Optim(lr=3e-3, ema_momentum=1.0), steps[0], []
    optimizer = build_optimizer(net, config)
    for number in range(100):
        result = train_step(net, optimizer, step.batch, config.at(number, 100), CPU, clip=1.0)
        losses.append(result.output.loss.item())
        if fallen := np.mean(losses[-5:]) < 0.85 * np.mean(losses[:5]):
            break
    assert fallen


@pytest.mark.parametrize("name", VARIANTS)
def test_settings_of_a_variant_are_saved_and_read(name):
    run = Pretrain(DATA, VARIANTS[name])
    assert to_json(run)["method"]["type"] == "jepa-variants" and from_json(to_json(run)) == run


def test_without_its_options_a_variant_is_a_jepa():
    plain, variant = METHODS["pixels"], JepaVariants(**arms.shallow(METHODS["pixels"]))
    losses = []
    for method in (plain, variant):
        net = method.build(DATA)
        batch = build("joined")[1][0].batch
        losses.append(net(batch, net.targets(batch)).loss)
    assert torch.equal(*losses)


@pytest.mark.parametrize("name", ["registers", "joined", "gaussian"])
def test_the_flops_of_a_variant_are_what_torch_counts(name):
    """But for the gradient of the tokenizer's input, and SIGReg."""
    net = VARIANTS[name].build(DATA)
    step = Steps(DATA.synthetic(8, 0), MultiBlock(), DATA.layout, batch_size=4, total_steps=1, seed=0)[0]
    with FlopCounterMode(display=False) as counter:
        train_step(net, build_optimizer(net, Optim()), step.batch, Optim().at(0, 1), CPU)
    counted = 4 * VARIANTS[name].cost(DATA, mask_shapes(step.batch.masks)).total
    assert counter.get_total_flops() == pytest.approx(counted, rel=0.02)


def test_a_shared_context_is_counted_once():
    """Besides, torch counts the products of pairs that may not attend: 4 per width, forward and twice backward."""
    method = VARIANTS["shared"]
    net = method.build(DATA, 0)
    step = Steps(DATA.synthetic(8, 0), MultiBlock(), DATA.layout, batch_size=4, total_steps=1, seed=0)[0]
    with FlopCounterMode(display=False) as counter:
        train_step(net, build_optimizer(net, Optim()), step.batch, Optim().at(0, 1), CPU)
    ((context, blocks, tokens),) = shapes = mask_shapes(step.batch.masks)
    apart = (context + blocks * tokens) ** 2 - context**2 - blocks * tokens * (context + tokens)
    expected = 4 * (method.cost(DATA, shapes).total + 3 * 2 * 4 * apart * 24)
    assert counter.get_total_flops() == pytest.approx(expected, rel=0.01)


def test_targets_of_joined_layers_lie_side_by_side():
    net, steps = build("joined")
    assert net.targets(steps[0].batch).x.shape[-1] == net.predictor.proj.out_features == 2 * 48


def test_the_registers_of_a_variant_are_at_least_0():
    with pytest.raises(UserError, match="--method.registers must be >= 0"):
        Pretrain(DATA, dataclasses.replace(VARIANTS["registers"], registers=-1))


def test_only_the_anti_collapse_term_compares_the_samples_of_a_batch():
    assert [name for name, each in VARIANTS.items() if each.whole_batch] == ["gaussian"]


@pytest.mark.parametrize("name", ["shared", "registers"])
def test_padding_in_the_context_does_not_change_predictions(name):
    net, steps = build(name)
    mask, tokens = steps[0].batch.masks[0], DATA.tokens(steps[0].batch.views[0])
    valid = torch.ones_like(mask.context, dtype=torch.bool)
    valid[:, -3:] = False
    where = gather(tokens.pos, mask.target)
    padded = net.predictor(net.context_encoder(tokens.take(mask.context, valid))[0], where)
    short = net.predictor(net.context_encoder(tokens.take(mask.context[:, :-3]))[0], where)
    torch.testing.assert_close(padded, short, atol=1e-5, rtol=1e-4)


def test_padded_targets_do_not_change_the_predictions_of_others():
    net, steps = build("shared")
    mask, tokens = steps[0].batch.masks[0], DATA.tokens(steps[0].batch.views[0])
    (context,) = net.context_encoder(tokens.take(mask.context))
    where, valid = gather(tokens.pos, mask.target), torch.ones_like(mask.target, dtype=torch.bool)
    valid[:, :, -2:] = False
    padded, short = net.predictor(context, where, valid=valid), net.predictor(context, where[:, :, :-2])
    torch.testing.assert_close(padded[:, :, :-2], short, atol=1e-5, rtol=1e-4)


def test_target_blocks_do_not_attend_to_each_other():
    net, steps = build("shared")
    mask, tokens = steps[0].batch.masks[0], DATA.tokens(steps[0].batch.views[0])
    (context,) = net.context_encoder(tokens.take(mask.context))
    where = gather(tokens.pos, mask.target)
    torch.testing.assert_close(
        net.predictor(context, where)[:, :1], net.predictor(context, where[:, :1]), atol=1e-5, rtol=1e-4
    )


def test_shared_context_does_not_attend_to_queries():
    """One masked sequence of all blocks equals each block by itself next to a context that ignores it."""
    net, steps = build("shared")
    mask, tokens = steps[0].batch.masks[0], DATA.tokens(steps[0].batch.views[0])
    (context,) = net.context_encoder(tokens.take(mask.context))
    where, predictor = gather(tokens.pos, mask.target), net.predictor
    for number in range(where.shape[1]):
        seen = predictor.embed(context.x) + sincos(context.pos, predictor.dim)
        query = predictor.mask_token + sincos(where[:, number], predictor.dim)
        for block in predictor.blocks:
            beside = torch.cat([seen, query], dim=1)
            q, _, _ = heads(block, query)
            _, k, v = heads(block, beside)
            found = (q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5).softmax(-1) @ v
            query = query + block.attn.proj(found.transpose(1, 2).flatten(2))
            query, seen = query + block.mlp(block.norm2(query)), block(seen)
        expected = predictor.proj(predictor.norm(query))
        torch.testing.assert_close(predictor(context, where)[:, number], expected, atol=1e-5, rtol=1e-4)


def test_whitened_targets_have_equal_variance_in_every_direction():
    """Power 1: the covariance becomes the identity. Power 0.5: standard deviations become their square roots."""
    x = torch.randn(16, 32, 8) * torch.logspace(0, 1, 8) @ torch.linalg.qr(torch.randn(8, 8)).Q
    x = x - x.mean((0, 1))
    whole, half = (PLUGIN.zca_whiten(x, power).flatten(0, 1) for power in (1.0, 0.5))
    torch.testing.assert_close(whole.T @ whole / len(whole), torch.eye(8), atol=1e-3, rtol=0)
    before, after = (torch.linalg.svdvals(each) / len(half) ** 0.5 for each in (x.flatten(0, 1), half))
    torch.testing.assert_close(after, before.sqrt(), atol=1e-3, rtol=1e-3)


def test_whitening_and_regularizers_are_exact_under_autocast():
    x = torch.randn(16, 64, 24) * torch.logspace(0, -1.5, 24)
    x = x - x.mean((0, 1))
    with torch.autocast("cpu", torch.bfloat16):
        inside = PLUGIN.zca_whiten(x, 1.0), covariance_loss(x[0]), sigreg(x[0], 16, torch.Generator().manual_seed(0))
    outside = PLUGIN.zca_whiten(x, 1.0), covariance_loss(x[0]), sigreg(x[0], 16, torch.Generator().manual_seed(0))
    assert all(torch.equal(one, other) for one, other in zip(inside, outside, strict=True))


def heads(block, x):
    return block.attn.qkv(block.norm1(x)).unflatten(2, (3, block.attn.num_heads, -1)).permute(2, 0, 3, 1, 4)


@pytest.mark.parametrize("positions", ["sincos", "rope"])
def test_tokens_attend_to_registers_which_are_not_returned(positions):
    """Compare with the blocks applied to [registers; tokens] and the final norm; registers have rotary angle 0."""
    torch.manual_seed(0)
    encoder = PLUGIN.RegisterViT(3, PatchEmbed(3, 4, 48), 48, 2, 2, 4.0, positions)
    nn.init.normal_(encoder.reg_token)
    tokens = Tokens(torch.randn(2, 5, 48), 3 + torch.rand(2, 5, 2), torch.arange(5) < torch.tensor([[5], [3]]))
    (features,) = encoder(tokens)

    x = torch.cat([encoder.reg_token.expand(2, -1, -1), encoder.patch_embed(tokens).x], 1)
    pos, valid = torch.cat([torch.zeros(2, 3, 2), tokens.pos], 1), torch.cat([torch.ones(2, 3).bool(), tokens.valid], 1)
    if positions == "sincos":
        x = torch.cat([x[:, :3], x[:, 3:] + sincos(tokens.pos, 48)], 1)
    for block in encoder.blocks:
        x = block(x, valid[:, None], rope_angles(pos, 24) if positions == "rope" else None)
    assert torch.equal(features.x, encoder.norm(x)[:, 3:])
    (repadded,) = encoder(tokens._replace(x=tokens.x.where(tokens.valid[..., None], 7.0)))
    assert torch.equal(features.x[tokens.valid], repadded.x[tokens.valid])
    features.x.sum().backward()
    assert encoder.reg_token.grad.abs().sum() > 0
