"""A run of several processes, started as torchrun would start them on this machine."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

from openjepa import config
from openjepa.config import Pretrain

RUN = """
import json, os, sys
import torch
from openjepa import config, runs
from tests.small import small
small()
runs.pretrain(config.from_json(json.loads(sys.argv[1])))
"""
GUARDED = """
import json, sys
from openjepa import cli, config, distributed, runs
from tests.small import small
small()
distributed.ROLL = 4.0
raise SystemExit(cli.guarded(lambda _: runs.pretrain(config.from_json(json.loads(sys.argv[1]))), []))
"""


def started(settings: Pretrain, ranks: int = 2, code: str = RUN, **options: Any) -> list[subprocess.Popen]:
    """The processes of a run."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-c", code, json.dumps(config.to_json(settings))]
    shared = {
        **os.environ,
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "WORLD_SIZE": str(ranks),
        "LOCAL_WORLD_SIZE": str(ranks),
    }
    return [
        subprocess.Popen(command, env={**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)}, **options)
        for rank in range(ranks)
    ]


def bearing(mark: str) -> list[int]:
    """The processes that were started with a variable of this name, us aside."""
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        try:
            if int(place.name) != os.getpid() and mark.encode() in (place / "environ").read_bytes():
                found.append(int(place.name))
        except OSError:  # it has just gone, or is not ours
            continue
    return found
