"""Image world models: transforms with known parameters, actions, and the measure of equivariance."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from openjepa.cli.main import main
from openjepa.core.errors import UserError
from openjepa.core.fileio import read_json
from openjepa.core.rng import CounterRNG
from openjepa.core.types import Batch, Keep, Tokens
from openjepa.data.loader import Steps
from openjepa.data.photometric import NAMES, Photometric, PhotometricConfig, difference, transform
from openjepa.evaluation.equivariance import chance_rank, rank_row, reciprocal_rank
from openjepa.evaluation.imagination import Imagination
from openjepa.evaluation.probes import predictor_finetune
from openjepa.interop.pretrained import load_run
from openjepa.masking.random import Random
from openjepa.methods.iwm import IWM
from openjepa.nn.conditioning import FeatureConditioner, SequenceConditioner
from openjepa.training.config import Pretrain
from openjepa.training.run import pretrain
from openjepa.viz import imagine
from tests.conftest import CPU, METHODS, MODALITIES, SMALL, SMALL_PREDICTOR
from tests.small import small

DATA = MODALITIES["image"]
SETTINGS = IWM(SMALL, SMALL_PREDICTOR)


def views(count: int = 4) -> torch.Tensor:
    return DATA.synthetic(count, 0).read(torch.arange(count), None).views[0]


def draw(config: PhotometricConfig, count: int, destructive: bool = True) -> Photometric:
    return config.draw(CounterRNG.of(0, 0, np.arange(count)), "source", destructive)


# Transforms


def test_a_transform_of_zeros_changes_nothing():
    assert torch.equal(transform(views(), Photometric.of(4)), views())


def test_colors_change_as_their_parameters_say():
    x = views().float()
    brighter = transform(x, Photometric.of(4, brightness=0.2))
    torch.testing.assert_close(brighter, (1.2 * x).clamp(0, 255))
    gray = transform(x, Photometric.of(4, gray=1.0))
    assert (gray[:, 0] - gray[:, 2]).abs().max() < 1e-3
    torch.testing.assert_close(transform(x, Photometric.of(4, saturation=-1.0)), gray, atol=0.01, rtol=1e-4)
    flat = transform(x, Photometric.of(4, contrast=-1.0)).flatten(2)
    assert flat.std(-1).max() < 0.01
    inverted = transform(x, Photometric.of(4, solarize=1.0))
    assert torch.equal(inverted[x < 128], x[x < 128]) and torch.equal(inverted[x >= 128], 255 - x[x >= 128])
    torch.testing.assert_close(transform(x, Photometric.of(4, hue=1.0)), x, atol=0.01, rtol=1e-4)


def test_blur_keeps_the_mean_and_smooths():
    x = views().float()
    blurred = transform(x, Photometric.of(4, blur=1.0))
    difference_of = [(each[..., 1:] - each[..., :-1]).abs().mean() for each in (x, blurred)]
    assert difference_of[1] < 0.8 * difference_of[0]
    assert transform(torch.full((1, 3, 8, 8), 90.0), Photometric.of(1, blur=1.0)).sub(90).abs().max() < 1e-3


def test_each_transform_applies_to_the_share_of_views_that_is_set():
    config = PhotometricConfig(gray=0.5, blur=0.0, solarize=1.0)
    parameters = draw(config, 2000)
    assert float(parameters.gray.mean()) == pytest.approx(0.5, abs=0.05)
    assert not parameters.blur.any() and parameters.solarize.all()
    assert float((parameters.hue == 0).float().mean()) == pytest.approx(0.2, abs=0.05)
    assert parameters.brightness.abs().max() <= 0.4 and parameters.hue.abs().max() <= 0.1
    assert not any(getattr(draw(config, 9, destructive=False), name).any() for name in ("gray", "blur", "solarize"))


def test_an_action_is_0_where_source_and_target_have_the_same_parameters():
    source = draw(PhotometricConfig(), 64, destructive=False)
    assert not difference(source, source).any()
    target = draw(PhotometricConfig(), 64, destructive=False)
    assert torch.equal(difference(source, target)[:, :4], -difference(target, source)[:, :4])
    brighter = difference(Photometric.of(1, brightness=-0.1), Photometric.of(1, brightness=0.2))
    torch.testing.assert_close(brighter[0, 0], torch.tensor(0.3))  # target minus source
    destroyed = draw(PhotometricConfig(gray=1.0), 64)
    assert (difference(destroyed, target)[:, NAMES.index("gray")] == 1).all()


@pytest.mark.parametrize("bad", [{"hue": 2.0}, {"gray": -0.1}])
def test_strengths_out_of_range_are_refused(bad):
    with pytest.raises(UserError, match=f"--method.transforms.{next(iter(bad))}"):
        PhotometricConfig(**bad)


# The method


def build(config: IWM = SETTINGS):
    net = config.build(DATA)
    batch = Steps(DATA.synthetic(32, 0), Random(), DATA.layout, batch_size=8, total_steps=1, seed=0)[0].batch
    return net, batch


def test_source_and_target_share_the_crop_and_the_loss_is_the_equation():
    config = replace(SETTINGS, transforms=PhotometricConfig(0.0, gray=0.0, blur=0.0, solarize=0.0))
    net, batch = build(config)
    made = net.views(batch)
    assert torch.equal(made.source, made.target) and torch.equal(made.source, batch.views[0])
    net, batch = build()
    made = net.views(batch)
    tokens, mask = DATA.tokens(made.source), batch.masks[0]
    context = net.context_encoder(tokens, Keep(mask.context[:, None]))[0]
    predicted = net.predictor(context, tokens.take(mask.target[:, 0]).pos[:, None], made.action)[:, 0]
    features = net.target_encoder(DATA.tokens(made.target))[0].x
    truth = torch.nn.functional.layer_norm(features, features.shape[-1:])
    hidden = truth.gather(1, mask.target[:, 0, :, None].expand(-1, -1, 48))
    expected = (predicted - hidden).square().mean()
    torch.testing.assert_close(net(batch, net.targets(batch)).loss, expected)


def test_views_depend_on_the_seed_and_the_sample_alone():
    net, batch = build()
    half = net.views(Batch((batch.views[0][4:],), batch.index[4:]))
    assert all(torch.equal(a, b[4:]) for a, b in zip(half, net.views(batch), strict=True))
    other = SETTINGS.build(DATA, seed=1).views(batch)
    assert not torch.equal(other.action, net.views(batch).action)


@pytest.mark.parametrize("conditioning", ["feature", "sequence", "none"])
def test_predictions_depend_on_the_action_if_the_predictor_is_conditioned(conditioning):
    net, batch = build(replace(SETTINGS, conditioning=conditioning))
    tokens = DATA.tokens(batch.views[0])
    (context,) = net.context_encoder(tokens)
    where, action = tokens.pos[:, None], torch.zeros(8, len(NAMES))
    at_rest, unnamed = (net.predictor(context, where, each) for each in (action, None))
    changed = net.predictor(context, where, action + 1.0)
    assert torch.equal(at_rest, unnamed)  # no action is the action that changes nothing
    assert torch.equal(at_rest, changed) == (conditioning == "none")


def test_sequence_conditioning_adds_a_token_for_each_parameter_and_keeps_padding():
    conditioner = SequenceConditioner(6, 3)
    torch.nn.init.normal_(conditioner.weight)
    valid = torch.tensor([[True, True, False, True]])
    context = Tokens(torch.randn(1, 4, 6), torch.zeros(1, 4, 2), valid)
    longer = conditioner.extend_context(context, torch.tensor([[0.0, 2.0, 0.0]]))
    assert longer.x.shape == (1, 7, 6) and longer.valid.tolist() == [[True, True, False, True, True, True, True]]
    torch.testing.assert_close(longer.x[0, 5], 2 * conditioner.weight[1])
    assert torch.equal(longer.x[:, :4], context.x)


def test_feature_conditioning_maps_each_query_by_itself():
    conditioner = FeatureConditioner(6, 3)
    query, action = torch.randn(2, 4, 6), torch.randn(2, 3)
    whole = conditioner.condition_queries(query, action)
    torch.testing.assert_close(whole[1:, 2:3], conditioner.condition_queries(query[1:, 2:3], action[1:]))


@pytest.mark.parametrize("data", [MODALITIES["series"], replace(DATA, channels=1)])
def test_data_without_colors_is_refused(data):
    with pytest.raises(UserError, match="requires images with 3 channels"):
        SETTINGS.check(data, Random())


# Equivariance


def test_the_mean_reciprocal_rank_of_an_oracle_is_1_and_of_a_constant_is_chance():
    true = torch.randn(256, 4, 8, generator=torch.Generator().manual_seed(0))
    assert reciprocal_rank(true + 0.01, true) == 1.0
    assert reciprocal_rank(true[:1].expand_as(true), true) == pytest.approx(chance_rank(256), rel=1e-6)
    assert chance_rank(256) == pytest.approx(0.0239, abs=1e-4)
    assert reciprocal_rank(true.roll(1, 0), true) < 0.05  # the wrong action


def test_collapsed_features_do_not_win():
    assert reciprocal_rank(torch.randn(16, 4, 8), torch.zeros(16, 4, 8)) == pytest.approx(1 / 8.5)


def test_ranks_are_those_of_plain_sorting():
    generator = torch.Generator().manual_seed(0)
    imagined, true = (torch.randn(9, 2, 3, generator=generator).flatten(1) for _ in range(2))
    ranks = []
    for row in range(9):
        order = sorted(range(9), key=lambda other: float((imagined[row] - true[other]).norm()))
        ranks.append(1 / (1 + order.index(row)))
    assert reciprocal_rank(imagined[:, None], true[:, None]) == pytest.approx(np.mean(ranks))


@pytest.fixture(scope="module")
def run(photos, tmp_path_factory):
    """Train two steps of an image world model."""
    out = tmp_path_factory.mktemp("iwm") / "run"
    method = replace(SETTINGS, target_transforms=("standardize",))
    with pytest.MonkeyPatch.context() as patch:  # the fixtures of a single test come later
        small(patch.setattr)
        pretrain(Pretrain(replace(DATA, root=(str(photos),)), method, Random(), steps=2, batch_size=16, out=out))
    return out


class Oracle(Imagination):
    """Imagines what is true: it changes the view itself, as the action says."""

    def features(self, changed: torch.Tensor) -> torch.Tensor:
        return changed.float().flatten(2).mT

    def imagine(self, view: torch.Tensor, action: torch.Tensor) -> torch.Tensor:
        parameters = Photometric(*action[0].unbind(1))
        return self.features(transform(view.expand(action.shape[1], -1, -1, -1), parameters))[None]


def test_an_oracle_ranks_first_with_its_own_actions_and_not_with_scrambled_ones():
    oracle = Oracle(SETTINGS.build(DATA), DATA, CPU)
    plain, scrambled = (
        rank_row("all", oracle, views(2), PhotometricConfig(), 16, 0, scramble).value for scramble in (False, True)
    )
    assert plain == 1.0 and scrambled < 0.4


def test_equivariance_is_a_command(run, photos, capsys):
    command = ["equivariance", str(run), str(photos), "--count", "2", "--candidates", "8"]
    assert main(command) == 0
    out = capsys.readouterr().out
    assert "actions scrambled" in out and "chance" in out
    result = read_json(run / "equivariance.json")
    assert [each["name"] for each in result["ranks"]][:2] == ["all", "brightness"] and result["images"] == 2
    assert all(0 < each["low"] <= each["value"] <= each["high"] <= 1 for each in result["ranks"])
    assert main([*command[:3], "--count", "1"]) == 1
    assert "--count must be >= 2" in capsys.readouterr().err


def test_imagined_changes_are_drawn(run, photos, tmp_path, monkeypatch):
    monkeypatch.setattr(imagine, "VERSIONS", 1)
    out = tmp_path / "imagined.png"
    assert main(["show", "imagine", str(run), str(photos), "--count", "2", "--out", str(out)]) == 0
    assert out.stat().st_size > 1000 and out.with_suffix(".html").is_file()


def test_a_world_model_says_what_to_type_next():
    commands = [command for command, _ in SETTINGS.next_commands("runs/iwm", DATA)]
    assert any(each.startswith("jepa equivariance runs/iwm") for each in commands)
    assert any(each.startswith("jepa show imagine runs/iwm") for each in commands)


@pytest.mark.parametrize("command", ["equivariance", "show imagine"])
def test_a_run_that_imagines_nothing_is_refused(command, photos, tmp_path, capsys):
    pretrain(
        Pretrain(replace(DATA, root=(str(photos),)), METHODS["mae"], Random(), steps=1, batch_size=8, out=tmp_path)
    )
    assert main([*command.split(), str(tmp_path), str(photos)]) == 1
    assert "imagines no changes of color: give a run of --method iwm" in capsys.readouterr().err


def test_predictor_finetuning_learns_and_leaves_the_run_as_it_is(run, photos, monkeypatch, capsys):
    monkeypatch.setattr(predictor_finetune, "EPOCHS", 1)
    before = load_run(run).predictor
    command = ["probe", str(run), "--data.root", str(photos), "--probes", "predictor-finetune", "--json"]
    assert main(command) == 0
    scores = json.loads(capsys.readouterr().out)
    names = {each["metric"] for each in scores["scores"] if each["features"] == "this encoder"}
    assert names == {"predictor-finetune", "predictor-finetune random"}
    after = load_run(run).predictor
    assert before and after
    assert all(torch.equal(a, b) for a, b in zip(before.parameters(), after.parameters(), strict=True))
