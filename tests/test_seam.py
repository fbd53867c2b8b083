"""The seam that every modality, method and mask strategy goes through, on tiny ones outside the package."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from openjepa.cli.grouped import parse_grouped
from openjepa.core.errors import UserError
from openjepa.core.registry import find, load_plugins
from openjepa.core.types import Batch, Keep, Masks, Output, Shared
from openjepa.data.streams import choose_streams
from openjepa.interop.pretrained import load_run, untrained_encoder
from openjepa.masking.multiblock import MultiBlock
from openjepa.masking.random import Random
from openjepa.methods.base import BaseMethod
from openjepa.training import loop
from openjepa.training.config import Pretrain, from_json, load_config, to_json
from openjepa.training.optim import Optim, build_optimizer
from openjepa.training.run import pretrain
from openjepa.training.run_folder import load_newest_method
from openjepa.training.settings import Stream
from openjepa.training.setup import build_model, prepare_data
from openjepa.training.stages import Stages, load_stages, run_stages
from openjepa.training.step import micro_batches, train_step
from tests.conftest import CPU, METHODS
from tests.ranks import rank_environments
from tests.ready import Ready
from tests.tiny.generated import Generated

TINY = Path(__file__).with_name("tiny")
PLUGINS = [
    str(TINY / f"{name}.py")
    for name in (
        "points", "nearest", "ring", "volume", "rollout", "two_sensors", "shifted",
        "two_streams", "from_teacher", "two_levels", "world", "undo", "centroid", "kinds", "tiny_recipes",
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
    "rollout, jepa": case("rollout", METHODS["averaged"]),
    "rollout, world model": case("rollout", tiny("method", "world")),
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


@pytest.mark.parametrize("modality", ["points", "ring", "volume", "rollout"])
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


def test_a_method_without_masks_gets_none_and_does_not_need_a_grid_that_fits_them():
    for settings in (CASES["crop with conditions"], case("ring", METHODS["vicreg"], MultiBlock())):
        assert build(settings)[1][0].batch.masks == ()
    with pytest.raises(UserError, match="--masks multiblock requires a grid with 1 or 2 axes, got a set of tokens"):
        build(case("ring", METHODS["averaged"], MultiBlock()))


def test_pooling_for_probes_ignores_padding():
    settings = case("points", METHODS["averaged"])
    encoder, view = untrained_encoder(settings), settings.data.synthetic(8, 0).views[0]
    padded = torch.nn.functional.pad(view, (0, 0, 0, 5))
    torch.testing.assert_close(encoder.encode(view).last4, encoder.encode(padded).last4, atol=1e-5, rtol=1e-4)


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


def test_streams_take_turns_by_weight_from_their_first_step():
    assert choose_streams([1.0, 1.0], [0, 0], 6).tolist() == [0, 1, 0, 1, 0, 1]
    thirds = choose_streams([2.0, 1.0], [0, 0], 300)
    assert (thirds == 1).sum() == 100
    late = choose_streams([1.0, 1.0], [0, 50], 100)
    assert not late[:50].any() and (late[50:] == 1).sum() == 25
    assert choose_streams([1.0, 3.0], [0, 7], 40).tolist() == choose_streams([1.0, 3.0], [0, 7], 90)[:40].tolist()


def test_a_step_of_a_stream_has_its_batch_size_its_masks_and_its_own_samples():
    _, steps = build(replace(CASES["two streams"], steps=12))
    batches = [steps[number].batch for number in range(12)]
    assert {(batch.stream, len(batch.index), batch.masks[0].target.shape[2]) for batch in batches} == {
        (0, 16, 4),
        (1, 8, 2),
    }
    own = [batch.index.tolist() for batch in batches if batch.stream == 1]
    assert own == [list(range(8 * number, 8 * number + 8)) for number in range(len(own))]
    again = build(replace(CASES["two streams"], steps=12))[1][5].batch
    assert all(torch.equal(one, other) for one, other in zip(again.views, batches[5].views, strict=True))


def test_streams_of_a_recipe_have_flags_and_survive_json(recwarn):
    """Each has its own; no flag loses what the recipe says, and tyro has nothing to warn of."""
    flags = ["--streams.0.weight", "0.25", "--streams.0.data.size", "40", "--streams.0.masks.mask-ratio", "0.75"]
    settings = parse_grouped(CASES["two streams"], flags, "jepa pretrain", "")
    (stream,) = settings.streams
    assert stream == Stream(tiny("modality", "shifted", size=40), Random(0.75), batch_size=8, weight=0.25)
    assert from_json(json.loads(json.dumps(to_json(settings)))) == settings
    assert not [each for each in recwarn if "type parameter" in str(each.message)]


class Decoded(Generated):
    """Samples that take long to read."""

    decodes_files = True


def test_a_data_set_says_whether_loader_processes_pay(monkeypatch):
    settings = replace(CASES["volume, jepa"], workers=-1)
    listing = settings.data.listing()
    assert prepare_data(settings, CPU, listing, None)[1].workers == 0
    dataset = type(settings.data).dataset
    monkeypatch.setattr(type(settings.data), "dataset", lambda *arguments: Decoded(*dataset(*arguments)))
    assert prepare_data(settings, CPU, listing, None)[1].workers == 1


def test_micro_batches_cut_what_has_a_row_per_sample_and_nothing_else():
    batch = Batch((torch.arange(4.0),), torch.arange(4), conditions=torch.arange(8.0).view(4, 1, 2))
    statistic = torch.arange(3.0)
    parts = list(micro_batches(batch, (torch.arange(4), Shared(statistic), torch.tensor(5.0)), 2))
    assert [part.batch.conditions.shape[0] for part in parts] == [2, 2]
    assert all(part.targets[1].value is statistic and part.targets[2] == 5 for part in parts)
    with pytest.raises(ValueError, match="put values that all samples share into"):
        list(micro_batches(batch, statistic, 2))


class CountsSamples(BaseMethod):
    """A method whose metric is the mean of its micro-batch."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(1))

    def masks(self, batch: Batch) -> tuple[Masks, ...]:
        order = (batch.views[0] * self.weight).argsort(1)  # a mask that needs the networks
        return (Masks(order[:, :1], order[:, None, 1:]),)

    def forward(self, batch: Batch, targets: None) -> Output:
        hidden = batch.views[0].gather(1, batch.masks[0].target[:, 0])
        assert (hidden >= batch.views[0].amin(1, keepdim=True)).all()
        return Output((self.weight * batch.views[0].mean()).sum(), {"mean": batch.views[0].mean()}, batch.views[0])

    def encoders(self):
        return {}


def test_metrics_are_those_of_the_whole_batch_and_masks_can_come_from_the_method():
    method, view = CountsSamples(), torch.rand(8, 3)
    optimizer, batch = build_optimizer(method, Optim()), Batch((view,), torch.arange(8))
    result = train_step(method, optimizer, batch, Optim().at(0, 1), CPU, accumulate=4)
    assert result.output.metrics["mean"] == pytest.approx(view.mean().item()) and len(result.output.features) == 8


def test_a_group_of_parameters_has_its_own_learning_rate():
    method, _ = build(CASES["two streams"])
    optimizer = build_optimizer(method, Optim(lr=1e-3, start_lr=1e-3, warmup=0.0))
    train_step(method, optimizer, build(CASES["two streams"])[1][0].batch, Optim(lr=1e-3, warmup=0.0).at(0, 9), CPU)
    rates = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    assert rates[id(method.head.weight)] == 2 * rates[id(method.predictor.mask_token)]


def test_a_teacher_is_frozen_not_saved_and_must_not_change(teacher, tmp_path):
    settings = replace(settings_of("pair with teacher", teacher), out=tmp_path / "run")
    method, _ = build(settings)
    before = {name: value.clone() for name, value in method.teachers["teacher"].encoder.state_dict().items()}
    stop_and_resume(settings)
    after = method.teachers["teacher"].encoder.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert not any("teacher" in name for name in method.state_dict())
    other = pretrain(replace(second_sensor(), out=tmp_path / "other", seed=1))
    moved = replace(settings, method=replace(settings.method, teacher=str(other)), resume="yes", steps=8)
    with pytest.raises(UserError, match=r"the teacher .* has changed since the run started"):
        pretrain(moved)
    with pytest.raises(UserError, match="give the folder of an earlier run, --method.teacher RUN"):
        build(CASES["pair with teacher"])


def test_every_named_encoder_is_exported_and_loaded(tmp_path):
    out = pretrain(replace(CASES["volume, two levels"], out=tmp_path / "run"))
    view = CASES["volume, two levels"].data.synthetic(8, 0).views[0]
    for which in ("", "high", "low"):
        run, export = load_run(out, which), load_run(out / "export", which)
        assert torch.equal(run.encode(view).last, export.encode(view).last)
    low, high = (load_run(out / "export", which).encode(view).last for which in ("low", "high"))
    assert not torch.allclose(low, high) and torch.equal(high, load_run(out / "export").encode(view).last)
    for folder in (out, out / "export"):
        with pytest.raises(UserError, match="try --encoder high or low"):
            load_run(folder, "middle")


def test_a_run_killed_in_any_stage_ends_with_the_weights_of_one_that_was_not(tmp_path):
    common = {"device": "cpu", "precision": "fp32", "workers": 0, "report": False, "save_every": 2}
    stages = Stages(tuple(replace(each, **common) for each in find("recipe", "second-then-first")().runs))
    run_stages(stages, tmp_path / "whole", pretrain)
    resumed = Stages(tuple(replace(each, resume="if-any") for each in stages.runs))
    for stage, step in ((1, 3), (1, 4), (2, 1), (2, 5)):
        with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
            die_in(patch, f"stage-{stage}", step)
            run_stages(resumed, tmp_path / "killed", pretrain)
    last = run_stages(resumed, tmp_path / "killed", pretrain)
    one, other = (
        load_newest_method(folder, load_config(folder))[0].state_dict()
        for folder in (tmp_path / "whole" / "stage-2", last)
    )
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert load_stages(tmp_path / "killed").runs[1].method.teacher == "stage-1"
    with pytest.raises(UserError, match="already holds a run: continue it with --resume"):
        run_stages(stages, tmp_path / "killed", pretrain)
    (tmp_path / "killed" / "stages.json").write_text("{}")
    with pytest.raises(UserError, match=r"stages.json cannot be read .*: name the recipe again"):
        load_stages(tmp_path / "killed")


def die_in(patch: pytest.MonkeyPatch, stage: str, step: int) -> None:
    """Interrupt a stage after a number of steps of this attempt."""
    act = loop.Meters.on_step

    def count(self, finite, batch):
        act(self, finite, batch)
        self.taken = getattr(self, "taken", 0) + 1
        if self.settings.out.name == stage and self.taken >= step:
            raise KeyboardInterrupt

    patch.setattr(loop.Meters, "on_step", count)


def test_a_config_names_a_class_and_never_an_import_path(tmp_path):
    plain = to_json(CASES["points, jepa"])
    assert [plain[part]["type"] for part in ("data", "method", "masks")] == ["points", "jepa", "nearest"]
    assert from_json(plain) == CASES["points, jepa"]
    for name in ("os:system", "tests.tiny.points", "tests/tiny/points.py", "hologram"):
        with pytest.raises(UserError, match=r"unknown modality .* --plugin"):
            from_json({**plain, "data": {"type": name}})
