"""The package against minimal/ijepa.py: same weights, images and masks, same losses."""

import numpy as np
import pytest
import torch

from minimal import ijepa as plain
from openjepa.core.rng import CounterRNG
from openjepa.core.types import Batch, Layout
from openjepa.masking.multiblock import MultiBlock
from openjepa.masking.official import Official
from openjepa.methods.jepa import JEPA
from openjepa.modalities.image import Image
from openjepa.nn.predictor import PredictorConfig
from openjepa.nn.vit import ViTConfig
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
