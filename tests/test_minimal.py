"""The package against the files in minimal/: same weights, inputs and masks, same losses."""

import numpy as np
import pytest
import torch

from minimal import ijepa as plain
from minimal import vjepa as plain_video
from minimal import world_model as plain_world
from openjepa.core.rng import CounterRNG
from openjepa.core.types import Batch, Layout, Masks
from openjepa.masking.multiblock import MultiBlock
from openjepa.masking.official import Official
from openjepa.masking.tube import Tube
from openjepa.methods.jepa import JEPA
from openjepa.methods.world_model import WorldModel
from openjepa.modalities.image import Image
from openjepa.modalities.trajectory import Trajectory
from openjepa.modalities.video import Video
from openjepa.nn.predictor import PredictorConfig
from openjepa.nn.vit import ViTConfig
from openjepa.planning.costs import latent_distance, total_cost
from openjepa.planning.planners import mppi as planner
from openjepa.training.optim import Optim, build_optimizer, clip_gradients, set_hyperparameters, step_if_finite

NAMES = {"mlp.": "", "attn.": "", "patch_embed.proj": "patch_embed", "context_encoder": "encoder"}


def minimal_name(name: str) -> str:
    """Return the name that a parameter of the package has in minimal/ijepa.py."""
    for package, minimal in NAMES.items():
        name = name.replace(package, minimal)
    return name


@pytest.mark.parametrize("masker", [MultiBlock(), Official(min_keep=8)])
def test_five_steps_give_the_same_losses_as_minimal_ijepa(masker):
    data = Image(size=(32, 32), patch=4, mean=(0.4, 0.5, 0.6), std=(0.2, 0.25, 0.3))
    ours = JEPA(ViTConfig(dim=48, depth=3, num_heads=3), PredictorConfig(dim=24, depth=2)).build(data)
    reference = plain.IJEPA((8, 8), 4, 48, 3, 3, 24, 2)
    reference.load_state_dict({minimal_name(name): value for name, value in ours.state_dict().items()})
    config = Optim(warmup=0.4)
    optimizer, plainly = build_optimizer(ours, config), plain.build_optimizer(reference)
    view = torch.randint(0, 256, (16, 3, 32, 32), dtype=torch.uint8)
    images = (view.float() / 255 - torch.tensor(data.mean).view(3, 1, 1)) / torch.tensor(data.std).view(3, 1, 1)
    for step in range(5):
        masks = masker(Layout.grid(8, 8), None, None, CounterRNG.of(0, step, np.arange(16)), 0.0)
        if masks[0].context_valid is not None:
            masks = (masks[0]._replace(context=masks[0].context[:, :8], context_valid=None),)
        hyper = config.at(step, 5)
        set_hyperparameters(optimizer, hyper)
        batch = Batch((view,), torch.arange(16), masks)
        output = ours(batch, ours.targets(batch))
        optimizer.zero_grad()
        output.loss.backward()
        step_if_finite(optimizer, clip_gradients(ours, 0.0))
        ours.after_step(hyper.momentum)
        expected = plain.train_step(reference, plainly, step + 1, 5, 2, images, masks[0].context, masks[0].target)
        assert output.loss.item() == pytest.approx(expected.item(), rel=2e-6), f"step {step}"


def visible_and_hidden(mask: Masks) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Return the visible and the hidden tokens of each sample, without padding."""
    context, target, context_valid, target_valid = mask
    visible = torch.ones_like(context, dtype=torch.bool) if context_valid is None else context_valid
    hidden = torch.ones_like(target, dtype=torch.bool) if target_valid is None else target_valid
    return [(context[row, visible[row]], target[row][hidden[row]]) for row in range(len(context))]


def test_five_steps_give_the_same_losses_as_minimal_vjepa():
    data = Video(frames=8, size=(24, 24), patch=4, mean=(0.4, 0.5, 0.6), std=(0.2, 0.25, 0.3))
    settings = JEPA(ViTConfig(dim=50, depth=3, num_heads=5), PredictorConfig(dim=30, depth=2, mask_tokens=2), loss="l1")
    ours = settings.build(data)
    torch.nn.init.normal_(ours.predictor.mask_token, generator=torch.Generator().manual_seed(0))  # so that they differ
    reference = plain_video.VJEPA((4, 6, 6), 2, 4, 50, 3, 5, 30, 2)
    reference.load_state_dict({minimal_name(name): value for name, value in ours.state_dict().items()})
    config = Optim(lr=6.25e-4, warmup=0.4, clip=10.0, ema_momentum=0.998)
    optimizer, plainly = build_optimizer(ours, config), plain_video.build_optimizer(reference)
    view = torch.randint(0, 256, (4, 8, 3, 24, 24), generator=torch.Generator().manual_seed(0)).byte()
    clips, padded = data.normalize(view), False
    for step in range(5):
        masks = Tube()(data.layout, None, None, CounterRNG.of(0, step, np.arange(4)), 0.0)
        padded |= any(mask.target_valid is not None for mask in masks)
        hyper = config.at(step, 5)
        set_hyperparameters(optimizer, hyper)
        batch = Batch((view,), torch.arange(4), masks)
        output = ours(batch, ours.targets(batch))
        optimizer.zero_grad()
        output.loss.backward()
        step_if_finite(optimizer, clip_gradients(ours, config.clip))
        ours.after_step(hyper.momentum)
        plainly_masked = tuple(visible_and_hidden(mask) for mask in masks)
        expected = plain_video.train_step(reference, plainly, step + 1, 5, 2, clips, plainly_masked)
        assert output.loss.item() == pytest.approx(expected.item(), rel=2e-6), f"step {step}"
    assert padded  # otherwise the padding is not tested


def test_minimal_masks_hide_the_same_cells_at_all_times_and_touch_every_edge():
    generator, seen = torch.Generator().manual_seed(0), torch.zeros(6, 6, dtype=torch.bool)
    for _ in range(50):
        visible, hidden = plain_video.draw_mask((4, 6, 6), 1, 0.3, generator)
        assert sorted(visible.tolist() + hidden.tolist()) == list(range(144))
        cells = torch.zeros(144, dtype=torch.bool).index_fill(0, hidden, True).view(4, 6, 6)
        assert (cells == cells[0]).all()
        seen |= cells[0]
    assert seen.all()


def minimal_world_name(name: str) -> str:
    """Return the name of a weight in minimal/world_model.py."""
    name = name.removeprefix("world.").replace("perception.", "encoder.")
    return name.replace("patch_embed.proj", "patch_embed")


def build_both_worlds() -> tuple[torch.nn.Module, plain_world.WorldModel, Trajectory]:
    """Return the package's world model and the minimal one with the same weights."""
    data = Trajectory(steps=4)
    ours = WorldModel(ramp=0).build(data)
    torch.nn.init.normal_(ours.world.dynamics.out.weight, std=0.1)  # type: ignore[union-attr, arg-type]
    reference = plain_world.WorldModel(2, 3, 11, 2)
    reference.load_state_dict({minimal_world_name(name): value for name, value in ours.state_dict().items()})
    return ours, reference, data


def test_five_steps_give_the_same_losses_as_minimal_world_model():
    ours, reference, data = build_both_worlds()
    optimizers = [torch.optim.AdamW(each.parameters(), lr=2e-3) for each in (ours, reference)]
    scale = torch.tensor(data.scale)[:, None, None] * 255
    for step in range(5):
        index = torch.arange(8) + 8 * step
        walks = data.synthetic(64, 0).read(index, None)
        assert walks.conditions is not None
        loss = ours(Batch(walks.views, index, conditions=walks.conditions), None).loss
        expected = reference.loss(walks.views[0].float() / scale, walks.conditions)
        assert loss.item() == pytest.approx(expected.item(), rel=1e-5), f"step {step}"
        for each, optimizer in zip((loss, expected), optimizers, strict=True):
            optimizer.zero_grad()
            each.backward()
            optimizer.step()


def test_plans_are_those_of_minimal_world_model(monkeypatch):
    ours, reference, data = build_both_worlds()
    generator = torch.Generator().manual_seed(0)
    frames = data.synthetic(8, 0).read(torch.arange(2), None).views[0]
    with torch.no_grad():
        states = ours.encode(ours.world, frames)  # type: ignore[operator]
    noises = [torch.randn(2, 16, 5, 2, generator=generator) for _ in range(3)]
    left = iter(noises)
    monkeypatch.setattr(planner, "sample_around", lambda mean, *_: mean[:, None] + next(left))
    cost = total_cost(ours.world, states[:, 0], latent_distance(states[:, 4]))  # type: ignore[arg-type]
    with torch.no_grad():
        plan = planner.mppi(cost, torch.zeros(2, 5, 2), generator, iterations=3, temperature=0.01)
    expected = plain_world.mppi(reference, states[:, 0], states[:, 4], torch.zeros(2, 5, 2), noises, 0.01)
    assert expected.norm() > 0.1
    torch.testing.assert_close(plan.actions, expected, rtol=1e-4, atol=1e-5)
