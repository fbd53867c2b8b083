"""Figures and reports: values against plain references, reproducible bytes, colors, error messages."""

import json
import re
from pathlib import Path

import matplotlib
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image as Pillow

from openjepa.cli.main import main
from openjepa.cli.pretrain import pretrain
from openjepa.cli.report import report
from openjepa.cli.settings import Report, Show
from openjepa.cli.show import FIGURES, show
from openjepa.core.types import Masks
from openjepa.masking.multiblock import MultiBlock
from openjepa.masking.official import Official
from openjepa.masking.random import Random
from openjepa.masking.region import covered_patches
from openjepa.modalities.image import Image
from openjepa.training.config import Pretrain, load_config
from openjepa.viz.canvas import COLOR_MAP, COLORS, ColorScale, colorize, fade, outline
from openjepa.viz.embedding_map import GRID_CELLS, neighbor_agreement, non_overlapping, project_features
from openjepa.viz.features import Basis, foreground_mask
from openjepa.viz.inputs import ImageBatch, evenly_spaced
from openjepa.viz.masks import measure_coverage
from openjepa.viz.neighbors import nearest_rows
from openjepa.viz.prediction_error import nearest_context_patch, nearest_patches, predict_hidden
from openjepa.viz.predictions import denormalize_pixels, prediction_masks
from openjepa.viz.report import write_report_at_end
from openjepa.viz.settings import (
    CurvesOptions,
    FeaturesOptions,
    MapOptions,
    MasksOptions,
    PredictionOptions,
    SimilarityOptions,
    SpectrumOptions,
)
from openjepa.viz.similarity import patch_at, patch_cosines
from openjepa.viz.spectrum import variance_shares
from tests.conftest import METHODS, TINY, replace


def trained(photos, out, method=TINY, **changes):
    """Train a run of a few steps."""
    data = Image(root=(str(photos),), size=(32, 32), patch=4)
    base = Pretrain(
        data, method, steps=4, batch_size=16, device="cpu", precision="fp32", threads=1, workers=0, log_every=2
    )
    return pretrain(replace(base, out=out, report=False, **changes))


@pytest.fixture(scope="module")
def run(photos, tmp_path_factory):
    return trained(photos, tmp_path_factory.mktemp("pictured") / "run")


@pytest.fixture
def x():
    return torch.randn(10, 64, 24, generator=torch.Generator().manual_seed(0))


# masks


def test_coverage_is_the_fraction_of_masks_that_contain_a_patch():
    settings = Pretrain(Image(size=(48, 48), patch=8), masks=Random(mask_ratio=0.75))
    cover = measure_coverage(settings, (6, 6), samples=4096)
    assert cover.context.mean() == pytest.approx(9 / 36, abs=1e-6) and cover.target.mean() == pytest.approx(
        27 / 36, abs=1e-6
    )
    assert np.abs(cover.context - 0.25).max() < 0.04  # every patch equally often


def test_coverage_shows_that_official_masks_never_target_the_last_row_and_column():
    settings = Pretrain(Image(size=(224, 224), patch=16), masks=Official())
    cover = measure_coverage(settings, (14, 14), samples=512)
    assert (cover.target[-1] == 0).all() and (cover.target[:, -1] == 0).all() and (cover.target[:-1, :-1] > 0).all()
    ours = measure_coverage(replace(settings, masks=MultiBlock()), (14, 14), samples=512)
    assert (ours.target > 0).all()


# features


def test_feature_axes_equal_those_of_a_singular_value_decomposition(x):
    basis = Basis.of(x)
    flat = (x - x.mean(0)).reshape(-1, 24).double()
    _, values, axes = torch.linalg.svd(flat, full_matrices=False)
    cosine = (basis.axes.double() * axes[:3].T).sum(0).abs()
    assert cosine.min() > 1 - 1e-6
    assert basis.share == pytest.approx(float(values[:3].square().sum() / values.square().sum()), rel=1e-6)
    colours = basis.colors(x)
    assert colours.min() == 0 and colours.max() == 1 and ((colours > 0) & (colours < 1)).float().mean() > 0.9


def test_feature_colors_do_not_depend_on_the_signs_of_eigenvectors(x, monkeypatch):
    before, eigh = Basis.of(x).colors(x), torch.linalg.eigh
    monkeypatch.setattr(torch.linalg, "eigh", lambda each: (eigh(each)[0], -eigh(each)[1]))
    assert torch.allclose(before, Basis.of(x).colors(x))


def test_feature_colors_ignore_what_all_images_share_at_a_position(x):
    place = torch.randn(1, 64, 24, generator=torch.Generator().manual_seed(1)) * 10
    one, other = Basis.of(x), Basis.of(x + place)
    assert torch.allclose(one.colors(x), other.colors(x + place), atol=1e-3)
    assert Basis.of(x[:3]).mean.shape == (1, 24)  # with few images the mean at a position would be an image


def test_foreground_of_many_images_is_the_rarer_side_at_any_position():
    chance = torch.Generator().manual_seed(0)
    often = torch.full((8, 8), 0.4)
    often[1:-1, 1:-1] = 0.2  # at the border more often than within
    rare = torch.rand(32, 64, generator=chance) < often.flatten()
    x = 0.01 * torch.randn(32, 64, 8, generator=chance)
    x[..., 0] += 5.0 * rare
    for sign in (1, -1):
        assert (foreground_mask(Basis.of(sign * x), sign * x, (8, 8)) == rare).all()


@pytest.mark.parametrize("edge", [1, 2])  # the foreground is most of the picture, or the smaller part
def test_foreground_of_few_images_is_the_side_with_less_of_the_border(edge):
    x = torch.zeros(2, 64, 8)
    inside = torch.zeros(8, 8, dtype=torch.bool)
    inside[edge:-edge, edge:-edge] = True
    x[:, inside.flatten(), 0] = 5.0
    x += 0.01 * torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
    for sign in (1, -1):
        front = foreground_mask(Basis.of(sign * x), sign * x, (8, 8))
        assert (front == inside.flatten()).all()


# similarity


def test_similarity_is_the_cosine_with_one_patch(x):
    place = patch_at(0.3, 0.9, (8, 8))
    assert place == 7 * 8 + 2 and patch_at(1.0, 1.0, (8, 8)) == 63
    found = patch_cosines(x, place)
    for picture, patch in ((0, place), (3, 5), (9, 63)):
        a, b = x[0, place].double(), x[picture, patch].double()
        assert float(found[picture, patch]) == pytest.approx(float(a @ b / a.norm() / b.norm()), abs=1e-6)


# prediction


def plain_errors(method, run, found, mask):
    """Compute the errors of hidden patches with the functions that training uses."""
    from openjepa.core.types import Batch

    batch = Batch((found.view,), torch.arange(len(found.view)))
    targets = method.targets(batch._replace(masks=(mask,))).x
    tokens = run.data.tokens(found.view)
    (context,) = method.context_encoder(tokens.take(mask.context))
    predicted = method.predictor(context, where=tokens.take(mask.target[:, 0]).pos[:, None])[:, 0]
    asked = torch.stack([targets[row, mask.target[row, 0]] for row in range(len(targets))])
    width = run.method.encoder.dim
    asked, predicted = asked[..., :width], predicted[..., :width]
    mean = asked.mean((0, 1))
    variance = ((asked - mean) ** 2).mean()
    return [((guess - asked) ** 2).mean(-1) / variance for guess in (predicted, mean)]


@pytest.mark.parametrize("method", ["released", "averaged", "pixels", "rotary"])
def test_prediction_errors_use_the_training_targets(photos, method):
    from openjepa.viz.inputs import read_images

    run = Pretrain(
        Image(root=(str(photos),), size=(32, 32), patch=4, mean=(0.5,) * 3, std=(0.25,) * 3), METHODS[method]
    )
    net = run.method.build(run.data).eval()
    found = read_images(run.data.root, run.data, 12)
    mask = prediction_masks(PredictionOptions(run="", box=(0.25, 0.25, 0.75, 0.75)), run, found)
    with torch.no_grad():
        plain = plain_errors(net, run, found, mask)
    expected = predict_hidden(net, run, found, mask)
    for one, other in zip(expected.errors, plain, strict=False):
        assert torch.allclose(one, other, rtol=1e-4, atol=1e-6)
    assert float(expected.errors.mean.mean()) == pytest.approx(
        1.0, rel=1e-4
    )  # the mean target has the variance as its error
    assert (expected.pixels is not None) == (method == "pixels")


def test_the_nearest_gallery_patch_of_a_patch_is_itself(x):
    gallery = x.flatten(0, 1)
    near = nearest_patches(gallery[100:140], gallery)
    assert near.tolist() == list(range(100, 140))
    plain = [int(((gallery - each) ** 2).sum(1).argmin()) for each in gallery[:5] + 0.3]
    assert nearest_patches(gallery[:5] + 0.3, gallery).tolist() == plain


def test_the_nearest_context_patch_is_the_nearest_in_space():
    from openjepa.nn.positions import grid_positions

    pos = grid_positions(4, 4)[None]
    mask = Masks(torch.tensor([[0, 3, 12]]), torch.tensor([[[1, 7, 13, 8]]]))
    assert nearest_context_patch(mask, pos).tolist() == [[0, 3, 12, 12]]
    padded = mask._replace(context_valid=torch.tensor([[True, False, True]]))
    assert nearest_context_patch(padded, pos)[0, 1] != 3


def test_predicted_pixels_get_mean_and_contrast_of_the_true_patch():
    truth = 3 * torch.randn(5, 48, generator=torch.Generator().manual_seed(0)) + 2
    shown = denormalize_pixels(F.layer_norm(truth, (48,)) * 7 - 4, truth)
    assert torch.allclose(shown, truth, atol=1e-2)


# map, neighbors, spectrum


def test_neighbor_agreement_on_the_map_equals_plain_loops():
    generator = np.random.default_rng(0)
    at, labels = (
        generator.normal(size=(40, 2)).astype(np.float32),
        tuple("ab"[each] for each in generator.integers(0, 2, 40)),
    )
    share = []
    for row in range(40):
        far = ((at - at[row]) ** 2).sum(1)
        near = [each for each in np.argsort(far) if each != row][:10]
        share += [labels[each] == labels[row] for each in near]
    assert neighbor_agreement(at, labels) == pytest.approx(np.mean(share), abs=1e-9)
    assert neighbor_agreement(at, ("",) * 40) is None


def test_a_map_puts_similar_features_next_to_each_other():
    pytest.importorskip("sklearn", reason="scikit-learn is not installed: pip install 'openjepa[show]'")
    generator = np.random.default_rng(0)
    x = (np.repeat(np.eye(16)[:3] * 8, 20, 0) + generator.normal(size=(60, 16))).astype(np.float32)
    at = project_features(x, "tsne", 0)
    assert neighbor_agreement(at, tuple("abc"[row // 20] for row in range(60))) > 0.9
    assert (at == project_features(x, "tsne", 0)).all()


def test_a_map_draws_at_most_one_thumbnail_per_cell(x):
    at = np.random.default_rng(0).normal(size=(500, 2)).astype(np.float32)
    rows = non_overlapping(at)
    assert len(set(rows)) == len(rows) <= (GRID_CELLS + 2) ** 2 and len(rows) > 50


def test_an_image_is_not_its_own_neighbor(x):
    flat = x.mean(1).numpy()
    near = nearest_rows(flat, [2, 7], 3)
    assert near.shape == (2, 3) and 2 not in near[0] and 7 not in near[1]


def test_the_spectrum_is_the_variance_fraction_of_each_eigenvalue(x):
    flat = x.flatten(0, 1)
    values = np.linalg.eigvalsh(np.cov(flat.double().numpy().T))[::-1]
    assert np.allclose(variance_shares(flat), values / values.sum(), rtol=1e-6)


# colors and tiles


def deuteranope(color: str) -> np.ndarray:
    """Simulate how a deuteranope sees a color (Machado, Oliveira and Fernandes, 2009, table 1)."""
    matrix = np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
    )
    return (matrix @ np.array([int(color[at : at + 2], 16) for at in (1, 3, 5)])).clip(0, 255)


def test_colors_are_distinct_for_deuteranopes():
    seen = [deuteranope(each) for each in COLORS[:7]]
    far = [np.abs(a - b).sum() for number, a in enumerate(seen) for b in seen[:number]]
    assert min(far) > 40
    light = matplotlib.colormaps[COLOR_MAP](np.linspace(0, 1, 64))[:, :3] @ (0.2126, 0.7152, 0.0722)
    assert (np.diff(light) > 0).all()  # lightness alone orders the values


def test_a_box_covers_patches_by_their_centers_or_the_patch_at_its_own_center():
    inside = covered_patches((0.25, 0.5, 0.75, 1.0), (8, 8))
    assert inside[4:, 2:6].all() and inside.sum() == 16
    small = covered_patches((0.26, 0.51, 0.27, 0.52), (8, 8))
    assert small[4, 2] and small.sum() == 1


def test_an_outline_stays_inside_its_patches_and_hidden_patches_are_hatched():
    picture, inside = np.zeros((32, 32, 3), np.uint8), np.zeros((8, 8), bool)
    inside[2:4, 5:8] = True
    framing = outline(picture, inside, 4, "#FF0000").any(-1)
    area = np.kron(inside, np.ones((4, 4))).astype(bool)
    assert framing.sum() == 2 * (8 + 12) - 4 and (area | ~framing).all()
    hatched = fade(picture, inside, 4)
    assert set(np.unique(hatched[~area])) == {190, 226} and (hatched[area] == 0).all()


def test_a_heat_map_clips_values_at_the_ends_of_the_scale():
    picture = colorize(np.array([[-5.0, 0.0], [1.0, 9.0]]), ColorScale("", 0.0, 1.0))
    assert (picture[0, 0] == picture[0, 1]).all() and (picture[1, 0] == picture[1, 1]).all()


def test_unpatchify_restores_the_pixels_of_tokens(photos):
    data = Image(size=(24, 40), patch=8, mean=(0.4, 0.5, 0.6), std=(0.2, 0.25, 0.3))
    view = torch.randint(0, 256, (3, 3, 24, 40), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    assert (data.unpatchify(data.tokens(view).x) == view).all()


# the command


ASKED = {
    "masks": MasksOptions,
    "features": FeaturesOptions,
    "similarity": SimilarityOptions,
    "prediction": PredictionOptions,
    "map": MapOptions,
    "spectrum": SpectrumOptions,
}


OF_OTHER_DATA = {"track", "plan", "value", "levels", "imagine"}  # of clips, of rooms, and of image world models


@pytest.mark.parametrize("kind", sorted(FIGURES.keys() - OF_OTHER_DATA))
def test_a_figure_has_the_same_bytes_twice(kind, run, tmp_path):
    if kind == "map":
        pytest.importorskip("plotly", reason="plotly is not installed: pip install 'openjepa[show]'")
        pytest.importorskip("sklearn", reason="scikit-learn is not installed: pip install 'openjepa[show]'")
    contents = []
    for turn in range(2):
        shared = {"out": tmp_path / f"{turn}.png"}
        extra = {"map": {"count": 30, "layout": "tsne"}, "features": {"foreground": True, "layer": 0}}.get(kind, {})
        settings = (
            CurvesOptions(runs=(str(run),), **shared)
            if kind == "curves"
            else ASKED[kind](run=str(run), **shared, **extra)
        )
        files = show(settings)
        contents.append([re.sub(rb"\d\.html|\d\.png", b"", file.read_bytes()) for file in files])
        assert Pillow.open(files[0]).width > 100
        page = files[-1].read_text()
        assert "http" not in re.sub(r"http://www\.w3\.org/\S+", "", page) or kind == "map"  # the page is self-contained
    assert contents[0] == contents[1]


def test_the_overview_page_contains_every_figure_of_a_run(run, tmp_path):
    files = show(Show(run=str(run), out=tmp_path / "all.png", count=3))
    page = files[-1].read_text()
    for name in ("masks", "coverage", "features", "similarity", "prediction"):
        assert f'<section id="{name}">' in page
    assert len(files) == 6


def test_the_overview_of_an_export_leaves_predictions_out_and_says_so(run, photos, tmp_path, capsys):
    files = show(Show(run=str(run / "export"), images=(str(photos),), out=tmp_path / "all.png"))
    assert "predict" not in files[-1].read_text().split("<main>")[1].replace("the predictor predicts", "")
    assert "prediction left out" in capsys.readouterr().out


@pytest.mark.parametrize("kind", ["hf", "timm"])
def test_weights_of_other_projects_have_encoder_figures_only(kind, run, photos, tmp_path, capsys):
    if kind == "hf":
        pytest.importorskip("transformers", reason="transformers is not installed: pip install 'openjepa[hf]'")
    folder = str(tmp_path / kind)
    assert main(["export", str(run), "--format", kind, "--out", folder]) == 0
    for words in (["features", "--count", "3"], ["similarity"], ["spectrum"]):
        out = tmp_path / f"{words[0]}.png"
        assert main(["show", words[0], folder, str(photos), *words[1:], "--out", str(out)]) == 0 and out.exists()
    for name, said in (("masks", "neither a run nor a recipe"), ("prediction", "is not a run")):
        assert main(["show", name, folder, str(photos)]) == 1
        assert said in capsys.readouterr().err


def test_masks_of_a_recipe_are_drawn_without_training(photos, tmp_path):
    assert main(["show", "masks", "cifar10-minutes", str(photos), "--out", str(tmp_path / "m.png")]) == 0
    assert (tmp_path / "m.png").exists() and (tmp_path / "m-coverage.png").exists() and (tmp_path / "m.html").exists()


@pytest.mark.slow
@pytest.mark.parametrize("method", ["mae", "vicreg"])
def test_other_methods_have_an_overview_and_a_report(method, photos, tmp_path, capsys):
    run = trained(photos, tmp_path / "run", METHODS[method])
    assert main(["show", str(run), "--out", str(tmp_path / "all.png")]) == 0
    assert ("prediction left out" in capsys.readouterr().out) == (method == "vicreg")
    assert main(["report", str(run)]) == 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["prediction", "EXPORT", "PHOTOS"], "has no predictor"),
        (["prediction", "RUN", "--box", "0.9", "0", "0.1", "1"], "invalid box"),
        (["prediction", "RUN", "--box", "0", "0", "1", "1"], "covers the whole image"),
        (["prediction", "RUN", "--size", "64", "64"], "leave --size out"),
        (["similarity", "RUN", "--at", "1.5", "0.5"], "x and y from 0 to 1"),
        (["features", "RUN", "--layer", "12"], "--layer must be -3 to 2, got 12"),
        (["features", "RUN", "--count", "10000"], "1 to 64 in a figure"),
        (["features", "RUN", "--count", "0"], "got 0: try --count 6"),
        (["features", "RUN", "--size", "30", "30"], "try --size 32 32"),
        (["mask", "RUN"], "did you mean jepa show masks"),
        (["curves", "RUN", "RUN"], "given twice"),
        (["features", "RUN", "--out", "there.jpg"], "try --out there.png"),
        (["features", "RUN", "nowhere"], "nowhere does not exist"),
        (["masks", "nothing", "PHOTOS"], "neither a run nor a recipe"),
        (["masks", "cifar10"], "give images"),
        (["map", "RUN", "--count", "20000"], "10 to 10,000"),
        (["spectrum", "RUN", "ONE"], "at least 8 images"),
        (["curves", "EXPORT"], "no metrics.jsonl"),
    ],
)
def test_bad_input_is_one_line_that_says_what_to_type(words, said, run, photos, tmp_path, capsys):
    one = tmp_path / "one.png"
    Pillow.new("RGB", (2, 3), "red").save(one)
    places = {"RUN": str(run), "EXPORT": str(run / "export"), "PHOTOS": str(photos), "ONE": str(one)}
    out = [] if "--out" in words else ["--out", str(tmp_path / "out.png")]
    assert main(["show", *(places.get(each, each) for each in words), *out]) == 1
    error = capsys.readouterr().err.strip()
    assert said in error and error.startswith("jepa: ") and error.count("\n") == 0
    assert not list(tmp_path.glob("out*"))


def test_an_unwritable_folder_is_reported_before_drawing(run, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("openjepa.viz.inputs.os.access", lambda *_: False)
    assert main(["show", "features", str(run), "--out", str(tmp_path / "new" / "f.png")]) == 1
    said = capsys.readouterr()
    assert f"{tmp_path} is not a writable folder: try --out f.png" in said.err and "figure  " not in said.out


def test_a_file_in_place_of_the_output_folder_is_reported(run, tmp_path, capsys):
    (tmp_path / "file").touch()
    assert main(["show", "features", str(run), "--out", str(tmp_path / "file" / "f.png")]) == 1
    said = capsys.readouterr()
    assert f"{tmp_path / 'file'} is not a writable folder" in said.err and "figure  " not in said.out


def test_an_image_smaller_than_a_patch_is_enlarged_and_a_broken_one_is_skipped(run, tmp_path, capsys):
    Pillow.new("RGB", (2, 3), "red").save(tmp_path / "small.png")
    (tmp_path / "broken.png").write_bytes(b"nothing")
    assert main(["show", "features", str(run), str(tmp_path), "--out", str(tmp_path / "f.png")]) == 0
    assert "broken.png cannot be decoded" in capsys.readouterr().err
    (tmp_path / "small.png").unlink()
    assert main(["show", "features", str(run), str(tmp_path / "broken.png"), "--out", str(tmp_path / "g.png")]) == 1
    assert "no image in" in capsys.readouterr().err


# reports


def test_a_run_ends_with_a_self_contained_report(photos, tmp_path):
    run = trained(photos, tmp_path / "run")
    assert not (run / "report.html").exists()
    pretrain(replace(load_config(run), out=run, resume="yes", steps=6, report=True))
    page = (run / "report.html").read_text()
    for name in (
        "curves",
        "probes",
        "masks",
        "features",
        "prediction",
        "neighbors",
        "spectrum",
        "speed",
        "next",
        "settings",
    ):
        assert f'<section id="{name}">' in page, name
    assert "6 of 6 steps at batch size 16 are done" in page and "96 samples" in page
    assert not re.findall(r'(?:src|href)="(?!data:|#)[^"]*"', page) and "http" not in re.sub(
        r"http://www\.w3\.org/\S+", "", page
    )


def test_a_report_of_two_runs_lists_the_settings_that_differ(run, photos, tmp_path):
    other = trained(photos, tmp_path / "other", seed=3)
    page = report(Report(runs=(str(run), str(other)), out=tmp_path / "both.html")).read_text()
    assert "<td>seed</td><td>0</td><td>3</td>" in page and 'id="features-other"' in page
    assert "<td>data.patch</td>" not in page.split('id="settings"')[0]  # equal settings are not listed


def test_a_report_contains_warnings(photos, tmp_path, capsys):
    run = trained(photos, tmp_path / "run")
    rows = [json.dumps({"step": step, "loss": 0.1, "rankme": 1.0}) for step in (1, 2, 3)]
    (run / "metrics.jsonl").write_text("\n".join(rows))
    (run / "skipped.jsonl").write_text(json.dumps({"path": "a.png", "reason": "<b>cut</b> short"}) + "\n")
    page = report(Report(runs=(str(run),), pictures=False)).read_text()
    assert "is collapsing" in page and "1 files could not be decoded" in page and "&lt;b&gt;cut" in page
    assert "is not finished" in page and 'id="features"' not in page


def test_a_report_contains_probes_with_their_baselines(run, photos, tmp_path):
    assert main(["probe", str(run), "--data.root", str(photos), "--probes", "knn"]) == 0
    page = report(Report(runs=(str(run),), out=tmp_path / "r.html", pictures=False)).read_text()
    assert "<td>raw pixels</td>" in page and "<td>before training</td>" in page


def test_a_report_without_the_training_images_says_so(photos, tmp_path):
    import shutil

    shutil.copytree(photos, tmp_path / "photos")
    run = trained(tmp_path / "photos", tmp_path / "run")
    shutil.rmtree(tmp_path / "photos")
    page = report(Report(runs=(str(run),))).read_text()
    assert "could not be drawn" in page and 'id="curves"' in page


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "needs the folder of a run"),
        (["nowhere"], "is not a run"),
        (["RUN", "--out", "r.pdf"], "must end in .html"),
    ],
)
def test_bad_report_arguments_say_what_to_type(words, said, run, capsys):
    assert main(["report", *(str(run) if each == "RUN" else each for each in words)]) == 1
    assert said in capsys.readouterr().err


def test_a_broken_probe_file_fails_neither_the_run_nor_the_rest_of_its_report(photos, tmp_path, capsys):
    run = trained(photos, tmp_path / "run")
    (run / "probes").mkdir()
    (run / "probes" / "x.json").write_text("{")
    page = write_report_at_end(run).read_text()
    assert "x.json is damaged" in page and 'id="curves"' in page and 'id="features"' in page
    assert "“Probes” of the report could not be drawn: " in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("width", [390, 1400])
@pytest.mark.parametrize("dark", [False, True])
def test_a_report_fits_a_phone_and_dark_mode(width, dark, run, tmp_path):
    from tests.browser import browser

    page = report(Report(runs=(str(run),), out=tmp_path / "r.html"))
    with browser(width, dark) as window:
        window.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride",
            {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500},
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        window.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
        window.get(page.as_uri())
        assert window.execute_script("return document.documentElement.scrollWidth") <= width  # no horizontal scrolling
        ink, paper = (
            window.execute_script(f"return getComputedStyle(document.body).{name}")
            for name in ("color", "backgroundColor")
        )
        light = [sum(int(each) for each in re.findall(r"\d+", color)[:3]) for color in (ink, paper)]
        assert abs(light[0] - light[1]) > 400 and (light[0] > light[1]) == dark
        window.find_element("css selector", "summary").click()
        assert "environment.torch" in window.find_element("css selector", "details").text
        assert not window.get_log("browser")


@pytest.mark.slow
def test_a_point_of_the_map_shows_its_image(run, tmp_path):
    pytest.importorskip("umap", reason="umap-learn is not installed: pip install 'openjepa[show]'")
    from selenium.webdriver.support.ui import WebDriverWait

    from tests.browser import browser

    *_, page = show(MapOptions(run=str(run), count=30, out=tmp_path / "map.png"))
    with browser() as window:
        window.get(page.as_uri())
        WebDriverWait(window, 30).until(lambda _: window.find_elements("css selector", "#map-chart .plot-container"))
        box = window.find_element("id", "map-hover")
        assert not box.is_displayed()
        window.execute_script(
            "const chart = document.getElementById('map-chart'); chart.emit('plotly_hover', "
            "{ points: [{ customdata: 3, text: 'three' }], event: { clientX: 100, clientY: 100 } })"
        )
        assert box.is_displayed() and "three" in box.text
        asked = [json.loads(row["message"])["message"] for row in window.get_log("performance")]
        urls = [each["params"]["request"]["url"] for each in asked if each["method"] == "Network.requestWillBeSent"]
        assert all(url.startswith(("file:", "data:", "blob:")) for url in urls)
        assert not [row for row in window.get_log("browser") if row["level"] == "SEVERE"]


def test_shown_images_are_evenly_spaced_and_come_first():
    assert evenly_spaced(10, 3) == [0, 4, 9] and evenly_spaced(10, 99) == list(range(10))
    names = tuple(f"{number}.png" for number in range(10))
    found = ImageBatch(torch.arange(10)[:, None, None, None].byte(), names, ("",) * 10, Image(size=(8, 8), patch=4), 10)
    led = found.move_to_front(3)
    assert led.num_shown == 3 and led.names[:4] == ("0.png", "4.png", "9.png", "1.png") and len(led.names) == 10
    assert led.view.flatten().tolist()[:4] == [0, 4, 9, 1]


def test_files_named_one_by_one_keep_their_order(run, photos):
    from openjepa.viz.inputs import read_images

    files = [str(each) for each in sorted(photos.rglob("*.png"))[:4]]
    turned = (files[2], files[0], files[3])
    assert read_images(turned, load_config(run).data, 10, num_shown=3).names == turned


def test_every_figure_of_a_page_shows_the_same_images(run, photos):
    from openjepa.viz.inputs import load_images
    from openjepa.viz.settings import FigureOptions

    data, asked = load_config(run).data, FigureOptions(run=str(run), images=(str(photos),), count=5)
    names = {load_images(asked, data, company).names[:5] for company in (0, 30, 64)}
    assert len(names) == 1


def test_a_single_image_is_joined_by_the_training_images_and_counted_once(run, photos, tmp_path, capsys):
    own, one = sorted(photos.rglob("*.png"))[0], tmp_path / "one.png"
    Pillow.open(own).transpose(Pillow.Transpose.FLIP_LEFT_RIGHT).save(one)
    assert main(["show", "prediction", str(run), str(own), "--out", str(tmp_path / "o.png")]) == 0
    assert "over 96 images" in capsys.readouterr().out
    assert main(["show", "features", str(run), str(one), "--out", str(tmp_path / "f.png")]) == 0
    assert "over 65 images" in capsys.readouterr().out
    assert main(["show", "prediction", str(run), str(one), "--out", str(tmp_path / "p.png")]) == 0
    assert "over 97 images" in capsys.readouterr().out


PAGE = Path(__file__).parents[1] / "docs" / "reference" / "pictures.md"
COMMANDS = [
    line.split("#")[0].strip() for line in re.findall(r"```bash\n(.*?)```", PAGE.read_text(), re.DOTALL)[0].splitlines()
]
LONG = ("show map", "decode")  # slow: they wait for a compiler, or depend on each other


def typed(command: str) -> list[str]:
    """Shorten a command of the docs."""
    words = command.split()[1:]
    small = ["--steps", "2", "--dim", "48", "--depth", "1", "--num-heads", "2", "--batch-size", "16", "--threads", "1"]
    words = words[: words.index("--budget")] + small if "--budget" in words else words
    words += ["--steps", "2", "--count", "24"] if "measure" in words else []
    return [{"448": "64", "2000": "30"}.get(word, word) for word in words]


@pytest.fixture(scope="module")
def place(run, photos, tmp_path_factory):
    """Make the folder that the docs assume."""
    folder = tmp_path_factory.mktemp("place")
    (folder / "runs").mkdir()
    for name in ("photos", "a", "b"):
        (folder / "runs" / name).symlink_to(run)
    for name in ("photos", "other-photos"):
        (folder / name).symlink_to(photos)
    for name, file in zip(("cat.jpg", "dog.jpg"), sorted(photos.rglob("*.png")), strict=False):
        Pillow.open(file).save(folder / name)
    return folder


@pytest.mark.parametrize(
    "command", [each for each in COMMANDS if "explore" not in each and not any(word in each for word in LONG)]
)
def test_every_command_of_the_docs_works(command, place, monkeypatch):
    monkeypatch.chdir(place)
    assert main(typed(command)) == 0


@pytest.mark.slow
def test_the_slow_commands_of_the_docs_work(place, monkeypatch):
    monkeypatch.chdir(place)
    for command in (each for each in COMMANDS if any(word in each for word in LONG)):
        assert main(typed(command)) == 0, command
