"""Probes against scikit-learn and against what they must give on data whose answer is known."""

import csv
import json
from pathlib import Path

import pytest
import torch
from PIL import Image as Pillow
from safetensors.torch import load_file

from openjepa.cli.pretrain import pretrain
from openjepa.cli.probe import probe
from openjepa.cli.settings import Probe
from openjepa.core.bootstrap import bootstrap_interval
from openjepa.core.errors import UserError
from openjepa.core.rng import CounterRNG
from openjepa.core.types import Score
from openjepa.data.wrappers import ThreadedDataset
from openjepa.evaluation.feature_store import Features
from openjepa.evaluation.features import DatasetEncoder, compute_features, raw_pixel_features
from openjepa.evaluation.label_free import alpha_req, instance_retrieval, lidar, rankme_uncentered, uniformity
from openjepa.evaluation.labeled import split_labeled
from openjepa.evaluation.probes import linear
from openjepa.evaluation.probes.knn import knn_predict
from openjepa.evaluation.probes.linear import LabeledFeatures, feature_batches, fit_heads, linear_probe, sweep_heads
from openjepa.evaluation.probes.linear_heads import schedule_factor, trust_ratio
from openjepa.evaluation.probes.linear_recipes import LinearRecipe
from openjepa.evaluation.probes.logistic import Problem, accuracy, fit_logistic, logistic_probe
from openjepa.evaluation.probes.lowshot import STRENGTH, choose_labeled, lowshot_probe
from openjepa.evaluation.settings import LabeledData, ProbeSettings
from openjepa.evaluation.tasks.clevr import ClevrImages, scene_label
from openjepa.interop.adapters import load_any
from openjepa.interop.pretrained import load_run, untrained_encoder
from openjepa.modalities.image import Image
from openjepa.training.config import Pretrain
from openjepa.viz.scores import curve_groups, draw_label_curve, measure_and_publish
from tests.conftest import CPU, METHODS, MODALITIES, replace

NAMES = ("this encoder", "before training", "raw pixels")


def blobs(count: int = 400, seed: int = 0, classes: int = 4):
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(classes, 6, generator=torch.Generator().manual_seed(9))
    label = torch.randint(0, classes, (count,), generator=generator)
    return centres[label] + torch.randn(count, 6, generator=generator), label


@pytest.mark.parametrize("features", [6, 500])
@pytest.mark.parametrize("strength", [1e-1, 1e-3])
def test_logistic_regression_is_scikit_learns(strength, features):
    """Of fewer samples than features, too, where ours looks in the samples' span alone, from either start."""
    linear_model = pytest.importorskip("sklearn.linear_model", reason="scikit-learn is the oracle here")
    x, y = blobs()
    if features > 6:
        generator = torch.Generator().manual_seed(2)
        x = x @ torch.randn(6, features, generator=generator) + torch.randn(len(x), features, generator=generator)
    ours = fit_logistic(x, y, 4, strength)
    scaled = ((x - x.mean(0)) / x.std(0)).double().numpy()
    theirs = linear_model.LogisticRegression(C=1 / (strength * len(x)), tol=1e-8, max_iter=5000).fit(scaled, y.numpy())
    close = {"atol": 2e-3 if features == 6 else 4e-3, "rtol": 2e-3}  # of largest weights of 0.6 where classes are apart
    torch.testing.assert_close(ours.weight, torch.from_numpy(theirs.coef_).float(), **close)
    problem = Problem.of(x, y, 4)
    again = problem.solve(strength, problem.solve(10 * strength))
    torch.testing.assert_close(again.weight, ours.weight, **close)


def test_neighbours_are_weighted_scikit_learns():
    module = pytest.importorskip("sklearn.neighbors", reason="scikit-learn is the oracle here")
    (x, y), (q, _) = blobs(), blobs(50, 1)
    theirs = module.KNeighborsClassifier(
        20, metric="cosine", weights=lambda d: torch.exp((1 - torch.from_numpy(d)) / 0.07).numpy()
    )
    assert knn_predict(x, y, q, 4).tolist() == theirs.fit(x.numpy(), y.numpy()).predict(q.numpy()).tolist()


def test_logistic_regression_uses_directions_of_little_variance(every_strength):
    """What tells the classes apart may be small beside the rest, as in the features of an untrained encoder."""
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(4000, 64, generator=generator) * torch.logspace(0, -4, 64)
    mixed = hidden @ torch.linalg.qr(torch.randn(64, 64, generator=generator))[0]
    label = (hidden[:, -24:] / torch.logspace(0, -4, 64)[-24:]).sum(1).gt(0).long()
    found = logistic_probe(mixed[:3000], label[:3000], mixed[3000:], 2)
    assert accuracy(found.predicted, label[3000:]) > 0.93


def test_the_minimum_does_not_depend_on_the_start():
    """Nor where the classes can be told apart without an error, and the loss is tiny."""
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(300, 48, generator=generator), torch.randint(0, 4, (300,), generator=generator)
    x[:, :4] += 2 * torch.nn.functional.one_hot(y, 4)
    problem = Problem.of(x, y, 4)
    cold, warm = problem.solve(1e-6), problem.solve(1e-6, problem.solve(1e-4))
    asked = torch.randn(1000, 48, generator=generator)
    assert (cold.predict(asked) == warm.predict(asked)).float().mean() > 0.99


def test_labels_used_in_different_ways_are_different_lines(tmp_path):
    def score(labels: int, **chosen) -> Score:
        return Score("photos", "this encoder", f"{labels} {chosen}", 50, 40, 60, chosen={"labels": labels, **chosen})

    both = [score(10, kind="last"), score(100, kind="last"), score(10, recipe="lowshot"), score(100, recipe="lowshot")]
    assert curve_groups(both) == [("this encoder", "last"), ("this encoder", "lowshot")]
    assert draw_label_curve(both, tmp_path / "curve.png") and draw_label_curve(both[:1], tmp_path / "one.png") is None


def test_one_draw_has_the_interval_of_its_test_images(tiny, photos, tmp_path):
    pretrain(tiny)
    asked = Probe(
        run=str(tiny.out), data=LabeledData((str(photos),)), probes=("lowshot",), shots=(2.0,), repeats=1,
        baselines=False,
        out=tmp_path, device="cpu", precision="fp32",
    )  # fmt: skip
    (score,) = probe(asked)
    assert score.low < score.value < score.high


def test_the_strength_is_chosen_without_the_test_data(monkeypatch, every_strength):
    train, (x, y) = blobs(), blobs(100, 1)
    seen = []
    of = Problem.of

    def spy(features, label, classes):
        seen.append(len(label))
        return of(features, label, classes)

    monkeypatch.setattr(Problem, "of", spy)
    score = accuracy(logistic_probe(*train, x, 4).predicted, y)
    assert seen == [360, 400] and 0.5 < score <= 1


def test_labels_that_mean_nothing_are_learnt_no_better_than_chance(every_strength):
    x, _ = blobs(2000)
    y = torch.randint(0, 4, (2000,), generator=torch.Generator().manual_seed(5))
    predicted = logistic_probe(x[:1000], y[:1000], x[1000:], 4).predicted
    assert accuracy(predicted, y[1000:]) == pytest.approx(0.25, abs=0.05)


def test_a_probe_prints_the_encoder_beside_its_baselines(tiny, photos, capsys):
    pretrain(tiny)
    scores = probe(Probe(run=str(tiny.out), data=LabeledData((str(photos),)), device="cpu", precision="fp32"))
    assert {score.features: score.metric for score in scores} == dict.fromkeys(NAMES, "kNN")
    assert all(0 <= score.low <= score.value <= score.high <= 100 for score in scores)
    said = capsys.readouterr().out
    assert "a random fifth, held out" in said and "raw pixels" in said
    written = json.loads((tiny.out / "probes" / f"{photos.name}.json").read_text())
    assert len(written["scores"]) == 9 and (tiny.out / "probes" / f"{photos.name}.png").exists()
    assert "| class1 | " in (tiny.out / "probes" / f"{photos.name}.md").read_text()


def test_a_test_folder_is_used_and_its_classes_are_matched_by_name(tiny, photos, tmp_path, capsys):
    pretrain(tiny)
    for part, classes in (("train", (0, 1, 2)), ("test", (1, 2))):
        for number in classes:
            (tmp_path / "split" / part).mkdir(parents=True, exist_ok=True)
            (tmp_path / "split" / part / f"class{number}").symlink_to(photos / f"class{number}")
    data = LabeledData((str(tmp_path / "split"),))
    (score,) = probe(Probe(run=str(tiny.out), data=data, probes=("knn",), baselines=False, device="cpu"))
    said = capsys.readouterr()
    assert "96 images to train on, 64 to test (test/)" in said.out and "no images of 1 classes" in said.err
    assert score.value > 20


def test_a_class_that_chance_held_none_of_out_is_named(tmp_path, capsys):
    for name, count in (("many", 99), ("one", 1)):
        (tmp_path / name).mkdir()
        for number in range(count):
            Pillow.new("RGB", (8, 8)).save(tmp_path / name / f"{number}.png")
    said = []
    for seed in range(5):
        test = split_labeled(Image(size=(8, 8), patch=4), LabeledData((str(tmp_path),)), seed).test
        held = any("/one/" in test.source(row) for row in range(len(test)))
        said.append(held)
        assert ("no images of 1 classes, e.g. one" in capsys.readouterr().err) is not held
    assert not all(said)


def test_features_do_not_depend_on_the_batch(tiny, photos):
    pretrain(tiny)
    this = load_any(str(tiny.out / "export"))
    data = this.data.dataset(this.data.listing())
    one, other = (compute_features(this, data, CPU, batch=batch)["last"] for batch in (7, 96))
    torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)
    assert raw_pixel_features(data)["last"].shape == (96, 3 * 32 * 32)


def test_the_export_is_the_target_encoder(tiny):
    pretrain(tiny)
    exported, target, context = (
        load_run(tiny.out / "export"),
        load_run(tiny.out),
        load_run(tiny.out, "context"),
    )
    name = "blocks.0.attn.qkv.weight"
    assert torch.equal(exported.encoder.state_dict()[name], target.encoder.state_dict()[name])
    assert not torch.equal(context.encoder.state_dict()[name], target.encoder.state_dict()[name])


def test_the_untrained_encoder_is_where_the_run_began(tiny):
    pretrain(replace(tiny, steps=1, optim=replace(tiny.optim, lr=1e-12, start_lr=1e-12, final_lr=0.0)))
    after = load_run(tiny.out, "context")
    before = untrained_encoder(after.config)
    torch.testing.assert_close(after.encoder.state_dict(), before.encoder.state_dict(), atol=1e-6, rtol=0)


def test_a_folder_with_one_class_is_refused(tiny, photos):
    pretrain(tiny)
    with pytest.raises(UserError, match="has no labels"):
        probe(Probe(run=str(tiny.out), data=LabeledData((str(photos / "class0"),)), device="cpu"))


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"is not a run: it has no config\.json"):
        load_run(tmp_path)


def test_last4_is_the_normed_output_of_the_last_four_blocks_pooled():
    this = untrained_encoder(replace_method(depth=6))
    view = torch.randint(0, 256, (3, 3, 32, 32), dtype=torch.uint8)
    seen = this.encode(view)
    expected = [x.x.mean(1) for x in this.network(this.data.tokens(view), layers=(2, 3, 4, 5))]
    torch.testing.assert_close(seen.last4, torch.cat(expected, 1))
    torch.testing.assert_close(seen.last, expected[-1])
    assert seen.patches.shape == (3, 64, 48)


def replace_method(**sizes) -> Pretrain:
    method = METHODS["released"]
    return Pretrain(data=MODALITIES["image"], method=replace(method, encoder=replace(method.encoder, **sizes)))


@pytest.fixture
def small_chunks(monkeypatch):
    monkeypatch.setattr("openjepa.evaluation.feature_store.CHUNK_ROWS", 100)


def features_of_scenes(tmp_path, count=250, seed=0, encoder=0):
    """Features on disk, of a few chunks."""
    data = MODALITIES["image"].synthetic(count, seed)
    this = replace(untrained_encoder(replace(replace_method(), seed=encoder)), name="tiny")
    return compute_features(this, data, CPU, ("last", "last4"), tmp_path / "features"), this, data


def test_stored_features_are_those_in_memory_and_are_made_once(tmp_path, monkeypatch, small_chunks):
    stored, this, data = features_of_scenes(tmp_path, 110)
    memory = compute_features(this, data, CPU, ("last", "last4"))
    for kind in ("last", "last4"):
        assert torch.equal(stored[kind], memory[kind])
    assert torch.equal(stored.y, data.label)
    theirs = load_file(tmp_path / "features" / "features.safetensors")
    assert torch.equal(theirs["last"], memory["last"])
    monkeypatch.setattr(type(this), "encode", None)  # asked again, nothing is computed
    assert torch.equal(
        compute_features(this, data, CPU, ("last", "last4"), tmp_path / "features")["last"], memory["last"]
    )


def test_an_interrupted_embedding_goes_on_where_it_stopped(tmp_path, monkeypatch, small_chunks):
    data = MODALITIES["image"].synthetic(250, 0)
    read, first = type(data).read, []

    def dying(self, index, draws):
        if int(index[0]) >= 200 and not first:
            first.append(True)
            raise KeyboardInterrupt
        return read(self, index, draws)

    monkeypatch.setattr(type(data), "read", dying)
    with pytest.raises(KeyboardInterrupt):
        features_of_scenes(tmp_path)
    asked = []
    monkeypatch.setattr(type(data), "read", lambda self, index, draws: asked.append(index) or read(self, index, draws))
    stored, this, _ = features_of_scenes(tmp_path)
    assert torch.cat(asked).tolist() == list(range(200, 250))
    monkeypatch.undo()
    assert torch.equal(stored["last"], compute_features(this, data, CPU)["last"])


def test_features_of_another_encoder_or_of_other_data_are_refused(tmp_path):
    features_of_scenes(tmp_path, 40)
    with pytest.raises(UserError, match="of another encoder"):
        features_of_scenes(tmp_path, 40, encoder=1)
    with pytest.raises(UserError, match="of another data"):
        features_of_scenes(tmp_path, 40, seed=1)


def test_a_feature_file_cut_short_is_refused(tmp_path):
    features_of_scenes(tmp_path, 40)
    file = tmp_path / "features" / "features.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(UserError, match="is truncated"):
        features_of_scenes(tmp_path, 40)


def test_features_that_are_not_finite_are_refused(tmp_path):
    x = torch.ones(4, 3)
    x[2, 1] = float("nan")
    with pytest.raises(UserError, match="are not finite"):
        Features({"last": x}, torch.tensor([0, 1, 0, 1]))["last"]
    assert Features({"last": x}, torch.tensor([0, 1, -1, 1]))["last"].isfinite().all()  # an unlabelled row is not asked


def test_images_beside_class_folders_are_refused(tiny, photos, tmp_path):
    pretrain(tiny)
    for part in ("class0", "class1"):
        (tmp_path / "mixed" / part).mkdir(parents=True)
        for file in (photos / part).iterdir():
            (tmp_path / "mixed" / part / file.name).symlink_to(file)
    (tmp_path / "mixed" / "loose.png").symlink_to(next((photos / "class2").iterdir()))
    with pytest.raises(UserError, match=r"1 images, e\.g\. .*loose\.png, are outside the class folders"):
        probe(Probe(run=str(tiny.out), data=LabeledData((str(tmp_path / "mixed"),)), device="cpu"))


@pytest.mark.parametrize("norm", [False, True])
def test_many_heads_together_are_each_as_if_alone(norm):
    x, y = blobs()
    recipe = LinearRecipe(norms=(norm,), lr_multipliers=(1.0, 0.1), epochs=3, batch_size=64)
    heads = sweep_heads(recipe, ("last",))
    train = LabeledFeatures({"last": x}, y)
    together = trained_heads(train, heads, recipe)
    for number, head in enumerate(heads):
        alone = trained_heads(train, [head], recipe)
        torch.testing.assert_close(together.logits(x)[:, number], alone.logits(x)[:, 0], atol=1e-5, rtol=1e-4)


def trained_heads(train, heads, recipe):
    steps = -(-len(train.label) // recipe.batch_size)
    batches = feature_batches(train, torch.arange(len(train.label)), recipe, 0)
    (group,) = fit_heads(batches, steps, heads, {"last": train.kinds["last"].shape[1]}, 4, recipe)
    return group


def test_a_head_with_batch_norm_is_torchs():
    x, y = blobs()
    recipe = LinearRecipe(norms=(True,), lr_multipliers=(1.0,), weight_decays=(5e-4,), epochs=2, batch_size=50)
    (head,) = sweep_heads(recipe, ("last",))
    train = LabeledFeatures({"last": x}, y)
    group = trained_heads(train, [head], recipe)
    norm, layer = torch.nn.BatchNorm1d(6), torch.nn.Linear(6, 4)
    with torch.no_grad():
        layer.weight.copy_(torch.randn(4, 6, generator=torch.Generator().manual_seed(0)) * 0.01)
        layer.bias.zero_()
    groups = [{"params": layer.parameters(), "weight_decay": 5e-4}, {"params": norm.parameters(), "weight_decay": 0.0}]
    optimizer = torch.optim.SGD(groups, lr=0.1, momentum=0.9, nesterov=True)
    batches = feature_batches(train, torch.arange(len(y)), recipe, 0)
    for epoch in range(2):
        for number, (kinds, label) in enumerate(batches(epoch)):
            for each in optimizer.param_groups:
                each["lr"] = recipe.lr * 50 / 256 * schedule_factor(recipe, epoch, (epoch * 8 + number) / 16)
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(layer(norm(kinds["last"])), label).backward()
            optimizer.step()
    norm.eval()
    torch.testing.assert_close(group.logits(x)[:, 0], layer(norm(x)), atol=1e-4, rtol=1e-3)


def test_larss_step_is_a_thousandth_of_the_weights_length():
    weight, update = torch.randn(3, 4, 5), torch.randn(3, 4, 5)
    scaled = update * trust_ratio(weight, update)
    torch.testing.assert_close(scaled.flatten(1).norm(dim=1), 1e-3 * weight.flatten(1).norm(dim=1))
    assert trust_ratio(torch.zeros(1, 2, 2), update[:1, :2, :2]).item() == 1


def test_the_linear_probe_agrees_with_scikit_learn():
    linear_model = pytest.importorskip("sklearn.linear_model", reason="scikit-learn is the oracle here")
    (x, y), (q, z) = blobs(4000), blobs(4000, 1)
    found = linear_probe(LabeledFeatures({"last": x}, y), LabeledFeatures({"last": q}, z), 4)
    theirs = linear_model.LogisticRegression(max_iter=2000).fit(x.numpy(), y.numpy()).score(q.numpy(), z.numpy())
    assert accuracy(found.predicted, z) == pytest.approx(theirs, abs=0.005)


def test_labels_that_only_the_test_set_knows_are_not_found(every_strength):
    """No leak: whatever a probe looks at, it is not the test data's labels."""
    x, y = torch.randn(2000, 16, generator=torch.Generator().manual_seed(3)), torch.randint(0, 4, (2000,))
    train, test = LabeledFeatures({"last": x[:1000]}, y[:1000]), LabeledFeatures({"last": x[1000:]}, y[1000:])
    answers = {
        "linear": linear_probe(train, test, 4).predicted,
        "logistic": logistic_probe(x[:1000], y[:1000], x[1000:], 4).predicted,
        "kNN": knn_predict(x[:1000], y[:1000], x[1000:], 4),
    }
    for name, predicted in answers.items():
        assert accuracy(predicted, y[1000:]) == pytest.approx(0.25, abs=0.06), name


def test_neighbours_are_those_of_brute_force():
    (x, y), (q, _) = blobs(300), blobs(20, 1)
    cosine = (q / q.norm(dim=1, keepdim=True)) @ (x / x.norm(dim=1, keepdim=True)).T
    for row, predicted in zip(cosine, knn_predict(x, y, q, 4, k=5).tolist(), strict=True):
        votes = torch.zeros(4)
        for place in row.argsort(descending=True)[:5]:
            votes[y[place]] += (row[place] / 0.07).exp()
        assert predicted == int(votes.argmax())


def test_low_shots_take_so_many_of_each_class_and_differ_between_draws():
    x, y = blobs(400)
    one, other = (choose_labeled(y, 4, 5, torch.Generator().manual_seed(seed)) for seed in (0, 1))
    assert y[one].bincount().tolist() == [5, 5, 5, 5] and set(one.tolist()) != set(other.tolist())
    share = choose_labeled(y, 4, 0.1, torch.Generator())
    assert y[share].bincount().tolist() == [round(0.1 * count) for count in y.bincount().tolist()]
    test, truth = blobs(400, 1)

    def answer(rows):
        return fit_logistic(x[rows], y[rows], 4, STRENGTH).predict(test)

    few, many = (lowshot_probe(answer, y, truth, 4, shots) for shots in (1, 50))
    assert len(few) == 5 and sum(draw.accuracy for draw in few) < sum(draw.accuracy for draw in many)


@pytest.mark.parametrize(("shots", "says"), [(0, "got 0"), (1.5, "got 1.5"), (500, "fewer than 500 shots: try")])
def test_impossible_shots_are_refused(shots, says):
    with pytest.raises(UserError, match=says):
        choose_labeled(blobs(400)[1], 4, shots, torch.Generator())


def test_the_interval_covers_the_truth_about_as_often_as_it_says():
    generator = torch.Generator().manual_seed(0)
    hits = 0
    for trial in range(100):
        low, high = bootstrap_interval((torch.rand(200, generator=generator) < 0.7).float(), trial)
        hits += low <= 0.7 <= high
    assert 88 <= hits <= 100


def test_rankme_is_the_formula():
    numpy = pytest.importorskip("numpy")
    x = torch.randn(60, 12, generator=torch.Generator().manual_seed(0)) + 1
    sigma = numpy.linalg.svd(x.double().numpy(), compute_uv=False)
    share = sigma / sigma.sum() + 1e-7
    assert rankme_uncentered(x) == pytest.approx(float(numpy.exp(-(share * numpy.log(share)).sum())), rel=1e-6)
    assert rankme_uncentered(torch.zeros(5, 3)) == 0


def views(samples=200, each=6, width=8, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(samples, 1, width, generator=generator) + torch.randn(samples, each, width, generator=generator)


def test_lidar_is_the_entropy_of_scipys_generalised_eigenvalues():
    linalg = pytest.importorskip("scipy.linalg", reason="scipy is the oracle here")
    z = views().double()
    centre = z.mean(1)
    between = (centre - centre.mean(0)).T @ (centre - centre.mean(0)) / 199
    inner = (z - centre[:, None]).flatten(0, 1)
    within = inner.T @ inner / (200 * 5) + 1e-4 * torch.eye(8)
    values = torch.from_numpy(linalg.eigh(between.numpy(), within.numpy(), eigvals_only=True))
    share = values / values.sum() + 1e-7
    assert lidar(views()) == pytest.approx(float((-(share * share.log()).sum()).exp()), rel=1e-6)


def test_lidar_does_not_see_an_invertible_map_and_rankme_does():
    z, bend = views().double(), torch.randn(8, 8, generator=torch.Generator().manual_seed(1)).double()
    assert lidar(z @ bend, 1e-12) == pytest.approx(lidar(z, 1e-12), rel=1e-5)
    assert abs(rankme_uncentered((z @ bend)[:, 0]) - rankme_uncentered(z[:, 0])) > 0.1


def test_features_that_do_not_differ_have_no_rank():
    assert lidar(torch.ones(20, 4, 8)) == 0
    assert alpha_req(torch.ones(20, 8)) == float("inf")
    with pytest.raises(UserError, match="got 20 and 1"):
        lidar(torch.ones(20, 1, 8))


def test_crops_find_their_sample_unless_features_say_nothing_of_it():
    generator = torch.Generator().manual_seed(0)
    sample = torch.randn(50, 1, 16, generator=generator)
    noise = torch.randn(50, 4, 16, generator=generator)
    assert instance_retrieval(sample + 0.1 * noise) == 1
    assert instance_retrieval(noise) < 0.1 and rankme_uncentered(noise[:, 0]) > 10  # many dimensions, at chance
    assert instance_retrieval(torch.ones(50, 4, 16)) == pytest.approx(1 / 50)


def test_lidar_counts_the_directions_in_which_samples_differ():
    z = views(2000, 10)
    assert lidar(z) == pytest.approx(8, rel=0.02)
    line = torch.randn(500, 1, 1) * torch.ones(1, 1, 8) * 50 + torch.randn(500, 6, 8) * 1e-2
    assert lidar(line) == pytest.approx(1, abs=0.01)


def test_alpha_req_finds_the_exponent():
    values = torch.arange(1, 33).double() ** -1.5
    basis = torch.linalg.qr(torch.randn(500, 32).double() - 0).Q
    basis = torch.linalg.qr(basis - basis.mean(0)).Q
    assert alpha_req(basis * values.sqrt()) == pytest.approx(1.5, abs=1e-6)


def test_uniformity_is_nothing_when_all_are_alike_and_lower_when_spread():
    assert uniformity(torch.ones(50, 4)) == pytest.approx(0, abs=1e-9)
    assert uniformity(torch.randn(500, 64)) < -3


SCENE = {"image_filename": "CLEVR_val_000000.png", "objects": []}


@pytest.mark.parametrize(
    ("depth", "number"),
    [(7.2, 0), (8.0, 0), (8.01, 1), (8.5, 1), (8.7, 2), (9.0, 2), (9.5, 3), (9.6, 4), (10.0, 4), (10.1, 5), (99.0, 5)],
)
def test_clevr_dist_is_the_class_of_the_nearest_object(depth, number):
    scene = {**SCENE, "objects": [{"pixel_coords": [0, 0, value]} for value in (11.5, depth, 120.0)]}
    assert scene_label(scene, "dist") == number


def test_clevr_count_is_the_number_of_objects_less_three():
    for count in range(3, 11):
        assert scene_label({**SCENE, "objects": [{}] * count}, "count") == count - 3
    with pytest.raises(UserError, match="has 2 objects"):
        scene_label({**SCENE, "objects": [{}] * 2}, "count")


def test_a_clevr_folder_is_probed_by_its_scenes(tiny, photos, tmp_path):
    pretrain(tiny)
    files = sorted(photos.rglob("*.png"))
    for part, chosen in (("train", files[:80]), ("val", files[80:])):
        (tmp_path / "CLEVR" / "images" / part).mkdir(parents=True)
        (tmp_path / "CLEVR" / "scenes").mkdir(exist_ok=True)
        entries = []
        for number, file in enumerate(chosen):
            (tmp_path / "CLEVR" / "images" / part / file.name).symlink_to(file)
            objects = [{"pixel_coords": [0, 0, 9.2]}] * (3 + number % 8)
            entries.append({"image_filename": file.name, "objects": objects})
        (tmp_path / "CLEVR" / "scenes" / f"CLEVR_{part}_scenes.json").write_text(json.dumps({"scenes": entries}))
    data = LabeledData((str(tmp_path / "CLEVR"),), "clevr-count", "squash")
    (score,) = probe(Probe(run=str(tiny.out), data=data, probes=("knn",), baselines=False, device="cpu"))
    assert 0 <= score.value <= 100
    with pytest.raises(UserError, match="is not a CLEVR_v1.0 folder"):
        probe(Probe(run=str(tiny.out), data=replace(data, root=(str(photos),)), device="cpu"))


def test_heads_on_crops_learn_and_crops_differ_between_epochs(tmp_path, photos):
    this = untrained_encoder(replace_method())
    data = replace(this.data, root=(str(photos),)).dataset(replace(this.data, root=(str(photos),)).listing())
    seen_in = DatasetEncoder(this, data, CPU).epochs(torch.arange(0, 96, 3), 16, 0, augment=True)
    (first, rows), (again, same) = next(seen_in(0)), next(seen_in(0))
    assert torch.equal(first.last, again.last) and torch.equal(rows, same)
    assert sorted(torch.cat([rows for _, rows in seen_in(1)]).tolist()) == list(range(32))
    assert not torch.equal(first.last, next(seen_in(1))[0].last)
    settings = ProbeSettings(data=LabeledData((str(photos),)), probes=("linear",), augment=True, device="cpu")
    (score,) = measure_and_publish([this], settings, tmp_path, pixels=False)
    assert score.metric == "linear crops" and score.chosen["recipe"] == "default"


def test_marks_without_their_file_count_for_nothing(tmp_path, small_chunks):
    """Who removes a damaged file gets it made again, whole."""
    whole, *_ = features_of_scenes(tmp_path, 110)
    folder = tmp_path / "features"
    kept = whole["last"].clone()
    (folder / "features.safetensors").unlink()
    about = {"encoder": "x", "data": "y", "precision": "fp32", "chunks": [0, 100]}
    (folder / "done-0.json").write_text(json.dumps(about))
    assert torch.equal(features_of_scenes(tmp_path, 110)[0]["last"], kept)


def test_clevrs_two_tasks_are_never_taken_for_each_other(photos, tmp_path):
    (tmp_path / "scenes").mkdir()
    entries = [{"image_filename": "a.png", "objects": [{"pixel_coords": [0, 0, 9.2]}] * 4}]
    (tmp_path / "scenes" / "CLEVR_val_scenes.json").write_text(json.dumps({"scenes": entries}))
    one, other = (ClevrImages(MODALITIES["image"], tmp_path, "val", task) for task in ("count", "dist"))
    assert one.fingerprint != other.fingerprint and (int(one.label[0]), int(other.label[0])) == (1, 3)


def test_a_tilde_is_a_home(tiny, photos, tmp_path, monkeypatch):
    """Unexpanded, train/ and test/ would be pooled, and test images trained on."""
    for part in ("train", "test"):
        (tmp_path / "home" / "data" / part).mkdir(parents=True)
        for number in range(3):
            (tmp_path / "home" / "data" / part / f"class{number}").symlink_to(photos / f"class{number}")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert split_labeled(tiny.data, LabeledData(("~/data",)), 0).how == "test/"


def test_the_context_encoder_of_an_export_is_that_of_the_run(tiny):
    pretrain(tiny)
    view = torch.randint(0, 256, (3, 3, 32, 32), dtype=torch.uint8)
    exported, own, target = (load_run(*each).encode(view).last for each in (
        (tiny.out / "export", "context"), (tiny.out, "context"), (tiny.out / "export",)
    ))  # fmt: skip
    assert torch.equal(exported, own) and not torch.equal(exported, target)
    (tiny.out / "export" / "context_encoder.safetensors").unlink()  # as exports of earlier versions
    with pytest.raises(UserError, match="has no encoder 'context': try --encoder target"):
        load_run(tiny.out / "export", "context")


def test_the_last_four_layers_are_probed_when_asked_for(tiny, photos, tmp_path):
    this = untrained_encoder(replace_method(depth=5))
    settings = ProbeSettings(
        data=LabeledData((str(photos),)), probes=("logistic", "knn"), features="last4", device="cpu"
    )
    scores = measure_and_publish([this], settings, tmp_path, pixels=True)
    assert [each.chosen["kind"] for each in scores] == ["last4", "last4", "last", "last"]


def test_scores_of_other_probes_stay_in_the_file_and_those_of_other_images_do_not(tiny, photos, tmp_path):
    pretrain(tiny)
    data = LabeledData((str(photos),))
    asked = Probe(run=str(tiny.out), data=data, baselines=False, out=tmp_path, device="cpu", precision="fp32")

    def kept(**changes) -> list[str]:
        probe(replace(asked, **changes))
        return [each["metric"] for each in json.loads((tmp_path / f"{photos.name}.json").read_text())["scores"]]

    assert kept(probes=("knn",)) == ["kNN"]
    assert kept(probes=("lowshot",), shots=(2.0,)) == ["kNN", "2 a class"]
    assert kept(probes=("knn",)) == ["2 a class", "kNN"]
    assert kept(probes=("logistic",), seed=1) == ["logistic"]  # another split
    assert kept(probes=("knn",), seed=1, baselines=True) == ["logistic", "kNN", "kNN", "kNN"]
    assert kept(probes=("lowshot",), shots=(2.0,), seed=1) == ["logistic", "kNN", "kNN", "kNN", "2 a class"]
    squashed = replace(data, eval_crop="squash")
    assert kept(probes=("logistic",), seed=1, data=squashed) == ["logistic"]  # another view
    assert kept(probes=("knn",), seed=1, data=squashed, encoder="context") == ["kNN"]  # another encoder
    (tmp_path / f"{photos.name}.json").write_text("{")
    with pytest.raises(UserError, match="is damaged .*: remove it"):
        kept(probes=("knn",))


def test_stored_features_say_which_file_each_row_is_of(tiny, photos, tmp_path):
    pretrain(tiny)
    data = LabeledData((str(photos),))
    asked = Probe(run=str(tiny.out), data=data, probes=("knn",), baselines=False, cache=tmp_path, device="cpu")
    probe(asked)
    indices = sorted(tmp_path.glob("*/index.csv"))
    rows = [row for file in indices for row in csv.DictReader(file.open())]
    assert len(indices) == 2 and len(rows) == 96
    assert {Path(row["file"]) for row in rows} == set(photos.glob("*/*.png"))
    assert all(Path(row["file"]).parent.name == row["class"] for row in rows)


def test_threads_read_what_one_reads(photos):
    image = replace(MODALITIES["image"], root=(str(photos),))
    own = image.dataset(image.listing())
    index = torch.randperm(len(own), generator=torch.Generator().manual_seed(0))
    for draws in (None, CounterRNG.of(0, 0, index.numpy())):
        one, many = own.read(index, draws), ThreadedDataset(own).read(index, draws)
        assert torch.equal(one.views[0], many.views[0]) and torch.equal(one.label, many.label)


def test_a_head_that_diverges_when_trained_again_gives_way_to_the_next_best(monkeypatch):
    """It is trained again on a tenth more data, for which its rate may be too high; so may none be left."""
    x, y = blobs(400)
    train, test, trained = LabeledFeatures({"last": x[:300]}, y[:300]), LabeledFeatures({"last": x[300:]}, y[300:]), []
    fit = fit_heads

    def failing(batches, steps, heads, *rest):
        groups = fit(batches, steps, heads, *rest)
        if len(heads) == 1:
            trained.append(heads[0])
            if len(trained) < 3:
                groups[0].weight.fill_(float("nan"))
        return groups

    monkeypatch.setattr(linear, "fit_heads", failing)
    found = linear_probe(train, test, 4)
    assert len(set(trained)) == 3 and found.head == trained[-1]
    assert (found.predicted == test.label).float().mean() > 0.5
    with pytest.raises(UserError, match="every head of the linear probe diverged"):
        linear_probe(LabeledFeatures({"last": x[:300] * float("nan")}, y[:300]), test, 4)


def test_few_labels_come_from_different_groups():
    """Ten labels a class of 12 groups with 5 samples each are of ten groups; fifteen are of all twelve."""
    groups, y = torch.arange(120) // 5, torch.arange(120) // 60
    for shots, distinct in ((10, 10), (15, 12)):
        chosen = choose_labeled(y, 2, shots, torch.Generator().manual_seed(0), groups)
        for label in (0, 1):
            rows = chosen[y[chosen] == label]
            assert len(rows.unique()) == shots and len(groups[rows].unique()) == distinct
