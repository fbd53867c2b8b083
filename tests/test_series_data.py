"""Recordings in .npy and .csv files become segments with labels, groups and times; gaps and wrong files are named."""

import pickle

import numpy as np
import pytest
import torch

from openjepa.core.errors import UserError
from openjepa.core.rng import CounterRNG
from openjepa.data import series_recordings
from openjepa.data.loader import Steps
from openjepa.data.series_csv import read_table
from openjepa.data.series_files import SeriesArray, hour_labels
from openjepa.data.synthetic.sines import FREQUENCIES, write_sines
from openjepa.modalities.series import Series
from openjepa.recipes.series import series_small

TINY = {"length": 8, "window": 4}


@pytest.fixture(autouse=True)
def forget_warnings():
    series_recordings.warn_once.cache_clear()


def opened(root, **fields):
    config = Series(root=(str(root),), **{**TINY, **fields})
    return config.dataset(config.listing())


def views(data, rng=None):
    return data.read(torch.arange(len(data)), rng).views[0]


def draws(data, step=0):
    return CounterRNG.of(0, step, step * len(data) + np.arange(len(data)))


def ramp(*shape):
    """An array whose last axis counts samples, and whose other axes add thousands."""
    offset = np.arange(int(np.prod(shape[:-1], dtype=int))).reshape(*shape[:-1], 1) * 1000
    return (np.arange(shape[-1]) + offset).astype(np.float32)


def save_csv(file, rows, header="date,a,b", start="2016-07-01T22"):
    """Write rows of cells behind hourly dates."""
    file.parent.mkdir(parents=True, exist_ok=True)
    hours = np.datetime64(start, "h") + np.arange(len(rows))
    lines = [f"{str(hour).replace('T', ' ')}:00:00,{row}" for hour, row in zip(hours, rows, strict=True)]
    file.write_text("\n".join([header, *lines]) + "\n")
    return file


def counting(count):
    return [f"{row},{row + 1000}" for row in range(count)]


@pytest.fixture
def table(tmp_path):
    return save_csv(tmp_path / "table.csv", counting(30))


def test_an_array_of_signals_is_one_sample_per_signal(tmp_path):
    np.save(tmp_path / "a.npy", ramp(5, 2, 20))
    data = opened(tmp_path, channels=2)
    assert len(data) == 5 and data.classes == () and (data.label == -1).all()
    assert torch.equal(views(data), torch.from_numpy(ramp(5, 2, 20)[..., :8]))
    assert data.groups.tolist() == [0, 1, 2, 3, 4] and data.source(3).endswith("a.npy#3")


def test_random_crops_of_files_are_those_of_the_array_in_memory(tmp_path):
    signals = ramp(40, 2, 500)
    np.save(tmp_path / "a.npy", signals)
    data, memory = opened(tmp_path, channels=2), SeriesArray(8, signals, torch.full((40,), -1), "")
    assert torch.equal(views(data, draws(data)), views(memory, draws(data)))
    assert not torch.equal(views(data, draws(data)), views(data, draws(data, step=1)))


def test_sub_folders_of_recordings_are_labels(tmp_path):
    for folder, samples in (("cat", 16), ("dog", 27)):
        (tmp_path / folder).mkdir()
        np.save(tmp_path / folder / "one.npy", ramp(2, samples))
    data = opened(tmp_path, channels=2)
    assert data.classes == ("cat", "dog") and data.label.tolist() == [0, 0, 1, 1, 1]
    assert data.groups.tolist() == [0, 0, 1, 1, 1] and data.times.tolist() == [0, 8, 0, 8, 16]
    assert torch.equal(views(data)[:, 0, 0], torch.tensor([0.0, 8, 0, 8, 16]))
    assert [data.source(index).rpartition("/")[2] for index in (1, 4)] == ["one.npy#1", "one.npy#2"]


def test_one_channel_needs_no_axis(tmp_path):
    np.save(tmp_path / "a.npy", ramp(8))
    data = opened(tmp_path)
    assert views(data).shape == (1, 1, 8) and data.source(0).endswith("a.npy")


@pytest.mark.parametrize("stride, starts", [(0, [0, 8, 16]), (5, [0, 5, 10, 15, 20]), (22, [0, 22])])
def test_a_stride_sets_the_starts_of_segments(table, stride, starts):
    data = opened(table, channels=2, stride=stride)
    assert views(data)[:, 0, 0].tolist() == starts and views(data)[:, 1, 7].tolist() == [s + 1007 for s in starts]
    assert data.source(1) == f"{table}#1"


def test_a_stride_cuts_the_signals_of_an_array_too(tmp_path):
    np.save(tmp_path / "a.npy", ramp(3, 1, 20))
    data = opened(tmp_path, stride=6)
    assert data.groups.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2] and data.source(4).endswith("#4")
    assert views(data)[:, 0, 0].tolist() == [0, 6, 12, 1000, 1006, 1012, 2000, 2006, 2012]


def test_training_reaches_every_start_of_a_recording_and_no_other(table):
    data = opened(table, channels=2)
    starts = {int(start) for step in range(200) for start in views(data, draws(data, step))[:, 0, 0]}
    assert starts == set(range(30 - 8 + 1))


def test_dates_give_the_hour_of_each_segment(table):
    data = opened(table, channels=2, stride=5)
    assert data.times[1] == np.datetime64("2016-07-02T03")
    assert hour_labels(data.times).tolist() == [22, 3, 8, 13, 18]


def test_hours_before_1970_are_hours_of_the_day():
    assert hour_labels(np.array(["1969-12-31T23:30"], "datetime64[us]")).tolist() == [23]


def test_without_dates_there_are_no_hours(tmp_path):
    np.save(tmp_path / "a.npy", ramp(20))
    with pytest.raises(UserError, match="give .csv files with a column of dates"):
        hour_labels(opened(tmp_path).times)


def test_columns_choose_and_order_the_channels(table):
    data = opened(table, channels=2, columns=("b", "a"))
    assert views(data)[0, :, 0].tolist() == [1000, 0]
    assert views(opened(table, columns=("b",)))[0].shape == (1, 8)


def test_text_and_nameless_columns_are_no_channels(tmp_path):
    save_csv(tmp_path / "t.csv", [f"{row},high,{row}" for row in range(9)], header="date,,note,a")
    assert read_table(str(tmp_path / "t.csv")).names == ("a",)


@pytest.mark.parametrize("blank", ["", "nan", "NA", "inf", " "])
def test_segments_with_blank_values_are_left_out_with_one_warning(tmp_path, capsys, blank):
    rows = counting(30)
    rows[11] = f"11,{blank}"
    save_csv(tmp_path / "t.csv", rows)
    data = opened(tmp_path, channels=2)
    opened(tmp_path, channels=2)
    assert views(data)[:, 0, 0].tolist() == [0, 16] and data.source(1).endswith("t.csv#2")
    assert capsys.readouterr().err.count("1 of 3 segments are left out") == 1


def test_training_never_reads_a_blank_value(tmp_path):
    signals = ramp(3, 1, 40)
    signals[1, 0, 12] = np.nan
    signals[2, 0, 0] = np.inf
    np.save(tmp_path / "a.npy", signals)
    data = opened(tmp_path, stride=4)
    crops = [views(data, draws(data, step)) for step in range(50)]
    assert torch.cat(crops).isfinite().all() and views(data).isfinite().all()
    starts = {int(view[0, 0]) for view in torch.cat(crops) if view[0, 0] // 1000 == 1}
    assert starts == {1000 + start for start in (*range(5), *range(13, 33))}


def test_a_data_set_with_gaps_everywhere_is_refused(tmp_path):
    np.save(tmp_path / "a.npy", np.full((4, 1, 20), np.nan, np.float32))
    with pytest.raises(UserError, match="all 4 segments of 8 samples hold blank"):
        opened(tmp_path)


def test_short_recordings_are_left_out_with_a_warning(tmp_path, capsys):
    for name, samples in (("a", 7), ("b", 8), ("c", 3)):
        np.save(tmp_path / f"{name}.npy", ramp(samples))
    data = opened(tmp_path)
    assert len(data) == 1 and data.source(0).endswith("b.npy") and data.groups.tolist() == [1]
    assert "2 of 3 files are left out: they have fewer samples than --data.length 8" in capsys.readouterr().err


def test_beside_arrays_csv_files_are_not_recordings(tmp_path):
    np.save(tmp_path / "a.npy", ramp(8))
    save_csv(tmp_path / "labels.csv", counting(30))
    assert len(opened(tmp_path)) == 1


def test_a_worker_opens_memory_maps_itself(tmp_path, monkeypatch):
    """The pickled data set holds no values, and a few maps serve many files."""
    monkeypatch.setattr(series_recordings, "MAX_OPEN", 2)
    for number in range(5):
        np.save(tmp_path / f"{number}.npy", ramp(1, 10_000) + number)
    data = opened(tmp_path, stride=10_000)
    expected = views(data)
    content = pickle.dumps(data)
    assert len(content) < 20_000 and torch.equal(views(pickle.loads(content)), expected)
    assert len(data.open_arrays.maps) == 2 and expected[:, 0, 0].tolist() == [0, 1, 2, 3, 4]


def test_integers_are_read_as_floating_point(tmp_path):
    np.save(tmp_path / "a.npy", np.arange(20, dtype=np.int16))
    assert views(opened(tmp_path)).dtype == torch.float32


def test_the_fingerprint_changes_with_the_list_of_segments(table, tmp_path):
    prints = {opened(table, channels=2, **each).fingerprint for each in ({}, {"stride": 5}, {"length": 12})}
    assert len(prints) == 3
    np.save(tmp_path / "a.npy", ramp(5, 1, 20))
    config = Series(root=(str(tmp_path / "a.npy"),), **TINY)
    assert config.dataset(config.listing()).fingerprint == config.listing().fingerprint


def test_sines_on_disk_are_the_synthetic_ones(tmp_path):
    write_sines(tmp_path, 12, 2, 8, seed=3)
    data, memory = opened(tmp_path, channels=2, stride=16), Series(channels=2, **TINY).synthetic(12, 3)
    assert set(data.classes) <= {f"{each}-cycles" for each in FREQUENCIES} and len(data) == 12
    order = [int(data.source(index).rpartition("/")[2].partition(".")[0]) for index in range(12)]
    assert torch.equal(views(data), views(memory)[order])
    assert [data.classes[label][0] for label in data.label] == [str(FREQUENCIES[n]) for n in memory.label[order]]


WRONG_ARRAYS = {
    "channels": (
        ramp(4, 3, 20),
        r"\(4, 3, 20\), so 3 channels, but --data.channels is 1: type --data.channels 3",
    ),
    "signals without a channel": (ramp(50, 20), r"save signals of one channel as \(50, 1, 20\)"),
    "samples first": (ramp(20, 1), "swap its last two axes"),
    "axes": (ramp(2, 2, 2, 20), r"it must be \(samples,\), \(channels, samples\) or \(signals, channels, samples\)"),
    "short": (ramp(3, 1, 7), "has 7 samples, fewer than --data.length 8: try --data.length 4 --data.window 4"),
    "text": (np.array(["a"] * 20), "must hold integers or floating-point numbers"),
    "complex": (ramp(20) + 1j, "must hold integers or floating-point numbers"),
    "objects": (np.array([{}] * 20), "is not an .npy file of numbers"),
    "nothing": (ramp(0), "it is empty"),
}


@pytest.mark.parametrize("case", WRONG_ARRAYS)
def test_a_wrong_array_is_refused_with_advice(tmp_path, case):
    array, message = WRONG_ARRAYS[case]
    np.save(tmp_path / "a.npy", array)
    with pytest.raises(UserError, match=message):
        opened(tmp_path)


@pytest.mark.parametrize("content", [b"", b"not an array", b"\x93NUMPY\x01\x00"])
def test_a_damaged_array_is_named(tmp_path, content):
    (tmp_path / "a.npy").write_bytes(content)
    with pytest.raises(UserError, match="a.npy is not an .npy file of numbers"):
        opened(tmp_path)


WRONG_TABLES = {
    "word": ("time,a\n2016-07-01,1\n2016-07-02,high\n", "line 3, column a: 'high' is not a number: correct it"),
    "word after an empty line": ("time,a\n2016-07-01,1\n\n2016-07-02,high\n", "line 4, column a"),
    "date": ("time,a\n2016-07-01,1\n2016-13-02,2\n", "line 3, column time: '2016-13-02' is not a date"),
    "no date": ("time,a\n2016-07-01,1\n,2\n", "line 3, column time: '' is not a date"),
    "cells": ("a,b\n1,2\n1,2,3\n", "line 3 has 3 cells, but the header has 2"),
    "header": ("1,2\n3,4\n", "line 1 has numbers in place of column names"),
    "semicolons": ("a;b\n1;2\n", "line 1 has no commas"),
    "twice": ("a,a\n1,2\n", "names column 'a' twice"),
    "no samples": ("a,b\n", "has no samples"),
    "nothing": ("", "has no samples"),
    "no numbers": ("a,b\nx,y\n", "has no column of numbers: its columns are a, b"),
    "encoding": (b"a,b\n1,\xff\n", "not a CSV file in UTF-8"),
    "channels": ("a,b,c\n1,2,3\n", "3 columns of numbers .a, b, c., not 1: type --data.channels 3, or choose with "),
}


@pytest.mark.parametrize("case", WRONG_TABLES)
def test_a_wrong_table_is_refused_with_its_line(tmp_path, case):
    content, message = WRONG_TABLES[case]
    (tmp_path / "t.csv").write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError, match=message):
        opened(tmp_path)


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"columns": ("a", "z"), "channels": 2}, "has no column 'z': choose --data.columns from date, a, b"),
        ({"columns": ("date",)}, "line 2, column date: '2016-07-01 22:00:00' is not a number"),
        ({"columns": ("a", "b")}, "type --data.channels 2"),
        ({"channels": 0}, "--data.channels must be >= 1"),
        ({"stride": -1}, "--data.stride must be >= 0"),
        ({"length": 0}, "try --data.length 4"),
        ({"window": 3}, "try --data.length 6"),
    ],
)
def test_wrong_settings_are_refused_with_advice(table, fields, message):
    with pytest.raises(UserError, match=message):
        opened(table, **fields)


def test_columns_are_for_tables(tmp_path):
    np.save(tmp_path / "a.npy", ramp(20))
    with pytest.raises(UserError, match="leave --data.columns out"):
        opened(tmp_path, columns=("a",))


@pytest.mark.parametrize("date", ["2016-07-01T13:00", "2016/07/01 13:00:00", "2016-07-01 13:00:00.25+02:00"])
def test_dates_are_read_as_on_the_clock(tmp_path, date):
    (tmp_path / "t.csv").write_text(f"when,a\n{date},1\n")
    times = read_table(str(tmp_path / "t.csv")).times
    assert times is not None and hour_labels(times).tolist() == [13]


def test_real_tables_are_read_whole(jepa_data):
    data = opened(jepa_data("series") / "ett" / "ETTh1.csv", length=336, window=24, channels=7, stride=5)
    assert len(data) == (17420 - 336) // 5 + 1 and set(hour_labels(data.times).tolist()) == set(range(24))


def test_the_recipe_trains_on_a_table_of_seven_channels(tmp_path):
    """All hours of the day occur among its evaluation segments, and a batch of them has masks."""
    save_csv(tmp_path / "t.csv", [",".join("1234567")] * 1000, header="date,a,b,c,d,e,f,g")
    config = series_small()
    data = Series(**{**vars(config.data), "root": (str(tmp_path),)})
    segments = data.dataset(data.listing())
    assert set(hour_labels(segments.times).tolist()) == set(range(24)) and len(segments) >= config.batch_size
    steps = Steps(segments, config.masks, data.layout, batch_size=config.batch_size, total_steps=2, seed=0)
    assert steps[0].batch.views[0].shape == (64, 7, 336) and len(steps[0].batch.masks) == 1
