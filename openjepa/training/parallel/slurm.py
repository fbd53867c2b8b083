"""Submit a run to Slurm through submitit, and requeue it until it has finished."""

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

NOTICE_SECONDS = 120  # a job gets its signal this many seconds before its time limit

MAX_TIMEOUTS = 1000  # requeues after a time limit before submitit gives up


class SlurmJob:
    """The function that a job calls: `act` on the arguments, once per process."""

    def __init__(self, act: Callable[[list[str]], int], arguments: list[str]):
        self.act, self.arguments = act, arguments

    def __call__(self) -> None:
        from submitit import JobEnvironment
        from submitit.helpers import TorchDistributedEnvironment

        TorchDistributedEnvironment().export(set_cuda_visible_devices=False, overwrite=True)
        status = self.act(self.arguments)
        requeue_signal = JobEnvironment._usr_sig()
        if status == 128 + requeue_signal:  # the run has saved and stopped; pass the signal on to submitit
            os.kill(os.getpid(), requeue_signal)  # the first process requeues the job and ends here
            time.sleep(NOTICE_SECONDS)  # the other processes must not end before it; Slurm ends them with it
        raise SystemExit(status)

    def checkpoint(self) -> object:
        """Return the submission for submitit to requeue: the same command, which resumes from the last checkpoint."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


def submit_to_slurm(
    settings: Pretrain, command: list[str], act: Callable[[list[str]], int], cluster: str = "slurm"
) -> Any:
    """Submit the run to Slurm and return submitit's job.

    `command`: the arguments as typed; the job calls `act` on them, without --slurm.* and with --resume if-any.

    Raises:
        UserError: Slurm or submitit is missing, Slurm refuses the job, or the folder already holds another run.
    """
    slurm, folder = settings.slurm, settings.out / "slurm"
    is_resuming(settings)
    submitit = require_submitit()
    if cluster == "slurm" and not shutil.which("sbatch"):
        raise UserError("sbatch is not on this machine: run the command on a login node, or leave out --slurm.nodes")
    executor = submitit.AutoExecutor(folder=folder, cluster=cluster, slurm_max_num_timeout=MAX_TIMEOUTS)
    executor.update_parameters(
        name=settings.out.resolve().name,
        nodes=slurm.nodes,
        tasks_per_node=max(1, slurm.gpus),
        cpus_per_task=slurm.cpus,
        timeout_min=math.ceil(parse_duration(slurm.time) / 60),
        slurm_signal_delay_s=NOTICE_SECONDS,
        slurm_additional_parameters={"requeue": True, **dict(map(parse_option, slurm.options))},
        **({"gpus_per_node": slurm.gpus} if slurm.gpus else {}),
    )
    try:
        job = executor.submit(SlurmJob(act, resume_command(command)))
    except submitit.core.utils.FailedJobError as error:
        raise UserError(f"Slurm refused the job ({slurm_error(str(error))}): change --slurm.*") from error
    info(f"submitted  job {job.job_id}; output: {folder}/{job.job_id}_0_log.out; run folder: {settings.out}")
    return job


def slurm_error(output: str) -> str:
    """Return the line of sbatch's output that states the error, else its last line."""
    lines = output.strip().splitlines()
    return next((line for line in lines if "error:" in line), lines[-1])


def resume_command(command: list[str]) -> list[str]:
    """Return the command without its --slurm.* flags, and with `--resume if-any` unless it has --resume already."""
    rest, skipping = [], False
    for each in command:
        if each.startswith("--"):
            skipping = each.startswith("--slurm.")
        if not skipping:
            rest.append(each)
    return rest if any(each.startswith("--resume") for each in rest) else [*rest, "--resume", "if-any"]


def parse_option(text: str) -> tuple[str, str]:
    """Split NAME=VALUE into sbatch's parameter name and its value. Raises UserError if there is no =."""
    name, sign, value = text.lstrip("-").partition("=")
    if not sign:
        raise UserError(
            f"--slurm.options must be NAME=VALUE, got {text!r}: try --slurm.options partition=long account=vision"
        )
    return name.replace("-", "_"), value


def require_submitit() -> ModuleType:
    """Import submitit, from the extra `slurm`. Raises UserError if it is not installed."""
    try:
        import submitit
        import submitit.core.utils
    except ImportError as error:
        raise UserError("Slurm jobs require submitit: pip install 'openjepa[slurm]'") from error
    return submitit
