"""What else happens to runs: odd folders, poor disks, few handles, workers that die, ranks that pause; docs/scenarios.md lists all."""

import errno
import os
import re
import resource
import signal
import subprocess
import sys
import time
from multiprocessing import active_children
from pathlib import Path

import numpy as np
import pytest
import torch

from openjepa.cli.pretrain import pretrain
from openjepa.core.errors import UserError
from openjepa.core.fileio import fsync_path, write_durable
from openjepa.data import loader as data
from openjepa.data.listing import list_files
from openjepa.data.loader import Steps, check_shared_memory, load_steps
from openjepa.masking.multiblock import MultiBlock
from openjepa.modalities.image import Image
from openjepa.training import checkpoint, checkpoint_writer
from openjepa.training.checkpoint import list_checkpoints, load_newest, prune_checkpoints
from openjepa.training.log import read_metrics
from tests.conftest import METHODS, MODALITIES, replace
from tests.faults import forked
from tests.ranks import GUARDED, RUN, started
from tests.test_distributed import torchrun

ROOT = Path(__file__).parents[1]


def same(one: Path, other: Path) -> bool:
    mine, theirs = (load_newest(out / "checkpoints") for out in (one, other))
    return mine.step == theirs.step and all(torch.equal(mine.model[name], theirs.model[name]) for name in theirs.model)


@pytest.fixture
def plain(tiny) -> Path:
    """A run that nothing happened to."""
    pretrain(replace(tiny, out=tiny.out.with_name("plain")))
    return tiny.out.with_name("plain")


def test_a_disk_that_writes_a_little_at_a_time_stores_the_same(tmp_path, monkeypatch):
    whole = os.write
    monkeypatch.setattr(os, "write", lambda handle, content: whole(handle, content[:777]))
    content = np.random.default_rng(0).bytes(10_000)
    write_durable(tmp_path / "file", content)
    assert (tmp_path / "file").read_bytes() == content


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE, errno.EDQUOT, errno.EMFILE])
def test_a_save_that_the_system_refuses_is_told_and_the_next_one_made(tiny, plain, monkeypatch, capsys, number):
    flush, failed = fsync_path, []

    def refusing(path):
        if not failed and path.name.startswith(".step-"):
            failed.append(path)
            raise OSError(number, os.strerror(number))
        flush(path)

    monkeypatch.setattr(checkpoint, "fsync_path", refusing)
    pretrain(replace(tiny, keep_last=1))
    assert failed and os.strerror(number) in capsys.readouterr().err
    assert same(tiny.out, plain)
    assert [path.name for path in (tiny.out / "checkpoints").iterdir()] == ["step-00000012"]


def test_one_checkpoint_kept_is_there_until_the_next_one_is(tiny, monkeypatch):
    """With --keep-last 1 and a save that fails, the older one stays."""
    flush = fsync_path

    def refusing(path):
        if path.name.startswith(".step-00000010"):
            raise OSError(errno.ENOSPC, "No space left on device")
        flush(path)

    monkeypatch.setattr(checkpoint, "fsync_path", refusing)
    prune, seen = prune_checkpoints, []
    monkeypatch.setattr(
        checkpoint_writer,
        "prune_checkpoints",
        lambda folder, *rest: (prune(folder, *rest), seen.append(list_checkpoints(folder))),
    )
    pretrain(replace(tiny, keep_last=1))
    assert [[path.name for path in each] for each in seen] == [["step-00000005"], ["step-00000012"]]


def test_a_run_needs_few_open_files(tiny):
    """As few as the libraries themselves open, and some."""

    def few() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (len(list(Path("/proc/self/fd").iterdir())) + 12, 1024))
        pretrain(tiny)

    assert forked(few) == 0
    assert load_newest(tiny.out / "checkpoints").step == 12


@pytest.mark.parametrize("name", ["a place with spaces", "Übung 数据 é", "quote'\"s", "-dash", "new\nline", "x" * 200])
def test_a_run_may_lie_anywhere(tiny, plain, name):
    odd = replace(tiny, out=tiny.out.with_name(name))
    pretrain(replace(odd, steps=5))
    pretrain(replace(odd, resume="yes"))
    assert load_newest(odd.out / "checkpoints").step == 12 and (odd.out / "export").is_dir()


def test_a_run_behind_a_link_goes_on_from_elsewhere(tiny, plain, tmp_path, monkeypatch):
    (tmp_path / "elsewhere").mkdir()
    tiny.out.symlink_to(tmp_path / "elsewhere")
    monkeypatch.chdir(tmp_path)
    relative = replace(tiny, out=Path(os.path.relpath(tiny.out)))
    monkeypatch.setattr("openjepa.training.checkpoint_writer.prune_checkpoints", lambda *_: None)
    pretrain(relative)
    assert same(tmp_path / "elsewhere", plain)


def test_the_newest_checkpoint_is_that_of_the_most_steps_whatever_the_clock_says(tiny):
    pretrain(tiny)
    for age, path in enumerate(list_checkpoints(tiny.out / "checkpoints")):
        os.utime(path, (1e9 + age, 1e9 + age))  # the older ones look younger
    assert load_newest(tiny.out / "checkpoints").step == 12


def made() -> Steps:
    return Steps(MODALITIES["image"].synthetic(40, 0), MultiBlock((8, 8)), batch_size=4, total=400, seed=0)


def test_a_worker_that_was_killed_is_told_in_a_sentence():
    steps = load_steps(made(), 0, workers=1, pin=False)
    next(steps)
    (worker,) = active_children()
    os.kill(worker.pid, signal.SIGKILL)
    with pytest.raises(UserError, match=r"a loader process was killed.*--resume yes --workers 0"):
        for _ in steps:
            pass


def test_what_goes_wrong_in_a_worker_is_told_as_it_was_there(tmp_path):
    for number in range(20):
        (tmp_path / f"{number}.jpg").write_bytes(b"no picture")
    config = Image(root=(str(tmp_path),), size=(32, 32), patch=4, mean=(0.5,) * 3, std=(0.25,) * 3)
    steps = Steps(config.dataset(config.listing()), MultiBlock((8, 8)), batch_size=4, total=9, seed=0)
    said = []
    for workers in (0, 1):
        with pytest.raises(UserError) as told:
            next(load_steps(steps, 0, workers=workers, pin=False))
        said.append(str(told.value))
    assert said[0] == said[1] and "16 files in a row" in said[0] and "\n" not in said[0]


def test_shared_memory_that_is_too_small_is_told_before_torch_waits_for_ever(tmp_path, monkeypatch):
    monkeypatch.setattr(data, "SHARED_MEMORY", tmp_path)
    monkeypatch.setattr(data.shutil, "disk_usage", lambda _: data.shutil._ntuple_diskusage(10**6, 10**6, 2000))
    with pytest.raises(
        UserError, match=r"shared memory is full: .* has 0.0 MB left, and a batch wants 1.0: .*--shm-size"
    ):
        check_shared_memory(10**6, 2)
    check_shared_memory(100, 2)


POISONED = RUN.replace(
    "pretrain(from_json",
    """
from openjepa.methods.jepa import MaskedJEPA
forward, count = MaskedJEPA.forward, [0]
def poisoned(self, *given):
    output = forward(self, *given)
    count[0] += 1
    bad = count[0] == 4 and os.environ["RANK"] == "1"
    return output._replace(loss=output.loss * float("nan")) if bad else output
MaskedJEPA.forward = poisoned
pretrain(from_json""",
    1,
)


def test_a_loss_that_is_not_finite_on_one_rank_is_a_step_that_no_rank_takes(tiny):
    """The others' gradients are not finite after the reduction; weights, moments and the average stay as they were."""
    settings = replace(tiny, log_every=1)
    torchrun(settings, code=POISONED)
    assert [row["step"] for row in read_metrics(tiny.out / "metrics.jsonl") if "loss" not in row] == [4]
    end = load_newest(tiny.out / "checkpoints")
    assert end.step == 12 and all(x.isfinite().all() for x in [*end.model.values(), *end.optimizer.values()])
    assert {float(value) for name, value in end.optimizer.items() if name.endswith(":step")} == {11.0}


@pytest.mark.slow
def test_a_rank_that_pauses_for_less_than_the_patience_is_waited_for(tiny, plain):
    settings = replace(tiny, steps=400, save_every=100_000, rank_timeout="60s")
    processes = started(settings, code=GUARDED)
    until = time.monotonic() + 90
    while not (tiny.out / "metrics.jsonl").is_file() or not read_metrics(tiny.out / "metrics.jsonl"):
        assert time.monotonic() < until and processes[0].poll() is None
        time.sleep(0.05)
    processes[1].send_signal(signal.SIGSTOP)
    time.sleep(5)
    assert processes[0].poll() is None
    processes[1].send_signal(signal.SIGCONT)
    assert [process.wait(120) for process in processes] == [0, 0]
    assert load_newest(tiny.out / "checkpoints").step == 400


@pytest.mark.parametrize(
    "optim", [{"lr": 0.0, "start_lr": 0.0, "final_lr": 0.0}, {"weight_decay": 0.0}, {"warmup": 0.99}, {"warmup": 0.0}]
)
def test_schedules_at_their_ends_train_to_the_end(tiny, optim):
    for steps in (1, 3):
        own = replace(tiny, steps=steps, optim=replace(tiny.optim, **optim), out=tiny.out.with_name(f"of {steps}"))
        pretrain(own)
        end = load_newest(own.out / "checkpoints")
        assert end.step == steps and all(x.isfinite().all() for x in end.model.values())


def test_a_pipe_named_as_a_picture_is_not_opened(photos, tmp_path):
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "one.png").symlink_to(next(photos.rglob("*.png")))
    assert [Path(path).name for path in list_files([str(tmp_path)], frozenset({".jpg", ".png"})).paths] == ["one.png"]


def test_a_poor_environment_is_enough(photos, tmp_path):
    """No home, no language, absurd threads."""
    command = [sys.executable, "-m", "openjepa", "doctor", str(photos), "--out", str(tmp_path / "doctor")]
    poor = {
        "PATH": "/nowhere",
        "LANG": "C",
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(ROOT),
        "MPLCONFIGDIR": str(tmp_path),
    }
    done = subprocess.run(command, env=poor, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "doctor" / "doctor.png").is_file()


def test_the_average_follows_ten_thousand_steps_as_in_double_precision():
    method = METHODS["released"].build(MODALITIES["image"])
    (target, *_), (context, *_) = method.target_encoder.parameters(), method.context_encoder.parameters()
    expected, noise = target.double(), torch.Generator().manual_seed(0)
    for step in range(10_000):
        momentum = 0.996 + step * (1.0 - 0.996) / 10_000
        with torch.no_grad():
            context.copy_(torch.randn(context.shape, generator=noise))
        method.after_step(momentum)
        expected = momentum * expected + (1 - momentum) * context.double()
    torch.testing.assert_close(target.double(), expected, atol=1e-6, rtol=0)


def test_every_test_that_the_list_of_scenarios_names_is_there():
    named = set(re.findall(r"`(test_\w+)`", (ROOT / "docs" / "scenarios.md").read_text()))
    there = {name for file in (ROOT / "tests").glob("*.py") for name in re.findall(r"def (test_\w+)", file.read_text())}
    files = {file.stem for file in (ROOT / "tests").glob("*.py")}
    assert len(named) > 60 and not named - there - files, named - there - files
