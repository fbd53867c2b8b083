"""Start a run of several processes as torchrun would start them on this machine."""

import json
import os
import socket
from pathlib import Path

from openjepa.training.config import Pretrain, to_json
from tests.ready import Ready

RUN = """
import json, os, sys
import torch
from openjepa.cli.pretrain import pretrain
from openjepa.training.config import from_json
from tests.small import small
small()
pretrain(from_json(json.loads(sys.argv[1])))
"""
GUARDED = """
import json, sys
from openjepa.cli.main import run_guarded
from openjepa.cli.pretrain import pretrain
from openjepa.training.config import from_json
from openjepa.training.parallel import launch
from tests.small import small
small()
launch.ROLL_CALL_SECONDS = 4.0
raise SystemExit(run_guarded(lambda _: pretrain(from_json(json.loads(sys.argv[1]))), []))
"""


def start_ranks(settings: Pretrain, ranks: int = 2, code: str = RUN, capture_stderr: bool = False) -> list[Ready]:
    """Start the processes of a run."""
    return [
        Ready(code, settings_argument(settings), env=each, capture_stderr=capture_stderr)
        for each in rank_environments(ranks)
    ]


def rank_environments(ranks: int) -> list[dict[str, str]]:
    """Return the environment variables of each process of a run."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    shared = {
        **os.environ,
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "WORLD_SIZE": str(ranks),
        "LOCAL_WORLD_SIZE": str(ranks),
    }
    return [{**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(ranks)]


def settings_argument(settings: Pretrain) -> str:
    """Return settings as a command line argument."""
    return json.dumps(to_json(settings))


def processes_with_variable(name: str) -> list[int]:
    """Return the ids of other processes that were started with this environment variable."""
    pids = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if int(folder.name) != os.getpid() and name.encode() in (folder / "environ").read_bytes():
                pids.append(int(folder.name))
        except OSError:  # the process has just ended, or belongs to another user
            continue
    return pids
