"""Episodes in files: windows, layouts, resizing, normalization, refused files, LeRobot data sets, training."""

import json
import pickle
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
import torch
from PIL import Image as Pillow

from openjepa.cli.main import main
from openjepa.core.errors import UserError
from openjepa.core.protocols import Dataset
from openjepa.core.types import Batch
from openjepa.data.episode_survey import choose_cells, choose_scale
from openjepa.data.synthetic.rooms import draw_episodes, render
from openjepa.methods.world_model import WorldModel
from openjepa.modalities.trajectory import Trajectory
from openjepa.recipes.trajectory import STATE_LATENT, choose_settings
from openjepa.training.optim import Optim, build_optimizer
from openjepa.training.step import train_step
from tests.conftest import CPU
from tests.test_rooms import rng

LENGTHS = (5, 3, 9, 2)  # actions of each episode


def states_of(episode, length):
    """Return states that tell the episode and the time, so that a test knows where a window comes from."""
    return np.stack([np.full(length + 1, 100 * episode), np.arange(length + 1)], 1).astype(np.float32)


def actions_of(episode, length):
    return (100 * episode + np.arange(length) + np.array([[0.0], [0.5]])).T.astype(np.float32)


def frames_of(episode, length, channels=2, size=(8, 8)):
    numbers = (10 * episode + np.arange(length + 1)).astype(np.uint8)
    return np.broadcast_to(numbers[:, None, None, None], (length + 1, *size, channels)).copy()


@pytest.fixture
def folder(tmp_path):
    for number, length in enumerate(LENGTHS):
        np.savez_compressed(
            tmp_path / f"{number}.npz",
            actions=actions_of(number, length),
            states=states_of(number, length),
            observations=frames_of(number, length),
            rewards=np.ones(length),
            terminated=True,
        )
    return tmp_path


def trajectory(folder, **settings):
    defaults = {"steps": 3, "size": (8, 8), "patch": 2, "state_dim": 2}
    return Trajectory(root=(str(folder),), **(defaults | settings))


def read_all(data, **settings):
    modality = trajectory(data, **settings)
    episodes = modality.dataset(modality.listing())
    return episodes, episodes.read(torch.arange(len(episodes)), None)


@pytest.mark.parametrize(("steps", "stride"), [(3, 1), (1, 1), (2, 2), (1, 4)])
def test_a_window_never_crosses_two_episodes_and_all_windows_occur_once(folder, steps, stride):
    episodes, samples = read_all(folder, sensors="states", steps=steps, stride=stride)
    (view,) = samples.views
    assert isinstance(episodes, Dataset) and view.dtype == torch.float32
    assert (view[:, :, 0] == view[:, :1, 0]).all()
    assert (view[:, :, 1].diff(dim=1) == stride).all()
    reach = steps * stride
    expected = [(100 * number, first) for number, each in enumerate(LENGTHS) for first in range(each - reach + 1)]
    assert view[:, 0].tolist() == [list(map(float, each)) for each in expected]


def test_actions_lie_between_the_observations_of_a_window(folder):
    _, samples = read_all(folder, sensors="states", steps=2, stride=2)
    assert samples.conditions is not None and samples.conditions.shape[1:] == (4, 2)
    number_of_action = samples.views[0][:, 0].sum(1, keepdim=True) + torch.arange(4)
    assert torch.equal(samples.conditions[..., 0], number_of_action)
    assert torch.equal(samples.conditions[..., 1], number_of_action + 0.5)


def test_actions_are_divided_by_their_scale(folder):
    one, other = (read_all(folder, action_scale=scale)[1].conditions for scale in (1.0, 50.0))
    torch.testing.assert_close(other, one / 50)
    with pytest.raises(UserError, match=r"--data\.action-scale must be > 0, got 0"):
        trajectory(folder, action_scale=0.0)


@pytest.mark.parametrize(("size", "scale"), [(1.0, 1.0), (5.0, 1.0), (0.0, 1.0), (60.0, 60.0), (0.002, 0.002)])
def test_actions_of_the_order_of_one_keep_their_scale(size, scale):
    actions = size * np.array([[-1.0, 0.0], [1.0, 0.0]], np.float32)
    assert choose_scale(actions) == pytest.approx(scale)


def test_a_view_has_the_frames_with_channels_first(folder):
    _, samples = read_all(folder)
    _, of_states = read_all(folder, sensors="states")
    (view,) = samples.views
    assert view.dtype == torch.uint8 and view.shape[1:] == (4, 2, 8, 8)
    numbers = of_states.views[0][..., 0] / 10 + of_states.views[0][..., 1]
    assert torch.equal(view, numbers.byte()[..., None, None, None].expand_as(view))


def test_reading_is_a_function_of_the_index_also_in_a_loader_process(folder):
    episodes, samples = read_all(folder)
    index = torch.tensor([4, 0, 4, 7])
    copied = pickle.loads(pickle.dumps(episodes)).read(index, rng(4))
    assert torch.equal(copied.views[0], samples.views[0][index])
    assert torch.equal(copied.conditions, samples.conditions[index])


def test_a_data_set_keeps_its_fingerprint_in_a_loader_process(folder):
    episodes, _ = read_all(folder)
    vars(episodes).pop("computed_fingerprint", None)  # shape checks of tests look at every attribute
    copied = pickle.loads(pickle.dumps(episodes))
    assert copied.fingerprint == read_all(folder)[0].fingerprint != read_all(folder, steps=2)[0].fingerprint


def test_many_episodes_of_one_length_may_lie_in_one_file(folder, tmp_path):
    arrays = [(actions_of(each, 4), states_of(each, 4), frames_of(each, 4)) for each in range(3)]
    actions, states, frames = map(np.stack, zip(*arrays, strict=True))
    (tmp_path / "many").mkdir()
    np.savez(tmp_path / "many" / "all.npz", actions=actions, states=states, observations=frames)
    for sensors in ("states", "frames"):
        episodes, samples = read_all(tmp_path / "many", sensors=sensors)
        assert len(episodes) == 3 * 2
        assert samples.views[0][2, 1].flatten()[0] == (100 if sensors == "states" else 11)
        assert episodes.source(2).endswith("all.npz#1@0")


def test_folders_of_images_read_as_files_of_frames_do(folder, tmp_path):
    out = tmp_path / "folders"
    for number, length in enumerate(LENGTHS):
        (out / f"{number}").mkdir(parents=True)
        for step, frame in enumerate(frames_of(number, length, 3)):
            Pillow.fromarray(frame).save(out / f"{number}" / f"frame_{step}.png")
        np.save(out / f"{number}" / "actions.npy", actions_of(number, length))
        np.save(out / f"{number}" / "states.npy", states_of(number, length))
    for settings in ({"sensors": "states"}, {}):
        _, expected = read_all(folder, **settings)
        _, samples = read_all(out, **({"channels": 3} | settings))
        assert torch.equal(samples.views[0][:, :, :2], expected.views[0])
        assert torch.equal(samples.conditions, expected.conditions)


def test_frames_are_resized_to_the_size_of_the_settings(tmp_path):
    walks = draw_episodes("two-rooms", rng(1), 4)
    frames = render(walks.rooms.wall, walks.position)[0]
    np.savez(tmp_path / "one.npz", actions=walks.action[0].numpy(), observations=frames.permute(0, 2, 3, 1).numpy())
    _, same = read_all(tmp_path, size=(33, 33), patch=3, steps=4)
    _, small = read_all(tmp_path, size=(11, 11), patch=1, steps=4)
    assert torch.equal(same.views[0][0], frames)
    assert small.views[0].shape == (1, 5, 2, 11, 11)
    torch.testing.assert_close(small.views[0].float().mean((3, 4)), frames.float().mean((2, 3))[None], atol=2, rtol=0)


def test_collected_rooms_give_the_tokens_of_rendered_rooms(tmp_path):
    rooms = Trajectory(steps=4)
    walks = draw_episodes("two-rooms", rng(6), 4)
    frames = render(walks.rooms.wall, walks.position).permute(0, 1, 3, 4, 2)
    np.savez(tmp_path / "all.npz", actions=walks.action.numpy(), observations=frames.numpy())
    files = Trajectory(root=(str(tmp_path),), steps=4)
    data = files.dataset(files.listing())
    files = files.measure(data)
    one, other = data.read(torch.arange(6), None), rooms.synthetic(6, 0).read(torch.arange(6), None)
    assert torch.equal(files.tokens(one.views[0]).x, rooms.tokens(other.views[0]).x)
    assert torch.equal(one.conditions, other.conditions)


def test_states_are_normalized_once_by_the_statistics_of_all_observations(folder):
    modality = trajectory(folder, sensors="states")
    data = modality.dataset(modality.listing())
    long_enough = [states_of(number, each) for number, each in enumerate(LENGTHS) if each >= 3]
    mean, std = np.concatenate(long_enough).mean(0), np.concatenate(long_enough).std(0)
    measured = modality.measure(data)
    np.testing.assert_allclose(measured.mean, mean, rtol=1e-5)
    np.testing.assert_allclose(measured.std, std, rtol=1e-5)
    view = measured.dataset(modality.listing()).read(torch.arange(4), None).views[0]
    assert torch.equal(view, data.read(torch.arange(4), None).views[0])  # as they are in the files
    tokens = measured.tokens(view)
    torch.testing.assert_close(tokens.x, (view - torch.tensor(mean)) / torch.tensor(std), rtol=1e-4, atol=1e-5)
    assert tokens.pos[0].tolist() == [[time, 0, 0] for time in range(4)] and tokens.x.shape[2] == measured.token_dim
    assert measured.layout.shape == (4, 1, 1) and measured.measure(data) is measured


def test_a_value_that_never_changes_becomes_zero(tmp_path):
    states = np.stack([np.full(6, 7.0), np.arange(6)], 1)
    np.savez(tmp_path / "one.npz", actions=np.zeros((5, 2)), states=states)
    modality = trajectory(tmp_path, sensors="states")
    data = modality.dataset(modality.listing())
    x = modality.measure(data).tokens(data.read(torch.arange(3), None).views[0]).x
    assert x[..., 0].eq(0).all() and x[..., 1].std() > 0.1


def test_frames_without_a_scale_are_normalized_by_their_channels(tmp_path):
    frames = np.random.default_rng(0).integers(0, 256, (9, 8, 8, 3), np.uint8)
    np.savez(tmp_path / "one.npz", actions=np.zeros((8, 2)), observations=frames)
    modality = trajectory(tmp_path, channels=3, steps=8)
    data = modality.dataset(modality.listing())
    x = modality.measure(data).tokens(data.read(torch.tensor([0]), None).views[0]).x
    channels = x.unflatten(2, (3, -1))
    torch.testing.assert_close(channels.mean((0, 1, 3)), torch.zeros(3), atol=1e-3, rtol=0)
    torch.testing.assert_close(channels.std((0, 1, 3)), torch.ones(3), atol=1e-2, rtol=0)


WRONG = {
    "--data.action-dim 2": ({"action_dim": 3}, {}),
    "--data.state-dim 2": ({"sensors": "states", "state_dim": 4}, {}),
    "--data.channels 2": ({"channels": 3}, {}),
    "--data.sensors states --data.state-dim 2": ({}, {"observations": None}),
    "--data.sensors frames": ({"sensors": "states"}, {"states": None}),
    "--data.steps 5": ({"steps": 6}, {}),
    "remove the last action": ({}, {"actions": np.zeros((6, 2))}),
    "not finite": ({"sensors": "states"}, {"states": np.full((6, 2), np.nan)}),
    "frames as uint8": ({}, {"observations": np.zeros((6, 8, 8, 2), np.float32)}),
    "`actions` (T, A)": ({}, {"actions": None}),
    "write numbers": ({}, {"actions": np.array([["a", "b"]] * 5)}),
    "neither frames nor states": ({}, {"states": None, "observations": None}),
}


@pytest.mark.parametrize("advice", WRONG)
def test_files_that_do_not_fit_are_refused_with_what_to_type(advice, tmp_path):
    settings, changes = WRONG[advice]
    arrays = {"actions": actions_of(0, 5), "states": states_of(0, 5), "observations": frames_of(0, 5)} | changes
    np.savez(tmp_path / "one.npz", **{name: value for name, value in arrays.items() if value is not None})
    modality = trajectory(tmp_path, **settings)
    with pytest.raises(UserError) as error:
        modality.dataset(modality.listing())
    assert advice in str(error.value)


@pytest.mark.parametrize("content", [b"", b"no archive", b"PK\x03\x04 damaged"])
def test_damaged_files_are_named(content, tmp_path):
    (tmp_path / "bad.npz").write_bytes(content)
    modality = trajectory(tmp_path)
    with pytest.raises(UserError, match=r"bad\.npz cannot be read"):
        modality.dataset(modality.listing())


def test_objects_in_a_file_are_never_unpickled(tmp_path):
    np.savez(tmp_path / "bad.npz", actions=np.array([{"a": 1}], object), allow_pickle=True)
    modality = trajectory(tmp_path)
    with pytest.raises(UserError, match="cannot be read"):
        modality.dataset(modality.listing())


def test_a_folder_without_episodes_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("nothing")
    with pytest.raises(UserError, match="no episodes in"):
        trajectory(tmp_path).listing()


def test_rooms_have_no_states():
    with pytest.raises(UserError, match=r"--data\.root FOLDER"):
        replace(Trajectory(), sensors="states").synthetic(4, 0)


@pytest.mark.parametrize(
    ("size", "cells"), [((33, 33), ((33, 33), 3)), ((64, 64), ((64, 64), 8)), ((400, 600), ((64, 64), 8))]
)
def test_frames_are_cut_into_about_ten_cells(size, cells):
    assert choose_cells(size) == cells


def test_settings_are_chosen_for_the_files(folder):
    data, (reason,) = Trajectory(root=(str(folder),)).suggest()
    assert (data.sensors, data.channels, data.action_dim, data.state_dim, data.size) == ("frames", 2, 2, 2, (8, 8))
    assert data.action_scale == 100 and "actions are divided by 100" in reason
    assert data.steps == 2 and "about 4 of an episode" in reason  # half the median length
    assert choose_settings(data)[0].method.dynamics == "local"
    config, _ = choose_settings(replace(data, sensors="states"))
    assert config.method.dynamics == "mlp" and config.method.encoder.latent == "vector"


def test_a_world_model_learns_from_states(tmp_path):
    generator = np.random.default_rng(0)
    actions = generator.normal(size=(32, 8, 2)).astype(np.float32)
    states = np.concatenate([np.zeros((32, 1, 2), np.float32), actions.cumsum(1)], 1)
    np.savez(tmp_path / "all.npz", actions=actions, states=5 * states + 3)
    modality = trajectory(tmp_path, sensors="states", steps=4)
    data = modality.dataset(modality.listing())
    modality = modality.measure(data)
    method = WorldModel(replace(STATE_LATENT, dim=16, hidden=16), dynamics="mlp").build(modality, 0)
    samples = data.read(torch.arange(32), None)
    batch = Batch(samples.views, torch.arange(32), conditions=samples.conditions)
    config = Optim(lr=2e-3, ema_momentum=0.99)
    optimizer, hyper = build_optimizer(method, config), config.at(200, 1000)._replace(lr=2e-3)
    losses = [float(train_step(method, optimizer, batch, hyper, CPU, clip=5.0).output.loss) for _ in range(40)]
    assert min(losses[-5:]) < 0.5 * losses[0], losses


def test_the_command_trains_on_a_folder_of_episodes_and_resumes(folder, tmp_path):
    run = ["pretrain", "--data.root", str(folder), "--out", str(tmp_path / "run")]
    run += ["--batch-size", "4", "--device", "cpu", "--workers", "0", "--threads", "1", "--no-report"]
    assert main([*run, "--steps", "2"]) == 0
    assert main(["pretrain", "--resume", "--out", str(tmp_path / "run"), "--steps", "3"]) == 0
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["data"]["type"] == "trajectory" and config["data"]["action_dim"] == 2


# LeRobot data sets


def write_lerobot(root, lengths=(4, 6, 3), fps=10, cameras=("observation.images.top",), version="v3.0"):
    """Write a data set: two files of rows, and for each camera one video of two episodes and one of the rest."""
    arrow = pytest.importorskip("pyarrow", reason="pyarrow is not installed: pip install 'openjepa[parquet]'")
    parquet = pytest.importorskip("pyarrow.parquet")
    pytest.importorskip("av", reason="PyAV is not installed: pip install 'openjepa[video]'")
    features = {name: {"dtype": "video"} for name in cameras}
    features |= {"action": {"dtype": "float32"}, "observation.state": {"dtype": "float32"}}
    files = {0: [0, 1], 1: list(range(2, len(lengths)))}
    meta = []
    for file, episodes in files.items():
        rows = [(each, step) for each in episodes for step in range(lengths[each])]
        table = {
            "observation.state": [states_of(each, lengths[each] - 1)[step].tolist() for each, step in rows],
            "action": [actions_of(each, lengths[each])[step].tolist() for each, step in rows],
            "episode_index": [each for each, _ in rows],
            "frame_index": [step for _, step in rows],
        }
        save_table(arrow, parquet, root / "data" / "chunk-000" / f"file-{file:03d}.parquet", table)
        for name in cameras:
            video = root / "videos" / name / "chunk-000" / f"file-{file:03d}.mp4"
            write_video(video, [16 * (each + 1) + 8 * step for each, step in rows], fps)
        start = 0.0
        for each in episodes:
            places = {"chunk_index": 0, "file_index": file, "from_timestamp": start}
            keys = {f"videos/{name}/{key}": value for name in cameras for key, value in places.items()}
            meta.append({"episode_index": each, "length": lengths[each], **keys})
            start += lengths[each] / fps
    columns = {name: [row[name] for row in meta] for name in meta[0]}
    save_table(arrow, parquet, root / "meta" / "episodes" / "chunk-000" / "file-000.parquet", columns)
    info = {"codebase_version": version, "fps": fps, "features": features}
    (root / "meta" / "info.json").write_text(json.dumps(info))
    return root


def save_table(arrow, parquet, file, columns):
    file.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(arrow.table(columns), file)


def write_video(file, levels, fps):
    """Write gray frames of these levels."""
    import av

    file.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(file), "w") as container:
        stream = container.add_stream("libx264", rate=Fraction(fps), options={"x264-params": "log-level=none"})
        stream.width = stream.height = 32
        for level in levels:
            frame = av.VideoFrame.from_ndarray(np.full((32, 32, 3), level, np.uint8), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def test_a_lerobot_data_set_gives_states_actions_and_frames_of_each_episode(tmp_path):
    root = write_lerobot(tmp_path / "robot")
    _, of_states = read_all(root, sensors="states", steps=2)
    episodes, of_frames = read_all(root, steps=2, channels=3)
    states, frames = of_states.views[0], of_frames.views[0]
    assert len(episodes) == 2 + 4 + 1  # the last action of an episode leads nowhere
    assert torch.equal(of_states.conditions, of_frames.conditions)
    assert torch.equal(of_states.conditions[..., 0], states[:, :1, 0] + states[:, :2, 1])
    levels = 16 * (states[..., 0] / 100 + 1) + 8 * states[..., 1]
    torch.testing.assert_close(frames.float().mean((2, 3, 4)), levels, atol=3.0, rtol=0)
    assert episodes.source(2) == f"{root}#1@0"


def test_a_camera_of_a_lerobot_data_set_is_chosen_by_name(tmp_path):
    root = write_lerobot(tmp_path / "robot", cameras=("observation.images.side", "observation.images.top"))
    side, top = (root / "videos" / f"observation.images.{name}" for name in ("side", "top"))
    for file in side.rglob("*.mp4"):
        write_video(file, [200] * 10, 10)
    chosen = {name: read_all(root, steps=2, channels=3, camera=name)[1].views[0] for name in ("", side.name, top.name)}
    assert torch.equal(chosen[""], chosen[side.name]) and chosen[top.name].max() < 150 < chosen[""].min()
    with pytest.raises(UserError, match=r"type --data\.camera observation\.images\.side or"):
        read_all(root, channels=3, camera="wrist")


def test_a_lerobot_data_set_of_an_older_version_is_refused(tmp_path):
    root = write_lerobot(tmp_path / "robot", version="v2.1")
    with pytest.raises(UserError, match=r"version v2\.1: convert it to v3\.0"):
        read_all(root, channels=3)


def test_a_changed_byte_of_a_video_changes_the_fingerprint(tmp_path):
    root = write_lerobot(tmp_path / "robot")
    before = trajectory(root).listing().fingerprint
    video = next((root / "videos").rglob("*.mp4"))
    content = bytearray(video.read_bytes())
    content[-1] ^= 1
    video.write_bytes(content)
    assert trajectory(root).listing().fingerprint != before
