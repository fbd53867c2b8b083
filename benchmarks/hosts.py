"""Train on two hosts, lose one, continue on the other, then on both: losses equal those of an undisturbed run.

    sudo python benchmarks/hosts.py                 network namespaces with a virtual cable, as two machines
    python benchmarks/hosts.py --loopback           two process groups on this machine

Every process is started by torchrun. Losses must agree within 1e-6 with an undisturbed run of one process, in fp32.
"""

import argparse
import dataclasses
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.kills import small
from openjepa.training.checkpoint import list_checkpoints
from openjepa.training.config import Pretrain, to_json
from openjepa.training.log import read_metrics
from tests.ranks import processes_with_variable

NAMES, CABLE, ADDRESSES = ("jepa0", "jepa1"), ("cable0", "cable1"), ("10.77.0.1", "10.77.0.2")
PORT = 29517
RUN = """
import json, sys
from openjepa.cli.main import run_guarded
from openjepa.cli.pretrain import pretrain
from openjepa.training.config import from_json
settings = json.load(open(sys.argv[1]))
raise SystemExit(run_guarded(lambda _: pretrain(from_json(settings)), []))
"""


def connect() -> None:
    """Create two namespaces and a cable; remove what an earlier call left."""
    disconnect()
    for name in NAMES:
        ip("netns", "add", name)
    ip("link", "add", CABLE[0], "type", "veth", "peer", "name", CABLE[1])
    for name, end, address in zip(NAMES, CABLE, ADDRESSES, strict=True):
        ip("link", "set", end, "netns", name)
        ip("-n", name, "addr", "add", f"{address}/24", "dev", end)
        for device in (end, "lo"):
            ip("-n", name, "link", "set", device, "up")


def disconnect() -> None:
    for name in NAMES:
        subprocess.run(["ip", "netns", "delete", name], capture_output=True)


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True)


def start(host: int, hosts: int, settings: Pretrain, loopback: bool) -> subprocess.Popen:
    """Start torchrun with one process on a host, in a session of its own."""
    plain = settings.out.with_name(f"settings{host}.json")
    plain.write_text(json.dumps(to_json(settings)))
    code = settings.out.with_name("run.py")
    code.write_text(RUN)
    into = [] if loopback else ["ip", "netns", "exec", NAMES[host]]
    command = [
        *into, sys.executable, "-m", "torch.distributed.run", "--nnodes", hosts, "--node-rank", host,
        "--nproc-per-node", 1, "--master-addr", "127.0.0.1" if loopback else ADDRESSES[0], "--master-port", PORT,
        code, plain,
    ]  # fmt: skip
    device = {} if loopback else {"GLOO_SOCKET_IFNAME": CABLE[host]}
    environment = {
        **os.environ,
        mark(host): "1",
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(Path(__file__).parents[1]),
        **device,
    }
    said = settings.out.with_name(f"said{host}.txt").open("w")
    return subprocess.Popen(
        [str(word) for word in command], env=environment, start_new_session=True, stdout=said, stderr=said
    )


def mark(host: int) -> str:
    """Name a variable that all processes of a host have in their environment."""
    return f"HOST_{host}_OF_{os.getpid()}"


def lose(host: int) -> None:
    """Kill everything on a host at once."""
    for process in processes_with_variable(mark(host)):
        os.kill(process, signal.SIGKILL)


def saved(settings: Pretrain) -> int:
    """Return the step of the newest checkpoint."""
    kept = list_checkpoints(settings.out / "checkpoints")
    return int(kept[0].name.removeprefix("step-")) if kept else 0


def until(settings: Pretrain, step: int, processes: list[subprocess.Popen]) -> None:
    """Wait for a checkpoint of a step or a later one."""
    while saved(settings) < step:
        assert all(process.poll() is None for process in processes), settings.out.with_name("said0.txt").read_text()
        time.sleep(0.02)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--loopback", action="store_true")
    parser.add_argument("--steps", type=int, default=1500)
    options = parser.parse_args()
    if not options.loopback:
        connect()
    try:
        with tempfile.TemporaryDirectory() as name:
            tried(Path(name), options)
    finally:
        if not options.loopback:
            disconnect()


def tried(folder: Path, options: argparse.Namespace) -> None:
    base = dataclasses.replace(
        small(folder), steps=options.steps, save_every=50, log_every=1, keep_last=2, rank_timeout="60s"
    )
    whole, torn = (dataclasses.replace(base, out=folder / name) for name in ("whole", "torn"))
    assert start(0, 1, whole, options.loopback).wait() == 0

    both = [start(host, 2, torn, options.loopback) for host in (0, 1)]
    until(torn, options.steps // 4, both)
    lose(1)
    lost = time.monotonic()
    while "has died or does not answer" not in torn.out.with_name("said0.txt").read_text():
        assert time.monotonic() < lost + 90
        time.sleep(0.1)
    print(
        f"two hosts to step {saved(torn)}; one is lost, the other's process reports it after "
        f"{time.monotonic() - lost:.0f} s"
    )
    os.killpg(both[0].pid, signal.SIGTERM)  # its torchrun would wait five minutes for the lost one's
    both[0].wait(60)

    begun, alone = saved(torn), [start(0, 1, torn, options.loopback)]
    until(torn, begun + options.steps // 4, alone)
    os.killpg(alone[0].pid, signal.SIGTERM)
    alone[0].wait(60)
    print(f"one host to step {saved(torn)}")

    both = [start(host, 2, torn, options.loopback) for host in (0, 1)]
    assert [process.wait(600) for process in both] == [0, 0], torn.out.with_name("said0.txt").read_text()
    losses = [[row["loss"] for row in read_metrics(each.out / "metrics.jsonl")] for each in (whole, torn)]
    assert len(losses[0]) == len(losses[1]) == options.steps
    differences = [abs(one - other) for one, other in zip(*losses, strict=True)]
    print(
        f"two hosts to step {saved(torn)}; losses differ by at most {max(differences[:20]):.1e} in 20 steps, "
        f"{max(differences):.1e} in {options.steps}"
    )


if __name__ == "__main__":
    main()
