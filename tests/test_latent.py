"""Hidden variables: several futures of one context, the energies of each, and the alarm if z carries everything."""

import dataclasses
import functools
import itertools

import numpy as np
import pytest
import torch

from openjepa.core.errors import UserError
from openjepa.core.rng import CounterRNG
from openjepa.core.types import Batch, Masks
from openjepa.masking.random import Random
from openjepa.masking.stack import stack_masks
from openjepa.methods.latent_jepa import LatentJEPA, LatentPrediction, Prediction
from openjepa.modalities.image import Image
from openjepa.nn.latent import CODE, LatentConfig
from openjepa.nn.predictor import PredictorConfig
from openjepa.nn.vit import ViTConfig
from openjepa.training.collapse import CollapseAlarm
from openjepa.training.config import Pretrain
from openjepa.training.run import pretrain
from openjepa.viz.explorer.session import Session
from openjepa.viz.settings import Explore
from tests.browser import browser, serve_explorer

SMALL, SMALL_PREDICTOR = ViTConfig(dim=32, depth=1, num_heads=2), PredictorConfig(dim=24, depth=1)
PICTURE = Image(size=(16, 16), patch=8, channels=1, mean=(0.5,), std=(0.25,))
LOWER_HALF = Masks(torch.tensor([[0, 1]]).expand(16, 2), torch.tensor([[[2, 3]]]).expand(16, 1, 2))


def two_futures(futures: int = 2) -> Batch:
    """Return pictures whose lower half is as bright as the upper one, plus one of several values.

    Pictures n and n + 16 / futures have the same upper half.
    """
    contexts = 16 // futures
    upper = torch.linspace(70, 180, contexts).repeat(futures)
    lower = upper + torch.linspace(-60, 60, futures).repeat_interleave(contexts)
    halves = [gray[:, None, None, None].expand(16, 1, 8, 16) for gray in (upper, lower)]
    return Batch((torch.cat(halves, 2).byte(),), torch.arange(16), (LOWER_HALF,))


@functools.cache
def train(latent: LatentConfig, futures: int = 2, steps: int = 200) -> tuple[LatentPrediction, dict[str, float]]:
    """Train against fixed targets, and return the method with the metrics of the last step."""
    batch = two_futures(futures)
    net = LatentJEPA(SMALL, predictor=SMALL_PREDICTOR, latent=latent).build(PICTURE, 0)
    optimizer = torch.optim.AdamW([p for p in net.parameters() if p.requires_grad], lr=3e-3)
    targets = net.targets(batch)
    metrics = {}
    for step in range(steps):
        optimizer.zero_grad()
        output = net(batch._replace(index=batch.index + 16 * step), targets)
        output.loss.backward()
        optimizer.step()
        metrics = {name: float(value) for name, value in output.metrics.items()}
    return net, metrics


def gap_of(net: LatentPrediction, batch: Batch) -> float:
    """Return the mean squared difference of the two targets of a context."""
    hidden = net.targets(batch).x[:, 2:]
    return float((hidden[:8] - hidden[8:]).square().mean())


def given_of(net: LatentPrediction, batch: Batch) -> Prediction:
    tokens = PICTURE.tokens(batch.views[0])
    (masked,) = stack_masks(tokens, net.targets(batch).x, batch.masks)
    (context,) = net.context_encoder(tokens, masked.keep)
    return Prediction(context._replace(x=context.x.detach()), masked)


def test_one_code_predicts_the_mean_of_two_futures_and_two_codes_separate_them():
    batch = two_futures()
    net, one = train(LatentConfig(size=1), steps=300)
    gap = gap_of(net, batch)
    error = one["free_energy"] * one["mean_target_loss"]
    assert error == pytest.approx(gap / 4, rel=0.1)  # the mean is half the difference from each
    predicted = net.predict(given_of(net, batch), CODE * torch.ones(16, 1))[:, 0]
    mean = net.targets(batch).x[:, 2:].unflatten(0, (2, 8)).mean(0)
    assert (predicted[:8] - mean).square().mean() < gap / 50
    net, two = train(LatentConfig(size=2), steps=400)
    assert two["free_energy"] * two["mean_target_loss"] < gap_of(net, batch) / 10
    z, _ = net.infer(given_of(net, batch))
    assert (z[:8] != z[8:]).any(1).all()  # the two futures of a context have different codes


def test_free_energy_falls_with_every_code_and_ignores_their_order():
    batch = two_futures(4)
    net, _ = train(LatentConfig(size=4), futures=4)
    given = given_of(net, batch)
    with torch.no_grad():
        energies = torch.stack([net.energy(given, code.expand(16, -1)) for code in CODE * torch.eye(4)])
    _, free = net.infer(given)
    torch.testing.assert_close(free, energies.amin(0))
    torch.testing.assert_close(free, energies[[2, 0, 3, 1]].amin(0))
    by_count = [energies[:count].amin(0).mean() for count in range(1, 5)]
    assert all(more < less for less, more in itertools.pairwise(by_count))
    trained = [train(LatentConfig(size=count), futures=4)[1]["free_energy"] for count in (1, 2)]
    assert trained[0] > trained[1] > float(free.mean())


def test_a_vector_as_large_as_the_target_explains_everything_and_the_alarm_says_so():
    latent = LatentConfig("vector", size=2 * SMALL.dim)
    _, free = train(latent, steps=300)
    _, limited = train(dataclasses.replace(latent, weight=1.0), steps=100)
    _, codes = train(LatentConfig(size=2), steps=400)
    assert free["energy_gap"] < 0.03 < 0.1 < min(codes["energy_gap"], limited["energy_gap"]), (free, limited, codes)
    method = LatentJEPA(SMALL, predictor=SMALL_PREDICTOR, latent=latent)
    alarm = CollapseAlarm(method)
    said = [alarm.check({"other_energy": free["other_energy"]}) for _ in range(3)][-1]
    assert said and said.startswith("the hidden variable carries everything") and "--method.latent.weight 0.01" in said
    untrained = train(latent, steps=1)[1]
    for healthy in (codes, limited, untrained):
        alarm = CollapseAlarm(method)
        assert not any(alarm.check({"other_energy": healthy["other_energy"]}) for _ in range(3))


def test_a_vector_is_inferred_where_energy_and_regularizer_are_lowest():
    goal = torch.tensor([[1.5, -0.5], [0.2, 2.0]])
    latent = LatentConfig("vector", size=2, steps=200, lr=0.1)
    energy = lambda z: (z - goal).square().sum(1)  # noqa: E731
    torch.testing.assert_close(latent.infer(energy, 2, goal.device), goal, atol=0.05, rtol=0)
    half = dataclasses.replace(latent, weight=1.0).infer(energy, 2, goal.device)
    torch.testing.assert_close(half, goal / 2, atol=0.05, rtol=0)


def test_a_share_of_predictions_is_trained_with_another_z_by_sample_alone():
    rng, z = CounterRNG.of(0, 0, np.arange(4000)), CODE * torch.eye(4)[torch.zeros(4000).long()]
    trained = LatentConfig(size=4).perturb(z, 0.5, rng)
    counts = trained.unique(dim=0, return_counts=True)
    assert len(counts[0]) == 5 and counts[1].min() > 300  # no z, and every code
    alone = LatentConfig(size=4).perturb(z[:7], 0.5, rng.select(np.arange(7)))
    assert torch.equal(alone, trained[:7]) and torch.equal(LatentConfig(size=4).perturb(z, 0.0, rng), z)
    noisy = LatentConfig("noisy", size=2, noise=0.5).perturb(torch.zeros(4000, 2), 0.0, rng)
    assert noisy.std() == pytest.approx(0.5, rel=0.05) and abs(noisy.mean()) < 0.02


@pytest.mark.parametrize("latent", [{"size": 0}, {"steps": 0}, {"lr": 0.0}, {"weight": -1.0}, {"weight": 1.0}])
def test_settings_without_a_meaning_are_refused(latent):
    with pytest.raises(UserError, match="--method.latent"):
        Pretrain(PICTURE, LatentJEPA(SMALL, predictor=SMALL_PREDICTOR, latent=LatentConfig(**latent)))


@pytest.fixture(scope="module")
def explored(photos, tmp_path_factory):
    """Train a run with two codes for some steps."""
    data = Image(root=(str(photos),), size=(32, 32), patch=4)
    method = LatentJEPA(SMALL, SMALL_PREDICTOR, latent=LatentConfig(size=2))
    return pretrain(
        Pretrain(
            data, method, Random(), steps=4, batch_size=16, threads=1, workers=0, report=False, device="cpu",
            precision="fp32", out=tmp_path_factory.mktemp("latent") / "run",
        )
    )  # fmt: skip


def test_the_explorer_predicts_with_the_z_that_was_chosen(explored):
    session = Session.load(Explore(run=str(explored), count=24, map=0))
    assert session.latent == LatentConfig(size=2)
    view, box = session.images.view[0], (0.25, 0.25, 0.75, 0.75)
    ratios = [session.predict_region(view, box, z).ratio for z in (None, torch.zeros(2), *torch.eye(2))]
    assert ratios[0] == ratios[1] and len({round(each, 6) for each in ratios[1:]}) == 3


@pytest.mark.slow
def test_a_user_turns_z_by_hand(explored, tmp_path):
    with browser() as window, serve_explorer(explored, tmp_path) as address:
        from selenium.webdriver import ActionChains
        from selenium.webdriver.support.ui import WebDriverWait

        wait = WebDriverWait(window, 60)
        window.get(address)
        wait.until(lambda _: "Nearest neighbors" in window.find_element("tag name", "body").text)
        picture = window.find_element("css selector", "#picture")
        ActionChains(window).move_to_element_with_offset(picture, -60, -60).click_and_hold().move_by_offset(
            90, 90
        ).release().perform()
        wait.until(lambda _: "hidden box, no z" in window.find_element("tag name", "body").text)
        buttons = window.find_elements("css selector", "#latent button")
        assert [each.text for each in buttons] == ["NO Z", "CODE 1", "CODE 2"]
        buttons[2].click()
        wait.until(lambda _: "hidden box, code 2" in window.find_element("tag name", "body").text)
        window.save_screenshot(str(tmp_path / "latent.png"))
