"""Kill a run at random moments, again and again, and check that nothing is lost.

    python benchmarks/chaos.py --minutes 30 --ranks 2          (make chaos)

Every round trains one seed twice: undisturbed, and killed at random moments (one process or all, by SIGKILL or
SIGTERM, also while it starts or saves), then started again with `--resume if-any` until it finishes. Reported are the
kills, the steps that had to be repeated, and whether weights, optimizer state and log equal those of the undisturbed
run, bit for bit.
"""

import argparse
import dataclasses
import json
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import TextIO

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.kills import small
from openjepa.training.checkpoint import list_checkpoints
from openjepa.training.config import Pretrain
from openjepa.training.log import read_metrics
from tests.faults import load_outcome, same_outcome
from tests.ranks import GUARDED, rank_environments, settings_argument

PATIENCE = 120.0  # seconds for processes to exit after one of them was killed


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--steps", type=int, default=300, help="steps per run, with a checkpoint every 20")
    parser.add_argument("--between", type=float, default=12.0, help="maximum seconds from a start to a kill")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="a JSON file for the counts")
    options = parser.parse_args()
    until, rng, counts = time.monotonic() + 60 * options.minutes, random.Random(options.seed), Counter()
    with tempfile.TemporaryDirectory() as name:
        base = dataclasses.replace(
            small(Path(name)), steps=options.steps, save_every=20, log_every=1, keep_last=2, rank_timeout="20s"
        )
        while time.monotonic() < until:
            seed = options.seed + counts["rounds"]
            whole, torn = (dataclasses.replace(base, seed=seed, out=Path(name) / kind) for kind in ("whole", "torn"))
            finished(whole, options.ranks)
            while not disturbed(torn, options, rng, counts):
                pass
            identical = same_outcome(load_outcome(torn.out), load_outcome(whole.out))
            counts["rounds"] += 1
            counts["diverged"] += not identical
            print(", ".join(f"{count} {what}" for what, count in counts.items()), flush=True)
            for out in (whole.out, torn.out):
                shutil.rmtree(out)
    if options.out:
        options.out.write_text(json.dumps({**vars(options), "out": None, **counts}, indent=1))
    sys.exit(counts["diverged"] > 0)


def finished(settings: Pretrain, ranks: int) -> None:
    """Train the run undisturbed."""
    processes = started(settings, ranks)
    assert [process.wait() for process in processes] == [0] * ranks


def started(settings: Pretrain, ranks: int, said: TextIO | None = None) -> list[subprocess.Popen]:
    """Start the processes of a run, each a fresh Python, since it may be killed while it starts, too."""
    command = [sys.executable, "-c", GUARDED, settings_argument(settings)]
    return [
        subprocess.Popen(command, env=each, stdout=subprocess.DEVNULL, stderr=said) for each in rank_environments(ranks)
    ]


def disturbed(settings: Pretrain, options: argparse.Namespace, rng: random.Random, counts: Counter) -> bool:
    """Start or resume a run and kill it; return whether it finished before that."""
    said = settings.out.with_name("said.txt")
    with said.open("w") as stream:
        processes = started(settings, options.ranks, stream)
        end = time.monotonic() + rng.uniform(0.5, options.between)
        while time.monotonic() < end and any(process.poll() is None for process in processes):
            time.sleep(0.01)
        if all(process.poll() == 0 for process in processes):
            return True
        assert all(process.poll() in (None, 0) for process in processes), said.read_text()
        number = rng.choice((signal.SIGKILL, signal.SIGKILL, signal.SIGTERM))
        victims = processes if rng.random() < 0.5 else [rng.choice(processes)]
        for process in victims:
            process.send_signal(number)
        left = [process.wait(PATIENCE) for process in processes]
    if all(status == 0 for status in left):
        return True  # it had just finished
    counts[f"{number.name} to {'all' if victims == processes else 'one'}"] += 1
    rows, kept = read_metrics(settings.out / "metrics.jsonl"), list_checkpoints(settings.out / "checkpoints")
    taken, saved = rows[-1]["step"] if rows else 0, int(kept[0].name.removeprefix("step-")) if kept else 0
    counts["steps taken again"] += max(0, taken - saved)
    if number == signal.SIGKILL:
        counts["most at once"] = max(counts["most at once"], taken - saved)
    return False


if __name__ == "__main__":
    main()
