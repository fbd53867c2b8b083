"""Submit a run to Slurm through submitit, and requeue it until it has ended."""

from __future__ import annotations

import math
import os
import shutil
import time
from collections.abc import Callable
from types import ModuleType
from typing import Any

from openjepa.core.config import parse_duration
from openjepa.core.console import info
from openjepa.core.errors import UserError
from openjepa.training.config import Pretrain
from openjepa.training.resume import is_resuming

NOTICE_SECONDS = 120  # seconds before the end of its time at which a job is told

MAX_TIMEOUTS = 1000  # that a job may come to the end of its time


class SlurmJob:
    """What runs on the machines: `act` on the arguments, once for every process."""

    def __init__(self, act: Callable[[list[str]], int], arguments: list[str]):
        self.act, self.arguments = act, arguments

    def __call__(self) -> None:
        from submitit import JobEnvironment
        from submitit.helpers import TorchDistributedEnvironment

        TorchDistributedEnvironment().export(set_cuda_visible_devices=False, overwrite=True)
        status = self.act(self.arguments)
        asked = JobEnvironment._usr_sig()
        if status == 128 + asked:  # the run has saved and left; now submitit may hear of it
            os.kill(os.getpid(), asked)  # the first process puts the job back and ends here
            time.sleep(NOTICE_SECONDS)  # the others are ended with it, and not before it
        raise SystemExit(status)

    def checkpoint(self) -> object:
        """What submitit is to start when the job's turn comes again: the same, which goes on from the last checkpoint."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


def submit_to_slurm(
    settings: Pretrain, verb: list[str], act: Callable[[list[str]], int], cluster: str = "slurm"
) -> Any:
    """Hands the run to Slurm; submitit's job. `verb`: the command as it was typed, which `act` will be given.

    Mistake in a sentence where there is no Slurm, or it refuses, or the run's folder holds another run.
    """
    asked, folder = settings.slurm, settings.out / "slurm"
    is_resuming(settings)
    submitit = require_submitit()
    if cluster == "slurm" and not shutil.which("sbatch"):
        raise UserError("there is no sbatch here: run this where jobs are submitted, or leave --slurm.nodes out")
    executor = submitit.AutoExecutor(folder=folder, cluster=cluster, slurm_max_num_timeout=MAX_TIMEOUTS)
    executor.update_parameters(
        name=settings.out.resolve().name,
        nodes=asked.nodes,
        tasks_per_node=max(1, asked.gpus),
        cpus_per_task=asked.cpus,
        timeout_min=math.ceil(parse_duration(asked.time) / 60),
        slurm_signal_delay_s=NOTICE_SECONDS,
        slurm_additional_parameters={"requeue": True, **dict(map(parse_option, asked.options))},
        **({"gpus_per_node": asked.gpus} if asked.gpus else {}),
    )
    try:
        job = executor.submit(SlurmJob(act, resume_command(verb)))
    except submitit.core.utils.FailedJobError as error:
        lines = str(error).strip().splitlines()
        said = next((line for line in lines if "error:" in line), lines[-1])
        raise UserError(f"Slurm refused the job ({said}): mend --slurm.*") from error
    info(f"submitted  job {job.job_id}; what it says: {folder}/{job.job_id}_0_log.out; what it learns: {settings.out}")
    return job


def resume_command(verb: list[str]) -> list[str]:
    """The command without what concerns Slurm, and such that it goes on where it was left."""
    kept, skipping = [], False
    for each in verb:
        if each.startswith("--"):
            skipping = each.startswith("--slurm.")
        if not skipping:
            kept.append(each)
    return kept if any(each.startswith("--resume") for each in kept) else [*kept, "--resume", "if-any"]


def parse_option(text: str) -> tuple[str, str]:
    """A name and a value. Mistake if it is not NAME=VALUE."""
    name, sign, value = text.lstrip("-").partition("=")
    if not sign:
        raise UserError(f"{text!r} is no option of sbatch: write --slurm.options partition=long account=vision")
    return name.replace("-", "_"), value


def require_submitit() -> ModuleType:
    """submitit, which an extra brings. Mistake without it."""
    try:
        import submitit
        import submitit.core.utils
    except ImportError as error:
        raise UserError("jobs of Slurm want submitit: pip install 'openjepa[slurm]'") from error
    return submitit
