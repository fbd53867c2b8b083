"""Runs survive odd folders, failing disks, few file handles, dying workers, slow ranks: docs/explained/scenarios.md."""

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
from openjepa.core.types import Layout
from openjepa.data import loader as data
from openjepa.data.listing import list_files
from openjepa.data.loader import Steps, check_shared_memory, load_steps
from openjepa.masking.multiblock import MultiBlock
from openjepa.modalities.image import Image
from openjepa.training import checkpoint, checkpoint_writer
from openjepa.training.checkpoint import list_checkpoints, load_newest, prune_checkpoints
from openjepa.training.log import read_metrics
from tests.conftest import METHODS, MODALITIES, replace
from tests.faults import run_in_fork
from tests.ranks import GUARDED, RUN, start_ranks
from tests.test_distributed import torchrun

ROOT = Path(__file__).parents[1]


def same_weights(one: Path, other: Path) -> bool:
    """Return whether two runs end at the same step with bit-identical weights."""
    a, b = (load_newest(out / "checkpoints") for out in (one, other))
    return a.step == b.step and all(torch.equal(a.model[name], b.model[name]) for name in b.model)


@pytest.fixture
def plain(tiny) -> Path:
    """Return the folder of an undisturbed run."""
    pretrain(replace(tiny, out=tiny.out.with_name("plain")))
    return tiny.out.with_name("plain")


def test_partial_writes_store_the_whole_file(tmp_path, monkeypatch):
    write = os.write
    monkeypatch.setattr(os, "write", lambda handle, content: write(handle, content[:777]))
    content = np.random.default_rng(0).bytes(10_000)
    write_durable(tmp_path / "file", content)
    assert (tmp_path / "file").read_bytes() == content


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE, errno.EDQUOT, errno.EMFILE])
def test_a_failed_save_is_a_warning_and_the_next_one_is_written(tiny, plain, monkeypatch, capsys, number):
    flush, failed = fsync_path, []

    def fail(path):
        if not failed and path.name.startswith(".step-"):
            failed.append(path)
            raise OSError(number, os.strerror(number))
        flush(path)

    monkeypatch.setattr(checkpoint, "fsync_path", fail)
    pretrain(replace(tiny, keep_last=1))
    assert failed and os.strerror(number) in capsys.readouterr().err
    assert same_weights(tiny.out, plain)
    assert [path.name for path in (tiny.out / "checkpoints").iterdir()] == ["step-00000012"]


def test_the_last_checkpoint_stays_until_the_next_one_is_complete(tiny, monkeypatch):
    """With --keep-last 1 and a failed save, the previous checkpoint stays."""
    flush = fsync_path

    def fail(path):
        if path.name.startswith(".step-00000010"):
            raise OSError(errno.ENOSPC, "No space left on device")
        flush(path)

    monkeypatch.setattr(checkpoint, "fsync_path", fail)
    prune, listings = prune_checkpoints, []
    monkeypatch.setattr(
        checkpoint_writer,
        "prune_checkpoints",
        lambda folder, *rest: (prune(folder, *rest), listings.append(list_checkpoints(folder))),
    )
    pretrain(replace(tiny, keep_last=1))
    assert [[path.name for path in each] for each in listings] == [["step-00000005"], ["step-00000012"]]


def test_a_run_needs_few_open_files(tiny):
    """It needs those that the libraries open, and a few more."""

    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (len(list(Path("/proc/self/fd").iterdir())) + 12, 1024))
        pretrain(tiny)

    assert run_in_fork(limited) == 0
    assert load_newest(tiny.out / "checkpoints").step == 12


@pytest.mark.parametrize("name", ["a place with spaces", "Übung 数据 é", "quote'\"s", "-dash", "new\nline", "x" * 200])
def test_a_run_folder_may_have_any_name(tiny, plain, name):
    odd = replace(tiny, out=tiny.out.with_name(name))
    pretrain(replace(odd, steps=5))
    pretrain(replace(odd, resume="yes"))
    assert load_newest(odd.out / "checkpoints").step == 12 and (odd.out / "export").is_dir()


def test_a_run_folder_may_be_a_symlink_and_a_relative_path(tiny, plain, tmp_path, monkeypatch):
    (tmp_path / "elsewhere").mkdir()
    tiny.out.symlink_to(tmp_path / "elsewhere")
    monkeypatch.chdir(tmp_path)
    relative = replace(tiny, out=Path(os.path.relpath(tiny.out)))
    monkeypatch.setattr("openjepa.training.checkpoint_writer.prune_checkpoints", lambda *_: None)
    pretrain(relative)
    assert same_weights(tmp_path / "elsewhere", plain)


def test_the_newest_checkpoint_is_the_one_with_the_most_steps_whatever_its_date(tiny):
    pretrain(tiny)
    for age, path in enumerate(list_checkpoints(tiny.out / "checkpoints")):
        os.utime(path, (1e9 + age, 1e9 + age))  # the older checkpoints get the later dates
    assert load_newest(tiny.out / "checkpoints").step == 12


def make_steps() -> Steps:
    return Steps(
        MODALITIES["image"].synthetic(40, 0), MultiBlock(), Layout.grid(8, 8), batch_size=4, total_steps=400, seed=0
    )


def test_a_killed_worker_is_a_clear_error():
    steps = load_steps(make_steps(), 0, workers=1, pin=False)
    next(steps)
    (worker,) = active_children()
    os.kill(worker.pid, signal.SIGKILL)
    with pytest.raises(UserError, match=r"a data-loading worker was killed.*--resume yes --workers 0"):
        for _ in steps:
            pass


def test_an_error_in_a_worker_reads_the_same_as_without_workers(tmp_path):
    for number in range(20):
        (tmp_path / f"{number}.jpg").write_bytes(b"no picture")
    config = Image(root=(str(tmp_path),), size=(32, 32), patch=4, mean=(0.5,) * 3, std=(0.25,) * 3)
    steps = Steps(
        config.dataset(config.listing()), MultiBlock(), Layout.grid(8, 8), batch_size=4, total_steps=9, seed=0
    )
    messages = []
    for workers in (0, 1):
        with pytest.raises(UserError) as error:
            next(load_steps(steps, 0, workers=workers, pin=False))
        messages.append(str(error.value))
    assert messages[0] == messages[1] and "16 files in a row" in messages[0] and "\n" not in messages[0]


def test_too_little_shared_memory_is_an_error_before_torch_hangs(tmp_path, monkeypatch):
    monkeypatch.setattr(data, "SHARED_MEMORY", tmp_path)
    monkeypatch.setattr(data.shutil, "disk_usage", lambda _: data.shutil._ntuple_diskusage(10**6, 10**6, 2000))
    with pytest.raises(
        UserError, match=r"shared memory is full: .* has 0.0 MB free, a batch needs 1.0 MB: .*--shm-size"
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


def test_a_non_finite_loss_on_one_rank_skips_the_update_on_all_ranks(tiny):
    """After the reduction no rank has a finite gradient; weights, optimizer state and EMA encoder stay the same."""
    settings = replace(tiny, log_every=1)
    torchrun(settings, code=POISONED)
    assert [row["step"] for row in read_metrics(tiny.out / "metrics.jsonl") if "loss" not in row] == [4]
    end = load_newest(tiny.out / "checkpoints")
    assert end.step == 12 and all(x.isfinite().all() for x in [*end.model.values(), *end.optimizer.values()])
    assert {float(value) for name, value in end.optimizer.items() if name.endswith(":step")} == {11.0}


@pytest.mark.slow
def test_ranks_wait_for_one_that_pauses_for_less_than_the_timeout(tiny, plain):
    settings = replace(tiny, steps=400, save_every=100_000, rank_timeout="60s")
    processes = start_ranks(settings, code=GUARDED)
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
def test_runs_with_extreme_schedules_train_to_the_end(tiny, optim):
    for steps in (1, 3):
        extreme = replace(tiny, steps=steps, optim=replace(tiny.optim, **optim), out=tiny.out.with_name(f"of {steps}"))
        pretrain(extreme)
        end = load_newest(extreme.out / "checkpoints")
        assert end.step == steps and all(x.isfinite().all() for x in end.model.values())


def test_a_pipe_named_like_an_image_is_not_opened(photos, tmp_path):
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "one.png").symlink_to(next(photos.rglob("*.png")))
    assert [Path(path).name for path in list_files([str(tmp_path)], frozenset({".jpg", ".png"})).paths] == ["one.png"]


def test_a_minimal_environment_is_enough(photos, tmp_path):
    """Without HOME, with LANG=C and one thread."""
    command = [sys.executable, "-m", "openjepa", "doctor", str(photos), "--out", str(tmp_path / "doctor")]
    environment = {
        "PATH": "/nowhere",
        "LANG": "C",
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(ROOT),
        "MPLCONFIGDIR": str(tmp_path),
    }
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "doctor" / "doctor.png").is_file()


def test_ten_thousand_ema_updates_are_accurate():
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


@pytest.mark.parametrize("page", ["docs/explained/scenarios.md", "studies/cases.md"])
def test_every_test_named_in_the_lists_of_scenarios_and_cases_exists(page):
    named = set(re.findall(r"`(test_\w+)`", (ROOT / page).read_text()))
    sources = [*(ROOT / "tests").glob("*.py"), *(ROOT / "tests" / "cases").glob("*.py")]
    tests = {name for file in sources for name in re.findall(r"def (test_\w+)", file.read_text())}
    files = {file.stem for file in sources}
    assert len(named) > 25 and not named - tests - files, named - tests - files
