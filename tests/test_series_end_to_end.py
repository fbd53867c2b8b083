"""Series from the command line alone: files to settings, a run, probes, search, pages and an export."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from time import sleep

import numpy as np
import pytest
import torch

from openjepa.cli.main import main
from openjepa.core.errors import UserError
from openjepa.data import series_recordings
from openjepa.data.series_survey import Survey, choose_lengths
from openjepa.data.synthetic.sines import write_sines
from openjepa.data.wrappers import ThreadedDataset
from openjepa.evaluation.labeled import split_labeled
from openjepa.evaluation.settings import LabeledData
from openjepa.evaluation.splits import sample_values
from openjepa.evaluation.tasks.series import STRIDE
from openjepa.recipes.auto import choose_config
from openjepa.recipes.detect import detect_modality
from openjepa.training.config import load_config
from openjepa.training.log import read_metrics
from tests.conftest import Series, replace

FAST = ["--device", "cpu", "--precision", "fp32"]
TRAIN = [*FAST, "--threads", "1", "--workers", "0", "--no-report"]
ROWS = ["this encoder", "before training", "raw windows", "Fourier magnitudes"]


def jepa(*arguments):
    assert main([str(each) for each in arguments]) == 0


def scores_of(file):
    return json.loads(file.read_text())["scores"]


def write_table(file, rows, start="2016-07-01T00", columns=2):
    """Write hourly rows: a daily cycle, and noise as strong, in each column."""
    hours = np.datetime64(start, "h") + np.arange(rows)
    noise = np.random.default_rng(0).normal(size=(rows, columns))
    values = np.sin(np.arange(rows) * 2 * np.pi / 24)[:, None] + noise
    lines = [
        f"{str(hour).replace('T', ' ')}:00:00,{','.join(f'{value:.4f}' for value in row)}"
        for hour, row in zip(hours, values, strict=True)
    ]
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("\n".join([f"date,{','.join(f'c{number}' for number in range(columns))}", *lines]) + "\n")
    return file


@pytest.fixture(scope="module")
def signals(tmp_path_factory):
    folder = tmp_path_factory.mktemp("signals")
    write_sines(folder, 64, 1, 32, seed=0)  # 64 time steps each
    return folder


@pytest.fixture(scope="module")
def run(signals, tmp_path_factory):
    out = tmp_path_factory.mktemp("run") / "run"
    jepa("pretrain", "--data.root", signals, "--out", out, *TRAIN, "--steps", 8, "--batch-size", 16)
    return out


@pytest.fixture(scope="module")
def index(run, signals):
    out = run.parent / "signals.safetensors"
    jepa("embed", run, signals, "--out", out, *FAST)
    return out


def test_a_folder_of_arrays_chooses_series_and_settings_that_fit(run):
    config = load_config(run)
    assert type(config.data) is Series and (config.data.channels, config.data.length, config.data.window) == (1, 64, 8)
    assert config.masks.mask_ratio == 0.75 and config.method.pixel_loss_weight == 1 and config.method.encoder.dim == 128
    assert [row["step"] for row in read_metrics(run / "metrics.jsonl")][-1] == 8


def test_class_folders_are_probed_beside_the_baselines_of_series(run, signals, tmp_path, capsys):
    jepa("probe", run, "--data.root", signals, "--probes", "logistic", "knn", "--out", tmp_path, *FAST)
    scores = scores_of(tmp_path / f"{signals.name}.json")
    assert [each["features"] for each in scores] == [row for row in ROWS for _ in range(2)]
    by_name = {(each["features"], each["metric"]): each["value"] for each in scores}
    assert by_name["Fourier magnitudes", "kNN"] > 90  # a class is a frequency
    said = capsys.readouterr().out
    assert "4 classes, 52 samples to train on, 12 to test (a random fifth, held out)" in said and "pixels" not in said


def test_the_online_probe_reads_class_folders(signals, tmp_path):
    jepa(
        "pretrain", "--data.root", signals, "--out", tmp_path / "run", *TRAIN, "--steps", 2, "--batch-size", 16,
        "--online-probe.root", signals, "--online-probe.every", 2, "--online-probe.samples", 40,
    )  # fmt: skip
    last = read_metrics(tmp_path / "run" / "metrics.jsonl")[-1]
    assert 0 <= last["online_knn"] <= 1 and 0 <= last["online_logistic"] <= 1


def test_search_duplicates_and_clusters_of_files(index, signals, tmp_path, capsys):
    jepa("search", index, "row:3", "--count", 3, "--out", tmp_path / "hits")
    jepa("duplicates", index, "--out", tmp_path / "same")
    jepa("cluster", index, "--clusters", 4, "--out", tmp_path / "groups")
    assert "image" not in capsys.readouterr().out.replace(str(tmp_path), "")
    assert (tmp_path / "hits.html").is_file() and (tmp_path / "same.csv").is_file()
    assert (tmp_path / "groups.html").is_file()


def test_report_bench_and_export(run, signals, tmp_path, capsys):
    jepa("report", run, "--out", tmp_path / "report.html")
    assert "64 time steps in windows of 8" in (tmp_path / "report.html").read_text()
    jepa(
        "bench",
        "--data.root",
        signals,
        "--out",
        tmp_path / "bench",
        *FAST,
        "--threads",
        1,
        "--batch-size",
        2,
        "--count",
        3,
    )
    assert "samples/s" in capsys.readouterr().out
    jepa("export", run, "--format", "safetensors", "--out", tmp_path / "export")
    assert (tmp_path / "export" / "encoder.safetensors").is_file()


def test_the_demo_writes_its_scores_and_a_figure(tmp_path):
    sizes = ("--samples", 48, "--labeled", 40, "--test", 24, "--epochs", 1)
    jepa("demo", "series", "--out", tmp_path / "demo", *sizes)
    written = json.loads((tmp_path / "demo" / "demo.json").read_text())
    assert written["demo"] == "series" and written["settings"]["budget"] == "2m"
    assert [each["features"] for each in written["scores"]] == [row for row in ROWS for _ in range(2)]
    assert (tmp_path / "demo" / "features.png").stat().st_size > 10_000
    page = (tmp_path / "demo" / "run" / "report.html").read_text(encoding="utf-8")
    assert all(f"<td>{each['features']}</td>" in page for each in written["scores"]) and "jepa demo series" in page
    assert len(list((tmp_path / "demo" / "signals").glob("*/*/*.npy"))) == 48 + 24


def test_hourly_tables_are_probed_by_the_hour_in_blocks_of_time(tmp_path, capsys):
    table = write_table(tmp_path / "tables" / "load.csv", 24 * 130)
    jepa("pretrain", "--data.root", table.parent, "--out", tmp_path / "run", *TRAIN, "--steps", 2)
    config = load_config(tmp_path / "run")
    assert (config.data.channels, config.data.length, config.data.window) == (2, 192, 24)
    assert "1 recording of 2 channels and 3,120 time steps: crops of 192 time steps, tokens of 24, a day" in " ".join(
        capsys.readouterr().out.split()
    )
    labels = ("--data.root", table, "--data.labels", "series-hour", "--probes", "knn")
    jepa("probe", tmp_path / "run", *labels, *FAST)
    scores = scores_of(tmp_path / "run" / "probes" / "series-hour.json")
    assert [each["features"] for each in scores] == ROWS
    raw, magnitudes = scores[2], scores[3]
    assert raw["value"] > 30 > 15 > magnitudes["value"] and raw["low"] < raw["value"] < raw["high"]
    assert "24 classes, 586 samples (5 blocks of time, each tested once; 38 left out" in " ".join(
        capsys.readouterr().out.split()
    )


@pytest.mark.parametrize("stations", [1, 3])
def test_no_training_segment_of_a_fold_overlaps_a_test_segment_in_time(tmp_path, stations):
    for number in range(stations):
        write_table(tmp_path / f"{number}.csv", 700, f"2016-07-{1 + 9 * number:02d}T00")
    split = split_labeled(Series(length=48, window=24, channels=2), hours(tmp_path), 0)
    data = split.train
    assert split.divided and len(split.folds) == 5 and set(data.label.tolist()) == set(range(24))
    assert sorted(row for fold in split.folds for row in fold.test.tolist()) == list(range(len(data)))
    for fold in split.folds:
        assert len(fold.train) > 0
        starts, ends = data.starts[fold.test.numpy()], data.ends[fold.test.numpy()]
        for row in fold.train.tolist():
            assert not ((data.starts[row] <= ends) & (data.ends[row] >= starts)).any()


def hours(root, **settings):
    return LabeledData((str(root),), labels="series-hour", **settings)


def test_hours_belong_to_the_segments_that_are_read(tmp_path):
    for number in range(2):
        write_table(tmp_path / f"{number}.csv", 600, f"2016-07-01T0{4 * number}")
    data = split_labeled(Series(length=48, window=24, channels=2), hours(tmp_path), 0).train
    rows = torch.arange(len(data))
    samples = data.read(rows, None)
    assert torch.equal(samples.label, data.label)
    for row in (0, 1, 7, len(data) - 1):
        file, start = Path(data.source(row).split("#")[0]), data.starts[row]
        hour = str(start)[:13].replace("T", " ")
        first = next(line for line in file.read_text().splitlines() if line.startswith(hour))
        assert float(first.split(",")[1]) == pytest.approx(float(samples.views[0][row, 0, 0]), abs=1e-4)
        assert int(samples.label[row]) == int(str(start)[11:13])
    assert (np.diff(data.starts) >= np.timedelta64(0)).all()
    assert (data.ends - data.starts == np.timedelta64(47, "h")).all() and STRIDE == 5


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"split": "random"}, "series-hour overlap: use --data.split time-blocks, got random"),
        ({"eval_crop": "squash"}, "--eval-crop squash is for images, not for series"),
        ({}, "17 segments that each overlap 16 later ones are too few for 5 blocks of time"),
    ],
)
def test_what_cannot_be_split_honestly_is_an_error(tmp_path, settings, sentence):
    write_table(tmp_path / "short.csv", 200)
    with pytest.raises(UserError, match=sentence):
        split_labeled(Series(length=120, window=24, channels=2), hours(tmp_path, **settings), 0)


def test_hours_need_series(tmp_path):
    from tests.conftest import MODALITIES

    with pytest.raises(UserError, match="--data.labels series-hour needs an encoder of series, got image"):
        split_labeled(MODALITIES["image"], hours(tmp_path), 0)


def test_windows_of_one_recording_are_not_divided_between_training_and_test(tmp_path):
    for name in ("slow", "fast"):
        (tmp_path / name).mkdir()
        for number in range(5):
            np.save(tmp_path / name / f"{number}.npy", np.random.default_rng(number).normal(size=(1, 64)))
    data = Series(length=16, window=4, stride=4)
    split = split_labeled(data, LabeledData((str(tmp_path),)), 0)
    train, test = (set(sample_values(part, "groups").tolist()) for part in split[:2])
    assert len(train) == 8 and len(test) == 2 and not train & test
    assert len(split.train) + len(split.test) == 10 * 13 and "of the recordings" in split.how


def test_threads_open_files_one_after_another_and_read_more_than_stay_open(tmp_path, monkeypatch):
    load, opening, most = series_recordings.load_array, [], []

    def slow(path):
        opening.append(path)
        most.append(len(opening))
        sleep(0.002)
        opening.remove(path)
        return load(path)

    for number in range(24):
        np.save(tmp_path / f"{number:02d}.npy", np.full((1, 8), number, np.float32))
    config = Series(root=(str(tmp_path),), length=8, window=4)
    data = ThreadedDataset(config.dataset(config.listing()))
    data.pool = ThreadPoolExecutor(4)
    for module, name, value in (
        (series_recordings, "load_array", slow),
        (series_recordings, "MAX_OPEN", 2),
        (ThreadedDataset, "PIECE", 1),
    ):
        monkeypatch.setattr(module, name, value)
    assert torch.equal(data.read(torch.arange(24), None).views[0][:, 0, 0], torch.arange(24.0))
    assert max(most) == 1


@pytest.mark.parametrize(
    ("survey", "lengths"),
    [
        (Survey(1, 100, 512, 0, True), (256, 8)),
        (Survey(1, 100, 100, 0, True), (96, 8)),
        (Survey(3, 100, 20, 0, False), (20, 2)),  # short signals keep eight tokens or more
        (Survey(7, 1, 17_420, 24, False), (336, 24)),  # a day is a token
        (Survey(7, 1, 17_420, 1440, False), (256, 8)),  # rows are minutes
        (Survey(1, 1, 1_000, 0, False), (56, 7)),  # one short recording gives 16 segments
    ],
)
def test_crops_and_tokens_fit_the_recordings(survey, lengths):
    length, window = choose_lengths(survey, 256, 8)
    assert (length, window) == lengths and length % window == 0


def test_a_folder_of_tables_or_of_signals_alone_is_detected_as_series(tmp_path, signals):
    write_table(tmp_path / "tables" / "load.csv", 30)
    assert detect_modality((str(tmp_path / "tables"),)) == "series"
    assert detect_modality((str(signals),)) == "series"
    np.save(tmp_path / "image.npy", np.zeros((8, 8, 3), np.uint8))
    assert detect_modality((str(tmp_path / "image.npy"),)) == "image"


def test_too_few_signals_are_an_error_with_what_to_give(tmp_path):
    np.save(tmp_path / "one.npy", np.zeros((3, 1, 64), np.float32))
    with pytest.raises(UserError, match="too few signals to learn from: 3 segments of 64 time steps"):
        choose_config((str(tmp_path),), modality="series")


def test_etth1_from_the_command_line(jepa_data, tmp_path):
    table = jepa_data("series") / "ett" / "ETTh1.csv"
    run = tmp_path / "run"
    jepa("pretrain", "series-small", "--data.root", table, "--out", run, *TRAIN, "--steps", 3)
    jepa("probe", run, "--data.root", table, "--data.labels", "series-hour", "--probes", "knn", *FAST)
    by_name = {each["features"]: each["value"] for each in scores_of(run / "probes" / "series-hour.json")}
    assert list(by_name) == ROWS and by_name["raw windows"] > 70 and by_name["Fourier magnitudes"] < 10
    index = tmp_path / "hours.safetensors"
    jepa("embed", run, table, "--out", index, *FAST)
    jepa("search", index, "row:100", "--count", 3, "--out", tmp_path / "hits", "--no-page")
    jepa("duplicates", index, "--out", tmp_path / "same")
    jepa("cluster", index, "--clusters", 3, "--out", tmp_path / "groups")
    jepa("report", run, "--out", tmp_path / "report.html")
    jepa("export", run, "--format", "safetensors", "--out", tmp_path / "export")
    config = load_config(run)
    data = replace(config.data, root=(str(table),))
    split = split_labeled(data, hours(table), 0)
    assert split.how.endswith("67 left out of training on each side of it")  # 336 hours at every fifth hour
