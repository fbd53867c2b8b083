"""Attentive and dense probes, and suites."""

import json

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from openjepa.cli import suite as suite_command
from openjepa.cli.pretrain import pretrain
from openjepa.cli.probe import probe
from openjepa.cli.settings import Probe, Suite
from openjepa.cli.suite import suite
from openjepa.core.errors import UserError
from openjepa.data.image_files import ImageArray
from openjepa.data.synthetic.scenes import render
from openjepa.evaluation import dense
from openjepa.evaluation.dense import PatchLabels, mean_iou, measure_dense, patch_labels
from openjepa.evaluation.features import DatasetEncoder
from openjepa.evaluation.probes import attentive, finetune
from openjepa.evaluation.probes.attentive import SweepPoint, attentive_probe
from openjepa.evaluation.probes.finetune import (
    FinetuneClassifier,
    drop_paths,
    finetune_probe,
    fit_classifier,
    layerwise_groups,
)
from openjepa.evaluation.probes.finetune_recipes import FINETUNE_RECIPES, FinetuneRecipe
from openjepa.evaluation.probes.mixup import mix_batch
from openjepa.evaluation.probes.ridge import r_squared, ridge_regression, solve_ridge
from openjepa.evaluation.settings import LabeledData
from openjepa.evaluation.suites import SUITES
from openjepa.evaluation.tasks import scenes as rendered
from openjepa.interop.pretrained import PretrainedEncoder, untrained_encoder
from openjepa.nn.pooling import AttentivePool
from openjepa.training.checkpoint import list_checkpoints
from openjepa.training.config import OnlineProbe, Pretrain
from openjepa.training.log import read_metrics
from tests.conftest import CPU, METHODS, MODALITIES, replace

COLOURS = replace(MODALITIES["image"], size=(16, 16))


def marked(count: int, seed: int) -> ImageArray:
    """Noise, one patch of which is a stripe or a column: which is the class, where does not matter."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(100, 156, (count, 3, 16, 16), generator=generator, dtype=torch.uint8)
    label = torch.randint(0, 2, (count,), generator=generator)
    for image, kind, place in zip(images, label, torch.randint(0, 16, (count,), generator=generator), strict=True):
        row, column = divmod(int(place), 4)
        patch = image[:, 4 * row : 4 * row + 4, 4 * column : 4 * column + 4]
        patch[:, ::2] = 255
        patch[:, 1::2] = 0
        if kind:
            patch.copy_(patch.mT.clone())
    return ImageArray(COLOURS, images, label, f"marked-{seed}")


def pixels() -> PretrainedEncoder:
    """An encoder that gives back its patches."""
    return PretrainedEncoder("patches", COLOURS, torch.nn.Identity(), lambda view: (COLOURS.tokens(view).x,))


def test_attention_finds_the_patch_that_says_the_class():
    train, test = marked(600, 0), marked(200, 1)
    rows = torch.arange(600)
    found = attentive_probe(
        DatasetEncoder(pixels(), train, CPU), DatasetEncoder(pixels(), test, CPU), (rows, train.label),
        torch.arange(200), 2,
        sweep=(SweepPoint(1e-3, 0.01), SweepPoint(1e-9, 0.01)), epochs=20,
    )  # fmt: skip
    assert found.head.lr == 1e-3  # the other head stands still
    assert float((found.predicted == test.label).float().mean()) > 0.9


def test_attentive_pooling_does_not_depend_on_the_order_of_tokens():
    pool, tokens = AttentivePool(32, 4), torch.randn(3, 10, 32)
    torch.testing.assert_close(pool(tokens), pool(tokens[:, torch.randperm(10)]), atol=1e-6, rtol=1e-5)


def test_attentive_pooling_is_cross_attention_with_one_query():
    pool, tokens = AttentivePool(32, 4), torch.randn(3, 10, 32)
    for parameter in pool.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    k, v = pool.kv(pool.norm1(tokens)).view(3, 10, 2, 4, 8).permute(2, 0, 3, 1, 4)
    q = pool.q(pool.query).view(1, 1, 4, 8).transpose(1, 2).expand(3, -1, -1, -1)
    pooled = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(1)
    x = pool.query + pool.proj(pooled)[:, None]
    torch.testing.assert_close(pool(tokens), (x + pool.mlp(pool.norm2(x)))[:, 0], atol=1e-4, rtol=1e-4)


def test_a_patchs_depth_and_shape_are_those_of_its_pixels():
    scenes = render(6, (32, 32), seed=2)
    found = patch_labels(scenes, (8, 8))
    for scene, row, column in [(0, 0, 0), (3, 4, 5), (5, 7, 2)]:
        cell = (scene, slice(4 * row, 4 * row + 4), slice(4 * column, 4 * column + 4))
        assert float(found.depth[scene, 8 * row + column]) == pytest.approx(float(scenes.depth[cell].mean()), rel=1e-5)
        solid = float((scenes.instance[cell] > 0).float().mean()) > 0.5
        assert int(found.shape[scene, 8 * row + column]) == (int(scenes.kind[scene]) // 6 + 1 if solid else 0)


def test_a_patch_on_an_object_points_to_the_center_of_the_objects_box():
    scenes = render(6, (32, 48), seed=2)
    found = patch_labels(scenes, (8, 12))
    assert torch.equal(found.center.isnan().any(-1), found.shape == 0)
    for scene, patch in torch.nonzero(found.shape)[::7].tolist():
        row, column = divmod(patch, 12)
        cell = scenes.instance[scene, 4 * row : 4 * row + 4, 4 * column : 4 * column + 4]
        y, x = torch.nonzero(scenes.instance[scene] == cell[cell > 0].mode().values, as_tuple=True)
        center = torch.stack([(x.min() + x.max() + 1) / 2 / 48, (y.min() + y.max() + 1) / 2 / 32])
        here = torch.tensor([(4 * column + 2) / 48, (4 * row + 2) / 32])
        torch.testing.assert_close(found.center[scene, patch], center - here)


def test_ridge_with_fewer_samples_than_features_is_the_same():
    z, y = torch.randn(9, 12, dtype=torch.float64), torch.randn(9, dtype=torch.float64)
    plain = torch.linalg.solve(z.T @ z / 9 + 0.1 * torch.eye(12, dtype=torch.float64), z.T @ y / 9)
    torch.testing.assert_close(solve_ridge(z, y, 0.1), plain)


def test_ridge_is_scikit_learns():
    linear_model = pytest.importorskip("sklearn.linear_model", reason="scikit-learn is the oracle here")
    x = torch.randn(500, 5, generator=torch.Generator().manual_seed(0))
    y = x @ torch.tensor([1.0, -2.0, 0.5, 0.0, 3.0]) + 4
    theirs = linear_model.Ridge(alpha=1e-5 * 500).fit(((x - x.mean(0)) / x.std(0)).numpy(), y.numpy())
    expected = torch.from_numpy(theirs.predict(((x - x.mean(0)) / x.std(0)).numpy()))
    torch.testing.assert_close(ridge_regression(x, y, 0)(x), expected.float(), atol=1e-4, rtol=1e-4)


def test_overlap_and_explained_variance_on_what_is_known():
    truth, predicted = torch.tensor([0, 0, 1, 1, 2]), torch.tensor([0, 1, 1, 1, 2])
    tables = [torch.bincount(truth * 4 + other, minlength=16).double() for other in (truth, predicted)]
    torch.testing.assert_close(mean_iou(torch.stack(tables)), torch.tensor([1, (1 / 2 + 2 / 3 + 1) / 3]).double())
    y = torch.tensor([1.0, 2.0, 6.0])
    assert r_squared(y, y) == 1 and r_squared(y.mean().expand(3), y) == 0


def test_patches_that_hold_the_answer_are_read():
    scenes = render(60, (32, 32), seed=4)
    asked = patch_labels(scenes, (8, 8))
    shape, center = torch.nn.functional.one_hot(asked.shape, 4).float(), asked.center.nan_to_num()
    x = torch.cat([asked.depth[..., None], shape, center], -1).flatten(0, 1)
    split = [(x[rows], PatchLabels(*(part[scene] for part in asked))) for rows, scene in (
        (slice(0, 40 * 64), slice(0, 40)), (slice(40 * 64, None), slice(40, 60)))]  # fmt: skip
    scores = {score.metric: score for score in measure_dense("labels", split[0], split[1])}
    assert all(scores[f"{label} linear"].value > 0.99 for label in ("depth", "shape", "center"))
    assert scores["shape knn"].value > 0.99
    assert all(score.low <= score.value <= score.high for score in scores.values())


def test_features_that_say_nothing_know_no_depth_and_no_center():
    scenes = render(60, (32, 32), seed=4)
    x, labels = torch.randn(60 * 64, 7, generator=torch.Generator().manual_seed(0)), patch_labels(scenes, (8, 8))
    split = [(x[rows], PatchLabels(*(part[scene] for part in labels))) for rows, scene in (
        (slice(0, 40 * 64), slice(0, 40)), (slice(40 * 64, None), slice(40, 60)))]  # fmt: skip
    scores = {score.metric: score.value for score in measure_dense("noise", split[0], split[1])}
    assert scores["depth linear"] < 0.1 and scores["center linear"] < 0.1 and scores["shape linear"] < 0.3


def test_a_suite_goes_on_where_it_stopped(tiny, photos, tmp_path, monkeypatch, capsys):
    pretrain(tiny)
    monkeypatch.setattr(rendered, "SCENES", (60, 30))
    monkeypatch.setattr(dense, "DENSE_SCENES", (40, 20))
    tasks = SUITES["small"]
    monkeypatch.setitem(tasks, "cifar10", tasks["cifar10"]._replace(shots=(1.0, 2.0)))
    (tmp_path / "cifar").symlink_to(photos)
    settings = Suite(run=str(tiny.out), folders=(f"cifar10={tmp_path / 'cifar'}",), device="cpu", precision="fp32")
    measured, seen = suite_command.measure_and_publish, []

    def dying(compared, asked, out, pixels):
        seen.append(asked.data.name)
        if len(seen) == 3:
            raise KeyboardInterrupt
        return measured(compared, asked, out, pixels)

    monkeypatch.setattr(suite_command, "measure_and_publish", dying)
    with pytest.raises(KeyboardInterrupt):
        suite(settings)
    scores = suite(settings)
    assert seen == ["cifar", "scenes-count", "scenes-distance", "scenes-distance", "scenes-kind"]
    assert "cifar10: already measured, skipped" in capsys.readouterr().out
    assert {each.metric for each in scores["cifar10"]} == {"logistic", "linear", "kNN", "1 a class", "2 a class"}
    table = (tiny.out / "suite" / "small.md").read_text().split("## scenes-patches")[1]
    assert all(f"| {name} |" in table for name in ("this encoder", "before training", "raw pixels"))
    assert json.loads((tiny.out / "suite" / "cifar10.json").read_text())["about"]["fingerprint"]
    assert (tiny.out / "suite" / "cifar10" / "cifar-labels.png").exists()


def test_a_suite_without_its_folders_says_what_to_give(tiny, capsys):
    pretrain(tiny)
    assert suite(Suite(run=str(tiny.out), suite="paper", device="cpu")) == {}
    assert "give --folders clevr-dist=FOLDER" in capsys.readouterr().err
    with pytest.raises(UserError, match="write NAME=FOLDER"):
        suite(Suite(run=str(tiny.out), folders=("cifar=x",), device="cpu"))


def test_an_attentive_probe_stands_beside_the_others(tiny, photos, monkeypatch):
    pretrain(tiny)
    monkeypatch.setattr(attentive, "EPOCHS", 1)
    data = LabeledData((str(photos),))
    scores = probe(Probe(run=str(tiny.out), data=data, probes=("attentive", "knn"), device="cpu", precision="fp32"))
    assert [each.metric for each in scores] == ["attentive", "kNN", "attentive", "kNN", "kNN"]


def test_a_run_is_the_same_with_probes_and_without(tiny, photos):
    plain = replace(tiny, out=tiny.out.with_name("plain"))
    probed = replace(tiny, online_probe=OnlineProbe((str(photos),), every=5, samples=40))
    for each in (plain, probed):
        pretrain(each)
    one, other = (
        load_file(list_checkpoints(each.out / "checkpoints")[0] / "model.safetensors") for each in (plain, probed)
    )
    assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)
    seen = {row["step"]: row["online_knn"] for row in read_metrics(probed.out / "metrics.jsonl") if "online_knn" in row}
    assert list(seen) == [5, 10, 12] and all(0 <= value <= 1 for value in seen.values())
    strip = lambda out: [row for row in read_metrics(out / "metrics.jsonl") if "loss" in row]  # noqa: E731
    assert [row["loss"] for row in strip(plain.out)] == [row["loss"] for row in strip(probed.out)]


def test_fine_tuning_learns_and_gives_the_weights_back(monkeypatch):
    train, test = marked(300, 0), marked(100, 1)
    this = untrained_encoder(Pretrain(data=COLOURS, method=METHODS["released"]))
    before = {name: value.clone() for name, value in this.network.state_dict().items()}
    recipe = FinetuneRecipe(epochs=25, batch_size=50, lr=2e-3, mixup=0.0, cutmix=0.0, drop_path=0.0, layer_decay=1.0)
    train.config = replace(COLOURS, crop_scale=(1.0, 1.0))
    predicted = finetune_probe(
        DatasetEncoder(this, train, CPU), DatasetEncoder(this, test, CPU), (torch.arange(300), train.label),
        torch.arange(100), 2, recipe
    )  # fmt: skip
    assert float((predicted == test.label).float().mean()) > 0.8
    assert all(torch.equal(value, before[name]) for name, value in this.network.state_dict().items())
    assert not any(parameter.requires_grad for parameter in this.network.parameters())


def test_rates_fall_with_depth():
    this = untrained_encoder(
        Pretrain(
            data=COLOURS, method=replace(METHODS["released"], encoder=replace(METHODS["released"].encoder, depth=4))
        )
    )
    model = FinetuneClassifier(this, 48, 2)
    shares = {
        id(group["params"][0]): group["share"] for group in layerwise_groups(model, FinetuneRecipe(layer_decay=0.5))
    }
    of = {name: shares[id(parameter)] for name, parameter in model.named_parameters()}
    assert of["linear.weight"] == of["network.norm.weight"] == 1
    assert of["network.blocks.3.mlp.fc1.weight"] == 0.5 and of["network.blocks.0.attn.qkv.bias"] == 0.5**4
    assert of["network.patch_embed.proj.weight"] == 0.5**5


def test_paths_are_dropped_as_often_as_asked_and_the_mean_stays():
    this = untrained_encoder(
        Pretrain(
            data=COLOURS, method=replace(METHODS["released"], encoder=replace(METHODS["released"].encoder, depth=2))
        )
    )
    part, seen = this.network.blocks[1].mlp, []
    x = torch.ones(4000, 1, 48)
    with torch.no_grad():
        whole = part(x)
        with drop_paths(this.network, 0.25, torch.Generator().manual_seed(0)):
            seen = part(x)
    gone = (seen == 0).all(2).all(1).float().mean()
    assert float(gone) == pytest.approx(0.25, abs=0.03) and torch.equal(part(x), whole)
    torch.testing.assert_close(seen.mean(0), whole.mean(0), atol=0.05 * float(whole.abs().max()), rtol=0)


@pytest.mark.parametrize("kind", ["mixup", "cutmix"])
def test_labels_are_mixed_in_the_shares_of_the_pictures(kind):
    view = torch.zeros(2, 1, 20, 20, dtype=torch.uint8)
    view[1] = 200
    recipe = FinetuneRecipe(mixup=float(kind == "mixup"), cutmix=float(kind == "cutmix"))
    for seed in range(5):
        mixed, truth = mix_batch(view, torch.eye(2), recipe, torch.Generator().manual_seed(seed))
        assert float(mixed[0].float().mean()) / 200 == pytest.approx(float(truth[0, 1]), abs=0.01)
        assert torch.allclose(truth.sum(1), torch.ones(2))


def test_fine_tuning_on_few_labels_is_measured_over_draws(tiny, photos, monkeypatch):
    pretrain(tiny)
    few = FinetuneRecipe(epochs=1, batch_size=8, mixup=0.0, cutmix=0.0)
    monkeypatch.setitem(FINETUNE_RECIPES, "lowshot", few)
    seen, fit = [], fit_classifier
    monkeypatch.setattr(finetune, "fit_classifier", lambda *given: (seen.append(given[2].tolist()), fit(*given)))
    asked = Probe(
        run=str(tiny.out), data=LabeledData((str(photos),)), probes=("finetune",), finetune="lowshot", shots=(2.0, 0.1),
        repeats=2, baselines=False, device="cpu", precision="fp32",
    )  # fmt: skip
    scores = probe(asked)
    assert [each.metric for each in scores] == ["2 a class finetune", "10 % of labels finetune"]
    assert all(len(each.chosen["draws"]) == 2 for each in scores)
    assert len(seen) == 4 and seen[0] != seen[1] and len(seen[0]) == 2 * 3
