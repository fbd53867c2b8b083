"""Two processes against one: fp32 losses within 1e-6, features within 1e-4; and a resume at another rank count."""

import json
import os
import re
import signal
import socket
import sys
import threading
import time

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from openjepa.cli.pretrain import pretrain
from openjepa.core.errors import UserError
from openjepa.core.types import Layout
from openjepa.data.loader import Steps
from openjepa.evaluation.features import compute_features
from openjepa.interop.pretrained import load_run, untrained_encoder
from openjepa.masking.multiblock import MultiBlock
from openjepa.methods.lejepa import LeJEPA
from openjepa.methods.mc_jepa import MCJEPA
from openjepa.modalities.image_pair import ImagePair
from openjepa.nn.expander import ExpanderConfig
from openjepa.nn.pyramid import PyramidConfig
from openjepa.training.checkpoint import list_checkpoints, load_newest
from openjepa.training.config import OnlineProbe, load_config
from openjepa.training.log import read_metrics
from openjepa.training.parallel import launch as distributed_launch
from openjepa.training.parallel.launch import unreachable_ranks
from openjepa.training.settings import Stream
from openjepa.viz.report import write_report_at_end
from tests.conftest import CPU, METHODS, MODALITIES, SMALL, replace, slow
from tests.ranks import GUARDED, RUN, rank_environments, settings_argument, start_ranks
from tests.ready import Ready


def torchrun(settings, ranks: int = 2, code: str = RUN, status: int = 0) -> None:
    """The run to its end; every process leaves with `status`."""
    assert [process.wait(240) for process in start_ranks(settings, ranks, code)] == [status] * ranks


def losses(out) -> list[float]:
    return [row["loss"] for row in read_metrics(out / "metrics.jsonl")]


def features(out) -> torch.Tensor:
    trained = load_run(out)
    view = MODALITIES["image"].synthetic(8, 3).read(torch.arange(8), None).views[0]
    (tokens,) = trained.encoder(trained.config.data.tokens(view))
    return tokens.x


@slow
def test_a_run_of_two_ranks_reports_as_one_process_does(tiny):
    """Its figures are of whole batches, although targets are standardised over what all ranks see."""
    torchrun(replace(tiny, steps=5, report=True))
    page = tiny.out / "report.html"
    written = page.read_text()
    assert 'id="prediction"' in written
    page.unlink()
    write_report_at_end(tiny.out)
    assert figures_of(page.read_text()) == figures_of(written)


def figures_of(page: str) -> list[str]:
    return re.findall(r"<img[^>]*>|<p>Error of hidden[^<]*", page)


@pytest.mark.parametrize(
    "method", [pytest.param("released", marks=slow), pytest.param("averaged", marks=slow), "rotary"]
)
def test_two_ranks_equal_one(tiny, method):
    tiny = replace(tiny, method=METHODS[method], steps=20)
    one, two = replace(tiny, out=tiny.out.with_name("one")), replace(tiny, out=tiny.out.with_name("two"))
    pretrain(one)
    torchrun(two)
    np.testing.assert_allclose(losses(two.out), losses(one.out), atol=1e-6, rtol=0)
    torch.testing.assert_close(features(two.out), features(one.out), atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", ["vicreg", "lejepa", pytest.param("lejepa, sliced", marks=slow)])
def test_joint_embedding_on_two_ranks_has_the_losses_of_one_process(tiny, name):
    """Also after steps. Features may differ: the loss does not depend on their mean, so its gradient is rounding."""
    embedding = ExpanderConfig(64, 2, 8)
    methods = {
        "vicreg": METHODS["vicreg"],
        "lejepa": LeJEPA(SMALL, embedding, views=2),
        "lejepa, sliced": LeJEPA(SMALL, embedding, views=2, regularizer="sliced", slices=16),
    }
    tiny = replace(tiny, method=methods[name], steps=20 if name == "vicreg" else 6)
    one, two = replace(tiny, out=tiny.out.with_name("one")), replace(tiny, out=tiny.out.with_name("two"))
    pretrain(one)
    torchrun(two)
    np.testing.assert_allclose(losses(two.out), losses(one.out), rtol=1e-6)


def test_motion_on_two_ranks_has_the_losses_of_one_process(tiny):
    """Its terms compare cells of the whole batch, and each of its two streams uses a part of the weights."""
    data = ImagePair(root=tiny.data.root, size=(32, 32), patch=8)
    method = MCJEPA(PyramidConfig((8, 8, 16), (1, 1, 1), 3), ExpanderConfig(32, 2))
    streams = (Stream(replace(data, pairs="warps"), tiny.masks, batch_size=8),)
    tiny = replace(tiny, data=data, method=method, streams=streams, steps=6)
    one, two = replace(tiny, out=tiny.out.with_name("one")), replace(tiny, out=tiny.out.with_name("two"))
    pretrain(one)
    torchrun(two)
    np.testing.assert_allclose(losses(two.out), losses(one.out), rtol=1e-5)


def test_a_run_of_two_ranks_goes_on_with_one(tiny):
    pretrain(replace(tiny, out=tiny.out.with_name("one"), steps=20))
    torchrun(
        replace(tiny, steps=20, async_save=False),
        code=RUN.replace(
            "pretrain(from_json",
            "from openjepa.training.meters import Meters\nMeters.on_step = HALT(Meters.on_step)\npretrain(from_json",
        ).replace("import json", HALT + "import json", 1),
    )
    assert load_newest(tiny.out / "checkpoints").step == 10
    pretrain(replace(tiny, steps=20, resume="yes"))
    np.testing.assert_allclose(losses(tiny.out), losses(tiny.out.with_name("one")), atol=1e-6, rtol=0)


def test_two_ranks_are_the_same_with_probes_and_without(tiny, photos):
    plain = replace(tiny, out=tiny.out.with_name("plain"))
    probed = replace(tiny, online_probe=OnlineProbe((str(photos),), every=5, samples=40))
    for each in (plain, probed):
        torchrun(each)
    one, other = (
        load_file(list_checkpoints(each.out / "checkpoints")[0] / "model.safetensors") for each in (plain, probed)
    )
    assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)
    assert sum("online_knn" in row for row in read_metrics(probed.out / "metrics.jsonl")) == 3


HALT = """
def HALT(took):
    count = [0]
    def halted(self, finite, masks):
        took(self, finite, masks)
        count[0] += 1
        if count[0] == 12:
            import os
            os._exit(0)
    return halted
"""


FULL = """
from openjepa.core.errors import RunError
from openjepa.training import checkpoint
def full(*_):
    raise OSError(28, "No space left on device")
checkpoint.write_durable = full
try:
    pretrain(from_json(json.loads(sys.argv[1])))
except RunError as trouble:
    os._exit(9 if "could not" in str(trouble) and "--resume yes" in str(trouble) else 1)
"""


def test_all_ranks_leave_when_the_last_save_fails(tiny):
    torchrun(replace(tiny, steps=5), code=RUN.rsplit("\n", 2)[0] + FULL, status=9)
    assert not list_checkpoints(tiny.out / "checkpoints")  # and nobody takes half a save for one


def test_moments_of_the_shares_are_those_of_the_whole(tmp_path):
    """Targets are standardized over the global batch: the features of all ranks together have mean 0, variance 1."""
    code = f"""
import os, torch
import torch.distributed as dist
from openjepa.nn.target_transforms import global_mean_var
dist.init_process_group("gloo")
x = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(dist.get_rank())) + 5 * dist.get_rank()
mean, variance = global_mean_var(x)
torch.save((x, mean, variance), r"{tmp_path}/" + str(dist.get_rank()))
dist.destroy_process_group()
"""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    processes = [
        Ready(
            code,
            env={**os.environ, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": "2", "RANK": str(rank)},
        )
        for rank in range(2)
    ]
    assert [process.wait(120) for process in processes] == [0, 0]
    (x0, mean, variance), (x1, *other) = (torch.load(tmp_path / str(rank), weights_only=True) for rank in range(2))
    whole = torch.cat([x0, x1]).flatten(0, 1)
    torch.testing.assert_close(mean, whole.mean(0))
    torch.testing.assert_close(variance, whole.var(0, unbiased=False))
    assert torch.equal(mean, other[0])


def test_a_batch_that_does_not_divide_is_refused():
    data = MODALITIES["image"].synthetic(32, 0)
    with pytest.raises(UserError, match="try --batch-size 14"):
        Steps(data, MultiBlock(), Layout.grid(8, 8), batch_size=15, total_steps=1, seed=0, rank=0, world_size=2)


THREADS = (
    RUN
    + """
names = [open(f"/proc/self/task/{task}/comm").read().strip() for task in os.listdir("/proc/self/task")]
os._exit(any("gloo" in name for name in names))
"""
)


@pytest.mark.skipif(sys.platform != "linux", reason="threads are counted in /proc")
def test_no_thread_of_the_process_group_outlives_a_run(tiny):
    """One that lets go of a tensor while Python shuts down takes the process with it."""
    torchrun(replace(tiny, steps=5), code=THREADS)


def test_checkpoints_hold_no_rank(tiny):
    torchrun(replace(tiny, steps=5))
    model = load_file(list_checkpoints(tiny.out / "checkpoints")[0] / "model.safetensors")
    assert not any(name.startswith("module.") for name in model)


SHARED = """
import json, sys
from pathlib import Path
import torch
from openjepa.evaluation import feature_store
from openjepa.evaluation.features import compute_features
from openjepa.interop.pretrained import untrained_encoder
from openjepa.training.config import from_json
from openjepa.training.device import Device
from openjepa.training.parallel.launch import process_group
settings = from_json(json.loads(sys.argv[1]))
with process_group(torch.device("cpu")):
    data = settings.data.synthetic(300, 0)
    feature_store.CHUNK_ROWS = 100
    compute_features(untrained_encoder(settings), data, Device(torch.device("cpu"), False), ("last",), settings.out)
"""


def test_ranks_share_an_embedding(tiny):
    settings = replace(tiny, data=MODALITIES["image"])
    torchrun(settings, code=SHARED)
    theirs = load_file(tiny.out / "features.safetensors")
    data = MODALITIES["image"].synthetic(300, 0)
    torch.testing.assert_close(
        theirs["last"], compute_features(untrained_encoder(settings), data, CPU)["last"], atol=1e-6, rtol=0
    )
    assert theirs["label"].tolist() == data.label.tolist() and not list(tiny.out.glob("done-*"))


PROBED = """
import json, sys
from pathlib import Path
from openjepa.cli.probe import Probe, probe
from openjepa.evaluation.labeled import LabeledData
from openjepa.training.config import from_json
settings = from_json(json.loads(sys.argv[1]))
asked = Probe(
    run=str(settings.out), data=LabeledData(settings.data.root), probes=("knn",), device="cpu", precision="fp32",
    cache=settings.out / "features",
)
scores = probe(asked)
(settings.out / f"scores-{len(scores)}").touch()
"""


def test_ranks_share_the_embedding_and_the_main_one_probes(tiny):
    pretrain(tiny)
    torchrun(tiny, code=PROBED)
    assert sorted(file.name for file in tiny.out.glob("scores-*")) == ["scores-0", "scores-3"]
    assert len(list(tiny.out.glob("probes/*.json"))) == 1


BUDGET = RUN.replace(
    "pretrain(from_json",
    "from openjepa.training import budget, run\n"
    "run.time_step = lambda *_: budget.StepTiming(0.0, 0.05 + 0.05 * int(os.environ['RANK']), 0, 1e9)\n"
    "pretrain(from_json",
)


def test_ranks_agree_on_the_steps_of_a_budget(tiny):
    """The slower one decides; with different numbers they would wait for each other for ever."""
    torchrun(replace(tiny, steps=0, budget="3s", save_every=100), code=BUDGET)
    assert load_config(tiny.out).steps <= 30
    assert len(list_checkpoints(tiny.out / "checkpoints")) == 1


SUITE = """
import json, sys
from openjepa.cli import suite
from openjepa.evaluation import dense
from openjepa.evaluation.tasks import scenes
from openjepa.training.config import from_json
from tests.small import small
small()
scenes.SCENES, dense.DENSE_SCENES = (40, 20), (20, 10)
settings = from_json(json.loads(sys.argv[1]))
suite.suite(suite.Suite(run=str(settings.out), device="cpu", precision="fp32"))
"""


def test_ranks_share_a_suite(tiny):
    pretrain(tiny)
    torchrun(tiny, code=SUITE)
    text = (tiny.out / "suite" / "small.md").read_text()
    assert all(f"## {name}" in text for name in ("scenes-count", "scenes-distance", "scenes-kind", "scenes-patches"))
    kept = json.loads((tiny.out / "suite" / "scenes-count.json").read_text())["scores"]
    assert len(kept) == 9


@pytest.mark.parametrize(
    ("victim", "number"),
    [
        pytest.param(1, signal.SIGKILL, marks=slow),
        (0, signal.SIGKILL),
        pytest.param(1, signal.SIGSTOP, marks=slow),
        pytest.param(0, signal.SIGSTOP, marks=slow),
    ],
)
def test_a_rank_that_is_gone_or_stopped_is_named_by_the_other_which_leaves(tiny, victim, number):
    tiny = replace(tiny, steps=100_000, save_every=5, rank_timeout="8s")
    processes = start_ranks(tiny, code=GUARDED, capture_stderr=True)
    until = time.monotonic() + 90
    while len(list_checkpoints(tiny.out / "checkpoints")) < 2:
        assert time.monotonic() < until and processes[0].poll() is None
        time.sleep(0.05)
    processes[victim].send_signal(number)
    _, said = processes[1 - victim].communicate(timeout=60)
    processes[victim].kill()
    processes[victim].communicate(timeout=60)
    assert processes[1 - victim].returncode == 1, said
    assert f"rank {victim} of 2 has died or does not answer" in said and "--resume yes" in said
    assert load_newest(tiny.out / "checkpoints").step > 0


def test_a_roll_call_ends_with_its_answer(monkeypatch):
    """Its thread, asking on while Python shuts down, took the process with it in seven of twelve."""
    monkeypatch.setattr(distributed_launch, "ROLL_CALL_SECONDS", 0.3)
    before = threading.enumerate()
    assert unreachable_ranks(torch.distributed.HashStore(), 0, 3) == [1, 2]
    assert threading.enumerate() == before


WATCHED = """
from pathlib import Path
def watched(settings):
    try:
        pretrain(settings)
    finally:
        if any("gloo" in each.read_text() for each in Path("/proc/self/task").glob("*/comm")):
            sys.exit("a thread of the group is left")
"""


def test_a_signal_to_one_rank_stops_both_at_the_same_step(tiny):
    """And ends the group's threads, by which one in ten would else wait for ever at its end."""
    tiny = replace(tiny, steps=100_000, save_every=100_000)
    processes = start_ranks(tiny, code=WATCHED + GUARDED.replace("lambda _: pretrain(", "lambda _: watched("))
    until = time.monotonic() + 90
    while not read_metrics(tiny.out / "metrics.jsonl"):
        assert time.monotonic() < until and processes[0].poll() is None
        time.sleep(0.05)
    processes[1].send_signal(signal.SIGTERM)
    assert [process.wait(60) for process in processes] == [128 + signal.SIGTERM] * 2
    assert len(list_checkpoints(tiny.out / "checkpoints")) == 1


def test_ranks_meet_in_one_group_after_another_even_if_rank_0_is_late_to_leave():
    """As between the stages of a recipe: the other rank must not join what rank 0 is about to close."""
    code = """
import os, time, torch
import torch.distributed as dist
from datetime import timedelta
from openjepa.training.parallel.launch import process_group
destroy = dist.destroy_process_group
def leave():
    time.sleep(0.5 * (os.environ["RANK"] == "0"))
    destroy()
dist.destroy_process_group = leave
for number in range(3):
    with process_group(torch.device("cpu"), timedelta(seconds=15 + number)):
        x = torch.ones(1) * (dist.get_rank() + number)
        dist.all_reduce(x)
        assert x.item() == 1 + 2 * number
"""
    processes = [Ready(code, env=each) for each in rank_environments(2)]
    try:
        assert [process.wait(40) for process in processes] == [0, 0]
    finally:
        for process in processes:
            process.kill()


def test_an_error_of_our_own_is_not_taken_for_a_rank_that_is_gone(tiny):
    """Both answer the roll call, and the error is told as it is."""
    broken = GUARDED.replace(
        "launch.ROLL_CALL_SECONDS = 4.0",
        "from openjepa.training import run\ndef broken(*_): raise RuntimeError('broken')\nrun.train = broken",
    )
    processes = start_ranks(tiny, code=broken, capture_stderr=True)
    said = [process.communicate(timeout=120)[1] for process in processes]
    assert all("RuntimeError: broken" in each and "has died" not in each for each in said)


@pytest.mark.parametrize("variables", [{"RANK": "0"}, {"RANK": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "9"}])
def test_processes_that_do_not_find_one_another_say_so(tiny, variables):
    """Variables left over from elsewhere, and a first rank that is not there."""
    left = {name: value for name, value in os.environ.items() if name not in ("MASTER_ADDR", "MASTER_PORT")}
    settings, env = replace(tiny, rank_timeout="3s"), {**left, "WORLD_SIZE": "2", **variables}
    process = Ready(GUARDED, settings_argument(settings), env=env, capture_stderr=True)
    _, said = process.communicate(timeout=90)
    assert process.returncode == 1 and "WORLD_SIZE is 2, but the processes could not connect" in said
    assert "start them with torchrun, or unset WORLD_SIZE" in said
