"""Anomaly scores: densities, prediction errors of single samples, and the command."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image as Pillow

from openjepa.cli.anomalies import anomalies
from openjepa.cli.main import main
from openjepa.cli.pretrain import pretrain
from openjepa.cli.settings import Anomalies
from openjepa.core.errors import UserError
from openjepa.core.types import Batch, Samples
from openjepa.data.synthetic.machines import FAULTS, render_machines, write_machines
from openjepa.data.synthetic.sounds import write_sounds
from openjepa.evaluation.anomalies import NormalSamples, above, measure_detection
from openjepa.evaluation.density import Gaussian, shrink_covariance
from openjepa.evaluation.masked_error import MaskedError, load_masked_error, repeat
from openjepa.masking.random import Random
from openjepa.methods.jepa import JEPA
from openjepa.methods.mae import MAE
from openjepa.methods.vicreg import VICReg
from openjepa.modalities.audio import Audio
from openjepa.modalities.image import Image
from openjepa.nn.expander import ExpanderConfig
from openjepa.training.config import Pretrain
from openjepa.training.device import Device
from tests.conftest import SMALL, SMALL_PREDICTOR

CPU = Device(torch.device("cpu"), "fp32")

SOUND = Audio(rate=4000, frames=32, bands=16, patch=4, hop=0.01, window=0.025)


# ---- densities


def test_the_shrunk_covariance_is_that_of_ledoit_and_wolf():
    covariance = pytest.importorskip("sklearn.covariance")
    x = torch.randn(40, 30, generator=torch.Generator().manual_seed(0)).double() * torch.linspace(0.5, 2, 30)
    x -= x.mean(0)
    expected = covariance.LedoitWolf(assume_centered=True).fit(x.numpy()).covariance_
    np.testing.assert_allclose(shrink_covariance(x).numpy(), expected, rtol=1e-6, atol=1e-9)


def test_distances_are_those_of_the_true_distribution_with_many_samples():
    generator = torch.Generator().manual_seed(0)
    mixed = torch.tensor([[2.0, 0.0], [1.5, 0.5]])
    x = torch.randn(20_000, 2, generator=generator) @ mixed.T + 3
    other = torch.tensor([[3.0, 3.0], [5.0, 3.0]])
    offset = (other - 3).double()
    expected = ((offset @ torch.linalg.inv(mixed.double() @ mixed.double().T)) * offset).sum(1).sqrt()
    torch.testing.assert_close(Gaussian.of(x).distance(other), expected, rtol=0.05, atol=0.05)


def test_units_of_features_do_not_matter_and_a_constant_one_says_nothing():
    x, other = torch.randn(2, 50, 4, generator=torch.Generator().manual_seed(0))
    units = torch.tensor([1.0, 100.0, 1e-3, 7.0])
    expected = Gaussian.of(x).distance(other)
    torch.testing.assert_close(Gaussian.of(x * units).distance(other * units), expected, rtol=1e-5, atol=1e-6)
    with_constant = [torch.cat([each, torch.full((50, 1), 0.25)], 1) for each in (x, other)]
    assert Gaussian.of(with_constant[0]).distance(with_constant[1]).isfinite().all()


# ---- scores


def test_the_auroc_counts_pairs_in_the_right_order_and_ties_half():
    anomalous, normal = torch.tensor([3.0, 1.0, 2.0]).double(), torch.tensor([1.0, 0.0]).double()
    pairs = [(a > n) + 0.5 * (a == n) for a in anomalous.tolist() for n in normal.tolist()]
    assert measure_detection("", anomalous, normal).auroc == pytest.approx(100 * np.mean(pairs))
    assert above(anomalous, normal).tolist() == [1.0, 0.75, 1.0]


def test_the_interval_of_the_auroc_covers_the_truth_as_often_as_it_says():
    generator, inside = torch.Generator().manual_seed(0), []
    truth = 100 * torch.distributions.Normal(0.0, 1.0).cdf(torch.tensor(1 / 2**0.5)).item()
    for _ in range(200):
        values = torch.randn(2, 40, generator=generator).double()
        result = measure_detection("", values[0] + 1, values[1])
        inside.append(result.low <= truth <= result.high)
    assert 0.9 <= np.mean(inside) <= 0.99


def test_samples_far_from_normal_ones_score_high_and_normal_ones_do_not():
    generator = torch.Generator().manual_seed(0)
    normal, same = torch.randn(2, 300, 5, generator=generator)
    scores = NormalSamples.of(normal).score(torch.cat([same[:100], same[:10] + 6]))
    assert scores.score[100:].min() > scores.score[:100].max()
    assert scores.normal_share[100:].max() == 0 and 0.4 < scores.normal_share[:100].mean() < 0.6
    assert scores.error is None


def test_a_fault_in_one_token_is_not_lost_in_the_mean_over_all():
    normal = torch.rand(50, 64, generator=torch.Generator().manual_seed(0)) + 0.5
    faulty = normal[:1].clone()
    faulty[0, 17] = 5.0
    features = torch.randn(50, 3, generator=torch.Generator().manual_seed(1))
    scores = NormalSamples.of(features, normal).score(features[:1], faulty)
    assert scores.error is not None and float(scores.error[0]) == 5.0


def test_too_few_normal_samples_are_refused():
    with pytest.raises(UserError, match="too few normal samples: 9, at least 10 are needed"):
        NormalSamples.of(torch.randn(9, 3))


# ---- prediction errors


class Loaded:
    """Samples in memory."""

    def __init__(self, view: torch.Tensor):
        self.view, self.classes, self.fingerprint = view, (), ""

    def __len__(self) -> int:
        return len(self.view)

    def source(self, index: int) -> str:
        return str(index)

    def read(self, index, rng) -> Samples:
        return Samples((self.view[index],), torch.zeros(len(index), dtype=torch.long))


@pytest.fixture(scope="module")
def sounds(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("anomalies")
    write_sounds(folder / "normal", 24, 4000, 2000, 0)
    return folder


def train(sounds: Path, method, **changes) -> Path:
    data = replace(SOUND, root=(str(sounds / "normal"),))
    settings = Pretrain(
        data=data, method=method, masks=Random(), steps=3, batch_size=8, threads=1, workers=0, report=False,
        device="cpu", precision="fp32", out=sounds / type(method).__name__, resume="if-any",
    )  # fmt: skip
    return pretrain(replace(settings, **changes))


@pytest.fixture(scope="module")
def run(sounds) -> Path:
    return train(sounds, JEPA(SMALL, SMALL_PREDICTOR, target_transforms=("center", "standardize")))


def views(sounds: Path) -> torch.Tensor:
    data = replace(SOUND, root=(str(sounds / "normal"),))
    return data.dataset(data.listing()).read(torch.arange(12), None).views[0]


def test_token_errors_average_to_the_training_loss(sounds):
    folder = train(sounds, JEPA(SMALL, SMALL_PREDICTOR, loss="squared_l2"), out=sounds / "plain")
    view, error = views(sounds), load_masked_error(folder, Loaded(views(sounds)), CPU)
    (mask, *_) = error.masks
    one = error._replace(masks=(mask,))
    batch = Batch((view,), torch.arange(len(view)), (repeat(mask, len(view)),))
    loss = error.method(batch, error.method.targets(batch)).loss  # summed over the tokens and features of a target
    expected = loss / (mask.target.shape[-1] * error.width)
    torch.testing.assert_close(one.token_errors(view).nanmean(), expected, rtol=1e-3, atol=0.0)


def test_the_errors_of_a_sample_do_not_depend_on_the_others(run, sounds):
    view = views(sounds)
    error = load_masked_error(run, Loaded(view), CPU)
    assert error.scale is not None  # the run standardizes targets over the batch
    together, alone = error.token_errors(view), error.token_errors(view[:1])
    torch.testing.assert_close(together[:1], alone, equal_nan=True)


def test_the_scale_of_normal_samples_gives_the_errors_of_a_standardized_batch(run, sounds):
    """With the same samples as normal ones and one mask of all tokens, both standardize the same targets."""
    view = views(sounds)
    error = load_masked_error(run, Loaded(view), CPU)
    features = torch.cat([prediction.target.flatten(0, 2) for prediction in error.predictions(view)])
    scaled = error.scale.apply(features)  # type: ignore[union-attr]
    assert scaled.mean(0).abs().max() < 1e-4 and (scaled.std(0) - 1).abs().max() < 0.05


def test_an_mae_is_scored_by_the_error_of_its_pixels(sounds):
    folder = train(sounds, MAE(SMALL, SMALL_PREDICTOR))
    error = load_masked_error(folder, Loaded(views(sounds)), CPU)
    errors = error.token_errors(views(sounds))
    assert isinstance(error, MaskedError) and errors.shape == (12, SOUND.layout.count) and (errors.nanmean() > 0)


# ---- machines


def test_a_machine_is_the_same_in_any_batch_and_every_fault_changes_it():
    kinds = torch.zeros(4, dtype=torch.long)
    together, alone = render_machines(kinds, 4000, 4000, 0), render_machines(kinds[2:3], 4000, 4000, 0, 2)
    torch.testing.assert_close(together.sound[2:3], alone.sound)
    for fault in range(1, len(FAULTS)):
        changed = render_machines(torch.tensor([fault]), 4000, 4000, 0)
        assert (changed.sound[0] - together.sound[0]).abs().max() > 0.01, FAULTS[fault]


# ---- command


@pytest.fixture(scope="module")
def tested(sounds) -> Path:
    """Write normal sounds of a machine, and some of noise alone."""
    kinds = torch.zeros(8, dtype=torch.long)
    write_machines(sounds / "machines", torch.zeros(24, dtype=torch.long), 4000, 2000, 0)
    write_machines(sounds / "tested", kinds, 4000, 2000, 0, 24)
    (sounds / "tested" / "noise").mkdir()
    for file in sorted((sounds / "normal").glob("*.wav"))[:6]:
        (sounds / "tested" / "noise" / file.name).write_bytes(file.read_bytes())
    return sounds / "tested"


def test_the_command_ranks_other_sounds_first_and_measures_every_score(run, sounds, tested, capsys):
    settings = Anomalies(
        run=str(run), files=str(tested), normal=(str(sounds / "machines"),), good="none", count=6, device="cpu"
    )
    first = anomalies(settings)
    out = capsys.readouterr().out
    assert [Path(each["file"]).parent.name for each in first] == ["noise"] * 6
    for name in ("features and predictions\t100.0", "before training\t", "mean log-mel\t", "MFCC statistics\t"):
        assert name in out
    rows = list(csv.DictReader((run / "anomalies" / "tested.csv").open(newline="")))
    values = [float(row["score"]) for row in rows]
    assert len(rows) == 14 and values == sorted(values, reverse=True) and rows[0]["file"] == first[0]["file"]
    assert Pillow.open(run / "anomalies" / "tested.png").width > 800


def test_an_encoder_without_a_predictor_scores_by_its_features_alone(sounds, tested):
    folder = train(sounds, VICReg(SMALL, ExpanderConfig(dim=32)), out=sounds / "vicreg")
    settings = Anomalies(run=str(folder), files=str(tested), normal=(str(sounds / "machines"),), device="cpu")
    anomalies(settings)
    rows = list(csv.DictReader((folder / "anomalies" / "tested.csv").open(newline="")))
    assert {row["error"] for row in rows} == {""} and Path(rows[0]["file"]).parent.name == "noise"


def test_damaged_files_are_left_out_with_a_warning(run, sounds, tmp_path, capsys):
    write_machines(tmp_path / "new", torch.zeros(4, dtype=torch.long), 4000, 2000, 1)
    (tmp_path / "new" / "none" / "damaged.wav").write_bytes(b"RIFF")
    settings = Anomalies(run=str(run), files=str(tmp_path / "new"), out=tmp_path / "scores", device="cpu")
    assert len(anomalies(settings)) == 4
    captured = capsys.readouterr()
    assert "1 of 5 recordings cannot be decoded" in captured.err and "damaged.wav" in captured.err
    assert "the files that the run was trained on" in captured.out


def test_images_are_scored_too(tmp_path):
    for number in range(14):
        pixels = np.random.default_rng(number).integers(100, 156, (16, 16, 3), np.uint8)
        pixels[4:12, 4:12] = (200, 30, 30) if number < 13 else (30, 200, 30)
        folder = tmp_path / ("good" if number < 13 else "other")
        folder.mkdir(exist_ok=True)
        Pillow.fromarray(pixels).save(folder / f"{number}.png")
    settings = Pretrain(
        data=Image((str(tmp_path / "good"),), size=(16, 16), patch=4), method=JEPA(SMALL, SMALL_PREDICTOR),
        masks=Random(), steps=2, batch_size=4, threads=1, workers=0, report=False, device="cpu", precision="fp32",
        out=tmp_path / "run",
    )  # fmt: skip
    first = anomalies(Anomalies(run=str(pretrain(settings)), files=str(tmp_path / "other"), device="cpu"))
    assert len(first) == 1 and first[0]["score"] > 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--good", "fine"], "--good fine must be one of several classes, those here are: noise, none"),
        (["--count", "0"], "--count must be >= 1, got 0"),
        (["--normal", "TESTED/noise"], "too few normal samples: 6, at least 10 are needed"),
    ],
)
def test_mistakes_are_named_before_anything_is_encoded(run, sounds, tested, capsys, monkeypatch, arguments, message):
    monkeypatch.setattr("openjepa.cli.anomalies.measure_samples", lambda *_: pytest.fail("files were encoded"))
    arguments = [each.replace("TESTED", str(tested)) for each in arguments]
    normal = [] if "--normal" in arguments else ["--normal", str(sounds / "machines")]
    assert main(["anomalies", str(run), str(tested), *normal, *arguments]) == 1
    assert message in capsys.readouterr().err
