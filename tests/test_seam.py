"""The seam that every modality, method and mask strategy goes through, on tiny ones outside the package."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from openjepa.core.registry import find, load_plugins
from openjepa.core.types import Keep
from openjepa.masking.random import Random
from openjepa.training.config import Pretrain, load_config, to_json
from openjepa.training.optim import Optim, build_optimizer
from openjepa.training.run import pretrain
from openjepa.training.run_folder import load_newest_method
from openjepa.training.settings import Stream
from openjepa.training.setup import build_model
from openjepa.training.step import micro_batches, train_step
from tests.conftest import CPU, METHODS
from tests.ranks import rank_environments
from tests.ready import Ready

TINY = Path(__file__).with_name("tiny")
PLUGINS = [
    str(TINY / f"{name}.py")
    for name in (
        "points", "nearest", "ring", "volume", "trajectory", "two_sensors", "shifted",
        "two_streams", "from_teacher", "two_levels", "world", "undo",
    )
]  # fmt: skip
load_plugins(PLUGINS)


def tiny(kind: str, name: str, **settings: object):
    """Build a class that a plug-in registers."""
    return find(kind, name)(**settings)


def case(modality: str, method: object, masks: object = Random(0.5), **more: object) -> Pretrain:
    optim = Optim(lr=3e-3, start_lr=3e-3, warmup=0.0, ema_momentum=0.9, final_ema_momentum=1.0)
    data = tiny("modality", modality)
    return Pretrain(data, method, masks, optim, steps=6, batch_size=16, device="cpu", precision="fp32", report=False,
                    log_every=2, save_every=3, workers=0, **more)  # fmt: skip


def second_sensor() -> Pretrain:
    """Return the run whose encoder is the teacher of the pair."""
    settings = case("two-sensors", METHODS["mae"])
    return replace(settings, data=replace(settings.data, second=True))


CASES = {
    "points, jepa": case("points", METHODS["averaged"], tiny("masks", "nearest")),
    "points, mae": case("points", METHODS["mae"]),
    "graph, jepa": case("ring", METHODS["averaged"]),
    "graph, mae": case("ring", METHODS["mae"]),
    "volume, jepa": case("volume", METHODS["averaged"]),
    "volume, two levels": case("volume", tiny("method", "two-levels")),
    "trajectory, jepa": case("trajectory", METHODS["averaged"]),
    "trajectory, world model": case("trajectory", tiny("method", "world")),
    "crop with conditions": case("shifted", tiny("method", "undo")),
    "two streams": case(
        "shifted", tiny("method", "two-streams"),
        streams=(Stream(tiny("modality", "shifted", size=48), Random(0.25), batch_size=8, weight=0.5),),
    ),
    "pair with teacher": case("two-sensors", tiny("method", "from-teacher")),
}  # fmt: skip
every_case = pytest.mark.parametrize("name", CASES)


@pytest.fixture(scope="module")
def teacher(tmp_path_factory) -> Path:
    """Train the encoder that the pair learns from."""
    folder = tmp_path_factory.mktemp("teacher") / "run"
    return pretrain(replace(second_sensor(), out=folder))


def settings_of(name: str, teacher: Path) -> Pretrain:
    """Return the settings of a case, with the teacher's folder where it has one."""
    settings = CASES[name]
    if "teacher" in name:
        return replace(settings, method=replace(settings.method, teacher=str(teacher)))
    return settings


def build(settings: Pretrain):
    """Build the networks and the steps of a run."""
    return build_model(settings, settings.data.dataset(settings.data.listing()), CPU)


@every_case
def test_the_loss_falls(name, teacher):
    settings = settings_of(name, teacher)
    method, steps = build(replace(settings, steps=12))
    fixed = replace(settings.optim, ema_momentum=1.0)  # targets that do not move
    optimizer = build_optimizer(method, fixed)
    first: dict[int, float] = {}
    last: dict[int, float] = {}
    for number in range(100):
        batch = steps[number % 4].batch  # the same few batches again and again
        loss = float(train_step(method, optimizer, batch, fixed.at(0, 12), CPU, clip=1.0).output.loss)
        first.setdefault(batch.stream, loss)
        last[batch.stream] = loss
    assert all(last[stream] < 0.85 * first[stream] for stream in first), (first, last)


@every_case
def test_micro_batches_give_the_gradient_of_the_whole_batch(name, teacher):
    method, steps = build(replace(settings_of(name, teacher), steps=3))
    for number in range(3):
        batch = steps[number].batch
        targets = method.targets(batch)
        gradients = []
        for parts in (1, 2):
            method.zero_grad()
            for micro in micro_batches(batch, targets, parts):
                (method(micro.batch, micro.targets).loss / parts).backward()
            gradients.append(torch.cat([p.grad.flatten() for p in method.parameters() if p.grad is not None]))
        torch.testing.assert_close(gradients[0], gradients[1], atol=1e-5, rtol=1e-3)


@pytest.mark.parametrize("modality", ["points", "ring", "volume", "trajectory"])
def test_context_features_do_not_depend_on_hidden_tokens(modality):
    """Also those of a tokenizer that mixes neighbors: it sees hidden ones as padding."""
    masks = tiny("masks", "nearest") if modality == "points" else Random(0.5)
    method, steps = build(case(modality, METHODS["averaged"], masks))
    batch = steps[0].batch
    (mask,), tokens = batch.masks, method.modality.tokens(batch.views[0])
    visible = torch.zeros(tokens.x.shape[:2], dtype=torch.bool).scatter_(1, mask.context, True)
    keep = Keep(mask.context[:, None], None if mask.context_valid is None else mask.context_valid[:, None])
    changed = tokens._replace(x=torch.where(visible[..., None], tokens.x, torch.randn_like(tokens.x)))
    one, other = (method.context_encoder(each, keep)[0].x for each in (tokens, changed))
    assert torch.equal(one, other)


@pytest.mark.parametrize("method", ["averaged", "mae", "pixels"])
def test_padding_of_ragged_sets_changes_nothing(method):
    """Neither losses nor targets nor features: a batch with more padding gives the same."""
    net, steps = build(case("points", METHODS[method], tiny("masks", "nearest")))
    batch = steps[0].batch
    padded = batch._replace(views=(torch.nn.functional.pad(batch.views[0], (0, 0, 0, 5)),))
    one, other = (net(each, net.targets(each)) for each in (batch, padded))
    torch.testing.assert_close(one.loss, other.loss, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(one.features, other.features, atol=1e-5, rtol=1e-4)
    for metric, value in one.metrics.items():
        torch.testing.assert_close(value, other.metrics[metric], atol=1e-4, rtol=1e-3)


def test_maskers_get_positions_validity_and_progress():
    """The nearest points of a sample are its target, padding is never masked, and targets grow during the run."""
    _, steps = build(case("points", METHODS["averaged"], tiny("masks", "nearest")))
    sizes = []
    for number in (0, 5):
        batch = steps[number].batch
        pos, valid = batch.views[0][..., :3], batch.views[0][..., 3] != 0
        (mask,) = batch.masks
        target = mask.target[:, 0]
        assert valid.gather(1, target).all()
        points = pos.gather(1, target[..., None].expand(-1, -1, 3))
        others = torch.ones_like(valid).scatter(1, target, False) & valid
        reach = (points - points[:, :1]).norm(dim=-1).amax(1)
        nearest = torch.where(others, (pos - points[:, :1]).norm(dim=-1), torch.inf).amin(1)
        assert (reach <= nearest).all()
        sizes.append(target.shape[1])
    assert sizes[0] < sizes[1]


def test_a_run_resumes_exactly_on_every_case(teacher, tmp_path):
    for name in CASES:
        settings = settings_of(name, teacher)
        whole = replace(settings, out=tmp_path / f"whole {name}")
        parted = replace(settings, out=tmp_path / f"parted {name}")
        pretrain(whole)
        stop_and_resume(parted)
        one, other = (load_newest_method(each.out, load_config(each.out))[0].state_dict() for each in (whole, parted))
        assert one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one), name


def stop_and_resume(settings: Pretrain) -> None:
    """Stop a run by an error after its checkpoint of step 3, then resume it."""
    from openjepa.training import loop

    report = loop.Meters.on_step

    def fail(self, finite, batch):
        report(self, finite, batch)
        if self.samples_seen == 4:
            raise KeyboardInterrupt
        self.samples_seen += 1

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop.Meters, "samples_seen", 0, raising=False)
        patch.setattr(loop.Meters, "on_step", fail)
        with pytest.raises(KeyboardInterrupt):
            pretrain(settings)
    pretrain(replace(settings, resume="yes"))


TWO_RANKS = """
import json, sys
from pathlib import Path
import torch
from openjepa.core.registry import load_plugins
from tests.small import small
small()
arguments = json.loads(sys.argv[1])
load_plugins(arguments["plugins"])
from openjepa.training.config import from_json
from openjepa.training.run import pretrain
from openjepa.training.device import choose_device
from openjepa.training.parallel.launch import process_group
with process_group(choose_device("cpu", "fp32").device):
    for each in arguments["runs"]:
        pretrain(from_json(each))
"""


def test_two_processes_train_as_one_does(teacher, tmp_path):
    runs = [replace(settings_of(name, teacher), out=tmp_path / "two" / name) for name in CASES]
    arguments = json.dumps({"plugins": PLUGINS, "runs": [to_json(each) for each in runs]})
    processes = [Ready(TWO_RANKS, arguments, env=each) for each in rank_environments(2)]
    for settings in runs:
        pretrain(replace(settings, out=tmp_path / "one" / settings.out.name))
    assert [process.wait(timeout=240) for process in processes] == [0, 0]
    for settings in runs:
        one, other = (
            load_newest_method(folder, load_config(folder))[0].state_dict()
            for folder in (tmp_path / "one" / settings.out.name, settings.out)
        )
        start = settings.method.build(settings.data, settings.seed).state_dict()
        one, other, start = (torch.cat([x.float().flatten() for x in each.values()]) for each in (one, other, start))
        assert (one - other).norm() < 0.02 * (one - start).norm(), settings.out.name
