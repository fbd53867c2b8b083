"""Test the automatic settings with other learning rates, batches and images, beside the other methods.

    python studies/small_data/robust.py folders/digits folders/scenes --budget 90s

Each folder has train/CLASS/ and test/CLASS/. Two runs go in parallel, one thread each, with `--budget` and no other
setting; then each with a third and three times the learning rate, and with larger batches. Probes are measured on the
test part, beside the encoder before training. Finished runs are kept under the folder's name: call it again to
resume, or to see the table.
"""

import argparse
import dataclasses
import json
import os
import statistics
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[2]))

from openjepa.cli.pretrain import pretrain
from openjepa.core.fileio import atomic_write
from openjepa.evaluation.features import compute_features
from openjepa.interop.pretrained import POOLED_KINDS, PretrainedEncoder, load_run, untrained_encoder
from openjepa.recipes.auto import choose_config
from openjepa.training.budget import time_step
from openjepa.training.collapse import CollapseAlarm
from openjepa.training.config import Pretrain, load_config
from openjepa.training.device import choose_device
from openjepa.training.log import read_metrics
from openjepa.training.perf.allocator import retain_freed_memory
from openjepa.training.setup import prepare_data
from studies.small_data.arms import ARMS, Change, batch, both, masks, method, optim
from studies.small_data.run import accuracies, compared


def rate(times: float) -> Change:
    return lambda base: dataclasses.replace(base, optim=dataclasses.replace(base.optim, lr=times * base.optim.lr))


# The automatic settings before the EMA ramp-up
BEFORE = both(masks(target_fraction=0.5), method(target_stride=1), optim(lr=7e-4, ema_rampup=0.0))


def slow(base: Pretrain) -> Pretrain:
    """Start with a higher EMA momentum, as the demo once did."""
    return dataclasses.replace(base, optim=dataclasses.replace(base.optim, ema_momentum=0.996))


QUICK = ("logistic", "kNN")  # heads by SGD take longer than a budget of minutes where there are many classes
CHANGES: dict[str, Change] = {
    "as chosen": lambda base: base,
    "lr / 3": rate(1 / 3),
    "lr / 2": rate(1 / 2),
    "lr × 3": rate(3),
    "slow, lr × 3": both(slow, rate(3)),
    "batch 64": batch(64),
    "batch 256": batch(256),
    "batch 1024": batch(1024),
    "an average of a hundred": optim(ema_rampup=0.0),
    "as chosen before": BEFORE,
    "AdamW": optim(optimizer="adamw"),
    "AdamW, lr × 3": both(optim(optimizer="adamw"), rate(3)),
    "MAE": both(ARMS["MAE, light, half asked"], batch(128)),
    "MAE, Muon": both(ARMS["MAE, light, Muon, lr 4e-3"], optim(lr=2e-3)),
    "VICReg": both(ARMS["VICReg, half shown, crops"], batch(128)),
    "VICReg, a quarter shown": both(ARMS["VICReg, fast, a quarter shown"], batch(128)),
    "VICReg, colours": both(ARMS["VICReg, half shown, crops and colours"], batch(128)),
}


def settings_of(folder: Path, change: str, options: argparse.Namespace) -> Pretrain:
    """Return the automatic settings with a change."""
    settings = choose_config((str(folder / "train"),), options.budget, threads=1).config
    settings = dataclasses.replace(
        settings, **({"steps": options.steps} if options.steps else {"budget": options.budget})
    )
    settings = dataclasses.replace(settings, seed=options.seed, threads=1, workers=0, log_every=10, resume="if-any")
    return CHANGES[change](dataclasses.replace(settings, out=folder_of(folder, change, options)))


def one(folder: Path, change: str, options: argparse.Namespace) -> None:
    """Pretrain, probe and write result.json. The time of a resumed run is that of its last part."""
    out, start = folder_of(folder, change, options), time.perf_counter()
    if not (out / "export" / "config.json").exists():
        pretrain(settings_of(folder, change, options))
    seconds = time.perf_counter() - start
    trained = load_run(out)
    alarm = CollapseAlarm(trained.config.method)
    log = list(read_metrics(out / "metrics.jsonl"))
    alarms = [row["step"] for row in log if alarm.check(row)]
    scores = {
        "after": probed(trained, folder),
        "before": before(untrained_encoder(trained.config), folder, out.parent),
    }
    spread = min((row["target_std"] for row in log if "target_std" in row), default=None)
    steps = load_config(out).steps
    result = {"steps": steps, "seconds": seconds, "target_std": spread, "alarm": alarms, **scores}
    (out / "result.json").write_text(json.dumps(result))


def in_turn(options: argparse.Namespace) -> None:
    """Print how long a step of each change takes, the median of several turns."""
    device = choose_device("cpu")
    for folder in options.folders:
        made = []
        for change in options.changes:
            settings = dataclasses.replace(settings_of(folder, change, options), steps=1000, budget="")
            packed = options.out / "packed" / folder.name
            made.append(prepare_data(settings, device, settings.data.listing(), packed))
        timed = [[time_step(each, data, device).step_seconds for data, each in made] for _ in range(options.turns)]
        for change, each in zip(options.changes, zip(*timed, strict=True), strict=True):
            print(f"{folder.name}, {change}: {1000 * statistics.median(each):.0f} ms a step", flush=True)


def before(encoder: PretrainedEncoder, folder: Path, out: Path) -> dict[str, float]:
    """Return the accuracies of the untrained encoder, measured once."""
    file = out / f"before-{encoder.fingerprint}.json"
    if not file.exists():
        with atomic_write(file) as temporary:  # another run may be about to read it
            temporary.write_text(json.dumps(probed(encoder, folder)))
    return json.loads(file.read_text())


def probed(encoder: PretrainedEncoder, folder: Path) -> dict[str, float]:
    """Return the accuracies on the test part."""
    parts = []
    for name in ("train", "test"):
        part = dataclasses.replace(encoder.data, root=(str(folder / name),))
        parts.append(part.dataset(part.listing()))
    train, test = (compute_features(encoder, part, choose_device("cpu"), POOLED_KINDS) for part in parts)
    return accuracies(compared(train, test, len(parts[0].classes), QUICK))


def folder_of(folder: Path, change: str, options: argparse.Namespace) -> Path:
    length = f"{options.steps}steps" if options.steps else options.budget
    length += f"-seed{options.seed}" if options.seed else ""
    return options.out / length / folder.name / change.replace(" ", "").replace("/", "by").replace("×", "times")


def table(options: argparse.Namespace) -> None:
    print(
        "\n| folder | change | steps | time | lowest target_std | "
        + " | ".join(f"{n} % (before)" for n in QUICK)
        + " |"
    )
    print("|---" * 7 + "|")
    for folder in options.folders:
        for change in CHANGES:
            file = folder_of(folder, change, options) / "result.json"
            if not file.exists():
                continue
            found = json.loads(file.read_text())
            cells = [f"{100 * found['after'][n]:.1f} ({100 * found['before'][n]:.1f})" for n in QUICK]
            spread = "–" if found["target_std"] is None else f"{found['target_std']:.2f}"
            spread += f", alarm at {found['alarm'][0]}" if found["alarm"] else ""
            print(
                f"| {folder.name} | {change} | {found['steps']:,} | {found['seconds']:.0f} s | {spread} | "
                f"{' | '.join(cells)} |"
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--out", type=Path, default=Path("runs/robust"))
    parser.add_argument("--budget", default="90s")
    parser.add_argument("--steps", type=int, default=0, help="steps per run, independent of the machine's speed")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--changes", nargs="+", choices=CHANGES, default=list(CHANGES))
    parser.add_argument("--together", type=int, default=2, help="runs in parallel")
    parser.add_argument("--turns", type=int, default=0, help="time the steps this many times in turn, and exit")
    parser.add_argument("--one", metavar="CHANGE", help=argparse.SUPPRESS)
    options = parser.parse_args()
    retain_freed_memory()  # as `jepa` does
    torch.set_num_threads(1)
    if options.turns:
        return in_turn(options)
    if options.one:
        return one(options.folders[0], options.one, options)

    def start(job: tuple[Path, str]) -> None:
        folder, change = job
        out = folder_of(folder, change, options)
        if (out / "result.json").exists():
            return
        out.parent.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, __file__, folder, "--out", options.out, "--budget", options.budget]
        command += ["--steps", options.steps, "--seed", options.seed, "--one", change]
        with out.with_suffix(".log").open("w") as log:
            environment = {**os.environ, "OMP_NUM_THREADS": "1"}
            done = subprocess.run([str(word) for word in command], stdout=log, stderr=log, env=environment)
        print(f"{folder.name}, {change}: " + ("done" if not done.returncode else f"failed, see {log.name}"), flush=True)

    with ThreadPoolExecutor(options.together) as pool:
        list(pool.map(start, [(folder, change) for folder in options.folders for change in options.changes]))
    table(options)


if __name__ == "__main__":
    main()
