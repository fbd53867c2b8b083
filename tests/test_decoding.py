"""The decoder: what it trains, what it samples, and what stays unchanged."""

import copy
import json

import numpy as np
import pytest
import torch
from PIL import Image as Pillow

from openjepa.cli.main import main
from openjepa.cli.pretrain import pretrain
from openjepa.core.errors import UserError
from openjepa.core.types import Tokens
from openjepa.data.loader import Steps
from openjepa.evaluation.decoder import decoder_conditions, decoder_mask, load_decoder, sample_images
from openjepa.evaluation.decoder_agreement import derangement, measure_agreement
from openjepa.interop.pretrained import load_run
from openjepa.methods.decoder import image_rng
from openjepa.modalities.image import Image
from openjepa.nn.flow import Conditions, normal_samples, velocity
from openjepa.recipes.decoder import BLOCK_MASK, decoder_config
from openjepa.recipes.settings import TrainDecoder
from openjepa.training.config import Pretrain, load_config
from openjepa.training.optim import Optim, build_optimizer
from openjepa.training.step import train_step
from tests.conftest import CPU, METHODS, MODALITIES, TINY, replace, slow

BOTH = ["decoder", "decoder of predictions"]
DATA = MODALITIES["image"]
SMALL = ["--dim", "48", "--depth", "1", "--num-heads", "2", "--batch-size", "16", "--device", "cpu", "--threads", "1"]


def build(name: str):
    """Build a decoder, and the steps to train it."""
    net = METHODS[name].build(DATA, 0)
    steps = Steps(DATA.synthetic(32, 0), BLOCK_MASK, DATA.layout, batch_size=16, total_steps=40, seed=0)
    return net, steps


@pytest.fixture(scope="module")
def run(photos, tmp_path_factory):
    out = tmp_path_factory.mktemp("decoded") / "run"
    data = Image(root=(str(photos),), size=(32, 32), patch=4)
    shared = {"steps": 4, "batch_size": 16, "device": "cpu", "precision": "fp32", "threads": 1, "workers": 0}
    return pretrain(Pretrain(data, TINY, **shared, log_every=2, out=out, report=False))


@pytest.mark.parametrize("name", BOTH)
def test_decoded_networks_stay_frozen(name):
    net, steps = build(name)
    before = copy.deepcopy(net.state_dict())
    optimizer = build_optimizer(net, Optim(lr=1e-3))
    learning = {id(each) for group in optimizer.param_groups for each in group["params"]}
    assert learning == {
        id(each) for each in net.drawer.parameters()
    }  # otherwise ranks wait for gradients that never come
    for number in range(3):
        train_step(
            net,
            optimizer,
            steps[number].batch,
            Optim(lr=1e-3, ema_momentum=0.5).at(number, 3),
            CPU,
        )
    for part, value in net.state_dict().items():
        changes = part.startswith(("drawer.", "averaged.")) and "norm" not in part
        assert not value.equal(before[part]) if changes and part.endswith("proj.weight") else True
        assert value.equal(before[part]) or part.startswith(("drawer.", "averaged."))


@pytest.mark.parametrize("name", BOTH)
def test_a_perfect_network_samples_the_true_patches_in_any_number_of_steps(name, monkeypatch):
    """A straight flow is integrated without an error."""
    net, steps = build(name)
    batch, masks = steps[0].batch, steps[0].batch.masks
    there = net.region_tokens(DATA.tokens(batch.views[0]), masks)

    class Perfect(torch.nn.Module):
        def forward(self, noisy, time, condition):
            return there.x

    net.averaged = Perfect()
    for number in (1, 2, 25):
        found = net.sample(net.targets(batch), there.pos, image_rng(0, 16), number)
        assert torch.allclose(found, there.x, atol=1e-4)


def test_velocity_of_a_perfect_network_is_data_minus_noise():
    x, noise = torch.randn(4, 6, 8), torch.randn(4, 6, 8)
    at = torch.tensor([0.0, 0.3, 0.6, 0.9])

    class Perfect(torch.nn.Module):
        def forward(self, noisy, time, condition):
            return x

    between = noise.lerp(x, at[:, None, None])
    flow = velocity(Perfect(), Tokens(between, torch.zeros(4, 6, 2)), at, Conditions(torch.zeros(4, 1, 3)))  # type: ignore[arg-type]
    assert torch.allclose(flow, x - noise, atol=1e-4)


@pytest.mark.parametrize("name", BOTH)
def test_samples_depend_on_the_seed_and_the_condition(name):
    net, steps = build(name)
    for parameter in net.averaged.parameters():
        parameter.data += 0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1))
    batch, masks = steps[0].batch, steps[0].batch.masks
    where, given = net.region_tokens(DATA.tokens(batch.views[0]), masks).pos, net.targets(batch)
    one, again = (net.sample(given, where, image_rng(0, 16), 4) for _ in range(2))
    assert one.equal(again)
    assert not one.allclose(net.sample(given, where, image_rng(1, 16), 4))
    assert not one.allclose(net.sample(Conditions(given.x.flip(0)), where, image_rng(0, 16), 4))
    assert not one[0].allclose(one[1])


def test_noise_is_normal_and_independent_of_the_other_samples():
    x = normal_samples(image_rng(3, 64), "noise", (400,))
    assert abs(float(x.mean())) < 0.02 and float(x.std()) == pytest.approx(1, abs=0.02)
    assert float(x.pow(4).mean()) == pytest.approx(3, abs=0.15)  # kurtosis
    assert x[5].equal(normal_samples(image_rng(3, 64).select(np.array([5])), "noise", (400,))[0])


def test_conditions_are_mean_features_or_the_output_of_the_predictor():
    net, steps = build("decoder")
    tokens = DATA.tokens(steps[0].batch.views[0])
    (seen,) = net.target_encoder(tokens)
    assert torch.allclose(net.targets(steps[0].batch).x[:, 0], seen.x.mean(1), atol=1e-6)

    net, steps = build("decoder of predictions")
    (mask,) = steps[0].batch.masks
    (context,) = net.context_encoder(tokens.take(mask.context))
    expected = net.predictor(context, where=tokens.take(mask.target[:, 0]).pos[:, None])[:, 0]
    assert torch.allclose(net.targets(steps[0].batch._replace(masks=(mask,))).x[:, 0], expected.mean(1), atol=1e-6)
    every = replace(net.config, pooled=False).build(DATA, 0)
    assert every.targets(steps[0].batch._replace(masks=(mask,))).x.shape[1] == mask.target.shape[2]


def test_agreement_is_perfect_for_perfect_samples_and_at_chance_for_noise():
    truth = torch.randn(50, 16, generator=torch.Generator().manual_seed(0)) + 5
    found = measure_agreement(truth, truth + 0.01, truth.roll(1, 0))
    assert found.retrieval == 1 and found.shuffled == 0 and found.chance == 0.02
    assert found.cosine > 0.99 and abs(found.cosine_other) < 0.1
    noise = torch.randn(50, 16, generator=torch.Generator().manual_seed(1))
    assert measure_agreement(truth, noise, noise).retrieval < 0.15


def test_a_derangement_is_a_permutation_without_fixed_points():
    other = derangement(50, 3)
    assert sorted(other.tolist()) == list(range(50)) and (other != torch.arange(50)).all()


@pytest.mark.parametrize("condition", [pytest.param("features", marks=slow), "prediction"])
def test_decoder_train_sample_and_measure_commands_work(condition, run, photos, tmp_path, capsys):
    folder = tmp_path / "decoder"
    train = ["decoder", "train", str(run), "--condition", condition, "--steps", "3", "--out", str(folder), *SMALL]
    assert main(train) == 0 and main(train) == 0  # called again, it finds nothing left to do
    trained, theirs = load_decoder(folder), load_run(run, "target")
    for name, value in theirs.encoder.state_dict().items():
        assert value.equal(trained.method.target_encoder.state_dict()[name])
    assert (folder / "report.html").exists()
    capsys.readouterr()

    out = tmp_path / "samples.png"
    sample = [
        "decoder",
        "sample",
        str(folder),
        str(photos),
        "--count",
        "3",
        "--samples",
        "2",
        "--steps",
        "3",
        "--out",
        str(out),
    ]
    assert main(sample) == 0 and "decoded only from" in capsys.readouterr().out
    before = out.read_bytes()
    assert main(sample) == 0 and out.read_bytes() == before and Pillow.open(out).width > 300

    assert main(["decoder", "measure", str(folder), str(photos), "--count", "30", "--steps", "3"]) == 0
    assert "chance 3.3 %" in capsys.readouterr().out
    written = json.loads((folder / "agreement.json").read_text())
    chance = next(each for each in written["scores"] if each["features"] == "chance")
    assert written["step"] == 3 and (chance["metric"], chance["unit"]) == ("retrieval", "%")
    assert chance["value"] == pytest.approx(100 / 30)


def test_sampling_a_box_leaves_the_rest_of_the_image_unchanged(run, tmp_path):
    asked = TrainDecoder(
        run=str(run),
        condition="prediction",
        out=tmp_path / "d",
        dim=48,
        depth=1,
        num_heads=2,
        steps=2,
        batch_size=16,
        device="cpu",
        threads=1,
    )
    pretrain(replace(decoder_config(asked), report=False))
    decoder = load_decoder(tmp_path / "d")
    view = decoder.data.synthetic(4, 0).read(torch.arange(4), None).views[0]
    mask = decoder_mask(decoder, 4, (0.5, 0.0, 1.0, 0.5), 0)
    drawn = sample_images(decoder, view, decoder_conditions(decoder, view, mask), mask, 2, 0, 3)
    other = torch.ones(32, 32, dtype=torch.bool)
    other[:16, 16:] = False
    assert (drawn.views[:, :, :, other] == view[:, :, other]).all()
    assert (drawn.views[0] != drawn.views[1]).any() or (drawn.views[0] != view).any()


def test_an_mae_is_decoded_from_its_features_only(photos, tmp_path):
    data = Image(root=(str(photos),), size=(32, 32), patch=4)
    base = Pretrain(
        data,
        METHODS["mae"],
        steps=2,
        batch_size=16,
        device="cpu",
        threads=1,
        workers=0,
        out=tmp_path / "mae",
        report=False,
    )
    run = pretrain(base)
    assert main(["decoder", "train", str(run), "--steps", "2", *SMALL]) == 0
    assert isinstance(load_config(run / "decoder").method, type(METHODS["decoder"]))
    with pytest.raises(UserError, match="predicts pixels"):
        decoder_config(TrainDecoder(run=str(run), condition="prediction"))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "train, sample, measure"),
        (["draw"], "train, sample, measure"),
        (["train", "nowhere"], "is not a run"),
        (["train", "EXPORT", "--condition", "prediction"], "has no predictor"),
        (["sample", "RUN"], "is not a decoder"),
        (["measure", "RUN"], "is not a decoder"),
    ],
)
def test_bad_input_gives_a_one_line_error(words, said, run, capsys):
    places = {"RUN": str(run), "EXPORT": str(run / "export")}
    assert main(["decoder", *(places.get(each, each) for each in words)]) == 1
    error = capsys.readouterr().err.strip()
    assert said in error and error.count("\n") == 0


def test_another_decoder_in_the_same_folder_and_odd_sizes_are_refused(run, tmp_path, capsys):
    train = ["decoder", "train", str(run), "--steps", "2", "--out", str(tmp_path / "d"), *SMALL]
    assert main(train) == 0
    assert main([*train, "--depth", "2"]) == 1 and "contains another decoder" in capsys.readouterr().err
    assert main([*train[:-1], "1", "--dim", "50", "--out", str(tmp_path / "e")]) == 1
    assert "try --dim 48" in capsys.readouterr().err


def test_impossible_requests_are_refused_with_a_reason(run, photos, tmp_path, capsys):
    folder = tmp_path / "d"
    assert main(["decoder", "train", str(run), "--steps", "2", "--out", str(folder), *SMALL]) == 0
    capsys.readouterr()
    for words, said in (
        (["sample", str(folder), "--box", "0", "0", "0.5", "0.5"], "leave --box out"),
        (["sample", str(folder), "--samples", "0"], "--samples must be 1 to 32 and --steps >= 1, got 0"),
        (["sample", str(folder), "--steps", "0"], "--samples must be 1 to 32 and --steps >= 1, got 6 and 0"),
        (["sample", str(folder), "--out", "x.gif"], "must end in .png, got x.gif"),
        (["measure", str(folder), "--count", "5"], "too few"),
        (["train", str(folder)], "is not a JEPA or MAE run on images"),
    ):
        assert main(["decoder", *words]) == 1
        assert said in capsys.readouterr().err
