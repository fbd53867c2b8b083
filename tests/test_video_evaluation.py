"""Video is measured beside clips without motion and without order; surprise and the future of clips are arithmetic."""

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from openjepa.cli.main import main
from openjepa.cli.surprise import describe_scores
from openjepa.core.errors import UserError
from openjepa.data.synthetic.moving_scenes import render_clips, write_clips
from openjepa.data.video_controls import repeat_middle_frame, reverse_time, shuffle_frames
from openjepa.data.video_files import VideoArray
from openjepa.evaluation.controls import controlled_encoders
from openjepa.evaluation.features import compute_features
from openjepa.evaluation.forecast import Forecaster, Scale, choose_context, load_forecaster
from openjepa.evaluation.horizon import FeatureMap, measure_horizon
from openjepa.evaluation.labeled import split_labeled
from openjepa.evaluation.measure import controlled_features, measure_encoders, split_features_of
from openjepa.evaluation.probes import attentive
from openjepa.evaluation.probing import create_probes
from openjepa.evaluation.settings import LabeledData, ProbeSettings
from openjepa.evaluation.surprise import Surprise, average_steps, find_peaks, measure_surprise, read_moments
from openjepa.evaluation.tasks.video import BACKWARDS, BothDirections
from openjepa.interop.inputs import with_eval_clips
from openjepa.interop.pretrained import load_run, untrained_encoder
from openjepa.masking.causal import Causal
from openjepa.modalities.video import Video
from openjepa.training.config import Pretrain
from tests.conftest import CPU, MODALITIES, TINY

CLIPS, FRAMES = 24, 16
DATA = Video(frames=8, stride=1, size=(32, 32), patch=16, mean=(0.5,) * 3, std=(0.25,) * 3)
ENCODERS = ["this encoder", *(f"this encoder, {each}" for each in DATA.controls()), "before training"]


@pytest.fixture(scope="module")
def clips(tmp_path_factory) -> Path:
    """Write moving scenes as arrays, with a table of actions and sequences: six clips of each sequence."""
    folder = tmp_path_factory.mktemp("video") / "clips"
    write_clips(folder, CLIPS, FRAMES, 32, seed=0)
    files = sorted(path.name for path in folder.glob("*.npy"))
    rows = [(file, ("push", "hug")[number % 2], number // 6) for number, file in enumerate(files)]
    with (folder / "labels.csv").open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows([("file", "action", "sequence"), *rows])
    return folder


@pytest.fixture(scope="module")
def run(clips, tmp_path_factory) -> Path:
    from openjepa.cli.pretrain import pretrain

    out = tmp_path_factory.mktemp("runs") / "clips"
    data = replace(DATA, root=(str(clips),))
    settings = Pretrain(data=data, method=TINY, masks=Causal(), steps=2, batch_size=4, out=out)  # type: ignore[arg-type]
    return pretrain(replace(settings, device="cpu", threads=1, workers=0, report=False))


@pytest.fixture(scope="module")
def forecaster(run) -> Forecaster:
    return load_forecaster(str(run), {}, CPU)


def random_clips(count: int, frames: int = FRAMES) -> torch.Tensor:
    return torch.randint(0, 256, (count, frames, 3, 32, 32), generator=torch.Generator().manual_seed(0)).byte()


def in_memory(modality: Video, clips: torch.Tensor) -> VideoArray:
    return VideoArray(modality, clips, torch.zeros(len(clips), dtype=torch.long), "test", ("one",))


def tiny_encoder(modality: Video = DATA):
    return untrained_encoder(Pretrain(data=modality, method=TINY, masks=Causal()))  # type: ignore[arg-type]


def probe_settings(clips: Path, **changes) -> ProbeSettings:
    labeled = LabeledData((str(clips),), str(clips / "labels.csv"), label="action", group="sequence", split="groups")
    return replace(ProbeSettings(data=replace(labeled, folds=2), probes=("logistic",), device="cpu"), **changes)


def test_features_of_several_clips_are_the_mean_of_each_clips_and_tokens_are_joined():
    encoder, videos = tiny_encoder(), random_clips(3)
    several = with_eval_clips(encoder, 2)
    features = compute_features(several, in_memory(several.data, videos), CPU)["last"]
    starts = (2, 6)  # a quarter and three quarters of the nine possible starts
    single = [encoder.encode(videos[:, start : start + 8]).last for start in starts]
    torch.testing.assert_close(features, torch.stack(single).mean(0))
    assert several.fingerprint != encoder.fingerprint  # scores of other numbers of clips are other scores


def test_a_single_evaluation_clip_is_the_one_in_the_middle():
    videos = random_clips(2)
    view = in_memory(DATA, videos).read(torch.tensor([0, 1]), None).views
    assert len(view) == 1
    assert torch.equal(view[0], videos[:, 4:12])


def test_several_clips_are_for_video():
    image = untrained_encoder(Pretrain(data=MODALITIES["image"], method=TINY))  # type: ignore[arg-type]
    assert with_eval_clips(image, 0) is image
    with pytest.raises(UserError, match="--eval-clips 3 is for video, not for image: leave it out"):
        with_eval_clips(image, 3)
    with pytest.raises(UserError, match="--data.eval-clips must be >= 1, got 0"):
        replace(DATA, eval_clips=0)


def test_controls_take_away_motion_and_order_and_nothing_else():
    videos = random_clips(4)
    still, shuffled = repeat_middle_frame(videos), shuffle_frames(videos)
    assert torch.equal(still, videos[:, 8:9].expand_as(videos))
    assert not torch.equal(shuffled, videos)
    sums = [each.flatten(2).sum(-1, dtype=torch.long).sort(1).values for each in (videos, shuffled)]
    assert torch.equal(*sums)  # the same frames
    assert torch.equal(shuffle_frames(videos[2:]), shuffled[2:])  # in the same order in every batch
    assert torch.equal(reverse_time(reverse_time(videos)), videos)


def test_controls_reach_the_features():
    videos = random_clips(2, frames=8)
    encoders = {each.encoder.name: each.encoder for each in controlled_encoders(replace(tiny_encoder(), name="it"))}
    assert list(encoders) == ["it, single frame", "it, shuffled frames", "it, reversed time"]
    other = videos.clone()
    other[:, :4] = 255 - other[:, :4]  # frames before the middle
    still = encoders["it, single frame"]
    assert torch.equal(still.encode(videos).last, still.encode(other).last)
    plain = tiny_encoder().encode(videos.flip(1)).last
    assert torch.equal(encoders["it, reversed time"].encode(videos).last, plain)
    assert len({each.fingerprint for each in encoders.values()}) == 3


@pytest.mark.parametrize("name", ["image", "series"])
def test_other_modalities_have_no_controls(name):
    encoder = untrained_encoder(Pretrain(data=MODALITIES[name], method=TINY))  # type: ignore[arg-type]
    assert not list(controlled_encoders(replace(encoder, name="this encoder")))


def test_reversed_time_is_tested_and_not_trained_on(run, clips):
    settings = probe_settings(clips)
    encoder = replace(load_run(run), name="this encoder")
    split, plain = split_features_of(encoder, settings, create_probes(settings), CPU)
    changed = {
        each.encoder.name: controlled_features(each, split, plain, settings, CPU)
        for each in controlled_encoders(encoder)
    }
    backwards, still = changed["this encoder, reversed time"], changed["this encoder, single frame"]
    assert backwards.train is plain.train
    assert not torch.equal(backwards.test["last"], plain.test["last"])
    assert still.train is not plain.train
    assert not torch.equal(still.train["last"], plain.train["last"])


@pytest.mark.parametrize("controls", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_every_probe_measures_video_by_groups_with_a_row_for_each_control(run, clips, monkeypatch, controls):
    monkeypatch.setattr(attentive, "EPOCHS", 1)
    settings = probe_settings(clips, probes=("logistic", "linear", "knn", "lowshot", "attentive"), shots=(1.0,))
    trained = replace(load_run(run), name="this encoder")
    compared = [trained, *([trained.untrained()] if controls and trained.untrained else [])]
    result = measure_encoders(compared, settings, pixels=controls)
    assert result
    scores = {(each.score.features, each.score.metric): each.score.value for each in result.results}
    metrics = {metric for _, metric in scores}
    assert len(metrics) == 5
    if not controls:
        assert {name for name, _ in scores} == {"this encoder"}
        return
    assert [name for name, metric in scores if metric == "attentive"] == ENCODERS  # baselines have no tokens
    baselines = list(DATA.baselines())
    assert [name for name, metric in scores if metric == "logistic"] == [*ENCODERS, *baselines]
    assert result.split.divided
    assert "groups" in result.split.how


def test_the_command_writes_controls_and_clips_of_each_file(run, clips, tmp_path, capsys):
    arguments = ["--data.root", str(clips), "--labels", str(clips / "labels.csv"), "--label", "action"]
    arguments += ["--group", "sequence", "--data.split", "groups", "--data.folds", "2", "--probes", "knn"]
    command = ["probe", str(run), *arguments, "--data.eval-clips", "2", "--device", "cpu", "--out", str(tmp_path)]
    assert main(command) == 0
    (file,) = tmp_path.glob("*.json")
    names = [each["features"] for each in json.loads(file.read_text(encoding="utf-8"))["scores"]]
    assert names == [*ENCODERS, *DATA.baselines()]
    assert "this encoder, shuffled frames" in file.with_suffix(".md").read_text(encoding="utf-8")
    capsys.readouterr()


def test_an_index_holds_the_mean_over_clips(run, clips, tmp_path):
    rows = []
    for number in (1, 2):
        out = tmp_path / f"{number}.npy"
        assert (
            main(["embed", str(run), str(clips), "--out", str(out), "--eval-clips", f"{number}", "--device", "cpu"])
            == 0
        )
        rows.append(np.load(out))
    assert rows[0].shape == rows[1].shape == (CLIPS, TINY.encoder.dim)
    assert np.abs(rows[0] - rows[1]).max() > 1e-5
    assert main(["search", str(tmp_path / "2.npy"), str(clips / "000003.npy"), "--no-page"]) == 0
    patches = ["--features", "patches", "--eval-clips", "2", "--device", "cpu"]
    assert main(["embed", str(run), str(clips), "--out", str(tmp_path / "3.npy"), *patches]) == 1


def test_the_arrow_of_time_has_both_directions_of_a_file_in_one_fold(clips):
    split = split_labeled(DATA, LabeledData((str(clips),), "video-reversed"), seed=0)
    labels, groups = split.train.dataset.label, split.train.dataset.groups  # type: ignore[attr-defined]
    assert len(split.train) == 2 * CLIPS
    assert labels.double().mean() == 0.5
    for fold in split.folds:
        assert not set(groups[fold.train].tolist()) & set(groups[fold.test].tolist())
    forwards, backwards = split.train.read(torch.tensor([4, 5]), None).views[0]
    assert torch.equal(backwards, forwards.flip(0))


def test_the_arrow_of_time_leaves_clips_that_cannot_be_decoded_without_a_label(clips, tmp_path):
    (tmp_path / "bad.npy").write_bytes(b"nothing")
    files = replace(DATA, root=(str(tmp_path), str(clips))).listing()
    data = BothDirections(DATA.dataset(files))  # type: ignore[arg-type]
    label = data.read(torch.arange(4), None).label
    assert sorted(label.tolist()) == [-1, -1, 0, BACKWARDS]


@pytest.mark.parametrize(
    ("modality", "labeled", "sentence"),
    [
        (MODALITIES["image"], LabeledData(("x",), "video-reversed"), "needs an encoder of video, got image"),
        (DATA, LabeledData(("x",), "video-reversed", split="k-fold"), "holds out whole files"),
    ],
)
def test_the_arrow_of_time_refuses_other_data_and_splits(modality, labeled, sentence):
    with pytest.raises(UserError, match=sentence):
        split_labeled(modality, labeled, seed=0)


def test_a_time_step_has_the_mean_error_of_all_windows_that_predict_it():
    errors = torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])  # windows at steps 0, 1, 2 predict two steps each
    assert average_steps(errors).tolist() == [1.0, 2.5, 4.5, 6.0]


def test_peaks_are_apart():
    time, score = np.arange(10) / 2, np.array([0.0, 1, 9, 8, 0, 7, 0, 0, 2, 6])
    surprise = Surprise(np.arange(10), time, score, score, score)
    assert find_peaks(surprise, 3) == [2, 5, 9]


def test_errors_of_a_file_belong_to_its_frames(forecaster, tmp_path):
    clip = render_clips(1, 30, 32, seed=3).clips[0].permute(0, 2, 3, 1).numpy()
    np.save(tmp_path / "clip.npy", clip)
    result = measure_surprise(forecaster, str(tmp_path / "clip.npy"), context=3)
    assert result.frame.tolist() == list(range(6, 30, 2))  # a time step is two frames, three are visible
    view = torch.from_numpy(clip[4:12]).permute(0, 3, 1, 2)[None]
    forecast = forecaster.forecast(view, 3)
    error = (forecast.predicted - forecaster.scale.apply(forecast.features[:, 3:])).square().mean()
    assert result.error[2] == pytest.approx(float(error), rel=1e-3)  # the window from frame 4 predicts frames 10 and 11


def test_frames_of_moments_are_those_of_the_file_in_the_order_of_the_moments(tmp_path):
    clip = np.random.default_rng(0).integers(0, 256, (20, 8, 8, 3), np.uint8)
    np.save(tmp_path / "clip.npy", clip)
    steps = np.arange(6)
    moments = read_moments(Surprise(3 * steps, steps, steps, steps, steps), [4, 1, 5], str(tmp_path / "clip.npy"))
    np.testing.assert_array_equal(moments, clip[[12, 3, 15]])


def test_a_foreign_second_changes_the_surprise_of_its_own_time_alone(forecaster, tmp_path):
    host, other = (each.permute(0, 2, 3, 1).numpy() for each in render_clips(2, 60, 32, seed=3).clips)
    curves = []
    for name, frames in (("plain", host), ("spliced", np.concatenate([host[:40], other[40:48], host[48:]]))):
        np.save(tmp_path / f"{name}.npy", frames)
        curves.append(measure_surprise(forecaster, str(tmp_path / f"{name}.npy"), context=3))
    changed = np.abs(curves[0].persistence - curves[1].persistence) / curves[0].persistence
    inside = (curves[0].frame >= 40) & (curves[0].frame < 56)  # and while the window has a foreign frame
    assert changed[inside].max() > 3 * changed[~inside].max()


@pytest.mark.parametrize(
    ("frames", "changes", "sentence"),
    [
        (9, {}, "is too short: 9 frames in 0.. s, and a window has 8"),
        (30, {"stride": 0, "fps": 0.0}, "time has no fixed step: give --fps"),
    ],
)
def test_files_that_have_no_second_window_are_refused(forecaster, tmp_path, frames, changes, sentence):
    np.save(tmp_path / "clip.npy", np.zeros((frames, 32, 32, 3), np.uint8))
    other = Forecaster(forecaster.method, replace(forecaster.data, **changes), CPU)
    with pytest.raises(UserError, match=sentence):
        measure_surprise(other, str(tmp_path / "clip.npy"), 3)


@pytest.mark.parametrize(("error", "warned"), [(0.95, True), (0.6, False)])
def test_surprise_of_a_predictor_that_is_no_better_than_the_mean_comes_with_a_warning(error, warned, capsys):
    steps = np.arange(5)
    errors = np.full(5, error)
    describe_scores(Surprise(3 * steps, 2.0 + 0.5 * steps, errors, errors, 0 * errors), "street.mp4")
    said = capsys.readouterr()
    assert "every 0.50 s from 2.00 s on" in said.out
    assert (f"the predictor's error in street.mp4 is {error:.2f}" in said.err) == warned


def test_surprise_and_horizon_are_commands(run, clips, tmp_path, capsys):
    assert (
        main(["surprise", str(run), str(clips / "000001.npy"), "--count", "2", "--out", str(tmp_path), "--json"]) == 0
    )
    (file,) = json.loads(capsys.readouterr().out)["files"]
    assert len(file["moments"]) == 1  # no two are a second apart
    table = list(csv.DictReader((tmp_path / "000001.npy.csv").open(encoding="utf-8")))
    assert [int(row["frame"]) for row in table] == list(range(6, FRAMES, 2))
    assert max(table, key=lambda row: float(row["score"]))["frame"] == str(file["moments"][0]["frame"])
    assert (tmp_path / "000001.npy.png").stat().st_size > 1000
    assert main(["horizon", str(run), str(clips), "--context", "2", "--out", str(tmp_path / "h"), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result == json.loads((tmp_path / "h.json").read_text(encoding="utf-8"))
    assert (result["ahead"], result["unit"], result["clips"]) == ([2.0, 4.0], "frames", CLIPS)
    assert (tmp_path / "h.png").stat().st_size > 1000


def test_features_have_the_scale_of_the_training_clips_or_else_of_those_given(run, tmp_path, capsys):
    forecaster = load_forecaster(str(run), {}, CPU)
    data = forecaster.data.dataset(forecaster.data.listing())
    features = forecaster.forecast(data.read(torch.arange(len(data)), None).views[0], 1).features
    for ours, theirs in zip(forecaster.scale, Scale.of([features]), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4)
    shutil.copytree(run, tmp_path / "run")
    config = json.loads((tmp_path / "run" / "config.json").read_text(encoding="utf-8"))
    config["data"]["root"] = [str(tmp_path / "gone")]
    (tmp_path / "run" / "config.json").write_text(json.dumps(config), encoding="utf-8")
    moved = load_forecaster(str(tmp_path / "run"), {}, CPU)
    assert moved.scale is None and "the training clips are gone" in capsys.readouterr().out
    (tmp_path / "gone").mkdir()
    assert load_forecaster(str(tmp_path / "run"), {}, CPU).scale is None  # nothing is in the folder
    (tmp_path / "gone" / "clip.npy").write_bytes(b"damaged")
    assert load_forecaster(str(tmp_path / "run"), {}, CPU).scale is None
    assert "no training clip can be decoded" in capsys.readouterr().out
    data = in_memory(forecaster.data, videos := random_clips(6, frames=8))
    moved_scale = Scale.of([moved.forecast(videos, 2).features])
    truth = moved_scale.apply(moved.forecast(videos, 2).features)
    result = measure_horizon(moved, data, list(range(6)), context=2)
    assert result.persistence[0] == pytest.approx(float((truth[:, 1] - truth[:, 2]).square().mean()), rel=1e-4)


def test_the_horizon_is_that_of_plain_arithmetic(forecaster):
    videos = random_clips(6, frames=8)
    data = in_memory(forecaster.data, videos)
    result = measure_horizon(forecaster, data, list(range(6)), context=2)
    forecast = forecaster.forecast(videos, 2)
    truth = forecaster.scale.apply(forecast.features)
    for step in (0, 1):
        hidden = truth[:, 2 + step]
        assert result.persistence[step] == pytest.approx(float((truth[:, 1] - hidden).square().mean()), rel=1e-4)
        assert result.predictor[step] == pytest.approx(
            float((forecast.predicted[:, step] - hidden).square().mean()), rel=1e-4
        )
        assert result.mean[step] == pytest.approx(float(hidden.var(0, correction=0).mean()), rel=1e-4)
    assert len(result.roll_out) == 2


def test_the_map_back_recovers_a_linear_map():
    generator = torch.Generator().manual_seed(0)
    x, weight = torch.randn(500, 8, generator=generator), torch.randn(8, 5, generator=generator)
    fitted = FeatureMap.fit(x, x @ weight + 3)
    torch.testing.assert_close(fitted.apply(x), x @ weight + 3, atol=0.2, rtol=0)


def test_the_future_is_predicted_by_runs_on_video_alone(tmp_path):
    with pytest.raises(UserError, match="is not a run and has no predictor"):
        load_forecaster(str(tmp_path), {}, CPU)
    with pytest.raises(UserError, match="--context must be 1 to 3 of the 4 time steps of a clip, got 4"):
        choose_context(4, 2, 4)
    assert choose_context(0, 3, 4) == 3


def test_moments_of_a_real_clip_have_its_own_times(forecaster, jepa_data):
    pytest.importorskip("av")
    file = sorted((jepa_data("video") / "clips").glob("*.mp4"))[0]
    result = measure_surprise(forecaster, str(file), context=3)
    np.testing.assert_allclose(result.time, result.frame / 12, atol=1e-3)  # twelve frames a second
