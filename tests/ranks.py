"""A run of several processes, started as torchrun would start them on this machine."""

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


def started(settings: Pretrain, ranks: int = 2, code: str = RUN, heard: bool = False) -> list[Ready]:
    """The processes of a run; what they say on stderr is kept where they are `heard`."""
    return [Ready(code, dump(settings), env=each, heard=heard) for each in variables(ranks)]


def variables(ranks: int) -> list[dict[str, str]]:
    """What each process of a run is started with."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {
        **os.environ,
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "WORLD_SIZE": str(ranks),
        "LOCAL_WORLD_SIZE": str(ranks),
    }
    return [{**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(ranks)]


def dump(settings: Pretrain) -> str:
    """What a run is told."""
    return json.dumps(to_json(settings))


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
