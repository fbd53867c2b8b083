"""Probes against scikit-learn and against what they must give on data whose answer is known."""

import pytest
import torch

from openjepa import runs, weights
from openjepa.device import Place
from openjepa.evaluate import logistic, neighbours
from openjepa.evaluate.embed import embed, raw
from openjepa.evaluate.probing import Labelled, Probe, probe
from openjepa.types import Mistake
from tests.conftest import replace

CPU = Place(torch.device("cpu"), False)


def blobs(count: int = 400, seed: int = 0, classes: int = 4):
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(classes, 6, generator=torch.Generator().manual_seed(9))
    label = torch.randint(0, classes, (count,), generator=generator)
    return centres[label] + torch.randn(count, 6, generator=generator), label


@pytest.mark.parametrize("strength", [1e-1, 1e-3])
def test_logistic_regression_is_scikit_learns(strength):
    linear_model = pytest.importorskip("sklearn.linear_model", reason="scikit-learn is the oracle here")
    x, y = blobs()
    ours = logistic.fit(x, y, 4, strength)
    scaled = ((x - x.mean(0)) / x.std(0)).numpy()
    theirs = linear_model.LogisticRegression(C=1 / (strength * len(x)), tol=1e-8, max_iter=5000).fit(scaled, y.numpy())
    torch.testing.assert_close(ours.weight, torch.from_numpy(theirs.coef_).float(), atol=2e-3, rtol=2e-3)


def test_neighbours_are_weighted_scikit_learns():
    module = pytest.importorskip("sklearn.neighbors", reason="scikit-learn is the oracle here")
    (x, y), (q, _) = blobs(), blobs(50, 1)
    theirs = module.KNeighborsClassifier(
        20, metric="cosine", weights=lambda d: torch.exp((1 - torch.from_numpy(d)) / 0.07).numpy()
    )
    assert neighbours.predict(x, y, q, 4).tolist() == theirs.fit(x.numpy(), y.numpy()).predict(q.numpy()).tolist()


def test_the_strength_is_chosen_without_the_test_data():
    train, (x, y) = blobs(), blobs(100, 1)
    seen = []
    fit = logistic.fit

    def spy(features, label, *rest):
        seen.append(len(label))
        return fit(features, label, *rest)

    logistic.fit = spy
    try:
        score = logistic.probe(train, (x, y), 4)
    finally:
        logistic.fit = fit
    assert set(seen) == {360, 400} and 0.5 < score <= 1


def test_labels_that_mean_nothing_are_learnt_no_better_than_chance():
    x, _ = blobs(2000)
    y = torch.randint(0, 4, (2000,), generator=torch.Generator().manual_seed(5))
    assert logistic.probe((x[:1000], y[:1000]), (x[1000:], y[1000:]), 4) == pytest.approx(0.25, abs=0.05)


def test_a_probe_prints_the_encoder_beside_its_baselines(tiny, photos, capsys):
    runs.pretrain(tiny)
    scores = probe(Probe(tiny.out, Labelled((str(photos),)), device="cpu", precision="fp32"))
    assert [score.features for score in scores] == ["this encoder", "before training", "raw pixels"]
    said = capsys.readouterr().out
    assert "a fifth held out at random" in said and "raw pixels" in said
    assert (tiny.out / "probes.jsonl").exists()


def test_a_test_folder_is_used_and_its_classes_are_matched_by_name(tiny, photos, tmp_path, capsys):
    runs.pretrain(tiny)
    for part, classes in (("train", (0, 1, 2)), ("test", (1, 2))):
        for number in classes:
            (tmp_path / "split" / part).mkdir(parents=True, exist_ok=True)
            (tmp_path / "split" / part / f"class{number}").symlink_to(photos / f"class{number}")
    scores = probe(Probe(tiny.out, Labelled((str(tmp_path / "split"),)), baselines=False, device="cpu"))
    assert "96 images to train on, 64 to test (test/)" in capsys.readouterr().out
    assert scores[0].knn > 0.2


def test_features_do_not_depend_on_the_batch(tiny, photos):
    runs.pretrain(tiny)
    trained = weights.load(tiny.out / "export")
    data = trained.config.data.dataset(trained.config.data.listing())
    one, other = (embed(trained.encoder, trained.config.data, data, CPU, batch)[0] for batch in (7, 96))
    torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)
    assert raw(data)[0].shape == (96, 3 * 32 * 32)


def test_the_export_is_the_target_encoder(tiny):
    runs.pretrain(tiny)
    exported, target, context = (
        weights.load(tiny.out / "export"),
        weights.load(tiny.out),
        weights.load(tiny.out, "context"),
    )
    name = "blocks.0.attn.qkv.weight"
    assert torch.equal(exported.encoder.state_dict()[name], target.encoder.state_dict()[name])
    assert not torch.equal(context.encoder.state_dict()[name], target.encoder.state_dict()[name])


def test_the_untrained_encoder_is_where_the_run_began(tiny):
    runs.pretrain(replace(tiny, steps=1, optim=replace(tiny.optim, lr=1e-12, start_lr=1e-12, final_lr=0.0)))
    trained = weights.load(tiny.out, "context")
    before = weights.untrained(trained.config)
    torch.testing.assert_close(trained.encoder.state_dict(), before.state_dict(), atol=1e-6, rtol=0)


def test_a_folder_with_one_class_is_refused(tiny, photos):
    runs.pretrain(tiny)
    with pytest.raises(Mistake, match="nothing to tell apart"):
        probe(Probe(tiny.out, Labelled((str(photos / "class0"),)), device="cpu"))


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(Mistake, match=r"is not a run: it has no config\.json"):
        weights.load(tmp_path)
