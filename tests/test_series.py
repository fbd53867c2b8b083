"""Commands work on a modality that is not images: time series in one .npy file, from training to export."""

import csv
import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import openjepa
from openjepa.cli.main import main
from openjepa.cli.pretrain import pretrain
from openjepa.core.capabilities import Baselines, Exports, Measures, Reads, Renders, require
from openjepa.core.errors import UserError
from openjepa.evaluation.features import baseline_features, baselines_of, raw_features
from openjepa.evaluation.index import open_index
from openjepa.masking.random import Random
from openjepa.nn.predictor import PredictorConfig
from openjepa.nn.vit import ViTConfig
from openjepa.viz.thumbnails import thumbnail
from tests.conftest import JEPA, MODALITIES, Optim, Pretrain, Series, replace

COUNT, LENGTH = 48, 64
SMALL = JEPA(ViTConfig(dim=48, depth=2, num_heads=2), PredictorConfig(dim=24, depth=1))


def write_signals(file, count=COUNT):
    """Write random walks, each once more with a little noise."""
    rng = np.random.default_rng(0)
    walks = rng.normal(size=(count // 2, LENGTH)).cumsum(1).repeat(2, 0)
    noise = rng.normal(size=(count, LENGTH)) * 0.02 * (np.arange(count) % 2)[:, None]
    np.save(file, (walks + noise)[:, None].astype(np.float32))
    return file


@pytest.fixture(scope="module")
def signals(tmp_path_factory):
    return write_signals(tmp_path_factory.mktemp("signals") / "signals.npy")


@pytest.fixture(scope="module")
def run(signals):
    return pretrain(
        Pretrain(
            Series(root=(str(signals),), length=LENGTH, window=8),
            SMALL, Random(), Optim(warmup=0.1), steps=3, batch_size=16, device="cpu", precision="fp32",
            threads=1, workers=0, log_every=1, out=signals.parent / "run", report=False,
        )
    )  # fmt: skip


@pytest.fixture(scope="module")
def index(run, signals):
    out = run.parent / "features.safetensors"
    assert main(["embed", str(run), str(signals), "--out", str(out), "--device", "cpu", "--precision", "fp32"]) == 0
    return out


def test_a_row_of_an_index_is_one_signal_of_the_file(run, signals, index):
    found = open_index(index)
    assert found.files == [f"{signals}#{row}" for row in range(COUNT)]
    assert np.isfinite(found.features).all()  # signals without a label are not taken for undecodable ones
    whole = np.load(signals)
    own = openjepa.load(run)
    torch.testing.assert_close(own.features(whole), torch.from_numpy(np.array(found.features)))
    torch.testing.assert_close(own.features(f"{signals}#17"), own.features(whole[17]))


def test_another_length_than_trained_gives_other_tokens(run):
    own, longer = openjepa.load(run), np.random.default_rng(0).normal(size=(1, 96))
    assert own.features(longer, "patches", size=96).shape == (1, 12, 48)
    assert own.predict(longer, range(6), [6, 7]).shape == (1, 2, 48)


@pytest.mark.parametrize(
    ("source", "sentence"),
    [
        ("gone.npy", "gone.npy is not a file: give the path of a signal"),
        ("FILE", r"has 48 windows: name one, from .*signals.npy#0 to .*#47"),
        ("FILE#48", r"has 48 windows"),
        (np.zeros((2, 64)), r"a signal must have shape \(1, 64 or more\), got \(2, 64\)"),
        (3, "a int is not a signal"),
        ([], "no sample was given"),
    ],
)
def test_anything_else_than_a_signal_is_an_error(run, signals, source, sentence):
    source = source.replace("FILE", str(signals)) if isinstance(source, str) else source
    with pytest.raises(UserError, match=sentence):
        openjepa.load(run).features(source)


def test_search_finds_the_noisy_copy_by_row_and_by_file(index, signals, tmp_path, capsys):
    for number, query in enumerate(("row:16", f"{signals}#16")):
        out = tmp_path / f"hits{number}"
        assert main(["search", str(index), query, "--count", "5", "--out", str(out)]) == 0
        said = capsys.readouterr().out
        assert "nearest of 48 samples" in " ".join(said.split()) and "image" not in said.replace(str(tmp_path), "")
        first = next(line for line in said.splitlines() if line.startswith("1\t"))
        assert "\t17\t" in first
        assert out.with_suffix(".png").is_file()
        page = out.with_suffix(".html").read_text()
        assert "48 samples" in page and page.count("data:image/jpeg") > 5
    np.save(tmp_path / "one.npy", np.load(signals)[16:17])
    assert main(["search", str(index), str(tmp_path / "one.npy"), "--count", "2", "--no-page"]) == 0
    assert "\t16\t" in capsys.readouterr().out


def test_search_with_a_box_names_the_capability_that_is_missing(index, capsys):
    assert main(["search", str(index), "row:16", "--box", "0", "0", "0.5", "1"]) == 1
    said = capsys.readouterr().err
    assert "series cannot be used by jepa search --box: its class needs the capability PatchGrid (grid, p" in said


def test_duplicates_are_the_noisy_copies(index, tmp_path, capsys):
    assert main(["duplicates", str(index), "--threshold", "0.8", "--out", str(tmp_path / "same")]) == 0
    assert "samples are redundant" in capsys.readouterr().out
    rows = list(csv.DictReader((tmp_path / "same.csv").open()))
    assert rows and all(row["file"].endswith(f"#{row['row']}") for row in rows)
    assert (tmp_path / "same.png").is_file()


def test_clusters_are_listed_and_drawn(index, tmp_path, capsys):
    assert main(["cluster", str(index), "--clusters", "4", "--out", str(tmp_path / "groups")]) == 0
    assert "samples" in capsys.readouterr().out
    assert len(list(csv.DictReader((tmp_path / "groups.csv").open()))) == COUNT
    assert (tmp_path / "groups.html").read_text().count("data:image/jpeg") > COUNT // 2


def test_a_modality_that_draws_nothing_gets_tables_without_pictures(index, tmp_path, capsys, monkeypatch):
    parts = {name: value for name, value in vars(Series).items() if name not in ("picture", "__dict__", "__weakref__")}
    silent = type("Silent", (), parts)()
    monkeypatch.setattr("openjepa.evaluation.index.modality_from_text", lambda text: silent)
    for number, command in enumerate((["search", str(index), "row:3"], ["duplicates", str(index)])):
        assert main([*command, "--out", str(tmp_path / str(number))]) == 0
        assert "no picture  silent cannot be drawn by jepa" in capsys.readouterr().out
    assert not (tmp_path / "0.png").exists() and not (tmp_path / "0.html").exists()
    assert main(["cluster", str(index), "--clusters", "3", "--out", str(tmp_path / "2")]) == 0
    assert (tmp_path / "2.csv").exists() and not (tmp_path / "2.html").exists()


def test_the_report_draws_what_signals_allow(run, tmp_path):
    assert main(["report", str(run), "--out", str(tmp_path / "report.html")]) == 0
    page = (tmp_path / "report.html").read_text()
    for name in ("features", "neighbors", "spectrum", "curves"):
        assert f'id="{name}"' in page
    assert 'id="masks"' not in page and "samples per second" in page
    assert "64 time steps in windows of 8" in page and "jepa export" in page


def test_figures_of_patches_name_the_capability_that_is_missing(run, tmp_path, capsys):
    for arguments in (["show", "masks"], ["show", "similarity"], ["show", "prediction"], ["explore"]):
        assert main([*arguments, str(run)]) == 1
        assert f"series cannot be used by jepa {' '.join(arguments)}" in capsys.readouterr().err
    assert main(["show", "features", str(run), "--out", str(tmp_path / "f.png"), "--no-page"]) == 0
    assert main(["decoder", "train", str(run)]) == 1
    assert "series cannot be decoded by jepa decoder: its class needs the capability Inverts" in capsys.readouterr().err


@pytest.mark.parametrize("form", ["safetensors", "torch"])
def test_exports_give_the_same_features(run, signals, tmp_path, form):
    out = tmp_path / form
    assert main(["export", str(run), "--format", form, "--out", str(out)]) == 0
    own = openjepa.load(run)
    view = torch.stack([own.transform(f"{signals}#{row}") for row in range(3)])
    if form == "safetensors":
        assert load_file(out / "encoder.safetensors")
        torch.testing.assert_close(openjepa.load(out).features(view), own.features(view))
    else:
        program = torch.export.load(out / "model.pt2").module()
        torch.testing.assert_close(program(view)[1], own.features(view), atol=1e-4, rtol=1e-4)
        assert program(torch.zeros(1, 1, 2 * LENGTH))[0].shape == (1, 2 * LENGTH // 8, 48)
    card = (out / "README.md").read_text()
    assert "Input: series, 64 time steps in windows of 8" in card and "image" not in card.lower()


def test_an_image_format_refuses_signals(run, tmp_path, capsys):
    for form in ("hf", "timm", "official"):
        assert main(["export", str(run), "--format", form, "--out", str(tmp_path / form)]) == 1
        assert "takes images, this encoder takes series: try --format safetensors or torch" in capsys.readouterr().err


def test_bench_counts_samples(signals, tmp_path, capsys):
    from openjepa.cli.bench import Bench, bench

    data = Series(root=(str(signals),), length=LENGTH, window=8)
    found = bench(Bench(data, SMALL, Random(), batch_size=8, count=3, threads=1, device="cpu"))
    assert found["samples_per_second"] > 0
    said = capsys.readouterr().out
    assert "samples/s" in said and "GFLOP per sample" in said


def test_baselines_are_raw_windows_and_magnitudes_that_do_not_depend_on_the_phase(tmp_path):
    phase = np.arange(COUNT)[:, None, None]
    np.save(tmp_path / "sines.npy", np.sin(2 * np.pi * 3 * np.arange(LENGTH) / LENGTH + phase).astype(np.float32))
    data = Series(root=(str(tmp_path / "sines.npy"),), length=LENGTH, window=8)
    samples = data.dataset(data.listing())
    names = baselines_of(data)
    assert list(names) == ["raw windows", "Fourier magnitudes"] and isinstance(data, Baselines)
    assert list(baselines_of(MODALITIES["image"])) == ["raw pixels"]
    raw, magnitudes = (baseline_features(samples, each).kinds["last"] for each in names.values())
    assert raw.shape == (COUNT, LENGTH) and magnitudes.shape == (COUNT, LENGTH // 2 + 1)
    assert raw_features(samples).kinds["last"].shape == (COUNT, LENGTH)
    assert (raw[0] - raw[1]).norm() > 0.5 * raw[0].norm()
    assert (magnitudes[0] - magnitudes[1]).norm() < 0.05 * magnitudes[0].norm()


def test_an_image_has_every_capability_that_series_have_and_measures_its_statistics():
    for capability in (Reads, Renders, Exports):
        for modality in MODALITIES.values():
            assert require(modality, capability, "a test") is modality
    assert isinstance(MODALITIES["image"], Measures)
    assert not isinstance(MODALITIES["series"], Measures)


def test_automatic_settings_take_channels_and_length_from_the_file(tmp_path):
    from openjepa.recipes.auto import choose_config

    np.save(tmp_path / "eeg.npy", np.zeros((9, 4, 100), np.float32))
    config, reasons = choose_config((str(tmp_path / "eeg.npy"),), modality="series")
    assert (config.data.channels, config.data.length, config.data.window) == (4, 96, 8)
    assert "9 signals of 4 channels and 100 time steps: crops of 96 time steps" in reasons[0]
    assert len(config.data.dataset(config.data.listing())) == 9


def test_measuring_keeps_statistics_that_are_set():
    data = MODALITIES["image"]
    samples = data.synthetic(16, 0)
    assert data.measure(samples) is data
    measured = replace(data, mean=(), std=()).measure(samples)
    assert len(measured.mean) == 3 and all(0 < value < 1 for value in measured.mean)


def test_a_picture_of_a_signal_rises_where_the_signal_rises():
    data = Series(length=LENGTH, window=8)
    picture = data.picture(torch.linspace(0, 1, LENGTH)[None])
    ink = (picture < 200).any(-1)
    height = [column.nonzero()[0].mean() for column in (ink[:, 20], ink[:, -20])]
    assert picture.dtype == np.uint8 and height[0] > height[1]
    colors = torch.zeros(8, 3)
    colors[3] = torch.tensor([1.0, 0.0, 0.0])
    painted = data.paint(torch.linspace(0, 1, LENGTH)[None], colors)
    red = (painted == (255, 0, 0)).all(-1).any(0).nonzero()[0] / painted.shape[1]
    assert red.min() > 3 / 8 - 0.01 and red.max() < 4 / 8 + 0.01


def test_a_missing_file_is_a_gray_tile(signals, tmp_path):
    data = Series(length=LENGTH, window=8)
    gone = np.asarray(thumbnail(data, str(tmp_path / "gone.npy#3"), 32))
    assert (gone == 128).all() and gone.shape == (32, 32, 3)
    assert thumbnail(data, f"{signals}#3", 32).size == (32, 16)


def test_a_changed_file_is_read_again(tmp_path):
    import os

    data, file = Series(length=LENGTH, window=8), tmp_path / "one.npy"
    for value, time in ((1.0, 1), (2.0, 2)):
        np.save(file, np.full((1, 1, LENGTH), value, np.float32))
        os.utime(file, (time, time))
        assert float(data.read(str(file))[0, 0]) == value


def test_logs_of_earlier_versions_are_read_and_drawn(run, tmp_path):
    from openjepa.cli.show import show
    from openjepa.training.log import read_metrics
    from openjepa.viz.settings import CurvesOptions

    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert all("samples_per_second" in row and "images_per_second" not in row for row in rows)
    old = tmp_path / "old"
    old.mkdir()
    text = "".join(json.dumps(row).replace("samples_per_second", "images_per_second") + "\n" for row in rows)
    (old / "metrics.jsonl").write_text(text)
    assert read_metrics(old / "metrics.jsonl") == rows
    png, page = show(CurvesOptions(runs=(str(old),), out=tmp_path / "curves.png"))
    assert png.is_file() and "throughput" in page.read_text()
