"""A run as a job: the same command, told in time to save, and then put back into the queue."""

import os
import signal
import time
from pathlib import Path

import pytest

from openjepa.cli.main import main
from openjepa.core.errors import UserError
from openjepa.training.checkpoint import list_checkpoints
from openjepa.training.config import Slurm
from openjepa.training.log import read_metrics
from openjepa.training.parallel.slurm import parse_option, resume_command, submit_to_slurm
from tests.conftest import replace
from tests.ranks import processes_with_variable

submitit = pytest.importorskip("submitit", reason="submitit is not installed: pip install 'openjepa[slurm]'")


def test_a_job_goes_on_where_it_was_left_and_submits_nothing_itself():
    typed = [
        "pretrain",
        "laptop",
        "--slurm.nodes",
        "2",
        "--out",
        "runs/a",
        "--slurm.options",
        "a=b",
        "c=d",
        "--slurm.time=3h",
        "--steps",
        "5",
    ]
    assert resume_command(typed) == ["pretrain", "laptop", "--out", "runs/a", "--steps", "5", "--resume", "if-any"]
    assert resume_command(["pretrain", "--resume", "yes"]) == ["pretrain", "--resume", "yes"]


def test_options_of_sbatch_are_names_and_values():
    assert parse_option("--mail-type=END") == ("mail_type", "END")
    with pytest.raises(UserError, match="must be NAME=VALUE, got 'exclusive'"):
        parse_option("exclusive")


def test_without_slurm_there_is_a_sentence(tiny, monkeypatch, capsys):
    monkeypatch.setenv("PATH", "/nowhere")
    flags = ["--data.root", *tiny.data.root, "--out", str(tiny.out), "--slurm.nodes", "1"]
    assert main(["pretrain", *flags]) == 1
    said = capsys.readouterr()
    assert "sbatch is not on this machine" in said.err and "chosen" not in said.out
    assert not tiny.out.exists()


def test_a_folder_that_holds_a_run_is_not_submitted_to(tiny):
    tiny.out.mkdir(parents=True)
    (tiny.out / "config.json").write_text("{}")
    with pytest.raises(UserError, match="already holds a run"):
        submit_to_slurm(replace(tiny, slurm=Slurm(nodes=1)), [], main, "local")


def test_a_job_of_no_time_is_refused(tiny):
    with pytest.raises(UserError, match=r"--slurm.time 24h"):
        replace(tiny, slurm=Slurm(nodes=1, time="1m"))


@pytest.mark.slow
def test_a_job_that_is_told_in_time_saves_is_put_back_and_goes_on(tiny, monkeypatch):
    """submitit starts it on this machine, as Slurm would on others."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(Path.cwd()), os.environ.get("PYTHONPATH", "")]))
    settings = replace(tiny, slurm=Slurm(nodes=1, gpus=0, cpus=1))
    encoder = "--method.encoder.dim 48 --method.encoder.depth 2 --method.encoder.num-heads 2"
    small = f"{encoder} --method.target-layers -1 --method.predictor.dim 24"
    paths = f"--data.root {tiny.data.root[0]} --out {tiny.out}"
    flags = f"cifar10 {small} {paths} --steps 200 --save-every 1000 --batch-size 16"
    typed = ["pretrain", *flags.split(), "--device", "cpu", "--threads", "1", "--slurm.nodes", "1"]
    job = submit_to_slurm(settings, typed, main, "local")
    until = time.monotonic() + 90
    while not (tiny.out / "metrics.jsonl").is_file() or not read_metrics(tiny.out / "metrics.jsonl"):
        assert time.monotonic() < until and job.state == "RUNNING", job.stderr()
        time.sleep(0.02)
    (task,) = processes_with_variable(f"SUBMITIT_LOCAL_JOB_ID={job.job_id}")
    os.kill(task, signal.SIGUSR2)
    assert job._process.wait(120) == 0
    steps = [int(path.name[5:]) for path in list_checkpoints(tiny.out / "checkpoints")]
    assert steps[0] == 200 and 0 < steps[1] < 200
    assert "stopped by SIGUSR2" in job.stderr() and f"resumed after step {steps[1]}" in job.stdout()
    assert [row["step"] for row in read_metrics(tiny.out / "metrics.jsonl")] == list(range(20, 201, 20))
